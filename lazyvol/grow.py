"""Stores that change: time points or slices appended, a region written, levels added; and copies of stores.

What is there stays readable as it was while a store grows: shards appear whole, and the root says what is going on.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dask.array as da
import xarray as xr
import zarr

from lazyvol.arrangement import SPACE, Arrangement
from lazyvol.belonging import place_in, require_behind, require_same_kind
from lazyvol.chunks import lower_cut
from lazyvol.convention import require_volume, strict
from lazyvol.errors import IncompleteStoreError, OptionError, StoreError
from lazyvol.finishing import finish
from lazyvol.lock import announced, locked, require_silent
from lazyvol.ome import geometry_at
from lazyvol.opened import About, root_of
from lazyvol.place import WHOLE, LocalPlace, Place, StoreLike, place_of, require_of
from lazyvol.plan import Levels, Plan, require_levels
from lazyvol.privacy import without_identifiers
from lazyvol.pyramid import halves_of
from lazyvol.rewriting import content_of, rewrite
from lazyvol.subfolder import is_transaction

__all__ = ["add_levels", "append_zarr", "copy_zarr", "save_region"]


def append_zarr(volume: xr.DataArray, store: StoreLike, *, dim: str = "time") -> None:
    """Write time points or slices behind those of a store, at all its levels.

    Until all is written the store opens as it was before, with a warning if the writer was stopped; the same call
    then begins again. Findings stay those of the volume that was saved first.

    Parameters
    ----------
    volume
        What comes behind: of the same dtype, name of dimensions and labels but along ``dim``, where its labels are
        greater than those of the store.
    store
        A store that `save_zarr` wrote, complete.
    dim
        Along which dimension: ``"time"``, ``"z"`` or another that the store does not split into images.

    Raises
    ------
    StoreError
        If the volume does not go with the store; says in what.
    OptionError
        If the store cannot grow along the dimension.
    GeometryError
        If it lies elsewhere in the patient.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> folder = getfixture("tmp_path") / "chest.zarr"
    >>> lazyvol.save_zarr(volume[:20], folder)
    >>> lazyvol.append_zarr(volume[20:], folder, dim="z")
    >>> lazyvol.open_zarr(folder).shape == volume.shape
    True
    """
    place = place_of(store, writable=True)
    about = root_of(place, "", changing="append")
    there = content_of(place, about)
    to = there.plan.arrangement
    if dim not in to.order or dim not in to.dims:
        able = [d for d in to.order if d in to.dims]
        raise OptionError(f"dim={dim!r}: {place.name} can grow along {', '.join(able)}.")
    new = _as_stored(volume, about, to)
    before = there.plan.volume
    require_behind(before, new, dim, place.name)
    whole = xr.concat([before, new], dim, coords="different", compat="equals", join="exact", combine_attrs="override")
    whole = whole.transpose(*before.dims)
    require_same_kind(before, whole, dim, place.name)
    plan = replace(there.plan, volume=whole, fingerprint=_changed_fingerprint(about, new))
    first = before.sizes[dim]
    with _claimed(place, about, {"what": "append", "dim": dim, "sizes": dict(before.sizes)}) as claim:
        _truncate(place, there.plan, dim)
        if is_transaction(place.store):  # icechunk, which shows nothing before it is committed
            _reach(place, plan)
        checksums = rewrite(place, plan, there.checksums, {dim: (first, whole.sizes[dim])}, uid=claim)
        require_of(place, claim)
        _lengthen(place, there.plan, plan, dim)
        finish(place, plan, checksums, None, label=there.label)


def _replaced(before: Any, new: Any, places: list[tuple[int, int]], axis: int = 0) -> Any:
    """Return an array with a part in place of its own, of which nothing is read."""
    if axis == before.ndim:
        return new
    start, end = places[axis]
    front = (slice(None),) * axis
    within = _replaced(before[(*front, slice(start, end))], new, places, axis + 1)
    parts = before[(*front, slice(0, start))], within, before[(*front, slice(end, None))]
    return da.concatenate([part for part in parts if part.shape[axis]], axis)  # type: ignore[no-untyped-call]


def save_region(volume: xr.DataArray, store: StoreLike) -> None:
    """Write the values of a part of a store's volume in place, at all its levels.

    Parameters
    ----------
    volume
        New values; its labels say where they belong, and are among those of the store.
    store
        A store that `save_zarr` wrote, complete. While the region is written it is not; a writer that was stopped is
        gone on with by the same call, and another region is refused until then, unless the first lies in it.

    Raises
    ------
    StoreError
        If the labels are none of the store, or the dtype is another.
    GeometryError
        If it lies elsewhere in the patient.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> folder = getfixture("tmp_path") / "chest.zarr"
    >>> lazyvol.save_zarr(volume, folder)
    >>> lazyvol.save_region(volume[3:5] * 0, folder)
    >>> int(abs(lazyvol.open_zarr(folder)[3:5]).max())
    0
    """
    place = place_of(store, writable=True)
    about = root_of(place, "", changing="region")
    there = content_of(place, about)
    new = _as_stored(volume, about, there.plan.arrangement)
    before = there.plan.volume
    places = {str(d): place_in(before, new, str(d), place.name) for d in before.dims}
    data = _replaced(before.data, new.data, [places[str(d)] for d in before.dims])
    plan = replace(there.plan, volume=before.copy(data=data), fingerprint=_changed_fingerprint(about, new))
    _require_covered(about, places, place.name)
    with _claimed(place, about, {"what": "region", "at": {d: list(p) for d, p in places.items()}}) as claim:
        checksums = rewrite(place, plan, there.checksums, places, uid=claim)
        require_of(place, claim)
        finish(place, plan, checksums, None, label=there.label)


def add_levels(store: StoreLike, *, levels: Levels = "auto") -> None:
    """Add levels of lower resolution to a store, made of the lowest that it has.

    Parameters
    ----------
    store
        A store that `save_zarr` wrote, complete; it stays so.
    levels
        How many there shall be, full resolution included; ``"auto"`` for as many as it takes until no side is longer
        than 128 voxels.

    Raises
    ------
    StoreError
        If it is no such store.
    OptionError
        If it has more levels than that.

    Examples
    --------
    >>> import lazyvol
    >>> folder = getfixture("tmp_path") / "chest.zarr"
    >>> lazyvol.save_zarr(lazyvol.open_volume(getfixture("chest_folder")), folder, levels=1)
    >>> lazyvol.add_levels(folder, levels=2)
    >>> lazyvol.open_zarr(folder, level=1).shape
    (24, 24, 32)
    """
    place = place_of(store, writable=True)
    about = root_of(place, "")
    there = content_of(place, about)
    plan = there.plan
    require_levels(levels)
    if levels != "auto" and levels < len(plan.cuts):
        raise OptionError(f"levels={levels!r}: {place.name} has {len(plan.cuts)} levels already.")
    sizes = dict(zip(plan.arrangement.order, plan.shape(len(plan.factors)), strict=True))
    spacing = geometry_at(plan.coordinates(len(plan.factors))).spacing._asdict()
    slabs = {d: plan.cuts[-1].slabs[d] for d in SPACE}
    more = None if levels == "auto" else levels - len(plan.factors)
    factors = halves_of({d: sizes[d] for d in SPACE}, spacing, slabs, more)
    cuts = list(plan.cuts)
    for each in factors:
        sizes = {d: n // each.get(d, 1) for d, n in sizes.items()}
        cuts.append(lower_cut(cuts[-1], sizes, each))
    if not factors:
        return
    grown = replace(plan, cuts=tuple(cuts), factors=(*plan.factors, *factors))
    with _claimed(place, about) as claim:
        checksums = rewrite(place, grown, there.checksums, {}, since=len(plan.cuts), uid=claim)
        require_of(place, claim)
        finish(place, grown, checksums, None, label=there.label)


def copy_zarr(store: StoreLike, to: StoreLike) -> None:
    """Copy a store, file by file and without compressing anew: to another folder, a URL or a store of zarr.

    The copy is complete when all of it is there, and visibly not before.

    Parameters
    ----------
    store
        A complete store.
    to
        Where the copy goes; there must be nothing.

    Raises
    ------
    StoreError
        If the store is incomplete, or the other place is taken.

    Examples
    --------
    >>> import lazyvol
    >>> folder = getfixture("tmp_path")
    >>> lazyvol.save_zarr(lazyvol.open_volume(getfixture("chest_folder")), folder / "a.zarr")
    >>> lazyvol.copy_zarr(folder / "a.zarr", folder / "b.zarr")
    >>> lazyvol.verify_zarr(folder / "b.zarr").damaged
    ()
    """
    source, target = place_of(store, writable=False), place_of(to, writable=True)
    root_of(source, "")
    local = isinstance(source, LocalPlace) and isinstance(target, LocalPlace)
    if local and f"{target.name}/".startswith(f"{source.name}/"):
        raise StoreError(f"{target.name} lies in {source.name}, which is copied. Give a place beside it.")
    if target.all_keys():
        raise StoreError(f"{target.name} is not empty. Give another name, or remove it.")
    root, rest = (
        "zarr.json",
        sorted(k for k in source.all_keys() if k != "zarr.json" and not k.startswith("lazyvol.lock")),
    )
    into = LocalPlace(f"{target.path}.partial") if isinstance(target, LocalPlace) else target
    for key in [*rest, root]:
        with source.reader(key) as read_at:
            into.write(key, [read_at(0, WHOLE)])
    if isinstance(into, LocalPlace) and isinstance(target, LocalPlace):
        os.rename(into.path, target.path)


def _as_stored(volume: xr.DataArray, about: About, to: Arrangement) -> xr.DataArray:
    """Return a volume as a store would hold it."""
    require_volume(volume)
    kept = without_identifiers(strict(volume), about["identifiers"])
    if set(map(str, kept.dims)) != set(to.dims):
        raise StoreError(
            f"the volume has the dimensions {tuple(kept.dims)}, the store {to.dims}. Give it the same; a slice by "
            "itself is selected as volume[4:5]."
        )
    ascending = [d for d in to.flipped if d in kept.dims and kept.sizes[d] > 1 and kept[d][0] < kept[d][-1]]
    kept = kept.isel({d: slice(None, None, -1) for d in ascending})
    return to.stored(kept if kept.chunks else kept.chunk())


def _changed_fingerprint(about: About, new: xr.DataArray) -> str:
    return hashlib.sha256(f"{about['fingerprint']}{new.data.name}".encode()).hexdigest()


@contextmanager
def _writer(place: Place, about: About) -> Iterator[None]:
    """Be the only writer of a store."""
    if isinstance(place, LocalPlace):
        with locked(place.path):
            yield
        return
    require_silent(place, {**about, "complete": False})
    with announced(place):
        yield


@contextmanager
def _claimed(place: Place, about: About, change: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Say in the root whose turn it is to change a store, and how it is changed meanwhile; `finish` takes both back.

    Yields what a task looks for there before it writes: one that outlives its writer does not write into the work of
    the next.
    """
    claim = uuid.uuid4().hex
    with _writer(place, about):
        root = zarr.open_group(place.store, mode="r+")
        changing: dict[str, Any] = {} if change is None else {"complete": False, "changing": dict(change)}
        root.attrs["lazyvol"] = {**about, **changing, "claim": claim}
        yield claim


def _require_covered(about: About, places: Mapping[str, tuple[int, int]], name: str) -> None:
    """Raise unless a region covers the one whose writing was stopped: the rest of that one would stay half written."""
    begun = about.get("changing", {}).get("at", {})
    if all(places[d][0] <= a and b <= places[d][1] for d, (a, b) in begun.items()):
        return
    where = ", ".join(f"{d} {a} to {b - 1}" for d, (a, b) in begun.items())
    raise IncompleteStoreError(
        f"{name} is incomplete: the region {where} (by number) of it was being written. Call save_region with that one "
        "first, or with one in which it lies."
    )


def _groups(plan: Plan) -> list[tuple[str, int, Mapping[str, int]]]:
    """Return the groups that hold coordinates: path, level, and which image."""
    images = plan.arrangement.images(plan.volume.sizes)
    found = [(f"{i}/scale{n}".lstrip("/"), n, sel) for i, sel in images for n in range(len(plan.cuts))]
    return [*found, *([("coordinates", 0, {})] if plan.arrangement.split else [])]


def _truncate(place: Place, plan: Plan, dim: str) -> None:
    """Take away what an append that was stopped has added to coordinates."""
    for path, level, selection in _groups(plan):
        length = plan.coordinates(level, selection).sizes.get(dim)
        for _, array in zarr.open_group(place.store, path=path, mode="r+").arrays():
            names: Any = getattr(array.metadata, "dimension_names", None) or ()
            if dim in names and length is not None and array.shape[names.index(dim)] > length:
                array.resize([length if d == dim else n for d, n in zip(names, array.shape, strict=True)])


def _lengthen(place: Place, before: Plan, plan: Plan, dim: str) -> None:
    """Append to coordinates, and then let the arrays reach over what was written."""
    for path, level, selection in _groups(plan):
        coordinates = plan.coordinates(level, selection)
        start = before.coordinates(level, selection).sizes.get(dim, 0)
        tail = coordinates.isel({dim: slice(start, None)}) if dim in coordinates.dims else None
        if tail is not None and tail.sizes[dim]:
            tail.drop_vars([n for n, c in tail.coords.items() if dim not in c.dims]).to_zarr(
                place.store, group=path, append_dim=dim, consolidated=False
            )
    _reach(place, plan)


def _reach(place: Place, plan: Plan) -> None:
    """Let the arrays reach over all of a volume."""
    for image, _ in plan.arrangement.images(plan.volume.sizes):
        for n in range(len(plan.cuts)):
            zarr.open_array(place.store, path=plan.path(image, n), mode="r+").resize(plan.shape(n))
