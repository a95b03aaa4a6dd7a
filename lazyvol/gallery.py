"""A collection in a notebook: its table, with a picture of each grid where that is asked for."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from lazyvol.errors import OptionError
from lazyvol.inventory import Entry, open_entry
from lazyvol.windows import greys_of

__all__ = ["View", "table_html"]

_SHOWN = 60
"""Rows of a table that are shown."""
_EDGE = 96
"""Longest side of a picture, pixels."""
_COLUMNS = ("modality", "description", "images", "dims", "shape", "spacing", "field_of_view", "dtype", "findings")


def table_html(table: pd.DataFrame) -> str:
    """Return what a notebook shows of a table; no pixel is read."""
    rows = [_cells(row) for row in table.head(_SHOWN).to_dict("records")]
    more = f"<p>and {len(table) - _SHOWN} more</p>" if len(table) > _SHOWN else ""
    return _table(_COLUMNS, rows) + more


class View:
    """The first grids with a picture of the middle of each, read when a notebook shows it: one frame each."""

    def __init__(self, entries: Sequence[Entry], count: Any) -> None:
        if not isinstance(count, int) or count < 0:
            raise OptionError(f"count={count!r} must be a whole number, 0 or more.")
        self._entries = entries[:count]

    def _repr_html_(self) -> str:
        rows = [[_picture(entry), *_cells(entry.row)] for entry in self._entries]
        return _table(("", *_COLUMNS), rows)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Any) -> list[str]:
    texts = [_text(row[name]) for name in _COLUMNS[:-1]]
    odd = ", ".join(row["findings"])
    return [*map(html.escape, texts), html.escape(f"does not open: {row['refusal']}" if row["refusal"] else odd)]


def _text(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    if isinstance(value, tuple):
        return " x ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)


def _picture(entry: Entry) -> str:
    """Return the middle frame of a grid as an image, or why there is none."""
    if entry.row["refusal"]:
        return ""
    try:
        pixels = _greys(entry)
    except Exception as error:  # a table of a thousand is shown though one of them is damaged
        return html.escape(type(error).__name__)
    from matplotlib.image import imsave

    file = BytesIO()
    imsave(file, pixels, cmap="gray", vmin=0, vmax=1, format="png")
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _greys(entry: Entry) -> Any:
    volume = open_entry(entry, chunks=None)
    middle = volume.isel({d: n // 2 for d, n in volume.sizes.items() if d not in ("y", "x", "sample")})
    values = middle.compute()
    step = max(1, max(values.sizes["y"], values.sizes["x"]) // _EDGE)
    values = values.isel(y=slice(None, None, step), x=slice(None, None, step))
    if "sample" in values.dims:
        return np.clip(values.values / np.iinfo(values.dtype).max, 0, 1)
    found = values.values.astype(float)
    greys = greys_of(values, None, found)
    return np.clip((np.nan_to_num(found, nan=greys.low) - greys.low) / max(greys.high - greys.low, 1e-9), 0, 1)
