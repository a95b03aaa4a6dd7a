"""Zarr: from a folder of DICOM to a store, and one coronal slice from a store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import limits
import numpy as np
from indexing import ordered_with_pydicom
from place import Place, Row, Work, checksum, truth_of
from recipes import dask_stack, itk_volume, pydicom_values

__all__ = ["ROWS", "make_stores"]

CHUNK = 64
IMAGE = "scale0/image"
"""Where lazyvol's store has its array."""


def make_stores(place: Place) -> None:
    """Write the stores that a slice is read of: lazyvol's own, and one that any may have written."""
    import lazyvol as lv

    for path in (place.store, place.cubes):
        shutil.rmtree(path, ignore_errors=True)
    volume = lv.open_volume(place.series)
    lv.save_zarr(volume, place.store, levels=1)
    image = _array(place.cubes, list(volume.shape), dimension_names=list(volume.dims))
    for z in range(0, volume.sizes["z"], CHUNK):
        image[z : z + CHUNK] = volume[z : z + CHUNK].values


def _new(place: Place) -> Path:
    """Return a path to write to; what is there from before is removed."""
    path = place.folder / f"out-{os.getpid()}.zarr"
    shutil.rmtree(path, ignore_errors=True)
    return path


def limit_save(place: Place) -> Work:
    from numcodecs import Blosc, blosc

    blosc.use_threads = False  # two threads of ours, one block each
    codec = Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE)
    loops, paths, offsets, shape = place.loops, place.ordered, place.known["offsets"], place.known["shape"]
    out = _new(place)

    def slab(z: int) -> None:
        part = slice(z, z + CHUNK)
        planes = np.empty((len(paths[part]), *shape[1:]), np.int16)
        limits.planes(loops, paths[part], offsets[part], -1024, planes)
        for y in range(0, shape[1], CHUNK):
            for x in range(0, shape[2], CHUNK):
                block = np.zeros((CHUNK, CHUNK, CHUNK), np.int16)
                filled = planes[:, y : y + CHUNK, x : x + CHUNK]
                block[tuple(map(slice, filled.shape))] = filled
                (out / f"{z // CHUNK}.{y // CHUNK}.{x // CHUNK}").write_bytes(codec.encode(block))

    def work() -> Path:
        out.mkdir()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(slab, range(0, shape[0], CHUNK)))
        return out

    return work


def lazyvol_save(levels: Any = 1, **codec: Any) -> Callable[[Place], Work]:
    """Save full resolution or several levels; with the codec of the limit, which compresses more and takes longer."""

    def make(place: Place) -> Work:
        from zarr.codecs import BloscCodec

        import lazyvol as lv

        out, asked = _new(place), {"codec": BloscCodec(**codec)} if codec else {}

        def work() -> Path:
            lv.save_zarr(lv.open_volume(place.series), out, levels=levels, **asked)
            return out

        return work

    return make


def ngff_zarr_save(place: Place) -> Work:
    """Save what lazyvol opens with ngff-zarr, levels by means of 2 x 2 x 2 voxels."""
    import ngff_zarr as nz

    import lazyvol as lv

    out = _new(place)

    def work() -> Path:
        volume = lv.open_volume(place.series)
        scale, start = ({d: float(v) for d, v in zip("zyx", n, strict=True)} for n in (volume.vol.spacing, (0, 0, 0)))
        image = nz.to_ngff_image(volume.data, dims=list("zyx"), scale=scale, translation=start)
        factors = [2**n for n in range(1, _levels(place))]
        levels = nz.to_multiscales(image, factors, chunks=CHUNK, method=nz.Methods.ITKWASM_BIN_SHRINK)
        nz.to_ngff_zarr(str(out), levels, version="0.5", chunks_per_shard=2)
        return out

    return work


def ome_zarr_save(place: Place) -> Work:
    """Save what lazyvol opens with ome-zarr-py, levels by local means."""
    import zarr
    from ome_zarr.scale import Scaler
    from ome_zarr.writer import write_image

    import lazyvol as lv

    out = _new(place)

    def work() -> Path:
        data = lv.open_volume(place.series).data.rechunk((CHUNK, CHUNK, CHUNK))
        group, scaler = zarr.open_group(out, mode="w"), Scaler(max_layer=_levels(place) - 1)
        write_image(data, group, scaler=scaler, axes="zyx", storage_options={"chunks": (CHUNK,) * 3})
        return out

    return work


def _levels(place: Place) -> int:
    """Return how many levels lazyvol makes of the series: until no side is longer than 128 voxels."""
    return 1 + max(0, int(np.ceil(np.log2(max(place.known["shape"]) / 128))))


def _array(path: Path, shape: list[int], **named: Any) -> Any:
    """Make an array of chunks of 64^3 in shards of 64 slices."""
    import zarr
    from zarr.codecs import BloscCodec

    shards = [CHUNK, *(-(-n // CHUNK) * CHUNK for n in shape[1:])]
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=2)
    chunks = (CHUNK,) * 3
    group = zarr.open_group(path, mode="w", attributes={})
    return group.create_array(
        "image", shape=shape, dtype="int16", chunks=chunks, shards=tuple(shards), compressors=[codec], **named
    )


def zarr_save(place: Place) -> Work:
    import pydicom  # noqa: F401
    import zarr  # noqa: F401

    out = _new(place)

    def work() -> Path:
        paths = ordered_with_pydicom(place.series)
        first = pydicom_values(paths[0])
        image = _array(out, [len(paths), *first.shape])
        for z in range(0, len(paths), CHUNK):
            image[z : z + CHUNK] = np.stack([pydicom_values(path) for path in paths[z : z + CHUNK]])
        return out

    return work


def dask_save(place: Place) -> Work:
    import dask.array as da
    import zarr  # noqa: F401

    out = _new(place)

    def work() -> Path:
        ct = dask_stack(place.series)
        da.store(ct.rechunk((CHUNK, -1, -1)), _array(out, list(ct.shape)), lock=False)
        return out

    return work


def simpleitk_save(place: Place) -> Work:
    import SimpleITK  # noqa: F401
    import zarr  # noqa: F401

    out = _new(place)

    def work() -> Path:
        ct = itk_volume(place.series)
        _array(out, list(ct.shape))[...] = ct
        return out

    return work


def check_save(out: Path, place: Place) -> str:
    """Read a store back, slab by slab, and remove it."""
    import zarr

    shape = place.known["shape"]
    if (out / "zarr.json").exists() or (out / ".zgroup").exists():
        image = next(
            zarr.open_array(out / name, mode="r") for name in (IMAGE, "image", "0", "s0") if (out / name).exists()
        )
        slabs = (image[z : z + CHUNK] for z in range(0, shape[0], CHUNK))
    else:
        slabs = (_slab_of_files(out, z, shape) for z in range(0, shape[0], CHUNK))
    found = [checksum(plane) for slab in slabs for plane in slab]
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    shutil.rmtree(out)
    if found != place.known["slices"]:
        return "WRONG values"
    return f"ok, {size / 1e6:.0f} MB in {len(files)} files"


def _slab_of_files(out: Path, z: int, shape: list[int]) -> Any:
    """Put together what the limit wrote."""
    from numcodecs import Blosc

    slab = np.empty((CHUNK, *(-(-n // CHUNK) * CHUNK for n in shape[1:])), np.int16)
    for y in range(0, shape[1], CHUNK):
        for x in range(0, shape[2], CHUNK):
            name = f"{z // CHUNK}.{y // CHUNK}.{x // CHUNK}"
            block = np.frombuffer(Blosc().decode((out / name).read_bytes()), np.int16)
            slab[:, y : y + CHUNK, x : x + CHUNK] = block.reshape(CHUNK, CHUNK, CHUNK)
    return slab[: shape[0] - z, : shape[1], : shape[2]]


def tensorstore_coronal(path: Callable[[Place], Path]) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        import tensorstore as ts

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path(place))}}
        return lambda: ts.open(spec, read=True).result()[:, place.centre].read().result()

    return make


def lazyvol_coronal(chunks: Any) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        import lazyvol as lv

        return lambda: lv.open_zarr(place.store, chunks=chunks).isel(y=place.centre).values

    return make


def zarr_coronal(place: Place) -> Work:
    import zarr

    return lambda: zarr.open_array(place.cubes / "image", mode="r")[:, place.centre]


def xarray_coronal(chunks: Any) -> Callable[[Place], Work]:
    def make(place: Place) -> Work:
        import dask.array  # noqa: F401
        import xarray as xr

        def work() -> Any:
            store = xr.open_zarr(place.cubes, consolidated=False, chunks=chunks)
            return store["image"].isel(y=place.centre).values

        return work

    return make


ROWS = {
    "save": Row(
        "DICOM to Zarr, Blosc zstd",
        f"by hand: 2 threads, reading in {limits.LANGUAGE}, chunks of 64^3 by Blosc (zstd 3, shuffle), a file each",
        check_save,
        {
            "limit": limit_save,
            "lazyvol": lazyvol_save(),
            "lazyvol, zstd 3": lazyvol_save(cname="zstd", clevel=3, shuffle="shuffle", typesize=2),
            "pydicom and zarr": zarr_save,
            "dask recipe": dask_save,
            "SimpleITK and zarr": simpleitk_save,
        },
        {"lazyvol": 1.3, "lazyvol, zstd 3": 1.3},
        heavy=("pydicom and zarr", "dask recipe", "SimpleITK and zarr"),
    ),
    "levels": Row(
        "DICOM to OME-Zarr with levels of lower resolution",
        "as above, full resolution alone; ngff-zarr and ome-zarr-py write the volume that lazyvol opens",
        check_save,
        {
            "limit": limit_save,
            "lazyvol": lazyvol_save("auto"),
            "ngff-zarr": ngff_zarr_save,
            "ome-zarr-py": ome_zarr_save,
        },
        {},
        heavy=("ngff-zarr", "ome-zarr-py"),
    ),
    "coronal": Row(
        "one coronal slice from that Zarr",
        "tensorstore on chunks of 64^3 in shards of 64 slices, as zarr-python writes them; lazyvol reads its own store",
        truth_of("coronal"),
        {
            "limit": tensorstore_coronal(lambda place: place.cubes / "image"),
            "lazyvol": lazyvol_coronal("auto"),
            "lazyvol without dask": lazyvol_coronal(None),
            "tensorstore on lazyvol's store": tensorstore_coronal(lambda place: place.store / IMAGE),
            "zarr-python": zarr_coronal,
            "xarray with dask": xarray_coronal({}),
            "xarray without dask": xarray_coronal(None),
        },
        {"lazyvol": 5, "lazyvol without dask": 3},
    ),
}
