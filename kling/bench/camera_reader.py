"""Which named moves a camera makes, from the eight numbers of the background's motion.

Pans, sideways dollies and orbits all slide the picture; what differs is how near and far floor slide against each
other, and the eight numbers hold just that. A small network was taught the names on the playground
(`python -m kling.bench train-camera`).
"""

from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kling.networks import filled
from kling.prompt.graph import CAMERA_MOVES

WEIGHTS = Path(__file__).with_name("camera.safetensors")
KINDS = ("dolly in", "dolly right", "pan right", "tilt up", "zoom in", "orbit right", "crane up", "roll right")
OPPOSITES = {
    "dolly in": "dolly out", "dolly right": "dolly left", "pan right": "pan left", "tilt up": "tilt down",
    "zoom in": "zoom out", "orbit right": "orbit left", "crane up": "crane down", "roll right": "roll left",
}  # fmt: skip
_SCALE = 0.03  # a usual move's size in the eight numbers, at 8 frames a second
_FPS = 8.0
_STILL = 0.0025  # picture heights a frame at 8 frames a second: less is no move
# What mirroring the picture does to the eight (x, and what goes along x, change sign), and to the kinds.
MIRROR = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
MIRROR_KINDS = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])


class CameraNet(nn.Module):
    """b 8 -> b 8 3: for each kind, the logits of the opposite, nothing, and the move itself."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(16, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3 * len(KINDS))
        )

    def forward(self, motion: Tensor) -> Tensor:
        """``motion`` as `features` makes it."""
        both = torch.cat([motion, motion.sign() * motion.abs().sqrt()], dim=-1)  # slow moves are moves too
        return self.layers(both).unflatten(-1, (len(KINDS), 3))


def features(whole: np.ndarray, fps: float) -> Tensor:
    """... 8 of `BackgroundMotion.whole`, at the rate the network knows."""
    return torch.from_numpy(np.asarray(whole, np.float32) * (fps / _FPS) / _SCALE).float()


@cache
def packaged() -> CameraNet:
    """Raises CheckpointError when the weights are missing or of another network."""
    return filled(CameraNet(), WEIGHTS, what="the evaluator's camera weights", teach="kling.bench train-camera")


@torch.no_grad()
def read_camera(whole: np.ndarray, fps: float, net: CameraNet | None = None) -> tuple[str, ...]:
    """("pan left", "zoom in"): the likeliest set of at most two moves; empty for a still camera."""
    if largest(whole) * fps / _FPS < _STILL:
        return ()
    logs = (net or packaged())(features(whole, fps)).log_softmax(-1).numpy()  # 8 3
    best = logs[:, [0, 2]].max(1)
    gain = best - logs[:, 1]
    sets = [(), *((i,) for i in range(len(KINDS))), *combinations(range(len(KINDS)), 2)]
    chosen = max(sets, key=lambda those: sum(gain[i] for i in those))
    return tuple(sorted(KINDS[i] if logs[i, 2] >= logs[i, 0] else OPPOSITES[KINDS[i]] for i in chosen))


def largest(whole: np.ndarray) -> float:
    """Mean length of the motion over a square picture, picture heights a frame."""
    y, x = np.mgrid[-0.5:0.5:9j, -0.5:0.5:9j]
    u = whole[0] + whole[1] * x + whole[2] * y + whole[6] * x * x + whole[7] * x * y
    v = whole[3] + whole[4] * x + whole[5] * y + whole[6] * x * y + whole[7] * y * y
    return float(np.hypot(u, v).mean())


def labels(moves: tuple[str, ...]) -> np.ndarray:
    """8 of -1, 0, 1 for names like "pan left"; "static" and unknown ones are none."""
    found = np.zeros(len(KINDS), np.int64)
    for i, kind in enumerate(KINDS):
        found[i] = (kind in moves) - (OPPOSITES[kind] in moves)
    return found


def known(kind: str, direction: str | None) -> str | None:
    """The name of a said move, "" for a still camera, None for one that is not judged."""
    if kind == "static":
        return ""
    return f"{kind} {direction}" if direction in CAMERA_MOVES.get(kind, ()) and direction else None
