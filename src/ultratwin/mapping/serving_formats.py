"""Number formats of a served model: what weights are stored in, what products run in, what the KV cache holds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.chip import DTYPE_BYTES, Chip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingFormats:
    """`weights`: of the layers' matrices; `experts`: of expert matrices; `compute`: the format their products run in.

    `kv`: of keys and values; `high`: of what stays (attention, norms, embedding, head).
    """

    name: str
    weights: str
    compute: str
    experts: str
    kv: str = "bf16"
    high: str = "bf16"

    @property
    def weight_bytes(self) -> float:
        """Bytes of one weight of a layer's dense matrices."""
        return DTYPE_BYTES[self.weights]

    @property
    def expert_bytes(self) -> float:
        """Bytes of one weight of an expert."""
        return DTYPE_BYTES[self.experts]

    @property
    def kv_bytes(self) -> float:
        """Bytes of one stored number of keys and values."""
        return DTYPE_BYTES[self.kv]

    @property
    def high_bytes(self) -> float:
        """Bytes of what stays in 16 bits."""
        return DTYPE_BYTES[self.high]

    @property
    def is_weight_only(self) -> bool:
        """Whether weights are unpacked to the higher format before they are multiplied."""
        return self.compute == self.high and self.weights != self.high


def _same(name: str, weights: str, compute: str) -> ServingFormats:
    return ServingFormats(name=name, weights=weights, compute=compute, experts=weights)


SERVING_FORMATS: Final[tuple[ServingFormats, ...]] = (
    _same("bf16", "bf16", "bf16"),
    ServingFormats(name="fp16", weights="fp16", compute="fp16", experts="fp16", kv="fp16", high="fp16"),
    _same("fp8", "fp8", "fp8"),
    _same("fp8-block", "fp8", "fp8"),
    _same("mxfp8", "mxfp8", "mxfp8"),
    # GPT-OSS: only the experts are stored in MXFP4
    ServingFormats(name="mxfp4", weights="bf16", compute="bf16", experts="mxfp4"),
    _same("nvfp4", "nvfp4", "nvfp4"),
    _same("int8", "int8", "int8"),
    _same("int8-weight-only", "int8", "bf16"),
    _same("int4-weight-only", "int4", "bf16"),
    _same("fp8-weight-only", "fp8", "bf16"),
)


def serving_formats(name: str, kv: str = "") -> ServingFormats:
    """Formats by name; `kv` another format for keys and values.

    Raises: ScenarioError for an unknown name
    """
    for each in SERVING_FORMATS:
        if each.name == name.lower():
            if kv and kv not in DTYPE_BYTES:
                raise ScenarioError(f'unknown KV-cache format "{kv}"', allowed=", ".join(DTYPE_BYTES))
            return dataclasses.replace(each, kv=kv) if kv else each
    raise unknown_name("precision", name, [each.name for each in SERVING_FORMATS], error=ScenarioError)


def on_chip(formats: ServingFormats, chip: Chip) -> ServingFormats:
    """The formats as a chip runs them: a format that it can't multiply is unpacked to the higher one first."""
    known = chip.peak_flop_per_s
    low = {"fp8": ("fp8", "mxfp8"), "mxfp8": ("mxfp8", "fp8"), "nvfp4": ("nvfp4", "mxfp4"), "int8": ("int8",)}
    able = any(each in known for each in low.get(formats.compute, (formats.compute,)))
    return formats if able or formats.compute == formats.high else dataclasses.replace(formats, compute=formats.high)
