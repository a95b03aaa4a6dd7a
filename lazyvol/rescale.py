"""From the words of a file to stored numbers, and from these to values, without overflow."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyvol.errors import PixelRangeError
from lazyvol.records import LookupTable, PixelFormat
from lazyvol.tables import look_up

__all__ = ["Scale", "arranged", "in_place", "only_stored_bits", "rescale", "stored_dtype"]

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """How the stored numbers of a frame become values."""

    slope: float = 1.0
    """Value = stored * slope + intercept."""

    intercept: float = 0.0
    """See slope."""

    lookup: LookupTable | None = None
    """Values by stored number, instead of slope and intercept; or the colours of a palette."""

    limits: tuple[float, float] | None = None
    """Least and greatest stored number that has a value; the others become NaN."""

    padding: tuple[float, float] | None = None
    """Least and greatest stored number that is padding, and becomes NaN."""


def rescale(stored: Pixels, scale: Scale, pixels: PixelFormat, where: str, out: Pixels) -> None:
    """Write the values of stored numbers into ``out`` without overflow.

    Parameters
    ----------
    stored
        Stored numbers, sign extended and without unused bits; shape (rows, columns), or (rows,
        columns, 3) of colour. Integers may lie in the memory of ``out`` itself, if `in_place` says so.
    scale
        What they become; padding and limits need floating point.
    pixels
        Their layout, which says what range they can have.
    where
        Frame and file, for messages.
    out
        Where the values go; shape as stored, or with 3 samples more for a palette.

    Raises
    ------
    PixelRangeError
        If a value does not fit into the type of ``out``.
    """
    if scale.lookup is not None:
        _put(look_up(stored, scale.lookup), where, out)
    elif out.dtype.kind == "f":
        plain = (scale.slope, scale.intercept) == (1, 0)
        out[...] = stored if plain else stored.astype("float64") * scale.slope + scale.intercept
    else:
        _scale_integers(stored, scale, pixels, where, out)
    if scale.padding is not None:
        out[(stored >= scale.padding[0]) & (stored <= scale.padding[1])] = np.nan
    if scale.limits is not None:
        out[(stored < scale.limits[0]) | (stored > scale.limits[1])] = np.nan


def _put(values: Pixels, where: str, out: Pixels) -> None:
    """Write the values of a table."""
    if out.dtype.kind != "f":
        limits = np.iinfo(out.dtype)
        least, greatest = (values.min(initial=0), values.max(initial=0)) if values.size else (0, 0)
        if values.dtype.kind == "f":
            raise PixelRangeError(f'{where} has a table of fractions; open it with dtype="float32".')
        for value in (int(least), int(greatest)):
            if not limits.min <= value <= limits.max:
                raise _misfit(where, value, out.dtype)
    out[...] = values


def _scale_integers(stored: Pixels, scale: Scale, pixels: PixelFormat, where: str, out: Pixels) -> None:
    slope, intercept = scale.slope, scale.intercept
    if not (slope.is_integer() and intercept.is_integer()):
        raise PixelRangeError(
            f"{where} has slope {slope:g} and intercept {intercept:g}, which {out.dtype} cannot hold. Open the series "
            'without dtype, or with dtype="float32".'
        )
    if stored.dtype.kind == "f":
        raise PixelRangeError(f'{where} holds floating-point numbers; open it without dtype, or with dtype="float32".')
    _require_fits(stored, scale, pixels, where, out.dtype)
    # Arithmetic modulo 2**bits is exact, because the results are known to fit.
    values = stored.view(out.dtype) if stored.itemsize == out.itemsize else stored.astype(out.dtype)
    if slope != 1:
        values = np.multiply(values, _modulo(slope, out.dtype), out=out)
    if intercept != 0 or not np.may_share_memory(values, out):
        np.add(values, _modulo(intercept, out.dtype), out=out)


def in_place(pixels: PixelFormat, dtype: np.dtype[Any]) -> bool:
    """Return whether the words of a file can become values of a type in the memory that they are read into."""
    words = stored_dtype(pixels)
    by_pixel = pixels.samples_per_pixel == 1 or not (pixels.planar_configuration or pixels.is_subsampled)
    return by_pixel and words.kind in "iu" and dtype.kind in "iu" and words.itemsize == dtype.itemsize


@lru_cache(maxsize=256)
def _modulo(value: float, dtype: np.dtype[Any]) -> Pixels:
    """Return a whole number, however great, as an integer type has it."""
    return np.array(int(value) % (1 << 64), np.uint64).astype(dtype)


def _require_fits(stored: Pixels, scale: Scale, pixels: PixelFormat, where: str, dtype: np.dtype[Any]) -> None:
    """Raise if a value does not fit; only those are looked at that could not, by the bits that are declared."""
    signed = pixels.pixel_representation == 1
    low, high = _fitting(pixels.bits_stored, signed, scale.slope, scale.intercept, dtype)
    if low is not None and (least := int(stored.min())) < low:
        raise _misfit(where, least * int(scale.slope) + int(scale.intercept), dtype)
    if high is not None and (most := int(stored.max())) > high:
        raise _misfit(where, most * int(scale.slope) + int(scale.intercept), dtype)


@lru_cache(maxsize=256)
def _fitting(
    bits: int, signed: bool, slope: float, intercept: float, dtype: np.dtype[Any]
) -> tuple[int | None, int | None]:
    """Return the least and greatest stored number whose value fits; None where so many bits hold none beyond it.

    In the integers of Python, which do not round.
    """
    limits, step, start = np.iinfo(dtype), int(slope), int(intercept)
    declared = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if step == 0:
        return (None if limits.min <= start <= limits.max else declared[1] + 1), None
    ends = (limits.min - start, limits.max - start) if step > 0 else (limits.max - start, limits.min - start)
    low, high = -(-ends[0] // step), ends[1] // step
    return (low if declared[0] < low else None), (high if declared[1] > high else None)


def _misfit(where: str, value: int, dtype: np.dtype[Any]) -> PixelRangeError:
    limits = np.iinfo(dtype)
    return PixelRangeError(
        f"{where} holds the value {Decimal(value):.6g}, outside {dtype} ({limits.min} to {limits.max}). Open the "
        'series with dtype="int32" or dtype="float32".'
    )


@lru_cache(maxsize=256)
def stored_dtype(pixels: PixelFormat) -> np.dtype[Any]:
    """Return the type of the numbers as they lie in the file."""
    order = "<" if pixels.little_endian else ">"
    if pixels.element != "PixelData":
        return np.dtype(f"{order}f{pixels.bits_allocated // 8}")
    return np.dtype(f"{order}{'ui'[pixels.pixel_representation]}{pixels.bits_allocated // 8}")


def only_stored_bits(stored: Pixels, pixels: PixelFormat, *, high_bit: int | None = None) -> Pixels:
    """Shift out what is not part of the value; a shift back extends the sign (DICOM PS3.5 8.1.1)."""
    native = stored if stored.dtype.isnative else stored.astype(stored.dtype.newbyteorder("="))
    if native.dtype.kind == "f":
        return native
    high = pixels.high_bit if high_bit is None else high_bit
    above, unused = pixels.bits_allocated - 1 - high, pixels.bits_allocated - pixels.bits_stored
    if unused and not (above == unused and _has_only_stored_bits(native, pixels.bits_stored)):
        np.left_shift(native, above, out=native)
        np.right_shift(native, unused, out=native)
    return native


def _has_only_stored_bits(native: Pixels, bits: int) -> bool:
    """Return whether the bits above the value are nothing but its sign, which is cheaper to see than to make so."""
    if native.dtype.kind == "u":
        return not native.size or int(native.max()) < 1 << bits
    return not native.size or (int(native.min()) >= -1 << (bits - 1) and int(native.max()) < 1 << (bits - 1))


def arranged(words: Pixels, rows: int, pixels: PixelFormat) -> Pixels:
    """Return the numbers of whole rows as (rows, columns), or (rows, columns, samples) of colour.

    Of two pixels of YBR_FULL_422, Y Y B R, each has its Y and their B and R (DICOM PS3.3 C.7.6.3.1.2).
    """
    samples = pixels.samples_per_pixel
    if pixels.is_subsampled:
        return np.asarray(words.reshape(rows, -1, 4)[..., [0, 2, 3, 1, 2, 3]].reshape(rows, -1, 3))
    if samples == 1:
        return words.reshape(rows, -1)
    if pixels.planar_configuration == 0:
        return words.reshape(rows, -1, samples)
    return np.moveaxis(words.reshape(samples, rows, -1), 0, -1)
