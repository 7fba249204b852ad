"""Fits to what was seen: estimates, predictions, and the nearest lawful trajectory."""

from dataclasses import replace

import numpy as np
import pytest

from kling.camera import moves, path, poses
from kling.errors import ConfigError, InputError
from kling.physics.batch import Batch
from kling.physics.constrain import constrain
from kling.physics.estimate import Known, estimate, estimate_from_picture, predict
from kling.physics.fit import rest_height_m
from kling.physics.laws import Laws
from kling.physics.residual import residual
from kling.physics.simulate import Body, simulate

FPS = 8


def body(
    name="a",
    shape="ball",
    place=(0.0, 0.0, 1.2),
    velocity=(0.4, 0.0, 0.0),
    friction=0.4,
    restitution=0.7,
    r=0.2,
    **more,
):
    return Body(
        name=name, shape=shape, half_size_m=(r, r, r), mass_kg=1.0, friction=friction, restitution=restitution,
        position_m=place, velocity_m_s=velocity, **more,
    )  # fmt: skip


def unknowing(*bodies: Body) -> tuple[Body, ...]:
    """The same shapes with defaults for all that is to be estimated."""
    return tuple(replace(b, friction=0.5, restitution=0.5, velocity_m_s=(0, 0, 0)) for b in bodies)


def watch(bodies, frames=8, gravity=9.81, noise_m=0.002, seed=0):
    truth = simulate(bodies, num_frames=17, fps=FPS, gravity_m_s2=gravity).position_m
    noise = np.random.default_rng(seed).normal(0, noise_m, truth.shape)
    return truth, (truth + noise)[:frames]


@pytest.mark.parametrize(("gravity", "height"), [(9.81, 1.2), (1.62, 0.7), (3.71, 0.8)])
@pytest.mark.parametrize("restitution", [0.5, 0.8])
def test_a_drop_shows_gravity_and_restitution_from_eight_frames(gravity, height, restitution):
    bodies = (body(place=(0, 0, height), restitution=restitution),)
    truth, seen = watch(bodies, gravity=gravity)
    found = estimate(unknowing(*bodies), seen, fps=FPS, sigma_m=0.002)
    assert found.gravity_m_s2 == pytest.approx(gravity, rel=0.10)
    assert found.bodies[0].restitution == pytest.approx(restitution, rel=0.15)
    ahead = predict(found, num_frames=17, fps=FPS).position_m
    # A camera that frames this sees about 2.5 m across: 5 % of its width is 0.125 m.
    assert np.abs(ahead - truth).max() < 0.125
    assert found.rms < 0.01


@pytest.mark.parametrize("friction", [0.15, 0.3, 0.5])
def test_a_slide_shows_friction_from_eight_frames(friction):
    bodies = (body(shape="cube", place=(0, 0, 0.2), velocity=(1.6, 0.4, 0), friction=friction),)
    truth, seen = watch(bodies)
    found = estimate(unknowing(*bodies), seen, fps=FPS, sigma_m=0.002)
    assert found.bodies[0].friction == pytest.approx(friction, rel=0.15)
    assert np.abs(predict(found, num_frames=17, fps=FPS).position_m - truth).max() < 0.05
    assert found.gravity_std_m_s2 > 5, "a slide cannot tell gravity, and must say so"


def test_what_rocks_on_its_edge_still_slides():
    half = (0.176, 0.176, 0.231)
    tall = body(shape="cylinder", place=(0.0, 0.0, 0.231), velocity=(-2.55, -0.34, 0.0), friction=0.45, restitution=0.4)
    tall = replace(tall, half_size_m=half)
    _, seen = watch((tall,), seed=110)
    seen[2, 0, 2] = 0.243  # its middle, lifted by 12 mm
    found = estimate(unknowing(tall), seen, fps=FPS, sigma_m=0.002)
    assert found.bodies[0].friction == pytest.approx(0.45, rel=0.15)


def test_what_is_not_seen_keeps_its_default_and_says_so():
    bodies = (body(place=(0, 0, 3.0), velocity=(0, 0, 0)),)
    _, seen = watch(bodies, frames=4)  # still falling: nothing bounced
    found = estimate(unknowing(*bodies), seen, fps=FPS, sigma_m=0.002)
    assert found.bodies[0].restitution == pytest.approx(0.5, abs=0.1) and found.restitution_std[0] > 0.2
    assert found.friction_std[0] > 0.2
    assert found.gravity_m_s2 == pytest.approx(9.81, rel=0.1) and found.gravity_std_m_s2 < 1


def test_several_bodies_and_missing_frames():
    bodies = (body("a", place=(-1, 0, 1.0)), body("b", "cube", (1, 0, 0.2), (0.0, 1.5, 0.0), friction=0.3))
    truth, seen = watch(bodies)
    seen[3, 0] = np.nan
    found = estimate(unknowing(*bodies), seen, fps=FPS, sigma_m=0.002)
    assert found.bodies[1].friction == pytest.approx(0.3, rel=0.15)
    assert np.abs(predict(found, num_frames=17, fps=FPS).position_m - truth).max() < 0.125


def test_tracks_in_the_picture_of_a_moving_camera():
    bodies = (body(restitution=0.75),)
    truth, _ = watch(bodies)
    view = moves.View(position_m=(0, -4, 1.5), target_m=(0.3, 0, 0.6))
    keys = moves.move_keys((moves.Move(kind="orbit", direction="left"),), view, 2.0)
    camera = path.evaluate(keys, path.frame_times(17, FPS))
    focal = poses.focal(camera.fov_y_deg)
    intrinsic = np.stack([np.array([[f, 0, 0.5], [0, f, 0.5], [0, 0, 1]]) for f in focal])
    cameras = intrinsic @ poses.invert(camera.camera_to_world)[:, :3]
    track, _ = poses.project(truth, camera.camera_to_world, camera.fov_y_deg, 1.0)
    track = track + np.random.default_rng(1).normal(0, 0.002, track.shape)
    prior = replace(unknowing(*bodies)[0], position_m=(0.03, -0.02, 1.22))
    found = estimate_from_picture((prior,), track[:8], cameras[:8], fps=FPS, sigma=0.002)
    assert found.gravity_m_s2 == pytest.approx(9.81, rel=0.10)
    assert found.bodies[0].restitution == pytest.approx(0.75, rel=0.15)
    ahead = predict(found, num_frames=17, fps=FPS).position_m
    there, _ = poses.project(ahead, camera.camera_to_world, camera.fov_y_deg, 1.0)
    assert np.abs(there - track).max() < 0.05
    with pytest.raises(InputError, match="one 3 x 4 camera a frame"):
        estimate_from_picture((prior,), track[:8], cameras[:7], fps=FPS)


def test_said_gravity_is_believed():
    bodies = (body(place=(0, 0, 0.8)),)
    _, seen = watch(bodies, gravity=1.62)
    found = estimate(unknowing(*bodies), seen, fps=FPS, known=Known(gravity_m_s2=1.62, gravity_spread=0.0))
    assert found.gravity_m_s2 == pytest.approx(1.62) and found.gravity_std_m_s2 == 0


@pytest.mark.parametrize(
    ("track", "error"),
    [(np.zeros((1, 1, 3)), InputError), (np.full((4, 1, 3), np.nan), InputError), (np.zeros((4, 2, 3)), InputError)],
)
def test_too_little_to_see_is_refused(track, error):
    with pytest.raises(error):
        estimate((body(),), track, fps=FPS)


def test_errors_must_be_above_zero():
    with pytest.raises(ConfigError):
        estimate((body(),), np.zeros((4, 1, 3)), fps=FPS, sigma_m=0.0)


def test_variants_in_a_batch_are_what_simulate_gives():
    shapes = ("ball", "cube", "cylinder", "capsule", "cone")
    scene = tuple(
        body(s, s, (0.6 * i, 0.0, 0.5 + 0.1 * i), (0.3, 0.2, 0), angular_velocity_rad_s=(1.0, 2.0, 0.5))
        for i, s in enumerate(shapes)
    )
    scene += (body("wall", "cube", (5, 0, 0.2), fixed=True),)
    bouncy = tuple(replace(b, restitution=0.9, friction=0.1, velocity_m_s=(0.5, 0, 1)) for b in scene)
    made = Batch(scene, num_frames=9, fps=FPS).run([(scene, 9.81), (bouncy, 3.0)])
    for n, (bodies, gravity) in enumerate([(scene, 9.81), (bouncy, 3.0)]):
        want = simulate(bodies, num_frames=9, fps=FPS, gravity_m_s2=gravity).position_m
        np.testing.assert_allclose(made[n], want, atol=1e-9)


def test_bodies_that_hang_or_wait_are_simulated_too():
    scene = (body("a", pivot_m=(0, 0, 2.2), velocity=(1, 0, 0)), body("b", place=(2, 0, 1), release_s=0.5))
    made = Batch(scene, num_frames=9, fps=FPS).run([(scene, 9.81)])[0]
    np.testing.assert_allclose(made, simulate(scene, num_frames=9, fps=FPS).position_m, atol=1e-12)


@pytest.mark.parametrize("shape", ["ball", "cube", "cylinder", "capsule"])
def test_bodies_rest_where_the_simulation_lets_them(shape):
    tall = replace(body(shape=shape), half_size_m=(0.2, 0.2, 0.2 if shape in ("ball", "cube") else 0.3))
    resting = replace(tall, position_m=(0, 0, rest_height_m(tall)), velocity_m_s=(0, 0, 0), restitution=0.0)
    height = simulate((resting,), num_frames=9, fps=FPS).position_m[:, 0, 2]
    np.testing.assert_allclose(height, rest_height_m(tall), atol=2e-3)


def test_each_law_is_a_switch():
    thrown = body(place=(0, 0, 1.0), velocity=(1.0, 0, 0))
    sliding = body("b", "cube", (0, 2, 0.2), (2.0, 0, 0))
    pair = (body("c", "cube", (-1, -2, 0.2), (3.0, 0, 0), friction=0.1), body("d", "cube", (0, -2, 0.2), (0, 0, 0)))

    def run(*off):
        return simulate((thrown, sliding, *pair), num_frames=17, fps=FPS, laws=Laws.without(off)).position_m

    every = run()
    assert every[:, 0, 2].min() < 0.3 and every[-1, 3, 0] > 0.1  # it falls, and the pushed cube moves
    assert np.ptp(run("gravity")[:, 0, 2]) < 1e-6
    assert run("inertia")[-1, 0, 0] < 0.2 * every[-1, 0, 0]
    assert run("friction")[-1, 1, 0] > 3.5 > every[-1, 1, 0]
    rebound = slice(6, None)
    assert run("restitution")[rebound, 0, 2].max() < 0.22 < every[rebound, 0, 2].max()
    through = run("solidity")
    assert through[-1, 3, 0] == pytest.approx(0, abs=1e-3) and through[-1, 2, 0] > 0.5 and through[..., 2].min() > 0.15
    with pytest.raises(ConfigError, match="unknown law"):
        Laws.without(["luck"])


_TIME = np.arange(11) / FPS
_DRAWN = {
    "teleports": lambda t: (np.where(t < 0.6, -1.0, 1.0), 0.2 + 0 * t),
    "hovers": lambda t: (0 * t, 1.0 + 0 * t),
    "gains speed as it bounces": lambda t: (0 * t, np.where(t < 0.4, 1 - 4.9 * t**2, 0.2 + abs(7 * (t - 0.4) % 2))),
    "turns back in the air": lambda t: (np.where(t < 0.5, 4 * t, 4 - 4 * t), 1.5 + 0 * t),
}


@pytest.mark.parametrize("drawn", _DRAWN.values(), ids=_DRAWN.keys())
def test_any_drawing_becomes_a_motion_that_obeys(drawn):
    across, up = drawn(_TIME)
    path_m = np.stack([across, 0 * across, up], axis=1)[:, None]
    known = {"rest_height_m": np.array([0.2]), "radius_m": np.array([0.2])}
    before = residual(path_m, fps=FPS, **known)
    made = constrain((body(place=tuple(path_m[0, 0])),), path_m, fps=FPS)
    after = residual(made.motion.position_m, fps=FPS, **known)
    assert before.lawful < 1 and before.mean_m_s2 > 10 * before.mean_error_m_s2 / 3
    assert after.lawful == 1 and after.mean_m_s2 < 0.1 and made.rms > 0.1
    assert made.motion.position_m[..., 2].min() > 0.18


@pytest.mark.parametrize("apart_m", [2.0, 0.0])
def test_what_is_drawn_through_each_other_stays_solid(apart_m):
    """Two balls drawn to change places, or drawn into each other."""
    half = apart_m / 2
    one, other = np.linspace(-half, half, 11), np.linspace(half, -half, 11)
    path_m = np.stack([np.stack([x, 0 * x, 0.2 + 0 * x], axis=1) for x in (one, other)], axis=1)
    made = constrain((body("a", place=(-half, 0, 0.2)), body("b", place=(half, 0, 0.2))), path_m, fps=FPS)
    gaps = np.linalg.norm(made.motion.position_m[:, 0] - made.motion.position_m[:, 1], axis=1)
    assert gaps.min() > 0.37 and made.rms < max(apart_m, 0.5)


def test_what_rolls_does_not_show_its_friction():
    ball = body(place=(0, 0, 0.2), velocity=(0.7, 0.1, 0), angular_velocity_rad_s=(-0.5, 3.5, 0))
    found = estimate(unknowing(ball), watch((ball,), seed=1)[1], fps=FPS, sigma_m=0.002)
    assert found.friction_std[0] > 0.2, "a bar as wide as the prior's: the frames do not show it"


def test_a_lawful_drawing_is_kept_and_an_unlawful_one_becomes_lawful():
    ball = body(velocity=(0, 0, 0))
    true = simulate((replace(ball, velocity_m_s=(0.5, 0, 1.0)),), num_frames=17, fps=FPS).position_m
    kept = constrain((ball,), true, fps=FPS, properties_may_change=False)
    assert kept.rms < 0.03
    rising = np.zeros((17, 1, 3))
    rising[:, 0, 2] = np.linspace(0.3, 1.8, 17)  # upwards for ever
    made = constrain((body(place=(0, 0, 0.3), velocity=(0, 0, 0)),), rising, fps=FPS)
    height = made.motion.position_m[:, 0, 2]
    assert made.gravity_m_s2 == pytest.approx(9.81) and made.rms > 0.1
    assert height.max() > 1.0 and height[-1] < height.max() - 0.3  # thrown up, and down again
    again = simulate(made.bodies, num_frames=17, fps=FPS).position_m
    np.testing.assert_allclose(again, made.motion.position_m)
