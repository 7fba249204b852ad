"""From where a scene is seen: a camera that keeps it in frame, and the said moves around that view."""

import math

import numpy as np

from kling.camera import poses
from kling.prompt.graph import CameraMove
from kling.scene.plan import CameraKey, PlannedCamera

_FOV_DEG = 42.0
_FILL = 0.84  # share of the picture's half width that the scene may take
_MIN_DISTANCE_M = 2.35
_KEYS = 5


def frame(
    moves: tuple[CameraMove, ...],
    starts: np.ndarray,
    ends: np.ndarray,
    radii: np.ndarray,
    *,
    duration_s: float,
    aspect: float,
    rng: np.random.Generator,
) -> PlannedCamera:
    """A camera in front of the scene (it looks along +y in the first frame) that makes the moves.

    Args:
        starts, ends: k 3, where objects start and roughly end.
        radii: k.
    """
    points = np.concatenate([starts, ends, starts * [1, 1, 0]]) if len(starts) else np.zeros((1, 3))
    reach = np.concatenate([radii, radii, radii]) if len(radii) else np.zeros(1)
    low, high = (points - reach[:, None]).min(axis=0), (points + reach[:, None]).max(axis=0)
    target = (low + high) / 2
    target[2] = max(target[2], 0.25)
    elevation = math.radians(float(rng.uniform(13, 21)))
    focal = float(poses.focal(_FOV_DEG))
    back = np.array([0.0, -math.cos(elevation), math.sin(elevation)])
    up = np.array([0.0, math.sin(elevation), math.cos(elevation)])
    sideways = np.abs(points[:, 0] - target[0]) + reach
    upwards = np.abs((points - target) @ up) + reach
    nearer = (points - target) @ back  # how much nearer than the target
    need = np.maximum(sideways * focal * 2 / aspect, upwards * focal * 2) / _FILL + nearer
    distance = max(float(need.max()), _MIN_DISTANCE_M)
    span = min(duration_s, 3.0) / 2.0
    keys = [
        _key(moves, u, duration_s * u, target, distance, elevation, span)
        for u in np.linspace(0, 1, _KEYS if moves else 1)
    ]
    names = tuple(" ".join(part for part in (move.kind, move.direction) if part) for move in moves) or ("static",)
    return PlannedCamera(moves=names, keys=tuple(keys))


def _key(moves, u: float, time_s: float, target, distance: float, elevation: float, span: float) -> CameraKey:
    """The camera at share ``u`` of the way."""
    yaw = pitch = roll = azimuth = shift = rise = 0.0
    scale, fov = 1.0, _FOV_DEG
    for move in moves:
        amount = {"slow": 0.6, "fast": 1.5}.get(move.speed or "", 1.0) * span
        sign = -1.0 if move.direction in ("left", "down", "out") else 1.0
        centered = u - 0.5
        match move.kind:
            case "pan":
                yaw += sign * 26 * amount * centered
            case "tilt":
                pitch += sign * 20 * amount * centered
            case "roll":
                roll += sign * 26 * amount * u
            case "orbit":
                azimuth += sign * 50 * amount * u
            case "crane":
                rise += sign * 1.3 * amount * centered
            case "zoom":
                fov = float(poses.fov_y_deg(poses.focal(fov) * 1.75 ** (sign * amount * centered)))
            case "dolly" if move.direction in ("left", "right"):
                shift += sign * 0.9 * amount * centered
            case "dolly":
                scale *= 1.7 ** (-sign * amount * centered)
    angle = math.radians(azimuth)
    away = np.array(
        [math.sin(angle) * math.cos(elevation), -math.cos(angle) * math.cos(elevation), math.sin(elevation)]
    )
    position = target + away * distance * scale
    position[0] += shift
    look = target + np.array([shift, 0.0, 0.0])
    position[2] = max(position[2] + rise, 0.2)
    quaternion = poses.look_at(position, look, roll_rad=math.radians(roll))
    # Pan turns about the world's vertical, tilt about the camera's own right.
    quaternion = poses.multiply(poses.about(np.array([0.0, 0.0, 1.0]), math.radians(-yaw)), quaternion)
    quaternion = poses.multiply(quaternion, poses.about(np.array([1.0, 0.0, 0.0]), math.radians(pitch)))
    return CameraKey(
        time_s=round(float(time_s), 4),
        position_m=_round(position),
        quaternion=_round(quaternion),
        fov_y_deg=round(fov, 4),
    )


def _round(values) -> tuple:
    return tuple(round(float(value), 6) + 0.0 for value in values)
