"""Speed of mixed training plans on one core: plans per CPU second, and CPU seconds of whole searches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from ultratwin.hardware.mix import join_pools, parse_pools
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.mixed.training import profile_of
from ultratwin.planning.mixed.training_candidates import as_grid
from ultratwin.planning.mixed.training_search import MixedSetting, mixed_search, mixed_times
from ultratwin.planning.mixed.training_step import GROUPS, STAGES, MixedPlan
from ultratwin.workload.load import load_model

POOLS: Final = "trn3-gen2-ultraserver:36,p6e-gb200-ultraserver:8"
MODELS: Final = ("meta-llama/Llama-3.1-405B", "deepseek-ai/DeepSeek-V3")
PLANS: Final = 32_768
REPEATS: Final = 5


def random_side(random: np.random.Generator, most_stages: int) -> Plan:
    """Layouts that have little in common, [1, plan]."""
    tensor, data = 2 ** random.integers(0, 4, PLANS), 2 ** random.integers(3, 6, PLANS)
    plan = Plan(
        tensor_parallel_size=tensor, data_parallel_size=data, micro_batch_size=1, global_batch_size=64 * data,
        pipeline_parallel_size=random.integers(1, most_stages, PLANS), seq_length=8192,
        recompute=random.integers(0, 3, PLANS), sequence_parallel=(tensor > 1).astype(np.int64),
    )  # fmt: skip
    return as_grid(plan)


def least_cpu_s(call: Callable[[], object]) -> float:
    """The least CPU time of a few calls."""
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def main() -> list[tuple[str, str, str, str]]:
    """A row of the table for each model and way."""
    rows = []
    mix = join_pools(parse_pools(POOLS))
    for name in MODELS:
        model = load_model(name)
        sides = tuple(
            Setting(model=model, pool=pool, recipe=recipe("bf16"), profile=profile_of("", pool.chip))
            for pool in (share.system.pool for share in mix.shares)
        )
        setting = MixedSetting(sides=sides, ranks=tuple(share.chips for share in mix.shares), join=mix.join)
        random = np.random.default_rng(0)
        layers = random.integers(1, model.num_layers, (1, PLANS))
        plan = MixedPlan(
            sides=(random_side(random, 16), random_side(random, 8)), layers=(layers, model.num_layers - layers)
        )
        whole = dataclasses.replace(plan, layers=(model.num_layers, model.num_layers))
        for way, plans in ((STAGES, plan), (GROUPS, whole)):
            seconds = least_cpu_s(partial(mixed_times, setting, way, (0, 1), plans))
            what = f"mixed plans of {name.partition('/')[2]}, {way}"
            rows.append((what, f"{PLANS / seconds:,.0f} /s", "100,000 /s", ""))
        fixed = {"seq_length": 8192, "global_batch_size": 81 * 32}
        seconds = least_cpu_s(partial(mixed_search, setting, fixed))
        rows.append(("  the whole search", f"{seconds:.2f} CPU s", "", ""))
    return rows
