"""The slices of a mosaic: a sheet of tiles in one image, as Siemens and UIH write them.

The standard knows no mosaics; the makers' own elements say how many tiles there are and where they
lie. A sheet whose header does not say both is refused, never opened as one slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lazyvol.records import Frame, FrameSet, Vector
from lazyvol.typed import Reader

__all__ = ["csa_values", "frames_of_mosaic", "is_mosaic"]

_CSA_MOST = 4096
"""No CSA header has more entries."""


def is_mosaic(image_type: Sequence[str]) -> bool:
    """Return whether ImageType says that the image is a sheet of tiles."""
    return "MOSAIC" in image_type or "VFRAME" in image_type


def frames_of_mosaic(
    reader: Reader, sheet: tuple[int, int], private: Mapping[str, bytes], tiles: Sequence[Mapping[str, bytes]]
) -> FrameSet:
    """Return the tiles of a sheet as frames.

    Parameters
    ----------
    reader
        The header.
    sheet
        Rows and columns of the sheet.
    private
        The makers' elements: NumberOfImagesInMosaic and CSAImageHeaderInfo of Siemens,
        NumberOfSlicesInVolume of UIH.
    tiles
        Raw values of each item of UIH's MRVFrameSequence.
    """
    if "NumberOfSlicesInVolume" in private or tiles:
        return _of_uih(reader, sheet, private, tiles)
    return _of_siemens(reader, sheet, private)


def _of_siemens(reader: Reader, sheet: tuple[int, int], private: Mapping[str, bytes]) -> FrameSet:
    csa = csa_values(private.get("CSAImageHeaderInfo", b""), ("NumberOfImagesInMosaic", "SliceNormalVector"))
    counts = Reader(private, little_endian=True).shorts("NumberOfImagesInMosaic")
    count = _integer(csa["NumberOfImagesInMosaic"]) or (counts[0] if counts else 0)
    if counts and counts[0] != count:
        return _refused(f"one element of its header says that its sheet holds {count} slices, another {counts[0]}")
    normal = _vector(csa["SliceNormalVector"])
    step = reader.number("SpacingBetweenSlices")
    position, orientation, spacing = reader.position(), reader.orientation(), reader.pixel_spacing()
    if not count:
        return _refused("its header does not say how many tiles its sheet has (no NumberOfImagesInMosaic)")
    across = math.ceil(math.sqrt(count))
    tile = sheet[0] // across, sheet[1] // across
    if sheet != (tile[0] * across, tile[1] * across):
        return _refused(f"its sheet of {sheet[0]} x {sheet[1]} pixels is no grid of {across} x {across} tiles")
    if normal is None or not step or position is None or orientation is None or spacing is None:
        return _refused(
            f"its sheet holds {count} slices, and the header does not say where: it lacks SliceNormalVector of the "
            "maker's CSA header, or position, orientation, PixelSpacing or SpacingBetweenSlices"
        )
    down, along = (spacing[0] * (sheet[0] - tile[0]) / 2, spacing[1] * (sheet[1] - tile[1]) / 2)
    first = [p + along * orientation[n] + down * orientation[n + 3] for n, p in enumerate(position)]
    places = [_point(f + k * step * n for f, n in zip(first, normal, strict=True)) for k in range(count)]
    return FrameSet(_tiles(reader, places, tile, across), tile=tile)


def _of_uih(
    reader: Reader, sheet: tuple[int, int], private: Mapping[str, bytes], tiles: Sequence[Mapping[str, bytes]]
) -> FrameSet:
    count = len(tiles)
    said = _integer(private.get("NumberOfSlicesInVolume", b"").decode("latin-1").strip(" \0").split("\\"))
    places = [Reader(tile, little_endian=True).position() for tile in tiles]
    known = [p for p in places if p is not None]
    if not count or len(known) < count or (said and said != count):
        return _refused(
            f"its sheet holds {said or count} slices, and the maker's MRVFrameSequence gives {len(known)} positions"
        )
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    tile = sheet[0] // down, sheet[1] // across
    if sheet != (tile[0] * down, tile[1] * across):
        return _refused(f"its sheet of {sheet[0]} x {sheet[1]} pixels is no grid of {down} x {across} tiles")
    return FrameSet(_tiles(reader, known, tile, across), tile=tile)


def _tiles(reader: Reader, places: Sequence[Vector], tile: tuple[int, int], across: int) -> tuple[Frame, ...]:
    orientation, spacing, slope = reader.orientation(), reader.pixel_spacing(), reader.slope()
    intercept = reader.number("RescaleIntercept") or 0.0
    return tuple(
        Frame(
            index=0,
            position=place,
            orientation=orientation,
            pixel_spacing=spacing,
            slope=slope,
            intercept=intercept,
            corner=(k // across * tile[0], k % across * tile[1]),
        )
        for k, place in enumerate(places)
    )


def _refused(why: str) -> FrameSet:
    return FrameSet((Frame(0),), refusal=f"its images are mosaics of tiles: {why}")


def csa_values(raw: bytes, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of some entries of a Siemens CSA header of the form SV10, as text."""
    found: dict[str, list[str]] = {name: [] for name in names}
    if raw[:4] != b"SV10":
        return found
    at = 16
    for _ in range(min(_whole(raw, 8), _CSA_MOST)):
        name = raw[at : at + 64].split(b"\0")[0].decode("latin-1")
        items = _whole(raw, at + 76)
        at += 84
        values = []
        for _ in range(min(items, _CSA_MOST)):
            length = _whole(raw, at + 4)
            values.append(raw[at + 16 : at + 16 + length].split(b"\0")[0].decode("latin-1").strip())
            at += 16 + -(-length // 4) * 4
        if name in found:
            found[name] = [v for v in values if v]
        if at >= len(raw):
            break
    return found


def _whole(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def _integer(words: Sequence[str]) -> int:
    try:
        found = float(words[0]) if words else 0.0
    except ValueError:
        return 0
    return int(found) if math.isfinite(found) and 0 < found < _CSA_MOST else 0


def _vector(words: Sequence[str]) -> Vector | None:
    try:
        found = [float(word) for word in words]
    except ValueError:
        return None
    whole = len(found) == 3 and abs(math.hypot(*found) - 1) < 1e-2
    return _point(found) if whole else None


def _point(values: Iterable[float]) -> Vector:
    x, y, z = values
    return x, y, z
