"""Video files in and out (PyAV). Frames are uint8 RGB, f h w 3."""

import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av.error import FFmpegError

from kling.errors import InputError
from kling.shapes import Frames
from kling.storage import whole_file


def read_frames(source: str | os.PathLike | bytes, *, max_frames: int | None = None) -> tuple[Frames, float]:
    """Decode a whole video.

    Args:
        source: a local path or the file's bytes.
        max_frames: stop after so many.

    Returns:
        Frames (f h w 3, uint8 RGB) and the average frame rate.

    Raises:
        InputError: not a video, or nothing could be decoded.
    """
    where = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
    frames = []
    try:
        with av.open(file, mode="r") as container:
            if not container.streams.video:
                raise InputError("the file has no video stream", where=where)
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            for frame in container.decode(stream):
                frames.append(frame.reformat(format="rgb24", threads=1).to_ndarray())
                if max_frames is not None and len(frames) >= max_frames:
                    break
    except (FFmpegError, ValueError) as error:
        raise InputError(f"cannot read the video ({error})", where=where) from error
    if not frames:
        raise InputError("the video has no frames", where=where)
    return np.stack(frames), rate or 1.0


def write_mp4(
    target: str | os.PathLike | BinaryIO,
    frames: Iterable[np.ndarray],
    *,
    fps: float,
    crf: int = 14,
    fragmented: bool = False,
) -> None:
    """Encode H.264 in mp4; the same frames give the same bytes (one thread, no metadata of time or machine).

    Args:
        target: a local path, where the file appears when it is whole, or a writable binary file.
        frames: h w 3 uint8 RGB; odd sizes are padded by one pixel (4:2:0 needs even ones).
        crf: 0 (lossless) to 51; 14 is visually lossless for small frames.
        fragmented: a moov box first and one fragment a frame, for streaming.
    """
    for _ in encode_mp4(target, frames, fps=fps, crf=crf, fragmented=fragmented):
        pass


def encode_mp4(
    target: str | os.PathLike | BinaryIO,
    frames: Iterable[np.ndarray],
    *,
    fps: float,
    crf: int = 14,
    fragmented: bool = False,
) -> Iterator[int]:
    """Like `write_mp4`, but yields the number of frames given to the muxer so far, so that a caller can stream."""
    if isinstance(target, str | os.PathLike):
        with whole_file(target) as part:
            yield from _encode(str(part), frames, fps=fps, crf=crf, fragmented=fragmented)
    else:
        yield from _encode(target, frames, fps=fps, crf=crf, fragmented=fragmented)


def _encode(
    file: str | BinaryIO, frames: Iterable[np.ndarray], *, fps: float, crf: int, fragmented: bool
) -> Iterator[int]:
    options = {"fflags": "+bitexact"}
    if fragmented:
        options["movflags"] = "frag_every_frame+empty_moov+default_base_moof"
    elif isinstance(file, str):  # moving the index to the front reopens the file by name
        options["movflags"] = "+faststart"
    with av.open(file, mode="w", format="mp4", options=options) as container:
        stream = None
        for count, frame in enumerate(frames, start=1):
            if stream is None:
                height, width = frame.shape[:2]
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.width, stream.height = width + width % 2, height + height % 2
                stream.pix_fmt = "yuv420p"
                stream.thread_count = 1
                stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "flags": "+bitexact"}
                # x264's macroblock tree reads memory it never wrote: 14 encodings of the same small frames in a used
                # heap gave 4 different files with it, and one without.
                stream.options["x264-params"] = "no-mbtree=1"
                if fragmented:
                    stream.options = {**stream.options, "tune": "zerolatency"}
            pad = ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0))
            image = av.VideoFrame.from_ndarray(np.pad(frame, pad, mode="edge"), format="rgb24")
            container.mux(stream.encode(image))
            yield count
        if stream is None:
            raise InputError("no frames to write")
        container.mux(stream.encode())
