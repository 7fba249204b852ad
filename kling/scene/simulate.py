"""ScenePlan -> SceneTrack: the plan's objects under the laws of motion, seen by its camera.

Boxes, depth and visibility come from geometry, not from a renderer: every shape here is convex, so its outline in the
picture is the convex hull of a few projected points, and who hides whom follows from the depths. So a plan that is
never rendered (inference) and a clip that is (training) get the same numbers.
"""

import cv2
import numpy as np

from kling.camera import path, poses
from kling.physics import simulate as physics
from kling.scene.plan import CameraTrack, Contact, ObjectTrack, PlannedCamera, PlannedObject, ScenePlan, SceneTrack

_GRID_PX = 96  # height of the grid on which visible shares are counted
_NEAR_M = 0.05


def simulate(plan: ScenePlan, *, aspect: float = 1.0) -> SceneTrack:
    """What the plan leads to, frame by frame.

    Args:
        aspect: width over height of the picture; boxes are fractions of it.

    Raises:
        InputError: an object that cannot be simulated (shape, unstable start).
    """
    motion = move(plan)
    camera = camera_track(plan.camera, num_frames=plan.num_frames, fps=plan.fps)
    return see(plan, motion, camera, aspect=aspect)


def move(plan: ScenePlan) -> physics.Motion:
    """The physics alone."""
    bodies = tuple(
        physics.Body(
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
        for item in plan.objects
    )
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
    )


def see(plan: ScenePlan, motion: physics.Motion, camera: CameraTrack, *, aspect: float = 1.0) -> SceneTrack:
    """Boxes, depths and visible shares of moving things in the camera's picture."""
    objects = []
    frames = [
        _look(plan.objects, motion, i, np.asarray(camera.camera_to_world[i]), camera.fov_y_deg[i], aspect)
        for i in range(len(camera.fov_y_deg))
    ]
    for k, item in enumerate(plan.objects):
        objects.append(
            ObjectTrack(
                id=item.id,
                position_m=_rows(motion.position_m[:, k]),
                quaternion=_rows(motion.quaternion[:, k]),
                velocity_m_s=_rows(motion.velocity_m_s[:, k]),
                angular_velocity_rad_s=_rows(motion.angular_velocity_rad_s[:, k]),
                box=tuple(frame[k][0] for frame in frames),
                depth_m=tuple(frame[k][1] for frame in frames),
                visibility=tuple(frame[k][2] for frame in frames),
            )
        )
    contacts = tuple(
        Contact(
            frame=touch.frame,
            a=touch.a,
            b=touch.b,
            impulse_n_s=round(touch.impulse_n_s, 5),
            point_m=tuple(round(x, 5) + 0.0 for x in touch.point_m),
        )
        for touch in motion.touches
    )
    return SceneTrack(fps=plan.fps, objects=tuple(objects), camera=camera, contacts=contacts)


def _rows(values: np.ndarray) -> tuple:
    # 10 micrometres: far below a pixel, far above what differs between machines' arithmetic.
    return tuple(tuple(round(float(x), 5) + 0.0 for x in row) for row in values)


def _look(objects, motion, frame: int, pose: np.ndarray, fov_y_deg: float, aspect: float) -> list:
    """(box, depth, visibility) of each object in one frame."""
    focal = 0.5 / np.tan(np.radians(fov_y_deg) / 2)  # in picture heights
    height, width = _GRID_PX, max(1, round(_GRID_PX * aspect))
    seen, masks = [], []
    for k, item in enumerate(objects):
        points = outline(item, motion.position_m[frame, k], motion.quaternion[frame, k], pose[:3, 3])
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        depth = float((motion.position_m[frame, k] - pose[:3, 3]) @ pose[:3, 2])
        if local[:, 2].min() < _NEAR_M:
            seen.append((None, round(depth, 5), 0.0))
            masks.append(None)
            continue
        image = local[:, :2] / local[:, 2:] * focal
        x, y = image[:, 0] / aspect + 0.5, image[:, 1] + 0.5
        box = tuple(round(float(v), 5) + 0.0 for v in (x.min(), y.min(), x.max(), y.max()))
        hull = cv2.convexHull(np.stack([x * width, y * height], axis=1).astype(np.float32))
        mask = np.zeros((height, width), np.uint8)
        # fillConvexPoly paints a pixel whose centre is inside; its coordinates count from pixel centres, 1/16 steps.
        cv2.fillConvexPoly(mask, np.round((hull - 0.5) * 16).astype(np.int32), 1, shift=4)
        seen.append((box, round(depth, 5), max(float(cv2.contourArea(hull)), 1.0)))
        masks.append(mask.astype(bool))
    hidden = np.zeros((height, width), bool)
    result: list = [None] * len(objects)
    for k in sorted(range(len(objects)), key=lambda k: seen[k][1]):  # nearest first
        box, depth, area = seen[k]
        if masks[k] is None:
            result[k] = (None, depth, 0.0)
            continue
        share = float((masks[k] & ~hidden).sum()) / max(area, float(masks[k].sum()))
        hidden |= masks[k]
        result[k] = (box, depth, round(min(share, 1.0), 3))
    return result


def outline(item: PlannedObject, position: np.ndarray, quaternion: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """World points (n 3) whose picture's convex hull is the object's outline as seen from ``eye``."""
    turn = poses.to_matrix(quaternion)
    a, b, c = item.half_size_m
    if item.proxy == "ball":
        return _rim(position, a, eye)
    if item.proxy == "capsule":
        ends = [position + turn[:, 2] * s * max(c - a, 0.0) for s in (-1, 1)]
        return np.concatenate([_rim(end, a, eye) for end in ends])
    if item.proxy == "cube":
        corners = np.array([(x, y, z) for x in (-a, a) for y in (-b, b) for z in (-c, c)])
        return position + corners @ turn.T
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([a * np.cos(angles), b * np.sin(angles), np.full(24, -c)], axis=1)
    other = ring * [1, 1, -1] if item.proxy == "cylinder" else np.array([[0.0, 0.0, c]])
    return position + np.concatenate([ring, other]) @ turn.T


def _rim(center: np.ndarray, radius: float, eye: np.ndarray) -> np.ndarray:
    """The circle in which the cone of sight touches a sphere."""
    sight = eye - center
    distance = np.linalg.norm(sight)
    sight = sight / max(distance, 1e-9)
    ratio = min(radius / max(distance, 1e-9), 0.999)
    side = np.cross(sight, [0.0, 0.0, 1.0] if abs(sight[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(sight, side)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)[:, None]
    return center + radius * (ratio * sight + np.sqrt(1 - ratio**2) * (np.cos(angles) * side + np.sin(angles) * up))


def camera_track(camera: PlannedCamera, *, num_frames: int, fps: float) -> CameraTrack:
    """The planned camera, frame by frame."""
    keys = [
        path.Key(time_s=key.time_s, position_m=key.position_m, quaternion=key.quaternion, fov_y_deg=key.fov_y_deg)
        for key in camera.keys
    ]
    seen = path.evaluate(keys, path.frame_times(num_frames, fps), eased=camera.easing == "ease")
    return CameraTrack(
        camera_to_world=tuple(
            tuple(tuple(round(float(x), 6) + 0.0 for x in row) for row in pose) for pose in seen.camera_to_world
        ),
        fov_y_deg=tuple(round(float(fov), 4) for fov in seen.fov_y_deg),
    )
