"""The computing of a replica's processes, without Ray: denoise as one of several ranks, decode, keep states.

With two ranks and guidance, rank 0 evaluates the prompt's branch and rank 1 the other (CFG parallel): they exchange
velocities by gloo or NCCL and both combine them, so both hold the same state after every step. After each step all
ranks take rank 0's word on whether to stop: a cancelled task ends on all of them at the same step, none left waiting.
"""

import datetime as dt
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors import torch as tensor_files
from torch import Tensor

from kling import storage
from kling.diffusion.guidance import combine
from kling.diffusion.samplers import State, Velocity
from kling.errors import InternalError
from kling.media.video import encode_mp4
from kling.model.checkpoint import load_part
from kling.model.vae import VideoVAE
from kling.pipeline import PACKAGED_WEIGHTS, Job, build, to_uint8
from kling.presets import get_preset

from .media import Media
from .orders import Order
from .ranks import Decoded, Event, RankSettings

SAVE_EVERY_S = 2.0
_COLLECTIVE_TIMEOUT_S = 600  # frozen ranks are found by their pings, long before
_STATE_PARTS = ("x", "v", "x0")


class Denoiser:
    """One rank's networks and its place in the group.

    Raises:
        CheckpointError: the weights are missing or of another model.
    """

    def __init__(self, settings: RankSettings, index: int, address: str):
        torch.set_num_threads(settings.num_threads)
        self._settings, self._index = settings, index
        if settings.num_ranks > 1:
            dist.init_process_group(
                "nccl" if settings.device.startswith("cuda") else "gloo",
                init_method=address,
                rank=index,
                world_size=settings.num_ranks,
                timeout=dt.timedelta(seconds=_COLLECTIVE_TIMEOUT_S),
            )
        self._pipeline = build(settings.preset, weights=settings.weights)

    def run(self, task_id: str, order: Order, wants_stop: Callable[[], bool]) -> Iterator[Event]:
        """Denoise from the last saved state; ends with `denoised`, the state saved, or with `stopped`."""
        yield Event(stage="text", num_steps=order.num_steps)
        media = Media(self._settings.state, task_id)
        job = self._pipeline.prepare(order.generation())
        saved = self._agreed_state(media)
        saved_at, started = time.monotonic(), time.monotonic()
        for state in self._pipeline.denoise(job, saved, velocity=self._velocity(job)):
            now = time.monotonic()
            last = state.step == order.num_steps
            stop = self._agreed(wants_stop())
            if self._index == 0 and (last or stop or now - saved_at > SAVE_EVERY_S):
                save_state(media, state)
                saved_at = now
            step_s, started = now - started, time.monotonic()
            yield Event(stage="denoise", step=state.step, num_steps=order.num_steps, step_s=step_s)
            if stop and not last:
                yield Event(stage="stopped", step=state.step, num_steps=order.num_steps)
                return
        yield Event(stage="denoised", step=order.num_steps, num_steps=order.num_steps)

    def calibrate(self) -> tuple[float, int, int]:
        """Seconds of one step at the preset's own clip, this process's bytes when idle, and extra bytes at the peak."""
        clip, idle = self._pipeline.preset.clip, memory_bytes()
        order = Order(
            prompt="a ball", negative_prompt="", width_px=clip.width_px, height_px=clip.height_px,
            num_frames=clip.num_frames, fps=clip.fps, num_steps=3, guidance=self._pipeline.preset.guidance, seed=0,
        )  # fmt: skip
        job = self._pipeline.prepare(order.generation())
        forget_peak()
        times = []
        for _ in self._pipeline.denoise(job, velocity=self._velocity(job)):
            times.append(time.monotonic())
        return times[-1] - times[-2], idle, max(0, memory_bytes(peak=True) - idle)

    def _agreed(self, stop: bool) -> bool:
        """Rank 0's word, on every rank."""
        if self._settings.num_ranks == 1:
            return stop
        word = torch.tensor([int(stop)])
        dist.broadcast(word, src=0)
        return bool(word.item())

    def _agreed_state(self, media: Media) -> State | None:
        """Rank 0 reads the saved state for all: two reads of a file could see two states."""
        state = load_state(media) if self._index == 0 else None
        if self._settings.num_ranks > 1:
            box = [state]
            dist.broadcast_object_list(box, src=0)
            state = box[0]
        return state

    def _velocity(self, job: Job) -> Velocity | None:
        """CFG parallel; None (the pipeline's own) with one rank."""
        if self._settings.num_ranks == 1:
            return None
        dit = self._pipeline.dit
        mine = job.text if self._index == 0 else job.negative

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            if not job.guidance.acts_at(float(t[0])):
                return dit(x, t, job.text.states, text_mask=job.text.mask, controls=job.controls)
            own = dit(x, t, mine.states, text_mask=mine.mask, controls=job.controls).contiguous()
            branches = [torch.empty_like(own) for _ in range(2)]
            dist.all_gather(branches, own)
            return combine(branches[0], branches[1], job.guidance)

        return velocity


class FrameMaker:
    """The VAE's decoder and the encoder of files.

    Raises:
        CheckpointError: the weights are missing or of another model.
    """

    def __init__(self, settings: RankSettings):
        torch.set_num_threads(settings.num_threads)
        self._settings = settings
        preset = get_preset(settings.preset)
        vae = VideoVAE(preset.vae)
        load_part(settings.weights or str(PACKAGED_WEIGHTS / preset.name), "vae", vae)
        self._vae = vae.eval().requires_grad_(False)

    def run(self, task_id: str, order: Order, wants_stop: Callable[[], bool]) -> Iterator[Decoded]:
        """Frames to storage as they come, then the whole video; memory holds one latent frame's pixels at a time."""
        media = Media(self._settings.state, task_id)
        state = load_state(media)
        if state is None or state.step != order.num_steps:
            raise InternalError("a task came to the decoder without its latents", where=task_id)
        with tempfile.TemporaryDirectory(prefix="kling-") as folder:
            file = Path(folder) / "video.mp4"  # a name, so that the index can be moved to the front
            for count in encode_mp4(file, self._frames(media, state.x), fps=order.fps):
                if wants_stop():
                    return
                yield Decoded(num_frames=count)
            data = file.read_bytes()
        media.save_video(data)
        yield Decoded(num_frames=order.num_frames, video_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def calibrate(self) -> tuple[float, int, int]:
        """Seconds to decode one pixel of one frame, this process's bytes when idle, and extra bytes at the peak."""
        vae, idle = self._vae.config, memory_bytes()
        latents = torch.zeros(1, vae.z_dim, 3, 16, 16)
        forget_peak()
        started = time.monotonic()
        frames = sum(video.shape[2] for video in self._vae.decode_stream(latents))
        pixels = frames * (16 * vae.stride_px) ** 2
        return (time.monotonic() - started) / pixels, idle, max(0, memory_bytes(peak=True) - idle)

    def _frames(self, media: Media, latents: Tensor) -> Iterator[np.ndarray]:
        for index, video in enumerate(self._vae.decode_stream(latents)):
            frames = to_uint8(video)
            media.save_frames(index, frames)
            yield from frames


def memory_bytes(*, peak: bool = False) -> int:
    """Resident memory of this process, now or at its peak since `forget_peak` (Linux)."""
    label = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(label):
            return int(line.split()[1]) * 1024
    raise InternalError("this system does not tell a process's memory", where=label)


def forget_peak() -> None:
    """Start a new peak (Linux: proc_pid_clear_refs, value 5)."""
    Path("/proc/self/clear_refs").write_text("5")


def save_state(media: Media, state: State) -> None:
    """The sampler's whole state: going on from it gives what never stopping gives."""
    tensors = {name: getattr(state, name) for name in _STATE_PARTS if getattr(state, name) is not None}
    named = {f"{name}.{state.step}": tensor.contiguous() for name, tensor in tensors.items()}
    storage.write_bytes(media.latent, tensor_files.save(named))


def load_state(media: Media) -> State | None:
    if not storage.exists(media.latent):
        return None
    tensors = tensor_files.load(storage.read_bytes(media.latent))
    step = int(next(iter(tensors)).rpartition(".")[2])
    named: dict[str, Tensor] = {name.rpartition(".")[0]: tensor for name, tensor in tensors.items()}
    return State(x=named["x"], step=step, v=named.get("v"), x0=named.get("x0"))
