"""Every series that other tools get wrong opens right, or is refused by name, whoever made the scanner.

The cases are those that were measured in other tools, and header quirks of real scanners; each is run under five
manufacturers and five orders of random file names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import series_made as made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

import lazyvol as lv
from lazyvol.errors import FindingError, PixelRangeError, SeriesChoiceError, UnsupportedSeriesError

TILT = np.radians(15.0)
TILTED = (1.0, 0.0, 0.0, 0.0, np.cos(TILT), np.sin(TILT))
OBLIQUE = (1.0, 0.0, 0.0, 0.0, np.cos(np.radians(30)), np.sin(np.radians(30)))
REGULAR, UNKNOWN = (2.5, 0.8, 0.6), (np.nan, 0.8, 0.6)
SHUFFLED = (7, 3, 10, 1, 5, 9, 2, 8, 4, 6)


@dataclass(frozen=True)
class Case:
    """A series and what it should open as."""

    name: str
    images: Callable[[], list[Dataset]]
    codes: tuple[str, ...] = ()
    """What is odd about it, sorted."""
    order: Any = tuple(range(10))
    """Number of the image in each cell, (..., z); -1 where there is none."""
    dims: tuple[str, ...] = ("z",)
    """Before y and x."""
    spacing: tuple[float, float, float] = REGULAR
    options: dict[str, Any] = field(default_factory=dict)
    """How it is written."""
    before: Callable[[Any], None] = lambda _folder: None
    """Puts other files into the folder."""
    dtype: str = "int16"


def with_nested_spacing() -> list[Dataset]:
    """Return slices whose headers have, before group 0028, open-ended sequences with a spacing of their own."""
    images = made.series()
    for image in images:
        inner, outer = Dataset(), Dataset()
        inner.PixelSpacing = [9.0, 9.0]
        inner.ImagePositionPatient = [99.0, 99.0, 99.0]
        inner.Rows = 99
        outer.IconImageSequence = Sequence([inner])
        outer.ReferencedSOPInstanceUID = "1.2.3.4.5"
        image.ReferencedImageSequence = Sequence([outer, Dataset()])
        for element in (image["ReferencedImageSequence"], outer["IconImageSequence"]):
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    return images


def with_long_elements() -> list[Dataset]:
    """Return slices with elements of 32-bit length before group 0028."""
    images = made.series()
    for image in images:
        image.RetrieveURL = "https://example.invalid/studies/1"  # UR, (0008,1190)
        image.add_new(0x00080119, "UC", "long code value")
        image.add_new(0x00090010, "LO", "MADE")
        image.add_new(0x00091001, "UT", "text " * 20)
        image.add_new(0x00091002, "OF", struct.pack("<3f", 1, 2, 3))
        image.add_new(0x00091003, "OD", struct.pack("<2d", 1, 2))
        image.add_new(0x00091004, "OL", struct.pack("<2L", 1, 2))
        image.add_new(0x00091005, "UN", b"\x01\x02\x03\x04")
    return images


def with_copy() -> list[Dataset]:
    images = made.series()
    return [*images, made.series()[4]]


def with_localizer(kind: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "LOCALIZER")) -> list[Dataset]:
    scout = made.image(
        10, (-5.0, 10.0, 80.0), ImageOrientationPatient=made.CORONAL, ImageType=kind, PixelSpacing=(1.5, 1.5)
    )
    return [*made.series(), scout]


def noisy(*amount: float) -> list[Dataset]:
    rng = np.random.default_rng(5)
    images = made.series()
    for image in images:
        moved = np.array(image.ImagePositionPatient, dtype=float) + rng.uniform(-1, 1, 3) * amount
        image.ImagePositionPatient = [f"{v:.8f}" for v in moved]
    return images


def clock(seconds: float) -> str:
    seconds %= 86400
    return f"{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:09.6f}"


def times(count: int = 4, slices: int = 5, *, start: float = 36000.0, by_slice: bool = False, date: bool = True):
    """Return a time series whose images of one time share an acquisition time, 2 s apart."""

    def each(index: tuple[int, ...], _k: int) -> dict[str, object]:
        at = start + 2.0 * index[0]
        day = {"AcquisitionDate": "20010203" if at < 86400 else "20010204"} if date else {}
        return {"AcquisitionTime": clock(at)} | day

    return made.grid({"TemporalPositionIdentifier": range(1, count + 1)}, slices, each=each, by_slice=by_slice)


def one_missing() -> list[Dataset]:
    images = times()
    del images[12]
    return images


FOUR_BY_FIVE = np.arange(20).reshape(4, 5)
WITH_HOLE = np.where(FOUR_BY_FIVE < 12, FOUR_BY_FIVE, FOUR_BY_FIVE - 1)
WITH_HOLE[2, 2] = -1
TIMES: dict[str, Any] = {"order": FOUR_BY_FIVE, "dims": ("time", "z"), "dtype": "uint16"}

OPENS = [
    Case("axial, numbers descending", made.series),
    Case("axial, numbers ascending", lambda: made.series(each=lambda k: {"InstanceNumber": k + 1})),
    Case("numbers random", lambda: made.series(each=lambda k: {"InstanceNumber": SHUFFLED[k]})),
    Case("numbers absent", lambda: made.series(InstanceNumber=None)),
    Case("numbers equal", lambda: made.series(InstanceNumber=1)),
    Case("numbers negative", lambda: made.series(each=lambda k: {"InstanceNumber": -SHUFFLED[k]})),
    Case("sagittal", lambda: made.series(orientation=made.SAGITTAL)),
    Case("coronal", lambda: made.series(orientation=made.CORONAL)),
    Case("oblique", lambda: made.series(orientation=OBLIQUE)),
    Case("tilted gantry", lambda: made.series(orientation=TILTED, step=(0, 0, 2.5)), ("tilted",)),
    Case("feet first", lambda: made.series(orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0))),
    Case("slice thickness and spacing tags lie", lambda: made.series(SliceThickness=16.0, SpacingBetweenSlices=-10.0)),
    Case(
        "one slice missing",
        lambda: made.series(at=[0, 1, 2, 3, 5, 6, 7, 8, 9]),
        ("missing-slices",),
        tuple(range(9)),
        spacing=UNKNOWN,
    ),
    Case(
        "three slices missing",
        lambda: made.series(at=[0, 1, 2, 3, 7, 8, 9]),
        ("missing-slices",),
        tuple(range(7)),
        spacing=UNKNOWN,
    ),
    Case(
        "spacing doubles",
        lambda: made.series(at=[0, 1, 2, 3, 4, 5, 7, 9, 11, 13]),
        ("missing-slices",),
        spacing=UNKNOWN,
    ),
    Case(
        "spacing changes",
        lambda: made.series(at=[0, 1, 2, 3, 4, 5.6, 7.2, 8.8, 10.4, 12]),
        ("uneven-spacing",),
        spacing=UNKNOWN,
    ),
    Case("the same file twice", with_copy, ("copies-dropped",)),
    Case("localizer in the series", with_localizer, ("several-stacks",)),
    Case(
        "localizer that does not say so", lambda: with_localizer(("ORIGINAL", "PRIMARY", "AXIAL")), ("several-stacks",)
    ),
    Case(
        "pixel spacing changes half way",
        lambda: made.series(each=lambda k: {"PixelSpacing": (0.8, 0.6) if k < 6 else (0.7, 0.7)}),
        ("several-stacks",),
        tuple(range(6)),
    ),
    Case("4-D, time by time", times, **TIMES),
    Case("4-D, slice by slice", lambda: times(by_slice=True), **TIMES),
    Case("4-D past midnight", lambda: times(start=86397.0), **TIMES),
    Case("4-D past midnight without dates", lambda: times(start=86397.0, date=False), **TIMES),
    Case(
        "4-D, one image missing",
        one_missing,
        ("incomplete-grid",),
        **(TIMES | {"order": WITH_HOLE, "dtype": "float32"}),
    ),
    Case(
        "slices acquired past midnight",
        lambda: made.series(each=lambda k: {"AcquisitionTime": clock(86395 + k), "AcquisitionDate": None}),
    ),
    Case(
        "PET with a slope for each slice",
        lambda: made.series(
            each=lambda k: {"RescaleSlope": 0.5 + 0.01 * k}, SOPClassUID=made.PT, Modality="PT", RescaleIntercept=0
        ),
        dtype="float32",
    ),
    Case("MONOCHROME1", lambda: made.series(PhotometricInterpretation="MONOCHROME1")),
    Case("nested open-ended sequences with a spacing of their own", with_nested_spacing),
    Case("elements of 32-bit length before group 0028", with_long_elements),
    Case("implicit VR", made.series, options={"syntax": made.IMPLICIT}),
    Case("nested sequences in implicit VR", with_nested_spacing, options={"syntax": made.IMPLICIT}),
    Case("big endian", made.series, options={"syntax": made.BIG_ENDIAN}),
    Case("deflated", made.series, options={"syntax": made.DEFLATED}),
    Case("no preamble", made.series, options={"preamble": False}),
    Case("no preamble, implicit VR", made.series, options={"preamble": False, "syntax": made.IMPLICIT}),
    Case("no preamble, big endian", made.series, options={"preamble": False, "syntax": made.BIG_ENDIAN}),
    Case("positions with float noise", lambda: noisy(1e-4, 1e-4, 1e-4)),
    Case("positions rounded along the normal", lambda: noisy(0, 0, 5e-3)),
    Case(
        "cosines not quite unit and square",
        lambda: made.series(orientation=(1.000001, 0.0, 0.0, 0.000002, 0.999998, 0.0), step=(0, 0, 2.5)),
    ),
    Case(
        "a frame of reference for each slice",
        lambda: made.series(each=lambda k: {"FrameOfReferenceUID": f"1.2.9.{k}"}),
        ("frame-of-reference-varies",),
    ),
    Case(
        "other files in the folder",
        made.series,
        before=lambda folder: [
            (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1"),
            (folder / "AAA.txt").write_text("notes"),
            (folder / "000empty").touch(),
            (folder / "zzz.json").write_text("{}"),
        ],
    ),
]


class Opened:
    """A case under one manufacturer, written and opened."""

    def __init__(self, case: Case, maker: str | None, folder) -> None:
        self.case = case
        images = case.images()
        self.stored = [np.frombuffer(i.PixelData, "<u2").reshape(i.Rows, i.Columns) for i in images]
        self.images = images
        folder.mkdir(exist_ok=True)
        case.before(folder)
        self.paths = made.write(folder, images, seed=made.MAKERS.index(maker), maker=maker, **case.options)
        self.volume = lv.open_volume(folder)
        self.order = np.array(case.order)

    @property
    def expected(self):
        """Values of the volume as they were written."""
        found = np.full((self.order.size, made.ROWS, made.COLUMNS), np.nan)
        for n, number in enumerate(self.order.ravel()):
            if number >= 0:
                image = self.images[number]
                slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
                found[n] = self.stored[number] * slope + intercept
        return found.reshape(*self.order.shape, made.ROWS, made.COLUMNS)


@pytest.fixture(scope="module", params=made.MAKERS, ids=lambda maker: maker or "no maker")
def maker(request):
    return request.param


@pytest.fixture(scope="module", params=OPENS, ids=[c.name for c in OPENS])
def opened(request, maker, tmp_path_factory):
    return Opened(request.param, maker, tmp_path_factory.mktemp("rules") / "series")


def test_every_voxel_has_the_value_that_was_written_for_its_place(opened):
    expected = opened.expected.astype("float32") if opened.volume.dtype == "f4" else opened.expected
    np.testing.assert_array_equal(opened.volume.values, expected)


def test_the_values_have_the_smallest_dtype(opened):
    assert opened.volume.dtype == opened.case.dtype


def test_the_dimensions_are(opened):
    assert opened.volume.dims == (*opened.case.dims, "y", "x")


def test_each_slice_names_its_file(opened):
    def content(path):
        return Path(path).read_bytes() if path else b""

    paths = [*map(str, opened.paths), ""]
    named = opened.volume.coords["source"].values.ravel().tolist()
    assert [content(p) for p in named] == [content(paths[n]) for n in opened.order.ravel()]


def test_the_findings_are(opened):
    assert made.codes(opened.volume) == sorted(opened.case.codes)


def test_the_spacing_is_that_of_the_positions(opened):
    np.testing.assert_allclose(opened.volume.vol.spacing, opened.case.spacing, rtol=0, atol=2e-3)


def test_every_corner_lies_where_its_header_puts_it(opened):
    order = opened.order.reshape(-1, opened.order.shape[-1])
    headers = made.corners_of([opened.images[n] for n in order[0]])
    tolerance = 0.01 if "positions" in opened.case.name else 1e-4 if "cosines" in opened.case.name else 1e-6
    np.testing.assert_allclose(made.corners_in(opened.volume), headers, rtol=0, atol=tolerance)


def test_strict_opens_what_has_no_warning(opened, maker):
    serious = [c for c in opened.case.codes if c in {"missing-slices", "uneven-spacing"} or "several" in c]
    serious += [c for c in opened.case.codes if c == "incomplete-grid"]
    folder = opened.paths[0].parent
    if serious:
        with pytest.raises(FindingError, match=serious[0]):
            lv.open_volume(folder, strict=True)
    else:
        lv.open_volume(folder, strict=True)


# Values


@pytest.fixture(scope="module")
def folder_of(maker, tmp_path_factory):
    """Return a function that writes images under the manufacturer and returns their folder."""

    def write(images, **options):
        folder = tmp_path_factory.mktemp("values") / "series"
        made.write(folder, images, seed=made.MAKERS.index(maker), maker=maker, **options)
        return folder

    return write


def painted(numbers, *, dtype="<u2", **values):
    """Return slices of one stored number each."""
    images = made.series(len(numbers), **values)
    for image, number in zip(images, numbers, strict=True):
        image.PixelData = np.full((made.ROWS, made.COLUMNS), number, dtype).tobytes()
    return images


EIGHT_BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleIntercept": 0}
SIGNED_TWELVE = {"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}


@pytest.mark.parametrize(
    ("images", "values", "dtype"),
    [
        (lambda: painted([200, 3, 255], dtype="u1", **EIGHT_BITS), [200, 3, 255], "uint8"),
        (lambda: painted([100, 40000, 65535], **made.AS_MR), [100, 40000, 65535], "uint16"),
        (lambda: painted([-2048, 0, 2047], dtype="<i2", **SIGNED_TWELVE), [-2048, 0, 2047], "int16"),
        (lambda: painted([0x0800, 0xF000, 0xF7FF], **SIGNED_TWELVE), [-2048, 0, 2047], "int16"),
        (lambda: painted([0, 1024, 2000], PhotometricInterpretation="MONOCHROME1"), [-1024, 0, 976], "int16"),
    ],
    ids=["8 bits, 200", "16 bits, 40000 after 100", "signed 12 bits", "12 bits below other bits", "MONOCHROME1"],
)
def test_stored_numbers_become_the_values_that_they_mean(folder_of, images, values, dtype):
    volume = lv.open_volume(folder_of(images()))
    assert (volume.dtype, volume.values[:, 7, 9].tolist()) == (dtype, values)


def test_a_ct_number_beyond_int16_is_an_error_that_names_the_remedy(folder_of):
    volume = lv.open_volume(folder_of(painted([100, 40000, 200], RescaleIntercept=0)))
    with pytest.raises(PixelRangeError, match=r'40000.*dtype="int32"'):
        volume.compute()


def test_a_ct_number_beyond_int16_opens_as_int32(folder_of):
    folder = folder_of(painted([100, 40000, 200], RescaleIntercept=0))
    assert lv.open_volume(folder, dtype="int32").values[:, 0, 0].tolist() == [100, 40000, 200]


# Series without a place


def test_without_positions_the_order_is_that_of_the_numbers_and_says_so(folder_of):
    images = made.series(each=lambda k: {"InstanceNumber": SHUFFLED[k]}, ImageOrientationPatient=None)
    for image in images:
        del image.ImagePositionPatient
    volume = lv.open_volume(folder_of(images))
    np.testing.assert_array_equal(volume.values, made.stamps(10)[np.argsort(SHUFFLED)])
    assert made.codes(volume) == ["geometry-unknown", "order-from-instance-number"]


def test_without_positions_no_spacing_is_invented(folder_of):
    images = made.series(ImageOrientationPatient=None)
    for image in images:
        del image.ImagePositionPatient
    volume = lv.open_volume(folder_of(images))
    assert np.isnan(volume.vol.spacing.z)
    assert "z" not in volume.coords


# What is refused, and how to open it all the same


def test_one_position_twice_is_refused_and_says_what_can_be_done(folder_of):
    images = [*made.series(), made.image(10, np.add(made.ORIGIN, (0, 0, 10)), InstanceNumber=11)]
    with pytest.raises(UnsupportedSeriesError, match=r"2 images share 1 position .*slice 4 .*duplicates='first'"):
        lv.open_volume(folder_of(images))


def test_colour_has_its_samples_last(folder_of):
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, **EIGHT_BITS}
    stored = np.arange(20 * 24 * 3, dtype="u2").astype("u1").reshape(20, 24, 3)
    volume = lv.open_volume(folder_of(made.series(3, stored=stored, **colour)))
    assert volume.dims == ("z", "y", "x", "sample")
    np.testing.assert_array_equal(volume, np.stack([stored] * 3))


def test_a_kind_of_colour_that_is_not_known_is_refused_by_name(folder_of):
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "HSV", "PlanarConfiguration": 0, **EIGHT_BITS}
    images = made.series(3, stored=np.zeros((20, 24, 3), "u1"), **colour)
    with pytest.raises(UnsupportedSeriesError, match="HSV"):
        lv.open_volume(folder_of(images))


def two_series():
    """Return two series with one number and description."""
    other = made.series(4, SeriesInstanceUID="1.2.2", each=lambda k: {"SOPInstanceUID": f"1.2.2.{k}"})
    return [*made.series(), *other]


def test_two_series_are_refused_with_a_list_of_both(folder_of):
    with pytest.raises(SeriesChoiceError, match=r"2 series(?s:.*)4 images.*1\.2\.2\n(?s:.*)10 images.*1\.2\.3\n"):
        lv.open_volume(folder_of(two_series()))


@pytest.mark.parametrize(("uid", "count"), [("1.2.3", 10), ("1.2.2", 4)])
def test_each_of_two_series_opens_by_its_uid(folder_of, uid, count):
    volume = lv.open_volume(folder_of(two_series()), series=uid)
    np.testing.assert_array_equal(volume.values, made.stamps(count))


# The remaining slices of a split series


def test_where_the_pixel_spacing_changes_the_other_part_is_another_stack(folder_of):
    images = made.series(each=lambda k: {"PixelSpacing": (0.8, 0.6) if k < 6 else (0.7, 0.7)})
    volume = lv.open_volume(folder_of(images), stack=1)
    np.testing.assert_array_equal(volume.values, made.stamps(10)[6:])
    np.testing.assert_allclose(volume.vol.spacing, (2.5, 0.7, 0.7))


def test_749_frames_of_reference_are_one_volume(tmp_path):
    """A real series has so many; its files are made by patching one, since writing them takes its time."""
    template = made.encode(
        made.image(
            0,
            (0.0, 0.0, 1000.125),
            stored=np.full((2, 2), 54321, "<u2"),
            SOPInstanceUID="1.2.3.40000",
            FrameOfReferenceUID="1.2.9.40000",
        )
    )
    for k in np.random.default_rng(1).permutation(749):
        content = template.replace(b"1.2.3.40000", b"1.2.3.%05d" % (10000 + k * 5 % 749)).replace(
            b"1.2.9.40000", b"1.2.9.%05d" % (10000 + k)
        )
        content = content.replace(b"1000.125", b"%08.3f" % (100 + 1.25 * k))
        content = content.replace(struct.pack("<H", 54321) * 4, struct.pack("<H", k) * 4)
        (tmp_path / f"{k * 31 % 997}").write_bytes(content)
    volume = lv.open_volume(tmp_path)
    assert (volume.sizes["z"], volume.vol.spacing.z) == (749, pytest.approx(1.25))
    assert volume.values[:, 0, 0].tolist() == list(range(-1024, 749 - 1024))
    assert made.codes(volume) == ["frame-of-reference-varies"]


# Names and order


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize(
    "images", [made.series, times, with_localizer], ids=["slices", "slices and times", "with a localizer"]
)
def test_no_order_of_datasets_changes_the_volume(images, data):
    ordered = images()
    shuffled = data.draw(st.permutations(ordered))
    one, other = (lv.open_volume(i).drop_vars("source").load() for i in (ordered, shuffled))
    assert one.identical(other)


@pytest.mark.parametrize("names", [0, 1, 2, 3])
def test_no_names_of_files_change_the_volume(tmp_path, names):
    for n, seed in enumerate((99, names)):
        made.write(tmp_path / str(n), times(by_slice=True), seed=seed)
    one, other = (lv.open_volume(tmp_path / n).drop_vars("source").load() for n in "01")
    assert one.identical(other)


# Geometry of random grids


@st.composite
def grids(draw):
    """Return an oblique orientation, a step that may lean, and a pixel spacing."""
    a, b, c = (draw(st.floats(-np.pi, np.pi)) for _ in range(3))
    turn = np.linalg.multi_dot(
        [
            [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]],
            [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]],
            [[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]],
        ]
    )
    lean = draw(st.floats(-25, 25))
    height = draw(st.floats(0.3, 12))
    step = height * (turn[2] + np.tan(np.radians(lean)) * turn[1])
    return (*turn[0], *turn[1]), step, (draw(st.floats(0.1, 5)), draw(st.floats(0.1, 5)))


@settings(deadline=None, max_examples=30)
@given(grids())
def test_random_grids_come_back_to_a_millionth_of_a_millimetre(grid):
    orientation, step, spacing = grid
    images = made.series(5, orientation=orientation, step=step, PixelSpacing=spacing)
    volume = lv.open_volume(list(reversed(images)))
    np.testing.assert_allclose(made.corners_in(volume), made.corners_of(images), rtol=0, atol=1e-6)
    assert volume.vol.spacing.z == pytest.approx(np.linalg.norm(step), rel=1e-6)
    assert set(made.codes(volume)) <= {"tilted"}


@settings(deadline=None, max_examples=25)
@given(grids(), st.data())
def test_crop_stride_and_flip_keep_every_voxel_in_its_place(grid, data):
    orientation, step, spacing = grid
    images = made.series(6, orientation=orientation, step=step, PixelSpacing=spacing)
    volume = lv.open_volume(images, chunks=None)

    def cut(length):
        start, stride = data.draw(st.integers(0, length - 2)), data.draw(st.integers(1, 3))
        part = slice(start, data.draw(st.integers(start + 1, length)), stride)
        return (
            part if data.draw(st.booleans()) else slice(part.stop - 1, part.start - 1 if part.start else None, -stride)
        )

    cuts = {axis: cut(volume.sizes[axis]) for axis in "zyx"}
    part = volume.isel(cuts)
    index = np.stack(np.meshgrid(*(np.arange(volume.sizes[a])[cuts[a]] for a in "zyx"), indexing="ij"), axis=-1)
    inner = np.stack(np.meshgrid(*map(np.arange, part.shape), indexing="ij"), axis=-1)
    np.testing.assert_allclose(
        part.vol.index_to_position(inner), volume.vol.index_to_position(index), rtol=0, atol=1e-6
    )
