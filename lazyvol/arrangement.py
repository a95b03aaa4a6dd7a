"""How the dimensions of a volume become those of OME-Zarr images, and back.

OME-Zarr has time, one more dimension, and z, y, x in this order, with labels that ascend. What goes beyond
that is split into images of their own (NGFF 0.5, section "multiscales" metadata).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["SPACE", "Arrangement", "arrangement_of"]

SPACE = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the dimensions of a volume lie in a store."""

    dims: tuple[str, ...]
    """Those of the volume."""

    order: tuple[str, ...]
    """Those of each image; z, y and x are always among them."""

    split: tuple[str, ...] = ()
    """Those of which each combination is an image of its own."""

    flipped: tuple[str, ...] = ()
    """Those whose labels descend, and so are stored the other way round."""

    @property
    def added(self) -> tuple[str, ...]:
        """Dimensions of length 1 that images have and the volume has not."""
        return tuple(d for d in self.order if d not in self.dims)

    def stored(self, volume: xr.DataArray) -> xr.DataArray:
        """Return a volume as it is stored: `split` dimensions first, then `order`."""
        turned = volume.isel({d: slice(None, None, -1) for d in self.flipped})
        return turned.expand_dims(list(self.added)).transpose(*self.split, *self.order, transpose_coords=False)

    def restored(self, coordinates: xr.Dataset) -> xr.Dataset:
        """Return the coordinates of a volume from those that are stored."""
        single = coordinates.isel({d: 0 for d in self.added if d in coordinates.dims})
        return single.isel({d: slice(None, None, -1) for d in self.flipped})

    def images(self, sizes: Mapping[Any, int]) -> list[tuple[str, dict[str, int]]]:
        """Return the group of each image, and what it is of the volume as it is stored; the root for a single one."""
        if not self.split:
            return [("", {})]
        places = product(*(range(sizes[d]) for d in self.split))
        return [(f"images/{n}", dict(zip(self.split, place, strict=True))) for n, place in enumerate(places)]

    def as_attrs(self) -> dict[str, list[str]]:
        """Return what the attributes of a store say."""
        return {name: list(getattr(self, name)) for name in ("dims", "order", "split", "flipped")}

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Iterable[str]], dims: Iterable[str]) -> Arrangement:
        """Return what the attributes of a store say; stores of layout 1 have the dimensions of their array."""
        names = tuple(attrs.get("dims", dims))
        return cls(names, *(tuple(attrs.get(n, d)) for n, d in (("order", dims), ("split", ()), ("flipped", ()))))


def arrangement_of(volume: xr.DataArray) -> Arrangement:
    """Return how the dimensions of a volume are stored.

    Examples
    --------
    >>> import lazyvol
    >>> arrangement_of(lazyvol.open_volume(getfixture("chest_folder"))[::-1, 0])
    Arrangement(dims=('z', 'x'), order=('z', 'y', 'x'), split=(), flipped=('z',))
    """
    dims = tuple(map(str, volume.dims))
    others = [d for d in dims if d not in (*SPACE, "sample", "time")]
    kept = ["sample"] if "sample" in dims else others[:1]
    order = (*(d for d in ("time",) if d in dims), *kept, *SPACE)
    flipped = tuple(d for d in ("time", *SPACE) if d in dims and _descends(volume, d))
    return Arrangement(dims, order, tuple(d for d in others if d not in kept), flipped)


def _descends(volume: xr.DataArray, dim: str) -> bool:
    if dim not in volume.coords or volume.coords[dim].dtype.kind not in "iuf" or volume.sizes[dim] < 2:
        return False
    return bool((np.diff(volume.coords[dim].values) < 0).all())
