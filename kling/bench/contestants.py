"""Who makes the clips of a benchmark: this library, a service, a folder of finished clips, or a VAE fed the truth.

Each is called with a prompt and gives frames, their rate and the seconds it took (None where time means nothing).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kling.bench.prompts import BenchPrompt
from kling.errors import ConfigError, InputError, ServiceError
from kling.media.video import read_frames
from kling.shapes import Frames

if TYPE_CHECKING:
    from kling.client.client import Client
    from kling.model.vae import VideoVAE
    from kling.pipeline import Pipeline

TRUTH, RECONSTRUCTED = "ground truth", "VAE reconstruction"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One answer."""

    frames: Frames
    fps: float
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One column of the report. ``steps`` and ``plan`` are None where they mean nothing."""

    name: str
    make: Callable[[BenchPrompt], Clip] = field(compare=False)
    steps: int | None = None
    plan: bool | None = None


def folder(name: str, where: str) -> Contestant:
    """Finished clips named by the prompts' ids (p001.mp4, ...).

    Raises:
        InputError: (when asked for a clip) it is not there.
    """

    def make(prompt: BenchPrompt) -> Clip:
        path = Path(where) / f"{prompt.id}.mp4"
        if not path.exists():
            fix = "Render the clips of the prompts: python -m data bench-prompts --render DIR"
            raise InputError("no clip for this prompt", where=str(path), fix=fix)
        frames, fps = read_frames(path)
        return Clip(frames=frames, fps=fps)

    return Contestant(name=name, make=make)


def reconstruction(vae: "VideoVAE", truth: Contestant) -> Contestant:
    """Ground truth, encoded and decoded: what the VAE leaves readable."""
    from kling.bench.reconstruct import reconstruct

    def make(prompt: BenchPrompt) -> Clip:
        clip = truth.make(prompt)
        return Clip(frames=reconstruct(vae, clip.frames), fps=clip.fps)

    return Contestant(name=RECONSTRUCTED, make=make)


def local(pipeline: "Pipeline", *, steps: int, plan: bool) -> Contestant:
    """This library, in this process."""
    from kling.pipeline import Generation

    def make(prompt: BenchPrompt) -> Clip:
        asked = Generation(prompt=prompt.prompt, seed=prompt.plan_seed, num_steps=steps, use_plan=plan)
        start = time.perf_counter()
        frames = pipeline.generate(asked)
        return Clip(frames=frames, fps=pipeline.resolve(asked).fps or 1.0, seconds=time.perf_counter() - start)

    name = f"{pipeline.preset.name}, {'plan' if plan else 'text alone'}, {steps} steps"
    return Contestant(name=name, make=make, steps=steps, plan=plan)


def service(name: str, url: str, key: str, *, steps: int, plan: bool) -> Contestant:
    """A running service that speaks the API.

    Raises:
        ServiceError: it cannot be reached, or refuses.
    """
    from kling.client.client import Client

    client = Client(url, key)
    client.list(limit=1)  # before anything is made: is it there, and is the key right?
    return Contestant(
        name=f"{name}, {'plan' if plan else 'text alone'}, {steps} steps",
        make=partial(_ask, client, steps, plan),
        steps=steps,
        plan=plan,
    )


def _ask(client: "Client", steps: int, plan: bool, prompt: BenchPrompt) -> Clip:
    from kling.schema import VideoConfig

    start = time.perf_counter()
    config = VideoConfig(steps=steps, use_plan=plan, seed=prompt.plan_seed % 2**31)
    task = client.wait(client.generate(prompt.prompt, config=config).task_id)
    seconds = time.perf_counter() - start
    if task.status != "completed":
        raise ServiceError("the service did not make the video", where=f"task {task.task_id}: {task.status}")
    frames, fps = read_frames(client.content(task.task_id))
    return Clip(frames=frames, fps=fps, seconds=seconds)


def parse_service(text: str) -> tuple[str, str]:
    """ "NAME=URL" or a URL alone.

    Raises:
        ConfigError: neither.
    """
    name, _, url = text.rpartition("=") if "=" in text.split("://")[0] else ("", "", text)
    if "://" not in url:
        raise ConfigError("a service is NAME=URL", where=text, fix="For example ours=http://127.0.0.1:8000")
    return name or url.split("://")[1], url
