"""verify: what was damaged, exchanged or lost since a store was written is named, wherever it lies."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

import lazyvol as lv
from lazyvol.cli import main
from lazyvol.errors import IncompleteStoreError, StoreError
from lazyvol.phantom import write_series


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    values = np.random.default_rng(3).integers(-1000, 1000, (20, 150, 40))
    write_series(folder / "dicom", values, spacing=(1.0, 1.0, 1.0))
    return folder


@pytest.fixture
def store(whole, tmp_path):
    path = tmp_path / "a.zarr"
    lv.save_zarr(lv.open_volume(whole / "dicom"), path, shards={"z": 8}, chunks={"z": 8}, levels=2)
    return path


def shards_of(store):
    return sorted(p for p in store.rglob("scale*/image/c/*/*/*") if p.is_file())


def test_a_store_as_it_was_written_is_sound(store):
    found = lv.verify_zarr(store)
    assert found.damaged == ()
    assert found.shards == len(shards_of(store)) == 3 + 2
    assert found.bytes == sum(p.stat().st_size for p in shards_of(store))


@pytest.mark.parametrize("number", range(5))
def test_a_flipped_bit_in_any_shard_is_found(store, number):
    path = shards_of(store)[number]
    content = bytearray(path.read_bytes())
    content[30] ^= 16
    path.write_bytes(content)
    (damaged,) = lv.verify_zarr(store).damaged
    assert damaged.startswith(str(path.relative_to(store)))
    assert "checksum" in damaged


def test_a_whole_shard_in_the_place_of_another_is_found(store):
    first, second = shards_of(store)[:2]
    shutil.copy(first, second)
    assert lv.verify_zarr(store).damaged == (f"{second.relative_to(store)}: another shard than was written",)


def test_bytes_added_to_a_shard_are_found(store):
    path = shards_of(store)[0]
    path.write_bytes(b"0" + path.read_bytes())
    assert len(lv.verify_zarr(store).damaged) == 1


@pytest.mark.parametrize("level", ["scale0", "scale1"])
def test_other_coordinates_are_found(store, level):
    z = zarr.open_array(store / level / "z", mode="r+")
    z[0] = 99.0
    assert lv.verify_zarr(store).damaged == (f"{level}: other coordinates than were written",)


def test_coordinates_that_cannot_be_read_are_found(store):
    (store / "scale0" / "z" / "zarr.json").write_text("{}")
    (damaged,) = lv.verify_zarr(store).damaged
    assert damaged.startswith("scale0: its coordinates cannot be read")


def test_a_shard_that_is_gone_makes_a_store_incomplete(store):
    shards_of(store)[1].unlink()
    with pytest.raises(IncompleteStoreError):
        lv.verify_zarr(store)


def test_labels_are_verified_by_themselves(store, whole):
    labels = (lv.open_volume(whole / "dicom") > 0).astype("uint8")
    lv.save_zarr(labels, store, group="labels/high")
    assert lv.verify_zarr(store, group="labels/high").damaged == ()


def test_a_volume_that_is_many_images_is_verified_whole(whole, tmp_path):
    part = lv.open_volume(whole / "dicom")[:4, :8, :8]
    many = xr.concat([xr.concat([part, part + 1], "echo"), xr.concat([part + 2, part + 3], "echo")], "component")
    lv.save_zarr(many, tmp_path / "b.zarr")
    assert lv.verify_zarr(tmp_path / "b.zarr").shards == 4
    assert lv.verify_zarr(tmp_path / "b.zarr").damaged == ()


def test_a_store_of_another_tool_is_refused(tmp_path):
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "c.zarr", consolidated=False)
    with pytest.raises(StoreError, match="no Zarr store that lazyvol wrote"):
        lv.verify_zarr(tmp_path / "c.zarr")


def test_in_a_shell_a_sound_store_is_said_to_be_so(store):
    result = CliRunner().invoke(main, ["verify", str(store)])
    assert result.exit_code == 0
    assert "5 shards" in result.stdout


def test_in_a_shell_damage_is_named_and_the_exit_code_is_1(store):
    path = shards_of(store)[0]
    path.write_bytes(path.read_bytes()[:-1])
    result = CliRunner().invoke(main, ["verify", str(store)])
    assert result.exit_code == 1
    assert str(path.relative_to(store)) in result.output


@pytest.mark.parametrize("change", [{}, {"scale0/image": []}, 3], ids=["none", "too few", "no mapping"])
def test_a_root_whose_checksums_somebody_edited_is_named(tmp_path, chest_folder, change):
    lv.save_zarr(lv.open_volume(chest_folder), tmp_path / "a.zarr")
    root = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    root.attrs["lazyvol"] = {**root.attrs["lazyvol"], "checksums": change}
    with pytest.raises(StoreError):
        lv.verify_zarr(tmp_path / "a.zarr")
