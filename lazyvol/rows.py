"""Uncompressed frames: just the rows asked for, as the words that lie in the file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lazyvol.files import byte_reader
from lazyvol.records import PixelFormat
from lazyvol.sources import FrameSource

__all__ = ["Run", "as_slice", "read_bits", "read_words", "runs_of", "word_shape"]

Indices = npt.NDArray[np.signedinteger[Any]]
Pixels = npt.NDArray[Any]

_READ_THROUGH = 4096
"""Rows whose gap in the file is at most so many bytes are read in one go."""


class Run(NamedTuple):
    """Rows that are read in one go."""

    first: int
    """Place of the first of them among the rows asked for."""

    rows: int
    """How many rows were asked for."""

    low: int
    """The first row that is read."""

    high: int
    """The row after the last that is read."""

    within: Indices | None
    """Which of the rows read were asked for; None if all, in their order."""


def word_shape(pixels: PixelFormat, rows: int) -> tuple[int, int, int]:
    """Return planes, rows and numbers of a row of so many rows of an image, as they lie in the file."""
    planes = pixels.samples_per_pixel if pixels.planar_configuration and not pixels.is_subsampled else 1
    return planes, rows, pixels.frame_bits // (pixels.rows * planes * pixels.bits_allocated)


def as_slice(indices: Indices) -> Indices | slice:
    """Return ascending indices that are evenly spaced as a slice, which copies nothing; others as they are."""
    steps = np.diff(indices)
    if not len(indices) or (len(steps) and (steps[0] < 1 or (steps != steps[0]).any())):
        return indices
    return slice(int(indices[0]), int(indices[-1]) + 1, int(steps[0]) if len(steps) else 1)


def runs_of(rows: Indices, pixels: PixelFormat, *, inflated: bool) -> tuple[Run, ...]:
    """Return how rows, in any order, are read: those next to each other at once.

    What has to be inflated is read forwards, so from the first row to the last.
    """
    whole = as_slice(rows)
    if isinstance(whole, slice) and whole.step == 1:
        return (Run(0, len(rows), whole.start, whole.stop, None),)
    row_bytes = word_shape(pixels, 1)[2] * pixels.bits_allocated // 8
    most = pixels.rows if inflated else max(1, _READ_THROUGH // row_bytes)
    breaks = np.flatnonzero(np.abs(np.diff(rows)) > most) + 1
    runs = []
    for first, part in zip([0, *map(int, breaks)], np.split(rows, breaks), strict=True):
        low, high = int(part.min()), int(part.max()) + 1
        exact = len(part) == high - low and bool((part == np.arange(low, high)).all())
        runs.append(Run(first, len(part), low, high, None if exact else part - low))
    return tuple(runs)


def read_words(source: FrameSource, path: str, runs: tuple[Run, ...], words: Pixels) -> None:
    """Fill ``words`` with rows as they lie in the file.

    Parameters
    ----------
    source, path
        The frame, and its file.
    runs
        Its rows, of `runs_of`.
    words
        Where they go: of `rescale.stored_dtype` and `word_shape`, in one piece of memory.

    Raises
    ------
    PixelReadError
        If the file is cut short, or has changed.
    """
    assert source.offset is not None
    assert source.length is not None
    row_bytes = words.shape[2] * words.itemsize
    with byte_reader(source.file(path)) as read_into:
        for plane in range(words.shape[0]):
            start = plane * source.pixels.rows * row_bytes
            for first, count, low, high, within in runs:
                if start + high * row_bytes > source.length:
                    raise source.short(path)
                into = words[plane, first : first + count]
                target = into if within is None else np.empty((high - low, words.shape[2]), words.dtype)
                buffer = memoryview(target.data).cast("B")
                if read_into(buffer, source.offset + start + low * row_bytes) < len(buffer):
                    raise source.short(path)
                if within is not None:
                    into[...] = target[within]


def read_bits(source: FrameSource, path: str, rows: Indices) -> Pixels:
    """Return rows of a 1-bit frame, whose first bit need not begin a byte (DICOM PS3.5 8.1.1, annex D)."""
    pixels = source.pixels
    assert source.offset is not None
    first = source.index * pixels.frame_bits % 8
    low, high = int(rows.min()) * pixels.columns + first, (int(rows.max()) + 1) * pixels.columns + first
    packed = np.empty(-(-high // 8) - low // 8, np.uint8)
    with byte_reader(source.file(path)) as read_into:
        if read_into(memoryview(packed.data), source.offset + low // 8) < packed.size:
            raise source.short(path)
    bits = np.unpackbits(packed, bitorder="little")[low % 8 : low % 8 + high - low]
    return np.asarray(bits.reshape(-1, pixels.columns)[rows - rows.min()])
