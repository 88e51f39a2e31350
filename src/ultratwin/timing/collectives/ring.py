"""Ring: every rank passes chunks to its neighbour; all links busy all the time, latency grows with the ranks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import (
    NUM_PASSES,
    Algorithm,
    Group,
    Leg,
    Network,
    choose,
    scale_up_bytes_per_s,
)


class Ring(Algorithm):
    """Flat ring over all ranks; between domains it crosses r network adapters at once, one ring for each.

    Equation: k = p (n-1), w = (p (n-1) + own) S/n, p = 2 for all-reduce, 1 for all-gather and reduce-scatter;
              across domains k = p (N-1) network steps, w over B_up and w/r over B_out, whichever takes longer
    Source: bandwidth term: nccl-tests doc/PERFORMANCE.md; steps: Patarasuk and Yuan, JPDC 69 (2009)
    """

    name: ClassVar[str] = "ring"
    operations: ClassVar[frozenset[str]] = frozenset(NUM_PASSES) | {"broadcast"}

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        up, out = network.profile.scale_up.pipes["ring"], network.profile.scale_out.pipes["ring"]
        ranks, domains, n = group.ranks_per_domain, group.num_domains, group.num_ranks
        passes = NUM_PASSES.get(operation, 1.0)
        chunk_bytes = group.size_bytes / n
        hops = n if operation == "broadcast" else passes * (n - 1.0)
        wire_bytes = hops * chunk_bytes
        up_s = (wire_bytes + up.own_frac * chunk_bytes) / scale_up_bytes_per_s(ranks, network)

        def between() -> Number:
            nics = np.minimum(ranks, network.profile.scale_up.max_nics_per_domain)
            out_s = wire_bytes / (nics * network.scale_out_bytes_per_s)
            # the slower of the two legs sets the pace of the one pipeline; a rank alone in its domain has no inner leg
            leg = Leg(up_s * np.minimum(ranks - 1.0, 1.0), up.bulk_frac)
            hops_s = (passes * up.step_s) * (n - domains)
            return out.time_s(passes * (domains - 1.0), out_s, chunk_bytes, leg) + hops_s

        return choose(group, lambda: up.time_s(passes * (n - 1.0), up_s, chunk_bytes), between)
