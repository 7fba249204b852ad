"""Model, optimizer and DeepSpeed engine of one rank; what ZeRO divides is never whole on every rank."""

import gc
from functools import partial
from typing import Any

import deepspeed
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from kling.model.checkpoint import load_part
from kling.model.dit import DiT
from kling.model.flops import num_parameters
from kling.model.parallel import ParallelDiT, make_mesh
from kling.presets import Preset

from .config import TrainRun
from .optimizer import make_optimizer
from .ranks import Ranks
from .trained import Trained
from .zero import deepspeed_config, skip_compilation, zero_stage


def make_engine(run: TrainRun, preset: Preset, ranks: Ranks) -> tuple[nn.Module, torch.optim.Optimizer, Any, int]:
    """(model, optimizer, DeepSpeed engine, ZeRO stage). All ranks call it, and end with the same weights."""
    if ranks.device.type == "cpu":
        skip_compilation(run)
    stage = zero_stage(run, num_parameters(preset.dit))
    config = deepspeed_config(run, preset.dit, stage=stage, on_gpu=ranks.device.type == "cuda")
    model = _model(run, preset, ranks, whole=stage < 3 or ranks.rank == 0)
    if stage == 3:
        _divide(model, config, ranks)
    optimizer = make_optimizer(model, run.optimizer)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    gc.collect()  # ZeRO-1 and 2 leave the weights as they were in a cycle of references: as much again
    return model, optimizer, engine, stage


def drop_gradients(engine: Any) -> None:
    """Forget what micro-batches of a step have left: the step is not taken."""
    engine.optimizer.zero_grad()
    if hasattr(
        engine.optimizer, "all_grad_tensors"
    ):  # ZeRO-1 and 2 keep sums here, and clear them in a step only (0.19)
        engine.optimizer.all_grad_tensors, engine.optimizer.averaged_gradients = {}, {}
        engine.optimizer.micro_step_id = -1


def _model(run: TrainRun, preset: Preset, ranks: Ranks, *, whole: bool) -> nn.Module:
    """The transformer, the same on every rank; where ranks share a clip, divided by heads.

    Not ``whole``: only its shapes.
    """
    torch.manual_seed(run.seed)
    with torch.device("cpu" if whole else "meta"):
        dit = DiT(preset.dit)
    if run.start_from and whole:
        load_part(run.start_from, "dit", dit)
    if run.activation_checkpointing == "blocks":
        for block in dit.blocks:  # keep a block's input only, and compute the block again in backward
            block.forward = partial(recomputed, block.forward, use_reentrant=False)
    return Trained(ParallelDiT(dit, make_mesh(heads=run.sequence_parallel, device_type=ranks.device.type)))


def _divide(model: nn.Module, config: dict, ranks: Ranks) -> None:
    """ZeRO-3: rank 0 hands out its parameters, one after the other; nobody else ever holds more than one whole.

    Without this every rank would make the model in float32 first: for 12b, 8 x 49 GB of a node's memory.
    """
    for module in reversed(list(model.modules())):  # children first: what is divided already is passed over
        own = dict(module.named_parameters(recurse=False))
        for name, param in own.items() if ranks.rank else ():
            empty = torch.empty_like(param, device=ranks.device)
            module.register_parameter(name, nn.Parameter(empty, requires_grad=param.requires_grad))
        if own:
            deepspeed.zero.Init(module=module, config_dict_or_path=config)
