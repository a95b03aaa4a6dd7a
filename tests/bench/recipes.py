"""What people write today to have a volume: the recipes of tutorials, as functions of a folder."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from indexing import ordered_with_dicomsdl, ordered_with_pydicom

__all__ = ["dask_stack", "dicomsdl_volume", "highdicom_volume", "imageio_volume", "itk_volume", "pydicom_values"]


def pydicom_values(path: str) -> Any:
    """Return one slice in HU."""
    from pydicom import dcmread

    file = dcmread(path)
    return file.pixel_array * np.int16(file.RescaleSlope) + np.int16(file.RescaleIntercept)


def dask_stack(folder: str) -> Any:
    """Return the volume as one delayed task for each slice."""
    import dask
    import dask.array as da
    from pydicom import dcmread

    paths = ordered_with_pydicom(folder)
    header = dcmread(paths[0], stop_before_pixels=True)
    read = dask.delayed(pydicom_values)
    return da.stack([da.from_delayed(read(path), (header.Rows, header.Columns), "int16") for path in paths])


def imageio_volume(folder: str) -> Any:
    """Return the volume in imageio's order."""
    from imageio import v2

    return v2.volread(folder, "DICOM")


def itk_volume(folder: str) -> Any:
    """Return the volume as SimpleITK gives it, int32."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder))
    return sitk.GetArrayFromImage(reader.Execute())


def dicomsdl_volume(folder: str) -> Any:
    """Return the volume with the fast reader of dicomsdl, float32."""
    import dicomsdl as sdl

    return np.stack([sdl.open(path).pixelData() for path in ordered_with_dicomsdl(folder)])


def highdicom_volume(folder: str) -> Any:
    """Return the volume of highdicom, from the lowest z on."""
    from highdicom.image import get_volume_from_series
    from pydicom import dcmread

    files = [dcmread(entry.path) for entry in os.scandir(folder)]
    return get_volume_from_series(files, dtype=np.float32).array[::-1]
