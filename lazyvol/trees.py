"""Trees of anything: the headers of their DICOM files, most of them from a cache, and the stores that lie in them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lazyvol.errors import NoImagesError, SourceNotFoundError
from lazyvol.files import service_of
from lazyvol.known import HeaderCache, Known, Stamp
from lazyvol.ledger import LEDGER, OURS
from lazyvol.records import Instance, Skipped
from lazyvol.scan import Scan, read_files, scan_headers, with_digests

__all__ = ["Tree", "scan_tree"]

_BATCH = 4096
"""Files that are read before what was read is kept: so much is lost of a scan that is stopped."""
_STORE = {"zarr.json", ".zgroup", ".zarray"}
"""Files that make a folder a Zarr store."""
_UNREAD = "cannot be opened"
"""How the reason begins for what says nothing of the content of a file."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies below a folder."""

    instances: tuple[Instance, ...]
    """Files that hold pixels, by path."""

    skipped: tuple[Skipped, ...]
    """Files left out, with the reason, by path."""

    stores: tuple[str, ...]
    """Folders that are Zarr stores, by path."""

    read: int
    """How many headers had to be read; those of the others were known."""


class _Folder(NamedTuple):
    """The files of one folder."""

    path: str
    stamps: dict[str, Stamp | None]
    """By name; None for one that cannot be looked at."""


def scan_tree(root: str, *, cache: HeaderCache, client: Any = None, progress: bool = False) -> Tree:
    """Read the headers of all DICOM files below a folder; of those that are as they were, from the cache.

    Parameters
    ----------
    root
        A folder.
    cache
        What was read before; what is read now is kept there.
    client
        A ``dask.distributed`` client whose workers read the headers; they have to see the files under the same paths.
    progress
        Show a progress bar, from one second on.

    Raises
    ------
    SourceNotFoundError
        If there is no such folder.
    NoImagesError
        If it is a file.
    """
    if "://" in root:
        return _scan_url(root, progress)
    if not os.path.isdir(root):
        if os.path.lexists(root):
            raise NoImagesError(f"{root} is a file. Give a folder of series; open_volume opens one file.")
        raise SourceNotFoundError(f"{root} does not exist. Give a folder of series or of stores.")
    stores: list[str] = []
    found: list[Instance | Skipped] = []
    read = 0
    with _bar(progress) as bar:
        for folders in _batches(_walk(os.path.abspath(root), stores, set())):
            known = cache.known([folder.path for folder in folders])
            lacking = [path for folder in folders for path in _lacking(folder, known[folder.path])]
            fresh = dict(zip(lacking, _read(lacking, client), strict=True))
            changed = []
            for folder in folders:
                records, is_new = _records(folder, known[folder.path], fresh)
                found += (record for _, record in records.values())
                if is_new:
                    kept = {name: (stamp, record) for name, (stamp, record) in records.items() if stamp}
                    changed.append((folder.path, kept))
            if changed:
                cache.keep((path, _to_keep(kept)) for path, kept in changed)
            read += len(lacking)
            bar.update(sum(len(folder.stamps) for folder in folders))
    images = list(with_digests([record for record in found if isinstance(record, Instance)]))
    skipped = [record for record in (*found, *images) if isinstance(record, Skipped)]
    whole = tuple(record for record in images if isinstance(record, Instance))
    return Tree(whole, tuple(sorted(skipped, key=lambda s: s.path)), tuple(sorted(stores)), read)


def _scan_url(root: str, progress: bool) -> Tree:
    """Scan a bucket: a listing has no inodes, so nothing of it is known."""
    files, path = service_of(root)
    try:
        found = scan_headers(root, progress=progress)
    except NoImagesError:  # it holds stores only
        found = Scan((), ())
    marks = sorted(name.rpartition("/")[0] for name in files.find(path) if name.rpartition("/")[2] in _STORE)
    stores: list[str] = []
    for folder in marks:
        if not stores or not f"{folder}/".startswith(f"{stores[-1]}/"):
            stores.append(folder)
    return Tree(found.instances, found.skipped, tuple(map(files.unstrip_protocol, stores)), len(found.instances))


def _walk(folder: str, stores: list[str], visited: set[tuple[int, int]]) -> Iterator[_Folder]:
    """Yield folders with their files, and note those that are stores, which hold no DICOM."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
    except OSError:
        yield _Folder(os.path.dirname(folder), {os.path.basename(folder): None})  # to be skipped, with the reason
        return
    if any(entry.name in _STORE for entry in found):
        stores.append(folder)
        return
    stamps: dict[str, Stamp | None] = {}
    within = []
    ours = OURS if any(entry.name == LEDGER for entry in found) else ()
    for entry in found:
        if entry.name in ours:
            continue
        try:
            if entry.is_dir():
                within.append(entry.path)
            else:
                stamps[entry.name] = Stamp.of(entry.stat())
        except OSError:  # a link that leads nowhere, or to itself
            stamps[entry.name] = None
    if stamps:
        yield _Folder(folder, stamps)
    for path in within:
        yield from _walk(path, stores, visited)


def _batches(folders: Iterable[_Folder]) -> Iterator[list[_Folder]]:
    """Yield some folders at a time, with some thousand files."""
    batch: list[_Folder] = []
    count = 0
    for folder in folders:
        batch.append(folder)
        count += len(folder.stamps)
        if count >= _BATCH:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _lacking(folder: _Folder, known: Known) -> Iterator[str]:
    """Yield the files of a folder that are not known as they are."""
    for name, stamp in folder.stamps.items():
        if stamp is None or name not in known or known[name][0] != stamp:
            yield os.path.join(folder.path, name)


def _read(paths: Sequence[str], client: Any) -> list[Instance | Skipped]:
    """Read the headers of files, here or on the workers of a cluster."""
    if client is None or len(paths) <= _BATCH // 4:
        return read_files(paths)
    parts = [paths[n : n + _BATCH // 4] for n in range(0, len(paths), _BATCH // 4)]
    return list(itertools.chain(*client.gather(client.map(read_files, parts, pure=False))))


def _records(
    folder: _Folder, known: Known, fresh: dict[str, Instance | Skipped]
) -> tuple[dict[str, tuple[Stamp | None, Instance | Skipped]], bool]:
    """Return what is in a folder by name, and whether that is other than was known."""
    records: dict[str, tuple[Stamp | None, Instance | Skipped]] = {}
    is_new = any(name not in folder.stamps for name in known)
    for name, stamp in folder.stamps.items():
        path = os.path.join(folder.path, name)
        if path in fresh:
            records[name], is_new = (stamp, fresh[path]), True
        else:
            records[name] = stamp, _at(path, known[name][1])
    return records, is_new


def _at(path: str, record: Any) -> Instance | Skipped:
    """Return a record that was kept, with its path."""
    if isinstance(record, Instance):
        return record._replace(path=path)
    return Skipped(path, record.reason, record.damaged)


def _to_keep(records: dict[str, tuple[Stamp, Instance | Skipped]]) -> Known:
    """Return what is kept: no paths, which the names say, and nothing of files that could not be looked into."""
    return {
        name: (stamp, record._replace(path="", digest="") if isinstance(record, Instance) else record)
        for name, (stamp, record) in records.items()
        if not (isinstance(record, Skipped) and record.reason.startswith(_UNREAD))
    }


def _bar(progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(desc="headers", unit="file", delay=1.0, leave=False, disable=not progress)
