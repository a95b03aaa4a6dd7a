"""Errors come back whole from a worker, and findings from their line of JSON."""

import ast
import inspect
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import examples

import lazyvol
from lazyvol import errors
from lazyvol.errors import CODES, Finding, LazyvolError, LazyvolWarning, finding

few = examples(100)
SOURCES = sorted(Path(lazyvol.__file__).parent.rglob("*.py"))
ERRORS = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, LazyvolError)]
RAISED = pytest.mark.parametrize("error", [*ERRORS, LazyvolWarning], ids=lambda e: e.__name__)


@RAISED
def test_an_error_survives_pickle_with_its_type(error):
    assert type(pickle.loads(pickle.dumps(error("what is wrong")))) is error


@RAISED
def test_an_error_survives_pickle_with_its_message(error):
    assert str(pickle.loads(pickle.dumps(error("what is wrong")))) == "what is wrong"


@RAISED
def test_an_error_survives_pickle_with_its_attributes(error):
    before = error("what is wrong")
    assert vars(pickle.loads(pickle.dumps(before))) == vars(before)


@pytest.mark.parametrize("error", [e for e in ERRORS if e is not LazyvolError], ids=lambda e: e.__name__)
def test_an_error_is_also_a_builtin_one(error):
    assert any(base.__module__ == "builtins" and base not in (Exception, BaseException, object) for base in error.mro())


@RAISED
def test_an_error_is_public_and_described(error):
    assert error.__name__ in errors.__all__
    assert error.__doc__
    assert not error.__doc__.startswith("Common base")


def test_every_public_name_exists():
    assert all(hasattr(errors, name) for name in errors.__all__)


# Findings

texts = st.text(max_size=30)
values = st.lists(st.one_of(texts, st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False)))
findings = st.builds(
    finding,
    st.sampled_from(sorted(CODES)),
    texts,
    slices=st.lists(st.integers(0, 5000)).map(tuple),
    values=values.map(tuple),
)


@few
@given(findings)
def test_a_finding_comes_back_from_json(note):
    assert Finding.from_json(note.to_json()) == note


@few
@given(findings)
def test_a_finding_is_one_line_of_json(note):
    assert "\n" not in note.to_json()
    assert json.loads(note.to_json())["code"] == note.code


def test_json_of_a_finding_has_no_files():
    note = finding("files-unreadable", "1 file", files=("/secret/path",))
    assert "secret" not in note.to_json()
    assert Finding.from_json(note.to_json()).files == ()


def test_a_finding_of_a_later_version_with_more_in_it_is_read():
    assert Finding.from_json('{"code": "new", "severity": "info", "message": "m", "more": 1}').code == "new"


@pytest.mark.parametrize("code", CODES)
def test_a_finding_has_the_severity_of_its_code(code):
    assert finding(code, "").severity == CODES[code]


def test_a_finding_of_no_known_code_cannot_be_made():
    with pytest.raises(KeyError, match="novel"):
        finding("novel", "")


def test_a_finding_reads_as_severity_code_and_message():
    assert str(finding("tilted", "it leans")) == "info: tilted: it leans"


def test_codes_cannot_be_changed():
    with pytest.raises(TypeError):
        CODES["tilted"] = "error"


@pytest.mark.parametrize("severity", sorted(set(CODES.values())))
def test_severities_are_three(severity):
    assert severity in ("info", "warning", "error")


# Codes in the source


def calls_of_finding():
    """Return the code of each call of finding(), with its place."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "finding":
                yield f"{path.name}:{node.lineno}", node.args[0] if node.args else None


CALLS = dict(calls_of_finding())


@pytest.mark.parametrize("place", CALLS)
def test_each_finding_is_made_with_a_known_code(place):
    code = CALLS[place]
    assert isinstance(code, ast.Constant), "the code stands where the finding is made"
    assert code.value in CODES


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_used(code):
    assert code in {c.value for c in CALLS.values() if isinstance(c, ast.Constant)}


@pytest.mark.parametrize("code", CODES)
def test_codes_are_words_with_hyphens(code):
    assert code.replace("-", "").isalpha()
    assert code == code.lower()
