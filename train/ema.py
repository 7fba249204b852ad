"""The exponential average of the weights: what is sampled, evaluated and exported."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """A shadow of a module's parameters in float32.

    The decay warms up as (1 + step) / (10 + step), so that a short run's average is not its random start.
    """

    def __init__(self, module: nn.Module, *, decay: float):
        self.decay = decay
        self.shadow: dict[str, Tensor] = {n: p.detach().float().clone() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, param in module.named_parameters():
            self.shadow[name].lerp_(param.detach().float(), weight)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with averaged weights inside the block, and its own again after it."""
        own = {name: param.detach().clone() for name, param in module.named_parameters()}
        _assign(module, self.shadow)
        try:
            yield module
        finally:
            _assign(module, own)


@torch.no_grad()
def _assign(module: nn.Module, values: dict[str, Tensor]) -> None:
    for name, param in module.named_parameters():
        param.copy_(values[name])
