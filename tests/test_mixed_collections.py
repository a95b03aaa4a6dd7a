"""Collections of what was not foreseen: kinds side by side, several roots, damaged files, no place for a key."""

from __future__ import annotations

import json
import os
import warnings

import ngff_zarr
import numpy as np
import pytest
import series_made as made
import zarr
from commands import run

import lazyvol as lv
from lazyvol.errors import FindingError, LazyvolWarning, OptionError, PixelReadError, SourceNotFoundError, StoreError
from lazyvol.phantom import write_series

nibabel = pytest.importorskip("nibabel", reason="nibabel is absent: install lazyvol[nifti]")


def write_nifti(path, value=1, shape=(4, 3, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.full(shape, value, "int16"), np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


@pytest.fixture
def mixed(tmp_path):
    """A series, a NIfTI file and a store in one tree."""
    root = tmp_path / "mixed"
    write_series(root / "ct", np.zeros((3, 6, 8)), spacing=(3.0, 0.9, 0.7))
    write_nifti(root / "a.nii")
    lv.save_zarr(lv.open_volume(root / "ct") + 1, root / "b.zarr")
    return root


# Several roots, one folder of stores


def test_files_of_one_name_in_two_roots_are_two_stores(tmp_path):
    for n in (1, 2):
        write_nifti(tmp_path / f"p{n}" / "T1.nii", n)
        lv.open_collection(tmp_path / f"p{n}").save_zarr(tmp_path / "out")
    found = [int(v.max()) for v in lv.open_collection(tmp_path / "out").values()]
    assert sorted(found) == [1, 2]


def test_series_without_uid_in_two_roots_are_two_stores(tmp_path):
    for n in (1, 2):
        made.write(tmp_path / f"p{n}" / "s", made.series(2 + n, SeriesInstanceUID=None, StudyInstanceUID=None))
        lv.open_collection(tmp_path / f"p{n}").save_zarr(tmp_path / "out")
    assert sorted(v.sizes["z"] for v in lv.open_collection(tmp_path / "out").values()) == [3, 4]


def test_series_below_the_folder_of_the_stores_are_converted_too(mixed):
    report = lv.open_collection(mixed).save_zarr(mixed)
    assert list(report["status"]) == ["done", "done"]  # the store that is there already stays
    assert sorted(lv.open_collection(mixed).table["kind"]) == ["dicom", "nifti", "store", "store", "store"]
    again = lv.open_collection(mixed)
    assert list(again.select(again.query("kind != 'store'")).save_zarr(mixed)["content"]) == list(report["content"])


def test_converting_into_the_root_again_makes_nothing_more(mixed):
    first = lv.open_collection(mixed).save_zarr(mixed / "stores")
    names = sorted(p.name for p in (mixed / "stores").iterdir())
    for _ in range(2):
        again = lv.open_collection(mixed).query("not path.str.contains('stores')").save_zarr(mixed / "stores")
        assert list(again["content"]) == list(first["content"])
        assert sorted(p.name for p in (mixed / "stores").iterdir()) == names


def test_files_at_one_place_in_two_roots_have_keys_of_their_own(tmp_path):
    for n in (1, 2):
        write_nifti(tmp_path / f"p{n}" / "x" / "T1.nii", n, (4, 3, 1 + n))
        made.write(tmp_path / f"p{n}" / "s", made.series(2 + n, SeriesInstanceUID=None, StudyInstanceUID=None))
        lv.open_collection(tmp_path / f"p{n}").save_zarr(tmp_path / "out", identifiers="uids" if n == 1 else "none")
    found = lv.open_collection(tmp_path / "out")
    assert len({uid for uid, _ in found}) == 4
    assert {stack for _, stack in found} == {0}
    assert b"T1" not in (tmp_path / "out" / "index.jsonl").read_bytes()


# What has changed


def change_in_place(path):
    array = zarr.open_array(path, mode="r+")
    array[...] = array[...] + 7


def write_foreign(path, version):
    values = np.arange(4 * 3 * 2, dtype="int16").reshape(2, 3, 4)
    image = ngff_zarr.to_ngff_image(values, ("z", "y", "x"), dict.fromkeys("zyx", 1.0), dict.fromkeys("zyx", 0.0))
    image.axes_units = dict.fromkeys("zyx", "millimeter")
    ngff_zarr.to_ngff_zarr(str(path), ngff_zarr.to_multiscales(image, scale_factors=[]), version=version)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_store_of_another_tool_that_changed_in_place_is_converted_anew(tmp_path, version):
    write_foreign(tmp_path / "in" / "a.zarr", version)
    found = lv.open_collection(tmp_path / "in")
    first = found.save_zarr(tmp_path / "out")
    (data,) = [f for f, _, names in os.walk(tmp_path / "in" / "a.zarr") if f.endswith("image")]
    change_in_place(data)
    with pytest.raises(lv.LazyvolError, match="are not what they were"):
        next(iter(found.values()))
    second = lv.open_collection(tmp_path / "in").save_zarr(tmp_path / "out")
    assert list(second["content"]) != list(first["content"])
    assert int(lv.open_zarr(tmp_path / "out" / f"{second['name'].iloc[0]}.zarr").min()) == 7


def test_a_changed_file_of_any_kind_is_an_error_until_the_collection_is_opened_again(mixed, tmp_path):
    found = lv.open_collection(mixed)
    first = found.save_zarr(tmp_path / "out")
    write_nifti(mixed / "a.nii", 9)
    lv.save_region(lv.open_zarr(mixed / "b.zarr")[:1] * 0 + 5, mixed / "b.zarr")
    for key in found.query("kind != 'dicom'"):
        with pytest.raises(lv.LazyvolError, match="are not what they were"):
            found[key]
    report = found.save_zarr(tmp_path / "other")
    assert sorted(report["status"]) == ["done", "failed", "failed"]
    assert list(lv.open_collection(mixed).save_zarr(tmp_path / "out")["content"]) != list(first["content"])


# Options of open_volume for what is no DICOM


@pytest.mark.parametrize(
    "options",
    [{"on_error": "fill"}, {"missing": "fill"}, {"duplicates": "first"}, {"mask_padding": True}, {"rescale": True}],
    ids=str,
)
def test_options_for_odd_series_leave_other_kinds_as_they_are(mixed, tmp_path, options):
    found = lv.open_collection(mixed)
    assert list(found.map(lambda v: v.sizes["x"], **options)["error"]) == [""] * 3
    report = found.save_zarr(tmp_path / "out", **options)
    assert list(report["status"]) == ["done"] * 3


@pytest.mark.parametrize("options", [{"rescale": False}, {"values": "real_world"}, {"dtype": "float32"}], ids=str)
def test_options_that_ask_for_other_values_are_refused_where_there_are_none(mixed, options):
    found = lv.open_collection(mixed)
    errors = found.query("kind != 'dicom'").map(lambda v: v.sizes["x"], **options)["error"]
    (option,) = options
    assert all(e.startswith(f"OptionError: {option}=") and "is for series of DICOM" in e for e in errors)
    assert "query(" in errors.iloc[0]


def test_what_the_options_do_not_allow_is_refused_in_a_store_too(tmp_path):
    made.write(tmp_path / "in", made.series(at=[0, 1, 3]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lv.save_zarr(lv.open_volume(tmp_path / "in"), tmp_path / "stores" / "a.zarr")
    found = lv.open_collection(tmp_path / "stores")
    (key,) = found
    assert found[key].sizes["z"] == 3
    for options in ({"strict": True}, {"missing": "raise"}):
        with pytest.raises(FindingError, match="missing"):
            found.open(key, **options)


@pytest.mark.parametrize("options", [{"missing": "fil"}, {"duplicates": "x"}, {"values": "real"}], ids=str)
def test_a_word_that_is_none_is_refused_before_anything_is_recorded(mixed, tmp_path, options):
    found = lv.open_collection(mixed)
    found.save_zarr(tmp_path / "out")
    index = (tmp_path / "out" / "index.jsonl").read_bytes()
    for call in (
        lambda: found.save_zarr(tmp_path / "out", **options),
        lambda: found.map(lambda v: v.sizes["x"], **options),
        lambda: found.open(next(iter(found.query("kind == 'nifti'"))), **options),
    ):
        with pytest.raises(OptionError, match="is not known; it can be"):
            call()
    assert (tmp_path / "out" / "index.jsonl").read_bytes() == index


def test_other_options_that_fail_leave_what_is_done_as_it_is(mixed, tmp_path):
    found = lv.open_collection(mixed)
    found.save_zarr(tmp_path / "out")
    report = found.save_zarr(tmp_path / "out", values="real_world")
    assert set(report["status"]) == {"failed"}
    assert run("status", tmp_path / "out").output == "3 done, 0 failed, 0 to come\n"
    assert (tmp_path / "out" / "index.csv").read_text().count(",done,") == 3


@pytest.mark.parametrize("options", [{"foo": 1}, {"stack": 1}, {"series": 3}], ids=str)
def test_an_option_that_is_none_of_a_collection_is_named(mixed, options):
    found = lv.open_collection(mixed)
    with pytest.raises(OptionError, match="is no option of open_volume for a collection"):
        found.open(next(iter(found)), **options)


# Files that are damaged


def cut_header(paths):
    """End the last file behind its UIDs, before its rows and columns."""
    content = paths[-1].read_bytes()
    paths[-1].write_bytes(content[: content.index(b"\x28\x00\x02\x00US")])


@pytest.fixture
def damaged(tmp_path):
    """A series in whose folder lies another one, and whose last file ends in its header."""
    paths = write_series(tmp_path / "in", np.zeros((6, 8, 8)), spacing=(2.0, 1.0, 1.0))
    write_series(tmp_path / "more", np.zeros((3, 8, 8)), spacing=(2.0, 1.0, 1.0), modality="PT", series_number=7)
    for n, path in enumerate((tmp_path / "more").iterdir()):
        path.rename(tmp_path / "in" / f"pt{n}.dcm")
    cut_header(paths)
    return tmp_path / "in"


def test_a_file_that_cannot_be_read_is_a_finding_of_its_series_alone(damaged, tmp_path):
    found = lv.open_collection(damaged, cache=None)
    codes = dict(zip(found.table["modality"], found.table["findings"], strict=True))
    assert codes == {"CT": ("files-unreadable",), "PT": ()}
    (key,) = found.query("modality == 'CT'")
    assert [f.code for f in found[key].vol.findings] == ["files-unreadable"]
    assert sum("files-unreadable" in str(leaf["image"].attrs["findings"]) for leaf in found.datatree().leaves) == 1
    with pytest.raises(FindingError, match="could not be read"):
        found.open(key, strict=True)
    report = found.save_zarr(tmp_path / "out", strict=True)
    assert sorted(report["status"]) == ["done", "failed"]
    said = found.save_zarr(tmp_path / "other")
    stores = lv.open_collection(tmp_path / "other")
    assert stores.table.set_index("name")["findings"][said.loc[key, "name"]] == ("files-unreadable",)
    assert "perhaps cut short" in str(found.skipped_reasons.index.tolist() + found.skipped_reasons.values.tolist())


def test_a_file_without_any_uid_may_be_of_each_series_of_its_folder(damaged):
    write_series(damaged.parent / "in2", np.zeros((3, 8, 8)), spacing=(2.0, 1.0, 1.0), series_number=9)
    cut = min(damaged.iterdir(), key=lambda p: p.stat().st_size)
    cut.write_bytes(cut.read_bytes()[:200])
    found = lv.open_collection(damaged.parent, cache=None)
    codes = dict(zip(found.table["number"], found.table["findings"], strict=True))
    assert [s.path for s in found.skipped if s.damaged] == [str(cut)]
    assert (codes.pop(9), set(codes.values()), len(codes)) == ((), {("files-unreadable",)}, 2)


def test_the_damaged_file_mended_is_seen(damaged):
    found = lv.open_collection(damaged, cache=None)
    cut = min(damaged.iterdir(), key=lambda p: p.stat().st_size)
    (key,) = found.query("modality == 'CT'")
    cut.unlink()
    with pytest.raises(lv.LazyvolError, match="are not what they were"):
        found[key]
    assert lv.open_collection(damaged, cache=None).table["findings"].tolist() == [(), ()]


@pytest.mark.parametrize("content", [b"", b"\0" * 3000], ids=["empty", "zeros"])
def test_a_file_of_which_nothing_is_left_is_a_finding_too(tmp_path, content):
    paths = write_series(tmp_path / "in", np.zeros((6, 8, 8)), spacing=(2.0, 1.0, 1.0))
    paths[-1].write_bytes(content)
    (tmp_path / "in" / "notes").write_bytes(content)  # not called as an image
    found = lv.open_collection(tmp_path / "in", cache=None)
    assert found.table["findings"].tolist() == [("files-unreadable",)]
    assert [f.values for f in next(iter(found.values())).vol.findings] == [(1,)]
    assert [f.code for f in lv.open_volume(tmp_path / "in").vol.findings] == ["files-unreadable"]


def test_a_nifti_file_that_is_cut_short_says_so(tmp_path):
    write_nifti(tmp_path / "in" / "a.nii")
    content = (tmp_path / "in" / "a.nii").read_bytes()
    (tmp_path / "in" / "a.nii").write_bytes(content[:-8])
    found = lv.open_collection(tmp_path / "in")
    with pytest.raises(PixelReadError, match=r"a.nii cannot be read, it may be cut short: .*Copy the file again"):
        next(iter(found.values())).compute()
    (reason,) = found.save_zarr(tmp_path / "out")["reason"]
    assert reason.startswith("PixelReadError: the values of ... cannot be read, it may be cut short")


# What is said of failures


@pytest.mark.parametrize("folder", ["short", "frame", "series"])
def test_a_reason_keeps_its_words_whatever_a_folder_is_called(tmp_path, folder):
    paths = write_series(tmp_path / folder, np.zeros((3, 6, 8)), spacing=(3.0, 0.9, 0.7))
    paths[0].write_bytes(paths[0].read_bytes()[:-20])
    (reason,) = lv.open_collection(tmp_path / folder, cache=None).save_zarr(tmp_path / "out")["reason"]
    assert reason.startswith("PixelReadError: ... is cut short: frame 1 has")
    assert str(tmp_path) not in reason


def test_a_reason_does_not_tell_where_the_stores_lie(mixed, tmp_path, monkeypatch):
    from lazyvol import conversion

    def fail(_volume, path, **_):
        raise StoreError(f"{path}.partial cannot be written: No space left on device.")

    monkeypatch.setattr(conversion, "save_zarr", fail)
    out = tmp_path / "Users_ZZDOE"
    report = lv.open_collection(mixed).save_zarr(out)
    assert all(".zarr.partial cannot be written: No space left" in reason for reason in report["reason"])
    assert not any("ZZDOE" in reason for reason in report["reason"])
    assert b"ZZDOE" not in (out / "index.jsonl").read_bytes() + (out / "index.csv").read_bytes()


def refuse_constants(word):
    raise AssertionError(word)


def test_the_index_is_json_for_everyone(tmp_path):
    made.write(tmp_path / "in", made.series(at=[0, 1, 2.3, 4.1]))  # uneven: spacing is NaN
    lv.open_collection(tmp_path / "in").save_zarr(tmp_path / "out")
    lines = (tmp_path / "out" / "index.jsonl").read_text().splitlines()
    series = [json.loads(line, parse_constant=refuse_constants) for line in lines][-1]
    assert series["spacing"][0] is None
    assert "nan " in (tmp_path / "out" / "index.csv").read_text()


@pytest.mark.parametrize("uid", ["1.2.392.200103.20080913.093635.1", "ZZDOE", "PAT-123/1", "1234560", "1..2", "1.2"])
def test_a_sop_instance_uid_is_hidden_whatever_it_looks_like(tmp_path, uid):
    def give(k, dataset):
        dataset.SOPInstanceUID = f"{uid}.{k}"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on what is no UID
        write_series(tmp_path / "in", np.zeros((3, 8, 8)), spacing=(2.0, 1.0, 1.0), overrides=give)
    lv.save_zarr(lv.open_volume(tmp_path / "in"), tmp_path / "a.zarr")
    found = lv.open_zarr(tmp_path / "a.zarr").sop_instance_uid.values
    assert all(v.startswith("2.25.") for v in found)
    assert len(set(found)) == 3
    for path in (tmp_path / "a.zarr").rglob("*"):
        assert not path.is_file() or uid.encode() not in path.read_bytes() or len(uid) < 4


# Where no key can be kept


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No key in the environment, and a home that is a file."""
    (tmp_path / "home").write_text("")
    monkeypatch.delenv("LAZYVOL_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("homeless")
def test_a_collection_opens_where_no_key_can_be_kept_and_nothing_is_saved(mixed_without_stores, tmp_path):
    with pytest.warns(LazyvolWarning, match="LAZYVOL_KEY.*those of this process alone"):
        found = lv.open_collection(mixed_without_stores, cache=None)
    assert found.table["patient"].iloc[0].startswith("patient-")
    assert [v.shape for v in found.values()] == [(3, 6, 8)]
    with pytest.warns(LazyvolWarning, match="those of this process alone"):
        assert len(list(found.datatree().leaves)) == 1
    for save in (lambda: found.save_zarr(tmp_path / "out"), lambda: found.save(tmp_path / "a.csv")):
        with pytest.raises(StoreError, match="LAZYVOL_KEY"):
            save()
    assert not (tmp_path / "out").exists()


@pytest.fixture
def mixed_without_stores(tmp_path):
    write_series(tmp_path / "in" / "ct", np.zeros((3, 6, 8)), spacing=(3.0, 0.9, 0.7))
    return tmp_path / "in"


# Expressions


def test_a_query_knows_the_variables_of_its_caller(mixed):
    found = lv.open_collection(mixed)
    wanted = "nifti"  # noqa: F841  # in the expressions
    assert len(found.query("kind == @wanted")) == 1
    assert len(found.map(lambda v: v.sizes["x"], where="kind == @wanted")) == 1
    with pytest.raises(OptionError, match="cannot be evaluated"):
        found.query("kind == @expression")


def test_a_shell_knows_no_variables(mixed, tmp_path):
    result = run("convert", mixed, tmp_path / "out", "--where", "@os.getpid() > 0")
    assert result.exit_code == 1
    assert "--where knows the columns of the table, and no variables (@)" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", ["a", 1.5, -1])
def test_a_count_that_is_none_is_named(mixed, count):
    with pytest.raises(OptionError, match="must be a whole number"):
        lv.open_collection(mixed).view(count)


def test_an_expression_without_truth_is_named_in_short(opened_archive):
    with pytest.raises(OptionError, match="cannot be evaluated as true or false") as raised:
        opened_archive.query("images")
    assert len(str(raised.value)) < 400


@pytest.fixture
def opened_archive(archive):
    return lv.open_collection(archive[0], cache=None)


def test_a_shell_opens_nifti_files_and_stores_of_other_tools(mixed, tmp_path):
    assert json.loads(run("info", mixed / "a.nii", "--json").output)["shape"] == [2, 3, 4]
    assert run("convert", mixed / "a.nii", tmp_path / "a.zarr").exit_code == 0
    assert lv.open_zarr(tmp_path / "a.zarr").shape == (2, 3, 4)
    refused = run("info", mixed / "a.nii", "--missing", "fill")
    assert "is a NIfTI file, which holds one volume; --missing is for DICOM" in refused.stderr + refused.output


def test_a_collection_is_equal_to_itself_alone(mixed):
    one, other = lv.open_collection(mixed), lv.open_collection(mixed)
    assert one != other
    assert one in [other, one]
    assert len({one, other}) == 2


# URLs


@pytest.mark.parametrize(
    "url",
    ["foo://bucket/a", "http://127.0.0.1:9/a", "memory://nothing/at/all"],
)
def test_a_url_that_leads_nowhere_is_named(url):
    with pytest.raises(SourceNotFoundError, match=f"{url} (cannot be reached|does not exist)"):
        lv.open_collection(url)
    with pytest.raises(SourceNotFoundError, match=f"{url} (cannot be reached|does not exist)"):
        lv.open_volume(url)


def test_a_service_that_refuses_is_named(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*_args, **_named):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(MemoryFileSystem, "exists", refuse)
    monkeypatch.setattr(MemoryFileSystem, "isdir", refuse)
    for opener in (lv.open_collection, lv.open_volume):
        with pytest.raises(SourceNotFoundError, match="cannot be reached: RuntimeError"):
            opener("memory://a/b")
