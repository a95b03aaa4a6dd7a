"""Compressed streams say what they hold, and no damage to one gives anything but a StreamError."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import examples
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_j2k_parameters

from lazyvol.streams import StreamError, StreamHeader, check_rle, check_stream, stream_header

BASELINE, EXTENDED, LOSSLESS, LOSSLESS_1, LS, LS_NEAR, J2K, HTJ2K = (
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 201)
)
KNOWN = [BASELINE, EXTENDED, LOSSLESS, LOSSLESS_1, LS, LS_NEAR, J2K, HTJ2K]


def image(rows, columns, bits=8, samples=1, *, signed=False):
    """Return noise that uses all bits."""
    rng = np.random.default_rng(rows * 1000 + columns)
    low = -(1 << bits - 1) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    return rng.integers(low, low + (1 << bits), shape).astype(kind)


def j2k(values, **options):
    return imagecodecs.jpeg2k_encode(values, level=0, reversible=True, **{"codecformat": "j2k", **options})


MADE = {
    "JPEG baseline": (BASELINE, imagecodecs.jpeg8_encode, 8),
    "JPEG extended": (EXTENDED, lambda v: imagecodecs.jpeg8_encode(v, bitspersample=12), 12),
    "JPEG lossless": (LOSSLESS_1, lambda v: imagecodecs.ljpeg_encode(v, bitspersample=16), 16),
    "JPEG-LS": (LS, imagecodecs.jpegls_encode, 16),
    "JPEG-LS near lossless": (LS_NEAR, lambda v: imagecodecs.jpegls_encode(v, level=2), 16),
    "JPEG 2000": (J2K, j2k, 16),
    "JPEG 2000 in boxes": (J2K, lambda v: j2k(v, codecformat="jp2"), 16),
    "HTJ2K": (HTJ2K, imagecodecs.htj2k_encode, 16),
}
CODECS = pytest.mark.parametrize(("syntax", "encode", "bits"), MADE.values(), ids=MADE)
SIZES = st.tuples(st.integers(2, 70), st.integers(2, 70))


@CODECS
@examples(15)
@given(size=SIZES)
def test_a_stream_says_its_size_and_bits(syntax, encode, bits, size):
    found = stream_header(encode(image(*size, bits)), syntax)
    assert (found.rows, found.columns, found.samples, found.precision, found.ended) == (*size, 1, bits, True)


@pytest.mark.parametrize("name", ["JPEG baseline", "JPEG-LS", "JPEG 2000", "HTJ2K"])
@examples(10)
@given(size=SIZES)
def test_a_colour_stream_says_its_samples(name, size):
    syntax, encode, _ = MADE[name]
    assert stream_header(encode(image(*size, 4, 3)), syntax).samples == 3


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("name", ["JPEG 2000", "HTJ2K"])
def test_jpeg_2000_says_its_sign(name, signed):
    syntax, encode, _ = MADE[name]
    assert stream_header(encode(image(9, 8, 16, signed=signed)), syntax).signed == signed


@pytest.mark.parametrize(("mct", "said"), [(True, "MCT"), (False, "")])
def test_jpeg_2000_says_whether_its_components_are_transformed(mct, said):
    assert stream_header(j2k(image(9, 8, 8, 3), mct=mct), J2K).colour == said


@pytest.mark.parametrize(("space", "said"), [("YCbCr", "YCBCR"), ("RGB", "RGB")])
def test_jpeg_says_its_colours(space, said):
    stream = imagecodecs.jpeg8_encode(image(9, 8, 8, 3), colorspace="RGB", outcolorspace=space)
    assert stream_header(stream, BASELINE).colour == said


# Files that others wrote


LYING = "JPEG2000-embedded-sequence-delimiter"
"""Its stream says 3722445056 columns, and no codec reads it."""


def samples_of_others():
    """Yield each compressed file that pydicom carries with it."""
    found = []
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = pydicom.dcmread(path)
            except Exception:  # some are broken on purpose
                continue
            syntax = dataset.get("file_meta", {}).get("TransferSyntaxUID", "")
        if path.stem == LYING:
            continue
        if str(syntax) in {*KNOWN, "1.2.840.10008.1.2.4.91"} and "PixelData" in dataset:
            found.append(pytest.param(dataset, id=path.name))
    return found


OTHERS = samples_of_others()


def first_frame(dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return next(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1))))


@pytest.mark.parametrize("dataset", OTHERS)
def test_streams_of_others_hold_what_their_files_say(dataset):
    said = {"rows": dataset.Rows, "columns": dataset.Columns, "samples": dataset.SamplesPerPixel}
    found = check_stream(first_frame(dataset), dataset.file_meta.TransferSyntaxUID, **said)
    assert found.precision <= dataset.BitsAllocated


@pytest.mark.parametrize("dataset", [p for p in OTHERS if "JPEG 2000" in p.values[0].file_meta.TransferSyntaxUID.name])
def test_precision_and_sign_are_those_that_pydicom_finds(dataset):
    frame = first_frame(dataset)
    found, other = stream_header(frame, J2K), get_j2k_parameters(frame)
    assert (found.precision, found.signed) == (other["precision"], other["is_signed"])


def test_the_lying_stream_of_pydicom_is_refused():
    dataset = pydicom.dcmread(Path(pydicom.data.__file__).parent / "test_files" / f"{LYING}.dcm")
    with pytest.raises(StreamError, match="tiles, at most 65535"):
        stream_header(first_frame(dataset), J2K)


# Damage


SMALL = {name: (syntax, encode(image(8, 8, bits))) for name, (syntax, encode, bits) in MADE.items()}
LEADS = [b"", *(stream[:n] for _, stream in SMALL.values() for n in (4, 20, 60))]
STREAMS = pytest.mark.parametrize(("syntax", "stream"), SMALL.values(), ids=SMALL)


def checked(stream, syntax):
    try:
        return check_stream(stream, syntax, rows=8, columns=8, samples=1)
    except StreamError as error:
        return str(error)


@STREAMS
def test_a_stream_cut_short_anywhere_is_refused(syntax, stream):
    end = len(stream) - (2 if "2.4.9" in syntax or "2.4.20" in syntax else 0)
    assert not [n for n in range(end) if isinstance(checked(stream[:n], syntax), StreamHeader)]


@pytest.mark.parametrize("name", ["JPEG 2000", "HTJ2K"])
def test_jpeg_2000_whole_but_for_its_end_marker_is_whole(name):
    syntax, stream = SMALL[name]
    assert stream_header(stream[:-2], syntax).ended


def test_jpeg_2000_cut_between_two_tiles_is_cut_short():
    whole = grid(right=16)
    first = whole.index(b"\xff\x90\0\x0a")
    second = bytearray(whole[first:])
    second[5] = 1
    ended = [stream_header(s, J2K).ended for s in (whole[:-2] + second, whole[:-2] + second[:-2], whole[:-2])]
    assert ended == [True, True, False]


@STREAMS
@pytest.mark.parametrize("padding", [b"\0", b"\0" * 300, b"padding!"], ids=["a byte", "many", "not zero"])
def test_bytes_after_the_end_do_no_harm(syntax, stream, padding):
    assert stream_header(stream + padding, syntax) == stream_header(stream, syntax)


@STREAMS
def test_a_flipped_bit_gives_a_header_or_a_stream_error(syntax, stream):
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        checked(bytes(flipped), syntax)


@examples(300)
@given(
    data=st.binary(max_size=200), lead=st.sampled_from([b"", *(s[:n] for _, s in SMALL.values() for n in (4, 20, 60))])
)
@pytest.mark.parametrize("syntax", KNOWN)
def test_arbitrary_bytes_give_a_header_or_a_stream_error(data, lead, syntax):
    checked(lead + data, syntax)


@STREAMS
@pytest.mark.parametrize("other", [{"rows": 9}, {"columns": 7}, {"samples": 3}], ids=str)
def test_other_dimensions_than_the_files_are_named(syntax, stream, other):
    with pytest.raises(StreamError, match="8 x 8 pixels of 1 samples, the header of the file says"):
        check_stream(stream, syntax, **{"rows": 8, "columns": 8, "samples": 1, **other})


def sized(stream, rows, columns):
    """Return a JPEG stream that says another size."""
    at = max(stream.find(b"\xff" + bytes([marker]) + b"\0\x0b") for marker in (0xC0, 0xC1, 0xC3, 0xF7))
    return stream[: at + 5] + struct.pack(">HH", rows, columns) + stream[at + 9 :]


@pytest.mark.parametrize("name", ["JPEG baseline", "JPEG extended", "JPEG lossless", "JPEG-LS"])
def test_more_pixels_than_the_bytes_can_hold_are_refused(name):
    syntax, stream = SMALL[name]
    with pytest.raises(StreamError, match="65535 x 65535 pixels do not fit"):
        check_stream(sized(stream, 65535, 65535), syntax, rows=65535, columns=65535, samples=1)


@pytest.mark.parametrize("name", ["JPEG baseline", "JPEG lossless"])
def test_rows_may_be_told_after_the_scan(name):
    syntax, stream = SMALL[name]
    told = sized(stream, 0, 8)
    told = told[:-2] + b"\xff\xdc\0\x04\0\x08" + told[-2:]
    assert stream_header(told, syntax).rows == 8


def test_jpeg_ls_may_tell_its_size_in_a_segment():
    _, stream = SMALL["JPEG-LS"]
    told = sized(stream, 0, 0)
    told = told[:2] + b"\xff\xf8\0\x0c\x04\x04" + struct.pack(">II", 8, 8) + told[2:]
    assert (stream_header(told, LS).rows, stream_header(told, LS).columns) == (8, 8)


def test_fill_bytes_before_a_marker_do_no_harm():
    syntax, stream = SMALL["JPEG baseline"]
    assert stream_header(stream[:2] + b"\xff" * 9 + stream[2:], syntax) == stream_header(stream, syntax)


def test_endless_segments_are_given_up():
    with pytest.raises(StreamError, match="more than 16384 segments"):
        stream_header(b"\xff\xd8" + b"\xff\xfe\0\x02" * 10**6, BASELINE)


def grid(**other):
    """Return a JPEG 2000 stream of 8 x 8 pixels whose grid says something else."""
    stream = bytearray(SMALL["JPEG 2000"][1])
    for name, value in other.items():
        at = 8 + 4 * ("right", "bottom", "left", "top", "wide", "high", "tile_left", "tile_top").index(name)
        stream[at : at + 4] = struct.pack(">I", value)
    return bytes(stream)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"wide": 0}, "tiles of 0 x"),
        ({"right": 2**31, "wide": 1}, "tiles, at most 65535"),
        ({"left": 8}, "begins its image at 8"),
        ({"tile_left": 3}, "does not hold the first pixel"),
        ({"right": 2**31, "wide": 2**31}, "8 x 2147483648 pixels"),
    ],
    ids=["no tile", "too many tiles", "no pixel", "a tile beyond", "2 to the 31 columns"],
)
def test_a_grid_that_cannot_be_is_refused(other, said):
    with pytest.raises(StreamError, match=said):
        check_stream(grid(**other), J2K, rows=8, columns=8, samples=1)


def test_another_syntax_is_no_syntax_of_streams():
    with pytest.raises(StreamError, match=r"1\.2\.3"):
        stream_header(b"", "1.2.3")


# RLE


def rle_stream(segments):
    """Return the RLE frame of byte planes (PS3.5 G.5), each in literal runs."""
    coded = [
        b"".join(bytes([len(p) - 1]) + p for p in (s[i : i + 128] for i in range(0, len(s), 128))) for s in segments
    ]
    coded = [c + b"\0" * (len(c) % 2) for c in coded]
    offsets = [64 + sum(map(len, coded[:n])) for n in range(len(coded))]
    return struct.pack("<16I", len(coded), *offsets, *[0] * (15 - len(coded))) + b"".join(coded)


PLANES = [bytes(range(64)) * 8, bytes(512)]
FRAME = {"rows": 16, "columns": 32, "samples": 1, "bits_allocated": 16}


def test_a_whole_rle_frame_passes():
    check_rle(rle_stream(PLANES), **FRAME)


def test_an_rle_frame_of_runs_alone_passes():
    check_rle(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x07" * 4, 16, 32, 1, 8)


def changed(place, value):
    stream = bytearray(rle_stream(PLANES))
    stream[4 * place : 4 * place + 4] = struct.pack("<I", value)
    return bytes(stream)


RLE_DAMAGE = {
    "within its header": (rle_stream(PLANES)[:63], "within its RLE header"),
    "too few segments": (rle_stream(PLANES[:1]), "holds 1 RLE segments.* which are 2"),
    "too many segments": (rle_stream(PLANES * 2), "holds 4 RLE segments.* which are 2"),
    "2 to the 31 segments": (changed(0, 2**31), "holds 2147483648 RLE segments"),
    "a segment in the header": (changed(1, 60), "not in order or beyond"),
    "segments out of order": (changed(1, 900), "not in order or beyond"),
    "a segment beyond the end": (changed(2, 5000), "not in order or beyond"),
    "a segment cut short": (rle_stream(PLANES)[:-514], "segment 2 is cut short: its 2 bytes hold at most 128 of 512"),
}


@pytest.mark.parametrize(("stream", "said"), RLE_DAMAGE.values(), ids=RLE_DAMAGE)
def test_a_damaged_rle_frame_is_refused(stream, said):
    with pytest.raises(StreamError, match=said):
        check_rle(stream, **FRAME)


@examples(200)
@given(data=st.binary(max_size=200), lead=st.integers(0, 70))
def test_arbitrary_bytes_pass_as_rle_or_give_a_stream_error(data, lead):
    try:
        check_rle(rle_stream(PLANES)[:lead] + data, **FRAME)
    except StreamError:
        return
    assert len(data) >= 10
