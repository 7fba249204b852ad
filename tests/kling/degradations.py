"""Planted degradations at five levels: each takes a clip and a level (0: the original) and spoils it so much."""

import cv2
import numpy as np

LEVELS = range(6)


def blur(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return clip if not level else np.stack([cv2.GaussianBlur(f, (0, 0), 0.5 * level) for f in clip])


def noise(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(clip + rng.normal(0, 5 * level, clip.shape), 0, 255).astype(np.uint8)


def impulses(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """One more pixel in a hundred a level is black or white."""
    spoiled, hit = clip.copy(), rng.random(clip.shape[:3]) < 0.01 * level
    spoiled[hit] = np.where(rng.random(hit.sum()) < 0.5, 0, 255)[:, None]
    return spoiled


def flicker(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    gain = 1 + 0.06 * level * np.where(np.arange(len(clip)) % 2, 1, -1)
    return np.clip(clip * gain[:, None, None, None], 0, 255).astype(np.uint8)


def freeze(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """2 more frames a level stand still, in stretches of two."""
    spoiled = clip.copy()
    for start in _places(len(clip), level, 4):
        spoiled[start + 1 : start + 3] = clip[start]
    return spoiled


def frame_swap(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """One more pair of frames two apart changes places a level."""
    spoiled = clip.copy()
    for start in _places(len(clip), level, 4):
        spoiled[[start, start + 2]] = clip[[start + 2, start]]
    return spoiled


def identity_swap(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """From the middle on, a growing share of the picture shows something else (the clip mirrored in another colour)."""
    spoiled, half = clip.copy(), len(clip) // 2
    height, width = clip.shape[1:3]
    for i in range(level):
        y, x = [(1, 1), (2, 2), (1, 2), (2, 1), (1, 0)][i]
        rows, columns = slice(y * height // 4, (y + 1) * height // 4), slice(x * width // 4, (x + 1) * width // 4)
        spoiled[half:, rows, columns] = 255 - clip[half:, ::-1, ::-1][:, rows, columns][..., [1, 2, 0]]
    return spoiled


def jump(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """One more cut a level: from there on the mirrored clip, then the original again, and so on."""
    spoiled = clip.copy()
    for start in jump_places(len(clip), level):
        spoiled[start:] = spoiled[start:, ::-1, ::-1]
    return spoiled


def drift(clip: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Brightness and colour wander away steadily, up to 12 grey levels a level at the end."""
    ramp = np.linspace(0, 12 * level, len(clip))[:, None, None, None]
    return np.clip(clip + ramp * np.array([1.0, 0.7, -0.6]), 0, 255).astype(np.uint8)


DEGRADATIONS = {f.__name__: f for f in (blur, noise, impulses, flicker, freeze, frame_swap, identity_swap, jump, drift)}


def jump_places(num_frames: int, level: int) -> list[int]:
    return sorted(_places(num_frames, level, 2))


def _places(num_frames: int, count: int, room: int) -> list[int]:
    """The first ``count`` of five places spread over the clip: a level has those of the level below and one more."""
    spread = np.linspace(2, num_frames - room - 2, 5).astype(int)
    return [int(spread[i]) for i in (2, 0, 4, 1, 3)[:count]]
