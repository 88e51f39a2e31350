"""A planning answer about serving as blocks for the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import numpy as np

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.planning.serving.bounds import FLOP, Bound
from ultratwin.planning.serving.deployment import Deployment, Role
from ultratwin.planning.serving.plan import PlanServingAnswer
from ultratwin.planning.serving.request_times import statistics
from ultratwin.planning.serving.slo import attained_frac
from ultratwin.report.metrics import said
from ultratwin.report.metrics.serving import REQUEST_METRICS, RUN_METRICS, ServingRun
from ultratwin.report.serving import question_json, serving_plan_json
from ultratwin.report.tables import Block, Grid, Lines, Title

_REASONS: Final = 6
_SHOWN: Final = 12


def plan_serving_blocks(answer: PlanServingAnswer) -> list[Block]:
    """Title, systems side by side, the simulated best, chips by percentile, the front, bounds, what was searched."""
    blocks: list[Block] = [_title(answer)]
    if answer.best is None:
        blocks += _nothing(answer)
    if answer.choices:
        blocks += [_systems(answer), _layouts(answer)]
    if answer.best is not None:
        blocks += _verified(answer)
    if answer.by_attainment:
        blocks.append(_attainment(answer))
    if answer.front:
        blocks.append(_front(answer))
    if answer.bounds:
        blocks.append(_bounds(answer))
    blocks.append(_searched(answer))
    refused = tuple(f"{each.system_id}: {each.refused}" for each in answer.searches if each.refused)
    return [*blocks, Lines(title="not tried", lines=refused)] if refused else blocks


def _title(answer: PlanServingAnswer) -> Title:
    question = answer.question
    demand = question.serving.demand
    lengths = f"prompts of {float(np.ravel(answer.load.prompt_tokens)[0]):,.0f}"
    lengths += f" and answers of {float(np.ravel(answer.load.output_tokens)[0]):,.0f} tokens"
    rate = demand.request_rate
    lines = [lengths + (f", {said(rate)} requests a second" if rate is not None and math.isfinite(rate) else "")]
    goal = f"least {question.objective}"
    if question.serving.slos:
        share = f"{question.serving.slos.attainment:.4g}"
        goal += f" that keeps {question.serving.slos} (for {float(share):.1%} of requests)"
    if question.max_chips is not None:
        goal += f", at most {question.max_chips:,} chips"
    lines.append(f"{goal}; {', '.join(question.precisions)}")
    if answer.best is not None:
        lines.append(f"best: {_said(answer.best)}")
    return Title(text=f"plan to serve {answer.model.id}", lines=tuple(lines))


def _said(option: Deployment) -> str:
    cost = "" if math.isnan(option.usd_per_s) else f", ${said(option.usd_per_s * 3600)} an hour"
    return f"{option.chips:,} chips of {option.system_id}: {option.describe()}{cost}"


def _nothing(answer: PlanServingAnswer) -> list[Block]:
    blocks: list[Block] = []
    forbidding = [each for each in answer.bounds if each.forbids]
    if forbidding:
        blocks.append(Lines(title="physics forbids it", lines=tuple(bound_said(each) for each in forbidding)))
    if answer.nearest is None:
        reason = next(iter(answer.rejected), "no system has a size that fits")
        return [*blocks, Lines(title="nothing can run", lines=(f"most often: {reason}",))]
    values = ", ".join(f"{name} comes to {_ms(value)}" for name, value in answer.nearest.objectives)
    lines = [_said(answer.nearest), *([values] if values else [])]
    most = answer.question.max_chips
    if most is not None and answer.nearest.chips > most:
        lines.append(f"it takes more than the {most:,} chips allowed")
    if not forbidding and answer.nearest.miss > 1:
        lines.append("no physical bound forbids it: faster kernels, or a faster engine, could keep it")
    return [*blocks, Lines(title="nothing keeps the objectives; the nearest", lines=tuple(lines))]


def bound_said(bound: Bound) -> str:
    """A bound as a sentence."""
    unit = "FLOP" if bound.cause == FLOP else "byte"
    return (
        f"{bound.objective}: at least {_ms(bound.least_s)} even on {bound.plan} of {bound.system_id}, as {bound.cause} "
        f"({bound.amount / 1e9:,.3g} G{unit} a chip at {bound.rate / 1e12:,.4g} T{unit}/s); "
        f"asked are {_ms(bound.limit_s)}"
    )


def _ms(value: float) -> str:
    return f"{said(value * 1e3)} ms" if math.isfinite(value) else "endless"


def _systems(answer: PlanServingAnswer) -> Grid:
    return Grid(
        title="the best of each system, best first",
        columns=(
            "system",
            "chips",
            "rented",
            "USD/h",
            "USD/M tokens",
            "J/token",
            "TTFT",
            "TPOT",
            "tok/s/chip",
            "tok/s/user",
        ),
        rows=tuple(_system_row(each) for each in answer.choices),
        right=frozenset(range(1, 10)),
    )


def _system_row(option: Deployment) -> tuple[str, ...]:
    priced = not math.isnan(option.usd_per_s)
    return (
        option.system_id,
        f"{option.chips:,}",
        f"{option.rented_chips:,}",
        said(option.usd_per_s * 3600) if priced else "unknown",
        said(option.usd_per_mtoken) if priced else "unknown",
        said(option.energy_j_per_token),
        _ms(option.ttft_s),
        _ms(option.tpot_s),
        said(option.tokens_per_s_per_chip),
        said(option.tokens_per_s_per_user) if math.isfinite(option.tokens_per_s_per_user) else "",
    )


def _layouts(answer: PlanServingAnswer) -> Grid:
    rows = []
    for option in answer.choices:
        limits = "; ".join(
            f"{each.max_num_batched_tokens:,} tokens, {each.running:.0f} sequences each" for each in option.roles
        )
        verdict = "" if option.meets else ", ".join(f"{name}: {_ms(value)}" for name, value in option.objectives)
        verdict = verdict and f"misses {verdict}"
        rows.append((option.system_id, option.precision, option.describe(), limits, verdict))
    columns = ("system", "format", "replicas", "batches", "remarks")
    return Grid(title="what they are", columns=columns, rows=tuple(rows))


def _verified(answer: PlanServingAnswer) -> list[Block]:
    found = answer.verification
    if found is None:
        return []
    blocks: list[Block] = []
    run = verified_run(answer)
    if run is not None:
        rows = []
        for metric in REQUEST_METRICS[:4]:
            values = statistics(metric.read(run))
            cells = [values.mean, *(values.percentiles[each] for each in (50.0, 90.0, 99.0))]
            rows.append((f"{metric.label}, {metric.unit}", *(said(each / metric.scale) for each in cells)))
        title = f"the best, simulated with {len(run.times):,} requests"
        if found.question.slos.per_request:
            title += f": {attained_frac(found.question.slos, run.times):.2%} keep all objectives"
        blocks.append(
            Grid(
                title=title, columns=("", "mean", "p50", "p90", "p99"), rows=tuple(rows), right=frozenset({1, 2, 3, 4})
            )
        )
    return [*blocks, Lines(title="notes", lines=found.notes)] if found.notes else blocks


def verified_run(answer: PlanServingAnswer) -> ServingRun | None:
    """The simulated best as its metrics read it; None where none was simulated."""
    found = answer.verification
    if found is None or found.simulated is None:
        return None
    best, run = found.deployment, found.simulated
    price = best.usd_per_s / best.chips * 3600
    return ServingRun(
        times=run.times,
        duration_s=run.duration_s,
        num_chips=best.chips,
        energy_j=run.energy_j,
        usd_per_chip_hour=None if math.isnan(price) else price,
        slos=found.question.slos,
    )


def _attainment(answer: PlanServingAnswer) -> Grid:
    rows = tuple(
        (
            f"p{share * 100:g}",
            "none" if option is None else f"{option.chips:,}",
            "" if option is None else option.system_id,
            "" if option is None else option.describe(),
        )
        for share, option in answer.by_attainment
    )
    return Grid(
        title="fewest chips, by the percentile that keeps the objectives",
        columns=("percentile", "chips", "system", "replicas"), rows=rows, right=frozenset({1}),
    )  # fmt: skip


def _front(answer: PlanServingAnswer) -> Grid:
    options = answer.front
    if len(options) > _SHOWN:
        options = tuple(options[round(at * (len(options) - 1) / (_SHOWN - 1))] for at in range(_SHOWN))
    rows = tuple(
        (
            each.system_id,
            f"{each.chips:,}",
            said(each.tokens_per_s_per_chip),
            said(each.tokens_per_s_per_user),
            "" if math.isnan(each.usd_per_s) else said(each.usd_per_mtoken),
            said(each.energy_j_per_token),
            _ms(each.ttft_s),
            each.describe(),
        )
        for each in options
    )
    return Grid(
        title=f"front: what nothing beats in tokens/s/chip and tokens/s/user ({len(answer.front)})",
        columns=("system", "chips", "tok/s/chip", "tok/s/user", "USD/M tokens", "J/token", "TTFT", "replicas"),
        rows=rows,
        right=frozenset({1, 2, 3, 4, 5, 6}),
    )


def _bounds(answer: PlanServingAnswer) -> Grid:
    rows = tuple(
        (
            each.objective,
            _ms(each.least_s),
            each.cause,
            f"{each.plan} of {each.system_id}",
            "forbids it" if each.forbids else "",
        )
        for each in answer.bounds
    )
    return Grid(
        title="physical bounds: the least that any engine could take",
        columns=("objective", "at least", "set by", "on", ""), rows=rows, right=frozenset({1}),
    )  # fmt: skip


def _searched(answer: PlanServingAnswer) -> Lines:
    counts = list(answer.rejected.items())
    lines = [f"{count:>9,}  {reason}" for reason, count in counts[:_REASONS]]
    title = f"{answer.num_candidates:,} layouts of a replica, {answer.num_points:,} steady states"
    return Lines(title=title + ("; layouts that can't run:" if lines else ""), lines=tuple(lines))


def plan_serving_json(answer: PlanServingAnswer) -> dict[str, Any]:
    """A planning answer as JSON objects."""
    question = answer.question
    return {
        "verb": "plan serve",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": question.serving.seed,
        "question": question_json(question.serving)
        | {
            "systems": [str(getattr(each, "id", each)) for each in question.systems],
            "precisions": list(question.precisions),
            "objective": question.objective,
            "modes": list(question.modes),
            "max_chips": question.max_chips,
            "offer": question.offer,
            "prices_usd_per_chip_hour": {name: p * 3600 for name, p in question.prices_usd_per_chip_s.items()},
        },
        "model": answer.model.id,
        "feasible": answer.best is not None,
        "best": answer.best and deployment_json(answer.best),
        "nearest": answer.nearest and deployment_json(answer.nearest),
        "systems": [deployment_json(each) for each in answer.choices],
        "by_percentile": [
            {"percentile": share * 100, "deployment": option and deployment_json(option)}
            for share, option in answer.by_attainment
        ],
        "front": [deployment_json(each) for each in answer.front],
        "bounds": [dataclasses.asdict(each) | {"forbids": each.forbids} for each in answer.bounds],
        "search": {
            "num_candidates": answer.num_candidates,
            "num_points": answer.num_points,
            "rejected": answer.rejected,
        },
        "refused": {each.system_id: each.refused for each in answer.searches if each.refused},
        "verified": _verified_json(answer),
    }


def _verified_json(answer: PlanServingAnswer) -> dict[str, Any] | None:
    found, run = answer.verification, verified_run(answer)
    if found is None:
        return None
    simulated: dict[str, Any] | None = None
    if run is not None:
        simulated = {metric.tag: metric.read(run) for metric in RUN_METRICS}
        for each in REQUEST_METRICS:
            values = statistics(each.read(run))
            percentiles = {f"p{percent:g}": value for percent, value in values.percentiles.items()}
            simulated[each.tag] = {"mean": values.mean, "std": values.std} | percentiles
    return {"kept": found.kept, "simulated": simulated, "notes": list(found.notes)}


def deployment_json(option: Deployment) -> dict[str, Any]:
    """A deployment."""
    names = (
        "precision", "mode", "chips", "rented_chips", "request_rate", "output_tokens_per_s", "ttft_s", "tpot_s", "miss",
        "power_w", "usd_per_s", "tokens_per_s_per_chip", "tokens_per_s_per_user", "usd_per_mtoken",
        "energy_j_per_token",
    )  # fmt: skip
    return (
        {"system": option.system_id, "meets": option.meets}
        | {name: getattr(option, name) for name in names}
        | {
            "objectives": [{"objective": name, "value_s": value} for name, value in option.objectives],
            "roles": [_role_json(each) for each in option.roles],
            "text": option.describe(),
        }
    )


def _role_json(role: Role) -> dict[str, Any]:
    found: dict[str, Any] = {each.name: getattr(role, each.name) for each in dataclasses.fields(role)}
    return found | {"plan": serving_plan_json(role.plan)}
