"""What may leave in a store: UIDs under a keyed one-way name, words of a scanner, and no path.

The key stays with the user: an unkeyed hash of a short identifier is guessed in seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal

import numpy as np
import xarray as xr

from lazyvol.convention import geometry_of, with_frame_of_reference
from lazyvol.errors import LazyvolWarning, StoreError
from lazyvol.keywords import WORDS, snake_case

__all__ = [
    "TERMS",
    "WINDOW_WORDS",
    "Identifiers",
    "names_key",
    "pseudonym",
    "read_key",
    "using_key",
    "without_identifiers",
]

Identifiers = Literal["none", "uids"]

TERMS = frozenset(
    {
        "BodyPartExamined",
        "ComplexImageComponent",
        "ConvolutionKernel",
        "DecayCorrection",
        "DoseType",
        "DoseUnits",
        "FilterType",
        "ImageType",
        "LossyImageCompression",
        "Manufacturer",
        "ManufacturerModelName",
        "Modality",
        "PatientPosition",
        "RescaleType",
        "ScanningSequence",
        "SegmentationFractionalType",
        "SegmentationType",
        "SequenceVariant",
        "Units",
        "VOILUTFunction",
    }
)
"""Words of headers that a store holds as they are: a machine writes them, and table E.1-1 of PS3.15 lists none."""

# fmt: off
WINDOW_WORDS = frozenset({
    "abdomen", "air", "algo", "angio", "aorta", "auto", "average", "bone", "brain", "breast", "calcium", "cardiac",
    "cerebrum", "chest", "contrast", "coronary", "cta", "default", "disc", "dose", "ear", "enhanced", "extremity",
    "face", "fat", "fluid", "fossa", "full", "general", "hard", "harder", "head", "heart", "high", "hip", "hr",
    "hu", "inner", "kidney", "knee", "larynx", "level", "liver", "low", "lower", "lumbar", "lung", "lut", "mean",
    "mediastinum", "medium", "minmax", "neck", "normal", "orbit", "orbits", "pancreas", "parenchyma", "pelvis",
    "petrous", "posterior", "preset", "primary", "range", "sharp", "shoulder", "sinus", "skin", "skull", "smooth",
    "soft", "softer", "spine", "spleen", "standard", "stent", "stroke", "subdural", "temporal", "thorax", "tissue",
    "tissues", "trachea", "upper", "user", "vascular", "vertebra", "vessel", "vessels", "voi", "wide", "width",
    "window", "wl", "ww",
})
# fmt: on
"""What explanations of windows are made of; one that has any other word may have been typed by a person."""
_EXPLANATION = "WindowCenterWidthExplanation"
_UID = re.compile(r"[0-2](\.[0-9]+){3,}")
"""What a UID looks like (DICOM PS3.5 section 9.1), zeros before its numbers or not.

It is told by its value, since a coordinate may have been renamed.
"""
_PATH = re.compile(r"(/|[A-Za-z]:\\|\w+://).*[/\\]")
"""What the path or URL of a file looks like."""
_UIDS = "sop_instance_uid"


_given: ContextVar[bytes] = ContextVar("key", default=b"")


@contextmanager
def using_key(key: bytes) -> Iterator[None]:
    """Have `read_key` return a key within the block: on a worker that has not that of the user."""
    before = _given.set(key)
    try:
        yield
    finally:
        _given.reset(before)


def read_key() -> bytes:
    """Return the key: ``LAZYVOL_KEY``, or the user's key file of mode 0600, made when first needed.

    Raises
    ------
    StoreError
        If the key file cannot be made or read, or is empty.
    """
    given = _given.get() or os.environ.get("LAZYVOL_KEY", "").encode()
    if given:
        return given
    folder = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "lazyvol")
    path = os.path.join(folder, "key")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.path.exists(path):
            _make_key(path)
        with open(path, "rb") as file:
            key = file.read().strip()
    except OSError as error:
        raise StoreError(
            f"the key that replaces UIDs cannot be kept in {path}: {error.strerror}. Set the environment variable "
            "LAZYVOL_KEY to a secret of your own; to save one volume, identifiers='uids' does without."
        ) from error
    if not key:
        raise StoreError(f"the key file {path} is empty. Restore it, or remove it to have a new key made.")
    return key


def names_key() -> bytes:
    """Return the key, for names that are not written; where it cannot be kept, one of this process, with a warning."""
    try:
        return read_key()
    except StoreError as error:
        message = f"{error} Until then names of patients, studies and stores are those of this process alone."
        warnings.warn(message, LazyvolWarning, stacklevel=2)
        return _key_of_process()


@cache
def _key_of_process() -> bytes:
    return secrets.token_bytes(32)


def _make_key(path: str) -> None:
    """Make the key file whole or not at all; of several makers at once the first wins."""
    new = f"{path}.{secrets.token_hex(8)}"
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_hex(32).encode())
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        os.remove(new)


def pseudonym(uid: str, key: bytes) -> str:
    """Return the UID that stands for another: equal ones stay equal, and nothing leads back without the key.

    Examples
    --------
    >>> pseudonym("1.2.3", b"key") == pseudonym("1.2.3", b"key") != pseudonym("1.2.3", b"other")
    True
    >>> pseudonym("", b"key")
    ''
    >>> pseudonym(pseudonym("1.2.3", b"key"), b"key") == pseudonym("1.2.3", b"key")
    True
    """
    if not uid or _is_pseudonym(uid, key):
        return uid
    head = hmac.new(key, uid.encode(), hashlib.sha256).digest()[:_HEAD]
    return f"2.25.{int.from_bytes(head + _tail(head, key), 'big')}"


_HEAD, _TAIL = 10, 6
"""Bytes of a pseudonym that stand for the UID, and those by which the holder of the key knows it."""


def _tail(head: bytes, key: bytes) -> bytes:
    return hmac.new(key, b"pseudonym" + head, hashlib.sha256).digest()[:_TAIL]


def _is_pseudonym(uid: str, key: bytes) -> bool:
    """Whether a UID was made with the key already: a volume of a store may be saved again."""
    number = uid.removeprefix("2.25.")
    if number == uid or not number.isdecimal() or int(number) >= 1 << 8 * (_HEAD + _TAIL):
        return False
    raw = int(number).to_bytes(_HEAD + _TAIL, "big")
    return hmac.compare_digest(raw[_HEAD:], _tail(raw[:_HEAD], key))


def without_identifiers(volume: xr.DataArray, identifiers: Identifiers) -> xr.DataArray:
    """Return a volume as it may be written, lazily.

    Paths are left out. Of the words that come from headers (`keywords.WORDS`), those of `TERMS` stay, explanations of
    windows stay if they are made of `WINDOW_WORDS` and numbers, else they become ``window 1`` and so on, and all others
    are left out. UIDs are under other names: SOPInstanceUIDs whatever they look like, others where they are all of a
    text, of a coordinate or attribute or in a list of these. Texts that are paths of files are left out. Both stay
    if ``identifiers`` is ``"uids"``. What else the user added stays.

    Raises
    ------
    StoreError
        If the key cannot be kept or read.
    GeometryError
        If the array carries no geometry.
    """
    geometry = geometry_of(volume)
    kept = _with_words(volume.drop_vars("source", errors="ignore"))
    if identifiers == "uids":
        return kept
    key = read_key()
    kept = with_frame_of_reference(kept, pseudonym(geometry.frame_of_reference, key))
    texts = [n for n, c in kept.coords.items() if c.dtype.kind in "OUT"]
    paths = [n for n in texts if n != _UIDS and any(_PATH.match(str(v)) for v in kept.coords[n].values.flat)]
    kept = kept.drop_vars(paths)

    def hidden(text: str) -> str:
        return pseudonym(text, key) if _UID.fullmatch(text) else text

    def all_hidden(text: str) -> str:  # what stands in the place of a UID may be anything
        return pseudonym(text, key)

    changes = {n: all_hidden if n == _UIDS else hidden for n in texts if n not in paths}
    kept = kept.assign_coords({n: _each(kept.coords[n], change) for n, change in changes.items()})
    kept.attrs = {k: _in_value(v, hidden) for k, v in kept.attrs.items() if not _is_path(v)}
    return kept


def _in_value(value: Any, hidden: Callable[[str], str]) -> Any:
    """Return an attribute with its texts, also those of a list or mapping, changed."""
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, list | tuple):
        return [_in_value(v, hidden) for v in value if not _is_path(v)]
    if isinstance(value, Mapping):
        return {k: _in_value(v, hidden) for k, v in value.items() if not _is_path(v)}
    return value


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(_PATH.match(value))


def _with_words(volume: xr.DataArray) -> xr.DataArray:
    """Return the volume with those words of its header that a store may hold."""
    dropped = WORDS.keys() - TERMS - {_EXPLANATION}
    kept = volume.drop_vars([snake_case(k) for k in dropped], errors="ignore")
    kept = kept.copy(deep=False)  # or the volume of the user would lose them
    kept.attrs = {k: v for k, v in kept.attrs.items() if k not in dropped}
    if _EXPLANATION in kept.attrs:
        kept.attrs[_EXPLANATION] = _explained(kept.attrs[_EXPLANATION])
    name = snake_case(_EXPLANATION)
    return kept.assign_coords({name: _each(kept.coords[name], _explained)}) if name in kept.coords else kept


def _explained(names: Any) -> Any:
    """Return explanations of windows, a text of several as DICOM joins them or a list, without free text."""
    if isinstance(names, str):
        return "\\".join(_explained(names.split("\\")))
    return [name if _is_known(str(name)) else f"window {n}" for n, name in enumerate(names, start=1)]


def _is_known(name: str) -> bool:
    """Whether a window is called by known words, and at most two numbers of up to three digits, alone."""
    words, numbers = re.findall(r"[^\W\d_]+", name), re.findall(r"\d+", name)
    known = all(word.lower() in WINDOW_WORDS for word in words)
    return known and len(numbers) < 3 and all(len(n) < 4 for n in numbers)


def _each(coordinate: xr.DataArray, change: Callable[[str], str]) -> xr.DataArray:
    """Return a coordinate of texts with each of them changed."""
    texts = [change(text) for text in coordinate.values.ravel()]
    return coordinate.copy(data=np.array(texts, dtype=np.dtypes.StringDType()).reshape(coordinate.shape))
