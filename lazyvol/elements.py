"""From the raw data elements of one file to its Instance.

What kind of file it is decides where its frames come from: its functional groups, its vectors, the
tiles of a mosaic, or the one image that it is. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from lazyvol.functional import frames_of_groups
from lazyvol.keywords import GROUP_BINARY, KEYWORDS, MAPPING, PARAMETRIC_MAP
from lazyvol.mosaics import frames_of_mosaic, is_mosaic
from lazyvol.records import (
    DEFLATED,
    ENCAPSULATED,
    NATIVE,
    Frame,
    FrameSet,
    Instance,
    LookupTable,
    PixelFormat,
    Segment,
    Value,
)
from lazyvol.tracer import uptake_of
from lazyvol.typed import HeaderError, Reader, kept_values
from lazyvol.uptake import Uptake
from lazyvol.vectors import Place, frames_of_vectors

__all__ = ["Elements", "instance_from_elements"]

_FEW_FRAMES = 1 << 16
"""A NumberOfFrames up to this is believed, and the frames that the file lacks are named."""

Item = Mapping[str, bytes]


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
    """Byte where its value begins, in the file or in what it inflates to."""

    pixel_length: int | None
    """Length of its value, bytes; None if undefined."""

    pixel_vr: str = "OW"
    """Its value representation."""

    description: str = ""
    """SeriesDescription, decoded."""

    fallback_uid: str = ""
    """MediaStorageSOPInstanceUID, for a header without SOPInstanceUID."""

    shared_group: Item | None = None
    """Raw values by keyword of the functional groups of all frames; None without such groups."""

    frame_groups: Sequence[Item] | None = None
    """Those of each frame; None without functional groups."""

    dimensions: tuple[str, ...] = ()
    """Keywords that the dimension indices point to."""

    private: Item = field(default_factory=dict)
    """Raw values of the makers' elements: how a mosaic is laid out, and a scale of Philips."""

    tiles: Sequence[Item] = ()
    """Raw values of each tile of a mosaic."""

    detectors: Sequence[Item] = ()
    """Raw values of each item of DetectorInformationSequence."""

    segments: tuple[Segment, ...] = ()
    """What a segmentation holds."""

    mapping: Item = field(default_factory=dict)
    """Raw values of the first item of RealWorldValueMappingSequence."""

    lookup: LookupTable | None = None
    """Table of the first item of ModalityLUTSequence."""

    palette: LookupTable | None = None
    """Colours by stored number."""

    table_error: str = ""
    """Why one of these tables cannot be used; empty if they can."""

    inflated_from: int = 0
    """Byte where the deflated data set begins; 0 if it is none."""

    tracers: Sequence[Item] = ()
    """Raw values of each item of RadiopharmaceuticalInformationSequence."""

    makers_uptake: Item = field(default_factory=dict)
    """Raw values of the makers' elements on uptake values."""


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
    known = {KEYWORDS[tag]: raw for tag, raw in elements.values.items() if tag in KEYWORDS}
    reader = Reader(known, little_endian=elements.little_endian)
    pixels = _pixel_format(reader, elements)
    count = _frame_count(reader, size)
    signed = pixels.pixel_representation == 1
    described = _described(reader, elements, pixels, count)
    values = kept_values(reader, signed=signed) | _mapped_values(elements, signed) | dict(described.values)
    frames = _scaled(reader, described.frames, values)
    if elements.lookup is not None:
        frames = tuple(f._replace(lookup=elements.lookup) for f in frames)
    notes = (*described.notes, *_length_notes(reader, elements, pixels, count))
    reference = "VolumeFrameOfReferenceUID" if described.convention == "volume" else "FrameOfReferenceUID"
    return Instance(
        path=path,
        uid=reader.text("SOPInstanceUID") or elements.fallback_uid,
        sop_class_uid=reader.text("SOPClassUID"),
        series_uid=reader.text("SeriesInstanceUID"),
        study_uid=reader.text("StudyInstanceUID"),
        modality=reader.text("Modality"),
        pixels=pixels,
        frames=_with_places(frames, _places(elements, pixels, count, size)),
        size=size,
        frame_of_reference_uid=reader.text(reference),
        number=reader.integer("InstanceNumber"),
        series_number=reader.integer("SeriesNumber"),
        description=elements.description,
        image_type=reader.words("ImageType"),
        acquisition_time=reader.acquisition_time(),
        values=tuple(sorted(values.items())),
        malformed=tuple(sorted({*reader.malformed, *described.malformed})),
        tile=described.tile,
        segments=elements.segments,
        convention=described.convention,
        notes=notes,
        refusal=described.refusal or _scale_refusal(reader) or elements.table_error,
        palette=elements.palette,
        inflated_from=elements.inflated_from,
        uptake=_uptake(elements, known),
    )


def _mapped_values(elements: Elements, signed: bool) -> dict[str, Value]:
    """Return what the header says of values of the real world, and the scale of Philips."""
    raw = {**elements.mapping, **elements.private}
    among = (*MAPPING.values(), "MeasurementUnits", "Quantity", "PhilipsScaleSlope")
    reader = Reader(raw, little_endian=elements.little_endian, binary=GROUP_BINARY)
    return kept_values(reader, signed=signed, among=among) if raw else {}


def _uptake(elements: Elements, known: Item) -> Uptake | None:
    """Return what a PET header says of dose and body; None for other images."""
    if known.get("Modality", b"").strip(b" \0") != b"PT":
        return None
    values = {**(elements.shared_group or {}), **known}
    little = elements.little_endian
    return uptake_of(values, little_endian=little, tracers=elements.tracers, private=elements.makers_uptake)


@lru_cache(maxsize=256)
def _shared_format(**fields: Any) -> PixelFormat:
    """Return one object for equal formats, so that thousands of slices share it."""
    return PixelFormat(**fields)


def _pixel_format(reader: Reader, elements: Elements) -> PixelFormat:
    needed = {k: reader.short(k) for k in ("Rows", "Columns", "BitsAllocated")}
    absent = [k for k, v in needed.items() if not v]
    if absent:
        raise HeaderError(f"its header lacks {', '.join(absent)}, or they are 0", damaged=True)
    allocated = needed["BitsAllocated"] or 0
    stored = reader.short("BitsStored") or allocated
    high_bit = reader.short("HighBit")
    if high_bit is not None and not stored <= high_bit + 1 <= allocated:
        reader.malformed.append(("HighBit", str(high_bit)))
        high_bit = None
    if allocated > 64:
        raise HeaderError(f"BitsAllocated is {allocated}", damaged=True)
    if stored > allocated:
        raise HeaderError(f"BitsStored {stored} exceeds BitsAllocated {allocated}", damaged=True)
    signed = reader.short("PixelRepresentation") or 0
    if signed > 1:
        raise HeaderError(f"PixelRepresentation is {signed}, and 0 or 1 is allowed", damaged=True)
    return _shared_format(
        rows=needed["Rows"],
        columns=needed["Columns"],
        samples_per_pixel=reader.short("SamplesPerPixel") or 1,
        photometric_interpretation=_photometric_interpretation(reader),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else high_bit,
        pixel_representation=signed,
        transfer_syntax_uid=elements.transfer_syntax_uid,
        planar_configuration=_planar_configuration(reader, elements.transfer_syntax_uid),
        element=elements.pixel_element,
        vr=elements.pixel_vr,
        little_endian=elements.little_endian,
    )


def _photometric_interpretation(reader: Reader) -> str:
    """Return what the pixels are; one sample of what is not known is taken as grey, and named."""
    said, samples = reader.text("PhotometricInterpretation"), reader.short("SamplesPerPixel") or 1
    known = {"", "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}
    if samples == 1 and said not in known and not said.startswith(("RGB", "YBR")):
        reader.malformed.append(("PhotometricInterpretation", "not known"))
        return "MONOCHROME2"
    return said or "MONOCHROME2"


def _planar_configuration(reader: Reader, syntax: str) -> int:
    """Return 0 for colour by pixel, which is what an absent one means, 1 by plane; a stream knows for itself."""
    found = reader.short("PlanarConfiguration")
    if found in {0, 1}:
        return found or 0
    uncompressed = syntax in {*NATIVE, DEFLATED, ENCAPSULATED}
    if uncompressed and (reader.short("SamplesPerPixel") or 1) > 1:
        reader.malformed.append(("PlanarConfiguration", "" if found is None else str(found)))
    return 0


def _frame_count(reader: Reader, size: int) -> int:
    """Return NumberOfFrames, if a file of so many bytes can hold them."""
    count = reader.integer("NumberOfFrames")
    count = 1 if count is None else count
    said = dict(reader.malformed).get("NumberOfFrames", str(count))
    if said != str(count) or not 1 <= count <= max(size, _FEW_FRAMES):
        raise HeaderError(f"NumberOfFrames is {said}, in a file of {size} bytes", damaged=True)
    return count


def _described(reader: Reader, elements: Elements, pixels: PixelFormat, count: int) -> FrameSet:
    """Return what the header says of each frame."""
    if elements.frame_groups:
        return frames_of_groups(
            elements.shared_group or {},
            elements.frame_groups,
            count=count,
            little_endian=elements.little_endian,
            signed=pixels.pixel_representation == 1,
            dimensions=elements.dimensions,
        )
    if is_mosaic(reader.words("ImageType")) and count == 1:
        return frames_of_mosaic(reader, (pixels.rows, pixels.columns), elements.private, elements.tiles)
    detectors = [_detector(item, elements) for item in elements.detectors]
    return frames_of_vectors(reader, sop_class_uid=reader.text("SOPClassUID"), count=count, detectors=detectors)


def _detector(item: Item, elements: Elements) -> Place:
    reader = Reader(item, little_endian=elements.little_endian)
    return reader.position(), reader.orientation()


def _scaled(reader: Reader, frames: tuple[Frame, ...], values: Mapping[str, Value]) -> tuple[Frame, ...]:
    """Return the frames with the slope of fractional segmentations and of parametric maps."""
    most = reader.short("MaximumFractionalValue")
    if values.get("SegmentationType") == "FRACTIONAL" and most:
        return tuple(f._replace(slope=1.0 / most) for f in frames)
    if reader.text("SOPClassUID") != PARAMETRIC_MAP:
        return frames
    return tuple(_mapped(f, {**values, **dict(f.values)}) for f in frames)


def _scale_refusal(reader: Reader) -> str:
    if reader.text("SegmentationType") != "FRACTIONAL" or reader.short("MaximumFractionalValue"):
        return ""
    return "its MaximumFractionalValue is absent or 0, so its stored numbers are no fractions"


def _mapped(frame: Frame, values: Mapping[str, Value]) -> Frame:
    """Return a frame whose values are those of the real world (DICOM PS3.3 C.7.6.16.2.11)."""
    slope, intercept = (values.get(f"RealWorldValue{word}") for word in ("Slope", "Intercept"))
    if not isinstance(slope, float) or not slope:
        return frame
    return frame._replace(slope=slope, intercept=intercept if isinstance(intercept, float) else 0.0)


def _length_notes(reader: Reader, elements: Elements, pixels: PixelFormat, count: int) -> tuple[tuple[str, str], ...]:
    """Note uncompressed pixels of more frames than the header counts."""
    length = elements.pixel_length
    if length is None or not pixels.is_plain or not reader.has("NumberOfFrames"):
        return ()
    held = length * 8 // pixels.frame_bits
    if held <= count:
        return ()
    words = f"NumberOfFrames is {count}, but the file holds the pixels of {held} frames; the first {count} are used"
    return (("frame-count-wrong", words),)


def _with_places(frames: tuple[Frame, ...], places: Sequence[tuple[int | None, int | None]]) -> tuple[Frame, ...]:
    return tuple(f._replace(offset=places[f.index][0], length=places[f.index][1]) for f in frames)


def _places(elements: Elements, pixels: PixelFormat, count: int, size: int) -> list[tuple[int | None, int | None]]:
    """Return offset and length of each frame; the length is what the file has of it."""
    start, length = elements.pixel_offset, elements.pixel_length
    whole_bytes = pixels.bits_allocated % 8 == 0 or pixels.bits_allocated == 1
    swapped = pixels.bits_allocated in {1, 8} and not pixels.little_endian
    if start is None or length is None or not pixels.is_plain or not whole_bytes or swapped:
        return [(start, None)] * count
    end = start + length if elements.inflated_from else min(start + length, size)
    begins = (start + n * pixels.frame_bits // 8 for n in range(count))
    ends = (start - (-(n + 1) * pixels.frame_bits // 8) for n in range(count))
    return [(begin, max(0, min(stop, end) - begin)) for begin, stop in zip(begins, ends, strict=True)]
