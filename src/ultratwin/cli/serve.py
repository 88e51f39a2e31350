"""`ultratwin serve`: what users of a served model feel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from ultratwin.cli.parameters import Count, Flag
from ultratwin.cli.printing import print_explained
from ultratwin.cli.serving_options import (
    OUTPUT,
    SERVICE,
    Arrivals,
    Engine,
    Joined,
    Lengths,
    Objectives,
    Replica,
    RolePools,
)
from ultratwin.cli.training_options import chosen_options
from ultratwin.errors import ScenarioError


@Parameter(name="*", group=SERVICE)
@dataclass(frozen=True, kw_only=True)
class Fleet:
    """How many replicas there are."""

    replicas: Count = 1
    "Replicas that share the load."
    routing: str = ""
    "How requests find a replica: least-loaded, round-robin, prefix-aware or random [default: least-loaded]."


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """What is printed."""

    fidelity: str = ""
    "analytic (closed form) or event (every request simulated) [default: event where single requests are asked about]."
    seed: Count = 0
    "Seed of all chance: lengths, arrivals, samples of the ranges."
    json: Flag = False
    "Print JSON instead of the table."
    explain: Flag = False
    "Print the trees too: each cause, what bounds it, every figure with its source."
    launch: str = ""
    "Also write the service as files of a tool: vllm, sglang, trtllm, nxd-inference, k8s or sagemaker."
    launch_dir: Path = Path("launch")
    "The folder for them."


def serve(
    model: str,
    /,
    *,
    system: str = "",
    roles: RolePools | None = None,
    joined: Joined | None = None,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    replica: Replica | None = None,
    engine: Engine | None = None,
    objectives: Objectives | None = None,
    fleet: Fleet | None = None,
    output: Output | None = None,
) -> int:
    """What users of a served model feel: TTFT, TPOT, throughput; what it costs; and how sure that is.

    Parameters
    ----------
    model
        A catalogue name, the path of a config.json, or a hub id.
    system
        A system of `ultratwin catalogue systems`; or several, each with its part of the work (--prefill, ...).
    """
    import ultratwin

    shown = output or Output()
    options = chosen_options(
        lengths or Lengths(), arrivals or Arrivals(), replica or Replica(), engine or Engine(),
        objectives or Objectives(), fleet or Fleet(),
    )  # fmt: skip
    pools, join = roles or RolePools(), joined or Joined()
    if pools != RolePools() or join != Joined():
        return _mixed(model, system, pools, join, shown, options)
    if not system:
        raise ScenarioError("--system is missing", hint="`ultratwin serve --help` lists the options")
    result = ultratwin.serve(model, system, fidelity=shown.fidelity, seed=shown.seed, **options)
    if shown.launch and result.plan is not None and result.rejected is None:
        from ultratwin.report.launch.serving import write_serving_files

        write_serving_files(shown.launch, result.question, result.answer, shown.launch_dir)
    return print_explained(result, json=shown.json, explain=shown.explain)


def _mixed(model: str, system: str, pools: RolePools, join: Joined, shown: Output, options: dict[str, Any]) -> int:
    """The answer about systems that share the work."""
    import ultratwin

    if system:
        raise ScenarioError(
            f"--system {system} and several pools are given at once", allowed="one system, or a pool for each role"
        )
    if shown.launch:
        raise ScenarioError("--launch is for one system", hint="write the files of each role with its own --system")
    named = chosen_options(pools, join)
    prices = dict(named.pop("price"))
    result = ultratwin.serve_mixed(
        model, **named, **options, fidelity=shown.fidelity, seed=shown.seed, prices_per_chip_hour=prices
    )
    return print_explained(result, json=shown.json, explain=shown.explain)
