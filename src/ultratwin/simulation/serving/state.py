"""The records of a simulation behind one pointer, so that calls between compiled functions stay cheap."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.experimental import structref

from ultratwin.simulation.serving.records import Sim


@structref.register
class StateType(types.StructRef):
    """Numba's type of it. Its name is in every symbol; there is one set of record types, so a short one is enough."""

    def __init__(self, fields: Any) -> None:
        super().__init__(fields)  # type: ignore[no-untyped-call]
        self.name = "State"


class State(structref.StructRefProxy):
    """In compiled code, what `Sim` is outside: State(*sim)."""


structref.define_proxy(State, StateType, list(Sim._fields))  # type: ignore[no-untyped-call]
