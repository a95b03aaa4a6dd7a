"""The tasks that write an image and its levels: each reads a slab once, writes one shard, and hands its half on.

Shards that are there already are left as they are; where a lower level needs them they are read back.
"""

from __future__ import annotations

import ctypes
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.delayed import delayed

from lazyvol.place import Place
from lazyvol.pyramid import halving
from lazyvol.shards import (
    Block,
    ShardForm,
    checksum_of,
    cut_selection,
    encode_chunks,
    read_pieces,
    read_whole,
    shard_parts,
)

__all__ = ["Level", "halved_task", "shard_tasks"]

_PARTS = 8
"""Tasks that compress a slab."""

Number = tuple[int, ...]
"""Number of a shard along each dimension."""


@dataclass(frozen=True, slots=True)
class Level:
    """One array of a store that is written."""

    path: str
    """Where its files lie in the store."""

    shape: tuple[int, ...]
    """Its voxels."""

    form: ShardForm
    """How they lie in shards."""

    keys: Mapping[Number, str]
    """The file of each shard, below `path`."""

    factors: tuple[int, ...]
    """How many voxels of the level above become one, along each dimension."""

    def extent(self, shard: Number) -> tuple[int, ...]:
        """Return how many voxels of the image a shard holds along each dimension."""
        places = zip(self.shape, shard, self.form.shard, strict=True)
        return tuple(min(n - s * length, length) for n, s, length in places)


def shard_tasks(
    data: Any, levels: Sequence[Level], place: Place, absent: Mapping[str, Collection[str]], *, nearest: bool
) -> list[Any]:
    """Return a task for each shard that is absent; each returns path, key, and CRC-32C of what it wrote.

    Parameters
    ----------
    data
        dask array of the image at full resolution.
    levels
        Its levels, full resolution first.
    place
        The store.
    absent
        Files of shards to write, by the path of their level.
    nearest
        Whether lower levels take one voxel instead of the mean.
    """
    needed = _needed(levels, absent)
    members = _blocks_of(data, levels[0], needed[0])
    tasks = []
    for n, level in enumerate(levels):
        below = levels[n + 1] if n + 1 < len(levels) else None
        pieces: dict[Number, list[Any]] = defaultdict(list)
        for shard in sorted(needed[n]):
            key = level.keys[shard]
            if key in absent[level.path]:
                held = delayed(list, pure=False)(members.pop(shard))
                tasks.append(_write_task(place, level, key, held))
            else:
                extent = level.extent(shard)
                held = delayed(_read_back, pure=False)(place, f"{level.path}/{key}", level.form, extent)
            if below is not None:
                start = [s * c // f for s, c, f in zip(shard, level.form.shard, below.factors, strict=True)]
                over, within = zip(*map(divmod, start, below.form.shard), strict=True)
                if over in needed[n + 1]:
                    half = delayed(_half, pure=False)(held, level.extent(shard), below.factors, nearest)
                    pieces[over].append((within, half))
        members = pieces
    return tasks


def halved_task(place: Place, above: Level, level: Level, shard: Number, *, nearest: bool) -> Any:
    """Return the task that writes one shard of a level from what the level above has in the store."""
    held = delayed(_read_halved, pure=False)(place, above, level, shard, nearest)
    return _write_task(place, level, level.keys[shard], held)


def _read_halved(place: Place, above: Level, level: Level, shard: Number, nearest: bool) -> list[Block]:
    """Read what becomes a shard, wherever the shards of the level above end."""
    starts = [s * c * f for s, c, f in zip(shard, level.form.shard, level.factors, strict=True)]
    wanted = [np.arange(a, a + n * f) for a, n, f in zip(starts, level.extent(shard), level.factors, strict=True)]
    values = np.empty([w.size for w in wanted], above.form.dtype)
    for number, pieces in cut_selection(above.form, wanted).items():
        with place.reader(f"{above.path}/{above.keys[number]}") as read_at:
            read_pieces(read_at, above.form, pieces, values)
    return [((0,) * len(shard), halving(values, level.factors, nearest=nearest))]


def _needed(levels: Sequence[Level], absent: Mapping[str, Collection[str]]) -> list[set[Number]]:
    """Return the shards of each level whose voxels are needed: to be written, or for a lower level."""
    needed = [{shard for shard, key in level.keys.items() if key in absent[level.path]} for level in levels]
    for n in range(len(levels) - 1, 0, -1):
        above, level = levels[n - 1], levels[n]
        for shard in above.keys:
            start = [s * c // f for s, c, f in zip(shard, above.form.shard, level.factors, strict=True)]
            if tuple(s // c for s, c in zip(start, level.form.shard, strict=True)) in needed[n]:
                needed[n - 1].add(shard)
    return needed


def _blocks_of(data: Any, level: Level, needed: Collection[Number]) -> dict[Number, list[Any]]:
    """Return the dask blocks that each shard is made of, cut where shards begin, and their places in it."""
    borders = [
        np.union1d(np.cumsum((0, *c)), np.arange(0, sum(c), n))
        for c, n in zip(data.chunks, level.form.shard, strict=True)
    ]
    blocks = data.rechunk(tuple(tuple(np.diff(b).tolist()) for b in borders)).to_delayed()
    members: dict[Number, list[Any]] = defaultdict(list)
    for number in np.ndindex(blocks.shape):
        start = [int(b[n]) for b, n in zip(borders, number, strict=True)]
        shard, within = zip(*map(divmod, start, level.form.shard), strict=True)
        if shard in needed:
            members[shard].append((within, blocks[number]))
    return members


def _write_task(place: Place, level: Level, key: str, held: Any) -> Any:
    """Return the task that writes a shard, after others that share its compression: so few slabs are held at once."""
    chunks = range(prod(level.form.counts))
    each = -(-len(chunks) // _PARTS)
    encode = delayed(encode_chunks, pure=False)
    parts = [encode(level.form, held, chunks[n : n + each]) for n in range(0, len(chunks), each)]
    return delayed(_write_shard, pure=False)(place, level.path, key, parts)


def _write_shard(place: Place, path: str, key: str, parts: list[list[bytes]]) -> tuple[str, str, int]:
    content = shard_parts([chunk for part in parts for chunk in part])
    place.write(f"{path}/{key}", content)
    _give_memory_back()
    return path, key, checksum_of(content)


def _read_back(place: Place, key: str, form: ShardForm, shape: Sequence[int]) -> list[Block]:
    """Return the voxels of a shard that is there already."""
    with place.reader(key) as read_at:
        return [((0,) * len(shape), read_whole(read_at, form, shape))]


def _half(blocks: Sequence[Block], shape: Sequence[int], factors: Sequence[int], nearest: bool) -> npt.NDArray[Any]:
    """Return what a slab becomes at the next level, block by block where blocks hold whole voxels of it."""
    factor = np.array(factors)
    if any((np.array(start) % factor).any() for start, _ in blocks):
        whole = np.empty(shape, blocks[0][1].dtype)
        for start, block in blocks:
            whole[tuple(slice(s, s + n) for s, n in zip(start, block.shape, strict=True))] = block
        blocks = [((0,) * len(shape), whole)]
    out = np.empty([n // f for n, f in zip(shape, factors, strict=True)], blocks[0][1].dtype)
    for start, block in blocks:
        half = halving(block, factors, nearest=nearest)
        low = np.array(start) // factor
        out[tuple(slice(a, a + n) for a, n in zip(low, half.shape, strict=True))] = half
    return out


def _give_memory_back() -> None:
    """Let go of what the C library keeps of freed blocks: it grows with the number of slabs otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
