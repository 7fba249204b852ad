"""The DeepSpeed configuration, generated: nothing in it is typed by hand, and nothing else configures DeepSpeed."""

from dataclasses import replace

import torch

from kling.model.config import DiTConfig
from kling.model.flops import num_parameters

from .config import TrainRun

BUCKET = 500_000_000  # gradients that are sent at once, at most; a buffer of as many numbers
PERSISTENT = 100_000  # parameters of at most so many numbers stay whole under ZeRO-3: gathering them is all latency


def zero_stage(run: TrainRun, num_parameters: int) -> int:
    """What is divided over ranks: 1 optimizer states, 2 and gradients, 3 and parameters (arXiv:1910.02054)."""
    if run.zero_stage is not None:
        return run.zero_stage
    return 2 if num_parameters < 2e9 else 3


def gathered_parameters(config: DiTConfig) -> int:
    """How many ZeRO-3 holds whole at a time: those of the block that computes, and of the next one."""
    fewer = replace(config, num_layers=config.num_layers - 1)
    return 2 * (num_parameters(config) - num_parameters(fewer))


def deepspeed_config(run: TrainRun, model: DiTConfig, *, stage: int, on_gpu: bool) -> dict:
    """The dict for ``deepspeed.initialize``.

    DeepSpeed sees plain data parallel ranks, also where several ranks share a clip (their gradients come out right when
    averaged over all ranks).
    """
    bucket = min(BUCKET, num_parameters(model))
    zero: dict = {
        "stage": stage,
        "overlap_comm": on_gpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if run.optimizer.kind == "muon":
        zero |= {"reduce_scatter": False}  # a rank needs whole gradients of its matrices
    if stage == 3:
        live = gathered_parameters(model)
        zero |= {
            "stage3_gather_16bit_weights_on_model_save": False,
            "stage3_max_live_parameters": live,
            "stage3_max_reuse_distance": live,  # without, models below 1e9 parameters would stay whole
            "stage3_prefetch_bucket_size": live // 2,
            "stage3_param_persistence_threshold": PERSISTENT,
        }
    return {
        "train_micro_batch_size_per_gpu": max(1, run.batch_size // run.num_workers // run.micro_batches),
        "gradient_accumulation_steps": run.micro_batches,
        # DeepSpeed would clip Muon's orthogonal updates, not its gradients: their norm says nothing.
        "gradient_clipping": 0.0 if run.optimizer.kind == "muon" else run.optimizer.clip_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # torch's AdamW, fused
        "bf16": {"enabled": on_gpu},  # CPUs without bf16 units are 10 to 60 times slower in it
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def skip_compilation(run: TrainRun) -> None:
    """Keep DeepSpeed from compiling on a CPU: its shared-memory collectives (a minute and a compiler for ranks of one
    machine, where gloo does) and Muon's iteration."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if run.optimizer.kind == "muon":  # not always: it imports the compiler, which takes a second
        torch.compiler.set_stance("force_eager")
