"""Options that the verbs about training share: what is trained, the layout, the site."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cyclopts import Group, Parameter

from ultratwin.cli.parameters import Count, Money, Names, Prices, Quantity

_LAYOUT = Group("Layout (what is left out is searched)", sort_key=2)
_RUN = Group("Training", sort_key=1)
OUTPUT = Group("Output", sort_key=4)
_SITE = Group("Site and money", sort_key=3)
_POOLS = Group("Pools of several kinds of chips", sort_key=2)


@Parameter(name="*", group=_RUN)
@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and how."""

    tokens: Quantity | None = None
    "Tokens of the whole run, such as 15.6T [default: 20 per parameter]."
    precision: str = "bf16"
    "bf16, fp16, fp8, fp8-block, mxfp8, mxfp4, nvfp4 or int8."
    framework: str | None = None
    "A framework profile (`ultratwin catalogue profiles`) [default: the chip family's usual one]."
    seq_length: Count | None = None
    "Tokens of a sequence [default: the model's, at most 8192]."
    global_batch_size: Count | None = None
    "Sequences of a step [default: by model size]."


@Parameter(name="*", group=_LAYOUT)
@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of the parallel axes; with tensor, pipeline and micro-batch sizes the layout is whole."""

    tensor_parallel_size: Count | None = None
    "Ranks that share each layer's matrices."
    pipeline_parallel_size: Count | None = None
    "Pipeline stages."
    virtual_pipeline_size: Count | None = None
    "Model chunks per stage (interleaved schedule)."
    context_parallel_size: Count | None = None
    "Ranks that share each sequence."
    expert_parallel_size: Count | None = None
    "Ranks that share the experts."
    expert_tensor_parallel_size: Count | None = None
    "Ranks that share each expert's matrices."
    data_parallel_size: Count | None = None
    "Copies of the model [default: what the chips leave]."
    micro_batch_size: Count | None = None
    "Sequences that a pipeline takes at once."
    zero_stage: Count | None = None
    "What is sharded over data-parallel ranks: 0 nothing, 1 optimizer state, 2 and gradients, 3 and weights (FSDP)."
    shard_size: Count | None = None
    "Ranks that ZeRO shards over (HSDP) [default: all data-parallel ranks]."
    sequence_parallel: bool | None = None
    "Whether norms and residuals are split over the tensor-parallel ranks."
    recompute: str | None = None
    "Activations recomputed: none, selective or full."
    schedule: str | None = None
    "Pipeline schedule: gpipe, 1f1b, interleaved, zb-h1, ..."


@Parameter(name="*", group=_SITE)
@dataclass(frozen=True, kw_only=True)
class Site:
    """Where it runs and what it costs."""

    region: str = "world"
    "Whose grid and PUE count (`ultratwin catalogue regions`)."
    price_per_chip_hour: Money | None = None
    "Your own price in USD, instead of the public ones."


@Parameter(name="*", group=_POOLS)
@dataclass(frozen=True, kw_only=True)
class Pools:
    """Pools of several kinds of chips, instead of one system."""

    pools: str = ""
    "Systems and units of each instead of --system, such as trn3-gen2-ultraserver:36,p6e-gb200-ultraserver:8."
    fabric: str = ""
    "What joins them: efa, nvlink-fusion, infiniband, ... [default: the fastest that all have]."
    pool_layers: Names = ()
    "Layers of the pipeline stages on each pool, such as 96,30 [default: searched, with other ways to divide the job]."
    price: Prices = ()
    "Your own price of a pool's system in USD per chip and hour: SYSTEM=USD, several by commas."


def chosen_options(*parts: Any) -> dict[str, Any]:
    """The fields of option groups as one mapping, names as in Python."""
    return {each.name: getattr(part, each.name) for part in parts for each in dataclasses.fields(part)}
