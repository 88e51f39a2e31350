"""The fenced code blocks of a Markdown page, as tests and generators read them.

A comment above a block says how it runs: `<!-- run: long -->` only where time allows (`make docs`, ULTRATWIN_LONG=1);
`<!-- run: first 12 lines -->` how much of its output the page shows.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTIONS = re.compile(r"<!-- run: ([^>]*?) -->\n$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A code block: its language, its text, where it stands in the page (characters and line), and how it runs."""

    language: str
    text: str
    start: int
    end: int
    line: int
    options: tuple[str, ...]

    @property
    def is_long(self) -> bool:
        """Whether it takes too long for every test run."""
        return "long" in self.options

    @property
    def lines_shown(self) -> int | None:
        """How many lines of output the page shows; None for all."""
        found = [int(each.split()[1]) for each in self.options if each.startswith("first ")]
        return found[0] if found else None


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(page):
        options = _OPTIONS.search(page, 0, match.start())
        found.append(
            Block(
                language=match[1],
                text=match[2],
                start=match.start(2),
                end=match.end(2),
                line=page.count("\n", 0, match.start(2)) + 1,
                options=tuple(each.strip() for each in options[1].split(",")) if options else (),
            )
        )
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block as they are written (prompt and continued lines included), and as one line.

    Example:
        >>> page = "```console\\n$ make \\\\\\n  test\\nout\\n```\\n"
        >>> commands(blocks(page)[0])
        [('$ make \\\\\\n  test\\n', 'make test')]
    """
    found = []
    for match in re.finditer(r"^\$ (?:.*\\\n)*.*\n", block.text, re.MULTILINE):
        found.append((match[0], shlex.join(shlex.split(match[0].removeprefix("$ ").replace("\\\n", " ")))))
    return found
