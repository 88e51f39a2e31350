"""`ultratwin diffuse`: how fast a diffusion transformer makes video."""

from __future__ import annotations

from dataclasses import dataclass

from cyclopts import Group, Parameter

from ultratwin.cli.parameters import Count, Flag, Money, Quantity
from ultratwin.cli.printing import print_explained
from ultratwin.cli.training_options import OUTPUT, chosen_options

_VIDEO = Group("Video (what is left out is as the model was trained)", sort_key=1)
_LAYOUT = Group("Layout (what is left out is searched)", sort_key=2)


@Parameter(name="*", group=_VIDEO)
@dataclass(frozen=True, kw_only=True)
class Video:
    """The video, and how it is made."""

    frames: Count = 81
    "Frames of a clip that is made at once."
    height: Count = 480
    "Pixels from top to bottom."
    width: Count = 832
    "Pixels from side to side."
    frames_per_second: Quantity | None = None
    "At which the video plays."
    steps: Count | None = None
    "Denoising steps; distilled models need 1 to 8."
    guidance_passes: Count | None = None
    "Forward passes of a step: 2 with classifier-free guidance, 1 without or where it is distilled into the model."
    chunk_frames: Count = 0
    "Frames that are made at a time, for a stream without end; 0: the whole clip at once."
    window_frames: Count = 0
    "Frames that a chunk sees, itself included [default: as many as a clip has]."


@Parameter(name="*", group=_LAYOUT)
@dataclass(frozen=True, kw_only=True)
class Spread:
    """How many chips compute one video, and how."""

    chips: Count | None = None
    "The most chips for one video [default: one unit of the system]."
    tensor_parallel_size: Count | None = None
    "Ranks that split each block's matrices."
    ulysses_size: Count | None = None
    "Ranks that exchange tokens for heads around attention."
    ring_size: Count | None = None
    "Ranks round which keys and values go."
    guidance_parallel_size: Count | None = None
    "Ranks that share the passes of a step."
    precision: str = "bf16"
    "bf16, fp8, mxfp8, nvfp4, ... of the blocks' matrices; attention stays in 16 bits."


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """Where it runs, and what is printed."""

    region: str = "world"
    "Whose grid and PUE (`ultratwin catalogue regions`)."
    price_per_chip_hour: Money | None = None
    "Your own price in USD."
    seed: Count = 0
    "Of the samples that ranges are drawn from."
    json: Flag = False
    "Print JSON instead of tables."
    explain: Flag = False
    "Print every figure used, with its source."


def diffuse(
    model: str,
    /,
    *,
    system: str,
    video: Video | None = None,
    spread: Spread | None = None,
    output: Output | None = None,
) -> int:
    """How fast a diffusion transformer makes video: frames per second against chips, latency, cost, energy.

    Parameters
    ----------
    model
        A model of `ultratwin catalogue diffusion`, or a JSON file with its sizes.
    system
        A system of `ultratwin catalogue systems`.
    """
    import ultratwin

    shown = output or Output()
    result = ultratwin.diffuse(
        model, system, **chosen_options(video or Video(), spread or Spread()), region=shown.region,
        price_per_chip_hour=shown.price_per_chip_hour, seed=shown.seed,
    )  # fmt: skip
    return print_explained(result, json=shown.json, explain=shown.explain)
