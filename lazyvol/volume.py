"""One series as a lazy DataArray.

Headers are read when a volume is opened; pixels when values are asked for, and then
only the frames and rows that the selection needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from lazyvol.arrays import VolumeArray
from lazyvol.choice import (
    Duplicates,
    Missing,
    OnError,
    absolute_path,
    choose_series,
    find_stack,
    findings_of_scan,
    frame_source,
    require_readable,
    scan_source,
)
from lazyvol.chunks import Chunks, chunked, preferred_chunks
from lazyvol.convention import COORDINATE, geometry_of
from lazyvol.errors import Finding, OptionError, PixelRangeError, UnsupportedSeriesError
from lazyvol.grid import GAP_CODES, Tolerances
from lazyvol.labels import stack_labels
from lazyvol.matching import stack_on_grid
from lazyvol.meaning import Values
from lazyvol.memory import give_back_records
from lazyvol.scan import Source
from lazyvol.series import group_series
from lazyvol.sources import FrameSources, FrameTable
from lazyvol.stacks import Rules, Stack
from lazyvol.values import value_dtype

__all__ = ["lazy_dataset", "open_stacks", "open_volume"]

NAME = "image"


def open_volume(
    source: Source,
    *,
    series: str | int | None = None,
    stack: int = 0,
    siblings: bool = False,
    dims: Mapping[str, str] | None = None,
    missing: Missing = "warn",
    duplicates: Duplicates = "raise",
    tolerances: Tolerances | None = None,
    on_error: OnError = "raise",
    fill_value: float | None = None,
    rescale: bool = True,
    values: Values = "rescaled",
    mask_padding: bool = False,
    dtype: str | None = None,
    strict: bool = False,
    chunks: Chunks = "auto",
    like: xr.DataArray | None = None,
) -> xr.DataArray:
    """Open a DICOM series as a lazy volume, reading headers only.

    Parameters
    ----------
    source
        A folder, a list of files or of pydicom datasets: their one series. A single file: that
        file alone.
    series
        Which series, where there are several: SeriesInstanceUID, SeriesNumber or SeriesDescription.
    stack
        Which grid, where the series holds several; 0 has most slices.
    siblings
        For a single file: open the whole series that it belongs to, from its folder.
    dims
        DICOM keyword for each dimension before z, e.g. ``{"echo": "EchoTime"}``, instead of what is
        found.
    missing
        Where slices are missing: ``"warn"`` keeps the true slices and says so in a finding,
        ``"raise"`` raises, ``"fill"`` puts NaN in their place, which costs nothing.
    duplicates
        Where nothing tells images at one position apart: ``"raise"``, ``"first"`` keeps the one with
        the lowest InstanceNumber and compares the pixels of the others with it, ``"axis"`` keeps all
        along a dimension ``duplicate``.
    tolerances
        When positions count as regular, and headers as alike.
    on_error
        Where a frame cannot be read or decoded when its values are asked for: ``"raise"``, or ``"fill"``
        puts NaN in its place, with a `LazyvolWarning`, and keeps the rest.
    fill_value
        Value of absent and unreadable images instead of NaN; keeps integers.
    rescale
        False for the stored numbers, without slope and intercept or modality look-up table.
    values
        ``"rescaled"`` for values after the modality transformation (DICOM PS3.3 C.11.1), ``"real_world"``
        for those of RealWorldValueMappingSequence (C.7.6.16.2.11), ``"philips_fp"`` for the floating point
        values of Philips MR, rescaled / (RescaleSlope * scale slope).
    mask_padding
        NaN where stored numbers are PixelPaddingValue, or up to PixelPaddingRangeLimit (C.7.5.1.1.2);
        the values are float32 then. Colours have no padding.
    chunks
        dask chunks: ``"auto"`` for whole frames of some 16 MiB, a number or a mapping by dimension,
        or None for xarray's own lazy arrays without dask.
    dtype
        Type of the values instead of the smallest that holds all, e.g. ``"float32"``.
    strict
        Raise if there is any finding from warning up.
    like
        A volume whose grid the result shall have, e.g. the CT of a segmentation. Planes and pixels that
        coincide are put at their places, the rest is NaN, or 0 for a segmentation; nothing is resampled.

    Returns
    -------
    xarray.DataArray
        Dimensions (z, y, x), before them time, echo and the like where the series has them, after
        them sample (red, green, blue) for colour; coordinates in mm along the volume's own
        directions, values after slope and intercept
        (CT: HU). `geometry_of` and ``.vol`` give the patient geometry (DICOM PS3.3 C.7.6.2).

    Raises
    ------
    SourceNotFoundError
        If a path does not exist.
    NoImagesError
        If there is no image.
    DicomReadError, PixelReadError
        If the single file asked for is not DICOM, or is cut short.
    SeriesChoiceError
        If there are several series and ``series`` does not choose one.
    UnsupportedSeriesError
        If the series is of a kind that lazyvol does not open, needs a decoder that is not installed, or
        has images that nothing tells apart.
    GeometryError
        If the voxels do not coincide with those of ``like``; says by how much.
    FindingError
        With ``strict=True`` or ``missing="raise"``.
    PixelRangeError
        If ``dtype`` cannot hold NaN where images are absent, or padding is masked.

    Examples
    --------
    >>> import lazyvol
    >>> ct = lazyvol.open_volume(getfixture("chest_folder"))
    >>> ct.dims, ct.dtype
    (('z', 'y', 'x'), dtype('int16'))
    """
    rules = _rules(tolerances, dims, duplicates)
    chosen, findings = find_stack(
        source,
        rules,
        series=series,
        stack=stack,
        siblings=siblings,
        missing=missing,
        strict=strict,
        values=values,
        rescale=rescale,
        on_error=on_error,
    )
    if like is not None:
        chosen = stack_on_grid(chosen, geometry_of(_as_volume(like)))
        findings = tuple(f for f in findings if f in chosen.findings or f.code not in GAP_CODES)
    table = _frame_table(chosen, dtype, fill_value, mask_padding=mask_padding, on_error=on_error)
    token = _token(chosen, table)
    dataset = _dataset(chosen, findings, table, token)
    del chosen
    give_back_records(len(table.sources))
    volume = chunked(dataset[NAME], chunks, token=token)
    if like is None:
        return volume
    return volume.assign_coords({k: like.coords[k].variable for k in ("z", "y", "x", COORDINATE) if k in like.coords})


def _as_volume(like: Any) -> xr.DataArray:
    if not isinstance(like, xr.DataArray) or not {"z", "y", "x"} <= set(like.dims):
        raise OptionError("like must be a volume of lazyvol with the dimensions z, y and x, e.g. open_volume(ct).")
    return like


def lazy_dataset(
    source: Source,
    *,
    series: str | int | None = None,
    stack: int = 0,
    siblings: bool = False,
    dims: Mapping[str, str] | None = None,
    missing: Missing = "warn",
    duplicates: Duplicates = "raise",
    tolerances: Tolerances | None = None,
    on_error: OnError = "raise",
    fill_value: float | None = None,
    rescale: bool = True,
    values: Values = "rescaled",
    mask_padding: bool = False,
    dtype: str | None = None,
    strict: bool = False,
) -> xr.Dataset:
    """Return the volume of `open_volume` as the variable ``image`` of a Dataset, lazy without dask."""
    rules = _rules(tolerances, dims, duplicates)
    chosen, findings = find_stack(
        source,
        rules,
        series=series,
        stack=stack,
        siblings=siblings,
        missing=missing,
        strict=strict,
        values=values,
        rescale=rescale,
        on_error=on_error,
    )
    table = _frame_table(chosen, dtype, fill_value, mask_padding=mask_padding, on_error=on_error)
    dataset = _dataset(chosen, findings, table, _token(chosen, table))
    del chosen
    give_back_records(len(table.sources))
    return dataset


def open_stacks(source: Source, *, series: str | int | None = None, chunks: Chunks = "auto") -> xr.DataTree:
    """Open every grid of a series, each as a lazy volume.

    Parameters
    ----------
    source, series, chunks
        As for `open_volume`.

    Returns
    -------
    xarray.DataTree
        A node ``stack0``, ``stack1``, ... for each grid that opens, with the volume as ``image``; its
        attrs name those that do not, with the reason, under ``refused``.

    Raises
    ------
    SourceNotFoundError, NoImagesError, SeriesChoiceError
        As `open_volume`.
    UnsupportedSeriesError
        If none of the grids opens.

    Examples
    --------
    >>> import lazyvol
    >>> list(lazyvol.open_stacks(getfixture("chest_folder")).children)
    ['stack0']
    """
    scan = scan_source(source, siblings=False)
    chosen = choose_series(group_series(scan.instances), series, source)
    nodes, refused = {}, []
    for stack in chosen.stacks:
        try:
            require_readable(stack)
        except UnsupportedSeriesError as error:
            refused.append(f"stack{stack.number}: {error}")
            continue
        table = _frame_table(stack, None, None)
        token = _token(stack, table)
        dataset = _dataset(stack, (*stack.findings, *findings_of_scan(scan)), table, token)
        nodes[f"stack{stack.number}"] = chunked(dataset[NAME], chunks, token=token).to_dataset()
    if not nodes:
        raise UnsupportedSeriesError("no grid of the series opens:\n  " + "\n  ".join(refused))
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs["refused"] = refused
    return tree


def _dataset(stack: Stack, findings: tuple[Finding, ...], table: FrameTable, token: str) -> xr.Dataset:
    places = np.array(stack.places, dtype=np.int32).reshape(stack.image_shape)
    array = VolumeArray(table, places, stack.shape, token)
    attrs, coordinates = stack_labels(stack, findings)
    variable = xr.Variable(stack.dims, indexing.LazilyIndexedArray(array), attrs)
    chunks = preferred_chunks(stack.dims, stack.shape, table.dtype)
    variable.encoding = {"preferred_chunks": chunks, "source": table.root}
    return xr.Dataset({NAME: variable}, coordinates)


def _frame_table(
    stack: Stack,
    dtype: str | None,
    fill_value: float | None,
    *,
    mask_padding: bool = False,
    on_error: str = "raise",
) -> FrameTable:
    """Return the frames of a stack; where some may be absent, as floats with NaN unless there is a fill value."""
    folders = {os.path.dirname(s.instance.path) for s in stack.slices}
    root = absolute_path(next(iter(folders)) or ".") if len(folders) == 1 else ""
    window = None if stack.window is None else (*stack.window, stack.geometry.shape[2])
    sources = FrameSources(frame_source(s, root, window, mask_padding=mask_padding) for s in stack.slices)
    wanted = _asked_dtype(dtype) if dtype else value_dtype(stack.slices, stored=stack.values == "stored")
    if not isinstance(fill_value, int | float | np.number | None):
        raise OptionError(f"fill_value={fill_value!r} must be a number.")
    if mask_padding not in (True, False):
        raise OptionError(f"mask_padding={mask_padding!r} can be True or False.")
    fill_value = stack.fill if fill_value is None else fill_value
    absent = stack.places.count(-1)
    why = f"{absent} absent images" if absent or stack.padded else "frames that cannot be read"
    if (absent or stack.padded or on_error == "fill") and fill_value is None:
        fill_value = np.nan
        wanted = _with_nan(wanted, dtype, f"{why}. Give fill_value=, or a float")
    if mask_padding and not stack.is_colour:
        wanted = _with_nan(wanted, dtype, "padding. Give a float, or open without mask_padding")
    if any(s.scale.limits for s in sources):
        wanted = _with_nan(wanted, dtype, "stored numbers that the mapping does not reach. Give a float")
    if fill_value is not None and wanted.kind in "iu" and not _holds(wanted, fill_value):
        raise PixelRangeError(
            f'fill_value={fill_value:g} does not fit into {wanted}. Give another, or dtype="float32".'
        )
    fill = 0.0 if fill_value is None else float(fill_value)
    return FrameTable(root, sources, wanted.name, fill, 3 if stack.is_colour else 1, on_error == "fill")


def _with_nan(wanted: np.dtype[Any], dtype: str | None, of: str) -> np.dtype[Any]:
    """Return a type that holds NaN beside every value; raise if another was asked for."""
    if wanted.kind == "f":
        return wanted
    if dtype:
        raise PixelRangeError(f"dtype={dtype!r} cannot hold NaN for {of}.")
    return np.dtype("float64" if wanted.itemsize > 2 else "float32")


def _rules(tolerances: Any, dims: Any, duplicates: str) -> Rules:
    if not isinstance(tolerances, Tolerances | None):
        raise OptionError(f"tolerances={tolerances!r} must be lazyvol.Tolerances(...).")
    if not isinstance(dims, Mapping | None) or {"z", "y", "x", "sample"} & set(dims or ()):
        raise OptionError(f"dims={dims!r} must name axes before z and their keywords, e.g. {{'echo': 'EchoTime'}}.")
    return Rules(tolerances or Tolerances(), dims, duplicates)


def _asked_dtype(dtype: str) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype("O")
    if found.kind not in "iuf" or found.name in {"float16", "longdouble", "float128"}:
        raise OptionError(
            f"dtype={dtype!r} is no type of values; it can be int16, int32, float32, float64 and the like."
        )
    return found


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def _token(stack: Stack, table: FrameTable) -> str:
    """Return a name for these very bytes: other files or frames, or changed ones, have another."""
    digest = blake2b(digest_size=16)
    for instance, frame in stack.slices:
        image = instance.path, instance.uid, instance.size, instance.modified, frame.index
        digest.update(repr(image).encode())
    scales = sorted(map(repr, {id(s.scale): s.scale for s in table.sources}.values()))
    how = table.dtype, table.fill_value, table.fill_unreadable, stack.values, scales
    digest.update(repr((how, stack.shape, stack.places, stack.window)).encode())
    for content in {id(s.content): s.content for s in table.sources if s.content is not None}.values():
        digest.update(content)
    return digest.hexdigest()
