"""`ultratwin cluster`: what a machine of so many chips is."""

from __future__ import annotations

from ultratwin.cli.parameters import Count, Flag
from ultratwin.cli.printing import print_blocks, print_json
from ultratwin.errors import ScenarioError


def cluster(
    system: str, /, *, chips: Count | None = None, path: str = "",
    json: Flag = False,
) -> int:  # fmt: skip
    """What a cluster is: domains, switches, links, bisection, what a lost part takes away, failures, power, price.

    Parameters
    ----------
    system
        A system of `ultratwin catalogue systems`.
    chips
        How many chips [default: one unit of the system].
    path
        Two chips whose way to each other is shown too, such as 0:999.
    json
        Print JSON instead of tables.
    """
    from ultratwin.planning.checks import checked_name
    from ultratwin.planning.cluster import describe_cluster
    from ultratwin.report import cluster as report

    found = describe_cluster(checked_name("system", system), chips, _ends(path) if path else None)
    if json:
        print_json(report.cluster_json(found))
    else:
        print_blocks(report.cluster_blocks(found))
    return 0


def _ends(text: str) -> tuple[int, int]:
    """0:999 as two chips."""
    first, colon, last = (each.strip() for each in text.partition(":"))
    if not colon or not first.isdecimal() or not last.isdecimal():
        raise ScenarioError(f'"{text}" is no pair of chips', where="--path", allowed="CHIP:CHIP, such as 0:999")
    return int(first), int(last)
