"""Serving measurements: one row of serving.csv to a model, a machine, a plan of each worker, an engine and a load.

Everything is read from the row's own columns; nothing here knows a model, a row or a source by name.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from ultratwin.catalogue import loader
from ultratwin.errors import CatalogueError, UltratwinError
from ultratwin.hardware.chip import load_chip
from ultratwin.hardware.system import Domain, Fabric, Pool
from ultratwin.mapping.engine import Engine, find_engine, on_chip
from ultratwin.mapping.serving import ServingPlan
from ultratwin.mapping.serving_formats import ServingFormats, serving_formats
from ultratwin.validation.machines import pool_of
from ultratwin.validation.rows import Row, Skip, number, row_id, word
from ultratwin.validation.serving_texts import (
    SharedPrefix,
    extras,
    format_name,
    kv_format,
    limits_s,
    mean_lengths,
    num_beams,
    parallel_plan,
    shared_prefix,
    shortest_frac,
    stated,
    worker_plan,
)
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

METRICS: Final[dict[str, str]] = {
    **{f"ttft_{each}_ms": "ms" for each in ("mean", "p50", "p90", "p99")},
    **{f"tpot_{each}_ms": "ms" for each in ("mean", "p50", "p90", "p99")},
    **{f"itl_{each}_ms": "ms" for each in ("mean", "p50", "p99")},
    **{f"e2e_{each}_ms": "ms" for each in ("mean", "p50", "p90", "p99")},
    "req_per_s": "request/s", "total_tok_s": "token/s", "output_tok_s": "token/s", "input_tok_s": "token/s",
    "total_tok_s_per_chip": "token/s", "output_tok_s_per_chip": "token/s", "avg_power_w_per_chip": "W",
    "j_per_output_tok": "J",
}  # fmt: skip
"""Published columns and their units."""
Kind = Literal["closed", "open", "burst", "static", "capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What users ask for.

    kind: "closed" (so many requests in flight), "open" (Poisson arrivals), "burst" (all at once), "static" (one batch,
        start to end), "capacity" (as fast as it goes, for ever)
    concurrency: in flight, or requests of a static batch
    stages: of an open load, (requests per second, requests)
    num_requests: in all; prompt, output: mean tokens; shortest_frac: lengths are uniform from this share of the longest
    burstiness: shape of gamma arrivals, 1 is Poisson
    ttft_limit_s, tpot_limit_s: what a capacity may cost 99 of 100 users, 0 for any
    beams: sequences that a request searches; only one of them counts
    steady: rates are of the time when the server is full
    """

    kind: Kind
    prompt_tokens: float
    output_tokens: float
    num_requests: int
    concurrency: int = 0
    stages: tuple[tuple[float, int], ...] = ()
    shortest_frac: float = 1.0
    burstiness: float = 1.0
    shared: SharedPrefix | None = None
    ttft_limit_s: float = 0.0
    tpot_limit_s: float = 0.0
    beams: int = 1
    steady: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Settings of an engine that a row states; 0 where it does not and the engine's own holds."""

    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    num_kv_blocks: int = 0
    block_size: int = 0
    memory_utilization_frac: float = 0.0
    prefix_caching: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Workers of one kind: a plan each, None where the row does not state it and the best is taken."""

    plan: ServingPlan | None
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRun:
    """A serving row as a question, and what was measured.

    prefill: None where the same workers do both; measured: by column, None where the row publishes nothing
    counts_prompts: the row divides times by prompt and output tokens together
    """

    id: str
    model: Model
    pool: Pool
    formats: ServingFormats
    engine: Engine
    num_chips: float
    decode: Side
    prefill: Side | None
    load: Load
    limits: Limits
    measured: dict[str, float | None]
    counts_prompts: bool
    normalised_itl: bool
    groups: dict[str, str]


def published(row: Row) -> dict[str, float | None]:
    """Columns that the row gives a figure for; all of them, without figures, where it gives none.

    Raises nothing: a broken figure is a column without one.
    """
    found: dict[str, float | None] = {}
    for name in METRICS:
        try:
            if value := number(row, name, 0.0):
                found[name] = value
        except Skip:
            found[name] = None
    return found or dict.fromkeys(METRICS)


def run_of(row: Row, line: int) -> ServingRun:
    """The question that a row asks.

    Raises: Skip with the reason, where the row lacks something or is not meant for scoring
    """
    _check_scorable(row)
    _check_sizes(row)
    model = find_model(word(row, "model"))
    prefill, decode, chips, per_chip = _sides(row)
    machine = serving_pool(word(row, "chip"), int(chips), _instance(word(row, "extra")))
    # measured power is that of the chips, without hosts and network
    pool = dataclasses.replace(machine, ranks_per_chip=per_chip, host_power_w=0.0, network_power_w=0.0)
    engine = _engine(row, pool)
    formats = _formats(row, pool, engine)
    return ServingRun(
        id=row_id(row, line),
        model=model,
        pool=pool,
        formats=formats,
        engine=engine,
        num_chips=chips,
        decode=decode,
        prefill=prefill,
        load=load_of(row),
        limits=_limits(row),
        measured=published(row),
        counts_prompts="counts input and output tokens" in word(row, "notes") and not word(row, "ttft_p50_ms"),
        normalised_itl="inference-perf" in word(row, "workload"),
        groups=groups_of(row),
    )


def groups_of(row: Row) -> dict[str, str]:
    """The labels of a row."""
    serving = word(row, "serving", "agg").lower()
    kind = next((each for each in ("disagg", "mlperf", "static") if each in serving), "aggregated")
    return {
        "source": word(row, "group") or word(row, "source", "unknown")[:60],
        "chip": word(row, "chip", "unknown"),
        "engine": _engine(row, None).id,
        "serving": kind,
        "precision": word(row, "weights_prec", "not stated").lower(),
        "configuration": "complete" if word(row, "complete", "yes") == "yes" else "partly stated",
    }


def configuration_id(row: Row) -> str:
    """Everything but load and lengths: rows that differ in these only belong together when constants are fitted."""
    keys = (
        "model",
        "chip",
        "n_chips",
        "tp",
        "pp",
        "ep",
        "attn_dp",
        "prefill_cfg",
        "decode_cfg",
        "weights_prec",
        "engine",
    )
    return "|".join(word(row, key) for key in keys)


def _check_scorable(row: Row) -> None:
    if word(row, "complete", "yes") == "no":
        raise Skip("not complete")
    if word(row, "tier", "A") not in ("A", "B"):
        raise Skip(f"tier is {word(row, 'tier')}")
    speculative = word(row, "spec_decode").lower()
    if speculative.startswith("unknown"):
        raise Skip("whether it decodes speculatively is not known")
    if speculative and not speculative.startswith("none"):
        raise Skip("it decodes speculatively, and acceptance is not published")
    if re.search("image|video", word(row, "workload")):
        raise Skip("images and video are not modelled")
    if "power capped" in word(row, "chip"):
        raise Skip("a power cap is not modelled")


LARGEST: Final[dict[str, float]] = {
    # more than any published measurement has; a larger figure is a slip, and would only cost memory
    "n_chips": 1e5, "tp": 1e4, "pp": 1e3, "dp": 1e5, "input_len": 1e7, "output_len": 1e7, "max_batch": 4e4,
    "num_requests": 4e5,
}  # fmt: skip


def _check_sizes(row: Row) -> None:
    for key, most in LARGEST.items():
        if number(row, key, 0.0) > most:
            raise Skip(f"{key} is above {most:g}")
    if _in_flight(row) > LARGEST["max_batch"]:
        raise Skip(f"concurrency is above {LARGEST['max_batch']:g}")


_SUFFIXES: Final = (
    r"-(hf|instruct|chat|it|pt|base|fp8|fp4|nvfp4|mxfp4|bf16|int4|awq|gptq|dynamic|\d{4}|v\d(\.\d)?)(?=-|$)"
)


@cache
def find_model(name: str) -> Model:
    """A model of the catalogue, whatever its row adds to the name: owner, number format, tuning, date.

    Raises: Skip if none has that name
    """
    if not name:
        raise Skip("model is empty")
    try:
        return load_model(name)
    except UltratwinError:
        pass
    wanted = _plain(name)
    matching = [each for each in loader.ids("models") if _plain(each) == wanted]
    if not matching:
        raise Skip(f"the catalogue has no model {name!r}")
    return load_model(min(matching, key=len))


@cache
def _plain(name: str) -> str:
    """A model's name without owner, brackets and suffixes: "nvidia/Llama-3.1-8B-Instruct-FP8" is "llama-3.1-8b"."""
    text = re.sub(r"\(.*?\)", "", name.lower()).strip().replace("__", "/").rpartition("/")[2]
    text = text.removeprefix("meta-").replace("_", "-")
    while (shorter := re.sub(_SUFFIXES, "", text)) != text:
        text = shorter
    return text


@cache
def serving_pool(chip: str, num_chips: int, text: str) -> Pool:
    """The machine of a row: the system that the text names, else the chip's plain node, wide enough for its ranks.

    Raises: Skip if the catalogue has no such chip
    """
    try:
        pool = pool_of(chip, text)
    except Skip:
        try:
            chip_id = loader.resolve("chips", chip)
        except CatalogueError:
            raise Skip(f"the catalogue has no chip {chip!r}") from None
        if num_chips > 1:
            raise
        alone = Domain(size=1, topology="none", link="", bytes_per_s=0.0, latency_s=0.0)
        fabric = Fabric(link="", bytes_per_s=0.0, latency_s=0.0)
        return Pool(chip=load_chip(chip_id), domain=alone, fabric=fabric, chips_per_node=1)
    return pool


def _instance(extra: str) -> str:
    """The cloud instance that a text names."""
    found = re.search(r"\b[a-z]\w*\.\d*x?large|\b[a-z]\w*\.metal", extra)
    return found[0] if found else ""


def _engine(row: Row, pool: Pool | None) -> Engine:
    """The engine that a row names; a maker's usual one where it names none."""
    text = word(row, "engine")
    if not text or text.lower().startswith("see "):
        text = _USUAL.get(pool.chip.vendor.lower(), "") if pool else ""
    elif re.search(r"tensorrt(?!-llm)|trt-llm", text, re.IGNORECASE):
        text = "TensorRT-LLM"
    engine = find_engine(text, word(row, "engine_version"))
    engine = on_chip(engine, pool.chip) if pool else engine
    ahead = "async-scheduling: true" in word(row, "extra")
    return dataclasses.replace(engine, overlaps_host=True) if ahead else engine


_USUAL: Final = {"nvidia": "TensorRT-LLM", "amd": "vLLM"}


def _formats(row: Row, pool: Pool, engine: Engine) -> ServingFormats:
    quantised = extras(row).get("gemm_quant", "")
    name = format_name(word(row, "weights_prec"), quantised, frozenset(pool.chip.peak_flop_per_s))
    return serving_formats(name, kv_format(word(row, "kv_prec"), name, engine.id))


def _sides(row: Row) -> tuple[Side | None, Side, float, int]:
    """Prefill and decode workers, chips, and ranks that a chip holds."""
    chips = number(row, "n_chips", 0.0)
    if "disagg" in word(row, "serving"):
        (many, first), (few, second) = worker_plan(word(row, "prefill_cfg")), worker_plan(word(row, "decode_cfg"))
        held = float(many * first.num_ranks + few * second.num_ranks)
        return Side(plan=first, workers=many), Side(plan=second, workers=few), chips or held, 1
    if not word(row, "tp") and "mlperf" in word(row, "serving").lower():
        if not chips:
            raise Skip("n_chips is empty")
        return None, Side(plan=None, workers=1), chips, 1
    plan = parallel_plan(row)
    ranks = int(plan.num_ranks)
    per_chip = _ranks_per_chip(word(row, "extra"), ranks, chips)
    if not chips:
        chips = ranks / per_chip
    workers = int(number(row, "dp", 0.0)) or max(int(chips * per_chip) // ranks, 1)
    if per_chip > 1:
        workers = 1
    return None, Side(plan=plan, workers=workers), chips, per_chip


def _ranks_per_chip(extra: str, ranks: int, chips: float) -> int:
    if found := re.search(r"(\d+) per chip", extra):
        return int(found[1])
    return max(int(ranks / chips), 1) if chips else 1


def _limits(row: Row) -> Limits:
    values = {key: text for key, text in extras(row).items() if stated({key: text}, key) <= LARGEST["num_requests"]}
    cap = re.search(r"gpu_mem_fraction (0\.\d+)", word(row, "notes"))
    caching = values.get("prefix_caching", "on").lower() != "off" and "prefix caching off" not in word(row, "extra")
    return Limits(
        max_num_seqs=int(number(row, "max_batch", 0.0)),
        max_num_batched_tokens=int(stated(values, "mbt")),
        num_kv_blocks=int(stated(values, "kv_blocks")),
        block_size=int(stated(values, "block")),
        memory_utilization_frac=float(cap[1]) if cap else min(stated(values, "gpu_mem_util"), 1.0),
        prefix_caching=caching,
    )


def load_of(row: Row) -> Load:
    """What users ask of a row's server.

    Raises: Skip where the load is not stated
    """
    prompt, output = mean_lengths(row)
    serving, rate = word(row, "serving").lower(), word(row, "request_rate").lower()
    requests = int(number(row, "num_requests", 0.0))
    base = Load(
        kind="closed",
        prompt_tokens=prompt,
        output_tokens=output,
        num_requests=requests,
        shortest_frac=shortest_frac(row),
        burstiness=stated(extras(row), "burstiness") or 1.0,
        shared=shared_prefix(row),
        beams=num_beams(row),
    )
    in_flight = _in_flight(row)
    if "mlperf" in serving:
        if "singlestream" in serving:
            return dataclasses.replace(base, kind="closed", concurrency=1, num_requests=10)
        first, each = limits_s(row)
        return dataclasses.replace(base, kind="capacity", ttft_limit_s=first, tpot_limit_s=each)
    if "static" in serving:
        batch = in_flight or int(number(row, "max_batch"))
        return dataclasses.replace(base, kind="static", concurrency=batch, num_requests=batch)
    slots = int(number(row, "max_batch", 0.0))
    if "at once" in word(row, "workload") and slots:
        return dataclasses.replace(base, concurrency=slots, num_requests=6 * slots, shortest_frac=0.8, steady=True)
    if rate == "inf" and in_flight == 0:
        return dataclasses.replace(base, kind="burst", num_requests=requests or 3000)
    if rate and rate != "inf":
        return dataclasses.replace(base, kind="open", stages=_stages(rate, requests))
    if not in_flight:
        raise Skip("neither concurrency nor a request rate is stated")
    return dataclasses.replace(base, concurrency=in_flight, num_requests=requests or 10 * in_flight)


def _in_flight(row: Row) -> int:
    text = word(row, "concurrency")
    try:
        return max(int(float(text)), 0)
    except (ValueError, OverflowError):
        return 0


def _stages(rate: str, requests: int) -> tuple[tuple[float, int], ...]:
    """Stages of equal length, as "2.5+6": requests in proportion to the rates."""
    try:
        rates = [float(each) for each in rate.split("+")]
    except ValueError:
        raise Skip(f"request_rate is not a number: {rate[:40]!r}") from None
    if not all(0 < each <= 1e6 for each in rates):
        raise Skip(f"request_rate is not a positive number: {rate[:40]!r}")
    total = requests or int(600 * sum(rates))
    return tuple((each, max(round(total * each / sum(rates)), 1)) for each in rates)
