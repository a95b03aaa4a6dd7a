"""Numbers on the values of one volume, however large: each block is read once, and what is kept of it is small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute as dask_compute
from dask.delayed import delayed

from lazyvol.convention import require_volume
from lazyvol.errors import OptionError

__all__ = ["histogram", "volume_statistics"]

_BINS = 65536
"""Bins between the least and the greatest value, of which percentiles of floating point values are made."""


def histogram(
    volume: xr.DataArray, bins: int = 256, *, limits: tuple[float, float] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Count values in bins of equal width, block by block.

    Parameters
    ----------
    volume
        A lazy volume, or one in memory.
    bins
        How many.
    limits
        From where to where; least and greatest finite value if None, which costs a pass of its own.

    Returns
    -------
    counts, edges
        Shapes (bins,) and (bins + 1,). Values outside the limits and NaN are not counted; the last bin holds its upper
        edge, as that of `numpy.histogram`.

    Raises
    ------
    OptionError
        If the limits are none.

    Examples
    --------
    >>> import lazyvol
    >>> counts, edges = lazyvol.histogram(lazyvol.open_volume(getfixture("chest_folder")), 4, limits=(-1000, 1000))
    >>> counts.shape, float(edges[0])
    ((4,), -1000.0)
    """
    _require_numbers(volume)
    given: Any = (bins, limits)
    if not isinstance(given[0], int | np.integer) or not isinstance(given[1], tuple | list | None):
        raise OptionError(f"bins={bins!r} must be a whole number, and limits={limits!r} two numbers.")
    if limits is None:
        low, high = _ends(volume.where(np.isfinite(volume)) if volume.dtype.kind == "f" else volume)
        if np.isnan(low):
            raise OptionError("the volume holds no finite value, so it has no limits. Give limits=(low, high).")
        wide = max(0.5, float(np.spacing(abs(low))))
        limits = (low, high) if high > low else (low - wide, high + wide)
    if not (np.isfinite(limits).all() and limits[0] < limits[1] and bins > 0):
        raise OptionError(f"limits={limits!r} must be two finite numbers, the lower first, and bins={bins!r} positive.")
    edges = np.linspace(*limits, bins + 1)
    return _counted(volume, edges), edges


def _require_numbers(volume: Any) -> None:
    require_volume(volume)
    if volume.dtype.kind not in "biuf" or not volume.size:
        raise OptionError(f"{volume.dtype} of shape {volume.shape} has no statistics. Take a volume of numbers.")


def _ends(volume: xr.DataArray) -> tuple[float, float]:
    """Return the least and the greatest value that is no NaN."""
    low, high = dask_compute(volume.min(skipna=True), volume.max(skipna=True))  # type: ignore[no-untyped-call]
    return float(low), float(high)


def _counted(volume: xr.DataArray, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    counts = _over_blocks(volume, _count_block, edges)
    return np.asarray(counts, dtype=np.int64)


def _over_blocks(volume: xr.DataArray, function: Any, *arguments: Any) -> Any:
    """Return the sum over blocks of what a function makes of each."""
    data: Any = volume.data if volume.chunks is not None else da.from_array(volume.values)  # type: ignore[no-untyped-call]
    parts = [delayed(function, pure=False)(block, *arguments) for block in data.to_delayed().ravel()]
    while len(parts) > 1:  # a tree, so that few results wait
        parts = [delayed(sum, pure=False)(parts[n : n + 8]) for n in range(0, len(parts), 8)]
    return dask_compute(parts[0])[0]  # type: ignore[no-untyped-call]


def _count_block(block: npt.NDArray[Any], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    values = block.view("u1") if block.dtype == bool else block
    return np.histogram(values[np.isfinite(values)] if values.dtype.kind == "f" else values, edges)[0]


def _values_of_block(block: npt.NDArray[Any], low: int, count: int) -> npt.NDArray[np.int64]:
    return np.bincount(block.ravel().astype(np.int64) - low, minlength=count)


def volume_statistics(
    volume: xr.DataArray, percentiles: Sequence[float] = (1, 5, 25, 50, 75, 95, 99)
) -> dict[str, Any]:
    """Return statistics of all values of a volume in bounded memory.

    Parameters
    ----------
    volume
        A lazy volume, or one in memory.
    percentiles
        Which, from 0 to 100.

    Returns
    -------
    dict
        ``count`` (values that are neither NaN nor infinite), ``min``, ``max``, ``mean``, ``std``, and ``p1``, ``p50``
        and so on. All are exact for integers of up to 16 bits, whose percentiles are the least value that so many
        percent do not exceed (`numpy.percentile` with ``method="inverted_cdf"``); other percentiles are right to
        1/65536 of the range.

    Raises
    ------
    OptionError
        If a percentile is none.

    Examples
    --------
    >>> import lazyvol
    >>> found = lazyvol.volume_statistics(lazyvol.open_volume(getfixture("chest_folder")), [50])
    >>> list(found)
    ['count', 'min', 'max', 'mean', 'std', 'p50']
    """
    _require_numbers(volume)
    given: Any = percentiles
    numbers = isinstance(given, list | tuple | np.ndarray) and all(
        isinstance(p, int | float | np.number) for p in given
    )
    if not numbers:
        raise OptionError(f"percentiles={percentiles!r} must be a list of numbers from 0 to 100.")
    if not all(0 <= p <= 100 for p in percentiles):
        raise OptionError(f"percentiles={tuple(percentiles)!r} must be numbers from 0 to 100.")
    if volume.dtype == bool:
        volume = volume.astype("uint8")
    if volume.dtype.kind in "iu" and volume.dtype.itemsize <= 2:
        info = np.iinfo(volume.dtype)
        counts = _over_blocks(volume, _values_of_block, info.min, info.max - info.min + 1)
        return _of_counts(np.arange(info.min, info.max + 1, dtype=float), counts, percentiles)
    floats = volume.astype(float)
    floats = floats.where(np.isfinite(floats)) if volume.dtype.kind == "f" else floats
    volume = floats if volume.dtype.kind == "f" else volume
    if not int(volume.count()):
        return _of_counts(np.zeros(1), np.zeros(1, np.int64), percentiles)
    low, high = _ends(volume)
    asked = volume.count(), floats.mean(skipna=True), floats.std(skipna=True)
    count, mean, std = map(float, dask_compute(*asked))  # type: ignore[no-untyped-call]
    found = {"count": int(count), "min": low, "max": high, "mean": mean, "std": std}
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    below = np.cumsum(_counted(volume, edges))
    for p in percentiles:
        if p in (0, 100) or high <= low:
            found[f"p{p:g}"] = high if p else low
            continue
        place = min(int(np.searchsorted(below, p / 100 * count)), _BINS - 1)
        middle = float((edges[place] + edges[place + 1]) / 2)
        found[f"p{p:g}"] = middle if volume.dtype.kind == "f" else float(round(middle))
    return found


def _of_counts(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], percentiles: Sequence[float]
) -> dict[str, Any]:
    """Return statistics of values by how often each occurs."""
    total = int(counts.sum())
    there = values[counts > 0]
    often = counts[counts > 0]
    if not total:
        nan = float("nan")
        return {
            "count": 0,
            **dict.fromkeys(("min", "max", "mean", "std"), nan),
            **{f"p{p:g}": nan for p in percentiles},
        }
    mean = float(np.sum(there * often) / total)
    std = float(np.sqrt(np.sum((there - mean) ** 2 * often) / total))
    found = {"count": total, "min": float(there[0]), "max": float(there[-1]), "mean": mean, "std": std}
    below = np.cumsum(often)
    for p in percentiles:
        needed = max(1, int(np.ceil(np.round(p / 100 * total, 9))))
        found[f"p{p:g}"] = float(there[np.searchsorted(below, needed)])
    return found
