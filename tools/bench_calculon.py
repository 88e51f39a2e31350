"""Calculon's published optimal-execution search beside ours: GPT-3 175B on 4,096 A100-80GB, one process each.

    python tools/bench_calculon.py PATH-OF-CALCULON [SECONDS]

Calculon (github.com/calculon-ai/calculon) is fetched by its user; CALCULON_PYTHON names a Python that has what it needs
(pandas, psutil), where this one lacks it. Both evaluate the same space: its own, as far as both
have the axes: tensor and pipeline parallelism, interleaving, data parallelism, micro-batch, recomputation, optimizer
sharding, all-reduce or sequence parallelism, overlap of tensor- and of data-parallel communication. Calculon runs a
seeded sample of it for SECONDS, as all would take it hours; Ultratwin runs all of it. Then each evaluates the other's
best plan. What only one has is left out: offloading and the choice of networks there, context parallelism here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

CHIPS: Final = 4096
BATCH: Final = 4096
SEQ: Final = 2048
LAYERS: Final = 96
HEADS: Final = 96
RECOMPUTE: Final = {"none": 0, "attn_only": 1, "full": 2}
SECONDS: Final = 60.0

# runs in a process of its own, with Calculon's folder as its path
_WORKER: Final = """
import json, logging, sys, time
import calculon
from calculon.llm import Llm, System
root, seconds = sys.argv[1], float(sys.argv[2])
app = Llm.Application(calculon.io.read_json_file(root + "/models/gpt3-175B.json"))
system = System(calculon.io.read_json_file(root + "/systems/a100_80g.json"))
count = 0
best = None
times = []
start = time.process_time()
for line in sys.stdin:
    execution = json.loads(line)
    count += 1
    try:
        model = Llm(app, logging.Logger("calculon"))
        model.compile(system, Llm.Execution.from_json(execution))
        model.run(system)
        took = model.get_stats_json(False)["total_time"]
        times.append(took)
        if best is None or took < best[0]:
            best = (took, execution)
    except Llm.Error as error:
        times.append(str(error))
    if time.process_time() - start > seconds:
        break
print(json.dumps({"count": count, "cpu_s": time.process_time() - start, "best": best, "times": times}))
"""


def divisors(value: int) -> list[int]:
    """All divisors, ascending."""
    return [each for each in range(1, value + 1) if value % each == 0]


def space() -> Iterator[dict[str, Any]]:
    """The executions of the shared space, in Calculon's own words and by its own rules."""
    for tensor in (each for each in divisors(CHIPS) if HEADS % each == 0):
        for pipeline in (each for each in divisors(LAYERS) if CHIPS % (tensor * each) == 0):
            data = CHIPS // (tensor * pipeline)
            for chunks in divisors(LAYERS // pipeline) if pipeline > 1 else [1]:
                for micro in (each for each in divisors(BATCH // data) if each * SEQ % tensor == 0):
                    yield from _variants(tensor, pipeline, data, chunks, micro)


def _variants(tensor: int, pipeline: int, data: int, chunks: int, micro: int) -> Iterator[dict[str, Any]]:
    for recompute in RECOMPUTE:
        for sharded in (True, False) if data > 1 else (False,):
            for tensor_type in ("ar", "rs_ag") if tensor > 1 else ("ar",):
                for tensor_overlap in ("none", "ring") if tensor > 1 else ("none",):
                    for data_overlap in (True, False) if data > 1 else (False,):
                        yield {
                            "num_procs": CHIPS, "tensor_par": tensor, "pipeline_par": pipeline, "data_par": data,
                            # tensor ranks are neighbours: network 0 is the node's own
                            "tensor_par_net": int(tensor > 8), "pipeline_par_net": 1, "data_par_net": 1,
                            "batch_size": BATCH, "microbatch_size": micro, "datatype": "float16",
                            "fused_activation": True, "attention_type": "multihead",
                            "activation_recompute": recompute, "pipeline_interleaving": chunks,
                            "optimizer_sharding": sharded, "tensor_par_comm_type": tensor_type,
                            "tensor_par_overlap": tensor_overlap, "seq_par_ag_redo": False,
                            "data_par_overlap": data_overlap, "weight_offload": False,
                            "activations_offload": False, "optimizer_offload": False, "training": True,
                        }  # fmt: skip


def calculon(root: Path, executions: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What Calculon says of some executions, in a process of its own."""
    done = subprocess.run(
        [os.environ.get("CALCULON_PYTHON", sys.executable), "-c", _WORKER, str(root), str(seconds)],
        input="\n".join(json.dumps(each) for each in executions),
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    if done.returncode:
        what = done.stderr.strip()[-300:]
        raise SystemExit(f"Calculon failed: {what}\nhint: CALCULON_PYTHON names a Python that has pandas and psutil")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def settings() -> list[Any]:
    """Ours: the same model on the same chips under every overlap, [tensor, data]."""
    from ultratwin.hardware.system import load_system
    from ultratwin.mapping.profile import load_profile
    from ultratwin.mapping.recipe import recipe
    from ultratwin.planning.evaluate import Setting
    from ultratwin.workload.load import load_model

    profile = load_profile("megatron-2022")  # as Calculon: attention through memory, as before FlashAttention
    return [
        Setting(
            model=load_model("gpt3-175b"), pool=load_system("dgx-a100").pool, recipe=recipe("fp16"),
            profile=dataclasses.replace(
                profile,
                tensor_overlap_frac=profile.tensor_overlap_frac if tensor else 0.0,
                data_overlap_frac=profile.data_overlap_frac if data else 0.0,
            ),
        )
        for tensor in (False, True)
        for data in (False, True)
    ]  # fmt: skip


def ours() -> dict[str, Any]:
    """Our search of the space: all four overlaps, in this process."""
    from ultratwin.planning.search import search

    wanted = {
        "tensor_parallel_size": [each for each in divisors(CHIPS) if HEADS % each == 0],
        "pipeline_parallel_size": [each for each in divisors(CHIPS) if LAYERS % each == 0],
        "virtual_pipeline_size": divisors(LAYERS),
        "context_parallel_size": [1],
        "micro_batch_size": divisors(BATCH),
        "zero_stage": [0, 1],
        "sequence_parallel": [0, 1],
    }
    fixed = {"global_batch_size": BATCH, "seq_length": SEQ}
    cases = settings()
    search(cases[0], 64, {**fixed, "global_batch_size": 64})  # loads the catalogue, as Calculon's files are loaded
    start = time.process_time()
    found = [search(case, CHIPS, fixed, wanted=wanted) for case in cases]
    took = time.process_time() - start
    at = min(range(4), key=lambda index: found[index].step_s[0])
    return {
        "count": sum(each.num_candidates for each in found),
        "cpu_s": took,
        "step_s": found[at].step_s[0],
        "plan": dataclasses.asdict(found[at].plans[0]),
        "overlaps": [bool(at & 2), bool(at & 1)],
    }


def in_their_words(plan: dict[str, Any], overlaps: list[bool]) -> dict[str, Any]:
    """Our plan as an execution of Calculon's."""
    recompute = next(name for name, code in RECOMPUTE.items() if code == plan["recompute"])
    return next(
        each
        for each in space()
        if (each["tensor_par"], each["pipeline_par"], each["pipeline_interleaving"], each["microbatch_size"])
        == (
            plan["tensor_parallel_size"], plan["pipeline_parallel_size"], plan["virtual_pipeline_size"],
            plan["micro_batch_size"],
        )
        and each["activation_recompute"] == recompute
        and each["optimizer_sharding"] == (plan["zero_stage"] > 0)
        and each["tensor_par_comm_type"] == ("rs_ag" if plan["sequence_parallel"] else "ar")
        and each["tensor_par_overlap"] == ("ring" if overlaps[0] else "none")
        and each["data_par_overlap"] == overlaps[1]
    )  # fmt: skip


def in_our_words(execution: dict[str, Any]) -> tuple[float, str]:
    """Our step time of an execution of Calculon's, and why it can't run, if so."""
    from ultratwin.mapping.feasible import REASONS
    from ultratwin.mapping.plan import Plan
    from ultratwin.mapping.schedules import schedule_index
    from ultratwin.planning.evaluate import evaluate

    chunks = execution["pipeline_interleaving"]
    plan = Plan(
        tensor_parallel_size=execution["tensor_par"], pipeline_parallel_size=execution["pipeline_par"],
        virtual_pipeline_size=chunks, data_parallel_size=execution["data_par"],
        zero_stage=int(execution["optimizer_sharding"]), micro_batch_size=execution["microbatch_size"],
        global_batch_size=BATCH, seq_length=SEQ, recompute=RECOMPUTE[execution["activation_recompute"]],
        sequence_parallel=int(execution["tensor_par_comm_type"] != "ar"),
        schedule=schedule_index("interleaved" if chunks > 1 else "1f1b"),
    )  # fmt: skip
    case = settings()[2 * (execution["tensor_par_overlap"] != "none") + execution["data_par_overlap"]]
    result = evaluate(case, plan, CHIPS)
    return float(result.times.total_s[0]), REASONS[int(result.codes[0])]


def said(execution: dict[str, Any]) -> str:
    """An execution in a line."""
    return (
        f"TP{execution['tensor_par']} PP{execution['pipeline_par']} VP{execution['pipeline_interleaving']} "
        f"DP{execution['data_par']} MBS{execution['microbatch_size']} recompute {execution['activation_recompute']} "
        f"{execution['tensor_par_comm_type']}"
    )


def main(root: Path, seconds: float = SECONDS) -> int:
    """Runs both and prints them side by side."""
    every = list(space())
    mine = ours()
    sample = random.Random(0).sample(every, len(every))
    best_of_ours = in_their_words(mine["plan"], mine["overlaps"])
    theirs = calculon(root, sample, seconds)
    rates = (theirs["count"] / theirs["cpu_s"], len(every) / mine["cpu_s"])
    print(f"GPT-3 175B on {CHIPS:,} A100-80GB: {len(every):,} executions of the space that both have, one process each")
    print(f"  Calculon   {theirs['count']:>9,} in {theirs['cpu_s']:6.2f} CPU s  {rates[0]:>12,.0f} /s")
    faster = f"{rates[1] / rates[0]:,.0f} times as many"
    print(f"  Ultratwin  {len(every):>9,} in {mine['cpu_s']:6.2f} CPU s  {rates[1]:>12,.0f} /s: {faster}")
    print(f"    (it went through {mine['count']:,} candidates to cover them: {mine['count'] / mine['cpu_s']:,.0f} /s)")
    judged = calculon(root, [best_of_ours], SECONDS)["times"][0]
    verdict = f"it can't run: {judged}" if isinstance(judged, str) else f"{judged:.2f} s"
    print(f"  our best         {said(best_of_ours)}: {mine['step_s']:.2f} s; Calculon says {verdict}")
    if theirs["best"] is not None:
        took, execution = theirs["best"]
        step, reason = in_our_words(execution)
        verdict = f"{step:.2f} s" + ("" if reason == "feasible" else f", but it {reason}")
        print(f"  Calculon's best  {said(execution)}: {took:.2f} s; ours says {verdict}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    sys.exit(main(Path(sys.argv[1]), *(float(each) for each in sys.argv[2:3])))
