"""Kernel measurements against the kernel model: rows of kernels.csv to predictions."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache
from typing import Final

import numpy as np

from ultratwin.errors import UltratwinError
from ultratwin.hardware.chip import Array, load_chip
from ultratwin.timing.kernels import KernelModel, kernel_model
from ultratwin.timing.kernels.fitted import FittedKernels, attention_format
from ultratwin.validation.kernel_rows import KernelCall, Row, Unreadable, read_row
from ultratwin.validation.result import RowResult

_DEFAULT_ERRORS: Final = (-0.4, 0.4)
"""Error range (log) of a model that states none: assumed."""
_Key = tuple[str, str, float, str, str, str, str, bool, bool]


def predict_rows(rows: list[Row]) -> list[RowResult]:
    """Predicted time of every row, in order; a row that can't be predicted says why.

    Rows of equal chip, kernel, format and library are predicted in one array-first call.
    Args:
        rows: as csv.DictReader gives them
    Returns: one result per row; low and high span 90 % by the fit's own residuals
    """
    results: dict[int, RowResult] = {}
    grouped: dict[_Key, list[tuple[int, KernelCall]]] = defaultdict(list)
    for at, row in enumerate(rows):
        try:
            call = read_row(row)
        except Unreadable as error:
            results[at] = _skipped(rows[at], at, str(error))
            continue
        key = (call.table, call.chip, call.cores, call.dtype, call.stored_dtype, call.library, call.phase, call.causal,
               call.accumulate)  # fmt: skip
        grouped[key].append((at, call))
    for members in grouped.values():
        results |= _predict_group(rows, members)
    return [results[at] for at in range(len(rows))]


def _predict_group(rows: list[Row], members: list[tuple[int, KernelCall]]) -> dict[int, RowResult]:
    first = members[0][1]
    try:
        model = _model(first.chip, first.cores)
        sizes = {name: np.array([call.sizes[name] for _, call in members]) for name in first.sizes}
        times = np.broadcast_to(_call(model, first, sizes), len(members))
    except UltratwinError as error:
        return {at: _skipped(rows[at], at, error.what) for at, _ in members}
    low_error, high_error = _errors(model, first)
    found = {}
    for (at, call), time_s in zip(members, times.tolist(), strict=True):
        if not math.isfinite(time_s) or time_s <= 0:
            found[at] = _skipped(rows[at], at, "sizes give no finite time")
            continue
        result = RowResult(
            id=row_id(rows[at], at), metric="time_s", unit="s", status="scored", predicted=time_s,
            measured=call.seconds, low=time_s * math.exp(-high_error), high=time_s * math.exp(-low_error),
            groups=_groups(rows[at]),
        )  # fmt: skip
        found[at] = result
    return found


def row_id(row: Row, at: int) -> str:
    """The row's id, or its line number in the file."""
    return (row.get("id") or "").strip() or str(at + 2)


@cache
def _model(chip: str, cores: float) -> KernelModel:
    model = kernel_model(load_chip(chip))
    return model.on_cores(cores) if cores else model


def _call(model: KernelModel, call: KernelCall, sizes: dict[str, Array]) -> Array:
    """The kernel model's answer for rows that differ in sizes only."""
    s, library, dtype, stored = sizes, call.library, call.dtype, call.stored_dtype
    if call.table in ("gemm", "grouped_gemm"):
        groups = s["groups"] if call.table == "grouped_gemm" else 1
        time = model.gemm_time_s(
            s["m"], s["n"], s["k"], dtype=dtype, groups=groups, accumulate=call.accumulate, library=library
        )
    elif call.table == "memory_bound":
        time = model.memory_bound_time_s(s["bytes"], kind=call.phase, library=library)  # type: ignore[arg-type]
    elif call.table == "moe":
        time = model.moe_time_s(
            s["tokens"], s["hidden"], s["inter"], top_k=s["topk"], experts=s["experts"], local_experts=s["local"],
            gated=bool(s["matrices"][0] > 2), routing_skew=s["skew"], dtype=dtype, weight_dtype=stored, library=library,
        )  # fmt: skip
    else:
        phases = ("forward", "backward") if call.phase == "both" else (call.phase,)
        time = np.sum([_attention(model, call, sizes, phase) for phase in phases], axis=0)
    return np.asarray(time, dtype=np.float64)


def _attention(model: KernelModel, call: KernelCall, s: dict[str, Array], phase: str) -> Array:
    if call.table == "mla_decode":
        time = model.mla_time_s(
            s["batch"], s["seq_q"], s["seq_kv"], s["heads_q"], latent_dim=s["head_dim_v"],
            rope_dim=s["head_dim"] - s["head_dim_v"], phase="decode", dtype=call.dtype, kv_dtype=call.stored_dtype,
            library=call.library,
        )  # fmt: skip
    elif call.table == "mla_attention":
        time = model.mla_time_s(
            s["batch"], s["seq_q"], s["seq_kv"], s["heads_q"], head_dim=s["head_dim"], head_dim_v=s["head_dim_v"],
            phase=phase, dtype=call.dtype, kv_dtype=call.stored_dtype, library=call.library,  # type: ignore[arg-type]
        )  # fmt: skip
    else:
        time = model.attention_time_s(
            s["batch"], s["seq_q"], s["seq_kv"], s["heads_q"], s["heads_kv"], s["head_dim"], head_dim_v=s["head_dim_v"],
            causal=call.causal, phase=phase, dtype=call.dtype, kv_dtype=call.stored_dtype, library=call.library,  # type: ignore[arg-type]
        )  # fmt: skip
    return np.asarray(time, dtype=np.float64)


def _errors(model: KernelModel, call: KernelCall) -> tuple[float, float]:
    if not isinstance(model, FittedKernels):
        return _DEFAULT_ERRORS
    only = call.phase if call.table in ("attention", "mla_attention", "memory_bound") else ""
    dtype = "bf16" if call.table == "memory_bound" else call.dtype
    if call.table not in ("gemm", "grouped_gemm", "memory_bound"):
        dtype = attention_format(call.dtype, call.stored_dtype)
    return model.choice(call.table, dtype, call.library, "forward" if only == "both" else only).error_range()


def _skipped(row: Row, at: int, reason: str) -> RowResult:
    return RowResult(
        id=row_id(row, at), metric="time_s", unit="s", status="skipped", reason=reason, groups=_groups(row)
    )


def _groups(row: Row) -> dict[str, str]:
    return {
        "source": row.get("source_id") or "",
        "chip": row.get("chip") or "",
        "dtype": row.get("dtype") or "",
        "kind": row.get("op_class") or "",
    }
