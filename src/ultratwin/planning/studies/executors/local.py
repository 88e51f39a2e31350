"""This machine's cores: one process per worker, one pipe to each, so that it is known which scenario a lost one had.

concurrent.futures can't say that: when one worker of its pool dies, all scenarios in flight fail alike.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import ClassVar, Final, cast

from ultratwin.errors import ScenarioError
from ultratwin.planning.studies.executors.executor import MOST_LOSSES, Executor, broken, lost
from ultratwin.planning.studies.study import Outcome, Scenario

MOST_WORKERS: Final = 1024
_READY: Final = "ready"
# what numeric libraries are told in every worker: one thread each, as the workers are the parallelism, and sums over
# several threads may differ in their last digit
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    """A process, our end of its pipe, and the scenario that it has; None while it starts or waits."""

    process: SpawnProcess
    pipe: Connection
    scenario: Scenario | None = None
    is_ready: bool = False

    def stop(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()
        self.process.close()


@dataclass(slots=True, kw_only=True)
class _Crew:
    """The workers at work, and the scenarios that nobody has yet: those of lost workers come first."""

    size: int
    answered: Callable[[Scenario], Outcome]
    rest: Iterator[Scenario]
    again: deque[Scenario] = field(default_factory=deque)
    workers: list[_Worker] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)
    num_unready: int = 0

    def fill(self) -> None:
        """Starts workers up to the size, each for a scenario: a short study has no idle ones to wait for."""
        while len(self.workers) < self.size and (scenario := self._next()) is not None:
            self.workers.append(_started(self.answered))
            self._hand_over(self.workers[-1], scenario)

    def hear(self) -> list[tuple[Scenario, Outcome]]:
        """Waits until some workers say something, or end; what is finished then."""
        by_pipe = {worker.pipe: worker for worker in self.workers}
        finished = []
        for pipe in wait(list(by_pipe)):
            worker = by_pipe[cast(Connection, pipe)]
            message = _received(worker)
            scenario, worker.scenario = worker.scenario, None
            if message == _READY:
                worker.scenario, worker.is_ready, self.num_unready = scenario, True, 0
            elif isinstance(message, Outcome) and scenario is not None:
                finished.append((scenario, message))
                following = self._next()
                if following is None or not self._hand_over(worker, following):
                    self._dismiss(worker)
            else:
                finished += self._lost(worker, scenario)
        return finished

    def _lost(self, worker: _Worker, scenario: Scenario | None) -> list[tuple[Scenario, Outcome]]:
        """Buries a worker; its scenario is answered again, or given up if it took too many of them.

        Raises: ScenarioError if no worker ever begins
        """
        self._dismiss(worker)
        if not worker.is_ready:
            self.num_unready += 1
            if self.num_unready >= MOST_LOSSES * self.size:
                raise ScenarioError(
                    "worker processes end before they begin",
                    hint="see the messages above; a script that runs studies needs `if __name__ == '__main__':`",
                )
        if scenario is None:
            return []
        self.losses[scenario.key] += worker.is_ready
        if self.losses[scenario.key] >= MOST_LOSSES:
            return [(scenario, lost(scenario))]
        self.again.append(scenario)
        return []

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.stop()

    def _next(self) -> Scenario | None:
        return self.again.popleft() if self.again else next(self.rest, None)

    def _hand_over(self, worker: _Worker, scenario: Scenario) -> bool:
        """Gives a worker a scenario; False, and the scenario back in the queue, if the worker is gone."""
        try:
            worker.pipe.send(scenario)
        except OSError:
            self.again.append(scenario)
            return False
        worker.scenario = scenario
        return True


class LocalExecutor(Executor):
    """Worker processes on this machine."""

    name: ClassVar[str] = "local"

    def __init__(self, workers: int) -> None:
        self.workers = workers

    @classmethod
    def made(cls, *, workers: int | None, address: str) -> LocalExecutor:
        """As many workers as this process may use cores, unless a number is given."""
        if address:
            raise ScenarioError("the local executor has no address", where=address, hint="add --executor ray")
        count = workers or _num_cores()
        if not 1 <= count <= MOST_WORKERS:
            raise ScenarioError(f"{count:,} workers", where="--workers", allowed=f"1 to {MOST_WORKERS:,}")
        return cls(count)

    def answers(
        self, answered: Callable[[Scenario], Outcome], scenarios: Iterable[Scenario]
    ) -> Iterator[tuple[Scenario, Outcome]]:
        """Each scenario with its outcome, in the order in which they finish."""
        crew = _Crew(size=self.workers, answered=answered, rest=iter(scenarios))
        try:
            crew.fill()
            while crew.workers:
                yield from crew.hear()
                crew.fill()
        finally:
            for worker in crew.workers:
                worker.stop()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _started(answered: Callable[[Scenario], Outcome]) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of NumPy and DuckDB
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, answered), daemon=True)
    with _inherited():
        process.start()
    theirs.close()  # so that the pipe ends when the worker does
    return _Worker(process=process, pipe=ours)


def _received(worker: _Worker) -> Outcome | str | None:
    """What a worker says; None if it is gone."""
    try:
        message: Outcome | str = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return message


@contextmanager
def _inherited() -> Iterator[None]:
    """What a process that is started here inherits: one thread for numeric libraries, and no Ctrl-C.

    Ctrl-C reaches all processes of a terminal; the parent alone shall act on it. A blocked signal stays blocked in a
    new program, so that there is no moment at which a worker could die of it with a traceback.
    """
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    can_block = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else set()
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if can_block:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work(pipe: Connection, answered: Callable[[Scenario], Outcome]) -> None:
    """The whole life of a worker: it ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        pipe.send(_READY)
        while True:
            scenario = pipe.recv()
            try:
                outcome = answered(scenario)
            except Exception as error:
                outcome = broken(error)
            pipe.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
