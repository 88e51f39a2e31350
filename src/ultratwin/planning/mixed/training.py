"""The question that `train --pools` asks: a model on pools of several kinds of chips, divided in the best way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import FALLBACK_FORMATS, Chip
from ultratwin.hardware.mix import Mix, PoolShare, join_pools, parse_pools
from ultratwin.mapping.plan import Rejected
from ultratwin.mapping.profile import Profile, load_profile
from ultratwin.mapping.recipe import Recipe, recipe
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.mixed.training_budget import PureSystem, pure_systems
from ultratwin.planning.mixed.training_crossover import Crossover, crossovers
from ultratwin.planning.mixed.training_goodput import Goodput, mixed_goodput
from ultratwin.planning.mixed.training_run import MixedRun, Site, mixed_run
from ultratwin.planning.mixed.training_search import (
    PURE,
    MixedCandidate,
    MixedFound,
    MixedSetting,
    mixed_search,
    side_chips,
)
from ultratwin.planning.training import (
    DEFAULT_PROFILES,
    TrainingQuestion,
    checked_chips,
    fixed_axes,
)
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model
from ultratwin.workload.parameters import active_parameter_count, parameter_count

MOST_KINDS: Final = 2
_LARGEST_ODD: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedQuestion:
    """What is asked. `training`: model, tokens, batch, fixed axes and site, as for one system, whose name is not read.

    pools: "trn3-gen2-ultraserver:36,p6e-gb200-ultraserver:8", or shares; fabric: what joins them, the fastest if empty
    layers: of the stages on each pool, in their order; searched if empty
    prices_usd_per_chip_s: the user's own, by system
    """

    training: TrainingQuestion
    pools: str | tuple[PoolShare, ...]
    fabric: str = ""
    layers: tuple[int, ...] = ()
    prices_usd_per_chip_s: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedAnswer:
    """The answer: the best layout over all ways to divide the job, its run, and what it is measured against.

    best: None where nothing can run, and `rejected` says why; mixed: the best that uses every pool
    formats: what each kind can't compute, and what it does instead; budgets: one kind alone for as much money or power
    crossovers: prices at which the mix costs as much as each kind alone
    """

    model: Model
    mix: Mix
    setting: MixedSetting
    precision: str
    tokens: float
    num_parameters: int
    num_active_parameters: int
    site: Site
    found: MixedFound
    best: MixedCandidate | None
    mixed: MixedCandidate | None
    run: MixedRun | None
    goodput: Goodput | None
    budgets: tuple[PureSystem, ...]
    crossovers: tuple[Crossover, ...]
    formats: tuple[str, ...]
    rejected: Rejected | None

    def rate_usd_per_s(self, candidate: MixedCandidate) -> float:
        """USD per second of the chips that take part; NaN where a price is unknown."""
        chips = side_chips(self.setting, candidate.way, candidate.order, candidate.plan)
        rates = [self.site.rate_usd_per_chip_s(self.mix.shares[at].system)[0] for at in candidate.order]
        return float(sum(float(count) * rate for count, rate in zip(chips, rates, strict=True)))


def answer_mixed_training(question: MixedQuestion) -> MixedAnswer:
    """Answers a training question about pools of several kinds.

    Raises: ScenarioError, CatalogueError, ModelError for bad input; a job that can't run is a value in the answer
    """
    asked = question.training
    model = asked.model if isinstance(asked.model, Model) else load_model(asked.model)
    mix = merged(question)
    setting, formats = mixed_setting(model, mix, asked)
    fixed = _fixed(question, model, setting)
    found = mixed_search(setting, fixed, layers=_checked_layers(question, mix, model), objective=asked.objective)
    site = Site(
        region=asked.region, prices_usd_per_chip_s=question.prices_usd_per_chip_s,
        price_usd_per_chip_s=asked.price_usd_per_chip_s,
    )  # fmt: skip
    tokens = asked.tokens or 20.0 * parameter_count(model)
    empty = MixedAnswer(
        model=model, mix=mix, setting=setting, precision=asked.precision, tokens=tokens,
        num_parameters=parameter_count(model), num_active_parameters=active_parameter_count(model), site=site,
        found=found, best=None, mixed=None, run=None, goodput=None, budgets=(), crossovers=(), formats=formats,
        rejected=_no_plan(found, setting),
    )  # fmt: skip
    ranked = _ranked(empty, asked.objective)
    if not ranked:
        return empty
    best, mixed = ranked[0], next((each for each in ranked if each.way != PURE), None)
    run = mixed_run(setting, mix.shares, best, site, tokens=tokens, seed=asked.seed)
    several = len(mix.shares) > 1
    return dataclasses.replace(
        empty,
        best=best,
        mixed=mixed,
        run=run,
        goodput=mixed_goodput(setting, mix.shares, best, run, model),
        budgets=pure_systems(setting.sides, mix.shares, fixed, site, asked.objective) if several else (),
        crossovers=crossovers(setting, mix.shares, mixed, found.best[PURE], seed=asked.seed) if mixed else (),
        rejected=None,
    )


def _ranked(answer: MixedAnswer, objective: str) -> list[MixedCandidate]:
    """All candidates, by what shall be least, then time; by time where a price is unknown."""
    every = answer.found.all()
    rates = [answer.rate_usd_per_s(each) if objective == "cost" else 1.0 for each in every]
    known = all(map(math.isfinite, rates))

    def key(at: int) -> tuple[float, float]:
        each = every[at]
        goal = each.energy_j if objective in ("energy", "carbon") else each.step_s * (rates[at] if known else 1.0)
        return goal, each.step_s

    return [every[at] for at in sorted(range(len(every)), key=key)]


def merged(question: MixedQuestion) -> Mix:
    """The pools with those of one and the same machine as one, joined.

    Raises: ScenarioError for pools that nothing joins, or more kinds than are divided
    """
    shares = parse_pools(question.pools) if isinstance(question.pools, str) else question.pools
    if not shares:
        raise ScenarioError("no pools are given", where="--pools", allowed="SYSTEM[:UNITS],SYSTEM[:UNITS]")
    if question.layers and len(question.layers) != len(shares):
        raise ScenarioError(
            f"{len(question.layers)} numbers of layers for {len(shares)} pools", where="--pool-layers",
            allowed="one number for each pool, in the order of --pools",
        )  # fmt: skip
    kept: list[PoolShare] = []
    for share in shares:
        if share.units < 1:
            raise ScenarioError(
                f"{share.units} units of {share.system.id}", where="--pools", allowed="a whole number above 0"
            )
        same = next((at for at, other in enumerate(kept) if other.system == share.system), None)
        if same is None:
            kept.append(share)
        elif question.layers:
            raise ScenarioError(
                f"{share.system.id} is named twice", where="--pools", hint="divide layers between kinds of chips"
            )
        else:
            kept[same] = dataclasses.replace(share, units=kept[same].units + share.units)
    if len(kept) > MOST_KINDS:
        raise ScenarioError(
            f"{len(kept)} kinds of chips: {', '.join(each.system.id for each in kept)}", where="--pools",
            allowed=f"up to {MOST_KINDS}", hint="ask about each pair of them",
        )  # fmt: skip
    for each in kept:
        checked_chips(each.system, each.chips)
    return join_pools(kept, question.fabric)


def mixed_setting(model: Model, mix: Mix, asked: TrainingQuestion) -> tuple[MixedSetting, tuple[str, ...]]:
    """Each kind with its framework and the formats that its chip can compute; and what it can't, in words."""
    wanted, sides, notes = recipe(asked.precision), [], []
    for share in mix.shares:
        pool = share.system.pool
        formats, note = recipe_on(wanted, pool.chip)
        if note:
            notes.append(note)
        sides.append(Setting(model=model, pool=pool, recipe=formats, profile=profile_of(asked.framework, pool.chip)))
    ranks = tuple(share.chips * share.system.pool.ranks_per_chip for share in mix.shares)
    return MixedSetting(sides=tuple(sides), ranks=ranks, join=mix.join), tuple(notes)


def profile_of(framework: str, chip: Chip) -> Profile:
    """The framework that was asked for, or the usual one of the chip's family."""
    return load_profile(framework or DEFAULT_PROFILES.get(chip.family, "generic"))


def computes_in(chip: Chip, dtype: str) -> str:
    """The format in which a chip multiplies what is in a format, as `Chip.matmul_flop_per_s` chooses it.

    Example:
        >>> from ultratwin.hardware.chip import load_chip
        >>> computes_in(load_chip("h100-sxm"), "mxfp8"), computes_in(load_chip("a100-80-sxm"), "fp8")
        ('fp8', 'bf16')
    """
    able = (dtype, *FALLBACK_FORMATS.get(dtype, ()))
    return next((each for each in able if each in chip.peak_flop_per_s), "bf16")


def recipe_on(wanted: Recipe, chip: Chip) -> tuple[Recipe, str]:
    """The formats that a chip trains in where a recipe is asked for, and in words what it can't compute.

    A chip without a rate for a format multiplies in the next one that it has; where that is the format that the rest
    stays in anyway, nothing is cast.
    """
    missing = [each for each in dict.fromkeys((wanted.gemm, wanted.weight_gemm)) if each not in chip.peak_flop_per_s]
    if not missing:
        return wanted, ""
    falls = {each: computes_in(chip, each) for each in missing}
    said = ", ".join(f"{name} products run in {other}" for name, other in falls.items())
    if falls.get(wanted.gemm) == wanted.high and wanted.is_low:
        return recipe(wanted.high), f"{chip.name} computes no {wanted.gemm}: it trains in {wanted.high}"
    return wanted, f"{chip.name} computes no {' or '.join(missing)}: {said}"


def _fixed(question: MixedQuestion, model: Model, setting: MixedSetting) -> dict[str, int]:
    """The axes that are fixed; the batch, if none is given, may be divided by the ranks of every kind."""
    if "data_parallel_size" in question.training.layout:
        raise ScenarioError(
            "data_parallel_size is given for pools of several kinds", where="--data-parallel-size",
            allowed="tensor, context, expert and pipeline sizes, which hold on every pool",
            hint="leave it out: it follows from each pool's chips",
        )  # fmt: skip
    odd = math.lcm(*(ranks // (ranks & -ranks) for ranks in setting.ranks))
    if odd > _LARGEST_ODD:
        odd = max(ranks // (ranks & -ranks) for ranks in setting.ranks)
    return fixed_axes(question.training, model, odd)


def _checked_layers(question: MixedQuestion, mix: Mix, model: Model) -> tuple[int, ...]:
    """The layers of each pool, if given.

    Raises: ScenarioError if a pool gets none, or they are not the model's
    """
    if not question.layers:
        return ()
    for share, layers in zip(mix.shares, question.layers, strict=True):
        if layers < 1:
            raise ScenarioError(
                f"{share.system.id} gets {layers} layers", where="--pool-layers", allowed="1 or more on every pool",
                hint=f"leave {share.system.id} out of --pools if it shall do nothing",
            )  # fmt: skip
    if sum(question.layers) != model.num_layers:
        raise ScenarioError(
            f"{' + '.join(map(str, question.layers))} layers are {sum(question.layers)}", where="--pool-layers",
            allowed=f"the {model.num_layers} of {model.id}",
        )  # fmt: skip
    return question.layers


def _no_plan(found: MixedFound, setting: MixedSetting) -> Rejected:
    """Why nothing can run, on one kind or on both."""
    reasons = [f"{way}: {reason}" for way, reason in found.why.items()]
    for side, pure in zip(setting.sides, found.pure, strict=True):
        reasons.append(f"{side.pool.chip.name} alone: {next(iter(pure.rejected), 'no sizes divide the chips')}")
    return Rejected(reason="; ".join(reasons))


__all__ = ["MixedAnswer", "MixedQuestion", "answer_mixed_training", "mixed_setting", "recipe_on"]
