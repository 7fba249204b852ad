"""Rotary positions in three axes: frames, rows, columns (RoFormer, arXiv:2104.09864; split over axes as in Wan 2.1)."""

from functools import lru_cache

import torch
from jaxtyping import Complex64, Float
from torch import Tensor

from kling.model.attention import Grid

_THETA = 10_000.0
_CACHED_GRIDS = 32  # tables kept; a sampling run needs one, a chunk-causal roll-out one a chunk


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's dimensions turn with the frame, the row and the column."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


@lru_cache(maxsize=_CACHED_GRIDS)
def rope_table(grid: Grid, head_dim: int, device: torch.device) -> Complex64[Tensor, "l 1 half"]:
    """The turn of each token and pair of dimensions, as unit complex numbers; made once a grid.

    Positions are absolute (``grid.origin`` is added) and have no largest value: a roll-out may go on for ever. Angles
    are computed in float64, so that frame 100,000 is as exact as frame 0.
    """
    axes = []
    sizes = (grid.frames, grid.height, grid.width)
    for axis, (dim, size, start) in enumerate(zip(axis_dims(head_dim), sizes, grid.origin, strict=True)):
        position = torch.arange(start, start + size, dtype=torch.float64)
        rate = _THETA ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = size
        axes.append(torch.outer(position, rate).view(shape).expand(*sizes, -1))
    angle = torch.cat(axes, dim=-1).flatten(0, 2).unsqueeze(1)  # l 1 half
    return torch.polar(torch.ones_like(angle), angle).to(device=device, dtype=torch.complex64)


def rotate(x: Float[Tensor, "b l n d"], table: Complex64[Tensor, "l 1 half"]) -> Float[Tensor, "b l n d"]:
    """Turn neighbouring pairs (x0, x1), (x2, x3), ... of each head by the table's angles, in fp32.

    One complex product: measured 3 to 30 times faster on CPU than the same with real halves or interleaved stacks.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).type_as(x)
