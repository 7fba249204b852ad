"""From a prompt to frames, in one process, on one page. `kling sample` and a serving replica run these same calls:

    pipeline = build("tiny", weights="out/run/weights")
    job = pipeline.prepare(Generation(prompt="a red ball bounces on the grass"))
    for state in pipeline.denoise(job):      # one state a step: show it, save it, or stop asking for the next
        ...
    for frames in pipeline.decode(state.x):  # uint8 f h w 3, as they come
        ...

The same Generation and weights give the same latents: all randomness is one seeded draw of noise on the CPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kling import storage
from kling.conditioning import PhraseVectors, painted, to_controls
from kling.diffusion.guidance import Guidance, combine, guided
from kling.diffusion.samplers import State, Velocity, get_sampler
from kling.diffusion.streaming import chunk_sizes, roll_out
from kling.diffusion.times import sampling_times
from kling.errors import ConfigError
from kling.model.checkpoint import load_part, read_card
from kling.model.config import DiTConfig
from kling.model.controls import Controls
from kling.model.dit import Context, DiT
from kling.model.rolling import Rolling
from kling.model.text import TextEncoder, TextStates
from kling.model.vae import VideoVAE
from kling.presets import Preset, get_preset
from kling.scene.plan import ScenePlan, SceneTrack
from kling.shapes import Frames, Latents

PACKAGED_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What to make. None means the preset's own value; `Pipeline.prepare` fills it in."""

    prompt: str
    negative_prompt: str = ""
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    seed: int = 0
    num_steps: int | None = None
    guidance: float | None = None
    sampler: str = "dpmpp_2m"
    use_plan: bool = True  # decide what happens before drawing; False: text alone
    plan: ScenePlan | None = None  # a director's own, instead of the one made from the prompt
    physics: bool = True  # the simulated objects condition the model; False: their motion is left to the text
    camera_control: bool = True  # the planned camera conditions the model; False: it is left to the text


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What one side of guidance is told."""

    text: TextStates
    has_plan: bool

    def told_of(self, controls: Controls | None) -> Controls | None:
        return controls if self.has_plan or controls is None else controls.without_plan()


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that denoising needs, decided."""

    generation: Generation  # no None left but `plan`
    plan: ScenePlan | None
    text: TextStates
    negative: TextStates
    controls: Controls | None
    noise: Latents
    times: Tensor  # num_steps + 1, falling from 1 to 0
    guidance: Guidance

    @property
    def branches(self) -> list[Branch]:
        """The prompt with its plan, and what guidance pushes away from: the negative prompt without a plan. Where both
        sides have the plan, guidance adds nothing to what the plan says (docs/benchmarks/tiny.md)."""
        conditional = Branch(text=self.text, has_plan=True)
        if self.guidance.scale == 1.0:
            return [conditional]
        return [conditional, Branch(text=self.negative, has_plan=False)]


class Pipeline:
    """Three networks of one preset. Holds no state between jobs: what runs beside cannot change a result."""

    def __init__(self, preset: Preset, dit: DiT, vae: VideoVAE, text: TextEncoder):
        self.preset, self.dit, self.vae, self.text = preset, dit, vae, text

    @torch.no_grad()
    def prepare(self, generation: Generation, track: SceneTrack | None = None) -> Job:
        """Encode the prompt, plan the scene, draw the noise.

        Args:
            track: how everything moves in the generation's plan, where that is known: it is not simulated again.

        Raises:
            ConfigError: a size or length the model cannot make (with the nearest it can), an unknown sampler,
                image-to-video weights of Wan.
        """
        g = self.resolve(generation)
        dit = self.preset.dit
        if dit.in_channels != dit.out_channels:
            raise ConfigError(
                "these are Wan's image-to-video weights: they take a mask and an image beside the latents",
                where=f"in_channels={dit.in_channels}",
                fix="Use text-to-video weights here, or call Pipeline.dit with those channels",
            )
        plan, controls = None, None
        if g.use_plan:
            plan, track = (g.plan, track) if g.plan is not None and track is not None else _decide(g)
            controls = self._controls(plan, track, g)
        assert g.num_steps is not None and g.guidance is not None
        return Job(
            generation=g,
            plan=plan,
            text=self.text.encode([g.prompt]),  # one at a time: padding must not change a result
            negative=self.text.encode([g.negative_prompt]),
            controls=controls,
            noise=torch.randn(self._latent_shape(g), generator=torch.Generator().manual_seed(g.seed)),
            times=sampling_times(g.num_steps, shift=self.preset.shift),
            guidance=Guidance(scale=g.guidance),
        )

    def velocity(self, job: Job) -> Velocity:
        """The guided velocity of this job. Replicas of several ranks bring their own, equal in value."""

        def evaluated(context: Context) -> Velocity:
            return lambda x, t: self.dit(x, t, context)

        conditional, *rest = map(evaluated, self._contexts(job))
        return guided(conditional, rest[0], job.guidance) if rest else conditional

    @torch.no_grad()
    def denoise(self, job: Job, state: State | None = None, velocity: Velocity | None = None) -> Iterator[State]:
        """One state a step, from noise or from a saved state of the same job; the last one's ``x`` are the latents."""
        steps = get_sampler(job.generation.sampler)
        yield from steps(velocity or self.velocity(job), state or State(x=job.noise), job.times)

    @torch.no_grad()
    def roll(self, job: Job, *, chunk: int = 1) -> Iterator[Latents]:
        """Clean latents of a job, ``chunk`` latent frames at a time, each as soon as it is made: it sees those before
        it, never those after it, so the first one comes early and a clip may be longer than any that was trained on."""
        rolling = Rolling(self.dit, self._contexts(job), num_frames=job.noise.shape[2])

        def velocity(x: Tensor, t: Tensor, frame: int) -> Tensor:
            conditional, *rest = rolling.evaluated(x, t, frame)
            return combine(conditional, rest[0], job.guidance) if rest else conditional

        chunks = iter(job.noise.split(chunk_sizes(job.noise.shape[2], chunk), dim=2))
        yield from roll_out(chunks, velocity, rolling.remember, lambda _: job.times, sampler=job.generation.sampler)

    @torch.no_grad()
    def decode(self, latents: Latents) -> Iterator[Frames]:
        """Frames of one clip (b = 1) as they come: 1, then 4 at a time."""
        for video in self.vae.decode_stream(latents):
            yield to_uint8(video)

    def generate(self, generation: Generation) -> Frames:
        """All at once."""
        *_, last = self.denoise(self.prepare(generation))
        return np.concatenate(list(self.decode(last.x)))

    def resolve(self, g: Generation) -> Generation:
        """The generation with the preset's values where it has none.

        Raises:
            ConfigError: what cannot be made, with the nearest that can.
        """
        clip = self.preset.clip
        g = replace(
            g,
            width_px=clip.width_px if g.width_px is None else g.width_px,
            height_px=clip.height_px if g.height_px is None else g.height_px,
            num_frames=clip.num_frames if g.num_frames is None else g.num_frames,
            fps=float(clip.fps) if g.fps is None else g.fps,
            num_steps=self.preset.num_steps if g.num_steps is None else g.num_steps,
            guidance=self.preset.guidance if g.guidance is None else g.guidance,
        )
        get_sampler(g.sampler)
        _, patch_h, patch_w = self.preset.dit.patch
        for name, size, patch in (("height_px", g.height_px, patch_h), ("width_px", g.width_px, patch_w)):
            unit = self.preset.vae.stride_px * patch
            if size is None or size < unit or size % unit:
                low = max(unit, (size or 0) // unit * unit)
                fix = f"The nearest are {low} and {low + unit}"
                raise ConfigError(f"sizes are multiples of {unit} px here", where=f"{name}={size}", fix=fix)
        self.preset.vae.latent_frames(g.num_frames or 0)
        return g

    def _contexts(self, job: Job) -> list[Context]:
        """One a branch of guidance."""
        return [
            self.dit.prepare(branch.text.states, text_mask=branch.text.mask, controls=branch.told_of(job.controls))
            for branch in job.branches
        ]

    def _controls(self, plan: ScenePlan, track: SceneTrack, g: Generation) -> Controls | None:
        """The plan and its track, painted on the latent grid."""
        _, _, frames, height, width = self._latent_shape(g)
        arrays = painted(plan, track, self.preset.dit, grid=(frames, height, width))
        return switched(to_controls([arrays], PhraseVectors(self.text)), g.physics, g.camera_control)

    def _latent_shape(self, g: Generation) -> tuple[int, int, int, int, int]:
        """1 c f h w."""
        vae = self.preset.vae
        assert g.num_frames and g.height_px and g.width_px
        frames = vae.latent_frames(g.num_frames)
        return 1, vae.z_dim, frames, g.height_px // vae.stride_px, g.width_px // vae.stride_px


def switched(controls: Controls | None, physics: bool, camera: bool) -> Controls | None:
    """The controls without what is switched off; None where nothing is left, which is plain text-to-video."""
    if controls is None or not (physics or camera):
        return None
    if not physics:
        controls = replace(controls, objects=None, phrases=None, floor=None)  # the floor is the place's, a slot too
    if not camera:
        controls = replace(controls, camera=None, flow=None, floor=None)
    return controls


def build(preset: str | Preset, *, weights: str | None = None) -> Pipeline:
    """Load a preset's networks.

    Args:
        preset: its name, or the sizes themselves.
        weights: URI of a weights folder; default: the ones packaged with this library (``tiny`` only).

    Raises:
        ConfigError: unknown preset.
        CheckpointError: no weights, or weights of another model.
    """
    sizes = preset if isinstance(preset, Preset) else get_preset(preset)
    uri = weights or str(PACKAGED_WEIGHTS / sizes.name)
    tokenizer = storage.join(uri, "tokenizer") if sizes.text.tokenizer == "umt5" else None
    sizes = replace(sizes, dit=_own_layout(uri, sizes.dit))
    dit, vae, text = DiT(sizes.dit), VideoVAE(sizes.vae), TextEncoder(sizes.text, tokenizer_dir=tokenizer)
    for name, module in (("dit", dit), ("vae", vae), ("text", text)):
        load_part(uri, name, module)
        module.eval().requires_grad_(False)
    return Pipeline(sizes, dit, vae, text)


def _own_layout(uri: str, wanted: DiTConfig) -> DiTConfig:
    """The preset's transformer with the inputs that these weights have: imported image-to-video weights of Wan take
    more channels, and CLIP states. Every other size must be the preset's (`load_part` checks)."""
    part = read_card(uri).parts.get("dit")
    stored = {} if part is None else part.config  # a missing part is load_part's to report
    return replace(
        wanted, **{name: stored[name] for name in ("in_channels", "image_dim", "image_tokens") if name in stored}
    )


def to_uint8(video: Tensor) -> Frames:
    """1 3 f h w in [-1, 1] to f h w 3 uint8."""
    levels = ((video[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "c f h w -> f h w c").cpu().numpy()


def _decide(g: Generation) -> tuple[ScenePlan, SceneTrack]:
    """What happens: from the director's plan, else from the prompt, at the clip's length, rate and aspect."""
    from kling.scene.direct import direct  # MuJoCo is loaded by those who plan
    from kling.scene.simulate import simulate

    assert g.fps and g.num_frames and g.width_px and g.height_px
    aspect = g.width_px / g.height_px
    if g.plan is not None:
        plan = g.plan.model_copy(update={"duration_s": (g.num_frames - 1) / g.fps, "fps": g.fps})
        return plan, simulate(plan, aspect=aspect)
    made = direct(g.prompt, seed=g.seed, duration_s=(g.num_frames - 1) / g.fps, fps=g.fps, aspect=aspect)
    return made.plan, made.track
