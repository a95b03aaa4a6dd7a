"""What other readers make of a DICOM folder: the values, and where in the patient they lie."""

from __future__ import annotations

import subprocess
import warnings
from typing import TYPE_CHECKING, NamedTuple

import dcm2niix
import nibabel
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # SWIG types of SimpleITK, from Python 3.12
    import SimpleITK as sitk  # noqa: N813  # as its own documentation has it

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Grid(NamedTuple):
    """Values with the matrix from their index to LPS mm."""

    values: npt.NDArray[np.generic]
    affine: npt.NDArray[np.float64]


def read_with_simpleitk(folder: Path, *, force_orthogonal: bool = False) -> Grid:
    """Read the one series below a folder; index order is that of SimpleITK, (i, j, k).

    By default SimpleITK makes the directions of a tilted stack orthogonal, which moves its slices.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), recursive=True))
    reader.SetForceOrthogonalDirection(force_orthogonal)
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Grid(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine)


def read_with_dcm2niix(folder: Path, output: Path) -> Grid:
    """Convert the one series below a folder to NIfTI and read that; index order is the file's.

    For a tilted stack dcm2niix writes a second file beside, with rows moved: not this one.
    """
    asked = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "volume", "-o", str(output), str(folder)]
    subprocess.run(asked, check=True, capture_output=True)
    image = nibabel.load(output / "volume.nii", mmap=False)
    return Grid(np.asarray(image.dataobj), RAS_TO_LPS @ image.affine)


def on_axes_of(grid: Grid, affine: npt.NDArray[np.float64]) -> Grid:
    """Return a grid with its axes permuted and flipped so that they run as those of an affine.

    No value and no voxel moves in the patient.
    """
    steps = [a[:3, :3] / np.linalg.norm(a[:3, :3], axis=0) for a in (grid.affine, affine)]
    turn = np.rint(
        steps[0].T @ steps[1]
    )  # cosines: rounding lets a tilt of a few degrees pass, for the caller to measure
    if not (np.abs(turn).sum(0) == 1).all() or not (np.abs(turn).sum(1) == 1).all():
        raise ValueError(f"the axes are not those of the other grid, permuted and flipped:\n{turn}")
    order = np.abs(turn).argmax(0)
    backwards = turn.sum(0) < 0
    old_index_of_new = np.eye(4)
    old_index_of_new[:3, :3] = turn
    old_index_of_new[order[backwards], 3] = np.array(grid.values.shape)[order[backwards]] - 1
    values = np.flip(grid.values.transpose(order), np.flatnonzero(backwards))
    return Grid(values, grid.affine @ old_index_of_new)
