"""Media storage directories: what they list and hold is read, nothing beside them, and what is left out is named."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import kinds_made as km
import numpy as np
import pydicom
import pytest
import xarray as xr

import lazyvol as lv
from lazyvol.errors import LazyvolError, NoImagesError

COUNT = 4
BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
LEAVES = r"outside|leaves|beyond|not (in|below|within)"


@pytest.fixture(params=["DICOMDIR", "DIRFILE"])
def index(request, tmp_path):
    """A directory of four slices, by either name."""
    return km.media(tmp_path / "medium").rename(tmp_path / "medium" / request.param)


@pytest.fixture
def dicomdir(tmp_path):
    return km.media(tmp_path / "medium")


@pytest.fixture
def outside(tmp_path):
    """A good slice that lies beside the medium."""
    path = tmp_path / "outside.dcm"
    image = km.ct_images(COUNT + 1)[-1]
    image["PixelData"].VR = "OW"
    return km.write(path, image)


@pytest.fixture
def opened(monkeypatch):
    """Files that are opened while the test runs, with all links followed."""
    seen, whole = [], os.open

    def noting(path, *arguments, **options):
        if isinstance(path, str | os.PathLike):
            seen.append(os.path.realpath(path))
        return whole(path, *arguments, **options)

    monkeypatch.setattr(os, "open", noting)
    return seen


def reasons(path):
    """Return why files were left out, by their real path or, where they have none, as they are called."""
    return {os.path.realpath(s.path): s.reason for s in lv.scan_headers(path).skipped}


def names(scan):
    return sorted(os.path.realpath(i.path) for i in scan.instances)


# What is listed


def test_what_a_directory_lists_is_scanned(index):
    assert names(lv.scan_headers(index)) == sorted(map(os.path.realpath, km.listed(index)))


def test_a_whole_directory_skips_nothing_but_itself(index):
    assert set(reasons(index)) <= {os.path.realpath(index)}


def test_a_directory_opens_as_its_slices(index):
    volume, images = lv.open_volume(index), km.ct_images(COUNT)
    np.testing.assert_array_equal(volume, np.stack([i.pixel_array.astype(int) - 1024 for i in images]))


def test_a_directory_opens_as_a_list_of_its_files_does(index):
    alone = lv.open_volume([str(p) for p in km.listed(index)])
    xr.testing.assert_identical(lv.open_volume(index).compute(), alone.compute())


def test_a_path_and_its_text_are_the_same(dicomdir):
    assert names(lv.scan_headers(str(dicomdir))) == names(lv.scan_headers(Path(dicomdir)))


def test_a_directory_is_found_from_another_folder(dicomdir, monkeypatch):
    monkeypatch.chdir(dicomdir.parent)
    assert len(lv.scan_headers("DICOMDIR").instances) == COUNT


def test_a_directory_comes_back_from_a_store(dicomdir, tmp_path):
    volume = lv.open_volume(dicomdir)
    lv.save_zarr(volume, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").compute(), km.without_source(volume))


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-reordered"])
def test_the_directories_of_pydicom_are_read_as_what_they_list(name):
    # Its files are headers without pixels, or are not there at all: none of them is lost without a word.
    path = BUNDLED / name
    wanted = {os.path.realpath(p) for p in km.listed(path)}
    scan = lv.scan_headers(path)
    assert wanted <= {*names(scan), *(os.path.realpath(s.path) for s in scan.skipped)}


# What is not read

LEAVING = {
    "two points": lambda medium, outside: ("..", outside.name),
    "two points in one word": lambda medium, outside: (f"../{outside.name}",),
    "two points below": lambda medium, outside: ("PT000000", "..", "..", outside.name),
    "absolute": lambda medium, outside: (str(outside),),
    "absolute in parts": lambda medium, outside: ("/", *outside.parts[1:]),
    "an empty first part": lambda medium, outside: ("", *outside.parts[1:]),
}


@pytest.fixture(params=LEAVING.values(), ids=LEAVING)
def leaving(request, dicomdir, outside):
    """A directory whose last record refers to a file outside of its folder."""
    km.refer_last_to(dicomdir, *request.param(dicomdir.parent, outside))
    return dicomdir


def test_a_file_outside_is_not_opened(leaving, outside, opened):
    lv.scan_headers(leaving)
    assert os.path.realpath(outside) not in opened


def test_a_file_outside_is_no_image_of_the_directory(leaving):
    assert names(lv.scan_headers(leaving)) == sorted(map(os.path.realpath, km.listed(leaving)[:-1]))


def test_a_file_outside_is_skipped_with_the_reason(leaving):
    assert any(re.search(LEAVES, s.reason) for s in lv.scan_headers(leaving).skipped)


def test_the_rest_of_a_directory_opens(leaving):
    assert lv.open_volume(leaving).sizes["z"] == COUNT - 1


@pytest.fixture
def linked(dicomdir, outside):
    """A directory whose last file is a link to one outside of its folder."""
    last = km.listed(dicomdir)[-1]
    last.unlink()
    last.symlink_to(outside)
    return dicomdir


def test_a_link_that_leaves_the_folder_is_not_followed(linked, outside, opened):
    lv.scan_headers(linked)
    assert os.path.realpath(outside) not in opened


def test_a_link_that_leaves_the_folder_is_skipped_with_the_reason(linked):
    assert any(re.search(LEAVES, s.reason) for s in lv.scan_headers(linked).skipped)


def test_a_folder_that_is_a_link_out_is_not_followed(dicomdir, tmp_path, opened):
    first = dicomdir.parent / "PT000000"
    shutil.move(first, tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    try:
        scan = lv.scan_headers(dicomdir)
    except NoImagesError:
        scan = None
    assert scan is None or not scan.instances
    assert not [p for p in opened if "elsewhere" in p]


def test_a_link_that_stays_in_the_folder_is_followed(dicomdir):
    last = km.listed(dicomdir)[-1]
    last.rename(dicomdir.parent / "MOVED")
    last.symlink_to(dicomdir.parent / "MOVED")
    assert lv.open_volume(dicomdir).sizes["z"] == COUNT


def test_a_medium_that_is_reached_through_a_link_is_read(dicomdir, tmp_path):
    (tmp_path / "link").symlink_to(dicomdir.parent)
    assert lv.open_volume(tmp_path / "link" / "DICOMDIR").sizes["z"] == COUNT


def test_a_file_that_is_not_there_is_skipped_with_the_reason(dicomdir):
    last = km.listed(dicomdir)[-1]
    last.unlink()
    assert reasons(dicomdir)[os.path.realpath(last)]


def test_the_files_that_are_there_open(dicomdir):
    km.listed(dicomdir)[-1].unlink()
    assert lv.open_volume(dicomdir).sizes["z"] == COUNT - 1


def test_a_directory_none_of_whose_files_is_there_is_refused(dicomdir):
    for path in km.listed(dicomdir):
        path.unlink()
    with pytest.raises(NoImagesError):
        lv.open_volume(dicomdir)


def test_a_directory_that_lists_nothing_is_refused():
    with pytest.raises(LazyvolError):
        lv.open_volume(BUNDLED / "DICOMDIR-empty.dcm")


def test_a_directory_that_refers_to_itself_does_not_run_in_circles(dicomdir):
    km.refer_last_to(dicomdir, "DICOMDIR")
    assert len(lv.scan_headers(dicomdir).instances) == COUNT - 1


def test_a_file_that_is_listed_twice_is_read_once(dicomdir):
    first = km.listed(dicomdir)[0]
    km.refer_last_to(dicomdir, *first.relative_to(dicomdir.parent).parts)
    assert len(lv.scan_headers(dicomdir).instances) == COUNT - 1


def test_a_directory_that_breaks_off_is_refused_or_says_so(dicomdir):
    dicomdir.write_bytes(dicomdir.read_bytes()[:-300])
    try:
        scan = lv.scan_headers(dicomdir)
    except LazyvolError as error:
        said = str(error)
    else:
        said = scan.skipped
    assert said


# What is not listed


@pytest.mark.parametrize("where", [".", "PT000000", "OTHER"])
def test_a_file_that_is_not_listed_is_skipped_as_such(index, outside, where):
    extra = index.parent / where / "EXTRA"
    extra.parent.mkdir(exist_ok=True)
    shutil.copy(outside, extra)
    assert "list" in reasons(index)[os.path.realpath(extra)]


def test_a_file_that_is_not_listed_is_no_slice(index, outside):
    shutil.copy(outside, index.parent / "EXTRA")
    assert lv.open_volume(index).sizes["z"] == COUNT


def test_the_folder_of_a_directory_is_scanned_as_any_folder(dicomdir, outside):
    shutil.copy(outside, dicomdir.parent / "EXTRA")
    assert lv.open_volume(dicomdir.parent).sizes["z"] == COUNT + 1


def test_in_a_folder_the_directory_itself_is_skipped_with_the_reason(index):
    assert "DICOMDIR" in reasons(index.parent)[os.path.realpath(index)]


def test_no_reason_names_the_patient(leaving, outside):
    shutil.copy(outside, leaving.parent / "EXTRA")
    assert km.secrets_in([s.reason for s in lv.scan_headers(leaving).skipped]) == []


@pytest.mark.parametrize("length", [395, 420, 700])
def test_an_index_that_is_cut_short_is_said_without_a_foreign_error(tmp_path, length):
    path = tmp_path / "DICOMDIR"
    path.write_bytes(
        (bytes(128) + b"DICM\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10" + b"\x04\x00\x20\x12SQ" * 99)[:length]
    )
    scan = lv.scan_headers(path)
    assert [s.path for s in scan.skipped] == [str(path)]
    with pytest.raises(LazyvolError, match="DICOMDIR"):
        lv.open_volume(path)


def test_names_that_became_lower_case_are_found(dicomdir):
    listed = [Path(i.path) for i in lv.scan_headers(dicomdir).instances]
    for path in [*listed, *dict.fromkeys(f for p in listed for f in p.parents if f.is_relative_to(dicomdir.parent))]:
        if path != dicomdir.parent:
            path.rename(path.with_name(path.name.lower()))
    assert len(lv.scan_headers(dicomdir).instances) == len(listed)
