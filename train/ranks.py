"""This process among the others of a run."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Who we are. Groups of ``sequence_parallel`` neighbouring ranks see the same clips."""

    rank: int
    world: int
    local_rank: int  # among the ranks of this node
    device: torch.device
    sequence_parallel: int = 1

    @property
    def data_rank(self) -> int:
        return self.rank // self.sequence_parallel

    @property
    def data_ranks(self) -> int:
        return self.world // self.sequence_parallel

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def total(self, values: Tensor) -> Tensor:
        """Sum over all ranks, on the CPU."""
        if self.world == 1:
            return values
        moved = values.to(self.device)
        dist.all_reduce(moved)
        return moved.cpu()

    def any(self, condition: bool) -> bool:
        return bool(self.total(torch.tensor([float(condition)])).item() > 0)
