"""Collective communication: how long an all-reduce, all-gather, ... takes on a network.

`collective_time_s` is the one entry point; each algorithm is a file of its own, listed in ALGORITHMS.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.all_to_all import AllToAll
from ultratwin.timing.collectives.axes import Axes
from ultratwin.timing.collectives.hierarchical import Hierarchical
from ultratwin.timing.collectives.mesh import Mesh
from ultratwin.timing.collectives.network import (
    Algorithm,
    AlgorithmRule,
    CollectiveProfile,
    Group,
    LinkProfile,
    Network,
    Pipe,
    collective_profile,
    make_group,
)
from ultratwin.timing.collectives.one_shot import OneShot
from ultratwin.timing.collectives.recursive_halving_doubling import RecursiveHalvingDoubling
from ultratwin.timing.collectives.ring import Ring
from ultratwin.timing.collectives.send_recv import SendRecv
from ultratwin.timing.collectives.switch import Switch
from ultratwin.timing.collectives.tree import Tree

__all__ = [
    "ALGORITHMS",
    "OPERATIONS",
    "CollectiveProfile",
    "Group",
    "LinkProfile",
    "Network",
    "Pipe",
    "collective_profile",
    "collective_time_s",
]

ALGORITHMS: Final[tuple[Algorithm, ...]] = (
    Ring(),
    Tree(),
    Switch(),
    Mesh(),
    OneShot(),
    RecursiveHalvingDoubling(),
    Hierarchical(),
    Axes(),
    AllToAll(),
    SendRecv(),
)
OPERATIONS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv")
_UNRULED: Final = frozenset({"all_to_all", "send_recv", "broadcast"})
"""Operations that the rules of libraries, made for reductions and gathers, say nothing about."""


def collective_time_s(
    operation: str,
    size_bytes: Number,
    network: Network,
    *,
    ranks_per_domain: Number,
    num_domains: Number,
    algorithm: str | None = None,
    concurrent_groups: Number = 1.0,
) -> Number:
    """Time of one collective call by a group of r x N ranks, every other group of the machine busy alike.

    Equation: the algorithm's own; with none given, the least of those that the library has a rule for
    Args:
        operation: one of OPERATIONS
        size_bytes: S by the nccl-tests convention: the whole array of an all-gather, reduce-scatter or all-to-all,
            the buffer of each rank of an all-reduce [byte], shape [candidate]
        network: what one rank sees; its rates may be arrays
        ranks_per_domain: r, ranks of the group inside one scale-up domain, shape [candidate]
        num_domains: N, scale-up domains that the group spans, shape [candidate]
        algorithm: a name in ALGORITHMS; None is the best that the library would choose
        concurrent_groups: groups that share the network adapters of this one's ranks at the same time [1]; groups of
            the same layout on other chips have adapters of their own and don't count
    Returns: seconds [s], shape [candidate]; 0 for a group of one rank
    Raises: ScenarioError for an operation or algorithm that nobody has
    Source: the files of the algorithms; the constants: catalogue/data/collectives, each with its fit
    """
    candidates = _candidates(operation, network, algorithm)
    if np.ndim(concurrent_groups) or concurrent_groups != 1.0:
        shared = network.scale_out_bytes_per_s / np.maximum(concurrent_groups, 1.0)
        network = dataclasses.replace(network, scale_out_bytes_per_s=shared)
    group = make_group(size_bytes, ranks_per_domain, num_domains)
    best: Number | None = None
    for each in candidates:
        time = each.time_s(operation, group, network)
        rule = network.profile.scale_up.rules.get(each.name)
        allowed = None if algorithm or rule is None or operation in _UNRULED else _applies(rule, group)
        if allowed is not None:
            time = np.where(allowed, time, np.inf)
        best = time if best is None else np.minimum(best, time)
    result = np.where(group.num_ranks > 1.0, 0.0 if best is None else best, 0.0)
    return result if result.ndim else float(result)


def _applies(rule: AlgorithmRule, group: Group) -> NDArray[np.bool_] | None:
    """Where a rule allows its algorithm; None if everywhere. The tests that a rule leaves open are not made."""
    size, ranks = group.size_bytes, group.ranks_per_domain
    tests = []
    if rule.max_bytes < np.inf:
        tests.append(np.asarray(size) < rule.max_bytes)
    if rule.min_bytes > 0.0:
        tests.append((np.asarray(size) >= rule.min_bytes) | group.across)
    if rule.min_ranks > 1.0:
        tests.append(np.asarray(ranks) >= rule.min_ranks)
    if rule.max_domains < np.inf:
        tests.append(np.asarray(group.num_domains) <= rule.max_domains)
    if rule.max_group_bytes < np.inf:
        tests.append(np.asarray((size * group.num_ranks <= rule.max_group_bytes) | (group.num_ranks <= 2.0)))
    return functools.reduce(np.logical_and, tests) if tests else None


def _candidates(operation: str, network: Network, algorithm: str | None) -> list[Algorithm]:
    if operation not in OPERATIONS:
        raise unknown_name("collective", operation, OPERATIONS, error=ScenarioError)
    able = [each for each in ALGORITHMS if operation in each.operations]
    if algorithm is None:
        rules = network.profile.scale_up.rules
        return [each for each in able if each.name in rules or operation in _UNRULED]
    chosen = [each for each in able if each.name == algorithm]
    if not chosen:
        raise unknown_name(f"algorithm for {operation}", algorithm, [each.name for each in able], error=ScenarioError)
    return chosen
