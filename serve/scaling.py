"""How many replicas: by the predicted seconds of work that waits, not by a count of messages.

One minute of 1080p in realtime and one thumbnail are not the same load. The policy runs in Ray Serve's controller and
reads the task store itself, so it works with no replica at all: to zero and back. A replica that is to go
drains: it saves its tasks' states and gives them back (engine.py), so none is lost.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from ray.serve.config import AutoscalingContext

from .tasks import TaskStore


class QueuedSeconds:
    """An autoscaling policy for Ray Serve.

    Args:
        database: SQLAlchemy URL of the task store.
        target_s: unfinished predicted seconds of work that one replica is for.
        idle_s: so long must fewer replicas be enough before any is taken away.
    """

    def __init__(
        self, database: str, target_s: float = 60.0, idle_s: float = 120.0, clock: Callable[[], float] = time.monotonic
    ):
        self._store, self._target_s, self._idle_s, self._clock = TaskStore(database), target_s, idle_s, clock
        self._enough_since: float | None = None

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas to have, and what operators see of the reason."""
        num_waiting, work_s = self._store.backlog()
        num_running = len(self._store.running())
        # A replica for every target_s of work, but never more than there are tasks: one task is not divided.
        wanted = min(math.ceil(work_s / self._target_s), num_waiting + num_running)
        wanted = max(wanted, min(1, num_waiting + num_running))
        wanted = max(context.capacity_adjusted_min_replicas, min(context.capacity_adjusted_max_replicas, wanted))
        now, current = self._clock(), context.target_num_replicas
        if wanted >= current:
            self._enough_since = None
        else:
            if self._enough_since is None:
                self._enough_since = now
            if now - self._enough_since < self._idle_s:
                wanted = current
        return wanted, {"queued_s": round(work_s, 1), "waiting": num_waiting, "running": num_running}
