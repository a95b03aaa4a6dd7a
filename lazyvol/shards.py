"""One shard of a store: its file written from blocks, and the voxels of a selection read from it.

The layout is that of Zarr v3, codec ``sharding_indexed``: compressed chunks one after the other, each with its
CRC-32C, and at the end a table of where each begins and how long it is, with a CRC-32C as well.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from lazyvol.memory import empty

__all__ = [
    "BLOSC",
    "Block",
    "Piece",
    "ShardForm",
    "check_shard",
    "checksum_of",
    "cut_selection",
    "encode_chunks",
    "read_pieces",
    "read_whole",
    "shard_parts",
]

BLOSC: Mapping[str, Any] = {"cname": "zstd", "clevel": 1, "shuffle": "shuffle", "blocksize": 2**18}
"""How chunks are compressed; docs/decisions/0007 has what was measured."""

Place = tuple[int, ...]
ReadAt = Callable[[int, int], bytes]
"""Returns so many bytes of a file from one on; from the end on where the first number is negative."""
Along = slice | npt.NDArray[np.intp]
Selection = tuple[Along, ...]
Block = tuple[Place, npt.NDArray[Any]]
"""Voxels, and the place of the first of them in the shard."""

_CHECKSUM = 4


@dataclass(frozen=True, slots=True)
class ShardForm:
    """How the voxels of a shard lie in its file."""

    shard: tuple[int, ...]
    """Voxels of a shard along each dimension; a multiple of those of a chunk."""

    chunk: tuple[int, ...]
    """Voxels of a chunk along each dimension."""

    dtype: str
    """Type of the voxels as they are stored, e.g. ``<i2``."""

    fill_value: float
    """Value of voxels that lie outside of the volume."""

    checksums: bool = True
    """Whether each chunk ends with its CRC-32C."""

    codec: tuple[tuple[str, Any], ...] = tuple({"id": "blosc", **BLOSC, "shuffle": blosc.SHUFFLE}.items())
    """What numcodecs calls the compression: names and values; empty for none."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))


@dataclass(frozen=True, slots=True)
class Piece:
    """What a selection takes from one chunk."""

    number: int
    """Number of the chunk in its shard."""

    inside: Selection
    """Which voxels of the chunk."""

    outside: Selection
    """Where they go in the selection."""


def encode_chunks(form: ShardForm, blocks: Sequence[Block], numbers: Iterable[int]) -> list[bytes]:
    """Return chunks of a shard as its file holds them, from the blocks that make up the shard."""
    whole = np.max([np.add(place, block.shape) for place, block in blocks], axis=0)
    codec = numcodecs.get_codec(dict(form.codec)) if form.codec else None
    chunk = np.empty(form.chunk, form.dtype)
    encoded = []
    for number in numbers:
        place = tuple(int(n) * c for n, c in zip(np.unravel_index(number, form.counts), form.chunk, strict=True))
        if (np.add(place, form.chunk) > whole).any():
            chunk[...] = form.fill_value
        _gather(blocks, place, chunk)
        content = bytes(codec.encode(chunk)) if codec else chunk.tobytes()
        encoded.append(content + _checksum(content))
    return encoded


def shard_parts(chunks: Sequence[bytes]) -> list[bytes]:
    """Return the parts of the file of a shard that has these chunks, in their order."""
    lengths = np.array([len(chunk) for chunk in chunks], "<u8")
    index = np.stack([np.cumsum(lengths, dtype="<u8") - lengths, lengths], axis=1).tobytes()
    return [*chunks, index, _checksum(index)]


def checksum_of(chunks: Iterable[bytes]) -> int:
    """Return 48 bits that tell a shard from others, of its chunks as its file holds them.

    A CRC of bytes that end with their own CRC says nothing of them, so these are hashed: the CRC-32C and the length
    of each chunk, in their order.
    """
    parts = [chunk[-_CHECKSUM:] + len(chunk).to_bytes(8, "little") for chunk in chunks]
    return int.from_bytes(hashlib.sha256(b"".join(parts)).digest()[:6], "big")


def _gather(blocks: Iterable[Block], place: Place, chunk: npt.NDArray[Any]) -> None:
    """Copy what blocks hold of the chunk at a place."""
    for start, block in blocks:
        low = [max(s, p) for s, p in zip(start, place, strict=True)]
        high = [min(s + n, p + m) for s, n, p, m in zip(start, block.shape, place, chunk.shape, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            chunk[_between(low, high, place)] = block[_between(low, high, start)]


def _between(low: Sequence[int], high: Sequence[int], origin: Place) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True))


def cut_selection(form: ShardForm, wanted: Sequence[npt.NDArray[np.intp]]) -> dict[Place, list[Piece]]:
    """Return which pieces of which shards a selection needs, by the number of the shard along each dimension.

    Parameters
    ----------
    form
        The shards.
    wanted
        Indices along each dimension, in any order.
    """
    pieces: dict[Place, list[Piece]] = defaultdict(list)
    for parts in product(*(list(_cut_axis(w, c)) for w, c in zip(wanted, form.chunk, strict=True))):
        numbers, inside, outside = zip(*parts, strict=True)
        shard = tuple(n // c for n, c in zip(numbers, form.counts, strict=True))
        number = np.ravel_multi_index([n % c for n, c in zip(numbers, form.counts, strict=True)], form.counts)
        pieces[shard].append(Piece(int(number), _orthogonal(inside), _orthogonal(outside)))
    return pieces


def _cut_axis(wanted: npt.NDArray[np.intp], length: int) -> Iterator[tuple[int, Along, Along]]:
    """Yield each chunk along one dimension with the indices in it, and where they stand in the selection."""
    numbers = wanted // length
    for number in np.unique(numbers):
        outside = np.flatnonzero(numbers == number)
        yield int(number), _as_slice(wanted[outside] - number * length), _as_slice(outside)


def _as_slice(indices: npt.NDArray[np.intp]) -> Along:
    """Return ascending indices of one step as a slice, which copies faster; others as they are."""
    first, last, n = int(indices[0]), int(indices[-1]), len(indices)
    step = (last - first) // max(n - 1, 1)
    if n == 1 or (step > 0 and bool((np.diff(indices) == step).all())):
        return slice(first, last + 1, max(step, 1))
    return indices


def _orthogonal(selection: Sequence[Along]) -> Selection:
    if all(isinstance(s, slice) for s in selection):
        return tuple(selection)
    return np.ix_(*(np.arange(s.start, s.stop, s.step) if isinstance(s, slice) else s for s in selection))


def read_whole(read_at: ReadAt, form: ShardForm, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Return the voxels of a shard that lie in the volume; raise as `read_pieces`."""
    out = empty(shape, form.dtype)
    pieces = cut_selection(form, [np.arange(n) for n in shape])
    read_pieces(read_at, form, pieces[(0,) * len(shape)], out)
    return out


def check_shard(read_at: ReadAt, form: ShardForm) -> int:
    """Return the `checksum_of` a shard whose chunks match their own; raise as `read_pieces`."""
    index = [(int(offset), int(length)) for offset, length in _read_index(read_at, prod(form.counts))]
    if any(offset + length > _MOST_BYTES for offset, length in index):
        raise ValueError("a chunk of the shard was never written")
    content = read_at(0, max((offset + length for offset, length in index), default=0))
    chunks = [content[offset : offset + length] for offset, length in index]
    for number, chunk in enumerate(chunks):
        if form.checksums and chunk[-_CHECKSUM:] != _checksum(chunk[:-_CHECKSUM]):
            raise ValueError(f"chunk {number} of the shard does not match its checksum")
    return checksum_of(chunks)


def read_pieces(read_at: ReadAt, form: ShardForm, pieces: Iterable[Piece], out: npt.NDArray[Any]) -> None:
    """Read pieces of a shard into ``out``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged; says how.
    """
    index = _read_index(read_at, prod(form.counts))
    chunk = np.empty(form.chunk, form.dtype)
    for piece in pieces:
        offset, length = (int(n) for n in index[piece.number])
        if offset + length > _MOST_BYTES:  # what was never written has 2**64 - 1 here
            raise ValueError(f"chunk {piece.number} of the shard was never written")
        encoded = read_at(offset, length)
        if len(encoded) < length:
            raise ValueError(f"chunk {piece.number} of the shard is cut short")
        if form.checksums:
            encoded, found = encoded[:-_CHECKSUM], encoded[-_CHECKSUM:]
            if found != _checksum(encoded):
                raise ValueError(f"chunk {piece.number} of the shard does not match its checksum")
        _decode(encoded, piece.number, form, chunk)
        out[piece.outside] = chunk[piece.inside]


_MOST_BYTES = 2**62


def _read_index(read_at: ReadAt, chunks: int) -> npt.NDArray[np.uint64]:
    """Return where each chunk begins and how long it is; shape (chunks, 2)."""
    length = 16 * chunks
    found = read_at(-length - _CHECKSUM, length + _CHECKSUM)
    if found[length:] != _checksum(found[:length]):
        raise ValueError("the index of the shard does not match its checksum")
    return np.frombuffer(found[:length], "<u8").reshape(chunks, 2)


def _decode(encoded: bytes, number: int, form: ShardForm, chunk: npt.NDArray[Any]) -> None:
    """Decompress a chunk; one of Blosc whose own header is right on its length, since that is followed blindly."""
    name = dict(form.codec).get("id")
    if name == "blosc":
        said = [int.from_bytes(encoded[at : at + 4], "little") for at in (4, 12)]  # bytes before and after compression
        if said != [chunk.nbytes, len(encoded)]:
            raise ValueError(f"chunk {number} of the shard is not as long as it says")
        blosc.decompress(encoded, chunk)
        return
    content = numcodecs.get_codec(dict(form.codec)).decode(encoded) if name else encoded
    if len(content) != chunk.nbytes:
        raise ValueError(f"chunk {number} of the shard is not as long as it should be")
    chunk[...] = np.frombuffer(content, form.dtype).reshape(chunk.shape)


def _checksum(content: bytes) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(_CHECKSUM, "little")
