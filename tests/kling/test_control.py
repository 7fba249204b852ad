"""The control tensor: what is painted where, the same from a simulated plan and from a sidecar's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange

from kling.camera import moves, path, rays
from kling.conditioning import painted
from kling.errors import ConfigError
from kling.model import controls
from kling.presets import get_preset
from kling.scene import control
from kling.scene.plan import (
    CameraKey,
    CameraTrack,
    Environment,
    ObjectTrack,
    PlannedCamera,
    PlannedObject,
    ScenePlan,
    SceneTrack,
)

GRID = (5, 8, 8)


def planned(name: str, phrase: str) -> PlannedObject:
    return PlannedObject(
        id=name, phrase=phrase, shape="ball", proxy="ball", half_size_m=(0.2, 0.2, 0.2), mass_kg=1.0, friction=0.5,
        restitution=0.5, position_m=(0.0, 0.0, 0.2),
    )  # fmt: skip


def tracked(name: str, boxes, depth=4.0, visible=1.0) -> ObjectTrack:
    n = len(boxes)
    zeros = ((0.0, 0.0, 0.0),) * n
    return ObjectTrack(
        id=name, position_m=zeros, quaternion=((1.0, 0.0, 0.0, 0.0),) * n, velocity_m_s=zeros,
        angular_velocity_rad_s=zeros, box=tuple(boxes), depth_m=(depth,) * n, visibility=(visible,) * n,
    )  # fmt: skip


def filmed(*move: moves.Move, frames: int = 17) -> tuple[PlannedCamera, CameraTrack]:
    keys = moves.move_keys(move, moves.View(position_m=(0, -4, 1.5), target_m=(0, 0, 0.3)), (frames - 1) / 8)
    made = path.evaluate(keys, path.frame_times(frames, 8))
    poses = tuple(tuple(tuple(row) for row in pose.tolist()) for pose in made.camera_to_world)
    planned_keys = tuple(
        CameraKey(time_s=k.time_s, position_m=k.position_m, quaternion=k.quaternion, fov_y_deg=k.fov_y_deg)
        for k in keys
    )
    return PlannedCamera(keys=planned_keys), CameraTrack(
        camera_to_world=poses, fov_y_deg=tuple(made.fov_y_deg.tolist())
    )


def scene(*objects: tuple[str, ObjectTrack], move=()) -> tuple[ScenePlan, SceneTrack]:
    camera, seen = filmed(*move)
    plan = ScenePlan(
        objects=tuple(planned(track.id, phrase) for phrase, track in objects), camera=camera, duration_s=2.0, fps=8.0
    )
    return plan, SceneTrack(fps=8.0, objects=tuple(track for _, track in objects), camera=seen)


def moving(start: float, step: float) -> list:
    return [(start + step * i, 0.25, start + step * i + 0.25, 0.5) for i in range(17)]


def test_what_is_painted_is_what_the_model_reads():
    tiny = get_preset("tiny").dit
    made = painted(*scene(("ball", tracked("o1", moving(0.0, 0.01)))), tiny, grid=GRID)
    assert made.objects.shape == (tiny.object_slots, tiny.object_maps, *GRID)
    assert made.floor.shape == (controls.FLOOR_POINTS * controls.FLOOR_NUMBERS, *GRID)
    assert control.TILE_M == controls.TILE_M
    assert made.objects[0, control.BOX_MAPS :].any() and not made.objects[-1, control.BOX_MAPS :].any()
    without = painted(*scene(), replace(tiny, outline_cells=0, floor_waves=0), grid=GRID)
    assert without.floor is None and without.objects.shape[1] == control.BOX_MAPS


def test_no_plan_is_plain_text_to_video():
    made = control.control_arrays(None, None, grid=GRID)
    assert made.camera is made.flow is made.objects is made.fps is None and made.phrases == ()


def test_an_empty_plan_paints_the_place_alone():
    made = control.control_arrays(*scene(), grid=GRID)
    assert made.objects.shape == (9, 6, *GRID) and not made.objects[:8].any()
    assert made.phrases == ("",) * 8 + ("studio, studio light",)
    assert not made.flow.any()  # a still camera moves nothing


def test_the_place_is_everywhere_at_no_distance():
    plan, track = scene(("ball", tracked("o1", moving(0, 0))))
    plan = plan.model_copy(update={"environment": Environment(setting="grass", lighting="dusk")})
    made = control.control_arrays(plan, track, grid=GRID)
    assert made.phrases[-1] == "grass, dusk light"
    nearness = made.objects[-1, control.STRIDE_FRAMES]
    assert not nearness.any() and np.delete(made.objects[-1], control.STRIDE_FRAMES, axis=0).min() == 1


def test_a_box_covers_its_cells_exactly():
    made = control.control_arrays(*scene(("red ball", tracked("o1", moving(0.25, 0.0)))), grid=GRID)
    occupied = made.objects[0, :4]
    assert occupied.shape == (4, *GRID)
    want = np.zeros((8, 8))
    want[2:4, 2:4] = 1
    np.testing.assert_allclose(occupied, np.broadcast_to(want, occupied.shape))
    assert made.phrases[0] == "red ball" and not made.objects[1:8].any()


def test_part_of_a_cell_counts_as_its_share():
    made = control.control_arrays(*scene(("ball", tracked("o1", [(0.3, 0.25, 0.3625, 0.3125)] * 17))), grid=GRID)
    cells = made.objects[0, 0, 0]
    assert cells[2, 2] == pytest.approx(0.25) and cells.sum() == pytest.approx(0.25)  # half by half a cell


def test_the_four_maps_are_the_four_frames():
    step = 0.03125
    made = control.control_arrays(*scene(("ball", tracked("o1", moving(0.0, step)))), grid=GRID)
    columns = np.arange(8) + 0.5
    weight = made.objects[0, :4].sum(axis=2)  # s f w
    middle = (weight * columns).sum(-1) / weight.sum(-1)  # s f
    frames = middle.T.reshape(-1)  # latent frame by latent frame
    np.testing.assert_allclose(frames[:4], 1.0)  # frame 0, four times
    np.testing.assert_allclose(frames[4:], 1.0 + np.arange(1, 17) * step * 8, atol=1e-5)


def test_depth_and_visibility_are_painted_where_the_object_is():
    made = control.control_arrays(
        *scene(("near", tracked("o1", moving(0, 0), depth=2.0)), ("far", tracked("o2", moving(0.5, 0), 6.0, 0.25))),
        grid=GRID,
    )
    near, far = made.objects[0, :, 0], made.objects[1, :, 0]
    assert near[4].max() == pytest.approx(2.0) and far[4].max() == pytest.approx(4 / 6)  # one is the mean depth, 4 m
    assert near[5].max() == pytest.approx(1.0) and far[5].max() == pytest.approx(0.25)
    assert not far[4:, :, :4].any()


def test_scale_of_the_world_does_not_matter():
    """A scene twice as large filmed from twice as far is the same picture: the same controls."""

    def made(scale):
        keys = moves.move_keys(
            (moves.Move(kind="dolly", direction="in"),),
            moves.View(position_m=(0, -4 * scale, 1.5 * scale), target_m=(0, 0, 0.3 * scale)), 2.0,
        )  # fmt: skip
        camera = path.evaluate(keys, path.frame_times(17, 8))
        poses = tuple(tuple(tuple(row) for row in pose.tolist()) for pose in camera.camera_to_world)
        plan, _ = scene(("ball", tracked("o1", moving(0, 0), depth=4 * scale)))
        track = SceneTrack(
            fps=8.0, objects=(tracked("o1", moving(0, 0), depth=4 * scale),),
            camera=CameraTrack(camera_to_world=poses, fov_y_deg=tuple(camera.fov_y_deg.tolist())),
        )  # fmt: skip
        return control.control_arrays(plan, track, grid=GRID)

    small, large = made(1.0), made(2.0)
    np.testing.assert_allclose(small.camera, large.camera, atol=1e-6)
    np.testing.assert_allclose(small.objects, large.objects, atol=1e-6)
    np.testing.assert_allclose(small.flow, large.flow, atol=0.04)  # the horizon is at one distance for both


def test_a_pan_flows_sideways_and_bends_the_rays():
    pan = moves.Move(kind="pan", direction="left", speed=10)
    made = control.control_arrays(*scene(move=(pan,)), grid=GRID)
    assert made.camera.shape == (6, *GRID) and made.flow.shape == (2, *GRID)
    assert not made.flow[:, 0].any()
    # 5 degrees a latent frame of a 40 degree picture, 8 cells wide: about one cell to the right.
    assert 0.8 < np.median(made.flow[0, 1:]) < 1.3 and np.abs(np.median(made.flow[1, 1:])) < 0.1
    assert made.camera[0, 4].mean() < made.camera[0, 0].mean() - 0.3  # rays turn to the left
    np.testing.assert_allclose(made.camera[3:], 0, atol=1e-6)  # it does not travel


def test_what_is_behind_the_camera_is_not_painted():
    boxes = moving(0, 0)
    boxes[5:9] = [None] * 4
    made = control.control_arrays(*scene(("ball", tracked("o1", boxes))), grid=GRID)
    assert made.objects[0, :, 1].any() and not made.objects[0, :, 2].any() and made.objects[0, :, 3].any()


def test_more_objects_than_slots_are_named_not_dropped_silently():
    small = [(0.0, 0.0, 0.1, 0.1)] * 17
    objects = [(f"ball {i}", tracked(f"o{i}", small if i == 1 else moving(0, 0))) for i in range(3)]
    made = control.control_arrays(*scene(*objects), grid=GRID, num_slots=3)
    assert made.left_out == ("o1",) and made.phrases[:2] == ("ball 0", "ball 2")


def test_wrong_lengths_and_missing_tracks_are_refused():
    plan, track = scene(("ball", tracked("o1", moving(0, 0))))
    with pytest.raises(ConfigError, match="6 latent frames stand for 21 frames"):
        control.control_arrays(plan, track, grid=(6, 8, 8))
    with pytest.raises(ConfigError, match="lacks objects"):
        control.control_arrays(plan, track.model_copy(update={"objects": ()}), grid=GRID)


def test_training_and_inference_see_the_same():
    """A simulated plan (inference) and the same two after a sidecar's JSON (training) paint identical arrays."""
    plan, track = scene(
        ("red ball", tracked("o1", moving(0.1, 0.013))), ("blue cube", tracked("o2", moving(0.5, -0.021), 5.5, 0.7)),
        move=(moves.Move(kind="orbit", direction="left"),),
    )  # fmt: skip
    live = control.control_arrays(plan, track, grid=GRID)
    read = control.control_arrays(
        ScenePlan.model_validate_json(plan.model_dump_json()), SceneTrack.model_validate_json(track.model_dump_json()),
        grid=GRID,
    )  # fmt: skip
    for name in ("camera", "flow", "objects"):
        np.testing.assert_array_equal(getattr(live, name), getattr(read, name))
    assert live.phrases == read.phrases and live.fps == read.fps


def outlined(plan: ScenePlan, track: SceneTrack, cells: int = 4) -> np.ndarray:
    """k frames h w: where each slot's outline is, frame by frame."""
    made = control.control_arrays(plan, track, grid=GRID, outline_cells=cells)
    maps = made.objects[:-1, control.BOX_MAPS :]
    return rearrange(maps, "k (s i j) f h w -> k (f s) (h i) (w j)", s=4, i=cells, j=cells)[:, 3:]


def placed(name: str, proxy: str, position, half=(0.3, 0.3, 0.3)) -> tuple[PlannedObject, ObjectTrack]:
    item = planned(name, f"red {proxy}").model_copy(update={"proxy": proxy, "half_size_m": half})
    depth = position[1] + 4.0
    track = tracked(name, [(0.4, 0.4, 0.6, 0.6)] * 17, depth=depth)
    return item, track.model_copy(update={"position_m": (position,) * 17})


def put(*objects: tuple[PlannedObject, ObjectTrack]) -> tuple[ScenePlan, SceneTrack]:
    plan, track = scene()
    return (
        plan.model_copy(update={"objects": tuple(item for item, _ in objects)}),
        track.model_copy(update={"objects": tuple(seen for _, seen in objects)}),
    )


def test_an_outline_has_the_shape_of_its_object():
    """A cone's picture is narrow at the top, a ball fills pi / 4 of its box, a cube seen from the front all of it."""
    cube, ball, cone = (
        outlined(*put(placed("o1", proxy, (0.0, 0.0, 0.3))))[0, 8] for proxy in ("cube", "ball", "cone")
    )
    rows = [shape.sum(axis=1) for shape in (cube, ball)]
    top, bottom = cone[: 16 + 1].sum(), cone.sum()
    assert 0 < top < 0.5 * bottom
    assert cone.sum() < ball.sum() < cube.sum()
    full = [shape.sum() / (row.max() * (row > 0.5).sum()) for shape, row in ((cube, rows[0]), (ball, rows[1]))]
    assert full[0] > 0.85 and abs(full[1] - np.pi / 4) < 0.1


def test_parts_of_a_cell_are_cells_of_a_finer_grid():
    plan, track = put(placed("o1", "cone", (0.3, 0.0, 0.3)), placed("o2", "ball", (-0.5, 1.0, 0.3)))
    fine = control.control_arrays(plan, track, grid=(5, 32, 32), outline_cells=1).objects[:-1, control.BOX_MAPS :]
    fine = rearrange(fine, "k s f h w -> k (f s) h w")[:, 3:]
    assert fine.max() == 1 and np.array_equal(outlined(plan, track), fine)


def test_the_nearer_object_hides_the_farther_ones_outline():
    far, near = placed("o1", "cube", (0.0, 1.0, 0.3)), placed("o2", "ball", (0.1, -1.0, 0.3))
    both, alone = outlined(*put(far, near))[:, 8], outlined(*put(far))[0, 8]
    assert (both.sum(axis=0) <= 1 + 1e-6).all()
    np.testing.assert_allclose(both[0], np.clip(alone - both[1], 0, 1), atol=0.07)
    assert 0 < both[0].sum() < alone.sum()


def test_an_outline_behind_the_camera_is_not_painted():
    assert not outlined(*put(placed("o1", "ball", (0.0, -6.0, 0.3)))).any()


def test_points_of_the_floor_are_where_the_camera_sees_them():
    """Projected back into each frame, they lie on their own cells; and neighbours are as far apart as is said."""
    plan, track = scene(move=(moves.Move(kind="orbit", direction="right", speed=20.0),))
    made = control.control_arrays(plan, track, grid=GRID, with_floor=True).floor
    points = rearrange(made, "(s i j n) f h w -> (f s) (h i) (w j) n", s=4, i=2, j=2)[3:]
    assert np.isfinite(points).all() and points.shape == (17, 16, 16, 6)
    real = rays.floor_points(
        np.array(track.camera.camera_to_world), np.array(track.camera.fov_y_deg), height=16, width=16, aspect=1.0
    )
    np.testing.assert_allclose(points[..., :2], real[..., :2] % control.TILE_M, atol=1e-4)
    pose, fov = np.array(track.camera.camera_to_world)[9], track.camera.fov_y_deg[9]
    local = (np.concatenate([real[9, ..., :2], np.zeros((16, 16, 1))], axis=-1) - pose[:3, 3]) @ pose[:3, :3]
    focal = 0.5 / np.tan(np.radians(fov) / 2)
    x, y = local[..., 0] / local[..., 2] * focal + 0.5, local[..., 1] / local[..., 2] * focal + 0.5
    floor = real[9, ..., 2:4].any(axis=-1) & (np.abs(real[9, ..., 2:]).max(axis=-1) < 5)
    assert floor[10:].all()
    grid = (np.arange(16) + 0.5) / 16
    np.testing.assert_allclose(x[floor], np.broadcast_to(grid, (16, 16))[floor], atol=1e-6)
    np.testing.assert_allclose(y[floor], np.broadcast_to(grid[:, None], (16, 16))[floor], atol=1e-6)
    near = real[9, 10:]
    for said, stepped in ((near[..., 2:4], np.diff(near, axis=1)), (near[..., 4:6], np.diff(near, axis=0))):
        between = (said[:, 1:] + said[:, :-1]) / 2 if stepped.shape[1] < 16 else (said[1:] + said[:-1]) / 2
        np.testing.assert_allclose(stepped[..., :2], between, rtol=0.1, atol=0.01)


def test_the_sky_is_no_floor():
    made = control.control_arrays(
        *scene(move=(moves.Move(kind="tilt", direction="up", speed=25.0),)), grid=GRID, with_floor=True
    ).floor
    last = rearrange(made, "(p n) f h w -> f p h w n", n=6)[-1]
    assert (last[:, 0, :, :2] == 0).all() and (np.abs(last[:, 0, :, 2:]).max(axis=-1) == 60).all()
    waves = controls.floor_waves(torch.from_numpy(made)[None], 3)
    assert waves[0, :, -1, 0].abs().max() < 1e-6  # nothing is told of it


def test_waves_are_the_pattern_of_a_floor():
    """A pattern that repeats with the tile is a sum of the waves; shorter waves than a cell shows have faded."""
    spread = np.zeros((1, 96, 1, 40, 40), np.float32)
    points = rearrange(spread, "b (p n) f h w -> b p n f h w", n=6)
    rng = np.random.default_rng(0)
    points[:, :, :2] = rng.uniform(0, control.TILE_M, points[:, :, :2].shape)
    points[:, :, 2] = points[:, :, 5] = 0.1
    waves = controls.floor_waves(torch.from_numpy(spread), 3)
    waves = rearrange(waves, "b (p c) f h w -> p (b f h w) c", p=16)[0].double().numpy()
    x, y = (points[0, 0, i, 0].ravel() * 2 * np.pi / control.TILE_M for i in (0, 1))
    pattern = np.sin(2 * x - y + 0.3) + 0.5 * np.cos(3 * y)
    weights, *_ = np.linalg.lstsq(waves, pattern, rcond=None)
    np.testing.assert_allclose(waves @ weights, pattern, atol=1e-4)
    points[:, :, 2] = 3.0  # 3 m to the right: waves in x are gone, those in y stay
    faded = controls.floor_waves(torch.from_numpy(spread), 3)
    faded = rearrange(faded, "b (p n part) f h w -> n (b p part f h w)", p=16, part=2).abs().amax(dim=1)
    numbers = torch.tensor(controls.wave_numbers(3))
    assert (faded[numbers[:, 0] == 0] > 0.9).all() and (faded[numbers[:, 0] >= 2] < 0.05).all()
