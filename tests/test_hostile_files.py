"""Files that vanish, change into something else, or are full of zeros: named and passed over, never waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import lazyvol as lv
from lazyvol import scan
from lazyvol.errors import PixelReadError
from lazyvol.phantom import write_series


@pytest.fixture
def paths(tmp_path):
    values = np.random.default_rng(3).integers(-1000, 1000, (4, 8, 9))
    return write_series(tmp_path / "dicom", values, spacing=(1.0, 1.0, 1.0))


def test_a_copy_that_vanishes_during_the_scan_is_skipped(paths, monkeypatch):
    copies = [shutil.copy(paths[0], paths[0].with_name(f"copy{n}")) for n in range(5)]
    real = scan.with_digests

    def vanish(instances):
        os.unlink(copies[3])
        return real(instances)

    monkeypatch.setattr(scan, "with_digests", vanish)
    found = lv.scan_headers(paths[0].parent)
    assert [(os.path.basename(s.path), s.reason) for s in found.skipped] == [
        ("copy3", "cannot be opened: No such file or directory")
    ]
    assert len(found.instances) == 4 + 4


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
def test_a_file_whose_name_is_not_utf_8_opens(paths):
    name = os.path.join(os.fsencode(paths[0].parent), b"M\xfcller.dcm")
    os.rename(os.fsencode(paths[0]), name)
    volume = lv.open_volume(paths[0].parent)
    assert volume.shape == (4, 8, 9)
    assert volume.mean().compute() == pytest.approx(float(volume.values.mean()))
    assert [s for s in volume.source.values if s.endswith(r"M\udcfcller.dcm")] != []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes of this kind here")
def test_a_pipe_in_the_place_of_a_file_is_an_error_and_not_waited_for(paths, tmp_path):
    script = (
        "import os, sys, lazyvol as lv\n"
        "volume = lv.open_volume(sys.argv[1])\n"
        "os.unlink(sys.argv[2]); os.mkfifo(sys.argv[2])\n"
        "try:\n    volume.compute()\nexcept lv.LazyvolError as error:\n    print(type(error).__name__)\n"
    )
    command = [sys.executable, "-c", script, paths[0].parent, paths[1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == PixelReadError.__name__


def test_a_file_that_ends_in_zeros_is_soon_given_up(tmp_path):
    """An interrupted copy leaves them; each eight of them look like an element."""
    path = write_series(tmp_path / "dicom", np.zeros((1, 8, 9), int), spacing=(1.0, 1.0, 1.0))[0]
    content = path.read_bytes()
    path.write_bytes(content[:600] + bytes(64 << 20))
    read = []
    real = os.fdopen

    class Counting:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def read(self, size=-1):
            read.append(size)
            return self._file.read(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdopen", lambda *a: Counting(real(*a)))
        (skipped,) = lv.scan_headers(path).skipped
    assert skipped.damaged
    assert len(read) < 1000


def test_a_long_value_before_the_pixels_is_passed_over(tmp_path):
    """It is no more read than pixels are."""
    path = write_series(tmp_path / "dicom", np.ones((1, 8, 9), int), spacing=(1.0, 1.0, 1.0))[0]
    content = path.read_bytes()
    at = content.index(b"\xe0\x7f\x10\0OW")
    length = 200 << 20
    with open(path, "wb") as file:
        file.write(
            content[:at] + b"\x01\x70\x10\0LO\x04\0made" + b"\x01\x70\x01\x10OB\0\0" + length.to_bytes(4, "little")
        )
        file.seek(length, os.SEEK_CUR)
        file.write(content[at:])
    script = (
        "import resource, sys, lazyvol as lv\n"
        "lv.scan_headers(sys.argv[2])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "volume = lv.open_volume(sys.argv[1])\n"
        "print(int(volume.sum()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    other = write_series(tmp_path / "other", np.ones((1, 8, 9), int), spacing=(1.0, 1.0, 1.0))[0]
    done = subprocess.run(
        [sys.executable, "-c", script, path, other], capture_output=True, text=True, timeout=60, check=True
    )
    total, kilobytes = map(int, done.stdout.split())
    assert total == 72
    assert kilobytes < 150_000


@pytest.mark.parametrize("vr", [b"UT", b"UC", b"UR", b"SV", b"UV", b"OV"])
def test_pixels_of_an_odd_vr_begin_where_they_begin(tmp_path, vr):
    values = np.random.default_rng(3).integers(0, 1000, (1, 8, 9))
    path = write_series(tmp_path / "dicom", values, spacing=(1.0, 1.0, 1.0))[0]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0" + vr))
    np.testing.assert_array_equal(lv.open_volume(path), values)


def test_no_bar_is_written_into_a_file(paths):
    command = [sys.executable, "-m", "lazyvol", "convert", paths[0].parent, paths[0].parent.parent / "a.zarr"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
