"""What a law of lengths is: how many tokens a prompt or an answer has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.requests import MAX_TOKENS

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths(ABC):
    """A law of lengths. `name` is what scenarios call it."""

    name: ClassVar[str]

    @abstractmethod
    def tokens(self, num_requests: int, generator: Generator) -> Ints:
        """Tokens of each request, at least 1, shape [request]."""

    @property
    @abstractmethod
    def mean_tokens(self) -> float:
        """Their mean."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """The most that can come, which a server has to have room for."""


def check_tokens(what: str, tokens: float) -> None:
    """Raises: ScenarioError unless it is a whole number of tokens that a request can have."""
    if not (1 <= tokens <= MAX_TOKENS and tokens == int(tokens)):
        raise ScenarioError(f"{what} of {tokens:g} tokens", allowed=f"a whole number from 1 to {MAX_TOKENS}")
