"""``volume.vol``: what lazyvol knows about a volume, where xarray users look for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.arrays import loaded
from lazyvol.convention import findings_of, geometry_of
from lazyvol.errors import Finding, HeaderUnavailableError
from lazyvol.geometry import ZYX, Geometry
from lazyvol.suv import to_suv
from lazyvol.uptake import Kind
from lazyvol.view import plot_slices

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["VolumeAccessor"]

Array = npt.NDArray[np.float64]


@xr.register_dataarray_accessor("vol")  # type: ignore[no-untyped-call]  # xarray has no types here
class VolumeAccessor:
    """Geometry, findings and plots of the volume; nothing is kept here, all comes from its coordinates."""

    def __init__(self, volume: xr.DataArray) -> None:
        self._volume = volume

    @property
    def geometry(self) -> Geometry:
        """Where the voxels lie in the patient."""
        return geometry_of(self._volume)

    @property
    def spacing(self) -> ZYX:
        """Distance between neighbouring voxel centres along z, y and x, mm."""
        return self.geometry.spacing

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel, LPS (x, y, z) mm."""
        return self.geometry.origin

    @property
    def directions(self) -> Array:
        """Unit vectors of one step along z, y and x (rows), each LPS (x, y, z); shape (3, 3)."""
        return np.array(self.geometry.directions)

    @property
    def orientation(self) -> str:
        """Patient direction that x, y and z grow towards, e.g. ``LPS``."""
        return self.geometry.orientation

    @property
    def affine(self) -> Array:
        """Matrix (4, 4) from index (k, j, i, 1) to LPS (x, y, z, 1) in mm."""
        return self.geometry.affine

    @property
    def affine_ras(self) -> Array:
        """The affine to RAS, as NIfTI has it."""
        return self.geometry.affine_ras

    @property
    def field_of_view(self) -> ZYX:
        """Extent along z, y and x from edge to edge, mm."""
        return self.geometry.field_of_view

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is odd about the series."""
        return findings_of(self._volume)

    def position_to_index(self, position: npt.ArrayLike) -> Array:
        """Return the indices (k, j, i) of LPS positions (x, y, z) in mm, as fractions; shape (..., 3)."""
        return self.geometry.position_to_index(position)

    def index_to_position(self, index: npt.ArrayLike) -> Array:
        """Return the LPS positions (x, y, z) in mm of indices (k, j, i); shape (..., 3)."""
        return self.geometry.index_to_position(index)

    def header(self, k: int = 0, **indices: int) -> Dataset:
        """Return the whole pydicom header of the file that slice ``k`` came from, read now.

        ``indices`` choose along further dimensions, e.g. ``header(3, time=1)``; without, their first.

        Raises
        ------
        HeaderUnavailableError
            If the volume does not know its files (it was opened from a store), or no image is there.
        """
        from lazyvol.scan import read_header

        source = self._volume.coords.get("source")
        if source is None:
            raise HeaderUnavailableError("the volume does not know its source files; open the DICOM series instead.")
        if any(not -n <= (k if d == "z" else indices.get(str(d), 0)) < n for d, n in source.sizes.items()):
            raise HeaderUnavailableError(f"there is no slice {k} {indices or ''}in a volume of {dict(source.sizes)}.")
        chosen = source.isel({d: k if d == "z" else indices.get(str(d), 0) for d in source.dims})
        path = str(chosen.item())
        if not path or path.startswith("dataset["):
            raise HeaderUnavailableError(f"slice {k} has no file of its own ({path or 'its image is absent'}).")
        return read_header(path)

    def load(self) -> xr.DataArray:
        """Return the volume with its values in memory, read by the current scheduler into one array.

        As ``compute()``, which gathers all blocks and then copies them, but with half of its memory; the volume itself
        stays lazy. On a cluster, or with processes, it is ``compute()``.

        Returns
        -------
        xarray.DataArray
            The same volume, its values a NumPy array.

        Raises
        ------
        PixelReadError, PixelRangeError
            If a frame cannot be read, or a value does not fit.

        Examples
        --------
        >>> import lazyvol
        >>> ct = lazyvol.open_volume(getfixture("chest_folder"))
        >>> type(ct.vol.load().data).__name__, type(ct.data).__name__
        ('ndarray', 'Array')
        """
        return loaded(self._volume)

    def to_suv(self, kind: Kind = "bw") -> xr.DataArray:
        """Return PET as standardised uptake values: `lazyvol.to_suv` of this volume."""
        return to_suv(self._volume, kind)

    def plot(self, **options: Any) -> Any:
        """Plot cuts: `lazyvol.plot_slices` of this volume."""
        return plot_slices(self._volume, **options)
