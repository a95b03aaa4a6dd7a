"""Headers that were read before, kept in one SQLite file of the user.

Nothing in it is believed that does not fit: a record counts for a file of the same size, time of change and inode, and
the bytes of a folder's records count if their digest is right. A file that SQLite cannot read is put aside.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from hashlib import blake2b
from importlib.metadata import version
from io import BytesIO
from typing import Any, NamedTuple, TypeVar

from lazyvol import records, uptake

__all__ = ["HeaderCache", "Known", "Stamp", "default_cache"]

Result = TypeVar("Result")

_LAYOUT = 1
_FRESH = 2 * 10**9
"""A file that was changed so short ago, ns, could change again within the same tick of its clock."""


class Stamp(NamedTuple):
    """What tells a file from what it was."""

    size: int
    """Bytes."""

    modified: int
    """When its content was last changed, ns since 1970; programs may set it back."""

    changed: int
    """When it was last changed in any way, ns since 1970."""

    inode: int
    """Its number in the file system."""

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return that of a file."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


_CLASSES = {
    ("lazyvol.records", name): getattr(records, name)
    for name in ("Frame", "Instance", "LookupTable", "PixelFormat", "Segment", "Skipped")
} | {("lazyvol.uptake", "Uptake"): uptake.Uptake, (__name__, "Stamp"): Stamp}
"""What a cache may hold beside plain values; nothing else is made of its bytes."""

Known = Mapping[str, tuple[Stamp, Any]]
"""By name in a folder: the file as it was, and what was read of it."""


def default_cache() -> str:
    """Return where the cache of a user lies: ``LAZYVOL_CACHE``, or ``headers.sqlite`` in the user's cache folder."""
    given = os.environ.get("LAZYVOL_CACHE")
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return given or os.path.join(folder, "lazyvol", "headers.sqlite")


class HeaderCache:
    """What was read of the files of folders.

    Two processes may use one cache at a time. A cache that cannot be made or written is none: reading goes on without.

    Parameters
    ----------
    path
        The SQLite file; it is made with mode 0600, since headers hold more than the names of files. Empty for none.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.works = bool(path)
        """Whether it could be used so far."""
        self._of = f"{_LAYOUT} {version('lazyvol')}".encode()[:64]

    def known(self, folders: Sequence[str]) -> dict[str, Known]:
        """Return what is kept of the files of some folders, by folder."""
        found: dict[str, Known] = {folder: {} for folder in folders}

        def read(connection: sqlite3.Connection) -> list[tuple[str, Any, Any]]:
            asked = "SELECT path, digest, content FROM folder WHERE path = ?"
            rows = (connection.execute(asked, [os.fsencode(folder)]).fetchone() for folder in folders)
            return [(os.fsdecode(row[0]), *row[1:]) for row in rows if row and isinstance(row[0], bytes)]

        for folder, digest, content in self._do(read) or ():
            if isinstance(content, bytes) and digest == self._digest(content):
                with suppress(Exception):  # of another version, or damaged so that its digest fits
                    found[folder] = _Unpickler(BytesIO(zlib.decompress(content))).load()
        return found

    def keep(self, folders: Iterable[tuple[str, Known]]) -> None:
        """Keep what was read of the files of some folders; what was changed just now is not kept."""
        latest = time.time_ns() - _FRESH
        rows = []
        for folder, known in folders:
            settled = {name: entry for name, entry in known.items() if entry[0].changed < latest}
            content = zlib.compress(pickle.dumps(settled, 5), 1)
            rows.append((os.fsencode(folder), self._digest(content), content))

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", rows)
            connection.commit()

        self._do(write)

    def _digest(self, content: bytes) -> bytes:
        """Return what vouches for the bytes of a folder's records: they are of this version of lazyvol, and whole."""
        return blake2b(content, digest_size=16, key=self._of).digest()

    def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Do something with the file; make it anew if it is damaged; None if it cannot be used."""
        for _ in range(2):
            if not self.works:
                break
            try:
                with closing(self._connect()) as connection:
                    return work(connection)
            except sqlite3.OperationalError:  # no room, no right, or another process holds it for too long
                self.works = False
            except sqlite3.DatabaseError:  # whatever it is, it may be dear to somebody
                for name in (self.path, f"{self.path}-wal", f"{self.path}-shm"):
                    with suppress(OSError):
                        os.replace(name, f"{name}.damaged")
            except (OSError, UnicodeEncodeError):
                self.works = False
        return None

    def _connect(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        status = os.stat(self.path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{self.path} is no regular file")
        connection = sqlite3.connect(self.path, timeout=60)
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables - {"folder"}:
                raise OSError(f"{self.path} is the database of something else")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS folder (path BLOB PRIMARY KEY, digest BLOB, content BLOB)")
        except BaseException:
            connection.close()
            raise
        return connection


class _Unpickler(pickle.Unpickler):
    """Makes records of bytes, and nothing else: a cache that somebody else wrote runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        return _CLASSES[module, name]
