"""From Instances to ordered stacks with their geometry and findings.

Order, spacing and tilt come from positions, never from names where positions exist
(DICOM PS3.3 C.7.6.2). Nothing here opens a file.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lazyvol.errors import Finding, finding
from lazyvol.geometry import (
    SPACING_ATOL,
    SPACING_RTOL,
    ZYX,
    Gaps,
    Geometry,
    Line,
    find_gaps,
    fit_line,
    slice_normal,
)
from lazyvol.records import Frame, Instance, Value

__all__ = ["Series", "Slice", "Stack", "group_series", "shared_values", "value_dtype"]

Array = npt.NDArray[np.float64]

ORIENTATION_ATOL = 1e-4
"""Direction cosines that differ more than this never share a grid."""
PIXEL_SPACING_RTOL = 1e-3
"""Pixel spacings that differ more than this fraction never share a grid."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A frame at its place in a stack."""

    instance: Instance
    """The file that holds it."""

    frame: Frame
    """Which frame of the file."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One grid of voxels in a series."""

    series_uid: str
    """SeriesInstanceUID."""

    number: int
    """Place among the stacks of its series, 0 for the one with most slices."""

    slices: tuple[Slice, ...]
    """Frames in the order of z."""

    geometry: Geometry
    """Where its voxels lie."""

    slice_positions: tuple[float, ...] = ()
    """True position of each slice along z from the first, mm; empty where unknown."""

    findings: tuple[Finding, ...] = ()
    """What is odd about it."""

    refusal: str = ""
    """Why it cannot be opened as a volume; empty if it can."""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its dimensions."""
        return ("z", "y", "x")

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return self.geometry.shape

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other stack."""
        return self.series_uid, self.number


@dataclass(frozen=True, slots=True)
class Series:
    """A DICOM series: all Instances with one SeriesInstanceUID."""

    uid: str
    """SeriesInstanceUID."""

    study_uid: str
    """StudyInstanceUID."""

    modality: str
    """Modality of its first Instance."""

    number: int | None
    """SeriesNumber."""

    description: str
    """SeriesDescription."""

    stacks: tuple[Stack, ...]
    """Its grids, the one with most slices first."""


def group_series(instances: Iterable[Instance]) -> tuple[Series, ...]:
    """Group Instances into series, and each series into ordered stacks.

    Parameters
    ----------
    instances
        As `scan_headers` gives them, in any order; names and order change nothing but the
        recorded paths, unless a series has neither positions nor instance numbers.

    Returns
    -------
    tuple of Series
        Sorted by series number, then SeriesInstanceUID.

    Examples
    --------
    >>> group_series([])
    ()
    """
    by_uid: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_uid[instance.series_uid].append(instance)
    found = (_make_series(uid, members) for uid, members in by_uid.items())
    return tuple(sorted(found, key=lambda s: (s.number is None, s.number or 0, s.uid)))


def _make_series(uid: str, members: list[Instance]) -> Series:
    kept, findings = _without_copies(sorted(members, key=_instance_key))
    findings += _malformed_findings(kept)
    findings += _truncated_findings(kept)
    stacks = [_make_stack(uid, part, tuple(findings)) for part in _split(kept)]
    stacks.sort(key=lambda s: (-len(s.slices), min(part.instance.uid for part in s.slices)))
    if len(stacks) > 1:
        note = _stacks_finding(stacks)
        stacks = [replace(stack, findings=(*stack.findings, note)) for stack in stacks]
    numbered = tuple(replace(stack, number=n) for n, stack in enumerate(stacks))
    first = kept[0]
    return Series(uid, first.study_uid, first.modality, first.series_number, first.description, numbered)


def _instance_key(instance: Instance) -> tuple[str, str, str]:
    return instance.uid, instance.digest, instance.path


def _without_copies(members: list[Instance]) -> tuple[list[Instance], list[Finding]]:
    """Keep one Instance of each SOPInstanceUID: of unequal ones that with the lowest digest."""
    kept, copies, different = [m for m in members if not m.uid], [], []
    for _, group in itertools.groupby((m for m in members if m.uid), key=lambda i: i.uid):
        first, *others = group
        kept.append(first)
        copies += [o for o in others if o.digest == first.digest]
        different += [o for o in others if o.digest != first.digest]
    findings = []
    if copies:
        message = f"{len(copies)} files are copies of others (same UID and header); each was used once."
        findings.append(finding("copies-dropped", message, files=_paths(copies), values=(len(copies),)))
    if different:
        message = (
            f"{len(different)} files have the SOPInstanceUID of another file but another header; of each pair the "
            "one with the lower SHA-256 was used. Keep the right ones in a folder of their own."
        )
        findings.append(finding("different-copies", message, files=_paths(different), values=(len(different),)))
    return kept, findings


def _malformed_findings(members: list[Instance]) -> list[Finding]:
    by_keyword: dict[str, list[tuple[Instance, str]]] = defaultdict(list)
    for instance in members:
        for keyword, text in instance.malformed:
            by_keyword[keyword].append((instance, text))
    findings = []
    for keyword, cases in sorted(by_keyword.items()):
        text = min(t for _, t in cases)
        message = (
            f"{keyword} cannot be understood in {len(cases)} of {len(members)} files, e.g. {text!r}; it was taken "
            "as absent. Mend the header, or leave these files out."
        )
        files = _paths([i for i, _ in cases])
        findings.append(finding("malformed-value", message, files=files, values=(keyword, text)))
    return findings


def _truncated_findings(members: list[Instance]) -> list[Finding]:
    short = [i for i in members if i.missing_bytes]
    if not short:
        return []
    message = (
        f"{len(short)} of {len(members)} files are cut short, the first by {short[0].missing_bytes} bytes of pixels; "
        "their slices raise an error when they are read. Copy the files again."
    )
    return [finding("pixels-truncated", message, files=_paths(short), values=(len(short),))]


def _split(members: list[Instance]) -> list[list[Slice]]:
    """Split what can never share a grid; each multi-frame file stays by itself."""
    alone = [[Slice(i, f) for f in i.frames] for i in members if len(i.frames) != 1]
    single = sorted((Slice(i, i.frames[0]) for i in members if len(i.frames) == 1), key=_grid_key)
    stacks: list[list[Slice]] = []
    for part in single:
        home = next((s for s in stacks if _shares_grid(s[0], part)), None)
        if home is None:
            stacks.append([part])
        else:
            home.append(part)
    return stacks + alone


def _grid_key(part: Slice) -> tuple[object, ...]:
    return part.frame.orientation or (), part.frame.pixel_spacing or (), part.instance.uid


def _shares_grid(one: Slice, other: Slice) -> bool:
    a, b = one.instance.pixels, other.instance.pixels
    if (a.rows, a.columns, a.samples_per_pixel) != (b.rows, b.columns, b.samples_per_pixel):
        return False
    if (one.frame.position is None) != (other.frame.position is None):
        return False
    return _close(one.frame.orientation, other.frame.orientation, atol=ORIENTATION_ATOL) and _close(
        one.frame.pixel_spacing, other.frame.pixel_spacing, rtol=PIXEL_SPACING_RTOL
    )


def _close(one: Sequence[float] | None, other: Sequence[float] | None, *, rtol: float = 0.0, atol: float = 0.0) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= atol + rtol * abs(a) for a, b in zip(one, other, strict=True))


def _stacks_finding(stacks: list[Stack]) -> Finding:
    kinds = [f"{n}: {'x'.join(map(str, s.shape))} {s.geometry.orientation}".strip() for n, s in enumerate(stacks)]
    message = (
        f"the series holds {len(stacks)} grids that cannot be one volume ({'; '.join(kinds[:8])}"
        f"{'; ...' if len(kinds) > 8 else ''}); stack 0, with most slices, opens unless stack= says otherwise."
    )
    return finding("several-stacks", message, values=(len(stacks),))


def _make_stack(uid: str, parts: list[Slice], findings: tuple[Finding, ...]) -> Stack:
    refusal = _refusal(parts)
    if refusal:
        return Stack(uid, 0, tuple(parts), _flat_geometry(parts), (), findings, refusal)
    if any(p.frame.position is None or p.frame.orientation is None for p in parts):
        ordered, note = _order_without_positions(parts)
        geometry, notes = _flat_geometry(ordered), [*note]
        return Stack(uid, 0, tuple(ordered), geometry, (), (*findings, *notes, *_pixel_spacing_findings(geometry)))
    return _stack_by_position(uid, parts, findings)


def _refusal(parts: list[Slice]) -> str:
    first = parts[0].instance
    if len(first.frames) != 1:
        return f"it is one multi-frame file of {len(first.frames)} frames, a kind that lazyvol does not open yet"
    if "MOSAIC" in first.image_type or "VFRAME" in first.image_type:
        return "its images are mosaics of tiles, which lazyvol does not split yet"
    if first.pixels.samples_per_pixel != 1 or first.pixels.photometric_interpretation == "PALETTE COLOR":
        return f"its pixels are {first.pixels.photometric_interpretation}, and lazyvol does not open colour yet"
    if first.pixels.has_modality_lut:
        return "its values come through a ModalityLUTSequence, which lazyvol does not apply yet"
    if first.pixels.element != "PixelData" or first.pixels.bits_allocated not in (8, 16, 32):
        return (
            f"its pixels are {first.pixels.element} of {first.pixels.bits_allocated} bits, not 8, 16 or 32 bit integers"
        )
    return ""


def _order_without_positions(parts: list[Slice]) -> tuple[list[Slice], list[Finding]]:
    """Order by InstanceNumber, else by name; one image needs neither."""
    notes = [_geometry_unknown(len(parts))]
    numbers = {p.instance.number for p in parts}
    if len(parts) == 1:
        return parts, notes
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


def _geometry_unknown(n: int) -> Finding:
    message = (
        f"ImagePositionPatient or ImageOrientationPatient is absent from {n} images, so where the voxels lie in the "
        "patient and how far apart the slices are is not known; z has no coordinate."
    )
    return finding("geometry-unknown", message, values=(n,))


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    parts = re.findall(r"\d+|\D+", name)
    return tuple((not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts)


def _flat_geometry(parts: list[Slice]) -> Geometry:
    """Shape and pixel spacing, without a place in the patient."""
    first = parts[0]
    spacing = first.frame.pixel_spacing or (np.nan, np.nan)
    shape = (len(parts), first.instance.rows, first.instance.columns)
    return Geometry(shape, ZYX(np.nan, *spacing), frame_of_reference=_frame_of_reference(parts))


def _frame_of_reference(parts: list[Slice]) -> str:
    found = {p.instance.frame_of_reference_uid for p in parts}
    return found.pop() if len(found) == 1 else ""


def _pixel_spacing_findings(geometry: Geometry) -> list[Finding]:
    if np.isfinite(geometry.spacing.y):
        return []
    message = (
        "PixelSpacing is absent, so distances within the slices are not known; y and x have no coordinates. "
        "(ImagerPixelSpacing, if any, is measured at the detector and not used.)"
    )
    return [finding("pixel-spacing-unknown", message)]


def _stack_by_position(uid: str, parts: list[Slice], findings: tuple[Finding, ...]) -> Stack:
    orientation = _mean_orientation(parts)
    positions = np.array([p.frame.position for p in parts], dtype=float)
    heights = positions @ slice_normal(orientation)
    order = sorted(range(len(parts)), key=lambda n: (heights[n], _tie(parts[n])))
    ordered, heights, positions = [parts[n] for n in order], heights[order], positions[order]
    notes = [*findings, *_reference_findings(ordered)]
    if len(ordered) == 1:
        geometry, more = _one_slice(ordered, orientation)
        return Stack(uid, 0, tuple(ordered), geometry, (0.0,), (*notes, *more, *_pixel_spacing_findings(geometry)))
    repeated = np.flatnonzero(np.diff(heights) <= SPACING_ATOL)
    if repeated.size:
        return _refuse_repeats(uid, ordered, repeated, tuple(notes))
    line = fit_line(positions, orientation)
    gaps = find_gaps(line.along)
    geometry = _geometry(ordered, orientation, line, gaps)
    notes += [*_line_findings(line, gaps), *_gap_findings(line, gaps), *_pixel_spacing_findings(geometry)]
    if geometry.shear > 0:
        notes.append(_tilt_finding(geometry))
    return Stack(uid, 0, tuple(ordered), geometry, line.along, tuple(notes))


def _tie(part: Slice) -> tuple[object, ...]:
    i = part.instance
    return i.acquisition_time or 0.0, i.number or 0, i.uid


def _mean_orientation(parts: list[Slice]) -> Array:
    """Return the common orientation with unit and orthogonal vectors."""
    mean = np.mean([p.frame.orientation or () for p in parts], axis=0)
    if all(p.frame.orientation == parts[0].frame.orientation for p in parts):
        mean = np.asarray(parts[0].frame.orientation, dtype=float)
    x = mean[:3] / np.linalg.norm(mean[:3])
    y = mean[3:] - np.dot(mean[3:], x) * x
    return np.concatenate([x, y / np.linalg.norm(y)])


def _geometry(parts: list[Slice], orientation: Array, line: Line, gaps: Gaps) -> Geometry:
    first = parts[0]
    regular = gaps.kind == "regular"
    spacing = ZYX(gaps.spacing if regular else np.nan, *(first.frame.pixel_spacing or (np.nan, np.nan)))
    x, y = (tuple(float(v) for v in orientation[s]) for s in (slice(0, 3), slice(3, 6)))
    return Geometry(
        (len(parts), first.instance.rows, first.instance.columns),
        spacing,
        line.origin,
        (line.direction, y, x),  # type: ignore[arg-type]  # three numbers each
        () if regular else line.along,
        _frame_of_reference(parts),
    )


def _one_slice(parts: list[Slice], orientation: Array) -> tuple[Geometry, list[Finding]]:
    """One slice has no step: SpacingBetweenSlices, else SliceThickness as a guess, else unknown."""
    frame, values = parts[0].frame, dict(parts[0].instance.values)
    between, thickness = (values.get(k) for k in ("SpacingBetweenSlices", "SliceThickness"))
    step, notes = np.nan, []
    if isinstance(between, float) and between > 0:
        step = between
    elif isinstance(thickness, float) and thickness > 0:
        step = thickness
        message = (
            f"a single slice has no neighbour to measure from; its SliceThickness {step:g} mm serves as spacing z."
        )
        notes.append(finding("spacing-guessed", message, values=(step,)))
    else:
        message = (
            "a single slice without SpacingBetweenSlices and SliceThickness; spacing and field of view along z are NaN."
        )
        notes.append(finding("spacing-unknown", message))
    assert frame.position is not None
    line = Line(frame.position, tuple(float(v) for v in slice_normal(orientation)), (0.0,), (0.0,))  # type: ignore[arg-type]
    return _geometry(parts, orientation, line, Gaps(step, "regular")), notes


def _refuse_repeats(uid: str, parts: list[Slice], repeated: np.ndarray, notes: tuple[Finding, ...]) -> Stack:
    places = len(parts) - repeated.size
    message = (
        f"{len(parts)} images lie at {places} positions, so several share one place (time points, echoes or "
        "duplicates)."
    )
    files = _paths([parts[int(n) + 1].instance for n in repeated])
    note = finding("several-per-position", message, files=files, values=(len(parts), places))
    refusal = f"{len(parts)} images lie at {places} positions; more than one image at a place does not open yet"
    return Stack(uid, 0, tuple(parts), _flat_geometry(parts), (), (*notes, note), refusal)


def _reference_findings(parts: list[Slice]) -> list[Finding]:
    n = len({p.instance.frame_of_reference_uid for p in parts})
    if n == 1:
        return []
    message = f"{len(parts)} slices name {n} different FrameOfReferenceUIDs; they form one grid and were kept together."
    return [finding("frame-of-reference-varies", message, values=(n,))]


def _line_findings(line: Line, gaps: Gaps) -> list[Finding]:
    off = np.asarray(line.off)
    bad = np.flatnonzero(off > max(SPACING_RTOL * gaps.spacing, SPACING_ATOL))
    if not bad.size:
        return []
    message = (
        f"{bad.size} of {off.size} slices lie up to {off.max():.3f} mm beside the line of the others (slices "
        f"{_some(bad)}); their y and x labels are off by that. Leave them out with isel(z=...)."
    )
    return [finding("slices-off-line", message, slices=tuple(map(int, bad)), values=(float(off.max()),))]


def _gap_findings(line: Line, gaps: Gaps) -> list[Finding]:
    if gaps.kind == "regular":
        return []
    along = np.asarray(line.along)
    width = np.diff(along)
    if gaps.kind == "missing":
        where = ", ".join(f"{n} after slice {k}" for k, n in zip(gaps.irregular[:8], gaps.missing[:8], strict=True))
        message = (
            f"{sum(gaps.missing)} slices are missing from a spacing of {gaps.spacing:g} mm ({where}); the slices that "
            "exist keep their true positions, and spacing z is NaN."
        )
        values = tuple(float(v) for v in width[list(gaps.irregular)])
        return [finding("missing-slices", message, slices=gaps.irregular, values=values)]
    message = (
        f"gaps between slices range from {width.min():g} to {width.max():g} mm (median {gaps.spacing:g}, "
        f"{len(gaps.irregular)} of {width.size} differ from it); true positions are kept, and spacing z is NaN."
    )
    return [finding("uneven-spacing", message, slices=gaps.irregular, values=(float(width.min()), float(width.max())))]


def _tilt_finding(geometry: Geometry) -> Finding:
    message = (
        f"the stack is sheared by {geometry.shear:.3f} degrees (gantry tilt): z runs along the step between slices, "
        "not along their normal, and the affine says so. Pixels are untouched."
    )
    return finding("tilted", message, values=(geometry.shear,))


def _paths(instances: Iterable[Instance]) -> tuple[str, ...]:
    return tuple(i.path for i in instances)


def _some(indices: Iterable[int]) -> str:
    first = [str(int(k)) for k in itertools.islice(indices, 9)]
    return ", ".join(first[:8]) + (", ..." if len(first) > 8 else "")


def shared_values(parts: Sequence[Slice]) -> tuple[dict[str, Value], dict[str, tuple[Value | None, ...]]]:
    """Return the protocol values that all slices share, and those that vary, by DICOM keyword.

    A value that some slices lack varies, with None where it is absent.
    """
    each = [dict(p.instance.values) for p in parts]
    keywords = sorted({k for values in each for k in values})
    shared: dict[str, Value] = {}
    varying: dict[str, tuple[Value | None, ...]] = {}
    for keyword in keywords:
        found = tuple(values.get(keyword) for values in each)
        if found[0] is not None and all(v == found[0] for v in found):
            shared[keyword] = found[0]
        else:
            varying[keyword] = found
    return shared, varying


def value_dtype(parts: Sequence[Slice]) -> np.dtype[np.generic]:
    """Return the smallest dtype that holds every value, by the headers of all slices.

    Integer slopes and intercepts give the smallest integer type for the range that the
    stored bits allow, signed where both fit; fractional ones float32, or float64 for
    32-bit stored numbers. CT whose 16 declared bits alone exceed int16 is int16: its
    values are checked when they are read.
    """
    formats = {(p.instance.pixels, p.frame.slope, p.frame.intercept) for p in parts}
    if any(not (s.is_integer() and i.is_integer()) for _, s, i in formats):
        wide = any(f.bits_allocated > 16 for f, _, _ in formats)
        return np.dtype("float64" if wide else "float32")
    ends: list[float] = []
    for pixels, slope, intercept in formats:
        signed = pixels.pixel_representation == 1
        low, high = (-(2 ** (pixels.bits_stored - 1)), 2 ** (pixels.bits_stored - 1) - 1)
        low, high = (low, high) if signed else (0, 2**pixels.bits_stored - 1)
        ends += [low * slope + intercept, high * slope + intercept]
    declared = all(f.bits_stored <= 16 and slope == 1 for f, slope, _ in formats)
    if parts[0].instance.modality == "CT" and declared and any(f.bits_stored == 16 for f, _, _ in formats):
        return np.dtype("int16")
    names = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
    fits = (n for n in names if np.iinfo(n).min <= min(ends) and max(ends) <= np.iinfo(n).max)
    return np.dtype(next(fits, "float64"))
