"""A multi-frame file is the series of single frames that it stands for.

What lazyvol makes of single frames is right by other tests; so is, of the same frames in one file, whatever is
identical. Positions and values are held against the functional groups and pydicom's frames too, and against highdicom.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from copy import deepcopy
from functools import cache
from io import BytesIO
from types import SimpleNamespace

import dask
import enhanced_made as em
import numpy as np
import pydicom
import pytest
import series_made as made
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from made import examples
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from readers import Grid, on_axes_of
from test_lazy import bytes_of, merged, read_ahead, trace

import lazyvol as lv
from lazyvol.errors import (
    DicomReadError,
    GeometryError,
    LazyvolError,
    PixelReadError,
    UnsupportedSeriesError,
)
from lazyvol.geometry import ZYX, Geometry

OWN = ("sop_instance_uid", "source", "instance_number", "frame_number")
"""Coordinates in which one file cannot be as many."""
RICH = "MR, times of echoes"
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
PLAIN = {"ImageType": em.FRAME_TYPE, "RescaleType": "US", "RescaleSlope": 1.0, "RescaleIntercept": 0.0}
TIMES = ("20260101115958.5", "20260101120001.0", "20260101120003.5")


def ct(count=5, **values):
    return made.series(count, **({"ImageType": em.FRAME_TYPE, "RescaleType": "HU"} | values))


def mr(axes, slices=3, **values):
    return made.grid(axes, slices, **(PLAIN | values))


def without(images, *gone):
    return [i for n, i in enumerate(images) if n not in gone]


CASES = {
    "CT": (lambda: ct(6), ()),
    "CT of one slice": (lambda: ct(1), ()),
    "CT, oblique": (lambda: ct(orientation=OBLIQUE), ()),
    "CT, sagittal": (lambda: ct(orientation=made.SAGITTAL), ()),
    "CT, tilted": (lambda: ct(step=(0.0, 0.4, 2.5)), ()),
    "CT, a slice missing": (lambda: ct(at=(0, 1, 3, 4, 5)), ()),
    "CT, uneven": (lambda: ct(at=(0, 1, 2.2, 3, 4.1)), ()),
    "CT, window of each frame": (lambda: ct(each=lambda k: {"WindowCenter": 40.0 + k, "WindowWidth": 400.0}), ()),
    "CT, slope and intercept of each frame": (
        lambda: ct(each=lambda k: {"RescaleSlope": 1.0 + k / 8, "RescaleIntercept": -1000.0 + k}),
        (),
    ),
    "CT, tube current of each frame": (
        lambda: ct(each=lambda k: {"XRayTubeCurrent": 100 + 10 * k, "ExposureTime": 500}, KVP=120.0),
        (),
    ),
    "CT, reconstruction": (
        lambda: ct(KVP=120.0, FilterType="WEDGE", ConvolutionKernel="B30f", ReconstructionDiameter=320.0),
        (),
    ),
    "CT, phases of the heart": (
        lambda: made.grid(
            {"NominalPercentageOfCardiacPhase": (30.0, 40.0, 75.0)},
            SOPClassUID=made.CT,
            Modality="CT",
            **(PLAIN | {"RescaleIntercept": -1024.0, "RescaleType": "HU"}),
        ),
        ("NominalPercentageOfCardiacPhase",),
    ),
    "CT, phases of breathing": (
        lambda: made.grid(
            {"NominalPercentageOfRespiratoryPhase": (0.0, 50.0)},
            SOPClassUID=made.CT,
            Modality="CT",
            **(PLAIN | {"RescaleIntercept": -1024.0, "RescaleType": "HU"}),
        ),
        ("NominalPercentageOfRespiratoryPhase",),
    ),
    "MR, echoes": (lambda: mr({"EchoTime": (4.5, 9.0, 13.5)}), ("EffectiveEchoTime",)),
    "MR, b-values": (lambda: mr({"DiffusionBValue": (0.0, 500.0, 1000.0)}), ("DiffusionBValue",)),
    "MR, flip angles": (lambda: mr({"FlipAngle": (2.0, 15.0)}), ("FlipAngle",)),
    "MR, times": (lambda: mr({"AcquisitionDateTime": TIMES}), ()),
    "MR, temporal positions": (lambda: mr({"TemporalPositionIdentifier": (1, 2, 3)}), ("TemporalPositionIndex",)),
    "MR, delays after the R peak": (
        lambda: mr({"TriggerTime": (0.0, 40.0, 80.0)}),
        ("NominalCardiacTriggerDelayTime",),
    ),
    "MR, echoes of magnitude and phase": (
        lambda: mr({"EchoTime": (4.5, 9.0), "ComplexImageComponent": ("MAGNITUDE", "PHASE")}),
        ("EffectiveEchoTime", "ComplexImageComponent"),
    ),
    "MR, times of echoes": (
        lambda: mr({"AcquisitionDateTime": TIMES[:2], "EchoTime": (4.5, 9.0)}, RepetitionTime=800.0),
        ("EffectiveEchoTime",),
    ),
    "MR, each slice at another time": (
        lambda: mr(
            {"TemporalPositionIdentifier": (1, 2)},
            each=lambda index, k: {"AcquisitionDateTime": f"202601011200{10 * index[0] + 2 * k:02d}.0"},
        ),
        ("TemporalPositionIndex",),
    ),
    "MR, an image missing": (lambda: without(mr({"EchoTime": (4.5, 9.0, 13.5)}), 4), ("EffectiveEchoTime",)),
    "PET, slope of each frame": (
        lambda: made.series(
            5,
            each=lambda k: {"RescaleSlope": 0.25 + k / 16},
            RescaleIntercept=0.0,
            **em.AS_PET,
            ImageType=em.FRAME_TYPE,
        ),
        (),
    ),
    "PET, times": (
        lambda: mr({"AcquisitionDateTime": TIMES}, **em.AS_PET, RescaleType=None, RescaleSlope=0.5),
        (),
    ),
}
"""Single-frame images, and the elements that dimension indices point to."""


@cache
def written(base, name):
    """Return images, folder of single frames, multi-frame image and its file."""
    images, dimensions = (CASES[name][0](), CASES[name][1])
    folder = base / f"case{list(CASES).index(name)}"
    made.write(folder / "single", images)
    file = em.enhanced(images, dimensions=dimensions)
    return SimpleNamespace(images=images, single=folder / "single", file=file, path=em.write(folder / "file.dcm", file))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("enhanced")


@pytest.fixture(scope="module", params=CASES)
def case(request, base):
    return written(base, request.param)


@pytest.fixture(scope="module")
def single(case):
    return lv.open_volume(case.single)


@pytest.fixture(scope="module")
def volume(case):
    return lv.open_volume(case.path)


def common(volume):
    """Return a volume without what names its files."""
    return volume.drop_vars(OWN, errors="ignore")


def assert_same(one, other):
    xr.testing.assert_identical(common(one).compute(), common(other).compute())


def item_of(file, n, group):
    """Return the functional group of frame n, its own or the shared one (PS3.3 C.7.6.16.1.1)."""
    for groups in (file.PerFrameFunctionalGroupsSequence[n], *file.get("SharedFunctionalGroupsSequence", ())):
        if group in groups:
            return groups[group].value[0]
    return Dataset()


def assert_frames_are_in_place(volume, file, stored=None):
    """Hold every slice against the functional groups and the stored numbers of the frame that it says it is."""
    stored = em.stored_of(file) if stored is None else stored
    numbers = volume.frame_number.broadcast_like(volume.isel(y=0, x=0, drop=True)).transpose(*volume.dims[:-2])
    values = volume.values
    places = made.corners_in(volume)[:, 0]
    for cell in np.ndindex(numbers.shape):
        if np.isnan(numbers.values[cell]):
            continue
        n = int(numbers.values[cell]) - 1
        transformation = item_of(file, n, "PixelValueTransformationSequence")
        slope = float(transformation.get("RescaleSlope", 1))
        expected = stored[n] * slope + float(transformation.get("RescaleIntercept", 0))
        np.testing.assert_array_equal(values[cell], expected.astype(values.dtype))
        position = np.array(item_of(file, n, "PlanePositionSequence").ImagePositionPatient, dtype=float)
        np.testing.assert_allclose(places[cell[-1]], position, atol=1e-3)


def test_a_file_has_the_dimensions_of_its_single_frames(single, volume):
    assert dict(volume.sizes) == dict(single.sizes)


def test_a_file_has_the_values_of_its_single_frames(single, volume):
    np.testing.assert_array_equal(volume.values, single.values)


def test_a_file_has_the_dtype_of_its_single_frames(single, volume):
    assert volume.dtype == single.dtype


def test_a_file_has_the_coordinates_of_its_single_frames(single, volume):
    xr.testing.assert_identical(common(volume).coords.to_dataset(), common(single).coords.to_dataset())


def test_a_file_has_the_geometry_of_its_single_frames(single, volume):
    assert repr(lv.geometry_of(volume)) == repr(lv.geometry_of(single))  # NaN where the spacing is uneven


def test_a_file_has_the_findings_of_its_single_frames(single, volume):
    assert lv.findings_of(volume) == lv.findings_of(single)


def test_a_file_has_the_attributes_of_its_single_frames(single, volume):
    assert {k: v for k, v in volume.attrs.items() if k != "findings"} == {
        k: v for k, v in single.attrs.items() if k != "findings"
    }


def test_every_image_is_in_the_volume_once(case, volume):
    if len(case.images) == 1:
        assert "frame_number" not in volume.coords
        return
    numbers = volume.frame_number.values.ravel()
    assert sorted(numbers[~np.isnan(numbers.astype(float))]) == list(range(1, len(case.images) + 1))


def test_the_frames_are_where_the_functional_groups_put_them(case, volume):
    if len(case.images) > 1:
        assert_frames_are_in_place(volume, case.file)


@pytest.mark.parametrize("name", ["CT", RICH, "MR, an image missing"])
def test_uid_and_source_of_one_file_are_scalars(base, name):
    case = written(base, name)
    volume = lv.open_volume(case.path)
    found = [(volume.coords[name].shape, str(volume.coords[name].values)) for name in ("sop_instance_uid", "source")]
    assert found == [((), "1.2.3.5.1"), ((), str(case.path))]


def test_one_frame_in_a_file_has_no_frame_number(base):
    assert "frame_number" not in lv.open_volume(written(base, "CT of one slice").path).coords


@pytest.mark.parametrize("name", ["CT", "CT, oblique", "CT, sagittal", "CT, slope and intercept of each frame"])
def test_highdicom_has_the_same_values_at_the_same_positions(base, name):
    import highdicom

    case = written(base, name)
    volume = lv.open_volume(case.path)
    theirs = highdicom.imread(case.path).get_volume(dtype=np.float64)
    grid = on_axes_of(Grid(theirs.array, theirs.affine), volume.vol.affine)
    np.testing.assert_allclose(grid.affine, volume.vol.affine, atol=1e-3)
    np.testing.assert_array_equal(volume.values, grid.values.astype(volume.dtype))


# How it is written


SYNTAXES = {
    "explicit": made.EXPLICIT,
    "implicit": made.IMPLICIT,
    "big endian": made.BIG_ENDIAN,
    "deflated": made.DEFLATED,
}


@pytest.mark.parametrize("undefined", [False, True], ids=["defined lengths", "undefined lengths"])
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_the_encoding_of_the_header_changes_nothing(base, tmp_path, syntax, undefined):
    case = written(base, RICH)
    path = em.write(tmp_path / "file.dcm", case.file, syntax=syntax, undefined=undefined)
    assert_same(lv.open_volume(path), lv.open_volume(case.path))


@pytest.mark.parametrize("undefined", [False, True], ids=["defined lengths", "undefined lengths"])
def test_a_dataset_in_memory_is_as_its_file(base, undefined):
    case = written(base, RICH)
    dataset = pydicom.dcmread(BytesIO(em.encode(case.file, undefined=undefined)))
    assert_same(lv.open_volume([dataset]), lv.open_volume(case.path))


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("CT", "PixelMeasuresSequence"),
        ("CT, oblique", "PlaneOrientationSequence"),
        ("CT", "PixelValueTransformationSequence"),
        ("CT, reconstruction", "CTXRayDetailsSequence"),
        ("CT, reconstruction", "CTReconstructionSequence"),
        ("CT", "CTImageFrameTypeSequence"),
        ("MR, times of echoes", "MRTimingAndRelatedParametersSequence"),
        ("MR, times of echoes", "MRImageFrameTypeSequence"),
        ("PET, times", "PETFrameTypeSequence"),
    ],
)
def test_a_macro_says_the_same_shared_and_in_each_frame(base, tmp_path, name, group):
    case = written(base, name)
    assert group in case.file.SharedFunctionalGroupsSequence[0]
    path = em.write(tmp_path / "file.dcm", em.enhanced(case.images, dimensions=CASES[name][1], each=[group]))
    assert_same(lv.open_volume(path), lv.open_volume(case.path))


@pytest.mark.parametrize("name", ["CT", "MR, times of echoes", "PET, times"])
@pytest.mark.parametrize("empty", [True, False], ids=["an empty shared item", "no shared sequence"])
def test_a_file_that_shares_nothing_is_the_same(base, tmp_path, name, empty):
    case = written(base, name)
    file = em.enhanced(case.images, shared=False)
    if not empty:
        del file.SharedFunctionalGroupsSequence
    assert_same(lv.open_volume(em.write(tmp_path / "file.dcm", file)), lv.open_volume(case.path))


def test_the_group_of_a_frame_wins_over_a_shared_one(base, tmp_path):
    # PS3.3 C.7.6.16.1.1 forbids both; writers that give both mean the one of the frame
    case = written(base, "CT, slope and intercept of each frame")
    file = deepcopy(case.file)
    wrong = Dataset()
    wrong.RescaleSlope, wrong.RescaleIntercept, wrong.RescaleType = 7.0, 5.0, "HU"
    file.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [wrong]
    assert_same(lv.open_volume(em.write(tmp_path / "file.dcm", file)), lv.open_volume(case.path))


def test_a_shared_group_holds_where_a_frame_has_none(base, tmp_path):
    case = written(base, "CT, slope and intercept of each frame")
    file = deepcopy(case.file)
    first, *others = file.PerFrameFunctionalGroupsSequence
    file.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = first.PixelValueTransformationSequence
    del first.PixelValueTransformationSequence
    del others[1].PixelValueTransformationSequence
    slopes, intercepts = [1.0, 1.125, 1.0, 1.375, 1.5], [-1000.0, -999.0, -1000.0, -997.0, -996.0]
    found = lv.open_volume(em.write(tmp_path / "file.dcm", file))
    expected = made.stamps(5, 0) * np.reshape(slopes, (5, 1, 1)) + np.reshape(intercepts, (5, 1, 1))
    np.testing.assert_array_equal(found.values, expected.astype(found.dtype))


def nested(**values):
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def with_decoys(file):
    """Add what looks like geometry in places where it is none: other groups, private ones, nested sequences."""
    file = deepcopy(file)
    decoy = {"ImagePositionPatient": [9.0, 9.0, 9.0], "PixelSpacing": [9.0, 9.0], "RescaleSlope": 9.0, "EchoTime": 99.0}
    for group in (*file.PerFrameFunctionalGroupsSequence, file.SharedFunctionalGroupsSequence[0]):
        plane = nested(PlanePositionSequence=[nested(**decoy)], PixelMeasuresSequence=[nested(**decoy)], **decoy)
        group.DerivationImageSequence = [nested(SourceImageSequence=[plane], DerivationDescription="made")]
        group.ReferencedImageSequence = [plane, nested(PurposeOfReferenceCodeSequence=[plane])]
        block = group.private_block(0x2005, "FICTITIOUS", create=True)
        block.add_new(0x0E, "SQ", [nested(PlanePositionSequence=[nested(**decoy)], **decoy)])
    return file


@pytest.mark.parametrize("undefined", [False, True], ids=["defined lengths", "undefined lengths"])
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_geometry_in_other_sequences_is_none_of_a_frame(base, tmp_path, syntax, undefined):
    case = written(base, RICH)
    path = em.write(tmp_path / "file.dcm", with_decoys(case.file), syntax=syntax, undefined=undefined)
    assert_same(lv.open_volume(path), lv.open_volume(case.path))


def test_a_private_sequence_of_unknown_type_and_undefined_length_is_passed_over(base, tmp_path):
    # VR UN of undefined length holds implicit items (PS3.5 6.2.2 note 3); these bytes are one with a decoy in it
    case = written(base, "CT")
    file = deepcopy(case.file)
    content = b"\x20\x00\x32\x00\x06\x00\x00\x009\\9\\9 "
    implicit = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content + b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
    for group in file.PerFrameFunctionalGroupsSequence:
        group.add(DataElement(0x20050010, "LO", "FICTITIOUS"))
        element = DataElement(0x2005100E, "UN", implicit)
        element.is_undefined_length = True
        group.add(element)
    assert_same(lv.open_volume(em.write(tmp_path / "file.dcm", file)), lv.open_volume(case.path))


def test_functional_groups_win_over_elements_of_the_file(base, tmp_path):
    case = written(base, "CT, slope and intercept of each frame")
    root = {"ImagePositionPatient": [9.0, 9.0, 9.0], "PixelSpacing": [9.0, 9.0], "RescaleSlope": 9.0}
    file = deepcopy(case.file)
    for keyword, value in (root | {"RescaleIntercept": 3.0, "ImageOrientationPatient": list(made.CORONAL)}).items():
        setattr(file, keyword, value)
    found = lv.open_volume(em.write(tmp_path / "file.dcm", file))
    np.testing.assert_array_equal(found.values, lv.open_volume(case.path).values)
    assert lv.geometry_of(found) == lv.geometry_of(lv.open_volume(case.path))


@examples(12)
@given(data=st.data())
def test_neither_order_nor_place_nor_encoding_of_the_frames_matters(base, tmp_path_factory, data):
    name = data.draw(st.sampled_from([n for n in CASES if n != "CT of one slice"]))
    case = written(base, name)
    order = data.draw(st.permutations(range(len(case.images))))
    file = em.enhanced(
        [case.images[n] for n in order],
        dimensions=CASES[name][1],
        each=data.draw(st.sets(st.sampled_from(sorted(em.MACROS[case.file.Modality])))),
    )
    path = em.write(
        tmp_path_factory.mktemp("drawn") / "file.dcm",
        file,
        syntax=data.draw(st.sampled_from(list(SYNTAXES.values()))),
        undefined=data.draw(st.booleans()),
    )
    found = lv.open_volume(path)
    assert_same(found, lv.open_volume(case.path))
    assert_frames_are_in_place(found, file)


# Options and what comes after opening


OPTIONS = {
    "dims": ("MR, times of echoes", {"dims": {"time": "AcquisitionTime", "echo": "EchoTime"}}),
    "dims of a time": ("MR, each slice at another time", {"dims": {"time": "TemporalPositionIdentifier"}}),
    "missing": ("CT, a slice missing", {"missing": "fill"}),
    "missing with a fill value": ("CT, a slice missing", {"missing": "fill", "fill_value": -2000}),
    "fill value": ("MR, an image missing", {"fill_value": 7}),
    "dtype": ("CT", {"dtype": "float64"}),
    "chunks": ("MR, echoes", {"chunks": {"z": 2}}),
    "no chunks": ("MR, echoes", {"chunks": None}),
    "tolerances": ("CT, uneven", {"tolerances": lv.Tolerances(orientation_atol=1e-3)}),
}


@pytest.mark.parametrize(("name", "options"), OPTIONS.values(), ids=OPTIONS)
def test_options_mean_the_same_for_a_file_and_its_single_frames(base, name, options):
    case = written(base, name)
    assert_same(lv.open_volume(case.path, **options), lv.open_volume(case.single, **options))


def test_frames_that_nothing_tells_apart_are_in_the_order_of_the_file_with_a_finding(tmp_path):
    images = mr({"AcquisitionNumber": (1, 1)})
    made.write(tmp_path / "single", images)
    found = lv.open_volume(em.write(tmp_path / "file.dcm", em.enhanced(images)))
    assert made.codes(found) == ["axis-from-instance-number"]
    assert_same(found, lv.open_volume(tmp_path / "single"))


def test_a_file_opens_as_its_folder(base, tmp_path):
    case = written(base, RICH)
    path = em.write(tmp_path / "folder" / "file.dcm", case.file)
    xr.testing.assert_identical(lv.open_volume(path).compute(), lv.open_volume(path.parent).compute())


def test_the_engine_of_xarray_opens_a_file_of_frames(base):
    case = written(base, RICH)
    with xr.open_dataset(case.path, engine="lazyvol") as dataset:
        xr.testing.assert_identical(dataset.image.compute(), lv.open_volume(case.path).compute())


def test_a_store_keeps_a_volume_of_frames(base, tmp_path):
    volume = lv.open_volume(written(base, RICH).path)
    lv.save_zarr(volume, tmp_path / "volume.zarr")
    found = lv.open_zarr(tmp_path / "volume.zarr")
    np.testing.assert_array_equal(found.values, volume.values)
    np.testing.assert_array_equal(found.frame_number.values, volume.frame_number.values)
    np.testing.assert_array_equal(found.vol.affine, volume.vol.affine)


# Legacy converted files


def legacy(images, uid="1.2.3.5.1"):
    """Return what highdicom makes of single frames."""
    from highdicom import legacy as hd

    kinds = {
        "CT": hd.LegacyConvertedEnhancedCTImage,
        "MR": hd.LegacyConvertedEnhancedMRImage,
        "PT": hd.LegacyConvertedEnhancedPETImage,
    }
    needed = {
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyID": "1",
        "StudyDate": "20260101",
        "StudyTime": "115900",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "Manufacturer": "Fictitious",
        "ManufacturerModelName": "Made",
        "SoftwareVersions": "1",
        "DeviceSerialNumber": "1",
        "BodyPartExamined": "HEAD",
        "ContentDate": "20260101",
        "ContentTime": "120000",
        "PatientOrientation": ["L", "P"],
    }
    for image in images:
        for keyword, value in needed.items():
            if keyword not in image:
                setattr(image, keyword, value)
        made.encode(image)  # gives it file meta information
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kinds[images[0].Modality](images, "1.2.3", 7, uid, 1)


LEGACY = {
    "CT": lambda: ct(5),
    "CT, tube current of each frame": lambda: ct(each=lambda k: {"XRayTubeCurrent": 100 + 10 * k}),
    "CT, slope of each frame": lambda: ct(each=lambda k: {"RescaleSlope": 1.0 + k / 8}),
    "MR": lambda: mr({}, 5),
    "MR, echoes": lambda: mr({"EchoTime": (4.5, 9.0)}),
    "MR, times": lambda: mr({"AcquisitionDateTime": TIMES}),
    "PET, slope of each frame": lambda: made.series(
        5, each=lambda k: {"RescaleSlope": 0.25 + k / 16}, RescaleIntercept=0.0, **em.AS_PET, ImageType=em.FRAME_TYPE
    ),
}


@pytest.fixture(scope="module", params=LEGACY)
def converted(request, tmp_path_factory):
    """Volume of single frames, the image that highdicom made of them, and its volume."""
    folder = tmp_path_factory.mktemp("legacy")
    made.write(folder / "single", LEGACY[request.param]())
    file = legacy(LEGACY[request.param]())
    file.save_as(folder / "file.dcm")
    return lv.open_volume(folder / "single"), file, lv.open_volume(folder / "file.dcm")


def test_a_legacy_converted_file_has_the_values_of_its_single_frames(converted):
    single, _, volume = converted
    xr.testing.assert_equal(volume.variable.compute(), single.variable.compute())


def test_a_legacy_converted_file_has_the_geometry_of_its_single_frames(converted):
    single, _, volume = converted
    assert lv.geometry_of(volume) == lv.geometry_of(single)


def test_a_legacy_converted_file_has_the_coordinates_of_its_single_frames(converted):
    single, _, volume = converted
    ours, theirs = (common(v).coords.to_dataset() for v in (volume, single))
    xr.testing.assert_equal(ours.drop_vars(set(ours.coords) - set(theirs.coords)), theirs)


def test_the_frames_of_a_legacy_converted_file_are_where_it_says(converted):
    _, file, volume = converted
    assert_frames_are_in_place(volume, file, file.pixel_array)


# What a scan tells


def test_a_scan_gives_one_instance_with_its_frames(base):
    case = written(base, "MR, echoes")
    (instance,) = lv.scan_headers(case.path).instances
    assert [f.index for f in instance.frames] == list(range(9))


def test_the_frames_of_a_scan_have_the_positions_of_the_groups(base):
    case = written(base, "MR, echoes")
    (instance,) = lv.scan_headers(case.path).instances
    assert [f.position for f in instance.frames] == [
        tuple(map(float, item_of(case.file, n, "PlanePositionSequence").ImagePositionPatient)) for n in range(9)
    ]


def test_the_frames_of_a_scan_have_the_shared_geometry(base):
    case = written(base, "CT, oblique")
    (instance,) = lv.scan_headers(case.path).instances
    assert {(f.orientation, f.pixel_spacing) for f in instance.frames} == {(OBLIQUE, made.SPACING[1:])}


def test_the_frames_of_a_scan_have_their_own_slope_and_intercept(base):
    case = written(base, "CT, slope and intercept of each frame")
    (instance,) = lv.scan_headers(case.path).instances
    assert [(f.slope, f.intercept) for f in instance.frames] == [(1 + k / 8, k - 1000.0) for k in range(5)]


def test_the_frames_of_a_scan_have_only_values_that_differ(base):
    (instance,) = lv.scan_headers(written(base, "MR, times of echoes").path).instances
    own = [dict(f.values) for f in instance.frames]
    assert [o["EchoTime"] for o in own] == ([4.5] * 3 + [9.0] * 3) * 2
    assert not any("RepetitionTime" in o for o in own)
    assert dict(instance.values)["RepetitionTime"] == 800.0


def test_the_frames_of_a_scan_have_their_own_time(base):
    (instance,) = lv.scan_headers(written(base, "MR, times").path).instances
    times = np.array([f.acquisition_time for f in instance.frames])
    np.testing.assert_allclose(times - times[0], np.repeat([0.0, 2.5, 5.0], 3), atol=1e-4)


def test_the_frames_of_a_scan_lie_one_after_the_other(base):
    case = written(base, "CT")
    (instance,) = lv.scan_headers(case.path).instances
    step = made.ROWS * made.COLUMNS * 2
    start = case.path.stat().st_size - 6 * step
    assert [(f.offset, f.length) for f in instance.frames] == [(start + n * step, step) for n in range(6)]


# Dimension indices


INDICES = {
    "constant": lambda _n, row: [1] * len(row),
    "backwards": lambda _n, row: [20 - v for v in row],
    "by the number of the frame": lambda n, row: [1, *(n + 1,) * (len(row) - 1)],
    "zero": lambda _n, row: [0] * len(row),
    "too few": lambda _n, row: row[:1],
    "too many": lambda _n, row: [*row, 1, 2, 3],
    "of one frame only": lambda n, row: row if n == 0 else [],
}


@pytest.mark.parametrize("name", ["CT", "MR, echoes", "MR, times", "MR, times of echoes", "CT, phases of the heart"])
@pytest.mark.parametrize("indices", INDICES.values(), ids=INDICES)
def test_positions_and_values_win_over_wrong_dimension_indices(base, tmp_path, name, indices):
    case = written(base, name)
    file = em.enhanced(case.images, dimensions=CASES[name][1], indices=indices)
    assert_same(lv.open_volume(em.write(tmp_path / "file.dcm", file)), lv.open_volume(case.path))


@pytest.mark.parametrize("keyword", ["DimensionIndexSequence", "DimensionOrganizationSequence"])
def test_a_file_without_dimensions_is_the_same(base, tmp_path, keyword):
    case = written(base, RICH)
    file = deepcopy(case.file)
    delattr(file, keyword)
    assert_same(lv.open_volume(em.write(tmp_path / "file.dcm", file)), lv.open_volume(case.path))


def test_a_constant_temporal_position_leaves_the_axis_to_the_times(base, tmp_path):
    images = mr({"AcquisitionDateTime": TIMES}, TemporalPositionIdentifier=1)
    file = em.enhanced(images, dimensions=["TemporalPositionIndex"])
    found = lv.open_volume(em.write(tmp_path / "file.dcm", file))
    assert (found.dims, found.time.values.tolist()) == (("time", "z", "y", "x"), [0, 2.5, 5])


def with_dimension(images, group, keyword, numbers):
    """Return a file in which nothing but a dimension index tells frames at one position apart."""
    file = em.enhanced(images, indices=lambda n, row: [*row, numbers[n]])
    em.put_dimensions(
        file,
        [("FrameContentSequence", "StackID"), ("FrameContentSequence", "InStackPositionNumber"), (group, keyword)],
    )
    return file


@pytest.fixture
def by_index(tmp_path):
    """Images of three agents at three positions, and the volume of their file with its frames shuffled."""
    images = mr({"AcquisitionNumber": (1, 1, 1)})
    file = with_dimension(
        images, "ContrastBolusUsageSequence", "ContrastBolusAgentNumber", np.repeat([2, 5, 9], 3).tolist()
    )
    order = np.random.default_rng(3).permutation(9)
    return images, lv.open_volume(em.write(tmp_path / "file.dcm", em.take(file, order)))


def test_a_dimension_index_of_something_without_value_names_an_axis(by_index):
    assert by_index[1].dims == ("contrast_bolus_agent_number", "z", "y", "x")


def test_an_axis_by_dimension_index_counts_from_0(by_index):
    assert by_index[1].contrast_bolus_agent_number.values.tolist() == [0, 1, 2]


def test_an_axis_by_dimension_index_has_its_frames_in_order(by_index):
    images, volume = by_index
    expected = np.stack([np.frombuffer(i.PixelData, "<u2") for i in images])
    np.testing.assert_array_equal(volume.values.reshape(9, -1), expected)


# Stacks


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    """Images of three planes in one file, in turn, and its path."""
    planes = [
        made.series(n, orientation=o, step=8 * made.normal_of(o), **(made.AS_MR | PLAIN))
        for n, o in ((4, made.AXIAL), (3, made.CORONAL), (2, made.SAGITTAL))
    ]
    images = [p[k] for k in range(4) for p in planes if k < len(p)]
    for n, image in enumerate(images):
        image.PixelData = made.stamps(9, 0)[n].astype("<u2").tobytes()
    file = em.enhanced(images)
    return file, em.write(tmp_path_factory.mktemp("localizer") / "file.dcm", file)


def test_frames_of_three_planes_are_three_stacks(localizer):
    shapes = [dict(node.image.sizes) for node in lv.open_stacks(localizer[1]).children.values()]
    assert shapes == [{"z": n, "y": made.ROWS, "x": made.COLUMNS} for n in (4, 3, 2)]


@pytest.mark.parametrize("stack", [0, 1, 2])
def test_each_stack_of_a_file_has_its_frames_in_place(localizer, stack):
    assert_frames_are_in_place(lv.open_volume(localizer[1], stack=stack), localizer[0])


def test_several_stacks_of_a_file_are_a_finding(localizer):
    assert made.codes(lv.open_volume(localizer[1])) == ["several-stacks"]


def test_stacks_of_a_file_are_those_of_its_single_frames(localizer, tmp_path):
    file = localizer[0]
    images = []
    for n in range(9):
        position = list(item_of(file, n, "PlanePositionSequence").ImagePositionPatient)
        orientation = list(item_of(file, n, "PlaneOrientationSequence").ImageOrientationPatient)
        said = made.AS_MR | PLAIN | {"ImageOrientationPatient": orientation, "SOPInstanceUID": f"1.2.3.4.{n + 1}"}
        images.append(made.image(n, position, **said))
    made.write(tmp_path / "single", images)
    for stack in range(3):
        ours, single = (lv.open_volume(p, stack=stack) for p in (localizer[1], tmp_path / "single"))
        np.testing.assert_array_equal(ours.values, single.values)
        assert lv.geometry_of(ours) == lv.geometry_of(single)


def test_frames_of_another_pixel_spacing_are_a_stack_of_their_own(tmp_path):
    images = [*ct(4), *ct(3, PixelSpacing=(1.6, 1.2))]
    file = em.enhanced(images)
    path = em.write(tmp_path / "file.dcm", file)
    found = [lv.open_volume(path, stack=n) for n in (0, 1)]
    assert [(v.sizes["z"], tuple(v.vol.spacing)[1:]) for v in found] == [(4, (0.8, 0.6)), (3, (1.6, 1.2))]


# Several files


def in_files(folder, parts, **options):
    """Write each list of images as one file and return the paths."""
    files = [em.enhanced(p, uid=f"1.2.3.5.{n}", InstanceNumber=n + 1, **options) for n, p in enumerate(parts)]
    return [em.write(folder / f"{n * 7 % 11:03d}.dcm", file) for n, file in enumerate(files)]


def split(images, size):
    return [images[n : n + size] for n in range(0, len(images), size)]


FILES = {
    "one file a time": lambda: split(mr({"AcquisitionDateTime": (*TIMES, "20260101120006.0")}, 5), 5),
    "one file a temporal position": lambda: split(mr({"TemporalPositionIdentifier": (1, 2, 3, 4)}, 5), 5),
    "one file an echo": lambda: split(mr({"EchoTime": (4.5, 9.0, 13.5)}, 3), 3),
    "one file a b-value": lambda: split(mr({"DiffusionBValue": (0.0, 500.0, 1000.0)}, 3), 3),
    "two slices a file": lambda: split(ct(12), 2),
    "one slice a file": lambda: split(ct(6), 1),
    "one slice a file, the others in one": lambda: [[i] for i in ct(6)[:3]] + [ct(6)[3:]],
    "four slices and two": lambda: split(ct(6), 4),
    "all echoes of one slice a file": lambda: [
        [i for i in mr({"EchoTime": (4.5, 9.0)}) if i.ImagePositionPatient[2] == made.ORIGIN[2] + 2.5 * k]
        for k in range(3)
    ],
    "every other slice": lambda: [ct(6)[::2], ct(6)[1::2]],
}


@pytest.fixture(scope="module", params=FILES)
def several(request, tmp_path_factory):
    """Parts, volume of their files and that of the single frames."""
    parts = FILES[request.param]()
    folder = tmp_path_factory.mktemp("several")
    paths = in_files(folder / "files", parts)
    made.write(folder / "single", [i for part in parts for i in part])
    return SimpleNamespace(
        parts=parts, paths=paths, volume=lv.open_volume(folder / "files"), single=lv.open_volume(folder / "single")
    )


def test_several_files_are_one_volume(several):
    assert_same(several.volume, several.single)


def test_each_slice_of_several_files_says_of_which_it_is(several):
    if max(map(len, several.parts)) == 1:
        assert "frame_number" not in several.volume.coords
        return
    whole = several.volume.isel(y=0, x=0)
    source, number = (whole.coords[name].broadcast_like(whole).values.ravel() for name in ("source", "frame_number"))
    assert sorted(zip(source, number, strict=True)) == sorted(
        (str(path), n + 1) for path, part in zip(several.paths, several.parts, strict=True) for n in range(len(part))
    )


def test_each_slice_of_several_files_has_the_frame_that_it_names(several):
    whole = several.volume.stack(frame=several.volume.dims[:-2])
    files = {str(p): pydicom.dcmread(p) for p in several.paths}
    coordinates = whole.reset_index("frame").reset_coords()
    for n in range(whole.sizes["frame"]):
        one = coordinates.isel(frame=n)
        file = files[str(one.source.values)]
        stored = file.pixel_array.reshape(-1, made.ROWS, made.COLUMNS)[int(one.get("frame_number", 1)) - 1]
        intercept = float(item_of(file, 0, "PixelValueTransformationSequence").RescaleIntercept)
        np.testing.assert_array_equal(whole.isel(frame=n), stored + intercept)


@pytest.mark.parametrize("first", ["classic", "enhanced"])
def test_classic_and_enhanced_copies_are_two_stacks(tmp_path, first):
    single = ct(5) if first == "classic" else ct(4)
    made.write(tmp_path / "single", single)
    em.write(tmp_path / "file.dcm", em.enhanced(ct(5)))
    found = [node.image for node in lv.open_stacks(tmp_path).children.values()]
    kinds = sorted((v.sizes["z"], "frame_number" in v.coords, tuple(made.codes(v))) for v in found)
    assert kinds == sorted([(len(single), False, ("several-stacks",)), (5, True, ("several-stacks",))])


@pytest.mark.parametrize("count", [5, 3])
def test_classic_and_enhanced_copies_never_mix(tmp_path, count):
    paths = {str(p) for p in made.write(tmp_path / "single", ct(count))}
    copy = str(em.write(tmp_path / "file.dcm", em.enhanced(ct(5))))
    for node in lv.open_stacks(tmp_path).children.values():
        sources = set(np.atleast_1d(node.image.source.values))
        assert sources in (paths, {copy})


@pytest.mark.parametrize("times", [1, 2], ids=["one time", "two times"])
def test_copies_in_time_are_not_taken_for_times(tmp_path, times):
    # classic and enhanced images of one series are never one volume, even where their times would fit together
    made.write(tmp_path / "single", mr({"AcquisitionDateTime": TIMES[:times]}))
    em.write(tmp_path / "file.dcm", em.enhanced(mr({"AcquisitionDateTime": TIMES[2:]})))
    sizes = sorted(dict(node.image.sizes).get("time", 1) for node in lv.open_stacks(tmp_path).children.values())
    assert sizes == [1, times]


# Ultrasound


@pytest.fixture(scope="module")
def ultrasound(tmp_path_factory):
    """Stored numbers of two times of four planes, shuffled in the file, and its volume."""
    stored = (np.arange(8 * 6 * 8).reshape(8, 6, 8) % 251).astype("u1")
    positions = [(-1.0, -2.0, 1.5 * k) for _ in range(2) for k in range(4)]
    file = em.us_volume(positions, stored, seconds=np.repeat([0.0, 0.125], 4))
    order = [5, 0, 3, 6, 1, 7, 2, 4]
    path = em.write(tmp_path_factory.mktemp("us") / "file.dcm", em.take(file, order))
    return stored, lv.open_volume(path)


def test_ultrasound_has_its_times_and_planes(ultrasound):
    stored, volume = ultrasound
    assert volume.dims == ("time", "z", "y", "x")
    np.testing.assert_array_equal(volume.values, stored.reshape(2, 4, 6, 8))


def test_ultrasound_has_the_offsets_of_its_times(ultrasound):
    assert ultrasound[1].time.values.tolist() == [0, 0.125]


def test_ultrasound_lies_in_the_frame_of_reference_of_its_volume(ultrasound):
    geometry = lv.geometry_of(ultrasound[1])
    assert (geometry.convention, geometry.orientation) == ("volume", "")


def test_ultrasound_has_the_positions_of_its_planes(ultrasound):
    geometry = lv.geometry_of(ultrasound[1])
    assert (tuple(geometry.origin), tuple(geometry.spacing)) == ((-1.0, -2.0, 0.0), (1.5, *made.SPACING[1:]))


# Laziness


N, SIDE = 6, 512
FRAME = SIDE * SIDE * 2


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Folder with frames of half a MiB in an uncompressed file and in compressed ones with and without tables."""
    folder = tmp_path_factory.mktemp("large") / "files"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 2**12, (N, SIDE, SIDE), dtype="u2")
    images = ct(N, each=lambda k: {"stored": noise[k]})
    file = em.enhanced(images)
    starts, frames = {}, [em.cut(em.coded(f, em.JPEG_LS), 3) for f in noise]
    whole = [[b"".join(parts)] for parts in frames]
    contents = {
        "native": em.encode(file),
        "basic": em.encapsulated(file, frames, syntax=em.JPEG_LS, basic=em.offsets_of(frames)),
        "extended": em.encapsulated(file, whole, syntax=em.JPEG_LS, extended=em.offsets_of(whole)),
        "none": em.encapsulated(file, frames, syntax=em.JPEG_LS),
    }
    for name, content in contents.items():
        (folder / f"{name}.dcm").write_bytes(content)
        starts[name] = content.index(b"\xe0\x7f\x10\x00O")
    return SimpleNamespace(folder=folder, noise=noise, frames=frames, starts=starts, contents=contents)


@pytest.fixture(scope="module")
def reads(large, tmp_path_factory):
    """What opening and selecting read, by mark."""
    lines = ["dask.config.set(scheduler='sync')"]
    for name in large.starts:
        lines += [f"mark('open {name}')", f"volume = lv.open_volume(folder + '/{name}.dcm')"]
        lines += [f"mark('look {name}')", "repr(volume), lv.findings_of(volume), pickle.loads(pickle.dumps(volume))"]
        lines += [f"mark('frame {name}')", "volume.isel(z=3).values"]
        lines += [f"mark('row {name}')", "volume.isel(y=7).values"]
    return trace("\n".join(lines), large.folder, tmp_path_factory.mktemp("reads"))


@pytest.mark.parametrize("name", ["native", "basic", "extended"])
def test_opening_reads_the_header_and_at_most_one_block_more(large, reads, name):
    path = large.folder / f"{name}.dcm"
    assert bytes_of(reads[f"open {name}"])[path.name] <= large.starts[name] + read_ahead(path)


def test_opening_without_an_offset_table_passes_over_the_fragments(large, reads):
    path = large.folder / "none.dcm"
    blocks = 1 + sum(map(len, large.frames))
    assert bytes_of(reads["open none"])[path.name] <= large.starts["none"] + blocks * read_ahead(path)


@pytest.mark.parametrize("name", ["native", "basic", "extended", "none"])
def test_looking_at_a_file_of_frames_reads_nothing(reads, name):
    assert reads[f"look {name}"] == []


def test_one_frame_reads_its_bytes(large, reads):
    start = len(large.contents["native"]) - (N - 3) * FRAME
    assert merged((r.start, r.start + r.length) for r in reads["frame native"]) == [[start, start + FRAME]]


def test_a_coronal_row_reads_one_row_of_each_frame(large, reads):
    first = len(large.contents["native"]) - N * FRAME + 7 * SIDE * 2
    expected = [[first + n * FRAME, first + n * FRAME + SIDE * 2] for n in range(N)]
    assert merged((r.start, r.start + r.length) for r in reads["row native"]) == expected


@pytest.mark.parametrize("name", ["basic", "extended", "none"])
def test_one_compressed_frame_reads_only_its_fragments(large, reads, name):
    content = large.contents[name]
    first = content.index(large.frames[3][0][:64]) - 8
    last = content.index(large.frames[3][-1][:64]) + len(large.frames[3][-1])
    spans = merged((r.start, r.start + r.length) for r in reads[f"frame {name}"])
    assert spans
    assert first <= min(s for s, _ in spans)
    assert max(e for _, e in spans) <= last


@pytest.mark.parametrize("name", ["native", "basic", "extended", "none"])
def test_the_values_of_large_frames_are_right(large, name):
    with dask.config.set(scheduler="sync"):
        found = lv.open_volume(large.folder / f"{name}.dcm").isel(z=[5, 2]).values
    np.testing.assert_array_equal(found, large.noise[[5, 2]].astype(int) - 1024)


# What is broken


def counts(images, *, items=0, frames=0, said=0):
    """Return a file that has more or fewer of what there is one of for each frame."""
    file = em.enhanced(images)
    groups = file.PerFrameFunctionalGroupsSequence
    if items > 0:
        extra = deepcopy(groups[-1])
        extra.PlanePositionSequence[0].ImagePositionPatient = [*made.ORIGIN[:2], made.ORIGIN[2] + 2.5 * len(images)]
        groups.append(extra)
    elif items < 0:
        file.PerFrameFunctionalGroupsSequence = list(groups)[:items]
    step = len(images[0].PixelData)
    file.PixelData = (file.PixelData + b"\7" * max(frames, 0) * step)[: (len(images) + frames) * step]
    file.NumberOfFrames = len(images) + said
    return file


WRONG = {
    "an item too few": ({"items": -1}, 5, ("5", "6")),
    "an item too many": ({"items": 1}, 6, ("6", "7")),
    "a frame of pixels too many": ({"frames": 1}, 6, ("6", "7")),
    "NumberOfFrames too low": ({"said": -1}, 5, ("5", "6")),
}


@pytest.mark.parametrize(("change", "right", "_said"), WRONG.values(), ids=WRONG)
def test_frames_that_have_groups_and_pixels_open_and_are_right(tmp_path, change, right, _said):
    file = counts(ct(6), **change)
    found = lv.open_volume(em.write(tmp_path / "file.dcm", file))
    assert sorted(found.frame_number.values) == list(range(1, right + 1))
    assert_frames_are_in_place(found, file, made.stamps(6, 0).astype(int))


@pytest.mark.parametrize(("change", "_right", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_number_of_frames_is_a_finding_with_both_counts(tmp_path, change, _right, said):
    found = lv.open_volume(em.write(tmp_path / "file.dcm", counts(ct(6), **change)))
    (finding,) = (f for f in lv.findings_of(found) if f.code == "frame-count-wrong")
    assert finding.severity == "warning"
    assert all(count in finding.message for count in said)


def short(kind):
    """Return the bytes of a file whose fifth frame of six is cut short, and whose sixth is absent."""
    step = made.ROWS * made.COLUMNS * 2
    if kind == "the file is cut":
        return em.encode(em.enhanced(ct(6)))[: -step - step // 2]
    file = em.enhanced(ct(6))
    file.PixelData = file.PixelData[: -step - step // 2]
    return em.encode(file)


@pytest.fixture(params=["the file is cut", "the element is short"])
def cut_short(request, tmp_path):
    path = tmp_path / "folder" / "file.dcm"
    path.parent.mkdir()
    path.write_bytes(short(request.param))
    return path


def test_a_short_file_alone_is_an_error_at_opening(cut_short):
    with pytest.raises(PixelReadError, match=r"file\.dcm"):
        lv.open_volume(cut_short)


def test_a_short_file_in_a_folder_is_a_finding(cut_short):
    assert made.codes(lv.open_volume(cut_short.parent)) == ["pixels-truncated"]


def test_the_whole_frames_of_a_short_file_are_right(cut_short):
    found = lv.open_volume(cut_short.parent).isel(z=slice(0, 4))
    np.testing.assert_array_equal(found, made.stamps(4))


@pytest.mark.parametrize("k", [4, 5])
def test_a_short_frame_is_an_error_that_names_file_and_frame(cut_short, k):
    with pytest.raises(PixelReadError, match=rf"(?s)(?=.*file\.dcm)(?=.*frame ({k}|{k + 1})\b)"):
        lv.open_volume(cut_short.parent).isel(z=k).compute()


def no_group(item):
    del item.PlanePositionSequence


def empty_group(item):
    item.PlanePositionSequence = []


def empty_item(item):
    item.PlanePositionSequence = [Dataset()]


GONE = {"no group": no_group, "an empty sequence": empty_group, "an empty item": empty_item}


@pytest.fixture(params=GONE.values(), ids=GONE)
def homeless(request, tmp_path):
    """File of which the third frame has no position, and its path."""
    file = em.enhanced(ct(6))
    request.param(file.PerFrameFunctionalGroupsSequence[2])
    return file, em.write(tmp_path / "file.dcm", file)


def test_a_frame_without_position_is_a_finding_that_names_it(homeless):
    (finding,) = (f for f in lv.findings_of(lv.open_volume(homeless[1])) if f.code == "malformed-value")
    assert "PlanePositionSequence" in finding.message
    assert "frame 3" in finding.message


def test_the_other_frames_of_a_file_are_right_without_the_one_that_has_no_position(homeless):
    file, path = homeless
    found = lv.open_volume(path)
    assert sorted(found.frame_number.values) == [1, 2, 4, 5, 6]
    assert_frames_are_in_place(found, file)


def without_groups(*gone):
    file = em.enhanced(ct(6))
    for keyword in gone:
        delattr(file, keyword)
    return file


GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
UNPLACED = {
    "no functional groups": lambda: without_groups(*GROUPS),
    "no groups of frames": lambda: without_groups(GROUPS[1]),
}


@pytest.mark.parametrize("unplaced", UNPLACED.values(), ids=UNPLACED)
def test_a_file_without_functional_groups_is_refused_by_name(tmp_path, unplaced):
    path = em.write(tmp_path / "file.dcm", unplaced())
    with pytest.raises((UnsupportedSeriesError, DicomReadError), match=r"(?i)functional ?groups"):
        lv.open_volume(path)


def test_a_file_without_functional_groups_says_which_it_is_beside_others(tmp_path):
    em.write(tmp_path / "odd.dcm", UNPLACED["no functional groups"]())
    made.write(tmp_path / "single", ct(5, SeriesInstanceUID="1.2.4"))
    scan = lv.scan_headers(tmp_path)
    said = [f"{s.path} {s.reason}" for s in scan.skipped]
    said += [f"{i.path} {i.refusal}" for i in scan.instances if i.refusal]
    assert any("odd.dcm" in line for line in said)


def words_for_numbers():
    """Return a file in which the patient's name stands where numbers should be."""
    content = em.encode(em.enhanced(ct(6, each=lambda k: {"WindowCenter": 40.0, "WindowWidth": 400.0})))
    position = b"-12.5\\-20.25\\31.5 "
    assert position.rstrip() in content
    return content.replace(position.rstrip(), em.NAME.encode()[: len(position.rstrip())].ljust(len(position.rstrip())))


BROKEN = {
    **{name: (lambda c=change: em.encode(counts(ct(6), **c))) for name, (change, *_) in WRONG.items()},
    **{name: (lambda b=build: em.encode(b())) for name, build in UNPLACED.items()},
    "cut within the pixels": lambda: short("the file is cut"),
    "cut within the groups": lambda: em.encode(em.enhanced(ct(6)))[:1500],
    "nothing tells apart": lambda: em.encode(em.enhanced(mr({"AcquisitionNumber": (1, 1)}))),
    "positions are words": words_for_numbers,
    "no frame has a position": lambda: em.encode(em.enhanced(ct(6, ImagePositionPatient=None))),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_no_message_holds_an_identifier_of_the_patient(tmp_path, broken):
    path = tmp_path / "folder" / "file.dcm"
    path.parent.mkdir()
    path.write_bytes(broken())
    said = []
    for source in (path, path.parent):
        try:
            found = lv.open_volume(source)
            said += [str(f) for f in lv.findings_of(found)]
            found.compute()
        except LazyvolError as error:
            said.append(str(error))
    scan = lv.scan_headers(path.parent)
    said += [str(skipped) for skipped in scan.skipped]
    said += [str(f) for series in lv.group_series(scan.instances) for stack in series.stacks for f in stack.findings]
    assert not [line for line in said if "Fictitious" in line or em.ID in line]


@examples(40)
@given(data=st.data())
def test_a_damaged_header_is_opened_or_refused(base, tmp_path_factory, data):
    content = bytearray(em.encode(written(base, RICH).file, undefined=data.draw(st.booleans())))
    groups = content.index(b"\x00\x52\x29\x92")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(groups, len(content) - 12 * 960))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "file.dcm"
    path.write_bytes(content)
    with suppress(LazyvolError):
        lv.open_volume(path).compute()


# Real files


REAL = {
    "Siemens perfusion": ("mr_siemens_enhanced_perf/Siemens", (4, 25, 64, 64), "time"),
    "Siemens XA30, T1": ("mr_siemens_xa30_enhanced/In/5_anat-T1w_acq-tfl", (96, 128, 128), ""),
    "Siemens XA30, labelling": ("mr_siemens_xa30_enhanced/In/27_asl_2d_tra", (12, 64, 64), ""),
    "Philips fMRI": ("edge_dicom2nifti/philips_enhanced/fmri/001", (4, 8, 64, 64), "time"),
    "legacy converted CT, 24 columns": ("ct_dcmqi/24x38x3/multiframe", (3, 38, 24), ""),
    "legacy converted CT, 23 columns": ("ct_dcmqi/23x38x3/multiframe", (3, 38, 23), ""),
}


@pytest.fixture(scope="module", params=REAL)
def real(request, real_data):
    folder, shape, axis = REAL[request.param]
    files = {str(p): pydicom.dcmread(p) for p in sorted((real_data / folder).iterdir()) if p.suffix in {".dcm", ".img"}}
    return SimpleNamespace(volume=lv.open_volume(real_data / folder), files=files, shape=shape, axis=axis)


def cells(real):
    """Return, for each cell before y and x, its file and the number of the frame in it, from 0."""
    plain = real.volume.isel(y=0, x=0)
    source, number = (real.volume.coords[n].broadcast_like(plain) for n in ("source", "frame_number"))
    source, number = (c.transpose(*plain.dims).values for c in (source, number))
    return {cell: (real.files[str(source[cell])], int(number[cell]) - 1) for cell in np.ndindex(plain.shape)}


def test_a_real_file_has_its_shape(real):
    assert real.volume.shape == real.shape


def test_a_real_file_has_its_axis(real):
    assert real.volume.dims[:-3] == ((real.axis,) if real.axis else ())


def test_each_frame_of_the_real_files_is_in_the_volume_once(real):
    found = sorted((file.SOPInstanceUID, n) for file, n in cells(real).values())
    expected = sorted((f.SOPInstanceUID, n) for f in real.files.values() for n in range(f.NumberOfFrames))
    assert found == expected


def test_the_values_of_real_frames_are_those_of_pydicom(real):
    pixels = {f.SOPInstanceUID: f.pixel_array.reshape(-1, f.Rows, f.Columns) for f in real.files.values()}
    values = real.volume.values
    for cell, (file, n) in cells(real).items():
        group = item_of(file, n, "PixelValueTransformationSequence")
        slope, intercept = float(group.get("RescaleSlope", 1)), float(group.get("RescaleIntercept", 0))
        expected = pixels[file.SOPInstanceUID][n] * slope + intercept
        np.testing.assert_array_equal(values[cell], expected.astype(values.dtype))


def test_the_positions_of_real_frames_are_those_of_the_functional_groups(real):
    places = made.corners_in(real.volume)[:, 0]
    for cell, (file, n) in cells(real).items():
        position = np.array(item_of(file, n, "PlanePositionSequence").ImagePositionPatient, dtype=float)
        assert np.linalg.norm(places[cell[-1]] - position) < 1e-3


def test_the_directions_of_real_frames_are_those_of_the_functional_groups(real):
    directions = real.volume.vol.directions
    for file, n in cells(real).values():
        orientation = np.array(item_of(file, n, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
        np.testing.assert_allclose([*directions[2], *directions[1]], orientation, atol=1e-4)


def test_the_times_of_real_frames_ascend(real):
    if not real.axis:
        pytest.skip("one time only")
    by_time = {}
    for cell, (file, n) in cells(real).items():
        content = item_of(file, n, "FrameContentSequence")
        by_time.setdefault(cell[0], set()).add(int(content.TemporalPositionIndex))
    assert [sorted(by_time[t]) for t in sorted(by_time)] == [[t + 1] for t in range(real.shape[0])]


def test_ultrasound_names_no_side_of_a_patient():
    geometry = Geometry((2, 3, 4), ZYX(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)[::-1].tolist(), convention="volume")
    for name in ("axis_letters", "affine_ras"):
        with pytest.raises(GeometryError, match="positions refer to the volume, not to the patient"):
            getattr(geometry, name)
    assert geometry.orientation == ""


def test_a_frame_without_scale_among_scaled_ones_is_named(base, tmp_path):
    file = deepcopy(written(base, "CT, slope and intercept of each frame").file)
    del file.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence
    found = lv.open_volume(em.write(tmp_path / "file.dcm", file))
    (note,) = (f for f in lv.findings_of(found) if f.code == "malformed-value")
    assert note.values == ("PixelValueTransformationSequence", "absent from frame 3")


def test_a_file_whose_functional_groups_are_empty_is_refused(base, tmp_path):
    file = deepcopy(written(base, "CT, slope and intercept of each frame").file)
    file.PerFrameFunctionalGroupsSequence = []
    with pytest.raises(lv.LazyvolError, match="no functional groups"):
        lv.open_volume(em.write(tmp_path / "file.dcm", file))
