"""Kinds of images that are not plain slices, of a few kB each, with what they hold beside them.

Segmentations and parametric maps are made by highdicom, the rest by pydicom from the standard. What a file should
come out as is worked out here and in the tests with NumPy alone, never with lazyvol.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import highdicom as hd
import numpy as np
import pydicom
import pytest
import series_made as made
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.sr.codedict import codes as concepts
from pydicom.sr.coding import Code
from pydicom.tag import Tag

ROWS, COLUMNS = 5, 7
"""35 pixels: frames of one bit each do not begin at a byte."""
DOSE, NM = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.20"
US_CINE, XA, XRF = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2"
CAPTURE_8, CAPTURE_16 = "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3"
OBLIQUE = (1.0, 0.0, 0.0, 0.0, 0.8, -0.6)
"""Tilted by the angle of a 3-4-5 triangle, so that its numbers are exact in text; its normal is (0, 0.6, 0.8)."""
SECRETS = ("Fictitious", "FICTITIOUS-4711", "4711")
_STUDY = {
    "StudyID": "1",
    "StudyDate": "20200101",
    "StudyTime": "120000",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "Manufacturer": "made",
}


# What every kind needs


def frames(count: int | tuple[int, ...], dtype: str = "<u2", rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Return stored numbers in which every pixel differs from every other, as far as the type goes."""
    shape = (count,) if isinstance(count, int) else tuple(count)
    return np.arange(int(np.prod(shape)) * rows * columns).reshape(*shape, rows, columns).astype(dtype)


def write(path: Path, dataset: Dataset, *, syntax: str = made.EXPLICIT) -> Path:
    """Write a dataset as a file of its own and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    path.write_bytes(buffer.getvalue())
    return path


def multiframe(stored: np.ndarray, **values: object) -> Dataset:
    """Return an image of many frames; None leaves an element out. Signed numbers and colour are as the array is."""
    colour = stored.ndim == 4
    bits = stored.dtype.itemsize * 8
    said = {
        "SOPInstanceUID": "1.2.5.1",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.5",
        "SeriesNumber": 5,
        "InstanceNumber": 1,
        "SeriesDescription": "made",
        "FrameOfReferenceUID": "1.2.9",
        "PatientName": "Fictitious^Phantom",
        "PatientID": "FICTITIOUS-4711",
        "NumberOfFrames": len(stored),
        "Rows": stored.shape[1],
        "Columns": stored.shape[2],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
    }
    dataset = Dataset()
    for keyword, value in (said | values).items():
        if value is not None:
            setattr(dataset, keyword, made._as_text(keyword, value))
    content = stored.tobytes()
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", content + b"\0" * (len(content) % 2))
    return dataset


def in_order(positions, stored, orientation=made.AXIAL) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and frames in the order of their height along the normal."""
    positions = np.asarray(positions, dtype=float)
    order = np.argsort(positions @ made.normal_of(orientation))
    return positions[order], np.asarray(stored)[order]


def corners_at(positions, orientation=made.AXIAL, spacing=made.SPACING[1:], shape=(ROWS, COLUMNS)) -> np.ndarray:
    """Return where the corners of frames at these positions lie, LPS mm; as `series_made.corners_in` does."""
    row, column = np.reshape(np.asarray(orientation, dtype=float), (2, 3))
    ends = [(j, i) for j in (0, shape[0] - 1) for i in (0, shape[1] - 1)]
    shifts = np.array([i * spacing[1] * row + j * spacing[0] * column for j, i in ends])
    return np.asarray(positions, dtype=float)[:, np.newaxis] + shifts


def without_source(volume):
    """Return a volume as a store gives it back: in memory, without the paths."""
    return volume.drop_vars("source", errors="ignore").compute()


def secrets_in(*texts: object) -> list[str]:
    """Return what of the patient the texts hold."""
    return [s for s in SECRETS if any(s in str(text) for text in texts)]


def said_of(path: Path, **options) -> str:
    """Return the codes and messages of what is odd about a file, or the error that refuses it."""
    import lazyvol as lv

    try:
        return "\n".join(map(str, lv.findings_of(lv.open_volume(path, **options))))
    except lv.LazyvolError as error:
        return str(error)


class Reads(NamedTuple):
    """The byte ranges that were read by position."""

    ranges: list[tuple[int, int]]

    def within(self, start: int, end: int) -> bool:
        """Whether something was read, and nothing outside of these bytes."""
        return bool(self.ranges) and all(start <= a and b <= end for a, b in self.ranges)


@pytest.fixture
def reads(monkeypatch):
    """Byte ranges that are read of files by position, while the test runs."""
    if not hasattr(os, "preadv"):
        pytest.skip("os.preadv does not exist here, so reads cannot be counted inside the process")
    seen, read = Reads([]), os.preadv

    def counting(file, buffers, offset, *flags):
        count = read(file, buffers, offset, *flags)
        seen.ranges.append((offset, offset + count))
        return count

    monkeypatch.setattr(os, "preadv", counting)
    return seen


def pixels_begin(path: Path, keyword: str = "PixelData") -> int:
    """Return the byte at which the uncompressed pixels of an explicit file begin: they stand last."""
    return path.stat().st_size - len(pydicom.dcmread(path)[keyword].value)


# Segmentations and parametric maps


def ct_images(count: int = 6, rows: int = ROWS, columns: int = COLUMNS, **options) -> list[Dataset]:
    """Return CT slices with all that highdicom wants to know of a patient and a study."""
    stored = frames(count, rows=rows, columns=columns)
    images = made.series(count, each=lambda k: {"stored": stored[k]}, **(_STUDY | options))
    for image in images:
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return images


def ct_folder(folder: Path, **options) -> tuple[Path, list[Dataset]]:
    """Write CT slices and return their folder, and the slices in their order."""
    images = ct_images(**options)
    made.write(folder, images)
    return folder, images


def segment(number: int, label: str, *, rgb: tuple[int, int, int] | None = None) -> hd.seg.SegmentDescription:
    """Return what a segment is; its category and its type are as fixed here."""
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=concepts.SCT.Organ,
        segmented_property_type=concepts.SCT.Liver if number % 2 else concepts.SCT.Spleen,
        algorithm_type="MANUAL",
        display_color=None if rgb is None else hd.color.CIELabColor.from_rgb(*rgb),
    )


_BY = {"manufacturer": "made", "manufacturer_model_name": "made", "software_versions": "1"}
_BY |= {"device_serial_number": "1", "instance_number": 1}


def segmentation(
    images: Sequence[Dataset],
    values: np.ndarray,
    *,
    kind: str = "BINARY",
    segments: Sequence[hd.seg.SegmentDescription] | None = None,
    **options,
) -> Dataset:
    """Return a segmentation of images; ``values`` is (segment, z, y, x), or (z, y, x) for a label map."""
    if segments is None:
        numbers = range(1, len(values) + 1) if kind != "LABELMAP" else np.unique(values[values > 0]).tolist()
        segments = [segment(n, f"segment {n}") for n in numbers]
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=values if kind == "LABELMAP" else np.moveaxis(values, 0, -1),
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid="1.2.77",
        series_number=77,
        sop_instance_uid="1.2.77.1",
        **(_BY | options),
    )


def save(path: Path, dataset: Dataset) -> Path:
    """Write what highdicom made, with the syntax that it has."""
    dataset.save_as(path)
    return path


def masks(*planes_of_segments: Iterable[int], count: int = 6, seed: int = 3) -> np.ndarray:
    """Return random masks (segment, z, y, x) that are empty but in the planes listed for each segment."""
    found = np.zeros((len(planes_of_segments), count, ROWS, COLUMNS), np.uint8)
    some = np.random.default_rng(seed).integers(0, 2, found.shape, np.uint8)
    for n, planes in enumerate(planes_of_segments):
        for k in planes:
            found[n, k] = some[n, k]
            found[n, k, n, k % COLUMNS] = 1  # so that no frame is empty
    return found


def with_frames_reordered(dataset: Dataset, order: Sequence[int]) -> Dataset:
    """Return an uncompressed file of many frames with its frames, and what is said of each, in another order."""
    bits = dataset.BitsAllocated
    size = dataset.Rows * dataset.Columns
    count = dataset.NumberOfFrames
    content = np.frombuffer(dataset.PixelData, np.uint8)
    if bits == 1:
        flat = np.unpackbits(content, bitorder="little")[: count * size].reshape(count, size)
        packed = np.packbits(flat[list(order)].ravel(), bitorder="little").tobytes()
    else:
        step = size * bits // 8
        packed = content[: count * step].reshape(count, step)[list(order)].tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    return dataset


def shifted(dataset: Dataset, by: Sequence[float]) -> Dataset:
    """Move all frames of a file in the patient, mm."""
    for group in dataset.PerFrameFunctionalGroupsSequence:
        where = group.PlanePositionSequence[0]
        where.ImagePositionPatient = [float(p) + d for p, d in zip(where.ImagePositionPatient, by, strict=True)]
    return dataset


def map_of(
    images: Sequence[Dataset],
    values: np.ndarray,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    unit: Code = Code("um2/s", "UCUM", "square micrometer per second"),  # noqa: B008  # a value
    **options,
) -> Dataset:
    """Return a parametric map with one mapping to real-world values."""
    wide = values.dtype.kind == "f"
    low, high = (float(values.min()), float(values.max())) if wide else (0, int(values.max()))
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="ADC",
        lut_explanation="Apparent Diffusion Coefficient",
        unit=unit,
        value_range=(low, high),
        slope=slope,
        intercept=intercept,
    )
    return hd.pm.ParametricMap(
        source_images=images,
        pixel_array=values,
        series_instance_uid="1.2.88",
        series_number=88,
        sop_instance_uid="1.2.88.1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=50.0, window_width=100.0)],
        **(_BY | options),
    )


# Doses


def dose(
    stored: np.ndarray, offsets: Sequence[float], *, orientation=made.AXIAL, scaling: float = 0.0125, **values
) -> Dataset:
    """Return an RT dose whose planes lie at these offsets."""
    said = {
        "SOPClassUID": DOSE,
        "Modality": "RTDOSE",
        "ImagePositionPatient": made.ORIGIN,
        "ImageOrientationPatient": orientation,
        "PixelSpacing": made.SPACING[1:],
        "SliceThickness": None,
        "DoseUnits": "GY",
        "DoseType": "PHYSICAL",
        "DoseSummationType": "PLAN",
        "GridFrameOffsetVector": tuple(offsets),
        "DoseGridScaling": scaling,
    }
    dataset = multiframe(stored, **(said | values))
    if "GridFrameOffsetVector" in dataset:
        dataset.FrameIncrementPointer = Tag("GridFrameOffsetVector")
    return dataset


# Nuclear medicine


def nm(
    stored: np.ndarray,
    kind: str,
    vectors: Mapping[str, Sequence[int]],
    *,
    orientation=made.AXIAL,
    position=made.ORIGIN,
    **values,
) -> Dataset:
    """Return an NM image of a kind (``RECON TOMO``, ``DYNAMIC``); its vectors are what FrameIncrementPointer names."""
    said = {
        "SOPClassUID": NM,
        "Modality": "NM",
        "ImageType": ("ORIGINAL", "PRIMARY", kind, "EMISSION"),
        "PixelSpacing": made.SPACING[1:],
        "SliceThickness": 3.0,
        **{keyword: list(vector) for keyword, vector in vectors.items()},
    }
    dataset = multiframe(stored, **(said | values))
    dataset.FrameIncrementPointer = [Tag(keyword) for keyword in vectors]
    detector = Dataset()
    if position is not None:
        detector.ImagePositionPatient = list(position)
        detector.ImageOrientationPatient = list(orientation)
    dataset.DetectorInformationSequence = [detector]
    dataset.EnergyWindowInformationSequence = [Dataset()]
    return dataset


def vectors_of(**counts: int) -> dict[str, list[int]]:
    """Return the vectors of all combinations of so many values, the last one running fastest."""
    index = np.indices(tuple(counts.values())).reshape(len(counts), -1) + 1
    return dict(zip(counts, index.tolist(), strict=True))


# Cine


def cine(stored: np.ndarray, sop_class: str = XA, **values) -> Dataset:
    """Return a multi-frame image without positions, that says nothing of time unless it is told to."""
    modality = {US_CINE: "US", XA: "XA", XRF: "RF"}.get(sop_class, "OT")
    said = {"SOPClassUID": sop_class, "Modality": modality, "FrameOfReferenceUID": None}
    dataset = multiframe(stored, **(said | values))
    for keyword in ("FrameTime", "FrameTimeVector"):
        if keyword in dataset:
            dataset.FrameIncrementPointer = Tag(keyword)
    return dataset


# Mosaics


def sheet_of(tiles: np.ndarray, *, across: int, down: int | None = None) -> np.ndarray:
    """Return tiles (n, rows, columns) side by side, row by row; what is left over is 0."""
    count, rows, columns = tiles.shape
    down = across if down is None else down
    whole = np.zeros((down * across, rows, columns), tiles.dtype)
    whole[:count] = tiles
    return whole.reshape(down, across, rows, columns).swapaxes(1, 2).reshape(down * rows, across * columns)


def csa_header(**entries: Sequence[object]) -> bytes:
    """Return a CSA header of format SV10 with these entries, each a sequence of numbers."""
    content = b"SV10\4\3\2\1" + struct.pack("<II", len(entries), 77)
    for name, values in entries.items():
        texts = [f"{v:d}" if isinstance(v, int) else f"{v:.8f}" for v in values]
        slots = [f"{text:<8}".encode() + b"\0" for text in texts] + [b""] * (6 - len(texts))
        vr = b"US\0\0" if all(isinstance(v, int) for v in values) else b"FD\0\0"
        content += struct.pack("<64si4siii", name.encode(), len(values), vr, 4, len(slots), 77)
        for slot in slots:
            content += struct.pack("<iiii", len(slot), len(slot), 77, len(slot)) + slot + b"\0" * (-len(slot) % 4)
    return content + b"\0" * (len(content) % 2)


class Mosaic(NamedTuple):
    """A sheet of tiles, and what it stands for."""

    dataset: Dataset
    tiles: np.ndarray
    """(n, rows, columns)."""
    positions: np.ndarray
    """Centre of the first pixel of each tile, LPS mm."""
    orientation: tuple[float, ...]


def siemens_mosaic(
    count: int = 7,
    *,
    rows: int = 4,
    columns: int = 6,
    orientation=made.AXIAL,
    downwards: bool = False,
    csa: bool = True,
    number: int = 0,
    **values,
) -> Mosaic:
    """Return a mosaic as Siemens writes it; ``downwards`` stacks the slices against the normal."""
    tiles = frames((number + 1, count), rows=rows, columns=columns)[number]
    across = int(np.ceil(np.sqrt(count)))
    sheet = sheet_of(tiles, across=across)
    row, column = np.reshape(np.asarray(orientation, dtype=float), (2, 3))
    normal = np.cross(row, column) * (-1 if downwards else 1)
    dy, dx = made.SPACING[1:]
    first = np.asarray(made.ORIGIN)
    # The header gives the first pixel of one slice as large as the sheet, about the centre of the first tile.
    said = first - row * dx * (sheet.shape[1] - columns) / 2 - column * dy * (sheet.shape[0] - rows) / 2
    image = made.image(
        number,
        said,
        stored=sheet,
        **(
            made.AS_MR
            | {"ImageType": ("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"), "Manufacturer": "SIEMENS"}
            | {"SpacingBetweenSlices": made.SPACING[0], "ImageOrientationPatient": orientation}
            | values
        ),
    )
    image.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
    if csa:
        header = csa_header(NumberOfImagesInMosaic=[count], SliceNormalVector=normal.tolist())
        image.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    steps = np.arange(count)[:, np.newaxis]
    return Mosaic(image, tiles, first + steps * made.SPACING[0] * normal, tuple(orientation))


def uih_mosaic(
    count: int = 7,
    *,
    rows: int = 4,
    columns: int = 6,
    orientation=made.AXIAL,
    number: int = 0,
    positions: bool = True,
    seconds: float = 0.0,
    **values,
) -> Mosaic:
    """Return a grid of tiles as United Imaging writes it: an item of a private sequence for each."""
    tiles = frames((number + 1, count), rows=rows, columns=columns)[number]
    across = int(np.ceil(np.sqrt(count)))
    sheet = sheet_of(tiles, across=across, down=-(-count // across))
    step = made.SPACING[0] * made.normal_of(orientation)
    where = np.asarray(made.ORIGIN) + np.arange(count)[:, np.newaxis] * step
    image = made.image(
        number,
        made.ORIGIN,
        stored=sheet,
        **(
            made.AS_MR
            | {"ImageType": ("ORIGINAL", "PRIMARY", "M", "NONE", "VFRAME"), "Manufacturer": "UIH"}
            | {"SpacingBetweenSlices": made.SPACING[0], "ImageOrientationPatient": orientation}
            | values
        ),
    )
    items = []
    for k in range(count):
        item = Dataset()
        if positions:
            item.ImagePositionPatient = [float(v) for v in where[k]]
        item.AcquisitionDateTime = f"20200101{120000 + seconds:013.6f}"
        items.append(item)
    block = image.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", str(count))
    block.add_new(0x51, "SQ", items)
    return Mosaic(image, tiles, where, tuple(orientation))


# Media


def media(folder: Path, count: int = 4) -> Path:
    """Write slices as a medium with a DICOMDIR, and return its path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # FileSet leaves its own folders behind
        files = FileSet()
        for image in ct_images(count):
            image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image["PixelData"].VR = "OW"
            files.add(image)
        files.write(folder)
        files._stage["t"].cleanup()
    return folder / "DICOMDIR"


def listed(dicomdir: Path) -> list[Path]:
    """Return the files that a DICOMDIR refers to, in its order."""
    records = pydicom.dcmread(dicomdir).DirectoryRecordSequence
    return [dicomdir.parent.joinpath(*r.ReferencedFileID) for r in records if "ReferencedFileID" in r]


def refer_last_to(dicomdir: Path, *parts: str) -> None:
    """Let the last record of a DICOMDIR refer to another file; as it stands last, no offset in it changes."""
    dataset = pydicom.dcmread(dicomdir)
    record = dataset.DirectoryRecordSequence[-1]
    record.add_new("ReferencedFileID", "CS", "")
    record["ReferencedFileID"]._value = list(parts) if len(parts) > 1 else parts[0]
    dataset.save_as(dicomdir)
