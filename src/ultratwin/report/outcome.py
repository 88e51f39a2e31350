"""A scenario of a study, answered: the whole answer as JSON, and the figures that tables and queries are about."""

from __future__ import annotations

import numpy as np

from ultratwin.errors import UltratwinError
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.run import SECONDS_PER_DAY
from ultratwin.planning.sensitivity import sensitivity
from ultratwin.planning.studies.study import Outcome, Scenario
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion, answer_training
from ultratwin.report.explanation import explanation
from ultratwin.report.figures import used_figures
from ultratwin.report.json import dumped, training_json


def answered(scenario: Scenario) -> Outcome:
    """Answers a scenario; bad input is an outcome too, as one scenario must not end a study."""
    question = scenario.question
    try:
        answer = answer_training(question)
        result = _json(question, answer)
    except UltratwinError as error:
        # neither where nor hint: they are about options of another verb
        return Outcome(status="rejected", reason="; allowed: ".join(filter(None, (error.what, error.allowed))))
    if answer.run is None:
        reason = str(answer.rejected) if answer.rejected else "nothing can run"
        return Outcome(status="infeasible", reason=reason, figures=_figures(answer), result=result)
    return Outcome(status="done", figures=_figures(answer), result=result)


def _json(question: TrainingQuestion, answer: TrainingAnswer) -> str:
    """What `ultratwin train --json` prints."""
    formats = recipe(answer.precision)
    reasons = explanation(answer, formats, used_figures(answer, question, formats))
    tornado = sensitivity(answer, question) if answer.run is not None else None
    return dumped(training_json(question, answer, reasons, tornado))


def _figures(answer: TrainingAnswer) -> dict[str, float | int | str | None]:
    """Columns of the store: what the question left open, and expected values."""
    found: dict[str, float | int | str | None] = {
        "model": answer.model.id,
        "system": answer.system.id,
        "chips": answer.chips,
        "tokens": answer.tokens,
        "framework": answer.profile.id,
    }
    plan, run, memory = answer.plan, answer.run, answer.memory
    if plan is not None:
        found |= {
            "seq_length": int(plan.seq_length), "global_batch_size": int(plan.global_batch_size),
            "plan": plan.describe(),
        }  # fmt: skip
    if memory is not None:
        found["memory_bytes"] = float(np.ravel(memory.total_bytes)[0])
    if run is not None:
        offer = next(iter(run.cost_usd), None)  # the first public price, on demand where there is one; or the user's
        found |= {
            "step_s": run.step_s.expected,
            "days": run.duration_s.expected / SECONDS_PER_DAY,
            "mfu": run.mfu.expected,
            "offer": offer,
            "cost_usd": None if offer is None else run.cost_usd[offer].expected,
            "energy_j": run.energy_j.expected,
            "carbon_kg": run.carbon_kg.expected,
        }
    return found
