"""What moves on its own in any footage, from dense optical flow: regions, joined over the frames.

Nothing is recognised here. The background's flow is the eight-number motion of a plane (see `kling.bench.background`),
fitted so that what does not go along weighs little (Huber 1964); what is left over and stands out is a region. Regions
of neighbouring frames are one thing when the flow carries the one into the other.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from kling.bench import background

_STANDS_OUT_PX = 0.6  # a region moves at least so much differently from the background, a frame
_STANDS_OUT = 4.0  # and so many times the usual disagreement of the background's own flow
_LEAST_SHARE = 0.0015  # of the picture
_MOST_SHARE = 0.4  # what is larger is a background that was not understood
_LEAST_SEEN = 3  # frames
_MOST_THINGS = 16
_FEWEST = 4  # corners
_ROUNDS = 8  # of reweighting
_OVERLAP = 0.25  # of intersection over union, after the flow


@dataclass(frozen=True, kw_only=True)
class Region:
    """One region in one frame; pixels of the pictures that flow was measured on."""

    frame: int
    x_px: float
    y_px: float
    box_px: tuple[float, float, float, float]
    area_px: float
    slide_px: tuple[float, float]  # its own flow to the next frame (median)
    own_px: tuple[float, float]  # the same without the background's
    mask: np.ndarray  # h w bool


def regions(flow: np.ndarray, grey: np.ndarray) -> list[list[Region]]:
    """Things that move on their own, each as its regions by frame, the largest and longest-lasting first.

    Args:
        flow: f-1 h w 2, as of `kling.quality.motion.flows`. The last frame has no flow and so no region.
        grey: f h w, 0..255: the pictures it was measured on.
    """
    pictures = np.clip(grey, 0, 255).astype(np.uint8)
    tracks: list[list[Region]] = []
    for frame in range(len(flow)):
        _continue(tracks, _stand_out(flow[frame], pictures[frame : frame + 2], frame))
    lasting = [track for track in tracks if len(track) >= _LEAST_SEEN]
    return sorted(lasting, key=lambda track: -sum(region.area_px for region in track))[:_MOST_THINGS]


def _stand_out(flow: np.ndarray, pair: np.ndarray, frame: int) -> list[Region]:
    height, width = flow.shape[:2]
    rest = flow - background_flow(flow)
    length = np.linalg.norm(rest, axis=-1)
    usual = float(np.median(length))
    mask = (length > max(_STANDS_OUT_PX, _STANDS_OUT * usual)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, index, stats, _ = cv2.connectedComponentsWithStats(mask)
    found = []
    for n in range(1, count):
        x, y, w, h, area = stats[n]
        if not _LEAST_SHARE * height * width <= area <= _MOST_SHARE * height * width:
            continue
        own = index == n
        ys, xs = np.nonzero(own)
        slide = _slide(pair, own, flow)
        found.append(
            Region(
                frame=frame,
                x_px=float(xs.mean() + 0.5),
                y_px=float(ys.mean() + 0.5),
                box_px=(float(x), float(y), float(x + w), float(y + h)),
                area_px=float(area),
                slide_px=(float(slide[0]), float(slide[1])),
                own_px=tuple((slide - np.median((flow - rest)[own], axis=0)).tolist()),
                mask=own,
            )
        )
    return found


def _slide(pair: np.ndarray, own: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """2: how far the region moves: dense flow is drawn towards what is around it, so its corners are followed."""
    inside = cv2.erode(own.astype(np.uint8), np.ones((3, 3), np.uint8))
    points = cv2.goodFeaturesToTrack(pair[0], 40, 0.02, 3, mask=inside)
    if points is None or len(points) < _FEWEST:
        return np.median(flow[own], axis=0)
    options = {"winSize": (9, 9), "maxLevel": 3}
    moved, found, _ = cv2.calcOpticalFlowPyrLK(pair[0], pair[1], points, None, **options)  # type: ignore[call-overload]
    steps = (moved - points)[found.ravel() == 1, 0]
    if len(steps) < _FEWEST:
        return np.median(flow[own], axis=0)
    # Of what moves in a region, the region's own motion is what most corners agree on.
    agree = (np.linalg.norm(steps[:, None] - steps[None], axis=-1) < 0.5).sum(1)
    best = steps[np.linalg.norm(steps - steps[agree.argmax()], axis=1) < 0.5]
    return np.median(best, axis=0)


def background_flow(flow: np.ndarray) -> np.ndarray:
    """h w 2: the flow if everything were the background."""
    height, width = flow.shape[:2]
    across, along = _basis(height, width)
    motion = background_motion(flow) * height
    return np.stack([across @ motion, along @ motion], axis=-1)


def background_motion(flow: np.ndarray) -> np.ndarray:
    """8: the background's motion in one step, as of `kling.bench.background` (reweighted least squares, few pixels)."""
    height, width = flow.shape[:2]
    step = max(1, min(height, width) // 32)
    basis = np.concatenate([part[::step, ::step].reshape(-1, 8) for part in _basis(height, width)])
    seen = flow[::step, ::step].reshape(-1, 2).T.reshape(-1).astype(np.float64)
    weight, motion = np.ones(len(seen)), np.zeros(8)
    for _ in range(_ROUNDS):
        weighted = basis * weight[:, None]
        motion = np.linalg.solve(weighted.T @ basis + 1e-6 * np.eye(8), weighted.T @ seen)
        off = np.hypot(*np.abs(seen - basis @ motion).reshape(2, -1))
        scale = max(0.05, 1.5 * float(np.median(off)))
        weight = np.tile(1 / (1 + (off / scale) ** 2), 2)
    return motion / height


def background_at(motion: np.ndarray, x: float, y: float) -> np.ndarray:
    """2: where one step of a background's motion (8) takes what is at x, y; picture heights from the middle."""
    return background.basis(np.asarray(x, float), np.asarray(y, float)) @ motion


@lru_cache(maxsize=8)
def _basis(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """h w 8 each: motion to the right and down, by each of the eight numbers."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = (x + 0.5 - width / 2) / height, (y + 0.5 - height / 2) / height
    one, zero = np.ones_like(x), np.zeros_like(x)
    across = np.stack([one, x, y, zero, zero, zero, x * x, x * y], axis=-1)
    along = np.stack([zero, zero, zero, one, x, y, x * y, y * y], axis=-1)
    return across, along


def _continue(tracks: list[list[Region]], found: list[Region]) -> None:
    """Give each region to the thing that the flow carries into it, or to a new one."""
    cost = np.ones((len(tracks), len(found)))
    for i, track in enumerate(tracks):
        last = track[-1]
        for j, region in enumerate(found):
            if region.frame - last.frame == 1:
                cost[i, j] = 1 - _carried(last, region)
    taken = set()
    for i, j in zip(*linear_sum_assignment(cost), strict=True):
        if cost[i, j] < 1 - _OVERLAP:
            tracks[i].append(found[j])
            taken.add(j)
    tracks.extend([region] for j, region in enumerate(found) if j not in taken)


def _carried(last: Region, region: Region) -> float:
    """Intersection over union of the region and the last one moved by its flow."""
    height, width = last.mask.shape
    shift = np.array([[1, 0, last.slide_px[0]], [0, 1, last.slide_px[1]]])
    moved = cv2.warpAffine(last.mask.astype(np.uint8), shift, (width, height), flags=cv2.INTER_NEAREST) > 0
    either = (moved | region.mask).sum()
    return float((moved & region.mask).sum() / either) if either else 0.0
