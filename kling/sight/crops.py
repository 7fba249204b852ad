"""One tracked thing as a small network sees it: its picture in each frame, and numbers about where that was.

Crops follow the thing and grow with it, so that a small cone and a large one show the same outline; how large it is,
where it stands and how the background moves under it go beside them as numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import median_filter

from kling.bench.camera_reader import MIRROR
from kling.bench.reader import Reading
from kling.bench.tracks import Blob, Track
from kling.quality import motion
from kling.quality.picture import luma
from kling.sight.moving import background_at, background_motion

CROP_PX = 16
CHANNELS = 3  # brightness, how much of each pixel is its own, how much is other things'
_MARGIN = 1.5  # sides of the crop per longer side of the box
_LEAST_PX = 10.0
_STEADY = 5  # frames: the crop's side is the median of so many, so that a pattern that turns is not one that grows
# Groups of numbers of one frame, each with what mirroring the picture does to its signs; about unit size each,
# lengths in picture heights, so that any resolution reads alike. "Back" is the step from the frame before, "on" the
# step to the next; 0 where there is none.
_PARTS: dict[str, tuple[float, ...]] = {
    "middle": (-1, 1),
    "left, right": (-1, -1),
    "top, bottom": (1, 1),
    "width, height, extent": (1, 1, 1),
    "log distance as it looks": (1,),
    "gap": (1,),
    "votes back": (-1, 1),
    "drift back": (-1, 1),
    "drift on": (-1, 1),
    "steps known": (1, 1),
    "growth": (1, 1),
    "floor on": (-1, 1),
    "own flow on": (-1, 1),
    "background back": (-1, 1),
    "background on": (-1, 1),
    "camera": tuple(MIRROR.tolist()),
    "touched": (1, 1),
    "cut left, right": (1, 1),
    "cut top, bottom": (1, 1),
    "colour's middle": (-1, 1),
    "size": (1, 1, 1),
    "shape": (1, 1, 1, 1, 1),
}
_SWAPPED = ("left, right", "cut left, right")  # exchange their two when the picture is mirrored
NUMBERS = sum(map(len, _PARTS.values()))


@dataclass(frozen=True, kw_only=True)
class Views:
    """One thing over the f frames of a clip; rows of frames in which it was not seen are zero."""

    crops: np.ndarray  # f CHANNELS CROP_PX CROP_PX uint8
    numbers: np.ndarray  # f NUMBERS float32
    drift_px: np.ndarray  # f 2 float32: how far the middle of its colour moves a frame; 0 where no step is known
    seen: np.ndarray  # f bool


@dataclass(frozen=True, kw_only=True)
class Ground:
    """How the background moves, from optical flow of the reader's pictures."""

    flow: np.ndarray  # f-1 h w 2, pixels
    steps: np.ndarray  # f-1 8: `kling.sight.moving.background_motion` of each, picture heights


def mirror() -> tuple[np.ndarray, np.ndarray]:
    """NUMBERS each: which number stands where, and its sign, when left and right are exchanged."""
    order, signs = [], []
    for name, part in _PARTS.items():
        places = list(range(len(order), len(order) + len(part)))
        order += places[::-1] if name in _SWAPPED else places
        signs += part
    return np.array(order), np.array(signs, np.float32)


def ground(reading: Reading) -> Ground:
    """Measure the flow and what the background does."""
    flow = motion.flows(luma(reading.pictures))
    return Ground(flow=flow, steps=np.array([background_motion(step) for step in flow]).reshape(-1, 8))


def views(track: Track, reading: Reading, under: Ground) -> Views:
    """Cut one thing out of every frame it is seen in."""
    num_frames = len(reading.depth_m)
    crops = np.zeros((num_frames, CHANNELS, CROP_PX, CROP_PX), np.uint8)
    numbers = np.zeros((num_frames, NUMBERS), np.float32)
    seen, drift = np.zeros(num_frames, bool), np.zeros((num_frames, 2), np.float32)
    middles = np.array([_middle(blob, reading.color[blob.frame]) for blob in track.blobs])
    steps = _steps(track, middles)
    drift[track.frames] = (steps.back + steps.on) / np.maximum(steps.known.sum(1), 1)[:, None]
    longer = np.array([max(b.box_px[2] - b.box_px[0], b.box_px[3] - b.box_px[1]) for b in track.blobs])
    sides = np.maximum(_LEAST_PX, _MARGIN * median_filter(longer, _STEADY, mode="nearest"))
    before: Blob | None = None
    for n, blob in enumerate(track.blobs):
        f = blob.frame
        others = (reading.color[f, 0] < 0.5) & ~blob.pixels
        crops[f] = _crop(reading.pictures[f], reading.color[f], blob, others, float(sides[n]))
        there = _numbers(blob, before, under, others) | {
            "drift back": steps.back[n] * 20 / others.shape[0],
            "drift on": steps.on[n] * 20 / others.shape[0],
            "steps known": steps.known[n],
            "growth": steps.growth[n] * 3,
            "colour's middle": (middles[n] - [blob.x_px, blob.y_px]) * 20 / others.shape[0],
        }
        numbers[f] = np.concatenate([there[name] for name in _PARTS])
        seen[f], before = True, blob
    return Views(crops=crops, numbers=numbers, drift_px=drift, seen=seen)


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Of the middle of its colour, for each of the n frames it was seen in: from the one before and to the next."""

    back: np.ndarray  # n 2
    on: np.ndarray  # n 2
    known: np.ndarray  # n 2: 1 where it was seen in both frames; what it was not is no step
    growth: np.ndarray  # n 2: change of log area


def _steps(track: Track, middles: np.ndarray) -> _Steps:
    known = (np.diff(track.frames) == 1).astype(float)
    step = np.diff(middles, axis=0) * known[:, None]
    growth = np.diff(np.log(track.areas_px)) * known
    return _Steps(
        back=np.pad(step, ((1, 0), (0, 0))),
        on=np.pad(step, ((0, 1), (0, 0))),
        known=np.stack([np.pad(known, (1, 0)), np.pad(known, (0, 1))], axis=1),
        growth=np.stack([np.pad(growth, (1, 0)), np.pad(growth, (0, 1))], axis=1),
    )


def _grown(blob: Blob) -> np.ndarray:
    """h w bool: its pixels and those next to them."""
    return cv2.dilate(blob.pixels.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _middle(blob: Blob, color: np.ndarray) -> np.ndarray:
    """x, y: mean place of its colour in and around its pixels, weighted by how likely it is."""
    near = _grown(blob)
    y, x = np.nonzero(near)
    weight = color[1 + int(blob.color.argmax())][near]
    return np.array([(weight * (x + 0.5)).sum(), (weight * (y + 0.5)).sum()]) / weight.sum()


def _crop(picture: np.ndarray, color: np.ndarray, blob: Blob, others: np.ndarray, side: float) -> np.ndarray:
    x0, y0, x1, y1 = blob.box_px
    scale = side / CROP_PX
    # Of what is partly hidden the votes' middle is the better middle, but it must stay near what is seen.
    x, y = np.clip(blob.x_px, x0 - side / 4, x1 + side / 4), np.clip(blob.y_px, y0 - side / 4, y1 + side / 4)
    place = np.array([[scale, 0, x - side / 2 - 0.5 + scale / 2], [0, scale, y - side / 2 - 0.5 + scale / 2]])
    grey = picture.astype(np.float32).mean(-1)
    own = grey[blob.pixels]
    grey = np.clip(128 + 48 * (grey - own.mean()) / (own.std() + 4), 0, 255)  # shading, whatever its colour
    # Edge pixels count in part: at ten pixels across, whether an outline is round lies in them.
    mine = color[1 + int(blob.color.argmax())] * (_grown(blob) & ~others)
    layers = np.stack([grey, mine * 255, (1 - color[0]) * others * 255], axis=-1).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(layers, place, (CROP_PX, CROP_PX), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return np.clip(cut.round(), 0, 255).astype(np.uint8).transpose(2, 0, 1)


def _numbers(blob: Blob, before: Blob | None, under: Ground, others: np.ndarray) -> dict[str, np.ndarray]:
    """Of one frame, by the names of _PARTS."""
    height, width = others.shape
    x, y = (blob.x_px - width / 2) / height, (blob.y_px - height / 2) / height
    edge = blob.box_px
    x0, y0, x1, y1 = ((v - m / 2) / height for v, m in zip(edge, (width, height) * 2, strict=True))
    floor, own = _flows(blob, under, others)
    moved, gap = np.zeros(2), 0
    if before is not None:
        gap = blob.frame - before.frame
        moved = np.array([blob.x_px - before.x_px, blob.y_px - before.y_px]) / gap
    near = _grown(blob) & others
    # Where it stands the background is the floor that it stands on, so its foot tells what the camera does to it.
    behind = [_background(under, step, x, y1) for step in (blob.frame - 1, blob.frame)]
    return {
        "middle": np.array([2 * x, 2 * y]),
        "left, right": np.array([2 * x0, 2 * x1]),
        "top, bottom": np.array([2 * y0, 2 * y1]),
        "width, height, extent": np.array([5 * (x1 - x0), 5 * (y1 - y0), np.sqrt(blob.area_px) / height * 5]),
        "log distance as it looks": np.log([max(blob.depth_m, 0.1)]),
        "gap": np.array([gap / 2]),
        "votes back": moved * 20 / height,
        "floor on": floor * 20 / height,
        "own flow on": own * 20 / height,
        "background back": behind[0] * 20,
        "background on": behind[1] * 20,
        "camera": (under.steps.mean(0) if len(under.steps) else np.zeros(8)) / 0.03,
        "touched": np.array([float(near.mean() * 50), float(near.any())]),
        "cut left, right": np.array([float(edge[0] <= 1), float(edge[2] >= width - 1)]),
        "cut top, bottom": np.array([float(edge[1] <= 1), float(edge[3] >= height - 1)]),
        "size": np.clip(blob.size / max(blob.area_px, 1.0), -4, 0),
        "shape": np.clip(blob.shape / max(blob.area_px, 1.0), -4, 0),
    }


def _background(under: Ground, step: int, x: float, y: float) -> np.ndarray:
    """2: where the background goes there in a step, picture heights; 0 before the first and after the last."""
    return background_at(under.steps[step], x, y) if 0 <= step < len(under.steps) else np.zeros(2)


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
