"""What may leave in a store: UIDs under a keyed one-way name, and no path.

The key stays with the user: an unkeyed hash of a short identifier is guessed in seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from typing import Literal

import numpy as np
import xarray as xr

from lazyvol.convention import geometry_of, with_frame_of_reference
from lazyvol.errors import StoreError

__all__ = ["Identifiers", "pseudonym", "read_key", "without_identifiers"]

Identifiers = Literal["none", "uids"]


def read_key() -> bytes:
    """Return the key: ``LAZYVOL_KEY``, or the user's key file of mode 0600, made when first needed.

    Raises
    ------
    StoreError
        If the key file cannot be made or read, or is empty.
    """
    given = os.environ.get("LAZYVOL_KEY")
    if given:
        return given.encode()
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
            'LAZYVOL_KEY to a secret of your own, or keep the UIDs with identifiers="uids".'
        ) from error
    if not key:
        raise StoreError(f"the key file {path} is empty. Restore it, or remove it to have a new key made.")
    return key


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
    """
    if not uid:
        return ""
    digest = hmac.new(key, uid.encode(), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def without_identifiers(volume: xr.DataArray, identifiers: Identifiers) -> xr.DataArray:
    """Return the volume as it may be written: no paths, and UIDs only under other names unless asked for."""
    geometry = geometry_of(volume)
    kept = volume.drop_vars("source", errors="ignore")
    if identifiers == "uids":
        return kept
    key = read_key()
    kept = with_frame_of_reference(kept, pseudonym(geometry.frame_of_reference, key))
    if "sop_instance_uid" in kept.coords:
        uids = kept.coords["sop_instance_uid"]
        names = np.array([pseudonym(u, key) for u in uids.values.ravel()], dtype=np.dtypes.StringDType())
        kept = kept.assign_coords(sop_instance_uid=uids.copy(data=names.reshape(uids.shape)))
    return kept
