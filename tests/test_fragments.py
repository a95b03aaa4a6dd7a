"""Compressed frames are found in their fragments, or the file says why not; never another frame's pixels.

The stored numbers that were compressed are the truth; pydicom confirms that the sound files hold them.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import enhanced_made as em
import imagecodecs
import numpy as np
import pydicom
import pytest
import series_made as made
from hypothesis import given
from hypothesis import strategies as st
from made import examples
from pydicom.encaps import encapsulate, encapsulate_extended

import lazyvol as lv
from lazyvol.errors import LazyvolError, PixelReadError
from lazyvol.fragments import Fragments, frames_in
from lazyvol.typed import HeaderError

N, ROWS, COLUMNS = 4, 15, 16
CODECS = {"RLE": em.RLE, "JPEG-LS": em.JPEG_LS, "JPEG 2000": em.J2K}
PARTS = {"RLE": (1,), "JPEG-LS": (1, 2, 5), "JPEG 2000": (1, 2, 5)}
"""Fragments of each frame; RLE has one (PS3.5 A.4.2)."""
WAYS = [(codec, parts) for codec in CODECS for parts in PARTS[codec]]
WAY_IDS = [f"{codec}, {parts} fragment{'s' * (parts > 1)} a frame" for codec, parts in WAYS]


@cache
def stored(count=N):
    """Return frames that compress to different lengths."""
    rng = np.random.default_rng(7)
    return np.stack([rng.integers(0, 2 ** (2 + 2 * n), (ROWS, COLUMNS), dtype="u2") + 300 * n for n in range(count)])


@cache
def coded(codec, count=N):
    return tuple(em.coded(frame, CODECS[codec]) for frame in stored(count))


def fragments(codec, parts=1, count=N):
    return [em.cut(content, parts) for content in coded(codec, count)]


def plain(count=N):
    """Return the image without compression."""
    return em.enhanced(made.series(count, each=lambda k: {"stored": stored(count)[k]}, ImageType=em.FRAME_TYPE))


def put(folder, content):
    path = folder / "series" / "file.dcm"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def values_of(n):
    return stored(5)[n].astype(int) - 1024


def outcome(path):
    """Return "right" or "refused" for a file or the folder that holds nothing else, and the codes of the findings.

    Whatever opens has in each place the frame that it names, or raises an error that names the file.
    """
    try:
        found = lv.open_volume(path)
    except LazyvolError as error:
        assert_names(error, path)
        return "refused", []
    numbers = found.frame_number.values if "frame_number" in found.coords else [1]
    right = [frame_is_right(found.isel(z=k), int(number) - 1, path) for k, number in enumerate(numbers)]
    return "right" if right == [True] * N else "refused", made.codes(found)


def frame_is_right(frame, n, path):
    """Return whether a frame reads, with the values of frame n and no others; else its error names the file."""
    try:
        values = frame.values
    except PixelReadError as error:
        assert_names(error, path)
        return False
    np.testing.assert_array_equal(values, values_of(n))
    return True


def assert_names(error, path):
    assert path.name in str(error)


# Sound files


def table_of(name, frames):
    where = em.offsets_of(frames)
    if name == "extended":
        return {"extended": where}
    return {"basic": where if name == "basic" else ()}


@pytest.fixture(params=WAYS, ids=WAY_IDS)
def way(request):
    return request.param


SOUND = [(*w, t) for w in WAYS for t in ("no table", "basic", "extended") if t != "extended" or w[1] == 1]
"""The extended offset table asks for one fragment a frame (PS3.5 A.4)."""


@pytest.fixture(params=SOUND, ids=[f"{c}, {p} a frame, {t}" for c, p, t in SOUND])
def sound(request, tmp_path):
    codec, parts, table = request.param
    frames = fragments(codec, parts)
    return put(tmp_path, em.encapsulated(plain(), frames, syntax=CODECS[codec], **table_of(table, frames)))


def test_compressed_frames_have_the_values_that_were_compressed(sound):
    np.testing.assert_array_equal(lv.open_volume(sound), [values_of(n) for n in range(N)])


def test_compressed_frames_have_no_finding(sound):
    assert made.codes(lv.open_volume(sound)) == []


def test_compressed_frames_have_the_coordinates_of_uncompressed_ones(sound, tmp_path):
    other = lv.open_volume(em.write(tmp_path / "plain.dcm", plain()))
    found = lv.open_volume(sound)
    assert found.drop_vars("source").coords.equals(other.drop_vars("source").coords)


def test_one_compressed_frame_alone_is_right(sound):
    np.testing.assert_array_equal(lv.open_volume(sound).isel(z=2, y=slice(3, 9)), values_of(2)[3:9])


def test_the_files_made_here_are_what_pydicom_reads(sound):
    np.testing.assert_array_equal(pydicom.dcmread(sound).pixel_array, stored())


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("table", ["no table", "basic", "extended"])
def test_what_pydicom_encapsulates_is_right(tmp_path, table, parts):
    if (table, parts) == ("extended", 3):
        pytest.skip("the extended offset table has one fragment a frame")
    file = plain()
    content = list(coded("JPEG-LS"))
    if table == "extended":
        file.PixelData, file.ExtendedOffsetTable, file.ExtendedOffsetTableLengths = encapsulate_extended(content)
    else:
        file.PixelData = encapsulate(content, fragments_per_frame=parts, has_bot=table == "basic")
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.UID(em.JPEG_LS)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    assert outcome(put(tmp_path, buffer.getvalue())) == ("right", [])


@pytest.mark.parametrize("codec", CODECS)
def test_a_compressed_dataset_in_memory_is_right(tmp_path, codec):
    path = put(tmp_path, em.encapsulated(plain(), fragments(codec), syntax=CODECS[codec]))
    found = lv.open_volume([pydicom.dcmread(path)])
    np.testing.assert_array_equal(found, [values_of(n) for n in range(N)])


def test_an_image_of_one_frame_in_several_fragments_is_right(tmp_path):
    for k, image in enumerate(made.series(N, each=lambda k: {"stored": stored()[k]})):
        content = em.encapsulated(image, fragments("JPEG-LS", 3)[k : k + 1], syntax=em.JPEG_LS)
        (tmp_path / f"{k}.dcm").write_bytes(content)
    np.testing.assert_array_equal(lv.open_volume(tmp_path), [values_of(n) for n in range(N)])


def test_lengths_in_the_extended_table_may_leave_out_the_padding(tmp_path):
    frames = [[f + b"\0" * (len(f) % 2)] for f in coded("JPEG-LS")]
    table = {"extended": em.offsets_of(frames), "lengths": [len(f) for f in coded("JPEG-LS")]}
    assert outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=em.JPEG_LS, **table))) == ("right", [])


@pytest.mark.parametrize("table", ["no table", "basic"])
def test_a_file_without_the_last_delimiter_is_right(tmp_path, way, table):
    codec, parts = way
    frames = fragments(codec, parts)
    content = em.encapsulated(plain(), frames, syntax=CODECS[codec], delimited=False, **table_of(table, frames))
    assert outcome(put(tmp_path, content))[0] == "right"


@pytest.mark.parametrize("length", [0, -8, -16])
def test_a_compressed_frame_as_long_as_an_uncompressed_one_is_right(tmp_path, length):
    # pydicom warns of such a stream, with or without the headers of its items; there is nothing wrong with it
    frames = fragments("JPEG-LS")
    frames[1] = [frames[1][0].ljust(2 * ROWS * COLUMNS + length, b"\0")]
    assert outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=em.JPEG_LS))) == ("right", [])


def test_a_table_in_which_fragments_are_unequal_is_followed(tmp_path):
    frames = [em.cut(content, parts) for content, parts in zip(coded("JPEG-LS"), (3, 1, 4, 2), strict=True)]
    content = em.encapsulated(plain(), frames, syntax=em.JPEG_LS, basic=em.offsets_of(frames))
    assert outcome(put(tmp_path, content)) == ("right", [])


def test_unequal_fragments_without_a_table_are_told_by_their_first_bytes(tmp_path):
    frames = [em.cut(content, parts) for content, parts in zip(coded("JPEG 2000"), (3, 1, 4, 2), strict=True)]
    assert outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=em.J2K))) == ("right", [])


# Tables that lie


def end_of(frames):
    return sum(8 + len(p) for parts in frames for p in parts)


LIES = {
    "shifted by a frame": lambda w, f: [*w[1:], end_of(f)],
    "without the first": lambda w, f: w[1:],
    "without the last": lambda w, f: w[:-1],
    "one too many": lambda w, f: [*w, end_of(f)],
    "two swapped": lambda w, f: [w[0], w[2], w[1], w[3]],
    "the first swapped": lambda w, f: [w[1], w[0], *w[2:]],
    "backwards": lambda w, f: w[::-1],
    "the second twice": lambda w, f: [w[0], w[1], w[1], w[3]],
    "beyond the end": lambda w, f: [*w[:-1], 10**6],
    "at the end": lambda w, f: [*w[:-1], end_of(f)],
    "as large as can be": lambda w, f: [2**32 - 1] * 4,
    "two bytes late": lambda w, f: [v + 2 for v in w],
    "after the item headers": lambda w, f: [v + 8 for v in w],
    "counted from the table": lambda w, f: [v + 8 + 4 * len(w) for v in w],
    "one entry": lambda w, f: w[:1],
    "zeros": lambda w, f: [0] * len(w),
    "lengths instead": lambda w, f: [sum(map(len, parts)) for parts in f],
    "without item headers": lambda w, f: [v - 8 * n for n, v in enumerate(w)],
}
AMONG_FRAGMENTS = {
    "at the second fragments": lambda w, f: [v + 8 + len(parts[0]) for v, parts in zip(w, f, strict=True)],
    "one at a second fragment": lambda w, f: [w[0], w[1] + 8 + len(f[1][0]), *w[2:]],
    "the first fragments": lambda w, f: [sum(8 + len(p) for p in (*f[0], *f[1])[:n]) for n in range(4)],
}


def lie_about(tmp_path, way, lie, kind):
    codec, parts = way
    frames = fragments(codec, parts)
    wrong = [int(v) for v in lie(em.offsets_of(frames), frames)]
    return put(tmp_path, em.encapsulated(plain(), frames, syntax=CODECS[codec], **{kind: wrong}))


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize(("codec", "parts"), [("RLE", 1), ("JPEG-LS", 1), ("JPEG 2000", 2)])
def test_a_basic_table_that_lies_gives_right_frames_with_a_finding_or_an_error(tmp_path, codec, parts, lie):
    kind, codes = outcome(lie_about(tmp_path, (codec, parts), lie, "basic"))
    assert kind == "refused" or "offset-table-wrong" in codes


@pytest.mark.parametrize("lie", AMONG_FRAGMENTS.values(), ids=AMONG_FRAGMENTS)
@pytest.mark.parametrize("codec", ["JPEG-LS", "JPEG 2000"])
def test_a_basic_table_that_parts_frames_elsewhere_gives_right_frames_or_an_error(tmp_path, codec, lie):
    kind, codes = outcome(lie_about(tmp_path, (codec, 2), lie, "basic"))
    assert kind == "refused" or "offset-table-wrong" in codes


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("codec", ["RLE", "JPEG-LS"])
def test_an_extended_table_that_lies_gives_right_frames_with_a_finding_or_an_error(tmp_path, codec, lie):
    kind, codes = outcome(lie_about(tmp_path, (codec, 1), lie, "extended"))
    assert kind == "refused" or "offset-table-wrong" in codes


LENGTHS = {
    "zeros": lambda v: [0] * len(v),
    "too short": lambda v: [n - 20 for n in v],
    "too long": lambda v: [n + 20 for n in v],
    "swapped": lambda v: v[::-1],
    "too few": lambda v: v[:2],
    "none": lambda v: [],
    "beyond the file": lambda v: [10**9] * len(v),
}


@pytest.mark.parametrize("lie", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("codec", ["RLE", "JPEG 2000"])
def test_lengths_of_the_extended_table_that_lie_give_right_frames_or_an_error(tmp_path, codec, lie):
    frames = fragments(codec)
    table = {"extended": em.offsets_of(frames), "lengths": lie([len(p) for (p,) in frames])}
    outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=CODECS[codec], **table)))


def test_an_empty_extended_table_gives_right_frames_or_an_error(tmp_path):
    frames = fragments("JPEG-LS")
    outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=em.JPEG_LS, extended=[], lengths=[])))


@pytest.mark.parametrize("codec", CODECS)
def test_two_tables_that_disagree_give_right_frames_or_an_error(tmp_path, codec):
    frames = fragments(codec)
    where = em.offsets_of(frames)
    table = {"basic": where[::-1], "extended": where}
    outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=CODECS[codec], **table)))


def test_a_wrong_table_is_a_warning(tmp_path):
    found = lv.open_volume(lie_about(tmp_path, ("JPEG-LS", 1), LIES["without the last"], "basic"))
    (finding,) = lv.findings_of(found)
    assert (finding.code, finding.severity) == ("offset-table-wrong", "warning")


def test_a_wrong_table_does_not_hide_frames_that_are_plain_to_see(tmp_path):
    assert outcome(lie_about(tmp_path, ("JPEG-LS", 1), LIES["two bytes late"], "basic"))[0] == "right"


@examples(30)
@given(data=st.data())
def test_no_table_ever_gives_another_frames_pixels(tmp_path_factory, data):
    codec = data.draw(st.sampled_from(list(CODECS)))
    parts = [data.draw(st.sampled_from(PARTS[codec])) for _ in range(N)]
    frames = [em.cut(content, count) for content, count in zip(coded(codec), parts, strict=True)]
    items = [0, *np.cumsum([8 + len(p) for f in frames for p in f]).tolist()]
    entry = st.sampled_from(items) | st.integers(0, items[-1] + 40)
    table = data.draw(st.lists(entry, max_size=N + 2))
    kind = data.draw(st.sampled_from(["basic", "extended"]))
    content = em.encapsulated(plain(), frames, syntax=CODECS[codec], **{kind: table})
    outcome(put(tmp_path_factory.mktemp("drawn"), content))


@examples(30)
@given(data=st.data())
def test_no_damage_to_item_headers_gives_another_frames_pixels(tmp_path_factory, data):
    codec, parts = data.draw(st.sampled_from(WAYS))
    frames = fragments(codec, parts)
    basic = data.draw(st.sampled_from([(), em.offsets_of(frames)]))
    content = bytearray(em.encapsulated(plain(), frames, syntax=CODECS[codec], basic=basic))
    first = len(content) - 8 - end_of(frames)
    starts = [0, *np.cumsum([8 + len(p) for f in frames for p in f]).tolist()]
    place = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, 7))
    content[first + place] = data.draw(st.integers(0, 255))
    outcome(put(tmp_path_factory.mktemp("drawn"), bytes(content)))


# Fewer and more fragments than frames


@pytest.fixture(params=["no table", "basic table of what is there", "basic table of all"])
def lacking(request, tmp_path):
    """Path of a file whose last frame has no fragment."""
    frames = fragments("JPEG-LS")
    where = em.offsets_of(frames)
    table = {"no table": (), "basic table of what is there": where[:-1], "basic table of all": where}[request.param]
    return put(tmp_path, em.encapsulated(plain(), frames[:-1], syntax=em.JPEG_LS, basic=table))


@pytest.fixture(params=WAYS, ids=WAY_IDS)
def torn(request, tmp_path):
    """Path of a file that ends within its last fragment."""
    codec, parts = request.param
    frames = fragments(codec, parts)
    content = em.encapsulated(plain(), frames, syntax=CODECS[codec], basic=em.offsets_of(frames))
    return put(tmp_path, content[: -8 - len(frames[-1][-1]) // 3])


@pytest.fixture
def torn_without_table(tmp_path):
    return put(tmp_path, em.encapsulated(plain(), fragments("JPEG 2000", 2), syntax=em.J2K)[:-20])


def test_a_file_short_of_fragments_is_an_error_at_opening(lacking):
    with pytest.raises(PixelReadError, match=r"file\.dcm"):
        lv.open_volume(lacking)


def test_a_file_that_ends_within_a_fragment_is_an_error_at_opening(torn):
    with pytest.raises(PixelReadError, match=r"file\.dcm"):
        lv.open_volume(torn)


def assert_last_is_short(path):
    found = lv.open_volume(path.parent)
    assert "pixels-truncated" in made.codes(found)
    np.testing.assert_array_equal(found.isel(z=slice(0, N - 1)), [values_of(n) for n in range(N - 1)])
    with pytest.raises(PixelReadError, match=rf"(?s)(?=.*file\.dcm)(?=.*frame ({N - 1}|{N})\b)"):
        found.isel(z=N - 1).compute()


def test_a_file_short_of_fragments_in_a_folder_has_its_other_frames(lacking):
    assert_last_is_short(lacking)


def test_a_file_that_ends_within_a_fragment_in_a_folder_has_its_other_frames(torn):
    assert_last_is_short(torn)


def test_a_file_that_ends_within_a_fragment_without_table_has_its_other_frames(torn_without_table):
    assert_last_is_short(torn_without_table)


@pytest.mark.parametrize("table", ["no table", "basic"])
def test_a_file_that_ends_within_its_second_frame_has_its_first(tmp_path, way, table):
    codec, parts = way
    frames = fragments(codec, parts)
    whole = em.encapsulated(plain(), frames, syntax=CODECS[codec], **table_of(table, frames))
    lost = end_of(frames) - em.offsets_of(frames)[2] + len(frames[1][-1]) // 2
    path = put(tmp_path, whole[: -8 - lost])
    found = lv.open_volume(path.parent)
    assert "pixels-truncated" in made.codes(found)
    np.testing.assert_array_equal(found.isel(z=0), values_of(0))


@examples(30)
@given(data=st.data())
def test_no_place_at_which_a_file_ends_gives_another_frames_pixels(tmp_path_factory, data):
    codec, parts = data.draw(st.sampled_from(WAYS))
    frames = fragments(codec, parts)
    table = data.draw(st.sampled_from(["no table", "basic"]))
    whole = em.encapsulated(plain(), frames, syntax=CODECS[codec], **table_of(table, frames))
    path = put(tmp_path_factory.mktemp("drawn"), whole[: -data.draw(st.integers(1, end_of(frames)))])
    outcome(path.parent)


MORE = {
    "RLE in two fragments a frame": ("RLE", lambda: fragments("RLE", 2), ("8", "4")),
    "a frame of RLE too many": ("RLE", lambda: fragments("RLE", 1, 5), ("5", "4")),
    "a frame of JPEG-LS too many": ("JPEG-LS", lambda: fragments("JPEG-LS", 1, 5), ("5", "4")),
    "frames of JPEG-LS in parts, one too many": ("JPEG-LS", lambda: fragments("JPEG-LS", 2, 5), ("10", "4")),
}


@pytest.mark.parametrize(("codec", "build", "said"), MORE.values(), ids=MORE)
def test_more_fragments_than_frames_without_table_are_refused_with_both_counts(tmp_path, codec, build, said):
    path = put(tmp_path, em.encapsulated(plain(), build(), syntax=CODECS[codec]))
    with pytest.raises(LazyvolError) as caught:
        lv.open_volume(path)
    words = str(caught.value).replace(str(tmp_path), "")
    assert all(count in words for count in said)


@pytest.mark.parametrize(("codec", "build", "said"), MORE.values(), ids=MORE)
def test_more_fragments_than_frames_leave_the_file_out_of_a_folder_with_a_reason(tmp_path, codec, build, said):
    path = put(tmp_path, em.encapsulated(plain(), build(), syntax=CODECS[codec]))
    scan = lv.scan_headers(path.parent)
    reasons = [s.reason for s in scan.skipped] + [i.refusal for i in scan.instances]
    assert any(all(count in reason for count in said) for reason in reasons)


def test_fragments_of_no_length_do_no_harm(tmp_path):
    frames = [[b"", *parts] for parts in fragments("JPEG-LS", 2)]
    for basic in ((), em.offsets_of(frames)):
        outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=em.JPEG_LS, basic=basic)))


def test_a_trailing_fragment_of_no_length_does_no_harm(tmp_path):
    frames = fragments("JPEG-LS")
    outcome(put(tmp_path, em.encapsulated(plain(), [*frames, [b""]], syntax=em.JPEG_LS)))


def with_false_start(content):
    """Return a JPEG-LS stream in two fragments, the second of which begins with a comment that looks like a stream."""
    false, before = coded("JPEG-LS")[0], b"made"
    length = 2 + len(before) + len(false)
    head = content[:2] + b"\xff\xfe" + length.to_bytes(2, "big") + before
    rest = false + content[2:]
    return [head, rest + b"\0" * (len(rest) % 2)]


def test_the_stream_with_a_false_start_is_a_sound_one():
    content = b"".join(with_false_start(coded("JPEG-LS")[2]))
    np.testing.assert_array_equal(imagecodecs.jpegls_decode(content), stored()[2])


@pytest.mark.parametrize("table", ["no table", "basic"])
def test_a_false_start_within_a_frame_gives_right_frames_or_an_error(tmp_path, table):
    frames = fragments("JPEG-LS")
    frames[2] = with_false_start(coded("JPEG-LS")[2])
    outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=em.JPEG_LS, **table_of(table, frames))))


def test_frames_in_boxes_of_jp2_are_right_or_an_error(tmp_path):
    content = [imagecodecs.jpeg2k_encode(f, codecformat="jp2", reversible=True, level=0) for f in stored()]
    heads = [c.index(b"\xff\x4f\xff\x51") for c in content]
    parts = [(c[:h], c[h:]) for c, h in zip(content, heads, strict=True)]
    frames = [[part + b"\0" * (len(part) % 2) for part in pair] for pair in parts]
    outcome(put(tmp_path, em.encapsulated(plain(), frames, syntax=em.J2K)))


def test_messages_about_fragments_hold_no_identifier(tmp_path):
    said = []
    for codec, build, _ in MORE.values():
        path = put(tmp_path, em.encapsulated(plain(), build(), syntax=CODECS[codec]))
        said += [s.reason for s in lv.scan_headers(path).skipped]
        with pytest.raises(LazyvolError) as caught:
            lv.open_volume(path)
        said.append(str(caught.value))
    for lie in LIES.values():
        path = lie_about(tmp_path, ("JPEG-LS", 2), lie, "basic")
        try:
            said += [str(f) for f in lv.findings_of(lv.open_volume(path))]
        except LazyvolError as error:
            said.append(str(error))
    assert not [line for line in said if "Fictitious" in line or em.ID in line]


# Compressed and uncompressed copies


def test_a_frame_of_each_of_several_compressed_files_is_right(tmp_path):
    images = made.series(N, each=lambda k: {"stored": stored()[k]}, ImageType=em.FRAME_TYPE)
    for n in range(0, N, 2):
        file = em.enhanced(images[n : n + 2], uid=f"1.2.3.5.{n}")
        frames = fragments("JPEG 2000", 2)[n : n + 2]
        (tmp_path / f"{n}.dcm").write_bytes(em.encapsulated(file, frames, syntax=em.J2K))
    np.testing.assert_array_equal(lv.open_volume(tmp_path), [values_of(n) for n in range(N)])


def test_a_frame_of_which_the_file_holds_some_items_only_is_not_whole():
    """Three frames of two items each; the file ends at the end of the fifth."""
    begins = (100, 120, 140, 160, 180)
    found = Fragments(begins, (b"rle!",) * 5, 200, torn=False, closed=False, table=(0, 40, 80))
    rle = "1.2.840.10008.1.2.5"
    assert frames_in(found, count=3, transfer_syntax_uid=rle) == ([(100, 40), (140, 40), (180, 20)], "")
    less = Fragments(begins[:3], (b"rle!",) * 3, 160, torn=False, closed=False, table=(0, 40, 80))
    assert frames_in(less, count=3, transfer_syntax_uid=rle)[0] == [(100, 40), (140, 0), (160, 0)]


def test_a_table_beyond_the_end_of_a_whole_element_is_not_believed():
    begins = (100, 120, 140)
    found = Fragments(begins, (b"rle!",) * 3, 160, torn=False, closed=True, table=(0, 40, 80))
    places, wrong = frames_in(found, count=3, transfer_syntax_uid="1.2.840.10008.1.2.5")
    assert places == [(100, 20), (120, 20), (140, 20)]
    assert wrong


def test_a_table_that_passes_over_the_first_item_is_not_believed():
    found = Fragments((100, 120, 140, 160), (b"rle!",) * 4, 180, torn=False, closed=True, table=(20, 40, 60))
    with pytest.raises(HeaderError, match="3 frames lie in 4 fragments"):
        frames_in(found, count=3, transfer_syntax_uid="1.2.840.10008.1.2.5")
