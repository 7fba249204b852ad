"""The decoder process: everything that touches a stranger's file happens here, under limits, and may be killed.

It speaks over stdin and stdout: a JSON line in; a JSON line and the bytes it announces out. Nothing is unpickled.
`data.stages.sandbox` starts it, watches the clock and replaces it. It imports no torch, so that it starts in half a
second and its memory limit means the file's memory.
"""

import io
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
_SAMPLE_S = 0.5  # letterbox bars are looked for in one frame of so many seconds
_THUMB = (48, 27)  # width, height that TransNetV2 looks at
_MAX_ORIGINAL_BYTES = 256 * 2**20
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
    """Decode everything once, small: the time of each frame, where shots change, what is wrong with the file.

    Arrays: luma profiles of sampled frames' rows (n height) and columns (n width); thumbnails (f 27 48 3) if asked for.
    """
    with av.open(request["path"], options=_OPEN) as container:
        if not container.streams.video:
            kind = "sound only" if container.streams.audio else "no picture and no sound"
            return {"error": f"no video stream ({kind})", "kind": "filtered"}, []
        stream = container.streams.video[0]
        codec = stream.codec_context
        if codec.width * codec.height > limits.max_pixels:
            return {"error": f"pictures of {codec.width}x{codec.height} are over the limit", "kind": "filtered"}, []
        codec.options = {**codec.options, "flags2": "+export_mvs"}
        scene_rate = min(240.0, max(1.0, float(stream.average_rate or stream.guessed_rate or 25)))
        seen, decoded = _Seen(scene_rate, bool(request["thumbs"])), _Decoding(container, stream, limits)
        for time_s, frame in decoded:
            seen.add(time_s, frame)
            if decoded.spoiled:
                seen.spoiled.append(len(seen.times) - 1)
        if seen.first is None:
            reason = f": {decoded.error}" if decoded.error else ""
            return {"error": f"not one frame can be decoded{reason}"}, []
        declared = (container.duration or 0) / av.time_base
        if stream.duration and stream.time_base:
            declared = float(stream.duration * stream.time_base)
        return {
            "times_s": seen.times,
            "zero_s": decoded.zero_s,
            "cuts": sorted(set(seen.cuts)),
            "key_frames": seen.key_frames,
            "spoiled": seen.spoiled,
            "coded_motion": seen.coded_motion,
            "samples": seen.samples,
            "width_px": seen.first.width,
            "height_px": seen.first.height,
            "rotation_deg": seen.first.rotation,
            "sample_aspect": float(stream.sample_aspect_ratio or 1) or 1.0,
            "declared_s": declared,
            "num_damaged": decoded.num_damaged,
            "damage": decoded.error,
            "num_interlaced": seen.num_interlaced,
            "over_limit": decoded.over_limit,
            "invented_times": decoded.invented_times,
        }, seen.arrays()


class _Seen:
    """What the scan keeps of each frame."""

    def __init__(self, scene_rate: float, thumbs: bool):
        self._detector, self._rate = ContentDetector(min_scene_len=4), scene_rate
        self._thumbs: list[np.ndarray] | None = [] if thumbs else None
        self._rows: list[np.ndarray] = []
        self._columns: list[np.ndarray] = []
        self.first: av.VideoFrame | None = None
        self.times: list[float] = []
        self.cuts: list[int] = []
        self.num_interlaced = 0
        self.key_frames: list[int] = []
        self.spoiled: list[int] = []  # frames that damage made, or that follow from such
        self.samples: list[int] = []  # frames whose profiles were kept
        self.coded_motion: list[float | None] = []  # picture widths a frame; None where the codec gives no vectors

    def add(self, time_s: float, frame: av.VideoFrame) -> None:
        self.first = self.first or frame
        small, index = _bgr(frame, _SHOT_HEIGHT_PX), len(self.times)
        self.cuts += [cut.frame_num for cut in self._detector.process_frame(FrameTimecode(index, self._rate), small)]
        self.num_interlaced += frame.interlaced_frame
        if frame.key_frame:
            self.key_frames.append(index)
        self.coded_motion.append(_coded_motion(frame))
        if self._thumbs is not None:
            self._thumbs.append(cv2.resize(small, _THUMB, interpolation=cv2.INTER_AREA)[..., ::-1])
        same = (frame.width, frame.height) == (self.first.width, self.first.height)
        if same and (not self.samples or time_s >= self.times[self.samples[-1]] + _SAMPLE_S):
            grey = frame.reformat(format="gray", threads=1).to_ndarray()
            self._rows.append(cv2.blur(grey, (9, 1)).max(axis=1))  # the blur takes single noisy pixels away
            self._columns.append(cv2.blur(grey, (1, 9)).max(axis=0))
            self.samples.append(index)
        self.times.append(time_s)

    def arrays(self) -> list[np.ndarray]:
        thumbs = [np.stack(self._thumbs)] if self._thumbs is not None else []
        return [np.stack(self._rows), np.stack(self._columns), *thumbs]


def _coded_motion(frame: av.VideoFrame) -> float | None:
    """Mean length of the codec's own motion vectors over the picture; it costs no decoding of its own."""
    data = frame.side_data.get("MOTION_VECTORS")
    if data is None:
        return None
    vectors = data.to_ndarray()
    length = np.hypot(vectors["motion_x"].astype(float), vectors["motion_y"]) / np.maximum(1, vectors["motion_scale"])
    distance = np.maximum(1, np.abs(vectors["source"].astype(float)))
    area = vectors["w"].astype(float) * vectors["h"]
    return round(float((length / distance * area).sum() / max(1.0, area.sum()) / frame.width), 6)


def _frames(request: dict[str, Any], limits: _Limits) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The frames at the given times (as `_scan` told them), cut to the clip's size.

    Arrays: one f h w 3 a clip; then, if ``still_px`` is given, one still a clip of at most that many pixels a side.
    """
    clips: list[list[float]] = request["clips"]
    box_of = {round(t, 6): box for times, box in zip(clips, request["boxes_px"], strict=True) for t in times}
    middles = {round(times[len(times) // 2], 6) for times in clips} if request["still_px"] else set()
    first, last, found, stills = min(box_of), max(box_of), {}, {}
    with av.open(request["path"], options=_OPEN) as container:
        stream = container.streams.video[0]
        start = first if first > _SEEK_FROM_S and not request["invented_times"] else None
        for time_s, frame in _Decoding(container, stream, limits, start_s=start, zero_s=request["zero_s"]):
            if time_s > last + 1e-6:
                break
            if (name := round(time_s, 6)) in box_of:
                upright = _upright(frame, request, box_of[name])
                found[name] = _fitted(upright, request)
                if name in middles:
                    stills[name] = _within(upright, request["still_px"])
    arrays, missing = [], []
    for index, times in enumerate(clips):
        pictures = [found[name] for t in times if (name := round(t, 6)) in found]
        whole = len(pictures) == len(times)
        missing += [] if whole else [index]
        arrays.append(np.stack(pictures) if whole else np.zeros((0, 1, 1, 3), np.uint8))
    if middles:
        empty = np.zeros((0, 1, 3), np.uint8)
        arrays += [stills.get(round(times[len(times) // 2], 6), empty) for times in clips]
    return {"missing": missing}, arrays


def _original(request: dict[str, Any], limits: _Limits) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The packets from the key frame at ``start_s`` to ``end_s`` as they are, in Matroska: bit-exact, no encoder.

    A frame after the end is kept where one before it was predicted from it. One array of bytes.
    """
    out = io.BytesIO()
    with av.open(request["path"], options=_OPEN) as container:
        source = container.streams.video[0]
        kept = _packets(container, source, request)
        with av.open(out, "w", format="matroska", options={"fflags": "+bitexact"}) as target:
            stream = target.add_stream_from_template(source, opaque=True)
            zero = kept[0].pts or 0
            for packet in kept:
                packet.pts = (packet.pts or 0) - zero
                packet.dts = packet.dts - zero if packet.dts is not None else None
                packet.stream = stream
                target.mux(packet)
    return {}, [np.frombuffer(out.getvalue(), np.uint8)]


def _packets(container, source, request: dict[str, Any]) -> list[av.Packet]:
    """In decoding order, from the key frame to the last one that is shown before the end."""
    start = round((request["start_s"] + request["zero_s"]) / source.time_base)
    end = (request["end_s"] + request["zero_s"]) / source.time_base
    container.seek(start, stream=source, backward=True)
    kept, num_bytes, last = [], 0, 0
    for packet in container.demux(source):
        if packet.pts is None or (not kept and not (packet.is_keyframe and abs(packet.pts - start) <= 1)):
            continue
        if (packet.pts if packet.dts is None else packet.dts) >= end:
            break
        if kept and packet.pts < kept[0].pts:  # leading pictures of an open group: they need what came before
            continue
        kept.append(packet)
        num_bytes += packet.size
        last = len(kept) if packet.pts < end else last
        if num_bytes > _MAX_ORIGINAL_BYTES:
            raise ValueError("its packets are over the limit of 256 MiB")
    if not kept:
        raise ValueError("its key frame was not found again")
    return kept[:last]


class _Decoding:
    """Frames with their time in seconds, going on after damaged packets; what went wrong is told afterwards."""

    def __init__(self, container, stream, limits: _Limits, start_s: float | None = None, zero_s: float | None = None):
        self._container, self._stream, self._limits, self._start_s = container, stream, limits, start_s
        self.zero_s = zero_s  # time stamp of the file's first frame: clips count from there
        self.num_damaged, self.error, self.over_limit, self.invented_times = 0, "", False, False
        self.spoiled = False  # the frame just given shows damage: decoders paint over it, until a key frame starts anew
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
                    for frame in packet.decode():
                        self.spoiled = bool(frame.is_corrupt) or (self.spoiled and not frame.key_frame)
                        if frame.is_corrupt:
                            self.num_damaged, self.error = self.num_damaged + 1, self.error or "incomplete pictures"
                        yield frame
                except FFmpegError as error:
                    self.num_damaged, self.spoiled = self.num_damaged + 1, True
                    self.error = _plain(error)
        except FFmpegError as error:  # the container itself ends in the middle
            self.num_damaged += 1
            self.error = _plain(error)


def _bgr(frame: av.VideoFrame, height_px: int) -> np.ndarray:
    height = min(frame.height, height_px)
    width = max(1, round(frame.width * height / frame.height))
    return frame.reformat(width=width, height=height, format="bgr24", interpolation="AREA", threads=1).to_ndarray()


def _upright(frame: av.VideoFrame, request: dict[str, Any], box: list[int]) -> np.ndarray:
    """h w 3: what the letterbox leaves (x0 y0 x1 y1 of the stored picture), square pixels, turned as players do."""
    picture = frame.reformat(format="rgb24", threads=1).to_ndarray()
    left, top, right, bottom = box
    picture = picture[top:bottom, left:right]
    if frame.interlaced_frame and bottom - top >= 4:  # two moments in one picture: the first field alone shows one
        picture = cv2.resize(picture[::2], (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    aspect = request["sample_aspect"]
    if abs(aspect - 1) > 1e-3:
        picture = cv2.resize(picture, (max(1, round(picture.shape[1] * aspect)), picture.shape[0]))
    return np.rot90(picture, round(request["rotation_deg"] / 90) % 4)


def _fitted(picture: np.ndarray, request: dict[str, Any]) -> np.ndarray:
    """Scaled to cover the clip's size, cut in the middle."""
    height, width = picture.shape[:2]
    to_width, to_height = request["width_px"], request["height_px"]
    scale = max(to_width / width, to_height / height)
    size = max(to_width, round(width * scale)), max(to_height, round(height * scale))
    if size != (width, height):
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    x, y = (size[0] - to_width) // 2, (size[1] - to_height) // 2
    return np.ascontiguousarray(picture[y : y + to_height, x : x + to_width])


def _within(picture: np.ndarray, longest_px: int) -> np.ndarray:
    scale = longest_px / max(picture.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


_OPERATIONS = {"scan": _scan, "frames": _frames, "original": _original}

if __name__ == "__main__":
    main()
