"""Commands of the shell, run in the process of the test."""

from __future__ import annotations

from click.testing import CliRunner

from lazyvol.cli import main


def run(*words):
    """Run a command; an exception that is no exit is an error of the test."""
    result = CliRunner().invoke(main, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
