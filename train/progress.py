"""The progress line: reads what the first rank writes, so that it works across processes and restarts."""

import json
import threading
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_POLL_S = 0.5


class Display:
    """A line with step, loss, rate and time left while the block runs; plain lines where there is no terminal."""

    def __init__(self, folder: Path, steps: int):
        self._path, self._steps = folder / "metrics.jsonl", steps
        self._console = Console()
        columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._task = self._bar.add_task("train", total=steps, told="starting ranks")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)
        self._last_said = 0

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()
        self._read()
        self._bar.stop()

    def attempt(self, step: int) -> None:
        self._last_said = step
        self.say(f"train: from step {step} to {self._steps}")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def _follow(self) -> None:
        while not self._ended.wait(_POLL_S):
            self._read()

    def _read(self) -> None:
        record = _last_record(self._path)
        if record is None:
            return
        loss, val = record.get("loss"), record.get("val_loss")
        told = f"loss {'not finite' if loss is None else f'{loss:.4f}'}"
        told += f"  {record.get('tokens_per_s', 0):.0f} tokens/s" + (f"  val {val:.4f}" if val else "")
        self._bar.update(self._task, completed=record["step"], told=told)
        every = max(1, self._steps // 20)
        if not self._console.is_terminal and record["step"] >= self._last_said + every:
            self._last_said = record["step"]
            self.say(f"step {record['step']}/{self._steps}  {told}")


def _last_record(path: Path) -> dict | None:
    """The last whole line."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 4096))
        lines = [line for line in file.read().split(b"\n")[:-1] if line.startswith(b"{") and line.endswith(b"}")]
    return json.loads(lines[-1]) if lines else None
