"""Collections in a shell: all series converted, and how far that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from dask.utils import parse_bytes

from lazyvol.errors import OptionError, StoreError
from lazyvol.shell import as_json, has_terminal, plain_errors, print_json

__all__ = ["convert_all", "status"]

_LEAST = 500_000_000
"""Bytes that a worker needs: its imports take a third of it."""


def convert_all(
    root: str,
    out: str,
    where: str | None,
    workers: int | None,
    memory: str | None,
    options: dict[str, Any],
    choice: dict[str, Any],
) -> None:
    """Convert all series below a folder, on a cluster of this machine if workers are asked for."""
    from lazyvol import open_collection

    if where is not None and "@" in where:
        raise OptionError("--where knows the columns of the table, and no variables (@). Write their values.")
    if choice.get("on_error") == "raise":  # of frames, as without the option
        del choice["on_error"]
    found = open_collection(root, progress=has_terminal())
    with _cluster(workers, memory) as client:
        saved = found.save_zarr(out, where=where, client=client, progress=has_terminal(), options=options, **choice)
    failed = saved[saved["status"] == "failed"]
    click.echo(f"wrote {len(saved) - len(failed)} stores to {out}, {len(failed)} of {len(saved)} series failed")
    for reason, count in failed["reason"].value_counts().items():
        click.echo(f"  {count} x {reason}")
    if len(failed):
        raise SystemExit(1)


@contextmanager
def _cluster(workers: int | None, memory: str | None) -> Iterator[Any]:
    """Give a client of a cluster on this machine; None if no workers are asked for."""
    if workers is None:
        if memory:
            raise OptionError("--memory is for each of --workers. Give both.")
        yield None
        return
    try:
        enough = memory is None or parse_bytes(memory) >= _LEAST
    except ValueError:
        enough = False
    if not enough:
        raise OptionError(f"--memory {memory} should be a size such as 2GB, and no less than 500MB.")
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise OptionError("--workers needs dask.distributed. Install lazyvol[distributed].") from error
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers, threads_per_worker=1, memory_limit=memory or "auto", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


@click.command()
@click.argument("out")
@as_json
@plain_errors
def status(out: str, as_json: bool) -> None:
    """Say how far the conversion of a collection to the folder OUT is, and what failed."""
    from lazyvol.ledger import Ledger

    ledger = Ledger.read(out)
    if not ledger.run:
        raise StoreError(
            f"{out} holds no converted collection: it has no index. lazyvol convert ROOT {out} begins one."
        )
    if as_json:
        print_json({"run": ledger.run, **ledger.counts(), "series": list(ledger.series.values())})
        return
    click.echo(", ".join(f"{count} {what}" for what, count in ledger.counts().items()))
    for name, record in sorted(ledger.series.items()):
        if record.get("status") == "failed":
            click.echo(f"  {name}: {record.get('reason', '')}")
