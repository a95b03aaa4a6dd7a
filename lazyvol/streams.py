"""What the first bytes of a compressed frame say of it, so that no codec sees a stream that lies or is cut short.

Codecs take memory for what a stream says of itself, fill what a damaged one lacks with grey, or look
for its end for seconds. Nothing here decodes a sample.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["StreamError", "StreamHeader", "check_rle", "check_stream", "stream_header"]

_MOST_SEGMENTS = 1 << 14
"""Marker segments, boxes or tile-parts that are walked over before a stream is given up."""
_DCT = {0xC0: (8,), 0xC1: (8, 12), 0xC2: (8, 12)}
"""Bits of a sample by SOF marker of the lossy processes (ITU-T T.81 table B.2)."""
_JPEG = _DCT | {0xC3: tuple(range(2, 17))}
_JPEG_LS = {0xF7: tuple(range(2, 17))}
"""Those of lossless JPEG (T.81) and JPEG-LS (T.87 C.2.2)."""
_FRAMES = {f"1.2.840.10008.1.2.4.{n}": _JPEG for n in (50, 51, 57, 70)} | {
    f"1.2.840.10008.1.2.4.{n}": _JPEG_LS for n in (80, 81)
}
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93, 201, 202, 203))
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
"""First box of a JP2 file (ITU-T T.800 I.5.1)."""
_SOI, _EOI, _SOS, _DNL, _LSE, _APP0, _APP14 = 0xD8, b"\xff\xd9", 0xDA, b"\xff\xdc\0\x04", 0xF8, 0xE0, 0xEE
_SIZ, _SOT, _COD = 0xFF51, 0xFF90, 0xFF52


class StreamError(ValueError):
    """A compressed frame that is damaged, cut short, or not what its file says."""


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a compressed frame says of itself."""

    rows: int
    """Number of rows."""

    columns: int
    """Number of columns."""

    samples: int
    """Samples of a pixel."""

    precision: int
    """Bits of a sample."""

    signed: bool = False
    """Whether its samples are signed; JPEG 2000 alone can say so."""

    colour: str = ""
    """``YCBCR``, ``RGB`` or, in JPEG 2000, ``MCT`` for a multiple component transform; empty if the stream is mute."""

    ended: bool = True
    """Whether the stream has its end: an end marker or, in JPEG 2000, all bytes of its tile-parts."""

    exact: bool = True
    """Whether it gives the very numbers that were encoded; JPEG by DCT, near-lossless and irreversible ones do not."""


def stream_header(data: bytes, transfer_syntax_uid: str) -> StreamHeader:
    """Return what a compressed frame says of itself.

    Parameters
    ----------
    data
        All bytes of one frame, without the headers of its items; bytes may follow its end.
    transfer_syntax_uid
        A syntax of JPEG (DICOM PS3.5 A.4.1), JPEG-LS (A.4.3), JPEG 2000 or HTJ2K (A.4.4).

    Raises
    ------
    StreamError
        If it is not of that syntax, ends before its samples begin, or says what cannot be.

    Examples
    --------
    >>> siz = bytes.fromhex("ff4f ff51 0029 0000 00000005 00000004 00000000 00000000"
    ...                     "00000005 00000004 00000000 00000000 0001 8b0101")
    >>> cod = bytes.fromhex("ff52 000c 00 00 0001 00 05 04 04 00 01")
    >>> stream_header(siz + cod + bytes.fromhex("ff90 000a 0000 0000000e 0001 ff93 ffd9"), "1.2.840.10008.1.2.4.90")
    StreamHeader(rows=4, columns=5, samples=1, precision=12, signed=True, colour='', ended=True, exact=True)
    """
    try:
        if transfer_syntax_uid in _JPEG_2000:
            return _jpeg_2000(data)
        return _jpeg(data, _FRAMES[transfer_syntax_uid])
    except KeyError:
        raise StreamError(f"{transfer_syntax_uid} is no syntax whose streams are known") from None
    except (struct.error, IndexError):
        raise StreamError(f"the stream is cut short within its header, after {len(data)} bytes") from None


def check_stream(
    data: bytes, transfer_syntax_uid: str, *, rows: int, columns: int, samples: int, must_end: bool = True
) -> StreamHeader:
    """Return what a compressed frame says of itself if it can hold what the file says.

    Parameters
    ----------
    data, transfer_syntax_uid
        As of `stream_header`.
    rows, columns, samples
        Rows, Columns and SamplesPerPixel of the file.
    must_end
        Whether a stream without its end is refused; no codec of JPEG says which samples it lacks.

    Raises
    ------
    StreamError
        If the stream is damaged or cut short, or says otherwise than the file.
    """
    found = stream_header(data, transfer_syntax_uid)
    said, wanted = (found.rows, found.columns, found.samples), (rows, columns, samples)
    if said != wanted:
        words = ["{} x {} pixels of {} samples".format(*each) for each in (said, wanted)]
        raise StreamError(f"the stream holds {words[0]}, the header of the file says {words[1]}")
    if must_end and not found.ended:
        raise StreamError(f"the stream of {len(data)} bytes is cut short: its end is missing")
    return found


def check_rle(data: bytes, rows: int, columns: int, samples: int, bits_allocated: int) -> None:
    """Raise if an RLE frame cannot hold its samples (DICOM PS3.5 annex G).

    Raises
    ------
    StreamError
        If its segments are not one for each byte of a pixel, lie outside of it, or are too short to expand to a frame.
    """
    if len(data) < 64:
        raise StreamError(f"the stream is cut short within its RLE header, after {len(data)} bytes")
    count, *offsets = struct.unpack_from("<16I", data)
    expected = samples * -(-bits_allocated // 8)
    if count != expected:
        raise StreamError(
            f"the stream holds {count} RLE segments, the header of the file says {samples} samples of "
            f"{bits_allocated} bits, which are {expected}"
        )
    bounds = [*offsets[:count], len(data)]
    if count > 15 or bounds[0] < 64 or any(a >= b for a, b in itertools.pairwise(bounds)):
        raise StreamError(f"the RLE segments begin at {offsets[:count]} in {len(data)} bytes: not in order or beyond")
    for number, (begin, end) in enumerate(itertools.pairwise(bounds), 1):
        most = (end - begin) // 2 * 128
        if most < rows * columns:
            raise StreamError(
                f"RLE segment {number} is cut short: its {end - begin} bytes hold at most {most} of {rows * columns} "
                "pixels"
            )


def _jpeg(data: bytes, frames: dict[int, tuple[int, ...]]) -> StreamHeader:
    """Return the header of a JPEG or JPEG-LS stream (T.81 B.1, T.87 annex C)."""
    sof, body, colour, size = 0, b"", "", (0, 0)
    for marker, at, length in _segments(data):
        part = data[at : at + length]
        if marker in frames:
            if sof:
                raise StreamError("the stream holds two frame headers")
            sof, body = marker, part
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            raise StreamError(f"the stream is of process SOF{marker & 0x3F}, which its transfer syntax does not allow")
        elif marker == _LSE and part[:1] == b"\x04":
            size = _oversize(part)
        elif marker == _APP14 and part[:5] == b"Adobe" and length >= 12:
            colour = {0: "RGB", 1: "YCBCR"}.get(part[11], colour)
        elif marker == _APP0 and part[:5] == b"JFIF\0":
            colour = colour or "YCBCR"
        elif marker == _SOS:
            found = _frame_header(data, at + length, sof, body, colour, size)
            near = part[1 + 2 * part[0] : 2 + 2 * part[0]] if part and sof == 0xF7 else b""
            return replace(found, exact=sof not in _DCT and not near.strip(b"\0"))
    raise StreamError("the stream has no scan")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, place and length of each segment up to the first scan."""
    if data[:2] != bytes((0xFF, _SOI)):
        raise StreamError(f"the stream begins with {data[:4].hex() or 'nothing'}, not with ffd8")
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if data[at : at + 1] != b"\xff":
            raise StreamError(f"the stream has no marker at byte {at}" if at < len(data) else _short(data))
        while data[at : at + 1] == b"\xff":
            at += 1
        marker = data[at]
        if marker in (0x00, 0x01, *range(0xD0, 0xDA)):
            raise StreamError(f"marker ff{marker:02x} at byte {at - 1} stands before any scan")
        (length,) = struct.unpack_from(">H", data, at + 1)
        if length < 2:
            raise StreamError(f"the segment at byte {at - 1} has length {length}")
        if at + 1 + length > len(data):
            raise StreamError(_short(data))
        yield marker, at + 3, length - 2
        at += 1 + length
    raise StreamError(f"the stream has more than {_MOST_SEGMENTS} segments before its scan")


def _short(data: bytes) -> str:
    return f"the stream is cut short within its header, after {len(data)} bytes"


def _oversize(part: bytes) -> tuple[int, int]:
    """Return rows and columns of a parameter segment for images beyond 65535 (T.87 C.2.4.1.4)."""
    width = part[1]
    if len(part) < 2 + 2 * width:
        raise StreamError("the segment of the size of a JPEG-LS image is too short")
    return int.from_bytes(part[2 : 2 + width], "big"), int.from_bytes(part[2 + width : 2 + 2 * width], "big")


def _frame_header(data: bytes, scan: int, sof: int, body: bytes, colour: str, size: tuple[int, int]) -> StreamHeader:
    """Return what the frame header says of a stream whose first scan begins at a byte."""
    if not sof:
        raise StreamError("the stream has a scan and no frame header before it")
    precision, rows, columns, samples = struct.unpack_from(">BHHB", body)
    if len(body) != 6 + 3 * samples or not samples:
        raise StreamError(f"the frame header of {len(body)} bytes does not describe {samples} samples")
    if precision not in (_JPEG_LS | _JPEG)[sof]:
        raise StreamError(f"the stream says {precision} bits a sample, which its process does not know")
    rows, columns = rows or size[0], columns or size[1]
    if not rows:
        line = data.find(_DNL, scan)
        rows = int.from_bytes(data[line + 4 : line + 6], "big") if line >= 0 else 0
    if not rows or not columns:
        raise StreamError(f"the stream says {rows} x {columns} pixels")
    least = rows if sof == 0xF7 else rows * columns // 32 if sof in _DCT else rows * columns
    held = len(data) - scan
    if least > 8 * held:
        raise StreamError(f"the stream is cut short: {rows} x {columns} pixels do not fit in {held} bytes")
    if samples != 3 or sof == 0xF7:
        colour = ""
    elif not colour and body[6::3] == b"RGB":
        colour = "RGB"
    return StreamHeader(rows, columns, samples, precision, False, colour, data.rfind(_EOI, scan) >= 0)


def _jpeg_2000(data: bytes) -> StreamHeader:
    """Return the header of a JPEG 2000 codestream, alone or in the boxes of a JP2 file (T.800 annex A, I.5)."""
    start = _codestream(data) if data.startswith(_JP2) else 0
    if data[start : start + 4] != b"\xff\x4f\xff\x51":
        raise StreamError(f"the stream begins with {data[start : start + 4].hex() or 'nothing'}, not with ff4fff51")
    length, _, *grid, samples = struct.unpack_from(">HH8IH", data, start + 4)
    if not samples or length != 38 + 3 * samples:
        raise StreamError(f"the size segment of {length} bytes does not describe {samples} samples")
    parts = data[start + 42 : start + 42 + 3 * samples]
    bits, across, down = parts[0], parts[1], parts[2]
    if parts != parts[:3] * samples:
        if len(parts) < 3 * samples:
            raise StreamError(_short(data))
        raise StreamError("the samples of a pixel differ in precision, sign or sampling")
    columns, rows, tiles = _size(tuple(grid), across, down)
    if bits & 0x7F > 37:
        raise StreamError(f"the stream says {(bits & 0x7F) + 1} bits a sample, at most 38 exist")
    transform, exact, at = _main_header(data, start + 4 + length)
    colour = "MCT" if transform and samples >= 3 else ""
    ended = _has_tiles(data, at, tiles)
    return StreamHeader(rows, columns, samples, (bits & 0x7F) + 1, bits >= 0x80, colour, ended, exact)


def _codestream(data: bytes) -> int:
    """Return where the codestream of a JP2 file begins."""
    at = 0
    for _ in range(_MOST_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 16 if length == 1 else 8
        if kind == b"jp2c":
            return at + head
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
        if length < head:
            raise StreamError(f"the box at byte {at} has length {length}")
        at += length
    raise StreamError(f"the stream has more than {_MOST_SEGMENTS} boxes")


def _size(grid: tuple[int, ...], across: int, down: int) -> tuple[int, int, int]:
    """Return columns and rows of an image on its reference grid, and its tiles (T.800 B.2, B.3)."""
    right, bottom, left, top, wide, high, tile_left, tile_top = grid
    if not (across and down and wide and high):
        raise StreamError(f"the stream says tiles of {wide} x {high} points and steps of {across} x {down}")
    if left >= right or top >= bottom:
        raise StreamError(f"the stream begins its image at {left}, {top} and ends it at {right}, {bottom}")
    if not (tile_left <= left < tile_left + wide and tile_top <= top < tile_top + high):
        raise StreamError(
            f"the first tile, at {tile_left}, {tile_top}, does not hold the first pixel, at {left}, {top}"
        )
    tiles = -((tile_left - right) // wide) * -((tile_top - bottom) // high)
    if tiles > 65535:
        raise StreamError(f"the stream says {tiles} tiles, at most 65535 exist")
    columns, rows = -(-right // across) - -(-left // across), -(-bottom // down) - -(-top // down)
    if not (columns and rows):
        raise StreamError(f"the stream says {rows} x {columns} pixels")
    return columns, rows, tiles


def _main_header(data: bytes, at: int) -> tuple[int, bool, int]:
    """Return whether components are transformed, whether reversibly, and where the first tile-part begins."""
    transform, exact = -1, False
    for _ in range(_MOST_SEGMENTS):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _SOT:
            if transform < 0:
                raise StreamError("the stream does not say how it is coded")
            return transform, exact, at
        if marker < 0xFF00 or length < 2:
            raise StreamError(f"the stream has no marker segment at byte {at}")
        if marker == _COD:
            transform, exact = data[at + 8], data[at + 13] == 1
        at += 2 + length
    raise StreamError(f"the stream has more than {_MOST_SEGMENTS} segments before its tiles")


def _has_tiles(data: bytes, at: int, tiles: int) -> bool:
    """Whether all tile-parts lie within the data, by the length that each says, or an end marker follows them."""
    seen = set()
    for _ in range(_MOST_SEGMENTS):
        if data[at : at + 2] != b"\xff\x90" or len(data) - at < 12:
            break
        _, _, tile, length, part, parts = struct.unpack_from(">HHHIBB", data, at)
        if length < 12 or at + length > len(data):
            break
        at += length
        if part + 1 >= parts > 0 or not parts:
            seen.add(tile)
    whole = len(seen) == tiles and not data[at:].strip(b"\0")
    return whole or data.rfind(_EOI, at) >= 0
