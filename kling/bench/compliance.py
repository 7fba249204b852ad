"""Physics compliance of tracked things: how much of what they do the laws of motion allow.

Paths in metres (`kling.bench.paths`) go to `kling.physics.residual`, which asks each acceleration to be one that
gravity, a floor with friction and impacts can make. The tolerance is stated: three errors of a tracked place of
SIGMA_M plus a twentieth of gravity. A clip obeys when LAWFUL_CLIP of its judged moments do.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from kling.bench.background import BackgroundMotion
from kling.bench.paths import Path
from kling.bench.tracks import Track
from kling.errors import InputError
from kling.physics.residual import residual
from kling.prompt import knowledge
from kling.prompt.graph import SceneGraph

SIGMA_M = 0.016  # of one coordinate of one frame, at 64 pixels and 3 m
LAWFUL_CLIP = 0.9
_HANGS = "swing"


def lawful(
    graph: SceneGraph, of: Mapping[str, int | None], tracks: Sequence[Track], ways: Sequence[Path],
    background: BackgroundMotion, *, fps: float,
) -> float | None:  # fmt: skip
    """Share of judged (frame, thing) pairs; None when there is nothing that may be judged.

    Not judged: what hangs (swings), what stands on something or starts a later event by a push that a clip cannot show
    the cause of, and frames in which things touch or were not seen.
    """
    del background
    excused = {of.get(e.agent) for e in graph.events if e.action == _HANGS or e.order > 0}
    excused |= {of.get(r.subject) for r in graph.relations if r.kind == "on"}
    chosen = [i for i in range(len(tracks)) if i not in excused and len(tracks[i].blobs) >= 4]
    if not chosen or len(ways[chosen[0]].frames) < 3:
        return None
    num_frames = max(int(way.frames[-1]) for way in ways) + 1
    place = np.full((num_frames, len(chosen), 3), np.nan)
    rest = np.zeros(len(chosen))
    for k, i in enumerate(chosen):
        way = ways[i]
        up = way.up_m
        place[way.frames, k] = np.stack([way.right_m, way.away_m, up - np.quantile(up, 0.1)], axis=1)
    radius = np.array([ways[i].width_m / 2 for i in chosen])
    held = _touching([tracks[i] for i in chosen], num_frames)
    gravity = knowledge.GRAVITY_M_S2.get(graph.gravity or "earth", 9.81)
    # Each thing is measured from where it was first seen: who touches whom is told from the pictures, not from these.
    apart = np.arange(len(chosen)) * 100.0
    place[..., 0] += apart
    try:
        found = residual(
            place, fps=fps, rest_height_m=rest, radius_m=radius, gravity_m_s2=gravity, sigma_m=SIGMA_M, held=held
        )
    except InputError:
        return None
    judged = np.isfinite(found.acceleration_m_s2).any()
    return found.lawful if judged else None


def _touching(tracks: Sequence[Track], num_frames: int) -> np.ndarray:
    """f k bool: their boxes touch another's, and from the picture no one can tell what they do to each other."""
    boxes = np.full((num_frames, len(tracks), 4), np.nan)
    for k, track in enumerate(tracks):
        for blob in track.blobs:
            boxes[blob.frame, k] = blob.box_px
    touch = np.zeros((num_frames, len(tracks)), bool)
    for a in range(len(tracks)):
        for b in range(len(tracks)):
            if a != b:
                dx = np.maximum(boxes[:, a, 0] - boxes[:, b, 2], boxes[:, b, 0] - boxes[:, a, 2])
                dy = np.maximum(boxes[:, a, 1] - boxes[:, b, 3], boxes[:, b, 1] - boxes[:, a, 3])
                touch[:, a] |= (dx <= 1.0) & (dy <= 1.0)
    return touch
