"""A serving answer as blocks for the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.serving.answer import ServingAnswer
from ultratwin.planning.serving.choice import predicted_s
from ultratwin.planning.serving.question import ServingQuestion
from ultratwin.planning.serving.request_times import statistics
from ultratwin.planning.serving.slo import Slos, verdicts
from ultratwin.planning.uncertainty import Range
from ultratwin.report.metrics import count_said, said
from ultratwin.report.metrics.serving import REQUEST_METRICS, RUN_METRICS, ServingRun
from ultratwin.report.serving_trees import ServingExplanation
from ultratwin.report.tables import Bars, Block, Grid, Lines, Pairs, Title
from ultratwin.report.tree import Node

_SMALLEST_SHARE: Final = 0.001
_REASONS: Final = 6
_PERCENTILES: Final = (50.0, 90.0, 99.0)


def serving_blocks(question: ServingQuestion, answer: ServingAnswer, reasons: ServingExplanation) -> list[Block]:
    """Title, what users feel, breakdown, memory and spread of an answer; or why nothing can run."""
    blocks: list[Block] = [_title(question, answer)]
    if answer.point is None or answer.ranges is None:
        return [*blocks, *_refusal(answer), *_memory(answer), *_searched(answer)]
    if answer.overloaded or (answer.simulated is not None and answer.simulated.overloaded):
        blocks.append(_overload(question, answer))
    blocks.append(_felt(answer))
    if answer.simulated is not None:
        blocks += _simulated(question, answer)
    elif question.slos:
        blocks.append(_objectives(question, answer))
    blocks += _breakdown(answer, reasons)
    blocks += _memory(answer)
    if answer.ranges.spread:
        rows = tuple((name, "", share, "") for name, share in answer.ranges.spread if share >= 0.005)
        blocks.append(Bars(title="what the range comes from", rows=rows))
    return [*blocks, *_searched(answer)]


def _title(question: ServingQuestion, answer: ServingAnswer) -> Title:
    count = count_said(answer.num_parameters)
    if answer.num_active_parameters != answer.num_parameters:
        count += f", {count_said(answer.num_active_parameters)} active"
    system = answer.system.name + (" (hypothetical)" if answer.system.hypothetical else "")
    formats, engine = answer.setting.formats, answer.setting.engine
    lines = [f"{answer.chips:,} chips of {system}"] if answer.chips else [system]
    if answer.plan is not None:
        chosen = "given" if answer.plans is None else "chosen"
        replicas = f"{answer.replicas} replicas of " if answer.replicas > 1 else ""
        lines.append(f"layout ({chosen}): {replicas}{answer.plan.describe() or 'one rank'}, as {engine.id} serves")
    lines += [f"{formats.name} weights, {formats.kv} KV cache; {load_said(question, answer)}"]
    lines += [f"note: {each}" for each in answer.model.notes]
    if answer.simulated is not None:
        lines += [f"note: {each}" for each in answer.simulated.notes]
    return Title(text=f"serve {answer.model.id} ({count} parameters)", lines=tuple(lines))


def load_said(question: ServingQuestion, answer: ServingAnswer) -> str:
    """The load in words."""
    demand, load = question.demand, answer.load
    lengths = f"prompts of {float(np.ravel(load.prompt_tokens)[0]):,.0f}"
    lengths += f" and answers of {float(np.ravel(load.output_tokens)[0]):,.0f} tokens"
    if demand.concurrency is not None:
        return f"{lengths}, {demand.concurrency:,} requests under way"
    if demand.request_rate is not None and math.isfinite(demand.request_rate):
        return f"{lengths}, {said(demand.request_rate)} requests a second"
    if demand.trace is not None:
        return f"{lengths} on average, at the times of {demand.trace.name}"
    return f"{lengths}, as many at once as can run"


def _overload(question: ServingQuestion, answer: ServingAnswer) -> Lines:
    rate = answer.sustainable_rate
    if answer.simulated is not None and answer.simulated.overloaded and not answer.overloaded:
        rate = answer.simulated.sustainable_rate
    asked = question.demand.request_rate
    offered = f"{said(asked)} requests a second are offered; " if asked is not None and math.isfinite(asked) else ""
    lines = [f"{offered}{said(rate)} can be served: waiting times grow without end"]
    if asked is not None and math.isfinite(asked) and rate > 0:
        lines.append(f"{math.ceil(asked / rate * answer.replicas * 1.02):,} replicas would serve them (--replicas)")
    return Lines(title="more is offered than can be served", lines=tuple(lines))


def _felt(answer: ServingAnswer) -> Pairs:
    ranges, point = answer.ranges, answer.point
    if ranges is None or point is None:
        return Pairs(title="", rows=())
    n, chips = float(answer.replicas), float(answer.chips)
    rows = [
        _ranged("TTFT", ranges.ttft_s, 1e-3, " ms"),
        _ranged("TPOT", ranges.tpot_s, 1e-3, " ms"),
        _ranged("tokens per second and user", _inverse(ranges.tpot_s), 1.0, ""),
        _ranged("end to end", ranges.e2e_s, 1.0, " s"),
        _ranged("requests per second", ranges.request_rate, 1.0 / n, ""),
        _ranged("output tokens per second", ranges.output_tokens_per_s, 1.0 / n, ""),
        _ranged("output tokens per second and chip", ranges.output_tokens_per_s, chips / n, ""),
        ("sequences that decode at once", said(float(point.decoding[0])), "of each replica" if n > 1 else ""),
        _ranged("power", ranges.power_w, 1e3 / n, " kW"),
        _ranged("energy per output token, with PUE", ranges.energy_j_per_token, 1.0, " J"),
    ]
    for offer, cost in ranges.cost_usd_per_mtoken.items():
        label = f"USD per million output tokens, {offer.replace('_', ' ')}"
        rows.append(_ranged(label, cost, 1.0, ""))
    if not ranges.cost_usd_per_mtoken:
        rows.append(("cost", "no public price", "give yours with --price-per-chip-hour"))
    return Pairs(title="steady state: mean (90 % range)", rows=tuple(rows))


def _inverse(value: Range) -> Range:
    def over(each: float) -> float:
        return 1.0 / each if each > 0 else math.inf

    return Range(low=over(value.high), expected=over(value.expected), high=over(value.low))


def _ranged(label: str, value: Range, scale: float, unit: str) -> tuple[str, str, str]:
    low, expected, high = (_number(each / scale) for each in (value.low, value.expected, value.high))
    return label, expected + unit, f"({low} to {high})"


def _number(value: float) -> str:
    return said(value) if math.isfinite(value) else "endless"


def serving_run(question: ServingQuestion, answer: ServingAnswer) -> ServingRun | None:
    """The simulated run as its metrics read it; None where none was simulated."""
    found = answer.simulated
    if found is None:
        return None
    _, price = answer.prices.first()
    return ServingRun(
        times=found.times,
        duration_s=found.duration_s,
        num_chips=max(answer.chips, 1),
        energy_j=found.energy_j,
        usd_per_chip_hour=None if math.isnan(price) else price * 3600,
        slos=question.slos,
    )


def _simulated(question: ServingQuestion, answer: ServingAnswer) -> list[Block]:
    run, found = serving_run(question, answer), answer.simulated
    if run is None or found is None:
        return []
    rows = []
    for metric in REQUEST_METRICS:
        values = statistics(metric.read(run), _PERCENTILES)
        cells = [values.mean, *(values.percentiles[each] for each in _PERCENTILES)]
        rows.append((f"{metric.label}, {metric.unit}", *(said(each / metric.scale) for each in cells)))
    title = f"simulated: {len(found.times):,} requests in {said(found.duration_s)} s"
    if found.num_rejected:
        title += f", {found.num_rejected:,} rejected (longer than the model or the KV cache takes)"
    grid = Grid(title=title, columns=("", "mean", "p50", "p90", "p99"), rows=tuple(rows), right=frozenset({1, 2, 3, 4}))
    values_ = [(metric, metric.read(run)) for metric in RUN_METRICS]
    whole = tuple(
        (metric.label, f"{said(value / metric.scale)} {metric.unit}".strip(), "")
        for metric, value in values_
        if value is not None
    )
    blocks: list[Block] = [grid, Pairs(title="of the whole run", rows=whole)]
    preempted = int(found.outcome.num_preemptions.sum())
    if preempted:
        blocks.append(Lines(title="the KV cache ran out", lines=(f"{preempted:,} preemptions, computed again later",)))
    if question.slos:
        kept = tuple(
            (
                str(each.slo),
                _milliseconds(each.value_s),
                f"{each.share:.1%} of requests",
                "kept" if each.is_kept else "missed",
            )
            for each in verdicts(question.slos, found.times)
        )
        blocks.append(Grid(title="objectives", columns=("objective", "value", "share", ""), rows=kept))
    return blocks


def _objectives(question: ServingQuestion, answer: ServingAnswer) -> Grid:
    rows = tuple(
        (str(slo), _milliseconds(value), "kept" if value <= slo.limit_s else "missed")
        for slo, value in _predicted(question.slos, answer)
    )
    return Grid(title="objectives, in closed form", columns=("objective", "value", ""), rows=rows)


def _predicted(slos: Slos, answer: ServingAnswer) -> list[tuple[Any, float]]:
    if answer.point is None:
        return []
    return [
        (slo, float(np.ravel(predicted_s(answer.point, slo, answer.load, slos.attainment))[0])) for slo in slos.each
    ]


def _milliseconds(value: float) -> str:
    return f"{said(value * 1e3)} ms" if math.isfinite(value) else "endless"


def _breakdown(answer: ServingAnswer, reasons: ServingExplanation) -> list[Block]:
    found = answer.iterations
    if found is None or reasons.decode is None or reasons.prefill is None or answer.point is None:
        return []
    running, chunk = float(answer.point.decoding[0]), float(np.ravel(answer.point.mix.chunk)[0])
    return [
        _bars(f"an iteration that decodes {said(running)} sequences", reasons.decode, found.decode_bound_s),
        _bars(f"an iteration with {said(chunk)} tokens of a prompt", reasons.prefill, found.prefill_bound_s),
    ]


def _bars(title: str, tree: Node, bound_s: float) -> Bars:
    rows = [
        (node.name, f"{said(node.value * 1e3)} ms", node.share_frac, node.bound_by)
        for group in tree.children
        for node in group.children or (group,)
        if node.share_frac >= _SMALLEST_SHARE
    ]
    rows.sort(key=lambda row: -row[2])
    rows.append(
        ("physical bound", f"{said(bound_s * 1e3)} ms", bound_s / tree.value, "FLOP over peak, bytes over bandwidth")
    )
    return Bars(title=f"{title}: {said(tree.value * 1e3)} ms", rows=tuple(rows))


def _memory(answer: ServingAnswer) -> list[Block]:
    memory = answer.memory
    if memory is None:
        return []
    capacity = memory.capacity_bytes
    rows = [(name, _gib(held), held / capacity, "") for name, held in memory.parts.items()]
    if memory.kv_tokens:
        name, held, share, _ = rows[-1]
        rows[-1] = (name, held, share, f"{count_said(memory.kv_tokens)} tokens in a replica")
    total = sum(memory.parts.values())
    rows.append(("in all", _gib(total), total / capacity, f"of {_gib(capacity)}"))
    holder = "chip" if answer.system.pool.ranks_per_chip == 1 else "rank"
    return [Bars(title=f"memory of the fullest {holder}, against its capacity", rows=tuple(rows))]


def _gib(size_bytes: float) -> str:
    return f"{said(size_bytes / 2**30)} GiB"


def _refusal(answer: ServingAnswer) -> list[Block]:
    rejected = answer.rejected
    if rejected is None:
        return []
    lines = [rejected.reason]
    if rejected.unit:
        lines.append(f"needs {said(rejected.needed)} {rejected.unit}, has {said(rejected.available)} {rejected.unit}")
    help_ = ("a larger --tensor-parallel-size, or a format of fewer bytes such as --precision fp8",)
    if rejected.unit == "tokens":
        help_ = ("shorter --isl or --osl, or a model of longer context",)
    return [Lines(title="nothing can run", lines=tuple(lines)), Lines(title="what may help", lines=help_)]


def _searched(answer: ServingAnswer) -> list[Block]:
    plans = answer.plans
    if plans is None:
        return []
    counts = list(plans.rejected.items())
    lines = [f"{count:>9,}  {reason}" for reason, count in counts[:_REASONS]]
    title = f"{plans.num_candidates:,} layouts of a replica looked at, {len(plans.num_ranks):,} can run"
    return [Lines(title=title + (", the others:" if lines else ""), lines=tuple(lines))]


def serving_json(question: ServingQuestion, answer: ServingAnswer, reasons: ServingExplanation) -> dict[str, Any]:
    """A serving answer as JSON objects: what was asked, with what, and everything that came out."""
    ranges = answer.ranges
    return {
        "verb": "serve",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": question.seed,
        "question": question_json(question),
        "model": {
            "id": answer.model.id,
            "num_parameters": answer.num_parameters,
            "num_active_parameters": answer.num_active_parameters,
            "notes": list(answer.model.notes),
        },
        "system": {"id": answer.system.id, "name": answer.system.name, "hypothetical": answer.system.hypothetical},
        "engine": answer.setting.engine.id,
        "precision": answer.setting.formats.name,
        "kv_cache_dtype": answer.setting.formats.kv,
        "chips": answer.chips,
        "replicas": answer.replicas,
        "feasible": answer.point is not None,
        "overloaded": answer.overloaded or (answer.simulated is not None and answer.simulated.overloaded),
        "sustainable_requests_per_s": answer.sustainable_rate,
        "rejected": None if answer.rejected is None else dataclasses.asdict(answer.rejected),
        "plan": None if answer.plan is None else serving_plan_json(answer.plan),
        "limits": None if answer.limits is None else _limits_json(answer),
        "memory": None
        if answer.memory is None
        else {"capacity_bytes": answer.memory.capacity_bytes, "kv_tokens": answer.memory.kv_tokens,
              "rank": reasons.memory and reasons.memory.as_dict()},
        "result": None
        if ranges is None
        else {
            each.name: getattr(ranges, each.name)
            for each in dataclasses.fields(ranges)
            if each.name not in ("spread", "factor")
        },
        "percentiles": _percentiles_json(answer),
        "simulated": _simulated_json(question, answer),
        "iterations": None
        if answer.iterations is None
        else {
            "decode": reasons.decode and reasons.decode.as_dict(),
            "decode_bound_s": answer.iterations.decode_bound_s,
            "prefill": reasons.prefill and reasons.prefill.as_dict(),
            "prefill_bound_s": answer.iterations.prefill_bound_s,
        },
        "spread": [{"fact": name, "share_frac": share} for name, share in ranges.spread] if ranges else [],
        "search": answer.plans
        and {
            "num_candidates": answer.plans.num_candidates,
            "num_feasible": len(answer.plans.num_ranks),
            "rejected": answer.plans.rejected,
        },
        "inputs": [each.as_dict() for each in reasons.inputs.values()],
    }  # fmt: skip


def question_json(question: ServingQuestion) -> dict[str, Any]:
    """What was asked, as JSON objects."""
    found = {each.name: getattr(question, each.name) for each in dataclasses.fields(question)}
    found["model"] = str(getattr(question.model, "id", question.model))
    found["system"] = str(getattr(question.system, "id", question.system))
    found["demand"] = dataclasses.asdict(question.demand)
    if question.demand.trace is not None:
        found["demand"]["trace"] = str(question.demand.trace)
    found["sizes"] = dict(sorted(question.sizes.items()))
    found["speculation"] = dataclasses.asdict(question.speculation)
    found["slos"] = {"each": [str(each) for each in question.slos.each], "attainment": question.slos.attainment}
    return found


def serving_plan_json(plan: ServingPlan) -> dict[str, Any]:
    """A replica's plan."""
    found: dict[str, Any] = {each.name: int(getattr(plan, each.name)) for each in dataclasses.fields(plan)}
    return found | {"num_ranks": int(plan.num_ranks), "text": plan.describe()}


def _limits_json(answer: ServingAnswer) -> Mapping[str, Any]:
    limits = answer.limits
    names = ("max_num_seqs", "max_num_batched_tokens", "block_size")
    return {name: int(np.ravel(getattr(limits, name))[0]) for name in names}


def _percentiles_json(answer: ServingAnswer) -> dict[str, Any] | None:
    point = answer.point
    if point is None:
        return None
    shares = (0.5, 0.9, 0.99)
    return {
        "ttft_s": {f"p{share * 100:g}": float(point.ttft_at(share)[0]) for share in shares},
        "tpot_s": {f"p{share * 100:g}": float(point.tpot_at(share)[0]) for share in shares},
    }


def _simulated_json(question: ServingQuestion, answer: ServingAnswer) -> dict[str, Any] | None:
    run, found = serving_run(question, answer), answer.simulated
    if run is None or found is None:
        return None
    requests = {}
    for metric in REQUEST_METRICS:
        values = statistics(metric.read(run))
        requests[metric.tag] = {"mean": values.mean, "std": values.std} | {
            f"p{percent:g}": value for percent, value in values.percentiles.items()
        }
    return {
        "num_requests": len(found.times),
        "num_rejected": found.num_rejected,
        "num_preemptions": int(found.outcome.num_preemptions.sum()),
        "duration_s": found.duration_s,
        "overloaded": found.overloaded,
        "sustainable_requests_per_s": found.sustainable_rate,
        "requests": requests,
        "run": {metric.tag: metric.read(run) for metric in RUN_METRICS},
        "objectives": [
            {"objective": str(each.slo), "value_s": each.value_s, "share": each.share, "kept": each.is_kept}
            for each in verdicts(question.slos, found.times)
        ],
        "notes": list(found.notes),
    }
