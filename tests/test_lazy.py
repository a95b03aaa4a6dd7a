"""Laziness: the bytes that are read are those that are asked for, counted from outside the process and inside."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

import dask
import numpy as np
import pytest
import xarray as xr
from pydicom import dcmread

import lazyvol as lv
from lazyvol.phantom import write_series

N, ROWS, COLUMNS = 10, 512, 512
ROW = COLUMNS * 2
FRAME = ROWS * ROW

OPENED = {
    "dask": "lv.open_volume(folder)",
    "without dask": "lv.open_volume(folder, chunks=None)",
    "engine with chunks": "xr.open_dataset(folder, engine='lazyvol', chunks={}).image",
    "engine": "xr.open_dataset(folder, engine='lazyvol').image",
}
ON_DASK = ("dask", "engine with chunks")
ALL_ROWS = range(ROWS)
SELECTIONS = {
    "one axial slice": ("isel(z=7)", [7], ALL_ROWS),
    "one axial slice by mm": ("sel(z=9.6, method='nearest')", [5], ALL_ROWS),
    "one coronal cut": ("isel(y=100)", range(N), [100]),
    "a box": ("isel(z=slice(2, 4), y=slice(10, 30), x=slice(5, 9))", [2, 3], range(10, 30)),
    "a strided cut": ("isel(z=slice(1, None, 4), y=slice(None, None, 64))", [1, 5, 9], range(0, ROWS, 64)),
    "one voxel": ("isel(z=3, y=4, x=5)", [3], [4]),
    "no slice": ("isel(z=slice(0, 0))", [], []),
    "no row": ("isel(y=slice(4, 4))", [], []),
    "no column": ("isel(x=[])", [], []),
}
ONLY_WITHOUT_DASK = {
    "listed slices": ("isel(z=[1, 5, 9])", [1, 5, 9], ALL_ROWS),
    "a reversed cut": ("isel(z=slice(3, None, -1), y=slice(9, 4, -1))", range(4), range(5, 10)),
}
LOOKS = {
    "repr": "repr(volume)",
    "html repr": "volume._repr_html_()",
    "html repr of the dataset": "xr.Dataset({'image': volume})._repr_html_()",
    "field of view": "lv.field_of_view(volume)",
    "geometry": "volume.vol.affine, lv.geometry_of(volume), volume.vol.orientation",
    "findings": "lv.findings_of(volume)",
    "pickling": "pickle.loads(pickle.dumps(volume))",
    "pickling a cut": "pickle.loads(pickle.dumps(volume.isel(z=slice(2, 5))))",
    "a cut that is not computed": "volume.isel(z=3, y=slice(4, 9))",
    "a copy": "volume.copy()",
    "renaming": "volume.rename('ct')",
    "shape and size": "volume.shape, volume.dtype, volume.nbytes, volume.chunks",
}
LOOKS_WITH_DASK = {
    "arithmetic": "(volume * 2 - volume.mean('z')).isnull()",
    "tokenizing": "tokenize(volume)",
}
SCRIPT = """
import pickle, sys
import dask
import xarray as xr
from dask.base import tokenize
import lazyvol as lv

folder = sys.argv[1]

def mark(name):
    try:
        open("/lazyvol-mark/" + name)
    except OSError:
        pass
"""


class Read(NamedTuple):
    """A system call that read from a file."""

    name: str
    start: int | None
    """Byte of the file; None where the call continues from the last."""
    length: int


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Folder and files of ten slices, in their order, of half a MiB each, 2 mm apart."""
    folder = tmp_path_factory.mktemp("lazy") / "series"
    planes = (np.full((ROWS, COLUMNS), k) + np.arange(COLUMNS) for k in range(N))
    return folder, write_series(folder, planes, n=N, spacing=(2.0, 0.7, 0.7))


@pytest.fixture(scope="module")
def pixels_at(series):
    """Where the pixels begin in each file, by name."""
    _, paths = series
    return {p.name: p.stat().st_size - FRAME for p in paths}


def trace(script, folder, scratch):
    """Run a script under strace and return what it read of a folder, by the mark that stood before."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed, so reads cannot be counted from outside the process")
    if subprocess.run([strace, "-o", scratch / "try", "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here (ptrace is forbidden), so reads cannot be counted from outside")
    file, log = scratch / "script.py", scratch / "log"
    file.write_text(SCRIPT + script)
    calls = "trace=openat,read,readv,pread64,preadv,preadv2,mmap,sendfile,copy_file_range"
    command = [strace, "-f", "-y", "-s", "80", "-o", log, "-e", calls, sys.executable, file, folder]
    subprocess.run(command, check=True, cwd=scratch, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    return reads_by_mark(log.read_text(errors="replace"), str(folder))


def reads_by_mark(log, folder):
    found, mark, pending = defaultdict(list), "", {}
    for line in log.splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            pending[thread] = call.removesuffix("<unfinished ...>")
            continue
        call = re.sub(r"^<\.\.\. \w+ resumed>", lambda _, t=thread: pending.pop(t), call)
        if '"/lazyvol-mark/' in call:
            mark = call.split('"/lazyvol-mark/')[1].split('"')[0]
        elif f"<{folder}/" in call and not call.startswith("openat"):
            found[mark].append(read_of(call, folder))
    return found


def read_of(call, folder):
    name = call.split(f"<{folder}/")[1].split(">")[0]
    if call.startswith("mmap"):
        return Read(name, int(call.rsplit(",", 1)[1].split(")")[0], 0), int(call.split(",")[1]))
    length = int(re.search(r"=\s+(-?\d+)[^=]*$", call)[1])
    last = call.rsplit(")", 1)[0].split(",")
    at = {"pread64": -1, "preadv": -1, "preadv2": -2}.get(call.split("(")[0])
    return Read(name, int(last[at]) if at else None, length)


@pytest.fixture(scope="module")
def looks(series, tmp_path_factory):
    """What opening and looking read, in one process that does all of it one after the other."""
    lines = ["mark('scan')", "lv.scan_headers(folder)"]
    for way, opened in OPENED.items():
        lines += [f"mark('open {way}')", f"volume = {opened}"]
        for name, look in (LOOKS | (LOOKS_WITH_DASK if way in ON_DASK else {})).items():
            lines += [f"mark('{name} {way}')", look]
    return trace("\n".join(lines), series[0], tmp_path_factory.mktemp("looks"))


@pytest.fixture(scope="module")
def computed(series, tmp_path_factory):
    """What computing a selection read."""
    lines = []
    for way, opened in OPENED.items():
        lines += ["mark('opening')", f"volume = {opened}"]
        for name, (selection, *_) in selections_of(way).items():
            lines += [f"mark('{name} {way}')", f"volume.{selection}.values"]
    return trace("\n".join(lines), series[0], tmp_path_factory.mktemp("computed"))


def selections_of(way):
    return SELECTIONS if way in ON_DASK else SELECTIONS | ONLY_WITHOUT_DASK


def bytes_of(reads):
    total = defaultdict(int)
    for read in reads:
        total[read.name] += read.length
    return dict(total)


def read_ahead(path):
    """Bytes that Python reads at once of a file that it opens."""
    return max(io.DEFAULT_BUFFER_SIZE, os.stat(path).st_blksize)


def test_a_scan_reads_each_header_and_at_most_one_block_more(looks, series, pixels_at):
    folder, _ = series
    beyond = {n: b - pixels_at[n] - read_ahead(folder / n) for n, b in bytes_of(looks["scan"]).items()}
    assert len(beyond) == N
    assert max(beyond.values()) <= 0, beyond


@pytest.mark.parametrize("way", OPENED)
def test_opening_reads_what_a_scan_reads(looks, way):
    assert bytes_of(looks[f"open {way}"]) == bytes_of(looks["scan"])


@pytest.mark.parametrize("way", OPENED)
@pytest.mark.parametrize("look", LOOKS)
def test_looking_at_a_volume_reads_nothing(looks, look, way):
    assert looks[f"{look} {way}"] == []


@pytest.mark.parametrize("way", ON_DASK)
@pytest.mark.parametrize("look", LOOKS_WITH_DASK)
def test_building_a_computation_reads_nothing(looks, look, way):
    assert looks[f"{look} {way}"] == []


@pytest.mark.parametrize(
    ("selection", "way"), [pytest.param(s, w, id=f"{s}, {w}") for w in OPENED for s in selections_of(w)]
)
def test_a_selection_reads_exactly_its_bytes(computed, series, pixels_at, selection, way):
    _, paths = series
    _, slices, rows = selections_of(way)[selection]
    names = [paths[k].name for k in slices]
    expected = {n: runs_of(pixels_at[n] + r * ROW for r in sorted(rows)) for n in names}
    found = defaultdict(list)
    for read in computed[f"{selection} {way}"]:
        assert read.start is not None, "a call that continues from the last one reads ahead"
        found[read.name].append((read.start, read.start + read.length))
    assert {n: merged(parts) for n, parts in found.items()} == expected


def runs_of(starts):
    return merged((start, start + ROW) for start in starts)


def merged(parts):
    """Return intervals with those that touch joined; overlaps stay, so that reading twice shows."""
    joined = []
    for start, end in sorted(parts):
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return joined


@pytest.fixture
def counted(monkeypatch):
    """Return the byte ranges that are read of files by position, while the test runs."""
    if not hasattr(os, "preadv"):
        pytest.skip("os.preadv does not exist here, so reads cannot be counted inside the process")
    reads, read = [], os.preadv

    def counting(file, buffers, offset, *flags):
        count = read(file, buffers, offset, *flags)
        reads.append(count)
        return count

    monkeypatch.setattr(os, "preadv", counting)
    return reads


@pytest.mark.parametrize("chunks", ["auto", 1, 3, {"z": 4}, {"y": 100}, None], ids=str)
def test_no_choice_of_chunks_reads_pixels_when_opening(series, counted, chunks):
    lv.open_volume(series[0], chunks=chunks)
    assert counted == []


def test_a_mean_reads_each_byte_once(series, counted):
    lv.open_volume(series[0], chunks={"z": 3}).mean().compute()
    assert sum(counted) == N * FRAME


def test_an_axis_is_reduced_one_chunk_at_a_time(series, counted):
    volume = lv.open_volume(series[0], chunks={"z": 2})
    volume.max(("y", "x")).isel(z=slice(4, 6)).compute()
    assert sum(counted) == 2 * FRAME


@pytest.mark.parametrize("chunks", [1, 4, -1])
def test_one_slice_reads_one_frame_whatever_the_chunks(series, counted, chunks):
    lv.open_volume(series[0], chunks={"z": chunks}).isel(z=3).compute()
    assert sum(counted) == FRAME


def test_a_cut_of_a_cut_reads_what_the_last_one_shows(series, counted):
    lv.open_volume(series[0], chunks=None).isel(z=slice(2, 9)).isel(z=3).compute()
    assert sum(counted) == FRAME


def test_comparing_geometry_after_arithmetic_reads_nothing(series, counted):
    volume = lv.open_volume(series[0])
    lv.field_of_view((volume + 1000)[::2])
    assert counted == []


def test_a_pickle_holds_no_pixels(series):
    assert len(pickle.dumps(lv.open_volume(series[0]))) < 5_000 * N


def test_a_pickled_volume_reads_the_same_after_a_change_of_folder(series, tmp_path, monkeypatch):
    monkeypatch.chdir(series[0])
    volume = lv.open_volume(series[0])
    pickled = pickle.dumps(volume)
    monkeypatch.chdir(tmp_path)
    xr.testing.assert_identical(pickle.loads(pickled).isel(z=2).compute(), volume.isel(z=2).compute())


def test_values_are_those_of_the_files(series):
    folder, paths = series
    stored = np.stack([dcmread(p).pixel_array.astype(int) - 1024 for p in paths])
    np.testing.assert_array_equal(lv.open_volume(folder), stored)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_schedulers_read_the_same(series, counted, scheduler):
    with dask.config.set(scheduler=scheduler):
        lv.open_volume(series[0], chunks={"z": 2}).isel(y=7).compute()
    assert counted == [ROW] * N


def test_touching_intervals_join_and_overlaps_stay():
    assert list(pairwise(merged([(0, 2), (2, 4), (3, 5)]))) == [([0, 4], [3, 5])]
