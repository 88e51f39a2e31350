"""The loop of a study: what is not finished yet goes to the executor, what comes back to the store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ultratwin.catalogue.overrides import in_force
from ultratwin.errors import ScenarioError
from ultratwin.planning.studies.executors.executor import Executor
from ultratwin.planning.studies.store import Store
from ultratwin.planning.studies.study import Outcome, Scenario, Study


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is; `num_before` scenarios were finished when it began."""

    total: int
    num_before: int
    first_s: float | None = None
    by_status: Counter[str] = field(default_factory=Counter)

    @property
    def num_here(self) -> int:
        """Finished by this run."""
        return sum(self.by_status.values())

    @property
    def num_finished(self) -> int:
        """Finished in all."""
        return self.num_before + self.num_here

    @property
    def num_left(self) -> int:
        """Not finished yet."""
        return self.total - self.num_finished

    @property
    def per_s(self) -> float:
        """Scenarios per second since the first came back, as workers take a while to start; 0 before the second."""
        return 0.0 if self.first_s is None else (self.num_here - 1) / max(time.monotonic() - self.first_s, 1e-9)

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take at this rate; None where there is none yet."""
        return self.num_left / self.per_s if self.per_s else None

    def count(self, outcome: Outcome) -> None:
        """One more is finished."""
        self.first_s = self.first_s or time.monotonic()
        self.by_status[outcome.status] += 1


def run_study(
    study: Study,
    store: Store,
    executor: Executor,
    answered: Callable[[Scenario], Outcome],
    *,
    retry_failed: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Answers every scenario of a study that the store has no answer of.

    Args:
        study: what to answer
        store: open for writing; only this process writes
        executor: where scenarios are answered
        answered: answers one; a function of a module, as it runs in other processes
        retry_failed: answer scenarios again whose computation broke
        watch: called at the start and after each scenario
    Returns: how far it came, which is to the end
    Raises: ScenarioError if the store can't be written or the executor can't go on; what is finished stays
    """
    if in_force():  # other processes and machines would not know, and the store would not say
        raise ScenarioError("a study does not run under assumptions", hint="ask its questions one by one")
    done = store.begin(study, retry_failed=retry_failed)
    progress = Progress(total=study.num_scenarios, num_before=len(done))
    watch(progress)
    for scenario, outcome in executor.answers(answered, _open(study, done)):
        store.add(scenario, outcome)
        progress.count(outcome)
        watch(progress)
    return progress


def _open(study: Study, done: set[str]) -> Iterator[Scenario]:
    return (scenario for scenario in study.scenarios() if scenario.key not in done)
