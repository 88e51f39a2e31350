"""Collective times: formulas worked by hand, properties of every algorithm, and how rows are read."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.errors import CatalogueError, ScenarioError
from ultratwin.hardware.system import load_system
from ultratwin.timing.collectives import (
    ALGORITHMS,
    OPERATIONS,
    CollectiveProfile,
    LinkProfile,
    Network,
    Pipe,
    collective_profile,
    collective_time_s,
)
from ultratwin.timing.collectives.expert_parallel import (
    Routing,
    expert_parallel_time_s,
    expert_profile,
    expert_profiles,
    token_bytes,
)
from ultratwin.timing.collectives.network import link_profile, link_profiles, scale_up_bytes_per_s
from ultratwin.timing.communication import wires_of
from ultratwin.validation.collectives import predict_rows, question_of
from ultratwin.validation.rows import Skip

IDEAL = Pipe(launch_s=0.0, step_s=1e-6, quick_frac=1.0, bulk_start_s=0.0, bulk_step_s=1e-6, bulk_frac=1.0)
PIPES = {each.name: IDEAL for each in ALGORITHMS}


def ideal(**changes: object) -> Network:
    """Links without losses: 1 us a step, 100 GB/s inside a domain of 8 and 10 GB/s for each chip outside."""

    def side(scope: str) -> LinkProfile:
        return LinkProfile(name=scope, links=(), library="ideal", scope=scope, pipes=PIPES, fits={})

    profile = CollectiveProfile(name="ideal", scale_up=side("scale_up"), scale_out=side("scale_out"))
    values = {
        "scale_up_bytes_per_s": 100e9, "scale_up_latency_s": 1e-6, "domain_size": 8, "topology": "switch",
        "scale_out_bytes_per_s": 10e9, "scale_out_latency_s": 1e-6, "profile": profile, "in_network_reduction": True,
    }  # fmt: skip
    return Network(**(values | changes))


def real(scale_up: str, scale_out: str, library: str | None = None, **changes: object) -> Network:
    values = {
        "scale_up_bytes_per_s": 450e9, "scale_up_latency_s": 1e-6, "domain_size": 8, "topology": "switch",
        "scale_out_bytes_per_s": 50e9, "scale_out_latency_s": 5e-6,
        "profile": collective_profile(scale_up, scale_out, library), "in_network_reduction": "nvlink" in scale_up,
    }  # fmt: skip
    if values["in_network_reduction"] and "switch" not in values["profile"].scale_up.pipes:
        values["in_network_reduction"] = False
    return Network(**(values | changes))


MACHINES = {
    "H100 InfiniBand": real("nvlink-4", "infiniband-ndr"),
    "A100 EFA": real("nvlink-3", "efa-v1", scale_up_bytes_per_s=300e9, scale_out_bytes_per_s=6.25e9),
    "NVL72": real("nvlink-5", "infiniband-xdr", scale_up_bytes_per_s=900e9, domain_size=72),
    "vLLM": real("nvlink-4", "infiniband-ndr", "vllm"),
    "TensorRT-LLM": real("nvlink-5", "efa-v4", "trtllm", scale_up_bytes_per_s=900e9),
    "Trainium2": real("neuronlink-v3", "efa-v3", domain_size=16, topology="torus-2d", scale_up_bytes_per_s=640e9),
    "Trainium3": real("neuronlink-v4", "efa-trn3", domain_size=144, scale_up_bytes_per_s=1152e9),
    "TPU v5p": real("ici-v5p", "tpu-dcn", domain_size=8960, topology="torus-3d", scale_up_bytes_per_s=540e9),
    "MI300X": real("xgmi-mi300x", "roce", topology="mesh"),
    "unknown": real("carrier pigeon", ""),
}
machines = st.sampled_from(sorted(MACHINES))
operations = st.sampled_from(OPERATIONS)
sizes = st.floats(1.0, 1e11)
ranks = st.sampled_from([1, 2, 3, 4, 8])
domains = st.sampled_from([1, 2, 3, 8, 64, 1000])


def wire_bound_s(operation: str, size: float, r: int, n: int, network: Network) -> float:
    """What no algorithm can beat: the bytes that each chip must send, at the line rate, reduction in the switch."""
    up, out, total = network.scale_up_bytes_per_s, network.scale_out_bytes_per_s, r * n
    if total == 1:
        return 0.0
    if operation == "send_recv":
        return size / (up if n == 1 else out)
    if operation == "all_to_all":
        return max((r - 1) / total * size / up, (total - r) / total * size / out)
    if n == 1:  # a switch that adds takes S from each chip, whatever their number
        return size * (1.0 if operation in ("all_reduce", "broadcast") else (r - 1) / r) / up
    return size * (1.0 if operation in ("all_reduce", "broadcast") else (n - 1) / n) / (r * out)


# --- formulas worked by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "algorithm", "r", "n", "seconds"),
    [
        # 14 steps of 1 us, 14/8 of 8 GB at 100 GB/s
        ("all_reduce", "ring", 8, 1, 14e-6 + 0.14),
        ("all_gather", "ring", 8, 1, 7e-6 + 0.07),
        # 15/16 of 8 GB twice, over 8 adapters of 10 GB/s; 2 network steps and 2 (16 - 2) steps inside
        ("all_reduce", "ring", 8, 2, 2e-6 + 28e-6 + 15e9 / 80e9),
        # two domains exchange halves: S over 8 adapters, one level, and 7 steps of the chain
        ("all_reduce", "tree", 8, 2, 1e-6 + 7e-6 + 0.14),  # inside: 2 x 7/8 x 8 GB at 100 GB/s is slower than 0.1
        ("all_reduce", "tree", 8, 8, 3e-6 + 7e-6 + 0.2),
        # each chip sends S and its eighth of the sum
        ("all_reduce", "switch", 8, 1, 7e-6 + 0.09),
        ("all_reduce", "switch", 8, 4, 2e-6 + 0.2),
        ("all_reduce", "recursive_halving_doubling", 8, 1, 6e-6 + 0.14),
        ("all_reduce", "one_shot", 2, 1, 1e-6 + 0.08),
        ("reduce_scatter", "mesh", 4, 1, 2e-6 + 0.06),
        # inside 7/8 of 8 GB at 100 GB/s, twice; between 3/4 of 1 GB at 10 GB/s, twice, in 2 x 2 steps
        ("all_reduce", "hierarchical", 8, 4, 2 * (7e-6 + 0.07) + 4e-6 + 0.15),
        # 8 of 16 parts of 0.5 GB leave at 10 GB/s; 1 + 7 steps
        ("all_to_all", "all_to_all", 8, 2, 8e-6 + 0.4),
        ("send_recv", "send_recv", 1, 2, 1e-6 + 0.8),
    ],
)
def test_formulas(operation: str, algorithm: str, r: int, n: int, seconds: float) -> None:
    found = collective_time_s(operation, 8e9, ideal(), ranks_per_domain=r, num_domains=n, algorithm=algorithm)
    assert found == pytest.approx(seconds, rel=1e-9)


def test_pipe_changes_its_protocol() -> None:
    """Quick up to where bulk is faster: 2 us + w/0.1B against 20 us + w/B, equal at w/B = 2 us."""
    pipe = Pipe(launch_s=0.0, step_s=2e-6, quick_frac=0.1, bulk_start_s=20e-6, bulk_step_s=0.0, bulk_frac=1.0)
    assert pipe.time_s(1.0, 1e-6, 1.0) == pytest.approx(12e-6)
    assert pipe.time_s(1.0, 2e-6, 1.0) == pytest.approx(22e-6)
    assert pipe.time_s(1.0, 9e-6, 1.0) == pytest.approx(29e-6)


def test_overlap_hides_the_shorter() -> None:
    pipe = Pipe(
        launch_s=0.0, step_s=1.0, quick_frac=1e-9, bulk_start_s=3e-6, bulk_step_s=0.0, bulk_frac=1.0, overlap=0.0
    )
    assert pipe.time_s(1.0, 4e-6, 1.0) == pytest.approx(5e-6)


def test_an_own_part_costs_only_inside_its_domain() -> None:
    """Half a part more on the wire inside (3 + 1/2 of 2 GB at 100 GB/s); a rank alone in its domain sends 3 GB."""
    network = ideal()
    ring = IDEAL.__class__(**{key: getattr(IDEAL, key) for key in IDEAL.__struct_fields__} | {"own_frac": 0.5})
    up = LinkProfile(name="own", links=(), library="ideal", scope="scale_up", pipes=PIPES | {"ring": ring}, fits={})
    profile = dataclasses.replace(network.profile, scale_up=up)
    for r, n, seconds in ((4, 1, 3e-6 + 0.07), (1, 4, 3e-6 + 0.6)):
        found = collective_time_s(
            "all_gather",
            8e9,
            dataclasses.replace(network, profile=profile),
            ranks_per_domain=r,
            num_domains=n,
            algorithm="ring",
        )
        assert found == pytest.approx(seconds)


def test_tpus_reduce_axis_by_axis() -> None:
    """A ring over all chips of a pod takes a step for each; axis by axis it takes those of its sides."""
    pod = wires_of(load_system("tpu-v5e-pod").pool).network
    ring, axes, best = (
        collective_time_s("all_reduce", 1e6, pod, ranks_per_domain=256, num_domains=1, algorithm=name)
        for name in ("ring", "axes", None)
    )
    pipe = pod.profile.scale_up.pipes["ring"]
    assert ring - axes == pytest.approx((2 * 255 - 2 * 30) * pipe.step_s)
    assert best == axes
    ranks, domains = np.array([256, 16, 1]), np.array([1, 2, 4])
    across = collective_time_s("all_reduce", 1e9, pod, ranks_per_domain=ranks, num_domains=domains, algorithm="axes")
    assert np.all(np.isfinite(across))
    assert np.all(np.asarray(across) > 0)


def test_a_torus_gives_a_small_group_one_axis() -> None:
    torus = ideal(topology="torus-3d", domain_size=64)
    assert scale_up_bytes_per_s(4, torus) == pytest.approx(100e9 / 3)
    assert scale_up_bytes_per_s(16, torus) == pytest.approx(200e9 / 3)
    assert scale_up_bytes_per_s(64, torus) == pytest.approx(100e9)
    assert scale_up_bytes_per_s(2, ideal(topology="mesh")) == pytest.approx(100e9 / 7)


def test_measured_landmarks() -> None:
    """Bus bandwidth of 8.6 GB all-reduces, as published: 8 x H200 by switch and by ring, 8 x B200 by ring."""
    size = 2.0**33
    for link, rate, algorithm, published in (
        ("nvlink-4", 450e9, "switch", 473e9),
        ("nvlink-4", 450e9, "ring", 366e9),
        ("nvlink-5", 900e9, "ring", 682e9),
    ):
        network = real(link, "infiniband-ndr", scale_up_bytes_per_s=rate)
        seconds = collective_time_s("all_reduce", size, network, ranks_per_domain=8, num_domains=1, algorithm=algorithm)
        assert 1.75 * size / seconds == pytest.approx(published, rel=0.06)


# --- properties of every algorithm and machine ------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.name)
def test_contract(algorithm: object) -> None:
    """Each entry of the tuple: right shape, 0 for one rank, never below the bytes on the wire, more bytes no faster."""
    r = np.array([1.0, 2.0, 4.0, 8.0, 8.0, 1.0])
    n = np.array([1.0, 1.0, 1.0, 1.0, 4.0, 16.0])
    for operation in algorithm.operations:
        last = np.zeros(6)
        for size in np.geomspace(8.0, 1e11, 60):
            found = collective_time_s(
                operation, size, ideal(), ranks_per_domain=r, num_domains=n, algorithm=algorithm.name
            )
            assert found.shape == (6,)
            assert found[0] == 0.0
            assert (found >= last * (1 - 1e-12)).all()
            for each, rr, nn in zip(found, r, n, strict=True):
                assert each >= wire_bound_s(operation, size, int(rr), int(nn), ideal()) * (1 - 1e-9)
            last = found


def test_names_are_unique_and_rules_name_algorithms() -> None:
    names = [each.name for each in ALGORITHMS]
    assert len(set(names)) == len(names)
    for file, profile in link_profiles().items():
        assert set(profile.rules) <= set(names), file
        assert set(profile.pipes) == set(profile.fits), f"{file}: every pipe says where it comes from"
        for pipe in profile.pipes.values():
            assert 0 < pipe.quick_frac <= 1
            assert 0 < pipe.bulk_frac <= 1
            assert 0 <= pipe.overlap <= 1


@settings(max_examples=300, deadline=None)
@given(operations, sizes, ranks, domains, machines)
def test_never_below_the_wire(operation: str, size: float, r: int, n: int, machine: str) -> None:
    network = MACHINES[machine]
    found = collective_time_s(operation, size, network, ranks_per_domain=r, num_domains=n)
    assert np.isfinite(found)
    if r * n == 1:
        assert found == 0.0
    else:
        assert found >= wire_bound_s(operation, size, r, n, network) * (1 - 1e-9)
        assert found > 0.0


@settings(max_examples=300, deadline=None)
@given(operations, sizes, st.floats(1.0, 100.0), ranks, domains, machines)
def test_more_bytes_are_never_faster(operation: str, size: float, factor: float, r: int, n: int, machine: str) -> None:
    network = MACHINES[machine]
    if any(rule.min_bytes > 0 or rule.max_bytes < np.inf for rule in network.profile.scale_up.rules.values()):
        return  # a library that changes its algorithm at a fixed size may be faster just above it
    small, large = (
        collective_time_s(operation, each, network, ranks_per_domain=r, num_domains=n) for each in (size, size * factor)
    )
    assert large >= small * (1 - 1e-9)


@settings(max_examples=300, deadline=None)
@given(operations, sizes, ranks, domains, machines, st.floats(1.0, 10.0), st.booleans())
def test_more_bandwidth_is_never_slower(
    operation: str, size: float, r: int, n: int, machine: str, factor: float, inside: bool
) -> None:
    slow = MACHINES[machine]
    key = "scale_up_bytes_per_s" if inside else "scale_out_bytes_per_s"
    fast = dataclasses.replace(slow, **{key: getattr(slow, key) * factor})
    before, after = (
        collective_time_s(operation, size, each, ranks_per_domain=r, num_domains=n) for each in (slow, fast)
    )
    assert after <= before * (1 + 1e-9)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_array_is_its_scalars(operation: str, machine: str) -> None:
    rng = np.random.default_rng(5)
    size = 10 ** rng.uniform(1, 10, 40)
    r, n = rng.choice([1, 2, 4, 8], 40), rng.choice([1, 2, 16], 40)
    network = MACHINES[machine]
    together = collective_time_s(operation, size, network, ranks_per_domain=r, num_domains=n)
    alone = [
        collective_time_s(operation, s, network, ranks_per_domain=a, num_domains=b)
        for s, a, b in zip(size, r, n, strict=True)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_operators_stack_in_front_of_candidates() -> None:
    size = np.geomspace(1e3, 1e9, 12).reshape(4, 3)
    found = collective_time_s(
        "all_gather", size, MACHINES["H100 InfiniBand"], ranks_per_domain=np.array([1.0, 4.0, 8.0]), num_domains=2
    )
    assert found.shape == (4, 3)


def test_8192_candidates_are_fast() -> None:
    """Target 1.5 ms on an idle core; the test allows for a busy one."""
    rng = np.random.default_rng(0)
    size, r, n = 10 ** rng.uniform(3, 10, 8192), rng.choice([1.0, 2, 4, 8], 8192), rng.choice([1.0, 2, 8, 64], 8192)
    network, best = MACHINES["H100 InfiniBand"], 1.0
    for _ in range(20):
        start = time.perf_counter()
        collective_time_s("all_reduce", size, network, ranks_per_domain=r, num_domains=n)
        best = min(best, time.perf_counter() - start)
    assert best < 6e-3


def test_groups_that_share_adapters() -> None:
    alone, shared = (
        collective_time_s("send_recv", 8e9, ideal(), ranks_per_domain=1, num_domains=2, concurrent_groups=each)
        for each in (1.0, 4.0)
    )
    assert shared - 1e-6 == pytest.approx(4 * (alone - 1e-6))


def test_unknown_names() -> None:
    with pytest.raises(ScenarioError, match="all_reduce"):
        collective_time_s("allreduce", 1.0, ideal(), ranks_per_domain=2, num_domains=1)
    with pytest.raises(ScenarioError, match="unknown algorithm for all_gather"):
        collective_time_s("all_gather", 1.0, ideal(), ranks_per_domain=2, num_domains=1, algorithm="switch")
    with pytest.raises(CatalogueError, match="expert-parallel library"):
        expert_profile("pigeons")


def test_profiles_by_link() -> None:
    assert link_profile("efa-v3", "scale_out").name == "NCCL over EFA v3"
    assert link_profile("efa-v3", "scale_out", "neuron").library == "neuron"
    assert link_profile("nvlink-4", "scale_up", "sglang").fallback_library == "nccl"
    assert link_profile("nvlink-4", "scale_up").library == "nccl"
    assert link_profile("carrier pigeon", "scale_up").name == "generic scale-up link"
    assert collective_profile("neuronlink-v4", "efa-trn3").scale_out.library == "neuron"


# --- expert parallelism -----------------------------------------------------------------------------------------


def test_token_bytes() -> None:
    assert token_bytes(7168, "fp8") == 7168 + 56 * 4
    assert token_bytes(7168, "nvfp4") == 7168 / 2 + 448
    assert token_bytes(7168, "bf16") == 14336


@pytest.mark.parametrize("name", expert_profiles())
def test_expert_contract(name: str) -> None:
    """More tokens take longer, one rank takes nothing, and the adapter's rate is never beaten."""
    profile, network = expert_profiles()[name], MACHINES["H100 InfiniBand"]
    tokens = np.geomspace(1, 65536, 50)
    routing = Routing(tokens_per_rank=tokens, token_bytes=7392.0, top_k=8.0)
    for phase in profile.pipes:
        found = expert_parallel_time_s(phase, routing, network, profile, ranks_per_domain=8, num_domains=4)
        assert (np.diff(found) > 0).all()
        assert expert_parallel_time_s(phase, routing, network, profile, ranks_per_domain=1, num_domains=1).max() == 0.0
        if phase != "prepare":  # at least one copy to other domains but for the share that stays
            least = tokens * 7392.0 * 0.75 / 50e9
            assert (found >= least).all()


# --- rows of a truth file ---------------------------------------------------------------------------------------

ROW = {
    "id": "x", "source_id": "s", "chip": "NVIDIA H100 SXM5", "nodes": "4", "ranks": "32", "ranks_per_node": "8",
    "op": "all_reduce", "network": "NVLink4 + InfiniBand NDR 8x400Gb", "library": "nccl-tests", "algo": "",
    "message_bytes": "1073741824", "time_us": "6000", "algbw_gbs": "", "busbw_gbs": "",
}  # fmt: skip


def test_a_row_as_a_question() -> None:
    question = question_of(ROW)
    assert (question.ranks_per_domain, question.num_domains) == (8, 4)
    assert question.network.scale_out_bytes_per_s == 50e9
    assert question.measured_s == pytest.approx(6e-3)
    assert question_of(ROW | {"network": "NVLink4 + EFAv3 16x200 Gb/s"}).network.profile.scale_out.name.endswith("v3")
    assert question_of(ROW | {"algo": "NVLSTree"}).algorithm == "switch"
    rail = question_of(ROW | {"op": "sendrecv", "network": "one EFA rail, 200 Gb/s", "ranks": "2", "nodes": "2"})
    assert (rail.num_domains, rail.network.scale_out_bytes_per_s) == (2, 25e9)
    rack = {"chip": "NVIDIA GB200", "system": "NVL72", "ranks": "144", "nodes": "36", "ranks_per_node": "4"}
    assert question_of(ROW | rack).ranks_per_domain == 72


def test_time_before_bandwidth() -> None:
    """A printed GB/s may be GiB/s: the time is used where there is one."""
    assert question_of(ROW | {"algbw_gbs": "1.0"}).measured_s == pytest.approx(6e-3)
    assert question_of(ROW | {"time_us": "", "algbw_gbs": "100"}).measured_s == pytest.approx(1.073741824e-2)
    by_bus = question_of(ROW | {"time_us": "", "busbw_gbs": "193.75"}).measured_s
    assert by_bus == pytest.approx(1.073741824e-2)
    assert question_of(ROW | {"time_us": ""}).measured_s is None  # still predicted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"message_bytes": ""}, "message_bytes is empty"),
        ({"ranks": ""}, "ranks is empty"),
        ({"op": "nic_ratio"}, "no model for operation 'nic_ratio'"),
        ({"network": "NVSwitch DGX"}, "the network between nodes is not stated"),
        ({"chip": "abacus"}, "no link is known for chip 'abacus'"),
        ({"message_bytes": "many"}, "message_bytes is not a"),
    ],
)
def test_a_row_that_lacks_something(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Skip, match=reason):
        question_of(ROW | change)
    (result,) = predict_rows([ROW | change])
    assert (result.status, result.predicted) == ("skipped", None)
    assert reason in result.reason


def test_a_scored_row() -> None:
    (result,) = predict_rows([ROW])
    assert (result.id, result.metric, result.status, result.unit) == ("x", "time_s", "scored", "s")
    assert result.low < result.predicted < result.high
    assert result.predicted == pytest.approx(6.0e-3, rel=0.15)


def test_a_dispatch_row() -> None:
    row = ROW | {
        "op": "ep_dispatch", "chip": "NVIDIA H200 SXM", "library": "DeepEP low-latency via SGLang 0.5.0",
        "network": "NVLink intra-node + RDMA inter-node", "ranks": "16", "nodes": "2", "message_bytes": "",
        "tokens_per_rank": "256", "hidden": "7168", "topk": "8", "experts": "256", "time_us": "183",
        "dtype": "fp8 dispatch / bf16 combine",
    }  # fmt: skip
    (result,) = predict_rows([row])
    assert result.predicted == pytest.approx(183e-6, rel=0.1)
    (result,) = predict_rows([row | {"time_us": "", "algbw_gbs": "80"}])
    assert (result.status, result.measured) == ("scored", None)  # a bandwidth alone does not say of how many bytes
