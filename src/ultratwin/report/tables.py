"""Blocks of an answer, and how a terminal shows them: width-aware, readable without colour."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

from ultratwin.catalogue.assumptions import assumed_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH: Final = 110
"""Columns where the output is no terminal and COLUMNS is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    """The first line of an answer, and lines below it."""

    text: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Label, value and a detail on each row, such as the range."""

    title: str
    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Label, value, share of the whole as a bar, and a remark."""

    title: str
    rows: tuple[tuple[str, str, float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table. `right` holds the columns whose cells are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Text under a title."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSided:
    """Label, what lies to the left of a middle line, and to the right: a text and a bar (0 to 1) on either side."""

    title: str
    rows: tuple[tuple[str, str, float, float, str], ...]


Block = Title | Pairs | Bars | Grid | Lines | TwoSided


def rendered(blocks: Sequence[Block], *, width: int = 100) -> str:
    """The blocks as plain text, `width` columns wide, no line with trailing blanks."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=max(width, 40), color_system=None, force_terminal=False, highlight=False)
    _print(console, blocks, bar="█")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def show(blocks: Sequence[Block], stream: TextIO | None = None) -> None:
    """Prints the blocks: coloured on a terminal (unless NO_COLOR is set), plain into a pipe."""
    stream = stream or sys.stdout
    bar = "█" if _can_encode(stream, "█") else "#"
    if not stream.isatty():
        width = os.environ.get("COLUMNS", "")
        text = rendered(blocks, width=int(width) if width.isdecimal() and 0 < int(width) < 10_000 else PIPE_WIDTH)
        stream.write(text.replace("█", bar) + "\n")
        return
    from rich.console import Console

    _print(Console(file=stream, highlight=False), blocks, bar=bar)


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _print(console: Console, blocks: Sequence[Block], *, bar: str) -> None:
    assumed = assumed_lines()
    if assumed:
        blocks = [*blocks, Lines(title="assumed, instead of what the catalogue has", lines=assumed)]
    for at, block in enumerate(blocks):
        if at:
            console.print()
        for part in _parts(block, console.width, bar):
            console.print(part)


def _parts(block: Block, width: int, bar: str) -> list[RenderableType]:
    from rich.text import Text

    match block:
        case Title(text=text, lines=lines):
            return [Text(text, style="bold"), *(Text(line) for line in lines)]
        case Lines(title=title, lines=lines):
            return [Text(title, style="bold"), *(_indented(Text(line)) for line in lines)]
        case Pairs(title=title, rows=pairs):
            return _grid(title, pairs, right={1}, dim={2})
        case Bars(title=title, rows=bars):
            room = max(8, min(30, width - 70))
            cells = [
                (label, value, f"{share:.1%}", bar * round(share * room), remark)
                for label, value, share, remark in bars
            ]
            return _grid(title, cells, right={1, 2}, dim={4})
        case TwoSided(title=title, rows=sides):
            room = max(5, min(16, (width - 84) // 2))
            drawn = [
                (label, left, f"{bar * round(less * room):>{room}}|{bar * round(more * room):<{room}}", right)
                for label, left, less, more, right in sides
            ]
            return _grid(title, drawn, right={1}, fixed={2})
        case Grid(title=title, columns=columns, rows=rows, right=right):
            return _grid(title, rows, right=set(right), columns=columns)


def _grid(
    title: str, rows: Sequence[Sequence[str]], *, right: set[int], dim: set[int] = frozenset(),  # type: ignore[assignment]
    columns: Sequence[str] = (), fixed: set[int] = frozenset(),  # type: ignore[assignment]
) -> list[RenderableType]:  # fmt: skip
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=bool(columns), padding=(0, 2, 0, 0), pad_edge=False, header_style="underline")
    for at in range(len(columns) or (len(rows[0]) if rows else 0)):
        table.add_column(
            Text(columns[at]) if columns else "",
            justify="right" if at in right else "left",
            style="dim" if at in dim else "",
            no_wrap=at in right | fixed,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    head: list[RenderableType] = [Text(title, style="bold")] if title else []
    return [*head, _indented(table) if title else table]


def _indented(part: RenderableType) -> RenderableType:
    from rich.padding import Padding

    return Padding(part, (0, 0, 0, 2))
