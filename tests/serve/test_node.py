"""A whole node: all its processes killed at once, a service that sleeps and wakes, and a polite end."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from kling.client.client import Client
from kling.client.retries import RetryPolicy
from kling.schema import VideoConfig
from serve.keys import KeyStore, Limits, service_secret
from serve.latents import load_state
from serve.media import Media
from serve.tasks import TaskStore

from .conftest import ROOT, free_port, until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
LONG = VideoConfig(seed=11, steps=60)
LONGER = VideoConfig(seed=11, steps=200)  # not done before a node has stopped, on a fast machine either


class Node:
    """`python -m serve` on a state folder, with a Ray cluster of its own."""

    def __init__(self, state: Path, weights: str):
        self.state, self._weights = state, weights
        self.store = TaskStore(f"sqlite:///{state}/tasks.db")
        keys = KeyStore(self.store.engine, service_secret(str(state)))
        self._key = keys.create(name="test", scopes=frozenset({"generate", "read"}), limits=Limits()).bearer
        self.url = ""

    @contextmanager
    def running(self, *options: str) -> Iterator[psutil.Process]:
        """Started and ready; whatever is left of it at the end is killed."""
        port = free_port()
        command = [sys.executable, "-m", "serve", "tiny", "--checkpoint", self._weights, "--state", str(self.state),
                   "--port", str(port), "--ranks", "1", *options]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        log = (self.state / "log").open("ab")
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        process = psutil.Process(child.pid)
        self.url, self._seen = f"http://127.0.0.1:{port}", {process}
        try:
            until(lambda: child.poll() is not None or _answers(port), 400)
            assert child.poll() is None, (self.state / "log").read_text()[-2000:]
            yield process
        finally:
            self.kill(process)
            child.wait(60)
            log.close()

    def kill(self, process: psutil.Process) -> None:
        """kill -9 of everything it started, at once."""
        for one in self.processes(process):
            _end(one)
        psutil.wait_procs(self._seen, timeout=30)

    def processes(self, process: psutil.Process) -> set[psutil.Process]:
        if process.is_running():
            self._seen |= {process, *process.children(recursive=True)}
        return {one for one in self._seen if one.is_running()}

    def client(self) -> Client:
        return Client(self.url, self._key, retry=RetryPolicy(max_tries=60, max_pause_s=2.0))

    def row(self, task_id: str):
        row = self.store.get(task_id)
        assert row is not None
        return row

    def ready(self) -> bool:
        """Whether a replica that lives says that it is ready."""
        return any(w["status"] == "ready" for w in self.store.workers(within_s=5))


def _answers(port: int) -> bool:
    """Its routes are there, whether a replica is awake or not."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/live", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _end(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


@pytest.fixture(scope="module")
def node(tmp_path_factory, tiny_weights) -> Node:
    return Node(tmp_path_factory.mktemp("node"), tiny_weights)


def test_a_node_dies_and_another_sleeps_wakes_and_ends_politely(node: Node):
    """In one test, since each start of a node takes long."""
    with node.running() as process, node.client() as client:
        until(node.ready, 120)
        whole = client.wait(client.generate("a ball", config=LONG).task_id)
        tasks = [client.generate("a ball", config=LONG)]
        tasks += [client.generate("a cube", config=VideoConfig(seed=seed, steps=3)) for seed in range(3)]
        until(lambda: node.row(tasks[0].task_id)["step"] > 20, 120)
        time.sleep(random.Random().uniform(0, 1))
        assert node.row(tasks[0].task_id)["state"] == "running"
        node.kill(process)
        assert not node.processes(process)
    assert whole.result is not None
    with node.running("--min-replicas", "0", "--idle-s", "3") as process:
        with node.client() as client:
            ended = [client.wait(task.task_id, timeout_s=300) for task in tasks]
            assert [task.status for task in ended] == ["completed"] * 4
            assert [task.attempt for task in ended] == [2, 1, 1, 1], "only what ran was begun again"
            assert ended[0].result is not None and ended[0].result.sha256 == whole.result.sha256
            until(lambda: not node.ready(), 120)  # to zero, a while after the last task
            woken = client.wait(client.generate("a cube", config=VideoConfig(seed=0, steps=3)).task_id, timeout_s=300)
            assert woken.result is not None and ended[1].result is not None
            assert woken.result.sha256 == ended[1].result.sha256, "awake again, and the same"
            last = client.generate("a ball", config=LONGER)
            until(lambda: node.row(last.task_id)["step"] > 20, 120)
        _stops_politely(node, process, last.task_id)


def _stops_politely(node: Node, process: psutil.Process, task_id: str) -> None:
    """SIGTERM: the task is given back with its latents, the exit status is 0, and no process is left."""
    node.processes(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) in (0, None)
    until(lambda: not node.processes(process), 20)
    row = node.row(task_id)
    assert (row["state"], row["lease_until"], row["crashes"], row["worker"]) == ("running", 0.0, 0, None)
    state = load_state(Media(str(node.state), task_id))
    assert state is not None and state.step >= row["step"] > 0
