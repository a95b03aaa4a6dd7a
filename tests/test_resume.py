"""A save that stopped is gone on with by the same call, and nothing is lost or half there at any moment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import lazyvol as lv
from lazyvol import chunks as cuts
from lazyvol.errors import IncompleteStoreError, LazyvolWarning, PixelReadError, StoreError
from lazyvol.phantom import write_series

SHAPE = (16, 8, 8)
SLAB = 2 * 8 * 8 * 2
"""Bytes of two slices."""
SHARDS = 8 + 4 + 2
"""Of the three levels: each shard holds two slices."""


def write(folder, shape=SHAPE, **options):
    values = np.random.default_rng(5).integers(-1024, 3000, shape)
    given = {"spacing": (1.0, 1.0, 1.0), "bits_stored": 12, "signed": False} | options
    return write_series(folder, values, **given)


@pytest.fixture(autouse=True)
def _in_order(monkeypatch):
    """Small slabs, and one task after the other, so that what is written when it stops is the same each time."""
    monkeypatch.setattr(cuts, "CHUNK_BYTES", SLAB)
    monkeypatch.setattr(cuts, "SHARD_BYTES", SLAB)
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture
def paths(tmp_path):
    return write(tmp_path / "dicom")


@pytest.fixture
def volume(paths):
    return lv.open_volume(paths[0].parent)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "a.zarr"


@pytest.fixture
def partial(store):
    return store.with_name("a.zarr.partial")


@pytest.fixture
def whole(volume, tmp_path):
    """The files of the store of the volume when nothing stops its writer."""
    save(volume, tmp_path / "whole" / "a.zarr")
    return files_of(tmp_path / "whole" / "a.zarr")


def save(volume, store, **options):
    lv.save_zarr(volume, store, **{"levels": 3} | options)


def files_of(store):
    """Return the content of each file; of the root without what differs between any two stores."""
    found = {str(p.relative_to(store)): p.read_bytes() for p in Path(store).rglob("*") if p.is_file()}
    root = json.loads(found.pop("zarr.json"))
    del root["attributes"]["lazyvol"]["uid"]
    return found | {"zarr.json": root}


def shards_of(store):
    return sorted(str(p.relative_to(store)) for p in store.glob("scale*/image/c/**/*") if p.is_file())


def stop_at(volume, store, k, **options):
    """Save a volume, and stop at slice k: its file is away meanwhile."""
    path = Path(str(volume.source.values[k]))
    path.rename(path.with_suffix(".away"))
    with pytest.raises(PixelReadError):
        save(volume, store, **options)
    path.with_suffix(".away").rename(path)


# Going on


@pytest.mark.parametrize("k", [0, 5, 11, 15])
def test_a_save_that_stopped_is_gone_on_with_to_the_very_bytes(volume, store, whole, k):
    stop_at(volume, store, k)
    save(volume, store)
    assert files_of(store) == whole


def test_only_the_slices_of_shards_that_are_missing_are_read(volume, store, partial, read):
    stop_at(volume, store, 10)
    written = [int(s.split("/")[3]) for s in shards_of(partial) if s.startswith("scale0")]
    read.clear()
    save(volume, store)
    missing = set(range(8)) - set(written)
    assert 0 < len(written) < 8
    assert sorted(read) == sorted(str(p) for m in missing for p in volume.source.values[2 * m : 2 * m + 2])


def test_shards_that_are_there_are_not_written_again(volume, store, partial):
    stop_at(volume, store, 10)
    before = {s: (partial / s).stat().st_ino for s in shards_of(partial)}
    save(volume, store)
    assert before == {s: (store / s).stat().st_ino for s in before}
    assert 0 < len(before) < SHARDS


@pytest.mark.parametrize("level", [1, 2])
def test_a_lower_level_is_made_of_shards_read_back(volume, store, partial, whole, read, level):
    save(volume, store)
    store.rename(partial)
    shutil.rmtree(partial / f"scale{level}" / "image" / "c")
    read.clear()
    save(volume, store)
    assert read == []
    assert files_of(store) == whole


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[20] ^= 4
    path.write_bytes(content)


def make_nothing(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [shorten, flip_a_bit, make_nothing, Path.unlink])
@pytest.mark.parametrize("shard", ["scale0/image/c/1/0/0", "scale1/image/c/0/0/0", "scale2/image/c/1/0/0"])
def test_a_damaged_shard_is_written_again(volume, store, partial, whole, damage, shard):
    save(volume, store)
    store.rename(partial)
    damage(partial / shard)
    save(volume, store)
    assert files_of(store) == whole


@pytest.mark.parametrize("content", [b"", b'{"zarr_format": 3, "node_ty'], ids=["empty", "cut short"])
@pytest.mark.parametrize("name", ["zarr.json", "scale0/image/zarr.json", "scale0/zarr.json", "scale1/z/zarr.json"])
def test_metadata_that_were_cut_short_are_written_again(volume, store, partial, whole, name, content):
    save(volume, store)
    store.rename(partial)
    root = json.loads((partial / "zarr.json").read_text())
    root["attributes"]["lazyvol"]["complete"] = False
    (partial / "zarr.json").write_text(json.dumps(root))
    (partial / name).write_bytes(content)
    save(volume, store)
    assert files_of(store) == whole


def test_what_a_killed_writer_was_writing_is_swept_away(volume, store, partial, whole):
    stop_at(volume, store, 10)
    shard = partial / shards_of(partial)[0]
    shard.with_name(f"{shard.name}.0123.partial").write_bytes(b"half a shard")
    (partial / "zarr.0123.partial").write_bytes(b"half a root")
    save(volume, store)
    assert files_of(store) == whole


def test_a_whole_store_is_neither_read_nor_written(volume, store, read):
    save(volume, store)
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*")}
    read.clear()
    save(volume, store)
    assert read == []
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*")} == before
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr"}


@pytest.mark.parametrize("level", [0, 2])
def test_a_whole_store_that_lost_a_shard_is_mended_by_the_same_call(volume, store, whole, level):
    save(volume, store)
    (store / f"scale{level}/image/c/0/0/0").unlink()
    save(volume, store)
    assert files_of(store) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"volume": lambda v: v + 1},
        {"volume": lambda v: v[::-1]},
        {"volume": lambda v: v.assign_attrs(foo=1)},
        {"levels": 2},
        {"codec": None},
        {"chunks": 4},
        {"name": "other"},
        {"identifiers": "uids"},
        {"key": "another key"},
    ],
    ids=str,
)
def test_the_beginning_of_another_store_stays_unless_it_may_go(volume, store, partial, monkeypatch, change):
    stop_at(volume, store, 10)
    before = files_of(partial)
    other = change.pop("volume", lambda v: v)(volume)
    if "key" in change:
        monkeypatch.setenv("LAZYVOL_KEY", change.pop("key"))
    with pytest.raises(StoreError, match=r"beginning of another volume, or of one with other options.*overwrite=True"):
        save(other, store, **change)
    assert files_of(partial) == before
    save(other, store, overwrite=True, **change)
    np.testing.assert_array_equal(lv.open_zarr(store), other)


# The same call in another process

SAME = {
    "dask": "lv.open_volume(folder)",
    "no dask": "lv.open_volume(folder, chunks=None)",
    "in memory": "lv.open_volume(folder).compute()",
    "cropped": "lv.open_volume(folder)[1:, 2:, :6]",
    "cropped without dask": "lv.open_volume(folder, chunks=None)[1:, 2:, :6]",
    "flipped": "lv.open_volume(folder)[::-1]",
    "flipped without dask": "lv.open_volume(folder, chunks=None)[::-1, :, ::-1]",
    "astype": "lv.open_volume(folder).astype('float32') * 2",
    "a function": "lv.open_volume(folder).map_blocks(np.negative)",
    "a lambda": "(lambda v: v.copy(data=v.data.map_blocks(lambda b: b + 1, dtype=v.dtype)))(lv.open_volume(folder))",
}
UNNAMED = "(lambda v, k: v.copy(data=v.data.map_blocks(lambda b: k and b, dtype=v.dtype)))"
SAME["what cannot be pickled"] = f"{UNNAMED}(lv.open_volume(folder), __import__('threading').Lock())"
OTHER_PROCESS = """
import json, sys
import dask
import numpy as np
import lazyvol as lv
import lazyvol.chunks

lazyvol.chunks.CHUNK_BYTES = lazyvol.chunks.SHARD_BYTES = 2 * 8 * 8 * 2
folder, stores, said = sys.argv[1], sys.argv[2], {}
for name, make in json.loads(sys.argv[3]).items():
    try:
        with dask.config.set(scheduler="sync"):
            lv.save_zarr(eval(make), f"{stores}/{name}.zarr", levels=2)
    except lv.LazyvolError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def in_another_process(folder, stores):
    """Save each of the volumes, and return what errors said."""
    command = [sys.executable, "-c", OTHER_PROCESS, str(folder), str(stores), json.dumps(SAME)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Inodes and content of the stores of one process when each had lost a shard, of the next, and its errors."""
    folder = tmp_path_factory.mktemp("processes")
    write(folder / "dicom")
    assert in_another_process(folder / "dicom", folder) == {}
    before = {}
    for name in SAME:
        store = (folder / f"{name}.zarr").rename(folder / f"{name}.zarr.partial")
        before[name] = (store / KEPT).stat().st_ino, (store / LOST).read_bytes()
        (store / LOST).unlink()
    return folder, before, in_another_process(folder / "dicom", folder)


KEPT, LOST = "scale0/image/c/0/0/0", "scale0/image/c/3/0/0"


@pytest.mark.parametrize("name", sorted(set(SAME) - {"what cannot be pickled"}))
def test_the_same_call_in_another_process_goes_on(two_processes, name):
    folder, before, _ = two_processes
    store = folder / f"{name}.zarr"
    assert ((store / KEPT).stat().st_ino, (store / LOST).read_bytes()) == before[name]


def test_what_dask_cannot_name_is_another_volume_in_another_process(two_processes):
    _, _, said = two_processes
    assert [name for name, text in said.items() if "beginning of another volume" in text] == ["what cannot be pickled"]


def test_changed_files_are_another_volume(paths, volume, store):
    stop_at(volume, store, 10)
    os.utime(paths[0], (1, 1))
    with pytest.raises(StoreError, match="beginning of another volume"):
        save(lv.open_volume(paths[0].parent), store)


# Stopped at any file operation

STOPPER = """
import json, os, signal, sys
import dask
import lazyvol as lv
import lazyvol.chunks, lazyvol.finishing, lazyvol.opened, lazyvol.store
import numpy as np
import xarray.backends.zarr

folder, replace, stops = sys.argv[1], sys.argv[2] == "replace", json.loads(sys.argv[3])
lazyvol.chunks.CHUNK_BYTES = lazyvol.chunks.SHARD_BYTES = 2 * 8 * 8 * 2
volume = lv.open_volume(folder + "/dicom")


def forked(work):
    "Return what is returned in a process of its own; None if that was killed."
    get, put = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with dask.config.set(scheduler="sync"):
                os.write(put, json.dumps(work()).encode())
        except BaseException as error:
            os.write(put, json.dumps(repr(error)).encode())
        os._exit(0)
    os.close(put)
    os.waitpid(child, 0)
    with os.fdopen(get) as said:
        return json.loads(said.read() or "null")


def save(store, stop=None, volume=volume):
    count = 0
    changes = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.copyfile"}

    def hook(event, args):
        nonlocal count
        if event in changes or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            if str(args[0]).startswith(folder):
                count += 1
                if count == stop:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    lv.save_zarr(volume, store, levels=3, overwrite=replace)
    return count


def seen(store):
    try:
        found = lv.open_zarr(store).values
    except lv.LazyvolError as error:
        return type(error).__name__
    return "new" if (found == volume).all() else "old" if (found == volume + 1).all() else "DAMAGED"


results = []
total = forked(lambda: save(folder + "/counted.zarr"))
for part in stops:
    store = f"{folder}/stopped{part}.zarr"
    if replace:
        forked(lambda: save(store, volume=volume + 1))
    stop = max(1, round(part * total))
    killed = forked(lambda: save(store, stop)) is None
    before = forked(lambda: seen(store))
    again = forked(lambda: save(store))
    results.append([part, killed, before, again if isinstance(again, str) else "", forked(lambda: seen(store))])
print(json.dumps({"total": total, "results": results}))
"""
COUNT = int(os.environ.get("LAZYVOL_STOPS", "6"))
STOPS = [round((n + 0.5) / COUNT, 4) for n in range(COUNT)]
"""When writers are stopped, as parts of their file operations."""


@pytest.fixture(scope="module", params=["new", "replace"])
def stopped(request, tmp_path_factory):
    """Folder, and what became of writers that were killed before one of their file operations, and gone on with."""
    if not hasattr(os, "fork"):
        pytest.skip("os.fork does not exist here")
    folder = tmp_path_factory.mktemp("stopped")
    write(folder / "dicom")
    command = [sys.executable, "-c", STOPPER, str(folder), request.param, json.dumps(STOPS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, request.param, json.loads(done.stdout)


def test_every_writer_was_stopped_between_two_file_operations(stopped):
    _, _, found = stopped
    assert found["total"] > 100
    assert all(killed for _, killed, *_ in found["results"])


def test_a_stopped_writer_leaves_nothing_half(stopped):
    _, kind, found = stopped
    allowed = {"old", "new"} if kind == "replace" else {"new", "IncompleteStoreError", "SourceNotFoundError"}
    assert {before for _, _, before, *_ in found["results"]} <= allowed


def test_a_stopped_writer_is_gone_on_with_to_the_very_bytes(stopped):
    folder, _, found = stopped
    assert [(again, after) for *_, again, after in found["results"]] == [("", "new")] * len(found["results"])
    expected = files_of(folder / "counted.zarr")
    different = [p for p, *_ in found["results"] if files_of(folder / f"stopped{p}.zarr") != expected]
    assert different == []


def test_a_name_is_given_in_two_steps_where_one_is_impossible(volume, store, monkeypatch):
    monkeypatch.setattr("lazyvol.store._swapped", lambda *_: False)
    save(volume + 1, store)
    save(volume, store, overwrite=True)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr"}


def test_a_writer_stopped_between_the_two_steps_loses_neither_store(volume, store, partial, read, monkeypatch):
    monkeypatch.setattr("lazyvol.store._swapped", lambda *_: False)
    save(volume + 1, store)
    rename = os.rename

    def stop(one, other):
        if other == str(store):
            raise KeyboardInterrupt
        rename(one, other)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", stop)
        save(volume, store, overwrite=True)
    with pytest.raises(IncompleteStoreError, match=r"is whole in .*a\.zarr\.partial.*Rename that folder"):
        lv.open_zarr(store)
    (old,) = store.parent.glob("a.zarr.old-*")
    np.testing.assert_array_equal(lv.open_zarr(old), volume + 1)
    np.testing.assert_array_equal(lv.open_zarr(partial), volume)
    read.clear()
    save(volume, store)
    np.testing.assert_array_equal(lv.open_zarr(store, chunks=None).values[:1], volume.values[:1])
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr"}


# What somebody else made stays


def make_plain_array(store):
    zarr.save_array(str(store), np.arange(5))


def make_other_group(store):
    xr.Dataset({"a": ("x", [1])}).to_zarr(store, consolidated=False)


def make_damaged_root(store):
    store.mkdir()
    (store / "zarr.json").write_text("{")


@pytest.mark.parametrize("make", [make_plain_array, make_other_group, make_damaged_root])
def test_another_zarr_store_is_replaced_only_if_it_may_go(volume, store, make):
    make(store)
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match="overwrite=True"):
        save(volume, store)
    assert before == {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    save(volume, store, overwrite=True)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_a_folder_of_that_name_with_other_things_is_not_cleared(volume, store, partial):
    partial.mkdir()
    (partial / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"holds 'thesis\.tex', which is of no store"):
        save(volume, store, overwrite=True)
    assert (partial / "thesis.tex").read_text() == "years of work"


def test_a_store_that_appeared_while_another_writer_began_stays(volume, store, monkeypatch):
    """Both have seen that there is none; one is done before the other has the lock."""
    locked = lv.store.locked

    def wait(partial):
        monkeypatch.undo()
        save(volume + 1, store)
        return locked(partial)

    monkeypatch.setattr("lazyvol.store.locked", wait)
    with pytest.raises(StoreError, match="exists and is of another volume"):
        save(volume, store)
    np.testing.assert_array_equal(lv.open_zarr(store), volume + 1)
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr"}
