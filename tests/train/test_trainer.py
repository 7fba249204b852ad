"""Ray Train: a killed rank, driver or node costs no step; what would fail again ends the run at once.

All are compared with one undisturbed run (conftest.py), step by step and bit for bit.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from kling.errors import InputError
from kling.model.checkpoint import load_part
from kling.model.dit import DiT
from train import checkpoint, trainer
from train.config import OptimizerConfig, TrainRun
from train.trainer import train_dit

from .conftest import DISTURBED, SMALL, write_dataset
from .launch import ROOT, losses

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def make_run(data, encoders: str, out: Path, **changed) -> TrainRun:
    fields = {
        "preset": "tiny",
        "data": str(data),
        "out": str(out),
        "weights": encoders,
        "batch_size": 8,
        "validate_every": 0,
        "optimizer": OptimizerConfig(warmup=5),
        **DISTURBED,
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


def wait_until(happened: Callable[[], bool], *, within_s: float = 150) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def num_lines(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Act in a thread while the block runs; what it raised is raised at the end."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 (raised below)
            raised.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


@pytest.mark.timeout(450)
def test_a_killed_rank_is_started_again_and_costs_no_step(ray_cluster, undisturbed, dataset, encoders, small, tmp_path):
    def kill_one() -> None:
        wait_until(lambda: num_lines(tmp_path) >= 6)
        os.kill(rank_processes()[-1], signal.SIGKILL)

    with meanwhile(kill_one):
        weights = train_dit(make_run(dataset, encoders, tmp_path), small)
    assert "lost ranks" in (tmp_path / "events.jsonl").read_text()
    assert losses(tmp_path) == losses(undisturbed)
    load_part(weights, "dit", DiT(small.dit))


DRIVER = """
import sys
from tests.train.test_trainer import make_run, SMALL
from train.trainer import train_dit
train_dit(make_run(*sys.argv[1:4]), SMALL)
"""


@pytest.mark.timeout(450)
def test_a_killed_driver_costs_no_step(ray_cluster, undisturbed, dataset, encoders, tmp_path):
    """A person's terminal dies; the same command again goes on. Its ranks end with it: they would write beside ours."""
    out = tmp_path / "out"
    address = ray_cluster.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, dataset, encoders, str(out)]
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=said, stderr=said, start_new_session=True)
        try:
            wait_until(lambda: num_lines(out) >= 5 or driver.poll() is not None)
            assert driver.poll() is None, (tmp_path / "said").read_text()
        finally:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
    wait_until(lambda: not rank_processes(), within_s=60)
    saved = checkpoint.latest(str(out))
    assert saved is not None and saved.progress.step < DISTURBED["steps"]
    train_dit(make_run(dataset, encoders, out), SMALL)
    assert losses(out) == losses(undisturbed)


@contextlib.contextmanager
def second_node(ray, log: Path) -> Iterator[psutil.Process]:
    """Another node of the session's cluster, with 2 CPUs, on this machine; gives its raylet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=2",
               f"--address={ray.get_runtime_context().gcs_address}", f"--dashboard-agent-listen-port={port}",
               "--object-store-memory=100000000"]  # fmt: skip
    with log.open("w") as said:
        node = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    members: list[psutil.Process] = []
    try:
        wait_until(lambda: sum(n["Alive"] for n in ray.nodes()) == 2 or node.poll() is not None)
        assert node.poll() is None, log.read_text()
        members = psutil.Process(node.pid).children(recursive=True)
        yield next(p for p in members if p.name() == "raylet")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            members += psutil.Process(node.pid).children(recursive=True)
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()


@pytest.mark.timeout(450)
def test_a_node_whose_raylet_is_killed_costs_no_step(ray_cluster, undisturbed, dataset, encoders, small, tmp_path):
    """Both ranks run on the second node, as the first is full; when it dies, they go on where there is room again."""
    from ray.util.placement_group import placement_group, remove_placement_group

    free = int(ray_cluster.available_resources()["CPU"])
    full = placement_group([{"CPU": 1}] * free, strategy="STRICT_PACK")
    assert full.wait(30)
    out = tmp_path / "out"
    try:
        with second_node(ray_cluster, tmp_path / "log") as raylet:

            def kill_the_node() -> None:
                wait_until(lambda: num_lines(out) >= 6)
                ranks = [p for p in raylet.children(recursive=True) if "RayTrainWorker" in " ".join(_command(p))]
                assert len(ranks) == 2, "the ranks run elsewhere"
                raylet.send_signal(signal.SIGKILL)
                remove_placement_group(full)

            with meanwhile(kill_the_node):
                train_dit(make_run(dataset, encoders, out), small)
    finally:
        remove_placement_group(full)
    assert "lost ranks" in (out / "events.jsonl").read_text()
    assert losses(out) == losses(undisturbed)


def test_nothing_waits_for_a_dashboard_that_is_not_there(ray_cluster, monkeypatch):
    """What frees places after a controller's death asks the dashboard: it stays where there is one."""

    def cleaners() -> int:
        made = trainer._Trainer(print)._create_default_callbacks()
        return sum(isinstance(callback, trainer.PlacementGroupCleanerCallback) for callback in made)

    assert cleaners() == 0
    monkeypatch.setattr(trainer, "get_dashboard_url", lambda: "127.0.0.1:8265")
    assert cleaners() == 1


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
