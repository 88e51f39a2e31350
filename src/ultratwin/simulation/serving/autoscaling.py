"""Autoscaling by a stated rule, that of Kubernetes' horizontal pod autoscaler.

Every `every_s` the replicas wanted are the requests in the fleet over the load that one should have, rounded up. More
are started at once, from the warm spares first; fewer only after a stabilisation window in which they sufficed.
A replica that is ended takes no more requests, finishes those it has, and is paid for until then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ultratwin.errors import ScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    """Rule and limits.

    min_replicas, max_replicas: at least 1; the simulation starts with the least
    requests_per_replica: load that a replica should have, waiting and running
    every_s, stabilization_s: the rule's period, and how long fewer must be enough; Kubernetes' 15 s and 300 s
    cold_start_s: from the decision to the first request: machine, image, weights, graphs
    warm_spares: replicas that are loaded and paid for, but take no requests until they are needed
    warm_start_s: until a warm spare takes requests
    """

    min_replicas: int
    max_replicas: int
    requests_per_replica: float
    every_s: float = 15.0
    stabilization_s: float = 300.0
    cold_start_s: float = 120.0
    warm_spares: int = 0
    warm_start_s: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ScenarioError(
                f"autoscaling between {self.min_replicas} and {self.max_replicas} replicas",
                allowed="1 or more, the least not above the most",
            )
        if not 0 <= self.warm_spares <= self.max_replicas - self.min_replicas:
            raise ScenarioError(
                f"{self.warm_spares} warm spares", allowed=f"0 to {self.max_replicas - self.min_replicas}"
            )
        if self.requests_per_replica <= 0.0 or self.every_s <= 0.0:
            raise ScenarioError("requests_per_replica or every_s is not above 0", allowed="more than 0")
        if min(self.stabilization_s, self.cold_start_s, self.warm_start_s) < 0.0:
            raise ScenarioError("a time of autoscaling is negative", allowed="0 s or more")


def wanted_replicas(requests: int, per_replica: float) -> int:
    """Replicas for so many requests.

    Example:
        >>> wanted_replicas(33, 16.0)
        3
    """
    return math.ceil(requests / per_replica)
