"""Handing a prompt's keys and values from the replica that computed them to one that decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import DTYPE_BYTES, Array, Number
from ultratwin.hardware.mix import OWN, Join
from ultratwin.mapping.serving import ServingPlan, kv_rank_bytes
from ultratwin.mapping.serving_formats import ServingFormats, serving_formats
from ultratwin.planning.serving.mix import Load
from ultratwin.timing.serving import ServingSetting
from ultratwin.timing.transfer import conversion_time_s, transfer_time_s
from ultratwin.workload.model import Model

_WHOLE = ServingPlan()


@dataclass(frozen=True, slots=True, kw_only=True)
class KvWire:
    """What one prompt's keys and values are: where computed, on the wire, where they decode [byte]; and the formats."""

    sent_bytes: Number
    wire_bytes: Number
    received_bytes: Number
    formats: tuple[str, str, str]

    @property
    def packs(self) -> bool:
        """Whether the sender converts before it sends."""
        return self.formats[0] != self.formats[1]

    @property
    def unpacks(self) -> bool:
        """Whether the receiver converts what it got."""
        return self.formats[1] != self.formats[2]


def kv_wire(model: Model, sent: ServingFormats, received: ServingFormats, prompt: Number, asked: str = "") -> KvWire:
    """Formats and bytes of a prompt's keys and values on their way; the smaller format travels unless one is asked for.

    Raises: ScenarioError for a format on the wire that neither side keeps
    """
    kinds = (sent.kv, received.kv)
    if asked and asked not in kinds:
        raise ScenarioError(f"keys and values can't travel as {asked}", allowed=" or ".join(dict.fromkeys(kinds)))
    wire = asked or min(kinds, key=lambda each: DTYPE_BYTES[each])
    size = [
        kv_rank_bytes(model, serving_formats("bf16", each), _WHOLE, prompt) for each in (sent.kv, wire, received.kv)
    ]
    return KvWire(sent_bytes=size[0], wire_bytes=size[1], received_bytes=size[2], formats=(sent.kv, wire, received.kv))


def hand_over_s(
    sides: tuple[ServingSetting, ServingSetting], load: Load, chips: tuple[Array, Array], total_chips: Array,
    joins: Sequence[Join], asked: str = "",
) -> Array:  # fmt: skip
    """Seconds that the keys and values of a prompt take from a prefill replica to a decode replica.

    Equation: (S + W)/(n B_mem) where the sender converts + wire time of W over the smaller side's chips
        + (W + R)/(n B_mem) where the receiver converts
    Args:
        sides: of the prefill and the decode replica; chips: of one replica each, [candidate]
        total_chips: of all replicas, which decide whether a system's own domain holds them
        joins: the fastest first; the first that reaches from one to the other is taken
    Returns: seconds, infinite where nothing reaches, [candidate]
    """
    wire = kv_wire(sides[0].model, sides[0].formats, sides[1].formats, load.prompt_tokens, asked)
    links = np.minimum(chips[0], chips[1])
    moved: Array = np.full(np.shape(links), np.inf)
    for join in reversed(joins):
        moved = np.where(
            reaches(join, joins, chips[0] + chips[1], total_chips), transfer_time_s(join, wire.wire_bytes, links), moved
        )
    if wire.packs:
        rate = chips[0] * np.asarray(sides[0].pool.chip.memory_bytes_per_s)
        moved = moved + conversion_time_s(wire.sent_bytes, wire.wire_bytes, rate)
    if wire.unpacks:
        rate = chips[1] * np.asarray(sides[1].pool.chip.memory_bytes_per_s)
        moved = moved + conversion_time_s(wire.wire_bytes, wire.received_bytes, rate)
    return moved


def engine_hand_over_s(sides: Sequence[ServingSetting]) -> Array:
    """Seconds that a request waits beside the wire, for router, handshake and polling: of the slower side's engine."""
    return np.asarray(np.maximum.reduce([np.asarray(each.engine.handover_s, dtype=np.float64) for each in sides]))


def reaches(join: Join, joins: Sequence[Join], pair_chips: Array, total_chips: Array) -> Array:
    """Where a join connects both replicas: always between domains; inside one where it holds them.

    A system's own domain must hold all replicas, as they are placed without regard to each other; a domain that two
    kinds share is made for the pair. A system without a network has nothing but its domain.
    """
    if join.kind == "scale-out" or (join.fabric == OWN and len(joins) == 1):
        return np.ones(np.shape(pair_chips), dtype=bool)
    return np.asarray((total_chips if join.fabric == OWN else pair_chips) <= join.domain_chips)


def queued_s(transfer_s: Array, rates: Sequence[Array]) -> Array:
    """The transfer and the wait for the one before it on the busier replica's link; infinite where it never empties.

    Equation: t + u t / (2 (1 - u)), u = r t
    Args: rates: transfers per second of one replica of each side [1/s]
    Source: Pollaczek and Khinchine's mean wait of M/D/1
    """
    use = np.maximum(*(np.where(np.isfinite(transfer_s), rate * transfer_s, 2.0) for rate in rates))
    waited = use * transfer_s / (2.0 * np.maximum(1.0 - use, 1e-12))
    return np.where(use < 1.0, transfer_s + waited, np.inf)
