"""Volumes in chunked, sharded Zarr: written whole or visibly not, and opened again.

``NAME/scale0`` is a plain xarray group (Zarr v3) that holds ``image`` and its
coordinates; further levels will stand beside it. A store is written at ``NAME.partial``
and appears as ``NAME`` by one rename when all of it is there.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import BloscCodec, Crc32cCodec

from lazyvol.chunks import Chunks, chunked, store_chunks
from lazyvol.convention import attrs_with_nan, geometry_of, strict, with_frame_of_reference
from lazyvol.errors import IncompleteStoreError, OptionError, SourceNotFoundError, StoreError
from lazyvol.failures import failures_noted, filled_finding
from lazyvol.lock import LOCK, locked
from lazyvol.privacy import Identifiers, pseudonym, read_key

__all__ = ["open_zarr", "save_zarr"]

Path = str | os.PathLike[str]

NAME = "image"
LEVEL = "scale0"
LAYOUT = 1
"""Version of the layout, in the root's attributes."""


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
        are never written.
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
    kept = strict(_without_identifiers(volume, identifiers))
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
        _complete(partial)
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
    root, sizes = _complete_root(path)
    dataset = xr.open_zarr(path, group=LEVEL, consolidated=False, chunks=None)
    image: Any = indexing.LazilyIndexedArray(StoredImage(path, sizes))
    cached: Any = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(image))  # type: ignore[no-untyped-call]
    volume = dataset[root["name"]].copy(deep=False, data=cached)
    volume = volume.assign_coords({name: coordinate.load() for name, coordinate in volume.coords.items()})
    for part in (volume, *volume.coords.values()):
        part.attrs = attrs_with_nan(part.attrs)
    lengths = dict(zip(volume.dims, root["slabs"], strict=True)) if chunks == "auto" else chunks
    return chunked(volume, lengths, token=root["uid"])


def _local(store: Path) -> str:
    path = os.fspath(store).rstrip("/")
    if "://" in path:
        raise StoreError(f"{path} is a URL; stores are written to and read from local folders. Copy it there.")
    return path


def _complete_root(path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what the root says of a complete store, and the sizes of its shards; raise if it is no such store."""
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
    sizes = _shards(path)
    if not root.get("complete") or not sizes or not all(sizes.values()):
        raise _incomplete(path, path)
    return dict(root), sizes


def _incomplete(path: str, where: str) -> IncompleteStoreError:
    sizes = _shards(where)
    lacks = [shard for shard, size in sizes.items() if not size]
    return IncompleteStoreError(
        f"{path} is incomplete: {len(sizes) - len(lacks)} of {len(sizes) or 'an unknown number of'} shards are in "
        f"{where}{f'; {lacks[0]} is absent or empty' if lacks else ''}. Call save_zarr again, or remove that folder."
    )


def _shards(where: str) -> dict[str, int]:
    """Return the size of each shard that the image should have, 0 if it is absent; empty where that cannot be told."""
    try:
        image = zarr.open_array(os.path.join(where, LEVEL, NAME), mode="r")
    except (OSError, ValueError, KeyError):
        return {}
    grid = np.ndindex(*(-(-n // s) for n, s in zip(image.shape, image.shards or image.chunks, strict=True)))
    return {shard: _size(where, shard) for shard in map(image.metadata.encode_chunk_key, grid)}


def _size(where: str, shard: str) -> int:
    try:
        return os.stat(os.path.join(where, LEVEL, NAME, shard)).st_size
    except OSError:
        return 0


class StoredImage(BackendArray):
    """The values of a store; a shard that is gone, changed or damaged is an error, never the fill value."""

    def __init__(self, path: str, sizes: dict[str, int]) -> None:
        self.path, self.sizes = os.path.abspath(path), sizes
        self.image = zarr.open_array(os.path.join(self.path, LEVEL, NAME), mode="r")
        self.shape, self.dtype = self.image.shape, np.dtype(self.image.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        vectorized = isinstance(key, indexing.VectorizedIndexer)
        read = partial(self._read, self.image.vindex.__getitem__ if vectorized else self._outer)
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.VECTORIZED, read)

    def _outer(self, key: tuple[Any, ...]) -> Any:
        """Select without single indices, which zarr 3.1.5 mixes up with lists of them."""
        single = [isinstance(k, int | np.integer) for k in key]
        chosen = tuple(slice(k, k + 1) if one else k for k, one in zip(key, single, strict=True))
        return np.asarray(self.image.oindex[chosen])[tuple(0 if one else slice(None) for one in single)]

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


def _without_identifiers(volume: xr.DataArray, identifiers: Identifiers) -> xr.DataArray:
    """Return the volume as it may be written: no paths, and UIDs only under other names unless asked for."""
    geometry = geometry_of(volume)
    kept = volume.drop_vars("source", errors="ignore")
    if identifiers == "uids":
        return kept
    key = read_key()
    kept = with_frame_of_reference(kept, pseudonym(geometry.frame_of_reference, key))
    if "sop_instance_uid" in kept.coords:
        uids = kept.coords["sop_instance_uid"]
        names = np.array([pseudonym(u, key) for u in uids.values.ravel()], dtype=np.dtypes.StringDType())
        kept = kept.assign_coords(sop_instance_uid=uids.copy(data=names.reshape(uids.shape)))
    return kept


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
    blosc = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=volume.dtype.itemsize)
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
    data = chunked(volume.rename(NAME), slabs).data.rechunk(tuple(slabs.values()))
    with _bar(progress):
        da.store(data, image, lock=False)  # type: ignore[arg-type]  # a Zarr array takes slices
    return image


def _complete(partial: str) -> None:
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
