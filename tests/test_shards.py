"""Shards: what is written reads the same through zarr, any selection is that of NumPy, and damage is an error."""

from __future__ import annotations

from contextlib import contextmanager
from math import prod

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from made import examples
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from lazyvol.place import LocalPlace
from lazyvol.shards import (
    BLOSC,
    ShardForm,
    check_shard,
    checksum_of,
    cut_selection,
    encode_chunks,
    read_pieces,
    read_whole,
    shard_parts,
)
from lazyvol.stored import shard_form

many = examples(150)
CODECS = [BloscCodec(**BLOSC, typesize=2), Crc32cCodec()]
FILL = -32768


def values_of(shape, seed=0):
    return np.random.default_rng(seed).integers(-1000, 1000, shape, dtype="int16")


@st.composite
def forms(draw):
    """A shard, and how much of it a volume covers."""
    chunk = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    counts = [draw(st.integers(1, 3)) for _ in chunk]
    shard = tuple(c * n for c, n in zip(chunk, counts, strict=True))
    covered = tuple(draw(st.integers(max(1, s - c + 1), s)) for s, c in zip(shard, chunk, strict=True))
    return ShardForm(shard, tuple(chunk), "<i2", FILL), covered


@st.composite
def blocks_of(draw, values):
    """An array cut at random into blocks, in random order."""
    borders = [sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=2))}) for n in values.shape]
    places = np.ndindex(*(len(b) - 1 for b in borders))
    cuts = [tuple(slice(b[i], b[i + 1]) for b, i in zip(borders, n, strict=True)) for n in places]
    return draw(st.permutations([(tuple(s.start for s in cut), values[cut]) for cut in cuts]))


def written(form, blocks):
    parts = [encode_chunks(form, blocks, part) for part in (range(1), range(1, prod(form.counts)))]
    return b"".join(shard_parts([chunk for part in parts for chunk in part]))


def by_zarr(content, form, shape):
    array = zarr.create_array(
        {},
        shape=shape,
        dtype="int16",
        chunks=form.chunk,
        shards=form.shard,
        compressors=CODECS if form.checksums else CODECS[:1],
        fill_value=form.fill_value,
    )
    array.store._store_dict["c/" + "/".join("0" * len(shape))] = zarr.core.buffer.cpu.Buffer.from_bytes(content)
    return array[...]


@contextmanager
def opened(path):
    with LocalPlace(str(path.parent)).reader(path.name) as read_at:
        yield read_at


def read(path, form, wanted):
    """Return a selection from the one shard of a volume."""
    out = np.zeros([len(w) for w in wanted], form.dtype)
    for pieces in cut_selection(form, [np.asarray(w, int) for w in wanted]).values():
        with opened(path) as read_at:
            read_pieces(read_at, form, pieces, out)
    return out


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "shard"


@many
@given(forms(), st.data())
def test_zarr_reads_what_was_written(form, data):
    form, covered = form
    values = values_of(covered)
    content = written(form, data.draw(blocks_of(values)))
    np.testing.assert_array_equal(by_zarr(content, form, covered), values)


@many
@given(forms(), st.data())
def test_what_lies_beyond_the_volume_is_the_fill_value(form, data):
    form, covered = form
    content = written(form, data.draw(blocks_of(values_of(covered))))
    beyond = by_zarr(content, form, form.shard)
    beyond[tuple(map(slice, covered))] = FILL
    assert (beyond == FILL).all()


@many
@given(forms(), st.data())
def test_any_selection_is_that_of_numpy(file, form, data):
    form, covered = form
    values = values_of(covered)
    file.write_bytes(written(form, [((0,) * len(covered), values)]))
    wanted = [data.draw(st.lists(st.integers(0, n - 1), max_size=6)) for n in covered]
    np.testing.assert_array_equal(read(file, form, wanted), values[np.ix_(*(np.asarray(w, int) for w in wanted))])


@many
@given(forms(), st.data())
def test_what_zarr_wrote_is_read(file, form, data):
    form, _ = form
    array = zarr.create_array(
        {}, shape=form.shard, dtype="int16", chunks=form.chunk, shards=form.shard, compressors=CODECS, fill_value=FILL
    )
    array[...] = values_of(form.shard)
    (content,) = (v for k, v in array.store._store_dict.items() if "zarr.json" not in k)
    file.write_bytes(content.to_bytes())
    wanted = [range(n) for n in form.shard]
    np.testing.assert_array_equal(read(file, form, wanted), values_of(form.shard))


@given(st.lists(st.integers(0, 99), min_size=1, max_size=9), st.lists(st.integers(0, 99), min_size=1, max_size=9))
def test_pieces_cover_a_selection_once(rows, columns):
    form = ShardForm((20, 30), (5, 6), "<i2", 0)
    found = np.zeros((len(rows), len(columns)), int)
    for pieces in cut_selection(form, [np.array(rows), np.array(columns)]).values():
        for piece in pieces:
            found[piece.outside] += 1
    assert (found == 1).all()


@many
@given(forms())
def test_a_whole_shard_is_what_the_volume_has_of_it(file, form):
    form, covered = form
    file.write_bytes(written(form, [((0,) * len(covered), values_of(covered))]))
    with opened(file) as read_at:
        np.testing.assert_array_equal(read_whole(read_at, form, covered), values_of(covered))


@pytest.mark.parametrize(
    "compressor",
    [
        BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2),
        BloscCodec(cname="zstd", clevel=9, shuffle="noshuffle", typesize=2),
        ZstdCodec(level=3),
        ZstdCodec(level=1, checksum=True),
        GzipCodec(level=2),
        None,
    ],
    ids=["lz4", "noshuffle", "zstd", "zstd with checksum", "gzip", "none"],
)
@pytest.mark.parametrize("checked", [True, False], ids=["checksums", "no checksums"])
def test_other_compressions_are_written_and_read_as_zarr_does(file, compressor, checked):
    compressors = [c for c in (compressor, Crc32cCodec() if checked else None) if c]
    array = zarr.create_array(
        {}, shape=(4, 6), dtype="int16", chunks=(2, 3), shards=(4, 6), compressors=compressors, fill_value=FILL
    )
    array[...] = values_of((4, 6))
    form, store = shard_form(array), array.store._store_dict
    (key,) = (k for k in store if "zarr.json" not in k)
    file.write_bytes(store[key].to_bytes())
    np.testing.assert_array_equal(read(file, form, WHOLE), values_of((4, 6)))
    if checked:
        store[key] = zarr.core.buffer.cpu.Buffer.from_bytes(written(form, [((0, 0), values_of((4, 6)))]))
        np.testing.assert_array_equal(array[...], values_of((4, 6)))


# Damage

FORM = ShardForm((4, 6), (2, 3), "<i2", FILL)
BARE = ShardForm((4, 6), (2, 3), "<i2", FILL, checksums=False)
WHOLE = [range(4), range(6)]


@pytest.fixture(scope="module")
def content():
    return written(FORM, [((0, 0), values_of((4, 6)))])


@pytest.fixture(scope="module")
def bare():
    """The same shard without checksums of its chunks, as zarr writes it."""
    array = zarr.create_array(
        {}, shape=(4, 6), dtype="int16", chunks=(2, 3), shards=(4, 6), compressors=CODECS[:1], fill_value=FILL
    )
    array[...] = values_of((4, 6))
    return next(v.to_bytes() for k, v in array.store._store_dict.items() if "zarr.json" not in k)


def test_without_checksums_of_its_chunks_a_shard_is_read(file, bare):
    file.write_bytes(bare)
    np.testing.assert_array_equal(read(file, BARE, WHOLE), values_of((4, 6)))


def test_any_flipped_bit_is_an_error(file, content):
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="does not match its checksum"):
            read(file, FORM, WHOLE)
        with opened(file) as read_at, pytest.raises(ValueError, match=r"does not match its checksum|never written"):
            check_shard(read_at, FORM)


def test_a_whole_file_has_the_checksum_of_its_chunks(file, content):
    file.write_bytes(content)
    chunks = encode_chunks(FORM, [((0, 0), values_of((4, 6)))], range(4))
    with opened(file) as read_at:
        assert check_shard(read_at, FORM) == checksum_of(chunks)


@pytest.mark.parametrize("codec", [ShardForm((4, 6), (4, 6), "<i2", FILL).codec, ()], ids=["Blosc", "none"])
@pytest.mark.parametrize("chunk", [(4, 6), (2, 3)], ids=["one chunk", "several"])
def test_shards_of_other_values_have_other_checksums(codec, chunk):
    """A CRC over bytes that end with their CRC is the same for all."""
    form = ShardForm((4, 6), chunk, "<i2", FILL, codec=codec)
    numbers = range(prod(form.counts))
    found = {checksum_of(encode_chunks(form, [((0, 0), values_of((4, 6), seed))], numbers)) for seed in range(9)}
    assert len(found) == 9


@pytest.mark.parametrize("length", [0, 3, 40])
def test_a_file_that_is_cut_short_has_no_checksum(file, content, length):
    file.write_bytes(content[:length])
    with opened(file) as read_at, pytest.raises(ValueError, match="index of the shard does not match"):
        check_shard(read_at, FORM)


@pytest.mark.parametrize("at", [4, 5, 12, 15], ids=["length", "length, second byte", "packed", "packed, last byte"])
def test_a_chunk_that_lies_on_its_length_is_never_decoded(file, bare, at):
    damaged = bytearray(bare)
    damaged[at] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match="chunk 0 of the shard is not as long as it says"):
        read(file, BARE, WHOLE)


@pytest.mark.parametrize("length", [0, 3, 40])
def test_a_file_that_is_cut_short_is_an_error(file, content, length):
    file.write_bytes(content[:length])
    with pytest.raises(ValueError, match="index of the shard does not match"):
        read(file, FORM, WHOLE)


def test_a_chunk_that_was_never_written_is_an_error(file):
    array = zarr.create_array(
        {}, shape=(4, 6), dtype="int16", chunks=(2, 3), shards=(4, 6), compressors=CODECS, fill_value=FILL
    )
    array[:2] = values_of((2, 6))
    file.write_bytes(next(v.to_bytes() for k, v in array.store._store_dict.items() if "zarr.json" not in k))
    np.testing.assert_array_equal(read(file, FORM, [range(2), range(6)]), values_of((2, 6)))
    with pytest.raises(ValueError, match="chunk 2 of the shard was never written"):
        read(file, FORM, WHOLE)
