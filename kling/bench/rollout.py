"""`python -m kling.bench rollout`: does a clip several times as long as the trained ones hold?

Each prompt is drawn with its plan at that length, chunk by chunk and at once, and every third of it (or fourth, ...) is
judged by itself. What collapses loses sharpness, colours or its likeness from one frame to the next with time; what
holds has the same numbers in its last part as in its first, but for what has left the picture, which both ways share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from kling.bench import prompts
from kling.bench.evaluate import Evaluation, evaluate
from kling.bench.intervals import mean, share
from kling.bench.page import replace_table
from kling.errors import ConfigError
from kling.pipeline import Generation, Job, Pipeline, build
from kling.shapes import Frames, Latents


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Judge the parts of long clips."""

    preset: str = "tiny"
    weights: str | None = None  # URI of a weights folder; default: the packaged ones
    times: int = 3  # the training length
    steps: int | None = None  # default: the preset's
    chunk: int = 1  # latent frames
    num_prompts: int = 24  # evenly spread
    out: Path | None = None  # a page with the table's place, docs/benchmarks/tiny.md

    def __post_init__(self):
        if min(self.times, self.chunk, self.num_prompts) < 1:
            raise ConfigError("times, chunk and prompts are 1 or more", where=f"--times {self.times}")


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    asked = tyro.cli(Rollout, args=arguments, prog="python -m kling.bench rollout", description=Rollout.__doc__)
    table = "\n".join(tables(asked))
    print(table)
    if asked.out is not None:
        replace_table(asked.out, "python -m kling.bench rollout", "rollout", table)
    return 0


def tables(asked: Rollout) -> list[str]:
    """The lines of the table, 95 % intervals in brackets."""
    pipeline = build(asked.preset, weights=asked.weights)
    chosen = prompts.load(prompts.PACKAGED, asked.num_prompts)
    ways: dict[str, Callable[[Job], Latents]] = {
        "chunk by chunk": lambda job: torch.cat(list(pipeline.roll(job, chunk=asked.chunk)), dim=2),
        "at once": lambda job: list(pipeline.denoise(job))[-1].x,
    }
    heads = [f"part {part + 1}" for part in range(asked.times)]
    rows = [
        f"| {asked.times} times the training length | {' | '.join(heads)} | clips that fall, p < 0.05 |",
        "|---|" + "---|" * (asked.times + 1),
    ]
    for name, way in ways.items():
        judged = [_judged(pipeline, prompt, asked, way) for prompt in chosen]
        falls = sum(whole.measures.temporal_trend < 0 and whole.measures.temporal_trend_p < 0.05 for whole, _ in judged)
        columns = list(zip(*(parts for _, parts in judged), strict=True))
        likeness = [str(mean([e.measures.temporal_consistency for e in column])) for column in columns]
        sharpness = [str(mean([e.measures.sharpness for e in column])) for column in columns]
        colors = [str(share([right for e in column for right in e.verdicts["color"]])) for column in columns]
        rows += [
            f"| {name}: likeness of neighbouring frames | {' | '.join(likeness)} | {falls} of {len(judged)} |",
            f"| {name}: sharpness | {' | '.join(sharpness)} | |",
            f"| {name}: colours read right | {' | '.join(colors)} | |",
        ]
    return rows


def _judged(
    pipeline: Pipeline, prompt: prompts.BenchPrompt, asked: Rollout, way: Callable[[Job], Latents]
) -> tuple[Evaluation, list[Evaluation]]:
    """The whole clip, and its parts."""
    clip = pipeline.preset.clip
    num_frames = (clip.num_frames - 1) * asked.times + 1
    job = pipeline.prepare(
        Generation(prompt=prompt.prompt, seed=prompt.plan_seed, num_frames=num_frames, num_steps=asked.steps)
    )
    frames: Frames = np.concatenate(list(pipeline.decode(way(job))))
    each = clip.num_frames - 1
    parts = [frames[part * each : (part + 1) * each + 1] for part in range(asked.times)]
    fps = float(clip.fps)
    return evaluate(frames, prompt.graph, fps=fps), [evaluate(part, prompt.graph, fps=fps) for part in parts]
