"""Which values a stack has: those after rescaling, stored numbers, or those that its header maps them to on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

from lazyvol.errors import OptionError, UnsupportedSeriesError
from lazyvol.records import Frame, LookupTable, Slice
from lazyvol.stacks import Stack

__all__ = ["Values", "padding_of", "with_values"]

Values = Literal["rescaled", "real_world", "philips_fp"]

_PADDING = (
    ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)


def with_values(stack: Stack, values: str, *, rescale: bool) -> Stack:
    """Return a stack whose frames give the values that are asked for.

    Parameters
    ----------
    stack
        With slope and intercept, or a table, of its header.
    values
        ``"rescaled"``, ``"real_world"`` by RealWorldValueMappingSequence (DICOM PS3.3 C.7.6.16.2.11), or
        ``"philips_fp"``, the floating point values of Philips MR: rescaled / (RescaleSlope * scale slope).
    rescale
        False for stored numbers.

    Raises
    ------
    OptionError
        If they are asked for together.
    UnsupportedSeriesError
        If an image lacks what they need; says how many.
    """
    if rescale not in (True, False) or (not rescale and values != "rescaled"):
        raise OptionError(
            f"rescale={rescale!r} and values={values!r} do not go together: rescale is True, or False for stored "
            "numbers without values=."
        )
    if stack.is_colour and values != "rescaled":
        raise UnsupportedSeriesError(
            f"values={values!r} are for grey images, and those of {stack.slices[0].instance.path} are colours. Open "
            "the series without values=."
        )
    if stack.is_colour or (rescale and values == "rescaled"):
        return stack
    if not rescale:
        return replace(stack, slices=tuple(map(_as_stored, stack.slices)), values="stored")
    found = [_MAPPERS[values](part) for part in stack.slices]
    lacking = [part for part, frame in zip(stack.slices, found, strict=True) if frame is None]
    if lacking:
        raise UnsupportedSeriesError(
            f"values={values!r} needs {_NEEDS[values]}, which {len(lacking)} of {len(found)} images lack, the first of "
            f"{lacking[0].instance.path}. Open the series without values=."
        )
    slices = tuple(Slice(p.instance, f) for p, f in zip(stack.slices, found, strict=True) if f is not None)
    return replace(stack, slices=slices, values=values)


def _as_stored(part: Slice) -> Slice:
    return Slice(part.instance, part.frame._replace(slope=1.0, intercept=0.0, lookup=None, limits=None))


def _in_real_world(part: Slice) -> Frame | None:
    """Return the frame with the first mapping of its header; None if it has none that can be used."""
    values = part.values
    first, last = (
        values.get(f"DoubleFloatRealWorldValue{end}ValueMapped", values.get(f"RealWorldValue{end}ValueMapped"))
        for end in ("First", "Last")
    )
    known = isinstance(first, int | float) and isinstance(last, int | float)
    limits = (float(first), float(last)) if known else None  # type: ignore[arg-type]  # both are numbers
    if limits is not None and limits[0] > limits[1]:
        return None
    table = values.get("RealWorldValueLUTData")
    if table is not None:
        entries = table if isinstance(table, tuple) else (table,)
        if limits is None or len(entries) != limits[1] - limits[0] + 1:
            return None
        return part.frame._replace(lookup=_shared_table(int(limits[0]), entries), limits=limits)
    slope, intercept = values.get("RealWorldValueSlope"), values.get("RealWorldValueIntercept")
    if not isinstance(slope, int | float) or not slope or not isinstance(intercept, int | float):
        return None
    return part.frame._replace(slope=float(slope), intercept=float(intercept), lookup=None, limits=limits)


@lru_cache(maxsize=64)
def _shared_table(first: int, entries: tuple[float, ...]) -> LookupTable:
    """Return one object for equal tables, so that thousands of slices share it."""
    return LookupTable(first, "<f8", np.asarray(entries, "<f8").tobytes())


def _as_philips_fp(part: Slice) -> Frame | None:
    """Return the frame with (stored * RS + RI) / (RS * SS), RS and RI its rescaling, SS the private scale slope."""
    scale, slope, intercept = part.values.get("PhilipsScaleSlope"), part.frame.slope, part.frame.intercept
    if not isinstance(scale, int | float) or not scale or not slope or part.frame.lookup is not None:
        return None
    return part.frame._replace(slope=1.0 / float(scale), intercept=intercept / (slope * float(scale)))


_MAPPERS: dict[str, Callable[[Slice], Frame | None]] = {"real_world": _in_real_world, "philips_fp": _as_philips_fp}
_NEEDS = {
    "real_world": "RealWorldValueMappingSequence with slope and intercept, or with an entry for each number it maps",
    "philips_fp": "the private scale slope of Philips (2005,xx0E)",
}


def padding_of(part: Slice) -> tuple[float, float] | None:
    """Return the least and the greatest stored number that is padding (DICOM PS3.3 C.7.5.1.1.2); None if none is.

    The number has the bits and the sign of the pixels, whatever its VR: 63536 is -2000 where they are signed.
    """
    values = part.values
    for keyword, limit in _PADDING:
        found = [v for v in (values.get(keyword), values.get(limit)) if isinstance(v, int | float)]
        if keyword in values and found:
            ends = [_as_pixels_have_it(part, v) for v in found]
            return min(ends), max(ends)
    return None


def _as_pixels_have_it(part: Slice, value: float) -> float:
    """Return a stored number with BitsStored and the sign of the pixels."""
    pixels = part.instance.pixels
    if pixels.element != "PixelData":
        return float(value)
    size = 1 << pixels.bits_stored
    bits = int(value) % size
    return float(bits - size if pixels.pixel_representation and bits >= size // 2 else bits)
