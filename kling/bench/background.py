"""How the background moves: the eight numbers that the motion of a plane has in a picture, from its pixels.

A camera that moves before a floor moves the floor's picture by (Longuet-Higgins and Prazdny 1980)

    u = a0 + a1 x + a2 y + a6 x^2 + a7 x y
    v = a3 + a4 x + a5 y + a6 x y + a7 y^2

The eight are fitted to the pixels themselves (Gauss-Newton on brightness, coarse to fine, weights that forgive what
does not fit), with the things that were found left out. First one motion for the whole clip, since cameras move
steadily and snow shows little in two frames; then each step, held near it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kling.quality.picture import luma
from kling.shapes import Frames

_LEVELS = ((4, 2.5), (2, 1.6), (1, 1.0))  # shrink by, blur in pixels after that
_ROUNDS = 5
_GROW_PX = 2  # around things: their edges and shadows' beginnings
_FORGIVE = 2.0  # grey levels of error at which a pixel's weight has fallen to a half


@dataclass(frozen=True, kw_only=True)
class BackgroundMotion:
    """Coordinates: x right, y down, both in picture heights from the middle. Motion in picture heights a frame."""

    whole: np.ndarray  # 8: the steady motion that explains the whole clip best
    steps: np.ndarray  # f-1 8: from each frame to the next
    error: float  # mean absolute brightness error that is left, grey levels

    def at(self, step: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """... 2: where the background at x, y goes during a step."""
        return basis(np.asarray(x, float), np.asarray(y, float)) @ self.steps[step]


def measure(pictures: Frames, things: np.ndarray) -> BackgroundMotion:
    """Fit.

    Args:
        pictures: f h w 3.
        things: f h w bool: pixels that are not background.
    """
    if len(pictures) < 2:
        return BackgroundMotion(whole=np.zeros(8), steps=np.zeros((0, 8)), error=0.0)
    levels, whole = _steady(pictures, things)
    steps = np.repeat(whole, len(pictures) - 1, axis=0)
    for level in levels[1:]:
        for _ in range(_ROUNDS):
            steps = steps + level.update(steps, together=False, home=whole)
    return BackgroundMotion(whole=whole[0], steps=steps, error=levels[-1].error(steps))


def steady(pictures: Frames, things: np.ndarray) -> np.ndarray:
    """8: only the motion of the whole clip; arguments as of `measure`."""
    return _steady(pictures, things)[1][0] if len(pictures) > 1 else np.zeros(8)


def _steady(pictures: Frames, things: np.ndarray) -> tuple[list["_Level"], np.ndarray]:
    grey = luma(pictures)
    kernel = np.ones((2 * _GROW_PX + 1,) * 2, np.uint8)
    free = 1.0 - np.stack([cv2.dilate(mask.astype(np.uint8), kernel) for mask in things]).astype(np.float32)
    whole = np.zeros((1, 8))
    levels = [_Level(grey, free, shrink, blur) for shrink, blur in _LEVELS]
    for level in levels:
        for _ in range(_ROUNDS):
            whole = whole + level.update(np.repeat(whole, len(grey) - 1, axis=0), together=True)
    return levels, whole


def basis(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """... 2 8."""
    zero, one = np.zeros_like(x), np.ones_like(x)
    u = np.stack([one, x, y, zero, zero, zero, x * x, x * y], axis=-1)
    v = np.stack([zero, zero, zero, one, x, y, x * y, y * y], axis=-1)
    return np.stack([u, v], axis=-2)


class _Level:
    """One size of the pictures."""

    def __init__(self, grey: np.ndarray, free: np.ndarray, shrink: int, blur_px: float):
        height, width = grey.shape[1] // shrink, grey.shape[2] // shrink
        small = [cv2.resize(g, (width, height), interpolation=cv2.INTER_AREA) for g in grey]
        self.grey = np.stack([cv2.GaussianBlur(g, (0, 0), blur_px) for g in small])
        self.free = np.stack([cv2.resize(m, (width, height), interpolation=cv2.INTER_AREA) > 0.8 for m in free])
        self.height = height
        y, x = np.mgrid[:height, :width].astype(np.float32)
        self.x, self.y = x, y
        self.basis = basis((x + 0.5 - width / 2) / height, (y + 0.5 - height / 2) / height) * height  # h w 2 8
        self.slope = np.stack([np.gradient(self.grey, axis=2), np.gradient(self.grey, axis=1)], axis=-1)  # f h w 2

    def _compare(self, motion: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error (n), its derivative by the eight (n 8) and weight (n) of every background pixel of step i."""
        flow = (self.basis @ motion).astype(np.float32)
        map_x, map_y = self.x + flow[..., 0], self.y + flow[..., 1]
        height, width = self.x.shape
        inside = (map_x >= 0) & (map_x <= width - 1) & (map_y >= 0) & (map_y <= height - 1)
        later = cv2.remap(self.grey[i + 1], map_x, map_y, cv2.INTER_LINEAR)
        free = cv2.remap(self.free[i + 1].astype(np.float32), map_x, map_y, cv2.INTER_LINEAR)
        slope = cv2.remap(self.slope[i + 1], map_x, map_y, cv2.INTER_LINEAR)
        use = inside & self.free[i] & (free > 0.99)
        error = (later - self.grey[i])[use]
        slope = (slope[use] + self.slope[i][use]) / 2
        derivative = np.einsum("nc,ncp->np", slope, self.basis[use])
        return error, derivative, 1 / (1 + (error / _FORGIVE) ** 2)

    def update(self, motion: np.ndarray, *, together: bool, home: np.ndarray | None = None) -> np.ndarray:
        """Gauss-Newton steps: 1 8 for all together, else f-1 8, each drawn towards ``home``."""
        normal, right, pixels = [], [], []
        for i in range(len(motion)):
            error, derivative, weight = self._compare(motion[i], i)
            normal.append((derivative * weight[:, None]).T @ derivative)
            right.append(-(derivative * weight[:, None]).T @ error)
            pixels.append(len(error))
        normal, right = np.array(normal), np.array(right)
        # A prior that says little: motions are some hundredths of the picture a frame, and bends much less.
        spread = np.array([0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.03, 0.03])
        if together:
            prior = np.diag(1.0 / spread**2) * 2
            return np.linalg.solve(normal.sum(0) + prior, right.sum(0) - prior @ motion[0])[None]
        prior = np.diag(1.0 / (0.12 * spread) ** 2) * 4
        pull = np.einsum("pq,nq->np", prior, (home if home is not None else motion) - motion)
        return np.linalg.solve(normal + prior, (right + pull)[..., None])[..., 0]

    def error(self, motion: np.ndarray) -> float:
        errors = [np.abs(self._compare(motion[i], i)[0]).mean() for i in range(len(motion))]
        return float(np.nanmean(errors)) if errors else 0.0
