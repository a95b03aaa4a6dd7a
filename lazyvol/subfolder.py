"""A folder in a store of zarr, as a store of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import Store
from zarr.storage import WrapperStore

__all__ = ["Subfolder", "is_transaction"]


class Subfolder(WrapperStore[Store]):
    """What lies below a folder of a store, under keys that begin there.

    Parameters
    ----------
    store
        Any store of zarr.
    folder
        Where it begins, without a slash at its ends.
    """

    def __init__(self, store: Store, folder: str) -> None:
        super().__init__(store)
        self.folder = folder

    def _with_store(self, store: Store) -> Subfolder:
        return Subfolder(store, self.folder)

    def _at(self, key: str) -> str:
        return f"{self.folder}/{key}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subfolder) and (self._store, self.folder) == (other._store, other.folder)

    __hash__ = None  # type: ignore[assignment]  # as other stores

    def __str__(self) -> str:
        return f"{self._store}/{self.folder}"

    def __repr__(self) -> str:
        return f"Subfolder({self})"

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return what is under a key, or part of it; None if nothing is."""
        return await self._store.get(self._at(key), prototype, byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        """Return parts of what is under keys."""
        return await self._store.get_partial_values(prototype, [(self._at(key), part) for key, part in key_ranges])

    async def _get_many(self, requests: Iterable[tuple[str, Any, Any]]) -> AsyncGenerator[tuple[str, Any], None]:
        for key, prototype, part in requests:
            yield key, await self.get(key, prototype, part)

    async def exists(self, key: str) -> bool:
        """Return whether something is under a key."""
        return await self._store.exists(self._at(key))

    async def set(self, key: str, value: Any) -> None:
        """Put bytes under a key."""
        await self._store.set(self._at(key), value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """Put bytes under a key where nothing is."""
        await self._store.set_if_not_exists(self._at(key), value)

    async def _set_many(self, values: Iterable[tuple[str, Any]]) -> None:
        await self._store._set_many([(self._at(key), value) for key, value in values])

    async def delete(self, key: str) -> None:
        """Remove what is under a key."""
        await self._store.delete(self._at(key))

    async def delete_dir(self, prefix: str) -> None:
        """Remove all that is below a folder."""
        await self._store.delete_dir(self._at(prefix).rstrip("/"))

    async def clear(self) -> None:
        """Remove all that is in it; what else the store holds stays."""
        await self.delete_dir("")

    async def is_empty(self, prefix: str) -> bool:
        """Return whether nothing is below a folder."""
        return await self._store.is_empty(self._at(prefix).rstrip("/"))

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin so."""
        async for key in self._store.list_prefix(self._at(prefix)):
            yield key.removeprefix(self._at(""))

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield what is in a folder."""
        async for name in self._store.list_dir(self._at(prefix).rstrip("/")):
            yield name


def is_transaction(store: Any) -> bool:
    """Return whether a store shows nothing to others before it is committed, as those of icechunk."""
    return hasattr(store._store if isinstance(store, Subfolder) else store, "session")
