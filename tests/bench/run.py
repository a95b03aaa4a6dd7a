"""lazyvol beside its rivals and beside the limit: ratios of times, peak memory, and whether the answers are right.

Run by ``nox -s bench``, or alone in an environment with the group ``bench``: ``python tests/bench/run.py``.
``--rows index,slice --only limit,lazyvol`` measures a part in a minute. Every measurement is a process of its own;
rounds are interleaved (A B C A B C), and each ratio is taken within its round. The page cache is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import limits
from data import Sizes, make_data
from place import Place
from report import Result, as_markdown, as_text, put_between
from rows import ROWS
from stores import make_stores

WORKER = Path(__file__).with_name("worker.py")
TINY = Sizes(slices=4, edge=32, series=2, images=3, small=16)
HEAVY_ROUNDS = 3


def main() -> None:
    options = _options()
    holder: AbstractContextManager[str] = (
        nullcontext(options.data) if options.data else tempfile.TemporaryDirectory(prefix="bench-")
    )
    with holder as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        make_data(folder, TINY if options.tiny else Sizes())
        limits.load(folder)
        results = []
        for key in options.rows:
            results.append(_right(_row(key, folder, options)))
            if options.results:
                _kept(options.results, results[-1:])
        starting = _start(options.rounds)
    print(f"\n{starting}")
    if options.results:
        results = _kept(options.results, [])
    if options.markdown:
        put_between(options.markdown, as_markdown(results, starting, sys.argv[1:]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder to keep the data in, 0.8 GB; a temporary one without")
    parser.add_argument("--rows", type=_words, default=list(ROWS), help=f"of {','.join(ROWS)}")
    parser.add_argument("--only", type=_words, default=[], help="competitors by how their names begin: limit,lazyvol")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=Path, help="file that keeps figures, to make one table of rows run in parts")
    parser.add_argument("--markdown", type=Path, help="page to put the table in")
    parser.add_argument("--tiny", action="store_true", help="four small slices, to see that all runs")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return options


def _words(text: str) -> list[str]:
    return text.split(",")


def _right(result: Result) -> Result:
    """Stop unless all answers of the limit and of lazyvol are right."""
    wrong = {f"{result.key}: {c}: {m['check']}" for c, m in result.of_ours() if not m["check"].startswith("ok")}
    if wrong:
        raise SystemExit("an answer of ours is wrong:\n" + "\n".join(sorted(wrong)))
    return result


def _row(key: str, folder: Path, options: argparse.Namespace) -> Result:
    """Measure one row, round by round, and print it."""
    row = ROWS[key]
    chosen = [c for c in row.works if not options.only or c.startswith(tuple(options.only))]
    if key == "coronal":
        for place in (Place(folder / "warm"), Place(folder / "work")):
            make_stores(place)
    _warm_cache(folder)
    rounds: list[dict[str, dict[str, Any]]] = []
    absent: dict[str, str] = {}
    for number in range(options.rounds):
        rounds.append({})
        for competitor in chosen:
            if competitor in absent or (competitor in row.heavy and number >= HEAVY_ROUNDS):
                continue
            found = measured(key, competitor, folder)
            if "absent" in found:
                absent[competitor] = found["absent"]
            else:
                rounds[-1][competitor] = found
    result = Result(key, row, tuple(rounds), absent)
    print(as_text(result), flush=True)
    return result


def _kept(file: Path, results: list[Result]) -> list[Result]:
    """Put results into a file in the place of older ones of the same rows; return all that it has."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept |= {result.key: {"rounds": result.rounds, "absent": result.absent} for result in results}
    file.write_text(json.dumps(kept))
    return [
        Result(key, row, tuple(kept[key]["rounds"]), kept[key]["absent"]) for key, row in ROWS.items() if key in kept
    ]


def measured(row: str, competitor: str, folder: Path) -> dict[str, Any]:
    """Return what a fresh process measures."""
    command = [sys.executable, str(WORKER), row, competitor, str(folder)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its threads would spin beside what is measured
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines and not done.returncode else {"absent": "failed: no answer"}
    if found.get("absent", "").startswith("failed"):
        print(f"{row}, {competitor}:\n{done.stderr}", file=sys.stderr)
    return found


def _start(rounds: int) -> str:
    """Return how long Python, the import of lazyvol and its command line take, in processes of their own."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "python -c 'import lazyvol'": ["-c", "import lazyvol"],
        "lazyvol --help": ["-m", "lazyvol", "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, words in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            taken[name].append(1e3 * (time.perf_counter() - start))
    medians = (f"`{name}` {statistics.median(ms):.0f} ms" for name, ms in taken.items())
    return f"Start to end of a process: {', '.join(medians)}."


def _warm_cache(folder: Path) -> None:
    for path in _files(folder):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 22):
                pass


def _files(folder: Path) -> Iterable[str]:
    return (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)


if __name__ == "__main__":
    main()
