"""The makers' own elements that an Instance is made of, and what a header must say for each to count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["GROUPS", "MOSAIC", "PET", "PHILIPS_SCALE", "UIH_TILES", "Maker", "blocks_wanted"]


class Maker(NamedTuple):
    """One private element (DICOM PS3.5 section 7.8.1)."""

    group: int
    """Its group, which is odd."""

    creator: str
    """What reserves its block."""

    element: int
    """Its last two digits, within the block."""

    name: str
    """What it goes by here."""


MOSAIC = (
    Maker(0x0019, "SIEMENS MR HEADER", 0x0A, "NumberOfImagesInMosaic"),
    Maker(0x0029, "SIEMENS CSA HEADER", 0x10, "CSAImageHeaderInfo"),
    Maker(0x0065, "Image Private Header", 0x50, "NumberOfSlicesInVolume"),
)
"""How the tiles of a sheet are laid out."""
UIH_TILES = Maker(0x0065, "Image Private Header", 0x51, "MRVFrameSequence")
"""The tiles of a sheet of United Imaging."""
PET = (
    Maker(0x0009, "GEMS_PETD_01", 0x0D, "GEScanDateTime"),
    Maker(0x0071, "SIEMENS MED PT", 0x22, "SiemensDecayCorrectionDateTime"),
    Maker(0x7053, "Philips PET Private Group", 0x00, "PhilipsSUVScaleFactor"),
    Maker(0x7053, "Philips PET Private Group", 0x09, "PhilipsActivityScaleFactor"),
)
"""Times and scales of PET."""
PHILIPS_SCALE = Maker(0x2005, "Philips MR Imaging DD 001", 0x0E, "PhilipsScaleSlope")
"""Scale of the floating point values of Philips MR."""

GROUPS = frozenset({m.group for m in (*MOSAIC, UIH_TILES, *PET, PHILIPS_SCALE)})
"""Groups in which any of these lie."""


def blocks_wanted(modality: bytes, image_type: bytes) -> Mapping[int, Mapping[bytes, frozenset[int]]]:
    """Return which elements are wanted of a header, by group and creator; nothing of most headers."""
    makers = [PHILIPS_SCALE] * (modality.strip(b" \0") == b"MR") + [*PET] * (modality.strip(b" \0") == b"PT")
    if b"MOSAIC" in image_type or b"VFRAME" in image_type:
        makers += [*MOSAIC, UIH_TILES]
    wanted: dict[int, dict[bytes, frozenset[int]]] = {}
    for maker in makers:
        of_group = wanted.setdefault(maker.group, {})
        creator = maker.creator.encode()
        of_group[creator] = of_group.get(creator, frozenset()) | {maker.element}
    return wanted
