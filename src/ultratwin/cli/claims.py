"""`ultratwin claims`: published claims on trial."""

from __future__ import annotations

from ultratwin.cli.parameters import Flag
from ultratwin.cli.printing import print_explained


def claims(
    *names: str,
    explain: Flag = False,
    json: Flag = False,
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

    return print_explained(ultratwin.claims(*names), json=json, explain=explain)
