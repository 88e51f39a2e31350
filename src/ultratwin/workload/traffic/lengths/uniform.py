"""Uniform lengths, and the two meanings that benchmarks give to a range ratio."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, ClassVar

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.lengths.lengths import Lengths, check_tokens

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Lengths):
    """Whole numbers from `low` to `high`, both included, all as likely."""

    name: ClassVar[str] = "uniform"
    low: int
    high: int

    def __post_init__(self) -> None:
        check_tokens("the lower end", self.low)
        check_tokens("the upper end", self.high)
        if self.low > self.high:
            raise ScenarioError(f"lengths from {self.low} to {self.high} tokens", allowed="a lower end up to the upper")

    def tokens(self, num_requests: int, generator: Generator) -> Ints:
        """Independent draws."""
        return generator.integers(self.low, self.high, num_requests, endpoint=True)

    @property
    def mean_tokens(self) -> float:
        """Middle of the range."""
        return (self.low + self.high) / 2

    @property
    def max_tokens(self) -> int:
        """Upper end."""
        return self.high


def around(nominal: int, range_ratio: float) -> Uniform:
    """`--random-range-ratio` of `vllm bench serve`: from floor(n (1 - r)) to ceil(n (1 + r)).

    Args: nominal length n [tokens]; range_ratio r, from 0 up to but not including 1
    Source: vllm/benchmarks/datasets/random.py, get_sampling_params
    Example:
        >>> around(1000, 0.2)
        Uniform(low=800, high=1200)
    """
    if not 0 <= range_ratio < 1:
        raise ScenarioError(f"range ratio {range_ratio:g}", allowed="from 0 (fixed) up to but not including 1")
    return Uniform(low=max(floor(nominal * (1 - range_ratio)), 1), high=ceil(nominal * (1 + range_ratio)))


def up_to(nominal: int, range_ratio: float) -> Uniform:
    """Range ratio of InferenceX and of vLLM's older benchmark_serving.py: from n r to n.

    Args: nominal length n [tokens]; range_ratio r, from 0 to 1 (fixed)
    Source: sample_random_requests of vLLM's former benchmarks/benchmark_serving.py; InferenceX uses r = 0.8
    Example:
        >>> up_to(1000, 0.8)
        Uniform(low=800, high=1000)
    """
    if not 0 <= range_ratio <= 1:
        raise ScenarioError(f"range ratio {range_ratio:g}", allowed="from 0 to 1 (fixed)")
    return Uniform(low=max(int(nominal * range_ratio), 1), high=nominal)
