"""A training answer about pools of several kinds: as blocks for the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.hardware.mix import OWN
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.mixed.training import MixedAnswer, MixedQuestion
from ultratwin.planning.mixed.training_run import MixedRun, step_seconds, step_tokens
from ultratwin.planning.mixed.training_search import PURE, MixedCandidate, side_chips
from ultratwin.planning.mixed.training_step import GROUPS, STAGES, TENSOR, WAITING
from ultratwin.planning.run import SECONDS_PER_DAY
from ultratwin.planning.training import TrainingAnswer
from ultratwin.report.explanation import Explanation, explanation
from ultratwin.report.figures import used_figures
from ultratwin.report.json import plan_json
from ultratwin.report.metrics import METRICS, cost_metrics, count_said, said
from ultratwin.report.tables import Bars, Block, Grid, Lines, Pairs, Title
from ultratwin.report.training import run_said, seconds_of
from ultratwin.units import format_seconds

WAYS: Final = {
    STAGES: "pipeline stages on each kind",
    GROUPS: "replicas on each kind",
    TENSOR: "each layer over both kinds",
    PURE: "one kind alone",
}
"""Ways to divide a job, as people say them."""
_SMALLEST_SHARE: Final = 0.001


def mixed_training_blocks(question: MixedQuestion, answer: MixedAnswer) -> list[Block]:
    """Title, result, ways to divide the job, what each kind does, what it is measured against; or why nothing runs."""
    blocks: list[Block] = [_title(question, answer)]
    best, run = answer.best, answer.run
    if best is None or run is None:
        lines = (str(answer.rejected),) if answer.rejected else ()
        blocks.append(Lines(title="nothing can run", lines=lines))
        return blocks
    blocks.append(_result(answer, best, run))
    if len(answer.mix.shares) > 1:
        blocks.append(_ways(answer))
    blocks += [_sides(answer, best), *_breakdowns(answer, best, run)]
    if answer.budgets:
        blocks.append(_measured(answer, answer.mixed or best))
    if answer.crossovers:
        blocks.append(_crossovers(answer))
    reasons = _remarks(answer, best, run)
    if reasons:
        blocks.append(Lines(title="why", lines=reasons))
    rows = tuple((name, "", share, "") for name, share in run.run.spread if share >= 0.005)
    blocks.append(Bars(title="what the range of the duration comes from", rows=rows))
    blocks.append(_searched(answer))
    return blocks


def _pool_said(answer: MixedAnswer, at: int) -> str:
    share = answer.mix.shares[at]
    assumed = " (hypothetical)" if share.system.hypothetical else ""
    return f"{share.units:,} x {share.system.name}{assumed}: {share.chips:,} chips"


def _title(question: MixedQuestion, answer: MixedAnswer) -> Title:
    count = count_said(answer.num_parameters)
    if answer.num_active_parameters != answer.num_parameters:
        count += f", {count_said(answer.num_active_parameters)} active"
    tokens = count_said(answer.tokens) + " tokens" + ("" if question.training.tokens else " (20 per parameter)")
    frameworks = ", ".join(dict.fromkeys(side.profile.id for side in answer.setting.sides))
    lines = [_pool_said(answer, at) for at in range(len(answer.mix.shares))]
    if len(answer.mix.shares) > 1:
        lines.append(_join_said(answer))
    lines.append(f"{tokens} in {answer.precision}, as {frameworks} train, region {answer.site.region}")
    lines += [f"note: {each}" for each in (*answer.mix.notes, *answer.formats, *answer.model.notes)]
    return Title(text=f"{answer.model.id} ({count} parameters)", lines=tuple(lines))


def _join_said(answer: MixedAnswer) -> str:
    join = answer.mix.join
    where = "one scale-up domain" if join.kind == "scale-up" else "one network"
    name = "their own links" if join.fabric == OWN else join.fabric
    assumed = " (hypothetical)" if join.hypothetical else ""
    speed = float(join.bytes_per_s) / 1e9
    return f"joined by {name}{assumed}: {where}, {said(speed)} GB/s per chip, {float(join.latency_s) * 1e6:.3g} us"


def _result(answer: MixedAnswer, best: MixedCandidate, mixed_run: MixedRun) -> Pairs:
    run = mixed_run.run
    rows = [run_said(metric, metric.read(run)) for metric in (*METRICS, *cost_metrics(run))]
    rows.insert(1, ("steps", f"{run.num_steps:,}", ""))
    if not run.cost_usd:
        rows.append(("cost", "no public price of every pool", "give yours with --price SYSTEM=USD"))
    good = answer.goodput
    if good is not None:
        days = said(good.duration_s / SECONDS_PER_DAY)
        often = format_seconds(good.mtbf_s)
        rows.append(("goodput", f"{good.ettr:.1%}", f"{days} days with failures, one every {often}"))
    way = WAYS[best.way]
    if best.way == PURE:
        way = f"{answer.mix.shares[best.order[0]].system.id} alone"
    return Pairs(title=f"result of the best way, {way}: expected (90 % range)", rows=tuple(rows))


def best_of_each(answer: MixedAnswer) -> list[MixedCandidate]:
    """The best layout of each way to divide the job, and of each kind alone, fastest first."""
    found = [each[0] for way, each in answer.found.best.items() if each and way != PURE]
    return sorted([*found, *answer.found.best[PURE]], key=lambda each: each.step_s)


def _way_said(answer: MixedAnswer, each: MixedCandidate) -> str:
    return f"{answer.mix.shares[each.order[0]].system.id} alone" if each.way == PURE else WAYS[each.way]


def _ways(answer: MixedAnswer) -> Grid:
    every = best_of_each(answer)
    fastest = every[0].step_s
    rows = [
        (
            _way_said(answer, each), _layout_said(answer, each), seconds_of(each.step_s),
            f"{each.step_s / fastest:.2f} x", said(_days(answer, each)), _money_said(answer, each),
            f"{said(_energy_j(answer, each) / 3.6e9)} MWh",
        )
        for each in every
    ]  # fmt: skip
    rows += [(WAYS[way], f"can't run: {why}", "", "", "", "", "") for way, why in answer.found.why.items()]
    return Grid(
        title="ways to divide the job, the best layout of each",
        columns=("way", "layout", "step", "time", "days", "cost", "energy"),
        rows=tuple(rows),
        right=frozenset({2, 3, 4, 5, 6}),
    )


def _num_steps(answer: MixedAnswer, each: MixedCandidate) -> int:
    return math.ceil(answer.tokens / step_tokens(each))


def _days(answer: MixedAnswer, each: MixedCandidate) -> float:
    return each.step_s * _num_steps(answer, each) / SECONDS_PER_DAY


def _cost_usd(answer: MixedAnswer, each: MixedCandidate) -> float:
    return answer.rate_usd_per_s(each) * each.step_s * _num_steps(answer, each)


def _money_said(answer: MixedAnswer, each: MixedCandidate) -> str:
    cost = _cost_usd(answer, each)
    return "unknown" if math.isnan(cost) else f"${count_said(cost)}"


def _energy_j(answer: MixedAnswer, each: MixedCandidate) -> float:
    pue = loader.entry("regions", answer.site.region).figures["pue"].si
    return each.energy_j * _num_steps(answer, each) * pue


def _layout_said(answer: MixedAnswer, each: MixedCandidate) -> str:
    if each.way == STAGES:
        return " -> ".join(
            f"{layers} layers on {side.pipeline_parallel_size} stage{'s' if side.pipeline_parallel_size != 1 else ''} "
            f"of {_chip(answer, at)}"
            for layers, side, at in zip(each.plan.layers, each.plan.sides, each.order, strict=True)
        )
    if each.way == GROUPS:
        return ", ".join(
            f"{_capacity_share(each, side):.0%} on {_chip(answer, at)}"
            for side, at in zip(each.plan.sides, each.order, strict=True)
        )
    return each.plan.sides[0].describe()


def _capacity_share(each: MixedCandidate, side: Plan) -> float:
    return int(side.global_batch_size) / sum(int(other.global_batch_size) for other in each.plan.sides)


def _chip(answer: MixedAnswer, at: int) -> str:
    return answer.setting.sides[at].pool.chip.name


def _sides(answer: MixedAnswer, best: MixedCandidate) -> Grid:
    """What every kind does under a layout."""
    rows = []
    chips = side_chips(answer.setting, best.way, best.order, best.plan)
    for index, at in enumerate(best.order):
        side = best.plan.sides[min(index, len(best.plan.sides) - 1)]
        layers = best.plan.layers[min(index, len(best.plan.layers) - 1)]
        capacity = float(answer.setting.sides[at].pool.chip.memory_bytes) / answer.setting.sides[at].pool.ranks_per_chip
        rows.append(
            (
                _chip(answer, at), f"{float(chips[index]):,.0f}", f"{layers}", f"{side.pipeline_parallel_size}",
                f"{side.num_micro_batches} x {side.micro_batch_size} x {side.data_parallel_size}", side.describe()
                + (f", {SCHEDULE_NAMES[int(side.schedule)]}" if int(side.pipeline_parallel_size) > 1 else ""),
                f"{said(best.memory_bytes[index] / 2**30)} of {said(capacity / 2**30)} GiB",
            )
        )  # fmt: skip
    return Grid(
        title="what each kind does",
        columns=("kind", "chips", "layers", "stages", "micro-batches x size x replicas", "layout", "memory"),
        rows=tuple(rows),
        right=frozenset({1, 2, 3}),
    )


def _breakdowns(answer: MixedAnswer, best: MixedCandidate, run: MixedRun) -> list[Block]:
    blocks: list[Block] = []
    for at, parts in zip(best.order, run.parts, strict=True):
        total = sum(parts.values())
        rows = [
            (name, seconds_of(value), value / total, "")
            for name, value in parts.items()
            if value >= _SMALLEST_SHARE * total
        ]
        rows.sort(key=lambda row: -row[2])
        blocks.append(Bars(title=f"where a step's time goes on {_chip(answer, at)}", rows=tuple(rows)))
    return blocks


def _measured(answer: MixedAnswer, mixed: MixedCandidate) -> Grid:
    """The best mix beside one kind alone: with the pool's own units, the same money per hour, the same power."""
    rows = []
    for each in answer.found.best[PURE]:
        share = answer.mix.shares[each.order[0]]
        rows.append(
            ("its own units", share.system.id, f"{share.units:,}", seconds_of(each.step_s),
             _faster(each.step_s, mixed.step_s), _ratio(each.energy_j, mixed.energy_j))
        )  # fmt: skip
    for pure in answer.budgets:
        if pure.candidate is None:
            rows.append((pure.budget, pure.system.id, f"{pure.units:,}" if pure.units else "", "", pure.why, ""))
            continue
        units = f"{pure.units:,}" + (f" (uses {pure.used_units:,})" if pure.used_units < pure.units else "")
        rows.append(
            (pure.budget, pure.system.id, units, seconds_of(pure.step_s), _faster(pure.step_s, mixed.step_s),
             _ratio(pure.energy_j, mixed.energy_j))
        )  # fmt: skip
    return Grid(
        title=f"the best mix ({seconds_of(mixed.step_s)}) against one kind alone",
        columns=("with", "system", "units", "step", "the mix is", "energy of the mix"),
        rows=tuple(rows),
        right=frozenset({2, 3}),
    )


def _faster(pure_s: float, mixed_s: float) -> str:
    change = pure_s / mixed_s - 1
    return f"{change:.1%} faster" if change >= 0 else f"{mixed_s / pure_s - 1:.1%} slower"


def _ratio(pure_j: float, mixed_j: float) -> str:
    return f"{mixed_j / pure_j - 1:+.1%}"


def _crossovers(answer: MixedAnswer) -> Lines:
    """Up to which price of the other kind the mix costs less than one kind alone."""
    lines = []
    for each in answer.crossovers:
        alone, other = _chip(answer, each.alone), _chip(answer, each.other)
        ratio, faster = each.price_ratio, each.speedup
        speed = f"{said(faster.expected)} times as fast as {alone} alone ({said(faster.low)} to {said(faster.high)})"
        if ratio.high <= 0:
            lines.append(f"{speed}, and dearer at any price of {other}")
            continue
        bounds = f"({said(max(ratio.low, 0.0))} to {said(ratio.high)})"
        lines.append(
            f"{speed}, and cheaper while a chip of {other} costs less than {said(max(ratio.expected, 0.0))} of "
            f"{alone}'s {bounds}"
        )
    return Lines(title="where the best mix pays: expected (90 % range)", lines=tuple(lines))


def _remarks(answer: MixedAnswer, best: MixedCandidate, run: MixedRun) -> tuple[str, ...]:
    """What makes dividing layers over both kinds slow, and what the best way loses."""
    found = answer.found.best
    lines = []
    if best.way in (STAGES, GROUPS):
        for at, parts in zip(best.order, run.parts, strict=True):
            if parts[WAITING] > 0.005 * best.step_s:
                lines.append(f"{_chip(answer, at)} waits {seconds_of(parts[WAITING])} of a step for the other kind")
    if found.get(TENSOR):
        tensor = found[TENSOR][0]
        seconds = step_seconds(answer.setting, tensor)
        talk = max(parts["tensor-parallel communication"] for parts in seconds)
        slow = max(range(len(seconds)), key=lambda at: seconds[at]["linear layers"])
        chips = [
            sum(float(each) for each in side_chips(answer.setting, one.way, one.order, one.plan))
            for one in (tensor, best)
        ]
        more = tensor.step_s * chips[0] / (best.step_s * chips[1])
        lines.append(
            f"each layer over both kinds takes {more:.1f} times the chip-hours: its sums go over "
            f"{answer.mix.join.fabric} ({seconds_of(talk)} of {seconds_of(tensor.step_s)}), its matrices wait for "
            f"{_chip(answer, tensor.order[slow])}, and as every group has half of its ranks on each kind, "
            f"{chips[0]:,.0f} chips find a partner"
        )
    return tuple(lines)


def _searched(answer: MixedAnswer) -> Lines:
    alone = sum(each.num_candidates for each in answer.found.pure)
    return Lines(
        title=f"{answer.found.num_plans:,} mixed plans evaluated, {answer.found.num_feasible:,} can run; "
        f"{alone:,} layouts of one kind",
        lines=(),
    )


def mixed_explanations(question: MixedQuestion, answer: MixedAnswer) -> dict[str, Explanation]:
    """Why each kind's step takes what it takes: its tree by cause, and the figures that it rests on, by system."""
    if answer.best is None or answer.run is None:
        return {}
    found = {}
    for index, at in enumerate(answer.best.order):
        share, side = answer.mix.shares[at], answer.setting.sides[at]
        asked = dataclasses.replace(
            question.training, model=answer.model, system=share.system,
            price_usd_per_chip_s=answer.site.own_price(share.system),
        )  # fmt: skip
        alone = TrainingAnswer(
            model=answer.model, system=share.system, profile=side.profile, precision=side.recipe.name,
            chips=answer.run.chips[index], tokens=answer.tokens, num_parameters=answer.num_parameters,
            num_active_parameters=answer.num_active_parameters,
            plan=answer.best.plan.sides[min(index, len(answer.best.plan.sides) - 1)],
            run=dataclasses.replace(answer.run.run, parts=answer.run.parts[index]), memory=None,
            memory_capacity_bytes=float(per_rank(side.pool).chip.memory_bytes), rejected=None, found=None,
        )  # fmt: skip
        found[share.system.id] = explanation(alone, side.recipe, used_figures(alone, asked, side.recipe))
    return found


def mixed_training_json(question: MixedQuestion, answer: MixedAnswer) -> dict[str, Any]:
    """The answer as JSON objects: what was asked, with what, and everything that came out."""
    join = answer.mix.join
    return {
        "verb": "train",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": question.training.seed,
        "model": {
            "id": answer.model.id,
            "num_parameters": answer.num_parameters,
            "num_active_parameters": answer.num_active_parameters,
            "notes": list(answer.model.notes),
        },
        "pools": [
            {"system": share.system.id, "units": share.units, "chips": share.chips,
             "hypothetical": share.system.hypothetical, "framework": side.profile.id, "formats": side.recipe.name}
            for share, side in zip(answer.mix.shares, answer.setting.sides, strict=True)
        ],
        "join": {"kind": join.kind, "fabric": join.fabric, "bytes_per_s": float(join.bytes_per_s),
                 "latency_s": float(join.latency_s), "hypothetical": join.hypothetical},
        "tokens": answer.tokens,
        "precision": answer.precision,
        "region": answer.site.region,
        "objective": question.training.objective,
        "format_notes": list(answer.formats),
        "feasible": answer.best is not None,
        "rejected": None if answer.rejected is None else dataclasses.asdict(answer.rejected),
        "best": None if answer.best is None else candidate_json(answer, answer.best),
        "result": _result_json(question, answer),
        "ways": [candidate_json(answer, each) for each in best_of_each(answer)],
        "impossible_ways": dict(answer.found.why),
        "against_one_kind": [_pure_json(answer, each) for each in answer.budgets],
        "crossovers": [
            {
                "alone": answer.mix.shares[each.alone].system.id, "other": answer.mix.shares[each.other].system.id,
                "speedup": each.speedup, "price_ratio": each.price_ratio,
            }
            for each in answer.crossovers
        ],
        "search": {
            "num_mixed_plans": answer.found.num_plans,
            "num_feasible": answer.found.num_feasible,
            "num_layouts_of_one_kind": sum(each.num_candidates for each in answer.found.pure),
        },
    }  # fmt: skip


def candidate_json(answer: MixedAnswer, each: MixedCandidate) -> dict[str, Any]:
    """One way to divide the job."""
    chips = side_chips(answer.setting, each.way, each.order, each.plan)
    sides = []
    for index, at in enumerate(each.order):
        side = each.plan.sides[min(index, len(each.plan.sides) - 1)]
        sides.append(
            {
                "system": answer.mix.shares[at].system.id, "chips": float(chips[index]),
                "layers": each.plan.layers[min(index, len(each.plan.layers) - 1)],
                "memory_bytes": each.memory_bytes[index], "plan": plan_json(side),
            }
        )  # fmt: skip
    return {
        "way": each.way, "step_time_s": each.step_s, "days": _days(answer, each), "cost_usd": _cost_usd(answer, each),
        "energy_j": _energy_j(answer, each), "global_batch_size": each.batch, "sides": sides,
    }  # fmt: skip


def _result_json(question: MixedQuestion, answer: MixedAnswer) -> dict[str, Any] | None:
    if answer.run is None or answer.best is None:
        return None
    run = answer.run.run
    found: dict[str, Any] = {metric.tag: dataclasses.asdict(metric.read(run)) for metric in METRICS}
    found["num_steps"] = run.num_steps
    found["cost_usd"] = {
        offer: dataclasses.asdict(cost) | {"note": run.cost_notes.get(offer, "")}
        for offer, cost in run.cost_usd.items()
    }
    found["goodput"] = None if answer.goodput is None else dataclasses.asdict(answer.goodput)
    found["spread"] = [{"fact": name, "share_frac": share} for name, share in run.spread]
    found["step_parts_s"] = [
        {"system": answer.mix.shares[at].system.id, "seconds": parts}
        for at, parts in zip(answer.best.order, answer.run.parts, strict=True)
    ]
    reasons = mixed_explanations(question, answer)
    found["steps"] = {system: each.step and each.step.as_dict() for system, each in reasons.items()}
    inputs = {name: figure for each in reasons.values() for name, figure in each.inputs.items()}
    found["inputs"] = [each.as_dict() for each in inputs.values()]
    return found


def _pure_json(answer: MixedAnswer, pure: Any) -> dict[str, Any]:
    plan = None if pure.candidate is None else plan_json(pure.candidate.plan)
    return {
        "budget": pure.budget, "system": pure.system.id, "units": pure.units, "used_units": pure.used_units,
        "step_time_s": pure.step_s, "energy_j": pure.energy_j, "plan": plan, "why": pure.why,
    }  # fmt: skip
