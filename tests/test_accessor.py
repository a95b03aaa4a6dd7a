"""The accessor: ``.vol`` says what geometry and header say, for a volume and for what xarray makes of it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pydicom
import pytest
import xarray as xr

import lazyvol as lv
from lazyvol.errors import GeometryError
from lazyvol.phantom import write_series

ANGLE = np.radians(25)
GRIDS = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "oblique": ((0, -np.sin(ANGLE), np.cos(ANGLE)), (0, np.cos(ANGLE), np.sin(ANGLE)), (1, 0, 0)),
    "tilted": ((0, np.sin(0.2), np.cos(0.2)), (0, 1, 0), (1, 0, 0)),
}
SPACING, ORIGIN = (5.0, 0.9, 0.7), (-30.0, -40.0, 55.0)


@pytest.fixture(scope="module", params=GRIDS)
def case(request, tmp_path_factory):
    """Directions (rows z, y, x) in ascending order of slices, files in that order, and the volume."""
    directions = np.array(GRIDS[request.param], dtype=float)
    folder = tmp_path_factory.mktemp(request.param)
    values = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    paths = write_series(folder, values, spacing=SPACING, origin=ORIGIN, directions=directions)
    upwards = np.dot(np.cross(directions[2], directions[1]), directions[0]) > 0
    if not upwards:
        directions[0] *= -1
        paths = paths[::-1]
    return directions, paths, lv.open_volume(folder)


def test_spacing_is_that_of_the_files(case):
    _, _, volume = case
    np.testing.assert_allclose(volume.vol.spacing, SPACING, atol=1e-6)


def test_the_field_of_view_is_shape_times_spacing(case):
    _, _, volume = case
    np.testing.assert_allclose(volume.vol.field_of_view, np.multiply(volume.shape, SPACING), atol=1e-6)


def test_what_goes_by_axis_has_names(case):
    _, _, volume = case
    assert volume.vol.spacing._fields == volume.vol.field_of_view._fields == ("z", "y", "x")


def test_origin_is_the_position_of_the_first_slice(case):
    _, paths, volume = case
    np.testing.assert_allclose(volume.vol.origin, pydicom.dcmread(paths[0]).ImagePositionPatient, atol=1e-6)


def test_directions_are_those_of_the_files(case):
    directions, _, volume = case
    np.testing.assert_allclose(volume.vol.directions, directions, atol=1e-6)


def test_the_affine_gives_the_position_of_each_slice(case):
    _, paths, volume = case
    found = [volume.vol.affine @ (k, 0, 0, 1) for k in range(4)]
    expected = [[*pydicom.dcmread(p).ImagePositionPatient, 1] for p in paths]
    np.testing.assert_allclose(found, np.array(expected, float), atol=1e-5)


def test_the_affine_gives_the_position_of_a_pixel(case):
    _, paths, volume = case
    header = pydicom.dcmread(paths[2])
    along_x, along_y = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    expected = np.array(header.ImagePositionPatient, float) + 7 * 0.7 * along_x + 5 * 0.9 * along_y
    np.testing.assert_allclose((volume.vol.affine @ (2, 5, 7, 1))[:3], expected, atol=1e-5)


def test_the_affine_to_ras_turns_x_and_y(case):
    _, _, volume = case
    np.testing.assert_allclose(volume.vol.affine_ras, np.diag([-1, -1, 1, 1]) @ volume.vol.affine)


def test_index_to_position_is_the_affine(case):
    _, _, volume = case
    np.testing.assert_allclose(
        volume.vol.index_to_position([[1, 2, 3], [0.5, 0, -1]]),
        [(volume.vol.affine @ (*i, 1))[:3] for i in ([1, 2, 3], [0.5, 0, -1])],
        atol=1e-9,
    )


def test_position_to_index_undoes_index_to_position(case):
    _, _, volume = case
    index = np.array([[1.25, 2, 3], [0, 5, 7]])
    np.testing.assert_allclose(volume.vol.position_to_index(volume.vol.index_to_position(index)), index, atol=1e-9)


@pytest.mark.parametrize(
    "cut",
    [
        lambda v: v[1:, 2:, 3:],
        lambda v: v[::-1],
        lambda v: v[:, ::-2, ::-3],
        lambda v: v[::2, ::3],
        lambda v: v.isel(y=4),
        lambda v: v * 2 + 1,
        lambda v: v.astype("float32").where(v > 50),
        lambda v: v.transpose("x", "y", "z"),
    ],
    ids=["crop", "flip", "flip and stride", "stride", "one row", "arithmetic", "masked", "transposed"],
)
def test_each_voxel_keeps_its_position_and_value(case, cut):
    _, _, volume = case
    part = cut(volume)
    where = part.isel(dict.fromkeys(part.dims, -1))
    index = [part.sizes.get(axis, 1) - 1 for axis in "zyx"]
    before = np.rint(volume.vol.position_to_index(part.vol.index_to_position(index))).astype(int)
    np.testing.assert_allclose(volume.vol.index_to_position(before), part.vol.index_to_position(index), atol=1e-6)
    expected = cut(volume).isel(dict.fromkeys(part.dims, -1)).z, volume.z[before[0]]
    assert float(expected[0]) == pytest.approx(float(expected[1]))
    assert float(where.x) == pytest.approx(float(volume.x[before[2]]))


@pytest.mark.parametrize(
    ("kind", "letters"),
    [("axial", "LPS"), ("sagittal", "PIR"), ("coronal", "LIA"), ("oblique", "LPS"), ("tilted", "LPS")],
)
def test_orientation_says_where_x_y_z_grow(tmp_path, kind, letters):
    values = np.zeros((3, 4, 5))
    write_series(tmp_path, values, spacing=SPACING, origin=ORIGIN, directions=GRIDS[kind])
    directions = np.array(GRIDS[kind])
    upwards = np.dot(np.cross(directions[2], directions[1]), directions[0]) > 0
    opposite = dict(zip("LRAPSI", "RLPAIS", strict=True))
    given = (
        letters
        if not upwards
        else letters[:2] + (letters[2] if kind in ("axial", "oblique", "tilted") else opposite[letters[2]])
    )
    assert lv.open_volume(tmp_path).vol.orientation == given


def test_geometry_and_findings_are_those_of_the_functions(case):
    _, _, volume = case
    assert volume.vol.geometry == lv.geometry_of(volume)
    assert volume.vol.findings == lv.findings_of(volume)


def test_plot_draws_as_plot_slices(case):
    _, _, volume = case
    (one,), (other,) = volume.vol.plot(z=float(volume.z[1])), lv.plot_slices(volume, z=float(volume.z[1]))
    assert one.get_extent() == other.get_extent()
    np.testing.assert_array_equal(one.get_array(), other.get_array())


def test_an_array_without_geometry_says_so():
    with pytest.raises(GeometryError, match="not opened by lazyvol"):
        xr.DataArray(np.zeros((2, 3, 4)), dims=("z", "y", "x")).vol.spacing  # noqa: B018  # it raises


@pytest.mark.parametrize(
    "code",
    [
        "import xarray, lazyvol",
        "import lazyvol; lazyvol.open_volume; import xarray",
        "import lazyvol.accessor, xarray",
    ],
    ids=["xarray first", "lazyvol first", "by name"],
)
def test_the_accessor_is_registered(code, tmp_path):
    line = f"{code}; assert hasattr(xarray.DataArray, 'vol')"
    subprocess.run([sys.executable, "-c", line], check=True, cwd=tmp_path)


def test_importing_lazyvol_alone_stays_light(tmp_path):
    line = "import lazyvol, sys; assert not {'xarray', 'numpy', 'pydicom', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", line], check=True, cwd=tmp_path)
