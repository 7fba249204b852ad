"""What each step tells: a line of metrics.jsonl, TensorBoard, and whatever the caller reports to."""

import json
import math
import resource
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from kling import storage
from kling.presets import Preset

from .batches import Batch
from .checkpoint import Progress
from .config import TrainRun
from .mfu import peak_flops, step_flops
from .objective import NOISE_LEVELS, Draw
from .ranks import Ranks
from .watch import Verdict

Record = dict[str, float]


class Meter:
    """Numbers over all ranks; the first rank writes them.

    A remote output gets metrics.jsonl and events.jsonl at each checkpoint (`upload`), a local one line by line.
    """

    def __init__(self, run: TrainRun, preset: Preset, ranks: Ranks, folder: Path, step: int):
        self.run, self.preset, self.ranks, self.folder = run, preset, ranks, folder
        self._board: SummaryWriter | None = None
        if ranks.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            self._continue_from(step)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
            self._peak_flops, source = peak_flops(ranks.device)
            self.event("peak of a rank's device", flops=self._peak_flops, source=source)

    def over_ranks(self, loss: Tensor, levels: Tensor) -> tuple[float, Tensor]:
        """The mean loss, and the sums and counts by noise level, over all ranks: one message."""
        mine = torch.cat([loss.detach().double().cpu().view(1), levels.flatten()])
        total = self.ranks.total(mine)
        return float(total[0]) / self.ranks.world, total[1:].view_as(levels)

    def record(self, progress: Progress, batch: Batch, loss: float, levels: Tensor, verdict: Verdict) -> Record:
        """What is known about a step before it is timed. A loss that is not finite is written as null."""
        made: Record = {"step": progress.step, "data_step": progress.data_step, "loss": loss}
        for high, (total, count) in zip(NOISE_LEVELS, levels.tolist(), strict=True):
            if count:
                made[f"loss_t_{high}"] = total / count
        f, h, w = (size // p for size, p in zip(batch.latents.shape[2:], self.preset.dit.patch, strict=True))
        made["tokens"] = f * h * w * len(batch.places) * self.ranks.data_ranks
        made["skipped"] = float(verdict is not Verdict.TAKE)
        return made

    def timed(self, record: Record, drawn: Draw, *, step_s: float, waited_s: float) -> Record:
        """Adds seconds, rates and memory; ``mfu`` on the first rank (train/mfu.py)."""
        if self._board is not None:
            flops = step_flops(self.preset, drawn, self.ranks.data_ranks * self.run.micro_batches)
            record["mfu"] = flops / step_s / (self.ranks.world * self._peak_flops)
        record["step_s"], record["data_wait_s"] = step_s, waited_s
        record["tokens_per_s"] = record["tokens"] / step_s
        if self.ranks.device.type == "cuda":
            record["memory_bytes"] = torch.cuda.max_memory_allocated()
        else:
            record["memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return record

    def write(self, record: Record) -> None:
        if self._board is None:
            return
        clean = {k: v if math.isfinite(v) else None for k, v in record.items()}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(clean) + "\n")
        for name, value in record.items():
            if name not in ("step", "data_step"):
                self._board.add_scalar(name, value, int(record["step"]))

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """h w 3 uint8, for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def event(self, kind: str, **told) -> None:
        """What happened that a person should know: skips, roll-backs, restarts."""
        if self.ranks.rank == 0:
            append_event(self.folder, kind, **told)

    def upload(self) -> None:
        """Bring the files to a remote output."""
        if self._board is None or storage.is_local(self.run.out):
            return
        self._board.flush()
        for path in self.folder.rglob("*"):
            if path.is_file():
                storage.write_bytes(storage.join(self.run.out, str(path.relative_to(self.folder))), path.read_bytes())

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _continue_from(self, step: int) -> None:
        """Steps after the checkpoint are made again: their old lines go."""
        path, remote = self.folder / "metrics.jsonl", storage.join(self.run.out, "metrics.jsonl")
        if not storage.is_local(self.run.out) and step and storage.exists(remote):
            path.write_bytes(storage.read_bytes(remote))
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            path.write_text("".join(line + "\n" for line in kept))


def append_event(folder: Path, kind: str, **told) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": kind, "time_s": time.time(), **told}) + "\n")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # cut short by a kill
        return math.inf
