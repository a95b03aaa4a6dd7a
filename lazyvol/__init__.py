"""Medical volumes as lazy xarray arrays with coordinates in mm.

The names below are all that most users need; each is imported when it is first used,
so that importing lazyvol stays light.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyvol.collection import Collection, open_collection
    from lazyvol.convention import findings_of, geometry_of
    from lazyvol.errors import Finding, LazyvolError
    from lazyvol.geometry import Geometry
    from lazyvol.grid import Tolerances
    from lazyvol.grow import add_levels, append_zarr, copy_zarr, save_region
    from lazyvol.join import join_series
    from lazyvol.nifti_files import open_nifti
    from lazyvol.opened import open_zarr
    from lazyvol.records import Frame, Instance
    from lazyvol.resample import rectify
    from lazyvol.scan import read_header, scan_headers
    from lazyvol.series import Series, group_series
    from lazyvol.stacks import Stack
    from lazyvol.statistics import histogram, volume_statistics
    from lazyvol.store import save_zarr
    from lazyvol.suv import to_suv
    from lazyvol.verify import verify_zarr
    from lazyvol.view import field_of_view, plot_slices
    from lazyvol.volume import open_stacks, open_volume
    from lazyvol.windows import windows_of

__all__ = [
    "Collection",
    "Finding",
    "Frame",
    "Geometry",
    "Instance",
    "LazyvolError",
    "Series",
    "Stack",
    "Tolerances",
    "add_levels",
    "append_zarr",
    "copy_zarr",
    "field_of_view",
    "findings_of",
    "geometry_of",
    "group_series",
    "histogram",
    "join_series",
    "open_collection",
    "open_nifti",
    "open_stacks",
    "open_volume",
    "open_zarr",
    "plot_slices",
    "read_header",
    "rectify",
    "save_region",
    "save_zarr",
    "scan_headers",
    "to_suv",
    "verify_zarr",
    "volume_statistics",
    "windows_of",
]

_HOME = {
    "Collection": "collection",
    "Finding": "errors",
    "Frame": "records",
    "Geometry": "geometry",
    "Instance": "records",
    "LazyvolError": "errors",
    "Series": "series",
    "Stack": "stacks",
    "Tolerances": "grid",
    "add_levels": "grow",
    "append_zarr": "grow",
    "copy_zarr": "grow",
    "field_of_view": "view",
    "findings_of": "convention",
    "geometry_of": "convention",
    "group_series": "series",
    "histogram": "statistics",
    "join_series": "join",
    "open_collection": "collection",
    "open_nifti": "nifti_files",
    "open_stacks": "volume",
    "open_volume": "volume",
    "open_zarr": "opened",
    "plot_slices": "view",
    "read_header": "scan",
    "rectify": "resample",
    "save_region": "grow",
    "save_zarr": "store",
    "scan_headers": "scan",
    "to_suv": "suv",
    "verify_zarr": "verify",
    "volume_statistics": "statistics",
    "windows_of": "windows",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("lazyvol")
    if name not in _HOME:
        raise AttributeError(f"module 'lazyvol' has no attribute {name!r}")
    value = getattr(import_module(f"lazyvol.{_HOME[name]}"), name)
    _register_accessor()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def _register_accessor() -> None:
    """Make ``.vol`` known to xarray, if xarray is loaded."""
    if "xarray" in sys.modules:
        import_module("lazyvol.accessor")


_register_accessor()
