"""Palettes and modality tables: each stored number has its entry, and those outside of a table have its ends."""

from __future__ import annotations

import encoded_made as em
import numpy as np
import pydicom
import pytest
from encoded_made import Layout, colours_of, palette, stored_for, write_encoded
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

import lazyvol as lv


@pytest.mark.parametrize("entry_bits", [8, 16])
@pytest.mark.parametrize(("first", "count"), [(16, 100), (0, 7), (200, 56)], ids=str)
def test_numbers_outside_of_a_palette_have_its_ends(first, count, entry_bits, tmp_path):
    layout = Layout(em.EXPLICIT, 8, photometric="PALETTE COLOR")
    stored = np.arange(256, dtype="u1").reshape(1, 16, 16)
    entries = np.random.default_rng(5).integers(0, 2**entry_bits, (3, count)).astype("u2")
    path = write_encoded(tmp_path / "made.dcm", stored, layout, **palette(entries, first, entry_bits))
    np.testing.assert_array_equal(lv.open_volume(path), colours_of(stored, entries, first))
    if count % 2 == 0:  # pydicom cannot take the padding of an odd count of bytes
        np.testing.assert_array_equal(
            apply_color_lut(stored, pydicom.dcmread(path)), colours_of(stored, entries, first)
        )


def test_a_palette_of_65536_entries_says_0(tmp_path):
    layout = Layout(em.EXPLICIT, 16, photometric="PALETTE COLOR")
    stored = stored_for(layout)
    entries = np.random.default_rng(6).integers(0, 2**16, (3, 2**16)).astype("u2")
    path = write_encoded(tmp_path / "made.dcm", stored, layout, **palette(entries, 0, 16))
    np.testing.assert_array_equal(lv.open_volume(path), colours_of(stored, entries, 0))


def test_8_bit_entries_of_a_palette_may_lie_in_words(tmp_path):
    # PS3.3 C.7.6.3.1.6: the third value of the descriptor says 8, and each entry takes up the low byte of a word.
    layout = Layout(em.EXPLICIT, 8, photometric="PALETTE COLOR")
    stored = stored_for(layout)
    entries = np.random.default_rng(7).integers(0, 256, (3, 256)).astype("u2")
    elements = palette(entries, 0, 8)
    for colour, table in zip(("Red", "Green", "Blue"), entries, strict=True):
        elements[f"{colour}PaletteColorLookupTableData"] = table.astype("<u2").tobytes()
    path = write_encoded(tmp_path / "made.dcm", stored, layout, **elements)
    found = lv.open_volume(path)
    np.testing.assert_array_equal(found, colours_of(stored, entries, 0))
    assert found.dtype == np.uint8


def test_a_palette_in_big_endian_has_the_same_colours(tmp_path):
    layout = Layout(em.BIG_ENDIAN, 8, photometric="PALETTE COLOR")
    stored = stored_for(layout)
    entries = np.random.default_rng(8).integers(0, 2**16, (3, 256)).astype("u2")
    path = write_encoded(tmp_path / "made.dcm", stored, layout, **palette(entries, 0, 16, order=">"))
    np.testing.assert_array_equal(lv.open_volume(path), colours_of(stored, entries, 0))


# Modality tables (DICOM PS3.3 C.11.1)


def modality(entries: np.ndarray, first: int, *, signed: bool) -> dict[str, object]:
    """Return the element of a modality table."""
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries), first, 8 * entries.itemsize])
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return {"ModalityLUTSequence": [table]}


def entries_of(count: int, kind: str) -> np.ndarray:
    made = np.random.default_rng(count).integers(0, np.iinfo(kind).max, count, endpoint=True).astype(kind)
    made[:2] = 0, np.iinfo(kind).max
    return made


RANGES = {
    "all of 8 bits": (8, False, 0, 256),
    "a part of 12 bits": (12, False, 100, 1000),
    "from a negative number": (12, True, -700, 1500),
    "two entries": (8, False, 5, 2),
}


@pytest.fixture(params=RANGES)
def table(request):
    return RANGES[request.param]


@pytest.fixture(params=["u1", "u2"])
def kind(request):
    return request.param


@pytest.fixture
def with_table(table, kind, tmp_path):
    """Return a file with a modality table, its stored numbers and its values."""
    bits, signed, first, count = table
    layout, entries = Layout(em.EXPLICIT, bits, signed), entries_of(count, kind)
    stored = stored_for(layout)
    values = entries[(stored.astype(int) - first).clip(0, count - 1)]
    return (
        write_encoded(tmp_path / "made.dcm", stored, layout, **modality(entries, first, signed=signed)),
        stored,
        values,
    )


def test_values_are_the_entries_of_the_modality_table(with_table):
    path, _, values = with_table
    np.testing.assert_array_equal(lv.open_volume(path), values)


def test_pydicom_agrees_on_the_modality_table(with_table):
    path, stored, values = with_table
    np.testing.assert_array_equal(apply_modality_lut(stored, pydicom.dcmread(path)), values)


def test_the_type_is_the_smallest_for_the_entries(with_table):
    path, _, values = with_table
    assert lv.open_volume(path).dtype == values.dtype


def test_stored_numbers_pass_by_the_modality_table(with_table):
    path, stored, _ = with_table
    found = lv.open_volume(path, rescale=False)
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)


def test_a_modality_table_applies_to_compressed_frames_too(tmp_path):
    layout, entries = Layout(em.LS, 12), entries_of(1000, "u2")
    stored = stored_for(layout)
    path = write_encoded(tmp_path / "made.dcm", stored, layout, **modality(entries, 100, signed=False))
    np.testing.assert_array_equal(lv.open_volume(path), entries[(stored.astype(int) - 100).clip(0, 999)])


def test_a_part_of_a_volume_has_the_entries_of_its_own_numbers(with_table):
    path, _, values = with_table
    np.testing.assert_array_equal(lv.open_volume(path).isel(y=slice(3, 9), x=[4, 2]), values[:, 3:9][:, :, [4, 2]])
