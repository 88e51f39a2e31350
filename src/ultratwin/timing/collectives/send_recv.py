"""Send and receive: one rank to one other, as between pipeline stages."""

from __future__ import annotations

from typing import ClassVar

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import Algorithm, Group, Network, choose, scale_up_bytes_per_s


class SendRecv(Algorithm):
    """Point to point; over the network adapter of the sending chip where the pair is in different domains.

    Equation: k = 1, w = S
    Source: nccl-tests doc/PERFORMANCE.md (factor 1)
    """

    name: ClassVar[str] = "send_recv"
    operations: ClassVar[frozenset[str]] = frozenset({"send_recv"})

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        up, out = network.profile.scale_up.pipes["send_recv"], network.profile.scale_out.pipes["send_recv"]
        size = group.size_bytes

        def between() -> Number:
            return out.time_s(1.0, size / network.scale_out_bytes_per_s, size)

        return choose(group, lambda: up.time_s(1.0, size / scale_up_bytes_per_s(2.0, network), size), between)
