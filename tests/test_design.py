"""The imports hold to the house in docs/design.md: down only, and each outside package by its doors."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import lazyvol

HOME = Path(lazyvol.__file__).parent
PICTURE = HOME.parent / "docs" / "design.md"
FACE = "lazyvol"
"""The package itself, which imports each name when it is first used."""

ROWS = re.findall(r"^\| (\d+) \| (\w+) \| .* \| ([^|]+) \|$", PICTURE.read_text("utf-8"), re.MULTILINE)
LAYERS = {module: float(layer) for layer, module, _ in ROWS} | {FACE: 11.5, "__main__": 14.0}
OUTSIDE = {module: set(re.findall(r"\w+", packages)) for _, module, packages in ROWS}
"""Outside packages that a module may import, as the picture says; one that is not named, none."""

WITHIN_FUNCTIONS = {"matplotlib", "imagecodecs", "scipy", "tqdm"}
"""Packages that are imported where they are used, since most users of a module do not need them."""


class Import(NamedTuple):
    """One imported module."""

    target: str
    line: int
    in_function: bool
    for_types: bool


def imports_of(tree):
    """Return all imports of a module, also those inside functions and for the type checker alone."""

    def walk(node, in_function, for_types):
        for child in ast.iter_child_nodes(node):
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checked = for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            if isinstance(child, ast.Import):
                found.extend(Import(a.name, child.lineno, in_function, for_types) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"line {child.lineno}: a relative import"
                names = [f"{FACE}.{a.name}" for a in child.names] if child.module == FACE else [child.module]
                found.extend(Import(name, child.lineno, in_function, for_types) for name in names)
            walk(child, inside, checked)

    found = []
    walk(tree, False, False)
    return found


def module_of(path):
    """Return the module of the house that a file belongs to."""
    first = path.relative_to(HOME).parts[0].removesuffix(".py")
    return FACE if first == "__init__" else first


def room_of(target):
    """Return the module of the house that an import leads to; a name of the face is the face."""
    second = target.partition(".")[2].partition(".")[0]
    return second if second in MODULES else FACE


PATHS = sorted(HOME.rglob("*.py"))
MODULES = {module_of(path) for path in PATHS}
TREES = {path: ast.parse(path.read_text("utf-8")) for path in PATHS}
ALL = [
    pytest.param(module_of(path), each, id=f"{path.relative_to(HOME)}:{each.line}-{each.target}")
    for path, tree in TREES.items()
    for each in imports_of(tree)
]
INNER = [p for p in ALL if p.values[1].target.split(".")[0] == FACE and p.values[0] != FACE]
OUTER = [
    p
    for p in ALL
    if p.values[1].target.split(".")[0] not in {FACE, "__future__", *sys.stdlib_module_names}
    and not p.values[1].for_types
]
FILES = pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(HOME)))


def test_every_module_has_a_layer():
    assert set(LAYERS) == MODULES


@pytest.mark.parametrize(("module", "each"), INNER)
def test_imports_go_down(module, each):
    target = room_of(each.target)
    assert LAYERS[target] < LAYERS[module] or target == module == "phantom"


@pytest.mark.parametrize(("module", "each"), OUTER)
def test_outside_packages_come_in_by_their_doors(module, each):
    assert each.target.split(".")[0] in OUTSIDE.get(module, set())


@pytest.mark.parametrize(("module", "each"), [p for p in OUTER if p.values[1].target.split(".")[0] in WITHIN_FUNCTIONS])
def test_packages_for_some_are_imported_where_they_are_used(module, each):
    assert each.in_function


@pytest.mark.parametrize("each", [p.values[1] for p in OUTER if p.values[0] == "phantom"], ids=str)
def test_the_phantom_needs_pydicom_only_to_write(each):
    assert each.in_function or each.target.startswith("numpy")


@pytest.mark.parametrize("module", sorted(OUTSIDE))
def test_no_door_stands_open_without_use(module):
    used = {p.values[1].target.split(".")[0] for p in OUTER if p.values[0] == module}
    assert OUTSIDE[module] - used <= {"dask"}


@FILES
def test_a_module_has_at_most_400_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400


@FILES
def test_a_module_says_what_it_is_for(path):
    docstring = ast.get_docstring(TREES[path])
    assert docstring
    assert docstring.splitlines()[0].endswith(".")


@FILES
def test_what_a_module_offers_exists(path):
    tree = TREES[path]
    offered = [
        name.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        for name in node.value.elts
    ]
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    defined |= {t.id for n in ast.walk(tree) if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    defined |= {n.target.id for n in tree.body if isinstance(n, ast.AnnAssign)}
    defined |= {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    assert set(offered) <= defined


# Importing


HEAVY = ("xarray", "dask", "pydicom", "zarr", "matplotlib", "pandas", "numpy", "fsspec", "scipy", "imagecodecs")


def test_importing_lazyvol_loads_no_outside_package():
    ask = f"import sys, lazyvol; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "\n"


@pytest.mark.parametrize("module", ["errors", "records", "geometry", "elements", "series", "grid", "axes"])
def test_what_knows_no_file_loads_no_reader(module):
    ask = f"import sys, lazyvol.{module}; print(*sorted({{'xarray', 'dask', 'pydicom', 'fsspec'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "\n"


@FILES
def test_importing_a_module_opens_no_file(path):
    top = [n for n in TREES[path].body if not isinstance(n, ast.FunctionDef | ast.ClassDef | ast.If)]
    called = {
        getattr(c.func, "id", getattr(c.func, "attr", "")) for n in top for c in ast.walk(n) if isinstance(c, ast.Call)
    }
    assert not called & {"open", "print", "getLogger", "basicConfig", "signal", "filterwarnings", "set_options"}
