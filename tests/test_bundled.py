"""Files that others made: each opens with the values of other decoders, or is refused when it is opened.

The files lie in the installed pydicom (its test files; nothing is downloaded) and in the folder of LAZYVOL_DATA.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from decoders import NATIVE, SIMPLEITK, decoded
from pydicom.data import data_manager

import lazyvol as lv
from lazyvol.errors import LazyvolError, PixelReadError

BUNDLED = Path(data_manager.DATA_ROOT) / "test_files"
NO_DICOM = {".md", ".txt", ".json", ".dump", ".icc", ".gz", ".zip", ".py", ".pyc", ".jpg"}
DATA = Path(os.environ.get("LAZYVOL_DATA") or Path(__file__).parents[2] / "shared" / "data")


@cache
def all_bundled() -> tuple[Path, ...]:
    return tuple(p for p in sorted(BUNDLED.rglob("*")) if p.is_file() and p.suffix not in NO_DICOM)


def header_of(path: Path) -> pydicom.Dataset | None:
    """Return the header of an image that pydicom can read; else None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pydicom.dcmread(path, stop_before_pixels=True)
            whole = pydicom.dcmread(path)
    except Exception:  # whatever pydicom says of its own bad examples
        return None
    is_image = any(keyword in whole for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    return found if is_image and "Rows" in found else None


IMAGES = [path for path in all_bundled() if header_of(path) is not None]
JUDGES = {
    # JPEG 2000
    "693_J2KI.dcm": ("gdcm", "pylibjpeg"),
    "GDCMJ2K_TextGBR.dcm": ("gdcm", "pylibjpeg"),
    "J2K_pixelrep_mismatch.dcm": ("gdcm", "pylibjpeg"),
    "JPEG2000.dcm": ("gdcm", "pylibjpeg"),
    "MR_small_jp2klossless.dcm": ("gdcm", "pylibjpeg"),
    "SC_rgb_gdcm_KY.dcm": ("gdcm", "pylibjpeg"),
    "examples_jpeg2k.dcm": ("gdcm", "pylibjpeg"),
    # JPEG-LS
    "JPEGLSNearLossless_08.dcm": ("gdcm", "pyjpegls"),
    "JPEGLSNearLossless_16.dcm": ("gdcm", "pyjpegls"),
    "MR_small_jpeg_ls_lossless.dcm": ("gdcm", "pyjpegls"),
    "SC_rgb_jls_lossy_line.dcm": ("gdcm", "pyjpegls"),
    "SC_rgb_jls_lossy_sample.dcm": ("gdcm", "pyjpegls"),
    # JPEG, DCT
    "SC_jpeg_no_color_transform.dcm": ("gdcm", "pillow"),
    "SC_jpeg_no_color_transform_2.dcm": ("gdcm", "pillow"),
    "SC_rgb_dcmtk_+eb+cr.dcm": ("gdcm", "pillow"),
    "SC_rgb_dcmtk_+eb+cy+n1.dcm": ("gdcm", "pillow"),
    "SC_rgb_dcmtk_+eb+cy+n2.dcm": ("gdcm", "pillow"),
    "SC_rgb_dcmtk_+eb+cy+np.dcm": ("gdcm", "pillow"),
    "SC_rgb_dcmtk_+eb+cy+s2.dcm": ("gdcm", "pillow"),
    "SC_rgb_dcmtk_+eb+cy+s4.dcm": ("gdcm", "pillow"),
    "SC_rgb_jpeg.dcm": ("gdcm", "pillow"),
    "SC_rgb_jpeg_app14_dcmd.dcm": ("gdcm", "pillow"),
    "SC_rgb_jpeg_dcmtk.dcm": ("gdcm", "pillow"),
    "SC_rgb_jpeg_lossy_gdcm.dcm": ("gdcm", "pillow"),
    "SC_rgb_small_odd_jpeg.dcm": ("gdcm", "pillow"),
    "examples_ybr_color.dcm": ("gdcm", "pillow"),
    # JPEG of 12 bits: pydicom lets none of its plugins decode it, GDCM within SimpleITK is alone
    "JPEG-lossy.dcm": (SIMPLEITK,),
    "JPGExtended.dcm": (SIMPLEITK,),
    # JPEG lossless: pydicom has GDCM alone, which SimpleITK has too
    "SC_rgb_jpeg_gdcm.dcm": ("gdcm",),
    # RLE
    "MR_small_RLE.dcm": (NATIVE, SIMPLEITK),
    "SC_rgb_rle.dcm": (NATIVE, SIMPLEITK),
    "SC_rgb_rle_2frame.dcm": (NATIVE, SIMPLEITK),
    # SimpleITK is off by 65535 and 2**32 - 1 in RLE colour of 16 and 32 bits
    "SC_rgb_rle_16bit.dcm": (NATIVE,),
    "SC_rgb_rle_16bit_2frame.dcm": (NATIVE,),
    "SC_rgb_rle_32bit.dcm": (NATIVE,),
    "SC_rgb_rle_32bit_2frame.dcm": (NATIVE,),
    "rtdose_rle.dcm": (NATIVE, SIMPLEITK),
    "rtdose_rle_1frame.dcm": (NATIVE,),  # SimpleITK stumbles over its header
    # Uncompressed
    "liver_1frame.dcm": (NATIVE,),  # SimpleITK makes 255 of 1
    "liver_expb_1frame.dcm": (NATIVE,),
    "rtdose_1frame.dcm": (NATIVE,),  # as above
    "rtdose_expb.dcm": (NATIVE,),
    "rtdose_expb_1frame.dcm": (NATIVE,),
    "examples_palette.dcm": (NATIVE,),  # SimpleITK makes 8 bits of its 16-bit palette
}
"""Who agrees on a file; of those not named, pydicom and SimpleITK do."""
DAMAGED = {"MR_truncated.dcm", "badVR.dcm"}
"""Images that lack bytes, or whose NumberOfFrames is 1A."""
MARKED = "JPEG2000-embedded-sequence-delimiter.dcm"
"""An image whose frame is broken."""
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")


def judges_of(path: Path) -> tuple[str, ...]:
    return JUDGES.get(path.name, (NATIVE, SIMPLEITK))


SOUND = [path for path in IMAGES if path.name not in DAMAGED]
JUDGED = [(path, judge) for path in SOUND if path.name != MARKED for judge in judges_of(path)]


def short(path: Path) -> str:
    return str(path.relative_to(BUNDLED))


def stored_by(path: Path, judge: str) -> np.ndarray:
    """Return stored numbers, or RGB, as another decoder has them; SimpleITK rescales and inverts, which is undone."""
    found, header = decoded(path, judge), header_of(path)
    if judge != SIMPLEITK:
        return found
    slope, intercept = (float(header.get(k, d)) for k, d in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    if found.dtype.kind == "f" or (slope, intercept) != (1, 0):
        found = np.rint((found.astype(np.float64) - intercept) / slope).astype(np.int64)
    if header.PhotometricInterpretation == "MONOCHROME1":
        found = 2**header.BitsStored - 1 - found.astype(np.int64)
    return found


def frames_of(volume) -> np.ndarray:
    """Return the values of a volume in the order of the frames of its file."""
    rows = volume.dims.index("y")
    values = volume.values.reshape(-1, *volume.shape[rows:])
    if "frame_number" in volume.coords:
        values = values[np.argsort(np.ravel(volume.frame_number.values))]
    return values


def opened_or_why(path: Path, **options):
    """Return a volume, or the message with which lazyvol refuses the file."""
    try:
        return lv.open_volume(path, **options)
    except LazyvolError as error:
        return str(error)


@pytest.mark.parametrize("path", all_bundled(), ids=short)
def test_a_bundled_file_opens_or_is_refused_by_name(path):
    found = opened_or_why(path)
    assert path.name in found if isinstance(found, str) else found.ndim >= 3


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_bundled_image_is_refused_at_open(name):
    with pytest.raises(LazyvolError, match=name):
        lv.open_volume(BUNDLED / name)


@pytest.mark.parametrize(("path", "judge"), JUDGED, ids=[f"{short(p)}, {j}" for p, j in JUDGED])
def test_the_stored_numbers_of_a_bundled_image_are_those_of(path, judge):
    volume = opened_or_why(path, rescale=False)
    assert not isinstance(volume, str), volume
    found, theirs = frames_of(volume).astype(np.int64), stored_by(path, judge).astype(np.int64)
    assert found.shape == theirs.shape
    assert np.abs(found - theirs).max() <= (header_of(path).file_meta.TransferSyntaxUID in LOSSY)


def test_a_frame_that_no_decoder_reads_is_an_error_that_names_file_and_frame():
    # Bytes like those of an end (FFFE,E0DD) were put into its frame: GDCM, Pillow, OpenJPEG and SimpleITK fail on it.
    with pytest.raises(PixelReadError, match=f"frame 1 of .*{MARKED}"):
        lv.open_volume(BUNDLED / MARKED).compute()


# Real series


needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"real series are absent: set LAZYVOL_DATA to their folder ({DATA} does not exist)"
)
FOLDERS = sorted(p.name for p in DATA.iterdir() if p.is_dir()) if DATA.is_dir() else []
GENERIC = DATA / "edge_dicom2nifti" / "generic"
NINE = DATA / "mr_9_transfer_syntaxes" / "In"


def images_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and header_of(path) is not None]


@needs_data
@pytest.mark.parametrize("name", FOLDERS)
def test_the_stored_numbers_of_every_real_file_are_those_of_pydicom(name):
    for path in images_below(DATA / name):
        found, theirs = frames_of(lv.open_volume(path, rescale=False)), decoded(path, judge_of(path))
        if found.shape == theirs.shape:
            np.testing.assert_array_equal(found, theirs, err_msg=str(path))
        else:  # the tiles of a mosaic: no number is lost, and only empty tiles are left out
            np.testing.assert_array_equal(np.bincount(found.ravel())[1:], np.bincount(theirs.ravel())[1:], str(path))


def judge_of(path: Path) -> str:
    """Return a decoder that pydicom has for a real file."""
    syntax = str(header_of(path).file_meta.TransferSyntaxUID)
    by_syntax = {"1.2.840.10008.1.2.4.90": "pylibjpeg", "1.2.840.10008.1.2.4.80": "pyjpegls"}
    return by_syntax.get(syntax, "gdcm" if syntax.startswith("1.2.840.10008.1.2.4") else NATIVE)


TWINS = [path.name for path in images_below(GENERIC / "compressed_jpeg")] if GENERIC.is_dir() else []


@needs_data
@pytest.mark.parametrize("name", TWINS)
def test_jpeg_lossless_and_jpeg_2000_twins_are_equal(name):
    # generic/anatomical is of other UIDs and times, and of other (random) pixels: no twin of these.
    one, other = (GENERIC / folder / "001" / name for folder in ("compressed_jpeg", "compressed_j2k"))
    assert header_of(one).SOPInstanceUID == header_of(other).SOPInstanceUID
    np.testing.assert_array_equal(lv.open_volume(one), lv.open_volume(other))


@needs_data
@pytest.mark.parametrize(
    ("folder", "judge"), [("compressed_jpeg", "gdcm"), ("compressed_j2k", "gdcm"), ("compressed_j2k", "pylibjpeg")]
)
def test_compressed_twins_are_what_an_uncompressed_copy_of_them_is(folder, judge, tmp_path):
    for path in images_below(GENERIC / folder):
        copy = pydicom.dcmread(path)
        copy.decompress(decoding_plugin=judge, generate_instance_uid=False)
        copy.save_as(tmp_path / path.name)
        np.testing.assert_array_equal(lv.open_volume(path), lv.open_volume(tmp_path / path.name))


@needs_data
def test_one_image_in_nine_transfer_syntaxes_has_one_set_of_values():
    first, *others = (lv.open_volume(path).values for path in images_below(NINE))
    assert len(others) == 8
    for other in others:
        np.testing.assert_array_equal(other, first)
