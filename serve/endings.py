"""Waiting for tasks to end: one query at a time asks for all who wait, however many they are."""

import asyncio
import contextlib
from collections import defaultdict

from .lookout import Lookout
from .tasks import TaskStore

_LOOK_S = 0.25  # at the latest: what has ended has changed the database
_MOST = 200  # who comes after them is answered at once, and asks again


class Endings:
    """The waiters of one ingress replica."""

    def __init__(self, store: TaskStore):
        self._store = store
        self._waiting: dict[str, set[asyncio.Future]] = defaultdict(set)
        self._looking: asyncio.Task | None = None

    async def wait(self, task_id: str, seconds: float) -> None:
        """Return when the task has ended or is gone, or after so many seconds."""
        if sum(map(len, self._waiting.values())) >= _MOST:
            return
        told = asyncio.get_running_loop().create_future()
        self._waiting[task_id].add(told)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told, seconds)
        finally:
            self._waiting[task_id].discard(told)
            if not self._waiting[task_id]:
                del self._waiting[task_id]

    async def _look(self) -> None:
        """Ends with the last waiter; an error of the database is every waiter's."""
        lookout = Lookout(self._store)
        while self._waiting:
            try:
                ended = await asyncio.to_thread(self._store.ended, list(self._waiting))
            except Exception as error:  # noqa: BLE001 - passed on to those who wait
                self._tell(list(self._waiting), error)
                return
            self._tell(ended, None)
            await lookout.change(_LOOK_S)

    def _tell(self, task_ids: list[str], error: Exception | None) -> None:
        for told in [told for task_id in task_ids for told in self._waiting.get(task_id, ()) if not told.done()]:
            told.set_exception(error) if error is not None else told.set_result(None)
