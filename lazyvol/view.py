"""Looking at a volume: its field of view, and cuts at a position in mm.

A cut reads the one slice, row or column of voxels that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.convention import geometry_of, require_volume
from lazyvol.errors import OutsideVolumeError, PlotError
from lazyvol.geometry import ZYX, Geometry
from lazyvol.windows import Window, window_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["field_of_view", "plot_slices"]

Positions = float | Sequence[float] | None
Array = npt.NDArray[Any]

AXES = ("z", "y", "x")
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
_LETTERS = ("LR", "PA", "SI")
_PANEL = 4.5
"""Width of the widest panel of a new figure, inches."""
_SECOND_LETTER = 0.38
"""A direction is named by a second letter too if its cosine exceeds this (some 22 degrees)."""


def field_of_view(volume: xr.DataArray) -> ZYX:
    """Return how far a volume extends, from edge to edge, without reading a pixel.

    Parameters
    ----------
    volume
        A volume of lazyvol, or a part of one.

    Returns
    -------
    ZYX
        Named tuple (z, y, x), mm: shape times spacing; for uneven slices last minus first plus
        half of each end gap; NaN along an axis whose spacing is unknown. An axis that was selected
        or projected away counts as one voxel.

    Raises
    ------
    GeometryError
        If the array carries no geometry.

    Examples
    --------
    >>> import lazyvol
    >>> lazyvol.field_of_view(lazyvol.open_volume(getfixture("chest_folder")))
    ZYX(z=960.0, y=384.0, x=512.0)
    """
    return geometry_of(volume).field_of_view


def plot_slices(
    volume: xr.DataArray,
    *,
    z: Positions = None,
    y: Positions = None,
    x: Positions = None,
    window: Window = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> tuple[AxesImage, ...]:
    """Plot cuts through a volume at positions in mm, reading just what they show.

    Each cut is drawn in true proportions with mm axes, as radiologists look at it: the patient's
    left on the right, back down, head up. Letters at the edges say which side is which.

    Parameters
    ----------
    volume
        A volume with dimensions z, y, x, a slice or a projection of it, such as ``volume.max("y")``;
        select time points and the like first.
    z, y, x
        Where to cut, as the volume's coordinates have it (mm): one position or several for each
        axis; the slice nearest is shown. Without any, the middle of each axis.
    window
        A name (``"lung"``, ``"soft-tissue"``, ``"bone"``, ``"brain"``, ``"liver"``, or one of the
        header's), (centre, width), or None for the header's first window.
    ax
        Axes to draw into, one for each cut; without, a new figure.

    Returns
    -------
    tuple of matplotlib.image.AxesImage
        One for each cut, in the order z, y, x; ``.axes.figure`` is the figure.

    Raises
    ------
    OutsideVolumeError
        If a position lies outside the field of view.
    PlotError
        If the volume has further dimensions, a window is unknown, or the axes do not fit.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> image, = lazyvol.plot_slices(volume, z=100, window="lung")
    >>> image.get_extent()
    [-256.0, 256.0, -192.0, 192.0]
    """
    require_volume(volume)
    extra = [str(d) for d in volume.dims if d not in AXES]
    if extra or len(volume.dims) < 2:
        raise PlotError(
            f"plot_slices wants a volume with dimensions z, y, x or a slice of one; this has {tuple(volume.dims)}. "
            f"Select first, e.g. isel({extra[0] if extra else 'z'}=0)."
        )
    geometry = geometry_of(volume)
    if any(where is not None and not _are_positions(where) for where in (z, y, x)):
        raise PlotError(f"positions are numbers in mm, one or several, not z={z!r}, y={y!r}, x={x!r}.")
    asked = {axis: where for axis, where in zip(AXES, (z, y, x), strict=True) if where is not None}
    cuts = [_cut(volume, geometry, axis, k) for axis, k in _cut_indices(volume, geometry, asked)]
    axes = _axes_for(cuts, geometry, ax)
    images = tuple(
        _draw(cut, geometry, panel, window_limits(cut.values, window, cut.values.values))
        for cut, panel in zip(cuts, axes, strict=True)
    )
    if ax is None:
        figure = axes[0].figure
        figure.colorbar(images[-1], ax=axes, label=_quantity(volume), shrink=0.6)
    return images


def _are_positions(where: Any) -> bool:
    try:
        return np.asarray(where, dtype=float).size > 0
    except (TypeError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class _Cut:
    """One cut, read."""

    axis: str
    """The axis that it is a slice of."""
    index: int
    """Where along that axis."""
    values: xr.DataArray
    """Its voxels, in memory."""
    whole: bool
    """Whether it was cut from a volume with that axis; a projection has lost it."""


def _cut_indices(volume: xr.DataArray, geometry: Geometry, asked: Mapping[str, Positions]) -> list[tuple[str, int]]:
    """Return axis and index of each cut."""
    missing = [axis for axis in AXES if axis not in volume.dims]
    if missing:
        return [(missing[0], 0)]
    if asked:
        return [
            (a, _nearest(volume, geometry, a, mm))
            for a, where in asked.items()
            for mm in np.atleast_1d(np.asarray(where, dtype=float))
        ]
    lengths = {axis: volume.sizes[axis] for axis in AXES}
    thick = [axis for axis in AXES if all(lengths[other] > 1 for other in AXES if other != axis)]
    return [(axis, lengths[axis] // 2) for axis in thick or ["z"]]


def _nearest(volume: xr.DataArray, geometry: Geometry, axis: str, position: float) -> int:
    if axis not in volume.coords:
        raise OutsideVolumeError(
            f"{axis} has no positions in mm, because the headers do not say where the slices lie. Select by index: "
            f"isel({axis}=...)."
        )
    labels = np.asarray(volume.coords[axis].values, dtype=float)
    low, high = _edges(labels, getattr(geometry.spacing, axis))
    if not low <= position <= high:
        raise OutsideVolumeError(
            f"{axis} = {position:g} mm lies outside the volume, which extends from {low:g} to {high:g} mm along {axis}."
        )
    return int(np.argmin(np.abs(labels - position)))


def _edges(labels: Array, spacing: float) -> tuple[float, float]:
    """Return the outer edges of the voxels at both ends; half a gap beyond the centres."""
    ordered = np.sort(labels)
    if ordered.size == 1:
        half = spacing / 2 if np.isfinite(spacing) else 0.5
        return float(ordered[0] - half), float(ordered[0] + half)
    gaps = np.diff(ordered)
    ends = (spacing, spacing) if np.isfinite(spacing) else (gaps[0], gaps[-1])
    return float(ordered[0] - ends[0] / 2), float(ordered[-1] + ends[1] / 2)


def _cut(volume: xr.DataArray, geometry: Geometry, axis: str, index: int) -> _Cut:
    chosen = volume.isel({axis: index}) if axis in volume.dims else volume
    rows, columns = _layout(geometry, axis)
    return _Cut(axis, index, chosen.compute().transpose(rows, columns), axis in volume.dims)


def _layout(geometry: Geometry, axis: str) -> tuple[str, str]:
    """Return which axis runs down and which across: head to feet down, else front to back."""
    first, second = (a for a in AXES if a != axis)
    rank = {"S": 0, "I": 0, "A": 1, "P": 1, "L": 2, "R": 2}
    letters = {a: _axis_letter(geometry, a) for a in (first, second)}
    if not all(letters.values()):
        return first, second
    down, across = sorted(letters, key=lambda a: rank[letters[a]])
    return down, across


def _axis_letter(geometry: Geometry, axis: str) -> str:
    """Return the one letter of the patient's side that an axis grows towards; empty where its direction is unknown."""
    if geometry.convention not in ("LPS", "unknown"):
        return ""
    if geometry.is_known:
        return str(getattr(geometry.axis_letters, axis))
    return _letters(geometry.directions[AXES.index(axis)])[:1]


def _axes_for(cuts: Sequence[_Cut], geometry: Geometry, ax: Any) -> list[Any]:
    """Return axes for the cuts: those given, or new ones in a row on one scale, or in rows of equal ones."""
    count = len(cuts)
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != count:
            raise PlotError(f"{count} cuts need {count} axes, not {len(given)}.")
        if not all(hasattr(panel, "imshow") for panel in given):
            raise PlotError(f"ax={ax!r} must be matplotlib axes, one for each cut, or None for a new figure.")
        return given
    import matplotlib.pyplot as plt

    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    widths, heights = zip(*(_size(cut, geometry) for cut in cuts), strict=True)
    ratios = [w / max(widths) for w in widths[:columns]] if rows == 1 else [1.0] * columns
    tall = float(np.clip(max(heights) / max(widths), 0.4, 2.5))
    across = _PANEL if tall < 1.5 else _PANEL / 1.5
    figsize = (across * sum(ratios) + 1.0 + 0.6 * columns, (across * tall + 0.7) * rows)
    shape: Any = {"squeeze": False, "width_ratios": ratios, "figsize": figsize}
    figure, made = plt.subplots(rows, columns, layout="constrained", **shape)
    for spare in made.flat[count:]:
        figure.delaxes(spare)
    return list(made.flat[:count])


def _size(cut: _Cut, geometry: Geometry) -> tuple[float, float]:
    """Return width and height of a cut as it is drawn, mm."""
    left, right, bottom, top = _extent(cut.values, geometry)
    return max(right - left, 1e-6), max(top - bottom, 1e-6)


def _draw(cut: _Cut, geometry: Geometry, ax: Any, limits: tuple[float, float]) -> AxesImage:
    down, across = (str(d) for d in cut.values.dims)
    values, extent = _on_regular_grid(cut.values, geometry), _extent(cut.values, geometry)
    inverted = cut.values.attrs.get("photometric_interpretation") == "MONOCHROME1"
    image: AxesImage = ax.imshow(
        values,
        cmap="gray_r" if inverted else "gray",
        vmin=limits[0],
        vmax=limits[1],
        extent=extent,
        origin="lower",
        aspect="equal" if np.isfinite(extent).all() else "auto",
        interpolation="nearest",
    )
    _turn(ax, geometry, cut.values, extent)
    ax.set_xlabel(_axis_label(cut.values, geometry, across))
    ax.set_ylabel(_axis_label(cut.values, geometry, down))
    ax.set_title(_title(cut))
    return image


def _extent(cut: xr.DataArray, geometry: Geometry) -> tuple[float, float, float, float]:
    """Return the outer edges of a cut (left, right, bottom, top), labels ascending."""
    (bottom, top), (left, right) = (
        _edges(_labels(cut, axis), getattr(geometry.spacing, axis) if axis in cut.coords else 1.0)
        for axis in map(str, cut.dims)
    )
    return left, right, bottom, top


def _labels(cut: xr.DataArray, axis: str) -> Array:
    """Return the labels of an axis, or indices where it has none."""
    return np.asarray(cut.coords[axis].values if axis in cut.coords else np.arange(cut.sizes[axis]), dtype=float)


def _on_regular_grid(cut: xr.DataArray, geometry: Geometry) -> Array:
    """Return values ascending along both labels; uneven slices as thick as they are, NaN where one is missing."""
    values = np.asarray(cut.values)
    left, right, bottom, top = _extent(cut, geometry)
    for number, axis in enumerate(map(str, cut.dims)):
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
    down, across = map(str, cut.dims)
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
    letter = _axis_letter(geometry, axis)
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
    towards = _towards(cut, geometry, axis)
    if not towards:
        return f"{axis} [mm from the first voxel]"
    lean = min(geometry.shear, 180 - geometry.shear)  # a flipped axis turns the normal round
    sheared = f", {lean:.1f}\N{DEGREE SIGN} off the normal" if axis == "z" and lean > 0.01 else ""
    return f"{axis} [mm], towards {towards}{sheared}"


def _sign(cut: xr.DataArray, axis: str) -> int:
    """Return -1 if the labels descend: the geometry's direction follows the index, the label grows the other way."""
    labels = _labels(cut, axis)
    return -1 if labels.size > 1 and labels[-1] < labels[0] else 1


def _title(cut: _Cut) -> str:
    if cut.axis not in cut.values.coords:
        return f"{cut.axis} index {cut.index}" if cut.whole else f"across {cut.axis}"
    return f"{cut.axis} = {round(float(cut.values.coords[cut.axis]), 6) + 0.0:g} mm"


def _quantity(volume: xr.DataArray) -> str:
    name, units = volume.attrs.get("long_name", ""), volume.attrs.get("units", "")
    return f"{name} [{units}]" if units else str(name)
