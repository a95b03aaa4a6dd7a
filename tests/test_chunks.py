"""How volumes are cut: for any shape, blocks of a bounded size that line up."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from made import examples

from lazyvol.chunks import chunked, preferred_chunks, store_chunks

many = examples(300)
MIB = 2**20
DTYPES = st.sampled_from(["uint8", "int16", "float32", "float64"])


@st.composite
def volumes(draw):
    """Dimensions with their lengths, and a dtype."""
    before = {d: draw(st.integers(1, 30)) for d in draw(st.sampled_from([(), ("time",), ("time", "echo")]))}
    side = st.one_of(st.integers(1, 1100), st.sampled_from([127, 128, 129, 256, 257, 512]))
    sizes = before | {"z": draw(st.integers(1, 3000)), "y": draw(side), "x": draw(side)}
    if draw(st.booleans()):
        sizes["sample"] = draw(st.sampled_from([3, 4]))
    return sizes, draw(DTYPES)


def size_of(lengths, dtype):
    return math.prod(lengths.values()) * np.dtype(dtype).itemsize


def frame_of(sizes, dtype):
    return size_of({d: n for d, n in sizes.items() if d in ("y", "x", "sample")}, dtype)


# Blocks in memory


@many
@given(volumes())
def test_a_block_holds_whole_frames(volume):
    sizes, dtype = volume
    lengths = preferred_chunks(sizes, sizes.values(), dtype)
    assert {d: lengths[d] for d in sizes if d in ("y", "x", "sample")} == {
        d: n for d, n in sizes.items() if d in ("y", "x", "sample")
    }


@many
@given(volumes())
def test_a_block_holds_one_place_of_each_axis_before_z(volume):
    sizes, dtype = volume
    lengths = preferred_chunks(sizes, sizes.values(), dtype)
    assert all(lengths[d] == 1 for d in sizes if d in ("time", "echo"))


@many
@given(volumes())
def test_a_block_has_at_most_16_mib_or_one_frame(volume):
    sizes, dtype = volume
    lengths = preferred_chunks(sizes, sizes.values(), dtype)
    assert lengths["z"] == 1 or size_of(lengths, dtype) <= 16 * MIB


@many
@given(volumes())
def test_a_block_has_as_many_frames_as_fit(volume):
    sizes, dtype = volume
    lengths = preferred_chunks(sizes, sizes.values(), dtype)
    assert lengths["z"] == sizes["z"] or size_of(lengths, dtype) + frame_of(sizes, dtype) > 16 * MIB


def test_a_block_of_a_usual_ct_has_32_slices():
    assert preferred_chunks("zyx", (600, 512, 512), "int16") == {"z": 32, "y": 512, "x": 512}


def test_dimensions_keep_their_order():
    dims = ("time", "z", "y", "x", "sample")
    assert tuple(preferred_chunks(dims, (2, 3, 4, 5, 3), "uint8")) == dims


VOLUME = xr.DataArray(np.zeros((6, 4, 5), "int16"), {"z": np.arange(6.0)}, ("z", "y", "x"), "image")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ("auto", ((6,), (4,), (5,))),
        (2, ((2, 2, 2), (2, 2), (2, 2, 1))),
        ({"z": 4}, ((4, 2), (4,), (5,))),
        ({"z": 1, "x": 3}, ((1,) * 6, (4,), (3, 2))),
        ({"y": -1}, ((6,), (4,), (5,))),
    ],
    ids=["auto", "number", "mapping", "two", "whole"],
)
def test_blocks_are_as_asked(chunks, expected):
    assert chunked(VOLUME, chunks).chunks == expected


def test_without_chunks_a_volume_stays_as_it_is():
    assert chunked(VOLUME, None) is VOLUME


def test_coordinates_are_not_cut():
    assert chunked(VOLUME, 2).z.chunks is None


def test_cutting_keeps_values_names_and_attributes():
    xr.testing.assert_identical(chunked(VOLUME, 2).compute(), VOLUME)


@pytest.mark.parametrize("chunks", ["auto", 2], ids=str)
def test_equal_volumes_with_one_token_share_names(chunks):
    names = {chunked(v, chunks, token="token").data.name for v in (VOLUME, VOLUME.copy())}
    assert len(names) == 1


def test_other_blocks_or_another_token_give_other_names():
    asked = [("auto", "a"), (2, "a"), ("auto", "b"), ("auto", ""), ("auto", "")]
    assert len({chunked(VOLUME, chunks, token=token).data.name for chunks, token in asked}) == len(asked)


# Blocks of a store


@many
@given(volumes())
def test_a_slab_is_a_shard_unless_the_volume_ends(volume):
    sizes, dtype = volume
    slabs, shards, _ = store_chunks(sizes, sizes.values(), dtype)
    assert all(shards[d] == slabs[d] or slabs[d] == sizes[d] < shards[d] for d in sizes)


@many
@given(volumes())
def test_a_shard_is_a_multiple_of_its_chunks(volume):
    sizes, dtype = volume
    _, shards, chunks = store_chunks(sizes, sizes.values(), dtype)
    assert all(shards[d] % chunks[d] == 0 for d in sizes)


@many
@given(volumes())
def test_no_chunk_is_longer_than_the_volume(volume):
    sizes, dtype = volume
    _, _, chunks = store_chunks(sizes, sizes.values(), dtype)
    assert all(1 <= chunks[d] <= sizes[d] for d in sizes)


@many
@given(volumes())
def test_no_shard_reaches_a_whole_chunk_beyond_the_volume(volume):
    sizes, dtype = volume
    slabs, shards, chunks = store_chunks(sizes, sizes.values(), dtype)
    assert all(shards[d] - slabs[d] < chunks[d] for d in sizes)


@many
@given(volumes())
def test_a_slab_has_at_most_32_mib_or_one_frame(volume):
    sizes, dtype = volume
    slabs, _, _ = store_chunks(sizes, sizes.values(), dtype)
    assert slabs["z"] == 1 or size_of(slabs, dtype) <= 32 * MIB


@many
@given(volumes())
def test_a_shard_has_at_most_64_mib(volume):
    sizes, dtype = volume
    assume(frame_of(sizes, dtype) <= 16 * MIB)
    _, shards, _ = store_chunks(sizes, sizes.values(), dtype)
    assert size_of(shards, dtype) <= 64 * MIB


@many
@given(volumes())
def test_a_chunk_is_at_most_64_voxels_along_each_dimension(volume):
    sizes, dtype = volume
    _, _, chunks = store_chunks(sizes, sizes.values(), dtype)
    assert max(chunks["z"], chunks["y"], chunks["x"]) <= 64


def test_the_store_of_a_usual_ct_is_cut_as_planned():
    slabs, shards, chunks = store_chunks("zyx", (600, 512, 512), "int16")
    assert slabs == shards == {"z": 64, "y": 512, "x": 512}
    assert chunks == {"z": 64, "y": 64, "x": 64}
