"""Memory: whatever is asked for, in whatever mix, the replica's processes stay within what was predicted."""

import asyncio
import contextlib
import random
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kling.presets import get_preset
from kling.schema import GenerateRequest, VideoConfig
from serve.admission import Admission, Calibration, NotAdmittedError
from serve.engine import Room
from serve.memory import KEPT_BYTES, Keeper
from serve.orders import Order

from .conftest import Service, until

pytestmark = pytest.mark.timeout(600)
ADMISSION = Admission(preset=get_preset("tiny"))
LARGEST = Order(
    prompt="", negative_prompt="", width_px=192, height_px=192, num_frames=33, fps=8, num_steps=1, guidance=2.0, seed=0
)


def _calibration(service: Service) -> Calibration:
    """Of the service's replica, as if it had just the memory that LARGEST needs."""
    worker = next(w for w in service.store.workers(within_s=10) if w["calibration"])
    measured = Calibration.from_json(worker["calibration"])
    return replace(measured, budget_bytes=ADMISSION.predict(LARGEST, measured).num_bytes)


def _group(service: Service) -> list[int]:
    pids = service.pids()
    return [*pids["ranks"], *pids["decoder"]]


def _status(pid: int, label: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(label))


@contextlib.contextmanager
def walls(pids: list[int], num_bytes: int) -> Iterator[None]:
    """No process gets more than so many bytes beyond what it has: the kernel refuses, and its task would fail."""
    for pid in pids:
        limit = _status(pid, "VmData:") + num_bytes
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            if psutil.pid_exists(pid):
                resource.prlimit(pid, resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _mix(calibration: Calibration, count: int) -> list[VideoConfig]:
    """Requests of all shapes, as admission with this little memory grants them; the largest of all among them."""
    rng, granted = random.Random(5), []
    while len(granted) < count:
        config = VideoConfig(
            resolution=rng.choice(["64x64", "256x144", "96x256", "512x512", "1920x1080"]),
            duration=rng.choice([1.0, 2.0, 6.0]), fps=8, steps=1, seed=1, realtime=rng.random() < 0.3,
        )  # fmt: skip
        try:
            order = ADMISSION.admit(GenerateRequest(prompt="a ball", config=config), calibration).order
        except NotAdmittedError as error:
            assert error.status == 409 and "GiB" in str(error)
            continue
        size = f"{order.width_px}x{order.height_px}"
        granted.append(config.model_copy(update={"resolution": size, "duration": order.duration_s}))
    return [*granted, VideoConfig(resolution="192x192", duration=4.0, fps=8, steps=1, seed=1)]


def test_two_tasks_wait_for_each_other_when_both_do_not_fit():
    async def scene() -> list[str]:
        room, said = Room(size=100), []

        async def task(name: str, num_bytes: int, seconds: float) -> None:
            async with room.for_bytes(num_bytes):
                said.append(name)
                await asyncio.sleep(seconds)
            said.append(f"{name} ends")

        await asyncio.gather(task("a", 60, 0.05), task("b", 50, 0.05), task("c", 40, 0.2))
        await task("huge", 1000, 0.0)
        return said

    assert asyncio.run(scene()) == ["a", "c", "a ends", "b", "b ends", "c ends", "huge", "huge ends"]


def test_a_little_is_kept_for_the_next_task_and_much_is_not(monkeypatch):
    idle = 500 * 2**20
    memory = {"now": idle}
    monkeypatch.setattr("serve.memory.memory_bytes", lambda: memory["now"])
    monkeypatch.setattr("serve.memory.release_memory", lambda: memory.update(now=idle))
    keeper = Keeper()

    def left(num_bytes: int, *, stopped: bool = False) -> int:
        with keeper.task(lambda: stopped):
            memory["now"] += num_bytes
        return memory["now"] - idle

    assert left(1) == 0, "what it holds when idle is not known yet"
    assert left(KEPT_BYTES // 2) == left(0) == KEPT_BYTES // 2
    assert left(KEPT_BYTES) == 0
    assert left(KEPT_BYTES // 2, stopped=True) == 0, "a cancel frees all of it"
    with pytest.raises(ValueError, match="failed"), keeper.task(lambda: False):
        memory["now"] += 2 * KEPT_BYTES
        raise ValueError("failed")
    assert memory["now"] == idle


@pytest.mark.ray
def test_a_cancel_gives_the_memory_back_before_it_is_told(service: Service):
    pids = _group(service)[:-1]

    def resident() -> int:
        return sum(_status(pid, "VmRSS:") for pid in pids)

    with service.client() as client:

        def begun(**config) -> str:
            task = client.generate("a ball", config=VideoConfig(seed=1, fps=8, allow_downgrade=False, **config))
            until(lambda: client.get(task.task_id).progress.step >= 1, 120)
            return task.task_id

        def cancelled(task_id: str) -> None:
            client.cancel(task_id)
            assert client.wait(task_id, timeout_s=60).status == "cancelled"

        cancelled(begun(resolution="64x64", duration=2.0, steps=200))
        idle = resident()
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # a new peak starts
        large = begun(resolution="256x256", duration=4.0, steps=6)
        taken = sum(_status(pid, "VmHWM:") for pid in pids) - idle
        cancelled(large)
        left = resident() - idle
    assert taken > 20 * 2**20, "there is something to give back"
    assert left < 0.1 * taken, f"{left / 2**20:.0f} of {taken / 2**20:.0f} MiB stayed"


@pytest.mark.ray
def test_no_mix_of_requests_takes_more_memory_than_there_is(service: Service):
    calibration, pids = _calibration(service), _group(service)
    mix = _mix(calibration, 6)
    assert len({(c.resolution, c.duration, c.realtime) for c in mix}) >= 5, "a mix"
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # a new peak starts
    with service.client() as client, walls(pids, calibration.budget_bytes - calibration.base_bytes):
        tasks = [client.generate("a ball", config=config) for config in mix]
        ended = [client.wait(task.task_id, timeout_s=400) for task in tasks]
        assert [task.status for task in ended] == ["completed"] * len(mix)
        assert _group(service) == pids, "no process was lost"
        peak = sum(_status(pid, "VmHWM:") for pid in pids)
    assert peak <= calibration.budget_bytes, f"{peak / 2**20:.0f} of {calibration.budget_bytes / 2**20:.0f} MiB"
