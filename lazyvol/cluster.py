"""The cluster that dask works on, if it does."""

from __future__ import annotations

import sys
from typing import Any

from lazyvol.errors import OptionError

__all__ = ["client_in_use"]

_SCHEDULERS = {"distributed", "dask.distributed"}
"""Names of the scheduler of a cluster."""


def client_in_use(client: Any = None) -> Any:
    """Return a client of ``dask.distributed``: the one given, else that in use; None if there is none.

    None, too, where dask is told to work here: ``dask.config.set(scheduler="threads")``.

    Raises
    ------
    OptionError
        If what is given is no client, is closed, or is one for asynchronous code.
    """
    if client is not None:
        _require_client(client)
        return client
    dask, distributed = (sys.modules.get(name) for name in ("dask", "distributed"))
    if dask is None or distributed is None:
        return None
    scheduler = dask.config.get("scheduler", None)
    if isinstance(scheduler, str) and scheduler not in _SCHEDULERS:
        return None
    try:
        return distributed.get_client()
    except ValueError:
        return None


def _require_client(client: Any) -> None:
    if not callable(getattr(client, "submit", None)):
        raise OptionError(f"client={client!r} is no dask.distributed.Client.")
    if getattr(client, "asynchronous", False):
        raise OptionError("the client is asynchronous, whose results are awaited. Give one with asynchronous=False.")
    if getattr(client, "status", "running") != "running":
        raise OptionError("the client is closed. Give one that is connected to its cluster.")
