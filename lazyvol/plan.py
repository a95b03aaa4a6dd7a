"""What a store of a volume will hold: its images, their levels and files, and what makes it this store and no other."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import tokenize
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from lazyvol.arrangement import SPACE, Arrangement, arrangement_of
from lazyvol.chunks import Cut, chunked, lower_cut, store_chunks
from lazyvol.convention import geometry_of, strict_attrs
from lazyvol.errors import OptionError
from lazyvol.ome import VERSION, Version, level_coordinates
from lazyvol.place import WHOLE, LocalPlace, Place, ZarrPlace
from lazyvol.pyramid import halves_of
from lazyvol.shards import BLOSC
from lazyvol.stored import shard_form, shard_keys
from lazyvol.writing import Level

__all__ = ["LAYOUT", "NAME", "Codec", "Lengths", "Levels", "Plan", "digest_of", "plan_of", "require_levels"]

NAME = "image"
LAYOUT = 2
"""Version of the layout, in the root's attributes."""

Lengths = int | Mapping[str, int] | None
Levels = Literal["auto"] | int
Codec = Literal["auto"] | BloscCodec | ZstdCodec | GzipCodec | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a store will hold."""

    volume: xr.DataArray
    """The volume as it is stored, on dask blocks."""

    arrangement: Arrangement
    """How its dimensions lie there."""

    name: str
    """What each array is called."""

    cuts: tuple[Cut, ...]
    """How each level is cut, full resolution first."""

    factors: tuple[dict[str, int], ...]
    """What each level but the first halves."""

    codec: Codec
    """How chunks are compressed."""

    nearest: bool
    """Whether lower levels take one voxel instead of the mean."""

    fingerprint: str
    """Equal for equal volumes and options, and nothing leads back from it without the key."""

    version: Version = VERSION
    """Of OME-Zarr."""

    group: str | None = None
    """Where in the store of its image a label image lies; None for a store of its own."""

    def coordinates(self, level: int, image: Mapping[str, int] | None = None) -> xr.Dataset:
        """Return the coordinates of a level: of all images, or of one."""
        found = xr.Dataset(coords=self.volume.coords)
        for factors in self.factors[:level]:
            found = level_coordinates(found, factors)
        if "geometry" in found.coords:  # NaN is no JSON
            scalar = found.coords["geometry"].variable
            attrs = strict_attrs(scalar.attrs, "the coordinate 'geometry'")
            found = found.assign_coords(geometry=xr.Variable((), scalar.values, attrs))
        return found.isel({d: k for d, k in (image or {}).items() if d in found.dims})

    def shape(self, level: int) -> tuple[int, ...]:
        """Return the voxels of one image at a level."""
        sizes = {d: self.volume.sizes[d] for d in self.arrangement.order}
        for factors in self.factors[:level]:
            sizes = {d: n // factors.get(d, 1) for d, n in sizes.items()}
        return tuple(sizes.values())

    def path(self, image: str, level: int) -> str:
        """Return where the array of an image lies in the store."""
        return f"{image}/scale{level}/{self.name}".lstrip("/")

    def about(self) -> dict[str, Any]:
        """Return what the root says of the store, beside whether it is complete."""
        return {
            "layout": LAYOUT,
            "name": self.name,
            **self.arrangement.as_attrs(),
            "factors": [[f.get(d, 1) for d in self.arrangement.order] for f in self.factors],
            "sizes": {d: self.volume.sizes[d] for d in self.arrangement.split},
            "images": len(self.arrangement.images(self.volume.sizes)),
            "nearest": self.nearest,
            "fingerprint": self.fingerprint,
            "ome_zarr": self.version,
        }

    def create_array(self, place: Place, image: str, level: int) -> zarr.Array[Any]:
        """Make the array of an image, without values; where no rename follows, without the groups that it is in."""
        order, cut, path = self.arrangement.order, self.cuts[level], self.path(image, level)
        local = isinstance(place, LocalPlace)  # elsewhere, the groups above would be made too soon
        memory = zarr.storage.MemoryStore()
        zarr.create_array(
            place.store if local else memory,
            name=path,
            shape=self.shape(level),
            dtype=self.volume.dtype,
            chunks=tuple(cut.chunks[d] for d in order),
            shards=tuple(cut.shards[d] for d in order),
            compressors=[c for c in (_compressor(self.codec, self.volume.dtype), Crc32cCodec()) if c],
            fill_value=_fill_value(self.volume.dtype),
            attributes=self.volume.attrs,
            dimension_names=list(order),
            config={"write_empty_chunks": True},
        )
        if not local:
            with ZarrPlace(memory).reader(f"{path}/zarr.json") as read_at:
                place.write(f"{path}/zarr.json", [read_at(0, WHOLE)])
        return zarr.open_array(place.store, path=path, mode="r")

    def level(self, array: zarr.Array[Any], image: str, level: int) -> Level:
        """Return what the writer has to know of an array."""
        form = shard_form(array)
        assert form is not None
        factors = self.factors[level - 1] if level else {}
        each = tuple(factors.get(d, 1) for d in self.arrangement.order)
        return Level(self.path(image, level), array.shape, form, shard_keys(array), each)


def plan_of(
    volume: xr.DataArray,
    *,
    name: str | None,
    chunks: Lengths,
    shards: Lengths,
    levels: Levels,
    codec: Codec,
    nearest: bool,
    version: Version,
    group: str | None,
    identifiers: str,
    key: bytes,
) -> Plan:
    """Return the plan of a volume that may be written as it is.

    Raises
    ------
    OptionError
        If an option cannot be; says what it can be.
    GeometryError
        If the array carries no geometry.
    """
    geometry_of(volume)
    _require_options(name, levels, codec, version)
    if name and (name in volume.coords or name in volume.dims or len(name) > 64):
        raise OptionError(f"name={name!r} is that of a coordinate or dimension, or too long. Give another, or None.")
    if NAME in volume.dims and not name:
        raise OptionError(f"a dimension is called {NAME!r}, as the arrays are. Rename it, or give name=.")
    arrangement, token = arrangement_of(volume), _token_of(volume)
    blocks = volume if volume.chunks else chunked(volume.rename(NAME), "auto", token=token)
    stored = arrangement.stored(blocks)
    order = arrangement.order
    sizes = {d: stored.sizes[d] for d in order}
    asked = {"chunks": _lengths(chunks, "chunks", order), "shards": _lengths(shards, "shards", order)}
    cut = store_chunks(order, sizes.values(), volume.dtype, **asked)
    if odd := [d for d, n in asked["shards"].items() if n < sizes[d] and n % cut.chunks[d]]:
        raise OptionError(f"shards={shards!r} must be multiples of the chunks, {cut.chunks}: along {', '.join(odd)}.")
    geometry = geometry_of(volume)
    spacing = dict(zip(SPACE, geometry.spacing, strict=True))
    if geometry.slice_positions:  # a mean over the widest gap should not reach further than one over a row
        spacing["z"] = float(np.abs(np.diff(geometry.slice_positions)).max())
    factors = halves_of(
        {d: sizes[d] for d in SPACE}, spacing, {d: cut.slabs[d] for d in SPACE}, None if levels == "auto" else levels
    )
    cuts = [cut]
    for each in factors:
        sizes = {d: n // each.get(d, 1) for d, n in sizes.items()}
        cuts.append(lower_cut(cuts[-1], sizes, each))
    options = [name, [list(map(dict, c)) for c in cuts], factors, repr(codec), nearest, identifiers, version, LAYOUT]
    about = json.dumps([arrangement.as_attrs(), options, digest_of(stored.coords, stored.attrs), token], default=str)
    fingerprint = hmac.new(key, about.encode(), hashlib.sha256).hexdigest()
    return Plan(
        stored, arrangement, name or NAME, tuple(cuts), tuple(factors), codec, nearest, fingerprint, version, group
    )


def _require_options(name: Any, levels: Any, codec: Any, version: Any) -> None:
    if version not in get_args(Version):
        raise OptionError(f"version={version!r} must be one of {', '.join(map(repr, get_args(Version)))}.")
    if not (name is None or (isinstance(name, str) and name.isidentifier())):
        raise OptionError(f"name={name!r} must be a word, such as 'image', or None.")
    require_levels(levels)
    if not (codec is None or codec == "auto" or isinstance(codec, BloscCodec | ZstdCodec | GzipCodec)):
        raise OptionError(
            f"codec={codec!r} must be 'auto', None, or a BloscCodec, ZstdCodec or GzipCodec of zarr.codecs."
        )


def require_levels(levels: Any) -> None:
    """Raise unless it is a number of levels, or ``"auto"``."""
    whole = isinstance(levels, int) and not isinstance(levels, bool) and levels > 0
    if levels != "auto" and not whole:
        raise OptionError(f"levels={levels!r} must be 'auto' or the number of levels, from 1 on.")


def _lengths(asked: Any, option: str, order: Sequence[str]) -> dict[str, int]:
    """Return lengths by dimension."""
    if not isinstance(asked, int | Mapping | None):
        raise OptionError(f"{option}={asked!r} must be a length, or lengths by dimension, e.g. {{'z': 32}}.")
    found = dict.fromkeys(SPACE, asked) if isinstance(asked, int) else dict(asked or {})
    if unknown := [d for d in found if d not in order]:
        raise OptionError(f"{option}={asked!r} names {unknown[0]!r}; a store of this volume has {', '.join(order)}.")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in found.values()):
        raise OptionError(f"{option}={asked!r} must be a length from 1 on, or lengths by dimension.")
    return found


def _token_of(volume: xr.DataArray) -> str:
    """Return a name for the values of a volume, the same in another process if they come from the same files."""
    if volume.chunks:
        return str(volume.data.name)
    data, keys = volume.variable._data, []  # the values are not to be read
    while hasattr(data, "array"):
        keys.append(repr(getattr(data, "key", "")))
        data = data.array
    return str(tokenize(data, keys, volume.shape))


def digest_of(coordinates: Mapping[Any, xr.DataArray], attrs: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of coordinates with their attributes, and of further attributes."""
    digest = hashlib.sha256(json.dumps(attrs or {}, sort_keys=True, default=str).encode())
    for name in sorted(coordinates):
        coordinate = coordinates[name]
        values: npt.NDArray[Any] = np.asarray(coordinate.values)
        text = values.dtype.kind in "OUT"
        values = values if text or values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
        about = [name, coordinate.dims, values.shape, "text" if text else values.dtype.str]
        digest.update(json.dumps([about, coordinate.attrs], sort_keys=True, default=str).encode())
        digest.update(json.dumps([str(v) for v in values.ravel()]).encode() if text else values.tobytes())
    return digest.hexdigest()


def _compressor(codec: Codec, dtype: np.dtype[Any]) -> Any:
    return BloscCodec(**BLOSC, typesize=dtype.itemsize) if codec == "auto" else codec


def _fill_value(dtype: np.dtype[Any]) -> npt.ArrayLike:
    """Return what plain xarray reads where a shard is absent; a whole store holds all of them."""
    if dtype.kind not in "iu":
        return False if dtype.kind == "b" else float("nan")
    return int(np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max)
