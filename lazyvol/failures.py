"""Which frames were filled because they could not be read: told, where they are read, to who listens."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from lazyvol.cluster import client_in_use
from lazyvol.errors import Finding, finding

__all__ = ["Failure", "ImagesByFrame", "failures_told", "filled_finding", "note_failure"]

Failure = tuple[str, int]
"""Path of a file, and number of a frame in it from 0."""

Listener = Callable[[Failure], None]

_listeners: dict[str, Listener] = {}
_changing = threading.Lock()


def note_failure(path: str, index: int) -> None:
    """Tell all who listen that a frame was filled."""
    with _changing:
        listeners = list(_listeners.values())
    for listener in listeners:
        listener((path, index))


@contextmanager
def failures_told(listener: Listener, name: str) -> Iterator[None]:
    """Tell a function each frame that is filled within the block, where it is filled and before its values are used.

    Parameters
    ----------
    listener
        What is called; pickled, on each worker of the cluster in use.
    name
        What it is called among others.
    """
    client = client_in_use()
    _listen(name, listener)
    try:
        if client is not None:
            client.register_plugin(_plugin(name, listener), name=name)
        yield
    finally:
        _listen(name, None)
        if client is not None:
            with suppress(OSError, RuntimeError, TimeoutError):  # the cluster is gone
                client.unregister_worker_plugin(name)


def _listen(name: str, listener: Listener | None) -> None:
    with _changing:
        if listener is None:
            _listeners.pop(name, None)
        else:
            _listeners[name] = listener


def _plugin(name: str, listener: Listener) -> Any:
    """Return what has workers tell the listener, those that start later too."""
    distributed: Any = sys.modules["distributed"]

    class Told(distributed.WorkerPlugin):  # type: ignore[misc]  # its base is imported where it is used
        def setup(self, worker: Any) -> None:  # noqa: ARG002  # as distributed calls it
            _listen(name, listener)

        def teardown(self, worker: Any) -> None:  # noqa: ARG002
            _listen(name, None)

    return Told()


class ImagesByFrame:
    """The numbers of the images of a volume, by the frame that each is made of.

    Parameters
    ----------
    volume
        A volume with the coordinate ``source`` of its files, and ``frame_number`` if they hold several frames; without
        them, no image is known to be made of any frame.
    """

    def __init__(self, volume: Any) -> None:
        self._columns: tuple[Any, Any] = (np.array([], str), np.array([]))
        if "source" in volume.coords:
            source, number = _frames_of(volume)
            self._columns = source.values.ravel(), number.values.ravel()
        self.count = len(self._columns[0])
        """How many images there are."""
        self._found: dict[Failure, list[int]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _images_of, self._columns

    def of(self, frame: Failure) -> list[int]:
        """Return the numbers of the images that are made of a frame."""
        if self._found is None:  # most often none is asked for
            found: dict[Failure, list[int]] = {}
            for image, (path, n) in enumerate(zip(*self._columns, strict=True)):
                if not np.isnan(n):
                    found.setdefault((_absolute(str(path)), int(n) - 1), []).append(image)
            self._found = found
        return self._found.get(frame, [])


def _images_of(*columns: Any) -> ImagesByFrame:
    """Return what was pickled."""
    images = ImagesByFrame.__new__(ImagesByFrame)
    images._columns, images._found, images.count = columns, None, len(columns[0])
    return images


def _frames_of(volume: Any) -> tuple[Any, Any]:
    """Return the file of each image, and the number of its frame from 1."""
    source = volume.coords["source"].reset_coords(drop=True)
    one_each = source.copy(data=np.ones(source.shape, int))  # without frame numbers, each file holds one frame
    number = volume.coords.get("frame_number", one_each).reset_coords(drop=True).broadcast_like(source)
    return source.broadcast_like(number).transpose(*number.dims), number


def filled_finding(volume: Any, filled: Collection[int]) -> Finding | None:
    """Return the finding on the images of a volume that were filled; None if none of them was.

    Parameters
    ----------
    volume
        As for `ImagesByFrame`.
    filled
        Their numbers, as it has them.
    """
    if not filled:
        return None
    _, number = _frames_of(volume)
    bad = np.isin(np.arange(number.size), list(filled))
    lost = number.copy(data=bad.reshape(number.shape))
    along_z = lost.any([d for d in lost.dims if d != "z"]) if "z" in lost.dims else lost.any()
    slices = tuple(int(k) for k in np.flatnonzero(along_z.values)) if "z" in lost.dims else ()
    count = int(bad.sum())
    message = (
        f"{count} of {bad.size} images could not be read when they were saved; the fill value stands in their place."
    )
    return finding("frames-filled", message, slices=slices, values=(count, bad.size))


def _absolute(path: str) -> str:
    return path if "://" in path or path.startswith("dataset[") else os.path.abspath(path)
