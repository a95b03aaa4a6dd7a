"""One measurement in a process of its own: ``python worker.py ROW COMPETITOR FOLDER`` prints JSON.

It imports, works once on a series of two files, and then takes the time of the work once. Memory is the peak of the
timed part above what the process held before it; CPU time and memory of its own worker processes count.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from place import Place
from rows import ROWS


def main() -> None:
    row, competitor, folder = sys.argv[1:]
    print(json.dumps(measure(row, competitor, Path(folder))))


def measure(row: str, competitor: str, folder: Path) -> dict[str, Any]:
    """Return the figures of one competitor at one piece of work, or why there are none."""
    about, make = ROWS[row], ROWS[row].works[competitor]
    warm, place = Place(folder / "warm"), Place(folder / "work")
    if row == "frame" and not Path(place.enhanced).exists():
        return {"absent": "not installed (highdicom, which makes the file)"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            about.check(make(warm)(), warm)
            work = make(place)
            place.truth  # noqa: B018  # read before the time is taken
            gc.collect()
            figures, answer = timed(work)
            return {**figures, "check": about.check(answer, place)}
    except ImportError as error:
        return {"absent": f"not installed ({error.name})"}
    except Exception as error:
        traceback.print_exc()
        return {"absent": f"failed: {type(error).__name__}"}


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Return time, CPU time and memory of a piece of work, and its answer."""
    before = _memory(reset=True)
    cpu, start = _cpu(), time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - start
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _UNIT / 1e6
    peak = _memory(reset=False)
    return {
        "ms": seconds * 1e3,
        "cpu_ms": (_cpu() - cpu) * 1e3,
        "peak_mb": max(peak - before, 0.0),
        "child_mb": children,
    }, answer


_UNIT = 1 if sys.platform == "darwin" else 1024


def _cpu() -> float:
    """Return the CPU time of the process and of the ended ones that it started, s."""
    spent = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _memory(*, reset: bool) -> float:
    """Return what the process holds (and begin a new peak), or the peak since then, MB."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        what = "VmRSS" if reset else "VmHWM"
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 1e6


if __name__ == "__main__":
    main()
