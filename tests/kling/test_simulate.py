"""Physics against formulas, and what the camera sees against a renderer."""

import math

import numpy as np
import pytest

from kling.errors import InputError
from kling.physics.simulate import FLOOR, Body, Push, simulate
from kling.scene.plan import CameraKey, Environment, PlannedCamera, PlannedObject, ScenePlan
from kling.scene.simulate import simulate as simulate_plan

LOOKING = (0.674, -0.738, 0.0, 0.0)  # along +y, a little down


def body(name: str = "a", **fields) -> Body:
    usual = {"shape": "ball", "half_size_m": (0.15, 0.15, 0.15), "mass_kg": 0.5, "friction": 0.4, "restitution": 0.4}
    return Body(**{"name": name, "position_m": (0.0, 0.0, 0.15), **usual, **fields})


@pytest.mark.parametrize("restitution", [0.2, 0.4, 0.6, 0.8, 0.9])
def test_restitution_is_the_ratio_of_speeds(restitution: float):
    ratios = []
    for height in (0.5, 0.9, 1.5):
        dropped = body(restitution=restitution, position_m=(0, 0, 0.15 + height))
        motion = simulate((dropped,), num_frames=500, fps=500)
        speed = motion.velocity_m_s[:, 0, 2]
        lowest = int(speed.argmin())
        ratios.append(-speed[lowest : lowest + 40].max() / speed[lowest])
    assert np.mean(ratios) == pytest.approx(restitution, abs=0.03)


@pytest.mark.parametrize("gravity", [9.81, 1.62, 3.71])
def test_free_fall(gravity: float):
    motion = simulate((body(position_m=(0, 0, 3.0)),), num_frames=9, fps=16, gravity_m_s2=gravity)
    t = np.arange(9) / 16
    np.testing.assert_allclose(motion.position_m[:, 0, 2], 3.0 - gravity * t**2 / 2, atol=0.012)
    np.testing.assert_allclose(motion.velocity_m_s[:, 0, 2], -gravity * t, atol=1e-6)


@pytest.mark.parametrize(("shape", "friction"), [("cube", 0.25), ("cube", 0.45), ("cylinder", 0.4), ("cone", 0.4)])
def test_friction_stops_what_slides(shape: str, friction: float):
    motion = simulate(
        (body(shape=shape, friction=friction, velocity_m_s=(1.5, 0, 0), restitution=0.2),), num_frames=17, fps=8
    )
    assert motion.position_m[-1, 0, 0] == pytest.approx(1.5**2 / (2 * friction * 9.81), rel=0.05)
    assert np.abs(motion.velocity_m_s[-1]).max() < 0.05


def test_a_ball_rolls_on():
    spin = (0.0, 1.0 / 0.15, 0.0)
    motion = simulate((body(velocity_m_s=(1, 0, 0), angular_velocity_rad_s=spin),), num_frames=17, fps=8)
    assert 1.6 < motion.position_m[-1, 0, 0] < 2.0
    np.testing.assert_allclose(motion.angular_velocity_rad_s[-1, 0, 1], motion.velocity_m_s[-1, 0, 0] / 0.15, rtol=0.02)


def test_a_pendulum_keeps_time():
    length = 0.8
    start = (length * math.sin(0.2), 0.0, 2.0 - length * math.cos(0.2))
    bob = body(half_size_m=(0.03, 0.03, 0.03), position_m=start, pivot_m=(0, 0, 2.0))
    motion = simulate((bob,), num_frames=401, fps=100)
    x = motion.position_m[:, 0, 0]
    crossings = np.flatnonzero((x[:-1] > 0) & (x[1:] <= 0)) / 100
    assert np.diff(crossings).mean() == pytest.approx(2 * math.pi * math.sqrt(length / 9.81), rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(motion.position_m[:, 0] - [0, 0, 2.0], axis=1), length, atol=1e-6)


def test_a_collision_keeps_momentum():
    bodies = (
        body("a", position_m=(0, 0, 1), velocity_m_s=(1, 0, 0), mass_kg=1.0, restitution=0.8),
        body("b", position_m=(0.5, 0, 1), mass_kg=3.0, restitution=0.8),
    )
    motion = simulate(bodies, num_frames=9, fps=8, gravity_m_s2=0.0)
    before, after = motion.velocity_m_s[0, :, 0], motion.velocity_m_s[-1, :, 0]
    assert after @ [1, 3] == pytest.approx(before @ [1, 3], abs=1e-3)
    assert after[1] - after[0] == pytest.approx(0.8, abs=0.04)
    hits = [touch for touch in motion.touches if {touch.a, touch.b} == {"a", "b"}]
    assert len({touch.frame for touch in hits}) <= 2
    assert sum(touch.impulse_n_s for touch in hits) == pytest.approx(3.0 * after[1], rel=0.1)
    assert hits[0].point_m[0] == pytest.approx(0.35, abs=0.05)


def test_resting_bodies_stay_and_touch_the_floor():
    shapes = ("ball", "cube", "cylinder", "cone")
    bodies = tuple(
        body(shape, shape=shape, position_m=(i * 0.6, 0, 0.15), restitution=0.8) for i, shape in enumerate(shapes)
    )
    motion = simulate(bodies, num_frames=25, fps=8)
    assert np.linalg.norm(motion.position_m - motion.position_m[0], axis=-1).max() < 0.01
    for shape in shapes:
        frames = {touch.frame for touch in motion.touches if touch.a == shape and touch.b == FLOOR}
        assert len(frames) >= 22
    assert (motion.position_m[..., 2] > 0.13).all()


def test_held_until_released_then_pushed():
    falling = body("a", position_m=(0, 0, 1.5), release_s=0.5)
    pushed = body("b", position_m=(1, 0, 0.15), shape="cube")
    push = Push(body="b", time_s=1.0, velocity_m_s=(0, 1.0, 0))
    motion = simulate((falling, pushed), num_frames=17, fps=8, pushes=(push,))
    assert np.allclose(motion.position_m[:5, 0], (0, 0, 1.5), atol=1e-6)
    assert motion.position_m[6, 0, 2] < 1.4
    assert np.abs(motion.position_m[8, 1, 1]) < 0.01 < 0.08 < motion.position_m[-1, 1, 1]


def test_the_same_start_gives_the_same_numbers():
    bodies = (body("a", position_m=(0, 0, 1)), body("b", shape="cone", position_m=(0.05, 0.02, 0.2)))
    first, second = (simulate(bodies, num_frames=17, fps=8) for _ in range(2))
    assert (first.position_m == second.position_m).all()
    assert first.touches == second.touches


def test_bad_bodies_are_named():
    with pytest.raises(InputError, match="unknown shape: torus"):
        simulate((body(shape="torus"),), num_frames=2, fps=8)
    with pytest.raises(InputError, match="same name"):
        simulate((body("a"), body("a")), num_frames=2, fps=8)
    with pytest.raises(InputError, match="unknown body: b"):
        simulate((body("a"),), num_frames=2, fps=8, pushes=(Push(body="b", time_s=0, velocity_m_s=(0, 0, 0)),))


def planned(name: str, proxy: str, position, color: str = "red", **fields) -> PlannedObject:
    usual = {"half_size_m": (0.2, 0.2, 0.2), "mass_kg": 1.0, "friction": 0.4, "restitution": 0.4}
    return PlannedObject(
        id=name, phrase=proxy, shape=proxy, proxy=proxy, color=color, position_m=position, **{**usual, **fields}
    )


def scene(*objects: PlannedObject, **fields) -> ScenePlan:
    key = CameraKey(time_s=0.0, position_m=(0.0, -3.0, 0.8), quaternion=LOOKING, fov_y_deg=42.0)
    usual = {"camera": PlannedCamera(keys=(key,)), "environment": Environment(setting="studio"), "duration_s": 1.0}
    return ScenePlan(objects=objects, fps=8, **{**usual, **fields})


@pytest.mark.parametrize("proxy", ["ball", "cube", "cylinder", "capsule", "cone"])
def test_boxes_and_visibility_agree_with_a_renderer(proxy: str):
    """The geometric outline against pixels: a colored object alone, then half hidden by another."""
    from data.playground.render import Renderer

    size = 128
    half = (0.22, 0.22, 0.22) if proxy in ("ball", "cube") else (0.15, 0.15, 0.25)
    alone = scene(planned("o1", proxy, (0.1, 0.3, half[2] + 0.2), half_size_m=half, fixed=True))
    hider = planned("o2", "cube", (0.3, -0.6, 0.3), color="blue", half_size_m=(0.22, 0.1, 0.3), fixed=True)
    both = alone.model_copy(update={"objects": (*alone.objects, hider)})
    renderer = Renderer(width_px=size, height_px=size)
    areas = []
    for plan in (alone, both):
        track = simulate_plan(plan)
        frame = renderer.draw(plan, track)[0].astype(int)
        red = frame[..., 0] > frame[..., 1:].max(axis=-1) + 40
        areas.append(red.sum())
        if plan is alone:
            ys, xs = np.nonzero(red)
            drawn = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / size
            np.testing.assert_allclose(track.objects[0].box[0], drawn, atol=2.5 / size)
            assert track.objects[0].visibility[0] > 0.97
    renderer.close()
    assert 0.1 < track.objects[0].visibility[0] < 0.95
    assert track.objects[0].visibility[0] == pytest.approx(areas[1] / areas[0], abs=0.06)


def test_behind_the_camera_there_is_no_box():
    plan = scene(planned("o1", "ball", (0.0, -5.0, 0.2)), planned("o2", "ball", (9.0, 0.0, 0.2)))
    track = simulate_plan(plan)
    assert track.objects[0].box[0] is None
    assert track.objects[0].visibility[0] == 0 and track.objects[0].depth_m[0] < 0
    box = track.objects[1].box[0]
    assert box is not None and box[0] > 1 and track.objects[1].visibility[0] == 0
    assert len(track.camera.fov_y_deg) == plan.num_frames == 9


def test_wide_pictures_keep_shapes():
    ball = planned("o1", "ball", (0.0, 0.0, 0.5), fixed=True)
    square, wide = (simulate_plan(scene(ball), aspect=aspect).objects[0].box[0] for aspect in (1.0, 2.0))
    assert square is not None and wide is not None
    assert wide[3] - wide[1] == pytest.approx(square[3] - square[1], abs=1e-4)
    assert (wide[2] - wide[0]) * 2 == pytest.approx(square[2] - square[0], abs=1e-4)
