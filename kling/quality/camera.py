"""Camera motion from pixels: what a single similarity transform of the picture explains, from frame to frame.

A pan to the right moves the picture to the left. Pans and sideways dollies look alike in one plane, and so do zooms and
dollies in and out: they are not told apart here.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from kling.quality.motion import shrink
from kling.shapes import Frames


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """Mean over the frames; signs as the camera moves."""

    pan: float  # picture widths a frame; positive to the right
    tilt: float  # picture heights a frame; positive upwards
    zoom: float  # log of the scale a frame; positive inwards
    roll: float  # radians a frame; positive clockwise as the camera turns
    fit: float  # 0..1: share of tracked points that agree with the transform; low when objects fill the picture
    name: str  # "static", "pan left", "tilt up", "zoom in", "roll right", ...: the strongest of them

    @property
    def is_static(self) -> bool:
        return self.name == "static"


# Below these a move cannot be told from a still camera's jitter (a frame).
_SMALLEST = {"pan": 0.004, "tilt": 0.004, "zoom": 0.004, "roll": 0.006}


def measure(frames: Frames) -> CameraMotion:
    """RANSAC over corners tracked by Lucas-Kanade; frames without enough corners are left out."""
    grey = np.clip(shrink(frames), 0, 255).astype(np.uint8)
    height, width = grey.shape[1:3]
    moves, fits = [], []
    for before, after in pairwise(grey):
        matrix, fit = _transform(before, after)
        fits.append(fit)
        if matrix is None:
            continue
        middle = np.array([width / 2, height / 2, 1.0])
        shift = matrix @ middle - middle[:2]
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        angle = float(np.arctan2(matrix[1, 0], matrix[0, 0]))
        moves.append((-shift[0] / width, shift[1] / height, np.log(max(scale, 1e-3)), -angle))
    pan, tilt, zoom, roll = (float(v) for v in np.median(moves, axis=0)) if moves else (0.0, 0.0, 0.0, 0.0)
    values = {"pan": pan, "tilt": tilt, "zoom": zoom, "roll": roll}
    return CameraMotion(**values, fit=float(np.mean(fits)) if fits else 0.0, name=name_of(pan, tilt, zoom, roll))


def _transform(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray | None, float]:
    """2x3 similarity that takes the earlier frame's points to the later one's, and the share that agrees."""
    points = cv2.goodFeaturesToTrack(before, 100, 0.01, 5)
    if points is None or len(points) < 8:
        return None, 0.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None)  # type: ignore[call-overload]
    kept = found.ravel() == 1
    if kept.sum() < 8:
        return None, 0.0
    cv2.setRNGSeed(0)  # RANSAC draws at random; the same clip gives the same numbers
    matrix, agree = cv2.estimateAffinePartial2D(points[kept], moved[kept], ransacReprojThreshold=1.0)
    return (None, 0.0) if matrix is None else (matrix, float(agree.mean()))


def name_of(pan: float, tilt: float, zoom: float, roll: float) -> str:
    """The strongest of the moves by name ("zoom in"), or "static"."""
    values = {"pan": pan, "tilt": tilt, "zoom": zoom, "roll": roll}
    strength = {name: abs(value) / _SMALLEST[name] for name, value in values.items()}
    strongest = max(strength, key=lambda name: strength[name])
    if strength[strongest] < 1:
        return "static"
    words = {"pan": ("right", "left"), "tilt": ("up", "down"), "zoom": ("in", "out"), "roll": ("right", "left")}
    return f"{strongest} {words[strongest][0 if values[strongest] > 0 else 1]}"
