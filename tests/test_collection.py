"""A collection: one row for each stack of each series, from headers alone."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

import lazyvol as lv
from lazyvol.collection import series_table
from lazyvol.phantom import FICTITIOUS_PATIENT, write_series


@pytest.fixture
def folder(tmp_path, rng):
    """A CT of five slices with one missing, and a PET of four."""
    spacing = (3.0, 0.9, 0.7)
    paths = write_series(tmp_path / "ct", rng.integers(-1024, 3000, (6, 6, 8)), spacing=spacing, series_number=4)
    paths[2].unlink()
    values = rng.integers(0, 99, (4, 5, 7)) * 0.5
    write_series(tmp_path / "pt", values, spacing=spacing, modality="PT", slope=0.5, intercept=0, series_number=1)
    (tmp_path / "notes.txt").write_text("nothing" * 50)
    return tmp_path


@pytest.fixture
def table(folder):
    return series_table(lv.scan_headers(folder))


def test_there_is_a_row_for_each_series_by_number(table):
    assert list(table["number"]) == [1, 4]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("modality", ["PT", "CT"]),
        ("images", [4, 5]),
        ("shape", [(4, 5, 7), (5, 6, 8)]),
        ("dtype", ["float32", "int16"]),
        ("bytes", [4 * 5 * 7 * 4, 5 * 6 * 8 * 2]),
        ("orientation", ["LPS", "LPS"]),
        ("findings", [(), ("missing-slices",)]),
        ("refusal", ["", ""]),
        ("stack", [0, 0]),
        ("description", ["Phantom PT", "Phantom CT"]),
        ("syntax", ["1.2.840.10008.1.2.1"] * 2),
    ],
)
def test_a_column_says_what_the_headers_say(table, column, values):
    assert list(table[column]) == values


@pytest.mark.parametrize("column", ["spacing", "field_of_view"])
def test_lengths_are_those_of_the_volume(folder, table, column):
    for number, found in zip(table["number"], table[column], strict=True):
        volume = lv.open_volume(folder, series=int(number))
        np.testing.assert_array_equal(found, getattr(volume.vol, column))


def test_a_series_opens_by_the_uid_of_its_row(folder, table):
    volumes = [lv.open_volume(folder, series=uid) for uid in table["series_uid"]]
    assert [v.shape for v in volumes] == list(table["shape"])


def test_a_series_that_does_not_open_says_why(tmp_path, rng):
    mosaic = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}
    write_series(tmp_path, rng.integers(0, 9, (2, 6, 8)), spacing=(1.0, 1.0, 1.0), overrides=mosaic)
    assert "mosaic" in series_table(lv.scan_headers(tmp_path))["refusal"][0]


def test_no_image_gives_an_empty_table_with_all_columns(folder):
    table = series_table(lv.scan_headers(folder / "notes.txt"))
    assert table.empty
    assert "spacing" in table.columns


def test_no_pixel_is_needed(folder):
    before = series_table(lv.scan_headers(folder))
    for path in folder.rglob("*.dcm"):
        size = path.stat().st_size
        pixels = len(pydicom.dcmread(path).PixelData)
        path.write_bytes(path.read_bytes()[: size - pixels] + bytes(pixels))
    assert series_table(lv.scan_headers(folder)).equals(before)


def test_the_table_does_not_name_the_patient(table):
    text = table.to_csv()
    assert [k for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and v in text] == []
