"""One frame of a large enhanced multi-frame file, opened before where a reader can keep it open."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from place import Place, Row, Work, truth_of

__all__ = ["ROWS"]


def number_of_frame(place: Place) -> int:
    """Return which frame of the file shows the middle slice, from 0; highdicom writes the greatest z first."""
    return int(place.known["shape"][0]) - 1 - place.middle


def limit(place: Place) -> Work:
    n, rows, columns = place.known["shape"]
    plane = 2 * rows * columns
    offset = os.path.getsize(place.enhanced) - (n - number_of_frame(place)) * plane
    return lambda: (
        np.fromfile(place.enhanced, "<i2", plane // 2, offset=offset).reshape(rows, columns) + np.int16(-1024)
    )


def lazyvol(chunks: Any) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        import lazyvol as lv

        ct = lv.open_volume(place.enhanced, chunks=chunks)
        return lambda: ct.isel(z=place.middle).values

    return make


def pydicom(place: Place) -> Work:
    from pydicom.pixels import pixel_array

    number = number_of_frame(place)
    return lambda: pixel_array(place.enhanced, index=number) + np.int16(-1024)


def highdicom(place: Place) -> Work:
    from highdicom import imread

    image, number = imread(place.enhanced, lazy_frame_retrieval=True), number_of_frame(place) + 1
    return lambda: image.get_frame(number)


def simpleitk(place: Place) -> Work:
    import SimpleITK as sitk  # noqa: N813

    number = number_of_frame(place)

    def work() -> Any:
        reader = sitk.ImageFileReader()
        reader.SetFileName(place.enhanced)
        reader.ReadImageInformation()
        columns, rows, _ = reader.GetSize()
        reader.SetExtractIndex((0, 0, number))
        reader.SetExtractSize((columns, rows, 0))
        return sitk.GetArrayFromImage(reader.Execute())

    return work


def imageio(place: Place) -> Work:
    from imageio import v3

    number = number_of_frame(place)
    return lambda: v3.imread(place.enhanced)[number]


ROWS = {
    "frame": Row(
        "one frame of an enhanced multi-frame file",
        "offset known: numpy.fromfile and addition of the intercept",
        truth_of("axial"),
        {
            "limit": limit,
            "lazyvol": lazyvol("auto"),
            "lazyvol without dask": lazyvol(None),
            "pydicom": pydicom,
            "highdicom": highdicom,
            "imageio": imageio,
            "SimpleITK": simpleitk,
        },
        {"lazyvol without dask": 4},
        heavy=("SimpleITK", "imageio"),
    ),
}
