"""How fields of view, spacings and slice thickness spread over a collection: a table, and a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["coverage", "plot_coverage"]

AXES = ("z", "y", "x")
_SHARES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}


def lengths_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the lengths of each grid, mm, as columns of numbers: field of view, spacing, slice thickness."""
    found: dict[str, Any] = {"modality": table["modality"].to_numpy(), "images": table["images"].to_numpy()}
    for name in ("field_of_view", "spacing"):
        for n, axis in enumerate(AXES):
            found[f"{name}_{axis}"] = [float(values[n]) for values in table[name]]
    found["slice_thickness"] = table["slice_thickness"].astype(float).to_numpy()
    return pd.DataFrame(found, index=table.index)


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Return how the lengths of the grids spread, by modality.

    Parameters
    ----------
    table
        That of a collection.

    Returns
    -------
    pandas.DataFrame
        A row for each modality and length (mm; ``images`` are a count), columns grids, known (those of which the length
        is known), min, 5%, median, 95%, max.
    """
    lengths = lengths_of(table)
    rows, index = [], []
    for modality, part in lengths.groupby("modality", sort=True):
        for name in part.columns.drop("modality"):
            values = part[name].to_numpy(dtype=float)
            known = values[np.isfinite(values)]
            shares = np.quantile(known, list(_SHARES.values())) if known.size else np.full(len(_SHARES), np.nan)
            rows.append([len(values), known.size, *shares])
            index.append((modality, name))
    names = pd.MultiIndex.from_tuples(index, names=["modality", "length"])
    return pd.DataFrame(rows, index=names, columns=["grids", "known", *_SHARES])


def plot_coverage(table: pd.DataFrame) -> Figure:
    """Return a figure of how fields of view, spacings and slice thickness spread, a colour for each modality."""
    from matplotlib.figure import Figure

    lengths = lengths_of(table)
    names = [n for n in lengths.columns if n not in ("modality", "images")]
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    kinds = sorted(lengths["modality"].unique())
    for panel, name in zip(panels, names, strict=False):
        known = lengths[np.isfinite(lengths[name])]
        if len(known):
            low, high = known[name].min(), known[name].max()
            edges = np.linspace(low, high if high > low else low + 1, 21)
            parts = [known.loc[known["modality"] == kind, name] for kind in kinds]
            panel.hist(parts, edges, stacked=True, label=[kind or "unknown" for kind in kinds])
        panel.set_xlabel(f"{name.replace('_', ' ')} [mm]")
    for panel in panels[0::4]:
        panel.set_ylabel("grids")
    panels[-1].set_axis_off()
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center")
    return figure
