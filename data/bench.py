"""`python -m data bench`: scoring raced against a straightforward OpenCV script of the same scores, A B A B.

The script calls one measure after the other, each from the frames alone, and pictures one by one, as written first.
Both give the same numbers (checked before the race). Both use one thread; times are CPU times of this process, so that
what else runs on the machine counts little.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import tyro
from rich.console import Console

from data.stages.s4_score import embedders, score_clip
from data.work import Clip
from kling import storage
from kling.errors import InputError
from kling.media.video import read_frames
from kling.quality import camera, motion, stillness, temporal, total
from kling.shapes import Frames

_SAME = 1e-4  # relative difference of two ways to sum


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Race the scoring of clips against a plain script."""

    clips: tyro.conf.Positional[str]
    """Folder of clips (mp4)."""
    num_clips: int = 16
    rounds: int = 4
    """Each round runs both, one after the other."""


def command(arguments: list[str]) -> int:
    """`python -m data bench`."""
    options = tyro.cli(Bench, args=arguments, prog="python -m data bench")
    files = [uri for uri in storage.list_files(options.clips) if uri.endswith(".mp4")][: options.num_clips]
    if not files:
        raise InputError("no clips to score", where=options.clips, fix="Give a folder of mp4 files")
    clips = [read_frames(storage.read_bytes(uri))[0] for uri in files]
    cv2.setNumThreads(1)
    for frames in clips:
        _check_same(ours(frames), plain(frames))
    ratios, table = [], []
    for _ in range(options.rounds):
        a, b = _clips_a_second(ours, clips), _clips_a_second(plain, clips)
        ratios.append(a / b)
        table.append(f"  ours {a:6.1f}   plain {b:6.1f}   ratio {a / b:.2f}")
    shape = "x".join(map(str, clips[0].shape[:3]))
    Console().print(f"{len(clips)} clips of {shape}; clips a CPU second", *table, sep="\n", highlight=False)
    middle = float(np.median(ratios))
    Console().print(f"ratio {middle:.2f} (from {min(ratios):.2f} to {max(ratios):.2f})", highlight=False)
    return 0


def ours(frames: Frames) -> dict[str, float]:
    """What curation stores."""
    clip = Clip(clip_id="", index=0, start_s=0, end_s=0, split="", pixels=frames)
    score_clip(clip)
    return clip.scores


def plain(frames: Frames) -> dict[str, float]:
    """The same scores, each from the frames alone."""
    luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in frames]
    scores = {
        "sharpness": float(np.mean([np.log10(1 + cv2.Laplacian(g, cv2.CV_32F).var()) for g in luma])),
        "noise": float(np.mean([_noise(g) for g in luma])),
        "blockiness": float(np.mean([_blockiness(g) for g in luma])),
        "brightness": float(np.mean([g.mean() for g in luma]) / 255),
        "contrast": float(np.mean([g.std() for g in luma]) / 255),
        "clipped": float(np.mean([((g <= 2) | (g >= 253)).mean() for g in luma])),
        "colorfulness": float(np.mean([_colorfulness(frame) for frame in frames])),
        "detail": float(np.mean([_detail(g) for g in luma])),
    }
    moved, still, times = motion.measure(frames), stillness.measure(frames), temporal.measure(frames)
    seen, whole = camera.measure(frames), total.measure(frames, *embedders())
    for name in ("speed", "moving_share", "warp_error"):
        scores[name] = getattr(moved, name)
    for name in ("pan", "tilt", "zoom", "roll", "fit", "perspective"):
        scores[f"camera_{name}"] = getattr(seen, name)
    for name in ("total", "motion", "tracking", "semantic", "fidelity"):
        scores[name] = getattr(whole, name)
    return scores | {
        "frozen_frames": float(len(still.frozen)),
        "still_share": still.still_share,
        "jumps": float(len(times.critical)),
        "flicker": times.flicker,
        "steadiness": times.mean,
        "trend": times.trend.slope,
        "drift": times.drift.change,
    }


def _noise(grey: np.ndarray) -> float:
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    grain = float(np.median(np.abs(cv2.filter2D(grey, cv2.CV_32F, mask))[1:-1, 1:-1]) / (6 * 0.6745))
    around = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    apart = np.maximum(grey - cv2.dilate(grey, around), cv2.erode(grey, around) - grey)
    return float(np.sqrt(grain**2 + max(0.0, float((apart[apart > 24] ** 2).sum() / grey.size) - 4)))


def _blockiness(grey: np.ndarray) -> float:
    ratios = []
    for picture in (grey, grey.T):
        steps = np.abs(np.diff(picture, axis=1)).mean(axis=0)
        grid = (np.arange(len(steps)) + 1) % 8 == 0
        ratios.append((steps[grid].mean() + 0.5) / (steps[~grid].mean() + 0.5))
    return float(np.mean(ratios))


def _colorfulness(frame: np.ndarray) -> float:
    red, green, blue = cv2.split(frame.astype(np.float32))
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def _detail(grey: np.ndarray) -> float:
    smooth, kept = cv2.GaussianBlur(grey, (0, 0), 0.7), []
    for axis, size in ((0, (1, 7)), (1, (7, 1))):
        before = np.abs(np.diff(smooth, axis=axis))
        after = np.abs(np.diff(cv2.blur(smooth, size), axis=axis))
        kept.append(np.maximum(0, before - after).sum() / max(1e-3, before.sum()))
    return float(min(kept)) if grey.std() > 1 else 0.0


def _clips_a_second(score: Callable[[Frames], dict[str, float]], clips: list[Frames]) -> float:
    started = time.process_time()
    for frames in clips:
        score(frames)
    return len(clips) / (time.process_time() - started)


def _check_same(a: dict[str, float], b: dict[str, float]) -> None:
    for name, value in b.items():
        if abs(a[name] - value) > _SAME * max(1.0, abs(value)):
            raise InputError(f"the two disagree on {name}: {a[name]} and {value}", where="data bench")
