"""What other tools make of a store: they accept it, read the same voxels, and put them at the same place."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
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
    for image, _ in store.images:
        with their_own_warnings():
            found = ngff_zarr.from_ome_zarr(str(store.path / image), validate=True)
        assert [tuple(i.data.shape) for i in found.images] == [store.opened({}, n).shape[-len(store.arrangement.order):] for n in store.levels]


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
        for (upper, lower), factors in zip(zip(each[:-1], each[1:], strict=True), store.about["factors"], strict=True):
            np.testing.assert_allclose(lower[0], np.multiply(upper[0], factors), rtol=1e-3)
            np.testing.assert_allclose(lower[1], upper[1] + np.multiply(upper[0], np.subtract(factors, 1)) / 2, atol=5e-3)


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
