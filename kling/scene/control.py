"""The control tensor: a plan and its track painted on the latent grid. One function for inference and for training.

A latent frame stands for 4 frames, the first for one (the VAE is causal). Objects keep one slot each, so that objects
that meet do not mix; a slot's 6 maps are the share of each cell that the object's box covers in each of the latent
frame's 4 frames, then nearness and visibility where it is. Measured on a simpler world: boxes and soft blobs teach a
small model equally well, and the exact share of a cell keeps positions finer than the grid. The place and its light are
painted like an object that is everywhere, in the last slot: a caption read as a whole says them too weakly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange, reduce
from jaxtyping import Float

from kling.camera import rays
from kling.errors import ConfigError
from kling.scene.plan import CameraTrack, Environment, ScenePlan, SceneTrack

STRIDE_FRAMES = 4  # frames a latent frame stands for, after the first
OBJECT_MAPS = STRIDE_FRAMES + 2  # occupancy of each frame, nearness, visibility


@dataclass(frozen=True, kw_only=True)
class ControlArrays:
    """kling.model.controls.Controls of one clip as float32 numpy, without the batch axis. None is absent."""

    camera: Float[np.ndarray, "6 f h w"] | None = None
    flow: Float[np.ndarray, "2 f h w"] | None = None
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
) -> ControlArrays:
    """Paint a plan and its track.

    Args:
        plan, track: from `kling.scene.simulate`, or the two of a training sidecar. None: plain text-to-video.
        grid: latent frames, height, width. The latents cover the whole picture.
        num_slots: arrays always have so many, so that clips of one bucket stack: the place's, and the rest for objects.
        aspect: the picture's width over height; None: the grid's.

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
    camera, flow = _camera(track.camera, _subject_distance_m(track), grid, width / height if aspect is None else aspect)
    objects, kept, left_out = _objects(plan, track, grid, num_slots - 1)
    place = np.ones((1, OBJECT_MAPS, *grid), np.float32)  # everywhere, in every frame
    place[:, STRIDE_FRAMES] = 0.0  # at no distance
    return ControlArrays(
        camera=camera,
        flow=flow,
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


def _objects(
    plan: ScenePlan, track: SceneTrack, grid: tuple[int, int, int], num_slots: int
) -> tuple[Float[np.ndarray, "k m f h w"], tuple[str, ...], tuple[str, ...]]:
    _, height, width = grid
    tracks = {o.id: o for o in track.objects}
    missing = [o.id for o in plan.objects if o.id not in tracks]
    if missing:
        raise ConfigError(
            "the track lacks objects of the plan", where=", ".join(missing), fix="Simulate the plan again"
        )
    painted = np.zeros((num_slots, OBJECT_MAPS, *grid), np.float32)
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
    # The first latent frame stands for one frame: it counts four times.
    maps = np.concatenate([np.repeat(maps[:, :, :1], STRIDE_FRAMES - 1, axis=2), maps], axis=2)
    maps = rearrange(maps, "k m (f s) h w -> m k s f h w", s=STRIDE_FRAMES)
    used = len(chosen)
    painted[:used, :STRIDE_FRAMES] = maps[0]
    painted[:used, STRIDE_FRAMES] = reduce(maps[1], "k s f h w -> k f h w", "mean")
    painted[:used, STRIDE_FRAMES + 1] = reduce(maps[2], "k s f h w -> k f h w", "mean")
    phrases = [plan.objects[i].phrase for i in chosen] + [""] * (num_slots - used)
    left_out = tuple(o.id for i, o in enumerate(plan.objects) if i not in chosen)
    return painted, tuple(phrases), left_out


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
