"""Camera motion from pixels: what the background does from frame to frame.

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
    fit: float  # 0..1: share of tracked points that are background; low when objects fill the picture
    perspective: float  # how strongly the background's plane bends a frame (0: it only shifts, turns and scales)
    name: str  # "static", "pan left", "tilt up", "zoom in", "roll right", ...: the strongest of them

    @property
    def is_static(self) -> bool:
        return self.name == "static"


_FEWEST = 8  # points of background
_AGREE_PX = 0.5  # a homography bends: with more room it would also explain things that move by a pixel or two
# Below these a move cannot be told from a still camera's jitter (a frame).
_SMALLEST = {"pan": 0.004, "tilt": 0.004, "zoom": 0.004, "roll": 0.006}


def measure(frames: Frames) -> CameraMotion:
    """From the background's points from frame to frame; frames without enough corners are left out."""
    grey = np.clip(shrink(frames), 0, 255).astype(np.uint8)
    height, width = grey.shape[1:3]
    moves, fits, bends = [], [], []
    for before, after in pairwise(grey):
        earlier, later, fit, bend = _background(before, after)
        fits.append(fit)
        if len(earlier) < _FEWEST:
            continue
        matrix = _similarity(earlier, later)
        middle = np.array([width / 2, height / 2, 1.0])
        shift = matrix @ middle - middle[:2]
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        angle = float(np.arctan2(matrix[1, 0], matrix[0, 0]))
        moves.append((-shift[0] / width, shift[1] / height, np.log(max(scale, 1e-3)), -angle))
        bends.append(bend)
    pan, tilt, zoom, roll = (float(v) for v in np.median(moves, axis=0)) if moves else (0.0, 0.0, 0.0, 0.0)
    return CameraMotion(
        pan=pan,
        tilt=tilt,
        zoom=zoom,
        roll=roll,
        fit=float(np.mean(fits)) if fits else 0.0,
        perspective=float(np.median(bends)) if bends else 0.0,
        name=name_of(pan, tilt, zoom, roll),
    )


def _background(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Points of the background in both frames (n 2), their share of all points, and how strongly the plane bends.

    Corners tracked by Lucas-Kanade. The background is what one homography explains (RANSAC): a plane seen from
    anywhere, or everything seen by a camera that only turns. What moves on its own does not fit, and drops out.
    """
    none = np.zeros((0, 2), np.float32)
    points = cv2.goodFeaturesToTrack(before, 100, 0.01, 5)
    if points is None or len(points) < _FEWEST:
        return none, none, 0.0, 0.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None)  # type: ignore[call-overload]
    kept = found.ravel() == 1
    if kept.sum() < _FEWEST:
        return none, none, 0.0, 0.0
    earlier, later = points[kept].reshape(-1, 2), moved[kept].reshape(-1, 2)
    cv2.setRNGSeed(0)  # RANSAC draws at random; the same clip gives the same numbers
    homography, agree = cv2.findHomography(earlier, later, cv2.RANSAC, _AGREE_PX)
    if homography is None:
        return none, none, 0.0, 0.0
    inside = agree.ravel() == 1
    height, width = before.shape
    bend = float(np.hypot(homography[2, 0] * width, homography[2, 1] * height))
    return earlier[inside], later[inside], float(inside.mean()), bend


def _similarity(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """2 3: shift, turn and scale that take points to points, least squares (Umeyama 1991, without reflection).

    The pan at the middle is read from this and not from the homography, whose eight numbers extrapolate wildly where
    the background is seen in a corner only.
    """
    a, b = earlier.mean(axis=0), later.mean(axis=0)
    x, y = (earlier - a).astype(float), (later - b).astype(float)
    power = max(1e-9, float((x**2).sum()))
    cos = float((x * y).sum()) / power
    sin = float((x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]).sum()) / power
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, b - turn @ a])


def name_of(pan: float, tilt: float, zoom: float, roll: float) -> str:
    """The strongest of the moves by name ("zoom in"), or "static"."""
    values = {"pan": pan, "tilt": tilt, "zoom": zoom, "roll": roll}
    strength = {name: abs(value) / _SMALLEST[name] for name, value in values.items()}
    strongest = max(strength, key=lambda name: strength[name])
    if strength[strongest] < 1:
        return "static"
    words = {"pan": ("right", "left"), "tilt": ("up", "down"), "zoom": ("in", "out"), "roll": ("right", "left")}
    return f"{strongest} {words[strongest][0 if values[strongest] > 0 else 1]}"
