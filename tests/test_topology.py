"""Topologies: structure, counts, paths, bisection, losses, and what does not close."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import load_system
from ultratwin.hardware.topology.axis import Axis
from ultratwin.hardware.topology.clos import Clos
from ultratwin.hardware.topology.entries import Shape, _shape_faults, fabric_entries
from ultratwin.hardware.topology.product import Product
from ultratwin.hardware.topology.queries import LOSSES, link_levels, loss, meeting_level, parts, path
from ultratwin.hardware.topology.rail_optimised import RailOptimised
from ultratwin.hardware.topology.ring import Ring
from ultratwin.hardware.topology.switch import Switch
from ultratwin.hardware.topology.topology import AXES, Topology, build_domain, build_topology

KINDS = st.sampled_from(AXES)


def axis(kind: type[Axis], size: int, name: str = "x") -> Axis:
    return kind(name=name, size=size, bytes_per_s=100e9, latency_s=1e-6)


@pytest.mark.parametrize("system", loader.ids("systems"))
def test_every_system_of_the_catalogue_closes(system: str) -> None:
    found = load_system(system)
    for chips in (1, found.unit_chips, found.max_chips):
        topology = build_topology(found, chips)
        assert chips <= topology.num_endpoints < chips + topology.domain.size
        assert topology.domain.size <= found.pool.domain.size
        if topology.domain.size == found.pool.domain.size > 1:
            rate = float(found.pool.domain.bytes_per_s) or float(found.pool.fabric.bytes_per_s)
            assert topology.domain.bytes_per_s == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    ("chips", "leaf", "spine", "core"),
    [(512, 16, 8, 0), (1024, 32, 16, 0), (2048, 64, 32, 0), (4096, 128, 128, 64), (8192, 256, 256, 128),
     (16384, 512, 512, 256)],
)  # fmt: skip
def test_superpod_has_the_switches_and_cables_of_nvidias_table(chips: int, leaf: int, spine: int, core: int) -> None:
    topology = build_topology("dgx-h100", chips)
    fabric = topology.fabric
    assert fabric is not None
    assert (fabric.num_leaves, fabric.num_spines, fabric.num_cores) == (leaf, spine, core)
    cables = [level.num_links for level in link_levels(topology)[1:]]
    assert cables == [chips] * (3 if core else 2)


def test_one_domain_has_no_fabric_to_ask_for() -> None:
    assert build_topology("dgx-h100", 16).between_domains().num_domains == 2
    with pytest.raises(ScenarioError, match="one domain"):
        build_topology("dgx-h100", 8).between_domains()


def test_tpu_v4_pod_has_its_published_bisection() -> None:
    domain = build_topology("tpu-v4-pod", 4096).domain
    assert [each.size for each in domain.axes] == [16, 16, 16]
    assert domain.bisection_bytes_per_s() == pytest.approx(24e12, rel=0.05)  # Google Cloud's page: 24 TB/s


def test_meta_cluster_has_pods_of_3072_and_seven_to_one() -> None:
    fabric = build_topology("h100-roce", 24_576).fabric
    assert fabric is not None
    assert (fabric.num_pods, fabric.domains_per_pod * 8, fabric.num_leaves) == (8, 3072, 1536)
    nics = 24_576 * fabric.nic_bytes_per_s / 2
    assert fabric.bisection_bytes_per_s() == pytest.approx(nics * 2 / 7)  # twice the uplinks, a seventh of them


def test_trn3_ultracluster_of_a_million() -> None:
    topology = build_topology("trn3-ultracluster", 1_000_000)
    assert [(each.name, each.kind, each.size) for each in topology.domain.axes] == [
        ("sled", "switch", 4), ("rack", "switch", 18), ("twin", "switch", 2)
    ]  # fmt: skip
    assert topology.num_endpoints == 6945 * 144
    assert parts(topology, 4)["hosts"] == 250_020
    fabric = topology.fabric
    assert fabric is not None
    assert fabric.num_levels == 3
    assert fabric.num_pods <= fabric.switch_ports


@settings(deadline=None)
@given(kind=KINDS, size=st.integers(1, 9), data=st.data())
def test_a_row_leads_everywhere(kind: type[Axis], size: int, data: st.DataObject) -> None:
    """Every hop count is that of the kind, and links are named by chips of the row."""
    one = axis(kind, size)
    source, target = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    hops = one.hops(np.array([source]), np.array([target]), 1)
    apart = (target - source) % size
    expected = {"ring": min(apart, size - apart), "switch": 2 * (apart > 0), "mesh": int(apart > 0)}[one.kind]
    assert len(hops.link) == expected
    assert all(0 <= link < size * one.ports for link in hops.link)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3), data=st.data())
def test_products_go_axis_by_axis(sizes: list[int], data: st.DataObject) -> None:
    kinds = data.draw(st.lists(KINDS, min_size=len(sizes), max_size=len(sizes)))
    domain = Product(
        axes=tuple(axis(kind, size, f"a{at}") for at, (kind, size) in enumerate(zip(kinds, sizes, strict=True)))
    )
    places = np.arange(domain.size)
    target = np.array(data.draw(st.permutations(range(domain.size))))
    hops = domain.hops(places, target)
    stay = np.flatnonzero(places == target)
    assert not np.isin(hops.flow, stay).any()
    assert set(hops.flow.tolist()) == set(places.tolist()) - set(stay.tolist())
    names = {domain.link_name(int(link)) for link in hops.link}
    assert len(names) == len(set(hops.link.tolist()))


@pytest.mark.parametrize("kind", AXES)
def test_every_kind_of_axis_carries_a_permutation_once(kind: type[Axis]) -> None:
    """The ways round of an axis load no link more than its share."""
    one = axis(kind, 6)
    load = np.zeros(6 * one.ports)
    for shift, share in one.next_ports():
        hops = one.hops(np.arange(6), (np.arange(6) + shift) % 6, 1)
        np.add.at(load, hops.link, share * one.bytes_per_s)
    assert load.max() <= one.port_bytes_per_s * (1 + 1e-9)
    assert sum(share for _, share in one.next_ports()) == pytest.approx(1.0)


def test_a_ring_of_two_has_both_cables() -> None:
    pair = axis(Ring, 2)
    assert pair.port_bytes_per_s == 100e9
    assert pair.next_ports() == ((1, 1.0),)
    line = Ring(name="x", size=4, bytes_per_s=100e9, latency_s=0.0, closed=False)
    assert len(line.hops(np.array([0]), np.array([3]), 1).link) == 3  # no way round
    assert line.bisection_bytes_per_s() == 50e9


def test_slices_of_tpu_pods_are_even_boxes_that_close() -> None:
    cube = build_topology("tpu-v4-pod", 512).domain
    assert [each.size for each in cube.axes] == [8, 8, 8]
    assert all(isinstance(each, Ring) and each.closed for each in cube.axes)
    small = build_topology("tpu-v4-pod", 8).domain
    assert [each.size for each in small.axes] == [2, 2, 2]
    assert not any(isinstance(each, Ring) and each.closed for each in small.axes)


@pytest.mark.parametrize("chips", [2, 8, 144, 145, 72_000, 1_000_000])
def test_paths_meet_where_they_must(chips: int) -> None:
    topology = build_topology("trn3-ultracluster", chips)
    last = topology.num_endpoints - 1
    assert path(topology, 0, 0) == ()
    names = [hop.link for hop in path(topology, 0, last)]
    if topology.fabric is None:
        assert all("of chip" in name for name in names)
        return
    assert names[0] == "adapter of chip 0 up"
    assert names[-1] == f"adapter of chip {last} down"
    level = meeting_level(topology.fabric, 0, 0, topology.num_domains - 1, topology.domain.size - 1)
    assert len(names) == 2 + 2 * level
    with pytest.raises(ScenarioError, match="there is no chip"):
        path(topology, 0, last + 1)


@given(
    domains=st.integers(1, 300), lanes=st.sampled_from([1, 2, 4, 8, 12, 72]), ports=st.sampled_from([4, 8, 16, 64]),
    over=st.floats(0.5, 4.0), rails=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_fabrics_hold_everybody_once(domains: int, lanes: int, ports: int, over: float, rails: bool) -> None:
    common = {"num_domains": domains, "num_lanes": lanes, "nic_bytes_per_s": 50e9, "switch_ports": ports, "hop_s": 0.0,
              "leaf_oversubscription": over}  # fmt: skip
    try:
        fabric = RailOptimised(rails=lanes, **common) if rails else Clos(**common)  # type: ignore[arg-type]
    except ScenarioError:
        assert domains * lanes > ports**2 // 2  # only what is too large for two core levels
        return
    domain, lane = np.divmod(np.arange(domains * lanes), lanes)
    leaf = fabric.block_of(domain) * fabric.slots_per_domain + fabric.slot_of(lane)
    on = np.bincount(leaf, minlength=fabric.num_leaves)
    assert len(on) == fabric.num_leaves
    assert on.max() <= fabric.domains_per_leaf * fabric.lanes_per_leaf <= max(fabric.ports_down, 1)
    assert fabric.pod_of(domain).max() == fabric.num_pods - 1
    assert 0 < fabric.bisection_bytes_per_s() <= domains * lanes * 50e9 / 2


def test_losses_of_every_part() -> None:
    topology = build_topology("dgx-h100", 16_384)
    found = {part: loss(topology, part, 32) for part in LOSSES}
    assert found["leaf"].left_frac == 1 - 1 / 8  # one of eight rails
    assert found["leaf"].chips_lost == 0
    assert found["adapter"].left_frac == 1 - 1 / 8
    assert found["rack"].chips_lost == 32
    assert found["core"].left_frac == 1 - 1 / 256
    assert found["link"].note == "the chip is cut off"
    whole = loss(build_topology("trn3-ultracluster", 1_000_000), "rack", 72)
    assert "144 chips" in whole.note  # half an UltraServer takes the other half with it
    with pytest.raises(ScenarioError, match="unknown part"):
        loss(topology, "rake", 32)
    with pytest.raises(ScenarioError, match="unknown part"):
        loss(build_topology("dgx-h100", 8), "leaf", 32)


@pytest.mark.parametrize(
    "text", ["sides (4, 4) hold 16 chips", "different number", "do not sum to 1", "unknown source"]
)
def test_shapes_that_do_not_close(text: str) -> None:
    shape = Shape(chips=17, axes=("x", "y"), sides=(4, 4), kinds=("ring",), shares=(0.5, 0.2), status="assumed",
                  source="nobody")  # fmt: skip
    assert any(text in fault for fault in _shape_faults(shape))


def test_every_fabric_file_is_sound_and_known() -> None:
    assert set(fabric_entries()) <= set(loader.ids("links"))
    for link in loader.ids("systems"):
        pool = load_system(link).pool
        assert pool.fabric.link in fabric_entries() or pool.fabric.link == "omni-path-100"


def test_a_torus_without_sides_must_be_square() -> None:
    pool = load_system("trn2.48xlarge").pool
    odd = dataclasses.replace(pool, domain=dataclasses.replace(pool.domain, size=18))
    with pytest.raises(ScenarioError, match="18 chips does not close"):
        build_domain(odd)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_cannot_be(rate: float) -> None:
    with pytest.raises(ScenarioError, match="rate"):
        Ring(name="x", size=4, bytes_per_s=rate, latency_s=0.0)
    with pytest.raises(ScenarioError, match="nic_bytes_per_s"):
        Clos(num_domains=4, num_lanes=2, nic_bytes_per_s=rate, switch_ports=8, hop_s=0.0)


def test_what_does_not_close() -> None:
    with pytest.raises(ScenarioError, match="has none left to go up"):
        Clos(num_domains=4, num_lanes=2, nic_bytes_per_s=1.0, switch_ports=8, hop_s=0.0, leaf_ports=8)
    with pytest.raises(ScenarioError, match="do not close"):
        Clos(num_domains=10_000, num_lanes=2, nic_bytes_per_s=1.0, switch_ports=4, hop_s=0.0)
    with pytest.raises(ScenarioError, match="rails"):
        RailOptimised(num_domains=4, num_lanes=6, nic_bytes_per_s=1.0, switch_ports=8, hop_s=0.0, rails=4)
    with pytest.raises(ScenarioError, match="do not fill rows"):
        build_topology("trn3-ultracluster", 50)
    with pytest.raises(ScenarioError, match="each name once"):
        Product(axes=(axis(Switch, 2), axis(Ring, 2)))


def test_too_many_chips_says_what_holds_them() -> None:
    with pytest.raises(ScenarioError) as found:
        build_topology("trn2.3xlarge", 1000)
    assert "it holds 64" in found.value.allowed
    assert found.value.hint == "trn2-ultracluster holds 500,000 of the same chip"
    with pytest.raises(ScenarioError) as found:
        build_topology("gb200-nvl72", 1_000_000)
    assert "it holds 200,000 chips at most (of 72 in a unit)" in found.value.allowed
    assert "trn3-ultracluster with 1,000,000" in found.value.hint


def test_structure_does_not_grow() -> None:
    small, large = (build_topology("trn3-ultracluster", chips) for chips in (288, 1_000_000))
    assert isinstance(small, Topology)
    assert len(repr(large)) < len(repr(small)) + 20
