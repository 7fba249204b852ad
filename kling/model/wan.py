"""Names and shapes of Wan's published weights (diffusers' ``WanTransformer3DModel``), both ways."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kling.errors import ConfigError
from kling.model.config import DiTConfig


def wan_sources(config: DiTConfig) -> dict[str, tuple[str, ...]]:
    """Each of our tensors, and the tensors of a diffusers ``WanTransformer3DModel`` that it is made of.

    Ours is theirs, joined along the first axis and reshaped. Controls are not in it: they have no counterpart.
    """
    pairs: dict[str, tuple[str, ...]] = {
        "out_modulation": ("scale_shift_table",),
    }

    def layer(ours: str, *theirs: str, bias: bool = True) -> None:
        for kind in ("weight", "bias") if bias else ("weight",):
            pairs[f"{ours}.{kind}"] = tuple(f"{name}.{kind}" for name in theirs)

    layer("patch_in", "patch_embedding")
    layer("patch_out", "proj_out")
    embed = "condition_embedder"
    layer("time.embed.0", f"{embed}.time_embedder.linear_1")
    layer("time.embed.2", f"{embed}.time_embedder.linear_2")
    layer("time.project", f"{embed}.time_proj")
    layer("text_in.0", f"{embed}.text_embedder.linear_1")
    layer("text_in.2", f"{embed}.text_embedder.linear_2")
    if config.image_dim is not None:
        for ours, theirs in zip("0134", ("norm1", "ff.net.0.proj", "ff.net.2", "norm2"), strict=True):
            layer(f"image_in.net.{ours}", f"{embed}.image_embedder.{theirs}")
        if config.image_tokens:
            pairs["image_in.positions"] = (f"{embed}.image_embedder.pos_embed",)
    for i in range(config.num_layers):
        block = f"blocks.{i}"
        own, cross = f"{block}.attn1", f"{block}.attn2"
        pairs[f"{block}.modulation"] = (f"{block}.scale_shift_table",)
        layer(f"{block}.attention.qkv", f"{own}.to_q", f"{own}.to_k", f"{own}.to_v")
        layer(f"{block}.cross_norm", f"{block}.norm2")
        layer(f"{block}.cross.q", f"{cross}.to_q")
        layer(f"{block}.cross.kv", f"{cross}.to_k", f"{cross}.to_v")
        for ours, theirs in ((f"{block}.attention", own), (f"{block}.cross", cross)):
            layer(f"{ours}.q_norm", f"{theirs}.norm_q", bias=False)
            layer(f"{ours}.k_norm", f"{theirs}.norm_k", bias=False)
            layer(f"{ours}.out", f"{theirs}.to_out.0")
        if config.image_dim is not None:
            layer(f"{block}.cross.image_kv", f"{cross}.add_k_proj", f"{cross}.add_v_proj")
            layer(f"{block}.cross.image_k_norm", f"{cross}.norm_added_k", bias=False)
        layer(f"{block}.mlp.0", f"{block}.ffn.net.0.proj")
        layer(f"{block}.mlp.2", f"{block}.ffn.net.2")
    return pairs


def from_wan(state: Mapping[str, Tensor], config: DiTConfig) -> Iterator[tuple[str, Tensor]]:
    """Our tensors (controls left out), one by one, from a diffusers state; shapes are checked by who takes them."""
    d, cells = config.width, math.prod(config.patch)
    shapes = {"patch_in.weight": (d, config.in_channels * cells), "out_modulation": (2, d)}
    for ours, theirs in wan_sources(config).items():
        parts = [state[name] for name in theirs]
        value = parts[0] if len(parts) == 1 else torch.cat(parts)
        shape = (6, d) if ours.endswith(".modulation") else shapes.get(ours, tuple(value.shape))
        yield ours, value.reshape(shape)


def to_wan(state: Mapping[str, Tensor], config: DiTConfig) -> Iterator[tuple[str, Tensor]]:
    """The state of a diffusers ``WanTransformer3DModel`` from ours, one tensor at a time; controls are left out."""
    for ours, theirs in wan_sources(config).items():
        value = state[ours]
        if ours == "patch_in.weight":
            value = value.reshape(config.width, config.in_channels, *config.patch)
        if ours.endswith("modulation"):
            value = value.unsqueeze(0)
        yield from zip(theirs, value.chunk(len(theirs)), strict=True)


def wan_config(config: DiTConfig) -> dict[str, object]:
    """Arguments of diffusers' ``WanTransformer3DModel`` for the same sizes.

    Raises:
        ConfigError: a transformer that predicts clean latents; diffusers would take them for the velocity.
    """
    if config.predicts != "velocity":
        raise ConfigError(
            "Wan's transformer predicts the velocity", where=f"predicts={config.predicts}", fix="Export another preset"
        )
    return {
        "patch_size": config.patch,
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "text_dim": config.text_dim,
        "freq_dim": config.time_freq_dim,
        "ffn_dim": config.mlp_dim,
        "num_layers": config.num_layers,
        "eps": config.eps,
        "image_dim": config.image_dim,
        "added_kv_proj_dim": config.width if config.image_dim is not None else None,
        "pos_embed_seq_len": config.image_tokens,
    }
