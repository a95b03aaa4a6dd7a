"""Whether a store holds what was written: every file against its checksum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lazyvol.coordinates import digest_in
from lazyvol.errors import LazyvolError, StoreError
from lazyvol.opened import About, image_files, root_of
from lazyvol.place import Place, StoreLike, place_of
from lazyvol.shards import check_shard

__all__ = ["Verification", "verify_zarr"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of a store since it was written."""

    shards: int
    """How many shards were read and compared."""

    bytes: int
    """How many bytes they hold."""

    damaged: tuple[str, ...]
    """What differs from what was written, each with its place in the store and why; empty if nothing does."""


def verify_zarr(store: StoreLike, *, group: str | None = None) -> Verification:
    """Read every shard of a store that `save_zarr` wrote and compare it with the checksum of what was written.

    Chunks have a CRC-32C of their own, and the root has a checksum of each shard, made of these, and a SHA-256 of the
    coordinates of each level; so a file that was damaged, exchanged or lost is found. Nothing is decompressed.

    Parameters
    ----------
    store
        Folder, URL or store of zarr.
    group
        A group of it, such as ``"labels/organs"``.

    Returns
    -------
    Verification
        What was compared, and what differs.

    Raises
    ------
    IncompleteStoreError
        If it was not written to its end, or lacks a shard.
    StoreError
        If it is no store of lazyvol, or of a layout that has no checksums.

    Examples
    --------
    >>> import lazyvol
    >>> folder = getfixture("tmp_path") / "chest.zarr"
    >>> lazyvol.save_zarr(lazyvol.open_volume(getfixture("chest_folder")), folder)
    >>> lazyvol.verify_zarr(folder).damaged
    ()
    """
    place, base = place_of(store, writable=False), (group or "").strip("/")
    about = root_of(place, base)
    if not isinstance(about.get("checksums"), dict) or not isinstance(about.get("coordinates"), dict):
        raise StoreError(
            f"{place.name} has layout {about.get('layout', 1)}, which holds no checksums of its shards. Save it again: "
            "save_zarr(open_zarr(store), another)."
        )
    try:
        return _verified(place, base, about)
    except LazyvolError:
        raise
    except Exception as error:  # whatever becomes of metadata that somebody edited
        raise StoreError(
            f"what {place.name} says of its shards is damaged ({type(error).__name__}). Restore its zarr.json, or save "
            "it anew."
        ) from error


def _verified(place: Place, base: str, about: About) -> Verification:
    """Compare all shards and coordinates."""
    damaged, shards, total = [], 0, 0
    for level in range(len(about["factors"]) + 1):
        for files in image_files(place, base, about, level):
            known = about["checksums"][files.path.removeprefix(f"{base}/") if base else files.path]
            for key, written in zip(files.sizes, known, strict=True):
                shards += 1
                total += files.sizes[key]
                where = f"{files.path}/{key}"
                assert files.form is not None
                try:
                    with place.reader(where) as read_at:
                        found = check_shard(read_at, files.form)
                except (OSError, ValueError) as error:
                    damaged.append(f"{where}: {error}")
                else:
                    damaged += [f"{where}: another shard than was written"] * (found != written)
    damaged += _changed_coordinates(place, base, about["name"], about["coordinates"])
    return Verification(shards, total, tuple(damaged))


def _changed_coordinates(place: Place, base: str, name: str, digests: dict[str, str]) -> Iterator[str]:
    """Yield groups whose coordinates are not those that were written."""
    for group, written in digests.items():
        where = f"{base}/{group}".lstrip("/")
        try:
            same = digest_in(place, where, name) == written
        except StoreError as error:
            yield f"{where}: its coordinates cannot be read: {type(error.__cause__).__name__}"
        else:
            if not same:
                yield f"{where}: other coordinates than were written"
