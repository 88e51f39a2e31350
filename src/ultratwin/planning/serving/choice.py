"""Which of many replicas keeps service level objectives, by its steady state in closed form."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.planning.serving.mix import Load
from ultratwin.planning.serving.slo import Slo, Slos
from ultratwin.planning.serving.steady_state import SteadyState


def predicted_s(state: SteadyState, slo: Slo, load: Load, attainment: float) -> Array:
    """What an objective is compared with: the statistic that it names, or the percentile at the attainment.

    Returns: [candidate]
    """
    if slo.statistic == "mean":
        ttft, tpot = state.ttft_s, state.tpot_s
    else:
        share = (
            attainment if not slo.statistic else 0.5 if slo.statistic == "median" else float(slo.statistic[1:]) / 100
        )
        quantile = min(max(share, 1e-4), 1 - 1e-4)
        ttft, tpot = state.ttft_at(quantile), state.tpot_at(quantile)
    if slo.metric == "ttft":
        return ttft
    if slo.metric == "tpot":
        return tpot
    if slo.metric == "itl":
        return np.asarray(state.iteration_s if slo.statistic in ("mean", "median", "p50") else tpot)
    later = np.maximum(np.asarray(load.output_tokens, dtype=np.float64) - 1.0, 0.0)
    return np.asarray(ttft + tpot * later)


def objective_misses(state: SteadyState, slos: Slos, load: Load) -> Array:
    """By what factor each candidate misses the worst of its objectives; 1 where it keeps all. [candidate]"""
    worst: Array = np.ones(np.shape(state.ttft_s))
    for slo in slos.each:
        worst = np.maximum(worst, predicted_s(state, slo, load, slos.attainment) / slo.limit_s)
    if not slos:
        worst = np.where(np.isfinite(state.ttft_s), worst, np.inf)
    return worst
