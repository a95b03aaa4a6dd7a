"""The tasks that write an image and its levels: each reads a slab once, writes one shard, and hands its half on.

Shards that are there already are left as they are; where a lower level needs them they are read back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.delayed import delayed

from lazyvol.failures import Failure, ImagesByFrame
from lazyvol.memory import empty, give_back
from lazyvol.place import Place, is_of, require_of
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

__all__ = ["JOURNAL", "Journal", "Level", "halved_task", "shard_tasks"]

JOURNAL = "lazyvol.filled"
"""Folder of a store that is written, with an empty group for each image that was filled."""
_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
"""An empty group: a store of icechunk takes no other files."""
_PARTS = 2
"""Tasks that compress a slab, if it has many chunks."""
_FEW_CHUNKS = 16
"""Chunks that one task compresses at least, as far as there are so many."""

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


@dataclass(frozen=True, slots=True)
class Journal:
    """Which images were filled because they could not be read, kept in the store until it is complete.

    What a writer that is killed knew is not lost so. Numbers are kept, no paths.
    """

    place: Place
    """The store."""

    uid: str
    """Which store it is."""

    images: ImagesByFrame
    """Which images of the volume are made of a frame."""

    def __call__(self, failure: Failure) -> None:
        """Write down that a frame was filled, before anything is made of it."""
        for number in self.images.of(failure):
            if is_of(self.place, self.uid):
                for key in ("zarr.json", f"{number}/zarr.json"):
                    self.place.write(f"{JOURNAL}/{key}", [_GROUP])

    def filled(self) -> set[int]:
        """Return the numbers that were written down, by this writer or one before."""
        if not self.place.sizes(JOURNAL, ["zarr.json"])["zarr.json"]:
            return set()
        keys = {f"{n}/zarr.json": n for n in range(self.images.count)}
        return {keys[key] for key, size in self.place.sizes(JOURNAL, keys).items() if size}


def shard_tasks(
    data: Any,
    levels: Sequence[Level],
    place: Place,
    absent: Mapping[str, Collection[str]],
    *,
    nearest: bool,
    uid: str = "",
) -> list[Any]:
    """Return tasks that write the shards that are absent; each returns path, key, and checksum of all that it wrote.

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
    uid
        Which store it is: a task that outlives its writer does not write into another's.
    """
    needed = _needed(levels, absent)
    members = _blocks_of(data, levels[0], needed[0])
    before: dict[Number, list[Any]] = {}
    tasks = []
    for n, level in enumerate(levels):
        below = levels[n + 1] if n + 1 < len(levels) else None
        pieces: dict[Number, list[Any]] = defaultdict(list)
        done: dict[Number, list[Any]] = defaultdict(list)
        for shard in sorted(needed[n]):
            key, written = level.keys[shard], before.get(shard, [])
            if key in absent[level.path]:
                held = delayed(list, pure=False)(members.pop(shard))
            else:
                held = delayed(_read_back, pure=False)(place, f"{level.path}/{key}", level.form, level.extent(shard))
            over, within = _place_below(level, shard, below) if below is not None else ((), ())
            halves: list[Any] = []
            if below is not None and over in needed[n + 1]:
                halves = [delayed(_half, pure=False)(held, level.extent(shard), below.factors, nearest)]
                pieces[over].append((within, halves[0]))
            if key in absent[level.path]:
                written = [_write_task(place, uid, level, key, held, written, after=halves)]
            if halves:
                done[over] += written
            else:
                tasks += written
        members, before = pieces, done
    return tasks


def _place_below(level: Level, shard: Number, below: Level) -> tuple[Number, Number]:
    """Return in which shard of the next level a shard lies, and where in it."""
    start = [s * c // f for s, c, f in zip(shard, level.form.shard, below.factors, strict=True)]
    over, within = zip(*map(divmod, start, below.form.shard), strict=True)
    return over, within


def halved_task(place: Place, above: Level, level: Level, shard: Number, *, nearest: bool, uid: str = "") -> Any:
    """Return the task that writes one shard of a level from what the level above has in the store."""
    held = delayed(_read_halved, pure=False)(place, above, level, shard, nearest)
    return _write_task(place, uid, level, level.keys[shard], held, [])


def _read_halved(place: Place, above: Level, level: Level, shard: Number, nearest: bool) -> list[Block]:
    """Read what becomes a shard, wherever the shards of the level above end."""
    starts = [s * c * f for s, c, f in zip(shard, level.form.shard, level.factors, strict=True)]
    wanted = [np.arange(a, a + n * f) for a, n, f in zip(starts, level.extent(shard), level.factors, strict=True)]
    values = empty([w.size for w in wanted], above.form.dtype)
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
            if _place_below(above, shard, level)[0] in needed[n]:
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


def _write_task(
    place: Place, uid: str, level: Level, key: str, held: Any, before: list[Any], *, after: Sequence[Any] = ()
) -> Any:
    """Return the task that writes a shard, after others that share its compression: so few slabs are held at once.

    It comes after those that write what the shard is a half of, and hands on what they return: a tree, which dask
    walks branch by branch. Of tasks that end apart it would leave the halves of many lying. It comes ``after`` the half
    of the shard itself, too: a slab would be held until that is made, and the next ones read before.
    """
    chunks = range(prod(level.form.counts))
    each = max(-(-len(chunks) // _PARTS), _FEW_CHUNKS)
    encode = delayed(encode_chunks, pure=False)
    parts = [encode(level.form, held, chunks[n : n + each]) for n in range(0, len(chunks), each)]
    return delayed(_write_shard, pure=False)(place, uid, level.path, key, parts, before, after)


Written = list[tuple[str, str, int]]
"""Path, key, and checksum of what was written."""


def _write_shard(
    place: Place,
    uid: str,
    path: str,
    key: str,
    parts: list[list[bytes]],
    before: Sequence[Written],
    after: Sequence[Any],  # noqa: ARG001  # what has to be there before
) -> Written:
    """Write a shard; return it and those before it."""
    require_of(place, uid)
    chunks = [chunk for part in parts for chunk in part]
    place.write(f"{path}/{key}", shard_parts(chunks))
    give_back()
    return [(path, key, checksum_of(chunks)), *(each for written in before for each in written)]


def _read_back(place: Place, key: str, form: ShardForm, shape: Sequence[int]) -> list[Block]:
    """Return the voxels of a shard that is there already."""
    with place.reader(key) as read_at:
        return [((0,) * len(shape), read_whole(read_at, form, shape))]


def _half(blocks: Sequence[Block], shape: Sequence[int], factors: Sequence[int], nearest: bool) -> npt.NDArray[Any]:
    """Return what a slab becomes at the next level, block by block where blocks hold whole voxels of it."""
    factor = np.array(factors)
    if any((np.array(start) % factor).any() for start, _ in blocks):
        whole = empty(shape, blocks[0][1].dtype)
        for start, block in blocks:
            whole[tuple(slice(s, s + n) for s, n in zip(start, block.shape, strict=True))] = block
        blocks = [((0,) * len(shape), whole)]
    out = empty([n // f for n, f in zip(shape, factors, strict=True)], blocks[0][1].dtype)
    for start, block in blocks:
        half = halving(block, factors, nearest=nearest)
        low = np.array(start) // factor
        out[tuple(slice(a, a + n) for a, n in zip(low, half.shape, strict=True))] = half
    return out
