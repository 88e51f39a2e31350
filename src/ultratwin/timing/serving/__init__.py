"""Serving: how long one iteration of an engine takes, as a formula over batches and as tables for event loops."""

from ultratwin.timing.serving.bound import bound_s
from ultratwin.timing.serving.iteration import ServingSetting, iteration_parts
from ultratwin.timing.serving.tables import IterationTables, iteration_tables

__all__ = ["IterationTables", "ServingSetting", "bound_s", "iteration_parts", "iteration_tables"]
