"""Pictures: each voxel is drawn where it lies, and the sides of the patient are where radiologists look for them."""

from __future__ import annotations

import os

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import lazyvol as lv
from lazyvol.convention import with_frame_of_reference
from lazyvol.errors import GeometryError, OutsideVolumeError, PlotError
from lazyvol.phantom import write_series

SIDES = {"R": (-1, 0, 0), "L": (1, 0, 0), "A": (0, -1, 0), "P": (0, 1, 0), "I": (0, 0, -1), "S": (0, 0, 1)}
ANGLE, LEAN = np.radians(25), 0.2
GRIDS = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "axial, feet first": ((0, 0, -1), (0, 1, 0), (-1, 0, 0)),
    "axial, prone": ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
    "sagittal": ((-1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "oblique": ((0, -np.sin(ANGLE), np.cos(ANGLE)), (0, np.cos(ANGLE), np.sin(ANGLE)), (1, 0, 0)),
    "tilted": ((0, np.sin(LEAN), np.cos(LEAN)), (0, 1, 0), (1, 0, 0)),
}
SHAPE, SPACING, ORIGIN = (5, 7, 9), (4.0, 1.5, 1.25), (-30.0, -40.0, 55.0)
MARKER = (1, 5, 2)
"""Index of the one bright voxel, off the middle of each axis."""
RIGHT_AND_UP = {"z": "LA", "y": "LS", "x": "PS"}
"""Sides on the right and at the top of a cut across each axis of an untilted axial volume."""
CHANGES = {
    "whole": lambda v: v,
    "flipped": lambda v: v[::-1, ::-1, ::-1],
    "flipped along y": lambda v: v[:, ::-1],
    "strided": lambda v: v[1::2, 1::2, ::2],
    "flipped and strided": lambda v: v[3::-2, 5::-2, ::-2],
    "cropped": lambda v: v[1:4, 2:7, 1:8],
    "transposed": lambda v: v.transpose("x", "z", "y"),
}


def write_marked(folder, directions, **options):
    values = np.full(SHAPE, -1000)
    values[MARKER] = 1000
    write_series(folder, values, spacing=SPACING, origin=ORIGIN, directions=directions, **options)
    return folder


@pytest.fixture(scope="module", params=GRIDS)
def marked(request, tmp_path_factory):
    """A volume with one bright voxel, and where that voxel lies in the patient."""
    directions = np.array(GRIDS[request.param], dtype=float)
    folder = write_marked(tmp_path_factory.mktemp("marked"), directions)
    return lv.open_volume(folder), np.array(ORIGIN) + np.multiply(MARKER, SPACING) @ directions


@pytest.fixture(scope="module")
def axial(tmp_path_factory):
    return lv.open_volume(write_marked(tmp_path_factory.mktemp("axial"), GRIDS["axial"]))


def cut_through(volume, axis, position):
    """Draw the cut across an axis through a position in the patient; return it and the labels of the position."""
    labels = np.linalg.solve(np.reshape(volume.geometry.attrs["directions"], (3, 3)).T, position)
    ax = plt.figure(figsize=(3, 3), dpi=60, facecolor="black").add_axes((0.2, 0.2, 0.6, 0.6))
    (image,) = lv.plot_slices(volume, **{axis: labels["zyx".index(axis)]}, window=(0, 100), ax=ax)
    return image, dict(zip("zyx", labels, strict=True))


def axis_names(image):
    """Return which label is drawn across and which up, as the axes say."""
    return image.axes.get_xlabel()[0], image.axes.get_ylabel()[0]


def on_screen(image, point):
    return image.axes.transData.transform(point)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_a_bright_voxel_is_drawn_at_its_labels(marked, axis, change):
    volume, position = marked
    image, labels = cut_through(CHANGES[change](volume), axis, position)
    across, up = axis_names(image)
    values, (left, right, bottom, top) = np.asarray(image.get_array()), image.get_extent()
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    drawn_at = (
        left + (column + 0.5) * (right - left) / values.shape[1],
        bottom + (row + 0.5) * (top - bottom) / values.shape[0],
    )
    assert values.max() == 1000
    assert drawn_at == pytest.approx((labels[across], labels[up]), abs=1e-6)


@pytest.mark.parametrize("change", ["whole", "flipped", "flipped and strided"])
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_the_pixels_of_the_picture_are_bright_where_the_voxel_lies(marked, axis, change):
    volume, position = marked
    image, labels = cut_through(CHANGES[change](volume), axis, position)
    across, up = axis_names(image)
    for text in list(image.axes.texts):
        text.remove()
    image.axes.set_axis_off()
    canvas = image.axes.figure.canvas
    canvas.draw()
    rows, columns = np.nonzero(np.asarray(canvas.buffer_rgba())[::-1, :, 0] > 250)
    middle = columns.min() + columns.max() + 1, rows.min() + rows.max() + 1
    assert np.divide(middle, 2) == pytest.approx(on_screen(image, (labels[across], labels[up])), abs=1)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_left_or_back_is_on_the_right_and_head_or_front_is_up(marked, axis, change):
    volume, position = marked
    image, labels = cut_through(CHANGES[change](volume), axis, position)
    across, up = axis_names(image)
    directions = dict(zip("zyx", np.reshape(volume.geometry.attrs["directions"], (3, 3)), strict=True))
    start = (labels[across], labels[up])
    step_x = np.sign(on_screen(image, (start[0] + 1, start[1])) - on_screen(image, start))[0] * directions[across]
    step_y = np.sign(on_screen(image, (start[0], start[1] + 1)) - on_screen(image, start))[1] * directions[up]
    assert nearest_side(step_x) in ("L", "P")
    assert nearest_side(step_y) in ("S", "A")


def nearest_side(direction):
    return max(SIDES, key=lambda letter: np.dot(SIDES[letter], direction))


def letters_of(image):
    """Return the letters of a picture: left, right, bottom, top."""
    at = {t.get_position(): t.get_text() for t in image.axes.texts}
    return [at[p] for p in ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_letters_say_which_side_lies_at_which_edge(marked, axis, change):
    volume, position = marked
    image, labels = cut_through(CHANGES[change](volume), axis, position)
    across, up = axis_names(image)
    directions = dict(zip("zyx", np.reshape(volume.geometry.attrs["directions"], (3, 3)), strict=True))
    middle = np.array([labels[across], labels[up]])
    expected = []
    for name, step in ((across, (1, 0)), (up, (0, 1))):
        grows = np.sum(on_screen(image, middle + step) - on_screen(image, middle)) > 0
        towards = directions[name] * (1 if grows else -1)
        expected += [nearest_side(-towards), nearest_side(towards)]
    assert [letters[0] for letters in letters_of(image)] == expected


@pytest.mark.parametrize(("axis", "letters"), [("z", "RLPA"), ("y", "RLIS"), ("x", "APIS")])
def test_letters_of_an_axial_volume_are_single(axial, axis, letters):
    (image,) = lv.plot_slices(axial, **{axis: float(axial[axis][3])})
    assert letters_of(image) == list(letters)


def test_an_oblique_side_has_two_letters(tmp_path):
    angle = np.radians(30)
    directions = ((0, -np.sin(angle), np.cos(angle)), (0, np.cos(angle), np.sin(angle)), (1, 0, 0))
    volume = lv.open_volume(write_marked(tmp_path, directions))
    (image,) = lv.plot_slices(volume, z=float(volume.z[2]))
    assert letters_of(image) == ["R", "L", "PS", "AI"]


def test_a_side_that_is_barely_oblique_has_one_letter(tmp_path):
    angle = np.radians(15)
    directions = ((0, -np.sin(angle), np.cos(angle)), (0, np.cos(angle), np.sin(angle)), (1, 0, 0))
    volume = lv.open_volume(write_marked(tmp_path, directions))
    (image,) = lv.plot_slices(volume, z=float(volume.z[2]))
    assert letters_of(image) == ["R", "L", "P", "A"]


def test_an_axial_cut_has_x_to_the_right_and_y_downwards(axial):
    (image,) = lv.plot_slices(axial, z=63)
    assert image.axes.get_xlim() == (-30.625, -30.625 + 9 * 1.25)
    assert image.axes.get_ylim() == (-40.75 + 7 * 1.5, -40.75)


@pytest.mark.parametrize("axis", ["y", "x"])
def test_coronal_and_sagittal_cuts_have_the_head_up(axial, axis):
    (image,) = lv.plot_slices(axial, **{axis: float(axial[axis][3])})
    assert image.axes.get_ylim() == (53, 73)


def test_the_extent_is_the_field_of_view(marked):
    volume, position = marked
    for axis, (across, up) in {"z": "xy", "y": "xz", "x": "yz"}.items():
        image, _ = cut_through(volume, axis, position)
        left, right, bottom, top = image.get_extent()
        view = lv.field_of_view(volume)._asdict()
        assert sorted([right - left, top - bottom]) == pytest.approx(sorted([view[across], view[up]]))


def test_axes_have_equal_scale(axial):
    (image,) = lv.plot_slices(axial, z=63)
    assert image.axes.get_aspect() == 1


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_labels_and_title_name_axis_and_mm(axial, axis):
    (image,) = lv.plot_slices(axial, **{axis: float(axial[axis][2])})
    names = {"z": "xy", "y": "xz", "x": "yz"}[axis]
    assert image.axes.get_xlabel().startswith(f"{names[0]} [mm]")
    assert image.axes.get_ylabel().startswith(f"{names[1]} [mm]")
    assert image.axes.get_title() == f"{axis} = {float(axial[axis][2]):g} mm"


def test_a_tilt_is_said_at_its_axis(tmp_path):
    volume = lv.open_volume(write_marked(tmp_path, GRIDS["tilted"]))
    (image,) = lv.plot_slices(volume, x=float(volume.x[2]))
    assert "11.5\N{DEGREE SIGN} off the normal" in image.axes.get_ylabel()


def test_names_of_the_patient_are_in_no_picture(axial):
    from lazyvol.phantom import FICTITIOUS_PATIENT

    images = lv.plot_slices(axial)
    texts = " ".join(t.get_text() for t in images[0].axes.figure.findobj(plt.Text))
    assert not [v for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and v in texts]
    assert "Phantom CT" not in texts
    assert axial.sop_instance_uid.values[0] not in texts


# Which cuts


def test_without_positions_the_middle_of_each_axis_is_drawn(axial):
    images = lv.plot_slices(axial)
    middles = {f"{a} = {float(axial[a][n // 2]):g} mm" for a, n in zip("zyx", SHAPE, strict=True)}
    assert {i.axes.get_title() for i in images} == middles


def test_cuts_come_in_the_order_z_y_x(axial):
    images = lv.plot_slices(axial, x=-25, z=[59, 67], y=-35)
    assert [i.axes.get_title()[0] for i in images] == ["z", "z", "y", "x"]


def test_the_nearest_slice_is_drawn(axial):
    (image,) = lv.plot_slices(axial, z=60.9)
    assert image.axes.get_title() == "z = 59 mm"


def test_a_volume_of_one_slice_is_drawn_as_that_slice(axial):
    (image,) = lv.plot_slices(axial[1:2])
    assert image.axes.get_title() == "z = 59 mm"


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_a_cut_without_its_axis_is_drawn(axial, axis):
    cut = axial.isel({axis: 2})
    (image,) = lv.plot_slices(cut)
    (expected,) = lv.plot_slices(axial, **{axis: float(axial[axis][2])})
    np.testing.assert_array_equal(image.get_array(), expected.get_array())
    assert image.get_extent() == expected.get_extent()


@pytest.mark.parametrize(
    ("axis", "position", "low", "high"),
    [
        ("z", 73.1, "53", "73"),
        ("z", 52.9, "53", "73"),
        ("y", -1000, "-40.75", "-30.25"),
        ("x", 0, "-30.625", "-19.375"),
    ],
)
def test_a_position_outside_names_the_range(axial, axis, position, low, high):
    message = rf"{axis} = {position:g} mm lies outside the volume, which extends from {low} to {high} mm along {axis}"
    with pytest.raises(OutsideVolumeError, match=message):
        lv.plot_slices(axial, **{axis: position})


@pytest.mark.parametrize("position", [53, 73], ids=["lower edge", "upper edge"])
def test_a_position_on_the_edge_is_inside(axial, position):
    assert lv.plot_slices(axial, z=position)


def test_further_dimensions_are_selected_first(axial):
    with pytest.raises(PlotError, match=r"Select first, e\.g\. isel\(time=0\)"):
        lv.plot_slices(axial.expand_dims(time=2))


def test_an_array_without_geometry_is_refused(axial):
    with pytest.raises(GeometryError, match="no coordinate 'geometry'"):
        lv.plot_slices(axial.drop_vars("geometry"))


def test_given_axes_are_drawn_into(axial):
    _, axes = plt.subplots(1, 2)
    images = lv.plot_slices(axial, z=[59, 63], ax=axes)
    assert [i.axes for i in images] == list(axes)


def test_one_given_axes_takes_one_cut(axial):
    _, ax = plt.subplots()
    (image,) = lv.plot_slices(axial, z=59, ax=ax)
    assert image.axes is ax


def test_a_wrong_number_of_axes_is_an_error(axial):
    _, ax = plt.subplots()
    with pytest.raises(PlotError, match="2 cuts need 2 axes, not 1"):
        lv.plot_slices(axial, z=[59, 63], ax=ax)


@pytest.mark.parametrize("ax", ["x", [None]], ids=str)
def test_what_are_no_axes_is_named(axial, ax):
    with pytest.raises(PlotError, match="must be matplotlib axes"):
        lv.plot_slices(axial, z=59, ax=ax)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_figure_has_a_panel_for_each_cut_and_a_bar(axial, count):
    images = lv.plot_slices(axial, z=[55 + 4 * (n % 5) for n in range(count)])
    assert len(images[0].axes.figure.axes) == count + 1


def test_the_bar_names_quantity_and_unit(axial):
    (image,) = lv.plot_slices(axial, z=59)
    assert image.axes.figure.axes[-1].get_ylabel() == "CT number [HU]"


def test_a_part_of_two_geometries_is_not_drawn_with_the_sides_of_the_first(axial):
    other = with_frame_of_reference(axial, "1.2.3")
    both = xr.concat([axial, other], "time", coords="different", compat="equals")
    with pytest.raises(GeometryError, match="its attributes describe another geometry"):
        lv.plot_slices(both.isel(time=1))


# Projections, and axes without labels


def test_a_flipped_axis_is_no_tilt(axial):
    (image,) = lv.plot_slices(axial[:, ::-1], x=-25)
    assert image.axes.get_ylabel() == "z [mm], towards S"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_a_projection_is_drawn_and_named_as_a_slice(marked, axis, change):
    volume = CHANGES[change](marked[0])
    (cut,) = lv.plot_slices(volume.isel({axis: 0}))
    (projection,) = lv.plot_slices(volume.max(axis))
    assert letters_of(projection) == letters_of(cut)
    for ask in ("get_xlim", "get_ylim", "get_xlabel", "get_ylabel"):
        one, other = (getattr(image.axes, ask)() for image in (projection, cut))
        assert one == (
            other.partition(", 11.5")[0] if isinstance(other, str) else other
        )  # a tilt is of the whole volume
    assert projection.get_extent() == cut.get_extent()
    assert projection.axes.get_title() == f"across {axis}"


@pytest.mark.parametrize("axis", ["y", "x"])
def test_without_pixel_spacing_z_is_still_named(tmp_path, axis):
    def strip(_k, dataset):
        del dataset.PixelSpacing

    volume = lv.open_volume(write_marked(tmp_path, GRIDS["axial"], overrides=strip))
    (image,) = lv.plot_slices(volume.isel({axis: 1}))
    assert image.axes.get_ylabel() == "z [mm], towards S"
    assert image.axes.get_xlabel() == f"{'x' if axis == 'y' else 'y'} [index]"
    assert {t.get_position(): t.get_text() for t in image.axes.texts} == {(0.5, 0.02): "I", (0.5, 0.98): "S"}
    assert image.get_extent()[2:] == [53, 73]


@pytest.mark.parametrize("z", [[], "high", object()], ids=["none", "word", "thing"])
def test_what_is_no_position_is_named(axial, z):
    with pytest.raises(PlotError, match="positions are numbers"):
        lv.plot_slices(axial, z=z)


# Odd geometry


@pytest.fixture
def uneven(tmp_path):
    """Slices at 0, 2, 4, 10 and 12 mm; slice k holds the value 100 k."""
    where = (0, 2, 4, 10, 12)

    def put(k, dataset):
        dataset.ImagePositionPatient = [0, 0, where[k]]

    values = np.broadcast_to(100 * np.arange(5)[:, None, None], (5, 6, 8))
    write_series(tmp_path, values, spacing=(2.0, 1.0, 1.0), overrides=put)
    return lv.open_volume(tmp_path)


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v[::-1]], ids=["as it is", "flipped"])
@pytest.mark.parametrize("axis", ["y", "x"])
def test_uneven_slices_are_drawn_at_their_true_places(uneven, axis, change):
    (image,) = lv.plot_slices(change(uneven), **{axis: 3})
    found = [drawn_at(image, z) for z in (0.5, 2, 3.5, 10, 11.5)]
    assert found == [0, 100, 200, 300, 400]


def drawn_at(image, z):
    values, (_, _, bottom, top) = np.asarray(image.get_array().filled(np.nan)), image.get_extent()
    return float(values[int((z - bottom) / (top - bottom) * values.shape[0]), 2])


@pytest.mark.parametrize("z", [5.5, 7, 8.5])
def test_where_slices_are_missing_nothing_is_drawn(uneven, z):
    (image,) = lv.plot_slices(uneven, y=3)
    assert np.isnan(drawn_at(image, z))


def test_uneven_slices_reach_half_an_end_gap_beyond_the_centres(uneven):
    (image,) = lv.plot_slices(uneven, y=3)
    assert list(image.get_extent()[2:]) == [-1, 13]


@pytest.fixture
def unknown(tmp_path):
    """A volume without positions."""

    def strip(_k, dataset):
        del dataset.ImagePositionPatient

    return lv.open_volume(write_marked(tmp_path, GRIDS["axial"], overrides=strip))


def test_an_unknown_geometry_is_drawn_row_by_row_from_the_top(unknown):
    (image,) = lv.plot_slices(unknown.isel(z=1))
    bottom, top = image.axes.get_ylim()
    assert bottom > top


def test_an_unknown_geometry_has_no_letters(unknown):
    (image,) = lv.plot_slices(unknown.isel(z=1))
    assert not image.axes.texts


def test_a_cut_in_mm_of_an_unknown_axis_says_to_select_by_index(unknown):
    with pytest.raises(OutsideVolumeError, match=r"isel\(z="):
        lv.plot_slices(unknown, z=3)


def test_the_middle_cuts_of_an_unknown_geometry_are_drawn(unknown):
    assert len(lv.plot_slices(unknown)) == 3


# Field of view, and what is read


@pytest.mark.parametrize("change", CHANGES)
def test_the_field_of_view_is_shape_times_spacing(axial, change):
    part = CHANGES[change](axial)
    spacing = {a: abs(float(part[a][1] - part[a][0])) for a in "zyx"}
    assert lv.field_of_view(part) == pytest.approx(tuple(part.sizes[a] * spacing[a] for a in "zyx"))


def test_the_field_of_view_of_uneven_slices_runs_from_edge_to_edge(uneven):
    assert lv.field_of_view(uneven).z == 14


@pytest.mark.parametrize(
    ("where", "bytes_read"),
    [({"z": 63}, 7 * 9 * 2), ({"z": [59, 63]}, 2 * 7 * 9 * 2), ({"y": -35}, 5 * 9 * 2)],
    ids=["one slice", "two slices", "one row of each"],
)
@pytest.mark.parametrize("chunks", ["auto", None], ids=["dask", "without dask"])
def test_a_plot_reads_just_what_it_shows(tmp_path, monkeypatch, where, bytes_read, chunks):
    volume = lv.open_volume(write_marked(tmp_path, GRIDS["axial"]), chunks=chunks)
    read, counts = os.preadv, []
    monkeypatch.setattr(os, "preadv", lambda *given: counts.append(read(*given)) or counts[-1])
    lv.plot_slices(volume, **where)
    assert sum(counts) == bytes_read


def test_a_plot_leaves_the_volume_as_it_was(axial):
    before = axial.copy(deep=True)
    lv.plot_slices(axial)
    xr.testing.assert_identical(axial, before)


def test_a_position_that_is_0_but_for_rounding_is_called_0(tmp_path):
    write_series(tmp_path / "a", np.zeros((3, 4, 5)), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, -1.0 - 1e-13))
    volume = lv.open_volume(tmp_path / "a")
    (image,) = lv.plot_slices(volume, z=0.0)
    assert image.axes.get_title() == "z = 0 mm"
