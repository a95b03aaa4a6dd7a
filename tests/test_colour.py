"""Volumes in colour under what is done to any volume; headers of colour and of tables that contradict themselves."""

from __future__ import annotations

import pickle

import encoded_made as em
import h5netcdf  # noqa: F401  # what to_netcdf writes with
import made
import numpy as np
import pydicom
import pytest
import xarray as xr
import zarr
from encoded_made import Layout, colours_of, palette, rgb_of, stored_for, write_encoded, ybr_of
from pydicom.dataset import Dataset

import lazyvol as lv
from lazyvol import errors, rows

RGB, BY_PLANE, RGB_16 = (Layout(em.EXPLICIT, n, photometric="RGB", planar=p) for n, p in ((8, 0), (8, 1), (16, 0)))
PALETTE, YBR = Layout(em.EXPLICIT, 8, photometric="PALETTE COLOR"), Layout(em.EXPLICIT, 8, photometric="YBR_FULL")
GREY, DARK = Layout(em.EXPLICIT, 8), Layout(em.EXPLICIT, 8, photometric="MONOCHROME1")
ENTRIES = np.random.default_rng(1).integers(0, 256, (3, 256)).astype("u2")
COLOURS = palette(ENTRIES, 0, 8)
SHAPE = (1, 12, 14)


def place(k, *, drift=0.0, **others):
    """Return the elements that put an image at slice k, 5 mm apart."""
    return {
        "SOPInstanceUID": f"1.2.3.4.{k + 1}",
        "InstanceNumber": k + 1,
        "ImagePositionPatient": [0.0, drift * k, 5.0 * k],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.8, 0.6],
        "FrameOfReferenceUID": "1.2.9",
    } | others


@pytest.fixture
def folder_of(tmp_path):
    """Return what writes images, each a layout and elements, as slices of a folder; and their stored numbers."""

    def write(images, *, name="series", **shared):
        folder = tmp_path / name
        folder.mkdir()
        written = []
        for k, (layout, elements) in enumerate(images):
            size = SHAPE if layout.is_grey else (*SHAPE, 3)
            stored = np.random.default_rng(k).integers(0, 2**layout.bits_stored, size).astype(layout.dtype)
            write_encoded(folder / f"{k}.dcm", stored, layout, **(place(k, **shared) | elements))
            written.append(stored[0])
        return folder, written

    return write


def of_colour(layout):
    return [(layout, COLOURS if layout is PALETTE else {})] * 3


def meaning(layout, written):
    if layout is PALETTE:
        return colours_of(np.stack(written), ENTRIES, 0)
    return rgb_of(np.stack(written)) if layout is YBR else np.stack(written)


@pytest.fixture(params=[RGB, BY_PLANE, RGB_16, PALETTE], ids=["RGB", "by plane", "16 bits", "palette"])
def series(request, folder_of):
    """Return the folder of three slices in colour, and their colours."""
    folder, written = folder_of(of_colour(request.param))
    return folder, meaning(request.param, written)


PARTS = {
    "one sample": {"sample": 1},
    "samples in another order": {"sample": [2, 0]},
    "samples backwards": {"sample": slice(None, None, -1)},
    "a row": {"y": 3},
    "rows backwards of a sample": {"y": slice(9, 2, -2), "sample": 2},
    "columns, one twice": {"x": [3, 3, 1], "z": -1},
    "nothing": {"x": [], "sample": 0},
}


@pytest.mark.parametrize("chunks", ["auto", None, 1, {"y": 4}, {"sample": 1}], ids=str)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_of_a_colour_volume_is_that_part_of_its_values(series, part, chunks):
    folder, colours = series
    whole = lv.open_volume(folder)
    found = lv.open_volume(folder, chunks=chunks).isel(part)
    np.testing.assert_array_equal(found, whole.copy(data=colours).isel(part))


def test_samples_are_selected_by_name(series):
    folder, colours = series
    np.testing.assert_array_equal(lv.open_volume(folder).sel(sample="G"), colours[..., 1])


def test_the_engine_of_xarray_opens_the_same_colours(series):
    folder, colours = series
    with xr.open_dataset(folder, engine="lazyvol", chunks={}) as dataset:
        np.testing.assert_array_equal(dataset.image, colours)


def test_a_colour_volume_comes_back_from_a_pickle(series):
    folder, colours = series
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lv.open_volume(folder))), colours)


def test_a_colour_volume_comes_back_from_a_store(series, tmp_path):
    volume = lv.open_volume(series[0])
    lv.save_zarr(volume, tmp_path / "made.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "made.zarr"), volume.drop_vars("source"))


def test_plain_zarr_reads_the_colours_of_a_store(series, tmp_path):
    folder, colours = series
    lv.save_zarr(lv.open_volume(folder), tmp_path / "made.zarr")
    found = zarr.open_array(tmp_path / "made.zarr" / "scale0" / "image", mode="r")[:]
    np.testing.assert_array_equal(np.moveaxis(found, 0, -1), colours)  # a channel stands before z


def test_a_colour_volume_comes_back_from_netcdf(series, tmp_path):
    volume = lv.open_volume(series[0])
    volume.to_netcdf(tmp_path / "made.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "made.nc", engine="h5netcdf") as found:
        np.testing.assert_array_equal(found, volume)
        assert lv.geometry_of(found) == lv.geometry_of(volume)
        assert found.sample.values.tolist() == ["R", "G", "B"]


@pytest.mark.parametrize(("layout", "reads"), [(RGB, 1), (BY_PLANE, 3)], ids=["by pixel", "by plane"])
def test_a_row_of_colour_costs_its_bytes(layout, reads, folder_of, monkeypatch):
    folder, _ = folder_of(of_colour(layout))
    lengths = []

    def counted(file, whole=rows.byte_reader):
        return _Counted(whole(file), lengths)

    monkeypatch.setattr(rows, "byte_reader", counted)
    lv.open_volume(folder).isel(z=1, y=7).load()
    assert lengths == [SHAPE[2] * 3 // reads] * reads


class _Counted:
    """A reader of bytes that notes how many it is asked for."""

    def __init__(self, reader, lengths):
        self._reader, self._lengths = reader, lengths

    def __enter__(self):
        read_into = self._reader.__enter__()
        return lambda target, offset: self._lengths.append(len(target)) or read_into(target, offset)

    def __exit__(self, *error):
        return self._reader.__exit__(*error)


def test_a_tilted_stack_of_colour_keeps_its_samples_last(folder_of):
    folder, _ = folder_of([(RGB, {})] * 3, drift=1.0)
    straight = lv.rectify(lv.open_volume(folder))
    assert straight.dims == ("z", "y", "x", "sample")


def test_each_sample_of_a_tilted_stack_is_moved_as_a_grey_one(folder_of):
    folder, _ = folder_of([(RGB, {})] * 3, drift=1.0)
    volume = lv.open_volume(folder)
    np.testing.assert_array_equal(lv.rectify(volume).isel(sample=2), lv.rectify(volume.isel(sample=2)))


def test_colour_on_the_grid_of_a_grey_volume_lies_at_its_place(folder_of):
    grey = lv.open_volume(folder_of([(GREY, {})] * 5, name="grey")[0])
    folder, written = folder_of([(RGB, place(k + 1)) for k in range(3)], name="colour")
    found = lv.open_volume(folder, like=grey.isel(y=slice(2, 9)))
    np.testing.assert_array_equal(found[1:4], np.stack(written)[:, 2:9])
    assert np.isnan(found[[0, 4]]).all()


def test_filled_slices_of_colour_are_empty_in_all_samples(folder_of):
    folder, _ = folder_of([(RGB, place(k)) for k in (0, 1, 2, 5)])
    found = lv.open_volume(folder, missing="fill")
    assert np.isnan(found).any("sample").any(("y", "x")).values.tolist() == [False] * 3 + [True] * 2 + [False]


def test_a_damaged_picture_is_filled_beside_whole_ones(folder_of):
    folder, _ = folder_of([(Layout(em.BASELINE, 8, photometric="YBR_FULL_422"), {})] * 3)
    path = folder / "1.dcm"
    content = path.read_bytes()
    start = content.index(b"\xff\xd8") + 4
    path.write_bytes(content[:start] + bytes(200) + content[start + 200 :])
    with pytest.warns(errors.LazyvolWarning, match="filled"):
        found = lv.open_volume(folder, on_error="fill").load()
    assert np.isnan(found).all(("y", "x", "sample")).values.tolist() == [False, True, False]


def test_mask_padding_leaves_colours_as_they_are(folder_of):
    folder, written = folder_of([(RGB, {"PixelPaddingValue": 5})] * 3)
    found = lv.open_volume(folder, mask_padding=True)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, written)


def test_a_palette_gives_its_colours_also_without_rescaling(folder_of):
    folder, written = folder_of(of_colour(PALETTE))
    np.testing.assert_array_equal(lv.open_volume(folder, rescale=False), meaning(PALETTE, written))


@pytest.mark.parametrize("values", ["real_world", "philips_fp"])
def test_colours_have_no_other_values(values, folder_of):
    with pytest.raises(errors.UnsupportedSeriesError, match=f"values='{values}' are for grey images"):
        lv.open_volume(folder_of([(RGB, {})] * 2)[0], values=values)


# Series of images that differ


def shapes_of(folder):
    tree = lv.open_stacks(folder)
    return [node.image.shape for node in tree.children.values()], tree.attrs["refused"]


def test_captures_in_colour_lie_beside_the_grey_volume(folder_of):
    folder, _ = folder_of([(RGB, {})] * 2 + [(GREY, {})] * 3)
    assert shapes_of(folder)[0] == [(3, *SHAPE[1:]), (2, *SHAPE[1:], 3)]


def test_ways_to_write_colour_mix_in_one_volume(folder_of):
    folder, written = folder_of([(RGB, {}), (BY_PLANE, {}), (YBR, {})])
    colours = [written[0], written[1], rgb_of(written[2])]
    np.testing.assert_allclose(lv.open_volume(folder).astype(int), np.stack(colours).astype(int), atol=1)


OTHERS = {
    "another space": (RGB, {"PhotometricInterpretation": "HSV"}),
    "grey of three samples": (RGB, {"PhotometricInterpretation": "MONOCHROME2"}),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_an_image_that_does_not_open_is_refused_beside_those_that_do(other, folder_of):
    folder, _ = folder_of([(RGB, {}), other, (RGB, {})])
    shapes, refused = shapes_of(folder)
    assert shapes == [(2, *SHAPE[1:], 3)]
    assert len(refused) == 1


def test_colours_of_8_and_of_16_bits_are_no_one_volume(folder_of):
    folder, _ = folder_of([(RGB, {}), (RGB, {}), (RGB_16, {})])
    tree = lv.open_stacks(folder)
    assert [str(node.image.dtype) for node in tree.children.values()] == ["uint8", "uint16"]


@pytest.fixture
def light_and_dark(folder_of):
    folder, _ = folder_of([(GREY, {}), (DARK, {}), (GREY, {})])
    return lv.open_volume(folder)


def test_photometric_interpretations_that_differ_stand_beside_their_slices(light_and_dark):
    found = light_and_dark.photometric_interpretation
    assert (found.dims, found.values.tolist()) == (("z",), ["MONOCHROME2", "MONOCHROME1", "MONOCHROME2"])


def test_photometric_interpretations_that_differ_are_no_attribute(light_and_dark):
    assert "photometric_interpretation" not in light_and_dark.attrs


@pytest.mark.parametrize(("z", "colours"), [(0.0, "gray"), (5.0, "gray_r")], ids=["light", "dark"])
def test_just_the_slices_of_monochrome1_are_drawn_inverted(light_and_dark, z, colours):
    (image,) = lv.plot_slices(light_and_dark, z=z)
    assert image.cmap.name == colours


def test_a_cut_across_both_is_drawn_as_it_is(light_and_dark):
    (image,) = lv.plot_slices(light_and_dark, y=4.0)
    assert image.cmap.name == "gray"


# Headers


def file_of(tmp_path, layout, *, columns=SHAPE[2], **elements):
    stored = stored_for(layout, (1, SHAPE[1], columns))
    return write_encoded(tmp_path / "made.dcm", stored, layout, **elements), stored


def changed(path, **elements):
    """Change elements of a file; None takes one out."""
    header = pydicom.dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            del header[keyword]
        else:
            setattr(header, keyword, value)
    header.save_as(path)
    return path


REFUSED = {
    "no palette": (PALETTE, dict.fromkeys(COLOURS), "no palette"),
    "no descriptor of blue": (PALETTE, {"BluePaletteColorLookupTableDescriptor": None}, "descriptors .* differ"),
    "no data of blue": (PALETTE, {"BluePaletteColorLookupTableData": None}, "0 bytes, too few for 256"),
    "two numbers": (PALETTE, {"GreenPaletteColorLookupTableDescriptor": [256, 0]}, "descriptors .* differ"),
    "another first": (PALETTE, {"GreenPaletteColorLookupTableDescriptor": [256, 9, 8]}, "descriptors .* differ"),
    "another count": (PALETTE, {"BluePaletteColorLookupTableDescriptor": [99, 0, 8]}, "descriptors .* differ"),
    "too few entries": (PALETTE, {"GreenPaletteColorLookupTableData": bytes(100)}, "100 bytes, too few"),
    "no interpretation": (RGB, {"PhotometricInterpretation": None}, "MONOCHROME2 of 3 samples"),
    "grey": (RGB, {"PhotometricInterpretation": "MONOCHROME2"}, "MONOCHROME2 of 3 samples"),
    "one sample": (RGB, {"SamplesPerPixel": 1}, "RGB of 1 samples"),
    "no samples": (RGB, {"SamplesPerPixel": None}, "RGB of 1 samples"),
    "two samples": (RGB, {"SamplesPerPixel": 2}, "RGB of 2 samples"),
    "signed": (RGB, {"PixelRepresentation": 1}, "RGB of signed numbers"),
}


@pytest.mark.parametrize(("layout", "elements", "why"), REFUSED.values(), ids=REFUSED)
def test_colours_that_their_header_does_not_describe_are_refused(layout, elements, why, tmp_path):
    path, _ = file_of(tmp_path, layout, **(COLOURS if layout is PALETTE else {}))
    with pytest.raises(errors.UnsupportedSeriesError, match=why):
        lv.open_volume(changed(path, **elements))


def test_pairs_of_pixels_in_an_odd_number_of_columns_are_refused(tmp_path):
    path, _ = file_of(tmp_path, YBR, columns=13)
    with pytest.raises(errors.UnsupportedSeriesError, match="in 13 columns"):
        lv.open_volume(changed(path, PhotometricInterpretation="YBR_FULL_422"))


def test_a_pixel_representation_that_is_none_is_refused(tmp_path):
    path, _ = file_of(tmp_path, GREY, PixelRepresentation=2)
    with pytest.raises(errors.DicomReadError, match="PixelRepresentation is 2"):
        lv.open_volume(path)


@pytest.mark.parametrize("said", [None, 7], ids=["absent", "7"])
def test_a_planar_configuration_that_is_none_is_taken_as_by_pixel_and_named(said, tmp_path):
    path, stored = file_of(tmp_path, RGB)
    volume = lv.open_volume(changed(path, PlanarConfiguration=said))
    np.testing.assert_array_equal(volume, stored)
    assert [f.values[0] for f in volume.vol.findings if f.code == "malformed-value"] == ["PlanarConfiguration"]


@pytest.mark.parametrize("said", ["PALETTE", "MONOCHROME", "HSV"])
@pytest.mark.parametrize("syntax", [em.EXPLICIT, em.RLE], ids=["native", "RLE"])
def test_one_sample_of_what_is_not_known_is_taken_as_grey_and_named(said, syntax, tmp_path):
    path, stored = file_of(tmp_path, Layout(syntax, 8))
    volume = lv.open_volume(changed(path, PhotometricInterpretation=said))
    np.testing.assert_array_equal(volume, stored)
    assert [f.values[0] for f in volume.vol.findings if f.code == "malformed-value"] == ["PhotometricInterpretation"]


def test_a_stream_needs_no_planar_configuration(tmp_path):
    path, stored = file_of(tmp_path, Layout(em.J2K_LOSSLESS, 8, photometric="RGB"))
    volume = lv.open_volume(changed(path, PlanarConfiguration=None))
    np.testing.assert_array_equal(volume, stored)
    assert "malformed-value" not in [f.code for f in volume.vol.findings]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_the_middle_of_colour_differences_is_that_of_the_stored_bits(bits, tmp_path):
    layout = Layout(em.EXPLICIT, bits, photometric="YBR_FULL")
    grey = np.linspace(0, 2**bits - 1, 12 * 14).astype("u2").reshape(SHAPE)
    middle = np.full_like(grey, 2 ** (bits - 1))
    path = write_encoded(tmp_path / "made.dcm", np.stack([grey, middle, middle], axis=-1), layout)
    np.testing.assert_array_equal(lv.open_volume(path), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_ybr_of_any_bits_is_that_rgb_from_which_it_was_made(bits, tmp_path):
    rgb = stored_for(Layout(em.EXPLICIT, bits, photometric="RGB"), SHAPE, margin=2**bits // 4)
    wide = (rgb.astype("u4") << 16 - bits).astype("u2")
    ybr = (ybr_of(wide) >> 16 - bits).astype(rgb.dtype)
    path = write_encoded(tmp_path / "made.dcm", ybr, Layout(em.EXPLICIT, bits, photometric="YBR_FULL"))
    np.testing.assert_allclose(lv.open_volume(path).astype(int), rgb.astype(int), atol=3)


def test_the_high_bit_of_no_number_is_taken_as_absent(tmp_path):
    path, stored = file_of(tmp_path, RGB)
    np.testing.assert_array_equal(lv.open_volume(changed(path, HighBit=0)), stored)


def mapping(**elements):
    """Return the element of a mapping to values of the real world."""
    item = Dataset()
    for keyword, value in elements.items():
        item.add_new(made.tag(keyword), "US" if keyword.endswith("ValueMapped") else "FD", value)
    return [item]


ENDS = {"RealWorldValueFirstValueMapped": 0, "RealWorldValueLastValueMapped": 255}
LINE = {"RealWorldValueSlope": 2.0, "RealWorldValueIntercept": 1.0}
MAPPINGS = {
    "none": [],
    "an empty item": [Dataset()],
    "slope 0": mapping(**LINE | {"RealWorldValueSlope": 0.0}, **ENDS),
    "slope NaN": mapping(**LINE | {"RealWorldValueSlope": float("nan")}, **ENDS),
    "intercept NaN": mapping(**LINE | {"RealWorldValueIntercept": float("nan")}, **ENDS),
    "no intercept": mapping(RealWorldValueSlope=2.0, **ENDS),
    "last before first": mapping(RealWorldValueFirstValueMapped=255, RealWorldValueLastValueMapped=0, **LINE),
    "too few entries": mapping(RealWorldValueLUTData=[1.0, 2.0, 3.0], **ENDS),
    "a table from nowhere": mapping(RealWorldValueLUTData=[1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("mappings", MAPPINGS.values(), ids=MAPPINGS)
def test_a_mapping_that_cannot_be_used_is_refused_when_it_is_asked_for(mappings, tmp_path):
    path, _ = file_of(tmp_path, GREY, RealWorldValueMappingSequence=mappings)
    with pytest.raises(errors.UnsupportedSeriesError, match="needs RealWorldValueMappingSequence"):
        lv.open_volume(path, values="real_world")


@pytest.mark.parametrize("mappings", MAPPINGS.values(), ids=MAPPINGS)
def test_a_mapping_that_cannot_be_used_does_not_matter_to_others(mappings, tmp_path):
    path, stored = file_of(tmp_path, GREY, RealWorldValueMappingSequence=mappings)
    np.testing.assert_array_equal(lv.open_volume(path), stored)


def test_a_table_of_one_entry_maps_one_number(tmp_path):
    table = mapping(RealWorldValueLUTData=2.5, RealWorldValueFirstValueMapped=7, RealWorldValueLastValueMapped=7)
    path, stored = file_of(tmp_path, GREY, RealWorldValueMappingSequence=table)
    np.testing.assert_array_equal(lv.open_volume(path, values="real_world"), np.where(stored == 7, 2.5, np.nan))


@pytest.mark.parametrize("raw", [b"\5", b"\5\0\0\0", b"-2000 "], ids=["1 byte", "4 bytes", "text"])
def test_padding_that_is_no_stored_number_is_named_and_masks_nothing(raw, tmp_path):
    path, _ = file_of(tmp_path, Layout(em.EXPLICIT, 12))
    content = path.read_bytes()
    after = content.index(b"\x28\x00\x03\x01US") + 10
    path.write_bytes(content[:after] + made.raw_element(0x0028, 0x0120, b"US", raw) + content[after:])
    volume = lv.open_volume(path, mask_padding=True)
    assert [f.values[0] for f in volume.vol.findings if f.code == "malformed-value"] == ["PixelPaddingValue"]
    assert not np.isnan(volume).any()


OPTIONS = {
    "fill_value is text": {"fill_value": "0"},
    "mask_padding is text": {"mask_padding": "yes"},
    "rescale with values": {"rescale": False, "values": "real_world"},
    "an axis of samples": {"dims": {"sample": "EchoTime"}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_that_cannot_be_are_refused(options, tmp_path):
    with pytest.raises(errors.OptionError):
        lv.open_volume(file_of(tmp_path, RGB)[0], **options)
