"""What is written into a store at last: coordinates, what OME-Zarr tools read, checksums, and that it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr

from lazyvol.convention import geometry_of
from lazyvol.ome import VERSION, image_label, multiscale, omero, steps_and_starts
from lazyvol.place import Place
from lazyvol.plan import Plan, digest_of
from lazyvol.stored import open_image, shard_keys
from lazyvol.windows import greys_of

__all__ = ["finish"]


def finish(
    place: Place, plan: Plan, checksums: Mapping[str, Mapping[str, int]], findings: list[str] | None, *, label: bool
) -> None:
    """Write coordinates, what OME-Zarr tools read, and that the store is complete."""
    digests = {}
    groups = {}
    for image, selection in plan.arrangement.images(plan.volume.sizes):
        scales = []
        for n in range(len(plan.cuts)):
            coordinates = plan.coordinates(n, selection)
            scale = f"{image}/scale{n}".lstrip("/")
            coordinates.to_zarr(place.store, group=scale, mode="a", consolidated=False)
            digests[scale] = digest_of(coordinates.coords)
            scales.append(coordinates)
            if findings is not None:
                zarr.open_array(place.store, path=plan.path(image, n), mode="r+").attrs["findings"] = findings
        groups[image] = _ome(place, plan, image, scales, label=label)
    if plan.arrangement.split:
        coordinates = plan.coordinates(0)
        coordinates.to_zarr(place.store, group="coordinates", mode="a", consolidated=False)
        digests["coordinates"] = digest_of(coordinates.coords)
        for image, ome in groups.items():
            zarr.open_group(place.store, path=image, mode="a").update_attributes({"ome": ome})
    root = zarr.open_group(place.store, mode="r+")
    about: Any = root.attrs["lazyvol"]
    ordered = {path: [each[key] for key in _keys(place, path)] for path, each in checksums.items()}
    kept = {k: v for k, v in about.items() if k not in {"writer", "changing"}}
    whole = {**kept, **plan.about(), "checksums": ordered, "coordinates": digests, "complete": True}
    root.update_attributes({"lazyvol": whole} | ({} if plan.arrangement.split else {"ome": groups[""]}))


def _keys(place: Place, path: str) -> list[str]:
    array = open_image(place, path)
    assert array is not None
    return list(shard_keys(array).values())


def _ome(place: Place, plan: Plan, image: str, scales: list[xr.Dataset], *, label: bool) -> dict[str, Any]:
    """Return what OME-Zarr tools read of an image."""
    order = plan.arrangement.order
    levels, geometry = [], None
    known = [d for d in ("z", "y", "x") if d in scales[0].coords]
    for n, coordinates in enumerate(scales):
        sizes = dict(zip(order, plan.shape(n), strict=True))
        blank = xr.DataArray(np.broadcast_to(np.int8(0), list(sizes.values())), coordinates.coords, list(sizes))
        found = geometry_of(blank)
        geometry = geometry or found
        steps = dict(zip(("z", "y", "x"), found.spacing, strict=True))
        scale, translation = steps_and_starts(coordinates, order, steps)
        levels.append((f"scale{n}/{plan.name}", scale, translation))
    assert geometry is not None
    ome = {
        "version": VERSION,
        "multiscales": [multiscale(plan.name, order, levels, geometry, known, nearest=plan.nearest)],
    }
    if label:
        return ome | {"image-label": image_label(plan.volume.attrs)}
    return ome | {"omero": _omero(place, plan, plan.path(image, len(scales) - 1))}


def _omero(place: Place, plan: Plan, path: str) -> dict[str, Any]:
    """Return the window with which viewers begin: the header's, or one for the middle of the lowest level."""
    array = open_image(place, path)
    assert array is not None
    whole = {"y", "x", "sample"}
    middle = tuple(
        slice(None) if d in whole else slice(n // 2, n // 2 + 1)
        for d, n in zip(plan.arrangement.order, array.shape, strict=True)
    )
    values = np.asarray(array[middle]).astype(float)
    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    if plan.volume.dtype.kind in "iu" and plan.volume.dtype.itemsize < 4:
        low, high = (float(v) for v in (np.iinfo(plan.volume.dtype).min, np.iinfo(plan.volume.dtype).max))
    colour = "sample" in plan.arrangement.order
    if colour:
        return omero("", (low, high), (low, high), colour=True)
    greys = greys_of(plan.volume, None, values)
    label = str(plan.volume.attrs.get("Modality", plan.name))
    return omero(label, (min(low, greys.low), max(high, greys.high)), (greys.low, greys.high), colour=False)
