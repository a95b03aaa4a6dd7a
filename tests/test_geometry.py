"""Grids against the plain formula: position = origin + sum of steps along the directions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made import examples, points, rotations

from lazyvol.errors import GeometryError
from lazyvol.geometry import ZYX, Geometry, find_gaps, fit_line, slice_normal

few = examples(100)
lengths = st.floats(0.1, 12)


@st.composite
def regular_grids(draw, lean=0.5):
    """Oblique grids of other spacing along each axis, whose slices may be sheared."""
    z, y, x = draw(rotations())
    z = z + draw(st.floats(-lean, lean)) * y + draw(st.floats(-lean, lean)) * x
    return Geometry(
        shape=draw(st.tuples(*[st.integers(1, 40)] * 3)),
        spacing=ZYX(draw(lengths), draw(lengths), draw(lengths)),
        origin=draw(points()),
        directions=tuple(tuple(map(float, v / np.linalg.norm(v))) for v in (z, y, x)),
        frame_of_reference="1.2.9",
    )


@st.composite
def uneven_grids(draw):
    gaps = draw(st.lists(st.floats(0.5, 9), min_size=2, max_size=12))
    where = (0.0, *map(float, np.cumsum(gaps)))
    grid = draw(regular_grids())
    return replace(
        grid,
        shape=(len(where), *grid.shape[1:]),
        spacing=ZYX(np.nan, *grid.spacing[1:]),
        slice_positions=where,
    )


grids = st.one_of(regular_grids(), uneven_grids())
indices = st.lists(st.tuples(*[st.floats(-5, 45)] * 3), min_size=1, max_size=5)


def steps_along_z(grid):
    """Return where each slice lies from the first, mm."""
    return np.asarray(grid.slice_positions or np.arange(grid.shape[0]) * grid.spacing.z)


def every_index(grid):
    k, j, i = (np.arange(n) for n in (grid.shape[0], min(grid.shape[1], 3), min(grid.shape[2], 3)))
    return np.stack(np.meshgrid(k, j, i, indexing="ij"), axis=-1).reshape(-1, 3)


def plain_positions(grid, index):
    along = steps_along_z(grid)[index[:, 0]]
    z, y, x = np.asarray(grid.directions)
    return (
        np.asarray(grid.origin)
        + along[:, None] * z
        + (index[:, 1] * grid.spacing.y)[:, None] * y
        + (index[:, 2] * grid.spacing.x)[:, None] * x
    )


# Indices and positions


@few
@given(grids)
def test_voxels_lie_at_origin_plus_steps_along_the_directions(grid):
    index = every_index(grid)
    np.testing.assert_allclose(grid.index_to_position(index), plain_positions(grid, index), rtol=0, atol=1e-9)


@few
@given(grids, indices)
def test_an_index_comes_back_from_its_position(grid, index):
    back = grid.position_to_index(grid.index_to_position(index))
    np.testing.assert_allclose(back, index, rtol=0, atol=1e-6)


@few
@given(grids, st.lists(points(), min_size=1, max_size=5))
def test_a_position_comes_back_from_its_index(grid, positions):
    back = grid.index_to_position(grid.position_to_index(positions))
    np.testing.assert_allclose(back, positions, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)], ids=["one", "list", "array"])
def test_indices_keep_their_shape(shape):
    grid = Geometry((4, 5, 6), ZYX(2, 1, 1), (0, 0, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    assert grid.position_to_index(grid.index_to_position(np.ones(shape))).shape == shape


def test_beyond_uneven_slices_the_end_gaps_go_on():
    grid = Geometry((3, 1, 1), ZYX(np.nan, 1, 1), (0, 0, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), (0, 2, 7))
    np.testing.assert_allclose(grid.index_to_position([(-1, 0, 0), (3, 0, 0)])[:, 2], [-2, 12])


def test_between_uneven_slices_positions_are_linear():
    grid = Geometry((3, 1, 1), ZYX(np.nan, 1, 1), (0, 0, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), (0, 2, 7))
    np.testing.assert_allclose(grid.index_to_position([(0.5, 0, 0), (1.5, 0, 0)])[:, 2], [1, 4.5])


def test_a_slice_of_unknown_thickness_has_positions_in_its_own_plane_only():
    grid = Geometry((1, 3, 3), ZYX(np.nan, 2, 1), (0, 0, 5), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    np.testing.assert_array_equal(grid.index_to_position([(0, 1, 1), (1, 1, 1)]), [(1, 2, 5), (np.nan,) * 3])


def test_a_slice_of_unknown_thickness_has_an_index_in_its_own_plane_only():
    grid = Geometry((1, 3, 3), ZYX(np.nan, 2, 1), (0, 0, 5), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    np.testing.assert_array_equal(grid.position_to_index([(1, 2, 5), (1, 2, 6)]), [(0, 1, 1), (np.nan, 1, 1)])


# Coordinates


@few
@given(grids)
def test_coordinates_times_directions_give_the_positions(grid):
    z, y, x = grid.coordinates()
    index = every_index(grid)
    labels = np.stack([z[index[:, 0]], y[index[:, 1]], x[index[:, 2]]], axis=-1)
    np.testing.assert_allclose(labels @ np.asarray(grid.directions), plain_positions(grid, index), rtol=0, atol=1e-6)


@few
@given(grids)
def test_there_is_one_coordinate_for_each_voxel_along_an_axis(grid):
    assert tuple(map(len, grid.coordinates())) == grid.shape


def test_coordinates_of_an_untilted_axial_grid_are_patient_positions():
    grid = Geometry((2, 3, 4), ZYX(5, 2, 1), (-10, -20, -30), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    z, y, x = grid.coordinates()
    assert (z.tolist(), y.tolist(), x.tolist()) == ([-30, -25], [-20, -18, -16], [-10, -9, -8, -7])


# Affine


@few
@given(regular_grids())
def test_the_affine_is_directions_times_spacing_and_the_origin(grid):
    expected = np.eye(4)
    for column in range(3):
        expected[:3, column] = np.multiply(grid.directions[column], grid.spacing[column])
    expected[:3, 3] = grid.origin
    np.testing.assert_allclose(grid.affine, expected, rtol=0, atol=1e-12)


@few
@given(regular_grids(), indices)
def test_the_affine_maps_indices_as_index_to_position_does(grid, index):
    index = np.asarray(index)
    mapped = np.column_stack([index, np.ones(len(index))]) @ grid.affine.T
    np.testing.assert_allclose(mapped[:, :3], grid.index_to_position(index), rtol=0, atol=1e-9)


@few
@given(regular_grids())
def test_the_affine_to_ras_turns_x_and_y_round(grid):
    np.testing.assert_allclose(grid.affine_ras[:3], np.array([[-1], [-1], [1]]) * grid.affine[:3])


@few
@given(uneven_grids())
def test_uneven_slices_have_no_affine(grid):
    with pytest.raises(GeometryError, match=rf"the {grid.shape[0]} slices are unevenly spaced"):
        _ = grid.affine


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_unknown_spacing_gives_no_affine(axis):
    grid = Geometry((1, 3, 3), ZYX(1, 2, 1)._replace(**{axis: np.nan}), (0, 0, 5), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    with pytest.raises(GeometryError, match="nan"):
        _ = grid.affine


UNPLACED = Geometry((2, 3, 4), ZYX(np.nan, 1, 1))


@pytest.mark.parametrize(
    "ask",
    [
        lambda grid: grid.affine,
        lambda grid: grid.affine_ras,
        lambda grid: grid.axis_letters,
        lambda grid: grid.coordinates(),
        lambda grid: grid.index_to_position((0, 0, 0)),
        lambda grid: grid.position_to_index((0, 0, 0)),
    ],
    ids=["affine", "affine_ras", "letters", "coordinates", "position", "index"],
)
def test_without_a_place_in_the_patient_there_is_an_error(ask):
    with pytest.raises(GeometryError, match="where the volume lies in the patient is not known"):
        ask(UNPLACED)


def test_without_a_place_in_the_patient_the_orientation_is_empty():
    assert not UNPLACED.orientation


@pytest.mark.parametrize("part", ["origin", "directions"])
def test_a_grid_is_known_only_with_origin_and_directions(part):
    whole = Geometry((2, 3, 4), ZYX(1, 1, 1), (0, 0, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    assert whole.is_known
    assert not replace(whole, **{part: getattr(UNPLACED, part)}).is_known


# Extent


@few
@given(regular_grids())
def test_the_field_of_view_is_shape_times_spacing(grid):
    assert grid.field_of_view == pytest.approx(np.multiply(grid.shape, grid.spacing))


@few
@given(uneven_grids())
def test_the_field_of_view_of_uneven_slices_has_half_of_each_end_gap(grid):
    gaps = np.diff(grid.slice_positions)
    assert grid.field_of_view.z == pytest.approx(gaps[0] / 2 + gaps.sum() + gaps[-1] / 2)


def test_the_field_of_view_of_the_end_slices_differs_with_the_end_gaps():
    grid = Geometry((3, 2, 2), ZYX(np.nan, 1, 3), slice_positions=(0.0, 2.0, 10.0))
    assert grid.field_of_view == (15.0, 2.0, 6.0)


def test_the_field_of_view_is_unknown_where_the_spacing_is():
    assert np.isnan(UNPLACED.field_of_view.z)


@few
@given(rotations(), st.floats(-40, 40), lengths)
def test_shear_and_normal_spacing_follow_the_tilt(axes, tilt, step):
    normal, y, x = axes
    normal = np.cross(x, y)
    lean = np.cos(np.radians(tilt)) * normal + np.sin(np.radians(tilt)) * y
    grid = Geometry((3, 3, 3), ZYX(step, 1, 1), (0, 0, 0), tuple(tuple(map(float, v)) for v in (lean, y, x)))
    assert grid.shear == pytest.approx(abs(tilt), abs=1e-6)
    assert grid.normal_spacing == pytest.approx(step * np.cos(np.radians(tilt)))


@few
@given(regular_grids())
def test_drift_is_how_far_the_last_slice_lies_beside_the_normal(grid):
    first, last = grid.index_to_position([(0, 0, 0), (grid.shape[0] - 1, 0, 0)])
    normal = np.cross(grid.directions[2], grid.directions[1])
    beside = (last - first) - np.dot(last - first, normal) * normal
    assert grid.drift == pytest.approx(np.linalg.norm(beside), abs=1e-6)


def test_drift_of_uneven_slices_is_measured_at_the_last():
    lean = ((0.0, 0.6, 0.8), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    assert Geometry((3, 1, 1), ZYX(np.nan, 1, 1), (0, 0, 0), lean, (0, 2, 5)).drift == pytest.approx(3)


def test_a_straight_stack_of_any_orientation_has_no_shear_by_rounding():
    a = np.linspace(0, 3, 50)
    rows = np.stack([np.cos(a), np.sin(a), 0 * a], -1), np.stack([-np.sin(a) * 0.6, np.cos(a) * 0.6, 0.8 + 0 * a], -1)
    leans = [
        Geometry((3, 1, 1), ZYX(1, 1, 1), (0, 0, 0), (np.cross(x, y), y, x)).shear for x, y in zip(*rows, strict=True)
    ]
    assert set(leans) == {0}


# Orientation


@pytest.mark.parametrize(
    ("directions", "letters"),
    [
        (((0, 0, 1), (0, 1, 0), (1, 0, 0)), "LPS"),
        (((0, 0, -1), (0, -1, 0), (-1, 0, 0)), "RAI"),
        (((1, 0, 0), (0, 0, -1), (0, 1, 0)), "PIL"),
        (((0, -1, 0), (0, 0, -1), (1, 0, 0)), "LIA"),
        (((0, -0.6, 0.8), (0, 0.8, 0.6), (1, 0, 0)), "LPS"),
        (((0, 0.8, 0.6), (0, 0.6, -0.8), (1, 0, 0)), "LIP"),
    ],
    ids=["axial", "turned", "sagittal", "coronal", "oblique", "more oblique"],
)
def test_orientation_names_the_sides_that_x_y_and_z_grow_towards(directions, letters):
    assert Geometry((1, 1, 1), ZYX(1, 1, 1), (0, 0, 0), directions).orientation == letters


@few
@given(regular_grids())
def test_orientation_uses_each_pair_of_sides_once(grid):
    assert sorted("LPSLPS"["LPSRAI".index(letter)] for letter in grid.orientation) == ["L", "P", "S"]


@few
@given(regular_grids())
def test_turning_an_axis_round_turns_its_letter_round(grid):
    assume(abs(grid.directions[2]["LPSRAI".index(grid.orientation[0]) % 3]) > 1e-9)  # a component of 0 has no side
    back = replace(grid, directions=(grid.directions[0], grid.directions[1], tuple(-c for c in grid.directions[2])))
    opposite = dict(zip("LPSRAI", "RAILPS", strict=True))
    assert back.orientation == opposite[grid.orientation[0]] + grid.orientation[1:]


@few
@given(rotations())
def test_the_normal_is_square_to_the_slice_and_right_handed(axes):
    x, y, z = axes
    np.testing.assert_allclose(slice_normal(np.concatenate([x, y])), z, rtol=0, atol=1e-12)


@few
@given(rotations(), lengths, lengths)
def test_the_normal_has_unit_length_whatever_the_cosines(axes, a, b):
    assert np.linalg.norm(slice_normal(np.concatenate([a * axes[0], b * axes[1]]))) == pytest.approx(1)


# Gaps


@few
@given(start=st.floats(-2000, 2000), step=st.floats(0.1, 20), n=st.integers(2, 300))
def test_a_regular_stack_is_regular(start, step, n):
    found = find_gaps(start + step * np.arange(n))
    assert (found.kind, found.irregular, found.missing) == ("regular", (), ())
    assert found.spacing == pytest.approx(step, rel=1e-9)


@few
@given(step=st.floats(0.1, 20), noise=st.lists(st.floats(-0.49, 0.49), min_size=3, max_size=60))
def test_noise_within_tolerance_is_regular_with_the_mean_gap(step, noise):
    gaps = step + max(1e-2 * step, 5e-3) / (1 + 0.01) * np.asarray(noise)
    where = np.concatenate([[0], np.cumsum(gaps)])
    found = find_gaps(where)
    assert found.kind == "regular"
    assert found.spacing == pytest.approx(where[-1] / len(gaps))


@pytest.mark.parametrize("step", [0.2, 0.5, 1.0, 5.0], ids=str)
@pytest.mark.parametrize("sign", [1, -1], ids=["wider", "narrower"])
@pytest.mark.parametrize(("share", "kind"), [(0.98, "regular"), (1.02, "uneven")], ids=["within", "beyond"])
def test_the_tolerance_is_a_hundredth_of_the_gap_and_at_least_5_micrometres(step, sign, share, kind):
    gaps = np.full(9, step)
    gaps[4] += sign * share * max(1e-2 * step, 5e-3)
    assert find_gaps(np.concatenate([[0], np.cumsum(gaps)])).kind == kind


@few
@given(
    step=st.floats(0.5, 10),
    n=st.integers(8, 60),
    gone=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5)), min_size=1, max_size=3),
)
def test_missing_slices_are_counted_where_they_lack(step, n, gone):
    lacking = {k % (n - 1): count for k, count in gone}
    assume(len(lacking) < (n - 1) / 2 - 1)
    gaps = step * np.ones(n - 1)
    for k, count in lacking.items():
        gaps[k] *= 1 + count
    found = find_gaps(np.concatenate([[0], np.cumsum(gaps)]))
    assert (found.kind, dict(zip(found.irregular, found.missing, strict=True))) == ("missing", lacking)
    assert found.spacing == pytest.approx(step)


def test_gaps_of_another_width_are_uneven_and_named():
    found = find_gaps([0, 2.5, 5, 8.6, 11.1, 13.6])
    assert (found.kind, found.irregular, found.missing) == ("uneven", (2,), ())


def test_a_gap_that_is_nearly_a_multiple_is_uneven():
    assert find_gaps([0, 2.5, 5, 7.5, 12.6, 15.1]).kind == "uneven"


def test_a_gap_of_half_the_median_is_uneven():
    assert find_gaps([0, 4, 8, 10, 14, 18]).kind == "uneven"


def test_a_gap_of_nearly_nothing_is_uneven():
    assert find_gaps([0, 2, 4, 4.01, 6]).kind == "uneven"


def test_the_tolerance_of_a_multiple_does_not_grow_with_it():
    assert find_gaps([0, 1, 2, 3, 4, 5, 15.05]).kind == "uneven"


@pytest.mark.parametrize(("rtol", "kind"), [(0.2, "regular"), (0.01, "uneven")], ids=["loose", "strict"])
def test_the_relative_tolerance_can_be_given(rtol, kind):
    assert find_gaps([0, 1, 2, 3.1], rtol=rtol).kind == kind


@pytest.mark.parametrize(("atol", "kind"), [(0.2, "regular"), (0.0, "uneven")], ids=["loose", "strict"])
def test_the_absolute_tolerance_can_be_given(atol, kind):
    assert find_gaps([0, 1, 2, 3.1], atol=atol).kind == kind


# Lines through the slices


def in_plane(axes):
    """Return ImageOrientationPatient whose normal is the first of the axes."""
    z, _, x = axes
    return np.concatenate([x, np.cross(z, x)]), z, np.cross(z, x), x


@few
@given(rotations(), points(), st.lists(lengths, min_size=1, max_size=20), st.floats(-1, 1), st.floats(-1, 1))
def test_the_line_of_a_leaning_stack_passes_through_its_slices(axes, origin, gaps, lean_y, lean_x):
    orientation, z, y, x = in_plane(axes)
    heights = np.concatenate([[0], np.cumsum(gaps)])
    positions = np.asarray(origin) + heights[:, None] * (z + lean_y * y + lean_x * x)
    line = fit_line(positions, orientation)
    fitted = np.asarray(line.origin) + np.asarray(line.along)[:, None] * np.asarray(line.direction)
    np.testing.assert_allclose(fitted, positions, rtol=0, atol=1e-5)
    assert max(line.off) < 1e-5


@few
@given(rotations(), st.integers(2, 200), lengths)
def test_a_stack_that_drifts_by_a_rounding_error_is_kept_on_its_normal(axes, n, step):
    orientation, z, y, _ = in_plane(axes)
    drift = np.linspace(0, 0.9e-6, n)[:, None] * y
    line = fit_line(step * np.arange(n)[:, None] * z + drift, orientation)
    np.testing.assert_allclose(line.direction, z, rtol=0, atol=1e-12)
    np.testing.assert_allclose(line.along, step * np.arange(n), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [2, 5, 50], ids=str)
def test_a_stack_that_drifts_more_than_a_nanometre_leans(n):
    positions = np.zeros((n, 3))
    positions[:, 2] = 3.0 * np.arange(n)
    positions[:, 1] = np.linspace(0, 1.2e-6, n)
    assert fit_line(positions, (1, 0, 0, 0, 1, 0)).direction[1] == pytest.approx(1.2e-6 / (3 * (n - 1)), rel=1e-3)


@examples(60)
@given(rotations(), st.integers(5, 30), st.data())
def test_a_slice_shifted_sideways_is_the_only_one_off_the_line(axes, n, data):
    k, shift = data.draw(st.integers(0, n - 1)), data.draw(st.floats(0.2, 30))
    lean = data.draw(st.sampled_from([0.0, 0.25]))
    orientation, z, y, x = in_plane(axes)
    positions = 2.5 * np.arange(n)[:, None] * (z + lean * y)
    positions[k] += shift * x
    line = fit_line(positions, orientation)
    expected = np.zeros(n)
    expected[k] = shift
    np.testing.assert_allclose(line.off, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(line.direction, (z + lean * y) / np.hypot(1, lean), rtol=0, atol=1e-9)


def test_the_line_starts_at_the_first_slice():
    line = fit_line([(1, 2, 3), (1, 2.5, 5), (1, 3, 7)], (1, 0, 0, 0, 1, 0))
    assert line.origin == (1, 2, 3)


def test_along_a_leaning_line_lengths_are_steps_not_heights():
    line = fit_line([(0, 0, 0), (0, 3, 4), (0, 6, 8)], (1, 0, 0, 0, 1, 0))
    assert line.along == pytest.approx((0, 5, 10))
