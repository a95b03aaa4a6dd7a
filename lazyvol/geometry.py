"""Where the voxels of a volume lie in the patient.

Index order is (slice, row, column). Lengths are in mm. Positions are DICOM patient
coordinates (LPS: x grows to the left, y to the back, z to the head). Nothing here
opens a file, and NumPy is the only import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lazyvol.errors import GeometryError

__all__ = ["ZYX", "Gaps", "Geometry", "Line", "find_gaps", "fit_line", "slice_normal"]

Array = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

UNKNOWN: Vector = (np.nan, np.nan, np.nan)
SPACING_RTOL = 1e-2
"""A gap is regular within this fraction of the median gap, or within `SPACING_ATOL`."""
SPACING_ATOL = 5e-3
"""See `SPACING_RTOL`; mm."""
DRIFT_ATOL = 1e-3
"""A stack whose slices drift less than this from the normal, over all of it, counts as straight; mm."""
_ROUNDING = 1e-6
"""A drift that is less than this over all of a stack is none; mm."""
_STRAIGHT = 1e-9
"""Directions whose sine differs less from 0 are parallel but for rounding."""
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


class ZYX(NamedTuple):
    """A value for each axis, in the order of the dimensions of a volume."""

    z: float
    """Along the slices."""
    y: float
    """Along the rows, i.e. from row to row."""
    x: float
    """Along the columns, i.e. from column to column."""


class AxisLetters(NamedTuple):
    """A letter of the patient's side for each axis."""

    z: str
    """L, R, A, P, S or I."""
    y: str
    """As z."""
    x: str
    """As z."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A grid of voxels in the patient.

    The basis vectors are `directions`, one unit vector for one step along z, y and x.
    A gantry tilt or a sheared stack makes the first of them oblique to the other two.
    """

    shape: tuple[int, int, int]
    """Number of slices, rows and columns."""

    spacing: ZYX
    """Distance between neighbouring voxel centres along each index, mm; NaN where unknown or uneven."""

    origin: Vector = UNKNOWN
    """Centre of voxel (0, 0, 0), LPS (x, y, z) mm; NaN where unknown."""

    directions: tuple[Vector, Vector, Vector] = (UNKNOWN, UNKNOWN, UNKNOWN)
    """Unit vectors of one step along z, y and x, each LPS (x, y, z); NaN where unknown."""

    slice_positions: tuple[float, ...] = ()
    """Where each slice lies along z from the first, mm, if the slices are uneven; else empty."""

    frame_of_reference: str = field(default="", repr=False)
    """FrameOfReferenceUID: two geometries compare only within one."""

    convention: str = "LPS"
    """What the patient axes mean."""

    without_units: str = field(default="", repr=False)
    """Axes along which the unit of the labels is not known, such as ``zyx``; their spacing in mm is NaN."""

    @property
    def is_known(self) -> bool:
        """Whether origin and directions are known."""
        return bool(np.isfinite(self.origin).all() and np.isfinite(self.directions).all())

    @property
    def field_of_view(self) -> ZYX:
        """Extent from outer edge to outer edge along each index, mm.

        Shape times spacing; for uneven slices last minus first plus half of each end gap.
        """
        (nk, nj, ni), (dk, dj, di) = self.shape, self.spacing
        along_z = nk * dk
        if self.slice_positions:
            where = self.slice_positions
            along_z = where[-1] - where[0] + (where[1] - where[0] + where[-1] - where[-2]) / 2
        return ZYX(float(along_z), float(nj * dj), float(ni * di))

    @property
    def normal_spacing(self) -> float:
        """Distance between neighbouring slices along their common normal, mm."""
        normal = slice_normal((*self.directions[2], *self.directions[1]))
        return float(self.spacing.z * abs(np.dot(self.directions[0], normal)))

    @property
    def shear(self) -> float:
        """Angle between the z direction and the normal of the slices, degrees."""
        normal = slice_normal((*self.directions[2], *self.directions[1]))
        along = float(np.dot(self.directions[0], normal))
        across = float(np.linalg.norm(np.cross(self.directions[0], normal)))
        across = across if across > _STRAIGHT else 0.0
        return float(np.degrees(np.arctan2(across, along)))

    @property
    def affine(self) -> Array:
        """Matrix (4, 4) from index (k, j, i, 1) to LPS (x, y, z, 1) in mm.

        Raises
        ------
        GeometryError
            If position or spacing is unknown, or the slices are uneven.
        """
        self._require_known("an affine")
        if self.slice_positions:
            raise GeometryError(
                f"the {self.shape[0]} slices are unevenly spaced, so no affine can say where they lie. Use "
                "the z coordinate or index_to_position, or take a regular part with isel(z=...)."
            )
        if not np.isfinite(self.spacing).all():
            raise GeometryError(
                f"the spacing (z, y, x) is {tuple(self.spacing)} mm, so there is no affine. Headers of a single "
                "slice need SpacingBetweenSlices or SliceThickness."
            )
        matrix = np.eye(4)
        matrix[:3, :3] = np.transpose(self.directions) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def affine_ras(self) -> Array:
        """The affine to RAS (x to the right, y to the front, z to the head), as NIfTI has it; raises as `affine`."""
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.affine
        self._require_patient()
        return matrix

    @property
    def orientation(self) -> str:
        """Patient direction that x, y and z grow towards, e.g. ``LPS``; empty where unknown, or not the patient's."""
        if not self.is_known or self.convention != "LPS":
            return ""
        letters = self.axis_letters
        return letters.x + letters.y + letters.z

    @property
    def axis_letters(self) -> AxisLetters:
        """Patient direction (L, R, A, P, S or I) that each axis grows towards, each pair used once."""
        self._require_known("an orientation")
        self._require_patient()
        cosines = np.asarray(self.directions)
        letters = ["", "", ""]
        size = np.abs(cosines)
        for _ in range(3):
            axis, patient = np.unravel_index(int(np.argmax(size)), size.shape)
            letters[axis] = _LETTERS[patient][int(cosines[axis, patient] < 0)]
            size[axis, :] = -1
            size[:, patient] = -1
        return AxisLetters(*letters)

    def index_to_position(self, index: npt.ArrayLike) -> Array:
        """Return where voxels lie.

        Parameters
        ----------
        index
            Indices (k, j, i), fractions allowed; shape (..., 3).

        Returns
        -------
        numpy.ndarray
            Positions, LPS (x, y, z) mm; shape (..., 3).

        Raises
        ------
        GeometryError
            If the position in the patient is unknown.
        """
        self._require_known("a position")
        k, j, i = np.moveaxis(np.asarray(index, dtype=float), -1, 0)
        steps = np.stack([self._along_z(k), j * self.spacing.y, i * self.spacing.x], axis=-1)
        return np.asarray(np.asarray(self.origin) + steps @ np.asarray(self.directions))

    def position_to_index(self, position: npt.ArrayLike) -> Array:
        """Return the indices (k, j, i) of positions, as fractions.

        Parameters
        ----------
        position
            LPS (x, y, z) mm; shape (..., 3).

        Returns
        -------
        numpy.ndarray
            Indices (k, j, i), not rounded and not limited to the volume; shape (..., 3).

        Raises
        ------
        GeometryError
            If the position in the patient is unknown.
        """
        self._require_known("an index")
        offset = np.asarray(position, dtype=float) - np.asarray(self.origin)
        z, y, x = np.moveaxis(offset @ np.linalg.inv(np.asarray(self.directions)), -1, 0)
        if self.slice_positions:
            k = _interpolate(z, np.asarray(self.slice_positions), np.arange(self.shape[0], dtype=float))
        else:
            k = z / self.spacing.z if np.isfinite(self.spacing.z) else np.where(np.abs(z) < DRIFT_ATOL, 0.0, np.nan)
        return np.stack([k, y / self.spacing.y, x / self.spacing.x], axis=-1)

    def coordinates(self) -> tuple[Array, Array, Array]:
        """Return the labels of z, y and x: components of each voxel centre along `directions`, mm.

        ``position = z * directions[0] + y * directions[1] + x * directions[2]``, so each
        label depends on its own index only, also in a tilted or oblique stack.
        """
        self._require_known("coordinates")
        start = np.linalg.solve(np.transpose(self.directions), np.asarray(self.origin))
        along: list[npt.NDArray[Any]] = [self._along_z(np.arange(self.shape[0], dtype=float))]
        along += [np.arange(n) * d for n, d in zip(self.shape[1:], self.spacing[1:], strict=True)]
        z, y, x = (s + a for s, a in zip(start, along, strict=True))
        return z, y, x

    def _along_z(self, k: Array) -> Array:
        if self.slice_positions:
            return _interpolate(k, np.arange(self.shape[0], dtype=float), np.asarray(self.slice_positions))
        if np.isfinite(self.spacing.z):
            return np.asarray(k * self.spacing.z)
        return np.where(np.asarray(k) == 0, 0.0, np.nan)

    @property
    def drift(self) -> float:
        """How far the last slice lies beside the normal through the first, mm."""
        length = self.slice_positions[-1] if self.slice_positions else (self.shape[0] - 1) * self.spacing.z
        return float(length * np.sin(np.radians(self.shear))) if self.shape[0] > 1 else 0.0

    def _require_patient(self) -> None:
        if self.convention != "LPS":
            raise GeometryError(
                f"positions refer to the {self.convention}, not to the patient, so left, right, front and back are not "
                "known. Use index_to_position or the affine."
            )

    def _require_known(self, what: str) -> None:
        lacks = f"so there is no {what.split(' ', 1)[-1]}"
        if self.without_units:
            raise GeometryError(f"{self.without_units} have no unit, {lacks} in mm. Give the axes one in the file.")
        if not self.is_known:
            raise GeometryError(
                f"where the volume lies in the patient is not known, {lacks}: its headers have no ImagePositionPatient "
                "and ImageOrientationPatient, or its store's axes no orientation. Work with labels, or give them one."
            )


def _interpolate(at: Any, where: Array, values: Array) -> Array:
    """Interpolate linearly, and extrapolate with the end steps."""
    at = np.asarray(at, dtype=float)
    k = np.clip(np.searchsorted(where, at, side="right") - 1, 0, where.size - 2)
    slope = (values[k + 1] - values[k]) / (where[k + 1] - where[k])
    return np.asarray(values[k] + (at - where[k]) * slope)


def slice_normal(orientation: npt.ArrayLike) -> Array:
    """Return the unit normal of a slice: along x (growing column) cross along y (growing row).

    Parameters
    ----------
    orientation
        ImageOrientationPatient (DICOM PS3.3 C.7.6.2.1.1); shape (6,).
    """
    row, column = np.asarray(orientation, dtype=float).reshape(2, 3)
    normal = row[[1, 2, 0]] * column[[2, 0, 1]] - row[[2, 0, 1]] * column[[1, 2, 0]]  # np.cross takes longer for one
    return np.asarray(normal / np.linalg.norm(normal))


@dataclass(frozen=True, slots=True)
class Gaps:
    """What the gaps between ordered slices are like."""

    spacing: float
    """Mean gap where regular, else the median gap; mm."""

    kind: str
    """``regular``, ``missing`` (gaps are multiples of the median) or ``uneven``."""

    irregular: tuple[int, ...] = ()
    """Index of the slice before each gap that is not the median gap."""

    missing: tuple[int, ...] = ()
    """For ``missing``: how many slices each irregular gap lacks."""


def find_gaps(distances: npt.ArrayLike, *, rtol: float = SPACING_RTOL, atol: float = SPACING_ATOL) -> Gaps:
    """Judge the gaps of a sorted stack.

    Parameters
    ----------
    distances
        Where each slice lies, mm; shape (n,), n >= 2, ascending without repeats.
    rtol, atol
        A gap counts as regular within ``max(rtol * median, atol)`` mm of the median gap.

    Returns
    -------
    Gaps
        Regular spacing, or which gaps are irregular.

    Examples
    --------
    >>> find_gaps([-5.0, -2.5, 0.0, 5.0]).missing
    (1,)
    """
    where = np.asarray(distances, dtype=float)
    gaps = np.diff(where)
    median = float(np.sort(gaps)[(gaps.size - 1) // 2])  # of two in the middle the lesser, which is a gap that exists
    tolerance = max(rtol * median, atol)
    irregular = np.flatnonzero(np.abs(gaps - median) > tolerance)
    if not irregular.size:
        return Gaps(float(where[-1] - where[0]) / gaps.size, "regular")
    found = tuple(int(k) for k in irregular)
    times = np.rint(gaps / median)
    if (times >= 1).all() and (np.abs(gaps - times * median) <= tolerance).all():
        return Gaps(median, "missing", found, tuple(int(times[k]) - 1 for k in found))
    return Gaps(median, "uneven", found)


@dataclass(frozen=True, slots=True)
class Line:
    """The line on which the first voxels of the slices lie."""

    origin: Vector
    """Where the first slice would lie on it, LPS mm."""

    direction: Vector
    """Unit vector from slice to slice, LPS."""

    along: tuple[float, ...]
    """Where each slice lies on it from the first, mm."""

    off: tuple[float, ...]
    """How far each slice lies off it, within its own plane, mm."""


def fit_line(positions: npt.ArrayLike, orientation: npt.ArrayLike) -> Line:
    """Return the line through the positions of ordered slices, kept on their normal where they do not drift.

    Parameters
    ----------
    positions
        ImagePositionPatient of each slice, LPS mm; shape (n, 3), n >= 2, ascending along the normal.
    orientation
        Their common ImageOrientationPatient; shape (6,).
    """
    points = np.asarray(positions, dtype=float)
    normal = slice_normal(orientation)
    heights = (points - points[0]) @ normal
    step = (points[-1] - points[0]) / heights[-1]
    origin, off = _off_line(points, heights, step)
    if off.max() > max(SPACING_RTOL * float(np.median(np.diff(heights))), SPACING_ATOL):
        step = np.median(np.diff(points, axis=0) / np.diff(heights)[:, np.newaxis], axis=0)
        origin, off = _off_line(points, heights, step)
    if np.linalg.norm(step - normal) * heights[-1] <= _ROUNDING:
        step = normal
        origin, off = _off_line(points, heights, step)
    length = float(np.linalg.norm(step))
    along = tuple(float(h) * length for h in heights)
    return Line(_vector(origin), _vector(step / length), along, tuple(float(o) for o in off))


def _off_line(points: Array, heights: Array, step: Array) -> tuple[Array, Array]:
    """Return the start of the line and how far each point lies from it."""
    starts = points - heights[:, np.newaxis] * step
    off = np.linalg.norm(starts - points[0], axis=1)
    if off.max() <= SPACING_ATOL:
        return points[0], off
    start = np.median(starts, axis=0)
    return start, np.linalg.norm(starts - start, axis=1)


def _vector(values: Array) -> Vector:
    x, y, z = (float(v) for v in values)
    return x, y, z
