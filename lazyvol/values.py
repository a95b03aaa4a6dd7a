"""What the values of a stack are: their dtype, and what its headers share or vary in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lazyvol.keywords import HIDDEN, INDEX, PARAMETRIC_MAP, PET_UNITS
from lazyvol.records import LookupTable, PixelFormat, Slice, Value
from lazyvol.tables import entries_of

__all__ = ["quantity", "shared_values", "value_dtype"]

_RESCALE_UNITS = {
    "ED": "10^23 electrons/ml",
    "EDW": "10^23 electrons/ml",
    "HU_MOD": "HU",
    "MGML": "mg/ml",
    "OD": "10^-3 OD",
    "PCT": "%",
    "US": "",
    "Z_EFF": "",
}
"""Units by RescaleType or ModalityLUTType; others are units already (DICOM PS3.3 C.11.1.1.2)."""


def shared_values(parts: Sequence[Slice]) -> tuple[dict[str, Value], dict[str, tuple[Value | None, ...]]]:
    """Return the protocol values that all slices share, and those that vary, by DICOM keyword.

    A value that some slices lack varies, with None where it is absent.
    """
    shared: dict[str, Value] = {}
    varying: dict[str, tuple[Value | None, ...]] = {}
    for keyword, found in _by_keyword(parts):
        if keyword in HIDDEN or keyword.startswith(INDEX):
            continue
        if found[0] is not None and found.count(found[0]) == len(found):
            shared[keyword] = found[0]
        else:
            varying[keyword] = found
    return shared, varying


def _by_keyword(parts: Sequence[Slice]) -> list[tuple[str, tuple[Value | None, ...]]]:
    """Return the value of each slice by keyword, None where it is absent; keywords in their order."""
    rows = [p.instance.values for p in parts]
    if len(set(map(len, rows))) == 1 and not any(p.frame.values for p in parts):
        columns = [tuple(zip(*pairs, strict=True)) for pairs in zip(*rows, strict=True)]
        if all(keywords.count(keywords[0]) == len(rows) for keywords, _ in columns):
            return [(keywords[0], values) for keywords, values in columns]
    each = [p.values for p in parts]
    return [(keyword, tuple(values.get(keyword) for values in each)) for keyword in sorted(set().union(*each))]


def value_dtype(parts: Sequence[Slice], *, stored: bool = False) -> np.dtype[np.generic]:
    """Return the smallest dtype that holds every value, by the headers of all slices.

    Integer slopes and intercepts give the smallest integer type for the range that the
    stored bits allow, signed where both fit; fractional ones float32, or float64 for
    32-bit stored numbers. CT whose 16 declared bits alone exceed int16 is int16: its
    values are checked when they are read. Stored numbers keep their sign, and colours are
    unsigned.
    """
    if parts[0].instance.is_colour:
        return _colour_dtype(parts)
    tables = {p.frame.lookup for p in parts} - {None}
    pixels = {id(p.instance.pixels): p.instance.pixels for p in parts}  # a few objects, which are hashed slowly
    scales = {(id(p.instance.pixels), p.frame.slope, p.frame.intercept) for p in parts if p.frame.lookup is None}
    formats = {(pixels[n], slope, intercept) for n, slope, intercept in scales}
    elements = {f.element for f in pixels.values()}
    if elements != {"PixelData"}:
        return np.dtype("float64" if "DoubleFloatPixelData" in elements else "float32")
    if any(t.dtype == "<f8" for t in tables if t is not None):
        return np.dtype("float32")
    if any(p.frame.limits for p in parts) or any(not (s.is_integer() and i.is_integer()) for _, s, i in formats):
        wide = any(f.bits_allocated > 16 for f, _, _ in formats)
        return np.dtype("float64" if wide else "float32")
    ends: list[float] = [end for f, slope, intercept in formats for end in _ends(f, slope, intercept, f.bits_stored)]
    ends += [end for table in tables if table is not None for end in _table_ends(table)]
    wide = any(f.bits_stored == 16 for f, _, _ in formats) and not stored
    if wide and parts[0].instance.modality == "CT" and all(_is_int16_but_for_declared_bits(*f) for f in formats):
        return np.dtype("int16")
    if min(ends) == 0 and (stored or max(ends) == 1):
        names: tuple[str, ...] = ("uint8", "uint16", "uint32")
        return np.dtype(next(n for n in names if max(ends) <= np.iinfo(n).max))
    names = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
    fits = (n for n in names if np.iinfo(n).min <= min(ends) and max(ends) <= np.iinfo(n).max)
    return np.dtype(next(fits, "float64"))


def quantity(parts: Sequence[Slice], shared: Mapping[str, Value], values: str = "rescaled") -> dict[str, str]:
    """Return name and units of the values (DICOM PS3.3 C.11.1.1.2, C.8.9.1.1.3, C.8.8.3, C.7.6.16.2.11)."""
    if parts[0].instance.is_colour:
        return {"long_name": "colour"}
    if values == "stored":
        return {"long_name": "stored number"}
    if values == "philips_fp":
        return {"long_name": "MR signal, floating point"}
    hidden = {k: v for k, v in parts[0].values.items() if k in HIDDEN}
    shared = {**shared, **{k: v for k, v in hidden.items() if all(p.values.get(k) == v for p in parts)}}
    modality, lookup = parts[0].instance.modality, parts[0].frame.lookup
    rescale_type = lookup.type if lookup else str(shared.get("RescaleType", ""))
    units = _RESCALE_UNITS.get(rescale_type, rescale_type)
    if "SegmentationType" in shared:
        return {"long_name": "segmentation"}
    mapped = "RealWorldValueSlope" in hidden and parts[0].instance.sop_class_uid == PARAMETRIC_MAP
    if mapped or values == "real_world":
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


def _colour_dtype(parts: Sequence[Slice]) -> np.dtype[np.generic]:
    """Return the type of red, green and blue."""
    palettes = [p.instance.palette for p in parts]
    bits = [
        8 * np.dtype(t.dtype).itemsize if t else p.instance.pixels.bits_stored
        for t, p in zip(palettes, parts, strict=True)
    ]
    return np.dtype(next(f"uint{n}" for n in (8, 16, 32) if max(bits) <= n))


def _table_ends(table: LookupTable) -> tuple[int, int]:
    """Return the least and the greatest entry of a table."""
    entries = entries_of(table)
    return int(entries.min()), int(entries.max())


def _ends(pixels: PixelFormat, slope: float, intercept: float, bits: int) -> tuple[float, float]:
    """Return the values of the least and the greatest stored number of so many bits."""
    signed = pixels.pixel_representation == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return low * slope + intercept, high * slope + intercept


def _is_int16_but_for_declared_bits(pixels: PixelFormat, slope: float, intercept: float) -> bool:
    """Whether CT leaves int16, if at all, only because 16 bits are declared where 12 are usual."""
    bits = 12 if pixels.bits_stored == 16 else pixels.bits_stored
    return slope == 1 and all(-(2**15) <= end < 2**15 for end in _ends(pixels, slope, intercept, bits))
