"""What waiting for the slowest of all ranks costs a synchronous run, and how much of it uneven chips explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.planning.training import TrainingAnswer
from ultratwin.timing.jitter import load_jitter

_NODE_RANKS = 8.0
"""Ranks of the nodes that step times are measured on: what these wait for each other is in the measured kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowestRank:
    """Shares of a step that all ranks but the slowest wait.

    waiting_frac: what the step time holds, its cause "stragglers"; spread_frac: what the expected maximum of the chips'
    spread and of each step's noise explains of it; tail_frac: the rest, rare delays of single ranks.
    """

    num_ranks: int
    waiting_frac: float
    spread_frac: float
    tail_frac: float


def slowest_rank(answer: TrainingAnswer) -> SlowestRank:
    """What a plan waits for its slowest rank.

    Equation: s = f(n) / f(8) - 1, f the slowdown of timing.jitter; waiting = late / (1 + late)
    Args: answer: of `answer_training`
    Returns: shares; the spread explains no more than there is
    Raises: ScenarioError if no plan can run
    Source: docs/explanation/power.md says why the spread is shown and not added
    """
    if answer.run is None or answer.plan is None:
        raise ScenarioError("no plan can run, so none waits")
    ranks = int(np.ravel(answer.plan.num_ranks)[0])
    parts = answer.run.parts
    waiting = parts.get("stragglers", 0.0) / sum(parts.values())
    slow, node = (np.asarray(load_jitter().slowdown(each)) for each in (float(max(ranks, 8)), _NODE_RANKS))
    late = float(slow / node) - 1.0
    spread = min(late / (1.0 + late), waiting)
    return SlowestRank(num_ranks=ranks, waiting_frac=waiting, spread_frac=spread, tail_frac=waiting - spread)
