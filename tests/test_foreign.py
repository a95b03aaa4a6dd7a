"""OME-Zarr images of other tools open as volumes: every voxel at its place, and nothing that they do not say."""

import itertools
import json
import pickle
from typing import ClassVar, get_args

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore, WrapperStore

import lazyvol as lv
import lazyvol.accessor
from lazyvol.chunks import chunked
from lazyvol.errors import GeometryError, OptionError, StoreError
from lazyvol.foreign import foreign_volume, is_foreign
from lazyvol.omezarr import LENGTHS, TIMES

MM = 1e-6
SHAPE = {"t": 2, "c": 3, "z": 4, "y": 6, "x": 8}
SCALE = {"t": 1.5, "c": 1.0, "z": 2.5, "y": 0.5, "x": 0.4}
START = {"t": 0.25, "c": 0.0, "z": -30.0, "y": 12.0, "x": -7.5}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
UNITS = {"t": "second", "z": "millimeter", "y": "millimeter", "x": "millimeter"}
LPS = {"z": "inferior-to-superior", "y": "anterior-to-posterior", "x": "right-to-left"}
RAS = {"z": "inferior-to-superior", "y": "posterior-to-anterior", "x": "left-to-right"}
DIMS = {"t": "time", "c": "channel"}
SIDES = {"left": (1, 0, 0), "posterior": (0, 1, 0), "dorsal": (0, 1, 0), "superior": (0, 0, 1), "cranial": (0, 0, 1)}
OPPOSITES = {"right": "left", "anterior": "posterior", "ventral": "dorsal", "inferior": "superior", "caudal": "cranial"}
LEVELS = pytest.mark.parametrize("level", [0, 1])


def values_of(axes, shape=SHAPE, dtype="int16"):
    sizes = [shape[a] for a in axes]
    return np.random.default_rng(3).integers(0, 1000, sizes).astype(dtype)


def axis(name, unit=True, word=""):
    entry = {"name": name, "type": KINDS[name]}
    entry |= {"unit": UNITS[name]} if unit and name in UNITS else {}
    return entry | ({"orientation": {"type": "anatomical", "value": word}} if word else {})


def metadata_of(axes="zyx", *, words=None, unit=True, scale=SCALE, start=START):
    steps = [
        {"type": "scale", "scale": [scale[a] for a in axes]},
        {"type": "translation", "translation": [start[a] for a in axes]},
    ]
    image = {
        "axes": [axis(a, unit, (words or {}).get(a, "")) for a in axes],
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }
    return {"multiscales": [image]}


def stored(metadata, values, *, form=3, store=None, chunks=None):
    """Write an image by hand."""
    group = zarr.create_group(MemoryStore() if store is None else store, zarr_format=form)
    array = group.create_array("0", shape=values.shape, dtype=values.dtype, chunks=chunks or values.shape)
    array[...] = values
    group.attrs.update(metadata if form == 2 else {"ome": {"version": "0.5", **metadata}})
    return group


def made(axes="zyx", *, form=3, dtype="int16", **rest):
    return stored(metadata_of(axes, **rest), values_of(axes, dtype=dtype), form=form)


def indices(shape):
    return np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)


def positions(volume):
    """Return where the voxels lie by the geometry, and by their labels."""
    geometry = volume.vol.geometry
    by_index = geometry.index_to_position(indices(geometry.shape))
    z, y, x = np.meshgrid(*(volume[a].values for a in "zyx"), indexing="ij")
    by_label = np.stack([z, y, x], axis=-1) @ np.array(volume.geometry.attrs["directions"]).reshape(3, 3)
    np.testing.assert_allclose(by_index, by_label, rtol=0, atol=MM)
    return by_index


def towards(word):
    """Return the LPS direction of a word such as right-to-left."""
    side = word.split("-to-")[1]
    return np.array(SIDES[side] if side in SIDES else SIDES[OPPOSITES[side]]) * (1 if side in SIDES else -1)


def expected(shape, scale, start, words):
    """Return where voxels lie: each label along the direction of its word."""
    labels = [start[a] + scale[a] * np.arange(n) for a, n in zip("zyx", shape, strict=True)]
    grid = np.stack(np.meshgrid(*labels, indexing="ij"), axis=-1)
    return grid @ np.array([towards(words[a]) for a in "zyx"])


def codes(volume):
    return [f.code for f in lv.findings_of(volume)]


# ngff-zarr


def written_by_ngff(folder, version, words=None, sharded=False, units=True):
    ngff = pytest.importorskip("ngff_zarr")
    image = ngff.to_ngff_image(
        values_of("zyx", {"z": 8, "y": 12, "x": 16}),
        dims=("z", "y", "x"),
        scale={a: SCALE[a] for a in "zyx"},
        translation={a: START[a] for a in "zyx"},
        axes_units={a: UNITS[a] for a in "zyx"} if units else None,
    )
    levels = ngff.to_multiscales(image, scale_factors=[2], chunks=4, orientation=words)
    options = {"chunks_per_shard": 2} if sharded else {}
    ngff.to_ngff_zarr(folder, levels, version=version, **options)
    return levels, zarr.open_group(folder, mode="r")


NGFF = pytest.mark.parametrize(
    ("version", "sharded"), [("0.4", False), ("0.5", False), ("0.5", True), ("0.6", False), ("0.6", True)]
)


@LEVELS
@NGFF
@pytest.mark.parametrize("name", ["LPS", "RAS"])
def test_ngff_zarr_with_orientation_lies_where_its_labels_say(tmp_path, version, sharded, name, level):
    levels, group = written_by_ngff(tmp_path / "a.zarr", version, name, sharded)
    volume, image = foreign_volume(group, level), levels.images[level]
    np.testing.assert_array_equal(volume.values, np.asarray(image.data))
    where = expected(volume.shape, image.scale, image.translation, {"LPS": LPS, "RAS": RAS}[name])
    np.testing.assert_allclose(positions(volume), where, rtol=0, atol=MM)
    assert volume.vol.orientation == name
    assert not codes(volume)


@LEVELS
@NGFF
def test_ngff_zarr_without_orientation_has_labels_in_mm_and_a_finding(tmp_path, version, sharded, level):
    levels, group = written_by_ngff(tmp_path / "a.zarr", version, None, sharded)
    volume, image = foreign_volume(group, level), levels.images[level]
    np.testing.assert_array_equal(volume.values, np.asarray(image.data))
    for name in "zyx":
        labels = image.translation[name] + image.scale[name] * np.arange(volume.sizes[name])
        np.testing.assert_allclose(volume[name], labels, rtol=0, atol=MM)
        assert volume[name].attrs["units"] == "mm"
    assert codes(volume) == ["orientation-unknown"]


def test_ngff_zarr_without_units_claims_no_mm(tmp_path):
    _, group = written_by_ngff(tmp_path / "a.zarr", "0.5", "LPS", units=False)
    volume = foreign_volume(group)
    assert codes(volume) == ["units-unknown"]
    assert all("units" not in volume[a].attrs for a in "zyx")


@pytest.mark.parametrize("sharded", [False, True])
def test_preferred_chunks_are_shards_or_chunks(tmp_path, sharded):
    _, group = written_by_ngff(tmp_path / "a.zarr", "0.5", None, sharded)
    assert foreign_volume(group).encoding["preferred_chunks"] == dict.fromkeys("zyx", 8 if sharded else 4)


def test_ngff_zarr_with_an_affine_to_the_patient_lies_where_it_says(tmp_path):
    ngff = pytest.importorskip("ngff_zarr")
    from ngff_zarr.v06 import zarr_metadata as v06

    levels, _ = written_by_ngff(tmp_path / "plain.zarr", "0.6")
    turn = np.array([[0.9, -0.1, 0.2, 5.0], [0.15, 0.95, 0.0, -6.0], [-0.2, 0.05, 1.1, 7.0]])
    turned = {a: ngff.AnatomicalOrientation(value=ngff.AnatomicalOrientationValues(LPS[a])) for a in "zyx"}
    axes = [v06.Axis(name=a, type="space", unit="millimeter", orientation=turned[a]) for a in "zyx"]
    metadata = levels.metadata.to_version("0.6")
    metadata.coordinateSystems.append(v06.CoordinateSystem(name="patient", axes=axes))
    name = v06.CoordinateSystemIdentifier
    metadata.coordinateTransformations = [
        v06.Affine(affine=turn.tolist(), input=name(name="intrinsic"), output=name(name="patient"))
    ]
    levels.metadata = metadata
    ngff.to_ngff_zarr(tmp_path / "a.zarr", levels, version="0.6")
    volume = foreign_volume(zarr.open_group(tmp_path / "a.zarr", mode="r"), 1)
    image = levels.images[1]
    labels = expected(volume.shape, image.scale, image.translation, LPS)[..., ::-1]
    where = (labels @ turn[:, :3].T + turn[:, 3])[..., ::-1]
    np.testing.assert_allclose(positions(volume), where, rtol=0, atol=MM)


# ome-zarr-py


def written_by_ome_zarr(folder, version, axes, **options):
    writer = pytest.importorskip("ome_zarr.writer")
    formats = pytest.importorskip("ome_zarr.format")
    shape = {**SHAPE, "z": 8, "y": 16, "x": 16}
    values = values_of(axes, shape, options.pop("dtype", "uint16"))
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == "0.4" else 3)
    fmt = {"0.4": formats.FormatV04, "0.5": formats.FormatV05}[version]()
    writer.write_image(values, group, axes=list(axes), fmt=fmt, scale_factors=[2], **options)
    return values, zarr.open_group(folder, mode="r")


@LEVELS
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "tzyx", "czyx", "zyx", "tyx", "cyx", "yx"])
def test_ome_zarr_py_has_the_values_and_labels_that_were_written(tmp_path, version, axes, level):
    known = {a: u for a, u in UNITS.items() if a in axes}
    values, group = written_by_ome_zarr(
        tmp_path / "a.zarr", version, axes, scale={a: SCALE[a] for a in axes}, axes_units=known
    )
    volume = foreign_volume(group, level)
    assert volume.dims == (*tuple(DIMS.get(a, a) for a in axes if a not in "zyx"), "z", "y", "x")
    array = group[f"s{level}"][...]
    np.testing.assert_array_equal(volume.values, array if "z" in axes else np.expand_dims(array, -3))
    assert level or np.array_equal(array, values)
    factors = {a: full / n for a, full, n in zip(axes, values.shape, array.shape, strict=True)}
    for a in set(axes) - {"c"}:
        labels = SCALE[a] * ((factors[a] - 1) / 2 + factors[a] * np.arange(volume.sizes[DIMS.get(a, a)]))
        np.testing.assert_allclose(volume[DIMS.get(a, a)], labels, rtol=0, atol=MM)
        assert volume[DIMS.get(a, a)].attrs["units"] == ("s" if a == "t" else "mm")
    assert codes(volume) == ["orientation-unknown"] + ["spacing-unknown"] * ("z" not in axes)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_py_without_units_claims_none(tmp_path, version):
    _, group = written_by_ome_zarr(tmp_path / "a.zarr", version, "tczyx")
    volume = foreign_volume(group)
    found = {f.code: f.values for f in lv.findings_of(volume)}
    assert found == {"orientation-unknown": (), "units-unknown": ("time", "z", "y", "x")}
    assert all("units" not in c.attrs for c in volume.coords.values())
    np.testing.assert_array_equal(volume.z, np.arange(8))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_keep_their_type(tmp_path, version):
    writer = pytest.importorskip("ome_zarr.writer")
    values, _group = written_by_ome_zarr(tmp_path / "a.zarr", version, "zyx")
    labels = (values % 5).astype("int32")
    whole = zarr.open_group(tmp_path / "a.zarr", mode="a")
    writer.write_labels(labels, whole, name="organs", axes="zyx", scaler=None, scale_factors=[2])
    volume = foreign_volume(zarr.open_group(tmp_path / "a.zarr", mode="r")["labels/organs"])
    assert volume.dtype == "int32"
    np.testing.assert_array_equal(volume.values, labels)


# nifti-zarr

SHEARED = np.array([[1.9, 0.2, 0.1, -10], [-0.3, 1.5, 0.4, 20], [0, 0.2, 3, -7], [0, 0, 0, 1.0]])


def turned(degrees=25.0):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * np.array([-0.8, 0.9, 2.5]), (30.0, -20.0, 11.0)
    return affine


def nifti_image(affine=SHEARED, *, kind="Nifti1Image", forms="both", shape=(16, 12, 8), unit="mm", order="<"):
    nib = pytest.importorskip("nibabel")
    values = np.random.default_rng(5).integers(-(2**15), 2**15, shape).astype(f"{order}i2")
    header = getattr(nib, kind).header_class(endianness=order)
    header.set_data_dtype(values.dtype)
    image = getattr(nib, kind)(values, None, header)
    image.header.set_xyzt_units(unit, "sec")
    image.set_qform(affine, 1 if forms in ("both", "qform") else 0, strip_shears=True)
    image.set_sform(affine, 1 if forms in ("both", "sform") else 0)
    return image


def written_by_nifti_zarr(folder, image, **options):
    niizarr = pytest.importorskip("niizarr")
    niizarr.nii2zarr(image, str(folder), nb_levels=2, chunk=4, **options)
    return zarr.open_group(folder, mode="r")


def ras_positions(volume):
    return positions(volume) * (-1, -1, 1)


def through(affine, shape):
    """Return where the voxels (k, j, i) lie by an affine of NIfTI."""
    k, j, i = np.moveaxis(indices(shape), -1, 0)
    return np.stack([i, j, k, np.ones_like(k)], axis=-1) @ affine[:3].T


@pytest.mark.parametrize("options", [{"zarr_version": 2}, {}, {"shard": 8}], ids=["v2", "v3", "sharded"])
@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("affine", "forms"), [(SHEARED, "both"), (SHEARED, "sform"), (turned(), "qform")])
def test_nifti_zarr_lies_where_nibabel_puts_it(tmp_path, affine, forms, kind, order, options):
    image = nifti_image(affine, kind=kind, forms=forms, order=order)
    volume = foreign_volume(written_by_nifti_zarr(tmp_path / "a.zarr", image, **options))
    np.testing.assert_array_equal(volume.values, np.asarray(image.dataobj).T)
    where = through(image.header.get_best_affine(), volume.shape)
    np.testing.assert_allclose(ras_positions(volume), where, rtol=0, atol=MM)
    assert not codes(volume)
    assert volume.dtype.isnative


def test_coarse_nifti_zarr_lies_where_its_tool_puts_it(tmp_path):
    niizarr = pytest.importorskip("niizarr")
    group = written_by_nifti_zarr(tmp_path / "a.zarr", nifti_image(turned()))
    there = niizarr.zarr2nii(str(tmp_path / "a.zarr"), level=1)
    volume = foreign_volume(group, 1)
    np.testing.assert_array_equal(volume.values, np.asarray(there.dataobj).T)
    where = through(there.header.get_best_affine(), volume.shape)
    np.testing.assert_allclose(ras_positions(volume), where, rtol=0, atol=1e-5)  # the tool keeps float32


def test_coarse_sheared_nifti_zarr_covers_what_the_finest_covers(tmp_path):
    group = written_by_nifti_zarr(tmp_path / "a.zarr", nifti_image())
    fine, coarse = foreign_volume(group), foreign_volume(group, 1)
    middle = positions(fine).reshape(4, 2, 6, 2, 8, 2, 3).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(positions(coarse), middle, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000), ("mm", 1), ("micron", 0.001), ("unknown", 1)])
def test_units_of_nifti_become_mm(tmp_path, unit, mm):
    image = nifti_image(unit=unit)
    volume = foreign_volume(written_by_nifti_zarr(tmp_path / "a.zarr", image))
    where = through(image.affine, volume.shape) * mm
    np.testing.assert_allclose(ras_positions(volume), where, rtol=1e-9, atol=MM)


def test_the_unit_of_the_nifti_header_holds_where_the_axes_have_none(tmp_path):
    image = nifti_image(unit="micron")
    written_by_nifti_zarr(tmp_path / "a.zarr", image)
    group = zarr.open_group(tmp_path / "a.zarr", mode="a")
    metadata = group.attrs["ome"]
    for entry in image_of(metadata)["axes"]:
        del entry["unit"]
    group.attrs["ome"] = metadata
    volume = foreign_volume(group)
    np.testing.assert_allclose(ras_positions(volume), through(image.affine, volume.shape) / 1000, rtol=0, atol=MM)
    assert not codes(volume)


def test_nifti_without_forms_has_no_orientation(tmp_path):
    image = nifti_image(forms="none")
    volume = foreign_volume(written_by_nifti_zarr(tmp_path / "a.zarr", image))
    assert codes(volume) == ["orientation-unknown"]


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, "int32"), (0.5, 3, "float32"), (2, 0, "int32"), (1, 0, "int16")]
)
def test_nifti_numbers_are_rescaled(tmp_path, slope, intercept, dtype):
    nib = pytest.importorskip("nibabel")
    image = nifti_image()
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([slope, intercept], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    image = nib.load(tmp_path / "a.nii")
    volume = foreign_volume(written_by_nifti_zarr(tmp_path / "a.zarr", image))
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.values, image.get_fdata().T)
    np.testing.assert_array_equal(volume.isel(z=[0, 1], y=xr.DataArray([2, 3], dims="p")).values.shape, (2, 2, 16))


def test_nifti_over_time_has_seconds(tmp_path):
    image = nifti_image(shape=(16, 12, 8, 3))
    image.header["pixdim"][4] = 2.5
    volume = foreign_volume(written_by_nifti_zarr(tmp_path / "a.zarr", image))
    assert volume.dims == ("time", "z", "y", "x")
    np.testing.assert_allclose(volume.time, [0, 2.5, 5.0])
    np.testing.assert_array_equal(volume.values, np.asarray(image.dataobj).T)


def test_nifti_header_of_another_image_is_an_error(tmp_path):
    written_by_nifti_zarr(tmp_path / "a.zarr", nifti_image())
    other = written_by_nifti_zarr(tmp_path / "b.zarr", nifti_image(shape=(16, 12, 6)))["nifti"][...]
    zarr.open_group(tmp_path / "a.zarr", mode="a")["nifti"][...] = other
    with pytest.raises(StoreError, match=r"\(6, 12, 16\) voxels \(z, y, x\), and the store holds \(8, 12, 16\)"):
        foreign_volume(zarr.open_group(tmp_path / "a.zarr", mode="r"))


@pytest.mark.parametrize(
    ("at", "new", "message"),
    [(0, b"\x00\x00\x00\x00", "is no NIfTI header"), (280, bytes(48), "the sform of .* is no affine")],
)
def test_broken_nifti_headers_are_named(tmp_path, at, new, message):
    written_by_nifti_zarr(tmp_path / "a.zarr", nifti_image())
    group = zarr.open_group(tmp_path / "a.zarr", mode="a")
    raw = group["nifti"][...]
    raw[at : at + len(new)] = list(new)
    group["nifti"][...] = raw
    with pytest.raises(StoreError, match=message):
        foreign_volume(group)


# By hand: any order, scale, place and orientation

WORDS = [
    ("right-to-left", "left-to-right"),
    ("anterior-to-posterior", "posterior-to-anterior", "dorsal-to-ventral", "ventral-to-dorsal"),
    ("inferior-to-superior", "superior-to-inferior", "cranial-to-caudal", "caudal-to-cranial"),
]
SIZES = st.floats(1e-3, 1e3)
PLACES = st.floats(-1e3, 1e3)


@settings(deadline=None, max_examples=60)
@given(
    axes=st.sets(st.sampled_from("tc")).flatmap(lambda extra: st.permutations([*extra, *"zyx"])),
    words=st.permutations(WORDS).flatmap(lambda w: st.tuples(*map(st.sampled_from, w))),
    scale=st.fixed_dictionaries(dict.fromkeys("tczyx", SIZES)),
    start=st.fixed_dictionaries(dict.fromkeys("tczyx", PLACES)),
    form=st.sampled_from([2, 3]),
)
def test_every_voxel_of_any_order_lies_where_scale_and_words_say(axes, words, scale, start, form):
    words = dict(zip("zyx", words, strict=True))
    group = made(axes, form=form, words=words, scale=scale, start=start)
    volume = foreign_volume(group)
    order = [a for a in "tczyx" if a in axes]
    np.testing.assert_array_equal(volume.values, values_of(axes).transpose([axes.index(a) for a in order]))
    np.testing.assert_allclose(positions(volume), expected((4, 6, 8), scale, start, words), rtol=0, atol=MM)
    assert all((np.diff(volume[a]) > 0).all() for a in "zyx")
    assert not codes(volume)


@settings(deadline=None, max_examples=40)
@given(
    scale=st.fixed_dictionaries(dict.fromkeys("zyx", SIZES)),
    start=st.fixed_dictionaries(dict.fromkeys("zyx", PLACES)),
    whole=st.fixed_dictionaries(dict.fromkeys("zyx", SIZES)),
    moved=st.fixed_dictionaries(dict.fromkeys("zyx", PLACES)),
)
def test_transformations_of_the_whole_image_come_after_those_of_the_level(scale, start, whole, moved):
    metadata = metadata_of(words=LPS, scale=scale, start=start)
    metadata["multiscales"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [whole[a] for a in "zyx"]},
        {"type": "translation", "translation": [moved[a] for a in "zyx"]},
    ]
    volume = foreign_volume(stored(metadata, values_of("zyx")))
    for a in "zyx":
        labels = (start[a] + scale[a] * np.arange(SHAPE[a])) * whole[a] + moved[a]
        np.testing.assert_allclose(volume[a], labels, rtol=1e-12, atol=MM)


@pytest.mark.parametrize(
    ("unit", "mm"),
    [
        ("millimeter", 1),
        ("micrometer", 1e-3),
        ("nanometer", 1e-6),
        ("centimeter", 10),
        ("decimeter", 100),
        ("meter", 1e3),
        ("kilometer", 1e6),
        ("inch", 25.4),
        ("foot", 304.8),
        ("yard", 914.4),
        ("angstrom", 1e-7),
    ],
)
def test_lengths_become_mm(unit, mm):
    metadata = metadata_of(words=LPS)
    for entry in metadata["multiscales"][0]["axes"]:
        entry["unit"] = unit
    volume = foreign_volume(stored(metadata, values_of("zyx")))
    np.testing.assert_allclose(volume.vol.spacing, [SCALE[a] * mm for a in "zyx"], rtol=1e-12)
    np.testing.assert_allclose(volume.z, (START["z"] + SCALE["z"] * np.arange(4)) * mm, rtol=1e-12)


def test_all_units_of_the_standard_are_known():
    models = pytest.importorskip("ngff_zarr.v04.zarr_metadata")

    def words(of):
        return {w for a in get_args(of) for w in (words(a) if get_args(a) else {a})}

    assert words(models.SpaceUnits) <= LENGTHS.keys()
    assert words(models.TimeUnits) <= TIMES.keys()


@pytest.mark.parametrize(("unit", "seconds"), [("second", 1), ("millisecond", 1e-3), ("minute", 60), ("hour", 3600)])
def test_times_become_seconds(unit, seconds):
    metadata = metadata_of("tzyx", words=LPS)
    metadata["multiscales"][0]["axes"][0]["unit"] = unit
    volume = foreign_volume(stored(metadata, values_of("tzyx")))
    np.testing.assert_allclose(volume.time, [0.25 * seconds, 1.75 * seconds], rtol=1e-12)
    assert volume.time.attrs["units"] == "s"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_time_without_a_step_has_no_labels(scale):
    volume = foreign_volume(made("tzyx", words=LPS, scale={**SCALE, "t": scale}))
    assert "time" not in volume.coords
    assert codes(volume) == ["malformed-value"]


def test_an_axis_of_the_store_keeps_its_name():
    metadata = metadata_of("tzyx", words=LPS)
    metadata["multiscales"][0]["axes"][0] = {"name": "echo", "type": "echo", "unit": "millisecond"}
    volume = foreign_volume(stored(metadata, values_of("tzyx")))
    assert volume.dims == ("echo", "z", "y", "x")
    np.testing.assert_array_equal(volume.echo, [0.25, 1.75])
    assert volume.echo.attrs == {"long_name": "echo", "units": "millisecond"}


def test_names_alone_say_what_axes_are():
    metadata = metadata_of("tczyx")
    metadata["multiscales"][0]["axes"] = list("tczyx")  # as version 0.3 has them
    assert foreign_volume(stored(metadata, values_of("tczyx"))).dims == ("time", "channel", "z", "y", "x")


# What is not known


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"z": LPS["z"], "y": LPS["y"]},
        {**LPS, "x": "rostral-to-caudal"},
        {**LPS, "x": "inferior-to-superior"},
        {**LPS, "x": "up"},
    ],
    ids=["none", "two", "rostral", "twice", "no word"],
)
def test_without_three_directions_the_place_is_unknown_and_the_rest_is_known(words):
    volume = foreign_volume(made(words=words))
    geometry = lv.geometry_of(volume)
    assert codes(volume) == ["orientation-unknown"]
    assert not geometry.is_known
    assert not volume.vol.orientation
    assert geometry.spacing == (2.5, 0.5, 0.4)
    assert lv.field_of_view(volume) == pytest.approx((10.0, 3.0, 3.2))
    np.testing.assert_allclose(volume.z, [-30, -27.5, -25, -22.5])
    for ask in (lambda g: g.affine, lambda g: g.index_to_position((0, 0, 0)), lambda g: g.position_to_index((0, 0, 0))):
        with pytest.raises(GeometryError, match="Work with labels, or give them one"):
            ask(geometry)


def test_cuts_without_orientation_are_drawn_at_their_labels():
    (image,) = lv.plot_slices(foreign_volume(made()), z=-25)
    np.testing.assert_allclose(image.get_extent(), (-7.7, -4.5, 11.75, 14.75))
    assert image.axes.get_xlabel() == "x [mm]"
    assert not image.axes.texts


def test_what_a_crop_leaves_out_is_left_out_of_its_labels_too():
    cropped = foreign_volume(made())[::2, ::-1]
    assert lv.geometry_of(cropped).spacing == (5.0, 0.5, 0.4)
    np.testing.assert_array_equal(cropped.values, values_of("zyx")[::2, ::-1])


def test_without_units_nothing_is_in_mm_and_directions_hold():
    volume = foreign_volume(made(unit=False, words=RAS))
    geometry = lv.geometry_of(volume)
    assert codes(volume) == ["units-unknown"]
    assert geometry.without_units == "zyx"
    assert np.isnan(geometry.spacing).all()
    assert np.isnan(lv.field_of_view(volume)).all()
    np.testing.assert_array_equal(geometry.directions, [towards(RAS[a]) for a in "zyx"])
    np.testing.assert_allclose(volume.x, START["x"] + SCALE["x"] * np.arange(8))
    with pytest.raises(GeometryError, match=r"zyx have no unit, .* Give the axes one in the file"):
        geometry.index_to_position((0, 0, 0))


def test_volumes_with_and_without_units_have_no_place_together():
    together = foreign_volume(made(words=LPS)) + foreign_volume(made(words=LPS, unit=False))
    with pytest.raises(GeometryError, match="no coordinate 'geometry'"):
        lv.geometry_of(together)


def test_cuts_without_units_name_none():
    (image,) = lv.plot_slices(foreign_volume(made(unit=False, words=LPS)), z=-25)
    assert (image.axes.get_xlabel(), image.axes.get_title()) == ("x [no unit]", "z = -25")
    assert {t.get_text() for t in image.axes.texts} == {"L", "R", "A", "P"}


@pytest.mark.parametrize("unit", ["pixel", "second", "furlong"])
def test_one_axis_with_a_unit_that_is_no_length_is_named(unit):
    metadata = metadata_of(words=LPS)
    metadata["multiscales"][0]["axes"][0]["unit"] = unit
    volume = foreign_volume(stored(metadata, values_of("zyx")))
    assert [f.values for f in lv.findings_of(volume)] == [("z",)]
    np.testing.assert_allclose(lv.geometry_of(volume).spacing, (np.nan, 0.5, 0.4))
    assert "units" in volume.y.attrs
    assert "units" not in volume.z.attrs


def test_an_image_of_two_axes_is_one_slice_without_label():
    volume = foreign_volume(made("yx", words={"y": LPS["y"], "x": LPS["x"]}))
    assert volume.shape == (1, 6, 8)
    assert "z" not in volume.coords
    assert codes(volume) == ["orientation-unknown", "spacing-unknown"]
    np.testing.assert_allclose(lv.geometry_of(volume).spacing, (np.nan, 0.5, 0.4))
    np.testing.assert_array_equal(volume.isel(z=0).values, values_of("yx"))
    np.testing.assert_array_equal(volume.isel(z=[0, 0]).values, np.stack([values_of("yx")] * 2))


# Channels


def with_channels(entries, axes="czyx", dtype="uint8", **rest):
    metadata = metadata_of(axes, words=LPS, **rest) | {"omero": {"channels": entries}}
    return foreign_volume(stored(metadata, values_of(axes, dtype=dtype)))


@pytest.mark.parametrize("names", ["RGB", ("Red", "Green", "Blue")])
def test_channels_named_red_green_and_blue_are_samples(names):
    volume = with_channels([{"label": n} for n in names])
    assert volume.dims == ("z", "y", "x", "sample")
    assert list(volume.sample.values) == ["R", "G", "B"]
    np.testing.assert_array_equal(volume.values, np.moveaxis(values_of("czyx", dtype="uint8"), 0, -1))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_colours_alone_do_not_make_samples(dtype):
    names = ["DAPI", "GFP", "RFP"] if dtype == "uint8" else ["R", "G", "B"]
    entries = [{"label": n, "color": c} for n, c in zip(names, ["FF0000", "00FF00", "0000FF"], strict=True)]
    volume = with_channels(entries, dtype=dtype)
    assert volume.dims == ("channel", "z", "y", "x")
    assert list(volume.channel.values) == names


def test_the_window_of_an_image_is_drawn_as_the_store_says():
    volume = with_channels([{"window": {"start": -50, "end": 150, "min": 0, "max": 255}}], "zyx", "int16")
    assert lv.windows_of(volume) == {"0": (50.0, 200.0)}
    (image,) = lv.plot_slices(volume, z=-25)
    assert image.get_clim() == (-50, 150)


def test_windows_that_differ_are_those_of_a_channel():
    volume = with_channels([{"label": f"c{n}", "window": {"start": 0, "end": 10 * n}} for n in (1, 2, 3)])
    assert lv.windows_of(volume.isel(channel=1)) == {"0": (10.0, 20.0)}
    assert not lv.windows_of(volume)


@pytest.mark.parametrize(
    "entries", [[], None, [1, 2, 3], [{"label": 4}] * 3, [{"label": "a"}], [{"window": {"start": 3, "end": 3}}] * 3]
)
def test_channels_that_say_nothing_leave_no_label(entries):
    volume = with_channels(entries)
    assert "channel" not in volume.coords
    assert not lv.windows_of(volume)


# Reading


class CountingStore(WrapperStore):
    """A store that notes which chunks are read."""

    seen: ClassVar[list[str]] = []
    """Shared, since zarr makes a copy of the store that is read only."""

    async def get(self, key, *args, **kwargs):
        if key.startswith("0/c"):
            self.seen.append(key)
        return await super().get(key, *args, **kwargs)


@pytest.fixture
def counted():
    store = CountingStore(MemoryStore())
    stored(metadata_of("xtzy", words=LPS), values_of("xtzy"), store=store, chunks=(4, 1, 1, 6))
    store.seen.clear()
    volume = foreign_volume(zarr.open_group(store, mode="r"))
    assert volume.dims == ("time", "z", "y", "x")
    return volume, values_of("xtzy").transpose(1, 2, 3, 0), store.seen


@pytest.mark.parametrize(
    ("look", "chunks"),
    [
        (repr, 0),
        (lambda v: v.transpose("x", ...)[::-1], 0),
        (lv.field_of_view, 0),
        (lambda v: v[0, 0:0].values, 0),
        (lambda v: v[0, 1].values, 2),
        (lambda v: v[0, 1, :, 5].values, 1),
        (lambda v: v[1, ::-1, ::-1, 0].values, 4),
        (lambda v: v[0, [2, 0]].values, 4),
        (lambda v: chunked(v, "auto")[0, 1, 2, 3].compute(), 1),
        (lambda v: chunked(v, {"time": 1, "z": 1})[0, 1].compute(), 2),
    ],
)
def test_only_the_chunks_looked_at_are_read(counted, look, chunks):
    volume, _, seen = counted
    look(volume)
    assert len(seen) == len(set(seen)) == chunks


KEYS = [
    (0, 1, 2, 3),
    (-1, slice(None), -2, slice(None)),
    (slice(None), slice(None, None, -1), slice(4, None, -2), slice(None, None, 3)),
    (slice(None), [3, 0, 0], slice(None), [7, 2, 5, 5]),
    (1, slice(2, 2), slice(None), 0),
    ([], slice(None), slice(None), slice(None)),
    (slice(None), [-1, 1], 3, slice(-3, None)),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_any_selection_is_that_of_the_values(counted, key):
    volume, values, _ = counted
    along = dict(zip(volume.dims, key, strict=True))
    there = xr.DataArray(values, dims=volume.dims)
    np.testing.assert_array_equal(volume.isel(along).values, there.isel(along).values)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_two_selections_are_those_of_the_values(data):
    def part(n):
        whole = st.integers(-n, n - 1)
        return st.one_of(st.slices(n), st.lists(whole, min_size=1, max_size=5))

    volume = foreign_volume(made("yxzt", words=LPS, form=2))
    there = volume.copy(data=values_of("yxzt").transpose(3, 2, 0, 1))
    for _ in range(2):
        along = {d: data.draw(part(n), label=d) for d, n in volume.sizes.items() if n}
        volume, there = volume.isel(along), there.isel(along)
    np.testing.assert_array_equal(volume.values, there.values)


def test_single_voxels_are_those_of_the_values(counted):
    volume, values, _ = counted
    points = {d: xr.DataArray(p, dims="point") for d, p in zip("zyx", ([0, 3, -1], [5, 0, 2], [7, 7, -8]), strict=True)}
    np.testing.assert_array_equal(
        volume.isel(points).values, xr.DataArray(values, dims=volume.dims).isel(points).values
    )


def test_single_voxels_of_one_slice_are_those_of_the_values():
    volume, points = foreign_volume(made("yx")), xr.DataArray([5, 0], dims="point")
    np.testing.assert_array_equal(volume.isel(y=points, x=points, z=0).values, values_of("yx")[[5, 0], [5, 0]])


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">i4", "uint64", "float16", ">f8", "complex64"])
def test_values_are_as_stored_in_the_byte_order_of_the_machine(dtype):
    volume = foreign_volume(made(dtype=dtype, form=2))
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.dtype == volume.values.dtype
    np.testing.assert_array_equal(volume.values, values_of("zyx", dtype=dtype))


def test_a_volume_pickles_with_its_values(tmp_path):
    group = stored(metadata_of(), values_of("zyx"), store=tmp_path / "a.zarr")
    copy = pickle.loads(pickle.dumps(chunked(foreign_volume(group), "auto")))
    np.testing.assert_array_equal(copy.values, values_of("zyx"))


def test_a_damaged_chunk_is_named(tmp_path):
    group = stored(metadata_of(), values_of("zyx"), store=tmp_path / "a.zarr")
    volume = foreign_volume(group)
    (tmp_path / "a.zarr/0/c/0/0/0").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"a\.zarr/0 cannot be decoded"):
        volume.load()


def test_attributes_are_plain_and_a_volume_can_be_saved(tmp_path):
    volume = with_channels([{"label": f"c{n}", "window": {"start": 0, "end": 10 * n}} for n in (1, 2, 3)])
    json.dumps([volume.attrs, *(c.attrs for c in volume.coords.values())], allow_nan=False)
    lv.save_zarr(chunked(volume, "auto"), tmp_path / "saved.zarr")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "saved.zarr").load(), volume.load())


@pytest.mark.parametrize("rest", [{}, {"unit": False, "words": LPS}], ids=["no orientation", "no unit"])
def test_what_is_unknown_stays_unknown_in_a_store(tmp_path, rest):
    volume = foreign_volume(made(**rest))
    lv.save_zarr(chunked(volume, "auto"), tmp_path / "saved.zarr")
    again = lv.open_zarr(tmp_path / "saved.zarr")
    assert repr(lv.geometry_of(again)) == repr(lv.geometry_of(volume))
    assert lv.geometry_of(again).without_units == lv.geometry_of(volume).without_units


# Malformed stores


def image_of(metadata):
    return metadata["multiscales"][0]


def steps_of(metadata):
    return image_of(metadata)["datasets"][0]["coordinateTransformations"]


def set_in(get, key, value):
    def spoil(metadata):
        get(metadata)[key] = value

    return spoil


MALFORMED = {
    "scale zero": (set_in(lambda m: steps_of(m)[0]["scale"], 0, 0), r"scale of datasets\[0\] .* that of z should"),
    "scale negative": (set_in(lambda m: steps_of(m)[0]["scale"], 2, -1.5), r"-1\.5\]: that of x should be above 0"),
    "scale NaN": (set_in(lambda m: steps_of(m)[0]["scale"], 1, float("nan")), "that of y should be above 0"),
    "scale infinite": (set_in(lambda m: steps_of(m)[0]["scale"], 1, float("inf")), "that of y should be above 0"),
    "scale of words": (set_in(lambda m: steps_of(m)[0], "scale", ["1", "2", "3"]), "scale of .* should be 3 numbers"),
    "scale too short": (set_in(lambda m: steps_of(m)[0], "scale", [1, 2]), r"scale .* is \[1, 2\], and should be 3"),
    "scale in a file": (
        set_in(steps_of, 0, {"type": "scale", "path": "a"}),
        "a scale of .* has its numbers in 'a', which is no such array",
    ),
    "no scale": (lambda m: steps_of(m).pop(0), "has no scale, only"),
    "translation too long": (set_in(lambda m: steps_of(m)[1], "translation", [0] * 4), "translation .* should be 3"),
    "translation NaN": (set_in(lambda m: steps_of(m)[1]["translation"], 0, float("nan")), "translation .* finite"),
    "no transformations": (
        lambda m: image_of(m)["datasets"][0].pop("coordinateTransformations"),
        "has no coordinateTr",
    ),
    "transformations no list": (
        set_in(lambda m: image_of(m)["datasets"][0], "coordinateTransformations", {"a": 1}),
        "should be a list",
    ),
    "unknown transformation": (lambda m: steps_of(m).append({"type": "warp"}), "is of type 'warp'"),
    "no type": (lambda m: steps_of(m).append([1]), "is of type ''"),
    "no axes": (lambda m: image_of(m).pop("axes"), "axes of .* is None"),
    "axis without name": (set_in(lambda m: image_of(m)["axes"], 1, {"type": "space"}), r"axes\[1\] .* has no name"),
    "names repeat": (set_in(lambda m: image_of(m)["axes"][0], "name", "y"), "a name of its own"),
    "unknown axis": (
        set_in(lambda m: image_of(m)["axes"][0], "name", "depth"),
        "axis 'depth' of .* lazyvol knows z, y",
    ),
    "no y": (set_in(lambda m: image_of(m)["axes"], 1, {"name": "t", "type": "time"}), "a volume has y and x"),
    "taken name": (
        set_in(lambda m: image_of(m)["axes"], 0, {"name": "geometry", "type": "a"}),
        "a name that volumes use",
    ),
    "too few axes": (
        lambda m: (image_of(m)["axes"].pop(0), steps_of(m).pop(1), steps_of(m)[0]["scale"].pop()),
        r"has shape \(4, 6, 8\), and its metadata 2 axes: y, x",
    ),
    "no datasets": (lambda m: image_of(m).pop("datasets"), "datasets of .* is None"),
    "dataset without path": (lambda m: image_of(m)["datasets"][0].pop("path"), "has no path"),
    "dataset gone": (
        set_in(lambda m: image_of(m)["datasets"][0], "path", "9"),
        "names the level '9', which it does not",
    ),
    "multiscales empty": (set_in(lambda m: m, "multiscales", []), r"multiscales of .* is \[\]"),
    "multiscales no list": (set_in(lambda m: m, "multiscales", {"a": 1}), "multiscales of .* should be a list"),
}


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(("spoil", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_metadata_are_named(form, spoil, message):
    metadata = metadata_of()
    spoil(metadata)
    with pytest.raises(StoreError, match=message) as caught:
        foreign_volume(stored(metadata, values_of("zyx"), form=form))
    assert "memory://" in str(caught.value)


@pytest.mark.parametrize("level", [1, -1, "0", True, 0.0, None])
def test_a_level_that_does_not_exist_is_named(level):
    with pytest.raises(OptionError, match=r"level=.*: memory.* has the levels 0 to 0\. Give one"):
        foreign_volume(made(), level)


def test_a_group_that_is_no_image_is_named():
    group = zarr.create_group(MemoryStore())
    assert not is_foreign(group)
    assert is_foreign(made())
    assert is_foreign(made(form=2))
    with pytest.raises(StoreError, match="its attributes have no multiscales"):
        foreign_volume(group)


def test_a_level_that_is_a_group_is_named():
    group = made()
    group.create_group("1")
    group.attrs["ome"] = {"multiscales": [image_of(metadata_of()) | {"datasets": [{"path": "1", **STEP}]}]}
    with pytest.raises(StoreError, match="'1', which is a group"):
        foreign_volume(group)


STEP = {"coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}


# Version 0.6, by hand


def placed_by(steps, system_words=LPS, axes="zyx", whole=None):
    """Return metadata with an intrinsic and an anatomical system."""
    systems = [
        {"name": "intrinsic", "axes": [axis(a) for a in axes]},
        {"name": "patient", "axes": [axis(a, True, system_words.get(a, "")) for a in axes]},
    ]
    to = {"input": {"path": "0"}, "output": {"name": "intrinsic"}}
    dataset = {"path": "0", "coordinateTransformations": [steps | to]}
    image = {"coordinateSystems": systems, "datasets": [dataset]}
    if whole:
        between = {"input": {"name": "intrinsic"}, "output": {"name": "patient"}}
        image["coordinateTransformations"] = [whole | between]
    return {"multiscales": [image]}


SCALED = {"type": "scale", "scale": [2.5, 0.5, 0.4]}


@settings(deadline=None, max_examples=40)
@given(numbers=st.lists(st.floats(-2, 2), min_size=12, max_size=12), order=st.permutations("zyx"))
def test_an_affine_to_anatomical_axes_places_every_voxel(numbers, order):
    turn = np.reshape(numbers, (3, 4)) + np.eye(3, 4) * 4
    if abs(np.linalg.det(turn[:, :3])) < 1:
        return
    scale = [SCALE[a] for a in order]
    metadata = placed_by(
        {"type": "scale", "scale": scale}, axes=order, whole={"type": "affine", "affine": turn.tolist()}
    )
    volume = foreign_volume(stored(metadata, values_of(order)))
    index = dict(zip("zyx", np.moveaxis(indices((4, 6, 8)), -1, 0), strict=True))
    there = np.stack([index[a] * SCALE[a] for a in order], axis=-1) @ turn[:, :3].T + turn[:, 3]
    where = np.stack([there[..., order.index(a)] for a in "xyz"], axis=-1)
    np.testing.assert_allclose(positions(volume), where, rtol=0, atol=MM)


@pytest.mark.parametrize(
    "whole",
    [
        {"type": "rotation", "rotation": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]},
        {"type": "affine", "affine": [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0]]},
        {
            "type": "sequence",
            "transformations": [{"type": "mapAxis", "mapAxis": [1, 0, 2]}, {"type": "scale", "scale": [1, -1, 1]}],
        },
    ],
    ids=lambda w: w["type"],
)
def test_ways_to_turn_by_a_right_angle_agree(whole):
    volume = foreign_volume(stored(placed_by(SCALED, whole=whole), values_of("zyx")))
    np.testing.assert_array_equal(volume.vol.directions, [[0, -1, 0], [0, 0, 1], [1, 0, 0]])
    assert volume.vol.spacing == (2.5, 0.5, 0.4)


@pytest.mark.parametrize(
    ("whole", "words"),
    [({"type": "displacements", "path": "d"}, LPS), ({"type": "scale", "scale": [1, 1, 1]}, {})],
    ids=["not simple", "not anatomical"],
)
def test_what_is_not_simple_leaves_the_labels_of_the_image(whole, words):
    volume = foreign_volume(stored(placed_by(SCALED, words, whole=whole), values_of("zyx")))
    assert codes(volume) == ["orientation-unknown"]
    np.testing.assert_allclose(volume.z, [0, 2.5, 5, 7.5])


TURN = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("steps", "whole", "message"),
    [
        ({"type": "rotation", "rotation": TURN}, None, "turn its axes .* Give the axes of the coordinate system"),
        (SCALED, {"type": "affine", "affine": [[0] * 4] * 3}, "is no grid of voxels"),
        (SCALED, {"type": "affine", "affine": [[1, 2], [3]]}, "affine of 'patient' of .* should be 3 times 4 numbers"),
        (SCALED, {"type": "mapAxis", "mapAxis": [0, 0, 1]}, "the axes 0 to 2 in another order"),
        (SCALED, {"type": "rotation", "rotation": [[float("nan")] * 3] * 3}, "rotation of .* should be finite"),
    ],
)
def test_malformed_transformations_between_systems_are_named(steps, whole, message):
    with pytest.raises(StoreError, match=message):
        foreign_volume(stored(placed_by(steps, whole=whole), values_of("zyx")))


def test_a_system_that_is_not_there_is_named():
    metadata = placed_by(SCALED)
    image_of(metadata)["datasets"][0]["coordinateTransformations"][0]["output"] = {"name": "world"}
    with pytest.raises(StoreError, match=r"the coordinate system 'world', and there are \['intrinsic', 'patient'\]"):
        foreign_volume(stored(metadata, values_of("zyx")))


def test_a_place_that_depends_on_time_is_an_error():
    moving = [[1, 0, 0, 0, 0], [0.5, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    metadata = placed_by({"type": "affine", "affine": moving}, axes="tzyx")
    with pytest.raises(StoreError, match="make the place in space depend on t"):
        foreign_volume(stored(metadata, values_of("tzyx")))


def test_three_directions_in_any_order_are_exact():
    for words in itertools.permutations(WORDS):
        volume = foreign_volume(made(words={a: w[1] for a, w in zip("zyx", words, strict=True)}))
        np.testing.assert_array_equal(volume.vol.directions, [towards(w[1]) for w in words])


@pytest.mark.parametrize("word", [w for each in WORDS for w in each])
def test_each_word_points_where_it_says(word):
    others = [w[0] for w in WORDS if word not in w]
    volume = foreign_volume(made(words=dict(zip("zyx", (word, *others), strict=True))))
    np.testing.assert_array_equal(volume.vol.directions[0], towards(word))
