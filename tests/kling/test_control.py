"""The control tensor: what is painted where, the same from a simulated plan and from a sidecar's."""

import numpy as np
import pytest

from kling.camera import moves, path
from kling.errors import ConfigError
from kling.model.controls import OBJECT_MAPS
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


def test_the_number_of_maps_is_the_models():
    assert control.OBJECT_MAPS == OBJECT_MAPS


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
