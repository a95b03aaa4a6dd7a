"""Indexing: from a folder to the order, shape and spacing of its series, by headers alone."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import limits
import numpy as np
from place import Index, Place, Row, Work, check_indexes

__all__ = ["ROWS", "ordered_with_dicomsdl", "ordered_with_pydicom"]

Positions = list[tuple[float, str]]

TAGS = [
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
]


def along_normal(position: Sequence[float], orientation: Sequence[float]) -> float:
    """Return how far a slice lies along the normal of its plane, mm (DICOM PS3.3 C.7.6.2.1.1)."""
    x, y = orientation[:3], orientation[3:]
    normal = (x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0])
    return sum(p * n for p, n in zip(position, normal, strict=True))


def index_of(places: Positions, rows: int, columns: int, pixel_spacing: Sequence[float]) -> Index:
    """Return what is known of a series by the positions of its files."""
    places.sort()
    step = (places[-1][0] - places[0][0]) / max(len(places) - 1, 1)
    names = [os.path.basename(path) for _, path in places]
    return Index(names, (len(places), rows, columns), (step, *pixel_spacing))


def limit(place: Place, folders: list[str]) -> Work:
    loops = place.loops

    def work() -> None:
        for folder in folders:
            with os.scandir(folder) as entries:
                paths = [entry.path for entry in entries]
            limits.heads(loops, paths)

    return work


def lazyvol(_place: Place, folders: list[str]) -> Work:
    import lazyvol as lv

    root = folders[0] if len(folders) == 1 else os.path.dirname(folders[0])

    def work() -> dict[str, Index]:
        found = {}
        for series in lv.group_series(lv.scan_headers(root).instances):
            (stack,) = series.stacks
            assert not stack.findings
            names = [os.path.basename(each.instance.path) for each in stack.slices]
            found[series.uid] = Index(names, stack.shape, tuple(stack.geometry.spacing))
        return found

    return work


def _by_header(folders: list[str], read: Callable[[str], Any]) -> dict[str, Index]:
    """Index with a reader whose datasets give elements as attributes."""
    places: dict[str, Positions] = defaultdict(list)
    last = {}
    for folder in folders:
        for entry in os.scandir(folder):
            header = read(entry.path)
            uid = header.SeriesInstanceUID
            far = along_normal(header.ImagePositionPatient, header.ImageOrientationPatient)
            places[uid].append((far, entry.path))
            last[uid] = (header.Rows, header.Columns, header.PixelSpacing)
    return {uid: index_of(found, *last[uid]) for uid, found in places.items()}


def dicomsdl(_place: Place, folders: list[str]) -> Work:
    import dicomsdl as sdl

    return lambda: _by_header(folders, lambda path: sdl.open_file(path, load_until=0x00281054))


def pydicom(_place: Place, folders: list[str]) -> Work:
    from pydicom import dcmread

    return lambda: _by_header(folders, lambda path: dcmread(path, stop_before_pixels=True, specific_tags=TAGS))


def gdcm(_place: Place, folders: list[str]) -> Work:
    import gdcm as g

    tags = [g.Tag(*t) for t in ((0x20, 0xE), (0x20, 0x32), (0x20, 0x37), (0x28, 0x30), (0x28, 0x10), (0x28, 0x11))]

    def work() -> dict[str, Index]:
        scanner, paths = g.Scanner(), [entry.path for folder in folders for entry in os.scandir(folder)]
        for tag in tags:
            scanner.AddTag(tag)
        assert scanner.Scan(paths)
        places: dict[str, Positions] = defaultdict(list)
        last: dict[str, Any] = {}
        for path in paths:
            uid, position, orientation, spacing, rows, columns = (scanner.GetValue(path, tag) for tag in tags)
            places[uid].append((along_normal(_floats(position), _floats(orientation)), path))
            last[uid] = (int(rows), int(columns), _floats(spacing))
        return {uid.rstrip("\0"): index_of(found, *last[uid]) for uid, found in places.items()}

    return work


def _floats(text: str) -> list[float]:
    return [float(part) for part in text.split("\\")]


def imageio(_place: Place, folders: list[str]) -> Work:
    from imageio.v2 import get_reader

    def work() -> dict[str, Index]:
        found = {}
        for folder in folders:
            with get_reader(folder, "DICOM", mode="V") as reader:
                about = reader.get_meta_data(0)
            found[about["SeriesInstanceUID"]] = Index([], about["shape"], about["sampling"])
        return found

    return work


def simpleitk(_place: Place, folders: list[str]) -> Work:
    import SimpleITK as sitk  # noqa: N813

    def work() -> dict[str, Index]:
        found = {}
        for folder in folders:
            uid = sitk.ImageSeriesReader.GetGDCMSeriesIDs(folder)[0]
            paths = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder, uid)
            first, second = (_information(sitk, path) for path in paths[:2])
            step = float(np.linalg.norm(np.subtract(second.GetOrigin(), first.GetOrigin())))
            columns, rows = first.GetSize()[:2]
            names = [os.path.basename(path) for path in paths]
            found[uid] = Index(names, (len(names), rows, columns), (step, *first.GetSpacing()[1::-1]))
        return found

    return work


def _information(sitk: Any, path: str) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return reader


def highdicom(_place: Place, folders: list[str]) -> Work:
    from highdicom.spatial import get_series_volume_positions
    from pydicom import dcmread

    def work() -> dict[str, Index]:
        found = {}
        for folder in folders:
            headers = [dcmread(entry.path, stop_before_pixels=True) for entry in os.scandir(folder)]
            step, places = get_series_volume_positions(headers)
            names = [""] * len(headers)  # highdicom counts from the greatest z
            for header, k in zip(headers, places or (), strict=True):
                names[len(headers) - 1 - k] = os.path.basename(header.filename)
            first = headers[0]
            shape = (len(headers), first.Rows, first.Columns)
            found[first.SeriesInstanceUID] = Index(names, shape, (step or 0.0, *first.PixelSpacing))
        return found

    return work


def ordered_with_pydicom(folder: str) -> list[str]:
    """Return the files of a series from the lowest z on, as recipes sort them."""
    from pydicom import dcmread

    (found,) = _by_header([folder], lambda p: dcmread(p, stop_before_pixels=True, specific_tags=TAGS)).values()
    return [f"{folder}/{name}" for name in found.names]


def ordered_with_dicomsdl(folder: str) -> list[str]:
    """Return the files of a series from the lowest z on."""
    import dicomsdl as sdl

    (found,) = _by_header([folder], lambda p: sdl.open_file(p, load_until=0x00281054)).values()
    return [f"{folder}/{name}" for name in found.names]


def _check(answer: Any, place: Place, what: str) -> str:
    return "ok" if answer is None else check_indexes(answer, place.truth[what])


def _of(make: Callable[[Place, list[str]], Work], what: str) -> Callable[[Place], Work]:
    return lambda place: make(place, [place.series] if what == "series" else place.collection)


def _works(what: str, makers: Iterable[tuple[str, Callable[[Place, list[str]], Work]]]) -> dict[str, Any]:
    return {name: _of(make, what) for name, make in makers}


MAKERS = {
    "limit": limit,
    "lazyvol": lazyvol,
    "dicomsdl": dicomsdl,
    "GDCM scanner": gdcm,
    "imageio": imageio,
    "pydicom": pydicom,
    "SimpleITK": simpleitk,
    "highdicom": highdicom,
}
LIMIT = f"scandir, and open, pread of 8 KiB and close of each file in {limits.LANGUAGE}; nothing is parsed"
ROWS = {
    "index": Row(
        "index one series",
        LIMIT,
        lambda answer, place: _check(answer, place, "series"),
        _works("series", MAKERS.items()),
        {"lazyvol": 8},
    ),
    "collection": Row(
        "index a collection",
        LIMIT,
        lambda answer, place: _check(answer, place, "collection"),
        _works("collection", ((name, make) for name, make in MAKERS.items() if name != "highdicom")),
        {"lazyvol": 7},
        heavy=("pydicom", "SimpleITK", "GDCM scanner", "imageio"),
    ),
}
