"""A run with failures as blocks for the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any

from ultratwin.planning.reliability.model import Alternative, Quantiles, ReliableRun
from ultratwin.report.metrics import count_said, said
from ultratwin.report.tables import Bars, Block, Grid, Lines, Pairs
from ultratwin.report.tree import Leaf, Node, grown
from ultratwin.simulation.reliability.records import MAX_STRETCH, NO_SAVES
from ultratwin.units import format_seconds, format_si

_DAY = 86400.0
_SMALLEST_SHARE = 0.0005
_SLOWEST = "waiting for the slowest rank"


def reliability_blocks(run: ReliableRun, start: datetime.date | None = None) -> list[Block]:
    """What breaks, whether and when the run ends, where its time goes, and what would be better.

    Args: start: the day on which it begins, for dates
    """
    blocks: list[Block] = [_breaks(run)]
    if not run.finishes:
        blocks.append(_never(run))
    else:
        blocks += [_result(run, start), _time(run)]
    blocks.append(_checkpoints(run))
    if run.checkpointing.notes:
        blocks.append(Lines(title="notes", lines=run.checkpointing.notes))
    for title, choices in (
        ("where to save", run.tier_choices), ("how often", run.interval_choices), ("spares", run.spare_choices),
        ("what leaves when a part fails", run.unit_choices),
    ):  # fmt: skip
        if len(choices) > 1 and any(math.isfinite(each.chip_hours) for each in choices):
            blocks.append(_choices(title, choices))
    return blocks


def badput(run: ReliableRun) -> Node:
    """Seconds of an average run by cause: a tree whose children sum to it."""
    wall = run.ideal_s / run.expected_ettr if run.expected_ettr > 0 else 0.0
    parts = {name: share * wall for name, share in run.shares.items()}
    # a synchronous step waits for its slowest rank: time that trains nothing, though all ranks are up
    parts[_SLOWEST] = parts["training"] * run.slowest.waiting_frac
    parts["training"] -= parts[_SLOWEST]
    leaves = tuple(
        Leaf(name=name, value=value, group="" if name == "training" else "lost") for name, value in parts.items()
    )
    return grown("wall time of an average run", "s", leaves)


def _breaks(run: ReliableRun) -> Pairs:
    rows: list[tuple[str, str, str]] = []
    if math.isinf(run.mtbf_s):
        rows.append(("interruptions", "none", "nothing fails"))
    else:
        rows.append(("interruptions", f"{said(_DAY / run.mtbf_s)} a day", f"one every {format_seconds(run.mtbf_s)}"))
        ranked = sorted(run.failures_per_day.items(), key=lambda each: (-each[1], each[0]))
        rows += [(f"  {name}", f"{said(rate)} a day", "") for name, rate in ranked]
    return Pairs(title=f"what breaks in {run.chips:,} chips (rates: {run.rates.name})", rows=tuple(rows))


def _never(run: ReliableRun) -> Lines:
    ended = round(run.finished_frac * run.num_runs)
    lines = [
        f"of {run.num_runs:,} runs {ended or 'none'} ended within {MAX_STRETCH:g} times its length without failures",
        f"failures come every {format_seconds(run.mtbf_s)}, and recovery ({run.recovery.name}) takes "
        f"{format_seconds(_recovery_s(run))}",
        f"the largest machine on which this run would end has {run.largest_chips:,} chips"
        if run.largest_chips
        else "it would end on no size of this machine",
    ]
    helping = [each for each in run.remedies if math.isfinite(each.chip_hours)]
    lines += [f"with {each.name} and spares enough it would train {each.ettr:.0%} of its time" for each in helping]
    if not helping:
        lines.append("neither --recovery hot nor --elastic would help; what would: fewer failures")
    return Lines(title="the run never ends", lines=tuple(lines))


def _recovery_s(run: ReliableRun) -> float:
    found = run.recovery
    reload = run.model.tiers[0].reload_s
    return found.detection_s + found.isolation_s + found.restart_s + reload + found.warm_up_s


def _result(run: ReliableRun, start: datetime.date | None) -> Pairs:
    def days(seconds: float) -> str:
        return said(seconds / _DAY) if math.isfinite(seconds) else "never"

    whole = run.duration_s
    rows = [
        ("duration", f"{days(whole.p50)} days", f"(p10 {days(whole.p10)}, p90 {days(whole.p90)})"),
        ("without failures", f"{days(run.ideal_s)} days", ""),
        ("effective training time", f"{run.ettr.p50:.1%}", f"(p10 {run.ettr.p10:.1%}, p90 {run.ettr.p90:.1%})"),
        ("failures of a run", said(run.failures_seen), ""),
        ("spares", f"{run.spare_chips:,} chips", f"({run.spare_chips / run.chips:.2%})"),
    ]
    if run.finished_frac < 1.0:
        limit = f"within {MAX_STRETCH:g} times its length without failures"
        rows.append(("runs that end", f"{run.finished_frac:.1%}", limit))
    if start is not None:
        rows.insert(1, ("finish", *_dates(start, whole)))
    for offer, cost in run.cost_usd.items():
        rows.append((f"cost, {offer.replace('_', ' ')}", _money(cost.p50), f"of it failures and spares "
                     f"{_money(run.losses_usd[offer])}"))  # fmt: skip
    lost = f"of it failures {format_si(run.losses_j / 3600, 'Wh')}" if math.isfinite(run.losses_j) else ""
    rows.append(("energy", format_si(run.energy_j.p50 / 3600, "Wh"), lost))
    return Pairs(title=f"until it is done: {run.num_runs:,} runs, seed {run.seed}", rows=tuple(rows))


def _money(usd: float) -> str:
    return f"${count_said(usd)}" if math.isfinite(usd) else "never done"


def finish_date(start: datetime.date, seconds: float) -> datetime.date | None:
    """The day on which a run ends; None for one that doesn't, or beyond the calendar."""
    try:
        return start + datetime.timedelta(days=math.ceil(seconds / _DAY))
    except (OverflowError, ValueError):
        return None


def _dates(start: datetime.date, whole: Quantiles) -> tuple[str, str]:
    found = [finish_date(start, each) for each in (whole.p10, whole.p50, whole.p90)]
    first, middle, last = (each.isoformat() if each else "never" for each in found)
    return middle, f"(p10 {first}, p90 {last})"


def _time(run: ReliableRun) -> Bars:
    wall = run.ideal_s / run.expected_ettr
    ranked = sorted(run.shares.items(), key=lambda each: (-each[1], each[0]))
    rows = [(name, format_seconds(share * wall), share, "") for name, share in ranked if share >= _SMALLEST_SHARE]
    waits = run.shares["training"] * run.slowest.waiting_frac
    if waits >= _SMALLEST_SHARE:
        at = next(at for at, row in enumerate(rows) if row[0] == "training")
        found = run.slowest
        why = f"uneven chips {found.spread_frac:.1%} of a step, rare delays {found.tail_frac:.1%}"
        rows.insert(at + 1, ("  its slowest rank", format_seconds(waits * wall), waits, why))
    return Bars(title="where an average run's time goes", rows=tuple(rows))


def _checkpoints(run: ReliableRun) -> Grid:
    def every(seconds: float) -> str:
        return "never" if seconds >= NO_SAVES / 10 else format_seconds(seconds)

    rows = tuple(
        (tier.name, every(tier.interval_s), format_seconds(tier.stall_s), format_seconds(tier.latency_s),
         format_seconds(tier.reload_s))
        for tier in run.checkpointing.tiers
    )  # fmt: skip
    advice = ""
    if math.isfinite(run.checkpointing.young_s):
        advice = (
            f"; Young advises {format_seconds(run.checkpointing.young_s)}, "
            f"Daly {format_seconds(run.checkpointing.daly_s)}"
        )
    return Grid(
        title=f"checkpoints of {format_si(run.checkpointing.size_bytes, 'B')}{advice}",
        columns=("tier", "every", "chips wait", "written in", "read in"),
        rows=rows,
        right=frozenset({1, 2, 3, 4}),
    )


def _choices(title: str, choices: tuple[Alternative, ...]) -> Grid:
    rows = tuple(
        (("> " if each.chosen else "  ") + each.name, f"{each.ettr:.2%}", _hours(each.chip_hours)) for each in choices
    )
    return Grid(
        title=title, columns=("choice", "training", "chip-hours paid"), rows=rows, right=frozenset({1, 2})
    )  # fmt: skip


def _hours(value: float) -> str:
    return count_said(value) if math.isfinite(value) else "never ends"


def reliability_json(run: ReliableRun) -> dict[str, Any]:
    """A run with failures as JSON objects."""
    saving = run.checkpointing
    return {
        "finishes": run.finishes,
        "finished_frac": run.finished_frac,
        "largest_chips": run.largest_chips,
        "num_runs": run.num_runs,
        "seed": run.seed,
        "chips": run.chips,
        "spare_chips": run.spare_chips,
        "rates": run.rates.name,
        "recovery": dataclasses.asdict(run.recovery),
        "mtbf_s": run.mtbf_s,
        "failures_per_day": dict(sorted(run.failures_per_day.items())),
        "failures_of_a_run": run.failures_seen,
        "ideal_s": run.ideal_s,
        "duration_s": dataclasses.asdict(run.duration_s),
        "ettr": dataclasses.asdict(run.ettr),
        "expected_ettr": run.expected_ettr,
        "wall_time_shares": run.shares,
        "badput": badput(run).as_dict() if run.finishes else None,
        "slowest_rank": dataclasses.asdict(run.slowest),
        "cost_usd": {offer: dataclasses.asdict(cost) for offer, cost in run.cost_usd.items()},
        "losses_usd": run.losses_usd,
        "energy_j": dataclasses.asdict(run.energy_j),
        "losses_j": run.losses_j,
        "checkpoint": {
            "size_bytes": saving.size_bytes,
            "tiers": [dataclasses.asdict(tier) for tier in saving.tiers],
            "young_s": saving.young_s,
            "daly_s": saving.daly_s,
            "exact_s": saving.exact_s,
            "notes": list(saving.notes),
        },
        "remedies": [dataclasses.asdict(each) for each in run.remedies],
        "choices": {
            name: [dataclasses.asdict(each) for each in choices]
            for name, choices in (
                ("tiers", run.tier_choices), ("intervals", run.interval_choices), ("spares", run.spare_choices),
                ("failure_units", run.unit_choices),
            )
        },
    }  # fmt: skip


__all__ = ["badput", "finish_date", "reliability_blocks", "reliability_json"]
