"""Standardised uptake values: against numbers worked by hand, a plain formula, and what headers lack."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from io import BytesIO

import numpy as np
import pydicom
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from made import examples
from pydicom.dataset import Dataset
from series_made import CT, PT, encode, series, write

import lazyvol as lv
from lazyvol.errors import OptionError, SuvError
from lazyvol.header import instance_of_file
from lazyvol.keywords import PET_UNITS
from lazyvol.uptake import HALF_LIVES, KINDS, suv_factor

HEADER = {
    "SOPClassUID": PT,
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ("ATTN", "DECY", "SCAT"),
    "DecayCorrection": "START",
    "SeriesDate": "20240310",
    "SeriesTime": "100000",
    "AcquisitionDate": "20240310",
    "AcquisitionTime": "100000",
    "PatientWeight": 70.0,
    "PatientSize": 1.75,
    "PatientSex": "M",
    "RescaleIntercept": 0.0,
    "RescaleSlope": 0.5,
}
TRACER = {
    "RadionuclideTotalDose": "350000000",
    "RadionuclideHalfLife": "3600",
    "RadiopharmaceuticalStartTime": "090000",
}
"""One half life before the scan, so 175 MBq are left."""
FEMALE, MALE = 1.07 * 70 - 148 * 0.16, 1.10 * 70 - 120 * 0.16
"""Lean body mass in kg of 70 kg and 1.75 m: (70 / 175)^2 is 0.16."""
DU_BOIS = 0.007184 * 70**0.425 * 175**0.725 * 1e4
BY_HAND = {"bw": 70000 / 175e6, "lbm": 1000 * MALE / 175e6, "bsa": DU_BOIS / 175e6}


def pet(count=3, *, tracer=(), tracers=1, nuclide=None, each=lambda _k: {}, **values):
    """Return PET slices whose header has all that uptake values need, but for what is given; None leaves out."""
    images = series(count, each=each, **(HEADER | values))
    for image in images:
        items = [Dataset() for _ in range(tracers)]
        for item in items:
            for keyword, value in (TRACER | dict(tracer)).items():
                if value is not None:
                    setattr(item, keyword, value)
            if nuclide:
                code = Dataset()
                code.CodeMeaning = nuclide
                item.RadionuclideCodeSequence = [code]
        image.RadiopharmaceuticalInformationSequence = items
    return images


def with_private(images, group, creator, **elements):
    """Add private elements, by number and (VR, value)."""
    for image in images:
        block = image.private_block(group, creator, create=True)
        for number, (vr, value) in elements.items():
            block.add_new(int(number[1:], 16), vr, value)
    return images


def with_scale(images, **elements):
    return with_private(images, 0x7053, "Philips PET Private Group", **elements)


@pytest.fixture
def opened(tmp_path):
    """A function that writes images and opens them."""
    count = iter(range(100))
    return lambda images, **options: lv.open_volume(write_to(tmp_path / f"series{next(count)}", images), **options)


def write_to(folder, images):
    write(folder, images)
    return folder


def uptakes_of(images):
    return [instance_of_file(BytesIO(encode(i)), "made.dcm").uptake for i in images]


def factor_of(images, kind="bw"):
    return suv_factor(uptakes_of(images), kind)


# Factors


@pytest.mark.parametrize("kind", KINDS)
def test_the_factor_is_that_worked_by_hand(kind):
    assert factor_of(pet(), kind).value == pytest.approx(BY_HAND[kind], rel=1e-12)


def test_women_have_the_lean_mass_of_women():
    found = factor_of(pet(PatientSex="F"), "lbm").value
    assert found == pytest.approx(1000 * FEMALE / 175e6, rel=1e-12)


def test_a_dose_corrected_to_its_injection_does_not_decay():
    assert factor_of(pet(DecayCorrection="ADMIN")).value == pytest.approx(70000 / 350e6, rel=1e-12)


def test_a_dose_corrected_to_its_injection_needs_no_times():
    images = pet(DecayCorrection="ADMIN", SeriesTime=None, tracer={"RadiopharmaceuticalStartTime": None})
    assert factor_of(images).value == pytest.approx(70000 / 350e6, rel=1e-12)


INJECTED = {
    "by the time of day": ({}, {}, 3600),
    "by date and time": ({}, {"RadiopharmaceuticalStartDateTime": "20240310080000"}, 7200),
    "before midnight, by the time of day": (
        {"SeriesTime": "003000", "AcquisitionTime": "003000"},
        {"RadiopharmaceuticalStartTime": "233000"},
        3600,
    ),
    "before midnight, by date and time": (
        {"SeriesTime": "003000", "AcquisitionTime": "003000"},
        {"RadiopharmaceuticalStartDateTime": "20240309223000", "RadiopharmaceuticalStartTime": "223000"},
        7200,
    ),
    "before midnight, without any date": (
        {"SeriesTime": "003000", "AcquisitionTime": "003000", "SeriesDate": None, "AcquisitionDate": None},
        {"RadiopharmaceuticalStartTime": "233000"},
        3600,
    ),
    "with fractions": ({}, {"RadiopharmaceuticalStartTime": "091500.5"}, 2699.5),
    "with an offset from UTC of another zone": (
        {"TimezoneOffsetFromUTC": "+0200"},
        {"RadiopharmaceuticalStartDateTime": "20240310070000+0000"},
        3600,
    ),
    "soon after a dynamic scan began": ({}, {"RadiopharmaceuticalStartTime": "100030"}, -30),
    "before a series whose scan crosses midnight without dates": (
        {"SeriesTime": "235900", "AcquisitionTime": "000100", "SeriesDate": None, "AcquisitionDate": None},
        {"RadiopharmaceuticalStartTime": "225900"},
        3600,
    ),
}  # fmt: skip
INJECTED["by date and time"][1]["RadiopharmaceuticalStartTime"] = "080000"


@pytest.mark.parametrize(("header", "tracer", "since"), INJECTED.values(), ids=INJECTED)
def test_the_dose_decays_from_the_injection_on(header, tracer, since):
    found = factor_of(pet(tracer=tracer, **header))
    assert found.problems == ()
    assert found.value == pytest.approx(70000 / (350e6 * 2 ** (-since / 3600)), rel=1e-9)


def as_other_text(image, tag, text):
    """Put text that the VR does not allow, as writers without a check do."""
    del image[tag]
    image.add_new(tag, "LO", text)


def test_a_time_may_have_colons():
    images = pet(1)
    as_other_text(images[0].RadiopharmaceuticalInformationSequence[0], 0x00181072, "09:30:00")
    assert factor_of(images).value == pytest.approx(70000 / (350e6 * 2**-0.5), rel=1e-9)


@pytest.mark.parametrize("text", ["nine", "2024-03-10", "99999999999999", "x" * 90], ids=["word", "date", "nines", "x"])
def test_private_times_that_are_none_do_not_count(text):
    images = with_private(
        pet(1, **LATE, **FRAMES), 0x0009, "GEMS_PETD_01", _0D=("UN", text.encode() + b" " * (len(text) % 2))
    )
    assert factor_of(images).value == pytest.approx(70000 / (350e6 * 2 ** (-estimate(3600, 150, 300) / 3600)), rel=1e-9)


@pytest.mark.parametrize("text", ["four", "nan", "inf", "-1", "0", ""])
def test_private_scales_that_are_none_do_not_count(text):
    images = with_scale(pet(1, Units="CNTS"), _00=("UN", text.encode() + b" " * (len(text) % 2)))
    assert factor_of(images).problems[0].startswith("Units is CNTS, and neither (7053,xx00)")


def estimate(acquired, reference, duration, half_life=3600.0):
    """When a scan began, s since 9:00, by where exp(-kt) has its average within the frame."""
    decay = math.log(2) / half_life
    average = (1 - math.exp(-decay * duration)) / (decay * duration)
    return acquired - math.log(average) / decay - reference


LATE = {"SeriesTime": "110000"}
FRAMES = {"FrameReferenceTime": 150000.0, "ActualFrameDuration": "300000"}
SCANS = {
    "DecayCorrectionDateTime before all": ({**LATE, "DecayCorrectionDateTime": "20240310093000"}, 1800),
    "DecayCorrectionDateTime without DecayCorrection": (
        {"DecayCorrection": None, "DecayCorrectionDateTime": "20240310093000"}, 1800
    ),
    "the series where it is not late": ({"SeriesTime": "095000"}, 3000),
    "the series where another clock puts it a moment after": ({"AcquisitionTime": "095959.999985"}, 3600),
    "an estimate where the series is late": (LATE | FRAMES, estimate(3600, 150, 300)),
}  # fmt: skip


@pytest.mark.parametrize(("header", "since"), SCANS.values(), ids=SCANS)
def test_the_dose_decays_up_to(header, since):
    found = factor_of(pet(**header))
    assert found.problems == ()
    assert found.value == pytest.approx(70000 / (350e6 * 2 ** (-since / 3600)), rel=1e-9)


@pytest.mark.parametrize(
    ("group", "creator", "number"),
    [(0x0009, "GEMS_PETD_01", "_0D"), (0x0071, "SIEMENS MED PT", "_22")],
    ids=["GE", "Siemens"],
)
def test_the_makers_start_of_the_scan_counts_where_the_series_is_late(group, creator, number):
    images = with_private(pet(**LATE, **FRAMES), group, creator, **{number: ("DT", "20240310094000.00")})
    assert factor_of(images).value == pytest.approx(70000 / (350e6 * 2 ** (-2400 / 3600)), rel=1e-9)


def test_the_makers_start_does_not_count_where_the_series_is_not_late():
    images = with_private(pet(), 0x0009, "GEMS_PETD_01", _0D=("DT", "20240310094000.00"))
    assert factor_of(images).value == pytest.approx(BY_HAND["bw"], rel=1e-12)


def test_the_earliest_image_says_whether_the_series_is_late():
    images = pet(each=lambda k: {"AcquisitionTime": ["100000", "101000", "102000"][k]}, SeriesTime="100500")
    assert "decay corrected is not known" in factor_of(images).problems[0]


def test_bed_positions_may_be_acquired_at_their_own_times():
    images = pet(each=lambda k: {"AcquisitionTime": ["102000", "101000", "100000"][k]})
    assert factor_of(images).value == pytest.approx(BY_HAND["bw"], rel=1e-12)


def test_bed_positions_agree_about_an_estimated_start():
    def bed(k):
        return {"AcquisitionTime": f"10{10 * k:02d}00", "FrameReferenceTime": 1000.0 * (600 * k + 150)}

    found = factor_of(pet(each=bed, ActualFrameDuration="300000", **LATE))
    assert found.value == pytest.approx(70000 / (350e6 * 2 ** (-estimate(3600, 150, 300) / 3600)), rel=1e-9)


PHILIPS = {
    "the SUV scale": ({"_00": ("DS", "0.002")}, 0.002),
    "the activity scale": ({"_09": ("DS", "4.0")}, 4 * BY_HAND["bw"]),
    "the SUV scale before the other": ({"_00": ("DS", "0.002"), "_09": ("DS", "4.0")}, 0.002),
    "the activity scale where the other is 0": ({"_00": ("DS", "0"), "_09": ("DS", "4.0")}, 4 * BY_HAND["bw"]),
}


@pytest.mark.parametrize(("elements", "expected"), PHILIPS.values(), ids=PHILIPS)
def test_counts_of_philips_are_scaled_by(elements, expected):
    found = factor_of(with_scale(pet(Units="CNTS"), **elements))
    assert found.value == pytest.approx(expected, rel=1e-12)


def test_the_scale_of_philips_becomes_lean_by_the_ratio_of_the_masses():
    images = with_scale(pet(Units="CNTS"), _00=("DS", "0.002"))
    assert factor_of(images, "lbm").value == pytest.approx(0.002 * MALE / 70, rel=1e-12)


GRAMS = {"bw": 70000, "lbm": 1000 * MALE, "bsa": DU_BOIS}
ALREADY = {"BW": ("GML", "bw"), "LBM": ("GML", "lbm"), "BSA": ("CM2ML", "bsa")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suv_type", ALREADY)
def test_values_that_are_uptake_values_keep_their_kind_or_change_it(suv_type, kind):
    units, held = ALREADY[suv_type]
    found = factor_of(pet(Units=units, SUVType=suv_type), kind)
    assert found.value == pytest.approx(GRAMS[kind] / GRAMS[held], rel=1e-12)


def test_uptake_values_without_a_kind_are_by_weight_and_need_neither_dose_nor_body():
    images = pet(Units="GML", PatientWeight=None, PatientSize=None, tracers=0)
    assert factor_of(images).value == 1.0


@examples(100)
@given(
    weight=st.floats(3, 200),
    size=st.floats(0.5, 2.2),
    dose=st.floats(2e6, 9e9),
    half_life=st.floats(60, 4e4),
    since=st.floats(0.01, 8),
    start=st.datetimes(datetime(2001, 1, 1), datetime(2030, 1, 1)),
)
def test_any_header_gives_what_a_plain_formula_gives(weight, size, dose, half_life, since, start):
    injected = start - timedelta(seconds=since * half_life)
    images = pet(
        1,
        SeriesDate=f"{start:%Y%m%d}",
        SeriesTime=f"{start:%H%M%S.%f}",
        AcquisitionDate=f"{start:%Y%m%d}",
        AcquisitionTime=f"{start:%H%M%S.%f}",
        PatientWeight=weight,
        PatientSize=size,
        tracer={
            "RadionuclideTotalDose": f"{dose:.6e}",
            "RadionuclideHalfLife": f"{half_life:.6f}",
            "RadiopharmaceuticalStartTime": None,
            "RadiopharmaceuticalStartDateTime": f"{injected:%Y%m%d%H%M%S.%f}",
        },
    )
    left = dose * math.exp(-math.log(2) * since)
    assert factor_of(images).value == pytest.approx(1000 * weight / left, rel=1e-5)
    du_bois = 71.84 * weight**0.425 * (100 * size) ** 0.725
    assert factor_of(images, "bsa").value == pytest.approx(du_bois / left, rel=1e-5)


# What headers lack


LACKING = {
    "no units": ({"Units": None}, {}, "Units is absent; expected BQML"),
    "units that are no activity": ({"Units": "PCNT"}, {}, "Units is PCNT; expected BQML"),
    "counts without scale": ({"Units": "CNTS"}, {}, r"Units is CNTS, and neither \(7053,xx00\)"),
    "lean mass of another formula": ({"Units": "GML", "SUVType": "LBMJANMA"}, {}, "SUVType is LBMJANMA with Units GML"),
    "surface in g": ({"Units": "GML", "SUVType": "BSA"}, {}, "SUVType is BSA with Units GML"),
    "no attenuation correction": ({"CorrectedImage": ("DECY",)}, {}, "CorrectedImage lacks ATTN; expected"),
    "no decay correction in the list": ({"CorrectedImage": ("ATTN",)}, {}, "CorrectedImage lacks DECY; expected"),
    "no corrections": ({"CorrectedImage": None}, {}, "CorrectedImage lacks ATTN and DECY"),
    "no DecayCorrection": ({"DecayCorrection": None}, {}, "DecayCorrection is absent or unknown; expected START"),
    "no correction of decay": ({"DecayCorrection": "NONE"}, {}, "DecayCorrection is NONE; expected START or ADMIN"),
    "no correction of decay, with a time": (
        {"DecayCorrection": "NONE", "DecayCorrectionDateTime": "20240310093000"}, {}, "DecayCorrection is NONE"
    ),
    "no weight": ({"PatientWeight": None}, {}, "PatientWeight is absent or no number; expected 0.5 to 500 kg"),
    "weight 0": ({"PatientWeight": 0.0}, {}, "PatientWeight is 0 kg; expected 0.5 to 500 kg$"),
    "weight in g": ({"PatientWeight": 70000.0}, {}, r"PatientWeight is above 500 kg; expected .* \(is it in g\?\)"),
    "no dose": ({}, {"RadionuclideTotalDose": None}, "RadionuclideTotalDose is absent or no number; expected"),
    "dose 0": ({}, {"RadionuclideTotalDose": "0"}, r"RadionuclideTotalDose is 0 Bq; expected 1e\+06 to 1e\+11 Bq$"),
    "dose in MBq": ({}, {"RadionuclideTotalDose": "350"}, r"TotalDose is below 1e\+06 Bq; .* \(is it in MBq\?\)"),
    "no half life": ({}, {"RadionuclideHalfLife": None}, "RadionuclideHalfLife is absent or no number; expected"),
    "half life 0": ({}, {"RadionuclideHalfLife": "0"}, r"RadionuclideHalfLife is 0 s; expected 30 to 1e\+08 s"),
    "no injection": (
        {}, {"RadiopharmaceuticalStartTime": None},
        "RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are absent",
    ),
    "injection after the scan": (
        {}, {"RadiopharmaceuticalStartTime": "101000"}, "the injection is 600 s after the start of the scan"
    ),
    "injection on another day after it": (
        {}, {"RadiopharmaceuticalStartDateTime": "20240311090000"}, "the injection is 82800 s after the start"
    ),
    "injection long ago": (
        {}, {"RadiopharmaceuticalStartDateTime": "20240309090000"}, "25.0 half lives after the injection; expected"
    ),
    "two injections": (
        {}, {"RadiopharmaceuticalStartDateTime": "20240310080000"}, "RadiopharmaceuticalStartTime are 3600 s apart"
    ),
    "long-lived, without its day": (
        {}, {"RadionuclideHalfLife": "282276"}, "StartDateTime is absent, so the day of the injection is not known"
    ),
    "no time of the series": ({"SeriesTime": None}, {}, "to when the values are decay corrected is not known"),
    "no time of the acquisition": ({"AcquisitionTime": None}, {}, "to when the values are decay corrected is not"),
    "a late series alone": (LATE, {}, "SeriesTime is absent or after AcquisitionTime"),
}  # fmt: skip
LACKING_FOR_SIZE = {
    "no size": ({"PatientSize": None}, "PatientSize is absent or no number; expected 0.2 to 2.5 m"),
    "size in cm": ({"PatientSize": 172.0}, r"PatientSize is above 2.5 m; expected 0.2 to 2.5 m \(is it in cm\?\)"),
    "size 0": ({"PatientSize": 0.0}, "PatientSize is 0 m; expected 0.2 to 2.5 m$"),
}


@pytest.mark.parametrize(("header", "tracer", "problem"), LACKING.values(), ids=LACKING)
def test_what_is_absent_or_implausible_is_named(header, tracer, problem):
    found = factor_of(pet(tracer=tracer, **header))
    assert found.value is None
    assert len(found.problems) == 1
    with pytest.raises(ValueError, match=problem):
        raise ValueError(found.problems[0])


@pytest.mark.parametrize("kind", ["lbm", "bsa"])
@pytest.mark.parametrize(("header", "problem"), LACKING_FOR_SIZE.values(), ids=LACKING_FOR_SIZE)
def test_a_size_that_cannot_be_is_named(header, problem, kind):
    (said,) = factor_of(pet(**header), kind).problems
    with pytest.raises(ValueError, match=problem):
        raise ValueError(said)


def test_a_size_that_cannot_be_does_not_hinder_the_weight():
    assert factor_of(pet(PatientSize=172.0)).value == pytest.approx(BY_HAND["bw"], rel=1e-12)


@pytest.mark.parametrize("sex", [None, "O"])
def test_lean_mass_needs_a_formula(sex):
    (said,) = factor_of(pet(PatientSex=sex), "lbm").problems
    assert said == "PatientSex is absent or does not choose a formula of lean body mass; expected M or F"


def test_lean_mass_of_the_very_obese_is_refused():
    (said,) = factor_of(pet(PatientWeight=250.0, PatientSex="F"), "lbm").problems
    assert "give a lean body mass below 30%" in said


TRACERS = {0: "is absent from the top level of the header; expected 1 item", 2: "has 2 items; expected 1"}


@pytest.mark.parametrize("count", TRACERS)
def test_another_number_of_tracers_is_named(count):
    (said,) = factor_of(pet(tracers=count)).problems
    assert said == f"RadiopharmaceuticalInformationSequence {TRACERS[count]}"


def test_all_that_is_absent_is_named_at_once():
    found = factor_of(pet(PatientWeight=None, CorrectedImage=None, tracer={"RadionuclideTotalDose": "1"}))
    assert [p.split()[0] for p in found.problems] == ["CorrectedImage", "RadionuclideTotalDose", "PatientWeight"]


@pytest.mark.parametrize("nuclide", ["^18^Fluorine", "Fluorine^18^", "F-18", "18F", "^18^ fluorine"])
def test_a_half_life_that_is_not_that_of_the_nuclide_is_named(nuclide):
    (said,) = factor_of(pet(nuclide=nuclide, tracer={"RadionuclideHalfLife": "109.8"})).problems
    assert said == "RadionuclideHalfLife is 109.8 s; expected about 6586 s for 18F"


@pytest.mark.parametrize("nuclide", ["^18^Fluorine", None, "a secret of 18 words"])
def test_a_half_life_that_can_be_is_taken(nuclide):
    assert factor_of(pet(nuclide=nuclide, tracer={"RadionuclideHalfLife": "6588"})).problems == ()


def test_the_half_lives_are_those_of_the_names():
    names = {"11C": "C-11", "68Ga": "^68^Gallium", "82Rb": "Rubidium^82^", "124I": "I-124"}
    found = {n: uptakes_of(pet(1, nuclide=meaning))[0].nuclide for n, meaning in names.items()}
    assert found == {n: n for n in names}
    assert set(names) <= set(HALF_LIVES)


DIFFERING = {
    "weight": {"PatientWeight": [70.0, 71.0, 70.0]},
    "series time": {"SeriesTime": ["100000", "095900", "100000"]},
    "units": {"Units": ["BQML", "BQML", "CNTS"]},
    "corrections": {"CorrectedImage": [("ATTN", "DECY"), ("ATTN", "DECY", "SCAT"), ("ATTN", "DECY")]},
    "sex": {"PatientSex": ["M", "F", "M"]},
}


@pytest.mark.parametrize("name", DIFFERING)
def test_slices_that_disagree_are_named(name):
    ((keyword, values),) = DIFFERING[name].items()
    problems = factor_of(pet(each=lambda k: {keyword: values[k]})).problems
    assert [p for p in problems if keyword in p and "differs between the images" in p]
    assert len(problems) == 1


def test_doses_that_disagree_are_named():
    images = pet()
    images[1].RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose = "340000000"
    assert factor_of(images).problems == ("RadionuclideTotalDose differs between the images; one value was expected",)


def test_estimates_that_disagree_are_named():
    images = pet(each=lambda k: {"AcquisitionTime": f"10{10 * k:02d}00"}, **LATE, **FRAMES)
    (said,) = factor_of(images).problems
    assert "put the start of the scan 1200 s apart" in said


# Volumes


@pytest.mark.parametrize("kind", KINDS)
def test_the_volume_is_the_values_times_the_factor(opened, kind):
    volume = opened(pet())
    suv = lv.to_suv(volume, kind)
    expected = (volume.values.astype("float64") * BY_HAND[kind]).astype("float32")
    assert suv.dtype == np.float32
    np.testing.assert_array_almost_equal_nulp(suv.values, expected, nulp=1)


def test_slopes_of_slices_are_applied_before(opened):
    images = pet(each=lambda k: {"RescaleSlope": 0.5 + 0.25 * k})
    ends = [float(lv.to_suv(opened(images)).isel(z=k).max()) for k in range(3)]
    stored = [int(np.frombuffer(i.PixelData, "<u2").max()) for i in images]
    expected = [n * (0.5 + 0.25 * k) * BY_HAND["bw"] for k, n in enumerate(stored)]
    assert ends == pytest.approx(expected, rel=1e-6)


def test_the_accessor_does_the_same(opened):
    volume = opened(pet())
    xr.testing.assert_identical(volume.vol.to_suv("bsa"), lv.to_suv(volume, "bsa"))


@pytest.mark.parametrize(
    ("kind", "name", "units", "said"),
    [("bw", "SUVbw", "g/ml", "GML"), ("lbm", "SUVlbm", "g/ml", "GML"), ("bsa", "SUVbsa", "cm2/ml", "CM2ML")],
)
def test_the_volume_says_what_it_is(opened, kind, name, units, said):
    attrs = lv.to_suv(opened(pet()), kind).attrs
    assert (attrs["long_name"], attrs["units"], attrs["Units"]) == (name, units, said)


def test_what_belongs_to_the_old_units_is_dropped(opened):
    windows = {"WindowCenter": 500.0, "WindowWidth": 1000.0, "WindowCenterWidthExplanation": "ALL"}
    suv = lv.to_suv(opened(pet(**windows)))
    assert [k for k in suv.attrs if k.startswith(("suv_", "Window"))] == []


def test_windows_of_slices_are_dropped_too(opened):
    volume = opened(pet(each=lambda k: {"WindowCenter": 500.0 + k, "WindowWidth": 1000.0 + k}))
    assert {"window_center", "window_width"} <= set(volume.coords)
    assert not {"window_center", "window_width"} & set(lv.to_suv(volume).coords)


def test_coordinates_with_the_geometry_and_findings_stay(opened):
    volume = opened(pet(each=lambda k: {"FrameReferenceTime": 1000.0 * k}, at=[0, 1, 3]))
    suv = lv.to_suv(volume)
    assert lv.findings_of(suv) == lv.findings_of(volume) != ()
    xr.testing.assert_identical(suv.coords.to_dataset(), volume.coords.to_dataset())


def test_the_volume_that_is_converted_stays_as_it_is(opened):
    volume = opened(pet())
    before = volume.copy(deep=True)
    lv.to_suv(volume).attrs["more"] = 1
    xr.testing.assert_identical(volume, before)


OPENED = {"dask": {}, "without dask": {"chunks": None}}


@pytest.mark.parametrize("options", OPENED.values(), ids=OPENED)
def test_nothing_is_read_before_values_are_asked_for(opened, read, options):
    suv = lv.to_suv(opened(pet(), **options))
    repr(suv)
    assert read == []
    assert suv.chunks is not None
    assert suv.isel(z=1).shape == suv.isel(z=1).values.shape
    assert len(set(read)) == 3  # whole blocks: three slices are one


def test_the_blocks_are_those_of_the_volume(opened):
    volume = opened(pet(), chunks={"z": 1})
    assert lv.to_suv(volume).chunks == volume.chunks


def test_a_volume_in_memory_stays_there(opened):
    volume = opened(pet()).compute()
    suv = lv.to_suv(volume)
    assert isinstance(suv.variable._data, np.ndarray)
    np.testing.assert_array_equal(suv.values, lv.to_suv(opened(pet())).values)


def test_values_are_rounded_once(opened):
    volume = opened(pet())
    exact = volume.values.astype("float64") * volume.attrs["suv_bw_factor"]
    np.testing.assert_array_equal(lv.to_suv(volume).values, exact.astype("float32"))


def test_part_of_a_volume_is_converted_like_the_whole(opened):
    volume = opened(pet())
    xr.testing.assert_equal(lv.to_suv(volume.isel(y=slice(3, 9), z=1)), lv.to_suv(volume).isel(y=slice(3, 9), z=1))


def test_integers_become_floating_point(opened):
    volume = opened(pet(RescaleSlope=1.0))
    assert volume.dtype.kind in "iu"
    np.testing.assert_allclose(lv.to_suv(volume).values, volume.values * BY_HAND["bw"], rtol=1e-6)


# Refusals


def test_all_problems_and_a_remedy_are_in_the_error(opened):
    with pytest.raises(SuvError) as caught:
        lv.to_suv(opened(pet(PatientWeight=None, PatientSize=172.0)), "bsa")
    first, *problems, last = str(caught.value).splitlines()
    assert first == "SUVbsa cannot be computed from the header:"
    assert [p.split(" is ")[0] for p in problems] == ["  PatientWeight", "  PatientSize"]
    assert "by hand: volume * (body surface area in cm2) / (dose in Bq" in last


@pytest.mark.parametrize("kind", ["BW", "", None, ["bw"], 3])
def test_an_unknown_kind_is_an_error(opened, kind):
    with pytest.raises(OptionError, match="can be 'bw', 'lbm', 'bsa'"):
        lv.to_suv(opened(pet()), kind)


def test_other_modalities_have_no_uptake_values(opened):
    with pytest.raises(SuvError, match="only PET has uptake values, and the Modality of this volume is CT, not PT"):
        lv.to_suv(opened(pet(Modality="CT", SOPClassUID=CT)))


def test_other_modalities_carry_no_factor(opened):
    assert not [k for k in opened(pet(Modality="CT", SOPClassUID=CT)).attrs if k.startswith("suv_")]


@pytest.mark.parametrize("kind", KINDS)
def test_uptake_values_are_not_made_twice(opened, kind):
    suv = lv.to_suv(opened(pet()), kind)
    with pytest.raises(SuvError, match=f"is SUV{kind} in .* already"):
        lv.to_suv(suv)


@pytest.mark.parametrize("units", ["counts", None])
def test_values_in_other_units_than_the_header_are_refused(opened, units):
    volume = opened(pet())
    volume.attrs.pop("units")
    volume.attrs |= {"units": units} if units else {}
    with pytest.raises(SuvError, match="not in Bq/ml of its Units BQML"):
        lv.to_suv(volume)


def test_a_volume_whose_factor_was_lost_says_so(opened):
    volume = opened(pet())
    del volume.attrs["suv_bw_factor"]
    with pytest.raises(SuvError, match="does not carry the factor suv_bw_factor"):
        lv.to_suv(volume)


def test_one_problem_as_netcdf_keeps_it_is_one_line(opened):
    volume = opened(pet(PatientWeight=None))
    volume.attrs["suv_bw_problems"] = volume.attrs["suv_bw_problems"][0]
    with pytest.raises(SuvError, match=r"header:\n  PatientWeight is absent or no number; [^\n]*\nIf"):
        lv.to_suv(volume)


def test_a_dataset_is_no_volume(opened):
    with pytest.raises(OptionError, match=r"Take dataset\['image'\]"):
        lv.to_suv(opened(pet()).to_dataset())


# Stores and privacy


PERSON = {"PatientWeight": 83.25, "PatientSize": 1.8125, "SeriesTime": "101112", "AcquisitionTime": "101112"}
DOSE = {
    "RadionuclideTotalDose": "341234567",
    "RadiopharmaceuticalStartTime": "090807",
    "RadionuclideHalfLife": "3601.5",
}
PERSONAL = ("83.25", "1.8125", "341234567", "3.41234567", "3601.5", "101112", "090807", "20240310", "4711", "Phantom^")


def all_of(store):
    """Return every byte of a store, and every attribute in it."""
    found = [p.read_bytes() for p in store.rglob("*") if p.is_file()]
    root = zarr.open_group(store, mode="r")
    return b"\n".join([*found, *(str(dict(m.attrs)).encode() for _, m in root.members(max_depth=None))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_gives_the_same_uptake_values(opened, tmp_path, kind):
    volume = opened(pet())
    lv.save_zarr(volume, tmp_path / "pet.zarr")
    xr.testing.assert_equal(
        lv.to_suv(lv.open_zarr(tmp_path / "pet.zarr"), kind).drop_vars(["sop_instance_uid", "geometry"]),
        lv.to_suv(volume, kind).drop_vars(["sop_instance_uid", "geometry", "source"]),
    )


def test_a_store_gives_the_same_problems(opened, tmp_path):
    lv.save_zarr(opened(pet(PatientWeight=None)), tmp_path / "pet.zarr")
    with pytest.raises(SuvError, match=r"\n  PatientWeight is absent"):
        lv.to_suv(lv.open_zarr(tmp_path / "pet.zarr"))


@pytest.mark.parametrize("word", PERSONAL)
def test_weight_dose_and_times_are_in_no_store(opened, tmp_path, word):
    lv.save_zarr(opened(pet(tracer=DOSE, **PERSON)), tmp_path / "pet.zarr")
    assert word.encode() not in all_of(tmp_path / "pet.zarr")


def test_the_factors_are_in_the_store(opened, tmp_path):
    volume = opened(pet(tracer=DOSE, **PERSON))
    lv.save_zarr(volume, tmp_path / "pet.zarr")
    assert repr(volume.attrs["suv_bw_factor"]).encode() in all_of(tmp_path / "pet.zarr")


def test_an_instance_shows_nothing_of_the_body():
    instance = instance_of_file(BytesIO(encode(pet(1, tracer=DOSE, **PERSON)[0])), "made.dcm")
    assert [w for w in PERSONAL if w in repr(instance)] == []
    assert [w for w in PERSONAL if w in repr(instance.uptake) and w != "3601.5"] == []


def test_an_uptake_holds_no_date():
    (uptake,) = uptakes_of(pet(1))
    numbers = [v for v in (getattr(uptake, name) for name in uptake.__slots__) if isinstance(v, float)]
    assert [n for n in numbers if n > 5000] == [350e6]


@pytest.mark.parametrize("sex", ["M", "F", "O"])
def test_no_message_says_the_sex(sex):
    images = [pet(PatientSex=sex, PatientWeight=250.0), pet(PatientSex=sex, PatientSize=None)]
    said = " ".join(p for i in images for kind in KINDS for p in factor_of(i, kind).problems)
    assert f" {sex} " not in said.replace("expected M or F", "")
    assert "male" not in said


# Kinds of files


@pytest.mark.parametrize("corrected", ["CorrectedImage", "elements of enhanced PET"])
def test_an_enhanced_file_has_its_dose_on_top(tmp_path, corrected):
    from enhanced_made import enhanced

    images = pet(ImageType=("ORIGINAL", "PRIMARY", "VOLUME", "NONE"), SeriesTime="110000", DecayCorrection=None)
    more = {"DecayCorrectionDateTime": "20240310100000"}
    if corrected != "CorrectedImage":
        for image in images:
            del image.CorrectedImage
        more |= {"AttenuationCorrected": "YES", "DecayCorrected": "YES"}
    (tmp_path / "pet.dcm").write_bytes(encode(enhanced(images, **more)))
    volume = lv.open_volume(tmp_path / "pet.dcm")
    assert volume.attrs["suv_bw_factor"] == pytest.approx(BY_HAND["bw"], rel=1e-12)


def test_a_converted_file_has_its_units_in_the_shared_group(tmp_path):
    from test_enhanced import legacy

    path = tmp_path / "pet.dcm"
    legacy(pet(Units="GML", SUVType="LBM"), "1.2.3.5.9").save_as(path)
    assert lv.open_volume(path).attrs["suv_lbm_factor"] == 1.0


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_the_encoding_of_the_header_does_not_matter(syntax):
    images = with_private(pet(1, **LATE), 0x0071, "SIEMENS MED PT", _22=("DT", "20240310100000"))
    uptake = instance_of_file(BytesIO(encode(images[0], syntax=syntax)), "made.dcm").uptake
    assert suv_factor([uptake], "bw").value == pytest.approx(BY_HAND["bw"], rel=1e-12)


def test_a_number_that_is_none_is_absent_and_no_finding(opened):
    images = pet()
    for image in images:
        as_other_text(image, 0x00101030, "seventy kilos")
    volume = opened(images)
    assert volume.attrs["suv_bw_problems"] == ["PatientWeight is absent or no number; expected 0.5 to 500 kg"]
    assert lv.findings_of(volume) == ()


UNITS = """CNTS counts, CM2 cm2, CM2ML cm2/ml, PCNT %, CPS counts/s, BQML Bq/ml, MGMINML mg/min/ml,
UMOLMINML umol/min/ml,
MLMING ml/min/g, MLG ml/g, 1CM 1/cm, UMOLML umol/ml, PROPCNTS proportional to counts, PROPCPS proportional to counts/s,
MLMINML ml/min/ml, MLML ml/ml, GML g/ml, STDDEV standard deviations"""
"""Defined terms of PS3.3 C.8.9.1.1.3 but NONE, with their units."""


def test_all_units_of_pet_are_there():
    assert {*PET_UNITS} == {part.split()[0] for part in UNITS.split(",")} | {"NONE"}


@pytest.mark.parametrize(("term", "units"), [part.split(maxsplit=1) for part in UNITS.split(",")])
def test_the_units_of_pet_are_those_of_the_standard(opened, term, units):
    assert opened(pet(1, Units=term)).attrs["units"] == units


def test_no_units_are_no_attribute(opened):
    assert "units" not in opened(pet(1, Units="NONE")).attrs


def test_a_real_series_says_what_it_lacks(real_data):
    folder = real_data / "pet_nema_recon1" / "pet_recon_1"
    header = pydicom.dcmread(next(iter(sorted(folder.glob("*.dcm")))), stop_before_pixels=True)
    keywords = ["Units", "PatientWeight", "DecayCorrection", "RadiopharmaceuticalInformationSequence"]
    absent = [k for k in keywords if not header.get(k)]
    with pytest.raises(SuvError) as caught:
        lv.to_suv(lv.open_volume(folder))
    named = [line.split()[0] for line in str(caught.value).splitlines()[1:-1]]
    assert sorted(named) == sorted(set(absent) - {"DecayCorrection"})
