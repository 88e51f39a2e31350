"""The few kinds of iteration that a steady state is made of: their seconds and joules."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np

from ultratwin.hardware.chip import Array, Number
from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.serving.mix import (
    BatchLimits,
    Load,
    Speculation,
)
from ultratwin.planning.serving.power import iteration_joules, replica_power_w
from ultratwin.timing.serving import ServingSetting
from ultratwin.timing.serving.iteration import (
    decode_attention_s,
    head_s,
    prefill_attention_s,
    token_parts,
)

_Sizes = TypeVar("_Sizes", ServingPlan, Load, BatchLimits)
NO_DRAFTS: Final = Speculation()


class Split(Protocol):
    """Part of each iteration on chips of their own: experts apart from attention, a draft apart from its target."""

    def nodes(
        self, served: Served, plan: ServingPlan, load: Array, decoding: Array, chunk: Array
    ) -> tuple[Array, Array]:
        """As `iteration_nodes`, of both sides together."""

    def idle_w(self) -> Array:
        """Watts of the other side while it waits, [candidate]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is the same for all candidates of a question: the setting, what is asked for, drafts, what is elsewhere."""

    setting: ServingSetting
    load: Load
    speculation: Speculation = NO_DRAFTS
    split: Split | None = None


def iteration_nodes(
    served: Served, plan: ServingPlan, load: Array, decoding: Array, chunk: Array
) -> tuple[Array, Array]:
    """Seconds and joules of some iterations on the device, [node, candidate], in one call for all nodes.

    Args:
        load: prompt tokens; decoding: sequences that decode, [node, candidate]
        chunk: prompt tokens of one request in an iteration, [candidate]
    """
    if served.split is not None:
        return served.split.nodes(served, plan, load, decoding, chunk)
    setting, drafts = served.setting, served.speculation
    parts = node_parts(served, plan, load, decoding, chunk)
    if drafts.num_tokens:
        parts["draft"] = np.where(decoding > 0, draft_s(setting, plan, decoding.max(axis=0), drafts), 0.0)
    watts = replica_power_w(setting.pool, plan)
    seconds: Array = np.asarray(sum(parts.values()))
    return seconds, iteration_joules(parts, watts, load + drafts.computed * decoding)


def node_parts(served: Served, plan: ServingPlan, load: Array, decoding: Array, chunk: Array) -> dict[str, Array]:
    """Seconds of some iterations on the device by cause, drafts left out, [node, candidate]."""
    setting, drafts = served.setting, served.speculation
    nodes, count = load.shape
    tokens = load + drafts.computed * decoding
    wide = repeated(plan, nodes, count)
    with np.errstate(divide="ignore", invalid="ignore"):  # chips without a scale-up link have no rate to divide by
        by_tokens = token_parts(setting, wide, tokens.ravel())
    parts = {name: np.broadcast_to(value, (nodes * count,)).reshape(nodes, count) for name, value in by_tokens.items()}
    chunks = load / np.maximum(chunk, 1.0)
    most = decoding.max(axis=0)
    context = np.asarray(served.load.decode_context)
    attend = decode_attention_s(setting, plan, most, context)
    parts["attention, decoding"] = np.where(decoding > 0, attend, 0.0)
    before = served.load.cached_tokens + 0.5 * np.maximum(served.load.new_tokens - chunk, 0.0)
    parts["attention, prompts"] = chunks * prefill_attention_s(setting, plan, chunk, before)
    samples = decoding * drafts.computed + load / np.maximum(served.load.new_tokens, 1.0)
    parts["output head"] = np.reshape(head_s(setting, wide, samples.ravel()), (nodes, count))
    return parts


def draft_s(setting: ServingSetting, plan: ServingPlan, sequences: Number, speculation: Speculation) -> Number:
    """Time of a draft by a head of one layer, as MTP and EAGLE have: its layer and the output head, token by token.

    Equation: k (pass / layers + head)
    Args: sequences: that decode; speculation: k
    Valid: heads on the model's own hidden states; a draft model of its own costs more
    """
    layer = np.asarray(sum(token_parts(setting, plan, sequences).values())) / setting.model.num_layers
    drafted: Number = speculation.num_tokens * (layer + head_s(setting, plan, sequences))
    return drafted


def repeated(value: _Sizes, times: int, count: int) -> _Sizes:
    """Arrays [candidate] of a dataclass as [times x candidate]; plain numbers stay."""
    changed = {}
    for each in dataclasses.fields(value):
        found = getattr(value, each.name)
        if np.ndim(found) and np.size(found) > 1:
            changed[each.name] = np.tile(np.broadcast_to(found, (count,)), times)
    return dataclasses.replace(value, **changed) if changed else value
