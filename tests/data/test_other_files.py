"""Other encodes and other damage than in raw_files.py: what each becomes, and why. Read without Ray."""

import os
from pathlib import Path

import numpy as np
import pytest

from data.stages.s1_list import list_sources
from data.stages.s2_read import Reader
from data.stages.sandbox import Limits
from data.work import Options, Unit
from kling.presets import get_preset
from tests.data.raw_files import moving, write

SPEC = get_preset("tiny").clip


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(SPEC, Limits(), Options(keep_original=True))


def read(reader: Reader, path: Path) -> list[Unit]:
    (source,) = list_sources((str(path),))
    return list(reader(source))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("b.mkv", {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}}),
        ("c.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("d.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
        ("e.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        ("f.mov", {"options": {"bf": "2"}}),  # its delay is in an edit list
        ("g.mkv", {"codec": "libsvtav1", "options": {"svtav1-params": "lp=1"}}),
    ],
)
def test_every_encode_is_read_and_cut(reader, tmp_path, name, how):
    (unit,) = read(reader, write(tmp_path / name, moving(20), **how))
    assert unit.outcome is not None and (unit.outcome.state, unit.outcome.warnings) == ("done", ())
    (clip,) = unit.clips
    wanted = moving(17).astype(float)
    if name != "e.mkv":
        assert np.abs(clip.pixels - wanted).mean() < 8, "the frames are those that were encoded"
    assert clip.original is not None and len(clip.original) > 500
    (again,) = read(reader, _save(tmp_path / "original.mkv", clip.original))
    assert (again.clips[0].pixels == clip.pixels).all(), "its own packets decode to the same clip"


def _save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_codec_that_matroska_cannot_hold_is_told(reader, tmp_path):
    (unit,) = read(reader, write(tmp_path / "a.gif", moving(20), codec="gif", pix_fmt="rgb8"))
    assert unit.outcome is not None and unit.outcome.state == "done" and unit.clips[0].original is None
    assert "originals could not be kept" in unit.outcome.warnings[0] and "gif" in unit.outcome.warnings[0]


def test_a_hole_in_a_transport_stream_parts_the_clips(reader, tmp_path):
    """A fifth of the bytes in the middle is gone: no clip shows both sides, the ledger says that there is a gap."""
    path = write(tmp_path / "cut.ts", moving(160), options={"g": "8", "crf": "5"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + data[len(data) // 3 + len(data) // 5 :])
    (unit,) = read(reader, path)
    assert unit.outcome is not None and unit.outcome.state == "done", unit.outcome
    assert any("gaps in time" in warning for warning in unit.outcome.warnings), unit.outcome.warnings
    assert 5 <= len(unit.clips) <= 8
    for clip in unit.clips:
        steps = np.abs(np.diff(clip.pixels.astype(float), axis=0)).mean(axis=(1, 2, 3))
        assert (steps > 0).all(), "no frame is repeated to fill a hole"


def test_interlaced_pictures_are_not_combed(reader, tmp_path):
    """Every second line shows the next moment; the clip shows one moment at a time."""
    progressive = moving(41, 64, 64)
    woven = progressive[:-1:2].copy()
    woven[:, 1::2] = progressive[1::2, 1::2]
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1", "crf": "1"}
    (unit,) = read(reader, write(tmp_path / "i.mkv", woven, options=options))
    assert unit.outcome is not None and "interlaced" in unit.outcome.warnings[0]
    frame = unit.clips[0].pixels[5].astype(float)
    combed = np.abs(frame[1:-1] - (frame[:-2] + frame[2:]) / 2).mean()
    assert combed < 0.5 * np.abs(woven[5][1:-1] - (woven[5][:-2].astype(float) + woven[5][2:]) / 2).mean()


def test_a_name_that_is_no_text_is_read_and_told(reader, tmp_path):
    """Names from other systems may be bytes that are not UTF-8; Linux allows every byte."""
    strange = tmp_path / os.fsdecode(b"caf\xe9 \xff.mp4")
    write(tmp_path / "a.mp4", moving(20)).rename(strange)
    (source,) = list_sources((str(tmp_path),))
    assert source.name.endswith("/caf\\xe9 \\xff.mp4") and source.key
    (unit,) = reader(source)
    assert unit.outcome is not None and (unit.outcome.state, len(unit.clips)) == ("done", 1)


def test_what_is_no_file_is_set_aside_and_never_waited_for(reader, tmp_path):
    """A pipe nobody writes to, an endless device, a folder called like a video."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "endless.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    write(tmp_path / "folder.mp4" / "inside.mp4", moving(20))
    told = {
        source.name.partition("/")[2]: list(reader(source))[-1].outcome for source in list_sources((str(tmp_path),))
    }
    assert {name: outcome.state for name, outcome in told.items()} == {
        "pipe.mp4": "filtered", "endless.mp4": "filtered", "folder.mp4/inside.mp4": "done",
    }  # fmt: skip
    assert told["pipe.mp4"].reason == told["endless.mp4"].reason == "not a regular file"


def test_pictures_that_damage_made_are_in_no_clip(reader, tmp_path):
    """A decoder paints over what it lost, in grey or with the frame before: it would score well, being so smooth."""
    path = write(tmp_path / "a.mkv", moving(120), options={"g": "10", "crf": "5"})
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(3)
    for at in rng.integers(int(0.4 * len(data)), int(0.6 * len(data)), 12):
        data[at] ^= 0x5A
    path.write_bytes(bytes(data))
    (unit,) = read(reader, path)
    assert unit.outcome is not None and unit.outcome.state == "done", unit.outcome
    assert any("frames show the damage; no clip has one" in warning for warning in unit.outcome.warnings)
    assert 2 <= len(unit.clips) <= 5
    for clip in unit.clips:
        first = round(clip.start_s * 8)
        assert np.abs(clip.pixels - moving(120)[first : first + 17].astype(float)).mean() < 3, first
