"""From paths to header records: what each DICOM file holds and where its pixels lie.

Files are told by content, never by name. pydicom finds the elements; their raw values
are understood here, so that a malformed one is named instead of warned of.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import fsspec
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lazyvol.alike import instances_alike
from lazyvol.blocks import READERS, Blocks
from lazyvol.columns import FEW, walk_together
from lazyvol.errors import DicomReadError, NoImagesError, SourceNotFoundError
from lazyvol.files import ask_service, service_of
from lazyvol.header import instance_of_file, require_dicom
from lazyvol.keywords import PIXELS
from lazyvol.media import files_of_index, is_index
from lazyvol.memory import no_search
from lazyvol.records import Instance, Skipped
from lazyvol.typed import HeaderError

__all__ = [
    "Scan",
    "Source",
    "is_dataset",
    "is_folder",
    "read_files",
    "read_header",
    "read_instance",
    "read_patient",
    "read_series_uid",
    "scan_headers",
    "with_digests",
]

Path = str | os.PathLike[str]
Source = Path | Iterable[Path] | Iterable[Dataset]
"""A folder, a file or a URL; a list of files; or a list of pydicom datasets."""

_ZARR = {"zarr.json", ".zgroup", ".zarray"}
"""Files that make a folder a Zarr store, which holds no DICOM."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found."""

    instances: tuple[Instance, ...]
    """Files that hold pixels, by path."""

    skipped: tuple[Skipped, ...]
    """Files left out, with the reason, by path."""


def scan_headers(source: Source, *, recursive: bool = True, progress: bool = False) -> Scan:
    """Read the headers of all DICOM files of a folder, a list of files or a list of datasets.

    Parameters
    ----------
    source
        A folder, a file, a URL that fsspec knows, a list of these, or a list of pydicom datasets. A
        DICOMDIR stands for the files that it lists.
    recursive
        Whether folders inside a folder are searched too.
    progress
        Show a progress bar, from one second on.

    Returns
    -------
    Scan
        Instances, and files that were left out with the reason. No pixel is read.

    Raises
    ------
    SourceNotFoundError
        If a path does not exist.
    NoImagesError
        If a folder or list is empty.

    Examples
    --------
    >>> import lazyvol
    >>> folder = getfixture("chest_folder")
    >>> len(lazyvol.scan_headers(folder).instances)
    24
    """
    instances: list[Instance] = []
    skipped: list[Skipped] = []
    if isinstance(source, str | os.PathLike) and is_index(os.fspath(source)):
        source, skipped = files_of_index(os.fspath(source))
        if not source:
            return Scan((), tuple(skipped))
    entries = list(_entries(source, recursive))
    if not entries:
        raise NoImagesError(f"{_name_of(source)} holds no file. Give a folder of DICOM files, or a list of them.")
    with warnings.catch_warnings(), _bar(len(entries), progress) as bar:
        warnings.simplefilter("ignore")  # pydicom warns of what is found out and named here
        for batch in _read(entries):
            bar.update(len(batch))
            instances += (found for found in batch if isinstance(found, Instance))
            skipped += (found for found in batch if isinstance(found, Skipped))
    found = list(with_digests(instances))
    skipped += (entry for entry in found if isinstance(entry, Skipped))
    return Scan(tuple(entry for entry in found if isinstance(entry, Instance)), tuple(skipped))


def read_files(paths: Iterable[str]) -> list[Instance | Skipped]:
    """Return what the headers of files on disk say, in the order of the paths; of some, why they are skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is found out and named here
        return list(itertools.chain.from_iterable(_read((path, None) for path in paths)))


def _read(entries: Iterable[tuple[str, bytes | None]]) -> Iterator[list[Instance | Skipped]]:
    """Read headers: of files on disk many at a time, of others one by one."""
    for on_disk, some in itertools.groupby(entries, key=lambda e: e[1] is None and not _is_url(e[0])):
        if not (on_disk and hasattr(os, "readv")):
            with ThreadPoolExecutor(READERS) as pool:
                yield from ([found] for found in pool.map(_read_alone, some))
            continue
        blocks = None
        while batch := list(itertools.islice(some, Blocks.MOST)):
            blocks = blocks or Blocks(len(batch))
            blocks.fill([path for path, _ in batch] if len(batch) >= FEW else [])
            found: dict[int, Instance] = {}
            with no_search():
                for headers in walk_together(blocks):
                    found |= instances_alike(headers, blocks)
            yield [found.get(row) or _read_alone(entry) for row, entry in enumerate(batch)]


def _bar(count: int, progress: bool) -> Any:
    """Return a progress bar; one that shows nothing costs next to nothing."""
    if not progress:
        return nullcontext(SimpleNamespace(update=lambda _: None))
    from tqdm import tqdm

    return tqdm(total=count, desc="headers", unit="file", delay=1.0, leave=False)


def _read_alone(entry: tuple[str, bytes | None]) -> Instance | Skipped:
    try:
        return read_instance(*entry)
    except HeaderError as error:
        return Skipped(entry[0], str(error), error.damaged)


def read_instance(path: str, content: bytes | None = None) -> Instance:
    """Return the Instance of one file, or of the ``content`` of one; raise `HeaderError` with the reason if none."""
    try:
        with _open(path, content) as file:
            instance = instance_of_file(file, path)
            modified = _modified(path, file) if content is None else 0
    except HeaderError:
        raise
    except OSError as error:
        raise HeaderError(f"cannot be opened: {error.strerror or type(error).__name__}", damaged=True) from error
    except Exception as error:  # whatever a broken header makes of a parser
        raise HeaderError(f"its header cannot be read: {type(error).__name__}", damaged=True) from error
    return instance._replace(content=content, modified=modified)


def _modified(path: str, file: Any) -> int:
    """Return a number that changes when the file does."""
    if not _is_url(path):
        return os.fstat(file.fileno()).st_mtime_ns
    files, name = service_of(path)
    return int.from_bytes(hashlib.sha256(str(files.ukey(name)).encode()).digest()[:8], "big")


def read_patient(instance: Instance) -> str:
    """Return PatientID and its issuer, empty if they cannot be read: for a name under a key, never to be shown."""
    found = _some_of(instance.path, instance.content, ["PatientID", "IssuerOfPatientID"])
    return "\0".join(found).rstrip("\0")


def read_series_uid(path: str) -> str:
    """Return the SeriesInstanceUID of a file that is no image, perhaps damaged; empty if it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scan has said what is wrong with it
        return _some_of(path, None, ["SeriesInstanceUID"])[0]


def _some_of(path: str, content: bytes | None, keywords: list[str]) -> list[str]:
    """Return some words of a header, empty where they cannot be read."""
    try:
        with _open(path, content) as file:
            found = pydicom.dcmread(file, specific_tags=list(keywords), stop_before_pixels=True, force=True)
        return [str(found.get(keyword, "") or "").strip() for keyword in keywords]
    except Exception:  # the scan has said what is wrong with it
        return [""] * len(keywords)


def read_header(path: Path) -> pydicom.Dataset:
    """Read the whole header of one file.

    Parameters
    ----------
    path
        A DICOM file, with or without preamble, or its URL.

    Returns
    -------
    pydicom.Dataset
        Every element before the pixels, with the names of patient and staff if the file has them.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    DicomReadError
        If it is not DICOM.

    Examples
    --------
    >>> import lazyvol
    >>> lazyvol.read_header(getfixture("chest_folder") / "body-0001.dcm").Modality
    'CT'
    """
    name = os.fspath(path)
    _require_exists(name)
    if is_folder(name):
        raise DicomReadError(f"{name} is a folder; read_header wants one file. scan_headers reads a folder.")
    try:
        with _open(name, None) as file:
            require_dicom(file, name)
            return pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except HeaderError as error:
        raise DicomReadError(f"{name}: {error}. Give a DICOM file.") from error
    except OSError as error:
        raise DicomReadError(f"{name} cannot be opened: {error.strerror or type(error).__name__}.") from error
    except Exception as error:  # whatever a broken header makes of a parser
        raise DicomReadError(f"the header of {name} cannot be read: {type(error).__name__}.") from error


def _entries(source: Source, recursive: bool) -> Iterator[tuple[str, bytes | None]]:
    """Yield each file as path and, for a dataset in memory, the bytes of the file that it would be."""
    if isinstance(source, Dataset):
        source = [source]
    if isinstance(source, str | os.PathLike):
        yield from ((path, None) for path in _files(os.fspath(source), recursive))
        return
    for n, entry in enumerate(source):
        if isinstance(entry, Dataset):
            yield f"dataset[{n}]", _encode(entry, n)
        else:
            yield from ((path, None) for path in _files(os.fspath(entry), recursive))


def _name_of(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "the list"


def _files(root: str, recursive: bool) -> Iterator[str]:
    _require_exists(root)
    if not is_folder(root):
        yield root
    elif _is_url(root):
        files, path = service_of(root)
        found = sorted(files.find(path, maxdepth=None if recursive else 1))
        stores = tuple(f"{f.rpartition('/')[0]}/" for f in found if f.rpartition("/")[2] in _ZARR)
        yield from (files.unstrip_protocol(f) for f in found if not f.startswith(stores))
    else:
        yield from _walk(root, recursive, set())


def _walk(folder: str, recursive: bool, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the files below a folder by name; a link back to a folder on the way is not followed twice."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
    except OSError:
        yield folder  # and let it be skipped with the reason
        return
    if any(e.name in _ZARR for e in found):
        return
    for entry in found:
        if not _leads_to_folder(entry):
            yield entry.path
        elif recursive:
            yield from _walk(entry.path, recursive, visited)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_url(path: str) -> bool:
    return "://" in path


def is_dataset(source: object) -> bool:
    """Return whether a source is one pydicom dataset."""
    return isinstance(source, Dataset)


def is_folder(path: str) -> bool:
    """Return whether a path or URL leads to a folder."""
    return ask_service(path, "isdir") if _is_url(path) else os.path.isdir(path)


def _require_exists(path: str) -> None:
    if not (ask_service(path, "exists") if _is_url(path) else os.path.lexists(path)):
        what = "does not exist, or cannot be reached" if _is_url(path) else "does not exist"
        raise SourceNotFoundError(f"{path} {what}. Give a DICOM file, or a folder of them.")


def _open(path: str, content: bytes | None) -> Any:
    if content is not None:
        return BytesIO(content)
    if _is_url(path):
        return fsspec.open(path, "rb", block_size=1 << 16, cache_type="readahead").open()
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise HeaderError("no regular file")
    return os.fdopen(file, "rb")


def with_digests(instances: list[Instance]) -> Iterator[Instance | Skipped]:
    """Add the digest of the header to Instances whose UID occurs more than once; skip those that are gone by now."""
    times = Counter(i.uid for i in instances)
    for instance in instances:
        if instance.uid and times[instance.uid] > 1:
            try:
                yield instance._replace(digest=_digest(instance))
            except (OSError, HeaderError) as error:
                why = getattr(error, "strerror", None) or type(error).__name__
                yield Skipped(instance.path, f"cannot be opened: {why}", damaged=True)
        else:
            yield instance


def _digest(instance: Instance) -> str:
    """Return the SHA-256 of all before the pixels, and of how many bytes of pixels there are."""
    first = instance.frames[0] if instance.frames else None
    end = first.offset if first is not None and first.offset is not None else instance.size
    with _open(instance.path, instance.content) as file:
        head = file.read(end)
    return hashlib.sha256(head + str(instance.size - end).encode()).hexdigest()


def _encode(dataset: Dataset, n: int) -> bytes:
    """Return the bytes of the file that a dataset in memory would be."""
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if syntax is None:
        implicit, little = dataset.original_encoding
        syntax = ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian
        syntax = ImplicitVRLittleEndian if implicit and little is not False else syntax
    copy = Dataset()
    copy.update(dataset)
    for tag in filter(dataset.__contains__, PIXELS):  # writing settles the VR of an element, and this one is not ours
        copy.add_new(tag, dataset[tag].VR, dataset[tag].value)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = UID(syntax)
    copy.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")
    copy.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "2.25.0")
    buffer = BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(buffer, copy, enforce_file_format=True)
    except Exception as error:
        raise DicomReadError(
            f"dataset {n} of the list cannot be encoded as a DICOM file: {type(error).__name__}. Give datasets that "
            "dcmread returned with their pixels, or the paths of the files."
        ) from error
    return buffer.getvalue()
