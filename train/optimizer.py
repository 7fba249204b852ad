"""Which parameters an optimizer moves how: Muon for matrices and convolution kernels, AdamW for the rest; schedules."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from .config import OptimizerConfig

Schedule = Literal["constant", "cosine", "wsd"]


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalised updates (Jordan et al. 2024, "Muon"), for parameters of two or more axes.

    A convolution kernel (out, in, ...) is treated as the matrix (out, in * ...). torch.optim.Muon takes matrices only.

    Args:
        params: parameters with ``ndim >= 2``; the first axis is the output.
        lr: step size; the update has a spectral norm of about ``lr``.
        momentum: of the Nesterov average of gradients.
        weight_decay: decoupled, multiplied by ``lr``.
    """

    def __init__(
        self, params: Iterable[Tensor], *, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state["momentum"] = torch.zeros_like(param)
                average = state["momentum"].lerp_(param.grad, 1 - group["momentum"])
                update = orthogonal(param.grad.lerp(average, group["momentum"]).reshape(param.shape[0], -1))
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(update.reshape(param.shape), alpha=-group["lr"] * _scale(update))


def _scale(matrix: Tensor) -> float:
    return math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))


def orthogonal(matrix: Tensor, num_steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values end in [0.7, 1.2] (quintic Newton-Schulz)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


def split_for_muon(model: nn.Module, *, keep: Iterable[str] = ()) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(for Muon, for AdamW): hidden matrices and kernels go to Muon; vectors, and modules named in ``keep``, do not.

    ``keep`` names what reads the input or writes the output, and embeddings: their rows are not a linear map's.
    """
    hidden, rest = [], []
    for name, param in model.named_parameters():
        outside = param.squeeze().ndim < 2 or any(part in name for part in keep)
        (rest if outside else hidden).append(param)
    return hidden, rest


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Fused AdamW with weight decay on matrices only; or DeepSpeed's Muon, which works under every ZeRO stage.

    Muon takes the matrices of the transformer's blocks. It needs whole ones where ZeRO holds pieces: DeepSpeed gathers
    them for it (arXiv:2502.16982 does the same).
    """
    if config.kind == "adamw":
        matrices = [p for p in model.parameters() if num_axes(p) >= 2]
        vectors = [p for p in model.parameters() if num_axes(p) < 2]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam  # compiles its kernels when imported

    hidden, matrices, vectors = [], [], []
    for name, param in model.named_parameters():
        param.use_muon = num_axes(param) == 2 and ".blocks." in f".{name}" and not name.endswith("modulation")  # type: ignore[attr-defined]
        (hidden if param.use_muon else matrices if num_axes(param) >= 2 else vectors).append(param)  # type: ignore[attr-defined]
    decay = {"weight_decay": config.weight_decay}
    rest = {"use_muon": False, "lr": config.lr, "betas": config.betas, "eps": 1e-8}
    return MuonWithAuxAdam(
        [
            {"params": hidden, "use_muon": True, "lr": config.muon_lr, "momentum": 0.95, **decay},
            {"params": matrices, **rest, **decay},
            {"params": vectors, **rest, "weight_decay": 0.0},
        ]
    )


def num_axes(param: Tensor) -> int:
    """Of the whole parameter, also where ZeRO-3 has left a rank nothing but a piece."""
    return len(getattr(param, "ds_shape", param.shape))


def set_rate(optimizer: torch.optim.Optimizer, config: OptimizerConfig, factor: float) -> float:
    """Multiply every group's learning rate of the configuration by the schedule's factor; returns AdamW's."""
    for group in optimizer.param_groups:
        group["lr"] = factor * (config.muon_lr if group.get("use_muon") else config.lr)
    return factor * config.lr


def schedule(kind: Schedule, *, num_steps: int, warmup: int, floor: float = 0.05) -> Callable[[int], float]:
    """The learning rate's factor at each step: a linear warm-up, then constant, cosine, or constant with a last decay.

    ``wsd`` (warm-up, stable, decay; arXiv:2404.06395) stays at 1 until 80 % of the steps, then falls linearly.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if kind == "constant":
            return 1.0
        done = min(1.0, (step - warmup) / max(1, num_steps - warmup))
        if kind == "cosine":
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 if done < 0.8 else 1.0 - (1 - floor) * (done - 0.8) / 0.2

    return factor
