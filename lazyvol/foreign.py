"""OME-Zarr images that other tools wrote, as volumes.

What the store says is taken, and nothing else: an axis without unit has labels and no mm, and
without anatomical orientation the place in the patient is unknown, with a finding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from lazyvol.convention import geometry_coordinates
from lazyvol.errors import Finding, StoreError, finding
from lazyvol.nifti import NiftiHeader, nifti_header
from lazyvol.omezarr import LENGTHS, TIMES, Level, image_metadata, read_level
from lazyvol.place import Place
from lazyvol.placement import Placement, place_level

__all__ = ["ForeignImage", "foreign_volume", "is_foreign", "paths_of_image"]

ZYX_AXES: Final = ("z", "y", "x")
_COLOURS: Final = (("r", "g", "b"), ("red", "green", "blue"))
_TAKEN: Final = ("geometry", "image", "sample")


def paths_of_image(place: Place) -> set[str]:
    """Return what an array or an OME-Zarr image of another tool has at the root of a store: metadata, arrays."""
    found = {"zarr.json", ".zgroup", ".zattrs", ".zmetadata", ".zarray"}
    try:
        root = zarr.open(place.store, mode="r")
        if isinstance(root, zarr.Array):
            return found | {"c"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr warns of what is none of its own
            found |= {name for name, _ in root.arrays()}
        levels: Any = (image_metadata(root.attrs) or {})["multiscales"][0]["datasets"]
        return found | {str(level["path"]).split("/")[0] for level in levels}
    except Exception:  # it is no image, or a damaged one
        return found


def is_foreign(group: zarr.Group) -> bool:
    """Return whether a group is an OME-Zarr image; its metadata may still be malformed."""
    return image_metadata(group.attrs) is not None


def foreign_volume(group: zarr.Group, level: int = 0) -> xr.DataArray:
    """Return one level of an OME-Zarr image as a volume, lazily and without dask.

    Dimensions are ``time``, axes of the store's own, ``channel``, then z, y, x; three channels that are named red,
    green and blue are a last dimension ``sample``, and an image of y and x alone has one slice. Labels are in mm, those
    of time in s. Directions come from the header of nifti-zarr, from a transformation to a
    coordinate system with anatomical axes (0.6), or from orientations of the axes (RFC-4): a label counts along the
    direction that its axis points to, so x = 10 mm on an axis from left to right is 10 mm to the patient's right.

    Parameters
    ----------
    group
        The image: a group whose attributes have ``multiscales``.
    level
        Number of the resolution, 0 for the finest.

    Returns
    -------
    xarray.DataArray
        Its values are read when they are asked for; ``encoding["preferred_chunks"]`` has the length of shards, or of
        chunks, by dimension. The numbers of a nifti-zarr with slope and intercept are rescaled.

    Raises
    ------
    OptionError
        If there is no such level.
    StoreError
        If the metadata or the array cannot be understood; names the entry. Also when values are read.
    """
    where = _name(group)
    metadata = image_metadata(group.attrs)
    if metadata is None:
        raise StoreError(
            f"{where} is no OME-Zarr image: its attributes have no multiscales. Give the group of an image."
        )
    metadata = _with_numbers(group, metadata, where)
    found = read_level(metadata, level, where)
    array = _array(group, found, where)
    header = _nifti(group, metadata, where)
    channels = _channels(metadata)
    dims = _dims(found, array, channels, where)
    order = [d for d in _ordered(dims) if d in dims or d == "z"]
    image = ForeignImage(array, [dims.index(d) if d in dims else None for d in order], header)
    placed = place_level(
        found, _shape(found, array), where, header=header, finest=read_level(metadata, 0, where) if header else None
    )
    others, absent = _other_labels(found, dims, array.shape)
    findings = [*placed.findings, *_units_unknown(found, dims, placed), *absent]
    count = array.shape[dims.index("channel")] if "channel" in dims else 0
    named = {} if "sample" in dims else _windows(channels, max(count, 1))
    windows = {k: v for k, v in named.items() if isinstance(v, xr.Variable)}
    colours = {"sample": _words("sample", "RGB")} if "sample" in dims else {}
    volume = xr.DataArray(
        indexing.LazilyIndexedArray(image),
        dims=order,
        coords=_space_labels(placed) | others | _channel_labels(channels, count) | colours | windows,
        attrs={k: v for k, v in named.items() if k not in windows}
        | {"findings": [f.to_json() for f in findings], "lazyvol_version": version("lazyvol")},
        name="image",
    )
    lengths = dict(zip(dims, array.shards or array.chunks, strict=True))
    volume.encoding["preferred_chunks"] = {d: lengths.get(d, 1) for d in order}
    return volume


class ForeignImage(BackendArray):
    """An array of a store with its axes in the order of a volume."""

    def __init__(self, array: zarr.Array[Any], axes: Sequence[int | None], header: NiftiHeader | None = None) -> None:
        self.array, self.axes = array, tuple(axes)
        self.slope, self.intercept = (header.slope, header.intercept) if header else (1.0, 0.0)
        self.shape = tuple(1 if a is None else array.shape[a] for a in self.axes)
        self.dtype = _rescaled_dtype(np.dtype(array.dtype).newbyteorder("="), self.slope, self.intercept)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return self._points(key.tuple) if isinstance(key, indexing.VectorizedIndexer) else self._block(key.tuple)

    def _block(self, key: tuple[Any, ...]) -> Any:
        """Select along each dimension by itself; an index alone takes its dimension away."""
        wanted = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        shape = tuple(w.size for w in wanted)
        values = self._read_block(wanted) if all(shape) else np.empty(shape, self.dtype)
        if values.shape != shape:  # the one slice of an image of two axes, several times
            values = np.broadcast_to(values, shape).copy()
        return values[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]

    def _read_block(self, wanted: Sequence[npt.NDArray[np.intp]]) -> npt.NDArray[Any]:
        """Read what is wanted along each dimension, in its order; length 1 along one that the array does not have."""
        stored = {a: _ascending(w) for a, w in zip(self.axes, wanted, strict=True) if a is not None}
        key = tuple(stored[a][0] for a in range(self.array.ndim))
        plain = all(isinstance(k, slice) for k in key)
        read = self._read(self.array.__getitem__ if plain else self.array.oindex.__getitem__, key)
        for a, (_, places) in stored.items():
            read = read if places is None else np.take(read, places, axis=a)
        read = read.transpose(list(stored))
        return self._rescaled(np.expand_dims(read, [n for n, a in enumerate(self.axes) if a is None]))

    def _points(self, key: tuple[Any, ...]) -> Any:
        """Select single voxels: the indices of all dimensions go together."""
        places = np.broadcast_arrays(*(np.asarray(k) for k in key))
        by_axis = {a: p for a, p in zip(self.axes, places, strict=True) if a is not None}
        if not places[0].size:
            return np.empty(places[0].shape, self.dtype)
        flat = tuple(by_axis[a].ravel() for a in range(self.array.ndim))
        return self._rescaled(self._read(self.array.vindex.__getitem__, flat)).reshape(places[0].shape)

    def _read(self, select: Callable[[Any], Any], key: tuple[Any, ...]) -> npt.NDArray[Any]:
        try:
            return np.asarray(select(key))
        except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:  # as codecs like to raise
            raise StoreError(
                f"{_name(self.array)} cannot be decoded: {str(error).rstrip('.')}. Copy the store again."
            ) from error

    def _rescaled(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if (self.slope, self.intercept) == (1, 0):
            return stored.astype(self.dtype, copy=False)
        if self.dtype.kind == "i":
            return (stored.astype("int64") * int(self.slope) + int(self.intercept)).astype(self.dtype)
        exact = np.result_type(stored.dtype, "float64")
        return (stored.astype(exact) * self.slope + self.intercept).astype(self.dtype)


def _ascending(wanted: npt.NDArray[np.intp]) -> tuple[Any, npt.NDArray[np.intp] | None]:
    """Return what to read along one axis, ascending and once, and where in it each index wanted is; None for all."""
    found, places = np.unique(wanted, return_inverse=True)
    together = found[-1] - found[0] + 1 == found.size
    in_order = np.array_equal(places, np.arange(found.size))
    return slice(int(found[0]), int(found[-1]) + 1) if together else found, None if in_order else places


def _rescaled_dtype(dtype: np.dtype[Any], slope: float, intercept: float) -> np.dtype[Any]:
    """Return the smallest type that holds every value: of integers if slope and intercept are, else floating point."""
    if (slope, intercept) == (1, 0) or dtype.kind == "c":
        return dtype
    if dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer():
        ends = [int(n) * int(slope) + int(intercept) for n in (np.iinfo(dtype).min, np.iinfo(dtype).max)]
        fits = (
            t for t in ("int8", "int16", "int32", "int64") if all(np.iinfo(t).min <= e <= np.iinfo(t).max for e in ends)
        )
        if (first := next(fits, None)) and dtype.itemsize < 8:
            return np.dtype(first)
    return np.dtype("float32" if dtype.itemsize <= 2 or dtype == np.float32 else "float64")


def _name(of: Any) -> str:
    """Return where a group or array is, for messages."""
    return str(of.store_path).removeprefix("file://")


def _with_numbers(group: zarr.Group, of: Any, where: str) -> Any:
    """Return metadata whose transformations hold their numbers, which some tools write as arrays of their own."""
    if isinstance(of, list):
        return [_with_numbers(group, v, where) for v in of]
    if not isinstance(of, Mapping):
        return of
    kind, path = of.get("type"), of.get("path")
    if kind not in ("scale", "translation", "rotation", "affine") or kind in of or not isinstance(path, str):
        return {k: _with_numbers(group, v, where) for k, v in of.items()}
    kept = group.get(path)
    if not isinstance(kept, zarr.Array) or kept.size > 100:
        raise StoreError(
            f"a {kind} of {where} has its numbers in {path!r}, which is no such array. Copy the store again."
        )
    return {**of, kind: np.asarray(kept[...]).tolist()}


def _array(group: zarr.Group, level: Level, where: str) -> zarr.Array[Any]:
    """Return the array of a level, which should have the axes that the metadata say."""
    try:
        array = group[level.path]
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"{where} names the level {level.path!r}, which it does not hold. Copy the store again."
        ) from error
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{where} names the level {level.path!r}, which is a group, no array. Copy the store again.")
    if array.ndim != len(level.axes):
        raise StoreError(
            f"the level {level.path!r} of {where} has shape {array.shape}, and its metadata {len(level.axes)} axes: "
            f"{', '.join(a.name for a in level.axes)}. Mend the metadata of the store."
        )
    if not array.size or np.dtype(array.dtype).kind not in "biufc":
        raise StoreError(
            f"the level {level.path!r} of {where} has shape {array.shape} of {array.dtype}, which is no "
            "volume of numbers. Write colours as a channel axis."
        )
    return array


def _nifti(group: zarr.Group, metadata: Mapping[str, Any], where: str) -> NiftiHeader | None:
    """Return the header of a nifti-zarr; None for other stores."""
    kept = group.get("nifti")
    if not isinstance(kept, zarr.Array):
        return None
    header = nifti_header(np.asarray(kept[...]).tobytes(), f"{where}/nifti")
    finest = read_level(metadata, 0, where)
    shape = _shape(finest, _array(group, finest, where))
    if shape != header.shape:
        raise StoreError(
            f"the NIfTI header of {where} is that of an image of {header.shape} voxels (z, y, x), and the store holds "
            f"{shape}. Convert the image again."
        )
    return header


def _dims(level: Level, array: zarr.Array[Any], channels: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    """Return the dimension of each axis of the array."""
    dims = []
    for axis, length in zip(level.axes, array.shape, strict=True):
        if axis.kind == "space" and axis.name not in ZYX_AXES:
            raise StoreError(
                f"the axis {axis.name!r} of {where} is in space, and lazyvol knows z, y and x. Rename it "
                "in the metadata."
            )
        if axis.kind == "channel":
            dims.append("sample" if length == 3 and _is_colour(array, channels) else "channel")
        else:
            dims.append("time" if axis.kind == "time" else axis.name)
        if axis.kind != "channel" and dims[-1] in _TAKEN:
            raise StoreError(
                f"the axis {axis.name!r} of {where} has a name that volumes use. Rename it in the metadata."
            )
    in_space = {a.name for a in level.axes if a.kind == "space"}
    if len(set(dims)) < len(dims) or not {"y", "x"} <= in_space:
        raise StoreError(
            f"the axes of {where} are {', '.join(f'{a.name} ({a.kind})' for a in level.axes)}, and a volume has y and "
            "x in space, and one time and one channel at most. Mend the metadata of the store."
        )
    return dims


def _is_colour(array: zarr.Array[Any], channels: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether three channels are said to be red, green and blue: their colours alone say how to draw them."""
    names = tuple(str(c.get("label")).strip().lower() for c in channels)
    return names in _COLOURS and np.dtype(array.dtype).name in ("uint8", "uint16")


def _ordered(dims: Sequence[str]) -> list[str]:
    own = [d for d in dims if d not in ("time", "channel", "sample", *ZYX_AXES)]
    return ["time", *own, "channel", *ZYX_AXES, "sample"]


def _shape(level: Level, array: zarr.Array[Any]) -> tuple[int, int, int]:
    """Return the number of slices, rows and columns."""
    sizes = dict(zip((a.name for a in level.axes), array.shape, strict=True))
    z, y, x = (sizes.get(a, 1) for a in ZYX_AXES)
    return z, y, x


def _space_labels(placed: Placement) -> dict[str, xr.Variable]:
    """Return the coordinates of z, y and x, and the geometry."""
    geometry = placed.geometry
    if geometry.is_known:
        return geometry_coordinates(geometry)
    lines = zip(ZYX_AXES, geometry.shape, placed.starts, placed.steps, strict=True)
    return geometry_coordinates(
        geometry, labels={axis: start + step * np.arange(n, dtype=float) for axis, n, start, step in lines}
    )


def _other_labels(
    level: Level, dims: Sequence[str], shape: Sequence[int]
) -> tuple[dict[str, xr.Variable], list[Finding]]:
    """Return the coordinates of time and of axes that are the store's own, and which have none."""
    found, findings = {}, []
    for n, (axis, dim) in enumerate(zip(level.axes, dims, strict=True)):
        if dim in (*ZYX_AXES, "channel", "sample"):
            continue
        step, start = level.matrix[n][n], level.matrix[n][-1]
        if not step > 0:
            message = f"the scale of the axis {axis.name!r} is not above 0, so {dim} has no labels."
            findings.append(finding("malformed-value", message, values=(axis.name,)))
            continue
        factor, unit = (TIMES.get(axis.unit, 1.0), "s") if dim == "time" else (1.0, axis.unit)
        known = axis.unit in TIMES or (axis.unit in LENGTHS and dim != "time")
        attrs = {"long_name": dim.replace("_", " ")} | ({"units": unit} if known else {})
        found[dim] = xr.Variable((dim,), (start + np.arange(shape[n]) * step) * factor, attrs)
    return found, findings


def _units_unknown(level: Level, dims: Sequence[str], placed: Placement) -> list[Finding]:
    """Return the finding on axes in time and space whose labels are as stored, because their unit is not known."""
    time = [d for a, d in zip(level.axes, dims, strict=True) if d == "time" and a.unit not in TIMES]
    without = [*time, *placed.geometry.without_units]
    if not without:
        return []
    message = f"the axes {', '.join(without)} have no unit that is known; their labels are as the store has them."
    return [finding("units-unknown", message, values=tuple(without))]


def _channels(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the store says of each channel: name, window, colour."""
    omero = metadata.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    return [c if isinstance(c, Mapping) else {} for c in channels] if isinstance(channels, list) else []


def _channel_labels(channels: Sequence[Mapping[str, Any]], count: int) -> dict[str, xr.Variable]:
    labels = [c.get("label") for c in channels]
    if not count or len(labels) != count or not all(isinstance(v, str) and v for v in labels):
        return {}
    return {"channel": _words("channel", labels)}


def _words(dim: str, words: Iterable[Any]) -> xr.Variable:
    return xr.Variable((dim,), np.array(list(words), dtype=np.dtypes.StringDType()))


def _windows(channels: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """Return the windows of the channels as `windows_of` finds them: attributes, or variables where they differ."""
    ends = [_ends(c.get("window")) for c in channels]
    if len(ends) != count or None in ends:
        return {}
    centres, widths = zip(*(((low + high) / 2, high - low) for low, high in ends), strict=True)  # type: ignore[misc]
    linear = {"VOILUTFunction": "LINEAR_EXACT"}
    if len(set(ends)) == 1:
        return {"WindowCenter": centres[0], "WindowWidth": widths[0], **linear}
    named = {"window_center": centres, "window_width": widths}
    return {k: xr.Variable(("channel",), np.array(v)) for k, v in named.items()} | linear


def _ends(window: Any) -> tuple[float, float] | None:
    """Return what is black and white; None where the store does not say."""
    low, high = (window.get(k) for k in ("start", "end")) if isinstance(window, Mapping) else (None, None)
    if any(not isinstance(v, int | float) or isinstance(v, bool) for v in (low, high)):
        return None
    return (float(low), float(high)) if np.isfinite([low, high]).all() and low < high else None  # type: ignore[arg-type, operator]
