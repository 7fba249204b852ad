"""Diagnostics: what is wrong with a clip, how badly, in which frames, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kling.quality import motion, picture, stillness, temporal, total
from kling.shapes import Frames

Kind = Literal["flicker", "blur", "distortion", "freeze", "motion", "inconsistency"]

_FIXES: dict[Kind, str] = {
    "flicker": "Use more sampling steps or a lower guidance scale; a temporal filter removes what is left",
    "blur": "Use more steps or a higher resolution; shorten fast camera moves",
    "distortion": "Encode with a lower CRF; if the frames themselves are grainy or blocky, use more steps",
    "freeze": "Ask for more motion in the prompt; check that no frame was repeated when the rate was changed",
    "motion": "Slow the action or raise the frame rate; give the motion an explicit path",
    "inconsistency": "Shorten the clip or continue it from its last frame; pin the objects with a plan",
}


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One fault. ``severity`` is 0 (just seen) to 1 (spoils the clip)."""

    kind: Kind
    severity: float
    frames: tuple[int, ...]  # where it is seen; all of them for a fault of the whole clip
    fix: str


def diagnose(frames: Frames) -> tuple[Issue, ...]:
    """Every fault found, the worst first. Thresholds are those of the planted-fault study in docs/benchmarks."""
    flow = motion.flows(motion.shrink(frames))
    times = temporal.measure(frames, flow)
    found = [
        _flicker(times),
        _blur(frames),
        _distortion(frames),
        _freeze(frames),
        _motion(frames, flow, times),
        _inconsistency(frames, times),
    ]
    return tuple(sorted((issue for issue in found if issue), key=lambda issue: -issue.severity))


def _issue(kind: Kind, severity: float, frames: list[int]) -> Issue | None:
    if not frames:
        return None
    return Issue(kind=kind, severity=float(np.clip(severity, 0.05, 1)), frames=tuple(frames), fix=_FIXES[kind])


def _flicker(times: temporal.Temporal) -> Issue | None:
    """Brightness that goes to and fro for several frames; a single swing is a flash, and counts as a critical point."""
    where = [i + 1 for i, value in enumerate(times.flicker_frames) if value > 1.5]
    return _issue("flicker", times.flicker / 12, where) if len(where) >= 3 else None


def _blur(frames: Frames) -> Issue | None:
    crisp = np.array([total.detail(frame[None]) for frame in frames])
    where = [i for i, value in enumerate(crisp) if value < 0.33]
    return _issue("blur", (0.4 - float(np.mean(crisp[where]))) / 0.3 if where else 0, where)


def _distortion(frames: Frames) -> Issue | None:
    grey = picture.luma(frames)
    grain = np.array([picture.noise(one) for one in grey])
    blocks = np.array([picture.blockiness(one) for one in grey])
    where = [i for i in range(len(frames)) if grain[i] > 9 or blocks[i] > 1.6]
    severity = max(float(grain.mean()) / 30, (float(blocks.mean()) - 1.2) / 2)
    return _issue("distortion", severity, where)


def _freeze(frames: Frames) -> Issue | None:
    frozen = stillness.measure(frames).frozen
    return _issue("freeze", 3 * len(frozen) / len(frames), list(frozen))


def _motion(frames: Frames, flow: np.ndarray, times: temporal.Temporal) -> Issue | None:
    """Steps whose motion neither goes on nor explains the next frame; jumps are told as inconsistency instead."""
    steps = motion.measure(frames, flow).consistency_frames
    near_jump = {i + offset for i in times.critical for offset in (-1, 0, 1)}
    where = [i + 1 for i, value in enumerate(steps) if value < 0.15 and i + 1 not in near_jump]
    return _issue("motion", 2 * len(where) / max(1, len(steps)), where)


def _inconsistency(frames: Frames, times: temporal.Temporal) -> Issue | None:
    """Jumps, and a drift of the look of more than 6 grey levels over the clip."""
    if times.critical:
        return _issue("inconsistency", 0.3 + len(times.critical) / 6, list(times.critical))
    if times.drift.significant and times.drift.change > 6:
        return _issue("inconsistency", times.drift.change / 60, list(range(len(frames))))
    return None
