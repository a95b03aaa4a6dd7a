"""What a scan keeps of each file: plain values, no dataset and no open file.

Index order is (slice, row, column). Lengths are in mm. Positions are DICOM patient
coordinates (LPS: x grows to the left, y to the back, z to the head).
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Frame", "Instance", "PixelFormat", "Skipped", "Slice", "Value", "Vector"]

Vector = tuple[float, float, float]
Value = str | float | int | tuple[str, ...] | tuple[float, ...]


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

    has_modality_lut: bool = False
    """Whether values come through a ModalityLUTSequence instead of slope and intercept."""

    little_endian: bool = True
    """Byte order of uncompressed pixels."""

    @property
    def frame_bytes(self) -> int:
        """Length of one uncompressed frame of whole bytes."""
        return self.rows * self.columns * self.samples_per_pixel * self.bits_allocated // 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One 2-D image in a file, and its place in the patient."""

    index: int
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

    axes: tuple[tuple[str, float | str], ...] = ()
    """Values that tell frames at one position apart, by DICOM keyword."""


@dataclass(frozen=True, slots=True)
class Instance:
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

    content: bytes | None = field(default=None, repr=False)
    """The whole file, for a dataset that has none on disk."""

    @property
    def rows(self) -> int:
        """Number of rows of each frame."""
        return self.pixels.rows

    @property
    def columns(self) -> int:
        """Number of columns of each frame."""
        return self.pixels.columns

    @property
    def missing_bytes(self) -> int:
        """How many bytes of pixels the file lacks; 0 where that cannot be told."""
        whole = self.pixels.frame_bytes
        return sum(whole - f.length for f in self.frames if f.length is not None)


@dataclass(frozen=True, slots=True)
class Slice:
    """A frame of a file as a slice of a stack."""

    instance: Instance
    """The file that holds it."""

    frame: Frame
    """Which frame of the file."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that a scan left out."""

    path: str
    """The file."""

    reason: str
    """Why, in words."""

    damaged: bool = False
    """Whether it may have been an image, and cannot be read."""
