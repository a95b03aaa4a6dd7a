"""A walk over the bytes of DICOM data elements, into sequences and past what is not wanted.

It reads explicit and implicit VR in both byte orders, and sequences and items of defined and
undefined length (DICOM PS3.5 sections 7.1 and 7.5).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "LONG_VRS",
    "UNDEFINED",
    "CutShortError",
    "Element",
    "Encoding",
    "Wanted",
    "element_at",
    "inside",
    "item_at",
    "skip",
]

Wanted = dict[int, "Wanted | str"]
"""Tag to the keyword that it is kept under, or for a sequence to what is wanted within."""

UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length takes up four bytes (PS3.5 section 7.1.2)."""
_DEEPEST = 32
"""Sequences are not nested deeper than this in any image; what is deeper is damage."""


class CutShortError(Exception):
    """The bytes end before the element does; more of the file may hold the rest."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How data elements are written."""

    explicit: bool
    """Whether each element names its VR."""

    little_endian: bool
    """Byte order."""


@dataclass(frozen=True, slots=True)
class Element:
    """Where one data element lies."""

    tag: int
    """Group and element."""

    vr: bytes
    """Value representation; empty if implicit."""

    start: int
    """Where its value begins."""

    length: int
    """Length of its value, or `UNDEFINED`."""


def element_at(data: bytes, at: int, encoding: Encoding) -> Element:
    """Return the element that begins at a byte; raise `CutShortError` if its header is not whole."""
    tag, vr, start, length = _header(data, at, encoding)
    return Element(tag, vr, start, length)


def _header(data: bytes, at: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    order = "little" if encoding.little_endian else "big"
    head = data[at : at + 12]
    if len(head) < 8:
        raise CutShortError
    if encoding.little_endian:
        tag = head[1] << 24 | head[0] << 16 | head[3] << 8 | head[2]
    else:
        tag = head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3]
    if not encoding.explicit or tag >> 16 == 0xFFFE:
        return tag, b"", at + 8, int.from_bytes(head[4:8], order)  # type: ignore[arg-type]  # one of two words
    vr = head[4:6]
    if vr not in LONG_VRS:
        return tag, vr, at + 8, int.from_bytes(head[6:8], order)  # type: ignore[arg-type]
    if len(head) < 12:
        raise CutShortError
    return tag, vr, at + 12, int.from_bytes(head[8:12], order)  # type: ignore[arg-type]


def skip(data: bytes, element: Element, encoding: Encoding, depth: int = 0) -> int:
    """Return where the element ends; raise `CutShortError` if that is beyond the bytes."""
    if element.length != UNDEFINED:
        return _within(data, element.start + element.length)
    if depth > _DEEPEST:
        raise ValueError(f"sequences nested deeper than {_DEEPEST}")
    inner = inside(element, encoding)
    at = element.start
    while True:
        tag, _, start, length = _header(data, at, inner)
        if tag == _SEQUENCE_END:
            return start
        if tag != _ITEM:
            raise ValueError(f"element {tag:08x} where an item should be")
        at = _within(data, start + length) if length != UNDEFINED else _item_end(data, start, inner, depth)


def inside(element: Element, encoding: Encoding) -> Encoding:
    """Return how the items of a sequence are written: implicitly if its VR is unknown (PS3.5 section 6.2.2)."""
    return Encoding(False, True) if element.vr == b"UN" else encoding


def _item_end(data: bytes, at: int, encoding: Encoding, depth: int) -> int:
    while True:
        tag, vr, start, length = _header(data, at, encoding)
        if tag == _ITEM_END:
            return start
        at = skip(data, Element(tag, vr, start, length), encoding, depth + 1)


def _within(data: bytes, end: int) -> int:
    if end > len(data):
        raise CutShortError
    return end


def item_at(data: bytes, at: int, encoding: Encoding, wanted: Wanted) -> tuple[dict[str, bytes] | None, int]:
    """Return what is wanted of the item of a sequence, and where it ends; None at the sequence's end mark."""
    tag, _, start, length = _header(data, at, encoding)
    if tag == _SEQUENCE_END:
        return None, start
    if tag != _ITEM:
        raise ValueError(f"element {tag:08x} where an item should be")
    found: dict[str, bytes] = {}
    end = _read(data, start, length, encoding, wanted, found)
    return found, end


def _read(data: bytes, at: int, length: int, encoding: Encoding, wanted: Wanted, found: dict[str, bytes]) -> int:
    """Put what is wanted of an item into ``found``; a value that stands there already stays."""
    end = UNDEFINED if length == UNDEFINED else _within(data, at + length)
    while at < end:
        tag, vr, start, size = _header(data, at, encoding)
        if tag == _ITEM_END:
            return start
        name = wanted.get(tag, "")
        if isinstance(name, dict):
            at = _read_sequence(data, Element(tag, vr, start, size), encoding, name, found)
            continue
        at = _within(data, start + size) if size != UNDEFINED else skip(data, Element(tag, vr, start, size), encoding)
        if name and size != UNDEFINED:
            found.setdefault(name, data[start:at])
    return at


def _read_sequence(data: bytes, element: Element, encoding: Encoding, wanted: Wanted, found: dict[str, bytes]) -> int:
    """Read the first item of a sequence."""
    end = skip(data, element, encoding)
    if end > element.start:
        inner = inside(element, encoding)
        tag, _, start, length = _header(data, element.start, inner)
        if tag == _ITEM:
            _read(data, start, length, inner, wanted, found)
    return end
