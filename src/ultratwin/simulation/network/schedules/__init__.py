"""Schedules of collectives: which flows follow which. One file each; a new one is a file and a line here."""

from __future__ import annotations

from typing import Final

from ultratwin.simulation.network.schedules.all_to_all import AllToAll
from ultratwin.simulation.network.schedules.axes import Axes
from ultratwin.simulation.network.schedules.halving_doubling import HalvingDoubling
from ultratwin.simulation.network.schedules.hierarchical import Hierarchical
from ultratwin.simulation.network.schedules.mesh import Mesh
from ultratwin.simulation.network.schedules.one_shot import OneShot
from ultratwin.simulation.network.schedules.ring import Ring
from ultratwin.simulation.network.schedules.schedule import Schedule
from ultratwin.simulation.network.schedules.switch import Switch
from ultratwin.simulation.network.schedules.tree import Tree

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES: Final[tuple[Schedule, ...]] = (
    Ring(),
    Tree(),
    Switch(),
    Mesh(),
    OneShot(),
    HalvingDoubling(),
    Hierarchical(),
    Axes(rotated=True),
    AllToAll(),
)
