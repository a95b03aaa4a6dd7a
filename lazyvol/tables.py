"""Look-up tables: from the elements of a header to a table, and from stored numbers to its entries."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyvol.records import LookupTable

__all__ = ["TableError", "entries_of", "expand_segments", "look_up", "make_table"]

Array = npt.NDArray[Any]

_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2
"""Opcodes of the segments of a palette (DICOM PS3.3 C.7.9.2)."""
_MOST = 1 << 16
"""Entries that a table can have (DICOM PS3.3 C.11.1.1)."""


class TableError(ValueError):
    """A look-up table that its header does not describe rightly; says how."""


def make_table(
    descriptor: bytes,
    channels: Sequence[bytes],
    *,
    signed: bool,
    little_endian: bool,
    segmented: bool = False,
    kind: str = "",
) -> LookupTable:
    """Return the table that a descriptor and its data say (DICOM PS3.3 C.11.1.1, C.7.6.3.1.5, C.7.9.2).

    Parameters
    ----------
    descriptor
        Three 16-bit numbers: how many entries, the stored number of the first, and bits of an entry.
    channels
        Data of the table: one, or those of red, green and blue.
    signed, little_endian
        Whether stored numbers are signed, and the byte order of the header.
    segmented
        Whether the data are the segments of a palette.
    kind
        ModalityLUTType.

    Raises
    ------
    TableError
        If the data are not what the descriptor says.
    """
    order = "<" if little_endian else ">"
    if len(descriptor) != 6:
        raise TableError("its LUT descriptor does not hold three numbers")
    count, first, bits = struct.unpack(f"{order}H{'h' if signed else 'H'}H", descriptor)
    count = count or _MOST
    if not 8 <= bits <= 16:
        raise TableError(f"its LUT descriptor says entries of {bits} bits, and 8 to 16 are allowed")
    columns = [_column(data, count, bits, order, segmented) for data in channels]
    entries = np.stack(columns, axis=-1)
    return _shared(first, entries.dtype.str, entries.tobytes(), len(columns), kind)


@lru_cache(maxsize=64)
def _shared(first: int, dtype: str, entries: bytes, samples: int, kind: str) -> LookupTable:
    """Return one object for equal tables, so that thousands of slices share it."""
    return LookupTable(first, dtype, entries, samples, kind)


def _column(data: bytes, count: int, bits: int, order: str, segmented: bool) -> Array:
    """Return the entries of one channel, little endian."""
    if segmented:
        found = expand_segments(_words(data, order) if bits > 8 else _bytes(data, order))
        if len(found) < count:
            raise TableError(f"the segments of its palette make {len(found)} entries, and its descriptor says {count}")
        return found[:count].astype("<u2" if bits > 8 else "<u1")
    if len(data) >= 2 * count:
        return np.frombuffer(data, f"{order}u2", count).astype("<u2" if bits > 8 else "<u1")
    if bits == 8 and len(data) >= count:
        return _bytes(data, order)[:count]
    raise TableError(f"its LUT data hold {len(data)} bytes, too few for {count} entries of {bits} bits")


def _words(data: bytes, order: str) -> Array:
    return np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")


def _bytes(data: bytes, order: str) -> Array:
    """Return bytes that were written two by two, as 16-bit words of a byte order (DICOM PS3.5 7.3)."""
    even = data + b"\0" * (len(data) % 2)
    return _words(even, order).astype("<u2").view("u1")


def expand_segments(words: Array) -> Array:
    """Return the entries that the segments of a palette make (DICOM PS3.3 C.7.9.2).

    Raises
    ------
    TableError
        If they break off, or are none.
    """
    numbers = words.tolist()
    entries: list[int] = []
    at = 0
    while at + 1 < len(numbers):
        if numbers[at] == _INDIRECT:
            at = _append_indirect(numbers, at, entries, wide=words.itemsize == 2)
        else:
            at = _append_segment(numbers, at, entries)
        if len(entries) > _MOST:
            raise TableError(f"the segments of its palette make more than {_MOST} entries")
    return np.array(entries, dtype=np.uint16)


def _append_segment(numbers: list[int], at: int, entries: list[int]) -> int:
    """Append what a discrete or a linear segment makes; return where the next begins."""
    kind, length = numbers[at : at + 2]
    used = length if kind == _DISCRETE else 1
    values = numbers[at + 2 : at + 2 + used]
    if kind not in (_DISCRETE, _LINEAR) or len(values) < used or (kind == _LINEAR and not entries):
        raise TableError(f"a segment of its palette (opcode {kind}, length {length}) cannot be understood")
    if kind == _DISCRETE:
        entries += values
    elif length:
        start = entries[-1]
        entries += [round(start + (values[0] - start) * n / length) for n in range(1, length + 1)]
    return at + 2 + used


def _append_indirect(numbers: list[int], at: int, entries: list[int], *, wide: bool) -> int:
    """Append what some segments make that stand further up; return where the next begins."""
    parts = numbers[at + 2 : at + (4 if wide else 6)]
    if len(parts) < (2 if wide else 4):
        raise TableError("an indirect segment of its palette breaks off")
    size = 1 << (16 if wide else 8)
    offset = sum(part * size**n for n, part in enumerate(parts))
    where = offset // (2 if wide else 1)
    for _ in range(numbers[at + 1]):
        if where >= at or numbers[where] == _INDIRECT:
            raise TableError("an indirect segment of its palette points to none before it")
        where = _append_segment(numbers, where, entries)
        if len(entries) > _MOST:
            break
    return at + 2 + len(parts)


def entries_of(table: LookupTable) -> Array:
    """Return the entries; shape (n,), or (n, 3) of a palette."""
    entries = np.frombuffer(table.entries, table.dtype)
    return entries if table.samples == 1 else entries.reshape(-1, table.samples)


def look_up(stored: Array, table: LookupTable) -> Array:
    """Return the entry of each stored number; those beyond the table have that of its nearest end."""
    entries = entries_of(table)
    last = len(entries) - 1
    index = np.clip(stored.astype(np.int64, copy=False) - table.first, 0, last)
    return np.asarray(entries[index])
