"""Memory: a series far larger than the limit is reduced and saved below it, measured for the whole process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lazyvol.phantom import write_series

pytestmark = pytest.mark.slow

N, ROWS, COLUMNS = 600, 512, 512
LIMIT = 400
"""MB of resident memory."""
SCRIPT = """
import json, sys, time
import dask
import lazyvol as lv

what, folder, out = sys.argv[1:]


def peak():
    # VmHWM is of this process alone; ru_maxrss also counts what the parent held when it forked
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        import resource
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


with dask.config.set(scheduler="threads", num_workers=2):
    volume = lv.open_volume(folder)
    opened, began = peak(), time.perf_counter()
    result = None
    if what == "mean":
        result = float(volume.mean())
    if what == "save":
        lv.save_zarr(volume, out)
print(json.dumps({"opened": opened / 1e6, "peak": peak() / 1e6, "seconds": time.perf_counter() - began,
                  "result": result}))
"""


def tile(k):
    """Return noise that differs from slice to slice and costs little to make."""
    return np.random.default_rng(k % 7).integers(0, 4096, (64, COLUMNS), dtype="uint16")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A folder of 600 slices of 512 x 512 voxels, 315 MB."""
    folder = tmp_path_factory.mktemp("memory") / "series"
    frames = [np.tile(tile(k), (ROWS // 64, 1)).tobytes() for k in range(7)]

    def put(k, dataset):
        dataset.Rows, dataset.Columns, dataset.PixelData = ROWS, COLUMNS, frames[k % 7]

    write_series(folder, lambda _k: np.zeros((1, 1)), n=N, spacing=(1.0, 0.7, 0.7), overrides=put, bits_stored=12)
    yield folder
    shutil.rmtree(folder)


def measure(what, folder, out):
    command = [sys.executable, "-c", SCRIPT, what, str(folder), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, cwd=out.parent, env=dict(os.environ))
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["mean", "save"])
def test_a_large_series_stays_below_the_limit(series, tmp_path, what, record_property):
    figures = measure(what, series, tmp_path / "out.zarr")
    record_property("memory", figures)
    print(what, {k: v and round(v, 1) for k, v in figures.items()})
    assert figures["peak"] < LIMIT, figures


def test_the_mean_is_that_of_the_tiles(series, tmp_path):
    expected = np.mean([tile(k).mean() for k in range(N)]) - 1024
    assert measure("mean", series, tmp_path / "out.zarr")["result"] == pytest.approx(expected)
