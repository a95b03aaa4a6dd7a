"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

import lazyvol

MODULES = sorted(m.name for m in pkgutil.walk_packages(lazyvol.__path__, "lazyvol.") if not m.name.endswith("__main__"))
EXAMPLES = [
    pytest.param(test, id=test.name.removeprefix("lazyvol."))
    for name in ["lazyvol", *MODULES]
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name)
    if test.examples
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_gives_what_it_says(example, request):
    example.globs["getfixture"] = request.getfixturevalue
    report = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert tried
    assert not failed, "".join(report)


@pytest.mark.parametrize("name", [n for n in lazyvol.__all__ if n.islower()])
def test_every_public_function_has_an_example(name):
    assert any(example.values[0].name.endswith(f".{name}") for example in EXAMPLES)
