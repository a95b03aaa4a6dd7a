"""What OME-Zarr tools read of a store: axes, scales, places, orientation and windows (NGFF 0.5 and 0.6, RFC-4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from colorsys import hsv_to_rgb
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.arrangement import SPACE
from lazyvol.convention import geometry_of
from lazyvol.geometry import SPACING_RTOL, Geometry

__all__ = ["geometry_at", "image_label", "level_coordinates", "multiscale", "omero", "steps_and_starts"]

Array = npt.NDArray[np.float64]
Version = Literal["0.5", "0.6"]
VERSION: Version = "0.5"

_WORDS = {
    "L": "right-to-left",
    "R": "left-to-right",
    "P": "anterior-to-posterior",
    "A": "posterior-to-anterior",
    "S": "inferior-to-superior",
    "I": "superior-to-inferior",
}
"""Anatomical orientation (RFC-4) by the side of the patient that an axis grows towards."""
_GRID = "intrinsic"
"""The coordinate system of the labels z, y, x (NGFF 0.6)."""
_HUES = 0.618
"""Turns of the colour wheel between numbers, so that neighbours differ."""
_TIMES = {"s": "second", "ms": "millisecond"}
_SAMPLES = {"R": ("red", "FF0000"), "G": ("green", "00FF00"), "B": ("blue", "0000FF")}


def level_coordinates(coordinates: xr.Dataset, factors: Mapping[str, int]) -> xr.Dataset:
    """Return the coordinates of a level whose voxels are made of so many of the level above it.

    Labels are the middle of what became one voxel; what else varies along a halved dimension has no value there.
    """
    halved = {d: f for d, f in factors.items() if f > 1}
    kept = {name: c.variable for name, c in coordinates.coords.items() if not halved.keys() & set(c.dims)}
    for dim, factor in halved.items():
        if dim in coordinates.coords:
            label = coordinates.coords[dim].variable
            whole = label.values[: label.size - label.size % factor]
            kept[dim] = xr.Variable((dim,), whole.reshape(-1, factor).mean(axis=1), label.attrs)
    if "geometry" in kept and "spacing" in kept["geometry"].attrs:
        scalar = kept["geometry"]
        found = dict(zip(SPACE, geometry_of(_blank(coordinates)).spacing, strict=True))
        said = dict(zip(SPACE, scalar.attrs["spacing"], strict=True))
        spacing = [found[d] * halved[d] if d in halved else said[d] for d in SPACE]
        kept["geometry"] = xr.Variable((), scalar.values, {**scalar.attrs, "spacing": spacing})
    return xr.Dataset(coords=kept)


def geometry_at(coordinates: xr.Dataset) -> Geometry:
    """Return where the voxels lie that coordinates belong to."""
    return geometry_of(_blank(coordinates))


def _blank(coordinates: xr.Dataset) -> xr.DataArray:
    """Return an array of these coordinates that takes no memory."""
    sizes = {d: n for d, n in coordinates.sizes.items() if d in SPACE}
    kept = {d: coordinates.coords[d] for d in (*SPACE, "geometry") if d in coordinates.coords}
    return xr.DataArray(np.broadcast_to(np.int8(0), list(sizes.values())), kept, list(sizes))


def _labels(coordinates: xr.Dataset, dim: str) -> xr.DataArray | None:
    """Return the labels of a dimension; None if it has none, where `coords.get` counts."""
    return coordinates.coords[dim] if dim in coordinates.coords else None  # noqa: SIM401


def steps_and_starts(
    coordinates: xr.Dataset,
    order: Sequence[str],
    above: tuple[Sequence[float], Sequence[float]] | None = None,
    factors: Mapping[str, int] | None = None,
) -> tuple[list[float], list[float]]:
    """Return scale and translation of each axis: the mean step of its labels, and the first.

    What has no even labels in mm lies in the level above by the number of voxels alone, so that levels stay one
    picture.

    Parameters
    ----------
    coordinates
        Of the level; labels ascend.
    order
        Its dimensions.
    above
        Scale and translation of the level above.
    factors
        How many voxels of that one became one.

    Examples
    --------
    >>> steps_and_starts(xr.Dataset(), ["y", "x"], ([1.0, 1.0], [0.0, 0.0]), {"y": 2, "x": 1})
    ([2.0, 1.0], [0.5, 0.0])
    """
    known = geometry_at(coordinates).spacing._asdict() if "geometry" in coordinates.coords else {}
    scale, translation = [], []
    for n, dim in enumerate(order):
        labels = _labels(coordinates, dim)
        usable = labels is not None and labels.dtype.kind in "iuf" and (dim in SPACE or dim == "time")
        values = np.atleast_1d(labels.values) if labels is not None and usable else np.zeros(1)
        values = values if np.isfinite(values).all() else np.zeros(1)
        step, start = float(known.get(dim, np.nan)), float(values.flat[0])
        even = usable and step > 0
        if above is not None:
            factor = (factors or {}).get(dim, 1)
            derived = above[0][n] * factor
            if not (even and abs(step - derived) <= SPACING_RTOL * derived):
                step, start = derived, above[1][n] + above[0][n] * (factor - 1) / 2
        elif not even:
            step = float(np.ptp(values)) / max(values.size - 1, 1) or 1.0
        scale.append(step)
        translation.append(start)
    return scale, translation


def multiscale(
    name: str,
    order: Sequence[str],
    levels: Iterable[tuple[str, list[float], list[float]]],
    coordinates: xr.Dataset,
    *,
    nearest: bool,
    version: Version,
) -> dict[str, Any]:
    """Return the metadata of one image of several levels (NGFF "multiscales").

    Parameters
    ----------
    name
        What the image is called.
    order
        Its dimensions.
    levels
        Path, scale and translation of each level.
    coordinates
        Of its first level, for units and orientation of its axes.
    nearest
        Whether lower levels take one of the voxels instead of their mean.
    version
        Of OME-Zarr.
    """
    axes = [_axis(dim, coordinates) for dim in order]
    steps = {
        path: [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        for path, scale, translation in levels
    }
    kind = "nearest" if nearest else "mean"
    if version == "0.5":
        datasets = [{"path": path, "coordinateTransformations": each} for path, each in steps.items()]
        return {"name": name, "axes": axes, "datasets": datasets, "type": kind}
    datasets = [
        {
            "path": path,
            "coordinateTransformations": [
                {"type": "sequence", "input": {"path": path}, "output": {"name": _GRID}, "transformations": each}
            ],
        }
        for path, each in steps.items()
    ]
    systems = [{"name": _GRID, "axes": axes}]
    found = {"name": name, "coordinateSystems": systems, "datasets": datasets, "type": kind}
    if (directions := _directions_in_patient(coordinates)) is not None:
        towards = dict(zip(SPACE, "SPL", strict=True))
        oriented = {d: {"orientation": {"type": "anatomical", "value": _WORDS[to]}} for d, to in towards.items()}
        systems.append({"name": "patient", "axes": [axis | oriented.get(axis["name"], {}) for axis in axes]})
        matrix = np.eye(len(order), len(order) + 1)
        matrix[-3:, -4:-1] = directions.T[::-1]  # space is last, in the order z, y, x
        to = {"input": {"name": _GRID}, "output": {"name": "patient"}}
        found["coordinateTransformations"] = [{"type": "affine", "affine": matrix.tolist(), **to}]
    return found


def _directions_in_patient(coordinates: xr.Dataset) -> Array | None:
    """Return the directions if they lead from labels in mm to places in the patient."""
    geometry = geometry_at(coordinates)
    return np.asarray(geometry.directions) if geometry.is_known and geometry.convention == "LPS" else None


def _axis(dim: str, coordinates: xr.Dataset) -> dict[str, Any]:
    labels = _labels(coordinates, dim)
    if dim == "time":
        unit = _TIMES.get(str(labels.attrs.get("units"))) if labels is not None else None
        return {"name": dim, "type": "time"} | ({"unit": unit} if unit else {})
    if dim not in SPACE:
        return {"name": dim, "type": "channel" if dim == "sample" else dim}
    axis: dict[str, Any] = {"name": dim, "type": "space"}
    geometry = geometry_at(coordinates)
    if labels is not None and dim not in geometry.without_units:
        axis["unit"] = "millimeter"
    if labels is not None and (word := _words_of(coordinates).get(dim)):
        axis["orientation"] = {"type": "anatomical", "value": word}
    return axis


def _words_of(coordinates: xr.Dataset) -> dict[str, str]:
    """Return which way each axis grows; also of those that stay of a volume that lost one."""
    attrs = coordinates.coords["geometry"].attrs
    directions = np.reshape(np.asarray(attrs["directions"], dtype=float), (3, 3))
    if not np.isfinite(directions).all() or attrs["convention"] != "LPS" or attrs.get("without_units"):
        return {}
    rows: Any = tuple(map(tuple, directions.tolist()))  # what has no label has directions all the same
    letters = replace(geometry_at(coordinates), origin=(0.0, 0.0, 0.0), directions=rows).axis_letters
    return {d: _WORDS[letter] for d, letter in letters._asdict().items()}


def omero(
    label: str, limits: tuple[float, float], window: tuple[float, float], samples: Sequence[str] = ()
) -> dict[str, Any]:
    """Return how a viewer shows an image at first.

    Parameters
    ----------
    label
        What is shown, e.g. the modality.
    limits
        Least and greatest value that there can be.
    window
        Values that are black and white.
    samples
        Labels of colours, of R, G and B; none of grey values.
    """
    shown = dict(zip(("min", "max", "start", "end"), map(float, (*limits, *window)), strict=True))
    channels = [_SAMPLES.get(s, (s, "FFFFFF")) for s in samples] or [(label, "FFFFFF")]
    return {
        "channels": [{"label": name, "color": hexed, "active": True, "window": shown} for name, hexed in channels],
        "rdefs": {"model": "color" if samples else "greyscale"},
    }


def image_label(attrs: Mapping[str, Any], *, of_image: bool, version: Version = VERSION) -> dict[str, Any]:
    """Return what the values of a label image stand for, and in which colours (NGFF 0.5 "labels").

    Readers want a colour for all values or for none, so what has no recommended one is given one here.

    Parameters
    ----------
    attrs
        Of the volume: ``segment_numbers`` and what belongs to them.
    of_image
        Whether the label image lies in the store of its image.
    version
        Of OME-Zarr.

    Examples
    --------
    >>> image_label({"segment_numbers": [3], "segment_labels": ["liver"], "segment_colours": [""]}, of_image=False)
    {'version': '0.5', 'properties': [{'label-value': 3, 'name': 'liver'}]}
    """
    numbers, names, colours = (attrs.get(f"segment_{n}", []) for n in ("numbers", "labels", "colours"))
    said: dict[str, Any] = {"version": version} | ({"source": {"image": "../../"}} if of_image else {})
    if len(numbers):
        said["properties"] = [{"label-value": int(n), "name": name} for n, name in zip(numbers, names, strict=True)]
    if any(colours):
        said["colors"] = [
            {"label-value": int(n), "rgba": _colour(int(n), colour)} for n, colour in zip(numbers, colours, strict=True)
        ]
    return said


def _colour(number: int, hexed: str) -> list[int]:
    """Return red, green, blue and opacity: without a recommended colour one by the number; 0, no label, is not seen."""
    made = (round(255 * c) for c in hsv_to_rgb(number * _HUES % 1, 0.6, 0.9))
    return [*(bytes.fromhex(hexed.lstrip("#")) if hexed else made), 255 if number else 0]
