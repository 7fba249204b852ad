"""Frozen and repeated frames."""

from dataclasses import dataclass

import numpy as np

from kling.quality.picture import luma
from kling.shapes import Frames

# A frame repeats the one before it when they differ by less than this (grey levels, mean), or than this share of the
# clip's usual difference: coding noise of a still picture is below both.
_SAME, _SAME_SHARE = 0.12, 0.12
_MOVES = 0.4  # usual difference of a clip that moves


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
    usual = float(np.quantile(difference[1:], 0.75)) if len(grey) > 1 else 0.0
    same = difference[1:] < max(_SAME, _SAME_SHARE * usual)
    run = longest = 0
    for repeated in same:
        run = run + 1 if repeated else 0
        longest = max(longest, run)
    moves = usual > _MOVES
    return Stillness(
        frozen=tuple(int(i) + 1 for i in np.flatnonzero(same)) if moves else (),
        still_share=float(same.mean()) if same.size else 1.0,
        longest_run=longest,
        difference=tuple(float(d) for d in difference),
    )
