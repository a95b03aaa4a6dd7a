"""What the values of a stack are: their dtype, and what its headers share or vary in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazyvol.records import PixelFormat, Slice, Value

__all__ = ["shared_values", "value_dtype"]


def shared_values(parts: Sequence[Slice]) -> tuple[dict[str, Value], dict[str, tuple[Value | None, ...]]]:
    """Return the protocol values that all slices share, and those that vary, by DICOM keyword.

    A value that some slices lack varies, with None where it is absent.
    """
    each = [dict(p.instance.values) for p in parts]
    keywords = sorted({k for values in each for k in values})
    shared: dict[str, Value] = {}
    varying: dict[str, tuple[Value | None, ...]] = {}
    for keyword in keywords:
        found = tuple(values.get(keyword) for values in each)
        if found[0] is not None and all(v == found[0] for v in found):
            shared[keyword] = found[0]
        else:
            varying[keyword] = found
    return shared, varying


def value_dtype(parts: Sequence[Slice]) -> np.dtype[np.generic]:
    """Return the smallest dtype that holds every value, by the headers of all slices.

    Integer slopes and intercepts give the smallest integer type for the range that the
    stored bits allow, signed where both fit; fractional ones float32, or float64 for
    32-bit stored numbers. CT whose 16 declared bits alone exceed int16 is int16: its
    values are checked when they are read.
    """
    formats = {(p.instance.pixels, p.frame.slope, p.frame.intercept) for p in parts}
    if any(not (s.is_integer() and i.is_integer()) for _, s, i in formats):
        wide = any(f.bits_allocated > 16 for f, _, _ in formats)
        return np.dtype("float64" if wide else "float32")
    ends = [end for f, slope, intercept in formats for end in _ends(f, slope, intercept, f.bits_stored)]
    wide = any(f.bits_stored == 16 for f, _, _ in formats)
    if wide and parts[0].instance.modality == "CT" and all(_is_int16_but_for_declared_bits(*f) for f in formats):
        return np.dtype("int16")
    names = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
    fits = (n for n in names if np.iinfo(n).min <= min(ends) and max(ends) <= np.iinfo(n).max)
    return np.dtype(next(fits, "float64"))


def _ends(pixels: PixelFormat, slope: float, intercept: float, bits: int) -> tuple[float, float]:
    """Return the values of the least and the greatest stored number of so many bits."""
    signed = pixels.pixel_representation == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return low * slope + intercept, high * slope + intercept


def _is_int16_but_for_declared_bits(pixels: PixelFormat, slope: float, intercept: float) -> bool:
    """Whether CT leaves int16, if at all, only because 16 bits are declared where 12 are usual."""
    bits = 12 if pixels.bits_stored == 16 else pixels.bits_stored
    return slope == 1 and all(-(2**15) <= end < 2**15 for end in _ends(pixels, slope, intercept, bits))
