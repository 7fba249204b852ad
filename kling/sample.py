"""`kling sample`: make a video in this process, without a service."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kling.errors import ConfigError, InputError


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Make one video in this process."""

    prompt: Annotated[str, tyro.conf.Positional]
    out: str = "video.mp4"
    preset: str = "tiny"
    weights: str | None = None  # URI of a weights folder; default: the packaged ones
    negative_prompt: str = ""
    width: int | None = None  # px
    height: int | None = None  # px
    num_frames: int | None = None
    fps: float | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    sampler: str = "dpmpp_2m"
    plan: bool = True  # decide what happens before drawing (--no-plan: from text alone)
    scene: str | None = None  # an edited plan (file or URI; kling scene --json prints one) instead of the prompt's
    physics: bool = True  # condition on the simulated objects (--no-physics: the text alone moves things)
    camera_control: bool = True  # condition on the planned camera (--no-camera-control: the text alone moves it)


def command(arguments: list[str]) -> None:
    """The subcommand's body."""
    asked = tyro.cli(Sample, args=arguments, prog="kling sample", description=Sample.__doc__)
    if not asked.prompt.strip():
        raise InputError("the prompt is empty", fix='Say what to show: kling sample "a red ball bounces"')
    if asked.scene is not None and not asked.plan:
        raise ConfigError("a scene is given and plans are off", where=asked.scene, fix="Leave out --no-plan")
    run(asked)


def run(asked: Sample) -> None:
    """Build, denoise with a progress bar, decode into the file; the file appears when it is whole."""
    from kling.media.video import write_mp4
    from kling.pipeline import Generation, build
    from kling.scene.command import read_plan
    from kling.storage import check_file

    check_file(asked.out)
    console = Console(stderr=True)
    with console.status(f"loading {asked.preset}"):
        pipeline = build(asked.preset, weights=asked.weights)
        job = pipeline.prepare(
            Generation(
                prompt=asked.prompt,
                negative_prompt=asked.negative_prompt,
                width_px=asked.width,
                height_px=asked.height,
                num_frames=asked.num_frames,
                fps=asked.fps,
                seed=asked.seed,
                num_steps=asked.steps,
                guidance=asked.guidance,
                sampler=asked.sampler,
                use_plan=asked.plan,
                plan=None if asked.scene is None else read_plan(asked.scene),
                physics=asked.physics,
                camera_control=asked.camera_control,
            )
        )
    if job.plan is not None:
        for doubt in (*job.plan.doubts, *(f"not understood: {word}" for word in job.plan.not_understood)):
            console.print(f"[yellow]{doubt}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    latents = job.noise
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("denoise", total=job.generation.num_steps)
        for state in pipeline.denoise(job):
            latents = state.x
            progress.update(bar, completed=state.step)
        bar = progress.add_task("decode", total=job.generation.num_frames)

        def frames():
            for chunk in pipeline.decode(latents):
                progress.advance(bar, len(chunk))
                yield from chunk

        write_mp4(asked.out, frames(), fps=job.generation.fps or 1.0)
    console.print(asked.out, soft_wrap=True)
