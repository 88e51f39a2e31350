"""Answers as JSON: the same input gives the same bytes (design D11)."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.catalogue.assumptions import assumed_json
from ultratwin.catalogue.overrides import in_force
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.sensitivity import Tornado
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion
from ultratwin.planning.uncertainty import Range
from ultratwin.report.explanation import Explanation
from ultratwin.report.metrics import METRICS
from ultratwin.report.sensitivity import tornado_json


def dumped(value: Any) -> str:
    """One JSON text: keys in the order they were written, no infinities or NaN (they become null).

    An answer says what was assumed for it, where something was.
    """
    if in_force() and isinstance(value, dict):
        value = value | {"assumptions": assumed_json()}
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def training_json(
    question: TrainingQuestion, answer: TrainingAnswer, reasons: Explanation, tornado: Tornado | None = None
) -> dict[str, Any]:
    """A training answer as JSON objects: what was asked, with what, and everything that came out."""
    return {
        "verb": "train",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": question.seed,
        "question": _question(question),
        "model": {
            "id": answer.model.id,
            "num_parameters": answer.num_parameters,
            "num_active_parameters": answer.num_active_parameters,
            "notes": list(answer.model.notes),
        },
        "system": {"id": answer.system.id, "name": answer.system.name, "hypothetical": answer.system.hypothetical},
        "chips": answer.chips,
        "tokens": answer.tokens,
        "precision": answer.precision,
        "framework": answer.profile.id,
        "feasible": answer.run is not None,
        "rejected": None if answer.rejected is None else dataclasses.asdict(answer.rejected),
        "plan": None if answer.plan is None else plan_json(answer.plan),
        "result": _result(answer),
        "spread": [{"fact": name, "share_frac": share} for name, share in answer.run.spread] if answer.run else [],
        "step": reasons.step and reasons.step.as_dict(),
        "memory": None
        if reasons.memory is None
        else {"capacity_bytes": answer.memory_capacity_bytes, "rank": reasons.memory.as_dict()},
        "sensitivity": None if tornado is None else tornado_json(tornado),
        "search": _search(answer),
        "inputs": [each.as_dict() for each in reasons.inputs.values()],
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan with names for what it holds as indices, and the sizes that follow."""
    found: dict[str, Any] = {each.name: int(getattr(plan, each.name)) for each in dataclasses.fields(plan)}
    found["sequence_parallel"] = bool(found["sequence_parallel"])
    found["recompute"] = RECOMPUTE[found["recompute"]]
    found["schedule"] = SCHEDULE_NAMES[found["schedule"]]
    return found | {"num_ranks": int(plan.num_ranks), "num_micro_batches": int(plan.num_micro_batches)}


def _question(question: TrainingQuestion) -> dict[str, Any]:
    found = {each.name: getattr(question, each.name) for each in dataclasses.fields(question)}
    for key in ("model", "system"):  # a value that the user built himself is named, not spelled out
        found[key] = str(getattr(found[key], "id", found[key]))
    layout: dict[str, Any] = dict(sorted(question.layout.items()))
    if "recompute" in layout:
        layout["recompute"] = RECOMPUTE[layout["recompute"]]
    if "schedule" in layout:
        layout["schedule"] = SCHEDULE_NAMES[layout["schedule"]]
    return found | {"layout": layout}


def _result(answer: TrainingAnswer) -> dict[str, Any] | None:
    run = answer.run
    if run is None:
        return None
    found: dict[str, Any] = {metric.tag: dataclasses.asdict(metric.read(run)) for metric in METRICS}
    found["num_steps"] = run.num_steps
    found["cost_usd"] = {
        offer: dataclasses.asdict(cost) | {"note": run.cost_notes.get(offer, "")}
        for offer, cost in run.cost_usd.items()
    }
    return found


def _search(answer: TrainingAnswer) -> dict[str, Any] | None:
    found = answer.found
    if found is None:
        return None
    return {
        "num_candidates": found.num_candidates,
        "num_feasible": found.num_feasible,
        "rejected": found.rejected,
        "least_memory_bytes": found.least_memory_bytes,
        "runners_up": [
            {"plan": plan_json(plan), "step_time_s": step, "memory_bytes": held}
            for plan, step, held in zip(found.plans[1:], found.step_s[1:], found.memory_bytes[1:], strict=True)
        ],
    }


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case Range():
            return _plain(dataclasses.asdict(value))
        case np.generic() | np.ndarray():
            return _plain(value.tolist())
        case float():
            return value if math.isfinite(value) else None
    return value


__all__ = ["dumped", "plan_json", "training_json"]
