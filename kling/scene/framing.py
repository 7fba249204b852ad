"""From where a scene is seen: how near its camera stands, and the said moves around that view (kling.camera)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kling.camera.choose import Framing, choose_camera, frame_scene
from kling.camera.moves import Move
from kling.prompt.graph import CAMERA_MOVES, CameraMove
from kling.scene.plan import UNIT_QUAT, CameraKey, PlannedCamera

_STAGE_M = (0.72, 0.95)  # a scene is shown at least so far to each side, and so high: one small ball is not a close-up
# Share of the picture's height below which the smallest object's diameter must not fall, by number of objects: at 64
# pixels 9, 7 and 5.5 pixels. A camera that cannot keep everything in the picture at that distance lets something leave.
_SMALLEST = ((3, 0.16), (5, 0.13), (99, 0.10))

# A camera that nobody looks through yet.
UNPLACED = PlannedCamera(
    keys=(CameraKey(time_s=0.0, position_m=(0.0, -3.0, 1.0), quaternion=UNIT_QUAT, fov_y_deg=40.0),)
)


def frame(
    moves: Sequence[CameraMove],
    position_m: Float[np.ndarray, "f k 3"],
    radius_m: Float[np.ndarray, " k"],
    *,
    duration_s: float,
    aspect: float,
    elevation_deg: float,
    auto: bool = False,
    scale: float = 1.0,
    speed_m_s: float | None = None,
    turn_deg_s: float | None = None,
) -> PlannedCamera:
    """A camera in front of the scene (it looks along +y in the first frame) that makes the moves.

    Args:
        position_m: where the objects are, over evenly spaced times of the whole clip.
        auto: choose a move where none is said (otherwise the camera stands still).
        scale: how much larger than the playground's the least stage is.
        speed_m_s, turn_deg_s: how fast it travels and turns, where the prompt says it in numbers.
    """
    radii = np.asarray(radius_m, dtype=float)
    if auto and not moves and len(radii):
        return planned(choose_camera(position_m, radii, duration_s=duration_s, aspect=aspect))
    share = next(share for most, share in _SMALLEST if len(radii) <= most)
    if len(radii):
        share *= float(radii.max() / radii.min())
    found = frame_scene(
        _with_stage(position_m, aspect, scale),
        np.concatenate([radii, np.full(3, 0.02 * scale)]),
        [
            Move(
                kind=move.kind,
                direction=_direction(move),
                word=move.speed,
                speed=speed_m_s if move.kind in ("dolly", "crane") else turn_deg_s if move.kind != "static" else None,
            )
            for move in moves
        ],
        duration_s=duration_s,
        aspect=aspect,
        elevation_deg=elevation_deg,
        smallest=min(share, 0.4),
    )
    return planned(found)


def planned(framing: Framing) -> PlannedCamera:
    """The camera as a plan says it."""
    keys = tuple(
        CameraKey(
            time_s=round(key.time_s, 5),
            position_m=_round(key.position_m),
            quaternion=_round(key.quaternion),
            fov_y_deg=round(key.fov_y_deg, 5),
        )
        for key in framing.keys
    )
    return PlannedCamera(moves=tuple(move.name for move in framing.moves) or ("static",), keys=keys)


def _direction(move: CameraMove) -> str | None:
    """The said direction, or the usual one of a move that was said without."""
    known = CAMERA_MOVES.get(move.kind, (None,))
    return move.direction if move.direction in known else known[0]


def _with_stage(position_m: np.ndarray, aspect: float, scale: float) -> np.ndarray:
    """The trajectories and three still points that span the least stage, around the middle of the scene."""
    frames = len(position_m)
    middle = np.zeros(2)
    if position_m.shape[1]:
        flat = position_m[..., :2].reshape(-1, 2)
        middle = (flat.min(axis=0) + flat.max(axis=0)) / 2
    wide, high = _STAGE_M[0] * max(aspect, 1.0) * scale, _STAGE_M[1] / min(aspect, 1.0) * scale
    points = np.array([(middle[0] - wide, middle[1], 0.05), (middle[0] + wide, middle[1], 0.05), (*middle, high)])
    return np.concatenate([position_m, np.broadcast_to(points, (frames, 3, 3))], axis=1)


def _round(values: Sequence[float]) -> tuple:
    return tuple(round(float(value), 6) + 0.0 for value in values)
