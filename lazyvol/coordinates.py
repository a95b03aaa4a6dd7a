"""The coordinates of one group of a store: as they stand there, or as they were before an append that was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
import zarr
from zarr.storage import MemoryStore

from lazyvol.errors import StoreError
from lazyvol.place import WHOLE, Place, ZarrPlace
from lazyvol.plan import digest_of

__all__ = ["digest_in", "read_coordinates"]


def read_coordinates(place: Place, group: str, name: str, before: Mapping[str, int] | None = None) -> xr.Dataset:
    """Return the coordinates of a group, in memory.

    Parameters
    ----------
    place, group
        Where they stand.
    name
        What the image beside them is called.
    before
        Lengths of dimensions along which some of them may have been lengthened already; the rest is left out.

    Raises
    ------
    StoreError
        If they cannot be read.
    """
    store: Any = place.store
    try:
        if before:
            store = _as_before(place, group, name, before)
        found = xr.open_zarr(store, group=group, consolidated=False, chunks=None)
        found = xr.Dataset(coords=dict(found.drop_vars(name, errors="ignore").variables))
        return found.load()
    except Exception as error:  # whatever zarr makes of damaged metadata
        raise StoreError(
            f"the coordinates in {group} of {place.name} cannot be read: {type(error).__name__}. The store is damaged; "
            "save it anew, or restore them."
        ) from error


def digest_in(place: Place, group: str, name: str) -> str:
    """Return the digest of the coordinates that stand in a group."""
    return digest_of(read_coordinates(place, group, name).coords)


def _as_before(place: Place, group: str, name: str, before: Mapping[str, int]) -> MemoryStore:
    """Return a copy of a group without its image, in which no coordinate is longer than it was."""
    memory = MemoryStore()
    copy = ZarrPlace(memory)
    for key in place.all_keys():
        if key.startswith(f"{group}/") and not key.startswith(f"{group}/{name}/"):
            with place.reader(key) as read_at:
                copy.write(key, [read_at(0, WHOLE)])
    for _, array in zarr.open_group(memory, path=group, mode="r+").arrays():
        names: Any = getattr(array.metadata, "dimension_names", None) or ()
        shape = [min(n, before.get(str(d), n)) for d, n in zip(names, array.shape, strict=True)]
        if shape != list(array.shape):
            array.resize(shape)
    return memory
