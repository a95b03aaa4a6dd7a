"""How a DataArray carries its geometry and findings: to coordinates, and back.

A volume has 1-D coordinates z, y, x in mm (components of each voxel centre along the
volume's own directions) and a scalar coordinate ``geometry`` whose attrs hold the nine
direction numbers. Both survive crop, stride, flip and arithmetic, so any volume that
xarray makes of one of ours still knows where it lies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.errors import Finding, GeometryError, OptionError, StoreError
from lazyvol.geometry import SPACING_ATOL, SPACING_RTOL, UNKNOWN, ZYX, Geometry, find_gaps

__all__ = [
    "attrs_with_nan",
    "findings_of",
    "geometry_coordinates",
    "geometry_of",
    "require_volume",
    "strict",
    "strict_attrs",
    "with_frame_of_reference",
]

Array = npt.NDArray[np.float64]
AXES = ("z", "y", "x")
COORDINATE = "geometry"
VERSION = 1
_NAMES = {"z": "position along slices", "y": "position along rows", "x": "position along columns"}


def geometry_coordinates(
    geometry: Geometry, slice_positions: Sequence[float] = (), *, labels: Mapping[str, Array] | None = None
) -> dict[str, xr.Variable]:
    """Return the coordinates that carry a geometry.

    Parameters
    ----------
    geometry
        Where the voxels lie.
    slice_positions
        True position of each slice along z from the first, mm; empty to take the grid's.
    labels
        Labels by axis where the geometry alone does not give them, because directions or units are unknown.

    Returns
    -------
    dict
        ``z``, ``y``, ``x`` where they are known, and the scalar ``geometry``.
    """
    found = {COORDINATE: _scalar(geometry)}
    if labels is not None:
        labels = dict(labels)
    elif geometry.is_known:
        labels = dict(zip(AXES, geometry.coordinates(), strict=True))
        if slice_positions:
            labels["z"] = _on_grid(labels["z"], labels["z"][0] + np.asarray(slice_positions))
    else:
        lengths = dict(zip(AXES[1:], geometry.shape[1:], strict=True))
        labels = {axis: np.arange(n) * getattr(geometry.spacing, axis) for axis, n in lengths.items()}
    for axis, values in labels.items():
        if np.isfinite(values).all():
            units = {} if axis in geometry.without_units else {"units": "mm"}
            attrs = {**units, "long_name": _NAMES[axis], "axis": axis.upper()}
            found[axis] = xr.Variable((axis,), values, attrs)
    return found


def _on_grid(grid: Array, true: Array) -> Array:
    """Return the grid where the true positions differ from it by less than anyone can measure."""
    return grid if np.abs(grid - true).max() < 1e-6 else true


def _scalar(geometry: Geometry) -> xr.Variable:
    attrs = {
        "directions": [float(v) for row in geometry.directions for v in row],
        "spacing": [float(v) for v in geometry.spacing],
        "convention": geometry.convention if np.isfinite(geometry.directions).all() else "unknown",
        "frame_of_reference": geometry.frame_of_reference,
        "version": VERSION,
    }
    attrs |= {"without_units": geometry.without_units} if geometry.without_units else {}
    return xr.Variable((), _checksum(attrs), attrs)


def _checksum(attrs: Mapping[str, Any]) -> np.int64:
    """Return a number that differs between geometries, so that arithmetic between them drops the coordinate."""
    numbers = np.asarray(attrs["directions"], dtype=float).tolist()  # null, which stores have for NaN, is NaN
    directions = [round(v, 6) + 0.0 for v in numbers]
    words = [str(attrs.get(k, "")) for k in ("convention", "frame_of_reference", "without_units")]
    text = json.dumps([directions, *(words if words[-1] else words[:-1])])
    return np.int64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True))


def with_frame_of_reference(volume: xr.DataArray, uid: str) -> xr.DataArray:
    """Return the volume with another FrameOfReferenceUID in its geometry."""
    attrs = {**volume.coords[COORDINATE].attrs, "frame_of_reference": uid}
    return volume.assign_coords({COORDINATE: xr.Variable((), _checksum(attrs), attrs)})


def require_volume(volume: Any) -> None:
    """Raise unless it is a DataArray, with what to take instead."""
    if isinstance(volume, xr.DataArray):
        return
    remedy = "Open one with open_volume or open_zarr."
    if isinstance(volume, xr.Dataset):
        name = next(iter(sorted(volume.data_vars, key=lambda v: v != "image")), "image")
        remedy = f"Take dataset[{name!r}]."
    elif isinstance(volume, xr.DataTree):
        remedy = f'Take the image of one node, e.g. tree["{next(iter(volume.children), "stack0")}"]["image"].'
    raise OptionError(f"a volume is a DataArray, not a {type(volume).__name__}. {remedy}")


def geometry_of(volume: xr.DataArray) -> Geometry:
    """Return where the voxels of a volume lie, from its coordinates alone.

    Parameters
    ----------
    volume
        A volume of lazyvol, or what xarray made of one by selecting, flipping or arithmetic.

    Returns
    -------
    Geometry
        Shape, spacing (mm), origin (LPS, mm) and directions of just these voxels; an axis
        that a selection dropped has length 1. An axis without label, as a projection leaves it,
        has no direction, and the volume no origin.

    Raises
    ------
    GeometryError
        If the volume has no ``geometry`` coordinate (it is not from lazyvol, or was combined
        with a volume of another geometry) or several geometries, is empty, or is cut unevenly
        along y or x.
    OptionError
        If it is no DataArray.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> lazyvol.geometry_of(volume[::2]).spacing.z
    80.0
    """
    require_volume(volume)
    if COORDINATE not in volume.coords or "directions" not in volume.coords[COORDINATE].attrs:
        raise GeometryError(
            "the array has no coordinate 'geometry', so its place in the patient is not known. Either it was not "
            "opened by lazyvol, or it was combined with a volume of another geometry: bring both onto one grid first."
        )
    _require_one_geometry(volume.coords[COORDINATE])
    attrs = volume.coords[COORDINATE].attrs
    directions, spacings = (np.asarray(attrs[k], dtype=float) for k in ("directions", "spacing"))  # null is NaN
    directions = directions.reshape(3, 3)
    without_units = str(attrs.get("without_units", ""))
    axes = [_axis(volume, axis, float(spacing)) for axis, spacing in zip(AXES, spacings, strict=True)]
    in_mm = [axis not in without_units for axis in AXES]
    labelled = np.array([[np.isfinite(a.start)] for a in axes])
    known = bool(np.isfinite(directions).all() and labelled.all() and all(in_mm))
    starts = np.array([a.start for a in axes])
    origin = starts @ directions
    turned = np.where(labelled, directions * np.array([[a.sign] for a in axes]) + 0.0, np.nan)
    return Geometry(
        shape=tuple(a.length for a in axes),  # type: ignore[arg-type]  # three axes
        spacing=ZYX(*(a.spacing if mm else np.nan for a, mm in zip(axes, in_mm, strict=True))),
        origin=tuple(map(float, origin)) if known else UNKNOWN,  # type: ignore[arg-type]
        directions=tuple(tuple(map(float, row)) for row in turned),  # type: ignore[arg-type]
        slice_positions=axes[0].positions if in_mm[0] else (),
        frame_of_reference=str(attrs.get("frame_of_reference", "")),
        convention=str(attrs["convention"]),
        without_units=without_units,
    )


def _require_one_geometry(coordinate: xr.DataArray) -> None:
    """Raise unless the value is the checksum of the attributes: xarray joins values, and keeps the first attributes."""
    found = np.unique(coordinate.values)
    if found.size > 1:
        raise GeometryError(
            f"the volume was put together along {', '.join(map(str, coordinate.dims))} from {found.size} geometries, "
            "so it has no one place in the patient. Combine with join_series, which refuses volumes that lie elsewhere."
        )
    if found.size and found[0] != _checksum(coordinate.attrs):
        raise GeometryError(
            f"the coordinate 'geometry' is {found[0]}, but its attributes describe another geometry "
            f"({_checksum(coordinate.attrs)}), so the place in the patient is not known. The volume is part of "
            "several that were combined, or the attributes were changed. Open it again; combine with join_series."
        )


@dataclass(frozen=True, slots=True)
class _Axis:
    """What the labels of one axis say."""

    length: int
    start: float
    spacing: float
    sign: int = 1
    positions: tuple[float, ...] = ()


def _axis(volume: xr.DataArray, axis: str, spacing: float) -> _Axis:
    length = volume.sizes.get(axis, 1)
    if length == 0:
        raise GeometryError(
            f"the volume is empty along {axis}; select at least one voxel. Arithmetic keeps only labels that both "
            "sides have: where they differ by rounding, bring one to the labels of the other first, "
            'b.reindex_like(a, method="nearest", tolerance=0.01).'
        )
    if axis not in volume.coords:
        return _Axis(length, np.nan, float(spacing))
    labels = np.atleast_1d(np.asarray(volume.coords[axis].values, dtype=float))
    if length == 1:
        return _Axis(1, float(labels[0]), float(spacing))
    _require_labels(labels, axis)
    steps = np.diff(labels)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise GeometryError(
            f"the labels of {axis} neither ascend nor descend, so the volume is no grid. Sort it with sortby({axis!r})."
        )
    sign = 1 if steps[0] > 0 else -1
    step = _regular_step(np.abs(steps), float(spacing))
    if np.isnan(step) and axis != "z":
        raise GeometryError(
            f"the labels of {axis} are unevenly spaced ({np.abs(steps).min():g} to {np.abs(steps).max():g} mm), so the "
            "volume is no grid. Select a slice with a constant step."
        )
    positions = tuple(map(float, np.abs(labels - labels[0]))) if np.isnan(step) else ()
    return _Axis(length, float(labels[0]), step, sign, positions)


def _require_labels(labels: Array, axis: str) -> None:
    """Raise if labels are absent or repeat, which sorting would not mend."""
    absent = int(np.isnan(labels).sum())
    if absent:
        raise GeometryError(
            f"{absent} of {labels.size} labels of {axis} are NaN, as pad leaves them, so the volume is no grid. Take "
            f"the part that has labels: isel({axis}=volume.{axis}.notnull()), or give labels with assign_coords."
        )
    found, counts = np.unique(labels, return_counts=True)
    if found.size < labels.size:
        raise GeometryError(
            f"the label {axis} = {found[counts.argmax()]:g} occurs {counts.max()} times, so the volume is no grid. "
            f"Select each voxel once, or drop the repeats with drop_duplicates({axis!r})."
        )


def _regular_step(steps: Array, spacing: float) -> float:
    """Return the step of regular labels, as the exact multiple of the known spacing where it is one; else NaN."""
    median = float(np.median(steps))
    times = np.rint(median / spacing) if np.isfinite(spacing) else 0
    exact = float(times * spacing)
    if times and np.abs(steps - exact).max() <= min(SPACING_RTOL * exact, SPACING_ATOL):
        return exact
    gaps = find_gaps(np.concatenate([[0.0], np.cumsum(steps)]))
    return gaps.spacing if gaps.kind == "regular" else float("nan")


def findings_of(volume: xr.DataArray) -> tuple[Finding, ...]:
    """Return what is odd about the series that a volume came from.

    Examples
    --------
    >>> import lazyvol
    >>> lazyvol.findings_of(lazyvol.open_volume(getfixture("chest_folder")))
    ()
    """
    require_volume(volume)
    lines = volume.attrs.get("findings", [])
    return tuple(Finding.from_json(line) for line in ([lines] if isinstance(lines, str) else lines))


def strict(volume: xr.DataArray) -> xr.DataArray:
    """Return the volume with attributes as strict JSON holds them, also those of its coordinates.

    Raises
    ------
    StoreError
        If values, a coordinate or an attribute cannot be written; says which.
    """
    require_volume(volume)
    if volume.dtype.kind not in "biuf" or volume.dtype.itemsize > 8:
        raise StoreError(
            f"a store holds whole numbers, floating point up to float64, or bool, not {volume.dtype}. Save "
            'volume.astype("float32"), or abs(volume), volume.real or volume.imag of complex values.'
        )
    if odd := [d for d in volume.dims if not _is_plain_name(d)]:
        raise StoreError(f"the dimension {odd[0]!r} cannot be written to a store. Give it a name: volume.rename(...).")
    texts = {n: c for n, c in volume.coords.items() if c.dtype.kind in "OU"}
    for name, coordinate in volume.coords.items():
        _require_plain(name, coordinate)
    kept = volume.assign_coords({n: c.astype(np.dtypes.StringDType()) for n, c in texts.items()})
    kept = kept.assign_coords({n: c.compute() for n, c in kept.coords.items() if c.chunks})
    kept.attrs = _unreserved(strict_attrs(volume.attrs, "the volume"), "the volume")
    for name, coordinate in kept.coords.items():
        of = f"the coordinate {name!r}"
        coordinate.attrs = _unreserved(strict_attrs(coordinate.attrs, of), of)
        coordinate.encoding = {}
    return kept


_RESERVED = frozenset(
    (
        "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned",
        "dtype", "calendar", "coordinates", "grid_mapping", "_ARRAY_DIMENSIONS",
    )
)  # fmt: skip
"""Attributes by which xarray and others change values when they read them (CF conventions)."""


def _unreserved(attrs: dict[str, Any], of: str) -> dict[str, Any]:
    """Raise if an attribute is NaN or None, or would change values in the hands of other readers."""
    since = " since " in str(attrs.get("units", ""))
    empty = [name for name, value in attrs.items() if value is None]
    for name in (*(_RESERVED & attrs.keys()), *(["units"] if since else []), *empty):
        raise StoreError(
            f"the attribute {name!r} of {of}, {attrs[name]!r}, would make other readers of the store change values. "
            f"Remove or rename it: attrs.pop({name!r})."
        )
    return attrs


def _is_plain_name(name: Any) -> bool:
    """Whether a name can be that of a folder in a store."""
    return isinstance(name, str) and name.strip(".") != "" and "/" not in name and name != "zarr.json"


def _require_plain(name: Any, coordinate: xr.DataArray) -> None:
    """Raise unless a store can hold a coordinate."""
    words = coordinate.dtype.kind != "O" or all(isinstance(v, str) for v in coordinate.values.flat)
    if name in AXES and (coordinate.dtype.kind not in "iuf" or coordinate.attrs.get("units", "mm") != "mm"):
        raise StoreError(
            f"the labels of {name} are {coordinate.dtype} in {coordinate.attrs.get('units', 'no unit')!r}; positions "
            "are numbers in mm. Convert them with assign_coords."
        )
    if not _is_plain_name(name) or name == "image" or name.startswith("__") or not words:
        raise StoreError(
            f"the coordinate {name!r} of {coordinate.dtype} cannot be written to a store; its name must be text other "
            f"than 'image', and its values numbers or text. Drop it: volume.drop_vars([{name!r}])."
        )


def strict_attrs(attrs: Mapping[Any, Any], of: str) -> dict[str, Any]:
    """Return attributes as strict JSON holds them: plain numbers and lists, and null for NaN."""
    kept: dict[str, Any] = {}
    for name, value in attrs.items():
        try:
            kept[name] = _strict(value)
            json.dumps({name: kept[name]}, allow_nan=False)
            if not isinstance(name, str):
                raise TypeError
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"the attribute {name!r} of {of} is of type {type(value).__name__}, or holds infinity or a name "
                f"that is no text, which a store cannot hold. Make it a number, text or a list of them, or remove it: "
                f"attrs.pop({name!r})."
            ) from error
    return kept


def _strict(value: Any) -> Any:
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise TypeError
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, float) and np.isinf(value):
        raise ValueError
    return None if isinstance(value, float) and np.isnan(value) else value


def attrs_with_nan(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes as they were before `strict`."""
    return {name: _with_nan(value) for name, value in attrs.items()}


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(v) for v in value]
    return float("nan") if value is None else value
