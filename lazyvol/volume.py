"""One series as a lazy DataArray.

Headers are read when a volume is opened; pixels when values are asked for, and then
only the frames and rows that the selection needs.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from lazyvol.chunks import Chunks, chunked, preferred_chunks
from lazyvol.codecs import missing_decoder
from lazyvol.convention import geometry_coordinates
from lazyvol.errors import (
    DicomReadError,
    Finding,
    FindingError,
    NoImagesError,
    PixelReadError,
    SeriesChoiceError,
    UnsupportedSeriesError,
    finding,
)
from lazyvol.frames import FrameSource, FrameTable, read_frames
from lazyvol.records import Skipped, Value
from lazyvol.scan import Scan, Source, scan_headers
from lazyvol.series import Series, Slice, Stack, group_series, shared_values, value_dtype

__all__ = ["VolumeArray", "lazy_dataset", "open_volume"]

NAME = "image"
_PET_UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "GML": "g/ml", "PROPCPS": "counts/s", "CPS": "counts/s"}


def open_volume(
    source: Source,
    *,
    series: str | int | None = None,
    stack: int = 0,
    siblings: bool = False,
    chunks: Chunks = "auto",
    dtype: str | None = None,
    strict: bool = False,
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
    chunks
        dask chunks: ``"auto"`` for whole frames of some 8 MiB, a number or a mapping by dimension,
        or None for xarray's own lazy arrays without dask.
    dtype
        Type of the values instead of the smallest that holds all, e.g. ``"float32"``.
    strict
        Raise if there is any finding from warning up.

    Returns
    -------
    xarray.DataArray
        Dimensions (z, y, x), coordinates in mm along the volume's own directions, values after
        slope and intercept (CT: HU). `geometry_of` and ``.vol`` give the patient geometry
        (DICOM PS3.3 C.7.6.2).

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
        If the series is of a kind that lazyvol does not open, or needs a decoder that is not installed.
    FindingError
        With ``strict=True``.

    Examples
    --------
    >>> import lazyvol
    >>> ct = lazyvol.open_volume(getfixture("chest_folder"))
    >>> ct.dims, ct.dtype
    (('z', 'y', 'x'), dtype('int16'))
    """
    chosen, findings = _find(source, series=series, stack=stack, siblings=siblings, strict=strict)
    table = _frame_table(chosen, dtype)
    return chunked(_dataset(chosen, findings, table)[NAME], chunks, token=_token(chosen, table))


def lazy_dataset(
    source: Source,
    *,
    series: str | int | None = None,
    stack: int = 0,
    siblings: bool = False,
    dtype: str | None = None,
    strict: bool = False,
) -> xr.Dataset:
    """Return the volume of `open_volume` as the variable ``image`` of a Dataset, lazy without dask."""
    chosen, findings = _find(source, series=series, stack=stack, siblings=siblings, strict=strict)
    return _dataset(chosen, findings, _frame_table(chosen, dtype))


def _find(
    source: Source, *, series: str | int | None, stack: int, siblings: bool, strict: bool
) -> tuple[Stack, tuple[Finding, ...]]:
    """Return the stack that was asked for, and all findings on it."""
    scan = _scan(source, siblings)
    chosen = _choose_stack(_choose_series(group_series(scan.instances), series, source), stack)
    _require_readable(chosen)
    findings = (*chosen.findings, *_scan_findings(scan))
    if strict:
        _require_clean(findings)
    return chosen, findings


def _dataset(stack: Stack, findings: tuple[Finding, ...], table: FrameTable) -> xr.Dataset:
    array = VolumeArray(table, stack.shape, _token(stack, table))
    variable = xr.Variable(stack.dims, indexing.LazilyIndexedArray(array), _attrs(stack, findings))
    chunks = preferred_chunks(stack.dims, stack.shape, table.dtype)
    variable.encoding = {"preferred_chunks": chunks, "source": table.root}
    return xr.Dataset({NAME: variable}, _coordinates(stack))


def _scan(source: Source, siblings: bool) -> Scan:
    if not isinstance(source, str | os.PathLike):
        source = list(source)
        scan = scan_headers(source)
    elif os.path.isfile(source):
        scan = _scan_one(os.fspath(source), siblings)
    else:
        scan = scan_headers(source)
    if not scan.instances:
        reasons = Counter(s.reason for s in scan.skipped)
        found = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(4))
        where = os.fspath(source) if isinstance(source, str | os.PathLike) else "the list"
        raise NoImagesError(f"{where} holds no DICOM image in {len(scan.skipped)} files ({found}).")
    return scan


def _scan_one(path: str, siblings: bool) -> Scan:
    scan = scan_headers(path)
    if scan.skipped:
        raise DicomReadError(f"{path}: {scan.skipped[0].reason}. Give a DICOM image, or the folder of a series.")
    alone = scan.instances[0]
    if alone.missing_bytes and not siblings:
        raise PixelReadError(
            f"{path} is cut short: {alone.missing_bytes} bytes of pixels are missing. Copy the file again."
        )
    if not siblings:
        return scan
    around = scan_headers(os.path.dirname(path) or ".", recursive=False)
    return Scan(tuple(i for i in around.instances if i.series_uid == alone.series_uid), around.skipped)


def _choose_series(found: tuple[Series, ...], series: str | int | None, source: Source) -> Series:
    if series is None:
        fitting = found
    else:
        fitting = tuple(s for s in found if series in (s.uid, s.number, s.description) or str(s.number) == series)
    if len(fitting) == 1:
        return fitting[0]
    where = os.fspath(source) if isinstance(source, str | os.PathLike) else "the list"
    listing = "\n".join(f"  {_describe(s)}" for s in (fitting or found)[:20])
    more = f"\n  ... and {len(found) - 20} more" if len(fitting or found) > 20 else ""
    asked = (
        ""
        if series is None
        else f" that fit series={series!r}"
        if fitting
        else f", none of which fits series={series!r}"
    )
    raise SeriesChoiceError(
        f"{where} holds {len(fitting or found)} series{asked}:\n{listing}{more}\nChoose one with series= its UID, "
        "number or description."
    )


def _describe(series: Series) -> str:
    count = sum(len(s.slices) for s in series.stacks)
    number = "-" if series.number is None else series.number
    return f"number {number}, {series.modality}, {count} images, {series.description!r}, UID {series.uid}"


def _choose_stack(series: Series, stack: int) -> Stack:
    if not 0 <= stack < len(series.stacks):
        raise SeriesChoiceError(f"stack={stack} does not exist: the series has stacks 0 to {len(series.stacks) - 1}.")
    return series.stacks[stack]


def _require_readable(stack: Stack) -> None:
    first = stack.slices[0].instance
    if stack.refusal:
        raise UnsupportedSeriesError(f"the series of {first.path} does not open: {stack.refusal}.")
    for syntax in {s.instance.pixels.transfer_syntax_uid for s in stack.slices if s.frame.length is None}:
        why = missing_decoder(syntax)
        if why:
            path = next(s.instance.path for s in stack.slices if s.instance.pixels.transfer_syntax_uid == syntax)
            raise UnsupportedSeriesError(f"{path} is encoded as {syntax}, which cannot be decoded here: {why}.")


def _scan_findings(scan: Scan) -> list[Finding]:
    return [*_damaged(scan.skipped)]


def _damaged(skipped: Iterable[Skipped]) -> Iterable[Finding]:
    damaged = [s for s in skipped if s.damaged]
    if damaged:
        message = (
            f"{len(damaged)} files could not be read and are not in the volume ({damaged[0].reason}). Copy them "
            "again if they belong to it."
        )
        yield finding("files-unreadable", message, files=tuple(s.path for s in damaged), values=(len(damaged),))


def _require_clean(findings: Iterable[Finding]) -> None:
    serious = [f for f in findings if f.severity != "info"]
    if serious:
        lines = "\n".join(f"  {f}" + (f" First file: {f.files[0]}" if f.files else "") for f in serious)
        raise FindingError(f"strict=True, and the series has {len(serious)} findings:\n{lines}")


class VolumeArray(BackendArray):
    """The frames of a volume as an array that reads what is asked of it and nothing else."""

    def __init__(self, table: FrameTable, shape: tuple[int, ...], token: str) -> None:
        self.table = table
        self.shape = shape
        self.dtype = np.dtype(table.dtype)
        self.token = token

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def __dask_tokenize__(self) -> str:
        return self.token

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        wanted = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
        *leading, rows, columns = (np.atleast_1d(w) for w in wanted)
        places = np.arange(len(self.table.sources)).reshape(self.shape[:-2])[np.ix_(*leading)]
        values = read_frames(self.table, places.ravel(), rows, columns)
        return values.reshape([w.size for w in wanted if w.ndim])


def _frame_table(stack: Stack, dtype: str | None) -> FrameTable:
    folders = {os.path.dirname(s.instance.path) for s in stack.slices}
    root = os.path.commonpath(folders) if len(folders) == 1 else ""
    sources = tuple(_source(s, root) for s in stack.slices)
    return FrameTable(root, sources, np.dtype(dtype or value_dtype(stack.slices)).name)


def _source(part: Slice, root: str) -> FrameSource:
    instance, frame = part.instance, part.frame
    return FrameSource(
        name=os.path.relpath(instance.path, root) if root else instance.path,
        index=frame.index,
        count=len(instance.frames),
        offset=frame.offset,
        length=frame.length,
        pixels=instance.pixels,
        slope=frame.slope,
        intercept=frame.intercept,
        content=instance.content,
    )


def _token(stack: Stack, table: FrameTable) -> str:
    """Return a name for these very bytes: other files, or changed ones, have another."""
    files = [(i.path, i.uid, i.size, i.modified) for i in (s.instance for s in stack.slices)]
    return str(tokenize(files, table.dtype, stack.shape))


def _attrs(stack: Stack, findings: tuple[Finding, ...]) -> dict[str, Any]:
    shared, _ = shared_values(stack.slices)
    first = stack.slices[0].instance
    attrs: dict[str, Any] = {
        **_quantity(first.modality, shared),
        "photometric_interpretation": first.pixels.photometric_interpretation,
    }
    attrs |= {k: list(v) if isinstance(v, tuple) else v for k, v in shared.items()}
    return attrs | {"findings": [f.to_json() for f in findings], "lazyvol_version": version("lazyvol")}


def _quantity(modality: str, shared: Mapping[str, Value]) -> dict[str, str]:
    """Return name and units of the values (DICOM PS3.3 C.11.1.1.2, C.8.9.1.1.3)."""
    rescale_type = str(shared.get("RescaleType", ""))
    if modality == "CT":
        units = rescale_type or "HU"
        return {"long_name": "CT number"} | ({"units": units} if units != "US" else {})
    if modality == "PT":
        units = str(shared.get("Units", ""))
        name = "activity concentration" if units == "BQML" else "PET value"
        return {"long_name": name} | ({"units": _PET_UNITS.get(units, units)} if units else {})
    name = "MR signal" if modality == "MR" else "pixel value"
    return {"long_name": name} | ({"units": rescale_type} if rescale_type not in ("", "US") else {})


def _coordinates(stack: Stack) -> dict[str, xr.Variable]:
    instances = [s.instance for s in stack.slices]
    coordinates = geometry_coordinates(stack.geometry, stack.slice_positions)
    coordinates["sop_instance_uid"] = _words([i.uid for i in instances])
    coordinates["source"] = _words([i.path for i in instances])
    numbers = [i.number for i in instances]
    if any(n is not None for n in numbers):
        coordinates["instance_number"] = xr.Variable(("z",), _numbers(numbers), {"long_name": "instance number"})
    times = [i.acquisition_time for i in instances]
    if None not in times:
        since = np.array(times, dtype=float)
        attrs = {"units": "s", "long_name": "acquisition time since the first slice"}
        coordinates["acquisition_time"] = xr.Variable(("z",), np.round(since - since.min(), 6), attrs)
    for keyword, values in shared_values(stack.slices)[1].items():
        coordinates[_snake_case(keyword)] = _per_slice(values)
    return coordinates


def _per_slice(values: tuple[Value | None, ...]) -> xr.Variable:
    if all(v is None or isinstance(v, int | float) for v in values):
        return xr.Variable(("z",), _numbers(values))
    return _words(["\\".join(map(str, v)) if isinstance(v, tuple) else str(v or "") for v in values])


def _numbers(values: Iterable[Any]) -> npt.NDArray[Any]:
    found = list(values)
    if all(isinstance(v, int) for v in found):
        return np.array(found, dtype="int64")
    return np.array([np.nan if v is None else v for v in found], dtype="float64")


def _words(values: list[str]) -> xr.Variable:
    return xr.Variable(("z",), np.array(values, dtype=np.dtypes.StringDType()))


def _snake_case(keyword: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword).lower()
