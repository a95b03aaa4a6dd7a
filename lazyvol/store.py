"""Volumes in chunked, sharded OME-Zarr: written whole or visibly not, and opened again.

A local store is written at ``NAME.partial`` and appears as ``NAME`` by one rename when all of it is there; elsewhere
the groups of the levels and what OME-Zarr tools read come last. What a writer that was stopped has left is used.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib import metadata
from typing import Any

import xarray as xr
import zarr
from dask.base import compute as dask_compute
from dask.delayed import delayed

from lazyvol.appearing import appear, keep_only, settle, sweep
from lazyvol.convention import strict
from lazyvol.coordinates import digest_in
from lazyvol.errors import LazyvolError, OptionError, StoreError
from lazyvol.failures import ImagesByFrame, failures_told, filled_finding
from lazyvol.finishing import finish
from lazyvol.foreign import paths_of_image
from lazyvol.label_images import group_place, is_label, list_labels
from lazyvol.lock import LOCK, announced, locked, require_silent
from lazyvol.ome import Version
from lazyvol.place import LocalPlace, Place, StoreLike, place_of, require_of, unwritable
from lazyvol.plan import Codec, Lengths, Levels, Plan, plan_of
from lazyvol.privacy import Identifiers, read_key, without_identifiers
from lazyvol.shards import check_shard
from lazyvol.stored import open_image, shard_form, shard_keys, shard_sizes
from lazyvol.writing import Journal, Level, shard_tasks

__all__ = ["require_own", "save_zarr"]

_OURS = re.compile(r"zarr\.json|scale\d+$|images$|coordinates$|labels$|lazyvol\.")
"""How what is in the folder of a store begins."""


def save_zarr(
    volume: xr.DataArray,
    store: StoreLike,
    *,
    name: str | None = None,
    group: str | None = None,
    chunks: Lengths = None,
    shards: Lengths = None,
    levels: Levels = "auto",
    codec: Codec = "auto",
    identifiers: Identifiers = "none",
    version: Version = "0.5",
    overwrite: bool = False,
    compute: bool = True,
    progress: bool | None = None,
) -> Any:
    """Write a volume to a chunked, sharded OME-Zarr store with levels of lower resolution, in bounded memory.

    Each task reads one slab of whole slices once, writes one shard, and hands its half on to the next level; under a
    ``dask.distributed`` client the tasks run there. A writer that was stopped, however, is gone on with by the same
    call: only what is missing is written. Saving a volume again that is there already does nothing. Frames that were
    filled because they could not be read (``on_error="fill"``) are named in a finding of the store.

    Parameters
    ----------
    volume
        A volume with its geometry, from `open_volume` or made of one.
    store
        Folder to write, e.g. ``chest.zarr``; a URL that fsspec knows; or a store of zarr. A folder appears when it is
        complete; until then ``chest.zarr.partial`` holds what there is.
    name
        What the arrays are called; ``image`` if None.
    group
        Write into a group of a store that is complete: ``"labels/organs"`` for a segmentation of its image.
    chunks
        Longest side of a chunk, or sides by dimension; 64 voxels if None.
    shards
        Sides of the files by dimension, multiples of the chunks; whole slices of at most 32 MiB if None.
    levels
        How many resolutions there are, full resolution included; ``"auto"`` for as many as it takes until no side is
        longer than 128 voxels. Levels are means of 2 x 2 x 2 voxels, or fewer where spacing differs; those of bool
        and of segmentations take one of them.
    codec
        `zarr.codecs.BloscCodec`, `ZstdCodec` or `GzipCodec`, or None for no compression; ``"auto"`` for Blosc with
        Zstandard.
    identifiers
        ``"none"`` replaces UIDs by keyed one-way ones; ``"uids"`` keeps them. Paths of source files
        and free text of the header are never written: explanations of windows stay if they are usual words.
    version
        Of OME-Zarr. ``"0.6"`` adds the exact affine to the patient's coordinates, of tilted and oblique volumes too;
        fewer tools read it yet.
    overwrite
        Replace a Zarr store that exists, or the rest of another one; anything else under that name stays and raises.
    compute
        If False, write nothing yet and return a `dask.delayed.Delayed` that saves when it is computed.
    progress
        Show a progress bar.

    Returns
    -------
    None or dask.delayed.Delayed
        See ``compute``.

    Raises
    ------
    StoreError
        If there is another store, another process is writing it, or something of the volume or the key
        cannot be written; says what.
    OptionError
        If an option cannot be.
    GeometryError
        If the array carries no geometry.
    PixelReadError, PixelRangeError
        If a frame cannot be read; the store does not appear.

    Notes
    -----
    OME-Zarr (NGFF) 0.5 or 0.6 with anatomical orientation by RFC-4.

    Examples
    --------
    >>> import lazyvol
    >>> volume = lazyvol.open_volume(getfixture("chest_folder"))
    >>> folder = getfixture("tmp_path") / "chest.zarr"
    >>> lazyvol.save_zarr(volume, folder)
    >>> bool((lazyvol.open_zarr(folder) == volume).all())
    True
    """
    if not compute:
        options: Any = {"name": name, "group": group, "chunks": chunks, "shards": shards, "levels": levels}
        options |= {"codec": codec, "identifiers": identifiers, "version": version}
        options |= {"overwrite": overwrite, "progress": progress}
        return delayed(partial(save_zarr, volume, store, **options), pure=False)()
    root = place = place_of(store, writable=True)
    if identifiers not in ("none", "uids") or overwrite not in (True, False):
        raise OptionError(
            f"identifiers={identifiers!r} can be 'none' or 'uids', overwrite={overwrite!r} True or False."
        )
    kept = without_identifiers(strict(volume), identifiers)
    label = is_label(kept)
    if group is not None:
        place = group_place(place, group, kept)
        label = label or group.startswith("labels/")
    plan = plan_of(
        kept,
        name=name,
        chunks=chunks,
        shards=shards,
        levels=levels,
        codec=codec,
        nearest=label,
        version=version,
        group=group,
        identifiers=identifiers,
        key=b"" if identifiers == "uids" else read_key(),
    )
    if not _is_there(place, plan, overwrite=overwrite):
        with _target(place, plan, overwrite=overwrite) as target:
            if target is not None:
                _fill(target, plan, volume, identifiers, label=label, overwrite=overwrite, progress=bool(progress))
    elif isinstance(place, LocalPlace):
        settle(place.path)
    if group is not None:
        list_labels(root, version)
    return None


def _is_there(place: Place, plan: Plan, *, overwrite: bool) -> bool:
    """Return whether the very store is there and complete; raise if something else is."""
    local = isinstance(place, LocalPlace)
    if isinstance(place, LocalPlace):
        if not os.path.lexists(place.path):
            return False
        if not os.path.isfile(os.path.join(place.path, "zarr.json")):
            older = os.path.exists(os.path.join(place.path, ".zgroup"))
            kind = "a store of Zarr version 2" if older else "no Zarr store"
            raise StoreError(f"{place.name} exists and is {kind}, so it is not overwritten. Give another name.")
    about = _root_attrs(place)
    if not local and (about is None or (about and not about.get("complete"))):
        if about is None:
            require_own(place)
        return False
    same = bool(about) and about is not None and about.get("fingerprint") == plan.fingerprint
    if not same and not overwrite:
        raise StoreError(
            f"{place.name} exists and is of another volume, or was saved with other options. Give another name, or "
            "overwrite=True."
        )
    if not same:
        require_own(place)
    return same and bool(about and about.get("complete")) and _has_all(place, plan, about or {}, proved=overwrite)


_OURS = re.compile(r"zarr\.json|lazyvol\..*|coordinates|images|scale\d+")
"""What a store has at its root; labels are images of their own."""


def require_own(place: Place) -> None:
    """Raise if there is something in a store that its image does not make: it would be lost."""
    others = sorted({key.split("/")[0] for key in place.all_keys()} - paths_of_image(place))
    others = [name for name in others if not _OURS.fullmatch(name)]
    if others:
        raise StoreError(
            f"{place.name} holds {', '.join(others[:3])} too, which would be lost. Give another name, or remove that "
            "first."
        )


def _has_all(place: Place, plan: Plan, about: Mapping[str, Any], *, proved: bool) -> bool:
    """Return whether no shard is absent or empty, or another than was written if that has to be proved."""
    for image, _ in plan.arrangement.images(plan.volume.sizes):
        for path in (plan.path(image, n) for n in range(len(plan.cuts))):
            array = open_image(place, path)
            if array is None or not all(shard_sizes(place, path, array).values()):
                return False
            known = _known(about, path, array)
            if proved and known and _whole_shards(place, path, known, shard_form(array), known) != known:
                return False
    try:
        return all(digest_in(place, group, plan.name) == said for group, said in about["coordinates"].items())
    except (StoreError, KeyError, TypeError, AttributeError):
        return False


def _known(about: Mapping[str, Any], path: str, array: Any) -> dict[str, int]:
    """Return what the root says of the shards of an array: their checksums by their keys."""
    said = about.get("checksums")
    keys = list(shard_keys(array).values())
    known = said.get(path) if isinstance(said, dict) else None
    return dict(zip(keys, known, strict=True)) if isinstance(known, list) and len(known) == len(keys) else {}


def _root_attrs(place: Place) -> dict[str, Any] | None:
    """Return what the root says of a store of lazyvol; None if there is none, an empty one for other stores."""
    try:
        root = zarr.open_group(place.store, mode="r")
    except (OSError, ValueError, KeyError):
        return None
    except Exception as error:  # each service has errors of its own
        raise StoreError(
            f"{place.name} cannot be reached: {type(error).__name__}. See to it, and call again."
        ) from error
    about: Any = root.attrs.get("lazyvol", {})
    return dict(about)


@contextmanager
def _target(place: Place, plan: Plan, *, overwrite: bool) -> Iterator[Place | None]:
    """Give the place to write to, None if another writer was done just now; a folder takes its name at the end."""
    if not isinstance(place, LocalPlace):
        yield place
        return
    unfinished = LocalPlace(f"{place.path}.partial")
    with locked(unfinished.path) as require_ours:
        if _is_there(place, plan, overwrite=overwrite):
            yield None
            return
        if (_root_attrs(place) or {}).get("fingerprint") == plan.fingerprint:  # it lacks something: what else is there
            yield place  # stays
            require_ours()
            return
        sweep(unfinished.path)
        yield unfinished
        require_ours()
        with _writing(unfinished):
            sweep(unfinished.path)
            appear(unfinished.path, place.path)


@contextmanager
def _writing(place: Place) -> Iterator[None]:
    """Say which store it is that cannot be written."""
    try:
        yield
    except LazyvolError:
        raise
    except OSError as error:
        raise unwritable(place.name, error) from error


def _fill(
    place: Place,
    plan: Plan,
    volume: xr.DataArray,
    identifiers: str,
    *,
    label: bool,
    overwrite: bool,
    progress: bool,
) -> None:
    """Write what a store lacks, and at last that it is complete."""
    checksums: dict[str, dict[str, int]] = {}
    tasks = []
    with _writing(place):
        before = _root_attrs(place) or {}
        begun, uid = _begin(place, plan, identifiers, overwrite=overwrite)
        for image, selection in plan.arrangement.images(plan.volume.sizes):
            levels = _levels(place, plan, image, begun=begun)
            for lv in levels:
                known = _known(before, lv.path, open_image(place, lv.path)) if begun else {}
                checksums[lv.path] = _whole_shards(place, lv.path, lv.keys.values(), lv.form, known) if begun else {}
            absent = {lv.path: set(lv.keys.values()) - set(checksums[lv.path]) for lv in levels}
            data = plan.volume.isel(selection).data
            tasks += shard_tasks(data, levels, place, absent, nearest=plan.nearest, uid=uid)
    journal = Journal(place, uid, ImagesByFrame(volume))
    with failures_told(journal, f"lazyvol-{uid}"), _bar(progress), announced(place):
        written = dask_compute(*tasks)  # type: ignore[no-untyped-call]
    for path, key, checksum in itertools.chain(*written):
        checksums[path][key] = checksum
    said = plan.volume.attrs.get("findings", [])
    findings = [said] if isinstance(said, str) else list(said)  # netCDF makes a string of a list of one
    if filled := filled_finding(volume, journal.filled()):
        findings.append(filled.to_json())
    require_of(place, uid)
    with _writing(place):
        finish(place, plan, checksums, findings if filled else None, label=label)


def _levels(place: Place, plan: Plan, image: str, *, begun: bool) -> list[Level]:
    """Return the arrays of an image, made where there are none."""
    arrays = (
        (begun and open_image(place, plan.path(image, n))) or plan.create_array(place, image, n)
        for n in range(len(plan.cuts))
    )
    levels = [plan.level(array, image, n) for n, array in enumerate(arrays)]
    if begun and isinstance(place, LocalPlace):  # coordinates may be half there
        for path in [*(level.path for level in levels), *(["coordinates/"] if plan.arrangement.split else [])]:
            keep_only(os.path.join(place.path, path))
    return levels


def _begin(place: Place, plan: Plan, identifiers: str, *, overwrite: bool) -> tuple[bool, str]:
    """Write what the root says until the store is complete; return whether it was begun before, and its uid."""
    about = _root_attrs(place)
    require_silent(place, about or {})
    if about and about.get("fingerprint") == plan.fingerprint:
        if about.get("complete"):  # and has no name yet, or lacks a shard
            zarr.open_group(place.store, mode="r+").attrs["lazyvol"] = {**about, "complete": False}
        return True, about["uid"]
    if about is not None and not overwrite:
        raise StoreError(
            f"{place.name} holds the beginning of another volume, or of one with other options. Save that one, "
            "remove it, or give overwrite=True."
        )
    if isinstance(place, LocalPlace):
        _clear(place)
    said = plan.about() | {
        "identifiers": identifiers,
        "uid": uuid.uuid4().hex,
        "version": metadata.version("lazyvol"),
        "complete": False,
    }
    old = about is not None and not isinstance(place, LocalPlace)  # in a folder the lock has to stay
    zarr.create_group(place.store, attributes={"lazyvol": said}, overwrite=old)
    return False, said["uid"]


def _clear(place: LocalPlace) -> None:
    """Remove what is there of a store, its root last; raise if there is anything else."""
    entries = [entry for entry in os.scandir(place.path) if entry.name != LOCK]
    if other := next((e.name for e in entries if not _OURS.match(e.name)), None):
        raise StoreError(f"{place.name} holds {other!r}, which is of no store. Remove it, or give another name.")
    for entry in sorted(entries, key=lambda entry: entry.name == "zarr.json"):
        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.remove(entry.path)


def _whole_shards(place: Place, path: str, keys: Any, form: Any, known: Mapping[str, int]) -> dict[str, int]:
    """Return the checksums of the shards that are there and whole, and those that are known where these are."""
    found = {}
    for key, size in place.sizes(path, keys).items():
        if size:
            try:
                with place.reader(f"{path}/{key}") as read_at:
                    checksum = check_shard(read_at, form)
                if known.get(key, checksum) == checksum:
                    found[key] = checksum
            except (OSError, ValueError):  # it is written again
                continue
    return found


def _bar(progress: bool) -> AbstractContextManager[Any]:
    if not progress:
        return nullcontext()
    from tqdm.dask import TqdmCallback

    bar: AbstractContextManager[Any] = TqdmCallback(desc="save", unit="task", leave=False)
    return bar
