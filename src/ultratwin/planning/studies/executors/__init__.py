"""Where scenarios are answered: one executor, one file, one line here."""

from __future__ import annotations

from typing import Final

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.planning.studies.executors.executor import Executor
from ultratwin.planning.studies.executors.local import LocalExecutor
from ultratwin.planning.studies.executors.ray import RayExecutor

EXECUTORS: Final[tuple[type[Executor], ...]] = (LocalExecutor, RayExecutor)


def executor(name: str, *, workers: int | None = None, address: str = "") -> Executor:
    """An executor by name.

    Args:
        name: of one of EXECUTORS
        workers: scenarios answered at once; as many as there are cores where left out
        address: of a cluster, for those that run on one
    Raises: ScenarioError for an unknown name, or an address that it has no use for
    """
    for each in EXECUTORS:
        if each.name == name:
            return each.made(workers=workers, address=address)
    raise unknown_name("executor", name, [each.name for each in EXECUTORS], error=ScenarioError)
