"""A bound on crashes: material on which a worker dies again and again is set aside, not tried for ever.

Ray starts a dead worker again and gives it the same work. That is right for a machine that failed, and endless for a
file that crashes a library. An actor counts, for this run alone, how often work on a piece was begun and not ended.
"""

from typing import Any

import ray

MAX_DEATHS = 3


class _Counter:
    def __init__(self):
        self._begun: dict[str, int] = {}

    def begin(self, piece: str) -> int:
        """How often this piece was begun before without an end."""
        before = self._begun.get(piece, 0)
        self._begun[piece] = before + 1
        return before

    def end(self, piece: str) -> None:
        self._begun.pop(piece, None)


class Tries:
    """The count of one run. It travels to the workers; the actor behind it ends with the run."""

    def __init__(self):
        self._counter: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Counter).remote()

    def begin(self, stage: str, source: str, index: int = 0) -> str | None:
        """Call before the work; returns why it must not be tried again, or None."""
        deaths: Any = ray.get(self._counter.begin.remote(f"{stage}\0{source}\0{index}"))
        if deaths < MAX_DEATHS:
            return None
        return f"{stage}: the worker died {deaths} times on it"

    def end(self, stage: str, source: str, index: int = 0) -> None:
        """Call after the work, whether it failed or not: the worker lives."""
        self._counter.end.remote(f"{stage}\0{source}\0{index}")
