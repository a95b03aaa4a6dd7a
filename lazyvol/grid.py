"""From images at their positions to a grid: order, spacing, tilt and gaps, with findings.

Order and spacing come from positions along the normal of the slices, never from names,
InstanceNumber or SliceThickness (DICOM PS3.3 C.7.6.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lazyvol.errors import Finding, finding
from lazyvol.geometry import (
    DRIFT_ATOL,
    SPACING_ATOL,
    SPACING_RTOL,
    ZYX,
    Gaps,
    Geometry,
    Line,
    find_gaps,
    fit_line,
    slice_normal,
)
from lazyvol.records import Slice

__all__ = ["GAP_CODES", "Grid", "Tolerances", "fill_gaps", "flat_geometry", "grid_of", "positions_of"]

Array = npt.NDArray[np.float64]

GAP_CODES = frozenset({"missing-slices", "uneven-spacing", "slices-off-line"})
"""Codes of findings that say that slices are not where a grid would have them."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """When positions count as regular, and headers as alike."""

    spacing_rtol: float = SPACING_RTOL
    """A gap is regular within this fraction of the median gap, or within `spacing_atol`."""

    spacing_atol: float = SPACING_ATOL
    """See `spacing_rtol`; mm. Positions nearer than this to each other are one position."""

    orientation_atol: float = 1e-4
    """Direction cosines that differ more than this never share a grid."""

    pixel_spacing_rtol: float = 1e-3
    """Pixel spacings that differ more than this fraction never share a grid."""

    @property
    def places(self) -> float:
        """Largest distance along the normal between images at one position, mm."""
        return self.spacing_atol


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the slices of a stack lie."""

    geometry: Geometry
    """The voxels; uneven slices keep their positions."""

    slice_positions: tuple[float, ...] = ()
    """True position of each slice along z from the first, mm."""

    findings: tuple[Finding, ...] = ()
    """What is odd about it."""


def positions_of(parts: Sequence[Slice], tolerances: Tolerances) -> list[int]:
    """Return the number of each image's position, ascending along the normal (along x cross along y).

    Images whose positions along the normal differ by no more than the tolerance share a position.
    """
    heights = _points(parts) @ slice_normal(_common_orientation(parts))
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order]) > tolerances.places
    numbers = np.empty(len(parts), dtype=int)
    numbers[order] = np.concatenate([[0], np.cumsum(steps)])
    return [int(n) for n in numbers]


def grid_of(parts: Sequence[Slice], tolerances: Tolerances) -> Grid:
    """Return the grid of slices in order, one for each position."""
    orientation = _common_orientation(parts)
    if len(parts) == 1:
        return _one_slice(parts[0], orientation)
    line = fit_line(_points(parts), orientation)
    gaps = find_gaps(line.along, rtol=tolerances.spacing_rtol, atol=tolerances.spacing_atol)
    geometry = _geometry(parts, orientation, line, gaps)
    findings = [*_line_findings(line, gaps, tolerances), *_gap_findings(line, gaps), *_pixel_spacing_findings(geometry)]
    if geometry.drift > DRIFT_ATOL:
        findings.append(_tilt_finding(geometry))
    return Grid(geometry, line.along, tuple(findings))


def flat_geometry(parts: Sequence[Slice], count: int) -> Grid:
    """Return shape and pixel spacing of images that have no place in the patient."""
    spacing = parts[0].frame.pixel_spacing or (np.nan, np.nan)
    shape = (count, parts[0].instance.rows, parts[0].instance.columns)
    geometry = Geometry(shape, ZYX(np.nan, *spacing), frame_of_reference=_frame_of_reference(parts))
    return Grid(geometry, (), tuple(_pixel_spacing_findings(geometry)))


def fill_gaps(grid: Grid, tolerances: Tolerances) -> tuple[Grid, list[int]]:
    """Return the regular grid with places for the missing slices, and the old number of each place (-1: missing).

    A grid without missing slices, or with uneven ones, is returned as it is.
    """
    old = list(range(grid.geometry.shape[0]))
    if len(old) < 2 or not grid.slice_positions:
        return grid, old
    gaps = find_gaps(grid.slice_positions, rtol=tolerances.spacing_rtol, atol=tolerances.spacing_atol)
    if gaps.kind != "missing":
        return grid, old
    lacking = dict(zip(gaps.irregular, gaps.missing, strict=True))
    places = [p for k in old for p in (k, *[-1] * lacking.get(k, 0))]
    known = [n for n, p in enumerate(places) if p >= 0]
    along = np.interp(np.arange(len(places)), known, grid.slice_positions)
    g = grid.geometry
    spacing = ZYX(float(along[-1]) / (len(places) - 1), g.spacing.y, g.spacing.x)
    shape = (len(places), *g.shape[1:])
    filled = Geometry(shape, spacing, g.origin, g.directions, (), g.frame_of_reference, g.convention)
    return Grid(filled, tuple(map(float, along)), grid.findings), places


def _points(parts: Sequence[Slice]) -> Array:
    return np.array([p.frame.position for p in parts], dtype=float)


def _common_orientation(parts: Sequence[Slice]) -> Array:
    """Return the mean orientation with unit and orthogonal vectors."""
    distinct = sorted({p.frame.orientation or () for p in parts})
    mean = np.asarray(distinct[0] if len(distinct) == 1 else np.mean(distinct, axis=0), dtype=float)
    x = mean[:3] / np.linalg.norm(mean[:3])
    y = mean[3:] - np.dot(mean[3:], x) * x
    return np.concatenate([x, y / np.linalg.norm(y)])


def _frame_of_reference(parts: Sequence[Slice]) -> str:
    found = {p.instance.frame_of_reference_uid for p in parts}
    return found.pop() if len(found) == 1 else ""


def _geometry(parts: Sequence[Slice], orientation: Array, line: Line, gaps: Gaps) -> Geometry:
    first = parts[0]
    regular = gaps.kind == "regular"
    spacing = ZYX(gaps.spacing if regular else np.nan, *(first.frame.pixel_spacing or (np.nan, np.nan)))
    x, y = (tuple(float(v) for v in orientation[s]) for s in (slice(0, 3), slice(3, 6)))
    return Geometry(
        (len(parts), first.instance.rows, first.instance.columns),
        spacing,
        line.origin,
        (line.direction, y, x),  # type: ignore[arg-type]  # three numbers each
        () if regular else line.along,
        _frame_of_reference(parts),
        first.instance.convention,
    )


def _one_slice(part: Slice, orientation: Array) -> Grid:
    """One slice has no step: SpacingBetweenSlices, else SliceThickness as a guess, else unknown."""
    values = part.values
    between, thickness = (values.get(k) for k in ("SpacingBetweenSlices", "SliceThickness"))
    step, findings = np.nan, []
    if isinstance(between, float) and between > 0:
        step = between
    elif isinstance(thickness, float) and thickness > 0:
        step = thickness
        message = f"one slice has no neighbour to measure from; its SliceThickness of {step:g} mm serves as spacing z."
        findings.append(finding("spacing-guessed", message, values=(step,)))
    else:
        message = (
            "one slice without SpacingBetweenSlices and SliceThickness; spacing and field of view along z are NaN. "
            "Open it with its neighbours (siblings=True) if it has any."
        )
        findings.append(finding("spacing-unknown", message))
    x, y, z = (float(v) for v in slice_normal(orientation))
    line = Line(part.frame.position or (np.nan,) * 3, (x, y, z), (0.0,), (0.0,))
    geometry = _geometry([part], orientation, line, Gaps(step, "regular"))
    return Grid(geometry, (0.0,), (*findings, *_pixel_spacing_findings(geometry)))


def _pixel_spacing_findings(geometry: Geometry) -> list[Finding]:
    if np.isfinite(geometry.spacing.y):
        return []
    message = (
        "PixelSpacing is absent, so distances within the slices are not known; y and x have no coordinates. "
        "(ImagerPixelSpacing, if any, is measured at the detector and not used.)"
    )
    return [finding("pixel-spacing-unknown", message)]


def _line_findings(line: Line, gaps: Gaps, tolerances: Tolerances) -> list[Finding]:
    off = np.asarray(line.off)
    bad = np.flatnonzero(off > max(tolerances.spacing_rtol * gaps.spacing, tolerances.spacing_atol))
    if not bad.size:
        return []
    message = (
        f"{bad.size} of {off.size} slices lie up to {off.max():.3f} mm beside the line of the others (slices "
        f"{_some(bad)}); their y and x labels are off by that. Leave them out with isel(z=...)."
    )
    return [finding("slices-off-line", message, slices=tuple(map(int, bad)), values=(float(off.max()),))]


def _gap_findings(line: Line, gaps: Gaps) -> list[Finding]:
    if gaps.kind == "regular":
        return []
    width = np.diff(line.along)
    if gaps.kind == "missing":
        count = sum(gaps.missing)
        where = ", ".join(f"{n} after slice {k}" for k, n in zip(gaps.irregular[:8], gaps.missing[:8], strict=True))
        message = (
            f"{count} slice{'s are' if count > 1 else ' is'} missing from a spacing of {gaps.spacing:g} mm ({where}); "
            "the others keep their true positions, and spacing z is NaN. missing='fill' puts NaN in their place."
        )
        values = tuple(float(v) for v in width[list(gaps.irregular)])
        return [finding("missing-slices", message, slices=gaps.irregular, values=values)]
    message = (
        f"gaps between slices range from {width.min():g} to {width.max():g} mm (median {gaps.spacing:g}, "
        f"{len(gaps.irregular)} of {width.size} differ from it); true positions are kept, and spacing z is NaN."
    )
    return [finding("uneven-spacing", message, slices=gaps.irregular, values=(float(width.min()), float(width.max())))]


def _tilt_finding(geometry: Geometry) -> Finding:
    message = (
        f"the stack is sheared by {geometry.shear:.3f} degrees (gantry tilt): z runs along the step between slices, "
        "not along their normal, and the affine says so. rectify() resamples it to a straight grid."
    )
    return finding("tilted", message, values=(geometry.shear,))


def _some(indices: Iterable[int]) -> str:
    first = [str(int(k)) for k in itertools.islice(indices, 9)]
    return ", ".join(first[:8]) + (", ..." if len(first) > 8 else "")
