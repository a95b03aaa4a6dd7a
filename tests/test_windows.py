"""What is drawn black, grey, white or coloured: windows, MONOCHROME1 and samples."""

from __future__ import annotations

import enhanced_made as em
import matplotlib.pyplot as plt
import numpy as np
import pytest
import series_made as made
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import lazyvol as lv
from lazyvol.errors import OptionError, PlotError
from lazyvol.phantom import write_series
from lazyvol.windows import WINDOWS, greys_of

SHAPE = (5, 7, 9)
PRESETS = dict(WINDOWS)
WORDS = np.dtypes.StringDType()


def write(folder, values=None, **options):
    grid = {"spacing": (4.0, 1.5, 1.25), "origin": (-30.0, -40.0, 55.0)}
    write_series(folder, np.arange(315).reshape(SHAPE) - 100 if values is None else values, **grid | options)
    return folder


@pytest.fixture(scope="module")
def axial(tmp_path_factory):
    return lv.open_volume(write(tmp_path_factory.mktemp("axial")))


def with_windows(volume, centre, width, names=None):
    """Return a volume with other windows in its header."""
    attrs = {k: v for k, v in volume.attrs.items() if not k.startswith("Window")}
    named = {} if names is None else {"WindowCenterWidthExplanation": names}
    return volume.drop_attrs(deep=False).assign_attrs(attrs, WindowCenter=centre, WindowWidth=width, **named)


def drawn(image):
    """Return what a picture draws, as matplotlib makes colours of it: red, green, blue and opacity from 0 to 1."""
    values = image.get_array()
    return np.asarray(values) if values.ndim == 3 else image.to_rgba(values)


# Windows


@pytest.mark.parametrize(
    ("window", "limits"),
    [
        ("lung", (-1350, 149)),
        ("soft-tissue", (-160, 239)),
        ("bone", (-770, 1729)),
        ("brain", (0, 79)),
        ("liver", (15, 164)),
        ((100, 50), (75, 124)),
        ("LUNG", (-1350, 149)),
        ("SOFT TISSUE", (-160, 239)),
        (None, (-160, 239)),
    ],
    ids=str,
)
def test_a_window_sets_black_and_white(axial, window, limits):
    (image,) = lv.plot_slices(axial, z=59, window=window)
    assert image.get_clim() == limits


@pytest.mark.parametrize(
    ("window", "limits"),
    [
        ("lung", (-1350, 150)),
        ("SOFT TISSUE", (-160, 240)),
        (None, (-160, 240)),
        ((0.5, 1), (0, 1)),
        ((0.2, 0.01), (0.195, 0.205)),
    ],
    ids=str,
)
def test_a_window_of_floating_point_is_exact(axial, window, limits):
    (image,) = lv.plot_slices(axial.astype("float32"), z=59, window=window)
    assert image.get_clim() == pytest.approx(limits)


def test_a_window_of_the_header_may_be_narrow_for_floating_point(axial):
    narrow = axial.astype("float32").assign_attrs(WindowCenter=0.5, WindowWidth=0.1, WindowCenterWidthExplanation="T1")
    (image,) = lv.plot_slices(narrow, z=59)
    assert image.get_clim() == pytest.approx((0.45, 0.55))


def test_a_window_narrower_than_one_is_refused_for_integers_with_what_takes_it(axial):
    with pytest.raises(PlotError, match=r"window of int16 must be at least 1, not 0\.5; of floating point"):
        lv.plot_slices(axial, z=59, window=(0, 0.5))


def test_an_unknown_window_lists_those_that_are_known(axial):
    with pytest.raises(PlotError, match=r"no window 'lungs'\. Known are .*'LUNG'.*'lung'.*\(centre, width\)"):
        lv.plot_slices(axial, z=59, window="lungs")


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("width", [0, -5])
def test_a_window_without_width_is_refused(axial, width, dtype):
    with pytest.raises(PlotError, match="width of a window"):
        lv.plot_slices(axial.astype(dtype), z=59, window=(0, width))


@pytest.mark.parametrize("window", [(0, float("nan")), (float("nan"), 4), (1,), 5], ids=str)
def test_what_is_no_window_is_named(axial, window):
    with pytest.raises(PlotError, match="neither a name nor"):
        lv.plot_slices(axial, z=59, window=window)


def test_without_any_window_the_percentiles_are_the_limits(axial):
    bare = axial.copy()
    bare.attrs = {}
    greys = greys_of(bare, None, np.arange(101.0))
    assert (greys.low, greys.high) == (1, 99)


def test_a_flat_picture_has_limits(axial):
    bare = axial.copy()
    bare.attrs = {}
    greys = greys_of(bare, None, np.full((3, 3), 5.0))
    assert greys.low < greys.high


def test_windows_of_the_header_that_vary_are_those_of_the_slice(tmp_path):
    def put(k, dataset):
        dataset.WindowCenter, dataset.WindowWidth = str(10 * k), "100"
        del dataset.WindowCenterWidthExplanation

    volume = lv.open_volume(write(tmp_path, overrides=put))
    (image,) = lv.plot_slices(volume, z=float(volume.z[3]))
    assert image.get_clim() == (-20, 79)


@pytest.mark.parametrize(("photometric", "cmap"), [("MONOCHROME1", "gray_r"), ("MONOCHROME2", "gray")])
def test_monochrome1_is_drawn_inverted(tmp_path, photometric, cmap):
    overrides = {"PhotometricInterpretation": photometric}
    volume = lv.open_volume(write(tmp_path, overrides=overrides))
    (image,) = lv.plot_slices(volume, z=59)
    assert image.get_cmap().name == cmap


# Which windows there are


def test_windows_of_ct_are_those_of_the_header_then_the_presets(axial):
    header = {"SOFT TISSUE": (40.0, 400.0), "LUNG": (-600.0, 1500.0)}
    assert list(lv.windows_of(axial).items()) == [*header.items(), *PRESETS.items()]


@pytest.mark.parametrize(
    ("centre", "width", "names", "found"),
    [
        (40.0, 400.0, None, {"0": (40, 400)}),
        (40.0, 400.0, "A", {"A": (40, 400)}),
        ([40.0, 300.0], [400.0, 1500.0], None, {"0": (40, 400), "1": (300, 1500)}),
        ([40.0, 300.0], [400.0, 1500.0], ["A", "A"], {"A": (40, 400), "A-2": (300, 1500)}),
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], ["A", "A", "A-2"], {"A": (1, 4), "A-2": (2, 5), "A-2-2": (3, 6)}),
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], ["A", "", "1"], {"A": (1, 4), "1": (2, 5), "1-2": (3, 6)}),
        ([40.0, 300.0], [400.0, 1500.0], "A", {"0": (40, 400), "1": (300, 1500)}),
        ([40.0, 300.0], [0.0, 1500.0], ["A", "B"], {"B": (300, 1500)}),
        ([40.0, 300.0], [400.0, 0.5], ["A", "B"], {"A": (40, 400)}),
        ([40.0, 300.0], 400.0, None, {"0": (40, 400)}),
        (np.array([40, 300]), np.array([400, 1500]), None, {"0": (40, 400), "1": (300, 1500)}),
        (40.0, None, None, {}),
    ],
    ids=[
        "without name",
        "named",
        "two without names",
        "a name twice",
        "a name that a suffix would give",
        "a number for a name",
        "fewer names than windows",
        "no width",
        "too narrow for LINEAR",
        "fewer widths",
        "arrays, as netCDF has them",
        "a centre alone",
    ],
)
def test_windows_of_the_header_go_by_their_names(axial, centre, width, names, found):
    windows = lv.windows_of(with_windows(axial.drop_attrs(deep=False), centre, width, names))
    assert windows == found


@given(names=st.lists(st.sampled_from(["", "0", "1", "A", "A-2", "lung"]), min_size=1, max_size=8))
def test_no_window_of_the_header_is_lost(axial, names):
    centres = [float(n) for n in range(len(names))]
    bare = with_windows(axial.drop_attrs(deep=False), centres, [50.0] * len(names), names)
    assert [c for c, _ in lv.windows_of(bare).values()] == centres


@pytest.mark.parametrize("units", [None, "Bq/ml"])
def test_presets_are_for_hounsfield_units_alone(axial, units):
    other = axial.drop_attrs(deep=False)
    assert lv.windows_of(other.assign_attrs(units=units) if units else other) == {}


def test_a_name_of_the_header_stands_before_the_preset_of_that_name(axial):
    assert lv.windows_of(with_windows(axial, 1.0, 2.0, "lung"))["lung"] == (1, 2)


def test_a_volume_read_back_from_a_store_has_the_same_windows(axial, tmp_path):
    lv.save_zarr(axial, tmp_path / "a.zarr")
    assert lv.windows_of(lv.open_zarr(tmp_path / "a.zarr")) == lv.windows_of(axial)


def test_windows_are_of_a_dataarray(axial):
    with pytest.raises(OptionError, match="a volume is a DataArray"):
        lv.windows_of(axial.to_dataset())


def test_a_preset_for_other_units_says_so_and_lists_what_there_is(axial):
    other = with_windows(axial.assign_attrs(units="Bq/ml"), 500.0, 1000.0, "BODY")
    with pytest.raises(PlotError, match=r"'lung' is in HU, .* are in Bq/ml.*Known are 'BODY'; or give \(centre"):
        lv.plot_slices(other, z=59, window="lung")


def test_a_preset_for_values_without_units_says_so(axial):
    with pytest.raises(PlotError, match=r"'lung' is in HU, and the values have no units .*The volume has none"):
        lv.plot_slices(axial.drop_attrs(deep=False), z=59, window="lung")


# Windows that vary from slice to slice


@pytest.fixture(scope="module")
def varying(tmp_path_factory):
    """One window more, and a shifted one, in each slice; the last has none."""

    def put(k, dataset):
        count = min(k + 1, 3)
        dataset.WindowCenter = [str(10 * k + n) for n in range(count)]
        dataset.WindowWidth = [str(100 + n) for n in range(count)]
        dataset.WindowCenterWidthExplanation = ["A", "B", "C"][:count]
        dataset.VOILUTFunction = "LINEAR_EXACT" if k == 2 else "LINEAR"
        if k == 4:
            del dataset.WindowCenter, dataset.WindowWidth, dataset.WindowCenterWidthExplanation

    return lv.open_volume(write(tmp_path_factory.mktemp("varying"), overrides=put))


@pytest.mark.parametrize("part", [lambda v, k: v[k], lambda v, k: v[k : k + 1]], ids=["slice", "volume of one slice"])
@pytest.mark.parametrize("k", range(5))
def test_a_slice_has_all_its_own_windows(varying, k, part):
    count = min(k + 1, 3) if k < 4 else 0
    own = {"ABC"[n]: (10.0 * k + n, 100.0 + n) for n in range(count)}
    assert lv.windows_of(part(varying, k)) == own | PRESETS


def test_slices_that_agree_have_the_windows_of_one(varying):
    alike = xr.concat([varying[1], varying[1].assign_coords(z=99.0)], "z", coords="all", join="override")
    alike = alike.assign_coords(geometry=varying.geometry)
    assert lv.windows_of(alike) == lv.windows_of(varying[1])


def test_a_volume_whose_windows_vary_offers_the_presets(varying):
    assert lv.windows_of(varying) == PRESETS


def test_the_second_window_of_a_slice_is_drawn(varying):
    (image,) = lv.plot_slices(varying, z=float(varying.z[1]), window="B")
    assert image.get_clim() == (11 - 50.5, 10.5 + 50)


def test_the_function_of_a_slice_is_its_own(varying):
    (image,) = lv.plot_slices(varying, z=float(varying.z[2]), window="A")
    assert image.get_clim() == (-30, 70)


def test_a_cut_across_slices_of_other_windows_says_that_they_vary(varying):
    with pytest.raises(PlotError, match=r"no window 'A'.*vary along z: select first"):
        lv.plot_slices(varying, y=-35, window="A")


def test_cuts_without_window_are_drawn_on_one_scale(axial):
    images = lv.plot_slices(axial.drop_attrs(deep=False))
    assert len({i.get_clim() for i in images}) == 1


# VOILUTFunction


@pytest.mark.parametrize("keyword", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_function_of_the_header_is_an_attribute(tmp_path, keyword):
    volume = lv.open_volume(write(tmp_path, overrides={"VOILUTFunction": keyword}))
    assert volume.attrs["VOILUTFunction"] == keyword


def test_the_function_of_each_frame_is_that_of_its_slice(tmp_path):
    images = made.series(3, each=lambda _k: {"WindowCenter": 40.0, "WindowWidth": 400.0}, ImageType=em.FRAME_TYPE)
    file = em.enhanced(images, each=["FrameVOILUTSequence"])
    for n, item in enumerate(file.PerFrameFunctionalGroupsSequence):
        item.FrameVOILUTSequence[0].VOILUTFunction = ("LINEAR", "SIGMOID", "LINEAR_EXACT")[n]
    (tmp_path / "a.dcm").write_bytes(em.encode(file))
    assert sorted(lv.open_volume(tmp_path).voilut_function.values) == ["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(
    ("function", "limits"),
    [("LINEAR", (-160, 239)), ("LINEAR_EXACT", (-160, 240)), ("OTHER", None)],
    ids=["LINEAR", "LINEAR_EXACT", "unknown"],
)
def test_windows_of_the_header_follow_its_function(axial, dtype, function, limits):
    volume = axial.astype(dtype).assign_attrs(VOILUTFunction=function)
    (image,) = lv.plot_slices(volume, z=59)
    assert image.get_clim() == (limits or ((-160, 239) if dtype == "int16" else (-160, 240)))


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", ["soft-tissue", (40, 400)], ids=str)
def test_other_windows_do_not_follow_the_function_of_the_header(axial, function, window):
    (image,) = lv.plot_slices(axial.assign_attrs(VOILUTFunction=function), z=59, window=window)
    assert image.get_clim() == (-160, 239)
    assert drawn(image)[..., 0] == pytest.approx(np.clip((image.get_array() + 160) / 399, 0, 1), abs=1 / 255)


@pytest.mark.parametrize(("centre", "width"), [(0.0, 100.0), (150.0, 3.0), (-50.0, 2000.0), (0.0, 0.25)])
def test_a_sigmoid_draws_the_greys_of_the_standard(axial, centre, width):
    volume = with_windows(axial, centre, width).assign_attrs(VOILUTFunction="SIGMOID")
    (image,) = lv.plot_slices(volume, z=float(volume.z[1]))
    x = np.asarray(image.get_array(), dtype=float)
    expected = 1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -700, 700)))
    assert drawn(image)[..., 0] == pytest.approx(expected, abs=1 / 255)


def test_a_sigmoid_is_seen_in_the_pixels_of_the_picture(axial):
    volume = with_windows(axial, 40.0, 400.0).assign_attrs(VOILUTFunction="SIGMOID")
    (image,) = lv.plot_slices(volume.astype("float32") * 0 + 240, z=59)
    figure = image.axes.figure
    figure.canvas.draw()
    column, row = np.rint(image.axes.transAxes.transform((0.25, 0.25))).astype(int)
    pixel = np.asarray(figure.canvas.buffer_rgba())[::-1][row, column, 0]
    assert pixel == pytest.approx(255 / (1 + np.exp(-2)), abs=1)


def test_the_bar_of_a_sigmoid_names_centre_and_width(axial):
    (image,) = lv.plot_slices(axial.assign_attrs(VOILUTFunction="SIGMOID"), z=59)
    bar = image.axes.figure.axes[-1]
    image.axes.figure.canvas.draw()
    assert list(bar.get_yticks()) == [-360, -160, 40, 240, 440]


def test_a_window_of_width_1_is_an_edge_at_its_centre(axial):
    (image,) = lv.plot_slices(axial, z=float(axial.z[1]), window=(0, 1), ax=plt.figure().add_subplot())
    np.testing.assert_array_equal(drawn(image)[..., 0], np.asarray(image.get_array()) >= 0)


# MONOCHROME1


@pytest.fixture(scope="module")
def inverted(tmp_path_factory):
    overrides = {"PhotometricInterpretation": "MONOCHROME1"}
    return lv.open_volume(write(tmp_path_factory.mktemp("inverted"), overrides=overrides))


def test_monochrome1_keeps_its_values(inverted, axial):
    np.testing.assert_array_equal(inverted.values, axial.values)


@pytest.mark.parametrize("function", ["LINEAR", "SIGMOID"])
@pytest.mark.parametrize(
    "part",
    [lambda v: v.isel(z=1), lambda v: v.max("z"), lambda v: v.mean("y"), lambda v: v.astype("float32").isel(x=3)],
    ids=["slice", "largest along z", "mean along y", "as floats"],
)
def test_monochrome1_is_drawn_as_the_negative(inverted, axial, part, function):
    pictures = [lv.plot_slices(part(v.assign_attrs(VOILUTFunction=function)))[0] for v in (inverted, axial)]
    negative, positive = (drawn(p)[..., 0] for p in pictures)
    assert negative == pytest.approx(1 - positive, abs=1 / 255)
    assert np.ptp(positive) > 0.05


def test_the_bar_of_monochrome1_is_inverted_too(inverted):
    (image,) = lv.plot_slices(inverted, z=59)
    assert image.colorbar.cmap.name == "gray_r"
    assert image.colorbar.vmin < image.colorbar.vmax


# Colour


def coloured(volume, dtype="uint8", labels="RGB"):
    """Return a colour volume on the grid of another: red its index, green constant, blue falling."""
    full = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 255
    red = (np.arange(volume.size).reshape(volume.shape) * 97 % (full + 1)).astype(dtype)
    samples = {"R": red, "G": np.full_like(red, full // 3), "B": (full - red).astype(dtype)}
    values = np.stack([samples[s] for s in labels], axis=-1)
    found = xr.DataArray(values, dims=(*volume.dims, "sample"), coords=volume.coords, name="image")
    return found.assign_coords(sample=np.array(list(labels), dtype=WORDS)).assign_attrs(
        photometric_interpretation="RGB", long_name="pixel value"
    )


def expected(volume, image, k, full):
    """Return the colours of slice k in the order in which a picture holds them: labels ascending."""
    ordered = volume.isel(z=k).sel(sample=["R", "G", "B"]).sortby(["y", "x"]).transpose("y", "x", "sample")
    return np.asarray(ordered, dtype=float) / full


def colours(image):
    """Return red, green and blue of a picture from 0 to 1."""
    found = np.asarray(image.get_array())
    return found[..., :3] / 255 if found.dtype == np.uint8 else found[..., :3]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("labels", ["RGB", "BGR"])
@pytest.mark.parametrize("turn", [1, -1], ids=["as it is", "flipped"])
def test_a_colour_slice_is_drawn_in_its_colours(axial, dtype, labels, turn):
    volume = coloured(axial, dtype, labels)[::turn, ::turn, ::turn]
    (image,) = lv.plot_slices(volume, z=float(volume.z[1]))
    assert image.get_array().shape == (7, 9, 3)
    assert colours(image) == pytest.approx(expected(volume, image, 1, np.iinfo(dtype).max), abs=1e-6)


@pytest.mark.parametrize(("top", "full"), [(255, 255), (256, 65535)])
def test_colours_of_floats_go_by_the_largest_value(axial, top, full):
    volume = coloured(axial, "float64").clip(0, 255)
    volume[{"z": 1, "y": 0, "x": 0, "sample": 0}] = top
    images = lv.plot_slices(volume, z=[float(volume.z[1]), float(volume.z[2])])
    for k, image in zip((1, 2), images, strict=True):
        assert colours(image) == pytest.approx(expected(volume, image, k, full), abs=1e-6)


def test_absent_colours_are_transparent(axial):
    volume = coloured(axial).astype("float32")
    volume[{"z": 1, "y": 2, "x": 3}] = np.nan
    (image,) = lv.plot_slices(volume, z=float(volume.z[1]))
    opacity = np.asarray(image.get_array())[..., 3]
    assert np.argwhere(opacity == 0).tolist() == [[2, 3]]
    assert (opacity == 1).sum() == 62


def test_colours_beyond_black_are_black(axial):
    (image,) = lv.plot_slices(coloured(axial).astype("float32").isel(z=0) - 300)
    assert np.asarray(image.get_array()).min() == 0


def test_a_colour_slice_without_any_value_is_drawn(axial):
    (image,) = lv.plot_slices(coloured(axial).astype("float32").isel(z=0) * np.nan)
    assert not np.asarray(image.get_array()).any()


def test_colour_has_no_bar(axial):
    images = lv.plot_slices(coloured(axial))
    assert len(images[0].axes.figure.axes) == 3


@pytest.mark.parametrize("window", ["lung", (40, 400)], ids=str)
def test_a_window_for_colour_is_refused_with_what_to_do(axial, window):
    with pytest.raises(PlotError, match=r"a colour picture has no window.*isel\(sample=0\)"):
        lv.plot_slices(coloured(axial), z=59, window=window)


def test_a_refused_window_leaves_no_figure(axial):
    with pytest.raises(PlotError):
        lv.plot_slices(coloured(axial), z=59, window="lung")
    assert not plt.get_fignums()


def test_colour_has_no_windows(axial):
    assert lv.windows_of(coloured(axial).assign_attrs(units="HU")) == {}


def test_other_numbers_of_samples_are_refused(axial):
    with pytest.raises(PlotError, match="a colour picture has 3 samples, not 2"):
        lv.plot_slices(coloured(axial).isel(sample=[0, 1]), z=59)


def test_one_sample_is_a_grey_picture(axial):
    volume = coloured(axial)
    (image,) = lv.plot_slices(volume.isel(sample=0), z=59, window=(127.5, 256))
    assert image.get_array().ndim == 2
    assert image.get_cmap().name == "gray"


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_colour_lies_where_grey_lies(axial, axis):
    where = {axis: float(axial[axis][2])}
    (grey,), (colour,) = lv.plot_slices(axial, **where), lv.plot_slices(coloured(axial), **where)
    for ask in ("get_xlim", "get_ylim", "get_xlabel", "get_ylabel", "get_title"):
        assert getattr(colour.axes, ask)() == getattr(grey.axes, ask)()
    assert colour.get_extent() == grey.get_extent()
    assert [t.get_text() for t in colour.axes.texts] == [t.get_text() for t in grey.axes.texts]


def test_colour_of_uneven_slices_is_drawn_at_its_place(axial):
    part = coloured(axial).isel(z=[0, 1, 4])
    (image,) = lv.plot_slices(part, y=-35)
    _, _, bottom, top = image.get_extent()
    found = np.asarray(image.get_array())
    for k, z in enumerate(part.z.values):
        row = int((z - bottom) / (top - bottom) * len(found))
        assert found[row, :, :3] == pytest.approx(np.asarray(part.isel(z=k).sel(y=-35, method="nearest")) / 255)
    assert (found[int((65 - bottom) / (top - bottom) * len(found)), :, 3] == 0).all()


@pytest.mark.parametrize(
    "part", [lambda v: v, lambda v: v.isel(z=1), lambda v: v.max("y")], ids=["whole", "one", "max"]
)
def test_colour_without_positions_is_drawn(tmp_path, part):
    def strip(_k, dataset):
        del dataset.ImagePositionPatient

    volume = lv.open_volume(write(tmp_path, overrides=strip))
    assert lv.plot_slices(part(coloured(volume)))[0].get_array().shape[-1] == 3


def test_a_projection_of_colour_is_drawn_in_colour(axial):
    volume = coloured(axial)
    (image,) = lv.plot_slices(volume.max("z"))
    assert colours(image) == pytest.approx(np.asarray(volume.max("z").sortby(["y", "x"])) / 255)
