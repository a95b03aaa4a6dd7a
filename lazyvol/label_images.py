"""Label images: segmentations that lie beside the image of a store, in its group ``labels`` (NGFF 0.5 "labels")."""

from __future__ import annotations

import numpy as np
import xarray as xr
import zarr

from lazyvol.errors import GeometryError, IncompleteStoreError, OptionError, StoreError
from lazyvol.opened import lazy_store, root_of
from lazyvol.place import Place

__all__ = ["group_place", "is_label", "list_labels"]


def is_label(volume: xr.DataArray) -> bool:
    """Return whether the values of a volume are numbers of what is there, which have no mean."""
    said = volume.dtype.kind in "biu" and ("segment" in volume.dims or "segment_numbers" in volume.attrs)
    return said or volume.dtype.kind == "b"


def group_place(place: Place, group: str, volume: xr.DataArray) -> Place:
    """Return where a group of a store lies; raise unless the store is complete and the volume fits there."""
    parts = group.split("/")
    if len(parts) != 2 or parts[0] != "labels" or not parts[1].isidentifier():
        raise OptionError(f"group={group!r} must be 'labels/' and a word, such as 'labels/organs'.")
    if volume.dtype.kind not in "iu":
        raise OptionError(f"labels are whole numbers, not {volume.dtype}. Save volume.astype('uint8').")
    try:
        root_of(place, "")
    except IncompleteStoreError:
        raise
    except StoreError as error:
        raise StoreError(
            f"{place.name} is no store that lazyvol wrote, and labels are written beside the images of these. Save the "
            "image first, save_zarr(open_zarr(...), another), or the labels as a store of their own."
        ) from error
    _require_on_image(lazy_store(place.store), volume, place.name)
    return place.within(group)


def _require_on_image(image: xr.DataArray, labels: xr.DataArray, name: str) -> None:
    """Raise unless each voxel of labels lies on one of the image."""
    there, wanted = (np.asarray(v.geometry.attrs["directions"], dtype=float) for v in (image, labels))
    if not np.allclose(there, wanted, atol=1e-4, equal_nan=True):
        raise GeometryError(
            f"the labels lie along other directions than {name}. Bring them onto the grid of the image, e.g. with "
            "open_volume(..., like=image)."
        )
    for d in ("z", "y", "x"):
        if d in image.coords and d in labels.coords:
            there, wanted = (np.atleast_1d(v.coords[d].values) for v in (image, labels))
            if np.abs(there[:, None] - wanted[None]).min(axis=0).max(initial=0) > 1e-3:
                raise GeometryError(f"the labels of {d} are not among those of {name}. Select the same voxels.")


def list_labels(place: Place, version: str) -> None:
    """Name the label images of a store in their group, as OME-Zarr has it."""
    names = sorted(name for name in place.names_in("labels") if name.isidentifier())
    there = [name for name in names if place.sizes(f"labels/{name}", ["zarr.json"])["zarr.json"]]
    labels = zarr.open_group(place.store, path="labels", mode="a")
    labels.update_attributes({"ome": {"version": version, "labels": there}})
