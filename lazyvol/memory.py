"""Freed memory goes back to the system, where Python or the C library would keep it for themselves."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["empty", "give_back", "give_back_records", "no_search"]

_MANY = 4096
"""So many records take some megabytes."""
_LARGE = 4 * 2**20
"""Bytes of an array that is given memory of its own."""


def empty(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array whose values are not set; a large one goes back to the system as soon as it is gone.

    The C library keeps freed blocks of 16 MB for the next ones, which need not fit into them: it holds more and more.
    """
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    if size < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(shape, dtype)
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, dtype).reshape(shape)


@contextmanager
def no_search() -> Iterator[None]:
    """Let no search for garbage begin: thousands of objects are made, none of which is garbage yet."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def give_back() -> None:
    """Let go of what the C library keeps of freed blocks: it grows with the number of slabs otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def give_back_records(count: int) -> None:
    """Let go of what thousands of records took up, once they are gone; of fewer it is not worth the time.

    Python keeps thousands of freed tuples for later, each in the megabyte where it was made, until it searches for
    garbage; a scan has kept it from doing so. Half of the memory of an index stayed with the process.
    """
    if count >= _MANY:
        gc.collect()
        give_back()
