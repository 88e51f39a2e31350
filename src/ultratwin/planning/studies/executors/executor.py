"""What an executor is: something that answers scenarios in other processes, a bounded number at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Final

from ultratwin.planning.studies.study import Outcome, Scenario

MOST_LOSSES: Final = 3
"""A scenario whose process is lost so often is taken to be the cause, and recorded as failed."""


class Executor(ABC):
    """Answers scenarios. Memory is bounded: scenarios are taken from the iterator as workers become free."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def made(cls, *, workers: int | None, address: str) -> Executor:
        """One for so many scenarios at once (None: as many as there are cores), on the cluster at an address.

        Raises: ScenarioError for an address that it has no use for
        """

    @abstractmethod
    def answers(
        self, answered: Callable[[Scenario], Outcome], scenarios: Iterable[Scenario]
    ) -> Iterator[tuple[Scenario, Outcome]]:
        """Each scenario with its outcome, in the order in which they finish.

        Closing the iterator stops the workers. Lost workers are replaced and their scenarios answered again.
        Raises: ScenarioError if there is nobody to do the work
        """


def lost(scenario: Scenario) -> Outcome:
    """The outcome of a scenario that its process never survived."""
    return Outcome(
        status="failed",
        reason=f"its process died {MOST_LOSSES} times, perhaps for lack of memory; --retry-failed tries again",
    )


def broken(error: BaseException) -> Outcome:
    """The outcome of a scenario whose computation raised what it should not."""
    return Outcome(status="failed", reason=f"{type(error).__name__}: {error}"[:500])
