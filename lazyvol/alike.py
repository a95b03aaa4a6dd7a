"""Instances of headers that are alike: one is understood in full, the others where they differ from it.

What is done here changes nothing in the result: a header that differs in anything else than the
plain values below, or in which such a value is odd, is understood by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from itertools import repeat
from typing import Any

from pydicom.filereader import read_dataset

from lazyvol.blocks import Blocks
from lazyvol.columns import Column, Headers
from lazyvol.elements import Elements, instance_from_elements
from lazyvol.files import reader_at
from lazyvol.fragments import with_fragments
from lazyvol.keywords import (
    BINARY,
    CONTEXT,
    DESCRIPTION,
    EXTENDED_OFFSETS,
    INTEGERS,
    KEYWORDS,
    NUMBERS,
    PIXELS,
    TAGS,
    WANTED,
)
from lazyvol.objects import nested_values
from lazyvol.records import Frame, Instance, Value
from lazyvol.tracer import READ, uptake_of
from lazyvol.typed import FAR, acquisition_time, column_numbers
from lazyvol.uptake import Uptake

__all__ = ["elements_of", "instances_alike"]

_SYNTAX, _META_UID, _UID, _NUMBER, _POSITION = 0x00020010, 0x00020003, 0x00080018, 0x00200013, 0x00200032
_MODALITY, _PHOTOMETRIC = 0x00080060, 0x00280004
_SLOPE, _INTERCEPT = 0x00281053, 0x00281052
_TIMES = tuple(TAGS[k] for k in ("AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime"))
_KEPT = {tag: keyword for keyword, tag in NUMBERS.items() if keyword not in BINARY}
_PLAIN = {_UID, _META_UID, _NUMBER, _POSITION, _SLOPE, _INTERCEPT, *_TIMES, *_KEPT}
"""Elements whose values are put in place of those of the first header."""
_OF_UPTAKE = frozenset(TAGS[k] for k in READ)
"""Elements that uptake values of PET are computed from."""


def elements_of(headers: Headers, row: int) -> tuple[Elements, bytes]:
    """Return the elements of one header; also the extended offset table."""
    said = {tag: column.of(row) for tag, column in headers.values.items()}
    description, extended = said.get(DESCRIPTION, b""), said.get(EXTENDED_OFFSETS, b"")
    nested = b"".join(column.of(row) for column in headers.nested.values())
    ascii_only = description.isascii() and b"\x1b" not in description
    special = nested or said.get(_PHOTOMETRIC, b"").strip(b" \0") == b"PALETTE COLOR"
    dataset = None
    if special or not ascii_only:
        context = {**CONTEXT, DESCRIPTION: b"LO"}
        raw = b"".join(_encoded(t, vr, said[t], headers.explicit) for t, vr in context.items() if t in said)
        dataset = read_dataset(BytesIO(raw + nested), not headers.explicit, True)
    elements = Elements(
        values={tag: value for tag, value in said.items() if tag in WANTED},
        little_endian=True,
        transfer_syntax_uid=_text(said[_SYNTAX]),
        pixel_element=PIXELS[headers.pixel_tag],
        pixel_offset=headers.pixel_offsets[row],
        pixel_length=headers.pixel_lengths[row],
        pixel_vr="OB" if headers.pixel_vr == b"OB" else "OW",
        description=_text(description) if dataset is None or ascii_only else str(dataset.get("SeriesDescription", "")),
        fallback_uid=_text(said.get(_META_UID, b"")),
        **({} if dataset is None or not special else nested_values(dataset, little_endian=True)),
    )
    return elements, extended


def _encoded(tag: int, vr: bytes, value: bytes, explicit: bool) -> bytes:
    """Return a data element in little endian."""
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    if explicit:
        return head + vr + len(value).to_bytes(2, "little") + value
    return head + len(value).to_bytes(4, "little") + value


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def instances_alike(headers: Headers, blocks: Blocks) -> dict[int, Instance]:
    """Return the Instances of headers by row; those of which none can be made are left out."""
    found: dict[int, Instance] = {}
    plain = _PLAIN | (_OF_UPTAKE if _said(headers, _MODALITY) == b"PT" else frozenset())
    columns = (*headers.values.items(), *((0, column) for column in headers.nested.values()))
    others = [column.each for tag, column in columns if column.same is None and tag not in plain]
    by_others: dict[tuple[int | bytes | None, ...], list[int]] = defaultdict(list)
    differing: list[Mapping[int, int | bytes | None]] = [headers.pixel_lengths, *others]
    keys = zip(*(map(each.__getitem__, headers.rows) for each in differing), strict=True)
    for row, key in zip(headers.rows, keys, strict=True):
        by_others[key].append(row)
    for rows in by_others.values():
        made = _made(headers, blocks, rows)
        if made[0] is not None and made[0].pixels.is_plain and None not in made:
            found.update(zip(rows, made, strict=True))  # type: ignore[arg-type]  # none of them is None
            continue
        for row, known in zip(rows, made, strict=True):
            try:
                instance = known or _alone(headers, blocks, row)
                if not instance.pixels.is_plain:
                    with open(instance.path, "rb", buffering=0) as file:
                        extended = headers.values.get(EXTENDED_OFFSETS, Column(b"")).of(row)
                        instance = with_fragments(instance, reader_at(file), extended)
                found[row] = instance
            except Exception:  # the road of single files says what is wrong
                continue
    return found


def _said(headers: Headers, tag: int) -> bytes:
    """Return a value that is the same in all headers, without padding."""
    return (headers.values.get(tag, Column(b"")).same or b"").strip(b" \0")


def _alone(headers: Headers, blocks: Blocks, row: int) -> Instance:
    """Return the Instance of one header, understood by itself."""
    elements, _ = elements_of(headers, row)
    instance = instance_from_elements(elements, path=blocks.paths[row], size=blocks.sizes[row])
    return instance._replace(modified=blocks.modified[row])


def _made(headers: Headers, blocks: Blocks, rows: list[int]) -> Sequence[Instance | None]:
    """Return the Instances of headers that differ in plain values only; None where one has to be made alone."""
    none = [None] * len(rows)
    if len(rows) < 2:
        return none
    try:
        first = _alone(headers, blocks, rows[0])
        if len(first.frames) > 1 or first.tile:
            return none
        made = _Pattern(headers, blocks, rows, first).instances()
    except Exception:  # the road of single files says what is wrong
        return none
    return made if made[0] == first else none


class _Pattern:
    """The Instance of the first of some headers, and what is put in its place for each."""

    def __init__(self, headers: Headers, blocks: Blocks, rows: list[int], first: Instance) -> None:
        self._headers, self._blocks, self._rows, self._first = headers, blocks, rows, first
        self._odd: set[int] = set()
        """Which of the rows hold a value that is odd."""

    def instances(self) -> list[Instance | None]:
        """Return an Instance for each row; None where a value is odd."""
        blocks, rows = self._blocks, self._rows
        own: dict[str, Iterable[Any]] = {
            "path": [blocks.paths[row] for row in rows],
            "size": [blocks.sizes[row] for row in rows],
            "modified": [blocks.modified[row] for row in rows],
            "frames": zip(self._frames(), strict=True),
            "values": self._values(),
        }
        if self._varies(_UID, _META_UID):
            uids = zip(self._each(_UID), self._each(_META_UID), strict=True)
            own["uid"] = [_text(uid) or _text(other) for uid, other in uids]
        if self._varies(_NUMBER):
            numbers = self._numbers(_NUMBER)
            self._odd |= {n for n, v in enumerate(numbers) if v and not -(2**31) <= v[0] < 2**31}
            own["number"] = [int(v[0]) if v else None for v in numbers]
        if self._varies(*_TIMES):
            times = zip(*map(self._texts, _TIMES), strict=True)
            own["acquisition_time"] = [acquisition_time(*t) for t in times]
        if self._first.modality == "PT" and self._varies(*_OF_UPTAKE):
            own["uptake"] = self._uptakes()
        made = map(Instance._make, zip(*_filled(self._first, own), strict=False))
        if not self._odd:
            return list(made)
        return [None if n in self._odd else instance for n, instance in enumerate(made)]

    def _varies(self, *tags: int) -> bool:
        columns = self._headers.values
        return any(tag in columns and columns[tag].same is None for tag in tags)

    def _each(self, tag: int) -> list[bytes]:
        """Return the value of an element in each row; nothing where it is absent."""
        column = self._headers.values.get(tag, Column(b""))
        return [column.each[row] for row in self._rows] if column.same is None else [column.same] * len(self._rows)

    def _texts(self, tag: int) -> Iterable[str]:
        """Return the text of an element in each row, without padding."""
        column = self._headers.values.get(tag, Column(b""))
        if column.same is not None:
            return [_text(column.same)] * len(self._rows)
        return [_text(column.each[row]) for row in self._rows]

    def _numbers(self, tag: int) -> list[tuple[float, ...]]:
        """Return the numbers of an element in each row, none if it is blank."""
        found = column_numbers(self._each(tag))
        if None in found:
            self._odd |= {n for n, v in enumerate(found) if v is None}
        return [v or () for v in found]

    def _frames(self) -> list[Frame]:
        own: dict[str, Iterable[Any]] = {}
        if self._varies(_POSITION):
            own["position"] = positions = self._numbers(_POSITION)
            near = (len(p) == 3 and min(p) >= -FAR and max(p) <= FAR for p in positions)
            self._odd |= {n for n, is_near in enumerate(near) if not is_near}
        if self._varies(_SLOPE):
            own["slope"] = slopes = [v[0] if v else 1.0 for v in self._numbers(_SLOPE)]
            self._odd |= {n for n, slope in enumerate(slopes) if not slope}
        if self._varies(_INTERCEPT):
            own["intercept"] = [v[0] if v else 0.0 for v in self._numbers(_INTERCEPT)]
        own["offset"] = offsets = [self._headers.pixel_offsets[row] for row in self._rows]
        most, length = self._first.pixels.frame_bytes, self._headers.pixel_lengths[self._rows[0]]
        if self._first.frames[0].length is not None and length is not None:
            sizes = (self._blocks.sizes[row] for row in self._rows)
            rest = min(most, length)
            own["length"] = [max(0, min(rest, size - at)) for size, at in zip(sizes, offsets, strict=True)]
        return list(map(Frame._make, zip(*_filled(self._first.frames[0], own), strict=False)))

    def _values(self) -> list[tuple[tuple[str, Value], ...]]:
        vary = {keyword: tag for tag, keyword in _KEPT.items() if self._varies(tag)}
        shared = dict(self._first.values)
        pairs: list[Iterable[tuple[str, Any]]] = []
        blank = False
        for keyword in sorted({*shared, *vary}):
            if keyword not in vary:
                pairs.append(repeat((keyword, shared[keyword]), len(self._rows)))
                continue
            found: list[Any] = self._numbers(vary[keyword])
            blank = blank or () in found
            if keyword in INTEGERS:
                whole = {v: tuple(map(int, v)) for v in set(found) if all(x.is_integer() for x in v)}
                found = [whole.get(v, v) for v in found]
            pairs.append([(keyword, v[0] if len(v) == 1 else v) for v in found])
        values = list(zip(*pairs, strict=True)) if pairs else [()] * len(self._rows)
        return [tuple(p for p in v if p[1] != ()) for v in values] if blank else values

    def _uptakes(self) -> list[Uptake | None]:
        """Return what PET headers say of dose and body; it is the same in most images of a bed."""
        elements, _ = elements_of(self._headers, self._rows[0])
        known = {KEYWORDS[tag]: raw for tag, raw in elements.values.items()}
        keywords = {KEYWORDS[tag]: tag for tag in _OF_UPTAKE if self._varies(tag)}
        found: dict[tuple[bytes, ...], Uptake] = {}
        keys = list(zip(*(self._each(tag) for tag in keywords.values()), strict=True))
        for key in set(keys):
            values = known | dict(zip(keywords, key, strict=True))
            found[key] = uptake_of(values, little_endian=True, tracers=elements.tracers, private=elements.makers_uptake)
        return [found[key] for key in keys]


def _filled(record: Instance | Frame, own: Mapping[str, Iterable[Any]]) -> list[Iterable[Any]]:
    """Return the fields of many records: their own, and those that they share with one."""
    return [own.get(name) or repeat(value) for name, value in record._asdict().items()]
