"""PET as standardised uptake values (SUV), lazily."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.chunks import chunked
from lazyvol.convention import require_volume
from lazyvol.errors import OptionError, SuvError
from lazyvol.keywords import PET_UNITS
from lazyvol.uptake import KINDS, Kind

__all__ = ["to_suv"]

_BODIES = {"bw": "weight in g", "lbm": "lean body mass in g", "bsa": "body surface area in cm2"}
_NAMES = {f"SUV{kind}": kind for kind in KINDS}
_OF_OLD_UNITS = {"RescaleType", "WindowCenter", "WindowCenterWidthExplanation", "WindowWidth"}
_COORDINATES_OF_OLD_UNITS = ("window_center", "window_center_width_explanation", "window_width")


def to_suv(volume: xr.DataArray, kind: Kind = "bw") -> xr.DataArray:
    """Return a PET volume as standardised uptake values, reading nothing.

    By the vendor-neutral rules of QIBA: values in Bq/ml times the body, divided by what was left of the
    dose at the time to which the values are decay corrected. The factor was computed when the series
    was opened, and is in the attributes: it comes with a store, too.

    Parameters
    ----------
    volume
        A PET volume of `open_volume` or `open_zarr`, or a part of one: Units BQML; CNTS with the scale
        factors of Philips; or GML and CM2ML, which are SUV already.
    kind
        The body is: ``"bw"`` the weight; ``"lbm"`` the lean body mass by James with the multiplier 120 for
        men, 1.10 W - 120 (W / H)^2, and for women 1.07 W - 148 (W / H)^2, W in kg and H in cm (SUVType LBM;
        LBMJAMES128 has 128, some 2 to 4 % less for men); ``"bsa"`` the surface by Du Bois,
        0.007184 W^0.425 H^0.725 m2.

    Returns
    -------
    xarray.DataArray
        float32 in g/ml, or cm2/ml for ``"bsa"``; dimensions, findings and coordinates of the volume, without
        the windows of the header, which are in other units. On dask, unless the volume is in memory.

    Raises
    ------
    SuvError
        If it is not PET, is SUV already, is not in the units of its header, or the header lacks a value or
        has an implausible one; names each.
    OptionError
        If ``kind`` is none of these.

    Notes
    -----
    The time of decay correction (DICOM PS3.3 C.8.9.1, C.8.22.2) is DecayCorrectionDateTime; with ADMIN the
    injection; with START the SeriesTime unless it is after the first AcquisitionTime, then the start of the scan
    in the private elements of GE and Siemens, else what AcquisitionTime, FrameReferenceTime and
    ActualFrameDuration say. The formulae are those of QIBA (qibawiki.rsna.org, Standardized Uptake Value)
    and of PS3.16 CID 85.

    Examples
    --------
    >>> import lazyvol
    >>> pet = lazyvol.open_volume(getfixture("pet_folder"))
    >>> suv = lazyvol.to_suv(pet)
    >>> suv.attrs["long_name"], suv.attrs["units"], suv.dtype
    ('SUVbw', 'g/ml', dtype('float32'))
    """
    require_volume(volume)
    if kind not in tuple(KINDS):
        raise OptionError(f"kind={kind!r} can be {', '.join(map(repr, KINDS))}.")
    _require_pet(volume)
    factor = _factor(volume, kind)
    if volume.chunks is None and not isinstance(volume.variable._data, np.ndarray):  # its .data would read all
        volume = chunked(volume, "auto")
    lazy: Any = volume.data
    if volume.chunks is None:
        values = _scaled(lazy, factor)
    else:
        values = lazy.map_blocks(_scaled, factor, dtype=np.float32, meta=np.empty((0,) * lazy.ndim, np.float32))
    suv = volume.copy(deep=False, data=values).drop_vars(_COORDINATES_OF_OLD_UNITS, errors="ignore")
    suv.attrs = _attrs(volume, kind)
    return suv


def _scaled(values: npt.NDArray[Any], factor: float) -> npt.NDArray[np.float32]:
    """Return values times a factor, rounded once."""
    scaled: npt.NDArray[np.float32] = np.multiply(values, factor, dtype=np.float64).astype(np.float32)
    return scaled


def _attrs(volume: xr.DataArray, kind: Kind) -> dict[str, Any]:
    kept = {k: v for k, v in volume.attrs.items() if not str(k).startswith("suv_") and k not in _OF_OLD_UNITS}
    said = {"Units": "CM2ML" if kind == "bsa" else "GML"}
    return kept | {"long_name": f"SUV{kind}", "units": KINDS[kind]} | said


def _require_pet(volume: xr.DataArray) -> None:
    """Raise unless the values are those of a PET series in the units of its header."""
    name, modality = volume.attrs.get("long_name", ""), volume.attrs.get("Modality", "unknown")
    if name in _NAMES:
        raise SuvError(f"the volume is {name} in {KINDS[_NAMES[name]]} already. Take the one that it was made of.")
    if modality != "PT":
        raise SuvError(f"only PET has uptake values, and the Modality of this volume is {modality}, not PT.")
    said, units = volume.attrs.get("Units", ""), volume.attrs.get("units", "")
    expected = PET_UNITS.get(said, said)
    if said and units != expected:
        raise SuvError(
            f"the values of the volume are in {units or 'no known units'}, not in {expected or 'those'} of its Units "
            f"{said}. Open the series without options that change what the values are."
        )


def _factor(volume: xr.DataArray, kind: Kind) -> float:
    """Return the factor that the volume carries; raise with all that hinders if it has none."""
    factor, problems = volume.attrs.get(f"suv_{kind}_factor"), volume.attrs.get(f"suv_{kind}_problems", [])
    if isinstance(factor, int | float | np.number) and np.isfinite(factor):
        return float(factor)
    if len(problems) == 0:
        raise SuvError(
            f"the volume does not carry the factor suv_{kind}_factor: its attributes were dropped, or it was joined of "
            "series with different factors. Convert what open_volume or open_zarr returns, before anything else."
        )
    lines = "".join(f"\n  {p}" for p in ([problems] if isinstance(problems, str) else problems))
    raise SuvError(
        f"SUV{kind} cannot be computed from the header:{lines}\n"
        f"If you know better, convert by hand: volume * ({_BODIES[kind]}) / (dose in Bq that was left at the time to "
        "which the values in Bq/ml are decay corrected)."
    )
