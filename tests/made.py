"""Headers, datasets and files of a few hundred bytes, made to measure for tests."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pydicom
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from lazyvol.elements import Elements, instance_from_elements

CT, MR, PT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
BIG_ENDIAN, DEFLATED, JPEG_LS = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.80"

IMAGE = {
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "SOPClassUID": CT,
    "SOPInstanceUID": "1.2.3.4",
    "Modality": "CT",
    "StudyInstanceUID": "1.2",
    "SeriesInstanceUID": "1.2.3",
    "SeriesNumber": 7,
    "InstanceNumber": 1,
    "ImagePositionPatient": (0.0, 0.0, 0.0),
    "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "FrameOfReferenceUID": "1.2.9",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": 4,
    "Columns": 5,
    "PixelSpacing": (0.8, 0.6),
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "RescaleIntercept": -1024.0,
    "RescaleSlope": 1.0,
}
"""What a CT slice says of itself, by keyword."""


def tag(keyword):
    return tag_for_keyword(keyword)


def encoded(keyword, value, *, little_endian=True):
    """Return a value as the bytes of its element; bytes stay as they are."""
    if isinstance(value, bytes):
        return value
    order, vr = "<" if little_endian else ">", dictionary_VR(keyword)
    if vr in ("US", "US or SS"):
        return struct.pack(order + ("h" if value < 0 else "H"), value)
    if vr == "FD":
        return struct.pack(order + "d", value)
    words = value if isinstance(value, tuple | list | np.ndarray) else (value,)
    text = "\\".join(w if isinstance(w, str) else repr(w if isinstance(w, int) else float(w)) for w in words)
    return text.encode("latin-1")


def elements(
    *, little_endian=True, syntax=EXPLICIT, element="PixelData", offset=1000, length=None, uid="", **values
) -> Elements:
    """Return the header of a CT slice with other values; None leaves an element out."""
    said = {k: v for k, v in (IMAGE | values).items() if v is not None}
    return Elements(
        values={tag(k): encoded(k, v, little_endian=little_endian) for k, v in said.items()},
        little_endian=little_endian,
        transfer_syntax_uid=syntax,
        pixel_element=element,
        pixel_offset=offset,
        pixel_length=length,
        fallback_uid=uid,
    )


def instance(path="made.dcm", *, size=10**6, digest="", **given):
    """Return what a scan would make of such a header."""
    found = instance_from_elements(elements(**given), path=path, size=size)
    return found._replace(digest=digest)


def stack(positions, orientation=IMAGE["ImageOrientationPatient"], **values):
    """Return one Instance for each position, numbered the other way round, as scanners do."""
    n = len(positions)
    return [
        instance(
            f"{k:03d}.dcm",
            **{
                "ImagePositionPatient": tuple(map(float, position)),
                "ImageOrientationPatient": tuple(map(float, orientation)),
                "SOPInstanceUID": f"1.2.3.4.{k}",
                "InstanceNumber": n - k,
                **values,
            },
        )
        for k, position in enumerate(positions)
    ]


def axial(heights, **values):
    """Return axial slices at these heights."""
    return stack([(-10.0, -20.0, z) for z in heights], **values)


def dataset(pixels=None, **values) -> Dataset:
    """Return a CT slice as a dataset; None leaves an element out."""
    made = Dataset()
    for keyword, value in (IMAGE | values).items():
        if value is not None:
            setattr(made, keyword, list(value) if isinstance(value, tuple) else value)
    made.PixelData = np.arange(20, dtype="<u2").tobytes() if pixels is None else pixels
    return made


def with_nested_spacing(made: Dataset) -> Dataset:
    """Add, before group 0028, nested sequences of undefined length with a spacing and pixels of their own."""
    inner, outer = Dataset(), Dataset()
    inner.PixelSpacing = [9.0, 9.0]
    inner.Rows = 99
    inner.PixelData = bytes(8)
    inner["PixelData"].VR = "OW"
    outer.IconImageSequence = Sequence([inner])
    outer.ReferencedSOPInstanceUID = "1.2.3.4.5"
    made.ReferencedImageSequence = Sequence([outer, Dataset()])
    for element, items in ((made["ReferencedImageSequence"], made.ReferencedImageSequence), (outer[0x00880200], ())):
        element.is_undefined_length = True
        for item in items:
            item.is_undefined_length_sequence_item = True
    return made


def file_bytes(made: Dataset, *, syntax=EXPLICIT, preamble=True) -> bytes:
    """Return the file of a dataset; its pixels are in the byte order of the syntax."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2.3.4")
    if "PixelData" in made:
        made["PixelData"].VR = "OW"
        if syntax == JPEG_LS:
            made["PixelData"].is_undefined_length = True
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    content = buffer.getvalue()
    if preamble:
        return content
    # 128 bytes, DICM, (0002,0000) of 12 bytes whose value is the length of the rest of group 2
    return content[144 + struct.unpack_from("<I", content, 140)[0] :]


def write(path, made=None, **options) -> str:
    """Write a dataset, by default a CT slice, and return its path."""
    path.write_bytes(file_bytes(dataset() if made is None else made, **options))
    return str(path)


def raw_element(group, number, vr, value, *, order="<") -> bytes:
    """Return an explicit element, long form where its VR has one."""
    if vr in (b"UR", b"UC", b"UT", b"OB", b"UN"):
        return struct.pack(order + "HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack(order + "HH2sH", group, number, vr, len(value)) + value


def examples(n):
    """Return the settings of a property: n examples, however slow the machine is just now."""
    tolerated = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=n, deadline=None, suppress_health_check=tolerated)


def rotations():
    """Return a strategy of (3, 3) rotation matrices: rows of unit length, right-handed."""

    def matrix(q):
        w, x, y, z = np.asarray(q) / np.linalg.norm(q)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )

    part = st.floats(-1, 1)
    return st.tuples(part, part, part, part).filter(lambda q: np.linalg.norm(q) > 0.1).map(matrix)


def points(limit=500.0):
    """Return a strategy of positions, mm."""
    part = st.floats(-limit, limit)
    return st.tuples(part, part, part)


__all__ = [
    "BIG_ENDIAN",
    "CT",
    "DEFLATED",
    "EXPLICIT",
    "IMAGE",
    "IMPLICIT",
    "JPEG_LS",
    "MR",
    "PT",
    "axial",
    "dataset",
    "elements",
    "encoded",
    "examples",
    "file_bytes",
    "instance",
    "points",
    "raw_element",
    "rotations",
    "stack",
    "tag",
    "with_nested_spacing",
    "write",
]
