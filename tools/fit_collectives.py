"""Fit the constants of collective libraries to published measurements, and write them with their residuals.

    python tools/fit_collectives.py TRUTH.csv [PROFILE ...]

TRUTH.csv has the columns of collectives.csv. Half of the rows, by the parity of a hash of their id, is fitted by the
mean of |log(predicted / measured)|; the error on the other half is written beside the constants. Needs scipy.
The files under src/ultratwin/catalogue/data/collectives are read, the pipes listed in PLANS are fitted in turn and
the files are written again; everything else in them is kept.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from scipy.optimize import differential_evolution

from ultratwin.catalogue import loader
from ultratwin.timing.collectives import Network, collective_time_s
from ultratwin.timing.collectives.expert_parallel import ExpertProfile, Routing, expert_parallel_time_s
from ultratwin.timing.collectives.network import CollectiveProfile, Fit, LinkProfile, link_profiles, with_fallback
from ultratwin.validation.collectives import Question, question_of
from ultratwin.validation.rows import Skip

DATA = Path(__file__).parents[1] / "src/ultratwin/catalogue/data/collectives"

US = 1e-6
# what a constant may be: fitted within these bounds, on a logarithmic scale
BOUNDS: dict[str, tuple[float, float]] = {
    "launch_s": (1 * US, 400 * US),
    "step_s": (0.02 * US, 200 * US),
    "quick_frac": (0.01, 1.0),
    "bulk_start_s": (0.2 * US, 1000 * US),
    "bulk_step_s": (0.02 * US, 200 * US),
    "bulk_frac": (0.3, 1.0),
    "mid_start_s": (1 * US, 400 * US),
    "mid_step_s": (0.1 * US, 300 * US),
    "mid_frac": (0.02, 1.0),
    "own_frac": (0.01, 1.2),
    "overlap": (0.02, 1.0),
    "bulk_chunk_bytes": (1e4, 1e8),
}
ALL = tuple(name for name in BOUNDS if not name.startswith("mid"))


@dataclass(frozen=True)
class Plan:
    """Which pipes ("a+b": together) of which profile are fitted to which rows, and which constants are free."""

    profile: str
    pipe: str
    scope: str
    rows: Callable[[Question, dict[str, str]], bool]
    free: tuple[str, ...] = ALL


def _inside(question: Question) -> bool:
    return question.num_domains == 1


def _nccl(row: dict[str, str]) -> bool:
    return "custom" not in row["library"]


_SHORT = ("launch_s", "step_s", "quick_frac", "bulk_start_s", "bulk_frac", "overlap")
RING = ("all_gather", "reduce_scatter", "all_reduce")
PLANS: list[Plan] = []
for _generation in ("nvlink3", "nvlink4", "nvlink5"):
    PLANS += [
        Plan(
            _generation,
            "ring",
            "scale_up",
            lambda q, row: (
                _inside(q)
                and _nccl(row)
                and q.operation in RING
                and not q.overhead_s
                and q.algorithm != "switch"
                and not (q.operation == "all_reduce" and q.ranks_per_domain > 4 and q.network.in_network_reduction)
            ),
        ),
        Plan(
            _generation,
            "all_to_all",
            "scale_up",
            lambda q, row: _inside(q) and q.operation == "all_to_all" and row["message_bytes"],
        ),
    ]
PLANS += [
    Plan(
        "nvlink4",
        "switch",
        "scale_up",
        lambda q, _: (
            _inside(q)
            and q.operation == "all_reduce"
            and q.ranks_per_domain > 4
            and not q.overhead_s
            and q.algorithm != "ring"
        ),
        (*_SHORT, "bulk_step_s"),
    ),
    Plan(
        "nvlink3",
        "send_recv",
        "scale_up",
        lambda q, _: _inside(q) and q.operation == "send_recv",
        tuple(name for name in ALL if name != "own_frac"),
    ),
]

for _profile in ("custom-nvlink3", "custom-nvlink4", "custom-nvlink5", "trtllm-nvlink5"):
    PLANS.append(Plan(_profile, "one_shot+mesh", "scale_up", lambda q, _: _inside(q), _SHORT))
_LEVELS = ("step_s", "quick_frac", "mid_step_s", "mid_frac", "bulk_step_s", "bulk_frac")
# measured at one number of domains, launch and step can't be told apart: the launch is then kept; and where two
# stacks of one machine disagree on the rate of EFA v2, the rate is near perftest's, 97 % of the line rate
_FREE = {
    "infiniband-ndr": (*_LEVELS, "launch_s", "mid_start_s", "bulk_start_s", "overlap"),
    "efa-v1": _LEVELS,
    "efa-v2": ("step_s", "quick_frac", "mid_step_s", "mid_frac", "bulk_step_s"),
    "efa-v4": ("quick_frac", "mid_step_s", "mid_frac", "bulk_step_s", "bulk_frac"),
}
for _link in _FREE:
    PLANS.append(
        Plan(
            _link,
            "tree",
            "scale_out",
            lambda q, row: (
                not _inside(q)
                and q.operation == "all_reduce"
                and q.algorithm != "ring"
                and q.network.profile.scale_up.library == "nccl"
            ),
            _FREE[_link],
        )
    )
PLANS.append(
    Plan(
        "efa-v3",
        "send_recv",
        "scale_out",
        lambda q, _: not _inside(q) and q.operation == "send_recv",
        ("launch_s", "bulk_start_s", "bulk_frac"),
    )
)


def fitted_half(row: dict[str, str]) -> bool:
    """True for the half of the rows that constants are fitted to."""
    return zlib.crc32(row["id"].encode()) % 2 == 0


class Batch:
    """Questions stacked into few array calls: those of one operation, algorithm, machine shape and profile."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self.measured: list[np.ndarray] = []
        self.calls: list[tuple[Question, dict[str, np.ndarray]]] = []
        groups = defaultdict(list)
        for q in questions:
            net = q.network
            key = (
                q.operation,
                q.algorithm,
                net.topology,
                net.domain_size,
                net.in_network_reduction,
                net.scale_out_reduction,
                net.profile.name,
            )
            groups[key].append(q)
        for members in groups.values():
            columns = {
                "size": [q.size_bytes for q in members],
                "r": [q.ranks_per_domain for q in members],
                "n": [q.num_domains for q in members],
                "up": [q.network.scale_up_bytes_per_s for q in members],
                "out": [q.network.scale_out_bytes_per_s for q in members],
                "extra": [q.overhead_s for q in members],
            }
            self.calls.append((members[0], {key: np.array(value, float) for key, value in columns.items()}))
            self.measured.append(np.array([q.measured_s for q in members]))

    def log_ratio(self, change: Callable[[CollectiveProfile], CollectiveProfile]) -> np.ndarray:
        """log(predicted / measured) with the profile changed."""
        parts = []
        for (q, c), measured in zip(self.calls, self.measured, strict=True):
            net = q.network
            network = Network(
                scale_up_bytes_per_s=c["up"],
                scale_up_latency_s=0.0,
                domain_size=net.domain_size,
                topology=net.topology,
                scale_out_bytes_per_s=c["out"],
                scale_out_latency_s=0.0,
                profile=change(net.profile),
                in_network_reduction=net.in_network_reduction,
                scale_out_reduction=net.scale_out_reduction,
            )
            predicted = collective_time_s(
                q.operation, c["size"], network, ranks_per_domain=c["r"], num_domains=c["n"], algorithm=q.algorithm
            )
            parts.append(np.log((predicted + c["extra"]) / measured))
        return np.concatenate(parts)


def changed(profile: CollectiveProfile, scope: str, new: LinkProfile) -> CollectiveProfile:
    """The profile with one side replaced."""
    up, out = (new, profile.scale_out) if scope == "scale_up" else (profile.scale_up, new)
    return CollectiveProfile(name=profile.name, scale_up=up, scale_out=out)


def fit(plan: Plan, link: LinkProfile, rows: list[tuple[dict[str, str], Question]]) -> LinkProfile:
    """The link profile with one pipe fitted."""
    mine = [
        (row, q) for row, q in rows if getattr(q.network.profile, plan.scope).name == link.name and plan.rows(q, row)
    ]
    if plan.pipe == "tree":  # the ring between domains is derived from the tree, so it must not compete here
        mine = [(row, dataclasses.replace(q, algorithm=_tree(q))) for row, q in mine]
    train = Batch(q for row, q in mine if fitted_half(row))
    test = Batch(q for row, q in mine if not fitted_half(row))
    if not train.calls:
        print(f"{plan.profile}.{plan.pipe}: no rows")
        return link
    free = [(pipe, name) for pipe in plan.pipe.split("+") for name in plan.free]

    def with_values(values: np.ndarray) -> LinkProfile:
        pipes = dict(link.pipes)
        for pipe in plan.pipe.split("+"):
            new = {name: float(f"{np.exp(v):.3g}") for (p, name), v in zip(free, values, strict=True) if p == pipe}
            pipes[pipe] = msgspec.structs.replace(pipes[pipe], **new)
        return msgspec.structs.replace(link, pipes=pipes)

    def loss(values: np.ndarray) -> float:
        new = with_values(values)
        return float(np.mean(np.abs(train.log_ratio(lambda p: changed(p, plan.scope, with_fallback(new))))))

    bounds = [(np.log(BOUNDS[name][0]), np.log(BOUNDS[name][1])) for _, name in free]
    first = np.array(
        [
            np.clip(np.log(max(getattr(link.pipes[pipe], name), 1e-12)), *bound)
            for (pipe, name), bound in zip(free, bounds, strict=True)
        ]
    )
    found = differential_evolution(
        loss,
        bounds,
        x0=np.where(np.isfinite(first), first, [b[1] for b in bounds]),
        maxiter=300,
        popsize=10,
        seed=2,
        tol=1e-5,
        polish=False,
    )
    new = with_values(found.x)
    error = (
        np.abs(np.expm1(test.log_ratio(lambda p: changed(p, plan.scope, with_fallback(new)))))
        if test.calls
        else np.zeros(1)
    )
    sources = sorted({row["source_id"] for row, _ in mine})
    note = Fit(
        status="measured",
        data_set=f"collectives.csv ({', '.join(sources)})",
        script="tools/fit_collectives.py",
        points=sum(len(m) for m in train.measured),
        held_out_points=sum(len(m) for m in test.measured),
        held_out_median_error_frac=round(float(np.median(error)), 4),
        held_out_p90_error_frac=round(float(np.quantile(error, 0.9)), 4),
        note=f"mean |log ratio| of the fitted half {found.fun:.3f}",
    )
    print(
        f"{plan.profile}.{plan.pipe}: {note.points} points, fitted {found.fun:.3f}, "
        f"kept {note.held_out_median_error_frac:.3f} / p90 {note.held_out_p90_error_frac:.3f}"
    )
    if plan.pipe == "tree":
        new = with_ring(new)
    return msgspec.structs.replace(new, fits=new.fits | dict.fromkeys(plan.pipe.split("+"), note))


def _tree(question: Question) -> str:
    return "switch" if question.network.in_network_reduction else "tree"


def with_ring(link: LinkProfile) -> LinkProfile:
    """The ring and all-to-all between domains, from the fitted tree.

    A level of the tree is a hop up and a hop down, each of a message that is pipelined in two halves: a ring's step is
    a quarter of it. Two domains then take as long by ring as by tree.
    """
    tree = link.pipes["tree"]
    ring = msgspec.structs.replace(
        tree,
        launch_s=float(f"{tree.launch_s + tree.step_s / 2:.3g}"),
        step_s=float(f"{tree.step_s / 4:.3g}"),
        bulk_start_s=float(f"{tree.bulk_start_s + tree.bulk_step_s / 2:.3g}"),
        bulk_step_s=float(f"{tree.bulk_step_s / 4:.3g}"),
        bulk_frac=max(tree.bulk_frac, link.pipes["ring"].bulk_frac),
        mid_start_s=float(f"{tree.mid_start_s + tree.mid_step_s / 2:.3g}"),
        mid_step_s=float(f"{tree.mid_step_s / 4:.3g}"),
    )
    exchange = msgspec.structs.replace(link.pipes["all_to_all"], launch_s=ring.launch_s, bulk_start_s=ring.bulk_start_s)
    derived = Fit(status="derived", data_set="the tree of this file", script="tools/fit_collectives.py")
    return msgspec.structs.replace(
        link,
        pipes=link.pipes | {"ring": ring, "all_to_all": exchange},
        fits=link.fits | {"ring": derived, "all_to_all": derived},
    )


# link -> measured link whose constants it takes over, pipes, factor on its times and why
TAKEN_OVER: tuple[tuple[str, str, tuple[str, ...], float, str], ...] = (
    ("nvlink4", "nvlink3", ("send_recv",), 1.0, "times of NVLink 3"),
    ("nvlink5", "nvlink3", ("send_recv",), 1.0, "times of NVLink 3"),
    ("nvlink6", "nvlink5", ("ring", "all_to_all", "send_recv", "switch"), 1.0, "times and shares of NVLink 5"),
    ("infiniband-hdr", "infiniband-ndr", ("tree", "ring", "all_to_all"), 1.0, "times and shares of InfiniBand NDR"),
    ("infiniband-xdr", "infiniband-ndr", ("tree", "ring", "all_to_all"), 1.0, "times and shares of InfiniBand NDR"),
    ("roce", "infiniband-ndr", ("tree", "ring", "all_to_all"), 1.0, "times and shares of InfiniBand NDR"),
    ("omni-path", "infiniband-ndr", ("tree", "ring", "all_to_all"), 1.0, "times and shares of InfiniBand NDR"),
    ("generic-scale-out", "infiniband-ndr", ("tree", "ring", "all_to_all"), 1.0, "those of InfiniBand NDR"),
    ("efa-v3", "efa-v2", ("tree", "ring", "all_to_all"), 0.65, "EFA v2, latency 35 % lower (aws_efa_notes, a claim)"),
)


def take_over(profiles: dict[str, LinkProfile]) -> None:
    """Fill the pipes that nobody has measured from the nearest measured link."""
    for name, source, pipes, factor, why in TAKEN_OVER:
        link, given = profiles[name], profiles[source].pipes
        new = {}
        for pipe in pipes:
            times = {
                key: getattr(given[pipe], key) * factor for key in given[pipe].__struct_fields__ if key[-2:] == "_s"
            }
            new[pipe] = msgspec.structs.replace(given[pipe], **times)
        fits = dict.fromkeys(pipes, Fit(status="estimated", data_set="none published", note=why))
        profiles[name] = msgspec.structs.replace(link, pipes=link.pipes | new, fits=link.fits | fits)
        (DATA / f"{name}.toml").write_text(to_toml(profiles[name]))


def to_toml(link: LinkProfile | ExpertProfile) -> str:
    """The file's text: plain values first, then one table for each pipe, rule and fit."""

    def value(item: object) -> str:
        if isinstance(item, str):
            return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(item, tuple):
            return "[" + ", ".join(value(each) for each in item) + "]"
        return f"{item:.6g}" if isinstance(item, float) else str(item).lower()

    def lines(struct: msgspec.Struct) -> list[str]:
        defaults = dict(zip(reversed(struct.__struct_fields__), reversed(struct.__struct_defaults__), strict=False))
        return [
            f"{name} = {value(item)}"
            for name in struct.__struct_fields__
            if not isinstance(item := getattr(struct, name), dict) and item != defaults.get(name)
        ]

    text = lines(link)
    if isinstance(link, LinkProfile) and link.framework_launch_s:
        text += ["", "[framework_launch_s]", *(f"{value(k)} = {value(v)}" for k, v in link.framework_launch_s.items())]
    for table in ("pipes", "rules", "fits"):
        for name, struct in getattr(link, table, {}).items():
            text += ["", f"[{table}.{name}]", *lines(struct)]
    return "\n".join(text) + "\n"


FEW = 12
EXPERT_BOUNDS: dict[str, tuple[float, float]] = {
    "launch_s": (1 * US, 400 * US),
    "level_s": (0.01 * US, 60 * US),
    "token_s": (1e-11, 1e-6),
    "up_copy_s": (1e-11, 1e-6),
    "out_copy_s": (1e-11, 1e-5),
    "up_frac": (0.1, 1.0),
    "out_frac": (0.1, 1.0),
    "core_bytes_per_s": (1e9, 1e12),
}


def fit_expert(name: str, phase: str, rows: list[tuple[dict[str, str], Question]]) -> None:
    """Fit one phase of an expert-parallel library and write its file again."""
    path = DATA / f"{name}.toml"
    profile = loader.read_toml(path, ExpertProfile)
    mine = [(row, q) for row, q in rows if q.expert and q.expert.profile.name == profile.name and q.operation == phase]
    halves = [[q for row, q in mine if fitted_half(row) == half] for half in (True, False)]
    start = profile.pipes[phase]
    if len(mine) < FEW:  # too few to divide: all are fitted, none is kept, and only what they can tell is free
        halves = [[q for _, q in mine], []]
    # constants that the rows can't tell apart stay as they are
    free = [key for key in EXPERT_BOUNDS if key != "core_bytes_per_s" or np.isfinite(start.core_bytes_per_s)]
    if all(q.num_domains == 1 for _, q in mine):
        free = [key for key in free if not key.startswith("out_") and key != "level_s"]
    if phase == "prepare":
        free = ["launch_s", "level_s", "token_s"]
    if len(mine) < FEW:
        one_size = len({q.expert.routing.tokens_per_rank for _, q in mine}) == 1
        copy = "up_copy_s" if all(q.num_domains == 1 for _, q in mine) else "out_copy_s"
        free = [copy] if one_size else ["launch_s", copy]

    def changed_pipe(values: np.ndarray) -> ExpertProfile:
        new = {key: float(f"{np.exp(v):.3g}") for key, v in zip(free, values, strict=True)}
        return msgspec.structs.replace(profile, pipes=profile.pipes | {phase: msgspec.structs.replace(start, **new)})

    def log_ratio(questions: list[Question], new: ExpertProfile) -> np.ndarray:
        def stack(get: Callable[[Question], float]) -> np.ndarray:
            return np.array([get(q) for q in questions], float)

        network = dataclasses.replace(
            questions[0].network,
            scale_up_bytes_per_s=stack(lambda q: q.network.scale_up_bytes_per_s),
            scale_out_bytes_per_s=stack(lambda q: q.network.scale_out_bytes_per_s),
        )
        routing = Routing(
            tokens_per_rank=stack(lambda q: q.expert.routing.tokens_per_rank),
            token_bytes=stack(lambda q: q.expert.routing.token_bytes),
            top_k=stack(lambda q: q.expert.routing.top_k),
            num_cores=stack(lambda q: q.expert.routing.num_cores),
        )
        time = expert_parallel_time_s(
            phase,
            routing,
            network,
            new,
            ranks_per_domain=stack(lambda q: q.ranks_per_domain),
            num_domains=stack(lambda q: q.num_domains),
        )
        return np.log(time / stack(lambda q: q.measured_s))

    if not halves[0]:
        print(f"{name}.{phase}: no rows")
        return
    found = differential_evolution(
        lambda v: float(np.mean(np.abs(log_ratio(halves[0], changed_pipe(v))))),
        [tuple(np.log(EXPERT_BOUNDS[key])) for key in free],
        maxiter=300,
        popsize=10,
        seed=2,
        tol=1e-5,
        polish=False,
    )
    new = changed_pipe(found.x)
    error = np.abs(np.expm1(log_ratio(halves[1], new))) if halves[1] else np.zeros(1)
    note = Fit(
        status="measured",
        data_set=f"collectives.csv ({', '.join(sorted({row['source_id'] for row, _ in mine}))})",
        script="tools/fit_collectives.py",
        points=len(halves[0]),
        held_out_points=len(halves[1]),
        held_out_median_error_frac=round(float(np.median(error)), 4),
        held_out_p90_error_frac=round(float(np.quantile(error, 0.9)), 4),
        note=f"mean |log ratio| of the fitted half {found.fun:.3f}",
    )
    print(
        f"{name}.{phase}: {note.points} points, fitted {found.fun:.3f}, "
        f"kept {note.held_out_median_error_frac:.3f} / p90 {note.held_out_p90_error_frac:.3f}"
    )
    path.write_text(to_toml(msgspec.structs.replace(new, fits=new.fits | {phase: note})))


def main() -> None:
    """Fit every plan, or those of the profiles named on the command line."""
    truth, *only = sys.argv[1:]
    profiles = dict(link_profiles())
    rows = []
    with open(truth, newline="") as file:
        for row in csv.DictReader(file):
            try:
                rows.append((row, question_of(row)))
            except Skip:
                continue
    for plan in PLANS:
        if plan.profile in profiles and (not only or plan.profile in only):
            profiles[plan.profile] = fit(plan, profiles[plan.profile], rows)
            target = DATA / f"{plan.profile}.toml"
            target.write_text(to_toml(profiles[plan.profile]))
    take_over(profiles)
    for path in sorted(DATA.glob("expert-parallel-*.toml")):
        if not only or path.stem in only:
            for phase in loader.read_toml(path, ExpertProfile).pipes:
                fit_expert(path.stem, phase, rows)


if __name__ == "__main__":
    main()
