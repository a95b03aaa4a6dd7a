"""The layers of a segmentation: one for each segment, with the planes that its file omits.

Binary and fractional segmentations hold a frame for each segment and plane that is not empty
(DICOM PS3.3 C.8.20.2); those of label maps are plain images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lazyvol.axes import Axis
from lazyvol.errors import Finding, finding
from lazyvol.geometry import ZYX, Geometry
from lazyvol.grid import GAP_CODES, Tolerances, grid_of, positions_of
from lazyvol.records import Slice
from lazyvol.stacks import Stack, has_position, refuse, refuse_duplicates, renumbered

__all__ = ["is_labelled", "is_layered", "make_layers", "with_planes_between"]


def is_layered(parts: list[Slice]) -> bool:
    """Return whether images are the layers of a segmentation, one frame for each segment and position."""
    return parts[0].values.get("SegmentationType") in {"BINARY", "FRACTIONAL"} and has_position(parts[0])


def is_labelled(stack: Stack) -> bool:
    """Return whether the values of a stack are the numbers of segments."""
    return stack.slices[0].values.get("SegmentationType") == "LABELMAP" and not stack.refusal and not stack.axes


def make_layers(uid: str, parts: list[Slice], findings: tuple[Finding, ...], tolerances: Tolerances) -> Stack:
    """Return the layers of a segmentation; what its file omits is 0 (DICOM PS3.3 C.8.20.2)."""
    position = positions_of(parts, tolerances)
    numbers = [n for p in parts if isinstance(n := p.values.get("ReferencedSegmentNumber"), int)]
    if len(numbers) < len(parts):
        unnamed = next(p for p in parts if not isinstance(p.values.get("ReferencedSegmentNumber"), int))
        refusal = f"its frame {unnamed.frame.index + 1} does not name the one segment that it belongs to"
        return refuse(uid, parts, findings, refusal)
    described = {s.number for p in parts for s in p.instance.segments}
    labels = sorted(described | set(numbers))
    count = max(position) + 1
    places = [-1] * (len(labels) * count)
    for n, (number, where) in enumerate(zip(numbers, position, strict=True)):
        at = labels.index(number) * count + where
        if places[at] >= 0:
            return refuse_duplicates(uid, parts, position, findings)
        places[at] = n
    firsts = [parts[position.index(n)] for n in range(count)]
    grid = grid_of(firsts, tolerances)
    cells, slices = renumbered(places, parts)
    axis = Axis("segment", "ReferencedSegmentNumber", tuple(labels))
    notes = (*findings, *grid.findings)
    if set(numbers) - described:
        unknown = ", ".join(map(str, sorted(set(numbers) - described)))
        message = f"frames belong to segment {unknown}, which SegmentSequence does not describe; it has no name."
        notes = (*notes, finding("malformed-value", message, values=("ReferencedSegmentNumber", unknown)))
    stack = Stack(uid, 0, slices, grid.geometry, (axis,), cells, grid.slice_positions, notes, fill=0.0)
    return with_planes_between(stack, tolerances)


def with_planes_between(stack: Stack, tolerances: Tolerances) -> Stack:
    """Return a segmentation with the planes that its file omits, whose voxels are 0."""
    stack = replace(stack, fill=0.0)
    step = stack.slices[0].values.get("SpacingBetweenSlices")
    along = np.asarray(stack.slice_positions)
    if len(along) < 2:
        return stack
    shortest = float(np.diff(along).min())
    for base in (step, shortest):
        if not isinstance(base, float) or base <= 0:
            continue
        numbers = along / base
        if np.abs(numbers - np.rint(numbers)).max() * base <= max(tolerances.spacing_atol, 1e-2 * base):
            return _spread(stack, np.rint(numbers).astype(int))
    return stack


def _spread(stack: Stack, planes: npt.NDArray[np.int_]) -> Stack:
    """Return a segmentation whose planes have these numbers, with empty ones between them."""
    count = int(planes[-1]) + 1
    old = np.asarray(stack.places).reshape(-1, len(planes))
    places = np.full((len(old), count), -1)
    places[:, planes] = old
    g = stack.geometry
    step = stack.slice_positions[-1] / (count - 1)
    spacing = ZYX(step, g.spacing.y, g.spacing.x)
    shape = (count, *g.shape[1:])
    geometry = Geometry(shape, spacing, g.origin, g.directions, (), g.frame_of_reference, g.convention)
    along = tuple(float(k * step) for k in range(count))
    cells, notes = tuple(map(int, places.ravel())), tuple(f for f in stack.findings if f.code not in GAP_CODES)
    return replace(stack, geometry=geometry, slice_positions=along, places=cells, findings=notes)
