"""The training step: properties that any plan must have, and closed forms where they exist."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.hardware.chip import load_chip
from ultratwin.hardware.system import Pool, load_system, per_rank
from ultratwin.mapping.feasible import REASONS, shape_reasons
from ultratwin.mapping.plan import Plan, stack_plans
from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import RECIPES, recipe
from ultratwin.mapping.schedules import SCHEDULES, StageTimes, schedule_index
from ultratwin.planning.evaluate import Setting, evaluate, model_flop_per_step
from ultratwin.timing.step import exposed_time_s, step_times
from ultratwin.workload.load import load_model

MODELS = ("meta-llama/Llama-3.1-8B", "mistralai/Mixtral-8x7B-v0.1", "deepseek-ai/DeepSeek-V3", "openai/gpt3-175b")
SYSTEMS = ("trn2.48xlarge", "trn3-gen2-ultraserver", "dgx-h100", "gb200-nvl72", "dgx-a100", "tpu-v5p-pod", "mi300x-8")
POWERS = (1, 2, 4, 8)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan whose sizes are powers of two; not all can run, all must be timed."""
    tensor, pipeline = draw(st.sampled_from(POWERS)), draw(st.sampled_from(POWERS))
    chunks = draw(st.sampled_from((1, 2))) if pipeline > 1 else 1
    context, data = draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 4, 16)))
    micro = draw(st.sampled_from((1, 2, 4)))
    zero = draw(st.sampled_from((0, 1, 2, 3)))
    return Plan(
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        virtual_pipeline_size=chunks,
        context_parallel_size=context,
        expert_parallel_size=draw(st.sampled_from((1, min(8, tensor * context * data)))),
        data_parallel_size=data,
        zero_stage=zero,
        micro_batch_size=micro,
        global_batch_size=micro * data * 8,
        seq_length=draw(st.sampled_from((2048, 8192))),
        sequence_parallel=int(tensor > 1 and draw(st.booleans())),
        recompute=draw(st.sampled_from((0, 1, 2))),
        schedule=schedule_index("interleaved" if chunks > 1 else draw(st.sampled_from(("1f1b", "gpipe", "zb-1p")))),
    )


def setting_of(model: str, system: str, precision: str = "bf16", framework: str = "generic") -> Setting:
    return Setting(
        model=load_model(model),
        pool=load_system(system).pool,
        recipe=recipe(precision),
        profile=load_profile(framework),
    )


def total_s(setting: Setting, plan: Plan) -> float:
    times = step_times(setting.model, setting.pool, plan, setting.recipe, setting.profile)
    return float(np.ravel(times.total_s)[0])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(SYSTEMS), st.lists(plans(), min_size=2, max_size=5))
def test_many_plans_at_once_give_what_each_gives_alone(model: str, system: str, many: list[Plan]) -> None:
    setting = setting_of(model, system)
    together = evaluate(setting, stack_plans(many), 64)
    for at, plan in enumerate(many):
        alone = evaluate(setting, plan, 64)
        assert float(np.ravel(alone.times.total_s)[0]) == pytest.approx(float(together.times.total_s[at]), rel=1e-9)
        assert float(np.ravel(alone.memory.total_bytes)[0]) == pytest.approx(
            float(together.memory.total_bytes[at]), rel=1e-9
        )
        assert int(alone.codes[0]) == int(together.codes[at])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(SYSTEMS),
    st.sampled_from(("bf16", "fp8", "mxfp8", "nvfp4")),
    st.sampled_from(("generic", "nemo", "nanotron", "neuronx")),
    st.lists(plans(), min_size=20, max_size=20),
)
def test_no_step_beats_its_physical_bounds(
    model: str, system: str, precision: str, framework: str, many: list[Plan]
) -> None:
    setting = setting_of(model, system, precision, framework)
    plan = stack_plans(many)
    times = step_times(setting.model, setting.pool, plan, setting.recipe, setting.profile)
    chip = per_rank(setting.pool).chip
    peak = max(float(rate) for rate in chip.peak_flop_per_s.values())
    flop_bound = model_flop_per_step(setting.model, plan) / plan.num_ranks / peak
    assert np.all(times.total_s >= flop_bound * (1 - 1e-9))
    for name, part in times.parts.items():
        assert np.all(np.asarray(part) >= -1e-12), name
    assert np.allclose(sum(np.asarray(part) for part in times.parts.values()), times.total_s, rtol=1e-9)


def faster(pool: Pool, **factors: float) -> Pool:
    chip = dataclasses.replace(pool.chip, memory_bytes_per_s=pool.chip.memory_bytes_per_s * factors.get("memory", 1))
    domain = dataclasses.replace(pool.domain, bytes_per_s=pool.domain.bytes_per_s * factors.get("domain", 1))
    fabric = dataclasses.replace(pool.fabric, bytes_per_s=pool.fabric.bytes_per_s * factors.get("fabric", 1))
    return dataclasses.replace(pool, chip=chip, domain=domain, fabric=fabric)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(SYSTEMS), plans(), st.sampled_from(("memory", "domain", "fabric")))
def test_more_bandwidth_is_never_slower(model: str, system: str, plan: Plan, which: str) -> None:
    setting = setting_of(model, system)
    better = dataclasses.replace(setting, pool=faster(setting.pool, **{which: 1.5}))
    assert total_s(better, plan) <= total_s(setting, plan) * (1 + 1e-9)


def test_one_rank_has_nobody_to_talk_to() -> None:
    setting = setting_of("meta-llama/Llama-3.1-8B", "dgx-h100")
    times = step_times(setting.model, setting.pool, Plan(global_batch_size=4), setting.recipe, setting.profile)
    said = [
        name for name in times.parts if "communication" in name or name in ("pipeline hand-over", "pipeline bubble")
    ]
    assert len(said) == 6
    assert sum(float(np.ravel(times.parts[name])[0]) for name in (*said, "gradient synchronisation")) == 0.0


def test_recomputation_costs_time_and_saves_memory() -> None:
    setting = setting_of("meta-llama/Llama-3.1-8B", "dgx-h100")
    kept = Plan(tensor_parallel_size=8, sequence_parallel=1, global_batch_size=8, seq_length=8192)
    redone = dataclasses.replace(kept, recompute=2)
    one, two = evaluate(setting, kept, 8), evaluate(setting, redone, 8)
    assert float(two.times.total_s[0]) > 1.15 * float(one.times.total_s[0])
    assert float(np.ravel(two.memory.total_bytes)[0]) < float(np.ravel(one.memory.total_bytes)[0])


def test_bubbles_are_those_of_the_papers() -> None:
    # four stages, eight micro-batches, forward 1 s, input gradient 1 s, weight gradient 1 s
    stage = StageTimes(slowest_s=3.0, mean_s=3.0, forward_s=1.0, weight_s=1.0)
    bubbles = {each.name: float(each.bubble_time_s(stage, 4, 8, 2)) for each in SCHEDULES}
    assert bubbles == {
        "gpipe": 9.0, "1f1b": 9.0, "interleaved": 4.5, "zb-1p": 3.0, "zb-2p": 0.0, "zb-v": 0.0, "dualpipe": 2.0,
    }  # fmt: skip
    in_flight = {each.name: float(each.micro_batches_in_flight(0, 4, 8, 2)) for each in SCHEDULES}
    assert in_flight == {
        "gpipe": 8.0, "1f1b": 4.0, "interleaved": 5.5, "zb-1p": 4.0, "zb-2p": 7.0, "zb-v": 4.0, "dualpipe": 5.0,
    }  # fmt: skip
    on_last = {each.name: float(each.micro_batches_in_flight(3, 4, 8, 2)) for each in SCHEDULES}
    assert on_last == in_flight | {"1f1b": 1.0, "interleaved": 2.5}


def test_zero_bubble_needs_micro_batches_to_fill_the_bubble_with() -> None:
    stage = StageTimes(slowest_s=3.0, mean_s=3.0, forward_s=1.0, weight_s=1.0)
    for name in ("zb-1p", "zb-2p"):
        schedule = SCHEDULES[schedule_index(name)]
        assert float(schedule.bubble_time_s(stage, 4, 1, 1)) == 6.0, "one micro-batch: a stage waits for all others"


def test_flop_of_gpt3_agree_with_narayanan() -> None:
    # 96 B s L h^2 (1 + s/6h + V/16Lh) of arXiv 2104.04473, without its recomputation (3/4 of it), full attention
    model, plan = load_model("openai/gpt3-175b"), Plan(global_batch_size=1536, seq_length=2048)
    layers, hidden, seq, vocab = 96, 12288, 2048, model.vocab_size
    published = 72 * 1536 * seq * layers * hidden**2 * (1 + seq / (6 * hidden) + vocab / (12 * layers * hidden))
    assert float(model_flop_per_step(model, plan, causal=False)) == pytest.approx(published, rel=1e-3)


def test_exposed_communication_lies_between_its_bounds() -> None:
    assert float(exposed_time_s(2.0, 3.0, 1.0)) == 0.0
    assert float(exposed_time_s(2.0, 3.0, 0.0)) == 2.0
    assert float(exposed_time_s(5.0, 3.0, 1.0)) == 2.0


def test_reasons_name_what_does_not_divide() -> None:
    model = load_model("meta-llama/Llama-3.1-8B")  # 32 heads, 8 key/value heads, 32 layers
    wrong = {
        Plan(tensor_parallel_size=3, global_batch_size=8): "tensor parallelism doesn't divide the attention heads",
        Plan(pipeline_parallel_size=64, global_batch_size=8): "more pipeline stages and chunks than layers",
        Plan(global_batch_size=3, micro_batch_size=2): "the global batch is not a multiple",
        Plan(sequence_parallel=1): "sequence parallelism needs tensor parallelism",
        Plan(context_parallel_size=3, seq_length=4096): "context parallelism doesn't divide the sequence",
    }
    for plan, reason in wrong.items():
        assert REASONS[int(np.ravel(shape_reasons(model, plan, plan.num_ranks))[0])].startswith(reason), plan


def test_every_recipe_can_be_timed_on_every_chip() -> None:
    plan = Plan(tensor_parallel_size=4, sequence_parallel=1, global_batch_size=8)
    for system in SYSTEMS:
        for each in RECIPES:
            assert np.isfinite(total_s(setting_of("meta-llama/Llama-3.1-8B", system, each.name), plan)), (system, each)


def test_trainium3_runs_mxfp4_no_faster_than_mxfp8() -> None:
    chip = load_chip("trainium3")
    assert chip.matmul_flop_per_s("mxfp4") == pytest.approx(chip.matmul_flop_per_s("mxfp8"), rel=1e-3)


def test_dualpipe_holds_its_weights_twice() -> None:
    setting = setting_of("meta-llama/Llama-3.1-8B", "dgx-h100")
    plan = Plan(pipeline_parallel_size=4, global_batch_size=8)
    one = evaluate(setting, plan, 4).memory.stages[0]
    two = evaluate(setting, dataclasses.replace(plan, schedule=schedule_index("dualpipe")), 4).memory.stages[0]
    assert float(two["weights"][0]) == pytest.approx(2 * float(one["weights"][0]))
    assert float(two["optimizer state"][0]) == pytest.approx(float(one["optimizer state"][0]))
