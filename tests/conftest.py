"""What tests and docstrings share: a small made series, real series if there are any, and the key of the stores."""

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from collection_made import make_tree
from pydicom import Dataset
from pydicom.pixels import get_encoder
from pydicom.uid import RLELossless

from lazyvol import frames
from lazyvol.phantom import write_body_ct, write_series

mpl.use("Agg")

if "gdcm" in (encoder := get_encoder(RLELossless)).available_plugins:
    encoder.remove_plugin("gdcm")  # it ends the whole process where rows are of odd length

REAL = os.environ.get("LAZYVOL_DATA", "")


@pytest.fixture(autouse=True, scope="session")
def _no_user_files(tmp_path_factory):
    """Keep the key of the stores and the cache of headers out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYVOL_KEY", "a key for tests")
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
        patch.setenv("LAZYVOL_CACHE", str(tmp_path_factory.getbasetemp() / "headers.sqlite"))
        yield


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def chest_folder(tmp_path_factory):
    """Folder of 24 slices of 48 x 64 voxels, 40 x 8 x 8 mm; a test must not change it."""
    folder = tmp_path_factory.mktemp("chest") / "chest-data"
    paths = write_body_ct(folder, shape=(24, 48, 64), spacing=(40.0, 8.0, 8.0))
    assert len(paths) == 24
    return folder


@pytest.fixture(scope="session")
def pet_folder(tmp_path_factory):
    """Folder of 4 PET slices of 6 x 8 voxels in Bq/ml, 75 kg, 350 MBq, an hour after the injection."""
    folder = tmp_path_factory.mktemp("pet") / "pet-data"

    def tracer(_k, made):
        item = Dataset()
        item.RadionuclideTotalDose, item.RadionuclideHalfLife = "350000000", "6586.2"
        item.RadiopharmaceuticalStartTime = "090000"
        made.RadiopharmaceuticalInformationSequence = [item]
        made.SeriesTime, made.AcquisitionTime = "100000", "100000"
        made.PatientWeight, made.PatientSize, made.PatientSex = "75", "1.8", "M"

    values = np.random.default_rng(7).integers(0, 20000, (4, 6, 8))
    write_series(folder, values, spacing=(3.0, 4.0, 4.0), modality="PT", intercept=0, overrides=tracer)
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)


@pytest.fixture(scope="session")
def real_data():
    """Folder of real series; tests that need it are skipped where it is absent."""
    if not os.path.isdir(REAL):
        pytest.skip("real series are absent: set LAZYVOL_DATA to the folder that holds them")
    return Path(REAL)


@pytest.fixture
def read(monkeypatch):
    """Path of every frame whose pixels are read, in the order of reading."""
    seen = []
    whole = frames._read_stored
    monkeypatch.setattr(
        frames, "_read_stored", lambda source, path, *rest: seen.append(path) or whole(source, path, *rest)
    )
    return seen


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The tree of 300 series, and the rows that its table must have; a test must not change it."""
    root = tmp_path_factory.mktemp("archive") / "tree"
    root.mkdir()
    return root, make_tree(root)
