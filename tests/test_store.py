"""Stores: what is saved comes back identical, or is visibly incomplete; and no two writers share one."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec, ZstdCodec

import lazyvol as lv
from lazyvol import chunks as cuts
from lazyvol.convention import with_frame_of_reference
from lazyvol.errors import (
    GeometryError,
    IncompleteStoreError,
    LazyvolError,
    OptionError,
    PixelReadError,
    SourceNotFoundError,
    StoreError,
)
from lazyvol.phantom import write_series

LEAN = ((0, np.sin(0.2), np.cos(0.2)), (0, 1, 0), (1, 0, 0))
STORED = {
    "int16": {"modality": "CT", "intercept": -1024, "bits_stored": 12, "signed": False},
    "uint16": {"modality": "MR", "intercept": 0, "bits_stored": 16, "signed": False},
    "uint8": {"modality": "MR", "intercept": 0, "bits_stored": 8, "signed": False},
    "int32": {"modality": "MR", "intercept": -7, "bits_stored": 16, "signed": False},
    "float32": {"modality": "PT", "slope": 0.375, "intercept": 0, "bits_stored": 16, "signed": False},
}


def write(folder, shape=(6, 7, 8), dtype="int16", gaps=(), **options):
    """Write a series of random values whose slices lie ``gaps`` mm apart, or 3 mm."""
    options = STORED[dtype] | options
    where = np.concatenate([[0], np.cumsum(gaps)])

    def put(k, dataset):
        if gaps:
            dataset.ImagePositionPatient = [-30, -40, 55 + float(where[k])]

    stored = np.random.default_rng(5).integers(0, 1 << options["bits_stored"], shape)
    values = stored * options.get("slope", 1) + options["intercept"]
    grid = {"spacing": (3.0, 0.9, 0.7), "origin": (-30.0, -40.0, 55.0)}
    return write_series(folder, values, **grid | {"overrides": put} | options)


@pytest.fixture
def volume(tmp_path):
    write(tmp_path / "dicom")
    return lv.open_volume(tmp_path / "dicom")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "a.zarr"


@pytest.fixture
def thin_slabs(monkeypatch):
    """Two slices of the volume are a slab, so that it takes three."""
    for what in ("CHUNK_BYTES", "SHARD_BYTES"):
        monkeypatch.setattr(cuts, what, 2 * 7 * 8 * 2)


def as_saved(volume):
    return volume.drop_vars("source").compute()


# The round trip


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(sorted(STORED)),
    chunks=st.one_of(st.none(), st.just("auto"), st.integers(1, 4)),
    block=st.integers(1, 4000),
    slab=st.integers(1, 4000),
    side=st.sampled_from([1, 2, 3, 64]),
    kind=st.sampled_from(["even", "tilted", "uneven"]),
    gap=st.floats(1, 9),
)
def test_a_volume_comes_back_identical(shape, dtype, chunks, block, slab, side, kind, gap):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "CHUNK_BYTES", block)
        patch.setattr(cuts, "SHARD_BYTES", slab)
        patch.setattr(cuts, "STORED", dict.fromkeys("zyx", side))
        options = {"directions": LEAN} if kind == "tilted" else {}
        gaps = tuple(3 + (k % 2) * gap for k in range(shape[0] - 1)) if kind == "uneven" else ()
        write(f"{folder}/dicom", shape, dtype, gaps, **options)
        volume = lv.open_volume(f"{folder}/dicom", chunks=chunks)
        lv.save_zarr(volume, f"{folder}/a.zarr", identifiers="uids")
        again = lv.open_zarr(f"{folder}/a.zarr")
        xr.testing.assert_identical(again.compute(), as_saved(volume))
        assert str(lv.geometry_of(again)) == str(lv.geometry_of(volume))
        assert lv.findings_of(again) == lv.findings_of(volume)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[1:4, 2:, 3:7],
        lambda v: v[::-1],
        lambda v: v[:, ::-1, ::-1],
        lambda v: v[::2, 1::3],
        lambda v: v[[0, 1, 5]],
        lambda v: v.transpose("x", "z", "y"),
        lambda v: v.isel(z=2),
        lambda v: v.isel(y=3),
        lambda v: v[2:3, :, 4:5],
        lambda v: v.astype("float64") * 0.5,
        lambda v: v.where(v > 0),
        lambda v: v.compute(),
        lambda v: v.chunk({"x": 3}),
        lambda v: v.rename(None),
        lambda v: v.drop_attrs(deep=False),
    ],
    ids=[
        "cropped",
        "flipped",
        "flipped in plane",
        "strided",
        "picked",
        "transposed",
        "one slice",
        "one row",
        "one column of one slice",
        "scaled",
        "masked",
        "in memory",
        "other chunks",
        "nameless",
        "without attrs",
    ],
)
def test_what_was_made_of_a_volume_keeps_values_and_geometry(volume, store, change):
    part = change(volume)
    lv.save_zarr(part, store, identifiers="uids")
    again = lv.open_zarr(store)
    xr.testing.assert_identical(again.rename("image").compute(), as_saved(part.rename("image")))
    assert str(lv.geometry_of(again)) == str(lv.geometry_of(part))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "int64", "float64"])
def test_other_types_of_values_come_back(volume, store, dtype):
    lv.save_zarr((volume > 0).astype(dtype), store)
    np.testing.assert_array_equal(lv.open_zarr(store), (volume > 0).astype(dtype), strict=True)


def test_a_volume_without_positions_comes_back(tmp_path, store):
    def strip(_k, dataset):
        del dataset.ImagePositionPatient

    write(tmp_path / "dicom", overrides=strip)
    volume = lv.open_volume(tmp_path / "dicom")
    lv.save_zarr(volume, store, identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(store).compute(), as_saved(volume))


def test_by_default_only_uids_differ(volume, store):
    lv.save_zarr(volume, store)
    names = ["sop_instance_uid", "geometry"]
    xr.testing.assert_identical(lv.open_zarr(store).drop_vars(names).compute(), as_saved(volume).drop_vars(names))


def test_by_default_the_geometry_differs_in_the_frame_of_reference_alone(volume, store):
    lv.save_zarr(volume, store)
    before, after = (dict(v.geometry.attrs) for v in (volume, lv.open_zarr(store)))
    assert before.pop("frame_of_reference") != after.pop("frame_of_reference")
    assert before == after


def test_saving_what_was_opened_from_a_store_keeps_it(volume, tmp_path):
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    lv.save_zarr(lv.open_zarr(tmp_path / "a.zarr"), tmp_path / "b.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "b.zarr").compute(), as_saved(volume))


def test_saving_changes_nothing_of_the_volume(volume, store):
    before = volume.copy(deep=True)
    lv.save_zarr(volume, store)
    xr.testing.assert_identical(volume, before)


def test_an_array_without_geometry_is_refused(store):
    with pytest.raises(GeometryError):
        lv.save_zarr(xr.DataArray(np.zeros((2, 3, 4)), dims=("z", "y", "x")), store)
    assert not store.exists()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ("auto", ((2, 2, 2), (7,), (8,))),
        (None, None),
        ({"z": 6}, ((6,), (7,), (8,))),
        (4, ((4, 2), (4, 3), (4, 4))),
    ],
    ids=str,
)
@pytest.mark.usefixtures("thin_slabs")
def test_chunks_are_shards_or_those_asked_for(volume, store, chunks, expected):
    lv.save_zarr(volume, store)
    assert lv.open_zarr(store, chunks=chunks).chunks == expected


@pytest.mark.parametrize("kind", [str, Path, lambda p: f"{p}/"], ids=["str", "Path", "trailing slash"])
def test_a_store_is_named_as_one_likes(volume, store, kind):
    lv.save_zarr(volume, kind(store))
    assert lv.open_zarr(kind(store)).shape == volume.shape


# What others see


def test_plain_xarray_opens_the_level(volume, store):
    lv.save_zarr(volume, store, identifiers="uids")
    with xr.open_zarr(store, group="scale0", consolidated=False) as dataset:
        xr.testing.assert_identical(dataset.image.compute(), as_saved(volume))


def test_plain_xarray_opens_the_tree(volume, store):
    lv.save_zarr(volume, store, identifiers="uids")
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        xr.testing.assert_identical(tree["scale0/image"].compute(), as_saved(volume))


@pytest.mark.parametrize("gaps", [(), (3.0, 3.0, 9.0, 3.0, 3.0)], ids=["even", "uneven"])
def test_metadata_are_strict_json(tmp_path, store, gaps):
    """NaN is no JSON: readers in other languages refuse the whole store."""
    write(tmp_path / "dicom", gaps=gaps)
    lv.save_zarr(lv.open_volume(tmp_path / "dicom"), store)

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    for path in store.rglob("zarr.json"):
        json.loads(path.read_text(), parse_constant=refuse)


def test_metadata_are_not_consolidated(volume, store):
    lv.save_zarr(volume, store)
    assert all("consolidated_metadata" not in json.loads(p.read_text()) for p in store.rglob("zarr.json"))


@pytest.mark.parametrize(
    ("dtype", "fill"), [("int16", -32768), ("uint16", 65535), ("float32", None)], ids=["int16", "uint16", "float32"]
)
def test_what_was_never_written_is_the_least_likely_value(tmp_path, store, dtype, fill):
    write(tmp_path / "dicom", dtype=dtype)
    lv.save_zarr(lv.open_volume(tmp_path / "dicom"), store)
    found = zarr.open_array(store / "scale0" / "image", mode="r").fill_value
    assert np.isnan(found) if fill is None else found == fill


@pytest.mark.usefixtures("thin_slabs")
def test_a_slab_is_one_file(volume, store):
    lv.save_zarr(volume, store)
    image = zarr.open_array(store / "scale0" / "image", mode="r")
    files = [p for p in (store / "scale0" / "image" / "c").rglob("*") if p.is_file()]
    assert (image.shards, image.chunks, len(files)) == ((2, 7, 8), (2, 7, 8), 3)


def test_slabs_shards_and_chunks_of_a_ct():
    slabs, shards, chunks = cuts.store_chunks("zyx", (600, 512, 512), "int16")
    assert (tuple(slabs.values()), tuple(shards.values()), tuple(chunks.values())) == (
        (64, 512, 512),
        (64, 512, 512),
        (64, 64, 64),
    )


@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 2500), st.integers(1, 2500)),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
)
def test_no_two_slabs_share_a_shard_and_shards_are_whole_chunks(shape, dtype):
    slabs, shards, chunks = (np.array(list(c.values())) for c in cuts.store_chunks("zyx", shape, dtype))
    assert (shards % chunks == 0).all()
    assert ((slabs == shards) | (slabs == shape)).all()
    assert (chunks <= (64, 64, 64)).all()
    assert (slabs[1:] == shape[1:]).all()


@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 1024), st.integers(1, 1024)),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
)
def test_a_shard_is_at_most_64_mib(shape, dtype):
    _, shards, _ = cuts.store_chunks("zyx", shape, dtype)
    assert np.prod(list(shards.values())) * np.dtype(dtype).itemsize <= 64 * 2**20


# What does not open or cannot be written


def test_a_store_that_does_not_exist_is_named(store):
    with pytest.raises(SourceNotFoundError, match=r"a\.zarr does not exist"):
        lv.open_zarr(store)


def test_a_file_is_not_said_to_be_absent(store):
    store.write_text("a file")
    with pytest.raises(StoreError, match=r"a\.zarr"):
        lv.open_zarr(store)


def test_another_zarr_store_is_told_apart(store):
    xr.Dataset({"a": ("x", [1])}).to_zarr(store, consolidated=False)
    with pytest.raises(StoreError, match=r"no Zarr store that lazyvol wrote.*xarray\.open_zarr others"):
        lv.open_zarr(store)


def test_a_dicom_folder_is_told_apart(chest_folder):
    with pytest.raises(StoreError, match="open_volume opens DICOM"):
        lv.open_zarr(chest_folder)


def test_a_store_that_exists_is_not_overwritten(volume, store):
    lv.save_zarr(volume, store)
    before = files_of(store)
    with pytest.raises(StoreError, match=r"a\.zarr exists and is of another volume.*overwrite=True"):
        lv.save_zarr(volume + 1, store)
    assert files_of(store) == before


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_overwrite_replaces_and_leaves_nothing_else(volume, store):
    lv.save_zarr(volume, store)
    lv.save_zarr(volume[:3], store, overwrite=True)
    np.testing.assert_array_equal(lv.open_zarr(store), volume[:3])
    assert {p.name for p in store.parent.iterdir()} == {"dicom", "a.zarr"}


def test_a_store_can_be_overwritten_by_what_was_made_of_it(volume, store):
    lv.save_zarr(volume, store)
    lv.save_zarr(lv.open_zarr(store) + 1, store, overwrite=True)
    np.testing.assert_array_equal(lv.open_zarr(store), volume + 1)


@pytest.fixture
def broken(tmp_path):
    """A volume whose last slice cannot be read."""
    paths = write(tmp_path / "broken")
    with open(paths[-1], "r+b") as file:
        file.truncate(paths[-1].stat().st_size - 10)
    return lv.open_volume(tmp_path / "broken")


def test_a_frame_that_cannot_be_read_leaves_no_store(broken, store):
    with pytest.raises(PixelReadError, match="is cut short"):
        lv.save_zarr(broken, store)
    assert not store.exists()


@pytest.mark.usefixtures("thin_slabs")
def test_an_incomplete_store_says_how_far_it_got(volume, store):
    calls = count(1)

    def fail_third(block):
        if next(calls) == 3:
            raise PixelReadError("the third")
        return block

    failing = volume.copy(data=volume.data.map_blocks(fail_third, dtype="int16", meta=np.empty((0, 0, 0), "int16")))
    with dask.config.set(scheduler="sync"), pytest.raises(PixelReadError):
        lv.save_zarr(failing.chunk({"z": 2}), store)
    with pytest.raises(
        IncompleteStoreError, match=r"a\.zarr is incomplete: 2 of 3 shards .*save_zarr with the same volume to go on"
    ):
        lv.open_zarr(store)


def test_an_incomplete_store_is_refused_under_its_partial_name_too(broken, store):
    with pytest.raises(PixelReadError):
        lv.save_zarr(broken, store)
    with pytest.raises(IncompleteStoreError, match="is incomplete"):
        lv.open_zarr(f"{store}.partial")


def test_the_beginning_of_another_volume_is_kept_unless_it_may_go(broken, volume, store):
    with pytest.raises(PixelReadError):
        lv.save_zarr(broken, store)
    with pytest.raises(StoreError, match=r"holds the beginning of another volume.*overwrite=True"):
        lv.save_zarr(volume, store)
    lv.save_zarr(volume, store, overwrite=True)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_a_store_that_fails_leaves_the_one_that_it_would_replace(broken, volume, store):
    lv.save_zarr(volume, store)
    with pytest.raises(PixelReadError):
        lv.save_zarr(broken, store, overwrite=True)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


@pytest.mark.usefixtures("thin_slabs")
def test_the_store_is_marked_complete_only_after_its_pixels(volume, store):
    seen = []

    def look(block):
        seen.append(json.loads((store.parent / "a.zarr.partial" / "zarr.json").read_text())["attributes"]["lazyvol"])
        return block

    looked = volume.copy(data=volume.data.map_blocks(look, dtype=volume.dtype, meta=np.empty((0, 0, 0), "int16")))
    lv.save_zarr(looked, store)
    assert [s["complete"] for s in seen] == [False] * 3


# One writer at a time


def lock_of(store, **content):
    partial = store.parent / f"{store.name}.partial"
    partial.mkdir()
    lock = partial / "lazyvol.lock"
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()} | content))
    return lock


@pytest.fixture
def dead():
    """Number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def alive():
    """Number of another process that lives."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.communicate(b"\n")


@pytest.fixture
def unburied():
    """Number of a process that has ended, of which its parent has not taken notice."""
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("processes that have ended are told by /proc")
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()  # to its end
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is None:
        pass
    yield process.pid
    process.wait()
    process.stdout.close()


def test_a_lock_of_a_process_that_has_ended_is_taken_over_before_its_parent_knows(volume, store, unburied):
    lock_of(store, pid=unburied)
    lv.save_zarr(volume, store)
    assert lv.open_zarr(store).shape == volume.shape


def test_a_lock_appears_in_one_step_and_what_dead_writers_began_goes(store):
    partial = store.parent / f"{store.name}.partial"
    partial.mkdir()
    (partial / f"lazyvol.lock.{'0' * 32}.partial").write_text("{")
    with lv.lock.locked(str(partial)):
        assert [p.name for p in partial.iterdir()] == ["lazyvol.lock"]
        assert json.loads((partial / "lazyvol.lock").read_text())["pid"] == os.getpid()
        with pytest.raises(StoreError, match="is being written by"), lv.lock.locked(str(partial)):
            pass
    assert not partial.exists()


def test_a_writer_whose_lock_was_taken_and_given_back_goes_on(volume, store):
    partial = store.parent / f"{store.name}.partial"
    with lv.lock.locked(str(partial)) as require_ours:
        (partial / "lazyvol.lock").unlink()  # as one does who was refused
        require_ours()
        assert json.loads((partial / "lazyvol.lock").read_text())["pid"] == os.getpid()
        (partial / "lazyvol.lock").write_text('{"host": "elsewhere", "pid": 1, "token": "a"}')
        with pytest.raises(StoreError, match="was taken over"):
            require_ours()


def test_a_writer_does_not_end_what_another_has_begun_meanwhile(volume, store, monkeypatch):
    real = lv.store.dask_compute

    def begin_another(*tasks):
        done = real(*tasks)
        root = zarr.open_group(f"{store}.partial", mode="r+")
        root.attrs["lazyvol"] = {**root.attrs["lazyvol"], "uid": "another"}
        return done

    monkeypatch.setattr(lv.store, "dask_compute", begin_another)
    with pytest.raises(StoreError, match="another one has taken over"):
        lv.save_zarr(volume, store)
    assert not zarr.open_group(f"{store}.partial", mode="r").attrs["lazyvol"]["complete"]


def test_a_second_writer_is_refused_while_the_first_lives(volume, store, alive):
    lock_of(store, pid=alive)
    with pytest.raises(StoreError, match=rf"is being written by process {alive} on {socket.gethostname()}"):
        lv.save_zarr(volume, store)


def test_a_writer_that_is_refused_touches_nothing(volume, store, alive):
    lock_of(store, pid=alive)
    (store.parent / "a.zarr.partial" / "data").write_text("of the first")
    before = files_of(store.parent / "a.zarr.partial")
    with pytest.raises(StoreError):
        lv.save_zarr(volume, store)
    assert files_of(store.parent / "a.zarr.partial") == before


def test_two_writers_at_once_give_one_store_and_one_error(volume, store):
    started, go, errors = threading.Event(), threading.Event(), []

    def wait(block):
        started.set()
        go.wait(20)
        return block

    slow = volume.copy(data=volume.data.map_blocks(wait, dtype=volume.dtype, meta=np.empty((0, 0, 0), "int16")))
    first = threading.Thread(target=lv.save_zarr, args=(slow, store))
    first.start()
    started.wait(20)
    try:
        lv.save_zarr(volume, store)
    except StoreError as error:
        errors.append(error)
    go.set()
    first.join()
    assert len(errors) == 1
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_the_lock_of_a_dead_process_is_taken_over(volume, store, dead):
    lock_of(store, pid=dead)
    lv.save_zarr(volume, store)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_what_a_dead_writer_left_is_gone(volume, store, dead):
    lock_of(store, pid=dead)
    left = store.parent / "a.zarr.partial" / "scale0" / "image" / "c" / "9" / "0" / "0"
    left.parent.mkdir(parents=True)
    left.write_text("of the first")
    lv.save_zarr(volume, store)
    assert b"of the first" not in files_of(store).values()


def grow_old(lock, seconds):
    then = time.time() - seconds
    os.utime(lock, (then, then))


@pytest.mark.parametrize("content", [{"host": "elsewhere"}, None], ids=["of another host", "unreadable"])
def test_a_lock_that_may_be_alive_is_kept_for_a_minute(volume, store, content):
    lock = lock_of(store, **(content or {}))
    if content is None:
        lock.write_text("")
    grow_old(lock, 50)
    with pytest.raises(StoreError, match="is being written by"):
        lv.save_zarr(volume, store)


@pytest.mark.parametrize("content", [{"host": "elsewhere"}, None], ids=["of another host", "unreadable"])
def test_a_lock_without_a_sign_of_life_for_a_minute_is_taken_over(volume, store, content):
    lock = lock_of(store, **(content or {}))
    if content is None:
        lock.write_text("")
    grow_old(lock, 70)
    lv.save_zarr(volume, store)
    assert lv.open_zarr(store).shape == volume.shape


def test_a_writer_shows_signs_of_life(volume, store, monkeypatch):
    monkeypatch.setattr("lazyvol.lock._HEARTBEAT", 0.01)
    lock, ages = store.parent / "a.zarr.partial" / "lazyvol.lock", []

    def look(block):
        grow_old(lock, 1000)
        for _ in range(200):
            ages.append(time.time() - lock.stat().st_mtime)
            if ages[-1] < 500:
                break
            time.sleep(0.02)
        return block

    looked = volume.copy(data=volume.data.map_blocks(look, dtype=volume.dtype, meta=np.empty((0, 0, 0), "int16")))
    lv.save_zarr(looked, store)
    assert ages[-1] < 500


def test_no_lock_is_left_in_a_store(volume, store):
    lv.save_zarr(volume, store)
    assert list(store.rglob("*.lock*")) == []


def test_no_lock_is_left_by_a_writer_that_failed(broken, store):
    with pytest.raises(PixelReadError):
        lv.save_zarr(broken, store)
    assert list(store.parent.rglob("*.lock*")) == []


def test_a_store_is_read_without_the_lock_of_its_successor(volume, store, alive):
    lv.save_zarr(volume, store)
    lock_of(store, pid=alive)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


# Killed in the middle

KILLER = """
import json, os, signal, sys
import dask
import lazyvol as lv
import lazyvol.chunks, lazyvol.finishing, lazyvol.opened, lazyvol.store
import numcodecs.blosc, xarray.backends.zarr, zarr.codecs

folder, kind, every = sys.argv[1], sys.argv[2], int(sys.argv[3])
lazyvol.chunks.CHUNK_BYTES = lazyvol.chunks.SHARD_BYTES = 16 * 32 * 32 * 2
volume = lv.open_volume(folder + "/dicom")


def child(work, name="", last=None):
    "Do some work in a process that dies before it touches a file once more than so often; say if so, and what it said."
    get, put = os.pipe()
    if (number := os.fork()) == 0:
        touched = 0

        def count(event, arguments):
            nonlocal touched
            path = arguments[0] if arguments and isinstance(arguments[0], str) else ""
            if event in TOUCHES and path.startswith(f"{folder}/{name}.zarr"):
                if touched == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                touched += 1

        sys.addaudithook(count)
        try:
            with dask.config.set(num_workers=2):
                said = work()
        except BaseException as error:
            said = repr(error)
        os.write(put, json.dumps([said, touched]).encode())
        os._exit(0)
    os.close(put)
    status = os.waitpid(number, 0)[1]
    with os.fdopen(get) as answer:
        return os.WIFSIGNALED(status), *json.loads(answer.read() or "[null, null]")


TOUCHES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "shutil.rmtree"}


def save(name, volume=volume):
    lv.save_zarr(volume, f"{folder}/{name}.zarr", levels=3, overwrite=kind == "replaced")


def seen(name):
    try:
        found = lv.open_zarr(f"{folder}/{name}.zarr").values
    except lv.LazyvolError as error:
        return type(error).__name__, str(error)
    if (found == volume.values).all():
        return "whole", ""
    return "old" if (found == volume.values + 1).all() else "DAMAGED", ""


def shards(name):
    found = (f for scale in range(3) for _, _, f in os.walk(f"{folder}/{name}.zarr.partial/scale{scale}/image/c"))
    return sum(f.isdecimal() for files in found for f in files)


def prepared(name):
    if kind == "replaced":
        child(lambda: save(name, volume + 1))


prepared("whole")
_, _, touches = child(lambda: save("whole"), "whole")
found = []
end = max(0, touches - 12)  # where the store takes its name
for last in [*range(0, end, every), *range(end, touches)]:
    name = f"killed{last}"
    prepared(name)
    inside, _, _ = child(lambda: save(name), name, last)
    there = shards(name)
    _, (what, said), _ = child(lambda: seen(name))
    _, again, _ = child(lambda: save(name))
    left = [f for f in os.listdir(folder) if f.startswith(name) and f != f"{name}.zarr"]
    found.append({"name": name, "inside": inside, "shards": there, "what": what, "said": said})
    found[-1] |= {"again": again, "left": left}
print(json.dumps({"touches": touches, "found": found}))
"""
"""Writers that are killed before each touch of a file, and what the next ones find and make of it."""
EVERY = {"new": 31, "replaced": 83}
"""Of the touches before the last twelve; all of them were tried once."""


@pytest.fixture(scope="module", params=EVERY)
def killed(request, tmp_path_factory):
    """Folder, kind, and what became of writers that were killed all over a save with levels."""
    if not hasattr(os, "fork"):
        pytest.skip("os.fork does not exist here")
    folder = tmp_path_factory.mktemp("killed")
    noise = np.random.default_rng(0).integers(-1024, 3000, (32, 32, 32))
    write_series(folder / "dicom", noise, spacing=(1.0, 1.0, 1.0), bits_stored=12, signed=False)
    command = [sys.executable, "-c", KILLER, str(folder), request.param, str(EVERY[request.param])]
    done = subprocess.run(command, check=False, capture_output=True, cwd=folder, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    print(request.param, said["touches"], [(f["inside"], f["shards"], f["what"]) for f in said["found"]])
    return folder, request.param, said["found"]


def test_writers_were_killed_while_they_wrote(killed):
    _, _, found = killed
    assert len(found) > 20
    assert sum(not f["inside"] for f in found) <= 4  # two threads may or may not make a folder both


def test_a_killed_writer_leaves_a_store_that_is_refused_or_whole(killed):
    _, kind, found = killed
    refused = {"new": {"IncompleteStoreError", "SourceNotFoundError"}, "replaced": {"old"}}[kind]
    assert {f["what"] for f in found} <= {"whole"} | refused


def test_killed_stores_say_how_many_shards_they_hold(killed):
    _, _, found = killed
    counted = [(re.search(r"incomplete: (\d+) of (?:\d+|an unknown number of) shards", f["said"]), f) for f in found]
    unnamed = [f for said, f in counted if f["what"] == "IncompleteStoreError" and not said]
    assert all(" is whole in " in f["said"] for f in unnamed)
    assert [int(said[1]) for said, f in counted if said] == [f["shards"] for said, f in counted if said]


def test_a_killed_store_is_gone_on_with_to_the_very_bytes(killed):
    folder, _, found = killed
    assert [f["again"] for f in found] == [None] * len(found)
    assert [f["left"] for f in found] == [[]] * len(found)
    expected = content_of(folder / "whole.zarr")
    assert [f["name"] for f in found if content_of(folder / f"{f['name']}.zarr") != expected] == []


def content_of(store):
    """Return the files of a store, without the number that differs between any two."""
    found = files_of(store)
    root = json.loads(found.pop("zarr.json"))
    del root["attributes"]["lazyvol"]["uid"]
    return found | {"zarr.json": root}


# Damaged


def shards_of(store):
    return sorted(p for p in (store / "scale0" / "image" / "c").rglob("*") if p.is_file())


def empty(path):
    path.write_bytes(b"")


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[20] ^= 4
    path.write_bytes(content)


@pytest.mark.usefixtures("thin_slabs")
@pytest.mark.parametrize("damage", [Path.unlink, empty], ids=["gone", "empty"])
def test_a_store_that_lost_a_shard_is_refused(volume, store, damage):
    lv.save_zarr(volume, store)
    damage(shards_of(store)[1])
    with pytest.raises(IncompleteStoreError, match=r"2 of 3 shards.*c/1/0/0 is absent or empty"):
        lv.open_zarr(store)


def test_a_file_that_is_no_shard_does_not_stand_for_one(volume, store):
    lv.save_zarr(volume, store)
    shard = shards_of(store)[0]
    shard.rename(shard.with_name(".hidden"))
    with pytest.raises(IncompleteStoreError, match=r"0 of 1 shards"):
        lv.open_zarr(store)


@pytest.mark.usefixtures("thin_slabs")
@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "no dask"])
@pytest.mark.parametrize("damage", [Path.unlink, empty, shorten], ids=["gone", "empty", "short"])
def test_a_shard_that_is_lost_after_opening_is_an_error(volume, store, damage, chunks):
    lv.save_zarr(volume, store)
    again = lv.open_zarr(store, chunks=chunks)
    damage(shards_of(store)[1])
    np.testing.assert_array_equal(again[:2], volume[:2])
    with pytest.raises(
        StoreError, match=r"image\[2:3, 0:7, 0:8\] in .*a\.zarr: the shard c/1/0/0 is gone or has changed"
    ):
        again[2].compute()


def test_a_store_that_vanishes_after_opening_is_an_error(volume, store):
    lv.save_zarr(volume, store)
    again = lv.open_zarr(store)
    store.rename(store.with_name("b.zarr"))
    with pytest.raises(StoreError, match=r"a\.zarr: the shard c/0/0/0 is gone"):
        again.compute()


def test_a_flipped_bit_is_an_error(volume, store):
    lv.save_zarr(volume, store)
    flip_a_bit(shards_of(store)[0])
    with pytest.raises(StoreError, match=r"image\[0:6, 0:7, 0:8\] in .*a\.zarr: cannot be decoded: .*checksum"):
        lv.open_zarr(store).compute()


def test_a_damaged_store_says_so_from_another_process(volume, store):
    lv.save_zarr(volume, store)
    again = lv.open_zarr(store)
    shards_of(store)[0].unlink()
    with (
        dask.config.set(scheduler="processes", num_workers=1),
        pytest.raises(StoreError, match=r"shard c/0/0/0 is gone"),
    ):
        again.compute()


def rewrite(store, **options):
    """Write the image of a store again, with other codecs."""
    image = zarr.open_array(store / "scale0" / "image", mode="r")
    values, asked = image[...], {"compressors": None, "chunks": image.chunks, "shards": image.shards} | options
    kept = {"fill_value": image.fill_value, "dimension_names": image.metadata.dimension_names}
    zarr.create_array(
        store / "scale0" / "image",
        shape=values.shape,
        dtype=values.dtype,
        attributes=dict(image.attrs),
        overwrite=True,
        config={"write_empty_chunks": True},
        **kept,
        **asked,
    )[...] = values


OTHER_CODECS = {
    "no checksums": {"compressors": BloscCodec()},
    "other compressor": {"compressors": ZstdCodec()},
    "no compressor": {},
    "not sharded": {"compressors": BloscCodec(), "shards": None},
    "index first": {
        "shards": None,
        "chunks": (2, 7, 8),
        "serializer": ShardingCodec(chunk_shape=(2, 7, 8), index_location="start"),
    },
    "index without checksum": {
        "shards": None,
        "chunks": (2, 7, 8),
        "serializer": ShardingCodec(chunk_shape=(2, 7, 8), index_codecs=[BytesCodec()]),
    },
    "big endian": {
        "shards": None,
        "chunks": (2, 7, 8),
        "serializer": ShardingCodec(chunk_shape=(2, 7, 8), codecs=[BytesCodec(endian="big"), BloscCodec()]),
    },
}


@pytest.mark.usefixtures("thin_slabs")
@pytest.mark.parametrize("options", OTHER_CODECS.values(), ids=OTHER_CODECS)
def test_a_store_that_lies_otherwise_in_its_files_opens(volume, store, options):
    lv.save_zarr(volume, store)
    rewrite(store, **options)
    again = lv.open_zarr(store, chunks=None)
    np.testing.assert_array_equal(again, volume)
    np.testing.assert_array_equal(again[[5, 0], 2], volume[[5, 0], 2])


@pytest.mark.usefixtures("thin_slabs")
@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "no dask"])
@pytest.mark.parametrize(
    "select",
    [
        lambda v: v[4, ::-2, [1, 5]],
        lambda v: v[[5, 0, 3], 2],
        lambda v: v[::-1, 3:3],
        lambda v: v[1:6:3, [True] * 6 + [False], -1],
        lambda v: v.isel(z=xr.DataArray([5, 0, 5], dims="p"), x=xr.DataArray([1, 7, 2], dims="p")),
        lambda v: v[5, 6, 7],
        lambda v: v[:, 1].transpose("x", "z"),
    ],
    ids=["backwards", "list", "nothing", "mask", "points", "voxel", "transposed"],
)
def test_a_store_is_read_by_any_selection(volume, store, chunks, select):
    lv.save_zarr(volume, store)
    again, whole = lv.open_zarr(store, chunks=chunks), volume.compute()
    np.testing.assert_array_equal(select(again).values, select(whole).values, strict=True)


@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "no dask"])
def test_an_opened_store_can_be_pickled(volume, store, chunks):
    lv.save_zarr(volume, store)
    again = pickle.loads(pickle.dumps(lv.open_zarr(store, chunks=chunks)))
    np.testing.assert_array_equal(again.values, volume.values)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_store_is_never_overwritten(chest_folder, tmp_path, kind):
    path = tmp_path / "precious"
    path.write_text("x") if kind == "file" else path.mkdir()
    with pytest.raises(StoreError, match="no Zarr store, so it is not overwritten"):
        lv.save_zarr(lv.open_volume(chest_folder), path, overwrite=True)
    assert path.exists()


# What cannot be written is named before anything is written


def assert_refused(volume, store, match, **options):
    with pytest.raises(LazyvolError, match=match):
        lv.save_zarr(volume, store, **options)
    assert {p.name for p in store.parent.iterdir()} <= {"dicom"}


@pytest.mark.parametrize(
    "value",
    [object(), np.datetime64("2020-01-01"), 1j, {1}, b"x", [1, object()]],
    ids=["object", "date", "complex", "set", "bytes", "list"],
)
def test_an_attribute_that_cannot_be_written_is_named(volume, store, value):
    assert_refused(volume.assign_attrs(foo=value), store, r"attribute 'foo' of the volume.*attrs\.pop\('foo'\)")


def test_an_attribute_of_a_coordinate_that_cannot_be_written_is_named(volume, store):
    volume.z.attrs["foo"] = object()
    assert_refused(volume, store, "attribute 'foo' of the coordinate 'z'")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(3), 3.0),
        (np.int16(3), 3),
        (np.bool_(True), True),
        (np.arange(3), [0, 1, 2]),
        ((np.int8(1), 2), [1, 2]),
        (np.ones((2, 1)), [[1.0], [1.0]]),
        ({"a": np.float32(0.5)}, {"a": 0.5}),
    ],
    ids=repr,
)
def test_an_attribute_of_numpy_is_written_as_plain_numbers(volume, store, value, expected):
    lv.save_zarr(volume.assign_attrs(foo=value), store)
    assert lv.open_zarr(store).attrs["foo"] == expected


@pytest.mark.parametrize(
    "coordinate",
    [("l", np.array([{}] * 6, object)), (("l", 1), np.arange(6)), ("image", np.arange(6))],
    ids=["things", "name", "image"],
)
def test_a_coordinate_that_cannot_be_written_is_named(volume, store, coordinate):
    name, values = coordinate
    assert_refused(volume.assign_coords({name: ("z", values)}), store, r"coordinate .* cannot be written.*drop_vars")


@pytest.mark.parametrize("dtype", ["complex64", "longdouble", "U3", "datetime64[s]", "object"])
def test_values_that_are_no_numbers_are_refused(volume, store, dtype):
    assert_refused(volume.astype(dtype), store, "a store holds whole numbers, floating point")


@pytest.mark.parametrize("options", [{"overwrite": "no"}, {"overwrite": None}, {"identifiers": ["uids"]}], ids=str)
def test_an_option_that_cannot_be_is_named(volume, store, options):
    ((name, value),) = options.items()
    assert_refused(volume, store, rf"{name}={re.escape(repr(value))}", **options)


def test_volumes_of_two_geometries_put_together_are_refused(volume, store):
    other = with_frame_of_reference(volume, "1.2.3")
    both = xr.concat([volume, other], "time", coords="different", compat="equals")
    assert_refused(both, store, "put together along time from 2 geometries")
    assert_refused(both.isel(time=1), store, "its attributes describe another geometry")


def test_a_dataset_is_refused_with_what_to_take(volume, store):
    assert_refused(volume.to_dataset(), store, r"Take dataset\['image'\]")


def test_a_key_that_cannot_be_kept_leaves_nothing(volume, store, tmp_path, monkeypatch):
    monkeypatch.delenv("LAZYVOL_KEY")
    (tmp_path / "dicom" / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "dicom" / "file"))
    assert_refused(volume, store, r"file/lazyvol/key: .*LAZYVOL_KEY.*identifiers=.uids.")
    lv.save_zarr(volume, store, identifiers="uids")


def test_a_choice_of_identifiers_that_is_not_known_is_named(chest_folder, tmp_path):
    with pytest.raises(OptionError, match="identifiers='all'"):
        lv.save_zarr(lv.open_volume(chest_folder), tmp_path / "a.zarr", identifiers="all")
