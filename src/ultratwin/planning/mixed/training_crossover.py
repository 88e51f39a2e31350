"""Where a mix pays: the price of one kind, in prices of the other, at which mix and one kind alone cost the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.hardware.mix import PoolShare
from ultratwin.planning.mixed.training_run import SharedSampler, sampled_mix
from ultratwin.planning.mixed.training_search import MixedCandidate, MixedSetting, mixed_times, side_chips
from ultratwin.planning.uncertainty import Range, range_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """A mix against one of its kinds alone on its own units.

    alone, other: which pools, by their place; speedup: step time alone over that of the mix
    price_ratio: price of a chip of the other kind over that of this one, up to which the mix costs less than this kind
        alone; 0 or less: at no price
    """

    alone: int
    other: int
    speedup: Range
    price_ratio: Range


def crossovers(
    setting: MixedSetting, shares: Sequence[PoolShare], mixed: MixedCandidate, pure: Sequence[MixedCandidate],
    *, seed: int = 0,
) -> tuple[Crossover, ...]:  # fmt: skip
    """Where the mix costs as much as each kind alone, with what the uncertain figures leave open.

    Equation: T_m (n_1 p_1 + n_2 p_2) = T_1 n_1' p_1, so p_2 / p_1 = (T_1 n_1' / T_m - n_1) / n_2
    Symbols: T step time of the mix and of kind 1 alone, n chips that the mix uses of each kind, n' that kind 1 alone
        uses, p prices of a chip and hour
    Args: setting, shares: the pools; mixed, pure: layouts; seed: of the samples
    Returns: one for each kind that can run alone. The twin's own error is the same on both sides and left out
    """
    sampled = sampled_mix(setting, shares, SharedSampler(seed))
    step_s = _step_s(sampled, mixed)
    used = _chips(setting, mixed)
    found = []
    for each in pure:
        (at,) = each.order
        other = next(index for index in mixed.order if index != at)
        faster = _step_s(sampled, each) / step_s
        ratio = (faster * _chips(setting, each)[at] - used[at]) / used[other]
        found.append(Crossover(alone=at, other=other, speedup=range_of(faster), price_ratio=range_of(ratio)))
    return tuple(found)


def _step_s(setting: MixedSetting, each: MixedCandidate) -> Number:
    """Step time of every sample; a plain number where none of its figures has a range."""
    times = mixed_times(setting, each.way, each.order, each.plan)
    found = np.ravel(np.asarray(times.total_s, dtype=np.float64))
    return found if len(found) > 1 else float(found[0])


def _chips(setting: MixedSetting, each: MixedCandidate) -> dict[int, float]:
    counts = side_chips(setting, each.way, each.order, each.plan)
    return {at: float(np.ravel(count)[0]) for at, count in zip(each.order, counts, strict=True)}
