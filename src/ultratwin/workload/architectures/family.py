"""What one family of architectures is: the names that a config.json calls it, and the function that reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ultratwin.workload.architectures.reader import Reader
from ultratwin.workload.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One way to spell a transformer. `model_types` and `classes` are the hub's `model_type` and `architectures`."""

    name: str
    model_types: tuple[str, ...]
    classes: tuple[str, ...] = ()
    read: Callable[[Reader], Model]
