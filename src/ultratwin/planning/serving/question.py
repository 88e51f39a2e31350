"""The question that `serve` asks, in the user's words; and the setting and mean load that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ultratwin.hardware.system import System, load_system
from ultratwin.mapping.engine import load_engine, on_chip
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.serving.mix import Load, Speculation
from ultratwin.planning.serving.nodes import NO_DRAFTS
from ultratwin.planning.serving.slo import Slos
from ultratwin.timing.serving import ServingSetting
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

DEFAULT_ENGINES: Final = {"neuron": "nxd-inference"}
"""The engine that a chip family is usually served with; vLLM for all others."""
DEFAULT_PROMPT: Final = 1024
DEFAULT_OUTPUT: Final = 128
"""Lengths where none are given: `vllm bench serve --dataset-name random`."""
FIDELITIES: Final = ("analytic", "event")
_NO_SLOS: Final = Slos()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What users ask for: lengths of requests, and how they come.

    prompt_tokens, output_tokens: means (isl, osl); range_frac: lengths lie evenly within that share of them
    prefix_tokens: what all prompts begin with, beside prompt_tokens
    request_rate: of the whole service [1/s]; or concurrency: requests under way in it; neither: as many as can run
    num_prompts: how many a simulation has; burstiness: shape of the gamma distribution of gaps, 1 is Poisson
    trace: a file of requests instead; trace_format: how to read it, "" to tell by its content
    """

    prompt_tokens: float = DEFAULT_PROMPT
    output_tokens: float = DEFAULT_OUTPUT
    range_frac: float = 0.0
    prefix_tokens: int = 0
    request_rate: float | None = None
    concurrency: int | None = None
    num_prompts: int | None = None
    burstiness: float = 1.0
    trace: Path | None = None
    trace_format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingQuestion:
    """What is asked, in the user's words: names, sizes, None or "" where the twin shall choose.

    sizes: of the plan, by their name in ServingPlan; limits of None are the engine's
    fidelity: "analytic" (closed form), "event" (every request simulated), "": event where requests are asked about
    """

    model: str | Path | Model
    system: str | System
    demand: Demand = Demand()
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    precision: str = "bf16"
    kv_cache_dtype: str = ""
    engine: str = ""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    max_model_len: int | None = None
    memory_utilization_frac: float | None = None
    prefix_caching: bool = False
    speculation: Speculation = NO_DRAFTS
    replicas: int = 1
    routing: str = ""
    slos: Slos = _NO_SLOS
    fidelity: str = ""
    region: str = "world"
    price_usd_per_chip_s: float | None = None
    seed: int = 0

    @property
    def is_simulated(self) -> bool:
        """Whether single requests are asked about: a trace, their number, or objectives that each must keep."""
        if self.fidelity:
            return self.fidelity == "event"
        return self.demand.trace is not None or self.demand.num_prompts is not None or bool(self.slos)


def serving_setting(question: ServingQuestion) -> tuple[ServingSetting, System]:
    """What a question is about: model, pool, number formats, engine with the limits that were given."""
    model = question.model if isinstance(question.model, Model) else load_model(question.model)
    system = question.system if isinstance(question.system, System) else load_system(question.system)
    chip = system.pool.chip
    engine = on_chip(load_engine(question.engine or DEFAULT_ENGINES.get(chip.family, "vllm")), chip)
    changed: dict[str, Any] = {
        name: float(value)
        for name in ("max_num_seqs", "max_num_batched_tokens", "block_size")
        if (value := getattr(question, name)) is not None
    }
    formats = serving_formats(question.precision, "" if question.kv_cache_dtype == "auto" else question.kv_cache_dtype)
    engine = dataclasses.replace(engine, **changed) if changed else engine
    return ServingSetting(model=model, pool=system.pool, formats=formats, engine=engine), system


def demand_load(question: ServingQuestion) -> Load:
    """The mean request of a demand by laws of chance."""
    demand = question.demand
    prompt = demand.prompt_tokens + demand.prefix_tokens
    # the mean over decoding steps: longer answers have more of them
    longer = 1.0 + demand.range_frac**2 / 3.0
    return Load(
        prompt_tokens=prompt,
        output_tokens=demand.output_tokens,
        cached_frac=demand.prefix_tokens / prompt if question.prefix_caching else 0.0,
        context=prompt + 0.5 * demand.output_tokens * longer,
    )
