"""Real series: every voxel has the value and the place that the headers and other readers give it.

The referee is plain NumPy on the headers (DICOM PS3.3 C.7.6.2.1.1): pixel (j, i) of a file lies at
ImagePositionPatient + i * PixelSpacing[1] * first cosines + j * PixelSpacing[0] * second cosines.
SimpleITK and dcm2niix are compared as grids: after permuting and flipping axes, the corners coincide.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError
from readers import Grid, on_axes_of, read_with_dcm2niix, read_with_simpleitk

import lazyvol as lv
from lazyvol.errors import SeriesChoiceError

DATA = Path(os.environ.get("LAZYVOL_DATA") or Path(__file__).parents[2] / "shared" / "data")
TOLERANCE = 1e-3
"""How far a voxel may lie from where another reader has it, mm."""

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"real series are absent: set LAZYVOL_DATA to their folder ({DATA} does not exist)"
)


class Case(NamedTuple):
    """One series."""

    name: str
    """What is special about it."""
    path: str
    """Its folder in the data."""
    prepare: Callable[[Path, Path], Path] = lambda folder, copy: folder
    """Returns the folder to open, given that of the series and an empty one."""


def first_time_only(folder: Path, copy: Path) -> Path:
    for path in image_files(folder):
        if pydicom.dcmread(path, stop_before_pixels=True).TemporalPositionIdentifier == 1:
            shutil.copy(path, copy)
    return copy


def with_oblong_pixels(folder: Path, copy: Path) -> Path:
    for path in image_files(folder):
        dataset = pydicom.dcmread(path)
        dataset.PixelSpacing = [0.9, 0.7]
        dataset.save_as(copy / path.name)
    return copy


CASES = [
    Case("CT, 5 mm", "ct_philips_5mm/In/Philips/S21570/S2010"),
    Case("CT, IBSI orientation", "ct_ibsi2_phantoms/orientation"),
    Case("CT, IBSI sphere", "ct_ibsi2_phantoms/sphere"),
    Case("PET, MONOCHROME1, no instance numbers", "pet_nema_recon1/pet_recon_1"),
    Case("MR, turned in the plane", "mr_pacsman_128/dicomseries"),
    Case("CT, feet first, signed", "ct_dcmqi/ct-3slice"),
    Case("MR, sagittal", "edge_dicom2nifti/generic/anatomical/001"),
    Case("CT, gantry tilt", "edge_dicom2nifti/failing/gantrytilting"),
    # All real pixels at hand are square, and the series above but the tilted one are along the patient axes.
    Case("MR, oblique: one time of four", "mr_fmri_4_times/dicoms", first_time_only),
    Case("CT, PixelSpacing altered to 0.9, 0.7", "ct_dcmqi/ct-3slice", with_oblong_pixels),
]
PET = next(c for c in CASES if c.name.startswith("PET"))
TILTED = next(c for c in CASES if c.name.endswith("tilt"))
OBLIQUE = next(c for c in CASES if "oblique" in c.name)


def image_files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            dataset = pydicom.dcmread(path, specific_tags=["Rows"], stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "Rows" in dataset:
            found.append(path)
    return found


def corners(affine, shape):
    """Return where the centres of the eight corner voxels lie, LPS mm; shape (8, 3)."""
    index = np.array(list(product(*((0, n - 1) for n in shape))))
    return index @ affine[:3, :3].T + affine[:3, 3]


def corners_of_headers(datasets):
    """Return the same from the headers, of every slice: shape (n, 4, 3), (j, i) in the order of `product`."""
    found = []
    for dataset in datasets:
        orientation = np.array(dataset.ImageOrientationPatient, dtype=float)
        per_row, per_column = (float(v) for v in dataset.PixelSpacing)
        ends = product((0, dataset.Rows - 1), (0, dataset.Columns - 1))
        offsets = [i * per_column * orientation[:3] + j * per_row * orientation[3:] for j, i in ends]
        found.append(np.array(dataset.ImagePositionPatient, dtype=float) + offsets)
    return np.array(found)


def corners_of_slices(index_to_position, shape):
    """Return what `corners_of_headers` returns, from a function of (k, j, i)."""
    ends = list(product((0, shape[1] - 1), (0, shape[2] - 1)))
    return np.array([[index_to_position((k, j, i)) for j, i in ends] for k in range(shape[0])])


def largest_distance(a, b):
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b), axis=-1).max())


def rescaled(dataset):
    slope, intercept = (float(dataset.get(k, v)) for k, v in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    return dataset.pixel_array.astype(np.float64) * slope + intercept


@pytest.fixture(scope="module", params=CASES, ids=[c.name for c in CASES])
def case(request):
    return request.param


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory):
    return case.prepare(DATA / case.path, tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def volume(folder):
    return lv.open_volume(folder)


@pytest.fixture(scope="module")
def datasets(volume):
    """Return what pydicom reads from the file that the volume names for each slice."""
    return [pydicom.dcmread(str(path)) for path in volume.source.values]


@pytest.fixture(scope="module", params=["SimpleITK", "dcm2niix"])
def reader(request):
    return request.param


@pytest.fixture(scope="module")
def other(reader, folder, tmp_path_factory):
    if reader == "SimpleITK":
        return read_with_simpleitk(folder)
    return read_with_dcm2niix(folder, tmp_path_factory.mktemp("nifti"))


def test_the_volume_holds_every_image_of_the_folder_once(volume, folder):
    assert sorted(volume.source.values) == [str(path) for path in image_files(folder)]


def test_the_shape_is_that_of_the_headers(volume, datasets):
    assert volume.sizes == {"z": len(datasets), "y": datasets[0].Rows, "x": datasets[0].Columns}


def test_the_slices_ascend_along_their_normal(datasets):
    orientation = np.array(datasets[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    heights = np.array([d.ImagePositionPatient for d in datasets], dtype=float) @ normal
    assert (np.diff(heights) > 0).all()


def test_each_slice_has_the_instance_number_of_its_file(volume, datasets):
    numbers = [d.get("InstanceNumber") for d in datasets]
    if all(n is None for n in numbers):
        assert "instance_number" not in volume.coords
    else:
        assert volume.instance_number.values.tolist() == numbers


def test_the_affine_puts_the_corners_of_every_slice_where_the_headers_do(volume, datasets):
    affine = volume.vol.affine
    ours = corners_of_slices(lambda index: (affine @ (*index, 1))[:3], volume.shape)
    assert largest_distance(ours, corners_of_headers(datasets)) < TOLERANCE


def test_the_labels_along_the_directions_put_the_corners_where_the_headers_do(volume, datasets):
    z, y, x = (volume[axis].values for axis in "zyx")
    ours = corners_of_slices(lambda i: np.array([z[i[0]], y[i[1]], x[i[2]]]) @ volume.vol.directions, volume.shape)
    assert largest_distance(ours, corners_of_headers(datasets)) < TOLERANCE


def test_index_to_position_puts_the_corners_where_the_headers_do(volume, datasets):
    ours = corners_of_slices(volume.vol.index_to_position, volume.shape)
    assert largest_distance(ours, corners_of_headers(datasets)) < TOLERANCE


def test_position_to_index_finds_the_last_voxel_where_the_headers_put_it(volume, datasets):
    found = volume.vol.position_to_index(corners_of_headers(datasets)[-1, -1])
    np.testing.assert_allclose(found, np.array(volume.shape) - 1, rtol=0, atol=TOLERANCE)


def test_spacing_and_origin_are_those_of_the_headers(volume, datasets):
    positions = np.array([d.ImagePositionPatient for d in datasets], dtype=float)
    per_slice = np.linalg.norm(positions[-1] - positions[0]) / (len(datasets) - 1)
    expected = [per_slice, *datasets[0].PixelSpacing, *positions[0]]
    np.testing.assert_allclose([*volume.vol.spacing, *volume.vol.origin], expected, rtol=0, atol=1e-5)


def test_the_directions_are_the_step_between_slices_and_the_orientation_of_the_headers(volume, datasets):
    orientation = np.array(datasets[0].ImageOrientationPatient, dtype=float)
    step = np.subtract(datasets[-1].ImagePositionPatient, datasets[0].ImagePositionPatient, dtype=float)
    expected = [step / np.linalg.norm(step), orientation[3:], orientation[:3]]
    np.testing.assert_allclose(volume.vol.directions, expected, rtol=0, atol=1e-5)


def test_the_orientation_letters_are_those_of_nibabel(volume):
    assert volume.vol.orientation == "".join(reversed(nibabel.aff2axcodes(volume.vol.affine_ras)))


def test_the_values_are_those_of_pydicom(volume, datasets):
    expected = np.stack([rescaled(d) for d in datasets])
    np.testing.assert_array_equal(volume.values, expected.astype(np.float32) if volume.dtype == "f4" else expected)


def test_a_slice_read_alone_has_the_values_of_pydicom(volume, datasets):
    middle = len(datasets) // 2
    expected = rescaled(datasets[middle])
    alone = volume.isel(z=middle).values
    np.testing.assert_array_equal(alone, expected.astype(np.float32) if volume.dtype == "f4" else expected)


def test_the_grid_is_that_of_the_other_reader(volume, other, reader, case):
    shape = volume.shape
    if (case, reader) == (TILTED, "dcm2niix"):  # its first slice only: see the test on tilted slices below
        shape = (1, *volume.shape[1:])
    theirs = on_axes_of(other, volume.vol.affine)
    assert theirs.values.shape == volume.shape
    assert largest_distance(corners(volume.vol.affine, shape), corners(theirs.affine, shape)) < TOLERANCE


def test_each_voxel_has_the_value_of_the_other_reader(volume, datasets, other, reader, case):
    if (case, reader) == (PET, "SimpleITK"):
        pytest.skip("SimpleITK inverts MONOCHROME1: see the test on that below")
    theirs = on_axes_of(other, volume.vol.affine).values
    if (case, reader) == (OBLIQUE, "dcm2niix"):
        # The files have no RescaleSlope, so the values are the stored numbers; pydicom and SimpleITK say so too.
        # dcm2niix divides them by the private scale slope of Philips (2005,100E), 0.0132383: 629 becomes 47513.6.
        np.testing.assert_allclose(volume.values, theirs * datasets[0][0x2005, 0x100E].value, rtol=2**-23)
    elif volume.dtype.kind == "f":
        # NIfTI has the slope as float32, 0.58179611 for 0.58179612 (2.2e-8 of it); one ulp of float32 is 1.2e-7.
        np.testing.assert_allclose(volume.values, theirs, rtol=2**-23)
    else:
        np.testing.assert_array_equal(volume.values, theirs)


def test_no_file_stays_open(volume, folder):
    if not sys.platform.startswith("linux"):
        pytest.skip("open files are seen in /proc, which Linux alone has")
    volume.isel(z=0).compute()
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    held = [os.readlink(link) for link in links if link.is_symlink()]
    assert not [path for path in held if path.startswith(str(folder.resolve()))]


def test_monochrome1_is_inverted_by_simpleitk_and_not_by_lazyvol():
    # Stored 0 is 38128.0 = 65535 * 0.5817961 in SimpleITK, and 0 in lazyvol, pydicom and dcm2niix: what the
    # photometric interpretation says is how to show the values, not what they are (DICOM PS3.3 C.7.6.3.1.2).
    volume = lv.open_volume(DATA / PET.path)
    theirs = on_axes_of(read_with_simpleitk(DATA / PET.path), volume.vol.affine).values
    slope = float(pydicom.dcmread(str(volume.source.values[0]), stop_before_pixels=True).RescaleSlope)
    np.testing.assert_array_equal(volume.values, (np.rint(65535 - theirs / slope) * slope).astype(np.float32))


@pytest.mark.parametrize(
    ("reader", "error"),
    [
        # Positions step by (0, 0, 5); so does the affine of lazyvol. The last of four slices is wrong elsewhere:
        ("lazyvol", 0.0),
        ("SimpleITK as told", 0.0),  # SetForceOrthogonalDirection(False)
        ("SimpleITK by default", 3.656),  # steps by 5 along the normal, (0, 1.210, 4.851): 3 * 5 * 2 * sin(7 degrees)
        ("dcm2niix", 0.446),  # steps by (0, 0, 4.851), the gap along the normal but not its direction: 3 * 0.1485
    ],
)
def test_the_tilted_slices_lie_off_the_headers_by(reader, error, tmp_path):
    volume = lv.open_volume(DATA / TILTED.path)
    datasets = [pydicom.dcmread(str(path), stop_before_pixels=True) for path in volume.source.values]
    read = {
        "lazyvol": lambda: Grid(volume.values, volume.vol.affine),
        "SimpleITK as told": lambda: read_with_simpleitk(DATA / TILTED.path),
        "SimpleITK by default": lambda: read_with_simpleitk(DATA / TILTED.path, force_orthogonal=True),
        "dcm2niix": lambda: read_with_dcm2niix(DATA / TILTED.path, tmp_path),
    }[reader]
    grid = on_axes_of(read(), volume.vol.affine)
    truth = corners_of_headers([datasets[0], datasets[-1]]).reshape(8, 3)
    assert largest_distance(corners(grid.affine, grid.values.shape), truth) == pytest.approx(error, abs=TOLERANCE)


def test_a_folder_with_a_localizer_beside_the_series_asks_which():
    with pytest.raises(SeriesChoiceError, match=r"holds 2 series(?s:.*)number 100\b(?s:.*)number 201\b"):
        lv.open_volume(DATA / "ct_philips_5mm/In/Philips")


@pytest.mark.parametrize(
    ("keyword", "as_type"),
    [("SeriesNumber", int), ("SeriesNumber", str), ("SeriesInstanceUID", str), ("SeriesDescription", str)],
    ids=["number", "number as text", "UID", "description"],
)
def test_series_chooses_the_series_beside_a_localizer(keyword, as_type):
    alone = lv.open_volume(DATA / "ct_philips_5mm/In/Philips/S21570/S2010")
    header = pydicom.dcmread(str(alone.source.values[0]), stop_before_pixels=True)
    chosen = lv.open_volume(DATA / "ct_philips_5mm/In/Philips", series=as_type(header[keyword].value))
    assert chosen.identical(alone)


def test_the_localizer_opens_when_it_is_chosen():
    chosen = lv.open_volume(DATA / "ct_philips_5mm/In/Philips", series=100)
    (dataset,) = (pydicom.dcmread(str(path)) for path in chosen.source.values)
    np.testing.assert_array_equal(chosen.values, [rescaled(dataset)])
