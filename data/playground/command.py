"""`python -m data playground`: render clips with their ground truth, in parallel, again and again without loss."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data.playground import splits
from kling import storage
from kling.errors import RAY_FIX, ConfigError, InputError, starting

_BATCH = 8  # clips a task: long enough to hide a task's start, short enough to share out evenly


@dataclass(frozen=True, kw_only=True)
class Options:
    """Render playground clips (mp4) with their ground truth (json)."""

    num_clips: int  # how many
    out: str  # folder or URI to write to; clips that are already there are kept
    split: Literal["train", "val", "bench"] = "train"
    seed: int = 0  # number of the first clip within its split
    width: int = 64  # pixels
    height: int = 64
    num_frames: int = 17
    fps: float = 8.0
    sheet: str | None = None  # also draw a contact sheet of the first 24 clips to this PNG file
    workers: int = 0  # processes; 0: one a CPU, 1: this process


def command(arguments: list[str]) -> int:
    options = tyro.cli(Options, args=arguments, prog="python -m data playground")
    done = render(options)
    if options.sheet:
        from data.playground.sheet import sheet

        names = [splits.name_of(seed) for seed in _seeds(options)[:24]]
        storage.write_bytes(options.sheet, sheet(_place(options.out), names))
    print(f"{done} clips rendered, {options.num_clips - done} already there: {options.out}")
    return 0


def render(options: Options) -> int:
    """Make the clips that are missing; returns how many.

    Raises:
        ConfigError: a size, length or number that is not possible; no off-screen renderer.
        StorageError: the place cannot be written.
    """
    _check(options)
    out = _place(options.out)
    missing = [seed for seed in _seeds(options) if not _is_whole(out, seed, options)]
    batches = [missing[i : i + _BATCH] for i in range(0, len(missing), _BATCH)]
    workers = min(options.workers or os.cpu_count() or 1, len(batches))
    with Progress(
        TextColumn("rendering"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not sys.stderr.isatty(),
    ) as progress:
        bar = progress.add_task("", total=options.num_clips, completed=options.num_clips - len(missing))
        run = _here if workers <= 1 else _on_ray
        for count in run(out, batches, options, workers):
            progress.advance(bar, count)
    return len(missing)


def _check(options: Options) -> None:
    if not 1 <= options.num_clips <= splits.SPAN:
        raise ConfigError(
            "an impossible number of clips", where=f"--num-clips {options.num_clips}", fix="Use 1 or more"
        )
    splits.seed_of(options.split, options.seed)
    splits.seed_of(options.split, options.seed + options.num_clips - 1)
    for flag, value in (("width", options.width), ("height", options.height)):
        if not 16 <= value <= 4096 or value % 2:
            raise ConfigError("an impossible size", where=f"--{flag} {value}", fix="Use an even number from 16 to 4096")
    if not 2 <= options.num_frames <= 3000:
        raise ConfigError("an impossible length", where=f"--num-frames {options.num_frames}", fix="Use 2 to 3000")
    if not 1 <= options.fps <= 120:
        raise ConfigError("an impossible frame rate", where=f"--fps {options.fps}", fix="Use 1 to 120")
    if not 1.0 <= (options.num_frames - 1) / options.fps <= 60:
        raise ConfigError(
            "a clip of this length shows nothing or never ends",
            where=f"{options.num_frames} frames at {options.fps:g} fps",
            fix="Choose --num-frames and --fps so that the clip lasts 1 to 60 seconds",
        )


def _seeds(options: Options) -> list[int]:
    first = splits.seed_of(options.split, options.seed)
    return list(range(first, first + options.num_clips))


def _place(out: str) -> str:
    # Workers have other working directories than the person who typed a relative path.
    return str(Path(out.removeprefix("file://")).absolute()) if storage.is_local(out) else out


def _is_whole(out: str, seed: int, options: Options) -> bool:
    """There is a clip with a sidecar. One of another format is not silently mixed in.

    Raises:
        InputError: the sidecar there is of another format, or is not a sidecar.
    """
    where = storage.join(out, f"{splits.name_of(seed)}.json")
    if not storage.exists(where):
        return False
    try:
        raw = json.loads(storage.read_bytes(where))
        found = (raw["width_px"], raw["height_px"], raw["num_frames"], raw["fps"], raw["seed"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "not a sidecar of the playground", where=where, fix="Delete it, or write to another folder"
        ) from None
    if found != (options.width, options.height, options.num_frames, options.fps, seed):
        raise InputError("a clip of another format is there", where=where, fix="Write to another folder")
    return storage.exists(storage.join(out, f"{splits.name_of(seed)}.mp4"))


def _here(out: str, batches: list[list[int]], options: Options, workers: int) -> Iterator[int]:
    del workers
    for batch in batches:
        yield _write_batch(out, batch, options)


def _on_ray(out: str, batches: list[list[int]], options: Options, workers: int) -> Iterator[int]:
    """One Ray task a batch; at most ``workers`` at a time so that a ctrl-C stops soon."""
    import ray

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            address = os.environ.get("RAY_ADDRESS", "local")  # not any cluster that was ever started here
            with starting("Ray", where=address, fix=RAY_FIX):
                ray.init(
                    address=address,
                    num_cpus=None if os.environ.get("RAY_ADDRESS") else workers,
                    include_dashboard=None if os.environ.get("RAY_ADDRESS") else False,
                    log_to_driver=False,
                    runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}},
                )
            stack.callback(ray.shutdown)
        task = ray.remote(num_cpus=1, max_retries=2)(_write_batch)
        waiting, running = list(reversed(batches)), []
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(task.remote(out, waiting.pop(), options))
            ready, running = ray.wait(running)
            try:
                yield sum(ray.get(ready))
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from None


def _write_batch(out: str, seeds: list[int], options: Options) -> int:
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # before anything imports MuJoCo
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa: workers share the CPUs already
    from data.playground.clip import Format, write

    form = Format(width_px=options.width, height_px=options.height, num_frames=options.num_frames, fps=options.fps)
    for seed in seeds:
        write(out, seed, form)
    return len(seeds)
