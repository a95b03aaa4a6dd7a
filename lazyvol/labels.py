"""What a stack carries beside its values: the labels, coordinates and attributes of its volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.convention import geometry_coordinates
from lazyvol.errors import Finding
from lazyvol.geometry import Geometry
from lazyvol.images import past_midnight
from lazyvol.keywords import UNITS, snake_case
from lazyvol.meaning import padding_of
from lazyvol.records import Segment, Value
from lazyvol.stacks import Stack
from lazyvol.uptake import KINDS, suv_factor
from lazyvol.values import quantity, shared_values

__all__ = ["dimension_coordinates", "stack_labels"]

WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
"""What holds for values after rescaling only (DICOM PS3.3 C.11.2)."""


Varying = Mapping[str, Sequence[Value | None]]


def stack_labels(stack: Stack, findings: tuple[Finding, ...]) -> tuple[dict[str, Any], dict[str, xr.Variable]]:
    """Return the attributes of a volume, and its coordinates: labels, its geometry, and what its images carry."""
    shared, varying = shared_values(stack.slices)
    return _attrs(stack, findings, shared, varying), _coordinates(stack, varying)


def _attrs(
    stack: Stack, findings: tuple[Finding, ...], shared: Mapping[str, Value], varying: Varying
) -> dict[str, Any]:
    """Return the attributes of a volume: numbers, strings and flat lists of them."""
    first = stack.slices[0].instance
    attrs: dict[str, Any] = {**quantity(stack.slices, shared, stack.values)}
    said = {"RGB"} if stack.is_colour else {s.instance.pixels.photometric_interpretation for s in stack.slices}
    attrs |= {"photometric_interpretation": said.pop()} if len(said) == 1 else {}
    left_out = () if stack.values == "rescaled" else WINDOW
    attrs |= {k: list(v) if isinstance(v, tuple) else v for k, v in shared.items() if k not in left_out}
    attrs |= _padding_attrs(stack) if any("Padding" in k for k in (*shared, *varying)) else {}
    attrs |= _suv_attrs(stack) if stack.values == "rescaled" else {}
    attrs |= _segment_attrs(first.segments) if "segment" not in stack.dims else {}
    return attrs | {"findings": [f.to_json() for f in findings], "lazyvol_version": version("lazyvol")}


def _padding_attrs(stack: Stack) -> dict[str, Any]:
    """Return what padding is in the values of the volume, if it is the same in all slices."""
    found = {(padding_of(s), s.frame.slope, s.frame.intercept, s.frame.lookup) for s in stack.slices}
    padding, slope, intercept, lookup = found.pop()
    if found or padding is None or lookup is not None or stack.is_colour:
        return {}
    low, high = sorted(_plain(end * slope + intercept) for end in padding)
    return {"padding_value": low} if low == high else {"padding_range": [low, high]}


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _coordinates(stack: Stack, varying: Varying) -> dict[str, xr.Variable]:
    instances = [s.instance for s in stack.slices]
    per_image: dict[str, tuple[Sequence[Value | None], dict[str, str]]] = {
        "sop_instance_uid": ([i.uid for i in instances], {}),
        "source": ([i.path for i in instances], {}),
        "instance_number": ([s.number for s in stack.slices], {"long_name": "instance number"}),
        "acquisition_time": (
            _since_first(past_midnight([s.acquisition_time for s in stack.slices])),
            {"units": "s", "long_name": "acquisition time since the first image"},
        ),
    }
    said = [i.pixels.photometric_interpretation for i in instances]
    if len(set(said)) > 1 and not stack.is_colour:
        per_image["photometric_interpretation"] = (said, {})
    if any(len(i.frames) > 1 and not i.tile for i in instances):
        numbers = [s.frame.index + 1 for s in stack.slices]
        per_image["frame_number"] = (numbers, {"long_name": "number of the frame in its file"})
    of_axes = {a.keyword for a in stack.axes if a.units} | (set() if stack.values == "rescaled" else set(WINDOW))
    per_image |= {snake_case(k): (v, _units(k)) for k, v in varying.items() if k not in of_axes}
    coordinates = dimension_coordinates(stack, stack.geometry)
    for name, (values, attrs) in per_image.items():
        if any(v is not None for v in values):
            one_file = name in {"sop_instance_uid", "source"} and len(instances) > 1 and len({*map(id, instances)}) == 1
            coordinates[name] = _per_image(stack, values[:1] if one_file else values, attrs)
    if coordinates.get("time") is not None and coordinates.get("acquisition_time") is not None:
        coordinates = _without_repeated_time(coordinates)
    return coordinates


def dimension_coordinates(stack: Stack, geometry: Geometry) -> dict[str, xr.Variable]:
    """Return the coordinates of the dimensions of a volume, which cost no look at its images."""
    coordinates = geometry_coordinates(geometry, stack.slice_positions) | _segment_coordinates(stack)
    if stack.is_colour:
        coordinates["sample"] = xr.Variable(("sample",), _array(["R", "G", "B"]))
    for axis in stack.axes:
        attrs = {"long_name": axis.name.replace("_", " ")} | ({"units": axis.units} if axis.units else {})
        coordinates[axis.name] = xr.Variable((axis.name,), _array(axis.labels), attrs)
    return coordinates


def _without_repeated_time(coordinates: dict[str, xr.Variable]) -> dict[str, xr.Variable]:
    """Drop the acquisition times where the labels of time say the same."""
    times = coordinates["acquisition_time"]
    same = times.dims == ("time",) and np.array_equal(times.values, coordinates["time"].values)
    return {k: v for k, v in coordinates.items() if not (same and k == "acquisition_time")}


def _units(keyword: str) -> dict[str, str]:
    return {"units": UNITS[keyword]} if keyword in UNITS else {}


def _since_first(times: list[float | None]) -> list[float | None]:
    first = min((t for t in times if t is not None), default=0.0)
    return [None if t is None else round(t - first, 6) for t in times]


def _per_image(stack: Stack, values: Sequence[Value | None], attrs: dict[str, str]) -> xr.Variable:
    """Return values of the images on the dimensions that they vary along."""
    if len(values) < len(stack.slices):
        return xr.Variable(("image",), _array(values), attrs).isel(image=0)
    holes = -1 in stack.places
    array = _array([*values, None] if holes else values)
    dims, shape = stack.image_dims, stack.image_shape
    variable = xr.Variable(dims, array[np.array(stack.places)].reshape(shape), attrs)
    for dim in dims[:-1] if len(dims) > 1 else ():
        first = variable.isel({dim: slice(0, 1)})
        if _all_equal(variable.values, first.values):
            variable = variable.isel({dim: 0})
    if len(variable.dims) > 1 and _all_equal(variable.values, variable.isel(z=slice(0, 1)).values):
        variable = variable.isel(z=0)
    return variable


def _all_equal(values: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    both_nan = (values != values) & (other != other)  # noqa: PLR0124  # NaN alone differs from itself
    return bool(((values == other) | both_nan).all())


def _array(values: Sequence[Value | None]) -> npt.NDArray[Any]:
    if all(isinstance(v, int) for v in values):
        return np.array(values, dtype="int64")
    if all(v is None or isinstance(v, int | float) for v in values):
        return np.array([np.nan if v is None else v for v in values], dtype="float64")
    words = ["\\".join(map(str, v)) if isinstance(v, tuple) else "" if v is None else str(v) for v in values]
    plain = [word.encode("utf-8", "backslashreplace").decode() for word in words]  # names of files may be no UTF-8
    return np.array(plain, dtype=np.dtypes.StringDType())


def _segment_coordinates(stack: Stack) -> dict[str, xr.Variable]:
    """Return what the layers of a segmentation stand for."""
    labels = next((a.labels for a in stack.axes if a.name == "segment"), ())
    known = {s.number: s for part in stack.slices for s in part.instance.segments}
    found = [known.get(int(n), Segment(int(n))) for n in labels]
    if not found:
        return {}
    fields = ("label", "category", "type", "colour")
    return {f"segment_{f}": xr.Variable(("segment",), _array([getattr(s, f) for s in found])) for f in fields}


def _suv_attrs(stack: Stack) -> dict[str, Any]:
    """Return the factors from the values of PET to SUV, or why there are none."""
    uptakes = list(dict.fromkeys(s.instance.uptake for s in stack.slices))
    known = [u for u in uptakes if u is not None]
    if not known or len(known) < len(uptakes):
        return {}
    factors = {kind: suv_factor(known, kind) for kind in KINDS}
    found: dict[str, Any] = {f"suv_{k}_factor": f.value for k, f in factors.items() if f.value is not None}
    return found | {f"suv_{k}_problems": list(f.problems) for k, f in factors.items() if f.problems}


def _segment_attrs(segments: Sequence[Segment]) -> dict[str, Any]:
    """Return what the values of a label map stand for."""
    if not segments:
        return {}
    return {
        "segment_numbers": [s.number for s in segments],
        "segment_labels": [s.label for s in segments],
        "segment_colours": [s.colour for s in segments],
    }
