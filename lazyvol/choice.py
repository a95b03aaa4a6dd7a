"""Which stack of which series a source means, and whether it can be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from lazyvol.codecs import missing_decoder, syntax_name
from lazyvol.errors import (
    DicomReadError,
    Finding,
    FindingError,
    NoImagesError,
    OptionError,
    PixelReadError,
    SeriesChoiceError,
    UnsupportedSeriesError,
    finding,
)
from lazyvol.frames import read_frames
from lazyvol.meaning import Values, padding_of, with_values
from lazyvol.media import is_index
from lazyvol.records import Skipped, Slice
from lazyvol.rescale import Scale
from lazyvol.scan import Scan, Source, is_dataset, is_folder, scan_headers
from lazyvol.series import Series, group_series
from lazyvol.sources import FrameSource, FrameSources, FrameTable
from lazyvol.stacks import Rules, Stack, with_filled_gaps
from lazyvol.values import value_dtype

__all__ = [
    "Duplicates",
    "Missing",
    "OnError",
    "absolute_path",
    "choose_series",
    "find_stack",
    "findings_of_scan",
    "frame_source",
    "require_clean",
    "require_known",
    "require_readable",
    "scan_source",
    "unreadable_finding",
]

Missing = Literal["warn", "raise", "fill"]
Duplicates = Literal["raise", "first", "axis"]
OnError = Literal["raise", "fill"]


def find_stack(
    source: Source,
    rules: Rules,
    *,
    series: str | int | None,
    stack: int,
    siblings: bool,
    missing: Missing,
    strict: bool,
    values: str = "rescaled",
    rescale: bool = True,
    on_error: str = "raise",
) -> tuple[Stack, tuple[Finding, ...]]:
    """Return the stack that was asked for, and all findings on it."""
    require_known(missing=missing, duplicates=rules.duplicates, on_error=on_error, values=values)
    scan = scan_source(source, siblings, allow_short=on_error == "fill")
    chosen = _choose_stack(choose_series(group_series(scan.instances, rules), series, source), stack)
    require_readable(chosen)
    chosen = with_values(chosen, values, rescale=rescale)
    if missing == "fill":
        chosen = with_filled_gaps(chosen, rules.tolerances)
    filled = _filled_findings() if on_error == "fill" else []
    findings = (*chosen.findings, *findings_of_scan(scan), *_compared(chosen.left_out), *filled)
    require_clean(findings, missing=missing, strict=strict)
    return chosen, findings


def _filled_findings() -> list[Finding]:
    message = (
        "frames that cannot be read are filled, with a warning where they are read; save_zarr names the slices in a "
        "finding of its own."
    )
    return [finding("fill-on-error", message)]


_WORDS = {
    "missing": get_args(Missing),
    "duplicates": get_args(Duplicates),
    "on_error": get_args(OnError),
    "values": get_args(Values),
}
"""Options of `open_volume` that are one of some words."""


def require_known(**options: Any) -> None:
    """Raise if an option of `open_volume` is none of its words; others are not looked at."""
    for name, value in options.items():
        if value not in _WORDS.get(name, (value,)):
            raise OptionError(f"{name}={value!r} is not known; it can be {', '.join(map(repr, _WORDS[name]))}.")


def _compared(pairs: tuple[tuple[Slice, Slice], ...]) -> list[Finding]:
    """Compare the pixels of images that were left out with those that were kept."""
    differ = []
    for left, kept in pairs:
        if value_dtype([left]) != value_dtype([kept]):
            differ.append(left)
            continue
        sources = FrameSources([frame_source(left, ""), frame_source(kept, "")])
        table = FrameTable("", sources, value_dtype([left]).name, samples=3 if left.instance.is_colour else 1)
        pixels = left.instance.pixels
        one, other = read_frames(table, [0, 1], np.arange(pixels.rows), np.arange(pixels.columns))
        if not np.array_equal(one, other):
            differ.append(left)
    notes = []
    equal = len(pairs) - len(differ)
    if equal:
        message = f"{equal} images repeat another at their position, pixel by pixel; each was used once."
        notes.append(finding("copies-dropped", message, values=(equal,)))
    if differ:
        message = (
            f"{len(differ)} images were left out at a position where another has the lower InstanceNumber, and their "
            "pixels differ from it. duplicates='axis' keeps both."
        )
        files = tuple(s.instance.path for s in differ)
        notes.append(finding("duplicates-differ", message, files=files, values=(len(differ),)))
    return notes


def scan_source(source: Source, siblings: bool, *, allow_short: bool = False) -> Scan:
    """Return the headers of a source: of a single file alone, or of its whole series; raise if there is no image.

    A single file that is cut short raises too, unless that is allowed.
    """
    if not isinstance(source, str | os.PathLike):
        source = [source] if is_dataset(source) else list(source)  # type: ignore[assignment]  # a dataset is no list, though it can be iterated
        scan = scan_headers(source)
    elif os.path.isfile(os.path.join(source, "zarr.json")):
        raise NoImagesError(f"{os.fspath(source)} is a Zarr store, not DICOM. open_zarr opens it.")
    elif not is_folder(os.fspath(source)) and not is_index(os.fspath(source)):
        scan = _scan_one(os.fspath(source), siblings, allow_short)
    else:
        scan = scan_headers(source)
    if not scan.instances:
        reasons = Counter(s.reason for s in scan.skipped)
        found = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(4))
        where = os.fspath(source) if isinstance(source, str | os.PathLike) else "the list"
        raise NoImagesError(f"{where} holds no DICOM image in {len(scan.skipped)} files ({found}).")
    return scan


def _scan_one(path: str, siblings: bool, allow_short: bool) -> Scan:
    scan = scan_headers(path)
    if scan.skipped:
        raise DicomReadError(f"{path}: {scan.skipped[0].reason}. Give a DICOM image, or the folder of a series.")
    alone = scan.instances[0]
    if alone.short_frames and not siblings and not allow_short:
        lacking = f"{alone.missing_bytes} bytes of pixels are missing" if alone.missing_bytes else "pixels are missing"
        many = f" of {len(alone.short_frames)} of its {len(alone.frames)} frames" if len(alone.frames) > 1 else ""
        raise PixelReadError(f"{path} is cut short: {lacking}{many}. Copy the file again.")
    if not siblings:
        return scan
    around = scan_headers(os.path.dirname(path) or ".", recursive=False)
    return Scan(tuple(i for i in around.instances if i.series_uid == alone.series_uid), around.skipped)


def choose_series(found: tuple[Series, ...], series: str | int | None, source: Source) -> Series:
    """Return the one series that fits; raise with the list if none or several do."""
    if series is None:
        fitting = found
    else:
        fitting = tuple(s for s in found if series in (s.uid, s.number, s.description) or str(s.number) == series)
    if len(fitting) == 1:
        return fitting[0]
    where = os.fspath(source) if isinstance(source, str | os.PathLike) else "the list"
    listing = "\n".join(f"  {_describe(s)}" for s in (fitting or found)[:20])
    more = f"\n  ... and {len(found) - 20} more" if len(fitting or found) > 20 else ""
    asked = (
        ""
        if series is None
        else f" that fit series={series!r}"
        if fitting
        else f", none of which fits series={series!r}"
    )
    raise SeriesChoiceError(
        f"{where} holds {len(fitting or found)} series{asked}:\n{listing}{more}\nChoose one with series= its UID, "
        "number or description."
    )


def _describe(series: Series) -> str:
    count = sum(len(s.slices) for s in series.stacks)
    number = "-" if series.number is None else series.number
    return f"number {number}, {series.modality}, {count} images, {series.description!r}, UID {series.uid}"


def _choose_stack(series: Series, stack: int) -> Stack:
    if not 0 <= stack < len(series.stacks):
        raise SeriesChoiceError(f"stack={stack} does not exist: the series has stacks 0 to {len(series.stacks) - 1}.")
    return series.stacks[stack]


def require_readable(stack: Stack) -> None:
    """Raise if a stack does not open as a volume, or its frames cannot be decoded here."""
    first = stack.slices[0].instance
    if stack.refusal:
        raise UnsupportedSeriesError(f"the series of {first.path} does not open: {stack.refusal}.")
    encoded = (s for s in stack.slices if s.frame.length is None or not s.instance.pixels.is_native)
    for syntax in {s.instance.pixels.transfer_syntax_uid for s in encoded}:
        why = missing_decoder(syntax)
        if why:
            path = next(s.instance.path for s in stack.slices if s.instance.pixels.transfer_syntax_uid == syntax)
            raise UnsupportedSeriesError(
                f"{path} is encoded as {syntax_name(syntax)}, which cannot be decoded here: {why}."
            )


def findings_of_scan(scan: Scan) -> list[Finding]:
    """Return what is odd about the files that were left out."""
    damaged = [s for s in scan.skipped if s.damaged]
    return [unreadable_finding(damaged)] if damaged else []


def unreadable_finding(damaged: Sequence[Skipped]) -> Finding:
    """Return the finding that files may lack in a volume, since they cannot be read."""
    message = (
        f"{len(damaged)} files could not be read and are not in the volume ({damaged[0].reason}). Copy them again if "
        "they belong to it."
    )
    return finding("files-unreadable", message, files=tuple(s.path for s in damaged), values=(len(damaged),))


def require_clean(findings: Sequence[Finding], *, missing: str, strict: bool) -> None:
    """Raise if a volume has findings that the options of `open_volume` do not allow."""
    gaps = [f for f in findings if f.code in {"missing-slices", "uneven-spacing"}] if missing == "raise" else []
    odd = [f for f in findings if f.severity != "info"] if strict else []
    for why, found in (("missing='raise'", gaps), ("strict=True", odd)):
        if found:
            lines = "\n".join(f"  {f}" + (f" First file: {f.files[0]}" if f.files else "") for f in found)
            count = f"{len(found)} finding{'s' if len(found) > 1 else ''}"
            raise FindingError(f"{why}, and the series has {count}:\n{lines}")


def absolute_path(path: str) -> str:
    """Return a path that holds wherever it is used later; URLs and datasets stay as they are."""
    return path if "://" in path or path.startswith("dataset[") else os.path.abspath(path)


def frame_source(
    part: Slice, root: str, window: tuple[int, int, int] | None = None, *, mask_padding: bool = False
) -> FrameSource:
    """Return where the frame of a slice lies, its file in the folder ``root`` if that is given.

    A window of first row, first column and number of columns is that part of the image. With
    ``mask_padding``, stored numbers that are padding become NaN.
    """
    instance, frame = part.instance, part.frame
    tile = (*frame.corner, instance.tile[1] if instance.tile else 0)
    row, column, columns = tile if window is None else window
    return FrameSource(
        name=os.path.basename(instance.path) if root else absolute_path(instance.path),
        index=frame.index,
        count=1 if instance.tile else len(instance.frames),
        offset=frame.offset,
        length=frame.length,
        pixels=instance.pixels,
        scale=_scale(part, mask_padding),
        content=instance.content,
        corner=(row, column),
        columns=columns,
        modified=0 if "://" in instance.path else instance.modified,
        inflated_from=instance.inflated_from,
    )


def _scale(part: Slice, mask_padding: bool) -> Scale:
    """Return what the stored numbers of a slice become."""
    frame = part.frame
    if part.instance.is_colour:
        return Scale(lookup=part.instance.palette)
    padding = padding_of(part) if mask_padding else None
    return _shared_scale(frame.slope, frame.intercept, frame.lookup, frame.limits, padding)


@lru_cache(maxsize=256)
def _shared_scale(*fields: Any) -> Scale:
    """Return one object for equal scales, so that thousands of frames share it."""
    return Scale(*fields)
