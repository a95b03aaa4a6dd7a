"""What the values of a stack are: their dtype, and what its headers share or vary in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazyvol.records import Slice, Value

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
    ends: list[float] = []
    for pixels, slope, intercept in formats:
        signed = pixels.pixel_representation == 1
        low, high = (-(2 ** (pixels.bits_stored - 1)), 2 ** (pixels.bits_stored - 1) - 1)
        low, high = (low, high) if signed else (0, 2**pixels.bits_stored - 1)
        ends += [low * slope + intercept, high * slope + intercept]
    declared = all(f.bits_stored <= 16 and slope == 1 for f, slope, _ in formats)
    if parts[0].instance.modality == "CT" and declared and any(f.bits_stored == 16 for f, _, _ in formats):
        return np.dtype("int16")
    names = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
    fits = (n for n in names if np.iinfo(n).min <= min(ends) and max(ends) <= np.iinfo(n).max)
    return np.dtype(next(fits, "float64"))
