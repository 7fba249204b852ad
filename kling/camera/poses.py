"""Rigid poses: quaternions, SE(3) matrices, a pinhole camera. Everything is float64 numpy and takes leading axes.

Quaternions are (w, x, y, z). A pose maps camera to world. World: x right, y away, z up; camera: x right, y down,
z forward (OpenCV). Angles are radians unless a name says degrees.
"""

import numpy as np
from jaxtyping import Float

from kling.errors import ConfigError

Quats = Float[np.ndarray, "*n 4"]
Vectors = Float[np.ndarray, "*n 3"]
Matrices = Float[np.ndarray, "*n 4 4"]

WORLD_UP = np.array([0.0, 0.0, 1.0])


def unit(quaternion: Quats) -> Quats:
    """The quaternion scaled to length 1.

    Raises:
        ConfigError: its length is zero or not finite; it names no rotation.
    """
    quaternion = np.asarray(quaternion, dtype=np.float64)
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not np.all(np.isfinite(length)) or np.any(length < 1e-9):
        raise ConfigError(
            "a quaternion of length zero is no rotation",
            where=str(quaternion.tolist()),
            fix="Use (1, 0, 0, 0) for no rotation",
        )
    return quaternion / length


def multiply(a: Quats, b: Quats) -> Quats:
    """Hamilton product: the rotation b, then a (for active rotations of vectors)."""
    a, b = np.asarray(a), np.asarray(b)
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    real = aw * bw - np.sum(av * bv, axis=-1, keepdims=True)
    return np.concatenate([real, aw * bv + bw * av + cross(av, bv)], axis=-1)


def cross(a: Vectors, b: Vectors) -> Vectors:
    """numpy's cross product to the bit, in a tenth of the time: that one spends it on arranging axes."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    x = ay * bz - az * by
    out = np.empty((*x.shape, 3))
    out[..., 0], out[..., 1], out[..., 2] = x, az * bx - ax * bz, ax * by - ay * bx
    return out


def conjugate(quaternion: Quats) -> Quats:
    """The inverse rotation of a unit quaternion."""
    return np.asarray(quaternion) * np.array([1.0, -1.0, -1.0, -1.0])


def from_rotation_vector(vector: Vectors) -> Quats:
    """Exponential map: axis times angle (rad) to a unit quaternion."""
    vector = np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    # sin(a/2)/a by numpy's sinc, which is exact at zero.
    return np.concatenate([np.cos(angle / 2), vector * (0.5 * np.sinc(angle / (2 * np.pi)))], axis=-1)


def to_rotation_vector(quaternion: Quats) -> Vectors:
    """Logarithm: a unit quaternion to axis times angle (rad), the shorter way round (angle <= pi)."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    factor = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-300), 2.0)
    return quaternion[..., 1:] * factor


def about(axis: Vectors, angle_rad: float | np.ndarray) -> Quats:
    """Rotation by ``angle_rad`` about a unit ``axis`` (right-handed)."""
    return from_rotation_vector(np.asarray(angle_rad, dtype=np.float64)[..., None] * np.asarray(axis))


def slerp(a: Quats, b: Quats, share: np.ndarray) -> Quats:
    """The point at ``share`` (``*n``, any real) of the shorter great arc from a to b."""
    turn = to_rotation_vector(multiply(conjugate(a), b))
    return multiply(a, from_rotation_vector(turn * np.asarray(share)[..., None]))


def rotate(quaternion: Quats, vector: Vectors) -> Vectors:
    """The vector turned by a unit quaternion."""
    quaternion, vector = np.asarray(quaternion), np.asarray(vector)
    twice = 2 * cross(quaternion[..., 1:], vector)
    return vector + quaternion[..., :1] * twice + cross(quaternion[..., 1:], twice)


def to_matrix(quaternion: Quats) -> Float[np.ndarray, "*n 3 3"]:
    """The rotation matrix of a unit quaternion."""
    columns = [rotate(quaternion, axis) for axis in np.eye(3)]
    return np.stack(columns, axis=-1)


def from_matrix(rotation: Float[np.ndarray, "*n 3 3"]) -> Quats:
    """The unit quaternion (w >= 0) of a rotation matrix.

    The largest of the four squared components is the one to divide by (Shepperd, 1978): stable for every angle.
    """
    m = np.asarray(rotation, dtype=np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = np.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], axis=-1)
    wx, wy, wz = (m[..., j, i] - m[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1)))
    xy, xz, yz = (m[..., j, i] + m[..., i, j] for i, j in ((0, 1), (0, 2), (1, 2)))
    rows = np.stack(
        [
            np.stack([squares[..., 0], wx, wy, wz], axis=-1),
            np.stack([wx, squares[..., 1], xy, xz], axis=-1),
            np.stack([wy, xy, squares[..., 2], yz], axis=-1),
            np.stack([wz, xz, yz, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    best = np.argmax(squares, axis=-1)[..., None, None]
    quaternion = np.take_along_axis(rows, best, axis=-2)[..., 0, :]
    quaternion = unit(quaternion)
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def pose_matrix(position_m: Vectors, quaternion: Quats) -> Matrices:
    """Camera-to-world matrix of a position and a unit quaternion."""
    position_m = np.asarray(position_m, dtype=np.float64)
    matrix = np.zeros((*position_m.shape[:-1], 4, 4))
    matrix[..., :3, :3] = to_matrix(quaternion)
    matrix[..., :3, 3] = position_m
    matrix[..., 3, 3] = 1.0
    return matrix


def invert(pose: Matrices) -> Matrices:
    """The inverse of a rigid pose (world to camera), without a general matrix inverse."""
    inverse = np.zeros_like(pose)
    inverse[..., :3, :3] = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", inverse[..., :3, :3], pose[..., :3, 3])
    inverse[..., 3, 3] = 1.0
    return inverse


def look_at(position_m: Vectors, target_m: Vectors, roll_rad: float = 0.0) -> Quats:
    """The orientation of a camera at ``position_m`` that sees ``target_m`` in its centre, upright in the world.

    Args:
        roll_rad: positive leans the camera's top to the right.

    Raises:
        ConfigError: position and target coincide. Straight up or down, the image's up is the world's y.
    """
    forward = np.asarray(target_m, dtype=np.float64) - np.asarray(position_m, dtype=np.float64)
    length = np.linalg.norm(forward, axis=-1, keepdims=True)
    if np.any(length < 1e-9):
        raise ConfigError("the camera stands in what it looks at", where=str(target_m), fix="Move one of them")
    forward = forward / length
    vertical = np.abs(forward[..., 2:]) > 1 - 1e-9
    up = np.where(vertical, np.array([0.0, 1.0, 0.0]), WORLD_UP)
    right = cross(forward, up)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    rotation = np.stack([right, cross(forward, right), forward], axis=-1)
    return multiply(from_matrix(rotation), about(np.array([0.0, 0.0, 1.0]), roll_rad))


def focal(fov_y_deg: float | np.ndarray) -> np.ndarray:
    """Focal length in image heights of a vertical field of view."""
    return 0.5 / np.tan(np.deg2rad(np.asarray(fov_y_deg, dtype=np.float64)) / 2)


def fov_y_deg(focal_heights: float | np.ndarray) -> np.ndarray:
    """The inverse of `focal`."""
    return np.rad2deg(2 * np.arctan(0.5 / np.asarray(focal_heights, dtype=np.float64)))


def intrinsics_px(fov_y_degrees: float, width_px: int, height_px: int) -> Float[np.ndarray, "3 3"]:
    """The matrix K of a camera with square pixels and its axis in the middle (pixel centres at i + 0.5)."""
    f = float(focal(fov_y_degrees)) * height_px
    return np.array([[f, 0, width_px / 2], [0, f, height_px / 2], [0, 0, 1.0]])


def project(
    points_m: Float[np.ndarray, "f k 3"],
    camera_to_world: Float[np.ndarray, "f 4 4"],
    fov_y_degrees: Float[np.ndarray, " f"],
    aspect: float,
) -> tuple[Float[np.ndarray, "f k 2"], Float[np.ndarray, "f k"]]:
    """World points to the image.

    Args:
        aspect: width over height.

    Returns:
        (x, y) as fractions of width and height (0, 0 is the top left corner), not clipped; and the depth in metres
        along the viewing axis. Where the depth is not positive the point is behind the camera and (x, y) is NaN.
    """
    local = np.einsum("fji,fkj->fki", camera_to_world[:, :3, :3], points_m - camera_to_world[:, None, :3, 3])
    depth = local[..., 2]
    scale = focal(fov_y_degrees)[:, None] / np.where(depth > 1e-6, depth, np.nan)
    return np.stack([0.5 + local[..., 0] * scale / aspect, 0.5 + local[..., 1] * scale], axis=-1), depth
