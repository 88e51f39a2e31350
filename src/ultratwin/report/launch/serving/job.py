"""What is launched: the replicas of a serving answer or a deployment, with all that an engine must be told."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Chip
from ultratwin.hardware.system import System, load_system
from ultratwin.mapping.serving import ServingPlan
from ultratwin.mapping.serving_formats import ServingFormats
from ultratwin.planning.serving.answer import ServingAnswer
from ultratwin.planning.serving.mix import Load, Speculation
from ultratwin.planning.serving.plan import PlanServingAnswer
from ultratwin.planning.serving.question import ServingQuestion, serving_setting
from ultratwin.planning.serving.verification import role_question
from ultratwin.workload.model import Model

_SPARE_TOKENS = 64
"""Tokens beyond the asked lengths that the engine is given room for: chat templates add some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleJob:
    """Replicas of one kind. `name`: serve, prefill or decode; limits are of one replica."""

    name: str
    plan: ServingPlan
    replicas: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingJob:
    """A service that can run.

    engine: id in the catalogue; max_model_len: None where the model's own length is kept
    node_chips: chips of a node; ranks_per_chip: of the plan
    """

    name: str
    model: Model
    formats: ServingFormats
    engine: str
    chip: Chip
    system: str
    node_chips: int
    ranks_per_chip: int
    block_size: int
    memory_utilization_frac: float
    max_model_len: int | None
    prefix_caching: bool
    speculation: Speculation
    roles: tuple[RoleJob, ...]
    version: str

    def chips(self, role: RoleJob) -> int:
        """Chips of one replica."""
        return int(role.plan.num_ranks) // self.ranks_per_chip

    def nodes(self, role: RoleJob) -> int:
        """Nodes of one replica."""
        return -(-self.chips(role) // self.node_chips)

    @property
    def is_disaggregated(self) -> bool:
        """Whether prompts are computed by other replicas than those that decode."""
        return len(self.roles) > 1


def job_of_answer(question: ServingQuestion, answer: ServingAnswer) -> ServingJob:
    """A job of `serve`'s answer.

    Raises: ScenarioError if nothing can run
    """
    if answer.plan is None or answer.limits is None or answer.point is None:
        raise ScenarioError(
            f"nothing can run, so there is nothing to launch: {answer.rejected}", where="--launch",
            hint="a larger replica, or a format of fewer bytes, first",
        )  # fmt: skip
    role = RoleJob(
        name="serve",
        plan=answer.plan,
        replicas=answer.replicas,
        max_num_seqs=int(np.ravel(answer.limits.max_num_seqs)[0]),
        max_num_batched_tokens=int(np.ravel(answer.limits.max_num_batched_tokens)[0]),
    )
    return _job(question, answer.load, (role,))


def job_of_plan(answer: PlanServingAnswer) -> ServingJob:
    """A job of the best deployment of `plan serve`.

    Raises: ScenarioError if nothing keeps the objectives
    """
    best = answer.best
    if best is None:
        raise ScenarioError("nothing keeps the objectives, so there is nothing to launch", where="--launch")
    roles = tuple(
        RoleJob(name=each.name, plan=each.plan, replicas=each.replicas, max_num_seqs=each.max_num_seqs,
                max_num_batched_tokens=each.max_num_batched_tokens)
        for each in best.roles
    )  # fmt: skip
    return _job(role_question(answer.question.serving, best, best.roles[0]), answer.load, roles)


def _job(question: ServingQuestion, load: Load, roles: tuple[RoleJob, ...]) -> ServingJob:
    from ultratwin import __version__

    setting, _ = serving_setting(question)
    system = question.system if isinstance(question.system, System) else load_system(question.system)
    pool, engine, demand = system.pool, setting.engine, question.demand
    longest = None
    if demand.trace is None:
        asked = float(np.ravel(load.prompt_tokens)[0] + np.ravel(load.output_tokens)[0]) * (1.0 + demand.range_frac)
        longest = min(int(asked) + _SPARE_TOKENS, setting.model.max_seq_length)
    used = question.memory_utilization_frac
    return ServingJob(
        name=re.sub(r"[^a-z0-9-]+", "-", setting.model.id.rsplit("/", 1)[-1].lower())[:40].strip("-") or "model",
        model=setting.model,
        formats=setting.formats,
        engine=engine.id,
        chip=pool.chip,
        system=system.id,
        node_chips=min(pool.chips_per_node, system.unit_chips),
        ranks_per_chip=pool.ranks_per_chip,
        block_size=int(np.ravel(engine.block_size)[0]),
        memory_utilization_frac=engine.memory_utilization_frac if used is None else used,
        max_model_len=question.max_model_len or longest,
        prefix_caching=question.prefix_caching,
        speculation=question.speculation,
        roles=roles,
        version=__version__,
    )
