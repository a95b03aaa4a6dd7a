"""How a volume is cut into blocks: dask chunks, and shards and chunks of a store."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from lazyvol.errors import OptionError

__all__ = ["Chunks", "Cut", "chunked", "lower_cut", "preferred_chunks", "store_chunks"]

Chunks = Literal["auto"] | int | Mapping[Any, int] | None
Lengths = dict[Hashable, int]

CHUNK_BYTES = 16 * 2**20
"""A dask chunk of a volume holds whole frames of about so many bytes."""
SHARD_BYTES = 32 * 2**20
"""A shard of a store holds whole frames of at most so many bytes, or one frame."""
STORED = {"z": 64, "y": 64, "x": 64}
"""Longest side of a chunk inside a shard, 1 for other dimensions; docs/decisions/0007 has what was measured."""


def preferred_chunks(dims: Iterable[Hashable], shape: Iterable[int], dtype: npt.DTypeLike) -> Lengths:
    """Return the chunk length of each dimension: whole frames, some 16 MiB of them along z, 1 before z."""
    return _whole_frames(dict(zip(dims, shape, strict=True)), dtype, CHUNK_BYTES)


def _whole_frames(sizes: Lengths, dtype: npt.DTypeLike, most: int) -> Lengths:
    whole = {d: n for d, n in sizes.items() if d in ("y", "x", "sample")}
    frame = np.dtype(dtype).itemsize * int(np.prod(list(whole.values())))
    lengths = dict.fromkeys(sizes, 1) | whole
    if "z" in sizes:
        lengths["z"] = int(np.clip(most // max(frame, 1), 1, max(sizes["z"], 1)))
    return lengths


def chunked(volume: xr.DataArray, chunks: Chunks, *, token: str = "") -> xr.DataArray:
    """Return the volume on dask chunks; its coordinates stay as they are.

    Parameters
    ----------
    volume
        A volume, on dask or not.
    chunks
        ``"auto"`` for `preferred_chunks`, a number for each dimension, a mapping by dimension over
        the preferred ones, or None for the volume unchanged.
    token
        What names the values, so that equal volumes share results on a cluster; without, a new name.
    """
    if chunks is None:
        return volume
    _require_chunks(chunks, volume.dims)
    lengths: Lengths = preferred_chunks(volume.dims, volume.shape, volume.dtype)
    lengths |= dict.fromkeys(volume.dims, chunks) if isinstance(chunks, int) else {}
    lengths |= {**chunks} if isinstance(chunks, Mapping) else {}
    name = f"{volume.name}-{tokenize(token or uuid4().hex, lengths)}"
    variable: Any = volume.variable.chunk(lengths, name=name)
    return volume.copy(deep=False, data=variable.data)


def _require_chunks(chunks: Any, dims: Iterable[Hashable]) -> None:
    """Raise unless chunks are what `chunked` takes."""
    lengths = chunks.values() if isinstance(chunks, Mapping) else [] if chunks == "auto" else [chunks]
    unknown = set(chunks) - set(dims) if isinstance(chunks, Mapping) else set()
    if unknown or not all(isinstance(n, int | tuple) and not isinstance(n, bool) and n != 0 for n in lengths):
        raise OptionError(
            f"chunks={chunks!r} must be 'auto', None, a length, or lengths by dimension of {tuple(dims)}; -1 is all of "
            "one."
        )


class Cut(NamedTuple):
    """How a store cuts an image, by dimension."""

    slabs: Lengths
    """What one task writes: a shard, as far as it lies in the image."""

    shards: Lengths
    """What one file holds; a multiple of chunks, so it may reach beyond the image."""

    chunks: Lengths
    """What is compressed by itself."""


def store_chunks(
    dims: Iterable[Hashable],
    shape: Iterable[int],
    dtype: npt.DTypeLike,
    *,
    chunks: Mapping[Any, int] | None = None,
    shards: Mapping[Any, int] | None = None,
) -> Cut:
    """Return how a store cuts an image, so that no two tasks write one file.

    Slabs that are not the whole image hold 64 slices or a multiple, or a power of two, so that levels of lower
    resolution can halve them.

    Parameters
    ----------
    dims, shape, dtype
        Of the image.
    chunks, shards
        Lengths asked for, by dimension, instead of those that lazyvol takes.
    """
    sizes = dict(zip(dims, shape, strict=True))
    asked, held = ({d: min(n, sizes[d]) for d, n in (given or {}).items()} for given in (chunks, shards))
    slabs = _whole_frames(sizes, dtype, SHARD_BYTES) | held
    cut = {d: _evenly(n, STORED.get(str(d), 1)) for d, n in slabs.items()} | asked
    if "z" in sizes and slabs["z"] < sizes["z"] and "z" not in held:
        most = asked.get("z", STORED["z"])
        if slabs["z"] < most and "z" not in asked:
            slabs["z"] = 1 << slabs["z"].bit_length() - 1
        cut["z"] = min(slabs["z"], most) if "z" not in asked else most
        slabs["z"] = max(slabs["z"] - slabs["z"] % cut["z"], cut["z"])
    whole = {d: -(-slabs[d] // cut[d]) * cut[d] for d in sizes}
    return Cut({d: min(whole[d], n) for d, n in sizes.items()}, whole, cut)


def lower_cut(cut: Cut, sizes: Mapping[Any, int], factors: Mapping[Any, int]) -> Cut:
    """Return how the next level is cut: shards stay as long where the image is longer, and so hold whole halved ones.

    Parameters
    ----------
    cut
        That of the level above.
    sizes
        Voxels of the next level.
    factors
        What was halved.
    """
    chunks, shards = {}, {}
    for dim, size in sizes.items():
        split = cut.shards[dim] < size * factors.get(dim, 1)
        chunks[dim] = min(cut.chunks[dim], size) if split else _evenly(size, cut.chunks[dim])
        shards[dim] = -(-min(cut.shards[dim], size) // chunks[dim]) * chunks[dim]
    return Cut({d: min(shards[d], n) for d, n in sizes.items()}, shards, chunks)


def _evenly(length: int, most: int) -> int:
    """Return the length of equal parts of at most so many, so that little lies beyond the end."""
    return -(-length // max(1, -(-length // most)))
