"""Instances of headers that are alike: one is understood in full, the others where they differ from it.

What is done here changes nothing in the result: a header that differs in anything else than the
plain values below, or in which such a value is odd, is understood by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from io import BytesIO
from typing import Any

from pydicom.filereader import read_dataset

from lazyvol.blocks import Blocks
from lazyvol.columns import CHARACTER_SET, DESCRIPTION, EXTENDED_OFFSETS, PIXELS, Column, Headers
from lazyvol.elements import Elements, instance_from_elements, places_of
from lazyvol.files import reader_at
from lazyvol.fragments import with_fragments
from lazyvol.keywords import BINARY, INTEGERS, KEYWORDS, NUMBERS, TAGS, WANTED
from lazyvol.objects import nested_values
from lazyvol.records import Frame, Instance, Value
from lazyvol.tracer import READ, uptake_of
from lazyvol.typed import FAR, Reader, text_numbers
from lazyvol.uptake import Uptake

__all__ = ["elements_of", "instances_alike"]

_SYNTAX, _META_UID, _UID, _NUMBER, _POSITION = 0x00020010, 0x00020003, 0x00080018, 0x00200013, 0x00200032
_MODALITY, _PHOTOMETRIC = 0x00080060, 0x00280004
_SLOPE, _INTERCEPT, _FRAMES = 0x00281053, 0x00281052, 0x00280008
_CONTEXT = {CHARACTER_SET: b"CS", 0x00080008: b"CS", _MODALITY: b"CS", _PHOTOMETRIC: b"CS", 0x00280103: b"US"}
"""What is looked at beside nested elements, with its VR."""
_TIMES = {TAGS[k]: k for k in ("AcquisitionDate", "AcquisitionDateTime", "AcquisitionTime")}
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
        context = {**_CONTEXT, DESCRIPTION: b"LO"}
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


def instances_alike(headers: Headers, blocks: Blocks) -> Iterator[tuple[int, Instance]]:
    """Yield the Instances of headers by row; those of which none can be made are left out."""
    try:
        elements, _ = elements_of(headers, headers.rows[0])
        pattern = _Pattern(headers, blocks, elements)
    except Exception:  # the road of single files says what is wrong
        return
    for row in headers.rows:
        try:
            instance = pattern.instance(row) or _alone(headers, blocks, row)
            if instance.pixels.is_plain:
                yield row, instance
            else:
                with open(instance.path, "rb", buffering=0) as file:
                    extended = headers.values.get(EXTENDED_OFFSETS, Column(b"")).of(row)
                    yield row, with_fragments(instance, reader_at(file), extended)
        except Exception:  # as above
            continue


def _alone(headers: Headers, blocks: Blocks, row: int) -> Instance:
    """Return the Instance of one header, understood by itself."""
    elements, _ = elements_of(headers, row)
    instance = instance_from_elements(elements, path=blocks.paths[row], size=blocks.sizes[row])
    return replace(instance, modified=blocks.modified[row])


class _Pattern:
    """The Instance of the first header, and what is put in its place for the others."""

    def __init__(self, headers: Headers, blocks: Blocks, elements: Elements) -> None:
        self._headers, self._blocks = headers, blocks
        row = headers.rows[0]
        self._first = _alone(headers, blocks, row)
        self._varying = {tag: column for tag, column in headers.values.items() if column.same is None}
        self._known = {KEYWORDS[tag]: raw for tag, raw in elements.values.items()}
        self._elements = elements
        self._uptakes: dict[tuple[bytes, ...], Uptake | None] = {}
        self._is_pet = self._first.modality == "PT"
        self._timed = not self._varying.keys().isdisjoint(_TIMES)
        vary = {_KEPT[tag]: tag for tag in self._varying if tag in _KEPT}
        values = dict(self._first.values) | dict.fromkeys(vary, ())
        self._values = sorted(values.items())
        self._numbers = [(n, vary[k], k) for n, (k, _) in enumerate(self._values) if k in vary]
        self._fields = _fields_of(self._first)
        self._frame = _fields_of(self._first.frames[0])
        self._holds = self._is_plain() and self._made(row) == self._first

    def _is_plain(self) -> bool:
        first = self._first
        vary = self._varying.keys() - (set() if self._is_pet else _OF_UPTAKE - _PLAIN)
        lengths = set(self._headers.pixel_lengths.values())
        return (
            vary <= (_PLAIN | _OF_UPTAKE)
            and all(column.same is not None for column in self._headers.nested.values())
            and len(first.frames) == 1
            and not (first.tile or first.malformed or first.notes or first.refusal)
            and (_FRAMES not in self._headers.values or len(lengths) == 1)
        )

    def instance(self, row: int) -> Instance | None:
        """Return the Instance of a header, or None where one of its values is odd."""
        return self._made(row) if self._holds else None

    def _made(self, row: int) -> Instance | None:
        said = {tag: column.each[row] for tag, column in self._varying.items()}
        try:
            own = self._own(said)
            frame = self._own_frame(said, row)
        except ValueError:
            return None
        path, size, modified = self._blocks.paths[row], self._blocks.sizes[row], self._blocks.modified[row]
        return Instance(**{**self._fields, **own, "path": path, "size": size, "modified": modified, "frames": (frame,)})

    def _own(self, said: Mapping[int, bytes]) -> dict[str, Any]:
        """Return the fields of an Instance in which it differs from the first; raise where a value is odd."""
        own: dict[str, Any] = {}
        if _UID in said or _META_UID in said:
            own["uid"] = _text(self._raw(_UID, said)) or _text(self._raw(_META_UID, said))
        if _NUMBER in said:
            number = _numbers(said[_NUMBER])[:1]
            if number and not -(2**31) <= number[0] < 2**31:
                raise ValueError
            own["number"] = int(number[0]) if number else None
        if self._timed:
            times = {keyword: self._raw(tag, said) for tag, keyword in _TIMES.items()}
            own["acquisition_time"] = Reader(times, little_endian=True).acquisition_time()
        if self._numbers:
            own["values"] = self._own_values(said)
        if self._is_pet:
            own["uptake"] = self._own_uptake(said)
        return own

    def _raw(self, tag: int, said: Mapping[int, bytes]) -> bytes:
        column = self._headers.values.get(tag)
        return b"" if column is None else said[tag] if column.same is None else column.same

    def _own_frame(self, said: Mapping[int, bytes], row: int) -> Frame:
        own = dict(self._frame)
        if _POSITION in said:
            position = _numbers(said[_POSITION])
            if len(position) != 3 or max(map(abs, position)) > FAR:
                raise ValueError
            own["position"] = position
        if _SLOPE in said:
            own["slope"] = (*_numbers(said[_SLOPE]), 1.0)[0]
            if not own["slope"]:
                raise ValueError
        if _INTERCEPT in said:
            own["intercept"] = (*_numbers(said[_INTERCEPT]), 0.0)[0]
        start, length = self._headers.pixel_offsets[row], self._headers.pixel_lengths[row]
        place = places_of(self._first.pixels, 1, start, length, self._blocks.sizes[row])[0]
        own["offset"], own["length"] = place
        return Frame(**own)

    def _own_values(self, said: Mapping[int, bytes]) -> tuple[tuple[str, Value], ...]:
        values = list(self._values)
        for place, tag, keyword in self._numbers:
            found: tuple[float, ...] = _numbers(said[tag])
            if keyword in INTEGERS and all(v.is_integer() for v in found):
                found = tuple(map(int, found))
            values[place] = (keyword, found[0] if len(found) == 1 else found)
        return tuple(v for v in values if v[1] != ())

    def _own_uptake(self, said: Mapping[int, bytes]) -> Uptake | None:
        """Return what a PET header says of dose and body; it is the same in most images of a bed."""
        timed = {tag: raw for tag, raw in said.items() if tag in _OF_UPTAKE}
        key = tuple(timed.values())
        if key not in self._uptakes:
            values = {**self._known, **{KEYWORDS[tag]: raw for tag, raw in timed.items()}}
            e = self._elements
            self._uptakes[key] = uptake_of(values, little_endian=True, tracers=e.tracers, private=e.makers_uptake)
        return self._uptakes[key]


def _fields_of(record: Instance | Frame) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def _numbers(raw: bytes) -> tuple[float, ...]:
    """Return the numbers of a value, none if it is blank; raise if it is odd."""
    found = text_numbers(raw)
    if found is None:
        raise ValueError
    return found
