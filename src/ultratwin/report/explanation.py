"""Why an answer is what it is: the step by cause, the memory by purpose, and every figure that went in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ultratwin.hardware.system import per_rank
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.recipe import Recipe
from ultratwin.planning.training import TrainingAnswer
from ultratwin.report.figures import Figure
from ultratwin.report.metrics import said
from ultratwin.report.tree import Leaf, Node, grown
from ultratwin.timing.communication import Groups

COMPUTE: Final = "computation"
COMMUNICATION: Final = "communication that shows"
WAITING: Final = "waiting"

# part of a step -> group, axis of the plan whose network it uses, and figures that it rests on (ends of their ids)
_RATES: Final = ("_flop_per_s",)
_MEMORY: Final = ("memory_bytes_per_s",)
_PARTS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "linear layers": (COMPUTE, "matrix engine", (*_RATES, *_MEMORY, "num_cores", "clock_hz", "gemm_factor")),
    "attention": (COMPUTE, "matrix engine and softmax", (*_RATES, *_MEMORY, "attention_factor")),
    "norms, activations, casts": (COMPUTE, "memory bandwidth", (*_MEMORY, "vector_factor")),
    "recomputation": (COMPUTE, "as what is recomputed", (*_RATES, *_MEMORY)),
    "embedding, head, uneven stages": (COMPUTE, "the fullest pipeline stage", (*_RATES, *_MEMORY, "vocab_multiple")),
    "optimizer": (COMPUTE, "memory bandwidth", (*_MEMORY, "optimizer_traffic_bytes")),
    "tensor-parallel communication": (COMMUNICATION, "tensor", ("tensor_overlap_frac", "collective_factor")),
    "context-parallel communication": (COMMUNICATION, "context", ("context_overlap_frac", "collective_factor")),
    "expert-parallel communication": (COMMUNICATION, "expert", ("expert_overlap_frac", "expert_imbalance")),
    "weight sharding communication": (COMMUNICATION, "shard", ("shard_overlap_frac", "collective_factor")),
    "pipeline hand-over": (COMMUNICATION, "pipeline", ("pipeline_overlap_frac", "collective_factor")),
    "gradient synchronisation": (COMMUNICATION, "data", ("data_overlap_frac", "gradient_wire_bytes")),
    "host launches": (WAITING, "host", ("host_forward_s", "host_backward_s", "host_tensor_s", "host_micro_batch_s")),
    "pipeline bubble": (WAITING, "stages over micro-batches", ()),
    "host, per step": (WAITING, "host", ("host_step_s",)),
    "stragglers": (WAITING, "the slowest rank", ("straggler_frac",)),
}
_MEMORY_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "weights": ("parameter_bytes",),
    "gradients": ("gradient_bytes", "fp16_gradient_bytes"),
    "gradient buckets": ("bucket_copy_bytes",),
    "optimizer state": ("optimizer_bytes",),
    "activations": ("activation_factor",),
    "temporary buffers": ("logits_bytes",),
    "fragmentation": ("allocator_frac",),
    "runtime": ("context_bytes",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Two trees and what they rest on; as text, `str(explanation)`.

    `step` is None where no plan can run. `memory` is of one rank. `inputs` holds every figure by id.
    """

    step: Node | None
    memory: Node | None
    inputs: dict[str, Figure]

    def as_dict(self) -> dict[str, Any]:
        """The explanation as JSON objects."""
        return {
            "step": self.step and self.step.as_dict(),
            "memory": self.memory and self.memory.as_dict(),
            "inputs": [each.as_dict() for each in self.inputs.values()],
        }

    def __str__(self) -> str:
        lines: list[str] = []
        for title, tree in (("time of a step", self.step), ("memory of one rank", self.memory)):
            if tree is not None:
                lines += [title, *_tree_lines(tree), ""]
        lines.append("figures used: value (low to high) [status] source")
        lines += [f"  {each}" for each in self.inputs.values()]
        return "\n".join(lines)


def explanation(answer: TrainingAnswer, recipe: Recipe, figures: tuple[Figure, ...]) -> Explanation:
    """The trees of an answer.

    Args:
        answer: with a plan, or without one (then only the figures are shown)
        recipe: number formats that the plan was timed with
        figures: what the answer rests on
    """
    return Explanation(
        step=step_tree(answer, recipe, figures),
        memory=memory_tree(answer, figures),
        inputs={each.id: each for each in figures},
    )


def step_tree(answer: TrainingAnswer, recipe: Recipe, figures: tuple[Figure, ...]) -> Node | None:
    """Seconds of a step by cause; None where no plan can run."""
    if answer.run is None or answer.plan is None:
        return None
    leaves = []
    for name, value in answer.run.parts.items():
        group, bound, ends = _PARTS.get(name, ("", "", ()))
        if group == COMMUNICATION:
            bound, ends = _network_of(answer, answer.plan, bound, ends)
        elif name == "linear layers":
            bound = f"{bound}, {recipe.gemm}"
        elif name == "attention":
            bound = f"{bound}, {recipe.high}"
        leaves.append(Leaf(name=name, value=value, group=group, bound_by=bound, inputs=_ending(figures, ends)))
    return grown("step", "s", tuple(leaves))


def memory_tree(answer: TrainingAnswer, figures: tuple[Figure, ...]) -> Node | None:
    """Bytes of the fullest rank by purpose; None where no plan can run."""
    if answer.memory is None:
        return None
    leaves = tuple(
        Leaf(name=name, value=float(np.ravel(value)[0]), inputs=_ending(figures, _MEMORY_PARTS.get(name, ())))
        for name, value in answer.memory.parts.items()
    )
    return grown("memory", "B", leaves)


def _ending(figures: tuple[Figure, ...], ends: tuple[str, ...]) -> tuple[str, ...]:
    """Ids of the chip's, system's and profile's figures whose names end so."""
    places = ("chips/", "systems/", "profiles/")
    return tuple(
        each.id for each in figures if each.id.startswith(places) and each.id.rpartition("/")[2].endswith(ends) and ends
    )


def _network_of(answer: TrainingAnswer, plan: Plan, axis: str, ends: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The network that an axis of the plan goes over, and the figures of it."""
    pool = per_rank(answer.system.pool)
    shape = getattr(Groups(plan=plan, domain_size=pool.domain.size), axis)
    if float(np.ravel(shape.num_domains)[0]) > 1:
        return f"scale-out network, {pool.fabric.link or 'unnamed'}", (
            *ends,
            "scale_out_bytes_per_s",
            "scale_out_latency_s",
        )
    return f"scale-up network, {pool.domain.link or 'unnamed'}", (*ends, "scale_up_bytes_per_s", "scale_up_latency_s")


def _tree_lines(tree: Node) -> list[str]:
    lines = []
    width = max(2 * depth + len(node.name) for depth, node in tree.walk())
    for depth, node in tree.walk():
        label = "  " * depth + node.name
        line = f"  {label:<{width}}  {_amount(node):>10}  {node.share_frac:6.1%}"
        lines.append(f"{line}  {node.bound_by}".rstrip())
        if node.inputs:
            lines += _wrapped(node.inputs, "  " + "  " * (depth + 1))
    return lines


def _wrapped(inputs: tuple[str, ...], indent: str) -> list[str]:
    lines, line = [], indent + "from"
    for each in inputs:
        if len(line) + len(each) > 110:
            lines.append(line)
            line = indent + "    "
        line += " " + each
    return [*lines, line]


def _amount(node: Node) -> str:
    if node.unit == "B":
        return f"{said(node.value / 2**30)} GiB"
    return f"{said(node.value)} {node.unit}" if node.value >= 0.001 else f"{node.value * 1e6:.3g} us"
