"""The number format that a checkpoint's weights are stored in, by its config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def stored_format(config: Mapping[str, Any]) -> str:
    """Name of the serving format (mapping/serving_formats.py) of a checkpoint as it is; "" where it is not quantised.

    Args: config: keys as on the hub; `quantization_config` of Transformers, compressed-tensors or ModelOpt
    Source: the quantization_config of published checkpoints: DeepSeek-V3 (fp8 in blocks of 128), gpt-oss (mxfp4),
        Kimi-K2.5 (compressed-tensors, 4-bit integers), Nemotron 3 Super FP8 (ModelOpt)
    """
    found = next((each for each in _tables(config) if each), {})
    method, algorithm = (str(found.get(key, "")).lower() for key in ("quant_method", "quant_algo"))
    if method == "modelopt" or algorithm:
        return {"fp8": "fp8", "nvfp4": "nvfp4", "w4a16_awq": "int4-weight-only"}.get(algorithm, "")
    if method == "fp8":
        return "fp8-block" if found.get("weight_block_size") else "fp8"
    if method == "compressed-tensors":
        return _of_group(found)
    if method in ("awq", "gptq"):
        return "int8-weight-only" if found.get("bits") == 8 else "int4-weight-only"
    return method if method in ("mxfp4", "nvfp4", "mxfp8") else ""


def _tables(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Where checkpoints say it: beside the sizes, or in the text part of a multimodal one."""
    for part in (config, *(config.get(key) for key in ("text_config", "llm_config", "language_config"))):
        if isinstance(part, Mapping):
            found = part.get("quantization_config") or part.get("compression_config")
            if isinstance(found, Mapping):
                yield found


def _of_group(found: Mapping[str, Any]) -> str:
    """compressed-tensors: the first group's weights, and whether what they meet is quantised too."""
    groups = found.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(first, Mapping) or not isinstance(weights, Mapping):
        return ""
    bits, kind = weights.get("num_bits"), weights.get("type")
    whole = isinstance(first.get("input_activations"), Mapping)
    names = {(8, "float"): "fp8", (4, "float"): "nvfp4", (8, "int"): "int8", (4, "int"): "int4"}
    name = names.get((bits, kind), "") if isinstance(bits, int) and isinstance(kind, str) else ""
    return name if not name or (whole and name != "int4") or name == "nvfp4" else f"{name}-weight-only"
