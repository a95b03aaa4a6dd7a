"""A save that stopped is gone on with by the same call, and nothing is lost or half there at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from dask.callbacks import Callback

import lazyvol as lv
from lazyvol import chunks as cuts
from lazyvol.errors import IncompleteStoreError, PixelReadError, StoreError
from lazyvol.phantom import write_series
from lazyvol.place import LocalPlace
from lazyvol.shards import ShardForm
from lazyvol.writing import Level, shard_tasks

SHAPE = (16, 8, 8)
SLAB = 2 * 8 * 8 * 2
"""Bytes of two slices."""
SHARDS = 8 + 4 + 4
"""Of the three levels: a shard holds two slices, of the last one."""


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


def stop_after(monkeypatch, shards):
    """Let this process write so many shards and no more, until the function that is returned is called."""
    write_shard, left = lv.writing._write_shard, [shards]

    def stop(*given):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return write_shard(*given)

    monkeypatch.setattr("lazyvol.writing._write_shard", stop)
    return lambda: monkeypatch.setattr("lazyvol.writing._write_shard", write_shard)


@pytest.fixture
def begun(volume, store, partial, monkeypatch):
    """Shards of the volume that a writer left which stopped when it had written five."""
    go_on = stop_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        save(volume, store)
    go_on()
    assert len(shards_of(partial)) == 5
    return shards_of(partial)


# Going on


@pytest.mark.parametrize("k", [0, 5, 11, 15])
def test_a_save_that_stopped_is_gone_on_with_to_the_very_bytes(volume, store, whole, k):
    stop_at(volume, store, k)
    save(volume, store)
    assert files_of(store) == whole


def test_only_the_slices_of_shards_that_are_missing_are_read(volume, store, begun, read):
    written = {int(s.split("/")[3]) for s in begun if s.startswith("scale0")}
    read.clear()
    save(volume, store)
    missing = set(range(8)) - written
    assert sorted(read) == sorted(str(p) for m in missing for p in volume.source.values[2 * m : 2 * m + 2])


def test_shards_that_are_there_are_not_written_again(volume, store, partial, begun):
    before = {s: (partial / s).stat().st_ino for s in begun}
    save(volume, store)
    assert before == {s: (store / s).stat().st_ino for s in before}


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


def test_what_a_killed_writer_was_writing_is_swept_away(volume, store, partial, begun, whole):
    shard = partial / begun[0]
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
    ids=["values", "flipped", "attributes", "levels", "codec", "chunks", "name", "identifiers", "key"],
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
    done = subprocess.run(command, check=False, capture_output=True, text=True)
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
    done = subprocess.run(command, check=False, capture_output=True, text=True)
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
    monkeypatch.setattr("lazyvol.appearing._swapped", lambda *_: False)
    save(volume + 1, store)
    save(volume, store, overwrite=True)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr"}


def test_a_writer_stopped_between_the_two_steps_loses_neither_store(volume, store, partial, read, monkeypatch):
    monkeypatch.setattr("lazyvol.appearing._swapped", lambda *_: False)
    save(volume + 1, store)
    rename = os.rename

    def stop(one, other):
        if other == str(store):
            raise KeyboardInterrupt
        rename(one, other)

    monkeypatch.setattr(os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        save(volume, store, overwrite=True)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(IncompleteStoreError, match=r"is whole in .*a\.zarr\.partial.*Rename that folder"):
        lv.open_zarr(store)
    (old,) = store.parent.glob("a.zarr.old-*")
    np.testing.assert_array_equal(lv.open_zarr(old), volume + 1)
    np.testing.assert_array_equal(lv.open_zarr(partial), volume)
    read.clear()
    save(volume, store)
    np.testing.assert_array_equal(lv.open_zarr(store, chunks=None).values[:1], volume.values[:1])
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr"}


def test_a_store_is_whole_only_after_its_coordinates(volume, store, partial, monkeypatch):
    write_coordinates, seen = xr.Dataset.to_zarr, []

    def look(*given, **options):
        seen.append(json.loads((partial / "zarr.json").read_text())["attributes"]["lazyvol"]["complete"])
        return write_coordinates(*given, **options)

    monkeypatch.setattr(xr.Dataset, "to_zarr", look)
    save(volume, store)
    assert seen == [False] * 3


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


# No room


@pytest.fixture
def small(tmp_path):
    """A folder with room for 4 MiB, and what gives it more."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A volume of 8 MiB of noise, in slabs of 512 KiB."""
    for what in ("CHUNK_BYTES", "SHARD_BYTES"):
        monkeypatch.setattr(cuts, what, 2**19)
    write(tmp_path / "large", (64, 256, 256))
    return lv.open_volume(tmp_path / "large")


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_store_without_room_says_so_and_is_gone_on_with(large, small, tmp_path, scheduler):
    folder, make_room = small
    with (
        dask.config.set(scheduler=scheduler),
        pytest.raises(StoreError, match=r"a\.zarr\.partial cannot be written: No space left on device\. Make room"),
    ):
        save(large, folder / "a.zarr")
    with pytest.raises(IncompleteStoreError, match=r"is incomplete: [1-9]\d* of 28 shards"):
        lv.open_zarr(folder / "a.zarr")
    make_room()
    save(large, folder / "a.zarr")
    save(large, tmp_path / "a.zarr")
    assert files_of(folder / "a.zarr") == files_of(tmp_path / "a.zarr")


@pytest.mark.parametrize("kept", [0, 1, 4, 16, 40, 100], ids=lambda n: f"{n} KiB free")
def test_a_store_without_room_for_its_metadata_says_so(volume, small, tmp_path, whole, kept):
    folder, make_room = small
    with open(folder / "ballast", "wb") as ballast:
        ballast.write(bytes(2**22 - kept * 1024 - 2**12 if kept else 2**22))
    with pytest.raises(StoreError, match=r"No space left on device.*(Make room|has room)"):
        save(volume, folder / "a.zarr")
    make_room()
    save(volume, folder / "a.zarr")
    assert files_of(folder / "a.zarr") == whole


# Frames that were filled


@pytest.fixture
def damaged(paths):
    """A volume whose slices 2, 3, 9 and 14 become the fill value, in the order that it has along z."""
    folder = paths[0].parent
    for path in lv.open_volume(folder).source.values[[2, 3, 9, 14]]:
        Path(path).write_bytes(Path(path).read_bytes()[:-20])
    return lv.open_volume(folder, on_error="fill", fill_value=-2000)


def filled_slices(store):
    return next(f.slices for f in lv.findings_of(lv.open_zarr(store)) if f.code == "frames-filled")


@pytest.mark.filterwarnings("ignore::lazyvol.errors.LazyvolWarning")
@pytest.mark.parametrize("shards", [1, 4, 7, 11, 13])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_all_filled_frames_are_named_though_the_first_writer_stopped(damaged, store, monkeypatch, shards, scheduler):
    go_on = stop_after(monkeypatch, shards)
    with dask.config.set(scheduler=scheduler), pytest.raises(KeyboardInterrupt):
        save(damaged, store)
    time.sleep(0.1)  # threads end what they have begun
    go_on()
    save(damaged, store)
    assert filled_slices(store) == (2, 3, 9, 14)


@pytest.mark.filterwarnings("ignore::lazyvol.errors.LazyvolWarning")
def test_filled_frames_are_in_the_store_before_what_is_made_of_them(damaged, store, partial, monkeypatch):
    stop_after(monkeypatch, 13)
    with pytest.raises(KeyboardInterrupt):
        save(damaged, store)
    journal = partial / "lazyvol.filled"
    assert sorted(int(p.name) for p in journal.iterdir() if p.is_dir()) == [2, 3, 9, 14]
    assert len({p.read_bytes() for p in journal.rglob("*") if p.is_file()}) == 1  # an empty group: no path, no hash


@pytest.mark.filterwarnings("ignore::lazyvol.errors.LazyvolWarning")
def test_a_whole_store_holds_no_journal(damaged, store, partial):
    save(damaged, store)
    assert not (store / "lazyvol.filled").exists()
    assert not partial.exists()


@pytest.mark.filterwarnings("ignore::lazyvol.errors.LazyvolWarning")
def test_filled_frames_of_other_volumes_are_not_noted(damaged, paths, store):
    write(paths[0].parent.parent / "other")
    other = lv.open_volume(paths[0].parent.parent / "other")
    both = other.copy(data=other.data + 0 * damaged.data.rechunk(other.data.chunks))
    save(both, store)
    assert "frames-filled" not in {f.code for f in lv.findings_of(lv.open_zarr(store))}


# A cluster


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
        dask.config.set(scheduler=None),
    ):
        yield client


CLUSTER = [
    "ignore::ResourceWarning",  # sockets of a cluster that is closing
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:Sending large graph:UserWarning",
    "ignore:Port [0-9]+ is already in use:UserWarning",
    "ignore::lazyvol.errors.LazyvolWarning",
]


def on_cluster(test):
    for warning in CLUSTER:
        test = pytest.mark.filterwarnings(warning)(test)
    return test


def mapped(volume, function):
    """Return the volume with a function of each block, and of the number of its first slice."""

    def each(block, block_info=None):
        return function(block, block_info[0]["array-location"][0][0])

    return volume.copy(data=volume.data.map_blocks(each, dtype=volume.dtype, meta=np.empty((0, 0, 0), volume.dtype)))


@on_cluster
@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_costs_nothing(volume, store, tmp_path):
    killed = tmp_path / "killed"

    def kill(block, first):
        if first == 8 and not killed.exists():
            killed.write_text("")
            os.kill(os.getpid(), 9)
        return block

    save(mapped(volume, kill), store)
    assert killed.exists()
    np.testing.assert_array_equal(lv.open_zarr(store).compute(scheduler="sync"), volume.compute(scheduler="sync"))
    assert list(store.rglob("*.partial")) == []


@on_cluster
@pytest.mark.usefixtures("cluster")
def test_workers_write_down_what_they_fill_before_it_is_used(damaged, store, partial, tmp_path):
    stop = tmp_path / "stop"
    stop.write_text("")

    def fail(block, first):
        if first == 12:
            time.sleep(1)  # the others have been written by then
            if stop.exists():
                raise PixelReadError("the seventh")
        return block

    failing = mapped(damaged, fail)
    with pytest.raises(PixelReadError):
        save(failing, store)
    written = {int(s.split("/")[3]) for s in shards_of(partial) if s.startswith("scale0")}
    noted = {int(p.name) for p in (partial / "lazyvol.filled").iterdir() if p.is_dir()}
    assert {k for k in (2, 3, 9, 14) if k // 2 in written} <= noted <= {2, 3, 9, 14}
    assert noted
    stop.unlink()
    with dask.config.set(scheduler="sync"):
        save(failing, store)
    assert filled_slices(store) == (2, 3, 9, 14)


SLOW = """
import time
import numpy as np
import lazyvol as lv
import lazyvol.chunks


def wait(block):
    time.sleep(0.3)
    return block


def slow(folder):
    lazyvol.chunks.CHUNK_BYTES = lazyvol.chunks.SHARD_BYTES = 2 * 8 * 8 * 2
    volume = lv.open_volume(folder)
    return volume.copy(data=volume.data.map_blocks(wait, dtype=volume.dtype, meta=np.empty((0, 0, 0), "int16")))
"""
CLIENT = """
import sys
import distributed
import lazyvol as lv
from slow import slow

if __name__ == "__main__":
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster):
            lv.save_zarr(slow(sys.argv[1]), sys.argv[2], levels=3)
"""
WITHOUT = """
import sys
import lazyvol as lv
from slow import slow

lv.save_zarr(slow(sys.argv[1]), sys.argv[2], levels=3)
"""


def test_a_client_that_is_killed_is_gone_on_with(paths, store, partial, tmp_path, whole):
    pytest.importorskip("distributed")
    for name, text in {"slow": SLOW, "client": CLIENT, "without": WITHOUT}.items():
        (tmp_path / f"{name}.py").write_text(text)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    given = [str(paths[0].parent), str(store)]
    client = subprocess.Popen([sys.executable, str(tmp_path / "client.py"), *given], env=env, start_new_session=True)
    try:
        for _ in range(600):
            if len(shards_of(partial)) >= 3 or client.poll() is not None:
                break
            time.sleep(0.05)
        assert client.poll() is None
        client.kill()
        client.wait()
        with pytest.raises(IncompleteStoreError, match=rf"is incomplete: \d+ of {SHARDS} shards"):
            lv.open_zarr(store)
        before = {s: (partial / s).stat().st_ino for s in shards_of(partial)}
        subprocess.run([sys.executable, str(tmp_path / "without.py"), *given], check=True, env=env)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(client.pid, 9)
    assert files_of(store).keys() == whole.keys()
    assert {s: whole[s] for s in shards_of(store)} == {s: files_of(store)[s] for s in shards_of(store)}
    assert before
    assert before == {s: (store / s).stat().st_ino for s in before}


# Two writers

TWO = """
import sys, time
import dask
import lazyvol as lv
import lazyvol.chunks, lazyvol.store, lazyvol.opened, lazyvol.finishing

lazyvol.chunks.CHUNK_BYTES = lazyvol.chunks.SHARD_BYTES = 2 * 8 * 8 * 2
volume = lv.open_volume(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with dask.config.set(scheduler="sync"):
        lv.save_zarr(volume, sys.argv[2], levels=3)
except lv.LazyvolError as error:
    print(type(error).__name__, str(error), flush=True)
else:
    print("saved", flush=True)
"""


def start(script, *given):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("left", ["nothing", "what a dead writer left"])
def test_of_writers_at_once_one_saves_and_others_touch_nothing(paths, volume, store, partial, whole, left):
    if left != "nothing":
        stop_at(volume, store, 10)
        (partial / "lazyvol.lock").write_text('{"host": "elsewhere", "pid": 1}')
        os.utime(partial / "lazyvol.lock", (1, 1))
    writers = [start(TWO, paths[0].parent, store) for _ in range(4)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate()[0].strip() for writer in writers]
    assert "saved" in said
    assert [s for s in said if s != "saved" and not s.startswith("StoreError") and "is being written by" not in s] == []
    assert files_of(store) == whole
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr", "whole"}


def test_of_those_who_find_a_dead_lock_one_takes_it(partial):
    partial.mkdir()
    entered, at_once, refused = [], [], []

    def take():
        try:
            with lv.lock.locked(str(partial)):
                entered.append(1)
                at_once.append(len(entered))
                time.sleep(0.02)
                entered.pop()
        except StoreError:
            refused.append(1)

    for _ in range(40):
        partial.mkdir(exist_ok=True)
        (partial / "lazyvol.lock").write_text('{"host": "elsewhere", "pid": 1}')
        os.utime(partial / "lazyvol.lock", (1, 1))
        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(at_once) == {1}
    assert refused


def test_a_writer_that_was_silent_for_too_long_leaves_the_store_to_the_other(volume, store, partial):
    """As one on a computer that was put to sleep."""
    other = json.dumps({"host": "elsewhere", "pid": 1, "token": "other"})

    def take_over(block, first):
        if first == 8:
            (partial / "lazyvol.lock").write_text(other)
        return block

    with pytest.raises(StoreError, match="was taken over by another process"):
        save(mapped(volume, take_over), store)
    assert (partial / "lazyvol.lock").read_text() == other
    assert not store.exists()


def test_a_task_that_outlives_its_writer_writes_nothing_into_anothers_store(volume, store, partial):
    def begin_another(block, first):
        if first == 8:
            root = json.loads((partial / "zarr.json").read_text())
            root["attributes"]["lazyvol"]["uid"] = "another"
            (partial / "zarr.json").write_text(json.dumps(root))
        return block

    with pytest.raises(StoreError, match="is no longer what this writer began"):
        save(mapped(volume, begin_another), store)


# Memory


def halves_held(slabs, folder):
    """Return how many halves of slabs wait at once for the level below, at eight levels of so many slabs."""
    form, levels = ShardForm((64,), (8,), "<i2", 0), []
    for n in range(8):
        keys = {(k,): f"c/{k}" for k in range(-(-slabs // 2**n))}
        levels.append(Level(f"scale{n}", (64 * slabs // 2**n,), form, keys, (2,)))
    data = da.map_blocks(lambda block_id: np.full(64, block_id[0], "int16"), chunks=((64,) * slabs,), dtype="int16")
    folder.mkdir()
    (folder / "zarr.json").write_text("{}")
    tasks = shard_tasks(
        data, levels, LocalPlace(str(folder)), {each.path: set(each.keys.values()) for each in levels}, nearest=False
    )
    held = [0]

    def count(_key, _result, _dsk, state, _worker):
        held.append(sum(str(key).startswith("_half") for key in state["cache"]))

    with Callback(posttask=count):
        written = dask.compute(*tasks)
    assert len({each for some in written for each in some}) == sum(len(each.keys) for each in levels)
    return max(held)


def test_no_more_halves_wait_in_a_volume_of_four_times_the_length(tmp_path):
    assert halves_held(512, tmp_path / "long") <= halves_held(128, tmp_path / "short") + 4
