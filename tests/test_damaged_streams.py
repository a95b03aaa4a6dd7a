"""Damaged and lying compressed files give an error that names file and frame, within bounded time and memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import enhanced_made as em
import imagecodecs
import numpy as np
import pytest
import series_made as made
from hypothesis import given
from hypothesis import strategies as st
from made import examples

import lazyvol as lv
from lazyvol.errors import DicomReadError, PixelRangeError, PixelReadError, UnsupportedSeriesError

SIZE = 16
ERRORS = (PixelReadError, UnsupportedSeriesError, DicomReadError)


def j2k(values):
    return imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k")


CODECS = {
    "JPEG baseline": ("1.2.840.10008.1.2.4.50", 8, imagecodecs.jpeg8_encode),
    "JPEG extended": ("1.2.840.10008.1.2.4.51", 12, lambda v: imagecodecs.jpeg8_encode(v, bitspersample=12)),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", 16, lambda v: imagecodecs.ljpeg_encode(v, bitspersample=16)),
    "JPEG-LS": (em.JPEG_LS, 16, imagecodecs.jpegls_encode),
    "JPEG-LS near lossless": ("1.2.840.10008.1.2.4.81", 16, lambda v: imagecodecs.jpegls_encode(v, level=2)),
    "JPEG 2000": (em.J2K, 16, j2k),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", 16, imagecodecs.htj2k_encode),
    "RLE": (em.RLE, 16, lambda v: em.coded(v, em.RLE)),
}
EACH = pytest.mark.parametrize("codec", CODECS)


@cache
def stored(codec, count=1, size=SIZE):
    """Return a slope with noise for each frame, which fits in int16."""
    bits = CODECS[codec][1]
    noise = np.random.default_rng(5).normal(0, 1 << bits - 7, (count, size, size))
    slope = np.linspace(1 << bits - 4, 1 << bits - 2, size)
    return np.clip(slope + noise, 0, (1 << bits) - 1).astype("u1" if bits == 8 else "u2")


@cache
def streams(codec, count=1, size=SIZE):
    return tuple(CODECS[codec][2](frame) for frame in stored(codec, count, size))


def image(codec, count=1, **header):
    """Return the header of an image of one or more frames, without its pixels."""
    bits = CODECS[codec][1]
    slices = made.series(count, each=lambda _k: {"stored": np.zeros((SIZE, SIZE), "u2")}, ImageType=em.FRAME_TYPE)
    found = em.enhanced(slices) if count > 1 else slices[0]
    said = {"BitsAllocated": 8 if bits == 8 else 16, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0}
    for keyword, value in (said | header).items():
        setattr(found, keyword, value)
    return found


def even(stream):
    return stream + b"\0" * (len(stream) % 2)


def put(folder, codec, frames, *, delimited=True, **header):
    """Write a file whose frames are these streams."""
    path = folder / "made.dcm"
    fragments = [[even(frame)] for frame in frames]
    made_of = image(codec, len(frames), **header)
    path.write_bytes(em.encapsulated(made_of, fragments, syntax=CODECS[codec][0], delimited=delimited))
    return path


def assert_frame_fails(path, number, k=0):
    """Assert that a frame cannot be read, and that the error names file and frame."""
    volume = lv.open_volume(path)
    with pytest.raises(PixelReadError, match=rf"(?s)(?=.*made\.dcm)(?=.*\bframe {number}\b)"):
        volume.isel(z=k).compute()


# What is sound


@EACH
@pytest.mark.parametrize("count", [1, 3], ids=["one frame", "three frames"])
def test_the_files_made_here_open(tmp_path, codec, count):
    path = put(tmp_path, codec, streams(codec, count))
    assert lv.open_volume(path).values.shape == (count, SIZE, SIZE)


@EACH
def test_a_file_without_sequence_delimiter_opens(tmp_path, codec):
    path = put(tmp_path, codec, streams(codec), delimited=False)
    whole = put(tmp_path, codec, streams(codec))
    np.testing.assert_array_equal(lv.open_volume(path), lv.open_volume(whole))


# Cut short


@EACH
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97])
def test_a_stream_cut_short_names_file_and_frame(tmp_path, codec, share):
    (stream,) = streams(codec)
    assert_frame_fails(put(tmp_path, codec, [stream[: int(len(stream) * share)]]), 1)


@EACH
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_frame_cut_short_among_others_names_its_number(tmp_path, codec, share):
    first, second, third = streams(codec, 3)
    assert_frame_fails(put(tmp_path, codec, [first, second[: int(len(second) * share)], third]), 2, k=1)


@EACH
def test_the_frames_beside_one_cut_short_are_read(tmp_path, codec):
    first, second, third = streams(codec, 3)
    whole = lv.open_volume(put(tmp_path, codec, [first, second, third])).values
    found = lv.open_volume(put(tmp_path, codec, [first, second[: len(second) // 2], third]))
    np.testing.assert_array_equal([found.isel(z=0), found.isel(z=2)], whole[[0, 2]])


@EACH
def test_a_stream_of_zeros_names_file_and_frame(tmp_path, codec):
    assert_frame_fails(put(tmp_path, codec, [bytes(len(streams(codec)[0]))]), 1)


@pytest.mark.parametrize("codec", ["JPEG-LS", "JPEG 2000", "RLE"])
@examples(25)
@given(data=st.data())
def test_flipped_bits_give_values_or_an_error_that_names_the_frame(tmp_path_factory, codec, data):
    stream = bytearray(streams(codec)[0])
    for place in data.draw(st.lists(st.integers(0, 8 * len(stream) - 1), min_size=1, max_size=4)):
        stream[place // 8] ^= 1 << place % 8
    path = put(tmp_path_factory.mktemp("flipped"), codec, [bytes(stream)])
    try:
        shape, said = lv.open_volume(path).values.shape, "made.dcm: frame 1"
    except (PixelReadError, PixelRangeError) as error:
        shape, said = (1, SIZE, SIZE), str(error)
    assert (shape, "made.dcm" in said, "frame 1" in said) == ((1, SIZE, SIZE), True, True), said


# Other dimensions


@EACH
@pytest.mark.parametrize("size", [8, 24], ids=["smaller", "larger"])
def test_a_stream_of_another_size_names_file_and_frame(tmp_path, codec, size):
    assert_frame_fails(put(tmp_path, codec, streams(codec, 1, size)), 1)


@EACH
def test_a_stream_of_as_many_pixels_in_other_rows_names_file_and_frame(tmp_path, codec):
    if codec == "RLE":
        pytest.skip("an RLE frame does not say its rows")
    flat = stored(codec)[0].reshape(SIZE // 2, SIZE * 2)
    assert_frame_fails(put(tmp_path, codec, [CODECS[codec][2](flat)]), 1)


# Bounded time and memory: each in a process of its own

READ = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
import lazyvol as lv
from lazyvol.errors import LazyvolError
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
sound, path = sys.argv[1:]
lv.open_volume(sound).isel(y=slice(2), x=slice(2)).compute()
before = peak()
try:
    part = lv.open_volume(path).isel(y=slice(2), x=slice(2)).compute()
    said = ["values", str(part.shape)]
except Exception as error:
    said = ["LazyvolError" if isinstance(error, LazyvolError) else type(error).__name__, str(error)]
print(json.dumps([*said, peak() - before]))
"""


def read_alone(path, codec="JPEG-LS"):
    """Return what becomes of a file in a process of its own, its words, and the MB that it took."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the memory of a process is told by /proc")
    folder = path.parent / "sound"
    folder.mkdir()
    sound = put(folder, codec, streams(codec))
    ask = [sys.executable, "-c", READ, str(sound), str(path)]
    run = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(run.stdout)


def assert_refused_cheaply(path, codec="JPEG-LS"):
    kind, said, taken = read_alone(path, codec)
    assert (kind, "made.dcm" in said, taken < 100) == ("LazyvolError", True, True), (kind, said, taken)
    return said


def resized(codec, rows, columns):
    """Return a stream that says another size of itself."""
    (stream,) = streams(codec)
    if "2000" in codec or codec == "HTJ2K":
        size = struct.pack(">8I", columns, rows, 0, 0, columns, rows, 0, 0)
        return stream[:8] + size + stream[40:]
    at = max(stream.find(b"\xff" + bytes([marker]) + b"\0\x0b") for marker in (0xC0, 0xC1, 0xC3, 0xF7))
    return stream[: at + 5] + struct.pack(">HH", rows, columns) + stream[at + 9 :]


@EACH
def test_a_header_of_65535_rows_over_a_small_stream_takes_no_memory(tmp_path, codec):
    path = put(tmp_path, codec, streams(codec), Rows=65535, Columns=65535)
    assert "frame 1" in assert_refused_cheaply(path, codec)


@pytest.mark.parametrize("codec", [c for c in CODECS if c != "RLE"])
def test_a_stream_of_2_to_the_31_pixels_takes_no_memory(tmp_path, codec):
    path = put(tmp_path, codec, [resized(codec, 1 << 15, 65535)])
    assert "frame 1" in assert_refused_cheaply(path, codec)


@pytest.mark.parametrize("codec", ["JPEG baseline", "JPEG lossless"])
def test_header_and_stream_that_both_say_too_many_pixels_take_no_memory(tmp_path, codec):
    path = put(tmp_path, codec, [resized(codec, 65535, 65535)], Rows=65535, Columns=65535)
    assert "frame 1" in assert_refused_cheaply(path, codec)


@pytest.mark.parametrize("parts", [[], ["stream"]], ids=["alone", "before a stream"])
def test_thousands_of_empty_fragments_are_refused_or_passed_over(tmp_path, parts):
    path = tmp_path / "made.dcm"
    fragments = [b""] * 20_000 + [even(streams("JPEG-LS")[0]) for _ in parts]
    path.write_bytes(em.encapsulated(image("JPEG-LS"), [fragments], syntax=em.JPEG_LS))
    kind, said, taken = read_alone(path)
    assert taken < 100
    assert kind == "values" if parts else (kind, "made.dcm" in said) == ("LazyvolError", True)


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0xFFFFFFFF, 0x7FFFFFFE, 4096], ids=hex)
@pytest.mark.parametrize("which", ["table", "fragment"])
def test_an_item_that_runs_beyond_the_file_is_refused(tmp_path, which, length):
    path = put(tmp_path, "JPEG-LS", streams("JPEG-LS"))
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)) + 12
    at += 8 if which == "fragment" else 0
    content[at + 4 : at + 8] = struct.pack("<I", length)
    path.write_bytes(content)
    assert_refused_cheaply(path)


# Deflated files


def deflated(folder, zeros=0):
    """Write a deflated file with so many MB of zeros after its pixels (PS3.5 A.5)."""
    content = made.encode(made.series(1)[0], syntax=made.EXPLICIT)
    first = 144 + struct.unpack_from("<I", content, 140)[0]
    meta = content[:first].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = grown(meta)
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = coder.compress(content[first:]) + coder.flush(zlib.Z_FULL_FLUSH)
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    million = block.compress(bytes(1 << 20)) + block.flush(zlib.Z_FULL_FLUSH)
    path = folder / "made.dcm"
    path.write_bytes(meta + packed + million * zeros + coder.flush())
    return path


def grown(meta):
    """Return group 2 with the length of its longer transfer syntax and of itself."""
    at = meta.index(b"1.2.840.10008.1.2.1.99") - 2
    meta = meta[:at] + struct.pack("<H", 22) + meta[at + 2 :]
    return meta[:140] + struct.pack("<I", len(meta) - 144) + meta[144:]


def test_a_deflated_file_opens(tmp_path):
    assert lv.open_volume(deflated(tmp_path)).values.any()


def test_a_deflated_bomb_takes_little_memory(tmp_path):
    kind, said, taken = read_alone(deflated(tmp_path, zeros=2048))
    assert kind in ("values", "LazyvolError"), said
    assert taken < 300


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_deflated_file_cut_short_is_refused_by_name(tmp_path, share):
    path = deflated(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ERRORS, match=r"made\.dcm"):
        lv.open_volume(path).compute()
