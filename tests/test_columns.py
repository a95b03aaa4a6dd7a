"""Headers that are walked in step are understood as pydicom understands each of them."""

from __future__ import annotations

import os
import random
import struct
import tempfile
import time
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR

from lazyvol import alike, blocks, columns, header, scan, typed
from lazyvol.keywords import TAGS
from lazyvol.nested import LONG_VRS
from lazyvol.phantom import write_series
from lazyvol.typed import HeaderError

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
BUNDLED = Path(pydicom.data.__file__).parent
UNDEFINED = 0xFFFFFFFF


def walked(paths, few=1):
    """Return the Instances of files that the walk understands, by path."""
    some = blocks.Blocks()
    some.fill(list(map(str, paths)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "FEW", few)
        parts = columns.walk_together(some)
        return {some.paths[row]: found for part in parts for row, found in alike.instances_alike(part, some).items()}


def elements_walked(path):
    """Return the elements of a file that the walk understands; None of others."""
    some = blocks.Blocks()
    some.fill([str(path)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "FEW", 1)
        parts = columns.walk_together(some)
    return alike.elements_of(parts[0], 0) if parts else None


def alone(path):
    """Return the Instance that pydicom's road finds, or why there is none."""
    try:
        return scan.read_instance(str(path))
    except HeaderError as error:
        return str(error)


def files_below(folder):
    return [Path(top, name) for top, _, names in os.walk(folder) for name in names if not name.endswith(".py")]


def assert_both_roads_agree(paths):
    """Compare what both roads say of each file; return how many the walk understood."""
    paths = list(map(str, paths))
    understood = 0
    for at in range(0, len(paths), blocks.Blocks.MOST):
        some = paths[at : at + blocks.Blocks.MOST]
        found = walked(some)
        understood += len(found)
        for path, instance in found.items():
            assert instance == alone(path), path
    return understood


def test_both_roads_agree_on_the_files_that_pydicom_brings():
    paths = files_below(BUNDLED)
    assert assert_both_roads_agree(paths) > 80


def test_both_roads_agree_on_every_file_of_the_data(real_data):
    assert assert_both_roads_agree(files_below(real_data)) > 600


def test_both_roads_find_the_same_elements_in_every_file_of_the_data(real_data):
    for path in files_below(real_data):
        found = elements_walked(path)
        if found is not None:
            with path.open("rb") as file:
                assert found == header._read_elements(file), path


# Made headers


def element(tag, vr, value, *, explicit, length=None):
    """Return the bytes of a data element."""
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<I", length) + value
    if vr in LONG_VRS:
        return head + vr + struct.pack("<HI", 0, length) + value
    return head + vr + struct.pack("<H", length) + value


def sequence(tag, items, *, explicit, endless, vr=b"SQ"):
    """Return the bytes of a sequence whose items are given as bytes."""
    if not endless:
        whole = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return element(tag, vr, whole, explicit=explicit)
    start, stop = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED), struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    whole = b"".join(start + item + stop for item in items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return element(tag, vr, whole, explicit=explicit, length=UNDEFINED)


def file_of(parts, *, syntax=EXPLICIT, pixels=bytes(32), explicit=None, meta_uid=b""):
    """Return a file of data elements by tag, which are bytes already."""
    explicit = syntax != IMPLICIT if explicit is None else explicit
    meta = element(0x00020003, b"UI", meta_uid, explicit=True) if meta_uid else b""
    meta += element(0x00020010, b"UI", syntax.encode().ljust(len(syntax) + len(syntax) % 2, b"\0"), explicit=True)
    meta = element(0x00020000, b"UL", struct.pack("<I", len(meta)), explicit=True) + meta
    body = b"".join(parts[tag] for tag in sorted(parts))
    return bytes(128) + b"DICM" + meta + body + element(0x7FE00010, b"OW", pixels, explicit=explicit)


PLAIN = {
    0x00080016: b"1.2.840.10008.5.1.4.1.1.2\0",
    0x00080018: b"1.2.3.4\0",
    0x00080060: b"CT",
    0x0020000D: b"1.2\0",
    0x0020000E: b"1.3\0",
    0x00280004: b"MONOCHROME2 ",
    0x00280010: b"\4\0",
    0x00280011: b"\4\0",
    0x00280100: b"\x10\0",
    0x00280101: b"\x10\0",
    0x00280103: b"\0\0",
}
"""Values of a header that is an image."""


def vr_of(tag):
    return dictionary_VR(tag)[:2].encode()


def plain(explicit, **changes):
    """Return the elements of a plain image, and others by keyword; None leaves one out."""
    values = PLAIN | {TAGS[k]: v for k, v in changes.items()}
    return {t: element(t, vr_of(t), v, explicit=explicit) for t, v in values.items() if v is not None}


even = st.integers(0, 12).map(lambda n: 2 * n)
WORDS = b"|1 |2 |-1.5|0 |1\\2 |1e3 |1\\2\\3 |10|abc | |20200101|101112.5|0\\0\\1 |1\\0\\0\\0\\1\\0|PT|MR|99999999999 "
texts = even.flatmap(lambda n: st.binary(min_size=n, max_size=n)) | st.sampled_from(
    [*WORDS.split(b"|"), b"\0\0", b"ORIGINAL\\PRIMARY\\MOSAIC "]
)
headers = st.dictionaries(st.sampled_from(sorted(TAGS.values())), texts, max_size=8)


@st.composite
def nests(draw, explicit, depth=0):
    """Bytes of some elements within an item."""
    if depth > 2:
        return b""
    found = [element(0x00100010, b"PN", b"A^B ", explicit=explicit)]
    for tag in draw(
        st.lists(st.sampled_from([0x00101002, 0x00400275, 0x00540016, 0x00281101]), unique=True, max_size=2)
    ):
        vr = draw(st.sampled_from([b"SQ", b"SQ", b"UN"]))
        inner = explicit and vr == b"SQ"
        items = draw(st.lists(nests(inner, depth + 1), max_size=2))
        found.append(sequence(tag, items, explicit=explicit, endless=draw(st.booleans()), vr=vr))
    return b"".join(found)


NESTING = [0x00081140, 0x00209222, 0x00283000, 0x00409096, 0x00540016, 0x00620002]


@st.composite
def series(draw):
    """Files of one series, some of whose elements differ."""
    syntax = draw(st.sampled_from([EXPLICIT, IMPLICIT]))
    explicit = syntax == EXPLICIT
    shared = {tag: element(tag, vr_of(tag), v, explicit=explicit) for tag, v in draw(headers).items()}
    for tag in draw(st.lists(st.sampled_from(NESTING), unique=True, max_size=2)):
        vr = draw(st.sampled_from([b"SQ", b"SQ", b"UN"]))
        items = draw(st.lists(nests(explicit and vr == b"SQ"), max_size=2))
        shared[tag] = sequence(tag, items, explicit=explicit, endless=draw(st.booleans()), vr=vr)
    creator = draw(st.sampled_from([b"", b"Philips MR Imaging DD 001 ", b"GEMS_PETD_01", b"SIEMENS MR HEADER "]))
    group = {b"P": 0x2005, b"G": 0x0009, b"S": 0x0019}.get(creator[:1], 0)
    files = []
    for n in range(draw(st.integers(1, 6))):
        own = {tag: element(tag, vr_of(tag), v, explicit=explicit) for tag, v in draw(headers).items()}
        parts = plain(explicit, SOPInstanceUID=f"1.2.{n}".encode() + b"\0" * (n % 2)) | shared | own
        if group:
            parts[group << 16 | 0x10] = element(group << 16 | 0x10, b"LO", creator, explicit=explicit)
            for low in (0x0A, 0x0D, 0x0E):
                value = draw(st.sampled_from([b"1.5 ", b"2 ", bytes(4)]))
                parts[group << 16 | 0x1000 | low] = element(group << 16 | 0x1000 | low, b"LO", value, explicit=explicit)
        files.append(file_of(parts, syntax=syntax, pixels=bytes(draw(st.sampled_from([32, 32, 30])))))
    return files


def written(files, folder):
    paths = []
    for n, content in enumerate(files):
        paths.append(str(Path(folder, f"{n}.dcm")))
        Path(paths[-1]).write_bytes(content)
    return paths


RAW = st.one_of(
    st.lists(st.floats(width=32), min_size=1, max_size=3).map(lambda v: "\\".join(f"{x:.6g}" for x in v).encode()),
    st.lists(st.integers(-9, 9), min_size=2, max_size=2).map(lambda v: "\\".join(map(str, v)).encode()),
    st.sampled_from([*WORDS.split(b"|"), b"1\0", b"1_0", b" 1 \\ 2", b"1 2", b"\\", b"", b"1e999", b"+1.\t", b"1\\"]),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(RAW, max_size=4))
def test_numbers_of_many_headers_are_those_of_each(each):
    assert typed.column_numbers(each) == [typed.text_numbers(raw) for raw in each]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.integers(-9, 9)), min_size=1, max_size=4))
def test_good_numbers_of_many_headers_are_read_at_once(each):
    raw = [f"{x:.8g}\\{n} ".encode() for x, n in each]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed, "text_numbers", None)
        assert typed.column_numbers(raw) == [(float(f"{x:.8g}"), float(n)) for x, n in each]


@settings(deadline=None, max_examples=150)
@given(series())
def test_both_roads_agree_on_made_headers(files):
    with tempfile.TemporaryDirectory() as folder:
        assert_both_roads_agree(written(files, folder))


@settings(deadline=None, max_examples=150)
@given(series(), st.randoms(use_true_random=False))
def test_both_roads_agree_on_damaged_headers(files, chance):
    damaged = []
    for content in files:
        some = bytearray(content)
        for _ in range(chance.randint(0, 3)):
            some[chance.randrange(128, len(some))] = chance.randrange(256)
        damaged.append(bytes(some[: chance.choice([len(some), chance.randrange(132, len(some))])]))
    with tempfile.TemporaryDirectory() as folder:
        assert_both_roads_agree(written(damaged, folder))


def test_what_a_made_header_says_is_found(tmp_path):
    paths = written([file_of(plain(e), syntax=s) for e, s in ((True, EXPLICIT), (False, IMPLICIT))], tmp_path)
    found = walked(paths)
    assert [found[p].uid for p in paths] == ["1.2.3.4", "1.2.3.4"]
    assert [found[p].frames[0].length for p in paths] == [32, 32]


def understands(tmp_path, content):
    return bool(walked(written([content], tmp_path)))


NOT_UNDERSTOOD = {
    "no marker": file_of(plain(True))[132:],
    "big endian": file_of(plain(True), syntax="1.2.840.10008.1.2.2"),
    "deflated": file_of(plain(True), syntax="1.2.840.10008.1.2.1.99"),
    "unknown syntax": file_of(plain(True), syntax="1.2.3.4"),
    "explicit elements under an implicit syntax": file_of(plain(True), syntax=IMPLICIT, explicit=True),
    "implicit elements under an explicit syntax": file_of(plain(False), syntax=EXPLICIT, explicit=False),
    "no pixels": file_of(plain(True))[:-44],
    "cut within an element": file_of(plain(True))[:-60],
    "VR unknown": file_of(plain(True)).replace(b"\x08\0\x60\0CS", b"\x08\0\x60\0ZZ"),
    "descending tags": file_of(plain(True) | {0x00290010: plain(True)[0x00280010]}),
    "item outside of a sequence": file_of(plain(True) | {0x00290010: struct.pack("<HHI", 0xFFFE, 0xE000, 0)}),
    "item within an item": file_of(
        plain(True)
        | {
            0x00290010: sequence(
                0x00290010, [struct.pack("<HHI", 0xFFFE, 0xE000, 0)], explicit=True, endless=True, vr=b"SQ"
            )
        }
    ),
    "sequence without item": file_of(
        plain(True) | {0x00290010: element(0x00290010, b"SQ", plain(True)[0x00280010], explicit=True, length=UNDEFINED)}
    ),
    "undefined length of bytes": file_of(
        plain(True) | {0x00290010: sequence(0x00290010, [], explicit=True, endless=True, vr=b"OB")}
    ),
    "undefined length of what is no sequence": file_of(
        plain(False) | {0x00281101: sequence(0x00281101, [], explicit=False, endless=True)}, syntax=IMPLICIT
    ),
    "functional groups": file_of(plain(True) | {0x52009229: sequence(0x52009229, [], explicit=True, endless=False)}),
    "a value beyond the block": file_of(
        plain(True) | {0x00281201: element(0x00281201, b"OW", bytes(10000), explicit=True)}
    ),
}


@pytest.mark.parametrize("content", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_what_is_not_understood_to_the_letter_is_left_to_pydicom(content, tmp_path):
    assert not understands(tmp_path, content)


@pytest.mark.parametrize("length", [8000, 8190, 20000, 100_000])
def test_a_header_longer_than_a_block_is_read_on(length, tmp_path):
    parts = plain(True) | {0x00091001: element(0x00091001, b"OB", bytes(length), explicit=True)}
    paths = written(
        [file_of(parts | plain(True, SOPInstanceUID=f"1.{n}".encode() + b"\0")) for n in range(5)], tmp_path
    )
    found = walked(paths, few=4)
    assert [found[p] for p in paths] == [alone(p) for p in paths]


@pytest.mark.parametrize("keyword", ["Modality", "ImageType", "Manufacturer", "SliceThickness", "WindowCenter"])
def test_headers_that_differ_in_one_element_are_understood_together(keyword, tmp_path):
    values = [b"PT", b"MR", b"CT", b"1 ", b"30", b""]
    paths = written([file_of(plain(True, **{keyword: v})) for v in values * 2], tmp_path)
    found = walked(paths)
    assert [found[p] for p in paths] == [alone(p) for p in paths]


ODD = {
    "InstanceNumber": b"x ",
    "ImagePositionPatient": b"1\\2 ",
    "SliceLocation": b"1_0 ",
    "RescaleSlope": b"0 ",
    "RescaleIntercept": b"nan ",
    "XRayTubeCurrent": b"1.5 ",
    "AcquisitionTime": b"9999",
    "SOPInstanceUID": b"",
}


@pytest.mark.parametrize("keyword", ODD)
def test_an_odd_value_among_plain_ones_is_named_as_it_would_be_alone(keyword, tmp_path):
    plain_ones = {"ImagePositionPatient": [b"0\\0\\1 ", b"0\\0\\2 "], "SOPInstanceUID": [b"1.2 ", b"1.3 "]}
    values = [*plain_ones.get(keyword, [b"1 ", b"2 "]), ODD[keyword], b""]
    paths = written([file_of(plain(True, **{keyword: v})) for v in values], tmp_path)
    found = walked(paths)
    assert [found[p] for p in paths] == [alone(p) for p in paths]


def test_each_header_costs_one_read_of_one_block(tmp_path, monkeypatch):
    write_series(tmp_path, lambda k: [[k] * 256] * 256, n=40, spacing=(1, 1, 1))
    reads = []
    real = os.readv
    monkeypatch.setattr(os, "readv", lambda file, rows: reads.append(sum(map(len, rows))) or real(file, rows))
    monkeypatch.setattr(scan, "read_instance", None)
    assert len(scan.scan_headers(tmp_path).instances) == 40
    assert reads == [blocks.WIDTH] * 40


def test_headers_that_part_late_are_found_in_the_order_of_their_files(tmp_path):
    chance = random.Random(1)
    own = [chance.choice([{}, {"Exposure": b"1 "}, {"Units": b"HU"}]) for _ in range(50)]
    written([file_of(plain(True, SOPInstanceUID=f"1.{n:04}".encode(), **more)) for n, more in enumerate(own)], tmp_path)
    found = scan.scan_headers(tmp_path).instances
    assert [i.path for i in found] == sorted(i.path for i in found)
    assert [i.uid for i in sorted(found, key=lambda i: i.uid)] == [f"1.{n:04}" for n in range(50)]
    assert sum(dict(i.values).get("Exposure") == 1 for i in found) == own.count({"Exposure": b"1 "})


def test_a_file_that_is_gone_or_no_file_is_left_out(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"")
    names = ["gone", "folder", "pipe", "empty"]
    assert walked([tmp_path / name for name in names]) == {}


def test_more_files_than_a_buffer_holds_are_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks.Blocks, "MOST", 16)
    write_series(tmp_path, lambda k: [[k] * 8] * 8, n=45, spacing=(1, 1, 1))
    assert len({i.uid for i in scan.scan_headers(tmp_path).instances}) == 45


def test_files_that_have_to_be_waited_for_are_read_several_at_a_time(tmp_path, monkeypatch):
    write_series(tmp_path, lambda k: [[k] * 8] * 8, n=60, spacing=(1, 1, 1))
    at_once, most = [], []
    real = blocks._read

    def slow(*task):
        at_once.append(task)
        most.append(len(at_once))
        time.sleep(0.002)
        at_once.pop()
        return real(*task)

    monkeypatch.setattr(blocks, "_read", slow)
    found = scan.scan_headers(tmp_path).instances
    assert max(most) > 1
    monkeypatch.undo()
    assert found == scan.scan_headers(tmp_path).instances


def test_a_bar_is_shown_from_one_second_on(tmp_path, monkeypatch, capsys):
    write_series(tmp_path, lambda k: [[k] * 8] * 8, n=3, spacing=(1, 1, 1))
    scan.scan_headers(tmp_path, progress=True)
    assert not capsys.readouterr().err
    real = scan.read_instance
    monkeypatch.setattr(scan, "FEW", 9)
    monkeypatch.setattr(scan, "read_instance", lambda *entry: time.sleep(0.6) or real(*entry))
    scan.scan_headers(tmp_path, progress=True)
    assert "headers" in capsys.readouterr().err


def nested(*values, explicit=True, endless=True, vr=b"SQ", tag=0x00081140):
    """Return a sequence by tag, of items that hold one text each."""
    inner = explicit and vr == b"SQ"
    items = [element(0x00081150, b"UI", value, explicit=inner) for value in values]
    return {tag: sequence(tag, items, explicit=explicit, endless=endless, vr=vr)}


UNDERSTOOD = {
    "a sequence without length": [nested(b"1.2 ", b"1.3 ")],
    "an empty sequence without length": [nested()],
    "a sequence of unknown VR": [nested(b"1.2 ", vr=b"UN")],
    "sequences with length and without": [nested(b"1.2 ", endless=False), nested(b"1.2 ")],
    "items of several lengths": [nested(b"1.2 "), nested(b"1.2.3 "), nested(b"1.2.3 ", b"1.2 ")],
    "a kept sequence with length and without": [
        nested(b"1.2 ", endless=False, tag=0x00540016),
        nested(b"1.2 ", tag=0x00540016),
    ],
    "an implicit sequence": None,
}


@pytest.mark.parametrize("each", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_sequences_are_stepped_over(each, tmp_path):
    syntax, explicit = (EXPLICIT, True) if each else (IMPLICIT, False)
    each = each or [nested(b"1.2 ", explicit=False)]
    paths = written([file_of(plain(explicit) | parts, syntax=syntax) for parts in each * 2], tmp_path)
    found = walked(paths)
    assert [found.get(p) for p in paths] == [alone(p) for p in paths]


def test_elements_with_vr_under_an_implicit_syntax_are_not_taken_for_others(tmp_path):
    group_length = element(0x00080000, b"UL", bytes(4), explicit=True)
    header = plain(True) | {0x00080000: group_length}
    taken_for_length = struct.unpack("<I", group_length[4:8])[0]
    beyond = 8 + taken_for_length - sum(map(len, header.values())) - 12
    other = b"".join(plain(False, Rows=b"\2\0").values()) + element(0x7FE00010, b"OW", bytes(16), explicit=False)
    pixels = bytes(beyond) + other
    paths = written([file_of(header, syntax=IMPLICIT, explicit=True, pixels=pixels)], tmp_path)
    assert walked(paths) == {}


def test_a_kept_sequence_across_the_end_of_a_block_is_whole(tmp_path):
    for space in range(7500, 8000, 16):
        parts = plain(True, Modality=b"PT") | nested(b"1.2.3.4 ", b"1.2.3.5 ", tag=0x00540016)
        parts |= {0x00091001: element(0x00091001, b"OB", bytes(space), explicit=True)}
        paths = written([file_of(parts)] * 3, tmp_path)
        for path, instance in walked(paths).items():
            assert instance == alone(path), space


def test_pixels_longer_than_a_frame_are_cut_and_noted_file_by_file(tmp_path):
    header = plain(True, NumberOfFrames=b"1 ")
    paths = written([file_of(header, pixels=bytes(n)) for n in (32, 64, 32, 64, 20, 20)], tmp_path)
    found = walked(paths)
    assert [found[p] for p in paths] == [alone(p) for p in paths]
    assert [found[p].frames[0].length for p in paths] == [32, 32, 32, 32, 20, 20]
    assert [len(found[p].notes) for p in paths] == [0, 1, 0, 1, 0, 0]


def test_what_the_kind_of_object_overrules_is_not_patched(tmp_path):
    dose = {"SOPClassUID": b"1.2.840.10008.5.1.4.1.1.481.2\0", "DoseGridScaling": b"0.5 "}
    paths = written([file_of(plain(True, RescaleSlope=s, **dose)) for s in (b"2 ", b"3 ")], tmp_path)
    assert [walked(paths)[p].frames[0].slope for p in paths] == [0.5, 0.5]


def test_a_file_that_changes_while_its_header_is_read_is_left_out(tmp_path, monkeypatch):
    parts = plain(True) | {0x00091001: element(0x00091001, b"OB", bytes(9000), explicit=True)}
    paths = written([file_of(parts)] * 2, tmp_path)
    real = blocks._read

    def read(path, row, offset=0):
        length, size, modified = real(path, row, offset)
        return length, size, modified + (offset > 0 and path == paths[0])

    monkeypatch.setattr(blocks, "_read", read)
    assert list(walked(paths)) == paths[1:]


def test_an_absent_uid_is_taken_from_the_file_meta_information(tmp_path):
    own = [(b"1.5 ", b"1.6 "), (b"", b"1.7 "), (None, b"1.8 ")]
    paths = written([file_of(plain(True, SOPInstanceUID=u), meta_uid=m) for u, m in own * 2], tmp_path)
    assert [walked(paths)[p].uid for p in paths] == ["1.5", "1.7", "1.8"] * 2


@pytest.mark.parametrize("keyword", ["AcquisitionTime", "FrameReferenceTime", "ActualFrameDuration", "PatientWeight"])
def test_what_uptake_is_computed_from_is_that_of_each_image(keyword, tmp_path):
    tracer = nested(b"1.2 ", tag=0x00540016)
    whole = {"Modality": b"PT", "SeriesTime": b"100000", "SeriesDate": b"20200101", "Units": b"BQML"}
    values = [b"100001", b"100002", b"100001"]
    paths = written([file_of(plain(True, **whole, **{keyword: v}) | tracer) for v in values], tmp_path)
    found = walked(paths)
    assert [found[p].uptake for p in paths] == [alone(p).uptake for p in paths]
    assert found[paths[0]].uptake == found[paths[2]].uptake != found[paths[1]].uptake or keyword == "AcquisitionTime"


def test_a_number_beyond_what_an_is_holds_is_named(tmp_path):
    paths = written([file_of(plain(True, InstanceNumber=n)) for n in (b"1 ", b"99999999999 ", b"2 ")], tmp_path)
    found = walked(paths)
    assert [found[p].number for p in paths] == [1, None, 2]
    assert found[paths[1]].malformed == (("InstanceNumber", "99999999999"),)
