"""Temporal consistency: similarity of neighbouring frames, its trend with significance, critical points, drift.

Similarity of two neighbouring frames is measured on small blurred colour pictures, so that noise does not count. A
critical point is a step that stands out from the steps around it. Drift is a slow change of the look (light, colour)
that motion does not explain; each is tested with a p-value, and a short or lively clip simply proves nothing.
"""

import statistics
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import special

from kling.quality.motion import flows, shrink, warp
from kling.shapes import Frames

_SMALL_PX = 32
_WINDOW = 4  # steps to each side that a step is compared with
_STANDS_OUT = 1.6  # times the typical step around it
_FLOOR = 1.0  # grey levels: below this no step is a jump
_CELLS = 4  # drift is measured in 4x4 parts of the picture
_PLACES = 8  # as many of them count as independent: neighbours change alike
_CODING = 0.25  # grey levels by which coding noise may shift a cell over a clip


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A straight line through a series, least squares; p corrected for the correlation of neighbouring values."""

    slope: float  # change a frame
    p_value: float

    @property
    def significant(self) -> bool:
        return self.p_value < 0.05


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Slow change of the look along the motion, grey levels a frame: luma, red-green, yellow-blue."""

    per_frame: tuple[float, float, float]
    change: float  # over the whole clip: length of the three together, grey levels
    p_value: float  # of the strongest of the three, corrected for there being three

    @property
    def significant(self) -> bool:
        """Beyond chance, and at least the one grey level that an 8-bit picture can show."""
        return self.p_value < 0.05 and self.change >= 1


@dataclass(frozen=True, kw_only=True)
class Temporal:
    """One clip."""

    similarity: tuple[float, ...]  # of frame i and i+1, 0..1
    mean: float
    trend: Trend  # of the similarity: falling means that the clip becomes less steady
    drift: Drift
    critical: tuple[int, ...]  # frames that do not follow from the one before
    flicker: float  # grey levels by which brightness goes to and fro between neighbouring frames
    flicker_frames: tuple[float, ...]  # the same for each inner frame


def measure(frames: Frames, flow: np.ndarray | None = None) -> Temporal:
    """Measure a clip; ``flow`` as in `kling.quality.motion.measure`."""
    small = _small(frames)
    steps = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3))
    similarity = np.exp(-steps / 20)
    flicker = _flicker(small)
    return Temporal(
        similarity=tuple(float(s) for s in similarity),
        mean=float(similarity.mean()) if similarity.size else 1.0,
        trend=linear_trend(similarity),
        drift=drift(frames, flow),
        critical=critical_points(_parts(small)),
        flicker=float(flicker.mean()) if flicker.size else 0.0,
        flicker_frames=tuple(float(f) for f in flicker),
    )


def critical_points(parts: np.ndarray) -> tuple[int, ...]:
    """Frames whose step from the frame before stands out from the steps around it, in half of the picture or more.

    Half of the picture, because a thing that is hit or comes into view is a large step in its own place, and no jump.

    Args:
        parts: f-1 k: size of each step (frame i to i+1) in each part of the picture, grey levels.

    Returns:
        Indices of the frames after the step. Two jumps closer than two frames may be told as one.
    """
    found, whole = [], parts.mean(axis=1)
    for i in np.flatnonzero(whole > _FLOOR).tolist():
        around = [j for j in range(max(0, i - _WINDOW), min(len(parts), i + 1 + _WINDOW)) if j != i]
        typical = statistics.median(whole[around].tolist()) if around else 0.0  # of few numbers NumPy's is slow
        if whole[i] <= _STANDS_OUT * typical + 0.3:
            continue
        usual = np.median(parts[around], axis=0) if around else np.zeros(parts.shape[1])
        if (parts[i] > 1.5 * usual + 1).mean() >= 0.5:
            found.append(i + 1)
    return tuple(found)


def _parts(small: np.ndarray) -> np.ndarray:
    """f-1 64: mean step of each eighth by eighth of the small pictures (f h w 3)."""
    size = _SMALL_PX // 8
    steps = np.abs(np.diff(small, axis=0)).mean(axis=-1)
    return steps.reshape(len(steps), 8, size, 8, size).mean(axis=(2, 4)).reshape(len(steps), 64)


def linear_trend(series: np.ndarray) -> Trend:
    """Regression over the frame number. A series of fewer than 4 values, or a constant one, has no trend (p = 1)."""
    series = np.asarray(series, float)
    if len(series) < 4 or np.ptp(series) < 1e-9:
        return Trend(slope=0.0, p_value=1.0)
    time = np.arange(len(series))
    slope, offset = np.polyfit(time, series, 1)
    rest = series - (offset + slope * time)
    # Fewer independent values than frames widen the error of the slope (Bretherton et al. 1999).
    freedom = _effective(rest) - 2
    if freedom < 1:
        return Trend(slope=float(slope), p_value=1.0)
    error = np.sqrt((rest**2).sum() / freedom / ((time - time.mean()) ** 2).sum())
    return Trend(slope=float(slope), p_value=_two_sided(slope, error, freedom))


def drift(frames: Frames, flow: np.ndarray | None = None) -> Drift:
    """Does the look change steadily along the motion, everywhere in the picture?

    Along the motion, because a camera that turns to a darker wall is not drift; everywhere, because a thing that turns
    its dark side is not. The clip's change is measured in 4x4 cells. Its error has three parts: the cells' disagreement
    (a sample of places), the steps' irregularity (Newey and West 1987, two lags), and the coding noise of a still
    picture. Student's t with 7 degrees of freedom, and three channels (Bonferroni).
    """
    if len(frames) < 5 or min(frames.shape[1:3]) < 2 * _CELLS:
        return Drift(per_frame=(0.0, 0.0, 0.0), change=0.0, p_value=1.0)
    flow = flows(shrink(frames)) if flow is None else flow
    height, width = flow.shape[1:3]
    colour = [_opponent(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)) for frame in frames]
    steps = _cells(np.stack([warp(colour[i + 1], flow[i]) - colour[i] for i in range(len(flow))]))  # f-1 cells 3
    cells, means = steps.sum(axis=0), steps.mean(axis=1)
    change = cells.mean(axis=0)
    error = np.sqrt(cells.var(axis=0, ddof=1) / _PLACES + _variance_of_sum(means) + _CODING**2)
    p_value = min(_two_sided(change[i], error[i], _PLACES - 1) for i in range(3))
    slope = change / len(flow)
    return Drift(
        per_frame=(float(slope[0]), float(slope[1]), float(slope[2])),
        change=float(np.linalg.norm(change)),
        p_value=min(1.0, 3 * p_value),
    )


def _cells(difference: np.ndarray) -> np.ndarray:
    """f cells 3: change of each cell of pictures (f h w 3): half median, half clipped mean; edges weigh little."""
    height, width = (size // _CELLS for size in difference.shape[1:3])
    inside = difference[:, : height * _CELLS, : width * _CELLS]
    parts = inside.reshape(-1, _CELLS, height, _CELLS, width, 3).transpose(0, 1, 3, 5, 2, 4)
    values = parts.reshape(-1, _CELLS * _CELLS, 3, height * width)
    return (np.median(values, axis=-1) + np.clip(values, -4, 4).mean(axis=-1)) / 2


def _variance_of_sum(steps: np.ndarray) -> np.ndarray:
    """Of the sum of a series (f k), for each of k: with the correlation of values up to two steps apart."""
    rest, count = steps - steps.mean(axis=0), len(steps)
    own = (rest**2).mean(axis=0)
    near = sum(2 * (1 - lag / 3) * (rest[lag:] * rest[:-lag]).sum(axis=0) / count for lag in (1, 2))
    return np.maximum(own + near, own) * count * count / (count - 1)


def _two_sided(value: float, error: float, freedom: float) -> float:
    """p of Student's t (scipy.stats says the same, and takes a second to import)."""
    if error < 1e-12:
        return 0.0
    return float(special.betainc(freedom / 2, 0.5, freedom / (freedom + (value / error) ** 2)))


def _effective(rest: np.ndarray) -> float:
    """Number of independent values in a series with the lag-1 correlation of this one."""
    power = float((rest**2).sum())
    if len(rest) < 4 or power < 1e-12:
        return float(len(rest))
    correlation = max(0.0, float((rest[1:] * rest[:-1]).sum()) / power)
    return len(rest) * (1 - correlation) / (1 + correlation)


def _small(frames: Frames) -> np.ndarray:
    """f h w 3 float32 (luma and two colour differences), small and blurred."""
    pictures = []
    for frame in frames:
        picture = cv2.resize(frame, (_SMALL_PX, _SMALL_PX), interpolation=cv2.INTER_AREA)
        pictures.append(_opponent(cv2.GaussianBlur(picture, (0, 0), 1.0)))
    return np.stack(pictures)


def _opponent(picture: np.ndarray) -> np.ndarray:
    """h w 3: luma, red minus green, yellow minus blue; grey levels."""
    red, green, blue = (picture[..., i].astype(np.float32) for i in range(3))
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([grey, (red - green) / 2, (red + green) / 4 - blue / 2], axis=-1)


def _flicker(small: np.ndarray) -> np.ndarray:
    """To and fro of the brightness of each sixteenth of the picture; what goes one way is motion or a fade."""
    if len(small) < 3:
        return np.zeros(0)
    cells = small[..., 0].reshape(len(small), 4, _SMALL_PX // 4, 4, _SMALL_PX // 4).mean(axis=(2, 4))
    whole = np.median(cells, axis=(1, 2))  # most of the picture must go along
    up, down = whole[1:-1] - whole[:-2], whole[2:] - whole[1:-1]
    return np.where(up * down < 0, np.minimum(np.abs(up), np.abs(down)), 0.0)
