"""Frames that cannot be read: raised, or filled with a warning and named in the store."""

from __future__ import annotations

import warnings
from pathlib import Path

import dask
import numpy as np
import pytest

import lazyvol as lv
from lazyvol.errors import LazyvolWarning, OptionError, PixelRangeError, PixelReadError
from lazyvol.phantom import write_series

VALUES = np.arange(6 * 8 * 9, dtype=np.int16).reshape(6, 8, 9)


@pytest.fixture
def damaged(tmp_path):
    """A series of six slices, of which those of index 2 and 5 are cut short in their pixels."""
    folder = tmp_path / "series"
    folder.mkdir()
    write_series(folder, VALUES, spacing=(2.0, 1.0, 1.0))
    for path in map(Path, lv.open_volume(folder).source.values[[2, 5]]):
        path.write_bytes(path.read_bytes()[:-20])
    return folder


def names(folder, *slices):
    return [Path(p).name for p in lv.open_volume(folder).source.values[list(slices)]]


def filled(volume):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = volume.compute(scheduler="sync")
    return values, [w for w in caught if w.category is LazyvolWarning]


def test_an_unreadable_frame_raises_by_default(damaged):
    (name,) = names(damaged, 2)
    with pytest.raises(PixelReadError, match=rf"{name} is cut short: frame 1 has 124 of 144 bytes"):
        lv.open_volume(damaged).isel(z=[1, 2]).compute()


def test_filled_frames_are_nan_and_the_others_as_they_were_written(damaged):
    values, _ = filled(lv.open_volume(damaged, on_error="fill"))
    expected = VALUES.astype(float)
    expected[[2, 5]] = np.nan
    np.testing.assert_array_equal(values, expected)


def test_filling_makes_float32(damaged):
    assert lv.open_volume(damaged, on_error="fill").dtype == np.float32


def test_a_fill_value_keeps_integers(damaged):
    volume = lv.open_volume(damaged, on_error="fill", fill_value=-32768)
    assert volume.dtype == np.int16
    assert (filled(volume)[0][[2, 5]] == -32768).all()


def test_each_filled_frame_warns_with_its_file(damaged):
    _, caught = filled(lv.open_volume(damaged, on_error="fill"))
    assert [name in str(w.message) for w, name in zip(caught, names(damaged, 2, 5), strict=True)] == [True, True]


def test_whole_frames_do_not_warn(damaged):
    assert not filled(lv.open_volume(damaged, on_error="fill").isel(z=slice(2)))[1]


def test_the_volume_says_that_frames_may_be_filled(damaged):
    assert "fill-on-error" in {f.code for f in lv.findings_of(lv.open_volume(damaged, on_error="fill"))}


def test_a_file_of_one_frame_opens_though_it_is_cut_short(damaged):
    volume = lv.open_volume(damaged / names(damaged, 5)[0], on_error="fill")
    assert np.isnan(filled(volume)[0]).all()


def test_integers_cannot_be_filled_with_nan(damaged):
    with pytest.raises(PixelRangeError, match=r"int16.*cannot hold NaN for frames that cannot be read"):
        lv.open_volume(damaged, on_error="fill", dtype="int16")


def test_another_word_is_refused(damaged):
    with pytest.raises(OptionError, match="on_error='skip' is not known; it can be 'raise', 'fill'"):
        lv.open_volume(damaged, on_error="skip")


def saved_findings(volume, store, scheduler="sync"):
    with warnings.catch_warnings(), dask.config.set(scheduler=scheduler):
        warnings.simplefilter("ignore", LazyvolWarning)
        lv.save_zarr(volume, store)
    return {f.code: f for f in lv.findings_of(lv.open_zarr(store))}


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_the_store_names_the_slices_that_were_filled(damaged, tmp_path, scheduler):
    found = saved_findings(lv.open_volume(damaged, on_error="fill"), tmp_path / "a.zarr", scheduler)
    assert (found["frames-filled"].slices, found["frames-filled"].values) == ((2, 5), (2, 6))


def test_a_part_of_the_volume_names_its_own_slices(damaged, tmp_path):
    found = saved_findings(lv.open_volume(damaged, on_error="fill").isel(z=slice(1, 4)), tmp_path / "a.zarr")
    assert found["frames-filled"].slices == (1,)


def test_a_store_without_filled_frames_has_no_such_finding(damaged, tmp_path):
    found = saved_findings(lv.open_volume(damaged, on_error="fill").isel(z=slice(2)), tmp_path / "a.zarr")
    assert "frames-filled" not in found


def test_no_path_of_a_filled_frame_is_in_the_store(damaged, tmp_path):
    saved_findings(lv.open_volume(damaged, on_error="fill"), tmp_path / "a.zarr")
    assert not any(b"body-000" in p.read_bytes() for p in (tmp_path / "a.zarr").rglob("*") if p.is_file())


def test_workers_of_a_cluster_tell_which_frames_they_filled(damaged, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        lv.save_zarr(lv.open_volume(damaged, on_error="fill"), tmp_path / "a.zarr")
    found = {f.code: f for f in lv.findings_of(lv.open_zarr(tmp_path / "a.zarr"))}
    assert found["frames-filled"].slices == (2, 5)
