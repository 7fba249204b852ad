"""What the training loop costs over a plain PyTorch loop of the same model and batches, in one process."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
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
from .config import TrainRun, check_positive
from .loop import train
from .metrics import Record
from .objective import draw, loss_of
from .optimizer import make_optimizer
from .preflight import check_run
from .ranks import Ranks

_WARM = 3  # steps that are not counted


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """Compare the training loop (one rank, ZeRO-2, one thread) with a plain PyTorch loop: a step of one, a step of the
    other, and so on; processor time, which other load on the machine changes little."""

    preset: Annotated[str, tyro.conf.Positional]
    data: str
    weights: str | None = None
    batch_size: int = 32
    steps: int = 30  # of each
    threads: int = 1

    def __post_init__(self):
        check_positive(self, "batch_size", "steps", "threads")


def command(arguments: list[str]) -> None:
    """The subcommand's body."""
    print(json.dumps(bench(tyro.cli(BenchRun, args=arguments, prog="python -m train bench")), indent=1))


def bench(request: BenchRun) -> dict[str, float]:
    """``step_time_ratio`` is the median over pairs of steps, with the quartiles of the pairs beside it.
    ``data_wait_share`` is the time that the loop alone waits for batches, over the time of its steps."""
    preset = get_preset(request.preset)
    torch.set_num_threads(request.threads)
    os.environ |= {"LOCAL_RANK": "0"}  # DeepSpeed asks for it
    with tempfile.TemporaryDirectory() as folder:
        run = TrainRun(
            preset=request.preset,
            data=request.data,
            weights=request.weights,
            out=folder,
            batch_size=request.batch_size,
            num_workers=1,
            steps=request.steps + _WARM + 1,  # the last one also writes a checkpoint
            validate_every=0,
            checkpoint_every=10**9,
        )
        encoders = check_run(run, preset)
        if not dist.is_initialized():
            dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        ranks = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
        plain_step = _plain(run, preset, ranks, Path(folder), encoders)
        ours, plain = [], []
        clock = time.process_time()

        def paired(record: Record, saved: str | None) -> None:
            nonlocal clock
            ours.append(time.process_time() - clock)
            plain.append(plain_step(len(plain)))
            clock = time.process_time()

        def alone(record: Record, saved: str | None) -> None: ...

        outs = [Path(folder, name) for name in ("paired", "alone")]
        for out, report in zip(outs, (paired, alone), strict=True):
            (out / "shards").parent.mkdir()
            (out / "shards").symlink_to(Path(folder, "shards"))
            train(replace(run, out=str(out)), preset, ranks, scratch=out, encoders=encoders, report=report)
        lines = (outs[1] / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines][_WARM:-1]
    ratios = [a / b for a, b in zip(ours, plain, strict=True)][_WARM:-1]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "step_time_ratio": round(middle, 4),
        "quartile_low": round(low, 4),
        "quartile_high": round(high, 4),
        "data_wait_share": sum(r["data_wait_s"] for r in records) / sum(r["step_s"] for r in records),
    }


def _plain(run: TrainRun, preset: Preset, ranks: Ranks, scratch: Path, encoders: str) -> Callable[[int], float]:
    """Takes a step and returns its processor seconds: batch, loss, backward, clip, AdamW, the loss as a number."""
    split = open_split(run.data, "train", preset, encoders, scratch, ranks)
    batches = Batches(split, make_order(split, run, preset), rank=0, ranks=1)
    torch.manual_seed(run.seed)
    model = DiT(preset.dit)
    optimizer = make_optimizer(model, run.optimizer)

    def step(number: int) -> float:
        started = time.process_time()
        batch = batches.make(number)
        loss, _ = loss_of(model, batch, draw(batch, run.objective, seed=run.seed, shift=preset.shift))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimizer.clip_norm)
        optimizer.step()
        loss.item()
        return time.process_time() - started

    return step
