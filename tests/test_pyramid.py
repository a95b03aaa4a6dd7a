"""Levels: the mean of what becomes one voxel, exactly, and dimensions halved until voxels are cubes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lazyvol.pyramid import halves_of, halving

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
SIDES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)
FACTORS = st.tuples(*[st.sampled_from([1, 2])] * 3)


def parts_of(values, factors):
    """Yield each voxel of the lower level, and those that become it."""
    shape = [n // f for n, f in zip(values.shape, factors, strict=True)]
    for place in np.ndindex(*shape):
        yield place, values[tuple(slice(p * f, p * f + f) for p, f in zip(place, factors, strict=True))].ravel()


@given(values=st.sampled_from(INTEGERS).flatmap(lambda d: hnp.arrays(d, SIDES)), factors=FACTORS)
@example(values=np.full((2, 2, 2), 2**64 - 1, "uint64"), factors=(2, 2, 2))
@example(values=np.full((2, 2, 2), -(2**63), "int64"), factors=(2, 2, 2))
def test_a_mean_of_integers_is_exact_and_rounded_upwards(values, factors):
    found = halving(values, factors)
    assert found.dtype == values.dtype
    for place, part in parts_of(values, factors):
        exact = Fraction(sum(int(v) for v in part), len(part)) + Fraction(1, 2)
        assert int(found[place]) == exact.numerator // exact.denominator


@given(
    values=st.sampled_from(["float32", "float64"]).flatmap(
        lambda d: hnp.arrays(d, SIDES, elements=st.one_of(st.just(float("nan")), st.integers(-1000, 1000)))
    ),
    factors=FACTORS,
)
def test_a_mean_of_floats_leaves_nan_out(values, factors):
    found = halving(values, factors)
    assert found.dtype == values.dtype
    for place, part in parts_of(values, factors):
        known = part[~np.isnan(part)]
        expected = known.mean(dtype="float64") if known.size else np.nan
        np.testing.assert_allclose(found[place], expected, rtol=1e-6)


@given(values=hnp.arrays("uint8", SIDES), factors=FACTORS)
def test_labels_are_taken_and_never_mixed(values, factors):
    found = halving(values, factors, nearest=True)
    for place, part in parts_of(values, factors):
        assert found[place] == part[0]


def test_what_is_true_or_false_stays_so():
    assert halving(np.array([[[True, False]]]), (1, 1, 2)).tolist() == [[[True]]]


def test_large_floats_do_not_overflow():
    most = np.finfo("float32").max
    assert halving(np.full((2, 2, 2), most, "float32"), (2, 2, 2)).tolist() == [[[most]]]


def test_a_last_odd_voxel_is_left_out():
    assert halving(np.arange(5, dtype="int16"), (2,)).tolist() == [1, 3]


EVEN = {"z": 1.0, "y": 1.0, "x": 1.0}


@pytest.mark.parametrize(
    ("sizes", "spacing", "slab", "levels", "expected"),
    [
        ((600, 512, 512), (1, 1, 1), 64, None, [(2, 2, 2)] * 3),
        ((100, 100, 100), (1, 1, 1), 64, None, []),
        ((100, 512, 512), (5, 0.7, 0.7), 64, None, [(1, 2, 2)] * 2),
        ((100, 512, 512), (5, 0.7, 0.7), 64, 5, [(1, 2, 2)] * 2 + [(2, 2, 2)] * 2),
        ((3, 4, 4), (1, 1, 1), 3, 9, [(2, 2, 2), (1, 2, 2)]),
        ((1, 512, 512), (float("nan"), 1, 1), 1, None, [(1, 2, 2)] * 2),
        ((600, 4096, 4096), (1, 1, 1), 1, 2, [(1, 2, 2)]),
        ((600, 2048, 2048), (1, 1, 1), 2, 3, [(2, 2, 2), (1, 2, 2)]),
        ((600, 512, 512), (1, 1, 1), 64, 1, []),
        ((256, 256, 256), (1, 1.9, 3.8), 256, 2, [(2, 2, 1)]),
    ],
    ids=["CT", "small", "thick slices", "thick slices, deep", "tiny", "one slice", "huge slices", "large slices",
         "one level", "nearly twice"],
)  # fmt: skip
def test_dimensions_are_halved_towards_cubes(sizes, spacing, slab, levels, expected):
    found = halves_of(*(dict(zip("zyx", v, strict=True)) for v in (sizes, spacing)), {"z": slab}, levels)
    assert [tuple(f.values()) for f in found] == expected


@given(
    sizes=st.tuples(*[st.integers(1, 5000)] * 3),
    spacing=st.tuples(*[st.floats(0.01, 50)] * 3),
    slab=st.integers(1, 64),
    levels=st.one_of(st.none(), st.integers(1, 9)),
)
def test_there_are_never_more_levels_than_asked_for_and_none_is_empty(sizes, spacing, slab, levels):
    found = halves_of(*(dict(zip("zyx", v, strict=True)) for v in (sizes, spacing)), {"z": slab}, levels)
    assert levels is None or len(found) < levels
    for n in range(3):
        assert sizes[n] >= np.prod([list(f.values())[n] for f in found], dtype=int)
