"""What each kind of catalogue file may hold: the entry's fields, and the figures with their dimensions.

Adding a kind of figure is one line in FIGURES. Anything that is not listed here is an error at loading.
"""

from __future__ import annotations

from typing import Final, Literal

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


class ClaimEntry(Entry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published claim about a system: the statement and what its readings give."""

    statement: str
    source: str
    verdict: str = ""


ENTRY_TYPES: Final[dict[str, type[Entry]]] = {
    "chips": ChipEntry,
    "links": LinkEntry,
    "systems": SystemEntry,
    "prices": PriceEntry,
    "regions": RegionEntry,
    "claims": ClaimEntry,
}

_FLOP: Final = "flop_per_s"
FIGURES: Final[dict[str, dict[str, str]]] = {
    "chips": {
        # dense peak rates by number format; "array" is what the matrix engine alone can do, where the headline says more
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
        "num_switches": "number",
        "bf16_flop_per_s": _FLOP,  # of one unit, as published: checked against chips x chip
        "fp8_flop_per_s": _FLOP,
        "mxfp8_flop_per_s": _FLOP,
        "fp32_flop_per_s": _FLOP,
        "nvfp4_flop_per_s": _FLOP,
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
    "claims": {},
}
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "chips": ("memory_bytes_per_s",),
    "systems": ("num_chips", "chips_per_node"),
    "prices": ("num_chips",),
}
