"""The control tensor: a plan and its track painted on the latent grid. One function for inference and for training.

A latent frame stands for 4 frames, the first for one (the VAE is causal). Objects keep one slot each, so that objects
that meet do not mix; a slot's first 6 maps are the share of each cell that the object's box covers in each of the
latent frame's 4 frames, then nearness and visibility where it is. The exact share of a cell keeps positions finer than
the grid. A model may ask for outlines too: in each of the 4 frames, the share of every part of a cell that the object's
outline covers and nothing nearer hides. The place and its light are painted like an object that is everywhere, in the
last slot: a caption read as a whole says them too weakly. The floor says where on it each point of a cell is, in every
frame, so that its pattern can stay where it lies while the camera moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange, reduce
from jaxtyping import Float

from kling.camera import rays
from kling.errors import ConfigError
from kling.scene.plan import CameraTrack, Environment, ObjectTrack, PlannedObject, ScenePlan, SceneTrack
from kling.scene.simulate import nearest_first, project

STRIDE_FRAMES = 4  # frames a latent frame stands for, after the first
BOX_MAPS = STRIDE_FRAMES + 2  # occupancy of each frame, nearness, visibility
FLOOR_CELLS = 2  # points of the floor a side of a latent cell
TILE_M = 4.0  # floors repeat after so much: places on them are said within it
_FINER = 4  # outlines are drawn so much finer than they are painted, each way


@dataclass(frozen=True, kw_only=True)
class ControlArrays:
    """kling.model.controls.Controls of one clip as float32 numpy, without the batch axis. None is absent."""

    camera: Float[np.ndarray, "6 f h w"] | None = None
    flow: Float[np.ndarray, "2 f h w"] | None = None
    floor: Float[np.ndarray, "q f h w"] | None = (
        None  # (frame, row, column of the point, 6 numbers of rays.floor_points)
    )
    objects: Float[np.ndarray, "k m f h w"] | None = None
    phrases: tuple[str, ...] = ()  # one a slot, "" for an empty slot; the caller's text encoder makes vectors of them
    fps: float | None = None
    left_out: tuple[str, ...] = ()  # ids of objects for which there was no slot: the smallest in the picture


def control_arrays(
    plan: ScenePlan | None,
    track: SceneTrack | None,
    *,
    grid: tuple[int, int, int],
    num_slots: int = 9,
    aspect: float | None = None,
    outline_cells: int = 0,
    with_floor: bool = False,
) -> ControlArrays:
    """Paint a plan and its track.

    Args:
        plan, track: from `kling.scene.simulate`, or the two of a training sidecar. None: plain text-to-video.
        grid: latent frames, height, width. The latents cover the whole picture.
        num_slots: arrays always have so many, so that clips of one bucket stack: the place's, and the rest for objects.
        aspect: the picture's width over height; None: the grid's.
        outline_cells: parts a side of a cell in which outlines are painted; 0: none, and slots have 6 maps.
        with_floor: say where on the floor each cell is.

    Raises:
        ConfigError: the track has not 4 (f - 1) + 1 frames or lacks an object of the plan, or there is no slot.
    """
    if plan is None or track is None:
        return ControlArrays()
    num_latents, height, width = grid
    num_frames = STRIDE_FRAMES * (num_latents - 1) + 1
    if len(track.camera.fov_y_deg) != num_frames:
        raise ConfigError(
            f"{num_latents} latent frames stand for {num_frames} frames",
            where=f"the track has {len(track.camera.fov_y_deg)}",
            fix="Simulate the plan at the clip's number of frames",
        )
    if num_slots < 1:
        raise ConfigError("the place needs a slot", where=f"num_slots={num_slots}", fix="Give at least 1")
    aspect = width / height if aspect is None else aspect
    camera, flow = _camera(track.camera, _subject_distance_m(track), grid, aspect)
    objects, kept, left_out = _objects(plan, track, grid, num_slots - 1, aspect, outline_cells)
    place = np.ones((1, objects.shape[1], *grid), np.float32)  # everywhere, in every frame
    place[:, STRIDE_FRAMES] = 0.0  # at no distance
    place[:, BOX_MAPS:] = 0.0  # and without an outline
    return ControlArrays(
        camera=camera,
        flow=flow,
        floor=_floor(track.camera, grid, aspect) if with_floor else None,
        objects=np.concatenate([objects, place]),
        phrases=(*kept, place_phrase(plan.environment)),
        fps=track.fps,
        left_out=left_out,
    )


def place_phrase(environment: Environment) -> str:
    """How a place and its light are said to the model."""
    return f"{environment.setting}, {environment.lighting} light"


def _subject_distance_m(track: SceneTrack) -> float:
    """What counts as one: the objects' mean depth in the first frame; the first camera's height if there are none."""
    depths = [o.depth_m[0] for o in track.objects if o.depth_m[0] > 0]
    if depths:
        return max(sum(depths) / len(depths), 0.1)
    return max(abs(track.camera.camera_to_world[0][2][3]), 0.1)


def _camera(
    camera: CameraTrack, scale_m: float, grid: tuple[int, int, int], aspect: float
) -> tuple[Float[np.ndarray, "6 f h w"], Float[np.ndarray, "2 f h w"]]:
    """Rays at the last frame of each latent frame, and the image motion since the last frame of the one before."""
    poses = np.array(camera.camera_to_world)[::STRIDE_FRAMES]  # frames 0, 4, 8, ...: the last of each latent frame
    fov = np.array(camera.fov_y_deg)[::STRIDE_FRAMES]
    size = {"height": grid[1], "width": grid[2], "aspect": aspect}
    lines = rays.plucker(poses, fov, scale_m=scale_m, **size)
    flow = np.zeros((len(fov), 2, *grid[1:]))  # f 2 h w; nothing has moved yet in the first
    if len(fov) > 1:
        moved = rays.camera_flow((poses[:-1], fov[:-1]), (poses[1:], fov[1:]), **size)
        flow[1:] = np.where(np.abs(moved) < 1e-6, 0.0, moved)  # a still camera is exactly still
    return (
        rearrange(lines, "f c h w -> c f h w").astype(np.float32),
        rearrange(flow, "f c h w -> c f h w").astype(np.float32),
    )


def _floor(camera: CameraTrack, grid: tuple[int, int, int], aspect: float) -> Float[np.ndarray, "q f h w"]:
    """Where on the floor the quarters of each cell are, in each frame."""
    _, height, width = grid
    points = rays.floor_points(
        np.array(camera.camera_to_world),
        np.array(camera.fov_y_deg),
        height=height * FLOOR_CELLS,
        width=width * FLOOR_CELLS,
        aspect=aspect,
    )
    points[..., :2] %= TILE_M  # half precision, in which it is kept, has millimetres only near zero
    return rearrange(
        _by_latent_frame(points, axis=0),
        "f s (h i) (w j) n -> (s i j n) f h w",
        i=FLOOR_CELLS,
        j=FLOOR_CELLS,
    ).astype(np.float32)


def _by_latent_frame(frames: np.ndarray, axis: int) -> np.ndarray:
    """Split an axis of frames into latent frames and the 4 frames of each; the first stands for one, four times."""
    frames = np.moveaxis(frames, axis, 0)
    frames = np.concatenate([np.repeat(frames[:1], STRIDE_FRAMES - 1, axis=0), frames])
    frames = frames.reshape(-1, STRIDE_FRAMES, *frames.shape[1:])
    return np.moveaxis(frames, (0, 1), (axis, axis + 1))


def _objects(
    plan: ScenePlan,
    track: SceneTrack,
    grid: tuple[int, int, int],
    num_slots: int,
    aspect: float,
    outline_cells: int,
) -> tuple[Float[np.ndarray, "k m f h w"], tuple[str, ...], tuple[str, ...]]:
    _, height, width = grid
    tracks = {o.id: o for o in track.objects}
    missing = [o.id for o in plan.objects if o.id not in tracks]
    if missing:
        raise ConfigError(
            "the track lacks objects of the plan", where=", ".join(missing), fix="Simulate the plan again"
        )
    painted = np.zeros((num_slots, BOX_MAPS + STRIDE_FRAMES * outline_cells**2, *grid), np.float32)
    if not plan.objects or num_slots == 0:
        return painted, ("",) * num_slots, tuple(o.id for o in plan.objects)
    ordered = [tracks[o.id] for o in plan.objects]
    nowhere = (0.0, 0.0, 0.0, 0.0)
    box = np.array([[b or nowhere for b in o.box] for o in ordered])  # k frames 4
    chosen = _largest(box, num_slots)
    box = box[chosen]
    depth = np.array([ordered[i].depth_m for i in chosen])
    visible = np.array([ordered[i].visibility for i in chosen])

    covered = np.einsum("kfh,kfw->kfhw", _covered(box[..., 1::2], height), _covered(box[..., 0::2], width))
    nearness = np.where(depth > 1e-3, _subject_distance_m(track) / np.maximum(depth, 1e-3), 0.0).clip(0, 4)
    maps = np.stack([covered, covered * nearness[..., None, None], covered * visible[..., None, None]], axis=1)
    maps = rearrange(_by_latent_frame(maps, axis=2), "k m f s h w -> m k s f h w")
    used = len(chosen)
    painted[:used, :STRIDE_FRAMES] = maps[0]
    painted[:used, STRIDE_FRAMES] = reduce(maps[1], "k s f h w -> k f h w", "mean")
    painted[:used, STRIDE_FRAMES + 1] = reduce(maps[2], "k s f h w -> k f h w", "mean")
    if outline_cells:
        size = height * outline_cells, width * outline_cells
        seen = _outlines([plan.objects[i] for i in chosen], [ordered[i] for i in chosen], track.camera, size, aspect)
        seen = _by_latent_frame(seen, axis=1)
        cells = {"i": outline_cells, "j": outline_cells}
        painted[:used, BOX_MAPS:] = rearrange(seen, "k f s (h i) (w j) -> k (s i j) f h w", **cells)
    phrases = [plan.objects[i].phrase for i in chosen] + [""] * (num_slots - used)
    left_out = tuple(o.id for i, o in enumerate(plan.objects) if i not in chosen)
    return painted, tuple(phrases), left_out


def _outlines(
    items: Sequence[PlannedObject],
    tracks: Sequence[ObjectTrack],
    camera: CameraTrack,
    size: tuple[int, int],
    aspect: float,
) -> Float[np.ndarray, "k frames h w"]:
    """Share of each place of a picture of this size in which an object is seen."""
    poses, fov = np.array(camera.camera_to_world), np.array(camera.fov_y_deg)
    views = [
        project(item, np.array(track.position_m), np.array(track.quaternion), poses, fov, aspect)
        for item, track in zip(items, tracks, strict=True)
    ]
    fine = size[0] * _FINER, size[1] * _FINER
    seen = np.zeros((len(items), len(fov), *size), np.float32)
    for frame in range(len(fov)):
        for k, _, share in nearest_first([view[frame] for view in views], fine):
            seen[k, frame] = reduce(share.astype(np.float32), "(h i) (w j) -> h w", "mean", i=_FINER, j=_FINER)
    return seen


def _largest(box: Float[np.ndarray, "k f 4"], num_slots: int) -> Sequence[int]:
    """The objects that get a slot, in the plan's order."""
    if len(box) <= num_slots:
        return range(len(box))
    area = ((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])).mean(axis=1)
    return sorted(np.argsort(-area, kind="stable")[:num_slots].tolist())


def _covered(span: Float[np.ndarray, "k f 2"], cells: int) -> Float[np.ndarray, "k f n"]:
    """Share of each of ``cells`` cells that an interval (fractions of the picture) covers."""
    edges = np.arange(cells)
    low, high = span[..., :1] * cells, span[..., 1:] * cells
    return np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0.0, 1.0)
