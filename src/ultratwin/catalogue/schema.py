"""What each kind of catalogue file may hold: the entry's fields, and the figures with their dimensions.

Adding a kind of figure is one line in FIGURES. Anything that is not listed here is an error at loading.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from ultratwin.catalogue.facts import Fact

ChipFamily = Literal["neuron", "nvidia", "amd", "tpu", "intel", "gaudi", "cpu"]
Topology = Literal["none", "ring", "torus-2d", "torus-3d", "mesh", "switch"]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every catalogue file has: a name for people, spellings that also find it, and figures."""

    name: str
    aliases: tuple[str, ...] = ()
    note: str = ""
    figures: dict[str, Fact] = {}


class ChipEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A chip (or a host CPU, family "cpu"). Peaks are dense and per chip."""

    vendor: str
    family: ChipFamily


class LinkEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of link. Rates are per chip and one direction."""

    vendor: str = ""


class SystemEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A node, rack, UltraServer or cluster that can be bought or rented, and how it is wired.

    `node`: chips behind one host. `scale_up`: the load/store or switch domain. `scale_out`: between domains.
    """

    kind: Literal["instance", "node", "rack", "ultraserver", "pod", "cluster"]
    chip: str
    host: str = ""
    scale_up: str = ""
    scale_up_topology: Topology = "none"
    scale_out: str = ""
    hypothetical: bool = False


class PriceEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a system costs: figures are USD/h for the whole unit, each with its date in the note."""

    system: str
    region: str = ""


class RegionEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A place where systems stand: carbon of its grid, PUE, electricity price."""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A question that a claim's readings use the answer of, as `ultratwin train` and `ultratwin plan serve` ask it.

    `chips`: of a training run; the most of one replica in serving. `precisions`: number formats, the best one counts.
    `goal`: which serving deployment is meant: most tokens per chip that keep `goodput`, or fastest for one user.
    """

    verb: Literal["train", "serve"]
    model: str
    system: str
    chips: int
    precisions: tuple[str, ...]
    offer: str = ""
    seq_length: int | None = None
    global_batch_size: int | None = None
    isl: int = 1024
    osl: int = 1024
    max_num_seqs: int | None = None
    goodput: str = ""
    goal: Literal["throughput", "latency"] = "throughput"


class ReadingEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to read a claim: an expression that gives the number to compare with a claimed figure.

    `expression`: over the claim's figures (key), figures of its entries (word.key) and results of its scenarios
    (word.result). `is_premise`: the number is the claim itself, written into the catalogue: it proves nothing.
    """

    name: str
    expression: str
    claimed: str = "claimed"
    is_premise: bool = False
    note: str = ""


class ClaimEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published claim: what is stated, what it may mean, and what would decide it. Verdicts are computed.

    `low` and `high` of a claimed figure hold the numbers that the statement's words cover, rounding included.
    `relation`: the number must reach `low` ("at least"), or lie within low and high ("equal").
    """

    statement: str
    source: str
    readings: tuple[ReadingEntry, ...]
    decided_by: str
    relation: Literal["at least", "equal"] = "at least"
    entries: dict[str, str] = {}
    scenarios: dict[str, Scenario] = {}


class ModelEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model: the keys of its config.json that give sizes, as published, and the parameter counts to check them by.

    `name` is the id that users type; `hub_id` its repository on the hub, empty if it has none. `config_source` names
    the sources of the sizes. `active_excludes_embedding`: the published active count leaves the input table out.
    """

    hub_id: str = ""
    architecture: str
    config_source: str
    config: dict[str, Any]
    active_excludes_embedding: bool = False


class DiffusionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a video diffusion transformer, by the keys that the models' own files use; other keys are left alone.

    `text`: "cross" (each block attends to a text of `text_len` tokens) or "joint" (they stand in the sequence).
    `patch_size`, `vae_stride`: frames, rows, columns of latents in a token, and of pixels in a latent. `sample_fps`,
    `sample_steps`: of the video that it was trained for, denoising steps; `guidance_passes`: forward passes of a step.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    text_len: int = 512
    text: Literal["cross", "joint"] = "cross"
    in_dim: int = 16
    out_dim: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    vae_stride: tuple[int, int, int] = (4, 8, 8)
    sample_fps: float = 16.0
    sample_steps: int = 50
    guidance_passes: int = 2


class DiffusionEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A video diffusion transformer: sizes as published; `config_source` names their sources."""

    config_source: str
    config: DiffusionConfig


class ProfileEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A training framework's profile; see mapping/profile.py for what its constants mean.

    `based_on` names the profile that it inherits from; `until` the last date (ISO 8601) of the versions it describes.
    """

    based_on: str = ""
    until: str = ""
    attention: str = ""
    kernel_library: str = ""
    stage_split: str = ""
    peak_counter: str = ""
    zero_gradients: str = ""
    expert_dispatch: str = ""
    schedules: tuple[str, ...] = ()
    zero_stages: tuple[int, ...] = ()
    pipeline_zero_stages: tuple[int, ...] = ()


class EngineEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A serving engine; see mapping/engine.py for what its constants mean. `host`: "overlapped" or "in turn"."""

    based_on: str = ""
    policy: str = ""
    kernel_library: str = ""
    collective_library: str = ""
    expert_libraries: tuple[str, ...] = ()
    small_chips: tuple[str, ...] = ()
    host: str = ""


class ReliabilityEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How machines fail, how a job comes back, where checkpoints go, how evenly chips run.

    `chips`: the catalogue's ids of the chips whose failure rates these are; empty: of every other chip.
    """

    subject: Literal["rates", "recovery", "storage", "jitter"]
    chips: tuple[str, ...] = ()


class PowerEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much of its power limit a chip draws by kind of work.

    `chips`: the catalogue's ids of the chips that were measured; empty: of every other chip.
    """

    chips: tuple[str, ...] = ()


ENTRY_TYPES: Final[dict[str, type[Entry]]] = {
    "chips": ChipEntry,
    "links": LinkEntry,
    "systems": SystemEntry,
    "prices": PriceEntry,
    "regions": RegionEntry,
    "claims": ClaimEntry,
    "models": ModelEntry,
    "diffusion": DiffusionEntry,
    "profiles": ProfileEntry,
    "engines": EngineEntry,
    "power": PowerEntry,
    "reliability": ReliabilityEntry,
}

_FLOP: Final = "flop_per_s"
FIGURES: Final[dict[str, dict[str, str]]] = {
    "chips": {
        # dense peak rates by number format; "array" is what the matrix engine alone can do, if less
        "fp32_flop_per_s": _FLOP,
        "tf32_flop_per_s": _FLOP,
        "bf16_flop_per_s": _FLOP,
        "fp16_flop_per_s": _FLOP,
        "fp8_flop_per_s": _FLOP,
        "mxfp8_flop_per_s": _FLOP,
        "mxfp4_flop_per_s": _FLOP,
        "nvfp4_flop_per_s": _FLOP,
        "int8_flop_per_s": _FLOP,
        "sparse_bf16_flop_per_s": _FLOP,
        "sparse_fp8_flop_per_s": _FLOP,
        "array_bf16_flop_per_s": _FLOP,
        "array_fp16_flop_per_s": _FLOP,
        "array_tf32_flop_per_s": _FLOP,
        "array_fp8_flop_per_s": _FLOP,
        "array_mxfp8_flop_per_s": _FLOP,
        "array_fp32_flop_per_s": _FLOP,
        "best_measured_bf16_flop_per_s": _FLOP,
        "best_measured_fp8_flop_per_s": _FLOP,
        "memory_bytes": "byte",
        "usable_memory_bytes": "byte",
        "memory_bytes_per_s": "byte_per_s",
        "dma_bytes_per_s": "byte_per_s",
        "achievable_dma_bytes_per_s": "byte_per_s",
        "num_cores": "number",  # SMs, CUs, NeuronCores, TensorCores, CPU cores
        "num_dma_engines": "number",
        "num_collective_cores": "number",
        "num_memory_stacks": "number",
        "clock_hz": "hertz",
        "vector_clock_hz": "hertz",
        "scalar_clock_hz": "hertz",
        "l2_bytes": "byte",
        "last_level_cache_bytes": "byte",
        "sbuf_bytes_per_core": "byte",
        "psum_bytes_per_core": "byte",
        "shared_memory_bytes_per_core": "byte",
        "tdp_w": "watt",
        "fp4_multiple": "number",  # announced multiples of the chip before
        "fp8_multiple": "number",
        "memory_bandwidth_multiple": "number",
        "memory_capacity_multiple": "number",
    },
    "links": {
        "bytes_per_s": "byte_per_s",  # one direction, per chip, all its links of this kind together
        "bidirectional_bytes_per_s": "byte_per_s",  # both directions together, as vendors print it
        "bytes_per_s_per_link": "byte_per_s",
        "num_links": "number",
        "latency_s": "second",  # one hop, or end to end through the switches of one domain
        "measured_bytes_per_s": "byte_per_s",
        "measured_allreduce_busbw_bytes_per_s": "byte_per_s",
        "intra_sled_bytes_per_s": "byte_per_s",
        "intra_rack_bytes_per_s": "byte_per_s",
        "inter_rack_bytes_per_s": "byte_per_s",
        "intra_node_bytes_per_s": "byte_per_s",
        "inter_node_bytes_per_s": "byte_per_s",
        "num_switches": "number",
        "max_hops": "number",
    },
    "systems": {
        "num_chips": "number",  # in one unit: what is bought or rented at once
        "chips_per_node": "number",
        "domain_size": "number",  # chips of one scale-up domain
        "max_chips": "number",  # of the largest cluster that can be built
        "scale_up_bytes_per_s": "byte_per_s",  # per chip, one direction
        "scale_up_latency_s": "second",
        "scale_out_bytes_per_s": "byte_per_s",  # per chip, one direction
        "scale_out_latency_s": "second",
        "host_memory_bytes": "byte",
        "host_power_w": "watt",  # per chip: CPU, DRAM, NIC, fans, losses of the node
        "network_power_w": "watt",  # per chip: switches of the scale-out fabric
        "unit_power_w": "watt",  # of one whole unit, chips included
        "num_racks": "number",  # that one unit fills
        "rack_power_w": "watt",  # the most that one rack supplies and cools
        "liquid_heat_frac": "number",  # share of the heat that liquid takes away; the rest goes into air
        "num_switches": "number",
        "bf16_flop_per_s": _FLOP,  # of one unit, as published: checked against chips x chip
        "fp8_flop_per_s": _FLOP,
        "mxfp8_flop_per_s": _FLOP,
        "fp32_flop_per_s": _FLOP,
        "nvfp4_flop_per_s": _FLOP,
        "mxfp4_flop_per_s": _FLOP,
        "memory_bytes": "byte",
        "memory_bytes_per_s": "byte_per_s",
    },
    "prices": {
        "num_chips": "number",
        "on_demand": "usd_per_s",
        "reserved_1y": "usd_per_s",
        "reserved_3y": "usd_per_s",
        "capacity_block": "usd_per_s",
        "spot": "usd_per_s",
        "analyst_cost": "usd_per_s",
    },
    "regions": {"carbon_kg_per_j": "kg_per_j", "pue": "number", "electricity_usd_per_j": "usd_per_j"},
    "claims": {
        # what is claimed, as a number, or in the dimension that its name ends with
        "claimed": "number",
        "claimed_total": "number",
        "claimed_wording": "number",
        "claimed_latency": "number",
        "claimed_fp4": "number",
        "claimed_fp8": "number",
        "claimed_memory_bandwidth": "number",
        "claimed_tokens_per_watt": "number",
        "claimed_flop_per_s": _FLOP,
        "claimed_bytes_per_s": "byte_per_s",
        "claimed_before_bytes_per_s": "byte_per_s",
        "claimed_domain_bytes_per_s": "byte_per_s",
        "claimed_before_domain_bytes_per_s": "byte_per_s",
        # what it is compared with, where no entry has it
        "cluster_chips_before": "number",
        "trn3_chip_hour": "usd_per_s",  # of one chip
    },
    "power": {
        "linear_frac": "number",
        "attention_frac": "number",
        "memory_frac": "number",
        "communication_frac": "number",
        "idle_frac": "number",
        "linear_free_frac": "number",  # of products in a layer, were there no limit
        "limit_frac": "number",
        # between the chip's limit and the wall
        "clock_exponent": "number",
        "lowest_clock_frac": "number",
        "host_idle_frac": "number",
        "fan_frac": "number",
        "conversion_frac": "number",
    },
    "engines": {
        "max_num_seqs": "number",
        "max_num_batched_tokens": "number",
        "block_size": "number",
        "memory_utilization_frac": "number",
        "host_iteration_s": "second",
        "entry_s": "second",
        "eager_kernel_s": "second",
        "captured_tokens": "number",
        "handover_s": "second",
        "small_chip_bytes": "byte",
        "small_chip_tokens": "number",
        "small_chip_seqs": "number",
        "host_sequence_s": "second",
        "request_s": "second",
        "graph_launch_s": "second",
        "stream_frac": "number",
        "gemm_factor": "number",
        "attention_factor": "number",
        "collective_factor": "number",
        "routing_skew": "number",
        "spread_frac": "number",
        "ttft_spread_frac": "number",
    },
    "reliability": {
        # failures a year of one part, that interrupt a job
        "chip_per_year": "number",
        "memory_per_year": "number",  # of one chip's HBM
        "host_per_year": "number",  # of one node of host_chips: CPU, DRAM, disks, power supplies, boards
        "host_chips": "number",  # of the nodes that it was measured on
        "host_fixed_frac": "number",  # of it, what a node of any size has; the rest grows with its chips
        "nic_per_year": "number",  # of one chip's share of the NICs
        "network_per_year": "number",  # of one chip's share of switches and cables
        "rack_power_per_year": "number",  # of one rack
        "silent_per_year": "number",  # silent corruptions of one chip that training notices
        "software_per_day": "number",  # of one job of software_full_chips or more
        "software_full_chips": "number",
        "weibull_shape": "number",
        # a failure's course
        "detection_s": "second",
        "silent_detection_s": "second",
        "isolation_s": "second",
        "restart_s": "second",
        "warm_up_s": "second",
        "resize_s": "second",
        "reset_s": "second",
        "replacement_s": "second",
        "replacement_frac": "number",
        # where checkpoints go; rates of one node one way, and of the whole store
        "host_copy_bytes_per_s_per_chip": "byte_per_s",
        "peer_copies": "number",
        "peer_memory_frac": "number",
        "host_memory_bytes_per_node": "byte",
        "nvme_write_bytes_per_s_per_node": "byte_per_s",
        "nvme_read_bytes_per_s_per_node": "byte_per_s",
        "nvme_bytes_per_node": "byte",
        "store_write_bytes_per_s_per_node": "byte_per_s",
        "store_read_bytes_per_s_per_node": "byte_per_s",
        "store_write_bytes_per_s": "byte_per_s",
        "store_read_bytes_per_s": "byte_per_s",
        "store_bytes": "byte",
        "store_kept": "number",
        "save_barrier_s": "second",
        # standard deviations of speed
        "chip_speed_frac": "number",
        "step_noise_frac": "number",
    },
    "profiles": {
        "gemm_factor": "number",
        "attention_factor": "number",
        "vector_factor": "number",
        "host_forward_s": "second",
        "host_backward_s": "second",
        "host_tensor_s": "second",
        "host_expert_s": "second",
        "host_micro_batch_s": "second",
        "host_step_s": "second",
        "tensor_overlap_frac": "number",
        "context_overlap_frac": "number",
        "expert_overlap_frac": "number",
        "pipeline_overlap_frac": "number",
        "data_overlap_frac": "number",
        "shard_overlap_frac": "number",
        "collective_factor": "number",
        "bucket_bytes": "byte",
        "parameter_bytes": "byte",
        "gradient_bytes": "byte",
        "gradient_wire_bytes": "byte",
        "optimizer_bytes": "byte",
        "optimizer_traffic_bytes": "byte",
        "vocab_multiple": "number",
        "expert_imbalance": "number",
        "straggler_frac": "number",
        "logits_bytes": "byte",
        "activation_factor": "number",
        "fp16_gradient_bytes": "byte",
        "bucket_copy_bytes": "byte",
        "allocator_frac": "number",
        "context_bytes": "byte",
        "step_spread_frac": "number",
    },
    "models": {
        "total_parameters": "number",
        "active_parameters": "number",  # that one token meets
        "other_parameters": "number",  # of the total, outside the language model: vision encoder and the like
    },
    "diffusion": {
        "total_parameters": "number",
        "other_parameters": "number",  # of the total, outside what each video token passes: text streams, modulation
    },
}
RELATED: Final[dict[str, dict[str, str]]] = {
    "systems": {"chip": "chips", "host": "chips", "scale_up": "links", "scale_out": "links"},
    "prices": {"system": "systems"},
}
"""Keys of an entry that name another one, and its kind: expressions may use figures of that one, as chip.tdp_w."""
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "chips": ("memory_bytes_per_s",),
    "systems": ("num_chips", "chips_per_node"),
    "prices": ("num_chips",),
    "models": ("total_parameters",),
    "diffusion": ("total_parameters",),
}
