"""Frozen and repeated frames."""

from dataclasses import dataclass

import numpy as np

from kling.quality.picture import luma
from kling.shapes import Frames

# Mean difference in grey levels below which a frame repeats the one before it: coding noise of a still picture.
_SAME = 0.35


@dataclass(frozen=True, kw_only=True)
class Stillness:
    """Which frames repeat their predecessor."""

    frozen: tuple[int, ...]  # frames that repeat the one before while the clip as a whole moves
    still_share: float  # share of frames that repeat the one before, moving clip or not
    longest_run: int  # frames in the longest such run
    difference: tuple[float, ...]  # mean absolute luma difference to the frame before, grey levels; first is 0


def measure(frames: Frames) -> Stillness:
    """A still scene under a still camera has no frozen frames: freezing shows only against motion."""
    grey = luma(frames)
    difference = np.concatenate([[0.0], np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2))])
    same = difference[1:] < _SAME
    moving = difference[1:][~same]
    run = longest = 0
    for repeated in same:
        run = run + 1 if repeated else 0
        longest = max(longest, run)
    moves = moving.size > 0 and float(np.median(moving)) > 3 * _SAME
    return Stillness(
        frozen=tuple(int(i) + 1 for i in np.flatnonzero(same)) if moves else (),
        still_share=float(same.mean()) if same.size else 1.0,
        longest_run=longest,
        difference=tuple(float(d) for d in difference),
    )
