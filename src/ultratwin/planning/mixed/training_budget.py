"""Systems of one kind that a mix is measured against: as many units, as much money per hour, as much power."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from ultratwin.hardware.mix import PoolShare
from ultratwin.hardware.system import System
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.mixed.training_run import Site
from ultratwin.planning.search import search
from ultratwin.planning.shortlist import Candidate

BUDGETS: Final = ("the same money per hour", "the same power", "as many units")


@dataclass(frozen=True, slots=True, kw_only=True)
class PureSystem:
    """The best that one kind gives within a budget of the whole mix.

    units: that the budget allows, of which the best layout may use fewer; `candidate` is None where nothing can run,
    and `why` says why. energy_j: of a step, all chips.
    """

    budget: str
    system: System
    units: int
    used_units: int
    candidate: Candidate | None
    why: str = ""

    @property
    def chips(self) -> int:
        """Chips that the best layout uses."""
        return self.used_units * self.system.unit_chips

    @property
    def step_s(self) -> float:
        """Seconds of a step; infinite where nothing can run."""
        return self.candidate.step_s if self.candidate else math.inf

    @property
    def energy_j(self) -> float:
        """Joules of a step, before PUE; infinite where nothing can run."""
        return self.candidate.energy_j * self.chips if self.candidate else math.inf


def nameplate_w(system: System) -> float:
    """Watts of a unit at its chips' power limit, with hosts and network."""
    pool = system.pool
    return system.unit_chips * (float(pool.chip.tdp_w) + float(pool.host_power_w) + float(pool.network_power_w))


def pure_systems(
    sides: Sequence[Setting], shares: Sequence[PoolShare], fixed: Mapping[str, int], site: Site, objective: str
) -> tuple[PureSystem, ...]:
    """Each kind alone, as many units of it as the mix's money per hour, or its power, or its number would buy.

    Args: sides, shares: the pools; fixed: axes that are given; site: prices; objective: what is to be least
    """
    prices = [share.system.unit_chips * site.rate_usd_per_chip_s(share.system)[0] for share in shares]
    watts = [nameplate_w(share.system) for share in shares]
    found = []
    known: dict[tuple[int, int], Candidate | None] = {}

    def searched(at: int, units: int) -> Candidate | None:
        if (at, units) not in known:
            ranks = units * shares[at].system.unit_chips * sides[at].pool.ranks_per_chip
            known[at, units] = next(iter(search(sides[at], ranks, fixed, keep=1, objective=objective).best), None)
        return known[at, units]

    for budget, each in zip(BUDGETS, (prices, watts, [1.0] * len(shares)), strict=True):
        whole = sum(share.units * one for share, one in zip(shares, each, strict=True))
        for at, share in enumerate(shares):
            found.append(_best(budget, whole / each[at], share.system, partial(searched, at), objective))
    return tuple(found)


def _best(
    budget: str, allowed: float, system: System, searched: Callable[[int], Candidate | None], objective: str
) -> PureSystem:  # fmt: skip
    """The best layout of one kind on at most so many units."""
    none = PureSystem(budget=budget, system=system, units=0, used_units=0, candidate=None)
    if math.isnan(allowed):
        return dataclasses.replace(none, why="a price is unknown (--price)")
    units = int(min(allowed * (1 + 1e-9), system.max_chips // system.unit_chips))
    if units < 1:
        return dataclasses.replace(none, why="the budget buys no unit")
    best = dataclasses.replace(none, units=units, why="no layout of it can run")
    for used in round_counts(units):
        tried = dataclasses.replace(best, used_units=used, candidate=searched(used), why="")
        if _goal(tried, objective) < _goal(best, objective):
            best = tried
    return best


def _goal(pure: PureSystem, objective: str) -> float:
    return pure.energy_j if objective in ("energy", "carbon") else pure.step_s


def round_counts(units: int) -> list[int]:
    """Counts up to a number that have many divisors: itself, and the largest of 2^k, 3 x 2^k, 9 x 2^k below it.

    Example:
        >>> round_counts(47)
        [47, 36, 32, 24]
    """
    found = {units}
    for odd in (1, 3, 9):
        if odd <= units:
            found.add(odd * 2 ** int(math.log2(units // odd)))
    return sorted(found, reverse=True)
