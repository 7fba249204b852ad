"""The causal video VAE: pixels to normalised latents and back, frame group by frame group.

The network is diffusers' ``AutoencoderKLWan`` (Wan 2.1, arXiv:2503.20314, section 4.1) at the size of a `VAEConfig`.
What is added here: latents normalised to zero mean and unit deviation per channel (the first latent frame, which stands
for one frame and not for four, has its own statistics), and decoding as a stream with bounded memory.
"""

from collections.abc import Iterator
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from kling.errors import ConfigError
from kling.model.config import VAEConfig
from kling.shapes import Latents, Video


class VideoVAE(nn.Module):
    """Encode and decode whole clips; decode as a stream.

    The statistics buffers start at 0 and 1 (no normalisation) and are set by `fit_statistics` after training, or by the
    weights' importer.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig):
        super().__init__()
        from diffusers import AutoencoderKLWan  # here: it takes seconds, which a training rank has no use for

        self.config = config
        self.net = AutoencoderKLWan(
            base_dim=config.base_dim,
            decoder_base_dim=config.decoder_base_dim,
            z_dim=config.z_dim,
            dim_mult=list(config.dim_mult),
            num_res_blocks=config.num_res_blocks,
            temperal_downsample=list(config.temporal_downsample),
            is_residual=config.is_residual,
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            patch_size=config.patch_size,
            scale_factor_spatial=config.stride_px,
            scale_factor_temporal=config.stride_frames,
        )
        for module in self.net.modules():
            if isinstance(module, nn.Conv3d):
                module._conv_forward = partial(_convolved, module)
                # A third faster on CPUs, also in training.
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        # Row 0: the first latent frame; row 1: all others.
        self.register_buffer("latent_mean", torch.zeros(2, config.z_dim))
        self.register_buffer("latent_std", torch.ones(2, config.z_dim))

    def encode(self, video: Video) -> Latents:
        """Normalised latents (the posterior's mean). Sizes must be multiples of ``config.stride_px``.

        Raises:
            ConfigError: a size or frame count the VAE cannot take, with the nearest legal ones.
        """
        self._check(video)
        return self.normalise(self.net.encode(video).latent_dist.mode())

    def decode(self, latents: Latents) -> Video:
        """The whole clip at once; pixels clamped to [-1, 1]."""
        return self.net.decode(self.denormalise(latents)).sample

    @torch.no_grad()
    def decode_stream(self, latents: Latents) -> Iterator[Video]:
        """Pixels latent frame by latent frame (1 frame, then ``stride_frames`` each).

        Equal to `decode`, with the memory of one latent frame at a time and the first frames early.
        """
        yield from StreamDecoder(self).push(latents)

    def normalise(self, raw: Latents) -> Latents:
        return (raw - self._rows(self.latent_mean, raw)) / self._rows(self.latent_std, raw)

    def denormalise(self, latents: Latents, *, first: bool = True) -> Latents:
        """``first``: whether the first frame given is the clip's first."""
        return latents * self._rows(self.latent_std, latents, first) + self._rows(self.latent_mean, latents, first)

    def fit_statistics(self, raw: Latents) -> None:
        """Set the normalisation from unnormalised latents of many clips (b c f h w)."""
        for row, part in enumerate((raw[:, :, :1], raw[:, :, 1:])):
            if part.numel():
                flat = rearrange(part, "b c f h w -> c (b f h w)")
                self.latent_mean[row] = flat.mean(dim=1)
                self.latent_std[row] = flat.std(dim=1).clamp_min(1e-3)

    def _rows(self, table: Tensor, like: Latents, first: bool = True) -> Tensor:
        """1 c f 1 1: row 0 for the first frame, row 1 for the others."""
        index = torch.ones(like.shape[2], dtype=torch.long, device=table.device)
        if first:
            index[0] = 0
        return rearrange(table[index], "f c -> 1 c f 1 1")

    def _check(self, video: Video) -> None:
        self.config.latent_frames(video.shape[2])
        stride = self.config.stride_px
        for axis, size in zip(("height", "width"), video.shape[3:], strict=True):
            if size < stride or size % stride:
                low = max(stride, size // stride * stride)
                raise ConfigError(
                    f"{axis} must be a multiple of {stride} px",
                    where=f"{axis}={size}",
                    fix=f"The nearest are {low} and {low + stride}",
                )


class StreamDecoder:
    """Decodes latents as they arrive, keeping the causal convolutions' state between pushes.

    One decoder serves one clip; not safe for two clips at a time, since the state lives beside the weights only here.
    """

    def __init__(self, vae: VideoVAE):
        self._vae = vae
        num_convs = vae.net._cached_conv_counts["decoder"]
        self._cache: list[Tensor | str | None] = [None] * num_convs
        self._started = False

    @torch.no_grad()
    def push(self, latents: Latents) -> Iterator[Video]:
        """Yields b 3 g h w pixels for each latent frame: g is 1 for the clip's first, ``stride_frames`` after it."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        net = self._vae.net
        raw = net.post_quant_conv(self._vae.denormalise(latents, first=not self._started))
        for i in range(raw.shape[2]):
            index = [0]
            first = {} if self._started else {"first_chunk": True}
            out = net.decoder(raw[:, :, i : i + 1], feat_cache=self._cache, feat_idx=index, **first)
            self._started = True
            if self._vae.config.patch_size is not None:
                out = unpatchify(out, patch_size=self._vae.config.patch_size)
            yield out.clamp(-1.0, 1.0)


def _convolved(conv: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``conv`` does to x, by oneDNN where PyTorch would not take it.

    For one small clip on a CPU, PyTorch takes a convolution of its own, which needs more than twice the time
    (docs/log.md). oneDNN's has no gradient when it is called by name.
    """
    quick = x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if torch.is_grad_enabled() or not quick or isinstance(conv.padding, str):
        return nn.Conv3d._conv_forward(conv, x, weight, bias)
    return torch.mkldnn_convolution(x, weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
