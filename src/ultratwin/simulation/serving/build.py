"""From requests, tables and limits to the records of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.simulation.serving.limits import POLICIES, EngineLimits
from ultratwin.simulation.serving.records import (
    BOTH,
    GAP_BINS,
    GAP_ENTRIES,
    NEVER,
    NODE,
    POOL,
    REPLICA,
    REQUEST,
    SERIES_COLUMNS,
    SERIES_POINTS,
    STATIC,
    TOTAL,
    Sim,
)
from ultratwin.timing.serving.tables import IterationTables
from ultratwin.workload.traffic.requests import Requests

_ENDLESS: Final = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """One kind of replica: its tables and limits, how many there are, and what they do."""

    tables: IterationTables
    limits: EngineLimits
    num_replicas: int = 1
    role: int = BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Stretches of blocks with one hash, as compressed rows: of each request its units, and where each ends [block]."""

    offsets: Any
    ids: Any
    ends: Any
    count: int


def build(
    pools: Sequence[PoolPlan], requests: Requests, *, rule: int = 0, stepwise: bool = False, seed: int = 0
) -> Sim:
    """Records of a simulation at its beginning."""
    num_replicas = sum(pool.num_replicas * pool.limits.pipeline_parallel_size for pool in pools)
    records, levels = _requests(requests)
    units = _units(requests, pools[0].limits)
    pool_records, values = _pools(pools)
    places = max(int(min(pool["max_num_seqs"], len(requests))) for pool in pool_records)
    block = max(pool.limits.block_size for pool in pools)
    total = _total(pools[0].limits.concurrency, len(requests), rule, stepwise, seed)
    total["replicas"], total["levels"], total["heap_places"] = num_replicas, levels, max(places, 1)
    total["leaves"] = 1 << max(num_replicas - 1, 0).bit_length()
    total["accepting"] = num_replicas
    cache = _cache(units, pool_records, num_replicas, len(requests), total)
    replicas = _replicas(pool_records, num_replicas, int(total["unit_places"][0]), cache["nodes"])
    return Sim(
        requests=records.view(np.recarray),
        replicas=replicas.view(np.recarray),
        pools=pool_records.view(np.recarray),
        total=total.view(np.recarray),
        values=values,
        heaps=np.zeros(num_replicas * int(total["heap_places"][0]), np.int64),
        residues=np.zeros((num_replicas, block), np.int64),
        lists=np.full((num_replicas, levels, 4), -1, np.int64),
        gap_events=np.zeros((num_replicas, GAP_ENTRIES), np.int64),
        gap_seconds=np.zeros((num_replicas, GAP_ENTRIES)),
        gap_bins=np.zeros(GAP_BINS, np.int64),
        series=np.zeros((SERIES_POINTS, SERIES_COLUMNS)),
        loads=np.zeros(num_replicas, np.int64),
        order=np.flatnonzero(_heads(requests, records)).astype(np.int64),
        timers=np.full(len(requests) + 2 * num_replicas + 2, NEVER),
        timer_ids=np.zeros(len(requests) + 2 * num_replicas + 2, np.int64),
        tree=_tree(num_replicas, int(total["leaves"][0])),
        **cache,
    )


def _requests(requests: Requests) -> tuple[Any, int]:
    """Records of the requests, and how many priorities there are."""
    records = np.zeros(len(requests), REQUEST)
    for name in ("scheduled_s", "first_token_s", "finish_s", "last_token_s"):
        records[name] = -1.0
    for name in ("next", "prev", "link", "successor", "replica", "home", "cached", "joined"):
        records[name] = -1
    records["arrival_s"] = requests.arrival_s
    records["prompt"], records["output"] = requests.prompt_tokens, requests.output_tokens
    levels = 1
    if requests.priority is not None and len(requests):
        kinds, place = np.unique(requests.priority, return_inverse=True)
        records["level"], levels = place, len(kinds)
    return records, levels


def _heads(requests: Requests, records: Any) -> Any:
    """Requests that arrive by the clock; the others follow the turn before them, which is written into `records`."""
    first = np.ones(len(requests), bool)
    if requests.session is None or requests.think_s is None:
        return first
    records["think_s"] = requests.think_s
    order = np.argsort(requests.session, kind="stable")
    follows = requests.session[order][1:] == requests.session[order][:-1]
    records["successor"][order[:-1][follows]] = order[1:][follows]
    first[order[1:][follows]] = False
    return first


def _units(requests: Requests, limits: EngineLimits) -> Units:
    """What the prefix cache can find again: blocks with hashes, or else all that a session has said so far."""
    empty = Units(
        offsets=np.zeros(len(requests) + 1, np.int64), ids=np.zeros(0, np.int64), ends=np.zeros(0, np.int64), count=0
    )
    if not limits.prefix_caching:
        return empty
    if requests.prefix_hashes is not None:
        return _hashed_units(requests, limits.block_size)
    if requests.session is None:
        return empty
    kinds, place = np.unique(requests.session, return_inverse=True)
    ends = np.full(len(requests), _ENDLESS, np.int64)
    return Units(offsets=np.arange(len(requests) + 1), ids=place.astype(np.int64), ends=ends, count=len(kinds))


def _hashed_units(requests: Requests, block_size: int) -> Units:
    """Blocks of a trace's hashes that are full in the engine's blocks; hashes without a full block are left out."""
    hashes = requests.prefix_hashes
    if hashes is None:
        raise ScenarioError("requests have no prefix hashes")
    lengths = np.diff(hashes.offsets)
    owner = np.repeat(np.arange(len(requests)), lengths)
    place = np.arange(len(hashes.hashes)) - np.repeat(hashes.offsets[:-1], lengths)
    ends = ((place + 1) * hashes.block_tokens) // block_size
    kept = ends > (place * hashes.block_tokens) // block_size
    _, ids = np.unique(hashes.hashes[kept], return_inverse=True)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner[kept], minlength=len(requests)))))
    count = int(ids.max()) + 1 if ids.size else 0
    return Units(
        offsets=offsets.astype(np.int64), ids=ids.astype(np.int64), ends=ends[kept].astype(np.int64), count=count
    )


def _cache(units: Units, pools: Any, num_replicas: int, num_requests: int, total: Any) -> dict[str, Any]:
    """Nodes of the prefix cache: one for each unit, or for each pair of unit and replica that may come to be."""
    caching = bool(pools["caching"].any())
    single = num_replicas == 1
    roles = 2 if len(pools) > 1 else 1
    unit_places = units.count if single else min(units.count * num_replicas, roles * len(units.ids))
    places = 1 if single or not caching else 1 << (2 * unit_places + 1).bit_length()
    total["unit_places"] = unit_places
    nodes = np.zeros(unit_places + num_replicas + num_requests + 1 if caching else 1, NODE)
    spare = unit_places + num_replicas  # one node for each replica's blocks, the others are free
    if caching:
        nodes["next"][spare:] = [*range(spare + 1, len(nodes)), -1]
        total["spare"] = spare
    return {
        "nodes": nodes.view(np.recarray),
        "unit_offsets": units.offsets,
        "unit_ids": units.ids,
        "unit_ends": units.ends,
        "table_keys": np.zeros(places, np.int64),
        "table_nodes": np.zeros(places, np.int64),
    }


def _replicas(pools: Any, num_replicas: int, unit_places: int, nodes: Any) -> Any:
    """Records of the replicas; all their blocks are free."""
    records = np.zeros(num_replicas, REPLICA)
    records["end_s"] = NEVER
    for name in ("partial", "chunks", "padding", "fresh", "queue_head", "queue_tail"):
        records[name] = -1
    records["accepting"] = records["up"] = 1
    for number, pool in enumerate(pools):
        here = slice(int(pool["first"]), int(pool["first"] + pool["count"]))
        records["pool"][here] = number
        if pool["caching"]:
            mine = np.arange(num_replicas)[here] + unit_places
            nodes["blocks"][mine], nodes["queued"][mine] = pool["num_blocks"], 1
            nodes["next"][mine] = nodes["prev"][mine] = -1
            records["queue_head"][here] = records["queue_tail"][here] = mine
    return records


def _total(concurrency: int, num_requests: int, rule: int, stepwise: bool, seed: int) -> Any:
    """The record of what all replicas share."""
    total = np.zeros(1, TOTAL)
    total["concurrency"], total["rule"], total["stepwise"] = concurrency, rule, stepwise
    total["id_bits"] = max(num_requests.bit_length(), 1)
    total["random"] = seed
    total["sample_every_s"] = 1e-3
    return total


def _tree(num_replicas: int, leaves: int) -> Any:
    """A tournament of replicas; at the beginning the first one of each match has won."""
    tree = np.full(2 * leaves, -1, np.int64)
    tree[leaves : leaves + num_replicas] = np.arange(num_replicas)
    for place in range(leaves - 1, 0, -1):
        tree[place] = tree[2 * place]
    if leaves == 1:
        tree[1] = 0
    return tree


_SIZES: Final = {
    "token_s": "tokens",
    "sample_s": "samples",
    "host_s": "sequences",
    "decode_knots": "knots",
    "chunk_knots": "chunk_sizes",
    "context_knots": "contexts",
}


def _pools(pools: Sequence[PoolPlan]) -> tuple[Any, Any]:
    """Records of the pools, and all tables in one line."""
    records = np.zeros(len(pools), POOL)
    parts: list[Any] = []
    place = first = 0
    for record, pool in zip(records, pools, strict=True):
        tables, limits = pool.tables, pool.limits
        for name, array in _tables(tables).items():
            record[name] = place
            parts.append(array)
            place += array.size
        for name, size in _SIZES.items():
            length = len(getattr(tables, name))
            record[size] = length if name.endswith("knots") else length - 1
        _write_limits(record, limits)
        record["step_tokens"] = max(round(tables.decode_tokens_per_sequence), 1)
        record["accepted"] = min(max(tables.accepted_tokens, 1.0), record["step_tokens"])
        record["max_num_seqs"] = max(min(record["max_num_seqs"], record["budget"] // record["step_tokens"]), 1)
        record["idle_w"], record["request_s"] = tables.idle_w, tables.request_s
        record["eager_s"], record["captured_tokens"] = tables.eager_s, tables.captured_tokens
        record["entry_s"] = 0.0 if limits.policy == "static" else tables.entry_s / pool.num_replicas
        record["overlaps_host"], record["role"] = tables.overlaps_host, pool.role
        record["first"], record["count"] = first, pool.num_replicas * limits.pipeline_parallel_size
        first += int(record["count"])
    return records, np.concatenate(parts)


def _tables(tables: IterationTables) -> dict[str, Any]:
    """The arrays of tables as lines of numbers."""
    names = ("token_s", "token_j", "sample_s", "sample_j", "host_s", "draft_s", "decode_knots", "chunk_knots")
    more = ("context_knots", "decode_j", "decode_s", "prefill_s", "prefill_j")
    renamed = {"decode_j": "decode_attention_j", "decode_s": "decode_attention_s"}
    renamed |= {"prefill_s": "prefill_attention_s", "prefill_j": "prefill_attention_j"}
    return {
        name: np.ravel(np.asarray(getattr(tables, renamed.get(name, name)), np.float64)) for name in (*names, *more)
    }


def _write_limits(record: Any, limits: EngineLimits) -> None:
    """Limits of one engine; pipeline stages share sequences and blocks."""
    share = limits.pipeline_parallel_size
    record["max_num_seqs"] = max(limits.max_num_seqs // share, 1)
    record["num_blocks"] = max(limits.num_kv_blocks // share, 1)
    record["budget"] = limits.max_num_batched_tokens
    record["policy"] = POLICIES.index(limits.policy)
    record["swaps"] = limits.preemption == "swap"
    record["chunked"], record["caching"] = limits.chunked_prefill, limits.prefix_caching
    for name in ("block_size", "max_model_len", "max_prefill_seqs", "swap_token_s", "reserve_frac", "reserve_prompt"):
        record[name] = getattr(limits, name)
    if record["policy"] == STATIC:
        record["reserve_frac"] = 1.0
