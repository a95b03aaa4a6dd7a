"""Which frames were filled because they could not be read: noted where they are read, collected where it is asked."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

import numpy as np

from lazyvol.errors import Finding, finding

__all__ = ["Failure", "failures_noted", "filled_finding", "note_failure"]

Failure = tuple[str, int]
"""Path of a file, and number of a frame in it from 0."""

_TOPIC = "lazyvol-filled"
"""Under which workers of a cluster tell their scheduler."""
_collecting: list[set[Failure]] = []
_changing = threading.Lock()


def note_failure(path: str, index: int) -> None:
    """Note that a frame was filled; on a worker of ``dask.distributed``, for its clients too."""
    with _changing:
        for collected in _collecting:
            collected.add((path, index))
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return
    try:
        worker = distributed.get_worker()
    except ValueError:  # not on a worker
        return
    worker.log_event(_TOPIC, {"path": path, "index": index})


@contextmanager
def failures_noted() -> Iterator[set[Failure]]:
    """Yield a set that holds, when the block has ended, what was noted within it, here and on the cluster in use."""
    collected: set[Failure] = set()
    before = len(_events())
    with _changing:
        _collecting.append(collected)
    try:
        yield collected
    finally:
        with _changing:
            _collecting[:] = [c for c in _collecting if c is not collected]
        collected |= {(event["path"], event["index"]) for _, event in _events()[before:]}


def _events() -> list[Any]:
    """Return what workers have told the scheduler of the current client; nothing without one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return []
    try:
        client = distributed.get_client()
    except ValueError:
        return []
    return list(client.get_events(_TOPIC) or ())


def filled_finding(volume: Any, failed: Set[Failure]) -> Finding | None:
    """Return the finding on the frames of a volume that were filled; None if none of them was.

    Parameters
    ----------
    volume
        A volume with the coordinate ``source`` of its files, and ``frame_number`` if they hold several frames.
    failed
        What was noted while it was read.
    """
    if not failed or "source" not in volume.coords:
        return None
    source = volume.coords["source"].reset_coords(drop=True)
    one_each = source.copy(data=np.ones(source.shape, int))  # without frame numbers, each file holds one frame
    number = volume.coords.get("frame_number", one_each).reset_coords(drop=True).broadcast_like(source)
    source = source.broadcast_like(number).transpose(*number.dims)
    images = zip(source.values.ravel(), number.values.ravel(), strict=True)
    bad = [not np.isnan(n) and (_absolute(str(path)), int(n) - 1) in failed for path, n in images]
    if not any(bad):
        return None
    lost = number.copy(data=np.reshape(bad, number.shape))
    along_z = lost.any([d for d in lost.dims if d != "z"]) if "z" in lost.dims else lost.any()
    slices = tuple(int(k) for k in np.flatnonzero(along_z.values)) if "z" in lost.dims else ()
    message = (
        f"{sum(bad)} of {len(bad)} images could not be read when they were saved; the fill value stands in their place."
    )
    return finding("frames-filled", message, slices=slices, values=(sum(bad), len(bad)))


def _absolute(path: str) -> str:
    return path if "://" in path or path.startswith("dataset[") else os.path.abspath(path)
