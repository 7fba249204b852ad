"""A camera path: keyframes joined by C1 Bezier curves, rotations on the quaternion sphere.

Positions follow cubic Bezier segments; rotations follow Bezier curves on the unit quaternions, evaluated by de
Casteljau's construction with great arcs (Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985). Both
leave each key with the velocity they arrived with. The field of view moves as the logarithm of the focal length, so
that it can never leave (0, 180) degrees and a zoom looks even.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kling.camera import poses
from kling.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Key:
    """Where the camera is at one moment."""

    time_s: float
    position_m: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]  # camera to world
    fov_y_deg: float


@dataclass(frozen=True, kw_only=True)
class CameraPath:
    """One camera a frame."""

    camera_to_world: Float[np.ndarray, "f 4 4"]
    fov_y_deg: Float[np.ndarray, " f"]


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """Keys as arrays with one tangent each. n keys."""

    time_s: Float[np.ndarray, " n"]
    position: Float[np.ndarray, "n 3"]
    velocity: Float[np.ndarray, "n 3"]
    quaternion: Float[np.ndarray, "n 4"]
    spin: Float[np.ndarray, "n 3"]  # rad/s in the camera's own axes
    log_focal: Float[np.ndarray, "n 1"]
    log_focal_rate: Float[np.ndarray, "n 1"]


def evaluate(keys: Sequence[Key], times_s: Float[np.ndarray, " f"], *, eased: bool = False) -> CameraPath:
    """The camera at each of ``times_s``.

    Args:
        keys: at least one, times strictly increasing. Before the first and after the last the camera holds still.
        eased: start and end at rest (the whole path runs on a smoothstep clock); keys are then passed at other times
            than their own, except the first and the last.

    Raises:
        ConfigError: no keys, times that do not increase, a field of view outside (1, 170), a zero quaternion.
    """
    curve = _curve(keys)
    start, end = curve.time_s[0], curve.time_s[-1]
    times = np.clip(np.asarray(times_s, dtype=np.float64), start, end)
    if eased and end > start:
        u = (times - start) / (end - start)
        times = start + (end - start) * u * u * (3 - 2 * u)
    if len(curve.time_s) == 1:
        index = np.zeros(len(times), dtype=int)
        position, quaternion, log_focal = curve.position[index], curve.quaternion[index], curve.log_focal[index]
    else:
        index = np.clip(np.searchsorted(curve.time_s, times, side="right") - 1, 0, len(curve.time_s) - 2)
        span = curve.time_s[index + 1] - curve.time_s[index]
        u = (times - curve.time_s[index]) / span
        position = _bezier(curve.position, curve.velocity, index, span, u)
        log_focal = _bezier(curve.log_focal, curve.log_focal_rate, index, span, u)
        quaternion = _bezier_on_sphere(curve, index, span, u)
    return CameraPath(
        camera_to_world=poses.pose_matrix(position, quaternion), fov_y_deg=poses.fov_y_deg(np.exp(log_focal[:, 0]))
    )


def frame_times(num_frames: int, fps: float) -> Float[np.ndarray, " f"]:
    """Seconds of each frame: i / fps."""
    return np.arange(num_frames) / fps


def _curve(keys: Sequence[Key]) -> _Curve:
    if not keys:
        raise ConfigError("a camera path needs at least one key", fix="Add a key at time 0")
    time_s = np.array([key.time_s for key in keys], dtype=np.float64)
    if np.any(~np.isfinite(time_s)) or np.any(np.diff(time_s) <= 0):
        raise ConfigError(
            "camera keys must have increasing times", where=str(time_s.tolist()), fix="Sort them; drop repeats"
        )
    fov = np.array([key.fov_y_deg for key in keys], dtype=np.float64)
    if not np.all((fov > 1) & (fov < 170)):
        raise ConfigError("fields of view are between 1 and 170 degrees", where=f"fov_y_deg={fov.tolist()}")
    position = np.array([key.position_m for key in keys], dtype=np.float64)
    if not np.all(np.isfinite(position)):
        raise ConfigError("camera positions must be finite", where=str(position.tolist()))
    quaternion = poses.unit(np.array([key.quaternion for key in keys], dtype=np.float64))
    log_focal = np.log(poses.focal(fov))[:, None]
    turns = poses.to_rotation_vector(poses.multiply(poses.conjugate(quaternion[:-1]), quaternion[1:]))
    return _Curve(
        time_s=time_s,
        position=position,
        velocity=_tangents(time_s, np.diff(position, axis=0)),
        quaternion=quaternion,
        spin=_no_turn_back(_tangents(time_s, turns), time_s, turns),
        log_focal=log_focal,
        log_focal_rate=_tangents(time_s, np.diff(log_focal, axis=0)),
    )


def _tangents(time_s: Float[np.ndarray, " n"], steps: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n d"]:
    """Velocity at each key: that of the parabola through it and its neighbours (exact for uniform motion, and third
    order on arcs); zero beside a segment that stands still, so that a held camera does not swing out first."""
    if len(time_s) == 1:
        return np.zeros((1, steps.shape[1]))
    span = np.diff(time_s)[:, None]
    slope = steps / span
    if len(time_s) == 2:
        return np.concatenate([slope, slope])
    inner = (slope[:-1] * span[1:] + slope[1:] * span[:-1]) / (span[:-1] + span[1:])
    tangents = np.concatenate([(2 * slope[0] - inner[0])[None], inner, (2 * slope[-1] - inner[-1])[None]])
    still = np.linalg.norm(steps, axis=1) < 1e-9
    held = np.concatenate([still, [False]]) | np.concatenate([[False], still])
    tangents[held] = 0.0
    return tangents


def _no_turn_back(
    spin: Float[np.ndarray, "n 3"], time_s: Float[np.ndarray, " n"], turns: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "n 3"]:
    """Spins of at most 1.5 times the slower neighbouring segment's.

    A spin carried from a quick short segment into a long one would reach past half a turn, where the short way round,
    which great arcs take, is the other one: the camera would jump.
    """
    if len(time_s) == 1:
        return spin
    pace = np.linalg.norm(turns, axis=1) / np.diff(time_s)
    most = 1.5 * np.minimum(np.append(pace, np.inf), np.append(np.inf, pace))[:, None]
    speed = np.linalg.norm(spin, axis=1, keepdims=True)
    return spin * np.minimum(1.0, most / np.maximum(speed, 1e-12))


def _bezier(value: np.ndarray, rate: np.ndarray, index: np.ndarray, span: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Cubic Bezier of each segment, from end values and end rates (n d) at shares u (f)."""
    third = (span / 3)[:, None]
    p0, p3 = value[index], value[index + 1]
    p1, p2 = p0 + rate[index] * third, p3 - rate[index + 1] * third
    u, v = u[:, None], 1 - u[:, None]
    return v**3 * p0 + 3 * v * v * u * p1 + 3 * v * u * u * p2 + u**3 * p3


def _bezier_on_sphere(curve: _Curve, index: np.ndarray, span: np.ndarray, u: np.ndarray) -> np.ndarray:
    third = (span / 3)[:, None]
    q0, q3 = curve.quaternion[index], curve.quaternion[index + 1]
    q1 = poses.multiply(q0, poses.from_rotation_vector(curve.spin[index] * third))
    q2 = poses.multiply(q3, poses.from_rotation_vector(-curve.spin[index + 1] * third))
    a, b, c = poses.slerp(q0, q1, u), poses.slerp(q1, q2, u), poses.slerp(q2, q3, u)
    return poses.unit(poses.slerp(poses.slerp(a, b, u), poses.slerp(b, c, u), u))
