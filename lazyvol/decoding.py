"""Compressed frames: decoded whole, through pydicom, as stored numbers; and colours as red, green and blue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import get_frame
from pydicom.pixels.processing import convert_color_space

from lazyvol.codecs import JPEG, JPEG_DCT, RLE, decoder_of, plugin_of
from lazyvol.errors import PixelReadError
from lazyvol.files import byte_reader, open_file
from lazyvol.fragments import read_fragments
from lazyvol.records import ENCAPSULATED, PixelFormat
from lazyvol.rescale import arranged, only_stored_bits, stored_dtype
from lazyvol.sources import FrameSource
from lazyvol.streams import stream_header

__all__ = ["decode_frame", "red_green_blue"]

Pixels = npt.NDArray[Any]

_NO_TABLE = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
"""An empty basic offset table (DICOM PS3.5 A.4)."""
_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
"""The end of a pixel element (DICOM PS3.5 A.4)."""
_READ_AHEAD = 1 << 18
"""Bytes that are read at once where it is not known how long a frame is; most end within."""
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587], [1, 1.772, 0]])
"""From Y, B and R without offset to red, green and blue (DICOM PS3.3 C.7.6.3.1.2)."""


def decode_frame(source: FrameSource, path: str) -> Pixels:
    """Return one frame that is no plain rows in its file, sign extended and without unused bits.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns), or (rows, columns, 3) of colour, which is red, green and blue.
    """
    pixels = source.pixels
    if pixels.transfer_syntax_uid == ENCAPSULATED:
        return red_green_blue(_plain_items(source, path), pixels, pixels.photometric_interpretation)
    colours = pixels.photometric_interpretation
    decoder, plugin = decoder_of(pixels.transfer_syntax_uid), plugin_of(pixels.transfer_syntax_uid)
    if pixels.is_plain:
        with open_file(source.file(path)) as file:
            file.seek(source.offset or 0)
            values, found = decoder.as_array(file, index=source.index, raw=True, **_options(pixels, source.count))
            colours = str(found["photometric_interpretation"])
    else:
        items, options = _items(source, path), _options(pixels, 1)
        if pixels.samples_per_pixel == 3:
            options["photometric_interpretation"], colours = _colours(items, pixels)
        values, _ = decoder.as_array(items, index=0, raw=True, decoding_plugin=plugin, **options)
    if pixels.is_plain or pixels.transfer_syntax_uid == RLE:
        values = only_stored_bits(values if values.flags.writeable else values.copy(), pixels)
    return red_green_blue(values, pixels, colours)


def _colours(items: bytes, pixels: PixelFormat) -> tuple[str, str]:
    """Return what to tell pydicom of the colours of a frame, so that it does not warn, and what they are.

    The markers of a JPEG stream win over the header; other streams do not say.
    """
    syntax, said = pixels.transfer_syntax_uid, pixels.photometric_interpretation
    if syntax not in JPEG:
        return "RGB", said
    stated = stream_header(get_frame(items, 0, number_of_frames=1), syntax).colour
    named = {"RGB": "RGB", "YCBCR": "YBR_FULL"}.get(stated, said)
    return "RGB" if stated == "RGB" else "YBR_FULL", named if syntax in JPEG_DCT else said


def _options(pixels: PixelFormat, count: int) -> dict[str, Any]:
    """Return what pydicom asks about the frames of a file."""
    return {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": pixels.samples_per_pixel,
        "photometric_interpretation": pixels.photometric_interpretation,
        "pixel_representation": pixels.pixel_representation,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "number_of_frames": count,
        "planar_configuration": pixels.planar_configuration,
        "pixel_keyword": pixels.element,
        "pixel_vr": pixels.vr,
        "correct_unused_bits": False,
        "apply_j2k_sign_correction": False,
        "apply_jls_sign_correction": False,
    }


def _items(source: FrameSource, path: str) -> bytes:
    """Return the fragments of one frame as a pixel element of its own, with an empty offset table."""
    with byte_reader(source.file(path)) as read_into:

        def read(offset: int, size: int) -> bytes:
            part = np.empty(size, np.uint8)
            return part[: read_into(memoryview(part.data), offset)].tobytes()

        start = source.offset or 0
        head = read(start, _READ_AHEAD) if source.length is None else b""

        def read_at(offset: int, size: int) -> bytes:
            known = head[offset - start : offset - start + size]
            return known if len(known) == size or 0 < len(head) < _READ_AHEAD else read(offset, size)

        offset, length = _span(source, path, read_at)
        items = read_at(offset, length)
    if len(items) < length:
        raise source.short(path)
    whole = _NO_TABLE + items + _END
    # pydicom takes what is as long as a frame for an uncompressed one, and warns; it stops at the first end
    return whole + _END if len(whole) - source.pixels.frame_bytes in (0, 1) else whole


def _span(source: FrameSource, path: str, read_at: Callable[[int, int], bytes]) -> tuple[int, int]:
    """Return where the items of a frame begin in the file, and their length."""
    assert source.offset is not None
    if source.length is not None:
        found, whole = (source.offset, source.length), source.length > 0
    else:
        fragments = read_fragments(read_at, source.offset)
        first = fragments.begins[0] if fragments.begins else fragments.end
        found, whole = (first, fragments.end - first), bool(fragments.begins) and not fragments.torn
    if not whole:
        raise PixelReadError(
            f"{path} is cut short: it does not hold frame {source.index + 1} whole. Copy the file again, leave its "
            "slice out, or open the series with on_error='fill'."
        )
    return found


def _plain_items(source: FrameSource, path: str) -> Pixels:
    """Return an uncompressed frame out of its items."""
    raw = get_frame(_items(source, path), 0, number_of_frames=1)
    pixels = source.pixels
    if len(raw) < pixels.frame_bytes:
        raise PixelReadError(
            f"{source.where(path)} has {len(raw)} of {pixels.frame_bytes} bytes. Copy the file again, or leave it out."
        )
    if pixels.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        return np.asarray(bits[: pixels.frame_bits].reshape(pixels.rows, pixels.columns))
    words = np.frombuffer(raw[: pixels.frame_bytes], stored_dtype(pixels)).copy()
    return arranged(only_stored_bits(words, pixels), pixels.rows, pixels)


def red_green_blue(samples: Pixels, pixels: PixelFormat, photometric: str) -> Pixels:
    """Return colour samples as red, green and blue (DICOM PS3.3 C.7.6.3.1.2); others as they are."""
    if samples.ndim < 3 or photometric not in {"YBR_FULL", "YBR_FULL_422"}:
        return samples
    if samples.dtype == np.uint8 and pixels.bits_stored == 8:
        return np.asarray(convert_color_space(samples, "YBR_FULL", "RGB"))
    most = 2**pixels.bits_stored - 1
    rgb = (samples - np.array([0.0, most // 2 + 1, most // 2 + 1])) @ _TO_RGB.T
    return np.asarray(np.clip(np.rint(rgb), 0, most), dtype=samples.dtype)
