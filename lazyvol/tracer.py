"""From the raw elements of a PET header to its `Uptake`: dose, body and times, without dates and sex."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from lazyvol.keywords import UPTAKE
from lazyvol.typed import Reader
from lazyvol.uptake import HALF_LIVES, Uptake, lean_mass

__all__ = ["READ", "uptake_of"]

Item = Mapping[str, bytes]
DAY = 86400.0
_HALF_DAY = DAY / 2
_TIME = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d(?:\.\d{1,6})?))?)?$")
"""A TM (DICOM PS3.5 section 6.2), without colons."""
_DATE_TIME = re.compile(r"(\d{8})(\d{2,6}(?:\.\d{1,6})?)([+-]\d{4})?$")
"""A DT that says the hour."""
_MASS = re.compile(r"(?<!\d)(\d{1,3})(?!\d)")
_ELEMENTS = {
    "carbon": "C",
    "copper": "Cu",
    "fluorine": "F",
    "gallium": "Ga",
    "iodine": "I",
    "nitrogen": "N",
    "oxygen": "O",
    "rubidium": "Rb",
    "yttrium": "Y",
    "zirconium": "Zr",
}
READ = (
    *UPTAKE,
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ActualFrameDuration",
    "DecayCorrection",
    "FrameReferenceTime",
    "Units",
)
"""Keywords of the elements that `uptake_of` reads."""
_MAKERS = ("GEScanDateTime", "SiemensDecayCorrectionDateTime")


class _Clock(NamedTuple):
    """How the times of one header are understood."""

    day: int
    """Day of the series, or else of the acquisition; 0 if the header has no date."""

    zone: float | None
    """TimezoneOffsetFromUTC, s."""

    def at(self, text: str) -> float | None:
        """Return a DT in seconds of the clock of the header; of the time of day if it has no dates."""
        found = _DATE_TIME.match(text)
        day, time = (_day(found[1]), _time(found[2])) if found else (0, None)
        if not found or not day or time is None:
            return None
        own = _zone(found[3] or "")
        shift = self.zone - own if self.zone is not None and own is not None else 0.0
        return day * DAY + time + shift if self.day else (time + shift) % DAY


def uptake_of(values: Item, *, little_endian: bool, tracers: Sequence[Item], private: Item) -> Uptake:
    """Return what a PET header says of dose and body.

    Parameters
    ----------
    values
        Raw values by keyword.
    little_endian
        Their byte order.
    tracers
        Raw values of each item of RadiopharmaceuticalInformationSequence.
    private
        Raw values of the makers' elements, by names of our own.
    """
    reader = Reader(values, little_endian=little_endian)
    item = Reader(tracers[0] if tracers else {}, little_endian=little_endian)
    maker = Reader(private, little_endian=little_endian)
    weight, size = reader.number("PatientWeight"), reader.number("PatientSize")
    return Uptake(
        units=reader.text("Units"),
        suv_type=reader.text("SUVType"),
        corrected=_corrected(reader),
        decay_correction=reader.text("DecayCorrection"),
        tracers=len(tracers),
        nuclide=_nuclide(item.text("Radionuclide")),
        dose=item.number("RadionuclideTotalDose"),
        half_life=item.number("RadionuclideHalfLife"),
        frame_reference=_seconds(reader.number("FrameReferenceTime")),
        frame_duration=_seconds(reader.number("ActualFrameDuration")),
        weight=weight,
        size=size,
        lean=_lean(weight, size, reader.text("PatientSex")),
        suv_scale=_positive(maker.number("PhilipsSUVScaleFactor")),
        activity_scale=_positive(maker.number("PhilipsActivityScaleFactor")),
        **_times(reader, item, maker),
    )


def _corrected(reader: Reader) -> tuple[str, ...]:
    """Return CorrectedImage, or the same of the elements of enhanced PET (DICOM PS3.3 C.8.22.2)."""
    said = (("AttenuationCorrected", "ATTN"), ("DecayCorrected", "DECY"))
    return reader.words("CorrectedImage") or tuple(word for k, word in said if reader.text(k) == "YES")


def _lean(weight: float | None, size: float | None, sex: str) -> float | None:
    if not weight or not size or weight < 0 or size < 0 or sex not in {"M", "F"}:
        return None
    return lean_mass(weight, size, female=sex == "F")


def _nuclide(meaning: str) -> str:
    """Return the nuclide of a code meaning such as ``^18^Fluorine`` or ``F-18``, if it is a known one."""
    mass = _MASS.search(meaning)
    words = re.findall(r"[A-Za-z]+", meaning)
    names = {_ELEMENTS.get(w.lower(), w.capitalize()) for w in words}
    return next((n for n in HALF_LIVES if mass and n in {mass[1] + name for name in names}), "")


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _times(reader: Reader, item: Reader, maker: Reader) -> dict[str, Any]:
    """Return the times of a header, seconds since the injection."""
    joined = reader.text("AcquisitionDateTime")
    dates = [reader.text(k) for k in ("SeriesDate", "AcquisitionDate")]
    days = [_day(d) for d in (*dates, joined[:8], reader.text("DecayCorrectionDateTime")[:8])]
    clock = _Clock(next((d for d in days if d), 0), _zone(reader.text("TimezoneOffsetFromUTC")))
    found = {
        "reference": clock.at(reader.text("DecayCorrectionDateTime")),
        "series": _moment(days[0] or clock.day, reader.text("SeriesTime")),
        "acquired": clock.at(joined),
        "makers_scan": next((t for t in (clock.at(maker.text(k)) for k in _MAKERS) if t is not None), None),
    }
    if found["acquired"] is None:
        found["acquired"] = _moment(days[1] or clock.day, reader.text("AcquisitionTime"))
    series, acquired = found["series"], found["acquired"]
    if not clock.day and series is not None and acquired is not None and series - acquired > _HALF_DAY:
        found["acquired"] = acquired + DAY  # no dates, and midnight lies between
    scan = next((t for t in found.values() if t is not None), None)
    return _since_injection(found, clock, scan, item)


def _since_injection(
    found: Mapping[str, float | None], clock: _Clock, scan: float | None, item: Reader
) -> dict[str, Any]:
    """Return the times since the injection, and what is known of this."""
    joined = clock.at(item.text("RadiopharmaceuticalStartDateTime"))
    alone = _moment(clock.day, item.text("RadiopharmaceuticalStartTime"))
    injection = alone if joined is None else joined
    if injection is None:
        return {"injected": False}
    if (joined is None or not clock.day) and scan is not None and injection - scan > _HALF_DAY:
        injection -= DAY  # only the time of day is known, and midnight lies between
    apart = 0.0 if joined is None or alone is None else abs((joined - alone + _HALF_DAY) % DAY - _HALF_DAY)
    since = {name: None if t is None else round(t - injection, 6) for name, t in found.items()}
    return {**since, "injected": True, "dated": joined is not None and bool(clock.day), "clocks": round(apart, 6)}


def _day(text: str) -> int:
    """Return the number of the day of a DA; 0 if there is none."""
    digits = text.replace(".", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).toordinal()
    except ValueError:
        return 0


def _time(text: str) -> float | None:
    """Return the seconds since midnight of a TM."""
    found = _TIME.match(text.replace(":", ""))
    if not found:
        return None
    hours, minutes, seconds = found.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _moment(day: int, time: str) -> float | None:
    seconds = _time(time)
    return None if seconds is None else day * DAY + seconds


def _zone(text: str) -> float | None:
    """Return an offset from UTC such as ``+0130`` in seconds."""
    if not re.fullmatch(r"[+-]\d{4}", text):
        return None
    return (1 if text[0] == "+" else -1) * (int(text[1:3]) * 3600.0 + int(text[3:]) * 60)
