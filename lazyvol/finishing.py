"""What is written into a store at last: coordinates, what OME-Zarr tools read, checksums, and that it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.core.sync import sync

from lazyvol.coordinates import digest_in
from lazyvol.ome import image_label, multiscale, omero, steps_and_starts
from lazyvol.place import LocalPlace, Place
from lazyvol.plan import Plan
from lazyvol.stored import open_image, shard_keys
from lazyvol.windows import greys_of
from lazyvol.writing import JOURNAL

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
            digests[scale] = digest_in(place, scale, plan.name)
            scales.append(coordinates)
            if findings is not None:
                zarr.open_array(place.store, path=plan.path(image, n), mode="r+").attrs["findings"] = findings
        groups[image] = _ome(place, plan, image, scales, label=label)
    if plan.arrangement.split:
        coordinates = plan.coordinates(0)
        coordinates.to_zarr(place.store, group="coordinates", mode="a", consolidated=False)
        digests["coordinates"] = digest_in(place, "coordinates", plan.name)
        for image, ome in groups.items():
            zarr.open_group(place.store, path=image, mode="a").update_attributes({"ome": ome})
    _forget_journal(place)
    root = zarr.open_group(place.store, mode="r+")
    about: Any = root.attrs["lazyvol"]
    ordered = {path: [each[key] for key in _keys(place, path)] for path, each in checksums.items()}
    kept = {k: v for k, v in about.items() if k not in {"writer", "changing", "claim"}}
    whole = {**kept, **plan.about(), "checksums": ordered, "coordinates": digests, "complete": True}
    root.update_attributes({"lazyvol": whole} | ({} if plan.arrangement.split else {"ome": groups[""]}))


def _forget_journal(place: Place) -> None:
    """Remove what stands in the findings now."""
    if isinstance(place, LocalPlace):
        shutil.rmtree(os.path.join(place.path, JOURNAL), ignore_errors=True)
    else:
        sync(place.store.delete_dir(JOURNAL))


def _keys(place: Place, path: str) -> list[str]:
    array = open_image(place, path)
    assert array is not None
    return list(shard_keys(array).values())


def _ome(place: Place, plan: Plan, image: str, scales: list[xr.Dataset], *, label: bool) -> dict[str, Any]:
    """Return what OME-Zarr tools read of an image."""
    order = plan.arrangement.order
    levels: list[tuple[str, list[float], list[float]]] = []
    for n, coordinates in enumerate(scales):
        above = levels[-1][1:] if levels else None
        scale, translation = steps_and_starts(coordinates, order, above, plan.factors[n - 1] if n else None)
        levels.append((f"scale{n}/{plan.name}", scale, translation))
    ome = {
        "version": plan.version,
        "multiscales": [multiscale(plan.name, order, levels, scales[0], nearest=plan.nearest, version=plan.version)],
    }
    if label:
        return ome | {
            "image-label": image_label(plan.volume.attrs, of_image=plan.group is not None, version=plan.version)
        }
    return ome | {"omero": _omero(place, plan, plan.path(image, len(scales) - 1), scales[0])}


def _omero(place: Place, plan: Plan, path: str, coordinates: xr.Dataset) -> dict[str, Any]:
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
    high = high if high > low else low + 1
    if "sample" in plan.arrangement.order:
        names = coordinates.coords["sample"].values if "sample" in coordinates.coords else ()
        samples = [str(v) for v in names] or list("RGB")[: array.shape[plan.arrangement.order.index("sample")]]
        return omero("", (low, high), (low, high), samples)
    one = coordinates.isel({d: n // 2 for d, n in coordinates.sizes.items() if d not in whole})
    scalars = {name: c for name, c in one.coords.items() if not c.dims}  # windows may differ from slice to slice
    greys = greys_of(xr.DataArray(np.zeros((), plan.volume.dtype), scalars, attrs=plan.volume.attrs), None, values)
    label = str(plan.volume.attrs.get("Modality", plan.name))
    return omero(label, (min(low, greys.low), max(high, greys.high)), (greys.low, greys.high))
