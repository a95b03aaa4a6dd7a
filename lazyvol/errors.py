"""Everything that lazyvol raises on purpose, and the findings that it reports instead of raising."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = [
    "CODES",
    "DicomReadError",
    "Finding",
    "FindingError",
    "GeometryError",
    "HeaderUnavailableError",
    "IncompleteStoreError",
    "LazyvolError",
    "LazyvolWarning",
    "NoImagesError",
    "OptionError",
    "OutsideVolumeError",
    "PixelRangeError",
    "PixelReadError",
    "PlotError",
    "SeriesChoiceError",
    "SourceNotFoundError",
    "StoreError",
    "SuvError",
    "UnsupportedSeriesError",
]

Severity = Literal["info", "warning", "error"]


class LazyvolError(Exception):
    """Base of every error that lazyvol raises on purpose."""


class SourceNotFoundError(LazyvolError, FileNotFoundError):
    """A path that does not exist."""


class NoImagesError(LazyvolError, ValueError):
    """A folder or list that holds no image which lazyvol can read."""


class DicomReadError(LazyvolError, ValueError):
    """A file that is not DICOM, or whose header cannot be read."""


class SeriesChoiceError(LazyvolError, LookupError):
    """More than one series, or none, fits what was asked for."""


class UnsupportedSeriesError(LazyvolError, ValueError):
    """A series that lazyvol recognises and cannot open as a volume."""


class GeometryError(LazyvolError, ValueError):
    """A geometry that is unknown, uneven or mixed where a regular grid is needed."""


class FindingError(LazyvolError, ValueError):
    """A finding from warning up, with ``strict=True`` or an argument that forbids it."""


class OptionError(LazyvolError, ValueError):
    """An argument that cannot be what it is."""


class PixelReadError(LazyvolError, ValueError):
    """Pixels that are missing, short or cannot be decoded."""


class PixelRangeError(LazyvolError, ValueError):
    """A value that the dtype of the volume cannot hold."""


class OutsideVolumeError(LazyvolError, ValueError):
    """A position in mm outside the field of view."""


class PlotError(LazyvolError, ValueError):
    """A plot that cannot be drawn as asked."""


class StoreError(LazyvolError, ValueError):
    """A Zarr store that cannot be written, or that lazyvol did not write."""


class SuvError(LazyvolError, ValueError):
    """Values that cannot be made standardised uptake values."""


class HeaderUnavailableError(LazyvolError, LookupError):
    """A header that the volume cannot lead back to."""


class IncompleteStoreError(StoreError):
    """A Zarr store whose writing was not finished."""


class LazyvolWarning(UserWarning):
    """Something that was mended while pixels were read."""


CODES: Final = MappingProxyType(
    {
        "axis-from-instance-number": "warning",
        "copies-dropped": "info",
        "different-copies": "warning",
        "duplicates-differ": "warning",
        "fill-on-error": "info",
        "files-unreadable": "warning",
        "frame-count-wrong": "warning",
        "frames-filled": "warning",
        "frame-of-reference-varies": "info",
        "geometry-unknown": "warning",
        "incomplete-grid": "warning",
        "malformed-value": "warning",
        "missing-slices": "warning",
        "offset-table-wrong": "warning",
        "order-from-frame-number": "warning",
        "order-from-instance-number": "warning",
        "order-from-names": "warning",
        "orientation-unknown": "warning",
        "pixel-spacing-unknown": "warning",
        "pixels-truncated": "error",
        "several-per-position": "error",
        "several-stacks": "warning",
        "slices-off-line": "error",
        "spacing-guessed": "warning",
        "spacing-unknown": "warning",
        "tilted": "info",
        "uneven-spacing": "warning",
        "units-unknown": "warning",
    }
)
"""Each code of a finding with its severity; docs/findings.md explains them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd about a series, said without stopping."""

    code: str
    """Short name of the kind, a key of `CODES`."""

    severity: Severity
    """``info`` for facts, ``warning`` for what may mislead, ``error`` for what is wrong."""

    message: str
    """What was found, with values, and what can be done."""

    slices: tuple[int, ...] = ()
    """Slice indices along z that it concerns, ascending."""

    files: tuple[str, ...] = ()
    """Paths that it concerns; not kept in a volume's attrs or in a store."""

    values: tuple[float | str, ...] = ()
    """The values found, in the order of the message."""

    def to_json(self) -> str:
        """Return the finding as one line of JSON, without files."""
        content = {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "slices": list(self.slices),
            "values": list(self.values),
        }
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Finding:
        """Return the finding that `to_json` made ``line`` of."""
        content = json.loads(line)
        return cls(
            code=content["code"],
            severity=content["severity"],
            message=content["message"],
            slices=tuple(content.get("slices", ())),
            values=tuple(content.get("values", ())),
        )

    def __str__(self) -> str:
        return f"{self.severity}: {self.code}: {self.message}"


def finding(
    code: str,
    message: str,
    *,
    slices: tuple[int, ...] = (),
    files: tuple[str, ...] = (),
    values: tuple[float | str, ...] = (),
) -> Finding:
    """Return a `Finding` with the severity that `CODES` gives to ``code``."""
    severity: Severity = CODES[code]  # type: ignore[assignment]  # the mapping holds severities only
    return Finding(code, severity, message, slices, files, values)
