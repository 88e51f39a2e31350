"""What a program calls to train on pools of several kinds of chips: `train_on_mix` and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultratwin.api.result import RunResult
from ultratwin.api.training import training_question
from ultratwin.errors import required
from ultratwin.hardware.mix import PoolShare
from ultratwin.mapping.plan import Rejected
from ultratwin.planning.checks import checked_count, prices_usd_per_chip_s
from ultratwin.planning.mixed.training import MixedAnswer, MixedQuestion, answer_mixed_training
from ultratwin.planning.mixed.training_goodput import Goodput
from ultratwin.planning.mixed.training_search import MixedCandidate
from ultratwin.planning.run import Run
from ultratwin.report.tables import Block
from ultratwin.workload.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedTrainResult(RunResult):
    """What a training run on pools of several kinds takes; or, where `feasible` is false, why it can't run."""

    question: MixedQuestion
    answer: MixedAnswer

    @property
    def feasible(self) -> bool:
        """Whether any layout can run, on all pools or on one."""
        return self.answer.best is not None

    @property
    def rejected(self) -> Rejected | None:
        """Why nothing can run."""
        return self.answer.rejected

    @property
    def best(self) -> MixedCandidate:
        """The best layout, mixed or of one kind.

        Raises: ScenarioError if nothing can run
        """
        return required(self.answer.best, f"nothing can run: {self.answer.rejected}")

    @property
    def mixed(self) -> MixedCandidate | None:
        """The best layout that uses every pool; None if none can run."""
        return self.answer.mixed

    @property
    def ways(self) -> Mapping[str, tuple[MixedCandidate, ...]]:
        """The best layouts of every way to divide the job: "stages", "groups", "tensor" and "one kind"."""
        return self.answer.found.best

    @property
    def run(self) -> Run:
        """The whole run of the best layout.

        Raises: ScenarioError if nothing can run
        """
        return required(self.answer.run, f"nothing can run: {self.answer.rejected}").run

    @property
    def goodput(self) -> Goodput | None:
        """What failures leave."""
        return self.answer.goodput

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.mixed_training import mixed_training_blocks

        return mixed_training_blocks(self.question, self.answer)

    def explain(self) -> str:
        """Why each kind's step takes what it takes, and every figure used, with its source."""
        from ultratwin.report.mixed_training import mixed_explanations

        found = mixed_explanations(self.question, self.answer)
        return "\n\n".join(f"{system}\n{each}" for system, each in found.items())

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.mixed_training import mixed_training_json

        return mixed_training_json(self.question, self.answer)


def train_on_mix(
    model: str | Path | Model,
    pools: str | Sequence[PoolShare],
    *,
    fabric: str = "",
    layers: Sequence[float] = (),
    prices_per_chip_hour: Mapping[str, float] | None = None,
    **options: Any,
) -> MixedTrainResult:
    """What training a model on pools of several kinds of chips takes, divided in the best way.

    Args:
        model: catalogue name, path of a config.json, hub id, or a Model
        pools: "SYSTEM[:UNITS],SYSTEM[:UNITS]", or shares
        fabric: what joins them ("efa", "nvlink-fusion", ...); the fastest that all have where left out
        layers: of the pipeline stages on each pool, in their order; searched where left out
        prices_per_chip_hour: your own prices by system [USD]
        options: as of `train`: tokens, precision, seq_length, global_batch_size, axes of the layout (they hold on every
            pool; pipeline_parallel_size counts the stages of all pools), region, objective, seed
    Returns: the result; a job that can't run is a result too
    Raises: UltratwinError for bad input
    """
    question = MixedQuestion(
        training=training_question(model, "", None, options),
        pools=pools if isinstance(pools, str) else tuple(pools),
        fabric=fabric,
        layers=tuple(checked_count("layers", each, lowest=0) or 0 for each in layers),
        prices_usd_per_chip_s=prices_usd_per_chip_s(prices_per_chip_hour),
    )
    return MixedTrainResult(question=question, answer=answer_mixed_training(question))


__all__ = ["MixedTrainResult", "train_on_mix"]
