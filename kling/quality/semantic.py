"""Semantic coherence: does a clip stay about the same things? An interface, and a stand-in that knows only pixels.

`Embedder` is what a learned video-text embedder (SigLIP, CLIP, or a small one trained on the playground) offers.
`PixelStatistics` is not one: it describes colours and edges, so "coherence" measured with it means that a clip keeps
its look. It says nothing about meaning and cannot be compared with text.
"""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from kling.shapes import Frames


class Embedder(Protocol):
    """Describes frames as unit vectors; near vectors mean alike frames."""

    name: str  # stored beside the score: scores of different embedders do not compare

    def embed_frames(self, frames: Frames) -> np.ndarray:
        """f d float32, each of length 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """One clip."""

    score: float  # 0..1: the semantic part of the total
    neighbours: tuple[float, ...]  # cosine of each frame with the one before it
    to_middle: tuple[float, ...]  # cosine of each frame with the clip's mean vector
    embedder: str


class PixelStatistics:
    """Colour layout and edge directions on a 4x4 grid: how a frame looks, not what it means."""

    name = "pixel-statistics"
    _GRID = 4

    def embed_frames(self, frames: Frames) -> np.ndarray:
        """f d float32, each of length 1."""
        small = [cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in frames]
        lab = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2LAB) for picture in small]).astype(np.float32) / 255 - 0.5
        cells = self._cells(lab)
        mean, spread = cells.mean(axis=(2, 4)), cells.std(axis=(2, 4))
        slopes = [(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1)) for light in lab[..., 0]]
        dx, dy = (np.stack([slope[axis] for slope in slopes]) for axis in (0, 1))
        # A slope's length times cosine and sine of twice its angle: edges of both directions are one.
        length = np.maximum(np.hypot(dx, dy), 1e-9)
        doubled = ((dx - dy) * (dx + dy) / length, 2 * dx * dy / length)
        edges = [self._cells(part[..., None]).mean(axis=(2, 4)) for part in doubled]
        constant = np.full((len(frames), 1), 0.5)  # it keeps a grey frame away from length zero
        flat = [part.reshape(len(frames), -1) for part in (3 * mean, 2 * spread, *edges)]
        vectors = np.concatenate([*flat, constant], axis=1)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _cells(self, pictures: np.ndarray) -> np.ndarray:
        """f 64 64 c -> f 4 16 4 16 c."""
        return pictures.reshape(len(pictures), self._GRID, 16, self._GRID, 16, pictures.shape[-1])


def measure(frames: Frames, embedder: Embedder) -> Coherence:
    """Mean similarity with the whole, of neighbours, and of the worst neighbours; cosines up to 0.5 count as 0."""
    vectors = embedder.embed_frames(frames)
    middle = vectors.mean(axis=0)
    middle /= np.linalg.norm(middle) + 1e-9
    neighbours = (vectors[1:] * vectors[:-1]).sum(axis=1)
    whole = vectors @ middle
    both = (whole.mean(), neighbours.mean(), neighbours.min()) if neighbours.size else (1.0,)
    return Coherence(
        score=float(np.clip(2 * np.mean(both) - 1, 0, 1)),
        neighbours=tuple(float(n) for n in neighbours),
        to_middle=tuple(float(n) for n in whole),
        embedder=embedder.name,
    )
