"""The lock of a store that is being written: one writer at a time, and none that has died."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zarr

from lazyvol.errors import StoreError
from lazyvol.place import LocalPlace, Place

__all__ = ["LOCK", "announced", "locked", "require_silent"]

LOCK = "lazyvol.lock"
_HEARTBEAT = 10.0
"""Seconds between signs of life of a writer; another host's is dead after six of them."""


@contextmanager
def locked(partial: str) -> Iterator[None]:
    """Hold ``partial`` as its only writer, with what a dead one left in it."""
    try:
        os.makedirs(partial, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{partial} cannot be made: {error.strerror}. Give a store in a folder that is yours."
        ) from error
    lock = os.path.join(partial, LOCK)
    _take(lock, partial)
    stop = threading.Event()
    beat = threading.Thread(target=_show_life, args=(lock, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if os.path.exists(lock):
            os.remove(lock)


def _take(lock: str, partial: str) -> None:
    for _ in range(2):
        try:
            file = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            _remove_dead(lock, partial)
        else:
            with os.fdopen(file, "w") as new:
                json.dump({"host": socket.gethostname(), "pid": os.getpid()}, new)
            return
    raise StoreError(f"{partial} is being written by another process. Wait for it, or give another name.")


def _remove_dead(lock: str, partial: str) -> None:
    """Remove the lock of a writer that no longer lives; raise if it does."""
    try:
        with open(lock, encoding="utf-8") as file:
            writer = json.load(file)
        silent = time.time() - os.stat(lock).st_mtime
    except FileNotFoundError:
        return
    except ValueError:
        writer, silent = {}, time.time() - os.stat(lock).st_mtime
    here = writer.get("host") == socket.gethostname()
    if silent < 6 * _HEARTBEAT and (not here or _is_running(writer["pid"])):
        raise StoreError(
            f"{partial} is being written by process {writer.get('pid')} on {writer.get('host')}. Wait for it, or give "
            "another name."
        )
    dead = f"{lock}.{uuid.uuid4().hex}"
    os.rename(lock, dead)
    os.remove(dead)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _show_life(lock: str, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        if os.path.exists(lock):
            os.utime(lock)


@contextmanager
def announced(place: Place) -> Iterator[None]:
    """Say in the root of a store that is no folder who is writing it, and that he lives."""
    if isinstance(place, LocalPlace):
        yield
        return
    stop = threading.Event()

    def say() -> None:
        root = zarr.open_group(place.store, mode="r+")
        about: Any = root.attrs["lazyvol"]
        root.attrs["lazyvol"] = {
            **about,
            "writer": {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time()},
        }

    def go_on() -> None:
        while not stop.wait(_HEARTBEAT):
            say()

    say()
    beat = threading.Thread(target=go_on, daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()


def require_silent(place: Place, about: Mapping[str, Any]) -> None:
    """Raise if what the root of a store says tells of a writer that lives."""
    writer = about.get("writer")
    if about.get("complete") or not writer or time.time() - writer["at"] >= 6 * _HEARTBEAT:
        return
    if writer["host"] != socket.gethostname() or (writer["pid"] != os.getpid() and _is_running(writer["pid"])):
        raise StoreError(
            f"{place.name} is being written by process {writer['pid']} on {writer['host']}. Wait for it, or give "
            "another name."
        )
