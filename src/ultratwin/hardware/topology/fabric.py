"""A scale-out fabric: adapters on leaf switches, leaves in pods, pods on a core.

Only its shape is kept. Switches of one level that share their load evenly are one pipe: the way up out of a leaf, the
way up out of a pod, and the same ways down.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.topology.axis import Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOut(ABC):
    """Adapters of N domains with r lanes each (one lane is one chip of every domain) on switches of `switch_ports`.

    `nic_bytes_per_s`: of one chip, one direction. `leaf_oversubscription`: rate of a leaf's ports to adapters over its
    uplinks' (1 is non-blocking); `pod_oversubscription`: the same of a pod's links to leaves over those to the core.
    `pod_leaves`: leaves of a pod, where it is known; else as many as one switch of the next level has ports.
    `routing`: "spray" spreads every flow evenly over all parallel links; "ecmp" hashes it onto one.
    """

    num_domains: int
    num_lanes: int
    nic_bytes_per_s: float
    switch_ports: int
    hop_s: float
    leaf_oversubscription: float = 1.0
    pod_oversubscription: float = 1.0
    pod_leaves: int = 0
    leaf_ports: int = 0
    routing: str = "spray"

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        for name in ("nic_bytes_per_s", "leaf_oversubscription", "pod_oversubscription"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ScenarioError(f"{name} of the fabric is {value:g}", allowed="above 0, finite")
        if self.switch_ports < 2 or min(self.num_domains, self.num_lanes) < 1:
            raise ScenarioError(
                f"a fabric of {self.num_domains} domains of {self.num_lanes} chips on {self.switch_ports}-port "
                "switches does not close", allowed="switches of 2 ports or more, 1 domain or more",
            )  # fmt: skip
        if self.leaf_ports >= self.switch_ports:
            raise ScenarioError(
                f"a leaf of {self.switch_ports} ports with {self.leaf_ports} to adapters has none left to go up",
                allowed=f"leaf_ports below {self.switch_ports}",
            )
        if self.num_pods > self.switch_ports**2 // 2:
            raise ScenarioError(
                f"{self.num_pods:,} pods do not close on a core of {self.switch_ports}-port switches",
                allowed=f"{self.switch_ports**2 // 2:,} pods on a core of two levels", hint="switches with more ports",
            )  # fmt: skip
        if self.routing not in ROUTINGS:
            raise ScenarioError(f'unknown routing "{self.routing}"', allowed=", ".join(ROUTINGS))

    @property
    @abstractmethod
    def domains_per_leaf(self) -> int:
        """Domains that have an adapter on one leaf."""

    @property
    @abstractmethod
    def lanes_per_leaf(self) -> int:
        """Adapters that one of those domains has on it."""

    @property
    def ports_down(self) -> int:
        """Ports of a leaf that face adapters."""
        if self.leaf_ports:
            return self.leaf_ports
        over = self.leaf_oversubscription
        return max(1, int(self.switch_ports * over / (1.0 + over)))

    @property
    def slots_per_domain(self) -> int:
        """Leaves that one domain is spread over."""
        return math.ceil(self.num_lanes / self.lanes_per_leaf)

    @property
    def num_leaves(self) -> int:
        """Leaf switches."""
        return math.ceil(self.num_domains / self.domains_per_leaf) * self.slots_per_domain

    @property
    def leaf_up_bytes_per_s(self) -> float:
        """Out of one leaf towards the spines, one direction."""
        return self.domains_per_leaf * self.lanes_per_leaf * self.nic_bytes_per_s / self.leaf_oversubscription

    @property
    def has_spines(self) -> bool:
        """Whether one leaf does not hold everything."""
        return self.num_leaves > 1

    @property
    def leaf_uplinks(self) -> int:
        """Links of one leaf towards spines, each at an adapter's rate."""
        return max(1, math.ceil(self.leaf_up_bytes_per_s / self.nic_bytes_per_s - 1e-9))

    @property
    def domains_per_pod(self) -> int:
        """Domains below one set of spines; all of them where two levels are enough."""
        if self.num_leaves <= self.switch_ports and not self.pod_leaves:
            return self.num_domains
        leaves = self.pod_leaves or self.switch_ports // 2
        return max(1, leaves // self.slots_per_domain) * self.domains_per_leaf

    @property
    def num_pods(self) -> int:
        """Sets of spines."""
        return math.ceil(self.num_domains / self.domains_per_pod)

    @property
    def leaves_per_pod(self) -> int:
        """Leaves of a full pod."""
        return math.ceil(self.domains_per_pod / self.domains_per_leaf) * self.slots_per_domain

    @property
    def pod_up_bytes_per_s(self) -> float:
        """Out of one pod towards the core, one direction."""
        return self.leaves_per_pod * self.leaf_up_bytes_per_s / self.pod_oversubscription

    @property
    def num_spines(self) -> int:
        """Spine switches of all pods."""
        if not self.has_spines:
            return 0
        up = self.num_leaves * self.leaf_uplinks
        if self.num_pods == 1:
            return math.ceil(up / self.switch_ports)
        return math.ceil(up * (1.0 + 1.0 / self.pod_oversubscription) / self.switch_ports - 1e-9)

    @property
    def num_core_levels(self) -> int:
        """Levels of switches above the pods: a second one where there are more pods than one switch has ports."""
        if self.num_pods == 1:
            return 0
        return 1 if self.num_pods <= self.switch_ports else 2

    @property
    def num_cores(self) -> int:
        """Core switches; a core of two levels has two ports up and down for each one to a pod."""
        ports = self.num_leaves * self.leaf_uplinks / self.pod_oversubscription
        return math.ceil(ports * (0, 1, 3)[self.num_core_levels] / self.switch_ports - 1e-9)

    @property
    def num_levels(self) -> int:
        """Levels of switches."""
        return 1 + self.has_spines + self.num_core_levels

    def num_hops(self, level: int) -> int:
        """Switches that a flow passes: 0 below one leaf, 1 inside a pod, 2 across pods."""
        return (1, 3, 3 + 2 * self.num_core_levels)[level]

    def bisection_bytes_per_s(self) -> float:
        """One direction, across the middle of all domains: what the narrowest level lets through."""
        adapters = self.num_domains * self.num_lanes * self.nic_bytes_per_s / 2.0
        cuts = [adapters]
        if self.has_spines:
            cuts.append(adapters / self.leaf_oversubscription)
        if self.num_pods > 1:
            cuts.append(cuts[-1] / self.pod_oversubscription)
        return min(cuts)

    def block_of(self, domain: Integers) -> Integers:
        """Which row of leaves a domain is on, [domain]."""
        return np.asarray(domain // self.domains_per_leaf, dtype=np.int64)

    def slot_of(self, lane: Integers) -> Integers:
        """Which leaf of the row a lane is on, [lane]."""
        return np.asarray(lane // self.lanes_per_leaf, dtype=np.int64)

    def pod_of(self, domain: Integers) -> Integers:
        """Which pod a domain is in, [domain]."""
        return np.asarray(domain // self.domains_per_pod, dtype=np.int64)


ROUTINGS = ("spray", "ecmp")
