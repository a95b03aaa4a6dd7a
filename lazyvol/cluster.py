"""The cluster that dask works on, if it does."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["client_in_use"]

_SCHEDULERS = {"distributed", "dask.distributed"}
"""Names of the scheduler of a cluster."""


def client_in_use(client: Any = None) -> Any:
    """Return a client of ``dask.distributed``: the one given, else that in use; None if there is none.

    None, too, where dask is told to work here: ``dask.config.set(scheduler="threads")``.
    """
    dask, distributed = (sys.modules.get(name) for name in ("dask", "distributed"))
    if client is not None or dask is None or distributed is None:
        return client
    scheduler = dask.config.get("scheduler", None)
    if isinstance(scheduler, str) and scheduler not in _SCHEDULERS:
        return None
    try:
        return distributed.get_client()
    except ValueError:
        return None
