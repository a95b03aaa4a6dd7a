"""The command line: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
import xarray as xr
from commands import run
from matplotlib.image import imread

import lazyvol as lv
from lazyvol import phantom
from lazyvol.phantom import FICTITIOUS_PATIENT, write_series
from lazyvol.shell import with_options


@pytest.fixture
def folder(tmp_path):
    """A CT of five slices with one missing, a PET of four, and a text."""
    random = np.random.default_rng(2)
    grid = {"spacing": (3.0, 0.9, 0.7), "origin": (-10.0, -20.0, 30.0)}
    paths = write_series(tmp_path / "data" / "ct", random.integers(-1024, 3000, (6, 6, 8)), series_number=4, **grid)
    paths[2].unlink()
    pet = {"modality": "PT", "slope": 0.5, "intercept": 0}
    write_series(tmp_path / "data" / "pt", random.integers(0, 99, (4, 5, 7)) * 0.5, series_number=1, **pet, **grid)
    (tmp_path / "data" / "notes.txt").write_text("nothing" * 50)
    return tmp_path / "data"


@pytest.fixture
def store(chest_folder, tmp_path):
    lv.save_zarr(lv.open_volume(chest_folder), tmp_path / "chest.zarr")
    return tmp_path / "chest.zarr"


# scan


def test_scan_shows_a_line_for_each_series_and_what_was_skipped(folder):
    lines = run("scan", folder).output.splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [["1", "0", "PT", "Phantom"], ["4", "0", "CT", "Phantom"]]
    assert lines[3:] == ["9 images, 1 files skipped", lines[4]]
    assert "1 x not DICOM" in lines[4]


@pytest.mark.parametrize("word", ["5x6x8", "0.9 0.7", "5.4 5.6", "int16", "LPS", "missing-slices"])
def test_scan_shows_shape_spacing_view_type_and_findings(folder, word):
    line = run("scan", folder).output.splitlines()[2]
    assert word in line


def test_scan_as_json_is_json(folder):
    content = json.loads(run("scan", folder, "--json").output, parse_constant=refuse)
    assert [(s["number"], s["modality"], s["shape"]) for s in content["series"]] == [
        (1, "PT", [4, 5, 7]),
        (4, "CT", [5, 6, 8]),
    ]
    assert [s["reason"][:9] for s in content["skipped"]] == ["not DICOM"]


def refuse(word):
    raise ValueError(f"{word} is no JSON")


def test_scan_as_json_says_null_where_a_spacing_is_unknown(folder):
    content = json.loads(run("scan", folder, "--json").output, parse_constant=refuse)
    assert content["series"][1]["spacing"] == [None, 0.9, 0.7]


def test_scan_without_series_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("text" * 99)
    result = run("scan", tmp_path)
    assert result.output.startswith("no series\n0 images, 1 files skipped")
    assert result.exit_code == 0


def test_scan_as_json_without_numbers_is_json(tmp_path):
    def strip(_k, dataset):
        del dataset.SeriesNumber

    write_series(tmp_path, np.zeros((2, 4, 5)), spacing=(1.0, 1.0, 1.0), overrides=strip)
    content = json.loads(run("scan", tmp_path, "--json").output, parse_constant=refuse)
    assert content["series"][0]["number"] is None


# info


@pytest.mark.parametrize(
    "line",
    [
        "modality        CT",
        "shape           24  48  64",
        "spacing         z 40  y 8  x 8",
        "field of view   z 960  y 384  x 512",
        "orientation     LPS",
        "dtype           int16",
        "units           HU",
        "findings        none",
        "labels grow towards z S  y P  x L",
    ],
)
@pytest.mark.parametrize("kind", ["DICOM", "Zarr"])
def test_info_describes_a_volume(chest_folder, store, kind, line):
    assert line in run("info", chest_folder if kind == "DICOM" else store).output.splitlines()


def test_info_of_a_store_is_that_of_its_series(chest_folder, store):
    assert run("info", chest_folder).output == run("info", store).output


def test_info_as_json_is_json(chest_folder):
    content = json.loads(run("info", chest_folder, "--json").output, parse_constant=refuse)
    assert content["shape"] == [24, 48, 64]
    assert content["field_of_view"] == {"z": 960, "y": 384, "x": 512}
    assert content["labels_grow_towards"] == {"z": "S", "y": "P", "x": "L"}


def test_info_shows_findings(folder):
    assert "  warning: missing-slices: " in run("info", folder / "ct").output


def test_info_as_json_holds_findings(folder):
    content = json.loads(run("info", folder / "ct", "--json").output, parse_constant=refuse)
    assert [f["code"] for f in content["findings"]] == ["missing-slices"]
    assert content["spacing"]["z"] is None


def test_info_of_a_file_describes_it_alone(chest_folder):
    assert "shape           1  48  64" in run("info", chest_folder / "body-0001.dcm").output


def test_info_of_a_file_with_siblings_describes_its_series(chest_folder):
    assert "shape           24  48  64" in run("info", chest_folder / "body-0001.dcm", "--siblings").output


@pytest.mark.parametrize("series", ["4", "Phantom CT"])
def test_a_series_is_chosen(folder, series):
    assert "modality        CT" in run("info", folder, "--series", series).output


def test_missing_slices_are_filled_if_asked(folder):
    assert "shape           6  6  8" in run("info", folder / "ct", "--missing", "fill").output


@pytest.fixture
def doubled(tmp_path):
    """A CT of four slices that is there twice, with other pixels, so that nothing tells the images apart."""
    for name in ("one", "two"):
        values = np.random.default_rng(len(name) + ord(name[0])).integers(0, 99, (4, 5, 6))
        write_series(tmp_path / "doubled" / name, values, spacing=(3.0, 1.0, 1.0))
    for path in (tmp_path / "doubled" / "two").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID[:60]}.77"
        dataset.save_as(path)
    return tmp_path / "doubled"


def test_what_becomes_of_duplicates_is_chosen(doubled):
    result = run("info", doubled)
    assert result.exit_code == 1
    assert "--duplicates first keeps" in result.stderr
    assert "shape           4  5  6" in run("info", doubled, "--duplicates", "first").output
    assert "shape           2  4  5  6" in run("info", doubled, "--duplicates", "axis").output


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Give another name, or overwrite=True.", "Give another name, or --overwrite."),
        ("duplicates='first' keeps the one", "--duplicates first keeps the one"),
        ('keep the UIDs with identifiers="uids".', "keep the UIDs with --identifiers uids."),
        ("Choose one with series= its UID", "Choose one with --series its UID"),
        ("fits series='Head and neck'", "fits --series 'Head and neck'"),
        ('Open the series with dtype="int32".', 'Open the series with dtype="int32".'),
    ],
    ids=lambda text: text,
)
def test_a_message_names_the_options_of_the_shell(message, shown):
    assert with_options(message) == shown


def test_findings_name_the_options_of_the_shell(folder):
    text = run("info", folder / "ct").output
    assert "missing-slices" in text
    assert "missing='" not in text
    assert "--missing fill" in text


def test_scan_of_a_store_says_what_it_is(store):
    result = run("scan", store)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{store} is a Zarr store" in result.stderr
    assert f"lazyvol info {store}" in result.stderr


def test_a_store_has_no_series_to_choose(store):
    result = run("info", store, "--series", "4")
    assert result.exit_code == 1
    assert "is a Zarr store, which holds one volume; --series is for DICOM" in result.stderr


@pytest.mark.parametrize("words", [["scan"], ["info"], ["info", "--json"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_gets_no_message(chest_folder, words):
    command = [sys.executable, "-m", "lazyvol", *words, str(chest_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


# convert


def test_convert_writes_a_store(chest_folder, tmp_path):
    result = run("convert", chest_folder, tmp_path / "out.zarr")
    assert result.exit_code == 0
    assert f"wrote {tmp_path / 'out.zarr'}" in result.output
    np.testing.assert_array_equal(lv.open_zarr(tmp_path / "out.zarr"), lv.open_volume(chest_folder))


def test_convert_shows_progress_where_somebody_looks(chest_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("lazyvol.cli.has_terminal", lambda: True)
    assert "save:   0%" in run("convert", chest_folder, tmp_path / "out.zarr").stderr


def test_convert_writes_no_uid_unless_asked(chest_folder, tmp_path):
    run("convert", chest_folder, tmp_path / "none.zarr")
    run("convert", chest_folder, tmp_path / "uids.zarr", "--identifiers", "uids")
    uids = list(lv.open_volume(chest_folder).sop_instance_uid.values)
    assert list(lv.open_zarr(tmp_path / "uids.zarr").sop_instance_uid.values) == uids
    assert not set(lv.open_zarr(tmp_path / "none.zarr").sop_instance_uid.values) & set(uids)


def test_convert_does_not_overwrite(chest_folder, store):
    result = run("convert", chest_folder / "body-0001.dcm", store)
    assert result.exit_code == 1
    assert "exists" in result.stderr


def test_convert_of_what_is_there_already_has_nothing_to_do(chest_folder, store):
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*")}
    assert run("convert", chest_folder, store).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*")} == before


def test_convert_overwrites_if_asked(chest_folder, store):
    assert run("convert", chest_folder / "body-0001.dcm", store, "--overwrite").exit_code == 0
    assert lv.open_zarr(store).sizes["z"] == 1


# plot


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_plot_writes_a_picture(chest_folder, tmp_path, suffix):
    path = tmp_path / f"slice.{suffix}"
    assert run("plot", chest_folder, "--z", "100", "--window", "lung", "-o", path).exit_code == 0
    assert path.stat().st_size > 1000


def test_plot_of_a_store_is_that_of_its_series(chest_folder, store, tmp_path):
    for name, path in (("a", chest_folder), ("b", store)):
        run("plot", path, "--y", "0", "-o", tmp_path / f"{name}.png")
    np.testing.assert_array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


def test_plot_takes_centre_and_width(chest_folder, tmp_path):
    for name, window in (("a", "lung"), ("b", "-600,1500"), ("c", "0,100")):
        assert (
            run("plot", chest_folder, "--z", "100", "--window", window, "-o", tmp_path / f"{name}.png").exit_code == 0
        )
    a, b, c = (imread(tmp_path / f"{n}.png") for n in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_plot_draws_several_cuts(chest_folder, tmp_path):
    assert run("plot", chest_folder, "--z", "0", "--z", "100", "--x", "5", "-o", tmp_path / "a.png").exit_code == 0


def test_plot_without_a_position_draws_the_middle(chest_folder, tmp_path):
    assert run("plot", chest_folder, "-o", tmp_path / "a.png").exit_code == 0


# demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Folder of a demo with coarser pixels, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "d"
    with pytest.MonkeyPatch.context() as patch:
        coarse = partial(phantom.write_body_ct, shape=(160, 48, 64), spacing=(6.0, 8.0, 8.0))
        patch.setattr(phantom, "write_body_ct", coarse)
        return folder, run("demo", folder)


def test_the_demo_does_the_main_job(demo):
    _, result = demo
    assert result.exit_code == 0
    for step in ("1  write", "2  scan: 160 images in 1 series", "3  open:", "4  field of view: 960 x 384 x 512 mm"):
        assert step in result.output
    assert "equal to the DICOM series when opened again" in result.output
    assert "NOT equal" not in result.output


def test_the_demo_leaves_files_store_and_pictures(demo):
    folder, _ = demo
    assert {p.name for p in folder.iterdir()} == {"dicom", "body.zarr", "slices.png", "lung.png"}
    assert len(list((folder / "dicom").iterdir())) == 160


def test_the_demo_says_where_the_results_lie(demo):
    folder, result = demo
    assert f"All results are in {folder}" in result.output


# How it fails


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scan", "{}/nowhere"], "nowhere does not exist"),
        (["info", "{}/nowhere"], "nowhere does not exist"),
        (["info", "{}/data"], "holds 2 series"),
        (["info", "{}/data"], "Choose one with --series its UID"),
        (["info", "{}/data/ct", "--missing", "raise"], "--missing raise"),
        (["info", "{}/data", "--series", "9"], "none of which fits --series 9"),
        (["info", "{}/data/notes.txt"], "notes.txt: not DICOM"),
        (["info", "{}/data/ct", "--stack", "3"], "--stack 3 does not exist"),
        (["convert", "{}/nowhere", "{}/out.zarr"], "nowhere does not exist"),
        (["plot", "{}/data/ct", "--z", "999", "-o", "{}/a.png"], "z = 999 mm lies outside the volume, which extends"),
        (
            ["plot", "{}/data/ct", "--window", "lungs", "-o", "{}/a.png"],
            "no window 'lungs'. Known are 'SOFT TISSUE'",
        ),
        (["plot", "{}/data/ct", "-o", "{}/a.nothing"], "cannot be written"),
        (["plot", "{}/data/ct", "-o", "{}/nowhere/a.png"], "cannot be written"),
        (["convert", "{}/data/ct", "{}/data/notes.txt/out.zarr"], "notes.txt"),
        (["demo", "{}/data/notes.txt"], "notes.txt"),
        (["convert", "{}/data/ct", "s3://bucket/a.zarr"], "cannot be reached"),
    ],
    ids=lambda v: " ".join(v).replace("{}/", "") if isinstance(v, list) else "",
)
def test_a_clear_error_is_one_message_with_exit_code_1(folder, tmp_path, words, message):
    assert folder.parent == tmp_path
    result = run(*[w.format(tmp_path) for w in words])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_incomplete_store_is_an_error_with_exit_code_1(store):
    shutil.rmtree(store / "scale0" / "image" / "c")
    store.rename(f"{store}.partial")
    result = run("info", store)
    assert result.exit_code == 1
    assert "is incomplete" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["info"],
        ["scan", "a", "b"],
        ["plot", "a", "--z", "left"],
        ["info", "a", "--what"],
        ["convert", "a"],
        ["convert", "a", "b", "--identifiers", "all"],
        ["info", "a", "--missing", "perhaps"],
        ["plot", "a", "--duplicates", "all"],
    ],
    ids=lambda w: " ".join(w) or "nothing at all",
)
def test_wrong_usage_has_exit_code_2(words):
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["scan", "-h"], ["plot", "--help"], ["--version"]], ids=str)
def test_help_has_exit_code_0(words):
    assert run(*words).exit_code == 0


@pytest.mark.parametrize("words", [["scan"], ["scan", "--json"], ["info"], ["info", "--json"]], ids=" ".join)
def test_no_output_names_the_patient(chest_folder, words):
    output = run(*words, chest_folder).output
    assert [k for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and v in output] == []


def test_messages_of_errors_do_not_name_the_patient(folder, tmp_path):
    path = next((folder / "ct").iterdir())
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 20)
    output = run("convert", folder / "ct", tmp_path / "a.zarr").output
    assert "is cut short" in output
    assert [k for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and v in output] == []


@pytest.mark.parametrize(
    "command", [["-m", "lazyvol"], ["-c", "from lazyvol.cli import main; main()"]], ids=["-m", "main"]
)
def test_the_command_runs_as_a_process(chest_folder, tmp_path, command):
    given = [sys.executable, *command, "info", str(chest_folder), "--json"]
    done = subprocess.run(given, check=True, capture_output=True, cwd=tmp_path, env=dict(os.environ))
    assert json.loads(done.stdout)["dtype"] == "int16"


def test_another_zarr_store_is_said_to_be_one(tmp_path):
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "a.zarr", consolidated=False)
    assert "no Zarr store that lazyvol wrote" in run("info", tmp_path / "a.zarr").stderr


# What the values are


@pytest.fixture
def cut_short(tmp_path):
    """A series of six slices whose third is cut short."""
    folder = tmp_path / "cut"
    write_series(folder, np.arange(6 * 8 * 9, dtype="i2").reshape(6, 8, 9), spacing=(2.0, 1.0, 1.0))
    path = Path(str(lv.open_volume(folder).source.values[2]))
    path.write_bytes(path.read_bytes()[:-20])
    return folder


@pytest.mark.parametrize(("option", "dtype"), [("--no-rescale", "uint16"), ("--mask-padding", "float32")])
def test_info_takes_what_the_values_are(cut_short, option, dtype):
    result = run("info", str(cut_short), option, "--json")
    assert json.loads(result.output)["dtype"] == dtype


def test_values_that_the_header_lacks_are_an_error_that_names_the_option(cut_short):
    result = run("info", str(cut_short), "--values", "real_world")
    assert result.exit_code == 1
    assert "--values real_world needs RealWorldValueMappingSequence" in result.output


@pytest.mark.filterwarnings("always::lazyvol.errors.LazyvolWarning")
def test_convert_goes_on_where_a_frame_cannot_be_read(cut_short, tmp_path):
    result = run("convert", str(cut_short), str(tmp_path / "a.zarr"), "--on-error", "fill")
    assert result.exit_code == 0
    assert "Warning: " in result.output
    assert "frames-filled" in run("info", str(tmp_path / "a.zarr")).output


def test_convert_without_it_names_the_file_and_the_option(cut_short, tmp_path):
    result = run("convert", str(cut_short), str(tmp_path / "a.zarr"))
    assert result.exit_code == 1
    assert "--on-error fill" in result.output
