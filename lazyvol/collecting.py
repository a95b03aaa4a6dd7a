"""From a folder to the entries of its collection: series, stores and NIfTI files, and what was left out."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

from lazyvol.inventory import Entry, dicom_entries, patients_of, plain_text, store_entry
from lazyvol.known import HeaderCache
from lazyvol.ledger import Ledger
from lazyvol.nifti_files import is_nifti
from lazyvol.privacy import names_key
from lazyvol.records import Instance, Skipped
from lazyvol.scan import read_series_uid
from lazyvol.series import Series, group_series
from lazyvol.trees import scan_tree

__all__ = ["entries_below"]


def entries_below(
    path: str, cache: HeaderCache, client: Any = None, *, progress: bool = False
) -> tuple[list[Entry], list[Skipped]]:
    """Return all grids below a folder, series by number first, and what was left out; arguments as for `scan_tree`."""
    tree = scan_tree(path, cache=cache, client=client, progress=progress)
    members: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for instance in tree.instances:  # what has no UID belongs to what lies beside it, and to nothing else
        uid = instance.series_uid or plain_text(os.path.dirname(instance.path))
        members[instance.study_uid, uid].append(instance)
    series = [(s, images) for images in members.values() for s in group_series(images)]
    series.sort(key=lambda item: (item[0].number is None, item[0].number or 0, item[0].uid, item[0].study_uid))
    key = names_key()
    patients = patients_of([s for s, _ in series], key, cache)
    damaged = _damaged_of(series, [s for s in tree.skipped if s.damaged and not is_nifti(s.path)])
    entries = [
        entry
        for n, ((one, images), patient) in enumerate(zip(series, patients, strict=True))
        for entry in dicom_entries(one, images, damaged[n], patient, key)
    ]
    files = [s.path for s in tree.skipped if is_nifti(s.path)]
    skipped = [s for s in tree.skipped if not is_nifti(s.path)]
    ledgers: dict[str, Ledger] = {}
    made: list[Entry] = []
    for store in (*files, *tree.stores):
        folder, name = os.path.split(store)
        if folder not in ledgers:
            ledgers[folder] = Ledger.read(folder)
        said = ledgers[folder].series.get(name.removesuffix(".zarr"), {})
        found = store_entry(store, path, said, key)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:  # what was made of others has their names, so it comes after them
            (made if said else entries).append(found)
    return [*entries, *made], skipped


def _damaged_of(series: list[tuple[Series, list[Instance]]], damaged: list[Skipped]) -> dict[int, list[Skipped]]:
    """Return which damaged files may be of each series: by their SeriesInstanceUID, else by their folder."""
    by_uid: dict[str, set[int]] = defaultdict(set)
    by_folder: dict[str, set[int]] = defaultdict(set)
    for n, (one, images) in enumerate(series if damaged else ()):
        by_uid[one.uid].add(n)
        for folder in {os.path.dirname(image.path) for image in images}:
            by_folder[folder].add(n)
    found: dict[int, list[Skipped]] = defaultdict(list)
    for skipped in damaged:
        uid = read_series_uid(skipped.path)
        for n in by_uid.get(uid, ()) if uid else by_folder.get(os.path.dirname(skipped.path), ()):
            found[n].append(skipped)
    return found
