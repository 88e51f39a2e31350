"""Training measurements: one row of training.csv to a model, a machine and a plan, and its predicted step time.

Everything is read from the row's own sizes; nothing here knows a model, a row or a source by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.errors import UltratwinError
from ultratwin.hardware.chip import Array
from ultratwin.hardware.system import Pool
from ultratwin.mapping.plan import RECOMPUTE, Plan, stack_plans
from ultratwin.mapping.profile import Profile, find_profile
from ultratwin.mapping.recipe import Recipe, recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.mapping.sharding import GroupShape
from ultratwin.timing.communication import wires_of
from ultratwin.timing.step import step_times
from ultratwin.validation.machines import pool_of
from ultratwin.validation.result import RowResult, Verdict
from ultratwin.validation.rows import Row, Skip, integer, number, row_id, word
from ultratwin.workload.model import Attention, LatentAttention, Layer, Mlp, Model, Moe
from ultratwin.workload.parameters import parameter_count

_UNGATED: Final = ("gelu", "sqrelu", "relu2", "relu", "squared_relu")
_GATED: Final = ("swiglu", "geglu", "silu", "reglu")
_SCHEDULES: Final = {
    "1f1b": "1f1b", "gpipe": "gpipe", "zb-1p": "zb-1p", "zb-2p": "zb-2p", "zbb": "zb-2p",
    "zbv": "zb-v", "dualpipe": "dualpipe",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training row as a question, and what was measured."""

    id: str
    model: Model
    pool: Pool
    plan: Plan
    recipe: Recipe
    profile: Profile
    measured_s: float | None
    groups: dict[str, str]


def predict_rows(rows: Sequence[Row]) -> list[RowResult]:
    """The twin's answer to each row: scored, rejected (it can't run) or skipped with a reason."""
    results: dict[int, RowResult] = {}
    runs: dict[int, Run] = {}
    for line, row in enumerate(rows, start=2):
        try:
            runs[line] = run_of(row, line)
        except (Skip, UltratwinError) as error:
            reason = error.what if isinstance(error, UltratwinError) else str(error)
            results[line] = _unscored(row, line, "skipped", reason)
    for line, predicted in zip(runs, predicted_times_s(list(runs.values())), strict=True):
        results[line] = _scored(runs[line], predicted)
    return [results[line] for line in sorted(results)]


def predicted_times_s(runs: Sequence[Run], profile: Profile | None = None) -> list[float]:
    """Step time of each run. Runs of one model, machine and framework are evaluated as one array of candidates.

    `profile` replaces the runs' own (tools/fit_profiles.py tries many).
    """
    times = [0.0] * len(runs)
    for members in _together(runs):
        first = runs[members[0]]
        pool = _joined_pool([runs[at].pool for at in members])
        plan = stack_plans([runs[at].plan for at in members])
        total = step_times(first.model, pool, plan, first.recipe, profile or first.profile).total_s
        for at, value in zip(members, np.broadcast_to(total, len(members)), strict=True):
            times[at] = float(value)
    return times


def _together(runs: Sequence[Run]) -> list[list[int]]:
    """Positions of runs that differ in plan and fabric rate only."""
    found: dict[object, list[int]] = {}
    for at, run in enumerate(runs):
        fabric = run.pool.fabric
        key = (run.model, run.pool.chip.id, run.pool.domain, fabric.link, fabric.latency_s, run.pool.ranks_per_chip)
        found.setdefault((*key, run.recipe, run.profile), []).append(at)
    return list(found.values())


def _joined_pool(pools: Sequence[Pool]) -> Pool:
    """Pools that differ in their fabric's rate and delay as one, these as arrays [candidate]."""

    def column(name: str) -> Array:
        return np.array([getattr(pool.fabric, name) for pool in pools], dtype=np.float64)

    fabric = dataclasses.replace(
        pools[0].fabric, bytes_per_s=column("bytes_per_s"), step_delay_s=column("step_delay_s")
    )
    return dataclasses.replace(pools[0], fabric=fabric)


def _unscored(row: Row, line: int, status: Verdict, reason: str) -> RowResult:
    return RowResult(
        id=row_id(row, line), metric="step_time_s", unit="s", status=status, reason=reason, groups=_groups(row)
    )


def _scored(run: Run, predicted: float) -> RowResult:
    spread = 1 + float(run.profile.step_spread_frac)
    return RowResult(
        id=run.id,
        metric="step_time_s",
        unit="s",
        status="scored",
        predicted=predicted,
        measured=run.measured_s,
        low=predicted / spread,
        high=predicted * spread,
        groups=run.groups,
    )


def _groups(row: Row) -> dict[str, str]:
    split = [
        f"{name.upper()}{'' if word(row, name) in ('', '1') else '>1'}"
        for name in ("tp", "pp", "cp", "ep")
        if word(row, name) not in ("", "1", "1.0")
    ]
    kind = "moe" if word(row, "n_experts") else "dense"
    return {
        "source": word(row, "source_key", "unknown"),
        "chip": word(row, "chip", "unknown"),
        "parallelism": "+".join(split) or ("FSDP" if word(row, "zero_stage") == "3" else "DP"),
        "model kind": kind,
        "precision": word(row, "precision", "unknown"),
    }


def run_of(row: Row, line: int) -> Run:
    """The question that a row asks.

    Raises: Skip with the reason, where the row lacks something or is not meant for scoring
    """
    _check_scorable(row)
    model = model_of(row)
    return Run(
        id=row_id(row, line),
        model=model,
        pool=_pool(row),
        plan=plan_of(row, model),
        recipe=_recipe(row),
        profile=find_profile(word(row, "framework"), word(row, "date")),
        measured_s=number(row, "step_time_norm_s", 0.0) or number(row, "step_time_s", 0.0) or None,
        groups=_groups(row),
    )


def _check_scorable(row: Row) -> None:
    if word(row, "complete", "yes") != "yes":
        raise Skip(f"not complete: {word(row, 'missing') or 'configuration'} is missing")
    if word(row, "suspicious", "no") == "yes":
        raise Skip(f"marked suspicious: {word(row, 'suspicious_reason')[:80]}")
    if word(row, "trust", "A") not in ("A", "B"):
        raise Skip(f"trust is {word(row, 'trust')}")
    if "lora" in word(row, "task"):
        raise Skip("LoRA fine-tuning is not modelled")


def _recipe(row: Row) -> Recipe:
    name = word(row, "precision")
    if not name:
        raise Skip("precision is empty")
    try:
        return recipe(name)
    except UltratwinError as error:
        raise Skip(error.what) from None


_NCCL_TEST_BYTES: Final = 2.0**30
"""What nanotron's own bandwidth measurement sends: 256 Mi FP32 elements over all ranks (src/nanotron/helpers.py)."""


def _pool(row: Row) -> Pool:
    """The row's machine; where the row timed collectives inside its own job, with the delay per step that they show."""
    per_node = integer(row, "chips_per_node", 8)
    pool = pool_of(word(row, "chip"), word(row, "network"), integer(row, "ranks_per_chip", 1), per_node)
    domains = integer(row, "n_chips") // pool.domain.size
    delays = [
        measured_step_delay_s(pool, domains, operation, rate * 1e9)
        for operation, key in (("all_gather", "nccl_ag_gbs"), ("reduce_scatter", "nccl_rs_gbs"))
        if domains > 1 and (rate := number(row, key, 0.0))
    ]
    if not delays:
        return pool
    return dataclasses.replace(pool, fabric=dataclasses.replace(pool.fabric, step_delay_s=sum(delays) / len(delays)))


def measured_step_delay_s(pool: Pool, domains: int, operation: str, busbw_bytes_per_s: float) -> float:
    """What each of a ring's n steps takes longer than the twin says, from a bus bandwidth over so many whole domains.

    A ring over hundreds of ranks sends little in each step, so its bandwidth tells latency: the rows' figures halve
    with each doubling of nodes, and the same delay per step explains the tensor-parallel groups inside their nodes.
    """
    everybody = GroupShape(ranks_per_domain=pool.domain.size, num_domains=domains)
    ranks = pool.domain.size * domains
    measured_s = (ranks - 1) / ranks * _NCCL_TEST_BYTES / busbw_bytes_per_s
    return max(measured_s - float(wires_of(pool).time_s(operation, _NCCL_TEST_BYTES, everybody)), 0.0) / ranks


def model_of(row: Row) -> Model:
    """A decoder from the row's sizes; ties and the spacing of expert layers follow from its parameter count.

    Raises: Skip where a size is missing or the architecture is not modelled
    """
    kind = word(row, "attn_type", "mha")
    if "mamba" in kind or "hybrid" in kind or "csa" in kind:
        raise Skip(f"attention type {kind!r} is not modelled")
    hidden, layers = integer(row, "hidden"), integer(row, "layers")
    attention = _attention(row, kind, hidden)
    options = [
        Model(
            id=word(row, "model", "row"),
            hidden_size=hidden,
            vocab_size=integer(row, "vocab"),
            layers=_layers(row, attention, layers, spacing),
            tie_word_embeddings=tied,
            norm="layernorm" if word(row, "mlp_type") in _UNGATED else "rmsnorm",
        )
        for tied in ((True, False) if not word(row, "tied_embeddings") else (word(row, "tied_embeddings") == "yes",))
        for spacing in ((1, 2, 4) if word(row, "n_experts") else (1,))
    ]
    stated = number(row, "params_b", 0.0) * 1e9
    if not stated:
        return options[-1] if not word(row, "n_experts") else options[len(options) // 2]
    return min(options, key=lambda each: abs(parameter_count(each) - stated))


def _attention(row: Row, kind: str, hidden: int) -> Attention | LatentAttention:
    heads = integer(row, "heads")
    if kind == "mla":
        # the only published sizes of MLA at this scale: DeepSeek-V3 (arXiv 2412.19437) section 4.2, kept by Kimi-K2
        return LatentAttention(
            num_heads=heads, q_lora_rank=1536, kv_lora_rank=512, nope_head_dim=128, rope_head_dim=64, v_head_dim=128
        )
    head_dim = integer(row, "head_dim", 0) or hidden // heads
    return Attention(num_heads=heads, num_kv_heads=integer(row, "kv_heads", heads), head_dim=head_dim)


def _mlp(row: Row, inner: int) -> Mlp:
    kind = word(row, "mlp_type", "gelu").lower()
    if kind not in (*_GATED, *_UNGATED):
        raise Skip(f"unknown mlp_type {kind!r}")
    return Mlp(intermediate_size=inner, gated=kind in _GATED)


def _layers(row: Row, attention: Attention | LatentAttention, count: int, spacing: int) -> tuple[Layer, ...]:
    dense = Layer(attention=attention, mlp=_mlp(row, integer(row, "ffn_hidden")))
    if not word(row, "n_experts"):
        layers = [dense] * count
    else:
        sparse = Layer(
            attention=attention,
            mlp=Moe(
                num_experts=integer(row, "n_experts"),
                experts_per_token=integer(row, "top_k"),
                expert_intermediate_size=integer(row, "expert_ffn"),
                shared_intermediate_size=integer(row, "shared_expert_ffn", 0),
                gated=dense.mlp.gated,
            ),
        )
        leading = integer(row, "dense_layers", 0)
        layers = [dense if i < leading or (i + 1) % spacing else sparse for i in range(count)]
    if (window := re.search(r"swa ?(\d+)", word(row, "attn_type"))) and isinstance(attention, Attention):
        local = dataclasses.replace(attention, window=int(window[1]))
        layers = [dataclasses.replace(each, attention=local) if i % 2 == 0 else each for i, each in enumerate(layers)]
    return tuple(layers)


def plan_of(row: Row, model: Model) -> Plan:
    """The parallel plan of a row.

    Raises: Skip where a size is missing or they don't multiply out
    """
    tensor, pipeline = integer(row, "tp", 1), integer(row, "pp", 1)
    context, expert = integer(row, "cp", 1), integer(row, "ep", 1)
    ranks = integer(row, "n_chips") * integer(row, "ranks_per_chip", 1)
    if min(tensor, pipeline, context, expert, ranks) < 1:
        raise Skip("a parallel size is zero")
    data = integer(row, "dp", 0) or ranks // (tensor * pipeline * context)
    if tensor * pipeline * context * data != ranks:
        raise Skip(f"TP x PP x CP x DP = {tensor * pipeline * context * data}, not the {ranks} ranks")
    micro = integer(row, "micro_batch", 0) or 1
    batch = integer(row, "global_batch", 0) or micro * data * integer(row, "grad_accum")
    if batch < micro * data:
        micro = max(batch // data, 1)
    chunks = integer(row, "vpp", 1)
    name = _SCHEDULES.get(word(row, "pp_schedule").lower(), "interleaved" if chunks > 1 else "1f1b")
    recompute = word(row, "recompute", "none")
    if recompute not in RECOMPUTE:
        raise Skip(f"unknown recompute {recompute!r}")
    expert_tensor = integer(row, "etp", 0) or (1 if expert > 1 else tensor if word(row, "n_experts") else 1)
    return Plan(
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        virtual_pipeline_size=chunks,
        context_parallel_size=context,
        expert_parallel_size=expert,
        expert_tensor_parallel_size=expert_tensor,
        data_parallel_size=data,
        zero_stage=integer(row, "zero_stage", 1),
        shard_size=integer(row, "shard_group", 0) if integer(row, "zero_stage", 1) == 3 else 0,
        micro_batch_size=micro,
        global_batch_size=batch,
        seq_length=integer(row, "seq_len"),
        sequence_parallel=int(word(row, "sequence_parallel") == "yes"),
        recompute=RECOMPUTE.index(recompute),
        schedule=SCHEDULE_NAMES.index(name),
    )
