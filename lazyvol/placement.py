"""Where the voxels of a store lie, from what its metadata and its NIfTI header say.

Nothing is invented: an axis without unit has labels and no mm, and without three anatomical
directions the place in the patient is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyvol.errors import Finding, StoreError, finding
from lazyvol.geometry import UNKNOWN, ZYX, Geometry
from lazyvol.nifti import NiftiHeader
from lazyvol.omezarr import DIRECTIONS, LENGTHS, Level

__all__ = ["Placement", "place_affine", "place_level"]

Array = npt.NDArray[np.float64]
AXES = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class Placement:
    """Geometry and labels of one level."""

    geometry: Geometry
    """Where its voxels lie, as far as that is known."""

    starts: ZYX
    """Label of the first voxel along each axis, mm; as stored where the unit is unknown; NaN without axis."""

    steps: ZYX
    """From label to label, as `starts`."""

    findings: tuple[Finding, ...] = ()
    """What is not known."""


def place_level(
    level: Level,
    shape: tuple[int, int, int],
    where: str,
    *,
    header: NiftiHeader | None = None,
    finest: Level | None = None,
) -> Placement:
    """Return where the voxels of a level lie.

    Parameters
    ----------
    level
        One level of an image that has the axes y and x, and perhaps z.
    shape
        Number of slices, rows and columns.
    where
        Name of the image, for messages.
    header
        Header of a nifti-zarr, whose affine is that of the finest level and goes before the metadata.
    finest
        The finest level, where there is a header.

    Raises
    ------
    StoreError
        If the transformations mix space with other axes, are no grid, or turn axes that have no anatomical direction.
    """
    matrix = _in_space(level, where)
    if header and finest and header.affine:
        affine = np.array(header.affine) @ np.linalg.inv(_in_space(finest, where)) @ matrix
        mm = LENGTHS.get(header.unit) or LENGTHS.get(_unit(level, "z"))
        return place_affine(affine * (mm or 1.0), shape, "" if mm else "zyx", where)
    space = _space(level)
    units = [LENGTHS.get(level.system[n].unit) if n is not None else 1.0 for n in space]
    without_units = "".join(axis for axis, mm in zip(AXES, units, strict=True) if mm is None)
    matrix[:3] *= np.array([[mm or 1.0] for mm in units])
    words = ["" if n is None else level.system[n].orientation for n in space]
    towards = [DIRECTIONS.get(word, UNKNOWN) for word in words]
    known = [tuple(np.abs(t)) for t in towards if t is not UNKNOWN]
    if len(set(known)) == 3:
        return place_affine(np.transpose(towards) @ matrix[:3], shape, without_units, where)
    if len(set(known)) < len(known):
        towards = [UNKNOWN] * 3
    return _along_axes(matrix, shape, without_units, where, towards, words, flat=None in space)


def _unit(level: Level, name: str) -> str:
    return next((a.unit for a in level.axes if a.name == name), "")


def _space(level: Level) -> list[int | None]:
    """Return which axes of the system are in space: z, y, x of the array, or all of a system of its own."""
    if level.system is not level.axes:
        return [n for n, axis in enumerate(level.system) if axis.kind == "space"]
    names = [a.name for a in level.axes]
    return [names.index(axis) if axis in names else None for axis in AXES]


def _in_space(level: Level, where: str) -> Array:
    """Return the matrix (4, 4) from the index (k, j, i, 1) to the axes in space; a z that is absent stays as it is."""
    whole = np.array(level.matrix)
    names = [a.name for a in level.axes]
    columns = [names.index(axis) if axis in names else None for axis in AXES]
    others = [n for n in range(len(names)) if n not in columns]
    matrix = np.eye(4)
    for row, n in enumerate(_space(level)):
        if n is None:
            continue
        if whole[n, others].any():
            raise StoreError(
                f"the transformations of the level {level.path!r} of {where} make the place in space depend on "
                f"{', '.join(names[m] for m in others)}. Select with the tool that wrote it, and store what lies still."
            )
        matrix[row] = [0.0 if c is None else whole[n, c] for c in (*columns, -1)]
    if not abs(np.linalg.det(matrix)) > 0:
        raise StoreError(
            f"the transformations of the level {level.path!r} of {where} give {matrix[:3].tolist()}, which is no grid "
            "of voxels. Mend the metadata of the store."
        )
    return matrix


def place_affine(affine: Array, shape: tuple[int, int, int], without_units: str, where: str) -> Placement:
    """Return the placement by an affine to LPS, all of whose axes have directions."""
    steps = np.linalg.norm(affine[:, :3], axis=0)
    if not np.isfinite(affine).all():
        raise StoreError(f"the affine of {where} is {affine.tolist()}, and should be finite. Mend the metadata.")
    directions: Any = tuple(tuple(float(v) + 0.0 for v in row) for row in (affine[:, :3] / steps).T)
    starts = np.linalg.solve(np.transpose(directions), affine[:, 3])
    spacing = [np.nan if axis in without_units else float(step) for axis, step in zip(AXES, steps, strict=True)]
    origin: Any = UNKNOWN if without_units else tuple(float(v) + 0.0 for v in affine[:, 3])
    geometry = Geometry(shape, ZYX(*spacing), origin, directions, without_units=without_units)
    return Placement(geometry, ZYX(*map(float, starts)), ZYX(*map(float, steps)))


def _along_axes(
    matrix: Array,
    shape: tuple[int, int, int],
    without_units: str,
    where: str,
    towards: list[Any],
    words: list[str],
    *,
    flat: bool,
) -> Placement:
    """Return the placement by labels along the axes, whose place in the patient is not known."""
    steps, starts = np.diag(matrix)[:3].copy(), matrix[:3, 3].copy()
    if not np.array_equal(matrix[:3, :3], np.diag(steps)) or (steps <= 0).any():
        raise StoreError(
            f"the transformations of {where} turn its axes ({matrix[:3, :3].tolist()}), and where these point in the "
            "patient is not said. Give the axes of the coordinate system an anatomical orientation."
        )
    said = [f"{axis} {word}" for axis, word in zip(AXES, words, strict=True) if re.fullmatch("[a-z]+-to-[a-z]+", word)]
    message = (
        f"the axes say {', '.join(said)}, which is no direction of the patient for each of z, y and x"
        if said
        else "the axes have no anatomical orientation"
    )
    findings = [
        finding(
            "orientation-unknown", f"{message}; labels run along the axes, and the place in the patient is not known."
        )
    ]
    if flat:
        steps[0], starts[0] = np.nan, np.nan
        message = "the image has y and x alone, so the position and the thickness of its one slice are not known."
        findings.append(finding("spacing-unknown", message))
    spacing = [np.nan if axis in without_units else float(step) for axis, step in zip(AXES, steps, strict=True)]
    geometry = Geometry(shape, ZYX(*spacing), directions=tuple(towards), without_units=without_units)
    return Placement(geometry, ZYX(*map(float, starts)), ZYX(*map(float, steps)), tuple(findings))
