"""Which further axes a stack has: what tells several images at one position apart.

The smallest set of header values that does so at every position becomes the axes before
z: echo, b-value and the like first, then time. Values that only agree in rank across the
positions give the rank as label (DICOM PS3.3 C.7.6.2, C.8.3.1, C.8.13.5).
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lazyvol.errors import UnsupportedSeriesError
from lazyvol.images import COMPONENTS, Images, Label
from lazyvol.keywords import INDEX
from lazyvol.records import Slice

__all__ = ["ORDER", "Axis", "Layout", "find_axes"]

ORDER = (
    "segment",
    "quantity",
    "energy_window",
    "detector",
    "phase",
    "rotation",
    "rr_interval",
    "time_slot",
    "angular_view",
    "time_slice",
    "time",
    "cardiac_phase",
    "respiratory_phase",
    "echo",
    "b_value",
    "flip_angle",
    "component",
)
"""Names of the axes before z, outermost first."""

_MEANINGS = (
    ("cardiac_phase", "NominalPercentageOfCardiacPhase", "%"),
    ("respiratory_phase", "NominalPercentageOfRespiratoryPhase", "%"),
    ("echo", "EchoTime", "ms"),
    ("b_value", "DiffusionBValue", "s/mm2"),
    ("flip_angle", "FlipAngle", "degree"),
    ("component", "component", ""),
    ("energy_window", "EnergyWindowVector", ""),
    ("detector", "DetectorVector", ""),
    ("phase", "PhaseVector", ""),
    ("rotation", "RotationVector", ""),
    ("rr_interval", "RRIntervalVector", ""),
    ("time_slot", "TimeSlotVector", ""),
    ("angular_view", "AngularViewVector", ""),
    ("time_slice", "TimeSliceVector", ""),
    ("segment", "ReferencedSegmentNumber", ""),
    ("quantity", "LUTLabel", ""),
)
"""Axis, keyword and units of values with a meaning of their own."""

_TIMES = (
    ("cardiac_phase", "TriggerTime", "ms"),
    ("time", "FrameReferenceTime", "ms"),
    ("time", "TemporalPositionTimeOffset", "s"),
    ("time", "AcquisitionTime", "s"),
    ("time", "TemporalPositionIdentifier", ""),
    ("echo", "EchoNumbers", ""),
    ("time", "AcquisitionNumber", ""),
    ("time", "InstanceNumber", ""),
)
"""Axis, keyword and units of values that mostly follow the clock, most telling first."""

_POINTERS = {
    "EffectiveEchoTime": "echo",
    "NominalCardiacTriggerDelayTime": "cardiac_phase",
    "TemporalPositionIndex": "time",
    "TemporalPositionTimeOffset": "time",
}
"""Axis by what a dimension index points to, where its keyword is not kept."""
_MOST_INDICES = 4
"""No more dimension indices are tried."""
_SAME_VALUE = 1e-3
"""Numbers that differ less are one value (ms, s, degrees ...)."""
_MOST_HOLES = 1 / 3
"""A grid that lacks more than this fraction of its images is no grid, unless it was asked for."""
_CARDIAC_STEP = 300.0
"""Trigger times at one position follow each other by less than this within a heart beat, ms."""
_HEART_BEAT = 3000.0
"""No heart beat lasts longer, ms."""

_Column = tuple[tuple[str, str, str], list[int]]
"""Axis, keyword and units; and the rank of each image's value."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A dimension before z."""

    name: str
    """One of `ORDER`, or what the caller asked for."""

    keyword: str
    """Header value that it was found by."""

    labels: tuple[Label, ...]
    """Its coordinate, ascending; 0 to n - 1 where only ranks agree."""

    units: str = ""
    """Units of the labels; empty for ranks and words."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Images on a grid of axes and positions."""

    axes: tuple[Axis, ...]
    """Dimensions before z, in order."""

    places: tuple[int, ...]
    """Number of the image in each cell, axes first and positions last (C order); -1 where there is none."""

    @property
    def holes(self) -> int:
        """Number of cells without an image."""
        return self.places.count(-1)


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to lay images out."""

    names: tuple[tuple[str, str, str], ...]
    """Axis, keyword and units of each axis."""

    cells: tuple[tuple[int, ...], ...]
    """Index along each axis, for each image."""

    lengths: tuple[int, ...]
    """Length of each axis."""

    holes: int
    """Cells without an image."""

    by_rank: bool = False
    """Whether the last axis counts ranks, because its values differ between positions."""


def find_axes(parts: Sequence[Slice], position: Sequence[int], dims: Mapping[str, str] | None = None) -> Layout | None:
    """Lay images out on axes and positions.

    Parameters
    ----------
    parts
        The images.
    position
        Number of the position of each, from 0.
    dims
        DICOM keyword for each axis wanted, instead of what would be found.

    Returns
    -------
    Layout or None
        None if no header value tells the images at every position apart.

    Raises
    ------
    UnsupportedSeriesError
        If ``dims`` does not tell them apart, or names a keyword that the headers lack.
    """
    if dims:
        return _lay_out(_as_asked(Images(parts), position, dims), Images(parts), position)
    images = Images(parts)
    options = [o for o in _options(images, position) if o.holes <= _MOST_HOLES * _cells(o, position)]
    return _lay_out(min(options, key=_merit), images, position) if options else None


def _cells(option: _Option, position: Sequence[int]) -> int:
    count = max(position) + 1
    for length in option.lengths:
        count *= length
    return count


def _merit(option: _Option) -> tuple[bool, bool, int, int, bool, bool, int, int]:
    """Order options: no last resort, complete, most meaningful, heart beats, agreeing values, most telling clock."""
    keywords = [k for _, k, _ in option.names]
    meanings = sum(k in {m for _, m, _ in _MEANINGS} for k in keywords)
    clock = next((n for n, (_, k, _) in enumerate(_TIMES) if k in keywords), -1)
    indices = sum(k.startswith(INDEX) for k in keywords)
    last_resort, no_beats = "InstanceNumber" in keywords, "TriggerTime" not in keywords
    return last_resort, option.holes > 0, indices, -meanings, no_beats, option.by_rank, clock, option.holes


def _options(images: Images, position: Sequence[int]) -> list[_Option]:
    meanings = [(name, _levels(images, name[1])) for name in _MEANINGS]
    varying = [(name, levels) for name, levels in meanings if levels and _varies_within(levels, position)]
    times = [
        (name, levels) for name in _TIMES if (levels := _levels(images, name[1])) and _usable(name, images, position)
    ]
    times = [(name, levels) for name, levels in times if _varies_within(levels, position)]
    found = _combined(varying, times, position)
    if any(not o.holes and "InstanceNumber" not in {k for _, k, _ in o.names} for o in found):
        return found
    indices = [((_axis_of_index(k), k, ""), _levels(images, k)) for k in images.indices]
    indices = [(name, levels) for name, levels in indices if levels and _varies_within(levels, position)]
    return [*found, *_combined([*varying, *indices[:_MOST_INDICES]], times, position)] if indices else found


def _combined(varying: list[_Column], times: list[_Column], position: Sequence[int]) -> list[_Option]:
    found = []
    for size in range(len(varying) + 1):
        for chosen in itertools.combinations(varying, size):
            found += _with_and_without_clock(list(chosen), times, position)
    return found


def _axis_of_index(keyword: str) -> str:
    """Return what an axis along a dimension index is called, by what the index points to."""
    pointer = keyword.removeprefix(INDEX)
    known = {k: name for name, k, _ in (*_MEANINGS, *_TIMES)} | _POINTERS
    return known.get(pointer) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", pointer).lower()


def _with_and_without_clock(
    chosen: list[_Column],
    times: list[_Column],
    position: Sequence[int],
) -> list[_Option]:
    named = {name[0] for name, _ in chosen}
    tries: list[_Option | None] = [_option(chosen, position)] if chosen else []
    for time in times:
        if time[0][0] not in named:
            by_value = time[0][1] != "InstanceNumber"
            tries.append(_option([*chosen, time], position) if by_value else None)
            tries.append(_ranked(chosen, time, position))
    return [t for t in tries if t is not None]


def _option(columns: list[_Column], position: Sequence[int]) -> _Option | None:
    """Lay out by values; None if two images share a cell."""
    cells = tuple(zip(*(levels for _, levels in columns), strict=True))
    if len(set(zip(position, cells, strict=True))) < len(cells):
        return None
    lengths = tuple(len(set(levels)) for _, levels in columns)
    total = max(position) + 1
    for length in lengths:
        total *= length
    return _Option(tuple(name for name, _ in columns), cells, lengths, total - len(cells))


def _ranked(
    chosen: list[_Column],
    time: _Column,
    position: Sequence[int],
) -> _Option | None:
    """Lay out by the rank of a clock within each position; None unless that fills the grid."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for n, where in enumerate(position):
        groups[(where, *(levels[n] for _, levels in chosen))].append(n)
    ranks = [0] * len(position)
    for members in groups.values():
        ordered = sorted(members, key=lambda n: time[1][n])
        if len({time[1][n] for n in members}) < len(members):
            return None
        for rank, n in enumerate(ordered):
            ranks[n] = rank
    option = _option([*chosen, (time[0], ranks)], position)
    if option is None or option.holes:
        return None
    return _Option(option.names, option.cells, option.lengths, 0, by_rank=True)


def _varies_within(levels: list[int], position: Sequence[int]) -> bool:
    """Whether some position has two different values."""
    first: dict[int, int] = {}
    return any(first.setdefault(where, level) != level for where, level in zip(position, levels, strict=True))


def _usable(name: tuple[str, str, str], images: Images, position: Sequence[int]) -> bool:
    """Whether TriggerTime is a delay within a heart beat; some makers write the time since the start there."""
    if name[1] != "TriggerTime":
        return True
    by_position: dict[int, set[float]] = defaultdict(set)
    for where, value in zip(position, images.values("TriggerTime"), strict=True):
        by_position[where].add(float(value or 0))
    ordered = [sorted(values) for values in by_position.values()]
    steps = (b - a for values in ordered for a, b in itertools.pairwise(values))
    return all(step < _CARDIAC_STEP for step in steps) and all(v[-1] - v[0] < _HEART_BEAT for v in ordered)


def _levels(images: Images, keyword: str) -> list[int]:
    """Return the rank of each image's value among all values; empty if any image lacks it."""
    values = images.values(keyword)
    if any(v is None for v in values):
        return []
    ranks = {v: n for n, v in enumerate(_distinct(values))}
    if all(isinstance(v, str) for v in values):
        return [ranks[v] for v in values if v is not None]
    return [_nearest_rank(float(v), ranks) for v in values if v is not None]


def _distinct(values: Sequence[Label | None]) -> list[Label]:
    known = {v for v in values if v is not None}
    if any(isinstance(v, str) for v in known):
        order = {name: n for n, name in enumerate(COMPONENTS)}
        return sorted(known, key=lambda v: (order.get(str(v), len(order)), str(v)))
    if all(isinstance(v, int) for v in known):
        return sorted(known)
    found: list[Label] = []
    for value in sorted(float(v) for v in known):
        if not found or value - float(found[-1]) > _SAME_VALUE:
            found.append(value)
    return found


def _nearest_rank(value: float, ranks: Mapping[Label, int]) -> int:
    found = ranks.get(value)
    return found if found is not None else min(ranks.items(), key=lambda item: abs(float(item[0] or 0) - value))[1]


def _as_asked(images: Images, position: Sequence[int], dims: Mapping[str, str]) -> _Option:
    columns = []
    units = {keyword: unit for _, keyword, unit in (*_MEANINGS, *_TIMES)}
    for name, keyword in dims.items():
        levels = _levels(images, keyword)
        if not levels:
            raise UnsupportedSeriesError(
                f"dims names {keyword!r} for {name}, which not every image has. They have "
                f"{', '.join(images.numeric())}, AcquisitionTime, InstanceNumber or component."
            )
        columns.append(((name, keyword, units.get(keyword, "")), levels))
    option = _option(columns, position)
    if option is None:
        raise UnsupportedSeriesError(
            f"dims={dict(dims)!r} does not tell the images at each position apart; add another axis, or leave dims out."
        )
    return option


def _lay_out(option: _Option, images: Images, position: Sequence[int]) -> Layout:
    order = sorted(range(len(option.names)), key=lambda n: _rank_of(option.names[n][0]))
    count = max(position) + 1
    total = _cells(option, position)
    places = [-1] * total
    for number, (cell, where) in enumerate(zip(option.cells, position, strict=True)):
        flat = 0
        for n in order:
            flat = flat * option.lengths[n] + cell[n]
        places[flat * count + where] = number
    axes = tuple(_axis(option, n, images) for n in order)
    return Layout(axes, tuple(places))


def _rank_of(name: str) -> int:
    return ORDER.index(name) if name in ORDER else -1


def _axis(option: _Option, n: int, images: Images) -> Axis:
    name, keyword, units = option.names[n]
    at_index: dict[int, list[Label | None]] = defaultdict(list)
    for cell, value in zip(option.cells, images.values(keyword), strict=True):
        at_index[cell[n]].append(value)
    labels = [_distinct(values) for _, values in sorted(at_index.items())]
    if name == "time":
        return Axis(name, keyword, *_seconds(option, n, images))
    ranks = keyword.startswith(INDEX) or (not units and keyword in {"EchoNumbers", "InstanceNumber"})
    if ranks or any(len(found) != 1 for found in labels):
        return Axis(name, keyword, tuple(float(k) for k in range(len(labels))))
    return Axis(name, keyword, tuple(found[0] for found in labels), units)


def _seconds(option: _Option, n: int, images: Images) -> tuple[tuple[Label, ...], str]:
    """Return time in s since the first where all positions agree on it, else ranks without units."""
    scales = {"ms": 1e-3, "s": 1.0}
    asked = [(option.names[n][1], scales[option.names[n][2]])] if option.names[n][2] in scales else []
    for keyword, scale in (*asked, ("FrameReferenceTime", 1e-3), ("AcquisitionTime", 1.0)):
        values = images.values(keyword)
        at_index: dict[int, list[Label | None]] = defaultdict(list)
        for cell, value in zip(option.cells, values, strict=True):
            at_index[cell[n]].append(value)
        found = [_distinct(v) for _, v in sorted(at_index.items())]
        known = None not in values and all(len(f) == 1 for f in found)
        if known and len({f[0] for f in found}) == len(found):
            seconds = [float(f[0]) * scale for f in found]
            if seconds == sorted(seconds):
                return tuple(round(s - seconds[0], 6) for s in seconds), "s"
    return tuple(float(k) for k in range(option.lengths[n])), ""
