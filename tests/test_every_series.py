"""Every real series opens as the volume that it is, or is refused by name.

Plain NumPy on the headers' positions decides where voxels lie (DICOM PS3.3 C.7.6.2.1.1), and pydicom what they hold;
dcm2niix, SimpleITK and highdicom are asked too, where they open the series.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pydicom
import pytest
import series_made as made
from readers import RAS_TO_LPS, Grid, on_axes_of, read_with_simpleitk

import lazyvol as lv
from lazyvol.errors import SeriesChoiceError, UnsupportedSeriesError

DATA = Path(os.environ.get("LAZYVOL_DATA") or Path(__file__).parents[2] / "shared" / "data")
NAN = float("nan")
TOLERANCE = 1e-3
"""How far a corner may lie from where the headers have it, mm."""

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"real series are absent: set LAZYVOL_DATA to their folder ({DATA} does not exist)"
)


class Row(NamedTuple):
    """A series and what it is."""

    path: str
    modality: str
    dims: str
    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    codes: tuple[str, ...] = ()
    labels: tuple[tuple[object, ...], ...] = ()
    """Of each dimension before z."""


ROWS = [
    Row("ct_dcmqi/23x38x3/image", "CT", "z y x", (3, 38, 23), (2.5, 0.7, 0.7)),
    Row("ct_dcmqi/24x38x3/image", "CT", "z y x", (3, 38, 24), (2.5, 0.7, 0.7)),
    Row("ct_dcmqi/ct-3slice", "CT", "z y x", (3, 512, 512), (1, 0.810547, 0.810547)),
    Row("ct_ibsi2_phantoms/orientation", "CT", "z y x", (64, 48, 32), (2, 2, 2)),
    Row("ct_ibsi2_phantoms/sphere", "CT", "z y x", (64, 64, 64), (2, 2, 2)),
    Row(
        "ct_philips_5mm/In/Philips/S21570/S1000",
        "CT",
        "z y x",
        (1, 256, 512),
        (0.625, 0.976562, 0.976562),
        ("spacing-guessed",),
    ),
    Row("ct_philips_5mm/In/Philips/S21570/S2010", "CT", "z y x", (28, 512, 512), (5, 0.451172, 0.451172)),
    Row(
        "edge_dicom2nifti/failing/gantrytilting",
        "CT",
        "z y x",
        (4, 512, 512),
        (5, 0.417969, 0.417969),
        ("tilted",),
    ),
    Row(
        "edge_dicom2nifti/failing/notavolume",
        "CT",
        "time z y x",
        (4, 1, 512, 512),
        (NAN, 0.544922, 0.544922),
        ("spacing-unknown",),
        ((0, 1, 2, 3),),
    ),
    Row(
        "edge_dicom2nifti/failing/sliceincrement",
        "CT",
        "z y x",
        (4, 512, 512),
        (NAN, 0.429688, 0.429688),
        ("missing-slices",),
    ),
    Row(
        "edge_dicom2nifti/ge/fmri",
        "MR",
        "time z y x",
        (2, 4, 64, 64),
        (3.6, 3, 3),
        ("axis-from-instance-number",),
        ((0, 1),),
    ),
    Row("edge_dicom2nifti/generic/anatomical", "MR", "z y x", (4, 256, 256), (1, 1, 1)),
    Row("edge_dicom2nifti/generic/compressed_j2k", "MR", "z y x", (4, 256, 256), (1, 1, 1)),
    Row("edge_dicom2nifti/generic/compressed_jpeg", "MR", "z y x", (4, 256, 256), (1, 1, 1)),
    Row("mr_fmri_4_times/dicoms", "MR", "time z y x", (4, 35, 80, 80), (3.3, 3, 3), (), ((0, 2, 4, 6),)),
    Row(
        "mr_ge_fmri_150/In/20180918GE/mr_0004",
        "MR",
        "time z y x",
        (10, 15, 64, 64),
        (5, 3.75, 3.75),
        ("axis-from-instance-number",),
        (tuple(range(10)),),
    ),
    Row("mr_pacsman_128/dicomseries", "MR", "z y x", (128, 128, 128), (1, 1, 1)),
    Row(
        "mr_philips_mag_phase/In/Ph/1301_Dual-echo_iso",
        "MR",
        "echo component z y x",
        (2, 2, 30, 96, 96),
        (4, 2.8125, 2.8125),
        (),
        ((7.001, 10.0), ("magnitude", "phase")),
    ),
    Row("pet_nema_recon1/pet_recon_1", "PT", "z y x", (89, 192, 192), (2.78, 2.083333, 2.083333)),
]
REFUSED = {"mr_9_transfer_syntaxes/In": "315 images share 35 positions"}
MANY_FRAMES = (
    "ct_dcmqi/23x38x3/multiframe",
    "ct_dcmqi/23x38x3/seg",
    "ct_dcmqi/24x38x3/multiframe",
    "ct_dcmqi/24x38x3/seg",
    "edge_dicom2nifti/philips_enhanced/fmri",
    "mr_siemens_enhanced_perf/Siemens",
    "mr_siemens_xa30_enhanced/In/27_asl_2d_tra",
    "mr_siemens_xa30_enhanced/In/5_anat-T1w_acq-tfl",
)
"""Series of multi-frame files; test_enhanced and test_segmentations open them."""
REGULAR = [r for r in ROWS if not np.isnan(r.spacing[0]) and r.shape[-3] > 1]
PLAIN = [r for r in REGULAR if r.dims == "z y x" and "tilted" not in r.codes]


class Opened:
    """A series, opened, with the headers of its files in the order of the volume."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.folder = DATA / row.path
        self.volume = lv.open_volume(self.folder)
        self.paths = self.volume.source.broadcast_like(self.volume.isel(y=0, x=0, drop=True)).values
        self.headers = [pydicom.dcmread(str(p), stop_before_pixels=True) for p in self.paths.ravel()]


_OPENED: dict[str, Opened] = {}


def opened_of(row):
    if row.path not in _OPENED:
        _OPENED[row.path] = Opened(row)
    return _OPENED[row.path]


@pytest.fixture(params=ROWS, ids=[r.path for r in ROWS])
def opened(request):
    return opened_of(request.param)


def test_every_file_of_the_data_belongs_to_a_series_of_these_tests():
    folders = [str(DATA / r) + os.sep for r in (*REFUSED, *MANY_FRAMES, *(row.path for row in ROWS))]
    paths = [i.path for i in lv.scan_headers(DATA).instances]
    assert len(paths) > 700
    assert [p for p in paths if not any(p.startswith(f) for f in folders)] == []


def test_the_dimensions_are(opened):
    assert " ".join(map(str, opened.volume.dims)) == opened.row.dims


def test_the_shape_is(opened):
    assert opened.volume.shape == opened.row.shape


def test_the_spacing_is(opened):
    np.testing.assert_allclose(opened.volume.vol.spacing, opened.row.spacing, rtol=0, atol=1e-5)


def test_the_findings_are(opened):
    assert made.codes(opened.volume) == list(opened.row.codes)


def test_the_labels_before_z_are(opened):
    labels = tuple(tuple(opened.volume[d].values.tolist()) for d in opened.volume.dims[:-3])
    assert [w if isinstance(w, str) else pytest.approx(w, abs=1e-9) for ws in opened.row.labels for w in ws] == [
        w for ws in labels for w in ws
    ]


def test_the_modality_is(opened):
    assert {h.Modality for h in opened.headers} == {opened.row.modality}


def test_every_file_is_in_the_volume_once(opened):
    scanned = [i.path for i in lv.scan_headers(opened.folder).instances]
    assert sorted(opened.paths.ravel()) == sorted(scanned)


def decoded(path):
    """Return the stored numbers of a file by pydicom, or by GDCM where pydicom lacks a decoder."""
    dataset = pydicom.dcmread(path)
    try:
        return dataset.pixel_array
    except (RuntimeError, NotImplementedError):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import SimpleITK as sitk  # noqa: N813
        return sitk.GetArrayFromImage(sitk.ReadImage(path))[0]


def rescaled(path, header):
    slope, intercept = (float(header.get(k, v)) for k, v in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    return decoded(path).astype(np.float64) * slope + intercept


def test_every_frame_has_the_values_of_pydicom(opened):
    values = opened.volume.values.reshape(-1, *opened.volume.shape[-2:])
    for frame, path, header in zip(values, opened.paths.ravel(), opened.headers, strict=True):
        np.testing.assert_array_equal(frame, rescaled(str(path), header).astype(values.dtype))


def test_every_value_is_held_exactly_or_as_its_nearest_float32(opened):
    whole = all(float(h.get(k, 0)).is_integer() for h in opened.headers for k in ("RescaleSlope", "RescaleIntercept"))
    assert opened.volume.dtype == ("int16" if whole else "float32")


def test_every_corner_lies_where_the_header_of_its_frame_puts_it(opened):
    theirs = made.corners_of(opened.headers).reshape(-1, opened.volume.sizes["z"], 4, 3)
    ours = made.corners_in(opened.volume)
    assert np.abs(theirs - ours).max() < TOLERANCE


def test_slices_ascend_along_their_normal(opened):
    first = opened.headers[: opened.volume.sizes["z"]]
    normal = made.normal_of([float(v) for v in first[0].ImageOrientationPatient])
    heights = np.array([[float(v) for v in h.ImagePositionPatient] for h in first]) @ normal
    assert (np.diff(heights) > 0).all()


# Other readers


def corners(affine, shape):
    ends = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    return ends @ affine[:3, :3].T + affine[:3, 3]


def apart(volume, grid):
    """Return how far the corners of another reader's grid lie from ours, mm."""
    grid = on_axes_of(grid, volume.vol.affine)
    shape = volume.shape[-3:]
    assert grid.values.shape == shape
    return float(np.abs(corners(volume.vol.affine, shape) - corners(grid.affine, shape)).max())


def niftis(folder, output):
    """Return the volumes that dcm2niix makes of a folder."""
    import dcm2niix

    asked = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "%e_%p_%r", "-o", str(output), str(folder)]
    subprocess.run(asked, check=False, capture_output=True)
    found = [nibabel.load(p, mmap=False) for p in sorted(output.glob("*.nii"))]
    return [
        Grid(np.asarray(i.dataobj)[..., 0] if i.ndim == 4 else np.asarray(i.dataobj), RAS_TO_LPS @ i.affine)
        for i in found
    ]


@pytest.mark.parametrize("row", [r for r in REGULAR if "tilted" not in r.codes], ids=lambda r: r.path)
def test_dcm2niix_agrees_on_where_the_volume_lies(row, tmp_path):
    volume = opened_of(row).volume
    found = [g for g in niftis(opened_of(row).folder, tmp_path) if sorted(g.values.shape) == sorted(row.shape[-3:])]
    assert found
    assert max(apart(volume, g) for g in found) < TOLERANCE


@pytest.mark.parametrize(
    "row", [r for r in REGULAR if r.dims == "z y x" and "compressed" not in r.path], ids=lambda r: r.path
)
def test_simpleitk_agrees_on_where_the_volume_lies(row):
    assert apart(opened_of(row).volume, read_with_simpleitk(opened_of(row).folder)) < TOLERANCE


def read_with_highdicom(paths):
    """Read a plain 3-D series; index order is (k, row, column)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import highdicom

        datasets = [pydicom.dcmread(str(p)) for p in paths]
        for dataset in datasets:  # without one, highdicom takes no position as one in the patient
            dataset.FrameOfReferenceUID = dataset.get("FrameOfReferenceUID") or "1.2.3"
        volume = highdicom.get_volume_from_series(datasets)
    return Grid(volume.array, volume.affine)


@pytest.mark.parametrize("row", [r for r in PLAIN if "compressed" not in r.path], ids=lambda r: r.path)
def test_highdicom_agrees_on_where_the_volume_lies(row):
    opened = opened_of(row)
    theirs = read_with_highdicom(opened.paths.ravel())
    ours = opened.volume.vol.affine @ np.eye(4)
    assert on_axes_of(theirs, ours).values.shape == opened.volume.shape
    assert apart(opened.volume, theirs) < TOLERANCE


@pytest.mark.parametrize("row", [r for r in PLAIN if "compressed" not in r.path], ids=lambda r: r.path)
def test_highdicom_agrees_on_every_value(row):
    opened = opened_of(row)
    theirs = on_axes_of(read_with_highdicom(opened.paths.ravel()), opened.volume.vol.affine).values
    if opened.headers[0].PhotometricInterpretation == "MONOCHROME1":  # highdicom inverts, as if to show them
        slope = float(opened.headers[0].RescaleSlope)
        theirs = (65535 - np.rint(theirs / slope)) * slope
    np.testing.assert_allclose(opened.volume.values, theirs, rtol=2**-23, atol=0)


# What is refused, and what asks which


@pytest.mark.parametrize(("path", "why"), REFUSED.items(), ids=REFUSED.keys())
def test_what_does_not_open_yet_is_refused_by_name(path, why):
    with pytest.raises(UnsupportedSeriesError, match=f"{path}.*does not open.*{why}"):
        lv.open_volume(DATA / path)


def test_two_series_in_one_folder_ask_which():
    with pytest.raises(SeriesChoiceError, match=r"2 series(?s:.*)4 images(?s:.*)4 images"):
        lv.open_volume(DATA / "edge_dicom2nifti/generic")


def test_one_uid_in_two_encodings_is_used_once_and_said():
    folder = DATA / "edge_dicom2nifti/generic"
    uid = lv.scan_headers(folder / "compressed_j2k").instances[0].series_uid
    volume = lv.open_volume(folder, series=uid)
    assert (volume.sizes["z"], made.codes(volume)) == (4, ["different-copies"])


def test_the_missing_slices_of_a_real_series_are_named_and_filled():
    volume = lv.open_volume(DATA / "edge_dicom2nifti/failing/sliceincrement", missing="fill")
    assert volume.shape == (5, 512, 512)
    assert np.isnan(volume.isel(y=0, x=0).values).tolist() == [False, False, False, True, False]
    (found,) = lv.findings_of(volume)
    assert (found.code, found.slices) == ("missing-slices", (3,))


def test_the_real_tilt_is_rectified_to_where_its_headers_put_it():
    volume = opened_of(next(r for r in ROWS if "tilted" in r.codes)).volume
    result = lv.rectify(volume)
    assert result.vol.geometry.shear == pytest.approx(0, abs=1e-6)
    place = volume.vol.index_to_position((2, 200, 300))
    k, j, i = result.vol.position_to_index(place)
    assert (k, i) == (pytest.approx(2, abs=1e-6), pytest.approx(300, abs=1e-6))
    low = int(np.floor(j))
    pair = result.isel(z=2, x=300, y=slice(low, low + 2)).values
    assert pair[0] + (j - low) * (pair[1] - pair[0]) == pytest.approx(between(volume, j, low), abs=0.02)


def between(volume, j, low):
    """Return what interpolating twice between rows 199, 200 and 201 gives at row 200."""
    rows = volume.isel(z=2, x=300, y=slice(199, 202)).values.astype(float)
    part = j - low
    return part * (1 - part) * (rows[0] + rows[2]) + (part**2 + (1 - part) ** 2) * rows[1]


def test_phase_and_magnitude_have_a_slope_of_their_own():
    volume = opened_of(next(r for r in ROWS if "component" in r.dims)).volume
    ranges = [(float(v.min()), float(v.max())) for v in (volume.sel(component=c) for c in ("magnitude", "phase"))]
    assert ranges[0][0] >= 0
    assert ranges[1][0] < -1000
