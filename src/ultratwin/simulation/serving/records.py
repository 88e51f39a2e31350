"""The state of a simulation: records that machine code reads and writes in place."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

import numpy as np

EPSILON_S: Final = 1e-9
"""Two moments closer than this are one: sums of times round differently when they are taken in other steps."""
NEVER: Final = np.inf

FUTURE: Final = 0
WAITING: Final = 1
PREFILLING: Final = 2
DECODING: Final = 3
PADDING: Final = 4
TRANSFERRING: Final = 5
DONE: Final = 6
REJECTED: Final = 7
ENTERING: Final = 8
"""In the queue of the process that takes requests in."""

MIXED: Final = 0
PREFILL_FIRST: Final = 1
STATIC: Final = 2

BOTH: Final = 0
PREFILL: Final = 1
DECODE: Final = 2

# Numba compiles a function anew for each literal among its arguments, but not for NumPy's numbers
WAITING_LIST: Final = cast(int, np.int64(0))
RUNNING_LIST: Final = cast(int, np.int64(2))
ENTRY: Final = cast(int, np.int64(0))
"""Pool that requests arrive at."""
DECODERS: Final = cast(int, np.int64(1))
"""Pool that they are transferred to."""
ZERO: Final = cast(int, np.int64(0))
ONE: Final = cast(int, np.int64(1))
YES: Final = cast(bool, np.bool_(True))
NO: Final = cast(bool, np.bool_(False))

SCALE: Final = -1
"""Timer that looks at the load; -2 - r is the one of replica r, which is ready then."""
CLOSED: Final = 2**40
"""Added to the load of a replica that takes no requests."""

GAP_ENTRIES: Final = 64
GAP_BINS: Final = 4096
GAP_LEAST_S: Final = 1e-6
GAP_RATIO: Final = 1.005
SERIES_POINTS: Final = 2048
SERIES_COLUMNS: Final = 6

REQUEST: Final = np.dtype(
    [
        ("arrival_s", "f8"),  # when it reached the server; closed loops and sessions move it
        ("scheduled_s", "f8"),  # first taken into a batch
        ("first_token_s", "f8"),
        ("finish_s", "f8"),
        ("last_token_s", "f8"),  # of its last token before a preemption
        ("max_gap_s", "f8"),
        ("think_s", "f8"),
        ("queued_s", "f8"),  # when the scheduler could see it
        ("prompt", "i8"),
        ("output", "i8"),
        ("generated", "i8"),  # tokens, when it joined the decodes or was preempted
        ("target", "i8"),  # tokens that its prefill computes: the prompt and what was generated before a preemption
        ("computed", "i8"),  # of them, cached ones included
        ("chunk", "i8"),  # tokens in the iteration that runs
        ("base_tokens", "i8"),  # while it decodes: tokens in the KV cache minus the replica's clock
        ("finish_clock", "i8"),
        ("joined", "i8"),  # number of decode events of its replica after its own first one
        ("held", "i8"),  # blocks of its own, while it prefills or waits for a transfer
        ("shared", "i8"),  # blocks of cached units that it uses
        ("units", "i8"),  # units that it refers to, the first ones of its list
        ("cached", "i8"),  # tokens found in the prefix cache when first scheduled
        ("next", "i8"),
        ("prev", "i8"),
        ("link", "i8"),  # next one in this iteration's list of prompts, or of padding
        ("successor", "i8"),  # next turn of its session
        ("replica", "i8"),
        ("home", "i8"),  # prefill replica that holds its blocks during a transfer
        ("level", "i8"),  # priority, as a number of a list
        ("state", "i8"),
        ("ready", "i8"),  # its KV needs no prefill: swapped out, or transferred
        ("preemptions", "i8"),
    ],
    align=True,
)

REPLICA: Final = np.dtype(
    [
        ("now_s", "f8"),  # when the iterations that run began
        ("end_s", "f8"),  # when they end; never, if idle
        ("chosen_s", "f8"),  # when the batch that is next was chosen: who comes later is not in it
        ("seconds", "f8"),
        ("joules", "f8"),
        ("first_gap_s", "f8"),  # seconds of the first iteration and of the last
        ("last_gap_s", "f8"),
        ("decoded_s", "f8"),  # when the last decode step ended
        ("busy_s", "f8"),
        ("energy_j", "f8"),
        ("egress_s", "f8"),  # when its link is free again
        ("ingress_s", "f8"),
        ("up_s", "f8"),  # when it was started
        ("paid_s", "f8"),  # seconds that it was up, before the present start
        ("ready_s", "f8"),  # when it is, after a start
        ("up", "i8"),  # started, not ended
        ("spare", "i8"),  # loaded and ready to take over
        ("begun", "i8"),  # iterations that run: 0 if idle, more than 1 in a jump
        ("with_decodes", "i8"),
        ("steps", "i8"),  # decode steps so far
        ("clock", "i8"),  # tokens that a sequence decoding from the start would have
        ("decodes", "i8"),
        ("base_sum", "i8"),
        ("base_blocks", "i8"),  # sum of base // block_size
        ("decode_shared", "i8"),
        ("finish_sum", "i8"),  # sum of finish clocks: answers still to come
        ("accounted", "i8"),  # blocks of decodes that were taken from the free queue
        ("prefill_blocks", "i8"),
        ("prefill_tokens", "i8"),  # targets of those that prefill, for reservations
        ("prefill_remaining", "i8"),
        ("transfer_blocks", "i8"),
        ("shared_in_use", "i8"),
        ("used", "i8"),  # blocks when last scheduled
        ("running", "i8"),
        ("waiting", "i8"),
        ("inbound", "i8"),  # requests whose KV is on its way to it
        ("fresh", "i8"),  # first of the requests that have not decoded yet
        ("partial", "i8"),  # request whose prompt is cut, -1 if none
        ("chunks", "i8"),  # first request of this iteration's list of prompts
        ("late", "i8"),  # somebody waits who came too late for the next batch
        ("padding", "i8"),
        ("quota", "i8"),  # static batching: prompts that may still join the batch
        ("heap", "i8"),  # sequences in its heap
        ("swap_tokens", "i8"),
        ("open_level", "i8"),  # a new request of a level before this one may end a jump
        ("events", "i8"),
        ("gap_first", "i8"),
        ("gap_count", "i8"),
        ("iterations", "i8"),
        ("queue_head", "i8"),  # free blocks, first to be taken first
        ("queue_tail", "i8"),
        ("served", "i8"),  # requests sent to it
        ("pool", "i8"),
        ("accepting", "i8"),
    ],
    align=True,
)

POOL: Final = np.dtype(
    [
        ("idle_w", "f8"),
        ("request_s", "f8"),
        ("entry_s", "f8"),  # of the process that takes requests in, for each, one after the other
        ("eager_s", "f8"),  # launching an iteration that no graph holds
        ("swap_token_s", "f8"),
        ("reserve_frac", "f8"),
        ("accepted", "f8"),
        ("step_tokens", "i8"),
        ("max_num_seqs", "i8"),
        ("budget", "i8"),
        ("num_blocks", "i8"),
        ("block_size", "i8"),
        ("max_model_len", "i8"),
        ("max_prefill_seqs", "i8"),
        ("first", "i8"),  # replicas of the pool: first and how many
        ("count", "i8"),
        ("turn", "i8"),  # round robin: whose turn it is
        ("token_s", "i8"),  # places of the tables in `values`
        ("token_j", "i8"),
        ("tokens", "i8"),  # largest size of a table
        ("sample_s", "i8"),
        ("sample_j", "i8"),
        ("samples", "i8"),
        ("host_s", "i8"),
        ("draft_s", "i8"),
        ("sequences", "i8"),
        ("decode_knots", "i8"),
        ("decode_s", "i8"),
        ("decode_j", "i8"),
        ("knots", "i8"),
        ("chunk_knots", "i8"),
        ("chunk_sizes", "i8"),
        ("context_knots", "i8"),
        ("contexts", "i8"),
        ("prefill_s", "i8"),
        ("prefill_j", "i8"),
        ("role", "i8"),
        ("policy", "i8"),
        ("captured_tokens", "i8"),  # largest iteration with prompts that a graph holds
        ("overlaps_host", "i8"),
        ("chunked", "i8"),
        ("caching", "i8"),
        ("swaps", "i8"),
        ("reserve_prompt", "i8"),
    ],
    align=True,
)

TOTAL: Final = np.dtype(
    [
        ("time_s", "f8"),
        ("entry_free_s", "f8"),  # when the process that takes requests in is free
        ("gate_s", "f8"),  # when the place in the closed loop that is free became free
        ("backlog_s", "f8"),  # time with requests waiting
        ("sample_every_s", "f8"),
        ("next_sample_s", "f8"),
        ("scale_every_s", "f8"),
        ("scale_load", "f8"),  # requests that a replica should have
        ("cold_start_s", "f8"),
        ("warm_start_s", "f8"),
        ("stabilization_s", "f8"),
        ("wanted_since_s", "f8"),  # when as many replicas as there are were last wanted
        ("transfer_token_s", "f8"),
        ("transfer_s", "f8"),
        ("transferred_tokens", "i8"),
        ("concurrency", "i8"),  # 0 is an open loop
        ("in_flight", "i8"),
        ("next_static", "i8"),
        ("timers", "i8"),
        ("waiting", "i8"),
        ("running", "i8"),
        ("used", "i8"),
        ("generated", "i8"),
        ("prefilled", "i8"),
        ("finished", "i8"),
        ("ended", "i8"),  # finished or rejected
        ("backlog_finished", "i8"),
        ("queued_at_last_arrival", "i8"),
        ("samples", "i8"),
        ("replicas", "i8"),
        ("leaves", "i8"),
        ("levels", "i8"),
        ("heap_places", "i8"),
        ("id_bits", "i8"),
        ("rule", "i8"),
        ("random", "i8"),
        ("nodes", "i8"),  # nodes of the prefix cache that were made
        ("spare", "i8"),  # first node of a list of those that are not used
        ("unit_places", "i8"),  # nodes that can be made; those of free blocks without a hash come after them
        ("stepwise", "i8"),
        ("accepting", "i8"),
        ("started", "i8"),  # replicas that accept or will
        ("least_replicas", "i8"),
        ("most_wanted", "i8"),  # replicas wanted since then, at most
    ],
    align=True,
)

NODE: Final = np.dtype(
    [
        ("blocks", "i8"),
        ("users", "i8"),
        ("next", "i8"),
        ("prev", "i8"),
        ("queued", "i8"),
    ],
    align=True,
)


class Sim(NamedTuple):
    """All of it; what is [replica, ...] or [request] is said in `build`."""

    requests: Any
    replicas: Any
    pools: Any
    total: Any
    values: Any  # tables of all pools, one after the other
    heaps: Any  # finish clocks [replica, place]
    residues: Any  # decodes by base modulo block size [replica, residue]
    lists: Any  # heads and tails of waiting and running by priority [replica, level, 4]
    gap_events: Any
    gap_seconds: Any
    gap_bins: Any
    series: Any
    loads: Any  # requests that each replica has to do with
    order: Any  # requests that arrive by the clock
    timers: Any  # moments of requests that arrive after another event
    timer_ids: Any
    tree: Any  # the replica whose iterations end first
    nodes: Any
    unit_offsets: Any
    unit_ids: Any
    unit_ends: Any
    table_keys: Any
    table_nodes: Any
