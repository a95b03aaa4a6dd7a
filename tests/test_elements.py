"""What is made of the raw bytes of a header, and which of them cannot be understood."""

import datetime as dt
import math
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG_LS, elements, examples, instance
from pydicom.datadict import keyword_for_tag

from lazyvol.elements import HeaderError, instance_from_elements
from lazyvol.keywords import WANTED

few = examples(150)


def frame(**values):
    return instance(**values).frames[0]


def value(keyword, raw, **others):
    """Return a kept value; None if it was not kept."""
    return dict(instance(**{keyword: raw}, **others).values).get(keyword)


# Numbers


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_places_and_spacings_come_as_written(keyword):
    field = {"ImagePositionPatient": "position", "ImageOrientationPatient": "orientation"}.get(keyword, "pixel_spacing")
    written = {"ImagePositionPatient": (-1.5, 2e1, 3.25), "PixelSpacing": (0.7, 0.3)}.get(keyword, (0, 1, 0, 0, 0, -1))
    assert getattr(frame(**{keyword: written}), field) == written


@few
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_number_comes_back(number):
    assert value("SliceThickness", repr(number)) == number


@pytest.mark.parametrize("raw", [b"2.5 ", b" 2.5", b"2.5\0", b"  2.5  ", b"+2.5", b"25E-1", b"25e-1 "])
def test_padding_and_exponents_are_understood(raw):
    assert value("SliceThickness", raw) == 2.5


@pytest.mark.parametrize("raw", [b"", b"  ", b"\0", b" \0"], ids=["empty", "spaces", "null", "both"])
def test_an_empty_value_is_absent_and_not_malformed(raw):
    made = instance(SliceThickness=raw, ImagePositionPatient=raw)
    assert (made.frames[0].position, made.malformed) == (None, ())


@pytest.mark.parametrize("raw", [b"40\\-600", b"40 \\-600 ", b"40\\ -600"], ids=["bare", "trailing", "leading"])
def test_several_numbers_come_as_a_tuple(raw):
    assert value("WindowCenter", raw) == (40.0, -600.0)


MALFORMED = {
    "comma": (b"2,5", "not a number"),
    "two points": (b"2.5.1", "2.5.1"),
    "infinite": (b"inf", "not a number"),
    "not a number": (b"nan", "not a number"),
    "too large": (b"1e999", "1e999"),
    "one of two": (b"1\\", "1\\"),
    "words": (b"Doe^John", "not a number"),
    "latin": ("dürr".encode("latin-1"), "not a number"),
    "underscore": (b"1_0", "not a number"),
    "hexadecimal": (b"0x10", "not a number"),
    "minus alone": (b"-", "-"),
}


@pytest.mark.parametrize(("raw", "shown"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_number_is_named(raw, shown):
    assert instance(SliceThickness=raw).malformed == (("SliceThickness", shown),)


@pytest.mark.parametrize("raw", [raw for raw, _ in MALFORMED.values()], ids=MALFORMED)
def test_a_malformed_number_is_absent(raw):
    assert value("SliceThickness", raw) is None


@pytest.mark.parametrize(
    ("keyword", "raw"),
    [
        ("ImagePositionPatient", "1\\2"),
        ("ImagePositionPatient", "1\\2\\3\\4"),
        ("ImageOrientationPatient", "1\\0\\0\\0\\1"),
        ("PixelSpacing", "0.5"),
        ("PixelSpacing", "0.5\\0.5\\0.5"),
        ("PixelSpacing", "0\\0.5"),
        ("PixelSpacing", "0.5\\-0.5"),
        ("RescaleSlope", "0"),
        ("RescaleSlope", "one"),
        ("RescaleIntercept", "?"),
        ("InstanceNumber", "first"),
        ("ImageOrientationPatient", "1\\0\\0\\1\\0\\0"),
        ("ImageOrientationPatient", "0\\0\\0\\0\\0\\0"),
        ("ImageOrientationPatient", "1\\0\\0\\0\\0.5\\0"),
        ("ImageOrientationPatient", "1\\0\\0\\0.1\\1\\0"),
    ],
)
def test_what_cannot_be_is_named(keyword, raw):
    assert [k for k, _ in instance(**{keyword: raw}).malformed] == [keyword]


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_malformed_place_is_absent(keyword):
    field = {"ImagePositionPatient": "position", "ImageOrientationPatient": "orientation"}.get(keyword, "pixel_spacing")
    assert getattr(frame(**{keyword: "1\\x\\0"}), field) is None


@pytest.mark.parametrize("raw", [b"0", b"x", None], ids=["zero", "malformed", "absent"])
def test_without_a_slope_values_are_as_stored(raw):
    assert frame(RescaleSlope=raw).slope == 1


def test_slope_and_intercept_are_kept():
    assert (frame(RescaleSlope=0.25, RescaleIntercept=-3).slope, frame(RescaleIntercept=-3.5).intercept) == (0.25, -3.5)


@pytest.mark.parametrize(
    "cosines", [(1, 0, 0, 0, 0.995, 0), (1, 0, 0, 0.005, 1, 0)], ids=["not quite one", "not quite square"]
)
def test_cosines_that_are_a_little_off_are_kept(cosines):
    assert frame(ImageOrientationPatient=cosines).orientation == cosines


NUMERIC = [k for k in map(keyword_for_tag, WANTED) if k in ("PixelSpacing", "RescaleSlope", "KVP", "InstanceNumber")]


@few
@given(st.sampled_from(NUMERIC), st.text(st.characters(codec="latin-1", exclude_characters="\\"), min_size=1))
def test_text_in_the_place_of_a_number_is_never_repeated(keyword, text):
    secret = "PHI" + text
    made = instance(**{keyword: secret.encode("latin-1")})
    assert made.malformed == ((keyword, "not a number"),)


@few
@given(st.text("0123456789+-.eE\\ ", min_size=41, max_size=80))
def test_of_a_malformed_number_at_most_40_characters_are_shown(text):
    assert all(len(shown) <= 40 for _, shown in instance(SliceThickness=text + "..").malformed)


@pytest.mark.parametrize("keyword", ["InstanceNumber", "SeriesNumber"])
@pytest.mark.parametrize("raw", [b"1E300", b"99999999999999999999"], ids=["exponent", "digits"])
def test_an_integer_beyond_what_dicom_allows_is_malformed(keyword, raw):
    # PS3.5 table 6.2-1: IS holds -2**31 to 2**31 - 1
    assert [k for k, _ in instance(**{keyword: raw}).malformed] == [keyword]


# Byte order


@pytest.mark.parametrize("little_endian", [True, False], ids=["little", "big"])
def test_binary_numbers_follow_the_byte_order(little_endian):
    made = instance(little_endian=little_endian, Rows=513, Columns=2, BitsStored=10, HighBit=9, DiffusionBValue=800.5)
    pixels = made.pixels
    assert (pixels.rows, pixels.columns, pixels.bits_stored, pixels.high_bit) == (513, 2, 10, 9)
    assert dict(made.values)["DiffusionBValue"] == 800.5
    assert pixels.little_endian is little_endian


@pytest.mark.parametrize("little_endian", [True, False], ids=["little", "big"])
@pytest.mark.parametrize(("signed", "padding"), [(0, 63536), (1, -2000), (0, 0), (1, 32767)], ids=str)
def test_the_padding_value_is_signed_as_the_pixels_are(little_endian, signed, padding):
    made = instance(little_endian=little_endian, PixelRepresentation=signed, PixelPaddingValue=padding)
    assert dict(made.values)["PixelPaddingValue"] == padding


@pytest.mark.parametrize(
    "raw", [b"\1\2\3\4", struct.pack("<d", math.nan), struct.pack("<d", math.inf)], ids=["half", "nan", "inf"]
)
def test_a_malformed_binary_number_is_named_and_absent(raw):
    made = instance(DiffusionBValue=raw)
    assert made.malformed == (("DiffusionBValue", "not a number"),)
    assert "DiffusionBValue" not in dict(made.values)


def test_a_b_value_of_eight_digits_in_text_is_not_mistaken_for_binary():
    assert value("DiffusionBValue", b"1000") == 1000


# Pixel format


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated"])
@pytest.mark.parametrize("raw", [None, 0, b"", b"\1"], ids=["absent", "zero", "empty", "half"])
def test_without_its_size_a_header_is_no_image(keyword, raw):
    with pytest.raises(HeaderError, match=f"lacks {keyword}") as caught:
        instance(**{keyword: raw})
    assert caught.value.damaged


def test_more_bits_stored_than_allocated_is_an_error():
    with pytest.raises(HeaderError, match="BitsStored 17 exceeds BitsAllocated 16"):
        instance(BitsStored=17)


@pytest.mark.parametrize(
    ("keyword", "field", "default"),
    [
        ("BitsStored", "bits_stored", 16),
        ("SamplesPerPixel", "samples_per_pixel", 1),
        ("PhotometricInterpretation", "photometric_interpretation", "MONOCHROME2"),
        ("PixelRepresentation", "pixel_representation", 0),
        ("HighBit", "high_bit", 11),
    ],
)
def test_what_the_pixel_format_leaves_out_has_the_plain_value(keyword, field, default):
    assert getattr(instance(**{keyword: None}).pixels, field) == default


def test_equal_formats_are_one_object():
    assert instance(InstanceNumber=1).pixels is instance(InstanceNumber=2).pixels


# Words


def test_words_lose_their_padding():
    made = instance(Modality=b"MR ", SOPInstanceUID=b"1.2.3\0", ImageType=b"ORIGINAL\\PRIMARY \\M ")
    assert (made.modality, made.uid, made.image_type) == ("MR", "1.2.3", ("ORIGINAL", "PRIMARY", "M"))


def test_without_sop_instance_uid_that_of_the_file_serves():
    assert instance(SOPInstanceUID=None, uid="9.9").uid == "9.9"


def test_with_sop_instance_uid_that_of_the_file_is_not_asked():
    assert instance(SOPInstanceUID="1.2", uid="9.9").uid == "1.2"


IDENTIFYING = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "InstitutionName", "StudyDate")


@pytest.mark.parametrize("keyword", IDENTIFYING)
def test_nothing_that_identifies_a_person_is_wanted(keyword):
    assert keyword not in set(map(keyword_for_tag, WANTED))


# Time


def day(*parts):
    return dt.date(*parts).toordinal() * 86400.0


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({"AcquisitionDateTime": "20240229123456.25"}, day(2024, 2, 29) + 45296.25),
        ({"AcquisitionDateTime": "20240229123456.25+0200"}, day(2024, 2, 29) + 45296.25),
        ({"AcquisitionDateTime": "20240229123456.25-0500"}, day(2024, 2, 29) + 45296.25),
        ({"AcquisitionDateTime": "202402291234"}, day(2024, 2, 29) + 45240),
        ({"AcquisitionDate": "20240229", "AcquisitionTime": "123456.250000"}, day(2024, 2, 29) + 45296.25),
        ({"AcquisitionDate": "20240229 ", "AcquisitionTime": "12 "}, day(2024, 2, 29) + 43200),
        ({"AcquisitionTime": "000000"}, 0),
        ({"AcquisitionTime": "12:34:56.5"}, 45296.5),
        ({"AcquisitionTime": "1234"}, 45240),
        ({"AcquisitionDate": "", "AcquisitionTime": "000001"}, 1),
        (
            {"AcquisitionDateTime": "20240229000001", "AcquisitionDate": "19990101", "AcquisitionTime": "235959"},
            day(2024, 2, 29) + 1,
        ),
    ],
    ids=[
        "date and time in one",
        "zone to the east",
        "zone to the west",
        "without seconds",
        "date and time apart",
        "hour only",
        "midnight",
        "ACR-NEMA",
        "time without date",
        "empty date",
        "the joined one wins",
    ],
)
def test_times_are_in_seconds(values, seconds):
    assert instance(**values).acquisition_time == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"AcquisitionTime": ""},
        {"AcquisitionTime": "noon"},
        {"AcquisitionTime": "12xx"},
        {"AcquisitionTime": "1200nan"},
        {"AcquisitionTime": "1200inf"},
        {"AcquisitionTime": "12001e999"},
        {"AcquisitionDate": "20240001", "AcquisitionTime": "120000"},
        {"AcquisitionDate": "2024xx01", "AcquisitionTime": "120000"},
        {"AcquisitionDate": "20240101"},
    ],
    ids=["none", "empty", "word", "half", "nan", "inf", "overflow", "no such month", "no date", "no time"],
)
def test_a_time_that_cannot_be_understood_is_absent(values):
    assert instance(**values).acquisition_time is None


def test_a_date_without_time_gives_way_to_the_time_that_is_there():
    assert instance(AcquisitionDateTime="20240229", AcquisitionTime="000001").acquisition_time is not None


@few
@given(st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2199, 1, 1)), st.integers(0, 10**6))
def test_times_differ_as_clocks_do(start, milliseconds):
    later = start + dt.timedelta(milliseconds=milliseconds)
    first, second = (
        instance(AcquisitionDateTime=t.strftime("%Y%m%d%H%M%S.%f").zfill(21)).acquisition_time for t in (start, later)
    )
    assert second - first == pytest.approx(milliseconds / 1000, abs=1e-4)


# Where frames lie


def places(**given):
    return [(f.offset, f.length) for f in instance(**given).frames]


FRAME = 4 * 5 * 2


@few
@given(
    offset=st.integers(132, 5000), count=st.integers(1, 5), size=st.integers(0, 6000), length=st.integers(0, 6 * FRAME)
)
def test_frames_follow_one_another_as_far_as_the_file_goes(offset, count, size, length):
    found = places(offset=offset, size=size, length=length, NumberOfFrames=str(count))
    held = [b for b in range(offset, offset + length) if b < size]
    expected = [sum(begin <= b < begin + FRAME for b in held) for begin in range(offset, offset + count * FRAME, FRAME)]
    assert found == [(offset + n * FRAME, expected[n]) for n in range(count)]


@pytest.mark.parametrize(
    ("size", "missing"),
    [(1000 + FRAME, 0), (5000, 0), (1000 + FRAME - 1, 1), (1001, FRAME - 1), (1000, FRAME), (900, FRAME)],
    ids=["whole", "trailing bytes", "one short", "one left", "none", "ends before"],
)
def test_missing_bytes_are_counted_from_the_file_size(size, missing):
    assert instance(size=size, length=FRAME).missing_bytes == missing


def test_an_element_shorter_than_its_frame_lacks_bytes_however_long_the_file():
    assert instance(size=10**6, length=FRAME - 7).missing_bytes == 7


def test_missing_bytes_of_a_multi_frame_file_add_up():
    assert instance(size=1000 + 2 * FRAME + 10, length=5 * FRAME, NumberOfFrames="5").missing_bytes == 3 * FRAME - 10


@pytest.mark.parametrize(
    "given",
    [
        {"syntax": JPEG_LS, "length": None},
        {"syntax": EXPLICIT, "length": None},
        {"syntax": EXPLICIT, "length": 30, "BitsAllocated": 12},
        {"syntax": BIG_ENDIAN, "little_endian": False, "length": 20, "BitsAllocated": 8, "BitsStored": 8},
    ],
    ids=["compressed", "undefined length", "twelve bits", "swapped bytes"],
)
def test_frames_that_a_decoder_has_to_find_have_no_length(given):
    assert places(offset=1000, **given) == [(1000, None)]


def test_pixels_of_a_deflated_file_have_no_place():
    assert places(syntax=DEFLATED, offset=None, length=FRAME) == [(None, None)]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_uncompressed_frames_have_a_place(syntax):
    assert places(syntax=syntax, little_endian=syntax != BIG_ENDIAN, length=FRAME) == [(1000, FRAME)]


def test_samples_and_bits_make_the_length_of_a_frame():
    given = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8}
    assert places(length=10**4, **given) == [(1000, 4 * 5 * 3)]


def test_frames_of_one_file_are_numbered():
    assert [f.index for f in instance(NumberOfFrames="3", length=9).frames] == [0, 1, 2]


@pytest.mark.parametrize(("raw", "shown"), [("-2", "-2"), ("x", "not a number"), ("2,", "not a number")])
def test_a_number_of_frames_that_cannot_be_is_an_error(raw, shown):
    with pytest.raises(HeaderError, match=f"NumberOfFrames is {shown}"):
        instance(NumberOfFrames=raw)


@pytest.mark.parametrize("count", ["2147483647", "1E30"])
@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG_LS], ids=["plain", "compressed"])
def test_a_number_of_frames_that_no_file_holds_is_an_error(count, syntax):
    """In a process of its own, since a list of so many frames would take the memory of the machine."""
    ask = (
        "from made import instance; from lazyvol.elements import HeaderError\n"
        f"try: instance(NumberOfFrames={count!r}, syntax={syntax!r}, length=40)\n"
        "except HeaderError: print('refused')"
    )
    limit = 2 * 2**30
    run = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert run.stdout == "refused\n", run.stderr[-300:]


# Anything at all

KEYWORDS = sorted(k for k in map(keyword_for_tag, WANTED) if k != "NumberOfFrames")
junk = st.one_of(
    st.binary(max_size=20),
    st.text("0123456789+-.eE\\ ", max_size=20).map(str.encode),
    st.lists(st.floats().map(repr), max_size=7).map(lambda words: "\\".join(words).encode()),
    st.integers(0, 65535).map(lambda n: struct.pack("<H", n)),
)


def only_header_errors(values, little_endian):
    try:
        return instance_from_elements(
            elements(little_endian=little_endian, length=40, **values), path="made.dcm", size=1040
        )
    except HeaderError:
        return None


@examples(400)
@given(st.dictionaries(st.sampled_from(KEYWORDS), junk, max_size=6), st.booleans())
def test_no_bytes_raise_anything_but_header_errors(values, little_endian):
    only_header_errors(values, little_endian)


@examples(300)
@given(st.dictionaries(st.sampled_from(KEYWORDS), junk, max_size=6))
def test_whatever_the_bytes_all_numbers_that_are_kept_are_finite(values):
    made = only_header_errors(values, True)
    if made is None:
        return
    first = made.frames[0]
    kept = [v for _, v in made.values if not isinstance(v, str)]
    numbers = [n for v in kept for n in (v if isinstance(v, tuple) else (v,)) if not isinstance(n, str)]
    numbers += [*(first.position or ()), *(first.orientation or ()), *(first.pixel_spacing or ())]
    numbers += [first.slope, first.intercept, made.acquisition_time or 0.0]
    assert all(map(math.isfinite, numbers))
