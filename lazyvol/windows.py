"""Windows: which values a picture shows from black to white."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.convention import require_volume
from lazyvol.errors import PlotError

__all__ = ["WINDOWS", "Greys", "Window", "greys_of", "windows_of"]

Window = str | tuple[float, float] | None
Array = npt.NDArray[Any]
Named = dict[str, tuple[float, float]]

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

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_SIGMOID_REACH = 2.0
"""A sigmoid is drawn this many widths to both sides of its centre, where 0.03 % are left to black and white."""
_STEP = 0.01
"""Width of the edge from black to white that a LINEAR window of width 1 is; single precision still tells its ends."""


@dataclass(frozen=True, slots=True)
class Greys:
    """How values become grey."""

    low: float
    """What is shown black; white for MONOCHROME1."""
    high: float
    """What is shown white."""
    sigmoid: tuple[float, float] | None = None
    """Centre and width of the sigmoid between the two; None where it is linear."""

    @property
    def ticks(self) -> tuple[float, ...] | None:
        """Values that the bar of a sigmoid names, since it is crowded at its ends; None leaves it to matplotlib."""
        if self.sigmoid is None:
            return None
        centre, width = self.sigmoid
        return tuple(centre + width * part for part in (-1, -0.5, 0, 0.5, 1))


def windows_of(volume: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Return the windows that a volume can be shown with, by name; no pixel is read.

    They are for `plot_slices`, and never change a value.

    Parameters
    ----------
    volume
        A volume of lazyvol, or a part of one.

    Returns
    -------
    dict
        Centre and width of each window, in units of the volume. First those of the header in its
        order, by WindowCenterWidthExplanation; without a name they are ``"0"``, ``"1"`` and so on,
        and a name that repeats gets ``"-2"``, ``"-3"``. Then the presets of `WINDOWS`, if the
        units are HU, less those whose name the header has. Windows of the header that vary along
        a dimension are those of a slice: select one, ``windows_of(volume.isel(z=5))``. A colour
        volume has none.

    Raises
    ------
    OptionError
        If it is no DataArray.

    Notes
    -----
    DICOM PS3.3 C.11.2.1.2. A window whose width the standard forbids is left out.

    Examples
    --------
    >>> import lazyvol
    >>> lazyvol.windows_of(lazyvol.open_volume(getfixture("chest_folder")))["SOFT TISSUE"]
    (40.0, 400.0)
    """
    require_volume(volume)
    if "sample" in volume.dims:
        return {}
    header = _header_windows(volume)
    presets = WINDOWS if volume.attrs.get("units") == "HU" else {}
    return header | {name: pair for name, pair in presets.items() if name not in header}


def greys_of(volume: xr.DataArray, window: Window, values: Array) -> Greys:
    """Return how a window shows the values of a volume (DICOM PS3.3 C.11.2).

    LINEAR reaches from centre - 0.5 - (width - 1) / 2 to centre - 0.5 + (width - 1) / 2,
    LINEAR_EXACT from centre - width / 2 to centre + width / 2, and SIGMOID has 12 % and 88 % grey
    there. Windows of the header follow its VOILUTFunction; without, and for others, integers are
    LINEAR and floating point LINEAR_EXACT.

    Parameters
    ----------
    volume
        Gives the windows and the function of its header, its units and its dtype.
    window
        A name of `windows_of`, (centre, width), or None for the header's first window.
    values
        What is shown: without any window, its 1st and 99th percentiles are black and white.

    Raises
    ------
    PlotError
        If no window has that name, or the width is not positive.
    """
    header = _header_windows(volume)
    if window is None and not header:
        return _percentiles(values)
    name = next(iter(header)) if window is None else window
    if not isinstance(name, str):
        return _linear(volume, *_pair(name), _usual_function(volume))
    named = windows_of(volume)
    if name not in named:
        raise PlotError(_unknown(volume, name, named))
    centre, width = named[name]
    function = _function(volume) if name in header else _usual_function(volume)
    if function == "SIGMOID":
        reach = _SIGMOID_REACH * width
        return Greys(centre - reach, centre + reach, (centre, width))
    return _linear(volume, centre, width, function)


def _unknown(volume: xr.DataArray, name: str, named: Iterable[str]) -> str:
    """Return the message on a window that the volume does not have."""
    known = ", ".join(map(repr, named))
    wrong = f"there is no window {name!r}"
    if name in WINDOWS:
        units = f"of the volume are in {volume.attrs['units']}" if volume.attrs.get("units") else "have no units"
        wrong = f'the window {name!r} is in HU, and the values {units} (attrs["units"])'
    varying = {str(d) for n in ("window_center", "window_width") for d in _dims(volume, n)}
    remedy = f" Those of the header vary along {', '.join(sorted(varying))}: select first." if varying else ""
    return f"{wrong}. {f'Known are {known}' if known else 'The volume has none'}; or give (centre, width).{remedy}"


def _dims(volume: xr.DataArray, coordinate: str) -> tuple[Any, ...]:
    return volume.coords[coordinate].dims if coordinate in volume.coords else ()


def _linear(volume: xr.DataArray, centre: float, width: float, function: str) -> Greys:
    if not width > 0:
        raise PlotError(f"the width of a window must be above 0, not {width:g}.")
    if function == "LINEAR_EXACT":
        return Greys(centre - width / 2, centre + width / 2)
    if width < 1:
        raise PlotError(
            f"the width of a window of {volume.dtype} must be at least 1, not {width:g}; of floating point it may be "
            "smaller."
        )
    low = centre - 0.5 - (width - 1) / 2
    return Greys(low, low + max(width - 1, _STEP))


def _usual_function(volume: xr.DataArray) -> str:
    return "LINEAR_EXACT" if volume.dtype.kind == "f" else "LINEAR"


def _function(volume: xr.DataArray) -> str:
    """Return the function of the header's windows (VOILUTFunction, DICOM PS3.3 C.11.2.1.3)."""
    found = [str(v) for v in _listed(volume, "VOILUTFunction", "voilut_function")]
    return found[0] if found and found[0] in _FUNCTIONS else _usual_function(volume)


def _pair(window: Any) -> tuple[float, float]:
    try:
        centre, width = (float(v) for v in window)
    except (TypeError, ValueError):
        centre, width = np.nan, np.nan
    if not (np.isfinite(centre) and np.isfinite(width)):
        raise PlotError(f"window={window!r} is neither a name nor (centre, width).")
    return centre, width


def _header_windows(volume: xr.DataArray) -> Named:
    """Return the windows of the header by name, in its order."""
    centres = _numbers(_listed(volume, "WindowCenter", "window_center"))
    widths = _numbers(_listed(volume, "WindowWidth", "window_width"))
    names = _listed(volume, "WindowCenterWidthExplanation", "window_center_width_explanation")
    pairs = list(zip(centres, widths, strict=False))
    if len(names) != len(pairs):
        names = [""] * len(pairs)  # which window each name means is not known
    linear = _function(volume) == "LINEAR"
    found: Named = {}
    for number, (name, (centre, width)) in enumerate(zip(names, pairs, strict=True)):
        if np.isfinite(centre) and (width >= 1 if linear else width > 0):
            found[_free(str(name).strip() or str(number), found)] = centre, width
    return found


def _free(name: str, taken: Named) -> str:
    """Return the name, with a number if it is taken."""
    if name not in taken:
        return name
    return next(n for n in (f"{name}-{k}" for k in range(2, len(taken) + 3)) if n not in taken)


def _listed(volume: xr.DataArray, attribute: str, coordinate: str) -> list[Any]:
    """Return what the images of a volume share: of an attribute, or of a coordinate that is one value here."""
    value = volume.attrs.get(attribute)
    if value is None and coordinate in volume.coords:
        each = volume.coords[coordinate].values.ravel()
        value = each[0] if each.size and (each == each[0]).all() else None
    if isinstance(value, str) and "\\" in value:
        return value.split("\\")  # several values of one image stand in a coordinate as DICOM writes them
    return [] if value is None else list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _numbers(values: Iterable[Any]) -> list[float]:
    """Return values as numbers, NaN for what is none."""
    found = []
    for value in values:
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            found.append(np.nan)
    return found


def _percentiles(values: Array) -> Greys:
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return Greys(0.0, 1.0)
    low, high = np.percentile(finite, [1, 99])
    return Greys(float(low), float(high if high > low else low + 1))
