"""Memory rows read into models, plans and predictions."""

from __future__ import annotations

import pytest

from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.validation.rows import Skip
from ultratwin.validation.training_memory import (
    logged_peak_bytes,
    model_of,
    occupancy_of,
    plan_memory,
    plan_of,
    predict_rows,
)
from ultratwin.workload.model import Mlp

ROW = {
    "id": "r", "source": "somebody", "model": "GPT", "params_b": "", "layers": "4", "hidden": "1024", "heads": "8",
    "kv_heads": "8", "ffn_hidden": "4096", "vocab": "32000", "tied_embeddings": "no", "seq_len": "2048",
    "chip": "H100-SXM", "hbm_gb": "80", "n_chips": "16", "dp": "4", "tp": "2", "pp": "2", "micro_batch": "2",
    "grad_accum": "8", "zero_stage": "1", "sequence_parallel": "yes", "recompute": "none", "precision": "bf16",
    "fits": "yes", "max_alloc_gb": "10", "max_reserved_gb": "12", "note": "",
}  # fmt: skip


def test_a_row_gives_two_results_with_the_measured_gib() -> None:
    fits, peak = predict_rows([ROW])
    assert (fits.id, fits.metric, fits.predicted, fits.measured) == ("r", "fits", 1.0, 1.0)
    assert (peak.id, peak.metric, peak.unit, peak.measured) == ("r", "peak_memory_bytes", "byte", 10 * 2**30)
    assert peak.low is not None
    assert peak.predicted is not None
    assert peak.high is not None
    assert 0 < peak.low < peak.predicted < peak.high


def test_a_model_too_large_does_not_fit_and_says_how_much_it_needs() -> None:
    fits, _ = predict_rows([{**ROW, "hidden": "16384", "ffn_hidden": "65536", "layers": "100", "heads": "128",
                             "kv_heads": "128"}])  # fmt: skip
    assert fits.predicted == 0.0
    assert fits.status == "scored"
    assert "GiB" in fits.reason


def test_gated_and_tied_follow_from_the_parameter_count() -> None:
    # one layer: 4 h^2 + matrices x h f; embedding V h, twice if untied
    layer, vocabulary = 4 * 1024**2, 32000 * 1024
    for matrices, copies in ((2, 1), (2, 2), (3, 1), (3, 2)):
        count = 4 * (layer + matrices * 1024 * 4096) + copies * vocabulary
        model = model_of({**ROW, "tied_embeddings": "", "params_b": str(count / 1e9)})
        mlp = model.layers[0].mlp
        assert isinstance(mlp, Mlp)
        assert (mlp.gated, model.tie_word_embeddings) == (matrices == 3, copies == 1)


def test_without_a_count_four_times_hidden_is_plain_and_else_gated() -> None:
    for inner, gated in (("4096", False), ("3584", True)):
        mlp = model_of({**ROW, "ffn_hidden": inner}).layers[0].mlp
        assert isinstance(mlp, Mlp)
        assert mlp.gated is gated


def test_the_note_states_context_and_virtual_stages() -> None:
    plan = plan_of({**ROW, "dp": "2", "note": "id x cp=2 ep=1 vpp=2"})
    assert (plan.context_parallel_size, plan.virtual_pipeline_size) == (2, 2)
    assert plan.schedule == SCHEDULE_NAMES.index("interleaved")
    assert plan_of({**ROW, "note": "id x cp=2 ep=1 vpp=1"}).data_parallel_size == 2  # dp counted context ranks


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"note": "cp=1 ep=8"}, "no sizes of experts"),
        ({"dp": "5"}, "not the 16 chips"),
        ({"tp": "0"}, "tp is 0"),
        ({"micro_batch": ""}, "micro_batch is empty"),
        ({"recompute": ""}, "recompute is empty"),
        ({"recompute": "some"}, "unknown recompute"),
        ({"layers": "1e6"}, "layers is 1,000,000"),
        ({"heads": "7"}, "don't divide"),
        ({"zero_stage": "7"}, "unknown zero_stage"),
        ({"chip": "abacus", "hbm_gb": ""}, "no chip 'abacus'"),
    ],
)
def test_rows_that_lack_something_say_what(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Skip, match=reason):
        occupancy_of({**ROW, **change}, 2)
    assert [each.status for each in predict_rows([{**ROW, **change}])] == ["skipped"] * 2


def test_an_unknown_chip_has_the_memory_that_the_row_states() -> None:
    assert occupancy_of({**ROW, "chip": "abacus"}, 2).capacity_bytes == 80e9


def test_the_framework_is_found_in_any_text_of_the_row() -> None:
    assert occupancy_of(ROW, 2).profile.id == "generic"
    assert occupancy_of({**ROW, "model": "nanotron-1B"}, 2).profile.id == "nanotron"


def test_a_counter_of_the_optimizer_phase_shows_no_activations() -> None:
    row = {**ROW, "tp": "1", "pp": "1", "dp": "16"}
    model, plan, profile = model_of(row), plan_of(row), load_profile("nanotron")
    memory = plan_memory(model, recipe("bf16"), profile, plan)
    held = float(memory.parts["weights"][0]) / float(profile.parameter_bytes)
    # buckets of 16-bit gradients 2 P, gathered weights 2 P (1 + 1/16), 80 MB beside
    expected = sum(float(memory.parts[name][0]) for name in ("weights", "gradients", "optimizer state"))
    expected += held * (2 + 2 * (1 + 1 / 16)) + 80e6
    assert float(logged_peak_bytes(model, plan, memory, profile)[0]) == pytest.approx(expected)
    longer = plan_of({**row, "seq_len": "4096"})
    other = plan_memory(model, recipe("bf16"), profile, longer)
    assert float(logged_peak_bytes(model, longer, other, profile)[0]) == pytest.approx(expected)
