"""Collective measurements: one row of collectives.csv to a question, and its predicted time.

The network of a row is read from its chip, system and network texts by general parsing; nothing here knows a row,
a source or a machine by name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from ultratwin.errors import CatalogueError
from ultratwin.timing.collectives import Network, collective_profile, collective_time_s
from ultratwin.timing.collectives.expert_parallel import (
    PHASES,
    ExpertProfile,
    Routing,
    expert_parallel_time_s,
    expert_profile,
    token_bytes,
)
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row, Skip, row_id
from ultratwin.validation.rows import number as stated

_OPERATIONS: Final = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "allgatherv": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "alltoallv": "all_to_all",
    "broadcast": "broadcast",
    "sendrecv": "send_recv",
    "latencyperhop": "send_recv",
}
_BUS_FACTOR: Final = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}
# chip text -> link inside a domain, its topology, chips of a domain, ranks of a chip, usual scale-out rate of a chip
_CHIPS: Final = (
    (r"\bA800", "nvlink3", "switch", 8, 1, 50e9),
    (r"\bA100", "nvlink3", "switch", 8, 1, 25e9),
    (r"\bH[128]00|\bH20\b|hopper|sm90|\bGH200", "nvlink4", "switch", 8, 1, 50e9),
    (r"\bG?B[23]00|blackwell|sm100", "nvlink5", "switch", 8, 1, 50e9),
    (r"rubin", "nvlink6", "switch", 72, 1, 100e9),
    (r"L40|RTX|A10\b|A30\b|PCIe", "pcie4", "none", 8, 1, 12.5e9),
    (r"\bMI\d+", "xgmi", "mesh", 8, 1, 50e9),
    (r"TPU", "ici", "torus-3d", 256, 1, 3.1e9),
    (r"Trainium2|Trn2", "neuronlink-v3", "torus-2d", 16, 4, 25e9),
    (r"Trainium3|Trn3", "neuronlink-v4", "switch", 64, 4, 25e9),
    (r"Trainium|Trn1|Inferentia", "neuronlink-v2", "torus-2d", 16, 2, 6.25e9),
    (r"Gaudi", "roce-scale-up", "mesh", 8, 1, 37.5e9),
)
# chips whose link of the same kind is slower or faster than the one that the constants were fitted on
_CHIP_RATES: Final = ((r"\b[AH]800", 200e9), (r"\bMI35\dX", 535.5e9), (r"\bMI250", 300e9))
_SCALE_OUT: Final = (
    (r"EFA ?v?1\b|EFA 4x100", "efa-v1"),
    (r"EFA ?v?2", "efa-v2"),
    (r"EFA ?v?3", "efa-v3"),
    (r"EFA ?v?4", "efa-v4"),
    (r"EFA", "efa"),
    (r"XDR", "infiniband-xdr"),
    (r"HDR|200 ?Gb.*(RDMA|IB)|InfiniBand 200", "infiniband-hdr"),
    (r"InfiniBand|NDR|\bIB\b|CX-?7|ConnectX|RDMA", "infiniband-ndr"),
    (r"RoCE|Thor|Pollara|Ethernet", "roce"),
    (r"omni.?path", "omni-path"),
)
_ALGORITHMS: Final = (
    (r"nvls", "switch"),
    (r"kangaring|ring", "ring"),
    (r"tree", "tree"),
    (r"rdh|halving", "recursive_halving_doubling"),
    (r"mesh", "mesh"),
)
RANGE_FRAC: Final = 0.25
"""Half width of the stated range: nine tenths of the rows kept from the fit lie inside (docs/explanation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCall:
    """What a dispatch or combine moves, and the library that moves it."""

    routing: Routing
    profile: ExpertProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A row as a question: the arguments of collective_time_s, what was measured, and what a framework adds."""

    operation: str
    size_bytes: float
    ranks_per_domain: float
    num_domains: float
    network: Network
    algorithm: str | None
    overhead_s: float
    measured_s: float | None

    expert: ExpertCall | None = None

    def predicted_s(self) -> float:
        """Seconds that the twin says."""
        if self.expert is not None:
            return float(
                expert_parallel_time_s(
                    self.operation,
                    self.expert.routing,
                    self.network,
                    self.expert.profile,
                    ranks_per_domain=self.ranks_per_domain,
                    num_domains=self.num_domains,
                )
            )
        time = collective_time_s(
            self.operation,
            self.size_bytes,
            self.network,
            ranks_per_domain=self.ranks_per_domain,
            num_domains=self.num_domains,
            algorithm=self.algorithm,
        )
        return float(time) + self.overhead_s


def predict_rows(rows: list[Row]) -> list[RowResult]:
    """The twin's answer to each row: scored, or skipped with a reason."""
    return [_predict(row, number) for number, row in enumerate(rows, start=2)]


def _predict(row: Row, number: int) -> RowResult:
    groups = {key: row.get(key) or "" for key in ("source_id", "chip", "op", "network", "library", "ranks")}
    try:
        question = question_of(row)
    except Skip as reason:
        return RowResult(
            id=row_id(row, number), metric="time_s", status="skipped", reason=str(reason), unit="s", groups=groups
        )
    predicted = question.predicted_s()
    return RowResult(
        id=row_id(row, number),
        metric="time_s",
        predicted=predicted,
        measured=question.measured_s,
        low=predicted * (1 - RANGE_FRAC),
        high=predicted / (1 - RANGE_FRAC),
        unit="s",
        status="scored",
        reason="",
        groups=groups,
    )


def question_of(row: Row) -> Question:
    """The question that a row asks.

    Raises: Skip with the reason, where the row lacks something or the twin has no model for its operation
    """
    if (phase := row.get("op", "").removeprefix("ep_")) in PHASES:
        return _expert_question(row, phase)
    operation = _OPERATIONS.get(re.sub("[^a-z]", "", row.get("op", "").lower()))
    if operation is None:
        raise Skip(f"no model for operation {row.get('op', '')!r}")
    hop = "latency" in row["op"]
    ranks = _number(row, "ranks") or (2.0 if operation == "send_recv" else 0.0)
    if not ranks:
        raise Skip("ranks is empty")
    size = 8.0 if hop else _number(row, "message_bytes")
    if not size and operation == "all_to_all" and _number(row, "tokens_per_rank"):
        size = _padded_bytes(row)
    if not size:
        raise Skip("message_bytes is empty")
    network, per_domain, domains = _network(row, operation, ranks)
    algorithm = _first(_ALGORITHMS, row.get("algo", ""))
    if algorithm == "switch" and not network.in_network_reduction:
        algorithm = None  # a label that the hardware can't have
    if operation != "all_reduce":
        algorithm = None
    overhead = _framework_launch_s(row.get("library", ""), operation, network, domains)
    if hop:  # a step of a pipeline, without the call around it
        side = network.profile.scale_out if domains > 1 else network.profile.scale_up
        overhead = -side.pipes["send_recv"].launch_s
    return Question(
        operation=operation,
        size_bytes=size,
        ranks_per_domain=per_domain,
        num_domains=domains,
        network=network,
        algorithm=algorithm,
        overhead_s=overhead,
        measured_s=_measured_s(row, operation, size, ranks),
    )


def _expert_question(row: Row, phase: str) -> Question:
    """A dispatch, combine or prepare of expert-parallel tokens.

    Rows that print only a bandwidth have no time to compare with: what they count as bytes is not in the row.
    """
    measured = _number(row, "time_us") * 1e-6 or None
    library, ranks = row.get("library", ""), stated(row, "ranks")
    network, per_domain, domains = _network(row, phase, ranks)
    dtypes = row.get("dtype", "").split("/")
    dtype = next((each for each in dtypes if phase in each), dtypes[0])
    if phase == "combine":
        dtype = "bf16"  # the partial sums go back in 16 bit whatever was dispatched
    hidden, top_k, _ = _routing(row)
    cores = re.search(r"(\d+) SMs", library)
    try:
        profile = expert_profile(library)
    except CatalogueError as error:
        raise Skip(error.what) from None
    if profile.adapters_only or not re.search("nvlink|xgmi", row.get("network", ""), re.IGNORECASE):
        per_domain, domains = 1.0, ranks
    if phase not in profile.pipes:
        raise Skip(f"no constants for {phase} of {profile.name}")
    return Question(
        operation=phase,
        size_bytes=0.0,
        ranks_per_domain=per_domain,
        num_domains=domains,
        network=network,
        algorithm=None,
        overhead_s=0.0,
        measured_s=measured,
        expert=ExpertCall(
            routing=Routing(
                tokens_per_rank=stated(row, "tokens_per_rank"),
                token_bytes=token_bytes(hidden, dtype) if phase != "prepare" else 4.0 * top_k,
                top_k=top_k,
                num_cores=float(cores[1]) if cores else 20.0,
            ),
            profile=profile,
        ),
    )


def _routing(row: Row) -> tuple[float, float, float]:
    """Hidden size, top k and experts from their cells, else from the note ("256 experts top-8 hidden 7168")."""
    note = row.get("note", "")
    found = []
    for key, pattern in (("hidden", r"hidden (\d+)"), ("topk", r"top-?(\d+)"), ("experts", r"(\d+) experts")):
        said = re.search(pattern, note)
        found.append(_number(row, key) or (float(said[1]) if said else 0.0))
    if not found[0] or not found[1]:
        raise Skip("hidden or topk is empty")
    return found[0], found[1], found[2]


def _padded_bytes(row: Row) -> float:
    """An all-to-all of expert slots: every expert's slot is as large as a rank's whole batch, filled or not."""
    hidden, _, experts = _routing(row)
    return _number(row, "tokens_per_rank") * experts * float(token_bytes(hidden, row.get("dtype", "")))


def _framework_launch_s(library: str, operation: str, network: Network, domains: float) -> float:
    """What the framework that was timed adds to a call: PyTorch's launch, nccom-test's."""
    framework = _first(((r"torch|bench\.py", "torch"), (r"nccom", "nccom")), library)
    if framework is None or operation == "send_recv":
        return 0.0
    sides = (network.profile.scale_out, network.profile.scale_up) if domains > 1 else (network.profile.scale_up,)
    for side in sides:
        for key in (f"{framework} {operation}", framework):
            if key in side.framework_launch_s:
                return side.framework_launch_s[key]
    return 0.0


def _measured_s(row: Row, operation: str, size: float, ranks: float) -> float | None:
    """The time itself, else the size over a bandwidth: a printed GB/s may be GiB/s, so the time comes first."""
    time, algorithm_bw, bus_bw = (_number(row, key) for key in ("time_us", "algbw_gbs", "busbw_gbs"))
    if time:
        return time * 1e-6
    if algorithm_bw:
        return size / (algorithm_bw * 1e9)
    if bus_bw:
        factor = _BUS_FACTOR.get(operation)
        return size * (factor * (ranks - 1) / ranks if factor else 1.0) / (bus_bw * 1e9)
    return None


def _network(row: Row, operation: str, ranks: float) -> tuple[Network, float, float]:
    """The network of a row, with the ranks per domain and the domains of its group."""
    chip, text = row.get("chip", ""), f"{row.get('network', '')} {row.get('system', '')}"
    found = next((each for each in _CHIPS if re.search(each[0], chip, re.IGNORECASE)), None)
    if found is None:
        raise Skip(f"no link is known for chip {chip!r}")
    link, topology, domain, ranks_per_chip, usual_out = found[1:]
    if named := re.search(r"nvlink ?(\d)", text, re.IGNORECASE):
        link = f"nvlink{named[1]}"
    nodes = _number(row, "nodes") or 1.0
    per_node = _number(row, "ranks_per_node") or ranks / nodes
    rack = re.search(r"NVL ?(\d+)\b|MNNVL", text)
    if rack and int(rack[1] or 72) > domain:
        domain = int(rack[1] or 72)
        racks = re.search(r"(\d+) racks", text)
        domains = float(racks[1]) if racks else math.ceil(ranks / domain)
    else:
        domains = math.ceil(ranks / per_node)
    if re.search(r"\bone\b.*(adapter|rail)|between .*(server|node)", text):
        domains = ranks
    scale_out = _first(_SCALE_OUT, text) or ""
    if domains > 1 and not scale_out:
        raise Skip("the network between nodes is not stated")
    library = _library(row.get("library", ""))
    profile = collective_profile(link, scale_out, library)
    up = profile.scale_up
    rate_up = next((rate for pattern, rate in _CHIP_RATES if re.search(pattern, chip)), up.reference_bytes_per_s)
    rate_out = _scale_out_rate(text, per_node / ranks_per_chip) or usual_out
    return (
        Network(
            scale_up_bytes_per_s=rate_up / ranks_per_chip,
            scale_up_latency_s=up.reference_latency_s,
            domain_size=domain * ranks_per_chip,
            topology=topology,
            scale_out_bytes_per_s=rate_out / ranks_per_chip,
            scale_out_latency_s=profile.scale_out.reference_latency_s,
            profile=profile,
            in_network_reduction="switch" in up.pipes and topology == "switch",
        ),
        ranks / domains,
        domains,
    )


def _scale_out_rate(text: str, chips_per_node: float) -> float:
    """Bytes per second of one chip from texts such as "8x400 Gb/s" (of a node) or "200 Gb/s" (of a rail)."""
    if many := re.search(r"(\d+) ?x ?(\d+) ?Gb", text):
        return float(many[1]) * float(many[2]) / 8 * 1e9 / chips_per_node
    if one := re.search(r"(\d+) ?Gb", text):
        return float(one[1]) / 8 * 1e9
    return 0.0


def _library(text: str) -> str | None:
    for family in ("vllm", "sglang", "trtllm"):
        if re.search(rf"{family}.*custom", text, re.IGNORECASE):
            return family
    return None


def _first(table: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((value for pattern, value in table if re.search(pattern, text, re.IGNORECASE)), None)


def _number(row: Row, key: str) -> float:
    """A number of the row, 0 where the cell is empty."""
    return stated(row, key, 0.0)
