"""One frame, or part of it, as values: opens its file, reads or decodes, closes.

Uncompressed frames cost the bytes of the rows asked for; compressed ones are decoded
whole. No file stays open.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lazyvol.codecs import syntax_name
from lazyvol.decoding import decode_frame, red_green_blue
from lazyvol.errors import LazyvolWarning, PixelReadError
from lazyvol.failures import note_failure
from lazyvol.memory import empty
from lazyvol.records import PixelFormat
from lazyvol.rescale import arranged, in_place, only_stored_bits, rescale, stored_dtype
from lazyvol.rows import Run, as_slice, read_bits, read_words, runs_of, word_shape
from lazyvol.sources import FrameSource, FrameTable

__all__ = ["empty_values", "read_frames"]

Indices = npt.NDArray[np.signedinteger[Any]]
Pixels = npt.NDArray[Any]


def read_frames(
    table: FrameTable, which: Sequence[int] | Indices, rows: Indices, columns: Indices, *, out: Pixels | None = None
) -> Pixels:
    """Read parts of frames as values.

    Parameters
    ----------
    table
        Where the frames lie.
    which
        Numbers of the frames in the table; shape (n,). A negative one is an absent frame.
    rows, columns
        Indices of the rows and columns wanted, in any order.
    out
        Where the values go, in one piece of memory; a new array if absent.

    Returns
    -------
    numpy.ndarray
        Values of ``table.dtype``; shape (n, rows, columns), or (n, rows, columns, 3) of colour.

    Raises
    ------
    PixelReadError
        If a file is gone, cut short, or cannot be decoded; names file and frame.
    PixelRangeError
        If a value does not fit into the dtype; names file and value.
    """
    out = empty_values(table, len(which), len(rows), len(columns)) if out is None else out
    if not out.size:
        return out
    reader = _Reader(table, rows, columns)
    which = np.asarray(which)
    out[which < 0] = table.fill_value
    there = np.flatnonzero(which >= 0)
    for n, source in zip(there.tolist(), table.sources.some(which[there]), strict=True):
        path = table.path(source)
        try:
            reader.read(source, path, out[n])
        except PixelReadError as error:
            if not table.fill_unreadable:
                raise
            out[n] = table.fill_value
            note_failure(path, source.index)
            what = str(error).partition(". ")[0].rstrip(".")
            warnings.warn(f"{what}. It was filled with {table.fill_value:g}.", LazyvolWarning, stacklevel=2)
    return out


def empty_values(table: FrameTable, frames: int, rows: int, columns: int) -> Pixels:
    """Return memory for the values of so many frames; colour has its samples last."""
    samples = (table.samples,) if table.samples > 1 else ()
    return empty((frames, rows, columns, *samples), table.dtype)


class _Words(NamedTuple):
    """How the rows of an image that lies in its file as it is are read."""

    runs: tuple[Run, ...]
    """Rows that are read in one go."""

    shape: tuple[int, int, int]
    """Planes, rows and numbers of a row."""

    dtype: np.dtype[Any]
    """Type of the numbers."""

    straight: bool
    """Whether they can be read into the memory of their values."""


class _Part(NamedTuple):
    """Which part of an image is wanted, and how it is read; the same for frames of one layout."""

    rows: Indices
    """Its rows."""

    down: Indices | slice
    """Its rows, as a decoded image is indexed."""

    across: Indices | slice
    """Its columns, as an image is indexed."""

    shape: tuple[int, int]
    """How many rows and columns these are."""

    cells: Any
    """Where they belong, if some of those asked for lie outside of the image."""

    words: _Words | None
    """How they are read, if they are whole words in the file."""


def _part_of(source: FrameSource, rows: Indices, columns: Indices, table: FrameTable) -> _Part:
    pixels, cells, words = source.pixels, None, None
    if source.columns:
        (rows, columns), cells = _within(source, rows, columns)
    across = as_slice(columns)
    if source.length is not None and pixels.is_plain and pixels.bits_allocated > 1 and len(rows):
        runs = runs_of(rows, pixels, inflated=source.inflated_from > 0)
        whole = isinstance(across, slice) and len(columns) == pixels.columns
        fits = pixels.samples_per_pixel == table.samples and in_place(pixels, np.dtype(table.dtype))
        words = _Words(runs, word_shape(pixels, len(rows)), stored_dtype(pixels), whole and fits)
    return _Part(rows, as_slice(rows), across, (len(rows), len(columns)), cells, words)


def _within(source: FrameSource, rows: Indices, columns: Indices) -> tuple[tuple[Indices, Indices], Any]:
    """Return rows and columns of the stored image, and where they belong if some lie outside of it."""
    down, across = rows + source.corner[0], columns + source.corner[1]
    inside = [(v >= 0) & (v < n) for v, n in ((down, source.pixels.rows), (across, source.pixels.columns))]
    if inside[0].all() and inside[1].all():
        return (down, across), None
    return (down[inside[0]], across[inside[1]]), np.ix_(*inside)


class _Reader:
    """Reads frames one after the other, with what they share: how rows are read, a buffer, the last decoded image."""

    def __init__(self, table: FrameTable, rows: Indices, columns: Indices) -> None:
        self._table, self._rows, self._columns = table, rows, columns
        self._layout: tuple[Any, ...] = ()
        self._part: _Part | None = None
        self._buffer: Pixels | None = None
        self._key: tuple[str, int] | None = None
        self._image: Pixels | None = None

    def read(self, source: FrameSource, path: str, out: Pixels) -> None:
        """Write part of a frame into ``out``."""
        part, target = self._part_of(source), out
        if part.cells is not None:
            out[...] = self._table.fill_value
            target = np.empty((*part.shape, *out.shape[2:]), out.dtype)
        if target.size:
            stored = _read_stored(source, path, part, self, target)
            rescale(stored, source.scale, source.pixels, source.where(path), target)
        if part.cells is not None:
            out[part.cells] = target

    def _part_of(self, source: FrameSource) -> _Part:
        layout = source.pixels, source.corner, source.columns, source.length is None, source.inflated_from > 0
        if self._part is None or layout != self._layout:
            self._layout, self._part = layout, _part_of(source, self._rows, self._columns, self._table)
        return self._part

    def decoded(self, source: FrameSource, path: str) -> Pixels:
        """Return a decoded image, from memory if it was decoded last: tiles of one sheet follow each other."""
        if self._image is None or self._key != (path, source.index):
            self._key, self._image = (path, source.index), decode_frame(source, path)
        return self._image

    def memory(self, words: _Words, target: Pixels) -> Pixels:
        """Return memory for the words of a frame: that of its values, or a buffer that the next frame uses again."""
        if words.straight:
            return target.view(words.dtype).reshape(words.shape)
        if self._buffer is None or (self._buffer.shape, self._buffer.dtype) != (words.shape, words.dtype):
            self._buffer = np.empty(words.shape, words.dtype)
        return self._buffer


def _read_stored(source: FrameSource, path: str, part: _Part, reader: _Reader, target: Pixels) -> Pixels:
    """Return stored numbers, in the memory of their values where that can be; colours as red, green and blue."""
    try:
        if source.length is None or not source.pixels.is_plain:
            return reader.decoded(source, path)[part.down][:, part.across]
        if part.words is None:
            return read_bits(source, path, part.rows)[:, part.across]
        words = reader.memory(part.words, target)
        read_words(source, path, part.words.runs, words)
        return _numbers(words, source.pixels, part.across)
    except PixelReadError:
        raise
    except OSError as error:
        raise PixelReadError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from error
    except Exception as error:  # whatever a broken stream makes of a codec
        raise PixelReadError(
            f"{source.where(path)} cannot be decoded ({syntax_name(source.pixels.transfer_syntax_uid)}): "
            f"{_reason(error)}. The file is damaged; leave its slice out, or open the series with on_error='fill'."
        ) from error


def _numbers(words: Pixels, pixels: PixelFormat, across: Indices | slice) -> Pixels:
    """Return stored numbers of the columns wanted."""
    if pixels.samples_per_pixel == 1:
        return only_stored_bits(words[0][:, across], pixels)
    samples = arranged(only_stored_bits(words, pixels), words.shape[1], pixels)
    return red_green_blue(samples, pixels, pixels.photometric_interpretation)[:, across]


def _reason(error: Exception) -> str:
    """Return what a decoder says, in one line, without what pydicom puts before it."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return last.strip().removeprefix("imagecodecs: ").rstrip(".")[:200]
