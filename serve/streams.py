"""Frames and events while they are made, to any number of viewers.

Frames come from storage, chunk by chunk, so a viewer keeps seeing them when the replica, the ingress or the attempt
changes: attempts of one order write the same frames. What a late viewer missed is read back from the finished video.
"""

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator

import cv2
import numpy as np
import sqlalchemy as sa

from kling.media.video import encode_mp4, read_frames
from kling.schema import FINAL_STATES
from kling.shapes import Frames

from .media import Media
from .tasks import TaskStore
from .views import task_view

_POLL_S = 0.01  # for the next frames' file
_LOOK_EVERY_S = 0.06  # at the row, while there are none
HEARTBEAT_S = 10.0
MEDIA_TYPES = {
    "mp4": "video/mp4",
    "mjpeg": "multipart/x-mixed-replace; boundary=frame",
    "sse": "text/event-stream",
    "raw": "application/octet-stream",
}


async def live_frames(store: TaskStore, state: str, task_id: str) -> AsyncIterator[Frames]:
    """Chunks of frames (f h w 3) in order, each as soon as it is in storage; ends with the task, however it ends."""
    media, index, sent, looked_at = Media(state, task_id), 0, 0, 0.0
    while True:
        chunk = await asyncio.to_thread(media.load_frames, index)
        if chunk is not None:
            yield chunk
            index, sent = index + 1, sent + len(chunk)
            continue
        if time.monotonic() - looked_at < _LOOK_EVERY_S:
            await asyncio.sleep(_POLL_S)
            continue
        looked_at = time.monotonic()
        row = await asyncio.to_thread(store.get, task_id)
        if row is None or row["state"] in ("failed", "cancelled"):
            return
        if row["state"] == "completed":
            frames, _ = read_frames(await asyncio.to_thread(media.load_video))
            if sent < len(frames):
                yield frames[sent:]
            return
        await asyncio.sleep(_POLL_S)


async def stream(store: TaskStore, state: str, row: sa.RowMapping, form: str, fps: int) -> AsyncIterator[bytes]:
    """A task's frames in one of MEDIA_TYPES.

    mp4: fragmented, playable as it arrives. mjpeg: pictures in parts, for an <img>. sse: pictures as events, with a
    heartbeat. raw: rgb24 bytes, frame after frame.
    """
    frames = live_frames(store, state, row["id"])
    if form == "mp4":
        encoder = _Fragments(fps)
        async for chunk in frames:
            yield await asyncio.to_thread(encoder.push, chunk)
        yield await asyncio.to_thread(encoder.finish)
    elif form == "raw":
        async for chunk in frames:
            yield chunk.tobytes()
    elif form == "mjpeg":
        async for chunk in frames:
            for picture in await asyncio.to_thread(_jpegs, chunk):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                yield head.encode() + picture + b"\r\n"
        yield b"--frame--\r\n"
    else:
        index = 0
        async for chunk in _with_heartbeat(frames):
            if chunk is None:
                yield b": waiting\n\n"
                continue
            for picture in await asyncio.to_thread(_jpegs, chunk):
                data = {"index": index, "jpeg": base64.b64encode(picture).decode()}
                yield f"event: frame\nid: {index}\ndata: {json.dumps(data)}\n\n".encode()
                index += 1
        yield b"event: end\ndata: {}\n\n"


async def events(store: TaskStore, row: sa.RowMapping, num_workers: int = 1) -> AsyncIterator[bytes]:
    """The task's state as server-sent events, one at each change; ends with the task."""
    task_id, said, quiet_since = row["id"], None, time.monotonic()
    while True:
        row_now = await asyncio.to_thread(store.get, task_id)
        if row_now is None:
            yield b"event: deleted\ndata: {}\n\n"
            return
        ahead = await asyncio.to_thread(store.ahead, row_now) if row_now["state"] == "queued" else None
        view = task_view(row_now, ahead, num_workers)
        mark = (view.status, view.attempt, view.progress, view.queue_position)
        if mark != said:
            said, quiet_since = mark, time.monotonic()
            name = "end" if view.status in FINAL_STATES else "progress"
            yield f"event: {name}\ndata: {view.model_dump_json()}\n\n".encode()
            if view.status in FINAL_STATES:
                return
        elif time.monotonic() - quiet_since > HEARTBEAT_S:
            quiet_since = time.monotonic()
            yield b": still here\n\n"
        await asyncio.sleep(0.2)


def pictures(video: bytes, variant: str) -> bytes:
    """A JPEG of a finished video: its middle frame, or a sheet of up to 16 frames in rows of four."""
    frames, _ = read_frames(video)
    if variant == "thumbnail":
        return _jpegs(frames[len(frames) // 2 : len(frames) // 2 + 1])[0]
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, num=min(16, len(frames))).round().astype(int)]
    chosen += [np.zeros_like(chosen[0])] * (-len(chosen) % 4)
    rows = [np.concatenate(chosen[i : i + 4], axis=1) for i in range(0, len(chosen), 4)]
    return _jpegs(np.concatenate(rows)[None])[0]


class _Fragments:
    """Fragmented mp4, fed with frames instead of asking for them."""

    def __init__(self, fps: int):
        self._waiting: deque[np.ndarray] = deque()
        self._out: list[bytes] = []
        self._encoder = encode_mp4(self, self._fed(), fps=fps, crf=18, fragmented=True)  # type: ignore[arg-type]
        self._any = False

    def write(self, data: bytes) -> int:  # what the muxer writes to
        self._out.append(bytes(data))
        return len(data)

    def _fed(self) -> Iterator[np.ndarray]:
        while self._waiting:
            yield self._waiting.popleft()

    def push(self, frames: Frames) -> bytes:
        for frame in frames:
            self._waiting.append(frame)
            next(self._encoder)  # takes exactly this one
            self._any = True
        return self._taken()

    def finish(self) -> bytes:
        if self._any:  # a task that ended before its first frame has no video
            next(self._encoder, None)
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out


async def _with_heartbeat(frames: AsyncIterator[Frames]) -> AsyncIterator[Frames | None]:
    """The same chunks, and None whenever nothing came for a heartbeat."""
    coming = asyncio.ensure_future(anext(frames, None))
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=HEARTBEAT_S)
            if not done:
                yield None
                continue
            chunk = coming.result()
            if chunk is None:
                return
            yield chunk
            coming = asyncio.ensure_future(anext(frames, None))
    finally:
        coming.cancel()


def _jpegs(frames: Frames) -> list[bytes]:
    return [cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for frame in frames]
