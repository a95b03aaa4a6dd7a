"""The lock of a store that is being written: one writer at a time, and none that has died."""

from __future__ import annotations

import glob
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import zarr

from lazyvol.errors import StoreError
from lazyvol.place import LocalPlace, Place

__all__ = ["LOCK", "announced", "await_silence", "locked", "require_silent", "token_of"]

LOCK = "lazyvol.lock"
_HEARTBEAT = 10.0
"""Seconds between signs of life of a writer; another host's is dead after six of them."""


@contextmanager
def locked(partial: str) -> Iterator[Callable[[], None]]:
    """Hold ``partial`` as its only writer, with what a dead one left in it.

    Yields a function that raises if another writer has taken over since, as it may where this one was silent: put to
    sleep, for one.
    """
    lock, token = os.path.join(partial, LOCK), uuid.uuid4().hex
    try:
        _take(lock, partial, token)
    except OSError as error:
        raise StoreError(
            f"{partial} cannot be made: {error.strerror}. Give a store in a folder that is yours and has room."
        ) from error
    stop = threading.Event()
    beat = threading.Thread(target=_show_life, args=(lock, token, stop), daemon=True)
    beat.start()

    def require_ours() -> None:
        with suppress(OSError):  # another one has it, or is done and has renamed the folder
            if not os.path.exists(lock):  # it was taken, and given back: by one that was refused, for one
                _create(lock, token)
        if not _is_ours(lock, token):
            raise StoreError(
                f"{partial} was taken over by another process, since this one was silent for a minute. Wait for that "
                "one, and save again."
            )

    try:
        yield require_ours
    finally:
        stop.set()
        beat.join()
        if _is_ours(lock, token):
            os.remove(lock)
        with suppress(OSError):  # it is not empty, or has its name
            os.rmdir(partial)


def _take(lock: str, partial: str, token: str) -> None:
    """Write the lock; raise if another writer lives."""
    for _ in range(5):
        os.makedirs(partial, exist_ok=True)
        try:
            with _alone(partial):
                _remove_dead(lock, partial)
                _create(lock, token)
        except (FileExistsError, FileNotFoundError):  # another one was faster, or is done and has renamed the folder
            continue
        return
    raise StoreError(f"{partial} is being written by another process. Wait for it, or give another name.")


def _create(lock: str, token: str) -> None:
    """Write the lock in one step, so that a writer that is killed meanwhile leaves none; raise if there is one."""
    for left in glob.glob(f"{glob.escape(lock)}.*.partial"):
        with suppress(FileNotFoundError):
            os.remove(left)
    written = f"{lock}.{token}.partial"
    try:
        with open(written, "x", encoding="utf-8") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid(), "token": token}, file)
        os.link(written, lock)
    finally:
        with suppress(FileNotFoundError):
            os.remove(written)


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Keep other processes of this host from the same, so that no two of them take one dead lock over."""
    file = os.open(folder, os.O_RDONLY)
    try:
        with suppress(ImportError, OSError):  # Windows has no fcntl, and not every file system locks folders
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _is_ours(lock: str, token: str) -> bool:
    return token_of(lock) == token


def token_of(lock: str) -> str:
    """Return by what a writer knows that a lock is its own; nothing if there is none."""
    return str(_writer_of(lock).get("token", ""))


def _writer_of(lock: str) -> dict[str, Any]:
    """Return what a lock says; nothing if there is none or it is damaged."""
    try:
        with open(lock, encoding="utf-8") as file:
            said: Any = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _remove_dead(lock: str, partial: str) -> None:
    """Remove the lock of a writer that no longer lives; raise if it does."""
    writer = _writer_of(lock)
    try:
        silent = time.time() - os.stat(lock).st_mtime
    except FileNotFoundError:
        return
    here = writer.get("host") == socket.gethostname()
    if silent < 6 * _HEARTBEAT and (not here or _is_running(writer["pid"])):
        who = f"process {writer['pid']} on {writer['host']}" if writer.get("host") else "another process"
        raise StoreError(
            f"{partial} is being written by {who}. Wait for it, or give another name; a lock that has shown no sign of "
            "life for a minute gives way."
        )
    os.remove(lock)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"  # ended, and its parent has not looked yet
    return True


def await_silence(partial: str) -> None:
    """Wait until a writer on another host has been silent for so long that its lock gives way, or shows that it lives.

    A task that was given to this host since that one was lost comes sooner than that.
    """
    lock, seen = os.path.join(partial, LOCK), 0.0
    writer = _writer_of(lock)
    while writer.get("host", "") not in ("", socket.gethostname()) and _writer_of(lock) == writer:
        try:
            last = os.stat(lock).st_mtime
        except FileNotFoundError:
            return
        if (seen and last != seen) or time.time() - last >= 6 * _HEARTBEAT:
            return
        seen = last
        time.sleep(min(1.0, _HEARTBEAT))


def _show_life(lock: str, token: str, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        with suppress(OSError):  # the store has got its name just now
            if _is_ours(lock, token):
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
