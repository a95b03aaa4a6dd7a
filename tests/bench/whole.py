"""All voxels: the whole volume in HU, and the mean of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import limits
import numpy as np
from indexing import ordered_with_pydicom
from place import Place, Row, Work, checksum
from recipes import dask_stack, dicomsdl_volume, highdicom_volume, imageio_volume, itk_volume, pydicom_values

__all__ = ["ROWS", "check_volume"]


def limit_volume(place: Place) -> Work:
    loops, paths, offsets, shape = place.loops, place.ordered, place.known["offsets"], place.known["shape"]

    def work() -> Any:
        out = np.empty(shape, np.int16)
        limits.planes(loops, paths, offsets, -1024, out)
        return out

    return work


def lazyvol_volume(chunks: Any) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        import lazyvol as lv

        return lambda: lv.open_volume(place.series, chunks=chunks).values

    return make


def lazyvol_loaded(place: Place) -> Work:
    import lazyvol as lv

    return lambda: lv.open_volume(place.series).vol.load().values


def pydicom_volume(place: Place) -> Work:
    from pydicom import dcmread

    def work() -> Any:
        paths = ordered_with_pydicom(place.series)
        header = dcmread(paths[0], stop_before_pixels=True)
        out = np.empty((len(paths), header.Rows, header.Columns), np.int16)
        for k, path in enumerate(paths):
            file = dcmread(path)
            out[k] = file.pixel_array
            out[k] += np.int16(file.RescaleIntercept)
        return out

    return work


def dask_volume(place: Place) -> Work:
    import dask.array  # noqa: F401

    return lambda: dask_stack(place.series).compute()


def _of(volume: Callable[[str], Any], needs: str, then: Callable[[Any], Any] = lambda v: v) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        __import__(needs)
        return lambda: then(volume(place.series))

    return make


def limit_mean(place: Place) -> Work:
    paths, offsets, shape = place.ordered, place.known["offsets"], place.known["shape"]

    def work() -> float:
        plane, total = np.empty(shape[1:], np.int16), 0
        buffer = memoryview(plane).cast("B")
        for path, offset in zip(paths, offsets, strict=True):
            file = os.open(path, os.O_RDONLY)
            assert os.preadv(file, [buffer], offset) == plane.nbytes
            os.close(file)
            total += int(plane.sum(dtype=np.int64))
        return total / (len(paths) * plane.size) - 1024

    return work


def lazyvol_mean(place: Place) -> Work:
    import lazyvol as lv

    return lambda: float(lv.open_volume(place.series).mean())


def pydicom_mean(place: Place) -> Work:
    import pydicom  # noqa: F401

    def work() -> float:
        total, count = 0, 0
        for entry in os.scandir(place.series):
            values = pydicom_values(entry.path)
            total, count = total + int(values.sum(dtype=np.int64)), count + values.size
        return total / count

    return work


def dask_mean(place: Place) -> Work:
    import dask.array  # noqa: F401

    return lambda: float(dask_stack(place.series).mean().compute())


def check_volume(answer: Any, place: Place) -> str:
    """Hold a volume against the checksums of its slices."""
    if list(answer.shape) != place.known["shape"]:
        return f"WRONG shape {answer.shape}"
    found = [checksum(plane) for plane in answer]
    if found == place.known["slices"]:
        return "ok" if answer.dtype == np.int16 else f"ok, {answer.dtype}"
    return "WRONG: z reversed" if found[::-1] == place.known["slices"] else "WRONG values"


def check_mean(answer: float, place: Place) -> str:
    known = place.known["sum"] / np.prod(place.known["shape"])
    return "ok" if abs(answer - known) <= 1e-6 * abs(known) else f"WRONG: {answer:.6f}, not {known:.6f}"


ROWS = {
    "volume": Row(
        "whole volume in HU",
        f"order known: open, pread into one new int16 array and addition in {limits.LANGUAGE}, one thread",
        check_volume,
        {
            "limit": limit_volume,
            "lazyvol": lazyvol_volume("auto"),
            "lazyvol, vol.load()": lazyvol_loaded,
            "lazyvol without dask": lazyvol_volume(None),
            "imageio": _of(imageio_volume, "imageio.v2"),
            "dicomsdl": _of(dicomsdl_volume, "dicomsdl"),
            "pydicom": pydicom_volume,
            "SimpleITK": _of(itk_volume, "SimpleITK"),
            "dask recipe": dask_volume,
            "highdicom": _of(highdicom_volume, "highdicom"),
        },
        {"lazyvol": 3.5, "lazyvol, vol.load()": 3.5, "lazyvol without dask": 2},
        heavy=("highdicom", "dask recipe", "SimpleITK"),
    ),
    "mean": Row(
        "mean over the volume",
        "every file's pixels through one buffer, summed by NumPy, one thread, a loop in Python",
        check_mean,
        {
            "limit": limit_mean,
            "lazyvol": lazyvol_mean,
            "imageio": _of(imageio_volume, "imageio.v2", lambda v: float(v.mean())),
            "pydicom": pydicom_mean,
            "SimpleITK": _of(itk_volume, "SimpleITK", lambda v: float(v.mean())),
            "dask recipe": dask_mean,
        },
        {"lazyvol": 3},
        {"lazyvol": 120},
        heavy=("dask recipe", "SimpleITK"),
    ),
}
