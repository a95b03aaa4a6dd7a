"""The step in which the folder of a finished store takes its name, and what is taken out of it before."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import sys
import uuid
from contextlib import suppress

from lazyvol.lock import LOCK

__all__ = ["appear", "keep_only", "sweep"]


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
    os.remove(os.path.join(path, LOCK))
    for left in glob.glob(f"{glob.escape(path)}.old-{'[0-9a-f]' * 32}"):  # and those of writers that were killed here
        shutil.rmtree(left, ignore_errors=True)


def _swapped(one: str, other: str) -> bool:
    """Exchange the names of two folders in one step; return whether that was possible."""
    call = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
