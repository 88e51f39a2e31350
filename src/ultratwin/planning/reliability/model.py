"""A training run until it is done: failures, checkpoints, spares, and what they cost."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.hardware.failures import (
    FailureRates,
    Layout,
    Recovery,
    interruptions_per_s,
    load_rates,
    load_recovery,
    machine_parts,
    read_failures_file,
)
from ultratwin.hardware.storage import TIERS, Storage, StorageTier, load_storage
from ultratwin.hardware.topology.topology import chips_per_rack
from ultratwin.planning.power.chip import idle_power_w
from ultratwin.planning.reliability.run import (
    ENDS_FRAC,
    UNITS,
    Alternative,
    Checkpointing,
    Quantiles,
    ReliabilityOptions,
    ReliableRun,
    quantiles,
)
from ultratwin.planning.reliability.slowest_rank import slowest_rank
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion
from ultratwin.simulation.reliability.closed_form import (
    daly_interval_s,
    exact_interval_s,
    progress_rate,
    with_best_intervals,
    young_interval_s,
)
from ultratwin.simulation.reliability.records import (
    CAUSES,
    MAX_STRETCH,
    Elastic,
    RunModel,
    SavedTier,
)
from ultratwin.simulation.reliability.simulate import RunSamples, simulate_runs

SPARES: Final = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.10)
"""Shares of spare nodes that are compared."""
TIER_SETS: Final = (("store",), ("nvme", "store"), ("peer", "store"), ("peer", "nvme", "store"))
RACK_CHIPS: Final = 32
"""Chips of a rack of pools that no system describes: four nodes of eight."""
_SWEEP_FAILURES: Final = 100_000
"""Failures that one comparison may simulate: enough for a percent, few enough for a million chips."""
_PILOT_RUNS: Final = 20
"""Runs that decide whether a job that barely gets on ever ends, before all are simulated."""
_SWEEP_STRETCH: Final = 4.0
_HOPELESS_FAILURES: Final = 50_000
_DOWN: Final = ("detection", "isolation", "waiting for spares", "restart", "maintenance")


def checkpoint_bytes(answer: TrainingAnswer) -> float:
    """Bytes of one checkpoint: weights and optimizer state of the whole model, each once.

    Equation: S = P (w + o)
    Symbols: P parameters, w and o bytes of weight and optimizer state per parameter, as mapping/memory.py counts them
    """
    profile = answer.profile
    return answer.num_parameters * float(profile.parameter_bytes + profile.optimizer_bytes)


def saved_tier(
    storage: Storage, name: str, size_bytes: float, *, nodes: int, chips: int, writing_frac: float = 1.0,
    asynchronous: bool = True,
) -> SavedTier:  # fmt: skip
    """A store as a run uses it, its interval not yet chosen.

    Equation: stall = S / (c b) + barrier, and the time to write where training waits for it
    Args:
        size_bytes: S of a checkpoint; nodes, chips: of the job, c chips that write at b each to their host
        writing_frac: of the nodes that write: 1 if all shards are written where they lie, else one replica's
        asynchronous: training goes on while the store takes the checkpoint
    """
    tier = storage.tier(name)
    copy = size_bytes / (storage.host_copy_bytes_per_s_per_chip * max(chips * writing_frac, 1.0))
    write = tier.write_time_s(size_bytes, max(nodes * writing_frac, 1.0))
    return SavedTier(
        name=name, interval_s=1.0, stall_s=copy + storage.barrier_s + (0.0 if asynchronous else write),
        latency_s=write if asynchronous else 0.0, reload_s=tier.read_time_s(size_bytes, nodes) + copy,
        survives_node=tier.survives_node, survives_rack=tier.survives_rack, keeps_history=tier.keeps_history,
    )  # fmt: skip


def answer_until_done(
    answer: TrainingAnswer, question: TrainingQuestion, options: ReliabilityOptions | None = None
) -> ReliableRun:
    """What a training run takes until it is done, with everything that fails on the way.

    Args: answer: of `answer_training`; question: what it answers; options: about failures
    Returns: the run; one that never ends is a result too
    Raises: ScenarioError for bad options, a checkpoint larger than its store, or an answer without a plan
    """
    options = (options or ReliabilityOptions(seed=question.seed)).checked()
    if answer.run is None or answer.plan is None:
        raise ScenarioError("no plan can run, so nothing can fail", hint="ask train without failures why")
    case = _Case.of(answer, options)
    names, choices, notes = _best_tiers(case)
    case = dataclasses.replace(case, tier_names=names)
    model = case.model()
    model, spare_choices = _best_spares(case, model)
    finest = model.tiers[0]
    if options.checkpoint_s is not None and finest.interval_s > options.checkpoint_s:
        notes = (*notes, f"no save of {finest.name} is complete in {options.checkpoint_s:g} s: "
                 f"one begins every {finest.interval_s:.3g} s")  # fmt: skip
    samples = _runs(case, model)
    ends = samples.finished_frac >= ENDS_FRAC
    return _collected(
        case, model, samples, notes=notes, tier_choices=choices, spare_choices=spare_choices,
        largest=case.chips if ends else largest_size(case, model.spare_nodes / case.nodes),
        remedies=() if ends else _remedies(case),
    )  # fmt: skip


def _runs(case: _Case, model: RunModel) -> RunSamples:
    """All the runs that were asked for; of a job that hardly gets on only as many as show where its time goes."""
    options, reach = case.options, progress_rate(model) * MAX_STRETCH

    def run(number: int, most_s: float = math.inf) -> RunSamples:
        return simulate_runs(
            dataclasses.replace(model, most_s=most_s), num_runs=min(number, options.num_runs), seed=options.seed,
            sampled_rates=options.sampled_rates and case.fails,
        )  # fmt: skip

    if reach < 0.5:
        return run(4, _HOPELESS_FAILURES / interruptions_per_s(model.parts, model.work_s))
    if reach < 2.0 and (pilot := run(_PILOT_RUNS)).finished_frac < ENDS_FRAC:
        return pilot
    return run(options.num_runs)


def _remedies(case: _Case) -> tuple[Alternative, ...]:
    """What a job that never ends would get done by other means, by formula and with enough spares."""
    hot = dataclasses.replace(case, recovery=load_recovery("hot"))
    found = []
    for base, elastic in ((hot, False), (case, True), (hot, True)):
        if (base.recovery, elastic) == (case.recovery, case.options.elastic):
            continue
        tried = dataclasses.replace(base, options=dataclasses.replace(case.options, elastic=elastic))
        tried = dataclasses.replace(tried, tier_names=_best_tiers(tried)[0])
        rate = max(progress_rate(tried.model(spare_nodes=case.nodes)), 0.0)
        name = " ".join(["--recovery hot"] * (base is hot) + ["--elastic"] * elastic)
        found.append(Alternative(name=name, ettr=rate, chip_hours=_paid_chip_hours(tried, rate)))
    return tuple(found)


def _paid_chip_hours(case: _Case, rate: float, spare_nodes: int = 0) -> float:
    """Chip-hours of a run at a rate of progress, infinite for one that would be given up."""
    run = case.answer.run
    if run is None or rate * MAX_STRETCH < 1.0:
        return math.inf
    work_s = run.duration_s.expected * case.answer.chips / case.chips
    return case.chips * (1 + spare_nodes / case.nodes) * work_s / 3600 / rate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A question about failures, made ready: everything that a RunModel is made from, for any number of chips."""

    answer: TrainingAnswer
    options: ReliabilityOptions
    rates: FailureRates
    recovery: Recovery
    chips: int
    tier_names: tuple[str, ...]
    unit: str

    @classmethod
    def of(cls, answer: TrainingAnswer, options: ReliabilityOptions) -> _Case:
        rates, recovery = load_rates(answer.system.pool.chip.id), load_recovery(options.recovery)
        if str(options.failures) not in ("default", "none"):
            rates, recovery = read_failures_file(Path(options.failures), rates, recovery)
        return cls(
            answer=answer, options=options, rates=rates, recovery=recovery, chips=answer.chips,
            tier_names=options.tiers or ("store",), unit=options.failure_unit,
        )  # fmt: skip

    @property
    def fails(self) -> bool:
        return str(self.options.failures) != "none"

    @property
    def nodes(self) -> int:
        return -(-self.chips // self.answer.system.pool.chips_per_node)

    @property
    def layout(self) -> Layout:
        pool = self.answer.system.pool
        rack = max(chips_per_rack(self.answer.system), pool.chips_per_node)
        unit = {"node": pool.chips_per_node, "domain": max(pool.domain.size, pool.chips_per_node), "rack": rack}
        node = min(pool.chips_per_node, self.chips)
        return Layout(
            chips=self.chips, chips_per_node=node, chips_per_rack=rack, unit_chips=min(unit[self.unit], self.chips)
        )

    @property
    def storage(self) -> Storage:
        return load_storage(self.answer.system, self.nodes)

    def saved(self, name: str) -> SavedTier:
        """A tier as this run uses it; its interval is chosen later."""
        plan = self.answer.plan
        share = 1.0 if self.options.sharded or plan is None else 1.0 / float(plan.data_parallel_size)
        return saved_tier(
            self.storage, name, checkpoint_bytes(self.answer), nodes=self.nodes, chips=self.chips,
            writing_frac=share, asynchronous=self.options.asynchronous,
        )  # fmt: skip

    def model(self, spare_nodes: int = 0) -> RunModel:
        """The run with the best intervals."""
        run, plan = self.answer.run, self.answer.plan
        if run is None or plan is None:
            raise ScenarioError("no plan can run")
        scale = self.answer.chips / self.chips
        parts = machine_parts(self.rates, self.layout) if self.fails else ()
        elastic = None
        replicas = min(int(plan.data_parallel_size), self.nodes)
        if self.options.elastic and replicas > 1:
            elastic = Elastic(
                replicas=replicas, least_replicas=max(math.ceil(replicas * self.options.least_replicas_frac), 1),
                nodes_per_replica=max(self.nodes // replicas, 1), step_s=run.step_s.expected,
            )  # fmt: skip
        found = RunModel(
            work_s=run.duration_s.expected * scale, parts=parts,
            tiers=tuple(self.saved(name) for name in TIERS if name in self.tier_names),
            recovery=self.recovery, spare_nodes=spare_nodes, elastic=elastic,
            maintenance_every_s=self.options.maintenance_every_s, maintenance_s=self.options.maintenance_s,
        )  # fmt: skip
        return with_best_intervals(found, self.options.checkpoint_s)


def _best_tiers(case: _Case) -> tuple[tuple[str, ...], tuple[Alternative, ...], tuple[str, ...]]:
    """The tiers to save to, what each set gives, and which tiers are too small.

    Raises: ScenarioError if a tier that was asked for can't hold a checkpoint, or none can
    """
    size = checkpoint_bytes(case.answer)
    small = {each.name: each for each in case.storage.tiers if each.capacity_bytes < size}
    asked = case.options.tiers
    for name in asked or ():
        if name in small:
            raise _too_large(size, small[name])
    sets = [each for each in TIER_SETS if not small.keys() & set(each)]
    if asked is None and not sets:
        raise _too_large(size, next(iter(small.values())))
    notes = tuple(
        f"{each.name} holds {each.capacity_bytes / 1e12:.3g} TB, a checkpoint has {size / 1e12:.3g} TB"
        for each in small.values()
    )
    compared = []
    for names in sets if asked is None or asked in sets else [*sets, asked]:
        # spares are compared later: here there are enough of them
        rate = progress_rate(dataclasses.replace(case, tier_names=names).model(spare_nodes=case.nodes))
        compared.append((names, max(rate, 0.0)))
    best = asked if asked is not None else max(compared, key=lambda each: (round(each[1], 6), -len(each[0])))[0]
    found = tuple(
        Alternative(name=" + ".join(names), ettr=rate, chip_hours=_paid_chip_hours(case, rate), chosen=names == best)
        for names, rate in compared
    )
    return best, found, notes


def _too_large(size_bytes: float, tier: StorageTier) -> ScenarioError:
    return ScenarioError(
        f"a checkpoint of {size_bytes / 1e12:.4g} TB is larger than its store", where=f"tier {tier.name}",
        allowed=f"up to {tier.capacity_bytes / 1e12:.4g} TB",
        hint="save to another tier, or spread the model over more nodes",
    )  # fmt: skip


def _best_spares(case: _Case, model: RunModel) -> tuple[RunModel, tuple[Alternative, ...]]:
    """The run with spares: as asked, or as many as make the paid chip-hours least; and what each number gives."""
    asked = case.options.spares_frac
    if not case.fails:
        spares = math.ceil((asked or 0.0) * case.nodes)
        return dataclasses.replace(model, spare_nodes=spares), ()
    counts = {math.ceil(share * case.nodes) for share in SPARES}
    if asked is not None:
        counts.add(math.ceil(asked * case.nodes))
    found = {}
    for count in sorted(counts):
        tried = dataclasses.replace(model, spare_nodes=count)
        found[count] = _alternative(case, tried, f"{count:,} nodes ({count / case.nodes:.2%})")

    def reached(count: int) -> float:  # decides where no number of spares lets the run end
        return round(progress_rate(dataclasses.replace(model, spare_nodes=count)), 9)

    chosen = (
        math.ceil(asked * case.nodes) if asked is not None
        else min(found, key=lambda count: (found[count].chip_hours, -reached(count), count))
    )  # fmt: skip
    found[chosen] = dataclasses.replace(found[chosen], chosen=True)
    return dataclasses.replace(model, spare_nodes=chosen), tuple(found.values())


def _alternative(case: _Case, model: RunModel, name: str) -> Alternative:
    """A choice by a small number of runs, the same draws for each."""
    paid = case.chips * (1 + model.spare_nodes / case.nodes) * model.work_s / 3600
    best = progress_rate(dataclasses.replace(model, spare_nodes=case.nodes))
    if best * MAX_STRETCH < 1.0:
        return Alternative(name=name, ettr=0.0, chip_hours=math.inf)
    # what takes several times as long as with enough spares is no choice, and need not be run to its end
    most = min(MAX_STRETCH, _SWEEP_STRETCH / best) * model.work_s
    failures = interruptions_per_s(model.parts, model.work_s) * model.work_s / best
    runs = int(min(max(_SWEEP_FAILURES / max(failures, 1.0), 4), 200))
    samples = simulate_runs(
        dataclasses.replace(model, most_s=most), num_runs=runs, seed=case.options.seed,
        sampled_rates=case.options.sampled_rates,
    )  # fmt: skip
    if samples.finished_frac < ENDS_FRAC:
        return Alternative(name=name, ettr=0.0, chip_hours=math.inf)
    ettr = float(model.work_s / samples.wall_s.mean())
    return Alternative(name=name, ettr=ettr, chip_hours=paid / ettr)


def _interval_choices(case: _Case, model: RunModel) -> tuple[Alternative, ...]:
    """Intervals around the chosen one, by formula: half, twice, four times as long, and what Young and Daly advise."""
    if not case.fails:
        return ()
    base, mtbf = model.tiers[0], 1.0 / interruptions_per_s(model.parts, model.work_s)
    tried = {"chosen": base.interval_s, "a quarter": base.interval_s / 4, "half": base.interval_s / 2}
    tried |= {"twice": base.interval_s * 2, "four times": base.interval_s * 4}
    tried |= {"Young": young_interval_s(base.stall_s, mtbf), "Daly": daly_interval_s(base.stall_s, mtbf)}
    found = []
    for name, interval in tried.items():
        if interval < max(base.latency_s, base.stall_s / 10):
            continue
        tier = dataclasses.replace(base, interval_s=interval)
        rate = max(progress_rate(dataclasses.replace(model, tiers=(tier, *model.tiers[1:]))), 0.0)
        found.append(
            Alternative(
                name=f"{name}: {_said_s(interval)}", ettr=rate,
                chip_hours=_paid_chip_hours(case, rate, model.spare_nodes), chosen=name == "chosen",
            )
        )  # fmt: skip
    return tuple(found)


def _said_s(seconds: float) -> str:
    from ultratwin.units import format_seconds

    return format_seconds(seconds)


def _unit_choices(case: _Case, spare_nodes: int) -> tuple[Alternative, ...]:
    """What leaves when a part fails: node, domain or rack, each with the spares of the answer or one unit more."""
    if not case.fails:
        return ()
    found, seen = [], set()
    for tried in sorted(
        (dataclasses.replace(case, unit=unit) for unit in UNITS), key=lambda each: each.layout.unit_chips
    ):
        unit, size = tried.unit, tried.layout.unit_chips
        if size in seen:
            continue
        seen.add(size)
        best = min(
            (
                _alternative(tried, tried.model(spare_nodes=count), f"{unit}: {size} chips")
                for count in sorted({spare_nodes, *(math.ceil(share * case.nodes) for share in (0.02, 0.10))})
            ),
            key=lambda each: each.chip_hours,
        )
        found.append(dataclasses.replace(best, chosen=unit == case.unit))
    return tuple(found)


def largest_size(case: _Case, spares_frac: float) -> int:
    """The most chips with which a run still ends within MAX_STRETCH times its length without failures; 0 if none.

    The model and its tokens stay: a run on half the chips has twice the work for each, and half the failures.
    """
    node = case.answer.system.pool.chips_per_node

    def ends(nodes: int) -> bool:
        smaller = dataclasses.replace(case, chips=nodes * node)
        spares = math.ceil(spares_frac * nodes)
        return progress_rate(smaller.model(spare_nodes=spares)) * MAX_STRETCH >= 1.0

    low, high = 1, case.nodes
    if not ends(low):
        return 0
    if ends(high):
        return case.chips
    while high - low > max(low // 1000, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if ends(middle) else (low, middle)
    return low * node


def _collected(
    case: _Case, model: RunModel, samples: RunSamples, *, notes: tuple[str, ...],
    tier_choices: tuple[Alternative, ...], spare_choices: tuple[Alternative, ...], largest: int,
    remedies: tuple[Alternative, ...],
) -> ReliableRun:  # fmt: skip
    """Everything that the report says."""
    run = case.answer.run
    if run is None:
        raise ScenarioError("no plan can run")
    rate = interruptions_per_s(model.parts, model.work_s) if model.parts else 0.0
    mtbf = 1.0 / rate if rate > 0 else math.inf
    spare_chips = model.spare_nodes * case.layout.chips_per_node
    stretch = samples.end_s / model.work_s
    paid = stretch * (1 + model.spare_nodes / case.nodes)
    costs = {offer: paid * cost.expected for offer, cost in run.cost_usd.items()}
    energy = _energy_j(case, model, samples)
    finishes = samples.finished_frac >= ENDS_FRAC
    return ReliableRun(
        model=model,
        rates=case.rates,
        recovery=case.recovery,
        chips=case.chips,
        spare_chips=spare_chips,
        finishes=finishes,
        finished_frac=samples.finished_frac,
        largest_chips=largest,
        remedies=remedies,
        mtbf_s=mtbf,
        failures_per_day={
            part.name: float(part.expected_failures(model.work_s)) / model.work_s * 86400.0 for part in model.parts
        },
        failures_seen=float(samples.failures.sum(axis=1).mean()),
        checkpointing=Checkpointing(
            size_bytes=checkpoint_bytes(case.answer),
            tiers=model.tiers,
            young_s=young_interval_s(model.tiers[0].stall_s, mtbf) if rate > 0 else math.inf,
            daly_s=daly_interval_s(model.tiers[0].stall_s, mtbf) if rate > 0 else math.inf,
            exact_s=exact_interval_s(model.tiers[0].stall_s, mtbf) if rate > 0 else math.inf,
            notes=notes,
        ),
        ideal_s=run.duration_s.expected,
        duration_s=quantiles(samples.end_s),
        ettr=quantiles(model.work_s / samples.end_s),
        expected_ettr=float(model.work_s * len(samples.end_s) / samples.wall_s.sum()) if finishes else 0.0,
        shares=samples.shares(),
        cost_usd={offer: quantiles(cost) for offer, cost in costs.items()},
        losses_usd={offer: float(np.mean(cost)) - run.cost_usd[offer].expected for offer, cost in costs.items()},
        energy_j=quantiles(energy),
        losses_j=float(np.mean(energy)) - run.energy_j.expected,
        tier_choices=tier_choices,
        interval_choices=_interval_choices(case, model),
        spare_choices=spare_choices,
        unit_choices=_unit_choices(case, model.spare_nodes) if finishes else (),
        slowest=slowest_rank(case.answer),
        num_runs=len(samples.end_s),
        seed=case.options.seed,
    )


def _energy_j(case: _Case, model: RunModel, samples: RunSamples) -> Array:
    """Energy of every run [run]: full power while it trains, idle power while it stands; spares idle throughout."""
    run, pool = case.answer.run, case.answer.system.pool
    if run is None:
        raise ScenarioError("no plan can run")
    idle_w = idle_power_w(pool) * case.chips
    overhead = run.energy_j.expected / (run.power_w.expected * run.duration_s.expected)
    down = samples.seconds[:, [CAUSES.index(cause) for cause in _DOWN]].sum(axis=1)
    up = samples.wall_s - down
    spares = idle_w * model.spare_nodes / case.nodes * samples.wall_s
    found = (run.power_w.expected * up + idle_w * down + spares) * overhead
    return np.where(np.isfinite(samples.end_s), found, np.inf)


__all__ = [
    "Alternative", "Checkpointing", "Quantiles", "ReliabilityOptions", "ReliableRun", "answer_until_done",
    "checkpoint_bytes", "largest_size",
]  # fmt: skip
