"""The bench gives right answers, on four small slices, and says so where it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

BENCH = Path(__file__).with_name("bench")
sys.path.insert(0, str(BENCH))
try:
    import data
    import limits
    import report
    import run
    import worker
    from place import Place
    from rows import ROWS
    from stores import make_stores
finally:
    sys.path.remove(str(BENCH))

WORKS = [pytest.param(row, name, id=f"{row}-{name}".replace(" ", "-")) for row, of in ROWS.items() for name in of.works]
LOOPS = [limits.load, lambda _folder: None]
COMPILED = pytest.mark.parametrize("load", LOOPS, ids=["compiled", "python"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data of four slices, with the stores that slices are read from."""
    made = tmp_path_factory.mktemp("bench")
    data.make_data(made, run.TINY)
    for part in ("warm", "work"):
        make_stores(Place(made / part))
    return made


@pytest.mark.parametrize(("row", "competitor"), WORKS)
def test_an_answer_is_right(folder, row, competitor):
    found = worker.measure(row, competitor, folder)
    if found.get("absent", "").startswith("not installed"):
        pytest.skip(found["absent"])
    known_to_be_wrong = competitor == "imageio" and row not in ("index", "collection", "mean")
    assert found["check"].startswith("WRONG" if known_to_be_wrong else "ok"), found


@COMPILED
def test_loops_of_the_limits_read_what_was_written(folder, load):
    loops, place = load(folder), Place(folder / "work")
    paths, offsets, shape = place.ordered, place.known["offsets"], place.known["shape"]
    limits.heads(loops, paths)
    planes = np.empty(shape, np.int16)
    limits.planes(loops, paths, offsets, -1024, planes)
    assert ROWS["volume"].check(planes, place) == "ok"
    crossing = limits.cross(loops, paths, offsets, shape, place.centre, -1024)
    assert ROWS["cross"].check(crossing, place) == "ok"


@COMPILED
def test_a_file_that_a_limit_cannot_read_whole_stops_it(folder, load):
    place = Place(folder / "work")
    beyond = [offset + 1 for offset in place.known["offsets"]]
    with pytest.raises(OSError, match="could not be read whole"):
        limits.planes(load(folder), place.ordered, beyond, 0, np.empty(place.known["shape"], np.int16))


def test_headers_are_like_those_of_a_scanner(folder):
    place = Place(folder / "work")
    headers = [dcmread(path, stop_before_pixels=True) for path in place.ordered]
    assert [h.InstanceNumber for h in headers] == [4, 3, 2, 1]
    assert 110 < len(headers[0]) < 120
    assert all(4600 < offset < 4900 for offset in place.known["offsets"])
    assert len({h.SOPInstanceUID for h in headers}) == len({h.AcquisitionTime for h in headers}) == 4


@pytest.mark.parametrize("wrong", ["volume[::-1]", "volume + 1", "volume[1:]", "volume + 0.5"])
def test_a_wrong_volume_is_found_out(folder, wrong):
    place = Place(folder / "work")
    volume = ROWS["volume"].works["limit"](place)()
    assert ROWS["volume"].check(eval(wrong, {"volume": volume}), place).startswith("WRONG")


def test_a_wrong_order_is_found_out(folder):
    place = Place(folder / "work")
    (index,) = ROWS["index"].works["lazyvol"](place)().values()
    assert ROWS["index"].check({place.known["uid"]: index}, place) == "ok"
    turned = type(index)(index.names[::-1], index.shape, index.spacing)
    assert ROWS["index"].check({place.known["uid"]: turned}, place) == "WRONG: order"


def figures(ms, check="ok"):
    """What a process would have measured."""
    return {"ms": ms, "cpu_ms": ms, "peak_mb": 1.0, "child_mb": 0.0, "check": check}


def result_of(rounds, absent=None):
    return report.Result("mean", ROWS["mean"], tuple(rounds), absent or {})


def test_ratios_are_taken_within_a_round():
    rounds = [{"limit": figures(limit), "lazyvol": figures(ours)} for limit, ours in ((1, 3), (2, 4), (10, 90))]
    ours = result_of(rounds).lines()[1]
    assert ours[:6] == ("lazyvol", "3.00", "3.00", "3.00", "3", "4.0")


@pytest.mark.parametrize(
    ("found", "says"),
    [({"lazyvol": figures(1, "WRONG values")}, "WRONG values"), ({}, "failed: KeyError")],
    ids=["wrong", "failed"],
)
def test_a_wrong_answer_of_ours_stops_the_bench(folder, monkeypatch, found, says):
    absent = {} if found else {"lazyvol": says}
    monkeypatch.setattr(run, "_row", lambda *_: result_of([{"limit": figures(1), **found}], absent))
    monkeypatch.setattr(sys, "argv", ["run.py", "--tiny", "--data", str(folder), "--rows", "mean"])
    with pytest.raises(SystemExit, match=says):
        run.main()


def test_the_table_goes_between_the_markers_of_its_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    text = report.as_markdown([result_of([{"limit": figures(1), "lazyvol": figures(2)}])], "", ["--data", "here"])
    report.put_between(page, text)
    written = page.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "| lazyvol | 2.00 | 2.00 | 2.00 | 3 |" in written
    assert "old" not in written
    assert "here" not in written


def test_results_of_rows_run_one_after_the_other_make_one_table(tmp_path):
    older, newer = (report.Result(key, ROWS[key], ({"limit": figures(1)},), {}) for key in ("volume", "index"))
    run._kept(tmp_path / "kept.json", [older])
    assert run._kept(tmp_path / "kept.json", [newer]) == [newer, older]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be set back here")
def test_memory_is_that_of_the_timed_part(folder):
    held = np.ones(2_000_000)
    found, answer = worker.timed(lambda: float(np.ones(5_000_000).sum()))
    assert answer == 5_000_000
    assert 39 < found["peak_mb"] < 39 + held.nbytes / 1e6


@pytest.mark.parametrize(
    ("script", "options", "shows"),
    [
        ("run.py", ["--tiny", "--rounds", "1", "--rows", "index", "--only", "limit,lazyvol"], "lazyvol"),
        ("scale.py", ["--files", "3", "--gigabytes", "0.001", "--rounds", "1"], "| 0.001 | save |"),
    ],
    ids=["run", "scale"],
)
def test_a_program_measures_and_prints(script, options, shows):
    done = subprocess.run([sys.executable, BENCH / script, *options], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert shows in done.stdout
