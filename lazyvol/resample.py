"""Sheared stacks on a straight grid, lazily."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.chunks import chunked
from lazyvol.convention import geometry_coordinates, geometry_of
from lazyvol.errors import GeometryError
from lazyvol.geometry import DRIFT_ATOL, ZYX, Geometry, slice_normal

__all__ = ["rectify"]

Array = npt.NDArray[Any]
Shifts = npt.NDArray[np.float64]


def rectify(volume: xr.DataArray) -> xr.DataArray:
    """Resample a sheared stack (gantry tilt) to a grid whose slices lie straight above each other.

    Each slice is moved within its own plane by linear interpolation, so nothing is mixed between
    slices, and a chunk of the result reads one chunk of the volume. The grid grows along y and x
    as far as the slices drift; outside them there is NaN.

    Parameters
    ----------
    volume
        A volume with regular slices; one that is straight already is returned unchanged.

    Returns
    -------
    xarray.DataArray
        float32 on dask, with z along the normal of the slices and spacing z their distance along it.

    Raises
    ------
    GeometryError
        If the place in the patient is unknown, or the slices are uneven.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> lazyvol.rectify(volume) is volume
    True
    """
    geometry = geometry_of(volume)
    affine = geometry.affine
    if geometry.drift <= DRIFT_ATOL:
        return volume
    if not {"z", "y", "x"} <= set(volume.dims):
        raise GeometryError(f"rectify wants a volume with dimensions z, y, x, not {tuple(volume.dims)}.")
    normal = slice_normal((*geometry.directions[2], *geometry.directions[1]))
    if np.dot(normal, geometry.directions[0]) < 0:
        normal = -normal
    drift = affine[:3, 0] - np.dot(affine[:3, 0], normal) * normal
    steps = np.array([np.dot(drift, geometry.directions[n]) / geometry.spacing[n] for n in (1, 2)])
    shifts = np.round(np.arange(geometry.shape[0])[:, np.newaxis] * steps, 6)  # voxels; a rounding error is no drift
    before = np.ceil(np.maximum(-shifts.min(axis=0), 0)).astype(int)
    after = np.ceil(np.maximum(shifts.max(axis=0), 0)).astype(int)
    straight = _straight(geometry, normal, before, after)
    return _resampled(volume, straight, shifts, before)


def _straight(geometry: Geometry, normal: Shifts, before: Array, after: Array) -> Geometry:
    """Return the grid along the normal that holds all slices."""
    nk, nj, ni = geometry.shape
    shape = (nk, nj + int(before[0] + after[0]), ni + int(before[1] + after[1]))
    origin = geometry.index_to_position((0, -before[0], -before[1]))
    spacing = ZYX(geometry.normal_spacing, geometry.spacing.y, geometry.spacing.x)
    x, y, z = (float(v) for v in normal)
    directions = ((x, y, z), geometry.directions[1], geometry.directions[2])
    start = (float(origin[0]), float(origin[1]), float(origin[2]))
    return Geometry(shape, spacing, start, directions, (), geometry.frame_of_reference, geometry.convention)


def _resampled(volume: xr.DataArray, straight: Geometry, shifts: Shifts, before: Array) -> xr.DataArray:
    lazy = volume if volume.chunks is not None else chunked(volume, {"z": 1})
    lazy = lazy.transpose(..., "z", "y", "x")
    lazy = lazy.copy(deep=False, data=lazy.variable.chunk({"y": -1, "x": -1}).data)
    moves = xr.DataArray(shifts + before, dims=("z", "yx")).chunk({"z": lazy.chunksizes["z"]})
    moved: xr.DataArray = xr.apply_ufunc(
        _move,
        lazy.drop_vars([n for n, c in lazy.coords.items() if {"y", "x"} & set(c.dims)] + ["geometry"]),
        moves,
        kwargs={"shape": straight.shape[1:]},
        input_core_dims=[["y", "x"], ["yx"]],
        output_core_dims=[["y", "x"]],
        exclude_dims={"y", "x"},
        dask="parallelized",
        output_dtypes=["float32"],
        dask_gufunc_kwargs={"output_sizes": dict(zip("yx", straight.shape[1:], strict=True))},
        keep_attrs=True,
    )
    findings = [line for line in volume.attrs.get("findings", []) if '"tilted"' not in line]
    moved.attrs = {**volume.attrs, "findings": findings}
    return moved.transpose(*volume.dims).assign_coords(geometry_coordinates(straight)).rename(volume.name)


def _move(slices: Array, moves: Shifts, *, shape: tuple[int, int]) -> Array:
    """Move each slice by fractions of a voxel into a larger plane; shape (..., y, x)."""
    from scipy.ndimage import affine_transform

    moves = np.broadcast_to(moves, (*slices.shape[:-2], 2))
    out = np.empty((*slices.shape[:-2], *shape), "float32")
    for index in np.ndindex(*slices.shape[:-2]):
        plane = slices[index].astype("float32")
        affine_transform(plane, np.eye(2), -moves[index], output=out[index], order=1, cval=np.nan)
    return out
