"""What nested elements, tables and the makers' own elements of a header say.

pydicom finds and decodes these; they are few in a file: segments, detectors, dimensions, mosaics,
look-up tables and mappings to values of the real world.
"""

from __future__ import annotations

from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lazyvol.keywords import KEYWORDS, MAPPING
from lazyvol.makers import MOSAIC, PET, PHILIPS_SCALE, UIH_TILES, Maker
from lazyvol.nested import CutShortError, Encoding, item_at
from lazyvol.records import LookupTable, Segment
from lazyvol.tables import TableError, make_table

__all__ = ["nested_values"]

_TRACERS, _NUCLIDE, _CODE_MEANING, _MODALITY = 0x00540016, 0x00540300, 0x00080104, 0x00080060
_SEGMENTS, _DIMENSIONS, _DETECTORS, _IMAGE_TYPE = 0x00620002, 0x00209222, 0x00540022, 0x00080008
_MODALITY_TABLES, _MAPPINGS = 0x00283000, 0x00409096
_PALETTE_DESCRIPTOR, _PALETTE, _SEGMENTED_PALETTE = 0x00281101, 0x00281201, 0x00281221
"""Those of red; green and blue follow."""


def nested_values(dataset: Dataset, *, little_endian: bool) -> dict[str, Any]:
    """Return those fields of `Elements` that come from sequences, tables and the makers' elements."""
    found: dict[str, Any] = {}
    try:
        found |= _tables(dataset, little_endian)
    except TableError as error:
        found["table_error"] = str(error)
    if mappings := _sequence(dataset, _MAPPINGS):
        found["mapping"] = _mapping(mappings[0])
    modality = _bytes(dataset, _MODALITY).strip(b" \0")
    scale = _private(dataset, PHILIPS_SCALE) if modality == b"MR" else None
    if scale is not None:
        found["private"] = {PHILIPS_SCALE.name: scale if isinstance(scale, bytes) else _encoded(scale)}
    if _SEGMENTS in dataset:
        found["segments"] = tuple(_segment(item) for item in dataset[_SEGMENTS].value)
    if _DIMENSIONS in dataset:
        found["dimensions"] = tuple(_pointer(item) for item in dataset[_DIMENSIONS].value)
    if _DETECTORS in dataset:
        found["detectors"] = tuple(_raw(item) for item in dataset[_DETECTORS].value)
    image_type = getattr(dataset.get_item(_IMAGE_TYPE), "value", b"") if _IMAGE_TYPE in dataset else b""
    if isinstance(image_type, bytes) and (b"MOSAIC" in image_type or b"VFRAME" in image_type):
        found |= _of_mosaic(dataset)
    if modality == b"PT":
        found |= _of_pet(dataset)
    return found


def _tables(dataset: Dataset, little_endian: bool) -> dict[str, LookupTable]:
    """Return the look-up table of the modality and the palette; raise `TableError` if they are damaged."""
    found = {}
    signed = _bytes(dataset, 0x00280103)[:2].strip(b"\0") != b""
    if tables := _sequence(dataset, _MODALITY_TABLES):
        item = tables[0]
        found["lookup"] = make_table(
            _bytes(item, 0x00283002),
            [_bytes(item, 0x00283006)],
            signed=signed,
            little_endian=little_endian,
            kind=_bytes(item, 0x00283004).decode("latin-1").strip(" \0"),
        )
    if _bytes(dataset, 0x00280004).strip(b" \0") == b"PALETTE COLOR":
        _require_one_descriptor(dataset)
        segmented = _PALETTE not in dataset and _SEGMENTED_PALETTE in dataset
        first = _SEGMENTED_PALETTE if segmented else _PALETTE
        found["palette"] = make_table(
            _bytes(dataset, _PALETTE_DESCRIPTOR),
            [_bytes(dataset, first + n) for n in range(3)],
            signed=signed,
            little_endian=little_endian,
            segmented=segmented,
        )
    return found


def _require_one_descriptor(dataset: Dataset) -> None:
    """Raise unless red, green and blue are described alike (DICOM PS3.3 C.7.6.3.1.5)."""
    red, *others = (_bytes(dataset, _PALETTE_DESCRIPTOR + n) for n in range(3))
    if not red:
        raise TableError("its pixels are PALETTE COLOR, and its header has no palette")
    if any(other != red for other in others):
        raise TableError("the LUT descriptors of red, green and blue in its palette differ")


def _sequence(dataset: Dataset, tag: int) -> Sequence | tuple[()]:
    """Return the items of a sequence; none if it is absent or no sequence."""
    value = dataset[tag].value if tag in dataset else None
    return value if isinstance(value, Sequence) else ()


def _mapping(item: Dataset) -> dict[str, bytes]:
    """Return the raw values of a mapping to values of the real world (DICOM PS3.3 C.7.6.16.2.11)."""
    found = {keyword: _bytes(item, tag) for tag, keyword in MAPPING.items() if tag in item}
    units = item.get("MeasurementUnitsCodeSequence")
    if units:
        found["MeasurementUnits"] = _text(units[0].get("CodeValue", ""))
    quantities = item.get("QuantityDefinitionSequence")
    codes = quantities[0].get("ConceptCodeSequence") if quantities else None
    if codes:
        found["Quantity"] = _text(codes[0].get("CodeMeaning", ""))
    return {keyword: raw for keyword, raw in found.items() if raw}


def _of_pet(dataset: Dataset) -> dict[str, Any]:
    """Return the elements on dose and scale that are nested or the makers' own."""
    private = {}
    for maker in PET:
        try:
            tag = dataset.private_block(maker.group, maker.creator).get_tag(maker.element)
            private[maker.name] = _bytes(dataset, tag)
        except KeyError:
            continue
    return {"tracers": tuple(map(_tracer, _sequence(dataset, _TRACERS))), "makers_uptake": private}


def _tracer(item: Dataset) -> dict[str, bytes]:
    """Return the undecoded values of a tracer, and what its nuclide is called."""
    named = [_bytes(code, _CODE_MEANING) for code in _sequence(item, _NUCLIDE)]
    return _raw(item) | {"Radionuclide": named[0] if named else b""}


def _bytes(dataset: Dataset, tag: int) -> bytes:
    """Return the undecoded value of an element; none if it is absent."""
    value = getattr(dataset.get_item(tag), "value", None) if tag in dataset else None
    return value if isinstance(value, bytes) else b"" if value is None else _text(value)


def _of_mosaic(dataset: Dataset) -> dict[str, Any]:
    """Return the makers' elements on the tiles of a sheet."""
    private = {}
    for maker in MOSAIC:
        value = _private(dataset, maker)
        if isinstance(value, bytes):
            private[maker.name] = value
        elif value is not None:
            private[maker.name] = _encoded(value)
    tiles = _private(dataset, UIH_TILES) or ()
    items = _items(tiles) if isinstance(tiles, bytes) else tuple(_raw(item) for item in tiles)
    return {"private": private, "tiles": items}


def _items(raw: bytes) -> tuple[dict[str, bytes], ...]:
    """Return the items of a sequence that was written without a VR (DICOM PS3.5 section 6.2.2)."""
    found, at = [], 0
    try:
        while at < len(raw):
            item, at = item_at(raw, at, Encoding(False, True), {0x00200032: "ImagePositionPatient"})
            if item is None:
                break
            found.append(item)
    except (CutShortError, ValueError):
        return ()
    return tuple(found)


def _private(dataset: Dataset, maker: Maker) -> Any:
    try:
        return dataset.private_block(maker.group, maker.creator)[maker.element].value
    except KeyError:
        return None


def _encoded(value: Any) -> bytes:
    """Return a number as its bytes: a US as two, all else as text."""
    return value.to_bytes(2, "little") if type(value) is int else str(value).encode("latin-1", "replace")


def _raw(item: Dataset) -> dict[str, bytes]:
    """Return the undecoded values of an item by keyword."""
    found = {}
    for tag, element in item.items():
        if int(tag) in KEYWORDS:
            value = element.value
            found[KEYWORDS[int(tag)]] = value if isinstance(value, bytes) else _text(value)
    return found


def _text(value: Any) -> bytes:
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    many = value if several else [value]
    return "\\".join(map(str, many)).encode("latin-1", "replace")


def _pointer(item: Dataset) -> str:
    """Return the keyword of what a dimension index points to, or its tag if it is private."""
    tag = item.get("DimensionIndexPointer", 0) or 0
    return keyword_for_tag(tag) or f"Private{int(tag):08X}"


def _segment(item: Dataset) -> Segment:
    return Segment(
        number=int(item.get("SegmentNumber", 0) or 0),
        label=str(item.get("SegmentLabel", "") or ""),
        category=_meaning(item, "SegmentedPropertyCategoryCodeSequence"),
        type=_meaning(item, "SegmentedPropertyTypeCodeSequence"),
        colour=_colour(item.get("RecommendedDisplayCIELabValue")),
    )


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword)
    return str(codes[0].get("CodeMeaning", "") or "") if codes else ""


def _colour(value: Any) -> str:
    """Return a CIELab colour as Section C.10.7.1.1 of PS3.3 stores it (D50) in sRGB (D65), ``#rrggbb``."""
    numbers = [int(v) for v in value] if hasattr(value, "__iter__") and not isinstance(value, str) else []
    if len(numbers) != 3:
        return ""
    lightness = numbers[0] * 100 / 65535
    a, b = (n * 255 / 65535 - 128 for n in numbers[1:])
    y = (lightness + 16) / 116
    x, z = y + a / 500, y - b / 200
    cubes = (f**3 if f > 6 / 29 else 3 * (6 / 29) ** 2 * (f - 4 / 29) for f in (x, y, z))
    xyz = [w * f for w, f in zip(_WHITE, cubes, strict=True)]
    linear = (sum(c * v for c, v in zip(row, xyz, strict=True)) for row in _SRGB)
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, v)))):02x}" for v in linear)


_WHITE = (0.96422, 1.0, 0.82521)
"""XYZ of white under D50."""
_SRGB = (
    (3.1338561, -1.6168667, -0.4906146),
    (-0.9787684, 1.9161415, 0.0334540),
    (0.0719453, -0.2289914, 1.4052427),
)
"""From XYZ under D50 to linear sRGB (IEC 61966-2-1, Bradford adaptation)."""


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
