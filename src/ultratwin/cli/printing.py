"""What all verbs do with an answer: JSON or tables to stdout, and an exit code that says whether anything can run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultratwin.api.result import ExplainedResult, Result
    from ultratwin.report.tables import Block


def print_json(value: Any) -> None:
    """JSON objects as one text."""
    from ultratwin.report.json import dumped

    sys.stdout.write(dumped(value) + "\n")


def print_blocks(blocks: Sequence[Block]) -> None:
    """Blocks of an answer, as the terminal can show them."""
    from ultratwin.report.tables import show

    show(blocks)


def print_result(result: Result, *, json: bool) -> int:
    """A verb's result: JSON or tables. Returns the exit code."""
    if json:
        sys.stdout.write(result.to_json() + "\n")
    else:
        print_blocks(result.blocks())
    return 0 if result.feasible else 1


def print_explained(result: ExplainedResult, *, json: bool, explain: bool) -> int:
    """A verb's result and, if asked for, what its tables rest on. Returns the exit code."""
    exit_code = print_result(result, json=json)
    if explain and not json:
        sys.stdout.write(f"\n{result.explain()}\n")
    return exit_code
