"""Every plan of an array evaluated at once: can it run, how long does a step take, how much memory does it need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.feasible import Codes, memory_reasons, shape_reasons
from ultratwin.mapping.memory import Memory, step_memory
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.sharding import weights
from ultratwin.timing.step import StepTimes, plan_stages, step_times
from ultratwin.workload.model import Model
from ultratwin.workload.tables import operator_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Plans and what they give, each [candidate]. `codes` index mapping.feasible.REASONS, 0 can run."""

    plan: Plan
    codes: Codes
    memory: Memory
    times: StepTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is the same for all candidates: model, machine, number formats, framework."""

    model: Model
    pool: Pool
    recipe: Recipe
    profile: Profile


def plan_memory(model: Model, recipe: Recipe, profile: Profile, plan: Plan) -> Memory:
    """Memory of plans [candidate]; no machine is asked for, as none changes it."""
    tables, plan = operator_tables(model), plan.as_arrays()
    stages = plan_stages(model, tables, profile, plan)
    return step_memory(tables, plan, recipe, profile, stages, weights(tables, plan, profile.vocab_multiple))


def evaluate(setting: Setting, plan: Plan, num_ranks: Number, *, domain_size: float = 0.0) -> Evaluation:
    """Reasons, memory and step time of every plan [candidate].

    Plans that can't run are timed too where their sizes allow it: the array has no holes.
    """
    plan = plan.as_arrays()
    codes = shape_reasons(setting.model, plan, num_ranks, domain_size=domain_size)
    memory = plan_memory(setting.model, setting.recipe, setting.profile, plan)
    return Evaluation(
        plan=plan,
        codes=memory_reasons(codes, memory, per_rank(setting.pool)),
        memory=memory,
        times=step_times(setting.model, setting.pool, plan, setting.recipe, setting.profile),
    )


def model_flop_per_step(model: Model, plan: Plan, *, causal: bool = True) -> Number:
    """FLOP that the model needs for a step: forward and backward of every matrix product, none repeated.

    Equation: 6 (active matrix parameters) tokens + 12 sum over layers (a d s) tokens, halved for causal attention
    Args:
        model: sizes
        plan: gives tokens of a step and the sequence length s
        causal: count attention over the keys that a token sees (half), else over the whole sequence
    Returns: FLOP [candidate]
    Source: PaLM (arXiv 2204.02311) appendix B; Narayanan et al. 2021 (arXiv 2104.04473) for the full count
    """
    tables = operator_tables(model)
    gemms = tables.gemms
    share = np.concatenate([tables.layer_share * model.num_layers, np.ones((2, 1))])
    copies = np.where(gemms.is_expert > 0, gemms.experts_per_token, 1.0)
    per_token = float((share[:, 0] * (gemms.owner_sum @ (gemms.n * gemms.k * copies))[:, 0]).sum()) * 6
    seq = np.asarray(plan.seq_length, dtype=np.float64)
    attention: Number = 0.0
    for owner, core in tables.cores:
        seen = seq if core.window is None else np.minimum(seq, core.window)
        # a query sees half the keys on average, or its window once the sequence is longer than that
        mean_seen = np.where(seen < seq, seen - seen * seen / (2 * seq), seq / 2) if causal else seen
        attention = (
            attention + float(share[owner, 0]) * 6 * core.num_heads * (core.head_dim + core.head_dim_v) * mean_seen
        )
    return (per_token + attention) * seq * plan.global_batch_size
