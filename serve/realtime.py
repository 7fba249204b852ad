"""Realtime tasks: chunk-causal roll-out over the ranks of a replica, each chunk in storage as soon as it is clean.

The decoder works on a chunk's frames while the ranks work on the next ones. A killed group goes on from the last chunk:
its keys and values are computed again from the chunks in storage. With a target pace the steps of each chunk are
chosen by a `Pacer` on rank 0; when the fewest steps are still too slow, the rest is made at the next smaller size, a
new part that starts from the last picture.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from torch import Tensor

from kling.diffusion.guidance import combine
from kling.diffusion.streaming import chunk_sizes, roll_out
from kling.diffusion.times import sampling_times
from kling.model.controls import FLOOR_NUMBERS, FLOOR_POINTS, Controls
from kling.model.dit import DiT
from kling.model.parallel import ParallelDiT
from kling.model.rolling import Rolling
from kling.pipeline import Branch, Job, Pipeline
from kling.scene.control import BOX_MAPS, FLOOR_CELLS, STRIDE_FRAMES
from kling.shapes import Latents

from .admission import next_smaller
from .latents import Chunk, load_chunk, save_chunk
from .media import Media
from .orders import Order
from .pace import Pacer

if TYPE_CHECKING:
    from .work import Ranks

_FIRST_SHARE, _FIRST_LEAST = 0.375, 4  # of the steps; docs/serving.md has what it costs
_RECENT = 4  # latent frames that are decoded to get the last picture of a part


class Stopped(Exception):  # noqa: N818 - not an error
    """Rank 0 was told to stop, and all ranks have."""


@dataclass(kw_only=True)
class _Part:
    """Chunks of one size, and what the model remembers of them."""

    offset: int  # the clip's latent frame that is this part's first
    noise: Latents  # of the whole clip, at this part's size
    rolling: Rolling  # the branches of guidance that this rank evaluates
    recent: list[Latents] = field(default_factory=list)
    given: Latents | None = None  # a frame that is shown before, not yet in a chunk


class Roller:
    """One realtime task on one rank.

    Args:
        branches: those of guidance that this rank evaluates.
        step_s: seconds of one step of one latent frame, as measured at start; a pace is planned with it at first.
    """

    def __init__(
        self, pipeline: Pipeline, model: DiT | ParallelDiT, ranks: "Ranks", job: Job, branches: list[Branch],
        order: Order, *, step_s: float,
    ):  # fmt: skip
        self._pipeline, self._model, self._ranks, self._job = pipeline, model, ranks, job
        self._branches, self._order = branches, order
        self._total = job.noise.shape[2]
        self._pacer = None
        if order.target_ms_per_frame is not None:
            self._pacer = Pacer(
                target_s=order.target_ms_per_frame / 1000, most_steps=order.num_steps, predicted_s=step_s
            )

    def run(self, media: Media, wants_stop: Callable[[], bool]) -> Iterator[tuple[int, int]]:
        """(latent frames done, of how many) after each chunk; those that are in storage already are not made again.

        Raises:
            Stopped: on every rank, at the same step.
        """
        saved = self._ranks.agreed(lambda: _saved(media))
        ended = time.monotonic()  # of the chunk before
        part, done = self._restored(saved)
        index, due_from, first = len(saved), ended, done
        while done < self._total:
            size = self._chunk_size(done)
            frames = self._num_frames(done + size) - self._num_frames(done)
            began, due = time.monotonic(), self._num_frames(done) - self._num_frames(first)
            steps = self._steps(index, size, frames, lead_frames=due, passed_s=ended - due_from)
            chunk, at = self._made(part, done, size, steps, wants_stop), done - part.offset
            fixed_s, seconds, ended = began - ended, time.monotonic() - ended, time.monotonic()
            chunk = replace(chunk, seconds=seconds)
            if self._ranks.index == 0:
                save_chunk(media, index, chunk)
            if index == 0:  # nobody can show a frame before the first one is there
                due_from, first = ended, done + chunk.own_frames
            index, done = index + 1, done + chunk.own_frames
            yield done, self._total
            if done < self._total:  # only now: whoever waits for the chunk has it already
                self._remember(part, chunk.x[:, :, int(chunk.restarts) :], at)
                if self._must_shrink(chunk, size, frames, None if index == 1 else fixed_s):
                    part = self._smaller(part, done)

    def _steps(self, index: int, size: int, num_frames: int, *, lead_frames: int, passed_s: float) -> int:
        """Of the next chunk. The clip's first one, a single picture, has a smaller share of them: all wait for it."""
        most = self._order.num_steps
        if index == 0:
            most = min(most, max(_FIRST_LEAST, math.ceil(most * _FIRST_SHARE)))
            num_frames = self._order.chunk * self._pixel_frames
        if self._pacer is None:
            return most
        lead_s = 0.0 if index == 0 else lead_frames * self._pacer.target_s - passed_s
        steps = self._pacer.steps(num_latents=size, num_frames=num_frames, lead_s=lead_s)
        return self._ranks.agreed_number(min(most, steps))

    def _must_shrink(self, chunk: Chunk, size: int, num_frames: int, fixed_s: float | None) -> bool:
        if self._pacer is None or not chunk.num_steps:
            return False
        self._pacer.measured(num_latents=size, num_steps=chunk.num_steps, seconds=chunk.seconds, fixed_s=fixed_s)
        return bool(self._ranks.agreed_number(self._pacer.too_large(num_latents=size, num_frames=num_frames)))

    # --- one chunk -------------------------------------------------------------------------------------------------

    def _made(self, part: _Part, done: int, size: int, steps: int, wants_stop: Callable[[], bool]) -> Chunk:
        start = done - part.offset
        given, part.given = part.given, None
        if start == 0 and given is not None:  # the clip begins with a picture: nothing to sample
            return Chunk(x=given, num_steps=0, seconds=0.0)

        def velocity(x: Tensor, t: Tensor, frame: int) -> Tensor:
            if self._ranks.agreed_number(wants_stop()):
                raise Stopped
            branches = part.rolling.evaluated(x, t, frame)
            if self._job.guidance.scale == 1.0:
                return branches[0]
            if len(branches) == 1:
                branches = list(self._ranks.mesh.both_halves(branches[0]).chunk(2))
            return combine(branches[0], branches[1], self._job.guidance)

        times = sampling_times(steps, shift=self._pipeline.preset.shift)
        noise = part.noise[:, :, done : done + size]
        [x] = roll_out(
            [noise], velocity, lambda x, frame: None, lambda _: times, start_frame=start,
            sampler=self._job.generation.sampler,
        )  # fmt: skip
        if given is not None:
            return Chunk(x=torch.cat((given, x), dim=2), num_steps=steps, seconds=0.0, restarts=True)
        return Chunk(x=x, num_steps=steps, seconds=0.0)

    def _remember(self, part: _Part, x: Latents, frame: int) -> None:
        part.rolling.remember(x, frame)
        part.recent = [*part.recent, x][-_RECENT:]

    def _chunk_size(self, done: int) -> int:
        """Latent frames of the next chunk; the first one is short, so that the first picture comes soonest."""
        if done == 0 and self._order.first_frame:
            return 1
        return (
            chunk_sizes(self._total, self._order.chunk)[0] if done == 0 else min(self._order.chunk, self._total - done)
        )

    @property
    def _pixel_frames(self) -> int:
        return self._pipeline.preset.vae.stride_frames

    def _num_frames(self, latents: int) -> int:
        """Frames of so many latent frames from the clip's start."""
        return max(0, (latents - 1) * self._pixel_frames + 1)

    # --- parts -----------------------------------------------------------------------------------------------------

    def _part(self, controls: Controls | None, offset: int, noise: Latents, given: Latents | None) -> _Part:
        contexts = [
            self._model.prepare(branch.text.states, text_mask=branch.text.mask, controls=branch.told_of(controls))
            for branch in self._branches
        ]
        return _Part(
            offset=offset,
            noise=noise,
            rolling=Rolling(self._model, contexts, num_frames=self._total - offset),
            given=given,
        )

    def _whole(self) -> _Part:
        controls = self._job.controls
        return self._part(controls, 0, self._job.noise, None if controls is None else controls.first_frame)

    def _smaller(self, part: _Part, done: int) -> _Part:
        """The rest of the clip at the next smaller size, if there is one; it starts from the last picture."""
        vae, stride = self._pipeline.vae, self._pipeline.preset.vae.stride_px
        height, width = part.noise.shape[3:]
        aspect = self._order.width_px / self._order.height_px
        sizes = next_smaller(self._pipeline.preset, width * stride, height * stride, aspect=aspect)
        if sizes is None or self._pacer is None:
            return part
        picture = vae.decode(torch.cat(part.recent, dim=2)[:, :, -_RECENT:])[:, :, -1]
        picture = F.interpolate(picture, (sizes[1], sizes[0]), mode="bilinear", antialias=True)
        self._pacer.resized(sizes[0] * sizes[1] / (height * width * stride**2))
        return self._restarted(vae.encode(picture[:, :, None]), done)

    def _restarted(self, first: Latents, done: int) -> _Part:
        """A part whose first latent frame is the last picture before it."""
        height, width = first.shape[3:]
        c = self._job.noise.shape[1]
        generator = torch.Generator().manual_seed(self._order.seed)
        noise = torch.randn((1, c, self._total, height, width), generator=generator)
        part = self._part(_resized(self._job.controls, done - 1, height, width, first), done - 1, noise, first)
        self._remember(part, first, 0)
        return part

    def _restored(self, saved: list[Chunk]) -> tuple[_Part, int]:
        """Where the chunks in storage lead: the model looks at them again."""
        part, done = self._whole(), 0
        for chunk in saved:
            x = chunk.x
            if chunk.restarts:
                part, x = self._restarted(x[:, :, :1], done), x[:, :, 1:]
            self._remember(part, x, done - part.offset)
            part.given, done = None, done + x.shape[2]
        return part, done


def _saved(media: Media) -> list[Chunk]:
    chunks: list[Chunk] = []
    while (chunk := load_chunk(media, len(chunks))) is not None:
        chunks.append(chunk)
    return chunks


def _resized(controls: Controls | None, start: int, height: int, width: int, first: Latents) -> Controls:
    """The controls from a latent frame on, on another grid."""
    made: dict[str, Tensor | None] = {"first_frame": first, "last_frame": None}
    for entry in fields(Controls):
        x = getattr(controls, entry.name) if controls is not None else None
        if entry.name in made or x is None:
            continue
        made[entry.name] = x
        if x.ndim < 5:  # phrases and the rate are of no place
            continue
        x = x[..., start:, :, :]
        right, down = x.shape[-1] / width, x.shape[-2] / height  # cells that become one
        if entry.name == "floor":
            # The nearest point's place, since places repeat with the tile; and points span as much more.
            points = _regrid(x, height, width, parts=FLOOR_CELLS, numbers=FLOOR_NUMBERS, mode="nearest-exact")
            wider = x.new_tensor([1, 1, right, right, down, down]).repeat(FLOOR_POINTS)
            made[entry.name] = points * wider.view(-1, 1, 1, 1)
        elif entry.name == "objects":
            boxes, outlines = x.flatten(0, 1)[:, :BOX_MAPS], x.flatten(0, 1)[:, BOX_MAPS:]
            parts = math.isqrt(outlines.shape[1] // STRIDE_FRAMES)
            maps = [_regrid(boxes, height, width)]
            if parts:
                maps.append(_regrid(outlines, height, width, parts=parts))
            made[entry.name] = torch.cat(maps, dim=1).unflatten(0, x.shape[:2])
        else:
            made[entry.name] = _regrid(x, height, width)
            if entry.name == "flow":  # counted in cells
                made[entry.name] = made[entry.name] / x.new_tensor([right, down]).view(2, 1, 1, 1)
    return Controls(**made)


def _regrid(x: Tensor, height: int, width: int, *, parts: int = 1, numbers: int = 1, mode: str = "area") -> Tensor:
    """b (s i j n) f h w on another grid, where i j are parts of a cell: each stays where it is in the picture."""
    b, _, f, _, _ = x.shape
    fine = rearrange(x, "b (s i j n) f h w -> (b s) (n f) (h i) (w j)", i=parts, j=parts, n=numbers)
    fine = F.interpolate(fine, (height * parts, width * parts), mode=mode)
    return rearrange(fine, "(b s) (n f) (h i) (w j) -> b (s i j n) f h w", b=b, f=f, i=parts, j=parts)
