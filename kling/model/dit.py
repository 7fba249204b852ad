"""The spatio-temporal diffusion transformer, top to bottom.

latents b c f h w  ->  tokens b f s d (s = rows x columns of patches)  ->  blocks  ->  velocity b c f h w

Wan-shaped (Wan 2.1, arXiv:2503.20314, section 4.2), so that open weights load as they are (checkpoint.py): each block
is self-attention with normalised and rotated queries and keys, cross-attention to the text, and an MLP; the diffusion
time shifts, scales and gates them (adaLN, DiT, arXiv:2212.09748). What is ours is a temporal window, chunk-causal
attention, and controls that start at zero. Diffusion time t is in [0, 1]: 0 is data, 1 is noise.

Nothing here knows of ranks or devices: whoever spreads a video over several passes each a part of it (`origin`) and an
`attend` that finds the rest.
"""

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kling.errors import ConfigError
from kling.model.attention import Attend, Grid, Memory, Reach, attend, softmax_attention
from kling.model.config import DiTConfig
from kling.model.controls import ControlContext, ControlLayers, Controls, ZeroLinear, patches, waves
from kling.model.rope import rope_table, rotate
from kling.shapes import Latents, Tokens

_TIME_SCALE = 1000.0  # Wan counts diffusion time in thousandths
RUN_TOKENS = 1024  # done at a time where no gradient is kept: fits a CPU's cache, and fills a GPU with a wide model
LEAST_TIME = 0.2  # where clean latents are predicted: below, the loss would be 1/t^2 of their error, and little else


@dataclass(frozen=True, kw_only=True)
class Context:
    """What does not change while one video is denoised: made once by `DiT.prepare`, used at every step."""

    text: tuple[tuple[Tensor, Tensor], ...]  # keys and values of each block, b l n d
    text_mask: Tensor | None  # b 1 1 l, True on real tokens; None: all are
    image: tuple[tuple[Tensor, Tensor], ...]  # the same of CLIP image states; empty without
    controls: ControlContext

    def crop(self, start: int, stop: int, num_frames: int) -> "Context":
        """What belongs to frames [start, stop) of the ``num_frames`` it was prepared for: one chunk of a roll-out."""
        return replace(self, controls=self.controls.crop(start, stop, num_frames))


class DiT(nn.Module):
    """Predicts the velocity (noise - data) of noisy latents at a diffusion time, given text and controls."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        d, cells = config.width, math.prod(config.patch)
        self.patch_in = nn.Linear(config.in_channels * cells, d)
        self.time = TimeEmbedding(config)
        self.text_in = nn.Sequential(nn.Linear(config.text_dim, d), nn.GELU("tanh"), nn.Linear(d, d))
        self.image_in = ImageEmbedding(config) if config.image_dim is not None else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.out_modulation = nn.Parameter(torch.randn(2, d) / d**0.5)
        self.patch_out = nn.Linear(d, config.out_channels * cells)

        self.controls = ControlLayers(config)
        self.apply(initialise)
        nn.init.zeros_(self.patch_out.weight)

    def forward(
        self,
        latents: Latents,
        time: Float[Tensor, " b"] | Float[Tensor, "b t"],
        text: Tokens | Context,
        *,
        text_mask: Bool[Tensor, "b l"] | None = None,
        image: Float[Tensor, "b i e"] | None = None,
        controls: Controls | None = None,
        origin: tuple[int, int, int] = (0, 0, 0),
        chunk: int | None = None,
        first_chunk: int | None = None,
        attend: Attend = attend,
        memory: list[Memory] | None = None,
    ) -> Float[Tensor, "b v f h w"]:
        """One evaluation of the network.

        Args:
            latents: noisy latents; image-to-video checkpoints take mask and image latents as further channels.
            time: diffusion time of each clip, or of each latent frame (0 for a frame that is given).
            text: the text encoder's states, or the `Context` that `prepare` made of everything that is fixed.
            text_mask: True on the tokens to look at. None: on all, zero padding included (as Wan's weights expect).
            image: CLIP states of the first frame (and the last one's behind them), for checkpoints with `image_dim`.
            origin: absolute (frame, row, column) in tokens of the first token given.
            chunk: frames of tokens a chunk (``first_chunk`` in the first); later chunks are not seen. None: they are.
            attend: who computes self-attention (attention.py).
            memory: what earlier chunks left, one a block (`new_memory`). The latents are then one chunk, ``origin``
                says where, and the result is that of a whole forward with ``chunk``.

        Raises:
            ConfigError: sizes that the patch does not divide, or channels of another model.
        """
        context = (
            text
            if isinstance(text, Context)
            else self.prepare(text, text_mask=text_mask, image=image, controls=controls)
        )
        grid = self.grid(latents, origin)
        reach = Reach(grid=grid, window=self.config.window, chunk=chunk, first_chunk=first_chunk)
        table = rope_table(grid, self.config.head_dim, latents.device)  # l 1 e/2 2

        x = self.patch_in(patches(latents, self.config.patch))  # b f s d
        t, modulation = self.time(time, context.controls.fps)  # b f|1 1 d, 6 x b f|1 1 d
        for i, block in enumerate(self.blocks):
            x = self.controls.add(i, x, context.controls)  # b f s d
            x = block(
                x,
                modulation,
                table,
                reach,
                attend,
                memory[i] if memory else None,
                context.text[i],
                context.text_mask,
                context.image[i] if context.image else None,
            )  # b f s d
        shift, scale = (self.out_modulation.view(2, 1, 1, 1, -1) + t).unbind(0)  # b f|1 1 d
        x = _modulate(x, shift, scale, self.config.eps)  # b f s d
        out = self._unpatch(self.patch_out(x), grid)  # b c f h w
        return out if self.config.predicts == "velocity" else self._velocity(latents, out, time)

    def _velocity(self, noisy: Tensor, clean: Tensor, time: Tensor) -> Tensor:
        """The velocity that leads from the noisy latents to the clean ones: (x_t - x_0) / t (arXiv:2511.13720)."""
        t = rearrange(time, "b -> b 1 1 1 1") if time.ndim == 1 else rearrange(time, "b f -> b 1 f 1 1")
        return (noisy[:, : self.config.out_channels] - clean) / t.clamp_min(LEAST_TIME)

    def prepare(
        self,
        text: Tokens,
        *,
        text_mask: Bool[Tensor, "b l"] | None = None,
        image: Float[Tensor, "b i e"] | None = None,
        controls: Controls | None = None,
    ) -> Context:
        """Everything that is the same at every denoising step, computed once. Differentiable."""
        states = self.text_in(text)  # b l d
        crosses = [cast(Block, block).cross for block in self.blocks]
        pictures: tuple[tuple[Tensor, Tensor], ...] = ()
        if image is not None:
            if self.image_in is None:
                raise ConfigError("this model takes no CLIP image states", where="image", fix="Use first_frame")
            seen = self.image_in(image)  # b i d
            pictures = tuple(cross.image_keys(seen) for cross in crosses)
        return Context(
            text=tuple(cross.text_keys(states) for cross in crosses),
            text_mask=None if text_mask is None else text_mask[:, None, None, :],
            image=pictures,
            controls=self.controls(controls or Controls()),
        )

    def grid(self, latents: Tensor, origin: tuple[int, int, int] = (0, 0, 0)) -> Grid:
        """The tokens of these latents. Raises ConfigError that names the nearest legal sizes."""
        if latents.shape[1] != self.config.in_channels:
            raise ConfigError(
                f"this model takes {self.config.in_channels} latent channels", where=f"channels={latents.shape[1]}"
            )
        counts = []
        for axis, size, patch in zip(("frames", "height", "width"), latents.shape[2:], self.config.patch, strict=True):
            if size < patch or size % patch:
                low, high = max(1, size // patch) * patch, (size // patch + 1) * patch
                raise ConfigError(
                    f"latent {axis} must be a multiple of the patch ({patch})",
                    where=f"{axis}={size}",
                    fix=f"The nearest are {low} and {high}" if low != high else f"The nearest is {low}",
                )
            counts.append(size // patch)
        return Grid(frames=counts[0], height=counts[1], width=counts[2], origin=origin)

    def new_memory(self) -> list[Memory]:
        """Empty memory for a chunk-causal roll-out: what later frames can see, so window // 2 frames."""
        keep = None if self.config.window is None else self.config.window // 2
        return [Memory(keep_frames=keep) for _ in self.blocks]

    def _unpatch(self, x: Tensor, grid: Grid) -> Tensor:
        pf, ph, pw = self.config.patch
        return rearrange(
            x, "b f (h w) (pf ph pw c) -> b c (f pf) (h ph) (w pw)", h=grid.height, w=grid.width, pf=pf, ph=ph, pw=pw
        )


class Block(nn.Module):
    """Self-attention, cross-attention, MLP; each a gated or plain addition to the stream of tokens."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        d = config.width
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(6, d) / d**0.5)
        self.attention = SelfAttention(config)
        self.cross_norm = nn.LayerNorm(d, config.eps)
        self.cross = CrossAttention(config)
        self.mlp = MLP(nn.Linear(d, config.mlp_dim), Gelu(), nn.Linear(config.mlp_dim, d))

    def forward(self, x, modulation, table, reach, attend, memory, text, text_mask, image):
        """x: b f s d; modulation: 6 b f|1 1 d; text, image: keys and values of this block."""
        modulation = self.modulation.view(6, 1, 1, 1, -1) + modulation  # 6 b f|1 1 d
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.unbind(0)  # each b f|1 1 d
        y = self.attention(_modulate(x, shift, scale, self.eps), table, reach, attend, memory)  # b f s d
        x = torch.addcmul(x, y, gate)  # b f s d
        x = x + self.cross(self.cross_norm(x), text, text_mask, image)  # b f s d
        y = self.mlp(_modulate(x, mlp_shift, mlp_scale, self.eps))  # b f s d
        return torch.addcmul(x, y, mlp_gate)  # b f s d


class SelfAttention(nn.Module):
    """Every token to the tokens that `Reach` lets it see. Queries and keys are normalised over all heads together."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        d = config.width
        self.num_heads, self.eps = config.num_heads, config.eps
        self.qkv = nn.Linear(d, 3 * d)
        self.q_norm = nn.RMSNorm(d, config.eps)
        self.k_norm = nn.RMSNorm(d, config.eps)
        self.out = nn.Linear(d, d)

    def forward(self, x: Tensor, table: Tensor, reach: Reach, attend: Attend, memory: Memory | None) -> Tensor:
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.num_heads, -1))  # b l 3 n e
        q, k = self._turned(qkv[:, :, :2], table).unbind(2)  # b l n e
        y = attend(q, k, qkv[:, :, 2], reach, memory)  # b l n e
        return self.out(y.flatten(2)).view(x.shape)  # b f s d

    def _turned(self, qk: Tensor, table: Tensor) -> Tensor:
        """Queries and keys normalised and rotated, both at once, in fp32: b l 2 n e. A long clip's in their own place,
        run by run, where no gradient is kept."""
        weight = torch.stack((self.q_norm.weight, self.k_norm.weight)).view(2, self.num_heads, -1)  # 2 n e
        if _at_once(qk.shape[1]):
            return rotate(_rms_norm(qk, weight, self.eps, dims=2), table).type_as(qk)
        for part, turns in zip(qk.split(RUN_TOKENS, dim=1), table.split(RUN_TOKENS), strict=True):
            part.copy_(rotate(_rms_norm(part, weight, self.eps, dims=2), turns))
        return qk


class CrossAttention(nn.Module):
    """Every token to the text, and to CLIP image states where the checkpoint has them."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        d = config.width
        self.num_heads = config.num_heads
        self.q = nn.Linear(d, d)
        self.kv = nn.Linear(d, 2 * d)
        self.q_norm = nn.RMSNorm(d, config.eps)
        self.k_norm = nn.RMSNorm(d, config.eps)
        self.out = nn.Linear(d, d)
        self.image_kv = nn.Linear(d, 2 * d) if config.image_dim is not None else None
        self.image_k_norm = nn.RMSNorm(d, config.eps) if config.image_dim is not None else None

    def forward(self, x: Tensor, text: tuple[Tensor, Tensor], mask: Tensor | None, image) -> Tensor:
        q = _heads(self.q_norm(self.q(x.flatten(1, 2))), self.num_heads)  # b l n e
        y = softmax_attention(q, *text, mask)  # b l n e
        if image is not None:
            y = y + softmax_attention(q, *image)  # b l n e
        return self.out(y.flatten(2)).view(x.shape)  # b f s d

    def text_keys(self, text: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.kv(text).chunk(2, dim=-1)  # b l d
        return _heads(self.k_norm(k), self.num_heads), _heads(v, self.num_heads)  # b l n e

    def image_keys(self, image: Tensor) -> tuple[Tensor, Tensor]:
        assert self.image_kv is not None and self.image_k_norm is not None
        k, v = self.image_kv(image).chunk(2, dim=-1)  # b i d
        return _heads(self.image_k_norm(k), self.num_heads), _heads(v, self.num_heads)  # b i n e


class TimeEmbedding(nn.Module):
    """Diffusion time to what it does in every block: six vectors (shift, scale, gate of attention and of the MLP)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        d = config.width
        self.freq_dim = config.time_freq_dim
        self.embed = nn.Sequential(nn.Linear(config.time_freq_dim, d), nn.SiLU(), nn.Linear(d, d))
        self.project = nn.Linear(d, 6 * d)

    def forward(self, time: Tensor, fps: Tensor | None) -> tuple[Tensor, Tensor]:
        time = time[:, None] if time.ndim == 1 else time  # b f|1
        rates = waves(time * _TIME_SCALE, self.freq_dim)  # b f|1 freq
        t = self.embed(rates.to(self.project.weight.dtype))  # b f|1 d
        t = t if fps is None else t + fps  # b f|1 d
        return t[:, :, None], rearrange(self.project(F.silu(t)), "b f (six d) -> six b f 1 d", six=6)


class ImageEmbedding(nn.Module):
    """CLIP image states to tokens (Wan 2.1 image-to-video); learned positions where two images are given (FLF2V)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        assert config.image_dim is not None
        e, d = config.image_dim, config.width
        self.net = nn.Sequential(nn.LayerNorm(e), nn.Linear(e, e), nn.GELU(), nn.Linear(e, d), nn.LayerNorm(d))
        self.positions = nn.Parameter(torch.zeros(1, config.image_tokens, e)) if config.image_tokens else None

    def forward(self, image: Tensor) -> Tensor:
        if self.positions is not None:
            image = image + self.positions  # b i e
        return self.net(image)  # b i d


class MLP(nn.Sequential):
    """Token by token, so that where no gradient is kept the hidden layer, the widest of all, is never held whole."""

    def forward(self, input: Tensor) -> Tensor:
        tokens = input.flatten(0, -2)  # (b f s) d
        if _at_once(len(tokens)):
            return super().forward(input)
        return torch.cat([super(MLP, self).forward(part) for part in tokens.split(RUN_TOKENS)]).view(input.shape)


class Gelu(nn.Module):
    """GELU with tanh. In fp32 without gradients as x sigmoid(2u): the same, in half the time of torch's own on CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32 or (torch.is_grad_enabled() and x.requires_grad):
            return F.gelu(x, approximate="tanh")
        u = x * x
        torch.addcmul(x, u, x, value=0.044715, out=u)  # x + 0.044715 x^3
        return u.mul_(2 * math.sqrt(2 / math.pi)).sigmoid_().mul_(x)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm, then x (1 + scale) + shift."""
    d = x.shape[-1]
    if shift.numel() == d:  # one clip, one time: shift and scale are a LayerNorm's own weights, and cost no pass more
        return F.layer_norm(x, (d,), 1 + scale.view(d), shift.view(d), eps)
    return torch.addcmul(shift, F.layer_norm(x, (d,), eps=eps), 1 + scale)


def _rms_norm(x: Tensor, weight: Tensor, eps: float, dims: int = 1) -> Tensor:
    """x weight / sqrt(mean x^2 + eps), the mean over the last axes; at least in fp32. On CPU faster than torch's."""
    over = tuple(range(-dims, 0))
    norm = torch.linalg.vector_norm(x, dim=over, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return x * torch.rsqrt(norm * norm / weight.shape[-dims:].numel() + eps) * weight


def _at_once(num_tokens: int) -> bool:
    """Whether this many tokens are done together; else in runs, which a compiler would unroll."""
    return num_tokens <= RUN_TOKENS or torch.is_grad_enabled() or torch.compiler.is_compiling()


def _heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1))  # b l (n e) -> b l n e


def initialise(layer: nn.Module) -> None:
    """Weights to start training from: Xavier for matrices, as Wan does; fused ones as the matrices they hold."""
    if isinstance(layer, nn.Linear) and not isinstance(layer, ZeroLinear):
        rows = layer.out_features
        parts = rows // layer.in_features if rows in (2 * layer.in_features, 3 * layer.in_features) else 1
        for weight in layer.weight.chunk(parts):
            nn.init.xavier_uniform_(weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
