"""The bench's own data: CT series like those of a scanner, with what is known of them, in one folder.

Numbers are int16, explicit VR little endian, the header some 4.7 KB. File names are a random permutation;
InstanceNumber falls as z rises. What the answers must be is kept as checksums in ``truth.json``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, Sequence, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

__all__ = ["DATA_VERSION", "Sizes", "make_data", "write_series"]

Plane = npt.NDArray[np.int16]

DATA_VERSION = 1
"""Grows when other data are made."""
INTERCEPT = -1024
SPACING = (1.25, 0.7421875, 0.7421875)
ROOT = "1.2.826.0.1.3680043.8.498"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Sizes:
    """How much is made."""

    slices: int = 600
    edge: int = 512
    """Rows and columns of the series and of the enhanced file."""

    series: int = 40
    images: int = 150
    """Files of each series of the collection."""

    small: int = 64
    """Rows and columns of the collection."""


WARM = Sizes(slices=2, series=1, images=2)
"""What a process works on before its time is taken."""


def make_data(folder: Path, sizes: Sizes) -> None:
    """Make all that the bench reads, for work and for warming up, unless it is there already."""
    done = folder / "done.json"
    wanted = {"version": DATA_VERSION, **asdict(sizes)}
    if done.exists() and json.loads(done.read_text()) == wanted:
        return
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} holds something else than the whole data of this bench. Give an empty folder.")
    for place, each in ((folder / "work", sizes), (folder / "warm", WARM)):
        truth = {
            "series": [write_series(place / "series", each.slices, each.edge, seed=0)],
            "collection": [
                write_series(place / "collection" / f"{n:03d}", each.images, each.small, seed=n + 1)
                for n in range(each.series)
            ],
        }
        write_enhanced(place, place / "series")
        (place / "truth.json").write_text(json.dumps(truth))
    done.write_text(json.dumps(wanted))


def write_series(folder: Path, count: int, edge: int, *, seed: int) -> dict[str, object]:
    """Write one series; return what is true of it, slices from the lowest z on."""
    folder.mkdir(parents=True)
    names = [f"IM{n:06d}" for n in np.random.default_rng(seed).permutation(count)]
    header = Header(seed, edge)
    k_middle, middle = count // 2, edge // 2
    sums, crcs, offsets, rows, columns, axial = 0, [], [], [], [], 0
    for k, plane in enumerate(planes(count, edge, seed)):
        head = header.encoded(k, count)
        offsets.append(len(head))
        (folder / names[k]).write_bytes(head + plane.tobytes())
        values = plane + np.int16(INTERCEPT)
        sums += int(values.sum(dtype=np.int64))
        crcs.append(zlib.crc32(values.tobytes()))
        rows.append(values[middle].copy())
        columns.append(values[:, middle].copy())
        if k == k_middle:
            axial = crcs[-1]
    return {
        "uid": header.series_uid,
        "names": names,
        "offsets": offsets,
        "shape": [count, edge, edge],
        "spacing": SPACING,
        "sum": sums,
        "slices": crcs,
        "axial": axial,
        "coronal": zlib.crc32(np.stack(rows).tobytes()),
        "sagittal": zlib.crc32(np.stack(columns).tobytes()),
    }


def planes(count: int, edge: int, seed: int) -> Iterator[Plane]:
    """Yield stored numbers of a smooth body in air, with the correlated noise of a scanner."""
    random = np.random.default_rng(seed)
    noise = [_noise(random, edge) for _ in range(7)]
    y, x = np.linspace(-1, 1, edge, dtype=np.float32)[:, None], np.linspace(-1, 1, edge, dtype=np.float32)[None]
    inside = np.clip(12 * (1 - (x / 0.9) ** 2 - (y / 0.7) ** 2), 0, 1)
    fine = np.float32(30) * np.sin(25 * x) * np.cos(21 * y)
    for k in range(count):
        z = np.float32(k / 40)
        organs = 40 + 160 * np.sin(5 * y + z) * np.cos(6 * x - z / 2) + fine * np.sin(z)
        shift = tuple(random.integers(0, edge, 2).tolist())
        values = inside * (1024 + organs) + np.roll(noise[k % 7], shift, (0, 1)) * (0.2 + 0.8 * inside)
        yield np.clip(np.rint(values), 0, 4095).astype("<i2")


def _noise(random: np.random.Generator, edge: int) -> npt.NDArray[np.float32]:
    """Return noise of 10 HU whose neighbours are alike, as a reconstruction kernel leaves it."""
    noise = random.normal(0, 1, (edge, edge)).astype(np.float32)
    for axis in (0, 1):
        noise = noise + np.roll(noise, 1, axis) + np.float32(0.5) * np.roll(noise, 2, axis)
    return np.asarray(10 * noise / noise.std(), np.float32)


class Header:
    """The header of a slice, encoded from parts: most are shared, and encoded by pydicom once."""

    def __init__(self, seed: int, edge: int) -> None:
        self.seed, self.edge = seed, edge
        self.series_uid = f"{ROOT}.{7000 + seed}.2"
        shared = _shared_elements(self.series_uid, seed, edge)
        self.parts = {int(e.tag): _encode_element(e) for e in shared}
        self.pixels = b"\xe0\x7f\x10\x00OW\0\0" + (2 * edge * edge).to_bytes(4, "little")

    def encoded(self, k: int, count: int) -> bytes:
        """Return all of the file that lies before the pixels of slice k, counted from the lowest z."""
        uid = f"{self.series_uid}.{count - k}.{97 * (k + 13)}"
        number, seconds = count - k, 36000 + 0.37 * (count - k)
        clock = f"{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:09.6f}"
        z = -812.5 + SPACING[0] * k
        current = int(220 + 90 * np.sin(0.05 * k))
        own = {
            0x00080018: element(0x00080018, "UI", uid),
            0x00080032: element(0x00080032, "TM", clock),
            0x00080033: element(0x00080033, "TM", clock),
            0x00181151: element(0x00181151, "IS", str(current)),
            0x00181152: element(0x00181152, "IS", str(current // 2)),
            0x00200013: element(0x00200013, "IS", str(number)),
            0x00200032: element(0x00200032, "DS", f"-189.62890625\\-171.5\\{z:g}"),
            0x00201041: element(0x00201041, "DS", f"{z:g}"),
        }
        body = b"".join(part for _, part in sorted({**self.parts, **own}.items()))
        return _file_meta(uid) + body + self.pixels


def element(tag: int, vr: str, text: str) -> bytes:
    """Encode one short element (DICOM PS3.5 7.1.2)."""
    value = text.encode()
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    place = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    return place + vr.encode() + len(value).to_bytes(2, "little") + value


def _file_meta(uid: str) -> bytes:
    """Return preamble and group 0002 (DICOM PS3.10 7.1)."""
    version = b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01"
    texts = {0x00020002: CT_IMAGE, 0x00020003: uid, 0x00020010: str(ExplicitVRLittleEndian), 0x00020012: f"{ROOT}.1"}
    group = version + b"".join(element(tag, "UI", text) for tag, text in texts.items())
    return b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0" + len(group).to_bytes(4, "little") + group


def _encode_element(part: object) -> bytes:
    one, buffer = Dataset(), BytesIO()
    one.add(part)
    dcmwrite(buffer, one, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _code(value: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return Sequence([item])


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_IMAGE, uid
    item.PurposeOfReferenceCodeSequence = _code("121311", "Localizer")
    return item


def _shared_elements(series_uid: str, seed: int, edge: int) -> Dataset:
    """Return what all slices of a series have, invented."""
    dataset = Dataset()
    for keyword, value in TEXTS.items():
        setattr(dataset, keyword, value)
    dataset.SeriesInstanceUID = series_uid
    dataset.StudyInstanceUID = f"{ROOT}.{7000 + seed}.1"
    dataset.FrameOfReferenceUID = f"{ROOT}.{7000 + seed}.3"
    dataset.SeriesNumber = seed + 2
    dataset.PatientID = f"FICTITIOUS-{seed:04d}"
    dataset.PixelSpacing = list(SPACING[1:])
    dataset.Rows = dataset.Columns = edge
    dataset.ReferencedImageSequence = Sequence([_reference(f"{ROOT}.{n}.9") for n in range(2)])
    dataset.ProcedureCodeSequence = _code("77477000", "Computed tomography")
    dataset.RequestAttributesSequence = Sequence([Dataset()])
    dataset.RequestAttributesSequence[0].ScheduledProcedureStepID = "1"
    dataset.RequestAttributesSequence[0].RequestedProcedureID = "1"
    dataset.CTDIPhantomTypeCodeSequence, dataset.CTDIvol = _code("113691", "IEC Body Dosimetry Phantom"), 7.25
    block = dataset.private_block(0x0019, "BENCH SCANNER 01", create=True)
    for n in range(14):
        block.add_new(n + 1, *(("DS", f"{n * 1.5:.4f}") if n % 2 else ("SH", f"VALUE {n}")))
    private = dataset.private_block(0x0029, "BENCH CSA HEADER", create=True)
    private.add_new(0x08, "CS", "IMAGE NUM 4")
    private.add_new(0x10, "OB", np.random.default_rng(seed).integers(0, 256, 2048, dtype="uint8").tobytes())
    return dataset


TEXTS: dict[str, object] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    "InstanceCreationDate": "20010203",
    "InstanceCreationTime": "101500.250000",
    "SOPClassUID": CT_IMAGE,
    "StudyDate": "20010203",
    "SeriesDate": "20010203",
    "AcquisitionDate": "20010203",
    "ContentDate": "20010203",
    "StudyTime": "101112.500000",
    "SeriesTime": "101413.750000",
    "AccessionNumber": "FICTION-0815",
    "Modality": "CT",
    "Manufacturer": "Bench Scanners",
    "InstitutionName": "Hospital of Nowhere",
    "ReferringPhysicianName": "Nobody^Doctor",
    "StationName": "CT0815",
    "StudyDescription": "Invented^Chest",
    "SeriesDescription": "Chest 1.25 Br40",
    "PhysiciansOfRecord": "Nobody^Else",
    "OperatorsName": "Noone^Operator",
    "ManufacturerModelName": "Paper Scanner",
    "PatientName": "Fictitious^Phantom",
    "PatientBirthDate": "19010203",
    "PatientSex": "O",
    "PatientAge": "099Y",
    "PatientSize": "1.75",
    "PatientWeight": "75",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "HELICAL MODE",
    "SliceThickness": "1.25",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "DeviceSerialNumber": "4711",
    "SoftwareVersions": "bench 1",
    "ProtocolName": "Chest routine",
    "ReconstructionDiameter": "380",
    "DistanceSourceToDetector": "1085.6",
    "DistanceSourceToPatient": "595",
    "GantryDetectorTilt": "0",
    "TableHeight": "152.5",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "FilterType": "BODY",
    "GeneratorPower": "42",
    "FocalSpots": ["0.9", "1.1"],
    "DateOfLastCalibration": "20010202",
    "TimeOfLastCalibration": "080000",
    "ConvolutionKernel": ["Br40d", "3"],
    "PatientPosition": "HFS",
    "RevolutionTime": 0.5,
    "SingleCollimationWidth": 0.6,
    "TotalCollimationWidth": 38.4,
    "TableSpeed": 46.0,
    "TableFeedPerRotation": 23.0,
    "SpiralPitchFactor": 0.6,
    "StudyID": "1",
    "AcquisitionNumber": "3",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1500"],
    "RescaleIntercept": str(INTERCEPT),
    "RescaleSlope": "1",
    "RescaleType": "HU",
    "WindowCenterWidthExplanation": ["SOFT TISSUE", "LUNG"],
    "PerformedProcedureStepStartDate": "20010203",
    "PerformedProcedureStepStartTime": "101112",
    "PerformedProcedureStepID": "1",
    "PerformedProcedureStepDescription": "Invented^Chest",
}


def write_enhanced(folder: Path, series: Path) -> None:
    """Write the series as one Legacy Converted Enhanced CT image (DICOM PS3.3 A.70), with highdicom."""
    try:
        from highdicom.legacy import LegacyConvertedEnhancedCTImage
    except ImportError:
        return
    slices = [dcmread(path) for path in series.iterdir()]
    for each in slices:
        each.file_meta = FileMetaDataset(each.file_meta)
    image = LegacyConvertedEnhancedCTImage(
        legacy_datasets=slices,
        series_instance_uid=f"{ROOT}.6000.2",
        series_number=900,
        sop_instance_uid=f"{ROOT}.6000.2.1",
        instance_number=1,
    )
    image.save_as(folder / "enhanced.dcm")
