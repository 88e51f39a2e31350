"""What all results have in common: blocks for the terminal, text, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ultratwin.errors import ScenarioError
from ultratwin.report.tables import Block

if TYPE_CHECKING:
    from ultratwin.planning.run import Run
    from ultratwin.planning.uncertainty import Range

_Value = TypeVar("_Value")


class Result:
    """An answer that can be shown. Variants say what its blocks and its JSON objects are."""

    __slots__ = ()

    @property
    def feasible(self) -> bool:
        """Whether anything can run; an answer that nothing can refuse always is."""
        return True

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        raise NotImplementedError

    def explain(self) -> object:
        """What the answer rests on; `str()` of it is text."""
        raise NotImplementedError

    def to_json(self) -> str:
        """The answer as JSON; byte-identical for an equal question, version and catalogue."""
        from ultratwin.report.json import dumped

        return dumped(self.as_dict())

    def table(self, width: int = 110) -> str:
        """The answer as plain text for a terminal so many columns wide."""
        from ultratwin.report.tables import rendered

        return rendered(self.blocks(), width=width)


class RunResult(Result):
    """An answer about a training run; its figures raise ScenarioError where there is none: ask `feasible`."""

    __slots__ = ()

    @property
    def run(self) -> Run:
        """The whole run."""
        raise NotImplementedError

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


def required(value: _Value | None, missing: str, hint: str = "ask .feasible first") -> _Value:
    """A figure that an answer may lack.

    Raises: ScenarioError where it does: `missing` says what
    """
    if value is None:
        raise ScenarioError(missing, hint=hint)
    return value
