"""Series that hold several grids, gaps, duplicates or slices astray: each is divided, filled, or named."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import series_made as made
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyvol as lv
from lazyvol.errors import (
    CODES,
    FindingError,
    GeometryError,
    OptionError,
    PixelRangeError,
    SeriesChoiceError,
    UnsupportedSeriesError,
)
from lazyvol.phantom import FICTITIOUS_PATIENT, write_series

N = 10
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def opened(images, **options):
    """Open images in an order that says nothing."""
    shuffled = np.random.default_rng(3).permutation(len(images))
    return lv.open_volume([images[n] for n in shuffled], **options)


def others(count, *, first=N, step=2.5, origin=made.ORIGIN, **values):
    """Return further images of the series, numbered from ``first`` on."""
    return [
        made.image(first + k, np.add(origin, (0, 0, k * step)), **({"InstanceNumber": 100 + k} | values))
        for k in range(count)
    ]


# What is split


def small(count=3):
    stored = np.zeros((6, 8), "<u2")
    return [made.image(N + k, (0, 0, 31.5 + 2.5 * k), stored=stored, InstanceNumber=100 + k) for k in range(count)]


SPLIT = {
    "an orthogonal localizer": lambda: others(1, ImageOrientationPatient=made.CORONAL),
    "another orientation": lambda: others(4, ImageOrientationPatient=(1.0, 0.0, 0.0, 0.0, np.cos(2e-4), np.sin(2e-4))),
    "another matrix": small,
    "another pixel spacing": lambda: others(4, PixelSpacing=(0.8016, 0.6)),
    "a localizer among the slices": lambda: others(
        1, origin=np.add(made.ORIGIN, (0, 0, 25)), ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")
    ),
    "screen captures": lambda: others(
        3, SOPClassUID=SECONDARY_CAPTURE, ImageOrientationPatient=None, ImageType=("DERIVED", "SECONDARY")
    ),
    "screen captures that keep a position": lambda: others(3, SOPClassUID=SECONDARY_CAPTURE),
    "images without a position": lambda: others(2, ImageOrientationPatient=None),
}


@pytest.fixture(params=SPLIT.values(), ids=SPLIT.keys())
def extra(request):
    return request.param()


def test_the_largest_grid_opens(extra):
    np.testing.assert_array_equal(opened(made.series() + extra).values, made.stamps(N))


def test_the_largest_grid_is_regular(extra):
    np.testing.assert_allclose(opened(made.series() + extra).vol.spacing, made.SPACING)


def test_several_grids_are_said(extra):
    (found,) = lv.findings_of(opened(made.series() + extra))
    assert (found.code, found.values) == ("several-stacks", (2,))


def test_the_other_grid_opens_as_stack_1(extra):
    volume = opened(made.series() + extra, stack=1)
    assert sorted(volume.sop_instance_uid.values) == sorted(i.SOPInstanceUID for i in extra)


def test_open_stacks_has_every_grid(extra):
    tree = lv.open_stacks(made.series() + extra)
    assert {name: node.image.sizes["z"] for name, node in tree.children.items()} == {"stack0": N, "stack1": len(extra)}


def test_a_stack_that_does_not_exist_is_an_error_that_says_how_many_there_are():
    with pytest.raises(SeriesChoiceError, match=r"stack=2 .*0 to 1"):
        opened(made.series() + small(), stack=2)


def test_a_negative_stack_is_an_error():
    with pytest.raises(SeriesChoiceError, match="stack=-1"):
        opened(made.series() + small(), stack=-1)


def test_the_largest_grid_has_most_images_whatever_their_uids():
    volume = opened(made.series(4) + others(5, PixelSpacing=(1.0, 1.0)))
    assert volume.sizes["z"] == 5


@pytest.mark.parametrize("low", ["1.2.3.0", "1.2.3.9"], ids=["the other has the lowest", "this has the lowest"])
def test_of_grids_of_one_size_that_with_the_lowest_uid_opens(low):
    images = made.series(3, each=lambda k: {"SOPInstanceUID": f"1.2.3.5.{k}"})
    extra = others(3, PixelSpacing=(1.0, 1.0))
    for k, image in enumerate(extra):
        image.SOPInstanceUID = f"{low}.{k}"
    volume = opened(images + extra)
    assert volume.vol.spacing.x == (1.0 if low == "1.2.3.0" else 0.6)


def test_screen_captures_do_not_stand_before_the_volume_though_they_are_more():
    captures = others(5, SOPClassUID=SECONDARY_CAPTURE, ImageOrientationPatient=None)
    np.testing.assert_array_equal(opened(made.series(3) + captures).values, made.stamps(3))


def test_what_does_not_open_does_not_stand_before_the_volume_though_it_is_more():
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "stored": np.zeros((20, 24, 3), "u1")}
    captures = others(5, SOPClassUID=SECONDARY_CAPTURE, **colour, **bits)
    np.testing.assert_array_equal(opened(made.series(3) + captures).values, made.stamps(3))


def test_open_stacks_says_what_does_not_open_and_why():
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "HSV", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "stored": np.zeros((20, 24, 3), "u1")}
    tree = lv.open_stacks(made.series() + others(2, **colour, **bits))
    assert list(tree.children) == ["stack0"]
    assert [line for line in tree.attrs["refused"] if "stack1" in line and "HSV" in line]


def test_open_stacks_of_nothing_that_opens_is_an_error():
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "HSV", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "stored": np.zeros((20, 24, 3), "u1")}
    with pytest.raises(UnsupportedSeriesError, match="HSV"):
        lv.open_stacks(others(2, **colour, **bits))


# Soft tags split only where that removes a finding

SHARED_PLACES = {
    "kernels": {"ConvolutionKernel": ("STANDARD", "BONE")},
    "filters": {"FilterType": ("BODY", "HEAD")},
    "image types": {"ImageType": (("ORIGINAL", "PRIMARY", "AXIAL"), ("DERIVED", "SECONDARY", "AXIAL"))},
    "frames of reference": {"FrameOfReferenceUID": ("1.2.9", "1.2.10")},
    "acquisitions": {"AcquisitionNumber": (1, 2)},
}


@pytest.mark.parametrize("tag", [k for k in SHARED_PLACES if k != "acquisitions"])
@pytest.mark.parametrize("numbers", ["own", "equal"])
def test_over_the_same_places_a_soft_tag_splits(tag, numbers):
    ((keyword, (one, other)),) = SHARED_PLACES[tag].items()
    number = {} if numbers == "own" else {"InstanceNumber": 1}
    images = made.series(**{keyword: one}, **number) + others(N, **{keyword: other}, **number)
    volume = opened(images)
    assert made.codes(volume) == ["several-stacks"]
    np.testing.assert_array_equal(volume.values, made.stamps(N))


def test_over_the_same_places_acquisitions_are_times():
    volume = opened(made.series(AcquisitionNumber=1) + others(N, AcquisitionNumber=2))
    assert (volume.dims, made.codes(volume)) == (("time", "z", "y", "x"), [])


@pytest.mark.parametrize("tag", SHARED_PLACES)
def test_between_each_others_places_a_soft_tag_splits(tag):
    """Two scans whose slices lie 1 mm beside each other are uneven as one, and regular each."""
    ((keyword, (one, other)),) = SHARED_PLACES[tag].items()
    images = made.series(**{keyword: one}) + others(N, origin=np.add(made.ORIGIN, (0, 0, 1.0)), **{keyword: other})
    volume = opened(images)
    assert made.codes(volume) == ["several-stacks"]
    assert volume.vol.spacing.z == 2.5


@pytest.mark.parametrize("tag", SHARED_PLACES)
@pytest.mark.parametrize("when", [lambda k: k < 5, lambda k: k % 2], ids=["half way", "in turn"])
def test_inside_one_good_volume_a_soft_tag_splits_nothing(tag, when):
    ((keyword, pair),) = SHARED_PLACES[tag].items()
    volume = opened(made.series(each=lambda k: {keyword: pair[bool(when(k))]}))
    np.testing.assert_array_equal(volume.values, made.stamps(N))
    assert set(made.codes(volume)) <= {"frame-of-reference-varies"}


def test_a_soft_tag_that_removes_no_gap_splits_nothing():
    images = [i for i in made.series(each=lambda k: {"AcquisitionNumber": k % 2}) if i.SOPInstanceUID != "1.2.3.4.4"]
    assert made.codes(opened(images)) == ["missing-slices"]


def test_a_soft_tag_that_each_slice_has_its_own_of_splits_nothing():
    images = made.series(6, at=[0, 1, 2, 3.3, 4, 5], each=lambda k: {"AcquisitionNumber": k})
    assert made.codes(opened(images)) == ["uneven-spacing"]


# Duplicates


def doubled(k=4, *, equal=True, **values):
    """Return a series with another image at the place of slice k."""
    place = np.add(made.ORIGIN, (0, 0, 2.5 * k))
    stored = made.stamps(k + 1, 0)[k].astype("<u2") if equal else None
    return [*made.series(), made.image(N, place, stored=stored, **({"InstanceNumber": 50} | values))]


def test_two_images_at_one_place_are_refused():
    with pytest.raises(
        UnsupportedSeriesError, match=r"2 images share 1 position .*slice 4.*duplicates='first'.*'axis'"
    ):
        opened(doubled())


def test_first_keeps_the_image_with_the_lowest_instance_number():
    volume = opened(doubled(equal=False), duplicates="first")
    np.testing.assert_array_equal(volume.values, made.stamps(N))


def test_first_keeps_the_other_image_if_its_number_is_lower():
    volume = opened(doubled(equal=False, InstanceNumber=-1), duplicates="first")
    np.testing.assert_array_equal(volume.values[4], made.stamps(N + 1)[N])


def test_first_says_that_equal_images_were_dropped():
    (found,) = lv.findings_of(opened(doubled(), duplicates="first"))
    assert (found.code, found.values) == ("copies-dropped", (1,))


def test_first_says_that_unequal_images_were_left_out():
    (found,) = lv.findings_of(opened(doubled(equal=False), duplicates="first"))
    assert (found.code, found.severity, found.values) == ("duplicates-differ", "warning", (1,))


def test_first_counts_images_of_another_type_as_unequal():
    images = doubled(RescaleSlope=0.5)
    assert made.codes(opened(images, duplicates="first")) == ["duplicates-differ"]


def test_first_reads_only_the_pixels_that_it_compares(read):
    opened(doubled(), duplicates="first")
    assert len(read) == 2


def test_axis_keeps_all_images_along_a_dimension():
    volume = opened(doubled(equal=False), duplicates="axis")
    assert (volume.dims, volume.sizes["duplicate"]) == (("duplicate", "z", "y", "x"), 2)
    np.testing.assert_array_equal(volume.values[0], made.stamps(N))
    np.testing.assert_array_equal(volume.values[1, 4], made.stamps(N + 1)[N])


def test_axis_leaves_nan_where_there_is_no_second_image():
    volume = opened(doubled(), duplicates="axis")
    assert np.isnan(volume.values[1, :, 0, 0]).tolist() == [k != 4 for k in range(N)]


def test_axis_says_that_its_grid_has_holes():
    assert made.codes(opened(doubled(), duplicates="axis")) == ["axis-from-instance-number", "incomplete-grid"]


def test_axis_has_as_many_places_as_the_fullest_position_has_images():
    place = np.add(made.ORIGIN, (0, 0, 5.0))
    more = [made.image(N + n, place, InstanceNumber=50 + n) for n in range(3)]
    volume = opened([*made.series(), *more], duplicates="axis")
    assert volume.sizes["duplicate"] == 4
    np.testing.assert_array_equal(volume.values[1:, 2], made.stamps(N + 3)[N:])


@pytest.mark.parametrize("choice", ["raise", "first", "axis"])
def test_images_at_one_height_that_lie_beside_each_other_are_refused(choice):
    images = [*made.series(), made.image(N, np.add(made.ORIGIN, (0.3, -0.4, 5.0)), InstanceNumber=50)]
    with pytest.raises(UnsupportedSeriesError, match=r"images at one height lie up to 0\.500 mm apart sideways"):
        opened(images, duplicates=choice)


def test_times_that_lie_a_hair_beside_each_other_are_one_grid():
    images = made.grid({"EchoTime": [4.6, 9.2]})
    for image in images[3:]:
        image.ImagePositionPatient[0] += 0.04
    assert opened(images).dims == ("echo", "z", "y", "x")


def test_a_choice_that_is_not_known_is_named():
    with pytest.raises(OptionError, match=r"duplicates='last'.*'raise', 'first', 'axis'"):
        opened(doubled(), duplicates="last")


def test_a_choice_does_nothing_where_there_is_no_duplicate():
    for choice in ("first", "axis"):
        assert opened(made.series(), duplicates=choice).dims == ("z", "y", "x")


def test_copies_are_dropped_and_counted():
    images = [*made.series(), *made.series()[2:5]]
    (found,) = lv.findings_of(opened(images))
    assert (found.code, found.severity, found.values) == ("copies-dropped", "info", (3,))


def test_another_header_with_the_same_uid_is_a_warning(tmp_path):
    other = made.series()[4]
    other.KVP = 80
    paths = made.write(tmp_path, [*made.series(), other])
    volume = lv.open_volume(tmp_path)
    assert made.codes(volume) == ["different-copies"]
    assert str(volume.source.values[4]) in {str(paths[4]), str(paths[10])}


# Missing and uneven slices

GONE = [0, 1, 2, 5, 6, 7, 9]
"""Steps of the slices that are there; 3, 4 and 8 are missing."""


def gappy(**values):
    return made.series(at=GONE, **values)


def test_missing_slices_are_named_with_the_slices_before_the_gaps():
    (found,) = lv.findings_of(opened(gappy()))
    assert (found.code, found.slices, found.values) == ("missing-slices", (2, 5), (7.5, 5.0))


def test_around_missing_slices_the_true_positions_are_labels():
    np.testing.assert_allclose(opened(gappy()).z, made.ORIGIN[2] + 2.5 * np.array(GONE))


def test_missing_raise_raises():
    with pytest.raises(FindingError, match=r"missing='raise'(?s:.*)3 slices are missing"):
        opened(gappy(), missing="raise")


def test_missing_raise_opens_a_whole_series():
    assert opened(made.series(), missing="raise").sizes["z"] == N


def test_missing_raise_raises_for_uneven_slices_too():
    with pytest.raises(FindingError, match="uneven-spacing"):
        opened(made.series(5, at=[0, 1, 2.3, 3, 4]), missing="raise")


def test_filled_slices_are_nan_and_the_others_stay():
    volume = opened(gappy(), missing="fill")
    expected = np.full((N, made.ROWS, made.COLUMNS), np.nan)
    expected[GONE] = made.stamps(len(GONE))
    np.testing.assert_array_equal(volume.values, expected)


def test_a_filled_volume_is_float32():
    assert opened(gappy(), missing="fill").dtype == "float32"


def test_a_filled_volume_is_regular():
    volume = opened(gappy(), missing="fill")
    np.testing.assert_allclose(volume.vol.spacing, made.SPACING)
    np.testing.assert_allclose(volume.z, made.ORIGIN[2] + 2.5 * np.arange(N))


def test_a_filled_volume_has_an_affine():
    np.testing.assert_allclose(opened(gappy(), missing="fill").vol.affine[:3, 0], (0, 0, 2.5))


def test_a_filled_volume_says_which_slices_are_filled():
    (found,) = lv.findings_of(opened(gappy(), missing="fill"))
    assert (found.code, found.slices) == ("missing-slices", (3, 4, 8))


def test_a_fill_value_keeps_integers():
    volume = opened(gappy(), missing="fill", fill_value=-2000)
    assert volume.dtype == "int16"
    assert volume.values[:, 5, 5].tolist()[3] == -2000


def test_filled_slices_cost_no_read(tmp_path, read):
    made.write(tmp_path, gappy())
    volume = lv.open_volume(tmp_path, missing="fill")
    assert np.isnan(volume.isel(z=slice(3, 5)).compute()).all()
    assert np.isnan(volume.isel(z=8).compute()).all()
    assert read == []


def test_beside_filled_slices_each_slice_is_read_once(tmp_path, read):
    paths = made.write(tmp_path, gappy())
    lv.open_volume(tmp_path, missing="fill").compute()
    assert sorted(read) == sorted(map(str, paths))


def test_filled_slices_have_no_file_and_no_uid():
    volume = opened(gappy(), missing="fill")
    assert [n for n, uid in enumerate(volume.sop_instance_uid.values) if not uid] == [3, 4, 8]


def test_fill_does_nothing_for_a_whole_series():
    assert opened(made.series(), missing="fill").dtype == "int16"


def test_fill_fills_every_time():
    images = [i for n, i in enumerate(made.grid({"EchoTime": [4.6, 9.2]}, 5)) if n % 5 != 2]
    volume = opened(images, missing="fill")
    assert volume.dims == ("echo", "z", "y", "x")
    assert np.isnan(volume.values[:, :, 0, 0]).tolist() == [[False, False, True, False, False]] * 2


def test_fill_keeps_the_tilt():
    images = made.series(at=GONE, orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5))
    volume = opened(images, missing="fill")
    assert volume.vol.geometry.shear == pytest.approx(np.degrees(np.arcsin(0.28)))
    np.testing.assert_allclose(made.corners_in(volume)[GONE], made.corners_of(images), atol=1e-6)


def test_a_dtype_that_holds_no_nan_is_an_error_for_filled_slices():
    with pytest.raises(PixelRangeError, match="3 absent images"):
        opened(gappy(), missing="fill", dtype="int16")


def test_uneven_slices_stay_uneven_when_gaps_are_to_be_filled():
    volume = opened(made.series(5, at=[0, 1, 2.3, 3, 4]), missing="fill")
    assert (volume.sizes["z"], made.codes(volume)) == (5, ["uneven-spacing"])


def test_uneven_slices_keep_their_true_positions_and_no_spacing():
    volume = opened(made.series(5, at=[0, 1, 2.3, 3, 4]))
    np.testing.assert_allclose(volume.z, made.ORIGIN[2] + 2.5 * np.array([0, 1, 2.3, 3, 4]))
    assert np.isnan(volume.vol.spacing.z)


def test_uneven_slices_have_no_affine():
    with pytest.raises(GeometryError, match="unevenly spaced"):
        _ = opened(made.series(5, at=[0, 1, 2.3, 3, 4])).vol.affine


def test_the_field_of_view_of_uneven_slices_has_half_of_each_end_gap():
    volume = opened(made.series(5, at=[0, 1, 2.3, 3, 5]))
    assert volume.vol.field_of_view.z == pytest.approx(2.5 * (5 + (1 + 2) / 2))


def test_a_missing_choice_that_is_not_known_is_named():
    with pytest.raises(OptionError, match="missing='skip'"):
        opened(made.series(), missing="skip")


# A slice astray is always found


@st.composite
def stacks(draw):
    """Return an orientation, a step that may lean, and how many slices."""
    axis = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    length = np.linalg.norm(axis)
    axis = axis / length if length > 0.1 else np.array([0.0, 0.0, 1.0])
    turn = rotation(axis, draw(st.floats(-np.pi, np.pi)))
    lean = np.tan(np.radians(draw(st.sampled_from([0.0, 0.0, 7.0, -20.0]))))
    step = draw(st.floats(0.5, 8)) * (turn[2] + lean * turn[1])
    return (*turn[0], *turn[1]), step, draw(st.integers(6, 12))


def rotation(axis, angle):
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def moved(images, k, shift):
    images[k].ImagePositionPatient = [
        f"{v:.10f}"[:16] for v in np.array(images[k].ImagePositionPatient, dtype=float) + shift
    ]
    return images


@settings(deadline=None, max_examples=25)
@given(stacks(), st.data())
def test_a_dropped_slice_is_found_and_named(stack, data):
    orientation, step, n = stack
    k = data.draw(st.integers(1, n - 2))
    images = made.series(n, orientation=orientation, step=step)
    del images[k]
    found = {f.code: f for f in lv.findings_of(opened(images))}
    assert found["missing-slices"].slices == (k - 1,)


@settings(deadline=None, max_examples=25)
@given(stacks(), st.data())
def test_a_doubled_slice_is_refused_and_named(stack, data):
    orientation, step, n = stack
    k = data.draw(st.integers(0, n - 1))
    images = made.series(n, orientation=orientation, step=step)
    double = made.image(n, np.add(made.ORIGIN, k * step), ImageOrientationPatient=orientation, InstanceNumber=50)
    with pytest.raises(UnsupportedSeriesError, match=rf"share 1 position .*slice {k} "):
        opened([*images, double])


@settings(deadline=None, max_examples=40)
@given(stacks(), st.data())
def test_a_slice_shifted_along_z_is_found_and_named(stack, data):
    orientation, step, n = stack
    k = data.draw(st.integers(0, n - 1))
    part = data.draw(st.floats(0.0101, 0.49)) * data.draw(st.sampled_from([-1, 1]))
    images = moved(made.series(n, orientation=orientation, step=step), k, part * step)
    (found,) = (f for f in lv.findings_of(opened(images)) if f.code != "tilted")
    assert found.code == "uneven-spacing"
    assert set(found.slices) == {j for j in (k - 1, k) if 0 <= j < n - 1}


@settings(deadline=None, max_examples=40)
@given(stacks(), st.data())
def test_a_slice_shifted_sideways_is_found_and_named(stack, data):
    orientation, step, n = stack
    k = data.draw(st.integers(0, n - 1))
    angle = data.draw(st.floats(0, 6.3))
    row, column = np.reshape(orientation, (2, 3))
    height = abs(np.dot(step, np.cross(row, column)))
    amount = max(0.0103 * height / np.cos(np.radians(20)), 0.0055) * data.draw(st.floats(1, 1000))
    if k in (0, n - 1):  # a line that leans a little takes up half of it
        amount *= 2.2
    images = moved(
        made.series(n, orientation=orientation, step=step), k, amount * (np.cos(angle) * row + np.sin(angle) * column)
    )
    found = {f.code: f for f in lv.findings_of(opened(images))}
    assert found["slices-off-line"].slices == (k,)


@settings(deadline=None, max_examples=40)
@given(stacks(), st.data())
def test_a_rotated_slice_is_found_and_left_out(stack, data):
    orientation, step, n = stack
    k = data.draw(st.integers(0, n - 1))
    row, column = np.reshape(orientation, (2, 3))
    axis = data.draw(st.sampled_from([row, column, np.cross(row, column)]))
    turn = rotation(axis, data.draw(st.floats(4e-4, 1.5)) * data.draw(st.sampled_from([-1, 1])))
    images = made.series(n, orientation=orientation, step=step)
    images[k].ImageOrientationPatient = [f"{v:.12f}"[:16] for v in (*(turn @ row), *(turn @ column))]
    volume = opened(images)
    assert "several-stacks" in made.codes(volume)
    assert images[k].SOPInstanceUID not in volume.sop_instance_uid.values
    assert ("missing-slices" in made.codes(volume)) == (0 < k < n - 1)


@settings(deadline=None, max_examples=25)
@given(stacks(), st.data())
def test_noise_within_the_tolerance_is_nothing_odd(stack, data):
    orientation, step, n = stack
    k = data.draw(st.integers(0, n - 1))
    shift = data.draw(st.floats(-0.0024, 0.0024)) * step / np.linalg.norm(step)
    images = moved(made.series(n, orientation=orientation, step=step), k, shift)
    assert set(made.codes(opened(images))) <= {"tilted"}


# Tolerances


@pytest.mark.parametrize(
    ("tolerances", "expected"),
    [
        (None, ["uneven-spacing"]),
        (lv.Tolerances(spacing_rtol=0.05), []),
        (lv.Tolerances(spacing_atol=0.15), []),
        (lv.Tolerances(spacing_rtol=0.03), ["uneven-spacing"]),
    ],
    ids=["default", "a twentieth", "0.15 mm", "still too small"],
)
def test_the_tolerance_of_the_spacing_can_be_given(tolerances, expected):
    assert made.codes(opened(made.series(6, at=[0, 1, 2, 3.04, 4, 5]), tolerances=tolerances)) == expected


@pytest.mark.parametrize(
    ("tolerances", "expected"),
    [(None, ["slices-off-line"]), (lv.Tolerances(spacing_rtol=0.1), [])],
    ids=["default", "a tenth"],
)
def test_the_tolerance_sideways_can_be_given(tolerances, expected):
    images = moved(made.series(6), 3, (0.1, 0, 0))
    assert made.codes(opened(images, tolerances=tolerances)) == expected


@pytest.mark.parametrize(
    ("tolerances", "expected"),
    [(None, ["missing-slices", "several-stacks"]), (lv.Tolerances(orientation_atol=1e-2), [])],
    ids=["default", "1e-2"],
)
def test_the_tolerance_of_the_orientation_can_be_given(tolerances, expected):
    images = made.series(
        6, each=lambda k: {"ImageOrientationPatient": (1, 0, 0, 0, np.cos(5e-3), np.sin(5e-3))} if k == 2 else {}
    )
    found = [c for c in made.codes(opened(images, tolerances=tolerances)) if c != "tilted"]
    assert found == expected


@pytest.mark.parametrize(
    ("tolerances", "stacks"), [(None, 2), (lv.Tolerances(pixel_spacing_rtol=0.05), 1)], ids=["default", "a twentieth"]
)
def test_the_tolerance_of_the_pixel_spacing_can_be_given(tolerances, stacks):
    images = made.series(6, each=lambda k: {"PixelSpacing": (0.8, 0.61 if k == 5 else 0.6)})
    volume = opened(images, tolerances=tolerances)
    assert volume.sizes["z"] == 7 - stacks


@pytest.mark.parametrize(("apart", "share"), [(0.004, True), (0.02, False)])
def test_images_within_5_micrometres_share_a_position(apart, share):
    images = made.series(6, at=[0, 1, 2, 3, 4, 5])
    images.append(made.image(N, np.add(made.ORIGIN, (0, 0, 5.0 + apart)), InstanceNumber=50))
    if share:
        with pytest.raises(UnsupportedSeriesError, match=r"2 images share 1 position .*slice 2"):
            opened(images)
    else:
        assert made.codes(opened(images)) == ["uneven-spacing"]


@pytest.mark.parametrize(("drift", "expected"), [(5e-4, []), (4e-3, ["tilted"])])
def test_a_drift_of_more_than_a_micrometre_over_the_stack_is_a_tilt(drift, expected):
    assert made.codes(opened(made.series(5, step=(drift / 4, 0, 2.5)))) == expected


def stack_of(images):
    (found,) = lv.group_series(lv.scan_headers(images).instances)
    return found.stacks[0]


def test_the_geometry_of_a_stack_with_gaps_has_its_positions():
    np.testing.assert_allclose(stack_of(gappy()).geometry.slice_positions, 2.5 * np.array(GONE))


def test_the_geometry_of_a_stack_with_gaps_has_no_spacing():
    assert np.isnan(stack_of(gappy()).geometry.spacing.z)


def test_the_geometry_of_a_filled_volume_has_its_spacing():
    np.testing.assert_allclose(opened(gappy(), missing="fill").geometry.attrs["spacing"], made.SPACING)


# One slice, and cosines that are a little off


@pytest.mark.parametrize(
    ("said", "spacing", "expected"),
    [
        ({"SpacingBetweenSlices": 4.0}, 4.0, []),
        ({"SpacingBetweenSlices": 0.0}, 3.0, ["spacing-guessed"]),
        ({"SpacingBetweenSlices": -4.0}, 3.0, ["spacing-guessed"]),
        ({"SpacingBetweenSlices": None}, 3.0, ["spacing-guessed"]),
        ({"SliceThickness": 0.0}, np.nan, ["spacing-unknown"]),
        ({"SliceThickness": None}, np.nan, ["spacing-unknown"]),
    ],
    ids=["spacing", "spacing 0", "negative spacing", "thickness", "thickness 0", "nothing"],
)
def test_one_slice_has_the_spacing_of_its_header_or_says_that_it_is_guessed(said, spacing, expected):
    volume = opened(made.series(1, **said))
    np.testing.assert_equal(volume.vol.spacing.z, spacing)
    assert made.codes(volume) == expected


@pytest.mark.parametrize("off", [(1.004, 0, 0, 0, 0.997, 0), (1, 0, 0, 0.005, 1, 0), (1, 0.003, 0, 0, 1, 0.004)])
def test_directions_are_of_unit_length_and_square_though_the_cosines_are_not(off):
    directions = opened(made.series(5, orientation=off, step=(0, 0, 2.5))).vol.directions
    np.testing.assert_allclose(directions[1:] @ directions[1:].T, np.eye(2), atol=1e-12)


# What a volume says of its files


def test_each_slice_has_its_uid_number_and_file(tmp_path):
    paths = made.write(tmp_path, made.series())
    volume = lv.open_volume(tmp_path)
    assert volume.sop_instance_uid.values.tolist() == [f"1.2.3.4.{k + 1}" for k in range(N)]
    assert volume.instance_number.values.tolist() == list(range(N, 0, -1))
    assert volume.source.values.tolist() == list(map(str, paths))


def test_header_values_that_vary_stand_by_slice():
    volume = opened(made.series(each=lambda k: {"XRayTubeCurrent": 100 + k}))
    assert volume.x_ray_tube_current.dims == ("z",)
    assert volume.x_ray_tube_current.values.tolist() == [100 + k for k in range(N)]


def test_header_values_that_do_not_vary_are_attributes():
    assert opened(made.series(KVP=120)).attrs["KVP"] == 120


def test_a_header_value_that_some_slices_lack_stands_by_slice():
    volume = opened(made.series(4, each=lambda k: {"KVP": None if k == 2 else 120.0}))
    np.testing.assert_array_equal(volume.kvp, [120, 120, np.nan, 120])


def test_the_whole_header_of_a_slice_is_read_on_demand(tmp_path):
    made.write(tmp_path, made.series())
    volume = lv.open_volume(tmp_path)
    assert [str(volume.vol.header(k).SOPInstanceUID) for k in (0, 7)] == ["1.2.3.4.1", "1.2.3.4.8"]


def test_the_header_of_a_cut_is_that_of_its_slice(tmp_path):
    made.write(tmp_path, made.series())
    cut = lv.open_volume(tmp_path).isel(z=slice(8, 2, -2))
    assert str(cut.vol.header(1).SOPInstanceUID) == "1.2.3.4.7"


def test_the_header_is_that_of_an_image_on_all_axes(tmp_path):
    made.write(tmp_path, made.grid({"EchoTime": [4.6, 9.2], "FlipAngle": [5.0, 9.0]}))
    volume = lv.open_volume(tmp_path)
    header = volume.vol.header(2, echo=1, flip_angle=0)
    assert (header.EchoTime, header.FlipAngle, str(header.SOPInstanceUID)) == (9.2, 5, f"1.2.3.4.{2 * 3 + 2 + 1}")


def test_the_header_of_a_filled_slice_is_an_error(tmp_path):
    made.write(tmp_path, gappy())
    with pytest.raises(lv.LazyvolError, match="slice 3 has no file"):
        lv.open_volume(tmp_path, missing="fill").vol.header(3)


# Findings as data

ODD = {
    "missing": gappy,
    "uneven": lambda: made.series(5, at=[0, 1, 2.3, 3, 4]),
    "tilted and missing": lambda: made.series(at=GONE, orientation=(1.0, 0.0, 0.0, 0.0, 0.96, 0.28), step=(0, 0, 2.5)),
    "several stacks": lambda: made.series() + small(),
    "copies": lambda: [*made.series(), made.series()[3]],
    "astray": lambda: moved(made.series(), 4, (0.5, 0.5, 0)),
    "incomplete": lambda: made.grid({"EchoTime": [4.6, 9.2, 13.8]})[1:],
    "instance numbers": lambda: made.grid({"RepetitionTime": [9.0, 9.0]}),
    "no place": lambda: made.series(ImageOrientationPatient=None),
}


@pytest.fixture(scope="module", params=ODD.values(), ids=ODD.keys())
def odd(request):
    return opened(request.param())


def test_every_finding_has_its_severity(odd):
    assert all(CODES[f.code] == f.severity for f in lv.findings_of(odd))


def test_strict_raises_for_findings_from_warning_up_only():
    for images in ODD.values():
        serious = [f for f in lv.findings_of(opened(images())) if f.severity != "info"]
        if serious:
            with pytest.raises(FindingError, match=serious[0].code):
                opened(images(), strict=True)
        else:
            opened(images(), strict=True)


def test_findings_survive_netcdf(odd, tmp_path):
    pytest.importorskip("h5netcdf", reason="netCDF needs h5netcdf: install lazyvol[netcdf]")
    odd.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "a.nc", engine="h5netcdf") as kept:
        assert lv.findings_of(kept) == lv.findings_of(odd)


def test_findings_survive_zarr(odd, tmp_path):
    lv.save_zarr(odd, tmp_path / "a.zarr")
    assert lv.findings_of(lv.open_zarr(tmp_path / "a.zarr")) == lv.findings_of(odd)


def test_findings_survive_a_selection(odd):
    assert lv.findings_of(odd.isel(z=slice(1, 4))) == lv.findings_of(odd)


def test_findings_are_strings_in_the_attributes(odd):
    assert all(isinstance(line, str) for line in odd.attrs["findings"])


# Privacy


def private_series(folder, change):
    paths = write_series(folder, np.zeros((8, 6, 8)), spacing=(2.5, 0.8, 0.6), n=8)
    change(paths)
    return folder


def lose(paths):
    paths[3].unlink()


def shift(paths):
    made_odd = pydicom.dcmread(paths[3])
    made_odd.ImagePositionPatient = [9, 9, made_odd.ImagePositionPatient[2]]
    made_odd.save_as(paths[3])


def turn(paths):
    made_odd = pydicom.dcmread(paths[3])
    made_odd.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    made_odd.save_as(paths[3])


def double(paths):
    made_odd = pydicom.dcmread(paths[3])
    made_odd.SOPInstanceUID = "1.2.3"
    made_odd.save_as(paths[3].with_name("double.dcm"))


def damage(paths):
    paths[3].write_bytes(paths[3].read_bytes()[:900])


def shorten(paths):
    paths[3].write_bytes(paths[3].read_bytes()[:-20])


def malform(paths):
    """Put the name of the patient where a number belongs."""
    content = paths[3].read_bytes()
    at = content.index(b"DS", content.index(b"\x28\x00\x30\x00")) + 2
    length = int.from_bytes(content[at : at + 2], "little")
    name = FICTITIOUS_PATIENT["PatientName"].encode()[:length].ljust(length)
    paths[3].write_bytes(content[: at + 2] + name + content[at + 2 + length :])


CHANGES = [lose, shift, turn, double, damage, shorten, malform]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_no_finding_and_no_error_names_the_patient(tmp_path, change):
    folder = private_series(tmp_path / "series", change)
    said = ""
    for options in ({}, {"strict": True}, {"missing": "raise"}, {"duplicates": "first"}, {"missing": "fill"}):
        try:
            volume = lv.open_volume(folder, **options)
            said += repr(volume) + repr(volume.attrs) + repr(volume.coords)
            volume.compute()
        except lv.LazyvolError as error:
            said += str(error)
    assert [k for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and v in said] == []
