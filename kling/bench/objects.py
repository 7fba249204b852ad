"""Which seen thing is which said one, and whether its colour, shape and size are as said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from kling.bench.reader import SIZE_NAMES
from kling.bench.tracks import Track
from kling.prompt.graph import COLORS, SHAPES, ObjectNode

_COST = {"color": 1.0, "shape": 0.8, "size": 0.2}
_SEEN_SHARE = 0.2  # of a clip's frames that a thing must be seen in to count
_GLINT_PX = 6.0  # what is smaller than this on the whole must be seen most of the time


@dataclass(frozen=True, kw_only=True)
class ObjectVerdict:
    """One said object. A verdict is None where nothing was said, or the word is not one that can be read."""

    id: str
    track: int | None  # index of the seen thing that it was matched with
    seen_color: str | None
    seen_shape: str | None
    seen_size: str | None  # "small", "large", or "" for between
    color: bool | None
    shape: bool | None
    size: bool | None


def match(nodes: Sequence[ObjectNode], tracks: Sequence[Track]) -> tuple[ObjectVerdict, ...]:
    """The pairing under which most of what was said is right (Hungarian method). Missing objects are wrong in all."""
    cost = np.array([[_cost(node, track) for track in tracks] for node in nodes]).reshape(len(nodes), len(tracks))
    pairs = dict(zip(*(index.tolist() for index in linear_sum_assignment(cost)), strict=True))
    return tuple(_verdict(node, pairs.get(i), tracks) for i, node in enumerate(nodes))


def lasting(tracks: Sequence[Track], num_frames: int) -> list[Track]:
    """Those that are seen long enough to be things and not glints."""
    return [
        track
        for track in tracks
        if len(track.blobs) >= max(2, _SEEN_SHARE * num_frames)
        and (track.areas_px.mean() >= _GLINT_PX or len(track.blobs) >= 0.7 * num_frames)
    ]


def _cost(node: ObjectNode, track: Track) -> float:
    cost = 0.0
    if node.color in COLORS:
        cost += _COST["color"] * (1 - track.color_shares[COLORS.index(node.color)])
    if node.shape in SHAPES:
        cost += _COST["shape"] * (1 - track.shape_shares[SHAPES.index(node.shape)])
    if node.size in SIZE_NAMES:
        cost += _COST["size"] * (1 - track.size_shares[SIZE_NAMES.index(node.size)])
    return cost


def _verdict(node: ObjectNode, index: int | None, tracks: Sequence[Track]) -> ObjectVerdict:
    track = None if index is None else tracks[index]
    size = None if node.size not in SIZE_NAMES else track is not None and _reads_as(track, node.size)
    return ObjectVerdict(
        id=node.id,
        track=index,
        seen_color=track.color if track else None,
        seen_shape=track.shape if track else None,
        seen_size=track.size if track else None,
        color=None if node.color not in COLORS else track is not None and track.color == node.color,
        shape=None if node.shape not in SHAPES else track is not None and track.shape == node.shape,
        size=size,
    )


def _reads_as(track: Track, size: str) -> bool:
    """Small or large, of the two: what lies between goes to the nearer."""
    small, _, large = track.size_shares
    return bool((small > large) == (size == "small"))
