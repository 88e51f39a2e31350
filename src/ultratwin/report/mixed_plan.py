"""A planning answer about systems that are joined, as blocks for the terminal and as JSON."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.planning.mixed.crossover import Segment
from ultratwin.planning.mixed.plan import MixedPlanAnswer, Reading, amount, is_pure
from ultratwin.planning.serving.deployment import Deployment
from ultratwin.report.metrics import said
from ultratwin.report.mixed_serving import WAYS, join_json, join_said
from ultratwin.report.plan_serving import deployment_json
from ultratwin.report.serving import question_json
from ultratwin.report.tables import Block, Grid, Lines, Title

_SHOWN: Final = 10
_REASONS: Final = 4
_UNITS: Final = {
    "cost": ("USD per 1,000 requests", 1e-3),
    "chips": ("chips per request/s", 1.0),
    "energy": ("J/request", 1.0),
}


def mixed_plan_blocks(answer: MixedPlanAnswer) -> list[Block]:
    """Title, the best against each system alone, the ways to mix, the crossover, how far announced figures decide."""
    blocks: list[Block] = [_title(answer)]
    if answer.best is None:
        blocks.append(_nothing(answer))
    else:
        blocks += [_against_pure(answer), _choices(answer)]
        if segments := answer.readings[0].segments:
            blocks.append(_crossover(answer, segments))
        if len(answer.readings) > 1:
            blocks.append(_readings(answer))
    if answer.notes:
        blocks.append(Lines(title="notes", lines=answer.notes))
    return [*blocks, _searched(answer)]


def _title(answer: MixedPlanAnswer) -> Title:
    asked = answer.question.plan.serving
    rate = asked.demand.request_rate
    lengths = f"prompts of {float(np.ravel(answer.load.prompt_tokens)[0]):,.0f}"
    lengths += f" and answers of {float(np.ravel(answer.load.output_tokens)[0]):,.0f} tokens"
    lines = [lengths + (f", {said(rate)} requests a second" if rate is not None and math.isfinite(rate) else "")]
    goal = f"least {answer.objective}"
    if asked.slos:
        goal += f" that keeps {asked.slos} (for {asked.slos.attainment:.1%} of requests)"
    lines.append(f"{goal}; {', '.join(answer.question.plan.precisions)}")
    lines += [f"joined by {join_said(each)}" for each in answer.joins]
    if answer.best is not None:
        lines.append(f"best: {_said(answer.best)}")
    pools = " and ".join(
        each.system.id + (" (hypothetical)" if each.system.hypothetical else "") for each in answer.question.pools
    )
    return Title(text=f"plan to serve {answer.model.id} on {pools}", lines=tuple(lines))


def _said(option: Deployment) -> str:
    cost = "" if math.isnan(option.usd_per_s) else f", ${said(option.usd_per_s * 3600)} an hour"
    return f"{option.describe()}: {option.chips:,} chips, {said(option.power_w / 1e3)} kW{cost}"


def _nothing(answer: MixedPlanAnswer) -> Lines:
    near = answer.nearest
    if near is None:
        reason = next(iter(answer.rejected), "no size of a replica fits")
        return Lines(title="nothing can run", lines=(f"most often: {reason}",))
    values = ", ".join(f"{name} comes to {_ms(value)}" for name, value in near.objectives)
    return Lines(title="nothing keeps the objectives; the nearest", lines=(_said(near), *([values] if values else [])))


def _ms(value: float) -> str:
    return f"{said(value * 1e3)} ms" if math.isfinite(value) else "endless"


def _against_pure(answer: MixedPlanAnswer) -> Grid:
    """The best of all, and the best of each system alone, for the same load."""
    unit, scale = _UNITS[answer.objective]
    rows = []
    options = [("the best", answer.best), *((f"{name} alone", option) for name, option in answer.pure)]
    for name, option in options:
        if option is None:
            rows.append((name, *[""] * 7, "does not keep the objectives"))
            continue
        factor = amount(option, answer.objective) / amount(answer.best or option, answer.objective)
        rows.append(
            (
                name,
                said(amount(option, answer.objective) / scale),
                f"{factor:.3g} x",
                f"{option.chips:,}",
                said(option.power_w / 1e3),
                "unknown" if math.isnan(option.usd_per_s) else said(option.usd_per_s * 3600),
                _ms(option.ttft_s),
                _ms(option.tpot_s),
                option.describe(),
            )
        )
    return Grid(
        title=f"against each system alone: {unit}, lower is better",
        columns=("", unit, "over best", "chips", "kW", "USD/h", "TTFT", "TPOT", "replicas"),
        rows=tuple(rows), right=frozenset(range(1, 8)),
    )  # fmt: skip


def _choices(answer: MixedPlanAnswer) -> Grid:
    """The best of each way to share the work."""
    unit, scale = _UNITS[answer.objective]
    rows = tuple(
        (
            WAYS[each.mode],
            said(amount(each, answer.objective) / scale),
            f"{each.chips:,}",
            _ms(each.ttft_s),
            _ms(each.tpot_s),
            each.describe() + ("" if not is_pure(each) else f" on {each.system_id}"),
        )
        for each in answer.choices[:_SHOWN]
    )
    return Grid(
        title=f"ways to share the work, best first ({len(answer.choices)} keep the objectives)",
        columns=("way", unit, "chips", "TTFT", "TPOT", "replicas"), rows=rows, right=frozenset({1, 2, 3, 4}),
    )  # fmt: skip


def _crossover(answer: MixedPlanAnswer, segments: tuple[Segment, ...]) -> Grid:
    first, second = (each.system.id for each in answer.question.pools)
    rows = tuple(
        (
            _interval(each),
            "mixed" if not is_pure(each.deployment) else f"{each.deployment.system_id} alone",
            f"{each.chips[0]:,.0f} + {each.chips[1]:,.0f}",
            each.deployment.describe(),
        )
        for each in segments
    )
    return Grid(
        title=f"crossover: what is cheapest, by the price of a chip of {second} over one of {first}",
        columns=("price ratio", "cheapest", "chips rented", "replicas"), rows=rows, right=frozenset({2}),
    )  # fmt: skip


def _interval(segment: Segment) -> str:
    low, high = f"{segment.low:.3g}", f"{segment.high:.3g}"
    if segment.low <= 0:
        return f"below {high}" if math.isfinite(segment.high) else "any"
    return f"above {low}" if not math.isfinite(segment.high) else f"{low} to {high}"


def _readings(answer: MixedPlanAnswer) -> Grid:
    """How the answer moves with the ranges of announced figures."""
    rows = []
    for each in answer.readings:
        best = each.best
        rows.append(
            (
                each.name,
                "nothing keeps the objectives" if best is None else best.describe(),
                "" if best is None else said(amount(best, answer.objective) / _UNITS[answer.objective][1]),
                f"{each.gain:.3g} x" if math.isfinite(each.gain) else "",
                _mixed_interval(each),
            )
        )
    return Grid(
        title="how it moves with the ranges of announced figures",
        columns=("reading", "best", _UNITS[answer.objective][0], "gain over pure", "mixed is cheapest at price ratios"),
        rows=tuple(rows), right=frozenset({2, 3}),
    )  # fmt: skip


def _mixed_interval(reading: Reading) -> str:
    mixed = [each for each in reading.segments if not is_pure(each.deployment)]
    if not mixed:
        return "never" if reading.segments else ""
    high = mixed[-1].high
    return f"{mixed[0].low:.3g} to {high:.3g}" if math.isfinite(high) else f"above {mixed[0].low:.3g}"


def _searched(answer: MixedPlanAnswer) -> Lines:
    lines = tuple(f"{count:>9,}  {reason}" for reason, count in list(answer.rejected.items())[:_REASONS])
    title = f"{answer.num_candidates:,} layouts of a replica, {answer.num_points:,} steady states, "
    title += f"{answer.num_deployments:,} deployments"
    return Lines(title=title + ("; layouts that can't run:" if lines else ""), lines=lines)


def mixed_plan_json(answer: MixedPlanAnswer) -> dict[str, Any]:
    """A planning answer about joined systems as JSON objects."""
    question = answer.question
    plan = question.plan
    return {
        "verb": "plan serve",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": plan.serving.seed,
        "question": question_json(plan.serving)
        | {
            "pools": [{"system": each.system.id, "units": each.units or None} for each in question.pools],
            "fabrics": list(question.fabrics),
            "precisions": list(plan.precisions),
            "objective": plan.objective,
            "modes": list(question.modes),
            "max_chips": plan.max_chips,
            "offer": plan.offer,
            "transfer_dtype": question.transfer_dtype,
        },
        "model": answer.model.id,
        "hypothetical": any(each.system.hypothetical for each in question.pools)
        or any(each.hypothetical for each in answer.joins),
        "objective": answer.objective,
        "joins": [join_json(each) for each in answer.joins],
        "feasible": answer.best is not None,
        "best": answer.best and deployment_json(answer.best),
        "nearest": answer.nearest and deployment_json(answer.nearest),
        "gain_over_pure": answer.gain,
        "choices": [deployment_json(each) for each in answer.choices],
        "readings": [_reading_json(each) for each in answer.readings],
        "prices_usd_per_chip_hour": {name: price * 3600 for name, price in answer.prices.items()},
        "notes": list(answer.notes),
        "search": {
            "num_candidates": answer.num_candidates,
            "num_points": answer.num_points,
            "num_deployments": answer.num_deployments,
            "rejected": answer.rejected,
        },
    }


def _reading_json(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.name,
        "best": reading.best and deployment_json(reading.best),
        "pure": {name: option and deployment_json(option) for name, option in reading.pure},
        "gain_over_pure": reading.gain,
        "by_price_ratio": [
            {
                "low": each.low,
                "high": each.high,
                "chips": list(each.chips),
                "is_pure": is_pure(each.deployment),
                "deployment": each.deployment.describe(),
            }
            for each in reading.segments
        ],
    }
