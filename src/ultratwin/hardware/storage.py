"""Where checkpoints go: memory of peer hosts, local NVMe, an object store or parallel file system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.failures import reliability_entry
from ultratwin.hardware.system import System

TIERS: Final = ("peer", "nvme", "store")
"""From the fastest and most fragile to what survives everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageTier:
    """One kind of store. Rates and capacity are of one node, and of all of them where they share it.

    `survives_node`, `survives_rack`: whether a checkpoint is still there when a node or a whole rack is lost.
    `keeps_history`: whether older checkpoints are there to go back to.
    """

    name: str
    write_bytes_per_s_per_node: float
    read_bytes_per_s_per_node: float
    write_bytes_per_s: float
    read_bytes_per_s: float
    capacity_bytes: float
    survives_node: bool
    survives_rack: bool
    keeps_history: bool

    def write_time_s(self, size_bytes: float, num_nodes: float) -> float:
        """Time to write a checkpoint whose shards lie evenly on so many nodes.

        Equation: t = max(S / (n b), S / B)
        Args: size_bytes: S of the whole checkpoint; num_nodes: n that write
        Returns: seconds
        """
        return size_bytes / min(self.write_bytes_per_s_per_node * num_nodes, self.write_bytes_per_s)

    def read_time_s(self, size_bytes: float, num_nodes: float) -> float:
        """Time for so many nodes to read their shards; as `write_time_s`."""
        return size_bytes / min(self.read_bytes_per_s_per_node * num_nodes, self.read_bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What a machine of so many nodes can save to: tiers, fastest first, and how fast chips hand over their state.

    `barrier_s`: what every save costs beside the copy.
    """

    tiers: tuple[StorageTier, ...]
    host_copy_bytes_per_s_per_chip: float
    barrier_s: float

    def tier(self, name: str) -> StorageTier:
        """A tier by name.

        Raises: ScenarioError for another name
        """
        for each in self.tiers:
            if each.name == name:
                return each
        raise unknown_name("checkpoint tier", name, TIERS, error=ScenarioError)


def load_storage(system: System, num_nodes: int) -> Storage:
    """The tiers of a system with so many nodes: its own host memory and network, the catalogue's usual stores."""
    pool = system.pool
    nodes_per_unit = max(system.unit_chips // pool.chips_per_node, 1)
    host = system.facts["host_memory_bytes"].si / nodes_per_unit if "host_memory_bytes" in system.facts else None
    return usual_storage(
        num_nodes, pool.chips_per_node, host_memory_bytes_per_node=host,
        network_bytes_per_s_per_node=float(pool.fabric.bytes_per_s) * pool.chips_per_node,
    )  # fmt: skip


def usual_storage(
    num_nodes: int, chips_per_node: int, *, host_memory_bytes_per_node: float | None = None,
    network_bytes_per_s_per_node: float = 0.0,
) -> Storage:  # fmt: skip
    """The catalogue's usual stores for so many nodes.

    Args: host_memory_bytes_per_node: None for the usual; network_bytes_per_s_per_node: one way, 0 for no limit
    """
    figures = {key: fact.si for key, fact in reliability_entry("storage").figures.items()}
    share = min(chips_per_node / 8.0, 1.0)  # stores of a node were measured on nodes of eight chips
    host = host_memory_bytes_per_node or figures["host_memory_bytes_per_node"] * share
    copy = figures["host_copy_bytes_per_s_per_chip"] * chips_per_node
    peer_rate = min(network_bytes_per_s_per_node or copy, copy)
    kept = figures["peer_copies"] * 2.0  # one that is complete and one that is being written
    infinite = float("inf")
    peer = StorageTier(
        name="peer", write_bytes_per_s_per_node=peer_rate, read_bytes_per_s_per_node=peer_rate,
        write_bytes_per_s=infinite, read_bytes_per_s=infinite,
        capacity_bytes=host * figures["peer_memory_frac"] * num_nodes / kept,
        survives_node=True, survives_rack=False, keeps_history=False,
    )  # fmt: skip
    nvme = StorageTier(
        name="nvme", write_bytes_per_s_per_node=figures["nvme_write_bytes_per_s_per_node"] * share,
        read_bytes_per_s_per_node=figures["nvme_read_bytes_per_s_per_node"] * share,
        write_bytes_per_s=infinite, read_bytes_per_s=infinite,
        capacity_bytes=figures["nvme_bytes_per_node"] * share * num_nodes / 2.0,
        survives_node=False, survives_rack=False, keeps_history=False,
    )  # fmt: skip
    store = StorageTier(
        name="store", write_bytes_per_s_per_node=figures["store_write_bytes_per_s_per_node"] * share,
        read_bytes_per_s_per_node=figures["store_read_bytes_per_s_per_node"] * share,
        write_bytes_per_s=figures["store_write_bytes_per_s"], read_bytes_per_s=figures["store_read_bytes_per_s"],
        capacity_bytes=figures["store_bytes"] / figures["store_kept"],
        survives_node=True, survives_rack=True, keeps_history=True,
    )  # fmt: skip
    return Storage(
        tiers=(peer, nvme, store),
        host_copy_bytes_per_s_per_chip=figures["host_copy_bytes_per_s_per_chip"],
        barrier_s=figures["save_barrier_s"],
    )
