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
    from ultratwin.api.claims import (
        Ledger,
        claims,
    )
    from ultratwin.api.diffusion import (
        DiffuseResult,
        diffuse,
    )
    from ultratwin.api.mixed_serving import (
        MixedPlanResult,
        MixedServeResult,
        plan_serve_mixed,
        serve_mixed,
    )
    from ultratwin.api.mixed_training import (
        MixedTrainResult,
        train_on_mix,
    )
    from ultratwin.api.power import (
        PowerResult,
        power,
    )
    from ultratwin.api.serving import (
        PlanServeResult,
        ServeResult,
        plan_serve,
        serve,
    )
    from ultratwin.api.training import (
        Explanation,
        PlanResult,
        Range,
        TrainResult,
        assuming,
        load_model,
        load_system,
        plan_train,
        train,
    )
    from ultratwin.errors import (
        CatalogueError,
        ModelError,
        ScenarioError,
        TruthError,
        UltratwinError,
        UnitError,
    )

__version__ = "0.1.0"
_HOMES = {
    "api.training": (
        "Explanation",
        "PlanResult",
        "Range",
        "TrainResult",
        "assuming",
        "load_model",
        "load_system",
        "plan_train",
        "train",
    ),
    "api.serving": (
        "PlanServeResult",
        "ServeResult",
        "plan_serve",
        "serve",
    ),
    "api.mixed_serving": (
        "MixedPlanResult",
        "MixedServeResult",
        "plan_serve_mixed",
        "serve_mixed",
    ),
    "api.mixed_training": (
        "MixedTrainResult",
        "train_on_mix",
    ),
    "api.power": (
        "PowerResult",
        "power",
    ),
    "api.claims": (
        "Ledger",
        "claims",
    ),
    "api.diffusion": (
        "DiffuseResult",
        "diffuse",
    ),
    "errors": (
        "CatalogueError",
        "ModelError",
        "ScenarioError",
        "TruthError",
        "UltratwinError",
        "UnitError",
    ),
}
"""Where each name lives."""
__all__ = [
    "CatalogueError",
    "DiffuseResult",
    "Explanation",
    "Ledger",
    "MixedPlanResult",
    "MixedServeResult",
    "MixedTrainResult",
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
    "plan_serve_mixed",
    "plan_train",
    "power",
    "serve",
    "serve_mixed",
    "train",
    "train_on_mix",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"ultratwin.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
