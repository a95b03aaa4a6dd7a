"""A fictitious body as a DICOM series, for the demo, the examples and the tests.

Index order is (slice, row, column). Positions are LPS, lengths are mm. One plane is in memory at
a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lazyvol.phantom.body import body_ct, body_planes, check_grid

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["FICTITIOUS_PATIENT", "body_ct", "write_body_ct", "write_series"]

Plane = npt.NDArray[np.float64]

FICTITIOUS_PATIENT: Mapping[str, str] = {
    "PatientName": "Fictitious^Phantom",
    "PatientID": "FICTITIOUS-4711",
    "PatientBirthDate": "19010203",
    "PatientSex": "O",
    "PatientAge": "099Y",
    "AccessionNumber": "FICTION-0815",
    "InstitutionName": "Hospital of Nowhere",
    "ReferringPhysicianName": "Nobody^Doctor",
    "OperatorsName": "Noone^Operator",
    "StudyDescription": "Invented whole body",
}
"""What each header says of the patient and the visit; nothing else should ever repeat it."""

Planes = npt.NDArray[np.generic] | Iterable[npt.NDArray[np.generic]] | Callable[[int], npt.NDArray[np.generic]]
Overrides = Mapping[str, object] | Callable[[int, "Dataset"], None]

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
SCANNER_TAGS: Mapping[str, Mapping[str, object]] = {
    "CT": {
        "KVP": "120",
        "DataCollectionDiameter": "500.0",
        "GantryDetectorTilt": "0.0",
        "TableHeight": "152.5",
        "RotationDirection": "CW",
        "ExposureTime": "500",
        "FilterType": "BODY",
        "ConvolutionKernel": "STANDARD",
        "RescaleType": "HU",
        "WindowCenter": ["40", "-600"],
        "WindowWidth": ["400", "1500"],
        "WindowCenterWidthExplanation": ["SOFT TISSUE", "LUNG"],
    },
    "MR": {
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": "550.0",
        "EchoTime": "12.0",
        "EchoTrainLength": "1",
        "FlipAngle": "90.0",
        "MagneticFieldStrength": "1.5",
    },
    "PT": {
        "Units": "BQML",
        "CountsSource": "EMISSION",
        "SeriesType": ["WHOLE BODY", "IMAGE"],
        "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
        "DecayCorrection": "START",
        "ActualFrameDuration": "120000",
        "FrameReferenceTime": "60000.0",
    },
}


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the slices lie."""

    n: int
    spacing: tuple[float, ...]
    """Along (slice, row, column), mm."""
    origin: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    """Rows for the z, y and x index; the first need not be square to the others."""

    @property
    def normal(self) -> Plane:
        return np.cross(self.directions[2], self.directions[1])

    @property
    def lean(self) -> float:
        """Cosine between a step along z and the slice normal."""
        return float(abs(np.dot(self.normal, self.directions[0])))

    def position(self, k: int) -> Plane:
        return np.add(self.origin, np.multiply(k * self.spacing[0], self.directions[0]))


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How values become stored numbers (DICOM PS3.3 C.11.1)."""

    slope: float
    intercept: float
    bits: int
    signed: bool

    def stored(self, plane: npt.NDArray[np.generic], k: int) -> npt.NDArray[np.generic]:
        numbers = np.rint((np.asarray(plane, dtype=float) - self.intercept) / self.slope)
        low = -(1 << self.bits - 1) if self.signed else 0
        high = low + (1 << self.bits) - 1
        if numbers.ndim != 2 or not np.all((numbers >= low) & (numbers <= high)):
            raise ValueError(
                f"plane {k} has shape {numbers.shape} and stored numbers {numbers.min():g} to "
                f"{numbers.max():g}, expected (rows, columns) and {low} to {high}. "
                "Change slope, intercept, bits_stored or signed."
            )
        return numbers.astype("<i2" if self.signed else "<u2")


def write_series(
    folder: str | Path,
    values: Planes,
    *,
    spacing: tuple[float, float, float],
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    directions: Sequence[Sequence[float]] = ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    modality: str = "CT",
    slope: float = 1.0,
    intercept: float = -1024.0,
    seed: int = 0,
    overrides: Overrides | None = None,
    n: int | None = None,
    bits_stored: int | None = None,
    signed: bool | None = None,
    prefix: str = "body",
    series_number: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write slices as a classic series, one uncompressed file each (DICOM PS3.3 A.3).

    File names are shuffled and instance numbers fall along z, as both do in clinical series.

    Parameters
    ----------
    folder
        Made if absent.
    values
        Rescaled values (HU for CT): an array (n, rows, columns), its planes one by one, or a
        function that makes plane k. Planes are asked for in turn and not kept.
    spacing
        Step between voxel centres along (slice, row, column), mm.
    origin
        Centre of voxel (0, 0, 0), LPS, mm.
    directions
        Unit vectors of the steps along z, y and x, LPS; z may lean (tilted gantry).
    modality
        "CT", "MR" or "PT".
    slope, intercept
        value = stored * slope + intercept.
    seed
        Settles UIDs and file names. Series that share it share study and frame of reference.
    overrides
        Elements by keyword, or a function of slice index and dataset that changes the dataset
        before it is written.
    n
        Number of planes; needed where ``values`` has no length.
    bits_stored, signed
        Layout of the stored numbers, at most 16 bits. Where absent, the least that an array
        needs (12 or 16 bits), else 16 bits unsigned.
    prefix
        Files are called ``prefix-0001.dcm`` and so on.
    series_number
        Tells series with the same seed and modality apart.
    progress
        Called with the numbers of slices written and to write.

    Returns
    -------
    list of Path
        The files in the order of the slices.

    Raises
    ------
    ValueError
        If the number of planes is unknown or wrong, the modality is not one of the three, or a
        value does not fit the stored numbers.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> len(write_series(mkdtemp(), np.zeros((3, 8, 8)), spacing=(5.0, 1.0, 1.0)))
    3
    """
    folder = Path(folder)
    total = _count(values, n)
    grid = _Grid(total, tuple(spacing), tuple(origin), tuple(tuple(d) for d in directions))
    encoding = _encoding(values, slope, intercept, bits_stored, signed)
    shared = _series_tags(modality, grid, seed=seed, series_number=series_number)
    names = np.random.default_rng(seed).permutation(total) + 1
    paths = [folder / f"{prefix}-{name:04d}.dcm" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    supply = map(values, range(total)) if callable(values) else iter(values)
    for k, path in enumerate(paths):
        plane = next(supply, None)
        if plane is None:
            raise ValueError(f"values ended after {k} planes, expected {total}; check n.")
        dataset = _slice_dataset(shared, grid, k)
        _put_pixels(dataset, encoding, encoding.stored(plane, k))
        _write(dataset, path, overrides, k)
        if progress is not None:
            progress(k + 1, total)
    return paths


def _count(values: Planes, n: int | None) -> int:
    length = len(values) if isinstance(values, Sized) else n
    if length is None or n not in (None, length) or length < 1:
        raise ValueError(
            f"values has {length} planes and n is {n}; expected at least one plane and, where values has no length, n."
        )
    return length


def _encoding(values: Planes, slope: float, intercept: float, bits: int | None, signed: bool | None) -> _Encoding:
    low, high = 0.0, 65535.0
    if isinstance(values, np.ndarray):
        ends = (np.array([values.min(), values.max()], dtype=float) - intercept) / slope
        low, high = float(np.rint(ends.min())), float(np.rint(ends.max()))
    if signed is None:
        signed = low < 0
    if bits is None:
        bits = 12 if max(high + 0.5, -low) <= (2048 if signed else 4096) else 16
    return _Encoding(slope, intercept, bits, signed)


def _uid(*parts: object) -> str:
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["lazyvol", *map(str, parts)])


def _ds(values: Iterable[float]) -> list[str]:
    """Return decimal strings of at most 16 characters (DICOM PS3.5 6.2)."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(round(float(v), 10) + 0.0) for v in values]


def _series_tags(modality: str, grid: _Grid, *, seed: int, series_number: int) -> dict[str, object]:
    """Return what all slices share."""
    if modality not in SOP_CLASSES:
        raise ValueError(f"modality is {modality!r}, expected one of {', '.join(SOP_CLASSES)}.")
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": SOP_CLASSES[modality],
        **FICTITIOUS_PATIENT,
        **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "20010203"),
        **dict.fromkeys(("StudyTime", "SeriesTime"), "101500"),
        "Modality": modality,
        "Manufacturer": "lazyvol phantom",
        "ManufacturerModelName": "Paper Scanner",
        "StudyID": "1",
        "SeriesDescription": f"Phantom {modality}",
        "ProtocolName": "Phantom",
        "BodyPartExamined": "WHOLEBODY",
        "PatientPosition": "HFS",
        "PatientWeight": "75.0",
        "StudyInstanceUID": _uid("study", seed),
        "SeriesInstanceUID": _uid("series", seed, modality, series_number),
        "FrameOfReferenceUID": _uid("frame of reference", seed),
        "PositionReferenceIndicator": "",
        "SeriesNumber": series_number,
        "AcquisitionNumber": 1,
        "SliceThickness": _ds([grid.spacing[0] * grid.lean])[0],
        "ImageOrientationPatient": _ds((*grid.directions[2], *grid.directions[1])),
        "PixelSpacing": _ds(grid.spacing[1:]),
        **SCANNER_TAGS[modality],
    }


def _slice_dataset(shared: Mapping[str, object], grid: _Grid, k: int) -> Dataset:
    from pydicom import Dataset

    dataset = Dataset()
    for keyword, value in shared.items():
        setattr(dataset, keyword, value)
    number = grid.n - k
    seconds = 10 * 3600 + 16 * 60 + 0.25 * (number - 1)
    clock = f"{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:09.6f}"
    dataset.InstanceNumber = number
    dataset.AcquisitionTime = dataset.ContentTime = clock
    dataset.SOPInstanceUID = _uid("instance", dataset.SeriesInstanceUID, k)
    dataset.ImagePositionPatient = _ds(grid.position(k))
    dataset.SliceLocation = _ds([np.dot(grid.position(k), grid.normal)])[0]
    if dataset.Modality == "CT":
        current = int(180 + 90 * np.sin(7.0 * k / grid.n))
        dataset.XRayTubeCurrent, dataset.Exposure = current, current // 2
        dataset.GantryDetectorTilt = _ds([np.degrees(np.arccos(min(grid.lean, 1.0)))])[0]
    return dataset


def _put_pixels(dataset: Dataset, encoding: _Encoding, stored: npt.NDArray[np.generic]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored = 16, encoding.bits
    dataset.HighBit = encoding.bits - 1
    dataset.PixelRepresentation = int(encoding.signed)
    dataset.RescaleIntercept, dataset.RescaleSlope = _ds((encoding.intercept, encoding.slope))
    dataset.PixelData = stored.tobytes()


def _write(dataset: Dataset, path: Path, overrides: Overrides | None, k: int) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if callable(overrides):
        overrides(k, dataset)
    else:
        for keyword, value in (overrides or {}).items():
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def write_body_ct(
    folder: str | Path,
    *,
    shape: tuple[int, int, int] = (160, 192, 256),
    spacing: tuple[float, float, float] = (6.0, 2.0, 2.0),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the body of :func:`body_ct` as a CT series, one plane in memory at a time.

    Parameters
    ----------
    folder
        Made if absent.
    shape
        Number of slices, rows and columns.
    spacing
        Distance between voxel centres along (slice, row, column), mm.
    seed
        Settles UIDs and file names, not the picture.
    progress
        Called with the numbers of slices written and to write.

    Returns
    -------
    list of Path
        The files from the feet to the head. The middle of the volume is at 0, 0, 0 (LPS, mm).

    Raises
    ------
    ValueError
        If a number in ``shape`` or ``spacing`` is not positive.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> len(write_body_ct(mkdtemp(), shape=(4, 24, 32), spacing=(240.0, 16.0, 16.0)))
    4
    """
    check_grid(shape, spacing)
    nz, ny, nx = shape
    dz, dy, dx = spacing
    return write_series(
        folder,
        body_planes(shape, spacing),
        n=nz,
        spacing=spacing,
        origin=(-(nx - 1) / 2 * dx, -(ny - 1) / 2 * dy, -(nz - 1) / 2 * dz),
        bits_stored=12,
        signed=False,
        seed=seed,
        progress=progress,
    )
