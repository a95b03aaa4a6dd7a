"""All rows of the bench, in the order of the table."""

from __future__ import annotations

import frames
import indexing
import slices
import stores
import whole
from place import Row

__all__ = ["ROWS"]

ROWS: dict[str, Row] = {**indexing.ROWS, **slices.ROWS, **whole.ROWS, **frames.ROWS, **stores.ROWS}
