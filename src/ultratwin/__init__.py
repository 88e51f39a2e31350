"""Ultratwin: a software twin of AI-accelerator supercomputers.

    >>> import ultratwin
    >>> result = ultratwin.train("meta-llama/Llama-3.1-8B", "trn2.48xlarge", chips=64, tensor_parallel_size=8,
    ...                          pipeline_parallel_size=1, micro_batch_size=1)
    >>> result.feasible
    True

Everything is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultratwin.api import (
        Explanation,
        Ledger,
        PlanResult,
        PowerResult,
        Range,
        TrainResult,
        assuming,
        claims,
        load_model,
        load_system,
        plan_train,
        power,
        train,
    )
    from ultratwin.api_diffusion import DiffuseResult, diffuse
    from ultratwin.api_serving import PlanServeResult, ServeResult, plan_serve, serve
    from ultratwin.errors import (
        CatalogueError,
        ModelError,
        ScenarioError,
        TruthError,
        UltratwinError,
        UnitError,
    )

__version__ = "0.1.0"
__all__ = [
    "CatalogueError",
    "DiffuseResult",
    "Explanation",
    "Ledger",
    "ModelError",
    "PlanResult",
    "PlanServeResult",
    "PowerResult",
    "Range",
    "ScenarioError",
    "ServeResult",
    "TrainResult",
    "TruthError",
    "UltratwinError",
    "UnitError",
    "__version__",
    "assuming",
    "claims",
    "diffuse",
    "load_model",
    "load_system",
    "plan_serve",
    "plan_train",
    "power",
    "serve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    word = name.lower()
    homes = {"error": "errors", "serve": "api_serving", "diffuse": "api_diffusion"}
    home = next((module for part, module in homes.items() if part in word), "api")
    return getattr(importlib.import_module(f"ultratwin.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
