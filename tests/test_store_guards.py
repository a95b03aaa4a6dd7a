"""What would come back wrong, or take something along, is refused before anything is written, or when it is opened."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr

import lazyvol as lv
from lazyvol import coordinates, grow
from lazyvol.errors import GeometryError, IncompleteStoreError, LazyvolError, LazyvolWarning, OptionError, StoreError
from lazyvol.phantom import write_series

CUT = {"chunks": {"z": 4}, "shards": {"z": 4}, "levels": 2}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guards") / "dicom"
    write_series(folder, np.random.default_rng(3).integers(-999, 999, (12, 16, 20)), spacing=(1.0, 1.0, 1.0))
    return lv.open_volume(folder)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("name", ["z", "geometry", "instance_number", "other", "a" * 65])
def test_arrays_are_not_called_like_coordinates(volume, store, name):
    c = volume.assign_coords(other=(("z", "y", "x"), np.full(volume.shape, 7)))
    with pytest.raises(OptionError, match="is that of a coordinate or dimension, or too long"):
        lv.save_zarr(c, store, name=name)
    assert not store.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.assign_attrs(scale_factor=2.0), "'scale_factor' of the volume"),
        (lambda v: v.assign_attrs(_FillValue=-1000), "'_FillValue' of the volume"),
        (lambda v: v.assign_attrs(_Unsigned="true"), "'_Unsigned' of the volume"),
        (lambda v: v.assign_attrs(units="days since 2000-01-01"), "'units' of the volume"),
        (lambda v: v.assign_attrs(nothing=None), "'nothing' of the volume"),
        (lambda v: v.assign_attrs(far=float("inf")), "'far' of the volume.*infinity"),
        (lambda v: v.assign_attrs({3: 1}), "3 of the volume.*no text"),
        (lambda v: v.assign_attrs(deep={1: 2}), "'deep' of the volume"),
        (lambda v: v.assign_coords(z=v.z.assign_attrs(add_offset=1.0)), "'add_offset' of the coordinate 'z'"),
        (lambda v: v.assign_coords(z=("z", v.z.values / 10, {"units": "cm"})), "the labels of z are float64 in 'cm'"),
        (lambda v: v.assign_coords(z=v.z.values.astype("timedelta64[s]")), "the labels of z are timedelta64"),
        (lambda v: v.assign_coords({"a/b": 1}), "'a/b' of int64 cannot be written"),
        (lambda v: v.assign_coords({"..": 1}), r"'\.\.' of int64 cannot be written"),
        (lambda v: v.assign_coords({"zarr.json": 1}), r"'zarr\.json' of int64 cannot be written"),
        (lambda v: v.expand_dims("a/b"), "the dimension 'a/b' cannot be written"),
    ],
    ids=["scale", "fill", "unsigned", "since", "None", "inf", "key", "deep key", "offset of z", "cm", "times", "slash",
         "dots", "metadata", "dimension"],
)  # fmt: skip
def test_what_other_readers_would_change_is_refused(volume, store, change, message):
    with pytest.raises(StoreError, match=message):
        lv.save_zarr(change(volume), store)
    assert not store.exists()


@pytest.mark.parametrize(
    "option", [{"chunks": 2.5}, {"chunks": "auto"}, {"shards": (4, 4, 4)}, {"levels": "x"}], ids=str
)
def test_options_that_cannot_be_are_named(volume, store, option):
    with pytest.raises(OptionError, match=next(iter(option))):
        lv.save_zarr(volume, store, **option)


def test_a_store_needs_a_name(volume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="store='' is no path"):
        lv.save_zarr(volume, "")
    assert list(tmp_path.iterdir()) == []


def test_coordinates_on_blocks_are_written(volume, store):
    lv.save_zarr(volume.chunk(z=5)[3:], store, identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(store).compute(), volume[3:].drop_vars("source").compute())


def test_a_relative_path_is_that_of_the_call(volume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lv.save_zarr(volume, "a.zarr")
    again = lv.open_zarr("a.zarr")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(again, volume)


def test_a_link_stays_a_link(volume, store, tmp_path):
    lv.save_zarr(volume, store)
    link = tmp_path / "link.zarr"
    link.symlink_to(store)
    lv.save_zarr(volume + 1, link, overwrite=True)
    assert link.is_symlink()
    np.testing.assert_array_equal(lv.open_zarr(store), volume + 1)


@pytest.mark.parametrize("beside", ["notes.txt", "labels/bone"])
def test_overwriting_takes_nothing_along(volume, store, beside):
    lv.save_zarr(volume, store)
    if beside == "notes.txt":
        (store / beside).write_text("mine")
    else:
        lv.save_zarr((volume > 0).astype("uint8"), store, group=beside)
    with pytest.raises(StoreError, match=f"holds {beside.split('/')[0]} too, which would be lost"):
        lv.save_zarr(volume + 1, store, overwrite=True)
    assert (store / beside).exists()


# Volumes that come from a store


def test_a_part_of_a_store_goes_back_into_it(volume, store):
    lv.save_zarr(volume, store, **CUT)
    again = lv.open_zarr(store)
    lv.save_region(again[3:5] * 0, store)
    assert int(abs(lv.open_zarr(store)[3:5]).max()) == 0


def test_equal_uids_stay_equal_from_store_to_store(volume, store, tmp_path):
    lv.save_zarr(volume, store)
    lv.save_zarr(lv.open_zarr(store), tmp_path / "b.zarr")
    first, second = (lv.open_zarr(p).drop_attrs(deep=False).compute() for p in (store, tmp_path / "b.zarr"))
    xr.testing.assert_identical(first, second)


def test_uids_and_paths_under_other_names_do_not_leave(volume, store):
    renamed = volume.rename(sop_instance_uid="mine", source="from_where").assign_attrs(
        Uid=volume.sop_instance_uid.values[0]
    )
    lv.save_zarr(renamed, store)
    again = lv.open_zarr(store)
    assert "from_where" not in again.coords
    assert not {*again.mine.values, again.attrs["Uid"]} & {*volume.sop_instance_uid.values}


# Damaged stores


def lose(path):
    shutil.rmtree(path)


def lose_values(path):
    values = path / "c"
    shutil.rmtree(values) if values.is_dir() else values.unlink()


def change(path):
    zarr.open_array(path, mode="r+")[0] = 99


@pytest.mark.parametrize("name", ["z", "instance_number", "geometry"])
@pytest.mark.parametrize("damage", [lose, lose_values, lambda p: (p / "zarr.json").write_text("{}")],
                         ids=["gone", "values gone", "metadata"])  # fmt: skip
def test_coordinates_that_are_lost_are_not_made_up(volume, store, name, damage):
    lv.save_zarr(volume, store)
    damage(store / "scale0" / name)
    with pytest.raises(
        StoreError, match=r"the coordinates in scale0 of .* (are not those that were written|cannot be read)"
    ):
        lv.open_zarr(store)


def test_coordinates_that_were_changed_are_noticed(volume, store):
    lv.save_zarr(volume, store)
    change(store / "scale0" / "z")
    with pytest.raises(StoreError, match="are not those that were written"):
        lv.open_zarr(store)


def edit(store, **said):
    path = store / "zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["lazyvol"] |= said
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("layout", [99, -1, "x", None])
def test_a_layout_that_is_not_known_is_not_read(volume, store, layout):
    lv.save_zarr(volume, store)
    edit(store, layout=layout)
    with pytest.raises(StoreError, match=r"has the layout .* Update lazyvol"):
        lv.open_zarr(store)


@pytest.mark.parametrize("said", [{"dims": None}, {"order": None}, {"split": 3}, {"name": "nothing"}], ids=str)
def test_metadata_that_somebody_edited_are_an_error_of_ours(volume, store, said):
    lv.save_zarr(volume, store)
    edit(store, **said)
    with pytest.raises(LazyvolError):
        lv.open_zarr(store)


@pytest.mark.parametrize("said", [{"checksums": None}, {"coordinates": None}, {"checksums": "x"}], ids=str)
def test_a_store_without_checksums_is_not_said_to_be_sound(volume, store, said):
    lv.save_zarr(volume, store)
    edit(store, **said)
    with pytest.raises(LazyvolError):
        lv.verify_zarr(store)


# Appending


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda v: v.assign_attrs(units="mSv"), "units of the volume is 'mSv'"),
        (lambda v: v.assign_attrs(Modality="PT"), "Modality of the volume is 'PT'"),
        (lambda v: v.assign_coords(s=2), "the coordinate 's' is 1 in"),
        (lambda v: v.assign_coords(instance_number=v.instance_number + 0.5), "'instance_number' is int64"),
    ],
    ids=["units", "modality", "scalar", "dtype"],
)
def test_what_does_not_go_behind_is_refused_before_the_store_is_marked(volume, store, part, message):
    given = volume.assign_coords(s=1)
    lv.save_zarr(given[:6], store, **CUT)
    with pytest.raises(StoreError, match=message):
        lv.append_zarr(part(given[6:]), store, dim="z")
    np.testing.assert_array_equal(lv.open_zarr(store), volume[:6])
    assert lv.verify_zarr(store).damaged == ()


@pytest.mark.parametrize("after", range(8))
def test_an_append_that_was_stopped_between_coordinates_can_be_opened_and_gone_on_with(
    volume, store, monkeypatch, after
):
    lv.save_zarr(volume[:6], store, **CUT)
    real, count = zarr.core.array.AsyncArray.resize, iter(range(100))

    async def stop(self, *args, **named):
        if next(count) >= after:
            raise RuntimeError("stopped")
        return await real(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.core.array.AsyncArray, "resize", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            lv.append_zarr(volume[6:], store, dim="z")
    with pytest.warns(LazyvolWarning, match="opens as it was before"):
        again = lv.open_zarr(store)
    np.testing.assert_array_equal(again, volume[:6])
    np.testing.assert_array_equal(again.instance_number, volume.instance_number[:6])
    lv.append_zarr(volume[6:], store, dim="z")
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    np.testing.assert_array_equal(lv.open_zarr(store).instance_number, volume.instance_number)
    assert lv.verify_zarr(store).damaged == ()


def test_levels_whose_making_was_stopped_are_made_by_the_same_call(volume, store, monkeypatch):
    lv.save_zarr(volume, store, **CUT | {"levels": 1})

    def stop(*_args, **_named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grow, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            lv.add_levels(store, levels=3)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    lv.add_levels(store, levels=3)
    assert lv.open_zarr(store, level=2).shape == (3, 4, 5)
    assert lv.verify_zarr(store).damaged == ()


# Labels


@pytest.mark.parametrize(
    "away", [lambda v: v.assign_coords(z=v.z + 1000), lambda v: v.assign_coords(x=v.x + 0.5)], ids=["z", "x"]
)
def test_labels_lie_on_their_image(volume, store, away):
    lv.save_zarr(volume, store)
    with pytest.raises(GeometryError, match="are not among those of"):
        lv.save_zarr(away((volume > 0).astype("uint8")), store, group="labels/off")
    assert not (store / "labels").exists()


def test_labels_of_a_part_of_an_image_may_lie_beside_it(volume, store):
    lv.save_zarr(volume, store)
    lv.save_zarr((volume[2:5, ::-1] > 0).astype("uint8"), store, group="labels/part")
    np.testing.assert_array_equal(lv.open_zarr(store, group="labels/part"), volume[2:5, ::-1] > 0)


def test_coordinates_read_as_they_were_are_those_of_before(volume, store):
    lv.save_zarr(volume, store)
    found = coordinates.read_coordinates(grow.place_of(store, writable=False), "scale0", "image", {"z": 5})
    np.testing.assert_array_equal(found.z, volume.z[:5])
    assert os.listdir(store)


# Mended in place
def shard_of(store, level=0):
    return min(p for p in (store / f"scale{level}" / "image" / "c").rglob("*") if p.is_file())


def lose(store):
    shard_of(store).unlink()


def empty_out(store):
    shard_of(store).write_bytes(b"")


def lose_metadata(store):
    (store / "scale0" / "image" / "zarr.json").unlink()


def lose_labels_of_z(store):
    import shutil

    shutil.rmtree(store / "scale0" / "z")


@pytest.mark.parametrize("damage", [lose, empty_out, lose_metadata, lose_labels_of_z], ids=lambda f: f.__name__)
def test_what_a_store_lacks_is_added_and_what_lies_beside_it_stays(volume, store, damage):
    lv.save_zarr(volume, store)
    lv.save_zarr((volume > 0).astype("uint8"), store, group="labels/bone")
    (store / "notes.txt").write_text("mine")
    damage(store)
    with pytest.raises(StoreError):
        lv.open_zarr(store)
    lv.save_zarr(volume, store)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    np.testing.assert_array_equal(lv.open_zarr(store, group="labels/bone"), volume > 0)
    assert (store / "notes.txt").read_text() == "mine"
    assert lv.verify_zarr(store).damaged == ()
    assert not store.with_name(f"{store.name}.partial").exists()


def test_a_mending_that_was_stopped_leaves_an_incomplete_store_and_goes_on(volume, store, monkeypatch):
    lv.save_zarr(volume, store)
    lv.save_zarr((volume > 0).astype("uint8"), store, group="labels/bone")
    lose(store)
    monkeypatch.setattr("lazyvol.store.finish", lambda *_a, **_k: (_ for _ in ()).throw(KeyError("stopped")))
    with pytest.raises(KeyError):
        lv.save_zarr(volume, store)
    with pytest.raises(IncompleteStoreError):
        lv.open_zarr(store)
    monkeypatch.undo()
    lv.save_zarr(volume, store)
    np.testing.assert_array_equal(lv.open_zarr(store), volume)
    np.testing.assert_array_equal(lv.open_zarr(store, group="labels/bone"), volume > 0)


def test_a_shard_that_was_exchanged_or_damaged_is_written_again_if_asked_for(volume, store):
    cut = {"chunks": {"z": 8}, "shards": {"z": 8}}
    lv.save_zarr(volume, store, **cut)
    shards = sorted(p for p in (store / "scale0" / "image" / "c").rglob("*") if p.is_file())
    shards[1].write_bytes(shards[0].read_bytes())
    content = bytearray(shards[-1].read_bytes())
    content[50] ^= 1
    shards[-1].write_bytes(content)
    assert len(lv.verify_zarr(store).damaged) == len({shards[1], shards[-1]})
    lv.save_zarr(volume, store, overwrite=True, **cut)
    assert lv.verify_zarr(store).damaged == ()
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


def test_a_region_that_covers_a_damaged_shard_mends_it(volume, store):
    cut = {"chunks": {"z": 8}, "shards": {"z": 8}, "levels": 1}
    lv.save_zarr(volume, store, **cut)
    shard = shard_of(store)
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    lv.save_region(volume[:8], store)
    assert lv.verify_zarr(store).damaged == ()
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


@pytest.mark.parametrize("beside", ["notes.txt", "labels/nuclei/zarr.json", "a.zarr/zarr.json"])
@pytest.mark.parametrize("kind", ["image", "group"])
def test_overwriting_a_store_of_another_tool_loses_nothing_else(volume, store, beside, kind):
    zarr.open_group(store, mode="w")
    if kind == "image":
        zarr.create_array(store, name="s0", shape=(2, 3, 4), dtype="int16")
        axes = [{"name": axis, "type": "space"} for axis in "zyx"]
        scale = [{"type": "scale", "scale": [1, 1, 1]}]
        image = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}
        zarr.open_group(store, mode="a").attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    (store / beside).parent.mkdir(parents=True, exist_ok=True)
    (store / beside).write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreError, match=rf"holds {beside.split('/')[0]} too, which would be lost"):
        lv.save_zarr(volume, store, overwrite=True)
    assert (store / beside).exists()


def test_labels_are_not_written_into_stores_of_other_tools(volume, store):
    zarr.open_group(store, mode="w").create_array("s0", shape=(2, 3, 4), dtype="int16")
    with pytest.raises(StoreError, match="no store that lazyvol wrote"):
        lv.save_zarr((volume > 0).astype("uint8"), store, group="labels/bone")
    assert not (store / "labels").exists()


def test_a_store_that_is_opened_for_reading_is_not_written(volume, store):
    lv.save_zarr(volume, store)
    reading = zarr.storage.LocalStore(store, read_only=True)
    for change in (
        lambda: lv.save_zarr(volume + 1, reading, overwrite=True),
        lambda: lv.save_region(volume[:2] * 0, reading),
        lambda: lv.add_levels(reading, levels=2),
        lambda: lv.save_zarr((volume > 0).astype("uint8"), reading, group="labels/bone"),
    ):
        with pytest.raises(OptionError, match="opened for reading only"):
            change()
    np.testing.assert_array_equal(lv.open_zarr(store), volume)


@pytest.mark.parametrize(("at", "halved"), [([0, 1, 2, 3, 5, 6], False), ([0, 1, 2, 3, 4, 5], True)])
def test_no_mean_reaches_over_a_gap(tmp_path, at, halved):
    write_series(tmp_path / "dicom", np.zeros((6, 8, 8)), spacing=(1.0, 1.0, 1.0))
    volume = lv.open_volume(tmp_path / "dicom")
    moved = volume.assign_coords(z=("z", np.array(at, dtype=float), volume.z.attrs))
    lv.save_zarr(moved, tmp_path / "a.zarr", levels=2)
    assert lv.open_zarr(tmp_path / "a.zarr", level=1).shape == (3 if halved else 6, 4, 4)
