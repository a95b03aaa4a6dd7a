"""Codecs: compressed frames go through imagecodecs, and what cannot be decoded is said before it is tried."""

from __future__ import annotations

import sys

import imagecodecs
import numpy as np
import pytest
from encoded_made import Layout, stored_for, write_encoded
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

import lazyvol as lv
from lazyvol import codecs
from lazyvol.errors import PixelReadError, UnsupportedSeriesError
from lazyvol.phantom import write_series

THROUGH_IMAGECODECS = {
    "1.2.840.10008.1.2.4.50": "jpeg8",
    "1.2.840.10008.1.2.4.51": "jpeg8",
    "1.2.840.10008.1.2.4.57": "ljpeg",
    "1.2.840.10008.1.2.4.70": "ljpeg",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2k",
    "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "jpeg2k",
    "1.2.840.10008.1.2.4.202": "jpeg2k",
    "1.2.840.10008.1.2.4.203": "jpeg2k",
    "1.2.840.10008.1.2.5": "dicomrle",
}


def write_encoded_series(folder, values, *, syntax, encode):
    """Write a CT series whose frames, stored as int16 without intercept, are encoded."""

    def put(_k, dataset):
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
        dataset.PixelData = encapsulate([encode(stored)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax

    write_series(folder, values, spacing=(2.0, 1.0, 1.0), intercept=0, bits_stored=16, signed=True, overrides=put)
    return folder


@pytest.fixture
def values(rng):
    numbers = rng.integers(-1024, 3000, (3, 16, 18))
    numbers[0, 0, :2] = -32768, 32767
    return numbers


@pytest.mark.parametrize("syntax", THROUGH_IMAGECODECS, ids=lambda s: UID(s).name)
def test_encapsulated_syntaxes_are_decoded_by_imagecodecs(syntax):
    assert codecs.plugin_of(syntax) == "imagecodecs"


def test_plain_syntaxes_need_no_codec():
    assert codecs.plugin_of("1.2.840.10008.1.2.1") == ""


@pytest.mark.parametrize("syntax", [*THROUGH_IMAGECODECS, RLELossless, "1.2.840.10008.1.2.1"], ids=str)
def test_no_decoder_is_missing_for_what_lazyvol_depends_on(syntax):
    assert codecs.missing_decoder(str(syntax)) == ""


@pytest.mark.parametrize("syntax", ["1.2.3.4", "1.2.840.10008.1.2.4.100"], ids=["private", "MPEG2"])
def test_an_unknown_syntax_says_to_convert(syntax):
    assert "convert the files" in codecs.missing_decoder(syntax)


def test_a_known_syntax_without_codec_says_what_to_install(monkeypatch):
    monkeypatch.setattr(imagecodecs.JPEG8, "available", False)
    assert "pip install --upgrade imagecodecs" in codecs.missing_decoder(str(JPEGBaseline8Bit))


def test_a_codec_that_imagecodecs_lacks_is_not_available(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert not codecs.is_available(str(JPEGLSLossless))


def test_the_decoder_is_called_through_the_plugin(tmp_path, values, monkeypatch):
    calls = []
    decode = imagecodecs.jpegls_decode
    monkeypatch.setattr(imagecodecs, "jpegls_decode", lambda stream: calls.append(len(stream)) or decode(stream))
    folder = write_encoded_series(
        tmp_path, values, syntax=JPEGLSLossless, encode=lambda f: imagecodecs.jpegls_encode(f.view("uint16"))
    )
    lv.open_volume(folder).isel(z=1).compute()
    assert len(calls) == 1


@pytest.mark.parametrize("signed_stream", [True, False], ids=["signed stream", "unsigned stream"])
def test_signed_numbers_in_jpeg_2000_are_not_shifted(tmp_path, values, signed_stream):
    def encode(stored):
        stored = stored if signed_stream else stored.view("uint16")
        return imagecodecs.jpeg2k_encode(stored, level=0, reversible=True, codecformat="j2k")

    folder = write_encoded_series(tmp_path, values, syntax=JPEG2000Lossless, encode=encode)
    np.testing.assert_array_equal(lv.open_volume(folder), values)


def test_a_series_that_cannot_be_decoded_is_refused_when_it_is_opened(tmp_path, values):
    mpeg = "1.2.840.10008.1.2.4.100"
    folder = write_encoded_series(tmp_path, values, syntax=mpeg, encode=lambda f: f.tobytes())
    with pytest.raises(UnsupportedSeriesError, match=rf"body-.*\.dcm is encoded as {mpeg} .* convert the files"):
        lv.open_volume(folder)


@pytest.mark.parametrize("shape", [(1, 16, 18), (1, 15, 17)], ids=["even", "odd"])
def test_a_frame_as_long_encoded_as_not_encoded_is_decoded_without_a_warning(shape, tmp_path):
    # pydicom warns of such a length, and its readers are told that the transfer syntax may be wrong
    layout = Layout(str(JPEGLSLossless), 8)
    stored = stored_for(layout, shape, smooth=True)
    size = stored.size + stored.size % 2
    stream = imagecodecs.jpegls_encode(stored[0])
    around = 3 * 8  # offset table, head of the item, end
    path = write_encoded(tmp_path / "made.dcm", stored, layout, encode=lambda _: stream.ljust(size - around, b"\0"))
    np.testing.assert_array_equal(lv.open_volume(path), stored)


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("in_stream", ["RGB", "YCBCR"])
def test_the_markers_of_a_jpeg_stream_win_over_the_header(tmp_path, said, in_stream):
    colour = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype("u1")[..., ::-1].copy()
    stream = imagecodecs.jpeg8_encode(colour, level=100, colorspace="RGB", outcolorspace=in_stream, subsampling="444")
    layout = Layout(str(JPEGBaseline8Bit), 8, photometric=said)
    path = write_encoded(tmp_path / "a.dcm", colour[np.newaxis], layout, encode=lambda _frame: stream)
    assert np.abs(lv.open_volume(path).values[0].astype(int) - colour).max() <= 3


ZERO_TAILED = {
    "HTJ2K": ("1.2.840.10008.1.2.4.201", imagecodecs.htj2k_encode),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode),
    "JPEG 12 bit": ("1.2.840.10008.1.2.4.51", lambda a: imagecodecs.jpeg8_encode(a, level=90, bitspersample=12)),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k")),
}


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("syntax", ZERO_TAILED)
def test_a_stream_that_goes_on_in_zeros_is_an_error(tmp_path, rng, syntax, part):
    uid, encode = ZERO_TAILED[syntax]
    stored = rng.integers(0, 4096, (1, 32, 32)).astype("u2")
    stream = encode(stored[0])
    stream = stream[: int(len(stream) * part)] + bytes(len(stream) - int(len(stream) * part))
    path = write_encoded(tmp_path / "a.dcm", stored, Layout(uid, 12), encode=lambda _frame: stream)
    with pytest.raises(PixelReadError, match=r"frame 1 of .*a\.dcm"):
        lv.open_volume(path).compute()


def test_a_stream_of_more_bits_than_are_allocated_is_an_error(tmp_path, rng):
    stored = rng.integers(0, 256, (1, 16, 18)).astype("u1")
    layout = Layout("1.2.840.10008.1.2.4.80", 8)
    path = write_encoded(
        tmp_path / "a.dcm", stored, layout, encode=lambda frame: imagecodecs.jpegls_encode(frame.astype("u2") * 100)
    )
    with pytest.raises(PixelReadError, match="16 bits a sample, BitsAllocated is 8"):
        lv.open_volume(path).compute()


def test_a_compressed_file_cut_short_in_a_folder_is_a_finding_when_it_is_opened(tmp_path, values):
    folder = write_encoded_series(
        tmp_path, values, syntax=JPEGLSLossless, encode=lambda f: imagecodecs.jpegls_encode(f.view("uint16"))
    )
    first = next(folder.iterdir())
    first.write_bytes(first.read_bytes()[:-300])
    assert "pixels-truncated" in {f.code for f in lv.findings_of(lv.open_volume(folder))}


def test_a_compressed_file_cut_short_is_an_error_when_it_is_opened_alone(tmp_path, values):
    folder = write_encoded_series(
        tmp_path, values, syntax=JPEGLSLossless, encode=lambda f: imagecodecs.jpegls_encode(f.view("uint16"))
    )
    first = next(folder.iterdir())
    first.write_bytes(first.read_bytes()[:-300])
    with pytest.raises(PixelReadError, match="is cut short"):
        lv.open_volume(first)
