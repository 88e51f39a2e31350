"""An answer of `ultratwin diffuse` as blocks for the terminal, as text that explains it, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.serving_formats import on_chip
from ultratwin.planning.diffusion.question import DiffusionAnswer, DiffusionQuestion, VideoChoice
from ultratwin.planning.power.chip import activity_files
from ultratwin.planning.run import OFFERS
from ultratwin.planning.uncertainty import Range
from ultratwin.report.figures import Figure, figure
from ultratwin.report.metrics import count_said, said
from ultratwin.report.tables import Bars, Block, Grid, Lines, Pairs, Title
from ultratwin.report.tree import Leaf, Node, grown
from ultratwin.units import format_si
from ultratwin.workload.parameters import parameter_count

_MOST_ROWS: Final = 16
_CHIP_FIGURES: Final = ("memory_bytes", "usable_memory_bytes", "memory_bytes_per_s", "num_cores", "l2_bytes", "tdp_w")
_SYSTEM_FIGURES: Final = (
    "num_chips", "domain_size", "scale_up_bytes_per_s", "scale_up_latency_s", "scale_out_bytes_per_s",
    "scale_out_latency_s", "host_power_w", "network_power_w",
)  # fmt: skip
_ENGINE_FIGURES: Final = (
    "gemm_factor", "attention_factor", "collective_factor", "stream_frac", "spread_frac", "memory_utilization_frac",
)  # fmt: skip


def diffusion_blocks(question: DiffusionQuestion, answer: DiffusionAnswer) -> list[Block]:
    """Title, what comes out, speed against chips, where a step's time goes, memory; or why nothing can run."""
    blocks: list[Block] = [_title(answer)]
    if answer.best is None or answer.outcome is None:
        return [*blocks, *_refusal(answer), _memory(answer)]
    blocks += [_result(question, answer), _front(answer), *_step(answer), _memory(answer)]
    rows = tuple((name, "", share, "") for name, share in answer.outcome.spread if share >= 0.005)
    return [*blocks, Bars(title="what the range comes from", rows=rows)] if rows else blocks


def _title(answer: DiffusionAnswer) -> Title:
    model, demand = answer.setting.model, answer.demand
    count = count_said(parameter_count(model.transformer) + model.other_parameters)
    system = answer.system.name + (" (hypothetical)" if answer.system.hypothetical else "")
    size = f"{demand.width} x {demand.height} at {model.frames_per_s:g} frames a second"
    denoised, seen = answer.tokens.denoised, answer.tokens.seen
    if demand.chunk_frames:
        what = (
            f"a stream of {size}, {demand.chunk_frames} frames at a time: {denoised:,.0f} tokens that see {seen:,.0f}"
        )
    else:
        what = f"a clip of {demand.frames} frames of {size}: {denoised:,.0f} tokens, each of which sees all"
    cache = " and one for the keys and values of what follows" if demand.chunk_frames else ""
    passes = f"{model.passes} passes" if model.passes > 1 else "one pass"
    steps = f"{model.steps} denoising steps{cache}, {passes} of the model each"
    lines = (what, f"{steps}; {answer.setting.formats.name} weights, on {system}",
             "not counted: the text encoder, and the autoencoder that makes pixels of latents")  # fmt: skip
    return Title(text=f"diffuse {model.id} ({count} parameters)", lines=lines)


def _refusal(answer: DiffusionAnswer) -> list[Block]:
    found = answer.rejected
    needed = "" if found is None else f"{found.reason}: needs {format_si(found.needed, 'B')}"
    line = f"{needed}, may use {format_si(answer.memory_capacity_bytes, 'B')}"
    return [Lines(title="nothing can run", lines=(line, "hint: more --chips, or --precision fp8, divide it further"))]


def _range(values: Range, scale: float = 1.0) -> str:
    if values.low == values.high:
        return ""
    return f"({said(values.low * scale)} to {said(values.high * scale)})"


def _result(question: DiffusionQuestion, answer: DiffusionAnswer) -> Pairs:
    best, out, model = answer.best, answer.outcome, answer.setting.model
    if best is None or out is None:
        return Pairs(title="", rows=())
    rows = [
        ("layout", best.layout.describe(), f"{best.chips:,.0f} chips, the fastest of {answer.num_layouts:,} layouts"),
        ("one step", f"{said(out.step_s.expected * 1e3)} ms", _range(out.step_s, 1e3)),
        ("until a " + ("chunk" if answer.demand.chunk_frames else "clip") + " is made",
         f"{said(out.shown_s.expected)} s", _range(out.shown_s)),
        ("frames per second", said(out.frames_per_s.expected), _range(out.frames_per_s)),
        ("of real time", f"{out.frames_per_s.expected / model.frames_per_s:.2f} x",
         _range(out.frames_per_s, 1 / model.frames_per_s)),
        ("real time from", *_realtime(answer)),
        ("power", f"{said(out.power_w.expected / 1e3)} kW", _range(out.power_w, 1e-3)),
        ("energy per frame, with PUE", f"{said(out.energy_j_per_frame.expected)} J", _range(out.energy_j_per_frame)),
        (f"carbon per minute of video ({question.region})",
         f"{said(out.carbon_kg_per_frame.expected * _minute(answer) * 1e3)} g",
         _range(out.carbon_kg_per_frame, _minute(answer) * 1e3)),
    ]  # fmt: skip
    for offer, cost in out.cost_usd_per_frame.items():
        label = f"USD per minute of video, {offer.replace('_', ' ')}"
        rows.append((label, said(cost.expected * _minute(answer)), _range(cost, _minute(answer))))
    if not out.cost_usd_per_frame:
        rows.append(("USD per minute of video", f"no public price of {answer.system.id}", "--price-per-chip-hour"))
    return Pairs(title="the fastest: mean (90 % range)", rows=tuple(rows))


def _minute(answer: DiffusionAnswer) -> float:
    """Frames of a minute of video."""
    return 60.0 * answer.setting.model.frames_per_s


def _realtime(answer: DiffusionAnswer) -> tuple[str, str]:
    found = answer.realtime
    if found is None:
        return "no layout", "of so many chips"
    streams = math.floor(answer.system.unit_chips / found.chips)
    unit = f"; {streams:,} such videos at once on one {answer.system.id}" if streams > 1 else ""
    return f"{found.chips:,.0f} chips", f"{found.layout.describe()}{unit}"


def _front(answer: DiffusionAnswer) -> Grid:
    rows = [
        (
            f"{each.chips:,.0f}", each.layout.describe(), said(each.step_s * 1e3), said(each.shown_s),
            said(each.frames_per_s), f"{each.frames_per_s / answer.setting.model.frames_per_s:.2f}",
            f"{each.frames_per_s / each.chips / (answer.front[0].frames_per_s / answer.front[0].chips):.0%}",
        )
        for each in _thinned(answer)
    ]  # fmt: skip
    whole = "chunk, s" if answer.demand.chunk_frames else "clip, s"
    return Grid(
        title="speed of one video against chips: what nothing beats",
        columns=("chips", "layout", "step, ms", whole, "frames/s", "x real time", "per chip"),
        rows=tuple(rows), right=frozenset({0, 2, 3, 4, 5, 6}),
    )  # fmt: skip


def _thinned(answer: DiffusionAnswer) -> list[VideoChoice]:
    """At most so many rows of the front, evenly spread; its ends and the first that keeps up are among them."""
    front = answer.front
    if len(front) <= _MOST_ROWS:
        return list(front)
    kept = {round(at * (len(front) - 1) / (_MOST_ROWS - 2)) for at in range(_MOST_ROWS - 1)}
    return [each for at, each in enumerate(front) if at in kept or each is answer.realtime]


def step_tree(answer: DiffusionAnswer) -> Node:
    """Seconds of one step of the fastest layout, by cause."""
    pool = per_rank(answer.setting.pool)
    formats = on_chip(answer.setting.formats, pool.chip)
    bound = {
        "linear layers": f"matrix engine, {formats.compute}",
        "self-attention": f"matrix engine and softmax, {formats.high}",
        "attention to the text": f"matrix engine and softmax, {formats.high}",
        "norms, activations, rotary": "memory bandwidth",
    }
    wires = f"network, {pool.domain.link or 'unnamed'}"
    leaves = tuple(
        Leaf(name=name, value=value, group="compute" if name in bound else "communication",
             bound_by=bound.get(name, wires))
        for name, value in answer.parts.items()
        if value > 0
    )  # fmt: skip
    return grown("denoising step", "s", leaves)


def _step(answer: DiffusionAnswer) -> list[Block]:
    tree = step_tree(answer)
    rows = [
        (leaf.name, f"{said(leaf.value * 1e3)} ms", leaf.share_frac, leaf.bound_by)
        for _, leaf in tree.walk()
        if not leaf.children and leaf.share_frac >= 0.001
    ]
    rows.append(("physical bound", f"{said(answer.bound_s * 1e3)} ms", answer.bound_s / tree.value,
                 "FLOP over peak, bytes over bandwidth"))  # fmt: skip
    return [Bars(title=f"a denoising step: {said(tree.value * 1e3)} ms", rows=tuple(rows))]


def _memory(answer: DiffusionAnswer) -> Bars:
    total = sum(answer.memory.values())
    capacity = answer.memory_capacity_bytes
    rows = tuple(
        (name, format_si(value, "B"), value / capacity, "") for name, value in answer.memory.items() if value > 0
    )
    return Bars(title=f"memory of one rank: {format_si(total, 'B')} of {format_si(capacity, 'B')}", rows=rows)


def _chosen(prefix: str, facts: Mapping[str, Fact], names: Iterable[str]) -> list[Figure]:
    return [figure(f"{prefix}/{name}", facts[name]) for name in names if name in facts]


def diffusion_figures(question: DiffusionQuestion, answer: DiffusionAnswer) -> tuple[Figure, ...]:
    """Every figure of chip, system, power, region and price that an answer was computed from."""
    system, chip = answer.system, answer.system.pool.chip
    formats = on_chip(answer.setting.formats, chip)
    formats_used = (formats.compute, formats.high)
    rates = sorted({f"{prefix}{each}_flop_per_s" for each in formats_used for prefix in ("", "array_")})
    engine = answer.setting.engine.id
    found = _chosen(f"chips/{chip.id}", chip.facts, (*rates, *_CHIP_FIGURES))
    found += _chosen(f"systems/{system.id}", system.facts, _SYSTEM_FIGURES)
    found += _chosen(f"engines/{engine}", loader.entry("engines", engine).figures, _ENGINE_FIGURES)
    for name, power in activity_files(chip.id).items():
        found += _chosen(f"power/{name}", power, tuple(power))
    regional = loader.entry("regions", question.region).figures
    found += _chosen(f"regions/{question.region}", regional, ("pue", "carbon_kg_per_j"))
    for name in loader.ids("prices"):
        entry = loader.entry("prices", name)
        if question.price_usd_per_chip_s is None and getattr(entry, "system", "") == system.id:
            found += _chosen(f"prices/{name}", entry.figures, OFFERS)
    return tuple(found)


def diffusion_explanation(question: DiffusionQuestion, answer: DiffusionAnswer) -> str:
    """Where a step's time goes, and every figure used, with its source."""
    lines = []
    if answer.best is not None:
        lines = ["time of one denoising step"]
        for depth, node in step_tree(answer).walk():
            bound = f"  [{node.bound_by}]" if node.bound_by else ""
            lines.append(f"{'  ' * (depth + 1)}{node.name}: {node.value:.6g} s, {node.share_frac:.1%}{bound}")
        lines.append("")
    lines.append("figures used: value (low to high) [status] source")
    return "\n".join([*lines, *(f"  {each}" for each in diffusion_figures(question, answer))])


def diffusion_json(question: DiffusionQuestion, answer: DiffusionAnswer) -> dict[str, Any]:
    """The answer as JSON objects: what was asked, with what, and everything that came out."""
    return {
        "verb": "diffuse",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": question.seed,
        "question": {
            "demand": dataclasses.asdict(answer.demand), "chips": question.chips, "sizes": dict(question.sizes),
            "precision": question.precision, "region": question.region,
            "price_usd_per_chip_s": question.price_usd_per_chip_s,
        },
        "model": {
            "id": answer.setting.model.id, "steps": answer.setting.model.steps, "passes": answer.setting.model.passes,
            "num_parameters": parameter_count(answer.setting.model.transformer)
            + answer.setting.model.other_parameters,
        },
        "system": {"id": answer.system.id, "name": answer.system.name, "hypothetical": answer.system.hypothetical},
        "tokens": dataclasses.asdict(answer.tokens),
        "shown_frames": answer.shown_frames,
        "feasible": answer.best is not None,
        "rejected": None if answer.rejected is None else dataclasses.asdict(answer.rejected),
        "best": answer.best and dataclasses.asdict(answer.best),
        "realtime": answer.realtime and dataclasses.asdict(answer.realtime),
        "result": answer.outcome and dataclasses.asdict(answer.outcome),
        "front": [dataclasses.asdict(each) for each in answer.front],
        "step": None if answer.best is None else step_tree(answer).as_dict(),
        "step_bound_s": answer.bound_s,
        "memory": {"capacity_bytes": answer.memory_capacity_bytes, "rank": answer.memory},
        "num_layouts": answer.num_layouts,
        "inputs": [each.as_dict() for each in diffusion_figures(question, answer)],
    }  # fmt: skip
