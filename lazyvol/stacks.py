"""One grid of slices: its order, its axes and what is odd about it.

Order comes from positions; InstanceNumber and names only stand in where there are none.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lazyvol.axes import Axis, Layout, find_axes
from lazyvol.errors import Finding, finding
from lazyvol.geometry import Geometry
from lazyvol.grid import Grid, Tolerances, fill_gaps, flat_geometry, grid_of, positions_of
from lazyvol.records import Instance, Slice

__all__ = [
    "Rules",
    "Stack",
    "has_position",
    "make_stack",
    "paths_of",
    "refusal_of",
    "refuse",
    "refuse_duplicates",
    "renumbered",
    "with_filled_gaps",
]

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Colours that are opened, as red, green and blue (DICOM PS3.3 C.7.6.3.1.2)."""
_SIDEWAYS = 0.05
"""Images at one position lie on top of each other within this, mm."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How slices become stacks where there is a choice."""

    tolerances: Tolerances = field(default_factory=Tolerances)
    """When positions count as regular, and headers as alike."""

    dims: Mapping[str, str] | None = None
    """DICOM keyword for each axis before z, instead of what would be found."""

    duplicates: str = "raise"
    """What to do with images that nothing tells apart: ``raise``, ``first`` or ``axis``."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One grid of voxels in a series."""

    series_uid: str
    """SeriesInstanceUID."""

    number: int
    """Place among the stacks of its series, 0 for the one with most slices."""

    slices: tuple[Slice, ...]
    """Its images, ascending along z and then in the order of the axes before z."""

    geometry: Geometry
    """Where its voxels lie."""

    axes: tuple[Axis, ...] = ()
    """Dimensions before z."""

    places: tuple[int, ...] = ()
    """Number of the image in each cell, axes first and z last (C order); -1 where there is none."""

    slice_positions: tuple[float, ...] = ()
    """True position of each slice along z from the first, mm; empty where unknown."""

    findings: tuple[Finding, ...] = ()
    """What is odd about it."""

    refusal: str = ""
    """Why it cannot be opened as a volume; empty if it can."""

    left_out: tuple[tuple[Slice, Slice], ...] = ()
    """Images left out as duplicates, each with the one that was kept."""

    fill: float | None = None
    """Value of absent images by what the object means, 0 for a segmentation; None where it has none."""

    window: tuple[int, int] | None = None
    """First row and column of the images that the grid shows, if not the whole of them; may be negative."""

    padded: bool = False
    """Whether the grid reaches beyond the images."""

    values: str = "rescaled"
    """What its values are: those after rescaling, ``stored``, ``real_world`` or ``philips_fp``."""

    @property
    def is_colour(self) -> bool:
        """Whether its voxels are colours."""
        return self.slices[0].instance.is_colour

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its dimensions."""
        return (*self.image_dims, "y", "x", *(("sample",) if self.is_colour else ()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return (*self.image_shape, *self.geometry.shape[1:], *((3,) if self.is_colour else ()))

    @property
    def image_dims(self) -> tuple[str, ...]:
        """Names of the dimensions that tell its images apart."""
        return (*(a.name for a in self.axes), "z")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Length of these dimensions."""
        return (*(len(a.labels) for a in self.axes), self.geometry.shape[0])

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other stack."""
        return self.series_uid, self.number


def has_position(part: Slice) -> bool:
    """Return whether the header says where the image lies."""
    return part.frame.position is not None and part.frame.orientation is not None


def paths_of(instances: Iterable[Instance]) -> tuple[str, ...]:
    """Return the files of Instances."""
    return tuple(i.path for i in instances)


def make_stack(uid: str, parts: list[Slice], findings: tuple[Finding, ...], rules: Rules) -> Stack:
    """Return images that can share a grid as one stack, or as one that says why it does not open."""
    refusal = refusal_of(parts)
    if refusal:
        return _plain_stack(uid, parts, flat_geometry(parts, len(parts)), findings, refusal)
    if not has_position(parts[0]):
        layout = _layout_without_positions(parts, rules)
        if layout is not None:
            return _stack_without_positions(uid, parts, layout, findings)
        ordered, notes = _order_without_positions(parts)
        return _plain_stack(uid, ordered, flat_geometry(ordered, len(ordered)), (*findings, *notes))
    findings = (*findings, *_reference_findings(parts))
    position = positions_of(parts, rules.tolerances)
    if max(position) + 1 == len(parts) and not rules.dims:
        ordered = [part for _, part in sorted(zip(position, parts, strict=True), key=lambda item: item[0])]
        return _plain_stack(uid, ordered, grid_of(ordered, rules.tolerances), findings)
    return _stack_with_axes(uid, parts, position, findings, rules)


def _plain_stack(uid: str, ordered: list[Slice], grid: Grid, findings: tuple[Finding, ...], refusal: str = "") -> Stack:
    places = tuple(range(len(ordered)))
    notes = findings if refusal else (*findings, *grid.findings)
    return Stack(uid, 0, tuple(ordered), grid.geometry, (), places, grid.slice_positions, notes, refusal)


def refusal_of(parts: list[Slice]) -> str:
    """Return why images are of a kind that does not open; empty if they do."""
    first = parts[0].instance
    pixels = first.pixels
    if first.refusal:
        return first.refusal
    if first.is_colour or pixels.photometric_interpretation in _COLOURS:
        return _colour_refusal(first)
    wanted = {1, 8, 16, 32} if pixels.element == "PixelData" else {32, 64}
    if pixels.samples_per_pixel != 1 or pixels.bits_allocated not in wanted:
        return (
            f"its pixels are {pixels.samples_per_pixel} x {pixels.element} of {pixels.bits_allocated} bits, which "
            "lazyvol does not open"
        )
    return ""


def _colour_refusal(instance: Instance) -> str:
    """Return why colours are of a kind that does not open."""
    pixels, said = instance.pixels, instance.pixels.photometric_interpretation
    if said == "PALETTE COLOR" and pixels.samples_per_pixel == 1:
        return "" if instance.palette else "its pixels are PALETTE COLOR, and its header has no palette"
    if said not in _COLOURS or pixels.samples_per_pixel != 3:
        return (
            f"its pixels are {said} of {pixels.samples_per_pixel} samples, and lazyvol opens {', '.join(_COLOURS)} and "
            "PALETTE COLOR"
        )
    if pixels.element != "PixelData" or pixels.bits_allocated not in {8, 16, 32}:
        return f"its pixels are {said} of {pixels.bits_allocated} bits, and lazyvol opens colours of 8, 16 and 32 bits"
    if pixels.pixel_representation:
        return f"its pixels are {said} of signed numbers, and colours have no sign"
    if pixels.is_subsampled and pixels.columns % 2:
        return f"its pixels are {said}, two of which share their colour, in {pixels.columns} columns"
    return ""


def _order_without_positions(parts: list[Slice]) -> tuple[list[Slice], list[Finding]]:
    """Order by InstanceNumber, else by name; one image needs neither."""
    message = (
        f"ImagePositionPatient or ImageOrientationPatient is absent from {len(parts)} images, so where the voxels lie "
        "in the patient and how far apart the slices are is not known; z has no coordinate."
    )
    notes = [finding("geometry-unknown", message, values=(len(parts),))]
    if len(parts) == 1:
        return parts, notes
    if any(len(p.instance.frames) > 1 for p in parts):
        ordered = sorted(parts, key=lambda p: (p.instance.number or 0, p.instance.uid, p.frame.index))
        message = f"{len(parts)} frames have no position; their order is that of their file, which nothing confirms."
        return ordered, [*notes, finding("order-from-frame-number", message)]
    numbers = {p.instance.number for p in parts}
    if None not in numbers and len(numbers) == len(parts):
        ordered = sorted(parts, key=lambda p: p.instance.number or 0)
        message = (
            f"{len(parts)} images have no position; their order is that of InstanceNumber, which nothing confirms."
        )
        return ordered, [*notes, finding("order-from-instance-number", message)]
    ordered = sorted(parts, key=lambda p: (_natural(os.path.basename(p.instance.path)), p.instance.uid))
    message = (
        f"{len(parts)} images have neither positions nor distinct instance numbers; their order is that of the file "
        "names (numbers by value), which nothing confirms."
    )
    return ordered, [*notes, finding("order-from-names", message)]


def _layout_without_positions(parts: list[Slice], rules: Rules) -> Layout | None:
    """Return the axes that tell the frames of multi-frame files apart: times, or the vectors of nuclear medicine."""
    if len(parts) == 1 or not any(len(p.instance.frames) > 1 for p in parts):
        return None
    layout = find_axes(parts, [0] * len(parts), rules.dims)
    return None if layout is None or any(a.keyword == "InstanceNumber" for a in layout.axes) else layout


def _stack_without_positions(uid: str, parts: list[Slice], layout: Layout, findings: tuple[Finding, ...]) -> Stack:
    _, notes = _order_without_positions(parts[:1])
    places, slices = renumbered(layout.places, parts)
    grid = flat_geometry(parts, 1)
    found = (*findings, *notes, *grid.findings, *_layout_findings(layout))
    return Stack(uid, 0, slices, grid.geometry, layout.axes, places, (), found)


def renumbered(places: Sequence[int], parts: list[Slice]) -> tuple[tuple[int, ...], tuple[Slice, ...]]:
    """Return places by the order in which images first stand there, and the images in that order."""
    kept = [n for n in dict.fromkeys(places) if n >= 0]
    new = {old: n for n, old in enumerate(kept)}
    return tuple(new.get(n, -1) for n in places), tuple(parts[n] for n in kept)


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    parts = re.findall(r"\d+|\D+", name)
    return tuple((not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts)


def _reference_findings(parts: list[Slice]) -> list[Finding]:
    n = len({p.instance.frame_of_reference_uid for p in parts})
    if n == 1:
        return []
    message = f"{len(parts)} slices name {n} different FrameOfReferenceUIDs; they form one grid and were kept together."
    return [finding("frame-of-reference-varies", message, values=(n,))]


def _stack_with_axes(
    uid: str, parts: list[Slice], position: list[int], findings: tuple[Finding, ...], rules: Rules
) -> Stack:
    """Lay out several images at each position on further axes."""
    sideways = _sideways(parts, position)
    if sideways > _SIDEWAYS:
        return refuse(uid, parts, findings, f"images at one height lie up to {sideways:.3f} mm apart sideways")
    layout = find_axes(parts, position, rules.dims)
    left_out: tuple[tuple[Slice, Slice], ...] = ()
    if layout is None:
        if rules.duplicates == "raise":
            return refuse_duplicates(uid, parts, position, findings)
        layout, left_out = _with_duplicates(parts, position, rules.duplicates)
    firsts = [next(p for p, where in zip(parts, position, strict=True) if where == n) for n in range(max(position) + 1)]
    grid = grid_of(firsts, rules.tolerances)
    notes = (*findings, *grid.findings, *_layout_findings(layout))
    places, slices = renumbered(layout.places, parts)
    return Stack(uid, 0, slices, grid.geometry, layout.axes, places, grid.slice_positions, notes, left_out=left_out)


def _sideways(parts: list[Slice], position: list[int]) -> float:
    """Return how far images at one position lie apart, mm."""
    first: dict[int, Slice] = {}
    apart = [0.0]
    for part, where in zip(parts, position, strict=True):
        other = first.setdefault(where, part)
        apart.append(math.dist(part.frame.position or (), other.frame.position or ()))
    return max(apart)


def _layout_findings(layout: Layout) -> list[Finding]:
    notes = []
    if layout.holes:
        total = len(layout.places)
        slices = total // max(1, int(np.prod([len(a.labels) for a in layout.axes])))
        at = tuple(sorted({n % slices for n, image in enumerate(layout.places) if image < 0}))
        message = (
            f"{layout.holes} of the {total} images of the grid ({', '.join(a.name for a in layout.axes)}, z) are "
            "absent; their voxels are NaN (fill_value= keeps integers)."
        )
        notes.append(finding("incomplete-grid", message, slices=at, values=(layout.holes, total)))
    for axis in layout.axes:
        if axis.keyword == "InstanceNumber":
            message = (
                f"nothing but InstanceNumber, or within a file the frame number, tells the {len(axis.labels)} images "
                f"at each position apart, so {axis.name} follows it, which nothing confirms. dims= names a better "
                "header value."
            )
            notes.append(finding("axis-from-instance-number", message, values=(len(axis.labels),)))
    return notes


def refuse(uid: str, parts: list[Slice], findings: tuple[Finding, ...], refusal: str) -> Stack:
    """Return images as a stack that says why it does not open."""
    return _plain_stack(uid, parts, flat_geometry(parts, len(parts)), findings, refusal)


def refuse_duplicates(uid: str, parts: list[Slice], position: list[int], findings: tuple[Finding, ...]) -> Stack:
    """Return images that nothing tells apart as a stack that says so."""
    images = Counter(position)
    shared = [n for n, where in enumerate(position) if images[where] > 1]
    places = len({position[n] for n in shared})
    message = (
        f"{len(shared)} images share {places} position{'s' if places > 1 else ''} with another, and no header value "
        "tells them apart at every position."
    )
    at = tuple(sorted({position[n] for n in shared}))
    files = paths_of([parts[n].instance for n in shared])
    note = finding("several-per-position", message, slices=at, files=files, values=(len(shared), places))
    refusal = (
        f"{message[:-1]} (slice {at[0]} is the first). duplicates='first' keeps the one with the lowest "
        "InstanceNumber, duplicates='axis' all, dims= names a header value that tells them apart"
    )
    return refuse(uid, parts, (*findings, note), refusal)


def _with_duplicates(
    parts: list[Slice], position: list[int], duplicates: str
) -> tuple[Layout, tuple[tuple[Slice, Slice], ...]]:
    """Keep the first image at each position, or all along an axis of their own."""
    at: dict[int, list[int]] = defaultdict(list)
    for n in sorted(range(len(parts)), key=lambda n: _by_number(parts[n])):
        at[position[n]].append(n)
    count = max(position) + 1
    if duplicates == "first":
        pairs = tuple((parts[n], parts[at[k][0]]) for k in range(count) for n in at[k][1:])
        return Layout((), tuple(at[k][0] for k in range(count))), pairs
    most = max(map(len, at.values()))
    places = tuple(at[k][n] if n < len(at[k]) else -1 for n in range(most) for k in range(count))
    return Layout((Axis("duplicate", "InstanceNumber", tuple(float(n) for n in range(most))),), places), ()


def _by_number(part: Slice) -> tuple[int, str, int]:
    return part.number or 0, part.instance.uid, part.frame.index


def with_filled_gaps(stack: Stack, tolerances: Tolerances) -> Stack:
    """Return the stack with empty places where slices are missing, on a regular grid."""
    grid, old = fill_gaps(Grid(stack.geometry, stack.slice_positions), tolerances)
    if len(old) == stack.geometry.shape[0]:
        return stack
    rows = np.asarray(stack.places).reshape(-1, stack.geometry.shape[0])
    filled = np.where(np.asarray(old) < 0, -1, rows[:, old])
    places = tuple(int(n) for n in filled.ravel())
    findings = tuple(_filled_finding(f, old) if f.code == "missing-slices" else f for f in stack.findings)
    along = grid.slice_positions
    return replace(stack, geometry=grid.geometry, slice_positions=along, places=places, findings=findings)


def _filled_finding(note: Finding, old: list[int]) -> Finding:
    empty = tuple(n for n, place in enumerate(old) if place < 0)
    shown = ", ".join(map(str, empty[:8])) + (", ..." if len(empty) > 8 else "")
    message = (
        f"{len(empty)} slice{'s are' if len(empty) > 1 else ' is'} missing; the fill value stands in "
        f"{'their' if len(empty) > 1 else 'its'} place (slices {shown})."
    )
    return finding("missing-slices", message, slices=empty, values=note.values)
