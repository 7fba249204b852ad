"""The objective: rectified flow on latents, with what the model has to do without left out now and then.

One function draws everything that is random about a step (`draw`), one computes the loss (`loss_of`). What changes the
shape of the computation (chunks, a given first frame) is drawn for the whole step, so that all ranks do the same; what
does not (time, noise, dropped text, dropped plan) is drawn a sample, by the sample's own generator: the same on any
number of ranks.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from kling.diffusion.flow import interpolate, velocity_target
from kling.diffusion.times import shift_times
from kling.model.controls import Controls
from kling.scene.control import STRIDE_FRAMES
from kling.shapes import Latents

from .batches import Batch, sample_rng
from .config import ObjectiveConfig

NOISE_LEVELS = (0.25, 0.5, 0.75, 1.0)  # the loss is told apart up to each of these times


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A step, ready for the network."""

    noisy: Latents
    noise: Latents
    time: Tensor  # b f
    weight: Tensor  # b f: 0 on frames that are given
    cell_weight: Tensor  # b 1 f h w: more where something is painted; the mean over a clip is 1
    text: Tensor
    text_mask: Tensor
    controls: Controls
    chunk: int | None  # latent frames a chunk; None: every frame sees every other

    def to(self, device: torch.device) -> "Draw":
        made = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, controls=self.controls.to(device), **made)


_TENSORS = ("noisy", "noise", "time", "weight", "cell_weight", "text", "text_mask")


def draw(batch: Batch, config: ObjectiveConfig, *, seed: int, shift: float) -> Draw:
    """Everything random about this step, as a function of (seed, step, place)."""
    shift = shift if config.shift is None else config.shift
    step_rng = np.random.default_rng((seed, 4, batch.step))
    chunked = bool(step_rng.random() < config.chunk_share)
    given_first = bool(step_rng.random() < config.first_frame_share)
    frames = batch.latents.shape[2]
    chunk = int(step_rng.choice(config.chunk_frames)) if chunked else None
    # A clip that is made chunk by chunk cannot aim at its end.
    given_last = step_rng.random() < config.last_frame_share and not chunked

    rngs = [sample_rng(seed + 1, batch.step, place) for place in batch.places]
    noise = torch.from_numpy(np.stack([r.standard_normal(batch.latents.shape[1:], np.float32) for r in rngs]))
    # As many levels as there are frames are always drawn, so that the next draws do not depend on the chunk.
    levels = torch.stack([_times(r, frames, config, shift) for r in rngs])
    index = torch.zeros(frames, dtype=torch.long) if chunk is None else torch.arange(frames) // chunk
    time = levels[:, index].clone()  # b f
    weight = torch.ones_like(time)
    drop_text = torch.tensor([r.random() < config.text_dropout for r in rngs])
    drop_control = torch.tensor([r.random() < config.control_dropout for r in rngs])

    controls = _dropped(batch.controls, drop_control)
    if given_first and frames > 1:
        time[:, 0], weight[:, 0] = 0, 0
        controls = replace(controls, first_frame=batch.latents[:, :, :1])
    if given_last and frames > 2:
        time[:, -1], weight[:, -1] = 0, 0
        controls = replace(controls, last_frame=batch.latents[:, :, -1:])
    text, mask = _without_text(batch, drop_text)
    return Draw(
        noisy=interpolate(batch.latents, noise, time),
        noise=noise,
        time=time,
        weight=weight,
        cell_weight=cell_weight(batch, config.object_weight),
        text=text,
        text_mask=mask,
        controls=controls,
        chunk=chunk,
    )


def cell_weight(batch: Batch, object_weight: float) -> Tensor:
    """What a latent cell's error counts: 1, and ``object_weight`` more where a thing's box covers it (b 1 f h w).

    Things are a tenth of a picture and all that a prompt asks for. The best answer of each cell stays what it is; a
    small model spends itself where it counts. The last slot is the place, which is everywhere.
    """
    painted = batch.controls.objects
    if painted is None:
        return batch.latents.new_ones(len(batch.latents), 1, *batch.latents.shape[2:])
    covered = reduce(painted[:, :-1, :STRIDE_FRAMES], "b k m f h w -> b 1 f h w", "max")
    weight = 1 + object_weight * covered
    return weight / weight.mean(dim=(2, 3, 4), keepdim=True)


def loss_of(model: nn.Module, batch: Batch, drawn: Draw) -> tuple[Tensor, Tensor]:
    """The weighted mean squared error of the velocity, a scalar; and each frame's plain error (b f, no gradient)."""
    velocity = model(
        drawn.noisy,
        drawn.time,
        drawn.text,
        text_mask=drawn.text_mask,
        controls=drawn.controls,
        chunk=drawn.chunk,
    )
    error = (velocity.float() - velocity_target(batch.latents, drawn.noise)).square()
    counted = reduce(error * drawn.cell_weight, "b c f h w -> b f", "mean")
    # Given frames are the same in every sample of a step, so ranks agree on what they divide by.
    loss = (counted * drawn.weight).sum() / drawn.weight.sum()
    return loss, reduce(error.detach(), "b c f h w -> b f", "mean")


def by_noise_level(error: Tensor, drawn: Draw) -> Tensor:
    """Sums and counts of the frames' errors in each of NOISE_LEVELS; levels 2. Add them up over ranks, then divide."""
    time, weight = drawn.time.cpu(), drawn.weight.cpu().double()
    level = torch.bucketize(time, torch.tensor(NOISE_LEVELS[:-1])).flatten()
    table = torch.zeros(len(NOISE_LEVELS), 2, dtype=torch.float64)
    table[:, 0].index_add_(0, level, (error.cpu().double() * weight).flatten())
    table[:, 1].index_add_(0, level, weight.flatten())
    return table


def _times(rng: np.random.Generator, frames: int, config: ObjectiveConfig, shift: float) -> Tensor:
    normal, low, uniform = rng.standard_normal(frames), rng.random(frames), rng.random(frames)
    time = shift_times(torch.from_numpy(1 / (1 + np.exp(-(config.time_mean + config.time_std * normal)))), shift)
    return torch.where(torch.from_numpy(low < config.low_noise_share), torch.from_numpy(0.4 * uniform), time).float()


def _dropped(controls: Controls, drop: Tensor) -> Controls:
    """All-zero maps are the same as none; the frame rate stays, as it is always known."""

    def keep(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.where(drop.view(-1, *[1] * (x.ndim - 1)), 0.0, x)

    return replace(
        controls,
        camera=keep(controls.camera),
        flow=keep(controls.flow),
        floor=keep(controls.floor),
        objects=keep(controls.objects),
        phrases=keep(controls.phrases),
    )


def _without_text(batch: Batch, drop: Tensor) -> tuple[Tensor, Tensor]:
    """The empty prompt's states and mask where text is dropped."""
    length = len(batch.empty_text)
    text, mask = batch.text.clone(), batch.text_mask.clone()
    if length > text.shape[1]:
        raise AssertionError("the empty prompt is one token")
    text[drop], mask[drop] = 0.0, False
    text[drop, :length] = rearrange(batch.empty_text, "l d -> 1 l d")
    mask[drop, :length] = True
    return text, mask
