"""The headers of many files, walked in step: what all of them say at one place is looked at once.

Files of a series have the same elements, whose values differ in a few. So a step is taken for all of
them at a time; where their elements differ they part, and each part goes on alone. A header that is
not understood to the letter is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR

from lazyvol.blocks import WIDTH, Blocks
from lazyvol.keywords import CHARACTER_SET, DESCRIPTION, EXTENDED_OFFSETS, NESTED, PIXELS, WANTED
from lazyvol.macros import PER_FRAME_GROUPS, SHARED_GROUPS
from lazyvol.makers import blocks_wanted
from lazyvol.nested import LONG_VRS, UNDEFINED
from lazyvol.records import ENCAPSULATED

__all__ = ["FEW", "Column", "Headers", "walk_together"]

_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = frozenset(
    {"1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", ENCAPSULATED}
    | {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 92, 93, 201, 202, 203)}
)
"""Transfer syntaxes of headers in explicit VR little endian (DICOM PS3.5 annex A)."""
_SYNTAX, _IMAGE_TYPE, _MODALITY = 0x00020010, 0x00080008, 0x00080060
_VALUES = WANTED | {CHARACTER_SET, DESCRIPTION, EXTENDED_OFFSETS, _SYNTAX, 0x00020002, 0x00020003}
_DECIDING = frozenset({_SYNTAX, _IMAGE_TYPE, _MODALITY})
"""Elements whose value decides how the walk goes on."""
_INDEX_OF_MEDIA = 0x00041220
_LEFT = frozenset({_INDEX_OF_MEDIA, SHARED_GROUPS, PER_FRAME_GROUPS})
"""Elements of files that are read in another way."""
_VRS = LONG_VRS | frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Value representations (DICOM PS3.5 table 6.2-1)."""
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEEPEST = 16
FEW = 2
"""Fewer headers than these cost less one by one."""
_LAST = 0x7FE00010
_MARK = int.from_bytes(b"DICM", "little")
_WORD, _WORD_AND_VR = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFF)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Column:
    """One element in all headers of a part."""

    same: bytes | None
    """Its value, if that is the same in all of them."""

    each: dict[int, bytes] = field(default_factory=dict)
    """Its value by row, if it is not."""

    def of(self, row: int) -> bytes:
        """Return its value in one header."""
        return self.each[row] if self.same is None else self.same


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers of the same elements in the same order."""

    rows: list[int]
    """Which files they are of."""

    values: dict[int, Column]
    """Values of the elements that are kept, by tag; none for a sequence."""

    nested: dict[int, Column]
    """Elements that are kept whole, with their headers, by tag."""

    explicit: bool
    """Whether each element names its VR."""

    pixel_tag: int
    """Element that holds the pixels."""

    pixel_vr: bytes
    """Its VR; empty if implicit."""

    pixel_offsets: dict[int, int]
    """Byte of the file where its value begins, by row."""

    pixel_lengths: dict[int, int | None]
    """Length of its value, by row; None if undefined."""


@dataclass(slots=True)
class _Walk:
    """How far a part has come."""

    rows: Rows
    where: Rows
    """Place in the buffer of the element that is next."""
    values: dict[int, Column]
    nested: dict[int, Column]
    explicit: bool = True
    in_meta: bool = True
    last: int = 0
    """Tag of the last element outside of sequences."""
    ends: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    """Where the bytes of each file end in the buffer."""
    ahead: int = 0
    """At least so many bytes of each file are there from that place on."""
    within: tuple[tuple[bool, bool], ...] = ()
    """What the walk is inside of: whether it is an item, and whether elements name their VR around it."""
    whole: tuple[int, Rows] | None = None
    """Sequence that is kept whole, and where it begins."""
    wanted: Mapping[int, Mapping[bytes, frozenset[int]]] | None = None
    """The makers' elements that are wanted, by group and creator; None before that is known."""
    reserved: dict[int, frozenset[int]] = field(default_factory=dict)
    """Those of each block that a creator reserved, by group and block."""

    def advance(self, by: int | Rows) -> None:
        """Go over so many bytes."""
        self.where = self.where + by
        self.ahead -= by if isinstance(by, int) else int(by.max())

    def part(self, which: npt.NDArray[Any]) -> _Walk:
        """Return some of its headers as a part of their own."""
        whole = None if self.whole is None else (self.whole[0], self.whole[1][which])
        return replace(
            self,
            rows=self.rows[which],
            where=self.where[which],
            ends=self.ends[which],
            values=dict(self.values),
            nested=dict(self.nested),
            reserved=dict(self.reserved),
            whole=whole,
        )


class _Element(NamedTuple):
    """The element that is next in all headers of a part."""

    tag: int
    vr: bytes
    size: int
    """Bytes of its header."""
    lengths: Any
    """Bytes of its value, or that in each header."""
    endless: bool
    """Whether its length is undefined, in all of them."""


def walk_together(blocks: Blocks) -> list[Headers]:
    """Walk the headers of all files up to their pixels.

    Returns
    -------
    list of Headers
        Those that are alike, together. Rows that are in none of them were not understood.
    """
    return _Walker(blocks).walk()


class _Walker:
    """A walk through all files; parts that have yet to go on wait in a list."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks, self._data, self._words = blocks, blocks.data, blocks.words
        self._waiting: list[_Walk] = []

    def walk(self) -> list[Headers]:
        begins = np.arange(len(self._blocks.paths)) * WIDTH
        ends = begins + self._blocks.lengths
        marked = np.flatnonzero((self._words[begins + 128] & _WORD) == _MARK)
        self._waiting = [_Walk(marked, begins[marked] + 132, {}, {}, ends=ends[marked])]
        found = []
        while self._waiting:
            headers = self._run(self._waiting.pop())
            if headers is not None:
                found.append(headers)
        return found

    def _run(self, walk: _Walk) -> Headers | None:
        """Go on until the pixels; None where the headers part, or are not understood."""
        while walk.rows.size >= FEW:
            if not self._has_bytes(walk, 12):
                continue
            heads = self._words[walk.where]
            raw = heads.tobytes()  # bytes are compared sooner than arrays
            uniform = raw == raw[:8] * heads.size
            first = int.from_bytes(raw[:8], "little")
            tag = (first & 0xFFFF) << 16 | first >> 16 & 0xFFFF
            if walk.in_meta and tag >> 16 != 2:
                if not _leave_meta(walk, heads):
                    return None
                continue
            named = walk.explicit and tag >> 16 != 0xFFFE
            if not uniform:
                keys = heads & (_WORD_AND_VR if named else _WORD)
                if (keys != keys[0]).any():
                    self._part_by(walk, keys)
                    return None
            vr = (first >> 32 & 0xFFFF).to_bytes(2, "little") if named else b""
            if named and vr not in _VRS:
                return None
            size = 12 if vr in LONG_VRS else 8
            lengths = self._lengths(walk, heads, size, named=named, uniform=uniform)
            endless = lengths == UNDEFINED if isinstance(lengths, int) else bool((lengths == UNDEFINED).any())
            if endless and not isinstance(lengths, int):
                self._part_by(walk, lengths == UNDEFINED)
                return None
            element = _Element(tag, vr, size, lengths, endless)
            if not walk.within and tag in PIXELS:
                return self._headers(walk, element)
            if not (self._within(walk, element) if walk.within else self._outside(walk, element)):
                return None
        return None

    def _lengths(self, walk: _Walk, heads: Rows, size: int, *, named: bool, uniform: bool) -> int | Rows:
        """Return the length of a value, or that in each header."""
        if size == 12:
            found = self._words[walk.where + 8] & _WORD
            return int(found[0]) if (found == found[0]).all() else found.astype(np.int64)
        shift = 48 if named else 32
        return int(heads[0]) >> shift if uniform else (heads >> np.uint64(shift)).astype(np.int64)

    def _within(self, walk: _Walk, element: _Element) -> bool:
        """Step over what stands in a sequence; return whether it may stand there."""
        tag = element.tag
        is_item, around = walk.within[-1]
        if tag == (_ITEM_END if is_item else _SEQUENCE_END):
            walk.within = walk.within[:-1]
            walk.explicit = around
            walk.advance(8)
            if not walk.within and walk.whole is not None:
                (kept, begins), walk.whole = walk.whole, None
                walk.nested[kept] = self._column(walk, begins, walk.where - begins)
            return True
        if is_item:
            return tag >> 16 != 0xFFFE and self._over(walk, element)
        if tag != _ITEM:
            return False
        if element.endless:
            walk.within = (*walk.within, (True, walk.explicit))
            walk.advance(8)
        else:
            walk.advance(8 + element.lengths)
        return True

    def _over(self, walk: _Walk, element: _Element) -> bool:
        """Step over an element, or into a sequence without a length; return whether that can be done."""
        if not element.endless:
            walk.advance(element.size + element.lengths)
            return True
        if element.vr not in {b"SQ", b"UN"} if walk.explicit else not _may_be_sequence(element.tag):
            return False
        walk.within = (*walk.within, (False, walk.explicit))
        walk.explicit = walk.explicit and element.vr != b"UN"
        walk.advance(element.size)
        return len(walk.within) <= _DEEPEST

    def _outside(self, walk: _Walk, element: _Element) -> bool:
        """Step over an element outside of sequences, keeping it if it is wanted; return whether that can be done."""
        tag = element.tag
        if tag <= walk.last or tag >> 16 == 0xFFFE or tag in _LEFT or tag > _LAST:
            return False
        if walk.wanted is None and tag > _MODALITY:
            said = (walk.values[t].same or b"" if t in walk.values else b"" for t in (_MODALITY, _IMAGE_TYPE))
            walk.wanted = blocks_wanted(*said)
        is_value, is_whole = tag in _VALUES, tag in NESTED or tag & 0xFF in walk.reserved.get(tag >> 8, ())
        creator = tag >> 16 in (walk.wanted or ()) and 0x10 <= tag & 0xFFFF <= 0xFF
        if not (is_value or is_whole or creator):
            walk.last = tag
            return self._over(walk, element)
        if element.endless:
            if is_value:
                walk.values[tag] = Column(b"")
            walk.whole = (tag, walk.where) if is_whole else None
            walk.last = tag
            return not creator and self._over(walk, element)
        needed = element.size + element.lengths
        if not self._has_bytes(walk, needed):
            return True  # those that have them go on with this element
        if is_value:
            walk.values[tag] = self._column(walk, walk.where + element.size, element.lengths)
        if is_whole or creator:
            walk.nested[tag] = self._column(walk, walk.where, needed)
        walk.last = tag
        walk.advance(needed)
        if tag in _DECIDING or creator:
            return self._decided(walk, tag, element.size, creator=creator)
        return True

    def _decided(self, walk: _Walk, tag: int, size: int, *, creator: bool) -> bool:
        """Take in what decides how the walk goes on; headers that differ in it part."""
        column = walk.nested[tag] if creator else walk.values[tag]
        if column.same is None:
            codes = {value: n for n, value in enumerate(sorted(set(column.each.values())))}
            by = np.array([codes[column.each[row]] for row in walk.rows.tolist()])
            for value, n in codes.items():
                part = walk.part(by == n)
                (part.nested if creator else part.values)[tag] = Column(value)
                if self._decided(part, tag, size, creator=creator):
                    self._waiting.append(part)
            return False
        if creator:
            wanted = (walk.wanted or {}).get(tag >> 16, {}).get(column.same[size:].strip(b" \0"))
            walk.reserved[tag >> 16 << 8 | tag & 0xFF] = wanted or frozenset()
        return True

    def _column(self, walk: _Walk, starts: Rows, lengths: int | Rows) -> Column:
        """Return the bytes that begin in each header at a place."""
        if isinstance(lengths, np.ndarray) and (lengths == lengths[0]).all():
            lengths = int(lengths[0])
        if isinstance(lengths, np.ndarray):
            view = memoryview(self._data.data)
            places = zip(walk.rows.tolist(), starts.tolist(), lengths.tolist(), strict=True)
            return Column(None, {row: bytes(view[start : start + n]) for row, start, n in places})
        if not lengths:
            return Column(b"")
        beginning_at = np.ndarray((self._data.size - lengths + 1, lengths), np.uint8, self._data.data, strides=(1, 1))
        raw = beginning_at[starts].tobytes()
        if raw == raw[:lengths] * starts.size:
            return Column(raw[:lengths])
        parts: list[bytes] = np.frombuffer(raw, f"V{lengths}").tolist()
        return Column(None, dict(zip(walk.rows.tolist(), parts, strict=True)))

    def _has_bytes(self, walk: _Walk, needed: int | Rows) -> bool:
        """Return whether the next bytes of all headers are at hand; if not, read on, or leave headers out."""
        if isinstance(needed, int) and needed <= walk.ahead:
            return True
        short = walk.where + needed > walk.ends
        walk.ahead = 0 if short.any() else int((walk.ends - walk.where).min())
        if not short.any():
            return True
        keep = ~short
        for n in np.flatnonzero(short) if walk.whole is None else ():
            row = int(walk.rows[n])
            by = int(walk.where[n]) - row * WIDTH
            length = int(needed[n]) if isinstance(needed, np.ndarray) else needed
            if self._blocks.move_on(row, by) and self._blocks.lengths[row] >= length:
                walk.where[n], walk.ends[n] = row * WIDTH, row * WIDTH + self._blocks.lengths[row]
                keep[n] = True
        if not keep.all():
            kept = walk.part(keep)
            walk.rows, walk.where, walk.ends, walk.whole = kept.rows, kept.where, kept.ends, kept.whole
        return False

    def _part_by(self, walk: _Walk, keys: npt.NDArray[Any]) -> None:
        """Let headers that differ go on apart."""
        for key in np.unique(keys):
            self._waiting.append(walk.part(keys == key))

    def _headers(self, walk: _Walk, element: _Element) -> Headers:
        """Return the headers of a part that has come to its pixels."""
        rows = walk.rows.tolist()
        offsets = self._blocks.origins[walk.rows] + walk.where - walk.rows * WIDTH + element.size
        lengths = np.broadcast_to(np.asarray(element.lengths), walk.rows.shape).tolist()
        return Headers(
            rows=rows,
            values=walk.values,
            nested=walk.nested,
            explicit=walk.explicit,
            pixel_tag=element.tag,
            pixel_vr=element.vr,
            pixel_offsets=dict(zip(rows, offsets.tolist(), strict=True)),
            pixel_lengths=dict.fromkeys(rows) if element.endless else dict(zip(rows, lengths, strict=True)),
        )


@lru_cache(maxsize=256)
def _may_be_sequence(tag: int) -> bool:
    """Return whether an element without VR may hold items."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return True


def _leave_meta(walk: _Walk, heads: Rows) -> bool:
    """Go on with what follows the file meta information; return whether its encoding is known."""
    column = walk.values.get(_SYNTAX)
    syntax = (column.same or b"").strip(b" \0").decode("latin-1") if column else ""
    walk.in_meta, walk.explicit = False, syntax in _EXPLICIT
    if syntax != _IMPLICIT:
        return walk.explicit
    letters = [(heads >> np.uint64(shift)) & np.uint64(0xFF) for shift in (32, 40)]
    looks_named = np.logical_and.reduce([(x >= ord("A")) & (x <= ord("Z")) for x in letters])
    return not looks_named.any()
