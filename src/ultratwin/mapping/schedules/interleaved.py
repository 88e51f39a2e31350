"""Interleaved 1F1B: each stage holds v chunks of layers, so the pipeline fills v times sooner."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import (
    BACKWARD,
    FORWARD,
    Schedule,
    StageTimes,
    Tasks,
    in_turn,
)


class Interleaved(Schedule):
    """Bubble (p - 1) t / v; the warm-up holds ((v - 1) p + 2 (p - 1) + 1) / v micro-batches.

    Source: Narayanan et al. 2021 (arXiv 2104.04473) section 2.2; Korthikanti et al. 2022 (arXiv 2205.05198) 4.2.3
    """

    name = "interleaved"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * stage.mean_s / chunks

    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, ((chunks - 1) * stages + 2 * (stages - 1 - stage) + 1) / chunks)

    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """Groups of p micro-batches go through chunk after chunk; stage s runs 2 (p - s - 1) + (v - 1) p chunks ahead.

        Micro-batches that are not a multiple of p make some groups larger.
        Source: Megatron-LM megatron/core/pipeline_parallel/schedules.py, whose order this is
        """
        groups = np.array_split(np.arange(micro_batches), max(micro_batches // stages, 1))
        forward, backward = (
            np.concatenate([_one_group(kind, group, chunks) for group in groups], axis=1)
            for kind in (FORWARD, BACKWARD)
        )
        ahead = 2 * (stages - stage - 1) + (chunks - 1) * max(len(group) for group in groups)
        return in_turn(min(ahead, micro_batches * chunks), forward, backward)

    def passes(self, chunks: int) -> int:
        return chunks


def _one_group(kind: int, group: Tasks, chunks: int) -> Tasks:
    """A group's tasks of one kind, chunk after chunk, the last first if backward."""
    order = np.arange(chunks) if kind == FORWARD else np.arange(chunks)[::-1]
    chunk, micro_batch = np.repeat(order, len(group)), np.tile(group, chunks)
    return np.stack([np.full_like(chunk, kind), micro_batch, chunk])
