"""Every transfer syntax, number of bits, sign and photometric interpretation that DICOM PS3.5 allows comes back exact.

What was written is the truth; for codecs that lose without a bound, two decoders other than imagecodecs are.
``python tests/test_matrix.py`` prints the matrix as a table in Markdown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import encoded_made as em
import imagecodecs
import numpy as np
import pydicom
import pytest
from decoders import decoded
from encoded_made import Layout, missing_encoder, rgb_of, stored_for, with_palette, write_encoded, ybr_of
from pydicom.uid import UID

import lazyvol as lv


class Row(NamedTuple):
    """A transfer syntax, and how its encoder is used."""

    name: str
    syntax: str
    lossy: bool = False


class Column(NamedTuple):
    """What the pixels are."""

    photometric: str
    bits: int
    signed: bool = False
    planar: int = 0
    entry_bits: int = 0
    """Bits of the entries of a palette."""

    @property
    def name(self) -> str:
        kind = f"{self.photometric} {self.bits}{'s' if self.signed else ''}"
        if self.planar:
            return f"{kind} by plane"
        return f"{kind}, entries {self.entry_bits}" if self.entry_bits else kind


ROWS = (
    Row("Implicit little endian", em.IMPLICIT),
    Row("Explicit little endian", em.EXPLICIT),
    Row("Explicit big endian", em.BIG_ENDIAN),
    Row("Deflated", em.DEFLATED),
    Row("Encapsulated uncompressed", em.ENCAPSULATED),
    Row("RLE", em.RLE),
    Row("JPEG baseline .50", em.BASELINE, lossy=True),
    Row("JPEG extended .51", em.EXTENDED, lossy=True),
    Row("JPEG lossless .57", em.LOSSLESS),
    Row("JPEG lossless SV1 .70", em.LOSSLESS_SV1),
    Row("JPEG-LS .80", em.LS),
    Row("JPEG-LS near=1 .81", em.LS_NEAR, lossy=True),
    Row("JPEG-LS near=0 .81", em.LS_NEAR),
    Row("JPEG 2000 .90", em.J2K_LOSSLESS),
    Row("JPEG 2000 reversible .91", em.J2K),
    Row("JPEG 2000 irreversible .91", em.J2K, lossy=True),
    Row("HTJ2K .201", em.HT_LOSSLESS),
    Row("HTJ2K RPCL .202", em.HT_RPCL),
    Row("HTJ2K reversible .203", em.HT),
    Row("HTJ2K irreversible .203", em.HT, lossy=True),
)
_SIGNS = ((1, False), *((bits, signed) for bits in (8, 10, 12, 16, 32) for signed in (False, True)))
COLUMNS = (
    *(Column("MONOCHROME2", bits, signed) for bits, signed in _SIGNS),
    Column("MONOCHROME1", 8),
    Column("MONOCHROME1", 12),
    Column("MONOCHROME1", 16, signed=True),
    Column("RGB", 8),
    Column("RGB", 8, planar=1),
    Column("RGB", 12),
    Column("RGB", 16),
    Column("RGB", 16, planar=1),
    Column("YBR_FULL", 8),
    Column("YBR_FULL", 8, planar=1),
    Column("YBR_FULL_422", 8),
    Column("YBR_RCT", 8),
    Column("YBR_RCT", 16),
    Column("YBR_ICT", 8),
    Column("PALETTE COLOR", 8, entry_bits=8),
    Column("PALETTE COLOR", 8, entry_bits=16),
    Column("PALETTE COLOR", 16, entry_bits=16),
)

_WITHOUT_CODEC = (*em.NATIVE, em.ENCAPSULATED)
_LIKE_J2K = (em.J2K_LOSSLESS, em.J2K, em.HT_LOSSLESS, em.HT_RPCL, em.HT)
_GREY_BITS = {
    **dict.fromkeys(_WITHOUT_CODEC, range(1, 33)),
    em.RLE: range(1, 17),
    em.BASELINE: (8,),
    em.EXTENDED: (8, 12),
    em.LOSSLESS: range(1, 17),
    em.LOSSLESS_SV1: range(1, 17),
    em.LS: range(2, 17),
    em.LS_NEAR: range(2, 17),
    **dict.fromkeys(_LIKE_J2K, range(1, 39)),
}
"""BitsStored by syntax (DICOM PS3.5 8.1.1, tables 8.2.1-1 to 8.2.4-1; HTJ2K as JPEG 2000)."""
_COLOURS = {
    "RGB": {*_WITHOUT_CODEC, em.RLE, em.BASELINE, em.LOSSLESS, em.LOSSLESS_SV1, em.LS, em.LS_NEAR, *_LIKE_J2K},
    "YBR_FULL": {*_WITHOUT_CODEC, em.RLE, em.LOSSLESS, em.LOSSLESS_SV1, em.LS, em.LS_NEAR, *_LIKE_J2K},
    "YBR_FULL_422": {*_WITHOUT_CODEC, em.BASELINE},
    "YBR_RCT": {*_LIKE_J2K},
    "YBR_ICT": {em.J2K, em.HT},
    "PALETTE COLOR": {*_WITHOUT_CODEC, em.RLE, em.LOSSLESS, em.LOSSLESS_SV1, em.LS, em.J2K_LOSSLESS}
    | {em.HT_LOSSLESS, em.HT_RPCL},
}
"""Syntaxes by photometric interpretation, of the same tables."""
REFEREES = {
    em.BASELINE: ("gdcm", "pillow"),
    em.EXTENDED: ("gdcm", "pillow"),
    em.LS_NEAR: ("gdcm", "pyjpegls"),  # of YBR_FULL; else what was written bounds what comes back
    em.J2K: ("gdcm", "pylibjpeg"),
    em.HT: ("pylibjpeg",),
}
"""Decoders that judge what a codec loses; imagecodecs is none of them."""


def is_allowed(row: Row, column: Column) -> bool:
    """Whether DICOM PS3.5 allows the pixels in the syntax, and the encoder's setting can hold them."""
    if column.photometric.startswith("MONOCHROME"):
        signs = (False,) if row.syntax in (em.BASELINE, em.EXTENDED) else (False, True)
        return column.bits in _GREY_BITS[row.syntax] and column.signed in signs
    if column.planar and row.syntax not in (*_WITHOUT_CODEC, em.RLE):
        return False
    if (column.photometric, row.lossy) in (("YBR_RCT", True), ("YBR_ICT", False)):
        return False
    return row.syntax in _COLOURS[column.photometric] and column.bits in _GREY_BITS[row.syntax]


class Case(NamedTuple):
    """One cell of the matrix that can be made."""

    row: Row
    column: Column

    @property
    def name(self) -> str:
        return f"{self.row.name}, {self.column.name}"

    @property
    def layout(self) -> Layout:
        _, bits, signed, planar, _ = self.column
        return Layout(self.row.syntax, bits, signed, self.column.photometric, planar, lossy=self.row.lossy)

    @property
    def is_bounded(self) -> bool:
        """Whether what was written bounds what comes back."""
        return not self.row.lossy or (self.row.syntax == em.LS_NEAR and self.column.photometric != "YBR_FULL")

    @property
    def is_12_bit_jpeg(self) -> bool:
        """Whether pydicom lets none of its plugins decode it; GDCM in SimpleITK does."""
        return self.row.syntax == em.EXTENDED and self.column.bits == 12

    @property
    def tolerance(self) -> int:
        return int(self.row.lossy or self.column.photometric.startswith("YBR_FULL"))

    def write(self, folder: Path) -> tuple[Path, np.ndarray]:
        """Write the file; return its path and the values that should come back."""
        layout, path = self.layout, folder / "made.dcm"
        stored = stored_for(layout, smooth=self.row.lossy and not self.is_bounded, margin=2 * self.row.lossy)
        if self.column.photometric == "PALETTE COLOR":
            order = ">" if self.row.syntax == em.BIG_ENDIAN else "<"
            stored, elements, expected = with_palette(stored, self.column.entry_bits, order=order)
            return write_encoded(path, stored, layout, **elements), expected
        if not self.column.photometric.startswith("YBR_FULL"):
            return write_encoded(path, stored, layout), stored
        if self.row.syntax == em.BASELINE:
            return write_encoded(path, stored, layout), stored
        ybr = ybr_of(stored)
        if self.column.photometric == "YBR_FULL_422":
            ybr[:, :, 1::2, 1:] = ybr[:, :, ::2, 1:]
        return write_encoded(path, ybr, layout), rgb_of(ybr)


ALLOWED = [Case(row, column) for row in ROWS for column in COLUMNS if is_allowed(row, column)]
CASES = [case for case in ALLOWED if not missing_encoder(case.layout)]
BOUNDED = [case for case in CASES if case.is_bounded]
JUDGED = [
    (case, referee)
    for case in CASES
    if not case.is_bounded
    for referee in (("SimpleITK",) if case.is_12_bit_jpeg else REFEREES[case.row.syntax])
]


def opened(path: Path, **options) -> np.ndarray:
    """Return the values of a file; shape (frames, rows, columns[, 3])."""
    return lv.open_volume(path, **options).values


def farthest(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(np.int64) - expected.astype(np.int64)).max())


@pytest.mark.parametrize("case", BOUNDED, ids=[case.name for case in BOUNDED])
def test_what_was_written_comes_back(case, tmp_path):
    path, expected = case.write(tmp_path)
    assert farthest(opened(path), expected) <= case.tolerance


@pytest.mark.parametrize(("case", "referee"), JUDGED, ids=[f"{case.name}, {referee}" for case, referee in JUDGED])
def test_what_a_codec_loses_is_within_one_grey_level_of_another_decoder(case, referee, tmp_path):
    path, _ = case.write(tmp_path)
    assert farthest(opened(path), judged(path, referee, case)) <= 1


def judged(path: Path, referee: str, case: Case) -> np.ndarray:
    """Return what another decoder makes of a file; the colour transform of the header is done here."""
    if case.column.photometric == "MONOCHROME1" and referee == "SimpleITK":  # which inverts it
        dataset = pydicom.dcmread(path)
        dataset.PhotometricInterpretation = "MONOCHROME2"
        path = path.with_name("not inverted.dcm")
        dataset.save_as(path)
    if case.column.photometric == "YBR_FULL":
        return rgb_of(decoded(path, referee, raw=True))
    return decoded(path, referee)


TWELVE_BIT_JPEG = [case for case in CASES if case.is_12_bit_jpeg]


@pytest.mark.parametrize("case", TWELVE_BIT_JPEG, ids=[case.name for case in TWELVE_BIT_JPEG])
def test_12_bit_jpeg_is_close_to_what_was_written(case, tmp_path):
    # There is one other decoder. A ramp over 4096 levels loses little at quality 98.
    path, expected = case.write(tmp_path)
    assert farthest(opened(path), expected) <= 4


# The plain install


_WITHOUT_JUDGES = """
import pathlib, sys
for name in ("gdcm", "_gdcm", "jpeg_ls", "openjpeg", "pylibjpeg", "SimpleITK"):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
import numpy as np
import lazyvol as lv
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.dcm")):
    try:
        np.save(path.with_suffix(".npy"), lv.open_volume(path).values)
    except lv.errors.LazyvolError as error:
        print(path.name, error)
"""


@pytest.fixture(scope="module")
def opened_without_judges(tmp_path_factory):
    """Return the folder of the values of every case, opened where the decoders of the tests cannot be imported."""
    folder = tmp_path_factory.mktemp("plain")
    for number, case in enumerate(CASES):
        path, _ = case.write(folder)
        path.rename(folder / f"{number}.dcm")
    said = subprocess.run(
        [sys.executable, "-c", _WITHOUT_JUDGES, str(folder)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    return folder


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_what_lazyvol_depends_on_decodes_it(number, opened_without_judges):
    found = np.load(opened_without_judges / f"{number}.npy")
    np.testing.assert_array_equal(found, opened(opened_without_judges / f"{number}.dcm"))


# Types, dimensions and attributes


KINDS = [column for column in COLUMNS if not column.planar and column.photometric not in ("YBR_RCT", "YBR_ICT")]


@pytest.mark.parametrize("column", KINDS, ids=[column.name for column in KINDS])
def test_stored_numbers_have_the_smallest_type_for_bits_and_sign(column, tmp_path):
    path, expected = Case(ROWS[1], column).write(tmp_path)
    assert lv.open_volume(path, rescale=False).dtype == expected.dtype


GREYS = [case for case in BOUNDED if case.layout.is_grey and not case.row.lossy and case.column.bits in (8, 12, 32)]
GREYS = [case for case in GREYS if case.column.photometric == "MONOCHROME2"]


@pytest.mark.parametrize("case", GREYS, ids=[case.name for case in GREYS])
def test_stored_numbers_come_back_without_slope_and_intercept(case, tmp_path):
    layout = case.layout
    stored = stored_for(layout)
    path = write_encoded(tmp_path / "made.dcm", stored, layout, RescaleSlope=3, RescaleIntercept=-1024)
    found = lv.open_volume(path, rescale=False)
    assert (found.dtype, farthest(found.values, stored)) == (stored.dtype, 0)


COLOURED = [case for case in CASES if not case.column.photometric.startswith("MONOCHROME")]


@pytest.mark.parametrize("case", COLOURED, ids=[case.name for case in COLOURED])
def test_colour_is_rgb_along_a_last_dimension(case, tmp_path):
    path, expected = case.write(tmp_path)
    found = lv.open_volume(path)
    assert (found.dims, found.shape) == (("z", "y", "x", "sample"), expected.shape)
    assert found["sample"].values.tolist() == ["R", "G", "B"]
    assert found.attrs["photometric_interpretation"] == "RGB"
    assert found.dtype == expected.dtype


def test_a_part_of_a_colour_volume_has_its_own_pixels(tmp_path):
    path, expected = Case(ROWS[1], Column("RGB", 8, planar=1)).write(tmp_path)
    part = lv.open_volume(path).isel(z=0, y=slice(3, 9), x=[1, 5, 4], sample=2)
    np.testing.assert_array_equal(part, expected[0, 3:9][:, [1, 5, 4], 2])


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_monochrome1_keeps_its_values_and_its_name(bits, tmp_path):
    path, expected = Case(ROWS[1], Column("MONOCHROME1", bits)).write(tmp_path)
    found = lv.open_volume(path)
    np.testing.assert_array_equal(found, expected)
    assert found.attrs["photometric_interpretation"] == "MONOCHROME1"


# Several frames, several fragments


ENCAPSULATED = list(dict.fromkeys(row for row in ROWS if row.syntax not in em.NATIVE))


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "RGB"])
@pytest.mark.parametrize("row", ENCAPSULATED, ids=[row.name for row in ENCAPSULATED])
def test_a_frame_in_the_middle_is_read_alone(row, colour, tmp_path):
    layout = Layout(
        row.syntax,
        8,
        photometric="RGB" if colour else "MONOCHROME2",
        lossy=row.lossy,
        fragments=1 if row.syntax == em.RLE else 2,
    )
    if row.syntax == em.EXTENDED and colour:
        pytest.skip("PS3.5 table 8.2.1-1 has no colour in .51")
    stored = stored_for(layout, (3, 16, 18), smooth=row.lossy)
    path = write_encoded(tmp_path / "made.dcm", stored, layout)
    found = lv.open_volume(path).isel(z=1).values
    assert farthest(found, stored[1]) <= (4 if row.lossy else 0)


def test_single_bits_of_several_frames_do_not_mix(tmp_path):
    layout = Layout(em.EXPLICIT, 1)
    stored = stored_for(layout, (3, 5, 7))  # 35 bits a frame: the second begins within a byte
    path = write_encoded(tmp_path / "made.dcm", stored, layout)
    np.testing.assert_array_equal(opened(path), stored)


# HighBit, unused bits and sign


# Plain arithmetic is the judge here: neither pydicom nor GDCM looks at HighBit.
UNCOMPRESSED = (*em.NATIVE, em.ENCAPSULATED, em.RLE)
PLACES = [(12, 15, 16), (12, 13, 16), (8, 11, 16), (10, 15, 16), (4, 7, 8), (5, 5, 8), (24, 31, 32)]


@pytest.mark.parametrize("unused", [0, 2**32 - 1], ids=["clear", "set"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("bits", "high", "allocated"), PLACES, ids=[f"{b} below {h} of {a}" for b, h, a in PLACES])
@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda s: UID(s).name)
def test_a_value_lies_below_its_high_bit(syntax, bits, high, allocated, signed, unused, tmp_path):
    if syntax == em.RLE and allocated == 32:
        pytest.skip("PS3.5 table 8.2.2-1 has no 32 bits in RLE")
    layout = Layout(syntax, bits, signed, bits_allocated=allocated, high_bit=high)
    stored = stored_for(layout)
    path = write_encoded(tmp_path / "made.dcm", stored, layout, unused=unused)
    np.testing.assert_array_equal(opened(path), stored)


WITH_CODEC = (em.LOSSLESS, em.LOSSLESS_SV1, em.LS, em.J2K_LOSSLESS, em.J2K, em.HT_LOSSLESS, em.HT_RPCL, em.HT)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("syntax", WITH_CODEC, ids=lambda s: UID(s).name)
def test_overlays_in_the_unused_bits_of_a_stream_are_masked(syntax, bits, signed, tmp_path):
    layout = Layout(syntax, bits, signed)
    stored = stored_for(layout, (1, 20, 18))
    words = em.encoder_of(replace(layout, bits_stored=16, signed=False))
    path = write_encoded(tmp_path / "made.dcm", stored, layout, encode=words, unused=0xF000)
    np.testing.assert_array_equal(opened(path), stored)


def test_a_pixel_element_as_long_as_its_frame_is_no_warning(tmp_path):
    # With 20 bytes of table and item headers; pydicom takes it for an uncompressed one and warns, an error here.
    layout = Layout(em.LS, 16)
    stored = stored_for(layout, smooth=True)

    def padded(frame):
        return em.encoder_of(layout)(frame).ljust(stored.nbytes - 20, b"\0")

    path = write_encoded(tmp_path / "made.dcm", stored, layout, encode=padded)
    np.testing.assert_array_equal(opened(path), stored)


def ls(precision, near=0):
    return em.ls_of_precision(precision, near)


def j2k(precision):
    return lambda frame: imagecodecs.jpeg2k_encode(
        frame, level=0, codecformat="j2k", bitspersample=precision, reversible=True, resolutions=2
    )


WITHOUT_SIGN = {
    "JPEG-LS": (em.LS, ls),
    "JPEG-LS near=1": (em.LS_NEAR, lambda precision: ls(precision, 1)),
    "JPEG 2000 .90": (em.J2K_LOSSLESS, j2k),
    "JPEG 2000 .91": (em.J2K, j2k),
    "JPEG lossless": (em.LOSSLESS, lambda p: lambda frame: imagecodecs.ljpeg_encode(frame, bitspersample=p)),
}


@pytest.mark.parametrize("precision", [12, 16])
@pytest.mark.parametrize("codec", WITHOUT_SIGN)
def test_signed_numbers_in_a_stream_without_sign_are_extended(codec, precision, tmp_path):
    syntax, encoder = WITHOUT_SIGN[codec]
    layout = Layout(syntax, 12, signed=True)
    near = int("near" in codec)
    stored = stored_for(layout, margin=2 * near)  # beyond the ends, one level more is the other end
    path = write_encoded(tmp_path / "made.dcm", stored, layout, encode=encoder(precision))
    assert farthest(opened(path), stored) <= near


# A signed stream under a header that says unsigned


@pytest.fixture
def signed_under_unsigned(tmp_path):
    """Return a file whose JPEG 2000 stream has a sign and whose header has none, and its numbers."""
    stored = np.random.default_rng(4).integers(0, 2**15, (1, 16, 18)).astype("u2")
    signed = em.encoder_of(Layout(em.J2K_LOSSLESS, 16, signed=True))
    path = write_encoded(tmp_path / "made.dcm", stored, Layout(em.J2K_LOSSLESS, 16), encode=signed)
    return path, stored


def test_a_signed_stream_under_an_unsigned_header_has_its_own_values(signed_under_unsigned):
    path, stored = signed_under_unsigned
    np.testing.assert_array_equal(opened(path), stored)


@pytest.mark.parametrize("referee", ["gdcm", "pylibjpeg"])
def test_other_decoders_agree_on_a_signed_stream_under_an_unsigned_header(signed_under_unsigned, referee):
    path, stored = signed_under_unsigned
    np.testing.assert_array_equal(decoded(path, referee), stored)


def test_pillow_reads_a_signed_stream_under_an_unsigned_header_32768_too_high(signed_under_unsigned):
    # What the tests above guard against. If this fails, Pillow or pydicom has mended it: then drop this one.
    path, stored = signed_under_unsigned
    np.testing.assert_array_equal(decoded(path, "pillow").astype(int) - stored, 32768)


# The table


def printed(case: Case, folder: Path) -> str:
    """Return what a cell of the matrix says of a file that is made and opened."""
    path, expected = case.write(folder)
    try:
        found = opened(path)
        if found.shape != expected.shape:
            return f"WRONG: shape {found.shape}"
        if case.is_bounded:
            far = farthest(found, expected)
        else:
            referees = [r for c, r in JUDGED if c == case]
            far = max(farthest(found, judged(path, referee, case)) for referee in referees)
    except Exception as error:  # the table shows it
        return f"FAILED: {type(error).__name__}"
    return "equal" if not far else "within one" if far <= case.tolerance else f"WRONG by {far}"


def test_a_cell_of_the_table_says_equal(tmp_path):
    assert printed(Case(ROWS[1], COLUMNS[7]), tmp_path) == "equal"


def matrix() -> str:
    """Return the matrix as a table in Markdown: rows syntaxes, columns pixels."""
    lines = [f"| | {' | '.join(column.name for column in COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            cells = []
            for column in COLUMNS:
                case = Case(row, column)
                missing = missing_encoder(case.layout)
                if case not in ALLOWED:
                    cells.append("not allowed")
                else:
                    cells.append(f"no encoder: {missing}" if missing else printed(case, Path(folder)))
            lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(matrix() + "\n")
