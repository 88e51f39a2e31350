"""A Ray cluster: every scenario is a task of one CPU; nodes may come and go."""

from __future__ import annotations

import importlib
import logging
import os
import re
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.planning.studies.executors.executor import MOST_LOSSES, Executor, broken, lost
from ultratwin.planning.studies.study import Outcome, Scenario

MOST_NODE_LOSSES: Final = 20
"""A scenario does not answer for the death of its node, but so many nodes do not die by chance."""
_ANSWER_S: Final = 5.0
"""How long a cluster's head may take to say a word."""
_RECOUNT_S: Final = 5.0
_WAIT_S: Final = 1.0
_PER_CPU: Final = 2
"""Scenarios in flight per CPU: one that runs and one that waits, so that an autoscaler sees that there is more."""
_ADDRESS: Final = re.compile(r"(?P<client>ray://)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
# the start of HTTP/2, which Ray's servers speak, with an empty frame of settings; the answer begins with one too
_HTTP2_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS_FRAME: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stranger:
    """A node whose ultratwin would answer something else."""

    node: str
    version: str
    catalogue_hash: str


class RayExecutor(Executor):
    """Tasks on a Ray cluster. Ray gives each as many threads for numeric libraries as CPUs, which is one."""

    name: ClassVar[str] = "ray"

    def __init__(self, address: str, workers: int | None) -> None:
        self.address, self.workers = address, workers

    @classmethod
    def made(cls, *, workers: int | None, address: str) -> RayExecutor:
        """On the cluster at an address; the one of RAY_ADDRESS, or of this machine, where none is given."""
        if workers is not None and workers < 1:
            raise ScenarioError(f"{workers:,} workers", where="--workers", allowed="1 or more")
        return cls(address or os.environ.get("RAY_ADDRESS", "") or "auto", workers)

    def answers(
        self, answered: Callable[[Scenario], Outcome], scenarios: Iterable[Scenario]
    ) -> Iterator[tuple[Scenario, Outcome]]:
        """Each scenario with its outcome, in the order in which they finish."""
        ray = _ray()
        is_ours = _connect(ray, self.address)
        try:
            yield from self._answers(ray, answered, scenarios)
        finally:
            if is_ours:
                ray.shutdown()

    def _answers(
        self, ray: Any, answered: Callable[[Scenario], Outcome], scenarios: Iterable[Scenario]
    ) -> Iterator[tuple[Scenario, Outcome]]:
        # retries are ours, not Ray's: it would start a scenario that runs out of memory again for ever
        task = ray.remote(num_cpus=1, max_retries=0)(_answer)
        waiting, again = iter(scenarios), list[Scenario]()
        losses, window = Counter[tuple[str, bool]](), _Window(ray, self.workers)
        in_flight: dict[Any, Scenario] = {}
        us = (ultratwin.__version__, loader.catalogue_hash())
        try:
            while True:
                while len(in_flight) < window.size():
                    scenario = again.pop() if again else next(waiting, None)
                    if scenario is None:
                        break
                    in_flight[task.remote(answered, scenario, us)] = scenario
                if not in_flight:
                    return
                ready, _ = ray.wait(list(in_flight), num_returns=1, timeout=_WAIT_S)
                for reference in ready:
                    scenario = in_flight.pop(reference)
                    found = _result(ray, reference)
                    if isinstance(found, Outcome):
                        yield scenario, found
                        continue
                    is_node = isinstance(found, ray.exceptions.NodeDiedError | ray.exceptions.ObjectLostError)
                    losses[scenario.key, is_node] += 1
                    if losses[scenario.key, is_node] >= (MOST_NODE_LOSSES if is_node else MOST_LOSSES):
                        yield scenario, lost(scenario)
                    else:
                        again.append(scenario)
        finally:
            for reference in in_flight:
                ray.cancel(reference, force=True)


class _Window:
    """How many scenarios may be in flight: a given number, or two for each CPU that the cluster has now."""

    def __init__(self, ray: Any, given: int | None) -> None:
        self._ray, self._given = ray, given
        self._size, self._counted_s = 0, -_RECOUNT_S

    def size(self) -> int:
        if self._given is not None:
            return self._given
        if time.monotonic() - self._counted_s >= _RECOUNT_S:
            self._size = max(int(_PER_CPU * self._ray.cluster_resources().get("CPU", 0)), _PER_CPU)
            self._counted_s = time.monotonic()
        return self._size


def _answer(answered: Callable[[Scenario], Outcome], scenario: Scenario, us: tuple[str, str]) -> Outcome | _Stranger:
    """Runs on a node: answers a scenario, if this node would answer the same as the one that asks."""
    if us != (ultratwin.__version__, loader.catalogue_hash()):
        return _Stranger(
            node=socket.gethostname(), version=ultratwin.__version__, catalogue_hash=loader.catalogue_hash()
        )
    try:
        return answered(scenario)
    except Exception as error:
        return broken(error)


def _result(ray: Any, reference: Any) -> Outcome | Exception:
    """The outcome of a task; the error if its process or node died.

    Raises: ScenarioError if the node can't answer anything
    """
    try:
        found: Outcome | _Stranger = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # `answered` raises nothing: the node lacks what it needs
        raise ScenarioError(
            "a node of the cluster can't run scenarios", where=str(error).strip().splitlines()[-1][:300],
            hint=f"install ultratwin {ultratwin.__version__} on every node",
        ) from None  # fmt: skip
    except ray.exceptions.RayError as error:
        return error  # type: ignore[no-any-return]
    if isinstance(found, _Stranger):
        raise ScenarioError(
            f"{found.node} has ultratwin {found.version} with catalogue {found.catalogue_hash}",
            allowed=f"{ultratwin.__version__} with catalogue {loader.catalogue_hash()}, as here",
            hint="install the same on every node, then run the same command again",
        )
    return found


def _ray() -> Any:
    """The module, an extra, and quiet: what it has to say is said by us."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no network that nobody asked for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("ray")
    except ImportError:
        raise ScenarioError("Ray is not installed", hint="pip install 'ultratwin[ray]'") from None


def _connect(ray: Any, address: str) -> bool:
    """Joins the cluster; True if that was our doing.

    Raises: ScenarioError if nobody answers there
    """
    if ray.is_initialized():
        return False
    if address != "auto":
        _knock(address)
    vars(importlib.import_module("ray._private.worker"))["print_to_stdstream"] = _print_nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.CRITICAL,
            )  # fmt: skip
    except (Exception, SystemExit) as error:
        said = str(error).strip().splitlines()
        raise ScenarioError(f"no Ray cluster at {address}", where=said[0][:300] if said else "", hint=_HINT) from None
    return True


def _print_nothing(*arguments: object, **options: object) -> None:
    """In place of Ray's printing of a dead node's last words, which go to stdout whatever log_to_driver says."""


_HINT: Final = "`ray start --head` begins a cluster on this machine, `ray status` shows it; give HOST:PORT of its head"


def _knock(address: str) -> None:
    """Whether a Ray server answers at once, as ray.init would try for two minutes, and then end the program.

    Raises: ScenarioError if it does not
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ScenarioError(f"{address!r:.80} is no address of a cluster", allowed="auto, HOST:PORT or ray://HOST:PORT")
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=_ANSWER_S) as peer:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0", "false"):
                peer.sendall(_HTTP2_HELLO)
                answer = peer.recv(9)
                if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
                    raise ScenarioError(f"what answers at {address} is no Ray cluster", hint=_HINT)
    except OSError as error:
        said = error.strerror or str(error) or "no answer"
        raise ScenarioError(f"nobody answers at {address}", where=said, hint=_HINT) from None
