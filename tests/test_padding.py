"""Padding: stored numbers that are no value become NaN, whatever their bits, sign and rescaling."""

from __future__ import annotations

import encoded_made as em
import kinds_made as km
import numpy as np
import pydicom
import pytest
import series_made as made
from encoded_made import Layout, write_encoded
from hypothesis import given
from hypothesis import strategies as st
from made import examples, instance
from pydicom.dataset import Dataset

import lazyvol as lv
from lazyvol.errors import PixelRangeError
from lazyvol.meaning import padding_of
from lazyvol.records import Slice

STORED = km.frames(3, "<i2", 10, 12) - 100
"""From -100 to 259."""


def written(folder, *, signed=True, padding=-50, limit=None, stored=STORED, each=lambda _k: {}, **values):
    """Write slices with padding of a VR that is that of their sign, and return their folder."""
    layout = {"PixelRepresentation": int(signed), "RescaleSlope": 1.0, "RescaleIntercept": 0.0}
    images = made.series(len(stored), each=lambda k: {"stored": stored[k]} | each(k), **(layout | values))
    for image in images:
        for tag, value in ((0x00280120, padding), (0x00280121, limit)):
            if value is not None and tag not in image:
                image.add_new(tag, "SS" if value < 0 else "US", value)
    made.write(folder / "series", images)
    return folder / "series"


def masked(low, high=None, stored=STORED):
    return np.where((stored >= low) & (stored <= (low if high is None else high)), np.nan, stored)


def test_the_padding_value_becomes_nan(tmp_path):
    volume = lv.open_volume(written(tmp_path), mask_padding=True)
    np.testing.assert_array_equal(volume, masked(-50))


@pytest.mark.parametrize("ends", [(-50, 20), (20, -50)], ids=["upwards", "downwards"])
def test_a_range_of_padding_becomes_nan_with_both_its_ends(ends, tmp_path):
    volume = lv.open_volume(written(tmp_path, padding=ends[0], limit=ends[1]), mask_padding=True)
    np.testing.assert_array_equal(volume, masked(-50, 20))


def test_padding_stays_where_it_is_not_masked(tmp_path):
    volume = lv.open_volume(written(tmp_path))
    np.testing.assert_array_equal(volume, STORED)
    assert volume.dtype == np.int16


def test_a_limit_without_a_value_is_no_padding(tmp_path):
    volume = lv.open_volume(written(tmp_path, padding=None, limit=20), mask_padding=True)
    np.testing.assert_array_equal(volume, STORED)


def test_images_without_padding_are_kept(tmp_path):
    volume = lv.open_volume(written(tmp_path, padding=None), mask_padding=True)
    np.testing.assert_array_equal(volume, STORED)


def test_padding_is_that_of_each_slice(tmp_path):
    folder = written(tmp_path, each=lambda k: {"PixelPaddingValue": 200 * k - 60})
    expected = np.stack([masked(200 * k - 60, stored=STORED[k]) for k in range(3)])
    np.testing.assert_array_equal(lv.open_volume(folder, mask_padding=True), expected)


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -1024.0), (0.5, 3.0), (-1.0, 0.0)], ids=str)
def test_padding_is_found_before_the_rescaling(slope, intercept, tmp_path):
    folder = written(tmp_path, padding=-50, limit=-40, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_array_equal(lv.open_volume(folder, mask_padding=True), masked(-50, -40) * slope + intercept)


def test_stored_numbers_lose_their_padding_too(tmp_path):
    volume = lv.open_volume(written(tmp_path, RescaleSlope=3.0), mask_padding=True, rescale=False)
    np.testing.assert_array_equal(volume, masked(-50))


def test_values_of_a_table_lose_their_padding_too(tmp_path):
    table = Dataset()
    table.add_new("LUTDescriptor", "SS", [400, -100, 16])
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "OW", (np.arange(400) * 3).astype("<u2").tobytes())
    folder = written(tmp_path, padding=-50, RescaleSlope=None, RescaleIntercept=None)
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        header.ModalityLUTSequence = [table]
        header.save_as(path)
    np.testing.assert_array_equal(lv.open_volume(folder, mask_padding=True), (masked(-50) + 100) * 3)


def test_a_part_of_a_masked_volume_is_that_part(tmp_path):
    volume = lv.open_volume(written(tmp_path, padding=-50, limit=20), mask_padding=True)
    part = volume.isel(z=[2, 0], y=slice(1, 7), x=[5, 3])
    np.testing.assert_array_equal(part, masked(-50, 20)[[2, 0], 1:7][..., [5, 3]])


@pytest.mark.parametrize("syntax", [em.LS, em.RLE, em.DEFLATED, em.BIG_ENDIAN, em.ENCAPSULATED])
def test_padding_is_found_in_every_syntax(syntax, tmp_path):
    layout = Layout(syntax, 12)
    stored = em.stored_for(layout)
    stored[0, 3] = 7
    path = write_encoded(tmp_path / "made.dcm", stored, layout, PixelPaddingValue=7)
    np.testing.assert_array_equal(lv.open_volume(path, mask_padding=True), np.where(stored == 7, np.nan, stored))


# Types


@pytest.mark.parametrize(("bits", "dtype"), [(16, "float32"), (32, "float64")])
def test_masked_values_have_the_floats_that_hold_them(bits, dtype, tmp_path):
    layout = Layout(em.EXPLICIT, bits)
    stored = em.stored_for(layout)
    path = write_encoded(tmp_path / "made.dcm", stored, layout, PixelPaddingValue=0)
    volume = lv.open_volume(path, mask_padding=True)
    expected = np.where(stored == 0, np.nan, stored.astype("f8")).astype(dtype)
    np.testing.assert_array_equal(volume.values, expected, strict=True)


def test_integers_cannot_hold_masked_padding(tmp_path):
    with pytest.raises(PixelRangeError, match="'int16' cannot hold NaN for padding"):
        lv.open_volume(written(tmp_path), mask_padding=True, dtype="int16")


def test_doubles_asked_for_are_kept(tmp_path):
    assert lv.open_volume(written(tmp_path), mask_padding=True, dtype="float64").dtype == np.float64


def test_colours_have_no_padding(tmp_path):
    layout = Layout(em.EXPLICIT, 8, photometric="RGB")
    stored = em.stored_for(layout)
    path = write_encoded(tmp_path / "made.dcm", stored, layout, PixelPaddingValue=0)
    volume = lv.open_volume(path, mask_padding=True)
    np.testing.assert_array_equal(volume.values, stored, strict=True)
    assert "padding_value" not in volume.attrs


# Bits and signs of the number


@pytest.mark.parametrize(
    ("bits", "signed", "said", "meant"),
    [
        (16, 1, 63536, -2000),
        (16, 1, -2000, -2000),
        (16, 0, 63536, 63536),
        (12, 1, 63536, -2000),
        (12, 1, -2000, -2000),
        (12, 1, 2048, -2048),
        (12, 1, 2047, 2047),
        (12, 0, 4095, 4095),
        (12, 0, 2048, 2048),
        (8, 1, 255, -1),
        (8, 0, 255, 255),
        (16, 1, 32768, -32768),
        (16, 1, 32767, 32767),
        (16, 0, 0, 0),
    ],
)
def test_padding_has_the_bits_and_the_sign_of_the_pixels(bits, signed, said, meant):
    made_of = instance(BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed, PixelPaddingValue=said)
    assert padding_of(Slice(made_of, made_of.frames[0])) == (meant, meant)


def test_a_range_written_without_sign_is_in_order():
    made_of = instance(
        BitsStored=16, HighBit=15, PixelRepresentation=1, PixelPaddingValue=63536, PixelPaddingRangeLimit=10
    )
    assert padding_of(Slice(made_of, made_of.frames[0])) == (-2000, 10)


@pytest.mark.parametrize("said", [63536, -2000], ids=str)
@pytest.mark.parametrize("bits", [12, 16])
def test_minus_2000_is_found_however_it_is_written(said, bits, tmp_path):
    stored = STORED.copy()
    stored[:, :2] = -2000
    layout = Layout(em.EXPLICIT, bits, signed=True)
    elements = pydicom.DataElement(0x00280120, "US" if said > 0 else "SS", said)
    path = write_encoded(tmp_path / "made.dcm", stored[:1], layout)
    header = pydicom.dcmread(path)
    header.add(elements)
    header.save_as(path)
    volume = lv.open_volume(path, mask_padding=True)
    np.testing.assert_array_equal(volume, masked(-2000, stored=stored[:1]))


@given(st.integers(2, 16), st.booleans(), st.data())
@examples(60)
def test_any_stored_number_can_be_padding(bits, signed, data):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    number = data.draw(st.integers(low, high))
    said = data.draw(st.sampled_from([number, number % (1 << 16)]))
    made_of = instance(
        BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed), PixelPaddingValue=said, RescaleSlope=2.0
    )
    assert padding_of(Slice(made_of, made_of.frames[0])) == (number, number)


# Floating point pixels


def float_file(folder, values, **padding):
    path = folder / "made.dcm"
    dataset = km.map_of(km.ct_images(3), values)
    for keyword, value in padding.items():
        setattr(dataset, keyword, value)
    km.save(path, dataset)
    return path


@pytest.mark.parametrize(("kind", "prefix"), [("f4", "Float"), ("f8", "DoubleFloat")])
def test_floating_point_pixels_have_padding_of_their_own(kind, prefix, tmp_path):
    values = np.random.default_rng(3).normal(size=(3, km.ROWS, km.COLUMNS)).astype(kind)
    values[:, 1] = -1e4
    values[:, 2] = -9999.5
    path = float_file(tmp_path, values, **{f"{prefix}PixelPaddingValue": -1e4})
    found = lv.open_volume(path, mask_padding=True).values
    np.testing.assert_array_equal(found, np.where(values == -1e4, np.nan, values).astype(kind), strict=True)


@pytest.mark.parametrize(("kind", "prefix"), [("f4", "Float"), ("f8", "DoubleFloat")])
def test_floating_point_pixels_have_a_range_of_padding(kind, prefix, tmp_path):
    values = np.random.default_rng(3).normal(size=(3, km.ROWS, km.COLUMNS)).astype(kind)
    said = {f"{prefix}PixelPaddingValue": -0.5, f"{prefix}PixelPaddingRangeLimit": 0.5}
    found = lv.open_volume(float_file(tmp_path, values, **said), mask_padding=True).values
    np.testing.assert_array_equal(found, np.where(np.abs(values) <= 0.5, np.nan, values).astype(kind))


# What the volume says


def test_the_padding_value_is_among_the_attributes(tmp_path):
    assert lv.open_volume(written(tmp_path)).attrs["padding_value"] == -50


def test_the_padding_value_of_the_attributes_is_a_value(tmp_path):
    attrs = lv.open_volume(written(tmp_path, RescaleSlope=2.0, RescaleIntercept=-1024.0)).attrs
    assert attrs["padding_value"] == -1124


def test_the_padding_value_of_stored_numbers_is_a_stored_number(tmp_path):
    folder = written(tmp_path, RescaleSlope=2.0, RescaleIntercept=-1024.0)
    assert lv.open_volume(folder, rescale=False).attrs["padding_value"] == -50


@pytest.mark.parametrize("slope", [2.0, -2.0], ids=str)
def test_the_range_of_padding_is_in_ascending_order(slope, tmp_path):
    folder = written(tmp_path, padding=-50, limit=20, RescaleSlope=slope, RescaleIntercept=1.0)
    attrs = lv.open_volume(folder).attrs
    assert attrs["padding_range"] == sorted([-50 * slope + 1, 20 * slope + 1])
    assert "padding_value" not in attrs


@pytest.mark.parametrize("limit", [None, -50], ids=["none", "of one number"])
def test_a_range_of_one_number_is_a_value(limit, tmp_path):
    attrs = lv.open_volume(written(tmp_path, limit=limit)).attrs
    assert (attrs["padding_value"], "padding_range" in attrs) == (-50, False)


def test_whole_padding_is_an_integer(tmp_path):
    assert type(lv.open_volume(written(tmp_path)).attrs["padding_value"]) is int


def test_padding_that_is_no_whole_number_is_a_float(tmp_path):
    assert lv.open_volume(written(tmp_path, padding=-51, RescaleSlope=0.5)).attrs["padding_value"] == -25.5


@pytest.mark.parametrize(
    "each",
    [lambda k: {"RescaleSlope": 1.0 + k}, lambda k: {"PixelPaddingValue": -k - 1}],
    ids=["slopes", "stored numbers"],
)
def test_padding_that_varies_is_not_among_the_attributes(each, tmp_path):
    attrs = lv.open_volume(written(tmp_path, each=each)).attrs
    assert not {"padding_value", "padding_range"} & set(attrs)


def test_images_without_padding_say_none(tmp_path):
    attrs = lv.open_volume(written(tmp_path, padding=None)).attrs
    assert not {"padding_value", "padding_range"} & set(attrs)


# Elsewhere


def test_masked_padding_comes_back_from_a_store(tmp_path):
    volume = lv.open_volume(written(tmp_path), mask_padding=True)
    lv.save_zarr(volume, tmp_path / "a.zarr")
    found = lv.open_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(found.values, masked(-50).astype("f4"), strict=True)


def test_masked_and_plain_volumes_have_names_of_their_own_in_dask(tmp_path):
    folder = written(tmp_path)
    assert lv.open_volume(folder).data.name != lv.open_volume(folder, mask_padding=True).data.name


def test_padding_of_another_kind_of_pixels_is_not_taken():
    made_of = instance(PixelPaddingValue=None)
    floats = made_of._replace(values=(("FloatPixelPaddingValue", "low"),))
    assert padding_of(Slice(floats, floats.frames[0])) is None
