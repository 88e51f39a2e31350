"""Empirical lengths: drawn again from lengths that were seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.lengths.lengths import Lengths, check_tokens

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Empirical(Lengths):
    """Draws with replacement from `seen`, all as likely.

    A prompt and its answer are drawn apart; `resampled` (generate.py) draws them together.
    """

    name: ClassVar[str] = "empirical"
    seen: Ints = field(repr=False)

    def __post_init__(self) -> None:
        given = np.asarray(self.seen)
        if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iuf":
            raise ScenarioError("no lengths to draw from", allowed="one or more whole numbers of tokens")
        check_tokens("the shortest", float(given.min()))
        check_tokens("the longest", float(given.max()))
        if (given != np.trunc(given)).any():
            raise ScenarioError("a length is no whole number", allowed="whole numbers of tokens")
        object.__setattr__(self, "seen", given.astype(np.int64))

    def tokens(self, num_requests: int, generator: Generator) -> Ints:
        """Independent draws."""
        return self.seen[generator.integers(0, self.seen.size, num_requests)]

    @property
    def mean_tokens(self) -> float:
        """Mean of what was seen."""
        return float(self.seen.mean())

    @property
    def max_tokens(self) -> int:
        """The longest seen."""
        return int(self.seen.max())
