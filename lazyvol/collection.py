"""Many series: one table, lazy volumes by key, a tree of all, and the same work on each."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import pandas as pd
import xarray as xr

from lazyvol.choice import require_known
from lazyvol.chunks import Chunks
from lazyvol.cluster import client_in_use
from lazyvol.collecting import entries_below
from lazyvol.conversion import LEFT_OUT, OUTCOME, SETTLED, convert, require_options
from lazyvol.coverage import coverage, plot_coverage
from lazyvol.errors import OptionError, SeriesChoiceError
from lazyvol.export import save_table
from lazyvol.gallery import View, table_html
from lazyvol.inventory import (
    COLUMNS,
    Entry,
    Key,
    applied,
    open_entry,
    plain_text,
    short_name,
)
from lazyvol.known import HeaderCache, default_cache
from lazyvol.memory import no_search
from lazyvol.ondemand import node_of
from lazyvol.privacy import Identifiers, names_key, read_key
from lazyvol.records import Skipped
from lazyvol.store import save_zarr
from lazyvol.volume import open_volume
from lazyvol.work import each_result, reason_of

__all__ = ["Collection", "open_collection"]


def open_collection(
    root: str | os.PathLike[str], *, cache: str | None = "auto", client: Any = None, progress: bool | None = None
) -> Collection:
    """Find all series and stores below a folder, reading headers only.

    Parameters
    ----------
    root
        A folder of any layout, or a URL that fsspec knows. Series may lie in several folders, and folders may hold
        several series.
    cache
        SQLite file in which headers are kept between scans, None for none; ``"auto"`` for ``LAZYVOL_CACHE``, or one in
        the user's cache folder. A second scan reads only what changed.
    client
        A ``dask.distributed`` client whose workers read headers; that in use if None.
    progress
        Show a bar, from one second on.

    Returns
    -------
    Collection
        Of DICOM series, of stores of lazyvol and other OME-Zarr tools, and of NIfTI files.

    Raises
    ------
    SourceNotFoundError
        If there is no such folder.
    NoImagesError
        If it is a file.

    Examples
    --------
    >>> import lazyvol
    >>> found = lazyvol.open_collection(getfixture("chest_folder"), cache=None)
    >>> found.table[["modality", "shape"]].to_dict("records")
    [{'modality': 'CT', 'shape': (24, 48, 64)}]
    """
    path = os.fspath(root)
    path = path if "://" in path else os.path.abspath(path)
    kept = HeaderCache(default_cache() if cache == "auto" else cache or "")
    entries, skipped = entries_below(path, kept, client_in_use(client), progress=bool(progress))
    return Collection(path, entries, skipped)


class Collection(Mapping[Key, xr.DataArray]):
    """Many series and stores, by key ``(series_uid, stack)``; each opens as a lazy volume when it is asked for."""

    def __init__(self, root: str, entries: Iterable[Entry], skipped: Iterable[Skipped] = ()) -> None:
        self.root = root
        """Where it was found."""
        self.skipped = tuple(skipped)
        """Files and stores that were left out, with the reason."""
        self._entries: dict[Key, Entry] = {}
        names: set[str] = set()
        for entry in entries:
            key, name, n = entry.key, entry.row["name"], 1
            while key in self._entries:  # a store of a series beside the series itself
                key = (key[0], key[1] + 1)
            while name in names:
                name, n = f"{entry.row['name']}-{n}", n + 1
            names.add(name)
            self._entries[key] = entry if n == 1 else replace(entry, row={**entry.row, "name": name})

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._entries)

    def __contains__(self, key: object) -> bool:
        try:
            return key in self._entries
        except TypeError:  # it cannot be hashed
            return False

    __eq__ = object.__eq__
    __hash__ = object.__hash__
    """A collection is equal to itself alone: those of a mapping would open and read all volumes."""

    def __getitem__(self, key: Key | str) -> xr.DataArray:
        return self.open(key)

    def open(self, key: Key | str, **options: Any) -> xr.DataArray:
        """Open one series as a lazy volume, reading its headers again.

        Parameters
        ----------
        key
            ``(series_uid, stack)``, a series_uid for the largest of its grids, or a name of the table.
        options
            As for `open_volume`. For stores and NIfTI files those that say what becomes of odd series mean nothing,
            and those that ask for other values (dtype, rescale, values) raise.

        Raises
        ------
        SeriesChoiceError
            If there is no such series.
        OptionError
            If an option cannot be.
        LazyvolError
            As `open_volume` and `open_zarr`.
        """
        require_options(options, open_volume, LEFT_OUT, "of open_volume")
        require_known(**options)
        return open_entry(self._entry(key), **options)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the volume of a key, or something else if it is none."""
        return self.open(key) if key in self else default

    def _entry(self, key: Key | str) -> Entry:
        found = key
        if isinstance(key, str):
            found = next((k for k, e in self._entries.items() if e.row["name"] == key), (key, 0))
        if found not in self:
            raise SeriesChoiceError(
                f"{key!r} is no key of the collection. Its keys are the index of its table: series_uid and stack."
            )
        return self._entries[found]  # type: ignore[index]  # a key of it

    @property
    def table(self) -> pd.DataFrame:
        """One row for each grid; its columns are those of `lazyvol.inventory.COLUMNS`, its index is the key."""
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        return pd.DataFrame([e.row for e in self._entries.values()], index=self._index(), columns=list(COLUMNS))

    def _index(self) -> pd.MultiIndex:
        return pd.MultiIndex.from_tuples(list(self._entries), names=["series_uid", "stack"])

    @cached_property
    def skipped_reasons(self) -> pd.DataFrame:
        """What was left out, by reason: how many files, and the first of them."""
        rows = pd.DataFrame([(s.reason, plain_text(s.path)) for s in self.skipped], columns=["reason", "path"])
        grouped = rows.groupby("reason", sort=False)["path"].agg(["count", "first"])
        return grouped.rename(columns={"count": "files"}).sort_values("files", ascending=False)

    def query(self, expression: str) -> Collection:
        """Return the part of the collection for which an expression on the columns of the table holds.

        Parameters
        ----------
        expression
            As for `pandas.DataFrame.query`, e.g. ``"modality == 'CT' and images > @least"`` with a variable ``least``.

        Raises
        ------
        OptionError
            If the expression cannot be evaluated.
        """
        return self._where(expression)

    def _where(self, expression: str) -> Collection:
        """Return the part for which an expression holds; its variables are those of whoever called the caller."""
        try:
            kept = self._table.query(expression, level=2).index
        except Exception as error:  # pandas raises whatever the expression does
            said = f"{type(error).__name__}, {error!s:.200}"
            raise OptionError(f"{expression!r} cannot be evaluated as true or false on the table: {said}.") from error
        return self.select(kept)

    def select(self, keys: Any) -> Collection:
        """Return the part of the collection with these keys, or names of the table.

        Raises
        ------
        SeriesChoiceError
            If one of them is none.
        """
        wanted = [keys] if isinstance(keys, str | None) or keys in self else keys
        keys_of = {id(entry): key for key, entry in self._entries.items()}
        part = Collection(self.root, [], self.skipped)
        part._entries = {keys_of[id(e)]: e for e in map(self._entry, wanted)}
        return part

    def save(self, path: str | os.PathLike[str], *, identifiers: Identifiers = "none") -> None:
        """Write the table as CSV, or as Parquet where the name ends so (extra ``parquet``).

        UIDs are replaced by keyed one-way ones; descriptions, series numbers and paths are left out, unless
        ``identifiers`` is ``"uids"``, which keeps the UIDs.

        Raises
        ------
        OptionError
            If the name ends otherwise, or what writes Parquet is not installed.
        """
        save_table(self._entries, os.fspath(path), identifiers)

    def __repr__(self) -> str:
        kinds = self.table["modality"].value_counts()
        said = ", ".join(f"{n} {kind or 'unknown'}" for kind, n in kinds.items())
        return f"Collection({len(self)} grids{f': {said}' if said else ''}; {len(self.skipped)} files skipped)"

    def _repr_html_(self) -> str:
        return table_html(self.table)

    def view(self, count: int = 20) -> Any:
        """Return the table with a thumbnail of each of the first grids, for a notebook; reads one frame of each."""
        return View(list(self._entries.values()), count)

    # As a tree
    def datatree(self, *, chunks: Chunks = "auto") -> xr.DataTree:
        """Return all grids that open as one lazy tree: patient, study, series.

        A node has the volume as ``image``, with the coordinates of its dimensions; headers are read again when values
        are asked for. Names of nodes are without identifiers, so that the tree may be written.

        Parameters
        ----------
        chunks
            As for `open_volume`.
        """
        nodes: dict[str, xr.Dataset] = {}
        key = names_key()
        with no_search():
            for entry in self._entries.values():
                if not entry.row["refusal"]:
                    study = f"study-{short_name(entry.row['study_uid'], key)}"
                    path = "/".join([entry.row["patient"] or "patient-unknown", study, entry.row["name"]])
                    nodes[path] = node_of(entry, chunks)
            return xr.DataTree.from_dict(nodes)

    # The same for all
    def map(
        self,
        function: Callable[[xr.DataArray], Any],
        *,
        where: str | None = None,
        client: Any = None,
        progress: bool = False,
        **options: Any,
    ) -> pd.DataFrame:
        """Apply a function to each volume, and return the results as a table.

        Parameters
        ----------
        function
            Takes a lazy volume. What it returns is computed if it is lazy; a mapping becomes columns, anything else
            the column ``result``. For a cluster it has to be picklable.
        where
            An expression as for `query`: only these.
        client
            A ``dask.distributed`` client; that in use if None. There each volume is worked on by one thread.
        progress
            Show a bar.
        options
            As for `open_volume`.

        Returns
        -------
        pandas.DataFrame
            A row for each grid, with the key as index; what failed has the reason in the column ``error``.
        """
        part = self if where is None else self._where(where)
        if not callable(function):
            raise OptionError(f"{function!r} is no function of a volume.")
        require_options(options, open_volume, LEFT_OUT, "of open_volume")
        require_known(**options)
        entries = list(part._entries.items())
        tasks = [(function, entry, options) for _, entry in entries]
        rows: dict[int, dict[Hashable, Any]] = {}
        from tqdm import tqdm

        with tqdm(total=len(tasks), unit="series", desc="map", leave=False, disable=not progress) as bar:
            for n, found in each_result(applied, tasks, client_in_use(client)):
                rows[n] = {"error": reason_of(found)} if isinstance(found, BaseException) else {**found, "error": ""}
                bar.update(1)
        table = pd.DataFrame([rows[n] for n in range(len(entries))], index=part._index())
        return table.assign(error=table.pop("error") if len(table) else "")

    def save_zarr(
        self,
        out: str | os.PathLike[str],
        *,
        where: str | None = None,
        client: Any = None,
        on_error: str = "record",
        identifiers: Identifiers = "none",
        progress: bool = False,
        options: Mapping[str, Any] | None = None,
        **choices: Any,
    ) -> pd.DataFrame:
        """Save each grid as a store of its own in a folder, which opens as a collection again.

        What was stopped goes on with the same call: what is done is not done again. A series that fails is recorded,
        and the others go on. Beside the stores, which have names without identifiers, ``index.jsonl`` and
        ``index.csv`` hold the table, versions, options, findings and a checksum of each.

        Parameters
        ----------
        out
            A folder. Stores of the collection that lie there already are what an earlier call made, and stay.
        where
            An expression as for `query`: only these.
        client
            A ``dask.distributed`` client; that in use if None. There each series is one task, on one thread; one whose
            worker is lost is given to another.
        on_error
            ``"record"``, or ``"raise"`` at the first series that fails; ``"fill"`` for ``"record"``, and NaN in place
            of frames that cannot be read.
        identifiers
            As for `lazyvol.save_zarr`.
        progress
            Show a bar: series, failures, bytes of values, rate, time left.
        options
            Others of `lazyvol.save_zarr`: levels, codec, chunks, shards, version.
        choices
            Options of `open_volume`.

        Returns
        -------
        pandas.DataFrame
            A row for each grid: status (``done`` or ``failed``), reason, name, seconds, bytes, checksum.

        Raises
        ------
        StoreError
            If another process converts to the same folder, or the folder cannot be written.
        OptionError
            If an option cannot be.
        """
        if on_error not in ("record", "raise", "fill"):
            raise OptionError(f"on_error={on_error!r} can be 'record', 'raise' or 'fill'.")
        if identifiers not in ("none", "uids"):
            raise OptionError(f"identifiers={identifiers!r} can be 'none' or 'uids'.")
        require_options(choices, open_volume, LEFT_OUT, "of open_volume")
        require_known(**choices)
        require_options(options or {}, save_zarr, SETTLED, "of save_zarr")
        choices |= {"on_error": "fill"} if on_error == "fill" else {}
        part = self if where is None else self._where(where)
        inside = os.path.join(os.path.abspath(os.fspath(out)), "")
        made = {k for k, e in part._entries.items() if e.row["kind"] == "store" and e.files.startswith(inside)}
        part = part.select([k for k in part if k not in made])
        found = convert(
            list(part._entries.values()),
            os.fspath(out),
            identifiers=identifiers,
            options=options or {},
            choices=choices,
            key=read_key(),
            client=client_in_use(client),
            on_error=on_error,
            progress=progress,
        )
        return pd.DataFrame(found, index=part._index(), columns=["name", *OUTCOME])

    def describe(self) -> pd.DataFrame:
        """Return how fields of view, spacings and slice thickness spread, from headers alone: a row for each kind."""
        return coverage(self.table)

    def plot(self) -> Any:
        """Return a matplotlib figure of what `describe` counts: a panel for each length, a colour for each kind."""
        return plot_coverage(self.table)
