"""An answer about two pools as blocks for the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import numpy as np

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.hardware.mix import Join, Mix, join_entries
from ultratwin.planning.mixed.serving import MixedServingAnswer, RoleAnswer, SharedIteration
from ultratwin.planning.serving.answer import ServingAnswer, iterations, serving_memory
from ultratwin.planning.serving.deployment import Deployment
from ultratwin.planning.serving.money import serving_prices
from ultratwin.planning.serving.transfer import engine_hand_over_s
from ultratwin.planning.serving.ways import DISAGGREGATED, ROLES, ROUTED
from ultratwin.planning.uncertainty import Range
from ultratwin.report.metrics import said
from ultratwin.report.plan_serving import deployment_json
from ultratwin.report.serving import question_json
from ultratwin.report.serving_trees import ServingExplanation, serving_explanation
from ultratwin.report.tables import Block, Grid, Lines, Pairs, Title
from ultratwin.workload.parameters import active_parameter_count, parameter_count

WAYS: Final = {
    "aggregated": "one system",
    "disaggregated": "prefill and decode apart",
    "routed": "both behind one router",
    "attention-experts": "attention and experts apart",
    "target-draft": "target and draft apart",
}


def mixed_serving_blocks(answer: MixedServingAnswer) -> list[Block]:
    """Title, the roles, what users feel, what is handed over; or why nothing can run."""
    blocks: list[Block] = [_title(answer)]
    option = answer.deployment
    if option is None:
        reason = "" if answer.rejected is None else answer.rejected.reason
        help_ = "more units, a lower --request-rate, or a format of fewer bytes such as --precision fp8"
        return [*blocks, Lines(title="nothing can run", lines=(reason, help_)), *_notes(answer)]
    blocks += [_roles(answer, option), _felt(answer, option), *_objectives(option)]
    if answer.wire is not None:
        blocks.append(_handed_over(answer, option))
    if answer.shared is not None:
        blocks.append(_shared(answer.shared, option))
    return [*blocks, *_notes(answer)]


def _title(answer: MixedServingAnswer) -> Title:
    load, rate = answer.load, answer.question.serving.demand.request_rate
    lengths = f"prompts of {float(np.ravel(load.prompt_tokens)[0]):,.0f}"
    lengths += f" and answers of {float(np.ravel(load.output_tokens)[0]):,.0f} tokens"
    served = (
        f"{said(rate)} requests a second" if rate is not None and math.isfinite(rate) else "as many as can be served"
    )
    pools = " + ".join(f"{each.units} x {each.system.id}" for each in answer.mix.shares)
    lines = [f"{pools}: {WAYS[answer.question.mode]}", f"joined by {join_said(answer.join)}", f"{lengths}, {served}"]
    return Title(text=f"serve {answer.model.id} on a mixed system{hypothetical_said(answer.mix)}", lines=tuple(lines))


def hypothetical_said(mix: Mix) -> str:
    """A mark for what no source says exists."""
    return " (hypothetical)" if mix.hypothetical else ""


def join_said(join: Join) -> str:
    """A join in words: its rate is of one chip, one direction."""
    entry = join_entries().get(join.fabric)
    name = entry.name if entry is not None else "their own network"
    rate = float(np.max(join.bytes_per_s)) / 1e9
    where = f"one domain of {join.domain_chips} chips" if join.kind == "scale-up" else "between domains"
    links = " and ".join(dict.fromkeys(join.links))
    assumed = "; no source says that it joins such chips" if join.hypothetical else ""
    return f"{name} ({links}), {where}: {said(rate)} GB/s a chip, one way{assumed}"


def _roles(answer: MixedServingAnswer, option: Deployment) -> Grid:
    rows = []
    for role, found in zip(option.roles, answer.roles, strict=True):
        rows.append(
            (
                role.name,
                role.system_id,
                f"{role.replicas * role.chips:,} of {found.share.chips:,}",
                f"{role.precision}, {found.served.setting.formats.kv} KV",
                f"{role.replicas} x {role.plan.describe() or 'one rank'}",
                said(found.sustainable_rate),
                said(role.running * role.replicas),
            )
        )
    return Grid(
        title="who does what",
        columns=("role", "system", "chips", "formats", "replicas", "requests/s at most", "under way"),
        rows=tuple(rows), right=frozenset({2, 5, 6}),
    )  # fmt: skip


def _felt(answer: MixedServingAnswer, option: Deployment) -> Pairs:
    ttft, tpot = mixed_ranges(answer, option)
    later = max(float(np.ravel(answer.load.output_tokens)[0]) - 1.0, 0.0)
    rows = [
        ("TTFT", f"{_ms(option.ttft_s)}", _between(ttft)),
        ("TPOT", f"{_ms(option.tpot_s)}", _between(tpot)),
        *((("p99 of TTFT, of TPOT", ", ".join(_ms(each) for each in _p99(answer, option)), ""),)),
        ("end to end", f"{said(option.ttft_s + option.tpot_s * later)} s", ""),
        ("requests per second", said(option.request_rate), f"{said(answer.sustainable_rate)} can be served"),
        ("output tokens per second", said(option.output_tokens_per_s), ""),
        (
            "output tokens per second and chip",
            said(option.tokens_per_s_per_chip),
            f"of {option.chips:,} chips that serve",
        ),
        ("power", f"{said(option.power_w / 1e3)} kW", ""),
        ("energy per output token", f"{said(option.energy_j_per_token)} J", "before PUE"),
    ]
    if math.isnan(option.usd_per_s):
        missing = ", ".join(each.system.id for each in answer.mix.shares if _price(answer, each.system.id) is None)
        rows.append(("cost", f"no public price of {missing}", "give yours with --price SYSTEM=USD"))
    else:
        rows.append(("USD per hour, of all units", said(option.usd_per_s * 3600), ""))
        rows.append(("USD per million output tokens", said(option.usd_per_mtoken), ""))
    return Pairs(title="steady state: mean (90 % range)", rows=tuple(rows))


def _price(answer: MixedServingAnswer, system_id: str) -> float | None:
    own = answer.question.prices_usd_per_chip_s.get(system_id)
    found = serving_prices(system_id, own).first()[1]
    return None if math.isnan(found) else found


def _between(found: Range | None) -> str:
    return "" if found is None else f"({_ms(found.low)} to {_ms(found.high)})"


def _ms(value: float) -> str:
    return f"{said(value * 1e3)} ms" if math.isfinite(value) else "endless"


def mixed_ranges(answer: MixedServingAnswer, option: Deployment) -> tuple[Range | None, Range | None]:
    """Ranges of TTFT and TPOT, None where the roles share iterations: prompts and decoding are each one role's."""
    roles = [each.ranges for each in answer.roles]
    if option.mode == DISAGGREGATED and roles[0] is not None and roles[1] is not None:
        first = roles[0].ttft_s
        moved = Range(low=first.low + option.transfer_s, expected=option.ttft_s, high=first.high + option.transfer_s)
        return moved, roles[1].tpot_s
    if option.mode == ROUTED and roles[0] is not None and roles[1] is not None:
        # of all requests: between the better and the worse kind at their ends
        both = [(getattr(roles[0], name), getattr(roles[1], name)) for name in ("ttft_s", "tpot_s")]
        means = (option.ttft_s, option.tpot_s)
        found = [
            Range(low=min(a.low, b.low), expected=mean, high=max(a.high, b.high))
            for (a, b), mean in zip(both, means, strict=True)
        ]
        return found[0], found[1]
    return None, None


def _p99(answer: MixedServingAnswer, option: Deployment) -> tuple[float, float]:
    states = [each.state for each in answer.roles]
    if option.mode == DISAGGREGATED:
        return float(states[0].ttft_at(0.99)[0]) + option.transfer_s, float(states[1].tpot_at(0.99)[0])
    return max(float(e.ttft_at(0.99)[0]) for e in states), max(float(e.tpot_at(0.99)[0]) for e in states)


def _objectives(option: Deployment) -> list[Block]:
    if not option.objectives:
        return []
    verdict = "all kept" if option.meets else "not all kept"
    lines = tuple(f"{name}: {_ms(value)}" for name, value in option.objectives)
    return [Lines(title=f"objectives, in closed form: {verdict}", lines=lines)]


def _handed_over(answer: MixedServingAnswer, option: Deployment) -> Lines:
    wire = answer.wire
    if wire is None:
        return Lines(title="", lines=())
    size = float(np.ravel(wire.wire_bytes)[0])
    links = min(role.chips for role in option.roles)
    own = float(np.ravel(engine_hand_over_s([each.served.setting for each in answer.roles]))[0])
    lines = [
        f"{said(size / 1e6)} MB of keys and values a prompt, in {wire.formats[1]}, over {links} pairs of chips: "
        f"{_ms(option.transfer_s - own)}",
        f"router, handshake and polling of the engine: {_ms(own)}",
    ]
    if wire.packs:
        lines.append(f"the prefill side converts {wire.formats[0]} to {wire.formats[1]} before it sends")
    if wire.unpacks:
        lines.append(f"the decode side converts {wire.formats[1]} to {wire.formats[2]} when it has arrived")
    return Lines(title="from prefill to decode", lines=tuple(lines))


def _shared(found: SharedIteration, option: Deployment) -> Grid:
    first, second = (f"{role.name} on {role.system_id}" for role in option.roles)
    how = "two half batches alternate" if found.alternates else "one side after the other"
    title = f"an iteration that decodes {said(found.sequences)} sequences: {_ms(found.seconds)}, {how}"
    rows = tuple(
        (name, *(_ms(each) for each in values))
        for name, values in (("all of them", found.whole_s), ("half of them", found.half_s))
    )
    return Grid(title=title, columns=("", first, second, "transfers"), rows=rows, right=frozenset({1, 2, 3}))


def _notes(answer: MixedServingAnswer) -> list[Block]:
    return [Lines(title="notes", lines=answer.notes)] if answer.notes else []


def mixed_explanation(answer: MixedServingAnswer) -> list[tuple[str, ServingExplanation]]:
    """For each role: its name, the trees of its iterations and memory, and every figure used."""
    option = answer.deployment
    if option is None:
        return []
    kinds = list(zip(option.roles, answer.roles, strict=True))
    if option.mode not in (DISAGGREGATED, ROUTED):
        kinds = kinds[:1]  # the other side's seconds are part of the first one's iterations
    return [
        (f"{role.name} on {role.system_id}", serving_explanation(answer.question.serving, _as_pure(answer, found, at)))
        for at, (role, found) in enumerate(kinds)
    ]


def _as_pure(answer: MixedServingAnswer, found: RoleAnswer, at: int) -> ServingAnswer:
    """One role as an answer about one system."""
    option = answer.deployment
    if option is None:
        raise ValueError("nothing runs")
    role, served = option.roles[at], found.served
    setting = served.setting
    return ServingAnswer(
        model=setting.model, system=found.share.system, setting=setting, num_parameters=parameter_count(answer.model),
        num_active_parameters=active_parameter_count(answer.model), plan=role.plan, replicas=role.replicas,
        chips=role.chips * role.replicas, load=served.load, limits=found.limits,
        memory=serving_memory(setting, role.plan, found.limits, served.load), rejected=None, plans=None,
        point=found.state, iterations=iterations(setting, role.plan, served.load, found.state), ranges=found.ranges,
        prices=serving_prices(found.share.system.id), simulated=None,
    )  # fmt: skip


def mixed_serving_json(answer: MixedServingAnswer) -> dict[str, Any]:
    """An answer about two pools as JSON objects."""
    question, option = answer.question, answer.deployment
    ttft, tpot = (None, None) if option is None else mixed_ranges(answer, option)
    return {
        "verb": "serve",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": question.serving.seed,
        "question": question_json(question.serving)
        | {
            "mode": question.mode,
            "pools": [
                {"role": role, "system": share.system.id, "units": share.units, "chips": share.chips,
                 "precision": precision, "kv_cache_dtype": kv}
                for role, share, precision, kv in zip(
                    ROLES[question.mode], question.pools, question.precisions, question.kv_cache_dtypes, strict=True
                )
            ],
            "fabrics": list(question.fabrics),
            "transfer_dtype": question.transfer_dtype,
        },
        "model": answer.model.id,
        "hypothetical": answer.mix.hypothetical,
        "join": join_json(answer.join),
        "feasible": option is not None,
        "rejected": None if answer.rejected is None else dataclasses.asdict(answer.rejected),
        "deployment": None if option is None else deployment_json(option) | {"transfer_s": option.transfer_s},
        "sustainable_requests_per_s": answer.sustainable_rate,
        "ranges": {"ttft_s": ttft and dataclasses.asdict(ttft), "tpot_s": tpot and dataclasses.asdict(tpot)},
        "p99": None if option is None else dict(zip(("ttft_s", "tpot_s"), _p99(answer, option), strict=True)),
        "hand_over": None
        if answer.wire is None
        else {"formats": list(answer.wire.formats), "bytes": float(np.ravel(answer.wire.wire_bytes)[0])},
        "shared_iteration": answer.shared
        and dataclasses.asdict(answer.shared) | {"alternates": answer.shared.alternates},
        "roles": [
            {"name": name, **reasons.as_dict()} for name, reasons in mixed_explanation(answer)
        ],
        "notes": list(answer.notes),
        "num_deployments": answer.num_deployments,
    }  # fmt: skip


def join_json(join: Join) -> dict[str, Any]:
    """A join, its rates per chip and one direction."""
    return {each.name: getattr(join, each.name) for each in dataclasses.fields(join)}
