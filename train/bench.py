"""What the training loop costs over a plain PyTorch loop of the same model and batches: A B A B, one process."""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import tyro

from kling.model.dit import DiT
from kling.presets import Preset, get_preset

from .batches import Batches, make_order
from .cache import open_split
from .config import TrainRun
from .loop import train
from .objective import draw, loss_of
from .optimizer import make_optimizer
from .preflight import check_run
from .ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """Compare the training loop (one rank, ZeRO-2) with a plain PyTorch loop."""

    preset: Annotated[str, tyro.conf.Positional]
    data: str
    weights: str | None = None
    batch_size: int = 32
    steps: int = 20  # a round, of each
    rounds: int = 3


def bench(request: BenchRun) -> dict[str, float]:
    """Medians over rounds: the ratio of step times, its spread, and the share of a step spent waiting for data."""
    preset = get_preset(request.preset)
    with tempfile.TemporaryDirectory() as folder:
        run = TrainRun(
            preset=request.preset,
            data=request.data,
            weights=request.weights,
            out=folder,
            batch_size=request.batch_size,
            num_workers=1,
            steps=request.steps,
            validate_every=0,
            checkpoint_every=10**9,
        )
        encoders = check_run(run, preset)
        if not dist.is_initialized():
            dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        ranks = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
        ratios, waits = [], []
        for number in range(request.rounds):
            out = Path(folder, f"round-{number}")
            train(
                replace(run, out=str(out)),
                preset,
                ranks,
                scratch=out,
                encoders=encoders,
                report=lambda record, saved: None,
            )
            records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][2:]
            ours = statistics.median(r["step_s"] for r in records)
            waits.append(sum(r["data_wait_s"] for r in records) / sum(r["step_s"] for r in records))
            ratios.append(ours / _plain(replace(run, out=str(out)), preset, ranks, out, encoders))
    return {
        "step_time_ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "data_wait_share": statistics.median(waits),
    }


def _plain(run: TrainRun, preset: Preset, ranks: Ranks, scratch: Path, encoders: str) -> float:
    """Median seconds of a step: batch, loss, backward, clip, AdamW; nothing else."""
    split = open_split(run.data, "train", preset, encoders, scratch, ranks)
    batches = Batches(split, make_order(split, run, preset), rank=0, ranks=1)
    torch.manual_seed(run.seed)
    model = DiT(preset.dit)
    optimizer = make_optimizer(model, run.optimizer)
    times = []
    for step in range(run.steps):
        batch = batches.make(step)
        started = time.monotonic()
        loss, _ = loss_of(model, batch, draw(batch, run.objective, seed=run.seed, shift=preset.shift))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimizer.clip_norm)
        optimizer.step()
        loss.item()
        times.append(time.monotonic() - started)
    return statistics.median(times[2:])
