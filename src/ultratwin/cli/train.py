"""`ultratwin train`: what training a model on a system takes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ultratwin.cli.parameters import Count, Flag
from ultratwin.cli.printing import print_explained, print_json
from ultratwin.cli.training_options import OUTPUT, Layout, Pools, Site, Training, chosen_options
from ultratwin.errors import ScenarioError
from ultratwin.units import parse

_FAILURES = Group("Failures", sort_key=3)


@Parameter(name="*", group=_FAILURES)
@dataclass(frozen=True, kw_only=True)
class Failures:
    """What breaks on the way; any of these options asks for the whole run with failures."""

    until_done: Flag = False
    "The whole run with failures, restarts and checkpoints: finish date, goodput, losses."
    failures: str | None = None
    "default (rates of the chip's fleet), none, or a TOML file of rates and times."
    checkpoint: Annotated[str, Parameter(allow_leading_hyphen=True)] = "auto"
    "Work between checkpoints, such as 30min; auto is the best."
    spares: Annotated[str, Parameter(allow_leading_hyphen=True)] = "auto"
    "Nodes that stand by, of those in use, such as 2%; auto is the best."
    recovery: str = "automatic"
    "How fast the job comes back: automatic, hot or manual."
    elastic: Flag = False
    "Go on with fewer replicas while nodes are missing."

    @property
    def asked(self) -> bool:
        """Whether failures are asked about."""
        return self != Failures()


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """What is printed."""

    objective: str = "time"
    "What the searched layout makes least: time (and cost), or energy (and carbon)."
    seed: Count = 0
    "Seed of the samples that ranges are drawn from."
    json: Flag = False
    "Print JSON instead of the table."
    explain: Flag = False
    "Print what the answer depends on, and the tree: each cause, what bounds it, every figure with its source."
    launch: str = ""
    "Also write the layout as files of a framework: megatron, neuronx-distributed, maxtext or torchtitan."
    launch_dir: Path = Path("launch")
    "The folder for them."
    trace: Path | None = None
    "Also write a step as a trace for ui.perfetto.dev, such as step.pftrace.json."


def train(
    model: str,
    /,
    *,
    system: str = "",
    chips: Count | None = None,
    pools: Pools | None = None,
    training: Training | None = None,
    layout: Layout | None = None,
    site: Site | None = None,
    failures: Failures | None = None,
    output: Output | None = None,
) -> int:
    """What training a model on a system takes: time, energy, money, and how sure that is.

    Parameters
    ----------
    model
        A catalogue name, the path of a config.json, or a hub id.
    system
        A system of `ultratwin catalogue systems`; or give --pools.
    chips
        How many chips [default: one unit of the system].
    """
    chosen = output or Output()
    options = chosen_options(training or Training(), layout or Layout(), site or Site())
    if pools is not None and pools != Pools():
        _refuse_beside_pools(system, chips, failures or Failures(), chosen)
        return _on_pools(model, pools, chosen, options)
    if not system:
        raise ScenarioError("--system is missing", hint="`ultratwin train --help` lists the options")
    import ultratwin

    result = ultratwin.train(model, system, chips=chips, objective=chosen.objective, seed=chosen.seed, **options)
    if result.feasible and chosen.launch:
        from ultratwin.report.launch import write_launch_files

        write_launch_files(chosen.launch, result.answer, result.question, chosen.launch_dir)
    if result.feasible and chosen.trace is not None:
        from ultratwin.report.perfetto import answer_trace, write_trace

        write_trace(chosen.trace, answer_trace(result.answer))
    breaking = failures or Failures()
    lasting = result.until_done(**_reliability(breaking)) if breaking.asked and result.feasible else None
    if chosen.json:
        print_json(result.as_dict(lasting))
    else:
        from ultratwin.report.tables import show
        from ultratwin.report.training import training_blocks

        reasons = result.explain()
        show(training_blocks(result.question, result.answer, reasons))
        if lasting is not None:
            from ultratwin.report.reliability import reliability_blocks

            sys.stdout.write("\n")
            show(reliability_blocks(lasting))
        if chosen.explain:
            if result.feasible:
                from ultratwin.report.sensitivity import nudged_block, tornado_block

                tornado = result.sensitivity()
                sys.stdout.write("\n")
                show([tornado_block(tornado, "time"), tornado_block(tornado, "cost"), nudged_block(tornado, "time")])
            sys.stdout.write(f"\n{reasons}\n")
    return 0 if result.feasible and (lasting is None or lasting.finishes) else 1


def _refuse_beside_pools(system: str, chips: int | None, failures: Failures, output: Output) -> None:
    """Raises: ScenarioError for options that say something about one system only."""
    beside = {
        "--system": bool(system), "--chips": chips is not None, "--until-done and its like": failures.asked,
        "--launch": bool(output.launch), "--trace": output.trace is not None,
    }  # fmt: skip
    for option, given in beside.items():
        if given:
            raise ScenarioError(
                f"{option} beside --pools", allowed="pools with their units: SYSTEM[:UNITS],SYSTEM[:UNITS]",
                hint="the answer about pools says the goodput with failures anyway" if "until" in option else "",
            )  # fmt: skip


def _on_pools(model: str, pools: Pools, output: Output, options: dict[str, Any]) -> int:
    """The answer about pools of several kinds."""
    if not pools.pools:
        raise ScenarioError("--pools is missing", where="--fabric, --pool-layers, --price",
                            allowed="SYSTEM[:UNITS],SYSTEM[:UNITS]")  # fmt: skip
    import ultratwin

    layers = [parse(each, "number", where="--pool-layers") for each in pools.pool_layers]
    result = ultratwin.train_on_mix(
        model, pools.pools, fabric=pools.fabric, layers=layers, prices_per_chip_hour=dict(pools.price),
        objective=output.objective, seed=output.seed, **options,
    )  # fmt: skip
    return print_explained(result, json=output.json, explain=output.explain)


def _reliability(failures: Failures) -> dict[str, Any]:
    """The options of `TrainResult.until_done`, texts parsed."""
    found: dict[str, Any] = {"recovery": failures.recovery, "elastic": failures.elastic}
    if failures.failures is not None:
        found["failures"] = failures.failures
    if failures.checkpoint != "auto":
        found["checkpoint_s"] = parse(failures.checkpoint, "second", where="--checkpoint")
    if failures.spares != "auto":
        found["spares_frac"] = parse(failures.spares, "number", where="--spares")
    return found
