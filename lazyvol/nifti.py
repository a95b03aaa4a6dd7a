"""What the header of a NIfTI file says: where its voxels lie, and what its numbers become.

Bytes come in, a value comes out; nothing here opens a file. Axes and positions are turned
to those of lazyvol: index order (slice, row, column), positions LPS.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from lazyvol.errors import StoreError

__all__ = ["NiftiHeader", "nifti_header"]

Array = npt.NDArray[np.float64]
Row = tuple[float, float, float, float]

_UNITS: Final = MappingProxyType({1: "meter", 2: "millimeter", 3: "micrometer"})
_LAYOUTS: Final = MappingProxyType(
    {  # where dim, pixdim, scl_slope and scl_inter, the codes of qform and sform, their numbers, and xyzt_units stand
        348: (("8h", 40), ("8f", 76), ("2f", 112), ("2h", 252), ("6f", 256), ("12f", 280), ("B", 123)),
        540: (("8q", 16), ("8d", 104), ("2d", 176), ("2i", 344), ("6d", 352), ("12d", 400), ("i", 500)),
    }
)


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """Place and scale of a NIfTI image."""

    shape: tuple[int, int, int]
    """Number of slices, rows and columns."""

    affine: tuple[Row, Row, Row] | None
    """From index (k, j, i, 1) to LPS (x, y, z), in `unit`; None if the header has neither sform nor qform."""

    unit: str
    """Word for the unit of lengths, as OME-Zarr has it; empty where unknown."""

    slope: float = 1.0
    """Value = stored * slope + intercept."""

    intercept: float = 0.0
    """See slope."""


def nifti_header(raw: bytes, where: str) -> NiftiHeader:
    """Return what a NIfTI-1 or NIfTI-2 header says.

    Parameters
    ----------
    raw
        The header, 348 or 540 bytes or more, in either byte order.
    where
        What it was read from, for messages.

    Raises
    ------
    StoreError
        If it is no such header, or its sform or qform cannot be an affine.
    """
    order = next((o for o in "<>" if len(raw) >= 4 and struct.unpack_from(f"{o}i", raw)[0] in _LAYOUTS), "")
    size = struct.unpack_from(f"{order}i", raw)[0] if order else 0
    if not order or len(raw) < size:
        raise StoreError(
            f"{where} is no NIfTI header: it has {len(raw)} bytes, and one begins with its length, 348 or 540. Convert "
            "the image again, or remove it to open the image by its OME-Zarr metadata."
        )
    fields = [struct.unpack_from(order + form, raw, at) for form, at in _LAYOUTS[size]]
    dim, pixdim, (slope, intercept), (qform, sform), quaternion, srow, (units,) = fields
    ras = None
    if sform > 0:
        ras = np.reshape(srow, (3, 4)).astype(float)
    elif qform > 0:
        ras = _of_quaternion(quaternion, pixdim)
    if ras is not None and not (np.isfinite(ras).all() and abs(np.linalg.det(ras[:, :3])) > 0):
        raise StoreError(
            f"the {'sform' if sform > 0 else 'qform'} of {where} is {ras.tolist()}, which is no affine. Mend the NIfTI "
            "file and convert it again."
        )
    if not (np.isfinite([slope, intercept]).all() and slope):
        slope, intercept = 1.0, 0.0
    x, y, z = (dim[n] if dim[0] >= n else 1 for n in (1, 2, 3))
    return NiftiHeader((z, y, x), None if ras is None else _turned(ras), _UNITS.get(units & 7, ""), slope, intercept)


def _of_quaternion(numbers: tuple[float, ...], pixdim: tuple[float, ...]) -> Array:
    """Return the qform, (x, y, z, 1) to RAS."""
    b, c, d, *offset = numbers
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    if not a:
        b, c, d = np.array([b, c, d]) / np.linalg.norm([b, c, d])
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    flip = -1.0 if pixdim[0] == -1 else 1.0
    return np.column_stack([rotation * np.array([pixdim[1], pixdim[2], pixdim[3] * flip]), offset])


def _turned(ras: Array) -> tuple[Row, Row, Row]:
    """Return an affine from (x, y, z, 1) to RAS as one from (z, y, x, 1) to LPS."""
    lps = ras[:, [2, 1, 0, 3]] * np.array([[-1.0], [-1.0], [1.0]])
    x, y, z = (tuple(float(v) for v in row) for row in lps)
    return x, y, z  # type: ignore[return-value]  # rows of four
