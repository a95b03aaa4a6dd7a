"""Look-up tables: what a descriptor and its data mean, and the segments of palettes."""

from __future__ import annotations

import contextlib
import struct
from fractions import Fraction

import encoded_made as em
import numpy as np
import pydicom
import pytest
from encoded_made import Layout, write_encoded
from hypothesis import given
from hypothesis import strategies as st
from made import examples
from pydicom.pixels import apply_color_lut

import lazyvol as lv
from lazyvol.records import LookupTable
from lazyvol.tables import TableError, entries_of, expand_segments, look_up, make_table

COLOURS = ("Red", "Green", "Blue")


def descriptor(count, first=0, bits=16, *, signed=False, order="<"):
    return struct.pack(f"{order}H{'h' if signed else 'H'}H", count % 65536, first, bits)


def made(entries, *, first=0, bits=16, order="<", signed=False, **options):
    """Return the table of one channel whose entries lie in words."""
    return make_table(
        descriptor(len(entries), first, bits, signed=signed, order=order),
        [np.asarray(entries).astype(f"{order}u2").tobytes()],
        signed=signed,
        little_endian=order == "<",
        **options,
    )


ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])


# Tables


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=30), st.sampled_from("<>"), st.integers(9, 16))
@examples(60)
def test_entries_come_back_as_they_are_written(entries, order, bits):
    table = made(entries, bits=bits, order=order)
    assert (entries_of(table).tolist(), table.dtype) == (entries, "<u2")


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30), st.sampled_from("<>"), st.booleans())
@examples(60)
def test_entries_of_8_bits_lie_in_words_or_in_bytes(entries, order, packed):
    data = np.array(entries, f"{order}u2").tobytes()
    if packed:
        data = bytes(entries) + b"\0" * (len(entries) % 2)
        data = data if order == "<" else np.frombuffer(data, "<u2").byteswap().tobytes()
    table = make_table(descriptor(len(entries), bits=8, order=order), [data], signed=False, little_endian=order == "<")
    if len(data) >= 2 * len(entries) and packed:
        return  # one entry and its padding byte look like a word, of the same value
    assert (entries_of(table).tolist(), table.dtype) == (entries, "|u1")


@given(st.integers(-32768, 32767), st.lists(st.integers(0, 65535), min_size=1, max_size=9), st.data())
@examples(100)
def test_a_number_has_its_entry_or_that_of_the_nearest_end(first, entries, data):
    table = made(entries, first=first, signed=True)
    number = data.draw(st.integers(first - 2, first + len(entries) + 1) | st.integers(-(1 << 31), (1 << 31) - 1))
    expected = entries[min(max(number - first, 0), len(entries) - 1)]
    assert look_up(np.array([[number]]), table).tolist() == [[expected]]


@pytest.mark.parametrize(("signed", "first"), [(True, -2), (False, 65534)], ids=["signed", "unsigned"])
def test_the_first_number_has_the_sign_of_the_pixels(signed, first):
    assert made([1, 2], first=first, signed=signed).first == first


def test_a_count_of_0_is_65536():
    table = made(np.arange(65536), first=0)
    assert len(entries_of(table)) == 65536


def test_a_palette_has_three_numbers_for_each_entry():
    channels = [np.array([c, c + 10], "<u2").tobytes() for c in (1, 2, 3)]
    table = make_table(descriptor(2), channels, signed=False, little_endian=True)
    assert (entries_of(table).tolist(), table.samples) == ([[1, 2, 3], [11, 12, 13]], 3)


def test_the_kind_of_a_table_is_kept():
    assert made([1], kind="HU").type == "HU"


def test_equal_tables_are_one_object():
    assert made([4, 5, 6]) is made([4, 5, 6])


@pytest.mark.parametrize("data", [b"", b"\0" * 4, b"\0" * 8], ids=len)
def test_a_descriptor_has_three_numbers(data):
    with pytest.raises(TableError, match="does not hold three numbers"):
        make_table(data, [b"\0\0"], signed=False, little_endian=True)


@pytest.mark.parametrize("bits", [0, 7, 17, 32])
def test_entries_of_other_bits_are_refused(bits):
    with pytest.raises(TableError, match=f"entries of {bits} bits, and 8 to 16 are allowed"):
        made([1], bits=bits)


@pytest.mark.parametrize("bits", [8, 9, 12, 16])
def test_entries_of_8_to_16_bits_are_taken(bits):
    assert entries_of(made([1, 200], bits=bits)).tolist() == [1, 200]


@pytest.mark.parametrize(("bits", "size"), [(16, 9), (9, 5), (8, 4)])
def test_too_few_data_are_refused(bits, size):
    with pytest.raises(TableError, match=f"its LUT data hold {size} bytes, too few for 5 entries of {bits} bits"):
        make_table(descriptor(5, bits=bits), [b"\1" * size], signed=False, little_endian=True)


def test_a_series_with_a_damaged_palette_is_refused_with_the_reason(tmp_path):
    layout = Layout(em.EXPLICIT, 8, photometric="PALETTE COLOR")
    said = em.palette(np.zeros((3, 4), "u2"), 0, 16)
    said["GreenPaletteColorLookupTableData"] = b"\0\0"
    path = write_encoded(tmp_path / "made.dcm", em.stored_for(layout), layout, **said)
    with pytest.raises(lv.errors.UnsupportedSeriesError, match="its LUT data hold 2 bytes, too few for 4 entries"):
        lv.open_volume(path)


# Segments


def words(*numbers, wide=True):
    return np.array(numbers, "u2" if wide else "u1")


BOTH = pytest.mark.parametrize("wide", [False, True], ids=["8 bit", "16 bit"])


@BOTH
def test_a_discrete_segment_holds_its_entries(wide):
    assert expand_segments(words(0, 3, 7, 9, 200, wide=wide)).tolist() == [7, 9, 200]


@BOTH
def test_a_linear_segment_leads_from_the_last_entry_to_its_own(wide):
    assert expand_segments(words(0, 1, 10, 1, 4, 30, wide=wide)).tolist() == [10, 15, 20, 25, 30]


@BOTH
def test_a_linear_segment_may_descend(wide):
    assert expand_segments(words(0, 1, 30, 1, 2, 10, wide=wide)).tolist() == [30, 20, 10]


def indirect(count, at, wide):
    """Return an indirect segment to a byte: two words or four bytes, the least first."""
    return (2, count, at & 0xFFFF, at >> 16) if wide else (2, count, *at.to_bytes(4, "little"))


@BOTH
def test_an_indirect_segment_repeats_those_that_it_points_to(wide):
    body = [0, 1, 10, 0, 2, 5, 6, 1, 2, 16]
    found = expand_segments(words(*body, *indirect(2, 3 * (1 + wide), wide), wide=wide))
    assert found.tolist() == [10, 5, 6, 11, 16, 5, 6, 11, 16]


@BOTH
def test_a_repeated_linear_segment_begins_at_the_entry_before_it(wide):
    body = [0, 1, 10, 1, 2, 20, 0, 1, 40]
    found = expand_segments(words(*body, *indirect(1, 3 * (1 + wide), wide), wide=wide))
    assert found.tolist() == [10, 15, 20, 40, 30, 20]


def test_an_offset_beyond_255_takes_two_bytes():
    body = [0, 150, *range(150), 0, 148, *range(148), 0, 1, 77]
    found = expand_segments(words(*body, *indirect(1, 302, wide=False), wide=False))
    assert found.tolist()[-2:] == [77, 77]


def test_an_offset_beyond_65535_takes_two_words():
    body = [0, 40000, *range(40000), 0, 1, 77]
    found = expand_segments(words(*body, *indirect(1, 80004, wide=True)))
    assert found.tolist()[-2:] == [77, 77]


@BOTH
def test_segments_follow_an_indirect_one(wide):
    found = expand_segments(words(0, 1, 10, *indirect(1, 0, wide), 0, 1, 99, wide=wide))
    assert found.tolist() == [10, 10, 99]


@pytest.mark.parametrize(
    "numbers",
    [(1, 3, 9), (0, 4, 1, 2), (0, 1, 5, 1, 4), (3, 1, 5), (0, 1, 5, 255, 1, 5)],
    ids=["linear first", "discrete breaks off", "linear breaks off", "opcode 3", "opcode 255"],
)
@BOTH
def test_segments_that_mean_nothing_are_refused(numbers, wide):
    with pytest.raises(TableError, match=r"a segment of its palette \(opcode \d+, length \d+\) cannot be understood"):
        expand_segments(words(*numbers, wide=wide))


@BOTH
def test_an_indirect_segment_that_breaks_off_is_refused(wide):
    with pytest.raises(TableError, match="an indirect segment of its palette breaks off"):
        expand_segments(words(*[0, 1, 9, *indirect(1, 0, wide)][:-1], wide=wide))


@BOTH
@pytest.mark.parametrize("at", [3, 4, 1000], ids=["itself", "within itself", "nowhere"])
def test_an_indirect_segment_points_back(at, wide):
    with pytest.raises(TableError, match="points to none before it"):
        expand_segments(words(0, 1, 9, *indirect(1, at * (1 + wide), wide), wide=wide))


@BOTH
def test_an_indirect_segment_does_not_point_to_another(wide):
    first = indirect(1, 0, wide)
    with pytest.raises(TableError, match="points to none before it"):
        expand_segments(words(0, 1, 9, *first, *indirect(1, 3 * (1 + wide), wide), wide=wide))


def test_no_more_than_65536_entries_are_made():
    with pytest.raises(TableError, match="make more than 65536 entries"):
        expand_segments(words(0, 1, 0, 1, 65535, 9, 1, 1, 9))


def test_65536_entries_are_made():
    assert len(expand_segments(words(0, 1, 0, 1, 65535, 9))) == 65536


def test_repeated_segments_stop_at_65536_entries():
    body = [0, 1, 0, 1, 65000, 9]
    with pytest.raises(TableError, match="make more than 65536 entries"):
        expand_segments(words(*body, *indirect(65535, 6, wide=True)))


def test_too_few_entries_are_refused():
    data = words(0, 2, 5, 6).tobytes()
    with pytest.raises(TableError, match="the segments of its palette make 2 entries, and its descriptor says 3"):
        make_table(descriptor(3), [data], signed=False, little_endian=True, segmented=True)


def test_entries_beyond_the_count_are_left_out():
    table = make_table(
        descriptor(2), [words(0, 3, 5, 6, 7).tobytes()], signed=False, little_endian=True, segmented=True
    )
    assert entries_of(table).tolist() == [5, 6]


@ORDERS
@BOTH
def test_segments_lie_in_words_of_the_byte_order(order, wide):
    data = words(0, 3, 5, 6, 7, 0, wide=wide) if not wide else words(0, 3, 5, 6, 7)
    raw = data.tobytes()
    if order == ">":
        raw = np.frombuffer(raw, "<u2").byteswap().tobytes()
    bits = 16 if wide else 8
    table = make_table(
        descriptor(3, bits=bits, order=order), [raw], signed=False, little_endian=order == "<", segmented=True
    )
    assert (entries_of(table).tolist(), table.dtype) == ([5, 6, 7], "<u2" if wide else "|u1")


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_segments_of_more_than_8_bits_lie_in_words(bits):
    data = words(0, 2, 300, 511).tobytes()
    table = make_table(descriptor(2, bits=bits), [data], signed=False, little_endian=True, segmented=True)
    assert (entries_of(table).tolist(), table.dtype) == ([300, 511], "<u2")


@st.composite
def segmented(draw, wide, *, with_indirect=True):
    """Return segments and what they make, the linear ones in fractions."""
    most = 65535 if wide else 255
    numbers = draw(st.lists(st.integers(0, most), min_size=1, max_size=6))
    data, entries = [0, len(numbers), *numbers], list(numbers)
    starts = [(0, lambda _last, numbers=tuple(numbers): list(numbers))]
    kinds = ["discrete", "linear", "indirect"] if with_indirect else ["discrete", "linear"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=6)):
        if kind == "discrete":
            found = draw(st.lists(st.integers(0, most), max_size=5))
            starts.append((len(data), lambda _last, found=tuple(found): list(found)))
            data += [0, len(found), *found]
            entries += found
        elif kind == "linear":
            length, end = draw(st.integers(1, 9)), draw(st.integers(0, most))

            def line(last, length=length, end=end):
                return [round(last + Fraction((end - last) * n, length)) for n in range(1, length + 1)]

            starts.append((len(data), line))
            data += [1, length, end]
            entries += line(entries[-1])
        else:
            n = draw(st.integers(0, len(starts) - 1))
            at = starts[n][0]
            data += indirect(1, at * (1 + wide), wide)
            entries += starts[n][1](entries[-1])
    return np.array(data, "u2" if wide else "u1"), entries


@BOTH
@given(data=st.data())
@examples(100)
def test_segments_make_what_the_standard_says(wide, data):
    numbers, entries = data.draw(segmented(wide))
    assert expand_segments(numbers).tolist() == entries


@given(st.data())
@examples(60)
def test_any_numbers_make_entries_or_are_refused(data):
    wide = data.draw(st.booleans())
    small = st.integers(0, 6) | st.integers(0, 65535 if wide else 255)
    numbers = np.array(data.draw(st.lists(small, max_size=30)), "u2" if wide else "u1")
    with contextlib.suppress(TableError):
        assert len(expand_segments(numbers)) <= 65536


def test_the_colours_of_a_segmented_palette_are_those_of_pydicom(tmp_path):
    @given(st.data())
    @examples(20)
    def check(data):
        channels = [data.draw(segmented(wide=False, with_indirect=False)) for _ in COLOURS]
        count = min(len(entries) for _, entries in channels)
        layout = Layout(em.EXPLICIT, 8, photometric="PALETTE COLOR")
        said: dict[str, object] = {}
        for colour, (numbers, _) in zip(COLOURS, channels, strict=True):
            raw = numbers.tobytes() + b"\0" * (numbers.size % 2)
            said[f"{colour}PaletteColorLookupTableDescriptor"] = [count, 0, 8]
            said[f"Segmented{colour}PaletteColorLookupTableData"] = raw
        stored = np.arange(256, dtype="u1").reshape(1, 16, 16) % count
        path = write_encoded(tmp_path / "made.dcm", stored, layout, **said)
        found = lv.open_volume(path).values
        entries = np.array([e[:count] for _, e in channels], "u2")
        np.testing.assert_array_equal(found, em.colours_of(stored, entries, 0))
        header = pydicom.dcmread(path)
        if all(len(e) == count for _, e in channels):
            np.testing.assert_array_equal(found, apply_color_lut(stored, header))

    check()


@BOTH
def test_a_segmented_palette_with_indirect_segments_colours_a_volume(wide, tmp_path):
    layout, bits = Layout(em.EXPLICIT, 8, photometric="PALETTE COLOR"), 16 if wide else 8
    numbers = words(0, 1, 10, 1, 4, 30, 0, 1, 90, *indirect(1, 3 * (1 + wide), wide), wide=wide)
    entries = np.array([10, 15, 20, 25, 30, 90, 75, 60, 45, 30], "u2")
    said: dict[str, object] = {}
    for n, colour in enumerate(COLOURS):
        said[f"{colour}PaletteColorLookupTableDescriptor"] = [10, 0, bits]
        raw = (numbers if n else words(0, 10, *range(10), wide=wide)).tobytes()
        said[f"Segmented{colour}PaletteColorLookupTableData"] = raw + b"\0" * (len(raw) % 2)
    stored = np.arange(12, dtype="u1").reshape(1, 3, 4)
    path = write_encoded(tmp_path / "made.dcm", stored, layout, **said)
    expected = np.stack([np.arange(10), entries, entries]).astype(f"u{bits // 8}")
    places = stored.clip(0, 9).astype(int)
    found = lv.open_volume(path)
    np.testing.assert_array_equal(found.values, np.moveaxis(expected[:, places], 0, -1), strict=True)


def test_a_table_of_doubles_is_looked_up():
    table = LookupTable(-1, "<f8", np.array([0.5, 1.5, 2.5]).tobytes())
    assert look_up(np.array([[-5, -1, 0, 1, 9]]), table).tolist() == [[0.5, 0.5, 1.5, 2.5, 2.5]]
