"""kill -9 and freezes of every process between any two steps: each accepted task completes exactly once, same bytes."""

import signal
import time

import psutil
import pytest

from kling.schema import Task, VideoConfig
from serve.bench import own_processes

from .conftest import Service, until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
LONG = VideoConfig(seed=11, steps=45)


@pytest.fixture(scope="module")
def undisturbed(service: Service) -> str:
    """What LONG gives when nobody is killed."""
    with service.client() as client:
        task = client.wait(client.generate("a ball", config=LONG).task_id)
    assert task.result is not None
    return task.result.sha256


def _begun(service: Service) -> Task:
    """A task some steps on its way, with a state saved."""
    with service.client() as client:
        task = client.generate("a ball", config=LONG)
        return until(lambda: (t := client.get(task.task_id)).progress.step >= 20 and t, 300)


def _ended(service: Service, task: Task, undisturbed: str) -> Task:
    with service.client() as client:
        ended = client.wait(task.task_id, timeout_s=600)
    assert ended.status == "completed" and ended.result is not None
    assert ended.result.sha256 == undisturbed, "going on from a saved state gives the same bytes"
    return ended


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank(service: Service, undisturbed: str, rank: int):
    task = _begun(service)
    psutil.Process(service.pids()["ranks"][rank]).kill()
    assert _ended(service, task, undisturbed).attempt == 2


def test_a_frozen_rank(service: Service, undisturbed: str):
    task = _begun(service)
    psutil.Process(service.pids()["ranks"][1]).send_signal(signal.SIGSTOP)
    assert _ended(service, task, undisturbed).attempt == 2


def test_a_killed_replica(service: Service, undisturbed: str):
    task = _begun(service)
    psutil.Process(service.pids()["leader"]).kill()
    assert _ended(service, task, undisturbed).attempt == 2


def test_a_killed_ingress(service: Service, undisturbed: str):
    task = _begun(service)
    [ingress] = own_processes("ServeReplica:kling:Ingress")
    ingress.kill()
    assert _ended(service, task, undisturbed).attempt == 1, "the replica never noticed"


def test_a_killed_controller(service: Service, undisturbed: str):
    task = _begun(service)
    [controller] = own_processes("ServeController")
    controller.kill()
    assert _ended(service, task, undisturbed).attempt == 1
    with service.client() as client:
        again = client.wait(client.generate("a ball", config=VideoConfig(seed=1, steps=1)).task_id)
        assert again.status == "completed"


def test_a_killed_decoder_and_a_viewer_who_stays(service: Service, undisturbed: str):
    task, before = _begun(service), service.pids()
    psutil.Process(before["decoder"][0]).kill()
    with service.client() as client:
        frames = b"".join(client.stream(task.task_id, format="raw"))
    assert len(frames) == 17 * 64 * 64 * 3, "each frame once, though two decoders worked on it"
    assert _ended(service, task, undisturbed).attempt == 1
    after = service.pids()
    assert after["ranks"] == before["ranks"] and after["decoder"] != before["decoder"], "the ranks went on"


def test_kills_at_random_moments_lose_and_double_nothing(service: Service):
    import random

    rng = random.Random(4)
    with service.client() as client:
        tasks = [client.generate("a cube", config=VideoConfig(seed=s, steps=12)) for s in range(6)]
        for _ in range(3):
            time.sleep(rng.uniform(0.5, 4.0))
            pids = service.pids()
            while not (pids["ranks"] or pids["decoder"]):  # the group of the last kill is still starting again
                time.sleep(0.5)  # for ever, if it never does: the test's own time limit ends it
                pids = service.pids()
            victim = rng.choice([*pids["ranks"], *pids["decoder"]])
            if psutil.pid_exists(victim):
                psutil.Process(victim).kill()
        ended = [client.wait(task.task_id, timeout_s=600) for task in tasks]
    assert [task.status for task in ended] == ["completed"] * 6
    assert len({task.result.sha256 for task in ended if task.result}) == 6
