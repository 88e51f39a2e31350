"""Video diffusion: sizes by hand, laws of the step's time, measured steps, answers and their errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin import cli
from ultratwin.api.diffusion import diffuse
from ultratwin.catalogue import loader
from ultratwin.errors import ModelError, ScenarioError, UltratwinError
from ultratwin.hardware.system import load_system
from ultratwin.mapping.engine import load_engine
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.diffusion.question import AXES, CACHE_PASSES, VideoDemand, video_tokens
from ultratwin.timing.diffusion import (
    VideoLayout,
    VideoSetting,
    VideoTokens,
    memory_parts,
    step_bound_s,
    step_flop,
    step_parts,
)
from ultratwin.workload.parameters import parameter_count
from ultratwin.workload.video import latent_frames, load_video_model, tokens_per_latent_frame

IDS = [each.replace("__", "/") for each in loader.ids("diffusion")]
SYSTEMS = ("p5.48xlarge", "trn2.48xlarge", "trn3-gen2-ultraserver", "gb200-nvl72")


def setting(
    model: str = "wan2.1-14b", system: str = "trn3-gen2-ultraserver", passes: int = 2, library: str = ""
) -> VideoSetting:
    engine = load_engine("generic-engine")
    return VideoSetting(
        model=dataclasses.replace(load_video_model(model), passes=passes),
        pool=load_system(system).pool,
        formats=serving_formats("bf16"),
        engine=dataclasses.replace(engine, kernel_library=library or engine.kernel_library),
    )


def seconds(found: VideoSetting, tokens: VideoTokens, layout: VideoLayout | None = None) -> float:
    return float(np.sum([np.ravel(each)[0] for each in step_parts(found, layout or VideoLayout(), tokens).values()]))


@pytest.mark.parametrize("name", IDS)
def test_sizes_give_about_the_published_parameters(name: str) -> None:
    model, entry = load_video_model(name), loader.entry("diffusion", name.replace("/", "__"))
    counted = parameter_count(model.transformer) + model.other_parameters
    assert counted == pytest.approx(entry.figures["total_parameters"].si, rel=0.08)  # published ones are rounded
    for alias in entry.aliases:
        assert load_video_model(alias).id == name


def test_tokens_of_a_video_as_worked_by_hand() -> None:
    wan, five = load_video_model("wan2.1-14b"), load_video_model("wan2.2-5b")
    assert latent_frames(wan, 81) * tokens_per_latent_frame(wan, 480, 832) == 21 * 30 * 52
    assert latent_frames(five, 121) * tokens_per_latent_frame(five, 704, 1280) == 31 * 22 * 40
    tokens, frames = video_tokens(wan, VideoDemand(chunk_frames=12, window_frames=84))
    assert (tokens.denoised, tokens.seen, frames) == (3 * 1560, 21 * 1560, 12)


def test_operations_of_a_step_as_worked_by_hand() -> None:
    model = load_video_model("wan2.1-14b")
    length, h, f = 32_760.0, 5120.0, 13_824.0
    linear, attention = step_flop(model, VideoTokens(denoised=length, seen=length))
    block = 4 * h * h + 2 * h * h + 2 * h * f  # q, k, v, o; q and o to the text; up and down
    assert linear == pytest.approx(2 * 2 * length * (40 * block + h * 64))
    assert attention == pytest.approx(2 * 40 * 4 * length * h * (length + 512))


FLASHDREAMS = [  # milliseconds of a step: source flashdreams_bench
    ("p5.48xlarge", 1040, 344),
    ("gb200-nvl72", 441, 203),
    ("gb300-nvl72", 382, 171),
]


@pytest.mark.parametrize(("system", "clip_ms", "chunk_ms"), FLASHDREAMS)
def test_measured_steps_of_wan_2_1_within_15_percent(system: str, clip_ms: float, chunk_ms: float) -> None:
    """Nothing is fitted to them. A chunk: 3 of 21 frames of latents, four steps and one for the cache, no guidance."""
    whole = VideoTokens(denoised=32_760.0, seen=32_760.0)
    assert seconds(setting("wan2.1-1.3b", system), whole) * 1e3 == pytest.approx(clip_ms, rel=0.15)
    chunk = VideoTokens(denoised=4_680.0, seen=32_760.0)
    one = seconds(setting("wan2.1-1.3b", system, passes=1), chunk)
    assert (4 + CACHE_PASSES) * one * 1e3 == pytest.approx(chunk_ms, rel=0.15)


def test_measured_videos_of_hunyuan_leave_time_for_the_autoencoder() -> None:
    """Seconds of 129 frames at 720p in 50 steps on H100s, autoencoder and text encoder included: xdit_hunyuan."""
    measured = {1: 1904.08, 2: 925.04, 4: 514.08, 8: 337.58}
    found = setting("HunyuanVideo", "p5.48xlarge", passes=1, library="flash-attention-2")
    tokens = VideoTokens(denoised=33.0 * 3600, seen=33.0 * 3600)
    rest = {
        ranks: whole - 50 * seconds(found, tokens, VideoLayout(ulysses_size=ranks)) for ranks, whole in measured.items()
    }
    assert rest[1] == pytest.approx(0.17 * measured[1], rel=0.2)  # with weights moved to the host and back
    several = [rest[ranks] for ranks in (2, 4, 8)]
    assert max(several) / min(several) < 1.3, several  # what is left does not depend on the ranks


layouts = st.builds(
    VideoLayout,
    tensor_size=st.sampled_from([1, 2, 4]),
    ulysses_size=st.sampled_from([1, 2, 5, 10]),
    ring_size=st.sampled_from([1, 2, 3, 8]),
    guidance_size=st.sampled_from([1, 2]),
)


@given(layout=layouts, system=st.sampled_from(SYSTEMS), latents=st.integers(1, 21), window=st.integers(0, 21))
@settings(max_examples=40, deadline=None)
def test_no_step_beats_its_bound_and_no_share_its_whole(
    layout: VideoLayout, system: str, latents: int, window: int
) -> None:
    found = setting(system=system)
    tokens = VideoTokens(denoised=1560.0 * latents, seen=1560.0 * (latents + window))
    parts = step_parts(found, layout, tokens)
    assert all(np.all(np.asarray(each) >= 0) for each in parts.values())
    assert seconds(found, tokens, layout) >= float(np.ravel(step_bound_s(found, layout, tokens))[0]) * (1 - 1e-9)
    wide = dataclasses.replace(found.pool.domain, bytes_per_s=2.0 * found.pool.domain.bytes_per_s)
    fast = dataclasses.replace(found, pool=dataclasses.replace(found.pool, domain=wide))
    assert seconds(fast, tokens, layout) <= seconds(found, tokens, layout) * (1 + 1e-9)


def test_one_rank_says_nothing_and_many_layouts_are_each_of_them() -> None:
    found, tokens = setting(), VideoTokens(denoised=32_760.0, seen=32_760.0)
    alone = step_parts(found, VideoLayout(), tokens)
    assert sum(float(np.ravel(alone[name])[0]) for name in list(alone)[4:]) == 0.0
    sizes = [(1, 1, 1, 1), (1, 8, 1, 2), (2, 5, 4, 1), (1, 1, 9, 2)]
    together = VideoLayout(**dict(zip(AXES, np.array(sizes).T, strict=True)))
    all_at_once = np.asarray(sum(step_parts(found, together, tokens).values()))
    each = [seconds(found, tokens, VideoLayout(**dict(zip(AXES, row, strict=True)))) for row in sizes]
    assert all_at_once == pytest.approx(each, rel=1e-12)


def test_a_chunk_that_is_the_whole_clip_is_the_clip() -> None:
    model = load_video_model("wan2.1-14b")
    clip, _ = video_tokens(model, VideoDemand(frames=81))
    chunk, _ = video_tokens(model, VideoDemand(chunk_frames=84, window_frames=84))
    assert clip == chunk
    kept = memory_parts(setting(), VideoLayout(), clip, is_streamed=True)["keys and values"]
    assert float(np.ravel(kept)[0]) == 2 * 2 * 40 * 5120 * 2 * 32_760  # passes, k and v, blocks, width, bytes, tokens


def test_answer_is_the_fastest_and_its_front_only_gets_faster() -> None:
    result = diffuse("wan2.1-14b", "trn3-gen2-ultraserver", height=720, width=1280, steps=4, guidance_passes=1)
    speeds = [each.frames_per_s for each in result.front]
    assert speeds == sorted(speeds)
    assert result.best == result.front[-1]
    assert result.realtime is not None
    assert result.realtime.frames_per_s >= 16 > result.front[result.front.index(result.realtime) - 1].frames_per_s
    assert result.frames_per_s.low < result.frames_per_s.expected < result.frames_per_s.high
    fixed = diffuse("wan2.1-14b", "trn3-gen2-ultraserver", chips=8, ulysses_size=8)
    assert fixed.best.layout.ulysses_size == 8
    text = result.to_json()
    again = diffuse("wan2.1-14b", "trn3-gen2-ultraserver", height=720, width=1280, steps=4, guidance_passes=1)
    assert text == again.to_json()
    tree = json.loads(text)["step"]
    assert tree["value"] == sum(each["value"] for each in tree["children"])


def test_guidance_costs_a_second_pass_and_can_be_shared() -> None:
    one = diffuse("wan2.1-14b", "p5.48xlarge", chips=1, guidance_passes=1).best.step_s
    two = diffuse("wan2.1-14b", "p5.48xlarge", chips=1).best.step_s
    assert two == pytest.approx(2 * one, rel=0.05)
    shared = diffuse("wan2.1-14b", "p5.48xlarge", chips=2, guidance_parallel_size=2).best.step_s
    assert shared == pytest.approx(one, rel=1e-9)


def test_what_does_not_fit_is_said_with_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    words = "diffuse wan2.1-14b --system l40s-8 --chips 1 --height 2160 --width 3840 --frames 961"
    assert cli.run(words.split()) == 1
    shown = capsys.readouterr().out
    assert "nothing can run" in shown
    assert "a rank's memory is too small: needs" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "wan2.1-15b"}, "did you mean"),
        ({"chunk_frames": 10}, "multiples of 4"),
        ({"window_frames": 8}, "a window without chunks"),
        ({"chunk_frames": 12, "window_frames": 8}, "no less than a chunk"),
        ({"ulysses_size": 7}, "tensor times Ulysses divides 40 heads"),
        ({"steps": 10**6}, "1 to 10,000"),
        ({"chips": 10**9}, "at most"),
        ({"frames": 0}, "frames is 0"),
        ({"precision": "fp9"}, "unknown precision"),
        ({"frames_per_second": 0.0001}, "0.1 to 1,000"),
    ],
)
def test_bad_input_is_explained(options: dict[str, object], message: str) -> None:
    with pytest.raises(UltratwinError) as caught:
        diffuse(**({"model": "wan2.1-14b", "system": "p5.48xlarge"} | options))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_sizes_come_from_a_file_and_its_faults_come_together(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "freq_dim": 256}')
    assert load_video_model(str(file)).transformer.layers == load_video_model("wan2.1-1.3b").transformer.layers
    file.write_text('{"dim": 1536, "ffn_dim": 0, "num_heads": 7, "num_layers": 0}')
    with pytest.raises(ModelError, match=r"ffn_dim = 0 .*; num_layers = 0 "):
        load_video_model(file)
    for text in ('{"dim": 1}', "[", '{"dim": "wide"}'):
        file.write_text(text)
        with pytest.raises(ModelError, match="not the sizes"):
            load_video_model(file)
    with pytest.raises(ModelError, match="can't be read"):
        load_video_model(tmp_path / "absent.json")
    with pytest.raises(ScenarioError, match="is no name"):
        diffuse("wan2.1-14b", "../p5")
