"""Whether things stand to each other as was said, in the first frame in which both are seen."""

from collections.abc import Mapping, Sequence

import numpy as np

from kling.bench.paths import LOOK_DOWN
from kling.bench.tracks import Blob, Track
from kling.prompt.graph import Relation

_NEAR_WIDTHS = 5.5  # things nearer than so many of their mean widths are near each other


def judge(said: Sequence[Relation], tracks: Mapping[str, Track]) -> tuple[bool, ...]:
    """One verdict each. A relation of a thing that is not seen does not hold."""
    return tuple(_holds(relation, tracks) for relation in said)


def _holds(relation: Relation, tracks: Mapping[str, Track]) -> bool:
    pair = _together(tracks.get(relation.subject), tracks.get(relation.object))
    if pair is None:
        return False
    a, b = pair
    width = (np.sqrt(a.area_px) + np.sqrt(b.area_px)) / 2
    right = b.x_px - a.x_px
    lower = a.box_px[3] - b.box_px[3]  # the nearer of two things on a floor stands lower in the picture
    match relation.kind:
        case "left_of":
            return bool(right > 0)
        case "right_of":
            return bool(right < 0)
        case "in_front_of":
            return bool(_nearer(a, b, lower, width) > 0)
        case "behind":
            return bool(_nearer(a, b, lower, width) < 0)
        case "on" | "above":
            return bool(b.y_px - a.y_px > 0.3 * width and abs(right) < 1.2 * width)
        case "near":
            return bool(np.hypot(right, min(abs(lower) / LOOK_DOWN, 3 * width)) < _NEAR_WIDTHS * width)
    return False


def _nearer(a: Blob, b: Blob, lower: float, width: float) -> float:
    """Positive when ``a`` is nearer: its foot is lower, it looks nearer."""
    return lower / width + 1.5 * (b.depth_m - a.depth_m)


def _together(a: Track | None, b: Track | None) -> tuple[Blob, Blob] | None:
    if a is None or b is None:
        return None
    there = {blob.frame: blob for blob in b.blobs}
    for blob in a.blobs:
        if blob.frame in there:
            return blob, there[blob.frame]
    return a.blobs[0], b.blobs[0]
