"""`ultratwin plan`: what to rent, how many, how sharded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import App, Group, Parameter

from ultratwin.cli import plan_serve
from ultratwin.cli.parameters import Chips, Duration, Flag, Money, Names, Prices, names_of
from ultratwin.cli.printing import print_result
from ultratwin.cli.training_options import OUTPUT, Layout, Site, Training, chosen_options

plan = App(
    name="plan", help="What to rent, how many, how sharded: every layout of every size of every system asked for."
)

_LIMITS = Group("What is asked", sort_key=0)


@Parameter(name="*", group=_LIMITS)
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What shall be least, and what must be kept."""

    objective: Names = ("cost",)
    "time, cost, energy or carbon; two of them, such as cost,time, for the front of both."
    deadline: Duration | None = None
    "The longest that the run may take, such as 60d."
    budget: Money | None = None
    "The most that it may cost in USD, such as 120M."
    offer: str = ""
    "The public price that counts: on_demand, capacity_block, reserved_1y, reserved_3y, spot [default: first known]."
    price: Prices = ()
    "Your own price of a system in USD per chip and hour: SYSTEM=USD, several by commas."


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class PlanOutput:
    """What is printed."""

    seed: int = 0
    "Seed of the samples that ranges are drawn from."
    workers: int = 0
    "Processes [default: one per core]."
    json: Flag = False
    "Print JSON instead of the tables."
    launch: str = ""
    "Also write the best plan as files of a framework: megatron, neuronx-distributed, maxtext or torchtitan."
    launch_dir: Path = Path("launch")
    "The folder for them."


@plan.command
def train(
    model: str,
    /,
    *,
    systems: Names,
    chips: Chips,
    limits: Limits | None = None,
    training: Training | None = None,
    layout: Layout | None = None,
    site: Site | None = None,
    output: PlanOutput | None = None,
) -> int:
    """The best system, size and layout to train a model; what each system takes, with ranges; and the Pareto front.

    Parameters
    ----------
    model
        A catalogue name, the path of a config.json, or a hub id.
    systems
        Systems of `ultratwin catalogue systems`, separated by commas; or all.
    chips
        A range such as 1024:65536 (units times 2^k and 3 x 2^k are tried), or sizes separated by commas.
    """
    import ultratwin
    from ultratwin.cli.progress import progress_line

    shown, asked = output or PlanOutput(), limits or Limits()
    options: dict[str, Any] = chosen_options(training or Training(), layout or Layout(), site or Site())
    precisions = names_of(options.pop("precision"))
    with progress_line("sizes searched") as progress:
        result = ultratwin.plan_train(
            model, systems, chips=chips, objectives=asked.objective, deadline_s=asked.deadline, budget_usd=asked.budget,
            offer=asked.offer, prices_per_chip_hour=dict(asked.price), precisions=precisions, seed=shown.seed,
            workers=shown.workers, progress=progress, **options,
        )  # fmt: skip
    if shown.launch and result.feasible:
        from ultratwin.report.launch import write_launch_files

        best = result.best_result()
        write_launch_files(shown.launch, best.answer, best.question, shown.launch_dir)
    return print_result(result, json=shown.json)


plan.command(plan_serve.serve)
