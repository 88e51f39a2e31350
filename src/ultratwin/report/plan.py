"""A planning answer as blocks for the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.mapping.plan import RECOMPUTE
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.plan_training import (
    ChipRange,
    Choice,
    Option,
    PlanAnswer,
    PlanQuestion,
    ranked_choices,
)
from ultratwin.planning.run import SECONDS_PER_DAY
from ultratwin.planning.shortlist import WITHIN_FRAC, Flatness
from ultratwin.planning.uncertainty import Range
from ultratwin.report.comparison import ranking_blocks, ranking_json
from ultratwin.report.json import plan_json
from ultratwin.report.metrics import count_said, said
from ultratwin.report.tables import Bars, Block, Grid, Lines, Title

_MWH: Final = 3.6e9
_TONNE: Final = 1000.0
_SHOWN: Final = 12
_REASONS: Final = 6
_AXES: Final = {
    "tensor_parallel_size": "TP", "pipeline_parallel_size": "PP", "virtual_pipeline_size": "VP",
    "context_parallel_size": "CP", "expert_parallel_size": "EP", "expert_tensor_parallel_size": "ETP",
    "data_parallel_size": "DP", "zero_stage": "ZeRO", "micro_batch_size": "MBS", "recompute": "recompute",
    "schedule": "schedule",
}  # fmt: skip


def plan_blocks(answer: PlanAnswer) -> list[Block]:
    """Title, systems side by side, the best one's sizes, the front, how flat the optimum is, and what was searched."""
    blocks: list[Block] = [_title(answer)]
    if answer.best is None:
        blocks.append(_nothing(answer))
    blocks += [_systems(answer), _layouts(answer)]
    blocks += ranking_blocks(answer.ranking, _ranked_names(answer))
    if answer.best is not None and answer.best.option is not None:
        blocks.append(_sizes(answer, answer.best))
        blocks.append(_flat(answer.size_of(answer.best.option).flatness))
    if answer.front:
        blocks.append(_front(answer))
    blocks.append(_searched(answer))
    if answer.refused:
        blocks.append(Lines(title="not tried", lines=answer.refused))
    return blocks


def _ranked_names(answer: PlanAnswer) -> list[str]:
    return [each.system.id for each in ranked_choices(answer.choices)]


def _title(answer: PlanAnswer) -> Title:
    question = answer.question
    limits = []
    if math.isfinite(question.deadline_s):
        limits.append(f"within {said(question.deadline_s / SECONDS_PER_DAY)} days")
    if math.isfinite(question.budget_usd):
        limits.append(f"for at most ${count_said(question.budget_usd)}")
    goal = " and ".join(question.objectives)
    tokens = f"{count_said(answer.tokens)} tokens in {', '.join(question.precisions)}"
    lines = [f"{tokens}; least {goal}" + "".join(f", {each}" for each in limits)]
    if answer.best is not None and answer.best.option is not None:
        best = answer.best.option
        lines.append(f"best: {best.chips:,} chips of {answer.best.system.name}, {best.plan.describe()}")
    return Title(text=f"plan to train {answer.model.id}", lines=tuple(lines))


def _nothing(answer: PlanAnswer) -> Lines:
    question, nearest = answer.question, answer.nearest
    if nearest is None:
        reason = next(iter(answer.rejected), "no size was tried")
        return Lines(title="nothing can run", lines=(f"most often: {reason}",))
    if answer.unpriced:
        what = "no system asked for has a public price: give yours with --price SYSTEM=USD (per chip and hour)"
        return Lines(title="no cost is known", lines=(what,))
    lines = [f"nearest: {_said_option(nearest)}"]
    everything = [option for size in answer.sizes for option in size.options]
    if math.isfinite(question.deadline_s):
        fastest = min(everything, key=lambda each: each.key("time"))
        in_time = [each for each in everything if each.duration_s <= question.deadline_s]
        lines.append(f"fastest: {_said_option(fastest)}")
        if in_time:
            lines.append(f"cheapest within the deadline: {_said_option(min(in_time, key=lambda o: o.key('cost')))}")
    if math.isfinite(question.budget_usd):
        lines.append(f"cheapest: {_said_option(min(everything, key=lambda each: each.key('cost')))}")
    return Lines(title="nothing meets what was asked", lines=tuple(lines))


def _said_option(option: Option) -> str:
    cost = "no known price" if math.isnan(option.cost_usd) else f"${count_said(option.cost_usd)}"
    days = f"{said(option.duration_s / SECONDS_PER_DAY)} days"
    return f"{option.chips:,} chips of {option.system_id}, {days}, {cost}, {option.plan.describe()}"


def _systems(answer: PlanAnswer) -> Grid:
    return Grid(
        title="the best of each system, best first: expected (90 % range)",
        columns=("system", "chips", "days", "cost, USD", "MWh", "t CO2", "MFU"),
        rows=tuple(_system_row(answer, choice) for choice in answer.choices),
        right=frozenset(range(1, 7)),
    )


def _system_row(answer: PlanAnswer, choice: Choice) -> tuple[str, ...]:
    option, run = choice.option, choice.answer.run if choice.answer else None
    if option is None or run is None:
        return (choice.system.id, "none runs", "", "", "", "", "")
    cost = run.cost_usd.get(choice.price)
    return (
        choice.system.id,
        f"{option.chips:,}",
        _ranged(run.duration_s, SECONDS_PER_DAY),
        "unknown" if cost is None else f"{count_said(cost.expected)} ({count_said(cost.low)}-{count_said(cost.high)})",
        _ranged(run.energy_j, _MWH),
        said(run.carbon_kg.expected / _TONNE),
        f"{run.mfu.expected:.1%}",
    )


def _layouts(answer: PlanAnswer) -> Grid:
    """What stands behind each row: price, layout, and what is wrong with it."""
    several = len(answer.question.precisions) > 1
    rows = []
    for choice in answer.choices:
        if choice.option is None:
            rows.append((choice.system.id, "", "", _why_nothing(answer, choice)))
            continue
        layout = choice.option.plan.describe() + (f", {choice.option.precision}" if several else "")
        remarks = [_break_even(answer, choice), _verdict(answer, choice)]
        price = choice.price.replace("_", " ") or "none public"
        rows.append((choice.system.id, price, layout, "; ".join(each for each in remarks if each)))
    return Grid(title="what they rest on", columns=("system", "price", "layout", "remarks"), rows=tuple(rows))


def _why_nothing(answer: PlanAnswer, choice: Choice) -> str:
    """The commonest reason at the system's largest size."""
    sizes = [each for each in answer.sizes if each.system_id == choice.system.id]
    return next(iter(sizes[-1].rejected), "no layout divides its chips") if sizes else "it has no size in the range"


def _break_even(answer: PlanAnswer, choice: Choice) -> str:
    """Which price would make a system without one as cheap as the best that has one."""
    best = answer.best.option if answer.best else None
    option = choice.option
    if option is None or best is None or math.isnan(best.cost_usd) or not math.isnan(option.cost_usd):
        return ""
    return f"as cheap as the best at {said(best.cost_usd / option.chip_hours)} USD per chip-hour"


def _verdict(answer: PlanAnswer, choice: Choice) -> str:
    option, question = choice.option, answer.question
    if choice.meets or option is None:
        return ""
    faults = ["too slow"] if option.duration_s > question.deadline_s else []
    if math.isfinite(question.budget_usd) and option.value("cost") > question.budget_usd:
        faults += [] if math.isnan(option.cost_usd) else ["too dear"]
    return ", ".join(faults)


def _ranged(value: Range, scale: float) -> str:
    return f"{said(value.expected / scale)} ({said(value.low / scale)}-{said(value.high / scale)})"


def _sizes(answer: PlanAnswer, best: Choice) -> Bars:
    """The best system at each size: how its time and cost move."""
    goal = answer.question.objectives[0]
    rows = []
    sizes = [each for each in answer.sizes if each.system_id == best.system.id and each.options]
    bests = [min(each.options, key=lambda option: option.key(goal)) for each in sizes]
    most = max(each.duration_s for each in bests)
    for option in bests:
        cost = "" if math.isnan(option.cost_usd) else f"${count_said(option.cost_usd)}, "
        layout = option.plan.describe() + ("   <- best" if best.option and option.chips == best.option.chips else "")
        energy = f"{said(option.energy_j / _MWH)} MWh, "
        days = f"{said(option.duration_s / SECONDS_PER_DAY)} days"
        rows.append((f"{option.chips:,} chips", days, option.duration_s / most, f"{cost}{energy}{layout}"))
    return Bars(title=f"sizes of {best.system.id}", rows=tuple(rows))


def _flat(flatness: Flatness) -> Lines:
    shared = [
        f"{label} {_value(axis, flatness.shared[axis])}" for axis, label in _AXES.items() if axis in flatness.shared
    ]
    lines = [f"all share: {', '.join(shared)}"] if shared else []
    for axis, label in _AXES.items():
        values = flatness.values[axis]
        if len(values) > 1:
            lines.append(f"{label} is any of {', '.join(_value(axis, each) for each in values)}")
    title = f"how flat the optimum is: {flatness.num_plans:,} layouts of that size within {WITHIN_FRAC:.0%} of the best"
    return Lines(title=title, lines=tuple(lines))


def _value(axis: str, value: int) -> str:
    names = {"recompute": RECOMPUTE, "schedule": SCHEDULE_NAMES}
    return names[axis][value] if axis in names else str(value)


def _front(answer: PlanAnswer) -> Grid:
    objectives = answer.question.objectives
    what = " and ".join(objectives) if len(objectives) > 1 else "time, cost, energy, chips and free memory at once"
    shown = _spread_out(answer.front, _SHOWN)
    rows = tuple(
        (
            f"{option.chips:,} x {option.system_id}",
            said(option.duration_s / SECONDS_PER_DAY),
            "" if math.isnan(option.cost_usd) else count_said(option.cost_usd),
            said(option.energy_j / _MWH),
            f"{option.headroom_frac:.0%}",
            option.plan.describe(),
        )
        for option in shown
    )
    count = f"{len(answer.front)} options" + (f", {len(shown)} of them" if len(shown) < len(answer.front) else "")
    return Grid(
        title=f"front: what nothing beats in {what} ({count})",
        columns=("chips", "days", "cost, USD", "MWh", "free memory", "layout"),
        rows=rows,
        right=frozenset({1, 2, 3, 4}),
    )


def _spread_out(options: tuple[Option, ...], count: int) -> list[Option]:
    """At most so many, evenly from the first to the last."""
    if len(options) <= count:
        return list(options)
    return [options[round(at * (len(options) - 1) / (count - 1))] for at in range(count)]


def _searched(answer: PlanAnswer) -> Lines:
    counts = list(answer.rejected.items())
    lines = [f"{count:>13,}  {reason}" for reason, count in counts[:_REASONS]]
    rest = sum(count for _, count in counts[_REASONS:])
    if rest:
        lines.append(f"{rest:>13,}  other reasons")
    title = f"{answer.num_candidates:,} layouts of {len(answer.sizes)} sizes evaluated, {answer.num_feasible:,} can run"
    return Lines(title=title + (", the others:" if lines else ""), lines=tuple(lines))


def plan_answer_json(answer: PlanAnswer) -> dict[str, Any]:
    """A planning answer as JSON objects."""
    return {
        "verb": "plan train",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": answer.question.training.seed,
        "question": _question_json(answer.question),
        "model": answer.model.id,
        "tokens": answer.tokens,
        "feasible": answer.best is not None,
        "best": answer.best and answer.best.option and _option_json(answer.best.option),
        "nearest": answer.nearest and _option_json(answer.nearest),
        "systems": [_choice_json(each) for each in answer.choices],
        "ranking": ranking_json(answer.ranking, _ranked_names(answer)),
        "front": [_option_json(each) for each in answer.front],
        "sizes": [
            {
                "system": size.system_id,
                "chips": size.chips,
                "precision": size.precision,
                "num_candidates": size.num_candidates,
                "num_feasible": size.num_feasible,
                "least_memory_bytes": size.least_memory_bytes,
                "within": {"frac": WITHIN_FRAC, "num_plans": size.flatness.num_plans, "shared": _shared(size.flatness)},
                "fastest": _option_json(size.options[0]) if size.options else None,
            }
            for size in answer.sizes
        ],
        "search": {
            "num_candidates": answer.num_candidates,
            "num_feasible": answer.num_feasible,
            "rejected": answer.rejected,
        },
        "refused": list(answer.refused),
    }


def _shared(flatness: Flatness) -> dict[str, str | int]:
    return {
        axis: _value(axis, value) if axis in ("recompute", "schedule") else value
        for axis, value in flatness.shared.items()
    }


def _question_json(question: PlanQuestion) -> dict[str, Any]:
    chips = question.chips
    training = question.training
    return {
        "systems": [str(getattr(each, "id", each)) for each in question.systems],
        "chips": dataclasses.asdict(chips) if isinstance(chips, ChipRange) else list(chips),
        "precisions": list(question.precisions),
        "objectives": list(question.objectives),
        "deadline_s": question.deadline_s,
        "budget_usd": question.budget_usd,
        "offer": question.offer,
        "prices_usd_per_chip_hour": {name: price * 3600 for name, price in question.prices_usd_per_chip_s.items()},
        "framework": training.framework,
        "seq_length": training.seq_length,
        "global_batch_size": training.global_batch_size,
        "layout": dict(sorted(training.layout.items())),
        "region": training.region,
    }


def _option_json(option: Option) -> dict[str, Any]:
    return {
        "system": option.system_id,
        "chips": option.chips,
        "precision": option.precision,
        "plan": plan_json(option.plan),
        "step_time_s": option.candidate.step_s,
        "duration_s": option.duration_s,
        "cost_usd": option.cost_usd,
        "energy_j": option.energy_j,
        "carbon_kg": option.carbon_kg,
        "memory_bytes": option.candidate.memory_bytes,
        "headroom_frac": option.headroom_frac,
    }


def _choice_json(choice: Choice) -> dict[str, Any]:
    run = choice.answer.run if choice.answer else None
    return {
        "system": choice.system.id,
        "hypothetical": choice.system.hypothetical,
        "meets": choice.meets,
        "price": choice.price or None,
        "option": choice.option and _option_json(choice.option),
        "ranges": run
        and {
            "duration_s": run.duration_s,
            "cost_usd": run.cost_usd.get(choice.price),
            "energy_j": run.energy_j,
            "carbon_kg": run.carbon_kg,
            "mfu": run.mfu,
        },
    }
