"""Competitors timed turn by turn in one process (A B C A B C ...), so that a noisy machine is noisy to all of them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Clock = Literal["cpu", "wall"]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as long as the reference, over the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def race(
    runners: dict[str, Callable[[], object]], *, rounds: int, clock: Clock = "cpu", least_s: float = 0.02
) -> dict[str, list[float]]:
    """Seconds a call of each runner in each round, after a first call that does not count.

    Args:
        clock: "cpu" is the time this process was given, which other processes' load hardly changes: right for one
            thread, wrong for more (threads that wait are counted). "wall" is the time on the clock.
        least_s: short runners are called several times a round, so that a round lasts about this long.
    """
    now = time.process_time if clock == "cpu" else time.perf_counter
    calls = {}
    for name, run in runners.items():
        start = now()
        run()
        if now() - start < 20 * least_s:  # the first call also warms caches, so a short one is judged by the second
            start = now()
            run()
        calls[name] = max(1, round(least_s / max(now() - start, 1e-6)))
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            start = now()
            for _ in range(calls[name]):
                run()
            seconds[name].append((now() - start) / calls[name])
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, reference: str) -> Ratio:
    """``name`` against ``reference``, round by round."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[reference], strict=True)]
    return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))
