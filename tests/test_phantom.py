"""The phantom: valid files in an order that names do not give away, and one plane in memory at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pydicom
import pytest

from lazyvol.phantom import FICTITIOUS_PATIENT, body_ct, write_body_ct, write_series


@pytest.fixture
def headers(chest_folder):
    return [pydicom.dcmread(p) for p in sorted(chest_folder.iterdir())]


def test_files_are_dicom_with_preamble(chest_folder):
    assert {p.read_bytes()[128:132] for p in chest_folder.iterdir()} == {b"DICM"}


def test_files_are_read_without_a_warning(headers):
    assert {h.pixel_array.shape for h in headers} == {(48, 64)}


@pytest.mark.parametrize(
    "keyword",
    ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "ImageOrientationPatient", "PixelSpacing"],
)
def test_slices_of_a_series_share(headers, keyword):
    assert len({str(h[keyword].value) for h in headers}) == 1


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "InstanceNumber", "ImagePositionPatient"])
def test_each_slice_has_its_own(headers, keyword):
    assert len({str(h[keyword].value) for h in headers}) == 24


def test_names_are_not_in_the_order_of_slices(headers):
    heights = [h.ImagePositionPatient[2] for h in headers]
    assert heights not in (sorted(heights), sorted(heights, reverse=True))


def test_instance_numbers_fall_along_z(headers):
    by_height = sorted(headers, key=lambda h: h.ImagePositionPatient[2])
    assert [h.InstanceNumber for h in by_height] == list(range(24, 0, -1))


def test_the_middle_of_the_body_is_at_zero(headers):
    heights = [h.ImagePositionPatient[2] for h in headers]
    assert min(heights) + max(heights) == 0


def test_the_patient_is_fictitious(headers):
    assert all(str(h[k].value) == v for h in headers for k, v in FICTITIOUS_PATIENT.items())


def test_values_are_hounsfield_units_of_a_body():
    body = body_ct((24, 48, 64), (40.0, 8.0, 8.0))
    assert body.min() >= -1024
    assert body.max() <= 3071
    assert {-1000, 0, 1000} <= set(np.round(body[body > -1020], -3).astype(int).ravel())


def test_the_seed_changes_uids_and_not_the_picture(tmp_path):
    one, other = (
        write_body_ct(tmp_path / str(seed), shape=(3, 12, 16), spacing=(300.0, 30.0, 30.0), seed=seed)
        for seed in (1, 2)
    )
    first, second = (pydicom.dcmread(paths[1]) for paths in (one, other))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    np.testing.assert_array_equal(first.pixel_array, second.pixel_array)


def test_one_plane_is_in_memory_at_a_time(tmp_path):
    planes = (np.full((512, 512), k, dtype="int16") for k in range(12))
    tracemalloc.start()
    try:
        write_series(tmp_path, planes, n=12, spacing=(1.0, 1.0, 1.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * 2**20


def test_values_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="plane 0 has shape"):
        write_series(tmp_path, np.full((1, 2, 2), 5000), spacing=(1, 1, 1), bits_stored=12, signed=False)


@pytest.mark.parametrize("shape", [(0, 8, 8), (3, -1, 8)])
def test_an_impossible_shape_is_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="shape"):
        write_body_ct(tmp_path, shape=shape)
