"""One frame, or part of it, as values: opens its file, reads or decodes, closes.

Uncompressed frames cost the bytes of the rows asked for; compressed ones are decoded
whole. No file stays open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import UID

from lazyvol.codecs import decoder_of, plugin_of
from lazyvol.errors import PixelReadError
from lazyvol.records import PixelFormat
from lazyvol.rescale import Scale, rescale

__all__ = ["FrameSource", "FrameTable", "read_frames"]

Indices = npt.NDArray[np.intp]
Pixels = npt.NDArray[Any]

_NO_TABLE = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
"""An empty basic offset table (DICOM PS3.5 A.4)."""
_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
"""The end of a pixel element (DICOM PS3.5 A.4)."""
_READ_THROUGH = 4096
"""Rows whose gap in the file is at most so many bytes are read in one go."""


@dataclass(frozen=True, slots=True)
class FrameSource:
    """Where one frame lies and how its stored numbers become values."""

    name: str
    """Its file, relative to the root of the table."""

    index: int
    """Number of the frame in its file, from 0."""

    count: int
    """Number of frames in its file."""

    offset: int | None
    """Byte where the frame begins; where the pixel element begins if length is None."""

    length: int | None
    """Bytes of the frame that the file holds; None if a decoder has to find them."""

    pixels: PixelFormat
    """Layout of the stored numbers."""

    slope: float
    """Value = stored * slope + intercept."""

    intercept: float
    """See slope."""

    content: bytes | None = field(default=None, repr=False)
    """The whole file, if it is not on disk."""

    corner: tuple[int, int] = (0, 0)
    """Row and column of its first pixel in the stored image, for a tile of a mosaic."""

    columns: int = 0
    """Columns of a tile; 0 for a whole image."""

    modified: int = 0
    """When its file was last changed, ns since 1970, as it was opened; 0 where unknown."""


@dataclass(frozen=True, slots=True)
class FrameTable:
    """All frames of a volume: a value that pickles small and holds no open file."""

    root: str
    """Folder that the names are relative to; empty if they are whole."""

    sources: tuple[FrameSource, ...]
    """One source for each frame, in the order of the volume."""

    dtype: str
    """Type of the values, e.g. ``int16``."""

    fill_value: float = 0.0
    """Value of the voxels of an absent frame."""

    def path(self, n: int) -> str:
        """Return the path of the file that holds frame ``n``."""
        return os.path.join(self.root, self.sources[n].name)


def read_frames(table: FrameTable, which: Sequence[int] | Indices, rows: Indices, columns: Indices) -> Pixels:
    """Read parts of frames as values.

    Parameters
    ----------
    table
        Where the frames lie.
    which
        Numbers of the frames in the table; shape (n,). A negative one is an absent frame.
    rows, columns
        Indices of the rows and columns wanted, in any order.

    Returns
    -------
    numpy.ndarray
        Values, stored * slope + intercept, of ``table.dtype``; shape (n, rows, columns).

    Raises
    ------
    PixelReadError
        If a file is gone, cut short, or cannot be decoded; names file and frame.
    PixelRangeError
        If a value does not fit into the dtype; names file and value.
    """
    out = np.empty((len(which), len(rows), len(columns)), np.dtype(table.dtype))
    if not out.size:
        return out
    sheets = _Sheets()
    for n, frame in enumerate(which):
        if frame < 0:
            out[n] = table.fill_value
            continue
        source, path = table.sources[frame], table.path(int(frame))
        target: Pixels = out[n]
        wanted = rows, columns
        if source.columns:
            wanted, cells = _within(source, rows, columns)
            if cells is not None:
                out[n] = table.fill_value
                target = np.empty((len(wanted[0]), len(wanted[1])), out.dtype)
        if target.size:
            stored = _read_stored(source, path, wanted[0], sheets)
            if not _is_whole(wanted[1], source.pixels.columns):
                stored = stored[:, wanted[1]]
            rescale(stored, Scale(source.pixels, source.slope, source.intercept, source.index, path), target)
        if source.columns and cells is not None:
            out[n][cells] = target
    return out


def _within(source: FrameSource, rows: Indices, columns: Indices) -> tuple[tuple[Indices, Indices], Any]:
    """Return rows and columns of the stored image, and where they belong if some lie outside of it."""
    down, across = rows + source.corner[0], columns + source.corner[1]
    inside = [(v >= 0) & (v < n) for v, n in ((down, source.pixels.rows), (across, source.pixels.columns))]
    if inside[0].all() and inside[1].all():
        return (down, across), None
    return (down[inside[0]], across[inside[1]]), np.ix_(*inside)


class _Sheets:
    """The last image that was decoded, for the tiles that follow it on its sheet."""

    def __init__(self) -> None:
        self._key: tuple[str, int] | None = None
        self._image: Pixels | None = None

    def decoded(self, source: FrameSource, path: str) -> Pixels:
        """Return a decoded image, from memory if it was decoded last."""
        if self._image is None or self._key != (path, source.index):
            self._key, self._image = (path, source.index), _decode(source, path)
        return self._image


def _is_whole(indices: Indices, length: int) -> bool:
    return len(indices) == length and bool((indices == np.arange(length)).all())


def _read_stored(source: FrameSource, path: str, rows: Indices, sheets: _Sheets) -> Pixels:
    """Return stored numbers of whole rows, sign extended and without unused bits."""
    try:
        if source.length is None or not source.pixels.is_native:
            return sheets.decoded(source, path)[rows]
        if source.pixels.bits_allocated == 1:
            return _read_bits(source, path, rows)
        return _only_stored_bits(_read_rows(source, path, rows), source.pixels)
    except PixelReadError:
        raise
    except OSError as error:
        raise PixelReadError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from error
    except Exception as error:  # whatever a broken stream makes of a codec
        raise PixelReadError(
            f"frame {source.index + 1} of {path} cannot be decoded ({UID(source.pixels.transfer_syntax_uid).name}): "
            f"{type(error).__name__}: {str(error)[:200]}. The file is damaged; leave its slice out."
        ) from error


def _read_rows(source: FrameSource, path: str, rows: Indices) -> Pixels:
    pixels = source.pixels
    stored = np.empty((len(rows), pixels.columns * pixels.samples_per_pixel), _stored_dtype(pixels))
    row_bytes = stored.shape[1] * stored.itemsize
    assert source.offset is not None
    assert source.length is not None
    with _reader(source, path) as read_into:
        for first, part in _runs(rows, max(1, _READ_THROUGH // row_bytes)):
            low, high = int(part.min()), int(part.max()) + 1
            if high * row_bytes > source.length:
                raise _short(source, path)
            exact = len(part) == high - low and bool((part == np.arange(low, high)).all())
            target: Pixels = (
                stored[first : first + len(part)] if exact else np.empty((high - low, stored.shape[1]), stored.dtype)
            )
            if read_into(memoryview(target.data).cast("B"), source.offset + low * row_bytes) < target.nbytes:
                raise _short(source, path)
            if not exact:
                stored[first : first + len(part)] = target[part - low]
    return stored


def _read_bits(source: FrameSource, path: str, rows: Indices) -> Pixels:
    """Return rows of a 1-bit frame, whose first bit need not begin a byte (DICOM PS3.5 8.1.1, annex D)."""
    pixels = source.pixels
    assert source.offset is not None
    first = source.index * pixels.frame_bits % 8
    low, high = int(rows.min()) * pixels.columns + first, (int(rows.max()) + 1) * pixels.columns + first
    packed = np.empty(-(-high // 8) - low // 8, np.uint8)
    with _reader(source, path) as read_into:
        if read_into(memoryview(packed.data), source.offset + low // 8) < packed.size:
            raise _short(source, path)
    bits = np.unpackbits(packed, bitorder="little")[low % 8 : low % 8 + high - low]
    return np.asarray(bits.reshape(-1, pixels.columns)[rows - rows.min()])


def _short(source: FrameSource, path: str) -> PixelReadError:
    whole = source.pixels.frame_bytes
    return PixelReadError(
        f"{path} is cut short: frame {source.index + 1} has {source.length} of {whole} bytes, or fewer since it was "
        "scanned. Copy the file again, or leave its slice out."
    )


def _runs(rows: Indices, most: int) -> Iterator[tuple[int, Indices]]:
    """Yield parts of ``rows`` that are read in one go, with the place of each in ``rows``."""
    breaks = np.flatnonzero(np.abs(np.diff(rows)) > most) + 1
    starts = [0, *(int(b) for b in breaks)]
    yield from zip(starts, np.split(rows, breaks), strict=True)


def _stored_dtype(pixels: PixelFormat) -> np.dtype[Any]:
    order = "<" if pixels.little_endian else ">"
    if pixels.element != "PixelData":
        return np.dtype(f"{order}f{pixels.bits_allocated // 8}")
    return np.dtype(f"{order}{'ui'[pixels.pixel_representation]}{pixels.bits_allocated // 8}")


def _only_stored_bits(stored: Pixels, pixels: PixelFormat) -> Pixels:
    """Shift out what is not part of the value; a shift back extends the sign (DICOM PS3.5 8.1.1)."""
    native = stored if stored.dtype.isnative else stored.astype(stored.dtype.newbyteorder("="))
    if native.dtype.kind == "f":
        return native
    unused = pixels.bits_allocated - pixels.bits_stored
    if unused:
        np.left_shift(native, unused, out=native)
        np.right_shift(native, unused, out=native)
    return native


@contextmanager
def _reader(source: FrameSource, path: str) -> Iterator[Any]:
    """Yield a function that fills a buffer from a byte of the file on, and returns how much it could."""
    if source.content is not None:
        yield lambda buffer, offset: _copy(source.content, buffer, offset)
    elif "://" in path:
        files, name = fsspec.core.url_to_fs(path)
        yield lambda buffer, offset: _copy(files.cat_file(name, offset, offset + len(buffer)), buffer, 0)
    else:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            _require_unchanged(source, path, file)
            yield lambda buffer, offset: _fill(file, buffer, offset)
        finally:
            os.close(file)


def _copy(content: bytes | None, buffer: memoryview, offset: int) -> int:
    part = (content or b"")[offset : offset + len(buffer)]
    buffer[: len(part)] = part
    return len(part)


def _fill(file: int, buffer: memoryview, offset: int) -> int:
    done = 0
    while done < len(buffer):
        count = _read_at(file, buffer[done:], offset + done)
        if not count:
            break
        done += count
    return done


def _read_at(file: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file, [buffer], offset)
    os.lseek(file, offset, os.SEEK_SET)
    part = os.read(file, len(buffer))
    buffer[: len(part)] = part
    return len(part)


def _decode(source: FrameSource, path: str) -> Pixels:
    """Return one frame of an encapsulated or deflated pixel element; shape (rows, columns)."""
    pixels = source.pixels
    options: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": pixels.samples_per_pixel,
        "photometric_interpretation": pixels.photometric_interpretation,
        "pixel_representation": pixels.pixel_representation,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "number_of_frames": source.count if source.length is None else 1,
        "planar_configuration": pixels.planar_configuration,
        "pixel_keyword": pixels.element,
        "pixel_vr": pixels.vr,
    }
    decoder, plugin = decoder_of(pixels.transfer_syntax_uid), plugin_of(pixels.transfer_syntax_uid)
    with _open(source, path) as file:
        stream: Any = file
        index = source.index
        if source.offset is None:
            stream = pydicom.dcmread(file, force=True)[pixels.element].value
        elif source.length is None:
            file.seek(source.offset)
        else:
            stream, index = _items(source, path), 0
        values, _ = decoder.as_array(stream, index=index, raw=True, decoding_plugin=plugin, **options)
    if values.shape[:2] != (pixels.rows, pixels.columns):
        raise PixelReadError(
            f"frame {source.index + 1} of {path} decodes to shape {values.shape}, not as its header says."
        )
    return values


def _items(source: FrameSource, path: str) -> bytes:
    """Return the fragments of one frame as a pixel element of its own, with an empty offset table."""
    assert source.offset is not None
    assert source.length is not None
    if not source.length:
        raise PixelReadError(
            f"{path} is cut short: it does not hold frame {source.index + 1}. Copy the file again, or leave it out."
        )
    items = np.empty(source.length, np.uint8)
    with _reader(source, path) as read_into:
        if read_into(memoryview(items.data), source.offset) < source.length:
            raise _short(source, path)
    encapsulated = _NO_TABLE + items.tobytes()
    whole = source.pixels.frame_bytes
    alike = whole <= len(encapsulated) <= whole + 1  # pydicom would take it for an uncompressed frame, and warn
    return encapsulated + _END if alike else encapsulated


def _open(source: FrameSource, path: str) -> Any:
    if source.content is not None:
        return BytesIO(source.content)
    if "://" in path:
        return fsspec.open(path, "rb").open()
    file = open(path, "rb")  # noqa: SIM115  # the caller closes it
    try:
        _require_unchanged(source, path, file.fileno())
    except PixelReadError:
        file.close()
        raise
    return file


def _require_unchanged(source: FrameSource, path: str, file: int) -> None:
    """Raise if a file is no longer that which was opened: its frames may lie elsewhere, or show something else."""
    if source.modified and os.fstat(file).st_mtime_ns != source.modified:
        raise PixelReadError(f"{path} has changed since its series was opened. Open the series again.")
