"""The DeepSpeed configuration, generated: nothing in it is typed by hand, and nothing else configures DeepSpeed."""

import torch

from .config import TrainRun


def zero_stage(run: TrainRun, num_parameters: int) -> int:
    """What is divided over ranks: 1 optimizer states, 2 and gradients, 3 and parameters (arXiv:1910.02054)."""
    if run.zero_stage is not None:
        return run.zero_stage
    return 2 if num_parameters < 2e9 else 3


def deepspeed_config(run: TrainRun, *, stage: int, on_gpu: bool) -> dict:
    """The dict for ``deepspeed.initialize``.

    Batches reach DeepSpeed as they are: it sees plain data parallel ranks that hand it one micro batch a step, also
    where several ranks share a clip (their gradients come out right when averaged over all ranks).
    """
    zero: dict = {"stage": stage, "overlap_comm": on_gpu, "contiguous_gradients": True}
    if run.optimizer.kind == "muon":
        zero |= {"reduce_scatter": False}  # a rank needs whole gradients of its matrices
    if stage == 3:
        zero |= {"stage3_gather_16bit_weights_on_model_save": False}
        if on_gpu:
            zero |= {"stage3_prefetch_bucket_size": 5e8, "stage3_param_persistence_threshold": 1e6}
    return {
        "train_micro_batch_size_per_gpu": max(1, run.batch_size // run.num_workers),
        "gradient_accumulation_steps": 1,
        # DeepSpeed would clip Muon's orthogonal updates, not its gradients: their norm says nothing.
        "gradient_clipping": 0.0 if run.optimizer.kind == "muon" else run.optimizer.clip_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # torch's AdamW, fused
        "bf16": {"enabled": on_gpu},  # CPUs without bf16 units are 10 to 60 times slower in it
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def skip_compilation() -> None:
    """Keep DeepSpeed from compiling on a CPU: its shared-memory collectives (a minute and a compiler for ranks of one
    machine, where gloo does) and Muon's iteration."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch.compiler.set_stance("force_eager")
