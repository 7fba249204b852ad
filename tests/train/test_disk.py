"""A full disk at a checkpoint: the run ends with one clear error, and the last complete checkpoint is untouched."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from kling.errors import StorageError
from train import checkpoint
from train.checkpoint import Progress
from train.config import TrainRun
from train.ema import ShardedEMA
from train.ranks import Ranks

ALONE = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))


class Engine:
    """What `checkpoint.save` asks of DeepSpeed's engine: one file of the model's state, here or where it is told."""

    def __init__(self, target: Path | None = None):
        self.module, self.target = nn.Linear(64, 64), target

    def save_checkpoint(self, folder: str, *, tag: str, save_latest: bool) -> None:
        path = Path(folder, tag, "state.pt")
        path.parent.mkdir()
        if self.target is not None:
            path.symlink_to(self.target)
        torch.save(self.module.state_dict(), path)  # as DeepSpeed does


def save(out: Path, step: int, engine: Engine) -> None:
    ema = ShardedEMA(engine.module, decay=0.9, rank=0, ranks=1)
    run = TrainRun(preset="tiny", data="unused", out=str(out), keep_checkpoints=2)
    checkpoint.save(run, engine, ema, Progress(step=step), ALONE, scratch=out, zero_stage=2)


def newest_step(out: Path) -> int:
    saved = checkpoint.latest(str(out))
    assert saved is not None
    return saved.progress.step


def test_a_disk_that_fills_while_writing(tmp_path):
    """/dev/full answers every write as a full disk does."""
    save(tmp_path, 4, Engine())
    with pytest.raises(StorageError, match="cannot write the checkpoint") as caught:
        save(tmp_path, 8, Engine(Path("/dev/full")))
    assert "the last complete checkpoint is untouched" in str(caught.value)
    assert newest_step(tmp_path) == 4
    save(tmp_path, 8, Engine())  # there is room again: what the first attempt left is replaced
    assert newest_step(tmp_path) == 8


def test_no_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, 4, Engine())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(StorageError, match="no space for a checkpoint"):
        save(tmp_path, 8, Engine())
    assert newest_step(tmp_path) == 4
    assert not (tmp_path / "checkpoints" / "step-00000008").exists()
