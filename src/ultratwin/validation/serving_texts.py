"""What the texts of a serving row say: number formats, parallel sizes, lengths, settings, definitions of metrics.

Measurements come from many harnesses, each with its own words. Every rule here is about a spelling, none about a model,
a row or a source.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from ultratwin.mapping.serving import ServingPlan
from ultratwin.validation.rows import Row, Skip, number, word

# weights text -> serving format; the first that matches
_FORMATS: Final = (
    (r"int4|awq|gptq|w4a16", "int4-weight-only"),
    (r"int8|w8a16", "int8-weight-only"),
    (r"mxfp8", "mxfp8"),
    (r"bf16|bfloat|float16|fp16|half|16/", "bf16"),
    (r"mxfp4", "mxfp4"),
    (r"nvfp4|fp4", "nvfp4"),
    (r"fp8.?block", "fp8-block"),
    (r"fp8", "fp8"),
)  # fmt: skip
# what of free texts is read, by column; tools/make_truth_serving.py keeps nothing else
READ: Final[dict[str, tuple[str, ...]]] = {
    "workload": (
        r"\[0\.\d+, ?1\.0\]", r"shared_prefix", r"inference-perf", r"at once", r"closed loop", r"MLPerf \S+",
        r"text|image|video",
    ),
    "len_note": (
        r"\d+ ?x ?\d+( users)?, (sys )?\d+ ?\+ ?(q )?\d+", r"\d+ sys prompts x\d+ users, \d+ sys \+ \d+ question",
        r"generated length is fixed at \d+", r"generated mean is [^;]*?\(\d+-\d+\)",
        r"generated mean in v\S+ about [\d,]+", r"input lengths only", r"0\.9x", r"nominal",
    ),
    "request_file": (r"[^/\s]+\.(?:csv|jsonl)",),
    "notes": (r"counts input and output tokens", r"gpu_mem_fraction 0\.\d+", r"dataset tokens counted as output"),
    "extra": (
        r"(mbt|block|kv_blocks|gpu_mem_util|prefix_caching|burstiness|avg_batch|gemm_quant|org)=[^;]*",
        r"\d+ per chip", r"\b[a-z]\w*\.\d*x?large", r"prefix caching \w+", r"async-scheduling: \w+",
    ),
}  # fmt: skip
SLO_S: Final[dict[str, tuple[tuple[float, float], tuple[float, float]]]] = {
    # MLPerf task -> TTFT and TPOT that 99 % of requests must keep: server, interactive [s]
    # (mlcommons/inference_policies, inference_rules.adoc, table of constraints)
    "llama2-70b": ((2.0, 0.2), (0.45, 0.04)),
    "llama3.1-405b": ((6.0, 0.175), (4.5, 0.08)),
    "deepseek-r1": ((2.0, 0.08), (1.5, 0.015)),
    "gpt-oss-120b": ((3.0, 0.08), (2.0, 0.02)),
    "llama3.1-8b": ((2.0, 0.1), (0.5, 0.03)),
    "mixtral-8x7b": ((2.0, 0.2), (2.0, 0.2)),
}  # fmt: skip
TASK_TOKENS: Final[dict[str, tuple[float, float]]] = {
    # MLPerf task -> mean prompt and generated tokens where a row states none (mlcommons/inference, README of each task)
    "gptj": (778.0, 69.0),
    "mixtral-8x7b": (427.0, 145.0),
    "llama3.1-405b": (9428.0, 684.0),
}


MOST: Final = 100_000
"""More users or tokens than any shared-prefix workload has."""
CHAT_PROMPT_TOKENS: Final = 222.0
"""Where a chat workload's prompts are not published: the mean of MLPerf's llama2-70b data set (OpenOrca)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """Prompts of a few groups: each group's users share its first tokens; a user asks the same question each time."""

    groups: int
    users: int
    system_tokens: int
    question_tokens: int


def extras(row: Row) -> dict[str, str]:
    """The "key=value;..." of a row's extra column, lower-case keys; a value of "None" or "nan" is left out."""
    found = {}
    for part in word(row, "extra").split(";"):
        key, _, value = part.partition("=")
        if value.strip() and value.strip().lower() not in ("none", "nan"):
            found[key.strip().lower()] = value.strip()
    return found


def stated(values: dict[str, str], key: str) -> float:
    """A number among extras, 0 where it is not stated or none."""
    try:
        value = float(values.get(key, ""))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def format_name(text: str, quantised: str, multiplies: frozenset[str]) -> str:
    """The serving format of a weights text.

    Args: quantised: what `extra` says of the products; multiplies: formats that the chip has a rate for
    Raises: Skip for a text that names no format
    """
    wanted = text.lower()
    if not wanted or wanted.startswith("see "):
        # an unstated format is the narrowest that the chip multiplies: what submitters of throughput choose
        return next((name for name, kinds in _NARROW if multiplies & kinds), "bf16")
    if wanted.startswith("fp32"):
        raise Skip("FP32 serving is not modelled")
    found = next((name for pattern, name in _FORMATS if re.search(pattern, wanted)), "")
    if not found:
        raise Skip(f"unknown weights_prec {text[:40]!r}")
    if found == "nvfp4" and not multiplies & {"nvfp4", "mxfp4"}:
        return "mxfp4"
    return "fp8-block" if found == "fp8" and "block" in quantised else found


_NARROW: Final = (("nvfp4", frozenset({"nvfp4", "mxfp4"})), ("fp8", frozenset({"fp8", "mxfp8"})))


def kv_format(text: str, weights: str, engine_id: str) -> str:
    """The format of keys and values; where a row does not state it, as the engine chooses by itself.

    TensorRT-LLM's quantised checkpoints carry FP8 keys and values; vLLM and SGLang keep the model's own format.
    """
    wanted = text.lower()
    if "fp8" in wanted:
        return "fp8"
    if not wanted or wanted == "unknown":
        low = weights in ("fp8", "fp8-block", "nvfp4", "mxfp8", "mxfp4")
        return "fp8" if low and "tensorrt" in engine_id else ""
    return ""


def parallel_plan(row: Row) -> ServingPlan:
    """The plan of one replica of an aggregated row.

    Raises: Skip where sizes don't multiply out, or none is stated
    """
    tensor, pipeline = _size(row, "tp"), _size(row, "pp")
    chips = _size(row, "n_chips")
    attention = word(row, "attn_dp").lower()
    if not tensor:
        raise Skip("tp is empty")
    groups = tensor if attention == "yes" else int(float(attention)) if re.fullmatch(r"\d+(\.0)?", attention) else 1
    groups = max(groups, 1)
    if groups > 1 and tensor * groups > max(chips, tensor) and tensor % groups == 0:
        tensor //= groups
    ranks = tensor * groups
    experts = _experts(word(row, "ep"), ranks, _size(row, "dp"))
    return ServingPlan(
        tensor_parallel_size=tensor,
        pipeline_parallel_size=max(pipeline, 1),
        attention_data_parallel_size=groups,
        expert_parallel_size=experts,
    )


def _experts(text: str, ranks: int, replicas: int) -> int:
    if text.startswith("tp*dp"):
        return ranks
    if re.fullmatch(r"\d+(\.0)?", text):
        size = max(int(float(text)), 1)
        return size if ranks % size == 0 else 1
    return 1


def _size(row: Row, key: str) -> int:
    value = number(row, key, 0.0)
    if value != int(value):
        raise Skip(f"{key} is not a whole number: {value:g}")
    return int(value)


def worker_plan(text: str) -> tuple[int, ServingPlan]:
    """Workers and plan of one side of a disaggregated row, such as "gpus=16,workers=2,tp=8,ep=8,dpa=True".

    Raises: Skip where chips, workers and sizes don't fit
    """
    facts = dict(re.findall(r"(\w+)=(\w+)", text))
    try:
        sizes = {key: int(facts[key]) for key in ("workers", "tp", "ep")}
        gpus = int(facts["gpus"]) if "gpus" in facts else 0
        attention = int(facts.get("attn_dp", "1"))
    except (KeyError, ValueError):
        raise Skip(f"a worker's sizes are not stated: {text[:60]!r}") from None
    if min(sizes.values()) < 1:
        raise Skip(f"a worker's sizes are not stated: {text[:60]!r}")
    ranks = gpus // sizes["workers"] if gpus else sizes["tp"] * attention
    if ranks < 1 or (gpus and ranks * sizes["workers"] != gpus):
        raise Skip(f"chips and workers don't divide: {text[:60]!r}")
    if facts.get("dpa") == "True" or attention > 1:
        groups = ranks
        experts = sizes["ep"] if sizes["ep"] > 1 and ranks % sizes["ep"] == 0 else ranks
    else:
        groups, experts = 1, sizes["ep"] if ranks % sizes["ep"] == 0 else 1
    plan = ServingPlan(
        tensor_parallel_size=ranks // groups, attention_data_parallel_size=groups, expert_parallel_size=experts
    )
    return sizes["workers"], plan


def shared_prefix(row: Row) -> SharedPrefix | None:
    """The groups of a shared-prefix workload, as "9x5, 100+447" or in words."""
    if "shared_prefix" not in word(row, "workload"):
        return None
    note = word(row, "len_note")
    found = re.search(r"(\d+)(?: sys prompts)? ?x ?(\d+)(?: users)?, (?:sys )?(\d+)(?: sys)? ?\+ ?(?:q )?(\d+)", note)
    if not found:
        return None
    groups, users, system, question = (int(each) for each in found.groups())
    if not groups * users or max(groups * users, system, question) > MOST:
        return None
    return SharedPrefix(groups=groups, users=users, system_tokens=system, question_tokens=question)


def mean_lengths(row: Row) -> tuple[float, float]:
    """Mean prompt and generated tokens of a request.

    Raises: Skip where one of them can't be told
    """
    prompt, output = number(row, "input_len", 0.0), number(row, "output_len", 0.0)
    note = word(row, "len_note")
    if not output:
        output = _generated(note)
    if not output and "input lengths only" not in note:
        requests, tokens = number(row, "req_per_s", 0.0), number(row, "output_tok_s", 0.0)
        output = tokens / requests if requests and tokens and word(row, "complete") == "yes" else 0.0
    for task, (asked, made) in TASK_TOKENS.items():
        if re.search(rf"MLPerf {re.escape(task)}", word(row, "workload")):
            prompt, output = prompt or asked, output or made
    if not prompt and "at once" in word(row, "workload"):
        prompt = CHAT_PROMPT_TOKENS
    if not prompt:
        raise Skip("the prompts' length is not published")
    if not output:
        raise Skip("the outputs' length is not published")
    return prompt, output


def _generated(note: str) -> float:
    """Generated tokens that a note on lengths states."""
    if found := re.search(r"generated length is fixed at (\d+)", note):
        return float(found[1])
    if found := re.search(r"generated mean is [^;]*?\((\d+)-(\d+)\)", note):
        return (float(found[1]) + float(found[2])) / 2
    if found := re.search(r"generated mean in v\S+ about ([\d,]+)", note):
        return float(found[1].replace(",", ""))
    return 0.0


def limits_s(row: Row) -> tuple[float, float]:
    """TTFT and TPOT that a MLPerf scenario allows, zeros where it allows any."""
    task, scenario = word(row, "workload"), word(row, "serving").lower()
    if "offline" in scenario or not ("server" in scenario or "interactive" in scenario):
        return 0.0, 0.0
    allowed = next((limits for name, limits in SLO_S.items() if f"MLPerf {name}" in task), ((2.0, 0.2), (0.45, 0.04)))
    return allowed[1] if "interactive" in f"{scenario} {task.lower()}" else allowed[0]


def num_beams(row: Row) -> int:
    """Sequences that each request searches: MLPerf's GPT-J task asks for beams of 4, every other one for none."""
    return 4 if "MLPerf gptj" in word(row, "workload") else 1


def shortest_frac(row: Row) -> float:
    """Lengths are uniform from this share of the stated ones to all of it; 1 where they are fixed."""
    text = f"{word(row, 'workload')} {word(row, 'len_note')}"
    if found := re.search(r"\[(0\.\d+), ?1\.0\]", text):
        return float(found[1])
    return 0.8 if "0.9x" in text else 1.0
