"""What a launcher is: one training framework, and how a plan is said in its own flags or config."""

from __future__ import annotations

import dataclasses
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Chip
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.recipe import Recipe, recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.training import TrainingAnswer
from ultratwin.workload.model import Attention, LatentAttention, Layer, Mlp, Model, Moe


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A plan that can run, with all that a framework must be told.

    `ranks_per_node` and `domain_size` (of the scale-up domain) count the plan's ranks, not the framework's processes;
    `padded_to`: what the vocabulary is padded
    to a multiple of, times the tensor-parallel size.
    """

    name: str
    model: Model
    plan: Plan
    recipe: Recipe
    chip: Chip
    system: str
    ranks_per_chip: int
    num_nodes: int
    ranks_per_node: int
    domain_size: int
    num_steps: int
    padded_to: int
    version: str

    @property
    def schedule(self) -> str:
        """Name of the pipeline schedule."""
        return SCHEDULE_NAMES[int(self.plan.schedule)]

    @property
    def recompute(self) -> str:
        """Name of the recomputation."""
        return RECOMPUTE[int(self.plan.recompute)]


def job_of(answer: TrainingAnswer) -> Job:
    """What a launcher needs of an answer.

    Raises: ScenarioError if no plan can run
    """
    from ultratwin import __version__

    if answer.plan is None or answer.run is None:
        raise ScenarioError(
            f"no plan can run, so there is none to launch: {answer.rejected}",
            where="--launch",
            hint="more chips, or a layout that fits, first",
        )
    pool = answer.system.pool
    node_chips = min(pool.chips_per_node, answer.chips)
    return Job(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", answer.model.id.rsplit("/", 1)[-1])[:60].strip("-.") or "model",
        model=dataclasses.replace(answer.model, id=re.sub(r"[^A-Za-z0-9._/-]+", "-", answer.model.id)[:80]),
        plan=answer.plan.at(0),
        recipe=recipe(answer.precision),
        chip=pool.chip,
        system=answer.system.id,
        ranks_per_chip=pool.ranks_per_chip,
        num_nodes=-(-answer.chips // node_chips),
        ranks_per_node=node_chips * pool.ranks_per_chip,
        domain_size=pool.domain.size * pool.ranks_per_chip,
        num_steps=max(int(answer.run.num_steps), 1),
        padded_to=max(int(answer.profile.vocab_multiple), 1),
        version=__version__,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model as frameworks describe it: one attention, one dense and one expert block, and which layer has which.

    `window` is the one window's keys, 0 without; `windowed` and `experts` say for each layer whether it has them.
    """

    attention: Attention | LatentAttention
    dense: Mlp | None
    moe: Moe | None
    window: int
    windowed: tuple[bool, ...]
    experts: tuple[bool, ...]
    num_norms: int
    parallel_residual: bool

    @property
    def gated(self) -> bool:
        """Whether feed-forward blocks have three matrices."""
        blocks = [each for each in (self.dense, self.moe) if each is not None]
        return blocks[0].gated

    @property
    def intermediate_size(self) -> int:
        """Width of the dense block; of an expert where there is no dense layer."""
        if self.dense is not None:
            return self.dense.intermediate_size
        return 0 if self.moe is None else self.moe.expert_intermediate_size


class Launcher(ABC):
    """One framework. Its module's docstring names the version whose flags it writes.

    `families` are the chips that the framework trains on, as chips name theirs.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    families: ClassVar[tuple[str, ...]]

    @abstractmethod
    def files(self, job: Job) -> dict[str, str]:
        """The files that start the job: text by file name; names that end in .sh are scripts.

        Raises: ScenarioError for what the framework has no setting for
        """

    def refusal(self, what: str, *, allowed: str = "", hint: str = "") -> ScenarioError:
        """The error for something in the plan or the model that this framework cannot be told."""
        return ScenarioError(
            f"{what}, which {self.title} has no setting for", where=f"--launch {self.name}", allowed=allowed, hint=hint
        )

    def check_chip(self, job: Job) -> None:
        """Refuses chips that the framework does not run on."""
        if job.chip.family not in self.families:
            raise ScenarioError(
                f"{self.title} does not train on {job.chip.name}",
                where=f"--launch {self.name}",
                allowed="chips of the families " + ", ".join(self.families),
                hint=f"choose a --system of these, or another --launch for {job.system}",
            )

    def check_schedule(self, job: Job, known: Sequence[str]) -> None:
        """Refuses a pipeline schedule that the framework lacks; without a pipeline only DualPipe differs."""
        if job.schedule in known or (job.plan.pipeline_parallel_size == 1 and job.schedule in ("gpipe", "1f1b")):
            return
        raise self.refusal(
            f"the plan uses the {job.schedule} schedule", allowed=", ".join(known), hint=f"fix --schedule {known[0]}"
        )

    def check_precision(self, job: Job, known: Iterable[str]) -> None:
        """Refuses a precision recipe that the framework lacks."""
        if job.recipe.name not in known:
            raise self.refusal(
                f"the plan computes in {job.recipe.name}",
                allowed=", ".join(known),
                hint="fix --precision to one of these",
            )

    def shape(self, model: Model) -> Shape:
        """The model's one attention and at most two kinds of feed-forward block.

        Raises: ScenarioError where layers differ in more ways
        """
        kinds = model.layer_kinds()
        attentions = dict.fromkeys(self._full(model, layer) for layer in kinds)
        dense = dict.fromkeys(layer.mlp for layer in kinds if isinstance(layer.mlp, Mlp))
        moe = dict.fromkeys(layer.mlp for layer in kinds if isinstance(layer.mlp, Moe))
        windows = dict.fromkeys(_window(layer) for layer in kinds if _window(layer))
        forms = dict.fromkeys((layer.num_norms, layer.parallel_residual) for layer in kinds)
        for what, found in (("attentions", attentions), ("dense feed-forward blocks", dense), ("expert blocks", moe),
                            ("attention windows", windows), ("orders of norms and residuals", forms)):  # fmt: skip
            if len(found) > 1:
                raise self.refusal(f"{model.id} has layers with {len(found)} different {what}", allowed="one kind")
        if {block.gated for block in dense} | {block.gated for block in moe} == {True, False}:
            raise self.refusal(f"{model.id} has gated and plain feed-forward blocks", allowed="one kind")
        num_norms, parallel = next(iter(forms))
        return Shape(
            attention=next(iter(attentions)),
            dense=next(iter(dense), None),
            moe=next(iter(moe), None),
            window=next(iter(windows), 0),
            windowed=tuple(_window(layer) > 0 for layer in model.layers),
            experts=tuple(isinstance(layer.mlp, Moe) for layer in model.layers),
            num_norms=num_norms,
            parallel_residual=parallel,
        )

    def _full(self, model: Model, layer: Layer) -> Attention | LatentAttention:
        """A layer's attention, its window aside."""
        attention = layer.attention
        if not isinstance(attention, Attention | LatentAttention):
            raise self.refusal(f"{model.id} has recurrent layers", allowed="attention in every layer")
        if isinstance(layer.mlp, Moe) and layer.mlp.latent_size:
            raise self.refusal(f"{model.id} has experts that work on latents", allowed="experts of the hidden size")
        if isinstance(attention, LatentAttention):
            if attention.index_topk:
                raise self.refusal(f"{model.id} has sparse attention", allowed="attention to all tokens")
            return attention
        for flag, what in ((attention.output_gate, "gated attention outputs"),
                           (attention.value_width != attention.head_dim, "values of another size than keys"),
                           (attention.qk_norm_over_all, "norms over all heads of queries and keys"),
                           (not attention.num_heads, "layers without attention")):  # fmt: skip
            if flag:
                raise self.refusal(f"{model.id} has {what}", allowed="plain attention")
        return dataclasses.replace(attention, window=None)


def _window(layer: Layer) -> int:
    return (layer.attention.window or 0) if isinstance(layer.attention, Attention) else 0


def chunk_layers(num_layers: int, stages: int, chunks: int) -> list[int]:
    """Layers of every model chunk in the order of the layers, as the twin splits them (mapping.sharding).

    Equal chunks; layers that are missing are taken from the last chunk, then the first, then from the rest in turn.

    Example:
        >>> chunk_layers(32, 4, 2), chunk_layers(126, 16, 1)[:2], sum(chunk_layers(126, 16, 1))
        ([4, 4, 4, 4, 4, 4, 4, 4], [7, 8], 126)
    """
    count = stages * chunks
    most = -(-num_layers // count)
    missing = most * count - num_layers
    sizes = [most] * count
    if count == 1:
        return sizes
    from_last = min(-(-missing // 2), most)
    from_first = min(missing - from_last, most)
    sizes[-1] -= from_last
    sizes[0] -= from_first
    for _ in range(missing - from_last - from_first):
        sizes[max(range(1, count - 1), key=lambda index: (sizes[index], index))] -= 1
    return sizes


def header(job: Job, title: str) -> list[str]:
    """The comment at a file's head: what it starts and who wrote it."""
    plan = job.plan
    return [
        f"# {job.model.id} on {plan.num_ranks:,} ranks of {job.system} with {title}",
        f"# plan: {plan.describe()}, {job.schedule}, {job.recipe.name}",
        f"# written by ultratwin {job.version}",
    ]


def command(words: Sequence[str], arguments: Iterable[tuple[str, str | None]]) -> list[str]:
    """Lines of a shell command: the words, then one flag a line; values that start with $ stay variables.

    Args:
        words: the program and what is said on its line, already quoted
        arguments: flag and value; None for a flag without
    """
    lines = [" ".join(words)]
    for flag, value in arguments:
        lines.append(f"  {flag}" if value is None else f"  {flag} {quoted(value)}")
    return [line + " \\" for line in lines[:-1]] + [lines[-1]]


def quoted(value: str) -> str:
    """A word of a shell command: variables in double quotes, everything else as it is.

    Example:
        >>> quoted("8"), quoted("$DATA_PATH"), quoted("[0]*3")
        ('8', '"$DATA_PATH"', "'[0]*3'")
    """
    return f'"{value}"' if value.startswith("$") else shlex.quote(value)


def variables(names: Mapping[str, str]) -> list[str]:
    """Shell lines that take variables from the environment: with a default, or an error that names what to set.

    Args:
        names: default by variable; one that starts with ? has none, and says what the variable is
    """
    return [
        f'{name}="${{{name}:{default}}}"' if default.startswith("?") else f'{name}="${{{name}:-{default}}}"'
        for name, default in names.items()
    ]


def rendezvous(job: Job, processes_per_node: int) -> tuple[dict[str, str], list[str]]:
    """Variables and words that start one node's processes with torchrun."""
    names = {"NODE_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    if job.num_nodes > 1:
        names = {
            "NODE_RANK": f"?number of this node, 0 to {job.num_nodes - 1}",
            "MASTER_ADDR": "?address of node 0",
            "MASTER_PORT": "29500",
        }
    words = [
        "torchrun",
        f"--nnodes {job.num_nodes}",
        f"--nproc_per_node {processes_per_node}",
        '--node_rank "$NODE_RANK"',
        '--master_addr "$MASTER_ADDR"',
        '--master_port "$MASTER_PORT"',
    ]
    return names, words
