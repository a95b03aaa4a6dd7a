"""What a scan finds in files of every kind, and that it never stumbles over one."""

import contextlib
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_LS,
    dataset,
    examples,
    file_bytes,
    raw_element,
    with_nested_spacing,
    write,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

import lazyvol as lv
from lazyvol.errors import DicomReadError, NoImagesError, PixelReadError, SourceNotFoundError
from lazyvol.scan import read_header, scan_headers

PIXELS = np.arange(1000, 1020, dtype="<u2")
FRAME = PIXELS.nbytes
SYNTAXES = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big endian": BIG_ENDIAN}


def image(syntax=EXPLICIT, **values) -> Dataset:
    """Return a CT slice whose pixels are in the byte order of the syntax."""
    return dataset(PIXELS.astype(">u2" if syntax == BIG_ENDIAN else "<u2").tobytes(), **values)


def only(scan):
    """Return the one Instance of a scan that skipped nothing."""
    (found,), skipped = scan.instances, scan.skipped
    assert not skipped
    return found


def reasons(scan):
    return [s.reason for s in scan.skipped]


def pixels_at(path, found):
    """Return the stored numbers that lie where an Instance says."""
    first = found.frames[0]
    order = "<" if found.pixels.little_endian else ">"
    return np.frombuffer(Path(path).read_bytes()[first.offset :][: first.length], order + "u2")


# Encodings


@pytest.mark.parametrize("preamble", [True, False], ids=["preamble", "none"])
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_pixels_lie_where_a_scan_says(tmp_path, syntax, preamble):
    path = write(tmp_path / "a", image(syntax), syntax=syntax, preamble=preamble)
    np.testing.assert_array_equal(pixels_at(path, only(scan_headers(path))), PIXELS)


@pytest.mark.parametrize("preamble", [True, False], ids=["preamble", "none"])
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_the_encoding_is_told_with_and_without_file_meta(tmp_path, syntax, preamble):
    path = write(tmp_path / "a", image(syntax), syntax=syntax, preamble=preamble)
    assert only(scan_headers(path)).pixels.transfer_syntax_uid == syntax


@pytest.mark.parametrize("syntax", [*SYNTAXES.values(), DEFLATED], ids=[*SYNTAXES, "deflated"])
def test_values_are_read_in_every_encoding(tmp_path, syntax):
    path = write(tmp_path / "a", image(syntax, Rows=4, ImagePositionPatient=(1.5, -2.5, 3)), syntax=syntax)
    found = only(scan_headers(path))
    first = found.frames[0]
    assert (found.uid, found.rows, found.number) == ("1.2.3.4", 4, 1)
    assert (first.position, first.pixel_spacing, first.intercept) == ((1.5, -2.5, 3.0), (0.8, 0.6), -1024.0)


def test_pixels_of_a_deflated_file_lie_in_what_it_inflates_to(tmp_path):
    path = write(tmp_path / "a", image(), syntax=DEFLATED)
    found = only(scan_headers(path))
    inflated = zlib.decompress(Path(path).read_bytes()[found.inflated_from :], -15)
    stored = np.frombuffer(inflated[found.frames[0].offset :][: found.frames[0].length], "<u2")
    np.testing.assert_array_equal(stored, PIXELS)


def test_compressed_pixels_begin_at_their_element(tmp_path):
    made = dataset(encapsulate([b"\xff\xd8 a frame"]))
    path = write(tmp_path / "a", made, syntax=JPEG_LS)
    first = only(scan_headers(path)).frames[0]
    items = Path(path).read_bytes()[first.offset :][: first.length]
    assert items == b"\xfe\xff\x00\xe0\x0a\x00\x00\x00\xff\xd8 a frame"


def test_pixels_of_bytes_have_the_short_or_long_form(tmp_path):
    made = dataset(bytes(range(20)), BitsAllocated=8, BitsStored=8, HighBit=7)
    path = write(tmp_path / "a", made)
    first = only(scan_headers(path)).frames[0]
    assert Path(path).read_bytes()[first.offset :][: first.length] == bytes(range(20))


def test_a_file_with_data_set_trailing_padding_is_whole(tmp_path):
    made = image()
    made.add_new(0xFFFCFFFC, "OB", bytes(64))
    assert only(scan_headers(write(tmp_path / "a", made))).missing_bytes == 0


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_float_pixels_are_named_and_lie_where_a_scan_says(tmp_path, keyword):
    made = dataset()
    del made.PixelData
    numbers = np.arange(20, dtype="<f4" if keyword[0] == "F" else "<f8")
    setattr(made, keyword, numbers.tobytes())
    made.BitsAllocated = made.BitsStored = 8 * numbers.itemsize
    found = only(scan_headers(write(tmp_path / "a", made)))
    first = found.frames[0]
    assert found.pixels.element == keyword
    assert (tmp_path / "a").read_bytes()[first.offset :][: first.length] == numbers.tobytes()


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_spacing_and_pixels_inside_a_sequence_are_not_those_of_the_image(tmp_path, syntax):
    path = write(tmp_path / "a", with_nested_spacing(image(syntax)), syntax=syntax)
    found = only(scan_headers(path))
    assert (found.rows, found.frames[0].pixel_spacing) == (4, (0.8, 0.6))
    np.testing.assert_array_equal(pixels_at(path, found), PIXELS)


@pytest.mark.parametrize(
    ("number", "vr"),
    [(0x0120, b"UR"), (0x0119, b"UC"), (0x0121, b"UT"), (0x0122, b"UN"), (0x0123, b"OB")],
    ids=["UR", "UC", "UT", "UN", "OB"],
)
@pytest.mark.parametrize("length", [6, 70_000], ids=["short", "long"])
def test_long_elements_before_the_image_are_passed_over(tmp_path, number, vr, length):
    content = file_bytes(image())
    at = content.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    path = tmp_path / "a"
    path.write_bytes(content[:at] + raw_element(0x0009, number, vr, b"x" * length) + content[at:])
    found = only(scan_headers(path))
    assert (found.rows, found.frames[0].pixel_spacing) == (4, (0.8, 0.6))
    np.testing.assert_array_equal(pixels_at(path, found), PIXELS)


def test_a_private_sequence_of_unknown_vr_is_passed_over(tmp_path):
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack("<HHI", 0x0028, 0x0030, 4) + b"9\\9 "
    ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    unknown = struct.pack("<HH2sHI", 0x0019, 0x1010, b"UN", 0, 0xFFFFFFFF) + item + ends
    content = file_bytes(image())
    at = content.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    path = tmp_path / "a"
    path.write_bytes(content[:at] + unknown + content[at:])
    assert only(scan_headers(path)).frames[0].pixel_spacing == (0.8, 0.6)


def test_a_description_is_decoded(tmp_path):
    made = image(SeriesDescription="Schädel Übersicht")
    made.SpecificCharacterSet = "ISO_IR 192"
    assert only(scan_headers(write(tmp_path / "a", made))).description == "Schädel Übersicht"


def test_a_description_that_cannot_be_decoded_does_not_lose_the_image(tmp_path):
    content = file_bytes(image(SeriesDescription="Schaedel"))
    path = tmp_path / "a"
    path.write_bytes(content.replace(b"Schaedel", b"Sch\xe4del\xff"))
    assert only(scan_headers(path)).rows == 4


@pytest.mark.parametrize("encoding", ["ISO_IR 999", "ISO 2022 IR 87", "?"])
def test_an_unknown_character_set_does_not_lose_the_image(tmp_path, encoding):
    content = file_bytes(image(SpecificCharacterSet="ISO_IR 192", SeriesDescription="Ü" * 4))
    path = tmp_path / "a"
    padded = encoding.ljust(10).encode()
    path.write_bytes(content.replace(struct.pack("<H", 10) + b"ISO_IR 192", struct.pack("<H", len(padded)) + padded))
    assert only(scan_headers(path)).rows == 4


# What is no image


@pytest.mark.parametrize("name", ["a.dcm", "a.jpg", "a", ".hidden", "notes.txt", "ü $(x) [*].dcm"])
def test_files_are_told_by_content_whatever_their_name(tmp_path, name):
    assert only(scan_headers(write(tmp_path / name))).path == str(tmp_path / name)


OTHERS = {
    "text": (b"These are notes on the scan. " * 20, "not DICOM: no DICM marker", False),
    "short text": (b"x", "not DICOM: no DICM marker", False),
    "empty": (b"", "it is empty", True),
    "zip": (b"PK\3\4" + bytes(200), "not DICOM: no DICM marker", False),
    "zeros": (bytes(500), "it begins with zeros", True),
    "rubbish": (bytes(8) + b"x" * 300, "not DICOM: no DICM marker", False),
    "other marker": (bytes(128) + b"DICK" + bytes(100), "not DICOM: no DICM marker", False),
}


@pytest.mark.parametrize(("content", "reason", "damaged"), OTHERS.values(), ids=OTHERS)
def test_what_is_not_dicom_is_skipped_with_the_reason(tmp_path, content, reason, damaged):
    (tmp_path / "image.dcm").write_bytes(content)
    (skipped,) = scan_headers(tmp_path).skipped
    assert (skipped.path, skipped.damaged) == (str(tmp_path / "image.dcm"), damaged)
    assert reason in skipped.reason


@pytest.mark.parametrize("content", [content for content, _, _ in OTHERS.values()], ids=OTHERS)
def test_what_is_not_dicom_does_not_hide_the_images(tmp_path, content):
    (tmp_path / "AAA.txt").write_bytes(content)
    write(tmp_path / "b.dcm")
    scan = scan_headers(tmp_path)
    assert (len(scan.instances), len(scan.skipped)) == (1, 1)


def without_pixels(**values):
    made = image(**values)
    del made.PixelData
    return made


def report():
    made = without_pixels(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR", **dict.fromkeys(("Rows", "Columns"))
    )
    made.ContentSequence = Sequence([Dataset()])
    return made


def directory():
    made = Dataset()
    made.SOPClassUID = "1.2.840.10008.1.3.10"
    made.SOPInstanceUID = "1.2.3"
    made.FileSetID = "SET"
    made.DirectoryRecordSequence = Sequence([Dataset()])
    return made


@pytest.mark.parametrize(
    ("made", "reason", "damaged"),
    [
        (report(), "no pixels: Basic Text SR", False),
        (directory(), "a DICOMDIR", False),
        (without_pixels(), "cut short: a CT Image Storage", True),
        (without_pixels(Rows=None), "no pixels: CT Image Storage", True),
        (image(Rows=None), "lacks Rows", True),
        (image(BitsStored=20), "BitsStored 20 exceeds", True),
    ],
    ids=["report", "DICOMDIR", "no pixels", "no size", "no rows", "bits"],
)
def test_dicom_without_an_image_is_skipped_with_the_reason(tmp_path, made, reason, damaged):
    write(tmp_path / "a", made)
    (skipped,) = scan_headers(tmp_path).skipped
    assert reason in skipped.reason
    assert skipped.damaged is damaged


def test_a_file_that_cannot_be_opened_is_skipped_with_the_reason(tmp_path):
    os.symlink(tmp_path / "gone", tmp_path / "link")
    (skipped,) = scan_headers(tmp_path).skipped
    assert (skipped.reason, skipped.damaged) == ("cannot be opened: No such file or directory", True)


def test_reasons_hold_nothing_of_the_patient(tmp_path):
    made = without_pixels(PatientName="Secret^Person", PatientID="SECRET-1", PatientBirthDate="19010203")
    content = file_bytes(made)
    for n in range(0, len(content), 7):
        (tmp_path / f"{n}").write_bytes(content[:n])
    assert not re.search("SECRET|Secret|19010203", str(scan_headers(tmp_path).skipped))


# Damaged files


def pieces(folder, content, ends):
    """Write the file cut off at each of the ends, and scan them."""
    folder.mkdir()
    for end in ends:
        (folder / f"{end:05d}").write_bytes(content[:end])
    return scan_headers(folder)


@pytest.mark.parametrize("preamble", [True, False], ids=["preamble", "none"])
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_a_file_cut_off_anywhere_in_its_header_is_skipped(tmp_path, syntax, preamble):
    content = file_bytes(image(syntax), syntax=syntax, preamble=preamble)
    scan = pieces(tmp_path / "cut", content, range(len(content) - FRAME))
    assert not scan.instances
    assert all(reasons(scan))


def test_a_deflated_file_cut_off_in_its_header_is_skipped(tmp_path):
    made = image()
    made.add_new(
        0x00091001, "OB", np.random.default_rng(0).bytes(4000)
    )  # does not deflate, so it ends far into the file
    content = file_bytes(made, syntax=DEFLATED)
    scan = pieces(tmp_path / "cut", content, range(0, 4000, 50))
    assert not scan.instances
    assert all(reasons(scan))


def test_a_deflated_file_cut_off_in_its_pixels_is_an_error_when_they_are_read(tmp_path):
    content = file_bytes(image(), syntax=DEFLATED)
    path = tmp_path / "cut"
    path.write_bytes(content[:-8])
    with pytest.raises(PixelReadError, match=r"cut is cut short or damaged: .* does not hold frame 1 whole"):
        lv.open_volume(path).compute()


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_a_file_cut_off_in_its_pixels_says_how_much_is_missing(tmp_path, syntax):
    content = file_bytes(image(syntax), syntax=syntax)
    scan = pieces(tmp_path / "cut", content, range(len(content) - FRAME, len(content) + 1))
    assert [i.missing_bytes for i in scan.instances] == list(range(FRAME, -1, -1))


def test_a_file_cut_off_inside_a_sequence_is_skipped(tmp_path):
    content = file_bytes(with_nested_spacing(image()))
    scan = pieces(tmp_path / "cut", content, range(132, len(content) - FRAME))
    assert not scan.instances


def test_a_header_cut_off_after_the_size_is_damaged(tmp_path):
    content = file_bytes(image())
    (skipped,) = pieces(tmp_path / "cut", content, [len(content) - FRAME - 20]).skipped
    assert skipped.damaged


@examples(300)
@given(
    st.one_of(
        st.binary(max_size=600),
        st.binary(max_size=400).map(lambda tail: bytes(128) + b"DICM" + tail),
        st.binary(max_size=400).map(lambda tail: b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + tail),
        st.binary(max_size=400).map(lambda tail: b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100" + tail),
    )
)
def test_random_bytes_are_skipped_and_never_raise(scratch, content):
    scratch.write_bytes(content)
    scan = scan_headers(scratch)
    assert len(scan.instances) + len(scan.skipped) == 1


WHOLE = {syntax: file_bytes(with_nested_spacing(image(syntax)), syntax=syntax) for syntax in SYNTAXES.values()}


@examples(400)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
)
def test_an_image_with_damaged_bytes_never_raises(scratch, syntax, changes):
    content = bytearray(WHOLE[syntax])
    for at, new in changes:
        begin = at % len(content)
        content[begin : begin + len(new)] = new
    scratch.write_bytes(content)
    scan = scan_headers(scratch)
    assert len(scan.instances) + len(scan.skipped) == 1


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A file that each example writes anew."""
    return tmp_path_factory.mktemp("scratch") / "file"


# Folders


def test_files_come_by_path(tmp_path):
    for name in ("b/2", "a/1", "c", "b/10"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, image(SOPInstanceUID=f"1.{len(name)}.{ord(name[-1])}"))
    assert [os.path.relpath(i.path, tmp_path) for i in scan_headers(tmp_path).instances] == ["a/1", "b/10", "b/2", "c"]


def test_folders_inside_can_be_left_out(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner" / "a")
    write(tmp_path / "b")
    assert only(scan_headers(tmp_path, recursive=False)).path == str(tmp_path / "b")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_may_be_text_or_path(tmp_path, kind):
    assert only(scan_headers(kind(write(tmp_path / "a")))).path == str(tmp_path / "a")


def test_a_list_may_mix_files_folders_and_datasets(tmp_path):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a")
    scan = scan_headers([write(tmp_path / "b"), tmp_path / "folder", dataset()])
    assert [os.path.basename(i.path) for i in scan.instances] == ["b", "a", "dataset[2]"]


def test_a_generator_of_paths_is_a_list_of_paths(tmp_path):
    assert len(scan_headers(p for p in [write(tmp_path / "a"), write(tmp_path / "b")]).instances) == 2


@pytest.mark.parametrize("empty", [[], "folder"], ids=["list", "folder"])
def test_nothing_at_all_is_an_error(tmp_path, empty):
    with pytest.raises(NoImagesError, match="holds no file"):
        scan_headers(empty and tmp_path)


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: [p], lambda p: f"memory:/{p}"], ids=["path", "list", "URL"])
def test_a_path_that_does_not_exist_is_an_error(tmp_path, wrap):
    with pytest.raises(SourceNotFoundError, match="gone does not exist"):
        scan_headers(wrap(f"{tmp_path}/gone"))


@pytest.mark.parametrize("marker", ["zarr.json", ".zgroup", ".zarray"])
def test_zarr_stores_are_not_walked(tmp_path, marker):
    store = tmp_path / "volume.zarr" / "c"
    store.mkdir(parents=True)
    (store.parent / marker).write_text("{}")
    write(store / "0")
    write(tmp_path / "a")
    assert only(scan_headers(tmp_path)).path == str(tmp_path / "a")


@pytest.mark.parametrize("target", ["..", "."], ids=["up", "same"])
def test_links_that_lead_back_are_not_followed_for_ever(tmp_path, target):
    inner = tmp_path / "inner"
    inner.mkdir()
    write(inner / "a")
    os.symlink(target, inner / "back")
    assert only(scan_headers(tmp_path)).path == str(inner / "a")


def test_folders_that_link_to_each_other_are_each_searched_once(tmp_path):
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / name)
        os.symlink(tmp_path / other, tmp_path / name / "other")
    names = [os.path.basename(i.path) for i in scan_headers(tmp_path).instances]
    assert sorted(names) == ["one", "two"]


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    write(tmp_path / "real" / "a")
    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "folder" / "link")
    assert len(scan_headers(tmp_path / "folder").instances) == 1


def test_a_link_to_itself_is_skipped(tmp_path):
    os.symlink("loop", tmp_path / "loop")
    write(tmp_path / "a")
    scan = scan_headers(tmp_path)
    assert (len(scan.instances), len(scan.skipped)) == (1, 1)


def test_a_folder_that_may_not_be_listed_does_not_hide_the_others(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    write(tmp_path / "a")
    real = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    scan = scan_headers(tmp_path)
    assert (len(scan.instances), [os.path.basename(s.path) for s in scan.skipped]) == (1, ["closed"])


def test_a_named_pipe_does_not_stop_a_scan(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "a")
    ask = f"import lazyvol as lv; s = lv.scan_headers({str(tmp_path)!r}); print(len(s.instances), s.skipped[0].reason)"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout == "1 no regular file\n"


# URLs


@pytest.fixture
def memory():
    """An fsspec file system in memory, emptied afterwards."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_a_url_is_scanned_as_a_folder(memory):
    for name, uid in (("b/2", "1.2"), ("a/1", "1.1")):
        memory.pipe_file(f"/series/{name}", file_bytes(image(SOPInstanceUID=uid)))
    memory.pipe_file("/series/notes.txt", b"notes")
    scan = scan_headers("memory://series")
    assert [i.path for i in scan.instances] == ["memory:///series/a/1", "memory:///series/b/2"]
    assert [s.path for s in scan.skipped] == ["memory:///series/notes.txt"]


def test_folders_inside_a_url_can_be_left_out(memory):
    memory.pipe_file("/series/a/1", file_bytes(image()))
    memory.pipe_file("/series/2", file_bytes(image()))
    assert only(scan_headers("memory://series", recursive=False)).path == "memory:///series/2"


def test_a_url_of_a_file_is_that_file(memory):
    memory.pipe_file("/a", file_bytes(image()))
    found = only(scan_headers("memory://a"))
    assert (found.path, found.size) == ("memory://a", len(file_bytes(image())))


def test_a_url_that_was_written_anew_is_told_from_before(memory):
    memory.pipe_file("/a", file_bytes(image()))
    before = only(scan_headers("memory://a")).modified
    memory.pipe_file("/a", file_bytes(image(ImagePositionPatient=(0, 0, 1))))
    assert only(scan_headers("memory://a")).modified != before


def test_zarr_stores_inside_a_url_are_not_walked(memory):
    memory.pipe_file("/series/v.zarr/zarr.json", b"{}")
    memory.pipe_file("/series/v.zarr/c/0", file_bytes(image()))
    memory.pipe_file("/series/1", file_bytes(image()))
    assert only(scan_headers("memory://series")).path == "memory:///series/1"


def test_the_header_of_a_url_is_read(memory):
    memory.pipe_file("/a", file_bytes(image()))
    assert read_header("memory://a").Rows == 4


# Datasets in memory


def test_a_dataset_in_memory_is_read_as_its_file_would_be(tmp_path):
    (from_memory,) = scan_headers([image()]).instances
    (from_file,) = scan_headers(write(tmp_path / "a", image())).instances
    assert (from_memory.frames[0].position, from_memory.values) == (from_file.frames[0].position, from_file.values)


@pytest.mark.parametrize("syntax", [*SYNTAXES.values(), DEFLATED], ids=[*SYNTAXES, "deflated"])
def test_a_dataset_that_was_read_keeps_its_encoding(syntax):
    made = pydicom.dcmread(io.BytesIO(file_bytes(image(syntax), syntax=syntax)))
    assert only(scan_headers([made])).pixels.transfer_syntax_uid == syntax


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_pixels_of_a_dataset_lie_in_its_content(syntax):
    made = pydicom.dcmread(io.BytesIO(file_bytes(image(syntax), syntax=syntax)))
    found = only(scan_headers([made]))
    order = "<" if found.pixels.little_endian else ">"
    stored = np.frombuffer(found.content[found.frames[0].offset :][:FRAME], order + "u2")
    np.testing.assert_array_equal(stored, PIXELS)


def test_a_dataset_without_file_meta_is_read():
    made = image()
    assert not hasattr(made, "file_meta")
    assert only(scan_headers(made)).path == "dataset[0]"


def test_a_dataset_is_not_changed():
    made = image()
    made["PixelData"].VR = "OW"
    before = made.to_json()
    scan_headers([made])
    assert made.to_json() == before
    assert not hasattr(made, "file_meta")


def test_a_dataset_read_from_a_file_without_meta_keeps_its_numbers():
    content = file_bytes(image(BIG_ENDIAN), syntax=BIG_ENDIAN, preamble=False)
    made = pydicom.dcmread(io.BytesIO(content), force=True)
    found = only(scan_headers([made]))
    order = "<" if found.pixels.little_endian else ">"
    stored = np.frombuffer(found.content[found.frames[0].offset :][:FRAME], order + "u2")
    np.testing.assert_array_equal(stored, PIXELS)


def test_a_dataset_that_cannot_be_written_is_an_error():
    made = image()
    made.SOPClassUID = ""
    made[0x00280030] = pydicom.DataElement(0x00280030, "SQ", Sequence([Dataset()]))
    made.add_new(0x00081140, "SQ", Sequence([Dataset()]))
    made.PixelData = "text is no pixel data"
    with pytest.raises(DicomReadError, match=r"dataset 1 of the list cannot be encoded"):
        scan_headers([image(), made])


# Copies


def test_only_files_that_share_a_uid_have_a_digest(tmp_path):
    for name, uid in (("a", "1.1"), ("b", "1.1"), ("c", "1.2")):
        write(tmp_path / name, image(SOPInstanceUID=uid))
    assert [bool(i.digest) for i in scan_headers(tmp_path).instances] == [True, True, False]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda content: content, True),
        (lambda content: content[:-FRAME] + bytes(FRAME), True),
        (lambda content: content[:-2], False),
        (lambda content: content.replace(b"0.8\\0.6", b"0.8\\0.7"), False),
    ],
    ids=["copy", "other pixels", "fewer pixels", "other header"],
)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_digests_agree_where_header_and_pixel_length_do(tmp_path, change, same, syntax):
    content = file_bytes(image(), syntax=syntax)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(change(content))
    one, other = scan_headers(tmp_path).instances
    assert (one.digest == other.digest) is same


def test_the_digest_is_the_same_in_memory_and_under_another_name(tmp_path):
    (tmp_path / "a").write_bytes(file_bytes(image()))
    shutil.copy(tmp_path / "a", tmp_path / "b")
    first, _ = scan_headers(tmp_path).instances
    shutil.move(tmp_path / "a", tmp_path / "z")
    assert {i.digest for i in scan_headers(tmp_path).instances} == {first.digest}


# How it reads


def test_the_time_of_the_last_change_is_kept(tmp_path):
    path = write(tmp_path / "a")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    assert only(scan_headers(path)).modified == 1_234_567_890_123_456_789


def test_each_file_is_opened_once(tmp_path, monkeypatch):
    for n in range(3):
        write(tmp_path / f"{n}", image(SOPInstanceUID=f"1.{n}"))
    opened = []

    def counting(real):
        return lambda file, *args, **options: (opened.append(os.path.basename(file)), real(file, *args, **options))[1]

    monkeypatch.setattr("os.open", counting(os.open))
    monkeypatch.setattr("builtins.open", counting(open))
    scan_headers(tmp_path)
    assert opened == ["0", "1", "2"]


BYTES_READ = """
import lazyvol as lv
def read():
    return int(next(line for line in open("/proc/self/io") if line.startswith("rchar")).split()[1])
lv.scan_headers({one!r})
before = read()
found = lv.scan_headers({folder!r})
print(len(found.instances), read() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="the kernel does not count bytes")
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, JPEG_LS], ids=["explicit", "implicit", "compressed"])
def test_a_scan_reads_no_pixels(tmp_path, syntax):
    rows, n = 1024, 5
    plane = bytes(rows * rows * 2)
    made = encapsulate([plane]) if syntax == JPEG_LS else plane
    for k in range(n):
        write(tmp_path / f"{k}", dataset(made, SOPInstanceUID=f"1.{k}", Rows=rows, Columns=rows), syntax=syntax)
    script = BYTES_READ.format(one=str(tmp_path / "0"), folder=str(tmp_path))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    count, read = map(int, run.stdout.split())
    assert count == n
    assert read < n * 2**17 + 2**14, "a buffer of at most 128 kB for each file, of 2 MB"


def open_files():
    return {
        os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")
    }


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the kernel does not list open files")
def test_no_file_stays_open(tmp_path):
    content = file_bytes(image())
    for end in (0, 10, 200, 600, len(content) - 5, len(content)):
        (tmp_path / f"{end}").write_bytes(content[:end])
    shutil.copy(tmp_path / f"{len(content)}", tmp_path / "copy")
    scan_headers(tmp_path)
    for path in tmp_path.iterdir():
        with contextlib.suppress(DicomReadError):
            read_header(path)
    assert not [path for path in open_files() if path.startswith(str(tmp_path))]


@pytest.mark.parametrize("call", ["lv.scan_headers(folder)", "[try_header(p) for p in sorted(os.listdir(folder))]"])
def test_nothing_is_printed_or_logged(tmp_path, call):
    content = file_bytes(with_nested_spacing(image(PatientBirthDate="19010203", SeriesDescription="Ü")))
    content = content.replace(b"19010203", b"no date ")
    for end in (0, 10, 150, 400, len(content) - 60, len(content) - 5, len(content)):
        (tmp_path / f"{end}").write_bytes(content[:end])
    (tmp_path / "notes").write_bytes(b"notes" * 100)
    (tmp_path / "vr").write_bytes(content.replace(b"DS", b"\x01\x02"))
    (tmp_path / "uid").write_bytes(content.replace(b"1.2.3.4", b"1.2.x.4"))
    script = f"""
import os, lazyvol as lv
folder = {str(tmp_path)!r}
def try_header(name):
    try: lv.read_header(os.path.join(folder, name))
    except lv.LazyvolError: pass
{call}
"""
    run = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert (run.stdout, run.stderr) == ("", "")


# The whole header


def test_the_whole_header_has_what_was_written(tmp_path):
    header = read_header(write(tmp_path / "a", image(PatientName="Fictitious^Phantom")))
    assert (header.PatientName, header.Rows, "PixelData" in header) == ("Fictitious^Phantom", 4, False)


@pytest.mark.parametrize("syntax", [*SYNTAXES.values(), DEFLATED], ids=[*SYNTAXES, "deflated"])
def test_the_whole_header_is_read_in_every_encoding(tmp_path, syntax):
    assert read_header(write(tmp_path / "a", image(syntax), syntax=syntax)).PixelSpacing == [0.8, 0.6]


def test_the_header_of_a_file_without_preamble_is_read(tmp_path):
    assert read_header(write(tmp_path / "a", image(), preamble=False)).Rows == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty. Give a DICOM file"),
        (b"notes" * 100, "not DICOM"),
        (file_bytes(dataset())[: -FRAME - 2], "cannot be read: "),
    ],
    ids=["empty", "text", "cut off"],
)
def test_the_header_of_what_is_not_dicom_is_an_error(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DicomReadError, match=message):
        read_header(tmp_path / "a")


def test_the_header_of_a_folder_is_an_error(tmp_path):
    with pytest.raises(DicomReadError, match="is a folder"):
        read_header(tmp_path)


def test_the_header_of_nothing_is_an_error(tmp_path):
    with pytest.raises(SourceNotFoundError, match="gone does not exist"):
        read_header(tmp_path / "gone")


def test_the_header_of_a_broken_link_is_an_error(tmp_path):
    os.symlink(tmp_path / "gone", tmp_path / "link")
    with pytest.raises(DicomReadError, match="cannot be opened: No such file"):
        read_header(tmp_path / "link")


def test_a_scan_and_a_header_name_the_same_class(tmp_path):
    path = write(tmp_path / "a")
    assert only(scan_headers(path)).sop_class_uid == read_header(path).SOPClassUID == CT


def test_a_header_with_file_meta_only_is_no_image(tmp_path):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = EXPLICIT
    made.file_meta.MediaStorageSOPClassUID = CT
    made.file_meta.MediaStorageSOPInstanceUID = "1.2"
    pydicom.dcmwrite(tmp_path / "a", made, enforce_file_format=True)
    assert scan_headers(tmp_path / "a").skipped[0].damaged
