"""Point tracks: do the things that are seen stay themselves from frame to frame?

Corners are followed with pyramidal Lucas-Kanade (Bouguet 2001), forwards and backwards; a point that does not come back
to where it started, or whose surroundings no longer look the same, is lost. Points that leave the picture are not.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kling.quality.motion import shrink
from kling.shapes import Frames

_MAX_POINTS = 120
_REFRESH = 6  # frames after which new points are chosen: what enters the picture is followed too
_MAX_RETURN_PX = 0.7  # largest forward-backward error
_MIN_LIKENESS = 0.7  # smallest correlation of a point's surroundings with those it started with
_PATCH = 9


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """One clip."""

    score: float  # 0..1: the tracking part of the total: share of points that survive a step, to the power of 4
    survival_frames: tuple[float, ...]  # share of living points that survive each step (frame i to i+1)
    num_points: int  # points chosen in all


def measure(frames: Frames) -> Tracking:
    """A picture without any corner has nothing to lose: its score is 1, and ``num_points`` 0 says why."""
    grey = np.clip(shrink(frames), 0, 255).astype(np.uint8)
    points = template = np.zeros((0, 2), np.float32)
    survival: list[float] = []
    num_points, chosen, age = 0, 0, _REFRESH
    for i in range(len(grey) - 1):
        if age >= _REFRESH or len(points) < chosen / 2:  # new things are followed too, also after a cut
            points, template = _choose(grey[i])
            chosen, age = len(points), 0
            num_points += chosen
        age += 1
        if not len(points):
            survival.append(1.0)
            continue
        moved, kept, inside = _step(grey[i], grey[i + 1], points, template)
        survival.append(float((kept & inside).sum() / inside.sum()) if inside.any() else 1.0)
        points, template = moved[kept & inside], template[kept & inside]
    return Tracking(
        score=float(np.mean(np.power(survival, 4))) if survival else 1.0,
        survival_frames=tuple(survival),
        num_points=num_points,
    )


def _choose(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """n 2 points worth following, and their surroundings."""
    points = cv2.goodFeaturesToTrack(grey, _MAX_POINTS, 0.01, 4)
    points = np.zeros((0, 2), np.float32) if points is None else points.reshape(-1, 2)
    return points, _patches(grey, points)


def _step(
    before: np.ndarray, after: np.ndarray, points: np.ndarray, template: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow points over one step: new places, which are kept, and which are still inside the picture."""
    options = {"winSize": (11, 11), "maxLevel": 3}
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, **options)  # type: ignore[call-overload]
    back, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, None, **options)  # type: ignore[call-overload]
    height, width = after.shape
    edge = _PATCH // 2
    inside = (
        (moved[:, 0] >= edge) & (moved[:, 0] < width - edge) & (moved[:, 1] >= edge) & (moved[:, 1] < height - edge)
    )
    kept = (found.ravel() == 1) & (returned.ravel() == 1)
    kept &= np.linalg.norm(back - points, axis=1) < _MAX_RETURN_PX
    kept &= _likeness(_patches(after, moved), template) > _MIN_LIKENESS
    return moved, kept, inside


def _patches(grey: np.ndarray, points: np.ndarray) -> np.ndarray:
    """n patch patch float32 around each point, in one look-up for all."""
    if not len(points):
        return np.zeros((0, _PATCH, _PATCH), np.float32)
    away = np.arange(_PATCH, dtype=np.float32) - _PATCH // 2
    x = np.broadcast_to((points[:, 0, None] + away)[:, None, :], (len(points), _PATCH, _PATCH))
    y = np.broadcast_to((points[:, 1, None] + away)[:, :, None], (len(points), _PATCH, _PATCH))
    places = [np.ascontiguousarray(part, np.float32).reshape(-1, _PATCH) for part in (x, y)]
    found = cv2.remap(grey, *places, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found.astype(np.float32).reshape(-1, _PATCH, _PATCH)


def _likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Normalised correlation of patches, -1..1."""
    a = a - a.mean(axis=(1, 2), keepdims=True)
    b = b - b.mean(axis=(1, 2), keepdims=True)
    return (a * b).sum(axis=(1, 2)) / (np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2))) + 1e-3)
