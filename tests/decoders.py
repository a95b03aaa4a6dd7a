"""What decoders other than imagecodecs make of one DICOM file: the referees of the tests on exact pixels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, get_decoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # SWIG types of SimpleITK, from Python 3.12
    import SimpleITK as sitk  # noqa: N813  # as its own documentation has it

if TYPE_CHECKING:
    from pathlib import Path

NATIVE = "pydicom"
"""pydicom without a codec, for uncompressed files; also its own decoder of RLE."""
SIMPLEITK = "SimpleITK"


def plugins_for(syntax: str) -> tuple[str, ...]:
    """Return the decoders that pydicom has for a transfer syntax, imagecodecs and the GPL one apart."""
    decoder = get_decoder(syntax)
    if not decoder.is_encapsulated:
        return (NATIVE,)
    return tuple(p for p in decoder.available_plugins if p in ("gdcm", "pillow", "pyjpegls", "pylibjpeg", NATIVE))


def decoded(path: Path, decoder: str, *, raw: bool = False) -> np.ndarray:
    """Return all frames of a file as stored numbers or RGB; shape (frames, rows, columns[, 3]).

    With ``raw`` colour stays as the codec leaves it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom thinks of a file is not the question here
        if decoder == SIMPLEITK:
            return _by_simpleitk(path)
        return _by_pydicom(path, decoder, raw=raw)


def _by_pydicom(path: Path, plugin: str, *, raw: bool) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    syntax = dataset.file_meta.TransferSyntaxUID
    options = {"decoding_plugin": plugin} if get_decoder(syntax).is_encapsulated else {}
    found, _ = get_decoder(syntax).as_array(dataset, raw=raw, **options)
    if dataset.PhotometricInterpretation == "PALETTE COLOR" and not raw:
        found = apply_color_lut(found, dataset)
    return _with_frames(found, dataset)


def _by_simpleitk(path: Path) -> np.ndarray:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    return _with_frames(sitk.GetArrayFromImage(reader.Execute()), dataset)


def _with_frames(found: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    rows, columns = dataset.Rows, dataset.Columns
    colour = dataset.SamplesPerPixel == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR"
    return found.reshape(-1, rows, columns, *((3,) if colour else ()))
