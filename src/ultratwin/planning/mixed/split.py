"""Iterations that two kinds of chips share: experts apart from attention, a draft apart from its target.

Two half batches alternate: while one is on the first side, the other is on the second.

    t = max(2 a, 2 b, a + b + x)     a, b: seconds of half a batch on either side; x: of what goes between for it

which is the longer side, and what of the transfers does not fit under it; or, where it is shorter (small batches read
the same weights either way), the whole batch on one side after the other.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import Final, Self, final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import DTYPE_BYTES, Array
from ultratwin.hardware.mix import Join
from ultratwin.mapping.serving import ServingPlan
from ultratwin.mapping.serving_formats import on_chip
from ultratwin.planning.serving.nodes import Served, draft_s, node_parts
from ultratwin.planning.serving.power import iteration_joules, replica_power_w
from ultratwin.planning.serving.transfer import reaches
from ultratwin.timing.collectives.expert_parallel import token_bytes
from ultratwin.timing.serving import ServingSetting
from ultratwin.timing.serving.iteration import expert_width, token_parts
from ultratwin.timing.transfer import transfer_time_s
from ultratwin.workload.model import Mlp, Model, Moe

_TOKEN_ID_BYTES: Final = 4.0


def without_experts(model: Model) -> Model:
    """What stays with attention: all but the routed experts (shared ones, and layers without experts, stay)."""
    layers = tuple(
        dataclasses.replace(layer, mlp=Mlp(intermediate_size=layer.mlp.shared_intermediate_size, gated=layer.mlp.gated))
        if isinstance(layer.mlp, Moe)
        else layer
        for layer in model.layers
    )
    return dataclasses.replace(model, layers=layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSided(ABC):
    """An iteration whose other side is elsewhere. `setting`, `plan`: of that side, [candidate].

    links: pairs of chips that send to each other; joins: what they send over; pair_chips: of both sides, [candidate]
    """

    setting: ServingSetting
    plan: ServingPlan
    joins: tuple[Join, ...]
    links: Array
    pair_chips: Array

    @property
    @abstractmethod
    def cause(self) -> str:
        """What the other side's seconds go to, as in serving_power.ACTIVITY."""

    @abstractmethod
    def other_s(self, served: Served, load: Array, decoding: Array) -> Array:
        """Seconds on the other side, [node, candidate]."""

    @abstractmethod
    def between_s(self, served: Served, load: Array, decoding: Array) -> Array:
        """Seconds of transfers between both sides that follow one another, [node, candidate]."""

    def idle_w(self) -> Array:
        """Watts of the other side while it waits, [candidate]."""
        return np.asarray(replica_power_w(self.setting.pool, self.plan)["idle_frac"])

    def nodes(
        self, served: Served, plan: ServingPlan, load: Array, decoding: Array, chunk: Array
    ) -> tuple[Array, Array]:
        """Seconds and joules of some iterations, [node, candidate]."""
        there = self.wide(load.shape[1])
        half = there.sides(served, plan, 0.5 * load, 0.5 * decoding, chunk)
        whole = there.sides(served, plan, load, decoding, chunk)
        alternating = np.maximum(2.0 * np.maximum(half.own_s, half.other_s), half.own_s + half.other_s + half.between_s)
        in_turn = whole.own_s + whole.other_s + whole.between_s
        twice = alternating < in_turn
        seconds = np.where(twice, alternating, in_turn)
        parts = {name: np.where(twice, 2.0 * half.parts[name], value) for name, value in whole.parts.items()}
        elsewhere = np.where(twice, 2.0 * half.other_s, whole.other_s)
        tokens = load + served.speculation.computed * decoding
        own_w, other_w = replica_power_w(served.setting.pool, plan), replica_power_w(self.setting.pool, there.plan)
        joules = iteration_joules(parts, own_w, tokens) + iteration_joules({self.cause: elsewhere}, other_w, tokens)
        # a side draws idle power while the other one works, or the wire
        with np.errstate(invalid="ignore"):
            waits = (seconds - sum(parts.values())) * own_w["idle_frac"]
            return seconds, joules + waits + (seconds - elsewhere) * other_w["idle_frac"]

    def sides(self, served: Served, plan: ServingPlan, load: Array, decoding: Array, chunk: Array) -> Sides:
        """Both sides' seconds of one batch that is on one after the other."""
        parts = node_parts(dataclasses.replace(served, split=None), plan, load, decoding, chunk)
        return Sides(
            parts=parts,
            own_s=np.asarray(sum(parts.values())),
            other_s=self.other_s(served, load, decoding),
            between_s=self.between_s(served, load, decoding),
        )

    def wide(self, count: int) -> Self:
        """For `count` candidates: those of each load in the order of the plans."""
        plan = ServingPlan(
            **{each.name: np.resize(getattr(self.plan, each.name), count) for each in dataclasses.fields(self.plan)}
        )
        return dataclasses.replace(
            self, plan=plan, links=np.resize(self.links, count), pair_chips=np.resize(self.pair_chips, count)
        )

    def some(self, at: NDArray[np.int64]) -> Self:
        """Some of the candidates, in that order."""
        plan = ServingPlan(
            **{
                each.name: value[at] if (value := np.asarray(getattr(self.plan, each.name))).ndim else value
                for each in dataclasses.fields(self.plan)
            }
        )
        return dataclasses.replace(self, plan=plan, links=self.links[at], pair_chips=self.pair_chips[at])

    def message_s(self, size_bytes: Array) -> Array:
        """One message of so many bytes from side to side; infinite where nothing reaches."""
        moved: Array = np.full(np.shape(size_bytes), np.inf)
        for join in reversed(self.joins):
            reached = reaches(join, self.joins, self.pair_chips, self.pair_chips)
            moved = np.where(reached, transfer_time_s(join, size_bytes, self.links), moved)
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """One batch: seconds on the first side by cause and together, on the other, and between them, [node, candidate]."""

    parts: dict[str, Array]
    own_s: Array
    other_s: Array
    between_s: Array


@final
class ExpertsApart(TwoSided):
    """Attention and all that is dense on one side, routed experts on the other, spread over all of its ranks.

    Equation: each token goes to e (1 - (1 - 1/e)^k) of e ranks, quantised as the experts compute, and back in BF16
    Symbols: k experts of a token
    Source: attention-expert disaggregation, MegaScale-Infer (arXiv 2504.02263) and Step-3 (arXiv 2507.19427)
    """

    @property
    def cause(self) -> str:
        return "experts"

    def other_s(self, served: Served, load: Array, decoding: Array) -> Array:
        tokens = load + served.speculation.computed * decoding
        plan = ServingPlan(
            **{each.name: np.tile(getattr(self.plan, each.name), len(load)) for each in dataclasses.fields(self.plan)}
        )
        with np.errstate(divide="ignore", invalid="ignore"):  # chips without a scale-up link: no part of the experts
            parts = token_parts(self.setting, plan, tokens.ravel())
        return np.reshape(parts["experts"], tokens.shape)

    def between_s(self, served: Served, load: Array, decoding: Array) -> Array:
        tokens = load + served.speculation.computed * decoding
        model, total = self.setting.model, np.zeros(())
        compute = on_chip(self.setting.formats, self.setting.pool.chip).compute
        ranks = np.asarray(self.plan.num_ranks, dtype=np.float64)
        for layer, count in Counter(layer.mlp for layer in model.layers).items():
            if not isinstance(layer, Moe):
                continue
            copies = tokens * ranks * (1.0 - (1.0 - 1.0 / ranks) ** layer.experts_per_token)
            width = expert_width(layer, model)
            there, back = (self.message_s(copies * token_bytes(width, dtype)) for dtype in (compute, "bf16"))
            total = total + count * (there + back)
        return np.where(tokens > 0, total, 0.0)


@final
class DraftApart(TwoSided):
    """The target on one side, a draft head of one layer on the other.

    Hidden states of the accepted tokens go to the draft, its tokens come back.
    """

    @property
    def cause(self) -> str:
        return "draft"

    def other_s(self, served: Served, load: Array, decoding: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            drafted = draft_s(self.setting, self.plan, decoding.max(axis=0), served.speculation)
        return np.where(decoding > 0, drafted, 0.0)

    def between_s(self, served: Served, load: Array, decoding: Array) -> Array:
        hidden = self.setting.model.hidden_size * DTYPE_BYTES[self.setting.formats.high]
        there = self.message_s(decoding * served.speculation.accepted * hidden)
        back = self.message_s(decoding * served.speculation.num_tokens * _TOKEN_ID_BYTES)
        return np.where(decoding > 0, there + back, 0.0)
