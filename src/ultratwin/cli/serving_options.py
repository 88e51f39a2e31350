"""Options that the verbs about serving share: the load, the replica, the engine, the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from ultratwin.cli.parameters import Count, Flag, Money, Prices, Quantity

_LOAD = Group("Load", sort_key=1)
_REPLICA = Group("Replica (what is left out is chosen)", sort_key=2)
_ENGINE = Group("Engine (what is left out is the engine's own)", sort_key=3)
_MIX = Group("Mixed systems (instead of one)", sort_key=0)
SERVICE = Group("Service", sort_key=4)
OUTPUT = Group("Output", sort_key=5)

Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())]


@Parameter(name="*", group=_LOAD)
@dataclass(frozen=True, kw_only=True)
class Lengths:
    """What a request is."""

    isl: Quantity = 1024.0
    "Tokens of a prompt."
    osl: Quantity = 128.0
    "Tokens of an answer."
    range_ratio: float = 0.0
    "Lengths lie evenly within that share of them, as --random-range-ratio of vllm bench serve."
    prefix_len: Count = 0
    "Tokens that all prompts begin with, beside --isl."
    burstiness: float = 1.0
    "Of the arrivals: 1 is Poisson, below 1 they come in bursts."


@Parameter(name="*", group=_LOAD)
@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """How requests come."""

    request_rate: Quantity | None = None
    "Requests per second of the whole service; inf is all at once."
    concurrency: Count | None = None
    "Requests under way at a time; the next is sent when one ends."
    num_prompts: Count | None = None
    "Requests that are simulated [default: 1000, or the whole trace]."
    trace: Path | None = None
    "A file of requests (Azure, Mooncake, BurstGPT, ShareGPT, vLLM's JSONL, or arrival_s,prompt_tokens,output_tokens)."
    trace_format: str = ""
    "How to read it [default: as its content says]."


@Parameter(name="*", group=_REPLICA)
@dataclass(frozen=True, kw_only=True)
class Replica:
    """How a replica is split over ranks; with a tensor-parallel size the layout is whole."""

    tensor_parallel_size: Count | None = None
    "Ranks that share each layer's matrices."
    pipeline_parallel_size: Count | None = None
    "Pipeline stages."
    data_parallel_size: Count | None = None
    "Attention groups that share the experts (vLLM's DP with experts, SGLang's DP attention)."
    expert_parallel_size: Count | None = None
    "Ways that the experts are spread; the rest of the ranks split each expert."
    enable_expert_parallel: Flag = False
    "Experts lie whole on all ranks of a replica."


@Parameter(name="*", group=_ENGINE)
@dataclass(frozen=True, kw_only=True)
class Engine:
    """The serving engine and its limits."""

    engine: str | None = None
    "vllm, sglang, tensorrt-llm, atom or nxd-inference [default: the chip family's usual one]."
    precision: str = "auto"
    "auto (the checkpoint's own), bf16, fp16, fp8, fp8-block, mxfp8, mxfp4, nvfp4, int8, int4-weight-only, ..."
    kv_cache_dtype: str = "auto"
    "Format of keys and values: auto, bf16 or fp8."
    max_num_seqs: Count | None = None
    "Sequences that run at once."
    max_num_batched_tokens: Count | None = None
    "Tokens of one iteration."
    block_size: Count | None = None
    "Tokens of a block of the KV cache."
    max_model_len: Count | None = None
    "Longest prompt and answer together."
    memory_utilization: float | None = None
    "Share of a chip's memory that the engine takes."
    enable_prefix_caching: Flag = False
    "Beginnings that prompts share are computed once."
    speculative_tokens: Count = 0
    "Tokens drafted in each step by a head of one layer (MTP, EAGLE)."
    acceptance_rate: float = 0.0
    "How likely a drafted token is accepted, if those before it were."


@Parameter(name="*", group=SERVICE)
@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What is asked of the service."""

    goodput: Words = ()
    "Objectives in milliseconds, such as ttft:1000 tpot:30; p99:ttft:2000 for a percentile."
    attainment: float = 0.99
    "Share of requests that must keep the objectives asked of each."
    region: str = "world"
    "Whose PUE counts (`ultratwin catalogue regions`)."
    price_per_chip_hour: Money | None = None
    "Your own price in USD, instead of the public ones."


@Parameter(name="*", group=_MIX)
@dataclass(frozen=True, kw_only=True)
class RolePools:
    """Systems that each do a part of the work: SYSTEM[:UNITS]."""

    prefill: str = ""
    "What computes prompts; with --decode."
    decode: str = ""
    "What writes answers."
    attention: str = ""
    "What keeps attention and all that is dense, where routed experts are elsewhere; with --experts."
    experts: str = ""
    "What computes routed experts."
    target: str = ""
    "What serves the model, where its draft is elsewhere; with --draft."
    draft: str = ""
    "What drafts --speculative-tokens."
    pools: str = ""
    "Two systems behind one router, each serving the whole model: SYSTEM:UNITS,SYSTEM:UNITS."
    price: Prices = ()
    "Your own price of a system in USD per chip and hour: SYSTEM=USD, several by commas."


@Parameter(name="*", group=_MIX)
@dataclass(frozen=True, kw_only=True)
class Joined:
    """What joins the systems."""

    fabric: str = ""
    "Fabrics that may join them: nvlink-fusion, efa, infiniband, roce [default: any that all have]."
    transfer_dtype: str = ""
    "Format in which keys and values travel [default: the smaller of both sides']."
