"""Semantic coherence: does a clip stay about the same things?

`Embedder` is what a learned one offers: the small one of the playground (`kling.sight.embedder`), or a SigLIP or CLIP
(`kling.sight.foreign`). `PixelStatistics` is not learned: it describes colours and edges, so "coherence" measured with
it means that a clip keeps its look. The total takes both, half each: what either sees change counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from kling.shapes import Frames


class Embedder(Protocol):
    """Describes frames as unit vectors; near vectors mean alike frames."""

    name: str  # stored beside the score: scores of different embedders do not compare
    max_frames: int | None  # so many, evenly spread, are enough for it; None: all

    def embed_frames(self, frames: Frames) -> np.ndarray:
        """f d float32, each of length 1."""
        ...


class VideoTextEmbedder(Embedder, Protocol):
    """One that also reads: the cosine of a clip's and a text's vector says how well they fit."""

    def embed_clip(self, frames: Frames) -> np.ndarray:
        """d float32 of length 1."""
        ...

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """n d float32, each of length 1."""
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
    max_frames: int | None = None
    _GRID = 4

    def embed_frames(self, frames: Frames) -> np.ndarray:
        """f d float32, each of length 1."""
        vectors = np.stack([self._describe(frame) for frame in frames])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _describe(self, frame: np.ndarray) -> np.ndarray:
        """d float32 of one picture, h w 3."""
        lab = cv2.cvtColor(cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
        lab = lab.astype(np.float32) / 255 - 0.5
        dx, dy = (cv2.Sobel(lab[..., 0], cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
        # A slope's length times cosine and sine of twice its angle: edges of both directions are one.
        length = np.maximum(cv2.magnitude(dx, dy), 1e-9)
        doubled = np.stack([(dx - dy) * (dx + dy) / length, 2 * dx * dy / length], axis=-1)
        mean, square, edges = (self._cells(part) for part in (lab, lab * lab, doubled))
        spread = np.sqrt(np.maximum(square - mean * mean, 0))
        constant = np.full(1, 0.5)  # it keeps a grey frame away from length zero
        return np.concatenate([(3 * mean).ravel(), (2 * spread).ravel(), edges.ravel(), constant])

    def _cells(self, picture: np.ndarray) -> np.ndarray:
        """64 64 c -> 4 4 c: means of the cells."""
        return cv2.resize(picture, (self._GRID, self._GRID), interpolation=cv2.INTER_AREA)


def measure(frames: Frames, *embedders: Embedder) -> Coherence:
    """Mean similarity with the whole, of neighbours, and of the worst neighbours; cosines up to 0.5 count as 0.

    Of several embedders the mean score; similarities are those of the first.
    """
    seen = [_one(frames, embedder) for embedder in embedders]
    return Coherence(
        score=float(np.mean([one.score for one in seen])),
        neighbours=seen[0].neighbours,
        to_middle=seen[0].to_middle,
        embedder="+".join(one.embedder for one in seen),
    )


def _one(frames: Frames, embedder: Embedder) -> Coherence:
    count = min(len(frames), embedder.max_frames or len(frames))
    vectors = embedder.embed_frames(frames[np.linspace(0, len(frames) - 1, count).round().astype(int)])
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
