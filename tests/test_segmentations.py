"""Segmentations: every segment has its voxels at their place, those that the file leaves out are 0."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import highdicom as hd
import kinds_made as km
import numpy as np
import pydicom
import pytest
import series_made as made
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from kinds_made import reads  # noqa: F401  # a fixture
from made import examples

import lazyvol as lv
from lazyvol.errors import GeometryError, LazyvolError

COUNT = 6
PLANES = ([1, 2, 4], [2, 5])
"""Which planes of the CT each of two segments is in; planes 0 and 3 have none."""
HELD = slice(1, 6)
"""The planes of the CT from the first with a frame to the last."""
RED, GREY = (200, 30, 40), (119, 119, 119)


@pytest.fixture(scope="module")
def ct_and_images(tmp_path_factory):
    folder, images = km.ct_folder(tmp_path_factory.mktemp("ct"), count=COUNT)
    return lv.open_volume(folder), images


@pytest.fixture(scope="module")
def ct(ct_and_images):
    return ct_and_images[0]


@pytest.fixture(scope="module")
def images(ct_and_images):
    return ct_and_images[1]


@pytest.fixture(scope="module")
def mask():
    return km.masks(*PLANES, count=COUNT)


@pytest.fixture(scope="module")
def binary(images, mask, tmp_path_factory):
    segments = [km.segment(1, "liver", rgb=RED), km.segment(2, "spleen")]
    path = tmp_path_factory.mktemp("binary") / "seg.dcm"
    return km.save(path, km.segmentation(images, mask, segments=segments))


@pytest.fixture(scope="module")
def fractional(images, mask, tmp_path_factory):
    parts = mask * np.random.default_rng(8).integers(1, 201, mask.shape) / np.float32(200)
    made_of = km.segmentation(images, parts.astype(np.float32), kind="FRACTIONAL", max_fractional_value=200)
    return km.save(tmp_path_factory.mktemp("fractional") / "seg.dcm", made_of)


def labels_of(mask, dtype=np.uint8, numbers=(1, 2)):
    return np.where(mask[1] > 0, numbers[1], mask[0].astype(int) * numbers[0]).astype(dtype)


@pytest.fixture(scope="module")
def labelmap(images, mask, tmp_path_factory):
    path = tmp_path_factory.mktemp("labelmap") / "seg.dcm"
    segments = [km.segment(1, "liver", rgb=RED), km.segment(2, "spleen")]
    return km.save(path, km.segmentation(images, labels_of(mask), kind="LABELMAP", segments=segments))


def copy_of(path):
    return pydicom.dcmread(path)


# Binary


def test_a_binary_segmentation_holds_what_was_written(binary, mask):
    np.testing.assert_array_equal(lv.open_volume(binary).values, mask[:, HELD], strict=True)


def test_its_dimensions_are_segment_and_those_of_space(binary):
    assert dict(lv.open_volume(binary).sizes) == {"segment": 2, "z": 5, "y": km.ROWS, "x": km.COLUMNS}


def test_a_single_segment_has_its_dimension_too(images, mask, tmp_path):
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, mask[:1]))
    assert lv.open_volume(path).dims == ("segment", "z", "y", "x")


def test_the_labels_of_its_segments_are_their_numbers(binary):
    assert lv.open_volume(binary).segment.values.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("segment_label", ["liver", "spleen"]),
        ("segment_category", ["Organ", "Organ"]),
        ("segment_type", ["Liver", "Spleen"]),
    ],
)
def test_what_a_segment_is_stands_beside_its_number(binary, name, expected):
    assert lv.open_volume(binary).sel(segment=[1, 2])[name].values.tolist() == expected


def test_what_a_segment_is_varies_along_segments_alone(binary):
    volume = lv.open_volume(binary)
    names = ("segment_label", "segment_colour", "segment_category", "segment_type")
    assert {volume[name].dims for name in names} == {("segment",)}


def test_a_segment_without_colour_has_an_empty_one(binary):
    assert lv.open_volume(binary).segment_colour.values.tolist()[1] == ""


# The white point of CIELab is that of sRGB to highdicom (D65), and that of ICC profiles to the letter (D50).
COLOURS = {
    "red": (RED, (197, 29, 41)),
    "green": ((10, 200, 60), (0, 202, 56)),
    "grey": (GREY, GREY),
    "black": ((0, 0, 0), (0, 0, 0)),
    "white": ((255, 255, 255), (255, 255, 255)),
}


@pytest.mark.parametrize(("rgb", "by_icc"), COLOURS.values(), ids=COLOURS)
def test_the_colour_of_a_segment_is_that_which_was_recommended(images, mask, tmp_path, rgb, by_icc):
    segments = [km.segment(1, "liver", rgb=rgb)]
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, mask[:1], segments=segments))
    (colour,) = lv.open_volume(path).segment_colour.values.tolist()
    found = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    assert min(np.abs(np.subtract(found, one)).max() for one in (rgb, by_icc)) <= 2


def test_its_planes_lie_where_those_of_the_ct_do(binary, images):
    np.testing.assert_allclose(made.corners_in(lv.open_volume(binary)), made.corners_of(images[HELD]), atol=1e-6)


def test_planes_that_the_file_leaves_out_are_no_finding(binary):
    assert made.codes(lv.open_volume(binary)) == []


def test_a_single_plane_knows_its_spacing(images, tmp_path):
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, km.masks([3])))
    assert lv.geometry_of(lv.open_volume(path)).spacing == pytest.approx(made.SPACING)


def test_a_segment_without_frames_is_0_everywhere(images, tmp_path):
    mask = km.masks([1, 2], [])
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, mask))
    np.testing.assert_array_equal(lv.open_volume(path).sel(segment=2), mask[1, 1:3])


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (2, 0, 4, 1, 3)], ids=["backwards", "mixed"])
def test_the_order_of_the_frames_changes_nothing(images, mask, tmp_path, order):
    path = km.save(tmp_path / "seg.dcm", km.with_frames_reordered(km.segmentation(images, mask), order))
    np.testing.assert_array_equal(lv.open_volume(path), mask[:, HELD])


@pytest.mark.parametrize("chunks", [None, 1, {"z": 2}, "auto"], ids=str)
def test_no_choice_of_chunks_changes_the_values(binary, mask, chunks):
    np.testing.assert_array_equal(lv.open_volume(binary, chunks=chunks), mask[:, HELD])


@pytest.mark.parametrize(
    "cut",
    [
        {"segment": 1, "z": 4},
        {"z": slice(None, None, 2), "y": slice(1, 4), "x": slice(2, 6)},
        {"y": 3},
        {"x": 6},
        {"segment": [1, 0], "z": slice(3, None, -1)},
        {"z": slice(0, 0)},
    ],
    ids=["a frame", "a strided box", "a row", "a column", "backwards", "nothing"],
)
def test_a_cut_holds_what_was_written_there(binary, mask, cut):
    expected = xr.DataArray(mask[:, HELD], dims=("segment", "z", "y", "x")).isel(cut)
    np.testing.assert_array_equal(lv.open_volume(binary).isel(cut), expected.values, strict=True)


@pytest.mark.parametrize(
    "orientation", [made.CORONAL, made.SAGITTAL, km.OBLIQUE], ids=["coronal", "sagittal", "oblique"]
)
def test_planes_that_are_not_axial_lie_where_they_should(tmp_path, orientation):
    images, mask = km.ct_images(COUNT, orientation=orientation), km.masks(*PLANES)
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, mask))
    np.testing.assert_allclose(made.corners_in(lv.open_volume(path)), made.corners_of(images[HELD]), atol=1e-6)


@examples(15)
@given(planes=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_any_planes_of_any_segments_come_out_at_their_place(planes, seed):
    mask, images = km.masks(*planes, count=5, seed=seed), km.ct_images(5)
    held = slice(min(map(min, planes)), max(map(max, planes)) + 1)
    with tempfile.TemporaryDirectory() as folder:
        path = km.save(Path(folder, "seg.dcm"), km.segmentation(images, mask))
        volume = lv.open_volume(path)
        np.testing.assert_array_equal(volume, mask[:, held])
        np.testing.assert_allclose(made.corners_in(volume), made.corners_of(images[held]), atol=1e-6)


def test_opening_reads_no_pixel(binary, reads):  # noqa: F811
    repr(lv.open_volume(binary))
    assert reads.ranges == []


@pytest.mark.parametrize(("segment", "z"), [(1, 4), (1, 1), (2, 2)], ids=["the first", "in the middle", "the last"])
def test_one_plane_of_one_segment_reads_the_bytes_of_its_frame(binary, reads, segment, z):  # noqa: F811
    plane = lv.open_volume(binary).isel(segment=segment - 1, z=z - 1)
    order = [(1, 4), (1, 2), (1, 1), (2, 5), (2, 2)]  # from the head down, as highdicom writes
    frame = order.index((segment, z))
    first, size = km.pixels_begin(binary), km.ROWS * km.COLUMNS
    plane.compute()
    assert reads.within(first + frame * size // 8, first + -(-(frame + 1) * size // 8))


def test_a_plane_that_the_file_leaves_out_reads_nothing(binary, reads):  # noqa: F811
    lv.open_volume(binary).isel(z=2).compute()
    assert reads.ranges == []


def test_a_binary_segmentation_comes_back_from_a_store(binary, tmp_path):
    volume = lv.open_volume(binary)
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_nothing_of_the_patient_is_in_the_volume(binary):
    volume = lv.open_volume(binary)
    coordinates = [(c.attrs, c.values) for c in volume.drop_vars("source", errors="ignore").coords.values()]
    assert km.secrets_in(volume.attrs, coordinates) == []


def test_one_that_is_cut_short_raises_instead_of_showing_zeros(binary, tmp_path):
    path = tmp_path / "short.dcm"
    path.write_bytes(binary.read_bytes()[:-10])
    with pytest.raises(LazyvolError, match=r"short\.dcm"):
        lv.open_volume(path).compute()


def test_a_frame_of_a_segment_that_is_not_described_is_not_lost_in_silence(binary, tmp_path):
    dataset = copy_of(binary)
    group = dataset.PerFrameFunctionalGroupsSequence[-1]
    group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9
    path = km.save(tmp_path / "nine.dcm", dataset)
    assert re.search("nine.dcm|segment", km.said_of(path), re.IGNORECASE)


@pytest.mark.parametrize(("series", "dims"), [(77, 4), (7, 3)], ids=["itself", "its CT"])
def test_beside_its_ct_it_is_a_series_of_its_own(images, binary, tmp_path, series, dims):
    made.write(tmp_path / "both", images)
    shutil.copy(binary, tmp_path / "both")
    assert lv.open_volume(tmp_path / "both", series=series).ndim == dims


# Fractional


def test_a_fractional_segmentation_is_the_stored_number_of_its_maximum(fractional):
    dataset = copy_of(fractional)
    expected = np.sort((dataset.pixel_array / 200).astype(np.float32), axis=None)
    values = lv.open_volume(fractional).values
    np.testing.assert_array_equal(np.sort(values, axis=None)[-expected.size :], expected, strict=True)


def test_its_parts_lie_where_they_were_written(fractional, mask):
    np.testing.assert_array_equal(lv.open_volume(fractional) > 0, mask[:, HELD] > 0)


def test_a_fractional_segmentation_has_the_dimensions_of_a_binary_one(fractional):
    assert lv.open_volume(fractional).dims == ("segment", "z", "y", "x")


def test_the_maximum_is_1(images, mask, tmp_path):
    whole = km.segmentation(images, mask.astype(np.float32), kind="FRACTIONAL", max_fractional_value=77)
    values = lv.open_volume(km.save(tmp_path / "seg.dcm", whole))
    np.testing.assert_array_equal(values, mask[:, HELD].astype(np.float32), strict=True)


def test_a_compressed_fractional_segmentation_is_the_same(images, mask, tmp_path):
    options = {"kind": "FRACTIONAL", "transfer_syntax_uid": pydicom.uid.RLELossless}
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, mask.astype(np.float32), **options))
    np.testing.assert_array_equal(lv.open_volume(path), mask[:, HELD])


def test_a_fractional_segmentation_comes_back_from_a_store(fractional, tmp_path):
    volume = lv.open_volume(fractional)
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


# Label maps


def numbers_with(volume, name):
    """Return what a list in the attrs says of each segment but the background."""
    pairs = zip(volume.attrs["segment_numbers"], volume.attrs[name], strict=True)
    return {int(number): str(said) for number, said in pairs if number}


def test_a_label_map_holds_the_numbers_of_its_segments(labelmap, mask):
    np.testing.assert_array_equal(lv.open_volume(labelmap), labels_of(mask)[HELD], strict=True)


def test_a_label_map_has_the_dimensions_of_space_alone(labelmap):
    assert lv.open_volume(labelmap).dims == ("z", "y", "x")


def test_the_names_of_its_segments_are_in_the_attrs(labelmap):
    assert numbers_with(lv.open_volume(labelmap), "segment_labels") == {1: "liver", 2: "spleen"}


def test_their_colours_are_in_the_attrs(labelmap):
    colours = numbers_with(lv.open_volume(labelmap), "segment_colours")
    assert (colours[1][:1], len(colours[1]), colours[2]) == ("#", 7, "")


def test_its_planes_lie_where_those_of_its_ct_do(labelmap, images):
    np.testing.assert_allclose(made.corners_in(lv.open_volume(labelmap)), made.corners_of(images[HELD]), atol=1e-6)


def test_a_label_map_of_16_bits_holds_large_numbers(images, mask, tmp_path):
    labels = labels_of(mask, np.uint16, (3, 40000))
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, labels, kind="LABELMAP"))
    np.testing.assert_array_equal(lv.open_volume(path), labels[HELD], strict=True)


def test_a_label_map_in_palette_colour_holds_numbers_and_no_colours(images, mask, tmp_path):
    tables = (hd.PaletteColorLUT(0, np.arange(256, dtype=np.uint8)[::-1], c) for c in ("red", "green", "blue"))
    palette = hd.PaletteColorLUTTransformation(*tables, palette_color_lut_uid="1.2.3.9")
    dataset = km.segmentation(images, labels_of(mask), kind="LABELMAP", palette_color_lut_transformation=palette)
    assert dataset.PhotometricInterpretation == "PALETTE COLOR"
    path = km.save(tmp_path / "seg.dcm", dataset)
    np.testing.assert_array_equal(lv.open_volume(path), labels_of(mask)[HELD], strict=True)


def test_a_label_map_leaves_no_finding(labelmap):
    assert made.codes(lv.open_volume(labelmap)) == []


def test_one_plane_of_a_label_map_reads_its_frame(labelmap, reads):  # noqa: F811
    plane = lv.open_volume(labelmap).isel(z=4)
    first = km.pixels_begin(labelmap)  # the plane nearest to the head stands first
    plane.compute()
    assert reads.within(first, first + km.ROWS * km.COLUMNS)


def test_a_label_map_comes_back_from_a_store(labelmap, tmp_path):
    volume = lv.open_volume(labelmap)
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


# On the grid of another volume

CUTS = {
    "the whole": {},
    "the last planes": {"z": slice(3, None)},
    "a plane between": {"z": slice(3, 4)},
    "every other plane": {"z": slice(None, None, 2)},
    "every third plane from the second": {"z": slice(1, None, 3)},
    "a window": {"y": slice(1, 4), "x": slice(2, 6)},
    "a window of some planes": {"z": slice(1, 5, 2), "y": slice(0, 2), "x": slice(4, 7)},
}


@pytest.fixture(scope="module", params=CUTS.values(), ids=CUTS)
def cut(request):
    return request.param


@pytest.fixture(scope="module")
def written(mask, images):
    """What was written, as an array on the whole grid of the CT."""
    return xr.DataArray(mask, dims=("segment", "z", "y", "x"))


def test_like_a_ct_a_binary_segmentation_has_its_planes(binary, ct, cut, written):
    found = lv.open_volume(binary, like=ct.isel(cut))
    np.testing.assert_array_equal(found.values, written.isel(cut).values, strict=True)


def test_like_a_ct_a_fractional_segmentation_has_its_planes(fractional, ct, cut, written):
    np.testing.assert_array_equal(lv.open_volume(fractional, like=ct.isel(cut)) > 0, written.isel(cut) > 0)


def test_like_a_ct_a_label_map_has_its_planes(labelmap, ct, cut, mask):
    expected = xr.DataArray(labels_of(mask), dims=("z", "y", "x")).isel(cut)
    np.testing.assert_array_equal(lv.open_volume(labelmap, like=ct.isel(cut)).values, expected.values, strict=True)


@examples(20)
@given(
    z=st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 4)),
    y=st.tuples(st.integers(0, 4), st.integers(1, 5)),
    x=st.tuples(st.integers(0, 6), st.integers(1, 7)),
)
def test_like_any_part_of_a_ct_it_has_the_voxels_of_that_part(binary, ct, written, z, y, x):
    part = {"z": slice(z[0], z[0] + z[1], z[2]), "y": slice(y[0], sum(y)), "x": slice(x[0], sum(x))}
    found = lv.open_volume(binary, like=ct.isel(part))
    np.testing.assert_array_equal(found.values, written.isel(part).values, strict=True)


def test_like_a_ct_it_has_its_labels(binary, ct, cut):
    found, part = lv.open_volume(binary, like=ct.isel(cut)), ct.isel(cut)
    assert all(np.array_equal(found[axis], part[axis]) for axis in "zyx")


def test_like_a_ct_it_has_its_geometry(binary, ct, cut):
    found = lv.open_volume(binary, like=ct.isel(cut))
    assert str(lv.geometry_of(found)) == str(lv.geometry_of(ct.isel(cut)))


def test_like_a_ct_it_keeps_integers(binary, ct):
    assert lv.open_volume(binary, like=ct).dtype == np.uint8


def test_like_a_ct_it_keeps_the_names_of_its_segments(binary, ct):
    assert lv.open_volume(binary, like=ct).segment_label.values.tolist() == ["liver", "spleen"]


def test_a_ct_goes_with_what_is_like_it_voxel_by_voxel(binary, ct, mask):
    liver = lv.open_volume(binary, like=ct).sel(segment=1)
    np.testing.assert_array_equal(ct.where(liver > 0, 0).values, np.where(mask[0] > 0, ct.values, 0))


def test_what_is_like_a_ct_and_the_ct_have_one_geometry_in_arithmetic(binary, ct):
    assert "geometry" in (ct * lv.open_volume(binary, like=ct)).coords


def test_to_be_like_a_ct_reads_no_pixel(binary, ct, reads):  # noqa: F811
    repr(lv.open_volume(binary, like=ct))
    assert reads.ranges == []


def test_a_plane_of_what_is_like_a_ct_reads_one_frame(binary, ct, reads):  # noqa: F811
    plane = lv.open_volume(binary, like=ct).isel(segment=0, z=4)
    first = km.pixels_begin(binary)
    plane.compute()
    assert reads.within(first, first + 5)


def test_what_is_like_a_ct_comes_back_from_a_store(binary, ct, tmp_path):
    volume = lv.open_volume(binary, like=ct)
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_planes_beside_those_of_the_ct_are_left_out(images, mask, tmp_path):
    few, _ = km.ct_folder(tmp_path / "few", count=3)  # the first three of six
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, mask))
    np.testing.assert_array_equal(lv.open_volume(path, like=lv.open_volume(few)).values, mask[:, :3], strict=True)


def test_a_segmentation_none_of_whose_planes_are_in_the_ct_is_0_everywhere(images, ct, tmp_path):
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, km.masks([5])))
    assert not lv.open_volume(path, like=ct.isel(z=slice(0, 3))).any()


@pytest.mark.parametrize(
    ("columns", "rows"), [(1, 0), (-2, 0), (0, 3), (2, -1)], ids=["to the left", "to the right", "down", "both"]
)
def test_a_shift_by_whole_pixels_moves_the_voxels(images, ct, mask, tmp_path, columns, rows):
    moved = km.shifted(km.segmentation(images, mask), (columns * made.SPACING[2], rows * made.SPACING[1], 0.0))
    found = lv.open_volume(km.save(tmp_path / "seg.dcm", moved), like=ct)
    across = xr.DataArray(mask, dims=("segment", "z", "y", "x"))
    np.testing.assert_array_equal(found, across.shift(y=rows, x=columns, fill_value=0).values)


def test_a_segmentation_of_a_part_of_the_image_lies_at_its_place(ct, tmp_path):
    y0, x0 = 2, 3
    corner = np.add(made.ORIGIN, (x0 * made.SPACING[2], y0 * made.SPACING[1], 0))
    images = km.ct_images(COUNT, rows=3, columns=3, origin=corner)
    mask = np.random.default_rng(4).integers(0, 2, (1, COUNT, 3, 3), np.uint8)
    mask[:, :, 0, 0] = 1
    path = km.save(tmp_path / "seg.dcm", km.segmentation(images, mask))
    expected = np.zeros((1, *ct.shape), np.uint8)
    expected[:, :, y0 : y0 + 3, x0 : x0 + 3] = mask
    np.testing.assert_array_equal(lv.open_volume(path, like=ct), expected)


@pytest.mark.parametrize(
    ("by", "said"),
    [((0.3, 0.0, 0.0), r"0\.3|0\.5"), ((0.0, 0.2, 0.0), r"0\.2\b|0\.25"), ((0.0, 0.0, 1.0), r"\b1(\.0+)? ?mm|0\.4")],
    ids=["half a column", "a quarter of a row", "a part of a step"],
)
def test_a_shift_by_less_than_a_voxel_is_refused_with_how_much_it_is(images, ct, mask, tmp_path, by, said):
    path = km.save(tmp_path / "seg.dcm", km.shifted(km.segmentation(images, mask), by))
    with pytest.raises(GeometryError, match=said):
        lv.open_volume(path, like=ct)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"PixelSpacing": (0.9, 0.6)}, r"0\.9"),
        ({"orientation": km.OBLIQUE}, r"36\.9|36\.87|0\.6|degree"),
        ({"orientation": made.CORONAL}, r"90|degree"),
        ({"step": (0.0, 0.0, 2.0)}, r"\b2(\.0+)?\b|0\.5|mm"),
    ],
    ids=["larger pixels", "tilted", "coronal", "closer planes"],
)
def test_a_grid_that_does_not_coincide_is_refused_with_how_it_differs(ct, tmp_path, values, said):
    other = km.ct_images(COUNT, **values)
    path = km.save(tmp_path / "seg.dcm", km.segmentation(other, km.masks([0, 1, 2])))
    with pytest.raises(GeometryError, match=said):
        lv.open_volume(path, like=ct)


def test_another_frame_of_reference_is_not_taken_for_the_same_in_silence(ct, tmp_path):
    other = km.ct_images(COUNT, FrameOfReferenceUID="1.2.99")
    path = km.save(tmp_path / "seg.dcm", km.segmentation(other, km.masks([0, 1, 2])))
    assert re.search("frame.of.reference", km.said_of(path, like=ct), re.IGNORECASE)


def test_to_be_like_something_without_geometry_is_refused(binary):
    with pytest.raises(LazyvolError):
        lv.open_volume(binary, like=xr.DataArray(np.zeros((2, 3, 4)), dims=("z", "y", "x")))


# Other series on the grid of another volume


@pytest.fixture
def some_planes(tmp_path):
    """A series that holds planes 1, 2 and 4 of the CT."""
    return km.ct_folder(tmp_path / "some", count=3, at=(1, 2, 4))[0]


def test_another_series_like_a_ct_has_its_values_at_its_planes(some_planes, ct):
    alone = lv.open_volume(some_planes)
    np.testing.assert_array_equal(lv.open_volume(some_planes, like=ct).isel(z=[1, 2, 4]), alone.values)


def test_another_series_like_a_ct_is_nan_where_it_has_no_plane(some_planes, ct):
    assert np.isnan(lv.open_volume(some_planes, like=ct).isel(z=[0, 3, 5])).all()


def test_another_series_like_a_ct_has_its_labels(some_planes, ct):
    found = lv.open_volume(some_planes, like=ct)
    assert all(np.array_equal(found[axis], ct[axis]) for axis in "zyx")


def test_a_series_like_itself_is_the_same(ct, tmp_path):
    folder, _ = km.ct_folder(tmp_path / "ct", count=COUNT)
    np.testing.assert_array_equal(lv.open_volume(folder, like=ct).values, ct.values)


def test_another_series_between_the_planes_of_a_ct_is_refused(ct, tmp_path):
    folder, _ = km.ct_folder(tmp_path / "between", count=3, at=(0.5, 1.5, 2.5))
    with pytest.raises(GeometryError):
        lv.open_volume(folder, like=ct)


# Real segmentations


@pytest.mark.parametrize("name", ["23x38x3", "24x38x3"])
def test_a_real_segmentation_has_the_frames_of_pydicom(real_data, name):
    path = real_data / "ct_dcmqi" / name / "seg" / "label.seg"
    dataset = pydicom.dcmread(path)
    volume = lv.open_volume(path)
    assert int(volume.sum()) == int(dataset.pixel_array.sum())


@pytest.mark.parametrize("name", ["23x38x3", "24x38x3"])
def test_a_real_segmentation_has_each_frame_at_its_place(real_data, name):
    path = real_data / "ct_dcmqi" / name / "seg" / "label.seg"
    dataset, volume = pydicom.dcmread(path), lv.open_volume(path)
    stored = np.reshape(dataset.pixel_array, (-1, dataset.Rows, dataset.Columns))
    for frame, group in zip(stored, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        where = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        k, j, i = volume.vol.position_to_index(where)
        assert (j, i) == pytest.approx((0, 0), abs=1e-3)
        np.testing.assert_array_equal(volume.sel(segment=number).isel(z=round(float(k))), frame)


@pytest.mark.parametrize("name", ["23x38x3", "24x38x3"])
def test_a_real_segmentation_lies_on_the_grid_of_its_ct(real_data, name):
    folder = real_data / "ct_dcmqi" / name
    ct = lv.open_volume(folder / "image")
    found = lv.open_volume(folder / "seg" / "label.seg", like=ct)
    assert int(found.sum()) == int(pydicom.dcmread(folder / "seg" / "label.seg").pixel_array.sum())


def test_like_a_ct_that_was_turned_upside_down_it_is_turned_too(binary, ct, written):
    found = lv.open_volume(binary, like=ct.isel(z=slice(None, None, -1)))
    np.testing.assert_array_equal(found, lv.open_volume(binary, like=ct).isel(z=slice(None, None, -1)))


@pytest.mark.parametrize("numbers", [None, [1, 2]], ids=["none", "two"])
def test_a_frame_that_names_no_one_segment_is_refused_by_its_number(images, mask, tmp_path, numbers):
    dataset = km.segmentation(images, mask)
    group = dataset.PerFrameFunctionalGroupsSequence[1]
    if numbers is None:
        del group.SegmentIdentificationSequence
    else:
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = numbers
    path = km.save(tmp_path / "seg.dcm", dataset)
    with pytest.raises(LazyvolError, match="frame 2 does not name the one segment"):
        lv.open_volume(path)


def test_fractions_without_their_maximum_are_refused(images, mask, tmp_path):
    dataset = km.segmentation(images, mask.astype(np.float32), kind="FRACTIONAL")
    del dataset.MaximumFractionalValue
    with pytest.raises(LazyvolError, match="MaximumFractionalValue is absent or 0"):
        lv.open_volume(km.save(tmp_path / "seg.dcm", dataset))
