"""Fixed lengths: every request has the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.workload.traffic.lengths.lengths import Lengths, check_tokens

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed(Lengths):
    """`length` tokens, always."""

    name: ClassVar[str] = "fixed"
    length: int

    def __post_init__(self) -> None:
        check_tokens("a fixed length", self.length)

    def tokens(self, num_requests: int, generator: Generator) -> Ints:
        """The same number again and again."""
        return np.full(num_requests, self.length, np.int64)

    @property
    def mean_tokens(self) -> float:
        """The length."""
        return float(self.length)

    @property
    def max_tokens(self) -> int:
        """The length."""
        return self.length
