"""A replica by itself, with real processes and without HTTP: whole clips, chunks, cancels, lost ranks, a drain."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from kling.presets import get_preset
from kling.schema import GenerateRequest, VideoConfig
from serve.admission import NOMINAL, Admission
from serve.engine import Engine, EngineSettings
from serve.latents import load_state
from serve.media import Media
from serve.ranks import RankSettings
from serve.tasks import TaskStore

from .conftest import until
from .test_tasks import a_task

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:coroutine 'Engine.__del__' was never awaited"),  # awaited here, then collected
]


class Shop:
    """An engine on a store of its own."""

    def __init__(self, state: str, weights: str):
        self.state, self.store = state, TaskStore(f"sqlite:///{state}/tasks.db")
        ranks = RankSettings(preset="tiny", weights=weights, state=state, num_ranks=1, num_threads=1, silent_s=5.0)
        self.settings = EngineSettings(ranks=ranks, database=f"sqlite:///{state}/tasks.db", budget_bytes=8 * 2**30)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Engine]:
        """Ready; at the end it is drained as Ray Serve drains a replica."""
        engine = Engine.__new__(Engine)
        await engine.__init__(self.settings)  # type: ignore[misc]
        try:
            yield engine
            await engine.check_health()
        finally:
            await engine.__del__()

    def ask(self, **config) -> str:
        request = GenerateRequest(prompt="a ball", config=VideoConfig(**{"seed": 3, **config}))
        order = Admission(preset=get_preset("tiny")).admit(request, NOMINAL).order
        with self.store.engine.begin() as connection:
            return self.store.add(connection, a_task(order=order.to_json()))

    def row(self, task_id: str):
        row = self.store.get(task_id)
        assert row is not None
        return row

    async def until(self, task_id: str, *states: str, step: int = 0, seconds: float = 240.0):
        async with asyncio.timeout(seconds):
            while (row := self.row(task_id))["state"] not in states or row["step"] < step:
                await asyncio.sleep(0.02)
        return row

    async def mended(self, engine: Engine, lost: tuple[int, float]) -> tuple[int, float]:
        """The new decoder's process, once it is there."""
        async with asyncio.timeout(120):
            while len(engine._group.pids) < 2 or engine._group.pids[-1] == lost:
                await asyncio.sleep(0.05)
        return engine._group.pids[-1]

    def digest(self, task_id: str) -> str:
        return json.loads(self.row(task_id)["result"])["sha256"]


def test_a_replica_sees_every_task_through(ray_cluster, tiny_weights, tmp_path):
    shop = Shop(str(tmp_path), tiny_weights)

    async def scene() -> None:
        async with shop.open() as engine:
            first, second = shop.ask(steps=40), shop.ask(steps=40)
            for task_id in (first, second):
                row = await shop.until(task_id, "completed", "failed")
                assert (row["state"], row["attempt"], row["step"]) == ("completed", 1, 40), row["error_message"]
            assert shop.digest(first) == shop.digest(second)
            chunked = shop.ask(steps=2, realtime=True)
            assert (await shop.until(chunked, "completed", "failed"))["state"] == "completed"
            assert json.loads(shop.row(chunked)["result"])["num_frames"] == 17

            cancelled = shop.ask(steps=100)
            await shop.until(cancelled, "running", step=1)
            shop.store.cancel(cancelled)
            row = await shop.until(cancelled, "cancelled")
            assert 0 < row["step"] < 100

            broken = shop.ask(steps=1)
            with shop.store.engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE tasks SET \"order\" = '[]' WHERE id = '{broken}'")
            assert (await shop.until(broken, "failed"))["error_code"] == "internal", "the next one does not wait for it"

            lost = shop.ask(steps=40)
            await shop.until(lost, "running", step=5)
            psutil.Process(engine._group.pids[0][0]).kill()
            row = await shop.until(lost, "completed", "failed")
            assert (row["state"], row["attempt"], row["crashes"]) == ("completed", 2, 1), row["error_message"]
            assert shop.digest(lost) == shop.digest(first), "going on from its latents gives the same bytes"

            ranks, [decoder] = engine._group.pids[:-1], engine._group.pids[-1:]
            psutil.Process(decoder[0]).kill()  # while it has nothing to do
            made = await shop.mended(engine, decoder)
            assert engine._group.pids[:-1] == ranks
            paced = shop.ask(steps=40, realtime=True)  # the decoder works all the time
            await shop.until(paced, "running", step=2)
            psutil.Process(made[0]).send_signal(signal.SIGSTOP)
            row = await shop.until(paced, "completed", "failed")
            assert (row["state"], row["attempt"]) == ("completed", 1), row["error_message"]
            assert engine._group.pids[:-1] == ranks and engine._group.pids[-1] not in (decoder, made)

            drained = shop.ask(steps=200)
            await shop.until(drained, "running", step=5)
        row = shop.row(drained)
        assert (row["state"], row["worker"], row["crashes"], row["lease_until"]) == ("running", None, 0, 0.0)
        state = load_state(Media(shop.state, drained))
        assert state is not None and state.step >= row["step"] > 0
        until(lambda: not any(psutil.pid_exists(pid) for pid, _ in engine._group.pids), 30)

    asyncio.run(scene())
