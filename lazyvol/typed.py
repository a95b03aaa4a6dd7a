"""Typed values of raw header elements; one that is malformed is named, never guessed.

Values come as bytes and are understood here (DICOM PS3.5 section 6.2). Nothing here opens
a file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache
from itertools import repeat

from lazyvol.keywords import BINARY, FRAME_NUMBERS, FRAME_STORED, FRAME_WORDS, INTEGERS, NUMBERS, STORED, WORDS
from lazyvol.records import Value, Vector

__all__ = ["FAR", "HeaderError", "Reader", "acquisition_time", "column_numbers", "kept_values", "text_numbers"]

FAR = 1e7
"""No voxel lies so far from the origin of its frame of reference, mm."""
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)$")
"""A DA, or the first part of a DT (DICOM PS3.5 section 6.2)."""
_TIME = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d(?:\.\d{1,6})?))?)?(?:[+-]\d{4})?$")
"""A TM, or what follows the day in a DT."""
_NUMERIC = frozenset("0123456789+-.eE\\ ")
"""Characters of a DS or IS value; other text may be anything, and is not repeated."""
_NUMERIC_BYTES = b"0123456789+-.eE\\ "
"""The same as bytes: a binary number is never made of these alone."""
_NEVER_TEXT = frozenset({"DimensionIndexValues", "ReferencedSegmentNumber"})
"""Binary numbers that no writer puts as text, and whose bytes may look like it."""
_KEPT_NUMBERS = (*NUMBERS, *FRAME_NUMBERS)
_KEPT_WORDS = (*WORDS, *FRAME_WORDS)
_KEPT_STORED = (*STORED, *FRAME_STORED)

Orientation = tuple[float, float, float, float, float, float]


class HeaderError(Exception):
    """Why a file is no Instance; the message becomes the reason of a `Skipped`."""

    def __init__(self, reason: str, *, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged
        """Whether the file may have been an image."""


class Reader:
    """Typed values of a header, or of the functional groups of a frame, by keyword; notes those that are malformed."""

    __slots__ = ("_binary", "_byte_order", "_values", "malformed")

    def __init__(self, values: Mapping[str, bytes], *, little_endian: bool, binary: Mapping[str, str] = BINARY) -> None:
        self._values = values
        self._binary = binary
        self._byte_order = "<" if little_endian else ">"
        self.malformed: list[tuple[str, str]] = []

    def has(self, keyword: str) -> bool:
        """Return whether the element is there, perhaps empty."""
        return keyword in self._values

    def raw(self, keyword: str) -> bytes:
        """Return the bytes of a value; none if it is absent."""
        return self._values.get(keyword, b"")

    def text(self, keyword: str) -> str:
        """Return the text of a value, without padding."""
        return self.raw(keyword).decode("latin-1").strip(" \0")

    def words(self, keyword: str) -> tuple[str, ...]:
        """Return the words of a CS, SH or LO element."""
        text = self.text(keyword)
        return tuple(word.strip() for word in text.split("\\")) if text else ()

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Return the numbers of a DS, IS, FD, FL, UL or US element; None if absent or malformed."""
        raw = self.raw(keyword)
        if raw and (keyword in _NEVER_TEXT or (keyword in self._binary and raw.translate(None, _NUMERIC_BYTES))):
            return self._unpacked(keyword, raw, count)
        found = text_numbers(raw)
        if found is None or (found and count is not None and len(found) != count):
            self._reject(keyword)
            return None
        return found or None

    def _unpacked(self, keyword: str, raw: bytes, count: int | None) -> tuple[float, ...] | None:
        code = self._binary[keyword]
        found = struct.unpack_from(f"{self._byte_order}{len(raw) // struct.calcsize(code)}{code}", raw)
        if not found or not all(map(math.isfinite, found)) or (count is not None and len(found) != count):
            self.malformed.append((keyword, "not a number"))
            return None
        return found

    def number(self, keyword: str) -> float | None:
        """Return the first number of an element; None if absent or malformed."""
        found = self.numbers(keyword)
        return None if found is None else found[0]

    def integer(self, keyword: str) -> int | None:
        """Return the value of an IS element; None if absent, malformed or beyond what IS can hold."""
        found = self.number(keyword)
        if found is not None and not -(2**31) <= found < 2**31:
            self._reject(keyword)
            return None
        return None if found is None else int(found)

    def short(self, keyword: str) -> int | None:
        """Return the value of a US element; None if absent."""
        found = self.shorts(keyword)
        return found[0] if found else None

    def shorts(self, keyword: str) -> tuple[int, ...]:
        """Return the values of a US element."""
        raw = self.raw(keyword)
        return struct.unpack_from(f"{self._byte_order}{len(raw) // 2}H", raw)

    def stored(self, keyword: str, *, signed: bool) -> int | None:
        """Return a stored number (US or SS); None if absent, or not of 2 bytes."""
        raw = self.raw(keyword)
        if len(raw) not in {0, 2}:
            self.malformed.append((keyword, "not a number"))
        code = self._byte_order + ("h" if signed else "H")
        return int(struct.unpack(code, raw)[0]) if len(raw) == 2 else None

    def position(self, keyword: str = "ImagePositionPatient") -> Vector | None:
        """Return where the first voxel lies, mm; None if absent, malformed or far from everything."""
        found = self.numbers(keyword, 3)
        if found is not None and max(map(abs, found)) > FAR:
            self.malformed.append((keyword, "\\".join(f"{v:g}" for v in found)))
            return None
        return found  # type: ignore[return-value]  # counted above

    def orientation(self, keyword: str = "ImageOrientationPatient") -> Orientation | None:
        """Return directions along x and y if the two vectors can be direction cosines."""
        found = self.numbers(keyword, 6)
        if found is None:
            return None
        along_x, along_y = found[:3], found[3:]
        lengths = math.hypot(*along_x), math.hypot(*along_y)
        dot = sum(a * b for a, b in zip(along_x, along_y, strict=True))
        if any(abs(length - 1) > 1e-2 for length in lengths) or abs(dot) > 1e-2:
            self.malformed.append((keyword, "\\".join(f"{v:g}" for v in found)))
            return None
        return found  # type: ignore[return-value]

    def pixel_spacing(self) -> tuple[float, float] | None:
        """Return PixelSpacing, mm, if it is positive."""
        found = self.numbers("PixelSpacing", 2)
        if found is not None and min(found) <= 0:
            self.malformed.append(("PixelSpacing", "\\".join(map(str, found))))
            return None
        return found  # type: ignore[return-value]

    def slope(self, keyword: str = "RescaleSlope") -> float:
        """Return RescaleSlope, 1 if absent; 0 is malformed."""
        found = self.number(keyword)
        if found == 0:
            self.malformed.append((keyword, "0"))
        return found or 1.0

    def acquisition_time(self) -> float | None:
        """Return seconds from a fixed day to the acquisition; without a date from midnight."""
        keywords = "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime"
        return acquisition_time(*map(self.text, keywords))

    def _reject(self, keyword: str) -> None:
        text = self._values[keyword][:40].decode("ascii", "replace").strip(" \0")
        self.malformed.append((keyword, text if set(text) <= _NUMERIC else "not a number"))


def text_numbers(raw: bytes) -> tuple[float, ...] | None:
    """Return the numbers of a DS or IS, none if it is blank; None if it is malformed."""
    if raw.translate(None, _NUMERIC_BYTES):  # float() alone also takes underscores and words
        raw = raw.strip(b" \0")
        if raw.translate(None, _NUMERIC_BYTES):
            return None
    text = raw.strip()
    if not text:
        return ()
    try:
        found = tuple(map(float, text.split(b"\\")))
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def column_numbers(each: Sequence[bytes]) -> list[tuple[float, ...] | None]:
    """Return the numbers of one DS or IS in many headers, as `text_numbers` does for each."""
    joined = b"\\".join(each)
    counts = set(map(bytes.count, each, repeat(b"\\")))
    if len(counts) == 1 and not joined.translate(None, _NUMERIC_BYTES):  # all at once is three times as fast
        with suppress(ValueError):
            found = list(map(float, joined.split(b"\\")))
            if all(map(math.isfinite, found)):
                return list(zip(*[iter(found)] * (counts.pop() + 1), strict=True))
    known = {raw: text_numbers(raw) for raw in set(each)}
    return [known[raw] for raw in each]


def acquisition_time(joined: str, day: str, time: str) -> float | None:
    """Return seconds from a fixed day to the time of a DT, or of a DA and a TM; without a date from midnight."""
    if len(joined) > 8:
        day, time = joined[:8], joined[8:]
    elif ":" in time:
        time = time.replace(":", "")
    days, found = _days(day), _TIME.match(time)
    if days is None or not found:
        return None
    hours, minutes, seconds = found.groups("0")
    return days * 86400.0 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@lru_cache(maxsize=64)
def _days(day: str) -> int | None:
    """Return the number of a day, 0 if it is blank or of no year; None if there is no such day."""
    if not day.strip(" "):
        return 0
    found = _DATE.match(day)
    try:
        year, month, in_month = map(int, found.groups()) if found else (1, 0, 0)
        return date(year, month, in_month).toordinal() if year else 0
    except ValueError:
        return None


def kept_values(reader: Reader, *, signed: bool, among: Iterable[str] | None = None) -> dict[str, Value]:
    """Return the protocol values of a header by keyword: all that are kept, or those ``among`` some."""
    wanted = None if among is None else set(among)
    kept: dict[str, Value] = {}
    for keyword in _KEPT_NUMBERS if wanted is None else wanted.intersection(_KEPT_NUMBERS):
        numbers = reader.numbers(keyword)
        if numbers and keyword in INTEGERS and all(float(v).is_integer() for v in numbers):
            numbers = tuple(int(v) for v in numbers)
        if numbers:
            kept[keyword] = numbers[0] if len(numbers) == 1 else numbers
    for keyword in _KEPT_WORDS if wanted is None else wanted.intersection(_KEPT_WORDS):
        words = reader.words(keyword)
        if words:
            kept[keyword] = words[0] if len(words) == 1 else words
    for keyword in _KEPT_STORED if wanted is None else wanted.intersection(_KEPT_STORED):
        stored = reader.stored(keyword, signed=signed)
        if stored is not None:
            kept[keyword] = stored
    return kept
