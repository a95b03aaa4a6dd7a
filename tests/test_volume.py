"""Volumes: the data contract, every way to open a series, and what is said when one does not open."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import warnings
from pathlib import Path

import dask
import fsspec
import numpy as np
import pydicom
import pytest
import xarray as xr

import lazyvol as lv
from lazyvol.errors import (
    DicomReadError,
    FindingError,
    NoImagesError,
    OptionError,
    PixelRangeError,
    PixelReadError,
    SeriesChoiceError,
    SourceNotFoundError,
    UnsupportedSeriesError,
)
from lazyvol.phantom import FICTITIOUS_PATIENT, body_ct, write_series

SHAPE, SPACING = (24, 48, 64), (40.0, 8.0, 8.0)
TILTED = ((0, np.sin(0.2), np.cos(0.2)), (0, 1, 0), (1, 0, 0))


FREE_TEXT = (
    "DeviceSerialNumber",
    "ImageComments",
    "InstitutionAddress",
    "PatientComments",
    "PerformedProcedureStepDescription",
    "ProtocolName",
    "RequestingPhysician",
    "SeriesDescription",
    "StationName",
    "StudyID",
)
"""Elements that may say anything of anybody."""


def some_values(shape=(4, 6, 8), low=-1024, high=3000):
    return np.random.default_rng(7).integers(low, high, shape)


def write(folder, values=None, **options):
    """Write a small CT series of which nothing is special."""
    values = some_values() if values is None else values
    return write_series(folder, values, **{"spacing": (5.0, 0.9, 0.7), "origin": (-30.0, -40.0, 55.0)} | options)


def same(one, other):
    """Assert that two volumes differ in nothing but where their files lie, and what is said of copies."""
    drop = {"source"}
    one, other = (v.drop_vars(drop) for v in (one, other))
    for volume in (one, other):
        volume.attrs = {k: v for k, v in volume.attrs.items() if k != "findings"}
    xr.testing.assert_identical(one.compute(), other.compute())


@pytest.fixture
def body(chest_folder):
    return lv.open_volume(chest_folder)


# The data contract


def test_values_are_the_hu_that_were_painted(body):
    np.testing.assert_array_equal(body, np.rint(body_ct(SHAPE, SPACING)))


def test_hu_are_int16(body):
    assert body.dtype == "int16"


def test_dimensions_are_z_y_x(body):
    assert body.dims == ("z", "y", "x")


def test_the_name_is_image(body):
    assert body.name == "image"


@pytest.mark.parametrize(("axis", "n", "step"), list(zip("zyx", SHAPE, SPACING, strict=True)))
def test_labels_are_voxel_centres_in_mm(body, axis, n, step):
    np.testing.assert_allclose(body[axis], (np.arange(n) - (n - 1) / 2) * step, atol=1e-9)


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_labels_have_units_long_name_and_axis(body, axis):
    attrs = body[axis].attrs
    assert (attrs["units"], attrs["axis"]) == ("mm", axis.upper())
    assert attrs["long_name"]


def test_each_label_is_a_float64_along_its_own_dimension(body):
    assert {a: (body[a].dims, body[a].dtype) for a in "zyx"} == {a: ((a,), np.dtype("float64")) for a in "zyx"}


def test_the_geometry_coordinate_is_a_scalar_int64(body):
    assert (body.geometry.shape, body.geometry.dtype) == ((), np.dtype("int64"))


def test_the_geometry_coordinate_holds_the_constants(body):
    frame = pydicom.dcmread(body.source.values[0]).FrameOfReferenceUID
    assert body.geometry.attrs == {
        "directions": [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        "spacing": [40.0, 8.0, 8.0],
        "convention": "LPS",
        "frame_of_reference": frame,
        "version": 1,
    }


def test_positions_are_the_labels_times_the_directions(tmp_path):
    paths = write(tmp_path, directions=TILTED)
    volume = lv.open_volume(tmp_path)
    directions = np.reshape(volume.geometry.attrs["directions"], (3, 3))
    for k, path in enumerate(paths):
        labels = np.array([volume.z[k], volume.y[0], volume.x[0]])
        np.testing.assert_allclose(labels @ directions, pydicom.dcmread(path).ImagePositionPatient, atol=1e-6)


def test_arithmetic_between_different_geometries_drops_the_geometry(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", directions=TILTED)
    one, other = (lv.open_volume(tmp_path / n).drop_vars(["z", "y", "x"]) for n in "ab")
    with pytest.raises(lv.LazyvolError, match="no coordinate 'geometry'"):
        lv.geometry_of(one + other)


@pytest.mark.parametrize("name", ["sop_instance_uid", "source", "instance_number", "acquisition_time"])
def test_each_slice_can_be_traced(body, name):
    assert body[name].dims == ("z",)


def test_per_slice_coordinates_follow_their_slice(tmp_path):
    paths = write(tmp_path)
    volume = lv.open_volume(tmp_path)
    headers = [pydicom.dcmread(p) for p in paths]
    assert list(volume.source.values) == list(map(str, paths))
    assert list(volume.sop_instance_uid.values) == [h.SOPInstanceUID for h in headers]
    assert list(volume.instance_number.values) == [h.InstanceNumber for h in headers]
    assert list(volume.exposure.values) == [float(h.Exposure) for h in headers]


def test_words_are_variable_length_strings(body):
    assert body.sop_instance_uid.dtype == np.dtypes.StringDType()


def test_times_are_seconds_since_the_first_slice(body):
    np.testing.assert_array_equal(np.sort(body.acquisition_time), np.arange(24) * 0.25)


def test_attrs_are_numbers_strings_and_flat_lists_of_them(body):
    def plain(value):
        return isinstance(value, int | float | str) and not isinstance(value, bool)

    odd = {
        k: v
        for holder in (body, *body.coords.values())
        for k, v in holder.attrs.items()
        if not (plain(v) or (isinstance(v, list) and all(map(plain, v))))
    }
    assert odd == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("long_name", "CT number"),
        ("units", "HU"),
        ("Modality", "CT"),
        ("KVP", 120.0),
        ("WindowCenter", [40.0, -600.0]),
        ("photometric_interpretation", "MONOCHROME2"),
        ("findings", []),
    ],
)
def test_attrs_say_what_the_header_says(body, name, value):
    assert body.attrs[name] == value


def test_the_version_stands_in_attrs(body):
    assert body.attrs["lazyvol_version"] == lv.__version__


@pytest.mark.parametrize(
    "shown",
    [repr, lambda v: v._repr_html_(), lambda v: v.to_dict(data=False), pickle.dumps, lambda v: v.encoding],
    ids=["repr", "html", "dict", "pickle", "encoding"],
)
@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "without dask"])
def test_nothing_shown_or_sent_names_the_patient(chest_folder, chunks, shown):
    shown = shown(lv.open_volume(chest_folder, chunks=chunks))
    shown = shown if isinstance(shown, bytes) else str(shown).encode()
    found = [k for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and v.encode() in shown]
    assert found == []


def test_nothing_shown_has_a_date(body):
    assert "20010203" not in repr(body) + body._repr_html_() + str(body.to_dict(data=False))


def test_private_text_of_every_kind_stays_in_the_header(tmp_path):
    write(tmp_path, overrides={keyword: f"SECRET{n}" for n, keyword in enumerate(FREE_TEXT)})
    volume = lv.open_volume(tmp_path)
    assert b"SECRET" not in pickle.dumps(volume) + repr(volume).encode() + str(volume.to_dict(data=False)).encode()


# Type of the values


@pytest.mark.parametrize(
    ("options", "low", "high", "dtype"),
    [
        ({"modality": "MR", "intercept": 0, "bits_stored": 12, "signed": False}, 0, 4095, "int16"),
        ({"modality": "MR", "intercept": 0, "bits_stored": 16, "signed": False}, 0, 65535, "uint16"),
        ({"modality": "MR", "intercept": 0, "bits_stored": 16, "signed": True}, -32768, 32767, "int16"),
        ({"modality": "MR", "intercept": 0, "bits_stored": 8, "signed": False}, 0, 255, "uint8"),
        ({"modality": "MR", "intercept": -128, "bits_stored": 8, "signed": False}, -128, 127, "int8"),
        ({"modality": "MR", "intercept": -1, "bits_stored": 16, "signed": False}, -1, 65534, "int32"),
        ({"modality": "MR", "intercept": 0, "slope": 2, "bits_stored": 16, "signed": False}, 0, 60000, "int32"),
        ({"modality": "PT", "intercept": 0, "slope": 0.5, "bits_stored": 16, "signed": False}, 0, 30000, "float32"),
        ({"modality": "CT", "intercept": -1024, "bits_stored": 12, "signed": False}, -1024, 3071, "int16"),
        ({"modality": "CT", "intercept": -1024, "bits_stored": 16, "signed": False}, -1024, 3071, "int16"),
        ({"modality": "CT", "intercept": 0, "bits_stored": 16, "signed": True}, -1024, 3071, "int16"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_the_dtype_is_the_smallest_that_holds_what_the_headers_allow(tmp_path, options, low, high, dtype):
    slope = options.get("slope", 1)
    values = some_values((3, 4, 5), round(low / slope), round(high / slope) + 1) * slope
    write(tmp_path, values, **options)
    volume = lv.open_volume(tmp_path)
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume, values)


def test_one_slice_with_another_slope_settles_the_dtype_of_all(tmp_path):
    def put(k, dataset):
        dataset.RescaleSlope = "0.25" if k == 2 else "1"

    write(tmp_path, overrides=put)
    assert lv.open_volume(tmp_path).dtype == "float32"


def test_slopes_of_their_own_are_applied_slice_by_slice(tmp_path):
    def put(k, dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept = str(k + 0.5), str(k)

    paths = write(tmp_path, overrides=put)
    expected = np.stack([pydicom.dcmread(p).pixel_array * (k + 0.5) + k for k, p in enumerate(paths)])
    np.testing.assert_array_equal(lv.open_volume(tmp_path), expected.astype("float32"))


def test_hu_beyond_int16_are_an_error_that_names_the_remedy(tmp_path):
    values = some_values()
    values[2, 0, 0] = 40000
    paths = write(tmp_path, values, bits_stored=16, signed=False)
    with pytest.raises(PixelRangeError, match=rf'{paths[2].name} holds the value 40000.*dtype="int32"'):
        lv.open_volume(tmp_path).compute()


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64", "int64"])
def test_another_dtype_can_be_asked_for(tmp_path, dtype):
    values = some_values()
    values[2, 0, 0] = 40000
    write(tmp_path, values, bits_stored=16, signed=False)
    volume = lv.open_volume(tmp_path, dtype=dtype)
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume, values)


def test_an_integer_dtype_for_fractional_values_never_gives_other_values(tmp_path):
    write(tmp_path, some_values((3, 4, 5), 0, 100) * 0.5, modality="PT", slope=0.5, intercept=0)
    with pytest.raises(lv.LazyvolError):
        lv.open_volume(tmp_path, dtype="int16").compute()


# Ways to open


@pytest.mark.parametrize("kind", [str, lambda p: p], ids=["str", "Path"])
def test_a_folder_opens_its_series(chest_folder, kind):
    assert lv.open_volume(kind(chest_folder)).shape == SHAPE


def test_a_folder_is_searched_below(tmp_path):
    write(tmp_path / "deep" / "er")
    assert lv.open_volume(tmp_path).sizes["z"] == 4


def test_files_are_told_by_content_and_not_by_name(tmp_path):
    for n, path in enumerate(write(tmp_path)):
        path.rename(tmp_path / f"IM{n}")
    (tmp_path / "notes.dcm").write_text("no image")
    assert lv.open_volume(tmp_path).sizes["z"] == 4


def test_a_file_opens_alone(tmp_path):
    paths = write(tmp_path)
    alone, series = lv.open_volume(paths[1]), lv.open_volume(tmp_path)
    np.testing.assert_array_equal(alone, series[1:2])
    np.testing.assert_allclose(alone.z, series.z[1:2])


def test_a_file_with_siblings_opens_its_series(tmp_path):
    paths = write(tmp_path)
    write(tmp_path, series_number=3, prefix="other")
    same(lv.open_volume(paths[1], siblings=True), lv.open_volume(tmp_path, series=2))


def test_siblings_of_a_file_named_without_its_folder_are_found(tmp_path, monkeypatch):
    paths = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert lv.open_volume(paths[1].name, siblings=True).sizes["z"] == 4


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda p: list(map(str, p))], ids=["list", "tuple", "iter", "str"])
def test_paths_open_as_one_series(tmp_path, kind):
    paths = write(tmp_path)
    same(lv.open_volume(kind(paths)), lv.open_volume(tmp_path))


def test_some_of_the_paths_open_as_a_part(tmp_path):
    paths = write(tmp_path)
    np.testing.assert_array_equal(lv.open_volume(paths[1:3]), lv.open_volume(tmp_path)[1:3])


def test_datasets_open_as_one_series(tmp_path):
    paths = write(tmp_path)
    same(lv.open_volume([pydicom.dcmread(p) for p in paths]), lv.open_volume(tmp_path))


def test_datasets_with_edited_values_open_as_edited(tmp_path):
    datasets = [pydicom.dcmread(p) for p in write(tmp_path)]
    for dataset in datasets:
        dataset.RescaleIntercept = "0"
    np.testing.assert_array_equal(lv.open_volume(datasets), some_values() + 1024)


def test_datasets_of_other_pixels_are_not_mistaken_for_each_other(tmp_path):
    datasets = [pydicom.dcmread(p) for p in write(tmp_path)]
    before = lv.open_volume(datasets)
    for dataset in datasets:
        dataset.PixelData = bytes(len(dataset.PixelData))
    after = lv.open_volume(datasets)
    assert before.data.name != after.data.name


@pytest.fixture
def url(tmp_path):
    """A folder of the memory file system, with the series of ``write`` in it."""
    files = fsspec.filesystem("memory")
    for path in write(tmp_path):
        files.pipe(f"/lazyvol-test/{path.name}", path.read_bytes())
    yield "memory://lazyvol-test"
    files.rm("/lazyvol-test", recursive=True)


def test_a_url_opens_its_series(url):
    np.testing.assert_array_equal(lv.open_volume(url), some_values())


def test_urls_of_files_open_as_one_series(url, tmp_path):
    names = [f"{url}/{p.name}" for p in tmp_path.iterdir()]
    np.testing.assert_array_equal(lv.open_volume(names), some_values())


def test_the_url_of_a_file_opens_it_alone(url):
    assert lv.open_volume(f"{url}/body-0001.dcm").sizes["z"] == 1


def test_the_url_of_a_file_with_siblings_opens_its_series(url):
    assert lv.open_volume(f"{url}/body-0001.dcm", siblings=True).sizes["z"] == 4


def test_the_source_of_a_slice_behind_a_url_can_be_opened(url):
    with fsspec.open(str(lv.open_volume(url).source.values[0])) as file:
        assert file.read(132)[128:] == b"DICM"


def test_a_url_that_does_not_exist_is_named():
    with pytest.raises(SourceNotFoundError, match="memory://lazyvol-nowhere does not exist"):
        lv.open_volume("memory://lazyvol-nowhere")


def test_a_file_behind_a_url_that_changed_has_another_dask_name(url, tmp_path):
    before = lv.open_volume(url)
    path = write(tmp_path / "new", some_values() + 1)[0]
    fsspec.filesystem("memory").pipe(f"/lazyvol-test/{path.name}", path.read_bytes())
    assert lv.open_volume(url).data.name != before.data.name


@pytest.fixture
def two_series(tmp_path):
    write(tmp_path, overrides={"SeriesDescription": "Chest lung"})
    write(tmp_path, some_values((3, 6, 8)), series_number=5, prefix="b", overrides={"SeriesDescription": "Chest soft"})
    return tmp_path


@pytest.mark.parametrize("series", [5, "5", "Chest soft"], ids=["number", "number as text", "description"])
def test_a_series_is_chosen(two_series, series):
    assert lv.open_volume(two_series, series=series).sizes["z"] == 3


def test_a_series_is_chosen_by_uid(two_series):
    uid = lv.group_series(lv.scan_headers(two_series).instances)[1].uid
    assert lv.open_volume(two_series, series=uid).sizes["z"] == 3


@pytest.mark.parametrize("chunks", ["auto", 2, 3, {"z": 1}, {"z": 3, "y": 2}, {"x": -1}, None], ids=str)
def test_chunks_change_no_value(tmp_path, chunks):
    write(tmp_path)
    same(lv.open_volume(tmp_path, chunks=chunks), lv.open_volume(tmp_path))


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ("auto", ((4,), (6,), (8,))),
        (3, ((3, 1), (3, 3), (3, 3, 2))),
        ({"z": 1}, ((1, 1, 1, 1), (6,), (8,))),
        ({"y": 4}, ((4,), (4, 2), (8,))),
        (None, None),
    ],
    ids=str,
)
def test_chunks_are_those_asked_for(tmp_path, chunks, expected):
    write(tmp_path)
    assert lv.open_volume(tmp_path, chunks=chunks).chunks == expected


def test_preferred_chunks_are_whole_frames_of_16_mib(tmp_path):
    write(tmp_path, np.broadcast_to(np.int16(5), (5, 2048, 1024)))
    assert lv.open_volume(tmp_path).chunks == ((4, 1), (2048,), (1024,))


def test_preferred_chunks_stand_in_the_encoding(tmp_path):
    write(tmp_path)
    assert lv.open_volume(tmp_path, chunks=None).encoding["preferred_chunks"] == {"z": 4, "y": 6, "x": 8}


# Indexing, pickles and schedulers


@pytest.mark.parametrize(
    "select",
    [
        lambda v: v[2],
        lambda v: v[::-1, ::2, 1:3],
        lambda v: v.isel(z=[3, 1, 1], y=[0, 5]),
        lambda v: v.isel(x=-1),
        lambda v: v[1:1],
        lambda v: v.isel(z=xr.DataArray([0, 3], dims="p"), y=xr.DataArray([5, 1], dims="p")),
        lambda v: v.sel(z=slice(56, 66), x=-30, method=None),
        lambda v: v.where(v > 0, drop=False),
        lambda v: v.transpose("x", "z", "y"),
    ],
    ids=["slice", "strided", "lists", "last column", "empty", "points", "labels", "where", "transposed"],
)
@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "without dask"])
def test_indexing_a_lazy_volume_is_indexing_its_values(tmp_path, chunks, select):
    write(tmp_path)
    volume = lv.open_volume(tmp_path, chunks=chunks)
    xr.testing.assert_identical(select(volume).compute(), select(volume.compute()))


@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "without dask"])
def test_a_pickled_volume_is_the_same(tmp_path, chunks):
    write(tmp_path)
    volume = lv.open_volume(tmp_path, chunks=chunks)
    xr.testing.assert_identical(pickle.loads(pickle.dumps(volume)).compute(), volume.compute())


def test_a_volume_opened_by_a_relative_path_is_read_from_anywhere(tmp_path, monkeypatch):
    write(tmp_path / "dicom")
    monkeypatch.chdir(tmp_path)
    volume = lv.open_volume("dicom")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(volume, some_values())


def test_schedulers_give_the_same(body):
    found = []
    for scheduler in ("sync", "threads"):
        with dask.config.set(scheduler=scheduler):
            found.append(body.compute())
    xr.testing.assert_identical(*found)


def test_the_same_files_have_the_same_dask_name(chest_folder):
    assert lv.open_volume(chest_folder).data.name == lv.open_volume(chest_folder).data.name


def test_the_dask_name_begins_with_that_of_the_volume(body):
    assert body.data.name.startswith("image-")


@pytest.mark.parametrize("options", [{"dtype": "int32"}, {"chunks": 2}], ids=["dtype", "chunks"])
def test_other_options_have_another_dask_name(tmp_path, options):
    write(tmp_path)
    assert lv.open_volume(tmp_path).data.name != lv.open_volume(tmp_path, **options).data.name


def test_a_changed_file_has_another_dask_name(tmp_path):
    paths = write(tmp_path)
    before = lv.open_volume(tmp_path).data.name
    dataset = pydicom.dcmread(paths[1])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(paths[1])
    assert lv.open_volume(tmp_path).data.name != before


def test_a_difference_of_a_volume_before_and_after_a_change_is_seen(tmp_path):
    paths = write(tmp_path)
    before = lv.open_volume([pydicom.dcmread(p) for p in paths])
    write(tmp_path, some_values() + 1)
    after = lv.open_volume([pydicom.dcmread(p) for p in paths])
    assert (after - before).compute().values.tolist() == np.ones((4, 6, 8)).tolist()


# The same files in another order


@pytest.fixture(params=["axial", "tilted", "uneven"])
def kind(request):
    """Options for a series of a kind."""

    def uneven(k, dataset):
        dataset.ImagePositionPatient = [-30, -40, 55 + 5 * k + (k == 3)]

    return {"axial": {}, "tilted": {"directions": TILTED}, "uneven": {"overrides": uneven}}[request.param]


@pytest.mark.parametrize("seed", range(3))
def test_names_change_nothing(tmp_path, kind, seed):
    paths = write(tmp_path / "a", **kind)
    (tmp_path / "b").mkdir()
    for path, name in zip(paths, np.random.default_rng(seed).permutation(len(paths)), strict=True):
        shutil.copy(path, tmp_path / "b" / f"{name}")
    same(lv.open_volume(tmp_path / "a"), lv.open_volume(tmp_path / "b"))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_a_list_changes_nothing(tmp_path, kind, seed):
    paths = write(tmp_path, **kind)
    shuffled = [paths[n] for n in np.random.default_rng(seed).permutation(len(paths))]
    same(lv.open_volume(paths), lv.open_volume(shuffled))


def test_a_second_copy_of_each_file_changes_nothing(tmp_path, kind):
    paths = write(tmp_path / "a", **kind)
    shutil.copytree(tmp_path / "a", tmp_path / "both" / "one")
    shutil.copytree(tmp_path / "a", tmp_path / "both" / "two")
    same(lv.open_volume(paths), lv.open_volume(tmp_path / "both"))


def test_a_second_copy_of_each_file_is_a_finding(tmp_path):
    paths = write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert [(f.code, f.values) for f in lv.findings_of(lv.open_volume(tmp_path))] == [("copies-dropped", (len(paths),))]


def test_a_path_given_twice_is_used_once(tmp_path):
    paths = write(tmp_path)
    same(lv.open_volume([*paths, paths[0]]), lv.open_volume(paths))


# What does not open


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"nowhere does not exist\. Give a DICOM file, or a folder"):
        lv.open_volume(tmp_path / "nowhere")


def test_a_path_in_a_list_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match="nowhere does not exist"):
        lv.open_volume([*write(tmp_path), tmp_path / "nowhere"])


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(NoImagesError, match=rf"{tmp_path} holds no file\. Give"):
        lv.open_volume(tmp_path)


def test_an_empty_list_is_an_error():
    with pytest.raises(NoImagesError, match="list holds no file"):
        lv.open_volume([])


def test_a_folder_without_dicom_says_what_was_found(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.txt").write_text("hello" * 100)
    with pytest.raises(NoImagesError, match=rf"{tmp_path} holds no DICOM image in 3 files \(3 x not DICOM"):
        lv.open_volume(tmp_path)


def test_a_file_that_is_not_dicom_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello" * 100)
    with pytest.raises(DicomReadError, match=r"notes\.txt: not DICOM.*Give a DICOM image"):
        lv.open_volume(path)


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.dcm"
    path.touch()
    with pytest.raises(DicomReadError, match=r"empty\.dcm: it is empty"):
        lv.open_volume(path)


def cut(path, missing):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - missing)


def test_a_single_file_cut_short_does_not_open(tmp_path):
    path = write(tmp_path)[0]
    cut(path, 10)
    with pytest.raises(PixelReadError, match=rf"{path.name} is cut short: 10 bytes of pixels are missing\. Copy"):
        lv.open_volume(path)


def test_a_file_cut_short_in_a_series_is_a_finding(tmp_path):
    paths = write(tmp_path)
    cut(paths[2], 10)
    assert [(f.code, f.severity) for f in lv.findings_of(lv.open_volume(tmp_path))] == [("pixels-truncated", "error")]


def test_a_file_cut_short_in_a_series_is_an_error_when_it_is_read(tmp_path):
    paths = write(tmp_path)
    cut(paths[2], 10)
    with pytest.raises(PixelReadError, match=rf"{paths[2].name} is cut short: frame 1 has 86 of 96 bytes"):
        lv.open_volume(tmp_path).compute()


def test_slices_beside_a_file_cut_short_are_read(tmp_path):
    paths = write(tmp_path)
    cut(paths[2], 10)
    np.testing.assert_array_equal(lv.open_volume(tmp_path)[:2], some_values()[:2])


def test_a_file_cut_short_in_its_header_is_left_out_with_a_finding(tmp_path):
    paths = write(tmp_path)
    cut(paths[0], 500)
    findings = lv.findings_of(lv.open_volume(tmp_path))
    assert [(f.code, f.values) for f in findings] == [("files-unreadable", (1,))]


def test_two_series_are_listed_with_how_to_choose(two_series):
    with pytest.raises(SeriesChoiceError) as caught:
        lv.open_volume(two_series)
    listing = str(caught.value)
    for expected in ("holds 2 series", "number 2, CT, 4 images, 'Chest lung'", "number 5, CT, 3 images", "series="):
        assert expected in listing


def test_a_series_that_is_not_there_lists_those_that_are(two_series):
    with pytest.raises(SeriesChoiceError, match=r"none of which fits series='abdomen'(.|\n)*'Chest soft'"):
        lv.open_volume(two_series, series="abdomen")


def test_two_series_with_one_description_are_both_listed(tmp_path):
    write(tmp_path)
    write(tmp_path, series_number=9, prefix="b")
    with pytest.raises(SeriesChoiceError, match=r"2 series that fit series='Phantom CT'"):
        lv.open_volume(tmp_path, series="Phantom CT")


@pytest.mark.parametrize("stack", [1, -1, 99])
def test_a_stack_out_of_range_says_what_there_is(tmp_path, stack):
    write(tmp_path)
    with pytest.raises(SeriesChoiceError, match=rf"stack={stack} does not exist: the series has stacks 0 to 0"):
        lv.open_volume(tmp_path, stack=stack)


def test_a_second_grid_in_a_series_opens_as_a_stack(tmp_path):
    paths = write(tmp_path)
    write(tmp_path / "b", some_values((2, 9, 9)), overrides=another_grid(paths))
    assert lv.open_volume(tmp_path, stack=1).shape == (2, 9, 9)


def another_grid(paths):
    def put(k, dataset):
        dataset.SOPInstanceUID = f"1.2.3.{k}"
        dataset.ImagePositionPatient = [0, 0, 1000 + k]

    return put


def test_strict_passes_a_clean_series(chest_folder):
    assert lv.open_volume(chest_folder, strict=True).shape == SHAPE


def test_strict_passes_a_tilt_which_is_a_fact(tmp_path):
    write(tmp_path, directions=TILTED)
    assert lv.open_volume(tmp_path, strict=True).sizes["z"] == 4


def test_strict_raises_from_a_warning_up_and_names_it(tmp_path):
    paths = write(tmp_path, some_values((6, 6, 8)))
    paths[1].unlink()
    with pytest.raises(FindingError, match=r"strict=True.*\n.*missing-slices"):
        lv.open_volume(tmp_path, strict=True)


@pytest.mark.parametrize(
    "name", ["nowhere", "empty", "text"], ids=["absent path", "empty folder", "folder without DICOM"]
)
def test_no_error_holds_more_than_the_path(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("Fictitious^Phantom" * 50)
    with pytest.raises(lv.LazyvolError) as caught:
        lv.open_volume(tmp_path / name)
    assert "Fictitious" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "Columns": 1},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]},
    ],
    ids=["colour", "mosaic"],
)
def test_a_kind_that_does_not_open_yet_says_so(tmp_path, change):
    paths = write(tmp_path, some_values((2, 6, 3)), overrides=change)
    with pytest.raises(UnsupportedSeriesError, match=rf"{paths[0].parent}.*does not open: "):
        lv.open_volume(tmp_path)


# Geometry that is not known


def test_images_without_positions_keep_the_order_of_their_numbers(tmp_path):
    def put(k, dataset):
        del dataset.ImagePositionPatient
        dataset.InstanceNumber = k + 1

    write(tmp_path, overrides=put)
    volume = lv.open_volume(tmp_path)
    np.testing.assert_array_equal(volume, some_values())
    assert "z" not in volume.coords
    assert {f.code for f in volume.vol.findings} == {"geometry-unknown", "order-from-instance-number"}


def test_one_image_is_a_volume_of_one_slice(tmp_path):
    write(tmp_path, some_values((1, 6, 8)))
    assert lv.open_volume(tmp_path).shape == (1, 6, 8)


# netCDF


@pytest.fixture(params=["axial", "tilted", "missing", "unknown"])
def volume_to_keep(request, tmp_path):
    """A volume of each kind of geometry."""

    def strip(_k, dataset):
        del dataset.ImagePositionPatient

    options = {"tilted": {"directions": TILTED}, "unknown": {"overrides": strip}}
    paths = write(tmp_path / "dicom", some_values((6, 6, 8)), **options.get(request.param, {}))
    if request.param == "missing":
        paths[1].unlink()
    return lv.open_volume(tmp_path / "dicom")


def require_netcdf():
    """Skip where h5netcdf or the HDF5 library that it needs is absent."""
    for name in ("h5netcdf", "h5py"):
        pytest.importorskip(name, reason=f"netCDF needs {name}: install lazyvol[netcdf]")


@pytest.fixture
def from_netcdf(volume_to_keep, tmp_path):
    require_netcdf()
    path = tmp_path / "a.nc"
    volume_to_keep.to_netcdf(path, engine="h5netcdf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_dataarray(path, engine="h5netcdf") as volume:
            yield volume.load()


def test_netcdf_keeps_the_geometry(volume_to_keep, from_netcdf):
    np.testing.assert_equal(str(lv.geometry_of(from_netcdf)), str(lv.geometry_of(volume_to_keep)))


def test_netcdf_keeps_the_findings(volume_to_keep, from_netcdf):
    assert lv.findings_of(from_netcdf) == lv.findings_of(volume_to_keep)


def test_netcdf_keeps_values_and_dtype(volume_to_keep, from_netcdf):
    np.testing.assert_array_equal(from_netcdf, volume_to_keep, strict=True)


def test_netcdf_names_the_patient_nowhere(volume_to_keep, tmp_path):
    require_netcdf()
    volume_to_keep.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    content = (tmp_path / "b.nc").read_bytes()
    assert [k for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and v.encode() in content] == []


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": 0},
        {"chunks": "abc"},
        {"chunks": {"q": 2}},
        {"chunks": 2.5},
        {"dtype": "foo"},
        {"dtype": "bool"},
        {"dtype": "complex64"},
        {"tolerances": 0.1},
        {"dims": "time"},
        {"dims": {"z": "EchoTime"}},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_named(chest_folder, options):
    (name,) = options
    with pytest.raises(OptionError, match=f"{name}="):
        lv.open_volume(chest_folder, **options)


def test_a_zarr_store_is_said_to_be_one(chest_folder, tmp_path):
    lv.save_zarr(lv.open_volume(chest_folder), tmp_path / "a.zarr")
    with pytest.raises(NoImagesError, match="open_zarr opens it"):
        lv.open_volume(tmp_path / "a.zarr")


# Files that are no longer those that were opened


@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2.5"], ids=["uncompressed", "compressed"])
def test_a_file_that_was_replaced_after_opening_is_an_error(tmp_path, syntax):
    folder = tmp_path / "ct"
    write_series(folder, np.arange(24.0).reshape(4, 2, 3), spacing=(2.0, 1.0, 1.0))
    if syntax:
        for path in folder.iterdir():
            compressed = pydicom.dcmread(path)
            compressed.compress(syntax)
            compressed.save_as(path)
    volume = lv.open_volume(folder)
    one, other = (Path(p) for p in volume.source.values[:2])
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    with pytest.raises(PixelReadError, match=f"{re.escape(str(one))} has changed.*Open the series again"):
        volume.isel(z=0).compute()


def test_the_other_files_are_read_after_one_was_replaced(tmp_path):
    folder = tmp_path / "ct"
    write_series(folder, np.arange(24.0).reshape(4, 2, 3), spacing=(2.0, 1.0, 1.0))
    volume = lv.open_volume(folder, chunks={"z": 1})
    os.utime(volume.source.values[0], ns=(1, 1))
    np.testing.assert_array_equal(volume.isel(z=3), np.arange(18, 24).reshape(2, 3))
