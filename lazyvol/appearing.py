"""The step in which the folder of a finished store takes its name, and what is taken out of it before."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import sys
import uuid
from contextlib import suppress

from lazyvol.errors import StoreError
from lazyvol.lock import LOCK, locked, token_of

__all__ = ["appear", "keep_only", "settle", "sweep"]


def sweep(path: str) -> None:
    """Remove the files that were not written to their end."""
    for folder, _, files in os.walk(path):
        for file in files:
            if file.endswith(".partial"):
                with suppress(FileNotFoundError):
                    os.remove(os.path.join(folder, file))


def keep_only(path: str) -> None:
    """Remove what lies beside a folder; all of a folder whose path ends with a slash."""
    folder, name = os.path.split(path)
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.name != name:
            shutil.rmtree(entry.path) if entry.is_dir() else os.remove(entry.path)


def appear(unfinished: str, path: str) -> None:
    """Give the finished store its name; where the system can, in one step that replaces the old one."""
    old = f"{path}.old-{uuid.uuid4().hex}"
    if os.path.lexists(path):
        shutil.copyfile(os.path.join(unfinished, LOCK), os.path.join(path, LOCK))  # it has the other name in between
        if _swapped(unfinished, path):
            os.rename(unfinished, old)
        else:
            os.rename(path, old)
            os.rename(unfinished, path)
    else:
        os.rename(unfinished, path)  # with its lock, so that no other writer takes it for abandoned
    _remove_replaced(path)
    os.remove(os.path.join(path, LOCK))


def settle(path: str) -> None:
    """End what a writer began that was killed after its store had got its name: its lock is there still."""
    lock, unfinished = os.path.join(path, LOCK), f"{path}.partial"
    if not os.path.exists(lock):
        return
    token = token_of(lock)
    with suppress(StoreError), locked(path):  # else it lives
        if token and token_of(os.path.join(unfinished, LOCK)) == token:  # what it has replaced
            shutil.rmtree(unfinished, ignore_errors=True)
        _remove_replaced(path)


def _remove_replaced(path: str) -> None:
    """Remove stores that were replaced, by this writer and by those that were killed before they did."""
    for left in glob.glob(f"{glob.escape(path)}.old-{'[0-9a-f]' * 32}"):
        shutil.rmtree(left, ignore_errors=True)


def _swapped(one: str, other: str) -> bool:
    """Exchange the names of two folders in one step; return whether that was possible."""
    call = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
