"""What selecting, flipping and arithmetic leave of the geometry that a volume carries."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from made import axial, examples, points, rotations, stack

import lazyvol as lv
from lazyvol.convention import findings_of, geometry_coordinates, geometry_of, with_frame_of_reference
from lazyvol.errors import CODES, Finding, GeometryError, OptionError, finding
from lazyvol.geometry import ZYX, Geometry
from lazyvol.series import group_series

few = examples(80)
IDENTITY = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
AXES = ("z", "y", "x")


def volume(geometry, slice_positions=()):
    """Return a volume whose values are the flat numbers of its voxels."""
    values = np.arange(np.prod(geometry.shape), dtype="float32").reshape(geometry.shape)
    return xr.DataArray(values, geometry_coordinates(geometry, slice_positions), AXES, "image", {"findings": []})


def grid(shape=(5, 4, 6), spacing=(2.5, 0.8, 0.6), origin=(-10.0, -20.0, -30.0), directions=IDENTITY, **others):
    return Geometry(shape, ZYX(*spacing), origin, directions, frame_of_reference="1.2.9", **others)


def assert_voxels_stay(part, whole):
    """Hold each voxel of a part, found by its value, to where it was in the whole."""
    geometry = geometry_of(part)
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    numbers = part.expand_dims([a for a in AXES if a not in part.dims]).transpose(*AXES).values.ravel().astype(int)
    before = np.stack(np.unravel_index(numbers, whole.shape), axis=-1)
    np.testing.assert_allclose(geometry.index_to_position(index), whole.index_to_position(before), rtol=0, atol=1e-6)


@st.composite
def grids(draw, least=1):
    """Oblique, sheared grids."""
    x, y, _ = draw(rotations())
    z = np.cross(x, y) + draw(st.sampled_from([0.0, 0.3, -0.1])) * y
    return grid(
        draw(st.tuples(*[st.integers(least, 8)] * 3)),
        draw(st.tuples(*[st.floats(0.2, 8)] * 3)),
        draw(points()),
        tuple(tuple(map(float, v / np.linalg.norm(v))) for v in (z, y, x)),
    )


@st.composite
def uneven_grids(draw):
    gaps = draw(st.lists(st.floats(0.5, 9), min_size=4, max_size=9).filter(lambda g: max(g) - min(g) > 0.2))
    where = (0.0, *map(float, np.cumsum(gaps)))
    whole = draw(grids())
    return replace(
        whole, shape=(len(where), *whole.shape[1:]), spacing=ZYX(np.nan, *whole.spacing[1:]), slice_positions=where
    )


def slices(n):
    """Return a strategy of slices of either direction that keep at least one of n voxels."""
    part = st.tuples(st.integers(-n, n), st.integers(-n, n), st.sampled_from([1, 1, 2, 3, -1, -2]))
    whole = st.sampled_from([slice(None), slice(None, None, -1)])
    return st.one_of(whole, part.map(lambda p: slice(*p))).filter(lambda s: len(range(n)[s]))


# There and back


@few
@given(st.one_of(grids(), uneven_grids()))
def test_a_volume_gives_back_the_geometry_it_was_made_of(whole):
    back = geometry_of(volume(whole))
    assert (back.shape, back.frame_of_reference, back.convention) == (whole.shape, "1.2.9", "LPS")
    np.testing.assert_allclose(back.spacing, whole.spacing, rtol=0, atol=1e-9)
    np.testing.assert_allclose(back.directions, whole.directions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(back.origin, whole.origin, rtol=0, atol=1e-9)
    np.testing.assert_allclose(back.slice_positions, whole.slice_positions, rtol=0, atol=1e-9)


def test_coordinates_are_in_mm_and_named():
    made = geometry_coordinates(grid())
    assert {name: made[name].attrs["units"] for name in AXES} == dict.fromkeys(AXES, "mm")
    assert [made[name].attrs["axis"] for name in AXES] == ["Z", "Y", "X"]


def test_attributes_of_the_geometry_are_numbers_text_and_flat_lists():
    attrs = geometry_coordinates(grid())["geometry"].attrs
    kinds = {type(v) for value in attrs.values() for v in (value if isinstance(value, list) else [value])}
    assert kinds <= {int, float, str}
    assert (len(attrs["directions"]), len(attrs["spacing"]), attrs["version"]) == (9, 3, 1)


def test_true_positions_stand_on_z_where_they_differ_from_the_grid():
    made = geometry_coordinates(grid((3, 1, 1)), (0.0, 2.503, 5.0))
    assert made["z"].values.tolist() == [-30, -27.497, -25]


def test_true_positions_that_differ_by_rounding_give_the_grid():
    made = geometry_coordinates(grid((3, 1, 1)), (0.0, 2.5 + 1e-9, 5.0))
    assert made["z"].values.tolist() == [-30, -27.5, -25]


@few
@given(grids(least=3), st.data())
def test_positions_that_scatter_within_tolerance_keep_the_geometry(whole, data):
    noise = data.draw(st.lists(st.floats(-1.2e-3, 1.2e-3), min_size=whole.shape[0] - 2, max_size=whole.shape[0] - 2))
    along = np.arange(whole.shape[0]) * whole.spacing.z + [0, *noise, 0]
    back = geometry_of(volume(whole, tuple(along)))
    assert back.spacing.z == pytest.approx(whole.spacing.z, abs=1e-9)
    np.testing.assert_allclose(back.origin, whole.origin, rtol=0, atol=1e-9)


# Selecting and flipping


@few
@given(st.one_of(grids(), uneven_grids()), st.data())
def test_crop_stride_and_flip_leave_voxels_where_they_are(whole, data):
    chosen = {axis: data.draw(slices(n), axis) for axis, n in zip(AXES, whole.shape, strict=True)}
    part = volume(whole).isel(chosen)
    if geometry_of(part).shape[0] > 1 or not whole.slice_positions:
        assert_voxels_stay(part, whole)


@few
@given(grids(least=4), st.data())
def test_selecting_twice_leaves_voxels_where_they_are(whole, data):
    part = volume(whole)
    for _ in range(2):
        part = part.isel({axis: data.draw(slices(part.sizes[axis])) for axis in AXES})
    assert_voxels_stay(part, whole)


@pytest.mark.parametrize("axis", AXES)
def test_a_flip_turns_the_direction_of_its_axis_round(axis):
    whole = grid()
    back = geometry_of(volume(whole).isel({axis: slice(None, None, -1)}))
    sign = np.array([[-1] if a == axis else [1] for a in AXES])
    np.testing.assert_array_equal(np.asarray(back.directions), sign * np.asarray(IDENTITY))
    assert back.spacing == whole.spacing


@pytest.mark.parametrize("axis", AXES)
def test_two_flips_change_nothing(axis):
    whole = volume(grid())
    assert geometry_of(whole.isel({axis: slice(None, None, -1)}).isel({axis: slice(None, None, -1)})) == grid()


@pytest.mark.parametrize("step", [2, -2, 3])
def test_a_stride_multiplies_the_spacing(step):
    part = volume(grid((7, 7, 7))).isel(z=slice(None, None, step), x=slice(None, None, step))
    assert geometry_of(part).spacing == pytest.approx((2.5 * abs(step), 0.8, 0.6 * abs(step)))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("how", ["scalar", "slice", "list"])
def test_a_single_voxel_of_an_axis_keeps_its_place_and_spacing(axis, how):
    whole = grid()
    part = volume(whole).isel({axis: {"scalar": 3, "slice": slice(3, 4), "list": [3]}[how]})
    assert_voxels_stay(part, whole)
    assert geometry_of(part).spacing == whole.spacing


def test_one_voxel_alone_keeps_its_place():
    assert geometry_of(volume(grid()).isel(z=2, y=1, x=3)).origin == pytest.approx((-8.2, -19.2, -25))


@pytest.mark.parametrize("order", [("x", "y", "z"), ("y", "z", "x")], ids="".join)
def test_transposing_changes_nothing(order):
    assert geometry_of(volume(grid()).transpose(*order)) == grid()


def test_selecting_by_label_leaves_voxels_where_they_are():
    part = volume(grid()).sel(z=slice(-28, -21), x=[-10, -9.4], method=None)
    assert_voxels_stay(part, grid())


def test_slices_sorted_downwards_stay_where_they_are():
    assert_voxels_stay(volume(grid()).sortby("z", ascending=False), grid())


@pytest.mark.parametrize("axis", ["y", "x"])
def test_uneven_voxels_within_a_slice_are_no_grid(axis):
    with pytest.raises(GeometryError, match=rf"labels of {axis} are unevenly spaced"):
        geometry_of(volume(grid()).isel({axis: [0, 1, 3]}))


def test_uneven_slices_keep_their_positions():
    back = geometry_of(volume(grid()).isel(z=[0, 1, 4]))
    assert back.slice_positions == (0, 2.5, 10)
    assert np.isnan(back.spacing.z)


@pytest.mark.parametrize("axis", AXES)
def test_voxels_out_of_order_are_no_grid(axis):
    with pytest.raises(GeometryError, match=rf"labels of {axis} neither ascend nor descend.*sortby\('{axis}'\)"):
        geometry_of(volume(grid()).isel({axis: [0, 2, 1]}))


@pytest.mark.parametrize("chosen", [[1, 1], [3, 1, 1, 2]], ids=str)
@pytest.mark.parametrize("axis", AXES)
def test_voxels_that_repeat_are_no_grid(axis, chosen):
    label = grid().coordinates()[AXES.index(axis)][1]
    with pytest.raises(GeometryError, match=rf"label {axis} = {label:g} occurs 2 times.*drop_duplicates\('{axis}'\)"):
        geometry_of(volume(grid()).isel({axis: chosen}))


@pytest.mark.parametrize("axis", AXES)
def test_voxels_without_label_are_no_grid_and_the_remedy_works(axis):
    padded = volume(grid()).pad({axis: 2})
    with pytest.raises(
        GeometryError, match=rf"4 of \d+ labels of {axis} are NaN.*isel\({axis}=volume\.{axis}\.notnull"
    ):
        geometry_of(padded)
    assert geometry_of(padded.isel({axis: padded[axis].notnull()})) == grid()


@pytest.mark.parametrize("axis", AXES)
def test_an_empty_volume_has_no_geometry(axis):
    with pytest.raises(GeometryError, match=rf"empty along {axis}"):
        geometry_of(volume(grid()).isel({axis: slice(0)}))


def test_a_mean_along_an_axis_has_no_place():
    assert not geometry_of(volume(grid()).mean("z")).is_known


@pytest.mark.parametrize("axis", AXES)
def test_a_projection_keeps_the_directions_of_its_other_axes(axis):
    back = geometry_of(volume(grid())[::-1].max(axis))
    turned = ((0.0, 0.0, -1.0), *IDENTITY[1:])
    expected = [(np.nan,) * 3 if a == axis else row for a, row in zip(AXES, turned, strict=True)]
    np.testing.assert_equal(back.directions, expected)
    assert np.isnan(back.origin).all()


def test_a_projected_axis_counts_as_one_voxel():
    assert geometry_of(volume(grid()).max("y")).field_of_view == pytest.approx((12.5, 0.8, 3.6))


def test_grids_that_differ_by_rounding_come_together_as_the_error_says():
    one, other = volume(grid()), volume(grid(origin=(-10.0, -20.0, -30.0 + 1e-5)))
    with pytest.raises(GeometryError, match=r"empty along z.*b\.reindex_like\(a, method=.nearest., tolerance=0\.01\)"):
        geometry_of(one - other)
    together = one - other.reindex_like(one, method="nearest", tolerance=0.01)
    assert geometry_of(together) == grid()
    assert not together.any()


def test_the_spacing_of_a_part_is_that_of_its_own_slices_where_they_scatter():
    whole = volume(grid((4, 1, 1), (10.0, 1.0, 1.0)), (0.0, 10.04, 20.08, 30.0))
    assert geometry_of(whole[:3]).spacing.z == pytest.approx(10.04)


# Uneven and unknown


def test_a_regular_part_of_an_uneven_volume_has_a_spacing():
    whole = grid(spacing=(np.nan, 1, 1), slice_positions=(0.0, 2.0, 4.0, 6.0, 9.0))
    back = geometry_of(volume(whole).isel(z=slice(1, 4)))
    assert (back.spacing.z, back.slice_positions) == (2, ())


def test_one_slice_of_an_uneven_volume_has_a_place_and_no_spacing():
    whole = grid(spacing=(np.nan, 1, 1), slice_positions=(0.0, 2.0, 4.0, 6.0, 9.0))
    back = geometry_of(volume(whole).isel(z=4))
    assert back.origin == (-10, -20, -21)
    assert np.isnan(back.spacing.z)


def test_a_flipped_uneven_volume_counts_from_its_new_first_slice():
    whole = grid(spacing=(np.nan, 1, 1), slice_positions=(0.0, 2.0, 4.0, 6.0, 9.0))
    assert geometry_of(volume(whole)[::-1]).slice_positions == (0, 3, 5, 7, 9)


UNPLACED = Geometry((3, 4, 5), ZYX(np.nan, 0.8, 0.6))


def test_a_volume_without_a_place_has_coordinates_within_its_slices_only():
    assert sorted(geometry_coordinates(UNPLACED)) == ["geometry", "x", "y"]


def test_a_volume_without_a_place_says_so():
    back = geometry_of(volume(UNPLACED))
    assert (back.is_known, back.convention, back.shape) == (False, "unknown", (3, 4, 5))
    np.testing.assert_equal(tuple(back.spacing), (np.nan, 0.8, 0.6))


def test_a_volume_without_pixel_spacing_has_z_only():
    made = geometry_coordinates(grid(spacing=(2.5, np.nan, np.nan)))
    assert sorted(made) == ["geometry", "z"]


def test_a_slice_of_unknown_thickness_keeps_its_place():
    whole = grid((1, 4, 5), (np.nan, 0.8, 0.6))
    np.testing.assert_allclose(geometry_of(volume(whole)).origin, whole.origin)


# Without the coordinates of words

WITHOUT_WORDS = {
    "coarsen": (lambda v: v.coarsen(z=2, y=2, x=2).mean(), ((2, 2, 3), (5.0, 1.6, 1.2), (-9.7, -19.6, -28.75))),
    "reindex": (lambda v: v.reindex(z=np.arange(-35, -15, 2.5)), ((8, 4, 6), (2.5, 0.8, 0.6), (-10, -20, -35))),
    "align": (lambda v: xr.align(v[:3], v[1:], join="outer")[0], ((4, 4, 6), (2.5, 0.8, 0.6), (-10, -20, -30))),
    "combine": (lambda v: v[:3].combine_first(v[1:]), ((4, 4, 6), (2.5, 0.8, 0.6), (-10, -20, -30))),
    "concat": (
        lambda v: xr.concat([v[:3], v[1:]], "time", join="outer").isel(time=0),
        ((4, 4, 6), (2.5, 0.8, 0.6), (-10, -20, -30)),
    ),
}


@pytest.mark.parametrize(("change", "expected"), WITHOUT_WORDS.values(), ids=WITHOUT_WORDS)
def test_what_fills_or_averages_coordinates_works_without_words(change, expected):
    words = np.array(list("abcd"), dtype=np.dtypes.StringDType())
    named = volume(grid((4, 4, 6))).assign_coords(source=("z", words), sop_instance_uid=("z", words))
    with pytest.raises(TypeError):  # as the tutorial says; without it, the tutorial is to be changed
        change(named)
    back = geometry_of(change(named.drop_vars(["source", "sop_instance_uid"])))
    assert back.shape == expected[0]
    assert back.spacing == pytest.approx(expected[1])
    assert back.origin == pytest.approx(expected[2])
    assert back.directions == IDENTITY


# Arithmetic


@pytest.mark.parametrize(
    "change",
    [
        lambda v: 2 * v + 1,
        lambda v: v.astype("int16"),
        lambda v: v.where(v > 5),
        lambda v: v.clip(0, 9),
        lambda v: -v,
        lambda v: v - v,
        lambda v: v > 3,
        xr.ufuncs.sqrt,
        lambda v: v.rolling(z=3, center=True).mean(),
        lambda v: v.fillna(0),
        lambda v: v.copy(deep=True),
        lambda v: v.rename("other"),
        lambda v: v.to_dataset(name="a")["a"],
        lambda v: v - v.mean(),
        lambda v: xr.where(v > 3, v, 0),
    ],
    ids=[
        "scale",
        "type",
        "where",
        "clip",
        "minus",
        "difference",
        "mask",
        "ufunc",
        "rolling",
        "fill",
        "copy",
        "rename",
        "dataset",
        "centre",
        "choice",
    ],
)
def test_arithmetic_keeps_the_geometry(change):
    assert geometry_of(change(volume(grid()))) == grid()


def test_arithmetic_between_volumes_of_one_geometry_keeps_it():
    assert geometry_of(volume(grid()) + volume(grid())) == grid()


def test_arithmetic_between_parts_keeps_where_they_overlap():
    both = volume(grid())[:4] + volume(grid())[1:]
    assert both.sizes["z"] == 3
    assert geometry_of(both).origin == (-10, -20, -27.5)


OTHERS = {
    "tilted": grid(directions=((0.0, 0.6, 0.8), (0.0, 0.8, -0.6), (1.0, 0.0, 0.0))),
    "turned a little": grid(directions=((0.0, 1e-5, 1.0), (0.0, 1.0, -1e-5), (1.0, 0.0, 0.0))),
    "mirrored": grid(directions=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))),
    "other frame of reference": replace(grid(), frame_of_reference="1.2.8"),
    "unknown": UNPLACED,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("turn", [False, True], ids=["first", "second"])
def test_arithmetic_between_different_geometries_drops_both(other, turn):
    pair = [volume(grid()), volume(other)]
    bare = [v.drop_vars([a for a in AXES if a in v.coords])[:3, :4, :5] for v in pair]
    together = bare[1] + bare[0] if turn else bare[0] + bare[1]
    with pytest.raises(GeometryError, match="has no coordinate 'geometry'"):
        geometry_of(together)


def other_geometry():
    return volume(replace(grid(), frame_of_reference="1.2.8"))


@pytest.mark.parametrize("dim", ["time", "z"])
def test_volumes_of_two_geometries_put_together_have_none(dim):
    with pytest.raises(GeometryError, match=rf"put together along {dim} from 2 geometries.*join_series"):
        geometry_of(xr.concat([volume(grid()), other_geometry()], dim, coords="different", compat="equals"))


def test_the_part_of_another_geometry_is_not_placed_by_the_first():
    both = xr.concat([volume(grid()), other_geometry()], "time", coords="different", compat="equals")
    with pytest.raises(GeometryError, match="its attributes describe another geometry"):
        geometry_of(both.isel(time=1))
    assert geometry_of(both.isel(time=0)) == grid()


def test_volumes_of_one_geometry_put_together_keep_it():
    made = volume(grid())
    along = xr.concat([made, made], "time", coords="all")
    assert along.geometry.dims == ("time",)
    assert geometry_of(along) == grid()


@pytest.mark.parametrize("name", ["directions", "convention", "frame_of_reference"])
def test_an_attribute_that_was_changed_is_found_out(name):
    made = volume(grid())
    changed = {"directions": [0.0, 1.0] + [0.0] * 7, "convention": "RAS", "frame_of_reference": "1.2.8"}
    made.geometry.attrs[name] = changed[name]
    with pytest.raises(GeometryError, match="its attributes describe another geometry"):
        geometry_of(made)


@pytest.mark.parametrize("geometry", [grid(), UNPLACED], ids=["known", "unknown"])
@pytest.mark.parametrize(
    "kept",
    [
        lambda attrs: json.loads(json.dumps(attrs).replace("NaN", "null")),
        lambda attrs: {k: np.asarray(v) if isinstance(v, list) else v for k, v in attrs.items()},
        lambda attrs: {k: np.float64(v) if isinstance(v, float) else v for k, v in attrs.items()},
    ],
    ids=["as strict JSON", "as arrays", "as NumPy numbers"],
)
def test_attributes_that_a_format_changed_are_still_of_the_geometry(geometry, kept):
    made = volume(geometry)
    before = str(geometry_of(made))
    made.coords["geometry"].attrs = kept(dict(made.geometry.attrs))
    assert str(geometry_of(made)) == before
    assert geometry_of(with_frame_of_reference(made, "2.25.1")).frame_of_reference == "2.25.1"


def test_rounding_is_no_difference_of_geometry():
    near = grid(directions=((0.0, 1e-9, 1.0), (0.0, 1.0, -1e-9), (1.0, -0.0, 0.0)))
    assert "geometry" in (volume(grid()) + volume(near)).coords


def test_an_array_that_is_not_of_lazyvol_has_no_geometry():
    with pytest.raises(GeometryError, match="not opened by lazyvol"):
        geometry_of(xr.DataArray(np.zeros((2, 2, 2)), dims=AXES))


def test_a_coordinate_of_that_name_without_directions_is_no_geometry():
    with pytest.raises(GeometryError, match="has no coordinate 'geometry'"):
        geometry_of(xr.DataArray(np.zeros((2, 2, 2)), {"geometry": 1}, AXES))


@pytest.mark.parametrize(
    ("thing", "hint"),
    [
        (volume(grid()).to_dataset(), r"not a Dataset\. Take dataset\['image'\]"),
        (volume(grid()).to_dataset(name="pet"), r"Take dataset\['pet'\]"),
        (xr.DataTree(children={"stack1": xr.DataTree(volume(grid()).to_dataset())}), r'tree\["stack1"\]\["image"\]'),
        (np.zeros((2, 2, 2)), r"not a ndarray\. Open one with open_volume"),
        ("chest-data", "not a str"),
    ],
    ids=["Dataset", "Dataset of another name", "DataTree", "NumPy", "path"],
)
@pytest.mark.parametrize(
    "ask", [geometry_of, findings_of, lv.field_of_view, lv.plot_slices, lv.rectify], ids=lambda f: f.__name__
)
def test_what_is_no_volume_is_named_with_what_to_take(ask, thing, hint):
    with pytest.raises(OptionError, match=hint):
        ask(thing)


def test_another_frame_of_reference_is_another_geometry():
    one, other = volume(grid()), with_frame_of_reference(volume(grid()), "2.25.1")
    assert geometry_of(other) == replace(grid(), frame_of_reference="2.25.1")
    assert one.geometry.item() != other.geometry.item()


# Findings

NOTES = (finding("tilted", "it leans", values=(14.0,)), finding("missing-slices", "2 gone", slices=(3,)))


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({}, ()),
        ({"findings": []}, ()),
        ({"findings": [n.to_json() for n in NOTES]}, NOTES),
        ({"findings": NOTES[0].to_json()}, NOTES[:1]),
        ({"findings": np.array([n.to_json() for n in NOTES])}, NOTES),
    ],
    ids=["no attribute", "none", "list", "text, as netCDF makes of one", "array, as netCDF may make of two"],
)
def test_findings_are_read_from_the_attributes(attrs, expected):
    assert findings_of(xr.DataArray(0, attrs=attrs)) == expected


def test_findings_survive_selection():
    made = volume(grid())
    made.attrs["findings"] = [NOTES[0].to_json()]
    assert findings_of(made[1:3, ::2]) == NOTES[:1]


# From the headers on


def opened(instances):
    """Return the coordinates of the one stack as a volume."""
    found = group_series(instances)[0].stacks[0]
    return volume(found.geometry, found.slice_positions), found


@few
@given(rotations(), st.lists(st.floats(0.5, 4), min_size=1, max_size=9), st.data())
def test_slices_lie_where_their_headers_say_after_selecting(axes, gaps, data):
    x, y, _ = axes
    positions = np.concatenate([[0], np.cumsum(gaps)])[:, None] * np.cross(x, y)
    made, found = opened(stack(positions, np.concatenate([x, y])))
    chosen = data.draw(slices(len(positions)))
    geometry = geometry_of(made.isel(z=chosen))
    index = np.zeros((geometry.shape[0], 3))
    index[:, 0] = np.arange(len(index))
    expected = [s.frame.position for s in found.slices[chosen]]
    np.testing.assert_allclose(geometry.index_to_position(index), expected, rtol=0, atol=0.0101 * max(gaps))


def test_missing_slices_keep_the_true_labels():
    made, _ = opened(axial([0, 2, 4, 8, 10]))
    assert made.z.values.tolist() == [0, 2, 4, 8, 10]


def test_a_volume_that_was_opened_knows_where_it_lies(chest_folder):
    whole = lv.open_volume(chest_folder)
    geometry = geometry_of(whole)
    part = whole[2:20:3, ::-1, 5:9]
    np.testing.assert_allclose(
        geometry_of(part).index_to_position([1, 2, 3]), geometry.index_to_position([5, 45, 8]), rtol=0, atol=1e-6
    )


def test_findings_of_an_opened_volume_are_json_without_files(chest_folder):
    whole = lv.open_volume(min(chest_folder.iterdir()))
    contents = [json.loads(line) for line in whole.attrs["findings"]]
    assert all("files" not in c and c["code"] in CODES for c in contents)
    assert findings_of(whole) == tuple(Finding.from_json(line) for line in whole.attrs["findings"])
