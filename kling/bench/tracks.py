"""From what is read in single pictures to things that last: blobs of a colour, joined over the frames.

Pixels vote for the middle of their object, so two red balls that touch stay two, and a cube cut in two by what stands
in front of it stays one. Blobs of neighbouring frames are matched by place, colour and size (Kuhn 1955); what was
hidden for a while is taken up again.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from kling.bench.reader import SIZE_NAMES, Reading
from kling.prompt.graph import COLORS, SHAPES

_THING = 0.5  # probability of being background below which a pixel belongs to a thing
_LEAST_PX = 5.0  # a blob of fewer pixels is not read
_VOTE_BLUR_PX = 1.3
_PEAK = 3  # half width of the window in which a vote's maximum must be the highest
_SAME = 0.6
_FAR = 1e6
_MOST_HIDDEN = 8  # frames after which a thing that is not seen is given up
_LEAST_SEEN = 3  # frames a track must be seen in


@dataclass(frozen=True, kw_only=True)
class Blob:
    """One thing in one frame. Pixels of the network's resolution."""

    frame: int
    x_px: float  # its middle, also of what is hidden of it
    y_px: float
    area_px: float
    box_px: tuple[float, float, float, float]  # x0, y0, x1, y1 of what is seen
    color: np.ndarray  # 8: share of its pixels
    shape: np.ndarray  # 5: sum of log probabilities over its pixels
    size: np.ndarray  # 3: the same
    depth_m: float
    pixels: np.ndarray  # h w bool


@dataclass(frozen=True, kw_only=True)
class Track:
    """One thing over time."""

    blobs: tuple[Blob, ...]  # by frame; frames in which it was not seen are left out

    @property
    def frames(self) -> np.ndarray:
        return np.array([blob.frame for blob in self.blobs])

    @property
    def places_px(self) -> np.ndarray:
        """n 2."""
        return np.array([(blob.x_px, blob.y_px) for blob in self.blobs])

    @property
    def areas_px(self) -> np.ndarray:
        return np.array([blob.area_px for blob in self.blobs])

    @property
    def color_shares(self) -> np.ndarray:
        """8, summing to 1."""
        return np.average([blob.color for blob in self.blobs], axis=0, weights=self.areas_px)

    @property
    def shape_shares(self) -> np.ndarray:
        """5, summing to 1: how sure the frames together are."""
        return _softmax(_mean_logs([blob.shape for blob in self.blobs], self.areas_px))

    @property
    def size_shares(self) -> np.ndarray:
        """3, summing to 1."""
        return _softmax(_mean_logs([blob.size for blob in self.blobs], self.areas_px))

    @property
    def color(self) -> str:
        return COLORS[int(self.color_shares.argmax())]

    @property
    def shape(self) -> str:
        return SHAPES[int(self.shape_shares.argmax())]

    @property
    def size(self) -> str:
        return SIZE_NAMES[int(self.size_shares.argmax())]


def find(reading: Reading) -> list[Track]:
    """Every thing that is seen in at least a few frames."""
    tracks: list[list[Blob]] = []
    for frame in range(len(reading.color)):
        _continue(tracks, _blobs(reading, frame), frame)
    joined = _join([track for track in tracks if track])
    least = min(_LEAST_SEEN, len(reading.color))
    return [Track(blobs=tuple(track)) for track in joined if len(track) >= least]


def _blobs(reading: Reading, frame: int) -> list[Blob]:
    color = reading.color[frame]
    thing = color[0] < _THING
    best = color[1:].argmax(0)
    found = []
    for number in np.unique(best[thing]):
        mask = thing & (best == number)
        if mask.sum() < _LEAST_PX:
            continue
        for pixels in _split(mask, reading.offset_px[frame]):
            if pixels.sum() >= _LEAST_PX:
                found.append(_blob(reading, frame, pixels))
    return _without_rims(found)


def _split(mask: np.ndarray, offset_px: np.ndarray) -> list[np.ndarray]:
    """Masks (h w) of the things of one colour: pixels that vote for the same middle."""
    height, width = mask.shape
    y, x = np.nonzero(mask)
    vote_x = np.clip(x + 0.5 + offset_px[0][mask], 0, width - 0.01)
    vote_y = np.clip(y + 0.5 + offset_px[1][mask], 0, height - 0.01)
    votes = np.zeros((height, width), np.float32)
    np.add.at(votes, (vote_y.astype(int), vote_x.astype(int)), 1.0)
    votes = cv2.GaussianBlur(votes, (0, 0), _VOTE_BLUR_PX)
    side = 2 * _PEAK + 1
    peaks = (votes == cv2.dilate(votes, np.ones((side, side), np.uint8))) & (votes > 0.25)
    py, px = np.nonzero(peaks)
    if len(px) <= 1:
        return [mask]
    strength = votes[peaks]
    away = np.hypot(vote_x[:, None] - px - 0.5, vote_y[:, None] - py - 0.5)
    owner = away.argmin(1)
    weight = np.bincount(owner, minlength=len(px))
    # A thing holds a fair share of its colour's votes close to its peak; stragglers go to the nearest real one.
    real = (weight >= _LEAST_PX) & (strength >= 0.15 * strength.max())
    # Votes of a large thing scatter: peaks nearer than half its width are one.
    for n in np.argsort(strength):
        stronger = real & (strength > strength[n])
        reach = _SAME * np.sqrt(np.maximum(weight, weight[n]))
        if real[n] and (np.hypot(px - px[n], py - py[n])[stronger] < reach[stronger]).any():
            real[n] = False
    if not real.any():
        return [mask]
    owner = np.where(real[None], away, _FAR).argmin(1)
    masks = []
    for n in np.nonzero(real)[0]:
        own = np.zeros_like(mask)
        own[y[owner == n], x[owner == n]] = True
        masks.append(own)
    return masks


def _blob(reading: Reading, frame: int, pixels: np.ndarray) -> Blob:
    y, x = np.nonzero(pixels)
    weight = 1 - reading.color[frame, 0][pixels]
    color = reading.color[frame, 1:][:, pixels].sum(1)
    votes_x = x + 0.5 + reading.offset_px[frame, 0][pixels]
    votes_y = y + 0.5 + reading.offset_px[frame, 1][pixels]
    return Blob(
        frame=frame,
        x_px=float(np.median(votes_x)),
        y_px=float(np.median(votes_y)),
        area_px=float(weight.sum()),
        box_px=(float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)),
        color=color / color.sum(),
        shape=(reading.shape[frame][:, pixels] * weight).sum(1),
        size=(reading.size[frame][:, pixels] * weight).sum(1),
        depth_m=float(np.median(reading.depth_m[frame][pixels])),
        pixels=pixels,
    )


def _without_rims(blobs: list[Blob]) -> list[Blob]:
    """Drop the thin seams of mixed colour that lie between two things, or along the edge of one."""
    kept = []
    for blob in blobs:
        grown = cv2.dilate(blob.pixels.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        near = any(
            other is not blob
            and other.area_px > 3 * blob.area_px
            and np.hypot(other.x_px - blob.x_px, other.y_px - blob.y_px) < 0.35 * np.sqrt(other.area_px)
            and (grown & other.pixels).any()
            for other in blobs
        )
        if not near:
            kept.append(blob)
    return kept


def _continue(tracks: list[list[Blob]], blobs: list[Blob], frame: int) -> None:
    """Give each blob to the track it goes on with, or a new one."""
    cost = np.full((len(tracks), len(blobs)), _FAR)
    for i, track in enumerate(tracks):
        if frame - track[-1].frame > _MOST_HIDDEN:
            continue
        for j, blob in enumerate(blobs):
            cost[i, j] = _cost(track, blob)
    taken = set()
    for i, j in zip(*linear_sum_assignment(cost), strict=True):
        if cost[i, j] < 1.0:
            tracks[i].append(blobs[j])
            taken.add(j)
    tracks.extend([blob] for j, blob in enumerate(blobs) if j not in taken)


def _cost(track: list[Blob], blob: Blob) -> float:
    """Below 1: may be the same thing."""
    last = track[-1]
    gap = blob.frame - last.frame
    speed = np.zeros(2)
    if len(track) > 1:
        before = track[-2]
        speed = np.array([last.x_px - before.x_px, last.y_px - before.y_px]) / (last.frame - before.frame)
    step = np.array([blob.x_px - last.x_px, blob.y_px - last.y_px])
    width = np.sqrt(max(last.area_px, blob.area_px))
    away = min(np.hypot(*(step - speed * min(gap, 2))), np.hypot(*step) * 1.3)
    reach = (5.0 + 0.8 * width) * (1 + 0.25 * (gap - 1))
    unlike = 1 - float(np.minimum(last.color, blob.color).sum())
    grown = abs(np.log(blob.area_px / last.area_px))
    return float(away / reach + 0.9 * unlike + 0.12 * grown)


def _join(tracks: list[list[Blob]]) -> list[list[Blob]]:
    """Take up again what was lost from sight, longest first: what looks the same and fits into the gaps."""
    joined: list[list[Blob]] = []
    for track in sorted(tracks, key=len, reverse=True):
        fits = [other for other in joined if _continues(other, track)]
        if not fits:
            joined.append(track)
            continue
        other = max(fits, key=len)
        best = {blob.frame: blob for blob in track}
        for blob in other:
            if blob.frame not in best or blob.area_px >= best[blob.frame].area_px:
                best[blob.frame] = blob
        other[:] = [best[frame] for frame in sorted(best)]
    return joined


def _continues(a: list[Blob], b: list[Blob]) -> bool:
    """Whether two tracks may be one thing: alike, hardly ever seen at once, and never a leap apart."""
    if np.minimum(_look(a), _look(b)).sum() < 0.6:
        return False
    both = {blob.frame for blob in a} & {blob.frame for blob in b}
    if len(both) > 0.4 * min(len(a), len(b)):
        return False
    union = sorted([*a, *b], key=lambda blob: blob.frame)
    width = np.sqrt(np.median([blob.area_px for blob in a]))
    for one, next_ in pairwise(union):
        reach = 4.0 + 0.7 * width + 3.0 * (next_.frame - one.frame)
        if np.hypot(one.x_px - next_.x_px, one.y_px - next_.y_px) > reach:
            return False
    return True


def _look(track: list[Blob]) -> np.ndarray:
    return np.average([blob.color for blob in track], axis=0, weights=[blob.area_px for blob in track])


def _mean_logs(sums: list[np.ndarray], areas: np.ndarray) -> np.ndarray:
    """Pixels of one picture say nearly the same: each frame counts as one observation, weighted by what is seen."""
    logs = np.array(sums) / areas[:, None]
    weight = np.sqrt(areas)
    return (logs * weight[:, None]).sum(0) / weight.mean()


def _softmax(logs: np.ndarray) -> np.ndarray:
    shares = np.exp(logs - logs.max())
    return shares / shares.sum()
