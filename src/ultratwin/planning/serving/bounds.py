"""What physics forbids: the least time that any engine could take on some chips, and which resource sets it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.serving.mix import Load, Speculation
from ultratwin.planning.serving.slo import Slos
from ultratwin.timing.serving import ServingSetting, bound_s

MEMORY = "bytes over memory bandwidth"
FLOP = "FLOP over peak"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The least that an objective's time can be on some system, and why.

    cause: MEMORY or FLOP; amount: bytes or FLOP of one chip; rate: bytes/s or FLOP/s of one chip
    """

    objective: str
    limit_s: float
    least_s: float
    cause: str
    amount: float
    rate: float
    system_id: str
    plan: str

    @property
    def forbids(self) -> bool:
        """Whether no engine on these chips can keep the objective."""
        return self.least_s > self.limit_s


def objective_bounds(
    setting: ServingSetting, system_id: str, plan: ServingPlan, load: Load, speculation: Speculation, slos: Slos
) -> tuple[Bound, ...]:
    """For each objective the plan that physics slows least.

    A first token takes at least its prompt's computation; each further one at least reading what one sequence needs,
    shared by as many tokens as are accepted.
    Args: plan: arrays [plan]
    """
    prompt = np.asarray(load.new_tokens, dtype=np.float64)
    context = np.asarray(load.prompt_tokens, dtype=np.float64)
    first = _both(setting, plan, tokens=prompt)
    step = _both(setting, plan, tokens=1.0, decode_sequences=1.0, decode_context=context)
    later = max(float(np.ravel(load.output_tokens)[0]) - 1.0, 0.0) / speculation.accepted
    chip, compute = setting.pool.chip, setting.formats.compute
    found = []
    for slo in slos.each:
        parts = {
            "ttft": {MEMORY: first[MEMORY], FLOP: first[FLOP]},
            "tpot": {each: step[each] / speculation.accepted for each in (MEMORY, FLOP)},
            "itl": {each: step[each] / speculation.accepted for each in (MEMORY, FLOP)},
            "e2el": {each: first[each] + later * step[each] for each in (MEMORY, FLOP)},
        }[slo.metric]
        least = np.maximum(parts[MEMORY], parts[FLOP])
        at = int(np.argmin(least))
        cause = MEMORY if parts[MEMORY][at] >= parts[FLOP][at] else FLOP
        rate = chip.memory_bytes_per_s if cause == MEMORY else chip.matmul_flop_per_s(compute)
        value = float(np.ravel(rate)[0])
        found.append(
            Bound(
                objective=str(slo), limit_s=slo.limit_s, least_s=float(least[at]), cause=cause,
                amount=float(least[at]) * value, rate=value, system_id=system_id, plan=plan.at(at).describe(),
            )
        )  # fmt: skip
    return tuple(found)


def _both(setting: ServingSetting, plan: ServingPlan, **batch: float | Array) -> dict[str, Array]:
    """The bound of an iteration with only memory, and only the matrix engine, limited."""
    chip = setting.pool.chip
    fast = dataclasses.replace(chip, peak_flop_per_s=dict.fromkeys(chip.peak_flop_per_s, np.inf))
    wide = dataclasses.replace(chip, memory_bytes_per_s=np.inf)
    return {
        cause: np.atleast_1d(
            bound_s(dataclasses.replace(setting, pool=dataclasses.replace(setting.pool, chip=limited)), plan, **batch)
        )
        for cause, limited in ((MEMORY, fast), (FLOP, wide))
    }
