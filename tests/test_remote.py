"""Stores that are no folders: any store of zarr, any URL; whole or visibly not there too."""

from __future__ import annotations

import os
import socket
import time

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.core.sync import sync
from zarr.storage import FsspecStore, MemoryStore, ZipStore

import lazyvol as lv
from lazyvol.errors import IncompleteStoreError, LazyvolWarning, OptionError, PixelReadError, StoreError
from lazyvol.phantom import write_series
from lazyvol.place import place_of
from lazyvol.subfolder import Subfolder

CUT = {"chunks": {"z": 8}, "shards": {"z": 8}, "levels": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "dicom"
    values = np.random.default_rng(3).integers(-1000, 1000, (20, 24, 28))
    write_series(folder, values, spacing=(1.0, 1.0, 1.0))
    return folder


@pytest.fixture
def volume(folder):
    return lv.open_volume(folder)


@pytest.fixture(scope="module")
def bucket():
    """Options of an S3 service on this machine, with the bucket ``volumes``."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "a", "secret": "b"}
    import fsspec

    fsspec.filesystem("s3", **options).mkdir("volumes")
    yield options
    running.stop()


def counter():
    number = iter(range(1000))
    return lambda: f"memory://stores/{os.getpid()}-{next(number)}.zarr"


name = counter()


@pytest.fixture(params=["memory of zarr", "memory of fsspec", "URL", "s3"])
def store(request):
    if request.param == "s3":
        options = request.getfixturevalue("bucket")
        return FsspecStore.from_url(f"s3://volumes/{time.monotonic_ns()}.zarr", storage_options=options)
    if request.param == "memory of fsspec":
        return FsspecStore.from_url(name())
    return MemoryStore() if request.param == "memory of zarr" else name()


def test_a_volume_comes_back_identical(volume, store):
    lv.save_zarr(volume, store, identifiers="uids", **CUT)
    again = lv.open_zarr(store)
    xr.testing.assert_identical(again.compute(), volume.drop_vars("source").compute())
    assert lv.open_zarr(store, level=1).shape == (10, 12, 14)
    assert lv.verify_zarr(store).damaged == ()


def test_a_part_is_read_without_the_rest(volume, store):
    lv.save_zarr(volume, store, **CUT)
    np.testing.assert_array_equal(lv.open_zarr(store, chunks=None)[3:5, ::2, 7], volume[3:5, ::2, 7])


def failing(volume):
    def fail(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 2:
            raise PixelReadError("stopped")
        return block

    meta = np.empty((0,) * volume.ndim, volume.dtype)
    return volume.copy(data=volume.chunk({"z": 8}).data.map_blocks(fail, dtype=volume.dtype, meta=meta))


def test_a_store_that_was_not_finished_is_refused_with_its_progress(volume, store):
    with pytest.raises(PixelReadError):
        lv.save_zarr(failing(volume), store, **CUT)
    with pytest.raises(IncompleteStoreError, match=r"is incomplete: [0-3] of 5 shards"):
        lv.open_zarr(store)


def test_plain_xarray_finds_no_level_before_it_is_finished(volume):
    store = MemoryStore()
    with pytest.raises(PixelReadError):
        lv.save_zarr(failing(volume), store, **CUT)
    with pytest.raises((KeyError, FileNotFoundError)):
        xr.open_zarr(store, group="scale0", consolidated=False)
    assert "ome" not in zarr.open_group(store, mode="r").attrs


def test_a_store_that_was_not_finished_is_gone_on_with(volume, store):
    reads = []

    def watch(block):
        reads.append(block.shape)
        return block

    meta = np.empty((0, 0, 0), volume.dtype)
    blocks = volume.chunk({"z": 8})
    first = blocks.copy(data=blocks.data.map_blocks(watch, dtype=volume.dtype, meta=meta, name="watched"))
    lv.save_zarr(first, store, **CUT)
    assert len(reads) == 3
    place = store if isinstance(store, zarr.abc.store.Store) else FsspecStore.from_url(store)
    root = zarr.open_group(place, mode="r+")
    root.attrs["lazyvol"] = {**root.attrs["lazyvol"], "complete": False}
    zarr.core.sync.sync(place.delete("scale0/image/c/1/0/0"))
    lv.save_zarr(first, store, **CUT)
    assert len(reads) == 4
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    assert lv.verify_zarr(store).damaged == ()


def test_an_equal_store_has_nothing_to_do_and_another_is_refused(volume, store):
    lv.save_zarr(volume, store, **CUT)
    lv.save_zarr(volume, store, **CUT)
    with pytest.raises(StoreError, match="is of another volume"):
        lv.save_zarr(volume + 1, store, **CUT)
    lv.save_zarr(volume + 1, store, overwrite=True, **CUT)
    np.testing.assert_array_equal(lv.open_zarr(store), volume + 1)


def test_a_store_grows_where_it_is(volume, store):
    lv.save_zarr(volume[:11], store, **CUT)
    lv.append_zarr(volume[11:], store, dim="z")
    lv.save_region(volume[3:5] + 7, store)
    expected = volume.values.copy()
    expected[3:5] += 7
    np.testing.assert_array_equal(lv.open_zarr(store), expected)
    assert lv.verify_zarr(store).damaged == ()


def test_damage_is_named(volume):
    store = MemoryStore()
    lv.save_zarr(volume, store, **CUT)
    key = "scale0/image/c/1/0/0"
    content = bytearray(store._store_dict[key].to_bytes())
    content[9] ^= 1
    store._store_dict[key] = zarr.core.buffer.cpu.Buffer.from_bytes(bytes(content))
    assert len(lv.verify_zarr(store).damaged) == 1
    with pytest.raises(StoreError, match=r"image\[8:16.*does not match its checksum"):
        lv.open_zarr(store)[8:16].compute()


def test_a_shard_that_is_gone_makes_a_store_incomplete(volume):
    store = MemoryStore()
    lv.save_zarr(volume, store, **CUT)
    del store._store_dict["scale0/image/c/1/0/0"]
    with pytest.raises(IncompleteStoreError, match="c/1/0/0 is absent"):
        lv.open_zarr(store)


def writer_of(store, **said):
    root = zarr.open_group(store, mode="r+")
    about = root.attrs["lazyvol"]
    root.attrs["lazyvol"] = {
        **about,
        "complete": False,
        "writer": {"host": "elsewhere", "pid": 1, "at": time.time()} | said,
    }


def test_a_second_writer_is_refused_while_the_first_shows_life(volume):
    store = MemoryStore()
    lv.save_zarr(volume, store, **CUT)
    writer_of(store)
    with pytest.raises(StoreError, match="is being written by process 1 on elsewhere"):
        lv.save_zarr(volume, store, **CUT)


@pytest.mark.parametrize(
    "said", [{"at": time.time() - 70}, {"host": socket.gethostname(), "pid": 2**22 + 7}], ids=["silent", "dead"]
)
def test_a_writer_that_is_no_more_is_taken_over(volume, said):
    store = MemoryStore()
    lv.save_zarr(volume, store, **CUT)
    writer_of(store, **said)
    lv.save_zarr(volume, store, **CUT)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_a_writer_shows_life_in_the_root(volume, monkeypatch):
    monkeypatch.setattr("lazyvol.lock._HEARTBEAT", 0.01)
    store, seen = MemoryStore(), []

    def look(block):
        for _ in range(20):
            seen.append(zarr.open_group(store, mode="r").attrs["lazyvol"]["writer"]["at"])
            time.sleep(0.02)
        return block

    meta = np.empty((0, 0, 0), volume.dtype)
    lv.save_zarr(volume.copy(data=volume.data.map_blocks(look, dtype=volume.dtype, meta=meta)), store)
    assert len(set(seen)) > 2
    assert "writer" not in zarr.open_group(store, mode="r").attrs["lazyvol"]


def test_a_store_that_cannot_change_its_files_is_refused_before_anything_is_written(volume, tmp_path):
    with pytest.raises(OptionError, match="cannot change what it holds"):
        lv.save_zarr(volume, ZipStore(tmp_path / "a.zip", mode="w"))
    assert not (tmp_path / "a.zip").exists()


def test_a_packed_store_is_read(volume, tmp_path):
    lv.save_zarr(volume, tmp_path / "a.zarr", **CUT)
    with ZipStore(tmp_path / "a.zip", mode="w") as packed:
        for path in (tmp_path / "a.zarr").rglob("*"):
            if path.is_file():
                content = zarr.core.buffer.cpu.Buffer.from_bytes(path.read_bytes())
                zarr.core.sync.sync(packed.set(str(path.relative_to(tmp_path / "a.zarr")), content))
    with ZipStore(tmp_path / "a.zip", mode="r") as packed:
        np.testing.assert_array_equal(lv.open_zarr(packed), volume)


def test_what_is_no_store_is_named(volume):
    with pytest.raises(OptionError, match="store=dict must be a path, a URL or a store of zarr"):
        lv.save_zarr(volume, {})


def test_a_url_of_an_unknown_kind_is_named(volume):
    with pytest.raises(StoreError, match="nothing://a cannot be reached"):
        lv.save_zarr(volume, "nothing://a")


def test_a_url_where_nothing_lies_is_no_store():
    with pytest.raises(StoreError, match="is no Zarr store"):
        lv.open_zarr(name())


def test_saving_later_writes_nothing_now(volume):
    store = MemoryStore()
    later = lv.save_zarr(volume, store, compute=False)
    assert store._store_dict == {}
    later.compute()
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_a_session_of_icechunk_holds_a_store_that_grows_by_commits(volume, tmp_path):
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repository")))
    commits = []
    for write in (lambda s: lv.save_zarr(volume[:11], s, **CUT), lambda s: lv.append_zarr(volume[11:], s, dim="z")):
        session = repository.writable_session("main")
        write(session.store)
        commits.append(session.commit("saved"))
    opened = [lv.open_zarr(repository.readonly_session(snapshot_id=commit).store) for commit in commits]
    assert [len(v) for v in opened] == [11, 20]
    np.testing.assert_array_equal(opened[1], volume)
    assert lv.verify_zarr(repository.readonly_session("main").store).damaged == ()


def test_a_service_that_goes_away_leaves_a_store_that_is_gone_on_with(volume):
    """The connection is lost in the middle; what was written before stands."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    options = {
        "endpoint_url": f"http://{host}:{port}",
        "key": "a",
        "secret": "b",
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
    }
    import fsspec

    fsspec.filesystem("s3", **options).mkdir("lost")
    store = FsspecStore.from_url("s3://lost/a.zarr", storage_options=options)

    def cut_off(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 2:
            running.stop()
        return block

    meta = np.empty((0, 0, 0), volume.dtype)
    blocks = volume.chunk({"z": 8})
    first = blocks.copy(data=blocks.data.map_blocks(cut_off, dtype=volume.dtype, meta=meta, name="cut-off"))
    try:
        with (
            dask.config.set(scheduler="sync"),
            pytest.raises(StoreError, match=r"cannot be written.*call "),
        ):
            lv.save_zarr(first, store, **CUT)
    finally:
        again = server.ThreadedMotoServer(port=port, verbose=False)
        again.start()
    try:
        with pytest.raises(IncompleteStoreError, match="is incomplete"):
            lv.open_zarr(store)
        lv.save_zarr(blocks.copy(data=blocks.data.map_blocks(lambda b: b, meta=meta, name="cut-off")), store, **CUT)
        np.testing.assert_array_equal(lv.open_zarr(store), volume)
    finally:
        again.stop()


@pytest.mark.parametrize("kind", ["icechunk", "memory"])
def test_frames_that_were_filled_are_named_there_too(folder, tmp_path, kind):
    paths = sorted(folder.iterdir())
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in paths:
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[:-10] if path == paths[4] else content)
    if kind == "icechunk":
        icechunk = pytest.importorskip("icechunk")
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repository")))
        store = repository.writable_session("main").store
    else:
        store = MemoryStore()
    with pytest.warns(LazyvolWarning, match="was filled"):
        lv.save_zarr(lv.open_volume(broken, on_error="fill"), store, **CUT)
    assert "frames-filled" in [f.code for f in lv.findings_of(lv.open_zarr(store))]
    assert sorted(k for k, _ in zarr.open_group(store, mode="r").members()) == ["scale0", "scale1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v, s: lv.save_zarr(v * 0, s, overwrite=True, **CUT),
        lambda v, s: lv.save_region(v[3:8] * 0, s),
    ],
    ids=["overwritten", "region"],
)
def test_a_store_that_changed_since_it_was_opened_is_not_read(volume, store, change):
    lv.save_zarr(volume, store, **CUT)
    again = lv.open_zarr(store)
    change(volume, store)
    with pytest.raises(StoreError, match="has changed since it was opened"):
        again[3:8].compute()


def test_what_lies_beside_a_store_is_never_overwritten(volume):
    memory = MemoryStore()
    zarr.core.sync.sync(memory.set("notes.txt", zarr.core.buffer.cpu.Buffer.from_bytes(b"mine")))
    with pytest.raises(StoreError, match=r"holds notes\.txt too, which would be lost"):
        lv.save_zarr(volume, memory)
    assert list(memory._store_dict) == ["notes.txt"]


def test_what_lies_in_a_store_is_not_overwritten_with_it(volume):
    memory = MemoryStore()
    lv.save_zarr(volume, memory, **CUT)
    zarr.core.sync.sync(memory.set("inner.zarr/zarr.json", zarr.core.buffer.cpu.Buffer.from_bytes(b"{}")))
    with pytest.raises(StoreError, match=r"holds inner\.zarr too"):
        lv.save_zarr(volume + 1, memory, overwrite=True, **CUT)


# Labels beside the image
def test_labels_lie_beside_their_image_in_a_session_of_icechunk(volume):
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    test_labels_lie_beside_their_image(volume, repository.writable_session("main").store)


def test_labels_lie_beside_their_image(volume, store):
    bone = (volume > 500).astype("uint8")
    lv.save_zarr(volume, store, **CUT)
    before = lv.open_zarr(store).compute()
    lv.save_zarr(bone, store, group="labels/bone", **CUT)
    lv.save_zarr(bone[4:12], store, group="labels/part", **CUT)
    np.testing.assert_array_equal(lv.open_zarr(store, group="labels/bone"), bone)
    np.testing.assert_array_equal(lv.open_zarr(store, group="labels/part").z, bone.z[4:12])
    assert lv.open_zarr(store, group="labels/bone", level=1).shape == (10, 12, 14)
    xr.testing.assert_identical(lv.open_zarr(store).compute(), before)
    root = zarr.open_group(place_of(store, writable=False).store, mode="r")
    assert root["labels"].attrs["ome"] == {"version": "0.5", "labels": ["bone", "part"]}
    assert root["labels/bone"].attrs["ome"]["image-label"]["source"] == {"image": "../../"}


def test_labels_that_were_not_written_to_their_end_are_not_opened_and_gone_on_with(volume, store, monkeypatch):
    bone = (volume > 500).astype("uint8")
    lv.save_zarr(volume, store, **CUT)
    bad = bone.copy(data=bone.data.map_blocks(raise_in_the_end, dtype="uint8"))
    with pytest.raises(ZeroDivisionError):
        lv.save_zarr(bad, store, group="labels/bone", **CUT)
    with pytest.raises(IncompleteStoreError, match=r"labels/bone is incomplete: \d of \d+ shards"):
        lv.open_zarr(store, group="labels/bone")
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    lv.save_zarr(bone, store, group="labels/bone", overwrite=True, **CUT)
    np.testing.assert_array_equal(lv.open_zarr(store, group="labels/bone"), bone)


def raise_in_the_end(block, block_info=None):
    if block_info[None]["array-location"][0][1] > 8:
        raise ZeroDivisionError
    return block


def test_labels_need_an_image(volume, store):
    with pytest.raises(StoreError):
        lv.save_zarr((volume > 0).astype("uint8"), store, group="labels/bone")


def test_another_image_does_not_take_the_place_of_one_with_labels(volume, store):
    lv.save_zarr(volume, store, **CUT)
    lv.save_zarr((volume > 0).astype("uint8"), store, group="labels/bone", **CUT)
    with pytest.raises(StoreError, match="holds labels too, which would be lost"):
        lv.save_zarr(volume + 1, store, overwrite=True, **CUT)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_a_folder_of_a_store_is_a_store():
    """What zarr asks of any store."""
    below, other = Subfolder(MemoryStore(), "a/b"), Subfolder(MemoryStore(), "a/b")
    array = zarr.create_array(below, name="x", shape=(4, 6), chunks=(2, 3), dtype="int16")
    array[:] = np.arange(24).reshape(4, 6)
    assert sorted(key for key in below._store._store_dict) == sorted(f"a/b/{k}" for k in sync(keys_of(below)))
    np.testing.assert_array_equal(zarr.open_array(below, path="x")[1:3], array[1:3])
    assert [name for name, _ in zarr.open_group(below, mode="a").arrays()] == ["x"]
    zarr.create_array(Subfolder(below._store, "a/c"), name="y", shape=4, dtype="int16")[:] = 1
    assert below != other
    assert below == Subfolder(below._store, "a/b")
    assert str(below).endswith("/a/b")
    sync(below.clear())
    assert all(key.startswith("a/c/") for key in below._store._store_dict)
    assert sync(below.is_empty(""))


async def keys_of(store):
    return [key async for key in store.list()]
