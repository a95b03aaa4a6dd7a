"""First pictures: open a folder and see one axial slice, or one coronal and one sagittal."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import limits
import numpy as np
from indexing import ordered_with_dicomsdl, ordered_with_pydicom
from place import Place, Row, Work, checksum, truth_of
from recipes import dask_stack, imageio_volume, itk_volume, pydicom_values

__all__ = ["ROWS"]


def limit_axial(place: Place) -> Work:
    loops, name, offset = place.loops, place.ordered[place.middle], place.known["offsets"][place.middle]
    folder, shape = place.series, place.known["shape"][1:]

    def work() -> Any:
        with os.scandir(folder) as entries:
            paths = [entry.path for entry in entries]
        limits.heads(loops, paths)
        out = np.empty((1, *shape), np.int16)
        limits.planes(loops, [name], [offset], -1024, out)
        return out[0]

    return work


def lazyvol_axial(chunks: Any) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        import lazyvol as lv

        return lambda: lv.open_volume(place.series, chunks=chunks).isel(z=place.middle).values

    return make


def dicomsdl_axial(place: Place) -> Work:
    import dicomsdl as sdl

    def work() -> Any:
        path = ordered_with_dicomsdl(place.series)[place.middle]
        return sdl.open(path).pixelData()

    return work


def pydicom_axial(place: Place) -> Work:
    return lambda: pydicom_values(ordered_with_pydicom(place.series)[place.middle])


def simpleitk_axial(place: Place) -> Work:
    import SimpleITK as sitk  # noqa: N813

    def work() -> Any:
        paths = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(place.series)
        return sitk.GetArrayFromImage(sitk.ReadImage(paths[place.middle]))[0]

    return work


def imageio_axial(place: Place) -> Work:
    from imageio import v2  # noqa: F401

    return lambda: imageio_volume(place.series)[place.middle]


def dask_axial(place: Place) -> Work:
    import dask.array  # noqa: F401

    def work() -> Any:
        return dask_stack(place.series)[place.middle].compute()

    return work


def highdicom_axial(place: Place) -> Work:
    from highdicom.image import get_volume_from_series  # noqa: F401
    from recipes import highdicom_volume

    return lambda: highdicom_volume(place.series)[place.middle]


def limit_cross(place: Place) -> Work:
    loops, paths, offsets, shape = place.loops, place.ordered, place.known["offsets"], place.known["shape"]
    return lambda: limits.cross(loops, paths, offsets, shape, place.centre, -1024)


def lazyvol_cross(chunks: Any) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        import lazyvol as lv

        def work() -> Any:
            ct = lv.open_volume(place.series, chunks=chunks)
            return ct.isel(y=place.centre).values, ct.isel(x=place.centre).values

        return work

    return make


def lazyvol_cross_at_once(place: Place) -> Work:
    """Compute both in one graph, in which dask shares the blocks and so reads them whole."""
    import dask

    import lazyvol as lv

    def work() -> Any:
        ct = lv.open_volume(place.series)
        return dask.compute(ct.isel(y=place.centre), ct.isel(x=place.centre))

    return work


def dask_cross(place: Place) -> Work:
    import dask

    def work() -> Any:
        ct = dask_stack(place.series)
        return dask.compute(ct[:, place.centre], ct[:, :, place.centre])

    return work


def _cross_of(volume: Callable[[str], Any], needs: str) -> Callable[[Place], Work]:
    """Return the work of a reader that reads the whole volume for it."""

    def make(place: Place) -> Work:
        __import__(needs)

        def work() -> Any:
            ct = volume(place.series)
            return ct[:, place.centre], ct[:, :, place.centre]

        return work

    return make


def pydicom_stack(folder: str) -> Any:
    return np.stack([pydicom_values(path) for path in ordered_with_pydicom(folder)])


def check_cross(answer: Any, place: Place) -> str:
    known = [place.known["coronal"], place.known["sagittal"]]
    if [checksum(part) for part in answer] == known:
        return "ok"
    return "WRONG: z reversed" if [checksum(part[::-1]) for part in answer] == known else "WRONG values"


ROWS = {
    "slice": Row(
        "open and first axial slice",
        f"the header loop of the index over all files in {limits.LANGUAGE}, then open, pread and addition of one slice",
        truth_of("axial"),
        {
            "limit": limit_axial,
            "lazyvol": lazyvol_axial("auto"),
            "lazyvol without dask": lazyvol_axial(None),
            "dicomsdl": dicomsdl_axial,
            "pydicom": pydicom_axial,
            "SimpleITK": simpleitk_axial,
            "imageio": imageio_axial,
            "dask recipe": dask_axial,
            "highdicom": highdicom_axial,
        },
        {"lazyvol": 20, "lazyvol without dask": 12},
        heavy=("highdicom",),
    ),
    "cross": Row(
        "open, one coronal and one sagittal slice",
        f"order known: all pixels through one buffer in {limits.LANGUAGE}, one row and one column of each kept",
        check_cross,
        {
            "limit": limit_cross,
            "lazyvol": lazyvol_cross("auto"),
            "lazyvol, dask.compute of both": lazyvol_cross_at_once,
            "lazyvol without dask": lazyvol_cross(None),
            "imageio": _cross_of(imageio_volume, "imageio.v2"),
            "SimpleITK": _cross_of(itk_volume, "SimpleITK"),
            "pydicom": _cross_of(pydicom_stack, "pydicom"),
            "dask recipe": dask_cross,
        },
        {"lazyvol": 4, "lazyvol, dask.compute of both": 4, "lazyvol without dask": 4},
        heavy=("pydicom", "dask recipe", "SimpleITK"),
    ),
}
