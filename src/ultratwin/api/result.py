"""What all results have in common: blocks for the terminal, text, JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ultratwin.report.tables import Block

if TYPE_CHECKING:
    from ultratwin.planning.run import Run
    from ultratwin.planning.uncertainty import Range


class Result(ABC):
    """An answer that can be shown. Variants say what its blocks and its JSON objects are."""

    __slots__ = ()

    @property
    def feasible(self) -> bool:
        """Whether anything can run; an answer that nothing can refuse always is."""
        return True

    @abstractmethod
    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""

    def to_json(self) -> str:
        """The answer as JSON; byte-identical for an equal question, version and catalogue."""
        from ultratwin.report.json import dumped

        return dumped(self.as_dict())

    def table(self, width: int = 110) -> str:
        """The answer as plain text for a terminal so many columns wide."""
        from ultratwin.report.tables import rendered

        return rendered(self.blocks(), width=width)


class ExplainedResult(Result):
    """An answer that says what it rests on."""

    __slots__ = ()

    @abstractmethod
    def explain(self) -> object:
        """Where the time goes, and every figure used with its source; `str()` of it is text."""


class RunResult(ExplainedResult):
    """An answer about a training run; its figures raise ScenarioError where there is none: ask `feasible`."""

    __slots__ = ()

    @property
    @abstractmethod
    def run(self) -> Run:
        """The whole run."""

    @property
    def step_time_s(self) -> Range:
        """Seconds of one optimizer step."""
        return self.run.step_s

    @property
    def days(self) -> Range:
        """Days of the whole run, without failures."""
        return self.run.days

    @property
    def energy_j(self) -> Range:
        """Joules of the whole run: chips, hosts, network, PUE."""
        return self.run.energy_j

    @property
    def cost_usd(self) -> Mapping[str, Range]:
        """Dollars of the whole run by offer; empty where no price is public and none was given."""
        return self.run.cost_usd
