"""Frames: every stored number comes back as the value that was written, or an error says which file and frame."""

from __future__ import annotations

import shutil

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from lazyvol import scan_headers
from lazyvol.errors import PixelRangeError, PixelReadError
from lazyvol.frames import read_frames
from lazyvol.rescale import Scale
from lazyvol.sources import FrameSource, FrameSources, FrameTable

STORED = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]


def write_frames(path, stored, *, bits_stored=None, syntax=ExplicitVRLittleEndian, encoded=None, **elements):
    """Write stored numbers of shape (frames, rows, columns), or their ``encoded`` pixel element, as one file."""
    bits = stored.dtype.itemsize * 8
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = dataset.StudyInstanceUID = "1.2.3"
    dataset.Modality = "OT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored = bits, bits_stored or bits
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    content = stored.astype(stored.dtype.newbyteorder(">")) if syntax == ExplicitVRBigEndian else stored
    dataset.PixelData = encoded or content.tobytes() + b"\0" * (content.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 or encoded else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def table_of(path, dtype):
    """Return the frames of one file, or of several in the order given."""
    paths = path if isinstance(path, list) else [path]
    instances = [i for p in paths for i in scan_headers(p).instances]
    sources = tuple(
        FrameSource(
            *(i.path, f.index, len(i.frames), f.offset, f.length, i.pixels, Scale(f.slope, f.intercept)),
            inflated_from=i.inflated_from,
        )
        for i in instances
        for f in i.frames
    )
    return FrameTable("", FrameSources(sources), np.dtype(dtype).name)


def read_all(path, dtype):
    table = table_of(path, dtype)
    pixels = table.sources[0].pixels
    return read_frames(table, range(len(table.sources)), np.arange(pixels.rows), np.arange(pixels.columns))


def extremes(dtype, shape, rng, bits=None):
    """Return random numbers of so many bits, with the smallest and the largest among them."""
    dtype = np.dtype(dtype)
    bits = bits or dtype.itemsize * 8
    low = -(1 << bits - 1) if dtype.kind == "i" else 0
    numbers = rng.integers(low, low + (1 << bits), shape, dtype="int64").astype(dtype)
    numbers[0, 0, :2] = low, low + (1 << bits) - 1
    return numbers


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=str)
@pytest.mark.parametrize("dtype", STORED)
def test_uncompressed_numbers_come_back_as_written(tmp_path, rng, dtype, syntax):
    stored = extremes(dtype, (3, 5, 7), rng)
    path = write_frames(tmp_path / "a.dcm", stored, syntax=syntax)
    np.testing.assert_array_equal(read_all(path, dtype), stored, strict=True)


def test_8_bit_words_of_a_big_endian_file_are_unswapped(tmp_path, rng):
    stored = extremes("uint8", (1, 4, 6), rng)
    path = write_frames(tmp_path / "a.dcm", stored, syntax=ExplicitVRBigEndian)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path)
    np.testing.assert_array_equal(read_all(path, "uint8"), stored)


@pytest.mark.parametrize("bits", [1, 7, 12, 15])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32"])
def test_junk_in_unused_bits_is_no_part_of_the_value(tmp_path, rng, dtype, bits):
    stored = extremes(dtype, (2, 4, 6), rng, bits)
    unsigned = stored.view(stored.dtype.str.replace("i", "u"))
    junk = extremes(unsigned.dtype, stored.shape, rng) << bits
    path = write_frames(tmp_path / "a.dcm", (unsigned & ((1 << bits) - 1) | junk).view(stored.dtype), bits_stored=bits)
    np.testing.assert_array_equal(read_all(path, dtype), stored)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_junk_in_unused_bits_of_a_deflated_file_is_no_part_of_the_value(tmp_path, rng, dtype):
    stored = extremes(dtype, (1, 4, 6), rng, 12)
    packed = stored.view("uint16") & 0xFFF | 0xA000
    path = write_frames(tmp_path / "a.dcm", packed.view(dtype), bits_stored=12, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_all(path, dtype), stored)


def test_an_odd_number_of_bytes_is_read_without_its_padding(tmp_path, rng):
    stored = extremes("uint8", (1, 3, 5), rng)
    np.testing.assert_array_equal(read_all(write_frames(tmp_path / "a.dcm", stored), "uint8"), stored)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Three frames whose rows are 1200 bytes, so that some gaps between rows are read through and some not."""
    stored = np.arange(3 * 40 * 600, dtype="int32").astype("int16").reshape(3, 40, 600)
    return table_of(write_frames(tmp_path_factory.mktemp("wide") / "a.dcm", stored), "int16"), stored


def some_indices(length):
    return st.lists(st.integers(0, length - 1), max_size=8)


@settings(deadline=None, max_examples=150)
@given(which=some_indices(3), rows=some_indices(40), columns=some_indices(600))
def test_a_part_is_what_numpy_indexing_gives(wide, which, rows, columns):
    table, stored = wide
    indices = [np.array(i, dtype=np.intp) for i in (which, rows, columns)]
    np.testing.assert_array_equal(read_frames(table, *indices), stored[np.ix_(*indices)], strict=True)


@settings(deadline=None, max_examples=80)
@given(rows=st.slices(40), columns=st.slices(600))
def test_a_strided_or_reversed_part_is_what_numpy_slicing_gives(wide, rows, columns):
    table, stored = wide
    values = read_frames(table, [2, 0], np.arange(40)[rows], np.arange(600)[columns])
    np.testing.assert_array_equal(values, stored[[2, 0]][:, rows, columns])


@pytest.mark.parametrize("empty", range(3), ids=["no frame", "no row", "no column"])
def test_an_empty_selection_opens_no_file(wide, tmp_path, empty):
    table, _ = wide
    gone = FrameTable(str(tmp_path), table.sources, "int16")
    indices = [np.arange(2), np.arange(3), np.arange(4)]
    indices[empty] = np.arange(0)
    assert read_frames(gone, *indices).shape == tuple(map(len, indices))


@pytest.mark.parametrize(("slope", "intercept"), [(0.1, 0), (2.5, -1024.3), (1e-5, 7), (3.14159, 0.5)])
def test_fractional_slopes_give_the_float32_next_to_the_exact_value(tmp_path, rng, slope, intercept):
    stored = extremes("int16", (1, 8, 8), rng)
    path = write_frames(tmp_path / "a.dcm", stored, RescaleSlope=str(slope), RescaleIntercept=str(intercept))
    expected = (stored.astype("float64") * slope + intercept).astype("float32")
    np.testing.assert_array_equal(read_all(path, "float32"), expected, strict=True)


@pytest.mark.parametrize(
    ("stored_dtype", "slope", "intercept", "dtype"),
    [
        ("uint16", 1, -1024, "int32"),
        ("int16", 2, 0, "int32"),
        ("uint8", 3, -200, "int16"),
        ("int16", -1, 5, "int32"),
        ("uint8", -1, 255, "uint8"),
        ("uint16", 1, -32768, "int16"),
    ],
)
def test_integer_slopes_stay_integers(tmp_path, rng, stored_dtype, slope, intercept, dtype):
    stored = extremes(stored_dtype, (1, 8, 8), rng)
    path = write_frames(tmp_path / "a.dcm", stored, RescaleSlope=str(slope), RescaleIntercept=str(intercept))
    expected = (stored.astype("int64") * slope + intercept).astype(dtype)
    np.testing.assert_array_equal(read_all(path, dtype), expected, strict=True)


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_values_at_the_limits_of_the_dtype_pass(tmp_path, dtype):
    limits = np.iinfo(dtype)
    stored = np.array([[[limits.min, limits.max]]], dtype="int32")
    path = write_frames(tmp_path / "a.dcm", stored)
    np.testing.assert_array_equal(read_all(path, dtype), stored)


@pytest.mark.parametrize(
    ("stored", "value"), [([[[0, 32768]]], "32768"), ([[[-32769, 5]]], "-32769")], ids=["above", "below"]
)
def test_a_value_beyond_the_dtype_names_file_frame_value_and_remedy(tmp_path, stored, value):
    path = write_frames(tmp_path / "far.dcm", np.array(stored, dtype="int32"))
    with pytest.raises(PixelRangeError, match=rf'frame 1 of .*far\.dcm .* {value}, .*int16.*dtype="int32"'):
        read_all(path, "int16")


@pytest.mark.parametrize("dtype", ["int16", "int32"])
def test_an_integer_dtype_never_truncates_a_fractional_slope(tmp_path, dtype):
    path = write_frames(tmp_path / "a.dcm", np.array([[[2, 5, 100]]], dtype="uint16"), RescaleSlope="0.5")
    with pytest.raises(PixelRangeError):
        read_all(path, dtype)


def test_a_file_cut_short_since_the_scan_is_named(tmp_path, rng):
    path = write_frames(tmp_path / "short.dcm", extremes("int16", (1, 8, 8), rng))
    table = table_of(path, "int16")
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 10)
    with pytest.raises(PixelReadError, match=r"short\.dcm is cut short: frame 1 .*Copy the file again"):
        read_frames(table, [0], np.arange(8), np.arange(8))


def test_a_file_that_the_scan_found_short_is_named_with_both_lengths(tmp_path, rng):
    path = write_frames(tmp_path / "short.dcm", extremes("int16", (1, 8, 8), rng))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 10)
    with pytest.raises(PixelReadError, match="frame 1 has 118 of 128 bytes"):
        read_all(path, "int16")


def test_what_follows_a_short_pixel_element_is_not_taken_for_pixels(tmp_path, rng):
    stored = extremes("int16", (1, 8, 8), rng)
    padding = {"DataSetTrailingPadding": b"\7" * 100}
    path = write_frames(tmp_path / "short.dcm", stored, encoded=stored.tobytes()[:100], **padding)
    with pytest.raises(PixelReadError, match="frame 1 has 100 of 128 bytes"):
        read_all(path, "int16")


def test_rows_before_the_cut_of_a_short_file_are_read(tmp_path, rng):
    stored = extremes("int16", (1, 8, 8), rng)
    path = write_frames(tmp_path / "short.dcm", stored)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 10)
    np.testing.assert_array_equal(read_frames(table_of(path, "int16"), [0], np.arange(7), np.arange(8)), stored[:, :7])


@pytest.mark.parametrize("encoded", [False, True], ids=["uncompressed", "compressed"])
def test_a_file_deleted_since_the_scan_is_named(tmp_path, rng, encoded):
    path = write_frames(tmp_path / "gone.dcm", extremes("uint16", (1, 8, 8), rng))
    if encoded:
        compress(path)
    table = table_of(path, "uint16")
    path.unlink()
    with pytest.raises(PixelReadError, match=r"gone\.dcm cannot be read: No such file"):
        read_frames(table, [0], np.arange(8), np.arange(8))


@pytest.mark.parametrize("dtype", STORED)
def test_deflated_numbers_come_back_as_written(tmp_path, rng, dtype):
    stored = extremes(dtype, (2, 4, 6), rng)
    path = write_frames(tmp_path / "a.dcm", stored, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_all(path, dtype), stored, strict=True)


def compress(path, syntax=RLELossless):
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    return path


ENCODERS = {
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode),
    "JPEG 2000": (
        JPEG2000Lossless,
        lambda f: imagecodecs.jpeg2k_encode(f, level=0, reversible=True, codecformat="j2k"),
    ),
    "lossless JPEG": (JPEGLosslessSV1, imagecodecs.ljpeg_encode),
}


def write_encoded(path, stored, kind, **options):
    """Write frames encoded by imagecodecs; negative ones as their sign extended bits where the codec has no sign."""
    syntax, encode = ENCODERS[kind]
    bits = options.pop("bits_stored", None)
    frames = stored if kind == "JPEG 2000" else stored.view(stored.dtype.str.replace("i", "u"))
    streams = [encode(np.ascontiguousarray(f)) for f in frames]
    encoded = encapsulate(streams, **options)
    return write_frames(path, stored, bits_stored=bits, syntax=syntax, encoded=encoded)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_rle_numbers_come_back_as_written(tmp_path, rng, dtype):
    stored = extremes(dtype, (3, 8, 10), rng)
    np.testing.assert_array_equal(
        read_all(compress(write_frames(tmp_path / "a.dcm", stored)), dtype), stored, strict=True
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_compressed_numbers_come_back_as_written(tmp_path, rng, kind, dtype):
    stored = extremes(dtype, (3, 8, 10), rng)
    path = write_encoded(tmp_path / "a.dcm", stored, kind)
    np.testing.assert_array_equal(read_all(path, dtype), stored, strict=True)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_compressed_numbers_of_12_bits_come_back_as_written(tmp_path, rng, kind, dtype):
    stored = extremes(dtype, (1, 8, 10), rng, 12)
    path = write_encoded(tmp_path / "a.dcm", stored, kind, bits_stored=12)
    np.testing.assert_array_equal(read_all(path, dtype), stored, strict=True)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=["RLE", "JPEG-LS"])
def test_numbers_of_12_bits_that_pydicom_compressed_come_back_as_written(tmp_path, rng, syntax, dtype):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls", reason="pydicom compresses JPEG-LS through pyjpegls, which is absent")
    stored = extremes(dtype, (1, 32, 32), rng, 12)
    path = compress(write_frames(tmp_path / "a.dcm", stored, bits_stored=12), syntax)
    np.testing.assert_array_equal(read_all(path, dtype), stored, strict=True)


def test_a_part_of_a_compressed_frame_is_what_numpy_indexing_gives(tmp_path, rng):
    stored = extremes("int16", (3, 8, 10), rng)
    table = table_of(write_encoded(tmp_path / "a.dcm", stored, "JPEG-LS"), "int16")
    values = read_frames(table, [2, 0], np.array([7, 1]), np.array([9, 0, 3]))
    np.testing.assert_array_equal(values, stored[np.ix_([2, 0], [7, 1], [9, 0, 3])])


@pytest.mark.parametrize("has_bot", [True, False], ids=["with offsets", "without offsets"])
def test_a_frame_may_span_fragments(tmp_path, rng, has_bot):
    stored = extremes("uint16", (1, 32, 32), rng)
    path = write_encoded(tmp_path / "a.dcm", stored, "JPEG 2000", fragments_per_frame=4, has_bot=has_bot)
    np.testing.assert_array_equal(read_all(path, "uint16"), stored)


def test_each_of_several_frames_may_span_fragments(tmp_path, rng):
    stored = extremes("uint16", (3, 32, 32), rng)
    path = write_encoded(tmp_path / "a.dcm", stored, "JPEG-LS", fragments_per_frame=3)
    np.testing.assert_array_equal(read_all(path, "uint16"), stored)


def test_frames_with_an_extended_offset_table_are_found(tmp_path, rng):
    stored = extremes("uint16", (3, 16, 16), rng)
    pixels, offsets, lengths = encapsulate_extended([imagecodecs.jpegls_encode(f) for f in stored])
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    path = write_frames(tmp_path / "a.dcm", stored, syntax=JPEGLSLossless, encoded=pixels, **tables)
    np.testing.assert_array_equal(read_all(path, "uint16"), stored)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_damaged_stream_names_file_and_frame(tmp_path, rng, kind):
    stored = extremes("uint16", (2, 16, 16), rng)
    syntax, encode = ENCODERS[kind]
    streams = [encode(f) for f in stored]
    streams[1] = b"\0" * len(streams[1])
    path = write_frames(tmp_path / "bad.dcm", stored, syntax=syntax, encoded=encapsulate(streams))
    with pytest.raises(PixelReadError, match=r"(?s)frame 2 of .*bad\.dcm cannot be decoded .*damaged"):
        read_all(path, "uint16")


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_stream_cut_in_half_is_an_error_and_no_half_picture(tmp_path, rng, kind):
    stored = extremes("uint16", (2, 16, 16), rng)
    syntax, encode = ENCODERS[kind]
    streams = [encode(f) for f in stored]
    streams[1] = streams[1][: len(streams[1]) // 4 * 2]
    path = write_frames(tmp_path / "bad.dcm", stored, syntax=syntax, encoded=encapsulate(streams))
    with pytest.raises(PixelReadError, match=r"(?s)frame 2 of .*bad\.dcm cannot be decoded .*damaged"):
        read_all(path, "uint16")


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_compressed_file_cut_short_is_an_error_and_no_half_picture(tmp_path, rng, kind):
    path = write_encoded(tmp_path / "bad.dcm", extremes("uint16", (1, 64, 64), rng), kind)
    table = table_of(path, "uint16")
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 4 * 2)
    with pytest.raises(PixelReadError, match=r"bad\.dcm"):
        read_frames(table, [0], np.arange(64), np.arange(64))


def test_the_frame_before_a_damaged_one_is_read(tmp_path, rng):
    stored = extremes("uint16", (2, 16, 16), rng)
    streams = [imagecodecs.jpegls_encode(stored[0]), b"\0" * 100]
    path = write_frames(tmp_path / "bad.dcm", stored, syntax=JPEGLSLossless, encoded=encapsulate(streams))
    values = read_frames(table_of(path, "uint16"), [0], np.arange(16), np.arange(16))
    np.testing.assert_array_equal(values, stored[:1])


def test_a_stream_of_another_size_than_its_header_says_is_an_error(tmp_path, rng):
    other = imagecodecs.jpegls_encode(extremes("uint16", (1, 8, 32), rng)[0])
    stored = np.zeros((1, 16, 16), "uint16")
    path = write_frames(tmp_path / "bad.dcm", stored, syntax=JPEGLSLossless, encoded=encapsulate([other]))
    with pytest.raises(PixelReadError, match=r"bad\.dcm"):
        read_all(path, "uint16")


def test_frames_of_several_files_keep_their_order(tmp_path, rng):
    stored = extremes("int16", (4, 5, 6), rng)
    paths = [write_frames(tmp_path / f"{9 - k}.dcm", stored[k : k + 1]) for k in range(4)]
    np.testing.assert_array_equal(read_all(paths, "int16"), stored)


def test_names_of_a_table_are_relative_to_its_root(tmp_path, rng):
    stored = extremes("int16", (1, 5, 6), rng)
    write_frames(tmp_path / "a.dcm", stored)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "a.dcm", moved / "a.dcm")
    source = table_of(moved / "a.dcm", "int16").sources[0]
    there = FrameSource("a.dcm", 0, 1, source.offset, source.length, source.pixels)
    table = FrameTable(str(moved), FrameSources([there]), "int16")
    np.testing.assert_array_equal(read_frames(table, [0], np.arange(5), np.arange(6)), stored)


def test_no_file_stays_open(tmp_path, rng):
    path = write_frames(tmp_path / "a.dcm", extremes("int16", (1, 5, 6), rng))
    opened = count_open(path)
    read_all(path, "int16")
    assert count_open(path) == opened == 0


def count_open(path):
    psutil = pytest.importorskip("psutil")
    return sum(f.path == str(path) for f in psutil.Process().open_files())
