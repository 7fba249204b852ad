"""The computing of a rank, without Ray: denoise as one of several ranks, keep states, tell how far it is.

With an even number of ranks, half of them evaluate the prompt's branch of guidance and half the other (CFG parallel);
within each half the attention heads are divided (sequence parallel, `kling.model.parallel`). They exchange velocities
by gloo or NCCL and all combine them, so all hold the same state after every step. After each step all ranks take
rank 0's word on whether to stop: a cancelled task ends on all of them at the same step, none left waiting.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
import torch.distributed as dist
from safetensors import torch as tensor_files
from torch import Tensor, nn

from kling import storage
from kling.diffusion.given import holding
from kling.diffusion.guidance import combine, guided
from kling.diffusion.samplers import Velocity
from kling.model.checkpoint import fill, read_card
from kling.model.dit import DiT
from kling.model.parallel import Mesh, ParallelDiT, make_mesh
from kling.pipeline import PACKAGED_WEIGHTS, Branch, Job, Pipeline, build

from .latents import load_state, save_state
from .media import Media
from .memory import line, memory_bytes, peak_bytes
from .orders import Order
from .ranks import TELL_EVERY_S, Event, Measured, RankSettings
from .ranks import Job as Task
from .realtime import Roller, Stopped
from .scenes import prepared

Loaded = TypeVar("Loaded")

SAVE_EVERY_S = 2.0
_COLLECTIVE_TIMEOUT_S = 600  # frozen ranks are found by their pings, long before


class Ranks:
    """The ranks of a replica as one of them sees them: what rank 0 says, all say."""

    def __init__(self, settings: RankSettings, index: int, address: str):
        self.index, self.size = index, settings.num_ranks
        if self.size > 1:
            dist.init_process_group(
                "nccl" if settings.device.startswith("cuda") else "gloo",
                init_method=address,
                rank=index,
                world_size=self.size,
                timeout=dt.timedelta(seconds=_COLLECTIVE_TIMEOUT_S),
            )
        guidance = settings.guidance_ranks
        self.mesh: Mesh = make_mesh(heads=self.size // guidance, guidance=guidance) if self.size > 1 else Mesh()

    def agreed_number(self, value: int) -> int:
        """Rank 0's number, on every rank."""
        if self.size == 1:
            return value
        word = torch.tensor([value])
        dist.broadcast(word, src=0)
        return int(word.item())

    def agreed(self, load: Callable[[], Loaded]) -> Loaded:
        """What rank 0 loads, on every rank: two reads of a file could see two states."""
        box: list = [load() if self.index == 0 else None]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


class Denoiser:
    """One rank's networks and its place in the group.

    Raises:
        CheckpointError: the weights are missing or of another model.
    """

    def __init__(self, settings: RankSettings, index: int, address: str):
        torch.set_num_threads(settings.num_threads)
        self._settings, self._index = settings, index
        self._ranks = Ranks(settings, index, address)
        self._pipeline = build(settings.preset, weights=settings.weights)
        share_weights(self._pipeline, settings.weights or str(PACKAGED_WEIGHTS / settings.preset))
        self._token_step_s = settings.token_step_s
        divided = self._ranks.mesh.heads.size > 1
        self._model: DiT | ParallelDiT = (
            ParallelDiT(self._pipeline.dit, self._ranks.mesh) if divided else self._pipeline.dit
        )

    @torch.no_grad()
    def run(self, task: Task, wants_stop: Callable[[], bool]) -> Iterator[Event]:
        """Denoise from the last saved state; ends with `denoised`, the state saved, or with `stopped`."""
        order = task.order
        yield Event(stage="text", num_steps=order.num_steps)
        media = Media(self._settings.state, task.task_id)
        job = prepared(self._pipeline, order, media)
        if self._index == 0 and job.plan is not None:
            media.save_plan(job.plan.model_dump_json())
        steps = self._chunks(job, order, media, wants_stop) if order.chunk else self._whole(job, media, wants_stop)
        step, num_steps, told, told_at = 0, 0, 0, time.monotonic()
        try:
            for count, (step, num_steps) in enumerate(steps, start=1):
                passed_s = time.monotonic() - told_at
                if passed_s > TELL_EVERY_S or step == num_steps:
                    yield Event(stage="denoise", step=step, num_steps=num_steps, step_s=passed_s / (count - told))
                    told, told_at = count, time.monotonic()
        except Stopped:
            yield Event(stage="stopped", step=step, num_steps=num_steps)
            return
        yield Event(stage="denoised", step=num_steps, num_steps=num_steps)

    def _whole(self, job: Job, media: Media, wants_stop: Callable[[], bool]) -> Iterator[tuple[int, int]]:
        """All frames together; (step, of how many) after each step, the state saved every few seconds."""
        saved, saved_at = self._ranks.agreed(lambda: load_state(media)), time.monotonic()
        num_steps = len(job.times) - 1
        for state in self._pipeline.denoise(job, saved, velocity=self._velocity(job)):
            now, last = time.monotonic(), state.step == num_steps
            stop = bool(self._ranks.agreed_number(wants_stop()))
            if self._index == 0 and (last or stop or now - saved_at > SAVE_EVERY_S):
                save_state(media, state)
                saved_at = now
            yield state.step, num_steps
            if stop and not last:
                raise Stopped

    def _chunks(
        self, job: Job, order: Order, media: Media, wants_stop: Callable[[], bool]
    ) -> Iterator[tuple[int, int]]:
        """Chunk after chunk, each saved as soon as it is clean; (latent frames, of how many) after each."""
        step_s = self._token_step_s * self._pipeline.dit.grid(job.noise).frame_tokens
        branches = self._branches(job)
        roller = Roller(self._pipeline, self._model, self._ranks, job, branches, order, step_s=step_s)
        yield from roller.run(media, wants_stop)

    def calibrate(self) -> Measured:
        """Time at the preset's own clip, memory there and at four times its area."""
        clip = self._pipeline.preset.clip
        order = Order(
            prompt="a ball", negative_prompt="", width_px=clip.width_px, height_px=clip.height_px,
            num_frames=clip.num_frames, fps=clip.fps, num_steps=3, guidance=self._pipeline.preset.guidance, seed=0,
        )  # fmt: skip
        media, times = Media(self._settings.state, "none"), []

        def steps(order: Order) -> int:
            job = prepared(self._pipeline, order, media)
            for _ in self._pipeline.denoise(job, velocity=self._velocity(job)):
                times.append(time.monotonic())
            return self._pipeline.dit.grid(job.noise).num_tokens

        num_tokens = steps(order)  # and what is loaded at first use is loaded
        self._token_step_s = (times[-1] - times[-2]) / num_tokens
        idle, small = memory_bytes(), replace(order, num_steps=1)
        large = replace(small, width_px=2 * clip.width_px, height_px=2 * clip.height_px)
        at_small, at_large = (peak_bytes(lambda size=size: steps(size)) for size in (small, large))
        fixed, each = line((num_tokens, at_small), (4 * num_tokens, at_large))
        return Measured(seconds=self._token_step_s, idle_bytes=idle, fixed_bytes=fixed, each_bytes=each)

    def _branches(self, job: Job) -> list[Branch]:
        """The branches of guidance that this rank evaluates: all, or its own half's."""
        if len(job.branches) == 1 or self._ranks.mesh.guidance.size == 1:
            return job.branches
        return [job.branches[self._ranks.mesh.guidance.index]]

    def _velocity(self, job: Job) -> Velocity:
        """The guided velocity, each rank evaluating its part of it."""
        given = job.controls
        first, last = (given.first_frame, given.last_frame) if given is not None else (None, None)

        def evaluated(branch: Branch) -> Velocity:
            text = branch.text
            context = self._model.prepare(text.states, text_mask=text.mask, controls=branch.told_of(given))
            return holding(lambda x, t: self._model(x, t, context), first, last)

        branches, mesh = [evaluated(branch) for branch in self._branches(job)], self._ranks.mesh
        if len(branches) == 2:
            return guided(branches[0], branches[1], job.guidance)
        if job.guidance.scale == 1.0:
            return branches[0]

        def halves(x: Tensor, t: Tensor) -> Tensor:
            conditional, unconditional = mesh.both_halves(branches[0](x, t)).chunk(2)
            return combine(conditional, unconditional, job.guidance)

        return halves


def share_weights(pipeline: Pipeline, uri: str) -> None:
    """Put the weights file's own pages, mapped from disk, in the place of the loaded copies: all processes of a node
    then hold them once. Weights that are not on a local disk, or of another precision, stay copies."""
    if not storage.is_local(uri):
        return
    parts: tuple[tuple[str, nn.Module], ...] = (("dit", pipeline.dit), ("vae", pipeline.vae), ("text", pipeline.text))
    card = read_card(uri)
    for name, module in parts:
        tensors: dict[str, Tensor] = {}
        for file in card.parts[name].files:
            tensors.update(tensor_files.load_file(storage.resolve(storage.join(uri, file.name))[1]))
        held = module.state_dict(keep_vars=True)
        if all(tensors[key].dtype == value.dtype for key, value in held.items() if key in tensors):
            fill(module, tensors)
