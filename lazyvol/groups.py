"""The functional groups of a multi-frame file, read from its bytes.

They take up most of a header, so they are walked without building a dataset of them, and nothing is
read beyond the element that holds the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lazyvol.macros import GROUPS, PER_FRAME_GROUPS, SHARED_GROUPS
from lazyvol.nested import UNDEFINED, CutShortError, Element, Encoding, element_at, inside, item_at, skip

__all__ = ["Tail", "read_tail"]

_BLOCK = 1 << 16
"""Bytes that are read at least where the length of a sequence is not known."""
_FEW = 512
"""Bytes that are read to learn what the next element is."""
_EXTENDED_OFFSETS = 0x7FE00001

Group = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Tail:
    """The part of a header from its functional groups on."""

    shared: Group | None
    """Raw values by keyword of the groups of all frames; None if they are absent."""

    frames: tuple[Group, ...] | None
    """Those of each frame; None if they are absent."""

    pixels: Element | None
    """The element that holds the pixels; None if there is none."""

    pixels_at: int
    """Byte in the file where its value begins."""

    extended: bytes = b""
    """ExtendedOffsetTable."""


class _Window:
    """The bytes of a file from one place on, as far as they were needed."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.data = b""

    def grow(self, size: int) -> None:
        """Read on; raise `CutShortError` at the end of the file."""
        more = self._read(size)
        if not more:
            raise CutShortError
        self.data += more

    def hold(self, end: int) -> None:
        """Read so that the bytes up to ``end`` are there."""
        if end > len(self.data):
            more = self._read(end - len(self.data))
            self.data += more
            if end > len(self.data):
                raise CutShortError


def read_tail(read: Callable[[int], bytes], start: int, encoding: Encoding, stop: Mapping[int, str]) -> Tail:
    """Read the functional groups and what follows, up to the pixels.

    Parameters
    ----------
    read
        What returns the next so many bytes of the file, or fewer at its end.
    start
        Byte in the file where it begins to read.
    encoding
        How the elements are written.
    stop
        Tags of the elements that hold pixels.

    Raises
    ------
    CutShortError
        If the file ends within the groups.
    ValueError
        If they are no data elements.
    """
    window, at = _Window(read), 0
    found: dict[int, list[Group]] = {}
    extended = b""
    while True:
        try:
            element = _grown(window, lambda at=at: element_at(window.data, at, encoding), few=True)  # type: ignore[misc]
        except CutShortError:
            if at < len(window.data):
                raise
            return Tail(*_both(found), None, 0)
        if element.tag in stop:
            return Tail(*_both(found), element, start + element.start, extended)
        if element.length != UNDEFINED:
            window.hold(element.start + element.length)
        if element.tag in {SHARED_GROUPS, PER_FRAME_GROUPS}:
            found[element.tag], at = _items(window, element, encoding)
            continue
        end = _grown(window, lambda e=element: skip(window.data, e, encoding))  # type: ignore[misc]
        if element.tag == _EXTENDED_OFFSETS:
            extended = window.data[element.start : end]
        at = end


def _both(found: Mapping[int, list[Group]]) -> tuple[Group | None, tuple[Group, ...] | None]:
    shared, frames = found.get(SHARED_GROUPS), found.get(PER_FRAME_GROUPS)
    first = None if shared is None else shared[0] if shared else {}
    return first, None if frames is None else tuple(frames)


def _grown(window: _Window, act: Callable[[], Any], *, few: bool = False) -> Any:
    """Act, reading on as long as the bytes end too early."""
    while True:
        try:
            return act()
        except CutShortError:
            window.grow(_FEW if few else max(_BLOCK, len(window.data)))


def _items(window: _Window, element: Element, encoding: Encoding) -> tuple[list[Group], int]:
    """Return what is kept of each item of a sequence, and where the sequence ends."""
    groups: list[Group] = []
    inner, at = inside(element, encoding), element.start
    end = UNDEFINED if element.length == UNDEFINED else element.start + element.length
    while at < end:
        group, at = _grown(window, lambda at=at: item_at(window.data, at, inner, GROUPS))  # type: ignore[misc]
        if group is None:
            return groups, at
        groups.append(group)
    return groups, at
