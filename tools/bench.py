"""Speed, beside a bound measured in the same run and what was promised: `make bench`.

The bound of a search is one multiply-add per candidate over arrays of the search's own chunk size.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from ultratwin.hardware.system import load_system
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.evaluate import Setting, evaluate
from ultratwin.planning.search import CHUNK, search
from ultratwin.planning.training import DEFAULT_PROFILES, default_batch
from ultratwin.validation.scoreboard import score_all
from ultratwin.workload.load import load_model

CLI: Final = Path(sys.executable).with_name("ultratwin")
SEQ: Final = 8192
GIVEN: Final = (
    "--tensor-parallel-size", "8", "--pipeline-parallel-size", "8", "--micro-batch-size", "1",
    "--global-batch-size", "512",
)  # fmt: skip
Row = tuple[str, str, str, str]


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Least wall time of a few calls, after one that warms caches."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def shell(*arguments: str) -> float:
    """Wall time of the command line."""
    return seconds(lambda: subprocess.run([CLI, *arguments], check=True, capture_output=True))


def setting(system: str) -> Setting:
    """Llama-3.1-405B on a system, as the chip's family is usually trained."""
    pool = load_system(system).pool
    profile = load_profile(DEFAULT_PROFILES.get(pool.chip.family, "generic"))
    model = load_model("meta-llama/Llama-3.1-405B")
    return Setting(model=model, pool=pool, recipe=recipe("bf16"), profile=profile)


def one_plan() -> list[Row]:
    """Time of one plan's evaluation."""
    case = setting("dgx-h100")
    plan = Plan(
        tensor_parallel_size=8, pipeline_parallel_size=16, data_parallel_size=32, global_batch_size=2048,
        seq_length=SEQ, sequence_parallel=1,
    )  # fmt: skip
    return [("one plan evaluated, warm", f"{1e3 * seconds(lambda: evaluate(case, plan, 4096), 20):.2f} ms", "5 ms", "")]


def a_search(system: str, chips: int, bound_s: float) -> list[Row]:
    """Rate of a search, and what 100,000 layouts take."""
    case = setting(system)
    fixed = {"global_batch_size": default_batch(case.model, SEQ, chips), "seq_length": SEQ}
    count = search(case, chips, fixed).num_candidates
    each_s = seconds(lambda: search(case, chips, fixed)) / count
    what = f"search of {count:,} layouts, {chips:,} chips of {system}"
    return [
        (what, f"{1 / each_s:,.0f} /s", "50,000 /s", f"{each_s / bound_s:,.0f} multiply-adds each"),
        ("  100,000 layouts would take", f"{1e5 * each_s:.2f} s", "2 s", ""),
    ]


def main() -> int:
    """Prints the table."""
    lane = np.random.default_rng(0).random(CHUNK)
    bound_s = seconds(lambda: lane * lane + lane, 200) / CHUNK
    rows: list[Row] = [("multiply-add per candidate, NumPy (the bound)", f"{1e9 * bound_s:.2f} ns", "", "")]
    rows += one_plan()
    for system, chips in (("dgx-h100", 4096), ("trn3-gen2-ultraserver", 4608)):
        rows += a_search(system, chips, bound_s)
    given = ("train", "meta-llama/Llama-3.1-70B", "--system", "p5.48xlarge", "--chips", "512", *GIVEN)
    demo = ("train", "meta-llama/Llama-3.1-405B", "--system", "trn3-gen2-ultraserver", "--chips", "4608")
    rows += [
        ("ultratwin --help", f"{shell('--help'):.2f} s", "", ""),
        ("ultratwin train, layout given", f"{shell(*given):.2f} s", "1.5 s", ""),
        ("ultratwin train, the demo's search", f"{shell(*demo):.2f} s", "", ""),
        ("scoreboard, all rows", f"{seconds(lambda: score_all(), 1):.2f} s", "", ""),
    ]
    print(f"{'one core':66s} {'measured':>12s} {'promised':>10s}")
    for what, value, wanted, remark in rows:
        print(f"{what:66s} {value:>12s} {wanted:>10s}  {remark}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
