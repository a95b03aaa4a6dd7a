"""From what PET headers say of dose and body to factors of standardised uptake values (SUV).

The rules are those of the vendor-neutral pseudo-code of QIBA (qibawiki.rsna.org, Standardized Uptake
Value); names of units and kinds are those of DICOM PS3.3 C.8.9.1 and PS3.16 CID 85. A value that is
absent or implausible is named, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal

__all__ = ["KINDS", "Factor", "Kind", "Uptake", "lean_mass", "suv_factor", "surface"]

Kind = Literal["bw", "lbm", "bsa"]
KINDS: Final[dict[Kind, str]] = {"bw": "g/ml", "lbm": "g/ml", "bsa": "cm2/ml"}
"""Each kind of SUV with its units."""

HALF_LIVES: Final = {
    "11C": 1222.0,
    "13N": 598.0,
    "15O": 122.2,
    "18F": 6586.0,
    "64Cu": 45721.0,
    "68Ga": 4063.0,
    "82Rb": 75.5,
    "86Y": 53064.0,
    "89Zr": 282276.0,
    "124I": 360806.0,
}
"""Half lives of usual nuclides of PET, s (nndc.bnl.gov/nudat3)."""

_WEIGHTS, _SIZES = (0.5, 500.0), (0.2, 2.5)
_DOSES, _LIVES = (1e6, 1e11), (30.0, 1e8)
_MOST_HALF_LIVES = 10.0
"""After so many of them less than a thousandth of the dose is left."""
_EARLY = 120.0
"""A dynamic scan may begin so long before the injection, s; the formula holds there too."""
_LONG_LIVED = 43200.0
"""A nuclide of a longer half life, s, may be injected days before the scan."""
_LEAST_LEAN = 0.3
"""Below this fraction of the weight the formula of lean body mass has broken down, as it does in obesity."""
_SAME_CLOCK = 60.0
_SAME_START = 1.0
"""Series and first acquisition may begin at one time by two clocks that differ by so much, s."""
_SUV_TYPES = frozenset({"BSA", "BW", "IBW", "LBM", "LBMJAMES128", "LBMJANMA"})
_HELD: Final[dict[tuple[str, str], Kind]] = {
    ("GML", ""): "bw",
    ("GML", "BW"): "bw",
    ("GML", "LBM"): "lbm",
    ("CM2ML", ""): "bsa",
    ("CM2ML", "BSA"): "bsa",
}
"""Which kind of SUV the values are already, by Units and SUVType (PS3.3 C.8.9.1)."""

_OF_ALL = {
    "units": "Units",
    "suv_type": "SUVType",
    "corrected": "CorrectedImage",
    "suv_scale": "the SUV scale factor of Philips (7053,xx00)",
    "activity_scale": "the activity scale factor of Philips (7053,xx09)",
    "weight": "PatientWeight",
    "size": "PatientSize",
    "lean": "PatientSex",
}
_OF_DOSE = {
    "decay_correction": "DecayCorrection",
    "tracers": "the number of items of RadiopharmaceuticalInformationSequence",
    "dose": "RadionuclideTotalDose",
    "half_life": "RadionuclideHalfLife",
    "reference": "the time from the injection to DecayCorrectionDateTime",
    "series": "the time from the injection to SeriesTime",
    "makers_scan": "the time from the injection to the maker's start of the scan",
}
"""Fields in which all images agree, and what these are called."""


@dataclass(frozen=True, slots=True)
class Uptake:
    """What a PET header says of dose and body; no date, sex or age. Times are seconds since the injection."""

    units: str = ""
    """Units, e.g. ``BQML``."""

    suv_type: str = ""
    """SUVType, for values that are SUV already."""

    corrected: tuple[str, ...] = ()
    """CorrectedImage."""

    decay_correction: str = ""
    """DecayCorrection: ``START``, ``ADMIN`` or ``NONE``."""

    tracers: int = 0
    """Items of RadiopharmaceuticalInformationSequence."""

    nuclide: str = ""
    """One of `HALF_LIVES`, or empty."""

    dose: float | None = field(default=None, repr=False)
    """RadionuclideTotalDose, Bq at the injection."""

    half_life: float | None = None
    """RadionuclideHalfLife, s."""

    injected: bool = False
    """Whether the header says when the dose was injected."""

    dated: bool = True
    """Whether it says on which day, too."""

    clocks: float = 0.0
    """How far the two elements that say when it was injected are apart in the time of day, s."""

    reference: float | None = field(default=None, repr=False)
    """DecayCorrectionDateTime: to when the values are corrected."""

    series: float | None = field(default=None, repr=False)
    """SeriesDate and SeriesTime."""

    acquired: float | None = field(default=None, repr=False)
    """When the acquisition of this image began."""

    makers_scan: float | None = field(default=None, repr=False)
    """When the scan began by the private elements of GE or Siemens."""

    frame_reference: float | None = field(default=None, repr=False)
    """FrameReferenceTime, s since the scan began."""

    frame_duration: float | None = field(default=None, repr=False)
    """ActualFrameDuration, s."""

    weight: float | None = field(default=None, repr=False)
    """PatientWeight, kg."""

    size: float | None = field(default=None, repr=False)
    """PatientSize, m."""

    lean: float | None = field(default=None, repr=False)
    """Lean body mass, kg; None where it cannot be computed."""

    suv_scale: float | None = None
    """Philips: from values in counts to SUVbw, g/ml."""

    activity_scale: float | None = None
    """Philips: from values in counts to Bq/ml."""


@dataclass(frozen=True, slots=True)
class Factor:
    """By what the values of a stack are multiplied to be SUV."""

    value: float | None
    """The factor; None where there are problems."""

    problems: tuple[str, ...] = ()
    """What is absent or implausible: keyword, value found, what was expected."""


def lean_mass(weight: float, size: float, *, female: bool) -> float:
    """Return the lean body mass in kg of a weight in kg and a size in m, by James.

    With the multiplier 120 for men, as QIBA and SUVType LBM have it (PS3.16 CID 85; Sugawara et al.,
    Radiology 213, 1999); James (1976) himself has 128, which DICOM calls LBMJAMES128.

    Examples
    --------
    >>> round(lean_mass(75.0, 1.8, female=False), 3), round(lean_mass(60.0, 1.65, female=True), 3)
    (61.667, 44.63)
    """
    factor, multiplier = (1.07, 148.0) if female else (1.10, 120.0)
    return factor * weight - multiplier * (weight / (100 * size)) ** 2


def surface(weight: float, size: float) -> float:
    """Return the body surface area in cm2 of a weight in kg and a size in m, by Du Bois (1916; PS3.16 CID 85).

    Examples
    --------
    >>> round(surface(75.0, 1.8))
    19424
    """
    return float(71.84 * weight**0.425 * (100 * size) ** 0.725)


def suv_factor(uptakes: Sequence[Uptake], kind: Kind) -> Factor:
    """Return the factor from the values of a stack to SUV, or why there is none.

    Parameters
    ----------
    uptakes
        What the headers of its slices say, at least one.
    kind
        ``"bw"`` body weight, ``"lbm"`` lean body mass, ``"bsa"`` body surface area.

    Examples
    --------
    >>> said = {"corrected": ("ATTN", "DECY"), "tracers": 1, "injected": True, "decay_correction": "ADMIN"}
    >>> uptake = Uptake(units="BQML", dose=350e6, half_life=6586.2, weight=70.0, **said)
    >>> suv_factor([uptake], "bw").value
    0.0002
    >>> suv_factor([uptake], "bsa").problems
    ('PatientSize is absent or no number; expected 0.2 to 2.5 m',)
    """
    first = uptakes[0]
    by_dose = _is_by_dose(first)
    problems = [*_varying(uptakes, by_dose=by_dose), *_units_problems(first)]
    problems += _dose_problems(uptakes) if by_dose else ()
    wanted: set[Kind] = {kind} if by_dose else {kind, _held(first)} if kind != _held(first) else set()
    problems += dict.fromkeys(p for k in sorted(wanted) for p in _body_problems(first, k))
    if problems:
        return Factor(None, tuple(problems))
    if by_dose:
        return Factor(_body(first, kind) * (first.activity_scale or 1.0) / _decayed_dose(uptakes))
    scale = first.suv_scale if first.units == "CNTS" else 1.0
    return Factor((scale or 1.0) * (_body(first, kind) / _body(first, _held(first)) if wanted else 1.0))


def _is_by_dose(uptake: Uptake) -> bool:
    """Whether the values are activity, become it, or may be it, so that the dose is needed."""
    return uptake.units in {"", "BQML"} or (uptake.units == "CNTS" and not uptake.suv_scale)


def _held(uptake: Uptake) -> Kind:
    return _HELD.get((uptake.units, uptake.suv_type), "bw")


def _varying(uptakes: Sequence[Uptake], *, by_dose: bool) -> Iterator[str]:
    """Name what the images of one series cannot disagree about."""
    names = _OF_ALL | _OF_DOSE if by_dose else _OF_ALL
    found = [name for name in names if len({getattr(u, name) for u in uptakes}) > 1]
    if {"weight", "size"} & set(found):
        found = [name for name in found if name != "lean"]  # it follows from them
    yield from (f"{names[name]} differs between the images; one value was expected" for name in found)


def _units_problems(uptake: Uptake) -> Iterator[str]:
    expected = "expected BQML, CNTS of Philips, GML or CM2ML"
    if not uptake.units:
        yield f"Units is absent; {expected}"
    elif uptake.units not in {"BQML", "CNTS", "GML", "CM2ML"}:
        yield f"Units is {uptake.units[:16]}; {expected}"
    elif uptake.units == "CNTS" and not (uptake.suv_scale or uptake.activity_scale):
        yield "Units is CNTS, and neither (7053,xx00) nor (7053,xx09) of Philips is there to scale the counts"
    elif uptake.units in {"GML", "CM2ML"} and (uptake.units, uptake.suv_type) not in _HELD:
        said = uptake.suv_type if uptake.suv_type in _SUV_TYPES else "unknown"
        yield (
            f"SUVType is {said} with Units {uptake.units}, so the values are SUV of another kind already; expected BW "
            "or LBM with GML, BSA with CM2ML"
        )
    lacking = [word for word in ("ATTN", "DECY") if word not in uptake.corrected]
    if lacking:
        yield f"CorrectedImage lacks {' and '.join(lacking)}; expected attenuation (ATTN) and decay (DECY) corrected"


def _outside(keyword: str, value: float | None, limits: tuple[float, float], units: str, hint: str = "") -> list[str]:
    """Name a number that is absent, or outside what is plausible; problems go into stores, so they never repeat it."""
    low, high = limits
    expected = f"expected {low:g} to {high:g} {units}"
    if value is None:
        return [f"{keyword} is absent or no number; {expected}"]
    said = f"0 {units}" if not value else f"below {low:g} {units}" if value < low else f"above {high:g} {units}"
    return [] if low <= value <= high else [f"{keyword} is {said}; {expected}{hint}"]


def _body_problems(uptake: Uptake, kind: Kind) -> list[str]:
    found = _outside("PatientWeight", uptake.weight, _WEIGHTS, "kg", " (is it in g?)" * ((uptake.weight or 0) > 500))
    if kind == "bw":
        return found
    found += _outside("PatientSize", uptake.size, _SIZES, "m", " (is it in cm?)" * ((uptake.size or 0) > 20))
    if found or kind == "bsa":
        return found
    if uptake.lean is None:
        return ["PatientSex is absent or does not choose a formula of lean body mass; expected M or F"]
    if uptake.lean < _LEAST_LEAN * (uptake.weight or 0):
        return [
            f"PatientWeight and PatientSize give a lean body mass below {_LEAST_LEAN:.0%} of the weight (the formula "
            "of James fails for the very obese)"
        ]
    return []


def _body(uptake: Uptake, kind: Kind) -> float:
    """Return what stands for the body: weight or lean mass in g, or surface in cm2."""
    weight, size, lean = uptake.weight or 0.0, uptake.size or 0.0, uptake.lean or 0.0
    return surface(weight, size) if kind == "bsa" else 1000.0 * (lean if kind == "lbm" else weight)


def _dose_problems(uptakes: Sequence[Uptake]) -> list[str]:
    """Name what hinders to say how much of the dose was left."""
    first = uptakes[0]
    if not first.tracers:
        return ["RadiopharmaceuticalInformationSequence is absent from the top level of the header; expected 1 item"]
    if first.tracers > 1:
        return [f"RadiopharmaceuticalInformationSequence has {first.tracers} items; expected 1"]
    mega = " (is it in MBq?)" * (0 < (first.dose or 0) < 1e5)
    problems = _outside("RadionuclideTotalDose", first.dose, _DOSES, "Bq", mega)
    problems += _half_life_problems(first)
    if first.decay_correction == "ADMIN":
        return problems
    if first.decay_correction == "NONE" or (first.decay_correction != "START" and first.reference is None):
        said = "NONE" if first.decay_correction == "NONE" else "absent or unknown"
        return [*problems, f"DecayCorrection is {said}; expected START or ADMIN"]
    problems += _injection_problems(first)
    return problems or _time_problems(uptakes)


def _half_life_problems(uptake: Uptake) -> list[str]:
    known = HALF_LIVES.get(uptake.nuclide)
    found = _outside("RadionuclideHalfLife", uptake.half_life, _LIVES, "s")
    if found or known is None or uptake.half_life is None or abs(uptake.half_life / known - 1) < 0.05:
        return found
    return [f"RadionuclideHalfLife is {uptake.half_life:g} s; expected about {known:g} s for {uptake.nuclide}"]


def _injection_problems(uptake: Uptake) -> list[str]:
    start = "RadiopharmaceuticalStartDateTime"
    if not uptake.injected:
        return [f"{start} and RadiopharmaceuticalStartTime are absent or no times; expected one of them"]
    if not uptake.dated and (uptake.half_life or 0) > _LONG_LIVED:
        return [
            f"{start} is absent, so the day of the injection is not known; it was expected for a half life of "
            f"{uptake.half_life:g} s"
        ]
    if uptake.clocks > _SAME_CLOCK:
        return [f"{start} and RadiopharmaceuticalStartTime are {uptake.clocks:g} s apart; expected one time"]
    return []


def _time_problems(uptakes: Sequence[Uptake]) -> list[str]:
    """Name what is odd about the time between injection and scan."""
    half_life = uptakes[0].half_life or math.nan
    times = _scan_times(uptakes)
    if not times:
        return [
            "to when the values are decay corrected is not known: SeriesTime is absent or after AcquisitionTime, or "
            "this is absent; expected DecayCorrectionDateTime, FrameReferenceTime with ActualFrameDuration and "
            "AcquisitionTime, or the maker's start of the scan"
        ]
    if max(times) - min(times) > 0.01 * half_life:
        return [
            f"FrameReferenceTime and AcquisitionTime put the start of the scan {max(times) - min(times):g} s apart in "
            "different images; expected one start"
        ]
    since = median(times)
    if since < -_EARLY:
        return [f"the injection is {-since:g} s after the start of the scan; expected it before"]
    if since > _MOST_HALF_LIVES * half_life:
        return [
            f"the scan began {since / half_life:.1f} half lives after the injection; expected at most "
            f"{_MOST_HALF_LIVES:g}"
        ]
    return []


def _scan_times(uptakes: Sequence[Uptake]) -> list[float]:
    """Return to when the values are corrected, s since the injection: once, or estimated for each image."""
    first = uptakes[0]
    if first.reference is not None:
        return [first.reference]
    acquired = [u.acquired for u in uptakes if u.acquired is not None]
    if first.series is not None and len(acquired) == len(uptakes) and first.series <= min(acquired) + _SAME_START:
        return [first.series]
    if first.makers_scan is not None:
        return [first.makers_scan]
    estimated = [_estimated_start(u) for u in uptakes]
    known = [t for t in estimated if t is not None]
    return known if len(known) == len(estimated) else []


def _estimated_start(uptake: Uptake) -> float | None:
    """Return when the scan began, by the time of the average count rate within this image's acquisition.

    FrameReferenceTime is the time from the start of the scan to the moment at which the activity is
    the average of the frame: ln(x / (1 - exp(-x))) / decay constant after its begin, with x = decay
    constant times duration.
    """
    reference, duration, half_life = uptake.frame_reference, uptake.frame_duration, uptake.half_life
    if uptake.acquired is None or not half_life or not reference or not duration or min(reference, duration) <= 0:
        return None
    constant = math.log(2) / half_life
    average = math.log(constant * duration / -math.expm1(-constant * duration)) / constant
    return uptake.acquired + average - reference


def _decayed_dose(uptakes: Sequence[Uptake]) -> float:
    """Return what was left of the dose at the time to which the values are corrected, Bq."""
    first = uptakes[0]
    since = 0.0 if first.decay_correction == "ADMIN" else median(_scan_times(uptakes))
    return float((first.dose or 0.0) * 2 ** (-since / (first.half_life or math.nan)))
