"""`kling generate|get|wait|watch|cancel|list`: a running service from the command line.

Where it is and the key come from --url and --key, else from KLING_URL and KLING_API_KEY.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kling.client.client import Client
from kling.errors import ConfigError, ServiceError, StorageError
from kling.schema import CameraControl, Task, VideoConfig

console = Console(highlight=False)


@dataclass(frozen=True, kw_only=True)
class Service:
    """Which service."""

    url: str = ""  # default: $KLING_URL, else http://127.0.0.1:8000
    key: str = ""  # default: $KLING_API_KEY

    def open(self) -> Client:
        return Client(*self.resolved())

    def resolved(self) -> tuple[str, str]:
        """Address and key. Raises ConfigError without a key."""
        key = self.key or os.environ.get("KLING_API_KEY", "")
        if not key:
            fix = "Set KLING_API_KEY, or pass --key (python -m serve keys create --state DIR makes one)"
            raise ConfigError("no API key", where="KLING_API_KEY", fix=fix)
        return self.url or os.environ.get("KLING_URL", "http://127.0.0.1:8000"), key


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Make a video on a running service, and wait for it."""

    prompt: Annotated[str, tyro.conf.Positional]
    out: str = ""  # file for the video; default: TASK_ID.mp4
    resolution: str | None = None  # WIDTHxHEIGHT
    duration: float | None = None  # seconds
    fps: int | None = None
    quality: Literal["draft", "standard", "high"] = "standard"
    style: str | None = None
    camera: str | None = None  # "orbit left", "dolly in slow"
    seed: int | None = None
    negative: str = ""  # what is not wanted
    steps: int | None = None
    guidance: float | None = None
    first_frame: Path | None = None  # a picture file to start with
    last_frame: Path | None = None  # and one to end with
    extend: str | None = None  # id of a finished task: its video goes on
    priority: int = 5  # 0..9, 9 goes first
    deadline: float | None = None  # seconds from now after which it is of no use
    realtime: bool = False  # chunk by chunk: frames leave while later ones are made
    no_plan: bool = False  # text alone, without deciding first what happens
    keep_size: bool = False  # fail rather than make something smaller
    detach: bool = False  # print the task id and return
    service: tyro.conf.OmitArgPrefixes[Service] = Service()


@dataclass(frozen=True, kw_only=True)
class One:
    """One task."""

    task_id: Annotated[str, tyro.conf.Positional]
    out: str = ""  # (get, wait, watch) also download the finished video here
    service: tyro.conf.OmitArgPrefixes[Service] = Service()


@dataclass(frozen=True, kw_only=True)
class Several:
    """Your tasks, newest first."""

    limit: int = 20
    service: tyro.conf.OmitArgPrefixes[Service] = Service()


def generate(arguments: list[str]) -> int:
    """Start a task and, unless detached, see it through to a file."""
    options = tyro.cli(Generate, args=arguments, prog="kling generate", description=Generate.__doc__)
    _check_out(options.out)
    with options.service.open() as client:
        given = {"first_frame": options.first_frame, "last_frame": options.last_frame, "extend": options.extend}
        task = client.generate(options.prompt, config=_config(options), **given)
        for change in task.adjustments:
            console.print(f"{change.field}: asked {change.asked}, makes {change.granted} ({change.reason})")
        if options.detach:
            print(task.task_id)
            return 0
        return _follow(client, task.task_id, options.out or f"{task.task_id}.mp4")


def get(arguments: list[str]) -> int:
    """Print a task; download its video on request."""
    options = tyro.cli(One, args=arguments, prog="kling get", description="Where a task is.")
    with options.service.open() as client:
        task = client.get(options.task_id)
        console.print_json(task.model_dump_json())
        if options.out:
            console.print(client.download(task.task_id, options.out))
    return 0


def wait(arguments: list[str]) -> int:
    """Wait with a progress bar; raises ServiceError when the task made nothing."""
    options = tyro.cli(One, args=arguments, prog="kling wait", description="Wait until a task ends.")
    with options.service.open() as client:
        return _follow(client, options.task_id, options.out)


def watch(arguments: list[str]) -> int:
    """Print every change as the service tells it."""
    options = tyro.cli(One, args=arguments, prog="kling watch", description="Every change of a task, as it happens.")
    with options.service.open() as client:
        task = None
        for task in client.watch(options.task_id):
            progress = task.progress
            console.print(f"{task.status:<10} {progress.stage:<8} {progress.step}/{progress.num_steps}")
        return _end(client, task or client.get(options.task_id), options.out)


def cancel(arguments: list[str]) -> int:
    """Stop a task and print what became of it."""
    options = tyro.cli(One, args=arguments, prog="kling cancel", description="Stop a task.")
    with options.service.open() as client:
        console.print(f"{options.task_id}: {client.cancel(options.task_id).status}")
    return 0


def list_tasks(arguments: list[str]) -> int:
    """Print the newest tasks as a table."""
    options = tyro.cli(Several, args=arguments, prog="kling list", description=Several.__doc__)
    table = Table("task", "status", "size", "prompt")
    with options.service.open() as client:
        for task in client.list(limit=options.limit).tasks:
            size = f"{task.granted.width_px}x{task.granted.height_px} {task.granted.duration_s:g} s"
            table.add_row(task.task_id, task.status, size, task.prompt[:60])
    console.print(table)
    return 0


def camera_fields(words: str) -> dict[str, str] | bool | None:
    """ "orbit left slow" as the fields of a `CameraControl`; "true" and "false" are themselves, "" is None."""
    given = words.split()
    if not given:
        return None
    if words.strip().lower() in ("true", "false"):
        return words.strip().lower() == "true"
    speed = {"speed": given.pop()} if len(given) > 1 and given[-1] in ("slow", "fast") else {}
    return {"type": given[0], **({"direction": " ".join(given[1:])} if len(given) > 1 else {}), **speed}


def _config(options: Generate) -> VideoConfig:
    from pydantic import ValidationError

    try:
        fields = camera_fields(options.camera or "")
        camera = CameraControl.model_validate(fields) if isinstance(fields, dict) else fields
        return VideoConfig(
            resolution=options.resolution,
            duration=options.duration,
            fps=options.fps,
            quality=options.quality,
            style=options.style,
            camera_control=camera,
            seed=options.seed,
            negative_prompt=options.negative,
            steps=options.steps,
            guidance=options.guidance,
            priority=options.priority,
            deadline_s=options.deadline,
            realtime=options.realtime,
            use_plan=not options.no_plan,
            allow_downgrade=not options.keep_size,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(first["msg"], where=f"--{'.'.join(map(str, first['loc']))}") from None


def _check_out(out: str) -> None:
    """Before a video is made for it. Raises StorageError for a folder, OSError for a place that cannot be made."""
    if out and Path(out).is_dir():
        raise StorageError("this is a folder", where=out, fix="Give the name of a file")
    Path(out).parent.mkdir(parents=True, exist_ok=True)


def _follow(client: Client, task_id: str, out: str) -> int:
    """A progress bar until the task ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        line = bar.add_task(task_id, total=1.0)

        def show(task: Task) -> None:
            waiting = f" (number {task.queue_position} in the queue)" if task.queue_position else ""
            bar.update(line, completed=task.progress.fraction, description=f"{task_id} {task.status}{waiting}")

        task = client.wait(task_id, on_change=show)
    return _end(client, task, out)


def _end(client: Client, task: Task, out: str) -> int:
    """Download what was made. Raises ServiceError when nothing was."""
    if task.status != "completed":
        reason = task.error.message if task.error else ""
        raise ServiceError(f"the task {task.status}", where=task.task_id, fix=reason)
    if out:
        print(Path(client.download(task.task_id, out)))
    return 0
