"""One panel of a plot: a cut drawn in mm, with the sides of the patient at its edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.geometry import Geometry
from lazyvol.windows import Greys

if TYPE_CHECKING:
    from matplotlib.image import AxesImage

__all__ = ["AXES", "Colours", "Cut", "axis_letter", "colours_of", "draw_cut", "edges", "extent_of"]

Array = npt.NDArray[Any]

AXES = ("z", "y", "x")
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
_LETTERS = ("LR", "PA", "SI")
_SECOND_LETTER = 0.38
"""A direction is named by a second letter too if its cosine exceeds this (some 22 degrees)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut, read."""

    axis: str
    """The axis that it is a slice of."""
    index: int
    """Where along that axis."""
    values: xr.DataArray
    """Its voxels, in memory."""
    whole: bool
    """Whether it was cut from a volume with that axis; a projection has lost it."""


@dataclass(frozen=True, slots=True)
class Colours:
    """How samples become colours."""

    full: float
    """The value of a sample at its brightest."""
    order: tuple[int, int, int] = (0, 1, 2)
    """Index of red, green and blue."""


def colours_of(cuts: Sequence[xr.DataArray]) -> Colours:
    """Return how cuts with three samples are drawn, on one scale.

    Unsigned integers of 8, 16 and 32 bits by the range of their type. Others, such as floats in which what is
    absent is NaN, by 255, or by 65535 if any value exceeds 255. Samples that are labelled R, G and
    B may come in any order.
    """
    dtype = cuts[0].dtype
    full = float(np.iinfo(dtype).max) if dtype.name in {"uint8", "uint16", "uint32"} else 0.0
    if not full:
        full = 65535.0 if any(bool((cut > 255).any()) for cut in cuts) else 255.0
    labels = [str(v) for v in cuts[0].coords["sample"].values] if "sample" in cuts[0].coords else []
    if sorted(labels) != ["B", "G", "R"]:
        return Colours(full)
    return Colours(full, (labels.index("R"), labels.index("G"), labels.index("B")))


def draw_cut(cut: Cut, geometry: Geometry, ax: Any, shades: Greys | Colours) -> AxesImage:
    """Draw a cut into axes."""
    down, across = _sides(cut.values)
    values, extent = _on_regular_grid(cut.values, geometry), extent_of(cut.values, geometry)
    if isinstance(shades, Colours):
        values, style = _coloured(values, shades), {}
    else:
        inverted = _photometric(cut.values) == "MONOCHROME1"
        style = {"cmap": "gray_r" if inverted else "gray", "norm": _norm(shades)}
    image: AxesImage = ax.imshow(
        values,
        extent=extent,
        origin="lower",
        aspect="equal" if np.isfinite(extent).all() else "auto",
        interpolation="nearest",
        **style,
    )
    _turn(ax, geometry, cut.values, extent)
    ax.set_xlabel(_axis_label(cut.values, geometry, across))
    ax.set_ylabel(_axis_label(cut.values, geometry, down))
    ax.set_title(_title(cut, "" if cut.axis in geometry.without_units else " mm"))
    return image


def _photometric(cut: xr.DataArray) -> str:
    """Return the photometric interpretation of a cut; none where that of its slices differs."""
    own = cut.coords.get("photometric_interpretation")
    found = cut.attrs.get("photometric_interpretation", "") if own is None else own.item() if own.ndim == 0 else ""
    return str(found)


def _norm(greys: Greys) -> Any:
    """Return what brings values to 0 to 1: a line, or the sigmoid 1 / (1 + exp(-4 (x - centre) / width))."""
    from matplotlib.colors import FuncNorm, Normalize

    if greys.sigmoid is None:
        return Normalize(greys.low, greys.high)
    centre, width = greys.sigmoid

    def grey(values: Any) -> Any:
        return (1 + np.tanh(2 * (np.asarray(values, dtype=float) - centre) / width)) / 2  # tanh does not overflow

    def value(greys: Any) -> Any:
        return centre + width / 2 * np.arctanh(np.clip(2 * np.asarray(greys, dtype=float) - 1, -0.999999, 0.999999))

    return FuncNorm((grey, value), greys.low, greys.high)


def _coloured(values: Array, colours: Colours) -> Array:
    """Return red, green and blue from 0 to 1, and opacity where a sample is NaN; shape (rows, columns, 3 or 4)."""
    ordered = values[..., list(colours.order)]
    if ordered.dtype == np.uint8:
        return ordered
    scaled = np.clip(ordered / np.float32(colours.full), 0, 1)
    absent = np.isnan(scaled).any(axis=-1, keepdims=True)
    return np.concatenate([np.where(absent, 0, scaled), 1 - absent], axis=-1) if absent.any() else scaled


def _sides(cut: xr.DataArray) -> tuple[str, str]:
    """Return the axes that run down and across a cut."""
    down, across = (str(d) for d in cut.dims if d in AXES)
    return down, across


def extent_of(cut: xr.DataArray, geometry: Geometry) -> tuple[float, float, float, float]:
    """Return the outer edges of a cut (left, right, bottom, top), labels ascending."""
    (bottom, top), (left, right) = (
        edges(_labels(cut, axis), getattr(geometry.spacing, axis) if axis in cut.coords else 1.0)
        for axis in _sides(cut)
    )
    return left, right, bottom, top


def _labels(cut: xr.DataArray, axis: str) -> Array:
    """Return the labels of an axis, or indices where it has none."""
    return np.asarray(cut.coords[axis].values if axis in cut.coords else np.arange(cut.sizes[axis]), dtype=float)


def _on_regular_grid(cut: xr.DataArray, geometry: Geometry) -> Array:
    """Return values ascending along both labels; uneven slices as thick as they are, NaN where one is missing."""
    values = np.asarray(cut.values)
    left, right, bottom, top = extent_of(cut, geometry)
    for number, axis in enumerate(_sides(cut)):
        labels = _labels(cut, axis)
        values = np.take(values, np.argsort(labels), axis=number)
        if geometry.slice_positions and axis == "z":
            values = _spread(values, np.sort(labels), ((bottom, top), (left, right))[number], number)
    return values


def _spread(values: Array, labels: Array, edges: tuple[float, float], number: int) -> Array:
    gaps = np.diff(labels)
    step = min(float(gaps.min()), float(edges[1] - edges[0]) / 64)
    count = min(4096, int(np.ceil((edges[1] - edges[0]) / step)) * 4)
    where = edges[0] + (np.arange(count) + 0.5) * (edges[1] - edges[0]) / count
    nearest = np.abs(where[:, np.newaxis] - labels).argmin(axis=1)
    spread: Array = np.take(values, nearest, axis=number).astype(float)
    empty = np.abs(where - labels[nearest]) > 0.5001 * float(np.median(gaps))
    inside = (where > labels[0]) & (where < labels[-1])
    spread[(slice(None),) * number + (empty & inside,)] = np.nan
    return spread


def _turn(ax: Any, geometry: Geometry, cut: xr.DataArray, extent: tuple[float, float, float, float]) -> None:
    """Turn the axes so that head or front is up and the patient's left (or back) is right; write letters."""
    from matplotlib.patheffects import withStroke

    left, right, bottom, top = extent
    down, across = _sides(cut)
    to_top, to_right = (_towards(cut, geometry, axis) for axis in (down, across))
    if _label_letter(cut, geometry, across) in {"R", "A"}:
        left, right, to_right = right, left, _opposite(to_right)
    if _label_letter(cut, geometry, down) in {"P", "I", ""}:
        bottom, top, to_top = top, bottom, _opposite(to_top)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    outline = [withStroke(linewidth=2, foreground="black")]
    style = {"color": "gold", "fontweight": "bold", "transform": ax.transAxes, "path_effects": outline}
    if to_right:
        ax.text(0.98, 0.5, to_right, ha="right", va="center", **style)
        ax.text(0.02, 0.5, _opposite(to_right), ha="left", va="center", **style)
    if to_top:
        ax.text(0.5, 0.98, to_top, ha="center", va="top", **style)
        ax.text(0.5, 0.02, _opposite(to_top), ha="center", va="bottom", **style)


def _label_letter(cut: xr.DataArray, geometry: Geometry, axis: str) -> str:
    """Return the one letter of the patient's side that the labels of an axis grow towards; empty where unknown."""
    letter = axis_letter(geometry, axis)
    return letter if _sign(cut, axis) > 0 else _opposite(letter)


def _towards(cut: xr.DataArray, geometry: Geometry, axis: str) -> str:
    """Return the side that the labels of an axis grow towards; empty where unknown."""
    patient = geometry.convention in ("LPS", "unknown")
    letters = _letters(geometry.directions[AXES.index(axis)]) if patient else ""
    return letters if _sign(cut, axis) > 0 else _opposite(letters)


def _letters(direction: Sequence[float]) -> str:
    """Return the side that a direction leads to, with a second letter if it is oblique; empty where unknown."""
    cosines = np.asarray(direction)
    if not np.isfinite(cosines).all():
        return ""
    order = np.argsort(-np.abs(cosines), kind="stable")
    named = [n for n in order if n == order[0] or abs(cosines[n]) > _SECOND_LETTER]
    return "".join(_LETTERS[n][int(cosines[n] < 0)] for n in named)


def _opposite(letters: str) -> str:
    return "".join(_OPPOSITE[letter] for letter in letters)


def _axis_label(cut: xr.DataArray, geometry: Geometry, axis: str) -> str:
    if axis not in cut.coords:
        return f"{axis} [index]"
    if axis in geometry.without_units:
        return f"{axis} [no unit]"
    towards = _towards(cut, geometry, axis)
    if not towards:
        return f"{axis} [mm]" if "z" in cut.coords else f"{axis} [mm from the first voxel]"
    lean = min(geometry.shear, 180 - geometry.shear)  # a flipped axis turns the normal round
    sheared = f", {lean:.1f}\N{DEGREE SIGN} off the normal" if axis == "z" and lean > 0.01 else ""
    return f"{axis} [mm], towards {towards}{sheared}"


def _sign(cut: xr.DataArray, axis: str) -> int:
    """Return -1 if the labels descend: the geometry's direction follows the index, the label grows the other way."""
    labels = _labels(cut, axis)
    return -1 if labels.size > 1 and labels[-1] < labels[0] else 1


def _title(cut: Cut, units: str) -> str:
    if cut.axis not in cut.values.coords:
        return f"{cut.axis} index {cut.index}" if cut.whole else f"across {cut.axis}"
    return f"{cut.axis} = {round(float(cut.values.coords[cut.axis]), 6) + 0.0:g}{units}"


def edges(labels: Array, spacing: float) -> tuple[float, float]:
    """Return the outer edges of the voxels at both ends; half a gap beyond the centres."""
    ordered = np.sort(labels)
    if ordered.size == 1:
        half = spacing / 2 if np.isfinite(spacing) else 0.5
        return float(ordered[0] - half), float(ordered[0] + half)
    gaps = np.diff(ordered)
    ends = (spacing, spacing) if np.isfinite(spacing) else (gaps[0], gaps[-1])
    return float(ordered[0] - ends[0] / 2), float(ordered[-1] + ends[1] / 2)


def axis_letter(geometry: Geometry, axis: str) -> str:
    """Return the one letter of the patient's side that an axis grows towards; empty where its direction is unknown."""
    if geometry.convention not in ("LPS", "unknown"):
        return ""
    if geometry.is_known:
        return str(getattr(geometry.axis_letters, axis))
    return _letters(geometry.directions[AXES.index(axis)])[:1]
