"""lazyvol beside the usual pydicom loop on the same files, in turn, as ratios of medians.

Run by ``nox -s bench``. Prints a line for each piece of work; a ratio below 1 means that
lazyvol takes less time. Every answer is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

import lazyvol as lv
from lazyvol.phantom import write_series

Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        noise = np.random.default_rng(0).integers(-1000, 2000, (8, 512, 512), dtype="int16")
        write_series(folder, lambda k: noise[k % 8], n=options.slices, spacing=(2.5, 0.7, 0.7))
        print(f"{options.slices} slices of 512 x 512, median of {options.rounds} rounds, lazyvol / pydicom loop")
        for name, (ours, theirs) in _pieces(folder).items():
            assert np.array_equal(np.asarray(ours()), np.asarray(theirs())), name
            print(f"{name:20s} {_ratio(ours, theirs, options.rounds):6.2f}")


def _pieces(folder: Path) -> dict[str, tuple[Work, Work]]:
    return {
        "open and shape": (lambda: lv.open_volume(folder).shape, lambda: _sorted(folder, stop=True)[1]),
        "open and one slice": (lambda: lv.open_volume(folder)[7].values, lambda: _one_slice(folder, 7)),
        "open and mean": (lambda: float(lv.open_volume(folder).mean()), lambda: float(_stack(folder).mean())),
        "whole volume": (lambda: lv.open_volume(folder).values, lambda: _stack(folder)),
    }


def _sorted(folder: Path, *, stop: bool) -> tuple[list[pydicom.Dataset], tuple[int, int, int]]:
    files = [pydicom.dcmread(path, stop_before_pixels=stop) for path in folder.iterdir()]
    files.sort(key=lambda f: f.ImagePositionPatient[2])
    return files, (len(files), files[0].Rows, files[0].Columns)


def _values(file: pydicom.Dataset) -> np.ndarray:
    return (file.pixel_array.astype("int32") * int(file.RescaleSlope) + int(file.RescaleIntercept)).astype("int16")


def _one_slice(folder: Path, k: int) -> np.ndarray:
    header = _sorted(folder, stop=True)[0][k]
    return _values(pydicom.dcmread(header.filename))


def _stack(folder: Path) -> np.ndarray:
    return np.stack([_values(file) for file in _sorted(folder, stop=False)[0]])


def _ratio(ours: Work, theirs: Work, rounds: int) -> float:
    ratios = []
    for _ in range(rounds):
        seconds = []
        for work in (ours, theirs):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
