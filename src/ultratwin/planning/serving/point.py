"""The steady state of a serving replica in closed form: what users feel, without simulating a single request.

Array-first: plans, batch sizes and loads are numbers or arrays [candidate]. One call evaluates the few kinds of
iteration that a steady state has (serving_mix.NODES) for all candidates at once.

    closed loop  so many requests are always under way; the mix of an iteration follows without any seconds
    open load    requests come at a rate; the mix is found on a grid of rates, where the twin's rate is the asked one
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array, Number
from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.serving.mix import (
    MIXES,
    BatchLimits,
    Mix,
    closed_loop_ended,
    decode_steps,
)
from ultratwin.planning.serving.nodes import Served, iteration_nodes, repeated
from ultratwin.planning.serving.power import replica_power_w
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.timing.serving.iteration import (
    eager_s,
    host_s,
)

_GRID: Final = np.concatenate([np.geomspace(1e-3, 0.5, 18), np.linspace(0.55, 0.95, 9), [1.0]])
"""Where an open load is looked for, as shares of the most requests that an iteration can end."""


_LENGTH_VARIATION: Final = 0.05
"""Squared variation of prompts, where all are asked for the same length: chance of the arrivals is far larger."""
_SERVICE_VARIATION: Final = 0.3
"""Squared variation of how long requests stay, where all are asked for the same lengths."""


def closed_loop(served: Served, plan: ServingPlan, limits: BatchLimits, concurrency: Number) -> SteadyState:
    """The steady state with `concurrency` requests always under way: as soon as one ends, the next is sent.

    Requests beyond what can run wait: by Little's law (concurrency - running) / rate each.
    Args:
        served: setting, load, drafts; plan, limits: of the replica
        concurrency: requests under way, of the replica, [candidate]
    """
    request_s, late = float(served.setting.engine.request_s), _late_iterations(served)
    delayed = request_s > 0 and served.setting.engine.policy != "static"
    asked = np.atleast_1d(np.asarray(concurrency, dtype=np.float64))
    others = 1.0 - 1.0 / np.maximum(asked, 1.0)
    found = _closed(served, plan, limits, concurrency, np.where(delayed, 1.0, 0.0) + late * others)
    if not delayed:
        return found
    # on its way it sees whole iterations that only decode, unless one with prompts lasts until it is there
    several = request_s / found.decode_s
    prompts = np.clip(1.0 - found.mix.weight[0] / found.mix.weight.sum(axis=0), 1e-9, 1.0)
    seen = (1.0 - (1.0 - prompts) ** np.ceil(several - 1e-9)) / prompts
    return _closed(served, plan, limits, concurrency, others * (seen + late) + (1.0 - others) * several)


def _late_iterations(served: Served) -> float:
    """Iterations that a request waits for because an engine chooses a batch while the one before runs."""
    engine = served.setting.engine
    return 1.0 if engine.overlaps_host and engine.policy != "static" else 0.0


def _closed(served: Served, plan: ServingPlan, limits: BatchLimits, concurrency: Number, away: Array) -> SteadyState:
    stages, policy = np.asarray(plan.pipeline_parallel_size, dtype=np.float64), served.setting.engine.policy
    asked = np.atleast_1d(np.asarray(concurrency, dtype=np.float64))
    running = np.minimum(asked, np.maximum(limits.most_running(served.load), 1e-9))
    # engines that take turns in a pipeline: no more of them than requests
    stages = np.minimum(stages, np.maximum(running, 1.0))
    own = running / stages
    ended = closed_loop_ended(own, served.load, limits, served.speculation, policy, away=away)
    others = np.maximum(1.0 - 1.0 / np.maximum(own, 1.0), 0.0)
    mix = MIXES[policy](np.atleast_1d(ended), served.load, limits, served.speculation, others=others, seen=0.0)
    times = _times(served, plan, limits, mix)
    rate, steps = stages * mix.ended / times.cycle_s, np.maximum(decode_steps(served.load, served.speculation), 1.0)
    # alone, nobody's iteration has to end first
    request_s = float(served.setting.engine.request_s)
    beyond = (asked - running) / rate
    before = others * away * times.mean_s + (1.0 - others) * request_s + times.queued_s
    return _state(
        served, mix, times,
        _Stay(
            rate=rate, running=running, before_s=before, own_s=times.own_s, beyond_s=beyond, whole_s=running / rate,
            least_s=np.minimum(away * times.least_s, before), busy=1.0, sustainable=np.full_like(rate, np.nan),
            variance=away * times.variance + beyond**2 / 12.0 + times.own_variance + times.queued_s * times.own_s,
            tpot_variance=others * times.variance / steps / served.speculation.accepted**2,
        ),
    )  # fmt: skip


def open_load(
    served: Served, plan: ServingPlan, limits: BatchLimits, request_rate: Number, burstiness: Number = 1.0
) -> SteadyState:
    """The steady state where requests come at a rate, independently of each other (burstiness 1: Poisson).

    Above what the replica can serve its times are infinite and `sustainable_rate` says how much it can.
    Args:
        request_rate: of the replica [1/s], [candidate]; burstiness: shape of the gamma distribution of gaps
    Source: waiting for a slot by Sakasegawa's approximation of G/G/m; what arrives finds the mean state (PASTA)
    """
    asked = np.atleast_1d(np.asarray(request_rate, dtype=np.float64))
    grid = open_states(served, plan, limits, _GRID, burstiness)
    rate, ended, decoding = (
        each.reshape(len(_GRID), -1) for each in (grid.request_rate, grid.mix.ended, grid.mix.decoding)
    )
    stages = np.asarray(plan.pipeline_parallel_size, dtype=np.float64)
    drift = _gradient(stages * ended / rate, decoding)
    at, slope = _crossing(np.maximum.accumulate(rate, axis=0), (ended, drift), asked)
    mix = MIXES[served.setting.engine.policy](at, served.load, limits, served.speculation, others=1.0, seen=1.0)
    times = _times(served, plan, limits, mix)
    most = rate.max(axis=0)
    return _open_state(served, limits, mix, times, np.minimum(asked, most), most, burstiness, slope, asked > most)


def open_states(
    served: Served, plan: ServingPlan, limits: BatchLimits, shares: Array, burstiness: Number = 1.0,
    total_rate: float | None = None,
) -> SteadyState:  # fmt: skip
    """Steady states of open loads along a grid: nothing is solved for, so this is what a search asks.

    Args:
        shares: of the most requests that an iteration can end, ascending, the last one 1; [share]
        total_rate: of a fleet that shares it evenly [1/s]: n replicas that requests are dealt to in turn each see an
            n-th of the variation
    Returns: [share x candidate], all candidates of a share together
    """
    stages, policy = np.asarray(plan.pipeline_parallel_size, dtype=np.float64), served.setting.engine.policy
    most = np.maximum(limits.most_running(served.load), 1e-9)
    highest = np.atleast_1d(closed_loop_ended(most / stages, served.load, limits, served.speculation, policy, away=0.0))
    count = len(highest)
    wide = dataclasses.replace(served, load=repeated(served.load, len(shares), count))
    plans, bounds = repeated(plan, len(shares), count), repeated(limits, len(shares), count)
    ended = (shares[:, None] * highest).ravel()
    mix = MIXES[policy](ended, wide.load, bounds, served.speculation, others=1.0, seen=1.0)
    times = _times(wide, plans, bounds, mix)
    rate = np.asarray(plans.pipeline_parallel_size) * ended / times.cycle_s
    sustainable = np.tile(rate.reshape(len(shares), count).max(axis=0), len(shares))
    shape = (len(shares), count)
    drift = _gradient(times.cycle_s.reshape(shape), mix.decoding.reshape(shape)).ravel()
    if total_rate is not None:
        burstiness = burstiness * np.maximum(total_rate / np.maximum(rate, 1e-300), 1.0)
    return _open_state(wide, bounds, mix, times, rate, sustainable, burstiness, drift, rate >= sustainable)


def _gradient(values: Array, along: Array) -> Array:
    """Slope of values [share, candidate] along another quantity."""
    if len(values) < 2:
        return np.zeros_like(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.diff(values, axis=0) / np.diff(along, axis=0)
    slope = np.where(np.isfinite(slope), slope, 0.0)
    return np.concatenate([slope[:1], slope])


def _crossing(rate: Array, values: tuple[Array, ...], asked: Array) -> tuple[Array, ...]:
    """Values [share, candidate] where rising rates reach the asked one, by lines between shares.

    Below the first share the first value (requests per iteration) falls in proportion, the others stay.
    """
    count = max(rate.shape[1], len(asked))
    each = np.arange(count) if rate.shape[1] > 1 else np.zeros(count, dtype=np.int64)
    upper = np.clip((rate < asked).sum(axis=0), 1, len(rate) - 1)
    low, high = rate[upper - 1, each], rate[upper, each]
    share = np.clip((asked - low) / np.maximum(high - low, 1e-300), 0.0, 1.0)
    found = [value[upper - 1, each] * (1.0 - share) + value[upper, each] * share for value in values]
    found[0] = np.where(asked < rate[0, each], values[0][0, each] * asked / rate[0, each], found[0])
    return tuple(found)


def _open_state(
    served: Served, limits: BatchLimits, mix: Mix, times: _Times, rate: Array, sustainable: Array, burstiness: Number,
    drift: Array, over: NDArray[np.bool_],
) -> SteadyState:  # fmt: skip
    most, request_s = np.maximum(limits.most_running(served.load), 1e-9), float(served.setting.engine.request_s)
    steps = decode_steps(served.load, served.speculation)
    queue = _prompt_queue(served, mix, times, mix.ended / times.cycle_s, burstiness)
    late = _late_iterations(served) * times.mean_s * (1.0 - np.exp(-rate * (times.alone_s + steps * times.step_s)))
    stay = queue.before_s + late + times.alone_s + queue.beside_s + steps * times.step_s
    running = np.minimum(rate * stay, most)
    use, slots = np.minimum(running / most, 1.0), np.maximum(most, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        crowded = use ** (np.sqrt(2.0 * (slots + 1.0)) - 1.0) / (slots * (1.0 - use))
        waited = np.where((use < 1.0) & ~over, crowded * stay * 0.5 * (1.0 / burstiness + _SERVICE_VARIATION), np.inf)
    later = np.maximum(np.asarray(served.load.output_tokens, dtype=np.float64) - 1.0, 1.0)
    varied = np.minimum(1.0 / np.asarray(burstiness, dtype=np.float64), 1.0)
    wobble = 0.5 * varied * mix.decoding * (drift / served.speculation.accepted) ** 2
    return _state(
        served, mix, times,
        _Stay(
            rate=rate, running=running, before_s=request_s + queue.before_s + late,
            own_s=times.alone_s + queue.beside_s,
            beyond_s=waited, whole_s=request_s + stay, least_s=request_s,
            variance=queue.variance + np.where(np.isfinite(waited), waited, 0.0) ** 2,
            tpot_variance=queue.decode_variance / later**2 + wobble,
            busy=np.where(mix.decoding > 0, 1.0 - np.exp(-running), 1.0),
            sustainable=np.broadcast_to(sustainable, rate.shape),
        ),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queue:
    """Prompts that come by chance: before_s: until one's own is begun; beside_s: what others in its iterations take."""

    before_s: Array
    beside_s: Array
    variance: Array
    decode_variance: Array


def _prompt_queue(served: Served, mix: Mix, times: _Times, rate: Array, burstiness: Number) -> _Queue:
    """Waiting for the prompts of others.

    A prompt takes s seconds more than decoding alone; while it is computed more prompts come, so they cluster.
    Equation: W = u s (c + v) / (2 (1 - u)) + (1 - u) t / 2, u = r s; others in the same iteration: r E[t^2] / E[t]
    Args: rate: r, of one engine [1/s]; burstiness: 1/c
    Source: Pollaczek and Khinchine's mean wait of M/G/1; its second moment for constant service
    """
    if served.setting.engine.policy == "static":
        half = 0.5 * times.cycle_s
        none = np.zeros_like(half)
        return _Queue(before_s=half, beside_s=times.own_s - times.alone_s, variance=half**2 / 3.0, decode_variance=none)
    steady = times.decode_s * np.where(mix.decoding > 0, 1.0, 0.0)
    base = mix.prompt_iterations * steady if served.setting.engine.policy == "mixed" else 0.0
    own = np.maximum(times.alone_s - base, 1e-12)
    use = np.minimum(rate * own, 0.999)
    left = 1.0 - use
    queued = 0.5 * use * own / left * (1.0 / burstiness + _LENGTH_VARIATION)
    varied = np.minimum(1.0 / np.asarray(burstiness, dtype=np.float64), 1.0)
    second = times.cycle_s**2 + varied * own**2 * mix.ended / (1.0 - use**2)
    others = np.minimum(rate * second / times.cycle_s, mix.together - 1.0)
    decoding = decode_steps(served.load, served.speculation) * steady
    return _Queue(
        before_s=left * 0.5 * steady + queued,
        beside_s=0.5 * own * others * np.maximum(varied, use),
        variance=queued**2 + use * own**2 / (3.0 * left) + steady**2 / 12.0 + varied * 0.25 * own**2 * others,
        decode_variance=varied * decoding * rate * own**2 / left**3,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """Seconds of the mix's iterations, [candidate]: cycle_s is what `ended` requests take, mean_s one iteration.

    step_s: from a token of a request to the next
    own_s: the iterations of a new prompt; alone_s: if nothing else came with it; least_s: the shortest iteration
    """

    cycle_s: Array
    mean_s: Array
    decode_s: Array
    least_s: Array
    step_s: Array
    variance: Array
    own_s: Array
    own_variance: Array
    alone_s: Array
    queued_s: Array
    busy_w: Array
    idle_w: Array


def _times(served: Served, plan: ServingPlan, limits: BatchLimits, mix: Mix) -> _Times:
    setting, apart = served.setting, served.setting.engine.policy != "mixed"
    budget = np.asarray(limits.max_num_batched_tokens, dtype=np.float64)
    # prompts above the budget are several iterations of it
    several = np.maximum(np.ceil(mix.load / budget), 1.0) if apart else np.ones_like(mix.load)
    decoding = np.where((mix.load > 0) & apart, 0.0, mix.decoding)
    seconds, joules = iteration_nodes(served, plan, mix.load / several, decoding, mix.chunk)
    sequences = decoding + mix.load / several / np.maximum(mix.chunk, 1.0)
    host = np.asarray(host_s(setting.engine, plan, sequences))
    launch = np.where(mix.load / several > setting.engine.captured_tokens, eager_s(setting), 0.0)
    if setting.engine.overlaps_host:
        whole = np.array(np.maximum(seconds, host + launch))
    else:
        whole = np.array(np.maximum(seconds, launch) + host)
    idle = np.asarray(replica_power_w(setting.pool, plan)["idle_frac"])
    if served.split is not None:
        idle = idle + np.resize(served.split.idle_w(), np.shape(mix.decoding))
    joules = np.array(joules + np.maximum(whole - seconds, 0.0) * idle)
    # without decoding sequences the engine rests where it would only decode: for as long as a prompt takes
    rests, weight = mix.decoding <= 0, mix.weight * several
    whole[0] = np.where(rests, mix.prompt_iterations * several[1] * whole[1], whole[0])
    joules[0] = np.where(rests, idle * whole[0], joules[0])
    cycle, often = (weight * whole).sum(axis=0), weight.sum(axis=0)
    second = (weight * whole**2).sum(axis=0)
    own = mix.prompt_iterations * several * whole
    static = setting.engine.policy == "static"
    return _Times(
        cycle_s=cycle,
        mean_s=cycle / often,
        decode_s=whole[0],
        least_s=whole[0],
        step_s=whole[0] if static else cycle,
        variance=np.maximum(second / often - (cycle / often) ** 2, 0.0),
        own_s=own[3],
        own_variance=(own[2] - own[1]) ** 2 * np.clip(mix.ended, 0.0, 1.0),
        alone_s=own[1],
        queued_s=mix.queued * whole[2],
        busy_w=(weight * joules).sum(axis=0) / cycle,
        idle_w=idle,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stay:
    """Of a request, on average: before_s: in the engine before its prompt; own_s: its prompt; beyond_s: before a slot
    is free; whole_s: in the engine; least_s: before its prompt at the least; variances of TTFT and TPOT."""

    rate: Array
    running: Array
    before_s: Array
    own_s: Array
    beyond_s: Array
    whole_s: Array
    least_s: Number
    variance: Array
    tpot_variance: Array
    busy: Number
    sustainable: Array


def _state(served: Served, mix: Mix, times: _Times, stay: _Stay) -> SteadyState:
    later = np.maximum(np.asarray(served.load.output_tokens, dtype=np.float64) - 1.0, 0.0)
    first = stay.before_s + stay.own_s
    tpot = np.where(later > 0, np.maximum(stay.whole_s - first, 0.0) / np.maximum(later, 1.0), 0.0)
    ttft = first + stay.beyond_s
    return SteadyState(
        request_rate=stay.rate,
        sustainable_rate=stay.sustainable,
        running=np.asarray(stay.running),
        decoding=mix.decoding,
        iteration_s=times.mean_s,
        decode_s=times.decode_s,
        ttft_s=ttft,
        tpot_s=tpot,
        e2e_s=ttft + tpot * later,
        wait_s=stay.before_s + stay.beyond_s,
        own_s=np.asarray(stay.own_s),
        ttft_least_s=np.minimum(stay.least_s + times.alone_s, first),
        ttft_variance=stay.variance,
        tpot_variance=stay.tpot_variance,
        power_w=times.busy_w * stay.busy + times.idle_w * (1.0 - np.asarray(stay.busy)),
        mix=mix,
    )
