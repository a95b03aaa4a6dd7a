"""How the documentation is built: ``nox -s docs``. Nothing is fetched; the pages draw their own pictures."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import matplotlib as mpl
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from blocks import run_page  # noqa: E402  # found beside this file

project = "lazyvol"
author = "The lazyvol maintainers"
project_copyright = author
version = release = version_of("lazyvol")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
default_role = "autolink"
nitpicky = True

nitpick_ignore_regex = [
    # No inventory of other projects is fetched, so their names have no page to link to.
    (r"py:.*", r"(np|npt|numpy|xr|xarray|pd|pandas|pydicom|matplotlib|os|collections|typing|pathlib|zarr|dask)\..*"),
    (r"py:.*", r"(Any|ArrayLike|Axes|AxesImage|BackendEntrypoint|Dataset|FileNotFoundError|Literal)"),
    (r"py:.*", r"lazyvol\.inventory\.\w+"),
    # Aliases and fields that a signature shows by name; the text below it says what they are.
    (r"py:.*", r"(Overrides|Path|Planes|Positions|Value|Window|(lazyvol\.records\.)?LookupTable|Uptake|Vector)"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"npt.ArrayLike": "ArrayLike"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
autosummary_generate = False
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "lazyvol"
html_static_path = ["_static"]
html_css_files = ["lazyvol.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": [],
    "footer_end": [],
    "article_header_start": [],
}
html_sidebars = {"**": []}


class CommandHelp(SphinxDirective):
    """What a command of lazyvol prints with ``--help``; the argument is the command, or nothing for all of them."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return one literal block."""
        from lazyvol.cli import main

        name = self.arguments[0] if self.arguments else ""
        command: Any = main.commands[name] if name else main
        parent = click.Context(main, info_name="lazyvol") if name else None
        context = click.Context(command, info_name=name or "lazyvol", parent=parent, max_content_width=92)
        return [nodes.literal_block(text=command.get_help(context), language="text")]


def draw_pictures(_app: Sphinx) -> None:
    """Run the pages that draw pictures, and keep what they draw in ``_pictures``."""
    mpl.use("Agg")
    os.environ["LAZYVOL_KEY"] = "a key for the documentation"  # no key file of the user is made
    os.environ["LAZYVOL_CACHE"] = os.devnull  # nor a cache
    pictures = DOCS / "_pictures"
    pictures.mkdir(exist_ok=True)
    for page in ("tutorial.md", "geometry.md", "collections.md"):
        with TemporaryDirectory() as folder:
            run_page(DOCS / page, Path(folder))
            for picture in Path(folder).glob("*.png"):
                shutil.copy(picture, pictures)


FIXTURES = {
    'getfixture("chest_folder") / "': '"chest-data/',
    'getfixture("chest_folder")': '"chest-data"',
    'getfixture("tmp_path") / "': '"',
    'getfixture("tmp_path")': '"chest-data"',
}
"""What the examples in docstrings take from the tests, and what a reader sees in its place."""


def name_folders(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Show a folder's name where an example asks the tests for one."""
    for number, line in enumerate(lines):
        for fixture, folder in FIXTURES.items():
            line = line.replace(fixture, folder)  # noqa: PLW2901
        lines[number] = line


def setup(app: Sphinx) -> None:
    """Add what this page defines."""
    app.connect("autodoc-process-docstring", name_folders)
    app.add_directive("command-help", CommandHelp)
    app.connect("builder-inited", draw_pictures)
