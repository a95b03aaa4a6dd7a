"""Where the files of a store lie: in a local folder, or in any store of zarr.

A place is a small value that pickles; it holds no open file.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import zarr
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from lazyvol.errors import OptionError, StoreError
from lazyvol.subfolder import Subfolder, is_transaction

__all__ = [
    "WHOLE",
    "LocalPlace",
    "Place",
    "ReadAt",
    "StoreLike",
    "ZarrPlace",
    "is_of",
    "place_of",
    "require_of",
    "unwritable",
]

StoreLike = str | os.PathLike[str] | Store
"""A folder, a URL that fsspec knows, or a store of zarr."""

WHOLE = 1 << 30
"""As a length: all of a file. Shards and metadata are shorter."""

ReadAt = Callable[[int, int], bytes]
"""Returns so many bytes of a file from one on; from the end on where the first number is negative."""


class Place(Protocol):
    """Where the files of a store lie."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def store(self) -> Any:
        """What zarr and xarray take for it."""

    def write(self, key: str, parts: Sequence[bytes]) -> None:
        """Write a file, which appears whole or not at all."""

    def reader(self, key: str) -> Any:
        """Return a context that gives a `ReadAt` of a file; raises OSError if there is none."""

    def sizes(self, under: str, keys: Iterable[str]) -> dict[str, int]:
        """Return the bytes of files below a folder, 0 for one that is absent."""

    def all_keys(self) -> list[str]:
        """Return all files."""

    def names_in(self, folder: str) -> list[str]:
        """Return what is in a folder."""

    def within(self, folder: str) -> Place:
        """Return a folder of it as a place of its own."""


def unwritable(name: str, error: OSError) -> StoreError:
    """Return the error that says why a store cannot be written on."""
    return StoreError(
        f"{name} cannot be written: {error.strerror or error}. Make room, or mend that, and call save_zarr with the "
        "same volume: what is written stays, and only the rest is added."
    )


def is_of(place: Place, uid: str) -> bool:
    """Return whether a place holds the store of this uid still: another writer may have begun its own there."""
    try:
        with place.reader("zarr.json") as read_at:
            return uid.encode() in read_at(0, WHOLE)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unwritable(place.name, error) from error


def require_of(place: Place, uid: str) -> None:
    """Raise if another writer has begun in a place since."""
    if not is_of(place, uid):
        raise StoreError(f"{place.name} is no longer what this writer began: another one has taken over. Save again.")


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A local folder."""

    path: str

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    @property
    def store(self) -> str:
        """Its path."""
        return self.path

    def write(self, key: str, parts: Sequence[bytes]) -> None:
        """Write a file under another name, and rename it."""
        path = os.path.join(self.path, key)
        partial = f"{path}.{uuid.uuid4().hex}.partial"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(partial, "wb") as file:
                file.writelines(parts)
            os.replace(partial, path)
        except BaseException as error:
            if os.path.exists(partial):
                os.remove(partial)
            if isinstance(error, OSError):
                raise unwritable(self.path, error) from error
            raise

    @contextmanager
    def reader(self, key: str) -> Iterator[ReadAt]:
        """Give a function that reads the file, open for as long."""
        with open(os.path.join(self.path, key), "rb", buffering=0) as file:

            def read_at(offset: int, length: int) -> bytes:
                size = os.fstat(file.fileno()).st_size
                file.seek(offset if offset >= 0 else max(0, size + offset))
                return file.read(min(length, size))

            yield read_at

    def sizes(self, under: str, keys: Iterable[str]) -> dict[str, int]:
        """Return the bytes of files."""
        return {key: _size(os.path.join(self.path, under, key)) for key in keys}

    def all_keys(self) -> list[str]:
        """Return all files."""
        walk = os.walk(self.path)
        return [os.path.relpath(os.path.join(folder, name), self.path) for folder, _, names in walk for name in names]

    def names_in(self, folder: str) -> list[str]:
        """Return what is in a folder."""
        return os.listdir(os.path.join(self.path, folder))

    def within(self, folder: str) -> LocalPlace:
        """Return a folder of it."""
        return LocalPlace(os.path.join(self.path, folder))


@dataclass(frozen=True, slots=True)
class ZarrPlace:
    """A store of zarr."""

    store: Any
    """A `zarr.abc.store.Store`."""

    @property
    def name(self) -> str:
        """What it calls itself."""
        return str(self.store)

    def write(self, key: str, parts: Sequence[bytes]) -> None:
        """Set a key, in one request."""
        try:
            sync(self.store.set(key, cpu.Buffer.from_bytes(b"".join(parts))))
        except Exception as error:  # each service has errors of its own
            raise StoreError(
                f"{key} cannot be written to {self.name}: {type(error).__name__}. What was written before stands; call "
                "again to go on with it."
            ) from error

    @contextmanager
    def reader(self, key: str) -> Iterator[ReadAt]:
        """Give a function that makes a request for each part."""

        def read_at(offset: int, length: int) -> bytes:
            wanted: Any = SuffixByteRequest(-offset) if offset < 0 else RangeByteRequest(offset, offset + length)
            if offset == 0 and length >= WHOLE:
                wanted = None
            try:
                found = sync(self.store.get(key, default_buffer_prototype(), wanted))
            except Exception as error:  # each service has errors of its own
                raise OSError(f"{key} cannot be read from {self.name}: {type(error).__name__}") from error
            if found is None:
                raise FileNotFoundError(f"{key} is gone")
            return bytes(found.to_bytes())[:length]

        yield read_at

    def sizes(self, under: str, keys: Iterable[str]) -> dict[str, int]:
        """Return 1 for each file that a listing has: their sizes would cost a request each."""
        try:
            listed = {key.removeprefix(f"{under}/") for key in self._below(f"{under}/")}
        except Exception as error:  # each service has errors of its own
            raise OSError(f"{under} of {self.name} cannot be listed: {type(error).__name__}") from error
        return {key: int(key in listed) for key in keys}

    def all_keys(self) -> list[str]:
        """Return all keys."""
        return self._below("")

    def _below(self, folder: str) -> list[str]:
        try:
            return sync(_all(self.store, folder))
        except Exception:
            if is_transaction(self.store):  # icechunk lists no folder that is no group
                return []
            raise

    def names_in(self, folder: str) -> list[str]:
        """Return what is in a folder."""
        return sync(_names(self.store, folder))

    def within(self, folder: str) -> ZarrPlace:
        """Return a folder of it."""
        return ZarrPlace(Subfolder(self.store, folder))


async def _all(store: Store, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


async def _names(store: Store, folder: str) -> list[str]:
    return [name.rstrip("/") async for name in store.list_dir(folder)]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def place_of(store: Any, *, writable: bool) -> Place:
    """Return where a store lies.

    Raises
    ------
    StoreError
        If a URL leads nowhere.
    OptionError
        If it is neither a path nor a store of zarr.
    """
    if isinstance(store, Store) and writable and store.read_only:
        raise OptionError(f"{store} is opened for reading only. Open it for writing, or give its path.")
    if isinstance(store, LocalStore):
        return LocalPlace(str(store.root))
    if isinstance(store, Store):
        if writable and not store.supports_deletes:
            raise OptionError(
                f"{store} cannot change what it holds, so a store cannot grow in it. Save to a folder and pack that."
            )
        return ZarrPlace(store)
    if not isinstance(store, str | os.PathLike):
        raise OptionError(
            f"store={type(store).__name__} must be a path, a URL or a store of zarr {zarr.__version__}, e.g. "
            "zarr.storage.FsspecStore."
        )
    path = os.fspath(store).rstrip("/").removeprefix("file://")
    if not path or "\0" in path:
        raise OptionError(f"store={os.fspath(store)!r} is no path of a folder.")
    if "://" not in path:
        return LocalPlace(os.path.realpath(path) if os.path.islink(path) else os.path.abspath(path))
    try:
        return ZarrPlace(FsspecStore.from_url(path, read_only=not writable))
    except (ImportError, ValueError) as error:
        raise StoreError(f"{path} cannot be reached: {error}. Install what fsspec needs for it, e.g. s3fs.") from error
