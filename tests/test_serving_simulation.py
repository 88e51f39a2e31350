"""The event loop against a scheduler written a second time, token by token, and against closed forms."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ultratwin.errors import ScenarioError
from ultratwin.simulation.serving.limits import POLICIES, EngineLimits
from ultratwin.simulation.serving.served import Served
from ultratwin.simulation.serving.simulate import simulate
from ultratwin.timing.serving.tables import IterationTables
from ultratwin.workload.traffic.requests import PrefixHashes, Requests

MOMENTS = ("scheduled_s", "first_token_s", "finish_s")


def make_tables(**changes: Any) -> IterationTables:
    """Tables of a small engine; joules are 100 times the seconds."""
    tokens, sequences = np.arange(129.0), np.arange(17.0)
    knots = np.array([1.0, 20.0, 60.0, 200.0, 1000.0])
    chunks, contexts = np.array([1.0, 32.0, 128.0]), np.array([0.0, 50.0, 500.0])
    seconds: dict[str, Any] = {
        "token_s": 1e-3 + np.maximum(1e-3, tokens * 3e-5),
        "sample_s": 1e-4 + 1e-6 * sequences,
        "decode_attention_s": 1e-5 * sequences[:, None] * np.sqrt(knots),
        "prefill_attention_s": 1e-6 * chunks[:, None] * (10.0 + contexts),
    }
    joules = {f"{name[:-2]}_j": 100.0 * value for name, value in seconds.items()}
    rest: dict[str, Any] = {
        "decode_knots": knots, "chunk_knots": chunks, "context_knots": contexts,
        "host_s": 5e-4 + 1e-5 * sequences, "draft_s": np.zeros(17),
        "overlaps_host": False, "request_s": 0.0, "idle_w": 10.0,
    }  # fmt: skip
    return IterationTables(**(seconds | joules | rest | changes))


def fixed_tables(seconds: float) -> IterationTables:
    """Every iteration takes the same time."""
    flat = {name: np.zeros_like(getattr(make_tables(), name)) for name in ("sample_s", "decode_attention_s")}
    return make_tables(token_s=np.full(129, seconds), prefill_attention_s=np.zeros((3, 3)), host_s=np.zeros(17), **flat)


def make_limits(**changes: Any) -> EngineLimits:
    given_ = {"max_num_seqs": 8, "max_num_batched_tokens": 64, "num_kv_blocks": 60, "block_size": 4}
    return EngineLimits(**(given_ | changes))


def make_requests(arrival_s: Any, prompt: Any, output: Any, **others: Any) -> Requests:
    return Requests(arrival_s=arrival_s, prompt_tokens=prompt, output_tokens=output, **others)


# ---------------------------------------------------------------- the scheduler, written again


@dataclass
class Block:
    users: int = 0
    name: int | None = None


@dataclass
class Job:
    number: int
    prompt: int
    output: int
    names: list[int]
    computed: int = 0
    generated: int = 0
    blocks: list[Block] = field(default_factory=list)
    queued_s: float = 0.0
    chunk: int = 0
    decodes: bool = False

    @property
    def target(self) -> int:
        return self.prompt + self.generated


class NaiveEngine:
    """One iteration at a time, block by block: running first, then waiting, the last one is preempted."""

    def __init__(self, tables: IterationTables, limits: EngineLimits) -> None:
        self.tables, self.limits = tables, limits
        self.free: OrderedDict[int, Block] = OrderedDict(
            (id(b), b) for b in (Block() for _ in range(limits.num_kv_blocks))
        )
        self.keep = list(self.free.values())
        self.named: dict[int, Block] = {}
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.chosen_s = 0.0

    def needed(self, job: Job, tokens: int) -> int:
        return -(-tokens // self.limits.block_size) - len(job.blocks)

    def allocate(self, job: Job, count: int) -> None:
        for _ in range(count):
            _, block = self.free.popitem(last=False)
            if block.name is not None:
                del self.named[block.name]
                block.name = None
            block.users = 1
            job.blocks.append(block)

    def name_blocks(self, job: Job, tokens: int) -> None:
        full = tokens // self.limits.block_size
        for place in range(job.computed // self.limits.block_size, min(full, len(job.names))):
            block, name = job.blocks[place], job.names[place]
            if block.name == name or (name in self.named and self.named[name].users):
                continue
            if name in self.named:
                self.named[name].name = None
            block.name, self.named[name] = name, block

    def give_back(self, job: Job) -> None:
        for block in reversed(job.blocks):
            block.users -= 1
            if block.users == 0:
                self.free[id(block)] = block
        job.blocks = []

    def hits(self, job: Job) -> list[Block]:
        found = []
        for name in job.names[: (job.target - 1) // self.limits.block_size]:
            if name not in self.named:
                break
            found.append(self.named[name])
        return found

    def preempt(self) -> Job:
        job = self.running.pop()
        self.give_back(job)
        job.computed, job.chunk, job.decodes = 0, 0, False
        self.waiting.appendleft(job)
        return job

    def schedule(self) -> list[Job]:
        """Who takes part in the next iteration, `chunk` tokens each."""
        budget, chosen, preempted = self.limits.max_num_batched_tokens, [], []
        for job in list(self.running):
            if job in preempted:
                continue
            job.chunk = min(job.target - job.computed, budget)
            if job.chunk == 0:
                continue
            while self.needed(job, job.computed + job.chunk) > len(self.free) and job in self.running:
                preempted.append(self.preempt())
            if job not in self.running:
                break
            self.allocate(job, max(self.needed(job, job.computed + job.chunk), 0))
            self.name_blocks(job, job.computed + job.chunk)
            chosen.append(job)
            budget -= job.chunk
        while self.waiting and not preempted and budget and len(self.running) < self.limits.max_num_seqs:
            job = self.waiting[0]
            if self.tables.overlaps_host and self.running and job.queued_s > self.chosen_s + 1e-9:
                break
            found = self.hits(job) if self.limits.prefix_caching else []
            cached = len(found) * self.limits.block_size
            chunk = min(job.target - cached, budget)
            idle = sum(1 for block in found if block.users == 0)
            if -(-(cached + chunk) // self.limits.block_size) - len(found) > len(self.free) - idle:
                break
            self.waiting.popleft()
            for block in found:
                if block.users == 0:
                    del self.free[id(block)]
                block.users += 1
            job.blocks, job.computed, job.chunk = list(found), cached, chunk
            self.allocate(job, self.needed(job, cached + chunk))
            self.name_blocks(job, cached + chunk)
            self.running.append(job)
            chosen.append(job)
            budget -= chunk
        return chosen

    def seconds(self, chosen: list[Job]) -> float:
        decodes = [job for job in chosen if job.decodes]
        prompts = [job for job in chosen if job not in decodes]
        ending = sum(1 for job in prompts if job.computed + job.chunk == job.target)
        context = sum(job.target for job in decodes) / len(decodes) if decodes else 0.0
        tables = replace(self.tables, host_s=np.zeros_like(self.tables.host_s), overlaps_host=False, eager_s=0.0)
        device = tables.iteration_s(
            sum(job.chunk for job in chosen), len(decodes) + ending, len(decodes), context,
            np.array([[job.chunk for job in prompts], [job.computed for job in prompts]]),
        )  # fmt: skip
        host, eager = self.tables.host_s[len(chosen)], 0.0
        if prompts and sum(job.chunk for job in chosen) > self.tables.captured_tokens:
            eager = self.tables.eager_s
        return float(max(device, host + eager) if self.tables.overlaps_host else max(device, eager) + host)


def naive(tables: IterationTables, limits: EngineLimits, requests: Requests) -> dict[str, Any]:
    """Moments of all requests from the engine above; open loop, or closed if `concurrency` says so."""
    engine, count = NaiveEngine(tables, limits), len(requests)
    moments = {name: np.full(count, np.nan) for name in MOMENTS}
    preemptions, cached = np.zeros(count, int), np.full(count, -1)
    hashes = requests.prefix_hashes
    coming = deque(range(count))
    now, in_flight, done, gate_s = 0.0, 0, 0, 0.0
    while done < count:
        while (
            coming
            and requests.arrival_s[coming[0]] <= now + 1e-9
            and (not limits.concurrency or in_flight < limits.concurrency)
        ):
            i = coming.popleft()
            names = [] if hashes is None else list(hashes.hashes[hashes.offsets[i] : hashes.offsets[i + 1]])
            job = Job(i, int(requests.prompt_tokens[i]), int(requests.output_tokens[i]), names)
            job.queued_s = max(float(requests.arrival_s[i]), gate_s if limits.concurrency else 0.0)
            engine.waiting.append(job)
            in_flight += 1
        before = [job.number for job in engine.running]
        chosen = engine.schedule()
        for i in set(before) - {job.number for job in engine.running}:
            preemptions[i] += 1
        if not chosen:
            engine.chosen_s = now = float(requests.arrival_s[coming[0]])
            continue
        for job in chosen:
            if np.isnan(moments["scheduled_s"][job.number]):
                moments["scheduled_s"][job.number] = now
                cached[job.number] = job.computed
        engine.chosen_s = now
        now += engine.seconds(chosen)
        for job in chosen:
            job.computed += job.chunk
            if job.computed < job.target:
                continue
            job.generated, job.decodes = job.generated + 1, True
            if job.generated == 1:
                moments["first_token_s"][job.number] = now
            if job.generated == job.output:
                moments["finish_s"][job.number] = now
                engine.give_back(job)
                engine.running.remove(job)
                in_flight, done, gate_s = in_flight - 1, done + 1, now
    return moments | {"num_preemptions": preemptions, "cached_tokens": cached}


# ---------------------------------------------------------------- random scenarios


@st.composite
def loads(draw: st.DrawFn, *, hashed: bool = False) -> Requests:
    count = draw(st.integers(1, 14))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    scale = draw(st.sampled_from([0.0, 0.002, 0.02, 0.5]))
    arrival = np.cumsum(rng.exponential(1.0, count)) * scale
    prompt, output = rng.integers(1, 90, count), rng.integers(1, draw(st.sampled_from([3, 70])), count)
    hashes = None
    if hashed:
        rows = [_names(rng, int(length) // 4) for length in prompt]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
        hashes = PrefixHashes(offsets=offsets, hashes=np.concatenate(rows).astype(np.int64), block_tokens=4)
    return make_requests(arrival, prompt, output, prefix_hashes=hashes)


def _names(rng: np.random.Generator, blocks: int) -> list[int]:
    """Hashes of a prompt: one of two beginnings for some blocks, then its own."""
    kind, common = int(rng.integers(0, 2)), int(rng.integers(0, 15))
    own = int(rng.integers(10, 1 << 40))
    return [kind * 100 + b if b < common else own + b for b in range(blocks)]


random_limits = st.builds(
    make_limits,
    max_num_seqs=st.integers(1, 8),
    max_num_batched_tokens=st.integers(8, 128),
    num_kv_blocks=st.integers(42, 90),
    concurrency=st.sampled_from([0, 0, 1, 3]),
)
random_tables = st.builds(
    make_tables, overlaps_host=st.booleans(), eager_s=st.sampled_from([0.0, 5e-3]), captured_tokens=st.integers(0, 20),
    host_s=st.sampled_from([1e-4, 2.2e-3, 4e-3]).map(lambda host: np.full(17, host)),
)  # fmt: skip
fast = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_same(one: Any, other: Any, names: tuple[str, ...] = MOMENTS) -> None:
    for name in names:
        a = one[name] if isinstance(one, dict) else getattr(one, name)
        b = other[name] if isinstance(other, dict) else getattr(other, name)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=name)


@fast
@given(loads(), random_limits, random_tables)
def test_jumps_are_what_a_scheduler_does_token_by_token(
    requests: Requests, limits: EngineLimits, tables: IterationTables
) -> None:
    found, wanted = simulate(tables, limits, requests), naive(tables, limits, requests)
    assert_same(found, wanted)
    assert found.num_preemptions.tolist() == wanted["num_preemptions"].tolist()


@fast
@given(loads(hashed=True), random_limits, random_tables)
def test_a_prefix_cache_counted_in_units_is_one_of_blocks(
    requests: Requests, limits: EngineLimits, tables: IterationTables
) -> None:
    # in 42 blocks, which hardly hold two requests, the two give different blocks away: an open difference
    limits = replace(limits, prefix_caching=True, num_kv_blocks=limits.num_kv_blocks + 40)
    found, wanted = simulate(tables, limits, requests), naive(tables, limits, requests)
    assert_same(found, wanted)
    assert found.cached_tokens.tolist() == wanted["cached_tokens"].tolist()


@st.composite
def any_loads(draw: st.DrawFn) -> Requests:
    """With everything that requests may have: hashes, priorities, sessions with think times."""
    requests = draw(loads(hashed=draw(st.booleans())))
    count = len(requests)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more["priority"] = rng.integers(0, 3, count)
    if draw(st.booleans()):
        more["session"] = rng.integers(0, max(count // 3, 1), count)
        more["think_s"] = rng.exponential(draw(st.sampled_from([0.0, 0.05])), count)
    return replace(requests, **more)


any_limits = st.builds(
    make_limits,
    max_num_seqs=st.integers(1, 8),
    max_num_batched_tokens=st.integers(8, 128),
    num_kv_blocks=st.integers(42, 90),
    concurrency=st.sampled_from([0, 0, 1, 3]),
    policy=st.sampled_from(POLICIES),
    chunked_prefill=st.booleans(),
    prefix_caching=st.booleans(),
    preemption=st.sampled_from(["recompute", "swap"]),
    swap_token_s=st.sampled_from([0.0, 1e-5]),
    reserve_frac=st.sampled_from([0.0, 0.1, 1.0]),
    reserve_prompt=st.booleans(),
    max_prefill_seqs=st.sampled_from([0, 1]),
    pipeline_parallel_size=st.sampled_from([1, 1, 2]),
)
any_tables = st.builds(
    make_tables,
    overlaps_host=st.booleans(),
    host_s=st.sampled_from([1e-4, 2.2e-3, 4e-3]).map(lambda host: np.full(17, host)),
    request_s=st.sampled_from([0.0, 3e-3]),
    entry_s=st.sampled_from([0.0, 2e-3]),
    eager_s=st.sampled_from([0.0, 5e-3]),
    decode_tokens_per_sequence=st.sampled_from([1.0, 4.0]),
    accepted_tokens=st.sampled_from([1.0, 1.7, 2.0, 3.9]),
)


def total_tokens(served: Served) -> int:
    return int(served.output_tokens[~served.rejected].sum())


@settings(fast, max_examples=120)
@given(any_loads(), any_limits, any_tables)
def test_stepwise_and_jumps_are_the_same(requests: Requests, limits: EngineLimits, tables: IterationTables) -> None:
    jumps, steps = (simulate(tables, limits, requests, stepwise=stepwise) for stepwise in (False, True))
    assert_same(jumps, steps, (*MOMENTS, "max_gap_s", "energy_j", "busy_s"))
    for name in ("rejected", "cached_tokens", "num_preemptions", "iterations"):
        assert getattr(jumps, name).tolist() == getattr(steps, name).tolist(), name
    assert_possible(requests, jumps)


def assert_possible(requests: Requests, served: Served) -> None:
    """Nothing is lost, and nothing happens before its cause."""
    kept = ~served.rejected
    assert np.isfinite(served.finish_s[kept]).all()
    assert np.isnan(served.finish_s[~kept]).all()
    assert (served.scheduled_s[kept] >= served.arrival_s[kept]).all()
    assert (served.first_token_s[kept] >= served.scheduled_s[kept]).all()
    assert (served.finish_s[kept] >= served.first_token_s[kept]).all()
    assert served.prefilled_tokens >= int((requests.prompt_tokens - served.cached_tokens)[kept].sum())
    longest = served.max_gap_s * np.maximum(requests.output_tokens - 1, 0)
    assert (longest[kept] >= (served.finish_s - served.first_token_s)[kept] * (1 - 1e-9) - 1e-12).all()
    if requests.session is not None and requests.think_s is not None:
        for turn in np.unique(requests.session):
            (turns,) = np.nonzero(requests.session == turn)
            for before, after in pairwise(turns):
                if kept[before]:
                    assert served.arrival_s[after] >= served.finish_s[before] + requests.think_s[after] - 1e-9


# ---------------------------------------------------------------- closed forms and sanity


def poisson(rate: float, count: int, seed: int = 1) -> Any:
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, count))


def test_one_server_with_fixed_service_waits_as_in_queueing_theory() -> None:
    service, load, count = 0.01, 0.7, 60_000
    requests = make_requests(poisson(load / service, count), np.full(count, 4), np.ones(count))
    served = simulate(fixed_tables(service), make_limits(max_num_seqs=1), requests)
    wait = load * service / (2 * (1 - load))  # Pollaczek-Khinchine for M/D/1
    assert served.queue_s.mean() == pytest.approx(wait, rel=0.05)
    np.testing.assert_allclose(served.e2e_s - served.queue_s, service, rtol=1e-6)
    assert served.busy_s[0] == pytest.approx(count * service)


def test_a_lone_request_takes_what_the_tables_say() -> None:
    tables = make_tables(request_s=0.25)
    served = simulate(tables, make_limits(), make_requests([1.0], [100], [30]))
    # chunks of 64 and 36 tokens, then 29 decodes that attend to 101, 102, ... tokens
    first = tables.iteration_s(64, 0, 0, 0.0, np.array([[64], [0]])) - tables.host_s[0] + tables.host_s[1]
    first += tables.iteration_s(36, 1, 0, 0.0, np.array([[36], [64]]))
    rest = sum(tables.iteration_s(1, 1, 1, 101.0 + k) for k in range(29))
    assert served.ttft_s[0] == pytest.approx(0.25 + first, rel=1e-12)
    assert served.e2e_s[0] == pytest.approx(0.25 + first + rest, rel=1e-12)
    assert served.iterations[0] == 31
    assert served.tpot_s[0] == pytest.approx(rest / 29)
    assert served.itl_quantile_s(0.5) == pytest.approx(rest / 29, rel=0.02)
    assert served.max_gap_s[0] == pytest.approx(tables.iteration_s(1, 1, 1, 129.0))
    assert served.prefilled_tokens == 100


def test_energy_is_that_of_iterations_and_of_waiting() -> None:
    tables = make_tables(idle_w=7.0, host_s=np.zeros(17))
    served = simulate(tables, make_limits(), make_requests([0.0, 9.0], [8, 8], [1, 1]))
    assert served.energy_j[0] == pytest.approx(100 * served.busy_s[0] + 7.0 * (served.duration_s - served.busy_s[0]))


def test_numbers_of_requests_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    arrival, prompt, output = np.sort(rng.uniform(0, 1, 40)), rng.integers(1, 80, 40), rng.integers(1, 40, 40)
    one = simulate(make_tables(), make_limits(), make_requests(arrival, prompt, output))
    session = rng.permutation(40)  # numbers of sessions of one request each
    other = simulate(make_tables(), make_limits(), make_requests(arrival, prompt, output, session=session))
    assert_same(one, other)
    equal = np.zeros(40)
    straight = simulate(make_tables(), make_limits(concurrency=1), make_requests(equal, prompt, output))
    order = rng.permutation(40)
    mixed = simulate(make_tables(), make_limits(concurrency=1), make_requests(equal, prompt[order], output[order]))
    np.testing.assert_allclose(np.sort(straight.e2e_s), np.sort(mixed.e2e_s), rtol=1e-9)


def test_smaller_priorities_are_served_first() -> None:
    requests = make_requests(np.zeros(6), np.full(6, 20), np.full(6, 4), priority=[2, 1, 0, 2, 1, 0])
    served = simulate(make_tables(), make_limits(max_num_seqs=1), requests)
    assert np.argsort(served.scheduled_s).tolist() == [2, 5, 1, 4, 0, 3]


def test_a_turn_finds_what_its_session_has_said() -> None:
    requests = make_requests(
        [0.0, 0.0], [40, 70], [20, 5], session=[5, 5], think_s=[0.0, 2.0]
    )  # fmt: skip
    served = simulate(make_tables(), make_limits(prefix_caching=True), requests)
    assert served.arrival_s[1] == served.finish_s[0] + 2.0
    assert served.cached_tokens.tolist() == [0, 56]  # 59 tokens were in the cache, in full blocks of 4
    assert simulate(make_tables(), make_limits(), requests).cached_tokens.tolist() == [0, 0]


def test_hashes_of_larger_blocks_than_the_engines() -> None:
    hashes = PrefixHashes(offsets=np.array([0, 3, 6]), hashes=np.array([1, 2, 3, 1, 2, 9]), block_tokens=16)
    requests = make_requests([0.0, 1.0], [48, 48], [3, 3], prefix_hashes=hashes)
    assert simulate(make_tables(), make_limits(prefix_caching=True), requests).cached_tokens.tolist() == [0, 32]


def test_what_can_never_be_served_is_turned_away() -> None:
    requests = make_requests(np.zeros(4), [50, 90, 400, 60], [10, 40, 2, 3])
    served = simulate(make_tables(), make_limits(max_model_len=120), requests)
    assert served.rejected.tolist() == [False, True, True, False]
    whole = simulate(make_tables(), make_limits(chunked_prefill=False, num_kv_blocks=200), requests)
    assert whole.rejected.tolist() == [False, True, True, False]  # prompts of more than 64 tokens don't fit at once
    assert simulate(make_tables(), make_limits(num_kv_blocks=2), requests).rejected.all()


def test_more_than_can_be_served_ends_and_is_said() -> None:
    count, service = 4000, 0.01
    requests = make_requests(poisson(150.0, count), np.full(count, 4), np.ones(count))
    served = simulate(fixed_tables(service), make_limits(max_num_seqs=1), requests)
    assert served.overloaded
    assert served.sustainable_rate_per_s == pytest.approx(100.0, rel=0.01)
    calm = simulate(
        fixed_tables(service), make_limits(max_num_seqs=1), replace(requests, arrival_s=requests.arrival_s * 3)
    )
    assert not calm.overloaded
    assert served.series.waiting.max() > 10 * calm.series.waiting.max()
    assert len(served.series.time_s) <= 2048


def test_a_static_batch_ends_with_its_longest_answer() -> None:
    requests = make_requests([0.0, 0.0, 1e-3], [8, 8, 8], [2, 30, 2])
    served = simulate(make_tables(), make_limits(policy="static"), requests)
    assert served.finish_s[0] < served.finish_s[1] < served.scheduled_s[2] + 1e-9
    mixed = simulate(make_tables(), make_limits(), requests)
    assert mixed.finish_s[2] < mixed.finish_s[1]


def test_prompts_first_makes_decodes_wait() -> None:
    requests = make_requests([0.0, 0.02], [8, 120], [60, 2])
    gap = {policy: simulate(make_tables(), make_limits(policy=policy), requests).max_gap_s[0] for policy in POLICIES}
    assert gap["prefill-first"] > 1.5 * gap["mixed"]


def test_who_comes_while_a_batch_runs_is_too_late_for_the_next_one() -> None:
    """An engine that schedules ahead has chosen that one already; one that does not, takes it."""
    requests = make_requests([0.0, 0.25], [8, 8], [10, 2])
    served = [
        simulate(replace(fixed_tables(0.1), overlaps_host=ahead), make_limits(), requests) for ahead in (False, True)
    ]
    assert [each.scheduled_s[1] for each in served] == pytest.approx([0.3, 0.4])
    alone = make_requests([0.25], [8], [2])
    assert simulate(replace(fixed_tables(0.1), overlaps_host=True), make_limits(), alone).scheduled_s[0] == 0.25


def test_requests_are_taken_in_one_after_the_other() -> None:
    tables = replace(fixed_tables(0.1), entry_s=0.03)
    served = simulate(tables, make_limits(), make_requests([0.0] * 5, [8] * 5, [2] * 5))
    assert served.scheduled_s == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.2])


def test_speculative_decoding_brings_its_tokens() -> None:
    tables = make_tables(decode_tokens_per_sequence=4.0, accepted_tokens=2.5)
    served = simulate(tables, make_limits(), make_requests([0.0], [10], [101]))
    assert served.iterations[0] == 1 + 40


def test_nothing_to_serve() -> None:
    served = simulate(make_tables(), make_limits(), make_requests([], [], []))
    assert served.finish_s.size == 0
    assert served.duration_s == 0.0
    assert not served.overloaded


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs is 0"),
        ({"max_num_batched_tokens": 4}, "below max_num_seqs"),
        ({"policy": "mixd"}, "did you mean mixed"),
        ({"preemption": "drop"}, 'unknown preemption "drop"'),
        ({"reserve_frac": 2.0}, "reserve_frac"),
        ({"concurrency": -1}, "negative"),
    ],
)
def test_limits_that_make_no_sense(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ScenarioError, match=text):
        make_limits(**changes)
