"""What a trace format is: how its content is told apart, and how it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultratwin.workload.traffic.traces.source import Source
    from ultratwin.workload.traffic.traces.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a file doesn't say itself.

    chars_per_token: characters that a token stands for, where a file holds text and no lengths; 0: text is refused
    block_tokens: tokens of a block that a hash stands for; 0: what the format's makers use
    """

    chars_per_token: float = 0.0
    block_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFormat(ABC):
    """A trace format. `name` is what `--trace-format` calls it, `about` says whose it is and where it is described."""

    name: str
    about: str

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Columns or keys that its content must have."""

    @abstractmethod
    def read(self, source: Source, options: ReadOptions) -> Trace:
        """The trace of an open file.

        Raises: ScenarioError if it can't be read as this format
        """
