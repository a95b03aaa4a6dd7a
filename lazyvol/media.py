"""DICOMDIR and DIRFILE: what an index of a medium points to (DICOM PS3.10 section 8, PS3.3 annex F)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pydicom

from lazyvol.records import Skipped

__all__ = ["files_of_index", "is_index"]

_MEDIA_STORAGE_DIRECTORY = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
"""The element MediaStorageSOPClassUID of a DICOMDIR, as each file writes it (PS3.10 section 7.1)."""
_HEAD = 512
"""Bytes that hold the class of a file, which stands at its beginning."""


def is_index(path: str) -> bool:
    """Return whether a local file is a DICOMDIR, whatever it is called."""
    if "://" in path or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head[128:132] == b"DICM" and _MEDIA_STORAGE_DIRECTORY in head


def files_of_index(path: str) -> tuple[list[str], list[Skipped]]:
    """Return the files that an index lists, and what is left out: listed and not there, or there and not listed.

    Nothing outside of the folder of the index is read.
    """
    root = os.path.dirname(os.path.abspath(path))
    listed: dict[str, None] = {}
    skipped = []
    try:
        references = list(_references(path))
    except Exception as error:  # whatever a broken index makes of a parser
        reason = f"a DICOMDIR that cannot be read ({type(error).__name__}); open its folder instead"
        return [], [Skipped(path, reason, True)]
    if not references:
        return [], [Skipped(path, "a DICOMDIR that lists no file; open its folder instead", True)]
    for parts in references:
        name = _found(root, parts)
        shown = os.path.join(root, *parts) if _is_plain(parts) else path
        if not _is_plain(parts) or (name and not _is_within(name, root)):
            skipped.append(Skipped(shown, "its DICOMDIR names a file outside of its folder, which is not read", True))
        elif not name:
            skipped.append(Skipped(shown, "listed in the DICOMDIR, but not there", True))
        else:
            listed[name] = None
    known = {os.path.realpath(p) for p in (*listed, path)}
    skipped += [Skipped(p, "not listed in the DICOMDIR") for p in _below(root) if os.path.realpath(p) not in known]
    return list(listed), skipped


def _references(path: str) -> Iterator[list[str]]:
    """Yield ReferencedFileID of each record that has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of file IDs that are not as the standard wants them
        for record in pydicom.dcmread(path, force=True).get("DirectoryRecordSequence") or ():
            found = record.get("ReferencedFileID")
            if found:
                yield [found] if isinstance(found, str) else [str(part) for part in found]


def _is_plain(parts: list[str]) -> bool:
    """Whether each part is the name of a file or folder, not a way out of it."""
    return all(p not in ("", ".", "..") and not set(p) & set("/\\\0:") for p in parts)


def _found(root: str, parts: list[str]) -> str:
    """Return the file that is meant; names on media are upper case, and may have become lower case."""
    if not _is_plain(parts):
        return ""
    for names in (parts, [p.lower() for p in parts]):
        path = os.path.join(root, *names)
        if os.path.isfile(path):
            return path
    return ""


def _is_within(path: str, root: str) -> bool:
    folder = os.path.realpath(root)
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder


def _below(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(files))
