"""The same function over many arguments, on all cores of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ultratwin.catalogue import overrides

Task = TypeVar("Task")
Result = TypeVar("Result")

_WORTH_A_PROCESS: Final = 8
"""Tasks from which on a pool pays for the half second that its processes take to start."""


def mapped(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
    """The results in the order of the tasks, whichever process computes them.

    Args:
        function: importable by name, as processes other than this one call it
        tasks: its arguments
        workers: processes; as many as cores where 0
        progress: is told how many tasks are done, of how many
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1 or len(tasks) < _WORTH_A_PROCESS:
        found = []
        for at, task in enumerate(tasks):
            found.append(function(task))
            progress(at + 1, len(tasks))
        return found
    return _pooled(function, tasks, workers, progress)


def _pooled(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, progress: Callable[[int, int], None]
) -> list[Result]:
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    assumed = overrides.in_force()
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=overrides.put_in_force, initargs=(assumed,)
    ) as pool:
        try:
            futures = {pool.submit(function, task): at for at, task in enumerate(tasks)}
            for done, _ in enumerate(as_completed(futures), start=1):
                progress(done, len(tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        ordered = sorted(futures.items(), key=lambda each: each[1])
        return [future.result() for future, _ in ordered]
