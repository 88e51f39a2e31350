"""The question of `ultratwin diffuse`: how fast a diffusion transformer makes video, on how many chips."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.system import System, load_system, per_rank
from ultratwin.mapping.engine import GENERIC, load_engine
from ultratwin.mapping.plan import Rejected
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.diffusion.outcome import Outcome, drawn_outcome
from ultratwin.planning.run import sampled_setting
from ultratwin.planning.uncertainty import Sampler
from ultratwin.timing.diffusion import (
    VideoLayout,
    VideoSetting,
    VideoTokens,
    memory_parts,
    step_bound_s,
    step_parts,
)
from ultratwin.workload.video import VideoModel, latent_frames, load_video_model, tokens_per_latent_frame

AXES: Final = ("tensor_size", "ulysses_size", "ring_size", "guidance_size")
"""Sizes of a layout that may be fixed."""
_RINGS: Final = tuple(sorted({2**i * 3**j for i in range(11) for j in range(3) if 2**i * 3**j <= 1024}))
CACHE_PASSES: Final = 1
"""Passes of a chunk beside its denoising steps: its clean latents once more, for the keys and values that later chunks
see (Self Forcing, arXiv 2506.08009, algorithm 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDemand:
    """The video: its size, and how it is made. 0 or None: as the model was trained.

    `chunk_frames`: frames that are made at a time, each chunk seeing the `window_frames` up to its end; 0: all at once.
    """

    frames: int = 81
    height: int = 480
    width: int = 832
    steps: int | None = None
    passes: int | None = None
    frames_per_s: float | None = None
    chunk_frames: int = 0
    window_frames: int = 0


_USUAL: Final = VideoDemand()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionQuestion:
    """Who makes which video on what. `chips`: the most for one video; one unit of the system where left out.

    `sizes`: of the layout where fixed, by AXES.
    """

    model: str | Path | VideoModel
    system: str | System
    demand: VideoDemand = _USUAL
    chips: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    precision: str = "bf16"
    region: str = "world"
    price_usd_per_chip_s: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoChoice:
    """One layout and what it does: seconds of a step and of what is shown at once, frames per second of one video."""

    layout: VideoLayout
    chips: float
    step_s: float
    shown_s: float
    frames_per_s: float
    memory_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionAnswer:
    """The fastest layout, what it costs, and how speed grows with chips; or why nothing can run.

    `front`: layouts that no other beats in chips and speed, fewest chips first. `realtime`: the first of them that
    keeps up with the video; None if none does. `shown_frames`: frames of a clip, or of a chunk.
    """

    setting: VideoSetting
    system: System
    demand: VideoDemand
    tokens: VideoTokens
    shown_frames: int
    passes: int
    front: tuple[VideoChoice, ...]
    best: VideoChoice | None
    realtime: VideoChoice | None
    outcome: Outcome | None
    parts: dict[str, float]
    bound_s: float
    memory: dict[str, float]
    memory_capacity_bytes: float
    num_layouts: int
    rejected: Rejected | None


def answer_diffusion(question: DiffusionQuestion) -> DiffusionAnswer:
    """The answer of a question.

    Raises: UltratwinError for a model, system, video or layout that can't be
    """
    given = question.model if isinstance(question.model, VideoModel) else load_video_model(question.model)
    demand = _filled(question.demand, given)
    model = dataclasses.replace(given, passes=demand.passes, steps=demand.steps, frames_per_s=demand.frames_per_s)
    system = question.system if isinstance(question.system, System) else load_system(question.system)
    setting = VideoSetting(
        model=model, pool=system.pool, formats=serving_formats(question.precision), engine=load_engine(GENERIC)
    )
    tokens, shown = video_tokens(model, demand)
    layouts = _layouts(question, setting, system)
    held = memory_parts(setting, layouts, tokens, is_streamed=demand.chunk_frames > 0)
    capacity = float(np.min(per_rank(setting.pool).chip.memory_bytes)) * setting.engine.memory_utilization_frac
    need = np.broadcast_to(np.asarray(sum(held.values())), np.shape(layouts.num_ranks))
    fits = need <= capacity
    passes = model.steps + (CACHE_PASSES if demand.chunk_frames else 0)
    common = {
        "setting": setting, "system": system, "demand": demand, "tokens": tokens, "shown_frames": shown,
        "passes": passes, "memory_capacity_bytes": capacity, "num_layouts": len(fits),
    }  # fmt: skip
    if not np.any(fits):
        least = int(np.argmin(need))
        memory = {name: _at(value, least) for name, value in held.items()}
        rejected = Rejected(
            reason="a rank's memory is too small", needed=float(need[least]), available=capacity, unit="byte"
        )
        return DiffusionAnswer(
            **common, front=(), best=None, realtime=None, outcome=None, parts={}, bound_s=float("nan"), memory=memory,
            rejected=rejected,
        )  # fmt: skip
    fitting = _chosen(layouts, np.flatnonzero(fits))
    step = np.asarray(sum(step_parts(setting, fitting, tokens).values()), dtype=np.float64)
    front = _front(setting, fitting, step, need[fits], passes=passes, shown_frames=shown)
    best = front[-1]
    realtime = next((each for each in front if each.frames_per_s >= model.frames_per_s), None)
    return DiffusionAnswer(
        **common, front=front, best=best, realtime=realtime,
        outcome=_outcome(question, setting, system, best, tokens, passes, shown),
        parts={name: _at(value, 0) for name, value in step_parts(setting, best.layout, tokens).items()},
        bound_s=_at(step_bound_s(setting, best.layout, tokens), 0),
        memory={
            name: _at(value, 0)
            for name, value in memory_parts(
                setting, best.layout, tokens, is_streamed=demand.chunk_frames > 0
            ).items()
        },
        rejected=None,
    )  # fmt: skip


def _at(values: Number, index: int) -> float:
    found = np.ravel(values)
    return float(found[index if len(found) > 1 else 0])


def _filled(demand: VideoDemand, model: VideoModel) -> Any:
    """The demand with the model's own values where nothing is said, checked.

    Raises: ScenarioError
    """
    found = dataclasses.replace(
        demand, steps=demand.steps or model.steps, passes=demand.passes or model.passes,
        frames_per_s=demand.frames_per_s or model.frames_per_s,
        window_frames=demand.window_frames or (max(demand.frames, demand.chunk_frames) if demand.chunk_frames else 0),
    )  # fmt: skip
    stride = model.vae_stride[0]
    limits = {
        "frames": (1, 10**6), "height": (16, 16_384), "width": (16, 16_384), "steps": (1, 10_000), "passes": (1, 8),
    }  # fmt: skip
    for name, (low, high) in limits.items():
        if not low <= getattr(found, name) <= high:
            raise ScenarioError(f"{name} is {getattr(found, name):,}", allowed=f"{low:,} to {high:,}")
    if found.frames_per_s is None or not 0.1 <= found.frames_per_s <= 1000:
        raise ScenarioError(f"frames_per_s is {found.frames_per_s:g}", allowed="0.1 to 1,000")
    if demand.window_frames and not demand.chunk_frames:
        raise ScenarioError("a window without chunks", where="window_frames", hint="give chunk_frames too")
    if found.chunk_frames % stride or demand.window_frames % stride:
        raise ScenarioError(
            f"chunks of {found.chunk_frames} and a window of {found.window_frames} frames",
            allowed=f"multiples of {stride}: the autoencoder makes one frame of latents of {stride}",
        )
    if found.chunk_frames and found.window_frames < found.chunk_frames:
        raise ScenarioError(f"a window of {found.window_frames} frames", allowed="no less than a chunk")
    return found


def video_tokens(model: VideoModel, demand: VideoDemand) -> tuple[VideoTokens, int]:
    """Tokens of one pass, and the frames that it makes: of the whole clip, or of one chunk with all that it sees."""
    each = tokens_per_latent_frame(model, demand.height, demand.width)
    if not demand.chunk_frames:
        whole = float(latent_frames(model, demand.frames) * each)
        return VideoTokens(denoised=whole, seen=whole), demand.frames
    stride = model.vae_stride[0]
    chunk, window = demand.chunk_frames // stride, -(-demand.window_frames // stride)
    return VideoTokens(denoised=float(chunk * each), seen=float(window * each)), demand.chunk_frames


def _layouts(question: DiffusionQuestion, setting: VideoSetting, system: System) -> VideoLayout:
    """All layouts of up to so many chips, as arrays [candidate].

    Raises: ScenarioError for more chips than there can be, or if nothing is left of what is fixed
    """
    per_chip = setting.pool.ranks_per_chip
    if question.chips is not None and question.chips > system.max_chips:
        raise ScenarioError(f"{question.chips:,} chips", allowed=f"at most {system.max_chips:,} of {system.id}")
    most = (system.unit_chips if question.chips is None else question.chips) * per_chip
    heads = setting.model.attention.num_heads
    divisors = [each for each in range(1, min(heads, most) + 1) if heads % each == 0]
    guidance = [each for each in range(1, setting.model.passes + 1) if setting.model.passes % each == 0]
    options = {"tensor_size": divisors, "ulysses_size": divisors, "ring_size": list(_RINGS), "guidance_size": guidance}
    for name, size in question.sizes.items():
        options[name] = [size]
    found = [
        sizes
        for sizes in itertools.product(*(options[name] for name in AXES))
        if int(np.prod(sizes)) <= most and int(np.prod(sizes)) % per_chip == 0 and heads % (sizes[0] * sizes[1]) == 0
        and setting.model.passes % sizes[3] == 0
    ]  # fmt: skip
    if not found:
        raise ScenarioError(
            f"no layout has {dict(question.sizes)}" if question.sizes else f"no layout has {most} ranks",
            allowed=f"tensor times Ulysses divides {heads} heads, guidance divides {setting.model.passes} passes, all "
            f"of them and the ring within {most:,} ranks",
        )
    columns = np.array(sorted(found, key=lambda sizes: (int(np.prod(sizes)), sizes)), dtype=np.int64).T
    return VideoLayout(**dict(zip(AXES, columns, strict=True)))


def _chosen(layouts: VideoLayout, rows: Array | Any) -> VideoLayout:
    return VideoLayout(**{name: np.asarray(getattr(layouts, name))[rows] for name in AXES})


def _front(
    setting: VideoSetting, layouts: VideoLayout, step_s: Array, memory: Array, *, passes: int, shown_frames: int
) -> tuple[VideoChoice, ...]:
    """What no other layout beats in ranks and speed, fewest ranks first; ties go to less memory."""
    ranks = np.broadcast_to(np.asarray(layouts.num_ranks), step_s.shape)
    found: list[VideoChoice] = []
    for at in np.lexsort((memory, step_s, ranks)):
        if found and step_s[at] >= found[-1].step_s:
            continue
        shown = float(step_s[at]) * passes
        found.append(
            VideoChoice(
                layout=VideoLayout(**{name: int(np.asarray(getattr(layouts, name))[at]) for name in AXES}),
                chips=float(ranks[at]) / setting.pool.ranks_per_chip,
                step_s=float(step_s[at]),
                shown_s=shown,
                frames_per_s=shown_frames / shown,
                memory_bytes=float(memory[at]),
            )
        )
    return tuple(found)


def _outcome(
    question: DiffusionQuestion, setting: VideoSetting, system: System, best: VideoChoice, tokens: VideoTokens,
    passes: int, shown_frames: int,
) -> Outcome:  # fmt: skip
    """The best layout with every uncertain figure drawn from its range."""
    sampler = Sampler(question.seed)
    drawn = cast("VideoSetting", sampled_setting(cast("Any", setting), system, sampler))
    parts = step_parts(drawn, best.layout, tokens)
    return drawn_outcome(
        parts, setting, system, sampler, chips=best.chips, passes=passes, shown_frames=shown_frames,
        region=question.region, price_usd_per_chip_s=question.price_usd_per_chip_s,
    )  # fmt: skip
