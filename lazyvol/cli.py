"""lazyvol in a shell: scan, info, convert, plot and demo."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lazyvol.cli_many import convert_all, status
from lazyvol.errors import StoreError
from lazyvol.shell import as_json, has_terminal, plain_errors, print_json, with_options

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from lazyvol.collection import Collection
    from lazyvol.geometry import ZYX

__all__ = ["main"]

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lazyvol")
def main() -> None:
    """Medical volumes as lazy arrays: look, plot and convert without loading them."""


main.add_command(status)


_choices = (
    click.option("--series", help="UID, number or description of the series, where there are several."),
    click.option("--stack", type=int, help="Which grid of the series; 0, the one with most slices, without."),
    click.option("--siblings", is_flag=True, default=None, help="For a file: the whole series that it belongs to."),
    click.option(
        "--missing",
        type=click.Choice(["warn", "raise", "fill"]),
        help="Where slices are missing: warn (without), raise, or fill with NaN.",
    ),
    click.option(
        "--duplicates",
        type=click.Choice(["raise", "first", "axis"]),
        help="Where nothing tells images apart: raise (without), keep the first, or all along an axis.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(["raise", "fill"]),
        help="Where a frame cannot be read: raise (without), or fill with NaN and go on.",
    ),
    click.option(
        "--values",
        type=click.Choice(["rescaled", "real_world", "philips_fp"]),
        help="Which values: after slope and intercept (without), or those that the header maps them to.",
    ),
    click.option("--no-rescale", "rescale", flag_value=False, default=None, help="The stored numbers."),
    click.option("--mask-padding", is_flag=True, default=None, help="NaN where pixels are padding."),
)


def _choosing(command: Command) -> Command:
    """Add the options that choose what is opened of DICOM."""
    for option in reversed(_choices):
        command = option(command)
    return command


@main.command()
@click.argument("folder")
@as_json
@click.option("--table", help="Write the table without identifiers: a name that ends in .csv or .parquet.")
@click.option("--no-cache", "cached", flag_value=False, default=True, help="Read all headers, and keep none.")
@plain_errors
def scan(folder: str, as_json: bool, table: str | None, cached: bool) -> None:
    """List the series and stores below FOLDER: shape, spacing, field of view, findings.

    Reads headers only, and of files that it knows not even these. Ends with what was skipped, and why.
    """
    from lazyvol import open_collection

    if _is_store(folder):
        raise StoreError(f"{folder} is a Zarr store, no folder of DICOM. lazyvol info {folder} describes it.")
    found = open_collection(folder, cache="auto" if cached else None, progress=has_terminal())
    if table:
        found.save(table)
    if as_json:
        skipped = [{"path": s.path, "reason": s.reason} for s in found.skipped]
        print_json({"series": found.table.reset_index().to_dict("records"), "skipped": skipped})
        return
    click.echo(_table_text(found.table.reset_index()))
    for line in _skipped_lines(found):
        click.echo(line)


def _table_text(table: pd.DataFrame) -> str:
    if table.empty:
        return "no series"
    shown: dict[str, list[str]] = {
        "no.": ["-" if _absent(n) else f"{int(n)}" for n in table["number"]],
        "stack": [str(n) for n in table["stack"]],
        "kind": list(table["modality"]),
        "description": [d if len(d) <= 24 else d[:21] + "..." for d in table["description"]],
        "images": [str(n) for n in table["images"]],
        "dims": [", ".join(d) for d in table["dims"]],
        "shape": ["x".join(map(str, s)) for s in table["shape"]],
        "spacing (z, y, x) mm": [_triple(s) for s in table["spacing"]],
        "field of view mm": [_triple(s) for s in table["field_of_view"]],
        "dirs": [o or "-" for o in table["orientation"]],
        "dtype": list(table["dtype"]),
        "findings": [
            with_options(_findings_text(f, r)) for f, r in zip(table["findings"], table["refusal"], strict=True)
        ],
    }
    widths = [max(len(head), *(len(cell) for cell in cells)) for head, cells in shown.items()]
    rows = [list(shown), *zip(*shown.values(), strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _absent(number: Any) -> bool:
    return number is None or (isinstance(number, float) and math.isnan(number))


def _findings_text(codes: tuple[str, ...], refusal: str) -> str:
    return "; ".join([*([f"does not open: {refusal}"] if refusal else []), *codes]) or "-"


def _triple(values: tuple[float, ...] | ZYX) -> str:
    return " ".join(f"{v:.4g}" if v < 1000 else f"{v:.0f}" for v in values)


def _skipped_lines(found: Collection) -> list[str]:
    reasons = Counter(s.reason for s in found.skipped)
    lines = [f"{found.table['images'].sum()} images, {len(found.skipped)} files skipped"]
    return lines + [f"  {n} x {reason}" for reason, n in reasons.most_common()]


@main.command()
@click.argument("path")
@_choosing
@as_json
@plain_errors
def info(path: str, as_json: bool, **choice: Any) -> None:
    """Describe the volume at PATH: a DICOM folder or file, a Zarr store, or a NIfTI file.

    Reads headers only.
    """
    volume = _open(path, choice)
    facts = _facts(volume)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if name != "findings":
            click.echo(f"{name.replace('_', ' '):15s} {_fact_text(value)}")
    click.echo(f"{'findings':15s} {len(facts['findings']) or 'none'}")
    for line in volume.vol.findings:
        click.echo(f"  {with_options(str(line))}")


def _open(path: str, choice: dict[str, Any]) -> xr.DataArray:
    """Open what is at a path, with those options that were given."""
    from lazyvol import open_nifti, open_volume, open_zarr
    from lazyvol.nifti_files import is_nifti

    given = {name: value for name, value in choice.items() if value is not None}
    nifti = is_nifti(path) and os.path.isfile(path)
    if not (nifti or _is_store(path)):
        return open_volume(path, **given)
    if given:
        kind = "NIfTI file" if nifti else "Zarr store"
        raise StoreError(
            f"{path} is a {kind}, which holds one volume; {next(iter(given))}= is for DICOM. Leave it out."
        )
    return open_nifti(path) if nifti else open_zarr(path)


def _is_store(path: str) -> bool:
    """Whether there is a Zarr store, or one whose writing was not finished."""
    unfinished = not os.path.exists(path) and os.path.isdir(f"{path}.partial")
    return unfinished or any(os.path.exists(os.path.join(path, mark)) for mark in ("zarr.json", ".zgroup"))


def _facts(volume: xr.DataArray) -> dict[str, Any]:
    geometry = volume.vol.geometry
    sides = dict(zip("zyx", geometry.axis_letters if geometry.orientation else ("?",) * 3, strict=True))
    return {
        "modality": volume.attrs.get("Modality", ""),
        "dims": list(map(str, volume.dims)),
        "shape": list(volume.shape),
        "spacing": dict(geometry.spacing._asdict()),
        "field_of_view": dict(geometry.field_of_view._asdict()),
        "origin": list(geometry.origin),
        "orientation": geometry.orientation or "unknown",
        "labels_grow_towards": sides,
        "dtype": str(volume.dtype),
        "units": volume.attrs.get("units", ""),
        "bytes": int(volume.nbytes),
        "findings": [json.loads(line.to_json()) for line in volume.vol.findings],
    }


def _fact_text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return "  ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in value)
    return str(value) if value != "" else "-"


@main.command()
@click.argument("path")
@click.argument("out")
@_choosing
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--levels", type=int, help="How many resolutions, full one included; as many as it takes if absent.")
@click.option(
    "--identifiers", type=click.Choice(["none", "uids"]), default="none", show_default=True, help="Keep UIDs."
)
@click.option(
    "--where", help="Of a collection: only rows of its table for which this holds, e.g. \"modality == 'CT'\"."
)
@click.option("--workers", type=click.IntRange(min=1), help="Of a collection: so many processes do it.")
@click.option("--memory", help="Memory of each of them, such as 2GB.")
@plain_errors
def convert(
    path: str,
    out: str,
    overwrite: bool,
    levels: int | None,
    identifiers: Any,
    where: str | None,
    workers: int | None,
    memory: str | None,
    **choice: Any,
) -> None:
    """Write the volume at PATH as chunked, sharded OME-Zarr to OUT, with a progress bar.

    If OUT does not end in .zarr, every series below PATH becomes a store of its own in the folder OUT. What was
    stopped goes on where it was.
    """
    from lazyvol import save_zarr

    asked: Any = "auto" if levels is None else levels
    if not out.rstrip("/").endswith(".zarr") and "://" not in out and os.path.isdir(path) and not _is_store(path):
        given = {name: value for name, value in choice.items() if value is not None}
        for name in ("series", "stack", "siblings"):
            if name in given:
                raise StoreError(f"--{name} is for one volume: give an OUT that ends in .zarr, or choose with --where.")
        if overwrite:
            raise StoreError("--overwrite is for one volume; a collection goes on with what is there.")
        convert_all(path, out, where, workers, memory, {"levels": asked}, {"identifiers": identifiers, **given})
        return
    if where or workers or memory:
        raise StoreError(f"--where, --workers and --memory are for collections: give a folder as OUT, not {out}.")
    volume = _open(path, choice)
    save_zarr(volume, out, overwrite=overwrite, levels=asked, identifiers=identifiers, progress=has_terminal())
    click.echo(f"wrote {out}")


@main.command()
@click.argument("store")
@click.option("--group", help="A group of the store, such as labels/organs.")
@plain_errors
def verify(store: str, group: str | None) -> None:
    """Compare every file of the Zarr store STORE with the checksum of what was written."""
    from lazyvol import verify_zarr

    found = verify_zarr(store, group=group)
    for line in found.damaged:
        click.echo(line)
    click.echo(f"{found.shards} shards, {found.bytes} bytes: {len(found.damaged) or 'nothing'} damaged")
    if found.damaged:
        raise SystemExit(1)


@main.command()
@click.argument("path")
@click.option("--z", "z", type=float, multiple=True, help="Cut across z at this position, mm. May be repeated.")
@click.option("--y", "y", type=float, multiple=True, help="Cut across y, mm.")
@click.option("--x", "x", type=float, multiple=True, help="Cut across x, mm.")
@click.option("--window", help="One of the header's, for CT lung, soft-tissue, bone, brain or liver, or CENTRE,WIDTH.")
@click.option("-o", "--output", default="slice.png", show_default=True, help="Picture to write: .png, .pdf or .svg.")
@_choosing
@plain_errors
def plot(
    path: str,
    z: tuple[float, ...],
    y: tuple[float, ...],
    x: tuple[float, ...],
    window: str | None,
    output: str,
    **choice: Any,
) -> None:
    """Plot cuts through the volume at PATH; reads just what they show."""
    volume = _open(path, choice)
    _save_picture(volume, output, z=z or None, y=y or None, x=x or None, window=_window(window))
    click.echo(f"wrote {output}")


def _window(text: str | None) -> Any:
    parts = (text or "").split(",")
    try:
        return (float(parts[0]), float(parts[1])) if len(parts) == 2 else text
    except ValueError:
        return text


def _save_picture(volume: xr.DataArray, output: str, **cuts: Any) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from lazyvol import plot_slices
    from lazyvol.errors import PlotError

    figure: Any = plot_slices(volume, **cuts)[0].axes.figure
    try:
        figure.savefig(output, dpi=110)
    except (OSError, ValueError) as error:
        raise PlotError(f"{output} cannot be written: {error}.") from error
    finally:
        plt.close("all")


@main.command()
@click.argument("folder", default="lazyvol-demo")
@plain_errors
def demo(folder: str) -> None:
    """Make a whole-body CT phantom as DICOM files in FOLDER, and do the main job on it."""
    import lazyvol as lv
    from lazyvol.phantom import write_body_ct

    dicom, store = os.path.join(folder, "dicom"), os.path.join(folder, "body.zarr")
    os.makedirs(folder, exist_ok=True)
    with click.progressbar(length=160, label="1  write 160 DICOM files") as bar:
        write_body_ct(dicom, progress=lambda _done, _total: bar.update(1))
    scan = lv.scan_headers(dicom, progress=has_terminal())
    click.echo(f"2  scan: {len(scan.instances)} images in {len(lv.group_series(scan.instances))} series")
    body = lv.open_volume(dicom)
    click.echo(
        f"3  open: {dict(body.sizes)} {body.dtype} {body.attrs['units']}, {body.nbytes / 1e6:.1f} MB, none of it read"
    )
    view = lv.field_of_view(body)
    click.echo(
        f"4  field of view: {view.z:g} x {view.y:g} x {view.x:g} mm (z, y, x), spacing {_triple(body.vol.spacing)} mm"
    )
    picture = os.path.join(folder, "slices.png")
    _save_picture(body, picture, z=85.0, y=-25.0, x=0.0, window="soft-tissue")
    lung = os.path.join(folder, "lung.png")
    _save_picture(body, lung, z=110.0, window="lung")
    click.echo(f"5  plot: {picture} and {lung}")
    lv.save_zarr(body, store, overwrite=True, progress=has_terminal())
    again = lv.open_zarr(store)
    same = bool((again == body).all())
    click.echo(f"6  Zarr: {store}, {'equal' if same else 'NOT equal'} to the DICOM series when opened again")
    click.echo(f"\nAll results are in {os.path.abspath(folder)}. Look at them:\n  lazyvol info {store}")
    if not same:
        raise click.ClickException("the store differs from the series")
