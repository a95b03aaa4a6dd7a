"""A transfer syntax that nothing here can decode is refused when its file is opened, by name, with what to do."""

from __future__ import annotations

import re
import zlib

import encoded_made as em
import pydicom
import pytest
from encoded_made import Layout, stored_for, write_encoded
from pydicom.uid import UID

import lazyvol as lv
from lazyvol.errors import DicomReadError, UnsupportedSeriesError

JPEG = "1.2.840.10008.1.2.4"
MPEG = [f"{JPEG}.{n}" for n in (*range(100, 108), "100.1", "101.1", "102.1", "103.1", "104.1", "105.1", "106.1")]
JPEG_XL = [f"{JPEG}.{n}" for n in (110, 111, 112)]
JPIP, JPIP_DEFLATED = f"{JPEG}.94", f"{JPEG}.95"
SMPTE = [f"1.2.840.10008.1.2.7.{n}" for n in (1, 2, 3)]
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
PRIVATE = "1.2.826.0.1.3680043.8.498.1"
SYNTAXES = [*MPEG, *JPEG_XL, JPIP, *SMPTE, DEFLATED_FRAMES, PRIVATE]


SINCE_2024 = {
    f"{JPEG}.110": "JPEG XL Lossless",
    f"{JPEG}.111": "JPEG XL JPEG Recompression",
    f"{JPEG}.112": "JPEG XL",
    DEFLATED_FRAMES: "Deflated Image Frame Compression",
}
"""Names of DICOM PS3.6 table A-1 that pydicom 3.0 does not know yet."""


def name_of(syntax):
    """Return the name of a syntax; of a private one, its number."""
    return SINCE_2024.get(syntax, UID(syntax).name)


def write_with(path, syntax, **values):
    """Write a file whose frame no codec here understands."""
    layout = Layout(syntax, 8)
    return write_encoded(path, stored_for(layout), layout, encode=lambda _frame: b"not pixels", **values)


@pytest.fixture(params=SYNTAXES, ids=name_of)
def refused(request, tmp_path):
    return request.param, write_with(tmp_path / "made.dcm", request.param)


def test_the_file_is_refused_at_open(refused):
    _, path = refused
    with pytest.raises(UnsupportedSeriesError):
        lv.open_volume(path)


def message_of(path):
    with pytest.raises(UnsupportedSeriesError) as caught:
        lv.open_volume(path)
    return str(caught.value)


def test_the_message_names_file_and_syntax(refused):
    syntax, path = refused
    said = message_of(path)
    assert path.name in said
    assert re.search(rf"{re.escape(syntax)}(?![.\d])", said)
    assert name_of(syntax) in said


def test_the_message_says_what_to_do(refused):
    _, path = refused
    assert re.search(r"\b(?:convert|install)\b", message_of(path), re.IGNORECASE)


def test_a_folder_of_such_files_is_refused_at_open_too(tmp_path):
    for number in (1, 2):
        write_with(tmp_path / f"{number}.dcm", MPEG[0], SOPInstanceUID=f"1.2.3.4.{number}", InstanceNumber=number)
    with pytest.raises(UnsupportedSeriesError, match=re.escape(MPEG[0])):
        lv.open_volume(tmp_path)


def without_pixels(path, syntax):
    """Write a file whose pixels lie at a server (DICOM PS3.5 A.6)."""
    layout = Layout(em.EXPLICIT, 8)
    write_encoded(path, stored_for(layout), layout, PixelDataProviderURL="http://nowhere/1")
    made = pydicom.dcmread(path)
    del made.PixelData
    made.file_meta.TransferSyntaxUID = UID(syntax)
    pydicom.dcmwrite(path, made, enforce_file_format=True, little_endian=True, implicit_vr=False)
    return path


def test_pixels_at_a_server_are_refused_by_name(tmp_path):
    path = without_pixels(tmp_path / "made.dcm", JPIP)
    with pytest.raises(DicomReadError, match=re.escape(JPIP)):
        lv.open_volume(path)


def test_pixels_at_a_server_with_a_deflated_header_are_refused_by_name(tmp_path):
    path = without_pixels(tmp_path / "made.dcm", JPIP_DEFLATED)
    content = path.read_bytes()
    begin = 144 + int.from_bytes(content[140:144], "little")  # after group 2
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(content[:begin] + deflate.compress(content[begin:]) + deflate.flush())
    with pytest.raises(DicomReadError, match=re.escape(JPIP_DEFLATED)):
        lv.open_volume(path)
