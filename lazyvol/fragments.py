"""Where the frames of an encapsulated pixel element begin and end (DICOM PS3.5 annex A.4).

The headers of its items are read, and nothing of the pixels but the first bytes of a fragment. What
the items themselves say wins over an offset table.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lazyvol.records import Instance
from lazyvol.typed import HeaderError

__all__ = ["Fragments", "frames_in", "read_fragments", "with_fragments"]

ReadAt = Callable[[int, int], bytes]
"""What returns so many bytes from a place in a file on, or fewer where it ends."""

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93, 201, 202, 203))
_STARTS = (dict.fromkeys(_JPEG, b"\xff\xd8\xff")) | dict.fromkeys(_JPEG_2000, b"\xff\x4f\xff\x51")
"""First bytes of a frame by transfer syntax (ITU-T T.81 B.1.1.3, T.800 A.4.1)."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """The items of a pixel element after the first."""

    begins: tuple[int, ...]
    """Byte in the file where each item begins, its header included."""

    heads: tuple[bytes, ...]
    """First four bytes of each item's value."""

    end: int
    """Byte after the last of them, or where the file ends."""

    torn: bool
    """Whether the file ends within the last of them."""

    closed: bool
    """Whether the mark that ends the element follows them."""

    table: tuple[int, ...]
    """Basic offset table: where each frame begins, counted from the first item."""


def with_fragments(instance: Instance, read_at: ReadAt, extended: bytes) -> Instance:
    """Return an Instance with the place of each compressed frame."""
    start = instance.frames[0].offset
    if instance.pixels.is_plain or instance.tile or start is None:
        return instance
    table = struct.unpack(f"<{len(extended) // 8}Q", extended[: len(extended) // 8 * 8])
    fragments = read_fragments(read_at, start)
    count, syntax = instance.frames[-1].index + 1, instance.pixels.transfer_syntax_uid
    places, wrong = frames_in(fragments, count=count, transfer_syntax_uid=syntax, extended=table)
    frames = tuple(f._replace(offset=o, length=n) for f, (o, n) in zip(instance.frames, places, strict=True))
    notes = (("offset-table-wrong", f"{wrong}; the items were used"),) if wrong else ()
    return instance._replace(frames=frames, notes=(*instance.notes, *notes))


def read_fragments(read_at: ReadAt, start: int) -> Fragments:
    """Walk the items of the pixel element whose value begins at a byte; raise `HeaderError` if it has none."""
    tag, length, _ = _item(read_at, start)
    if tag != _ITEM:
        raise HeaderError("its encapsulated pixels do not begin with an item", damaged=True)
    table = read_at(start + 8, length) if length < 1 << 28 else b""
    offsets = struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])
    begins: list[int] = []
    heads: list[bytes] = []
    at = start + 8 + length
    while True:
        tag, length, head = _item(read_at, at)
        if tag != _ITEM:
            return Fragments(tuple(begins), tuple(heads), at, False, tag == _SEQUENCE_END, offsets)
        begins.append(at)
        heads.append(head)
        at += 8 + length
        if len(read_at(at - 1, 1)) < 1:
            return Fragments(tuple(begins), tuple(heads), at, True, False, offsets)


def _item(read_at: ReadAt, at: int) -> tuple[bytes, int, bytes]:
    """Return tag and length of the item at a byte, and how its value begins."""
    head = read_at(at, 12)
    if len(head) < 8:
        return b"", 0, b""
    return head[:4], int.from_bytes(head[4:8], "little"), head[8:]


def frames_in(
    fragments: Fragments, *, count: int, transfer_syntax_uid: str, extended: Sequence[int] = ()
) -> tuple[list[tuple[int, int]], str]:
    """Return offset and length of each frame, its items' headers included, and what is wrong with the offset table.

    Parameters
    ----------
    fragments
        As `read_fragments` gives them.
    count
        NumberOfFrames; of frames that the file does not hold the length is 0.
    transfer_syntax_uid
        How they are compressed.
    extended
        ExtendedOffsetTable (DICOM PS3.3 C.7.6.3.1.8), if there is one.

    Raises
    ------
    HeaderError
        If nothing tells which fragments make up a frame.
    """
    begins = fragments.begins
    table = tuple(extended) or fragments.table
    asked = tuple(begins[0] + offset for offset in table) if begins else ()
    firsts = _first_items(fragments, asked, count, _STARTS.get(transfer_syntax_uid))
    ends = (*firsts[1:], fragments.end)
    places = [(first, end - first) for first, end in zip(firsts, ends, strict=True)]
    agrees = len(firsts) < len(asked) == count and asked[: len(firsts)] == firsts
    goes_on = agrees and asked[len(firsts)] > fragments.end
    if places and (fragments.torn or goes_on):
        places[-1] = (places[-1][0], 0)
    wrong = ""
    if table and (len(table) != count or asked[: len(firsts)] != firsts):
        wrong = f"its offset table of {len(table)} entries does not lead to the {len(firsts)} frames of its items"
    return places + [(fragments.end, 0)] * (count - len(places)), wrong


def _first_items(fragments: Fragments, asked: tuple[int, ...], count: int, marker: bytes | None) -> tuple[int, ...]:
    """Return the item that each frame begins with; fewer than ``count`` where the file holds fewer."""
    begins = fragments.begins
    if count == 1:
        return begins[:1]
    marked = tuple(at for at, head in zip(begins, fragments.heads, strict=True) if marker and head.startswith(marker))
    led = marked[:1] == begins[:1]
    if len(marked) == count and led:
        return marked
    one_each = len(begins) == count and not marked
    if one_each and fragments.closed:
        return begins
    held = tuple(at for at in asked if at < fragments.end)
    if _is_sound(asked, held, begins, count) and set(marked) <= set(asked):
        return held
    if one_each:
        return begins
    if marked and led and len(marked) < count:
        return marked
    if not marked and len(begins) < count and asked[: len(begins)] in ((), begins):
        return begins
    raise HeaderError(
        f"its {count} frames lie in {len(begins)} fragments, and neither an offset table nor the fragments themselves "
        "tell which belong together",
        damaged=True,
    )


def _is_sound(asked: tuple[int, ...], held: tuple[int, ...], begins: tuple[int, ...], count: int) -> bool:
    """Whether offsets lead to one item for each frame, in order, as far as the file holds them."""
    ascending = all(a < b for a, b in itertools.pairwise(asked))
    return len(asked) == count and ascending and asked[:1] == begins[:1] and set(held) <= set(begins)
