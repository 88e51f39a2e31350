"""What a program calls about video: `diffuse` and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultratwin.api.result import ExplainedResult
from ultratwin.catalogue import loader
from ultratwin.errors import required
from ultratwin.hardware.system import System
from ultratwin.mapping.plan import Rejected
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.checks import checked_count, checked_name
from ultratwin.planning.checks import price_usd_per_chip_s as per_second
from ultratwin.planning.diffusion.question import (
    DiffusionAnswer,
    DiffusionQuestion,
    VideoChoice,
    VideoDemand,
    answer_diffusion,
)
from ultratwin.planning.uncertainty import Range
from ultratwin.workload.video import VideoModel

if TYPE_CHECKING:
    from ultratwin.report.tables import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffuseResult(ExplainedResult):
    """How fast a video is made; or, where `feasible` is false, why it can't be."""

    question: DiffusionQuestion
    answer: DiffusionAnswer

    @property
    def feasible(self) -> bool:
        """Whether a layout fits."""
        return self.answer.best is not None

    @property
    def rejected(self) -> Rejected | None:
        """Why nothing can run; None if something does."""
        return self.answer.rejected

    @property
    def best(self) -> VideoChoice:
        """The fastest layout.

        Raises: ScenarioError if nothing can run
        """
        return required(self.answer.best, f"nothing can run: {self.answer.rejected}")

    @property
    def realtime(self) -> VideoChoice | None:
        """The fewest chips that keep up with the video; None if none do."""
        return self.answer.realtime

    @property
    def front(self) -> tuple[VideoChoice, ...]:
        """What nothing beats in chips and speed, fewest chips first."""
        return self.answer.front

    @property
    def frames_per_s(self) -> Range:
        """Frames per second of one video under the fastest layout.

        Raises: ScenarioError if nothing can run
        """
        return required(self.answer.outcome, f"nothing can run: {self.answer.rejected}").frames_per_s

    def explain(self) -> str:
        """Where a step's time goes, and every figure used, with its source."""
        from ultratwin.report.diffusion import diffusion_explanation

        return diffusion_explanation(self.question, self.answer)

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.diffusion import diffusion_blocks

        return diffusion_blocks(self.question, self.answer)

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.diffusion import diffusion_json

        return diffusion_json(self.question, self.answer)


def diffuse(
    model: str | Path | VideoModel,
    system: str | System,
    *,
    frames: int = 81,
    height: int = 480,
    width: int = 832,
    steps: int | None = None,
    guidance_passes: int | None = None,
    frames_per_second: float | None = None,
    chunk_frames: int = 0,
    window_frames: int = 0,
    chips: int | None = None,
    tensor_parallel_size: int | None = None,
    ulysses_size: int | None = None,
    ring_size: int | None = None,
    guidance_parallel_size: int | None = None,
    precision: str = "bf16",
    region: str = "world",
    price_per_chip_hour: float | None = None,
    seed: int = 0,
) -> DiffuseResult:
    """How fast a diffusion transformer makes a video on a system; the layout is chosen where it is not given.

    Args:
        model: catalogue name (`ultratwin catalogue diffusion`), path of a JSON file, or a VideoModel
        system: catalogue name, or a System
        frames, height, width: of the video [frames, pixels]
        steps, guidance_passes, frames_per_second: as the model was trained where left out
        chunk_frames: made at a time, each chunk seeing the last window_frames; 0: the whole clip at once
        chips: the most that one video may use; one unit of the system where left out
        *_size: of the layout; precision: number formats of weights; region: whose grid and PUE
        price_per_chip_hour: your own [USD]; seed: of the samples that ranges are drawn from
    Returns: the result; what can't run is a result too
    Raises: UltratwinError for bad input
    """
    serving_formats(precision)
    sizes = {
        "tensor_size": tensor_parallel_size, "ulysses_size": ulysses_size, "ring_size": ring_size,
        "guidance_size": guidance_parallel_size,
    }  # fmt: skip
    question = DiffusionQuestion(
        model=model,
        system=checked_name("system", system) if isinstance(system, str) else system,
        demand=VideoDemand(
            frames=checked_count("frames", frames) or 1, height=checked_count("height", height) or 1,
            width=checked_count("width", width) or 1, steps=checked_count("steps", steps),
            passes=checked_count("guidance_passes", guidance_passes), frames_per_s=frames_per_second,
            chunk_frames=checked_count("chunk_frames", chunk_frames, lowest=0) or 0,
            window_frames=checked_count("window_frames", window_frames, lowest=0) or 0,
        ),
        chips=checked_count("chips", chips),
        sizes={name: size for name, value in sizes.items() if (size := checked_count(name, value)) is not None},
        precision=precision.lower(), region=loader.resolve("regions", checked_name("region", region)),
        price_usd_per_chip_s=per_second(price_per_chip_hour), seed=checked_count("seed", seed, lowest=0) or 0,
    )  # fmt: skip
    return DiffuseResult(question=question, answer=answer_diffusion(question))
