"""The camera a scene asks for: where it starts and how it moves, so that what must stay in frame stays in frame.

Framing is measured, not hoped for: every candidate is tried on the objects' own trajectories, and the share of
objects and frames that are wholly inside the picture is returned with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from kling.camera import poses
from kling.camera.moves import Move, View, move_keys
from kling.camera.path import CameraPath, Key, evaluate
from kling.errors import ConfigError

_MARGIN = 0.04  # of the picture, kept free at each side
_STEP_BACK = 1.12  # the camera retreats by this factor until everything fits
_MOST_STEPS = 14


@dataclass(frozen=True, kw_only=True)
class Framing:
    """A camera and how well it does."""

    keys: tuple[Key, ...]
    moves: tuple[Move, ...]
    in_frame: float  # share of (object, frame) pairs wholly inside the picture, of those that must stay
    reason: str  # why this camera, in words for a person


def frame_scene(
    position_m: Float[np.ndarray, "f k 3"],
    radius_m: Float[np.ndarray, " k"],
    moves: Sequence[Move],
    *,
    duration_s: float,
    aspect: float,
    fov_y_deg: float = 40.0,
    elevation_deg: float = 16.0,
    must_stay: Bool[np.ndarray, " k"] | None = None,
    smallest: float = 0.085,
) -> Framing:
    """Stand in front of the scene (at -y), at the distance at which these moves keep everything in frame.

    Args:
        position_m: objects' centres over evenly spaced times from 0 to ``duration_s`` (any number of frames, also 1).
        radius_m: bounding spheres.
        aspect: picture width over height.
        elevation_deg: how far the camera looks down.
        must_stay: which objects count; None: all.
        smallest: the camera never goes so far that the largest object's diameter falls under this share of the
            picture's height; then some things leave the frame, and ``in_frame`` says how many.

    Returns:
        Keys that perform the moves; pans and sideways travel are centred on the scene, so that it is in the middle of
        the picture half way.

    Raises:
        ConfigError: arrays that do not fit together, or nothing to look at is not finite.
    """
    position_m, radius_m, must = _checked(position_m, radius_m, must_stay)
    if position_m.shape[1] == 0:
        position_m, radius_m, must = np.array([[[0.0, 0.0, 0.3]]]), np.array([0.5]), np.array([True])
    target = _target(position_m[:, must], radius_m[must])
    tangent = float(np.tan(np.deg2rad(fov_y_deg) / 2))
    farthest = float(radius_m[must].max()) / (smallest * tangent)
    down = np.deg2rad(elevation_deg)
    back = np.array([0.0, -np.cos(down), np.sin(down)])
    distance = min(_fitting_distance(position_m[:, must], radius_m[must], target, back, tangent, aspect), farthest)
    times = np.linspace(0.0, duration_s, len(position_m)) if len(position_m) > 1 else np.linspace(0, duration_s, 9)
    moving = np.broadcast_to(position_m, (len(times), *position_m.shape[1:]))
    best: tuple[float, tuple[Key, ...]] | None = None
    for _ in range(_MOST_STEPS):
        view = View(position_m=_vec(target + back * distance), target_m=_vec(target), fov_y_deg=fov_y_deg)
        keys = move_keys(moves, view, duration_s, centered=True)
        inside = inside_frame(moving[:, must], radius_m[must], evaluate(keys, times), aspect)
        share = float(inside.mean())
        if best is None or share > best[0] + 1e-9:
            best = (share, keys)
        if share == 1.0 or distance >= farthest:
            break
        distance = min(distance * _STEP_BACK, farthest)
    assert best is not None
    names = " and ".join(move.name for move in moves) or "static"
    reason = f"{names}: {best[0]:.0%} of what must stay in frame does"
    return Framing(keys=best[1], moves=tuple(moves), in_frame=best[0], reason=reason)


def choose_camera(
    position_m: Float[np.ndarray, "f k 3"],
    radius_m: Float[np.ndarray, " k"],
    *,
    duration_s: float,
    aspect: float,
    fov_y_deg: float = 40.0,
    must_stay: Bool[np.ndarray, " k"] | None = None,
) -> Framing:
    """Pick a move nobody asked for, by what happens: still things are orbited, one thing that travels sideways is
    tracked, one that comes or goes is met; everything else, and whatever a moving camera would lose, is watched by a
    still camera.
    """
    position_m, radius_m, must = _checked(position_m, radius_m, must_stay)
    moves, why = _suits(position_m[:, must], radius_m[must])
    options = {"duration_s": duration_s, "aspect": aspect, "fov_y_deg": fov_y_deg, "must_stay": must_stay}
    framing = frame_scene(position_m, radius_m, moves, **options)
    if framing.in_frame < 1.0 and moves:
        still = frame_scene(position_m, radius_m, (), **options)
        if still.in_frame > framing.in_frame:
            framing, why = still, f"{why}, but a moving camera would lose something"
    return Framing(keys=framing.keys, moves=framing.moves, in_frame=framing.in_frame, reason=f"{why}; {framing.reason}")


def inside_frame(
    position_m: Float[np.ndarray, "f k 3"], radius_m: Float[np.ndarray, " k"], camera: CameraPath, aspect: float
) -> Bool[np.ndarray, "f k"]:
    """Whether each sphere is wholly inside the picture and in front of the camera.

    A sphere is inside when its centre keeps its radius from the four planes through the camera and the picture's
    borders: exact also near the border, where the outline is an ellipse.
    """
    to_camera = poses.invert(camera.camera_to_world)
    local = np.einsum("fij,fkj->fki", to_camera[:, :3, :3], position_m) + to_camera[:, None, :3, 3]
    half_y = 0.5 / poses.focal(camera.fov_y_deg)[:, None]
    inside = local[..., 2] > radius_m
    for axis, half in ((0, half_y * aspect), (1, half_y)):
        clearance = (local[..., 2] * half - np.abs(local[..., axis])) / np.sqrt(1 + half * half)
        inside &= clearance >= radius_m
    return inside


def _checked(position_m, radius_m, must_stay) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position_m, radius_m = np.asarray(position_m, dtype=np.float64), np.asarray(radius_m, dtype=np.float64)
    must = np.ones(len(radius_m), dtype=bool) if must_stay is None else np.asarray(must_stay, dtype=bool)
    if position_m.ndim != 3 or position_m.shape[1:] != (len(radius_m), 3) or must.shape != radius_m.shape:
        raise ConfigError(
            "framing needs positions (frames, objects, 3) and one radius an object",
            where=f"positions {position_m.shape}, radii {radius_m.shape}, must_stay {must.shape}",
        )
    if not (np.all(np.isfinite(position_m)) and np.all(np.isfinite(radius_m))):
        raise ConfigError("cannot frame positions that are not finite", fix="Check the simulation")
    if len(radius_m) and not must.any():
        must = np.ones_like(must)
    return position_m, radius_m, must


def _target(position_m: np.ndarray, radius_m: np.ndarray) -> np.ndarray:
    """The middle of the box that everything sweeps."""
    low = (position_m - radius_m[:, None]).min(axis=(0, 1))
    high = (position_m + radius_m[:, None]).max(axis=(0, 1))
    return (low + high) / 2


def _fitting_distance(position_m, radius_m, target, back, tangent: float, aspect: float) -> float:
    """How far back a still camera must stand for every sphere to fit (each border plane solved for the distance)."""
    right = np.array([1.0, 0.0, 0.0])
    up = np.cross(back, right)
    offset = position_m - target
    needs = []
    for axis, half in ((right, tangent * aspect), (up, tangent)):
        half = half * (1 - 2 * _MARGIN)
        across = np.abs(offset @ axis) + radius_m * np.sqrt(1 + half * half)
        needs.append((across / half + offset @ back).max())
    return max(float(max(needs)), 1.5 * float(radius_m.max()))


def _suits(position_m: np.ndarray, radius_m: np.ndarray) -> tuple[tuple[Move, ...], str]:
    if position_m.shape[1] == 0:
        return (), "an empty scene"
    swept = np.ptp(position_m, axis=0)
    moving = np.linalg.norm(swept, axis=-1) > 0.5 * radius_m
    if not moving.any():
        return (Move(kind="orbit", direction="left", word="slow"),), "everything stands still"
    if moving.sum() > 1:
        return (), "several things move"
    path = position_m[:, moving][:, 0]
    dx, dy, dz = path[-1] - path[0]
    if abs(dx) > 2 * max(abs(dy), abs(dz)):
        return (Move(kind="dolly", direction="right" if dx > 0 else "left"),), "one thing travels sideways"
    if abs(dy) > 2 * max(abs(dx), abs(dz)):
        return (Move(kind="dolly", direction="out" if dy < 0 else "in", word="slow"),), "one thing comes or goes"
    return (), "one thing moves up, down or in place"


def _vec(array: np.ndarray) -> tuple[float, float, float]:
    x, y, z = array.tolist()
    return x, y, z
