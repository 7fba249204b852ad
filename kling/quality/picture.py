"""Measures of single pictures, over a clip: sharpness, blockiness, exposure, noise, colour. Pixels in, numbers out.

All work on luma (ITU-R BT.601, 0..255). None of them says whether a clip is *good*: they are stored, and thresholds are
applied later.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kling.shapes import Frames


@dataclass(frozen=True, kw_only=True)
class PictureQuality:
    """One clip's pictures. Means over frames; ``sharpness_frames`` keeps each frame."""

    sharpness: float  # log10(1 + variance of the Laplacian of luma): about 0.5 (blurred) to 4 (crisp texture)
    sharpness_frames: tuple[float, ...]
    blockiness: float  # steps across an 8-pixel grid over steps elsewhere: 1 is none
    noise: float  # standard deviation of sensor-like noise, grey levels (Immerkaer 1996)
    brightness: float  # mean luma, 0..1
    contrast: float  # standard deviation of luma, 0..1
    clipped: float  # share of pixels at pure black or white
    colorfulness: float  # Hasler and Suesstrunk 2003, equation 9; 0 is grey, above 60 vivid


def luma(frames: Frames) -> np.ndarray:
    """f h w float32, 0..255."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]).astype(np.float32)


def measure(frames: Frames) -> PictureQuality:
    """Measure every frame and average."""
    grey = luma(frames)
    sharp = tuple(sharpness(picture) for picture in grey)
    return PictureQuality(
        sharpness=float(np.mean(sharp)),
        sharpness_frames=sharp,
        blockiness=float(np.mean([blockiness(picture) for picture in grey])),
        noise=float(np.mean([noise(picture) for picture in grey])),
        brightness=float(grey.mean() / 255),
        contrast=float(np.mean([picture.std() for picture in grey]) / 255),
        clipped=float(((grey <= 2) | (grey >= 253)).mean()),
        colorfulness=float(np.mean([_colorfulness(frame) for frame in frames])),
    )


def sharpness(grey: np.ndarray) -> float:
    """Of one picture (h w, 0..255). Noise raises it: read it beside `noise`."""
    return float(np.log10(1 + cv2.Laplacian(grey, cv2.CV_32F).var()))


def blockiness(grey: np.ndarray, grid_px: int = 8) -> float:
    """Mean luma step across the lines of the coding grid over the mean step elsewhere; 1 when there is no grid."""
    ratios = []
    for picture in (grey, grey.T):
        steps = np.abs(np.diff(picture, axis=1)).mean(axis=0)
        on_grid = (np.arange(len(steps)) + 1) % grid_px == 0
        if on_grid.any() and not on_grid.all():
            ratios.append((steps[on_grid].mean() + 0.5) / (steps[~on_grid].mean() + 0.5))
    return float(np.mean(ratios)) if ratios else 1.0


def noise(grey: np.ndarray) -> float:
    """Standard deviation of the noise in one picture, grey levels.

    J. Immerkaer, "Fast Noise Variance Estimation", CVIU 64 (1996): the response to a mask blind to constant, linear and
    most edge structure; the median, so that texture weighs less than in the paper's mean.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, mask))[1:-1, 1:-1]
    return float(np.median(response) / (6 * 0.6745)) if response.size else 0.0


def _colorfulness(frame: np.ndarray) -> float:
    red, green, blue = (frame[..., i].astype(np.float32) for i in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
