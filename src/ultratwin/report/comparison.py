"""Scenarios side by side, as blocks for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.comparison import Comparison, Flip, Pair, Ranking, Scenario, Split
from ultratwin.planning.uncertainty import Range
from ultratwin.report.explanation import explanation
from ultratwin.report.figures import cited, used_figures
from ultratwin.report.json import training_json
from ultratwin.report.metrics import METRICS, Metric, count_said, said
from ultratwin.report.sensitivity import NOUNS
from ultratwin.report.tables import Block, Grid, Lines, Title

_COLUMNS: Final = 3
"""Scenarios beside each other in one table; more are continued below."""
_SMALLEST_SHARE: Final = 0.001
_MOST_FLIPS: Final = 8
_SPLITS: Final = {
    "time": ("time of the run", "days", 86400.0),
    "energy": ("energy", "MWh", 3.6e9),
    "cost": ("cost", "1,000 USD", 1e3),
}
_KEPT: Final = (
    "question", "model", "system", "chips", "tokens", "precision", "framework", "feasible", "rejected", "plan",
    "result", "step", "memory",
)  # fmt: skip


def comparison_blocks(comparison: Comparison) -> list[Block]:
    """Side by side, where time, energy and money differ, the ranking, and what would turn it."""
    scenarios, ranked = comparison.scenarios, comparison.ranking
    blocks: list[Block] = [_title(comparison)]
    for start in range(0, len(scenarios), _COLUMNS):
        some = slice(start, start + _COLUMNS)
        blocks.append(_side_by_side(scenarios[some], comparison.offers[some]))
    for split in comparison.splits:
        blocks += _split_grids(split, scenarios)
    return blocks + ranking_blocks(ranked, [each.name for each in scenarios])


def ranking_blocks(ranked: Ranking, names: Sequence[str]) -> list[Block]:
    """The ranking, and for each two neighbours what would turn their order.

    Args:
        ranked: the ranking
        names: of the scenarios, in the order in which they were ranked
    """
    blocks: list[Block] = [_ranking(ranked, names)] if ranked.places else []
    return blocks + [_pair(pair, names) for pair in ranked.pairs]


def _title(comparison: Comparison) -> Title:
    lines = []
    for each in comparison.scenarios:
        answer = each.answer
        model = f"{answer.model.id}, {count_said(answer.tokens)} tokens in {answer.precision}"
        system = answer.system.name + (" (hypothetical)" if answer.system.hypothetical else "")
        lines.append(f"{each.name}: {model}, {answer.chips:,} chips of {system}, region {each.question.region}")
    if len({(each.answer.model.id, each.answer.tokens) for each in comparison.scenarios}) > 1:
        lines.append("note: the scenarios don't train the same model on as many tokens")
    offers = sorted(set(comparison.offers) - {""})
    if len(offers) > 1:
        kinds = ", ".join(offer.replace("_", " ") for offer in offers)
        lines.append(f"note: the prices are of several kinds ({kinds})")
    head = f"{len(comparison.scenarios)} scenarios, ranked by {comparison.ranking.objective}"
    return Title(text=head, lines=tuple(lines))


def _side_by_side(scenarios: Sequence[Scenario], offers: Sequence[str]) -> Grid:
    rows = [
        ("chips", *(f"{each.answer.chips:,}" for each in scenarios)),
        ("framework", *(each.answer.profile.id for each in scenarios)),
        ("layout", *(_layout(each) for each in scenarios)),
    ]
    if any(each.answer.run is None for each in scenarios):
        rows.append(("can't run", *(str(each.answer.rejected or "") for each in scenarios)))
    rows += [(metric.label, *(_figure(each, metric) for each in scenarios)) for metric in METRICS]
    paid = list(zip(scenarios, offers, strict=True))
    rows.append(("cost", *(_cost(each, offer) for each, offer in paid)))
    rows.append(("offer", *(_offer(each, offer) for each, offer in paid)))
    rows.append(("memory of a rank", *(_memory(each) for each in scenarios)))
    columns = ("", *(each.name for each in scenarios))
    return Grid(title="side by side: expected (90 % range)", columns=columns, rows=tuple(rows))


def _layout(scenario: Scenario) -> str:
    plan = scenario.answer.plan
    return "-" if plan is None else plan.describe()


def _figure(scenario: Scenario, metric: Metric) -> str:
    run = scenario.answer.run
    return "-" if run is None else _said(metric.read(run), metric.scale, metric.unit, metric.label)


def _said(value: Range, scale: float, unit: str, label: str = "") -> str:
    low, expected, high = (each / scale for each in (value.low, value.expected, value.high))
    shown = "" if unit in (label, "tokens/s") else f" {unit}"
    return f"{said(expected)}{shown} ({said(low)} to {said(high)})"


def _cost(scenario: Scenario, offer: str) -> str:
    run = scenario.answer.run
    if run is None:
        return "-"
    return _dollars(run.cost_usd[offer]) if offer else "no public price"


def _dollars(value: Range) -> str:
    return f"${count_said(value.expected)} ({count_said(value.low)} to {count_said(value.high)})"


def _offer(scenario: Scenario, offer: str) -> str:
    run = scenario.answer.run
    return f"{offer.replace('_', ' ')}, {run.cost_notes[offer].partition(',')[0]}" if run and offer else "-"


def _memory(scenario: Scenario) -> str:
    answer = scenario.answer
    if answer.memory is None:
        return "-"
    used = explanation(answer, recipe(answer.precision), ()).memory
    return "-" if used is None else f"{said(used.value / 2**30)} of {said(answer.memory_capacity_bytes / 2**30)} GiB"


def _split_grids(split: Split, scenarios: Sequence[Scenario]) -> list[Block]:
    """Amounts by cause; beside each scenario but the first, what it spends more than the first."""
    name, unit, scale = _SPLITS[split.kind]
    others = [at for at in range(len(scenarios)) if at != split.base and split.amounts[at] is not None]
    groups = [others[start : start + _COLUMNS] for start in range(0, len(others), _COLUMNS)] or [[]]
    first = scenarios[split.base].name
    return [
        Grid(
            title=f"{name} by cause, {unit}" + (f"; more than {first}" if group else ""),
            columns=("", first, *(word for at in group for word in (scenarios[at].name, "more"))),
            rows=tuple(_split_rows(split, group, scale)),
            right=frozenset(range(1, 2 + 2 * len(group))),
        )
        for group in groups
    ]


def _split_rows(split: Split, group: Sequence[int], scale: float) -> list[tuple[str, ...]]:
    shown = [split.base, *group]
    totals = [split.total(at) or 0.0 for at in shown]
    columns: list[tuple[float, ...]] = []
    for at in shown:
        columns.append(split.amounts[at] or ())
        if at != split.base:
            columns.append(split.differences(at) or ())
    rows, rest = [], [0.0] * len(columns)
    for row, cause in enumerate(split.causes):
        values = [column[row] for column in columns]
        if max(abs(value) for value in values) >= _SMALLEST_SHARE * max(totals):
            rows.append((cause, *_amounts(values, scale)))
        else:
            rest = [one + other for one, other in zip(rest, values, strict=True)]
    if any(rest):
        rows.append(("what is less than 0.1 %", *_amounts(rest, scale)))
    rows.append(("in all", *_amounts([sum(column) for column in columns], scale)))
    return rows


def _amounts(values: Sequence[float], scale: float) -> list[str]:
    """A scenario's amount, then amount and signed difference of each other one."""
    return [
        said(value / scale) if at % 2 == (1 if at else 0) else ("+" if value > 0 else "") + said(value / scale)
        for at, value in enumerate(values)
    ]


def _ranking(ranked: Ranking, names: Sequence[str]) -> Grid:
    rows = []
    for rank, place in enumerate(ranked.places, start=1):
        value = _objective_said(place.value, ranked.objective)
        rows.append((f"{rank}", names[place.scenario], value, _share_said(place.best_frac)))
    rows += [("-", names[at], reason, "") for at, reason in ranked.unranked]
    whole = f"; the whole order holds in {_share_said(ranked.holds_frac)} of samples" if len(ranked.places) > 1 else ""
    return Grid(
        title=f"ranking by {ranked.objective}{whole}",
        columns=("", "scenario", NOUNS[ranked.objective], "best in"),
        rows=tuple(rows),
        right=frozenset({0, 3}),
    )


def _share_said(frac: float) -> str:
    """A share of samples; nothing is called certain that was not so in all of them."""
    if 0.995 <= frac < 1:
        return ">99%"
    return "<1%" if 0 < frac < 0.005 else f"{frac:.0%}"


def _objective_said(value: Range, objective: str) -> str:
    if objective == "cost":
        return _dollars(value)
    scale, unit = {"time": (86400.0, "days"), "energy": (3.6e9, "MWh"), "carbon": (1e3, "t")}[objective]
    return _said(value, scale, unit)


def _pair(pair: Pair, names: Sequence[str]) -> Block:
    better, worse = names[pair.better], names[pair.worse]
    if pair.is_tie:
        return Lines(title=f"{better} and {worse} are equal", lines=())
    head = f"{better} before {worse} holds in {_share_said(pair.holds_frac)} of samples"
    if not pair.flips:
        return Lines(title=head, lines=("no single figure within a factor of ten would turn it",))
    return Grid(
        title=f"{head}; it would turn if one figure alone were",
        columns=("figure", "is", "would be", "change", "its range"),
        rows=tuple(_flip_row(flip) for flip in pair.flips[:_MOST_FLIPS]),
        right=frozenset({1, 2, 3}),
    )


def _flip_row(flip: Flip) -> tuple[str, ...]:
    fact = flip.fact
    unit = f" {fact.unit}".rstrip()
    spread = f"{said(fact.low)} to {said(fact.high)}: open" if flip.is_open else (
        f"{said(fact.low)} to {said(fact.high)}: outside" if fact.has_range else f"none, {fact.status}"
    )  # fmt: skip
    return fact.name, f"{said(fact.value)}{unit}", f"{said(flip.needed)}{unit}", f"x{said(flip.factor)}", spread


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON objects; amounts in SI, what facts would have to be in their own units."""
    scenarios = comparison.scenarios
    return {
        "verb": "compare",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "objective": comparison.ranking.objective,
        "scenarios": [_scenario_json(*each) for each in zip(scenarios, comparison.offers, strict=True)],
        "splits": [_split_json(split, scenarios) for split in comparison.splits],
        "ranking": ranking_json(comparison.ranking, [each.name for each in scenarios]),
    }


def _scenario_json(scenario: Scenario, offer: str) -> dict[str, Any]:
    question, answer = scenario.question, scenario.answer
    formats = recipe(answer.precision)
    whole = training_json(question, answer, explanation(answer, formats, used_figures(answer, question, formats)))
    return {"name": scenario.name, "seed": question.seed, "offer": offer} | {key: whole[key] for key in _KEPT}


def _split_json(split: Split, scenarios: Sequence[Scenario]) -> dict[str, Any]:
    def by_cause(values: tuple[float, ...] | None) -> dict[str, float] | None:
        return None if values is None else dict(zip(split.causes, values, strict=True))

    return {
        "kind": split.kind,
        "unit": split.unit,
        "against": scenarios[split.base].name,
        "scenarios": [
            {
                "name": each.name,
                "total": split.total(at),
                "by_cause": by_cause(split.amounts[at]),
                "more_by_cause": by_cause(split.differences(at)),
            }
            for at, each in enumerate(scenarios)
        ],
    }


def ranking_json(ranked: Ranking, names: Sequence[str]) -> dict[str, Any]:
    """A ranking as JSON objects.

    Args:
        ranked: the ranking
        names: of the scenarios, in the order in which they were ranked
    """
    return {
        "objective": ranked.objective,
        "holds_frac": ranked.holds_frac,
        "places": [
            {"name": names[each.scenario], "value": each.value, "best_frac": each.best_frac} for each in ranked.places
        ],
        "unranked": [{"name": names[at], "reason": reason} for at, reason in ranked.unranked],
        "pairs": [
            {
                "better": names[pair.better],
                "worse": names[pair.worse],
                "holds_frac": pair.holds_frac,
                "is_tie": pair.is_tie,
                "flips": [_flip_json(flip, names) for flip in pair.flips],
            }
            for pair in ranked.pairs
        ],
    }


def _flip_json(flip: Flip, names: Sequence[str]) -> dict[str, Any]:
    fact = flip.fact
    return {
        "fact": fact.name,
        "scenarios": [names[at] for at in flip.scenarios],
        "unit": fact.unit,
        "value": fact.value,
        "low": fact.low,
        "high": fact.high,
        "needed": flip.needed,
        "factor": flip.factor,
        "is_open": flip.is_open,
        "status": fact.status,
        "sources": [{"title": title, "url": url} for title, url in cited(fact.source)],
    }
