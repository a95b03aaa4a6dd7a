"""imagecodecs as a decoder plugin of pydicom: exact, and decodes without holding the GIL.

pydicom finds a frame and corrects sign and unused bits; only the codec itself comes
from here. The names `is_available`, `DECODER_DEPENDENCIES` and `decode_frame` are what
pydicom asks of a plugin.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING

from pydicom.pixels.decoders.base import get_decoder

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder, DecodeRunner

__all__ = ["decoder_of", "missing_decoder", "plugin_of"]

PLUGIN = "imagecodecs"
_CODECS = {
    "1.2.840.10008.1.2.4.57": "ljpeg",
    "1.2.840.10008.1.2.4.70": "ljpeg",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2k",
    "1.2.840.10008.1.2.4.91": "jpeg2k",
}
"""Name of the codec in imagecodecs by transfer syntax (DICOM PS3.6 table A-1)."""

DECODER_DEPENDENCIES = dict.fromkeys(_CODECS, ("numpy", "imagecodecs>=2024.1.1"))
_adding = threading.Lock()


def is_available(uid: str) -> bool:
    """Return whether imagecodecs has the codec for a transfer syntax."""
    try:
        import imagecodecs
    except ImportError:
        return False
    return uid in _CODECS and bool(getattr(imagecodecs, _CODECS[uid].upper()).available)


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Return the samples of one encoded frame, and tell pydicom how many bits each takes up."""
    import imagecodecs

    decode = getattr(imagecodecs, _CODECS[str(runner.transfer_syntax)] + "_decode")
    decoded = decode(source)
    expected = (runner.rows, runner.columns)
    if decoded.shape[:2] != expected:
        raise ValueError(f"the stream holds {decoded.shape[:2]} rows and columns, the header says {expected}")
    runner.set_option("bits_allocated", decoded.dtype.itemsize * 8)
    return bytearray(decoded.tobytes())


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
    """Return the plugin to decode with; empty to leave the choice to pydicom."""
    return PLUGIN if PLUGIN in decoder_of(transfer_syntax_uid).available_plugins else ""


def missing_decoder(transfer_syntax_uid: str) -> str:
    """Return why frames of a transfer syntax cannot be decoded here, and what to install; empty if they can."""
    try:
        decoder = decoder_of(transfer_syntax_uid)
    except (NotImplementedError, ValueError):
        return "no decoder for it is known to pydicom; convert the files to an uncompressed syntax first"
    if decoder.is_available:
        return ""
    return "install one of: " + "; ".join(decoder.missing_dependencies)
