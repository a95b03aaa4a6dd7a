"""A stack on the grid of another volume, where their voxels coincide.

Nothing is resampled: planes and pixels that coincide are put at their places, and what the stack
does not hold is empty.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lazyvol.errors import GeometryError
from lazyvol.geometry import Geometry
from lazyvol.grid import GAP_CODES
from lazyvol.stacks import Stack

__all__ = ["stack_on_grid"]

_ATOL = 0.02
"""Voxel centres coincide within this, mm, or within `_RTOL` of a voxel."""
_RTOL = 1e-2

Array = npt.NDArray[np.float64]


def stack_on_grid(stack: Stack, grid: Geometry) -> Stack:
    """Return a stack with the planes, rows and columns of a grid.

    Parameters
    ----------
    stack
        What is to be placed.
    grid
        Where its voxels shall lie. It may have more planes and pixels than the stack, or fewer.

    Raises
    ------
    GeometryError
        If the place of either is unknown, they have different frames of reference, or their voxels do
        not coincide; says by how much.
    """
    own = stack.geometry
    _require_comparable(own, grid)
    rows, columns = own.shape[1:]
    corners = own.index_to_position([(0, 0, 0), (0, rows - 1, 0), (0, 0, columns - 1)])
    start, down, across = grid.position_to_index(corners)
    _require_same_pixels(own, grid, start, down, across)
    places = _plane_places(own, grid)
    shift = int(np.rint(-start[1])), int(np.rint(-start[2]))
    whole = shift == (0, 0) and own.shape[1:] == grid.shape[1:]
    if not whole and any(s.instance.tile for s in stack.slices):
        raise GeometryError("a mosaic cannot be cut or moved within its planes; select from the volume that it gives.")
    old = np.asarray(stack.places).reshape(-1, own.shape[0])
    found = np.where(places < 0, -1, old[:, places])
    notes = tuple(f for f in stack.findings if f.code not in GAP_CODES)
    ends = shift[0] + grid.shape[1], shift[1] + grid.shape[2]
    padded = min(shift) < 0 or ends[0] > rows or ends[1] > columns
    return replace(
        stack,
        geometry=grid,
        slice_positions=(),
        places=tuple(map(int, found.ravel())),
        findings=notes,
        window=None if whole else shift,
        padded=padded,
    )


def _require_comparable(own: Geometry, grid: Geometry) -> None:
    if not own.is_known or not grid.is_known:
        which = "the volume given as like" if own.is_known else "the series"
        raise GeometryError(f"where {which} lies in the patient is not known, so one cannot be put on the other.")
    if not own.frame_of_reference and grid.frame_of_reference:
        raise GeometryError("the series has no FrameOfReferenceUID, so nothing says that its positions compare.")
    if own.convention != grid.convention or own.frame_of_reference != grid.frame_of_reference:
        raise GeometryError(
            "the frame of reference of the series is not that of the volume given as like, so their positions do not "
            "compare. Open like from its files: a store keeps its FrameOfReferenceUID only with identifiers='uids'."
        )


def _require_same_pixels(own: Geometry, grid: Geometry, start: Array, below: Array, beside: Array) -> None:
    """Raise unless rows and columns run alike, pixel on pixel."""
    for axis, n in (("columns", 2), ("rows", 1), ("planes", 0)):
        cosine = float(np.clip(np.dot(own.directions[n], grid.directions[n]), -1, 1))
        angle = float(np.degrees(np.arccos(abs(cosine) if n == 0 else cosine)))
        if angle > 0.1 and (n or own.shape[0] > 1):
            raise GeometryError(
                f"the {axis} of the series and of the volume given as like differ by {angle:.1f} degrees; only grids "
                "whose voxels coincide can be matched. Resample one of them."
            )
    steps = np.array([below[1] - start[1] - (own.shape[1] - 1), beside[2] - start[2] - (own.shape[2] - 1)])
    if (np.abs(steps) * grid.spacing[1:] > _tolerances(grid)[1:]).any():
        raise GeometryError(
            f"pixels of {own.spacing.y:g} x {own.spacing.x:g} mm do not coincide with those of {grid.spacing.y:g} x "
            f"{grid.spacing.x:g} mm of the volume given as like. Resample one of them."
        )
    off = (start[1:] - np.rint(start[1:])) * grid.spacing[1:]
    if (np.abs(off) > _tolerances(grid)[1:]).any():
        down, across = (round(abs(float(v)), 3) for v in off)
        raise GeometryError(
            f"the pixels lie {down:g} mm (rows) and {across:g} mm (columns) beside those of the volume given as like; "
            "only whole pixels can be matched. Resample one of them."
        )


def _tolerances(grid: Geometry) -> Array:
    return np.asarray(np.maximum(_ATOL, _RTOL * np.nan_to_num(np.asarray(grid.spacing))))


def _plane_places(own: Geometry, grid: Geometry) -> npt.NDArray[np.intp]:
    """Return the plane of the stack at each plane of the grid, -1 where there is none."""
    here = _heights(own, grid)
    there = _heights(grid, grid)
    apart = np.abs(there[:, np.newaxis] - here)
    nearest = apart.argmin(axis=1)
    meets = apart.min(axis=1) <= _tolerances(grid)[0]
    within = (there > here.min() - _ATOL) & (there < here.max() + _ATOL)
    all_met = bool((apart.min(axis=0) <= _tolerances(grid)[0]).all())
    if (not all_met and not meets[within].all()) or (not all_met and not meets.any() and within.any()):
        least, worst = (round(float(f(apart.min(axis=0))), 3) for f in (np.min, np.max))
        raise GeometryError(
            f"planes lie {least:g} mm to {worst:g} mm beside those of the volume given as like; only planes that "
            "coincide can be matched. Resample one of them."
        )
    return np.where(meets, nearest, -1)


def _heights(geometry: Geometry, grid: Geometry) -> Array:
    """Return where the planes of one geometry lie along the step of another, mm."""
    planes = np.zeros((geometry.shape[0], 3))
    planes[:, 0] = np.arange(geometry.shape[0])
    offset = geometry.index_to_position(planes) - np.asarray(grid.origin)
    return np.asarray((offset @ np.linalg.inv(np.asarray(grid.directions)))[:, 0])
