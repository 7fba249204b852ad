"""Classifier-free guidance (Ho & Salimans, arXiv:2207.12598): push away from what would come without the prompt."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kling.diffusion.samplers import Velocity
from kling.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How hard to push, when, and how much of the contrast that it adds to take back."""

    scale: float = 1.0  # 1: no guidance, and no unconditional evaluation
    interval: tuple[float, float] = (0.0, 1.0)  # times at which it acts (Kynkäänniemi et al., arXiv:2404.07724)
    rescale: float = 0.0  # share of the surplus standard deviation taken back (Lin et al., arXiv:2305.08891, eq. 15-16)

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ConfigError("the guidance interval lies in [0, 1], low first", where=f"interval={self.interval}")
        if not 0 <= self.rescale <= 1:
            raise ConfigError("the guidance rescale lies in [0, 1]", where=f"rescale={self.rescale}")

    def acts_at(self, t: float) -> bool:
        return self.scale != 1.0 and self.interval[0] <= t <= self.interval[1]


def combine(conditional: Tensor, unconditional: Tensor, guidance: Guidance) -> Tensor:
    """unconditional + scale (conditional - unconditional), each sample's spread drawn back by ``rescale``."""
    guided = unconditional + guidance.scale * (conditional - unconditional)
    if guidance.rescale:
        axes = tuple(range(1, guided.ndim))
        ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        guided = guided * (1 + guidance.rescale * (ratio - 1))
    return guided


def guided(conditional: Velocity, unconditional: Velocity, guidance: Guidance) -> Velocity:
    """Two calls a step: half the memory of one call of twice the batch, and the two may run on different ranks."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        if not guidance.acts_at(float(t[0])):
            return conditional(x, t)
        return combine(conditional(x, t), unconditional(x, t), guidance)

    return velocity


def guided_in_one_batch(conditional: Velocity, both: Velocity, guidance: Guidance) -> Velocity:
    """One call a step of twice the batch: faster where a single sample does not fill the device.

    Args:
        both: takes ``2b`` samples, the conditional half first; must hold the conditions of both halves in that order.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        if not guidance.acts_at(float(t[0])):
            return conditional(x, t)
        with_prompt, without = both(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
        return combine(with_prompt, without, guidance)

    return velocity
