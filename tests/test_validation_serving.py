"""Serving rows: reading, requests, published columns, capacity, replays, the fit's tables, the project's own file."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.catalogue import loader
from ultratwin.errors import TruthError
from ultratwin.validation import serving_replay
from ultratwin.validation.formats import FORMATS
from ultratwin.validation.rows import Row, Skip
from ultratwin.validation.scoreboard import predict as predict_format
from ultratwin.validation.serving import predict, predict_rows, question
from ultratwin.validation.serving_capacity import capacity
from ultratwin.validation.serving_load import requests_of
from ultratwin.validation.serving_metrics import Times, joined, metrics
from ultratwin.validation.serving_rows import METRICS, configuration_id, find_model, published, run_of
from ultratwin.validation.serving_simulation import CannotRun, engine_limits
from ultratwin.validation.serving_texts import format_name, kv_format, worker_plan
from ultratwin.validation.truth_file import OWN_TRUTH, read_truth

TOOLS = Path(__file__).parents[1] / "tools"
NVIDIA = frozenset({"bf16", "fp8"})


def row_of(**cells: str) -> Row:
    """A row that can be scored, with other cells where asked for."""
    plain = {
        "id": "r", "group": "g", "model": "meta-llama/Llama-3.1-8B", "chip": "H100-SXM-80GB", "n_chips": "1",
        "tp": "1", "pp": "1", "ep": "1", "dp": "1", "attn_dp": "1", "serving": "agg", "weights_prec": "BF16",
        "kv_prec": "auto", "engine": "vLLM", "engine_version": "0.15.1", "spec_decode": "none", "workload": "random",
        "input_len": "256", "output_len": "32", "concurrency": "4", "request_rate": "", "num_requests": "40",
        "ttft_mean_ms": "20", "tpot_mean_ms": "7", "complete": "yes", "tier": "A",
    }  # fmt: skip
    return plain | cells


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def times_of(**changes: object) -> Times:
    plain = Times(
        sent_s=np.array([0.0, 1.0]), first_s=np.array([0.5, 2.0]), finish_s=np.array([1.5, 4.0]),
        prompt_tokens=np.array([10.0, 30.0]), output_tokens=np.array([11.0, 21.0]), duration_s=4.0, energy_j=800.0,
        gap_s=np.array([0.1]), gap_count=np.array([30.0]),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "quantised", "multiplies", "name"),
    [
        ("FP16/BF16 (paper default)", "", NVIDIA, "bf16"), ("bfloat16", "", NVIDIA, "bf16"),
        ("fp8", "fp8_block", NVIDIA, "fp8-block"), ("FP8 (qwix w8a8)", "", NVIDIA, "fp8"),
        ("fp4", "nvfp4", NVIDIA | {"nvfp4"}, "nvfp4"), ("fp4", "nvfp4", NVIDIA, "mxfp4"),
        ("MXFP4", "", NVIDIA, "mxfp4"), ("int8", "", NVIDIA, "int8-weight-only"),
        ("int4", "", NVIDIA, "int4-weight-only"),
        ("BF16 (dequantised from MXFP4)", "", NVIDIA, "bf16"), ("", "", NVIDIA, "fp8"),
        ("see system json", "", NVIDIA | {"mxfp4"}, "nvfp4"), ("", "", frozenset({"bf16"}), "bf16"),
    ],
)  # fmt: skip
def test_formats_of_texts(text: str, quantised: str, multiplies: frozenset[str], name: str) -> None:
    assert format_name(text, quantised, multiplies) == name


def test_unknown_formats_are_skipped_and_kv_follows_the_engine() -> None:
    for text in ("FP32", "seven bits"):
        with pytest.raises(Skip):
            format_name(text, "", NVIDIA)
    assert kv_format("unknown", "fp8", "tensorrt-llm") == "fp8"
    assert kv_format("unknown", "fp8", "vllm") == kv_format("auto", "fp8", "tensorrt-llm") == ""
    assert kv_format("FP8", "bf16", "vllm") == "fp8"


@pytest.mark.parametrize(
    ("text", "workers", "sizes"),
    [
        ("gpus=16,workers=2,tp=8,ep=8,dpa=True", 2, (1, 8, 8)), ("gpus=32,workers=4,tp=8,ep=8,dpa=False", 4, (8, 1, 8)),
        ("gpus=8,workers=1,tp=1,ep=8,dpa=False", 1, (8, 1, 8)), ("gpus=16,workers=4,tp=1,ep=1,dpa=True", 4, (1, 4, 4)),
        ("workers=1,tp=1,pp=1,attn_dp=4,ep=4,bs=1", 1, (1, 4, 4)),
    ],
)  # fmt: skip
def test_plans_of_disaggregated_workers(text: str, workers: int, sizes: tuple[int, int, int]) -> None:
    count, plan = worker_plan(text)
    found = (plan.tensor_parallel_size, plan.attention_data_parallel_size, plan.expert_parallel_size)
    assert (count, found) == (workers, sizes)


@pytest.mark.parametrize(
    "text", ["", "workers=None,tp=4", "gpus=36,workers=0,tp=36,ep=1", "llm-d-1p1d", "gpus=7,workers=2,tp=4,ep=1"]
)
def test_workers_without_sizes_are_skipped(text: str) -> None:
    with pytest.raises(Skip):
        worker_plan(text)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Llama-2-70b-chat-hf", "meta-llama/Llama-2-70b-hf"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1"),
    ],
)
def test_names_of_models_with_suffixes(name: str, model: str) -> None:
    assert find_model(name).id == model


def test_loads_of_rows() -> None:
    closed = run_of(row_of(num_requests=""), 2).load
    assert (closed.kind, closed.concurrency, closed.num_requests) == ("closed", 4, 40)
    staged = run_of(row_of(request_rate="2.5+6", num_requests="5100", concurrency=""), 2).load
    assert (staged.kind, staged.stages) == ("open", ((2.5, 1500), (6.0, 3600)))
    assert run_of(row_of(concurrency="inf", request_rate="inf"), 2).load.kind == "burst"
    assert run_of(row_of(serving="static batch"), 2).load.kind == "static"
    uneven = run_of(row_of(workload="random (InferenceX closed loop, [0.8,1.0]x nominal)"), 2).load
    lengths = requests_of(uneven).prompt_tokens
    assert lengths.min() >= 204
    assert lengths.max() <= 256
    assert len(set(lengths.tolist())) > 5
    task = row_of(serving="mlperf Server", workload="MLPerf llama3.1-8b Server", tp="")
    assert run_of(task, 2).load.tpot_limit_s == 0.1


def test_shared_prompts_repeat_and_begin_alike() -> None:
    cells = {"workload": "inference-perf shared_prefix x", "len_note": "2 sys prompts x3 users, 32 sys + 64 question"}
    load = run_of(row_of(request_rate="5", concurrency="", **cells), 2).load
    hashes = requests_of(load, rate=5.0, count=12).prefix_hashes
    assert hashes is not None
    assert hashes.block_tokens == 16
    prompts = [tuple(hashes.hashes[a:b]) for a, b in zip(hashes.offsets, hashes.offsets[1:], strict=False)]
    assert len(set(prompts)) == 6
    assert prompts[:6] == prompts[6:]
    assert len({prompt[:2] for prompt in prompts}) == 2


def test_engine_of_a_row_and_its_limits() -> None:
    run = run_of(row_of(extra="mbt=1024;kv_blocks=500;block=32;prefix_caching=off", max_batch="3"), 2)
    limits = engine_limits(run, run.decode, requests_of(run.load))
    assert (limits.max_num_batched_tokens, limits.num_kv_blocks, limits.block_size) == (1024, 500, 32)
    assert (limits.max_num_seqs, limits.concurrency, limits.prefix_caching) == (3, 4, False)
    big = run_of(row_of(model="meta-llama/Llama-3.1-70B"), 2)
    with pytest.raises(CannotRun, match="does not fit"):
        engine_limits(big, big.decode, requests_of(big.load))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"complete": "no"}, "not complete"), ({"tier": "C"}, "tier"), ({"spec_decode": "mtp"}, "speculatively"),
        ({"model": "no/such"}, "no model"), ({"chip": "Abacus"}, "no chip"), ({"tp": ""}, "tp is empty"),
        ({"tp": "1.5"}, "whole"), ({"input_len": ""}, "prompts"), ({"output_len": ""}, "outputs"),
        ({"concurrency": "many"}, "neither"), ({"concurrency": "", "request_rate": "often"}, "number"),
        ({"concurrency": "", "request_rate": "-3"}, "positive"), ({"n_chips": "nan"}, "number"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_scored_say_why(cells: dict[str, str], reason: str) -> None:
    results = predict_rows([row_of(**cells)])
    assert {each.status for each in results} == {"skipped"}
    assert reason in results[0].reason
    assert [each.metric for each in results] == ["ttft_mean_ms", "tpot_mean_ms"]


def test_a_row_has_an_entry_for_each_published_column() -> None:
    bare = {key: value for key, value in row_of().items() if key not in METRICS}
    assert list(published(bare)) == list(METRICS)
    assert list(published(row_of(e2e_p90_ms="12"))) == ["ttft_mean_ms", "tpot_mean_ms", "e2e_p90_ms"]
    assert published(row_of(tpot_mean_ms="seven"))["tpot_mean_ms"] is None


def test_predictions_of_a_small_closed_loop() -> None:
    results = predict_rows([row_of(), row_of(id="s", ttft_mean_ms="1")])
    assert [each.id for each in results] == ["r", "r", "s", "s"]
    assert {each.status for each in results} == {"scored"}
    first, again = results[1], results[3]
    assert first.predicted == again.predicted
    assert first.measured == 7.0
    assert again.unit == "ms"
    # 8 billion 16-bit weights over 3.35 TB/s take 4.5 ms; a token takes longer, but not three times as long
    assert first.predicted is not None
    assert 4.5 < first.predicted < 13.5
    everything = predict(run_of(row_of(), 2))
    assert everything.keys() == METRICS.keys()
    assert everything["output_tok_s"] == pytest.approx(32 * everything["req_per_s"])


def test_open_loops_and_bursts_keep_their_rates() -> None:
    slow = predict(run_of(row_of(request_rate="2", concurrency="", num_requests="200"), 2))
    assert slow["req_per_s"] == pytest.approx(2.0, rel=0.05)
    burst = predict(run_of(row_of(request_rate="inf", concurrency="inf", num_requests="200"), 2))
    assert burst["req_per_s"] > 10 * slow["req_per_s"]
    assert burst["ttft_p99_ms"] > burst["ttft_p50_ms"]


def test_disaggregation_and_capacity() -> None:
    sides = {
        "prefill_cfg": "gpus=1,workers=1,tp=1,ep=1,dpa=False",
        "decode_cfg": "gpus=1,workers=1,tp=1,ep=1,dpa=False",
    }
    apart = predict(run_of(row_of(serving="disagg", n_chips="2", tp="", **sides), 2))
    assert apart["ttft_mean_ms"] > 0
    assert apart["output_tok_s_per_chip"] == pytest.approx(apart["output_tok_s"] / 2)
    task = {"serving": "mlperf Offline", "workload": "MLPerf llama3.1-8b Offline", "tp": "", "output_len": "128"}
    four, eight = (capacity(run_of(row_of(n_chips=count, **task), 2)) for count in ("4", "8"))
    assert eight.output_tok_s == pytest.approx(2 * four.output_tok_s)
    peak_tok_s = 8 * 989.4e12 / (2 * 7.5e9)  # a token can't be faster than its FLOP
    assert eight.output_tok_s < peak_tok_s


def test_columns_from_times() -> None:
    found = metrics(times_of(), replicas=2, num_chips=4, counts_prompts=False, normalised_itl=False)
    assert found["ttft_mean_ms"] == pytest.approx(750.0)
    assert found["e2e_p50_ms"] == pytest.approx(2250.0)
    assert found["tpot_mean_ms"] == pytest.approx(100.0)
    assert found["itl_p99_ms"] == pytest.approx(100.0)
    assert found["output_tok_s"] == pytest.approx(2 * 32 / 4)
    assert found["total_tok_s_per_chip"] == pytest.approx(9.0)
    assert found["avg_power_w_per_chip"] == pytest.approx(100.0)
    assert found["j_per_output_tok"] == pytest.approx(25.0)
    whole = metrics(times_of(), replicas=1, num_chips=1, counts_prompts=True, normalised_itl=True)
    assert whole["tpot_mean_ms"] == pytest.approx(1e3 * (1.5 / 21 + 3 / 51) / 2)
    assert whole["itl_mean_ms"] == pytest.approx(1e3 * (1.5 / 11 + 3 / 21) / 2)
    assert len(joined([times_of(), times_of()]).sent_s) == 4


_CELLS = st.one_of(
    st.text(max_size=12), st.sampled_from(["nan", "inf", "-1", "0", "1e400", "1e9", "yes", "8", "agg", "disagg", "2+3"])
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(row_of())), _CELLS, max_size=6), st.sets(st.sampled_from(sorted(row_of())))
)
def test_no_row_breaks_the_reader(cells: dict[str, str], missing: set[str]) -> None:
    row = {key: value for key, value in row_of(**cells).items() if key not in missing}
    with contextlib.suppress(Skip):
        hash(question(run_of(row, 2)))


def test_no_row_breaks_the_scoreboard() -> None:
    form = next(each for each in FORMATS if each.name == "serving")
    odd = [row_of(id=str(at), input_len=text, output_len=text) for at, text in enumerate(("1", "1e7", "0.4", "-2"))]
    results = predict_format(form, odd)
    assert [each.id for each in results] == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert {each.status for each in results} <= {"scored", "rejected", "skipped"}


def write_log(folder: Path, lines: list[dict[str, float]]) -> None:
    (folder / "run.jsonl").write_text("\n".join([*(json.dumps(line) for line in lines), "{broken"]), encoding="utf-8")


def test_replays_compare_request_by_request(tmp_path: Path) -> None:
    lengths = {"input_toks": 200, "output_toks": 20}
    lines = [
        {"queued_ts": 100 + at, "first_token_ts": 100.02 + at, "last_token_ts": 100.2 + at} | lengths
        for at in range(5)
    ]  # fmt: skip
    write_log(tmp_path, [*lines, lines[0] | {"last_token_ts": 1.0}, lines[0] | {"output_toks": 0}])
    board = serving_replay.replay([row_of(request_file="traces/x/run.jsonl"), row_of(id="other")], tmp_path)
    assert len(board.rows) == 15
    assert {each.status for each in board.rows} == {"scored"}
    assert [each.id for each in board.rows[:5]] == [f"r/{at}" for at in range(5)]
    assert board.rows[0].measured == pytest.approx(20.0)
    assert board.rows[5].measured == pytest.approx(180 / 19)
    assert "r" in board.summaries[2].groups["run"]
    assert json.loads(board.to_json())["summary"]["metrics"]["e2e_ms"]["by"]["run"]["r"]["num_rows"] == 5


def test_replays_without_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(TruthError, match="not a folder"):
        serving_replay.replay([row_of()], tmp_path / "none")
    with pytest.raises(TruthError, match="no row"):
        serving_replay.replay([row_of(request_file="run.jsonl")], tmp_path)
    (tmp_path / "lengths.csv").write_text("input_length,output_length\n3,4\n", encoding="utf-8")
    assert serving_replay.read_log(tmp_path / "lengths.csv") is None


def test_launched_requests_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "prompt_tokens,generation_tokens,ttft,generation_time,launch_time,finish_time\n"
        "10,5,0.5,1,1000.0,1001.5\n10,5,0.5,1,999.0,1000.5\n10,,0.5,1,999.0,1000.5\n", encoding="utf-8",
    )  # fmt: skip
    log = serving_replay.read_log(path)
    assert log is not None
    assert log.sent_s.tolist() == [0.0, 1.0]
    assert log.first_s.tolist() == [0.5, 1.5]


def test_the_fit_blends_tables_exactly() -> None:
    fit = tool("fit_engines")
    run = run_of(row_of(tp="2", n_chips="2"), 2)
    kept, tables = fit.prepare([run], run.engine)
    changed = dataclasses.replace(
        run.engine, gemm_factor=1.3, attention_factor=0.8, collective_factor=1.7, request_s=0.02
    )
    blended = predict(fit.with_engine(kept[0], changed), tables)
    direct = predict(dataclasses.replace(run, engine=changed))
    assert blended["tpot_mean_ms"] == pytest.approx(direct["tpot_mean_ms"], rel=1e-3)
    assert blended["ttft_mean_ms"] == pytest.approx(direct["ttft_mean_ms"], rel=1e-3)
    assert fit.loss({("a", "tpot"): np.array([0.1, 0.1]), ("b", "tpot"): np.array([0.3])}) > 0.1


def test_the_fit_keeps_configurations_whole() -> None:
    one, other = row_of(input_len="1", concurrency="9"), row_of(tp="2")
    assert configuration_id(one) == configuration_id(row_of()) != configuration_id(other)


def test_the_truth_tool_keeps_what_is_read(tmp_path: Path) -> None:
    made = tool("make_truth_serving")
    rows = [
        row_of(notes="A sentence that counts input and output tokens, at length.", extra="mbt=512;org=x;why=because"),
        row_of(id="gone", tier="C"),
    ]
    path = tmp_path / "serving.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, made.KEPT, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    text = made.reduced(path.read_text(encoding="utf-8"))
    (kept,) = csv.DictReader(text.splitlines())
    assert kept["notes"] == "counts input and output tokens"
    assert kept["extra"] == "mbt=512;org=x"
    assert question(run_of(kept, 2)) == question(run_of(rows[0], 2))


def test_own_measurements() -> None:
    path = OWN_TRUTH / "serving.csv"
    assert path.stat().st_size < 2_000_000
    truth = read_truth(path)
    assert truth.format.name == "serving"
    assert not truth.broken
    skipped = 0
    for line, row in enumerate(truth.rows, start=2):
        try:
            run_of(row, line)
        except Skip:
            skipped += 1
    assert len(truth.rows) > 5000
    assert skipped < 400


def test_engines_of_versions() -> None:
    ids = set(loader.ids("engines"))
    assert {"vllm", "vllm-v0", "vllm-v1", "sglang", "tensorrt-llm"} <= ids
    found = [run_of(row_of(engine_version=version), 2).engine for version in ("0.15.1", "0.11.0", "unknown (2024)")]
    assert [each.id for each in found] == ["vllm", "vllm-v1", "vllm-v0"]
    assert [each.overlaps_host for each in found] == [True, False, False]
    ahead = run_of(row_of(engine_version="0.11.0", extra="vllm_cfg=async-scheduling: true; x"), 2)
    assert ahead.engine.overlaps_host
