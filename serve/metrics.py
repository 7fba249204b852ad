"""What operators watch, as Prometheus metrics through Ray (names there begin with ``ray_``).

`METRICS` lists every one; the dashboard's queries are checked against it. Labels never hold prompts, keys or task ids.
"""

from dataclasses import dataclass

from ray.util.metrics import Counter, Gauge, Histogram

_SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]


@dataclass(frozen=True, kw_only=True)
class Metric:
    kind: str  # counter | gauge | histogram
    about: str
    tags: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    "kling_queue_seconds": Metric(kind="histogram", about="from accepted to first claimed"),
    "kling_step_seconds": Metric(kind="histogram", about="one sampling step (realtime: one chunk) on all ranks"),
    "kling_ttff_seconds": Metric(kind="histogram", about="from accepted to the first frame in storage"),
    "kling_task_seconds": Metric(kind="histogram", about="from claimed to completed"),
    "kling_memory_bytes": Metric(kind="gauge", about="resident memory of a replica's processes", tags=("worker",)),
    "kling_budget_bytes": Metric(kind="gauge", about="what a replica may use", tags=("worker",)),
    "kling_backlog_seconds": Metric(kind="gauge", about="predicted seconds of unfinished work"),
    "kling_waiting_tasks": Metric(kind="gauge", about="tasks in the queue"),
    "kling_tasks": Metric(kind="counter", about="tasks that ended here", tags=("state",)),
    "kling_failures": Metric(kind="counter", about="failed tasks and lost groups", tags=("cause",)),
    "kling_downgrades": Metric(kind="counter", about="things made smaller than asked", tags=("field",)),
    "kling_refusals": Metric(kind="counter", about="requests not taken", tags=("code",)),
}


class Meter:
    """The metrics of one process; made where Ray runs, each at its first use."""

    def __init__(self) -> None:
        self._made: dict[str, Counter | Gauge | Histogram] = {}

    def add(self, name: str, **tags: str) -> None:
        metric = self._metric(name)
        assert isinstance(metric, Counter)
        metric.inc(1.0, tags)

    def set(self, name: str, value: float, **tags: str) -> None:
        metric = self._metric(name)
        assert isinstance(metric, Gauge)
        metric.set(value, tags)

    def observe(self, name: str, seconds: float) -> None:
        metric = self._metric(name)
        assert isinstance(metric, Histogram)
        metric.observe(max(1e-6, seconds))

    def _metric(self, name: str) -> Counter | Gauge | Histogram:
        if name not in self._made:
            given = METRICS[name]
            if given.kind == "histogram":
                self._made[name] = Histogram(name, given.about, boundaries=_SECONDS, tag_keys=given.tags)
            else:
                kind = Counter if given.kind == "counter" else Gauge
                self._made[name] = kind(name, given.about, tag_keys=given.tags)
        return self._made[name]
