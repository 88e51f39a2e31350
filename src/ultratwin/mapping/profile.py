"""Framework profiles: what differs between training frameworks on the same chips.

A profile is a catalogue entry of kind "profiles". Every constant is a fact; a profile may be `based_on` another and
state only what differs. Constants of status "measured" are fitted by tools/fit_profiles.py on half of the public rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from ultratwin.catalogue import loader, overrides
from ultratwin.catalogue.schema import ProfileEntry
from ultratwin.errors import CatalogueError
from ultratwin.hardware.chip import Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Constants of a training framework. Factors multiply a kernel's time; fractions are hidden under compute.

    attention: "flash" (scores never leave the chip) or "unfused" (scores and softmax go through memory)
    zero_gradients: under ZeRO 1 gradients are "reduce_scatter"-ed, or "all_reduce"-d as without ZeRO
    expert_dispatch: tokens travel to experts "plain" (once per expert) or "deduplicated" (once per domain)
    kernel_library: whose kernels it calls, as catalogue/data/kernels names them; "default" is the chip's usual
    stage_split: "uniform" or "cost" (see mapping.sharding)
    schedules, zero_stages: what it has of each, which a search may choose from; pipeline_zero_stages: with a pipeline
    peak_counter: what the framework's own peak-memory counter covers: the "step", or the "optimizer" phase only
    gemm_factor, attention_factor, vector_factor: time of its kernels over the best ones' [1]
    host_forward_s, host_backward_s: host time to launch one layer's kernels; the device waits if it is the shorter [s]
    host_tensor_s: host time that tensor parallelism adds to a layer, forward and backward together [s]
    host_expert_s: host time that routing, permuting and the experts add to a layer [s]
    host_micro_batch_s, host_step_s: host work per micro-batch and stage, and per step [s]
    *_overlap_frac: share of that communication that runs under compute [1]
    collective_factor: time of collectives inside a job over benchmarks' [1]
    bucket_bytes: gradients are synchronised in buckets of so many [byte]
    parameter_bytes, gradient_bytes, gradient_wire_bytes, optimizer_bytes: per parameter, kept or sent [byte]
    optimizer_traffic_bytes: memory traffic of one parameter's update [byte]
    vocab_multiple: what the vocabulary is padded to, times the tensor-parallel size [1]
    expert_imbalance: load of the busiest expert rank over the mean [1]
    straggler_frac: step time lost per doubling of ranks beyond one node [1]
    activation_factor: saved activations over those of fused kernels [1]
    fp16_gradient_bytes: as gradient_bytes, in FP16 training, where gradients need no FP32 sum [byte]
    bucket_copy_bytes: per parameter, copies of gradients in all-reduce buckets [byte]
    logits_bytes: kept per token and vocabulary entry on the last stage [byte]
    allocator_frac, context_bytes: memory lost to fragmentation, and to the runtime [1], [byte]
    """

    id: str
    attention: str
    kernel_library: str
    stage_split: str
    peak_counter: str
    zero_gradients: str
    expert_dispatch: str
    schedules: tuple[str, ...]
    zero_stages: tuple[int, ...]
    pipeline_zero_stages: tuple[int, ...]
    gemm_factor: Number
    attention_factor: Number
    vector_factor: Number
    host_forward_s: Number
    host_backward_s: Number
    host_tensor_s: Number
    host_expert_s: Number
    host_micro_batch_s: Number
    host_step_s: Number
    tensor_overlap_frac: Number
    context_overlap_frac: Number
    expert_overlap_frac: Number
    pipeline_overlap_frac: Number
    data_overlap_frac: Number
    shard_overlap_frac: Number
    collective_factor: Number
    bucket_bytes: Number
    parameter_bytes: Number
    gradient_bytes: Number
    gradient_wire_bytes: Number
    optimizer_bytes: Number
    optimizer_traffic_bytes: Number
    vocab_multiple: Number
    expert_imbalance: Number
    straggler_frac: Number
    logits_bytes: Number
    activation_factor: Number
    fp16_gradient_bytes: Number
    bucket_copy_bytes: Number
    allocator_frac: Number
    context_bytes: Number
    step_spread_frac: Number


GENERIC = "generic"
_NAMED: Final = (
    "attention", "stage_split", "peak_counter", "zero_gradients", "expert_dispatch", "kernel_library", "schedules",
    "zero_stages", "pipeline_zero_stages",
)  # fmt: skip


@overrides.cached
def load_profile(name: str) -> Profile:
    """A profile of the catalogue by id or alias, with what it inherits filled in.

    Raises: CatalogueError if nobody has that name, or a constant is missing in the whole chain
    """
    chain = [_entry(name)]
    while chain[-1].based_on:
        chain.append(_entry(chain[-1].based_on))
    values: dict[str, Any] = {"id": loader.resolve("profiles", name)}
    for each in reversed(chain):
        values |= {key: fact.si for key, fact in each.figures.items()}
        values |= {key: stated for key in _NAMED if (stated := getattr(each, key))}
    missing = {each.name for each in dataclasses.fields(Profile)} - values.keys()
    if missing:
        raise CatalogueError(f"profile {name} lacks {', '.join(sorted(missing))}", where=f"profiles/{name}.toml")
    return Profile(**values)


def find_profile(framework: str, date: str = "") -> Profile:
    """The profile of a framework as people write it ("NeMo 24.05", "Megatron-LM fork"), else the generic one.

    The longest alias that the text holds wins; a profile with `until` only describes runs up to that date (ISO 8601),
    and is preferred for them.
    """
    text = framework.lower()
    best, rank = GENERIC, (0, "")
    for each in loader.ids("profiles"):
        entry = _entry(each)
        if entry.until and not ("" < date <= entry.until):
            continue
        for spelling in (each, *entry.aliases):
            # of equally long spellings, the profile that ends first after the date describes its versions best
            fits = (len(spelling), _complement(entry.until))
            if spelling.lower() in text and fits > rank:
                best, rank = each, fits
    return load_profile(best)


def _complement(date: str) -> str:
    """A text that sorts the other way round than an ISO date; "" (no end) stays first."""
    return "".join(chr(0x69 - ord(letter)) if letter.isdigit() else letter for letter in date)


def _entry(name: str) -> ProfileEntry:
    found = loader.entry("profiles", name)
    if not isinstance(found, ProfileEntry):
        raise CatalogueError(f"{name} is not a profile")
    return found
