"""Many series and stores below one folder: the table, volumes by key, the tree, the same work on each."""

from __future__ import annotations

import os
import stat

import collection_made
import numpy as np
import pandas as pd
import pydicom
import pytest
import series_made as made
import xarray as xr

import lazyvol as lv
from lazyvol.errors import NoImagesError, OptionError, SeriesChoiceError, SourceNotFoundError
from lazyvol.inventory import COLUMNS
from lazyvol.phantom import FICTITIOUS_PATIENT, write_series


@pytest.fixture
def folder(tmp_path, rng):
    """A CT of five slices with one missing, and a PET of four."""
    spacing = (3.0, 0.9, 0.7)
    paths = write_series(tmp_path / "a" / "ct", rng.integers(-1024, 3000, (6, 6, 8)), spacing=spacing, series_number=4)
    paths[2].unlink()
    values = rng.integers(0, 99, (4, 5, 7)) * 0.5
    write_series(tmp_path / "a" / "pt", values, spacing=spacing, modality="PT", slope=0.5, intercept=0, series_number=1)
    (tmp_path / "a" / "notes.txt").write_text("nothing" * 50)
    return tmp_path / "a"


@pytest.fixture
def found(folder):
    return lv.open_collection(folder)


@pytest.fixture(scope="module")
def opened(archive):
    return lv.open_collection(archive[0], cache=None)


# The table
def test_there_is_a_row_for_each_series_by_number(found):
    assert list(found.table["number"]) == [1, 4]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("modality", ["PT", "CT"]),
        ("images", [4, 5]),
        ("files", [4, 5]),
        ("shape", [(4, 5, 7), (5, 6, 8)]),
        ("dtype", ["float32", "int16"]),
        ("bytes", [4 * 5 * 7 * 4, 5 * 6 * 8 * 2]),
        ("orientation", ["LPS", "LPS"]),
        ("findings", [(), ("missing-slices",)]),
        ("refusal", ["", ""]),
        ("kind", ["dicom", "dicom"]),
        ("description", ["Phantom PT", "Phantom CT"]),
        ("syntax", ["1.2.840.10008.1.2.1"] * 2),
    ],
)
def test_a_column_says_what_the_headers_say(found, column, values):
    assert list(found.table[column]) == values


def test_bytes_on_disk_are_those_of_the_files(found, folder):
    sizes = [sum(p.stat().st_size for p in (folder / kind).iterdir()) for kind in ("pt", "ct")]
    assert list(found.table["bytes_on_disk"]) == sizes


@pytest.mark.parametrize("column", ["spacing", "field_of_view"])
def test_lengths_are_those_of_the_volume(found, column):
    for key, values in found.table[column].items():
        np.testing.assert_array_equal(values, getattr(found[key].vol, column))


def test_a_series_that_does_not_open_says_why(tmp_path, rng):
    mosaic = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}
    write_series(tmp_path, rng.integers(0, 9, (2, 6, 8)), spacing=(1.0, 1.0, 1.0), overrides=mosaic)
    assert "mosaic" in lv.open_collection(tmp_path).table["refusal"].iloc[0]


def test_no_image_gives_an_empty_table_with_all_columns(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    found = lv.open_collection(tmp_path)
    assert found.table.empty
    assert list(found.table.columns) == list(COLUMNS)
    assert list(found.datatree().children) == []
    assert found.map(lv.volume_statistics).empty
    assert found.describe().empty


def test_no_pixel_is_needed(folder):
    before = lv.open_collection(folder, cache=None).table
    for path in folder.rglob("*.dcm"):
        size = path.stat().st_size
        pixels = len(pydicom.dcmread(path).PixelData)
        path.write_bytes(path.read_bytes()[: size - pixels] + bytes(pixels))
    assert lv.open_collection(folder, cache=None).table.equals(before)


def test_every_row_of_an_archive_of_300_series(archive, opened):
    rows = archive[1]
    assert len({row.series_uid for row in rows}) == 300
    table = opened.table
    assert list(table.index) == [(row.series_uid, row.stack) for row in rows]
    for row in rows:
        said = table.loc[(row.series_uid, row.stack)]
        for column in ("modality", "images", "dims", "shape", "dtype", "findings"):
            assert said[column] == getattr(row, column), (row, column, said[column])
        for column in ("spacing", "field_of_view"):
            np.testing.assert_allclose(said[column], getattr(row, column), atol=1e-6, err_msg=str(row))
        assert (said["refusal"] == "") is row.opens, row
    assert len(opened.skipped) == collection_made.SKIPPED


def test_patients_are_told_apart_by_their_number_alone(archive, opened):
    patients = dict(zip([row.patient_id for row in archive[1]], opened.table["patient"], strict=True))
    assert len(set(patients.values())) == len(patients) == 100
    assert all(list(opened.table["patient"])[n] == patients[row.patient_id] for n, row in enumerate(archive[1]))


def test_neither_the_table_nor_a_text_of_it_names_a_patient(found, folder, tmp_path):
    found.save(tmp_path / "index.csv", identifiers="uids")
    texts = [found.table.to_csv(), repr(found), found._repr_html_(), (tmp_path / "index.csv").read_text()]
    assert [k for k, v in FICTITIOUS_PATIENT.items() if k != "PatientSex" and any(v in text for text in texts)] == []


def test_what_was_left_out_is_counted_by_reason(archive, opened):
    reasons = opened.skipped_reasons
    assert reasons["files"].sum() == collection_made.SKIPPED
    assert any("not DICOM" in reason for reason in reasons.index)


@pytest.mark.parametrize("name", ["index.csv", "index.parquet"])
def test_a_saved_table_holds_neither_uids_nor_descriptions_nor_paths(opened, tmp_path, name):
    opened.save(tmp_path / name)
    table = pd.read_parquet(tmp_path / name) if name.endswith("parquet") else pd.read_csv(tmp_path / name)
    assert len(table) == len(opened)
    content = (tmp_path / name).read_bytes() + table.to_csv().encode()
    for secret in (b"1.2.3.", b"described", b"SECRET", str(opened.root).encode()):
        assert secret not in content
    assert list(table["modality"]) == list(opened.table["modality"])
    assert len(set(table["series_uid"])) == 300
    assert set(table["series_uid"].str[:5]) == {"2.25."}


def test_a_saved_table_keeps_uids_if_they_are_asked_for(found, tmp_path):
    found.save(tmp_path / "index.csv", identifiers="uids")
    assert list(pd.read_csv(tmp_path / "index.csv")["series_uid"]) == [key[0] for key in found]


@pytest.mark.parametrize(("name", "options"), [("index.txt", {}), ("index.csv", {"identifiers": "all"})])
def test_a_table_is_saved_as_csv_or_parquet(found, tmp_path, name, options):
    with pytest.raises(OptionError):
        found.save(tmp_path / name, **options)


# Volumes
def test_a_key_opens_the_volume_that_open_volume_opens(found, folder):
    for uid, stack in found:
        xr.testing.assert_identical(found[uid, stack], lv.open_volume(folder, series=uid, stack=stack))


@pytest.mark.parametrize("way", ["uid", "name"])
def test_a_volume_opens_by_uid_or_name(found, way):
    key = next(iter(found))
    name = key[0] if way == "uid" else found.table.loc[key, "name"]
    assert found[name].identical(found[key])


def test_the_second_grid_of_a_localizer_opens_by_its_key(archive, opened):
    rows = [row for row in archive[1] if row.stack == 1]
    assert len(rows) == 25
    assert opened[rows[0].series_uid, 1].shape == rows[0].shape


def test_copies_of_a_series_are_named_as_when_it_is_opened_alone(tmp_path):
    images = made.series(4)
    made.write(tmp_path / "a", images)
    made.write(tmp_path / "b", images[:2])
    (volume,) = lv.open_collection(tmp_path).values()
    xr.testing.assert_identical(volume, lv.open_volume(tmp_path))
    assert made.codes(volume) == ["copies-dropped"]


def test_a_key_that_is_none_gives_something_else_if_asked(found):
    assert found.get("1.2.3") is None
    assert found.get(next(iter(found))).ndim == 3


def test_select_takes_one_key_several_or_names(found):
    keys = list(found)
    names = list(found.table["name"])
    assert list(found.select(keys[0])) == list(found.select(names[0])) == keys[:1]
    assert list(found.select(names)) == keys
    for wrong in ("abc", ["x"], None, [("a", 0)]):
        with pytest.raises(SeriesChoiceError):
            found.select(wrong)


def test_the_table_is_a_copy(found):
    table = found.table
    table["modality"] = "XX"
    assert "XX" not in repr(found)


def change_series(folder):
    import shutil

    shutil.rmtree(folder / "ct")
    write_series(folder / "ct", np.zeros((6, 6, 8)), spacing=(1.0, 1.0, 1.0), seed=9)


def cut_a_file(folder):
    next((folder / "ct").iterdir()).write_bytes(b"x")


def lose_a_file(folder):
    next((folder / "ct").iterdir()).unlink()


@pytest.mark.parametrize("change", [change_series, cut_a_file, lose_a_file], ids=lambda f: f.__name__)
def test_a_key_opens_nothing_but_what_was_found(found, folder, change, tmp_path):
    (key,) = found.query("modality == 'CT'")
    change(folder)
    with pytest.raises(lv.LazyvolError, match="are not what they were when their collection was opened"):
        found[key]
    report = found.save_zarr(tmp_path / "out")
    assert list(report["status"]) == ["done", "failed"]


def test_series_without_uid_are_those_of_their_folder(tmp_path):
    for n, patient in enumerate("AB"):
        made.write(
            tmp_path / patient,
            made.series(3 + n, SeriesInstanceUID=None, StudyInstanceUID=None, PatientID=patient, origin=(0, 0, 9 * n)),
        )
    found = lv.open_collection(tmp_path)
    assert sorted(found.table["images"]) == [3, 4]
    assert len(set(found.table["patient"])) == len(set(found.table["name"])) == 2
    assert sorted(v.sizes["z"] for v in found.values()) == [3, 4]


def test_a_series_uid_that_two_studies_share_is_two_series(tmp_path):
    for n, patient in enumerate("AB"):
        said = {"StudyInstanceUID": f"1.2.{n}", "PatientID": patient}
        made.write(tmp_path / patient, made.series(3 + n, **said))
    found = lv.open_collection(tmp_path)
    assert list(found) == [("1.2.3", 0), ("1.2.3", 1)]
    assert [v.sizes["z"] for v in found.values()] == [3, 4]
    assert len(set(found.table["patient"])) == len(set(found.table["name"])) == 2


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS:UserWarning")
@pytest.mark.parametrize("modality", ["../../x", "C/T", "Mustermann", ""])
def test_no_name_is_made_of_what_a_header_says(tmp_path, modality):
    made.write(tmp_path / "in", made.series(3, Modality=modality))
    found = lv.open_collection(tmp_path / "in")
    (name,) = found.table["name"]
    assert name.startswith("OT-")
    assert "/" not in name
    found.save_zarr(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_stores_of_one_name_in_several_folders_stay_several(tmp_path):
    for n in range(3):
        made.write(tmp_path / f"dicom{n}", made.series(3 + n))
        lv.save_zarr(lv.open_volume(tmp_path / f"dicom{n}"), tmp_path / "in" / f"Mustermann{n}" / "Mustermann.zarr")
    found = lv.open_collection(tmp_path / "in")
    assert len(set(found.table["name"])) == 3
    assert "Mustermann" not in " ".join(found.table["name"])
    report = found.save_zarr(tmp_path / "out")
    shapes = [lv.open_zarr(tmp_path / "out" / f"{name}.zarr").sizes["z"] for name in report["name"]]
    assert sorted(shapes) == [3, 4, 5]


def test_names_that_are_no_utf8_are_shown(tmp_path):
    made.write(tmp_path / "a", made.series(3))
    os.rename(tmp_path / "a", os.path.join(os.fsencode(tmp_path), b"bad\xff"))
    (tmp_path / "x").mkdir()
    open(os.path.join(os.fsencode(tmp_path), b"x", b"\xfe.txt"), "wb").close()
    found = lv.open_collection(tmp_path)
    assert "CT" in repr(found)
    assert next(iter(found.values())).shape[0] == 3
    assert len(found.skipped_reasons) == 1
    found.save(tmp_path / "index.parquet")


@pytest.mark.parametrize(
    "content", ["[]", "3", "{", '{"zarr_format": 3, "node_type": "group", "attributes": []}', ""], ids=str
)
def test_an_odd_store_is_skipped_with_its_reason(folder, content):
    (folder / "odd.zarr").mkdir()
    (folder / "odd.zarr" / "zarr.json").write_text(content)
    found = lv.open_collection(folder)
    assert len(found) == 2
    assert any(s.path.endswith("odd.zarr") for s in found.skipped)


def test_an_odd_index_is_none(folder):
    lv.open_collection(folder).save_zarr(folder / "out")
    (folder / "out" / "index.jsonl").write_bytes(b"\xff\xfe nothing")
    assert len(lv.open_collection(folder)) == 4


def test_an_empty_table_is_saved_with_its_columns(found, tmp_path):
    found.query("images > 999").save(tmp_path / "index.csv")
    assert "modality" in pd.read_csv(tmp_path / "index.csv").columns


@pytest.mark.parametrize("key", ["1.2.3", ("1.2.3", 0), ("a", 1, 2), None, 7, ["x"]], ids=str)
def test_what_is_no_key_is_named(found, key):
    with pytest.raises(SeriesChoiceError, match="is no key of the collection"):
        found[key]
    assert (key in found) is False


def test_options_of_open_volume_are_taken(found):
    key = found.query("modality == 'CT'").table.index[0]
    assert found.open(key, missing="fill").sizes["z"] == 6


def test_a_query_keeps_the_rows_for_which_it_holds(opened, archive):
    part = opened.query("modality == 'PT' and images > 4")
    assert list(part) == [(r.series_uid, 0) for r in archive[1] if r.modality == "PT" and r.images > 4]
    assert list(opened.select(list(part)[:3])) == list(part)[:3]


@pytest.mark.parametrize("expression", ["nothing == 1", "modality ==", "__import__('os')"])
def test_a_query_that_cannot_be_evaluated_is_named(found, expression):
    with pytest.raises(OptionError, match="cannot be evaluated"):
        found.query(expression)


@pytest.mark.parametrize(("name", "error"), [("nowhere", SourceNotFoundError), ("notes.txt", NoImagesError)])
def test_what_is_no_folder_is_named(folder, name, error):
    with pytest.raises(error, match=name):
        lv.open_collection(folder / name)


def test_a_folder_that_cannot_be_entered_is_skipped_with_its_reason(folder):
    closed = folder / "closed"
    closed.mkdir(mode=0)
    if os.access(closed, os.R_OK):
        pytest.skip("this user may enter every folder")
    assert any(s.path == str(closed) for s in lv.open_collection(folder).skipped)


def test_a_link_back_is_followed_once(folder):
    (folder / "ct" / "back").symlink_to(folder)
    assert len(lv.open_collection(folder)) == 2


# The tree
def test_the_tree_has_patients_studies_and_series(opened, archive):
    tree = opened.datatree()
    leaves = list(tree.leaves)
    assert len(leaves) == sum(row.opens for row in archive[1])
    assert len(tree.children) == len({row.patient_id for row in archive[1] if row.opens})
    assert {leaf.level for leaf in leaves} == {3}
    assert all(leaf["image"].chunks is not None for leaf in leaves)


def test_a_node_has_the_values_and_the_geometry_of_the_volume(found):
    tree = found.datatree()
    for leaf in tree.leaves:
        volume = found[leaf.name]
        node = leaf["image"]
        np.testing.assert_array_equal(node, volume)
        for name in volume.dims:
            assert node.coords[name].variable.identical(volume.coords[name].variable)
        assert repr(lv.geometry_of(node)) == repr(lv.geometry_of(volume))  # a spacing may be NaN
        assert "2.25." in lv.geometry_of(node).frame_of_reference
        assert lv.findings_of(node) == lv.findings_of(volume)


def test_nodes_of_colours_and_of_segments_have_their_coordinates(tmp_path):
    import kinds_made as km

    _, images = km.ct_folder(tmp_path / "ct")
    km.save(
        tmp_path / "seg.dcm",
        km.segmentation(images, km.masks([1, 2], [2, 3]), segments=[km.segment(1, "liver"), km.segment(2, "spleen")]),
    )
    found = lv.open_collection(tmp_path)
    for leaf in found.datatree().leaves:
        volume = found[leaf.name]
        for name in volume.coords.keys() & {*volume.dims, "segment_label"}:
            assert leaf[name].variable.identical(volume[name].variable)
            assert name in leaf.coords


def test_a_tree_is_made_without_a_look_at_a_file(found, folder):
    for path in folder.rglob("*.dcm"):
        path.unlink()
    assert len(list(found.datatree().leaves)) == 2


def test_a_series_that_has_changed_since_is_named(found, folder):
    (leaf,) = [leaf for leaf in found.datatree().leaves if leaf.name.startswith("CT")]
    next((folder / "ct").iterdir()).unlink()
    with pytest.raises(lv.LazyvolError):
        leaf["image"].compute()


def test_names_in_a_tree_tell_nothing_of_patients(opened):
    text = " ".join(node.path for node in opened.datatree().subtree)
    assert "SECRET" not in text
    assert "1.2.3" not in text


def test_xarray_opens_a_folder_as_a_tree(found, folder):
    tree = xr.open_datatree(folder, engine="lazyvol")
    ours = found.datatree()
    assert {n.path for n in tree.subtree} == {n.path for n in ours.subtree}
    for leaf in tree.leaves:
        np.testing.assert_array_equal(leaf["image"], ours[leaf.path]["image"])
    chunked = xr.open_datatree(folder, engine="lazyvol", chunks={})
    assert all(leaf["image"].chunks for leaf in chunked.leaves)


def test_a_tree_is_written_by_xarray(found, tmp_path):
    tree = found.datatree()
    tree.to_zarr(tmp_path / "tree.zarr", consolidated=False)
    again = xr.open_datatree(tmp_path / "tree.zarr", engine="zarr", consolidated=False)
    for leaf in tree.leaves:
        np.testing.assert_array_equal(again[leaf.path]["image"], leaf["image"])


# The same for all
def test_a_function_is_applied_to_each_volume(found):
    table = found.map(lambda volume: volume.mean())
    assert list(table.index) == list(found)
    for key, mean in table["result"].items():
        assert mean == pytest.approx(float(found[key].mean()))


def test_a_mapping_becomes_columns(found):
    table = found.map(lambda volume: {"low": volume.min(), "name": volume.attrs["Modality"]})
    assert list(table.columns) == ["low", "name", "error"]
    assert list(table["name"]) == ["PT", "CT"]


def test_a_function_or_options_that_cannot_be_are_named(found):
    for wrong in (lambda: found.map(None), lambda: found.map(len, colour=1), lambda: found.map(len, client=3)):
        with pytest.raises(OptionError):
            wrong()
    table = found.map(lambda _v: {"error": 1})
    assert all("called 'error'" in text for text in table["error"])


def test_the_errors_are_the_last_column_of_any_table(found):
    assert list(found.map(len, where="images > 99").columns) == ["error"]
    assert list(found.map(lambda v: v.sizes["z"] if v.sizes["z"] > 4 else 1 / 0).columns) == ["result", "error"]


def test_a_refused_series_opens_with_what_its_reason_names(archive, opened):
    part = opened.query("refusal != ''")
    table = part.map(lambda v: v.sizes["z"], duplicates="first")
    assert list(table["result"]) == [3, 3, 3]


def test_what_fails_is_a_row_with_its_reason(archive, opened):
    part = opened.select([(r.series_uid, r.stack) for r in archive[1] if r.findings != () or not r.opens][-15:])
    table = part.map(lambda volume: volume.max())
    wrong = [r for r in archive[1] if (r.series_uid, r.stack) in part and not r.saves]
    assert list(table.index[table["error"] != ""]) == [(r.series_uid, r.stack) for r in wrong]
    assert {text.partition(":")[0] for text in table["error"] if text} == {"PixelReadError", "UnsupportedSeriesError"}


def test_describe_says_how_lengths_spread(opened):
    table = opened.describe()
    assert table.loc[("PT", "images"), "min"] == 3
    assert table.loc[("PT", "images"), "max"] == 6
    assert table.loc[("PT", "spacing_z"), "median"] == made.SPACING[0]
    assert table.loc[("OT", "spacing_z"), "known"] == 0
    assert table.loc[("OT", "spacing_z"), "grids"] == 25
    lengths = [3 + n % 4 for n in range(140, 200)]
    assert table.loc[("PT", "field_of_view_z"), "95%"] == pytest.approx(np.quantile(lengths, 0.95) * made.SPACING[0])


def test_the_coverage_is_plotted_with_every_grid_of_known_length(opened):
    figure = opened.plot()
    panels = {axes.get_xlabel(): axes for axes in figure.axes}
    known = sum(np.isfinite(v[0]) for v in opened.table["spacing"])
    drawn = sum(bar.get_height() for bar in panels["spacing z [mm]"].patches)
    assert drawn == known


# In a notebook
def test_a_notebook_shows_the_table_without_a_pixel(found, folder):
    for path in folder.rglob("*.dcm"):
        path.unlink()
    html = found._repr_html_()
    assert html.count("<tr>") == 3
    assert "missing-slices" in html


def test_pictures_are_read_one_frame_each(found, monkeypatch):
    from lazyvol import frames

    read = []
    whole = frames._Reader.read
    monkeypatch.setattr(frames._Reader, "read", lambda self, *a: (read.append(1), whole(self, *a))[1])
    html = found.view()._repr_html_()
    assert html.count("data:image/png;base64,") == 2
    assert len(read) == 2


def test_texts_of_headers_are_no_html(tmp_path):
    made.write(tmp_path, made.series(3, SeriesDescription="<b>&"))
    html = lv.open_collection(tmp_path)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;" in html


# The cache
def test_the_cache_is_for_the_user_alone(found, tmp_path, monkeypatch):
    path = tmp_path / "cache" / "headers.sqlite"
    monkeypatch.setenv("LAZYVOL_CACHE", str(path))
    lv.open_collection(found.root)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_same_is_found_with_a_cache_as_without(archive, opened, tmp_path):
    cache = str(tmp_path / "headers.sqlite")
    for _ in range(2):
        again = lv.open_collection(archive[0], cache=cache)
        pd.testing.assert_frame_equal(again.table, opened.table)
        assert again.skipped == opened.skipped
