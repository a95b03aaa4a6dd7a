"""Collections as stores: one for each grid, and beside them what became of each."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from inspect import signature
from typing import Any

import zarr

from lazyvol.errors import LazyvolError, OptionError, StoreError
from lazyvol.inventory import Entry, open_entry, row_to_save, short_name, sizes_of
from lazyvol.ledger import TABLE, Ledger, Record
from lazyvol.lock import await_silence, locked
from lazyvol.opened import lazy_store
from lazyvol.place import LocalPlace
from lazyvol.privacy import Identifiers, using_key
from lazyvol.store import require_own, save_zarr
from lazyvol.work import each_result, reason_of

__all__ = ["LEFT_OUT", "OUTCOME", "SETTLED", "convert", "require_options"]

LEFT_OUT = frozenset({"source", "series", "stack", "siblings", "like"})
"""Arguments of `open_volume` that a collection settles."""
SETTLED = frozenset({"volume", "store", "group", "overwrite", "compute", "progress", "identifiers"})
"""Arguments of `save_zarr` that a conversion settles."""

OUTCOME = ("status", "reason", "seconds", "bytes_written", "content")
"""What is said of a series beside its row: done, failed or left out; why; how long; how much; its checksum."""


def convert(
    entries: Sequence[Entry],
    out: str,
    *,
    identifiers: Identifiers,
    options: Mapping[str, Any],
    choices: Mapping[str, Any],
    key: bytes,
    client: Any,
    on_error: str,
    progress: bool,
) -> list[Record]:
    """Save each entry as a store of its own in a folder, and return what became of each, in the order given.

    Parameters
    ----------
    entries
        What is saved; those that do not open are recorded as failed.
    out
        The folder. What an earlier run has done there is not done again, where files and options are the same.
    identifiers
        As for `save_zarr`.
    options, choices
        Of `save_zarr`, and of `open_volume`.
    key
        The user's, under which identifiers are replaced.
    client
        A cluster that does it, or None.
    on_error
        ``"record"``, or ``"raise"`` at the first series that fails.
    progress
        Show a bar.
    """
    if "://" in out or os.path.exists(os.path.join(out, "zarr.json")) or os.path.isfile(out):
        raise StoreError(f"{out} is no folder for stores. Give a folder on disk, which is made if it is absent.")
    with locked(out):
        ledger = Ledger.read(out)
        told_key = short_name("the key", key)
        if ledger.run.get("key", told_key) != told_key:
            raise StoreError(
                f"{out} was made under another key, so its stores have other names. Set LAZYVOL_KEY to that key, or "
                "give another folder."
            )
        asked = {"identifiers": identifiers, "saving": dict(options), "opening": dict(choices)}
        ledger.add({"lazyvol": version("lazyvol"), "options": _plain(asked), "series": len(entries), "key": told_key})
        stamp = json.dumps(_plain(asked), sort_keys=True)
        told: dict[int, Record] = {}
        tasks = []
        for n, entry in enumerate(entries):
            row = _row(entry, identifiers, key) | {"stamp": _stamp(entry, stamp, key), "source": _stamp(entry, "", key)}
            before = ledger.series.get(row["name"], {})
            if before.get("status") == "done" and before.get("stamp") == row["stamp"] and _is_whole(out, row["name"]):
                told[n] = before
            else:
                told[n] = row
                tasks.append((n, entry))
        with _bar(entries, progress) as bar:
            bar.done([entries[n] for n, r in told.items() if "status" in r])
            saving = {"identifiers": identifiers, **options}
            work = []
            for n, entry in tasks:
                path = os.path.join(out, f"{told[n]['name']}.zarr")
                before = ledger.series.get(told[n]["name"], {})
                stale = before.get("status") == "done" and before.get("source") != told[n]["source"]
                work.append((entry, path, saving, dict(choices), key, stale))
            failures: list[BaseException] = []
            for k, outcome in each_result(_save, work, client):
                n, entry = tasks[k]
                failed = isinstance(outcome, BaseException)
                failures += [outcome] * failed
                hidden = [*entry.paths, *map(os.path.basename, entry.paths), os.path.dirname(entry.paths[0]), out]
                hidden += [os.path.abspath(out), entry.row["description"]]
                said = {"status": "failed", "reason": reason_of(outcome, hidden)} if failed else outcome
                told[n] = told[n] | said
                if not (failed and _stands(out, ledger.series.get(told[n]["name"], {}), told[n])):
                    ledger.add(told[n])
                bar.done([entry], failed=failed)
                if failed and on_error == "raise":
                    raise outcome
        if tasks and len(failures) == len(tasks) and all(isinstance(e, OptionError) for e in failures):
            raise failures[0]  # an option is wrong, not each of the series
        _write_table(out, ledger)
    return [told[n] for n in range(len(entries))]


def require_options(given: Any, function: Callable[..., Any], settled: Collection[str], what: str) -> None:
    """Raise if options are not those of a function, or are settled already."""
    known = sorted(set(signature(function).parameters) - set(settled))
    unknown = sorted(set(given) - set(known)) if isinstance(given, Mapping) else [repr(given)]
    if unknown:
        raise OptionError(f"{unknown[0]!r} is no option {what} for a collection; these are {', '.join(known)}.")


def _row(entry: Entry, identifiers: Identifiers, key: bytes) -> Record:
    """Return what stands of an entry in the table beside the stores."""
    row: Record = _plain(row_to_save(entry, entry.key, key, identifiers))
    return row


def _stamp(entry: Entry, options: str, key: bytes) -> str:
    """Return what changes with the files of an entry, or with options."""
    return hashlib.sha256(b"\0".join([key, entry.stamp.encode(), options.encode()])).hexdigest()[:32]


def _plain(content: Any) -> Any:
    """Return what JSON can hold: what it cannot, by its name."""
    return json.loads(json.dumps(content, default=str))


def _is_whole(out: str, name: str) -> bool:
    try:
        lazy_store(os.path.join(out, f"{name}.zarr"))
    except LazyvolError:
        return False
    return True


def _stands(out: str, before: Record, now: Record) -> bool:
    """Whether the store of an earlier call is there, of the same files: other options that failed leave it as it is."""
    same = before.get("status") == "done" and before.get("source") == now["source"]
    return same and _is_whole(out, now["name"])


def _save(
    entry: Entry, path: str, options: Mapping[str, Any], choices: Mapping[str, Any], key: bytes, stale: bool
) -> Record:
    """Save one entry; what another file or other options left half written there gives way.

    A stale store is of files that have changed since, perhaps so that `save_zarr` could not tell: it loses its name,
    and is removed when the new one is there. One that holds more than its image stays, and raises.
    """
    old = f"{path}.old-{uuid.uuid4().hex}"
    if stale and os.path.isdir(path):
        require_own(LocalPlace(path))
        os.rename(path, old)
    try:
        with using_key(key):
            return _saved(entry, path, options, choices)
    except BaseException:
        if os.path.isdir(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise


def _saved(entry: Entry, path: str, options: Mapping[str, Any], choices: Mapping[str, Any]) -> Record:
    began = time.perf_counter()
    volume = open_entry(entry, **choices)
    await_silence(f"{path}.partial")
    save_zarr(volume, path, overwrite=True, **options)
    about: Any = zarr.open_group(path, mode="r").attrs["lazyvol"]
    content = json.dumps([about["checksums"], about["coordinates"]], sort_keys=True)
    return {
        "status": "done",
        "reason": "",
        "seconds": round(time.perf_counter() - began, 3),
        "bytes_written": sum(sizes_of(path)),
        "content": hashlib.sha256(content.encode()).hexdigest(),
        "findings": [json.loads(line)["code"] for line in volume.attrs.get("findings", [])],
    }


def _write_table(out: str, ledger: Ledger) -> None:
    """Write the table for those who read no JSON."""
    rows = [ledger.series[name] for name in sorted(ledger.series)]
    names = list(dict.fromkeys(k for row in rows for k in row if k not in ("stamp", "source")))
    partial = os.path.join(out, f"{TABLE}.partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        words = ({k: _words(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
        writer.writerows(words)
    os.replace(partial, os.path.join(out, TABLE))


def _words(values: list[Any]) -> str:
    return " ".join("nan" if v is None else str(v) for v in values)


class _Bar:
    """A bar of bytes, which says how many series are done and how many failed."""

    def __init__(self, entries: Sequence[Entry], progress: bool) -> None:
        from tqdm import tqdm

        total = sum(e.row["bytes"] for e in entries)
        self._bar = tqdm(total=total, unit="B", unit_scale=True, desc="convert", leave=False, disable=not progress)
        self._count, self._of, self._failed = 0, len(entries), 0

    def done(self, entries: Sequence[Entry], *, failed: bool = False) -> None:
        """Count some entries."""
        self._count += len(entries)
        self._failed += failed * len(entries)
        self._bar.set_postfix_str(f"{self._count} of {self._of} series, {self._failed} failed", refresh=False)
        self._bar.update(sum(e.row["bytes"] for e in entries))

    def close(self) -> None:
        """Remove it."""
        self._bar.close()


@contextmanager
def _bar(entries: Sequence[Entry], progress: bool) -> Iterator[_Bar]:
    bar = _Bar(entries, progress)
    try:
        yield bar
    finally:
        bar.close()
