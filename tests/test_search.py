"""The search finds what brute force finds, whatever it skips and however its arrays are cut."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.hardware.system import load_system
from ultratwin.mapping.feasible import REASONS
from ultratwin.mapping.plan import Plan, stack_plans
from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning import search as searching
from ultratwin.planning.evaluate import Setting, evaluate
from ultratwin.planning.front import pareto_front
from ultratwin.planning.search import ONE_MICRO_BATCH, search
from ultratwin.planning.shortlist import WITHIN_FRAC
from ultratwin.timing.step import step_times
from ultratwin.workload.load import load_model

PLAIN, INTERLEAVED = (SCHEDULE_NAMES.index(name) for name in ("1f1b", "interleaved"))


def setting_of(model: str, system: str, framework: str = "generic") -> Setting:
    return Setting(
        model=load_model(model),
        pool=load_system(system).pool,
        recipe=recipe("bf16"),
        profile=load_profile(framework),
    )


def all_plans(setting: Setting, ranks: int, batch: int, seq: int) -> list[Plan]:
    """Every plan that the search's options describe, written down without it."""
    layers, domain = setting.model.num_layers, setting.pool.domain.size * setting.pool.ranks_per_chip
    experts = max(getattr(layer.mlp, "num_experts", 1) for layer in setting.model.layer_kinds())
    found = []
    some = range(1, ranks + 1)
    for tensor, pipeline, context, expert in itertools.product(some, some, (1, 2, 4, 8, 16, 32), range(1, experts + 1)):
        if ranks % (tensor * pipeline * context) or tensor > domain or pipeline > layers:
            continue
        if experts % expert or ranks % expert:
            continue
        chunks = [1] + ([v for v in range(2, 17) if layers % v == 0] if pipeline > 1 else [])
        for chunk, split, micro, zero, again in itertools.product(
            chunks, (1, 2, 4, 8) if experts > 1 else (1,), (1, 2, 4, 8), range(4), range(3)
        ):
            if split > tensor:
                continue
            found.append(
                Plan(
                    tensor_parallel_size=tensor, pipeline_parallel_size=pipeline, virtual_pipeline_size=chunk,
                    context_parallel_size=context, expert_parallel_size=expert, expert_tensor_parallel_size=split,
                    data_parallel_size=ranks // (tensor * pipeline * context), zero_stage=zero,
                    micro_batch_size=micro, global_batch_size=batch, seq_length=seq,
                    sequence_parallel=int(tensor > 1), recompute=again,
                    schedule=INTERLEAVED if chunk > 1 else PLAIN,
                )
            )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("model", "system", "ranks", "batch"),
    [
        ("meta-llama/Llama-3.1-8B", "dgx-h100", 8, 16),
        ("meta-llama/Llama-3.1-8B", "trn2.48xlarge", 16, 16),
        ("meta-llama/Llama-3.1-70B", "p4d.24xlarge", 32, 32),
        ("mistralai/Mixtral-8x7B-v0.1", "dgx-h100", 8, 8),
    ],
)
@pytest.mark.parametrize("objective", ["time", "energy"])
def test_the_search_finds_what_brute_force_finds(
    model: str, system: str, ranks: int, batch: int, objective: str
) -> None:
    setting = setting_of(model, system)
    fixed = {"global_batch_size": batch, "seq_length": 4096}
    found = search(setting, ranks, fixed, objective=objective)
    plans = all_plans(setting, ranks, batch, 4096)
    result = evaluate(setting, stack_plans(plans), ranks, domain_size=setting.pool.domain.size)
    barred = (result.codes == 0) & (np.asarray(result.plan.zero_stage) == 2)
    barred &= np.asarray(result.plan.num_micro_batches) > 1
    runs = (result.codes == 0) & ~barred
    assert found.num_candidates == len(plans)
    assert found.num_feasible == int(runs.sum())
    step = np.where(runs, result.times.total_s, np.inf)
    if not runs.any():
        assert not found.best
        return
    energy = searching.step_energy_j(result.times, setting.pool)
    goal = step if objective == "time" else np.where(runs, energy, np.inf)
    best = found.best[0]
    assert (best.step_s if objective == "time" else best.energy_j) == pytest.approx(float(goal.min()), rel=1e-9)
    assert found.flatness.num_plans == int((goal <= goal.min() * (1 + WITHIN_FRAC) * (1 + 1e-12)).sum())
    values = np.stack([step, np.where(runs, energy, np.inf), result.memory.total_bytes])
    assert {tuple(np.round(np.log(values[:, at]), 9)) for at in pareto_front(values)} == {
        tuple(np.round(np.log([each.step_s, each.energy_j, each.memory_bytes]), 9)) for each in found.front
    }


def test_what_a_search_rejects_is_counted_under_the_reason_that_evaluate_gives() -> None:
    setting = setting_of("meta-llama/Llama-3.1-70B", "dgx-h100")
    found = search(setting, 16, {"global_batch_size": 32, "seq_length": 8192})
    plans = all_plans(setting, 16, 32, 8192)
    codes = evaluate(setting, stack_plans(plans), 16, domain_size=setting.pool.domain.size).codes
    for code, reason in enumerate(REASONS[:-1]):
        if code:
            assert found.rejected.get(reason, 0) == int((codes == code).sum()), reason
    assert found.num_candidates == found.num_feasible + sum(found.rejected.values())
    assert ONE_MICRO_BATCH in found.rejected


@pytest.mark.parametrize("chunk", [64, 1000, 10**6])
def test_how_arrays_are_cut_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = setting_of("meta-llama/Llama-3.1-8B", "trn2.48xlarge", "neuronx")
    whole = search(setting, 64, {"global_batch_size": 64, "seq_length": 8192}, keep=25)
    monkeypatch.setattr(searching, "CHUNK", chunk)
    cut = search(setting, 64, {"global_batch_size": 64, "seq_length": 8192}, keep=25)
    assert cut == whole


SIZES = st.sampled_from((1, 2, 4, 8))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(("meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-V2-Lite", "mistralai/Mixtral-8x7B-v0.1")),
    st.sampled_from(("dgx-h100", "trn2.48xlarge", "trn3-gen2-ultraserver", "tpu-v5p-pod")),
    st.lists(st.tuples(SIZES, SIZES, SIZES, SIZES, st.sampled_from((1, 2, 4))), min_size=2, max_size=6),
    st.integers(0, 10**6),
)
def test_a_grid_of_plans_gives_what_each_gives_alone(
    model: str, system: str, rows: list[tuple[int, ...]], seed: int
) -> None:
    setting = setting_of(model, system)
    tensor, pipeline, data, expert, micro = (np.array(each) for each in zip(*rows, strict=True))
    grid = Plan(
        tensor_parallel_size=tensor, pipeline_parallel_size=pipeline, data_parallel_size=data,
        expert_parallel_size=expert, micro_batch_size=micro, global_batch_size=64, seq_length=np.array([4096]),
        sequence_parallel=(tensor > 1).astype(int), zero_stage=np.arange(4)[:, None, None],
        recompute=np.arange(3)[:, None],
    )  # fmt: skip
    ranks = 64
    many = evaluate(setting, grid, ranks)
    at = int(np.random.default_rng(seed).integers(0, 12 * len(rows)))
    one = evaluate(setting, grid.at(at), ranks)
    for ours, alone in (
        (many.times.total_s, one.times.total_s),
        (many.memory.total_bytes, one.memory.total_bytes),
        (
            searching.step_energy_j(many.times, setting.pool),
            searching.step_energy_j(one.times, setting.pool),
        ),
    ):
        assert float(np.broadcast_to(ours, grid.shape).ravel()[at]) == pytest.approx(
            float(np.ravel(alone)[0]), rel=1e-9
        )
    assert int(np.broadcast_to(many.codes, grid.shape).ravel()[at]) == int(one.codes[0])
    for name, part in many.times.parts.items():
        alone_part = float(np.ravel(one.times.parts[name])[0])
        assert float(np.broadcast_to(part, grid.shape).ravel()[at]) == pytest.approx(alone_part, rel=1e-9, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.integers(0, 60), st.integers(1, 6), st.integers(0, 10**6))
def test_the_front_is_what_nothing_dominates(num_values: int, count: int, levels: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, levels, (num_values, count)).astype(float)
    values[values == levels - 1] = np.inf if levels > 2 else levels - 1
    front = pareto_front(values).tolist()
    finite = [at for at in range(count) if np.isfinite(values[:, at]).all()]
    for at in finite:
        beaten = any(
            (values[:, other] <= values[:, at]).all() and ((values[:, other] < values[:, at]).any() or other < at)
            for other in finite
            if other != at
        )
        assert (at in front) == (not beaten)
    assert len(set(front)) == len(front)


def test_no_stage_of_an_uneven_pipeline_goes_without_layers() -> None:
    setting = setting_of("deepseek-ai/DeepSeek-V3", "trn3-gen2-ultraserver")
    plan = Plan(pipeline_parallel_size=np.array([7, 16, 31, 48, 60]), global_batch_size=64)
    times = step_times(setting.model, setting.pool, plan, setting.recipe, setting.profile)
    assert all(np.all(np.asarray(part) >= 0) for part in times.parts.values())
    assert np.all(np.asarray(times.stages.first) >= 1)
    assert np.all(np.asarray(times.stages.last) >= 1)


def test_the_objective_decides_what_is_best() -> None:
    setting = setting_of("meta-llama/Llama-3.1-70B", "dgx-h100")
    fixed: dict[str, Any] = {"global_batch_size": 128, "seq_length": 8192}
    quick, frugal = (search(setting, 64, fixed, objective=each).best[0] for each in ("time", "energy"))
    assert quick.step_s <= frugal.step_s
    assert frugal.energy_j <= quick.energy_j
