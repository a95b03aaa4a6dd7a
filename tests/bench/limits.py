"""The loops of the limits: compiled C where there is a compiler, the same loops in Python elsewhere."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["LANGUAGE", "cross", "heads", "load", "planes"]

Pixels = npt.NDArray[np.int16]
SOURCE = Path(__file__).with_name("limits.c")
LANGUAGE = "C" if shutil.which("cc") else "Python"


def load(folder: Path) -> ctypes.CDLL | None:
    """Build the loops in a folder, unless they are there; None without a compiler."""
    if LANGUAGE != "C":
        return None
    built = folder / "limits.so"
    if not built.exists() or built.stat().st_mtime < SOURCE.stat().st_mtime:
        part = built.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O3", "-shared", "-fPIC", "-o", part, SOURCE], check=True)
        part.rename(built)
    return ctypes.CDLL(str(built))


def heads(c: ctypes.CDLL | None, paths: Sequence[str]) -> None:
    """Read the first 8 KiB of each file."""
    if c is not None:
        _require(c.heads(_names(paths), ctypes.c_long(len(paths))))
        return
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.pread(file, 8192, 0)
        os.close(file)


def planes(c: ctypes.CDLL | None, paths: Sequence[str], offsets: Sequence[int], add: int, out: Pixels) -> None:
    """Read the numbers of each file into an array of planes, and add something to them."""
    if c is not None:
        numbers = ctypes.c_long(out[0].size)
        n, add_to = ctypes.c_long(len(paths)), ctypes.c_int16(add)
        _require(c.planes(_names(paths), _longs(offsets), n, numbers, add_to, _data(out)))
        return
    for k, (path, offset) in enumerate(zip(paths, offsets, strict=True)):
        _read(path, offset, out[k])
        out[k] += np.int16(add)


def cross(
    c: ctypes.CDLL | None, paths: Sequence[str], offsets: Sequence[int], shape: Sequence[int], at: int, add: int
) -> tuple[Pixels, Pixels]:
    """Read all numbers of each file through one buffer; keep the row and the column ``at``."""
    n, rows, columns = shape
    coronal, sagittal = np.empty((n, columns), np.int16), np.empty((n, rows), np.int16)
    if c is not None:
        sizes = map(ctypes.c_long, (n, rows, columns, at, at))
        args = (*sizes, ctypes.c_int16(add), _data(coronal), _data(sagittal))
        _require(c.cross(_names(paths), _longs(offsets), *args))
        return coronal, sagittal
    plane = np.empty((rows, columns), np.int16)
    for k, (path, offset) in enumerate(zip(paths, offsets, strict=True)):
        _read(path, offset, plane)
        coronal[k], sagittal[k] = plane[at] + np.int16(add), plane[:, at] + np.int16(add)
    return coronal, sagittal


def _read(path: str, offset: int, plane: Pixels) -> None:
    file = os.open(path, os.O_RDONLY)
    _require(os.preadv(file, [memoryview(plane).cast("B")], offset) - plane.nbytes)
    os.close(file)


def _names(paths: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(paths))(*map(os.fsencode, paths))


def _longs(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_long]:
    return (ctypes.c_long * len(numbers))(*numbers)


def _data(array: Pixels) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _require(bad: int) -> None:
    if bad:
        raise OSError("a file of the bench could not be read whole")
