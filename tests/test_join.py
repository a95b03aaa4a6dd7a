"""Several series of one acquisition become one volume, in the order of their times, lazily."""

from __future__ import annotations

import numpy as np
import pytest
import series_made as made
import xarray as xr

import lazyvol as lv
from lazyvol.errors import GeometryError, OptionError


def clock(seconds):
    seconds %= 86400
    return f"{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:09.6f}"


def folder_of(where, name, number, **options):
    """Write one of several series, whose voxels say its number, and return its folder."""
    stored = (made.stamps(4, 0) + 2000 * number).astype("<u2")
    values = {"SeriesInstanceUID": f"1.2.3.{name}", **options}
    each = values.pop("each", lambda _k: {})
    images = made.series(
        4, each=lambda k: {"stored": stored[k], "SOPInstanceUID": f"1.2.3.{name}.{k}", **each(k)}, **values
    )
    made.write(where / str(name), images, seed=name)
    return where / str(name)


def expected(*numbers):
    return np.stack([made.stamps(4) + 2000 * n for n in numbers])


@pytest.fixture
def timed(tmp_path):
    """Three volumes of one grid, given in another order than that of their times, 12.5 and 30 s apart."""
    starts = {0: 36012.5, 1: 36042.5, 2: 36000.0}
    return [
        lv.open_volume(
            folder_of(
                tmp_path,
                n + 1,
                n,
                AcquisitionDate="20010203",
                each=lambda k, start=start: {"AcquisitionTime": clock(start + 0.5 * (3 - k))},
            )
        )
        for n, start in starts.items()
    ]


def test_volumes_follow_each_other_in_the_order_of_their_times(timed):
    np.testing.assert_array_equal(lv.join_series(timed).values, expected(2, 0, 1))


def test_time_is_in_s_since_the_first_volume(timed):
    joined = lv.join_series(timed)
    assert joined.time.values.tolist() == [0, 12.5, 42.5]
    assert joined.time.attrs["units"] == "s"


def test_time_comes_first(timed):
    assert lv.join_series(timed).dims == ("time", "z", "y", "x")


def test_the_grid_is_that_of_the_volumes(timed):
    assert str(lv.geometry_of(lv.join_series(timed))) == str(lv.geometry_of(timed[0]))


def test_the_dtype_stays(timed):
    assert lv.join_series(timed).dtype == "int16"


def test_each_image_keeps_its_file_and_uid(timed):
    joined = lv.join_series(timed)
    assert joined.sop_instance_uid.dims == ("time", "z")
    assert joined.sop_instance_uid.values[:, 1].tolist() == ["1.2.3.3.1", "1.2.3.1.1", "1.2.3.2.1"]
    assert joined.source.values[0].tolist() == timed[2].source.values.tolist()


def test_the_header_of_an_image_is_found_by_time(timed):
    header = lv.join_series(timed).vol.header(2, time=1)
    assert str(header.SOPInstanceUID) == "1.2.3.1.2"


def test_joining_reads_no_pixel(timed, read):
    lv.join_series(timed)
    assert read == []


def test_a_cut_of_the_joined_volume_reads_one_series(timed, read):
    lv.join_series(timed).isel(time=1, z=2).compute()
    assert set(read) <= set(timed[0].source.values)


def test_a_cut_of_joined_volumes_with_a_chunk_for_each_slice_reads_one_file(timed, read):
    volumes = [lv.open_volume(v.source.values.tolist(), chunks={"z": 1}) for v in timed]
    lv.join_series(volumes).isel(time=1, z=2).compute()
    assert read == [str(timed[0].source.values[2])]


def test_midnight_does_not_turn_the_order_round(tmp_path):
    volumes = [
        lv.open_volume(
            folder_of(tmp_path, n + 1, n, AcquisitionTime=clock(86390 + 20 * n), AcquisitionDate=f"2001020{3 + n}")
        )
        for n in (1, 0)
    ]
    joined = lv.join_series(volumes)
    np.testing.assert_array_equal(joined.values, expected(0, 1))
    assert joined.time.values.tolist() == [0, 20]


def test_midnight_does_not_turn_the_order_round_where_there_are_no_dates(tmp_path):
    volumes = [lv.open_volume(folder_of(tmp_path, n + 1, n, AcquisitionTime=clock(86390 + 20 * n))) for n in (1, 0)]
    joined = lv.join_series(volumes)
    np.testing.assert_array_equal(joined.values, expected(0, 1))
    assert joined.time.values.tolist() == [0, 20]


def test_time_is_that_of_the_first_image_acquired_whatever_its_place(tmp_path):
    """One series is acquired towards the head, the other towards the feet."""
    late, early = (
        lv.open_volume(
            folder_of(
                tmp_path,
                n + 1,
                n,
                AcquisitionDate="20010203",
                each=lambda k, start=start, up=up: {"AcquisitionTime": clock(start + 5.0 * (k if up else 3 - k))},
            )
        )
        for n, (start, up) in enumerate([(36020.0, True), (36000.0, False)])
    )
    joined = lv.join_series([late, early])
    assert joined.time.values.tolist() == [0, 20]
    np.testing.assert_array_equal(joined.values, expected(1, 0))


def test_an_absent_first_image_does_not_move_a_volume_in_time(tmp_path):
    volumes = []
    for n, start in enumerate((36030.0, 36000.0)):
        images = made.grid(
            {"EchoTime": [4.6, 9.2]},
            each=lambda index, k, start=start, n=n: {
                "AcquisitionTime": clock(start + 3 * k + index[0]),
                "SOPInstanceUID": f"1.2.3.{n}.{3 * index[0] + k}",
            },
            SeriesInstanceUID=f"1.2.{n}",
        )
        made.write(tmp_path / str(n), images[1:])
        volumes.append(lv.open_volume(tmp_path / str(n)))
    assert lv.join_series(volumes).time.values.tolist() == [0, 30]


def test_without_times_volumes_keep_the_order_given(tmp_path):
    volumes = [lv.open_volume(folder_of(tmp_path, n + 1, n)) for n in (1, 0, 2)]
    joined = lv.join_series(volumes)
    np.testing.assert_array_equal(joined.values, expected(1, 0, 2))
    assert joined.time.values.tolist() == [0, 1, 2]
    assert "units" not in joined.time.attrs


def test_equal_times_keep_the_order_given(tmp_path):
    volumes = [lv.open_volume(folder_of(tmp_path, n + 1, n, AcquisitionTime="100000")) for n in (1, 0)]
    joined = lv.join_series(volumes)
    np.testing.assert_array_equal(joined.values, expected(1, 0))
    assert joined.time.values.tolist() == [0, 1]


def test_values_label_the_volumes_in_the_order_given(timed):
    joined = lv.join_series(timed, dim="respiratory_phase", values=[50.0, 0.0, 20.0])
    assert joined.dims[0] == "respiratory_phase"
    assert joined.respiratory_phase.values.tolist() == [50, 0, 20]
    np.testing.assert_array_equal(joined.values, expected(0, 1, 2))


def test_values_may_be_words(timed):
    joined = lv.join_series(timed[:2], dim="component", values=["magnitude", "phase"])
    assert joined.component.values.tolist() == ["magnitude", "phase"]


def test_another_dimension_than_time_counts_the_volumes(timed):
    joined = lv.join_series(timed, dim="respiratory_phase")
    assert joined.respiratory_phase.values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(joined.values, expected(0, 1, 2))


def test_volumes_with_a_dimension_already_are_joined_too():
    pair = made.grid({"EchoTime": [4.6, 9.2]})
    volume = lv.open_volume(pair)
    joined = lv.join_series([volume, volume + 1000])
    assert joined.dims == ("time", "echo", "z", "y", "x")
    np.testing.assert_array_equal(joined[1].values, made.stamps((2, 3), 0) + 1000)


def test_the_findings_of_all_volumes_are_kept_once(tmp_path):
    gone = {"at": [0, 1, 3, 4]}
    volumes = [lv.open_volume(folder_of(tmp_path, n + 1, n, **gone)) for n in (0, 1)]
    assert made.codes(lv.join_series(volumes)) == ["missing-slices"]


def test_uneven_volumes_at_the_same_places_are_joined(tmp_path):
    gone = {"at": [0, 1, 3, 4]}
    volumes = [lv.open_volume(folder_of(tmp_path, n + 1, n, **gone)) for n in (0, 1)]
    assert lv.join_series(volumes).z.values.tolist() == volumes[0].z.values.tolist()


def test_slices_at_other_places_inside_the_same_ends_are_an_error(tmp_path):
    volumes = [
        lv.open_volume(folder_of(tmp_path, n + 1, n, at=at)) for n, at in enumerate([(0, 1, 3, 4), (0, 2, 3, 4)])
    ]
    with pytest.raises(GeometryError):
        lv.join_series(volumes)


def test_attributes_that_differ_are_dropped(tmp_path):
    volumes = [lv.open_volume(folder_of(tmp_path, n + 1, n, KVP=100 + n, XRayTubeCurrent=200)) for n in (0, 1)]
    attrs = lv.join_series(volumes).attrs
    assert ("KVP" in attrs, attrs["XRayTubeCurrent"]) == (False, 200)


def test_the_joined_volume_goes_through_a_store(timed, tmp_path):
    joined = lv.join_series(timed)
    lv.save_zarr(joined, tmp_path / "a.zarr", identifiers="uids")
    xr.testing.assert_identical(lv.open_zarr(tmp_path / "a.zarr").load(), joined.drop_vars("source").load())


# What cannot be joined


def test_one_volume_is_not_enough(timed):
    with pytest.raises(GeometryError, match="at least two volumes, not 1"):
        lv.join_series(timed[:1])


def test_volumes_of_other_shapes_cannot_be_joined(timed):
    with pytest.raises(GeometryError, match=r"volume 2 has .*\(3, 20, 24\)"):
        lv.join_series([*timed[:2], timed[2][1:]])


@pytest.mark.parametrize(
    "other",
    [
        {"origin": np.add(made.ORIGIN, (0, 0, 0.02))},
        {"origin": np.add(made.ORIGIN, (0.02, 0, 0))},
        {"step": (0, 0, 2.51)},
        {"PixelSpacing": (0.8, 0.602)},
        {"orientation": (1.0, 0.0, 0.0, 0.0, np.cos(0.01), np.sin(0.01))},
    ],
    ids=["along z", "along x", "another step", "another pixel spacing", "turned"],
)
def test_volumes_at_other_places_cannot_be_joined(timed, tmp_path, other):
    moved = lv.open_volume(folder_of(tmp_path, 9, 9, **other))
    with pytest.raises(GeometryError, match=r"volume 1 lies up to 0\.\d+ mm from the first"):
        lv.join_series([timed[0], moved])


def test_volumes_that_differ_by_float_noise_can_be_joined(timed, tmp_path):
    moved = lv.open_volume(folder_of(tmp_path, 9, 9, origin=np.add(made.ORIGIN, 1e-3)))
    assert lv.join_series([timed[0], moved], values=[0.0, 1.0]).sizes["z"] == 4


def test_volumes_of_unknown_place_cannot_be_joined(timed, tmp_path):
    unknown = lv.open_volume(folder_of(tmp_path, 9, 9, ImageOrientationPatient=None))
    with pytest.raises(GeometryError, match="place of volume 1"):
        lv.join_series([timed[0], unknown])


def test_volumes_with_other_labels_of_another_dimension_cannot_be_joined():
    one, other = (lv.open_volume(made.grid({"EchoTime": echoes})) for echoes in ([4.6, 9.2], [4.6, 11.0]))
    with pytest.raises(GeometryError, match="volume 1 has other labels of echo"):
        lv.join_series([one, other])


def test_each_volume_needs_a_value(timed):
    with pytest.raises(GeometryError, match="3 volumes need 3 values, not 2"):
        lv.join_series(timed, values=[0.0, 1.0])


def test_arrays_without_a_geometry_cannot_be_joined():
    with pytest.raises(GeometryError):
        lv.join_series([xr.DataArray(np.zeros((2, 2, 2)), dims=("z", "y", "x"))] * 2)


@pytest.mark.parametrize("values", [[1, 1], [1.0, 1], ["a", "a"], [0, float("nan")], ["a", 1], [{}, []]], ids=str)
def test_values_that_are_no_labels_are_refused(chest_folder, values):
    volume = lv.open_volume(chest_folder)
    with pytest.raises(OptionError, match="values="):
        lv.join_series([volume, volume], values=values)


@pytest.mark.parametrize("values", ["ab", 3, [1, 2, 3]], ids=str)
def test_values_are_counted(chest_folder, values):
    volume = lv.open_volume(chest_folder)
    with pytest.raises(GeometryError, match="2 volumes need 2 values"):
        lv.join_series([volume, volume], values=values)


@pytest.mark.parametrize("volumes", ["ab", ["a", "b"]], ids=str)
def test_paths_are_no_volumes(volumes):
    with pytest.raises(OptionError, match=r"not a str\. Open one with open_volume"):
        lv.join_series(volumes)


@pytest.mark.parametrize("dim", ["source", "geometry", "z"])
def test_a_name_that_is_taken_is_refused(chest_folder, dim):
    volume = lv.open_volume(chest_folder)
    with pytest.raises(GeometryError, match=f"dimension or coordinate '{dim}' already"):
        lv.join_series([volume, volume], dim=dim)


def test_volumes_may_come_from_a_generator(chest_folder):
    volume = lv.open_volume(chest_folder)
    assert lv.join_series((v for v in (volume, volume)), dim="echo").sizes["echo"] == 2
