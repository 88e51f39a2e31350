"""Speed of serving: `make bench`. With AZURE_TRACE=path of the Azure 2023 conversation trace that one is served, else
as many requests of its rate and mean lengths; with AICONFIGURATOR=path of its command the same fixed point and search.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from ultratwin import plan_serve, serve
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.point import closed_loop

CLI: Final = Path(sys.executable).with_name("ultratwin")
MODEL: Final = "meta-llama/Llama-3.1-70B"
SYSTEM: Final = "p5en.48xlarge"
COUNT: Final = 19_366
HOUR_S: Final = 3501.7
"""The conversation trace: requests, seconds, mean tokens of a prompt and of an answer (Patel et al., Splitwise)."""
PROMPT: Final = 1155.0
ANSWER: Final = 211.0
Row = tuple[str, str, str, str]


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of a call after one that compiles and warms."""
    call()
    start = time.process_time()
    call()
    return time.process_time() - start


def trace_file(folder: Path, copies: int) -> Path:
    """The trace with each request `copies` times, spread a little, so that as many replicas see the same load."""
    if path := os.environ.get("AZURE_TRACE", ""):
        rows = [line.split(",") for line in Path(path).read_text().splitlines()[1:]]
        stamps = np.array([row[0][:23] for row in rows], dtype="datetime64[ns]").astype(np.float64) / 1e9
        prompts, answers = (np.array([int(row[at]) for row in rows]) for at in (1, 2))
    else:
        draw = np.random.default_rng(0)
        stamps = np.sort(draw.uniform(0.0, HOUR_S, COUNT))
        prompts = np.maximum(draw.lognormal(np.log(PROMPT) - 0.5, 1.0, COUNT), 1).astype(int)
        answers = np.maximum(draw.lognormal(np.log(ANSWER) - 0.18, 0.6, COUNT), 1).astype(int)
    arrival = np.add.outer(stamps - stamps.min(), np.linspace(0.0, 1.0, copies)).ravel()
    order = np.argsort(arrival)
    columns = (arrival[order], np.repeat(prompts, copies)[order], np.repeat(answers, copies)[order])
    target = folder / f"trace-{copies}.csv"
    lines = [f"{at:.4f},{prompt},{answer}" for at, prompt, answer in zip(*columns, strict=True)]
    target.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]) + "\n")
    return target


def replays() -> list[Row]:
    """Requests of a trace per CPU second, everything included: reading, tables, every request, percentiles, ranges."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for replicas, wanted in ((1, "50,000 /s"), (64, "30,000 /s")):
            trace = trace_file(Path(folder), replicas)
            options: dict[str, Any] = {"tensor_parallel_size": 8, "precision": "fp8", "replicas": replicas}
            took = cpu_seconds(lambda: serve(MODEL, SYSTEM, trace=trace, **options))  # noqa: B023
            count = sum(1 for _ in trace.open()) - 1
            what = f"trace of {count:,} requests, 70B on {replicas} x TP8, per CPU second"
            rows.append((what, f"{count / took:,.0f} /s", wanted, f"{took:.2f} CPU s"))
    return rows


def searches() -> list[Row]:
    """A fixed point and the full search of one node."""
    goals: dict[str, Any] = {"isl": 4000, "osl": 500, "request_rate": 2.0, "goodput": "ttft:2000 tpot:50"}
    fixed: dict[str, Any] = {"tensor_parallel_size": 8, "precision": "fp8", "isl": 4000, "osl": 500, "concurrency": 32}
    answer = serve(MODEL, SYSTEM, **fixed).answer
    assert answer.plan is not None
    assert answer.limits is not None
    served = Served(setting=answer.setting, load=answer.load)
    plan, limits = answer.plan, answer.limits
    point = cpu_seconds(lambda: closed_loop(served, plan, limits, 32.0))
    ranged = cpu_seconds(lambda: serve(MODEL, SYSTEM, **fixed))
    found = plan_serve(MODEL, [SYSTEM], **goals)
    search = cpu_seconds(lambda: plan_serve(MODEL, [SYSTEM], **goals))
    shell = ("serve", MODEL, "--system", SYSTEM, "--tensor-parallel-size", "8", "--precision", "fp8", "--isl", "4000")
    whole = math.inf
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([CLI, *shell, "--osl", "500", "--concurrency", "32"], check=True, capture_output=True)
        whole = min(whole, time.perf_counter() - start)
    return [
        ("serve, one fixed point, warm", f"{1e3 * point:.1f} ms", "20 ms", f"{1e3 * ranged:.1f} ms with ranges"),
        ("  from the shell", f"{whole:.2f} s", "2 s", ""),
        (
            "plan serve, 70B on 8 x H200 with objectives, warm",
            f"{search:.2f} CPU s",
            "2 s",
            f"{found.answer.num_points:,} points",
        ),
    ]


def peer(command: str) -> None:
    """aiconfigurator's own search of the same question, as the user installed it."""
    asked = (
        "cli", "default", "--model", "LLAMA3.1_70B", "--total_gpus", "8", "--system", "h200_sxm", "--isl", "4000",
        "--osl", "500", "--ttft", "2000", "--tpot", "50",
    )  # fmt: skip
    start = os.times()
    done = subprocess.run([command, *asked], capture_output=True, text=True, check=False)
    took = os.times()
    cpu = took.children_user + took.children_system - start.children_user - start.children_system
    print(f"{'aiconfigurator, the same search':66s} {cpu:>8.1f} CPU s" if done.returncode == 0 else done.stderr[-400:])


def main() -> list[Row]:
    """The rows of the table."""
    return replays() + searches()
