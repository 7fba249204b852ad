"""The total: 0.4 motion consistency + 0.3 object tracking + 0.3 semantic coherence, each in [0, 1], from frames alone.

Each part measures how smoothly a clip goes on, and blur makes everything smooth. So each is multiplied by the detail
the pictures have, by how little of that is noise, and by the share of frames that are not frozen: a blurred, noisy or
halting copy never beats its original.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kling.quality import motion, semantic, stillness, tracking
from kling.quality.picture import filtered, luma, noise_frames
from kling.shapes import Frames

WEIGHTS = {"motion": 0.4, "tracking": 0.3, "semantic": 0.3}
_CRISP = 0.7  # above the crispest footage that was seen (0.65): no clip may lose detail for nothing
_NOISE = 16.0  # grey levels of noise that halve the score


@dataclass(frozen=True, kw_only=True)
class Total:
    """One clip; every field in [0, 1]."""

    total: float
    motion: float
    tracking: float
    semantic: float
    fidelity: float  # the factor in all three: detail x cleanness x frames that are not frozen
    detail: float


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the total is made of, measured once."""

    motion: motion.Motion
    tracking: tracking.Tracking
    semantic: semantic.Coherence
    noise: float
    num_frozen: int
    detail: float


def measure(frames: Frames, *embedders: semantic.Embedder, flow: np.ndarray | None = None) -> Total:
    """Measure a clip; ``flow`` as in `kling.quality.motion.measure`."""
    grey = luma(frames)
    parts = Parts(
        motion=motion.measure(frames, flow),
        tracking=tracking.measure(frames),
        semantic=semantic.measure(frames, *embedders),
        noise=float(noise_frames(grey).mean()),
        num_frozen=len(stillness.measure(frames).frozen),
        detail=float(detail_frames(grey).mean()),
    )
    return combine(parts, num_frames=len(frames))


def combine(parts: Parts, num_frames: int) -> Total:
    """The total of what was measured already."""
    fidelity = min(1.0, parts.detail / _CRISP) / (1 + (parts.noise / _NOISE) ** 2)
    fidelity *= 1 - parts.num_frozen / max(1, num_frames - 1)
    weighted = {
        "motion": parts.motion.consistency * fidelity,
        "tracking": parts.tracking.score * fidelity,
        "semantic": parts.semantic.score * fidelity,
    }
    total = sum(WEIGHTS[name] * value for name, value in weighted.items())
    return Total(total=total, fidelity=fidelity, detail=parts.detail, **weighted)


def detail(frames: Frames) -> float:
    """Mean over frames of `detail_frames`."""
    return float(detail_frames(luma(frames)).mean())


def detail_frames(grey: np.ndarray) -> np.ndarray:
    """f: 0 (nothing but blur) to 1: how much of a picture's variation a further blur would take away.

    Crete et al. 2007 ("The blur effect", SPIE 6492), after a slight blur that takes the grain away; content matters
    little, since it is compared with itself.

    Args:
        grey: f h w, 0..255.
    """
    smooth, kept = filtered(cv2.GaussianBlur, grey, (0, 0), 0.7), []
    for axis, size in ((0, (1, 7)), (1, (7, 1))):
        before = np.abs(np.diff(smooth, axis=axis))
        again = filtered(cv2.blur, np.moveaxis(smooth, -1, 0), size)
        after = np.abs(np.diff(again, axis=axis))
        lost = np.maximum(0, before - after).sum(axis=(0, 1))
        kept.append(lost / np.maximum(1e-3, before.sum(axis=(0, 1))))
    return np.where(grey.std(axis=(1, 2)) > 1, np.minimum(*kept), 0.0)
