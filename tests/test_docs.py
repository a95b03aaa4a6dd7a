"""What the pages say is what the code does."""

import importlib.util
import re
import runpy
import sys
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import lazyvol
from lazyvol import phantom
from lazyvol.errors import CODES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLE = ROOT / "examples" / "whole_body_ct.py"


def _load_blocks():
    spec = importlib.util.spec_from_file_location("docs_blocks", DOCS / "blocks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BLOCKS = _load_blocks()
PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if BLOCKS.read_blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(page, tmp_path):
    assert BLOCKS.run_page(page, tmp_path) == len(BLOCKS.read_blocks(page))
    shown = re.findall(r"\(_pictures/([^)]+)\)", page.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(path.name for path in tmp_path.glob("*.png"))
    for name in shown:
        assert _is_picture(tmp_path / name)


def _is_picture(path):
    pixels = mpl.image.imread(path)[..., :3]
    return min(pixels.shape[:2]) > 200 and np.ptp(pixels) > 0.9


def test_a_page_that_shows_another_output_is_found_out(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Sums\n\n```python\nprint(1 + 1)\n```\n\n```output\n3\n```\n", encoding="utf-8")
    with pytest.raises(BLOCKS.PageError, match="line 4: the page shows\n3\nbut the code prints\n2"):
        BLOCKS.run_page(page, tmp_path)


def test_the_findings_page_has_every_code_with_its_severity():
    text = (DOCS / "findings.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| `")
    ]
    codes = {row[0].strip("`"): row[1] for row in rows if len(row) == 5}
    assert codes == dict(CODES)
    assert len(codes) == sum(len(row) == 5 for row in rows), "a code has two rows"


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto\w+:: lazyvol\.(\w+)$", text, flags=re.MULTILINE))
    assert set(lazyvol.__all__) <= documented


def test_the_example_does_the_main_job(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE)])
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(EXAMPLE), run_name="__main__")
    results = tmp_path / "whole-body-ct"
    store = lazyvol.open_zarr(results / "body.zarr")
    assert bool((store == names["body"]).all())
    assert lazyvol.field_of_view(store) == (960, 384, 512)
    assert _is_picture(results / "slices.png")
    assert _is_picture(results / "lung.png")
    assert len((results / "lung.csv").read_text(encoding="utf-8").splitlines()) == 1 + names["chest"].sizes["z"]


def test_the_example_takes_a_folder(tmp_path, monkeypatch):
    small = partial(phantom.write_body_ct, shape=(40, 48, 64), spacing=(24.0, 8.0, 8.0))
    monkeypatch.setattr(phantom, "write_body_ct", small)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path / "here")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        "dicom",
        "slices.png",
        "lung.png",
        "lung.csv",
        "body.zarr",
    }


def test_ci_runs_the_test_command_of_the_readme():
    commands = [
        block
        for block in (ROOT / "README.md").read_text("utf-8").split("```sh\n")[1:]
        if "pytest" in block.split("```")[0]
    ]
    assert commands[0].split("```")[0].strip() in (ROOT / ".ci" / "run").read_text("utf-8")
