"""What the commands in a shell share: errors in one line, warnings, JSON, whether somebody sees a bar."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from lazyvol.errors import LazyvolError

__all__ = ["as_json", "has_terminal", "plain_errors", "print_json", "with_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
"""The option of commands that print facts."""


def plain_errors(command: Command) -> Command:
    """Show an error that lazyvol raises on purpose as one message, with exit code 1."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return command(*args, **options)
        except LazyvolError as error:
            raise click.ClickException(with_options(str(error))) from error
        except BrokenPipeError:
            raise  # the reader has seen enough; click ends without a word
        except OSError as error:
            raise click.ClickException(f"{error.filename or 'a file'}: {error.strerror or error}.") from error

    return wrapped  # type: ignore[return-value]  # same signature


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line, without the code that gave it."""
    click.echo(f"Warning: {with_options(str(message))}", err=True)


def with_options(message: str) -> str:
    """Return a message with the options of the shell in place of the arguments of functions."""
    message = re.sub(r"\b(overwrite|siblings)=True", r"--\1", message)
    message = message.replace("mask_padding", "--mask-padding").replace("on_error=", "on-error=")
    named = r"\b(series|stack|missing|duplicates|identifiers|window|values|on-error)=(?:\"([^\"]*)\"|'([^']*)'|(\d+))?"
    return re.sub(named, lambda m: " ".join([f"--{m[1]}", *(shlex.quote(v) for v in m.groups()[1:] if v)]), message)


def has_terminal() -> bool:
    """Return whether somebody would see a bar."""
    return sys.stderr.isatty()


def print_json(content: Any) -> None:
    """Print content as JSON, which has null for NaN."""
    click.echo(json.dumps(_without_nan(content), indent=1, ensure_ascii=False))


def _without_nan(content: Any) -> Any:
    """Return the content with null for NaN, which JSON does not have."""
    if isinstance(content, dict):
        return {k: _without_nan(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(v) for v in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
