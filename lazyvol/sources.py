"""Where the frames of a volume lie, and what their stored numbers become: values that pickle small."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any

from lazyvol.errors import PixelReadError
from lazyvol.files import FileSource
from lazyvol.records import PixelFormat
from lazyvol.rescale import Scale

__all__ = ["FrameSource", "FrameTable"]


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

    scale: Scale = field(default_factory=Scale)
    """What they become."""

    content: bytes | None = field(default=None, repr=False)
    """The whole file, if it is not on disk."""

    corner: tuple[int, int] = (0, 0)
    """Row and column of its first pixel in the stored image, for a tile of a mosaic."""

    columns: int = 0
    """Columns of a tile; 0 for a whole image."""

    modified: int = 0
    """When its file was last changed, ns since 1970, as it was opened; 0 where unknown."""

    inflated_from: int = 0
    """Byte where the deflated data set begins that the offset refers to; 0 for others."""

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
    """Value of the voxels of an absent frame, and of one that cannot be read where that is no error."""

    samples: int = 1
    """Numbers of a pixel: 1, or 3 of colour."""

    fill_unreadable: bool = False
    """Whether a frame that cannot be read is filled, with a warning, instead of raising."""

    def path(self, n: int) -> str:
        """Return the path of the file that holds frame ``n``."""
        return os.path.join(self.root, self.sources[n].name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by columns, in which what all frames share stands once: a table is sent with every computation."""
        columns = [_packed([getattr(s, f.name) for s in self.sources]) for f in fields(FrameSource)]
        rest = self.dtype, self.fill_value, self.samples, self.fill_unreadable
        return _unpacked, (self.root, len(self.sources), columns, rest)


def _packed(column: list[Any]) -> tuple[tuple[Any, ...], tuple[int, ...] | None]:
    """Return the values of a column, each once and which of them every frame has if many are alike."""
    which = {value: n for n, value in enumerate(dict.fromkeys(column))}
    if 2 * len(which) > len(column) > 1:
        return tuple(column), None
    return tuple(which), None if len(which) < 2 else tuple(which[value] for value in column)


def _unpacked(root: str, count: int, columns: list[Any], rest: tuple[Any, ...]) -> FrameTable:
    """Return the table that was packed."""
    whole = [
        values * count if len(values) == 1 else values if which is None else [values[n] for n in which]
        for values, which in columns
    ]
    return FrameTable(root, tuple(FrameSource(*row) for row in zip(*whole, strict=True)), *rest)
