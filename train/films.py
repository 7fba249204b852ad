"""Films of held-out clips while a run goes on: what the averaged weights make of their plan and caption.

One row a clip: the clip as the VAE reads it, made with the painted plan, made from text alone. Always the same clips
and noise, so that the films of two steps can be compared. No random state of the training run is touched.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kling import storage
from kling.diffusion.guidance import Guidance
from kling.diffusion.times import sampling_times
from kling.media.video import write_mp4
from kling.model.controls import Controls
from kling.model.text import TextStates
from kling.pipeline import Generation, Job, Pipeline, build
from kling.presets import Preset
from kling.shapes import Frames

from .batches import collate, sample_rng
from .cache import Bucket, Split
from .config import TrainRun
from .metrics import Meter, Record
from .ranks import Ranks


def film_held_out(
    run: TrainRun, preset: Preset, split: Split, weights: str, step: int, ranks: Ranks, meter: Meter
) -> Record:
    """Write OUT/samples/step-N.mp4 from a weights folder, and show it on the board; rank 0 works, the others wait.

    The first ``run.num_films`` clips of the split's first bucket, ``run.film_steps`` sampling steps. Returns
    ``film_s``, the seconds it took, for the step's record.
    """
    started = time.monotonic()
    target = storage.join(run.out, "samples", f"step-{step:06d}.mp4")
    if ranks.rank == 0:
        bucket = split.buckets[0]
        pipeline = build(preset, weights=weights)
        pipeline.dit.to(ranks.device)
        rows = [_row(pipeline, split, bucket, clip, run) for clip in range(min(run.num_films, len(bucket)))]
        film = np.concatenate(rows, axis=1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            write_mp4(path, film, fps=float(bucket.fps[0]) or preset.clip.fps)
            storage.write_bytes(target, path.read_bytes())
        meter.picture("held_out", np.concatenate(film[[0, len(film) // 2, -1]], axis=1), step)
        meter.event("film", step=step, path=target)
    ranks.barrier()
    return {"film_s": time.monotonic() - started}


@torch.no_grad()
def _row(pipeline: Pipeline, split: Split, bucket: Bucket, clip: int, run: TrainRun) -> Frames:
    """f h 3w c: the clip, made with its plan, made without."""
    device = next(pipeline.dit.parameters()).device
    batch = collate(split, bucket, [clip], 0, (clip,), 0).to(device)
    noise = sample_rng(0, -2 % 2**32, clip).standard_normal(batch.latents.shape, np.float32)
    empty = batch.empty_text[None].to(device)
    job = Job(
        generation=Generation(prompt=""),  # its words are in `text` already
        plan=None,
        text=TextStates(batch.text, batch.text_mask),
        negative=TextStates(empty, torch.ones(empty.shape[:2], dtype=torch.bool, device=device)),
        controls=None,
        noise=torch.from_numpy(noise).to(device),
        times=sampling_times(run.film_steps, shift=pipeline.preset.shift).to(device),
        guidance=Guidance(scale=pipeline.preset.guidance),
    )
    films = [batch.latents]
    for controls in (batch.controls, Controls(fps=batch.controls.fps)):
        *_, last = pipeline.denoise(replace(job, controls=controls))
        films.append(last.x)
    return np.concatenate([np.concatenate(list(pipeline.decode(x.cpu()))) for x in films], axis=2)
