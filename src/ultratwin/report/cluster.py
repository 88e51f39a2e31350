"""A cluster and its collectives as tables, a drawing in text, and JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from ultratwin.planning.cluster import Cluster
from ultratwin.planning.collective import CollectiveAnswer
from ultratwin.report.metrics import said
from ultratwin.report.tables import Block, Grid, Lines, Pairs, Title
from ultratwin.units import format_seconds, format_si


def cluster_blocks(cluster: Cluster) -> list[Block]:
    """The answer of `ultratwin cluster`."""
    topology = cluster.topology
    more = topology.num_endpoints - topology.num_chips
    rounded = f", rounded up by {more:,} to whole domains" if more else ""
    blocks: list[Block] = [
        Title(
            text=f"{cluster.system.name}: {topology.num_endpoints:,} {cluster.system.pool.chip.name}",
            lines=(f"{topology.num_chips:,} chips asked for{rounded}; about {cluster.racks:,} racks",),
        ),
        Lines(title="Structure", lines=drawing(cluster)),
        Grid(
            title="Links (one direction)",
            columns=("level", "links", "rate of one", "latency", "bisection", "of"),
            rows=tuple(
                (each.name, f"{each.num_links:,}", format_si(each.bytes_per_s, "B/s"),
                 f"{each.latency_s * 1e6:g} us", format_si(each.bisection_bytes_per_s, "B/s"), each.bisection_of)
                for each in cluster.levels
            ),
            right=frozenset({1, 2, 3, 4}),
        ),
        Pairs(title="Parts", rows=tuple((name, f"{count:,}", "") for name, count in cluster.parts.items())),
        Grid(
            title="What a loss takes away",
            columns=("lost", "chips", "left", "of the rate of", "level", ""),
            rows=tuple(
                (each.part, f"{each.chips_lost:,}", _percent(each.left_frac), each.scope, each.level, each.note)
                for each in cluster.losses
            ),
            right=frozenset({1, 2}),
        ),
        _failures(cluster),
        _power(cluster),
        _price(cluster),
    ]  # fmt: skip
    if cluster.way:
        blocks.insert(3, _way(cluster))
    if cluster.assumed:
        blocks.append(Lines(title="Assumed, not published (range)", lines=cluster.assumed))
    return blocks


def _percent(frac: float) -> str:
    text = f"{frac:.2%}"
    return "just below 100 %" if text == "100.00%" and frac < 1.0 else text.replace("%", " %")


def _failures(cluster: Cluster) -> Block:
    """How often a job on all of it would be interrupted."""
    ranked = sorted(cluster.failures_per_day.items(), key=lambda each: (-each[1][1], each[0]))
    low, expected, high = (sum(each[1][at] for each in ranked) for at in range(3))
    every = f"one every {format_seconds(86400.0 / expected)}"
    rows = [(name, said(rates[1]), f"{said(rates[0])} to {said(rates[2])}") for name, rates in ranked]
    return Pairs(
        title=f"Failures a day (rates: {cluster.rates})",
        rows=(*rows, ("all", said(expected), f"{said(low)} to {said(high)}, {every}")),
    )


def _way(cluster: Cluster) -> Block:
    """The links between two chips."""
    rows = tuple(
        (hop.link, format_si(hop.bytes_per_s, "B/s"), f"{hop.latency_s * 1e6:g} us") for hop in cluster.way
    )  # fmt: skip
    return Grid(title="The way", columns=("link", "rate", "latency"), rows=rows, right=frozenset({1, 2}))


def _power(cluster: Cluster) -> Block:
    rows = [(name, format_si(watts, "W"), "") for name, watts in cluster.power_w.items()]
    ends = f"{format_si(cluster.power_low_w, 'W')} to {format_si(cluster.power_high_w, 'W')}"
    return Pairs(
        title="Power at full load, before PUE",
        rows=(*rows, ("all", format_si(cluster.total_power_w, "W"), ends), *_rack_power(cluster)),
    )


def _rack_power(cluster: Cluster) -> tuple[tuple[str, str, str], ...]:
    """What one rack draws, and what it is taken to supply and cool, where something is known of that."""
    limit = cluster.system.facts.get("rack_power_w")
    if limit is None:
        return ()
    low, high = limit.range_si
    supplied = f"of {format_si(limit.si, 'W')} that it supplies ({format_si(low, 'W')} to {format_si(high, 'W')})"
    inside = sum(cluster.power_w[name] for name in ("chips at their limit", "hosts"))
    return (("one rack, without the network", format_si(inside / cluster.racks, "W"), supplied),)


def _price(cluster: Cluster) -> Block:
    if not cluster.usd_per_hour:
        return Lines(title="Price", lines=("none is public for this system",))
    rows = ((offer.replace("_", " "), f"{value:,.0f} USD/h", "") for offer, value in cluster.usd_per_hour.items())
    return Pairs(title="Price", rows=tuple(rows))


def drawing(cluster: Cluster) -> tuple[str, ...]:
    """The machine from its core to a chip, one line a level."""
    topology, fabric = cluster.topology, cluster.topology.fabric
    lines: list[str] = []
    if fabric is not None:
        if fabric.num_cores:
            levels = f" on {fabric.num_core_levels} levels" if fabric.num_core_levels > 1 else ""
            lines += [f"core    {fabric.num_cores:,} switches of {fabric.switch_ports} ports{levels}",
                      f" |      oversubscribed {fabric.pod_oversubscription:g}:1"]  # fmt: skip
        if fabric.num_spines:
            lines += [f"spine   {fabric.num_spines:,} switches in {fabric.num_pods:,} pods of "
                      f"{min(fabric.domains_per_pod, fabric.num_domains):,} domains",
                      f" |      oversubscribed {fabric.leaf_oversubscription:g}:1"]  # fmt: skip
        kind = "by rail" if fabric.kind == "rail_optimised" else "by domain"
        lines += [f"leaf    {fabric.num_leaves:,} switches {kind}, {fabric.ports_down} ports down",
                  f" |      {format_si(fabric.nic_bytes_per_s, 'B/s')} a chip, routing: {fabric.routing}"]  # fmt: skip
    lines.append(f"domain  {topology.num_domains:,} x {topology.domain.size} chips, "
                 f"{format_si(topology.domain.bytes_per_s, 'B/s')} a chip")  # fmt: skip
    for axis in topology.domain.axes:
        if axis.size > 1:
            kind = axis.kind if getattr(axis, "closed", True) else "line"
            lines.append(f" |      {axis.name}: {kind} of {axis.size}, {format_si(axis.bytes_per_s, 'B/s')} a chip")
    return (*lines, f"chip    {topology.num_endpoints:,}")


def cluster_json(cluster: Cluster) -> dict[str, Any]:
    """The answer as JSON objects."""
    topology, fabric = cluster.topology, cluster.topology.fabric
    return {
        "verb": "cluster",
        "system": cluster.system.id,
        "num_chips": topology.num_chips,
        "num_endpoints": topology.num_endpoints,
        "domain": {
            "num_domains": topology.num_domains,
            "size": topology.domain.size,
            "axes": [
                {"kind": axis.kind} | {each.name: getattr(axis, each.name) for each in dataclasses.fields(axis)}
                for axis in topology.domain.axes
            ],
        },
        "fabric": fabric
        and {"kind": fabric.kind, "num_leaves": fabric.num_leaves, "num_spines": fabric.num_spines,
             "num_cores": fabric.num_cores, "num_pods": fabric.num_pods,
             "bisection_bytes_per_s": fabric.bisection_bytes_per_s()}
        | {each.name: getattr(fabric, each.name) for each in dataclasses.fields(fabric)},
        "links": [dataclasses.asdict(each) for each in cluster.levels],
        "parts": dict(cluster.parts),
        "losses": [dataclasses.asdict(each) for each in cluster.losses],
        "power_w": dict(cluster.power_w)
        | {"all": cluster.total_power_w, "low": cluster.power_low_w, "high": cluster.power_high_w},
        "usd_per_hour": dict(cluster.usd_per_hour),
        "racks": cluster.racks,
        "failures_per_day": {
            name: dict(zip(("low", "expected", "high"), rates, strict=True))
            for name, rates in cluster.failures_per_day.items()
        },
        "way": [dataclasses.asdict(each) for each in cluster.way],
        "assumed": list(cluster.assumed),
        "drawing": list(drawing(cluster)),
    }  # fmt: skip


def collective_blocks(answer: CollectiveAnswer) -> list[Block]:
    """The answer of `ultratwin collective`, a table as nccl-tests prints it."""
    question, topology = answer.question, answer.topology
    event = question.fidelity == "event"
    lines = [f"{topology.num_domains:,} domains of {topology.domain.size} chips = {topology.num_endpoints:,} ranks; "
             f"fidelity {question.fidelity}; times out of place, algbw and busbw in GB/s (10^9)"]  # fmt: skip
    if event:
        flows = max(row.num_flows for row in answer.rows)
        classes = max(row.num_classes for row in answer.rows)
        lines.append(f"up to {flows:,.0f} flows in {classes:,} classes")
    columns = ("size (B)", "count", "time (us)", "algbw", "busbw", "algorithm")
    rows = tuple(
        (f"{row.size_bytes:,.0f}", f"{row.count:,.0f}", f"{row.time_s * 1e6:,.2f}",
         f"{row.algorithm_bytes_per_s / 1e9:.4g}", f"{row.bus_bytes_per_s / 1e9:.4g}", row.algorithm,
         *((row.bound_by,) if event else ()))
        for row in answer.rows
    )  # fmt: skip
    return [
        Title(text=f"{question.operation} on {topology.name}, {topology.num_chips:,} chips", lines=tuple(lines)),
        Grid(
            title="", columns=(*columns, "longest phase: full link") if event else columns, rows=rows,
            right=frozenset({0, 1, 2, 3, 4}),
        ),
    ]  # fmt: skip


def collective_json(answer: CollectiveAnswer) -> dict[str, Any]:
    """The answer as JSON objects."""
    question = dataclasses.asdict(answer.question)
    return {
        "verb": "collective",
        "question": question,
        "num_domains": answer.topology.num_domains,
        "ranks_per_domain": answer.topology.domain.size,
        "num_ranks": answer.topology.num_endpoints,
        "rows": [dataclasses.asdict(row) for row in answer.rows],
    }
