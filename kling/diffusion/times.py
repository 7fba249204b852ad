"""Diffusion times: which to train on, and which to step through when sampling."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kling.errors import ConfigError


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Move times towards noise: t' = s t / (1 + (s - 1) t). 0 and 1 stay; shift 1 changes nothing.

    More tokens hide the same noise better, so larger videos need more of it (SD3, arXiv:2403.03206, equation 23).
    """
    return shift * t / (1 + (shift - 1) * t)


def shift_for(num_tokens: int, *, base_tokens: int, base_shift: float) -> float:
    """The shift at another size: it grows with the square root of the number of tokens (SD3, equation 23)."""
    return base_shift * math.sqrt(num_tokens / base_tokens)


def sampling_times(num_steps: int, *, shift: float = 1.0) -> Float[Tensor, "steps_plus_1"]:
    """``num_steps + 1`` falling times from 1 (noise) to 0 (data), evenly spaced before the shift. float64, on the CPU.

    Raises:
        ConfigError: no step, or a shift that is not positive.
    """
    if num_steps < 1:
        raise ConfigError("sampling needs at least one step", where=f"num_steps={num_steps}", fix="16 to 50 are usual")
    if not shift > 0:
        raise ConfigError("the sampling shift must be positive", where=f"shift={shift}", fix="3 to 5 are usual")
    return shift_times(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), shift)


def training_times(
    shape: tuple[int, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random times, logit-normal and then shifted (SD3, section 3.1). float32, on the CPU.

    Args:
        shape: ``(b,)``, or ``(b, f)`` for a time of its own in each latent frame.
        mean: of the logit; above 0 leans towards noise.
        std: of the logit; infinity gives uniform times.
    """
    if math.isinf(std):
        t = torch.rand(shape, generator=generator)
    else:
        t = torch.sigmoid(mean + std * torch.randn(shape, generator=generator))
    return shift_times(t, shift)
