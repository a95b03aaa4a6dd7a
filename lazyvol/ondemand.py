"""Grids of a collection as nodes of a tree: their coordinates are there, their headers are read for their values."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from lazyvol.chunks import Chunks, chunked, preferred_chunks
from lazyvol.errors import StoreError
from lazyvol.inventory import Entry, open_entry

__all__ = ["OnDemand", "node_of"]

_NAME = "image"
_HELD = 16
"""Volumes of which a process remembers the headers."""

_opened: OrderedDict[tuple[str, str, int], xr.DataArray] = OrderedDict()
_opening = threading.Lock()


def node_of(entry: Entry, chunks: Chunks) -> xr.Dataset:
    """Return the node of a grid, made of what its collection knows: no header is read."""
    dims, shape, dtype = entry.row["dims"], entry.row["shape"], entry.row["dtype"]
    variable = xr.Variable(dims, indexing.LazilyIndexedArray(OnDemand(entry)), dict(entry.attrs))
    lengths = preferred_chunks(dims, shape, dtype)
    variable.encoding = {"preferred_chunks": lengths}
    if chunks == "auto":  # of a thousand nodes each step counts
        token = blake2b(f"{entry.stamp} {entry.files} {entry.key}".encode("utf-8", "surrogatepass"), digest_size=16)
        whole: Any = variable.chunk(lengths, name=f"{_NAME}-{token.hexdigest()}")
    else:
        whole = chunked(xr.DataArray(variable, name=_NAME), chunks).variable
    return xr.Dataset({_NAME: whole}, xr.Coordinates(entry.variables))


class OnDemand(BackendArray):
    """The values of a grid whose headers are read when the first of them is asked for."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.shape = tuple(entry.row["shape"])
        self.dtype = np.dtype(entry.row["dtype"])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDemand:
        return self  # nothing in it changes

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.entry.stamp, self.entry.files, self.entry.key

    def _read(self, key: tuple[Any, ...]) -> Any:
        volume = _volume_of(self.entry)
        if volume.shape != self.shape or volume.dtype != self.dtype:
            raise StoreError(
                f"{self.entry.row['path']} is not what it was when its collection was opened. Open that again."
            )
        return volume.variable[key].values


def _volume_of(entry: Entry) -> xr.DataArray:
    """Return the volume of an entry without dask, its headers read once for many blocks."""
    key = (entry.files, entry.stamp, entry.key[1])
    with _opening:
        if key in _opened:
            _opened.move_to_end(key)
        else:
            _opened[key] = open_entry(entry, chunks=None)
            while len(_opened) > _HELD:
                _opened.popitem(last=False)
        return _opened[key]
