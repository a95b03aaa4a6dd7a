"""Uncompressed frames: just the rows asked for, as stored numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyvol.files import ReadInto, byte_reader
from lazyvol.rescale import arranged, only_stored_bits, stored_dtype
from lazyvol.sources import FrameSource

__all__ = ["read_rows"]

Indices = npt.NDArray[np.intp]
Pixels = npt.NDArray[Any]

_READ_THROUGH = 4096
"""Rows whose gap in the file is at most so many bytes are read in one go."""


def read_rows(source: FrameSource, path: str, rows: Indices) -> Pixels:
    """Return stored numbers of whole rows, sign extended and without unused bits.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns), or (rows, columns, samples) of colour, as its header has it.

    Raises
    ------
    PixelReadError
        If the file is cut short, or has changed.
    """
    pixels = source.pixels
    with byte_reader(source.file(path)) as read_into:
        if pixels.bits_allocated == 1:
            return _read_bits(source, path, rows, read_into)
        planes = pixels.samples_per_pixel if pixels.planar_configuration and not pixels.is_subsampled else 1
        width = pixels.frame_bits // (pixels.rows * planes * pixels.bits_allocated)
        read = [_read_plane(source, path, rows, width, n, read_into) for n in range(planes)]
    stored = only_stored_bits(read[0] if planes == 1 else np.stack(read), pixels)
    return arranged(stored, len(rows), pixels)


def _read_plane(source: FrameSource, path: str, rows: Indices, width: int, plane: int, read_into: ReadInto) -> Pixels:
    """Return rows of so many numbers each, of one plane of an image."""
    stored = np.empty((len(rows), width), stored_dtype(source.pixels))
    row_bytes = width * stored.itemsize
    assert source.offset is not None
    assert source.length is not None
    start = plane * source.pixels.rows * row_bytes
    most = source.pixels.rows if source.inflated_from else max(1, _READ_THROUGH // row_bytes)
    for first, part in _runs(rows, most):
        low, high = int(part.min()), int(part.max()) + 1
        if start + high * row_bytes > source.length:
            raise source.short(path)
        exact = len(part) == high - low and bool((part == np.arange(low, high)).all())
        target: Pixels = stored[first : first + len(part)] if exact else np.empty((high - low, width), stored.dtype)
        if read_into(memoryview(target.data).cast("B"), source.offset + start + low * row_bytes) < target.nbytes:
            raise source.short(path)
        if not exact:
            stored[first : first + len(part)] = target[part - low]
    return stored


def _runs(rows: Indices, most: int) -> Iterator[tuple[int, Indices]]:
    """Yield parts of ``rows`` that are read in one go, with the place of each in ``rows``."""
    breaks = np.flatnonzero(np.abs(np.diff(rows)) > most) + 1
    starts = [0, *(int(b) for b in breaks)]
    yield from zip(starts, np.split(rows, breaks), strict=True)


def _read_bits(source: FrameSource, path: str, rows: Indices, read_into: ReadInto) -> Pixels:
    """Return rows of a 1-bit frame, whose first bit need not begin a byte (DICOM PS3.5 8.1.1, annex D)."""
    pixels = source.pixels
    assert source.offset is not None
    first = source.index * pixels.frame_bits % 8
    low, high = int(rows.min()) * pixels.columns + first, (int(rows.max()) + 1) * pixels.columns + first
    packed = np.empty(-(-high // 8) - low // 8, np.uint8)
    if read_into(memoryview(packed.data), source.offset + low // 8) < packed.size:
        raise source.short(path)
    bits = np.unpackbits(packed, bitorder="little")[low % 8 : low % 8 + high - low]
    return np.asarray(bits.reshape(-1, pixels.columns)[rows - rows.min()])
