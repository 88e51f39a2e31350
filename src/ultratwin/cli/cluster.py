"""`ultratwin cluster`: what a machine of so many chips is."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from ultratwin.cli.parameters import Count


def cluster(
    system: str, /, *, chips: Count | None = None, json: Annotated[bool, Parameter(negative=())] = False
) -> int:
    """What a cluster is: domains, switches, links, bisection, what a lost part takes away, power, price.

    Parameters
    ----------
    system
        A system of `ultratwin catalogue systems`.
    chips
        How many chips [default: one unit of the system].
    json
        Print JSON instead of tables.
    """
    from ultratwin.planning.checks import checked_name
    from ultratwin.planning.cluster import describe_cluster
    from ultratwin.report import cluster as report

    found = describe_cluster(checked_name("system", system), chips)
    if json:
        from ultratwin.report.json import dumped

        sys.stdout.write(dumped(report.cluster_json(found)) + "\n")
    else:
        from ultratwin.report.tables import show

        show(report.cluster_blocks(found))
    return 0
