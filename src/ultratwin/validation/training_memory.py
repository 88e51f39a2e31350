"""Memory measurements: one row of training_memory.csv to a model and a plan, whether it fits and its peak.

Everything is read from the row's own sizes; nothing here knows a model, a row or a source by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.errors import CatalogueError, UltratwinError
from ultratwin.hardware.chip import Number, load_chip
from ultratwin.mapping.memory import Memory
from ultratwin.mapping.plan import RECOMPUTE, Plan, stack_plans
from ultratwin.mapping.profile import Profile, find_profile
from ultratwin.mapping.recipe import Recipe, recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.evaluate import plan_memory
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row, Skip, integer, number, row_id, word
from ultratwin.workload.model import Attention, Layer, Mlp, Model
from ultratwin.workload.parameters import parameter_count

FITS: Final = "fits"
PEAK: Final = "peak_memory_bytes"
SPREAD_FRAC: Final = 0.25
"""Half width of the stated range of a peak: nine tenths of the public rows lie inside."""
MAX_SIZE: Final = 10_000_000
"""Larger than any size of a model or a machine."""
MAX_LAYERS: Final = 10_000
_GIB: Final = 2.0**30
_WIRE_BYTES: Final = 2
"""Bytes of an element of 16-bit gradients and weights on the wire."""
_WORKSPACE_BYTES: Final = 80e6
"""Allocated beside the model: two cuBLAS workspaces of 32 MiB and tables of rotary angles; median of 999 rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """A memory row as a question, and what was measured (None where the row doesn't say)."""

    id: str
    model: Model
    plan: Plan
    recipe: Recipe
    profile: Profile
    capacity_bytes: float
    measured_fits: float | None
    measured_peak_bytes: float | None
    groups: dict[str, str]


def predict_rows(rows: Sequence[Row]) -> list[RowResult]:
    """The twin's answer to each row: two results, whether it fits and its peak; or why there is none."""
    results: dict[int, list[RowResult]] = {}
    asked: dict[int, Occupancy] = {}
    for at, row in enumerate(rows):
        try:
            asked[at] = occupancy_of(row, at + 2)
        except (Skip, UltratwinError) as error:
            reason = error.what if isinstance(error, UltratwinError) else str(error)
            results[at] = [
                RowResult(
                    id=row_id(row, at + 2), metric=metric, unit=unit, status="skipped", reason=reason,
                    groups=_groups(row),
                )
                for metric, unit in ((FITS, "1"), (PEAK, "byte"))
            ]  # fmt: skip
    for at, (logged, total) in zip(asked, memories(list(asked.values())), strict=True):
        results[at] = _answer(asked[at], logged, total)
    return [each for at in sorted(results) for each in results[at]]


def memories(asked: Sequence[Occupancy]) -> list[tuple[float, float]]:
    """Bytes that the framework's counter shows, and bytes needed, of each row; rows of one model are one array."""
    together: dict[tuple[Model, Recipe, Profile], list[int]] = {}
    for at, each in enumerate(asked):
        together.setdefault((each.model, each.recipe, each.profile), []).append(at)
    found = [(0.0, 0.0)] * len(asked)
    for (model, precision, profile), members in together.items():
        plan = stack_plans([asked[at].plan for at in members])
        memory = plan_memory(model, precision, profile, plan)
        logged = np.broadcast_to(logged_peak_bytes(model, plan, memory, profile), len(members))
        total = np.broadcast_to(memory.total_bytes, len(members))
        for at, shown, needed in zip(members, logged.tolist(), total.tolist(), strict=True):
            found[at] = (shown, needed)
    return found


def logged_peak_bytes(model: Model, plan: Plan, memory: Memory, profile: Profile) -> Number:
    """The peak that a framework's own counter shows, [candidate].

    A counter that is reset after the backward pass shows the optimizer phase: what is held, the buckets in which data
    parallelism reduced the 16-bit gradients, and the flat buffers that gather updated weights under ZeRO.

    Equation: W + G + O + [d > 1] 2 P + [d > 1, ZeRO] 2 P (1 + 1/d) + [t > 1] 4 h s + c
    Symbols: W, G, O bytes of weights, gradients, optimizer state; P weights of the rank; d, t data and tensor ranks;
        h s hidden elements of a micro-batch (two gathered boundary tensors stay allocated); c workspaces and tables
    Source: nanotron src/nanotron/logging/base.py (the reset), optim/zero.py; the last two terms from 999 public rows
    """
    if profile.peak_counter == "step":
        return memory.allocated_bytes
    data, held = np.asarray(plan.data_parallel_size), memory.parts["weights"] / profile.parameter_bytes
    reduced = memory.parts["gradient buckets"]
    gathered = np.where((data > 1) & (np.asarray(plan.zero_stage) > 0), _WIRE_BYTES * held * (1 + 1 / data), 0.0)
    tokens = np.asarray(plan.micro_batch_size) * plan.seq_length / plan.context_parallel_size
    boundary = np.where(np.asarray(plan.tensor_parallel_size) > 1, 2 * _WIRE_BYTES * model.hidden_size * tokens, 0.0)
    kept = memory.parts["weights"] + memory.parts["gradients"] + memory.parts["optimizer state"]
    return kept + reduced + gathered + boundary + _WORKSPACE_BYTES


def _answer(asked: Occupancy, logged: float, total: float) -> list[RowResult]:
    capacity = asked.capacity_bytes
    spread = 1 + SPREAD_FRAC
    fits = RowResult(
        id=asked.id, metric=FITS, unit="1", status="scored", predicted=float(total <= capacity),
        measured=asked.measured_fits, low=float(total * spread <= capacity), high=float(total / spread <= capacity),
        reason="" if total <= capacity else f"needs {total / _GIB:.1f} of {capacity / _GIB:.1f} GiB",
        groups=asked.groups,
    )  # fmt: skip
    peak = RowResult(
        id=asked.id, metric=PEAK, unit="byte", status="scored", predicted=logged, measured=asked.measured_peak_bytes,
        low=logged / spread, high=logged * spread, groups=asked.groups,
    )  # fmt: skip
    return [fits, peak]


def _groups(row: Row) -> dict[str, str]:
    split = [f"{name.upper()}>1" for name in ("tp", "pp") if word(row, name) not in ("", "1", "1.0")]
    note = _note(row)
    split += [f"{name.upper()}>1" for name in ("cp", "ep") if note.get(name, 1) > 1]
    return {
        "source": word(row, "source", "unknown"),
        "chip": word(row, "chip", "unknown"),
        "parallelism": "+".join(split) or ("FSDP" if word(row, "zero_stage") == "3" else "DP"),
        "model kind": "moe" if note.get("ep", 1) > 1 else "dense",
    }


def occupancy_of(row: Row, line: int) -> Occupancy:
    """The question that a row asks.

    Raises: Skip with the reason, where the row lacks something
    """
    if _note(row).get("ep", 1) > 1:
        raise Skip("expert parallelism, but the row has no sizes of experts")
    verdict = word(row, "fits").lower()
    peak = number(row, "max_alloc_gb", 0.0) * _GIB
    return Occupancy(
        id=row_id(row, line),
        model=model_of(row),
        plan=plan_of(row),
        recipe=recipe(word(row, "precision", "bf16")),
        profile=find_profile(" ".join(word(row, name) for name in ("framework", "model", "source", "note"))),
        capacity_bytes=_capacity_bytes(row),
        measured_fits={"yes": 1.0, "no": 0.0, "1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0}.get(verdict),
        measured_peak_bytes=peak or None,
        groups=_groups(row),
    )


def _size(row: Row, key: str, default: int | None = None) -> int:
    """A whole number from 1 to MAX_SIZE.

    Raises: Skip with the column that is missing or out of range
    """
    value = integer(row, key, default)
    if not 1 <= value <= MAX_SIZE:
        raise Skip(f"{key} is {value:.4g}, not 1 to {MAX_SIZE:,}")
    return value


def _note(row: Row) -> dict[str, int]:
    """Sizes that the note states, such as "cp=1 ep=8 vpp=4"."""
    return {name: int(value) for name, value in re.findall(r"\b(cp|ep|vpp)=(\d{1,6})\b", word(row, "note"))}


def _capacity_bytes(row: Row) -> float:
    """What a rank can use: the chip's usable memory where the catalogue knows it, else what the row states."""
    stated = number(row, "hbm_gb", 0.0) * 1e9
    try:
        chip = load_chip(word(row, "chip"))
    except CatalogueError:
        if not stated:
            raise Skip(f"hbm_gb is empty, and the catalogue has no chip {word(row, 'chip')!r}") from None
        return stated
    return float(chip.memory_bytes)


def model_of(row: Row) -> Model:
    """A decoder from the row's sizes. A gated MLP and tied embeddings follow from the parameter count.

    Without a parameter count, an MLP of four times the hidden size is taken as plain and any other as gated.
    """
    hidden, inner, heads = _size(row, "hidden"), _size(row, "ffn_hidden"), _size(row, "heads")
    attention = Attention(num_heads=heads, num_kv_heads=_size(row, "kv_heads", heads), head_dim=hidden // heads)
    if hidden % heads:
        raise Skip(f"{heads} heads don't divide the hidden size {hidden}")
    layers = _size(row, "layers")
    if layers > MAX_LAYERS:
        raise Skip(f"layers is {layers:,}, more than {MAX_LAYERS:,}")
    tied = word(row, "tied_embeddings").lower()
    stated = number(row, "params_b", 0.0) * 1e9
    options = [
        Model(
            id="row",
            hidden_size=hidden,
            vocab_size=_size(row, "vocab"),
            layers=(Layer(attention=attention, mlp=Mlp(intermediate_size=inner, gated=gated)),) * layers,
            tie_word_embeddings=is_tied,
            norm="rmsnorm" if gated else "layernorm",
        )
        for gated in ((True, False) if stated else (inner != 4 * hidden,))
        for is_tied in ((tied == "yes",) if tied else (False, True))
    ]
    return min(options, key=lambda each: abs(parameter_count(each) - stated)) if stated else options[0]


def plan_of(row: Row) -> Plan:
    """The parallel plan of a row.

    Raises: Skip where a size is missing or they don't multiply out
    """
    note = _note(row)
    tensor, pipeline, context = _size(row, "tp", 1), _size(row, "pp", 1), note.get("cp", 1)
    chips = _size(row, "n_chips")
    data = integer(row, "dp", 0) or max(chips // (tensor * pipeline * context), 1)
    if data * tensor * pipeline * context != chips and data * tensor * pipeline == chips and data % context == 0:
        data //= context
    if data * tensor * pipeline * context != chips:
        raise Skip(f"DP x TP x PP x CP = {data * tensor * pipeline * context}, not the {chips} chips")
    micro, chunks = _size(row, "micro_batch"), note.get("vpp", 1)
    zero = integer(row, "zero_stage", 1)
    if zero > 3:
        raise Skip(f"unknown zero_stage {zero}")
    recompute = word(row, "recompute").lower()
    if not recompute:
        raise Skip("recompute is empty")
    if recompute not in RECOMPUTE:
        raise Skip(f"unknown recompute {recompute!r}")
    schedule = "interleaved" if chunks > 1 and pipeline > 1 else "1f1b"
    return Plan(
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        virtual_pipeline_size=chunks if pipeline > 1 else 1,
        context_parallel_size=context,
        data_parallel_size=data,
        zero_stage=zero,
        micro_batch_size=micro,
        global_batch_size=micro * data * _size(row, "grad_accum", 1),
        seq_length=_size(row, "seq_len"),
        sequence_parallel=int(word(row, "sequence_parallel").lower() == "yes" and tensor > 1),
        recompute=RECOMPUTE.index(recompute),
        schedule=SCHEDULE_NAMES.index(schedule),
    )
