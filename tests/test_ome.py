"""What other tools make of a store: they accept it, read the same voxels, and put them at the same place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
import stores_made as made
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

import lazyvol as lv
from lazyvol.arrangement import Arrangement
from lazyvol.errors import LazyvolError, OptionError

ngff_zarr = pytest.importorskip("ngff_zarr")
ome_zarr_models = pytest.importorskip("ome_zarr_models")
pytest.importorskip("ome_zarr")
tensorstore = pytest.importorskip("tensorstore")

DATA = Path(os.environ.get("LAZYVOL_DATA") or Path(__file__).parents[2] / "shared" / "data")
WITHIN = 1e-6
"""How far a voxel may lie from its place, mm."""


class Saved(NamedTuple):
    """A volume, and the store of it."""

    volume: xr.DataArray
    path: Path
    about: dict[str, object]
    arrangement: Arrangement

    @property
    def images(self) -> list[tuple[str, dict[str, int]]]:
        return self.arrangement.images(self.about["sizes"])

    @property
    def levels(self) -> range:
        return range(len(self.about["factors"]) + 1)

    def array(self, image: str, level: int) -> str:
        return f"{image}/scale{level}/{self.about['name']}".lstrip("/")

    def ome(self, image: str) -> dict[str, object]:
        return zarr.open_group(self.path, path=image, mode="r").attrs["ome"]

    def opened(self, selection: dict[str, int], level: int) -> xr.DataArray:
        """Return an image as lazyvol opens it, turned as it is stored."""
        return self.arrangement.stored(lv.open_zarr(self.path, level=level)).isel(selection)


def saved(volume, path, **options):
    lv.save_zarr(volume, path, identifiers="uids", **options)
    about = dict(zarr.open_group(path, mode="r").attrs["lazyvol"])
    return Saved(volume, path, about, Arrangement.from_attrs(about, ()))


@contextmanager
def their_own_warnings():
    """Leave out what other packages say of themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(?!lazyvol).*")
        yield


def series_of(folder):
    """Return the folders of series in the real data, and the files of those that share one."""
    if not folder.is_dir():
        return []
    return sorted({os.path.relpath(os.path.dirname(i.path), folder) for i in lv.scan_headers(folder).instances})


@pytest.fixture(scope="module", params=[*made.MADE, *(f"real {p}" for p in series_of(DATA))])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    kind = request.param
    os.environ.setdefault("LAZYVOL_KEY", "a key for tests")
    if not kind.startswith("real "):
        return saved(made.MADE[kind](folder / "dicom"), folder / "a.zarr", levels=3)
    try:
        volume = lv.open_volume(DATA / kind.removeprefix("real "))
    except LazyvolError as error:
        pytest.skip(f"does not open: {type(error).__name__}")
    return saved(volume, folder / "a.zarr", levels=3)


# They accept it


def test_ngff_zarr_accepts_every_image(store):
    for image, selection in store.images:
        with their_own_warnings():
            found = ngff_zarr.from_ome_zarr(str(store.path / image), validate=True)
        assert [tuple(i.data.shape) for i in found.images] == [store.opened(selection, n).shape for n in store.levels]


def test_ome_zarr_models_accepts_every_image(store):
    for image, _ in store.images:
        with their_own_warnings():
            found = ome_zarr_models.open_ome_zarr(zarr.open_group(store.path, path=image, mode="r"), version="0.5")
        assert type(found).__name__ == ("ImageLabel" if "image-label" in store.ome(image) else "Image")


def test_no_scale_is_zero_negative_or_not_a_number(store):
    for image, _ in store.images:
        for dataset in store.ome(image)["multiscales"][0]["datasets"]:
            scale, translation = dataset["coordinateTransformations"]
            assert np.isfinite([scale["scale"], translation["translation"]]).all()
            assert min(scale["scale"]) > 0


# The same places


def test_the_corners_lie_where_the_volume_has_them(store):
    """Of uneven slices, the first and the last at full resolution."""
    even = not lv.geometry_of(store.volume).slice_positions
    for image, selection in store.images:
        with their_own_warnings():
            found = ngff_zarr.from_ome_zarr(str(store.path / image))
        for level, theirs in zip(store.levels, found.images, strict=True):
            ours = store.opened(selection, level)
            grid = lv.geometry_of(ours)
            if not np.isfinite(grid.origin).all() or not (even or level == 0):
                continue
            directions = np.reshape(ours.coords["geometry"].attrs["directions"], (3, 3))
            for corner in product(*((0, n - 1) for n in grid.shape)):
                mm = [theirs.translation[d] + k * theirs.scale[d] for d, k in zip("zyx", corner, strict=True)]
                if np.isfinite(grid.spacing).all():
                    place = (grid.affine @ [*corner, 1])[:3]
                else:
                    place = [np.atleast_1d(ours[d].values)[k] for d, k in zip("zyx", corner, strict=True)] @ directions
                np.testing.assert_allclose(mm @ directions, place, rtol=0, atol=WITHIN)


def test_levels_lie_in_each_other(store):
    """A voxel of a level is in the middle of those of which it is made, also where millimetres are not known."""
    for image, _ in store.images:
        datasets = store.ome(image)["multiscales"][0]["datasets"]
        each = [[t["scale"], n["translation"]] for t, n in (d["coordinateTransformations"] for d in datasets)]
        for (upper, lower), factors in zip(pairwise(each), store.about["factors"], strict=True):
            np.testing.assert_allclose(lower[0], np.multiply(upper[0], factors), rtol=1e-3)
            np.testing.assert_allclose(
                lower[1], upper[1] + np.multiply(upper[0], np.subtract(factors, 1)) / 2, atol=5e-3
            )


def test_axes_have_units_where_they_are_known(store):
    for image, selection in store.images:
        ours = store.opened(selection, 0)
        for axis in store.ome(image)["multiscales"][0]["axes"]:
            units = ours.coords[axis["name"]].attrs.get("units") if axis["name"] in ours.coords else None
            expected = {"mm": "millimeter", "s": "second"}.get(units) if axis["type"] in ("space", "time") else None
            assert axis.get("unit") == expected


# The same voxels


def test_they_read_the_same_voxels(store):
    for image, selection in store.images:
        for level in store.levels:
            ours = store.opened(selection, level).values
            path = store.array(image, level)
            with their_own_warnings():
                np.testing.assert_array_equal(zarr.open_array(store.path, path=path, mode="r")[...], ours, strict=True)
                spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store.path / path)}}
                np.testing.assert_array_equal(
                    tensorstore.open(spec, read=True).result().read().result(), ours, strict=True
                )
                theirs = ngff_zarr.from_ome_zarr(str(store.path / image)).images[level]
                np.testing.assert_array_equal(np.asarray(theirs.data), ours)
                assert tuple(theirs.dims) == store.arrangement.order
            with xr.open_zarr(store.path, group=os.path.dirname(path), consolidated=False) as plain:
                np.testing.assert_array_equal(plain[store.about["name"]], ours, strict=True)


def test_the_reader_of_ome_zarr_reads_the_same_voxels(store):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    for image, selection in store.images:
        with their_own_warnings():
            node = next(iter(Reader(parse_url(store.path / image))()))
            for level in store.levels:
                np.testing.assert_array_equal(np.asarray(node.data[level]), store.opened(selection, level))


def halves(values, factors, *, nearest):
    """Return the next level by plain NumPy."""
    values = values[tuple(slice(n // f * f) for n, f in zip(values.shape, factors, strict=True))]
    if nearest:
        return values[tuple(slice(None, None, f) for f in factors)]
    parts = values.reshape([m for n, f in zip(values.shape, factors, strict=True) for m in (n // f, f)])
    axes = tuple(range(1, parts.ndim, 2))
    if values.dtype.kind in "iu":
        return np.floor(parts.mean(axis=axes, dtype=np.float64) + 0.5).astype(values.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of voxels that are all NaN
        return np.nanmean(parts, axis=axes, dtype=np.float64)


def test_lower_levels_are_means(store):
    for _, selection in store.images:
        for level, factors in enumerate(store.about["factors"]):
            upper, lower = (store.opened(selection, n).values for n in (level, level + 1))
            expected = halves(upper, factors, nearest=store.about["nearest"])
            largest = np.abs(upper[np.isfinite(upper)]).max(initial=0) if upper.dtype.kind == "f" else 0
            np.testing.assert_allclose(lower, expected, rtol=0, atol=1e-6 * largest)


def test_xarray_reads_the_store_where_lazyvol_is_not_loaded(tmp_path):
    found = saved(made.plain(tmp_path / "dicom"), tmp_path / "a.zarr", levels=2)
    code = (
        "import sys, xarray as xr\n"
        f"one = xr.open_zarr({str(found.path)!r}, group='scale0', consolidated=False)\n"
        f"tree = xr.open_datatree({str(found.path)!r}, engine='zarr', consolidated=False)\n"
        "assert one.image.identical(tree['scale0/image'])\n"
        "assert tree['scale1'].x.attrs['units'] == 'mm'\n"
        "assert 'lazyvol.volume' not in sys.modules\n"
        "print(int(one.image.astype('int64').sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(found.volume.astype("int64").sum())


# The round trip


def test_a_volume_comes_back_identical(store):
    again = lv.open_zarr(store.path).compute()
    xr.testing.assert_identical(again, store.volume.drop_vars("source", errors="ignore").compute().rename(again.name))
    assert str(lv.geometry_of(again)) == str(lv.geometry_of(store.volume))
    assert lv.findings_of(again) == lv.findings_of(store.volume)


CODECS = [None, "auto", BloscCodec(cname="lz4"), ZstdCodec(level=3), GzipCodec(level=2)]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_volume_with_any_options_comes_back_identical(data):
    shape = data.draw(st.tuples(*(st.integers(1, n) for n in (7, 12, 12))))
    gaps = data.draw(st.sampled_from([(), tuple(3 + k % 2 for k in range(shape[0] - 1))]))
    folder = Path(tempfile.mkdtemp())
    options = {"gaps": gaps} if gaps else {"directions": data.draw(st.sampled_from(sorted(made.DIRECTIONS)))}
    volume = made.plain(folder / "dicom", shape, **options)
    for dim in data.draw(st.lists(st.sampled_from(["time", "echo", "phase"]), max_size=3, unique=True)):
        labels = np.sort(np.random.default_rng(1).random(data.draw(st.integers(1, 2))))
        volume = xr.concat([volume] * labels.size, xr.Variable(dim, labels), coords="minimal", compat="override")
    turns = data.draw(st.fixed_dictionaries({d: st.sampled_from([1, -1]) for d in "zyx"}))
    volume = volume.isel({d: slice(None, None, turn) for d, turn in turns.items()})
    volume = volume.transpose(*data.draw(st.permutations(volume.dims)))
    volume = volume.astype(data.draw(st.sampled_from(["int16", "uint16", "float32", "float64", "int64", "bool"])))
    volume.attrs["findings"] = data.draw(st.sampled_from([[], ["one"], ["one", "two"]]))
    chunk = data.draw(st.dictionaries(st.sampled_from("zyx"), st.integers(1, 4)))
    shards = {d: n * data.draw(st.integers(1, 3)) for d, n in chunk.items()}
    path = folder / "a.zarr"
    again = saved(
        volume,
        path,
        chunks=chunk or None,
        shards=shards or None,
        levels=data.draw(st.integers(1, 3)),
        codec=data.draw(st.sampled_from(CODECS)),
        version=data.draw(st.sampled_from(["0.5", "0.6"])),
    )
    opened = lv.open_zarr(path)
    xr.testing.assert_identical(opened.compute(), volume.drop_vars("source").compute().rename(opened.name))
    for image, _ in again.images:
        with their_own_warnings():
            ngff_zarr.from_ome_zarr(str(path / image), validate=True)


def test_by_default_all_but_uids_comes_back(tmp_path):
    volume = made.many(tmp_path / "dicom", made.TIMES | made.ECHOES | made.COMPONENTS)
    lv.save_zarr(volume, tmp_path / "a.zarr")
    uids = ["sop_instance_uid", "geometry"]
    again = lv.open_zarr(tmp_path / "a.zarr").drop_vars(uids)
    xr.testing.assert_identical(again.compute(), volume.drop_vars([*uids, "source"]).compute())


# What they show


def test_metadata_are_strict_json(store):
    """NaN is no JSON: readers in other languages refuse the whole store."""

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    for path in store.path.rglob("zarr.json"):
        json.loads(path.read_text(), parse_constant=refuse)


def test_windows_are_within_what_there_can_be(store):
    for image, _ in store.images:
        ome = store.ome(image)
        assert ("omero" in ome) != ("image-label" in ome)
        for channel in ome.get("omero", {}).get("channels", []):
            low, start, end, high = (channel["window"][k] for k in ("min", "start", "end", "max"))
            assert np.isfinite([low, start, end, high]).all()
            assert low <= start < end <= high


@pytest.mark.parametrize("kind", ["colour", "colour and time", "in colour as float"])
def test_colour_has_three_channels(kind, tmp_path):
    found = saved(made.MADE[kind](tmp_path / "dicom"), tmp_path / "a.zarr")
    channels = found.ome("")["omero"]["channels"]
    assert [(c["label"], c["color"]) for c in channels] == [("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF")]


def test_samples_in_another_order_keep_their_colours(tmp_path):
    found = saved(made.colour(tmp_path / "dicom").isel(sample=[2, 0]), tmp_path / "a.zarr")
    assert [c["label"] for c in found.ome("")["omero"]["channels"]] == ["blue", "red"]


def window_of(found, image=""):
    window = found.ome(image)["omero"]["channels"][0]["window"]
    return window["start"], window["end"]


def test_the_window_is_that_of_the_header(tmp_path):
    volume = made.plain(tmp_path / "dicom", WindowCenter="50", WindowWidth="101")
    assert window_of(saved(volume, tmp_path / "a.zarr")) == (-0.5, 99.5)


def test_a_window_that_differs_between_slices_is_that_of_the_middle_one(tmp_path):
    made.plain(tmp_path / "dicom")
    for path in (tmp_path / "dicom").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.WindowCenter, dataset.WindowWidth = [str(100 * dataset.InstanceNumber), "101"]
        dataset.save_as(path)
    volume = lv.open_volume(tmp_path / "dicom")
    centre = float(volume.window_center[3])
    assert window_of(saved(volume, tmp_path / "a.zarr")) == (centre - 50.5, centre + 49.5)


def test_without_a_window_it_is_that_of_the_values(tmp_path):
    start, end = window_of(saved(made.many(tmp_path / "dicom", made.ECHOES), tmp_path / "a.zarr"))
    assert 0 <= start < end <= 12 * 480


TOWARDS = {
    "axial": ("inferior-to-superior", "anterior-to-posterior", "right-to-left"),
    "feet first": ("superior-to-inferior", "anterior-to-posterior", "left-to-right"),
    "prone": ("inferior-to-superior", "posterior-to-anterior", "left-to-right"),
    "sagittal": ("left-to-right", "superior-to-inferior", "anterior-to-posterior"),
    "coronal": ("anterior-to-posterior", "superior-to-inferior", "right-to-left"),
    "oblique": ("inferior-to-superior", "anterior-to-posterior", "right-to-left"),
    "twice oblique": ("inferior-to-superior", "anterior-to-posterior", "right-to-left"),
    "tilted": ("inferior-to-superior", "anterior-to-posterior", "right-to-left"),
}


@pytest.mark.parametrize("turn", [slice(None), slice(None, None, -1)], ids=["as it is", "flipped"])
@pytest.mark.parametrize("kind", TOWARDS)
def test_axes_say_which_way_they_grow(kind, turn, tmp_path):
    """As stored: a flipped volume is stored the other way round, with labels that ascend."""
    volume = made.plain(tmp_path / "dicom", directions=kind)
    found = saved(volume[turn, turn, turn], tmp_path / "a.zarr")
    axes = found.ome("")["multiscales"][0]["axes"]
    ascending = volume.sortby(["z", "y", "x"])
    letters = lv.geometry_of(ascending).axis_letters
    assert tuple(a["orientation"]["value"] for a in axes) == tuple(made.WORDS[letter] for letter in letters)
    if (np.diff(volume.z) > 0).all():
        assert tuple(a["orientation"]["value"] for a in axes) == TOWARDS[kind]


def test_a_projection_keeps_the_orientation_of_the_axes_that_stay(tmp_path):
    found = saved(made.plain(tmp_path / "dicom").max("z", keep_attrs=True), tmp_path / "a.zarr")
    axes = {a["name"]: a for a in found.ome("")["multiscales"][0]["axes"]}
    assert axes["x"]["orientation"]["value"] == "right-to-left"
    assert "orientation" not in axes["z"]


# Labels


@pytest.mark.parametrize("version", ["0.5", "0.6"])
@pytest.mark.parametrize("colours", ["all", "some", "none"])
def test_a_label_map_has_its_names_and_colours(colours, version, tmp_path):
    organs = made.segmented(tmp_path / "seg", "LABELMAP", colours)
    image = organs.astype("int16").drop_attrs(deep=False)
    lv.save_zarr(image, tmp_path / "a.zarr", version=version)
    lv.save_zarr(organs, tmp_path / "a.zarr", group="labels/organs", version=version)
    assert zarr.open_group(tmp_path / "a.zarr/labels", mode="r").attrs["ome"] == {
        "version": version,
        "labels": ["organs"],
    }
    said = zarr.open_group(tmp_path / "a.zarr/labels/organs", mode="r").attrs["ome"]["image-label"]
    assert said["source"] == {"image": "../../"}
    assert [(p["label-value"], p["name"]) for p in said["properties"]] == [
        (0, "Background"),
        (1, "liver"),
        (2, "spleen"),
    ]
    shown = {c["label-value"]: c["rgba"] for c in said.get("colors", [])}
    assert list(shown) == ([] if colours == "none" else [0, 1, 2])
    if shown:
        assert np.abs(np.subtract(shown[1], [200, 30, 40, 255])).max() <= 3  # by way of CIELab
        assert (shown[0][3], shown[2][3]) == (0, 255)
    with their_own_warnings():
        found = ngff_zarr.from_ome_zarr(str(tmp_path / "a.zarr/labels/organs"), validate=True)
        np.testing.assert_array_equal(np.asarray(found.images[0].data), organs)
        if version == "0.5":
            group = zarr.open_group(tmp_path / "a.zarr/labels/organs", mode="r")
            assert type(ome_zarr_models.open_ome_zarr(group)).__name__ == "ImageLabel"


def test_a_segmentation_of_its_own_points_to_no_image(tmp_path):
    found = saved(made.segmented(tmp_path / "seg", "LABELMAP"), tmp_path / "a.zarr")
    assert "source" not in found.ome("")["image-label"]


# Version 0.6

KNOWN = ["plain", "larger", "flipped along all", "strided", "one slice", "time", "colour and time", "label map"]
PLACES = {kind: made.MADE[kind] for kind in KNOWN} | {
    kind: (lambda folder, kind=kind: made.plain(folder, directions=kind)) for kind in made.DIRECTIONS
}


@pytest.fixture(scope="module", params=PLACES)
def newer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("newer")
    return saved(PLACES[request.param](folder / "dicom"), folder / "a.zarr", levels=3, version="0.6")


def test_ngff_zarr_reads_the_affine_to_the_patient(newer):
    with their_own_warnings():
        found = ngff_zarr.from_ome_zarr(str(newer.path), validate=True)
    (step,) = found.metadata.coordinateTransformations
    assert (step.input.name, step.output.name) == ("intrinsic", "patient")
    for level, theirs in zip(newer.levels, found.images, strict=True):
        order = newer.arrangement.order
        within = np.diag([theirs.scale[d] for d in order] + [1.0])
        within[:-1, -1] = [theirs.translation[d] for d in order]
        matrix = np.asarray(step.affine) @ within
        ours = lv.geometry_of(newer.opened({}, level)).affine
        assert np.abs(matrix[-3:, -4:] - ours[[2, 1, 0]]).max() < WITHIN
        np.testing.assert_array_equal(np.asarray(theirs.data), newer.opened({}, level))


def test_the_axes_of_the_patient_are_lps(newer):
    systems = newer.ome("")["multiscales"][0]["coordinateSystems"]
    assert [s["name"] for s in systems] == ["intrinsic", "patient"]
    space = [a for a in systems[1]["axes"] if a["type"] == "space"]
    assert [a["orientation"]["value"] for a in space] == list(TOWARDS["axial"])


def test_ome_zarr_models_accepts_the_affine(newer):
    if not hasattr(ome_zarr_models, "v06"):
        pytest.skip("this ome-zarr-models knows versions up to 0.5; 1.8, for Python 3.12 on, knows 0.6")
    with their_own_warnings():
        found = ome_zarr_models.open_ome_zarr(zarr.open_group(newer.path, mode="r"))
    assert type(found).__module__.startswith("ome_zarr_models.v06")


def test_what_lazyvol_takes_from_the_metadata_alone_lies_at_the_same_place(newer):
    """As from a store of another tool."""
    ours = newer.opened({}, 0)
    root = zarr.open_group(newer.path, mode="r+")
    about = root.attrs["lazyvol"]
    del root.attrs["lazyvol"]
    try:
        theirs = lv.open_zarr(newer.path)
    finally:
        root.attrs["lazyvol"] = about
    corners = list(product(*((0, n - 1) for n in lv.geometry_of(ours).shape)))
    np.testing.assert_allclose(
        np.sort(lv.geometry_of(theirs).index_to_position(corners), axis=0),
        np.sort(lv.geometry_of(ours).index_to_position(corners), axis=0),
        rtol=0,
        atol=WITHIN,
    )


def test_a_volume_of_unknown_place_has_no_affine(tmp_path):
    found = saved(made.plain(tmp_path / "dicom", positions=False), tmp_path / "a.zarr", version="0.6")
    (image,) = found.ome("")["multiscales"]
    assert [s["name"] for s in image["coordinateSystems"]] == ["intrinsic"]
    assert "coordinateTransformations" not in image
    with their_own_warnings():
        ngff_zarr.from_ome_zarr(str(found.path), validate=True)


def test_a_version_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"version='0\.4' must be one of '0\.5', '0\.6'"):
        lv.save_zarr(made.plain(tmp_path / "dicom"), tmp_path / "a.zarr", version="0.4")
