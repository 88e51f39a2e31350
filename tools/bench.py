"""Speed, beside a bound measured in the same run: `make bench`.

The bound of a search is one multiply-add per candidate over arrays of the search's own chunk size.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ultratwin.hardware.system import load_system
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.evaluate import Setting, evaluate
from ultratwin.planning.search import CHUNK, search
from ultratwin.validation.scoreboard import score_all
from ultratwin.workload.load import load_model

CLI = Path(sys.executable).with_name("ultratwin")


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Least wall time of a few calls, after one that warms caches."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def setting(system: str, framework: str) -> Setting:
    """Llama-3.1-405B on a system."""
    return Setting(
        model=load_model("meta-llama/Llama-3.1-405B"), pool=load_system(system).pool, recipe=recipe("bf16"),
        profile=load_profile(framework),
    )  # fmt: skip


def shell(*arguments: str) -> float:
    """Wall time of the command line."""
    return seconds(lambda: subprocess.run([CLI, *arguments], check=True, capture_output=True))


def main() -> None:
    """Prints the table."""
    case = setting("dgx-h100", "nemo")
    lane = np.random.default_rng(0).random(CHUNK)
    bound = seconds(lambda: lane * lane + lane, 50) / CHUNK
    plan = Plan(
        tensor_parallel_size=8, pipeline_parallel_size=16, data_parallel_size=32, global_batch_size=2048,
        seq_length=8192, sequence_parallel=1,
    )  # fmt: skip
    rows = [
        (
            "one plan evaluated, warm",
            f"{1e3 * seconds(lambda: evaluate(case, plan, 4096), 20):.2f} ms",
            "",
        )
    ]
    for system, framework, chips in (("dgx-h100", "nemo", 4096), ("trn3-gen2-ultraserver", "neuronx", 4608)):
        fixed = {"global_batch_size": 2304 if chips == 4608 else 2048, "seq_length": 8192}
        case = setting(system, framework)
        found = search(case, chips, fixed)
        each = seconds(lambda case=case, chips=chips, fixed=fixed: search(case, chips, fixed)) / found.num_candidates
        rows.append(
            (
                f"search, {found.num_candidates:,} layouts on {chips:,} chips of {system}",
                f"{1 / each:,.0f} layouts/s",
                f"{each / bound:,.0f} x a multiply-add",
            )
        )
        rows.append(("  so 100,000 layouts take", f"{1e5 * each:.2f} s", ""))
    layout = (
        "--tensor-parallel-size",
        "8",
        "--pipeline-parallel-size",
        "8",
        "--micro-batch-size",
        "1",
        "--global-batch-size",
        "512",
    )
    rows.append(("ultratwin --help", f"{shell('--help'):.2f} s", ""))
    rows.append(
        (
            "ultratwin train, layout given",
            f"{shell('train', 'meta-llama/Llama-3.1-70B', '--system', 'p5.48xlarge', '--chips', '512', *layout):.2f} s",
            "",
        )
    )
    rows.append(("the scoreboard, all rows", f"{seconds(lambda: list(score_all()), 1):.1f} s", ""))
    for what, value, ratio in rows:
        print(f"{what:70s} {value:>18s}  {ratio}")


if __name__ == "__main__":
    main()
