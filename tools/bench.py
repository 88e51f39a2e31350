"""Speed, beside a bound measured in the same run and what was promised: `make bench`.

The bound of a search is one multiply-add per candidate over arrays of the search's own chunk size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

import bench_calculon
import bench_mixed_training
import bench_serving
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


def setting(system: str, name: str = "meta-llama/Llama-3.1-405B") -> Setting:
    """A model on a system, as the chip's family is usually trained."""
    pool = load_system(system).pool
    profile = load_profile(DEFAULT_PROFILES.get(pool.chip.family, "generic"))
    model = load_model(name)
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
        (what, f"{1 / each_s:,.0f} /s", "500,000 /s", f"{each_s / bound_s:,.0f} multiply-adds each"),
        ("  100,000 layouts would take", f"{1e5 * each_s:.2f} s", "2 s", ""),
    ]


def ten_million() -> list[Row]:
    """A search of ten million layouts in a process of its own: rate, and the memory that it takes at its peak."""
    code = (
        "import json, resource, sys, time; sys.path.insert(0, 'tools'); import bench;"
        "from ultratwin.planning.search import search;"
        "case = bench.setting('trn3-ultracluster', 'deepseek-ai/DeepSeek-V3');"
        "fixed = {'global_batch_size': 2304, 'seq_length': 8192}; start = time.process_time();"
        "found = search(case, 147456, fixed, wanted={'micro_batch_size': range(1, 33), 'zero_stage': range(4)});"
        "print(found.num_candidates, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    count, took, peak_kib = (float(each) for each in done.stdout.split())
    return [
        (
            f"search of {count:,.0f} layouts, DeepSeek-V3 on trn3-ultracluster",
            f"{count / took:,.0f} /s",
            "500,000 /s",
            "",
        ),
        ("  memory of that process at its peak", f"{peak_kib / 1024:,.0f} MiB", "1 GB", ""),
    ]


EIGHT: Final = (
    "trn1.32xlarge", "trn2-ultraserver", "trn3-gen2-ultraserver", "p4de.24xlarge", "p5.48xlarge", "p5en.48xlarge",
    "p6-b200.48xlarge", "gb200-nvl72",
)  # fmt: skip


def full_plan() -> list[Row]:
    """`plan train` over eight systems and twenty sizes each, from the shell, all cores."""
    chips = ",".join(str(1152 * count) for count in range(1, 21))  # whole nodes and domains of all eight
    asked = ("plan", "train", "meta-llama/Llama-3.1-405B", "--tokens", "15.6T", "--chips", chips, "--json")
    start = time.perf_counter()
    done = subprocess.run([CLI, *asked, "--systems", ",".join(EIGHT)], check=True, capture_output=True, text=True)
    took = time.perf_counter() - start
    found = json.loads(done.stdout)
    count = found["search"]["num_candidates"]
    what = f"plan train, {len(EIGHT)} systems, {len(found['sizes'])} sizes, {count:,} layouts"
    return [(what, f"{took:.1f} s", "20 s", "all cores")]


def a_million() -> list[Row]:
    """A million chips, from the shell."""
    many = ("--system", "trn3-ultracluster", "--chips", "1000000")
    run = ("train", "meta-llama/Llama-3.1-405B", *many, "--tokens", "100T")
    reduce = ("collective", "all_reduce", *many, "--sizes", "1GB", "--fidelity", "event")
    asked = {
        "1M chips: all-reduce of 1 GB, event by event": reduce,
        "1M chips: train, layout chosen": run,
        "1M chips: the run with failures, 1,000 times": (*run, "--until-done", "--recovery", "hot"),
        "1M chips: power, ten minutes": ("power", "meta-llama/Llama-3.1-405B", *many),
    }  # fmt: skip
    wanted = ("30 s", "20 s", "30 s", "")
    return [
        (what, f"{shell(*words):.2f} s", most, "") for (what, words), most in zip(asked.items(), wanted, strict=True)
    ]


def main() -> int:
    """Prints the table."""
    lane = np.random.default_rng(0).random(CHUNK)
    bound_s = seconds(lambda: lane * lane + lane, 200) / CHUNK
    rows: list[Row] = [("multiply-add per candidate, NumPy (the bound)", f"{1e9 * bound_s:.2f} ns", "", "")]
    rows += one_plan()
    for system, chips in (("dgx-h100", 4096), ("trn3-gen2-ultraserver", 4608)):
        rows += a_search(system, chips, bound_s)
    rows += ten_million() + full_plan()
    given = ("train", "meta-llama/Llama-3.1-70B", "--system", "p5.48xlarge", "--chips", "512", *GIVEN)
    demo = ("train", "meta-llama/Llama-3.1-405B", "--system", "trn3-gen2-ultraserver", "--chips", "4608")
    rows += [
        ("ultratwin --help", f"{shell('--help'):.2f} s", "", ""),
        ("ultratwin train, layout given", f"{shell(*given):.2f} s", "1.5 s", ""),
        ("ultratwin train, the demo's search", f"{shell(*demo):.2f} s", "", ""),
        ("scoreboard, all rows", f"{seconds(lambda: score_all(), 1):.2f} s", "", ""),
    ]
    rows += bench_serving.main() + bench_mixed_training.main() + a_million()
    print(f"{'one core':66s} {'measured':>12s} {'promised':>10s}")
    for what, value, wanted, remark in rows:
        print(f"{what:66s} {value:>12s} {wanted:>10s}  {remark}".rstrip())
    if command := os.environ.get("AICONFIGURATOR", ""):
        bench_serving.peer(command)
    if peer := os.environ.get("CALCULON", ""):
        bench_calculon.main(Path(peer))
    else:
        print("CALCULON=path of a checkout of github.com/calculon-ai/calculon: its search beside ours, the same space")
    return 0


if __name__ == "__main__":
    sys.exit(main())
