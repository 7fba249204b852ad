"""Video files in and out."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.errors import InputError
from kling.media.video import encode_mp4, read_frames, write_mp4


def ramp(num_frames: int, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [np.stack([x * 3 % 256, y * 3 % 256, np.full_like(x, i * 12 % 256)], -1) for i in range(num_frames)]
    ).astype(np.uint8)


@settings(max_examples=8, deadline=None)
@given(
    num_frames=st.integers(1, 20),
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    fps=st.sampled_from([8, 23.976, 30]),
)
def test_round_trip(num_frames: int, height: int, width: int, fps: float):
    frames, file = ramp(num_frames, height, width), io.BytesIO()
    write_mp4(file, frames, fps=fps)
    back, rate = read_frames(file.getvalue())
    assert back.shape == (num_frames, height + height % 2, width + width % 2, 3)
    assert num_frames == 1 or rate == pytest.approx(fps, rel=1e-3)
    assert np.abs(back[:, :height, :width].astype(int) - frames).mean() < 12  # 4:2:0 blurs colour


def test_same_frames_same_bytes(tmp_path: Path):
    frames = ramp(9, 64, 64)
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, frames, fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_fragmented_file_grows_with_each_frame():
    file, sizes = io.BytesIO(), []
    for _ in encode_mp4(file, ramp(6, 32, 32), fps=8, fragmented=True):
        sizes.append(file.tell())
    assert all(a < b for a, b in itertools.pairwise(sizes))
    assert len(read_frames(file.getvalue())[0]) == 6


@pytest.mark.parametrize("data", [b"", b"not a video", b"\x00" * 4096])
def test_unreadable_is_named(tmp_path: Path, data: bytes):
    path = tmp_path / "bad.mp4"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_frames(path)
    assert "bad.mp4" in str(caught.value)


def test_no_frames_is_an_error(tmp_path: Path):
    with pytest.raises(InputError):
        write_mp4(tmp_path / "x.mp4", [], fps=8)


def test_a_video_appears_whole_or_not_at_all(tmp_path: Path):
    file, frames = tmp_path / "new folder" / "動画.mp4", ramp(4, 16, 16)
    write_mp4(file, frames, fps=8)
    before = file.read_bytes()

    def breaks():
        yield from frames[:2]
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        write_mp4(file, breaks(), fps=8)
    writing = encode_mp4(file, iter(frames), fps=8)
    next(writing)
    writing.close()  # the caller stops
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
