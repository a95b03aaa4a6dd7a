"""Multi-frame files of a few kB, made from the single-frame images that they stand for.

`enhanced` writes the functional groups by hand, as PS3.3 C.7.6.16 and the modules of Enhanced CT, MR, PET and
US have them, so that what a reader makes of them can be held against what it makes of the single frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import series_made as made
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.encoders import RLELosslessEncoder

ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
ENHANCED_PET, ENHANCED_US = "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.6.2"
RLE, JPEG, JPEG_LOSSLESS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JPEG_LS, J2K = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
NAME, ID = "Fictitious^Phantom", "FICTITIOUS-4711"
"""Of the patient of every image of `series_made`; no message may hold them."""

AS_PET = {"SOPClassUID": made.PT, "Modality": "PT", "Units": "BQML"}
FRAME_TYPE = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")

_COMMON = {
    "PixelMeasuresSequence": {k: k for k in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")},
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "FrameVOILUTSequence": {k: k for k in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation")},
    "PixelValueTransformationSequence": {k: k for k in ("RescaleIntercept", "RescaleSlope", "RescaleType")},
    "CardiacSynchronizationSequence": {
        "NominalPercentageOfCardiacPhase": "NominalPercentageOfCardiacPhase",
        "NominalCardiacTriggerDelayTime": "TriggerTime",
    },
    "RespiratorySynchronizationSequence": {
        "NominalPercentageOfRespiratoryPhase": "NominalPercentageOfRespiratoryPhase"
    },
    "FrameContentSequence": {
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
    },
}
MACROS = {
    "CT": _COMMON
    | {
        "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
        "CTExposureSequence": {"ExposureTimeInms": "ExposureTime", "XRayTubeCurrentInmA": "XRayTubeCurrent"},
        "CTXRayDetailsSequence": {"KVP": "KVP", "FilterType": "FilterType"},
        "CTAcquisitionDetailsSequence": {k: k for k in ("TableHeight", "DataCollectionDiameter")},
        "CTReconstructionSequence": {k: k for k in ("ConvolutionKernel", "ReconstructionDiameter")},
    },
    "MR": _COMMON
    | {
        "MRImageFrameTypeSequence": {"FrameType": "ImageType", "ComplexImageComponent": "ComplexImageComponent"},
        "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
        "MRTimingAndRelatedParametersSequence": {"RepetitionTime": "RepetitionTime", "FlipAngle": "FlipAngle"},
        "MRAveragesSequence": {"NumberOfAverages": "NumberOfAverages"},
        "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    },
    "PT": _COMMON | {"PETFrameTypeSequence": {"FrameType": "ImageType"}},
}
"""Functional group macros by modality: keyword of the group, and for each element in it that of the single frame."""

CLASSES = {"CT": ENHANCED_CT, "MR": ENHANCED_MR, "PT": ENHANCED_PET}
_OF_A_FRAME = {c for groups in MACROS.values() for group in groups.values() for c in group.values()}
_NOT_OF_THE_FILE = _OF_A_FRAME | {"SOPClassUID", "SOPInstanceUID", "InstanceNumber", "ImageType", "PixelData"}


def enhanced(
    images: Sequence[Dataset],
    *,
    each: Collection[str] = (),
    shared: bool = True,
    dimensions: Sequence[str] = (),
    indices: Callable[[int, list[int]], list[int]] = lambda _n, row: row,
    uid: str = "1.2.3.5.1",
    **values,
) -> Dataset:
    """Return the multi-frame image whose frames are these single-frame images, in their order.

    A macro that is the same in all is shared, unless it is named in ``each`` or nothing is ``shared``. The dimension
    indices are StackID, InStackPositionNumber and those of ``dimensions``, keywords of elements of the macros;
    ``indices`` may put others in place of those of frame n. ``values`` are elements of the file.
    """
    macros = MACROS[images[0].Modality]
    file = Dataset()
    for element in images[0]:
        if element.keyword not in _NOT_OF_THE_FILE:
            setattr(file, element.keyword, deepcopy(element.value))
    file.SOPClassUID, file.SOPInstanceUID = CLASSES[images[0].Modality], uid
    kinds = {tuple(i.ImageType) for i in images}
    file.ImageType = list(kinds.pop()) if len(kinds) == 1 else ["ORIGINAL", "PRIMARY", "MIXED", "NONE"]
    file.InstanceNumber = 1
    groups = [_groups(image, macros) for image in images]
    _number(file, groups, images, dimensions, indices)
    put_groups(file, groups, each=each, shared=shared)
    file.NumberOfFrames = len(images)
    for keyword, value in values.items():
        setattr(file, keyword, value)
    file.PixelData = b"".join(i.PixelData for i in images)
    return file


def _groups(image: Dataset, macros: dict[str, dict[str, str]]) -> dict[str, Dataset]:
    """Return the functional groups that say what a single-frame image says, by keyword."""
    found = {}
    for group, keywords in macros.items():
        item = Dataset()
        for keyword, classic in keywords.items():
            if classic in image:
                setattr(item, keyword, deepcopy(image[classic].value))
        if item or group == "FrameContentSequence":
            found[group] = item
    if "MRDiffusionSequence" in found:
        found["MRDiffusionSequence"].DiffusionDirectionality = "ISOTROPIC"
    return found


def _number(file, groups, images, dimensions, indices) -> None:
    """Give frames their place in the stack and their dimension indices (PS3.3 C.7.6.17)."""
    pointers = [("FrameContentSequence", "StackID"), ("FrameContentSequence", "InStackPositionNumber")]
    pointers += [(next(g for g in MACROS[file.Modality] if d in MACROS[file.Modality][g]), d) for d in dimensions]
    normal = made.normal_of(images[0].ImageOrientationPatient) if "ImageOrientationPatient" in images[0] else np.ones(3)
    heights = [round(float(np.dot(i.get("ImagePositionPatient") or (0, 0, 0), normal)), 3) for i in images]
    columns = [[1] * len(images), _ranks(heights)]
    columns += [_ranks([_plain(g[of].get(d)) for g in groups]) for of, d in pointers[2:]]
    for n, (group, row) in enumerate(zip(groups, zip(*columns, strict=True), strict=True)):
        content = group["FrameContentSequence"]
        content.StackID, content.InStackPositionNumber = "1", row[1]
        content.DimensionIndexValues = indices(n, list(row))
    put_dimensions(file, pointers)


def put_dimensions(file: Dataset, pointers: Sequence[tuple[str, str]]) -> None:
    """Say which element of which functional group each dimension index points to."""
    organization = Dataset()
    organization.DimensionOrganizationUID = "1.2.3.6"
    file.DimensionOrganizationSequence = [organization]
    found = []
    for group, keyword in pointers:
        item = Dataset()
        item.DimensionOrganizationUID = "1.2.3.6"
        item.DimensionIndexPointer = tag_for_keyword(keyword)
        item.FunctionalGroupPointer = tag_for_keyword(group)
        found.append(item)
    file.DimensionIndexSequence = found


def _plain(value):
    return tuple(value) if isinstance(value, pydicom.multival.MultiValue) else value


def _ranks(values) -> list[int]:
    order = sorted(set(values))
    return [order.index(v) + 1 for v in values]


def put_groups(
    file: Dataset, groups: Sequence[dict[str, Dataset]], *, each: Collection[str] = (), shared: bool = True
) -> None:
    """Put functional groups into the file: shared where all frames have the same one, else one for each."""
    common, items = Dataset(), [Dataset() for _ in groups]
    for keyword in {k: None for g in groups for k in g}:
        alike = all(g.get(keyword) == groups[0].get(keyword) for g in groups)
        if shared and alike and keyword not in {*each, "FrameContentSequence"}:
            setattr(common, keyword, [groups[0][keyword]])
            continue
        for item, group in zip(items, groups, strict=True):
            if keyword in group:
                setattr(item, keyword, [group[keyword]])
    file.SharedFunctionalGroupsSequence = [common]
    file.PerFrameFunctionalGroupsSequence = items


def us_volume(positions: Sequence[Sequence[float]], stored: np.ndarray, *, seconds: Sequence[float] = ()) -> Dataset:
    """Return an Enhanced US Volume (PS3.3 A.59): planes in the frame of reference of the volume itself."""
    file = Dataset()
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = ENHANCED_US, "1.2.3.5.1", "US"
    file.StudyInstanceUID, file.SeriesInstanceUID, file.SeriesNumber = "1.2", "1.2.3", 7
    file.PatientName, file.PatientID, file.InstanceNumber = NAME, ID, 1
    file.ImageType = ["ORIGINAL", "PRIMARY", "TISSUE_INTENSITY", "NONE"]
    file.FrameOfReferenceUID, file.UltrasoundAcquisitionGeometry = "1.2.9", "APEX"
    file.VolumeFrameOfReferenceUID, file.PatientFrameOfReferenceSource = "1.2.9", "ESTIMATED"
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
    file.NumberOfFrames, file.Rows, file.Columns = stored.shape
    groups = []
    for n, position in enumerate(positions):
        group = {k: Dataset() for k in ("FrameContentSequence", "PixelMeasuresSequence", "PlanePositionVolumeSequence")}
        group["FrameContentSequence"].DimensionIndexValues = [n + 1]
        group["PixelMeasuresSequence"].PixelSpacing = list(made.SPACING[1:])
        group["PlanePositionVolumeSequence"].ImagePositionVolume = list(map(float, position))
        group["PlaneOrientationVolumeSequence"] = Dataset()
        group["PlaneOrientationVolumeSequence"].ImageOrientationVolume = list(made.AXIAL)
        if len(seconds):
            group["TemporalPositionSequence"] = Dataset()
            group["TemporalPositionSequence"].TemporalPositionTimeOffset = float(seconds[n])
        groups.append(group)
    put_dimensions(file, [("PlanePositionVolumeSequence", "ImagePositionVolume")])
    put_groups(file, groups)
    file.PixelData = stored.astype("u1").tobytes() + b"\0" * (stored.size % 2)
    return file


def take(file: Dataset, order: Sequence[int]) -> Dataset:
    """Return the multi-frame image with its frames in another order, or only some of them."""
    taken = deepcopy(file)
    step = len(file.PixelData) // file.NumberOfFrames
    items = file.PerFrameFunctionalGroupsSequence
    taken.PerFrameFunctionalGroupsSequence = [deepcopy(items[n]) for n in order]
    taken.PixelData = b"".join(file.PixelData[n * step : (n + 1) * step] for n in order)
    taken.NumberOfFrames = len(order)
    return taken


def with_undefined_lengths(file: Dataset) -> Dataset:
    """Return the image with every sequence and every item of it of undefined length."""
    marked = deepcopy(file)
    _mark(marked)
    return marked


def _mark(dataset: Dataset) -> None:
    for element in dataset:
        if element.VR != "SQ":
            continue
        element.is_undefined_length = True
        for item in element.value:
            item.is_undefined_length_sequence_item = True
            _mark(item)


def encode(file: Dataset, *, syntax: str = made.EXPLICIT, undefined: bool = False) -> bytes:
    """Return the bytes of the file of an uncompressed image."""
    copy = with_undefined_lengths(file) if undefined else deepcopy(file)
    return made.encode(copy, syntax=syntax)


def write(path: Path, file: Dataset, **options) -> Path:
    """Write an uncompressed image and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(file, **options))
    return path


def stored_of(file: Dataset) -> np.ndarray:
    """Return the stored numbers of an uncompressed little-endian image; shape (frames, rows, columns)."""
    kind = f"<{'ui'[file.PixelRepresentation]}{file.BitsAllocated // 8}"
    count = int(file.NumberOfFrames)
    return np.frombuffer(file.PixelData, kind)[: count * file.Rows * file.Columns].reshape(
        count, file.Rows, file.Columns
    )


def coded(stored: np.ndarray, syntax: str) -> bytes:
    """Return a frame compressed without loss."""
    frame = np.ascontiguousarray(stored)
    if syntax == RLE:
        rows, columns = frame.shape
        return RLELosslessEncoder.encode(
            frame.tobytes(),
            rows=rows,
            columns=columns,
            samples_per_pixel=1,
            bits_allocated=16,
            bits_stored=16,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
            number_of_frames=1,
        )
    if syntax == JPEG_LS:
        return imagecodecs.jpegls_encode(frame)
    if syntax == JPEG_LOSSLESS:
        return imagecodecs.ljpeg_encode(frame)
    return imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True, level=0)


def cut(content: bytes, parts: int) -> list[bytes]:
    """Return a coded frame as so many fragments of even length, the last one padded."""
    step = -(-len(content) // parts)
    step += step % 2
    found = [content[n * step : (n + 1) * step] for n in range(parts)]
    return [p + b"\0" * (len(p) % 2) for p in found]


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def offsets_of(frames: Sequence[Sequence[bytes]]) -> list[int]:
    """Return where the first fragment of each frame begins, from the end of the basic offset table."""
    lengths = [sum(8 + len(p) for p in parts) for parts in frames]
    return [sum(lengths[:n]) for n in range(len(lengths))]


def encapsulated(
    file: Dataset,
    frames: Sequence[Sequence[bytes]],
    *,
    syntax: str,
    basic: Sequence[int] = (),
    extended: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    delimited: bool = True,
) -> bytes:
    """Return the bytes of a file whose frames are these fragments (PS3.5 A.4).

    ``basic`` are the entries of the basic offset table, ``extended`` and ``lengths`` those of the extended one;
    they are written as they are, right or wrong.
    """
    copy = deepcopy(file)
    del copy.PixelData
    if extended is not None:
        copy.ExtendedOffsetTable = struct.pack(f"<{len(extended)}Q", *extended)
        sizes = lengths if lengths is not None else [sum(map(len, parts)) for parts in frames]
        copy.ExtendedOffsetTableLengths = struct.pack(f"<{len(sizes)}Q", *sizes)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, copy, enforce_file_format=True)
    table = item(struct.pack(f"<{len(basic)}I", *basic))
    fragments = b"".join(item(part) for parts in frames for part in parts)
    element = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if delimited else b""
    return buffer.getvalue() + element + table + fragments + end


__all__ = [
    "AS_PET",
    "CLASSES",
    "FRAME_TYPE",
    "ID",
    "J2K",
    "JPEG_LOSSLESS",
    "JPEG_LS",
    "MACROS",
    "NAME",
    "RLE",
    "coded",
    "cut",
    "encapsulated",
    "encode",
    "enhanced",
    "item",
    "offsets_of",
    "put_dimensions",
    "put_groups",
    "stored_of",
    "take",
    "us_volume",
    "with_undefined_lengths",
    "write",
]
