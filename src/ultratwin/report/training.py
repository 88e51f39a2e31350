"""A training answer as blocks for the terminal."""

from __future__ import annotations

import math

from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.run import Run
from ultratwin.planning.search import Found
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion
from ultratwin.planning.uncertainty import Range
from ultratwin.report.explanation import Explanation
from ultratwin.report.metrics import METRICS, Metric, cost_metrics, count_said, said
from ultratwin.report.tables import Bars, Block, Grid, Lines, Pairs, Title
from ultratwin.report.tree import Node

_RUNNERS_UP = 5
_REASONS = 6
_SMALLEST_SHARE = 0.001


def training_blocks(question: TrainingQuestion, answer: TrainingAnswer, reasons: Explanation) -> list[Block]:
    """Title, result, breakdown, memory, spread and search of an answer; or why nothing can run."""
    blocks: list[Block] = [_title(question, answer)]
    if answer.run is None:
        blocks += _refusal(answer)
    else:
        blocks.append(_result(answer.run))
        if reasons.step is not None:
            blocks.append(_breakdown(reasons.step))
        if reasons.memory is not None:
            blocks.append(_memory(answer, reasons.memory))
        if answer.run.spread:
            blocks.append(_spread(answer.run))
    if answer.found is not None:
        blocks += _search(answer.found)
    return blocks


def _title(question: TrainingQuestion, answer: TrainingAnswer) -> Title:
    count = count_said(answer.num_parameters)
    if answer.num_active_parameters != answer.num_parameters:
        count += f", {count_said(answer.num_active_parameters)} active"
    system = answer.system.name + (" (hypothetical)" if answer.system.hypothetical else "")
    tokens = count_said(answer.tokens) + " tokens" + ("" if question.tokens else " (20 per parameter)")
    lines = [
        f"{answer.chips:,} chips of {system}",
        f"{tokens} in {answer.precision}, as {answer.profile.id} trains, region {question.region}",
    ]
    if answer.plan is not None:
        plan = answer.plan
        chosen = "given" if answer.found is None else "fastest found"
        lines.append(
            f"layout ({chosen}): {plan.describe()}, sequences of {int(plan.seq_length):,}"
            + (f", {SCHEDULE_NAMES[int(plan.schedule)]}" if int(plan.pipeline_parallel_size) > 1 else "")
        )
    lines += [f"note: {each}" for each in answer.model.notes]
    return Title(text=f"{answer.model.id} ({count} parameters)", lines=tuple(lines))


def _result(run: Run) -> Pairs:
    metrics = (*METRICS, *cost_metrics(run))
    rows = [run_said(metric, metric.read(run)) for metric in metrics]
    rows.insert(1, ("steps", f"{run.num_steps:,}", ""))
    if not run.cost_usd:
        rows.append(("cost", "no public price", "give yours with --price-per-chip-hour"))
    return Pairs(title="result: expected (90 % range)", rows=tuple(rows))


def run_said(metric: Metric, value: Range) -> tuple[str, str, str]:
    low, expected, high = (each / metric.scale for each in (value.low, value.expected, value.high))
    if metric.unit == "USD":
        return metric.label, f"${count_said(expected)}", f"({count_said(low)} to {count_said(high)})"
    unit = "" if metric.unit == metric.label else f" {metric.unit}"
    return metric.label, said(expected) + unit, f"({said(low)} to {said(high)})"


def _breakdown(step: Node) -> Bars:
    rows = []
    for group in step.children:
        for node in group.children or (group,):
            if node.share_frac >= _SMALLEST_SHARE:
                rows.append((node.name, seconds_of(node.value), node.share_frac, node.bound_by))
    rows.sort(key=lambda row: -row[2])
    return Bars(title="where a step's time goes", rows=tuple(rows))


def seconds_of(value: float) -> str:
    return f"{said(value)} s" if value >= 0.1 else f"{said(value * 1e3)} ms"


def _memory(answer: TrainingAnswer, memory: Node) -> Bars:
    capacity = answer.memory_capacity_bytes
    rows = [(node.name, _gib(node.value), node.value / capacity, "") for node in memory.children]
    rows.append(("in all", _gib(memory.value), memory.value / capacity, f"of {_gib(capacity)}"))
    holder = "chip" if answer.system.pool.ranks_per_chip == 1 else "rank"
    return Bars(title=f"memory of the fullest {holder}, against its capacity", rows=tuple(rows))


def _gib(size_bytes: float) -> str:
    return f"{said(size_bytes / 2**30)} GiB"


def _spread(run: Run) -> Bars:
    rows = tuple((name, "", share, "") for name, share in run.spread if share >= 0.005)
    return Bars(title="what the range of the duration comes from", rows=rows)


def _search(found: Found) -> list[Block]:
    blocks: list[Block] = []
    if len(found.plans) > 1:
        best = found.step_s[0]
        others = list(zip(found.plans, found.step_s, found.memory_bytes, strict=True))[1 : 1 + _RUNNERS_UP]
        rows = tuple(
            (plan.describe(), seconds_of(step), f"+{step / best - 1:.1%}", _gib(held)) for plan, step, held in others
        )
        blocks.append(
            Grid(
                title="runners-up",
                columns=("layout", "step", "slower", "memory"),
                rows=rows,
                right=frozenset({1, 2, 3}),
            )
        )
    counts = list(found.rejected.items())
    rest = sum(count for _, count in counts[_REASONS:])
    lines = [f"{count:>11,}  {reason}" for reason, count in counts[:_REASONS]]
    if rest:
        lines.append(f"{rest:>11,}  other reasons")
    title = f"{found.num_candidates:,} layouts evaluated, {found.num_feasible:,} can run"
    blocks.append(Lines(title=title + (", the others:" if lines else ""), lines=tuple(lines)))
    return blocks


def _refusal(answer: TrainingAnswer) -> list[Block]:
    rejected = answer.rejected
    if rejected is None:
        return []
    lines = [rejected.reason]
    if rejected.unit:
        lines.append(f"needs {said(rejected.needed)} {rejected.unit}, has {said(rejected.available)} {rejected.unit}")
    found = answer.found
    if found is not None and math.isfinite(found.least_memory_bytes) and not rejected.unit:
        lines.append(
            f"the leanest layout needs {_gib(found.least_memory_bytes)} per rank, "
            f"which has {_gib(answer.memory_capacity_bytes)}"
        )
    return [
        Lines(title="nothing can run", lines=tuple(lines)),
        Lines(title="what may help", lines=_advice(answer)),
    ]


def _advice(answer: TrainingAnswer) -> tuple[str, ...]:
    memory = "memory" in (answer.rejected.reason if answer.rejected else "")
    if answer.found is None:
        first = "leave out the layout (--tensor-parallel-size, ...): all layouts are then tried"
        return (first, "--zero-stage 2 or 3, --recompute full, or more chips") if memory else (first,)
    if memory:
        return ("more chips with --chips, or a system with more memory per chip", "leave out the axes that are given")
    return ("another --global-batch-size or --chips: sizes must divide", "leave out the axes that are given")
