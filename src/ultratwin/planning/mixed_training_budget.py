"""Systems of one kind that a mix is measured against: as many units, as much money per hour, as much power."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ultratwin.hardware.mix import PoolShare
from ultratwin.hardware.system import System
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.mixed_training_run import Site
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
    """Each kind alone, as many units of it as the mix's money per hour, or its power, would buy."""
    found = []
    money = [share.chips * site.rate_usd_per_chip_s(share.system)[0] for share in shares]
    watts = [share.units * nameplate_w(share.system) for share in shares]
    for budget, spent, one in (
        (BUDGETS[0], money, [share.system.unit_chips * site.rate_usd_per_chip_s(share.system)[0] for share in shares]),
        (BUDGETS[1], watts, [nameplate_w(share.system) for share in shares]),
        (BUDGETS[2], [float(share.units) for share in shares], [1.0 for _ in shares]),
    ):
        for side, share, each in zip(sides, shares, one, strict=True):
            found.append(_best(budget, sum(spent), each, side, share.system, fixed, objective))
    return tuple(found)


def _best(
    budget: str, whole: float, each: float, side: Setting, system: System, fixed: Mapping[str, int], objective: str
) -> PureSystem:  # fmt: skip
    none = PureSystem(budget=budget, system=system, units=0, used_units=0, candidate=None)
    if not (whole > 0 and each > 0):
        return dataclasses.replace(none, why="no price of every pool is known: give one with --price")
    most = system.max_chips // system.unit_chips
    units = min(int(whole / each * (1 + 1e-9)), most)
    if units < 1:
        return dataclasses.replace(none, why="the budget buys no unit")
    best = dataclasses.replace(none, units=units, why="no layout of it can run")
    for used in round_counts(units):
        ranks = used * system.unit_chips * side.pool.ranks_per_chip
        result = search(side, ranks, fixed, keep=1, objective=objective).best
        if result:
            tried = dataclasses.replace(best, used_units=used, candidate=result[0], why="")
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
