"""The training loop of one rank, whole: data, model, engine, step, watch, checkpoint, validation.

It knows torch, DeepSpeed and its own siblings; Ray starts it (trainer.py), a plain process group can too. Run again
with the same ``out``, it continues from the newest complete checkpoint, on any number of ranks, with the same losses as
if it had never stopped.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from kling.errors import KlingError
from kling.model.checkpoint import load_part
from kling.model.dit import DiT
from kling.model.parallel import ParallelDiT, make_mesh
from kling.presets import Preset

from . import checkpoint
from .batches import Batches, make_order
from .cache import open_split
from .checkpoint import Progress
from .config import TrainRun
from .ema import ShardedEMA
from .evaluate import validation_loss
from .export import export_weights
from .films import film_held_out
from .metrics import Meter, Record
from .objective import by_noise_level, draw, loss_of
from .optimizer import make_optimizer, schedule, set_rate
from .ranks import Ranks
from .trained import Trained
from .watch import LossWatch, Verdict
from .zero import deepspeed_config, skip_compilation, zero_stage

Report = Callable[[Record, str | None], None]  # (a step's metrics, URI of the checkpoint written after it)
_MAX_ROLL_BACKS = 3


class DivergedError(KlingError):
    """The loss became harmful again after every roll-back: no restart will help."""

    exit_code = 71


def train(run: TrainRun, preset: Preset, ranks: Ranks, *, scratch: Path, encoders: str, report: Report) -> Progress:
    """Train to ``run.steps``. All ranks return the same progress.

    Args:
        scratch: local folder of this node for the decoded shards, and for metrics of a remote output.
        encoders: weights folder with the vae and text parts that encoded the data.
        report: told about every step, on every rank.

    Raises:
        DivergedError: see there.
        StorageError: no space for a checkpoint; the last complete one is untouched.
    """
    train_split = open_split(run.data, "train", preset, encoders, scratch, ranks)
    val_split = open_split(run.data, "val", preset, encoders, scratch, ranks) if run.validate_every else None
    batches = Batches(train_split, make_order(train_split, run, preset), rank=ranks.data_rank, ranks=ranks.data_ranks)

    model, optimizer, engine, stage = _engine(run, preset, ranks)
    ema = ShardedEMA(model, decay=run.ema, rank=ranks.rank, ranks=ranks.world)
    watch, progress = LossWatch(), Progress()

    def restore(saved: checkpoint.Saved) -> Progress:
        return checkpoint.load(saved, engine, ema, watch, ranks, scratch=scratch)

    if saved := checkpoint.latest(run.out):
        progress = restore(saved)

    rate = schedule(run.optimizer.schedule, num_steps=run.steps, warmup=run.optimizer.warmup)
    meter = Meter(run, preset, ranks, scratch, progress.step)
    stream = batches.stream(progress.data_step)
    while progress.step < run.steps:
        started = time.monotonic()
        batch = next(stream)
        waited_s = time.monotonic() - started

        drawn = draw(batch, run.objective, seed=run.seed, shift=preset.shift).to(ranks.device)
        loss, error = loss_of(engine, batch.to(ranks.device), drawn)
        mean, levels = meter.over_ranks(loss, by_noise_level(error, drawn))

        verdict = watch.judge(mean)
        if verdict is Verdict.ROLL_BACK:
            stream.close()
            progress = _roll_back(run, progress, mean, restore, watch, meter)
            stream = batches.stream(progress.data_step)
            continue
        taken = {}
        if verdict is Verdict.TAKE:
            taken = _take(engine, loss, lr=set_rate(optimizer, run.optimizer, rate(progress.step)))
            ema.update(model, progress.step)
        else:
            meter.event("skipped a step", step=progress.step, loss=mean, clip_ids=batch.clip_ids)
        progress = replace(progress, step=progress.step + 1, data_step=progress.data_step + 1, watch=watch.state())
        record = meter.record(progress, batch, mean, levels, verdict) | taken
        meter.timed(record, drawn, step_s=time.monotonic() - started, waited_s=waited_s)

        last = progress.step == run.steps
        if val_split is not None and (last or progress.step % run.validate_every == 0):
            record |= validation_loss(engine, val_split, run, ranks)
        if val_split is not None and run.films_every and progress.step % run.films_every == 0:
            weights = export_weights(run, preset, ema, progress.step, ranks, encoders=encoders)
            record |= film_held_out(run, preset, val_split, weights, progress.step, ranks, meter)
        meter.write(record)
        where = None
        if last or progress.step % run.checkpoint_every == 0:
            kept = {"scratch": scratch, "zero_stage": stage, "keep": run.keep_checkpoints}
            where = checkpoint.save(run.out, engine, ema, progress, ranks, **kept)
            export_weights(run, preset, ema, progress.step, ranks, encoders=encoders)
            meter.upload()
        report(record, where)
    stream.close()
    meter.close()
    return progress


def _engine(run: TrainRun, preset: Preset, ranks: Ranks) -> tuple[nn.Module, torch.optim.Optimizer, Any, int]:
    """(model, optimizer, DeepSpeed engine, ZeRO stage)."""
    model = _model(run, preset, ranks)
    if ranks.device.type == "cpu":
        skip_compilation()
    stage = zero_stage(run, sum(p.numel() for p in model.parameters()))
    optimizer = make_optimizer(model, run.optimizer)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(run, stage=stage, on_gpu=ranks.device.type == "cuda"),
        dist_init_required=False,
    )
    return model, optimizer, engine, stage


def _take(engine: Any, loss: torch.Tensor, *, lr: float) -> dict[str, float]:
    """One optimizer step; returns what the record tells of it."""
    engine.backward(loss)
    engine.step()
    return {"lr": lr, "grad_norm": float(engine.get_global_grad_norm() or 0)}


def _model(run: TrainRun, preset: Preset, ranks: Ranks) -> nn.Module:
    """The transformer, the same on every rank; where ranks share a clip, divided by heads."""
    torch.manual_seed(run.seed)
    dit = DiT(preset.dit)
    if run.start_from:
        load_part(run.start_from, "dit", dit)
    if run.activation_checkpointing == "blocks":
        for block in dit.blocks:  # keep a block's input only, and compute the block again in backward
            block.forward = partial(recomputed, block.forward, use_reentrant=False)
    return Trained(ParallelDiT(dit, make_mesh(heads=run.sequence_parallel, device_type=ranks.device.type)))


def _roll_back(
    run: TrainRun,
    progress: Progress,
    loss: float,
    restore: Callable[[checkpoint.Saved], Progress],
    watch: LossWatch,
    meter: Meter,
) -> Progress:
    """Back to the newest checkpoint, and on with other data: the same would do the same harm."""
    saved = checkpoint.latest(run.out)
    meter.event("rolled back", step=progress.step, loss=loss, to=saved.progress.step if saved else None)
    if saved is None or progress.roll_backs >= _MAX_ROLL_BACKS:
        raise DivergedError(
            f"the loss is {loss:g} at step {progress.step}, harmful for {watch.patience} steps in a row",
            where=run.out,
            fix="Lower --optimizer.lr; events.jsonl names the steps and clips",
        )
    return replace(restore(saved), data_step=progress.data_step + 1, roll_backs=progress.roll_backs + 1)
