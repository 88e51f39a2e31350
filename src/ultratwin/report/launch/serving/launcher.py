"""What a serving launcher is: an engine and its flags, or a platform that runs an engine's container."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from ultratwin.errors import ScenarioError
from ultratwin.report.launch.launcher import command, variables
from ultratwin.report.launch.serving.job import RoleJob, ServingJob

Arguments = list[tuple[str, str | None]]

CHECKPOINT: dict[str, str] = {
    "fp8-block": "FP8 with block scales, as DeepSeek-V3's own",
    "mxfp4": "MXFP4 experts, as GPT-OSS's own",
    "nvfp4": "NVFP4, as made by NVIDIA ModelOpt",
    "int8": "INT8 weights and activations, as made by llm-compressor",
    "int8-weight-only": "INT8 weights",
    "int4-weight-only": "INT4 weights, as made by AWQ or GPTQ",
    "fp8-weight-only": "FP8 weights",
}
"""Formats that a checkpoint must already be in: what to look for."""


PORT = 8000
ENDPOINT: tuple[tuple[str, str | None], ...] = (("--host", "0.0.0.0"), ("--port", str(PORT)))
"""Where a server listens: engines differ in what they do by themselves."""


class ServingLauncher(ABC):
    """One engine or platform. Its module's docstring names the version whose flags it writes.

    `families` are the chips that it serves on, as chips name theirs.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    families: ClassVar[tuple[str, ...]]

    @abstractmethod
    def files(self, job: ServingJob) -> dict[str, str]:
        """The files that start the service: text by file name; names that end in .sh are scripts.

        Raises: ScenarioError for what there is no setting for
        """

    def refusal(self, what: str, *, allowed: str = "", hint: str = "") -> ScenarioError:
        """The error for something in the plan that cannot be told."""
        return ScenarioError(
            f"{what}, which {self.title} has no setting for", where=f"--launch {self.name}", allowed=allowed, hint=hint
        )

    def check_chip(self, job: ServingJob) -> None:
        """Refuses chips that the engine does not run on."""
        if job.chip.family not in self.families:
            raise ScenarioError(
                f"{self.title} does not serve on {job.chip.name}", where=f"--launch {self.name}",
                allowed="chips of the families " + ", ".join(self.families),
                hint=f"choose a --system of these, or another --launch for {job.system}",
            )  # fmt: skip


class EngineLauncher(ServingLauncher):
    """An engine that is started by a command: one script for each role, run once on every node of every replica.

    `image`: a container that holds it; `container_words`: what is run in it, before the flags
    """

    image: ClassVar[str]
    worker_flags: ClassVar[tuple[str, ...]] = ()
    """What all nodes of a replica but the first are told."""
    numbers_nodes: ClassVar[bool] = True
    """Whether flags say which node of a replica this is; else an outer launcher does."""
    words: ClassVar[tuple[str, ...]]
    container_words: ClassVar[tuple[str, ...]]

    @abstractmethod
    def arguments(self, job: ServingJob, role: RoleJob) -> Arguments:
        """Flags of one replica, those of its nodes left out; the first is the model."""

    @abstractmethod
    def node_arguments(self, job: ServingJob, role: RoleJob, rank: str, leader: str) -> Arguments:
        """Flags that differ between the nodes of a replica; none where it lies on one."""

    def checkpoint(self, job: ServingJob) -> str:
        """What the checkpoint must be where the engine can't make the format itself; empty: as CHECKPOINT says."""
        return ""

    def extra_files(self, job: ServingJob, role: RoleJob) -> dict[str, str]:
        """Files that the flags name."""
        return {}

    def files(self, job: ServingJob) -> dict[str, str]:
        """A script for each role, and what it reads."""
        self.check_chip(job)
        found: dict[str, str] = {}
        for role in job.roles:
            found[f"{role.name}.sh"] = self._script(job, role)
            found |= self.extra_files(job, role)
        return found

    def _script(self, job: ServingJob, role: RoleJob) -> str:
        nodes = job.nodes(role)
        names = {"MODEL": job.model.id}
        if nodes > 1 and self.numbers_nodes:
            names |= {
                "NODE_RANK": f"?number of this node in its replica, 0 to {nodes - 1}",
                "LEADER": "?address of node 0 of the replica",
            }
        lines = [
            "#!/usr/bin/env bash",
            *header(job, role, self.title, self.checkpoint(job)),
            "set -euo pipefail",
            *variables(names),
        ]
        arguments = self.arguments(job, role)[1:] + list(ENDPOINT)
        arguments += self.node_arguments(job, role, "$NODE_RANK", "$LEADER")
        if nodes > 1 and self.worker_flags:
            lines += ["WORKER=()", f'[ "$NODE_RANK" = 0 ] || WORKER=({" ".join(self.worker_flags)})']
            return "\n".join([*lines, "", *command(self.words, arguments)]) + ' \\\n  "${WORKER[@]}"\n'
        return "\n".join([*lines, "", *command(self.words, arguments), ""])


def header(job: ServingJob, role: RoleJob, title: str, checkpoint: str = "") -> list[str]:
    """The comment at a file's head: what it starts, how often, from which checkpoint, and who wrote it."""
    where = f"{job.nodes(role)} nodes" if job.nodes(role) > 1 else f"{job.chips(role)} chips"
    lines = [
        f"# {job.model.id}, {role.name}: {role.plan.describe() or 'one rank'} with {title}",
        f"# {role.replicas} replicas, each on {where} of {job.system}; {job.formats.name}, KV in {job.formats.kv}",
        f"# written by ultratwin {job.version}",
    ]
    if note := checkpoint or CHECKPOINT.get(job.formats.name):
        lines.insert(2, f"# MODEL must be a checkpoint in that format ({note})")
    return lines


def as_json(value: Any) -> str:
    """JSON on one line, as a flag's value."""
    return json.dumps(value, separators=(", ", ": "))


def chosen(refuse: ServingLauncher, job: ServingJob, known: dict[str, str | None]) -> str | None:
    """What a number format is called; None where the checkpoint says it.

    Raises: ScenarioError for a format that there is no name for
    """
    if job.formats.name not in known:
        raise refuse.refusal(f"the plan serves in {job.formats.name}", allowed=", ".join(known))
    return known[job.formats.name]


def flagged(arguments: Sequence[tuple[str, object]]) -> Arguments:
    """Flags with values as text; those of None are left out, True stands for a flag without a value."""
    return [(flag, None if value is True else str(value)) for flag, value in arguments if value is not None]
