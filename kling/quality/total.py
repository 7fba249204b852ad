"""The total: 0.4 motion consistency + 0.3 object tracking + 0.3 semantic coherence, each in [0, 1], from frames alone.

Each part measures how smoothly a clip goes on, and blur makes everything smooth. So each is multiplied by the detail
the pictures have, by how little of that is noise, and by the share of frames that are not frozen: a blurred, noisy or
halting copy never beats its original.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kling.quality import motion, semantic, stillness, tracking
from kling.quality.picture import luma, noise
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


def measure(frames: Frames, embedder: semantic.Embedder, flow: np.ndarray | None = None) -> Total:
    """Measure a clip; ``flow`` as in `kling.quality.motion.measure`."""
    crisp = detail(frames)
    clean = 1 / (1 + (float(np.mean([noise(grey) for grey in luma(frames)])) / _NOISE) ** 2)
    fidelity = min(1.0, crisp / _CRISP) * clean
    fidelity *= 1 - len(stillness.measure(frames).frozen) / max(1, len(frames) - 1)
    parts = {
        "motion": motion.measure(frames, flow).consistency * fidelity,
        "tracking": tracking.measure(frames).score * fidelity,
        "semantic": semantic.measure(frames, embedder).score * fidelity,
    }
    total = sum(WEIGHTS[name] * value for name, value in parts.items())
    return Total(total=total, fidelity=fidelity, detail=crisp, **parts)


def detail(frames: Frames) -> float:
    """0 (nothing but blur) to 1: how much of the pictures' variation a further blur would take away.

    Crete et al. 2007 ("The blur effect", SPIE 6492), after a slight blur that takes the grain away; content matters
    little, since it is compared with itself. Mean over frames.
    """
    return float(np.mean([_detail(grey) for grey in luma(frames)]))


def _detail(grey: np.ndarray) -> float:
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.7)
    kept = []
    for axis, size in ((0, (1, 7)), (1, (7, 1))):
        before = np.abs(np.diff(smooth, axis=axis))
        after = np.abs(np.diff(cv2.blur(smooth, size), axis=axis))
        kept.append(np.maximum(0, before - after).sum() / max(1e-3, before.sum()))
    return float(min(kept)) if grey.std() > 1 else 0.0
