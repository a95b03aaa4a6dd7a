"""Privacy: a store tells nobody who was scanned, where the files lie, or which UIDs they have."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import zarr
from pydicom.uid import UID

import lazyvol as lv
from lazyvol.phantom import FICTITIOUS_PATIENT, write_series
from lazyvol.privacy import pseudonym, read_key

UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


@pytest.fixture
def folder(tmp_path):
    """A series in a folder whose name is a secret, with one slice missing so that there is a finding."""
    folder = tmp_path / "Secret^Folder"
    paths = write_series(folder, np.random.default_rng(1).integers(0, 99, (6, 8, 9)), spacing=(3.0, 1.0, 1.0))
    paths[2].unlink()
    return folder


@pytest.fixture
def store(tmp_path, folder):
    lv.save_zarr(lv.open_volume(folder), tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def all_of(store):
    """Return every byte of a store, and every array and attribute in it decoded."""
    found = [str(p.relative_to(store)).encode() + p.read_bytes() for p in store.rglob("*") if p.is_file()]
    root = zarr.open_group(store, mode="r")
    for _, member in root.members(max_depth=None):
        found.append(str(dict(member.attrs)).encode())
        if isinstance(member, zarr.Array):
            found.append(" ".join(map(str, np.ravel(member[...]))).encode())
    return b"\n".join(found)


@pytest.mark.parametrize("keyword", UIDS)
def test_no_uid_is_in_a_store(folder, store, keyword):
    content = all_of(store)
    uids = {str(pydicom.dcmread(p)[keyword].value).encode() for p in folder.iterdir()}
    assert [u for u in uids if u in content] == []


@pytest.mark.parametrize("keyword", [k for k in FICTITIOUS_PATIENT if k != "PatientSex"])
def test_nothing_of_the_patient_is_in_a_store(store, keyword):
    assert FICTITIOUS_PATIENT[keyword].encode() not in all_of(store)


@pytest.mark.parametrize(
    "word", ["Secret^Folder", "body-000", ".dcm", "20010203", "Phantom CT", "a key for tests"],
    ids=["folder", "file name", "suffix", "date", "description", "key"],
)  # fmt: skip
def test_no_path_date_description_or_key_is_in_a_store(store, word):
    assert word.encode() not in all_of(store)


def test_the_search_finds_what_is_there(tmp_path, folder):
    lv.save_zarr(lv.open_volume(folder), tmp_path / "b.zarr", identifiers="uids")
    content = all_of(tmp_path / "b.zarr")
    header = pydicom.dcmread(next(folder.iterdir()))
    assert header.SOPInstanceUID.encode() in content
    assert header.FrameOfReferenceUID.encode() in content


@pytest.mark.parametrize("identifiers", ["none", "uids"])
def test_paths_are_in_no_store(tmp_path, folder, identifiers):
    lv.save_zarr(lv.open_volume(folder), tmp_path / "b.zarr", identifiers=identifiers)
    assert b"Secret^Folder" not in all_of(tmp_path / "b.zarr")


def test_the_partial_store_of_a_failure_holds_no_uid(tmp_path, folder):
    path = min(folder.iterdir())
    uid = pydicom.dcmread(path).SOPInstanceUID
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 10)
    with pytest.raises(lv.LazyvolError):
        lv.save_zarr(lv.open_volume(folder), tmp_path / "b.zarr")
    partial = tmp_path / "b.zarr.partial"
    assert partial.exists()
    assert [p for p in partial.rglob("*") if p.is_file() and uid.encode() in p.read_bytes()] == []


def test_slices_keep_uids_that_differ(store):
    uids = lv.open_zarr(store).sop_instance_uid.values
    assert len(set(uids)) == len(uids) == 5


def test_one_slice_of_a_volume_hides_its_uid_too(tmp_path, folder):
    volume = lv.open_volume(folder)[1]
    lv.save_zarr(volume, tmp_path / "b.zarr")
    assert str(volume.sop_instance_uid.item()).encode() not in all_of(tmp_path / "b.zarr")


def test_volumes_of_one_frame_of_reference_keep_sharing_one(tmp_path, folder):
    volume = lv.open_volume(folder)
    for name, part in (("one", volume[:3]), ("two", volume[3:])):
        lv.save_zarr(part, tmp_path / f"{name}.zarr")
    one, two = (lv.open_zarr(tmp_path / f"{n}.zarr").vol.geometry.frame_of_reference for n in ("one", "two"))
    assert one == two != volume.vol.geometry.frame_of_reference


# The pseudonym


def test_a_pseudonym_is_a_valid_uid():
    assert UID(pseudonym("1.2.840.1", b"key")).is_valid


def test_equal_uids_have_equal_pseudonyms():
    assert pseudonym("1.2.3", b"key") == pseudonym("1.2.3", b"key")


@pytest.mark.parametrize(("uid", "key"), [("1.2.4", b"key"), ("1.2.3", b"other")], ids=["other uid", "other key"])
def test_other_uids_and_other_keys_have_other_pseudonyms(uid, key):
    assert pseudonym("1.2.3", b"key") != pseudonym(uid, key)


def test_an_absent_uid_stays_absent():
    assert pseudonym("", b"key") == ""


# The key


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A user without a key."""
    monkeypatch.delenv("LAZYVOL_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "lazyvol" / "key"


def test_the_key_of_the_environment_comes_first(monkeypatch, home):
    monkeypatch.setenv("LAZYVOL_KEY", "given")
    assert read_key() == b"given"
    assert not home.exists()


def test_an_empty_key_in_the_environment_is_none(monkeypatch, home):
    monkeypatch.setenv("LAZYVOL_KEY", "")
    assert len(read_key()) >= 32


def test_a_key_is_made_once_and_kept(home):
    assert read_key() == read_key() == home.read_bytes()


def test_a_made_key_is_long(home):
    assert len(read_key()) >= 32


def test_users_have_different_keys(home, monkeypatch, tmp_path):
    one = read_key()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert read_key() != one


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_the_key_file_is_for_the_user_alone(home):
    old = os.umask(0)
    try:
        read_key()
    finally:
        os.umask(old)
    assert stat.S_IMODE(home.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700


def test_without_a_config_folder_the_home_is_used(home, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    read_key()
    assert (tmp_path / "home" / ".config" / "lazyvol" / "key").exists()


def test_an_empty_key_file_is_never_taken_as_a_key(home):
    """A process that dies between making the file and writing it leaves one; an empty key is no secret."""
    home.parent.mkdir(parents=True)
    home.touch(mode=0o600)
    try:
        key = read_key()
    except (lv.LazyvolError, OSError):
        return
    assert len(key) >= 32


def test_processes_that_start_together_share_one_key(home, tmp_path):
    code = "from lazyvol.privacy import read_key; print(read_key().decode())"
    environment = {k: v for k, v in os.environ.items() if k != "LAZYVOL_KEY"}
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, cwd=tmp_path)
        for _ in range(4)
    ]
    keys = {process.communicate()[0].strip() for process in started}
    assert keys == {Path(home).read_bytes()}


def test_what_a_store_gave_can_be_pickled_without_paths_and_uids(folder, store):
    content = pickle.dumps(lv.open_zarr(store).compute())
    uids = {str(pydicom.dcmread(p)[keyword].value).encode() for p in folder.iterdir() for keyword in UIDS}
    assert [secret for secret in (*uids, b"Secret^Folder") if secret in content] == []


def test_what_a_store_gave_is_netcdf_without_paths_and_uids(folder, store, tmp_path):
    pytest.importorskip("h5netcdf", reason="netCDF needs h5netcdf: install lazyvol[netcdf]")
    lv.open_zarr(store).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    content = (tmp_path / "a.nc").read_bytes()
    uids = {str(pydicom.dcmread(p)[keyword].value).encode() for p in folder.iterdir() for keyword in UIDS}
    assert [secret for secret in (*uids, b"Secret^Folder") if secret in content] == []


def test_uids_and_paths_in_lists_and_mappings_are_not_written(tmp_path, chest_folder):
    volume = lv.open_volume(chest_folder)
    uid, path = str(volume.sop_instance_uid.values[0]), str(volume.source.values[0])
    marked = volume.assign_attrs(uids=[uid, "word"], sources=[path], source=path, both={"u": uid, "p": path}, n=[1, 2])
    lv.save_zarr(marked, tmp_path / "a.zarr")
    attrs = lv.open_zarr(tmp_path / "a.zarr").attrs
    assert uid not in str(attrs)
    assert str(chest_folder) not in str(attrs)
    assert attrs["uids"][1] == "word"
    assert attrs["n"] == [1, 2]
    assert "source" not in attrs
    lv.save_zarr(marked, tmp_path / "b.zarr", identifiers="uids")
    assert lv.open_zarr(tmp_path / "b.zarr").attrs["uids"] == [uid, "word"]
