"""Sheets of tiles: every tile is a slice at its true position, or the sheet is refused; it never is one slice."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

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
from readers import on_axes_of, read_with_dcm2niix

import lazyvol as lv
from lazyvol.errors import UnsupportedSeriesError

MAKERS = {"Siemens": km.siemens_mosaic, "UIH": km.uih_mosaic}
ORIENTATIONS = {
    "axial": made.AXIAL,
    "oblique": km.OBLIQUE,
    "coronal": made.CORONAL,
    "sagittal": made.SAGITTAL,
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def mosaic_of(request):
    return request.param


def write(folder, *mosaics, **options):
    """Write sheets into a folder of their own, and return it, or the file if there is one."""
    paths = made.write(folder, [m.dataset for m in mosaics], **options)
    return paths[0] if len(paths) == 1 else folder


def check(volume, mosaic, *, exactly=True):
    """Check that a volume has the tiles of a mosaic at their positions, in the order along the normal."""
    where, tiles = km.in_order(mosaic.positions, mosaic.tiles, mosaic.orientation)
    expected = km.corners_at(where, mosaic.orientation, shape=mosaic.tiles.shape[1:])
    np.testing.assert_allclose(made.corners_in(volume), expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(volume.values, tiles, strict=exactly)


# One sheet


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_tile_is_a_slice_at_its_place(tmp_path, mosaic_of, orientation):
    mosaic = mosaic_of(orientation=orientation)
    check(lv.open_volume(write(tmp_path / "a", mosaic)), mosaic)


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_slices_that_siemens_stacks_against_the_normal_lie_there(tmp_path, orientation):
    mosaic = km.siemens_mosaic(orientation=orientation, downwards=True)
    check(lv.open_volume(write(tmp_path / "a", mosaic)), mosaic)


@examples(20)
@given(
    count=st.integers(2, 17),
    rows=st.integers(2, 6),
    columns=st.integers(2, 6),
    maker=st.sampled_from(sorted(MAKERS)),
)
def test_any_number_of_tiles_of_any_shape_is_cut_right(count, rows, columns, maker):
    mosaic = MAKERS[maker](count, rows=rows, columns=columns)
    with tempfile.TemporaryDirectory() as folder:
        check(lv.open_volume(write(Path(folder, "a"), mosaic)), mosaic)


def test_a_sheet_has_the_dimensions_of_space(tmp_path, mosaic_of):
    volume = lv.open_volume(write(tmp_path / "a", mosaic_of(7)))
    assert dict(volume.sizes) == {"z": 7, "y": 4, "x": 6}


def test_the_spacing_is_that_between_tiles(tmp_path, mosaic_of):
    volume = lv.open_volume(write(tmp_path / "a", mosaic_of()))
    assert volume.vol.spacing == pytest.approx(made.SPACING)


def test_a_whole_sheet_leaves_no_finding(tmp_path, mosaic_of):
    assert made.codes(lv.open_volume(write(tmp_path / "a", mosaic_of()))) == []


def test_a_folder_of_one_sheet_is_its_file(tmp_path, mosaic_of):
    path = write(tmp_path / "a", mosaic_of())
    xr.testing.assert_identical(lv.open_volume(path.parent).compute(), lv.open_volume(path).compute())


def test_a_sheet_in_memory_is_the_same(tmp_path, mosaic_of):
    mosaic = mosaic_of()
    write(tmp_path / "a", mosaic)
    check(lv.open_volume([mosaic.dataset]), mosaic)


@pytest.mark.parametrize("syntax", [made.IMPLICIT, made.BIG_ENDIAN, made.DEFLATED], ids=["implicit", "big", "deflated"])
def test_a_sheet_in_another_syntax_is_the_same(tmp_path, mosaic_of, syntax):
    mosaic = mosaic_of(orientation=km.OBLIQUE)
    check(lv.open_volume(write(tmp_path / "a", mosaic, syntax=syntax)), mosaic)


def test_a_compressed_sheet_is_the_same(tmp_path, mosaic_of):
    mosaic = mosaic_of(orientation=km.OBLIQUE)
    path = write(tmp_path / "a", mosaic)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    check(lv.open_volume(km.save(tmp_path / "packed.dcm", dataset)), mosaic)


@pytest.mark.parametrize("downwards", [False, True], ids=["along", "against"])
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_a_mosaic_of_siemens_is_that_of_dcm2niix(tmp_path, orientation, downwards):
    path = write(tmp_path / "a", km.siemens_mosaic(orientation=orientation, downwards=downwards))
    agree_with_dcm2niix(path, tmp_path)


def test_a_grid_of_united_imaging_is_that_of_dcm2niix(tmp_path):
    agree_with_dcm2niix(write(tmp_path / "a", km.uih_mosaic(orientation=km.OBLIQUE)), tmp_path)


def agree_with_dcm2niix(path, tmp_path):
    """Check that dcm2niix makes the same of a file, up to the order of its axes."""
    alone, output = tmp_path / "alone", tmp_path / "nifti"
    alone.mkdir()
    output.mkdir()
    shutil.copy(path, alone)
    volume = lv.open_volume(path)
    theirs = on_axes_of(read_with_dcm2niix(alone, output), volume.vol.affine)
    np.testing.assert_allclose(volume.vol.affine, theirs.affine, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(volume, theirs.values)


def test_tiles_lie_where_their_items_say_and_not_where_they_stand(tmp_path):
    mosaic = km.uih_mosaic(5)
    items, order = mosaic.dataset[0x0065, 0x1051].value, [3, 0, 4, 1, 2]
    for k, item in zip(order, items, strict=True):
        item.ImagePositionPatient = [float(v) for v in mosaic.positions[k]]
    check(lv.open_volume(write(tmp_path / "a", mosaic)), mosaic._replace(positions=mosaic.positions[order]))


# Reading


def test_opening_a_sheet_reads_no_pixel(tmp_path, mosaic_of, reads):  # noqa: F811
    repr(lv.open_volume(write(tmp_path / "a", mosaic_of())))
    assert reads.ranges == []


@pytest.mark.parametrize("tile", [0, 4, 6])
def test_a_tile_reads_the_rows_of_the_sheet_that_it_is_in(tmp_path, mosaic_of, reads, tile):  # noqa: F811
    path = write(tmp_path / "a", mosaic_of(7))
    volume = lv.open_volume(path)
    band = 4 * 3 * 6 * 2  # rows of three tiles of six columns
    first = km.pixels_begin(path) + tile // 3 * band
    volume.isel(z=tile).compute()
    assert reads.within(first, first + band)


@pytest.mark.parametrize(
    "cut",
    [
        {"z": 5, "y": 2},
        {"x": 3},
        {"z": slice(1, 6, 2), "y": slice(1, 3), "x": slice(2, 5)},
        {"z": slice(4, 1, -1)},
        {"z": slice(0, 0)},
    ],
    ids=["a row", "a column", "a strided box", "backwards", "nothing"],
)
def test_a_cut_holds_the_pixels_of_its_tiles(tmp_path, mosaic_of, cut):
    mosaic = mosaic_of()
    expected = xr.DataArray(mosaic.tiles, dims=("z", "y", "x")).isel(cut)
    np.testing.assert_array_equal(lv.open_volume(write(tmp_path / "a", mosaic)).isel(cut), expected.values)


def test_a_sheet_that_is_cut_short_names_its_file(tmp_path, mosaic_of):
    path = write(tmp_path / "a", mosaic_of())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(lv.LazyvolError, match=path.name):
        lv.open_volume(path)


def test_a_sheet_comes_back_from_a_store(tmp_path, mosaic_of):
    volume = lv.open_volume(write(tmp_path / "a", mosaic_of(orientation=km.OBLIQUE)))
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_nothing_of_the_patient_is_in_a_sheet(tmp_path, mosaic_of):
    assert km.secrets_in(lv.open_volume(write(tmp_path / "a", mosaic_of())).attrs) == []


# Several sheets


def sheets(mosaic_of, count=3):
    """Return sheets of one place, two seconds apart."""
    timed = {"seconds"} if mosaic_of is km.uih_mosaic else set()
    return [
        mosaic_of(5, number=t, AcquisitionDate="20200101", AcquisitionTime=f"1200{2 * t:02d}.000000")
        if not timed
        else mosaic_of(5, number=t, seconds=2.0 * t, AcquisitionDate="20200101", AcquisitionTime=f"1200{2 * t:02d}")
        for t in range(count)
    ]


def test_several_sheets_are_times(tmp_path, mosaic_of):
    mosaics = sheets(mosaic_of)
    volume = lv.open_volume(write(tmp_path / "a", *mosaics))
    assert volume.dims == ("time", "z", "y", "x")
    np.testing.assert_array_equal(volume, np.stack([m.tiles for m in mosaics]))


def test_the_times_of_sheets_are_seconds_since_the_first(tmp_path, mosaic_of):
    volume = lv.open_volume(write(tmp_path / "a", *sheets(mosaic_of)))
    np.testing.assert_allclose(volume.time, [0, 2, 4], rtol=0, atol=1e-6)


def test_several_sheets_lie_where_each_of_them_does(tmp_path, mosaic_of):
    mosaics = sheets(mosaic_of)
    volume = lv.open_volume(write(tmp_path / "a", *mosaics)).isel(time=0)
    check(volume, mosaics[0])


def test_several_sheets_come_back_from_a_store(tmp_path, mosaic_of):
    volume = lv.open_volume(write(tmp_path / "a", *sheets(mosaic_of)))
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


# Sheets that cannot be cut


def without_private(mosaic):
    for tag in [e.tag for e in mosaic.dataset if e.tag.is_private]:
        del mosaic.dataset[tag]
    return mosaic


def with_csa(mosaic, content):
    mosaic.dataset[0x0029, 0x1010].value = content
    return mosaic


def csa_of(count):
    return km.csa_header(NumberOfImagesInMosaic=[count], SliceNormalVector=[0.0, 0.0, 1.0])


def half_csa(**entries):
    return with_csa(km.siemens_mosaic(), km.csa_header(**entries))


def with_count(mosaic, group, number, value):
    mosaic.dataset[group, number].value = value
    return mosaic


REFUSED = {
    "no CSA header": lambda: km.siemens_mosaic(csa=False),
    "nothing private": lambda: without_private(km.siemens_mosaic()),
    "no CSA format": lambda: with_csa(km.siemens_mosaic(), b"\1\2\3\4" * 40),
    "an empty CSA header": lambda: with_csa(km.siemens_mosaic(), b""),
    "a CSA header that breaks off": lambda: with_csa(km.siemens_mosaic(), csa_of(7)[:60]),
    "a CSA header of endless entries": lambda: with_csa(km.siemens_mosaic(), b"SV10\4\3\2\1" + b"\xff" * 200),
    "no normal": lambda: half_csa(NumberOfImagesInMosaic=[7]),
    "a normal of 0": lambda: half_csa(NumberOfImagesInMosaic=[7], SliceNormalVector=[0.0, 0.0, 0.0]),
    "a normal of two": lambda: half_csa(NumberOfImagesInMosaic=[7], SliceNormalVector=[0.0, 1.0]),
    "no spacing": lambda: km.siemens_mosaic(SpacingBetweenSlices=None, SliceThickness=None),
    "no position": lambda: km.siemens_mosaic(ImagePositionPatient=None),
    "UIH without positions": lambda: km.uih_mosaic(positions=False),
    "UIH without anything private": lambda: without_private(km.uih_mosaic()),
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_a_sheet_whose_places_are_not_known_is_refused_by_name(tmp_path, make):
    with pytest.raises(UnsupportedSeriesError, match=r"(?i)mosaic|tile|grid|VFRAME"):
        lv.open_volume(write(tmp_path / "a", make()))


COUNTS = {
    "more tiles than fit": lambda: with_count(with_csa(km.siemens_mosaic(), csa_of(170)), 0x0019, 0x100A, 170),
    "none": lambda: with_count(with_csa(km.siemens_mosaic(), csa_of(0)), 0x0019, 0x100A, 0),
    "two counts": lambda: with_csa(km.siemens_mosaic(), csa_of(3)),
    "UIH with fewer items": lambda: with_count(km.uih_mosaic(), 0x0065, 0x1050, "9"),
    "UIH with more items": lambda: with_count(km.uih_mosaic(), 0x0065, 0x1050, "4"),
}


@pytest.mark.parametrize("make", COUNTS.values(), ids=COUNTS)
def test_a_number_of_tiles_that_cannot_be_is_not_taken_in_silence(tmp_path, make):
    assert km.said_of(write(tmp_path / "a", make()))


def test_a_thickness_is_not_taken_for_the_spacing_in_silence(tmp_path):
    assert km.said_of(write(tmp_path / "a", km.siemens_mosaic(SpacingBetweenSlices=None)))


def test_a_sheet_is_never_one_slice(tmp_path, mosaic_of):
    path = write(tmp_path / "a", without_private(mosaic_of()))
    with pytest.raises(lv.LazyvolError):
        lv.open_volume(path).compute()


def test_no_message_on_a_sheet_names_the_patient(tmp_path):
    assert km.secrets_in(km.said_of(write(tmp_path / "a", km.siemens_mosaic(csa=False)))) == []


# Real mosaics


@pytest.fixture(params=range(1, 10), ids=str)
def real(request, real_data):
    return real_data / "mr_9_transfer_syntaxes" / "In" / f"{request.param}.dcm"


def tiles_of(sheet):
    return sheet.reshape(6, 64, 6, 64).swapaxes(1, 2).reshape(36, 64, 64)[:35]


def test_a_real_mosaic_has_the_tiles_of_pydicom(real):
    whole = pydicom.dcmread(real.with_name("1.dcm")).pixel_array  # the others are the same, losslessly compressed
    np.testing.assert_array_equal(lv.open_volume(real), tiles_of(whole))


def test_a_real_mosaic_lies_where_the_slice_position_of_siemens_does(real):
    header = pydicom.dcmread(real.with_name("1.dcm"), stop_before_pixels=True)
    row, column = np.reshape(np.array(header.ImageOrientationPatient, dtype=float), (2, 3))
    shift = (384 - 64) / 2 * 3.25
    first = np.array(header.ImagePositionPatient, dtype=float) + shift * (row + column)
    step = np.cross(row, column) * float(header.SpacingBetweenSlices)
    volume = lv.open_volume(real)
    ours = [volume.vol.index_to_position(i) for i in ((0, 0, 0), (34, 0, 0), (34, 63, 63))]
    last = first + 34 * step
    np.testing.assert_allclose(ours, [first, last, last + 63 * 3.25 * (row + column)], rtol=0, atol=1e-3)


def test_a_real_mosaic_is_that_of_dcm2niix(real, tmp_path):
    agree_with_dcm2niix(real, tmp_path)


def test_a_real_mosaic_leaves_no_file_open(real):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files are seen in /proc, which Linux alone has")
    lv.open_volume(real).isel(z=0).compute()
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert str(real.resolve()) not in [os.readlink(link) for link in links]
