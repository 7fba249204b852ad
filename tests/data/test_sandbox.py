"""The decoder process: limits on time, memory and frames; a death costs one file, not the run."""

import os
import signal
from pathlib import Path

import pytest

from data.stages.s1_list import list_sources
from data.stages.s2_read import Reader
from data.stages.sandbox import Limits, Sandbox
from data.work import FilteredError
from kling.errors import ConfigError, InputError
from kling.presets import ClipSpec, get_preset
from tests.data.raw_files import moving, write

SPEC = get_preset("tiny").clip


def test_a_silent_decoder_is_killed_and_replaced(tmp_path):
    video = write(tmp_path / "a.mp4", moving(20))
    sandbox = Sandbox(Limits(timeout_s=20))
    assert len(sandbox.scan(str(video))["times_s"]) == 20
    assert sandbox._process is not None
    frozen = sandbox._process
    os.kill(frozen.pid, signal.SIGSTOP)
    sandbox._limits = Limits(timeout_s=0.2)
    with pytest.raises(InputError, match=r"longer than 0.2 s"):
        sandbox.scan(str(video))
    assert frozen.poll() == -signal.SIGKILL
    sandbox._limits = Limits()
    assert len(sandbox.scan(str(video))["times_s"]) == 20
    sandbox.close()


def test_a_decoder_stays_as_small_as_it_was(tmp_path):
    """Each converter of pictures once had threads of its own, and the address space of a long run was full of them."""
    sandbox, files = Sandbox(Limits()), [write(tmp_path / f"{n}.mp4", moving(20)) for n in range(6)]
    numbers = []
    for file in files:
        sandbox.scan(str(file))
        assert sandbox._process is not None
        numbers.append(len(list(Path(f"/proc/{sandbox._process.pid}/task").iterdir())))
    sandbox.close()
    assert max(numbers) <= 4


def test_a_decoder_that_dies_is_replaced(tmp_path):
    video = write(tmp_path / "a.mp4", moving(20))
    sandbox = Sandbox(Limits())
    sandbox.scan(str(video))
    assert sandbox._process is not None
    sandbox._process.kill()
    sandbox._process.wait()
    assert len(sandbox.scan(str(video))["times_s"]) == 20
    sandbox.close()


def test_memory_frames_and_picture_size_are_limited(tmp_path):
    big = write(tmp_path / "big.mp4", moving(3, 3840, 2160))
    starved = Sandbox(Limits(memory_bytes=300 * 2**20))
    with pytest.raises(InputError):
        starved.scan(str(big))
    starved.close()
    with pytest.raises(FilteredError, match="3840x2160"):
        Sandbox(Limits(max_pixels=1920 * 1080)).scan(str(big))
    long = write(tmp_path / "long.mp4", moving(60))
    scan = Sandbox(Limits(max_frames=30)).scan(str(long))
    assert len(scan["times_s"]) == 30 and scan["over_limit"]


def test_the_frames_are_those_nearest_in_time(tmp_path):
    """25 to 8 frames a second: sample i shows source frame round(i / 8 * 25)."""
    frames = moving(60)
    frames[:] = 0
    for i in range(60):
        frames[i] = i * 4
    write(tmp_path / "v.mp4", frames, fps=25, options={"crf": "0"})
    (source,) = list_sources((str(tmp_path / "v.mp4"),))
    (unit,) = Reader(SPEC, Limits())(source)
    shown = [round(float(f.mean()) / 4) for f in unit.clips[0].pixels]
    wanted = [i / 8 * 25 for i in range(17)]
    assert all(abs(s - w) <= 0.51 for s, w in zip(shown, wanted, strict=True)), (shown, wanted)


def test_long_files_are_read_from_a_seek_and_give_the_same_frames(tmp_path):
    """Later clips are found by seeking; their pixels equal those of a decode from the start."""
    spec = ClipSpec(width_px=64, height_px=64, num_frames=17, fps=8)
    frames = moving(400)
    write(tmp_path / "v.mp4", frames, options={"g": "24", "crf": "0"})
    (source,) = list_sources((str(tmp_path / "v.mp4"),))
    sandbox = Sandbox(Limits())
    scan = sandbox.scan(str(tmp_path / "v.mp4"))
    clips = [clip for unit in Reader(spec, Limits())(source) for clip in unit.clips]
    assert len(clips) == 23
    times = scan["times_s"][17 * 20 : 17 * 21]
    assert times[0] > 20
    request = {"clips": [times], "width_px": 64, "height_px": 64, "still_px": 0,
               "boxes_px": [(0, 0, 64, 64)]}  # fmt: skip
    request |= {name: scan[name] for name in ("zero_s", "invented_times", "rotation_deg", "sample_aspect")}
    (alone,), _ = sandbox.frames(str(tmp_path / "v.mp4"), request)
    assert (alone == clips[20].pixels).all()
    sandbox.close()


def test_inputs_that_could_not_be_told_apart_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "raw").mkdir(parents=True)
    with pytest.raises(ConfigError, match="same last name"):
        list_sources((str(tmp_path / "a" / "raw"), str(tmp_path / "b" / "raw")))
