"""`python -m train wider PRESET SOURCE --out URI`: start a VAE from one with fewer features or latent channels.

Every feature becomes several neighbouring ones that say the same (arXiv:1511.05641), which the parameter-free short
cuts of Wan 2.2's layout keep apart: they average, or copy, runs of neighbouring channels. What reads a feature reads
its copies, in unequal parts, so that they learn different things. A new latent channel is written and not read at
first. The result reconstructs nearly as the source does, and has room to learn.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import Tensor

from kling.bench.reconstruct import load_vae
from kling.errors import CheckpointError
from kling.model.checkpoint import save_part
from kling.model.config import VAEConfig
from kling.model.vae import VideoVAE
from kling.presets import get_preset


@dataclass(frozen=True, kw_only=True)
class Wider:
    """Make the preset's VAE from a trained one with fewer features or latent channels."""

    preset: Annotated[str, tyro.conf.Positional]
    source: Annotated[str, tyro.conf.Positional]  # weights folder
    out: str  # weights folder: give it to a run of --stage vae as --start-from
    seed: int = 0


def command(arguments: list[str]) -> None:
    """The subcommand's body."""
    print(wider(tyro.cli(Wider, args=arguments, prog="python -m train wider")))


def wider(request: Wider) -> str:
    """Write the part vae; returns a line that says what was done.

    Raises:
        CheckpointError: the source has no VAE, a width of the preset is no multiple of the source's, it has fewer
            latent channels, or the layers differ.
    """
    preset = get_preset(request.preset)
    narrow = load_vae(request.source)
    vae = widened(narrow, preset.vae, torch.Generator().manual_seed(request.seed), where=request.source)
    changed = ", ".join(
        f"{name} {getattr(narrow.config, name)} made {getattr(preset.vae, name)}"
        for name in ("base_dim", "decoder_base_dim", "dim_mult", "z_dim")
        if getattr(narrow.config, name) != getattr(preset.vae, name)
    )
    save_part(request.out, "vae", vae, preset=preset.name, note=changed)
    return f"vae: {changed or 'nothing to change'}: {request.out}"


def widened(narrow: VideoVAE, config: VAEConfig, chance: torch.Generator, where: str = "") -> VideoVAE:
    """A VAE of ``config`` that does nearly what ``narrow`` does. Raises as `wider`."""
    if config.z_dim < narrow.config.z_dim:
        raise CheckpointError("the preset has fewer latent channels", where=where, fix="Give the VAE of a narrower one")
    wide = VideoVAE(config)
    old, new = narrow.state_dict(), wide.state_dict()
    for name in {**old, **new}:
        if name not in old or name not in new or old[name].ndim != new[name].ndim:
            raise CheckpointError("the layers differ", where=f"{where} {name}", fix="Only widths may differ")
        new[name] = _widened(name, old[name], new[name], chance, where)
    wide.load_state_dict(new)
    return wide


# Axes that hold latent channels: (first axis' parts, second axis' parts); 0: features. Mean and log variance are two.
_LATENT = {
    "latent_mean": (0, 1),
    "latent_std": (0, 1),
    "encoder.conv_out": (2, 0),
    "quant_conv": (2, 2),
    "post_quant_conv": (1, 1),
    "decoder.conv_in": (0, 1),
}
_UNEQUAL = 0.3  # how far the shares of two copies are from a half, at most, as a part of it
_START_LOGVAR = -5.0


def _widened(name: str, old: Tensor, new: Tensor, chance: torch.Generator, where: str) -> Tensor:
    """``old`` at ``new``'s shape; what stands for new latent channels is taken from ``new``'s random start."""
    module = name.rpartition(".")[0].removeprefix("net.") or name
    latent = _LATENT.get(module, (0, 0))
    made = old
    if not latent[0]:  # parts of an axis (queries, keys, values; two frames) stay parts
        made = made.repeat_interleave(_ratio(len(made), len(new), f"{where} {name}"), dim=0)
    if made.ndim > 1 and not latent[1]:
        made = _shared(made, new.shape[1], chance, f"{where} {name}")
    if module.endswith("to_qkv"):  # the products of queries and keys grow with the copies, their divisor with its root
        made = made.clone()
        made[: len(made) // 3] *= math.sqrt(len(old) / len(made))
    if any(latent):
        made = _padded(made, new, latent)
        if module == "quant_conv" and name.endswith("bias") and made.shape != old.shape:
            made[len(made) // 2 + len(old) // 2 :] = _START_LOGVAR
    return made


def _shared(tensor: Tensor, size: int, chance: torch.Generator, where: str) -> Tensor:
    """What was read of a feature is read of its copies, in random shares that sum to 1."""
    ratio = _ratio(tensor.shape[1], size, where)
    if ratio == 1:
        return tensor
    shares = 1 + _UNEQUAL * (2 * torch.rand(len(tensor), size // ratio, ratio, generator=chance) - 1)
    shares = (shares / shares.sum(dim=2, keepdim=True)).flatten(1)
    copies = tensor.repeat_interleave(ratio, dim=1)
    return copies * shares.reshape(*shares.shape, *[1] * (tensor.ndim - 2))


def _padded(tensor: Tensor, new: Tensor, parts: tuple[int, int]) -> Tensor:
    """Latent channels that ``tensor`` has where they were; others from ``new``, but read by nothing that was there."""
    made = new.clone()
    rows, columns = parts[0] or 1, parts[1] or 1
    if parts[1] and made.ndim > 2:  # convolutions; the statistics of new channels are 0 and 1, as they start
        made[:, _added(tensor.shape[1], new.shape[1], columns)] = 0.0
        if parts[0]:  # a new channel passes through the 1x1 convolutions
            new_rows = _added(len(tensor), len(new), rows)
            made[new_rows] = 0.0
            made[new_rows, _added(tensor.shape[1], new.shape[1], columns)] = 1.0
    kept_rows = _kept(len(tensor), len(new), rows)
    if tensor.ndim == 1:
        made[kept_rows] = tensor
    else:
        made[kept_rows[:, None], _kept(tensor.shape[1], new.shape[1], columns)] = tensor
    return made


def _kept(old: int, new: int, parts: int) -> Tensor:
    """Where old channels are among new ones, with equal parts one after another."""
    return torch.cat([torch.arange(old // parts) + part * (new // parts) for part in range(parts)])


def _added(old: int, new: int, parts: int) -> Tensor:
    kept = set(_kept(old, new, parts).tolist())
    return torch.tensor([i for i in range(new) if i not in kept], dtype=torch.long)


def _ratio(old: int, new: int, where: str) -> int:
    if new % old:
        raise CheckpointError(
            f"{new} features cannot be made of {old}",
            where=where,
            fix="Give a width that is a multiple of the source's",
        )
    return new // old
