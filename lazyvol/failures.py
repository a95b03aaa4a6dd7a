"""Which frames were filled because they could not be read: noted where they are read, collected where it is asked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Failure", "failures_noted", "note_failure"]

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
