"""`python -m kling.bench pipeline`: a whole clip from text, ours against diffusers' ``WanPipeline``, the same weights.

Theirs is made of our tensors: the transformer (from text alone, since it knows no controls), the text encoder and its
tokenizer, the VAE; Euler steps at the same times, the same noise. Two differences would change the picture and are
taken away: a network that predicts clean latents is made to say the velocity, and texts are not padded to a fixed
length, for which diffusers has no mask. So both draw the same clip, which is checked before anything is timed. A third
runner is diffusers as it comes, with texts of 512 tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from kling.bench.page import replace_table
from kling.bench.race import race, ratio
from kling.diffusion.times import sampling_times
from kling.errors import InternalError
from kling.model.dit import LEAST_TIME
from kling.model.wan import to_wan, wan_config
from kling.pipeline import Generation, Pipeline, build, to_uint8
from kling.shapes import Frames

_PROMPT = "a red ball bounces on the grass while the camera orbits left"
_PADDED = 512  # tokens of text, WanPipeline's default
_LEVELS = 2  # grey levels by which a pixel may differ: sums are made in another order


@dataclass(frozen=True, kw_only=True)
class PipelineRace:
    """Make the same clip with this library and with diffusers' WanPipeline, turn by turn."""

    preset: str = "tiny"
    weights: str | None = None  # URI of a weights folder; default: the packaged ones
    steps: tuple[int, ...] = (4, 30)
    rounds: int = 5
    threads: int = 1  # of processor time that is counted; more cannot be counted fairly on a busy machine
    out: Path | None = None  # a page with the table's place, docs/benchmarks/tiny.md


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    asked = tyro.cli(PipelineRace, args=arguments, prog="python -m kling.bench pipeline")
    torch.set_num_threads(asked.threads)
    table = "\n".join(tables(asked))
    print(table)
    if asked.out is not None:
        replace_table(asked.out, "python -m kling.bench pipeline", "pipeline", table)
    return 0


def tables(asked: PipelineRace) -> list[str]:
    """The lines of the table.

    Raises:
        InternalError: the two did not draw the same clip.
    """
    ours = build(asked.preset, weights=asked.weights)
    rows = [
        "| steps | diffusers, the same clip | diffusers as it comes (512 tokens of text) | largest difference |",
        "|---|---|---|---|",
    ]
    for steps in asked.steps:
        runners = make_runners(ours, steps)
        a, b = (runners[name]() for name in ("kling", "diffusers"))
        apart = int(np.abs(a.astype(int) - b).max())
        if apart > _LEVELS:
            raise InternalError(f"the two pipelines differ by {apart} grey levels at {steps} steps")
        seconds = race(runners, rounds=asked.rounds)
        cells = (str(ratio(seconds, name, "kling")) for name in ("diffusers", "diffusers, padded"))
        rows.append(f"| {steps} | {' | '.join(cells)} | {apart} of 255 |")
    return rows


def make_runners(ours: Pipeline, steps: int) -> dict[str, Callable[[], Any]]:
    """Each makes the clip of `_PROMPT` from text alone."""
    job = ours.resolve(Generation(prompt=_PROMPT, num_steps=steps, sampler="euler", use_plan=False))
    theirs = _wan_pipeline(ours, steps)
    noise = ours.prepare(job).noise

    def diffusers(padded: bool) -> Frames:
        text: dict[str, Any]
        if padded:
            text = {"prompt": _PROMPT, "negative_prompt": "", "max_sequence_length": _PADDED}
        else:
            text = {"prompt_embeds": _states(theirs, _PROMPT), "negative_prompt_embeds": _states(theirs, "")}
        latents = theirs(
            **text,
            height=job.height_px,
            width=job.width_px,
            num_frames=job.num_frames,
            num_inference_steps=steps,
            guidance_scale=job.guidance,
            latents=noise.clone(),
            output_type="latent",
        ).frames
        with torch.no_grad():  # our normalisation knows the first frame's own statistics; the decoder is theirs
            return to_uint8(theirs.vae.decode(ours.vae.denormalise(latents)).sample)

    return {
        "kling": lambda: ours.generate(job),
        "diffusers": lambda: diffusers(padded=False),
        "diffusers, padded": lambda: diffusers(padded=True),
    }


@torch.no_grad()
def _states(theirs: Any, prompt: str) -> torch.Tensor:
    ids = theirs.tokenizer([prompt], return_tensors="pt")
    return theirs.text_encoder(**ids).last_hidden_state


def _wan_pipeline(ours: Pipeline, steps: int) -> Any:
    """diffusers' pipeline around our tensors."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    class Transformer(WanTransformer3DModel):
        """Says the velocity, whatever the weights predict."""

        predicts_clean = ours.dit.config.predicts == "clean"

        def forward(self, hidden_states, timestep, *args, **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]
            (made,) = super().forward(hidden_states, timestep, *args, **kwargs)
            if self.predicts_clean:
                time = (timestep / 1000).clamp_min(LEAST_TIME).view(-1, 1, 1, 1, 1)
                made = (hidden_states - made) / time
            return (made,)

    class Scheduler(FlowMatchEulerDiscreteScheduler):
        """Euler steps at our times."""

        def set_timesteps(self, *_, **given):
            times = sampling_times(steps, shift=ours.preset.shift)[:-1]
            super().set_timesteps(sigmas=times.tolist(), **given)

    config = replace(ours.dit.config, predicts="velocity")
    sizes: dict[str, Any] = wan_config(config)
    transformer = Transformer(**sizes, cross_attn_norm=True, qk_norm="rms_norm_across_heads")
    transformer.load_state_dict(dict(to_wan(ours.dit.state_dict(), config)))
    tokenizer: Any = ours.text.tokenizer
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=ours.text.net,
        vae=_as_it_comes(ours.vae.net),
        scheduler=Scheduler(shift=1.0),
        transformer=transformer.eval().requires_grad_(False),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _as_it_comes(ours: torch.nn.Module) -> Any:
    """diffusers' VAE with our tensors. Ours has convolutions of another library in the same class."""
    vae: Any = type(ours).from_config(ours.config)  # type: ignore[attr-defined]
    vae.load_state_dict(ours.state_dict())
    return vae.eval().requires_grad_(False)
