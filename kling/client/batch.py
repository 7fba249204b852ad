"""`kling batch`: thousands of requests from a file, a few at a time, with results that survive anything.

    OUT/batch.json       the batch's name; with a row's number and content it makes the row's idempotency key
    OUT/results.jsonl    one line a finished row, appended and flushed to disk: the record of what is done
    OUT/videos/000017.mp4    appears whole, before its line in results.jsonl

Kill it at any moment and run the same command again: rows with a line are skipped, the others are asked for again under
the same idempotency key, so the service returns the task it already has instead of making a second one.
"""

import asyncio
import base64
import contextlib
import csv
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError
from rich.console import Console

from kling.client.client import AsyncClient, RefusedError
from kling.client.commands import Service, camera_fields
from kling.errors import InputError, KlingError, ServiceError
from kling.schema import GenerateRequest, Task, VideoConfig

console = Console(highlight=False)
_CONFIG_FIELDS = frozenset(VideoConfig.model_fields)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Make a video for every row of a file.

    A row of a JSONL file is {"prompt": ..., "config": {...}}; a CSV file has a column `prompt` and columns named after
    config fields (seed, resolution, duration, camera_control as "orbit left", ...). Empty cells are left to the
    service. first_frame and last_frame may name picture files, from the batch file's folder.
    """

    file: Annotated[Path, tyro.conf.Positional]
    out: Path = Path("out/batch")
    concurrency: int = 8  # tasks in flight
    service: tyro.conf.OmitArgPrefixes[Service] = field(default_factory=Service)

    def __post_init__(self):
        if not 1 <= self.concurrency <= 1000:
            raise InputError("1 to 1000 tasks in flight", where=f"--concurrency {self.concurrency}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One request of a batch."""

    index: int  # from 0, in the file's order
    request: GenerateRequest

    def key(self, batch: str) -> str:
        """The same for the same row of the same batch, always."""
        text = f"{batch} {self.index} {self.request.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()


def command(arguments: list[str]) -> int:
    """Run or resume a batch; exit code 6 when a row failed."""
    options = tyro.cli(Batch, args=arguments, prog="kling batch", description=Batch.__doc__)
    rows = read_rows(options.file)
    with options.service.open() as probe:  # the key and the address, checked before anything is written
        probe.list(limit=1)
    url, key = options.service.resolved()

    async def go() -> dict[str, int]:
        async with AsyncClient(url, key) as client:
            return await run(client, rows, options.out, concurrency=options.concurrency)

    counts = asyncio.run(go())
    console.print(f"{counts['completed']} completed, {counts['failed']} failed, of {len(rows)}: {options.out}")
    return ServiceError.exit_code if counts["failed"] else 0


async def run(client: AsyncClient, rows: list[Row], out: Path, *, concurrency: int) -> dict[str, int]:
    """Every row to its end; returns how many completed and failed, earlier runs included.

    A row that the service refuses or fails is recorded as failed. When the service cannot be reached the run ends with
    ServiceError; what is in flight goes on there and is picked up by the next run.
    """
    with _alone(out):
        return await _run(client, rows, out, concurrency)


async def _run(client: AsyncClient, rows: list[Row], out: Path, concurrency: int) -> dict[str, int]:
    name, done = _open(out)
    counts = {"completed": 0, "failed": 0}
    for line in done.values():
        counts[line["status"]] += 1
    waiting = iter([row for row in rows if row.key(name) not in done])

    async def work(ledger) -> None:
        for row in waiting:  # shared: each worker takes the next
            line = await _make(client, row, row.key(name), out)
            ledger.write(json.dumps(line) + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
            counts[line["status"]] += 1
            finished = counts["completed"] + counts["failed"]
            console.print(f"{finished}/{len(rows)} row {row.index}: {line['status']}")

    with (out / "results.jsonl").open("a") as ledger:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(rows))):
                    group.create_task(work(ledger))
        except* KlingError as errors:
            raise errors.exceptions[0] from None
    return counts


async def _make(client: AsyncClient, row: Row, key: str, out: Path) -> dict:
    """One row to its end, as a line of the record."""
    line: dict = {"key": key, "index": row.index, "prompt": row.request.prompt}
    try:
        task = await client.submit(row.request, idempotency_key=key)
        task = await client.wait(task.task_id)
        if task.status != "completed":
            message = task.error.message if task.error else task.status
            return {**line, "status": "failed", "task_id": task.task_id, "error": message}
        path = await client.download(task.task_id, out / "videos" / f"{row.index:06d}.mp4")
    except RefusedError as error:
        if error.status in (401, 403, 429) or error.status >= 500:
            raise  # not this row's fault: it is not done
        return {**line, "status": "failed", "error": str(error)}
    return {**line, "status": "completed", "task_id": task.task_id, "video": str(path), **_made(task)}


def _made(task: Task) -> dict:
    return {
        "seed": task.granted.seed,
        "sha256": task.result.sha256 if task.result else "",
        "adjustments": [change.model_dump() for change in task.adjustments],
    }


def read_rows(file: Path) -> list[Row]:
    """Rows of a .jsonl or .csv file.

    Raises:
        InputError: not readable, or a row is not a request; names file, line and field.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the batch ({error})", where=str(file)) from None
    raw = _from_csv(text) if file.suffix.lower() == ".csv" else _from_jsonl(text, file)
    rows = []
    for number, value in raw:
        try:
            value = _with_pictures(value, file.parent)
            rows.append(Row(index=len(rows), request=GenerateRequest.model_validate(value)))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise InputError(f"{name or 'row'}: {first['msg']}", where=f"{file}:{number}") from None
        except OSError as error:
            raise InputError(f"cannot read the picture ({error})", where=f"{file}:{number}") from None
    if not rows:
        raise InputError("the batch has no rows", where=str(file))
    return rows


def _with_pictures(value: object, folder: Path) -> object:
    """The row with its picture files read; base64 has no dot in it, a picture's file name has."""
    if not isinstance(value, dict):
        return value
    named = {
        name: base64.b64encode((folder / text).read_bytes()).decode()
        for name in ("first_frame", "last_frame")
        if isinstance(text := value.get(name), str) and "." in text and len(text) < 1024
    }
    return value | named


def _from_jsonl(text: str, file: Path) -> Iterable[tuple[int, object]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"not JSON ({error.msg})", where=f"{file}:{number}") from None


def _from_csv(text: str) -> Iterable[tuple[int, object]]:
    reader = csv.DictReader(text.splitlines(keepends=True))
    for cells in reader:
        given = {name: cell for name, cell in cells.items() if cell not in (None, "")}
        config: dict[str, object] = {name: given.pop(name) for name in list(given) if name in _CONFIG_FIELDS}
        if isinstance(camera := config.get("camera_control"), str):
            config["camera_control"] = camera_fields(camera)
        yield reader.line_num, {**given, "config": config}


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two runs of one batch at the same time would write every row twice. Raises InputError for the second."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system however the process ends
        except BlockingIOError:
            raise InputError("this batch is being run already", where=str(out), fix="Wait for it to end") from None
        yield


def _open(out: Path) -> tuple[str, dict[str, dict]]:
    """The batch's name, and the finished rows by key. A last line that a crash cut short does not count."""
    card = out / "batch.json"
    if not card.exists():
        part = card.with_suffix(".part")
        part.write_text(json.dumps({"name": uuid.uuid4().hex}))
        part.replace(card)
    name = json.loads(card.read_text())["name"]
    results, done = out / "results.jsonl", {}
    if results.exists():
        whole, newline, _ = results.read_bytes().rpartition(b"\n")
        os.truncate(results, len(whole + newline))
        for line in whole.splitlines():
            entry = json.loads(line)
            done[entry["key"]] = entry
    return name, done
