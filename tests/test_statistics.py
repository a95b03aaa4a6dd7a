"""Statistics of one volume, block by block: those of NumPy on all of it."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made import examples

import lazyvol as lv
from lazyvol.errors import OptionError

SHARES = [0, 1, 12.5, 50, 99, 100]
INTEGERS = st.sampled_from(["int8", "uint8", "int16", "uint16"])


def volume_of(values, chunks=(1, 2, 3)):
    return xr.DataArray(da.from_array(values, chunks), dims=("z", "y", "x"))


@examples(100)
@given(INTEGERS.flatmap(lambda dtype: hnp.arrays(dtype, st.tuples(*[st.integers(1, 5)] * 3))))
def test_those_of_integers_are_exact(values):
    found = lv.volume_statistics(volume_of(values), SHARES)
    assert (found["count"], found["min"], found["max"]) == (values.size, values.min(), values.max())
    assert found["mean"] == pytest.approx(values.mean(dtype=float))
    assert found["std"] == pytest.approx(values.std(dtype=float))
    expected = np.percentile(values, SHARES, method="inverted_cdf")
    assert [found[f"p{p:g}"] for p in SHARES] == list(expected)


@examples(100)
@given(
    hnp.arrays(
        "float32",
        st.tuples(*[st.integers(1, 5)] * 3),
        elements=st.floats(-1000, 1000, width=32) | st.just(np.float32(np.nan)),
    )
)
def test_those_of_floats_leave_nan_out_and_are_close(values):
    seen = values[np.isfinite(values)].astype(float)
    found = lv.volume_statistics(volume_of(values), SHARES)
    assert found["count"] == seen.size
    if not seen.size:
        assert np.isnan(found["mean"])
        return
    assert (found["min"], found["max"]) == (seen.min(), seen.max())
    assert found["mean"] == pytest.approx(seen.mean(), abs=1e-6)
    assert found["std"] == pytest.approx(seen.std(), abs=1e-6)
    expected = np.percentile(seen, SHARES, method="inverted_cdf")
    np.testing.assert_allclose([found[f"p{p:g}"] for p in SHARES], expected, atol=(np.ptp(seen) + 1e-9) / 65536)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "bool"])
def test_a_histogram_is_that_of_numpy(rng, dtype):
    values = rng.integers(0, 2 if dtype == "bool" else 300, (6, 7, 8)).astype(dtype)
    counts, edges = lv.histogram(volume_of(values), 16, limits=(-5, 120))
    expected, places = np.histogram(values.astype(float), 16, (-5, 120))
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_allclose(edges, places)
    counts, _ = lv.histogram(volume_of(values), 7)
    assert counts.sum() == values.size


def test_a_mask_is_counted_exactly():
    found = lv.volume_statistics(volume_of(np.array([[[True, False, False, True, True]]])), [0, 40, 50, 100])
    assert [found[name] for name in ("min", "max", "mean", "p0", "p40", "p50", "p100")] == [0, 1, 0.6, 0, 0, 1, 1]


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_percentiles_of_wide_integers_are_whole(rng, dtype):
    values = rng.integers(0, 1000, (5, 6, 7)).astype(dtype)
    found = lv.volume_statistics(volume_of(values), SHARES)
    expected = np.percentile(values, SHARES, method="inverted_cdf")
    np.testing.assert_allclose([found[f"p{p:g}"] for p in SHARES], expected, atol=1)
    assert (found["p0"], found["p100"]) == (values.min(), values.max())


def test_infinite_values_are_not_counted():
    found = lv.volume_statistics(volume_of(np.array([[[1.0, np.inf, 3.0, -np.inf]]], "float32")), [50])
    assert (found["count"], found["mean"], found["max"]) == (2, 2, 3)


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 3, 4), complex), np.zeros((0, 3, 4)), np.full((1, 1, 1), "a")],
    ids=["complex", "empty", "words"],
)
def test_what_has_no_statistics_is_named(values):
    with pytest.raises(OptionError, match="has no statistics"):
        lv.volume_statistics(xr.DataArray(values, dims=("z", "y", "x")))


def test_a_volume_in_memory_is_counted_too(rng):
    values = rng.integers(0, 99, (4, 5, 6)).astype("int16")
    found = lv.volume_statistics(xr.DataArray(values, dims=("z", "y", "x")))
    assert found["mean"] == pytest.approx(values.mean())


@pytest.mark.parametrize("value", [7, -3])
def test_one_value_alone_is_all_of_them(value):
    for dtype in ("int16", "float32"):
        found = lv.volume_statistics(volume_of(np.full((2, 3, 4), value, dtype)), [50])
        assert (found["min"], found["max"], found["std"], found["p50"]) == (value, value, 0, value)


def test_a_block_is_read_once(rng):
    read = []

    def block(values, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return values

    values = rng.integers(0, 99, (6, 4, 5)).astype("int16")
    data = da.from_array(values, (2, 4, 5)).map_blocks(block, dtype="int16", meta=np.empty((0, 0, 0), "int16"))
    lv.volume_statistics(xr.DataArray(data, dims=("z", "y", "x")))
    assert sorted(read) == [(n, 0, 0) for n in range(3)]


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (lv.histogram, {"limits": (3, 3)}),
        (lv.histogram, {"limits": (0, np.inf)}),
        (lv.histogram, {"bins": 0}),
        (lv.volume_statistics, {"percentiles": [101]}),
        (lv.volume_statistics, {"percentiles": [-1]}),
        (lv.volume_statistics, {"percentiles": 50}),
        (lv.volume_statistics, {"percentiles": ["a"]}),
        (lv.histogram, {"bins": 2.5}),
        (lv.histogram, {"limits": 5}),
    ],
    ids=["no width", "no end", "no bin", "above 100", "below 0", "no list", "no number", "half a bin", "one limit"],
)
def test_what_cannot_be_counted_is_named(function, options):
    with pytest.raises(OptionError):
        function(volume_of(np.zeros((2, 3, 4), "int16")), **options)


def test_what_is_no_array_is_named():
    with pytest.raises(OptionError):
        lv.volume_statistics(np.zeros((2, 3, 4)))


def test_a_histogram_without_limits_is_of_finite_values():
    values = np.array([[[-np.inf, 1.0, np.nan], [5.0, np.inf, 3.0]]])
    volume = volume_of(values)
    counts, edges = lv.histogram(volume, 4)
    assert (counts.tolist(), edges[[0, -1]].tolist()) == ([1, 0, 1, 1], [1.0, 5.0])
    with pytest.raises(OptionError, match="holds no finite value"):
        lv.histogram(volume * np.nan)
