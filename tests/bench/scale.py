"""Whether cost grows with the work and no faster: many small files indexed, large volumes reduced and saved.

Run by ``nox -s bench -- scale``, or alone: ``python tests/bench/scale.py``. It makes one size after the other and
removes it again; 10 GB of volume and its store need some 14 GB of disk and take minutes. ``--files 100,1000`` and
``--gigabytes 0.3,1`` choose sizes, ``--rounds`` how often each is measured. Each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from data import Header, write_series
from report import machine
from worker import timed

EDGE, SMALL = 512, 32
IN_A_SERIES = 1000
"""Most files in a folder of small ones."""


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder to make the data in; a temporary one without")
    parser.add_argument("--files", type=_numbers, default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--gigabytes", type=_numbers, default=[0.3, 1, 3, 10])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    print(f"\n| files | index s | us per file | CPU us per file | peak MB | KB per file |\n|{' --- |' * 6}")
    for count in map(int, options.files):
        with _made(options.data, lambda folder, n=count: write_many(folder, n)) as folder:
            found = _medians("index", folder, options.rounds)
        assert found["answer"] == count, found
        each, cpu, kilobytes = (1e3 * found[figure] / count for figure in ("ms", "cpu_ms", "peak_mb"))
        cells = f"{found['ms'] / 1e3:.3f} | {each:.0f} | {cpu:.0f} | {found['peak_mb']:.0f} | {kilobytes:.2f}"
        print(f"| {count} | {cells} |", flush=True)
    print(f"\n| GB | work | s | s per GB | CPU s per GB | peak MB |\n|{' --- |' * 6}")
    for gigabytes in options.gigabytes:
        count = max(2, round(gigabytes * 1e9 / (2 * EDGE * EDGE)))
        with _made(options.data, lambda folder, n=count: write_large(folder, n)) as folder:
            for what in ("mean", "save"):
                found = _medians(what, folder, options.rounds)
                seconds, cpu = found["ms"] / 1e3, found["cpu_ms"] / 1e3
                cells = f"{seconds:.2f} | {seconds / gigabytes:.2f} | {cpu / gigabytes:.2f} | {found['peak_mb']:.0f}"
                print(f"| {gigabytes:g} | {what} | {cells} |", flush=True)


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",") if word]


@contextmanager
def _made(parent: str | None, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make data to work on, and two files to warm up on; remove both in the end."""
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=parent))
    try:
        write_series(folder / "warm", 2, 64, seed=0)
        (folder / "work").mkdir()
        make(folder / "work")
        yield folder
    finally:
        shutil.rmtree(folder)


def write_many(folder: Path, count: int) -> None:
    """Write small slices, so many to a series and a folder."""
    pixels = np.arange(SMALL * SMALL, dtype="<i2").tobytes()
    for n, first in enumerate(range(0, count, IN_A_SERIES)):
        series, header = folder / f"{n:03d}", Header(n, SMALL)
        series.mkdir()
        total = min(IN_A_SERIES, count - first)
        for k, name in enumerate(np.random.default_rng(n).permutation(total)):
            (series / f"IM{name:06d}").write_bytes(header.encoded(k, total) + pixels)


def write_large(folder: Path, count: int) -> None:
    """Write one series of large slices, with pixels that cost little to make."""
    random, header = np.random.default_rng(0), Header(0, EDGE)
    smooth = (1024 + 400 * np.sin(np.arange(EDGE) / 40)).astype(np.float32)
    pixels = [(smooth + random.normal(0, 8, (EDGE, EDGE))).astype("<i2").tobytes() for _ in range(7)]
    for k, name in enumerate(random.permutation(count)):
        (folder / f"IM{name:06d}").write_bytes(header.encoded(k, count) + pixels[k % 7])


def _medians(what: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Return the median of each figure."""
    command = [sys.executable, __file__, "measure", what, str(folder)]
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        for _ in range(rounds)
    ]
    return {key: statistics.median(each[key] for each in found) for key in found[0]}


def measure(what: str, folder: str) -> dict[str, Any]:
    """Return the figures of one piece of work, after the same on two files."""
    works = {"index": _index, "mean": _mean, "save": _save}
    works[what](f"{folder}/warm")
    figures, answer = timed(lambda: works[what](f"{folder}/work"))
    shutil.rmtree(f"{folder}/work.zarr", ignore_errors=True)
    return {**figures, "answer": answer}


def _index(folder: str) -> int:
    import lazyvol as lv

    series = lv.group_series(lv.scan_headers(folder).instances)
    return sum(len(stack.slices) for each in series for stack in each.stacks)


def _mean(folder: str) -> float:
    import lazyvol as lv

    return float(lv.open_volume(folder).mean())


def _save(folder: str) -> float:
    import lazyvol as lv

    lv.save_zarr(lv.open_volume(folder), f"{folder}.zarr", overwrite=True)
    return 0.0


if __name__ == "__main__":
    main()
