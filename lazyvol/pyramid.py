"""Levels of lower resolution: which dimensions are halved, and the values of the halves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyvol.memory import empty

__all__ = ["halves_of", "halving", "mean_of_parts"]

SMALLEST = 128
"""A level is the last one if none of its sides is longer than this."""
_TOGETHER = 1 << 20
"""Voxels that are added up at a time."""
_MOST = 32
"""More levels than these no volume can have."""

Values = npt.NDArray[Any]


def halves_of(
    sizes: Mapping[str, int], spacing: Mapping[str, float], slabs: Mapping[str, int], levels: int | None
) -> list[dict[str, int]]:
    """Return which dimensions each level halves of the level above it.

    Dimensions of less than twice the smallest spacing are halved, so that voxels come nearer to cubes from level to
    level; one that is shorter than two voxels is not.

    Parameters
    ----------
    sizes
        Voxels along z, y and x at full resolution.
    spacing
        Millimetres along the same; NaN where unknown, which counts as the smallest.
    slabs
        Slices of a slab, at full resolution; along z nothing is halved that two slabs would share.
    levels
        How many levels there are, full resolution included; None for as many as it takes until no side is longer
        than 128.

    Returns
    -------
    list of dict
        For each level but the first, 1 or 2 by dimension. Fewer than asked for where nothing is left to halve.

    Examples
    --------
    >>> halves_of({"z": 40, "y": 512, "x": 512}, {"z": 3.0, "y": 0.7, "x": 0.7}, {"z": 40}, 3)
    [{'z': 1, 'y': 2, 'x': 2}, {'z': 1, 'y': 2, 'x': 2}]
    """
    sizes, steps, slabs = dict(sizes), dict(spacing), dict(slabs)
    found: list[dict[str, int]] = []
    while len(found) + 1 < (levels or _MOST):
        if levels is None and max(sizes.values()) <= SMALLEST:
            break
        known = [step for step in steps.values() if np.isfinite(step) and step > 0]
        smallest = min(known, default=1.0)
        close = {d: not np.isfinite(step) or step < 2 * smallest for d, step in steps.items()}
        split = {d for d, n in slabs.items() if n < sizes[d] and n % 2}
        factors = {d: 2 if n >= 2 and close[d] and d not in split else 1 for d, n in sizes.items()}
        if set(factors.values()) == {1}:
            break
        found.append(factors)
        sizes = {d: n // factors[d] for d, n in sizes.items()}
        steps = {d: step * factors[d] for d, step in steps.items()}
        slabs = {d: n // factors.get(d, 1) for d, n in slabs.items()}
    return found


def halving(values: Values, factors: Sequence[int], *, nearest: bool = False) -> Values:
    """Return values with half the voxels along some dimensions; a last odd voxel is left out.

    Parameters
    ----------
    values
        Numbers of any type.
    factors
        1 or 2 for each dimension.
    nearest
        Take the first of the voxels that become one, as labels need, instead of their mean. bool is always taken so.

    Returns
    -------
    numpy.ndarray
        Of the same type. Means of integers are exact and rounded, halves upwards; those of floating point leave
        NaN out.
    """
    trimmed = values[tuple(slice(n - n % f) for n, f in zip(values.shape, factors, strict=True))]
    if nearest or values.dtype.kind == "b":
        return np.ascontiguousarray(trimmed[tuple(slice(None, None, f) for f in factors)])
    out = empty([n // f for n, f in zip(trimmed.shape, factors, strict=True)], values.dtype)
    axis = next((k for k, n in enumerate(out.shape) if n > 1), 0)
    step = max(1, _TOGETHER * out.shape[axis] // max(trimmed.size, 1)) if out.ndim else 1
    for first in range(0, out.shape[axis], step):  # sums are wider than values, so few of them are held at a time
        front = (slice(None),) * axis
        part = trimmed[(*front, slice(first * factors[axis], (first + step) * factors[axis]))]
        out[(*front, slice(first, first + step))] = mean_of_parts(part, factors)
    return out


def mean_of_parts(values: Values, factors: Sequence[int]) -> Values:
    """Return the mean of each 1, 2, 4 or 8 voxels that become one."""
    count = prod(factors)
    if values.dtype.kind == "f":
        return _mean_of_floats(values, factors, count)
    if values.dtype.itemsize < 4:
        total = _sum(values.astype(np.int32), factors)
        total += count // 2
        return np.asarray((total >> (count.bit_length() - 1)).astype(values.dtype))
    shift = count.bit_length() - 1  # sums of 64 bits overflow, so whole parts and rests are added by themselves
    rest = _sum(values & values.dtype.type(count - 1), factors)
    return np.asarray(_sum(values >> values.dtype.type(shift), factors) + ((rest + (count // 2)) >> shift)).astype(
        values.dtype
    )


def _sum(values: Values, factors: Sequence[int]) -> Values:
    """Add neighbours, one dimension after the other."""
    for axis, factor in enumerate(factors):
        if factor == 2:
            front = (slice(None),) * axis
            values = values[(*front, slice(0, None, 2))] + values[(*front, slice(1, None, 2))]
    return values


def _mean_of_floats(values: Values, factors: Sequence[int], count: int) -> Values:
    wide = values.astype(np.float64) if values.dtype.itemsize > 4 else values.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = _sum(wide * wide.dtype.type(1 / count), factors)
        if not np.isnan(mean).any():
            return np.asarray(mean.astype(values.dtype))
        known = ~np.isnan(values)
        times = _sum(known.astype(np.uint8), factors)
        total = np.zeros(mean.shape, np.float64)
        for start in product(*(range(f) for f in factors)):
            part = tuple(slice(s, None, f) for s, f in zip(start, factors, strict=True))
            total += np.where(known[part], values[part], 0.0)
        return np.asarray(np.where(times, total / np.maximum(times, 1), np.nan).astype(values.dtype))
