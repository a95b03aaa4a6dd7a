"""Order, spacing, tilt and gaps of series, found from positions alone."""

import contextlib
import os
import random
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import (
    EXPLICIT,
    JPEG_LS,
    MR,
    axial,
    dataset,
    examples,
    file_bytes,
    instance,
    points,
    rotations,
    stack,
)

from lazyvol.elements import HeaderError
from lazyvol.phantom import write_series
from lazyvol.scan import scan_headers
from lazyvol.series import group_series
from lazyvol.values import value_dtype

few = examples(60)
AXIAL = (1, 0, 0, 0, 1, 0)


def only(instances):
    """Return the one stack of the one series."""
    (series,) = group_series(instances)
    (found,) = series.stacks
    return found


def codes(found):
    return sorted(f.code for f in found.findings)


def finding_of(found, code):
    (which,) = (f for f in found.findings if f.code == code)
    return which


def uids(found):
    return [s.instance.uid for s in found.slices]


def heights(found):
    return [s.frame.position[2] for s in found.slices]


def in_patient(found):
    """Return where each slice of a stack lies by its geometry."""
    index = np.zeros((found.geometry.shape[0], 3))
    index[:, 0] = np.arange(len(index))
    return found.geometry.index_to_position(index)


# Order


def test_slices_ascend_along_the_normal():
    assert heights(only(axial([7.5, 0, 5, 2.5]))) == [0, 2.5, 5, 7.5]


def test_slices_ascend_along_the_normal_also_if_it_points_down():
    found = only(stack([(0, 0, z) for z in (0, 2, 4, 6)], (1, 0, 0, 0, -1, 0)))
    assert heights(found) == [6, 4, 2, 0]
    assert found.geometry.directions[0] == (0, 0, -1)


@few
@given(st.permutations(range(9)), st.lists(st.text("ab01/", min_size=1, max_size=6), min_size=9, max_size=9))
def test_neither_order_nor_names_of_files_change_anything(order, names):
    made = axial([0, 2, 4, 6, 10, 12, 14.001, 16, 18])
    expected = only(made)
    found = only([made[k]._replace(path=name) for k, name in zip(order, names, strict=True)])
    assert (uids(found), found.geometry, codes(found)) == (uids(expected), expected.geometry, codes(expected))


MIXED = [
    *axial([0, 2, 4], SeriesInstanceUID="1.9", SeriesNumber=3),
    *axial([0, 2, 4, 5]),
    *[i._replace(uid=f"5.{n}") for n, i in enumerate(stack([(0, y, 0) for y in (0, 3)], (1, 0, 0, 0, 0, -1)))],
    *[i._replace(uid=f"6.{n}") for n, i in enumerate(axial([0, 1], Rows=9))],
    *[i._replace(digest="b") for i in axial([50])],
    *[i._replace(digest="a", number=77) for i in axial([50])],
]


@few
@given(st.permutations(range(len(MIXED))), st.randoms())
def test_neither_order_nor_names_change_how_a_folder_is_divided(order, random_names):
    def outline(found):
        return [
            (s.uid, s.number, s.study_uid, [(uids(k), k.number, codes(k), str(k.geometry)) for k in s.stacks])
            for s in found
        ]

    renamed = [MIXED[k]._replace(path=f"{random_names.random()}.dcm") for k in order]
    assert outline(group_series(renamed)) == outline(group_series(MIXED))


def test_renamed_files_on_disk_give_the_same_volume(tmp_path):
    paths = write_series(tmp_path / "a", np.zeros((6, 4, 5)), spacing=(3, 1, 2))
    (tmp_path / "b").mkdir()
    names = [f"{n}" for n in range(6)]
    random.Random(3).shuffle(names)
    for path, name in zip(paths, names, strict=True):
        shutil.copy(path, tmp_path / "b" / name)
    one, other = (only(scan_headers(tmp_path / name).instances) for name in "ab")
    assert (uids(one), one.geometry, one.findings) == (uids(other), other.geometry, other.findings)


def test_instance_numbers_do_not_count_where_positions_are_known():
    made = axial([0, 2, 4], InstanceNumber=1)
    assert heights(only(made)) == [0, 2, 4]


# Geometry


@st.composite
def made_stacks(draw, lean=0.0):
    """Positions and orientation of a regular stack, and what its geometry should be."""
    x, y, z = draw(rotations())
    z = np.cross(x, y)
    direction = z + draw(st.floats(-lean, lean)) * y if lean else z
    direction /= np.linalg.norm(direction)
    n, step = draw(st.integers(2, 12)), draw(st.floats(0.3, 10))
    origin = np.asarray(draw(points()))
    positions = origin + step * np.arange(n)[:, None] * direction
    return positions, np.concatenate([x, y]), (origin, step, np.stack([direction, y, x]))


@few
@given(made_stacks(), st.randoms())
def test_a_stack_of_any_orientation_is_found_again(made, shuffle):
    positions, orientation, (origin, step, directions) = made
    instances = stack(positions, orientation)
    shuffle.shuffle(instances)
    geometry = only(instances).geometry
    np.testing.assert_allclose(geometry.origin, origin, rtol=0, atol=1e-6)
    np.testing.assert_allclose(geometry.directions, directions, rtol=0, atol=1e-6)
    assert geometry.spacing == pytest.approx((step, 0.8, 0.6), abs=1e-6)
    assert geometry.shape == (len(positions), 4, 5)


@few
@given(made_stacks(lean=0.6))
def test_every_slice_of_any_stack_lies_where_its_header_says(made):
    positions, orientation, _ = made
    np.testing.assert_allclose(in_patient(only(stack(positions, orientation))), positions, rtol=0, atol=1e-5)


@few
@given(made_stacks())
def test_a_straight_regular_stack_has_no_findings(made):
    positions, orientation, _ = made
    assert not only(stack(positions, orientation)).findings


@few
@given(made_stacks(lean=0.6))
def test_rows_and_columns_go_where_the_header_says(made):
    positions, orientation, _ = made
    geometry = only(stack(positions, orientation)).geometry
    corner = geometry.index_to_position((0, 1, 1)) - geometry.index_to_position((0, 0, 0))
    np.testing.assert_allclose(corner, 0.6 * orientation[:3] + 0.8 * orientation[3:], rtol=0, atol=1e-6)


def test_series_written_at_an_angle_are_found_again(tmp_path):
    directions = ((0.36, -0.48, 0.8), (0.48, 0.864, 0.152), (-0.8, 0.152, 0.5804))
    x = np.array(directions[2]) / np.linalg.norm(directions[2])
    y = np.cross((0.36, -0.48, 0.8), x) / np.linalg.norm(np.cross((0.36, -0.48, 0.8), x))
    z = np.cross(x, y)
    write_series(tmp_path, np.zeros((5, 4, 6)), spacing=(2.5, 0.7, 0.9), origin=(9, 8, 7), directions=(z, y, x))
    geometry = only(scan_headers(tmp_path).instances).geometry
    np.testing.assert_allclose(geometry.directions, (z, y, x), rtol=0, atol=1e-6)
    assert geometry.spacing == pytest.approx((2.5, 0.7, 0.9), abs=1e-6)
    assert geometry.origin == pytest.approx((9, 8, 7), abs=1e-6)


def test_cosines_that_are_a_little_off_give_unit_square_directions():
    made = stack([(0, 0, z) for z in range(4)], (1.001, 0, 0, 0.002, 0.999, 0))
    directions = np.asarray(only(made).geometry.directions)
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), rtol=0, atol=1e-12)


def test_cosines_that_differ_by_rounding_are_averaged():
    made = [stack([(0, 0, z)], (1, 0, 0, 0, 1, e), SOPInstanceUID=f"1.{z}")[0] for z, e in enumerate((-4e-5, 0, 4e-5))]
    assert only(made).geometry.directions == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def test_the_frame_of_reference_is_kept():
    assert only(axial([0, 1, 2])).geometry.frame_of_reference == "1.2.9"


def test_a_frame_of_reference_that_varies_is_found_and_splits_nothing():
    made = [*axial([0, 2]), *[i._replace(uid=f"7.{i.uid}") for i in axial([4, 6], FrameOfReferenceUID="1.2.8")]]
    found = only(made)
    assert (len(found.slices), codes(found)) == (4, ["frame-of-reference-varies"])
    assert not found.geometry.frame_of_reference


# Tilt


@pytest.mark.parametrize("degrees", [0.5, 14.0, -20.0], ids=str)
def test_a_tilted_gantry_is_found(degrees):
    a = np.radians(degrees)
    made = stack([(0, 0, 5.0 * k) for k in range(6)], (1, 0, 0, 0, np.cos(a), np.sin(a)))
    found = only(made)
    assert codes(found) == ["tilted"]
    assert finding_of(found, "tilted").values == pytest.approx((abs(degrees),), abs=1e-6)


def test_the_spacing_of_a_tilted_stack_is_the_step_between_centres():
    a = np.radians(14)
    geometry = only(stack([(0, 0, 5.0 * k) for k in range(6)], (1, 0, 0, 0, np.cos(a), np.sin(a)))).geometry
    assert geometry.spacing.z == pytest.approx(5, abs=1e-6)
    assert geometry.normal_spacing == pytest.approx(4.851479, abs=1e-6)
    assert geometry.directions[0] == pytest.approx((0, 0, 1), abs=1e-9)


@pytest.mark.parametrize(("drift", "expected"), [(0.9e-3, []), (1.1e-3, ["tilted"])], ids=["within", "beyond"])
@pytest.mark.parametrize("n", [2, 30], ids=str)
def test_a_stack_that_drifts_a_micrometre_counts_as_straight(n, drift, expected):
    made = stack([(0, drift * k / (n - 1), 2.0 * k) for k in range(n)])
    assert codes(only(made)) == expected


# Gaps


def test_positions_that_scatter_within_tolerance_are_regular():
    found = only(axial([0, 2.504, 4.998, 7.5, 10]))
    assert (codes(found), found.geometry.spacing.z) == ([], 2.5)


@pytest.mark.parametrize(
    ("where", "after", "lacking"),
    [([0, 2, 4, 8, 10], (2,), 1), ([0, 2, 4, 12, 14, 16, 20], (2, 5), 4), ([0, 4, 6, 8], (0,), 1)],
    ids=["one", "four in two places", "second"],
)
def test_missing_slices_are_named_with_the_slice_before(where, after, lacking):
    found = finding_of(only(axial(where)), "missing-slices")
    assert found.slices == after
    assert found.message.startswith(f"{lacking} slice")


def test_around_missing_slices_true_positions_are_kept():
    geometry = only(axial([0, 2, 4, 8, 10])).geometry
    assert geometry.slice_positions == (0, 2, 4, 8, 10)
    assert np.isnan(geometry.spacing.z)


def test_uneven_slices_are_found_with_the_range_of_their_gaps():
    found = only(axial([0, 2, 4, 7, 9, 11]))
    assert codes(found) == ["uneven-spacing"]
    assert finding_of(found, "uneven-spacing").slices == (2,)
    assert finding_of(found, "uneven-spacing").values == (2, 3)


def test_uneven_slices_keep_their_true_positions():
    found = only(axial([0, 2, 4, 7, 9, 11]))
    assert found.geometry.slice_positions == found.slice_positions == (0, 2, 4, 7, 9, 11)
    assert found.geometry.field_of_view.z == 13


@pytest.mark.parametrize("k", [0, 2, 5])
def test_a_slice_shifted_sideways_is_found(k):
    positions = [[0.0, 0.0, 2.5 * n] for n in range(6)]
    positions[k][0] = 1.5
    found = only(stack(positions))
    assert codes(found) == ["slices-off-line"]
    assert finding_of(found, "slices-off-line").slices == (k,)
    assert finding_of(found, "slices-off-line").values == pytest.approx((1.5,))


@pytest.mark.parametrize(("shift", "expected"), [(0.024, []), (0.026, ["slices-off-line"])], ids=["within", "beyond"])
def test_a_hundredth_of_the_spacing_is_not_off_the_line(shift, expected):
    positions = [[0.0, 0.0, 2.5 * n] for n in range(6)]
    positions[3][1] = shift
    assert codes(only(stack(positions))) == expected


def test_slices_of_an_uneven_stack_lie_where_their_headers_say():
    where = [0, 2, 4, 7, 9, 11]
    np.testing.assert_allclose(in_patient(only(axial(where)))[:, 2], where)


# One slice


@pytest.mark.parametrize(
    ("said", "step", "expected"),
    [
        ({"SpacingBetweenSlices": 3, "SliceThickness": 5}, 3, []),
        ({"SpacingBetweenSlices": 3}, 3, []),
        ({"SliceThickness": 5}, 5, ["spacing-guessed"]),
        ({"SpacingBetweenSlices": 0, "SliceThickness": 5}, 5, ["spacing-guessed"]),
        ({"SpacingBetweenSlices": -3, "SliceThickness": 5}, 5, ["spacing-guessed"]),
        ({"SpacingBetweenSlices": -3}, np.nan, ["spacing-unknown"]),
        ({"SliceThickness": 0}, np.nan, ["spacing-unknown"]),
        ({}, np.nan, ["spacing-unknown"]),
    ],
    ids=["both", "spacing", "thickness", "zero", "negative", "negative alone", "thickness zero", "neither"],
)
def test_the_spacing_of_a_single_slice_comes_from_its_header(said, step, expected):
    found = only(axial([4], **said))
    np.testing.assert_equal(found.geometry.spacing.z, step)
    assert codes(found) == expected


def test_slice_thickness_is_never_the_spacing_of_several_slices():
    assert only(axial([0, 2, 4], SliceThickness=7, SpacingBetweenSlices=9)).geometry.spacing.z == 2


def test_a_single_slice_lies_where_its_header_says():
    found = only(axial([4], SliceThickness=5))
    assert found.geometry.origin == (-10, -20, 4)
    assert found.geometry.directions == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


# Without positions

PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}


def unplaced(numbers, names=None, **values):
    """Return images without a place, with these instance numbers and names."""
    names = names or [f"{n}.dcm" for n in range(len(numbers))]
    return [
        instance(name, SOPInstanceUID=f"1.2.{k}", InstanceNumber=number, **(PLACE | values))
        for k, (number, name) in enumerate(zip(numbers, names, strict=True))
    ]


def test_without_positions_instance_numbers_give_the_order():
    found = only(unplaced([3, 10, 1, 2], ["a", "b", "c", "d"]))
    assert [s.instance.number for s in found.slices] == [1, 2, 3, 10]
    assert codes(found) == ["geometry-unknown", "order-from-instance-number"]


@pytest.mark.parametrize("numbers", [[1, 1, 2], [None, 1, 2], [None, None, None]], ids=["twice", "one gone", "none"])
def test_without_positions_and_distinct_numbers_natural_names_give_the_order(numbers):
    found = only(unplaced(numbers, ["x/b10", "z/b9", "y/a11"]))
    assert [os.path.basename(s.instance.path) for s in found.slices] == ["a11", "b9", "b10"]
    assert codes(found) == ["geometry-unknown", "order-from-names"]


def test_numbers_in_names_count_by_value():
    names = ["10", "9.dcm", "1b", "1a", "02", "b", ""]
    found = only(unplaced([None] * 7, [f"f/{name}" for name in names]))
    ordered = [os.path.basename(s.instance.path) for s in found.slices]
    assert ordered == ["", "1a", "1b", "02", "9.dcm", "10", "b"]


def test_without_positions_the_place_is_unknown_and_the_pixel_spacing_is_not():
    geometry = only(unplaced([1, 2])).geometry
    assert (geometry.is_known, geometry.shape) == (False, (2, 4, 5))
    np.testing.assert_equal(tuple(geometry.spacing), (np.nan, 0.8, 0.6))


@pytest.mark.parametrize("absent", sorted(PLACE))
def test_half_a_place_is_none(absent):
    found = only(axial([0, 2, 4], **{absent: None}) if absent[5] == "O" else unplaced([1, 2], **{absent: None}))
    assert not found.geometry.is_known
    assert "geometry-unknown" in codes(found)


def test_one_image_without_a_place_needs_no_order():
    assert codes(only(unplaced([None]))) == ["geometry-unknown"]


def test_absent_pixel_spacing_is_found():
    found = only(axial([0, 2], PixelSpacing=None))
    assert codes(found) == ["pixel-spacing-unknown"]
    np.testing.assert_equal(tuple(found.geometry.spacing), (2, np.nan, np.nan))


# Copies


def test_copies_are_used_once_and_counted():
    made = [i._replace(digest="d") for i in axial([0, 2, 4])]
    found = only([*made, *(i._replace(path=f"again-{i.path}") for i in made[:2])])
    assert (heights(found), codes(found)) == ([0, 2, 4], ["copies-dropped"])
    note = finding_of(found, "copies-dropped")
    assert (note.values, note.files) == ((2,), ("again-000.dcm", "again-001.dcm"))


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")], ids="-".join)
def test_of_different_files_with_one_uid_that_with_the_lowest_digest_is_used(names):
    others = [axial([0])[0]._replace(digest=d, path=p) for d, p in zip("fae", names, strict=True)]
    found = only([*others, *axial([0, 2, 4])[1:]])
    assert found.slices[0].instance.digest == "a"
    assert codes(found) == ["different-copies"]
    assert finding_of(found, "different-copies").values == (2,)


@examples(12)
@given(st.permutations("abc"))
def test_of_different_files_on_disk_the_same_one_is_used_whatever_their_names(tmp_path, names):
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    for name, spacing in zip(names, (0.5, 0.6, 0.7), strict=True):
        (tmp_path / name).write_bytes(file_bytes(dataset(PixelSpacing=(spacing, 0.5))))
    chosen = only(scan_headers(tmp_path).instances).slices[0].frame.pixel_spacing[0]
    for path in tmp_path.iterdir():
        path.rename(tmp_path / f"{ord(path.name) * 7 % 10}")
    assert only(scan_headers(tmp_path).instances).slices[0].frame.pixel_spacing[0] == chosen


def test_images_without_a_uid_are_no_copies_of_each_other():
    made = [i._replace(uid="") for i in axial([0, 2, 4])]
    assert heights(only(made)) == [0, 2, 4]


def test_one_uid_in_two_series_is_no_copy():
    made = [*axial([0]), *axial([0], SeriesInstanceUID="1.9")]
    assert [len(s.stacks[0].slices) for s in group_series(made)] == [1, 1]


# Division into series and grids


def test_series_come_by_number_then_uid():
    made = [
        axial([0], SeriesInstanceUID=uid, SeriesNumber=number)[0]
        for uid, number in (("1.5", None), ("1.4", 10), ("1.3", 9), ("1.2", 10))
    ]
    assert [s.uid for s in group_series(made)] == ["1.3", "1.2", "1.4", "1.5"]


def test_a_series_says_what_its_headers_say():
    (series,) = group_series(axial([0, 2], Modality="PT", StudyInstanceUID="8.8", SeriesNumber=5))
    assert (series.modality, series.study_uid, series.number, series.uid) == ("PT", "8.8", 5, "1.2.3")


@pytest.mark.parametrize(
    "other",
    [
        {"Rows": 5},
        {"Columns": 4},
        {"PixelSpacing": (0.8, 0.601)},
        {"PixelSpacing": (0.801, 0.6)},
        {"PixelSpacing": None},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        {"ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 2e-4)},
        {"ImageOrientationPatient": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
        {"ImagePositionPatient": None},
    ],
    ids=["rows", "columns", "along x", "along y", "no spacing", "colour", "a little turned", "mirrored", "no place"],
)
def test_what_cannot_share_a_grid_is_split(other):
    more = axial([6], **({} if "ImagePositionPatient" in other else other))[0]._replace(uid="9.9")
    if "ImagePositionPatient" in other:
        more = instance("x", SOPInstanceUID="9.9", **PLACE)
    (series,) = group_series([*axial([0, 2, 4]), more])
    assert [len(s.slices) for s in series.stacks] == [3, 1]
    assert [s.number for s in series.stacks] == [0, 1]
    assert all("several-stacks" in codes(s) for s in series.stacks)


@pytest.mark.parametrize(
    "other",
    [
        {"PixelSpacing": (0.8, 0.6005)},
        {"ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 5e-5)},
        {"BitsStored": 16, "HighBit": 15},
        {"PixelRepresentation": 1},
        {"RescaleSlope": 2},
        {"FrameOfReferenceUID": "1.2.8"},
        {"ConvolutionKernel": "SHARP"},
    ],
    ids=["spacing", "orientation", "bits", "sign", "slope", "frame of reference", "kernel"],
)
def test_what_can_share_a_grid_is_kept_together(other):
    assert len(only([*axial([0, 2, 4]), axial([6], **other)[0]._replace(uid="9.9")]).slices) == 4


def test_of_stacks_of_one_length_that_with_the_lowest_uid_is_first():
    high = [i._replace(uid=uid) for uid, i in zip(("1.2", "1.3"), axial([0, 2]), strict=True)]
    low = [i._replace(uid=uid) for uid, i in zip(("1.4", "1.1"), axial([0, 2], Rows=9), strict=True)]
    (series,) = group_series([*high, *low])
    assert [s.slices[0].instance.rows for s in series.stacks] == [9, 4]


@few
@given(st.permutations(range(6)), st.permutations(range(6)))
def test_how_cosines_that_drift_are_divided_depends_on_neither_order_nor_names(order, names):
    made = [
        stack([(0, 0, 2 * k)], (1, 0, 0, 0, 1, 0.6e-4 * k))[0]._replace(uid=f"1.{k}", path=f"{names[k]}")
        for k in range(6)
    ]
    (series,) = group_series([made[k] for k in order])
    assert [len(s.slices) for s in series.stacks] == [2, 2, 2]


def test_a_localizer_leaves_the_volume_whole():
    localizer = stack([(0, 0, 300)], (1, 0, 0, 0, 0, -1))[0]._replace(uid="0.1")
    (series,) = group_series([localizer, *axial([0, 2, 4, 6])])
    assert (heights(series.stacks[0]), series.stacks[0].geometry.spacing.z) == ([0, 2, 4, 6], 2)


# Other findings


def test_malformed_values_are_found_with_keyword_and_files():
    made = [*axial([0, 2]), axial([4], SliceThickness="2,5")[0]._replace(uid="9.9", path="bad")]
    note = finding_of(only(made), "malformed-value")
    assert (note.files, note.values) == (("bad",), ("SliceThickness", "not a number"))


def test_pixels_that_are_cut_short_are_found_with_their_files():
    made = [*axial([0, 2]), axial([4], size=1030, length=40)[0]._replace(uid="9.9", path="short")]
    note = finding_of(only(made), "pixels-truncated")
    assert (note.files, note.values, note.severity) == (("short",), (1,), "error")


def test_findings_hold_no_more_than_their_codes_promise():
    found = only(axial([0, 2, 4, 8, 10]))
    assert [f.severity for f in found.findings] == ["warning"]


# Types of values


@st.composite
def stored_ranges(draw):
    """Headers whose slope and intercept are whole numbers, and the ends of their values."""
    allocated = draw(st.sampled_from([8, 16, 32]))
    bits, signed = draw(st.integers(2, allocated)), draw(st.booleans())
    slope = draw(st.sampled_from([1, 1, 2, -1, 10, 1000]))
    intercept = draw(st.one_of(st.just(0), st.just(-1024), st.integers(-40000, 40000)))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    header = {
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "PixelRepresentation": int(signed),
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
    return header, sorted((low * slope + intercept, high * slope + intercept))


def dtype_of(instances):
    return value_dtype(only(instances).slices)


TYPES = [np.iinfo(f"{kind}{bits}") for bits in (8, 16, 32, 64) for kind in ("int", "uint")]


@examples(300)
@given(st.lists(stored_ranges(), min_size=1, max_size=3))
def test_whole_values_have_the_smallest_type_that_holds_them_all(slices):
    made = [axial([2.0 * k], Modality="MR", SOPInstanceUID=f"1.{k}", **h)[0] for k, (h, _) in enumerate(slices)]
    low, high = min(ends[0] for _, ends in slices), max(ends[1] for _, ends in slices)
    holding = [t for t in TYPES if t.min <= low and high <= t.max]
    assert dtype_of(made) == holding[0].dtype  # signed before unsigned of the same size


@pytest.mark.parametrize(
    ("header", "dtype"),
    [
        ({"BitsStored": 12}, "int16"),
        ({"BitsStored": 16}, "int16"),
        ({"BitsStored": 16, "PixelRepresentation": 1}, "int16"),
        ({"BitsStored": 16, "RescaleIntercept": 0}, "int16"),
        ({"BitsStored": 16, "PixelRepresentation": 1, "RescaleIntercept": -8192}, "int16"),
        ({"BitsStored": 16, "Modality": "MR", "RescaleIntercept": 0}, "uint16"),
        ({"BitsStored": 16, "Modality": "MR"}, "int32"),
        ({"BitsStored": 15}, "int16"),
        ({"BitsStored": 12, "RescaleIntercept": 100_000}, "int32"),
        ({"BitsStored": 16, "RescaleIntercept": 100_000}, "int32"),
        ({"BitsStored": 16, "RescaleSlope": 2}, "int32"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "int64"),
        ({"BitsAllocated": 8, "BitsStored": 8, "RescaleIntercept": 0}, "uint8"),
        ({"BitsAllocated": 8, "BitsStored": 7, "RescaleIntercept": 0}, "int8"),
        ({"RescaleSlope": 0.5}, "float32"),
        ({"RescaleIntercept": 0.5}, "float32"),
        ({"BitsAllocated": 8, "BitsStored": 8, "RescaleSlope": 0.1}, "float32"),
        ({"BitsAllocated": 32, "BitsStored": 32, "RescaleSlope": 0.5}, "float64"),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(f"{k[:3]}{k[-8:]}={x}" for k, x in v.items()),
)
def test_the_type_of_values_follows_bits_slope_and_intercept(header, dtype):
    assert dtype_of(axial([0, 2], **header)) == np.dtype(dtype)


def test_one_slice_with_a_fractional_slope_makes_the_volume_float():
    made = [*axial([0, 2]), axial([4], RescaleSlope=0.5)[0]._replace(uid="9.9")]
    assert dtype_of(made) == np.dtype("float32")


def test_one_slice_of_16_bits_does_not_widen_a_ct():
    made = [*axial([0, 2]), axial([4], BitsStored=16)[0]._replace(uid="9.9")]
    assert dtype_of(made) == np.dtype("int16")


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG_LS], ids=["plain", "compressed"])
def test_compression_does_not_change_the_type(syntax):
    assert dtype_of(axial([0, 2], syntax=syntax, SOPClassUID=MR, Modality="MR")) == np.dtype("int16")


# Numbers beyond reason


@pytest.mark.parametrize("bits", [64, 1100, 65528])
def test_a_header_that_claims_absurd_bits_has_a_type_or_is_refused(bits):
    with contextlib.suppress(HeaderError):
        assert dtype_of(axial([0, 2], BitsAllocated=bits, BitsStored=bits)).kind in "fiu"


@examples(100)
@given(st.lists(points(1e9), min_size=1, max_size=5), st.sampled_from([1.0, 1e-6, 1e6]))
def test_no_position_or_spacing_makes_grouping_fail(positions, spacing):
    made = stack(positions, PixelSpacing=(spacing, spacing))
    assert sum(len(s.slices) for s in group_series(made)[0].stacks) == len(positions)
