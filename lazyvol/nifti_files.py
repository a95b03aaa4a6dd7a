"""NIfTI files as lazy volumes, read by nibabel; their affine turned to lazyvol's axes and to LPS."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from lazyvol.chunks import Chunks, chunked, preferred_chunks
from lazyvol.convention import geometry_coordinates
from lazyvol.errors import (
    Finding,
    OptionError,
    PixelReadError,
    SourceNotFoundError,
    UnsupportedSeriesError,
    finding,
)
from lazyvol.geometry import UNKNOWN, ZYX, Geometry
from lazyvol.nifti import NiftiHeader, nifti_header
from lazyvol.omezarr import LENGTHS
from lazyvol.placement import place_affine

__all__ = ["is_nifti", "open_nifti"]

_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
"""Seconds of the units of time, by their codes in xyzt_units."""
_SUFFIXES = (".nii", ".nii.gz")


def is_nifti(path: str) -> bool:
    """Return whether a file is called as NIfTI files are."""
    return path.lower().endswith(_SUFFIXES)


def open_nifti(path: str | os.PathLike[str], *, chunks: Chunks = "auto") -> xr.DataArray:
    """Open a NIfTI file as a lazy volume; needs nibabel, the extra ``nifti``.

    Parameters
    ----------
    path
        A NIfTI-1 or NIfTI-2 file, ``.nii`` or ``.nii.gz``. Cuts of compressed ones read all before them.
    chunks
        As for `open_volume`.

    Returns
    -------
    xarray.DataArray
        Dimensions (z, y, x), or (time, z, y, x): the axes k, j and i of the file. Values after scl_slope and scl_inter.
        The sform, or else the qform, gives the geometry (NIfTI-1.1 header, "3D image orientation and location").

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    OptionError
        If nibabel is not installed.
    UnsupportedSeriesError
        If it is no NIfTI file, or one of colours, vectors or more than four dimensions.
    StoreError
        If its sform or qform is no affine.

    Examples
    --------
    >>> import nibabel, numpy
    >>> path = getfixture("tmp_path") / "a.nii"
    >>> nibabel.save(nibabel.Nifti1Image(numpy.zeros((4, 3, 2), "int16"), numpy.diag([1, 2, 3, 1])), path)
    >>> import lazyvol
    >>> lazyvol.open_nifti(path).shape
    (2, 3, 4)
    """
    where = os.path.abspath(os.fspath(path))
    image = _image(where)
    header = nifti_header(image.header.binaryblock, where)
    array = NiftiArray(where, image)
    geometry, labels, findings = _placed(header, where)
    coordinates = geometry_coordinates(geometry, labels=labels)
    if len(array.shape) == 4:
        time, notes = _times(image.header, array.shape[0])
        coordinates |= time
        findings += notes
    attrs = {"long_name": "pixel value", "findings": [f.to_json() for f in findings]}
    dims = ("time", "z", "y", "x")[-len(array.shape) :]
    variable = xr.Variable(dims, indexing.LazilyIndexedArray(array), attrs)
    variable.encoding = {"preferred_chunks": preferred_chunks(dims, array.shape, array.dtype), "source": where}
    return chunked(xr.DataArray(variable, coordinates, name="image"), chunks, token=array.token)


def _image(path: str) -> Any:
    """Return the file as nibabel has it, without its values."""
    try:
        import nibabel
    except ImportError as error:
        raise OptionError(f"{path} needs nibabel. Install lazyvol[nifti].") from error
    if not os.path.isfile(path):
        raise SourceNotFoundError(f"{path} does not exist. Give a NIfTI file.")
    try:
        image: Any = nibabel.load(path)
        shape, dtype = image.shape, image.get_data_dtype()
    except Exception as error:  # nibabel has errors of many kinds
        raise UnsupportedSeriesError(f"{path} is no NIfTI file that can be read: {type(error).__name__}.") from error
    shape = _plain_shape(shape)
    if not isinstance(image, nibabel.Nifti1Image) or not 3 <= len(shape) <= 4 or dtype.kind not in "iuf" or 0 in shape:
        raise UnsupportedSeriesError(
            f"{path} holds {dtype} of shape {image.shape}; lazyvol opens NIfTI images of three dimensions, or of time "
            "too, that hold numbers. Split it with the tool that wrote it."
        )
    return image


def _plain_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without dimensions of one behind the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


class NiftiArray(BackendArray):
    """The values of a NIfTI file, which is opened and closed for each part that is asked for."""

    def __init__(self, path: str, image: Any) -> None:
        self.path, self.ndim_of_file = path, len(image.shape)
        self.shape = tuple(map(int, image.shape[: len(_plain_shape(image.shape))]))[::-1]
        stored = image.get_data_dtype()
        plain = (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0)
        wide = stored.itemsize > (4 if stored.kind == "f" else 2)
        self.dtype = stored.newbyteorder("=") if plain else np.dtype("float64" if wide else "float32")
        status = os.stat(path)
        self.token = f"{path} {status.st_size} {status.st_mtime_ns}"

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def __dask_tokenize__(self) -> str:
        return self.token

    def _read(self, key: tuple[Any, ...]) -> Any:
        wanted = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
        each = [np.atleast_1d(w) for w in wanted]
        if any(not len(w) for w in each):
            return np.empty([w.size for w in wanted if w.ndim], self.dtype)
        around = [slice(int(w.min()), int(w.max()) + 1) for w in each]
        spare = (0,) * (self.ndim_of_file - len(self.shape))
        image = _image(self.path)
        try:
            part = np.asanyarray(image.dataobj[(*reversed(around), *spare)])
        except Exception as error:  # nibabel, and what inflates, have errors of many kinds
            raise PixelReadError(
                f"the values of {self.path} cannot be read, it may be cut short: {type(error).__name__}. Copy the file "
                "again."
            ) from error
        inner = np.ix_(*(w - s.start for w, s in zip(each, around, strict=True)))
        return part.T[inner].astype(self.dtype).reshape([w.size for w in wanted if w.ndim])


def _placed(header: NiftiHeader, where: str) -> tuple[Geometry, dict[str, Any] | None, list[Finding]]:
    """Return the geometry, labels where it does not give them, and what is not known of it."""
    mm = LENGTHS.get(header.unit)
    findings = []
    if mm is None:
        message = "xyzt_units has no unit of length, so labels are as the file has them."
        findings.append(finding("units-unknown", message, values=("zyx",)))
    if header.affine is None:
        message = "the header has neither sform nor qform, so the place in the patient is not known."
        findings.append(finding("geometry-unknown", message))
        return Geometry(header.shape, ZYX(*UNKNOWN)), None, findings
    placed = place_affine(np.array(header.affine) * (mm or 1.0), header.shape, "" if mm else "zyx", where)
    lines = zip("zyx", header.shape, placed.starts, placed.steps, strict=True)
    labels = None if mm else {axis: start + step * np.arange(n) for axis, n, start, step in lines}
    return placed.geometry, labels, findings


def _times(header: Any, count: int) -> tuple[dict[str, xr.Variable], list[Finding]]:
    """Return the coordinate of time, s, if the header has its step and unit."""
    step, unit = float(header["pixdim"][4]), _SECONDS.get(int(header["xyzt_units"]) & 56)
    if not (unit and np.isfinite(step) and step > 0):
        message = "the header has no step or no unit of time, so time has no labels."
        return {}, [finding("units-unknown", message, values=("time",))]
    start = float(header["toffset"])
    start = start if np.isfinite(start) else 0.0
    values = (start + step * np.arange(count)) * unit
    return {"time": xr.Variable(("time",), values, {"long_name": "time", "units": "s"})}, []
