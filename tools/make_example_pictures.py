"""Writes the pictures of docs/examples: each from the JSON that the command line answers with.

python tools/make_example_pictures.py [NAME ...]
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from svg_chart import Axis, Series, line_chart
from ultratwin import cli

ROOT: Final = Path(__file__).parents[1]
OUT: Final = ROOT / "docs/images"
TRAINING: Final = (
    "train moonshotai/Kimi-K2-Instruct --system trn3-gen2-ultraserver --tokens 15.5T --precision mxfp8 "
    "--seq-length 4096 --global-batch-size 16128 --tensor-parallel-size 1 --expert-parallel-size 128 --until-done"
)
SERVING: Final = "plan serve deepseek-ai/DeepSeek-V3 --precision fp8 --isl 4000 --osl 500 --request-rate 50 --no-verify"
TRN3_PRICE: Final = "--price trn3-gen2-ultraserver=4"
MOST_USD: Final = 100.0
"""Nobody pays more for a million tokens: what lies above is not shown."""
JAPANESE: Final = (
    "plan serve Qwen/Qwen3-32B --precision fp8 --isl 1353 --osl 271 --goodput ttft:1000 tpot:50 --no-verify "
    "--region ap-northeast-1"
)
MUSIC: Final = "--isl 1 --osl 1500 --tensor-parallel-size 1 --fidelity analytic"
MUSIC_STEPS_PER_S: Final = 50.0
VIDEO: Final = "diffuse Wan-AI/Wan2.1-T2V-14B --height 720 --width 1280 --steps 4 --guidance-passes 1"


def answer(command: str) -> dict[str, Any]:
    """The JSON that a command prints.

    Raises: SystemExit if it fails
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.run([*command.split(), "--json"])
    if code > 1:
        raise SystemExit(f"{command}: exit code {code}")
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def frontier_training() -> str:
    """Days of a run against chips, without failures, with them, and if all chips were as useful as the first."""
    ideal, real = [], []
    for chips in (1152, 2304, 4608, 9216, 18432):
        found = answer(f"{TRAINING} --chips {chips}")
        ideal.append((float(chips), found["result"]["duration_s"]["expected"] / 86400))
        real.append((float(chips), found["until_done"]["duration_s"]["p50"] / 86400))
    halved = tuple((chips, ideal[0][1] * ideal[0][0] / chips) for chips, _ in ideal)
    return line_chart(
        "Training a trillion parameters on Trainium3", "Kimi-K2's sizes, 15.5T tokens, MXFP8, batches of 66M tokens",
        Axis(label="chips (8 to 128 UltraServers of 144)", log=True), Axis(label="days", log=True),
        [Series(name="until it is done, with failures", points=tuple(real)),
         Series(name="if nothing breaks", points=tuple(ideal)),
         Series(name="half the days for twice the chips", points=halved, dashed=True)],
    )  # fmt: skip


def frontier_serving() -> str:
    """Dollars per million tokens against tokens per second and user, each system alone."""
    series = []
    for system, name in (
        ("trn3-gen2-ultraserver", "Trn3, 4 USD a chip-hour (assumed)"),
        ("gb200-nvl72", "GB200 NVL72"),
        ("p6-b200.48xlarge", "EC2 P6-B200, on demand"),
    ):
        front = answer(f"{SERVING} --systems {system} {TRN3_PRICE}")["front"]
        points = sorted((each["tokens_per_s_per_user"], each["usd_per_mtoken"]) for each in front)
        series.append(Series(name=name, points=tuple((x, y) for x, y in points if y and y <= MOST_USD)))
    return line_chart(
        "Serving DeepSeek-V3: cost against speed", "FP8, prompts of 4,000 and answers of 500 tokens, 50 requests/s",
        Axis(label="tokens per second and user"), Axis(label="USD per million output tokens", log=True), series,
    )  # fmt: skip


def japanese_serving() -> str:
    """Chips that are rented against readers who ask at once."""
    series = []
    for system, name in (
        ("trn2.48xlarge", "Trainium2 (trn2.48xlarge)"), ("p5.48xlarge", "H100 (p5.48xlarge)"),
        ("p5en.48xlarge", "H200 (p5en.48xlarge)"),
    ):  # fmt: skip
        points = []
        for rate in (10, 20, 40, 80, 160):
            best = answer(f"{JAPANESE} --systems {system} --request-rate {rate}")["best"]
            points.append((float(rate), best["usd_per_s"] * 3600))
        series.append(Series(name=name, points=tuple(points)))
    return line_chart(
        "A Japanese chat service on Qwen3-32B", "FP8, 2,000 characters in, 400 out, first token in 1 s, 50 ms a token",
        Axis(label="requests per second", log=True), Axis(label="USD per hour, whole instances", log=True), series,
    )  # fmt: skip


def music() -> str:
    """How much faster than it plays each stream is made, against streams on one chip."""
    series = []
    for size, system, name in (
        ("small", "trn2.48xlarge", "0.42B on a Trainium2"), ("medium", "trn2.48xlarge", "1.8B on a Trainium2"),
        ("large", "trn2.48xlarge", "3.3B on a Trainium2"), ("large", "p5.48xlarge", "3.3B on an H100"),
    ):  # fmt: skip
        points = []
        for streams in (1, 2, 4, 8, 16, 32, 64):
            found = answer(
                f"serve examples/configs/musicgen-{size}.json --system {system} {MUSIC} --concurrency {2 * streams} "
                "--max-num-seqs 256"
            )
            points.append((float(streams), 1.0 / (found["result"]["tpot_s"]["expected"] * MUSIC_STEPS_PER_S)))
        series.append(Series(name=name, points=tuple(points)))
    return line_chart(
        "Music as it plays", "MusicGen, 4 codebooks at 50 steps a second, BF16, two sequences a stream (guidance)",
        Axis(label="streams on one chip", log=True), Axis(label="x real time", log=True), series,
        marks=(("as fast as it plays", 1.0),),
    )  # fmt: skip


def video() -> str:
    """Frames per second of one video against chips."""
    series = []
    for system, extra, name in (
        ("trn3-gen2-ultraserver", "", "Trainium3, 4 steps"), ("gb200-nvl72", "", "GB200, 4 steps"),
        ("trn3-gen2-ultraserver", "--steps 50 --guidance-passes 2", "Trainium3, 50 steps with guidance"),
    ):  # fmt: skip
        words = VIDEO if not extra else VIDEO.replace("--steps 4 --guidance-passes 1", extra)
        front = answer(f"{words} --system {system}")["front"]
        series.append(Series(name=name, points=tuple((each["chips"], each["frames_per_s"]) for each in front)))
    return line_chart(
        "Video in real time", "Wan 2.1 14B, 81 frames at 1280 x 720 at once, BF16; the autoencoder not counted",
        Axis(label="chips for one video", log=True), Axis(label="frames per second", log=True), series,
        marks=(("16 frames a second", 16.0),),
    )  # fmt: skip


PICTURES: Final[dict[str, Callable[[], str]]] = {
    "frontier-training": frontier_training,
    "frontier-serving": frontier_serving,
    "japanese-serving": japanese_serving,
    "music": music,
    "video": video,
}


def main() -> int:
    """Writes the pictures named, or all."""
    for name in sys.argv[1:] or PICTURES:
        (OUT / f"{name}.svg").write_text(PICTURES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
