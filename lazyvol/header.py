"""From an open file to its Instance: which elements stand before its pixels, and where these lie.

pydicom finds the elements; their raw values are understood in `elements`. Functional groups, which
may take up megabytes, are walked without building a dataset.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lazyvol.elements import Elements, instance_from_elements
from lazyvol.files import InflatedFile, reader_at
from lazyvol.fragments import with_fragments
from lazyvol.groups import Tail, read_tail
from lazyvol.keywords import EXTENDED_OFFSETS, PIXELS, WANTED
from lazyvol.macros import PER_FRAME_GROUPS, SHARED_GROUPS
from lazyvol.nested import LONG_VRS, UNDEFINED, CutShortError, Element, Encoding, element_at, skip
from lazyvol.objects import nested_values
from lazyvol.records import DEFLATED, Instance
from lazyvol.typed import HeaderError

__all__ = ["instance_of_file", "require_dicom"]

_STOPS = {*PIXELS, SHARED_GROUPS, PER_FRAME_GROUPS}
"""Where pydicom stops: functional groups are walked without it."""
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_AT_A_SERVER = ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95")
"""JPIP Referenced, and the same deflated (DICOM PS3.5 annexes A.6, A.7)."""
_DEFLATED = (DEFLATED, _AT_A_SERVER[1])
_TRANSFER_SYNTAX = 0x00020010
_META = 2048
"""Bytes within which the file meta information ends."""
_LONGEST = 1 << 24
"""Longer values, B, are passed over: no element that is kept has one."""
_LONG_VRS = frozenset(vr.decode() for vr in LONG_VRS)


def instance_of_file(file: BinaryIO, path: str) -> Instance:
    """Return the Instance of an open file; raise `HeaderError` with the reason if it holds none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    require_dicom(file, path)
    elements, offsets = _read_elements(file)
    return with_fragments(instance_from_elements(elements, path=path, size=size), reader_at(file), offsets)


_NAMES = (".dcm", ".dicom", ".ima")
"""How names of DICOM files end, where they have such an end."""


def require_dicom(file: BinaryIO, path: str) -> None:
    """Raise unless the file has the DICOM marker, or begins as a data set without one does."""
    named = path.lower().endswith(_NAMES)  # then something was there
    head = file.read(140)
    file.seek(0)
    if not head:
        raise HeaderError("it is empty", damaged=named)
    if head[128:132] == b"DICM":
        return
    group, vr = head[:2], head[4:6]
    explicit = vr.isalpha() and vr.isupper()
    implicit = len(head) >= 8 and int.from_bytes(head[4:8], "little") < 1024
    if group not in (b"\x02\x00", b"\x08\x00", b"\x00\x08") or not (explicit or implicit):
        if not head.strip(b"\0"):
            raise HeaderError("it begins with zeros, as an interrupted copy leaves them", damaged=named)
        raise HeaderError("not DICOM: no DICM marker at byte 128 and no data element at the start")


def _read_elements(file: BinaryIO) -> tuple[Elements, bytes]:
    """Find the elements before the pixels, and where the pixels begin; also the extended offset table."""
    deflated_from, deflated = _deflated_from(file)
    if deflated_from:
        file.seek(deflated_from)
        file = InflatedFile(file)  # type: ignore[assignment]  # has what pydicom reads with
    stopped: list[tuple[int, str | None, int]] = []

    def at_groups_or_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in _STOPS:
            stopped.append((int(tag), vr, length))
        return tag in _STOPS or tag == 0  # zeros, as an interrupted copy leaves them, are no elements

    dataset = read_partial(file, stop_when=at_groups_or_pixels, defer_size=_LONGEST, force=True)
    syntax = deflated or str(dataset.file_meta.get("TransferSyntaxUID", ""))
    implicit, little = dataset.original_encoding
    if not syntax:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        syntax = syntax if little else ExplicitVRBigEndian
    sop_class = _text_of(dataset, 0x00080016) or str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if sop_class == _MEDIA_STORAGE_DIRECTORY or "DirectoryRecordSequence" in dataset:
        raise HeaderError("a DICOMDIR: an index of other files, without pixels")
    if not stopped:
        raise _no_pixels(dataset, sop_class, str(syntax))
    encoding = Encoding(not implicit, bool(little))
    tail = _tail(file, encoding, stopped[0])
    if tail.pixels is None:
        raise _no_pixels(dataset, sop_class, str(syntax))
    raw = _raw_values(dataset)
    elements = Elements(
        values=raw,
        little_endian=bool(little),
        transfer_syntax_uid=str(syntax),
        pixel_element=PIXELS[tail.pixels.tag],
        pixel_offset=tail.pixels_at,
        pixel_length=None if tail.pixels.length == UNDEFINED else tail.pixels.length,
        pixel_vr="OB" if tail.pixels.vr == b"OB" else "OW",
        description=_description(dataset),
        fallback_uid=str(dataset.file_meta.get("MediaStorageSOPInstanceUID", "")),
        shared_group=tail.shared,
        frame_groups=tail.frames,
        inflated_from=deflated_from,
        **nested_values(dataset, little_endian=bool(little)),
    )
    return elements, tail.extended or _bytes_of(dataset, EXTENDED_OFFSETS)


def _deflated_from(file: BinaryIO) -> tuple[int, str]:
    """Return the byte where a deflated data set begins and its transfer syntax; 0 and nothing if it is none."""
    head = file.read(_META)
    file.seek(0)
    if head[128:132] != b"DICM" or not any(uid.encode() in head for uid in _DEFLATED):
        return 0, ""
    syntax, at, encoding = "", 132, Encoding(True, True)
    try:
        while (element := element_at(head, at, encoding)).tag >> 16 == 2:
            if element.tag == _TRANSFER_SYNTAX:
                syntax = head[element.start : element.start + element.length].decode("latin-1").strip(" \0")
            at = skip(head, element, encoding)
    except CutShortError:
        return 0, ""
    return (at, syntax) if syntax in _DEFLATED else (0, "")


def _tail(file: BinaryIO, encoding: Encoding, stopped: tuple[int, str | None, int]) -> Tail:
    """Return the functional groups, and the element that holds the pixels."""
    tag, vr, length = stopped
    if tag in PIXELS:
        long_form = encoding.explicit and vr in _LONG_VRS
        start = file.tell() + (12 if long_form else 8)
        return Tail(None, None, Element(tag, (vr or "").encode(), 0, length), start)
    try:
        return read_tail(file.read, file.tell(), encoding, PIXELS)
    except CutShortError as error:
        raise HeaderError("cut short: its functional groups are not whole", damaged=True) from error


def _raw_values(dataset: Dataset) -> dict[int, bytes]:
    """Return the undecoded value of each wanted element; empty for a sequence."""
    found = ((int(tag), element.value) for tag, element in dataset.items() if tag in WANTED)
    return {tag: value if isinstance(value, bytes) else b"" for tag, value in found}


def _bytes_of(dataset: Dataset, tag: int) -> bytes:
    value = getattr(dataset.get_item(tag), "value", b"") if tag in dataset else b""
    return value if isinstance(value, bytes) else b""


def _description(dataset: Dataset) -> str:
    raw = getattr(dataset.get_item(0x0008103E), "value", None)
    if isinstance(raw, bytes) and raw.isascii() and b"\x1b" not in raw:
        return raw.decode().strip(" \0")
    return str(dataset.get("SeriesDescription", "") or "")


def _no_pixels(dataset: Dataset, sop_class: str, syntax: str) -> HeaderError:
    if not sop_class:
        return HeaderError("not DICOM, or cut short: no SOPClassUID and no pixels", damaged=True)
    kind = UID(sop_class).name
    if syntax in _AT_A_SERVER:
        return HeaderError(
            f"no pixels: a {kind} encoded as {syntax} ({UID(syntax).name}), whose pixels lie at a server"
        )
    if 0x00280010 in dataset:
        return HeaderError(f"cut short: a {kind} whose header ends before its pixels", damaged=True)
    is_image = "Image Storage" in kind
    return HeaderError(f"no pixels: {kind}{', perhaps cut short' if is_image else ''}", damaged=is_image)


def _text_of(dataset: Dataset, tag: int) -> str:
    raw = dataset.get_item(tag)
    value = getattr(raw, "value", None)
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").strip(" \0")
    return str(value) if value else ""
