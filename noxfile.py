"""What is run every day: ``nox`` for all, ``nox -s lint`` for one; ``nox -l`` lists them."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "lowest", "docs"]

PYTHONS = ["3.11", "3.12", "3.13"]
PROJECT = nox.project.load_toml("pyproject.toml")


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    session.install("-e", ".", *_group("test"))
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Test on the oldest versions of the dependencies that pyproject.toml allows."""
    session.install("uv")
    session.run("uv", "pip", "install", "--resolution", "lowest-direct", "-e", ".", "--group", "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    session.install("-e", ".", *_group("types"))
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    session.install("-e", ".", *_group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """``nox -s bench -- --rows index --only limit,lazyvol``; ``-- scale`` and ``-- decoding`` run the other scripts."""
    session.install("-e", ".", *_group("bench"))
    script, *options = session.posargs or ["run"]
    if script not in ("run", "scale", "decoding"):
        script, options = "run", session.posargs
    session.run("python", f"tests/bench/{script}.py", *options)


@nox.session
def demo(session: nox.Session) -> None:
    session.install(".")
    session.run("lazyvol", "demo", *(session.posargs or [f"{session.create_tmp()}/lazyvol-demo"]))
