"""What is not as it should be: slow links, lost rails, chips that lag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.topology.topology import Topology

FABRIC_LEVELS: Final = ("adapter", "leaf", "pod")
_SPEC: Final = re.compile(r"\s*([A-Za-z-]+):(\d+)\s*=\s*([-+.\deE]+)(%?)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowLink:
    """A link at a fraction of its rate, both ways.

    `level`: an axis of the domain or "adapter", with the chip's number as `index`; "leaf" or "pod" with that switch's.
    """

    level: str
    index: int
    left_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A chip that sends each step later than the others."""

    chip: int
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All that is wrong with a machine. `lost_rails`: adapters that no domain can use, whose share others take."""

    slow_links: tuple[SlowLink, ...] = ()
    stragglers: tuple[Straggler, ...] = ()
    lost_rails: int = 0


def parse_slow_link(text: str, topology: Topology) -> SlowLink:
    """LEVEL:INDEX=FRACTION, such as "adapter:17=0.5", "x:3=25%" or "leaf:0=0.9".

    Raises: ScenarioError for another form, a level or number that the machine lacks, a fraction outside 0 to 1
    """
    found = _SPEC.fullmatch(text)
    if found is None:
        raise ScenarioError(f'"{text}" is no slow link', allowed="LEVEL:INDEX=FRACTION", hint="such as adapter:17=0.5")
    try:
        frac = float(found[3]) * (0.01 if found[4] else 1.0)
    except ValueError:
        raise ScenarioError(f'"{found[3]}" is no fraction', where=text, allowed="above 0, at most 1") from None
    link = SlowLink(level=found[1], index=int(found[2]), left_frac=frac)
    check_faults(Faults(slow_links=(link,)), topology)
    return link


def levels_of(topology: Topology) -> dict[str, int]:
    """Levels that a link can be slow on, and how many places each has."""
    chips = topology.num_endpoints
    found = {axis.name: chips for axis in topology.domain.axes if axis.size > 1}
    if topology.fabric is not None:
        found |= {"adapter": chips, "leaf": topology.fabric.num_leaves, "pod": topology.fabric.num_pods}
    return found


def check_faults(faults: Faults, topology: Topology) -> None:
    """Whether a machine can have these faults.

    Raises: ScenarioError otherwise
    """
    levels = levels_of(topology)
    for link in faults.slow_links:
        where = f"slow link {link.level}:{link.index}"
        if link.level not in levels:
            raise unknown_name("level", link.level, levels, error=ScenarioError, where=where)
        if not 0 <= link.index < levels[link.level]:
            raise ScenarioError(
                f"{topology.name} has no {link.level} {link.index:,} here", allowed=f"0 to {levels[link.level] - 1:,}"
            )
        if not 0 < link.left_frac <= 1:
            raise ScenarioError(
                f"a link at {link.left_frac:g} of its rate", where=where, allowed="above 0, at most 1",
                hint="a link that is gone is a lost rail: --lost-rails 1",
            )  # fmt: skip
    for each in faults.stragglers:
        if not 0 <= each.chip < topology.num_endpoints:
            raise ScenarioError(f"there is no chip {each.chip:,}", allowed=f"0 to {topology.num_endpoints - 1:,}")
        if not 0 <= each.delay_s < 1e6:
            raise ScenarioError(f"a straggler's delay is {each.delay_s:g} s", allowed="0 or more, below 1e6 s")
    rails = topology.domain.size if topology.fabric is not None else 1
    if not 0 <= faults.lost_rails < rails:
        raise ScenarioError(f"{faults.lost_rails} lost rails of {rails}", allowed=f"0 to {rails - 1}")
