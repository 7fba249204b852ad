"""Sizes of the three networks. Typed, frozen, checked when made: an impossible size never reaches a tensor."""

from dataclasses import dataclass
from typing import Literal

from kling.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """The spatio-temporal diffusion transformer (Wan-shaped; Wan 2.1 report, arXiv:2503.20314, section 4.2).

    The fields down to ``eps`` mean what they mean in diffusers' ``WanTransformer3DModel``; those after it are ours and
    start at zero, so that a foreign checkpoint behaves as before.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    in_channels: int  # latent channels, plus mask and image latents for image-to-video checkpoints
    out_channels: int  # latent channels
    text_dim: int  # width of the text encoder's states
    patch: tuple[int, int, int] = (1, 2, 2)  # frames, height, width of latents per token
    time_freq_dim: int = 256
    image_dim: int | None = None  # width of CLIP image states (Wan 2.1 image-to-video only)
    eps: float = 1e-6
    window: int | None = 16  # latent frames a token sees in all: itself, half before, the rest after; None: every one
    # What the last layer says: the velocity (Wan), or the clean latents, of which the velocity is then made. The second
    # is easier for a narrow network: noise need not pass through it.
    predicts: Literal["velocity", "clean"] = "velocity"
    object_slots: int = 9  # what can be painted: 8 objects, and the place they are in (the last slot)
    control_width: int = 256  # width of the tokens that carry painted objects, camera and flow
    control_every: int = 4  # they are added at the input and again before every so many blocks
    outline_cells: int = 0  # parts a side of a latent cell in which outlines of objects are painted; 0: boxes alone
    floor_waves: int = 0  # waves a tile, each way, in which the floor's own coordinates are said; 0: no floor
    image_tokens: int | None = None  # of first and last frame together, where those have learned positions (Wan FLF2V)

    def __post_init__(self):
        if self.head_dim % 2 or self.head_dim < 6:
            raise ConfigError(
                "head_dim must be even and at least 6 (3-D RoPE splits it into pairs)",
                where=f"DiTConfig.head_dim={self.head_dim}",
                fix="Use 48, 64 or 128",
            )
        if self.window is not None and self.window < 1:
            raise ConfigError("the temporal window must be at least 1 latent frame", where=f"window={self.window}")
        for name in ("outline_cells", "floor_waves"):
            if getattr(self, name) < 0:
                raise ConfigError("counts are not negative", where=f"DiTConfig.{name}={getattr(self, name)}")
        for name in (
            "num_layers",
            "num_heads",
            "mlp_dim",
            "in_channels",
            "out_channels",
            "text_dim",
            "control_width",
            "control_every",
        ):
            if getattr(self, name) < 1:
                raise ConfigError("sizes are positive", where=f"DiTConfig.{name}={getattr(self, name)}")

    @property
    def width(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def object_maps(self) -> int:
        """Maps an object slot has (kling/scene/control.py): box in each of 4 frames, nearness, visibility; outline."""
        return 6 + 4 * self.outline_cells**2


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The causal video VAE: a size of diffusers' ``AutoencoderKLWan`` (Wan 2.1/2.2)."""

    base_dim: int
    z_dim: int  # latent channels
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]
    patch_size: int | None = None  # pixels folded into channels before the first convolution
    decoder_base_dim: int | None = None
    is_residual: bool = False  # Wan 2.2's 16x16x4 layout
    in_channels: int = 3  # 3 x patch_size^2 where the layout folds patches (Wan 2.2)
    out_channels: int = 3

    @property
    def stride_px(self) -> int:
        """Pixels per latent, height and width."""
        return (self.patch_size or 1) * 2 ** (len(self.dim_mult) - 1)

    @property
    def stride_frames(self) -> int:
        """Frames per latent frame, after the first, which stands alone (causal)."""
        return 2 ** sum(self.temporal_downsample)

    def latent_frames(self, num_frames: int) -> int:
        """Raises ConfigError unless num_frames is stride_frames * k + 1, naming the nearest legal counts."""
        stride = self.stride_frames
        if num_frames < 1 or (num_frames - 1) % stride:
            low = max(0, (num_frames - 1) // stride) * stride + 1
            raise ConfigError(
                f"this VAE takes {stride}k+1 frames",
                where=f"num_frames={num_frames}",
                fix=f"The nearest are {low} and {low + stride}",
            )
        return (num_frames - 1) // stride + 1


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text encoder: a size of transformers' ``UMT5EncoderModel`` (umT5-xxl in Wan)."""

    tokenizer: Literal["bytes", "umt5"]  # bytes: ByT5's, needs no file; umt5: sentencepiece beside the weights
    vocab_size: int
    width: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    head_dim: int
    max_tokens: int  # longer prompts are cut, and the cut is reported
