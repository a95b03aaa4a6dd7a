"""NIfTI files against nibabel: the same values at the same places."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import examples, rotations

import lazyvol as lv
from lazyvol.errors import OptionError, SourceNotFoundError, UnsupportedSeriesError

nibabel = pytest.importorskip("nibabel", reason="nibabel is absent: install lazyvol[nifti]")


def save(path, values, affine, *, kind=nibabel.Nifti1Image, units="mm", slope=None, step=None):
    image = kind(values, affine)
    image.header.set_xyzt_units(units, "sec" if step else None)
    if step:
        image.header["pixdim"][4] = step
    nibabel.save(image, path)
    if slope:  # nibabel would work out its own
        content = bytearray(path.read_bytes())
        content[112:120] = struct.pack("<2f", *slope)
        path.write_bytes(content)
    return path


@pytest.fixture
def affine():
    matrix = np.diag([0.7, 0.9, 3.0, 1.0])
    matrix[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ matrix[:3, :3]
    matrix[:3, 3] = (-10, 20, 30)
    return matrix


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image], ids=["1", "2"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", ">i2"])
def test_values_and_affine_are_those_of_nibabel(tmp_path, rng, affine, suffix, kind, dtype):
    values = rng.integers(0, 200, (4, 5, 6)).astype(dtype)
    path = save(tmp_path / f"a{suffix}", values, affine, kind=kind)
    volume = lv.open_nifti(path)
    image = nibabel.load(path)
    assert volume.dims == ("z", "y", "x")
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume, np.asarray(image.dataobj).T)
    np.testing.assert_allclose(volume.vol.affine_ras[:, [2, 1, 0, 3]], image.affine, atol=1e-5)
    assert lv.findings_of(volume) == ()


@examples(60)
@given(st.data(), rotations())
def test_any_cut_is_that_of_the_whole(tmp_path_factory, data, rotation):
    folder = tmp_path_factory.mktemp("nifti")
    values = np.arange(4 * 5 * 6, dtype="int16").reshape(4, 5, 6)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    volume = lv.open_nifti(save(folder / "a.nii", values, matrix), chunks=None)
    key = tuple(
        data.draw(
            st.slices(n).filter(lambda s, n=n: range(n)[s])  # xarray fails where one of no length runs backwards
            | st.integers(0, n - 1)
            | st.lists(st.integers(0, n - 1), max_size=4)
        )
        for n in volume.shape
    )
    expected = values.T
    for axis in (2, 1, 0):
        expected = np.take(expected, np.arange(expected.shape[axis])[key[axis]], axis)
    np.testing.assert_array_equal(volume[key], expected)


def test_a_slope_gives_float32(tmp_path, rng, affine):
    values = rng.integers(0, 200, (4, 5, 6)).astype("int16")
    path = save(tmp_path / "a.nii", values, affine, slope=(0.5, -3))
    volume = lv.open_nifti(path)
    assert volume.dtype == "float32"
    np.testing.assert_array_equal(volume, nibabel.load(path).get_fdata().T.astype("float32"))


def test_time_is_a_dimension_in_seconds(tmp_path, rng, affine):
    path = save(tmp_path / "a.nii", rng.random((4, 5, 6, 3)).astype("float32"), affine, step=2.5)
    volume = lv.open_nifti(path)
    assert volume.dims == ("time", "z", "y", "x")
    np.testing.assert_allclose(volume.time, [0, 2.5, 5])
    np.testing.assert_array_equal(volume, np.asarray(nibabel.load(path).dataobj).T)


def test_what_is_not_known_is_said(tmp_path, affine):
    values = np.zeros((4, 5, 6, 2), "int16")
    volume = lv.open_nifti(save(tmp_path / "a.nii", values, affine, units=None))
    assert [f.code for f in lv.findings_of(volume)] == ["units-unknown", "units-unknown"]
    image = nibabel.Nifti1Image(values[..., 0], None)
    image.header.set_xyzt_units("mm")
    image.header["sform_code"], image.header["qform_code"] = 0, 0
    nibabel.save(image, tmp_path / "b.nii")
    assert [f.code for f in lv.findings_of(lv.open_nifti(tmp_path / "b.nii"))] == ["geometry-unknown"]


def test_one_volume_of_a_series_reads_that_one_alone(tmp_path, affine, monkeypatch):
    import nibabel.arrayproxy as proxies

    path = save(tmp_path / "a.nii", np.zeros((4, 5, 6, 9), "int16"), affine, step=1)
    read = []
    whole = proxies.ArrayProxy._get_unscaled
    monkeypatch.setattr(
        proxies.ArrayProxy, "_get_unscaled", lambda self, slicer: (read.append(slicer), whole(self, slicer))[1]
    )
    lv.open_nifti(path, chunks=None)[3, 2].values  # noqa: B018
    assert read == [(slice(0, 4), slice(0, 5), slice(2, 3), slice(3, 4))]


@pytest.mark.parametrize(
    "content", [b"", b"nothing" * 99, b"\x5c\x01\0\0" + bytes(400)], ids=["empty", "text", "zeros"]
)
def test_what_is_no_nifti_is_named(tmp_path, content):
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(UnsupportedSeriesError, match=r"a\.nii"):
        lv.open_nifti(tmp_path / "a.nii")
    found = lv.open_collection(tmp_path)
    assert len(found) == 0
    assert [s.path for s in found.skipped] == [str(tmp_path / "a.nii")]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 1, 3)], ids=str)
def test_other_dimensions_are_refused(tmp_path, shape):
    path = save(tmp_path / "a.nii", np.zeros(shape, "int16"), np.eye(4))
    with pytest.raises(UnsupportedSeriesError, match="three dimensions"):
        lv.open_nifti(path)


def test_dimensions_of_one_behind_the_third_are_none(tmp_path, rng):
    values = rng.integers(0, 9, (4, 5, 6, 1, 1)).astype("int16")
    volume = lv.open_nifti(save(tmp_path / "a.nii", values, np.eye(4)))
    np.testing.assert_array_equal(volume, values[..., 0, 0].T)


def test_a_file_that_is_absent_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError):
        lv.open_nifti(tmp_path / "a.nii")


def test_without_nibabel_the_remedy_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii", np.zeros((4, 5, 6), "int16"), np.eye(4))
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(OptionError, match=r"Install lazyvol\[nifti\]"):
        lv.open_nifti(path)
    assert "nibabel" in lv.open_collection(tmp_path).skipped[0].reason


def test_a_collection_holds_nifti_files_and_converts_them(tmp_path, rng, affine):
    values = rng.integers(0, 200, (4, 5, 6)).astype("int16")
    save(tmp_path / "in" / "a.nii.gz" if (tmp_path / "in").mkdir() is None else None, values, affine)
    found = lv.open_collection(tmp_path / "in")
    assert list(found.table["kind"]) == ["nifti"]
    assert found.table["spacing"].iloc[0] == pytest.approx((3, 0.9, 0.7))
    (volume,) = found.values()
    np.testing.assert_array_equal(volume, values.T)
    report = found.save_zarr(tmp_path / "out")
    assert list(report["status"]) == ["done"]
    again = lv.open_zarr(tmp_path / "out" / f"{report['name'].iloc[0]}.zarr")
    np.testing.assert_array_equal(again, values.T)
    assert lv.geometry_of(again) == lv.geometry_of(volume)
    (leaf,) = found.datatree().leaves
    np.testing.assert_array_equal(leaf["image"], values.T)
