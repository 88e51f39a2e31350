"""What a program calls about mixed systems: `serve_mixed`, `plan_serve_mixed` and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ultratwin.api.result import ExplainedResult, Result
from ultratwin.api.serving import AUTO, check_choices, own_precision, serving_question
from ultratwin.errors import ScenarioError, required, unknown_name
from ultratwin.hardware.mix import PoolShare, join_entries, parse_pools
from ultratwin.mapping.plan import Rejected
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.checks import checked_count
from ultratwin.planning.checks import prices_usd_per_chip_s as per_second
from ultratwin.planning.mixed.plan import MixedPlanAnswer, MixedPlanQuestion, answer_mixed_plan, checked_pools
from ultratwin.planning.mixed.search import MIXED_MODES
from ultratwin.planning.mixed.serving import MixedServingAnswer, MixedServingQuestion, answer_mixed_serving
from ultratwin.planning.serving.deployment import Deployment
from ultratwin.planning.serving.plan import PlanServingQuestion
from ultratwin.planning.serving.ways import ATTENTION_EXPERTS, DISAGGREGATED, ROLES, ROUTED, TARGET_DRAFT
from ultratwin.workload.model import Model

if TYPE_CHECKING:
    from ultratwin.report.tables import Block

Pools = str | Sequence[PoolShare]
_ROLE_MODES: Final = (DISAGGREGATED, ATTENTION_EXPERTS, TARGET_DRAFT)
_OF_ONE_SYSTEM: Final = {
    "concurrency": None, "num_prompts": None, "replicas": 1, "routing": "", "fidelity": "",
    "tensor_parallel_size": None, "pipeline_parallel_size": None, "data_parallel_size": None,
    "expert_parallel_size": None, "enable_expert_parallel": False, "price_per_chip_hour": None,
}  # fmt: skip
"""Options of `serve` that a mix has no use for, and their values where they are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedServeResult(ExplainedResult):
    """What users feel of a model on two pools; or, where `feasible` is false, why it can't run."""

    answer: MixedServingAnswer

    @property
    def feasible(self) -> bool:
        """Whether the model runs and all that is offered is served."""
        return self.answer.deployment is not None

    @property
    def rejected(self) -> Rejected | None:
        """Why nothing can run; None if something does."""
        return self.answer.rejected

    @property
    def deployment(self) -> Deployment:
        """Replicas of both roles, what they serve and take.

        Raises: ScenarioError if nothing can run
        """
        return required(self.answer.deployment, f"nothing can run: {self.answer.rejected}")

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.mixed_serving import mixed_serving_blocks

        return mixed_serving_blocks(self.answer)

    def explain(self) -> str:
        """Where the iterations' time of each role goes, and every figure used, as text."""
        from ultratwin.report.mixed_serving import mixed_explanation

        return "\n\n".join(f"{name}\n{reasons}" for name, reasons in mixed_explanation(self.answer))

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.mixed_serving import mixed_serving_json

        return mixed_serving_json(self.answer)


def serve_mixed(
    model: str | Path | Model,
    *,
    prefill: Pools = "",
    decode: Pools = "",
    attention: Pools = "",
    experts: Pools = "",
    target: Pools = "",
    draft: Pools = "",
    pools: Pools = "",
    fabric: str | Sequence[str] = "",
    precision: str = AUTO,
    kv_cache_dtype: str = "auto",
    transfer_dtype: str = "",
    prices_per_chip_hour: Mapping[str, float] | None = None,
    **options: Any,
) -> MixedServeResult:
    """What users feel of a model served by chips of two kinds; the split of each role is chosen.

    Args:
        model: catalogue name, path of a config.json, hub id, or a Model
        prefill, decode: one system each, with its units: "p6-b200.48xlarge:4"
        attention, experts; target, draft: the same for other ways to share the work
        pools: two systems whose replicas do everything, behind one router: "trn3:1,p6-b200:4"
        fabric: ids of catalogue/data/joins that may join them; all if empty
        precision, kv_cache_dtype: one format, or one for each role, by a comma
        transfer_dtype: what keys and values travel as; the smaller of both formats if empty
        prices_per_chip_hour: your own, by system [USD]
        options: as of `serving_question`: isl, osl, request_rate, goodput, speculative_tokens, ...
    Returns: the result; what can't run is a result too
    Raises: UltratwinError for bad input
    """
    given = {"prefill": prefill, "decode": decode, "attention": attention, "experts": experts, "target": target,
             "draft": draft}  # fmt: skip
    mode, both = _mode(given, pools)
    _refuse_options(options)
    first, second = (own_precision(model, each) for each in _for_each(ROLES[mode], "precision", precision))
    caches = _for_each(ROLES[mode], "kv_cache_dtype", kv_cache_dtype)
    for name, kv in zip((first, second), caches, strict=True):
        serving_formats(name, "" if kv == "auto" else kv)
    if mode == TARGET_DRAFT and not options.get("speculative_tokens"):
        raise ScenarioError("nothing is drafted", where="--draft", hint="--speculative-tokens and --acceptance-rate")
    question = MixedServingQuestion(
        serving=serving_question(model, "", **options, is_planned=True), mode=mode, pools=both,
        precisions=(first, second),
        kv_cache_dtypes=caches, fabrics=fabric_names(fabric), transfer_dtype=transfer_dtype.lower(),
        prices_usd_per_chip_s=per_second(prices_per_chip_hour),
    )  # fmt: skip
    return MixedServeResult(answer=answer_mixed_serving(question))


def _mode(given: Mapping[str, Pools], pools: Pools) -> tuple[str, tuple[PoolShare, PoolShare]]:
    """Which way the work is shared, and the two pools in the order of its roles.

    Raises: ScenarioError where a role is left empty, or two ways are given at once
    """
    named = {name: each for name, each in given.items() if each}
    if pools:
        if named:
            raise ScenarioError(f"--pools and --{next(iter(named))} are given at once", allowed="one way to share work")
        shares = _shares(pools, "--pools")
        if len(shares) != 2:
            raise ScenarioError(f"{len(shares)} pools behind one router", where="--pools", allowed="two systems")
        return ROUTED, (shares[0], shares[1])
    if not named:
        raise ScenarioError("no pools are given", hint="--prefill SYSTEM:UNITS --decode SYSTEM:UNITS, or --pools")
    mode = next(mode for mode in _ROLE_MODES if set(ROLES[mode]) & named.keys())
    extra = [name for name in named if name not in ROLES[mode]]
    if extra:
        raise ScenarioError(
            f"--{next(iter(named))} and --{extra[0]} are given at once",
            allowed="; ".join(" and ".join(f"--{role}" for role in ROLES[mode]) for mode in _ROLE_MODES),
        )
    for role in ROLES[mode]:
        if role not in named:
            other = next(name for name in ROLES[mode] if name != role)
            raise ScenarioError(
                f"{role} is left empty", where=f"--{other}", hint=f"--{role} SYSTEM:UNITS says what does it"
            )
    first, second = (_one_share(named[role], f"--{role}") for role in ROLES[mode])
    return mode, (first, second)


def _shares(pools: Pools, where: str) -> tuple[PoolShare, ...]:
    return parse_pools(pools, where=where) if isinstance(pools, str) else tuple(pools)


def _one_share(pools: Pools, where: str) -> PoolShare:
    shares = _shares(pools, where)
    if len(shares) != 1:
        raise ScenarioError(f"{len(shares)} systems for one role", where=where, allowed="one, as trn3:1")
    return shares[0]


def _refuse_options(options: Mapping[str, Any]) -> None:
    for name, left_out in _OF_ONE_SYSTEM.items():
        if options.get(name, left_out) != left_out:
            option = "--" + name.replace("_", "-")
            hints = {"concurrency": "--request-rate", "price_per_chip_hour": "--price SYSTEM=USD"}
            raise ScenarioError(
                f"{option} is for one system", where="several pools",
                hint=hints.get(name, "leave it out: splits and replicas of each role are chosen"),
            )  # fmt: skip


def _for_each(roles: Sequence[str], name: str, text: str) -> tuple[str, str]:
    """One word for both roles, or a word for each."""
    words = [word.strip().lower() for word in text.split(",")]
    if len(words) > 2 or not all(words):
        raise ScenarioError(
            f'{name} "{text}"', allowed=f"one format, or two by a comma: of {roles[0]} and of {roles[1]}"
        )
    return words[0], words[-1]


def fabric_names(fabric: str | Sequence[str]) -> tuple[str, ...]:
    """Fabrics asked for, each known.

    Raises: ScenarioError for one that the catalogue lacks
    """
    names = fabric.split(",") if isinstance(fabric, str) else fabric
    words = tuple(name.strip().lower() for name in names if name.strip())
    for name in words:
        if name not in join_entries():
            raise unknown_name("fabric", name, join_entries(), error=ScenarioError, where="--fabric")
    return words


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlanResult(Result):
    """What to deploy on systems that are joined; or, where `feasible` is false, what comes nearest."""

    answer: MixedPlanAnswer

    @property
    def feasible(self) -> bool:
        """Whether anything keeps the objectives."""
        return self.answer.best is not None

    @property
    def best(self) -> Deployment:
        """The best deployment, mixed or not.

        Raises: ScenarioError if nothing keeps the objectives
        """
        return required(self.answer.best, "nothing keeps the objectives")

    @property
    def pure(self) -> dict[str, Deployment | None]:
        """The best deployment of each system alone."""
        return dict(self.answer.pure)

    @property
    def gain(self) -> float:
        """By what factor the best of all beats the best system alone, in the objective; 1 where that is the best."""
        return self.answer.gain

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.mixed_plan import mixed_plan_blocks

        return mixed_plan_blocks(self.answer)

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.mixed_plan import mixed_plan_json

        return mixed_plan_json(self.answer)


def plan_serve_mixed(
    model: str | Path | Model,
    pools: Pools,
    *,
    fabric: str | Sequence[str] = "",
    objective: str = "cost",
    precisions: Sequence[str] = (AUTO,),
    modes: Sequence[str] = MIXED_MODES,
    max_chips: int | None = None,
    offer: str = "",
    prices_per_chip_hour: Mapping[str, float] | None = None,
    transfer_dtype: str = "",
    **options: Any,
) -> MixedPlanResult:
    """How many of which system, which role where, for a load under objectives; pure deployments are among them.

    Args:
        model: catalogue name, path of a config.json, hub id, or a Model
        pools: systems, with the units that there are of each where they are limited: "trn4,rubin:4"
        fabric: ids of catalogue/data/joins that may join them, such as "nvlink-fusion,efa"; all if empty
        objective: what shall be least: "cost", "chips" or "energy"; precisions: number formats to try
        modes: of MIXED_MODES; max_chips: of all systems together; offer, prices_per_chip_hour: as of `plan_serve`
        transfer_dtype: what keys and values travel as; the smaller of both formats if empty
        options: as of `serving_question`
    Returns: the result; what can't be met is a result too
    Raises: UltratwinError for bad input
    """
    check_choices(objective, precisions, modes, MIXED_MODES, offer)
    shares = parse_pools(pools, default_units=0) if isinstance(pools, str) else tuple(pools)
    shares = checked_pools(shares)
    question = PlanServingQuestion(
        serving=serving_question(model, "", **options, is_planned=True), systems=tuple(e.system.id for e in shares),
        precisions=tuple(dict.fromkeys(own_precision(model, each) for each in precisions)), objective=objective,
        max_chips=checked_count("max_chips", max_chips), offer=offer,
        prices_usd_per_chip_s=per_second(prices_per_chip_hour), verify=False,
    )  # fmt: skip
    return MixedPlanResult(
        answer=answer_mixed_plan(
            MixedPlanQuestion(
                plan=question, pools=shares, fabrics=fabric_names(fabric), modes=tuple(modes),
                transfer_dtype=transfer_dtype.lower(),
            )
        )
    )  # fmt: skip
