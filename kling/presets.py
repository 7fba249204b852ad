"""Presets: the one dial. A name fixes every size; everything derivable is derived. `tiny` runs on a laptop."""

from dataclasses import dataclass, replace

from kling.errors import ConfigError
from kling.model.config import DiTConfig, TextConfig, VAEConfig


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What the preset is trained on and makes by default."""

    width_px: int
    height_px: int
    num_frames: int
    fps: int


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model family of one size: three networks and the clip they are made for."""

    name: str
    dit: DiTConfig
    vae: VAEConfig
    text: TextConfig
    clip: ClipSpec
    shift: float  # sampling shift towards noise at the preset's resolution (SD3, arXiv:2403.03206, section 5.3.2)
    guidance: float  # classifier-free guidance scale
    num_steps: int


# Wan 2.1: 8x8x4 compression, 16 channels. Wan 2.2 (5b): 16x16x4, 48 channels.
_WAN21_VAE = VAEConfig(
    base_dim=96, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=2, temporal_downsample=(False, True, True)
)
_WAN22_VAE = VAEConfig(
    base_dim=160,
    decoder_base_dim=256,
    z_dim=48,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    patch_size=2,
    is_residual=True,
    in_channels=12,
    out_channels=12,
)
_UMT5_XXL = TextConfig(
    tokenizer="umt5",
    vocab_size=256_384,
    width=4096,
    mlp_dim=10_240,
    num_layers=24,
    num_heads=64,
    head_dim=64,
    max_tokens=512,
)
# ByT5's vocabulary: 3 special tokens, 256 bytes, 125 spare.
_TINY_TEXT = TextConfig(
    tokenizer="bytes", vocab_size=384, width=128, mlp_dim=256, num_layers=3, num_heads=4, head_dim=32, max_tokens=320
)


def _wan(num_layers: int, num_heads: int, mlp_dim: int, channels: int = 16, **ours) -> DiTConfig:
    return DiTConfig(
        num_layers=num_layers,
        num_heads=num_heads,
        head_dim=128,
        mlp_dim=mlp_dim,
        in_channels=channels,
        out_channels=channels,
        text_dim=_UMT5_XXL.width,
        **ours,
    )


_TINY = Preset(
    name="tiny",
    dit=DiTConfig(
        num_layers=6,
        num_heads=4,
        head_dim=48,
        mlp_dim=768,
        in_channels=32,
        out_channels=32,
        text_dim=_TINY_TEXT.width,
        patch=(1, 1, 1),  # a thing is one or two latents wide: 16 tokens a frame could not tell cubes from cones
        predicts="clean",
        control_width=128,  # 3 % of a step's arithmetic; 256 would be 13 %
        control_every=2,
        outline_cells=4,  # in 2 px: what is one latent wide has a shape only within it
        floor_waves=6,  # down to two thirds of a metre: two latents at the usual distance
    ),
    # 8x8x4 compression. The parameter-free short cuts of Wan 2.2's layout learn several times faster than without;
    # 32 channels, since an object of 8 px is one latent.
    vae=VAEConfig(
        base_dim=16,
        decoder_base_dim=24,
        z_dim=32,
        dim_mult=(1, 2, 2),
        num_res_blocks=1,
        temporal_downsample=(True, True),
        patch_size=2,
        is_residual=True,
        in_channels=12,
        out_channels=12,
    ),
    text=_TINY_TEXT,
    clip=ClipSpec(width_px=64, height_px=64, num_frames=17, fps=8),
    shift=3.0,
    guidance=2.0,
    num_steps=16,
)
_WAN_480P = Preset(
    name="1.3b",
    dit=_wan(30, 12, 8960),
    vae=_WAN21_VAE,
    text=_UMT5_XXL,
    clip=ClipSpec(width_px=832, height_px=480, num_frames=81, fps=16),
    shift=3.0,
    guidance=5.0,
    num_steps=50,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _TINY,
        replace(_WAN_480P, name="300m", dit=_wan(16, 8, 4608)),
        _WAN_480P,
        replace(
            _WAN_480P,
            name="5b",
            dit=_wan(30, 24, 14_336, channels=48),
            vae=_WAN22_VAE,
            clip=ClipSpec(width_px=1280, height_px=704, num_frames=121, fps=24),
            shift=5.0,
        ),
        # 40 heads, so that 8 ranks divide them; 34 blocks of Wan-14B's shape bring it to 12B.
        replace(
            _WAN_480P,
            name="12b",
            dit=_wan(34, 40, 13_824, channels=48),
            vae=_WAN22_VAE,
            clip=ClipSpec(width_px=1280, height_px=704, num_frames=121, fps=24),
            shift=5.0,
        ),
        replace(
            _WAN_480P,
            name="14b",
            dit=_wan(40, 40, 13_824),
            clip=ClipSpec(width_px=1280, height_px=720, num_frames=81, fps=16),
            shift=5.0,
        ),
    )
}


def get_preset(name: str) -> Preset:
    """Raises ConfigError that lists the presets when the name is none of them."""
    if name not in PRESETS:
        raise ConfigError("unknown preset", where=repr(name), fix=f"Choose one of: {', '.join(PRESETS)}")
    return PRESETS[name]
