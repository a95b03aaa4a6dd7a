"""The table of a collection as a file, without what must not leave."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lazyvol.errors import OptionError
from lazyvol.inventory import COLUMNS, NOT_SAVED, Entry, Key, row_to_save
from lazyvol.privacy import Identifiers, read_key

__all__ = ["save_table"]


def save_table(entries: Mapping[Key, Entry], name: str, identifiers: Identifiers) -> None:
    """Write the rows of entries by their keys as CSV or Parquet, whichever the name ends with."""
    if identifiers not in ("none", "uids"):
        raise OptionError(f"identifiers={identifiers!r} can be 'none' or 'uids'.")
    secret = read_key()
    saved = []
    for key, entry in entries.items():
        kept = row_to_save(entry, key, secret, identifiers)
        saved.append({k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()})
    names = ["series_uid", "stack", *(n for n in COLUMNS if n not in NOT_SAVED)]
    table = pd.DataFrame(saved, columns=names)
    if name.endswith(".csv"):
        table.map(lambda v: " ".join(map(str, v)) if isinstance(v, list) else v).to_csv(name, index=False)
    elif name.endswith(".parquet"):
        try:
            table.to_parquet(name, index=False)
        except ImportError as error:
            raise OptionError(f"{name} needs pyarrow. Install lazyvol[parquet], or save a .csv.") from error
    else:
        raise OptionError(f"{name} must end in .csv or .parquet.")
