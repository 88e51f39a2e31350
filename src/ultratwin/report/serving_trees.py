"""Why a serving answer is what it is: two iterations by cause, the memory by purpose, and every figure that went in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import EngineEntry
from ultratwin.hardware.chip import DTYPE_BYTES
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.serving_formats import on_chip
from ultratwin.planning.run import OFFERS
from ultratwin.planning.serving.answer import ServingAnswer
from ultratwin.planning.serving.question import ServingQuestion
from ultratwin.planning.serving.search import num_experts
from ultratwin.report.explanation import COMMUNICATION, COMPUTE, WAITING, _tree_lines
from ultratwin.report.figures import _CHIP_FIGURES, _SYSTEM_FIGURES, Figure, _chosen, _own_price, figure
from ultratwin.report.tree import Leaf, Node, grown
from ultratwin.workload.model import Moe

_GROUPS: Final = {
    "linear layers": COMPUTE,
    "experts": COMPUTE,
    "norms, activations, rotary": COMPUTE,
    "attention, decoding": COMPUTE,
    "attention, prompts": COMPUTE,
    "output head": COMPUTE,
    "draft": COMPUTE,
    "tensor-parallel communication": COMMUNICATION,
    "expert-parallel communication": COMMUNICATION,
    "pipeline hand-over": COMMUNICATION,
    "host": WAITING,
}
_ENDS: Final = {
    "linear layers": ("_flop_per_s", "memory_bytes_per_s", "gemm_factor"),
    "experts": ("_flop_per_s", "memory_bytes_per_s", "gemm_factor", "routing_skew"),
    "norms, activations, rotary": ("memory_bytes_per_s",),
    "attention, decoding": ("memory_bytes_per_s", "attention_factor"),
    "attention, prompts": ("_flop_per_s", "attention_factor"),
    "output head": ("memory_bytes_per_s", "gemm_factor"),
    "draft": ("memory_bytes_per_s", "gemm_factor"),
    "tensor-parallel communication": ("scale_up_bytes_per_s", "scale_up_latency_s", "collective_factor"),
    "expert-parallel communication": ("scale_up_bytes_per_s", "scale_up_latency_s", "collective_factor"),
    "pipeline hand-over": ("scale_up_bytes_per_s", "scale_out_bytes_per_s", "collective_factor"),
    "host": ("host_iteration_s", "host_sequence_s"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingExplanation:
    """Trees of an answer, None where nothing runs; `inputs` holds every figure by id. `str()` of it is text."""

    decode: Node | None
    prefill: Node | None
    memory: Node | None
    inputs: dict[str, Figure]

    def as_dict(self) -> dict[str, Any]:
        """The explanation as JSON objects."""
        return {
            "decode_iteration": self.decode and self.decode.as_dict(),
            "prefill_iteration": self.prefill and self.prefill.as_dict(),
            "memory": self.memory and self.memory.as_dict(),
            "inputs": [each.as_dict() for each in self.inputs.values()],
        }

    def __str__(self) -> str:
        lines: list[str] = []
        trees = (
            ("time of an iteration that decodes", self.decode),
            ("time of a prompt's iteration", self.prefill),
            ("memory of one rank", self.memory),
        )
        for title, tree in trees:
            if tree is not None:
                lines += [title, *_tree_lines(tree), ""]
        lines.append("figures used: value (low to high) [status] source")
        lines += [f"  {each}" for each in self.inputs.values()]
        return "\n".join(lines)


def serving_explanation(question: ServingQuestion, answer: ServingAnswer) -> ServingExplanation:
    """The trees of an answer, and the figures that it rests on."""
    figures = serving_figures(question, answer)
    decode, prefill = None, None
    if answer.iterations is not None and answer.point is not None:
        running, chunk = float(np.ravel(answer.point.decoding)[0]), float(np.ravel(answer.point.mix.chunk)[0])
        decode = _iteration_tree(answer, "decoding", answer.iterations.decode, running, figures)
        prefill = _iteration_tree(answer, "prompt", answer.iterations.prefill, chunk, figures)
    memory = None
    if answer.memory is not None:
        memory = grown("memory", "B", tuple(Leaf(name=n, value=v) for n, v in answer.memory.parts.items()))
    return ServingExplanation(decode=decode, prefill=prefill, memory=memory, inputs={each.id: each for each in figures})


def _iteration_tree(
    answer: ServingAnswer, name: str, parts: dict[str, float], tokens: float, figures: tuple[Figure, ...]
) -> Node:
    leaves = tuple(
        Leaf(
            name=cause,
            value=seconds,
            group=_GROUPS.get(cause, COMPUTE),
            bound_by=_bound_by(answer, cause, tokens),
            inputs=_ending(figures, _ENDS.get(cause, ())),
        )
        for cause, seconds in parts.items()
        if seconds > 0
    )
    return grown(f"iteration, {name}", "s", leaves)


def _bound_by(answer: ServingAnswer, cause: str, tokens: float) -> str:
    """What decides the size of a part: the matrix engine above so many tokens, reading weights below."""
    pool = per_rank(answer.setting.pool)
    formats = on_chip(answer.setting.formats, pool.chip)
    if cause in ("linear layers", "output head", "draft", "experts"):
        rows = tokens
        if cause == "experts":
            moe = next(each.mlp for each in answer.model.layer_kinds() if isinstance(each.mlp, Moe))
            rows = tokens * moe.experts_per_token / num_experts(answer.model)
        stored = {"experts": formats.experts, "output head": formats.high}.get(cause, formats.weights)
        run = formats.high if cause == "output head" else formats.compute
        peak, speed = pool.chip.matmul_flop_per_s(run), pool.chip.memory_bytes_per_s
        if rows * 2.0 / float(np.ravel(peak)[0]) < DTYPE_BYTES[stored] / float(np.ravel(speed)[0]):
            return f"reading weights, {stored}"
        return f"matrix engine, {run}"
    plan = answer.plan
    across = plan is not None and int(plan.num_ranks) > pool.domain.size
    return {
        "norms, activations, rotary": "memory bandwidth",
        "attention, decoding": f"reading keys and values, {formats.kv}",
        "attention, prompts": f"matrix engine and softmax, {formats.high}",
        "tensor-parallel communication": f"scale-up network, {pool.domain.link or 'unnamed'}",
        "expert-parallel communication": f"scale-up network, {pool.domain.link or 'unnamed'}",
        "pipeline hand-over": pool.fabric.link if across else pool.domain.link or "unnamed",
        "host": f"host of {answer.setting.engine.id}",
    }.get(cause, "")


def _ending(figures: tuple[Figure, ...], ends: tuple[str, ...]) -> tuple[str, ...]:
    places = ("chips/", "systems/", "engines/")
    return tuple(
        each.id for each in figures if ends and each.id.startswith(places) and each.id.rpartition("/")[2].endswith(ends)
    )


def serving_figures(question: ServingQuestion, answer: ServingAnswer) -> tuple[Figure, ...]:
    """Every figure of chip, system, engine, power, region and price that an answer was computed from."""
    system, chip = answer.system, answer.system.pool.chip
    formats = on_chip(answer.setting.formats, chip)
    rates = sorted(
        {f"{prefix}{dtype}_flop_per_s" for dtype in (formats.compute, formats.high) for prefix in ("", "array_")}
    )
    found = _chosen(f"chips/{chip.id}", chip.facts, (*rates, *_CHIP_FIGURES))
    found += _chosen(f"systems/{system.id}", system.facts, _SYSTEM_FIGURES)
    found += _engine_figures(answer.setting.engine.id)
    power = loader.entry("power", "activity").figures
    found += _chosen("power/activity", power, tuple(power))
    region = loader.resolve("regions", question.region)
    found += _chosen(f"regions/{region}", loader.entry("regions", region).figures, ("pue", "carbon_kg_per_j"))
    if question.price_usd_per_chip_s is not None:
        found.append(_own_price(question.price_usd_per_chip_s * 3600))
        return tuple(found)
    for name in loader.ids("prices"):
        entry = loader.entry("prices", name)
        if getattr(entry, "system", "") == system.id:
            found += _chosen(f"prices/{name}", entry.figures, ("num_chips", *OFFERS))
            break
    return tuple(found)


def _engine_figures(engine_id: str) -> list[Figure]:
    """Each constant from the entry of the chain that states it, the engine's own first."""
    found: dict[str, Figure] = {}
    name = engine_id
    while name:
        entry = loader.entry("engines", name)
        for key, fact in entry.figures.items():
            found.setdefault(key, figure(f"engines/{name}/{key}", fact))
        name = entry.based_on if isinstance(entry, EngineEntry) else ""
    return list(found.values())
