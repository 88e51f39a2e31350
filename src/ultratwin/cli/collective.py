"""`ultratwin collective`: how long a collective of all chips takes, as a table of nccl-tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter, Token

from ultratwin.cli.parameters import Count, Flag, Names
from ultratwin.cli.printing import print_blocks, print_json
from ultratwin.cli.training_options import OUTPUT
from ultratwin.errors import ScenarioError, UnitError
from ultratwin.units import parse


def _sizes(type_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """1MB:16GB doubles from low to high; 1MB,64MB are sizes."""
    token = tokens[0]
    where = token.keyword or ""
    low, colon, high = token.value.partition(":")
    if not colon:
        return tuple(_bytes(each, where) for each in low.split(",") if each.strip())
    from ultratwin.planning.collective import doubling_sizes

    return doubling_sizes(_bytes(low, where), _bytes(high, where))


def _bytes(text: str, where: str) -> float:
    try:
        return parse(text, "byte", where=where)
    except UnitError as error:
        if error.where:
            raise
        # an unknown unit knows neither the text nor the option that it came from
        raise UnitError(f'"{text}": {error.what}', where=where, allowed="such as 64MB or 1GiB") from None


Sizes = Annotated[tuple[float, ...], Parameter(converter=_sizes, n_tokens=1, allow_leading_hyphen=True, negative=())]


@Parameter(name="*", group="Faults and routing (fidelity event)")
@dataclass(frozen=True, kw_only=True)
class Network:
    """What is not as it should be."""

    slow_link: Names = ()
    "LEVEL:INDEX=FRACTION of its rate, such as adapter:17=0.5, leaf:0=0.9 or x:3=25%; several with commas."
    straggler: Names = ()
    "CHIP=DELAY of each of its steps, such as 17=50us; several with commas."
    lost_rails: Count = 0
    "Adapters of every domain that can't be used; the others carry their share."
    routing: str = ""
    "spray or ecmp [default: the fabric's own]."
    seed: Count = 0
    "Seed of the hash that ecmp routes by."


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """What is printed."""

    json: Flag = False
    "Print JSON instead of the table."


def collective(
    operation: str,
    /,
    *,
    system: str,
    chips: Count | None = None,
    sizes: Sizes = (),
    fidelity: str = "analytic",
    algorithm: str = "",
    network: Network | None = None,
    output: Output | None = None,
) -> int:
    """How long a collective of all chips takes: size, count, time, algorithm and bus bandwidth.

    Parameters
    ----------
    operation
        all_reduce, all_gather, reduce_scatter or all_to_all.
    system
        A system of `ultratwin catalogue systems`.
    chips
        How many chips [default: one unit of the system]; beyond one domain, whole domains.
    sizes
        LOW:HIGH, doubling, or sizes with commas [default: 1MB:16GB].
    fidelity
        bound (what must be sent), analytic (closed form) or event (every flow on the links).
    algorithm
        ring, tree, hierarchical, ... [default: what the library would choose].
    """
    from ultratwin.hardware.system import load_system
    from ultratwin.planning.checks import checked_name
    from ultratwin.planning.collective import CollectiveQuestion, answer_collective, doubling_sizes
    from ultratwin.report import cluster as report

    found = load_system(checked_name("system", system))
    count = found.unit_chips if chips is None else chips
    chosen = network or Network()
    answer = answer_collective(
        CollectiveQuestion(
            operation=operation.replace("-", "_"),
            system=found.id,
            num_chips=count,
            sizes_bytes=sizes or doubling_sizes(1e6, 16e9),
            fidelity=fidelity,
            algorithm=algorithm.replace("-", "_"),
            faults=_faults(chosen, found.id, count),
            routing=chosen.routing,
            seed=chosen.seed,
        )
    )
    if output is not None and output.json:
        print_json(report.collective_json(answer))
    else:
        print_blocks(report.collective_blocks(answer))
    return 0


def _faults(network: Network, system: str, chips: int) -> Any:
    from ultratwin.hardware.topology.topology import build_topology
    from ultratwin.simulation.network.faults import Faults, Straggler, parse_slow_link

    if not (network.slow_link or network.straggler or network.lost_rails):
        return Faults()
    topology = build_topology(system, chips)
    stragglers = []
    for each in network.straggler:
        chip, equals, delay = each.partition("=")
        if not equals or not chip.strip().isdecimal():
            raise ScenarioError(f'"{each}" is no straggler', where="--straggler", allowed="CHIP=DELAY, such as 17=50us")
        stragglers.append(Straggler(chip=int(chip), delay_s=parse(delay, "second", where="--straggler")))
    return Faults(
        slow_links=tuple(parse_slow_link(each, topology) for each in network.slow_link),
        stragglers=tuple(stragglers),
        lost_rails=network.lost_rails,
    )
