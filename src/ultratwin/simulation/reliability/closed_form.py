"""What a run with failures takes by formula: Young, Daly, the exact optimum, and a general rate of progress.

The event simulation is checked against these where they hold; the search for intervals climbs on the last one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

from ultratwin.errors import ScenarioError
from ultratwin.hardware.failures import PartClass
from ultratwin.simulation.reliability.records import NO_SAVES, RunModel, SavedTier

_GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0
_ROUNDS: Final = 3
_STEPS: Final = 48
_MOST_EXPONENT: Final = 500.0


def young_interval_s(save_s: float, mtbf_s: float) -> float:
    """Work between saves that loses least, to first order.

    Equation: T = sqrt(2 d M)
    Args: save_s: d, what a save costs [s]; mtbf_s: M, mean time between failures of the job [s]
    Returns: seconds
    Raises: ScenarioError if either is not above 0
    Source: Young 1974, doi 10.1145/361147.361115
    Example:
        >>> young_interval_s(50.0, 10_000.0)
        1000.0
    """
    _check(save_s, mtbf_s)
    return math.sqrt(2.0 * save_s * mtbf_s)


def daly_interval_s(save_s: float, mtbf_s: float) -> float:
    """Work between saves that loses least, to higher order.

    Equation: T = sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d; M where d > 2 M
    Args: save_s: d [s]; mtbf_s: M [s]
    Returns: seconds
    Raises: ScenarioError if either is not above 0
    Source: Daly 2006, doi 10.1016/j.future.2004.11.016
    Example:
        >>> round(daly_interval_s(50.0, 10_000.0), 1)
        966.9
    """
    _check(save_s, mtbf_s)
    ratio = save_s / (2.0 * mtbf_s)
    if ratio >= 1.0:
        return mtbf_s
    return math.sqrt(2.0 * save_s * mtbf_s) * (1.0 + math.sqrt(ratio) / 3.0 + ratio / 9.0) - save_s


def exact_interval_s(save_s: float, mtbf_s: float) -> float:
    """Work between saves that loses least if failures are exponential and costs fixed.

    Equation: T / M = 1 + W(-exp(-1 - d / M)), the root of (1 - x) exp(x + d / M) = 1 for x = T / M
    Args: save_s: d [s]; mtbf_s: M [s]
    Returns: seconds
    Raises: ScenarioError if either is not above 0
    Source: derived: the minimum of `run_time_s`
    Example:
        >>> round(exact_interval_s(50.0, 10_000.0), 1)
        966.9
    """
    _check(save_s, mtbf_s)
    low, high = 0.0, 1.0 - 1e-15
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if math.log1p(-middle) + middle + save_s / mtbf_s < 0 else (middle, high)
    return 0.5 * (low + high) * mtbf_s


def run_time_s(work_s: float, interval_s: float, save_s: float, recovery_s: float, mtbf_s: float) -> float:
    """Expected time of a run with exponential failures, that strike recoveries too.

    Equation: t = M e^(R/M) (n (e^((T + d)/M) - 1) + e^(r/M) - 1)
    Symbols: T interval, d save, R recovery, M mean time between failures, n saves, r work after the last of them
    Args: all in seconds
    Returns: seconds
    Source: Daly 2006 equation 13, with the last piece as it is
    Example:
        >>> round(run_time_s(1000.0, 100.0, 0.0, 0.0, 1e12), 3)
        1000.0
    """
    _check(interval_s, mtbf_s)
    saves = math.ceil(work_s / interval_s) - 1
    rest = work_s - saves * interval_s
    each = math.expm1((interval_s + save_s) / mtbf_s)
    return mtbf_s * math.exp(recovery_s / mtbf_s) * (saves * each + math.expm1(rest / mtbf_s))


def progress_rate(model: RunModel) -> float:
    """Seconds of work that a run gets done per second of wall time, to good approximation; 0 or less: none.

    Equation: g = w e^(-r R) (p - sum_c r_c (L_k + X_c)), p = 1 / (1 + sum_k d_k / T_k),
        L_k = T_k (1/x - 1/(e^x - 1)), x = r_k T_k / p
    Symbols: r all failures per second, R their mean recovery, r_c those of class c, k the tier that a class goes back
        to, T_k its interval, d_k its stall, L_k the mean work since its last save, r_k failures that go back to it or
        to rarer saves, X_c latency of the tier and of detection, w the share of time that enough nodes are there
    Args: model: rates are its means over the run
    Returns: work per wall [1]; with one tier and one class exactly Daly's
    Source: derived; Daly 2006 for one tier
    """
    horizon = model.work_s
    rates = [float(part.expected_failures(horizon)) / horizon for part in model.parts]
    total = math.fsum(rates)
    training = 1.0 / (1.0 + math.fsum(each.stall_s / each.interval_s for each in model.tiers))
    if total == 0.0:
        return training * _running(model)
    losses = [_loss(model, at) for at in range(len(model.parts))]
    recovery = math.fsum(rate * loss.recovery_s for rate, loss in zip(rates, losses, strict=True)) / total
    if total * recovery > _MOST_EXPONENT:
        return 0.0
    lost = 0.0
    for rate, loss in zip(rates, losses, strict=True):
        rarer = math.fsum(r for r, other in zip(rates, losses, strict=True) if other.interval_s >= loss.interval_s)
        lost += rate * (_mean_since_save(loss.interval_s, rarer / training) + loss.late_s)
    rate = math.exp(-total * recovery) * (training - lost)
    return rate * _running(model) * _enough_nodes(model, rates)


def _mean_since_save(interval_s: float, rate_per_s: float) -> float:
    """Mean work since the last save when a failure comes; a rate per second of work."""
    x = rate_per_s * interval_s
    if x < 1e-6:
        return interval_s / 2
    return interval_s * (1.0 / x - (1.0 / math.expm1(x) if x < _MOST_EXPONENT else 0.0))


def _running(model: RunModel) -> float:
    """The share of time without planned stops."""
    every = model.maintenance_every_s
    return every / (every + model.maintenance_s) if every > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    """Of a class of failures: mean recovery, interval of the tier that it goes back to, work lost beside."""

    recovery_s: float
    interval_s: float
    late_s: float


def _loss(model: RunModel, at: int) -> _Loss:
    part, recovery = model.parts[at], model.recovery
    found = recovery.detection_s + recovery.isolation_s
    if model.elastic is not None and part.nodes_lost > 0 and not part.silent:
        return _Loss(recovery_s=found + recovery.resize_s, interval_s=0.0, late_s=model.elastic.step_s)
    late = recovery.silent_detection_s if part.silent else 0.0
    # a class that no tier survives loses everything so far
    least, interval, beside, reload = math.inf, model.work_s, 0.0, 0.0
    for tier in model.tiers:
        cost = min(tier.interval_s, model.work_s) / 2 + tier.latency_s + tier.reload_s
        if _kept(tier, part) and cost < least:
            least, interval, beside, reload = cost, tier.interval_s, tier.latency_s + late, tier.reload_s
    return _Loss(
        recovery_s=found + recovery.restart_s + reload + recovery.warm_up_s, interval_s=interval, late_s=beside
    )


def _enough_nodes(model: RunModel, rates: list[float]) -> float:
    """The share of time that a run has its nodes: all, or of an elastic run those that are there on average."""
    recovery = model.recovery
    mean = recovery.replacement_frac * recovery.replacement_s + (1 - recovery.replacement_frac) * recovery.reset_s
    missing = math.fsum(
        rate * part.nodes_lost * (recovery.reset_s if part.rack_wide else mean)
        for rate, part in zip(rates, model.parts, strict=True)
    )
    short = max(missing - model.spare_nodes, 0.0)
    if short == 0.0:
        return 1.0
    if model.elastic is not None:
        nodes = model.elastic.replicas * model.elastic.nodes_per_replica
        return max(1.0 - short / nodes, 0.0)
    # the run stands until repairs catch up, and what stands breaks less often
    return (model.spare_nodes + 1.0) / (missing + 1.0)


def with_best_intervals(model: RunModel, given_s: float | None = None) -> RunModel:
    """The run with the intervals that `progress_rate` is highest for, each no shorter than a save takes.

    Args: model: intervals are ignored; given_s: interval of the finest tier, if it is decided
    Returns: the model with new intervals; without failures nothing is saved
    """
    if not any(float(part.expected_failures(model.work_s)) > 0 for part in model.parts):
        interval = NO_SAVES if given_s is None else given_s
        tiers = tuple(dataclasses.replace(tier, interval_s=interval if at == 0 else NO_SAVES)
                      for at, tier in enumerate(model.tiers))  # fmt: skip
        return dataclasses.replace(model, tiers=tiers)
    model = dataclasses.replace(model, tiers=_first_intervals(model))
    if given_s is not None:
        model = _with_interval(model, 0, max(given_s, _shortest(model.tiers[0])))
    for _ in range(_ROUNDS if len(model.tiers) > 1 else 1):
        for at in range(len(model.tiers)):
            if at > 0 or given_s is None:
                model = _with_interval(model, at, _best_interval(model, at))
    return model


def _first_intervals(model: RunModel) -> tuple[SavedTier, ...]:
    """Where the search begins: Young's interval of each tier, for the failures that no finer tier survives."""
    left = list(model.parts)
    found = []
    for tier in model.tiers:
        kept = [part for part in left if _kept(tier, part)]
        left = [part for part in left if not _kept(tier, part)]
        rate = math.fsum(float(part.expected_failures(model.work_s)) for part in kept) / model.work_s
        interval = young_interval_s(tier.stall_s, 1.0 / rate) if rate > 0 else NO_SAVES
        found.append(dataclasses.replace(tier, interval_s=max(interval, _shortest(tier))))
    return tuple(found)


def _kept(tier: SavedTier, part: PartClass) -> bool:
    """Whether a tier still has a good checkpoint after a failure of a class."""
    if part.silent:
        return tier.keeps_history
    return part.nodes_lost == 0 or (tier.survives_rack if part.rack_wide else tier.survives_node)


def _shortest(tier: SavedTier) -> float:
    """No save begins before the last one is complete, and none is longer than the work between."""
    return max(tier.latency_s, tier.stall_s / 10, 1e-3)


def _with_interval(model: RunModel, at: int, interval_s: float) -> RunModel:
    tiers = list(model.tiers)
    tiers[at] = dataclasses.replace(tiers[at], interval_s=interval_s)
    return dataclasses.replace(model, tiers=tuple(tiers))


def _best_interval(model: RunModel, at: int) -> float:
    """Golden section over the logarithm of one tier's interval."""
    low, high = math.log(_shortest(model.tiers[at])), math.log(max(model.work_s, 2 * _shortest(model.tiers[at])))

    def loss(log_interval: float) -> float:
        return -progress_rate(_with_interval(model, at, math.exp(log_interval)))

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_loss, right_loss = loss(left), loss(right)
    for _ in range(_STEPS):
        # where nothing gets done at all, shorter intervals are the way out
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - _GOLDEN * (high - low)
            left_loss = loss(left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + _GOLDEN * (high - low)
            right_loss = loss(right)
    return math.exp(0.5 * (low + high))


def _check(length_s: float, mtbf_s: float) -> None:
    if not length_s > 0 or not mtbf_s > 0:
        raise ScenarioError(f"a save or interval of {length_s:g} s, failures every {mtbf_s:g} s", allowed="above 0")
