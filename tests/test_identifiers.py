"""The hunt: no attribute that DICOM lists as identifying leaves the header, but as the tables here allow.

Series of each kind hold a marker in every attribute of table E.1-1 of PS3.15, at the top and in sequences, and
everything that lazyvol makes of them is searched for all markers.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import enhanced_made
import kinds_made
import matplotlib.pyplot as plt
import numpy as np
import pydicom
import pytest
import series_made as made
from click.testing import CliRunner
from marked_made import DATASET, LISTED, Mark, Marks, content_of, raw, vr_of
from matplotlib.text import Text
from PIL import Image
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

import lazyvol as lv
from lazyvol import makers
from lazyvol.cli import main
from lazyvol.errors import LazyvolWarning, PixelReadError, SuvError
from lazyvol.keywords import DESCRIPTION, KEYWORDS, MAPPING, NESTED, WORDS
from lazyvol.macros import GROUPS
from lazyvol.privacy import TERMS

READ = {
    "AcquisitionDate": "when an image was acquired; kept as seconds since the first image",
    "AcquisitionDateTime": "the same",
    "AcquisitionTime": "the same",
    "FrameAcquisitionDateTime": "the same, of a frame",
    "SeriesDate": "from the injection to the series, for the decay of the dose; kept as factors of SUV",
    "SeriesTime": "the same",
    "DecayCorrectionDateTime": "the same, where the header names what the values are corrected to",
    "RadiopharmaceuticalStartTime": "when the dose was injected, for its decay; kept as factors of SUV",
    "RadiopharmaceuticalStartDateTime": "the same",
    "TimezoneOffsetFromUTC": "brings these times to one zone; not kept",
    "PatientWeight": "SUV by body weight; kept as one factor together with dose and decay",
    "PatientSize": "SUV by lean mass and by surface; kept as the same",
    "PatientSex": "chooses the formula of lean mass; kept as the same",
    "SOPInstanceUID": "tells images apart; in a store under a keyed name",
    "FrameOfReferenceUID": "which volumes lie in one space; in a store under a keyed name",
    "SeriesInstanceUID": "tells series apart; in memory alone",
    "StudyInstanceUID": "tells series of two studies apart; in memory alone",
    "SeriesDescription": "finds a series by its name; in memory alone",
}
"""What of the table is read at all, and why; whoever adds to it answers here."""

IN_MEMORY = {"SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesDescription"}
"""What of these may show in memory and in a shell; paths too."""
KEPT_UIDS = {"SOPInstanceUID", "FrameOfReferenceUID"}
"""What a store with ``identifiers="uids"`` holds of them."""
FREE_WORDS = {
    "SegmentLabel": "says what a segment is; a segmentation is of no use without",
    "CodeMeaning": "of category and type of a segment, and of the quantity that real-world values are",
    "CodeValue": "of the units of real-world values",
    "LUTLabel": "says what real-world values are, where no code does",
}
"""Words that the table does not list and that a store keeps though a person may have typed them."""
TERM_WORDS = {
    "BodyPartExamined",
    "ConvolutionKernel",
    "DecayCorrection",
    "DoseType",
    "FilterType",
    "LossyImageCompression",
    "RescaleType",
    "ScanningSequence",
    "SequenceVariant",
    "Units",
}
"""Those of `TERMS` in which a marker can stand without making another image."""
PRIVATE = {
    "NumberOfImagesInMosaic": "how many tiles of a sheet are slices",
    "CSAImageHeaderInfo": "the same and the normal of the slices; nothing else of it is kept",
    "NumberOfSlicesInVolume": "as the first, of another maker",
    "MRVFrameSequence": "positions and times of tiles; the times as those of images",
    "GEScanDateTime": "from the injection to the scan; kept as factors of SUV",
    "SiemensDecayCorrectionDateTime": "the same",
    "PhilipsSUVScaleFactor": "a factor of SUV",
    "PhilipsActivityScaleFactor": "the same",
    "PhilipsScaleSlope": "makes numbers of stored numbers",
}
"""Elements of makers that are read; the last row of the table lists all private ones."""


class Series(NamedTuple):
    """A marked series."""

    folder: Path
    marks: Marks
    options: dict[str, object]
    datasets: list[Dataset]

    def open(self):
        return lv.open_volume(self.folder, **self.options)


def put_private(item: Dataset, marks: Marks, where: str) -> None:
    """Add elements of a maker, one of them a sequence with all of the table."""
    item[0x00431010] = raw(0x00431010, "LO", marks.word("PrivateCreator", where).encode())
    item[0x00431001 + 0x1000] = raw(0x00432001, "LO", b"unreserved")
    item[0x00431001] = raw(0x00431001, "LO", marks.word("PrivateText", where).encode())
    item[0x00431002] = raw(0x00431002, "UN", marks.word("PrivateBytes", where).encode())
    inside = marks.put(Dataset(), f"{where}.Private")
    item[0x00431003] = pydicom.DataElement(0x00431003, "SQ", Sequence([inside]))


def put_into(item: Dataset, marks: Marks, *keywords: str) -> None:
    """Put all of the table into the first item of sequences, which are made where they are absent."""
    for keyword in keywords:
        if keyword not in item or not item[keyword].value:
            setattr(item, keyword, [Dataset()])
        marks.put(item[keyword].value[0], keyword)


def copy_into(image: Dataset, elements: Dataset) -> None:
    for tag, element in elements.items():
        image[tag] = element


def as_read(item: Dataset) -> Dataset:
    """Have pydicom write the bytes of raw elements as they are, legal or not."""
    item.set_original_encoding(False, True, "iso8859")
    for tag in list(item.keys()):
        if item.get_item(tag).VR == "SQ":
            for inner in item[tag].value:
                as_read(inner)
    return item


def marked(images: list[Dataset], given: dict[str, object] | None = None) -> Marks:
    """Mark all images of a series alike, but for the SOPInstanceUID and the time of each."""
    marks, common = Marks(), Dataset()
    marks.put(common, "", given=given)
    put_into(common, marks, "ReferencedImageSequence", "RequestAttributesSequence", "SourceImageSequence")
    put_into(common.RequestAttributesSequence[0], marks, "ScheduledProtocolCodeSequence")
    put_private(common, marks, "")
    uid, start = bytes(common.get_item("SOPInstanceUID").value).strip(b"\0"), common.get_item("AcquisitionTime").value
    for k, image in enumerate(images):
        copy_into(image, common)
        for keyword in ("SOPInstanceUID", "AcquisitionTime", "AcquisitionDateTime"):
            if keyword not in common:
                del image[keyword]
        image[0x00080018] = raw(0x00080018, "UI", uid + b".%d" % (k + 1))
        image[0x00080032] = raw(0x00080032, "TM", start[:4] + b"%02d" % (int(start[4:6]) % 50 + k) + start[6:].strip())
    return marks


def ct(folder: Path) -> Series:
    images = made.series(3, WindowCenter=("40", "50"), WindowWidth=("400", "500"))
    marks = marked(images)
    names = [marks.word("WindowCenterWidthExplanation", ""), "LUNG"]
    beside = every_other_text(images[0])
    for image in images:
        marks_of_others(marks, image, beside)
        image.WindowCenterWidthExplanation = names
    return Series(folder, marks, {}, images)


@cache
def _others() -> dict[str, int]:
    """Return every other element of the dictionary that holds text."""
    kinds = {"LO", "SH", "LT", "ST", "UT", "UC", "PN", "AE", "CS"}
    rows = ((row[4], tag) for tag, row in DicomDictionary.items() if row[0] in kinds and tag >> 16 > 0x0008)
    return {keyword: tag for keyword, tag in rows if keyword and keyword not in LISTED}


def every_other_text(image: Dataset) -> dict[str, int]:
    """Return the elements with text that are not in the table, less those that say how the pixels lie."""
    return {k: tag for k, tag in _others().items() if tag not in image and k not in _LAYOUT}


_LAYOUT = {"SegmentationType", "DoseUnits", "SegmentationFractionalType", "PixelPresentation", "VOILUTFunction"}
_LAYOUT |= {"PatientPosition", "ComplexImageComponent"}


def marks_of_others(marks: Marks, image: Dataset, tags: dict[str, int]) -> None:
    """Put the same marker into each of these elements of every image."""
    known = getattr(marks, "others", None)
    if known is None:
        known = marks.put(Dataset(), "other", tags)
        marks.others = known
    copy_into(image, known)


PET_TIMES = {
    "AcquisitionDate": "20010203",
    "SeriesDate": "20010203",
    "AcquisitionTime": "100000",
    "SeriesTime": "100000",
    "AcquisitionDateTime": "20010203100000",
    "DecayCorrectionDateTime": "20010203100000",
    "RadiopharmaceuticalStartTime": "090017",
    "RadiopharmaceuticalStartDateTime": "20010203090017",
    "TimezoneOffsetFromUTC": "+0137",
}
BODY = {"PatientWeight": "71.7391", "PatientSize": "1.73917", "PatientSex": "F"}
"""As the formulas of SUV want them; searched for by their own text."""


def pet(folder: Path) -> Series:
    stored = np.arange(3 * 20 * 24).reshape(3, 20, 24).astype("<u2")
    values = {"RescaleIntercept": 0.0, "RescaleSlope": 0.5, "Units": "BQML", "DecayCorrection": "START"}
    values |= {"CorrectedImage": ("ATTN", "DECY"), "SOPClassUID": made.PT, "Modality": "PT", "FrameReferenceTime": 0.0}
    images = made.series(3, each=lambda k: {"stored": stored[k]}, **values)
    marks = marked(images, PET_TIMES | BODY)
    tracer = marks.put(Dataset(), "RadiopharmaceuticalInformationSequence", given=PET_TIMES | BODY)
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = "350000000", "6586.2"
    put_into(tracer, marks, "RadionuclideCodeSequence", "AdministrationRouteCodeSequence")
    mapping = marks.put(Dataset(), "RealWorldValueMappingSequence")
    put_into(mapping, marks, "MeasurementUnitsCodeSequence")
    for image in images:
        for tag in ("AcquisitionTime",):
            image[tag_for_keyword(tag)] = raw(0x00080032, "TM", b"100000")
        image.RadiopharmaceuticalInformationSequence = [tracer]
        image.RealWorldValueMappingSequence = [mapping]
        block = image.private_block(0x0009, "GEMS_PETD_01", create=True)
        block.add_new(0x0D, "DT", "20010203100000")
    return Series(folder, marks, {}, images)


def enhanced(folder: Path) -> Series:
    images = made.series(4, WindowCenter=40.0, WindowWidth=400.0, RescaleType="HU", KVP=120.0)
    for k, image in enumerate(images):
        image.AcquisitionDateTime = f"20010203{120000 + k}"
        image.WindowCenterWidthExplanation = "SOFT TISSUE"
    file = enhanced_made.enhanced(images)
    marks = marked([file])
    shared = file.SharedFunctionalGroupsSequence[0]
    marks.put(shared, "SharedFunctionalGroupsSequence")
    groups = ("FrameVOILUTSequence", "PixelMeasuresSequence", "PlaneOrientationSequence", "CTXRayDetailsSequence")
    put_into(shared, marks, *groups)
    put_into(shared, marks, "UnassignedSharedConvertedAttributesSequence", "RealWorldValueMappingSequence")
    shared.FrameVOILUTSequence[0].WindowCenterWidthExplanation = marks.word("WindowCenterWidthExplanation", "")
    for k, item in enumerate(file.PerFrameFunctionalGroupsSequence):
        kept = item.FrameContentSequence[0].FrameAcquisitionDateTime
        put_into(item, marks, "FrameContentSequence", "PlanePositionSequence")
        if k:
            item.FrameContentSequence[0].FrameAcquisitionDateTime = kept
        put_into(item, marks, "UnassignedPerFrameConvertedAttributesSequence", "DerivationImageSequence")
        put_private(item, marks, "PerFrameFunctionalGroupsSequence")
    put_into(file, marks, "DimensionOrganizationSequence")
    marks.put(file.DimensionIndexSequence[0], "DimensionIndexSequence")
    return Series(folder, marks, {}, [file])


def segmentation(folder: Path) -> Series:
    file = kinds_made.segmentation(kinds_made.ct_images(), kinds_made.masks((1, 2), (2, 3)))
    file = pydicom.dcmread(kinds_made.save(folder.parent / "made.seg", file))
    meta = file.file_meta
    marks = marked([file])
    for item in file.SegmentSequence:
        marks.put(item, "SegmentSequence")
        item.SegmentLabel = marks.word("SegmentLabel", "SegmentSequence")
        item.SegmentDescription = marks.word("SegmentDescription", "SegmentSequence")
        put_private(item, marks, "SegmentSequence")
        for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
            put_into(item, marks, keyword)
            item[keyword].value[0].CodeMeaning = marks.word("CodeMeaning", keyword)
    for item in file.PerFrameFunctionalGroupsSequence:
        put_into(item, marks, "SegmentIdentificationSequence", "FrameContentSequence")
    file.file_meta = meta
    return Series(folder, marks, {}, [file])


def stacks(folder: Path) -> Series:
    """A series with two grids, a gap, a time axis and windows that vary, so that there are findings."""
    images = made.series(6, at=(0, 1, 2, 4, 5, 6), each=lambda k: {"WindowCenter": 40.0 + k, "WindowWidth": 400.0})
    images += made.series(3, orientation=made.CORONAL)
    marks = marked(images)
    for k, image in enumerate(images):
        image.WindowCenterWidthExplanation = marks.word("WindowCenterWidthExplanation", "") if k % 2 else "LUNG"
    return Series(folder, marks, {}, images)


def real_world(folder: Path) -> Series:
    """Slices with a mapping to values of the real world, whose words become the name and the units of the volume."""
    images = made.series(3, **made.AS_MR)
    marks = marked(images)
    mapping = marks.put(Dataset(), "RealWorldValueMappingSequence")
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 2.5, 0.0
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 60000
    mapping["RealWorldValueFirstValueMapped"].VR = mapping["RealWorldValueLastValueMapped"].VR = "US"
    where = "RealWorldValueMappingSequence"
    mapping.LUTLabel, mapping.LUTExplanation = marks.word("LUTLabel", where), marks.word("LUTExplanation", where)
    put_into(mapping, marks, "MeasurementUnitsCodeSequence")
    mapping.MeasurementUnitsCodeSequence[0].CodeValue = marks.word("CodeValue", "MeasurementUnitsCodeSequence")
    for image in images:
        image.RealWorldValueMappingSequence = [mapping]
    return Series(folder, marks, {"values": "real_world"}, images)


def malformed(folder: Path) -> Series:
    """A PET series in which dates, times, numbers and codes of the table are words, and weight and size absurd."""
    series = pet(folder)
    listed = {k: tag for k, tag in DATASET.items() if vr_of(k, tag) in ("DA", "TM", "DT", "DS", "IS", "AS", "CS")}
    words = {k: series.marks.word(k, "malformed") for k in listed if k not in ("PatientWeight", "PatientSize")}
    for image in series.datasets:
        for keyword, word in words.items():
            image[listed[keyword]] = raw(listed[keyword], vr_of(keyword, listed[keyword]), word.encode())
        image.PatientWeight, image.PatientSize = "71739.1", "173.917"
        for keyword in ("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"):
            item = image.RadiopharmaceuticalInformationSequence[0]
            item[listed[keyword]] = raw(listed[keyword], vr_of(keyword, listed[keyword]), words[keyword].encode())
    return series


KINDS: dict[str, Callable[[Path], Series]] = {
    f.__name__: f for f in (ct, pet, enhanced, segmentation, stacks, real_world, malformed)
}


class Hunt(NamedTuple):
    """A marked series, and all that was made of it."""

    series: Series
    volume: object
    private: Path
    with_uids: Path
    pictures: list[Path]
    printed: dict[str, str]
    texts: list[str]
    log: str


@pytest.fixture(scope="module", params=KINDS)
def hunt(request, tmp_path_factory):
    """Make a series of a kind, and open, describe, plot, convert and save it, while everything said is kept."""
    home = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYVOL_KEY", "a key for tests")
        return _hunt(KINDS[request.param](home / "MARKER^Folder"), home)


def _hunt(series: Series, home: Path) -> Hunt:
    made.write(series.folder, [as_read(d) for d in series.datasets])
    log: list[str] = []
    handler = logging.Handler(logging.NOTSET)
    handler.emit = lambda record: log.append(record.getMessage())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = _made_of(series, home)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return found._replace(log="\n".join([*log, *(str(w.message) for w in warned)]))


def _made_of(series: Series, home: Path) -> Hunt:
    volume = series.open()
    lv.save_zarr(volume, home / "private.zarr")
    lv.save_zarr(volume, home / "uids.zarr", identifiers="uids")
    pictures, texts = [], []
    for name, shown in (("volume.svg", volume), ("store.png", lv.open_zarr(home / "private.zarr"))):
        flat = shown.isel({d: 0 for d in shown.dims if d not in "zyx"})
        figure = lv.plot_slices(flat, z=float(flat.z[0]))[0].axes.figure
        figure.savefig(home / name)
        pictures.append(home / name)
        texts += [t.get_text() for t in figure.findobj(Text)]
        plt.close("all")
    printed = {}
    values = ["--values", series.options["values"]] if "values" in series.options else []
    source, store, picture = str(series.folder), str(home / "private.zarr"), str(home / "shell.png")
    for command in (
        ["scan", source],
        ["scan", source, "--json"],
        ["info", source, *values],
        ["info", source, "--json", *values],
        ["info", store],
        ["convert", source, str(home / "shell.zarr"), *values],
        ["plot", str(home / "shell.zarr"), "-o", picture, "--z", str(float(volume.z[0]))],
        ["plot", source, "-o", picture, "--window", "absent", *values],
    ):
        result = CliRunner().invoke(main, command)
        printed[" ".join([command[0], *command[2:]])] = result.output
        assert result.exit_code == 0 or command[0] == "plot", result.output
    pictures += [Path(picture)] if Path(picture).exists() else []
    return Hunt(series, volume, home / "private.zarr", home / "uids.zarr", pictures, printed, texts, "")


def leaks(series: Series, content: bytes | str, arrays=(), *, allowed=frozenset()) -> list[Mark | str]:
    """Return the markers that are in the content, but for keywords that are allowed; the body as well."""
    raw_bytes = content.encode() if isinstance(content, str) else content
    found: list[Mark | str] = [m for m in series.marks.found(raw_bytes, arrays) if m.keyword not in allowed]
    body = ("71.7391", "1.73917", "71739.1", "173.917", "71739", "173.9", "20010203")
    return found + [text for text in body if text.encode() in raw_bytes]


def paths_in(content: bytes | str) -> bool:
    return b"MARKER^" in (content.encode() if isinstance(content, str) else content)


# What leaves the process


def test_no_attribute_of_the_table_is_in_a_store(hunt):
    content, arrays = content_of(hunt.private)
    assert leaks(hunt.series, content, arrays, allowed=FREE_WORDS.keys() | TERMS) == []
    assert not paths_in(content)


def test_a_store_that_keeps_uids_keeps_nothing_else(hunt):
    content, arrays = content_of(hunt.with_uids)
    assert leaks(hunt.series, content, arrays, allowed=FREE_WORDS.keys() | TERMS | KEPT_UIDS) == []
    assert not paths_in(content)


def test_the_shell_writes_the_same_store(hunt):
    content, arrays = content_of(hunt.private.with_name("shell.zarr"))
    assert leaks(hunt.series, content, arrays, allowed=FREE_WORDS.keys() | TERMS) == []
    assert not paths_in(content)


def test_no_attribute_of_the_table_is_in_a_picture(hunt):
    content = [p.read_bytes() for p in hunt.pictures]
    for path in (p for p in hunt.pictures if p.suffix == ".png"):
        with Image.open(path) as picture:
            content.append(str(picture.info).encode())
    content += [text.encode() for text in hunt.texts]
    assert leaks(hunt.series, b"\n".join(content), allowed=FREE_WORDS.keys() | {"RescaleType"}) == []
    assert not paths_in(b"\n".join(content))


def test_no_attribute_of_the_table_is_in_the_log_or_a_warning(hunt):
    assert leaks(hunt.series, hunt.log) == []
    assert not paths_in(hunt.log)


# What is in memory or on the screen


def in_memory(words: frozenset[str] = frozenset()) -> set[str]:
    return IN_MEMORY | FREE_WORDS.keys() | TERMS | {"WindowCenterWidthExplanation"}


def test_memory_shows_uids_and_the_description_alone(hunt):
    volume = hunt.volume
    scan = lv.scan_headers(hunt.series.folder)
    shown = [repr(volume), volume._repr_html_(), repr(volume.attrs), repr(volume.coords), str(lv.geometry_of(volume))]
    shown += [repr(c.values.tolist()) + repr(c.attrs) for c in volume.coords.values()]
    shown += [repr(f) + str(f) + f.to_json() for f in lv.findings_of(volume)] + [repr(lv.windows_of(volume))]
    shown += [repr(lv.open_stacks(hunt.series.folder)), repr(scan), repr(lv.group_series(scan.instances))]
    shown += [repr(lv.open_collection(hunt.series.folder, cache=None).table.to_dict()), repr(lv.field_of_view(volume))]
    assert leaks(hunt.series, "\n".join(shown), allowed=in_memory()) == []


def test_the_shell_shows_uids_and_the_description_alone(hunt):
    found = {c: leaks(hunt.series, text, allowed=in_memory()) for c, text in hunt.printed.items()}
    assert {command: marks for command, marks in found.items() if marks} == {}


def test_datasets_in_memory_leave_as_little_as_files(tmp_path):
    series = ct(tmp_path / "MARKER^Folder")
    files = made.write(series.folder, [as_read(d) for d in series.datasets])
    volume = lv.open_volume([pydicom.dcmread(f) for f in files])
    lv.save_zarr(volume, tmp_path / "a.zarr")
    content, arrays = content_of(tmp_path / "a.zarr")
    assert leaks(series, content, arrays, allowed=TERMS) == []
    assert leaks(series, repr(volume) + volume._repr_html_(), allowed=in_memory()) == []


# What is said of files that cannot be read


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A marked CT series, written; a test that changes its files copies them first."""
    series = ct(tmp_path_factory.mktemp("written") / "MARKER^Folder")
    return series, made.write(series.folder, [as_read(d) for d in series.datasets])


def test_errors_on_a_file_cut_anywhere_hold_no_attribute_of_the_table(written, tmp_path):
    series, files = written
    content = files[0].read_bytes()
    said = []
    for n, size in enumerate(np.linspace(100, len(content) - 100, 40).astype(int).tolist()):
        path = tmp_path / f"MARKER^{n}.dcm"
        path.write_bytes(content[:size])
        scan = lv.scan_headers(path)
        said += [repr(scan), *(s.reason for s in scan.skipped)]
        try:
            said += [repr(lv.open_volume(path).compute())]
        except lv.LazyvolError as error:
            said += [str(error), repr(error), repr(vars(error))]
    assert leaks(series, "\n".join(said), allowed=in_memory()) == []


def test_a_frame_that_cannot_be_read_leaves_no_path_in_a_store(written, tmp_path):
    series, files = written
    folder = tmp_path / "MARKER^Folder"
    folder.mkdir()
    for file in files:
        content = file.read_bytes()
        end = content.index(b"\xe0\x7f\x10\0OW") + 100 if file is files[1] else len(content)
        (folder / file.name).write_bytes(content[:end])
    with pytest.raises(PixelReadError) as caught:
        lv.save_zarr(lv.open_volume(folder), tmp_path / "a.zarr")
    assert leaks(series, str(caught.value), allowed=IN_MEMORY) == []
    with pytest.warns(LazyvolWarning) as warned:
        lv.save_zarr(lv.open_volume(folder, on_error="fill"), tmp_path / "b.zarr")
    assert leaks(series, "\n".join(str(w.message) for w in warned), allowed=IN_MEMORY) == []
    for name in ("a.zarr.partial", "b.zarr"):
        content, arrays = content_of(tmp_path / name)
        assert leaks(series, content, arrays, allowed=TERMS) == []
        assert not paths_in(content)


def test_a_refused_syntax_is_refused_without_an_attribute_of_the_table(written, tmp_path):
    series, _ = written
    file = pydicom.dcmread(written[1][0])
    file.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    file.PixelData = pydicom.encaps.encapsulate([bytes(100)])
    file["PixelData"].is_undefined_length = True
    file.save_as(tmp_path / "MARKER^film.dcm")
    with pytest.raises(lv.LazyvolError) as caught:
        lv.open_volume(tmp_path / "MARKER^film.dcm")
    assert leaks(series, str(caught.value) + repr(vars(caught.value)), allowed=IN_MEMORY) == []


@pytest.mark.parametrize("kind", ["bw", "lbm", "bsa"])
def test_what_hinders_suv_is_said_without_weight_size_and_times(tmp_path, kind):
    series = malformed(tmp_path / "pet")
    made.write(series.folder, [as_read(d) for d in series.datasets])
    with pytest.raises(SuvError, match="PatientWeight is above 500 kg") as caught:
        lv.to_suv(series.open(), kind)
    assert leaks(series, str(caught.value)) == []


# What is needed of the table, and of words beside it


def kept_keywords():
    """Return the keywords of all that is read of a header, and of the functional groups."""

    def walk(wanted):
        for tag, inner in wanted.items():
            yield tag
            if isinstance(inner, dict):
                yield from walk(inner)

    listed = {tag: keyword for keyword, tag in LISTED.items()}
    read = {*KEYWORDS, DESCRIPTION, *MAPPING, *NESTED, *walk(GROUPS)}
    return {listed[tag] for tag in read & listed.keys()}


def test_only_attributes_with_a_reason_are_read_of_the_table():
    assert kept_keywords() == READ.keys()


def test_only_elements_of_makers_with_a_reason_are_read():
    assert {m.name for m in (*makers.MOSAIC, makers.UIH_TILES, *makers.PET, makers.PHILIPS_SCALE)} == PRIVATE.keys()


def test_words_that_stay_are_words_of_headers():
    assert WORDS.keys() - TERMS == {"WindowCenterWidthExplanation"}


@pytest.mark.parametrize(("kind", "words"), [(ct, TERM_WORDS), (segmentation, {"SegmentLabel", "CodeMeaning"}),
    (real_world, {"LUTLabel", "CodeValue"})], ids=["ct", "segmentation", "real world"])  # fmt: skip
def test_no_exception_is_kept_that_nothing_needs(tmp_path, kind, words):
    series = kind(tmp_path / "folder")
    made.write(series.folder, [as_read(d) for d in series.datasets])
    lv.save_zarr(series.open(), tmp_path / "a.zarr")
    assert {m.keyword for m in series.marks.found(*content_of(tmp_path / "a.zarr"))} == words


def test_a_store_without_weight_and_times_still_gives_suv(tmp_path):
    series = pet(tmp_path / "folder")
    made.write(series.folder, [as_read(d) for d in series.datasets])
    volume = series.open()
    lv.save_zarr(volume, tmp_path / "a.zarr")
    again = lv.open_zarr(tmp_path / "a.zarr")
    decay = 2 ** (-(3600 - 17) / 6586.2)
    assert lv.to_suv(again).values == pytest.approx(volume.values * 71739.1 / (350e6 * decay), rel=1e-5)
    for kind in ("lbm", "bsa"):
        assert lv.to_suv(again, kind).identical(lv.to_suv(volume.drop_vars("source"), kind).assign_coords(again.coords))


# Windows


@pytest.mark.parametrize(
    "name", ["SOFT TISSUE", "LUNG", "WINDOW1", "Algo2", "brain stroke", "MEDIASTINUM 40/400", "", "3"]
)
def test_a_window_with_a_usual_name_keeps_it_in_a_store(chest_folder, tmp_path, name):
    volume = lv.open_volume(chest_folder).assign_attrs(WindowCenterWidthExplanation=["LUNG", name])
    lv.save_zarr(volume, tmp_path / "a.zarr")
    assert lv.open_zarr(tmp_path / "a.zarr").attrs["WindowCenterWidthExplanation"] == ["LUNG", name]


@pytest.mark.parametrize("name", ["Miller", "LUNG Miller", "4711", "11 04 37", "Lunge Müller", "肺"])
@pytest.mark.parametrize("identifiers", ["none", "uids"])
def test_a_window_that_a_person_may_have_named_is_numbered_in_a_store(chest_folder, tmp_path, name, identifiers):
    volume = lv.open_volume(chest_folder).assign_attrs(WindowCenterWidthExplanation=["LUNG", name])
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers=identifiers)
    again = lv.open_zarr(tmp_path / "a.zarr")
    assert list(lv.windows_of(again))[:2] == ["LUNG", "window 2"]
    assert list(lv.windows_of(volume))[:2] == ["LUNG", name]


def test_names_of_windows_that_vary_are_numbered_each(chest_folder, tmp_path):
    volume = lv.open_volume(chest_folder)
    names = np.array([f"Miller {k}\\LUNG" for k in range(volume.sizes["z"])], dtype=np.dtypes.StringDType())
    attrs = {k: v for k, v in volume.attrs.items() if k != "WindowCenterWidthExplanation"}
    varying = volume.drop_attrs(deep=False).assign_attrs(attrs)
    varying = varying.assign_coords(window_center_width_explanation=("z", names))
    lv.save_zarr(varying, tmp_path / "a.zarr")
    again = lv.open_zarr(tmp_path / "a.zarr")
    assert set(again.window_center_width_explanation.values) == {"window 1\\LUNG"}
    assert list(varying.window_center_width_explanation.values) == list(names)


def test_what_a_user_added_stays_in_a_store(chest_folder, tmp_path):
    lv.save_zarr(lv.open_volume(chest_folder).assign_attrs(project="knees"), tmp_path / "a.zarr")
    assert lv.open_zarr(tmp_path / "a.zarr").attrs["project"] == "knees"


# The search itself


def test_the_search_finds_every_marker_in_the_file(written):
    series, files = written
    found = series.marks.found(files[0].read_bytes())
    hidden = {k for k in DATASET if vr_of(k, DATASET[k]) in ("US", "SQ")}  # two bytes, and what holds others
    beside = {"SeriesDescription", *_others(), "PrivateCreator"}
    assert {m.keyword for m in found} >= DATASET.keys() - hidden - beside


def test_the_search_finds_the_last_of_many_markers():
    marks = Marks()
    for n in range(45):
        item = marks.put(Dataset(), str(n))
    plain = {
        m: item.get_item(DATASET[m.keyword])
        for m in marks
        if m.where == "44" and m.keyword in DATASET and m.vr not in ("SQ", "US")
    }
    found = marks.found(b"\n".join(element.value for element in plain.values()))
    assert plain.keys() - set(found) == set()


def test_the_table_is_whole():
    assert len(LISTED) == 656
    assert len(DATASET) == 652


@pytest.mark.parametrize("form", [
    lambda mark: str(mark).encode(), lambda mark: str(mark).lower().encode(), lambda mark: str(mark).encode("utf-16"),
    lambda mark: str(mark).encode("utf-32"), lambda mark: json.dumps({"a": [mark]}).encode()],
    ids=["utf-8", "lower case", "utf-16", "utf-32", "json"])  # fmt: skip
@pytest.mark.parametrize(
    "keyword",
    [
        "AcquisitionDateTime",
        "GPSDifferential",
        "PatientAge",
        "PatientBirthDate",
        "PatientName",
        "PatientWeight",
        "StudyInstanceUID",
        "StudyTime",
    ],
)
def test_the_search_knows_text_in_any_encoding(keyword, form):
    marks = Marks()
    item = marks.put(Dataset(), "")
    value = item.get_item(keyword).value.decode().strip(" \0")
    assert keyword in {m.keyword for m in marks.found(b"before " + form(value) + b" after")}


@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4"])
@pytest.mark.parametrize("keyword", ["PatientWeight", "PatientBirthDate", "StudyTime"])
def test_the_search_knows_numbers_as_text_and_in_arrays(keyword, kind):
    marks = Marks()
    value = float(marks.put(Dataset(), "").get_item(keyword).value.decode())
    if keyword == "StudyTime":
        value = value // 10000 * 3600 + value // 100 % 100 * 60 + value % 100
    array = np.array([1.0, value, np.nan]).astype(kind)
    assert keyword in {m.keyword for m in marks.found(arrays=[array])}
    assert kind == "<f4" or keyword in {m.keyword for m in marks.found(b"123" + array.tobytes())}


def test_the_search_finds_a_marker_in_the_attributes_and_the_coordinates_of_a_store(written, tmp_path):
    series, _ = written
    header = series.datasets[0]
    name, born = (str(header[k].value).strip() for k in ("PatientName", "PatientBirthDate"))
    volume = lv.open_volume(series.folder).assign_attrs(who=name).assign_coords(born=("z", np.full(3, float(born))))
    lv.save_zarr(volume, tmp_path / "a.zarr")
    found = leaks(series, *content_of(tmp_path / "a.zarr"), allowed=TERMS)
    assert {m.keyword for m in found} == {"PatientName", "PatientBirthDate"}


@pytest.mark.parametrize(
    ("table", "keyword", "terms", "where"),
    [
        ("NUMBERS", "GPSAltitude", False, {"memory", "store"}),
        ("WORDS", "PatientComments", True, {"memory", "store"}),
        ("WORDS", "PatientComments", False, {"memory"}),
    ],
    ids=["number", "word that may stay", "word"],
)
def test_the_hunt_fails_if_an_attribute_of_the_table_is_kept(written, tmp_path, table, keyword, terms, where):
    """Keep one more element, in a process of its own because every module has its copy of the lists."""
    series, _ = written
    code = f"""
import sys
from lazyvol import keywords
tag = {LISTED[keyword]}
for table in (keywords.{table}, keywords.TAGS):
    table[{keyword!r}] = tag
keywords.KEYWORDS[tag] = {keyword!r}
keywords.WANTED |= {{tag}}
import lazyvol as lv
from lazyvol import privacy
privacy.TERMS |= {{{(keyword if terms else "")!r}}}
volume = lv.open_volume(sys.argv[1])
print(volume.attrs)
lv.save_zarr(volume, sys.argv[2])
"""
    command = [sys.executable, "-c", code, str(series.folder), str(tmp_path / "a.zarr")]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    found = {"memory": leaks(series, printed, allowed=in_memory())}
    found["store"] = leaks(series, *content_of(tmp_path / "a.zarr"), allowed=TERMS)
    assert {place for place, marks in found.items() if [m.keyword for m in marks] == [keyword]} == where
