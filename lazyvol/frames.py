"""One frame, or part of it, as values: opens its file, reads or decodes, closes.

Uncompressed frames cost the bytes of the rows asked for; compressed ones are decoded
whole. No file stays open.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyvol.codecs import syntax_name
from lazyvol.decoding import decode_frame, red_green_blue
from lazyvol.errors import LazyvolWarning, PixelReadError
from lazyvol.failures import note_failure
from lazyvol.rescale import rescale
from lazyvol.rows import read_rows
from lazyvol.sources import FrameSource, FrameTable

__all__ = ["read_frames"]

Indices = npt.NDArray[np.intp]
Pixels = npt.NDArray[Any]


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
        Values of ``table.dtype``; shape (n, rows, columns), or (n, rows, columns, 3) of colour.

    Raises
    ------
    PixelReadError
        If a file is gone, cut short, or cannot be decoded; names file and frame.
    PixelRangeError
        If a value does not fit into the dtype; names file and value.
    """
    samples = (table.samples,) if table.samples > 1 else ()
    out = np.empty((len(which), len(rows), len(columns), *samples), np.dtype(table.dtype))
    if not out.size:
        return out
    sheets = _Sheets()
    for n, frame in enumerate(which):
        if frame < 0:
            out[n] = table.fill_value
            continue
        source, path = table.sources[frame], table.path(int(frame))
        try:
            _read_one(source, path, rows, columns, sheets, out[n], table.fill_value)
        except PixelReadError as error:
            if not table.fill_unreadable:
                raise
            out[n] = table.fill_value
            note_failure(path, source.index)
            what = str(error).partition(". ")[0].rstrip(".")
            warnings.warn(f"{what}. It was filled with {table.fill_value:g}.", LazyvolWarning, stacklevel=2)
    return out


def _read_one(
    source: FrameSource, path: str, rows: Indices, columns: Indices, sheets: _Sheets, out: Pixels, fill_value: float
) -> None:
    """Write part of a frame into ``out``."""
    target, cells = out, None
    if source.columns:
        (rows, columns), cells = _within(source, rows, columns)
        if cells is not None:
            out[...] = fill_value
            target = np.empty((len(rows), len(columns), *out.shape[2:]), out.dtype)
    if target.size:
        stored = _read_stored(source, path, rows, sheets)
        if not _is_whole(columns, source.pixels.columns):
            stored = stored[:, columns]
        rescale(stored, source.scale, source.pixels, source.where(path), target)
    if cells is not None:
        out[cells] = target


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
            self._key, self._image = (path, source.index), decode_frame(source, path)
        return self._image


def _is_whole(indices: Indices, length: int) -> bool:
    return len(indices) == length and bool((indices == np.arange(length)).all())


def _read_stored(source: FrameSource, path: str, rows: Indices, sheets: _Sheets) -> Pixels:
    """Return stored numbers of whole rows; colours as red, green and blue."""
    try:
        if source.length is None or not source.pixels.is_plain:
            decoded = sheets.decoded(source, path)
            return decoded if _is_whole(rows, source.pixels.rows) else decoded[rows]
        samples = read_rows(source, path, rows)
        return red_green_blue(samples, source.pixels, source.pixels.photometric_interpretation)
    except PixelReadError:
        raise
    except OSError as error:
        raise PixelReadError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from error
    except Exception as error:  # whatever a broken stream makes of a codec
        raise PixelReadError(
            f"{source.where(path)} cannot be decoded ({syntax_name(source.pixels.transfer_syntax_uid)}): "
            f"{_reason(error)}. The file is damaged; leave its slice out, or open the series with on_error='fill'."
        ) from error


def _reason(error: Exception) -> str:
    """Return what a decoder says, in one line, without what pydicom puts before it."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return last.strip().removeprefix("imagecodecs: ").rstrip(".")[:200]
