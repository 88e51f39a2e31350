"""The best deployment of a plan, simulated request by request; it grows until it keeps what it should."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ultratwin.errors import UltratwinError
from ultratwin.hardware.mix import own_joins
from ultratwin.hardware.system import System, load_system, per_rank
from ultratwin.mapping.serving import kv_capacity_tokens
from ultratwin.planning.serving.deployment import Deployment, Role
from ultratwin.planning.serving.mix import BatchLimits, Load
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.question import Demand, ServingQuestion, serving_setting
from ultratwin.planning.serving.slo import Verdict, is_kept, verdicts
from ultratwin.planning.serving.traffic import offered
from ultratwin.planning.serving.transfer import engine_hand_over_s, hand_over_s
from ultratwin.planning.serving.ways import AGGREGATED, rented_chips
from ultratwin.workload.kv_cache import kv_bytes_per_token

if TYPE_CHECKING:
    from ultratwin.planning.serving.simulation import Simulated
    from ultratwin.simulation.serving.fleet import Transfer

_TRIES: Final = 5
_FEWEST, _MOST = 2000, 200_000
_STAYS: Final = 12.0
"""How many times as long as a request stays the simulation lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the simulation of a deployment found; `question`: one of its replicas, or the first role's, as asked."""

    deployment: Deployment
    question: ServingQuestion
    simulated: Simulated | None
    kept: bool
    notes: tuple[str, ...]


def verified(
    question: ServingQuestion, option: Deployment, load: Load, rate: float | None, max_chips: int | None
) -> Verification:
    """The deployment with as many replicas as the simulation needs to keep the objectives.

    Args:
        question: as asked, its system and format left open; option: the best by the closed form
        load, rate: what is offered [1/s]; rate None: so many requests under way as the closed form says
        max_chips: that may be used
    """
    notes: list[str] = []
    asked = role_question(question, option, option.roles[0])

    def tried(each: Deployment) -> tuple[Simulated, bool]:
        found = _simulated(question, each, load, rate)
        return found, rate is None or (not found.overloaded and is_kept(question.slos, found.times))

    try:
        found, kept = tried(option)
        for _ in range(_TRIES):
            if kept:
                break
            larger = _grown(option, verdicts(question.slos, found.times), found.overloaded)
            if max_chips is not None and larger.chips > max_chips:
                break
            notes.append(f"{option.describe()} keeps the objectives in closed form, but not in the simulation")
            option, (found, kept) = larger, tried(larger)
        for _ in range(_TRIES if kept and rate is not None and question.slos else 0):
            smaller = _shrunk(option)
            less = tried(smaller) if smaller is not None else None
            if smaller is None or less is None or not less[1]:
                break
            option, found = smaller, less[0]
    except UltratwinError as error:  # such as a missing Numba
        note = f"not simulated: {error.what}"
        return Verification(deployment=option, question=asked, simulated=None, kept=True, notes=(note,))
    if not kept:
        notes.append("the simulation misses the objectives")
    return Verification(deployment=option, question=asked, simulated=found, kept=kept, notes=tuple(notes))


def role_question(question: ServingQuestion, option: Deployment, role: Role) -> ServingQuestion:
    """Replicas of one role as `serve` asks about them, without their load."""
    plan = role.plan
    return dataclasses.replace(
        question, system=option.system_id, precision=option.precision, replicas=role.replicas, fidelity="event",
        sizes={each.name: int(getattr(plan, each.name)) for each in dataclasses.fields(plan)},
        max_num_seqs=role.max_num_seqs, max_num_batched_tokens=role.max_num_batched_tokens,
    )  # fmt: skip


def _simulated(question: ServingQuestion, option: Deployment, load: Load, rate: float | None) -> Simulated:
    from ultratwin.planning.serving.simulation import Side, simulated_disaggregation, simulated_service

    questions = [role_question(question, option, role) for role in option.roles]
    settings = [serving_setting(each) for each in questions]
    setting, system = settings[0]
    asked = dataclasses.replace(questions[0], demand=_demand(question.demand, option, rate))
    served = Served(setting=setting, load=load, speculation=question.speculation)
    sides = [
        Side(plan=role.plan, limits=_limits(each, role, load, question), replicas=role.replicas)
        for role, each in zip(option.roles, questions, strict=True)
    ]
    offered_ = offered(asked)
    if option.mode == AGGREGATED:
        return simulated_service(asked, served, sides[0].plan, sides[0].limits, offered_)
    return simulated_disaggregation(asked, served, sides[0], sides[1], transfer_of(system, served, option), offered_)


def _demand(demand: Demand, option: Deployment, rate: float | None) -> Demand:
    """As many requests as a steady state needs; a closed loop of what the closed form says where no rate is given."""
    if demand.trace is not None:
        return demand
    later = max(demand.output_tokens - 1.0, 0.0)
    stay = option.ttft_s + option.tpot_s * later
    if rate is None:
        running = max(int(sum(role.running * role.replicas for role in option.roles)), 1)
        count = min(max(_FEWEST, running * 6), _MOST)
        return dataclasses.replace(
            demand, request_rate=None, concurrency=running, num_prompts=demand.num_prompts or count
        )
    count = min(max(_FEWEST, int(rate * stay * _STAYS)), _MOST)
    return dataclasses.replace(demand, request_rate=rate, num_prompts=demand.num_prompts or count)


def _limits(question: ServingQuestion, role: Role, load: Load, asked: ServingQuestion) -> BatchLimits:
    setting, _ = serving_setting(question)
    groups = float(role.plan.attention_data_parallel_size)
    tokens = kv_capacity_tokens(
        setting.model, per_rank(setting.pool).chip, setting.formats, role.plan, setting.engine,
        max_num_batched_tokens=role.max_num_batched_tokens / groups,
        memory_utilization_frac=asked.memory_utilization_frac, typical_context=float(np.mean(load.decode_context)),
    )  # fmt: skip
    return BatchLimits(
        max_num_seqs=role.max_num_seqs, max_num_batched_tokens=role.max_num_batched_tokens,
        kv_tokens=float(np.ravel(tokens)[0]) * groups, block_size=float(setting.engine.block_size),
    )  # fmt: skip


def transfer_of(system: System, served: Served, option: Deployment) -> Transfer:
    """What keys and values of a prompt go over: as fast as the library moves those of the typical prompt.

    The link is taken for all of that time, as in the closed form; the engine's own part takes none of it.
    """
    from ultratwin.simulation.serving.fleet import Transfer  # only here: it imports Numba's loop

    sides, load = (served.setting, served.setting), served.load
    prefill, decode = (np.array([float(role.chips)]) for role in option.roles)
    wire_s = hand_over_s(sides, load, (prefill, decode), np.array([float(option.chips)]), own_joins(system, 2))
    each = kv_bytes_per_token(served.setting.model, served.setting.formats.kv_bytes)
    return Transfer(
        kv_bytes_per_token=each, bytes_per_s=max(each * float(np.mean(load.prompt_tokens)) / float(wire_s[0]), 1.0),
        latency_s=float(np.ravel(engine_hand_over_s(sides))[0]),
    )  # fmt: skip


def _grown(option: Deployment, found: tuple[Verdict, ...], overloaded: bool) -> Deployment:
    """More replicas of what is too slow: those that compute prompts where first tokens are late, else those that
    decode; a twelfth more, at least one."""
    late_first = any(not each.is_kept and each.slo.metric == "ttft" for each in found)
    at = 0 if len(option.roles) == 1 or late_first else 1
    roles = list(option.roles)
    for index in range(len(roles)) if overloaded else [at]:
        roles[index] = dataclasses.replace(roles[index], replicas=_more(roles[index].replicas))
    return _with_roles(option, tuple(roles))


def _shrunk(option: Deployment) -> Deployment | None:
    """A twelfth fewer replicas of the kind that takes most chips; None where there is only one of it."""
    roles = list(option.roles)
    at = max(range(len(roles)), key=lambda index: (roles[index].replicas * roles[index].chips, index))
    fewer = roles[at].replicas - max(roles[at].replicas // 12, 1)
    if fewer < 1:
        return None
    roles[at] = dataclasses.replace(roles[at], replicas=fewer)
    return _with_roles(option, tuple(roles))


def _with_roles(option: Deployment, roles: tuple[Role, ...]) -> Deployment:
    """The deployment with other numbers of replicas; its times stay those of the closed form."""
    chips = sum(role.replicas * role.chips for role in roles)
    system = load_system(option.system_id)
    rented = sum(int(rented_chips(system, np.array([role.chips]), np.array([role.replicas]))[0]) for role in roles)
    scale, price = chips / option.chips, option.usd_per_s / option.rented_chips
    return dataclasses.replace(
        option, roles=roles, chips=chips, rented_chips=rented, power_w=option.power_w * scale,
        usd_per_s=price * rented if not math.isnan(price) else price,
    )  # fmt: skip


def _more(replicas: int) -> int:
    return replicas + max(replicas // 12, 1)
