"""Stores that change: what was appended, rewritten or added is what one save makes, and nothing is lost on the way."""

from __future__ import annotations

import os
import warnings

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

import lazyvol as lv
from lazyvol.errors import GeometryError, IncompleteStoreError, LazyvolWarning, OptionError, StoreError
from lazyvol.phantom import write_series

CUT = {"chunks": {"z": 8}, "shards": {"z": 8}, "levels": 3}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grow")
    values = np.random.default_rng(3).integers(-1000, 1000, (30, 140, 36))
    write_series(folder / "dicom", values, spacing=(1.0, 1.0, 1.0))
    return lv.open_volume(folder / "dicom")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "a.zarr"


@pytest.fixture(scope="module")
def times(volume):
    """Five time points."""
    part = volume[:6].drop_vars(["acquisition_time"], errors="ignore")
    many = xr.concat([part + t for t in range(5)], "time", combine_attrs="override")
    return many.assign_coords(time=("time", np.arange(5) * 2.5, {"units": "s"})).chunk({"time": 1})


def levels_of(store):
    found = zarr.open_group(store, mode="r").attrs["lazyvol"]
    return [lv.open_zarr(store, level=n) for n in range(len(found["factors"]) + 1)]


def require_same(store, other):
    for found, expected in zip(levels_of(store), levels_of(other), strict=True):
        xr.testing.assert_identical(found.compute(), expected.compute())
    assert lv.verify_zarr(store).damaged == ()


@pytest.mark.parametrize("first", [1, 7, 8, 16, 21, 29])
def test_slices_appended_make_the_store_that_one_save_makes(volume, store, tmp_path, first):
    lv.save_zarr(volume[:first], store, **CUT)
    lv.append_zarr(volume[first:], store, dim="z")
    whole = lv.open_zarr(store)
    xr.testing.assert_identical(
        whole.drop_vars(["sop_instance_uid", "geometry"]).compute(),
        volume.drop_vars(["sop_instance_uid", "geometry", "source"]).compute(),
    )
    assert str(lv.geometry_of(whole)) == str(lv.geometry_of(volume))
    assert lv.verify_zarr(store).damaged == ()
    for n, level in enumerate(levels_of(store)):
        assert level.shape == tuple(zarr.open_array(store / f"scale{n}" / "image", mode="r").shape)


def test_slices_appended_to_stores_of_one_cut_give_the_same_levels(volume, store, tmp_path):
    lv.save_zarr(volume[:16], store, **CUT)
    lv.append_zarr(volume[16:24], store, dim="z")
    lv.append_zarr(volume[24:], store, dim="z")
    lv.save_zarr(volume, tmp_path / "b.zarr", **CUT)
    require_same(store, tmp_path / "b.zarr")


def test_time_points_appended_make_the_store_that_one_save_makes(times, store, tmp_path):
    lv.save_zarr(times[:2], store, levels=2)
    lv.append_zarr(times[2:4], store)
    lv.append_zarr(times[4:], store)
    lv.save_zarr(times, tmp_path / "b.zarr", levels=2)
    require_same(store, tmp_path / "b.zarr")


def test_a_flipped_store_grows_at_the_end_of_its_labels(volume, store):
    lv.save_zarr(volume[:20][::-1], store, **CUT)
    lv.append_zarr(volume[20:][::-1], store, dim="z")
    np.testing.assert_array_equal(lv.open_zarr(store), volume[::-1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: v[10:], StoreError, "z of the volume begins at .* reaches to"),
        (lambda v: v[20:, 1:], StoreError, "the labels of y are not those of"),
        (lambda v: v[20:].astype("float32"), StoreError, "is float32, .* is int16"),
        (lambda v: v[20:].drop_vars("instance_number"), StoreError, "'instance_number' is not in both"),
        (lambda v: v[20], StoreError, r"has the dimensions \('y', 'x'\)"),
    ],
    ids=["overlap", "cropped", "dtype", "coordinate", "dims"],
)
def test_what_does_not_go_behind_is_refused_and_changes_nothing(volume, store, change, error, message):
    lv.save_zarr(volume[:20], store, **CUT)
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    with pytest.raises(error, match=message):
        lv.append_zarr(change(volume), store, dim="z")
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_a_dimension_that_is_none_is_refused(volume, store):
    lv.save_zarr(volume[:20], store, **CUT)
    with pytest.raises(OptionError, match=r"dim='time'.*can grow along z, y, x"):
        lv.append_zarr(volume[20:], store)


def failing(volume):
    def fail(block):
        raise RuntimeError("stopped")

    data = volume.data.map_blocks(fail, dtype=volume.dtype, meta=np.empty((0,) * volume.ndim, volume.dtype))
    return volume.copy(data=data)


def test_an_append_that_was_stopped_leaves_the_store_as_it_was_with_a_warning(volume, store):
    lv.save_zarr(volume[:20], store, **CUT)
    with pytest.raises(RuntimeError, match="stopped"):
        lv.append_zarr(failing(volume[20:]), store, dim="z")
    with pytest.warns(LazyvolWarning, match="opens as it was before.*append_zarr"):
        again = lv.open_zarr(store)
    np.testing.assert_array_equal(again, volume[:20])
    lv.append_zarr(volume[20:], store, dim="z")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(lv.open_zarr(store), volume)


@pytest.mark.parametrize("step", ["_lengthen", "finish"])
def test_an_append_that_was_stopped_at_its_end_leaves_the_store_as_it_was(volume, store, monkeypatch, step):
    from lazyvol import grow

    lv.save_zarr(volume[:20], store, **CUT)
    real = getattr(grow, step)

    def stop(*args, **named):
        if step == "_lengthen":
            real(*args, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grow, step, stop)
        with pytest.raises(KeyboardInterrupt):
            lv.append_zarr(volume[20:], store, dim="z")
    with pytest.warns(LazyvolWarning, match="opens as it was before"):
        again = lv.open_zarr(store)
    np.testing.assert_array_equal(again, volume[:20])
    np.testing.assert_array_equal(again.z, volume.z[:20])
    with pytest.warns(LazyvolWarning, match="opens as it was before"):
        assert lv.open_zarr(store, level=1).shape == (10, 70, 18)
    lv.append_zarr(volume[20:], store, dim="z")
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    assert lv.verify_zarr(store).damaged == ()


@pytest.mark.parametrize(
    "part",
    [lambda v: v[3:5], lambda v: v[:, 10:13, 4:9], lambda v: v[7:9, 139:, :1], lambda v: v],
    ids=["slices", "block", "corner", "all"],
)
def test_a_region_is_written_at_all_levels(volume, store, tmp_path, part):
    lv.save_zarr(volume, store, **CUT)
    lv.save_region(part(volume) + 500, store)
    expected = volume.copy(data=volume.values)
    chosen = part(volume)
    expected.loc[{d: chosen[d] for d in "zyx"}] = chosen.values + 500
    lv.save_zarr(expected, tmp_path / "b.zarr", **CUT)
    for found, wanted in zip(levels_of(store), levels_of(tmp_path / "b.zarr"), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert lv.verify_zarr(store).damaged == ()


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (lambda v: v[::2], StoreError, "labels of z .* are not neighbouring"),
        (lambda v: v.assign_coords(z=v.z + 0.4), StoreError, "labels of z .* are not neighbouring"),
        (lambda v: v.astype("float32"), StoreError, "is float32"),
    ],
    ids=["strided", "between", "dtype"],
)
def test_a_region_that_is_none_is_refused(volume, store, part, error, message):
    lv.save_zarr(volume, store, **CUT)
    with pytest.raises(error, match=message):
        lv.save_region(part(volume), store)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_a_volume_that_lies_elsewhere_is_refused(volume, store, tmp_path):
    lean = ((0, np.sin(0.2), np.cos(0.2)), (0, 1, 0), (1, 0, 0))
    write_series(tmp_path / "lean", volume.values, spacing=(1.0, 1.0, 1.0), directions=lean)
    lv.save_zarr(volume, store, **CUT)
    with pytest.raises(GeometryError, match="lies elsewhere"):
        lv.save_region(lv.open_volume(tmp_path / "lean"), store)


def test_a_store_whose_region_was_half_written_does_not_open_until_it_is_written(volume, store):
    lv.save_zarr(volume, store, **CUT)
    with pytest.raises(RuntimeError, match="stopped"):
        lv.save_region(failing(volume[3:20]), store)
    with pytest.raises(IncompleteStoreError, match=r"a region of it was being written.*save_region again"):
        lv.open_zarr(store)
    lv.save_region(volume[3:20] + 1, store)
    np.testing.assert_array_equal(lv.open_zarr(store)[3:20], volume[3:20] + 1)
    assert lv.verify_zarr(store).damaged == ()


def test_another_region_does_not_make_a_half_written_store_whole(volume, store):
    lv.save_zarr(volume, store, **CUT)
    with pytest.raises(RuntimeError, match="stopped"):
        lv.save_region(failing(volume[3:20, 5:9]), store)
    for other in (volume[22:], volume[4:20], volume[:19, 5:9]):
        with pytest.raises(IncompleteStoreError, match=r"the region z 3 to 19, y 5 to 8, x 0 to 35 \(by number\)"):
            lv.save_region(other, store)
        with pytest.raises(IncompleteStoreError, match="a region of it was being written"):
            lv.open_zarr(store)
    lv.save_region(volume[2:21] + 1, store)  # in which it lies
    np.testing.assert_array_equal(lv.open_zarr(store)[2:21], volume[2:21] + 1)
    assert lv.verify_zarr(store).damaged == ()


def overtaken(volume, store, work):
    """Return a volume during whose first block the writer's lock is as old as that of a dead one, and another works."""
    done = []

    def overtake(block):
        if not done:
            done.append(1)
            (store / "lazyvol.lock").write_text('{"host": "elsewhere", "pid": 1, "token": "a"}')
            os.utime(store / "lazyvol.lock", (1, 1))
            work()
        return block

    data = volume.data.map_blocks(overtake, dtype=volume.dtype, meta=np.empty((0,) * volume.ndim, volume.dtype))
    return volume.copy(data=data)


def test_a_writer_that_was_overtaken_writes_nothing_more(volume, store):
    lv.save_zarr(volume, store, **CUT)
    said = "another one has taken over|has changed since the store was opened"
    with dask.config.set(scheduler="sync"), pytest.raises(StoreError, match=said):
        lv.save_region(overtaken(volume[3:20] + 1, store, lambda: lv.save_region(volume[3:20] + 2, store)), store)
    np.testing.assert_array_equal(lv.open_zarr(store)[3:20], volume[3:20] + 2)
    assert lv.verify_zarr(store).damaged == ()


def test_an_append_that_was_overtaken_writes_nothing_more(volume, store):
    lv.save_zarr(volume[:20], store, **CUT)
    with dask.config.set(scheduler="sync"), pytest.raises(StoreError, match="another one has taken over"):
        lv.append_zarr(
            overtaken(volume[20:] + 1, store, lambda: lv.append_zarr(volume[20:] + 2, store, dim="z")), store, dim="z"
        )
    np.testing.assert_array_equal(lv.open_zarr(store)[20:], volume[20:] + 2)
    assert lv.verify_zarr(store).damaged == ()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("change", ["region", "levels"])
def test_a_writer_that_was_overtaken_does_not_say_that_the_store_is_complete(volume, store, monkeypatch, change, late):
    from lazyvol import grow

    calls = {"region": lambda: lv.save_region(volume[3:20] + 1, store), "levels": lambda: lv.add_levels(store)}
    lv.save_zarr(volume, store, **CUT | {"levels": 1})
    real = grow.rewrite

    def beside_another(*args, **named):
        monkeypatch.undo()
        found = real(*args, **named) if late else None
        (store / "lazyvol.lock").unlink()
        calls[change]()
        return found or real(*args, **named)

    monkeypatch.setattr(grow, "rewrite", beside_another)
    with pytest.raises(StoreError, match=r"another one has taken over|has changed since the store was opened"):
        calls[change]()
    assert lv.verify_zarr(store).damaged == ()
    assert "claim" not in zarr.open_group(store, mode="r").attrs["lazyvol"]


@pytest.mark.parametrize("levels", [2, 3, "auto"])
def test_levels_added_later_are_those_of_one_save(volume, store, tmp_path, levels):
    lv.save_zarr(volume, store, **CUT | {"levels": 1})
    lv.add_levels(store, levels=levels)
    lv.save_zarr(volume, tmp_path / "b.zarr", **CUT | {"levels": levels})
    require_same(store, tmp_path / "b.zarr")
    about, other = (zarr.open_group(p, mode="r").attrs["ome"] for p in (store, tmp_path / "b.zarr"))
    assert about["multiscales"] == other["multiscales"]


def test_levels_that_are_there_already_are_not_made_again(volume, store):
    lv.save_zarr(volume, store, **CUT)
    with pytest.raises(OptionError, match="has 3 levels already"):
        lv.add_levels(store, levels=2)
    lv.add_levels(store, levels=3)
    assert len(levels_of(store)) == 3


def test_a_copy_is_the_same_to_the_byte(volume, store, tmp_path):
    lv.save_zarr(volume, store, **CUT)
    lv.copy_zarr(store, tmp_path / "b.zarr")
    files = [
        {str(p.relative_to(s)): p.read_bytes() for p in s.rglob("*") if p.is_file()}
        for s in (store, tmp_path / "b.zarr")
    ]
    assert files[0] == files[1]


def test_a_copy_goes_to_a_store_of_zarr_and_back(volume, store, tmp_path):
    lv.save_zarr(volume, store, **CUT)
    memory = zarr.storage.MemoryStore()
    lv.copy_zarr(store, memory)
    np.testing.assert_array_equal(lv.open_zarr(memory, level=1), lv.open_zarr(store, level=1))
    lv.copy_zarr(memory, tmp_path / "b.zarr")
    require_same(tmp_path / "b.zarr", store)


def test_a_copy_does_not_overwrite(volume, store, tmp_path):
    lv.save_zarr(volume, store, **CUT)
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "mine").write_text("mine")
    with pytest.raises(StoreError, match="is not empty"):
        lv.copy_zarr(store, tmp_path / "b.zarr")
    assert (tmp_path / "b.zarr" / "mine").read_text() == "mine"


def test_a_store_is_not_copied_into_itself(volume, store):
    lv.save_zarr(volume[:4], store, levels=1)
    with pytest.raises(StoreError, match=r"lies in .*, which is copied"):
        lv.copy_zarr(store, store / "b.zarr")
    assert lv.verify_zarr(store).damaged == ()
