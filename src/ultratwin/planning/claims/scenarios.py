"""Answers of the twin that a claim's readings use: a training run, or a serving deployment, as the verbs give them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue.schema import Scenario
from ultratwin.errors import UltratwinError, required
from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.system import System
from ultratwin.planning.claims.sampling import MakeSampler, drawing, listing, replacing
from ultratwin.planning.sensitivity import UsedFact, chosen_offer, outcomes_of, plan_of, run_of
from ultratwin.planning.serving.answer import ServingAnswer, answer_serving
from ultratwin.planning.serving.deployment import Deployment
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.plan import PlanServingAnswer, PlanServingQuestion, answer_plan_serving
from ultratwin.planning.serving.question import Demand, ServingQuestion
from ultratwin.planning.serving.ranges import serving_samples
from ultratwin.planning.serving.slo import parse_slos
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion, answer_training


class NoNumberError(UltratwinError):
    """A reading that the twin has no number for: no price is public, or nothing can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training run of the fastest layout."""

    scenario: Scenario
    question: TrainingQuestion
    answer: TrainingAnswer

    def results(self, sampler_of: MakeSampler) -> dict[str, Number]:
        """What readings may use, [1 + sample]; USD only where a price is public."""
        answer = self.answer
        outcomes = outcomes_of(answer, self.question, sampler_of(f"{answer.profile.id}, {answer.system.pool.chip.id}"))
        plan = plan_of(answer)
        tokens = float(plan.global_batch_size) * float(plan.seq_length)
        whole = answer.tokens
        found: dict[str, Number] = {
            "tokens_per_s": tokens / outcomes.step_s,
            "tokens_per_s_per_chip": tokens / outcomes.step_s / answer.chips,
            "tokens_per_j": whole / outcomes.energy_j,
        }
        cost = outcomes.cost_usd.get(chosen_offer(run_of(answer), self.scenario.offer))
        return found if cost is None else found | {"tokens_per_usd": whole / cost}

    def describe(self) -> str:
        """The run in a few words."""
        plan = self.answer.plan
        layout = "" if plan is None else f", {plan.describe()}"
        return f"{self.answer.chips:,} chips of {_named(self.answer.system)}, {self.answer.precision}{layout}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A deployment that `plan serve` finds, as `serve` answers it."""

    scenario: Scenario
    question: ServingQuestion
    answer: ServingAnswer

    def results(self, sampler_of: MakeSampler) -> dict[str, Number]:
        """What readings may use, [1 + sample]; USD only where a price is public."""
        answer = self.answer
        refused = f"no deployment can serve: {answer.rejected}"
        plan, limits = required(answer.plan, refused), required(answer.limits, refused)
        served = Served(setting=answer.setting, load=answer.load, speculation=self.question.speculation)
        samples = serving_samples(
            self.question, served, answer.system, plan, limits, required(answer.point, refused),
            sampler_of(f"{answer.setting.engine.id}, {answer.system.pool.chip.id}"),
        )  # fmt: skip
        found: dict[str, Number] = {
            "tokens_per_s": samples.output_tokens_per_s,
            "tokens_per_s_per_chip": samples.output_tokens_per_s / answer.chips,
            "tpot_s": samples.tpot_s,
            "ttft_s": samples.ttft_s,
            "tokens_per_j": 1.0 / samples.energy_j_per_token,
            "kv_tokens_per_chip": float(np.ravel(limits.kv_tokens)[0]) / answer.chips,
        }
        cost = samples.cost_usd_per_mtoken.get(self.scenario.offer)
        return found if cost is None else found | {"tokens_per_usd": 1e6 / cost}

    def describe(self) -> str:
        """The deployment in a few words."""
        answer = self.answer
        layout = "" if answer.plan is None else answer.plan.describe()
        running = 0.0 if answer.point is None else float(np.ravel(answer.point.running)[0])
        formats = answer.setting.formats.name
        return f"{answer.chips} chips of {_named(answer.system)}, {formats}, {layout}, {running:.3g} requests under way"


Answered = Trained | ServedModel
UNITS: Final[Mapping[str, str]] = {
    "tokens_per_s": "tokens/s", "tokens_per_s_per_chip": "tokens/s per chip", "tokens_per_j": "tokens/J",
    "tokens_per_usd": "tokens/USD", "tpot_s": "s", "ttft_s": "s", "kv_tokens_per_chip": "tokens per chip",
}  # fmt: skip
"""Results of scenarios, and what they are in."""


class Answers:
    """Answers of scenarios, and their results, each computed once for all claims that use it."""

    def __init__(self, seed: int) -> None:
        self.drawing: MakeSampler = drawing(seed)
        self._answers: dict[Scenario, Answered | NoNumberError] = {}
        self._plans: dict[str, PlanServingAnswer] = {}
        self._drawn: dict[Scenario, dict[str, Number]] = {}
        self._stated: dict[Scenario, tuple[dict[str, Number], dict[str, UsedFact]]] = {}

    def answer(self, scenario: Scenario) -> Answered:
        """The answer of a scenario.

        Raises: NoNumberError if nothing can run; UltratwinError for bad input
        """
        if scenario not in self._answers:
            try:
                train = scenario.verb == "train"
                self._answers[scenario] = _trained(scenario) if train else _served(scenario, self._searched)
            except NoNumberError as error:
                self._answers[scenario] = error
        found = self._answers[scenario]
        if isinstance(found, NoNumberError):
            raise found
        return found

    def _searched(self, question: PlanServingQuestion) -> PlanServingAnswer:
        """The deployments of a question, which scenarios with other goals share."""
        key = repr(question)
        if key not in self._plans:
            self._plans[key] = answer_plan_serving(question)
        return self._plans[key]

    def drawn(self, scenario: Scenario) -> Mapping[str, Number]:
        """Results with every fact drawn from its range, [1 + sample]."""
        if scenario not in self._drawn:
            self._drawn[scenario] = self.answer(scenario).results(self.drawing)
        return self._drawn[scenario]

    def stated(self, scenario: Scenario) -> tuple[Mapping[str, Number], Mapping[str, UsedFact]]:
        """Results with every fact at its value; and the facts that they rest on, by name."""
        if scenario not in self._stated:
            used: dict[str, UsedFact] = {}
            self._stated[scenario] = (self.answer(scenario).results(listing(used)), used)
        return self._stated[scenario]

    def replaced(self, scenario: Scenario, values: Mapping[str, Array]) -> Mapping[str, Number]:
        """Results with some facts replaced, [1 + NUM_SAMPLES]."""
        results, used = self.stated(scenario)
        return self.answer(scenario).results(replacing(values)) if values.keys() & used.keys() else results


def _trained(scenario: Scenario) -> Trained:
    """The format with the most tokens per second counts."""
    best: Trained | None = None
    reason = ""
    for precision in scenario.precisions:
        question = TrainingQuestion(
            model=scenario.model, system=scenario.system, chips=scenario.chips, precision=precision,
            seq_length=scenario.seq_length, global_batch_size=scenario.global_batch_size,
        )  # fmt: skip
        found = Trained(scenario=scenario, question=question, answer=answer_training(question))
        if found.answer.run is None:
            reason = str(found.answer.rejected)
        elif best is None or _step_s(found) < _step_s(best):
            best = found
    if best is None:
        where = f"{scenario.chips:,} chips of {scenario.system}"
        raise NoNumberError(f"{scenario.model} does not train on {where}: {reason}")
    return best


def _named(system: System) -> str:
    return f"{system.id} (hypothetical)" if system.hypothetical else system.id


def _step_s(found: Trained) -> float:
    return run_of(found.answer).step_s.expected


def _served(scenario: Scenario, searched: Callable[[PlanServingQuestion], PlanServingAnswer]) -> ServedModel:
    asked = ServingQuestion(
        model=scenario.model, system=scenario.system,
        demand=Demand(prompt_tokens=scenario.isl, output_tokens=scenario.osl), slos=parse_slos(scenario.goodput),
        max_num_seqs=scenario.max_num_seqs,
    )  # fmt: skip
    plans = searched(
        PlanServingQuestion(
            serving=asked, systems=(scenario.system,), precisions=scenario.precisions, objective="chips",
            modes=("aggregated",), max_chips=scenario.chips, verify=False, workers=1,
        )
    )  # fmt: skip
    fits = [each for each in plans.front if each.meets]
    choose: Callable[[Deployment], float] = (
        (lambda each: each.tpot_s) if scenario.goal == "latency" else (lambda each: -each.tokens_per_s_per_chip)
    )
    if not fits:
        raise NoNumberError(f"nothing serves {scenario.model} on {scenario.chips} chips of {scenario.system} in time")
    chosen = min(fits, key=choose)
    (role,) = chosen.roles
    question = dataclasses.replace(
        asked, precision=chosen.precision, sizes=dataclasses.asdict(role.plan), max_num_seqs=role.max_num_seqs,
        max_num_batched_tokens=role.max_num_batched_tokens,
        demand=dataclasses.replace(asked.demand, concurrency=max(round(role.running), 1)), fidelity="analytic",
    )  # fmt: skip
    answer = answer_serving(question)
    if answer.point is None:
        raise NoNumberError(f"{scenario.model} is not served on {scenario.system}: {answer.rejected}")
    return ServedModel(scenario=scenario, question=question, answer=answer)
