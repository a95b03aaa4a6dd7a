"""Volumes in chunked, sharded Zarr: written whole or visibly not, and opened again.

``NAME/scale0`` is a plain xarray group (Zarr v3) that holds ``image`` and its
coordinates; further levels will stand beside it. A store is written at ``NAME.partial``
and appears as ``NAME`` by one rename when all of it is there.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import uuid
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import delayed
from xarray.core import indexing
from zarr.codecs import BloscCodec, Crc32cCodec

from lazyvol.chunks import Chunks, chunked, store_chunks
from lazyvol.convention import attrs_with_nan, strict
from lazyvol.errors import IncompleteStoreError, OptionError, SourceNotFoundError, StoreError
from lazyvol.failures import failures_noted, filled_finding
from lazyvol.lock import LOCK, locked
from lazyvol.privacy import Identifiers, without_identifiers
from lazyvol.shards import BLOSC, Block, ShardForm, encode_chunks, write_shard
from lazyvol.stored import LEVEL, NAME, StoredImage, open_image, shard_form, shard_path, shard_sizes

__all__ = ["open_zarr", "save_zarr"]

Path = str | os.PathLike[str]

LAYOUT = 1
"""Version of the layout, in the root's attributes."""
_PARTS = 8
"""Tasks that compress a slab."""


def save_zarr(
    volume: xr.DataArray,
    store: Path,
    *,
    overwrite: bool = False,
    identifiers: Identifiers = "none",
    progress: bool = False,
) -> None:
    """Write a volume to a chunked, sharded Zarr store, slab by slab in bounded memory.

    Each task reads one slab of whole slices and writes one shard; under a ``dask.distributed``
    client the tasks run there. Frames that were filled because they could not be read
    (``on_error="fill"``) are named in a finding of the store.

    Parameters
    ----------
    volume
        A volume with its geometry, from `open_volume` or made of one.
    store
        Folder to write, e.g. ``chest.zarr``. It appears when it is complete; until then
        ``chest.zarr.partial`` holds what there is.
    overwrite
        Replace a Zarr store that exists; anything else under that name stays and raises.
    identifiers
        ``"none"`` replaces UIDs by keyed one-way ones; ``"uids"`` keeps them. Paths of source files
        are never written; names of windows that are not usual ones become ``window 1`` and so on.
    progress
        Show a progress bar.

    Raises
    ------
    StoreError
        If the store exists, another process is writing it, or something of the volume or the key
        cannot be written; says what.
    GeometryError
        If the array carries no geometry.
    PixelReadError, PixelRangeError
        If a frame cannot be read; the store does not appear.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> folder = getfixture("tmp_path") / "chest.zarr"
    >>> lazyvol.save_zarr(volume, folder)
    >>> bool((lazyvol.open_zarr(folder) == volume).all())
    True
    """
    path = _local(store)
    if identifiers not in ("none", "uids") or overwrite not in (True, False):
        raise OptionError(
            f"identifiers={identifiers!r} can be 'none' or 'uids', overwrite={overwrite!r} True or False."
        )
    kept = strict(without_identifiers(volume, identifiers))
    if os.path.lexists(path) and not overwrite:
        raise StoreError(f"{path} exists. Give another name, or overwrite=True.")
    if os.path.lexists(path) and not os.path.isfile(os.path.join(path, "zarr.json")):
        raise StoreError(f"{path} exists and is no Zarr store, so it is not overwritten. Give another name.")
    partial = f"{path}.partial"
    with locked(partial):
        with failures_noted() as failed:
            image = _write(kept, partial, identifiers, progress)
        if filled := filled_finding(volume, failed):
            image.attrs["findings"] = [*volume.attrs.get("findings", []), filled.to_json()]
        _mark_complete(partial)
        _appear(partial, path)


def open_zarr(store: Path, *, chunks: Chunks = "auto") -> xr.DataArray:
    """Open a volume that `save_zarr` wrote, lazily.

    Parameters
    ----------
    store
        Folder of the store.
    chunks
        dask chunks: ``"auto"`` for one for each shard, a number or a mapping by dimension, or None
        for xarray's own lazy arrays without dask.

    Returns
    -------
    xarray.DataArray
        The volume as it was saved.

    Raises
    ------
    SourceNotFoundError
        If there is no such folder.
    IncompleteStoreError
        If its writing was not finished; says how far it got.
    StoreError
        If it is not a store of lazyvol, or is damaged; also when values are read.

    Examples
    --------
    >>> import lazyvol
    >>> lazyvol.open_zarr(getfixture("tmp_path"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    lazyvol.errors.StoreError: ... is no Zarr store...
    """
    path = _local(store)
    root, stored = _complete(path)
    dataset = xr.open_zarr(path, group=LEVEL, consolidated=False, chunks=None)
    image: Any = indexing.LazilyIndexedArray(stored)
    cached: Any = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(image))  # type: ignore[no-untyped-call]
    volume = dataset[root["name"]].copy(deep=False, data=cached)
    volume.attrs = attrs_with_nan(volume.attrs)
    for coordinate in volume.coords.values():
        coordinate.load().attrs = attrs_with_nan(coordinate.attrs)
    lengths = dict(zip(volume.dims, root["slabs"], strict=True)) if chunks == "auto" else chunks
    return chunked(volume, lengths, token=root["uid"])


def _local(store: Path) -> str:
    path = os.fspath(store).rstrip("/")
    if "://" in path:
        raise StoreError(f"{path} is a URL; stores are written to and read from local folders. Copy it there.")
    return path


def _complete(path: str) -> tuple[dict[str, Any], StoredImage]:
    """Return what the root says of a complete store, and its image; raise if it is no such store."""
    if not os.path.isdir(path):
        partial = f"{path}.partial"
        if os.path.isdir(partial):
            raise _incomplete(path, partial)
        if os.path.lexists(path):
            raise StoreError(f"{path} is a file, no Zarr store. open_volume opens DICOM.")
        raise SourceNotFoundError(f"{path} does not exist. Give the folder of a Zarr store.")
    try:
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            root = json.load(file)["attributes"]["lazyvol"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is no Zarr store that lazyvol wrote (its zarr.json has no 'lazyvol' attribute). xarray.open_zarr "
            "opens other stores; open_volume opens DICOM."
        ) from error
    image = open_image(path)
    sizes = shard_sizes(path, image) if image else {}
    if image is None or not root.get("complete") or not sizes or not all(sizes.values()):
        raise _incomplete(path, path)
    return dict(root), StoredImage(path, image, sizes)


def _incomplete(path: str, where: str) -> IncompleteStoreError:
    image = open_image(where)
    sizes = shard_sizes(where, image) if image else {}
    lacks = [shard for shard, size in sizes.items() if not size]
    return IncompleteStoreError(
        f"{path} is incomplete: {len(sizes) - len(lacks)} of {len(sizes) or 'an unknown number of'} shards are in "
        f"{where}{f'; {lacks[0]} is absent or empty' if lacks else ''}. Call save_zarr again, or remove that folder."
    )


def _write(volume: xr.DataArray, partial: str, identifiers: Identifiers, progress: bool) -> zarr.Array[Any]:
    """Write the values, and all but the word that the store is complete."""
    slabs, shards, chunks = store_chunks(volume.dims, volume.shape, volume.dtype)
    about: dict[str, Any] = {
        "layout": LAYOUT,
        "name": NAME,
        "identifiers": identifiers,
        "slabs": list(slabs.values()),
        "uid": uuid.uuid4().hex,
        "complete": False,
    }
    blosc = BloscCodec(**BLOSC, typesize=volume.dtype.itemsize)
    root = zarr.create_group(partial, attributes={"lazyvol": about})
    image = root.create_group(LEVEL).create_array(
        NAME,
        shape=volume.shape,
        dtype=volume.dtype,
        chunks=tuple(chunks.values()),
        shards=tuple(shards.values()),
        compressors=[blosc, Crc32cCodec()],  # the checksum makes a flipped bit an error
        fill_value=_fill_value(volume.dtype),
        attributes=volume.attrs,
        dimension_names=[str(d) for d in volume.dims],
        config={"write_empty_chunks": True},
    )
    xr.Dataset(coords=volume.coords).to_zarr(partial, group=LEVEL, mode="a", consolidated=False)
    with _bar(progress):
        compute(*_slab_tasks(volume, image, partial))  # type: ignore[no-untyped-call]
    return image


def _slab_tasks(volume: xr.DataArray, image: zarr.Array[Any], partial: str) -> list[Any]:
    """Return a task for each shard, which takes the blocks that it is made of as they are."""
    form = shard_form(image)
    assert form is not None
    data = (volume if volume.chunks else chunked(volume.rename(NAME), "auto")).data
    borders = [
        np.union1d(np.cumsum((0, *c)), np.arange(0, sum(c), n)) for c, n in zip(data.chunks, form.shard, strict=True)
    ]
    blocks = data.rechunk(tuple(tuple(np.diff(b).tolist()) for b in borders)).to_delayed()
    members: dict[str, list[Block]] = defaultdict(list)
    for number in np.ndindex(blocks.shape):
        place = [int(b[n]) for b, n in zip(borders, number, strict=True)]
        shard, within = zip(*map(divmod, place, form.shard), strict=True)
        members[image.metadata.encode_chunk_key(shard)].append((within, blocks[number]))
    paths = {shard: shard_path(os.path.abspath(partial), shard) for shard in members}
    return [_slab_task(paths[shard], form, blocks) for shard, blocks in members.items()]


def _slab_task(path: str, form: ShardForm, blocks: list[Block]) -> Any:
    """Return the task that writes a shard, after others that share its compression: so few slabs are held at once."""
    held, chunks = delayed(list, pure=False)(blocks), range(prod(form.counts))
    each = -(-len(chunks) // _PARTS)
    parts = [chunks[n : n + each] for n in range(0, len(chunks), each)]
    encode = delayed(encode_chunks, pure=False)
    return delayed(_write_slab, pure=False)(path, [encode(form, held, part) for part in parts])


def _write_slab(path: str, parts: list[list[bytes]]) -> None:
    """Write a shard, which appears whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.partial"
    with open(partial, "wb") as file:
        write_shard(file, [chunk for part in parts for chunk in part])
    os.replace(partial, path)
    _give_memory_back()


def _give_memory_back() -> None:
    """Let go of what the C library keeps of freed blocks: it grows with the number of slabs otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _mark_complete(partial: str) -> None:
    root = zarr.open_group(partial)
    about: Any = root.attrs["lazyvol"]
    root.attrs["lazyvol"] = {**about, "complete": True}


def _fill_value(dtype: np.dtype[Any]) -> npt.ArrayLike:
    """Return what plain xarray reads where a shard is absent; a whole store holds all of them."""
    if dtype.kind not in "iu":
        return False if dtype.kind == "b" else float("nan")
    return int(np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max)


def _bar(progress: bool) -> AbstractContextManager[Any]:
    if not progress:
        return nullcontext()
    from tqdm.dask import TqdmCallback

    bar: AbstractContextManager[Any] = TqdmCallback(desc="save", unit="task", leave=False)
    return bar


def _appear(partial: str, path: str) -> None:
    """Give the finished store its name, in one step."""
    old = f"{path}.old-{uuid.uuid4().hex}"
    if os.path.lexists(path):
        os.rename(path, old)
    os.rename(partial, path)  # with its lock, so that no other writer takes it for abandoned
    os.remove(os.path.join(path, LOCK))
    shutil.rmtree(old, ignore_errors=True)
