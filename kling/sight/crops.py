"""One tracked thing as a small network sees it: its picture in each frame, and numbers about where that was.

Crops follow the thing and grow with it, so that a small cone and a large one show the same outline; how large it is,
where it stands and how the background moves under it go beside them as numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kling.bench.reader import Reading
from kling.bench.tracks import Blob, Track
from kling.quality import motion
from kling.quality.picture import luma
from kling.sight.moving import background_motion

CROP_PX = 12
CHANNELS = 3  # brightness, its own pixels, other things' pixels
_MARGIN = 1.7  # sides of the crop per longer side of the box
_LEAST_PX = 10.0
NUMBERS = 35  # see `_numbers`


@dataclass(frozen=True, kw_only=True)
class Views:
    """One thing over the f frames of a clip; rows of frames in which it was not seen are zero."""

    crops: np.ndarray  # f CHANNELS CROP_PX CROP_PX uint8
    numbers: np.ndarray  # f NUMBERS float32
    drift_px: np.ndarray  # f 2 float32: how far the middle of its colour moves a frame
    trust: np.ndarray  # f float32: 0..1, how much of the drift is the thing's own motion
    seen: np.ndarray  # f bool


@dataclass(frozen=True, kw_only=True)
class Ground:
    """How the background moves, from optical flow of the reader's pictures."""

    flow: np.ndarray  # f-1 h w 2, pixels
    whole: np.ndarray  # 8: mean over the steps (`kling.sight.moving.background_motion`)


def ground(reading: Reading) -> Ground:
    """Measure the flow and what the background does in it."""
    flow = motion.flows(luma(reading.pictures))
    steps = [background_motion(step) for step in flow]
    return Ground(flow=flow, whole=np.mean(steps, axis=0) if steps else np.zeros(8))


def views(track: Track, reading: Reading, under: Ground) -> Views:
    """Cut one thing out of every frame it is seen in."""
    num_frames = len(reading.depth_m)
    crops = np.zeros((num_frames, CHANNELS, CROP_PX, CROP_PX), np.uint8)
    numbers = np.zeros((num_frames, NUMBERS), np.float32)
    seen, frames = np.zeros(num_frames, bool), track.frames
    touched = np.zeros(len(frames), bool)
    before: Blob | None = None
    for n, blob in enumerate(track.blobs):
        f = blob.frame
        others = (reading.color[f, 0] < 0.5) & ~blob.pixels
        crops[f] = _crop(reading.pictures[f], blob, others)
        numbers[f] = _numbers(blob, before, under, others)
        touched[n] = (_grown(blob) & others).any()
        seen[f], before = True, blob
    drift, trust = np.zeros((num_frames, 2), np.float32), np.zeros(num_frames, np.float32)
    drift[frames], trust[frames] = _drift(track, reading, touched)
    return Views(crops=crops, numbers=numbers, drift_px=drift, trust=trust, seen=seen)


def _drift(track: Track, reading: Reading, touched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """n 2, n: mean of the steps of the middle of its colour from the frame before and to the next, and its trust.

    Where the thing is cut by the picture's edge, touched by another, or its area changes, the middle moves without it.
    The factors were chosen on 60 validation clips (docs/benchmarks/curation.md).
    """
    width, height = reading.depth_m.shape[2], reading.depth_m.shape[1]
    middles = np.array([_middle(blob, reading.color[blob.frame]) for blob in track.blobs])
    known = np.diff(track.frames) == 1  # what is not seen in both frames is no step
    step = np.diff(middles, axis=0) * known[:, None]
    growth = np.abs(np.diff(np.log(track.areas_px))) * known
    sides = np.pad(known, (1, 0)).astype(float) + np.pad(known, (0, 1))
    drift = (np.pad(step, ((1, 0), (0, 0))) + np.pad(step, ((0, 1), (0, 0)))) / np.maximum(sides, 1)[:, None]
    box = np.array([blob.box_px for blob in track.blobs])
    cut = (box[:, :2] <= 1).any(1) | (box[:, 2] >= width - 1) | (box[:, 3] >= height - 1)
    trust = np.exp(-2 * np.minimum(1, np.maximum(np.pad(growth, (1, 0)), np.pad(growth, (0, 1)))))
    trust *= np.where(cut, 0.3, 1.0) * np.where(touched, 0.6, 1.0) * np.array([0.0, 0.8, 1.0])[sides.astype(int)]
    return drift, trust


def _grown(blob: Blob) -> np.ndarray:
    """h w bool: its pixels and those next to them."""
    return cv2.dilate(blob.pixels.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _middle(blob: Blob, color: np.ndarray) -> np.ndarray:
    """x, y: mean place of its colour in and around its pixels, weighted by how likely it is."""
    near = _grown(blob)
    y, x = np.nonzero(near)
    weight = color[1 + int(blob.color.argmax())][near]
    return np.array([(weight * (x + 0.5)).sum(), (weight * (y + 0.5)).sum()]) / weight.sum()


def _crop(picture: np.ndarray, blob: Blob, others: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = blob.box_px
    side = max(_LEAST_PX, _MARGIN * max(x1 - x0, y1 - y0))
    scale = side / CROP_PX
    # Of what is partly hidden the votes' middle is the better middle, but it must stay near what is seen.
    x, y = np.clip(blob.x_px, x0 - side / 4, x1 + side / 4), np.clip(blob.y_px, y0 - side / 4, y1 + side / 4)
    place = np.array([[scale, 0, x - side / 2 - 0.5 + scale / 2], [0, scale, y - side / 2 - 0.5 + scale / 2]])
    grey = picture.astype(np.float32).mean(-1)
    own = grey[blob.pixels]
    grey = np.clip(128 + 48 * (grey - own.mean()) / (own.std() + 4), 0, 255)  # shading, whatever its colour
    layers = np.stack([grey, blob.pixels * 255.0, others * 255.0], axis=-1).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(layers, place, (CROP_PX, CROP_PX), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return np.clip(cut.round(), 0, 255).astype(np.uint8).transpose(2, 0, 1)


def _numbers(blob: Blob, before: Blob | None, under: Ground, others: np.ndarray) -> np.ndarray:
    """About unit size each; lengths in picture heights, so that any resolution reads alike."""
    height, width = others.shape
    x, y = (blob.x_px - width / 2) / height, (blob.y_px - height / 2) / height
    x0, y0, x1, y1 = ((v - m / 2) / height for v, m in zip(blob.box_px, (width, height) * 2, strict=True))
    floor, own = _flows(blob, under, others)
    moved, gap = np.zeros(2), 0
    if before is not None:
        gap = blob.frame - before.frame
        moved = np.array([blob.x_px - before.x_px, blob.y_px - before.y_px]) / gap
    near = _grown(blob)
    edge = blob.box_px
    cut = float(min(edge[0], edge[1]) <= 1 or edge[2] >= width - 1 or edge[3] >= height - 1)
    return np.concatenate(
        [
            [2 * x, 2 * y, 2 * x0, 2 * y0, 2 * x1, 2 * y1, 5 * (x1 - x0), 5 * (y1 - y0)],
            [np.sqrt(blob.area_px) / height * 5, np.log(max(blob.depth_m, 0.1)), gap / 2],
            moved * 20 / height,
            floor * 20 / height,
            own * 20 / height,
            under.whole / 0.03,
            [float((near & others).mean() * 50), cut],
            np.clip(blob.size / max(blob.area_px, 1.0), -4, 0),
            np.clip(blob.shape / max(blob.area_px, 1.0), -4, 0),
        ]
    )  # fmt: skip


def _flows(blob: Blob, under: Ground, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median flow, in the step to the next frame, of the background around the thing's foot and of the thing itself."""
    if not len(under.flow):
        return np.zeros(2), np.zeros(2)
    flow = under.flow[min(blob.frame, len(under.flow) - 1)]
    wide = cv2.dilate(blob.pixels.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    close = cv2.dilate(blob.pixels.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    ring = wide & ~close & ~others
    ring[: int(blob.y_px)] = False  # what is behind its head is far away
    floor = np.median(flow[ring], axis=0) if ring.sum() >= 4 else np.zeros(2)
    return floor, np.median(flow[blob.pixels], axis=0)
