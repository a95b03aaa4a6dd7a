"""imagecodecs as a decoder plugin of pydicom: exact, and decodes without holding the GIL.

pydicom takes a frame out of its fragments; the codec, and what the sign and the unused bits of its numbers
mean, come from here. The names `is_available`, `DECODER_DEPENDENCIES` and `decode_frame` are what pydicom
asks of a plugin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from lazyvol.records import ENCAPSULATED
from lazyvol.streams import StreamHeader, check_rle, check_stream

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder, DecodeRunner

__all__ = ["JPEG", "JPEG_DCT", "RLE", "decoder_of", "missing_decoder", "plugin_of", "syntax_name"]

Pixels = npt.NDArray[Any]

PLUGIN = "imagecodecs"
RLE = "1.2.840.10008.1.2.5"
JPEG_DCT = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
JPEG = JPEG_DCT | {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
_CODECS = {
    "1.2.840.10008.1.2.4.50": ("jpeg8",),
    "1.2.840.10008.1.2.4.51": ("jpeg8",),
    "1.2.840.10008.1.2.4.57": ("ljpeg",),
    "1.2.840.10008.1.2.4.70": ("ljpeg",),
    "1.2.840.10008.1.2.4.80": ("jpegls",),
    "1.2.840.10008.1.2.4.81": ("jpegls",),
    "1.2.840.10008.1.2.4.90": ("jpeg2k",),
    "1.2.840.10008.1.2.4.91": ("jpeg2k",),
    "1.2.840.10008.1.2.4.201": ("jpeg2k", "htj2k"),
    "1.2.840.10008.1.2.4.202": ("jpeg2k", "htj2k"),
    "1.2.840.10008.1.2.4.203": ("jpeg2k", "htj2k"),
    RLE: ("dicomrle",),
}
"""Names of the codecs in imagecodecs by transfer syntax, the best first (DICOM PS3.6 table A-1)."""
_NEWER = {
    ENCAPSULATED: "Encapsulated Uncompressed Explicit VR Little Endian",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Names of transfer syntaxes that pydicom 3.0 does not know (DICOM PS3.6 table A-1)."""
_MOST_OF_OPENJPEG = 26
"""Bits of a sample."""
_END = b"\xff\xd9"
_NOISE = b"\x55\xaa" * 64
"""Bytes that a decoder which has all samples of a JPEG stream does not read."""

DECODER_DEPENDENCIES = dict.fromkeys(_CODECS, ("numpy", "imagecodecs>=2024.9.22"))
_adding = threading.Lock()


def is_available(uid: str) -> bool:
    """Return whether imagecodecs has a codec for a transfer syntax."""
    return bool(_codec(uid))


def _codec(uid: str, precision: int = 0) -> str:
    """Return the name of the codec for a transfer syntax; empty where there is none.

    OpenJPEG cannot read samples of more than 26 bits. OpenJPH can, but gives zeros for a damaged stream.
    """
    try:
        import imagecodecs
    except ImportError:
        return ""
    names = _CODECS.get(uid, ())
    ordered = reversed(names) if precision > _MOST_OF_OPENJPEG else names
    known = (name for name in ordered if getattr(getattr(imagecodecs, name.upper(), None), "available", 0))
    return next(known, "")


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray | memoryview:
    """Return the samples of one encoded frame, and tell pydicom how they lie."""
    syntax = str(runner.transfer_syntax)
    if syntax == RLE:
        return _decode_rle(source, runner)
    size = {"rows": runner.rows, "columns": runner.columns, "samples": runner.samples_per_pixel}
    header = check_stream(source, syntax, **size, must_end=False)
    if header.precision > runner.bits_allocated:
        raise ValueError(f"the stream holds {header.precision} bits a sample, BitsAllocated is {runner.bits_allocated}")
    name = _codec(syntax, header.precision)
    decoded = _decode_whole(_decoder(name, header), source, header, name)
    if name == "htj2k" and decoded.ndim == 3 and not header.colour:
        decoded = np.moveaxis(decoded, 0, -1)  # samples that are not transformed together come as planes
    expected = (size["rows"], size["columns"], size["samples"])[: 2 if size["samples"] == 1 else 3]
    if decoded.shape != expected:
        raise ValueError(f"the stream holds an image of shape {decoded.shape}, the header says {expected}")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", decoded.dtype.itemsize * 8)
    return np.ascontiguousarray(_within_bits(decoded, header, runner)).data.cast("B")


def _within_bits(decoded: Pixels, header: StreamHeader, runner: DecodeRunner) -> Pixels:
    """Return numbers as BitsStored and PixelRepresentation have them (DICOM PS3.5 8.1.1, 8.2.1).

    Bits beyond them are dropped and signs extended; numbers that a lossy codec puts beyond the range are clipped.
    """
    signed, size = runner.pixel_representation == 1, decoded.dtype.itemsize * 8
    values: Pixels = decoded.view(f"{'ui'[signed]}{decoded.dtype.itemsize}")
    unsigned_stream = signed and not header.signed
    bits = min(runner.bits_stored, size, header.precision if unsigned_stream else size)
    if bits == size:
        return values
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not header.exact and not (unsigned_stream and bool((values > high + high // 4).any())):
        return np.clip(values, low, high)
    np.left_shift(values, size - bits, out=values)
    return np.right_shift(values, size - bits, out=values)


def _decoder(name: str, header: StreamHeader) -> Callable[[bytes], Pixels]:
    """Return what decodes a stream; JPEG keeps its colours as they are in the stream."""
    import imagecodecs

    decode: Callable[..., Pixels] = getattr(imagecodecs, f"{name}_decode")
    if name != "jpeg8" or header.samples == 1:
        return decode
    return lambda stream: decode(stream, colorspace="YCBCR", outcolorspace="YCBCR")


def _decode_whole(decode: Callable[[bytes], Pixels], source: bytes, header: StreamHeader, name: str) -> Pixels:
    """Decode a stream; one without its end mark only if it lacks nothing else."""
    if header.ended:
        return decode(source if name != "jpeg2k" or _END in source[-16:] else source + _END)
    if name in {"jpeg8", "ljpeg"}:
        rest = source.rstrip(b"\0")  # a file that was not written to its end may go on in zeros
        decoded = decode(rest + _END)
        if np.array_equal(decoded, decode(rest + _NOISE + _END)):
            return decoded
    raise ValueError(f"the stream of {len(source)} bytes is cut short: its end is missing")


def _decode_rle(source: bytes, runner: DecodeRunner) -> bytearray:
    """Return the planes of a frame of run lengths (DICOM PS3.5 annex G)."""
    import imagecodecs

    shape = runner.rows, runner.columns, runner.samples_per_pixel
    check_rle(source, *shape, runner.bits_allocated)
    decoded = imagecodecs.dicomrle_decode(source, np.dtype(f"<u{runner.bits_allocated // 8}"))
    size = int(np.prod(shape)) * (runner.bits_allocated // 8)
    if len(decoded) != size:
        raise ValueError(f"the stream holds {len(decoded)} bytes of pixels, the header says {size}")
    runner.set_option("planar_configuration", 1)
    return bytearray(decoded)


@lru_cache(maxsize=64)
def decoder_of(transfer_syntax_uid: str) -> Decoder:
    """Return pydicom's decoder with imagecodecs among its plugins.

    Raises
    ------
    NotImplementedError
        If pydicom knows no decoder for the transfer syntax.
    """
    decoder = get_decoder(transfer_syntax_uid)
    with _adding:
        if transfer_syntax_uid in _CODECS and PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
    return decoder


def plugin_of(transfer_syntax_uid: str) -> str:
    """Return the plugin to decode with; empty where none is needed."""
    return PLUGIN if transfer_syntax_uid in _CODECS else ""


def missing_decoder(transfer_syntax_uid: str) -> str:
    """Return why frames of a transfer syntax cannot be decoded here, and what to do; empty if they can."""
    if transfer_syntax_uid == ENCAPSULATED:
        return ""
    try:
        decoder = decoder_of(transfer_syntax_uid)
    except (NotImplementedError, ValueError):
        return "lazyvol has no decoder for it; convert the files to an uncompressed syntax first"
    if not decoder.is_encapsulated or _codec(transfer_syntax_uid):
        return ""
    return "imagecodecs has no codec for it here; install a complete one: pip install --upgrade imagecodecs"


def syntax_name(transfer_syntax_uid: str) -> str:
    """Return UID and name of a transfer syntax."""
    name = _NEWER.get(transfer_syntax_uid) or UID(transfer_syntax_uid).name
    return transfer_syntax_uid if name == transfer_syntax_uid else f"{transfer_syntax_uid} ({name})"
