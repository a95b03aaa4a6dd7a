"""lazyvol as an engine of xarray: ``xr.open_dataset(path, engine="lazyvol", chunks={})``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

__all__ = ["LazyvolBackend"]

_METADATA = ("zarr.json", ".zgroup")
_LOOKED_AT = 16
"""Entries of a folder that are looked at to guess whether it holds DICOM."""


class LazyvolBackend(BackendEntrypoint):
    """Opens a DICOM series: a folder, a file, or a list of files; or a volume in an OME-Zarr store."""

    description = "Open DICOM series (folders, files) and OME-Zarr stores as lazy volumes in mm"
    open_dataset_parameters = (
        "filename_or_obj",
        "drop_variables",
        "series",
        "stack",
        "siblings",
        "dims",
        "missing",
        "duplicates",
        "tolerances",
        "on_error",
        "fill_value",
        "rescale",
        "values",
        "mask_padding",
        "dtype",
        "strict",
        "level",
        "group",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        series: str | int | None = None,
        stack: int = 0,
        siblings: bool = False,
        dims: Mapping[str, str] | None = None,
        missing: Any = "warn",
        duplicates: Any = "raise",
        tolerances: Any = None,
        on_error: Any = "raise",
        fill_value: float | None = None,
        rescale: bool = True,
        values: Any = "rescaled",
        mask_padding: bool = False,
        dtype: str | None = None,
        strict: bool = False,
        level: int = 0,
        group: str | None = None,
    ) -> xr.Dataset:
        """Return the volume of `lazyvol.open_volume`, or of `lazyvol.open_zarr` for a store, as the variable ``image``.

        Parameters are those of the two; chunks are xarray's own, and ``chunks={}`` takes the chunks that
        lazyvol prefers. ``level`` and ``group`` are for stores.
        """
        import lazyvol.accessor  # noqa: F401  # makes .vol known
        from lazyvol.opened import lazy_store
        from lazyvol.volume import lazy_dataset

        if _is_store(filename_or_obj):
            stored = lazy_store(filename_or_obj, level=level, group=group)
            return stored.to_dataset().drop_vars(_names(drop_variables), errors="ignore")
        dataset = lazy_dataset(
            filename_or_obj,
            series=series,
            stack=stack,
            siblings=siblings,
            dims=dims,
            missing=missing,
            duplicates=duplicates,
            tolerances=tolerances,
            on_error=on_error,
            fill_value=fill_value,
            rescale=rescale,
            values=values,
            mask_padding=mask_padding,
            dtype=dtype,
            strict=strict,
        )
        return dataset.drop_vars(_names(drop_variables), errors="ignore")

    supports_groups = True

    def open_datatree(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, cache: str | None = "auto"
    ) -> xr.DataTree:
        """Return the series and stores below a folder as `lazyvol.Collection.datatree` does: patient, study, series.

        Headers are kept in ``cache`` as by `lazyvol.open_collection`; chunks are xarray's own.
        """
        import lazyvol.accessor  # noqa: F401  # makes .vol known
        from lazyvol.collection import open_collection

        tree = open_collection(filename_or_obj, cache=cache).datatree(chunks=None)
        dropped = _names(drop_variables)
        return tree.map_over_datasets(lambda node: node.drop_vars(dropped, errors="ignore")) if dropped else tree

    def open_groups_as_dict(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, cache: str | None = "auto"
    ) -> dict[str, xr.Dataset]:
        """Return the nodes of `open_datatree` by their paths."""
        tree = self.open_datatree(filename_or_obj, drop_variables=drop_variables, cache=cache)
        return {node.path: node.to_dataset() for node in tree.subtree}

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether this is a DICOM file, or a folder with one among its first entries."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = os.fspath(filename_or_obj)
        if os.path.isfile(path):
            return _is_dicom(path)
        if not os.path.isdir(path) or any(os.path.exists(os.path.join(path, n)) for n in _METADATA):
            return False
        with os.scandir(path) as entries:
            return any(_is_dicom(e.path) for e in islice(entries, _LOOKED_AT) if e.is_file())


def _names(dropped: str | Iterable[str] | None) -> list[str]:
    return [dropped] if isinstance(dropped, str) else list(dropped or ())


def _is_store(source: Any) -> bool:
    """Return whether this is a Zarr store: a folder or URL with its metadata or name, or a store of zarr."""
    if not isinstance(source, str | os.PathLike):
        return hasattr(source, "list_prefix")
    path = os.fspath(source).rstrip("/")
    if "://" in path:
        return path.endswith(".zarr")
    return any(os.path.exists(os.path.join(path, name)) for name in _METADATA) or os.path.isdir(f"{path}.partial")


def _is_dicom(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
