"""`python -m serve bench PRESET`: a real service on this machine, measured through its HTTP interface.

    overhead  a request's time through HTTP against the same work in this process, turn by turn
    first     seconds to the first frame against the whole clip's: chunk by chunk, and all at once
    load      offered 1, 2 and 10 times what it can do: latency of the accepted, refusals, lost
    kills     seconds that a kill -9 of each process adds to the task in work, and whether the bytes stay the same
    pace      a held pace, chunk by chunk

It starts a cluster and a service of its own and stops them. Times are the service's own where it has them.
"""

import io
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
import tyro

from kling import storage
from kling.bench.page import replace_table
from kling.client.client import Client, RefusedError
from kling.client.retries import RetryPolicy
from kling.errors import ServiceError
from kling.media.video import write_mp4
from kling.schema import Task, VideoConfig

from .app import ServiceSettings, connected, start
from .keys import KeyStore, Limits, service_secret
from .tasks import TaskStore

_PROMPT = "A red ball rolls past a blue cube on the grass."
_LOST_S = 900.0  # an accepted task that has not ended by then counts as lost
Part = Literal["overhead", "first", "load", "kills", "pace"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure a service of this preset on this machine."""

    preset: Annotated[str, tyro.conf.Positional] = "tiny"
    checkpoint: str | None = None  # URI of a weights folder; default: the packaged weights
    ranks: int = 1  # one: as the pipeline in this process
    only: tuple[Part, ...] = ("overhead", "first", "load", "kills", "pace")
    rounds: int = 8
    load_s: float = 12.0  # of arrivals, at each load
    steps: int | None = None  # default: the preset's
    out: Path | None = None  # docs/benchmarks/serving.md: the tables are put into it


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that runs, and the ways into it."""

    url: str
    key: str
    store: TaskStore
    settings: ServiceSettings

    def client(self, *, max_tries: int = 60) -> Client:
        return Client(self.url, self.key, retry=RetryPolicy(max_tries=max_tries, max_pause_s=2.0))

    def made(self, client: Client, config: VideoConfig) -> Task:
        """One task from request to its end.

        Raises:
            ServiceError: it did not complete.
        """
        task = client.generate(_PROMPT, config=config)
        return _completed(client.wait(task.task_id, timeout_s=_LOST_S))

    def pids(self) -> dict[str, list[int]]:
        """Of the replica that is ready: {"leader": [pid], "ranks": [...], "decoder": [pid]}."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for worker in self.store.workers(within_s=5):
                pids = json.loads(worker["pids"])
                pids["leader"] = [pids["leader"]]
                alive = all(found and all(map(psutil.pid_exists, found)) for found in pids.values())
                if worker["status"] == "ready" and alive:
                    return pids
            time.sleep(0.1)
        raise ServiceError("no replica is ready", where=self.url)


def command(arguments: list[str]) -> None:
    """`python -m serve bench`."""
    options = tyro.cli(Bench, args=arguments, prog="python -m serve bench", description=Bench.__doc__)
    parts: dict[Part, Callable[[Running, Bench], list[str]]] = {
        "overhead": overhead, "first": first_frame, "load": load, "kills": kills, "pace": pace,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as state:
        settings = ServiceSettings(
            preset=options.preset,
            state=state,
            checkpoint=None if options.checkpoint is None else storage.absolute(options.checkpoint),
            num_ranks=options.ranks,
        )
        with connected(settings):
            port = _free_port()
            start(settings, host="127.0.0.1", port=port)
            store = TaskStore(settings.database_url)
            keys = KeyStore(store.engine, service_secret(state))
            limits = Limits(requests_per_minute=100_000)
            key = keys.create(name="bench", scopes=frozenset({"generate", "read"}), limits=limits).bearer
            service = Running(url=f"http://127.0.0.1:{port}", key=key, store=store, settings=settings)
            for name in options.only:
                table = "\n".join(parts[name](service, options))
                print(f"## {name}\n\n{table}\n", flush=True)
                if options.out is not None:
                    replace_table(options.out, "python -m serve bench", name, table)


def overhead(service: Running, options: Bench) -> list[str]:
    """Request to video, the same seeds: this process's pipeline and the service, A B A B."""
    import torch

    from kling.pipeline import Generation, build

    torch.set_num_threads(service.settings.num_threads)  # as many as each of the service's processes
    pipeline = build(options.preset, weights=service.settings.checkpoint)
    here, there = [], []
    with service.client() as client:
        for seed in range(options.rounds + 1):
            started = time.perf_counter()
            frames = pipeline.generate(Generation(prompt=_PROMPT, seed=seed, num_steps=options.steps))
            write_mp4(io.BytesIO(), frames, fps=pipeline.preset.clip.fps)
            here.append(time.perf_counter() - started)
            there.append(_lasted(service.made(client, VideoConfig(seed=seed, steps=options.steps))))
    ratios = [b / a for a, b in zip(here[1:], there[1:], strict=True)]  # the first of each warms up
    return [
        "| | p50, s | from - to |",
        "|---|---|---|",
        _spread("in this process", here[1:], 2),
        _spread("through HTTP, created to completed", there[1:], 2),
        _spread("ratio, pair by pair", ratios, 3),
    ]


def first_frame(service: Running, options: Bench) -> list[str]:
    """Seconds from the request to the first whole frame of the raw stream, and to the end."""
    rows = ["| mode | seconds of video | first frame, s | whole, s | share |", "|---|---|---|---|---|"]
    with service.client() as client:
        for realtime in (True, False):
            for duration in (2.0, 8.0):
                times = [_streamed(client, realtime, duration, seed, options.steps) for seed in range(3)]
                first, whole = (statistics.median(column) for column in zip(*times, strict=True))
                shares = [f"{100 * a / b:.0f}" for a, b in times]
                mode = "chunk by chunk (realtime)" if realtime else "at once"
                share = f"{100 * first / whole:.0f} % ({', '.join(sorted(shares, key=int))})"
                rows.append(f"| {mode} | {duration:g} | {first:.2f} | {whole:.2f} | {share} |")
    return rows


def _streamed(client: Client, realtime: bool, duration: float, seed: int, steps: int | None) -> tuple[float, float]:
    started = time.perf_counter()
    config = VideoConfig(realtime=realtime, duration=duration, seed=seed, steps=steps)
    task = client.generate(_PROMPT, config=config)
    size, received, first = task.granted.width_px * task.granted.height_px * 3, 0, 0.0
    for data in client.stream(task.task_id, format="raw"):
        received += len(data)
        if not first and received >= size:
            first = time.perf_counter() - started
    if received != size * task.granted.num_frames:
        raise ServiceError(f"{received} bytes of frames, not {size * task.granted.num_frames}", where=task.task_id)
    return first, time.perf_counter() - started


def load(service: Running, options: Bench) -> list[str]:
    """Arrivals at fixed moments (nobody waits for an answer before asking again), then all that was accepted ends."""
    config = VideoConfig(steps=4)
    rows = [
        "| offered | asked | accepted | refused | lost | p50, s | p99, s | videos / s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with service.client() as client:
        each_s = statistics.median(_lasted(service.made(client, config)) for _ in range(5))
    for factor in (1, 2, 10):
        with ThreadPoolExecutor(16) as pool, service.client(max_tries=1) as client:
            started = time.monotonic()
            asked = []
            for i in range(max(1, round(options.load_s * factor / each_s))):
                time.sleep(max(0.0, started + i * each_s / factor - time.monotonic()))
                asked.append(pool.submit(_asked, client, config))
            accepted = [task_id for future in asked if (task_id := future.result()) is not None]
            ended = _all_ended(service, accepted)
            passed_s = time.monotonic() - started
        lasted = sorted(_lasted(task) for task in ended if task.status == "completed")
        lost = len(accepted) - len(lasted)
        p50, p99 = (f"{np.percentile(lasted, q):.1f}" for q in (50, 99))
        cells = [f"{factor}x", len(asked), len(accepted), len(asked) - len(accepted), lost, p50, p99]
        rows.append("| " + " | ".join(map(str, cells)) + f" | {len(lasted) / passed_s:.2f} |")
    return [*rows, "", f"One task alone takes {each_s:.2f} s (4 steps); 1x is one every {each_s:.2f} s."]


def _asked(client: Client, config: VideoConfig) -> str | None:
    """The id of the accepted task; None: refused, with a reason and when to come again."""
    try:
        return client.generate(_PROMPT, config=config).task_id
    except RefusedError as error:
        if error.status in (429, 503):
            return None
        raise


def _all_ended(service: Running, task_ids: list[str]) -> list[Task]:
    deadline, ended = time.monotonic() + _LOST_S, []
    with service.client() as client:
        for task_id in task_ids:
            ended.append(client.wait(task_id, timeout_s=max(1.0, deadline - time.monotonic())))
    return ended


def kills(service: Running, options: Bench) -> list[str]:
    """kill -9 of one process in the middle of a task; the task's time against the same task undisturbed."""
    config = VideoConfig(seed=11, steps=80)
    rows = ["| killed | seconds more | attempts | same bytes |", "|---|---|---|---|"]
    with service.client() as client:
        service.made(client, VideoConfig(steps=1))
        calm = [service.made(client, config) for _ in range(3)]
        usual_s = statistics.median(map(_lasted, calm))
        for name, found in _victims(service).items():
            more, tasks = [], []
            for _ in range(3):
                tasks.append(_disturbed(service, client, config, found))
                more.append(_lasted(tasks[-1]) - usual_s)
            same = all(_digest(task) == _digest(calm[0]) for task in tasks)
            attempts = "-".join(sorted({str(task.attempt) for task in tasks}))
            cell = f"{statistics.median(more):.1f} ({min(more):.1f} - {max(more):.1f})"
            rows.append(f"| {name} | {cell} | {attempts} | {'yes' if same else 'no'} |")
    return [*rows, "", f"Undisturbed the task takes {usual_s:.1f} s (80 steps)."]


def _victims(service: Running) -> dict[str, Callable[[], int]]:
    """Name of a process, and how its pid is found when its turn comes."""
    return {
        "a rank": lambda: service.pids()["ranks"][0],
        "the decoder": lambda: service.pids()["decoder"][0],
        "the replica": lambda: service.pids()["leader"][0],
        "the ingress": lambda: own_processes("ServeReplica:kling:Ingress")[0].pid,
        "Serve's controller": lambda: own_processes("ServeController")[0].pid,
    }


def _disturbed(service: Running, client: Client, config: VideoConfig, victim: Callable[[], int]) -> Task:
    service.pids()  # after the last kill the group is up again
    task = client.generate(_PROMPT, config=config)
    while client.get(task.task_id).progress.step < 20:
        time.sleep(0.05)
    psutil.Process(victim()).kill()
    return _completed(client.wait(task.task_id, timeout_s=_LOST_S))


def own_processes(name: str) -> list[psutil.Process]:
    """Processes of the cluster that this process started with this in their title; never another's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if name in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def pace(service: Running, options: Bench) -> list[str]:
    """The natural pace of a realtime task, then one asked to be a third faster."""
    rows = ["| chunk | frames | steps | size | ms a frame |", "|---|---|---|---|---|"]
    with service.client() as client:
        free = _pace(service.made(client, VideoConfig(realtime=True, duration=12.0, seed=1, steps=options.steps)))
        usual = statistics.median(chunk.ms_per_frame for chunk in free[1:])
        target = round(usual * 2 / 3)
        config = VideoConfig(
            realtime=True, duration=12.0, seed=1, steps=options.steps, target_ms_per_frame=float(target)
        )
        held = _pace(service.made(client, config))
    for i, chunk in enumerate(held):
        size = f"{chunk.width_px}x{chunk.height_px}"
        rows.append(f"| {i} | {chunk.num_frames} | {chunk.num_steps} | {size} | {chunk.ms_per_frame:.0f} |")
    took = np.array([chunk.ms_per_frame * chunk.num_frames for chunk in held[1:]])
    frames = np.array([chunk.num_frames for chunk in held[1:]])
    late = np.cumsum(took - target * frames)  # ms, at each chunk's end
    low, high = np.percentile(took / frames, (10, 90))
    told = (
        f"Left alone: {usual:.0f} ms a frame at {free[1].num_steps} steps. Target {target}; after chunk 0: "
        f"{took.sum() / frames.sum():.0f}, four chunks of five between {low:.0f} and {high:.0f}. "
        f"The latest chunk was {max(0.0, late.max()):.0f} ms late, {np.mean(late <= 0):.0%} were in time."
    )
    return [*rows, "", told]


def _pace(task: Task):
    assert task.result is not None
    return task.result.pace


def _completed(task: Task) -> Task:
    if task.status != "completed":
        raise ServiceError(f"the task {task.status}: {task.error}", where=task.task_id)
    return task


def _digest(task: Task) -> str:
    assert task.result is not None
    return task.result.sha256


def _lasted(task: Task) -> float:
    """Seconds from accepted to completed, by the service's clock."""
    assert task.finished_at is not None
    return task.finished_at - task.created_at


def _spread(name: str, values: list[float], digits: int) -> str:
    middle = statistics.median(values)
    return f"| {name} | {middle:.{digits}f} | {min(values):.{digits}f} - {max(values):.{digits}f} |"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
