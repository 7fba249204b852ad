"""Ray Train: a killed rank is started again and costs no step; what would fail again ends the run at once."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from kling.errors import InputError
from kling.model.checkpoint import load_part
from kling.model.dit import DiT
from train.config import OptimizerConfig, TrainRun
from train.trainer import train_dit

from .conftest import write_dataset
from .launch import losses

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def make_run(data, encoders: str, out: Path, **changed) -> TrainRun:
    fields = {
        "preset": "tiny",
        "data": str(data),
        "out": str(out),
        "weights": encoders,
        "steps": 12,
        "batch_size": 8,
        "checkpoint_every": 4,
        "validate_every": 0,
        "optimizer": OptimizerConfig(warmup=5),
    }
    return TrainRun(**{**fields, **changed})


def rank_processes() -> list[int]:
    """Processes of this session's Ray workers that train."""
    children = psutil.Process().children(recursive=True)
    return [p.pid for p in children if "RayTrainWorker" in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.timeout(600)
def test_a_killed_rank_is_started_again_and_costs_no_step(ray_cluster, dataset, encoders, small, tmp_path):
    train_dit(make_run(dataset, encoders, tmp_path / "whole"), small)
    out, killed = tmp_path / "killed", []

    def kill_one() -> None:
        while not (out / "metrics.jsonl").exists() or len((out / "metrics.jsonl").read_text().splitlines()) < 6:
            time.sleep(0.01)
        killed.append(rank_processes()[-1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    weights = train_dit(make_run(dataset, encoders, out), small)
    killer.join()
    assert killed and "lost ranks" in (out / "events.jsonl").read_text()
    assert losses(out) == losses(tmp_path / "whole")
    load_part(weights, "dit", DiT(small.dit))


@pytest.mark.timeout(600)
def test_what_would_fail_again_ends_the_run_at_once(ray_cluster, encoders, small, tmp_path):
    write_dataset(tmp_path / "data", encoders, {("train", "64x64x17"): 8})
    shard = next((tmp_path / "data").glob("shards/train/*/*.parquet"))
    table = pq.read_table(shard)
    rows = [row | {"latents_shape": [32, 5, 4, 16]} for row in table.to_pylist()]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), shard)
    with pytest.raises(InputError, match=r"latents of shape \(32, 5, 4, 16\)"):
        train_dit(make_run(tmp_path / "data", encoders, tmp_path / "out"), small)
    assert not (tmp_path / "out" / "events.jsonl").exists()
