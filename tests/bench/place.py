"""A folder of the bench's data, with what is true of it and how answers are held against that."""

from __future__ import annotations

import ctypes
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import limits
import numpy as np

__all__ = ["Index", "Place", "Row", "Work", "check_indexes", "checksum", "truth_of"]

Work = Callable[[], Any]


@dataclass(frozen=True)
class Place:
    """Data to work on: ``work`` or ``warm``."""

    folder: Path

    @cached_property
    def truth(self) -> dict[str, list[dict[str, Any]]]:
        """What is true of the series and of the collection."""
        found: dict[str, list[dict[str, Any]]] = json.loads((self.folder / "truth.json").read_text())
        return found

    @property
    def series(self) -> str:
        """Folder of the one series."""
        return str(self.folder / "series")

    @property
    def collection(self) -> list[str]:
        """Folders of the many series."""
        return [str(folder) for folder in sorted((self.folder / "collection").iterdir())]

    @property
    def enhanced(self) -> str:
        """The file of many frames."""
        return str(self.folder / "enhanced.dcm")

    @property
    def store(self) -> Path:
        """The Zarr store that lazyvol wrote of the series."""
        return self.folder / "lazyvol.zarr"

    @property
    def cubes(self) -> Path:
        """The same in chunks of 64^3, in shards of 64 slices, as zarr-python wrote it."""
        return self.folder / "cubes.zarr"

    @property
    def known(self) -> dict[str, Any]:
        """What is true of the one series."""
        return self.truth["series"][0]

    @property
    def middle(self) -> int:
        """The slice that is asked for."""
        return int(self.known["shape"][0]) // 2

    @property
    def centre(self) -> int:
        """The row and the column that are asked for."""
        return int(self.known["shape"][1]) // 2

    @property
    def ordered(self) -> list[str]:
        """The files of the series from the lowest z on; only a limit may know this."""
        return [f"{self.series}/{name}" for name in self.known["names"]]

    @property
    def loops(self) -> ctypes.CDLL | None:
        """The loops of the limits."""
        return limits.load(self.folder.parent)


Check = Callable[[Any, Place], str]
"""Returns "ok", or what is wrong."""


@dataclass(frozen=True)
class Row:
    """One piece of work, done by many."""

    title: str
    limit: str
    """What the limit is."""

    check: Check
    works: Mapping[str, Callable[[Place], Work]]
    """What makes the work of each competitor, imports and preparation included; ``limit`` first, then lazyvol."""

    at_most: Mapping[str, float]
    """Ratio to the limit that is asked of lazyvol, by competitor."""

    memory_at_most: Mapping[str, float] = field(default_factory=dict)
    """Memory above the imports that is asked of lazyvol, MB."""

    heavy: tuple[str, ...] = ()
    """Competitors that have three rounds at most, since they take seconds."""


@dataclass(frozen=True)
class Index:
    """What an index tells of a series."""

    names: list[str]
    """Files from the lowest z on; empty if the order is not told."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    """Along z, y and x, mm."""


def check_indexes(answers: dict[str, Index], truths: list[dict[str, Any]]) -> str:
    """Hold indexes, by SeriesInstanceUID, against what was written."""
    if len(answers) != len(truths):
        return f"WRONG: {len(answers)} series instead of {len(truths)}"
    ordered = True
    for known, (uid, found) in zip(truths, sorted(answers.items(), key=lambda a: _in_numbers(a[0])), strict=True):
        if uid not in ("", known["uid"]):
            return "WRONG: another series"
        if list(found.shape) != known["shape"]:
            return f"WRONG: shape {found.shape}"
        if not np.allclose(found.spacing, known["spacing"], rtol=1e-5):
            return f"WRONG: spacing {found.spacing}"
        if found.names and found.names != known["names"]:
            return "WRONG: order"
        ordered &= bool(found.names)
    return "ok" if ordered else "ok, order not told"


def _in_numbers(uid: str) -> list[int]:
    return [int(n) for n in uid.split(".") if n]


def truth_of(key: str) -> Check:
    """Return a check of one picture against its checksum."""
    return lambda answer, place: "ok" if checksum(answer) == place.known[key] else "WRONG values"


def checksum(values: Any) -> int:
    """Return the CRC-32 of whole numbers, whatever their type; 0 for others, or where int16 cannot hold them."""
    values = np.asarray(values)
    whole = values.astype("<i2")
    return zlib.crc32(np.ascontiguousarray(whole)) if np.array_equal(whole, values) else 0
