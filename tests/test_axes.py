"""Several images at one position become dimensions before z, with their values and units as coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import series_made as made
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyvol as lv
from lazyvol.errors import PixelRangeError, UnsupportedSeriesError

DAY = 10 * 3600.0


def clock(seconds):
    return f"{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:09.6f}"


def opened(images, **options):
    """Open images in an order that says nothing."""
    shuffled = np.random.default_rng(3).permutation(len(images))
    return lv.open_volume([images[n] for n in shuffled], **options)


def at_times(values):
    """Return values for `grid` by which all images of one time share an acquisition time, s."""
    return {"AcquisitionTime": [clock(DAY + t) for t in values]}


PHILIPS = {
    "magnitude": ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"),
    "phase": ("ORIGINAL", "PRIMARY", "PHASE MAP", "P"),
}
SINGLE = {
    "time": (at_times([0, 2.5, 5]), [0, 2.5, 5], "s"),
    "time of PET": ({"FrameReferenceTime": [5000.0, 20000.0, 65000.0]}, [0, 15, 60], "s"),
    "cardiac_phase in percent": ({"NominalPercentageOfCardiacPhase": [0.0, 25.0, 75.0]}, [0, 25, 75], "%"),
    "cardiac_phase in ms": ({"TriggerTime": [10.0, 50.0, 90.0]}, [10, 50, 90], "ms"),
    "respiratory_phase": ({"NominalPercentageOfRespiratoryPhase": [0.0, 50.0]}, [0, 50], "%"),
    "echo": ({"EchoTime": [4.6, 9.2, 13.8]}, [4.6, 9.2, 13.8], "ms"),
    "echo by number": ({"EchoNumbers": [1, 2]}, [0, 1], None),
    "b_value": ({"DiffusionBValue": [0.0, 500.0, 1000.0]}, [0, 500, 1000], "s/mm2"),
    "flip_angle": ({"FlipAngle": [2.0, 15.0]}, [2, 15], "degree"),
    "time by number": ({"TemporalPositionIdentifier": [1, 2, 3]}, [0, 1, 2], None),
    "time by acquisition": ({"AcquisitionNumber": [1, 2, 3]}, [0, 1, 2], None),
    "component": ({"ImageType": list(PHILIPS.values())}, ["magnitude", "phase"], None),
}


@pytest.fixture(scope="module", params=SINGLE, ids=SINGLE.keys())
def single(request):
    """A kind of axis: its name, labels and units, and the volume."""
    axes, labels, units = SINGLE[request.param]
    return request.param.split(" ")[0], labels, units, opened(made.grid(axes))


def test_one_axis_has_its_name(single):
    name, _, _, volume = single
    assert volume.dims == (name, "z", "y", "x")


def test_the_labels_of_an_axis_are_its_values(single):
    name, labels, _, volume = single
    assert volume[name].values.tolist() == labels


def test_the_labels_of_an_axis_have_units(single):
    name, _, units, volume = single
    assert volume[name].attrs.get("units") == units


def test_each_image_stands_at_its_label_and_position(single):
    _, labels, _, volume = single
    np.testing.assert_array_equal(volume.values, made.stamps((len(labels), 3), 0))


def test_an_axis_that_its_values_name_is_nothing_odd(single):
    assert made.codes(single[-1]) == []


def test_an_axis_leaves_the_positions_as_they_are(single):
    np.testing.assert_allclose(single[-1].vol.spacing, made.SPACING)
    np.testing.assert_allclose(single[-1].vol.origin, made.ORIGIN)


# Components


WORDS = {
    "Philips": {
        **PHILIPS,
        "real": ("ORIGINAL", "PRIMARY", "R_FFE", "R"),
        "imaginary": ("ORIGINAL", "PRIMARY", "I_FFE"),
    },
    "Siemens": {
        "magnitude": ("ORIGINAL", "PRIMARY", "M", "ND", "NORM"),
        "phase": ("ORIGINAL", "PRIMARY", "P", "ND"),
    },
    "in full": {
        "magnitude": ("DERIVED", "PRIMARY", "MPR", "MAGNITUDE"),
        "phase": ("DERIVED", "PRIMARY", "MPR", "PHASE"),
        "real": ("DERIVED", "PRIMARY", "MPR", "REAL"),
        "imaginary": ("DERIVED", "PRIMARY", "MPR", "IMAGINARY"),
    },
    "maps": {"phase": ("ORIGINAL", "PRIMARY", "PHASE MAP"), "real": ("ORIGINAL", "PRIMARY", "REAL MAP")},
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
def test_the_words_of_image_type_name_components(words):
    volume = opened(made.grid({"ImageType": list(words.values())}))
    assert volume.component.values.tolist() == list(words)
    np.testing.assert_array_equal(volume.values, made.stamps((len(words), 3), 0))


def test_complex_image_component_names_components():
    volume = opened(made.grid({"ComplexImageComponent": ["MAGNITUDE", "PHASE", "REAL", "IMAGINARY"]}))
    assert volume.component.values.tolist() == ["magnitude", "phase", "real", "imaginary"]


def test_components_may_have_slopes_of_their_own():
    def each(index, _k):
        return {"RescaleSlope": (1.0, 0.25)[index[0]], "RescaleIntercept": (0.0, -180.0)[index[0]]}

    volume = opened(made.grid({"ImageType": list(PHILIPS.values())}, each=each))
    stored = made.stamps((2, 3), 0)
    np.testing.assert_array_equal(volume.values, np.stack([stored[0], stored[1] * 0.25 - 180]).astype("float32"))


# Several axes


TOGETHER = {
    "time and echo": {**at_times([0, 2]), "EchoTime": [4.6, 9.2]},
    "echo and component": {"EchoTime": [4.6, 9.2, 13.8], "ImageType": list(PHILIPS.values())},
    "time, echo and component": {**at_times([0, 2]), "EchoTime": [4.6, 9.2], "ImageType": list(PHILIPS.values())},
    "b-value and flip angle": {"DiffusionBValue": [0.0, 800.0], "FlipAngle": [5.0, 20.0]},
    "both phases": {
        "NominalPercentageOfCardiacPhase": [0.0, 50.0],
        "NominalPercentageOfRespiratoryPhase": [0.0, 33.0, 66.0],
    },
    "time by number, and b-value": {"TemporalPositionIdentifier": [1, 2, 3], "DiffusionBValue": [0.0, 800.0]},
    "cardiac phase in ms, and component": {"TriggerTime": [0.0, 40.0, 80.0], "ImageType": list(PHILIPS.values())},
}
NAMES = {
    "AcquisitionTime": "time",
    "TemporalPositionIdentifier": "time",
    "TriggerTime": "cardiac_phase",
    "NominalPercentageOfCardiacPhase": "cardiac_phase",
    "NominalPercentageOfRespiratoryPhase": "respiratory_phase",
    "EchoTime": "echo",
    "DiffusionBValue": "b_value",
    "FlipAngle": "flip_angle",
    "ImageType": "component",
}


@pytest.mark.parametrize("axes", TOGETHER.values(), ids=TOGETHER.keys())
@pytest.mark.parametrize("by_slice", [False, True], ids=["volume by volume", "slice by slice"])
def test_several_axes_open_in_their_order(axes, by_slice):
    volume = opened(made.grid(axes, by_slice=by_slice))
    assert volume.dims == (*(NAMES[k] for k in axes), "z", "y", "x")
    np.testing.assert_array_equal(volume.values, made.stamps((*map(len, axes.values()), 3), 0))


def test_the_order_of_axes_is_not_that_of_the_instance_numbers():
    volume = opened(made.grid({"ImageType": list(PHILIPS.values()), "EchoTime": [4.6, 9.2], **at_times([0, 2])}))
    assert volume.dims == ("time", "echo", "component", "z", "y", "x")
    np.testing.assert_array_equal(volume.values, made.stamps((2, 2, 2, 3), 0).transpose(2, 1, 0, 3, 4, 5))


def test_three_echoes_of_a_time_series_acquired_one_after_the_other():
    """Each image has a time of its own, so time counts ranks and the true times stand by image."""

    def each(index, k):
        return {"AcquisitionTime": clock(DAY + 2 * index[0] + 0.1 * k + 0.01 * index[1])}

    volume = opened(made.grid({"TemporalPositionIdentifier": [1, 2], "EchoTime": [4.6, 9.2, 13.8]}, each=each))
    assert volume.dims == ("time", "echo", "z", "y", "x")
    assert volume.acquisition_time.dims == ("time", "echo", "z")


# Values that agree in rank only


def cine(shift=7.0):
    """Return a cine whose trigger times differ from slice to slice."""
    return made.grid(
        {"TemporalPositionIdentifier": [1, 2, 3, 4]},
        each=lambda index, k: {"TriggerTime": 40.0 * index[0] + shift * k, "TemporalPositionIdentifier": None},
    )


def test_trigger_times_that_differ_between_slices_give_ranks():
    volume = opened(cine())
    assert volume.dims == ("cardiac_phase", "z", "y", "x")
    assert volume.cardiac_phase.values.tolist() == [0, 1, 2, 3]
    assert "units" not in volume.cardiac_phase.attrs
    np.testing.assert_array_equal(volume.values, made.stamps((4, 3), 0))


def test_trigger_times_that_differ_between_slices_are_kept_by_phase_and_slice():
    times = opened(cine()).trigger_time
    assert times.dims == ("cardiac_phase", "z")
    np.testing.assert_array_equal(times.values, 40.0 * np.arange(4)[:, np.newaxis] + 7.0 * np.arange(3))


def test_trigger_times_are_in_ms():
    assert opened(cine()).trigger_time.attrs["units"] == "ms"


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "AcquisitionNumber"])
def test_trigger_times_of_a_heart_beat_say_more_than_a_count(keyword):
    """Cines that count their images too are still cines."""

    def each(index, k):
        return {"TriggerTime": 40.0 * index[0] + 7.0 * k, "AcquisitionTime": clock(DAY + 11.0 * k)}

    volume = opened(made.grid({keyword: [1, 2, 3, 4]}, each=each))
    assert volume.dims == ("cardiac_phase", "z", "y", "x")


def test_trigger_times_that_are_mixed_between_slices_give_ranks():
    volume = opened(cine(shift=170.0))
    np.testing.assert_array_equal(volume.values, made.stamps((4, 3), 0))


def test_acquisition_times_that_differ_between_slices_give_ranks_and_the_true_times():
    def each(index, k):
        return {"AcquisitionTime": clock(DAY + 2.0 * index[0] + 0.5 * k)}

    volume = opened(made.grid({"TemporalPositionIdentifier": [1, 2, 3]}, each=each))
    assert volume.time.values.tolist() == [0, 1, 2]
    assert "units" not in volume.time.attrs
    assert volume.acquisition_time.dims == ("time", "z")
    np.testing.assert_allclose(volume.acquisition_time, 2.0 * np.arange(3)[:, np.newaxis] + 0.5 * np.arange(3))


def test_acquisition_times_alone_make_time():
    volume = opened(
        made.grid(
            {"RepetitionTime": [800.0, 800.0, 800.0]},
            each=lambda index, k: {"AcquisitionTime": clock(DAY + 2.0 * index[0] + 0.5 * k)},
        )
    )
    assert volume.dims == ("time", "z", "y", "x")
    np.testing.assert_array_equal(volume.values, made.stamps((3, 3), 0))


def test_interleaved_slices_keep_their_times():
    """Odd slices first: slice 1 of a time is acquired after slice 2 of it."""
    shift = (0.0, 1.0, 0.5)

    def each(index, k):
        return {"AcquisitionTime": clock(DAY + 1.5 * index[0] + shift[k])}

    volume = opened(made.grid({"RepetitionTime": [1500.0] * 4}, each=each))
    np.testing.assert_array_equal(volume.values, made.stamps((4, 3), 0))
    np.testing.assert_allclose(volume.acquisition_time, 1.5 * np.arange(4)[:, np.newaxis] + shift)


def test_acquisition_times_past_midnight_follow_each_other():
    times = [86398.0, 0.5, 3.0]
    volume = opened(made.grid({"AcquisitionTime": [clock(t) for t in times]}))
    assert volume.time.values.tolist() == [0, 2.5, 5]
    np.testing.assert_array_equal(volume.values, made.stamps((3, 3), 0))


def test_acquisition_times_by_image_follow_each_other_past_midnight():
    images = made.series(4, each=lambda k: {"AcquisitionTime": clock((86398.0 + k) % 86400)})
    assert opened(images).acquisition_time.values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("noise", [1e-4, 9e-4])
def test_values_that_differ_by_rounding_are_one(noise):
    images = made.grid({"EchoTime": [4.6, 9.2]}, each=lambda i, k: {"EchoTime": 4.6 * (i[0] + 1) + noise * (k == 1)})
    volume = opened(images)
    np.testing.assert_allclose(volume.echo, [4.6, 9.2])
    np.testing.assert_array_equal(volume.values, made.stamps((2, 3), 0))


def test_values_that_vary_together_are_one_axis():
    volume = opened(made.grid({"EchoTime": [4.6, 9.2]}, each=lambda i, _k: {"FlipAngle": 10.0 + i[0]}))
    assert volume.dims == ("echo", "z", "y", "x")


# Trigger times that are no heart


@pytest.mark.parametrize(
    ("step", "count", "known"),
    [
        (2000.0, 4, {}),
        (2000.0, 4, {"TemporalPositionIdentifier": range(1, 5)}),
        (2000.0, 2, {}),
        (250.0, 30, {}),
    ],
    ids=["2 s", "2 s, numbered", "2 s, twice", "a quarter of a second for 7.5 s"],
)
def test_trigger_times_since_the_start_are_time(step, count, known):
    """Some scanners write the time since the start into TriggerTime, and one acquisition time into every image."""
    axes = known or {"RepetitionTime": [step] * count}
    volume = opened(
        made.grid(axes, each=lambda index, k: {"TriggerTime": step * index[0] + 50.0 * k, "AcquisitionTime": "100000"})
    )
    assert volume.dims == ("time", "z", "y", "x")
    np.testing.assert_array_equal(volume.values, made.stamps((count, 3), 0))


# Incomplete grids


def holey(**values):
    images = made.grid({**at_times([0, 2, 4]), "EchoTime": [4.6, 9.2]}, **values)
    del images[10]
    return images


@pytest.fixture(scope="module")
def incomplete():
    return opened(holey())


def test_an_absent_image_is_nan(incomplete):
    expected = made.stamps((3, 2, 3), 0).astype(float)
    expected[1, 1, 1] = np.nan
    np.testing.assert_array_equal(incomplete.values, expected)


def test_an_incomplete_grid_is_float32(incomplete):
    assert incomplete.dtype == "float32"


def test_an_incomplete_grid_says_which_slice_lacks_how_many(incomplete):
    (found,) = lv.findings_of(incomplete)
    assert (found.code, found.slices, found.values) == ("incomplete-grid", (1,), (1, 18))


def test_an_absent_image_has_no_file(incomplete):
    assert incomplete.source.values[1, 1].tolist()[1] == ""


def test_a_fill_value_keeps_integers():
    volume = opened(holey(), fill_value=7)
    assert volume.dtype == "uint16"
    assert (volume.values[1, 1, 1] == 7).all()


def test_an_integer_dtype_cannot_hold_nan():
    with pytest.raises(PixelRangeError, match=r"1 absent image.*fill_value="):
        opened(holey(), dtype="int32")


def test_a_fill_value_that_the_dtype_cannot_hold_is_an_error():
    with pytest.raises(PixelRangeError, match="-1"):
        opened(holey(), fill_value=-1).compute()


def test_a_last_time_that_was_broken_off_is_filled():
    images = made.grid(at_times([0, 2, 4, 6]))[:-2]
    volume = opened(images)
    assert volume.dims == ("time", "z", "y", "x")
    assert np.isnan(volume.values[3, :, 0, 0]).tolist() == [False, True, True]


def uneven_echoes(counts):
    """Return echoes of three slices, so many of each."""
    images = made.grid({"EchoTime": [4.6, 9.2, 13.8]}, InstanceNumber=None)
    return [i for n, i in enumerate(images) if n // 3 < counts[n % 3]]


def test_a_grid_that_lacks_a_third_is_a_grid():
    volume = opened(uneven_echoes((3, 2, 1)))
    assert np.isnan(volume.values[:, :, 0, 0]).tolist() == [[False] * 3, [False, False, True], [False, True, True]]


def test_a_grid_that_lacks_more_than_a_third_is_no_grid():
    with pytest.raises(UnsupportedSeriesError, match="3 images share 1 position"):
        opened(uneven_echoes((3, 1, 1)))


def test_a_grid_that_lacks_more_than_a_third_opens_when_it_is_asked_for():
    volume = opened(uneven_echoes((3, 1, 1)), dims={"echo": "EchoTime"})
    assert np.isnan(volume.values[:, :, 0, 0]).sum(0).tolist() == [0, 2, 2]


# Diffusion


def test_one_b0_and_several_directions_are_times_with_the_b_values_beside():
    b = [0.0, 1000.0, 1000.0, 1000.0]
    volume = opened(made.grid({"DiffusionBValue": b}, each=lambda index, k: {"AcquisitionNumber": index[0] + 1}))
    assert volume.dims == ("time", "z", "y", "x")
    assert volume.diffusion_b_value.dims == ("time",)
    assert volume.diffusion_b_value.values.tolist() == b
    np.testing.assert_array_equal(volume.values, made.stamps((4, 3), 0))


@pytest.mark.parametrize("number", ["ascending", "random"])
def test_directions_that_only_instance_numbers_tell_apart_say_so(number):
    images = made.grid({"DiffusionBValue": [0.0, 1000.0, 1000.0]})
    if number == "random":
        for n, image in enumerate(images):
            image.InstanceNumber = (n // 3) * 100 + (n % 3 * 7) % 3
    volume = opened(images)
    assert made.codes(volume) == ["axis-from-instance-number"]
    np.testing.assert_array_equal(volume.values, made.stamps((3, 3), 0))


# Several ways to lay out the same images


def test_values_that_agree_between_positions_are_preferred_to_ranks():
    """Acquisition times differ between slices; the counts of the times do not."""

    def each(index, k):
        return {"AcquisitionTime": clock(DAY + 2.0 * index[0] + 0.5 * k)}

    axis = opened(made.grid({"TemporalPositionIdentifier": [3, 5, 9]}, each=each)).time
    assert axis.values.tolist() == [0, 1, 2]


def test_echo_numbers_that_agree_say_more_than_a_clock_that_does_not():
    def each(index, k):
        return {"AcquisitionTime": clock(DAY + 1.3 * k + 0.01 * index[0])}

    assert opened(made.grid({"EchoNumbers": [1, 2]}, each=each)).dims == ("echo", "z", "y", "x")


# Nothing but InstanceNumber, or nothing


def test_instance_numbers_are_the_last_resort_and_say_so():
    volume = opened(made.grid({"RepetitionTime": [800.0] * 3}))
    assert volume.dims == ("time", "z", "y", "x")
    assert made.codes(volume) == ["axis-from-instance-number"]
    np.testing.assert_array_equal(volume.values, made.stamps((3, 3), 0))


def test_any_other_value_is_preferred_to_instance_numbers():
    rng = np.random.default_rng(4)
    images = made.grid({"EchoTime": [4.6, 9.2, 13.8]})
    for image, number in zip(images, rng.permutation(len(images)), strict=True):
        image.InstanceNumber = int(number)
    np.testing.assert_array_equal(opened(images).values, made.stamps((3, 3), 0))


def test_instance_numbers_never_make_a_grid_with_holes():
    images = made.grid({"RepetitionTime": [9.0] * 3}, each=lambda index, _k: {"InstanceNumber": index[0] + 1})
    with pytest.raises(UnsupportedSeriesError, match="8 images share 3 positions"):
        opened(images[:-1])


def test_images_that_nothing_tells_apart_are_refused():
    with pytest.raises(UnsupportedSeriesError, match="6 images share 3 positions"):
        opened(made.grid({"RepetitionTime": [800.0] * 2}, each=lambda _i, _k: {"InstanceNumber": 1}))


def test_a_value_that_one_image_lacks_tells_nothing_apart():
    images = made.grid({"EchoTime": [4.6, 9.2], **at_times([0, 2])})
    del images[0].EchoTime
    with pytest.raises(UnsupportedSeriesError):
        opened([i for i in images if i.AcquisitionTime == images[0].AcquisitionTime][:5])


# What the caller asks for


def test_dims_name_the_axes_that_are_asked_for():
    images = made.grid({"EchoTime": [4.6, 9.2], "FlipAngle": [5.0]}, each=lambda i, _k: {"FlipAngle": 5.0 + i[0]})
    volume = opened(images, dims={"flip_angle": "FlipAngle"})
    assert volume.dims == ("flip_angle", "z", "y", "x")
    assert volume.flip_angle.values.tolist() == [5, 6]


def test_dims_may_give_a_name_of_ones_own():
    images = made.grid({"InversionTime": [100.0, 400.0, 1600.0]})
    volume = opened(images, dims={"inversion": "InversionTime"})
    assert volume.dims == ("inversion", "z", "y", "x")
    assert volume.inversion.values.tolist() == [100, 400, 1600]
    np.testing.assert_array_equal(volume.values, made.stamps((3, 3), 0))


def test_dims_may_name_several_axes():
    images = made.grid({**at_times([0, 2]), "EchoTime": [4.6, 9.2]})
    volume = opened(images, dims={"echo": "EchoTime", "time": "AcquisitionTime"})
    assert volume.dims == ("time", "echo", "z", "y", "x")
    assert volume.time.values.tolist() == [0, 2]
    np.testing.assert_array_equal(volume.values, made.stamps((2, 2, 3), 0))


def test_dims_that_do_not_tell_images_apart_are_an_error():
    images = made.grid({**at_times([0, 2]), "EchoTime": [4.6, 9.2]})
    with pytest.raises(UnsupportedSeriesError, match=r"EchoTime.*does not tell the images at each position apart"):
        opened(images, dims={"echo": "EchoTime"})


def test_dims_with_a_keyword_that_is_absent_say_which_there_are():
    images = made.grid({"EchoTime": [4.6, 9.2]})
    with pytest.raises(UnsupportedSeriesError, match=r"'EcoTime' for echo.*EchoTime"):
        opened(images, dims={"echo": "EcoTime"})


def test_dims_with_a_keyword_that_is_absent_are_an_error_for_a_plain_volume_too():
    with pytest.raises(UnsupportedSeriesError, match="'EcoTime'"):
        opened(made.series(3), dims={"echo": "EcoTime"})


def test_time_that_is_asked_for_has_the_values_asked_for():
    images = made.grid({"TriggerTime": [100.0, 2100.0, 4600.0]}, AcquisitionTime="100000")
    volume = opened(images, dims={"time": "TriggerTime"})
    assert (volume.time.values.tolist(), volume.time.attrs.get("units")) == ([0, 2, 4.5], "s")


def test_time_that_is_asked_for_by_a_count_is_in_s_where_the_headers_say_when():
    images = made.grid({"TemporalPositionIdentifier": [1, 2]}, each=lambda i, _k: {"FrameReferenceTime": 4e3 * i[0]})
    volume = opened(images, dims={"time": "TemporalPositionIdentifier"})
    assert (volume.time.values.tolist(), volume.time.attrs.get("units")) == ([0, 4], "s")


def test_axes_of_ones_own_come_first():
    images = made.grid({"EchoTime": [4.6, 9.2], "InversionTime": [100.0, 400.0]})
    volume = opened(images, dims={"echo": "EchoTime", "inversion": "InversionTime"})
    assert volume.dims == ("inversion", "echo", "z", "y", "x")
    np.testing.assert_array_equal(volume.values, made.stamps((2, 2, 3), 0).swapaxes(0, 1))


# Random grids

CHOICES = {
    "AcquisitionTime": st.lists(st.integers(0, 600), min_size=2, max_size=3, unique=True).map(
        lambda ts: [clock(DAY + t) for t in sorted(ts)]
    ),
    "NominalPercentageOfCardiacPhase": st.lists(st.integers(0, 99), min_size=2, max_size=3, unique=True).map(sorted),
    "NominalPercentageOfRespiratoryPhase": st.lists(st.integers(0, 99), min_size=2, max_size=2, unique=True).map(
        sorted
    ),
    "EchoTime": st.lists(st.integers(1, 900), min_size=2, max_size=3, unique=True).map(
        lambda v: [x / 10 for x in sorted(v)]
    ),
    "DiffusionBValue": st.lists(st.integers(0, 3000), min_size=2, max_size=3, unique=True).map(
        lambda v: [float(x) for x in sorted(v)]
    ),
    "FlipAngle": st.lists(st.integers(1, 90), min_size=2, max_size=2, unique=True).map(sorted),
    "ImageType": st.just(list(PHILIPS.values())),
}


@st.composite
def random_grids(draw):
    chosen = draw(st.lists(st.sampled_from(list(CHOICES)), min_size=1, max_size=3, unique=True))
    return {keyword: draw(CHOICES[keyword]) for keyword in CHOICES if keyword in chosen}


@settings(deadline=None, max_examples=40)
@given(random_grids(), st.integers(1, 2), st.randoms(use_true_random=False))
def test_any_grid_in_any_order_comes_back(axes, slices, shuffle):
    images = made.grid(axes, slices)
    numbers = list(range(len(images)))
    shuffle.shuffle(numbers)
    for image, number in zip(images, numbers, strict=True):
        image.InstanceNumber = number
    shuffle.shuffle(images)
    volume = lv.open_volume(images)
    assert volume.dims == (*(NAMES[k] for k in axes), "z", "y", "x")
    np.testing.assert_array_equal(volume.values, made.stamps((*map(len, axes.values()), slices), 0))


@settings(deadline=None, max_examples=25)
@given(random_grids(), st.data())
def test_any_image_that_a_grid_lacks_is_nan_and_nothing_else(axes, data):
    images = made.grid(axes, 3)
    lacking = data.draw(st.integers(0, len(images) - 1))
    del images[lacking]
    if len(images) < 8:  # the grid may be smaller without it
        return
    volume = lv.open_volume(data.draw(st.permutations(images)))
    expected = made.stamps((*map(len, axes.values()), 3), 0).astype(float)
    expected[np.unravel_index(lacking, expected.shape[:-2])] = np.nan
    np.testing.assert_array_equal(volume.values, expected)


# Laziness


@pytest.mark.parametrize("axes", TOGETHER.values(), ids=TOGETHER.keys())
def test_opening_reads_no_pixel(tmp_path, read, axes):
    made.write(tmp_path, made.grid(axes))
    volume = lv.open_volume(tmp_path)
    assert (volume.sizes["z"], read) == (3, [])


def test_one_image_of_a_grid_is_one_read(tmp_path, read):
    paths = made.write(tmp_path, made.grid(TOGETHER["time, echo and component"]))
    lv.open_volume(tmp_path).isel(time=1, echo=0, component=1, z=2).compute()
    assert read == [str(paths[((1 * 2 + 0) * 2 + 1) * 3 + 2])]


def test_an_absent_image_is_not_read(tmp_path, read):
    made.write(tmp_path, holey())
    lv.open_volume(tmp_path).isel(time=1, echo=1, z=1).compute()
    assert read == []
