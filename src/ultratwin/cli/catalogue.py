"""`ultratwin catalogue`: every figure that answers rest on."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter


def catalogue(
    kind: str | None = None, name: str | None = None, /, *, json: Annotated[bool, Parameter(negative=())] = False
) -> int:
    """Lists chips, links, systems, models, prices, regions, profiles, engines, ...; or shows one with all its figures.

    Parameters
    ----------
    kind
        chips, links, systems, models, prices, regions, profiles, engines, reliability, claims or power; else all.
    name
        An entry of that kind: value, unit, status, range and source of each figure.
    json
        Print JSON instead of a table.
    """
    from ultratwin.report import catalogue as report

    chosen = None if kind is None else report.checked_kind(kind)
    if json:
        from ultratwin.report.json import dumped

        sys.stdout.write(dumped(report.catalogue_json(chosen, name)) + "\n")
        return 0
    from ultratwin.report.tables import show

    if chosen is None:
        show(report.kinds_blocks())
    elif name is None:
        show(report.listing_blocks(chosen))
    else:
        show(report.entry_blocks(chosen, name))
    return 0
