"""Where a volume belongs in one that is stored: behind it, or in the place of a part of it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from lazyvol.convention import geometry_of
from lazyvol.errors import GeometryError, StoreError

__all__ = ["place_in", "require_behind", "require_same_kind"]

_SAME = 1e-3
"""Labels that are closer than this, mm or s, are the same."""


def require_behind(before: xr.DataArray, new: xr.DataArray, dim: str, name: str) -> None:
    """Raise unless a volume can stand behind that of a store."""
    _require_alike(before, new, name)
    for d in before.dims:
        if d != dim and not _same_labels(before, new, str(d)):
            raise StoreError(f"the labels of {d} are not those of {name}. Select the same, e.g. with reindex_like.")
    if dim in before.coords and dim in new.coords and not (new[dim].values.min() > before[dim].values.max()):
        raise StoreError(
            f"{dim} of the volume begins at {new[dim].values.min():g}, but {name} reaches to "
            f"{before[dim].values.max():g}. Append what lies behind."
        )
    for coordinate in set(before.coords) ^ set(new.coords):
        raise StoreError(
            f"the coordinate {coordinate!r} is not in both the volume and {name}. Add it, or drop it with drop_vars."
        )


def require_same_kind(before: xr.DataArray, whole: xr.DataArray, dim: str, name: str) -> None:
    """Raise if a coordinate would become another kind of thing, or the labels no longer ascend."""
    for coordinate, values in before.coords.items():
        found = whole.coords[coordinate]
        if found.dims != values.dims:
            raise StoreError(
                f"the coordinate {coordinate!r} is {values.values!s:.40} in {name} and another in the volume. Make "
                "them the same, or drop it from both."
            )
        if found.dtype != values.dtype or found.attrs.get("units") != values.attrs.get("units"):
            raise StoreError(
                f"the coordinate {coordinate!r} is {values.dtype} in {values.attrs.get('units', 'no unit')!r} in "
                f"{name}, and the volume has others. Convert it."
            )
    if dim in whole.coords and whole[dim].dtype.kind in "iuf" and not (np.diff(whole[dim].values) > 0).all():
        raise StoreError(f"the labels of {dim} would not ascend. Append a volume whose labels ascend, as in {name}.")
    geometry_of(whole)


def _require_alike(before: xr.DataArray, new: xr.DataArray, name: str) -> None:
    if new.dtype != before.dtype:
        raise StoreError(f"the volume is {new.dtype}, {name} is {before.dtype}. Convert it with astype.")
    for said in ("units", "Modality"):
        if new.attrs.get(said) != before.attrs.get(said):
            raise StoreError(
                f"{said} of the volume is {new.attrs.get(said)!r}, of {name} {before.attrs.get(said)!r}. Convert the "
                "values."
            )
    if int(new.geometry) != int(before.geometry):
        geometry_of(new)
        raise GeometryError(
            f"the volume lies elsewhere in the patient than {name}, or one of them was saved with another key "
            "(LAZYVOL_KEY). Bring it onto the same grid first."
        )


def _same_labels(before: xr.DataArray, new: xr.DataArray, dim: str) -> bool:
    if before.sizes[dim] != new.sizes[dim] or (dim in before.coords) != (dim in new.coords):
        return False
    if dim not in before.coords:
        return True
    a, b = before[dim].values, new[dim].values
    return bool(np.allclose(a, b, rtol=0, atol=_SAME) if a.dtype.kind in "iuf" else (a == b).all())


def place_in(before: xr.DataArray, new: xr.DataArray, dim: str, name: str) -> tuple[int, int]:
    """Return where a volume lies along one dimension of that of a store."""
    _require_alike(before, new, name)
    if dim not in before.coords:
        if before.sizes[dim] == new.sizes[dim]:
            return 0, before.sizes[dim]
        raise StoreError(f"{name} has no labels along {dim}, so a part of it cannot be found. Write all of {dim}.")
    a, b = before[dim].values, new[dim].values
    numbers = a.dtype.kind in "iuf"
    found = [np.flatnonzero(np.abs(a - v) < _SAME if numbers else a == v) for v in b]
    first = int(found[0][0]) if len(found[0]) else -1
    if any(f.size != 1 or int(f[0]) != first + n for n, f in enumerate(found)):
        raise StoreError(
            f"the labels of {dim} from {b[0]} to {b[-1]} are not neighbouring ones of {name}. Select a part without "
            "steps of what open_zarr gives."
        )
    return first, first + len(b)
