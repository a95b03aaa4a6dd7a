"""The code blocks of a page, run in order; what a page shows as output is held against what comes out.

A fence that begins with ```` ```python ```` is run. A fence ```` ```output ```` right after it is what
the block prints; ``...`` stands for any text. A fence ```` ```{code-block} python ```` is shown and not run.
"""

from __future__ import annotations

import doctest
import io
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "PageError", "read_blocks", "run_page"]

FENCE = "```"


class PageError(AssertionError):
    """A block that prints something else than the page shows."""


@dataclass(frozen=True, slots=True)
class Block:
    """A code block of a page."""

    line: int
    """Line of the page on which its code begins, from 1."""

    code: str
    """What it runs."""

    output: str | None = None
    """What the page shows as its output; None if it shows none."""


def read_blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page in order."""
    found: list[Block] = []
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if not line.startswith(FENCE):
            continue
        content: list[str] = []
        for _, inner in lines:
            if inner.rstrip() == FENCE:
                break
            content.append(inner)
        text = "".join(f"{row}\n" for row in content)
        kind = line.removeprefix(FENCE).strip()
        if kind == "python":
            found.append(Block(number + 1, text))
        elif kind == "output":
            found[-1] = Block(found[-1].line, found[-1].code, text)
    return found


def run_page(page: Path, folder: Path) -> int:
    """Run the blocks of a page in a folder, with names that all of them share.

    Parameters
    ----------
    page
        A Markdown file.
    folder
        The working directory meanwhile; files that the page writes land there.

    Returns
    -------
    int
        How many blocks were run.

    Raises
    ------
    PageError
        If a block prints something else than the page shows.
    """
    blocks = read_blocks(page)
    names: dict[str, object] = {"__name__": page.stem}
    with chdir(folder):
        for block in blocks:
            _run(block, page, names)
    return len(blocks)


def _run(block: Block, page: Path, names: dict[str, object]) -> None:
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, names)
    if block.output is None:
        return
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not doctest.OutputChecker().check_output(block.output, printed.getvalue(), flags):
        shown, got = block.output, printed.getvalue()
        raise PageError(f"{page}, line {block.line}: the page shows\n{shown}but the code prints\n{got}")
