"""A sheared stack on a straight grid: every voxel that lies inside the data has the value of its place."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import series_made as made
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyvol as lv
from lazyvol.errors import GeometryError
from lazyvol.geometry import slice_normal

SLOPES = np.array([1.5, -2.25, 3.0])
"""Of the linear function that the voxels hold, for each mm along x, y and z."""


def turned(degrees, axis):
    """Return the matrix that turns by an angle about an axis."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def sheared(lean_y=0.0, lean_x=0.0, *, turn=None, count=6, grow=None):
    """Return a tilted stack, and the same whose values are a linear function of where each voxel lies."""
    rows = np.eye(3) if turn is None else turn
    along_x, along_y, normal = rows
    step = 2.5 * (normal + np.tan(np.radians(lean_y)) * along_y + np.tan(np.radians(lean_x)) * along_x)
    volume = lv.open_volume(made.series(count, orientation=(*along_x, *along_y), step=step))
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
    linear = volume.vol.index_to_position(index) @ SLOPES
    return volume.copy(data=linear.astype("float32"))


def truth(volume):
    """Return the linear function at every voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
    return volume.vol.index_to_position(index) @ SLOPES


def inside(result, source, margin):
    """Return which voxels of a volume lie within the slices of another, or up to ``margin`` voxels outside."""
    index = np.stack(np.meshgrid(*map(np.arange, result.shape), indexing="ij"), axis=-1)
    found = source.vol.position_to_index(result.vol.index_to_position(index))
    return ((found[..., 1:] > -margin) & (found[..., 1:] < np.array(source.shape[1:]) - 1 + margin)).all(-1)


def check(volume, *, edge=1e-9):
    """Assert that a rectified volume has the linear function at every voxel in the data, and NaN elsewhere.

    A voxel on the very edge, within ``edge`` voxels of it outside, is in the data; one that nearly is may be either.
    """
    result = lv.rectify(volume)
    within, beside = inside(result, volume, edge), ~inside(result, volume, 2e-6)
    assert within.any()
    values, right = result.values, truth(result)
    np.testing.assert_allclose(values[within], right[within], rtol=0, atol=3e-6 * np.abs(right).max())
    assert np.isnan(values[beside]).all()


@pytest.mark.parametrize("degrees", [-25, -15, -5, -0.5, 0.5, 5, 15, 25])
@pytest.mark.parametrize("oblique", [False, True], ids=["axial", "oblique"])
def test_a_tilt_leaves_every_voxel_with_the_value_of_its_place(degrees, oblique):
    check(sheared(degrees, turn=turned(33, (1, -2, 0.5)) if oblique else None))


@settings(deadline=None, max_examples=25)
@given(
    st.floats(-25, 25),
    st.floats(-25, 25),
    st.floats(-180, 180),
    st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.2, 1)),
)
def test_any_shear_of_any_stack_leaves_every_voxel_with_the_value_of_its_place(lean_y, lean_x, angle, axis):
    check(sheared(lean_y, lean_x, turn=turned(angle, axis)), edge=-2e-6)


@pytest.mark.parametrize(
    "cut",
    [
        {"z": slice(None, None, -1)},
        {"y": slice(None, None, -1)},
        {"x": slice(None, None, -1)},
        {"z": slice(1, 5), "y": slice(3, 17), "x": slice(5, 20)},
        {"z": slice(None, None, 2), "y": slice(None, None, 2)},
        {"z": slice(None, None, -1), "y": slice(None, None, -1), "x": slice(None, None, -1)},
    ],
    ids=["z flipped", "y flipped", "x flipped", "cropped", "strided", "all flipped"],
)
def test_a_part_of_a_tilted_volume_is_rectified_in_its_place(cut):
    check(sheared(15, 4).isel(cut))


# The grid


@pytest.mark.parametrize("degrees", [-20, 15])
def test_the_result_is_straight(degrees):
    assert lv.rectify(sheared(degrees)).vol.geometry.shear == pytest.approx(0, abs=1e-9)


def test_the_spacing_is_the_distance_along_the_normal():
    volume = sheared(15)
    assert volume.vol.spacing.z == pytest.approx(2.5 / np.cos(np.radians(15)))
    np.testing.assert_allclose(lv.rectify(volume).vol.spacing, (2.5, 0.8, 0.6))


def test_z_runs_along_the_normal():
    volume = sheared(15, turn=turned(33, (1, -2, 0.5)))
    directions = volume.vol.directions
    np.testing.assert_allclose(
        lv.rectify(volume).vol.directions, [slice_normal([*directions[2], *directions[1]]), *directions[1:]], atol=1e-9
    )


def test_the_grid_grows_as_far_as_the_slices_drift_and_no_further():
    volume = sheared(15)
    drift = 5 * 2.5 * np.tan(np.radians(15)) / 0.8
    assert lv.rectify(volume).shape == (6, 20 + int(np.ceil(drift)), 24)


def test_every_voxel_of_the_volume_lies_within_the_result():
    volume = sheared(15, -7)
    result = lv.rectify(volume)
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in volume.shape), indexing="ij"), axis=-1)
    index = result.vol.position_to_index(volume.vol.index_to_position(corners))
    assert (index > -1e-9).all()
    assert (index < np.array(result.shape) - 1 + 1e-9).all()


def test_a_slice_that_does_not_move_keeps_its_values():
    volume = sheared(15)
    np.testing.assert_array_equal(lv.rectify(volume).values[0][:20], volume.values[0])


# What stays, what goes


def test_a_straight_volume_is_returned_as_it_is():
    volume = lv.open_volume(made.series())
    assert lv.rectify(volume) is volume


def test_an_oblique_volume_that_is_straight_is_returned_as_it_is():
    volume = lv.open_volume(made.series(orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28)))
    assert lv.rectify(volume) is volume


def test_one_slice_is_returned_as_it_is():
    one = sheared(15).isel(z=[2])
    assert lv.rectify(one) is one


def test_the_result_is_float32_on_dask():
    result = lv.rectify(sheared(15))
    assert (result.dtype, result.chunks is not None) == ("float32", True)


def test_the_volume_itself_stays_as_it_was():
    volume = sheared(15)
    before = volume.copy(deep=True)
    lv.rectify(volume).compute()
    assert volume.identical(before)


def test_the_tilt_is_no_longer_a_finding():
    volume = sheared(15)
    assert made.codes(volume) == ["tilted"]
    assert made.codes(lv.rectify(volume)) == []


def test_the_other_findings_stay():
    images = made.series(orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5))
    volume = lv.open_volume([*images, made.series(orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5))[2]])
    assert made.codes(lv.rectify(volume)) == ["copies-dropped"]


def test_name_units_and_slice_coordinates_stay():
    volume = lv.open_volume(made.series(orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5)))
    result = lv.rectify(volume)
    assert (result.name, result.attrs["units"]) == ("image", "HU")
    assert result.instance_number.values.tolist() == volume.instance_number.values.tolist()


def test_a_series_without_dask_is_rectified_too():
    images = made.series(orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5))
    plain, chunked = (lv.rectify(lv.open_volume(images, chunks=c)).values for c in (None, "auto"))
    np.testing.assert_array_equal(plain, chunked)


def test_a_time_series_is_rectified_time_by_time():
    images = made.grid(
        {"EchoTime": [4.6, 9.2]}, 4, ImageOrientationPatient=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5)
    )
    volume = lv.open_volume(images)
    result = lv.rectify(volume)
    assert result.dims == ("echo", "z", "y", "x")
    for n in range(2):
        np.testing.assert_array_equal(result.isel(echo=n).values, lv.rectify(volume.isel(echo=n)).values)


def test_dimensions_in_another_order_are_rectified_too():
    volume = sheared(15)
    np.testing.assert_array_equal(
        lv.rectify(volume.transpose("y", "x", "z")).transpose("z", "y", "x").values, lv.rectify(volume).values
    )


@pytest.mark.parametrize("at", [(0, 1, 2, 4, 5), (0, 1, 2.3, 3, 4)], ids=["missing", "uneven"])
def test_uneven_slices_cannot_be_rectified(at):
    images = made.series(at=at, orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5))
    with pytest.raises(GeometryError, match="unevenly spaced"):
        lv.rectify(lv.open_volume(images))


def test_a_volume_of_unknown_place_cannot_be_rectified():
    with pytest.raises(GeometryError, match="not known"):
        lv.rectify(lv.open_volume(made.series(ImageOrientationPatient=None)))


# Laziness


@pytest.fixture
def tilted_folder(tmp_path):
    images = made.series(orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5))
    return tmp_path, made.write(tmp_path, images)


def test_rectifying_reads_nothing(tilted_folder, read):
    lv.rectify(lv.open_volume(tilted_folder[0]))
    assert read == []


@pytest.mark.parametrize("chunks", [{"z": 1}, None], ids=["a chunk for each slice", "without dask"])
def test_a_slice_of_the_result_reads_one_slice(tilted_folder, read, chunks):
    folder, paths = tilted_folder
    lv.rectify(lv.open_volume(folder, chunks=chunks)).isel(z=7).compute()
    assert read == [str(paths[7])]


def test_a_slice_of_the_result_reads_no_more_than_its_chunk(tilted_folder, read):
    folder, paths = tilted_folder
    lv.rectify(lv.open_volume(folder, chunks={"z": 4})).isel(z=7).compute()
    assert sorted(read) == sorted(map(str, paths[4:8]))


def test_a_result_read_whole_reads_each_slice_once(tilted_folder, read):
    folder, paths = tilted_folder
    lv.rectify(lv.open_volume(folder)).compute()
    assert sorted(read) == sorted(map(str, paths))


# Another resampler


def test_the_result_is_that_of_simpleitk():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG types, from Python 3.12
        sitk = pytest.importorskip("SimpleITK")
    volume = sheared(12)
    rng = np.random.default_rng(8)
    volume = volume.copy(data=rng.normal(0, 100, volume.shape).astype("float32"))
    result = lv.rectify(volume)

    def as_image(of, values):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing([float(v) for v in reversed(of.vol.spacing)])
        image.SetOrigin(of.vol.origin)
        return image

    # SimpleITK takes no sheared directions, so each slice is a volume of its own, moved to where its header puts it.
    for k in range(volume.sizes["z"]):
        one = as_image(volume, volume.values[k : k + 1])
        one.SetOrigin([float(v) for v in volume.vol.index_to_position((k, 0, 0))])
        onto = as_image(result, result.values[k : k + 1])
        onto.SetOrigin([float(v) for v in result.vol.index_to_position((k, 0, 0))])
        theirs = sitk.GetArrayFromImage(sitk.Resample(one, onto, sitk.Transform(), sitk.sitkLinear, float("nan")))[0]
        ours = result.values[k]
        both = np.isfinite(ours) & np.isfinite(theirs)
        assert both.sum() >= 19 * 24
        np.testing.assert_allclose(ours[both], theirs[both], rtol=0, atol=1e-2)
