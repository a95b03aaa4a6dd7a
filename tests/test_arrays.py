"""The values of a volume: the same on every road, read once, in one piece of memory, by as many threads as asked."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import dask
import dask.array as da
import enhanced_made as em
import numpy as np
import pytest
import series_made as made
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from made import examples
from xarray.core.indexing import BasicIndexer

import lazyvol as lv
from lazyvol import arrays
from lazyvol.errors import LazyvolWarning, PixelRangeError, PixelReadError
from lazyvol.phantom import write_series
from lazyvol.records import PixelFormat
from lazyvol.rescale import Scale
from lazyvol.sources import FrameSource, FrameSources, FrameTable

N, ROWS, COLUMNS = 12, 40, 50
FRAME = ROWS * COLUMNS * 2
KINDS = {
    "12 bits": {"bits_stored": 12, "signed": False},
    "16 bits, signed": {"bits_stored": 16, "signed": True},
    "fractions": {"bits_stored": 16, "signed": False, "slope": 0.5},
}
ROADS = {
    "dask": lambda folder, **options: lv.open_volume(folder, chunks={"z": 5}, **options).values,
    "one array through dask": lambda folder, **options: lv.open_volume(folder, chunks={"z": 5}, **options).vol.load(),
    "one thread": lambda folder, **options: in_thread(lv.open_volume(folder, chunks=None, **options).compute),
    "threads": lambda folder, **options: lv.open_volume(folder, chunks=None, **options).values,
    "one array": lambda folder, **options: lv.open_volume(folder, chunks=None, **options).vol.load(),
    "processes": lambda folder, **options: by("processes", lv.open_volume(folder, **options).vol.load),
    "slice by slice": lambda folder, **options: np.stack([*lv.open_volume(folder, chunks=None, **options)]),
}


def in_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def by(scheduler, work):
    with dask.config.set(scheduler=scheduler, num_workers=1):
        return work()


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory):
    """A series and its values."""
    values = np.random.default_rng(5).integers(-1024, 3000, (N, ROWS, COLUMNS))
    folder = tmp_path_factory.mktemp("series") / "dicom"
    write_series(folder, values, spacing=(2.0, 1.0, 1.0), **KINDS[request.param])
    return folder, values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A series of twelve slices of 4000 bytes."""
    folder = tmp_path_factory.mktemp("plain") / "dicom"
    values = np.random.default_rng(6).integers(-1024, 3000, (N, ROWS, COLUMNS))
    write_series(folder, values, spacing=(2.0, 1.0, 1.0), bits_stored=12)
    return folder


@pytest.fixture
def four_threads(monkeypatch):
    """Threads are used for volumes of more than two frames; return who reads which frames."""
    monkeypatch.setattr(arrays, "CPU_COUNT", 4)
    monkeypatch.setattr(arrays, "_PART_BYTES", 2 * FRAME)
    who, read = [], arrays.read_frames

    def noting(table, frames, *rest, **options):
        who.append((threading.current_thread(), [*map(int, frames)]))
        return read(table, frames, *rest, **options)

    monkeypatch.setattr(arrays, "read_frames", noting)
    return who


@pytest.mark.parametrize("road", ROADS)
def test_values_are_those_written_on_every_road(written, road, four_threads):
    folder, values = written
    np.testing.assert_array_equal(ROADS[road](folder), values)


@pytest.mark.parametrize("cut", [{}, {"x": 3}, {"y": 3}, {"x": [7, 1, 1]}], ids=str)
@pytest.mark.parametrize("road", ["dask", "threads"])
def test_files_of_other_layouts_may_follow_each_other(tmp_path, road, cut):
    layouts = [(12, 0, "<u2"), (16, 1, "<i2"), (8, 0, "u1"), (12, 1, "<i2")]
    values = np.random.default_rng(8).integers(0, 120, (8, ROWS, COLUMNS))

    def put(k, dataset):
        bits, signed, dtype = layouts[k % 4]
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = np.dtype(dtype).itemsize * 8, bits, bits - 1
        dataset.PixelRepresentation, dataset.RescaleIntercept = signed, 100 * (k % 4)
        dataset.PixelData = (values[k] - 50 * signed).astype(dtype).tobytes()

    write_series(tmp_path, np.zeros((8, ROWS, COLUMNS)), spacing=(2.0, 1.0, 1.0), overrides=put)
    volume = lv.open_volume(tmp_path, chunks=None if road == "threads" else "auto")
    signs = np.array([signed for _, signed, _ in layouts * 2])
    expected = values - 50 * signs[:, None, None] + 100 * (np.arange(8) % 4)[:, None, None]
    np.testing.assert_array_equal(volume.isel(cut), xr.DataArray(expected, dims=("z", "y", "x")).isel(cut))


def test_threads_read_each_frame_once(folder, four_threads):
    lv.open_volume(folder, chunks=None).load()
    assert sorted(n for _, frames in four_threads for n in frames) == [*range(N)]
    assert threading.main_thread() not in {thread for thread, _ in four_threads}
    assert len(four_threads) == N // 2


def test_a_slice_is_read_without_threads(folder, four_threads):
    lv.open_volume(folder, chunks=None).isel(z=3).load()
    assert [thread for thread, _ in four_threads] == [threading.main_thread()]


def test_absent_images_are_no_work(folder, four_threads):
    absent = arrays.VolumeArray(
        FrameTable("", FrameSources(()), "int16", -7.0), np.full(9, -1, "int32"), (9, 400, 500), "token"
    )
    np.testing.assert_array_equal(absent[BasicIndexer((slice(None),) * 3)], np.full((9, 400, 500), -7))
    assert len(four_threads) == 1


def test_a_row_of_each_frame_is_read_without_threads(folder, four_threads):
    lv.open_volume(folder, chunks=None).isel(y=3).load()
    assert [thread for thread, _ in four_threads] == [threading.main_thread()]


def test_a_thread_of_others_starts_no_more(folder, four_threads):
    volume = lv.open_volume(folder, chunks=None)
    name = in_thread(lambda: (volume.load(), threading.current_thread())[1])
    assert [thread for thread, _ in four_threads] == [name]


def test_a_process_of_others_starts_none(folder, four_threads, monkeypatch):
    monkeypatch.setattr(arrays.multiprocessing, "parent_process", lambda: "not None in a child")
    lv.open_volume(folder, chunks=None).load()
    assert len(four_threads) == 1


def test_a_task_of_dask_starts_no_threads(folder, four_threads):
    by("threads", lv.open_volume(folder, chunks={"z": -1}).compute)
    assert len(four_threads) == 1


def test_no_thread_stays(folder, four_threads):
    lv.open_volume(folder, chunks=None).load()
    assert not [t for t in threading.enumerate() if t.name.startswith("lazyvol")]


def test_an_error_in_a_thread_names_its_file_and_ends_the_others(tmp_path, four_threads, monkeypatch):
    paths = write_series(tmp_path, np.zeros((40, 4, 5)), spacing=(3.0, 0.9, 0.7))
    volume = lv.open_volume(tmp_path, chunks=None)
    read = arrays.read_frames
    monkeypatch.setattr(arrays, "_PART_BYTES", 1)
    monkeypatch.setattr(
        arrays, "read_frames", lambda t, f, *rest, **out: time.sleep(0.02 * f[0]) or read(t, f, *rest, **out)
    )
    paths[0].unlink()
    with pytest.raises(PixelReadError, match=rf"{paths[0].name} cannot be read: No such file"):
        volume.load()
    assert len(four_threads) < 40
    assert not [t for t in threading.enumerate() if t.name.startswith("lazyvol")]


def test_a_value_that_does_not_fit_is_named_on_every_road(tmp_path, four_threads):
    values = np.zeros((N, ROWS, COLUMNS), int)
    values[7, 3, 4] = 32768
    paths = write_series(tmp_path, values, spacing=(3.0, 0.9, 0.7), bits_stored=16, signed=False)
    for road in ("dask", "threads", "one array through dask"):
        with pytest.raises(
            PixelRangeError, match=rf"frame 1 of .*{paths[7].name} holds the value 32768, outside int16"
        ):
            ROADS[road](tmp_path)


def test_unreadable_frames_are_filled_by_threads(tmp_path, four_threads):
    paths = write_series(tmp_path, np.ones((N, ROWS, COLUMNS)), spacing=(3.0, 0.9, 0.7))
    volume = lv.open_volume(tmp_path, chunks=None, on_error="fill", fill_value=-7)
    paths[4].unlink()
    with pytest.warns(LazyvolWarning, match=rf"{paths[4].name} cannot be read"):
        values = volume.values
    assert [int(plane[0, 0]) for plane in values] == [1] * 4 + [-7] + [1] * 7


def test_threads_may_read_one_volume_at_once(folder):
    volume = lv.open_volume(folder, chunks=None)
    expected = volume.values
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: volume.isel(x=k % COLUMNS).values, range(100)))
    for k, cut in enumerate(found):
        np.testing.assert_array_equal(cut, expected[..., k % COLUMNS])


# Memory


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A series of 40 slices of 128 KiB, on files of 12 bits."""
    folder = tmp_path_factory.mktemp("large") / "dicom"
    write_series(folder, lambda k: np.full((256, 256), k), n=40, spacing=(2.0, 1.0, 1.0), bits_stored=12)
    return folder


@pytest.mark.parametrize("chunks", [None, {"z": 4}], ids=["without dask", "dask"])
def test_one_array_takes_no_second_copy(large, chunks):
    volume = lv.open_volume(large, chunks=chunks)
    with dask.config.set(scheduler="sync"):
        volume.isel(z=0).compute()
        assert peak_of(volume.vol.load) < 1.25 * volume.nbytes


def test_a_sagittal_cut_goes_through_one_buffer(large):
    volume = lv.open_volume(large, chunks=None)
    volume.isel(z=0).compute()
    assert peak_of(lambda: volume.isel(x=7).values) < 2 * 256 * 256 * 2


def test_a_loaded_volume_leaves_the_other_lazy(large):
    volume = lv.open_volume(large)
    xr.testing.assert_identical(volume.vol.load(), volume.compute())
    assert isinstance(volume.data, da.Array)


def test_what_was_computed_from_a_volume_loads_too(large):
    volume = lv.open_volume(large, chunks={"z": 7})
    xr.testing.assert_identical((volume * 2)[::3, 4:9].vol.load(), (volume * 2)[::3, 4:9].compute())


# What is sent


def graph_of(volume):
    """Pickled length of each task, with the table apart."""
    (optimized,) = dask.optimize(volume.data)
    lengths = {key: len(cloudpickle.dumps(task)) for key, task in dict(optimized.__dask_graph__()).items()}
    (table,) = [key for key in lengths if str(key).startswith("original-")]
    return lengths.pop(table), sorted(lengths.values())


@pytest.mark.parametrize("ask", [lambda v: v, lambda v: v.mean(), lambda v: v.isel(x=3)], ids=["all", "mean", "cut"])
def test_tasks_do_not_grow_with_the_slices(tmp_path, ask):
    tasks = []
    for n in (8, 200):
        write_series(tmp_path / str(n), np.zeros((n, 4, 5)), spacing=(2.0, 1.0, 1.0))
        tasks.append(graph_of(ask(lv.open_volume(tmp_path / str(n), chunks={"z": n // 4})))[1])
    few, many = tasks
    assert len(few) == len(many)
    assert max(b - a for a, b in zip(few, many, strict=True)) <= 16  # the numbers in slices have more digits


def test_the_table_of_a_series_is_sent_in_a_few_bytes_for_each_slice(tmp_path):
    lengths = []
    for n in (100, 200):
        write_series(tmp_path / str(n), np.zeros((n, 4, 5)), spacing=(2.0, 1.0, 1.0))
        lengths.append(graph_of(lv.open_volume(tmp_path / str(n), chunks={"z": 50}))[0])
    assert (lengths[1] - lengths[0]) / 100 < 36


PIXELS = [PixelFormat(4, 5, 1, "MONOCHROME2", 16, bits, bits - 1, 0, "1.2.840.10008.1.2.1") for bits in (12, 16)]
SOURCES = st.builds(
    FrameSource,
    st.sampled_from(["a", "b", "c d", "ü"]),
    st.integers(0, 3),
    st.just(4),
    st.none() | st.integers(0, 2**40),
    st.none() | st.integers(0, 2**40),
    st.sampled_from(PIXELS),
    st.sampled_from([Scale(), Scale(2.0, -1024.0), Scale(padding=(0, 3))]),
    st.none() | st.binary(max_size=3),
)


@examples(200)
@given(st.lists(SOURCES, max_size=9), st.sampled_from([float("inf"), 0.0, -7.0]))
def test_a_table_comes_back_from_its_pickle(sources, fill):
    table = FrameTable("/root", FrameSources(sources), "int16", fill, 3, True)
    assert pickle.loads(pickle.dumps(table)) == table
    assert list(table.sources) == sources
    assert list(table.sources.some(np.arange(len(sources))[::-2])) == sources[::-2]
    assert [table.sources[n] for n in range(len(sources))] == sources


def test_a_copy_of_a_volume_shares_its_table(folder):
    array = arrays.VolumeArray(FrameTable("", FrameSources(()), "int16"), np.zeros(0, "int32"), (0, 4, 5), "token")
    assert copy.deepcopy(array) is array


# Names


def test_stacks_of_one_file_that_are_alike_are_told_apart(tmp_path):
    planes = [
        made.series(3, orientation=o, step=8 * made.normal_of(o), **made.AS_MR) for o in (made.AXIAL, made.CORONAL)
    ]
    images = [plane[k] for k in range(3) for plane in planes]
    for n, image in enumerate(images):
        image.PixelData = made.stamps(6, 0)[n].astype("<u2").tobytes()
    path = em.write(tmp_path / "file.dcm", em.enhanced(images))
    stacks = [lv.open_volume(path, stack=k) for k in (0, 1)]
    together = dask.compute(*(s.data for s in stacks))
    for stack, values in zip(stacks, together, strict=True):
        np.testing.assert_array_equal(stack.values, values)
    assert not np.array_equal(*together)


def test_a_volume_opened_again_has_the_same_name(folder):
    assert lv.open_volume(folder).data.name == lv.open_volume(folder).data.name


OPTIONS = [
    {},
    {"dtype": "float32"},
    {"dtype": "float32", "mask_padding": True},
    {"rescale": False},
    {"on_error": "fill"},
    {"on_error": "fill", "fill_value": 3},
    {"on_error": "fill", "fill_value": 4},
]


@pytest.mark.parametrize("one", OPTIONS, ids=str)
@pytest.mark.parametrize("other", OPTIONS, ids=str)
def test_other_values_have_another_name(padded, one, other):
    assert (lv.open_volume(padded, **one).data.name == lv.open_volume(padded, **other).data.name) is (one == other)


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """Two slices whose stored number 3 is padding."""
    folder = tmp_path_factory.mktemp("padded")
    write_series(folder, np.zeros((2, 4, 5)), spacing=(2.0, 1.0, 1.0), overrides={"PixelPaddingValue": 3})
    return folder


def test_a_changed_file_has_another_name(tmp_path):
    paths = write_series(tmp_path, np.zeros((3, 4, 5)), spacing=(2.0, 1.0, 1.0))
    before = lv.open_volume(tmp_path).data.name
    os.utime(paths[1], ns=(1, 1))
    assert lv.open_volume(tmp_path).data.name != before


def test_datasets_in_memory_are_told_apart_by_their_content():
    names = set()
    for value in (1, 2, 1):
        images = made.series(3)
        for image in images:
            image.PixelData = bytes([value]) * len(image.PixelData)
        names.add(lv.open_volume(images).data.name)
    assert len(names) == 2


def test_memory_stays_at_one_volume_for_the_whole_process(large):
    script = """
import sys, dask, lazyvol as lv
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
volume = lv.open_volume(sys.argv[1], chunks={"z": 2})
with dask.config.set(scheduler="sync"):
    volume.isel(z=slice(0, 4)).vol.load()
    before = peak()
    values = volume.vol.load()
print((peak() - before) / values.nbytes)
"""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("the peak of memory cannot be asked for here")
    done = subprocess.run([sys.executable, "-c", script, large], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 1.5
