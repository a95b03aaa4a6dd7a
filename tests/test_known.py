"""The cache of headers: what changed is read again, what is damaged is not believed, two processes may share one."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import series_made as made

import lazyvol as lv
from lazyvol import known, trees
from lazyvol.known import HeaderCache, Stamp
from lazyvol.trees import scan_tree

OLD = 1_500_000_000 * 10**9


@pytest.fixture(autouse=True)
def _all_is_old(monkeypatch):
    """What these tests made a moment ago counts as settled."""
    monkeypatch.setattr(known, "_FRESH", 0)


@pytest.fixture
def tree(tmp_path):
    """Three series in folders of their own, a text, and all of it older than now."""
    root = tmp_path / "tree"
    for n in range(3):
        made.write(root / f"{n}", made.series(4, SeriesInstanceUID=f"1.2.3.{n}", SeriesNumber=n, PatientID=f"P{n}"))
    (root / "1" / "notes.txt").write_text("nothing")
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(OLD, OLD))
    return root


@pytest.fixture
def cache(tmp_path):
    return HeaderCache(str(tmp_path / "headers.sqlite"))


def without_cache(tree):
    return scan_tree(str(tree), cache=HeaderCache(""))


def same(one, other):
    return (one.instances, one.skipped, one.stores) == (other.instances, other.skipped, other.stores)


def test_a_second_scan_reads_nothing_and_finds_the_same(tree, cache):
    first = scan_tree(str(tree), cache=cache)
    second = scan_tree(str(tree), cache=cache)
    assert (first.read, second.read) == (13, 0)
    assert same(first, second)
    assert same(first, without_cache(tree))


def test_a_second_scan_opens_no_file(tree, cache, monkeypatch):
    scan_tree(str(tree), cache=cache)
    monkeypatch.setattr(trees, "read_files", lambda paths: pytest.fail(f"read {paths}") if paths else [])
    assert len(scan_tree(str(tree), cache=cache).instances) == 12


def touch(path):
    os.utime(path, ns=(OLD, OLD + 10**9))


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0\0")
    os.utime(path, ns=(OLD, OLD))


def replace(path):
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(OLD, OLD))
    other.rename(path)


def write_in_place(path):
    """Change a value, and put the time of change back."""
    path.write_bytes(path.read_bytes().replace(b"made", b"MADE"))
    os.utime(path, ns=(OLD, OLD))


@pytest.mark.parametrize("change", [touch, lengthen, replace, write_in_place], ids=lambda f: f.__name__)
def test_a_file_that_changed_is_read_again_and_no_other(tree, cache, change):
    scan_tree(str(tree), cache=cache)
    change(next((tree / "1").glob("*.dcm")))
    again = scan_tree(str(tree), cache=cache)
    assert again.read == 1
    assert same(again, without_cache(tree))
    assert scan_tree(str(tree), cache=cache).read == 0


def test_files_that_come_and_go_are_noticed(tree, cache):
    scan_tree(str(tree), cache=cache)
    next((tree / "0").iterdir()).unlink()
    for path in made.write(tree / "3", made.series(2, SeriesInstanceUID="1.2.3.9")):
        os.utime(path, ns=(OLD, OLD))
    again = scan_tree(str(tree), cache=cache)
    assert again.read == 2
    assert same(again, without_cache(tree))


def test_a_folder_whose_name_is_no_utf8_is_known_too(tree, cache):
    os.rename(tree / "1", os.path.join(os.fsencode(tree), b"\xff\xfe"))
    first = scan_tree(str(tree), cache=cache)
    again = scan_tree(str(tree), cache=cache)
    assert (first.read, again.read) == (13, 0)
    assert same(first, again)


def test_a_file_that_was_changed_just_now_is_read_again(tree, cache, monkeypatch):
    monkeypatch.setattr(known, "_FRESH", 3600 * 10**9)
    scan_tree(str(tree), cache=cache)
    assert scan_tree(str(tree), cache=cache).read == 13


def test_a_tree_that_was_moved_is_found_with_its_new_paths(tree, cache):
    scan_tree(str(tree), cache=cache)
    tree.rename(tree.with_name("moved"))
    again = scan_tree(str(tree.with_name("moved")), cache=cache)
    assert all(i.path.startswith(str(tree.with_name("moved"))) for i in again.instances)


def test_what_could_not_be_opened_is_tried_again(tree, cache):
    (tree / "0" / "link").symlink_to(tree / "nowhere")
    first = scan_tree(str(tree), cache=cache)
    (skipped,) = [s for s in first.skipped if s.path.endswith("link")]
    assert skipped.reason == "cannot be opened: No such file or directory"
    assert scan_tree(str(tree), cache=cache).read == 1


# Damage
def garbage(path):
    path.write_bytes(b"no database at all" * 100)


def empty(path):
    path.write_bytes(b"")


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    for n in range(4096, len(content), 97):
        content[n] ^= 0x55
    path.write_bytes(content)


def other_table(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE folder (path TEXT, something BLOB)")
    connection.close()


@pytest.mark.parametrize("damage", [garbage, empty, cut, flipped, other_table], ids=lambda f: f.__name__)
def test_a_damaged_cache_is_not_believed(tree, cache, damage, tmp_path):
    scan_tree(str(tree), cache=cache)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"headers.sqlite{suffix}").unlink(missing_ok=True)
    damage(tmp_path / "headers.sqlite")
    again = scan_tree(str(tree), cache=HeaderCache(cache.path))
    assert same(again, without_cache(tree))
    if damage is not other_table:
        assert scan_tree(str(tree), cache=HeaderCache(cache.path)).read == 0


def test_a_file_that_is_no_cache_is_put_aside_and_not_lost(tree, tmp_path):
    (tmp_path / "notes.txt").write_text("precious " * 99)
    scan_tree(str(tree), cache=HeaderCache(str(tmp_path / "notes.txt")))
    assert (tmp_path / "notes.txt.damaged").read_text() == "precious " * 99


def test_the_database_of_something_else_is_left_alone(tree, tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    connection.close()
    before = path.read_bytes()
    cache = HeaderCache(str(path))
    assert same(scan_tree(str(tree), cache=cache), without_cache(tree))
    assert path.read_bytes() == before
    assert not cache.works


def rows_of(cache):
    with closing(sqlite3.connect(cache.path)) as connection:
        return connection.execute("SELECT path, digest, content FROM folder").fetchall()


def put(cache, rows):
    with sqlite3.connect(cache.path) as connection:
        connection.executemany("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", rows)
    connection.close()


def test_a_row_of_which_a_byte_changed_is_not_believed(tree, cache):
    scan_tree(str(tree), cache=cache)
    put(cache, [(p, d, bytes([c[0]]) + bytes([c[1] ^ 1]) + c[2:]) for p, d, c in rows_of(cache)])
    again = scan_tree(str(tree), cache=cache)
    assert again.read == 13
    assert same(again, without_cache(tree))


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def test_a_cache_that_somebody_else_wrote_runs_no_code(tree, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    scan_tree(str(tree), cache=cache)
    content = zlib.compress(pickle.dumps({"a": Evil()}))
    put(cache, [(path, cache._digest(content), content) for path, _, _ in rows_of(cache)])
    assert same(scan_tree(str(tree), cache=cache), without_cache(tree))
    assert not (tmp_path / "evil").exists()


def test_another_version_of_lazyvol_reads_anew(tree, cache, monkeypatch):
    scan_tree(str(tree), cache=cache)
    monkeypatch.setattr(known, "version", lambda _name: "99.0")
    assert scan_tree(str(tree), cache=HeaderCache(cache.path)).read == 13


@pytest.mark.parametrize(
    "place", ["a/file/headers.sqlite", "folder", "\ud800.sqlite"], ids=["below a file", "folder", "no UTF-8"]
)
def test_a_cache_that_cannot_be_made_is_none(tree, tmp_path, place):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("")
    (tmp_path / "folder").mkdir()
    cache = HeaderCache(str(tmp_path / place))
    assert same(scan_tree(str(tree), cache=cache), without_cache(tree))
    assert not cache.works


def test_a_cache_that_may_not_be_written_is_read(tree, cache):
    scan_tree(str(tree), cache=cache)
    os.chmod(cache.path, 0o400)
    assert same(scan_tree(str(tree), cache=HeaderCache(cache.path)), without_cache(tree))


# Two at once
SCRIPT = """
import sys
import lazyvol as lv
from lazyvol import known

known._FRESH = 0

found = lv.open_collection(sys.argv[1], cache=sys.argv[2])
print(found.table.drop(columns="path").to_csv())
"""


def test_two_processes_share_a_cache(tree, cache):
    for n in range(4, 40):
        for path in made.write(tree / f"{n}", made.series(3, SeriesInstanceUID=f"1.2.3.{n}", SeriesNumber=n)):
            os.utime(path, ns=(OLD, OLD))
    command = [sys.executable, "-c", SCRIPT, str(tree), cache.path]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    texts = [process.communicate()[0] for process in started]
    expected = lv.open_collection(tree, cache=None).table.drop(columns="path").to_csv()
    assert {text.strip() for text in texts} == {expected.strip()}
    assert scan_tree(str(tree), cache=cache).read == 0


def test_threads_share_a_cache(tree, cache):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: scan_tree(str(tree), cache=HeaderCache(cache.path)), range(8)))
    assert all(same(each, found[0]) for each in found)


def test_the_table_is_the_same_from_the_cache(tree, cache):
    tables = [lv.open_collection(tree, cache=cache.path).table for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)
    assert len(set(tables[1]["patient"])) == 3


def test_nothing_of_a_patient_is_in_the_cache(tree, cache):
    lv.open_collection(tree, cache=cache.path)
    texts = [zlib.decompress(content) for _, _, content in rows_of(cache)]
    assert not any(secret in text for text in texts for secret in (b"Fictitious", b"FICTITIOUS", b"P1", b"P2"))


def test_a_stamp_is_that_of_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    os.utime(path, ns=(OLD, OLD))
    assert Stamp.of(path.stat()) == (5, OLD, path.stat().st_ctime_ns, path.stat().st_ino)


def test_stores_are_found_and_not_looked_into(tree, tmp_path):
    lv.save_zarr(lv.open_volume(tree / "0"), tree / "deep" / "a.zarr")
    (tree / "deep" / "a.zarr" / "scale0" / "image" / "c" / "stray.dcm").write_bytes(
        made.encode(made.image(0, made.ORIGIN))
    )
    found = scan_tree(str(tree), cache=HeaderCache(""))
    assert found.stores == (str(tree / "deep" / "a.zarr"),)
    assert len(found.instances) == 12
    (volume,) = lv.open_collection(tree).query("kind == 'store'").values()
    np.testing.assert_array_equal(volume, lv.open_volume(tree / "0"))


def test_a_store_that_is_incomplete_is_skipped_with_its_reason(tree):
    lv.save_zarr(lv.open_volume(tree / "0"), tree / "a.zarr")
    next(p for p in (tree / "a.zarr" / "scale0" / "image" / "c").rglob("*") if p.is_file()).unlink()
    found = lv.open_collection(tree)
    assert set(found.table["kind"]) == {"dicom"}
    assert any("is incomplete" in s.reason for s in found.skipped)


@pytest.mark.parametrize("protocol", ["memory"])
def test_a_bucket_is_a_collection_too(tree, protocol):
    import fsspec

    files = fsspec.filesystem(protocol)
    for path in tree.rglob("*"):
        if path.is_file():
            files.pipe(f"/bucket/{path.relative_to(tree)}", path.read_bytes())
    lv.save_zarr(lv.open_volume(tree / "0"), f"{protocol}://bucket/saved/a.zarr")
    found = lv.open_collection(f"{protocol}://bucket")
    assert sorted(found.table["kind"]) == ["dicom"] * 3 + ["store"]
    for key, kind in found.table["kind"].items():
        assert found[key].shape == (4, made.ROWS, made.COLUMNS), kind
    files.rm("/bucket", recursive=True)
