"""State-space layers: Mamba-2 (as chunked matrix products) and Mamba (as a scan over channels)."""

from __future__ import annotations

from ultratwin.workload.model import Mamba, Mamba2
from ultratwin.workload.operators import Gemm, Operator, Parameter, Part, Saved, Vector


def mamba2_part(mamba: Mamba2, hidden_size: int) -> Part:
    """Input projection, short convolution, chunked scan, gated norm, output projection.

    Equation: in: h -> 2 d + 2 g n + a; conv over c = d + 2 g n channels; out: d -> h; scan, FLOP per token:
              2 (Q g n + Q d / 2 + 2 d n) for C B', its product with x (causal), states in and out
    Symbols: a heads, d = heads x head size, n state size, g groups, Q tokens of a chunk
    Source: Dao and Gu 2024 (arXiv 2405.21060) sections 6 and 7
    """
    heads, inner = mamba.num_heads, mamba.num_heads * mamba.head_dim
    shared = 2 * mamba.num_groups * mamba.state_size
    channels = inner + shared
    into = inner + channels + heads
    chunk = mamba.chunk_size
    states = inner * mamba.state_size / chunk  # a state is kept for every chunk, in 32 bits
    depth = shared / 2 * chunk / inner + chunk / 2 + 2 * mamba.state_size
    scanned = 2 * inner + shared + heads
    operators: tuple[Operator, ...] = (
        Gemm(name="ssm input projection", n=into, k=hidden_size, split="column"),
        convolution(channels),
        # written by their chunk, read and written when passed on, read by the next chunk
        scan_pass(scanned + 2 * 4 * states),
        Gemm(name="chunked scan", n=inner, k=max(1, round(depth)), split="column", is_scan=True),
        gated_norm(inner),
        Gemm(name="ssm output projection", n=hidden_size, k=inner, split="row"),
    )
    return Part(
        operators=operators,
        parameters=(
            Parameter(name="ssm input weight", elements=(hidden_size + mamba.projection_bias) * into, split="tensor"),
            Parameter(name="convolution", elements=channels * (mamba.conv_kernel + mamba.conv_bias), split="tensor"),
            Parameter(name="decay, skip, step bias, norm", elements=3 * heads + inner, split="tensor"),
            Parameter(name="ssm output weight", elements=inner * hidden_size, split="tensor"),
            Parameter(name="ssm output bias", elements=hidden_size * mamba.projection_bias, split="none"),
        ),
        saved=(
            Saved(name="ssm input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="z, x, B, C, steps", elements=into, element_bytes=2, split="tensor"),
            Saved(name="convolution output", elements=channels, element_bytes=2, split="tensor"),
            Saved(name="chunk states", elements=states, element_bytes=4, split="tensor"),
            Saved(name="scan output, normed", elements=2 * inner, element_bytes=2, split="tensor"),
        ),
    )


def mamba_part(mamba: Mamba, hidden_size: int) -> Part:
    """Input projection, short convolution, step sizes, selective scan, output projection.

    Equation: in: h -> 2 i; x: i -> r + 2 n; step: r -> i; out: i -> h; scan: about 9 i n operations per token
    Symbols: i channels, n state size, r rank of the step size
    Source: Gu and Dao 2023 (arXiv 2312.00752) section 3 and appendix D for what is recomputed
    """
    inner, state, rank = mamba.inner_size, mamba.state_size, mamba.step_rank
    selected = rank + 2 * state
    operators: tuple[Operator, ...] = (
        Gemm(name="ssm input projection", n=2 * inner, k=hidden_size, split="column"),
        convolution(inner),
        Gemm(name="selection projection", n=selected, k=inner, split="row"),
        Gemm(name="step projection", n=inner, k=rank, split="column"),
        scan_pass(4 * inner + 2 * state),
        Gemm(name="selective scan", n=inner, k=max(1, round(4.5 * state)), split="column", is_scan=True),
        Gemm(name="ssm output projection", n=hidden_size, k=inner, split="row"),
    )
    biases = 2 * inner * mamba.projection_bias + inner  # the step projection always has one
    return Part(
        operators=operators,
        parameters=(
            Parameter(name="ssm input weight", elements=2 * inner * hidden_size, split="tensor"),
            Parameter(name="convolution", elements=inner * (mamba.conv_kernel + mamba.conv_bias), split="tensor"),
            Parameter(name="selection and steps", elements=inner * (selected + rank) + biases, split="tensor"),
            Parameter(name="decay and skip", elements=inner * (state + 1), split="tensor"),
            Parameter(name="ssm output weight", elements=inner * hidden_size, split="tensor"),
            Parameter(
                name="ssm norms and output bias",
                elements=selected * mamba.inner_norms + hidden_size * mamba.projection_bias,
                split="none",
            ),
        ),
        saved=(
            Saved(name="ssm input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="x, z", elements=2 * inner, element_bytes=2, split="tensor"),
            Saved(name="convolution output, steps", elements=2 * inner, element_bytes=2, split="tensor"),
            Saved(name="scan output", elements=inner, element_bytes=2, split="tensor"),
        ),
    )


def convolution(channels: int) -> Vector:
    """The short causal convolution: reads and writes each channel."""
    return Vector(
        name="short convolution",
        kind="elementwise",
        forward_elements=2 * channels,
        backward_elements=3 * channels,
        split="tensor",
    )


def gated_norm(width: int) -> Vector:
    """A norm of the scan's output, multiplied by its gate."""
    return Vector(
        name="gated norm", kind="norm", forward_elements=3 * width, backward_elements=6 * width, split="tensor"
    )


def scan_pass(elements: float, name: str = "scan pass") -> Vector:
    """What a scan moves through memory; backward runs it again and moves its gradients."""
    return Vector(
        name=name,
        kind="elementwise",
        forward_elements=elements,
        backward_elements=2.5 * elements,
        split="tensor",
        is_scan=True,
    )
