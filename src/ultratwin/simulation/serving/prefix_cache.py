"""Prefix cache: full blocks are found again by their hashes; the least recently freed give way first.

A unit is a stretch of blocks with one hash (of everything up to its end). A node is a unit on one replica: how many of
its blocks are there, from its beginning, and how many running requests use it. Free blocks are a queue of nodes, those
without a hash included; new blocks come from its head, freed ones go to its tail, the last block of a prompt first.
"""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import NO, YES, Sim

_GOLDEN = 0x9E3779B97F4A7C15 >> 1


@compiled
def find_node(sim: Sim, r: int, unit: int, make: bool) -> int:
    """The node of a unit on a replica; -1 if there is none and none is made."""
    total = sim.total[0]
    if total.replicas == 1:
        return unit
    key = unit * total.replicas + r + 1
    mask = len(sim.table_keys) - 1
    place = ((key * _GOLDEN) >> 20) & mask
    while sim.table_keys[place] != 0:
        if sim.table_keys[place] == key:
            return sim.table_nodes[place]  # type: ignore[no-any-return]
        place = (place + 1) & mask
    if not make:
        return -1
    sim.table_keys[place], sim.table_nodes[place] = key, total.nodes
    total.nodes += 1
    return total.nodes - 1  # type: ignore[no-any-return]


@compiled
def enqueue(sim: Sim, r: int, n: int, first: bool) -> None:
    """Put a node at the tail of the free queue, or at its head."""
    replica, node = sim.replicas[r], sim.nodes[n]
    node.queued = 1
    node.prev = -1 if first else replica.queue_tail
    node.next = replica.queue_head if first else -1
    if node.prev < 0:
        replica.queue_head = n
    else:
        sim.nodes[node.prev].next = n
    if node.next < 0:
        replica.queue_tail = n
    else:
        sim.nodes[node.next].prev = n


@compiled
def dequeue(sim: Sim, r: int, n: int) -> None:
    """Take a node out of the free queue."""
    replica, node = sim.replicas[r], sim.nodes[n]
    node.queued = 0
    if node.prev < 0:
        replica.queue_head = node.next
    else:
        sim.nodes[node.prev].next = node.next
    if node.next < 0:
        replica.queue_tail = node.prev
    else:
        sim.nodes[node.next].prev = node.prev


@compiled
def take_blocks(sim: Sim, r: int, count: int) -> None:
    """Take blocks from the head of the free queue; hashes of those are forgotten, a unit's last blocks first."""
    total = sim.total[0]
    if sim.pools[sim.replicas[r].pool].caching == 0:
        return
    while count > 0:
        n = sim.replicas[r].queue_head
        node = sim.nodes[n]
        taken = min(count, node.blocks)
        node.blocks -= taken
        count -= taken
        if node.blocks == 0:
            dequeue(sim, r, n)
            if n >= total.unit_places + total.replicas:
                node.next, total.spare = total.spare, n


@compiled
def free_nameless(sim: Sim, r: int, count: int, first: bool) -> None:
    """Put blocks without a hash at the tail of the free queue, or at its head."""
    total = sim.total[0]
    if count <= 0 or sim.pools[sim.replicas[r].pool].caching == 0:
        return
    n = total.spare
    if n < 0:  # more stretches than there are nodes for: these join the oldest ones
        n, first = total.unit_places + r, True
    else:
        total.spare = sim.nodes[n].next
    sim.nodes[n].blocks += count
    if sim.nodes[n].queued == 0:
        enqueue(sim, r, n, first)


@compiled
def find_prefix(sim: Sim, r: int, i: int, limit: int) -> tuple[int, int, int]:
    """Cached blocks at the beginning of a prompt, at most `limit`: blocks, units, and blocks of them that are free."""
    found, units, free, start = 0, 0, 0, 0
    for place in range(sim.unit_offsets[i], sim.unit_offsets[i + 1]):
        n = find_node(sim, r, sim.unit_ids[place], NO)
        end = sim.unit_ends[place]
        if n < 0 or sim.nodes[n].blocks == 0 or start >= limit:
            break
        node = sim.nodes[n]
        here = min(node.blocks, min(end, limit) - start)
        found += here
        units += 1
        if node.users == 0:
            free += here
        if here < end - start:
            break
        start = end
    return found, units, free


@compiled
def _begin_use(sim: Sim, r: int, n: int) -> None:
    """One user more; a node that was free leaves the queue."""
    node = sim.nodes[n]
    if node.users == 0 and node.queued:
        dequeue(sim, r, n)
        sim.replicas[r].shared_in_use += node.blocks
    node.users += 1


@compiled
def use_prefix(sim: Sim, r: int, i: int, units: int, count: int) -> None:
    """A request is admitted onto units that were found. Of a free unit it uses in part, the other blocks are let go."""
    q, start, left = sim.requests[i], sim.unit_offsets[i], count
    for place in range(start, start + units):
        n = find_node(sim, r, sim.unit_ids[place], NO)
        node = sim.nodes[n]
        surplus = node.blocks - left
        if place == start + units - 1 and node.users == 0 and surplus > 0:
            node.blocks = left
            free_nameless(sim, r, surplus, YES)
        left -= node.blocks
        _begin_use(sim, r, n)
    q.units, q.shared = units, count


@compiled
def _lose_name(sim: Sim, r: int, n: int) -> None:
    """Free blocks whose hash others take over keep their place in the queue."""
    total, replica, node = sim.total[0], sim.replicas[r], sim.nodes[n]
    spare = total.spare
    if spare < 0:
        dequeue(sim, r, n)
        free_nameless(sim, r, node.blocks, YES)
    else:
        other = sim.nodes[spare]
        total.spare = other.next
        other.blocks, other.prev, other.next, other.queued = node.blocks, node.prev, node.next, 1
        if node.prev < 0:
            replica.queue_head = spare
        else:
            sim.nodes[node.prev].next = spare
        if node.next < 0:
            replica.queue_tail = spare
        else:
            sim.nodes[node.next].prev = spare
    node.blocks, node.queued = 0, 0


@compiled
def register(sim: Sim, r: int, i: int, upto: int) -> None:
    """Full blocks that a request has computed become findable, from now on shared instead of its own."""
    if sim.pools[sim.replicas[r].pool].caching == 0:
        return
    replica, q = sim.replicas[r], sim.requests[i]
    offset, end_place = sim.unit_offsets[i], sim.unit_offsets[i + 1]
    place = offset + max(q.units - 1, 0)
    while place < end_place:
        start = sim.unit_ends[place - 1] if place > offset else 0
        if start >= upto:
            break
        n = find_node(sim, r, sim.unit_ids[place], YES)
        node = sim.nodes[n]
        if place >= offset + q.units:
            if node.users > 0 and node.blocks >= min(sim.unit_ends[place], upto) - start:
                break  # another request has the same blocks: this one keeps its copies
            if node.users == 0 and node.queued:
                _lose_name(sim, r, n)
            _begin_use(sim, r, n)
            q.units = place + 1 - offset
        new = min(sim.unit_ends[place], upto) - start - node.blocks
        new = min(new, q.held)
        if new > 0:
            node.blocks += new
            replica.shared_in_use += new
            replica.prefill_blocks -= new
            q.held -= new
            q.shared += new
        place += 1


@compiled
def end_use(sim: Sim, r: int, i: int) -> None:
    """A request lets go of its units; those without a user go to the queue, the last first."""
    replica, q = sim.replicas[r], sim.requests[i]
    offset = sim.unit_offsets[i]
    for place in range(offset + q.units - 1, offset - 1, -1):
        n = find_node(sim, r, sim.unit_ids[place], NO)
        node = sim.nodes[n]
        node.users -= 1
        if node.users == 0:
            replica.shared_in_use -= node.blocks
            if node.blocks > 0:
                enqueue(sim, r, n, NO)
    q.units, q.shared = 0, 0
