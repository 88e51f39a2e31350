"""What failures leave of a run on several kinds of chips: all parts of all pools fail, and the whole job goes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ultratwin.hardware.failures import Layout, PartClass, interruptions_per_s, load_rates, load_recovery, machine_parts
from ultratwin.hardware.mix import PoolShare
from ultratwin.hardware.storage import load_storage
from ultratwin.planning.mixed.training_run import MixedRun
from ultratwin.planning.mixed.training_search import MixedCandidate, MixedSetting
from ultratwin.planning.reliability.model import RACK_CHIPS, saved_tier
from ultratwin.simulation.reliability.closed_form import progress_rate, with_best_intervals
from ultratwin.simulation.reliability.records import RunModel, SavedTier
from ultratwin.workload.model import Model
from ultratwin.workload.parameters import parameter_count

_SOFTWARE = "software"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Work over wall time with failures, checkpoints and restarts, with spare nodes at hand.

    ettr: effective training time ratio, 0 to 1; mtbf_s: between interruptions of the job; checkpoint_s: work between
    saves; duration_s: of the run with failures, infinite if it never ends
    """

    ettr: float
    mtbf_s: float
    checkpoint_s: float
    duration_s: float


def mixed_goodput(
    setting: MixedSetting, shares: Sequence[PoolShare], chosen: MixedCandidate, run: MixedRun, model: Model
) -> Goodput:
    """The run's goodput by formula, checkpoints to the shared store, automatic recovery.

    Equation: ettr of simulation.reliability.closed_form.progress_rate, with the parts of every pool that takes part
    """
    used = [(shares[at], chips) for at, chips in zip(chosen.order, run.chips, strict=True)]
    parts = [part for share, chips in used for part in _parts(share, chips)]
    # software fails with the job, not with each pool
    whole = [each for share, _ in used for each in _parts(share, sum(run.chips)) if each.name == _SOFTWARE]
    software = max(whole, key=lambda each: float(each.expected_failures(1.0)))
    work = run.run.duration_s.expected
    found = with_best_intervals(
        RunModel(
            work_s=work,
            parts=(*(each for each in parts if each.name != _SOFTWARE), software),
            tiers=(_store(setting, used, model, chosen),),
            recovery=load_recovery("automatic"),
            spare_nodes=sum(_nodes(share, chips) for share, chips in used),
        )
    )
    ettr = max(progress_rate(found), 0.0)
    return Goodput(
        ettr=ettr,
        mtbf_s=1.0 / interruptions_per_s(found.parts, work),
        checkpoint_s=found.tiers[0].interval_s,
        duration_s=work / ettr if ettr > 0 else float("inf"),
    )


def _nodes(share: PoolShare, chips: int) -> int:
    return -(-chips // share.system.pool.chips_per_node)


def _parts(share: PoolShare, chips: int) -> tuple[PartClass, ...]:
    pool = share.system.pool
    node = min(pool.chips_per_node, chips)
    layout = Layout(chips=chips, chips_per_node=node, chips_per_rack=max(pool.domain.size, RACK_CHIPS), unit_chips=node)
    return machine_parts(load_rates(pool.chip.id), layout)


def _store(
    setting: MixedSetting, used: Sequence[tuple[PoolShare, int]], model: Model, chosen: MixedCandidate
) -> SavedTier:
    """The store that all pools write to: the pool that takes longest counts, each with its part of the state."""
    total = sum(chips for _, chips in used)
    profiles = [setting.sides[at].profile for at in chosen.order]
    size = parameter_count(model) * max(float(each.parameter_bytes + each.optimizer_bytes) for each in profiles)
    tiers = [
        saved_tier(
            load_storage(share.system, _nodes(share, total)), "store", size, nodes=_nodes(share, total), chips=total
        )
        for share, _ in used
    ]
    return max(tiers, key=lambda each: (each.stall_s + each.latency_s, each.reload_s))
