"""`ultratwin claims`: published claims on trial."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter


def claims(
    *names: str,
    explain: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Puts published claims on trial: what they may mean, what the twin computes, the verdict, what would decide it.

    Parameters
    ----------
    names
        Claims of `ultratwin catalogue claims` [default: all].
    explain
        Print the trees too: how each number is computed, every figure with its source.
    json
        Print JSON instead of tables.
    """
    import ultratwin

    found = ultratwin.claims(*names)
    if json:
        sys.stdout.write(found.to_json() + "\n")
        return 0
    from ultratwin.report.tables import show

    show(found.blocks())
    if explain:
        sys.stdout.write(f"\n{found.explain()}\n")
    return 0
