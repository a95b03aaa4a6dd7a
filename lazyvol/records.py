"""What a scan keeps of each file: plain values, no dataset and no open file.

The records of which there are thousands, `Frame`, `Instance` and `Slice`, are tuples: these are made soonest.
Index order is (slice, row, column). Lengths are in mm. Positions are DICOM patient
coordinates (LPS: x grows to the left, y to the back, z to the head).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lazyvol.uptake import Uptake

__all__ = [
    "DEFLATED",
    "ENCAPSULATED",
    "NATIVE",
    "Frame",
    "FrameSet",
    "Instance",
    "LookupTable",
    "PixelFormat",
    "Segment",
    "Skipped",
    "Slice",
    "Value",
    "Vector",
]

Vector = tuple[float, float, float]
Value = str | float | int | tuple[str, ...] | tuple[float, ...]

NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
"""Transfer syntaxes of uncompressed pixels, other than deflated ones (DICOM PS3.5 annex A)."""
ENCAPSULATED = "1.2.840.10008.1.2.1.98"
"""Uncompressed frames in items (DICOM PS3.5 annex A.4.11)."""
DEFLATED = "1.2.840.10008.1.2.1.99"
"""The whole data set is compressed, its pixels as they are within (DICOM PS3.5 annex A.5)."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the stored numbers of a frame are laid out (DICOM PS3.3 C.7.6.3, PS3.5 section 8)."""

    rows: int
    """Number of rows of a frame."""

    columns: int
    """Number of columns of a frame."""

    samples_per_pixel: int
    """1 for grey values, 3 for colour."""

    photometric_interpretation: str
    """What the samples mean, e.g. ``MONOCHROME2``."""

    bits_allocated: int
    """Bits that a sample takes up in the file."""

    bits_stored: int
    """Bits of a sample that hold its value."""

    high_bit: int
    """Most significant bit of the value."""

    pixel_representation: int
    """0 for unsigned, 1 for two's complement."""

    transfer_syntax_uid: str
    """How header and pixels are encoded."""

    planar_configuration: int = 0
    """0 for colour by pixel, 1 for colour by plane."""

    element: str = "PixelData"
    """Keyword of the element that holds the pixels."""

    vr: str = "OW"
    """Value representation of that element: ``OB`` or ``OW``."""

    little_endian: bool = True
    """Byte order of uncompressed pixels."""

    @property
    def frame_bits(self) -> int:
        """Length of one uncompressed frame, bits."""
        samples = 2 if self.is_subsampled else self.samples_per_pixel
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def frame_bytes(self) -> int:
        """Bytes that one uncompressed frame takes up, the last of them perhaps in part."""
        return -(-self.frame_bits // 8)

    @property
    def is_native(self) -> bool:
        """Whether frames lie in the file one after the other, uncompressed."""
        return self.transfer_syntax_uid in NATIVE

    @property
    def is_plain(self) -> bool:
        """Whether frames lie one after the other, uncompressed, in the file or in what it inflates to."""
        return self.is_native or self.transfer_syntax_uid == DEFLATED

    @property
    def is_subsampled(self) -> bool:
        """Whether two uncompressed pixels share their colour (YBR_FULL_422, DICOM PS3.3 C.7.6.3.1.2)."""
        uncompressed = self.is_plain or self.transfer_syntax_uid == ENCAPSULATED
        return uncompressed and self.photometric_interpretation == "YBR_FULL_422" and self.samples_per_pixel == 3

    @property
    def is_colour(self) -> bool:
        """Whether its pixels are colours."""
        return self.samples_per_pixel > 1 or self.photometric_interpretation == "PALETTE COLOR"


@dataclass(frozen=True, slots=True)
class LookupTable:
    """Values by stored number: those of a modality, of the real world, or the colours of a palette."""

    first: int
    """Stored number of the first entry; smaller ones have its value too."""

    dtype: str
    """Type of the entries: ``|u1``, ``<u2`` or ``<f8``."""

    entries: bytes = field(repr=False)
    """The entries, one after the other; greater stored numbers have the value of the last."""

    samples: int = 1
    """Numbers that make an entry: 1, or 3 for red, green and blue."""

    type: str = ""
    """What the values are, ModalityLUTType."""


class Frame(NamedTuple):
    """One 2-D image in a file, and its place in the patient."""

    index: int  # type: ignore[assignment]  # in place of the method of tuples
    """Number of the frame in its file, from 0."""

    position: Vector | None = None
    """Centre of its first voxel, LPS (x, y, z) mm; None where the header does not say."""

    orientation: tuple[float, float, float, float, float, float] | None = None
    """Unit vectors along x (growing column) and along y (growing row), LPS."""

    pixel_spacing: tuple[float, float] | None = None
    """Distance between centres of neighbouring (rows, columns), mm; DICOM's order."""

    slope: float = 1.0
    """Value = stored * slope + intercept."""

    intercept: float = 0.0
    """See slope."""

    offset: int | None = None
    """Byte in the file where the frame begins, or where the pixel element begins if length is None."""

    length: int | None = None
    """Bytes of it that the file holds, fewer than a frame if it is cut short; None where a decoder finds them."""

    values: tuple[tuple[str, Value], ...] = ()
    """Protocol values by DICOM keyword that differ between the frames of its file."""

    acquisition_time: float | None = None
    """When it was acquired, as that of `Instance`; None where its own is not known."""

    corner: tuple[int, int] = (0, 0)
    """Row and column of its first pixel in the stored image, for a tile of a mosaic."""

    lookup: LookupTable | None = None
    """Values by stored number, instead of slope and intercept."""

    limits: tuple[float, float] | None = None
    """Least and greatest stored number that has a value, where not all have."""

    def __repr__(self) -> str:
        """Name what it is, but not when it was acquired: the day would show."""
        return f"Frame({', '.join(f'{k}={v!r}' for k, v in self._asdict().items() if k != 'acquisition_time')})"


@dataclass(frozen=True, slots=True)
class FrameSet:
    """What a header says of the frames of a file, apart from where their pixels lie."""

    frames: tuple[Frame, ...]
    """The frames in file order."""

    values: tuple[tuple[str, Value], ...] = ()
    """Protocol values by DICOM keyword that all frames share."""

    malformed: tuple[tuple[str, str], ...] = ()
    """As those of `Instance`."""

    notes: tuple[tuple[str, str], ...] = ()
    """As those of `Instance`."""

    tile: tuple[int, int] | None = None
    """As that of `Instance`."""

    convention: str = "LPS"
    """As that of `Instance`."""

    refusal: str = ""
    """As that of `Instance`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What one value or layer of a segmentation stands for (DICOM PS3.3 C.8.20.4)."""

    number: int
    """SegmentNumber."""

    label: str = ""
    """SegmentLabel."""

    category: str = ""
    """Meaning of its property category, e.g. ``Anatomical Structure``."""

    type: str = ""
    """Meaning of its property type, e.g. ``Liver``."""

    colour: str = ""
    """Recommended colour, ``#rrggbb`` (sRGB); empty where there is none."""


class Instance(NamedTuple):
    """One SOP instance: a DICOM file as its header describes it."""

    path: str
    """Where it was read from; ``dataset[n]`` for the n-th dataset of a list."""

    uid: str
    """SOPInstanceUID."""

    sop_class_uid: str
    """SOPClassUID, the kind of object."""

    series_uid: str
    """SeriesInstanceUID."""

    study_uid: str
    """StudyInstanceUID."""

    modality: str
    """Modality, e.g. ``CT``."""

    pixels: PixelFormat
    """Layout of the stored numbers."""

    frames: tuple[Frame, ...]
    """Its frames in file order; one for a classic image."""

    size: int
    """Length of the file, bytes."""

    modified: int = 0
    """When the file was last changed, ns since 1970; 0 where unknown."""

    frame_of_reference_uid: str = ""
    """FrameOfReferenceUID; positions compare only within one."""

    number: int | None = None
    """InstanceNumber."""

    series_number: int | None = None
    """SeriesNumber."""

    description: str = ""
    """SeriesDescription, for choosing a series; never written anywhere."""

    image_type: tuple[str, ...] = ()
    """ImageType."""

    acquisition_time: float | None = None
    """AcquisitionDateTime, or AcquisitionDate and AcquisitionTime, in s; only differences mean anything."""

    values: tuple[tuple[str, Value], ...] = ()
    """Protocol values by DICOM keyword, of an allow-list without identifiers."""

    malformed: tuple[tuple[str, str], ...] = ()
    """Keyword and text of each value that could not be understood, taken as absent."""

    digest: str = ""
    """SHA-256 of header and pixel length, set where a scan met the same UID twice."""

    content: bytes | None = None
    """The whole file, for a dataset that has none on disk."""

    tile: tuple[int, int] | None = None
    """Rows and columns of each frame, if the frames are tiles of a mosaic; else those of the stored image."""

    segments: tuple[Segment, ...] = ()
    """What a segmentation holds."""

    convention: str = "LPS"
    """What positions refer to: the patient, or ``volume`` for a frame of reference of the file's own."""

    notes: tuple[tuple[str, str], ...] = ()
    """Code of a finding and its words, for what is odd about this file."""

    refusal: str = ""
    """Why its frames cannot be placed, or their values not be had; empty if they can."""

    palette: LookupTable | None = None
    """Colours by stored number, for PALETTE COLOR."""

    inflated_from: int = 0
    """Byte where the deflated data set begins that offsets refer to; 0 for others."""

    uptake: Uptake | None = None
    """What a PET header says of dose and body; None for other images."""

    def __repr__(self) -> str:
        """Name what it is; nothing of the patient."""
        return f"Instance(path={self.path!r}, modality={self.modality!r}, frames={len(self.frames)})"

    @property
    def is_colour(self) -> bool:
        """Whether its pixels are colours; the numbers of segments are not, though a palette shows them."""
        return self.pixels.is_colour and not (self.segments and self.pixels.samples_per_pixel == 1)

    @property
    def rows(self) -> int:
        """Number of rows of each frame."""
        return self.tile[0] if self.tile else self.pixels.rows

    @property
    def columns(self) -> int:
        """Number of columns of each frame."""
        return self.tile[1] if self.tile else self.pixels.columns

    @property
    def missing_bytes(self) -> int:
        """How many bytes of uncompressed pixels the file lacks; 0 where that cannot be told."""
        whole = self.pixels.frame_bytes
        if not self.pixels.is_plain or self.tile:
            return 0
        return sum(whole - f.length for f in self.frames if f.length is not None)

    @property
    def short_frames(self) -> tuple[int, ...]:
        """Numbers of the frames, from 0, that the file does not hold whole, as far as that can be told."""
        whole = self.pixels.frame_bytes if self.pixels.is_plain else 1
        return tuple(f.index for f in self.frames if f.length is not None and f.length < whole)


class Slice(NamedTuple):
    """A frame of a file as a slice of a stack."""

    instance: Instance
    """The file that holds it."""

    frame: Frame
    """Which frame of the file."""

    @property
    def values(self) -> dict[str, Value]:
        """Protocol values by DICOM keyword."""
        shared = dict(self.instance.values)
        return shared | dict(self.frame.values) if self.frame.values else shared

    @property
    def acquisition_time(self) -> float | None:
        """When it was acquired, in s; only differences mean anything."""
        own = self.frame.acquisition_time
        return self.instance.acquisition_time if own is None else own

    @property
    def number(self) -> int | None:
        """InstanceNumber: that of the image it was converted from, else that of its file."""
        own = dict(self.frame.values).get("InstanceNumber")
        return own if isinstance(own, int) else self.instance.number

    @property
    def image_type(self) -> tuple[str, ...]:
        """ImageType, or FrameType in a file that has one for each frame."""
        own = dict(self.frame.values).get("ImageType")
        if isinstance(own, str):
            return (own,)
        return tuple(map(str, own)) if isinstance(own, tuple) else self.instance.image_type


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that a scan left out."""

    path: str
    """The file."""

    reason: str
    """Why, in words."""

    damaged: bool = False
    """Whether it may have been an image, and cannot be read."""
