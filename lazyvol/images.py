"""What the headers of images say, by keyword: each looked up once."""

from __future__ import annotations

from collections.abc import Sequence

from lazyvol.keywords import INDEX
from lazyvol.records import Slice

__all__ = ["COMPONENTS", "Images", "Label", "component_of", "past_midnight"]

COMPONENTS = ("magnitude", "phase", "real", "imaginary")
_MOST_FRAMES = 1 << 24
"""No file has more frames."""
Label = float | str


def component_of(part: Slice) -> str | None:
    """Return magnitude, phase, real or imaginary, if the header says (PS3.3 C.8.13.3.1.1, C.8.3.1.1.1)."""
    words = [str(part.values.get("ComplexImageComponent", "")), *part.image_type[2:]]
    for word in words:
        for name in COMPONENTS:
            letter = name[0].upper()
            if word in {letter, name.upper(), f"{name.upper()} MAP"} or word.startswith(f"{letter}_"):
                return name
    return None


class Images:
    """The header values of images by keyword, each looked up once."""

    def __init__(self, parts: Sequence[Slice]) -> None:
        self._parts = parts
        self._tables = [part.values for part in parts]
        self._found: dict[str, list[Label | None]] = {}
        self.indices = sorted({k for table in self._tables for k in table if k.startswith(INDEX)})

    def values(self, keyword: str) -> list[Label | None]:
        """Return the value of each image; None where it has none, or several."""
        if keyword not in self._found:
            self._found[keyword] = self._look_up(keyword)
        return self._found[keyword]

    def _look_up(self, keyword: str) -> list[Label | None]:
        if keyword == "component":
            return [component_of(p) for p in self._parts]
        if keyword == "InstanceNumber":
            return [_place_in_series(p) for p in self._parts]
        if keyword == "AcquisitionTime":
            return list(past_midnight([p.acquisition_time for p in self._parts]))
        found = (table.get(keyword) for table in self._tables)
        return [v if isinstance(v, int | float | str) else None for v in found]

    def numeric(self) -> list[str]:
        """Return the keywords of all numbers that images have."""
        return sorted({k for t in self._tables for k, v in t.items() if isinstance(v, int | float) and INDEX not in k})


def _place_in_series(part: Slice) -> int | None:
    """Return InstanceNumber, or for frames of one file what counts them within and across files."""
    if len(part.instance.frames) == 1 or "InstanceNumber" in part.values:
        return part.number
    return (part.instance.number or 0) * _MOST_FRAMES + part.frame.index


def past_midnight(times: Sequence[float | None]) -> list[float | None]:
    """Return acquisition times, in s, so that those without a date follow each other past midnight."""
    known = [t for t in times if t is not None]
    if not known or max(known) >= 86400 or max(known) - min(known) < 43200:
        return list(times)
    return [None if t is None else t + 86400 if t < 43200 else t for t in times]
