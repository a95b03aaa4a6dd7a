"""The values of a store, read shard by shard: what is gone, changed or damaged is an error, never the fill value."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from lazyvol.errors import StoreError
from lazyvol.shards import Piece, ShardForm, cut_selection, read_pieces

__all__ = ["LEVEL", "NAME", "StoredImage", "open_image", "shard_form", "shard_path", "shard_sizes"]

LEVEL = "scale0"
NAME = "image"
_TOGETHER = 16
"""Chunks that a thread reads from one shard, one after the other."""


class StoredImage(BackendArray):
    """The image of a store, whose shards have the sizes that they had when it was opened."""

    def __init__(self, path: str, image: zarr.Array[Any], sizes: dict[str, int]) -> None:
        self.path, self.image, self.sizes = os.path.abspath(path), image, sizes
        self.form = shard_form(image)
        self.shape, self.dtype = image.shape, np.dtype(image.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        vectorized = isinstance(key, indexing.VectorizedIndexer)
        read = partial(self._read, self.image.vindex.__getitem__ if vectorized else self._outer)
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.VECTORIZED, read)

    def _outer(self, key: tuple[Any, ...]) -> Any:
        """Select along each dimension by itself; an index alone takes its dimension away."""
        single = [isinstance(k, int | np.integer) for k in key]
        if self.form:
            wanted = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
            values = self._read_shards(self.form, wanted)
        else:  # single indices are what zarr 3.1.5 mixes up with lists of them
            chosen = tuple(slice(k, k + 1) if one else k for k, one in zip(key, single, strict=True))
            values = np.asarray(self.image.oindex[chosen])
        return values[tuple(0 if one else slice(None) for one in single)]

    def _read_shards(self, form: ShardForm, wanted: list[npt.NDArray[np.intp]]) -> npt.NDArray[Any]:
        values = np.empty([len(w) for w in wanted], self.dtype)
        jobs = [
            (self.image.metadata.encode_chunk_key(shard), pieces[n : n + _TOGETHER])
            for shard, pieces in cut_selection(form, wanted).items()
            for n in range(0, len(pieces), _TOGETHER)
        ]

        def run(job: tuple[str, list[Piece]]) -> None:
            shard, pieces = job
            read_pieces(shard_path(self.path, shard), self.sizes[shard], form, pieces, values)

        # Elsewhere dask runs as many threads as there are cores.
        threads = min(len(jobs), os.cpu_count() or 1) if threading.current_thread() is threading.main_thread() else 1
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(run, jobs))
        else:
            for job in jobs:
                run(job)
        return values

    def _read(self, select: Callable[[Any], Any], key: tuple[Any, ...]) -> Any:
        try:
            values = select(key)
        except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:  # as codecs like to raise
            raise self._damaged(key, self._changed(key) or f"cannot be decoded: {str(error).rstrip('.')}") from error
        if changed := self._changed(key):
            raise self._damaged(key, changed)
        return values

    def _changed(self, key: tuple[Any, ...]) -> str:
        """Say which shard of a selection is not as it was: what is gone after reading may not have been read."""
        lengths = zip(self.shape, self.image.shards or self.image.chunks, key, strict=True)
        along = [np.unique(np.arange(n)[k] // s).tolist() for n, s, k in lengths]
        needed = map(self.image.metadata.encode_chunk_key, product(*along))
        shard = next((s for s in needed if _size(self.path, s) != self.sizes[s]), None)
        return f"the shard {shard} is gone or has changed since the store was opened" if shard else ""

    def _damaged(self, key: tuple[Any, ...], what: str) -> StoreError:
        chosen = [(n, np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        where = ", ".join(f"{np.min(c, initial=n)}:{np.max(c, initial=-1) + 1}" for n, c in chosen)
        return StoreError(f"{NAME}[{where}] in {self.path}: {what}. Open the store again, or save it anew.")


def open_image(where: str) -> zarr.Array[Any] | None:
    """Return the array that holds the image of a store; None if there is none that can be read."""
    try:
        return zarr.open_array(os.path.join(where, LEVEL, NAME), mode="r")
    except (OSError, ValueError, KeyError):
        return None


def shard_sizes(where: str, image: zarr.Array[Any]) -> dict[str, int]:
    """Return the bytes of each shard that the image should have, 0 if it is absent."""
    grid = np.ndindex(*(-(-n // s) for n, s in zip(image.shape, image.shards or image.chunks, strict=True)))
    return {shard: _size(where, shard) for shard in map(image.metadata.encode_chunk_key, grid)}


def shard_form(image: zarr.Array[Any]) -> ShardForm | None:
    """Return how the shards of an image lie in their files; None if not as lazyvol writes them."""
    codecs: Any = image.metadata.to_dict()["codecs"]
    if image.shards is None or codecs[0]["configuration"]["index_location"] != "end":
        return None
    inner, index = (codecs[0]["configuration"][key] for key in ("codecs", "index_codecs"))
    endian = {codec.get("configuration", {}).get("endian", "little") for codec in (*inner, *index)}
    kinds = [codec["name"] for codec in inner]
    if endian != {"little"} or kinds[:2] != ["bytes", "blosc"] or kinds[2:] not in ([], ["crc32c"]):
        return None
    if [codec["name"] for codec in index] != ["bytes", "crc32c"]:
        return None
    dtype = np.dtype(image.dtype).newbyteorder("<").str
    return ShardForm(image.shards, image.chunks, dtype, image.fill_value, "crc32c" in kinds)


def shard_path(where: str, shard: str) -> str:
    """Return the file of a shard in the store ``where``."""
    return os.path.join(where, LEVEL, NAME, shard)


def _size(where: str, shard: str) -> int:
    try:
        return os.stat(shard_path(where, shard)).st_size
    except OSError:
        return 0
