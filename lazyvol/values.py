"""What the values of a stack are: their dtype, and what its headers share or vary in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lazyvol.keywords import HIDDEN, INDEX, PARAMETRIC_MAP, PET_UNITS
from lazyvol.records import PixelFormat, Slice, Value

__all__ = ["quantity", "shared_values", "value_dtype"]


def shared_values(parts: Sequence[Slice]) -> tuple[dict[str, Value], dict[str, tuple[Value | None, ...]]]:
    """Return the protocol values that all slices share, and those that vary, by DICOM keyword.

    A value that some slices lack varies, with None where it is absent.
    """
    each = [p.values for p in parts]
    keywords = sorted({k for values in each for k in values if k not in HIDDEN and not k.startswith(INDEX)})
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
    elements = {f.element for f, _, _ in formats}
    if elements != {"PixelData"}:
        return np.dtype("float64" if "DoubleFloatPixelData" in elements else "float32")
    if any(not (s.is_integer() and i.is_integer()) for _, s, i in formats):
        wide = any(f.bits_allocated > 16 for f, _, _ in formats)
        return np.dtype("float64" if wide else "float32")
    ends = [end for f, slope, intercept in formats for end in _ends(f, slope, intercept, f.bits_stored)]
    wide = any(f.bits_stored == 16 for f, _, _ in formats)
    if wide and parts[0].instance.modality == "CT" and all(_is_int16_but_for_declared_bits(*f) for f in formats):
        return np.dtype("int16")
    if max(f.bits_stored for f, _, _ in formats) == 1 and ends.count(0) == len(ends) // 2:
        return np.dtype("uint8")
    names = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
    fits = (n for n in names if np.iinfo(n).min <= min(ends) and max(ends) <= np.iinfo(n).max)
    return np.dtype(next(fits, "float64"))


def quantity(parts: Sequence[Slice], shared: Mapping[str, Value]) -> dict[str, str]:
    """Return name and units of the values (DICOM PS3.3 C.11.1.1.2, C.8.9.1.1.3, C.8.8.3, C.7.6.16.2.11)."""
    hidden = {k: v for k, v in parts[0].values.items() if k in HIDDEN}
    shared = {**shared, **{k: v for k, v in hidden.items() if all(p.values.get(k) == v for p in parts)}}
    modality, rescale_type = parts[0].instance.modality, str(shared.get("RescaleType", ""))
    units = rescale_type if rescale_type != "US" else ""
    if "SegmentationType" in shared:
        return {"long_name": "segmentation"}
    if "RealWorldValueSlope" in hidden and parts[0].instance.sop_class_uid == PARAMETRIC_MAP:
        name = str(shared.get("Quantity") or shared.get("LUTLabel") or "real-world value")
        units = str(shared.get("MeasurementUnits", ""))
    elif "DoseUnits" in shared:
        name, units = "dose", {"GY": "Gy", "RELATIVE": "relative"}.get(str(shared["DoseUnits"]), "")
    elif modality == "CT":
        name, units = "CT number", units if rescale_type else "HU"
    elif modality == "PT":
        units = str(shared.get("Units", ""))
        name = "activity concentration" if units == "BQML" else "PET value"
        units = PET_UNITS.get(units, units)
    else:
        name = "MR signal" if modality == "MR" else "pixel value"
    return {"long_name": name} | ({"units": units} if units else {})


def _ends(pixels: PixelFormat, slope: float, intercept: float, bits: int) -> tuple[float, float]:
    """Return the values of the least and the greatest stored number of so many bits."""
    signed = pixels.pixel_representation == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return low * slope + intercept, high * slope + intercept


def _is_int16_but_for_declared_bits(pixels: PixelFormat, slope: float, intercept: float) -> bool:
    """Whether CT leaves int16, if at all, only because 16 bits are declared where 12 are usual."""
    bits = 12 if pixels.bits_stored == 16 else pixels.bits_stored
    return slope == 1 and all(-(2**15) <= end < 2**15 for end in _ends(pixels, slope, intercept, bits))
