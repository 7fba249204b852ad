"""Motion: dense flow between neighbouring frames, and whether what moves keeps moving plausibly.

A cascade: a cheap difference decides which pairs of frames moved at all, and only those get dense optical flow (DIS,
Kroeger et al. 2016, arXiv:1603.03590). Flow is computed on pictures of at most WORK_PX.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from kling.quality.picture import luma
from kling.shapes import Frames

WORK_PX = 160  # longer side of the pictures that flow is computed on
_STILL = 0.25  # mean luma difference below which two frames count as one picture: their flow is zero


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One clip. Lengths are in shares of the picture's width, so that resolution does not matter."""

    consistency: float  # 0..1: the motion part of the total; 1 is perfectly smooth, predictable motion
    consistency_frames: tuple[float, ...]  # of each inner step (frame i to i+1, i = 1..f-2)
    speed: float  # mean flow length, picture widths a frame
    moving_share: float  # share of pixels that move more than a tenth of a pixel of the working picture
    warp_error: float  # mean luma error after undoing the motion, grey levels
    acceleration: float  # mean change of motion relative to the motion, 0..1


def shrink(frames: Frames, longest_px: int = WORK_PX) -> np.ndarray:
    """f h w float32 luma, at most ``longest_px`` on the longer side."""
    height, width = frames.shape[1:3]
    scale = min(1.0, longest_px / max(height, width))
    if scale == 1.0:
        return luma(frames)
    size = max(16, round(width * scale)), max(16, round(height * scale))
    return luma(np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]))


def flows(grey: np.ndarray) -> np.ndarray:
    """f-1 h w 2 (x, y) in pixels: where each pixel of a frame is in the next. Still pairs cost nothing.

    Args:
        grey: f h w, 0..255.
    """
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    dis.setUseSpatialPropagation(True)
    pictures = [np.clip(picture, 0, 255).astype(np.uint8) for picture in grey]
    found = np.zeros((max(0, len(grey) - 1), *grey.shape[1:], 2), np.float32)
    for i in range(len(found)):
        if np.abs(grey[i + 1] - grey[i]).mean() >= _STILL:
            found[i] = dis.calc(pictures[i], pictures[i + 1], None)
    return found


def warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Look up ``picture`` (of the later frame) where ``flow`` says the earlier frame's pixels went."""
    x, y = _grid(*flow.shape[:2])
    return cv2.remap(
        picture, x + flow[..., 0], y + flow[..., 1], interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


@lru_cache(maxsize=8)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x, y


def _slope(picture: np.ndarray) -> float:
    """Mean luma change a pixel, without grain: the warp error that a slip of one pixel would make."""
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    return float(np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(smooth, cv2.CV_32F, 0, 1) / 8).mean())


def measure(frames: Frames, flow: np.ndarray | None = None) -> Motion:
    """Measure a clip; pass ``flow`` of `flows(shrink(frames))` where it is known already.

    Consistency of a step is (1 - relative acceleration) x exp(-warp error / slope): motion should go on as it was, and
    undoing it should give the frame before. Blur makes both easy, and so do
    frozen frames: read it beside sharpness and stillness (kling.quality.total does).
    """
    grey = shrink(frames)
    flow = flows(grey) if flow is None else flow
    width = grey.shape[2]
    length = np.sqrt((flow * flow).sum(axis=-1))
    steps, errors, changes = [], [], []
    for i in range(len(flow)):
        error = np.abs(warp(grey[i + 1], flow[i]) - grey[i])
        errors.append(float(np.minimum(error, 60).mean()))
        if i + 1 == len(flow):
            break
        step = warp(flow[i + 1], flow[i]) - flow[i]
        change = cv2.magnitude(step[..., 0], step[..., 1]).mean()
        both = length[i].mean() + length[i + 1].mean()
        changes.append(float(change / (both + 0.3)))
        steps.append((1 - min(1.0, changes[-1])) * float(np.exp(-errors[-1] / (1.0 + _slope(grey[i])))))
    return Motion(
        consistency=float(np.mean(steps)) if steps else 1.0,
        consistency_frames=tuple(steps),
        speed=float(length.mean() / width) if length.size else 0.0,
        moving_share=float((length > 0.1).mean()) if length.size else 0.0,
        warp_error=float(np.mean(errors)) if errors else 0.0,
        acceleration=float(np.mean(changes)) if changes else 0.0,
    )
