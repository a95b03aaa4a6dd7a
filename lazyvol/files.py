"""The bytes of a file: on disk, behind a URL, in memory, or inflated; it is opened and closed within one call."""

from __future__ import annotations

import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import fsspec

from lazyvol.errors import PixelReadError, SourceNotFoundError

__all__ = ["FileSource", "InflatedFile", "ask_service", "byte_reader", "open_file", "reader_at", "service_of"]

ReadInto = Callable[[memoryview, int], int]

_STEP = 1 << 16
"""Bytes that are inflated at a time."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file that is read again later."""

    path: str
    """Its path or URL; for messages only if the content is given."""

    content: bytes | None = field(default=None, repr=False)
    """The whole file, if it is not on disk."""

    modified: int = 0
    """When it was last changed, ns since 1970, as it was opened; 0 where unknown."""

    inflated_from: int = 0
    """Byte where a deflated data set begins that offsets refer to; 0 for others."""


_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Without waiting for what has taken the place of a file, such as a pipe."""


@contextmanager
def byte_reader(source: FileSource) -> Iterator[ReadInto]:
    """Yield a function that fills a buffer from a byte on, and returns how much it could.

    Raises
    ------
    PixelReadError
        If the file has changed since its series was opened.
    OSError
        If it cannot be opened.
    """
    if source.inflated_from:
        with open_file(source) as file:
            file.seek(source.inflated_from)
            inflated = InflatedFile(file)
            yield inflated.read_into
    elif source.content is not None:
        content = source.content
        yield lambda buffer, offset: _copy(content[offset : offset + len(buffer)], buffer)
    elif "://" in source.path:
        files, name = fsspec.core.url_to_fs(source.path)
        yield lambda buffer, offset: _copy(files.cat_file(name, offset, offset + len(buffer)), buffer)
    else:
        number = os.open(source.path, _READ)
        try:
            _require_unchanged(source, number)
            yield lambda buffer, offset: _fill(number, buffer, offset)
        finally:
            os.close(number)


def open_file(source: FileSource) -> Any:
    """Return the file, open from its first byte; raise as `byte_reader` does."""
    if source.content is not None:
        return io.BytesIO(source.content)
    if "://" in source.path:
        return fsspec.open(source.path, "rb").open()
    file = open(source.path, "rb", opener=lambda path, _: os.open(path, _READ))  # noqa: SIM115  # the caller closes it
    try:
        _require_unchanged(source, file.fileno())
    except PixelReadError:
        file.close()
        raise
    return file


def reader_at(file: BinaryIO) -> Callable[[int, int], bytes]:
    """Return what reads so many bytes from a place on, of a file on disk without filling a buffer."""
    try:
        number = file.fileno() if hasattr(os, "pread") else -1
    except (OSError, AttributeError):
        number = -1
    if number >= 0:
        return lambda offset, size: os.pread(number, size, offset)

    def read_at(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return read_at


def _copy(part: bytes, buffer: memoryview) -> int:
    buffer[: len(part)] = part
    return len(part)


def _fill(file: int, buffer: memoryview, offset: int) -> int:
    done = 0
    while done < len(buffer):
        count = _read_at(file, buffer[done:], offset + done)
        if not count:
            break
        done += count
    return done


def _read_at(file: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file, [buffer], offset)
    os.lseek(file, offset, os.SEEK_SET)
    part = os.read(file, len(buffer))
    buffer[: len(part)] = part
    return len(part)


def _require_unchanged(source: FileSource, file: int) -> None:
    """Raise if a file is no longer that which was opened: its frames may lie elsewhere, or show something else."""
    if source.modified and os.fstat(file).st_mtime_ns != source.modified:
        raise PixelReadError(f"{source.path} has changed since its series was opened. Open the series again.")


class InflatedFile:
    """What a deflated data set inflates to, as a file that is read forwards (DICOM PS3.5 annex A.5).

    No more is inflated than is read, and what `read_into` passes over is not kept, so that a file of a few
    bytes cannot take up memory by inflating to gigabytes.
    """

    def __init__(self, file: BinaryIO, *, most: int = 1 << 28) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(-15)
        self._waiting = b""
        self._kept = bytearray()
        self._at = 0
        self._most = most

    def _next(self) -> bytes:
        """Return the next bytes; none at the end, or where the data are damaged."""
        while not self._inflate.eof:
            compressed = self._waiting or self._file.read(_STEP)
            try:
                part = self._inflate.decompress(compressed, _STEP)
            except zlib.error:
                return b""
            self._waiting = self._inflate.unconsumed_tail
            if part or not compressed:
                return part
        return b""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, fewer at the end; all that was read is kept, for `seek`."""
        end = sys.maxsize if size < 0 else self._at + size
        while len(self._kept) < end:
            if len(self._kept) >= self._most:
                raise ValueError(f"its header inflates to more than {self._most} bytes")
            part = self._next()
            if not part:
                break
            self._kept += part
        found = bytes(self._kept[self._at : end])
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte from the start, or from where the file stands."""
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        """Return where the file stands."""
        return self._at

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from a byte on; return how much there was. Offsets ascend from call to call."""
        done = 0
        while done < len(buffer):
            if self._at + len(self._kept) <= offset + done:
                self._at += len(self._kept)
                self._kept = bytearray(self._next())
                if not self._kept:
                    break
                continue
            start = offset + done - self._at
            part = bytes(self._kept[start : start + len(buffer) - done])
            buffer[done : done + len(part)] = part
            done += len(part)
        return done


def service_of(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec that a URL leads to, and the name of the file there."""
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SourceNotFoundError(f"{url} cannot be reached: {error}. Install what fsspec needs, e.g. s3fs.") from error
    return found


def ask_service(url: str, question: str) -> bool:
    """Return whether a file ``"exists"`` behind a URL, or is a folder, ``"isdir"``."""
    files, name = service_of(url)
    try:
        return bool(getattr(files, question)(name))
    except Exception as error:  # each service has errors of its own
        raise SourceNotFoundError(
            f"{url} cannot be reached: {type(error).__name__}. See to the address and to your rights there."
        ) from error
