"""The bytes of files: on disk, behind a URL, in memory, and inflated as far as they are asked for."""

from __future__ import annotations

import io
import os
import tracemalloc
import zlib

import fsspec
import kinds_made as km
import numpy as np
import pytest
import series_made as made
from hypothesis import given
from hypothesis import strategies as st
from made import examples

import lazyvol as lv
from lazyvol import files
from lazyvol.errors import PixelReadError
from lazyvol.files import FileSource, InflatedFile, byte_reader, open_file

CONTENT = np.random.default_rng(1).integers(0, 256, 1000).astype("u1").tobytes()
MANY = np.random.default_rng(2).integers(0, 4, 300_000).astype("u1").tobytes()
"""More than is inflated, or read, at a time."""


def deflated(content: bytes) -> bytes:
    """Return bytes as a deflated data set has them: without header or checksum (DICOM PS3.5 A.5)."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


def inflated(content: bytes, **options) -> InflatedFile:
    return InflatedFile(io.BytesIO(deflated(content)), **options)


def filled(read_into, offset, size):
    """Return what a reader puts into a buffer of so many bytes."""
    buffer = bytearray(size)
    return bytes(buffer[: read_into(memoryview(buffer), offset)])


# What a deflated data set inflates to, as a file


@given(st.binary(max_size=3000), st.lists(st.tuples(st.integers(0, 3500), st.integers(0, 4000)), max_size=8))
@examples(100)
def test_a_deflated_file_reads_and_seeks_as_its_content_does(content, places):
    file, plain = inflated(content), io.BytesIO(content)
    for offset, size in places:
        assert (file.seek(offset), plain.seek(offset)) == (offset, offset)
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()


def test_content_beyond_one_step_comes_back():
    assert inflated(MANY).read() == MANY


def test_a_deflated_file_is_read_part_by_part():
    file = inflated(CONTENT)
    assert [file.read(10), file.read(5), file.tell()] == [CONTENT[:10], CONTENT[10:15], 15]


def test_a_deflated_file_seeks_from_where_it_stands():
    file = inflated(CONTENT)
    file.read(10)
    assert file.seek(5, os.SEEK_CUR) == 15
    assert file.read(3) == CONTENT[15:18]


def test_a_file_that_breaks_off_has_what_came_before():
    raw = deflated(MANY)
    assert MANY.startswith(found := InflatedFile(io.BytesIO(raw[: len(raw) // 2])).read())
    assert len(found) > len(MANY) // 4


@pytest.mark.parametrize("raw", [b"", b"\xff" * 50], ids=["empty", "no deflated data"])
def test_what_is_not_deflated_holds_nothing(raw):
    assert InflatedFile(io.BytesIO(raw)).read(10) == b""


def test_bytes_after_the_deflated_data_are_no_content():
    assert InflatedFile(io.BytesIO(deflated(CONTENT) + b"more" * 100)).read() == CONTENT


def test_headers_have_an_end():
    with pytest.raises(ValueError, match="its header inflates to more than 100000 bytes"):
        inflated(MANY, most=100_000).read(200_000)


def test_all_of_a_file_that_is_too_long_is_refused_not_cut():
    with pytest.raises(ValueError, match="its header inflates to more than 100000 bytes"):
        inflated(MANY, most=100_000).read()


def test_a_part_before_the_end_of_headers_is_read():
    assert inflated(MANY, most=100_000).read(50_000) == MANY[:50_000]


def test_no_more_is_inflated_than_is_read():
    source = io.BytesIO(deflated(os.urandom(1 << 20)))
    InflatedFile(source).read(100)
    assert source.tell() <= 1 << 16


# Frames of it


@given(st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 100_000)), max_size=6).map(sorted))
@examples(60)
def test_parts_in_ascending_order_are_those_of_the_content(places):
    file, end = inflated(MANY), 0
    for offset, size in places:
        start = max(offset, end)
        assert filled(file.read_into, start, size) == MANY[start : start + size]
        end = start + size


def test_a_part_may_begin_where_the_last_did():
    file = inflated(MANY)
    assert [filled(file.read_into, 10, 20) for _ in range(2)] == [MANY[10:30]] * 2


def test_parts_across_steps_are_whole():
    file, step = inflated(MANY), 1 << 16
    assert filled(file.read_into, step - 3, 2 * step) == MANY[step - 3 : 3 * step - 3]


def test_a_part_beyond_the_end_is_short():
    assert filled(inflated(CONTENT).read_into, 990, 50) == CONTENT[990:]


def test_a_part_after_the_end_is_empty():
    assert filled(inflated(CONTENT).read_into, 5000, 50) == b""


def test_there_is_nothing_after_the_end_however_often_it_is_asked_for():
    file = inflated(CONTENT)
    assert [filled(file.read_into, at, 5) for at in (990, 1000, 1001, 1002)] == [CONTENT[990:995], b"", b"", b""]


def test_what_is_passed_over_takes_up_no_memory():
    size = 1 << 26
    packer = zlib.compressobj(wbits=-15)
    raw = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.compress(b"end")])
    file = InflatedFile(io.BytesIO(raw + packer.flush()))
    tracemalloc.start()
    found = filled(file.read_into, size, 3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == b"end"
    assert most < 1 << 20


def test_a_small_part_of_a_great_file_takes_up_little_memory():
    raw = deflated(bytes(1 << 24))
    tracemalloc.start()
    InflatedFile(io.BytesIO(raw)).read(1000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20


def test_frames_of_a_deflated_file_come_in_any_order(tmp_path):
    stored = km.frames(5, "<u2", 8, 9)
    images = made.series(5, each=lambda k: {"stored": stored[k]}, RescaleIntercept=0.0)
    made.write(tmp_path / "series", images, syntax=made.DEFLATED)
    volume = lv.open_volume(tmp_path / "series")
    part = volume.isel(z=[4, 0, 2], y=[7, 1, 1, 3], x=slice(None, None, -2))
    np.testing.assert_array_equal(part, stored[[4, 0, 2]][:, [7, 1, 1, 3]][..., ::-2])


@pytest.mark.parametrize("kind", ["u1", "<u2"])
def test_a_deflated_file_of_many_frames_gives_each_its_own(kind, tmp_path):
    stored = km.frames(6, kind)
    path = km.write(
        tmp_path / "made.dcm", km.multiframe(stored, SOPClassUID=km.CAPTURE_16, Modality="OT"), syntax=made.DEFLATED
    )
    volume = lv.open_volume(path)
    np.testing.assert_array_equal(volume.isel({volume.dims[0]: [5, 0, 3]}), stored[[5, 0, 3]])


# Readers


def sources(tmp_path):
    """Return the same bytes in every place where a file can be, and what stands before them in two."""
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    packed = tmp_path / "packed"
    packed.write_bytes(b"head" + deflated(CONTENT))
    with fsspec.open("memory://lazyvol-test/content", "wb") as file:
        file.write(CONTENT)
    return {
        "disk": FileSource(str(path)),
        "unchanged": FileSource(str(path), modified=path.stat().st_mtime_ns),
        "memory": FileSource("no such file", CONTENT),
        "URL": FileSource("memory://lazyvol-test/content"),
        "inflated": FileSource(str(packed), inflated_from=4),
        "inflated in memory": FileSource("no such file", packed.read_bytes(), inflated_from=4),
    }


KINDS = ("disk", "unchanged", "memory", "URL", "inflated", "inflated in memory")


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (990, 10), (995, 10), (1000, 5), (0, 1000)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_reader_gives_the_bytes_that_there_are(kind, offset, size, tmp_path):
    with byte_reader(sources(tmp_path)[kind]) as read_into:
        assert filled(read_into, offset, size) == CONTENT[offset : offset + size]


@pytest.mark.parametrize("kind", ["disk", "unchanged", "memory", "URL"])
def test_an_opened_file_stands_at_its_first_byte(kind, tmp_path):
    with open_file(sources(tmp_path)[kind]) as file:
        assert file.read() == CONTENT


def test_reading_goes_on_where_the_system_gives_less_than_asked(tmp_path, monkeypatch):
    read_at = files._read_at
    monkeypatch.setattr(files, "_read_at", lambda file, buffer, offset: read_at(file, buffer[:7], offset))
    with byte_reader(sources(tmp_path)["disk"]) as read_into:
        assert filled(read_into, 3, 100) == CONTENT[3:103]


def test_files_are_read_where_preadv_does_not_exist(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "preadv", raising=False)
    with byte_reader(sources(tmp_path)["disk"]) as read_into:
        assert [filled(read_into, at, 20) for at in (500, 3, 990)] == [CONTENT[500:520], CONTENT[3:23], CONTENT[990:]]


@pytest.mark.parametrize("read", [lambda s: byte_reader(s).__enter__(), open_file], ids=["reader", "file"])
@pytest.mark.parametrize("inflated_from", [0, 4])
def test_a_file_that_has_changed_is_not_read(read, inflated_from, tmp_path):
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    with pytest.raises(PixelReadError, match="content has changed since its series was opened"):
        read(FileSource(str(path), modified=path.stat().st_mtime_ns + 1, inflated_from=inflated_from))


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files cannot be counted here")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [False, True], ids=["whole", "failing"])
def test_no_file_stays_open(kind, fails, tmp_path):
    found = sources(tmp_path)[kind]
    before = open_files()
    try:
        with byte_reader(found) as read_into:
            filled(read_into, 0, 5)
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert open_files() == before
