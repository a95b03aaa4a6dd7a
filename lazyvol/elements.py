"""From the raw data elements of one file to its Instance.

Values come as bytes and are understood here (DICOM PS3.5 section 6.2), so that one
that is malformed is named in the record instead of being guessed. Nothing here opens
a file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from lazyvol.keywords import BINARY, INTEGERS, NUMBERS, STORED, TAGS, WORDS
from lazyvol.records import Frame, Instance, PixelFormat, Value

__all__ = ["Elements", "HeaderError", "instance_from_elements"]

NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
"""Transfer syntaxes in which the frames of a file lie one after the other, uncompressed."""

_FAR = 1e7
"""No voxel lies so far from the origin of its frame of reference, mm."""
_FEW_FRAMES = 1 << 16
"""A NumberOfFrames up to this is believed, and the frames that the file lacks are named."""
_DATE_TIME = re.compile(r"(?:(\d{4})(\d\d)(\d\d)| {8})(\d\d)(?:(\d\d)(?:(\d\d(?:\.\d{1,6})?))?)?(?:[+-]\d{4})?$")
"""A DA of eight digits or blanks and a TM, or a DT (DICOM PS3.5 section 6.2)."""
_NUMERIC = frozenset("0123456789+-.eE\\ ")
"""Characters of a DS or IS value; other text may be anything, and is not repeated."""
_NUMERIC_BYTES = frozenset(b"0123456789+-.eE\\ ")
"""The same as bytes: a binary number is never made of these alone."""


class HeaderError(Exception):
    """Why a file is no Instance; the message becomes the reason of a `Skipped`."""

    def __init__(self, reason: str, *, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged
        """Whether the file may have been an image."""


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of one header, and where its pixels lie."""

    values: Mapping[int, bytes]
    """Value of each wanted element by tag, undecoded; empty for a sequence."""

    little_endian: bool
    """Byte order of the binary values."""

    transfer_syntax_uid: str
    """How header and pixels are encoded."""

    pixel_element: str
    """Keyword of the element that holds the pixels."""

    pixel_offset: int | None
    """Byte in the file where its value begins; None if the file is deflated."""

    pixel_length: int | None
    """Length of its value, bytes; None if undefined."""

    pixel_vr: str = "OW"
    """Its value representation."""

    description: str = ""
    """SeriesDescription, decoded."""

    fallback_uid: str = ""
    """MediaStorageSOPInstanceUID, for a header without SOPInstanceUID."""


class _Reader:
    """Typed values of a header by keyword; notes those that are malformed."""

    __slots__ = ("_byte_order", "_values", "malformed")

    def __init__(self, elements: Elements) -> None:
        self._values = elements.values
        self._byte_order = "<" if elements.little_endian else ">"
        self.malformed: list[tuple[str, str]] = []

    def has(self, keyword: str) -> bool:
        return TAGS[keyword] in self._values

    def text(self, keyword: str) -> str:
        return self._values.get(TAGS[keyword], b"").decode("latin-1").strip(" \0")

    def words(self, keyword: str) -> tuple[str, ...]:
        text = self.text(keyword)
        return tuple(word.strip() for word in text.split("\\")) if text else ()

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Return the numbers of a DS, IS, FD or FL element; None if absent or malformed."""
        raw = self._values.get(TAGS[keyword], b"")
        if keyword in BINARY and not set(raw) <= _NUMERIC_BYTES:
            return self._binary(keyword, raw)
        if not raw.strip(b" \0"):
            return None
        try:
            found = tuple(_number(word) for word in raw.decode("ascii").strip(" \0").split("\\"))
        except ValueError:
            self._reject(keyword)
            return None
        if not all(map(math.isfinite, found)) or (count is not None and len(found) != count):
            self._reject(keyword)
            return None
        return found

    def _binary(self, keyword: str, raw: bytes) -> tuple[float, ...] | None:
        size = struct.calcsize(BINARY[keyword])
        found = struct.unpack_from(self._byte_order + BINARY[keyword], raw) if len(raw) >= size else (math.nan,)
        if raw and not math.isfinite(found[0]):
            self.malformed.append((keyword, "not a number"))
        return found if math.isfinite(found[0]) else None

    def number(self, keyword: str) -> float | None:
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
        raw = self._values.get(TAGS[keyword], b"")
        return int(struct.unpack_from(self._byte_order + "H", raw)[0]) if len(raw) >= 2 else None

    def stored(self, keyword: str, signed: bool) -> int | None:
        raw = self._values.get(TAGS[keyword], b"")
        code = self._byte_order + ("h" if signed else "H")
        return int(struct.unpack_from(code, raw)[0]) if len(raw) >= 2 else None

    def _reject(self, keyword: str) -> None:
        text = self._values[TAGS[keyword]][:40].decode("ascii", "replace").strip(" \0")
        self.malformed.append((keyword, text if set(text) <= _NUMERIC else "not a number"))


def _number(word: str) -> float:
    """Return the number of a DS or IS; float() alone also takes underscores and words."""
    if not set(word) <= _NUMERIC:
        raise ValueError(word)
    return float(word)


def instance_from_elements(elements: Elements, *, path: str, size: int) -> Instance:
    """Return the Instance that a header describes.

    Parameters
    ----------
    elements
        Raw values and the place of the pixels.
    path, size
        The file and its length in bytes.

    Raises
    ------
    HeaderError
        If the header lacks what an image needs (DICOM PS3.3 C.7.6.3).
    """
    reader = _Reader(elements)
    pixels = _pixel_format(reader, elements)
    frames = _frames(reader, elements, pixels, size)
    return Instance(
        path=path,
        uid=reader.text("SOPInstanceUID") or elements.fallback_uid,
        sop_class_uid=reader.text("SOPClassUID"),
        series_uid=reader.text("SeriesInstanceUID"),
        study_uid=reader.text("StudyInstanceUID"),
        modality=reader.text("Modality"),
        pixels=pixels,
        frames=frames,
        size=size,
        frame_of_reference_uid=reader.text("FrameOfReferenceUID"),
        number=reader.integer("InstanceNumber"),
        series_number=reader.integer("SeriesNumber"),
        description=elements.description,
        image_type=reader.words("ImageType"),
        acquisition_time=_acquisition_time(reader),
        values=_kept_values(reader, pixels.pixel_representation == 1),
        malformed=tuple(sorted(set(reader.malformed))),
    )


@lru_cache(maxsize=256)
def _shared_format(**fields: Any) -> PixelFormat:
    """Return one object for equal formats, so that thousands of slices share it."""
    return PixelFormat(**fields)


def _pixel_format(reader: _Reader, elements: Elements) -> PixelFormat:
    needed = {k: reader.short(k) for k in ("Rows", "Columns", "BitsAllocated")}
    absent = [k for k, v in needed.items() if not v]
    if absent:
        raise HeaderError(f"its header lacks {', '.join(absent)}, or they are 0", damaged=True)
    allocated = needed["BitsAllocated"] or 0
    stored = reader.short("BitsStored") or allocated
    high_bit = reader.short("HighBit")
    if allocated > 64:
        raise HeaderError(f"BitsAllocated is {allocated}", damaged=True)
    if stored > allocated:
        raise HeaderError(f"BitsStored {stored} exceeds BitsAllocated {allocated}", damaged=True)
    return _shared_format(
        rows=needed["Rows"],
        columns=needed["Columns"],
        samples_per_pixel=reader.short("SamplesPerPixel") or 1,
        photometric_interpretation=reader.text("PhotometricInterpretation") or "MONOCHROME2",
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else high_bit,
        pixel_representation=reader.short("PixelRepresentation") or 0,
        transfer_syntax_uid=elements.transfer_syntax_uid,
        planar_configuration=reader.short("PlanarConfiguration") or 0,
        element=elements.pixel_element,
        vr=elements.pixel_vr,
        has_modality_lut=reader.has("ModalityLUTSequence"),
        little_endian=elements.little_endian,
    )


def _frames(reader: _Reader, elements: Elements, pixels: PixelFormat, size: int) -> tuple[Frame, ...]:
    position = reader.numbers("ImagePositionPatient", 3)
    if position is not None and max(map(abs, position)) > _FAR:
        reader.malformed.append(("ImagePositionPatient", "\\".join(f"{v:g}" for v in position)))
        position = None
    orientation = _orientation(reader)
    spacing = reader.numbers("PixelSpacing", 2)
    if spacing is not None and min(spacing) <= 0:
        reader.malformed.append(("PixelSpacing", "\\".join(map(str, spacing))))
        spacing = None
    slope = reader.number("RescaleSlope")
    if slope == 0:
        reader.malformed.append(("RescaleSlope", "0"))
    count = reader.integer("NumberOfFrames") or 1
    said = dict(reader.malformed).get("NumberOfFrames", str(count))
    if said != str(count) or not 1 <= count <= max(size, _FEW_FRAMES):
        raise HeaderError(f"NumberOfFrames is {said}, in a file of {size} bytes", damaged=True)
    places = _places(elements, pixels, count, size)
    return tuple(
        Frame(
            index=index,
            position=position,  # type: ignore[arg-type]  # counted above
            orientation=orientation,  # type: ignore[arg-type]
            pixel_spacing=spacing,  # type: ignore[arg-type]
            slope=slope or 1.0,
            intercept=reader.number("RescaleIntercept") or 0.0,
            offset=offset,
            length=length,
        )
        for index, (offset, length) in enumerate(places)
    )


def _orientation(reader: _Reader) -> tuple[float, ...] | None:
    """Return ImageOrientationPatient if its two vectors can be direction cosines."""
    found = reader.numbers("ImageOrientationPatient", 6)
    if found is None:
        return None
    along_x, along_y = found[:3], found[3:]
    lengths = math.hypot(*along_x), math.hypot(*along_y)
    dot = sum(a * b for a, b in zip(along_x, along_y, strict=True))
    if any(abs(length - 1) > 1e-2 for length in lengths) or abs(dot) > 1e-2:
        reader.malformed.append(("ImageOrientationPatient", "\\".join(f"{v:g}" for v in found)))
        return None
    return found


def _places(elements: Elements, pixels: PixelFormat, count: int, size: int) -> list[tuple[int | None, int | None]]:
    """Return offset and length of each frame; the length is what the file has of it."""
    start, length = elements.pixel_offset, elements.pixel_length
    native = elements.transfer_syntax_uid in NATIVE
    swapped = pixels.bits_allocated == 8 and not pixels.little_endian
    if start is None or length is None or not native or pixels.bits_allocated % 8 or swapped:
        return [(start, None)] * count
    end = min(start + length, size)
    step = pixels.frame_bytes
    begins = [start + n * step for n in range(count)]
    return [(begin, max(0, min(step, end - begin))) for begin in begins]


def _acquisition_time(reader: _Reader) -> float | None:
    """Return seconds from a fixed day to the acquisition; without a date from midnight."""
    joined = reader.text("AcquisitionDateTime")
    if len(joined) <= 8:
        joined = reader.text("AcquisitionDate").ljust(8) + reader.text("AcquisitionTime").replace(":", "")
    found = _DATE_TIME.match(joined)
    if not found:
        return None
    year, month, day, hours, minutes, seconds = found.groups(default="0")
    try:
        days = date(int(year), int(month), int(day)).toordinal() if int(year) else 0
    except ValueError:
        return None
    return days * 86400.0 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _kept_values(reader: _Reader, signed: bool) -> tuple[tuple[str, Value], ...]:
    kept: dict[str, Value] = {}
    for keyword in NUMBERS:
        numbers = reader.numbers(keyword)
        if numbers and keyword in INTEGERS and all(v.is_integer() for v in numbers):
            numbers = tuple(int(v) for v in numbers)
        if numbers:
            kept[keyword] = numbers[0] if len(numbers) == 1 else numbers
    for keyword in WORDS:
        words = reader.words(keyword)
        if words:
            kept[keyword] = words[0] if len(words) == 1 else words
    for keyword in STORED:
        stored = reader.stored(keyword, signed)
        if stored is not None:
            kept[keyword] = stored
    return tuple(sorted(kept.items()))
