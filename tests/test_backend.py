"""The engine: xarray opens what lazyvol opens, with its own options."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr
import zarr

import lazyvol as lv
from lazyvol.backend import LazyvolBackend
from lazyvol.errors import FindingError, SeriesChoiceError, SourceNotFoundError
from lazyvol.phantom import write_series


def test_the_engine_is_known_to_xarray():
    assert "lazyvol" in xr.backends.list_engines()


def test_the_engine_describes_itself():
    assert "DICOM" in xr.backends.list_engines()["lazyvol"].description


@pytest.fixture
def two_series(tmp_path, rng):
    for number in (2, 3):
        values = rng.integers(0, 99, (3 + number, 6, 8))
        write_series(tmp_path, values, spacing=(3.0, 1.0, 1.0), series_number=number, prefix=f"s{number}")
    return tmp_path


@pytest.mark.parametrize("chunks", [None, {}, {"z": 24}], ids=str)
def test_the_engine_gives_the_volume_of_open_volume(chest_folder, chunks):
    with xr.open_dataset(chest_folder, engine="lazyvol", chunks=chunks) as dataset:
        xr.testing.assert_identical(dataset.image.compute(), lv.open_volume(chest_folder).compute())


def test_preferred_chunks_are_taken(chest_folder):
    with xr.open_dataset(chest_folder, engine="lazyvol", chunks={}) as dataset:
        assert dataset.image.chunks == lv.open_volume(chest_folder).chunks


def test_without_chunks_there_is_no_dask(chest_folder):
    with xr.open_dataset(chest_folder, engine="lazyvol") as dataset:
        assert dataset.image.chunks is None


def test_dataarray_and_dataset_agree(chest_folder):
    with xr.open_dataarray(chest_folder, engine="lazyvol") as volume:
        assert volume.name == "image"


def test_the_engine_is_guessed_for_a_dicom_folder(chest_folder):
    with xr.open_dataset(chest_folder) as dataset:
        assert dataset.image.dims == ("z", "y", "x")


def test_the_accessor_is_there_after_opening(chest_folder):
    with xr.open_dataset(chest_folder, engine="lazyvol") as dataset:
        assert dataset.image.vol.spacing == (40, 8, 8)


def make_zarr(folder):
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(folder / "a.zarr", consolidated=False)
    return folder / "a.zarr"


def make_text(folder):
    (folder / "a.txt").write_text("text" * 100)
    return folder / "a.txt"


def make_text_folder(folder):
    make_text(folder)
    return folder


@pytest.mark.parametrize(
    "make",
    [make_zarr, make_text, make_text_folder, lambda f: f, lambda f: f / "nowhere", lambda _f: b"bytes", lambda _f: 5],
    ids=["Zarr folder", "text file", "folder of text", "empty folder", "absent path", "bytes", "number"],
)
def test_other_things_are_not_claimed(tmp_path, make):
    assert not LazyvolBackend().guess_can_open(make(tmp_path))


@pytest.mark.parametrize("kind", [str, lambda p: p], ids=["str", "Path"])
def test_a_dicom_folder_is_claimed(chest_folder, kind):
    assert LazyvolBackend().guess_can_open(kind(chest_folder))


def test_a_dicom_file_is_claimed_whatever_its_name(chest_folder, tmp_path):
    name = tmp_path / "IM0001"
    name.write_bytes((chest_folder / "body-0001.dcm").read_bytes())
    assert LazyvolBackend().guess_can_open(name)


def test_a_zarr_folder_is_not_claimed_for_a_dicom_file_in_it(chest_folder, tmp_path):
    store = make_zarr(tmp_path)
    (store / "0.dcm").write_bytes((chest_folder / "body-0001.dcm").read_bytes())
    assert not LazyvolBackend().guess_can_open(store)


def test_a_store_of_lazyvol_is_not_claimed(chest_folder, tmp_path):
    lv.save_zarr(lv.open_volume(chest_folder), tmp_path / "a.zarr")
    assert not LazyvolBackend().guess_can_open(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"series": 2}, (5, 6, 8)), ({"series": "3"}, (6, 6, 8)), ({"series": 3, "stack": 0}, (6, 6, 8))],
    ids=["number", "text", "stack"],
)
def test_options_choose_as_in_open_volume(two_series, options, expected):
    with xr.open_dataset(two_series, engine="lazyvol", **options) as dataset:
        assert dataset.image.shape == expected


def test_a_dtype_can_be_asked_for(chest_folder):
    with xr.open_dataset(chest_folder, engine="lazyvol", dtype="float32") as dataset:
        assert dataset.image.dtype == "float32"


def test_siblings_of_a_file_are_opened(chest_folder):
    with xr.open_dataset(chest_folder / "body-0003.dcm", engine="lazyvol", siblings=True) as dataset:
        assert dataset.sizes["z"] == 24


def test_strict_raises(tmp_path):
    paths = write_series(tmp_path, np.zeros((6, 4, 5)), spacing=(3.0, 1.0, 1.0))
    paths[2].unlink()
    with pytest.raises(FindingError):
        xr.open_dataset(tmp_path, engine="lazyvol", strict=True)


@pytest.mark.parametrize("dropped", ["instance_number", ["instance_number", "source"]], ids=["one", "list"])
def test_variables_are_dropped(chest_folder, dropped):
    with xr.open_dataset(chest_folder, engine="lazyvol", drop_variables=dropped) as dataset:
        assert not {"instance_number", *np.atleast_1d(dropped)} & set(dataset.variables)


def test_a_variable_to_drop_that_is_not_there_is_no_error(chest_folder):
    with xr.open_dataset(chest_folder, engine="lazyvol", drop_variables="nothing") as dataset:
        assert "image" in dataset


@pytest.mark.parametrize("chunks", [None, {}], ids=["lazy", "dask"])
def test_a_list_of_files_opens_as_one_series(chest_folder, chunks):
    paths = sorted(os.scandir(chest_folder), key=lambda e: e.name)
    with xr.open_dataset([p.path for p in paths], engine="lazyvol", chunks=chunks) as dataset:
        np.testing.assert_array_equal(dataset.image, lv.open_volume(chest_folder))


def test_errors_come_through(two_series):
    with pytest.raises(SeriesChoiceError, match="holds 2 series"):
        xr.open_dataset(two_series, engine="lazyvol")


def test_an_absent_path_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match="nowhere does not exist"):
        xr.open_dataset(tmp_path / "nowhere", engine="lazyvol")


# Stores


@pytest.fixture(scope="module")
def store(tmp_path_factory, chest_folder):
    path = tmp_path_factory.mktemp("stores") / "chest.zarr"
    volume = lv.open_volume(chest_folder)
    lv.save_zarr(volume, path, levels=2)
    lv.save_zarr((volume > 200).astype("uint8"), path, group="labels/bone", levels=2)
    return path


@pytest.mark.parametrize("options", [{}, {"level": 1}, {"group": "labels/bone"}], ids=["whole", "level", "labels"])
def test_a_store_opens_as_open_zarr_opens_it(store, options):
    expected = lv.open_zarr(store, **options)
    for chunks in (None, {}):
        found = xr.open_dataset(store, engine="lazyvol", chunks=chunks, **options)
        xr.testing.assert_identical(found.image.compute(), expected.compute())
    assert found.image.chunks == expected.chunks


def test_a_store_that_is_no_folder_opens_too(store):
    memory = zarr.storage.MemoryStore()
    lv.copy_zarr(store, memory)
    np.testing.assert_array_equal(xr.open_dataset(memory, engine="lazyvol").image, lv.open_zarr(store))


def test_a_store_is_not_guessed_to_be_dicom(store):
    assert not LazyvolBackend().guess_can_open(store)
