"""`ultratwin plan serve`: what to deploy for a load under service level objectives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cyclopts import Group, Parameter

from ultratwin.cli.parameters import Count, Flag, Names, Prices, names_of
from ultratwin.cli.printing import print_result
from ultratwin.cli.serving_options import OUTPUT, Arrivals, Engine, Joined, Lengths, Objectives, Replica
from ultratwin.cli.training_options import chosen_options
from ultratwin.errors import ScenarioError

_LIMITS = Group("What is asked", sort_key=0)
_MODES: Final = ("aggregated", "disaggregated")


@Parameter(name="*", group=_LIMITS)
@dataclass(frozen=True, kw_only=True)
class ServingLimits:
    """What shall be least, and what must be kept."""

    objective: str = "cost"
    "What shall be least: cost, chips or energy."
    max_chips: Count | None = None
    "The most chips that may be used."
    modes: Names = ()
    """aggregated (replicas of one kind), disaggregated (prefill and decode replicas apart) [default: both]; of --pools
    also routed, attention-experts and target-draft [default: all]."""
    offer: str = ""
    "The public price that counts: on_demand, capacity_block, reserved_1y, reserved_3y, spot [default: first known]."
    price: Prices = ()
    "Your own price of a system in USD per chip and hour: SYSTEM=USD, several by commas."


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class PlanServeOutput:
    """What is printed."""

    verify: bool = True
    "Simulate the best, request by request, and add replicas until it keeps the objectives."
    seed: Count = 0
    "Seed of all chance."
    workers: Count = 0
    "Processes [default: one per core]."
    json: Flag = False
    "Print JSON instead of the tables."
    launch: str = ""
    "Also write the best as files of a tool: vllm, sglang, trtllm, nxd-inference, k8s or sagemaker."
    launch_dir: Path = Path("launch")
    "The folder for them."


def serve(
    model: str,
    /,
    *,
    systems: Names = (),
    pools: str = "",
    joined: Joined | None = None,
    limits: ServingLimits | None = None,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    objectives: Objectives | None = None,
    replica: Replica | None = None,
    engine: Engine | None = None,
    output: PlanServeOutput | None = None,
) -> int:
    """The cheapest deployment of a model for a load that keeps what users are promised; and the Pareto front.

    Parameters
    ----------
    model
        A catalogue name, the path of a config.json, or a hub id.
    systems
        Systems of `ultratwin catalogue systems`, separated by commas; or all. Each is planned alone.
    pools
        Systems that are planned together, roles on several of them: SYSTEM[:UNITS],SYSTEM[:UNITS].
    """
    import ultratwin
    from ultratwin.cli.progress import progress_line

    shown, asked = output or PlanServeOutput(), limits or ServingLimits()
    options: dict[str, Any] = chosen_options(
        lengths or Lengths(), arrivals or Arrivals(), objectives or Objectives(), replica or Replica(),
        engine or Engine(),
    )  # fmt: skip
    precisions = names_of(options.pop("precision"))
    join = joined or Joined()
    if pools or join != Joined():
        if systems:
            raise ScenarioError("--systems and --pools are given at once", allowed="systems alone, or joined")
        return _mixed(model, pools, join, asked, shown, {**options, "precisions": precisions})
    if not systems:
        raise ScenarioError("--systems is missing", hint="`ultratwin plan serve --help` lists the options")
    with progress_line("systems searched") as progress:
        result = ultratwin.plan_serve(
            model, systems, objective=asked.objective, precisions=precisions, modes=asked.modes or _MODES,
            max_chips=asked.max_chips, offer=asked.offer, prices_per_chip_hour=dict(asked.price), verify=shown.verify,
            workers=shown.workers, progress=progress, seed=shown.seed, **options,
        )  # fmt: skip
    if shown.launch and result.feasible:
        from ultratwin.report.launch.serving import write_deployment_files

        write_deployment_files(shown.launch, result.answer, shown.launch_dir)
    return print_result(result, json=shown.json)


def _mixed(
    model: str, pools: str, join: Joined, asked: ServingLimits, shown: PlanServeOutput, options: dict[str, Any]
) -> int:
    """The answer about systems that are joined."""
    import ultratwin

    if not pools:
        raise ScenarioError("a fabric without pools", where="--fabric", hint="--pools SYSTEM,SYSTEM says what it joins")
    if shown.launch:
        raise ScenarioError("--launch is for one system", hint="plan each with --systems")
    more: dict[str, Any] = {"modes": asked.modes} if asked.modes else {}
    result = ultratwin.plan_serve_mixed(
        model, pools, objective=asked.objective, max_chips=asked.max_chips, offer=asked.offer,
        prices_per_chip_hour=dict(asked.price), seed=shown.seed, **chosen_options(join), **more, **options,
    )  # fmt: skip
    return print_result(result, json=shown.json)
