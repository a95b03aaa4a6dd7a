"""Parametric maps, doses, nuclear medicine and cine: the values and the places that the standard gives them."""

from __future__ import annotations

import re
import warnings
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
from pydicom.data import get_testdata_file

import lazyvol as lv

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # SWIG types of SimpleITK, from Python 3.12
    import SimpleITK as sitk  # noqa: N813  # as its own documentation has it

COUNT = 5
MAPS = ["float32", "float64", "uint16", "uint8"]
ELEMENTS = {"float32": "FloatPixelData", "float64": "DoubleFloatPixelData"}


def planes_like(volume, positions, stored, orientation=made.AXIAL):
    """Check that a volume has these frames at these positions, in the order along the normal."""
    where, expected = km.in_order(positions, stored, orientation)
    np.testing.assert_allclose(made.corners_in(volume), km.corners_at(where, orientation), atol=1e-5)
    np.testing.assert_array_equal(volume, expected)


# Parametric maps


def numbers(dtype):
    """Return stored numbers of a map; fractions where the type has them."""
    return km.frames(COUNT, dtype) / 8 if dtype.startswith("f") else km.frames(COUNT, dtype)


@pytest.fixture(scope="module", params=MAPS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def images():
    return km.ct_images(COUNT)


@pytest.fixture(scope="module")
def map_path(kind, images, tmp_path_factory):
    dataset = km.map_of(images, numbers(kind).astype(kind), slope=0.5, intercept=-3.0)
    return km.save(tmp_path_factory.mktemp("map") / "map.dcm", dataset)


@pytest.fixture
def float_map(images, tmp_path):
    return km.save(tmp_path / "map.dcm", km.map_of(images, numbers("float32").astype("f4")))


def test_a_map_holds_real_world_values(map_path, kind):
    np.testing.assert_array_equal(lv.open_volume(map_path), numbers(kind) * 0.5 - 3)


def test_a_map_of_floats_has_the_type_that_it_stores(map_path, kind):
    expected = "float64" if kind == "float64" else "float32"
    assert lv.open_volume(map_path).dtype == expected


def test_a_map_of_doubles_keeps_every_bit(images, tmp_path):
    values = np.random.default_rng(1).normal(size=(COUNT, km.ROWS, km.COLUMNS))
    path = km.save(tmp_path / "map.dcm", km.map_of(images, values))
    np.testing.assert_array_equal(lv.open_volume(path).values, values, strict=True)


def test_a_map_of_floats_keeps_what_is_no_number(images, tmp_path):
    dataset = km.map_of(images, numbers("float32").astype("f4"))
    content = np.frombuffer(dataset.FloatPixelData, "<f4").copy()
    content[:3] = np.nan, np.inf, -np.inf
    dataset.FloatPixelData = content.tobytes()
    last = lv.open_volume(km.save(tmp_path / "map.dcm", dataset)).isel(z=-1)  # it stands first in the file
    np.testing.assert_array_equal(last.values[0, :3], np.array([np.nan, np.inf, -np.inf], "f4"))


def test_a_map_of_integers_with_whole_slope_holds_integers(images, tmp_path):
    path = km.save(tmp_path / "map.dcm", km.map_of(images, km.frames(COUNT), slope=3.0, intercept=-7.0))
    np.testing.assert_array_equal(lv.open_volume(path), km.frames(COUNT).astype(int) * 3 - 7)


def test_a_map_has_the_dimensions_of_space(map_path):
    assert dict(lv.open_volume(map_path).sizes) == {"z": COUNT, "y": km.ROWS, "x": km.COLUMNS}


def test_a_map_lies_where_its_images_do(map_path, images):
    np.testing.assert_allclose(made.corners_in(lv.open_volume(map_path)), made.corners_of(images), atol=1e-6)


def test_an_oblique_map_lies_where_its_images_do(tmp_path):
    images = km.ct_images(COUNT, orientation=km.OBLIQUE)
    volume = lv.open_volume(km.save(tmp_path / "map.dcm", km.map_of(images, km.frames(COUNT, "f4"))))
    planes_like(volume, [i.ImagePositionPatient for i in images], km.frames(COUNT), km.OBLIQUE)


def test_a_map_has_the_units_of_its_mapping(map_path):
    assert lv.open_volume(map_path).attrs["units"] == "um2/s"


def test_a_map_has_the_name_of_its_mapping(map_path):
    assert lv.open_volume(map_path).attrs["long_name"] in ("Apparent Diffusion Coefficient", "ADC")


def test_a_map_leaves_no_finding(map_path):
    assert made.codes(lv.open_volume(map_path)) == []


def test_opening_a_map_reads_no_pixel(map_path, reads):  # noqa: F811
    repr(lv.open_volume(map_path))
    assert reads.ranges == []


def test_one_plane_of_a_map_reads_its_frame(map_path, kind, reads):  # noqa: F811
    plane = lv.open_volume(map_path).isel(z=0)
    size = km.ROWS * km.COLUMNS * np.dtype(kind).itemsize
    first = km.pixels_begin(map_path, ELEMENTS.get(kind, "PixelData")) + (COUNT - 1) * size  # from the head down
    plane.compute()
    assert reads.within(first, first + size)


def test_a_map_comes_back_from_a_store(map_path, tmp_path):
    volume = lv.open_volume(map_path)
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_nothing_of_the_patient_is_in_a_map(float_map):
    assert km.secrets_in(lv.open_volume(float_map).attrs) == []


def test_a_map_without_mapping_is_refused_or_has_no_units(images, tmp_path):
    dataset = km.map_of(images, km.frames(COUNT))
    del dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    path = km.save(tmp_path / "map.dcm", dataset)
    try:
        attrs = lv.open_volume(path).attrs
    except lv.LazyvolError:
        return
    assert "um2/s" not in attrs.get("units", "")


# Doses

OFFSETS = {
    "relative": (0.0, 2.0, 4.0, 6.0, 8.0),
    "descending": (0.0, -2.0, -4.0, -6.0, -8.0),
    "uneven": (0.0, 2.0, 5.0, 9.0, 11.5),
    "descending and uneven": (0.0, -1.0, -4.0, -5.0, -7.5),
}
STORED = km.frames(COUNT)


def positions_of(offsets, orientation=made.AXIAL):
    return np.asarray(made.ORIGIN) + np.outer(offsets, made.normal_of(orientation))


def in_gray(stored, scaling=0.0125):
    return (stored.astype(np.float64) * scaling).astype(np.float32)


@pytest.fixture(params=OFFSETS.values(), ids=OFFSETS)
def offsets(request):
    return request.param


@pytest.mark.parametrize(
    "orientation", [made.AXIAL, km.OBLIQUE, made.CORONAL, (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)],
    ids=["axial", "oblique", "coronal", "from the feet"],
)  # fmt: skip
def test_relative_offsets_lie_along_the_normal(tmp_path, offsets, orientation):
    volume = lv.open_volume(km.write(tmp_path / "dose.dcm", km.dose(STORED, offsets, orientation=orientation)))
    planes_like(volume, positions_of(offsets, orientation), in_gray(STORED), orientation)


def test_absolute_offsets_are_heights_in_the_patient(tmp_path, offsets):
    heights = tuple(made.ORIGIN[2] + o for o in offsets)
    volume = lv.open_volume(km.write(tmp_path / "dose.dcm", km.dose(STORED, heights)))
    planes_like(volume, positions_of(offsets), in_gray(STORED))


def test_absolute_offsets_are_heights_for_a_prone_patient_too(tmp_path, offsets):
    prone = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    heights = tuple(made.ORIGIN[2] + o for o in offsets)
    volume = lv.open_volume(km.write(tmp_path / "dose.dcm", km.dose(STORED, heights, orientation=prone)))
    planes_like(volume, positions_of(offsets), in_gray(STORED), prone)


@examples(15)
@given(steps=st.lists(st.integers(1, 40), min_size=1, max_size=5), down=st.booleans(), absolute=st.booleans())
def test_any_offsets_put_every_plane_at_its_place(tmp_path, steps, down, absolute):
    offsets = np.concatenate([[0], np.cumsum(steps)]) / 4 * (-1 if down else 1)
    stored = km.frames(len(offsets))
    said = offsets + made.ORIGIN[2] if absolute else offsets
    volume = lv.open_volume(km.write(tmp_path / "dose.dcm", km.dose(stored, said.tolist())))
    planes_like(volume, positions_of(offsets), in_gray(stored))


@pytest.mark.parametrize("name", ["uneven", "descending and uneven"])
def test_uneven_offsets_are_a_finding(tmp_path, name):
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS[name]))
    assert "uneven-spacing" in made.codes(lv.open_volume(path))


@pytest.mark.parametrize("name", ["relative", "descending"])
def test_even_offsets_leave_no_finding(tmp_path, name):
    assert made.codes(lv.open_volume(km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS[name])))) == []


def test_a_dose_has_the_dimensions_of_space(tmp_path):
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS["relative"]))
    assert dict(lv.open_volume(path).sizes) == {"z": COUNT, "y": km.ROWS, "x": km.COLUMNS}


@pytest.mark.parametrize(("said", "units"), [("GY", "Gy"), ("RELATIVE", "relative")])
def test_a_dose_has_its_units(tmp_path, said, units):
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS["relative"], DoseUnits=said))
    assert lv.open_volume(path).attrs["units"] == units


def test_a_dose_of_32_bits_is_exact(tmp_path):
    stored = STORED.astype("<u4") * 20_000_000
    path = km.write(tmp_path / "dose.dcm", km.dose(stored, OFFSETS["relative"], scaling=1.25e-8))
    np.testing.assert_allclose(lv.open_volume(path), stored.astype(np.float64) * 1.25e-8, rtol=2**-24)


def test_an_axial_dose_lies_where_simpleitk_has_it(tmp_path):
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS["relative"], SliceThickness=2.0))
    theirs = sitk.ReadImage(str(path))
    ours = lv.open_volume(path)
    ends = [(0, 0, 0), (COUNT - 1, km.ROWS - 1, km.COLUMNS - 1)]
    np.testing.assert_allclose(
        [ours.vol.index_to_position(i) for i in ends],
        [theirs.TransformIndexToPhysicalPoint(tuple(reversed(i))) for i in ends],
        atol=1e-6,
    )


@pytest.mark.parametrize("offsets", [OFFSETS["relative"][:3], (*OFFSETS["relative"], 10.0)], ids=["short", "long"])
def test_a_vector_of_another_length_than_the_frames_is_named(tmp_path, offsets):
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, offsets))
    assert "GridFrameOffsetVector" in km.said_of(path)


def test_a_dose_without_offsets_is_named(tmp_path):
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, (), GridFrameOffsetVector=None))
    assert km.said_of(path)


def test_offsets_that_begin_neither_at_0_nor_at_the_position_are_no_places_in_silence(tmp_path):
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, [7.0 + o for o in OFFSETS["relative"]]))
    assert km.said_of(path)


def test_absolute_offsets_of_planes_seen_from_the_feet_are_heights_or_no_places_in_silence(tmp_path):
    # PS3.3 C.8.8.3.2 has heights for (1, 0, 0, 0, 1, 0) alone; along this normal they would lie upside down.
    from_feet = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    heights = [made.ORIGIN[2] + o for o in OFFSETS["relative"]]
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, heights, orientation=from_feet))
    if not km.said_of(path):
        planes_like(lv.open_volume(path), positions_of(OFFSETS["relative"]), in_gray(STORED), from_feet)


def test_absolute_offsets_of_an_oblique_dose_are_no_places_in_silence(tmp_path):
    heights = tuple(made.ORIGIN[2] + o for o in OFFSETS["relative"])
    assert km.said_of(km.write(tmp_path / "dose.dcm", km.dose(STORED, heights, orientation=km.OBLIQUE)))


def test_one_plane_of_a_dose_reads_its_frame(tmp_path, reads):  # noqa: F811
    path = km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS["descending"]))
    plane = lv.open_volume(path).isel(z=1)  # descending, so that it is the fourth frame of five
    size = km.ROWS * km.COLUMNS * 2
    first = km.pixels_begin(path) + 3 * size
    plane.compute()
    assert reads.within(first, first + size)


@pytest.mark.parametrize("name", OFFSETS)
def test_a_dose_comes_back_from_a_store(tmp_path, name):
    volume = lv.open_volume(km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS[name])))
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_nothing_of_the_patient_is_in_a_dose(tmp_path):
    volume = lv.open_volume(km.write(tmp_path / "dose.dcm", km.dose(STORED, OFFSETS["uneven"])))
    assert km.secrets_in(volume.attrs) == []


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"])
def test_the_doses_of_pydicom_have_its_pixels(name):
    dataset = pydicom.dcmread(get_testdata_file(name))
    expected = dataset.pixel_array * float(dataset.DoseGridScaling)
    np.testing.assert_allclose(lv.open_volume(get_testdata_file(name)), expected, rtol=2**-24)


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"])
def test_the_doses_of_pydicom_lie_where_their_headers_say(name):
    dataset = pydicom.dcmread(get_testdata_file(name))
    offsets = np.array(dataset.GridFrameOffsetVector, dtype=float)
    where = np.array(dataset.ImagePositionPatient, dtype=float) + np.outer(offsets, (0, 0, 1))
    expected = km.corners_at(where, spacing=(10.0, 10.0), shape=(10, 10))
    np.testing.assert_allclose(made.corners_in(lv.open_volume(get_testdata_file(name))), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["rtdose_1frame.dcm", "rtdose_expb_1frame.dcm", "rtdose_rle_1frame.dcm"])
def test_the_doses_of_pydicom_of_one_frame_have_its_pixels(name):
    dataset = pydicom.dcmread(get_testdata_file(name))
    expected = dataset.pixel_array * float(dataset.DoseGridScaling)
    np.testing.assert_allclose(lv.open_volume(get_testdata_file(name)), expected[np.newaxis], rtol=2**-24)


# Nuclear medicine

AXES = {
    "EnergyWindowVector": "energy_window",
    "DetectorVector": "detector",
    "PhaseVector": "phase",
    "RotationVector": "rotation",
    "RRIntervalVector": "rr_interval",
    "TimeSlotVector": "time_slot",
    "AngularViewVector": "angular_view",
    "TimeSliceVector": "time_slice",
}
"""In the order that the axes have in a volume."""


def nm_file(folder: Path, kind: str, *, dtype="<u2", values=None, **counts: int):
    """Write an NM image with so many values of each vector and return its path and its frames on their axes."""
    stored = km.frames(tuple(counts.values()), dtype)
    dataset = km.nm(stored.reshape(-1, km.ROWS, km.COLUMNS), kind, km.vectors_of(**counts), **(values or {}))
    return km.write(folder / "nm.dcm", dataset), stored


NM_KINDS = {
    "static": ("STATIC", {"EnergyWindowVector": 2, "DetectorVector": 3}),
    "whole body": ("WHOLE BODY", {"EnergyWindowVector": 1, "DetectorVector": 2}),
    "dynamic": (
        "DYNAMIC",
        {"EnergyWindowVector": 2, "DetectorVector": 2, "PhaseVector": 2, "TimeSliceVector": 3},
    ),
    "gated": (
        "GATED",
        {"EnergyWindowVector": 1, "DetectorVector": 2, "RRIntervalVector": 1, "TimeSlotVector": 4},
    ),
    "tomo": (
        "TOMO",
        {"EnergyWindowVector": 2, "DetectorVector": 2, "RotationVector": 1, "AngularViewVector": 4},
    ),
    "gated tomo": (
        "GATED TOMO",
        {
            "EnergyWindowVector": 1,
            "DetectorVector": 2,
            "RotationVector": 2,
            "RRIntervalVector": 2,
            "TimeSlotVector": 2,
            "AngularViewVector": 3,
        },
    ),
}


@pytest.fixture(params=NM_KINDS.values(), ids=NM_KINDS)
def projections(request, tmp_path):
    """Path of an NM image without slices, the counts of its vectors, and its frames on their axes."""
    kind, counts = request.param
    path, stored = nm_file(tmp_path, kind, **counts)
    return path, counts, stored


def test_projections_have_an_axis_for_each_vector_of_more_than_one_value(projections):
    path, counts, _ = projections
    expected = tuple(AXES[k] for k, n in counts.items() if n > 1)
    assert lv.open_volume(path).dims == (*expected, "z", "y", "x")


def test_each_projection_is_at_its_place(projections):
    path, counts, stored = projections
    kept = [n for n in counts.values() if n > 1]
    np.testing.assert_array_equal(lv.open_volume(path), stored.reshape(*kept, 1, km.ROWS, km.COLUMNS))


def test_the_labels_of_projections_are_the_integers_of_their_vectors(projections):
    path, counts, _ = projections
    volume = lv.open_volume(path)
    expected = {AXES[k]: list(range(1, n + 1)) for k, n in counts.items() if n > 1}
    assert {name: volume[name].values.tolist() for name in expected} == expected


def test_projections_have_no_labels_along_z(projections):
    assert "z" not in lv.open_volume(projections[0]).coords


def test_projections_come_back_from_a_store(projections, tmp_path):
    volume = lv.open_volume(projections[0])
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_frames_in_another_order_than_their_vectors_are_sorted(tmp_path):
    vectors = km.vectors_of(EnergyWindowVector=2, DetectorVector=3)
    stored, order = km.frames(6), [4, 1, 5, 0, 3, 2]
    mixed = {k: [v[n] for n in order] for k, v in vectors.items()}
    path = km.write(tmp_path / "nm.dcm", km.nm(stored[order], "STATIC", mixed))
    np.testing.assert_array_equal(lv.open_volume(path), stored.reshape(2, 3, 1, km.ROWS, km.COLUMNS))


def test_axes_have_their_order_whatever_that_of_the_pointer(tmp_path):
    counts = {"TimeSliceVector": 2, "DetectorVector": 3, "EnergyWindowVector": 2}
    path, stored = nm_file(tmp_path, "DYNAMIC", **counts)
    volume = lv.open_volume(path)
    assert volume.dims[:3] == ("energy_window", "detector", "time_slice")
    np.testing.assert_array_equal(volume.isel(z=0), stored.transpose(2, 1, 0, 3, 4))


def test_labels_are_those_of_the_vector_and_not_counted(tmp_path):
    vectors = {"EnergyWindowVector": [1, 1], "DetectorVector": [2, 5]}
    path = km.write(tmp_path / "nm.dcm", km.nm(km.frames(2), "STATIC", vectors))
    assert lv.open_volume(path).detector.values.tolist() == [2, 5]


def test_one_projection_reads_its_frame(projections, reads):  # noqa: F811
    path, _, stored = projections
    volume = lv.open_volume(path)
    size = km.ROWS * km.COLUMNS * 2
    last = km.pixels_begin(path) + (stored.size // (km.ROWS * km.COLUMNS) - 1) * size
    volume.isel(dict.fromkeys(volume.dims[:-2], -1)).compute()
    assert reads.within(last, last + size)


@pytest.mark.parametrize("orientation", [made.AXIAL, made.CORONAL, km.OBLIQUE], ids=["axial", "coronal", "oblique"])
@pytest.mark.parametrize("spacing", [2.5, -2.5], ids=["along", "against"])
def test_reconstructed_slices_lie_along_the_normal(tmp_path, orientation, spacing):
    values = {"SpacingBetweenSlices": spacing, "orientation": orientation}
    path, stored = nm_file(tmp_path, "RECON TOMO", values=values, SliceVector=COUNT)
    where = np.asarray(made.ORIGIN) + np.outer(np.arange(COUNT) * spacing, made.normal_of(orientation))
    planes_like(lv.open_volume(path), where, stored, orientation)


def test_reconstructed_slices_in_another_order_lie_where_their_numbers_say(tmp_path):
    order = [3, 0, 4, 1, 2]
    stored = km.frames(COUNT)
    vectors = {"SliceVector": [k + 1 for k in order]}
    path = km.write(tmp_path / "nm.dcm", km.nm(stored[order], "RECON TOMO", vectors, SpacingBetweenSlices=2.5))
    planes_like(lv.open_volume(path), positions_of(np.arange(COUNT) * 2.5), stored)


def test_reconstructed_slices_leave_no_finding(tmp_path):
    path, _ = nm_file(tmp_path, "RECON TOMO", values={"SpacingBetweenSlices": 2.5}, SliceVector=COUNT)
    assert made.codes(lv.open_volume(path)) == []


GATED = {"RRIntervalVector": 2, "TimeSlotVector": 3, "SliceVector": 4}


@pytest.mark.parametrize("spacing", [2.5, -2.5], ids=["along", "against"])
def test_gated_slices_have_axes_before_z(tmp_path, spacing):
    path, stored = nm_file(tmp_path, "RECON GATED TOMO", values={"SpacingBetweenSlices": spacing}, **GATED)
    volume = lv.open_volume(path)
    assert volume.dims == ("rr_interval", "time_slot", "z", "y", "x")
    np.testing.assert_array_equal(volume, stored if spacing > 0 else stored[:, :, ::-1])


def test_gated_slices_come_back_from_a_store(tmp_path):
    path, _ = nm_file(tmp_path, "RECON GATED TOMO", values={"SpacingBetweenSlices": 2.5}, **GATED)
    volume = lv.open_volume(path)
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_reconstructed_slices_without_position_have_no_geometry(tmp_path):
    values = {"SpacingBetweenSlices": 2.5, "position": None}
    path, stored = nm_file(tmp_path, "RECON TOMO", values=values, SliceVector=COUNT)
    volume = lv.open_volume(path)
    assert "geometry-unknown" in made.codes(volume)
    np.testing.assert_array_equal(volume, stored)


@pytest.mark.parametrize("vector", ["EnergyWindowVector", "SliceVector", "DetectorVector"])
@pytest.mark.parametrize("length", [3, 5], ids=["short", "long"])
def test_a_vector_of_wrong_length_is_named(tmp_path, vector, length):
    vectors = {"EnergyWindowVector": [1, 1, 2, 2], "SliceVector": [1, 2, 1, 2], "DetectorVector": [1] * 4}
    vectors[vector] = (vectors[vector] * 2)[:length]
    path = km.write(tmp_path / "nm.dcm", km.nm(km.frames(4), "RECON TOMO", vectors, SpacingBetweenSlices=2.5))
    assert vector in km.said_of(path)


def test_a_vector_that_the_pointer_names_and_the_file_lacks_is_named(tmp_path):
    vectors = {"EnergyWindowVector": [1, 1, 2, 2], "DetectorVector": [1, 2, 1, 2]}
    dataset = km.nm(km.frames(4), "STATIC", vectors)
    del dataset.DetectorVector
    assert "DetectorVector" in km.said_of(km.write(tmp_path / "nm.dcm", dataset))


def test_frames_that_the_vectors_do_not_tell_apart_are_not_mixed_up_in_silence(tmp_path):
    vectors = {"EnergyWindowVector": [1, 1, 2, 2], "DetectorVector": [1, 1, 1, 2]}
    said = km.said_of(km.write(tmp_path / "nm.dcm", km.nm(km.frames(4), "STATIC", vectors)))
    assert re.search("apart|several|share|same|twice|incomplete", said)


def test_nothing_of_the_patient_is_in_nuclear_medicine(projections):
    assert km.secrets_in(lv.open_volume(projections[0]).attrs) == []


# Cine

CINE = {"ultrasound": km.US_CINE, "angiography": km.XA, "fluoroscopy": km.XRF}
SHOTS = km.frames(4, "u1")


@pytest.fixture(params=CINE.values(), ids=CINE)
def sop_class(request):
    return request.param


@pytest.mark.parametrize("dtype", ["u1", "<u2"], ids=["8 bit", "16 bit"])
def test_a_cine_holds_its_frames_along_time(tmp_path, sop_class, dtype):
    stored = km.frames(4, dtype)
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(stored, sop_class, FrameTime=40.0)))
    np.testing.assert_array_equal(volume.values, stored[:, np.newaxis].astype(dtype.strip("<")), strict=True)


def test_a_cine_has_time_and_a_z_of_one(tmp_path, sop_class):
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class, FrameTime=40.0)))
    assert dict(volume.sizes) == {"time": 4, "z": 1, "y": km.ROWS, "x": km.COLUMNS}


def test_a_cine_has_no_geometry_and_says_so(tmp_path, sop_class):
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class, FrameTime=40.0)))
    assert "geometry-unknown" in made.codes(volume)


TIMES = {
    "vector": ({"FrameTimeVector": (0.0, 40.0, 30.0, 50.0)}, [0, 0.04, 0.07, 0.12]),
    "frame time": ({"FrameTime": 40.0}, [0, 0.04, 0.08, 0.12]),
    "cine rate": ({"CineRate": 20}, [0, 0.05, 0.1, 0.15]),
    "display rate": ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2, 0.3]),
    "frame time and rate": ({"FrameTime": 40.0, "CineRate": 7}, [0, 0.04, 0.08, 0.12]),
}


@pytest.fixture(params=TIMES.values(), ids=TIMES)
def timed(request, tmp_path, sop_class):
    said, seconds = request.param
    return lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class, **said))), seconds


def test_the_times_of_a_cine_are_seconds_since_the_first(timed):
    volume, seconds = timed
    np.testing.assert_allclose(volume.time, seconds, rtol=0, atol=1e-9)


def test_the_times_of_a_cine_have_their_unit(timed):
    assert timed[0].time.attrs["units"] == "s"


def test_a_vector_that_does_not_begin_at_0_still_gives_0_for_the_first(tmp_path):
    path = km.write(tmp_path / "cine.dcm", km.cine(SHOTS, FrameTimeVector=(40.0, 40.0, 30.0, 50.0)))
    np.testing.assert_allclose(lv.open_volume(path).time, [0, 0.04, 0.07, 0.12], rtol=0, atol=1e-9)


def test_a_cine_without_times_is_counted(tmp_path, sop_class):
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class)))
    assert volume.time.values.tolist() == [0, 1, 2, 3]


def test_a_count_has_no_unit(tmp_path, sop_class):
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class)))
    assert "units" not in volume.time.attrs


@pytest.mark.parametrize("said", [{"FrameTime": 0.0}, {"CineRate": 0}], ids=["frame time", "rate"])
def test_a_time_of_0_between_frames_is_no_time(tmp_path, said):
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, **said)))
    assert volume.time.values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("vector", [(0.0, 40.0), (0.0, *[40.0] * 9)], ids=["short", "long"])
def test_a_vector_of_times_of_wrong_length_is_named(tmp_path, vector):
    path = km.write(tmp_path / "cine.dcm", km.cine(SHOTS, FrameTimeVector=vector))
    assert "FrameTimeVector" in km.said_of(path)


def test_a_compressed_cine_is_the_same(tmp_path, sop_class):
    path = km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class, FrameTime=40.0))
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    packed = km.save(tmp_path / "packed.dcm", dataset)
    np.testing.assert_array_equal(lv.open_volume(packed), lv.open_volume(path))


def test_opening_a_cine_reads_no_pixel(tmp_path, reads):  # noqa: F811
    repr(lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, FrameTime=40.0))))
    assert reads.ranges == []


def test_one_time_of_a_cine_reads_its_frame(tmp_path, reads):  # noqa: F811
    path = km.write(tmp_path / "cine.dcm", km.cine(SHOTS, FrameTime=40.0))
    one = lv.open_volume(path).isel(time=2)
    size = km.ROWS * km.COLUMNS
    first = km.pixels_begin(path) + 2 * size
    one.compute()
    assert reads.within(first, first + size)


@pytest.mark.parametrize("said", [{"FrameTime": 40.0}, {}], ids=["with times", "without times"])
def test_a_cine_comes_back_from_a_store(tmp_path, sop_class, said):
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class, **said)))
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


def test_nothing_of_the_patient_is_in_a_cine(tmp_path, sop_class):
    volume = lv.open_volume(km.write(tmp_path / "cine.dcm", km.cine(SHOTS, sop_class)))
    assert km.secrets_in(volume.attrs) == []


def test_a_cine_in_colour_has_times_first_and_samples_last(tmp_path, sop_class):
    colour = np.random.default_rng(3).integers(0, 256, (3, km.ROWS, km.COLUMNS, 3), "u1")
    path = km.write(tmp_path / "cine.dcm", km.cine(colour, sop_class, FrameTime=40.0))
    volume = lv.open_volume(path)
    assert volume.dims == ("time", "z", "y", "x", "sample")
    np.testing.assert_array_equal(volume.isel(z=0), colour)


@pytest.mark.parametrize(
    ("sop_class", "dtype"), [(km.CAPTURE_8, "u1"), (km.CAPTURE_16, "<u2")], ids=["8 bit", "16 bit"]
)
def test_captures_without_times_lie_along_z(tmp_path, sop_class, dtype):
    stored = km.frames(4, dtype)
    volume = lv.open_volume(km.write(tmp_path / "capture.dcm", km.cine(stored, sop_class)))
    assert volume.dims == ("z", "y", "x")
    np.testing.assert_array_equal(volume, stored)


def test_the_order_of_captures_is_said_to_come_from_their_numbers(tmp_path):
    volume = lv.open_volume(km.write(tmp_path / "capture.dcm", km.cine(SHOTS, km.CAPTURE_8)))
    assert "order-from-frame-number" in made.codes(volume)


@pytest.mark.parametrize("scaling", [None, 0], ids=["absent", "0"])
def test_stored_numbers_without_their_scale_are_no_dose(tmp_path, scaling):
    dataset = km.dose(np.ones((2, 3, 4), np.uint16), (0.0, 2.0))
    if scaling is None:
        del dataset.DoseGridScaling
    else:
        dataset.DoseGridScaling = scaling
    with pytest.raises(lv.LazyvolError, match="DoseGridScaling is absent or 0"):
        lv.open_volume(km.write(tmp_path / "dose.dcm", dataset))
