"""Training on two kinds of chips: the same as one pool where the kinds are the same, never worse than one alone."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ultratwin import cli
from ultratwin.api.mixed_training import MixedTrainResult, train_on_mix
from ultratwin.api.training import train
from ultratwin.errors import ScenarioError, UltratwinError
from ultratwin.hardware.chip import load_chip
from ultratwin.hardware.mix import Join, PoolShare, join_pools, own_joins, parse_pools
from ultratwin.hardware.system import System, load_system, per_rank
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import SCHEDULES, StageTimes, schedule_index
from ultratwin.mapping.sharding import uniform_stages
from ultratwin.planning.evaluate import Setting, evaluate
from ultratwin.planning.mixed.training import mixed_setting, recipe_on
from ultratwin.planning.mixed.training_budget import pure_systems, round_counts
from ultratwin.planning.mixed.training_run import Site
from ultratwin.planning.mixed.training_search import (
    PURE,
    MixedCandidate,
    MixedFound,
    MixedSetting,
    mixed_search,
    mixed_times,
    together,
)
from ultratwin.planning.mixed.training_stages import STAGE_SCHEDULES, side_stages, staged_times
from ultratwin.planning.mixed.training_step import (
    GROUPS,
    STAGES,
    TENSOR,
    WAITING,
    MixedPlan,
    MixedTimes,
    as_one_pool,
    grouped_times,
    side_parts,
    tensor_times,
)
from ultratwin.planning.power.chip import step_energy_j
from ultratwin.planning.training import TrainingQuestion
from ultratwin.simulation.pipeline import TaskTimes, pipeline_timeline
from ultratwin.workload.load import load_model

MODELS = ("meta-llama/Llama-3.1-8B", "mistralai/Mixtral-8x7B-v0.1", "deepseek-ai/DeepSeek-V3", "openai/gpt3-175b")
SYSTEMS = ("trn2.48xlarge", "trn3-gen2-ultraserver", "dgx-h100", "gb200-nvl72", "tpu-v5p-pod", "mi300x-8")
MIXED = "trn3-gen2-ultraserver:1,p5en.48xlarge:8"
SMALL = {"seq_length": 4096, "global_batch_size": 288}


@st.composite
def machines(draw: st.DrawFn) -> System:
    """A system of the catalogue with other link speeds, latencies, domains and ranks on a chip."""
    system = load_system(draw(st.sampled_from(SYSTEMS)))
    pool, factor = system.pool, st.floats(0.2, 5.0)
    domain = dataclasses.replace(
        pool.domain, size=draw(st.sampled_from((pool.domain.size, 8, 64))),
        bytes_per_s=pool.domain.bytes_per_s * draw(factor), latency_s=pool.domain.latency_s * draw(factor),
    )  # fmt: skip
    fabric = dataclasses.replace(
        pool.fabric, bytes_per_s=pool.fabric.bytes_per_s * draw(factor), latency_s=pool.fabric.latency_s * draw(factor)
    )
    ranks = draw(st.sampled_from((1, 1, 2)))
    pool = dataclasses.replace(pool, domain=domain, fabric=fabric, ranks_per_chip=ranks)
    return dataclasses.replace(system, pools=(pool,))


@st.composite
def layouts(draw: st.DrawFn) -> Plan:
    """Any pipeline whose sizes are powers of two; not all of them can run, all are timed."""
    tensor, chunks = draw(st.sampled_from((1, 2, 8))), draw(st.sampled_from((1, 1, 2)))
    data, micro = draw(st.sampled_from((2, 4, 16))), draw(st.sampled_from((1, 4)))
    context = draw(st.sampled_from((1, 2)))
    name = "interleaved" if chunks > 1 else draw(st.sampled_from(("1f1b", "gpipe", "zb-1p")))
    return Plan(
        tensor_parallel_size=tensor,
        pipeline_parallel_size=draw(st.sampled_from((2, 3, 4, 8))),
        virtual_pipeline_size=chunks,
        context_parallel_size=context,
        expert_parallel_size=draw(st.sampled_from((1, min(8, tensor * context * data)))),
        data_parallel_size=data,
        zero_stage=draw(st.sampled_from((0, 1, 2, 3))),
        micro_batch_size=micro,
        global_batch_size=micro * data * draw(st.sampled_from((4, 8, 24))),
        seq_length=draw(st.sampled_from((2048, 8192))),
        sequence_parallel=int(tensor > 1),
        recompute=draw(st.sampled_from((0, 1, 2))),
        schedule=schedule_index(name),
    )


def setting_of(model: str, system: System, framework: str = "generic", precision: str = "bf16") -> Setting:
    return Setting(model=load_model(model), pool=system.pool, recipe=recipe(precision), profile=load_profile(framework))


def divided(plan: Plan, stages: int, layers: int, model_layers: int) -> MixedPlan:
    first, second = (
        dataclasses.replace(plan, pipeline_parallel_size=each)
        for each in (stages, int(plan.pipeline_parallel_size) - stages)
    )
    return MixedPlan(sides=(first, second), layers=(layers, model_layers - layers))


def equal_divisions(plan: Plan, stages: int, layers: int) -> list[int]:
    """Layers of the first so many stages with which the stages are those that one pool would have."""
    one, count = uniform_stages(layers, plan), int(plan.pipeline_parallel_size)
    found = []
    for held in range(1, layers):
        plans = divided(plan, stages, held, layers)
        begin, end = (side_stages(plans, at) for at in (0, 1))
        inner = [side.most for side, own in ((begin, stages), (end, count - stages)) if own > 1]
        most = [one.most] if count > 2 else []
        ends = begin.first == one.first and end.last == one.last
        if ends and inner[:1] == most and max(inner, default=0) <= one.most:
            found.append(held)
    return found


def first(value: Any) -> float:
    return float(np.ravel(value)[0])


def assert_equal(mixed: MixedTimes, setting: Setting, plan: Plan) -> None:
    """Sides that are alike give one pool's time and memory; each side's causes sum to the step.

    So does the energy of a side whose fullest stage is that of the pool: one pool counts every stage as its fullest.
    """
    one = evaluate(setting, plan, float(plan.num_ranks))
    assert first(mixed.total_s) == pytest.approx(first(one.times.total_s), rel=1e-9)
    for side in mixed.sides:
        assert sum(map(first, side_parts(side).values())) == pytest.approx(first(one.times.total_s), rel=1e-9)
        if first(side.num_layers) == first(one.times.num_layers):
            drawn, alone = (step_energy_j(each, setting.pool) for each in (as_one_pool(side), one.times))
            if WAITING not in side.once or first(side.once[WAITING]) == 0.0:
                assert first(drawn) == pytest.approx(first(alone), rel=1e-9)
    assert max(map(first, mixed.memory_bytes)) == pytest.approx(first(one.memory.total_bytes), rel=1e-9)


SETTINGS = (st.sampled_from(MODELS), machines(), st.sampled_from(("generic", "megatron", "neuronx")))


@settings(max_examples=25, deadline=None)
@given(*SETTINGS, layouts(), st.data())
def test_stages_on_two_pools_of_one_chip_are_one_pool(
    model: str, system: System, framework: str, plan: Plan, data: st.DataObject
) -> None:
    setting = setting_of(model, system, framework, data.draw(st.sampled_from(("bf16", "fp8"))))
    stages = data.draw(st.integers(1, int(plan.pipeline_parallel_size) - 1))
    equal = equal_divisions(plan, stages, setting.model.num_layers)
    assume(equal)
    mixed = divided(plan, stages, data.draw(st.sampled_from(equal)), setting.model.num_layers)
    # the two pools are in one domain exactly if the whole pipeline is
    joins = own_joins(system, 2)
    join = joins[0] if int(plan.num_ranks) <= per_rank(system.pool).domain.size else joins[-1]
    assert_equal(staged_times((setting, setting), join, mixed), setting, plan)


@settings(max_examples=25, deadline=None)
@given(*SETTINGS, layouts(), st.data())
def test_replicas_on_two_pools_of_one_chip_are_one_pool(
    model: str, system: System, framework: str, plan: Plan, data: st.DataObject
) -> None:
    setting = setting_of(model, system, framework)
    ours = data.draw(st.integers(1, int(plan.data_parallel_size) - 1))
    each = int(plan.global_batch_size) // int(plan.data_parallel_size)
    sides = tuple(
        dataclasses.replace(plan, data_parallel_size=own, global_batch_size=own * each)
        for own in (ours, int(plan.data_parallel_size) - ours)
    )
    layers = setting.model.num_layers
    mixed = grouped_times((setting, setting), own_joins(system, 2)[-1], MixedPlan(sides=sides, layers=(layers, layers)))
    assert_equal(mixed, setting, plan)


@settings(max_examples=20, deadline=None)
@given(*SETTINGS, layouts())
def test_matrices_on_two_pools_of_one_chip_in_one_domain_are_one_pool(
    model: str, system: System, framework: str, plan: Plan
) -> None:
    setting = setting_of(model, system, framework)
    assume(int(plan.tensor_parallel_size) > 1)
    assert_equal(tensor_times((setting, setting), own_joins(system, 2)[0], plan), setting, plan)


@pytest.mark.parametrize("pools", ["trn2-ultraserver:1,trn2-ultraserver:3", "p5en.48xlarge:8,p5en.48xlarge:8"])
def test_an_answer_about_two_pools_of_one_system_is_that_of_one(pools: str) -> None:
    shares = parse_pools(pools)
    chips = sum(each.chips for each in shares)
    alone = train("meta-llama/Llama-3.1-8B", shares[0].system, chips=chips, tokens=1e12)
    together = train_on_mix("meta-llama/Llama-3.1-8B", pools, tokens=1e12)
    assert together.run == alone.run
    assert together.best.plan.sides[0] == alone.plan


@functools.cache
def small_search(pools: str, model: str = "meta-llama/Llama-3.1-8B") -> tuple[MixedSetting, MixedFound]:
    mix = join_pools(parse_pools(pools))
    sides = tuple(setting_of(model, share.system) for share in mix.shares)
    setting = MixedSetting(sides=sides, ranks=tuple(share.chips for share in mix.shares), join=mix.join)
    return setting, mixed_search(setting, SMALL)


PAIRS = ("trn4-nvlink-fusion-72:1,vr-nvl72:1", MIXED)


@functools.cache
def answered() -> MixedTrainResult:
    prices = {"trn3-gen2-ultraserver": 2.0, "p5en.48xlarge": 5.0}
    return train_on_mix("meta-llama/Llama-3.1-8B", MIXED, tokens=1e12, prices_per_chip_hour=prices)


@pytest.mark.parametrize("pools", PAIRS)
def test_every_way_is_found_and_the_best_is_no_worse_than_one_kind(pools: str) -> None:
    _, found = small_search(pools)
    alone = [result.step_s[0] for result in found.pure]
    best = min(each.step_s for each in found.all())
    assert best <= min(alone)
    assert {each.way for each in found.all()} == {PURE, STAGES, GROUPS, TENSOR}
    # no division beats both kinds at full speed
    assert best >= 0.97 / sum(1 / each for each in alone)


@settings(max_examples=3, deadline=None)
@given(
    machines(),
    machines(),
    st.sampled_from(("openai-community/gpt2-xl", MODELS[0])),
    st.sampled_from(("time", "energy")),
    st.data(),
)
def test_the_best_is_never_worse_than_one_kind_alone(
    one: System, other: System, model: str, objective: str, data: st.DataObject
) -> None:
    sides = tuple(
        setting_of(model, dataclasses.replace(each, pools=(dataclasses.replace(each.pool, ranks_per_chip=1),)))
        for each in (one, other)
    )
    ranks = tuple(data.draw(st.sampled_from((8, 16, 24))) for _ in sides)
    join = dataclasses.replace(own_joins(one)[-1], bytes_per_s=data.draw(st.floats(1e8, 1e11)))
    found = mixed_search(MixedSetting(sides=sides, ranks=ranks, join=join), SMALL, objective=objective)
    assume(found.all())

    best = min(each.energy_j if objective == "energy" else each.step_s for each in found.all())
    for result, side, count in zip(found.pure, sides, ranks, strict=True):
        for each in result.best[:1]:
            assert best <= (each.energy_j * count if objective == "energy" else each.step_s) * (1 + 1e-12)
            assert side.pool.ranks_per_chip == 1


def retimed(setting: MixedSetting, best: MixedCandidate, plan: MixedPlan) -> float:
    times = mixed_times(setting, best.way, best.order, plan)
    fits = all(
        float(np.ravel(held)[0]) <= float(per_rank(side.pool).chip.memory_bytes)
        for held, side in zip(times.memory_bytes, setting.in_order(best.order), strict=True)
    )
    return float(np.ravel(times.total_s)[0]) if fits else np.inf


@pytest.mark.parametrize("pools", PAIRS)
def test_no_other_division_of_the_layers_or_of_the_batch_is_faster(pools: str) -> None:
    setting, found = small_search(pools)
    best = found.best[STAGES][0]
    assert retimed(setting, best, best.plan) == pytest.approx(best.step_s, rel=1e-9)
    layers = setting.sides[0].model.num_layers
    for held in range(1, layers):
        other = dataclasses.replace(best.plan, layers=(held, layers - held))
        assert retimed(setting, best, other) >= best.step_s * (1 - 1e-9), held
    best = found.best[GROUPS][0]
    first, second = best.plan.sides
    waves = [int(side.micro_batch_size) * int(side.data_parallel_size) for side in best.plan.sides]
    for count in range(1, best.batch // waves[0]):
        left = -(-(best.batch - count * waves[0]) // waves[1])
        sides = (
            dataclasses.replace(first, global_batch_size=count * waves[0]),
            dataclasses.replace(second, global_batch_size=left * waves[1]),
        )
        if any(int(side.virtual_pipeline_size) > 1 for side in sides):
            continue  # these take groups of micro-batches
        other = dataclasses.replace(best.plan, sides=sides)
        assert retimed(setting, best, other) >= best.step_s * (1 - 1e-9), count


@pytest.mark.parametrize("way", [STAGES, GROUPS, TENSOR])
def test_a_slower_join_is_never_faster_and_no_side_goes_uncounted(way: str) -> None:
    setting, found = small_search(MIXED)
    best = found.best[way][0]
    before, steps = 0.0, []
    for factor in (4.0, 1.0, 0.25, 0.01):
        join: Join = dataclasses.replace(setting.join, bytes_per_s=setting.join.bytes_per_s * factor)
        step = retimed(dataclasses.replace(setting, join=join), best, best.plan)
        assert step >= before
        before = step
        steps.append(step)
    assert steps[-1] > 1.01 * steps[1]  # something of it crosses the join
    times = mixed_times(setting, best.way, best.order, best.plan)
    for side in times.sides:
        assert min(float(np.min(each)) for each in side_parts(side).values()) >= -1e-12


def test_batches_of_plans_give_what_each_gives_alone() -> None:
    setting, found = small_search(MIXED)
    for way in (STAGES, GROUPS, TENSOR):
        for each in found.best[way]:
            assert retimed(setting, each, each.plan) == pytest.approx(each.step_s, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.floats(0.5, 2.0), st.sampled_from(("1f1b", "gpipe"))
)
def test_a_pipeline_of_two_speeds_takes_what_its_events_take(
    fast: int, slow: int, micro_batches: int, ratio: float, name: str
) -> None:
    """The closed form counts the mean stage for what fills the pipeline; the events know that each has its own."""
    seconds = np.array([1.0] * fast + [ratio] * slow)[:, None]
    schedule = SCHEDULES[schedule_index(name)]
    times = TaskTimes(forward_s=seconds / 3, backward_s=2 * seconds / 3, weight_s=seconds / 3)
    events = pipeline_timeline(schedule, times, micro_batches).step_s
    slowest, mean = float(seconds.max()), float(seconds.mean())
    timing = StageTimes(slowest_s=slowest, mean_s=mean, forward_s=mean / 3, weight_s=mean / 3)
    closed = micro_batches * slowest + schedule.bubble_time_s(timing, fast + slow, micro_batches, 1)
    assert micro_batches * slowest <= events + 1e-9
    # slower than the events by no more than what fills and drains the pipeline, and equal where the speeds are
    assert events <= closed + 1e-9
    assert closed - events <= (fast + slow - 1) * mean * min(abs(ratio - 1.0) * 4, 1.0) + 1e-9


def test_kinds_that_share_a_domain_have_their_part_of_it_and_no_more() -> None:
    setting, found = small_search(PAIRS[0])
    assert [side.pool.domain.size for side in setting.sides] == [72, 72]
    assert [side.pool.domain.size for side in together(setting)] == [36, 36]
    for each in (*found.best[STAGES], *found.best[GROUPS]):
        assert max(int(side.tensor_parallel_size) for side in each.plan.sides) <= 36
    assert together(small_search(MIXED)[0]) == small_search(MIXED)[0].sides


def test_schedules_that_put_both_ends_on_one_rank_are_left_out() -> None:
    assert STAGE_SCHEDULES == ("gpipe", "1f1b", "interleaved", "zb-1p", "zb-2p")


def test_matrices_over_a_network_are_wrong_and_the_reason_is_shown() -> None:
    result = answered()
    steps = {way: each[0].step_s for way, each in result.ways.items() if each}
    assert steps[TENSOR] > 1.5 * max(steps[STAGES], steps[GROUPS])
    text = " ".join(result.table(width=220).split())
    assert "its sums go over efa" in text
    assert "its matrices wait for AWS Trainium3" in text


def test_the_cheapest_is_not_the_fastest_where_one_kind_is_dear() -> None:
    prices = {"trn3-gen2-ultraserver": 1.0, "p5en.48xlarge": 50.0}
    cheap = train_on_mix(
        "meta-llama/Llama-3.1-8B", MIXED, tokens=1e12, prices_per_chip_hour=prices, objective="cost"
    )  # fmt: skip
    assert (cheap.best.way, cheap.best.order) == (PURE, (0,))
    step_usd = {each: cheap.answer.rate_usd_per_s(each) * each.step_s for each in cheap.answer.found.all()}
    assert step_usd[cheap.best] == min(step_usd.values())
    assert cheap.best.step_s > min(each.step_s for each in step_usd)


def test_figures_without_ranges_give_a_crossover_without_one() -> None:
    result = train_on_mix("meta-llama/Llama-3.1-8B", "trn2-ultraserver:1,p5en.48xlarge:8", layers=[12, 20], tokens=1e11)
    for each in result.answer.crossovers:
        assert each.speedup.low <= each.speedup.expected <= each.speedup.high


def test_at_the_crossover_mix_and_one_kind_cost_the_same() -> None:
    result = answered()
    assert result.mixed is not None
    assert [each.alone for each in result.answer.crossovers] == [0, 1]
    for each in result.answer.crossovers:
        assert each.speedup.low <= each.speedup.expected <= each.speedup.high
        alone, other = (result.answer.mix.shares[at].system.id for at in (each.alone, each.other))
        site = Site(prices_usd_per_chip_s={alone: 1.0, other: each.price_ratio.expected})
        priced = dataclasses.replace(result.answer, site=site)
        (pure,) = (one for one in result.ways[PURE] if one.order == (each.alone,))
        costs = [priced.rate_usd_per_s(one) * one.step_s for one in (result.mixed, pure)]
        assert costs[0] == pytest.approx(costs[1], rel=1e-9)


def test_layers_can_be_given_and_stages_are_then_what_is_divided() -> None:
    result = train_on_mix("meta-llama/Llama-3.1-8B", MIXED, layers=[20, 12], tokens=1e11)
    assert result.mixed is not None
    assert result.mixed.way == STAGES
    held = dict(zip(result.mixed.order, result.mixed.plan.layers, strict=True))
    assert held == {0: 20, 1: 12}


def test_a_chip_that_lacks_a_format_trains_in_what_it_has_and_says_so() -> None:
    assert recipe_on(recipe("fp8"), load_chip("h100-sxm")) == (recipe("fp8"), "")
    formats, said = recipe_on(recipe("fp8"), load_chip("a100-80-sxm"))
    assert formats == recipe("bf16")
    assert "computes no fp8" in said
    formats, said = recipe_on(recipe("mxfp4"), load_chip("trainium2"))
    assert formats.name == "mxfp4"
    assert "mxfp4 products run in fp8" in said
    mix = join_pools(parse_pools("trn2.48xlarge:2,p4de.24xlarge:2"))
    asked = TrainingQuestion(model="gpt2", system="", precision="fp8")
    setting, notes = mixed_setting(load_model("gpt2"), mix, asked)
    assert [side.recipe.name for side in setting.sides] == ["fp8", "bf16"]
    assert [each.partition(": ")[2] for each in notes] == ["it trains in bf16"]


def test_the_run_has_ranges_money_energy_and_goodput() -> None:
    result = answered()
    run = result.run
    chips = sum(result.answer.run.chips) if result.answer.run else 0
    assert run.step_s.low < run.step_s.expected < run.step_s.high
    assert run.chip_hours.expected == pytest.approx(chips * run.duration_s.expected / 3600)
    assert result.best.way != PURE
    dollars = (144 * 2.0 + 64 * 5.0) * run.duration_s.expected / 3600
    assert result.cost_usd["your price"].expected == pytest.approx(dollars)
    assert run.step_s.expected == pytest.approx(result.best.step_s, rel=1e-9)
    assert run.power_w.expected * run.step_s.expected == pytest.approx(result.best.energy_j, rel=1e-9)
    assert result.goodput is not None
    assert 0.5 < result.goodput.ettr < 1.0
    assert result.goodput.duration_s > run.duration_s.expected


def test_one_kind_alone_gets_no_more_than_the_budget() -> None:
    setting, _ = small_search(MIXED)
    shares = parse_pools(MIXED)
    site = Site(prices_usd_per_chip_s={"trn3-gen2-ultraserver": 2.0, "p5en.48xlarge": 5.0})
    for each in pure_systems(setting.sides, shares, SMALL, site, "time"):
        own = site.prices_usd_per_chip_s[each.system.id]
        assert each.used_units <= each.units
        if "money" in each.budget:
            assert each.units * each.system.unit_chips * own <= 144 * 2.0 + 64 * 5.0
        if each.budget == "as many units":
            assert each.units == 9
    assert round_counts(1) == [1]
    unknown = pure_systems(setting.sides, shares, SMALL, Site(), "time")
    assert [each.why for each in unknown if "money" in each.budget] == ["a price is unknown (--price)"] * 2


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("trn2:0,p5:1", {}, '"0" units of trn2'),
    ("trn2:1,nowhere:1", {}, 'unknown system "nowhere"'),
    ("trn2:1,", {}, "leaves a pool empty"),
    ("trn3:1,vr-nvl72:1", {}, "no fabric joins trn3-gen2-ultraserver and vr-nvl72"),
    ("trn3:1,p5en.48xlarge:1", {"fabric": "token-ring"}, 'unknown fabric "token-ring"'),
    ("trn2:1,p5:1,p6:1", {}, "3 kinds of chips"),
    (MIXED, {"layers": [32, 0]}, "p5en.48xlarge gets 0 layers"),
    (MIXED, {"layers": [30, 1]}, "30 + 1 layers are 31"),
    (MIXED, {"layers": [32]}, "1 numbers of layers for 2 pools"),
    ("trn2:1,trn2:1", {"layers": [16, 16]}, "is named twice"),
    (MIXED, {"data_parallel_size": 8, "tensor_parallel_size": 1, "pipeline_parallel_size": 2, "micro_batch_size": 1},
     "data_parallel_size is given for pools of several kinds"),
    (MIXED, {"precision": "fp3"}, 'unknown precision "fp3"'),
    (MIXED, {"prices_per_chip_hour": {"trn3": -1.0}}, "price_per_chip_hour is -1"),
]  # fmt: skip


@pytest.mark.parametrize(("pools", "options", "said"), BAD, ids=[said for _, _, said in BAD])
def test_bad_input_says_what_is_wrong(pools: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UltratwinError) as caught:
        train_on_mix("meta-llama/Llama-3.1-8B", pools, **options)
    assert said in str(caught.value)


def test_a_share_without_units_is_refused() -> None:
    with pytest.raises(ScenarioError, match="0 units of trn2-ultraserver"):
        train_on_mix("gpt2", [PoolShare(system=load_system("trn2-ultraserver"), units=0)])


def test_a_pipeline_of_one_stage_leaves_a_pool_without_layers() -> None:
    result = train_on_mix("meta-llama/Llama-3.1-8B", MIXED, pipeline_parallel_size=1, tokens=1e11)
    assert result.answer.found.why[STAGES] == "a pipeline of 1 stage leaves a pool without layers"
    assert "leaves a pool without layers" in " ".join(result.table(width=220).split())


def test_what_fits_nowhere_is_a_result_with_reasons() -> None:
    result = train_on_mix("deepseek-ai/DeepSeek-V3", "trn2.48xlarge:1,p5.48xlarge:1")
    assert not result.feasible
    assert "does not fit into memory" in str(result.rejected)
    with pytest.raises(ScenarioError, match="nothing can run"):
        _ = result.run


ASKED = ("train", "meta-llama/Llama-3.1-8B", "--pools", MIXED, "--tokens", "1T")


def test_the_command_line_prints_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*ASKED, "--json", "--price", "trn3=2,p5en.48xlarge=5"]) == 0
    text = capsys.readouterr().out
    assert text == answered().to_json() + "\n"
    found = json.loads(text)
    assert [each["units"] for each in found["pools"]] == [1, 8]
    assert found["join"]["fabric"] == "efa"
    assert found["best"]["step_time_s"] == min(each["step_time_s"] for each in found["ways"])
    assert {each["budget"] for each in found["against_one_kind"]} > {"the same power"}
    assert sum(found["result"]["step_parts_s"][0]["seconds"].values()) == pytest.approx(found["best"]["step_time_s"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([*ASKED, "--system", "trn2"], 2, "--system beside --pools"),
        ([*ASKED, "--until-done"], 2, "beside --pools"),
        (["train", "gpt2", "--fabric", "efa"], 2, "--pools is missing"),
        (["train", "gpt2"], 2, "--system is missing"),
        ([*ASKED, "--pool-layers", "20,x"], 2, "x"),
        (["train", "deepseek-ai/DeepSeek-V3", "--pools", "trn2:1,p5:1"], 1, ""),
    ],
)
def test_the_command_line_says_what_is_wrong(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == code
    assert said in capsys.readouterr().err


def test_the_table_says_what_each_kind_does_and_what_it_is_measured_against() -> None:
    result = answered()
    text = " ".join(result.table(width=220).split())
    assert "chips/trainium3/" in result.explain()
    for part in ("joined by efa", "ways to divide the job", "what each kind does", "the same power", "as many units"):
        assert part in text, part


def test_the_same_rack_on_another_network_stands_in() -> None:
    """A maker's NVL72 has no EFA; the one that AWS rents has the same chips, and is said to be meant."""
    mix = join_pools(parse_pools("trn3:1,gb200-nvl72:2"))
    assert [share.system.id for share in mix.shares] == ["trn3-gen2-ultraserver", "p6e-gb200-ultraserver"]
    assert mix.join.fabric == "efa"
    assert "gb200-nvl72 is taken as p6e-gb200-ultraserver" in mix.notes[0]
