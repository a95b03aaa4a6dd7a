"""Decoding a compressed series on two threads, beside the bare codec on one.

Run by ``nox -s bench``, or alone: ``python tests/bench/decoding.py``. It makes 300 slices of 512 x 512 in
JPEG-LS and in JPEG 2000 and decodes them in turns: with lazyvol on two threads, as blocks (``persist``) and as
one array (``values``, for which dask copies the blocks together on one thread), and with imagecodecs in a loop on
one thread over streams that are in memory already. It prints ratios of the times, which cannot be below 0.5.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask
import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

import lazyvol as lv
from lazyvol.phantom import write_series

Work = Callable[[], object]

CODECS = {
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
    "JPEG 2000": (
        JPEG2000Lossless,
        partial(imagecodecs.jpeg2k_encode, level=0, reversible=True, codecformat="j2k"),
        imagecodecs.jpeg2k_decode,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.slices} slices of 512 x 512, {options.rounds} rounds, lazyvol on 2 threads / codec on 1")
    for name in CODECS:
        with tempfile.TemporaryDirectory() as folder:
            works = _works(name, Path(folder), options.slices)
            times = _in_turn(works, options.rounds)
        for what in ("blocks", "one array"):
            median, least = (f(times[what]) / f(times["codec"]) for f in (statistics.median, min))
            codec = min(times["codec"])
            print(f"{name:9s} {what:9s} {median:.2f} by medians, {least:.2f} minimum over minimum, codec {codec:.1f} s")


def _works(name: str, folder: Path, count: int) -> dict[str, Work]:
    """Write the series; return what decodes it with lazyvol and with the bare codec, checked against each other."""
    syntax, encode, decode = CODECS[name]
    streams: dict[int, bytes] = {}

    def put(k: int, dataset: Dataset) -> None:
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
        streams[k] = encode(stored)
        dataset.PixelData = encapsulate([streams[k]])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax

    write_series(folder, _slice, n=count, spacing=(2.5, 0.7, 0.7), overrides=put)
    volume = lv.open_volume(folder)
    ordered = [streams[k] for k in sorted(streams)]

    def threads(decode_all: Callable[[], object]) -> object:
        with dask.config.set(scheduler="threads", num_workers=2):
            return decode_all()

    def theirs() -> np.ndarray:
        found = np.empty(volume.shape, "int16")
        for k, stream in enumerate(ordered):
            found[k] = decode(stream)
            found[k] -= 1024
        return found

    first, last = volume.isel(z=[0, -1]).values, np.stack([decode(ordered[k]).astype("int16") - 1024 for k in (0, -1)])
    assert np.array_equal(first, last), name
    return {
        "blocks": lambda: threads(volume.persist),
        "one array": lambda: threads(lambda: volume.values),
        "codec": theirs,
    }


def _slice(k: int) -> np.ndarray:
    """Return a smooth body with noise, as a scanner sees it, in HU."""
    y, x = np.mgrid[:512, :512]
    noise = np.random.default_rng(k % 8).normal(0, 12, (512, 512))
    return (400 * np.sin(y / 40 + k / 20) * np.cos(x / 30) + noise).astype("int16")


def _in_turn(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Return the times of each, taken in turns, s."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
