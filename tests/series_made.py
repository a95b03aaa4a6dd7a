"""Series of a few kB made slice by slice, in which every voxel says of which image it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.valuerep import format_number_as_ds

CT, MR, PT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"
EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

ROWS, COLUMNS = 20, 24
SPACING = (2.5, 0.8, 0.6)
"""Along z, y and x, mm."""
ORIGIN = (-12.5, -20.25, 31.5)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
MAKERS = ("SIEMENS", "GE MEDICAL SYSTEMS", "Philips", "TOSHIBA", None)

_SAID = {
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "SOPClassUID": CT,
    "Modality": "CT",
    "StudyInstanceUID": "1.2",
    "SeriesInstanceUID": "1.2.3",
    "SeriesNumber": 7,
    "SeriesDescription": "made",
    "FrameOfReferenceUID": "1.2.9",
    "PatientName": "Fictitious^Phantom",
    "PatientID": "FICTITIOUS-4711",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": SPACING[1:],
    "SliceThickness": 3.0,
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 0,
    "RescaleIntercept": -1024.0,
    "RescaleSlope": 1.0,
}
AS_MR = {"SOPClassUID": MR, "Modality": "MR", "RescaleIntercept": None, "RescaleSlope": None}
"""What makes an MR image of a CT image; its values are the stored numbers."""


def stamps(count: int | tuple[int, ...], intercept: float = -1024.0):
    """Return the values of images 0, 1, ...: each voxel differs from every other; shape (*count, rows, columns)."""
    shape = (count,) if isinstance(count, int) else count
    return np.arange(np.prod(shape) * ROWS * COLUMNS).reshape(*shape, ROWS, COLUMNS) + intercept


def normal_of(orientation) -> np.ndarray:
    row, column = np.reshape(np.asarray(orientation, dtype=float), (2, 3))
    return np.cross(row, column)


def image(number: int, position: Sequence[float] | None, *, stored=None, **values) -> Dataset:
    """Return the image whose voxels say ``number``; None leaves an element out."""
    if stored is None:
        stored = (stamps(number + 1, 0)[number]).astype("<u2")
    said = _SAID | {
        "SOPInstanceUID": f"1.2.3.4.{number + 1}",
        "InstanceNumber": number + 1,
        "ImagePositionPatient": position,
        "ImageOrientationPatient": AXIAL,
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
    }
    made = Dataset()
    for keyword, value in (said | values).items():
        if value is not None:
            setattr(made, keyword, _as_text(keyword, value))
    made.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    return made


def _as_text(keyword: str, value):
    words = list(value) if isinstance(value, tuple | list | np.ndarray) else [value]
    if dictionary_VR(keyword) == "DS":
        words = [w if isinstance(w, str) else format_number_as_ds(float(w)) for w in words]
    return words if len(words) > 1 else words[0]


def series(
    count: int = 10,
    *,
    step: Sequence[float] | None = None,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = ORIGIN,
    at: Iterable[float] | None = None,
    each: Callable[[int], Mapping[str, object]] = lambda _k: {},
    **values,
) -> list[Dataset]:
    """Return slices in the order of their place, numbered the other way round, as scanners do.

    ``step`` leads from slice to slice, by default 2.5 mm along the normal; ``at`` says how many steps each slice
    lies from the first, by default 0, 1, ...; ``each`` gives values of slice k.
    """
    where = np.arange(count) if at is None else np.asarray(list(at))
    along = SPACING[0] * normal_of(orientation) if step is None else np.asarray(step)
    return [
        image(
            k,
            np.asarray(origin) + t * along,
            **({"InstanceNumber": len(where) - k, "ImageOrientationPatient": orientation} | values | dict(each(k))),
        )
        for k, t in enumerate(where)
    ]


def grid(
    axes: Mapping[str, Sequence[object]],
    slices: int = 3,
    *,
    each: Callable[[tuple[int, ...], int], Mapping[str, object]] = lambda _index, _k: {},
    by_slice: bool = False,
    step: Sequence[float] = (0.0, 0.0, 2.5),
    **values,
) -> list[Dataset]:
    """Return MR images on a grid: z last, before it axes of DICOM keyword and values; images count in C order.

    InstanceNumber counts them so too, or with ``by_slice`` all images of the first slice first.
    """
    shape = tuple(len(v) for v in axes.values())
    many = int(np.prod(shape))
    found = []
    for n, (*index, k) in enumerate(product(*map(range, (*shape, slices)))):
        said = {keyword: v[i] for (keyword, v), i in zip(axes.items(), index, strict=True)}
        said["InstanceNumber"] = k * many + n // slices + 1 if by_slice else n + 1
        found.append(
            image(n, np.asarray(ORIGIN) + k * np.asarray(step), **(AS_MR | values | said | dict(each(tuple(index), k))))
        )
    return found


def encode(made: Dataset, *, syntax: str = EXPLICIT, preamble: bool = True) -> bytes:
    """Return the file of an image."""
    if syntax == BIG_ENDIAN:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made["PixelData"].VR = "OW"
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    content = buffer.getvalue()
    if preamble:
        return content
    # 128 bytes, DICM, (0002,0000) of 12 bytes whose value is the length of the rest of group 2
    return content[144 + int.from_bytes(content[140:144], "little") :]


def write(folder: Path, images: Sequence[Dataset], *, seed: int = 0, maker: str | None = None, **options) -> list[Path]:
    """Write images under random names and return their files, in the order of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(len(images) * 7)[: len(images)]
    paths = [folder / f"{name:05d}.dcm" for name in names]
    for made, path in zip(images, paths, strict=True):
        if maker:
            made.Manufacturer = maker
        path.write_bytes(encode(made, **options))
    return paths


def codes(volume) -> list[str]:
    """Return the codes of what is odd about a volume, sorted."""
    from lazyvol import findings_of

    return sorted(f.code for f in findings_of(volume))


def corners_of(images: Sequence[Dataset]) -> np.ndarray:
    """Return where the corners of images lie by their headers, LPS mm; shape (n, 4, 3), (j, i) as in `product`."""
    found = []
    for made in images:
        row, column = np.reshape(np.array(made.ImageOrientationPatient, dtype=float), (2, 3))
        per_row, per_column = (float(v) for v in made.PixelSpacing)
        ends = product((0, made.Rows - 1), (0, made.Columns - 1))
        shifts = [i * per_column * row + j * per_row * column for j, i in ends]
        found.append(np.array(made.ImagePositionPatient, dtype=float) + shifts)
    return np.array(found)


def corners_in(volume) -> np.ndarray:
    """Return the same by the labels and directions of a volume."""
    directions = np.reshape(volume.coords["geometry"].attrs["directions"], (3, 3))
    z, y, x = (volume.coords[axis].values for axis in "zyx")
    ends = list(product((y[0], y[-1]), (x[0], x[-1])))
    return np.array([[np.array([at, *end]) @ directions for end in ends] for at in z])
