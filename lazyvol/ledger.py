"""What became of each series of a conversion: a file of JSON lines beside the stores, to which lines are only added.

The first line of each run tells options and versions, the others one series each; the last line of a series counts. A
line that was cut off by the end of its writer is none.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lazyvol.errors import StoreError

__all__ = ["LEDGER", "OURS", "TABLE", "Ledger"]

LEDGER = "index.jsonl"
TABLE = "index.csv"
"""The same for those who read no JSON, written at the end."""
OURS = frozenset({LEDGER, TABLE, "lazyvol.lock"})
"""What lies beside the stores of a conversion."""

Record = dict[str, Any]


@dataclass(slots=True)
class Ledger:
    """What a folder of stores says of them."""

    folder: str
    """Where the stores lie."""

    run: Record = field(default_factory=dict)
    """What the last run was: versions, options, how many series."""

    series: dict[str, Record] = field(default_factory=dict)
    """By name of the store: its row of the table, and what became of it."""

    @classmethod
    def read(cls, folder: str) -> Ledger:
        """Return what is there, empty if nothing is."""
        found = cls(folder)
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            open(found.path, encoding="utf-8", errors="replace") as file,
        ):
            for line in file:
                with suppress(ValueError):
                    found._take(json.loads(line))
        return found

    @property
    def path(self) -> str:
        """Its file."""
        return os.path.join(self.folder, LEDGER)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a line: of a series if it has a name, else of a run."""
        line = json.dumps(_without_nan(record), default=list, allow_nan=False)
        try:
            with open(self.path, "a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # of a writer that was stopped
                        file.write(b"\n")
                file.write(f"{line}\n".encode())
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror or error}. Make room, or mend that, and call again: "
                "what is done is not done again."
            ) from error
        self._take(json.loads(line))

    def _take(self, record: Any) -> None:
        if isinstance(record, dict) and isinstance(record.get("name"), str):
            self.series[record["name"]] = record
        elif isinstance(record, dict) and "lazyvol" in record:
            self.run = record

    def counts(self) -> dict[str, int]:
        """Return how many series are done, failed and yet to come, and how many were done and have no store now."""
        done = [name for name, r in self.series.items() if r.get("status") == "done"]
        lost = sum(not os.path.exists(os.path.join(self.folder, f"{name}.zarr", "zarr.json")) for name in done)
        failed = sum(r.get("status") == "failed" for r in self.series.values())
        left = max(0, int(self.run.get("series", 0)) - len(done) - failed)
        return {"done": len(done) - lost, "failed": failed, "to come": left} | ({"lost": lost} if lost else {})


def _without_nan(value: Any) -> Any:
    """Return what JSON has words for: null for NaN, as in the spacing of slices that are uneven."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    return [_without_nan(v) for v in value] if isinstance(value, list | tuple) else value
