"""Where a tracked thing goes over the floor and in the air, in metres, with the camera's own motion taken out.

The picture of a thing moves because it moves and because the camera does. What the floor under it does in the same
step (`kling.bench.background`) is the camera's part. Metres come from what is read: a large ball is 0.56 m wide.
Depth is weak in one small picture: it is taken from the change of a thing's apparent size, smoothed over the clip.
"""

from dataclasses import dataclass

import numpy as np

from kling.bench.background import BackgroundMotion
from kling.bench.tracks import Track
from kling.prompt import knowledge

LOOK_DOWN = float(np.sin(np.deg2rad(16.0)))  # of the playground's cameras (12 to 20 degrees), and ours
_FOV_Y_DEG = 40.0
# Width of the square that covers as many pixels as the shape does, in half sizes; typical over attitudes.
_SQUARE = {"ball": 1.77, "cube": 2.05, "cylinder": 1.95, "capsule": 2.0, "cone": 1.45}


@dataclass(frozen=True, kw_only=True)
class Path:
    """n seen frames of one track; metres from where it was first seen."""

    frames: np.ndarray  # n
    right_m: np.ndarray  # n
    rise_m: np.ndarray  # n: along the picture's vertical: height, and a little of the way into the depth
    away_m: np.ndarray  # n: away from the camera, from the change of apparent size; smooth, rough
    metres_per_px: np.ndarray  # n
    width_m: float  # a typical width of the thing

    @property
    def up_m(self) -> np.ndarray:
        """Height alone, as far as the depth is known."""
        return (self.rise_m - self.away_m * LOOK_DOWN) / np.sqrt(1 - LOOK_DOWN**2)


def measure(track: Track, background: BackgroundMotion, *, height_px: int, width_px: int) -> Path:
    """The way of one thing."""
    frames, places, areas = track.frames, track.places_px, track.areas_px
    bottoms = np.array([blob.box_px[3] for blob in track.blobs])
    # What is in the air is compared with the floor below it: near where it comes down.
    base = np.maximum(bottoms, np.quantile(bottoms, 0.8))
    shift, growth = np.zeros((len(frames), 2)), np.zeros(len(frames))
    for n in range(1, len(frames)):
        there = np.array([places[n - 1, 0], base[n - 1]])
        start, log_scale = there.copy(), 0.0
        for step in range(frames[n - 1], frames[n]):
            x, y = (there[0] - width_px / 2) / height_px, (there[1] - height_px / 2) / height_px
            there = there + background.at(step, x, y) * height_px
            log_scale += _scale(background.steps[step], x, y)
        shift[n] = places[n] - places[n - 1] - (there - start)
        growth[n] = log_scale
    across = _across_m(track)
    seen_px = _smooth(np.sqrt(areas), areas)
    metres_per_px = across / np.maximum(seen_px, 1.0)
    moved = np.cumsum(shift * metres_per_px[:, None], axis=0)
    focal_px = height_px / (2 * np.tan(np.deg2rad(_FOV_Y_DEG) / 2))
    depth_m = metres_per_px[0] * focal_px
    nearer = np.log(seen_px / seen_px[0]) - np.cumsum(growth)
    return Path(
        frames=frames,
        right_m=moved[:, 0],
        rise_m=-moved[:, 1],
        away_m=-depth_m * _smooth_line(frames, nearer, areas),
        metres_per_px=metres_per_px,
        width_m=across,
    )


def _across_m(track: Track) -> float:
    a, _, c = knowledge.half_size_m(track.shape, track.size or None)
    return float(_SQUARE[track.shape] * np.sqrt(a * c))


def _scale(motion: np.ndarray, x: float, y: float) -> float:
    """By how much (log) the background grows at a place during a step: half the divergence of its motion."""
    du_dx = motion[1] + 2 * motion[6] * x + motion[7] * y
    dv_dy = motion[5] + motion[6] * x + 2 * motion[7] * y
    return float((du_dx + dv_dy) / 2)


def _smooth(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A thing's apparent size over time: partly hidden frames look smaller, so low ones count little."""
    if len(values) < 4:
        return np.full_like(values, np.median(values))
    time = np.linspace(-1, 1, len(values))
    basis = np.stack([np.ones_like(time), time, time**2], axis=1)
    weight = np.sqrt(weights)
    log = np.log(values)
    fitted = log
    for _ in range(4):
        normal = (basis * weight[:, None]).T @ basis + np.diag([0.0, 0.02, 0.1]) * weight.sum()
        fitted = basis @ np.linalg.solve(normal, (basis * weight[:, None]).T @ log)
        rest = log - fitted
        weight = np.sqrt(weights) * np.where(rest < 0, 1 / (1 + (rest / 0.1) ** 2), 1 / (1 + (rest / 0.25) ** 2))
    return np.exp(fitted)


def _smooth_line(frames: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A quadratic through the values, from 0 at the first frame."""
    if len(frames) < 4:
        return values - values[0]
    fit = np.polyval(np.polyfit(frames, values, 2, w=np.sqrt(weights)), frames)
    return fit - fit[0]
