"""Serving measurements: what the twin says of each row of serving.csv, one result per published column.

A row with a load is simulated, request by request, over the iteration tables of its plan; one that says no more than
"as fast as it goes" is answered by the steady state of a saturated server (validation/serving_capacity.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from ultratwin.errors import UltratwinError
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row, Skip, row_id
from ultratwin.validation.serving_capacity import Capacity, capacity
from ultratwin.validation.serving_load import requests_of
from ultratwin.validation.serving_metrics import joined, metrics, own_spread
from ultratwin.validation.serving_rows import METRICS, ServingRun, groups_of, published, run_of
from ultratwin.validation.serving_simulation import CannotRun, Tables, equal_shares, machine, served_times

MAX_REQUESTS: Final = 20_000
"""An open load's later requests tell nothing new: longer ones are cut to so many per stage."""
Answer = dict[str, float]


def predict_rows(rows: Sequence[Row]) -> list[RowResult]:
    """The twin's answer to each published column of each row: scored, rejected (it can't run) or skipped."""
    results: list[RowResult] = []
    known: dict[object, Answer | str] = {}
    tables: Tables = {}
    for line, row in enumerate(rows, start=2):
        try:
            run = run_of(row, line)
        except (Skip, UltratwinError) as error:
            reason = error.what if isinstance(error, UltratwinError) else str(error)
            results += _unscored(row_id(row, line), published(row), "skipped", reason, _labels(row))
            continue
        key = question(run)
        if key not in known:
            known[key] = _answer(run, tables)
        answer = known[key]
        if isinstance(answer, str):
            results += _unscored(run.id, run.measured, "rejected", answer, run.groups)
        else:
            results += _scored(run, answer)
    return results


def question(run: ServingRun) -> object:
    """What of a run its answer depends on, hashable."""
    return (
        machine(run),
        run.num_chips,
        run.decode,
        run.prefill,
        run.load,
        run.limits,
        run.counts_prompts,
        run.normalised_itl,
    )


def predict(run: ServingRun, tables: Tables | None = None) -> Answer:
    """Columns of a run by name, in their units.

    Args: tables: iteration tables that runs share, filled here
    Raises: CannotRun, Skip
    """
    shared = {} if tables is None else tables
    return _saturated(run, shared) if run.load.kind == "capacity" else _simulated(run, shared)


def _answer(run: ServingRun, tables: Tables) -> Answer | str:
    try:
        # groups of one rank divide by links that they don't have; np.where drops what comes of it
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return predict(run, tables)
    except (CannotRun, Skip) as error:
        return str(error)
    except UltratwinError as error:
        return error.what
    except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
        return f"prediction failed: {type(error).__name__}: {error}"[:200]


def _labels(row: Row) -> dict[str, str]:
    try:
        return groups_of(row)
    except (Skip, UltratwinError):
        return {}


def _unscored(
    name: str, measured: dict[str, float | None], status: str, reason: str, groups: dict[str, str]
) -> list[RowResult]:
    return [
        RowResult(
            id=name, metric=metric, unit=METRICS[metric], measured=value, groups=groups, reason=reason,
            status="rejected" if status == "rejected" else "skipped",
        )
        for metric, value in measured.items()
    ]  # fmt: skip


def _scored(run: ServingRun, answer: Answer) -> list[RowResult]:
    results = []
    for metric, value in run.measured.items():
        spread = 1 + own_spread(run.engine, metric)
        predicted = answer.get(metric)
        if predicted is None:
            results += _unscored(run.id, {metric: value}, "skipped", "not predicted for this load", run.groups)
            continue
        results.append(
            RowResult(
                id=run.id, metric=metric, unit=METRICS[metric], status="scored", predicted=predicted, measured=value,
                low=predicted / spread, high=predicted * spread, groups=run.groups,
            )
        )  # fmt: skip
    return results


def _saturated(run: ServingRun, tables: Tables) -> Answer:
    try:
        found = capacity(run)
    except Skip as error:
        raise CannotRun(str(error)) from None
    load = run.load
    timed = load.tpot_limit_s > 0 and load.beams == 1
    rate = _sustained(run, found, tables) if timed else found.output_tok_s / load.output_tokens
    outputs, inputs = rate * load.output_tokens, rate * load.prompt_tokens
    return {
        "req_per_s": rate,
        "output_tok_s": outputs,
        "input_tok_s": inputs,
        "total_tok_s": inputs + outputs,
        "output_tok_s_per_chip": outputs / run.num_chips,
        "total_tok_s_per_chip": (inputs + outputs) / run.num_chips,
        "tpot_mean_ms": 1e3 * found.tpot_s,
        "tpot_p50_ms": 1e3 * found.tpot_s,
    }


def _sustained(run: ServingRun, found: Capacity, tables: Tables) -> float:
    """Requests per second of Poisson arrivals at which 99 of 100 keep both limits: by halving, on one replica.

    Lengths are uniform from a fifth to nine fifths of their mean, about as uneven as the tasks' own.
    """
    load = run.load
    highest = found.output_tok_s / load.output_tokens / found.replicas
    count = int(min(max(20 * found.batch, 1000), 15_000))
    side = dataclasses.replace(run.decode, plan=found.plan, workers=1)
    low, high = 0.0, 1.3 * highest
    for _ in range(7):
        rate = (low + high) / 2
        asked = dataclasses.replace(
            load, kind="open", prompt_tokens=1.8 * load.prompt_tokens, output_tokens=1.8 * load.output_tokens,
            shortest_frac=1 / 9, num_requests=count, stages=((rate, count),),
        )  # fmt: skip
        trial = dataclasses.replace(run, decode=side, load=asked)
        times = served_times(trial, tables, requests_of(asked, rate=rate, count=count))
        ttft = times.first_s - times.sent_s
        tpot = (times.finish_s - times.first_s) / np.maximum(times.output_tokens - 1, 1)
        kept = np.percentile(ttft, 99) <= load.ttft_limit_s and np.percentile(tpot, 99) <= load.tpot_limit_s
        low, high = (rate, high) if kept else (low, rate)
    return low * found.replicas


def _simulated(run: ServingRun, tables: Tables) -> Answer:
    load, shares = run.load, equal_shares(run)
    stages = load.stages or ((0.0, load.num_requests),)
    parts = [
        served_times(run, tables, requests_of(load, share=shares, rate=rate, count=min(count, MAX_REQUESTS * shares)))
        for rate, count in stages
    ]
    return metrics(
        joined(parts), replicas=shares, num_chips=run.num_chips, counts_prompts=run.counts_prompts,
        normalised_itl=run.normalised_itl, steady=load.steady,
    )  # fmt: skip
