"""From stored numbers to values: slope and intercept, without overflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyvol.errors import PixelRangeError
from lazyvol.records import PixelFormat

__all__ = ["Scale", "rescale"]

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """How the stored numbers of a frame become values."""

    pixels: PixelFormat
    """Layout of the stored numbers."""

    slope: float
    """Value = stored * slope + intercept."""

    intercept: float
    """See slope."""

    index: int
    """Number of the frame in its file, from 0; for messages."""

    path: str
    """Its file; for messages."""


def rescale(stored: Pixels, scale: Scale, out: Pixels) -> None:
    """Write stored * slope + intercept into ``out`` without overflow."""
    slope, intercept = scale.slope, scale.intercept
    if out.dtype.kind == "f":
        out[...] = stored if (slope, intercept) == (1, 0) else stored.astype("float64") * slope + intercept
        return
    if not (slope.is_integer() and intercept.is_integer()):
        raise PixelRangeError(
            f"frame {scale.index + 1} of {scale.path} has slope {slope:g} and intercept {intercept:g}, which "
            f'{out.dtype} cannot hold. Open the series without dtype, or with dtype="float32".'
        )
    if stored.dtype.kind == "f":
        raise PixelRangeError(
            f'{scale.path} holds floating-point numbers; open it without dtype, or with dtype="float32".'
        )
    _require_fits(stored, scale, out.dtype)
    # Arithmetic modulo 2**bits is exact, because the results are known to fit.
    out[...] = stored.astype(out.dtype, copy=False)
    if slope != 1:
        np.multiply(out, np.int64(slope).astype(out.dtype), out=out)
    if intercept:
        np.add(out, np.int64(intercept).astype(out.dtype), out=out)


def _require_fits(stored: Pixels, scale: Scale, dtype: np.dtype[Any]) -> None:
    bits, signed = scale.pixels.bits_stored, scale.pixels.pixel_representation == 1
    declared = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    limits = np.iinfo(dtype)
    if not _outside(declared, scale, limits):
        return
    bad = _outside((int(stored.min()), int(stored.max())), scale, limits)
    if bad:
        raise PixelRangeError(
            f"frame {scale.index + 1} of {scale.path} holds the value {bad[0]:g}, outside {dtype} ({limits.min} to "
            f'{limits.max}). Open the series with dtype="int32" or dtype="float32".'
        )


def _outside(stored: tuple[int, int], scale: Scale, limits: np.iinfo[Any]) -> list[float]:
    values = (s * scale.slope + scale.intercept for s in stored)
    return [v for v in values if not limits.min <= v <= limits.max]
