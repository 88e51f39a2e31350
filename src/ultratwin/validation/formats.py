"""The formats of truth files that the scoreboard knows: how each is told, predicted and guarded.

A new format is a module with `predict_rows(rows) -> list[RowResult]`, and one entry in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ultratwin.validation import (
    collectives,
    kernels,
    power,
    power_cost,
    reliability,
    serving,
    training,
    training_memory,
    trn3_gemm,
)
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row
from ultratwin.validation.serving_rows import METRICS, published


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is predicted for each row: a quantity is scored by its relative error, a verdict (0 or 1) by being right."""

    name: str
    unit: str
    kind: Literal["quantity", "verdict"] = "quantity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of truth files.

    columns: what a file of this format must have; together they tell it from every other format
    predict: rows to results, one per row and metric, in the order of the rows
    source: the group of a result that sources are pooled by
    groups: what the scoreboard breaks down by, as (heading, group of a result); the source comes first
    family: groups of a result that the gate holds separately, beside each source
    published: which metrics a row has a result for; None where each row has one for every metric
    """

    name: str
    columns: tuple[str, ...]
    predict: Callable[[list[Row]], list[RowResult]]
    metrics: tuple[Metric, ...]
    source: str
    groups: tuple[tuple[str, str], ...]
    family: tuple[str, ...]
    published: Callable[[Row], Iterable[str]] | None = None


_TIME: Final = (Metric(name="time_s", unit="s"),)
_SIZES: Final = ("layers", "hidden", "heads", "vocab", "seq_len", "chip", "n_chips", "tp", "pp", "precision")
FORMATS: Final[tuple[Format, ...]] = (
    Format(
        name="training",
        columns=(*_SIZES, "ffn_hidden", "mlp_type", "framework", "global_batch"),
        predict=training.predict_rows,
        metrics=(Metric(name="step_time_s", unit="s"),),
        source="source",
        groups=(
            ("source", "source"), ("chip", "chip"), ("parallelism", "parallelism"), ("model kind", "model kind"),
            ("precision", "precision"),
        ),
        family=("chip", "precision"),
    ),
    Format(
        name="training_memory",
        columns=(*_SIZES, "ffn_hidden", "hbm_gb", "dp", "micro_batch", "grad_accum", "zero_stage", "recompute"),
        predict=training_memory.predict_rows,
        metrics=(
            Metric(name="fits", unit="1", kind="verdict"),
            Metric(name="peak_memory_bytes", unit="byte"),
        ),
        source="source",
        groups=(
            ("source", "source"), ("chip", "chip"), ("parallelism", "parallelism"), ("model kind", "model kind"),
        ),
        family=("chip",),
    ),
    Format(
        name="kernels",
        columns=("chip", "op_class", "kernel", "dtype", "M", "N", "K", "batch", "seq_q", "seq_kv", "phase"),
        predict=kernels.predict_rows,
        metrics=_TIME,
        source="source",
        groups=(("source", "source"), ("chip", "chip"), ("kind", "kind"), ("number format", "dtype")),
        family=("kind", "chip", "dtype"),
    ),
    Format(
        name="trn3_gemm",
        columns=("m", "n", "k", "dtype", "backend", "lnc", "instance"),
        predict=trn3_gemm.predict_rows,
        metrics=_TIME,
        source="source",
        groups=(("source", "source"), ("chip", "chip"), ("number format", "dtype")),
        family=("chip", "dtype"),
    ),
    Format(
        name="collectives",
        columns=("chip", "ranks", "op", "network", "library", "message_bytes"),
        predict=collectives.predict_rows,
        metrics=_TIME,
        source="source_id",
        groups=(("source", "source_id"), ("chip", "chip"), ("operation", "op"), ("ranks", "ranks")),
        family=("op", "chip"),
    ),
    Format(
        name="serving",
        columns=(
            "chip", "n_chips", "tp", "weights_prec", "engine", "input_len", "output_len", "concurrency", "request_rate",
        ),
        predict=serving.predict_rows,
        metrics=tuple(Metric(name=name, unit=unit) for name, unit in METRICS.items()),
        source="source",
        groups=(
            ("source", "source"), ("chip", "chip"), ("engine", "engine"), ("serving", "serving"),
            ("precision", "precision"), ("configuration", "configuration"),
        ),
        family=("engine", "chip"),
        published=published,
    ),
    Format(
        name="reliability",
        columns=("category", "operator", "n_accel", "period", "metric", "value", "value_kind"),
        predict=reliability.predict_rows,
        metrics=(Metric(name="figure", unit="as the row"),),
        source="source",
        groups=(("source", "source"), ("quantity", "quantity"), ("chip", "chip")),
        family=("quantity",),
    ),
    Format(
        name="power",
        columns=(*_SIZES, "ffn_hidden", "mlp_type", "framework", "cooling", "meter", "metric", "value", "high_value"),
        predict=power.predict_rows,
        metrics=(Metric(name="power", unit="as the row"),),
        source="source",
        groups=(("source", "source"), ("quantity", "quantity"), ("chip", "chip"), ("cooling", "cooling")),
        family=("quantity",),
    ),
    Format(
        name="power_cost",
        columns=("kind", "chip", "n_accel", "workload", "model", "metric", "value", "unit"),
        predict=power_cost.predict_rows,
        metrics=(Metric(name="power", unit="as the row"),),
        source="source",
        groups=(("source", "source"), ("quantity", "quantity"), ("chip", "chip"), ("cooling", "cooling")),
        family=("quantity",),
    ),
)  # fmt: skip
"""Explicit: detection, scoreboard, gate and tests all run over this tuple."""
