"""A video diffusion transformer: its blocks as layers, and how many tokens a video is.

The blocks are the layers of any transformer (workload.model); that attention is in both directions, and that a video
is computed in denoising steps instead of token by token, is the business of timing.diffusion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import DiffusionConfig, DiffusionEntry
from ultratwin.errors import CatalogueError, ModelError, unknown_name
from ultratwin.workload.model import NO_MLP, Attention, Layer, Mlp, Model, uniform_layers

_MOST: Final = {"dim": 10**6, "ffn_dim": 10**7, "num_heads": 10**5, "num_layers": 10_000, "text_len": 10**6}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoModel:
    """A diffusion transformer over the latents of a video.

    `transformer`: its blocks; vocabulary: the numbers of a patch. `joint_text_tokens` stand in the sequence beside
    the video's. `other_parameters`: weights beside the blocks that each rank holds. `passes`: forward passes of a
    denoising step, 2 with classifier-free guidance.
    """

    transformer: Model
    patch_size: tuple[int, int, int]
    vae_stride: tuple[int, int, int]
    joint_text_tokens: int
    other_parameters: float
    frames_per_s: float
    steps: int
    passes: int

    @property
    def id(self) -> str:
        """What the model is called."""
        return self.transformer.id

    @property
    def attention(self) -> Attention:
        """The attention of all blocks among the video's tokens."""
        found = self.transformer.layers[0].attention
        if not isinstance(found, Attention):
            raise ModelError(f"{self.id} has no attention")
        return found

    @property
    def num_blocks(self) -> int:
        """Blocks; those that attend to a text are two layers each."""
        mixers = [each.attention for each in self.transformer.layers]
        return sum(isinstance(each, Attention) and not each.cross for each in mixers)


def latent_frames(model: VideoModel, frames: int) -> int:
    """Frames of latents: the first frame of a video is one of its own, the others are compressed in time.

    Equation: 1 + ceil((F - 1) / s)
    Symbols: F frames, s stride of the autoencoder in time
    """
    return 1 + math.ceil((frames - 1) / model.vae_stride[0])


def tokens_per_latent_frame(model: VideoModel, height: int, width: int) -> int:
    """Tokens of one frame of latents.

    Equation: ceil(H / (s_h p_h)) ceil(W / (s_w p_w))
    Symbols: H x W pixels, s stride of the autoencoder, p edge of a patch
    Example:
        >>> tokens_per_latent_frame(load_video_model("wan2.1-14b"), 480, 832)
        1560
    """
    (_, rows, columns), (_, high, wide) = model.vae_stride, model.patch_size
    return math.ceil(height / (rows * high)) * math.ceil(width / (columns * wide))


def load_video_model(name: str | Path) -> VideoModel:
    """A diffusion transformer of the catalogue, or of a JSON file with the keys of `DiffusionConfig`.

    Raises: ModelError or CatalogueError for an unknown name, or sizes that can't be
    """
    path = Path(name)
    if isinstance(name, Path) or str(name).endswith(".json"):
        return video_model(_read(path), model_id=path.parent.name if path.name == "config.json" else path.stem)
    return _catalogued(str(name))


@cache
def _catalogued(name: str) -> VideoModel:
    spellings = {
        spelling.lower(): each
        for each in loader.ids("diffusion")
        for spelling in (each.replace("__", "/"), *loader.entry("diffusion", each).aliases)
    }
    if name.lower() not in spellings:
        names = [each.replace("__", "/") for each in loader.ids("diffusion")]
        error = unknown_name("diffusion model", name[:80], names, error=ModelError)
        error.hint = error.hint or "`ultratwin catalogue diffusion` lists all; a JSON file with the sizes does too"
        raise ModelError(error.what, allowed=error.allowed, hint=error.hint)
    found = loader.entry("diffusion", spellings[name.lower()])
    if not isinstance(found, DiffusionEntry):
        raise CatalogueError(f"{name} is not a diffusion model")
    other = found.figures["other_parameters"].si if "other_parameters" in found.figures else 0.0
    return video_model(found.config, model_id=found.name, other_parameters=other)


def _read(path: Path) -> DiffusionConfig:
    try:
        return msgspec.json.decode(path.read_bytes(), type=DiffusionConfig)
    except OSError as error:
        raise ModelError(f"the file can't be read: {error.strerror}", where=str(path), hint="check the path") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"not the sizes of a diffusion transformer: {error}", where=str(path),
            allowed="dim, ffn_dim, num_heads, num_layers and what else DiffusionConfig (catalogue/schema.py) has",
        ) from None  # fmt: skip


def video_model(config: DiffusionConfig, *, model_id: str, other_parameters: float = 0.0) -> VideoModel:
    """A diffusion transformer from its sizes.

    Raises: ModelError with all faults together
    """
    faults = [
        f"{name} = {value:,} is not from 1 to {most:,}"
        for name, most in _MOST.items()
        if not 1 <= (value := getattr(config, name)) <= most
    ]
    faults += [
        f"{name} = {value} is not three whole numbers from 1 to 1,024"
        for name, value in (("patch_size", config.patch_size), ("vae_stride", config.vae_stride))
        if not all(1 <= each <= 1024 for each in value)
    ]
    if not faults and config.dim % config.num_heads:
        faults.append(f"dim = {config.dim} is not a multiple of num_heads = {config.num_heads}")
    for name, low, high in (("sample_fps", 0.1, 1000.0), ("sample_steps", 1, 10_000), ("guidance_passes", 1, 8)):
        if not low <= getattr(config, name) <= high:
            faults.append(f"{name} = {getattr(config, name)} is not from {low:g} to {high:g}")
    if min(config.in_dim, config.out_dim) < 1:
        faults.append("in_dim and out_dim must be 1 or more")
    if faults:
        raise ModelError(f"the model cannot be: {'; '.join(faults)}", where=model_id)
    return VideoModel(
        transformer=_transformer(config, model_id),
        patch_size=config.patch_size,
        vae_stride=config.vae_stride,
        joint_text_tokens=config.text_len if config.text == "joint" else 0,
        other_parameters=other_parameters,
        frames_per_s=config.sample_fps,
        steps=config.sample_steps,
        passes=config.guidance_passes,
    )


def _transformer(config: DiffusionConfig, model_id: str) -> Model:
    heads, size = config.num_heads, config.dim // config.num_heads
    own = Attention(
        num_heads=heads, num_kv_heads=heads, head_dim=size, qkv_bias=True, output_bias=True, qk_norm=True,
        qk_norm_over_all=True,
    )  # fmt: skip
    mlp = Mlp(intermediate_size=config.ffn_dim, gated=False, bias=True)
    if config.text == "joint":
        block: tuple[Layer, ...] = (Layer(attention=own, mlp=mlp),)
    else:
        text = Attention(
            num_heads=heads, num_kv_heads=heads, head_dim=size, qkv_bias=True, output_bias=True, qk_norm=True,
            qk_norm_over_all=True, window=config.text_len, cross=True,
        )  # fmt: skip
        block = (Layer(attention=own, mlp=NO_MLP, num_norms=1), Layer(attention=text, mlp=mlp, num_norms=2))
    layers = uniform_layers(block[0], config.num_layers) if len(block) == 1 else block * config.num_layers
    return Model(
        id=model_id, hidden_size=config.dim, vocab_size=config.out_dim * math.prod(config.patch_size), layers=layers,
        norm="layernorm",
    )  # fmt: skip
