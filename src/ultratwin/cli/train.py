"""`ultratwin train`: what training a model on a system takes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ultratwin.cli.parameters import Count
from ultratwin.cli.training_options import OUTPUT, Layout, Site, Training, chosen_options


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
    if chosen.json:
        sys.stdout.write(result.to_json() + "\n")
    else:
        from ultratwin.report.tables import show
        from ultratwin.report.training import training_blocks

        reasons = result.explain()
        show(training_blocks(result.question, result.answer, reasons))
        if chosen.explain:
            if result.feasible:
                from ultratwin.report.sensitivity import nudged_block, tornado_block

                tornado = result.sensitivity()
                sys.stdout.write("\n")
                show([tornado_block(tornado, "time"), tornado_block(tornado, "cost"), nudged_block(tornado, "time")])
            sys.stdout.write(f"\n{reasons}\n")
    return 0 if result.feasible else 1
