"""Frames that are given: held clean at both ends of a clip while the rest is made around them.

A given frame is shown to the network clean, at time 0, as in training, and its velocity is the one that leads exactly
to it, so every sampler arrives there. With a network that was never taught given frames the frames are still exact.
"""

from torch import Tensor

from kling.diffusion.samplers import Velocity
from kling.shapes import Latents


def holding(velocity: Velocity, first: Latents | None, last: Latents | None) -> Velocity:
    """The velocity of a clip whose first or last latent frame is known.

    Args:
        velocity: the network; takes a time for each latent frame (b f).
        first, last: clean latents, b c 1 h w; None: not given.
    """
    if first is None and last is None:
        return velocity

    def held(x: Tensor, t: Tensor) -> Tensor:
        seen, time = x.clone(), t[:, None].repeat(1, x.shape[2])  # b f
        ends = [(index, frame) for index, frame in ((0, first), (-1, last)) if frame is not None]
        for index, frame in ends:
            seen[:, :, index], time[:, index] = frame[:, :, 0], 0.0
        out = velocity(seen, time).clone()
        for index, frame in ends:
            # x_t = x0 + t v (the convention of flow.py); t is above 0 wherever a sampler asks.
            out[:, :, index] = (x[:, :, index] - frame[:, :, 0]) / t.view(-1, *[1] * (x.ndim - 2))
        return out

    return held
