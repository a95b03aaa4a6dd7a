"""Which values a volume has: rescaled, stored, of the real world, or the floating point values of Philips."""

from __future__ import annotations

import pickle
from pathlib import Path

import enhanced_made as em
import kinds_made as km
import numpy as np
import pydicom
import pytest
import series_made as made
from kinds_made import reads  # noqa: F401  # a fixture
from pydicom.dataset import Dataset

import lazyvol as lv
from lazyvol.errors import OptionError, PixelRangeError, UnsupportedSeriesError

COUNT = 4
STORED = km.frames(COUNT, "<u2", made.ROWS, made.COLUMNS)
"""Stored number n stands at place n of the volume."""
SCALE_SLOPE = 0.125


def mapping(*, first=None, last=None, table=None, slope=None, intercept=0.0, unit="ms", signed=False, double=False):
    """Return an item of RealWorldValueMappingSequence (DICOM PS3.3 C.7.6.16.2.11)."""
    item = Dataset()
    ends = {"First": first, "Last": last}
    for end, value in ends.items():
        if value is not None and double:
            setattr(item, f"DoubleFloatRealWorldValue{end}ValueMapped", float(value))
        elif value is not None:
            tag = pydicom.datadict.tag_for_keyword(f"RealWorldValue{end}ValueMapped")
            item.add_new(tag, "SS" if signed else "US", value)
    if table is not None:
        item.RealWorldValueLUTData = list(map(float, table))
    if slope is not None:
        item.RealWorldValueSlope = slope
    if intercept is not None:
        item.RealWorldValueIntercept = intercept
    if unit:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", "made"
        item.MeasurementUnitsCodeSequence = [code]
    item.LUTLabel = "T2"
    return item


def mr_series(items=(), *, scale_slope=None, stored=STORED, **values):
    """Return MR slices; items hold the mapping of each, or one for all, None for no mapping."""
    images = made.series(len(stored), each=lambda k: {"stored": stored[k]}, **(made.AS_MR | values))
    for k, image in enumerate(images):
        item = items[k] if isinstance(items, list) else items
        if item:
            image.RealWorldValueMappingSequence = [item]
        if scale_slope is not None:
            block = image.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
            block.add_new(0x0E, "FL", scale_slope)
    return images


def functional(images, item=None, *, scale_slope=None, each=False):
    """Return the multi-frame file of some images, with a mapping or the scale of Philips in its groups."""
    file = em.enhanced(images)
    holders = file.PerFrameFunctionalGroupsSequence if each else file.SharedFunctionalGroupsSequence
    for group in holders:
        if item:
            group.RealWorldValueMappingSequence = [item]
        if scale_slope is not None:
            inner = Dataset()
            inner.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", scale_slope)
            group.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
            group.add_new(0x2005140F, "SQ", [inner])
    return file


@pytest.fixture(params=[made.EXPLICIT, made.IMPLICIT, made.BIG_ENDIAN], ids=["explicit", "implicit", "big endian"])
def syntax(request):
    return request.param


@pytest.fixture(params=["classic", "shared group", "group of each frame"])
def opened(request, tmp_path):
    """A function that opens the volume of a mapping, which stands in one of three places."""

    def opened(item, *, values="real_world", stored=STORED, syntax=made.EXPLICIT, open_options=None, **said):
        images = mr_series(item if request.param == "classic" else (), stored=stored, **said)
        if request.param != "classic":
            images = [functional(images, item, each=request.param != "shared group")]
        made.write(tmp_path / "series", images, syntax=syntax)
        return lv.open_volume(tmp_path / "series", values=values, **(open_options or {}))

    return opened


# Linear mappings


def test_real_world_values_are_slope_and_intercept_of_the_mapping(opened, syntax):
    volume = opened(mapping(slope=0.25, intercept=-3.5), syntax=syntax)
    np.testing.assert_array_equal(volume, STORED * 0.25 - 3.5)


def test_a_slope_without_intercept_is_no_mapping(opened):
    with pytest.raises(UnsupportedSeriesError, match="RealWorldValueMappingSequence with slope and intercept"):
        opened(mapping(slope=0.25, intercept=None))


def test_a_mapping_takes_the_place_of_the_rescaling(opened):
    volume = opened(mapping(slope=0.25, intercept=1.0), RescaleSlope=3.0, RescaleIntercept=-7.0)
    np.testing.assert_array_equal(volume, STORED * 0.25 + 1)


def test_a_whole_slope_gives_integers(opened):
    assert opened(mapping(slope=2.0, intercept=0.0)).dtype.kind in "iu"


def test_rescaled_values_pass_by_the_mapping(opened):
    volume = opened(mapping(slope=0.25), values="rescaled", RescaleSlope=3.0, RescaleIntercept=-7.0)
    np.testing.assert_array_equal(volume, STORED * 3.0 - 7)


def test_numbers_beyond_the_mapping_have_no_value(opened, syntax):
    volume = opened(mapping(first=100, last=900, slope=2.0), syntax=syntax)
    np.testing.assert_array_equal(volume, np.where((STORED >= 100) & (STORED <= 900), STORED * 2.0, np.nan))


@pytest.mark.parametrize("double", [False, True], ids=["US or SS", "double"])
def test_the_ends_of_a_mapping_may_be_doubles(opened, double):
    volume = opened(mapping(first=100, last=900, slope=2.0, double=double))
    assert np.isnan(volume.values.ravel()[[99, 901]]).all()
    assert volume.values.ravel()[[100, 900]].tolist() == [200, 1800]


@pytest.mark.parametrize("ends", [{"first": 100}, {"last": 900}], ids=str)
def test_one_end_alone_limits_nothing(opened, ends):
    assert not np.isnan(opened(mapping(slope=0.5, **ends))).any()


def test_the_ends_of_a_mapping_are_signed_as_the_pixels_are(opened):
    stored = STORED.astype("<i2") - 1000
    volume = opened(
        mapping(first=-500, last=-1, slope=0.5, signed=True), stored=stored, PixelRepresentation=1, syntax=made.IMPLICIT
    )
    np.testing.assert_array_equal(volume, np.where((stored >= -500) & (stored <= -1), stored * 0.5, np.nan))


def test_integers_cannot_hold_numbers_that_have_no_value(opened):
    with pytest.raises(PixelRangeError, match="'int32' cannot hold NaN for stored numbers that the mapping does not"):
        opened(mapping(first=100, last=900, slope=2.0), open_options={"dtype": "int32"})


def test_wide_numbers_with_limits_keep_every_bit(tmp_path):
    stored = np.array([[[2**24 + 1, 2**31 - 1]]], "<u4")
    images = mr_series(mapping(first=0, last=0, slope=1.0), stored=stored, BitsAllocated=32, BitsStored=32, HighBit=31)
    item = images[0].RealWorldValueMappingSequence[0]
    del item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped
    item.DoubleFloatRealWorldValueFirstValueMapped = 0.0
    item.DoubleFloatRealWorldValueLastValueMapped = 2.0**32
    (path,) = made.write(tmp_path, images)
    volume = lv.open_volume(path, values="real_world")
    np.testing.assert_array_equal(volume.values, stored.astype("f8"), strict=True)


# Tables


def test_a_table_maps_the_numbers_from_the_first_to_the_last(opened, syntax):
    table = np.random.default_rng(1).normal(size=801)
    volume = opened(mapping(first=100, last=900, table=table), syntax=syntax)
    expected = np.full(STORED.shape, np.nan)
    within = (STORED >= 100) & (STORED <= 900)
    expected[within] = table[STORED[within].astype(int) - 100]
    np.testing.assert_array_equal(volume, expected.astype("f4"))


def test_a_table_of_negative_numbers_begins_below_0(opened):
    stored = STORED.astype("<i2") - 1000
    table = np.arange(20) * 0.5
    volume = opened(
        mapping(first=-10, last=9, table=table, signed=True), stored=stored, PixelRepresentation=1, syntax=made.IMPLICIT
    )
    within = (stored >= -10) & (stored <= 9)
    np.testing.assert_array_equal(volume.values[within], table[stored[within] + 10])


def test_a_table_is_taken_before_a_slope(opened):
    volume = opened(mapping(first=0, last=2, table=[5.5, 6.5, 7.5], slope=100.0))
    assert volume.values.ravel()[:3].tolist() == [5.5, 6.5, 7.5]


def test_a_table_that_is_shorter_than_its_range_is_no_mapping(opened):
    with pytest.raises(UnsupportedSeriesError, match="an entry for each number it maps"):
        opened(mapping(first=10, last=20, table=[5.5, 6.5, 7.5]))


def test_a_table_without_its_ends_is_no_mapping(opened):
    with pytest.raises(UnsupportedSeriesError, match="RealWorldValueMappingSequence with slope and intercept, or"):
        opened(mapping(table=[1.5, 2.5]))


def test_the_first_mapping_is_used(tmp_path):
    images = mr_series(mapping(slope=0.5, unit="ms"))
    for image in images:
        image.RealWorldValueMappingSequence.append(mapping(slope=9.0, unit="s"))
    made.write(tmp_path / "series", images)
    volume = lv.open_volume(tmp_path / "series", values="real_world")
    assert (volume.values.ravel()[2], volume.attrs["units"]) == (1.0, "ms")


# What they are called


def test_units_are_those_of_the_mapping(opened):
    assert opened(mapping(slope=0.5, unit="mm2/s")).attrs["units"] == "mm2/s"


def test_a_mapping_without_units_has_none(opened):
    assert "units" not in opened(mapping(slope=0.5, unit="")).attrs


def test_values_are_called_by_the_label_of_the_mapping(opened):
    assert opened(mapping(slope=0.5)).attrs["long_name"] == "T2"


def test_rescaled_values_do_not_have_the_units_of_the_mapping(opened):
    attrs = opened(mapping(slope=0.5, unit="ms"), values="rescaled").attrs
    assert (attrs["long_name"], attrs.get("units")) == ("MR signal", None)


@pytest.mark.parametrize(("values", "kept"), [("rescaled", True), ("real_world", False)])
def test_windows_are_for_rescaled_values_only(opened, values, kept):
    attrs = opened(mapping(slope=0.5), values=values, WindowCenter=100.0, WindowWidth=50.0).attrs
    assert ("WindowCenter" in attrs) is kept


@pytest.mark.parametrize(("values", "kept"), [("rescaled", True), ("real_world", False)])
def test_windows_that_vary_are_for_rescaled_values_only(values, kept, tmp_path):
    images = mr_series(mapping(slope=0.5))
    for k, image in enumerate(images):
        image.WindowCenter, image.WindowWidth = str(100 + k), "50"
    made.write(tmp_path / "series", images)
    assert ("window_center" in lv.open_volume(tmp_path / "series", values=values).coords) is kept


# Images that lack it


def test_the_images_that_lack_a_mapping_are_counted_and_the_first_is_named(tmp_path):
    paths = made.write(tmp_path / "series", mr_series([mapping(slope=0.5), None, mapping(slope=0.5), None]))
    with pytest.raises(UnsupportedSeriesError, match=rf"which 2 of 4 images lack, the first of .*{paths[1].name}"):
        lv.open_volume(tmp_path / "series", values="real_world")


def test_a_slope_of_0_is_no_mapping(opened):
    with pytest.raises(UnsupportedSeriesError, match="lack"):
        opened(mapping(slope=0.0))


# Stored numbers


def test_stored_numbers_have_neither_slope_nor_units(tmp_path):
    made.write(tmp_path / "series", made.series(COUNT, each=lambda k: {"stored": STORED[k]}, RescaleType="HU"))
    volume = lv.open_volume(tmp_path / "series", rescale=False)
    np.testing.assert_array_equal(volume.values, STORED.astype("u2"), strict=True)
    assert (volume.attrs["long_name"], "units" in volume.attrs) == ("stored number", False)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_stored_numbers_keep_their_sign_in_the_smallest_type(bits, signed, tmp_path):
    layout = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed)}
    paths = made.write(tmp_path / "series", made.series(1, stored=STORED[0] % 100, **layout))
    size = 8 if bits == 8 else 16
    assert lv.open_volume(paths[0], rescale=False).dtype == np.dtype(f"{'' if signed else 'u'}int{size}")


def test_stored_numbers_have_no_windows(tmp_path):
    made.write(tmp_path / "series", made.series(COUNT, WindowCenter=40.0, WindowWidth=400.0))
    assert "WindowWidth" not in lv.open_volume(tmp_path / "series", rescale=False).attrs


def test_stored_numbers_ignore_the_limits_of_a_map(opened):
    volume = opened(mapping(first=100, last=900, slope=0.5), values="rescaled", open_options={"rescale": False})
    np.testing.assert_array_equal(volume.values, STORED, strict=True)


# Options


@pytest.mark.parametrize("values", ["real_world", "philips_fp"])
def test_stored_numbers_and_other_values_exclude_each_other(values, tmp_path):
    made.write(tmp_path / "series", mr_series())
    with pytest.raises(OptionError, match=r"rescale=False and values=.* do not go together"):
        lv.open_volume(tmp_path / "series", rescale=False, values=values)


def test_other_values_are_not_known(tmp_path):
    made.write(tmp_path / "series", mr_series())
    with pytest.raises(
        OptionError, match=r"values='hounsfield' is not known; .* 'rescaled', 'real_world', 'philips_fp'"
    ):
        lv.open_volume(tmp_path / "series", values="hounsfield")


def test_rescale_is_a_truth_value(tmp_path):
    made.write(tmp_path / "series", mr_series())
    with pytest.raises(OptionError, match=r"rescale='no' and values=.* do not go together"):
        lv.open_volume(tmp_path / "series", rescale="no")


# Philips


def philips_expected(slope, intercept):
    """(stored * RS + RI) / (RS * SS)."""
    return (STORED * slope + intercept) / (slope * SCALE_SLOPE)


@pytest.mark.parametrize(("slope", "intercept"), [(1.5, -6.0), (None, None), (2.0, 0.0)], ids=str)
def test_floating_point_values_of_philips_undo_the_rescaling(slope, intercept, syntax, tmp_path):
    images = mr_series(scale_slope=SCALE_SLOPE, RescaleSlope=slope, RescaleIntercept=intercept)
    made.write(tmp_path / "series", images, syntax=syntax)
    volume = lv.open_volume(tmp_path / "series", values="philips_fp")
    np.testing.assert_allclose(volume, philips_expected(slope or 1.0, intercept or 0.0), rtol=1e-6)


@pytest.mark.parametrize("each", [False, True], ids=["shared", "of each frame"])
def test_the_scale_of_philips_may_stand_in_functional_groups(each, tmp_path):
    images = mr_series(RescaleSlope=1.5, RescaleIntercept=-6.0)
    paths = made.write(tmp_path, [functional(images, scale_slope=SCALE_SLOPE, each=each)])
    volume = lv.open_volume(paths[0], values="philips_fp")
    np.testing.assert_allclose(volume, philips_expected(1.5, -6.0), rtol=1e-6)


@pytest.mark.parametrize("scale_slope", [None, 0.0], ids=["absent", "0"])
def test_series_without_the_scale_of_philips_are_refused(scale_slope, tmp_path):
    made.write(tmp_path / "series", mr_series(scale_slope=scale_slope))
    with pytest.raises(
        UnsupportedSeriesError, match=r"the private scale slope of Philips .*, which 4 of 4 images lack"
    ):
        lv.open_volume(tmp_path / "series", values="philips_fp")


def test_floating_point_values_of_philips_say_what_they_are(tmp_path):
    made.write(tmp_path / "series", mr_series(scale_slope=SCALE_SLOPE, RescaleType="US"))
    attrs = lv.open_volume(tmp_path / "series", values="philips_fp").attrs
    assert (attrs["long_name"], "units" in attrs) == ("MR signal, floating point", False)


# Costs


@pytest.mark.parametrize(
    "options",
    [{"values": "real_world"}, {"values": "philips_fp"}, {"rescale": False}, {"mask_padding": True}],
    ids=str,
)
def test_other_values_read_no_more_bytes_than_the_rescaled(options, tmp_path, reads):  # noqa: F811
    item = mapping(first=100, last=900, table=np.arange(801.0))
    made.write(tmp_path / "series", mr_series(item, scale_slope=SCALE_SLOPE, PixelPaddingValue=0))
    lv.open_volume(tmp_path / "series").isel(z=2, y=slice(3, 5)).compute()
    plain, reads.ranges[:] = list(reads.ranges), []
    lv.open_volume(tmp_path / "series", **options).isel(z=2, y=slice(3, 5)).compute()
    assert reads.ranges == plain


def pickled_size(folder, count, varying, **options):
    table = np.random.default_rng(2).normal(size=4000)
    stored = np.zeros((count, 2, 2), "<u2")
    images = mr_series(mapping(first=0, last=3999, table=table), stored=stored)
    for k, image in enumerate(images):
        if varying:
            image.RescaleSlope, image.RescaleIntercept = str(k + 1), "0"
    made.write(folder, images)
    return len(pickle.dumps(lv.open_volume(folder, chunks=None, **options).variable))


@pytest.mark.parametrize("varying", [False, True], ids=["alike", "of varying slope"])
def test_a_table_that_slices_share_is_pickled_once(varying, tmp_path):
    few = pickled_size(tmp_path / "few", 2, varying, values="real_world")
    many = pickled_size(tmp_path / "many", 12, varying, values="real_world")
    assert many - few < 4000 * 8


# Stores


def test_values_that_are_absent_come_back_from_a_store(tmp_path):
    made.write(tmp_path / "series", mr_series(mapping(first=100, last=900, slope=0.5)))
    volume = lv.open_volume(tmp_path / "series", values="real_world")
    lv.save_zarr(volume, tmp_path / "a.zarr")
    found = lv.open_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(found.values, volume.values, strict=True)
    assert (found.dtype, bool(np.isnan(found).any())) == (np.float32, True)


@pytest.mark.parametrize("options", [{}, {"rescale": False}, {"mask_padding": True}, {"values": "philips_fp"}], ids=str)
def test_each_kind_of_values_has_a_name_of_its_own_in_dask(options, tmp_path):
    made.write(tmp_path / "series", mr_series(mapping(slope=0.5), scale_slope=SCALE_SLOPE, PixelPaddingValue=0))
    names = [lv.open_volume(tmp_path / "series", **o).data.name for o in ({"values": "real_world"}, options, options)]
    assert (names[0] == names[1], names[1] == names[2]) == (False, True)


# Real series


def arithmetic(folder, values):
    """Return the values of each slice by its UID, from pydicom's header and plain arithmetic."""
    found = {}
    for path in Path(folder).iterdir():
        header = pydicom.dcmread(path)
        stored = header.pixel_array.astype(float)
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        if values == "philips_fp":
            found[header.SOPInstanceUID] = (stored * slope + intercept) / (slope * header[0x2005, 0x100E].value)
        else:
            item = header.RealWorldValueMappingSequence[0]
            found[header.SOPInstanceUID] = stored * item.RealWorldValueSlope + item.RealWorldValueIntercept
    return found


@pytest.mark.parametrize(
    ("folder", "values"),
    [
        ("mr_philips_mag_phase/In/Ph/1301_Dual-echo_iso", "philips_fp"),
        ("mr_fmri_4_times/dicoms", "philips_fp"),
        ("mr_fmri_4_times/dicoms", "real_world"),
    ],
)
def test_real_series_have_the_values_of_plain_arithmetic(folder, values, real_data):
    expected = arithmetic(real_data / folder, values)
    volume = lv.open_volume(real_data / folder, values=values)
    uids = volume.sop_instance_uid.broadcast_like(volume.isel(y=0, x=0)).transpose(*volume.dims[:-2]).values
    for place in np.ndindex(uids.shape):
        np.testing.assert_allclose(volume[place].values, expected[str(uids[place])], rtol=1e-6)


def test_the_frames_of_a_real_philips_file_have_the_values_of_plain_arithmetic(real_data):
    path = next((real_data / "edge_dicom2nifti/philips_enhanced/fmri/001").iterdir())
    header = pydicom.dcmread(path)
    groups = header.PerFrameFunctionalGroupsSequence
    transforms = [g.PixelValueTransformationSequence[0] for g in groups]
    scales = [g[0x2005, 0x140F].value[0][0x2005, 0x100E].value for g in groups]
    expected = {
        (made_of.tobytes()): (made_of * float(t.RescaleSlope) + float(t.RescaleIntercept)) / (float(t.RescaleSlope) * s)
        for made_of, t, s in zip(header.pixel_array, transforms, scales, strict=True)
    }
    stored = lv.open_volume(path, rescale=False).values.reshape(len(groups), *header.pixel_array.shape[1:])
    found = lv.open_volume(path, values="philips_fp").values.reshape(stored.shape)
    for numbers, values in zip(stored, found, strict=True):
        np.testing.assert_allclose(values, expected[numbers.astype(header.pixel_array.dtype).tobytes()], rtol=1e-6)
