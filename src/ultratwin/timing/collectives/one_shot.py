"""One-shot: every rank reads all buffers whole and adds them itself; one step, for small messages."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import Algorithm, Group, Network, scale_up_bytes_per_s


class OneShot(Algorithm):
    """All-reduce in one step at the price of n - 1 whole messages on the wire.

    Equation: k = 1, w = (n-1) S
    Valid: one domain; libraries with a kernel of their own for small messages
    Source: vLLM custom_all_reduce and TensorRT-LLM AllReduceStrategy ONESHOT, by name; the equation is derived
    """

    name: ClassVar[str] = "one_shot"
    operations: ClassVar[frozenset[str]] = frozenset({"all_reduce"})

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        pipes = network.profile.scale_up.pipes
        pipe = pipes.get("one_shot", pipes["ring"])
        n = group.num_ranks
        wire_s = (n - 1.0) * group.size_bytes / scale_up_bytes_per_s(group.ranks_per_domain, network)
        time = pipe.time_s(1.0 + 0.5 * (n - 2.0), wire_s, group.size_bytes)
        return np.where(group.across, np.inf, time) if group.any_across else time
