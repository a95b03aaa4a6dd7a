"""The values of a store, read shard by shard: what is gone, changed or damaged is an error, never the fill value."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.blosc import AUTOSHUFFLE
from xarray.backends import BackendArray
from xarray.core import indexing

from lazyvol.arrangement import Arrangement
from lazyvol.errors import StoreError
from lazyvol.place import WHOLE, LocalPlace, Place
from lazyvol.shards import Piece, ShardForm, cut_selection, read_pieces

__all__ = ["ImageFiles", "StoredImage", "open_image", "shard_form", "shard_keys", "shard_sizes"]

_TOGETHER = 16
"""Chunks that a thread reads from one shard, one after the other."""
_BYTES_CODECS = ("blosc", "zstd", "gzip")

Wanted = list[npt.NDArray[np.intp]]


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """One array of a store, and which files it had when it was opened."""

    path: str
    """Where it lies in the store."""

    array: zarr.Array[Any]
    """What zarr makes of it."""

    sizes: Mapping[str, int]
    """Bytes of each of its shards, by their key below `path`; 1 where only that it is there is known."""

    form: ShardForm | None
    """How the files lie; None where zarr has to read them."""


class StoredImage(BackendArray):
    """A volume in a store, in its own dimensions; shards have the sizes that they had when it was opened."""

    def __init__(
        self,
        place: Place,
        images: Sequence[ImageFiles],
        arrangement: Arrangement,
        sizes: Mapping[Any, int],
        root: str = "",
    ) -> None:
        self.place, self.images, self.arrangement = place, list(images), arrangement
        self._lengths = dict(zip(arrangement.order, images[0].array.shape, strict=True)) | dict(sizes)
        self.shape = tuple(self._lengths[d] for d in arrangement.dims)
        self.dtype = np.dtype(images[0].array.dtype)
        self.root, self.stamp = root, stamp_of(place, root) if root else ""

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        """Select along each dimension by itself; an index alone takes its dimension away."""
        to = self.arrangement
        wanted = {d: np.atleast_1d(np.arange(self._lengths[d])[k]) for d, k in zip(to.dims, key, strict=True)}
        wanted |= {d: self._lengths[d] - 1 - wanted[d] for d in to.flipped} | {
            d: np.zeros(1, np.intp) for d in to.added
        }
        within = [wanted[d] for d in to.order]
        numbers = np.arange(len(self.images)).reshape([self._lengths[d] for d in to.split])
        chosen = numbers[np.ix_(*(wanted[d] for d in to.split))] if to.split else numbers.ravel()
        values = np.empty((chosen.size, *(w.size for w in within)), self.dtype)
        for out, number in zip(values, chosen.ravel(), strict=True):
            self._read_image(self.images[number], within, out)
        values = values.reshape([wanted[d].size for d in (*to.split, *to.order)])
        stored = (*to.split, *to.order)
        values = values.transpose([stored.index(d) for d in (*to.dims, *to.added)])
        single = [isinstance(k, int | np.integer) for k in key] + [True] * len(to.added)
        return values[tuple(0 if one else slice(None) for one in single)]

    def _read_image(self, image: ImageFiles, wanted: Wanted, out: npt.NDArray[Any]) -> None:
        try:
            if image.form:
                self._read_shards(image, image.form, wanted, out)
            else:
                out[...] = image.array.oindex[tuple(wanted)]
        except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:  # as codecs like to raise
            raise self._damaged(image, wanted, f"cannot be decoded: {str(error).rstrip('.')}") from error
        if changed := self._changed(image, wanted):
            raise self._damaged(image, wanted, changed)

    def _read_shards(self, image: ImageFiles, form: ShardForm, wanted: Wanted, out: npt.NDArray[Any]) -> None:
        jobs = [
            (image.array.metadata.encode_chunk_key(shard), pieces[n : n + _TOGETHER])
            for shard, pieces in cut_selection(form, wanted).items()
            for n in range(0, len(pieces), _TOGETHER)
        ]

        def run(job: tuple[str, list[Piece]]) -> None:
            shard, pieces = job
            with self.place.reader(f"{image.path}/{shard}") as read_at:
                read_pieces(read_at, form, pieces, out)

        # Elsewhere dask runs as many threads as there are cores.
        threads = min(len(jobs), os.cpu_count() or 1) if threading.current_thread() is threading.main_thread() else 1
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(run, jobs))
        else:
            for job in jobs:
                run(job)

    def _changed(self, image: ImageFiles, wanted: Wanted) -> str:
        """Say which shard of a selection is not as it was: what is gone after reading may not have been read."""
        lengths = zip(wanted, image.array.shards or image.array.chunks, strict=True)
        needed = map(image.array.metadata.encode_chunk_key, product(*(np.unique(w // s).tolist() for w, s in lengths)))
        if not image.sizes:
            return ""
        shards = list(needed)
        found = self.place.sizes(image.path, shards)
        shard = next((s for s in shards if found[s] != image.sizes[s]), None)
        if not shard and self.root and self.stamp != stamp_of(self.place, self.root):
            return "the store has changed since it was opened"
        return f"the shard {shard} is gone or has changed since the store was opened" if shard else ""

    def _damaged(self, image: ImageFiles, wanted: Wanted, what: str) -> StoreError:
        where = ", ".join(
            f"{np.min(w, initial=n)}:{np.max(w, initial=-1) + 1}"
            for w, n in zip(wanted, image.array.shape, strict=True)
        )
        changed = "" if what.startswith("the shard") else self._changed(image, wanted)
        return StoreError(
            f"{image.path.rpartition('/')[2]}[{where}] in {self.place.name}: {changed or what}. Open the store again, "
            "or save it anew."
        )


def stamp_of(place: Place, root: str) -> str:
    """Return what tells a store that is no folder from what it becomes: those of a folder are known by their sizes."""
    if isinstance(place, LocalPlace):
        return ""
    with place.reader(root) as read_at:
        about = json.loads(read_at(0, WHOLE)).get("attributes", {}).get("lazyvol", {})
    return hashlib.sha256(json.dumps([about.get("uid"), about.get("checksums")]).encode()).hexdigest()


def open_image(place: Place, path: str) -> zarr.Array[Any] | None:
    """Return an array of a store; None if there is none that can be read."""
    try:
        return zarr.open_array(place.store, path=path, mode="r")
    except (OSError, ValueError, KeyError):
        return None


def shard_keys(array: zarr.Array[Any]) -> dict[tuple[int, ...], str]:
    """Return the file of each shard of an array, by its number along each dimension."""
    counts = (-(-n // s) for n, s in zip(array.shape, array.shards or array.chunks, strict=True))
    return {number: array.metadata.encode_chunk_key(number) for number in np.ndindex(*counts)}


def shard_sizes(place: Place, path: str, array: zarr.Array[Any]) -> dict[str, int]:
    """Return the bytes of each shard that an array should have, 0 if it is absent."""
    return place.sizes(path, shard_keys(array).values())


def shard_form(array: zarr.Array[Any]) -> ShardForm | None:
    """Return how the shards of an array lie in their files; None if not as lazyvol writes them."""
    codecs: Any = array.metadata.to_dict().get("codecs")
    if array.shards is None or codecs[0]["configuration"]["index_location"] != "end":
        return None
    inner, index = (codecs[0]["configuration"][key] for key in ("codecs", "index_codecs"))
    endian = {codec.get("configuration", {}).get("endian", "little") for codec in (*inner, *index)}
    kinds = [codec["name"] for codec in inner]
    checksums, middle = kinds[-1] == "crc32c", [c for c in inner[1:] if c["name"] != "crc32c"]
    known = kinds[0] == "bytes" and kinds[1:] == [c["name"] for c in middle] + ["crc32c"] * checksums
    if not known or len(middle) > 1 or any(c["name"] not in _BYTES_CODECS for c in middle):
        return None
    if endian != {"little"} or [codec["name"] for codec in index] != ["bytes", "crc32c"]:
        return None
    codec = _codec_of(middle[0]) if middle else ()
    dtype = np.dtype(array.dtype).newbyteorder("<").str
    return ShardForm(array.shards, array.chunks, dtype, array.fill_value, checksums, codec)


def _codec_of(said: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return what numcodecs calls the compression that the metadata of zarr name."""
    options = {k: v for k, v in said.get("configuration", {}).items() if k != "typesize"}
    if said["name"] == "blosc":
        shuffles = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
        options["shuffle"] = shuffles.get(str(options.get("shuffle")), AUTOSHUFFLE)
    return tuple({"id": said["name"], **options}.items())
