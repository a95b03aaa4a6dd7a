"""Collections saved as stores: whole, resumed, on a cluster, with what fails recorded; and opened again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import series_made as made
import xarray as xr
from commands import run

import lazyvol as lv
from lazyvol.errors import OptionError, StoreError
from lazyvol.ledger import Ledger
from lazyvol.phantom import write_series


@pytest.fixture(scope="module")
def whole(archive):
    return lv.open_collection(archive[0], cache=None)


@pytest.fixture(scope="module")
def some(archive, whole):
    """A part with good series of each kind and all the bad ones."""
    keys = list(whole)
    return whole.select([*keys[:6], *keys[140:143], *keys[200:203], *keys[235:241], *keys[290:292], *keys[-15:]])


@pytest.fixture(scope="module")
def alone(some, tmp_path_factory):
    """A conversion that nothing disturbed: its folder and its report."""
    out = tmp_path_factory.mktemp("alone") / "out"
    return out, some.save_zarr(out)


def contents(report):
    return dict(zip(report["name"], report["content"], strict=True))


def test_each_series_is_a_store_and_each_bad_one_a_row_with_its_reason(archive, some, alone):
    out, report = alone
    rows = {(r.series_uid, r.stack): r for r in archive[1]}
    assert list(report.index) == list(some)
    for key, said in report.iterrows():
        assert (said["status"] == "done") is rows[key].saves, (key, said)
        assert bool(said["reason"]) is not rows[key].saves
    assert sorted(p.name for p in out.glob("*.zarr")) == sorted(
        f"{name}.zarr" for name in report["name"][report["status"] == "done"]
    )
    reasons = set(report["reason"][report["status"] == "failed"].str.partition(":")[0])
    assert reasons == {"PixelReadError", "UnsupportedSeriesError"}


def test_a_store_holds_the_volume(some, alone):
    out, report = alone
    for key, said in report[report["status"] == "done"].iterrows():
        np.testing.assert_array_equal(lv.open_zarr(out / f"{said['name']}.zarr"), some[key])


def test_nothing_beside_the_stores_names_a_patient_a_path_or_a_uid(archive, alone):
    out, _ = alone
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes() + str(path).encode()
            for secret in (b"SECRET", b"described", b"1.2.3.", b"1.2.2.", str(archive[0]).encode(), b"Fictitious"):
                assert secret not in content, (path, secret)


def test_saving_again_does_nothing(some, alone):
    out, report = alone
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and ".zarr/" in str(p)}
    again = some.save_zarr(out)
    assert contents(again) == contents(report)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and ".zarr/" in str(p)} == before


def test_the_result_opens_as_a_collection(some, alone):
    out, report = alone
    found = lv.open_collection(out)
    done = report[report["status"] == "done"]
    assert len(found) == len(done)
    assert set(found.table["name"]) == set(done["name"])
    assert set(found.table["kind"]) == {"store"}
    for key, said in done.iterrows():
        row = found.table[found.table["name"] == said["name"]].iloc[0]
        mine = some.table.loc[key]
        for column in ("modality", "images", "dims", "shape", "dtype", "patient", "orientation"):
            assert row[column] == mine[column], column
        np.testing.assert_allclose(row["spacing"], mine["spacing"])
    name = done["name"].iloc[0]
    np.testing.assert_array_equal(found[name], some[name])
    assert len(list(found.datatree().leaves)) == len(done)


def test_a_collection_of_stores_converts_too(alone, tmp_path):
    found = lv.open_collection(alone[0])
    keys = list(found)[:3]
    report = found.select(keys).save_zarr(tmp_path / "again")
    assert set(report["status"]) == {"done"}
    for key, said in report.iterrows():
        np.testing.assert_array_equal(lv.open_zarr(tmp_path / "again" / f"{said['name']}.zarr"), found[key])


def test_the_table_beside_the_stores_is_that_of_the_collection(some, alone):
    table = pd.read_csv(alone[0] / "index.csv")
    assert sorted(table["modality"]) == sorted(some.table["modality"])
    assert set(table["status"]) == {"done", "failed"}
    run = Ledger.read(str(alone[0])).run
    assert run["lazyvol"]
    assert run["options"]["identifiers"] == "none"


def test_a_changed_file_has_its_series_saved_again(tmp_path):
    made.write(tmp_path / "a", made.series(3))
    paths = made.write(tmp_path / "b", made.series(3, SeriesInstanceUID="1.2.3.8"))
    before = contents(lv.open_collection(tmp_path).save_zarr(tmp_path / "out"))
    content = bytearray(paths[1].read_bytes())
    content[-2] ^= 1
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(1, paths[1].stat().st_mtime_ns + 10**9))
    found = lv.open_collection(tmp_path).query("kind == 'dicom'")
    after = contents(found.save_zarr(tmp_path / "out"))
    assert sum(after[name] != before[name] for name in before) == 1
    for name in after:
        np.testing.assert_array_equal(lv.open_zarr(tmp_path / "out" / f"{name}.zarr"), found[name])


def test_pixels_that_changed_though_size_and_time_did_not_are_saved_again(tmp_path):
    paths = made.write(tmp_path / "in", made.series(3))
    before = lv.open_collection(tmp_path / "in").save_zarr(tmp_path / "out")
    status = paths[1].stat()
    content = bytearray(paths[1].read_bytes())
    content[-2] ^= 1
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    found = lv.open_collection(tmp_path / "in")
    after = found.save_zarr(tmp_path / "out")
    assert contents(after) != contents(before)
    np.testing.assert_array_equal(
        lv.open_zarr(tmp_path / "out" / f"{after['name'].iloc[0]}.zarr"), next(iter(found.values()))
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["index.csv", "index.jsonl", f"{after['name'].iloc[0]}.zarr"]
    )


def test_labels_in_a_store_whose_files_changed_are_not_lost(tmp_path):
    paths = made.write(tmp_path / "in", made.series(3))
    found = lv.open_collection(tmp_path / "in")
    store = tmp_path / "out" / f"{found.save_zarr(tmp_path / 'out')['name'].iloc[0]}.zarr"
    lv.save_zarr((lv.open_zarr(store) > 0).astype("uint8"), store, group="labels/bone")
    os.utime(paths[1], ns=(1, 1))
    report = lv.open_collection(tmp_path / "in").save_zarr(tmp_path / "out")
    assert list(report["status"]) == ["failed"]
    assert "holds labels too" in report["reason"].iloc[0]
    assert lv.open_zarr(store, group="labels/bone").max() == 1


def test_chunks_of_the_store_and_of_dask_are_two_options(tmp_path):
    made.write(tmp_path / "in", made.series(6))
    found = lv.open_collection(tmp_path / "in")
    found.save_zarr(tmp_path / "out", options={"chunks": {"z": 2}}, chunks={"z": 3})
    (store,) = (tmp_path / "out").glob("*.zarr")
    found.save_zarr(tmp_path / "out", options={"chunks": {"z": 3}}, chunks={"z": 3})
    import zarr

    assert zarr.open_array(store, path="scale0/image", mode="r").chunks[0] == 3


def test_other_options_save_all_again(tmp_path):
    made.write(tmp_path / "a", made.series(6))
    found = lv.open_collection(tmp_path)
    found.save_zarr(tmp_path / "out", options={"levels": 1})
    found.save_zarr(tmp_path / "out", options={"levels": 2})
    (store,) = (tmp_path / "out").glob("*.zarr")
    assert lv.open_zarr(store, level=1).shape == (6, made.ROWS // 2, made.COLUMNS // 2)


def test_a_store_that_was_removed_is_made_again(tmp_path):
    import shutil

    made.write(tmp_path / "a", made.series(3))
    found = lv.open_collection(tmp_path)
    found.save_zarr(tmp_path / "out")
    (store,) = (tmp_path / "out").glob("*.zarr")
    shutil.rmtree(store)
    found.save_zarr(tmp_path / "out")
    np.testing.assert_array_equal(lv.open_zarr(store), next(iter(found.values())))


def test_a_failure_that_is_mended_is_tried_again(tmp_path):
    paths = made.write(tmp_path / "a", made.series(3))
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:-50])
    report = lv.open_collection(tmp_path).save_zarr(tmp_path / "out")
    assert list(report["status"]) == ["failed"]
    assert paths[1].name not in (tmp_path / "out" / "index.jsonl").read_text()
    paths[1].write_bytes(content)
    report = lv.open_collection(tmp_path).query("kind == 'dicom'").save_zarr(tmp_path / "out")
    assert list(report["status"]) == ["done"]


def test_a_failure_raises_if_that_is_asked_for(some, tmp_path):
    with pytest.raises(lv.LazyvolError):
        some.save_zarr(tmp_path / "out", on_error="raise")


@pytest.mark.parametrize(
    "options",
    [
        {"on_error": "ignore"},
        {"identifiers": "all"},
        {"colour": 1},
        {"stack": 1},
        {"options": {"colour": 1}},
        {"options": {"overwrite": True}},
        {"options": 3},
        {"client": 3},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_named(some, tmp_path, options):
    with pytest.raises(OptionError):
        some.save_zarr(tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("*.zarr"))


def test_an_option_that_suits_no_series_is_an_error(some, tmp_path):
    with pytest.raises(OptionError, match="levels"):
        some.query("modality == 'PT'").save_zarr(tmp_path / "out", options={"levels": 0})


def test_frames_that_cannot_be_read_are_filled_if_asked_for(tmp_path):
    paths = made.write(tmp_path / "in", made.series(3))
    paths[1].write_bytes(paths[1].read_bytes()[:-50])
    with pytest.warns(lv.errors.LazyvolWarning):
        report = lv.open_collection(tmp_path / "in").save_zarr(tmp_path / "out", on_error="fill")
    assert list(report["status"]) == ["done"]
    assert np.isnan(lv.open_zarr(tmp_path / "out" / f"{report['name'].iloc[0]}.zarr")[1]).all()


def test_another_key_is_noticed(some, alone, monkeypatch):
    monkeypatch.setenv("LAZYVOL_KEY", "another")
    with pytest.raises(StoreError, match="under another key"):
        some.save_zarr(alone[0])


def test_a_store_that_lost_a_part_is_made_again(tmp_path):
    import shutil

    made.write(tmp_path / "a", made.series(3))
    found = lv.open_collection(tmp_path / "a")
    report = found.save_zarr(tmp_path / "out")
    store = tmp_path / "out" / f"{report['name'].iloc[0]}.zarr"
    shutil.rmtree(store / "scale0" / "image" / "c")
    found.save_zarr(tmp_path / "out")
    np.testing.assert_array_equal(lv.open_zarr(store), next(iter(found.values())))
    shutil.rmtree(store)
    assert run("status", tmp_path / "out").output == "0 done, 0 failed, 0 to come, 1 lost\n"


def test_a_reason_holds_no_uid_and_no_description(tmp_path):
    paths = made.write(tmp_path / "in", made.series(3))
    found = lv.open_collection(tmp_path / "in")
    from lazyvol.work import reason_of

    said = reason_of(ValueError(f"UID 1.2.840.10008.5.1, 'made' in {paths[0]}"), [str(paths[0]), "made"])
    assert said == "ValueError: UID ..., '...' in ..."
    assert len(found) == 1


@pytest.mark.parametrize("out", ["s3://bucket/out", "{}/a.zarr"])
def test_a_place_that_cannot_hold_stores_is_named(some, tmp_path, out):
    lv.save_zarr(next(iter(some.values())), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="is no folder for stores"):
        some.save_zarr(out.format(tmp_path))


def test_two_conversions_to_one_folder_do_not_go_on_at_once(some, tmp_path):
    from lazyvol.lock import locked

    with locked(str(tmp_path / "out")), pytest.raises(StoreError, match="is being written by process"):
        some.save_zarr(tmp_path / "out")


@pytest.mark.parametrize("lives", [False, True])
def test_a_task_of_a_host_that_was_lost_is_done_by_another(tmp_path, monkeypatch, lives):
    import threading

    monkeypatch.setattr("lazyvol.lock._HEARTBEAT", 0.2)
    made.write(tmp_path / "in", made.series(3))
    found = lv.open_collection(tmp_path / "in", cache=None)
    (name,) = found.save_zarr(tmp_path / "first")["name"]
    lock = tmp_path / "out" / f"{name}.zarr.partial" / "lazyvol.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"host": "elsewhere", "pid": 1, "token": "a"}')
    done = threading.Event()

    def live():
        while not done.wait(0.05):
            os.utime(lock)

    alive = threading.Thread(target=live)
    if lives:
        alive.start()
    report = found.save_zarr(tmp_path / "out")
    done.set()
    if lives:
        alive.join()
    assert list(report["status"]) == ["failed" if lives else "done"]
    assert ("is being written by process 1 on elsewhere" in report["reason"].iloc[0]) is lives


def test_choices_of_open_volume_are_taken(tmp_path):
    made.write(tmp_path / "a", made.series(at=[0, 1, 3]))
    lv.open_collection(tmp_path).save_zarr(tmp_path / "out", missing="fill")
    (store,) = (tmp_path / "out").glob("*.zarr")
    assert lv.open_zarr(store).sizes["z"] == 4


# Interrupted
SCRIPT = """
import sys
import lazyvol as lv

lv.open_collection(sys.argv[1], cache=None).save_zarr(sys.argv[2])
"""


@pytest.mark.slow
def test_a_conversion_of_300_series_that_is_killed_three_times_ends_as_one_left_alone(archive, whole, tmp_path):
    alone = whole.save_zarr(tmp_path / "alone")
    out, killed = tmp_path / "out", 0
    for share in (0.2, 0.5, 0.8):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(archive[0]), str(out)])
        while process.poll() is None:
            told = len(Ledger.read(str(out)).series)
            if told >= share * len(whole):
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.01)
        process.wait()
    assert killed == 3
    done = [n for n, r in Ledger.read(str(out)).series.items() if r["status"] == "done"]
    assert 0 < len(done) < len(whole)
    before = {n: (out / f"{n}.zarr" / "zarr.json").stat().st_mtime_ns for n in done}
    report = whole.save_zarr(out)
    assert contents(report) == contents(alone)
    pd.testing.assert_series_equal(report["status"], alone["status"])
    assert {n: (out / f"{n}.zarr" / "zarr.json").stat().st_mtime_ns for n in done} == before, "done twice"
    failed = report["name"][report["status"] == "failed"]
    assert {p.name for p in out.glob("*.partial")} <= {f"{name}.zarr.partial" for name in failed}
    for name in report["name"][report["status"] == "done"]:
        assert lv.verify_zarr(out / f"{name}.zarr").damaged == ()


# On a cluster
distributed = pytest.importorskip("distributed", reason="distributed is absent: install lazyvol[distributed]")
quiet = [
    pytest.mark.filterwarnings("ignore:Sending large graph:UserWarning"),
    pytest.mark.filterwarnings("ignore:Port [0-9]+ is already in use:UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client():
    """Two processes of one thread and 600 MB each."""
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "600MB", "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def counts_of(volume):
    with __import__("dask").config.set(scheduler="synchronous"):
        return lv.histogram(volume, 32, limits=(-1024, 3000))[0].tolist()


class TestOnACluster:
    pytestmark = quiet

    def test_the_same_is_saved(self, some, alone, client, tmp_path):
        report = some.save_zarr(tmp_path / "out", client=client)
        assert contents(report) == contents(alone[1])
        assert list(report["reason"]) == list(alone[1]["reason"])

    def test_the_same_is_found_by_a_scan(self, archive, whole, client):
        again = lv.open_collection(archive[0], cache=None, client=client)
        pd.testing.assert_frame_equal(again.table, whole.table)

    def test_the_same_numbers_come_of_threads_and_processes(self, some, client):
        remote = some.map(lv.volume_statistics, client=client)
        import dask

        with dask.config.set(scheduler="threads"):
            local = some.map(lv.volume_statistics, client=None)
        pd.testing.assert_frame_equal(remote.drop(columns="error"), local.drop(columns="error"))
        counts = some.map(counts_of, client=client)["result"]
        for key, remotely in counts[counts.notna()].items():
            np.testing.assert_array_equal(remotely, counts_of(some[key]))
        with dask.config.set(scheduler="processes"):
            volume = next(iter(some.values()))
            assert lv.volume_statistics(volume) == local.iloc[0].drop("error").to_dict()

    def test_results_that_cannot_be_sent_cost_their_rows_alone(self, some, client):
        part = some.select(list(some)[:3])
        table = part.map(lambda v: (n for n in [1]) if v.sizes["z"] == 3 else v.sizes["z"], client=client)
        assert sum(text != "" for text in table["error"]) == 1
        lock = __import__("threading").Lock()
        with pytest.raises(OptionError, match="cannot be sent to a cluster"):
            part.map(lambda _v: lock, client=client)

    def test_a_worker_that_is_killed_on_the_way_costs_no_series(self, some, alone, client, tmp_path):
        pids = list(client.run(os.getpid).values())
        import threading

        def kill():
            while len(Ledger.read(str(tmp_path / "out")).series) < 3:
                time.sleep(0.01)
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        report = some.save_zarr(tmp_path / "out", client=client)
        killer.join()
        assert contents(report) == contents(alone[1])


# In a shell
@pytest.fixture
def small(tmp_path):
    """A CT, and a PET that is cut short."""
    write_series(tmp_path / "in" / "ct", np.zeros((3, 6, 8)), spacing=(3.0, 0.9, 0.7))
    paths = write_series(tmp_path / "in" / "pt", np.ones((3, 6, 8)), spacing=(3.0, 0.9, 0.7), modality="PT")
    paths[0].write_bytes(paths[0].read_bytes()[:-20])
    return tmp_path / "in"


def test_convert_makes_a_store_of_each_series_and_says_what_failed(small, tmp_path):
    result = run("convert", small, tmp_path / "out")
    assert result.output.startswith(f"wrote 1 stores to {tmp_path / 'out'}, 1 of 2 series failed\n  1 x PixelReadError")
    assert result.exit_code == 1


def test_status_says_how_far_a_conversion_is(small, tmp_path):
    run("convert", small, tmp_path / "out", "--levels", "1")
    lines = run("status", tmp_path / "out").output.splitlines()
    assert lines[0] == "1 done, 1 failed, 0 to come"
    assert lines[1].startswith("  PT-")
    said = json.loads(run("status", tmp_path / "out", "--json").output)
    assert (said["done"], said["failed"], len(said["series"])) == (1, 1, 2)


def test_status_of_what_is_no_conversion_says_so(tmp_path):
    result = run("status", tmp_path)
    assert result.exit_code == 1
    assert "holds no converted collection" in result.output


def test_convert_takes_a_part_and_options(small, tmp_path):
    run("convert", small, tmp_path / "out", "--where", "modality == 'CT'", "--levels", "1")
    assert run("status", tmp_path / "out").output == "1 done, 0 failed, 0 to come\n"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:Port [0-9]+ is already in use:UserWarning")
def test_convert_starts_a_cluster_with_bounded_memory(small, tmp_path):
    result = run("convert", small, tmp_path / "out", "--workers", "1", "--memory", "1GB")
    assert result.output.startswith("wrote 1 stores")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out.zarr", "--where", "images > 1"], "are for collections"),
        (["out", "--memory", "1GB"], "Give both"),
        (["out", "--where", "colour == 1"], "cannot be evaluated"),
        (["out", "--workers", "1", "--memory", "1MB"], "no less than 500MB"),
        (["out", "--workers", "1", "--memory", "much"], "a size such as 2GB"),
        (["out", "--stack", "1"], "is for one volume"),
        (["out", "--overwrite"], "is for one volume"),
    ],
    ids=["one volume", "no workers", "no column", "little memory", "no size", "stack", "overwrite"],
)
def test_options_that_do_not_fit_are_named(small, tmp_path, words, said):
    result = run("convert", small, tmp_path / words[0], *words[1:])
    assert result.exit_code == 1
    assert said in result.output


def test_scan_shows_stores_as_well(small, tmp_path):
    run("convert", small, tmp_path / "out")
    assert "3x6x8" in run("scan", tmp_path / "out").output


def test_scan_writes_a_table(small, tmp_path):
    run("scan", small, "--table", tmp_path / "index.csv")
    assert len(pd.read_csv(tmp_path / "index.csv")) == 2


# The ledger
def give_store(folder):
    (folder / "a.zarr").mkdir()
    (folder / "a.zarr" / "zarr.json").write_text("{}")


def test_a_line_that_was_cut_off_is_none(tmp_path):
    give_store(tmp_path)
    ledger = Ledger(str(tmp_path))
    ledger.add({"lazyvol": "1", "series": 2})
    ledger.add({"name": "a", "status": "done"})
    with open(ledger.path, "ab") as file:
        file.write(b'{"name": "b", "sta')
    again = Ledger.read(str(tmp_path))
    assert again.counts() == {"done": 1, "failed": 0, "to come": 1}
    again.add({"name": "b", "status": "failed"})
    assert Ledger.read(str(tmp_path)).counts() == {"done": 1, "failed": 1, "to come": 0}
    assert again == Ledger.read(str(tmp_path))


def test_the_last_line_of_a_series_counts(tmp_path):
    give_store(tmp_path)
    ledger = Ledger(str(tmp_path))
    ledger.add({"lazyvol": "1", "series": 1})
    for status in ("failed", "done"):
        ledger.add({"name": "a", "status": status})
    assert Ledger.read(str(tmp_path)).counts() == {"done": 1, "failed": 0, "to come": 0}


def test_there_is_no_ledger_where_there_is_no_folder(tmp_path):
    assert Ledger.read(str(tmp_path / "nowhere")).series == {}


def test_a_store_opens_lazily_in_the_tree_of_a_conversion(alone):
    tree = xr.open_datatree(alone[0], engine="lazyvol", chunks={})
    assert all(leaf["image"].chunks for leaf in tree.leaves)


# On two hosts, as far as one machine can be two: a network and a name of its own for one worker
@pytest.fixture
def two_hosts():
    """A client of two workers, one of which is on another host."""
    name, subnet = f"lv{os.getpid() % 10000}", f"10.{os.getpid() % 200 + 20}.77"
    steps = [
        f"ip netns add {name}",
        f"ip link add {name}a type veth peer name {name}b netns {name}",
        f"ip addr add {subnet}.1/24 dev {name}a",
        f"ip link set {name}a up",
        f"ip netns exec {name} ip addr add {subnet}.2/24 dev {name}b",
        f"ip netns exec {name} ip link set {name}b up",
        f"ip netns exec {name} ip link set lo up",
    ]
    worker = None
    try:
        for step in steps:
            try:
                subprocess.run(step.split(), check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"no second host can be made: {step.split()[0]} needs more rights ({type(error).__name__})")
        options = {"n_workers": 1, "threads_per_worker": 1, "host": f"{subnet}.1", "dashboard_address": None}
        with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
            command = (
                f"hostname {name}; exec {sys.executable} -m distributed.cli.dask_worker {cluster.scheduler_address}"
            )
            words = ["ip", "netns", "exec", name, "unshare", "-u", "sh", "-c", f"{command} --nthreads 1 --no-dashboard"]
            worker = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            client.wait_for_workers(2, timeout=120)
            yield client, name
            worker.terminate()
            worker.wait()
    finally:
        if worker is not None and worker.poll() is None:
            worker.kill()
            worker.wait()
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


class TestOnTwoHosts:
    pytestmark = quiet

    def test_the_same_is_saved(self, some, alone, two_hosts, tmp_path):
        import socket

        client, name = two_hosts
        assert set(client.run(socket.gethostname).values()) == {socket.gethostname(), name}
        report = some.save_zarr(tmp_path / "out", client=client)
        assert contents(report) == contents(alone[1])

    def test_a_host_that_is_lost_costs_no_series(self, some, alone, two_hosts, tmp_path):
        import socket
        import threading

        def hurry():
            import lazyvol.lock

            lazyvol.lock._HEARTBEAT = 0.5
            return socket.gethostname(), os.getpid()

        client, name = two_hosts
        pid = dict(client.run(hurry).values())[name]
        killed = []

        def kill():
            while True:
                for lock in (tmp_path / "out").glob("*.partial/lazyvol.lock"):
                    with __import__("contextlib").suppress(OSError):
                        if json.loads(lock.read_text())["host"] == name:
                            os.kill(pid, signal.SIGKILL)
                            killed.append(lock.exists())
                            return
                time.sleep(0.001)

        killer = threading.Thread(target=kill)
        killer.start()
        report = some.save_zarr(tmp_path / "out", client=client)
        killer.join()
        assert killed
        assert contents(report) == contents(alone[1])
