"""`python -m train finer PRESET SOURCE --out URI`: start a transformer from one that draws with coarser tokens, or has
fewer latent channels, or was told less of the plan.

Blocks stay as they are. What reads a patch becomes what reads one of its cells (summed over the patch, as if its cells
were alike); what writes a patch writes the mean of its cells. The result draws badly until it is trained, and learns
far faster than from random weights: it knows the words, the plan and the noise already (docs/tiny.md). Outlines and
the floor, which the source was not told, count nothing at first, and neither do new latent channels, which are
predicted as their mean: with equal patches the result draws what it drew.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import tyro
from einops import rearrange, reduce
from torch import Tensor

from kling.errors import CheckpointError, ConfigError
from kling.model.checkpoint import load_part, read_card, save_part
from kling.model.config import DiTConfig
from kling.model.dit import DiT
from kling.presets import Preset, get_preset


@dataclass(frozen=True, kw_only=True)
class Finer:
    """Make the preset's transformer from a trained one with larger patches, fewer latent channels, or without outlines
    or the floor."""

    preset: Annotated[str, tyro.conf.Positional]
    source: Annotated[str, tyro.conf.Positional]  # weights folder
    out: str  # weights folder: give it to a run as --start-from


def command(arguments: list[str]) -> None:
    """The subcommand's body."""
    print(finer(tyro.cli(Finer, args=arguments, prog="python -m train finer")))


def finer(request: Finer) -> str:
    """Write the part dit; returns a line that says what was done.

    Raises:
        ConfigError: the preset's own tokens hold more than one latent.
        CheckpointError: the source's sizes differ in more than the patch.
    """
    preset = get_preset(request.preset)
    card = read_card(request.source).parts["dit"].config
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in card.items()}
    coarse = DiT(DiTConfig(**fields))
    load_part(request.source, "dit", coarse)
    fine = refined(coarse, preset, where=request.source)
    changed = ", ".join(
        f"{name} {getattr(coarse.config, name)} made {getattr(fine.config, name)}"
        for name in ("patch", *_TOLD, *_CHANNELS)
        if getattr(coarse.config, name) != getattr(fine.config, name)
    )
    save_part(request.out, "dit", fine, preset=preset.name, note=changed)
    return f"dit: {changed or 'nothing to change'}: {request.out}"


def refined(coarse: DiT, preset: Preset, where: str = "") -> DiT:
    """The preset's transformer, of one latent a token, with ``coarse``'s weights. Raises as `finer`."""
    if preset.dit.patch != (1, 1, 1):
        raise ConfigError("only one latent a token is finer than any patch", where=f"{preset.name}: {preset.dit.patch}")
    fine, cells = DiT(preset.dit), math.prod(coarse.config.patch)
    coarse = _with_channels(_told_as_much(coarse, preset.dit), preset.dit)
    old, new = coarse.state_dict(), fine.state_dict()
    made = {name: _refined(name, old[name], new[name].shape, cells) for name in new if name in old}
    wrong = [name for name in {**old, **new} if name not in made or made[name].shape != new[name].shape]
    if wrong:
        raise CheckpointError(
            "more than the patch differs", where=f"{where} {sorted(wrong)[0]}", fix="Give weights of the same preset"
        )
    fine.load_state_dict(made)
    return fine


_TOLD = ("outline_cells", "floor_waves")
_CHANNELS = ("in_channels", "out_channels")
_READ_LATENTS = ("patch_in.weight", "controls.first_frame_in.weight", "controls.last_frame_in.weight")
_WRITE_LATENTS = ("patch_out.weight", "patch_out.bias")
_MAPS = "controls.tokens.maps.weight"


def _told_as_much(coarse: DiT, wanted: DiTConfig) -> DiT:
    """The same transformer with inputs for what it was not told yet; their weights are zero."""
    config = replace(
        coarse.config, **{name: getattr(wanted, name) for name in _TOLD if not getattr(coarse.config, name)}
    )
    wider = DiT(config)
    state = coarse.state_dict()
    for name, tensor in wider.state_dict().items():
        known = state.get(name)
        if known is None or (name == _MAPS and known.shape != tensor.shape):
            state[name] = torch.zeros_like(tensor)
        if known is not None and name == _MAPS:  # the first maps are the boxes'
            state[name][:, : known.shape[1]] = known
    wider.load_state_dict(state)
    return wider


def _with_channels(coarse: DiT, wanted: DiTConfig) -> DiT:
    """The same transformer with the wanted's latent channels, if they are more; weights of the new ones are zero."""
    old = coarse.config
    if not (old.in_channels <= wanted.in_channels and old.out_channels <= wanted.out_channels):
        return coarse  # the caller refuses it
    wider = DiT(replace(old, **{name: getattr(wanted, name) for name in _CHANNELS}))
    state, cells = coarse.state_dict(), math.prod(old.patch)
    for name, tensor in wider.state_dict().items():
        if name in (*_READ_LATENTS, *_WRITE_LATENTS):
            made = torch.zeros_like(tensor)
            if name in _READ_LATENTS:
                made[:, : cells * old.in_channels] = state[name]  # (channel cell): the new channels are last
            else:
                parts = rearrange(made, "(cell c) ... -> cell c ...", cell=cells)
                parts[:, : old.out_channels] = rearrange(state[name], "(cell c) ... -> cell c ...", cell=cells)
            state[name] = made
    wider.load_state_dict(state)
    return wider


def _refined(name: str, tensor: Tensor, shape: tuple[int, ...], cells: int) -> Tensor:
    """What ``tensor`` becomes; itself where it has no cells to join (the caller refuses what does not fit then)."""
    if name.startswith("patch_out") and tensor.shape == (cells * shape[0], *shape[1:]):
        return reduce(tensor, "(cell c) ... -> c ...", "mean", cell=cells)
    if tensor.ndim == 2 and tensor.shape == (shape[0], cells * shape[1]):
        return reduce(tensor, "d (c cell) -> d c", "sum", cell=cells)
    return tensor
