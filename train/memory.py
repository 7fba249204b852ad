"""What a training step holds on each rank, at most: ZeRO's division of states (arXiv:1910.02054), activations, buffers.

`train measure` compares it with the peak of live tensors (docs/benchmarks/training.md).
"""

import math
from dataclasses import dataclass
from functools import cache

import torch

from kling.model.config import DiTConfig
from kling.model.dit import DiT
from kling.model.flops import (
    Workload,
    control_activation_bytes,
    control_map_bytes,
    num_parameters,
    training_activation_bytes,
)

from .zero import BUCKET, PERSISTENT, gathered_parameters


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank. Its parts are not all held at the same moment: ``peak`` is the most that is."""

    parameters: float
    gradients: float
    optimizer: float  # master weights, two moments, the average
    activations: float
    buffers: float  # gradients on their way, layers gathered from other ranks
    peak: float

    def parts(self) -> dict[str, float]:
        names = ("parameters", "gradients", "optimizer", "activations", "buffers")
        return {name: getattr(self, name) for name in names}


def rank_memory(
    config: DiTConfig,
    work: Workload,
    *,
    ranks: int,
    zero_stage: int,
    sequence_parallel: int = 1,
    micro_batches: int = 1,
    recompute: bool = False,
    number_bytes: int = 2,
) -> Memory:
    """The plan's arithmetic.

    Args:
        work: one micro-batch of one rank, or of the ranks that share its clips.
        number_bytes: 2 on GPUs (bf16, float32 masters), 4 on CPUs (float32, where ZeRO keeps masters all the same).

    Activations and gradients take turns: backward frees the first as it makes the second. So the most is held when
    backward begins, when it ends (gradients and a copy that is sent), or in the optimizer's step, which makes float32
    copies of the gradients of its share.
    """
    count, on_gpu = num_parameters(config), number_bytes == 2
    over = {stage: ranks if zero_stage >= stage else 1 for stage in (1, 2, 3)}
    share = 4 * count / over[1]
    parameters = number_bytes * count / over[3]
    gradients = number_bytes * count / over[2]
    masters = 0 if zero_stage == 0 and not on_gpu else share
    optimizer = masters + 2 * share + 4 * count / ranks
    activations = _activation_bytes(config, work, sequence_parallel, recompute, number_bytes)
    if work.controls:  # as the batch brings them (on CPUs all of it), and once more with those of some clips dropped
        activations += control_map_bytes(config, work) * (1 + (1 if on_gpu else micro_batches))
    bucket = number_bytes * min(BUCKET, count)
    held = parameters + optimizer
    if zero_stage == 3:
        whole = gathered_parameters(config) + _persistent(config) * (1 - 1 / ranks)
        buffers = bucket + number_bytes * whole
        peak = held + gradients + buffers + max(activations, share)
    elif zero_stage == 0:
        buffers = bucket
        earlier = gradients if micro_batches > 1 else 0  # of the micro-batches before
        peak = held + max(activations + earlier, gradients + bucket)
    else:
        sent = bucket * (2 if on_gpu else 1)  # on GPUs one is filled while the other is sent
        buffers = sent + bucket
        whole = number_bytes * count
        earlier = (gradients if zero_stage == 2 else whole) if micro_batches > 1 else 0
        # ZeRO-2 sends gradients as they come and keeps its share; ZeRO-1 when all are there.
        made = (gradients if zero_stage == 2 else whole) * (1 - bucket / whole)
        end = sent + bucket + max(made, earlier)
        step = whole / ranks + share * (1.5 if on_gpu else 1)
        peak = held + max(sent + activations + earlier, end, step)
    return Memory(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        buffers=buffers,
        peak=peak,
    )


def _activation_bytes(
    config: DiTConfig, work: Workload, sequence_parallel: int, recompute: bool, number_bytes: int
) -> float:
    """Ranks that share a clip divide its tokens; text and controls each of them prepares whole."""
    made = training_activation_bytes(config, work, recompute=recompute, number_bytes=number_bytes)
    whole = work.batch * work.text_tokens * (4 * config.num_layers + 3) * config.width * number_bytes
    if work.controls:
        whole += control_activation_bytes(config, work, number_bytes=number_bytes)
    return (made - whole) / sequence_parallel + whole


@cache
def _persistent(config: DiTConfig) -> int:
    """Numbers in parameters so small that ZeRO-3 leaves them whole."""
    with torch.device("meta"):
        sizes = [math.prod(p.shape) for p in DiT(config).parameters()]
    return sum(size for size in sizes if size <= PERSISTENT)
