"""The computing of the decoder's process, without Ray: latents to frames, frames to files."""

import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from kling.errors import InternalError
from kling.media.video import encode_mp4
from kling.model.checkpoint import load_part
from kling.model.vae import StreamDecoder, VideoVAE
from kling.pipeline import PACKAGED_WEIGHTS, to_uint8
from kling.presets import get_preset
from kling.shapes import Frames, Latents

from .latents import Chunk, load_chunk, load_state
from .media import Media
from .memory import line, memory_bytes, peak_bytes
from .orders import Order
from .ranks import TELL_EVERY_S, Decoded, Job, Measured, RankSettings

_POLL_S = 0.005  # for the next chunk's file
_GROUP = 8


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

    def run(self, task: Job, wants_stop: Callable[[], bool]) -> Iterator[Decoded]:
        """Frames to storage as they come, then the whole video; memory holds one latent frame's pixels at a time.

        A realtime task's frames are made while the ranks work on its next chunks.
        """
        media, order = Media(self._settings.state, task.task_id), task.order
        self._pace: list[dict] = []
        frames, count, told_at = self._saved(media, self._groups(media, order, wants_stop)), 0, 0.0
        with tempfile.TemporaryDirectory(prefix="kling-") as folder:
            file = Path(folder) / "video.mp4"  # a name, so that the index can be moved to the front
            for count in encode_mp4(file, frames, fps=order.fps):
                if wants_stop():
                    return
                if count == 1 or time.monotonic() - told_at > TELL_EVERY_S:
                    told_at = time.monotonic()
                    yield Decoded(num_frames=count)
            if count != order.total_frames:  # stopped while it waited for a chunk
                return
            data = file.read_bytes()
        media.save_video(data)
        digest = hashlib.sha256(data).hexdigest()
        yield Decoded(num_frames=count, video_bytes=len(data), sha256=digest, pace=tuple(self._pace))

    def calibrate(self) -> Measured:
        """Time and memory of squares of 8 and 16 latents, to frames and to a video."""
        vae = self._vae.config

        def decoded(side: int) -> int:
            latents = torch.zeros(1, vae.z_dim, 3, side, side)
            frames = (frame for video in self._vae.decode_stream(latents) for frame in to_uint8(video))
            return sum(1 for _ in encode_mp4(io.BytesIO(), frames, fps=8))

        num_frames = decoded(8)  # and what is loaded at first use is loaded
        idle, started = memory_bytes(), time.monotonic()
        small, large = ((side * vae.stride_px) ** 2 for side in (8, 16))
        fixed, each = line((small, peak_bytes(lambda: decoded(8))), (large, peak_bytes(lambda: decoded(16))))
        seconds = (time.monotonic() - started) / ((small + large) * num_frames)
        return Measured(seconds=seconds, idle_bytes=idle, fixed_bytes=fixed, each_bytes=each)

    def _frames(self, media: Media, order: Order, wants_stop: Callable[[], bool]) -> Iterator[Frames]:
        """Groups of frames of the order's size."""
        if order.chunk:
            yield from self._chunked(media, order, wants_stop)
            return
        state = load_state(media)
        if state is None or state.step != order.num_steps:
            raise InternalError("a task came to the decoder without its latents", where=media.folder)
        for video in self._vae.decode_stream(state.x):
            yield to_uint8(video)

    def _chunked(self, media: Media, order: Order, wants_stop: Callable[[], bool]) -> Iterator[Frames]:
        """Each chunk as soon as it is in storage; what was made smaller is enlarged to the order's size."""
        left, index = self._vae.config.latent_frames(order.num_frames), 0
        decoder = StreamDecoder(self._vae)
        while left > 0:
            while (chunk := load_chunk(media, index)) is None:
                if wants_stop():
                    return
                time.sleep(_POLL_S)
            if chunk.restarts:
                decoder = StreamDecoder(self._vae)
            skip, count = chunk.restarts, 0  # the last picture again
            for frames in self._pushed(decoder, chunk.x):
                if not skip:
                    count += len(frames)
                    yield _resized(frames, order)
                skip = False
            self._pace.append(self._told(chunk, count))
            left, index = left - chunk.own_frames, index + 1

    def _told(self, chunk: Chunk, num_frames: int) -> dict:
        height, width = (size * self._vae.config.stride_px for size in chunk.x.shape[3:])
        ms = 1000 * chunk.seconds / max(1, num_frames)
        sizes = {"num_frames": num_frames, "num_steps": chunk.num_steps, "width_px": width, "height_px": height}
        return {**sizes, "ms_per_frame": round(ms, 2)}

    @staticmethod
    def _pushed(decoder: StreamDecoder, latents: Latents) -> Iterator[Frames]:
        for video in decoder.push(latents):
            yield to_uint8(video)

    def _groups(self, media: Media, order: Order, wants_stop: Callable[[], bool]) -> Iterator[Frames]:
        """The frames of the video that is continued, if any; then the new ones, without the one that both have."""
        if order.before_frames:
            yield from _stored(media.load_before(), order.before_frames)
        skip = min(1, order.before_frames)
        for frames in self._frames(media, order, wants_stop):
            if len(frames) > skip:
                yield frames[skip:]
            skip = 0

    @staticmethod
    def _saved(media: Media, groups: Iterator[Frames]) -> Iterator[np.ndarray]:
        """Every group stored for viewers, then frame by frame."""
        for index, frames in enumerate(groups):
            media.save_frames(index, frames)
            yield from frames


def _stored(video: bytes, num_frames: int) -> Iterator[Frames]:
    """A finished video's frames in small groups: a long one is never in memory as a whole."""
    with av.open(io.BytesIO(video)) as container:
        decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        first = islice(decoded, num_frames)
        while group := list(islice(first, _GROUP)):
            yield np.stack(group)


def _resized(frames: Frames, order: Order) -> Frames:
    if frames.shape[1:3] == (order.height_px, order.width_px):
        return frames
    size = (order.width_px, order.height_px)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
