"""Windows: which values a picture shows from black to white."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.errors import PlotError

__all__ = ["WINDOWS", "Window", "window_limits"]

Window = str | tuple[float, float] | None
Array = npt.NDArray[Any]

WINDOWS: Final = MappingProxyType(
    {
        "bone": (480.0, 2500.0),
        "brain": (40.0, 80.0),
        "liver": (90.0, 150.0),
        "lung": (-600.0, 1500.0),
        "soft-tissue": (40.0, 400.0),
    }
)
"""Centre and width in HU of the usual CT windows, as the OHIF viewer has them."""


def window_limits(volume: xr.DataArray, window: Window, values: Array | None = None) -> tuple[float, float]:
    """Return the values that are shown black and white (DICOM PS3.3 C.11.2).

    For integers LINEAR, centre - 0.5 plus and minus (width - 1) / 2; for floating point
    LINEAR_EXACT, centre plus and minus width / 2.

    Parameters
    ----------
    volume
        Gives the windows of its header, and its dtype.
    window
        A name of `WINDOWS` or of the header, (centre, width), or None for the header's first window.
    values
        What is shown: without any window, its 1st and 99th percentiles are the limits.

    Raises
    ------
    PlotError
        If no window has that name, or the width is not positive.
    """
    named = {**WINDOWS, **_header_windows(volume)}
    if isinstance(window, str):
        if window not in named:
            raise PlotError(
                f"there is no window {window!r}. Known are {', '.join(map(repr, sorted(named)))}; or give "
                "(centre, width)."
            )
        centre, width = named[window]
    elif window is not None:
        centre, width = _pair(window)
    elif _header_windows(volume):
        centre, width = next(iter(_header_windows(volume).values()))
    else:
        return _percentiles(values)
    if volume.dtype.kind == "f":
        if not width > 0:
            raise PlotError(f"the width of a window must be above 0, not {width:g}.")
        return centre - width / 2, centre + width / 2
    if not width >= 1:
        raise PlotError(
            f"the width of a window of {volume.dtype} must be at least 1, not {width:g}; of floating point it may be "
            "smaller."
        )
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _pair(window: Any) -> tuple[float, float]:
    try:
        centre, width = (float(v) for v in window)
    except (TypeError, ValueError):
        centre, width = np.nan, np.nan
    if not (np.isfinite(centre) and np.isfinite(width)):
        raise PlotError(f"window={window!r} is neither a name nor (centre, width).")
    return centre, width


def _header_windows(volume: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Return the windows of the header by name; without names they are called "0", "1", ..."""
    found = [_listed(volume, *names) for names in (("WindowCenter", "window_center"), ("WindowWidth", "window_width"))]
    names = _listed(volume, "WindowCenterWidthExplanation", "")
    least = np.nextafter(0, 1) if volume.dtype.kind == "f" else 1
    pairs = [
        (c, w)
        for c, w in zip(*found, strict=False)
        if isinstance(c, int | float) and isinstance(w, int | float) and w >= least
    ]
    if len(names) != len(pairs):
        names = [str(n) for n in range(len(pairs))]
    return {str(name): (float(c), float(w)) for name, (c, w) in zip(names, pairs, strict=True)}


def _listed(volume: xr.DataArray, attribute: str, coordinate: str) -> list[Any]:
    value = volume.attrs.get(attribute)
    if value is None and coordinate in volume.coords and volume.coords[coordinate].ndim == 0:
        value = volume.coords[coordinate].item()
    return [] if value is None else list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _percentiles(values: Array | None) -> tuple[float, float]:
    finite = np.asarray(values if values is not None else [0.0], dtype=float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, [1, 99])
    return float(low), float(high if high > low else low + 1)
