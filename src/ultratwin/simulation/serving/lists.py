"""Who waits and who runs: linked lists by priority, and a heap of who finishes first.

Waiting and running requests of one priority are in the order of their arrival, the running ones first: admission takes
from the head of one list to the tail of the other, preemption does the opposite.
"""

from __future__ import annotations

from typing import Any

from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.records import RUNNING_LIST, WAITING_LIST, ZERO, Sim


@compiled
def append(sim: Sim, r: int, which: int, i: int) -> None:
    """Put a request at the tail of its list."""
    q = sim.requests[i]
    ends, level = sim.lists, q.level
    tail = ends[r, level, which + 1]
    q.prev, q.next = tail, -1
    if tail < 0:
        ends[r, level, which] = i
    else:
        sim.requests[tail].next = i
    ends[r, level, which + 1] = i


@compiled
def prepend(sim: Sim, r: int, which: int, i: int) -> None:
    """Put a request at the head of its list."""
    q = sim.requests[i]
    ends, level = sim.lists, q.level
    head = ends[r, level, which]
    q.prev, q.next = -1, head
    if head < 0:
        ends[r, level, which + 1] = i
    else:
        sim.requests[head].prev = i
    ends[r, level, which] = i


@compiled
def unlink(sim: Sim, r: int, which: int, i: int) -> None:
    """Take a request out of its list."""
    q = sim.requests[i]
    ends, level = sim.lists, q.level
    before, after = q.prev, q.next
    if before < 0:
        ends[r, level, which] = after
    else:
        sim.requests[before].next = after
    if after < 0:
        ends[r, level, which + 1] = before
    else:
        sim.requests[after].prev = before


@compiled
def first_waiting(sim: Sim, r: int) -> int:
    """The request that is admitted next, -1 if none waits."""
    if sim.replicas[r].waiting == 0:
        return -1
    for level in range(sim.total[0].levels):
        head = sim.lists[r, level, WAITING_LIST]
        if head >= 0:
            return head  # type: ignore[no-any-return]
    return -1


@compiled
def last_running(sim: Sim, r: int) -> int:
    """The request that is preempted next: of the last priority, the youngest."""
    for level in range(sim.total[0].levels - 1, -1, -1):
        tail = sim.lists[r, level, RUNNING_LIST + 1]
        if tail >= 0:
            return tail  # type: ignore[no-any-return]
    return -1


@compiled
def _sift_up(heap: Any, start: int, place: int) -> None:
    key = heap[start + place]
    while place > 0:
        parent = (place - 1) >> 1
        if heap[start + parent] <= key:
            break
        heap[start + place] = heap[start + parent]
        place = parent
    heap[start + place] = key


@compiled
def _sift_down(heap: Any, start: int, place: int, size: int) -> None:
    key = heap[start + place]
    child = 2 * place + 1
    while child < size:
        if child + 1 < size and heap[start + child + 1] < heap[start + child]:
            child += 1
        if heap[start + child] >= key:
            break
        heap[start + place] = heap[start + child]
        place, child = child, 2 * child + 1
    heap[start + place] = key


@compiled
def push_finish(sim: Sim, r: int, i: int) -> None:
    """Enter a decoding request by the clock at which it has all its tokens."""
    replica, start = sim.replicas[r], r * sim.total[0].heap_places
    sim.heaps[start + replica.heap] = (sim.requests[i].finish_clock << sim.total[0].id_bits) | i
    _sift_up(sim.heaps, start, replica.heap)
    replica.heap += 1


@compiled
def pop_finish(sim: Sim, r: int) -> int:
    """The request that finishes first."""
    replica, start = sim.replicas[r], r * sim.total[0].heap_places
    key = sim.heaps[start]
    replica.heap -= 1
    if replica.heap > 0:
        sim.heaps[start] = sim.heaps[start + replica.heap]
        _sift_down(sim.heaps, start, ZERO, replica.heap)
    return key & ((1 << sim.total[0].id_bits) - 1)  # type: ignore[no-any-return]


@inlined
def first_finish_clock(sim: Sim, r: int) -> int:
    """The clock at which the first decoding request finishes."""
    return sim.heaps[r * sim.total[0].heap_places] >> sim.total[0].id_bits  # type: ignore[no-any-return]


@compiled
def remove_finish(sim: Sim, r: int, i: int) -> None:
    """Take a preempted request out of the heap."""
    replica, start = sim.replicas[r], r * sim.total[0].heap_places
    key = (sim.requests[i].finish_clock << sim.total[0].id_bits) | i
    place = 0
    while sim.heaps[start + place] != key:
        place += 1
    replica.heap -= 1
    if place < replica.heap:
        moved = sim.heaps[start + replica.heap]
        sim.heaps[start + place] = moved
        _sift_down(sim.heaps, start, place, replica.heap)
        if sim.heaps[start + place] == moved:
            _sift_up(sim.heaps, start, place)
