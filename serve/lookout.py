"""Asking the database again only when it is worth it: when its file has changed, or after a while."""

import asyncio
import time
from pathlib import Path

from .tasks import TaskStore

_STAT_S = 0.005  # a stat of a file costs microseconds
_QUERY_S = 0.02  # a query costs a millisecond of processor time, which on a small machine the ranks lack
_CHANGED_S = 0.005  # between queries of a file that does change: a request writes twice, and only then has a task


class Lookout:
    """When one process should look again. Each has its own.

    A transaction on SQLite appends to its write-ahead log: no change of that file, no change in the database. A clock
    that ticks too slowly may hide a change that follows another at once, so nobody waits for one alone. PostgreSQL has
    no file here: it is asked every 20 ms.
    """

    def __init__(self, store: TaskStore):
        url = store.engine.url
        self._log = f"{url.database}-wal" if url.get_backend_name() == "sqlite" else None
        self._seen: tuple[int, int] | None = None
        self._returned_at = 0.0

    async def change(self, seconds: float) -> None:
        """Return when the database may have changed since the last return, or after so many seconds. Never at
        once after the last return: changes may follow each other closely."""
        deadline = time.monotonic() + seconds
        pause = self._returned_at + (_QUERY_S if self._log is None else _CHANGED_S) - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        while (stamp := self._stamp()) is not None and stamp == self._seen and time.monotonic() < deadline:
            await asyncio.sleep(_STAT_S)
        self._seen = stamp  # from before the caller's query: what is written after it is seen next time
        self._returned_at = time.monotonic()

    def _stamp(self) -> tuple[int, int] | None:
        if self._log is None:
            return None
        try:
            found = Path(self._log).stat()
        except FileNotFoundError:  # the last process that used the database has put it away
            return 0, 0
        return found.st_mtime_ns, found.st_size
