"""What was measured, as a table: to read in a terminal, and for the page on performance."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import limits
from place import Row

__all__ = ["Result", "as_markdown", "as_text", "machine", "put_between"]

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HEADS = ("competitor", "ratio", "min/min", "CPU ratio", "at most", "ms", "CPU ms", "peak MB", "rounds", "answer")
PACKAGES = (
    "lazyvol numpy dask xarray zarr numcodecs imagecodecs pydicom imageio SimpleITK highdicom dicomsdl python-gdcm "
    "tensorstore ngff-zarr ome-zarr"
)


@dataclass(frozen=True)
class Result:
    """One row, measured."""

    key: str
    row: Row
    rounds: tuple[dict[str, dict[str, Any]], ...]
    """Figures by competitor, round by round."""

    absent: dict[str, str]
    """Why a competitor has none."""

    def of(self, competitor: str, figure: str) -> list[float]:
        """Return one figure of one competitor, of each of its rounds."""
        return [each[competitor][figure] for each in self.rounds if competitor in each]

    def of_ours(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the measurements of the limit and of lazyvol, and failures of theirs as wrong answers."""
        for each in self.rounds:
            yield from ((c, m) for c, m in each.items() if c.startswith(("limit", "lazyvol")))
        for competitor, why in self.absent.items():
            if competitor.startswith(("limit", "lazyvol")) and why.startswith("failed"):
                yield competitor, {"check": why}

    def lines(self) -> list[tuple[str, ...]]:
        """Return the cells of each competitor: limit, lazyvol, and the others from the fastest to the slowest."""
        named = [c for c in self.row.works if self.of(c, "ms")]
        rivals = sorted((c for c in named if not _ours(c)), key=lambda c: statistics.median(self.of(c, "ms")))
        lines = [self._line(c) for c in [*filter(_ours, named), *rivals]]
        return lines + [(c, *[""] * (len(HEADS) - 2), why) for c, why in self.absent.items()]

    def _line(self, competitor: str) -> tuple[str, ...]:
        ms, base = self.of(competitor, "ms"), self.of("limit", "ms")
        both = [r for r in self.rounds if competitor in r and "limit" in r]
        ratios, cpu = ([r[competitor][f] / r["limit"][f] for r in both] for f in ("ms", "cpu_ms"))
        return (
            competitor,
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{min(ms) / min(base):.2f}" if base else "",
            f"{statistics.median(cpu):.2f}" if cpu else "",
            f"{self.row.at_most[competitor]:g}" if competitor in self.row.at_most else "",
            f"{statistics.median(ms):.1f}",
            f"{statistics.median(self.of(competitor, 'cpu_ms')):.0f}",
            self._memory(competitor),
            str(len(ms)),
            "; ".join(sorted(set(self.of(competitor, "check")))),  # type: ignore[type-var]
        )

    def _memory(self, competitor: str) -> str:
        own, children = (statistics.median(self.of(competitor, f)) for f in ("peak_mb", "child_mb"))
        most = self.row.memory_at_most.get(competitor)
        return (
            f"{own:.0f}"
            + (f" + {children:.0f} of a child" if children else "")
            + (f" (at most {most:g})" if most else "")
        )


def _ours(competitor: str) -> bool:
    return competitor.startswith(("limit", "lazyvol"))


def as_text(result: Result) -> str:
    """Return a table for a terminal."""
    lines = [HEADS, *result.lines()]
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEADS))]
    rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([f"\n{result.key}: {result.row.title}", f"limit: {result.row.limit}", *rows])


def as_markdown(results: Iterable[Result], starting: str, arguments: Sequence[str]) -> str:
    """Return all tables, with the command, the date and the machine."""
    parts = [
        f"`{' '.join(['python tests/bench/run.py', *_without_places(arguments)])}`, {datetime.now(UTC):%Y-%m-%d}.",
        machine(),
        starting,
    ]
    for result in results:
        rows = [HEADS, tuple("---" for _ in HEADS), *result.lines()]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
        parts.append(
            f"**{result.row.title[0].upper()}{result.row.title[1:]}**\n\nLimit: {result.row.limit}.\n\n{table}"
        )
    return "\n\n".join(parts)


def _without_places(arguments: Sequence[str]) -> list[str]:
    """Leave out options that say where things go and which part is run."""
    kept, skip = [], False
    for word in arguments:
        if not skip and word not in _ELSEWHERE:
            kept.append(word)
        skip = word in _ELSEWHERE
    return kept


_ELSEWHERE = ("--data", "--results", "--markdown", "--rows")


def machine() -> str:
    """Return cores, memory and versions; neither names nor paths."""
    model, memory = platform.machine(), ""
    if Path("/proc/cpuinfo").exists():
        found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = found[0].partition(":")[2].strip() if found else model
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    versions = ", ".join(f"{name} {v}" for name in PACKAGES.split() if (v := _version(name)))
    return (
        f"{os.cpu_count()} cores ({model}){memory}, {platform.system()}, Python {platform.python_version()}; "
        f"loops of the limits in {limits.LANGUAGE}. {versions}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def put_between(page: Path, text: str) -> None:
    """Replace what stands between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{page} lacks the lines {BEGIN} and {END}, between which the table goes.")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
