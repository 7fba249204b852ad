"""Measures of single pictures, over a clip: sharpness, blockiness, exposure, noise, colour. Pixels in, numbers out.

All work on luma (ITU-R BT.601, 0..255). None of them says whether a clip is *good*: they are stored, and thresholds are
applied later.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from kling.shapes import Frames

_IMPULSE = 24.0  # grey levels by which a pixel that does not belong stands out of its neighbours
_USUAL_IMPULSES = 2.0  # grey levels of them (root mean square) that crisp pictures have by themselves
_MOST_CHANNELS = 256  # OpenCV takes pictures of up to 512


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
    sharp = tuple(float(v) for v in np.log10(1 + filtered(cv2.Laplacian, grey, cv2.CV_32F).var(axis=(0, 1))))
    return PictureQuality(
        sharpness=float(np.mean(sharp)),
        sharpness_frames=sharp,
        blockiness=float(np.mean(blockiness_frames(grey))),
        noise=float(np.mean(noise_frames(grey))),
        brightness=float(grey.mean() / 255),
        contrast=float(grey.std(axis=(1, 2)).mean() / 255),
        clipped=float(((grey <= 2) | (grey >= 253)).mean()),
        colorfulness=float(_colorfulness(frames).mean(dtype=float)),
    )


def filtered(work: Callable[..., np.ndarray], grey: np.ndarray, *args) -> np.ndarray:
    """An OpenCV filter over all frames in one call: f h w are h w pictures of f channels. Returns h w f."""
    stacks = [grey[i : i + _MOST_CHANNELS] for i in range(0, len(grey), _MOST_CHANNELS)]
    done = [work(np.ascontiguousarray(np.moveaxis(stack, 0, -1)), *args) for stack in stacks]
    return np.concatenate([np.atleast_3d(part) for part in done], axis=-1)


def sharpness(grey: np.ndarray) -> float:
    """Of one picture (h w, 0..255). Noise raises it: read it beside `noise`."""
    return float(np.log10(1 + cv2.Laplacian(grey, cv2.CV_32F).var()))


def blockiness(grey: np.ndarray, grid_px: int = 8) -> float:
    """Of one picture (h w): see `blockiness_frames`."""
    return float(blockiness_frames(grey[None], grid_px)[0])


def blockiness_frames(grey: np.ndarray, grid_px: int = 8) -> np.ndarray:
    """f: mean luma step across the lines of the coding grid over the mean step elsewhere; 1 when there is no grid."""
    ratios = []
    for clip in (grey, grey.transpose(0, 2, 1)):
        steps = np.abs(np.diff(clip, axis=2)).mean(axis=1)
        on_grid = (np.arange(steps.shape[1]) + 1) % grid_px == 0
        if on_grid.any() and not on_grid.all():
            ratios.append((steps[:, on_grid].mean(axis=1) + 0.5) / (steps[:, ~on_grid].mean(axis=1) + 0.5))
    return np.mean(ratios, axis=0) if ratios else np.ones(len(grey))


def noise(grey: np.ndarray) -> float:
    """Of one picture (h w): see `noise_frames`."""
    return float(noise_frames(grey[None])[0])


def noise_frames(grey: np.ndarray) -> np.ndarray:
    """f: standard deviation of the noise in each picture (f h w), grey levels.

    J. Immerkaer, "Fast Noise Variance Estimation", CVIU 64 (1996): the response to a mask blind to constant, linear and
    most edge structure; the median, so that texture weighs less than in the paper's mean. A median cannot see rare
    pixels that are far off (dead pixels, bad packets), so these are added: what stands out of all its neighbours.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(filtered(cv2.filter2D, grey, cv2.CV_32F, mask))[1:-1, 1:-1]
    if not response.size:
        return np.zeros(len(grey))
    grain = np.median(response, axis=(0, 1)) / (6 * 0.6745)
    return np.sqrt(grain**2 + np.maximum(0, _impulses(grey) - _USUAL_IMPULSES**2))


def _impulses(grey: np.ndarray) -> np.ndarray:
    """f: mean square of what single pixels are beyond all eight neighbours, where it is much. Corners are not."""
    around = np.ones((3, 3), np.uint8)
    around[1, 1] = 0
    lows, highs = (filtered(work, grey, around) for work in (cv2.erode, cv2.dilate))  # h w f
    pixels = np.moveaxis(grey, 0, -1)
    apart = np.maximum(pixels - highs, lows - pixels)
    return np.where(apart > _IMPULSE, apart**2, 0).mean(axis=(0, 1))


def _colorfulness(frames: Frames) -> np.ndarray:
    """f."""
    red, green, blue = (frames[..., i].reshape(len(frames), -1).astype(np.float32) for i in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    return np.hypot(rg.std(axis=1), yb.std(axis=1)) + 0.3 * np.hypot(rg.mean(axis=1), yb.mean(axis=1))
