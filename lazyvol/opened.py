"""Stores opened again as volumes: what is incomplete or damaged is refused, and what others wrote opens too."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.core import indexing

from lazyvol.arrangement import Arrangement
from lazyvol.chunks import Chunks, chunked
from lazyvol.convention import attrs_with_nan
from lazyvol.coordinates import read_coordinates
from lazyvol.errors import (
    IncompleteStoreError,
    LazyvolError,
    LazyvolWarning,
    OptionError,
    SourceNotFoundError,
    StoreError,
)
from lazyvol.foreign import foreign_volume, is_foreign
from lazyvol.ome import level_coordinates
from lazyvol.place import LocalPlace, Place, StoreLike, place_of
from lazyvol.plan import LAYOUT, digest_of
from lazyvol.stored import ImageFiles, StoredImage, open_image, shard_form, shard_sizes

__all__ = ["About", "image_files", "lazy_store", "lengths_of", "open_zarr", "root_of", "stored_coordinates"]

About = dict[str, Any]
"""What the root of a store says of it."""


def open_zarr(store: StoreLike, *, level: int = 0, group: str | None = None, chunks: Chunks = "auto") -> xr.DataArray:
    """Open a volume of an OME-Zarr store lazily: one that `save_zarr` wrote, or another tool.

    Parameters
    ----------
    store
        Folder of the store, a URL that fsspec knows, or a store of zarr.
    level
        Which resolution, 0 for the full one.
    group
        A group of the store, such as ``"labels/organs"``.
    chunks
        dask chunks: ``"auto"`` for one for each shard, a number or a mapping by dimension, or None
        for xarray's own lazy arrays without dask.

    Returns
    -------
    xarray.DataArray
        The volume as it was saved, and equal to it but for identifiers. Stores of other tools (OME-Zarr 0.4 and 0.5,
        NIfTI-Zarr) have findings on what they do not say.

    Raises
    ------
    SourceNotFoundError
        If there is nothing.
    IncompleteStoreError
        If the store was not written to its end; says how far it got.
    StoreError
        If it is no such store, or is damaged; damage to values is an error when they are read.
    OptionError
        If there is no such level.

    Examples
    --------
    >>> import lazyvol
    >>> lazyvol.open_zarr(getfixture("tmp_path"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    lazyvol.errors.StoreError: ... is no Zarr store...
    """
    volume = lazy_store(store, level=level, group=group)
    if chunks == "auto":
        chunks = volume.encoding["preferred_chunks"]
    return chunked(volume, chunks, token=volume.encoding.get("token", ""))


def lazy_store(store: StoreLike, *, level: int = 0, group: str | None = None) -> xr.DataArray:
    """Return the volume of `open_zarr` without dask, with the chunks that suit it in its encoding."""
    place, base = place_of(store, writable=False), (group or "").strip("/")
    about = _about_or_foreign(place, base)
    if isinstance(about, zarr.Group):
        return foreign_volume(about, level)
    if "changing" in about:
        warnings.warn(
            f"an append to {place.name} was stopped, so it opens as it was before. Call append_zarr again.",
            LazyvolWarning,
            stacklevel=3,
        )
    try:
        volume, lengths = _stored_volume(place, base, about, level)
    except LazyvolError:
        raise
    except Exception as error:  # whatever becomes of metadata that somebody edited
        raise StoreError(
            f"{place.name} cannot be opened: its metadata are damaged ({type(error).__name__}: {error}). Restore them, "
            "or save the store anew."
        ) from error
    volume.encoding = {"preferred_chunks": lengths, "token": f"{about['uid']}-{base}-{level}", "source": place.name}
    return volume


def _stored_volume(place: Place, base: str, about: About, level: int) -> tuple[xr.DataArray, dict[Any, int]]:
    """Return a level of a store of ours, and the dask chunks that suit it."""
    files = image_files(place, base, about, level)
    array = files[0].array
    arrangement = Arrangement.from_attrs(about, _dims_of(array))
    coordinates = stored_coordinates(place, base, about, arrangement, level)
    sizes = lengths_of(about, array, arrangement, level)
    image: Any = indexing.LazilyIndexedArray(
        StoredImage(place, files, arrangement, sizes, f"{base}/zarr.json".lstrip("/"))
    )
    cached: Any = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(image))  # type: ignore[no-untyped-call]
    variable = xr.Variable(arrangement.dims, cached, attrs_with_nan(array.attrs.asdict()))
    restored = arrangement.restored(coordinates)
    coords = {name: c.variable for name, c in restored.coords.items()}
    volume = xr.DataArray(variable, coords, name=about["name"])
    shards = dict(zip(arrangement.order, array.shards or array.chunks, strict=True))
    return volume, {d: min(shards.get(d, 1), volume.sizes[d]) for d in arrangement.dims}


def lengths_of(about: About, array: zarr.Array[Any], arrangement: Arrangement, level: int) -> dict[str, int]:
    """Return the voxels of a level along each dimension: those before a change that was stopped."""
    found = dict(zip(arrangement.order, array.shape, strict=True))
    before = {d: int(n) for d, n in about.get("changing", {}).get("sizes", {}).items()}
    for factors in about.get("factors", [])[:level]:
        before = {d: n // dict(zip(arrangement.order, factors, strict=True)).get(d, 1) for d, n in before.items()}
    return found | {d: int(about["sizes"][d]) for d in arrangement.split} | before


def _dims_of(array: zarr.Array[Any]) -> tuple[str, ...]:
    names: Any = getattr(array.metadata, "dimension_names", None) or ()
    return tuple(map(str, names))


def stored_coordinates(place: Place, base: str, about: About, arrangement: Arrangement, level: int) -> xr.Dataset:
    """Return the coordinates of a level as they are stored; raise if they are not those that were written."""
    where = "coordinates" if arrangement.split else f"scale{level}"
    each = [dict(zip(arrangement.order, f, strict=True)) for f in about.get("factors", [])[:level]]
    before = {d: int(n) for d, n in about.get("changing", {}).get("sizes", {}).items()}
    for factors in each if not arrangement.split else ():
        before = {d: n // factors.get(d, 1) for d, n in before.items()}
    found = read_coordinates(place, f"{base}/{where}".lstrip("/"), about["name"], before)
    written = about.get("coordinates", {}).get(where)
    if written and not before and digest_of(found.coords) != written:
        raise StoreError(
            f"the coordinates in {where} of {place.name} are not those that were written, so its positions are not "
            "known. Restore them, or save the store anew."
        )
    for coordinate in found.coords.values():
        coordinate.attrs = attrs_with_nan(coordinate.attrs)
    for factors in each if arrangement.split else ():
        found = level_coordinates(found, factors)
    return found


def image_files(place: Place, base: str, about: About, level: Any) -> list[ImageFiles]:
    """Return the arrays of a level of a complete store; raise if one lacks a shard."""
    levels = len(about.get("factors", [])) + 1
    if not isinstance(level, int | np.integer) or not 0 <= level < levels:
        raise OptionError(f"level={level!r}: {place.name} has the levels 0 to {levels - 1}.")
    images = [f"images/{n}/" for n in range(about.get("images", 1))] if about.get("split") else [""]
    found = []
    for image in images:
        path = f"{base}/{image}scale{level}/{about['name']}".lstrip("/")
        array = open_image(place, path)
        sizes = shard_sizes(place, path, array) if array else {}
        if array is None or not sizes or not all(sizes.values()):
            raise _incomplete(place.name, place, base, about)
        found.append(ImageFiles(path, array, sizes, shard_form(array)))
    return found


def _about_or_foreign(place: Place, base: str) -> About | zarr.Group:
    """Return what a complete store of ours says, or the group of one that others wrote."""
    try:
        return root_of(place, base, changing="append")
    except IncompleteStoreError:
        raise
    except StoreError:
        try:
            group = zarr.open_group(place.store, path=base, mode="r")
        except (OSError, ValueError, KeyError):
            group = None
        if group is None or "lazyvol" in group.attrs or not is_foreign(group):
            raise
        return group


def root_of(place: Place, base: str, *, changing: str = "") -> About:
    """Return what a complete store of lazyvol says of itself, or one in which such a change was stopped; else raise."""
    name = f"{place.name}/{base}".rstrip("/")
    if isinstance(place, LocalPlace) and not os.path.isdir(os.path.join(place.path, base)):
        path = os.path.join(place.path, base).rstrip("/")
        if os.path.isdir(f"{path}.partial"):
            raise _incomplete(path, LocalPlace(f"{path}.partial"), "", None)
        if os.path.lexists(path):
            raise StoreError(f"{path} is a file, no Zarr store. open_volume opens DICOM.")
        raise SourceNotFoundError(f"{path} does not exist. Give the folder of a Zarr store.")
    try:
        attrs: Any = zarr.open_group(place.store, path=base, mode="r").attrs
        about: Any = attrs["lazyvol"]
        about["name"], about["uid"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{name} is no Zarr store that lazyvol wrote (its root has no 'lazyvol' attribute). Of other tools' stores "
            "open_zarr opens OME-Zarr images, xarray.open_zarr others; open_volume opens DICOM."
        ) from error
    layout = about.get("layout", 1)
    if not isinstance(layout, int) or not 1 <= layout <= LAYOUT:
        raise StoreError(
            f"{name} has the layout {layout!r}, and this version of lazyvol knows those up to {LAYOUT}. Update lazyvol."
        )
    what = about.get("changing", {}).get("what", "")
    if what == "region" and changing != what:
        raise IncompleteStoreError(f"{name} is incomplete: a region of it was being written. Call save_region again.")
    if what == "append" and changing != what:
        raise IncompleteStoreError(
            f"{name} is incomplete: an append to it was stopped. Call append_zarr again; open_zarr opens it as it was "
            "before."
        )
    if not about.get("complete") and not what:
        raise _incomplete(name, place, base, about)
    return dict(about)


def _incomplete(name: str, place: Place, base: str, about: About | None) -> IncompleteStoreError:
    """Return the error that says how far a store got."""
    if about is None:
        try:
            about = dict(zarr.open_group(place.store, path=base, mode="r").attrs["lazyvol"])  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError, TypeError):
            about = {}
    total, lacks = 0, []
    images = [f"images/{n}/" for n in range(about.get("images", 1))] if about.get("split") else [""]
    for image in images if about else ():
        for level in range(len(about.get("factors", [])) + 1):
            path = f"{base}/{image}scale{level}/{about.get('name', 'image')}".lstrip("/")
            array = open_image(place, path)
            sizes = shard_sizes(place, path, array) if array else {}
            total += len(sizes)
            lacks += [f"{path}/{shard}" for shard, size in sizes.items() if not size]
    if about.get("complete") and not lacks and not total:
        return IncompleteStoreError(
            f"{name} is incomplete: the metadata of its arrays are absent or damaged. Call save_zarr with the same "
            "volume to mend it, or restore them."
        )
    if about.get("complete") and not lacks and place.name.endswith(".partial"):
        return IncompleteStoreError(
            f"{name} is whole in {place.name}, and its writer was stopped before it had its name. Rename that folder, "
            "or call save_zarr with the same volume."
        )
    return IncompleteStoreError(
        f"{name} is incomplete: {total - len(lacks)} of {total or 'an unknown number of'} shards are in "
        f"{place.name}{f'; {lacks[0]} is absent or empty' if lacks else ''}. Call save_zarr with the same volume to go "
        f"on with it{f' (group={base!r})' if base else ', or remove that folder'}."
    )
