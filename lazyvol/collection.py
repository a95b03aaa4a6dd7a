"""Many series: a table of what a scan found."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lazyvol.scan import Scan
from lazyvol.series import Series, group_series
from lazyvol.stacks import Stack
from lazyvol.values import value_dtype

__all__ = ["series_table"]


def series_table(scan: Scan) -> pd.DataFrame:
    """Return one row for each stack of each series, from headers alone.

    Parameters
    ----------
    scan
        As `scan_headers` gives it.

    Returns
    -------
    pandas.DataFrame
        Columns series_uid, stack, number, description, modality, images, dims, shape, spacing and
        field_of_view ((z, y, x), mm), orientation, dtype, bytes (of pixels, decoded), syntax,
        findings (codes) and refusal (why it does not open; empty if it does).

    Examples
    --------
    >>> import lazyvol
    >>> table = series_table(lazyvol.scan_headers(getfixture("chest_folder")))
    >>> table[["modality", "images", "shape"]].to_dict("records")
    [{'modality': 'CT', 'images': 24, 'shape': (24, 48, 64)}]
    """
    rows = [_row(series, stack) for series in group_series(scan.instances) for stack in series.stacks]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


_COLUMNS = (
    "series_uid",
    "stack",
    "number",
    "description",
    "modality",
    "images",
    "dims",
    "shape",
    "spacing",
    "field_of_view",
    "orientation",
    "dtype",
    "bytes",
    "syntax",
    "findings",
    "refusal",
)


def _row(series: Series, stack: Stack) -> dict[str, Any]:
    dtype = value_dtype(stack.slices)
    voxels = sum(s.instance.rows * s.instance.columns for s in stack.slices)
    return {
        "series_uid": series.uid,
        "stack": stack.number,
        "number": series.number,
        "description": series.description,
        "modality": series.modality,
        "images": len(stack.slices),
        "dims": stack.dims,
        "shape": stack.shape,
        "spacing": tuple(stack.geometry.spacing),
        "field_of_view": tuple(stack.geometry.field_of_view),
        "orientation": stack.geometry.orientation,
        "dtype": str(dtype),
        "bytes": voxels * dtype.itemsize,
        "syntax": ", ".join(sorted({s.instance.pixels.transfer_syntax_uid for s in stack.slices})),
        "findings": tuple(f.code for f in stack.findings),
        "refusal": stack.refusal,
    }
