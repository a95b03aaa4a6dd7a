"""The first bytes of many files, side by side in one buffer."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

__all__ = ["READERS", "WIDTH", "Blocks"]

WIDTH = 8192
"""Bytes of a file that are read at a time; the headers of most images are shorter."""
_SPARE = 16
"""Bytes behind the last file, so that a word may be looked at where its last bytes begin."""

READERS = 16
"""How many files are read at a time where reading takes long."""
_TRIED = 16
_SLOW = 1e-4
"""Where the first files take longer than this each, s, several are read at a time."""

Rows = npt.NDArray[np.int64]


class Blocks:
    """A row of `WIDTH` bytes for each of many files, at first the first ones of the file.

    Files that cannot be read have a row of length 0; nothing is raised.
    """

    MOST = 256
    """How many files there are at most."""

    def __init__(self, most: int = MOST) -> None:
        size = most * WIDTH + _SPARE
        self.data = np.zeros(size, np.uint8)
        self.words = np.ndarray(size - 7, "<u8", self.data.data, strides=(1,))
        """The eight bytes that begin at each byte, as one number."""
        self._rows = [memoryview(self.data.data)[n * WIDTH : (n + 1) * WIDTH] for n in range(most)]
        self.paths: Sequence[str] = ()
        self.sizes: list[int] = []
        self.modified: list[int] = []
        self.lengths = np.zeros(0, np.int64)
        """How many bytes of each row are of its file."""
        self.origins = np.zeros(0, np.int64)
        """Byte of the file with which each row begins."""

    def fill(self, paths: Sequence[str]) -> None:
        """Read the first bytes of files, no more than the rows there are."""
        self.paths = paths
        if not paths:
            self.lengths = np.zeros(0, np.int64)
            return
        tasks = list(zip(paths, self._rows, strict=False))
        begin = time.perf_counter()
        status = [_read(*task) for task in tasks[:_TRIED]]
        if time.perf_counter() - begin > _SLOW * _TRIED:  # a network or a disk to wait for
            with ThreadPoolExecutor(READERS) as pool:
                status += pool.map(lambda task: _read(*task), tasks[_TRIED:])
        else:
            status += [_read(*task) for task in tasks[_TRIED:]]
        lengths, self.sizes, self.modified = (list(column) for column in zip(*status, strict=True))
        self.lengths = np.array(lengths, np.int64)
        self.origins = np.zeros(len(paths), np.int64)

    def move_on(self, row: int, by: int) -> bool:
        """Read a file again from so many bytes behind the beginning of its row; return whether it is as it was."""
        origin = int(self.origins[row]) + by
        length, size, modified = _read(self.paths[row], self._rows[row], origin)
        self.origins[row], self.lengths[row] = origin, length
        return length > 0 and (size, modified) == (self.sizes[row], self.modified[row])


def _read(path: str, row: memoryview, offset: int = 0) -> tuple[int, int, int]:
    """Read one row of a file; return how much there was, the size of the file, and when it was changed."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return 0, 0, 0
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return 0, 0, 0
        if offset:
            os.lseek(file, offset, os.SEEK_SET)
        return os.readv(file, [row]), status.st_size, status.st_mtime_ns
    except OSError:
        return 0, 0, 0
    finally:
        os.close(file)
