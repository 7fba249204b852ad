"""`python -m train measure`: what ranks and ZeRO stages cost on this machine, and the plan's memory against it.

Ranks are processes of this machine (gloo, fp32) that run the training loop's own steps on random clips. Memory is the
peak of live tensors (kling/bench/live_memory.py), which load on the machine does not change; time is the processor time
of a rank, in turns (A B A B), which it changes little.
"""

import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
import tyro

from kling.bench.live_memory import LiveMemory
from kling.bench.page import replace_table
from kling.errors import InternalError
from kling.model.attention import Grid
from kling.model.config import DiTConfig
from kling.model.controls import FLOOR_NUMBERS, FLOOR_POINTS, Controls
from kling.model.flops import Workload, num_parameters
from kling.presets import Preset, get_preset

from .batches import Batch
from .config import TrainRun
from .ema import ShardedEMA
from .engine import make_engine
from .loop import forward, take
from .memory import Memory, rank_memory
from .ranks import Ranks

_TEXT_TOKENS = 64
_WARM = 2  # steps before any is measured: the optimizer makes its state in the first, ZeRO-3 learns the order of layers


@dataclass(frozen=True, kw_only=True)
class Case:
    """One arrangement of ranks, one model, one amount of clips."""

    width: int = 0  # of tokens; 0: the tiny preset as it is
    layers: int = 6
    latents: tuple[int, int, int] = (5, 8, 8)  # frames, height, width
    clips: int = 8  # a step, of all ranks
    ranks: int = 1
    zero_stage: Literal[0, 1, 2, 3] = 2
    sequence_parallel: int = 1
    micro_batches: int = 1
    recompute: bool = False

    def preset(self) -> Preset:
        tiny = get_preset("tiny")
        if not self.width:
            return tiny
        sizes = {"num_layers": self.layers, "num_heads": self.width // 64, "head_dim": 64, "mlp_dim": 4 * self.width}
        return replace(tiny, dit=replace(tiny.dit, patch=(1, 2, 2), **sizes))  # the patch of all larger presets

    def run(self) -> TrainRun:
        return TrainRun(
            preset="tiny",
            data="",
            out="",
            batch_size=self.clips,
            num_workers=self.ranks,
            zero_stage=self.zero_stage,
            sequence_parallel=self.sequence_parallel,
            micro_batches=self.micro_batches,
            activation_checkpointing="blocks" if self.recompute else "none",
        )

    def planned(self) -> Memory:
        """What the plan says of a rank."""
        preset = self.preset()
        frames, height, width = (size // cells for size, cells in zip(self.latents, preset.dit.patch, strict=True))
        each = self.clips * self.sequence_parallel // self.ranks // self.micro_batches
        work = Workload(
            grid=Grid(frames=frames, height=height, width=width),
            batch=each,
            text_tokens=_TEXT_TOKENS,
            controls=True,
            time_per_frame=True,
        )
        return rank_memory(
            preset.dit,
            work,
            ranks=self.ranks,
            zero_stage=self.zero_stage,
            sequence_parallel=self.sequence_parallel,
            micro_batches=self.micro_batches,
            recompute=self.recompute,
            number_bytes=4,
        )


def measure(case: Case, *, what: Literal["memory", "time"], steps: int = 3) -> list[float]:
    """Of each rank: the peak of live bytes, or the median processor seconds of a step.

    Raises:
        InternalError: a rank ended without a result.
    """
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(case, what, steps, rank, f"{folder}/rendezvous", results) for rank in range(case.ranks)]
        ranks = [context.Process(target=_rank, args=given) for given in arguments]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise InternalError("a rank failed", where=str(case), fix="its output is above")
        return [value for _, value in sorted(results.get() for _ in ranks)]


def _rank(case: Case, what: str, steps: int, rank: int, rendezvous: str, results) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=case.ranks)
    run, preset = case.run(), case.preset()
    ranks = Ranks(
        rank=rank,
        world=case.ranks,
        local_rank=rank,
        device=torch.device("cpu"),
        sequence_parallel=case.sequence_parallel,
    )
    seconds = []
    watched = LiveMemory()
    with watched if what == "memory" else torch.enable_grad():
        model, _, engine, _ = make_engine(run, preset, ranks)
        ema = ShardedEMA(model, decay=run.ema, rank=rank, ranks=case.ranks)
        for step in range(_WARM + steps):
            batch = _clips(case, preset.dit, step, ranks)
            if step == _WARM:
                gc.collect()
                watched.peak_bytes = watched.live_bytes
            started = time.process_time()
            loss, *_ = forward(engine, batch, run, preset, ranks)
            take(engine, loss, lr=1e-3)
            ema.update(model, step)
            seconds.append(time.process_time() - started)
    results.put((rank, float(watched.peak_bytes) if what == "memory" else statistics.median(seconds[_WARM:])))


def _clips(case: Case, config: DiTConfig, step: int, ranks: Ranks) -> Batch:
    count = case.clips // ranks.data_ranks
    places = range(ranks.data_rank * count, (ranks.data_rank + 1) * count)
    slots = config.object_slots
    return Batch(
        step=step,
        places=tuple(places),
        bucket="random",
        clip_ids=tuple(map(str, places)),
        latents=torch.randn(count, config.in_channels, *case.latents),
        text=torch.randn(count, _TEXT_TOKENS, config.text_dim),
        text_mask=torch.ones(count, _TEXT_TOKENS, dtype=torch.bool),
        controls=Controls(
            camera=torch.randn(count, 6, *case.latents),
            flow=torch.randn(count, 2, *case.latents),
            floor=torch.rand(count, FLOOR_POINTS * FLOOR_NUMBERS, *case.latents) if config.floor_waves else None,
            objects=torch.randn(count, slots, config.object_maps, *case.latents),
            phrases=torch.randn(count, slots, config.text_dim),
            fps=torch.full((count,), 8.0),
        ),
        empty_text=torch.zeros(1, config.text_dim),
    )


@dataclass(frozen=True, kw_only=True)
class MeasureRun:
    """Measure memory against the plan, and time by ranks and ZeRO stage; prints tables, or puts them on a page."""

    only: Literal["memory", "time"] | None = None
    cases: str = "all"  # `few`: a case of each kind
    rounds: int = 3  # of the time table: every arrangement in turn
    out: str | None = None  # a page with the tables' places, docs/benchmarks/training.md


MEMORY_CASES = (
    *(Case(width=256, zero_stage=stage, ranks=2) for stage in (0, 1, 2, 3)),
    *(Case(width=256, latents=(9, 16, 16), zero_stage=stage, ranks=2) for stage in (0, 1, 2, 3)),
    *(Case(width=512, latents=(9, 16, 16), clips=4, zero_stage=stage, ranks=2) for stage in (1, 2, 3)),
    *(Case(width=512, layers=12, zero_stage=stage, ranks=4) for stage in (2, 3)),
    Case(width=512, latents=(9, 16, 16), clips=4, zero_stage=2, ranks=1),
    Case(width=256, layers=12, latents=(9, 16, 16), zero_stage=3, ranks=2, recompute=True),
    Case(width=512, layers=12, latents=(9, 16, 16), zero_stage=2, ranks=2, recompute=True),
    Case(width=256, latents=(9, 32, 32), clips=1, zero_stage=2, ranks=2, sequence_parallel=2),
    Case(width=256, latents=(9, 16, 16), clips=16, zero_stage=2, ranks=2, micro_batches=4),
    Case(width=256, latents=(9, 16, 16), clips=16, zero_stage=3, ranks=2, micro_batches=4),
)
FEW = tuple(MEMORY_CASES[i] for i in (1, 6, 7, -3))
TIME_CASES = (
    Case(ranks=1, zero_stage=0, clips=16),
    *(Case(ranks=2, zero_stage=stage, clips=16) for stage in (0, 1, 2, 3)),
    *(Case(ranks=4, zero_stage=stage, clips=16) for stage in (2, 3)),
    Case(ranks=2, zero_stage=2, clips=16, sequence_parallel=2),
)  # fmt: skip


def command(arguments: list[str]) -> None:
    """The subcommand's body."""
    request = tyro.cli(MeasureRun, args=arguments, prog="python -m train measure")
    print("\n\n".join("\n".join(lines) for lines in tables(request).values()))


def tables(request: MeasureRun) -> dict[str, list[str]]:
    """Markdown lines of each table."""
    made = {}
    if request.only != "time":
        made["memory"] = _memory_table(FEW if request.cases == "few" else MEMORY_CASES)
    if request.only != "memory":
        made["time"] = _time_table(TIME_CASES[:3] if request.cases == "few" else TIME_CASES, request.rounds)
    if request.out is not None:
        for name, lines in made.items():
            replace_table(Path(request.out), "python -m train measure", name, "\n".join(lines))
    return made


def _memory_table(cases: tuple[Case, ...]) -> list[str]:
    lines = [
        "| width x layers, parameters | tokens x clips of a rank | ranks, ZeRO | plan, MiB | measured, MiB | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        planned, measured = case.planned().peak, max(measure(case, what="memory"))
        config = case.preset().dit
        frames, height, width = case.latents
        passes = f" in {case.micro_batches} passes" if case.micro_batches > 1 else ""
        shared = ", a clip shared" if case.sequence_parallel > 1 else ""
        cells = (
            f"{config.width} x {config.num_layers}, {num_parameters(config) / 1e6:.1f}M",
            f"{frames * height * width // 4} x {case.clips * case.sequence_parallel // case.ranks}{passes}",
            f"{case.ranks}, {case.zero_stage}{', recomputed' if case.recompute else ''}{shared}",
            f"{planned / 2**20:.0f}",
            f"{measured / 2**20:.0f}",
            f"{planned / measured:.3f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def _time_table(cases: tuple[Case, ...], rounds: int) -> list[str]:
    """All ranks' processor time of a step, over that of the first case: 1 is free parallelism."""
    seconds: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, taken in zip(cases, seconds, strict=True):
            taken.append(sum(measure(case, what="time", steps=6)))
    peaks = [max(measure(case, what="memory")) for case in cases]
    lines = [
        "| ranks | ZeRO | processor time of all ranks | of one rank | peak of one rank, MiB |",
        "|---|---|---|---|---|",
    ]
    for case, taken, peak in zip(cases, seconds, peaks, strict=True):
        ratios = [mine / first for mine, first in zip(taken, seconds[0], strict=True)]
        middle, shared = statistics.median(ratios), ", one clip shared" if case.sequence_parallel > 1 else ""
        spread = f" ({min(ratios):.2f}-{max(ratios):.2f})" if case is not cases[0] else ""
        times = f"{middle:.2f}{spread} | {middle / case.ranks:.2f}"
        lines.append(f"| {case.ranks}{shared} | {case.zero_stage} | {times} | {peak / 2**20:.0f} |")
    return lines
