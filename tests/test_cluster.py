"""A cluster of two processes computes and writes what local threads do."""

from __future__ import annotations

import os

import dask
import numpy as np
import pytest

import lazyvol as lv
from lazyvol.phantom import write_series

distributed = pytest.importorskip("distributed", reason="distributed is absent: install lazyvol[distributed]")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sending large graph:UserWarning"),
    pytest.mark.filterwarnings("ignore:Port [0-9]+ is already in use:UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of a cluster that is closing
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client():
    """Two processes of one thread each."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    values = np.random.default_rng(3).integers(-1024, 3000, (12, 40, 50))
    folder = tmp_path_factory.mktemp("cluster") / "dicom"
    write_series(folder, values, spacing=(3.0, 0.9, 0.7))
    return folder


@pytest.fixture
def volume(folder, monkeypatch):
    """A volume whose slabs are two slices each."""
    monkeypatch.setattr("lazyvol.chunks.CHUNK_BYTES", 2 * 40 * 50 * 2)
    return lv.open_volume(folder)


def by_threads(compute):
    with dask.config.set(scheduler="threads"):
        return compute()


def test_work_is_done_in_two_other_processes(client):
    assert len({os.getpid(), *client.run(os.getpid).values()}) == 3


def test_a_mean_is_that_of_local_threads(client, volume):
    remote = volume.mean("z").compute()
    local = by_threads(volume.mean("z").compute)
    np.testing.assert_array_equal(remote, local)


def test_a_level_is_that_of_local_threads_byte_by_byte(client, volume, tmp_path):
    lv.save_zarr(volume, tmp_path / "remote.zarr")
    by_threads(lambda: lv.save_zarr(volume, tmp_path / "local.zarr"))
    assert files_of(tmp_path / "remote.zarr" / "scale0") == files_of(tmp_path / "local.zarr" / "scale0")


def test_a_store_is_read_by_the_cluster(client, volume, tmp_path):
    lv.save_zarr(volume, tmp_path / "a.zarr")
    np.testing.assert_array_equal(lv.open_zarr(tmp_path / "a.zarr").compute(), by_threads(volume.compute))


def test_an_error_comes_back_whole_from_a_worker(client, volume, folder, tmp_path):
    paths = write_series(tmp_path, np.zeros((2, 4, 5)), spacing=(3.0, 0.9, 0.7))
    gone = lv.open_volume(tmp_path)
    paths[1].unlink()
    with pytest.raises(lv.LazyvolError, match=rf"{paths[1].name} cannot be read: No such file"):
        gone.compute()


def test_a_volume_loads_from_other_processes(client, volume):
    loaded = volume.vol.load()
    assert isinstance(loaded.data, np.ndarray)
    np.testing.assert_array_equal(loaded, by_threads(volume.compute))


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
