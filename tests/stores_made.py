"""Volumes of every kind that a store has to hold, each of a few kB."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import encoded_made as em
import kinds_made as km
import numpy as np
import series_made as sm
import xarray as xr

import lazyvol as lv
from lazyvol.phantom import write_series

SPACING, ORIGIN = (3.0, 0.9, 0.7), (-30.0, -40.0, 55.0)
SHAPE = (6, 8, 10)
S, C = np.sin(0.3), np.cos(0.3)
DIRECTIONS = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "feet first": ((0, 0, -1), (0, 1, 0), (-1, 0, 0)),
    "prone": ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
    "sagittal": ((-1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "oblique": ((S, 0, C), (0, 1, 0), (C, 0, -S)),
    "tilted": ((0, np.sin(0.2), np.cos(0.2)), (0, 1, 0), (1, 0, 0)),
}
"""Unit vectors of the steps along z, y and x."""
DIRECTIONS["twice oblique"] = tuple(map(tuple, np.array(DIRECTIONS["oblique"]) @ [[C, S, 0], [-S, C, 0], [0, 0, 1]]))
WORDS = {
    "L": "right-to-left",
    "R": "left-to-right",
    "P": "anterior-to-posterior",
    "A": "posterior-to-anterior",
    "S": "inferior-to-superior",
    "I": "superior-to-inferior",
}
"""Which way an axis grows (RFC-4), by the side that it grows towards."""
TIMES = {"AcquisitionTime": [f"1200{s:09.6f}" for s in (0.0, 2.5, 5.0)]}
ECHOES = {"EchoTime": [4.6, 9.2]}
COMPONENTS = {"ImageType": [("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), ("ORIGINAL", "PRIMARY", "PHASE MAP", "P")]}

Make = Callable[[Path], xr.DataArray]


def plain(
    folder: Path,
    shape: tuple[int, ...] = SHAPE,
    *,
    directions: str = "axial",
    gaps: Iterable[float] = (),
    positions: bool = True,
    modality: str = "CT",
    **options: object,
) -> xr.DataArray:
    """Return a volume of random values; its slices lie ``gaps`` apart, or 3 mm, or who knows where."""
    where = np.concatenate([[0], np.cumsum(list(gaps))])

    def put(k, dataset):
        if where.size > 1:
            dataset.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + float(where[k])]
        if not positions:
            del dataset.ImagePositionPatient
        for keyword, value in options.items():
            setattr(dataset, keyword, value)

    values = np.random.default_rng(5).integers(-1000, 3000, shape)
    grid = {"spacing": SPACING, "origin": ORIGIN, "directions": DIRECTIONS[directions]}
    write_series(folder, values, **grid, modality=modality, overrides=put)
    return lv.open_volume(folder)


def many(folder: Path, axes: dict[str, list[object]]) -> xr.DataArray:
    """Return MR images on a grid of axes of DICOM keyword and values."""
    sm.write(folder, sm.grid(axes))
    return lv.open_volume(folder)


def colour(folder: Path, times: int = 1) -> xr.DataArray:
    """Return three slices in colour, at each of some times."""
    folder.mkdir()
    layout = em.Layout(em.EXPLICIT, 8, photometric="RGB")
    for n in range(3 * times):
        said = {
            "SOPInstanceUID": f"1.2.3.4.{n + 1}",
            "InstanceNumber": n + 1,
            "ImagePositionPatient": [0.0, 0.0, 5.0 * (n % 3)],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.8, 0.6],
            "FrameOfReferenceUID": "1.2.9",
            "AcquisitionTime": TIMES["AcquisitionTime"][n // 3],
        }
        stored = np.random.default_rng(n).integers(0, 256, (1, 12, 14, 3)).astype(np.uint8)
        em.write_encoded(folder / f"{n}.dcm", stored, layout, **said)
    return lv.open_volume(folder)


def segmented(folder: Path, kind: str = "BINARY", colours: str = "some") -> xr.DataArray:
    """Return a segmentation of two organs, of which some, all or none have a colour."""
    _, images = km.ct_folder(folder, count=6)
    mask = km.masks([1, 2, 4], [2, 5], count=6)
    rgb = {"all": ((200, 30, 40), (119, 119, 119)), "some": ((200, 30, 40), None), "none": (None, None)}[colours]
    segments = [km.segment(n, name, rgb=c) for n, name, c in zip((1, 2), ("liver", "spleen"), rgb, strict=True)]
    if kind == "LABELMAP":
        mask = np.where(mask[1] > 0, 2, mask[0]).astype(np.uint8)
    path = folder.parent / f"{folder.name}-seg.dcm"
    return lv.open_volume(km.save(path, km.segmentation(images, mask, kind=kind, segments=segments)))


def _of(change: Callable[[xr.DataArray], xr.DataArray], **options: object) -> Make:
    return lambda folder: change(plain(folder, **options))


MADE: dict[str, Make] = {
    "plain": plain,
    "larger": lambda folder: plain(folder, (9, 150, 140)),
    "flipped along z": _of(lambda v: v[::-1]),
    "flipped along y": _of(lambda v: v[:, ::-1]),
    "flipped along x": _of(lambda v: v[:, :, ::-1]),
    "flipped along all": _of(lambda v: v[::-1, ::-1, ::-1]),
    "transposed": _of(lambda v: v.transpose("x", "z", "y")),
    "cropped": _of(lambda v: v[1:4, 2:, 3:7]),
    "strided": _of(lambda v: v[::2, 1::3]),
    "one slice": _of(lambda v: v.isel(z=2)),
    "one slice, flipped": _of(lambda v: v[::-1].isel(z=2)),
    "a slice of length 1": _of(lambda v: v[2:3]),
    "one row": _of(lambda v: v.isel(y=3)),
    "one voxel": _of(lambda v: v.isel(z=1, y=3, x=4)),
    "projection": _of(lambda v: v.max("z", keep_attrs=True)),
    "time": lambda folder: many(folder, TIMES),
    "time backwards": lambda folder: many(folder, TIMES)[::-1],
    "one time": lambda folder: many(folder, TIMES)[1],
    "ranks of time": lambda folder: many(folder, {"TemporalPositionIdentifier": [1, 2, 3]}),
    "echo": lambda folder: many(folder, ECHOES),
    "time and echo": lambda folder: many(folder, TIMES | ECHOES),
    "echo and component": lambda folder: many(folder, ECHOES | COMPONENTS),
    "time, echo and component": lambda folder: many(folder, TIMES | ECHOES | COMPONENTS),
    "colour": colour,
    "colour and time": lambda folder: colour(folder, 2),
    "one sample": lambda folder: colour(folder).isel(sample=1),
    "segments": segmented,
    "fractions": lambda folder: segmented(folder).astype("float32") * 0.5,
    "label map": lambda folder: segmented(folder, "LABELMAP"),
    "label map without colours": lambda folder: segmented(folder, "LABELMAP", "none"),
    "tilted": lambda folder: plain(folder, directions="tilted"),
    "oblique": lambda folder: plain(folder, directions="oblique"),
    "uneven": lambda folder: plain(folder, gaps=(3, 3, 9, 3, 4)),
    "uneven, flipped": lambda folder: plain(folder, gaps=(3, 3, 9, 3, 4))[::-1],
    "without positions": lambda folder: plain(folder, positions=False),
    "bool": _of(lambda v: v > 0),
    "with NaN": _of(lambda v: v.where(v > 0)),
    "all NaN": _of(lambda v: v.where(v > 9999)),
    "infinite": _of(lambda v: v.astype("float32").where(v <= 2000, np.inf)),
    "constant": _of(lambda v: v * 0),
    "uint32": _of(lambda v: (v + 1000).astype("uint32")),
    "float64": _of(lambda v: v * 0.25),
    "int8": _of(lambda v: (v // 32).astype("int8")),
    "in colour as float": lambda folder: colour(folder).astype("float32") / 255,
}
