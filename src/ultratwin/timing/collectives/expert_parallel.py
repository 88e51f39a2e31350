"""Expert-parallel dispatch and combine: tokens to the experts that the router chose, and back.

Libraries of their own (DeepEP, TensorRT-LLM, pplx-kernels, UCCL-EP) move them, so each has constants of its own.
Notation: T tokens per rank, d bytes of one token, k experts per token, n = r N ranks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

import msgspec
import numpy as np

from ultratwin.catalogue import loader
from ultratwin.errors import unknown_name
from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import Fit, Network

SCALE_BLOCK: Final = 128
"""Elements that share one fp32 scale in an FP8 dispatch (DeepEP README)."""
PHASES: Final = ("dispatch", "combine", "prepare")


class ExpertPipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants of one phase: launch, growth with log2 of the ranks, cost of a token and of a copy, shares of rates."""

    launch_s: float
    level_s: float = 0.0
    token_s: float = 0.0
    up_copy_s: float = 0.0
    out_copy_s: float = 0.0
    up_frac: float = 0.9
    out_frac: float = 0.9
    core_bytes_per_s: float = float("inf")


class ExpertProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One library: how often it sends a token, and the constants of its phases.

    `copies`: "expert" sends a token once for each chosen expert; "rank" once for each rank that holds one, and
    "node" also only once to each other domain, where NVLink passes it on. `adapters_only`: also inside a domain.
    """

    name: str
    libraries: tuple[str, ...]
    links: tuple[str, ...] = ()
    copies: str
    pipes: dict[str, ExpertPipe]
    fits: dict[str, Fit]
    adapters_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """What is dispatched: T tokens per rank of `token_bytes`, each to `top_k` experts spread evenly over the ranks."""

    tokens_per_rank: Number
    token_bytes: Number
    top_k: Number
    num_cores: float = 20.0


def expert_parallel_time_s(
    phase: str,
    routing: Routing,
    network: Network,
    profile: ExpertProfile,
    *,
    ranks_per_domain: Number,
    num_domains: Number,
) -> Number:
    """Time of one dispatch or combine of a mixture-of-experts layer.

    Equation: t = launch + level log2 n + T (token + max(t_up, t_out)), each t = c (copy + d / (f B));
              copies c to the domain and out of it: "expert": k r/n and k (n-r)/n;
              "rank": D(n) r/n and D(n) (n-r)/n with D(m) = m (1 - (1 - 1/m)^k) distinct destinations of m;
              "node": D(n) and D(N) (N-1)/N
    Args:
        phase: "dispatch", "combine" or "prepare"
        routing: T, d, k
        network: rates of one rank
        profile: the library's constants
        ranks_per_domain: r, shape [candidate]
        num_domains: N, shape [candidate]
    Returns: seconds [s], shape [candidate]; 0 for one rank
    Source: the copies: DeepEP README (normal and low-latency kernels); D(m) is the mean of an even draw, derived
    """
    if phase not in profile.pipes:
        raise unknown_name(f"phase of {profile.name}", phase, profile.pipes)
    pipe = profile.pipes[phase]
    r, domains = np.maximum(ranks_per_domain, 1.0), np.maximum(num_domains, 1.0)
    n, tokens, size = r * domains, routing.tokens_per_rank, routing.token_bytes
    if profile.copies == "expert":
        up_copies, out_copies = routing.top_k / domains, routing.top_k * (1.0 - 1.0 / domains)
    else:
        spread = _distinct(n, routing.top_k)
        up_copies, out_copies = spread / domains, spread * (1.0 - 1.0 / domains)
        if profile.copies == "node":
            up_copies, out_copies = spread, _distinct(domains, routing.top_k) * (1.0 - 1.0 / domains)
    up_rate = np.minimum(pipe.up_frac * network.scale_up_bytes_per_s, pipe.core_bytes_per_s * routing.num_cores)
    up_s = up_copies * (pipe.up_copy_s + size / up_rate)
    out_s = out_copies * (pipe.out_copy_s + size / (pipe.out_frac * network.scale_out_bytes_per_s))
    time = pipe.launch_s + pipe.level_s * np.log2(n) + tokens * (pipe.token_s + np.maximum(up_s, out_s))
    return np.where(n > 1.0, time, 0.0)


def _distinct(places: Number, draws: Number) -> Number:
    """Mean number of distinct places that `draws` even draws hit."""
    return places * (1.0 - (1.0 - 1.0 / places) ** draws)


def token_bytes(hidden_size: Number, dtype: str) -> Number:
    """Bytes of one token on the wire: FP8 with a scale per 128 elements, NVFP4 with one per 16, else BF16."""
    if "fp4" in dtype:
        return hidden_size * (0.5 + 1 / 16)
    if "fp8" in dtype:
        return hidden_size * (1 + 4 / SCALE_BLOCK)
    return hidden_size * 2.0


@cache
def expert_profiles() -> dict[str, ExpertProfile]:
    """Every library with constants, by id."""
    folder = loader.DATA / "collectives"
    return {
        path.name.removesuffix(".toml"): loader.read_toml(path, ExpertProfile)
        for path in sorted(folder.glob("expert-parallel-*.toml"))
    }


@cache
def expert_profile(library: str, link: str = "") -> ExpertProfile:
    """The constants of an expert-parallel library; a set measured on that link goes before one for any link.

    Raises: CatalogueError if no set knows the library
    """
    found = [
        each for each in expert_profiles().values() if any(re.search(p, library, re.IGNORECASE) for p in each.libraries)
    ]
    exact = [each for each in found if any(name in link for name in each.links)]
    if not found:
        raise unknown_name("expert-parallel library", library, expert_profiles())
    return (exact or [each for each in found if not each.links] or found)[0]
