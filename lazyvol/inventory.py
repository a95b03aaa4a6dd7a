"""What a collection keeps of each grid that it holds: a row of its table, and how it is opened."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import signature
from math import prod
from typing import Any

import xarray as xr
from dask.base import compute as dask_compute

from lazyvol.choice import require_clean, unreadable_finding
from lazyvol.chunks import Chunks
from lazyvol.convention import findings_of, geometry_of
from lazyvol.errors import DicomReadError, LazyvolError, OptionError
from lazyvol.geometry import Geometry
from lazyvol.known import HeaderCache, Stamp
from lazyvol.labels import dimension_coordinates
from lazyvol.nifti_files import is_nifti, open_nifti
from lazyvol.opened import lazy_store, open_zarr
from lazyvol.privacy import Identifiers, pseudonym
from lazyvol.records import Instance, Skipped
from lazyvol.scan import read_patient
from lazyvol.series import Series
from lazyvol.stacks import Stack
from lazyvol.values import quantity, value_dtype
from lazyvol.volume import open_volume

__all__ = [
    "applied",
    "COLUMNS",
    "NOT_SAVED",
    "Entry",
    "Key",
    "dicom_entries",
    "open_entry",
    "patients_of",
    "plain_text",
    "row_to_save",
    "short_name",
    "sizes_of",
    "store_entry",
]

Key = tuple[str, int]
"""SeriesInstanceUID, and number of the stack in its series; for a store its path below the root, and 0."""

# fmt: off
MODALITIES = frozenset({
    "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "DX", "ECG", "EEG",
    "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "M3D",
    "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS",
    "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD",
    "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "XA",
    "XAPROTOCOL", "XC",
})
# fmt: on
"""Defined terms of Modality (DICOM PS3.3 C.7.3.1.1.1): what may be in the name of a store."""

COLUMNS = {
    "patient": "a name for the patient: PatientID under the user's key",
    "study_uid": "StudyInstanceUID",
    "name": "what its store and its node in a tree are called, without identifiers",
    "modality": "Modality",
    "number": "SeriesNumber",
    "description": "SeriesDescription",
    "body_part": "BodyPartExamined",
    "images": "frames that make it up",
    "dims": "names of the dimensions",
    "shape": "length of each dimension",
    "spacing": "(z, y, x), mm; NaN along z where slices are uneven",
    "field_of_view": "(z, y, x) from edge to edge, mm",
    "slice_thickness": "SliceThickness of its first image, mm",
    "orientation": "letters of the patient's sides that x, y and z grow towards",
    "dtype": "type of the values",
    "files": "files of the series",
    "bytes_on_disk": "bytes of these files",
    "bytes": "bytes of the values",
    "syntax": "transfer syntaxes",
    "findings": "codes of what is odd about it",
    "refusal": "why it does not open; empty if it does",
    "kind": "dicom, store or nifti",
    "path": "folder of its first file, or store",
}
"""The columns of the table of a collection; its index is the key, series_uid and stack."""
NOT_SAVED = frozenset({"description", "number", "path"})
"""Columns of which nothing is written."""


_KINDS = {"store": "store", "nifti": "NIfTI file"}
_OF_VALUES = frozenset({"dtype", "rescale", "values"})
"""Options of `open_volume` that ask for other values."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One grid of a collection: a stack of a DICOM series, or a store."""

    key: Key
    """What tells it from the others."""

    row: Mapping[str, Any]
    """Its row of the table, by the names of `COLUMNS`."""

    files: str
    """The files of its series, joined by NUL; or its store."""

    stamp: str
    """What changes when one of the files does."""

    variables: Mapping[str, xr.Variable]
    """The coordinates of its dimensions, and its geometry."""

    attrs: Mapping[str, Any]
    """What its values are, and the findings on them."""

    @property
    def paths(self) -> list[str]:
        """The files of its series."""
        return self.files.split("\0")


def open_entry(entry: Entry, **options: Any) -> xr.DataArray:
    """Return what an entry stands for as a lazy volume; options are those of `open_volume`, and it raises as that does.

    Options that say what becomes of odd series of DICOM leave stores and NIfTI files as they are; those that ask for
    other values raise.
    """
    if entry.stamp and _stamp_of(entry) != entry.stamp:
        raise DicomReadError(
            f"the files of {entry.row['path']} are not what they were when their collection was opened. Open the "
            "collection again."
        )
    if entry.row["kind"] != "dicom":
        return _open_other(entry, **options)
    return open_volume(entry.paths, stack=entry.key[1], **options)


def _open_other(entry: Entry, chunks: Chunks = "auto", **options: Any) -> xr.DataArray:
    """Open a store or a NIfTI file."""
    kind = entry.row["kind"]
    for option in sorted(_OF_VALUES & options.keys()):
        if options[option] != signature(open_volume).parameters[option].default:
            raise OptionError(
                f"{option}={options[option]!r} is for series of DICOM, and {entry.files} is a {_KINDS[kind]}. Leave it "
                "out, or select the others: query(\"kind == 'dicom'\")."
            )
    volume = (open_zarr if kind == "store" else open_nifti)(entry.files, chunks=chunks)
    require_clean(findings_of(volume), missing=options.get("missing", "warn"), strict=options.get("strict", False))
    return volume


def short_name(text: str, key: bytes) -> str:
    """Return a name of 13 letters and digits that stands for an identifier; nothing leads back without the key.

    Examples
    --------
    >>> len(short_name("1.2.3", b"key"))
    13
    """
    digest = hmac.new(key, b"name" + text.encode(), hashlib.sha256).digest()
    return base64.b32encode(digest[:8]).decode().rstrip("=").lower()


def patients_of(found: Iterable[Series], key: bytes, cache: HeaderCache) -> list[str]:
    """Return a name for the patient of each series: PatientID of one of its files, under the key."""
    instances = [series.stacks[0].slices[0].instance for series in found]
    token = short_name("patients", key)
    labels = [f"patients {token} {os.path.dirname(instance.path)}" for instance in instances]
    known = cache.known(list(dict.fromkeys(labels)))
    seen: dict[str, dict[str, tuple[Stamp, Any]]] = {label: {} for label in known}
    for label, instance in zip(labels, instances, strict=True):
        stamp = Stamp(instance.size, instance.modified, instance.modified, 0)
        stored = known[label].get(instance.path)
        if stored is None or stored[0] != stamp:
            said = read_patient(instance)
            stored = stamp, f"patient-{short_name(said, key)}" if said else "patient-unknown"
        seen[label][instance.path] = stored
    cache.keep([(label, kept) for label, kept in seen.items() if kept != known[label]])
    return [seen[label][instance.path][1] for label, instance in zip(labels, instances, strict=True)]


def dicom_entries(
    series: Series, members: Iterable[Instance], damaged: Sequence[Skipped], patient: str, key: bytes
) -> Iterator[Entry]:
    """Yield the stacks of a series.

    Parameters
    ----------
    series, members
        The series, and all of its files: copies that it does not use too.
    damaged
        Files that may be of it, and cannot be read.
    patient, key
        A name for the patient; the user's key.
    """
    instances = sorted(members, key=lambda i: i.path)
    paths = [*(i.path for i in instances), *sorted(s.path for s in damaged)]
    files, stamp = "\0".join(paths), _stamp(paths)
    unreadable = [unreadable_finding(damaged)] if damaged else []
    size = sum(i.size for i in instances)
    uid = series.uid or plain_text(os.path.dirname(instances[0].path))  # a folder of another root is another one
    token = short_name(f"{series.study_uid} {uid}", key)
    for stack in series.stacks:
        row = _row(series, stack, instances[0]) | {
            "patient": patient,
            "name": f"{series.modality if series.modality in MODALITIES else 'OT'}-{token}-{stack.number}",
            "files": len(instances),
            "bytes_on_disk": size,
        }
        findings = [*stack.findings, *unreadable]
        row["findings"] = tuple(f.code for f in findings)
        attrs: dict[str, Any] = quantity(stack.slices[:1], dict(stack.slices[0].instance.values))
        attrs |= {"Modality": series.modality, "findings": [f.to_json() for f in findings]}
        yield Entry(stack.key, row, files, stamp, _variables(stack, key), attrs)


def _row(series: Series, stack: Stack, first: Instance) -> dict[str, Any]:
    dtype = value_dtype(stack.slices)
    values = dict(stack.slices[0].values)
    return {
        "study_uid": series.study_uid,
        "modality": series.modality,
        "number": series.number,
        "description": series.description,
        "body_part": str(values.get("BodyPartExamined", "")),
        "images": len(stack.slices),
        "dims": stack.dims,
        "shape": stack.shape,
        **_extent(stack.geometry),
        "slice_thickness": _number(values.get("SliceThickness")),
        "dtype": str(dtype),
        "bytes": prod(stack.shape) * dtype.itemsize,
        "syntax": ", ".join(sorted({s.instance.pixels.transfer_syntax_uid for s in stack.slices})),
        "refusal": stack.refusal,
        "kind": "dicom",
        "path": plain_text(os.path.dirname(first.path)),
    }


def _extent(geometry: Geometry) -> dict[str, Any]:
    return {
        "spacing": tuple(geometry.spacing),
        "field_of_view": tuple(geometry.field_of_view),
        "orientation": geometry.orientation,
    }


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _variables(stack: Stack, key: bytes) -> dict[str, xr.Variable]:
    """Return the coordinates of the dimensions of a stack, which cost no look at its images; without its UIDs."""
    geometry = replace(stack.geometry, frame_of_reference=pseudonym(stack.geometry.frame_of_reference, key))
    return dimension_coordinates(stack, geometry)


def _stamp_of(entry: Entry) -> str:
    """Return what the stamp of an entry would be now."""
    return _stamp(_files_of_store(entry.files) if entry.row["kind"] == "store" else entry.paths)


def _files_of_store(path: str) -> list[str]:
    """Return the files of a store of which one changes with its content: of lazyvol its root, of other tools all."""
    root = os.path.join(path, "zarr.json")
    with suppress(OSError), open(root, "rb") as file:
        if b'"lazyvol"' in file.read():
            return [root]
    return [path] if "://" in path else sorted(os.path.join(f, name) for f, _, names in os.walk(path) for name in names)


def _stamp(paths: Iterable[str]) -> str:
    """Return what changes when one of some files does; empty where they are not on disk."""
    digest = hashlib.sha256()
    for path in paths:
        if "://" in path:
            return ""
        try:
            status = os.stat(path)
        except OSError:
            digest.update(b"gone")
        else:
            digest.update(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def plain_text(text: str) -> str:
    """Return a text that any table can hold: names of files may be no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def store_entry(path: str, root: str, said: Mapping[str, Any], key: bytes) -> Entry | Skipped:
    """Return the entry of a store or a NIfTI file, or why it does not open.

    Parameters
    ----------
    path, root
        Where it lies, and the folder of the collection.
    said
        What an index beside it says: key, patient, study_uid, number of files, and so on.
    """
    try:
        volume = open_nifti(path, chunks=None) if is_nifti(path) else lazy_store(path)
        geometry = geometry_of(volume)
    except LazyvolError as error:
        return Skipped(path, str(error).partition(". ")[0].replace(path, "it"), damaged=True)
    except Exception as error:  # whatever becomes of metadata that somebody wrote
        return Skipped(path, f"its metadata are damaged: {type(error).__name__}", damaged=True)
    name = plain_text(os.path.relpath(path, root) if "://" not in path else path)
    modality = str(volume.attrs.get("Modality", ""))
    sizes = [os.path.getsize(path)] if os.path.isfile(path) else sizes_of(path)
    row = {
        "patient": said.get("patient", ""),
        "study_uid": said.get("study_uid", ""),
        "name": said.get(
            "name", f"{modality if modality in MODALITIES else 'OT'}-{short_name(plain_text(path), key)}-0"
        ),
        "modality": modality,
        "number": None,
        "description": "",
        "body_part": str(volume.attrs.get("BodyPartExamined", "")),
        "images": prod(n for d, n in volume.sizes.items() if d not in ("y", "x", "sample")),
        "dims": tuple(map(str, volume.dims)),
        "shape": volume.shape,
        **_extent(geometry),
        "slice_thickness": _number(volume.attrs.get("SliceThickness")),
        "dtype": str(volume.dtype),
        "files": len(sizes),
        "bytes_on_disk": sum(sizes),
        "bytes": int(volume.nbytes),
        "syntax": "",
        "findings": tuple(f.code for f in findings_of(volume)),
        "refusal": "",
        "kind": "nifti" if is_nifti(path) else "store",
        "path": plain_text(path),
    }
    told = (str(said["series_uid"]), int(said["stack"])) if "series_uid" in said else (name, 0)
    variables = {str(n): c.variable for n, c in volume.coords.items() if n in volume.dims or n == "geometry"}
    attrs = {k: volume.attrs[k] for k in ("long_name", "units", "Modality", "findings") if k in volume.attrs}
    stamp = _stamp([path] if is_nifti(path) else _files_of_store(path))
    return Entry(told, row, path, stamp, variables, attrs)


def sizes_of(path: str) -> list[int]:
    """Return the bytes of each file below a folder; none of a URL."""
    if "://" in path:
        return []
    walk = os.walk(path)
    return [os.stat(os.path.join(folder, name)).st_size for folder, _, names in walk for name in names]


def row_to_save(entry: Entry, key: Key, secret: bytes, identifiers: Identifiers) -> dict[str, Any]:
    """Return the row of an entry as it may be saved: no description, number or path, and UIDs under a keyed name.

    With ``identifiers="uids"`` UIDs stay as they are. What has none is told by its path, always under a keyed name.
    """
    row, (uid, study) = entry.row, (key[0], entry.row["study_uid"])
    path = plain_text(entry.files if row["kind"] != "dicom" else os.path.dirname(entry.paths[0]))
    if not uid or (row["kind"] != "dicom" and path.endswith(uid)):
        uid = pseudonym(path, secret)
    elif identifiers != "uids":
        uid = pseudonym(uid, secret)
    kept = {k: v for k, v in row.items() if k not in NOT_SAVED}
    study = study if identifiers == "uids" else pseudonym(study, secret)
    return {"series_uid": uid, "stack": key[1], **kept, "study_uid": study}


def applied(function: Callable[[xr.DataArray], Any], entry: Entry, options: Mapping[str, Any]) -> dict[Any, Any]:
    """Return what a function makes of a volume, as columns of a table."""
    found = function(open_entry(entry, **options))
    found = dict(found) if isinstance(found, Mapping) and not isinstance(found, xr.Dataset) else {"result": found}
    if "error" in found:
        raise OptionError("the function returns something called 'error', which is the column of failures. Rename it.")
    (computed,) = dask_compute(found)  # type: ignore[no-untyped-call]
    return {name: _plain(value) for name, value in computed.items()}


def _plain(value: Any) -> Any:
    """Return a number instead of an array of one."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
