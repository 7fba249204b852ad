"""ScenePlan -> SceneTrack: the plan's objects under the laws of motion, seen by its camera.

Boxes, depth and visibility come from geometry, not from a renderer: every shape here is convex, so its outline in the
picture is the convex hull of a few projected points, and who hides whom follows from the depths. So a plan that is
never rendered (inference) and a clip that is (training) get the same numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from kling.camera import path, poses
from kling.physics import simulate as physics
from kling.physics.laws import EVERY_LAW, Laws
from kling.scene.plan import CameraTrack, Contact, ObjectTrack, PlannedCamera, PlannedObject, ScenePlan, SceneTrack

_GRID_PX = 192  # height of the grid on which visible shares are counted
_NEAR_M = 0.05


def simulate(plan: ScenePlan, *, aspect: float = 1.0, laws: Laws = EVERY_LAW) -> SceneTrack:
    """What the plan leads to, frame by frame.

    Args:
        aspect: width over height of the picture; boxes are fractions of it.
        laws: the laws of motion that hold; each can be left out, for ablations.

    Raises:
        InputError: an object that cannot be simulated (shape, unstable start).
    """
    motion = move(plan, laws=laws)
    camera = camera_track(plan.camera, num_frames=plan.num_frames, fps=plan.fps)
    return see(plan, motion, camera, aspect=aspect)


def move(plan: ScenePlan, *, laws: Laws = EVERY_LAW) -> physics.Motion:
    """The physics alone."""
    bodies = tuple(body_of(item) for item in plan.objects)
    pushes = tuple(
        physics.Push(
            body=event.agent,
            time_s=event.start_s,
            velocity_m_s=event.push_m_s,
            angular_velocity_rad_s=event.push_rad_s or (0.0, 0.0, 0.0),
        )
        for event in plan.events
        if event.push_m_s is not None
    )
    return physics.simulate(
        bodies,
        num_frames=plan.num_frames,
        fps=plan.fps,
        gravity_m_s2=plan.environment.gravity_m_s2,
        pushes=pushes,
        laws=laws,
    )


def body_of(item: PlannedObject) -> physics.Body:
    """The planned object as the physics knows it."""
    return physics.Body(
        name=item.id,
        shape=item.proxy,
        half_size_m=item.half_size_m,
        mass_kg=item.mass_kg,
        friction=item.friction,
        restitution=item.restitution,
        position_m=item.position_m,
        quaternion=item.quaternion,
        velocity_m_s=item.velocity_m_s,
        angular_velocity_rad_s=item.angular_velocity_rad_s,
        fixed=item.fixed,
        pivot_m=item.pivot_m,
        release_s=item.release_s,
    )


def see(plan: ScenePlan, motion: physics.Motion, camera: CameraTrack, *, aspect: float = 1.0) -> SceneTrack:
    """Boxes, depths and visible shares of moving things in the camera's picture."""
    poses_m, fov = np.array(camera.camera_to_world), np.array(camera.fov_y_deg)
    views = [
        project(item, motion.position_m[:, k], motion.quaternion[:, k], poses_m, fov, aspect)
        for k, item in enumerate(plan.objects)
    ]
    shares = [_visible([view[i] for view in views], aspect) for i in range(len(fov))]
    objects = []
    for k, item in enumerate(plan.objects):
        objects.append(
            ObjectTrack(
                id=item.id,
                position_m=_rows(motion.position_m[:, k]),
                quaternion=_rows(motion.quaternion[:, k]),
                velocity_m_s=_rows(motion.velocity_m_s[:, k]),
                angular_velocity_rad_s=_rows(motion.angular_velocity_rad_s[:, k]),
                box=tuple(view.box for view in views[k]),
                depth_m=tuple(view.depth_m for view in views[k]),
                visibility=tuple(share[k] for share in shares),
            )
        )
    contacts = tuple(
        Contact(
            frame=touch.frame,
            a=touch.a,
            b=touch.b,
            impulse_n_s=round(touch.impulse_n_s, 5),
            point_m=_row(touch.point_m),
        )
        for touch in motion.touches
    )
    return SceneTrack(fps=plan.fps, objects=tuple(objects), camera=camera, contacts=contacts)


def _row(values: Iterable[float]) -> Any:
    # 10 micrometres: far below a pixel, far above what differs between machines' arithmetic. No negative zeros.
    return tuple(round(float(x), 5) + 0.0 for x in values)


def _rows(values: np.ndarray) -> tuple:
    return tuple(tuple(row) for row in (np.round(values, 5) + 0.0).tolist())


@dataclass(frozen=True, kw_only=True)
class View:
    """One object in one picture."""

    box: tuple | None
    depth_m: float
    hull: np.ndarray | None  # n 2, fractions of the picture (x, y); None: (partly) behind the camera


def project(item: PlannedObject, position, quaternion, pose, fov_y_deg, aspect: float) -> list[View]:
    """One object in every picture. position: f 3, quaternion: f 4, pose: f 4 4, fov_y_deg: f."""
    eye, turn = pose[:, :3, 3], pose[:, :3, :3]
    points = outline(item, position, quaternion, eye)
    local = np.einsum("fji,fnj->fni", turn, points - eye[:, None])
    depth = np.einsum("fi,fi->f", position - eye, turn[:, :, 2]).round(5) + 0.0
    scale = poses.focal(fov_y_deg)[:, None] / np.maximum(local[..., 2], 1e-6)
    x, y = local[..., 0] * scale / aspect + 0.5, local[..., 1] * scale + 0.5
    boxes = (np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1).round(5) + 0.0).tolist()
    behind = local[..., 2].min(axis=1) < _NEAR_M
    points = np.ascontiguousarray(np.stack([x, y], axis=2), np.float32)
    return [
        View(
            box=None if behind[i] else tuple(box),
            depth_m=float(depth[i]),
            hull=None if behind[i] else cv2.convexHull(points[i])[:, 0],
        )
        for i, box in enumerate(boxes)
    ]


def nearest_first(views: list[View], size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Which object, its outline filled in a picture of this size (height, width), and what of it no nearer one hides;
    what is behind the camera is left out."""
    hidden = np.zeros(size, bool)
    for k in sorted(range(len(views)), key=lambda k: views[k].depth_m):
        hull = views[k].hull
        if hull is None:
            continue
        # Coordinates of fillConvexPoly count from pixel centres, here in sixteenths. Far outside they would overflow.
        corners = np.clip((hull * size[::-1] - 0.5) * 16, -(2**24), 2**24).round().astype(np.int32)
        mask = cv2.fillConvexPoly(np.zeros(size, np.uint8), corners, 1, shift=4).astype(bool)
        yield k, mask, mask & ~hidden
        hidden |= mask


def _visible(views: list[View], aspect: float) -> list[float]:
    """Share of each object's outline that is inside the picture and not hidden by nearer objects."""
    size = _GRID_PX, max(1, round(_GRID_PX * aspect))
    shares = [0.0] * len(views)
    for k, mask, seen in nearest_first(views, size):
        hull = views[k].hull
        assert hull is not None, "what is behind the camera is left out"
        area = max(float(cv2.contourArea((hull * size[::-1]).astype(np.float32))), 1.0)
        shares[k] = round(min(np.count_nonzero(seen) / max(area, float(np.count_nonzero(mask))), 1.0), 3)
    return shares


def outline(item: PlannedObject, position: np.ndarray, quaternion: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """World points (f n 3) whose picture's convex hull is the object's outline as seen from ``eye`` (f 3).

    position: f 3, quaternion: f 4.
    """
    a, b, c = item.half_size_m
    if item.proxy == "ball":
        return _rim(position, a, eye)
    turn = _matrices(quaternion)
    if item.proxy == "capsule":
        axis = turn[:, :, 2] * max(c - a, 0.0)
        return np.concatenate([_rim(position + axis, a, eye), _rim(position - axis, a, eye)], axis=1)
    if item.proxy == "cube":
        body = np.array([(x, y, z) for x in (-a, a) for y in (-b, b) for z in (-c, c)])
    else:
        ring = np.stack([a * _CIRCLE[0], b * _CIRCLE[1], np.full(len(_CIRCLE[0]), -c)], axis=1)
        body = np.concatenate([ring, ring * [1, 1, -1] if item.proxy == "cylinder" else [[0.0, 0.0, c]]])
    return position[:, None] + np.einsum("fij,nj->fni", turn, body)


_CIRCLE = np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)


def _rim(center: np.ndarray, radius: float, eye: np.ndarray) -> np.ndarray:
    """The circle in which the cone of sight touches a sphere. center, eye: f 3."""
    sight = eye - center
    distance = np.maximum(np.linalg.norm(sight, axis=1, keepdims=True), 1e-9)
    sight = sight / distance
    ratio = np.minimum(radius / distance, 0.999)
    other = np.where(np.abs(sight[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    side = poses.cross(sight, other)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = poses.cross(sight, side)
    around = _CIRCLE[0][:, None] * side[:, None] + _CIRCLE[1][:, None] * up[:, None]
    return center[:, None] + radius * (ratio * sight)[:, None] + radius * np.sqrt(1 - ratio**2)[:, None] * around


def _matrices(quaternion: np.ndarray) -> np.ndarray:
    """f 4 -> f 3 3."""
    w, x, y, z = quaternion.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def camera_track(camera: PlannedCamera, *, num_frames: int, fps: float) -> CameraTrack:
    """The planned camera, frame by frame."""
    keys = [
        path.Key(time_s=key.time_s, position_m=key.position_m, quaternion=key.quaternion, fov_y_deg=key.fov_y_deg)
        for key in camera.keys
    ]
    seen = path.evaluate(keys, path.frame_times(num_frames, fps), eased=camera.easing == "ease")
    matrices: Any = tuple(tuple(tuple(row) for row in pose) for pose in (seen.camera_to_world.round(6) + 0.0).tolist())
    return CameraTrack(
        camera_to_world=matrices,
        fov_y_deg=tuple(round(float(fov), 4) for fov in seen.fov_y_deg),
    )
