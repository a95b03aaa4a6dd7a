"""From Instances to series, and from series to stacks: grids of slices with their axes and findings.

Nothing depends on the names or the order of files where positions or instance numbers
exist, and nothing here opens a file.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lazyvol.errors import Finding, finding
from lazyvol.grid import GAP_CODES
from lazyvol.layers import is_labelled, is_layered, make_layers, with_planes_between
from lazyvol.memory import no_search
from lazyvol.records import Instance, Slice
from lazyvol.stacks import Rules, Stack, has_position, make_stack, paths_of, refusal_of
from lazyvol.values import value_dtype

__all__ = ["Series", "group_series"]

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""UID, or its beginning, of the Secondary Capture classes (DICOM PS3.4 table B.5-1)."""
_SOFT_TAGS = ("StackID", "ImageType", "ConvolutionKernel", "FilterType", "AcquisitionNumber", "FrameOfReferenceUID")
"""Values that part a stack only where each part is then a grid without gaps."""


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


def group_series(instances: Iterable[Instance], rules: Rules | None = None) -> tuple[Series, ...]:
    """Group Instances into series, and each series into ordered stacks.

    Parameters
    ----------
    instances
        As `scan_headers` gives them, in any order; names and order change nothing but the
        recorded paths, unless a series has neither positions nor instance numbers.
    rules
        Tolerances and choices; without, the defaults.

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
    with no_search():
        found = [_make_series(uid, members, rules or Rules()) for uid, members in by_uid.items()]
    return tuple(sorted(found, key=lambda s: (s.number is None, s.number or 0, s.uid)))


def _make_series(uid: str, members: list[Instance], rules: Rules) -> Series:
    kept, findings = _without_copies(sorted(members, key=lambda i: (i.uid, i.digest, i.path)))
    findings += [*_malformed_findings(kept), *_truncated_findings(kept), *_noted_findings(kept)]
    stacks = [s for part in _split(kept, rules) for s in _make_stacks(uid, part, tuple(findings), rules)]
    stacks.sort(key=lambda s: (_is_beside(s.slices[0]), -len(s.slices), min(p.instance.uid for p in s.slices)))
    if len(stacks) > 1:
        note = _stacks_finding(stacks)
        stacks = [replace(stack, findings=(*stack.findings, note)) for stack in stacks]
    numbered = tuple(replace(stack, number=n) for n, stack in enumerate(stacks))
    first = kept[0]
    return Series(uid, first.study_uid, first.modality, first.series_number, first.description, numbered)


def _without_copies(members: list[Instance]) -> tuple[list[Instance], list[Finding]]:
    """Keep one Instance of each SOPInstanceUID: of unequal ones that with the lowest digest."""
    if len({m.uid for m in members}) == len(members):
        return members, []
    kept, copies, different = [m for m in members if not m.uid], [], []
    for _, group in itertools.groupby((m for m in members if m.uid), key=lambda i: i.uid):
        first, *others = group
        kept.append(first)
        copies += [o for o in others if o.digest == first.digest]
        different += [o for o in others if o.digest != first.digest]
    findings = []
    if copies:
        message = (
            f"{len(copies)} of {len(members)} files are copies of others (same UID and header); each was used once."
        )
        findings.append(finding("copies-dropped", message, files=paths_of(copies), values=(len(copies),)))
    if different:
        message = (
            f"{len(different)} of {len(members)} files have the SOPInstanceUID of another file but another header; of "
            "each pair the one with the lower SHA-256 was used. Keep the right ones in a folder of their own."
        )
        findings.append(finding("different-copies", message, files=paths_of(different), values=(len(different),)))
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
        files = paths_of([i for i, _ in cases])
        findings.append(finding("malformed-value", message, files=files, values=(keyword, text)))
    return findings


def _truncated_findings(members: list[Instance]) -> list[Finding]:
    formats = {id(i.pixels): i.pixels for i in members}
    whole = {n: pixels.frame_bytes if pixels.is_plain else 1 for n, pixels in formats.items()}
    frames = ((i, f.length) for i in members for f in i.frames if f.length is not None)
    short = list({id(i): i for i, length in frames if length < whole[id(i.pixels)]}.values())
    if not short:
        return []
    first = short[0]
    what = (
        f"by {first.missing_bytes} bytes of pixels"
        if len(first.frames) == 1
        else f"which lacks all or part of {len(first.short_frames)} of {len(first.frames)} frames"
    )
    message = (
        f"{len(short)} of {len(members)} files are cut short, the first {what}; their slices raise an error when they "
        "are read. Copy the files again."
    )
    return [finding("pixels-truncated", message, files=paths_of(short), values=(len(short),))]


def _noted_findings(members: list[Instance]) -> list[Finding]:
    """Return what is odd about single files, one finding for each code."""
    counts, tables = (_noted(members, code) for code in ("frame-count-wrong", "offset-table-wrong"))
    findings = []
    if counts:
        message, files = counts
        findings.append(finding("frame-count-wrong", message, files=files, values=(len(files),)))
    if tables:
        message, files = tables
        findings.append(finding("offset-table-wrong", message, files=files, values=(len(files),)))
    return findings


def _noted(members: list[Instance], code: str) -> tuple[str, tuple[str, ...]] | None:
    cases = [(i, words) for i in members for c, words in i.notes if c == code]
    if not cases:
        return None
    files = tuple(dict.fromkeys(paths_of([i for i, _ in cases])))
    many = f" (so or alike in {len(files)} of {len(members)} files)" if len(files) > 1 else ""
    return f"{'; '.join(w for i, w in cases if i is cases[0][0])}{many}.", files


def _split(members: list[Instance], rules: Rules) -> list[list[Slice]]:
    """Split what can never share a grid; the frames of all files are images alike."""
    images = sorted((Slice(i, f) for i in members for f in i.frames), key=_grid_key)
    stacks: list[list[Slice]] = []
    homes: dict[tuple[object, ...], list[Slice]] = {}
    for part in images:
        look = _look(part)
        home = homes.get(look)
        if home is None:
            home = next((s for s in stacks if _shares_grid(s[0], part, rules)), None)
            if home is None:
                stacks.append(home := [])
            homes[look] = home
        home.append(part)
    return stacks


def _grid_key(part: Slice) -> tuple[object, ...]:
    frame = part.frame
    return frame.orientation or (), frame.pixel_spacing or (), part.instance.uid, frame.index, frame.corner


def _shares_grid(one: Slice, other: Slice, rules: Rules) -> bool:
    a, b = one.instance, other.instance
    for of in (_kind, has_position, _refused, _colour_type):
        if of(one) != of(other):
            return False
    shapes = ((i.rows, i.columns, i.pixels.samples_per_pixel, i.is_colour, i.sop_class_uid) for i in (a, b))
    return (
        len(set(shapes)) == 1
        and _close(one.frame.orientation, other.frame.orientation, atol=rules.tolerances.orientation_atol)
        and _close(one.frame.pixel_spacing, other.frame.pixel_spacing, rtol=rules.tolerances.pixel_spacing_rtol)
    )


def _look(part: Slice) -> tuple[object, ...]:
    """Return all that images are compared in; most of a series are alike in it, and need no comparison."""
    i, f = part.instance, part.frame
    place = f.position is None, f.orientation, f.pixel_spacing
    shared = id(i.pixels), id(f.lookup), id(i.palette), id(i.segments)
    return (*place, *shared, f.values, i.image_type, i.sop_class_uid, i.refusal, i.tile)


def _refused(part: Slice) -> str:
    return refusal_of([part])


def _colour_type(part: Slice) -> str:
    """Return the type of colours: the brightest of 8 bits is nearly black among those of 16."""
    return value_dtype([part]).name if part.instance.is_colour else ""


def _is_beside(part: Slice) -> bool:
    """Whether an image lies beside a volume, however many there are: a localizer, a capture, a picture in colour."""
    return (
        part.instance.is_colour
        or _kind(part) == "LOCALIZER"
        or part.instance.sop_class_uid.startswith(_SECONDARY_CAPTURE)
    )


def _kind(part: Slice) -> str:
    """Return what never belongs into a volume with others: a localizer, a mosaic."""
    return next((w for w in ("LOCALIZER", "MOSAIC", "VFRAME") if w in part.image_type), "")


def _close(one: Sequence[float] | None, other: Sequence[float] | None, *, rtol: float = 0.0, atol: float = 0.0) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= atol + rtol * abs(a) for a, b in zip(one, other, strict=True))


def _stacks_finding(stacks: list[Stack]) -> Finding:
    kinds = [f"{n}: {'x'.join(map(str, s.shape))} {s.geometry.orientation}".strip() for n, s in enumerate(stacks)]
    message = (
        f"the series holds {len(stacks)} grids that cannot be one volume ({'; '.join(kinds[:8])}"
        f"{'; ...' if len(kinds) > 8 else ''}). Stack 0 opens; stack= opens another, open_stacks all."
    )
    return finding("several-stacks", message, values=(len(stacks),))


def _make_stacks(uid: str, parts: list[Slice], findings: tuple[Finding, ...], rules: Rules) -> list[Stack]:
    """Return the images as one stack, or as several if a soft tag parts them into grids without gaps."""
    if refusal_of(parts):
        return [make_stack(uid, parts, findings, rules)]
    if is_layered(parts):
        return [make_layers(uid, parts, findings, rules.tolerances)]
    whole = make_stack(uid, parts, findings, rules)
    if is_labelled(whole):
        return [with_planes_between(whole, rules.tolerances)]
    if not has_position(parts[0]) or not _is_gappy(whole):
        return [whole]
    for keyword in _SOFT_TAGS:
        by_value: dict[str, list[Slice]] = defaultdict(list)
        for part in parts:
            by_value[_soft_value(part, keyword)].append(part)
        if not 1 < len(by_value) <= max(2, len(parts) // 3):
            continue
        stacks = [make_stack(uid, members, findings, rules) for _, members in sorted(by_value.items())]
        if not any(map(_is_gappy, stacks)) and max(len(s.slices) for s in stacks) > 2:
            return stacks
    return [whole]


def _is_gappy(stack: Stack) -> bool:
    doubtful = GAP_CODES | {"incomplete-grid", "axis-from-instance-number"}
    return bool(stack.refusal) or any(f.code in doubtful for f in stack.findings)


def _soft_value(part: Slice, keyword: str) -> str:
    if keyword == "FrameOfReferenceUID":
        return part.instance.frame_of_reference_uid
    return repr(part.values.get(keyword))
