"""From stored numbers to values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import examples

from lazyvol.errors import PixelRangeError
from lazyvol.records import LookupTable, PixelFormat
from lazyvol.rescale import Scale, only_stored_bits, rescale

FLOATS = PixelFormat(2, 3, 1, "MONOCHROME2", 32, 32, 31, 0, "1.2.840.10008.1.2.1", element="FloatPixelData")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def layout(bits, *, signed=False, allocated=0, high_bit=None):
    """Return the layout of numbers of so many bits."""
    allocated = allocated or next(n for n in (8, 16, 32) if n >= bits)
    high_bit = bits - 1 if high_bit is None else high_bit
    return PixelFormat(1, 1, 1, "MONOCHROME2", allocated, bits, high_bit, int(signed), "1.2.840.10008.1.2.1")


def rescaled(stored, scale, dtype, pixels=FLOATS):
    out = np.zeros(np.shape(stored), dtype)
    rescale(np.asarray(stored), scale, pixels, "frame 1 of a.dcm", out)
    return out


def test_stored_floating_point_numbers_are_no_integers():
    stored, out = np.full((2, 3), 0.5, np.float32), np.zeros((2, 3), np.int16)
    with pytest.raises(PixelRangeError, match=r'a\.dcm holds floating-point numbers.*dtype="float32"'):
        rescale(stored, Scale(), FLOATS, "frame 1 of a.dcm", out)


def test_stored_floating_point_numbers_are_scaled():
    stored, out = np.full((2, 3), 0.5, np.float32), np.zeros((2, 3), np.float32)
    rescale(stored, Scale(2.0, -1.0), FLOATS, "frame 1 of a.dcm", out)
    assert (out == 0).all()


# Integers: the value of plain Python, or an error


@st.composite
def stored_numbers(draw):
    """Return a layout and some numbers in its range, its ends often."""
    bits, signed = draw(st.integers(1, 32)), draw(st.booleans())
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    numbers = draw(st.lists(st.sampled_from([low, high]) | st.integers(low, high), min_size=1, max_size=4))
    pixels = layout(bits, signed=signed)
    return pixels, np.array([numbers], f"{'ui'[signed]}{pixels.bits_allocated // 8}")


WHOLE = (
    st.sampled_from([0.0, 1.0, -1.0, 2.0, 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), 2.0**64, 1e300, -1e300])
    | st.integers(-300, 300).map(float)
    | st.integers(-(1 << 53), 1 << 53).map(float)
)


def check_against_python(made, slope, intercept, dtype):
    """Hold the values, or the error, against the integers of Python, which have no end."""
    pixels, stored = made
    expected = [[v * int(slope) + int(intercept) for v in stored[0].tolist()]]
    limits = np.iinfo(dtype)
    if all(limits.min <= v <= limits.max for v in expected[0]):
        assert rescaled(stored, Scale(slope, intercept), dtype, pixels).tolist() == expected
    else:
        with pytest.raises(PixelRangeError, match=rf"frame 1 of a\.dcm holds the value .*, outside {dtype} \("):
            rescaled(stored, Scale(slope, intercept), dtype, pixels)


@given(stored_numbers(), WHOLE, WHOLE, st.sampled_from(INTEGERS))
@examples(400)
def test_integers_have_the_value_of_plain_python_or_are_refused(made, slope, intercept, dtype):
    check_against_python(made, slope, intercept, dtype)


@given(stored_numbers(), st.integers(-40, 40).map(float), st.sampled_from(INTEGERS), st.data())
@examples(300)
def test_values_about_the_ends_of_a_type_are_exact_or_refused(made, slope, dtype, data):
    """The intercept puts the greatest or the least value close to an end of the type."""
    limits = np.iinfo(dtype)
    values = [v * int(slope) for v in made[1][0].tolist()]
    end = data.draw(st.sampled_from([limits.min - min(values), limits.max - max(values)]))
    check_against_python(made, slope, float(end + data.draw(st.integers(-2, 2))), dtype)


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "dtype"),
    [
        (2**32 - 1, 2.0**31 + 1025, 0.0, "int64"),
        (2**32 - 1, 2.0**53 - 1, -float(2**53 - 1) * 2**32, "uint8"),
        (0, 1e19, 7.0, "int16"),
        (0, 1e300, 7.0, "int16"),
        (2**32 - 1, 1e308, 0.0, "int64"),
    ],
    ids=["just too great", "rounded away", "slope beyond int64", "slope beyond all", "value beyond float64"],
)
def test_values_beyond_the_digits_of_a_float_are_exact_or_refused(stored, slope, intercept, dtype):
    check_against_python((layout(32), np.array([[stored]], "u4")), slope, intercept, dtype)


@given(stored_numbers(), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
@examples(200)
def test_doubles_have_the_value_of_plain_python(made, slope, intercept):
    pixels, stored = made
    expected = [[v * slope + intercept for v in stored[0].tolist()]]
    assert rescaled(stored, Scale(slope, intercept), "float64", pixels).tolist() == expected


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 0.0), (1.0, 0.5), (float("inf"), 0.0), (1.0, float("nan"))])
def test_fractions_are_no_integers(slope, intercept):
    with pytest.raises(PixelRangeError, match=r"has slope .* and intercept .*, which int32 cannot hold"):
        rescaled([[1]], Scale(slope, intercept), "int32", layout(8))


def test_numbers_that_fit_pass_though_the_declared_bits_do_not():
    stored = np.array([[0, 100]], "u2")
    assert rescaled(stored, Scale(1.0, -1024.0), "int16", layout(16)).tolist() == [[-1024, -924]]


# Padding and limits


@pytest.mark.parametrize("field", ["padding", "limits"])
def test_both_ends_of_a_range_belong_to_it(field):
    out = rescaled(np.arange(7)[np.newaxis], Scale(**{field: (2.0, 4.0)}), "float32")
    inside = [False, False, True, True, True, False, False]
    assert np.isnan(out[0]).tolist() == (inside if field == "padding" else [not v for v in inside])


def test_padding_is_a_stored_number_not_a_value():
    out = rescaled(np.array([[0, 1, 2]]), Scale(2.0, -2.0, padding=(0.0, 0.0)), "float32")
    np.testing.assert_array_equal(out, [[np.nan, 0, 2]])


def test_padding_within_the_limits_is_nan_too():
    out = rescaled(np.array([[0, 1, 2, 3]]), Scale(limits=(1.0, 3.0), padding=(2.0, 2.0)), "float32")
    np.testing.assert_array_equal(out, [[np.nan, 1, np.nan, 3]])


# Tables


def table(*entries, dtype="<u2"):
    return LookupTable(0, dtype, np.array(entries, dtype).tobytes())


@pytest.mark.parametrize(("entry", "dtype"), [(128, "int8"), (256, "uint8"), (32768, "int16")])
def test_an_entry_that_does_not_fit_is_refused(entry, dtype):
    with pytest.raises(PixelRangeError, match=f"holds the value {entry}, outside {dtype}"):
        rescaled([[1]], Scale(lookup=table(0, entry)), dtype)


@pytest.mark.parametrize(("entry", "dtype"), [(127, "int8"), (255, "uint8"), (32767, "int16")])
def test_the_greatest_entry_that_fits_is_kept(entry, dtype):
    assert rescaled([[1]], Scale(lookup=table(0, entry)), dtype).tolist() == [[entry]]


def test_a_table_of_fractions_needs_floating_point():
    with pytest.raises(PixelRangeError, match=r'a table of fractions; open it with dtype="float32"'):
        rescaled([[0]], Scale(lookup=table(0.5, dtype="<f8")), "int16")


def test_entries_are_not_scaled():
    assert rescaled([[1]], Scale(2.0, 5.0, lookup=table(0, 9)), "int16").tolist() == [[9]]


# Words


@given(st.sampled_from([8, 16, 32]), st.booleans(), st.data())
@examples(200)
def test_only_the_stored_bits_of_a_word_count(allocated, signed, data):
    bits = data.draw(st.integers(1, allocated))
    high_bit = data.draw(st.integers(bits - 1, allocated - 1))
    word = data.draw(st.integers(0, (1 << allocated) - 1))
    value = word >> (high_bit + 1 - bits) & (1 << bits) - 1
    expected = value - (1 << bits) if signed and value >> bits - 1 else value
    words = np.array([word], f"u{allocated // 8}").view(f"{'ui'[signed]}{allocated // 8}")
    pixels = layout(bits, signed=signed, allocated=allocated, high_bit=high_bit)
    assert only_stored_bits(words, pixels).tolist() == [expected]


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_each_word_has_the_value_of_its_stored_bits(bits, signed):
    """Each by itself, since words that hold nothing else are not shifted."""
    pixels = layout(bits, signed=signed, allocated=8)
    for word in range(256):
        value = word % 2**bits
        value -= 2**bits if signed and value >> (bits - 1) else 0
        stored = np.array([[word]], "u1").view("i1" if signed else "u1")
        assert only_stored_bits(stored, pixels).tolist() == [[value]]
