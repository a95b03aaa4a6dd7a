"""The values of a volume: an array that reads what is asked of it, and all of them at once in one piece of memory."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.array as da
import dask.local
import dask.threaded
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import get_scheduler
from dask.system import CPU_COUNT
from xarray.backends import BackendArray
from xarray.core import indexing

from lazyvol.frames import empty_values, read_frames
from lazyvol.memory import empty
from lazyvol.sources import FrameTable

__all__ = ["VolumeArray", "loaded"]

Indices = npt.NDArray[np.signedinteger[Any]]
Pixels = npt.NDArray[Any]

_PART_BYTES = 8 * 2**20
"""Stored numbers that one thread reads before it takes the next part."""


class VolumeArray(BackendArray):
    """The frames of a volume as an array that reads what is asked of it and nothing else."""

    def __init__(self, table: FrameTable, places: Indices, shape: tuple[int, ...], token: str) -> None:
        self.table = table
        self.places = places
        self.shape = shape
        self.dtype = np.dtype(table.dtype)
        self.token = token

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def __dask_tokenize__(self) -> str:
        return self.token

    def __deepcopy__(self, memo: dict[int, Any]) -> VolumeArray:
        return self  # nothing in it changes

    def _read(self, key: tuple[Any, ...]) -> Pixels:
        wanted = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
        within = wanted[self.places.ndim :]
        rows, columns, *samples = (np.atleast_1d(w) for w in within)
        frames = self.places[np.ix_(*map(np.atleast_1d, wanted[: self.places.ndim]))].ravel()
        values = _read_in_threads(self.table, frames, rows, columns)
        values = values[..., samples[0]] if samples else values
        return values.reshape([w.size for w in wanted if w.ndim])


def _read_in_threads(table: FrameTable, frames: Indices, rows: Indices, columns: Indices) -> Pixels:
    """Read frames by all cores where that pays: not where dask, or whoever started this thread or process, does it."""
    out = empty_values(table, len(frames), len(rows), len(columns))
    parts = list(_parts(table, frames, rows))
    alone = threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None
    if len(parts) < 2 or CPU_COUNT < 2 or not alone or not out.size:
        return read_frames(table, frames, rows, columns, out=out)
    with ThreadPoolExecutor(CPU_COUNT, thread_name_prefix="lazyvol") as pool:
        jobs = [pool.submit(read_frames, table, frames[p], rows, columns, out=out[p]) for p in parts]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return out


def _parts(table: FrameTable, frames: Indices, rows: Indices) -> Iterator[slice]:
    """Yield frames that one thread reads at a time, by what they cost; a few of one sheet of tiles cost little."""
    if not len(frames) or frames.max() < 0:
        return
    source = table.sources[int(frames.max())]
    height = len(rows) if source.columns or source.pixels.is_plain else source.pixels.rows
    width = source.columns or source.pixels.columns
    cost = height * width * table.samples * source.pixels.bits_allocated // 8
    step = max(1, _PART_BYTES // max(cost, 1))
    for first in range(0, len(frames), step):
        yield slice(first, first + step)


class _Memory:
    """An array that dask tasks of this process write their blocks into."""

    def __init__(self, values: Pixels) -> None:
        self._values = values

    def __setitem__(self, key: Any, block: Pixels) -> None:
        self._values[key] = block

    def __dask_tokenize__(self) -> str:
        return f"memory-{id(self._values)}"  # its values are still to come


def loaded(volume: xr.DataArray) -> xr.DataArray:
    """Return the volume with its values in memory, read into one array."""
    if volume.chunks is None or not _is_local(volume.data):
        return volume.compute()
    values = empty(volume.shape, volume.dtype)
    da.store(volume.data, _Memory(values), lock=False)  # type: ignore[arg-type]  # it asks for no more than an item
    return volume.copy(deep=False, data=values).compute()


def _is_local(data: Any) -> bool:
    """Return whether the scheduler in use works in this process, and so writes into its memory."""
    scheduler: Any = get_scheduler(collections=[data])  # type: ignore[no-untyped-call]  # dask has no types here
    return scheduler in {dask.threaded.get, dask.local.get_sync}
