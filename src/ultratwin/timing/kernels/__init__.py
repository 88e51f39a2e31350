"""Kernel times: one abstract interface, a fitted model for most chips, a built-up one for Trainium."""

from __future__ import annotations

from ultratwin.hardware.chip import Chip
from ultratwin.timing.kernels.model import AttentionPhase, KernelModel, PassKind

__all__ = ["AttentionPhase", "KernelModel", "PassKind", "kernel_model"]


def kernel_model(chip: Chip) -> KernelModel:
    """The kernel model of a chip: built from the documented engines for Trainium, fitted to measurements otherwise."""
    if chip.family == "neuron":
        from ultratwin.timing.kernels.neuron import NeuronKernels

        return NeuronKernels(chip=chip)
    from ultratwin.timing.kernels.fitted import fitted_kernels

    return fitted_kernels(chip)
