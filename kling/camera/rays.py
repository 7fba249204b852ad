"""What a camera does to a picture: rays for the model to be conditioned on, and the image motion the camera causes."""

import numpy as np
from jaxtyping import Float

from kling.camera import poses

_FAR_M = 60.0  # sky and horizon: so far that only turning moves them


def pixel_rays(
    fov_y_deg: Float[np.ndarray, " f"], height: int, width: int, aspect: float
) -> Float[np.ndarray, "f h w 3"]:
    """Directions through the centres of an h x w grid, in the camera's own axes, depth 1 (not unit length)."""
    half_y = (0.5 / poses.focal(fov_y_deg))[:, None, None]
    y = np.broadcast_to(((np.arange(height) + 0.5) / height * 2 - 1)[:, None], (height, width))
    x = np.broadcast_to((np.arange(width) + 0.5) / width * 2 - 1, (height, width))
    return np.stack([x * half_y * aspect, y * half_y, np.ones_like(half_y * y)], axis=-1)


def plucker(
    camera_to_world: Float[np.ndarray, "f 4 4"],
    fov_y_deg: Float[np.ndarray, " f"],
    *,
    height: int,
    width: int,
    aspect: float,
    scale_m: float = 1.0,
) -> Float[np.ndarray, "f 6 h w"]:
    """Pluecker coordinates (direction d, moment o x d) of each cell's ray, in the first camera's frame.

    The first camera's own rays start at the origin, so their moments are zero: what the numbers tell is how the camera
    moves, not where the world's origin happens to be (Sitzmann et al., Light Field Networks, arXiv:2106.02634).

    Args:
        scale_m: the length that counts as one in moments (the distance of the subject): a dolly of half the distance
            gives the same rays in a small scene and in a large one.
    """
    to_first = poses.invert(camera_to_world[:1])[0] @ camera_to_world
    direction = np.einsum("fij,fhwj->fhwi", to_first[:, :3, :3], pixel_rays(fov_y_deg, height, width, aspect))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    origin = to_first[:, None, None, :3, 3] / scale_m
    return np.moveaxis(np.concatenate([direction, np.cross(origin, direction)], axis=-1), -1, 1)


def floor_depth(
    camera_to_world: Float[np.ndarray, "f 4 4"], rays: Float[np.ndarray, "f h w 3"]
) -> Float[np.ndarray, "f h w"]:
    """Depth (m, along the viewing axis) at which depth-1 rays meet the floor z = 0; far away where they do not."""
    slope = np.einsum("fj,fhwj->fhw", camera_to_world[:, 2, :3], rays)
    height = camera_to_world[:, None, None, 2, 3]
    meets = np.where(slope * height < 0, -height / np.where(slope == 0, -1.0, slope), _FAR_M)
    return np.clip(meets, 1e-3, _FAR_M)


def floor_points(
    camera_to_world: Float[np.ndarray, "f 4 4"],
    fov_y_deg: Float[np.ndarray, " f"],
    *,
    height: int,
    width: int,
    aspect: float,
) -> Float[np.ndarray, "f h w 6"]:
    """Where on the floor z = 0 each cell's centre is: x, y in metres, and how far apart neighbours are there.

    Returns:
        (x, y, dx to the right, dy to the right, dx downwards, dy downwards): the last four are what one cell of the
        picture spans on the floor. Where no floor is, x = y = 0 and cells span 60 m.
    """
    turn, eye = camera_to_world[:, None, None, :3, :3], camera_to_world[:, None, None, :3, 3]
    rays = pixel_rays(fov_y_deg, height, width, aspect)
    depth = floor_depth(camera_to_world, rays)[..., None]
    meets = depth < _FAR_M
    ray = np.einsum("fij,fhwj->fhwi", camera_to_world[:, :3, :3], rays)
    fall = np.where(meets, ray[..., 2:], 1.0)
    span = 1 / poses.focal(fov_y_deg)[:, None, None, None]  # of a picture's height, at depth 1

    def moved(change: np.ndarray) -> np.ndarray:
        """How far on the floor a ray goes that is changed so: its point moves with it, and farther or nearer."""
        return (depth * (change - ray * change[..., 2:] / fall))[..., :2]

    right, down = turn[..., 0] * span * aspect / width, turn[..., 1] * span / height
    found = np.concatenate([(eye + ray * depth)[..., :2], moved(right), moved(down)], axis=-1)
    near = meets & (np.abs(found[..., 2:]).max(axis=-1, keepdims=True) < _FAR_M)
    return np.where(near, found, [0.0, 0.0, _FAR_M, 0.0, 0.0, _FAR_M])


def camera_flow(
    before: tuple[Float[np.ndarray, "f 4 4"], Float[np.ndarray, " f"]],
    after: tuple[Float[np.ndarray, "f 4 4"], Float[np.ndarray, " f"]],
    *,
    height: int,
    width: int,
    aspect: float,
    depth_m: Float[np.ndarray, "f h w"] | None = None,
) -> Float[np.ndarray, "f 2 h w"]:
    """How far what is now in each cell has moved in the picture because the camera went from ``before`` to ``after``.

    Args:
        before, after: (camera_to_world, fov_y_deg) of each pair of moments.
        depth_m: of each cell in ``after``; None: the floor, and the horizon far away.

    Returns:
        (x, y) in cells, limited to the size of the grid; zero where ``before`` had it behind the camera.
    """
    (pose_0, fov_0), (pose_1, fov_1) = before, after
    rays = pixel_rays(fov_1, height, width, aspect)
    depth = floor_depth(pose_1, rays) if depth_m is None else depth_m
    old = np.einsum("fij,fhwj->fhwi", (poses.invert(pose_0) @ pose_1)[:, :3, :3], rays * depth[..., None])
    old += (poses.invert(pose_0) @ pose_1)[:, None, None, :3, 3]
    seen = old[..., 2] > 1e-3
    ahead = np.where(seen, old[..., 2], 1.0)
    focal_0 = poses.focal(fov_0)[:, None, None]
    old_x = (0.5 + old[..., 0] / ahead * focal_0 / aspect) * width
    old_y = (0.5 + old[..., 1] / ahead * focal_0) * height
    now_y, now_x = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    flow = np.stack([now_x - old_x, now_y - old_y], axis=1)
    most = max(height, width)
    return np.where(seen[:, None], np.clip(flow, -most, most), 0.0)
