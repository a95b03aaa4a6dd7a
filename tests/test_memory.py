"""Memory: a series far larger than the limit is reduced and saved below it, measured for the whole process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import lazyvol as lv
from lazyvol import memory
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


# Beside numpy's own memory
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted from /proc, which only Linux has")
def test_large_arrays_go_back_to_the_system_at_once():
    size = 64 * 2**20

    def held():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    array = memory.empty((size // 2,), "int16")
    array[:] = 1
    full = held()
    del array
    assert full - held() >= 0.95 * size


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">i2", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (5, 1024, 1024)], ids=str)
def test_memory_is_writable_and_of_the_type_and_shape_that_were_asked_for(dtype, shape):
    array = memory.empty(shape, dtype)
    array[...] = 1
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.all()


@pytest.mark.parametrize(("count", "times"), [(4095, 0), (4096, 1)])
def test_garbage_is_searched_only_where_there_were_many_records(monkeypatch, count, times):
    searched = []
    monkeypatch.setattr(memory.gc, "collect", lambda: searched.append(1))
    memory.give_back_records(count)
    assert len(searched) == times


# A limit of the operating system
LIMITED = """
import resource, sys
import dask, dask.array as da, numpy as np, xarray as xr
import lazyvol as lv
from lazyvol.convention import geometry_coordinates
from lazyvol.geometry import ZYX, Geometry

limit, slices, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def block(block_info):
    where = block_info[None]["array-location"][0]
    return np.broadcast_to(np.arange(*where, dtype="int16")[:, None, None], block_info[None]["chunk-shape"]).copy()


shape = (slices, 512, 512)
data = da.map_blocks(block, chunks=((32,) * (slices // 32), (512,), (512,)), dtype="int16", meta=np.empty(0, "int16"))
grid = Geometry(shape, ZYX(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), frame_of_reference="1.2")
volume = xr.DataArray(data, dims=("z", "y", "x"), coords=geometry_coordinates(grid, None), name="image")
with dask.config.set(scheduler="threads", num_workers=2):
    lv.save_zarr(volume, out, levels=5)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA covers what numpy takes on Linux alone")
def test_a_volume_ten_times_the_memory_allowed_is_saved_with_its_levels(tmp_path):
    limit, out = 640 * 10**6, tmp_path / "out.zarr"
    slices = -(-10 * limit // (2 * 512 * 512 * 32)) * 32
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-c", LIMITED, str(limit), str(slices), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for level in range(5):
        saved = lv.open_zarr(out, level=level)
        assert saved.shape == (slices >> level, 512 >> level, 512 >> level)
        middle = saved.isel(y=9, x=9).values
        np.testing.assert_array_equal(middle, [np.floor(k * 2**level + 2 ** (level - 1)) for k in range(len(middle))])
