"""The decoder process: everything that touches a stranger's file happens here, under limits, and may be killed.

It speaks over stdin and stdout: a JSON line in; a JSON line and the bytes it announces out. Nothing is unpickled.
`data.stages.sandbox` starts it, watches the clock and replaces it. It imports no torch, so that it starts in half a
second and its memory limit means the file's memory.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
from av.error import FFmpegError
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector

# Containers of moving pictures and sound. Playlists (hls, concat, dash) are left out on purpose: they name other files
# and hosts, and a stranger's file must not make us read those. So are text formats that FFmpeg would draw.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,h264,hevc,ogg,asf,mxf,ivf,rm,"
    "gif,apng,yuv4mpegpipe,dv,nut,wav,mp3,flac,aac,amr,aiff"
)
_OPEN = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
_SHOT_HEIGHT_PX = 96  # shots are found on small pictures: as exact, many times faster
_SEEK_FROM_S = 20.0  # before this, decoding from the start is as fast and always exact


@dataclass(frozen=True, kw_only=True)
class _Limits:
    max_frames: int
    max_pixels: int  # of one picture


def main() -> None:
    """Serve requests until stdin closes."""
    memory_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    # Whatever a library prints goes to stderr; the protocol keeps the real stdout for itself.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        limits = _Limits(max_frames=request["max_frames"], max_pixels=request["max_pixels"])
        try:
            answer, arrays = _OPERATIONS[request["op"]](request, limits)
        except MemoryError:
            answer, arrays = {"error": "decoding needs more memory than the limit"}, []
        except (FFmpegError, ValueError, OSError, ArithmeticError, cv2.error) as error:
            answer, arrays = {"error": f"cannot be read as a video ({_plain(error)})"}, []
        _send(out, answer, arrays)


def _send(out: BinaryIO, answer: dict[str, Any], arrays: list[np.ndarray]) -> None:
    answer["shapes"] = [array.shape for array in arrays]
    out.write(json.dumps(answer).encode() + b"\n")
    for array in arrays:
        out.write(np.ascontiguousarray(array).data)
    out.flush()


def _plain(error: Exception) -> str:
    """FFmpeg's words without the path of a temporary file."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (
        "not a container of moving pictures"
        if words == "Invalid argument"
        else words.removesuffix(" found when processing input")
    )


def _scan(request: dict[str, Any], limits: _Limits) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Decode everything once, small: the time of each frame, where shots change, what is wrong with the file."""
    with av.open(request["path"], options=_OPEN) as container:
        if not container.streams.video:
            kind = "sound only" if container.streams.audio else "no picture and no sound"
            return {"error": f"no video stream ({kind})", "kind": "filtered"}, []
        stream = container.streams.video[0]
        codec = stream.codec_context
        if codec.width * codec.height > limits.max_pixels:
            return {"error": f"pictures of {codec.width}x{codec.height} are over the limit", "kind": "filtered"}, []
        scene_rate = min(240.0, max(1.0, float(stream.average_rate or stream.guessed_rate or 25)))
        detector = ContentDetector(min_scene_len=4)
        times, cuts, decoded = [], [], _Decoding(container, stream, limits)
        first = None
        for time_s, frame in decoded:
            first = first or frame
            small = _bgr(frame, _SHOT_HEIGHT_PX)
            found = detector.process_frame(FrameTimecode(len(times), scene_rate), small)
            cuts += [cut.frame_num for cut in found]
            times.append(time_s)
        if first is None:
            reason = f": {decoded.error}" if decoded.error else ""
            return {"error": f"not one frame can be decoded{reason}"}, []
        declared = (container.duration or 0) / av.time_base
        if stream.duration and stream.time_base:
            declared = float(stream.duration * stream.time_base)
        return {
            "times_s": times,
            "zero_s": decoded.zero_s,
            "cuts": sorted(set(cuts)),
            "width_px": first.width,
            "height_px": first.height,
            "rotation_deg": first.rotation,
            "sample_aspect": float(stream.sample_aspect_ratio or 1) or 1.0,
            "declared_s": declared,
            "num_damaged": decoded.num_damaged,
            "damage": decoded.error,
            "over_limit": decoded.over_limit,
            "invented_times": decoded.invented_times,
        }, []


def _frames(request: dict[str, Any], limits: _Limits) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The frames at the given times (as `_scan` told them), cut to the clip's size. One array a clip."""
    clips: list[list[float]] = request["clips"]
    wanted = {round(t, 6) for times in clips for t in times}
    first, last, found = min(wanted), max(wanted), {}
    with av.open(request["path"], options=_OPEN) as container:
        stream = container.streams.video[0]
        start = first if first > _SEEK_FROM_S and not request["invented_times"] else None
        for time_s, frame in _Decoding(container, stream, limits, start_s=start, zero_s=request["zero_s"]):
            if time_s > last + 1e-6:
                break
            if (name := round(time_s, 6)) in wanted:
                found[name] = _fitted(frame, request)
    arrays = []
    missing: list[int] = []
    for index, times in enumerate(clips):
        pictures = [found[name] for t in times if (name := round(t, 6)) in found]
        whole = len(pictures) == len(times)
        missing += [] if whole else [index]
        arrays.append(np.stack(pictures) if whole else np.zeros((0, 1, 1, 3), np.uint8))
    return {"missing": missing}, arrays


class _Decoding:
    """Frames with their time in seconds, going on after damaged packets; what went wrong is told afterwards."""

    def __init__(self, container, stream, limits: _Limits, start_s: float | None = None, zero_s: float | None = None):
        self._container, self._stream, self._limits, self._start_s = container, stream, limits, start_s
        self.zero_s = zero_s  # time stamp of the file's first frame: clips count from there
        self.num_damaged, self.error, self.over_limit, self.invented_times = 0, "", False, False
        stream.codec_context.thread_count = 1  # more threads cost memory and bring nothing beside other workers

    def __iter__(self) -> Iterator[tuple[float, av.VideoFrame]]:
        if self._start_s is not None:
            stamp = int((self._start_s + (self.zero_s or 0)) / self._stream.time_base)
            self._container.seek(stamp, stream=self._stream, backward=True)
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        last = None
        for count, frame in enumerate(self._pictures()):
            if count >= self._limits.max_frames:
                self.over_limit = True
                return
            time_s = frame.time
            if time_s is None or (last is not None and time_s <= last):
                self.invented_times = True
                time_s = 0.0 if last is None else last + 1 / rate
            last = time_s
            if self.zero_s is None:
                self.zero_s = time_s
            yield round(time_s - self.zero_s, 6), frame

    def _pictures(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except FFmpegError as error:
                    self.num_damaged += 1
                    self.error = _plain(error)
        except FFmpegError as error:  # the container itself ends in the middle
            self.num_damaged += 1
            self.error = _plain(error)


def _bgr(frame: av.VideoFrame, height_px: int) -> np.ndarray:
    height = min(frame.height, height_px)
    width = max(1, round(frame.width * height / frame.height))
    return frame.reformat(width=width, height=height, format="bgr24", interpolation="AREA").to_ndarray()


def _fitted(frame: av.VideoFrame, request: dict[str, Any]) -> np.ndarray:
    """Upright, square pixels, scaled to cover the clip's size, cut in the middle."""
    picture = frame.to_ndarray(format="rgb24")
    top, bottom, left, right = request["bars_px"]
    picture = picture[top : picture.shape[0] - bottom, left : picture.shape[1] - right]
    aspect = request["sample_aspect"]
    if abs(aspect - 1) > 1e-3:
        picture = cv2.resize(picture, (max(1, round(picture.shape[1] * aspect)), picture.shape[0]))
    picture = np.rot90(picture, round(request["rotation_deg"] / 90) % 4)
    height, width = picture.shape[:2]
    to_width, to_height = request["width_px"], request["height_px"]
    scale = max(to_width / width, to_height / height)
    size = max(to_width, round(width * scale)), max(to_height, round(height * scale))
    if size != (width, height):
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    x, y = (size[0] - to_width) // 2, (size[1] - to_height) // 2
    return np.ascontiguousarray(picture[y : y + to_height, x : x + to_width])


_OPERATIONS = {"scan": _scan, "frames": _frames}

if __name__ == "__main__":
    main()
