"""One DICOM file for any transfer syntax, bits, sign and photometric interpretation, from numbers that a test gives.

What each encoder can do, as tried with imagecodecs 2026.3.6 and pydicom 3.0.2:

==========================  ========================================================================================
JPEG, DCT (jpeg8)           8 bits, colour with and without transform; 12 bits, grey; unsigned
JPEG lossless (jpeg8)       2 to 16 bits, grey and colour, any predictor; unsigned
JPEG lossless (ljpeg)       1 to 16 bits, grey, with its own predictor; unsigned
JPEG-LS (jpegls)            8 or 16 bits of precision, grey and colour; unsigned
JPEG-LS (pyjpegls)          any precision from 2 to 16 bits; unsigned
JPEG 2000 (jpeg2k)          any precision to 26 bits, signed too, colour with and without transform
HTJ2K (htj2k)               8, 16 or 32 bits of precision, signed too, colour with and without transform
RLE (pydicom)               8, 16 and 32 bits; dicomrle_encode of imagecodecs does not exist
==========================  ========================================================================================

A signed number goes as its two's complement into a stream that knows no sign (DICOM PS3.5 8.2.1, note 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from jpeg_ls import encode_pixel_data
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels import get_encoder
from pydicom.uid import UID

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
ENCAPSULATED, DEFLATED = "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
BASELINE, EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
LOSSLESS, LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
LS, LS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HT_LOSSLESS, HT_RPCL, HT = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
GREY_MULTIFRAME, COLOUR_MULTIFRAME = f"{SECONDARY_CAPTURE}.3", f"{SECONDARY_CAPTURE}.4"

Encode = Callable[[np.ndarray], bytes]


@dataclass(frozen=True)
class Layout:
    """How numbers are put into a file."""

    syntax: str = EXPLICIT
    bits_stored: int = 16
    signed: bool = False
    photometric: str = "MONOCHROME2"
    planar: int = 0
    bits_allocated: int = 0
    """By default 1 for native single bits, else the least of 8, 16 and 32 that suffices."""
    high_bit: int = -1
    """By default BitsStored - 1."""
    lossy: bool = False
    """JPEG-LS within one grey level; irreversible wavelet."""
    fragments: int = 1
    """Items of each frame."""
    table: str = "basic"
    """Offset table of encapsulated frames: basic, extended or empty."""

    @property
    def allocated(self) -> int:
        if self.bits_allocated:
            return self.bits_allocated
        if self.bits_stored == 1 and self.syntax in NATIVE and self.is_grey:
            return 1
        return next(bits for bits in (8, 16, 32) if bits >= self.bits_stored)

    @property
    def shift(self) -> int:
        """Unused bits below the value."""
        return max(0, self.high_bit + 1 - self.bits_stored)

    @property
    def is_grey(self) -> bool:
        return self.photometric.startswith(("MONOCHROME", "PALETTE"))

    @property
    def dtype(self) -> np.dtype:
        """Smallest type for BitsStored and sign."""
        bits = next(bits for bits in (8, 16, 32) if bits >= self.bits_stored)
        return np.dtype(f"{'ui'[self.signed]}{bits // 8}")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest number that can be stored."""
        half = 2 ** (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


def stored_for(layout: Layout, shape=(1, 16, 18), *, smooth=False, margin=0) -> np.ndarray:
    """Return random numbers over all of the range; or a smooth ramp, for lossy codecs. Colour is (..., 3)."""
    low, high = layout.limits
    low, high = low + margin, high - margin
    size = shape if layout.is_grey else (*shape, 3)
    if smooth:
        frame, row, column, *sample = np.indices(size) / np.array(size).reshape(-1, *(1,) * len(size))
        share = 0.1 + 0.5 * row + 0.25 * column + 0.05 * frame + (0.08 * sample[0] if sample else 0)
        return (low + share * (high - low)).astype(layout.dtype)
    numbers = np.random.default_rng(layout.bits_stored).integers(low, high, size, endpoint=True)
    numbers.ravel()[:2] = low, high
    return numbers.astype(layout.dtype)


def ybr_of(rgb: np.ndarray) -> np.ndarray:
    """Return YBR_FULL of RGB (DICOM PS3.3 C.7.6.3.1.2), rounded, of the same type."""
    half = (int(np.iinfo(rgb.dtype).max) + 1) // 2
    matrix = np.array([[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5000], [0.5000, -0.4187, -0.0813]])
    values = np.rint(rgb @ matrix.T + [0, half, half])
    return values.clip(0, 2 * half - 1).astype(rgb.dtype)


def rgb_of(ybr: np.ndarray) -> np.ndarray:
    """Return RGB of YBR_FULL, the inverse of the formula of the standard, rounded, of the same type."""
    half = (int(np.iinfo(ybr.dtype).max) + 1) // 2
    matrix = np.array([[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5000], [0.5000, -0.4187, -0.0813]])
    values = np.rint((ybr - np.array([0.0, half, half])) @ np.linalg.inv(matrix).T)
    return values.clip(0, 2 * half - 1).astype(ybr.dtype)


def with_palette(stored: np.ndarray, entry_bits: int, *, order: str = "<"):
    """Return numbers that a palette of 256 entries knows, its elements, and the colours that the numbers mean."""
    numbers = stored.astype(int) % 256
    entries = np.random.default_rng(entry_bits).integers(0, 2**entry_bits, (3, 256)).astype("u2")
    return numbers.astype(stored.dtype), palette(entries, 0, entry_bits, order=order), colours_of(numbers, entries, 0)


def palette(entries: np.ndarray, first: int, entry_bits: int, *, order: str = "<") -> dict[str, object]:
    """Return the elements of a palette; entries have shape (3, n), words the byte order ``order``."""
    made: dict[str, object] = {}
    for colour, table in zip(("Red", "Green", "Blue"), entries, strict=True):
        made[f"{colour}PaletteColorLookupTableDescriptor"] = [table.size % 65536, first, entry_bits]
        content = _even(table.astype(f"{order}u{entry_bits // 8}").tobytes())
        swapped = entry_bits == 8 and order == ">"  # bytes lie in words (DICOM PS3.5 annex D)
        made[f"{colour}PaletteColorLookupTableData"] = (
            np.frombuffer(content, "u2").byteswap().tobytes() if swapped else content
        )
    return made


def colours_of(numbers: np.ndarray, entries: np.ndarray, first: int) -> np.ndarray:
    """Return the colours of numbers; those outside of a palette have its first or last (PS3.3 C.7.6.3.1.5)."""
    places = (numbers.astype(int) - first).clip(0, entries.shape[1] - 1)
    bits = 8 if entries.max() < 256 else 16
    return np.moveaxis(entries[:, places], 0, -1).astype(f"u{bits // 8}")


def write_encoded(
    path: Path,
    stored: np.ndarray,
    layout: Layout,
    *,
    encode: Encode | None = None,
    unused: int = 0,
    **values: object,
) -> Path:
    """Write numbers as one DICOM file and return its path.

    Parameters
    ----------
    path
        Where to write.
    stored
        Numbers; shape (frames, rows, columns) or (frames, rows, columns, 3). What each means is for the photometric
        interpretation to say, but YBR_FULL_422 under JPEG, YBR_RCT and YBR_ICT are given as RGB: there the encoder
        transforms.
    layout
        How they are put into the file.
    encode
        Makes the stream of a frame of words; by default the encoder for the syntax.
    unused
        Bits to set in each word outside of the value, as overlays do.
    values
        Further elements by keyword; None leaves an element out.
    """
    made = _header(stored, layout)
    for keyword, value in values.items():
        if value is None:
            del made[keyword]
        else:
            setattr(made, keyword, value)
    words = words_of(stored, layout, unused)
    if layout.syntax in NATIVE:
        made.PixelData = _native(words, layout)
        made["PixelData"].VR = "OB" if layout.allocated <= 8 and layout.syntax != IMPLICIT else "OW"
    else:
        coder = encode or encoder_of(layout)
        _put_frames(made, [coder(frame) for frame in words], layout)
    if layout.syntax in NATIVE:
        pydicom.dcmwrite(path, made, enforce_file_format=True)
    else:
        path.write_bytes(_explicit_little_endian(made))
    return path


def _explicit_little_endian(made: Dataset) -> bytes:
    """Return a file as every encapsulated syntax has it (PS3.5 A.4), also one that pydicom does not know."""
    made["PixelData"].is_undefined_length = True
    buffer = DicomBytesIO(b"\0" * 128 + b"DICM")
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    buffer.seek(0, 2)
    write_file_meta_info(buffer, made.file_meta)
    write_dataset(buffer, made)
    return buffer.getvalue()


def words_of(stored: np.ndarray, layout: Layout, unused: int = 0) -> np.ndarray:
    """Return numbers as unsigned words of BitsAllocated, two's complement, moved up to HighBit."""
    mask = 2**layout.bits_stored - 1
    words = (stored.astype(np.int64) & mask) << layout.shift | unused & ~(mask << layout.shift)
    return words.astype(f"u{max(layout.allocated, 8) // 8}")


def numbers_of(words: np.ndarray, layout: Layout) -> np.ndarray:
    """Return words of BitsAllocated as the numbers that they mean, of the type of the layout."""
    numbers = words.astype(np.int64)
    if layout.signed:
        half = 2 ** (layout.bits_stored - 1)
        numbers = (numbers + half) % (2 * half) - half
    return numbers.astype(layout.dtype)


def _header(stored: np.ndarray, layout: Layout) -> Dataset:
    made = Dataset()
    said = {
        "SOPClassUID": SECONDARY_CAPTURE if len(stored) == 1 else GREY_MULTIFRAME,
        "SOPInstanceUID": "1.2.3.4.1",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "Modality": "OT",
        "InstanceNumber": 1,
        "SamplesPerPixel": 1 if layout.is_grey else 3,
        "PhotometricInterpretation": layout.photometric,
        "Rows": stored.shape[1],
        "Columns": stored.shape[2],
        "BitsAllocated": layout.allocated,
        "BitsStored": layout.bits_stored,
        "HighBit": layout.bits_stored - 1 if layout.high_bit < 0 else layout.high_bit,
        "PixelRepresentation": int(layout.signed),
    }
    if not layout.is_grey:
        said |= {"PlanarConfiguration": layout.planar}
        if len(stored) > 1:
            said |= {"SOPClassUID": COLOUR_MULTIFRAME}
    if len(stored) > 1:
        said |= {"NumberOfFrames": len(stored)}
    for keyword, value in said.items():
        setattr(made, keyword, value)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(layout.syntax)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def _native(words: np.ndarray, layout: Layout) -> bytes:
    if layout.allocated == 1:
        content = np.packbits(words.ravel(), bitorder="little").tobytes()
    else:
        content = _arranged(words, layout).astype(words.dtype.newbyteorder("<>"[layout.syntax == BIG_ENDIAN])).tobytes()
    return _even(content)


def _even(content: bytes) -> bytes:
    return content + b"\0" * (len(content) % 2)


def _arranged(words: np.ndarray, layout: Layout) -> np.ndarray:
    """Return frames with their samples in the order of the file (DICOM PS3.3 C.7.6.3.1.3)."""
    if layout.is_grey:
        return words
    if layout.photometric == "YBR_FULL_422":  # Y1 Y2 Cb Cr, of pairs of pixels (DICOM PS3.3 C.7.6.3.1.2)
        pairs = words.reshape(*words.shape[:2], -1, 2, 3)
        return np.concatenate([pairs[..., 0], pairs[..., :1, 1], pairs[..., :1, 2]], axis=-1)
    return np.moveaxis(words, -1, 1) if layout.planar else words


def _put_frames(made: Dataset, frames: list[bytes], layout: Layout) -> None:
    if layout.table == "extended":
        made.PixelData, made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    else:
        made.PixelData = encapsulate(frames, fragments_per_frame=layout.fragments, has_bot=layout.table == "basic")
    made["PixelData"].VR = "OB"


def encoder_of(layout: Layout) -> Encode:
    """Return what makes the stream of one frame of words, shape (rows, columns[, 3]).

    Raises
    ------
    NotImplementedError
        If no encoder here makes such a stream; the message says why.
    """
    missing = missing_encoder(layout)
    if missing:
        raise NotImplementedError(missing)
    return lambda frame: bytes(_ENCODERS[layout.syntax](frame, layout))


def missing_encoder(layout: Layout) -> str:
    """Return why no encoder makes such a stream; empty if one does."""
    syntax, bits = layout.syntax, layout.bits_stored
    if syntax in (J2K_LOSSLESS, J2K) and bits > 26:
        return "OpenJPEG, the one encoder, keeps no more than 26 bits"
    if syntax == HT and layout.lossy and bits > 16:
        return "OpenJPH has no irreversible wavelet for 32 bits"
    return ""


def _uncompressed(frame: np.ndarray, layout: Layout) -> bytes:
    return _native(frame[np.newaxis], replace(layout, syntax=EXPLICIT, bits_allocated=layout.allocated))


def _rle(frame: np.ndarray, layout: Layout) -> bytes:
    bits = layout.allocated
    return get_encoder(RLE).encode(
        frame.astype(f"<u{bits // 8}"),
        encoding_plugin="pydicom",
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=1 if layout.is_grey else 3,
        number_of_frames=1,
        bits_allocated=bits,
        bits_stored=bits,
        pixel_representation=0,
        photometric_interpretation=layout.photometric,
        **({} if layout.is_grey else {"planar_configuration": 0}),
    )


def _jpeg(frame: np.ndarray, layout: Layout) -> bytes:
    if layout.is_grey:
        return imagecodecs.jpeg8_encode(frame, 98, bitspersample=layout.bits_stored)
    if layout.photometric == "RGB":
        return imagecodecs.jpeg8_encode(frame, 98, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    return imagecodecs.jpeg8_encode(frame, 98, colorspace="RGB", outcolorspace="YCBCR", subsampling="422")


def _jpeg_lossless(frame: np.ndarray, layout: Layout) -> bytes:
    # Precision is 2 to 16 bits (ISO 10918-1 B.2.2). .70 has predictor 1; .57 any: that of ljpeg is 6.
    options = {"lossless": True, "predictor": 1 if layout.syntax == LOSSLESS_SV1 else 6}
    if layout.is_grey and layout.syntax == LOSSLESS:
        return imagecodecs.ljpeg_encode(frame, bitspersample=max(2, layout.bits_stored))
    if not layout.is_grey:
        space = "RGB" if layout.photometric == "RGB" else "YCBCR"
        options |= {"colorspace": space, "outcolorspace": space}
    return imagecodecs.jpeg8_encode(frame, bitspersample=max(2, layout.bits_stored), **options)


def _ls(frame: np.ndarray, layout: Layout) -> bytes:
    return imagecodecs.jpegls_encode(frame, level=int(layout.lossy))


def ls_of_precision(bits: int, near: int = 0) -> Encode:
    """Return a JPEG-LS encoder whose streams say a precision."""

    def encode(frame: np.ndarray) -> bytes:
        rows, columns = frame.shape
        sizes = {"rows": rows, "columns": columns, "samples_per_pixel": 1}
        return bytes(
            encode_pixel_data(
                frame.tobytes(), lossy_error=near, bits_allocated=frame.itemsize * 8, bits_stored=bits, **sizes
            )
        )

    return encode


def _j2k(frame: np.ndarray, layout: Layout) -> bytes:
    numbers = frame if not layout.signed else numbers_of(frame, layout).astype(frame.dtype.str.replace("u", "i"))
    return imagecodecs.jpeg2k_encode(
        numbers,
        level=98 if layout.lossy else 0,
        codecformat="j2k",
        bitspersample=layout.bits_stored,
        reversible=not layout.lossy,
        mct=layout.photometric in ("YBR_RCT", "YBR_ICT"),
        resolutions=2,
    )


def _htj2k(frame: np.ndarray, layout: Layout) -> bytes:
    numbers = frame if not layout.signed else numbers_of(frame, layout).astype(frame.dtype.str.replace("u", "i"))
    options = {"level": 1e-5} if layout.lossy else {}
    if layout.syntax == HT_RPCL:
        options |= {"tlm": True}
    if not layout.is_grey:
        options |= {"rgb": layout.photometric in ("YBR_RCT", "YBR_ICT")}  # htj2k_decode gives the others by plane
    return imagecodecs.htj2k_encode(numbers, reversible=not layout.lossy, **options)


_ENCODERS: Mapping[str, Callable[[np.ndarray, Layout], bytes]] = {
    ENCAPSULATED: lambda frame, layout: _native(
        frame[np.newaxis], replace(layout, syntax=EXPLICIT, bits_allocated=layout.allocated)
    ),
    RLE: _rle,
    BASELINE: _jpeg,
    EXTENDED: _jpeg,
    LOSSLESS: _jpeg_lossless,
    LOSSLESS_SV1: _jpeg_lossless,
    LS: _ls,
    LS_NEAR: _ls,
    J2K_LOSSLESS: _j2k,
    J2K: _j2k,
    HT_LOSSLESS: _htj2k,
    HT_RPCL: _htj2k,
    HT: _htj2k,
}
