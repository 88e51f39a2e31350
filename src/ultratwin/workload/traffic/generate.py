"""Requests by laws of chance: when they come, how long they are, how they begin. The same seed gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.arrivals import Arrivals, ClosedLoop
from ultratwin.workload.traffic.lengths import Lengths
from ultratwin.workload.traffic.prefixes import SharedPrefix, prefix_hashes
from ultratwin.workload.traffic.requests import Requests

MAX_REQUESTS: Final = 10**8
"""More don't fit into a machine's memory; nobody needs as many to know a percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests by laws of chance.

    arrivals: when they come
    prompt, output: how long they are [tokens]; `prompt` is what follows a shared prefix, if there is one
    num_requests: as `--num-prompts`
    prefix: beginnings that prompts share
    """

    arrivals: Arrivals
    prompt: Lengths
    output: Lengths
    num_requests: int
    prefix: SharedPrefix | None = None

    def __post_init__(self) -> None:
        check_count(self.num_requests)

    @property
    def max_concurrency(self) -> int:
        """Requests under way at a time, where the law of arrivals limits them; else 0."""
        return self.arrivals.max_concurrency if isinstance(self.arrivals, ClosedLoop) else 0

    @property
    def mean_prompt_tokens(self) -> float:
        """Mean prompt, a shared prefix included [tokens]."""
        return self.prompt.mean_tokens + (self.prefix.tokens if self.prefix else 0)


def generate(traffic: Traffic, *, seed: int = 0) -> Requests:
    """Requests of a traffic.

    Arrivals, prompts, outputs and prefixes draw from streams of their own, so that changing one law leaves the others'
    draws as they were; fewer requests are not the first of more where arrivals are rescaled.
    """
    arrivals, prompts, outputs, prefixes = generators(seed, 4)
    count = traffic.num_requests
    prompt_tokens = traffic.prompt.tokens(count, prompts)
    hashes = None
    if traffic.prefix is not None:
        prompt_tokens = prompt_tokens + traffic.prefix.tokens
        hashes = prefix_hashes(traffic.prefix, count, prefixes)
    return Requests(
        arrival_s=traffic.arrivals.times_s(count, arrivals),
        prompt_tokens=prompt_tokens,
        output_tokens=traffic.output.tokens(count, outputs),
        prefix_hashes=hashes,
    )


def resampled(seen: Requests, arrivals: Arrivals, num_requests: int = 0, *, seed: int = 0) -> Requests:
    """Requests whose lengths were seen together, at other times: a length file or a trace under a law of arrivals.

    Args:
        seen: requests whose prompts, outputs and prefixes are taken
        arrivals: when they come
        num_requests: 0: all of `seen` once, in their order; else as many draws from them: without replacement as long
            as they last, with replacement beyond
    """
    times, draws = generators(seed, 2)
    if not len(seen):
        raise ScenarioError("no requests to draw from")
    if num_requests == 0:
        index = np.arange(len(seen))
    else:
        check_count(num_requests)
        index = draws.choice(len(seen), num_requests, replace=num_requests > len(seen))
    return Requests(
        arrival_s=arrivals.times_s(index.size, times),
        prompt_tokens=seen.prompt_tokens[index],
        output_tokens=seen.output_tokens[index],
        prefix_hashes=None if seen.prefix_hashes is None else seen.prefix_hashes.take(index),
        priority=None if seen.priority is None else seen.priority[index],
    )


def generators(seed: int, count: int) -> list[Generator]:
    """Independent streams of one seed.

    Raises: ScenarioError for a negative seed
    """
    if seed < 0:
        raise ScenarioError(f"seed {seed}", allowed="0 or more")
    return [np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(count)]


def check_count(num_requests: int) -> None:
    """Raises: ScenarioError unless that many requests can be simulated."""
    if not 1 <= num_requests <= MAX_REQUESTS:
        raise ScenarioError(f"{num_requests} requests", allowed=f"1 to {MAX_REQUESTS}")
