"""`ultratwin train`: what training a model on a system takes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ultratwin.cli.parameters import Count
from ultratwin.cli.training_options import OUTPUT, Layout, Site, Training, chosen_options
from ultratwin.units import parse

_FAILURES = Group("Failures", sort_key=3)


@Parameter(name="*", group=_FAILURES)
@dataclass(frozen=True, kw_only=True)
class Failures:
    """What breaks on the way; any of these options asks for the whole run with failures."""

    until_done: Annotated[bool, Parameter(negative=())] = False
    "The whole run with failures, restarts and checkpoints: finish date, goodput, losses."
    failures: str | None = None
    "default (rates of the chip's fleet), none, or a TOML file of rates and times."
    checkpoint: str = "auto"
    "Work between checkpoints, such as 30min; auto is the best."
    spares: str = "auto"
    "Nodes that stand by, of those in use, such as 2%; auto is the best."
    recovery: str = "automatic"
    "How fast the job comes back: automatic, hot or manual."
    elastic: Annotated[bool, Parameter(negative=())] = False
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
    json: Annotated[bool, Parameter(negative=())] = False
    "Print JSON instead of the table."
    explain: Annotated[bool, Parameter(negative=())] = False
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
    system: str,
    chips: Count | None = None,
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
        A system of `ultratwin catalogue systems`.
    chips
        How many chips [default: one unit of the system].
    """
    from ultratwin import api

    chosen = output or Output()
    options = chosen_options(training or Training(), layout or Layout(), site or Site())
    result = api.train(model, system, chips=chips, objective=chosen.objective, seed=chosen.seed, **options)
    if result.feasible and chosen.launch:
        from ultratwin.report.launch import write_launch_files

        write_launch_files(chosen.launch, result.answer, result.question, chosen.launch_dir)
    if result.feasible and chosen.trace is not None:
        from ultratwin.report.perfetto import answer_trace, write_trace

        write_trace(chosen.trace, answer_trace(result.answer))
    breaking = failures or Failures()
    lasting = result.until_done(**_reliability(breaking)) if breaking.asked and result.feasible else None
    if chosen.json:
        sys.stdout.write(result.to_json(lasting) + "\n")
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
