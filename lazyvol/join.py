"""Several series of one acquisition as one volume with a further dimension."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from lazyvol.convention import COORDINATE, geometry_of, require_volume
from lazyvol.errors import GeometryError, OptionError
from lazyvol.geometry import Geometry
from lazyvol.images import past_midnight
from lazyvol.scan import read_instance

__all__ = ["join_series"]

_CORNERS_ATOL = 1e-2
"""Corners of the volumes agree within this, mm."""


def join_series(
    volumes: Iterable[xr.DataArray], *, dim: str = "time", values: Sequence[float | str] | None = None
) -> xr.DataArray:
    """Join volumes of one grid along a new dimension, lazily: a 4-D acquisition that is many series.

    Parameters
    ----------
    volumes
        At least two volumes of `open_volume` with the same shape and place.
    dim
        Name of the new dimension, which comes first.
    values
        Its labels, in the order of the volumes. Without, for ``time`` the acquisition times of the
        series in s since the first, if their files say, and the volumes in that order; else 0, 1, ...

    Returns
    -------
    xarray.DataArray
        Dimensions (dim, ..., z, y, x) on the grid of the first volume.

    Raises
    ------
    GeometryError
        If the volumes differ in shape or place; says which and by how much.
    OptionError
        If they are no volumes, or the values repeat.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> lazyvol.join_series([volume, volume + 1], dim="respiratory_phase", values=[0.0, 50.0]).shape
    (2, 24, 48, 64)
    """
    parts = _required(volumes)
    _require_new(dim, parts[0])
    _require_one_grid(parts)
    ordered, labels, units = _labelled(parts, dim, values)
    first = ordered[0]
    data = [v.drop_vars(list(v.coords)) for v in ordered]
    joined = xr.concat(data, dim=dim).assign_coords(_coordinates(ordered, dim))
    joined.name = first.name
    findings = list(dict.fromkeys(line for v in ordered for line in v.attrs.get("findings", [])))
    joined.attrs = {**_common_attrs(ordered), "findings": findings}
    attrs = {"long_name": dim.replace("_", " ")} | ({"units": units} if units else {})
    return joined.assign_coords({dim: xr.Variable((dim,), labels, attrs)})


def _required(volumes: Any) -> list[xr.DataArray]:
    """Return the volumes as a list; raise unless they are two or more."""
    found: list[Any] = [volumes] if isinstance(volumes, str | xr.DataArray | xr.Dataset) else list(volumes)
    for volume in found:
        require_volume(volume)
    if len(found) < 2:
        raise GeometryError(f"join_series wants at least two volumes, not {len(found)}.")
    return found


def _require_new(dim: Any, first: xr.DataArray) -> None:
    """Raise unless a dimension can be added under this name."""
    if not isinstance(dim, str):
        raise OptionError(f"dim={dim!r} must be the name of a dimension.")
    if dim in first.dims or dim == COORDINATE or (dim in first.coords and first.coords[dim].dims):
        raise GeometryError(f"the volumes have the dimension or coordinate {dim!r} already; name a new one.")


def _coordinates(volumes: Sequence[xr.DataArray], dim: str) -> dict[str, xr.Variable]:
    """Return the labels and the geometry of the first volume, and what each image carries of all of them."""
    first = volumes[0]
    found: dict[str, xr.Variable] = {}
    for name, coordinate in first.coords.items():
        if name in first.dims or name == COORDINATE:
            found[str(name)] = coordinate.variable
        elif all(name in v.coords and v.coords[name].dims == coordinate.dims for v in volumes):
            values = np.stack([v.coords[name].values for v in volumes])
            found[str(name)] = xr.Variable((dim, *coordinate.dims), values, coordinate.attrs)
    return found


def _require_one_grid(volumes: Sequence[xr.DataArray]) -> None:
    first = geometry_of(volumes[0])
    for number, volume in enumerate(volumes[1:], start=1):
        if volume.dims != volumes[0].dims or volume.shape != volumes[0].shape:
            raise GeometryError(
                f"volume {number} has {volume.dims} of {volume.shape}, the first {volumes[0].dims} of "
                f"{volumes[0].shape}; only volumes of one shape can be joined."
            )
        other = geometry_of(volume)
        if not (first.is_known and other.is_known):
            raise GeometryError(f"the place of volume {number if first.is_known else 0} in the patient is not known.")
        for axis in set(volume.dims) - {"z", "y", "x"}:
            if not np.array_equal(volume.coords[axis].values, volumes[0].coords[axis].values):
                raise GeometryError(f"volume {number} has other labels of {axis} than the first.")
        apart = float(np.abs(_corners(first) - _corners(other)).max())
        if apart > _CORNERS_ATOL:
            raise GeometryError(
                f"volume {number} lies up to {apart:.3f} mm from the first; only one grid can be joined."
            )


def _corners(geometry: Geometry) -> Any:
    """Return where the corners of every slice lie."""
    slices, *ends = (np.arange(geometry.shape[0]), *((0, n - 1) for n in geometry.shape[1:]))
    return geometry.index_to_position(np.stack(np.meshgrid(slices, *ends, indexing="ij"), axis=-1))


def _labelled(
    volumes: Sequence[xr.DataArray], dim: str, values: Sequence[float | str] | None
) -> tuple[list[xr.DataArray], Any, str]:
    """Return the volumes in order, with labels and their units."""
    if values is not None:
        return list(volumes), _given(values, len(volumes)), ""
    times = past_midnight([_start(v) for v in volumes]) if dim == "time" else []
    known = [t for t in times if t is not None]
    if not known or len(known) < len(volumes) or len(set(known)) < len(volumes):
        return list(volumes), np.arange(len(volumes), dtype=float), ""
    order = np.argsort(known)
    seconds = np.round(np.array(known)[order] - min(known), 6)
    return [volumes[int(n)] for n in order], seconds, "s"


def _given(values: Any, count: int) -> Any:
    """Return labels as an array; raise unless they are numbers or words, all different and one for each volume."""
    found = list(values) if np.iterable(values) and not isinstance(values, str) else [values]
    words, numbers = (all(isinstance(v, kind) for v in found) for kind in (str, int | float | np.number))
    if not words and not numbers:
        raise OptionError(f"values={values!r} must be numbers or words, one for each volume.")
    if len(found) != count:
        raise GeometryError(f"{count} volumes need {count} values, not {len(found)}.")
    labels = np.array(found, dtype=np.dtypes.StringDType() if words else float)
    if len(set(found)) < count or (numbers and not np.isfinite(labels).all()):
        raise OptionError(f"values={values!r} must be finite and all different, for they are labels.")
    return labels


def _start(volume: xr.DataArray) -> float | None:
    """Return when the first image of a volume was acquired, by the header of its file."""
    if "source" not in volume.coords:
        return None
    since = volume.coords.get("acquisition_time", xr.zeros_like(volume.coords["source"], dtype=float))
    if "time" in volume.dims and "acquisition_time" not in volume.coords:
        return None
    paths, offsets = xr.broadcast(volume.coords["source"].reset_coords(drop=True), since.reset_coords(drop=True))
    for path, offset in zip(paths.values.ravel(), offsets.values.ravel(), strict=True):
        if path and not str(path).startswith("dataset["):
            start = read_instance(str(path)).acquisition_time
            return None if start is None else start - float(offset)
    return None


def _common_attrs(volumes: Sequence[xr.DataArray]) -> dict[str, Any]:
    first, *others = (v.attrs for v in volumes)
    return {k: v for k, v in first.items() if all(k in o and _same(o[k], v) for o in others)}


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))
