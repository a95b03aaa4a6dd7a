"""Where the frames of a volume lie, and what their stored numbers become: values that are small, also when pickled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from lazyvol.errors import PixelReadError
from lazyvol.files import FileSource
from lazyvol.records import PixelFormat
from lazyvol.rescale import Scale

__all__ = ["FrameSource", "FrameSources", "FrameTable"]

Indices = npt.NDArray[np.signedinteger[Any]]


class FrameSource(NamedTuple):
    """Where one frame lies and how its stored numbers become values."""

    name: str
    """Its file, relative to the root of the table."""

    index: int  # type: ignore[assignment]  # in place of the method of tuples
    """Number of the frame in its file, from 0."""

    count: int  # type: ignore[assignment]  # in place of the method of tuples
    """Number of frames in its file."""

    offset: int | None
    """Byte where the frame begins; where the pixel element begins if length is None."""

    length: int | None
    """Bytes of the frame that the file holds; None if a decoder has to find them."""

    pixels: PixelFormat
    """Layout of the stored numbers."""

    scale: Scale = Scale()
    """What they become."""

    content: bytes | None = None
    """The whole file, if it is not on disk."""

    corner: tuple[int, int] = (0, 0)
    """Row and column of its first pixel in the stored image, for a tile of a mosaic."""

    columns: int = 0
    """Columns of a tile; 0 for a whole image."""

    modified: int = 0
    """When its file was last changed, ns since 1970, as it was opened; 0 where unknown."""

    inflated_from: int = 0
    """Byte where the deflated data set begins that the offset refers to; 0 for others."""

    def __repr__(self) -> str:
        """Name where it lies, without the content of its file."""
        return f"FrameSource({', '.join(f'{k}={v!r}' for k, v in self._asdict().items() if k != 'content')})"

    def file(self, path: str) -> FileSource:
        """Return its file, whose path is ``path``."""
        return FileSource(path, self.content, self.modified, self.inflated_from)

    def where(self, path: str) -> str:
        """Return how messages call it: frames are counted from 1."""
        return f"frame {self.index + 1} of {path}"

    def short(self, path: str) -> PixelReadError:
        """Return the error that its file does not hold it whole."""
        if self.inflated_from:
            return PixelReadError(
                f"{path} is cut short or damaged: what it inflates to does not hold frame {self.index + 1} whole. Copy "
                "the file again, leave its slice out, or open the series with on_error='fill'."
            )
        return PixelReadError(
            f"{path} is cut short: frame {self.index + 1} has {self.length} of {self.pixels.frame_bytes} bytes, or "
            "fewer since it was scanned. Copy the file again, leave its slice out, or open the series with "
            "on_error='fill'."
        )


class FrameSources(Sequence[FrameSource]):
    """The sources of many frames, by columns: what they share stands once, and none is an object until it is asked for.

    A volume of 20 000 files takes some 40 bytes for each, in memory and in the graph of a computation.
    """

    __slots__ = ("_columns", "_count")

    def __init__(self, sources: Iterable[FrameSource]) -> None:
        columns: tuple[list[Any], ...] = tuple([] for _ in FrameSource._fields)
        for source in sources:  # so that no more than one of them is there at a time
            for column, value in zip(columns, source, strict=True):
                column.append(value)
        self._count = len(columns[0])
        self._columns = tuple(map(_column_of, columns)) if columns[0] else ()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, n: int) -> FrameSource: ...
    @overload
    def __getitem__(self, n: slice) -> tuple[FrameSource, ...]: ...
    def __getitem__(self, n: int | slice) -> FrameSource | tuple[FrameSource, ...]:
        found = tuple(self.some(np.atleast_1d(np.arange(self._count)[n])))
        return found if isinstance(n, slice) else found[0]

    def __iter__(self) -> Iterator[FrameSource]:
        return self.some(np.arange(self._count))

    def some(self, which: Indices) -> Iterator[FrameSource]:
        """Yield the sources of some frames, by their numbers from 0."""
        if not len(which):
            return iter(())
        return map(FrameSource._make, zip(*(column.of(which) for column in self._columns), strict=False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrameSources) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_columns, (self._count, self._columns)


def _from_columns(count: int, columns: tuple[_Column, ...]) -> FrameSources:
    """Return the sources that were pickled."""
    sources = FrameSources(())
    sources._count, sources._columns = count, columns
    return sources


class _Coded(NamedTuple):
    """A column in which few values stand for many frames."""

    values: tuple[Any, ...]
    """The values, each once."""

    codes: Indices | None
    """Which of them each frame has; None if all have the one."""

    def of(self, which: Indices) -> Iterable[Any]:
        """Return the values of some frames."""
        if self.codes is None:
            return repeat(self.values[0], len(which))
        return map(self.values.__getitem__, self.codes[which].tolist())


class _Numbers(NamedTuple):
    """A column of whole numbers."""

    values: Indices
    """The number of each frame."""

    def of(self, which: Indices) -> Iterable[int]:
        """Return the numbers of some frames."""
        found: list[int] = self.values[which].tolist()
        return found


class _Names(NamedTuple):
    """A column of names, most of which differ."""

    text: str
    """All of them in one."""

    ends: Indices
    """Where each begins, and the last one ends."""

    def of(self, which: Indices) -> Iterable[str]:
        """Return the names of some frames."""
        places = zip(self.ends[which].tolist(), self.ends[which + 1].tolist(), strict=True)
        return [self.text[start:end] for start, end in places]


_Column = _Coded | _Numbers | _Names


def _column_of(values: list[Any]) -> _Column:
    codes = {value: n for n, value in enumerate(dict.fromkeys(values))}
    if 2 * len(codes) > len(values) > 1:
        if all(type(v) is str for v in values):
            text = "".join(values)
            return _Names(text, np.cumsum([0, *map(len, values)], dtype=np.int32 if len(text) < 2**31 else np.int64))
        if all(type(v) is int and -(2**63) <= v < 2**63 for v in values):
            return _Numbers(np.array(values, np.int64))
    which = np.array([codes[v] for v in values], np.min_scalar_type(-len(codes)))
    return _Coded(tuple(codes), None if len(codes) == 1 else which)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """All frames of a volume: a value that pickles small and holds no open file."""

    root: str
    """Folder that the names are relative to; empty if they are whole."""

    sources: FrameSources
    """One source for each frame, in the order of the volume."""

    dtype: str
    """Type of the values, e.g. ``int16``."""

    fill_value: float = 0.0
    """Value of the voxels of an absent frame, and of one that cannot be read where that is no error."""

    samples: int = 1
    """Numbers of a pixel: 1, or 3 of colour."""

    fill_unreadable: bool = False
    """Whether a frame that cannot be read is filled, with a warning, instead of raising."""

    def path(self, source: FrameSource) -> str:
        """Return the path of the file that holds a frame."""
        return os.path.join(self.root, source.name)
