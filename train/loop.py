"""The training loop of one rank, whole: data, model, engine, step, watch, checkpoint, validation.

It knows torch, DeepSpeed and its own siblings; Ray starts it (trainer.py), a plain process group can too. Run again
with the same ``out``, it continues from the newest complete checkpoint, on any number of ranks, with the same losses as
if it had never stopped.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kling.errors import KlingError
from kling.presets import Preset

from . import checkpoint
from .batches import Batch, Batches, make_order
from .cache import open_split
from .checkpoint import Progress
from .config import TrainRun
from .ema import ShardedEMA
from .engine import drop_gradients, make_engine
from .evaluate import validation_loss
from .export import export_weights
from .films import film_held_out
from .metrics import Meter, Record
from .objective import Draw, by_noise_level, draw, loss_of
from .optimizer import schedule, set_rate
from .ranks import Ranks
from .watch import LossWatch, Verdict

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

    model, optimizer, engine, stage = make_engine(run, preset, ranks)
    ema = ShardedEMA(model, decay=run.ema, rank=ranks.rank, ranks=ranks.world)
    watch, progress = LossWatch(), Progress()

    def restore(saved: checkpoint.Saved) -> Progress:
        drop_gradients(engine)
        return checkpoint.load(saved, engine, ema, watch, ranks, scratch=scratch)

    if saved := checkpoint.latest(run.out):
        progress = restore(saved)

    rate = schedule(run.optimizer.schedule, num_steps=run.steps, warmup=run.optimizer.warmup)
    meter = Meter(run, preset, ranks, scratch, progress.step)
    stream, due = batches.stream(progress.data_step), False
    while progress.step < run.steps:
        started = time.monotonic()
        batch = next(stream)
        waited_s = time.monotonic() - started

        loss, total, levels, drawn = forward(engine, batch, run, preset, ranks)
        mean, levels = meter.over_ranks(total, levels)
        verdict = watch.judge(mean)
        if verdict is Verdict.ROLL_BACK:
            stream.close()
            progress = _roll_back(run, progress, mean, restore, watch, meter)
            stream = batches.stream(progress.data_step)
            continue
        taken = {}
        if verdict is Verdict.TAKE:
            taken = take(engine, loss, lr=set_rate(optimizer, run.optimizer, rate(progress.step)))
            ema.update(model, progress.step)
        else:
            drop_gradients(engine)
            _tell_skipped(meter, batches, progress, mean)
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
        due = due or progress.step % run.checkpoint_every == 0
        where = None
        if last or (due and verdict is Verdict.TAKE):  # among harmful steps is no place to go back to
            where, due = checkpoint.save(run, engine, ema, progress, ranks, scratch=scratch, zero_stage=stage), False
            export_weights(run, preset, ema, progress.step, ranks, encoders=encoders)
            meter.upload()
        report(record, where)
    stream.close()
    meter.close()
    return progress


def forward(
    engine: Any, batch: Batch, run: TrainRun, preset: Preset, ranks: Ranks
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Draw]:
    """(the last micro-batch's loss, the mean loss, sums by noise level, the last draw).

    The gradients of all micro-batches but the last are added up then; whether that one's follow, the watch decides.
    """

    def run_part(part: Batch) -> tuple[torch.Tensor, torch.Tensor, Draw]:
        drawn = draw(part, run.objective, seed=run.seed, shift=preset.shift).to(ranks.device)
        loss, error = loss_of(engine, part.to(ranks.device), drawn)
        return loss, by_noise_level(error, drawn), drawn

    *earlier, last = batch.parts(run.micro_batches)
    losses, levels = [], []
    for part in earlier:
        loss, level, _ = run_part(part)
        engine.set_gradient_accumulation_boundary(False)
        engine.backward(loss)
        losses.append(loss.detach())
        levels.append(level)
    loss, level, drawn = run_part(last)
    return loss, torch.stack([*losses, loss.detach()]).mean(), torch.stack([*levels, level]).sum(0), drawn


def take(engine: Any, loss: torch.Tensor, *, lr: float) -> dict[str, float]:
    """One optimizer step; returns what the record tells of it."""
    engine.set_gradient_accumulation_boundary(True)
    engine.backward(loss)
    engine.step()
    return {"lr": lr, "grad_norm": float(engine.get_global_grad_norm() or 0)}


def _tell_skipped(meter: Meter, batches: Batches, progress: Progress, loss: float) -> None:
    meter.event("skipped a step", step=progress.step, loss=loss, clip_ids=batches.clip_ids(progress.data_step))


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
