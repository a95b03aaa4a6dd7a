"""What a store holds, to change it: its plan read back, and the shards in which something changes at all levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from xarray.core import indexing
from zarr.codecs import Crc32cCodec

from lazyvol.arrangement import Arrangement
from lazyvol.chunks import Cut
from lazyvol.convention import attrs_with_nan
from lazyvol.errors import StoreError
from lazyvol.opened import About, image_files, lengths_of, stored_coordinates
from lazyvol.place import Place
from lazyvol.plan import Plan
from lazyvol.stored import StoredImage, open_image
from lazyvol.writing import Level, halved_task, shard_tasks

__all__ = ["Changed", "Content", "content_of", "rewrite"]

Changed = Mapping[str, tuple[int, int]]
"""First voxel that changes along each dimension, and the one after the last; at full resolution."""


@dataclass(frozen=True, slots=True)
class Content:
    """A store that is changed."""

    plan: Plan
    """What it holds; its volume reads the store."""

    checksums: dict[str, dict[str, int]]
    """CRC-32C of each shard, by the path of its array."""

    label: bool
    """Whether it is a label image."""


def content_of(place: Place, about: About) -> Content:
    """Return what a store holds."""
    if "checksums" not in about:
        raise StoreError(
            f"{place.name} has a layout that cannot grow. Save it again: save_zarr(open_zarr(store), ...)."
        )
    levels = [image_files(place, "", about, n) for n in range(len(about["factors"]) + 1)]
    arrays = [files[0].array for files in levels]
    to = Arrangement.from_attrs(about, ())
    lengths = [lengths_of(about, array, to, n) for n, array in enumerate(arrays)]
    stored = (*to.split, *to.order)
    coordinates = stored_coordinates(place, "", about, to, 0)
    image: Any = indexing.LazilyIndexedArray(
        StoredImage(place, levels[0], Arrangement(stored, to.order, to.split), lengths[0])
    )
    attrs = attrs_with_nan(arrays[0].attrs.asdict())
    shards = dict(zip(to.order, arrays[0].shards or (), strict=True))
    blocks = {d: shards.get(d, 1) for d in stored}
    data = xr.Variable(stored, image).chunk(blocks, name=f"stored-{about['uid']}").data
    volume = xr.DataArray(data, coordinates.coords, stored, name=about["name"], attrs=attrs)
    factors = tuple(dict(zip(to.order, f, strict=True)) for f in about["factors"])
    codecs = [c for c in arrays[0].compressors if not isinstance(c, Crc32cCodec)]
    codec: Any = codecs[0] if codecs else None
    cuts = tuple(_cut_of(array, to.order) for array in arrays)
    plan = Plan(volume, to, about["name"], cuts, factors, codec, about["nearest"], about["fingerprint"])
    plan = replace(plan, version=about.get("ome_zarr", plan.version))
    checksums = {}
    for n, level in enumerate(levels):
        for files in level:
            counts = (-(-lengths[n][d] // s) for d, s in zip(to.order, files.array.shards or (), strict=True))
            keys = map(files.array.metadata.encode_chunk_key, np.ndindex(*counts))
            checksums[files.path] = dict(zip(keys, about["checksums"][files.path], strict=True))
    ome: Any = zarr.open_group(place.store, mode="r").attrs.get("ome", {})
    return Content(plan, checksums, "image-label" in ome)


def _cut_of(array: zarr.Array[Any], order: tuple[str, ...]) -> Cut:
    shards, chunks = (dict[Any, int](zip(order, c or (), strict=True)) for c in (array.shards, array.chunks))
    return Cut({d: min(shards[d], n) for d, n in zip(order, array.shape, strict=True)}, shards, chunks)


def rewrite(
    place: Place,
    plan: Plan,
    known: Mapping[str, Mapping[str, int]],
    changed: Changed,
    *,
    uid: str,
    since: int | None = None,
) -> dict[str, dict[str, int]]:
    """Write the shards in which something changed, or all of the levels ``since`` one; return all checksums.

    Tasks write as long as the root of the store holds ``uid``.
    """
    checksums = {path: dict(found) for path, found in known.items()}
    for image, selection in plan.arrangement.images(plan.volume.sizes):
        if any(d in changed and not changed[d][0] <= k < changed[d][1] for d, k in selection.items()):
            continue
        above, bounds = None, dict(changed)
        for n in range(len(plan.cuts)):
            if since is not None and n >= since and open_image(place, plan.path(image, n)) is None:
                plan.create_array(place, image, n)
            factors = plan.factors[n - 1] if n else {}
            bounds = {d: (a // factors.get(d, 1), -(-b // factors.get(d, 1))) for d, (a, b) in bounds.items()}
            level = _level(place, plan, image, n)
            touched = _touched(level, plan.arrangement.order, bounds)
            if since is not None and n < since:
                touched = {}
            if above is None:
                absent = {level.path: set(touched.values())}
                data = plan.volume.isel(selection).data
                tasks = shard_tasks(data, [level], place, absent, nearest=plan.nearest, uid=uid) if touched else []
            else:
                tasks = [
                    halved_task(place, above, level, shard, nearest=plan.nearest, uid=uid) for shard in sorted(touched)
                ]
            checksums.setdefault(level.path, {})
            for path, key, checksum in chain(*compute(*tasks)):  # type: ignore[no-untyped-call]
                checksums[path][key] = checksum
            above = level
    return checksums


def _level(place: Place, plan: Plan, image: str, n: int) -> Level:
    """Return a level in the shape that it will have."""
    array = open_image(place, plan.path(image, n))
    assert array is not None
    level, shape = plan.level(array, image, n), plan.shape(n)
    counts = (-(-size // s) for size, s in zip(shape, level.form.shard, strict=True))
    keys = {number: array.metadata.encode_chunk_key(number) for number in np.ndindex(*counts)}
    return replace(level, shape=shape, keys=keys)


def _touched(level: Level, order: tuple[str, ...], bounds: Changed) -> dict[tuple[int, ...], str]:
    """Return the shards that hold a voxel within bounds."""
    ranges = [bounds.get(d, (0, n)) for d, n in zip(order, level.shape, strict=True)]
    return {
        number: key
        for number, key in level.keys.items()
        if all(s * c < b and (s + 1) * c > a for s, c, (a, b) in zip(number, level.form.shard, ranges, strict=True))
    }
