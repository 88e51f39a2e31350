"""What a program calls to see what a job draws: `ultratwin.power` and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultratwin.api.result import Result
from ultratwin.api.training import TrainResult, training_question
from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import System
from ultratwin.planning.checks import checked_count, checked_name
from ultratwin.report.tables import Block
from ultratwin.workload.model import Model

if TYPE_CHECKING:
    from ultratwin.planning.power.question import PowerAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerResult(Result):
    """What a training run draws over time; or, where `feasible` is false, why there is none (`training` says)."""

    training: TrainResult
    found: PowerAnswer | None

    @property
    def feasible(self) -> bool:
        """Whether a plan can run."""
        return self.found is not None

    @property
    def answer(self) -> PowerAnswer:
        """Series, swings, cap, smoothing, energies.

        Raises: ScenarioError if no plan can run
        """
        if self.found is None:
            raise ScenarioError(f"no plan can run: {self.training.rejected}", hint="ask .feasible first")
        return self.found

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.power import power_blocks
        from ultratwin.report.training import training_blocks

        if self.found is None:
            return training_blocks(self.training.question, self.training.answer, self.training.explain())
        return power_blocks(self.found)

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.power import power_json

        return self.training.as_dict() if self.found is None else power_json(self.found)


def power(
    model: str | Path | Model,
    system: str | System,
    *,
    chips: int | None = None,
    duration_s: float = 600.0,
    resolution_s: float = 1.0,
    checkpoint_s: float | None = None,
    failures: str | Path = "default",
    fail_at_s: float | None = None,
    recovery: str = "automatic",
    from_start: bool = False,
    cap_w: float | None = None,
    smoothing_s: float = 0.0,
    ballast_frac: float = 0.0,
    **options: Any,
) -> PowerResult:
    """What training a model on a system draws from the grid over time.

    Args:
        model, system, chips: as of `train`
        duration_s, resolution_s: of the window and its bins; from_start: it begins with the job's start
        checkpoint_s: work between saves, None for the best, infinite for none
        failures: "default", "none" or a TOML file; fail_at_s: one failure at that time instead; recovery: how it ends
        cap_w: what the site may draw: the clock is lowered until it holds
        smoothing_s: time constant of a battery; ballast_frac: share of the mean that chips keep the load above
        options: as of `train`: tokens, precision, framework, axes of the layout, region, seed, ...
    Returns: the result; a plan that can't run is a result too
    Raises: UltratwinError for bad input
    """
    from ultratwin.planning.power.over_time import answer_power
    from ultratwin.planning.power.question import PowerAnswer, PowerQuestion

    named = checked_name("system", system) if isinstance(system, str) else system
    training = training_question(model, named, checked_count("chips", chips), options)
    found = answer_power(
        PowerQuestion(
            training=training, duration_s=duration_s, resolution_s=resolution_s, checkpoint_s=checkpoint_s,
            failures=failures, fail_at_s=fail_at_s, recovery=recovery, from_start=from_start, cap_w=cap_w,
            smoothing_s=smoothing_s, ballast_frac=ballast_frac,
        )
    )  # fmt: skip
    drawn = found if isinstance(found, PowerAnswer) else None
    answer = found.training if isinstance(found, PowerAnswer) else found
    return PowerResult(training=TrainResult(question=training, answer=answer), found=drawn)
