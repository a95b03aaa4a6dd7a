"""Elements that identify, each with a value of its own that can be found again wherever it went.

`Marks` gives every attribute of table E.1-1 of PS3.15 (``confidential.txt``) a value that its VR allows and that
nothing else has: a word such as MARKER00007, a day from 1837 on, a time with the fraction .517391, a
number with the fraction .739151, a UID below 1.2.826.0.1.777. `Marks.found` looks for all of them in bytes, in text
and in numbers, and says where each was put.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

ROOT = "1.2.826.0.1.777"
_DAY_0 = date(1837, 1, 1)
_SECOND_0 = 14400
_TIME_END, _NUMBER_END = ".517391", ".739151"
_BINARY = ("OB", "OW", "UN")


def _listed() -> dict[str, int]:
    """Return the attributes of the table by keyword; those of repeating groups in their first group."""
    lines = (Path(__file__).parent / "confidential.txt").read_text("utf-8").splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return {
        keyword: int(tag.replace("xx,xxxx", "00,3000").replace("xx", "00").replace(",", ""), 16)
        for tag, keyword in rows
    }


LISTED = _listed()
"""Tags of table E.1-1 by keyword."""
_NOT_IN_A_DATASET = {"AffectedSOPInstanceUID", "RequestedSOPInstanceUID", "MediaStorageSOPInstanceUID"}
_NOT_IN_A_DATASET |= {"ReferencedSOPInstanceUIDInFile"}  # those of commands, of the file meta group and of DICOMDIR
DATASET = {keyword: tag for keyword, tag in LISTED.items() if keyword not in _NOT_IN_A_DATASET}
"""Those that stand in a data set."""


class Mark(NamedTuple):
    """An element that holds a marker."""

    keyword: str
    where: str
    vr: str

    def __repr__(self) -> str:
        return f"{self.where}.{self.keyword} ({self.vr})"


def vr_of(keyword: str, tag: int) -> str:
    """Return the VR of an element, also of one that is newer than the dictionary of pydicom."""
    if tag >> 16 in (0x5000, 0x6000):
        return "LT" if keyword.endswith("Comments") else "OW"
    if dictionary_has_tag(tag):
        return dictionary_VR(tag)[:2]
    return next(
        (vr for end, vr in (("Sequence", "SQ"), ("DateTime", "DT"), ("URI", "UR")) if keyword.endswith(end)), "LO"
    )


class Marks:
    """The markers of one series."""

    def __init__(self) -> None:
        self._by_number: dict[int, Mark] = {}
        self._by_value: dict[float, Mark] = {}
        self._by_text: dict[bytes, Mark] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Mark]:
        return iter(self._by_number.values())

    def put(
        self, item: Dataset, where: str, tags: Mapping[str, int] = DATASET, given: Mapping[str, object] | None = None
    ) -> Dataset:
        """Put all of the table into an item, or others; ``given`` has values that must be as they are."""
        for keyword, tag in tags.items():
            item[tag] = self._element(keyword, tag, where, (given or {}).get(keyword))
        return item

    def word(self, keyword: str, where: str) -> str:
        """Return a word that stands for something."""
        return f"MARKER{self._number(Mark(keyword, where, 'LO')):05d}"

    def _number(self, mark: Mark) -> int:
        self._by_number[len(self._by_number) + 1] = mark
        return len(self._by_number)

    def _element(self, keyword: str, tag: int, where: str, given: object) -> DataElement | RawDataElement:
        vr = vr_of(keyword, tag)
        mark = Mark(keyword, where, vr)
        number = self._number(mark)
        if vr == "SQ":
            return DataElement(tag, "SQ", Sequence([self._code(keyword, where)]))
        return raw(tag, vr, str(given).encode() if given is not None else self._value(number, mark))

    def _code(self, keyword: str, where: str) -> Dataset:
        """Return the item of a sequence: a code, which has a place for words."""
        item, inside = Dataset(), f"{where}.{keyword}"
        item.CodeValue, item.CodingSchemeDesignator = self.word("CodeValue", inside), "99MADE"
        item.CodeMeaning = self.word("CodeMeaning", inside)
        return item

    def _value(self, number: int, mark: Mark) -> bytes:
        """Return a value that the VR allows, and note how it may look when it is a number."""
        vr = mark.vr
        day, second = _DAY_0 + timedelta(number), _SECOND_0 + number
        time = f"{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}{_TIME_END}"
        if vr in ("DA", "DT"):
            self._by_value |= {float(f"{day:%Y%m%d}"): mark, float(day.toordinal()): mark}
            self._by_value[day.toordinal() * 86400.0] = mark
        if vr in ("TM", "DT"):
            self._by_value[second + float(_TIME_END)] = mark
            self._by_value[day.toordinal() * 86400.0 + second + float(_TIME_END)] = mark
        if vr in ("DS", "IS", "US"):
            self._by_value[
                float({"DS": f"{number}{_NUMBER_END}", "IS": 73910000 + number, "US": 64000 + number % 1000}[vr])
            ] = mark
        if vr == "AS":
            self._by_text[b"%03dY" % (900 - len(self._by_text))] = mark
            return next(reversed(self._by_text))
        if vr == "IS":
            self._by_text[b"%d" % (73910000 + number)] = mark
        if vr == "US":
            return struct.pack("<H", 64000 + number % 1000)
        plain = {"DA": f"{day:%Y%m%d}", "TM": time, "DT": f"{day:%Y%m%d}{time}", "UI": f"{ROOT}{number:05d}"}
        plain |= {"DS": f"{number}{_NUMBER_END}", "IS": f"{73910000 + number}"}
        return plain.get(vr, f"MARKER{number:05d}").encode()

    def found(self, content: bytes = b"", arrays: Iterable[np.ndarray] = ()) -> list[Mark]:
        """Return which markers are in the bytes, as text in UTF-8, UTF-16 or UTF-32 or as numbers, and in arrays."""
        marks = [m for text in {content, content.replace(b"\0", b"")} for m in self._in_text(text)]
        marks += self._in_numbers(
            np.frombuffer(content[at : len(content) - (len(content) - at) % 8], kind)
            for at in range(min(8, len(content)))
            for kind in ("<f8", ">f8", "<i8", ">i8")
        )
        marks += self._in_numbers(arrays)
        return sorted({m for m in marks if m is not None})

    def _in_text(self, text: bytes) -> Iterable[Mark | None]:
        by_number = self._by_number.get
        for found in re.finditer(rb"(?i:marker)(\d{5})", text):
            yield by_number(int(found[1]))
        for found in re.finditer(re.escape(ROOT.encode()) + rb"(\d{5})", text):
            yield by_number(int(found[1]))
        for found in re.finditer(rb"(?<!\d)(1[89]\d\d)-?(\d\d)-?(\d\d)", text):
            yield self._by_value.get(float(b"".join(found.groups())))
        for found in re.finditer(rb"(\d+)\.739151", text):
            yield by_number(int(found[1]))
        for found in re.finditer(rb"(?=(?<!\d)(\d\d):?(\d\d):?(\d\d)\.51739)", text):
            hours, minutes, seconds = map(int, found.groups())
            yield by_number(hours * 3600 + minutes * 60 + seconds - _SECOND_0)
        for found in re.finditer(rb"(\d+)\.51739", text):
            yield by_number(int(found[1]) % 86400 - _SECOND_0)
            yield by_number(
                int(found[1][-6:-4] or 0) * 3600 + int(found[1][-4:-2] or 0) * 60 + int(found[1][-2:]) - _SECOND_0
            )
        yield from (mark for needle, mark in self._by_text.items() if needle in text.upper())

    def _in_numbers(self, arrays: Iterable[np.ndarray]) -> Iterable[Mark]:
        """Find numbers but for how they were rounded."""
        exact = self._by_value
        single = {float(np.float32(v)): mark for v, mark in exact.items()}
        keys_of = {id(d): np.array([-np.inf, *sorted(d), np.inf]) for d in (exact, single)}
        for array in arrays:
            if array.dtype.kind not in "iuf":
                continue
            wanted = single if array.dtype == np.float32 else exact
            keys = keys_of[id(wanted)]
            with np.errstate(all="ignore"):
                values = np.unique(array.astype("f8"))
                at = np.clip(np.searchsorted(keys, values), 1, len(keys) - 1)
                near = np.concatenate([keys[n][np.abs(values - keys[n]) <= 1e-12 * keys[n]] for n in (at - 1, at)])
            yield from (wanted[v] for v in near[np.isfinite(near)].tolist())


def raw(tag: int, vr: str, value: bytes) -> RawDataElement:
    """Return an element of these bytes, legal or not."""
    end = b"\0" if vr in ("UI", *_BINARY) else b" "
    value += end * (len(value) % 2)
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True, True)


def content_of(store: Path) -> tuple[bytes, list[np.ndarray]]:
    """Return every byte of a store with the names of its files, its text decoded; and its arrays decoded."""
    found = [
        str(p.relative_to(store)).encode() + b"\n" + p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()
    ]
    arrays = []
    for _, member in zarr.open_group(store, mode="r").members(max_depth=None):
        found.append(str(dict(member.attrs)).encode())
        if isinstance(member, zarr.Array):
            values = np.ravel(member[...])
            arrays.append(values)
            found.append(" ".join(map(str, values if values.dtype.kind not in "iufb" else values[:2000])).encode())
    return b"\n".join(found), arrays


def tags_of(*keywords: str) -> dict[str, int]:
    """Return tags by keyword."""
    return {keyword: int(tag_for_keyword(keyword) or 0) for keyword in keywords}
