"""What OME-Zarr tools read of a store: axes, scales, places, orientation and windows (NGFF 0.5, RFC-4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from lazyvol.arrangement import SPACE
from lazyvol.geometry import Geometry

__all__ = ["image_label", "level_coordinates", "multiscale", "omero", "steps_and_starts"]

VERSION = "0.5"

_WORDS = {
    "L": "right-to-left",
    "R": "left-to-right",
    "P": "anterior-to-posterior",
    "A": "posterior-to-anterior",
    "S": "inferior-to-superior",
    "I": "superior-to-inferior",
}
"""Anatomical orientation (RFC-4) by the side of the patient that an axis grows towards."""


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
        spacing = np.asarray(scalar.attrs["spacing"], dtype=float) * [factors.get(d, 1) for d in SPACE]
        kept["geometry"] = xr.Variable((), scalar.values, {**scalar.attrs, "spacing": spacing.tolist()})
    return xr.Dataset(coords=kept)


def steps_and_starts(
    coordinates: xr.Dataset, order: Sequence[str], spacing: Mapping[str, float]
) -> tuple[list[float], list[float]]:
    """Return scale and translation of each axis: the mean step of its labels, and the first.

    Parameters
    ----------
    coordinates
        Of the level; labels ascend.
    order
        Its dimensions.
    spacing
        Exact steps along z, y and x where they are known, mm; NaN elsewhere.
    """
    scale, translation = [], []
    for dim in order:
        labels = coordinates.coords.get(dim)
        if labels is None or labels.dtype.kind not in "iuf" or (dim not in SPACE and dim != "time"):
            labels = None
        known = spacing.get(dim, np.nan)
        step = known if np.isfinite(known) and known > 0 else 1.0
        start = 0.0
        if labels is not None and np.isfinite(labels.values).all():
            start = float(labels.values.flat[0])
            mean = float(np.ptp(labels.values)) / max(labels.size - 1, 1)
            step = mean if mean > 0 and not np.isfinite(known) else step
        scale.append(float(step))
        translation.append(start)
    return scale, translation


def multiscale(
    name: str,
    order: Sequence[str],
    levels: Iterable[tuple[str, list[float], list[float]]],
    geometry: Geometry,
    known: Iterable[str],
    *,
    nearest: bool,
) -> dict[str, Any]:
    """Return the metadata of one image of several levels (NGFF 0.5 "multiscales").

    Parameters
    ----------
    name
        What the image is called.
    order
        Its dimensions.
    levels
        Path, scale and translation of each level.
    geometry
        Where its voxels lie, for the orientation of its axes.
    known
        Dimensions along z, y and x whose labels are millimetres.
    nearest
        Whether lower levels take one of the voxels instead of their mean.
    """
    transformations = (
        (path, [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}])
        for path, scale, translation in levels
    )
    return {
        "name": name,
        "axes": [_axis(dim, geometry, dim in set(known)) for dim in order],
        "datasets": [{"path": path, "coordinateTransformations": t} for path, t in transformations],
        "type": "nearest" if nearest else "mean",
    }


def _axis(dim: str, geometry: Geometry, in_mm: bool) -> dict[str, Any]:
    if dim == "time":
        return {"name": dim, "type": "time", "unit": "second"}
    if dim not in SPACE:
        return {"name": dim, "type": "channel" if dim == "sample" else dim}
    axis: dict[str, Any] = {"name": dim, "type": "space"} | ({"unit": "millimeter"} if in_mm else {})
    if geometry.orientation:
        value = _WORDS[getattr(geometry.axis_letters, dim)]
        axis["orientation"] = {"type": "anatomical", "value": value}
    return axis


def omero(label: str, limits: tuple[float, float], window: tuple[float, float], *, colour: bool) -> dict[str, Any]:
    """Return how a viewer shows an image at first.

    Parameters
    ----------
    label
        What is shown, e.g. the modality.
    limits
        Least and greatest value that there can be.
    window
        Values that are black and white.
    colour
        Whether there are red, green and blue.
    """
    names = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"} if colour else {label: "FFFFFF"}
    shown = dict(zip(("min", "max", "start", "end"), map(float, (*limits, *window)), strict=True))
    return {
        "channels": [{"label": name, "color": hexed, "active": True, "window": shown} for name, hexed in names.items()],
        "rdefs": {"model": "color" if colour else "greyscale"},
    }


def image_label(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the values of a label image stand for, and in which colours (NGFF 0.5 "labels")."""
    numbers, names, colours = (attrs.get(f"segment_{n}", []) for n in ("numbers", "labels", "colours"))
    said: dict[str, Any] = {"version": VERSION, "source": {"image": "../../"}}
    if numbers:
        said["properties"] = [{"label-value": int(n), "name": name} for n, name in zip(numbers, names, strict=False)]
        said["colors"] = [
            {"label-value": int(n), "rgba": [*bytes.fromhex(colour.lstrip("#")), 255]}
            for n, colour in zip(numbers, colours, strict=False)
            if colour
        ]
    return said
