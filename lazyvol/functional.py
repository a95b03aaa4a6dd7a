"""The frames of a multi-frame file by its functional groups (DICOM PS3.3 C.7.6.16).

Each value comes from the group of the frame, else from the shared ones. What all frames share is
understood once, and so is each value that frames repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lazyvol.keywords import GROUP_BINARY, INDEX
from lazyvol.records import Frame, FrameSet, Value
from lazyvol.typed import Reader, kept_values

__all__ = ["frames_of_groups"]

_SPATIAL = frozenset(
    {
        "ImagePositionPatient",
        "ImagePositionVolume",
        "InStackPositionNumber",
        "PlanePositionSequence",
        "ReferencedSegmentNumber",
        "StackID",
    }
)
"""What dimension indices may point to that says where a frame lies, which its position says better."""

_TIMES = ("AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime")

Group = Mapping[str, bytes]


def frames_of_groups(
    shared: Group,
    groups: Sequence[Group],
    *,
    count: int,
    little_endian: bool,
    signed: bool,
    dimensions: Sequence[str] = (),
) -> FrameSet:
    """Return the frames that functional groups describe.

    Parameters
    ----------
    shared, groups
        Raw values by keyword: those of all frames, and those of each.
    count
        NumberOfFrames. Where there are fewer groups, the frames without one are left out.
    little_endian, signed
        Byte order of the values, and whether stored numbers are signed.
    dimensions
        Keywords that the dimension indices point to.
    """
    used = groups[:count]
    everyone = _common(shared, used)
    columns = _Columns(everyone, shared, used, little_endian)
    positions, orientations, convention = _places(columns)
    spacings = columns.read("PixelSpacing", Reader.pixel_spacing)
    slopes = columns.read("RescaleSlope", Reader.slope)
    intercepts = columns.read("RescaleIntercept", lambda r: r.number("RescaleIntercept") or 0.0)
    times = columns.read_together(_TIMES, Reader.acquisition_time)
    own = _own_values(columns, used, dimensions, signed)
    frames = tuple(
        Frame(index, position, orientation, spacing, slope, intercept, None, None, values, time)
        for index, (position, orientation, spacing, slope, intercept, values, time) in enumerate(
            zip(positions, orientations, spacings, slopes, intercepts, own, times, strict=True)
        )
    )
    kept = kept_values(columns.reader(everyone), signed=signed)
    scaled = [columns.read(k, lambda r, k=k: r.has(k)) for k in ("RescaleSlope", "RescaleIntercept")]  # type: ignore[misc]
    malformed = [
        *columns.malformed,
        *_lacking("PlanePositionSequence", [p is not None for p in positions]),
        *(case for column in scaled for case in _lacking("PixelValueTransformationSequence", column)),
    ]
    notes = _count_notes(len(groups), count)
    return FrameSet(frames, tuple(sorted(kept.items())), tuple(malformed), notes, convention=convention)


def _common(shared: Group, groups: Sequence[Group]) -> dict[str, bytes]:
    """Return the raw values that hold for every frame."""
    found = dict(shared)
    first = groups[0] if groups else {}
    found |= {k: raw for k, raw in first.items() if all(g.get(k) == raw for g in groups)}
    return {k: raw for k, raw in found.items() if not any(g.get(k, raw) != raw for g in groups)}


class _Columns:
    """The values of all frames by keyword; each distinct one is understood once."""

    def __init__(self, everyone: Group, shared: Group, groups: Sequence[Group], little_endian: bool) -> None:
        self._shared = {**shared, **everyone}
        self._groups = groups
        self._little_endian = little_endian
        self.varying = sorted({k for g in groups for k in g} - set(everyone))
        self.malformed: list[tuple[str, str]] = []

    def reader(self, group: Group) -> Reader:
        return Reader(group, little_endian=self._little_endian, binary=GROUP_BINARY)

    def read(self, keyword: str, understand: Callable[[Reader], Any]) -> list[Any]:
        """Return the value of one keyword for each frame."""
        return self.read_together((keyword,), understand)

    def read_together(self, keywords: tuple[str, ...], understand: Callable[[Reader], Any]) -> list[Any]:
        """Return for each frame what the raw values of some keywords say together."""
        known: dict[tuple[bytes | None, ...], Any] = {}
        shared = self._shared
        found = []
        for group in self._groups:
            raw = tuple(group.get(k, shared.get(k)) for k in keywords)
            if raw not in known:
                reader = self.reader({k: v for k, v in zip(keywords, raw, strict=True) if v is not None})
                known[raw] = understand(reader)
                self.malformed += reader.malformed
            found.append(known[raw])
        return found


def _places(columns: _Columns) -> tuple[list[Any], list[Any], str]:
    """Return position and orientation of each frame, and what they refer to."""
    positions = columns.read("ImagePositionPatient", Reader.position)
    orientations = columns.read("ImageOrientationPatient", Reader.orientation)
    if any(p is not None for p in positions):
        return positions, orientations, "LPS"
    in_volume = columns.read("ImagePositionVolume", lambda r: r.position("ImagePositionVolume"))
    if all(p is None for p in in_volume):
        return positions, orientations, "LPS"
    along = columns.read("ImageOrientationVolume", lambda r: r.orientation("ImageOrientationVolume"))
    return in_volume, along, "volume"


def _own_values(
    columns: _Columns, groups: Sequence[Group], dimensions: Sequence[str], signed: bool
) -> list[tuple[tuple[str, Value], ...]]:
    """Return for each frame the values in which frames differ, dimension indices included."""
    found: list[dict[str, Value]] = [{} for _ in groups]
    for keyword in columns.varying:
        if keyword in _TIMES or keyword == "DimensionIndexValues":
            continue
        values = columns.read(keyword, lambda r, k=keyword: kept_values(r, signed=signed, among=(k,)).get(k))  # type: ignore[misc]
        for kept, value in zip(found, values, strict=True):
            if value is not None:
                kept[keyword] = value
    numbers = columns.read("InstanceNumber", lambda r: r.integer("InstanceNumber"))
    for kept, number in zip(found, numbers, strict=True):
        if number is not None:
            kept["InstanceNumber"] = number
    _add_indices(found, columns.read("DimensionIndexValues", lambda r: r.numbers("DimensionIndexValues")), dimensions)
    return [tuple(sorted(kept.items())) for kept in found]


def _add_indices(
    found: list[dict[str, Value]], indices: list[tuple[float, ...] | None], dimensions: Sequence[str]
) -> None:
    for n, pointer in enumerate(dimensions):
        column = [row[n] if row is not None and len(row) == len(dimensions) else None for row in indices]
        if pointer in _SPATIAL or None in column or len(set(column)) < 2:
            continue
        for kept, value in zip(found, column, strict=True):
            kept[INDEX + pointer] = float(value or 0)


def _lacking(keyword: str, has: Sequence[bool]) -> list[tuple[str, str]]:
    """Name the frames that lack a group in a file of which others have it."""
    lacking = [str(n + 1) for n, there in enumerate(has) if not there]
    if not lacking or len(lacking) == len(has):
        return []
    shown = ", ".join(lacking[:8]) + (", ..." if len(lacking) > 8 else "")
    return [(keyword, f"absent from frame {shown}")]


def _count_notes(groups: int, count: int) -> tuple[tuple[str, str], ...]:
    if groups == count:
        return ()
    less = "the frames without one are left out" if groups < count else "the last of them have no pixels"
    return (("frame-count-wrong", f"NumberOfFrames is {count}, but {groups} frames have functional groups; {less}"),)
