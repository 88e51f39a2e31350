"""What one rank sees of its network, and the constants of the library that moves its bytes.

Notation used by every algorithm: S message [byte], n ranks = r per scale-up domain x N domains, B rate of one
chip in one direction, k steps that follow one another, w bytes that one chip sends.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ultratwin.catalogue import loader
from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.shape import DomainAxis, even_axes, ring_rate_share, sides


class Pipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a library moves a message over one kind of link: protocols for short, middle and long messages.

    Equation (k steps, wire time w/B at the line rate):
        t_quick = k step + (w/B) / quick_frac
        t_mid   = mid_start + k mid_step + (w/B) / mid_frac              where the library has one (mid_frac > 0)
        x, y    = bulk_start + k bulk_step,  (w/B) / bulk_frac
        t_bulk  = sqrt(x^2 + 2 overlap x y + y^2)
        t       = launch + (t_bulk if chunk >= bulk_chunk_bytes else min(t_quick, t_mid, t_bulk))
    overlap 1 adds the pipeline's fill time to the wire time, 0 hides most of the shorter under the longer.
    own_frac: what a rank's own part costs, which it copies in its memory, as a share of a part on the wire.
    chunk is what one rank sends in one step. Never faster for more bytes, nor below the wire time.
    Source: the protocols are NCCL's LL, LL128 and Simple (nccl: src/graph/tuning.cc); the constants are fitted
    """

    launch_s: float
    step_s: float
    quick_frac: float
    bulk_start_s: float
    bulk_step_s: float
    bulk_frac: float
    overlap: float = 1.0
    bulk_chunk_bytes: float = float("inf")
    mid_start_s: float = 0.0
    mid_step_s: float = 0.0
    mid_frac: float = 0.0
    own_frac: float = 0.0

    def time_s(self, steps: Number, wire_s: Number, chunk_bytes: Number, inner: Leg | None = None) -> Number:
        """Seconds of k steps, from the wire time at the line rate; an inner leg runs at once. Shapes broadcast."""
        quick = steps * self.step_s + _wire_s(wire_s, self.quick_frac, inner)
        if self.mid_frac:
            mid = (self.mid_start_s + steps * self.mid_step_s) + _wire_s(wire_s, self.mid_frac, inner)
            quick = np.minimum(quick, mid)
        fill = self.bulk_start_s + steps * self.bulk_step_s
        bulk = _wire_s(wire_s, self.bulk_frac, inner)
        if self.overlap == 1.0:
            bulk = bulk + fill
        else:  # (x + y)^2 - 2 (1 - overlap) x y
            bulk = np.sqrt(np.square(fill + bulk) - (2.0 * (1.0 - self.overlap)) * (fill * bulk))
        time = np.minimum(quick, bulk)
        if self.bulk_chunk_bytes < np.inf:
            time = np.where(np.asarray(chunk_bytes) >= self.bulk_chunk_bytes, bulk, time)
        return self.launch_s + time


class Leg(NamedTuple):
    """The part of a pipeline that runs inside the domains: its wire time at the line rate, and the share it reaches."""

    wire_s: Number
    frac: float


def _wire_s(wire_s: Number, frac: float, inner: Leg | None) -> Number:
    outer = wire_s / frac
    return outer if inner is None else np.maximum(outer, inner.wire_s / inner.frac)


class AlgorithmRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a library may choose an algorithm: message sizes [byte], ranks per domain, domains.

    `min_bytes` holds for groups inside one domain; `max_group_bytes` bounds n S, for groups of more than two.
    """

    min_bytes: float = 0.0
    max_bytes: float = float("inf")
    min_ranks: float = 1.0
    max_domains: float = float("inf")
    max_group_bytes: float = float("inf")


class Fit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where constants come from: data, script, points, and the error on the half that was not fitted."""

    status: str
    data_set: str
    script: str = ""
    points: int = 0
    held_out_points: int = 0
    held_out_median_error_frac: float = 0.0
    held_out_p90_error_frac: float = 0.0
    note: str = ""


class LinkProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants of one library over one generation of links: one file of catalogue/data/collectives.

    `reference_bytes_per_s`: rate of the machines that the shares were fitted on, per chip and one direction.
    `framework_launch_s`: what a framework's own launch adds to a call, by framework.
    `library`: one name or several, separated by blanks.
    `chain_ranks`: ranks of a node, which a tree links as a chain. `max_nics_per_domain`: adapters that one call
    drives. `fallback_library`: the library that takes over where no rule applies; such a profile must be asked for.
    """

    name: str
    links: tuple[str, ...]
    library: str
    scope: str
    pipes: dict[str, Pipe]
    fits: dict[str, Fit]
    rules: dict[str, AlgorithmRule] = {}
    reference_bytes_per_s: float = 0.0
    reference_latency_s: float = 0.0
    framework_launch_s: dict[str, float] = {}
    chain_ranks: float = 8.0
    max_nics_per_domain: float = float("inf")
    fallback_library: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveProfile:
    """The constants of a library on one machine: inside a scale-up domain and between domains."""

    name: str
    scale_up: LinkProfile
    scale_out: LinkProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What one rank sees. Rates are per chip and one direction; they may be arrays along the candidate axis.

    `axes`: of a torus, where its sides are known; else they are taken as equal.
    `in_network_reduction`: the scale-up switch can add (NVLink SHARP); `scale_out_reduction`: so can the fabric's.
    Latencies are the link's own, for reports: the profile's launch and step times, which the formulas use, hold them.
    """

    scale_up_bytes_per_s: Number
    scale_up_latency_s: Number
    domain_size: float
    topology: str
    scale_out_bytes_per_s: Number
    scale_out_latency_s: Number
    profile: CollectiveProfile
    in_network_reduction: bool = False
    scale_out_reduction: bool = False
    axes: tuple[DomainAxis, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One collective call: message S, n = r N ranks, r in each of N domains. Shapes broadcast; r, N >= 1.

    `across` is True where N > 1; `any_inside` and `any_across` say whether any candidate is of that kind at all.
    """

    size_bytes: Number
    ranks_per_domain: Number
    num_domains: Number
    num_ranks: Number
    num_levels: Number
    """log2 N."""
    across: NDArray[np.bool_]
    any_inside: bool
    any_across: bool


def make_group(size_bytes: Number, ranks_per_domain: Number, num_domains: Number) -> Group:
    """A group with what every algorithm needs of it worked out once."""
    ranks, domains = np.maximum(ranks_per_domain, 1.0), np.maximum(num_domains, 1.0)
    across = np.asarray(domains > 1.0)
    any_across = bool(across.any())
    return Group(
        size_bytes=size_bytes,
        ranks_per_domain=ranks,
        num_domains=domains,
        num_ranks=ranks * domains,
        num_levels=np.log2(domains) if any_across else 0.0,
        across=across,
        any_inside=not across.all(),
        any_across=any_across,
    )


def choose(group: Group, inside: Callable[[], Number], between: Callable[[], Number]) -> Number:
    """One time for groups inside a domain, another for those across domains; neither is computed for nobody."""
    if not group.any_across:
        return inside()
    if not group.any_inside:
        return between()
    return np.where(group.across, between(), inside())


class Algorithm(ABC):
    """How a collective is carried out: which operations it knows, and how long one takes.

    `name` is what `collective_time_s(algorithm=...)` and the rules in the catalogue call it.
    """

    name: ClassVar[str]
    operations: ClassVar[frozenset[str]]

    @abstractmethod
    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        """Seconds for groups of two ranks or more, inf where the algorithm does not apply."""


NUM_PASSES: Final = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}
"""An all-reduce is a reduce-scatter and an all-gather."""


def scale_up_bytes_per_s(ranks: Number, network: Network) -> Number:
    """The part of a chip's scale-up rate that a group of r ranks in one domain can use, one direction.

    Equation: switch: all;  mesh: (r-1)/(d-1), links to others of the domain idle;
              torus: the shares of the axes that the group reaches along;  none: scale-out rate
    """
    full, size = network.scale_up_bytes_per_s, max(network.domain_size, 2.0)
    if network.topology == "mesh":
        return full * np.minimum((np.maximum(ranks, 2.0) - 1.0) / (size - 1.0), 1.0)
    if network.topology.startswith("torus"):
        axes = network_axes(network)
        return full * ring_rate_share(axes, sides(np.maximum(ranks, 2.0), axes))
    if network.topology == "none":
        return network.scale_out_bytes_per_s
    return full


def network_axes(network: Network) -> tuple[DomainAxis, ...]:
    """The axes of a network's domains."""
    return network.axes or even_axes(network.topology, network.domain_size)


DIRECTORY: Final = "collectives"
GENERIC: Final = {"scale_up": "generic-scale-up", "scale_out": "generic-scale-out"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def link_profiles() -> Mapping[str, LinkProfile]:
    """Every file of constants, by its id."""
    return {
        path.name.removesuffix(".toml"): loader.read_toml(path, LinkProfile)
        for path in sorted((loader.DATA / DIRECTORY).glob("*.toml"))
        if not path.name.startswith("expert-parallel")
    }


def with_fallback(profile: LinkProfile) -> LinkProfile:
    """The profile with the pipes that it lacks taken from the library that it falls back to."""
    if not profile.fallback_library:
        return profile
    base = link_profile(profile.links[0], profile.scope, profile.fallback_library)
    return msgspec.structs.replace(profile, pipes=base.pipes | profile.pipes)


@cache
def link_profile(link: str, scope: str, library: str | None = None) -> LinkProfile:
    """The constants for a link, by id, family or any spelling of it; a generic set where nothing was measured.

    A longer match wins: "efa-v3" finds EFA v3 before EFA. Without a library, the one that the link's vendor ships.
    """
    wanted, library = _plain(link), _plain(library or "")
    best: tuple[float, LinkProfile] | None = None
    for each in link_profiles().values():
        if each.scope != scope or (library not in _plain(each.library) if library else each.fallback_library):
            continue
        match = max((len(_plain(name)) for name in each.links if _plain(name) in wanted), default=0)
        if match and (best is None or match > best[0]):
            best = (match, each)
    if best is not None:
        return with_fallback(best[1])
    if library:
        return link_profile(link, scope)
    return link_profiles()[GENERIC[scope]]


@cache
def collective_profile(scale_up: str, scale_out: str = "", library: str | None = None) -> CollectiveProfile:
    """The constants for a machine, from the ids or families of its links.

    Args:
        scale_up: link inside a domain: "nvlink4", "neuronlink-v3", "xgmi", "ici", "pcie5", ...
        scale_out: link between domains: "efa-v3", "infiniband-ndr", ...; the generic set if empty
        library: "nccl", "rccl", "neuron", "vllm", "trtllm", "sglang"; the vendor's own if None
    """
    up = link_profile(scale_up, "scale_up", library)
    out = link_profile(scale_out, "scale_out", up.library)
    return CollectiveProfile(name=f"{up.name} + {out.name}", scale_up=up, scale_out=out)
