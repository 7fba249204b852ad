"""The exponential average of the weights: what is sampled, evaluated and exported."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
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


class ShardedEMA:
    """The average over several ranks: each holds 1/ranks of every parameter, in float32.

    Rank r holds elements [r c, (r + 1) c) of each flattened parameter, c = ceil(size / ranks): the same cut as
    ZeRO-3's, whose ranks hold no other elements.
    """

    def __init__(self, module: nn.Module, *, decay: float, rank: int, ranks: int):
        self.decay, self.rank, self.ranks = decay, rank, ranks
        self.sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in module.named_parameters()}
        self.shapes = {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in module.named_parameters()}
        self.shadow = {name: self._own(p).float().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, param in module.named_parameters():
            self.shadow[name].lerp_(self._own(param).float(), weight)

    def whole(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter's average, gathered one by one. All ranks must iterate together."""
        for name, own in self.shadow.items():
            size = self.sizes[name]
            padded = own.new_zeros(math.ceil(size / self.ranks))
            padded[: own.numel()] = own
            parts = [torch.empty_like(padded) for _ in range(self.ranks)]
            if self.ranks > 1:
                dist.all_gather(parts, padded)
            else:
                parts = [padded]
            yield name, torch.cat(parts)[:size].reshape(self.shapes[name])

    def load(self, whole: dict[str, Tensor]) -> None:
        """Take this rank's part of whole averages."""
        for name, own in self.shadow.items():
            start, stop = self._bounds(self.sizes[name])
            own.copy_(whole[name].flatten()[start:stop])

    def _bounds(self, size: int) -> tuple[int, int]:
        each = math.ceil(size / self.ranks)
        return min(size, self.rank * each), min(size, (self.rank + 1) * each)

    def _own(self, param: Tensor) -> Tensor:
        size = getattr(param, "ds_numel", param.numel())
        start, stop = self._bounds(size)
        if hasattr(param, "ds_tensor"):  # ZeRO-3: this rank's elements, padded at the end
            return param.ds_tensor.detach()[: stop - start]  # type: ignore[attr-defined]
        return param.detach().flatten()[start:stop]


@torch.no_grad()
def _assign(module: nn.Module, values: dict[str, Tensor]) -> None:
    for name, param in module.named_parameters():
        param.copy_(values[name])
