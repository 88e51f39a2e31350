"""`ultratwin catalogue`: every figure that answers rest on."""

from __future__ import annotations

from ultratwin.cli.parameters import Flag
from ultratwin.cli.printing import print_blocks, print_json


def catalogue(kind: str | None = None, name: str | None = None, /, *, json: Flag = False) -> int:
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
        print_json(report.catalogue_json(chosen, name))
    elif chosen is None:
        print_blocks(report.kinds_blocks())
    elif name is None:
        print_blocks(report.listing_blocks(chosen))
    else:
        print_blocks(report.entry_blocks(chosen, name))
    return 0
