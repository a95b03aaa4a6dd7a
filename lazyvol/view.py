"""Looking at a volume: its field of view, and cuts at a position in mm.

A cut reads the one slice, row or column of voxels that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyvol.convention import geometry_of, require_volume
from lazyvol.errors import OutsideVolumeError, PlotError
from lazyvol.geometry import ZYX, Geometry
from lazyvol.panels import AXES, Colours, Cut, axis_letter, colours_of, draw_cut, edges, extent_of
from lazyvol.windows import Greys, Window, greys_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["field_of_view", "plot_slices"]

Positions = float | Sequence[float] | None
Array = npt.NDArray[Any]

_PANEL = 4.5
"""Width of the widest panel of a new figure, inches."""


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
    Values are never changed: a window says only what is drawn black and white, and MONOCHROME1 is
    drawn inverted. A volume with three samples is drawn in colour: unsigned integers by
    their full range, other numbers by 255, or by 65535 if a cut has one above 255; NaN is
    transparent, as it is in grey.

    Parameters
    ----------
    volume
        A volume with dimensions z, y, x, a slice or a projection of it, such as ``volume.max("y")``;
        select time points and the like first. Colour is a last dimension ``sample``.
    z, y, x
        Where to cut, as the volume's coordinates have it (mm): one position or several for each
        axis; the slice nearest is shown. Without any, the middle of each axis.
    window
        A name of `windows_of` (one of the header's or, for HU, ``"lung"``, ``"soft-tissue"``,
        ``"bone"``, ``"brain"``, ``"liver"``), (centre, width), or None for the header's first
        window. Windows of the header are drawn by its VOILUTFunction, also SIGMOID. Without any,
        the 1st and 99th percentiles of what is shown are black and white.
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
        If the volume has further dimensions or a number of samples other than 3, a window is
        unknown, in HU where the values are not, or asked of colour, or the axes do not fit.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> image, = lazyvol.plot_slices(volume, z=100, window="lung")
    >>> image.get_extent()
    [-256.0, 256.0, -192.0, 192.0]
    """
    require_volume(volume)
    extra = [str(d) for d in volume.dims if d not in (*AXES, "sample")]
    if extra or len(set(AXES).intersection(volume.dims)) < 2:
        raise PlotError(
            f"plot_slices wants a volume with dimensions z, y, x or a slice of one; this has {tuple(volume.dims)}. "
            f"Select first, e.g. isel({extra[0] if extra else 'z'}=0)."
        )
    geometry = geometry_of(volume)
    if any(where is not None and not _are_positions(where) for where in (z, y, x)):
        raise PlotError(f"positions are numbers in mm, one or several, not z={z!r}, y={y!r}, x={x!r}.")
    asked = {axis: where for axis, where in zip(AXES, (z, y, x), strict=True) if where is not None}
    cuts = [_cut(volume, geometry, axis, k) for axis, k in _cut_indices(volume, geometry, asked)]
    shades = _shades(cuts, window)
    axes = _axes_for(cuts, geometry, ax)
    images = tuple(draw_cut(cut, geometry, *each) for cut, *each in zip(cuts, axes, shades, strict=True))
    if ax is None and isinstance(shades[-1], Greys):
        figure = axes[0].figure
        figure.colorbar(images[-1], ax=axes, label=_quantity(volume), shrink=0.6, ticks=shades[-1].ticks)
    return images


def _shades(cuts: Sequence[Cut], window: Window) -> Sequence[Greys | Colours]:
    """Return how the values of each cut become grey or coloured; without window, or in colour, all alike."""
    if "sample" not in cuts[0].values.dims:
        shown = np.concatenate([cut.values.values.ravel() for cut in cuts])
        return [greys_of(cut.values, window, shown) for cut in cuts]
    if window is not None:
        raise PlotError(
            f"window={window!r}: a colour picture has no window. Leave it out, or select one sample for a grey "
            "picture: isel(sample=0)."
        )
    samples = cuts[0].values.sizes["sample"]
    if samples != 3:
        raise PlotError(f"a colour picture has 3 samples, not {samples}. Select all three, or one: isel(sample=0).")
    return [colours_of([cut.values for cut in cuts])] * len(cuts)


def _are_positions(where: Any) -> bool:
    try:
        return np.asarray(where, dtype=float).size > 0
    except (TypeError, ValueError):
        return False


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
    low, high = edges(labels, getattr(geometry.spacing, axis))
    if not low <= position <= high:
        raise OutsideVolumeError(
            f"{axis} = {position:g} mm lies outside the volume, which extends from {low:g} to {high:g} mm along {axis}."
        )
    return int(np.argmin(np.abs(labels - position)))


def _cut(volume: xr.DataArray, geometry: Geometry, axis: str, index: int) -> Cut:
    chosen = volume.isel({axis: index}) if axis in volume.dims else volume
    rows, columns = _layout(geometry, axis)
    return Cut(axis, index, chosen.compute().transpose(rows, columns, ...), axis in volume.dims)


def _layout(geometry: Geometry, axis: str) -> tuple[str, str]:
    """Return which axis runs down and which across: head to feet down, else front to back."""
    first, second = (a for a in AXES if a != axis)
    rank = {"S": 0, "I": 0, "A": 1, "P": 1, "L": 2, "R": 2}
    letters = {a: axis_letter(geometry, a) for a in (first, second)}
    if not all(letters.values()):
        return first, second
    down, across = sorted(letters, key=lambda a: rank[letters[a]])
    return down, across


def _axes_for(cuts: Sequence[Cut], geometry: Geometry, ax: Any) -> list[Any]:
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


def _size(cut: Cut, geometry: Geometry) -> tuple[float, float]:
    """Return width and height of a cut as it is drawn, mm."""
    left, right, bottom, top = extent_of(cut.values, geometry)
    return max(right - left, 1e-6), max(top - bottom, 1e-6)


def _quantity(volume: xr.DataArray) -> str:
    name, units = volume.attrs.get("long_name", ""), volume.attrs.get("units", "")
    return f"{name} [{units}]" if units else str(name)
