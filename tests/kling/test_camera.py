"""Poses, moves, paths, framing, rays and Kling's camera format."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kling.camera import choose, kling_format, moves, path, poses, rays
from kling.camera.moves import Move, View
from kling.camera.path import Key
from kling.errors import ConfigError

numbers = st.floats(-3, 3, allow_nan=False)
vectors = arrays(np.float64, 3, elements=numbers)
VIEW = View(position_m=(0.0, -4.0, 1.5), target_m=(0.0, 0.0, 0.5), fov_y_deg=40.0)


def turned(vector) -> np.ndarray:
    return poses.from_rotation_vector(np.asarray(vector, float))


@given(vectors, vectors)
def test_quaternions_compose_like_matrices(a, b):
    p, q = turned(a), turned(b)
    np.testing.assert_allclose(
        poses.to_matrix(poses.multiply(p, q)), poses.to_matrix(p) @ poses.to_matrix(q), atol=1e-12
    )
    np.testing.assert_allclose(np.abs(np.sum(poses.from_matrix(poses.to_matrix(p)) * p)), 1.0, atol=1e-12)


@given(vectors)
def test_logarithm_undoes_exponential(v):
    if np.linalg.norm(v) < np.pi - 1e-3:
        np.testing.assert_allclose(poses.to_rotation_vector(turned(v)), v, atol=1e-9)


@given(vectors, vectors)
def test_invert_is_the_inverse(position, v):
    pose = poses.pose_matrix(position, turned(v))
    np.testing.assert_allclose(poses.invert(pose) @ pose, np.eye(4), atol=1e-12)


@given(vectors, vectors)
def test_look_at_puts_its_target_in_the_middle_and_stands_upright(position, target):
    if np.linalg.norm(position[:2] - target[:2]) < 1e-3:
        return
    pose = poses.pose_matrix(position, poses.look_at(position, target))[None]
    xy, depth = poses.project(target[None, None], pose, np.array([50.0]), 1.5)
    np.testing.assert_allclose(xy[0, 0], 0.5, atol=1e-6)
    assert depth[0, 0] == pytest.approx(np.linalg.norm(target - position))
    assert pose[0, 2, 0] == pytest.approx(0, abs=1e-9)  # the camera's right is level
    assert pose[0, 2, 1] <= 1e-9  # its down points down


def test_look_at_works_straight_down_and_refuses_its_own_place():
    np.testing.assert_allclose(
        poses.to_matrix(poses.look_at(np.array([0, 0, 3.0]), np.zeros(3)))[:, 2], [0, 0, -1], atol=1e-12
    )
    with pytest.raises(ConfigError, match="stands in what it looks at"):
        poses.look_at(np.ones(3), np.ones(3))


def test_project_agrees_with_the_intrinsic_matrix():
    point = np.array([0.3, -0.2, 2.0])
    K = poses.intrinsics_px(40.0, 320, 180)
    xy, _ = poses.project(point[None, None], np.eye(4)[None], np.array([40.0]), 320 / 180)
    np.testing.assert_allclose((K @ point / point[2])[:2], xy[0, 0] * [320, 180])


@st.composite
def key_lists(draw):
    """2 to 6 keys, any spacing; turns between neighbours stay under a right angle, as a director's do."""
    count = draw(st.integers(2, 6))
    gaps = draw(st.lists(st.floats(0.1, 2.0), min_size=count, max_size=count))
    q = turned(draw(vectors))
    keys, time_s = [], 0.0
    for gap in gaps:
        fov = draw(st.floats(10, 100))
        keys.append(Key(time_s=time_s, position_m=tuple(draw(vectors)), quaternion=tuple(q), fov_y_deg=fov))
        time_s += gap
        q = poses.multiply(q, turned(draw(arrays(np.float64, 3, elements=st.floats(-0.8, 0.8)))))
    return keys


@settings(max_examples=25, deadline=None)
@given(key_lists(), st.booleans())
def test_paths_pass_their_keys_without_a_jump_in_place_or_velocity(keys, eased):
    times = np.array([key.time_s for key in keys])
    made = path.evaluate(keys, times)
    np.testing.assert_allclose(made.camera_to_world[:, :3, 3], [key.position_m for key in keys], atol=1e-9)
    np.testing.assert_allclose(made.fov_y_deg, [key.fov_y_deg for key in keys], rtol=1e-9)
    _has_no_jump(keys, eased)


def test_a_quick_turn_before_a_slow_one_does_not_jump():
    """Carried on for a third of the long segment, the quick spin would be more than half a turn."""
    keys, q = [], np.array([1.0, 0, 0, 0])
    for time_s, turn in ((0.0, (0.8, 0.8, 0.8)), (0.1, (0.3, -0.8, 0.8)), (2.1, (0, 0, 0))):
        keys.append(Key(time_s=time_s, position_m=(0, 0, time_s), quaternion=tuple(q), fov_y_deg=40))
        q = poses.multiply(q, turned(np.array(turn)))
    _has_no_jump(keys, False)


def _has_no_jump(keys: list[Key], eased: bool):
    """Equal velocities from both sides, at keys and between, by differences of second order."""
    times = np.array([key.time_s for key in keys])
    step = 1e-5
    span = times[-1]
    for time_s in np.linspace(0, span, 40)[1:-1].tolist() + times[1:-1].tolist():
        around = path.evaluate(keys, np.array([time_s - 2 * step, time_s - step, time_s, time_s + step,
                                               time_s + 2 * step]).clip(0, span), eased=eased)  # fmt: skip
        p = around.camera_to_world[:, :3, :].reshape(5, -1)
        left = (3 * p[2] - 4 * p[1] + p[0]) / (2 * step)
        right = (-3 * p[2] + 4 * p[3] - p[4]) / (2 * step)
        np.testing.assert_allclose(left, right, atol=2e-3 * (1 + np.abs(left).max()))


def test_a_jump_in_velocity_would_be_seen():
    """The test above must be able to fail: straight lines between the same keys do jump."""
    keys = [
        Key(time_s=float(t), position_m=(float(t == 1), 0, 0), quaternion=(1, 0, 0, 0), fov_y_deg=40) for t in range(3)
    ]
    made = path.evaluate(keys, np.array([1 - 1e-4, 1.0, 1 + 1e-4])).camera_to_world[:, 0, 3]
    assert abs((made[2] - made[1]) - (made[1] - made[0])) < 1e-7  # ours turns round at rest; a straight line by 2e-4


def test_uniform_motion_stays_uniform_and_a_hold_holds():
    keys = [
        Key(time_s=t, position_m=(2 * t, 0, 1), quaternion=(1, 0, 0, 0), fov_y_deg=40) for t in (0.0, 0.3, 1.0, 1.1)
    ]
    times = np.linspace(0, 1.1, 12)
    np.testing.assert_allclose(path.evaluate(keys, times).camera_to_world[:, 0, 3], 2 * times, atol=1e-12)
    places = ((0.0, 0.0), (1.0, 0.0), (2.0, 1.0))
    hold = [Key(time_s=t, position_m=(x, 0, 1), quaternion=(1, 0, 0, 0), fov_y_deg=40) for t, x in places]
    held = path.evaluate(hold, np.linspace(0, 1, 9)).camera_to_world[:, 0, 3]
    np.testing.assert_allclose(held, 0, atol=1e-12)


def test_eased_paths_start_and_end_at_rest():
    keys = moves.move_keys([Move(kind="dolly", direction="in")], VIEW, 2.0)
    z = path.evaluate(keys, np.array([0, 1e-3, 1.0, 2 - 1e-3, 2.0]), eased=True).camera_to_world[:, 1, 3]
    assert abs(z[1] - z[0]) < 1e-5 and abs(z[4] - z[3]) < 1e-5 and abs(z[2] - z[0]) > 0.5


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "at least one key"),
        ([Key(time_s=t, position_m=(0, 0, 1), quaternion=(1, 0, 0, 0), fov_y_deg=40) for t in (1, 1)], "increasing"),
        ([Key(time_s=0, position_m=(0, 0, 1), quaternion=(0, 0, 0, 0), fov_y_deg=40)], "no rotation"),
        ([Key(time_s=0, position_m=(0, 0, 1), quaternion=(1, 0, 0, 0), fov_y_deg=0.5)], "between 1 and 170"),
        ([Key(time_s=0, position_m=(0, np.nan, 1), quaternion=(1, 0, 0, 0), fov_y_deg=40)], "finite"),
    ],
)
def test_impossible_keys_are_refused(keys, words):
    with pytest.raises(ConfigError, match=words):
        path.evaluate(keys, np.zeros(1))


def ends(*named: Move, duration_s: float = 2.0):
    keys = moves.move_keys(named, VIEW, duration_s)
    made = path.evaluate(keys, np.linspace(0, duration_s, 17))
    return made, made.camera_to_world[0], made.camera_to_world[-1]


@pytest.mark.parametrize(
    ("kind", "direction", "axis", "sign"),
    [
        ("dolly", "in", 2, 1), ("dolly", "out", 2, -1), ("dolly", "left", 0, -1), ("dolly", "right", 0, 1),
        ("crane", "up", 1, -1), ("crane", "down", 1, 1), ("orbit", "left", 0, -1), ("orbit", "right", 0, 1),
    ],
)  # fmt: skip
def test_travel_goes_where_its_name_says(kind, direction, axis, sign):
    _, first, last = ends(Move(kind=kind, direction=direction))
    moved = first[:3, :3].T @ (last[:3, 3] - first[:3, 3])
    assert moved[axis] * sign > 0.2


@pytest.mark.parametrize(
    ("kind", "direction", "x", "y"),
    [("pan", "left", 1, 0), ("pan", "right", -1, 0), ("tilt", "up", 0, 1), ("tilt", "down", 0, -1)],
)
def test_turns_move_the_picture_the_other_way(kind, direction, x, y):
    made, _, _ = ends(Move(kind=kind, direction=direction))
    target = np.broadcast_to(np.array([VIEW.target_m]), (17, 1, 3))
    xy, _ = poses.project(target, made.camera_to_world, made.fov_y_deg, 1.0)
    moved = xy[-1, 0] - xy[0, 0]
    assert moved @ [x, y] > 0.3 and abs(moved @ [y, x]) < 0.1


def test_roll_right_leans_the_top_to_the_right_and_zoom_in_narrows():
    made, first, last = ends(Move(kind="roll", direction="right"))
    assert (-last[:3, 1]) @ first[:3, 0] > 0.1
    made, _, _ = ends(Move(kind="zoom", direction="in"))
    assert made.fov_y_deg[-1] < 0.7 * made.fov_y_deg[0]


def test_orbit_and_crane_keep_their_target_in_the_middle():
    for move in (Move(kind="orbit", direction="left", speed=45), Move(kind="crane", direction="up")):
        made, _, _ = ends(move)
        target = np.broadcast_to(np.array([VIEW.target_m]), (17, 1, 3))
        xy, depth = poses.project(target, made.camera_to_world, made.fov_y_deg, 1.0)
        np.testing.assert_allclose(xy, 0.5, atol=2e-3)
        if move.kind == "orbit":
            np.testing.assert_allclose(depth, np.full_like(depth, depth[0]), rtol=1e-3)


def test_speeds_are_metres_and_degrees_a_second():
    _, first, last = ends(Move(kind="dolly", direction="left", speed=0.5))
    assert np.linalg.norm(last[:3, 3] - first[:3, 3]) == pytest.approx(1.0)
    _, first, last = ends(Move(kind="pan", direction="left", speed=20))
    turn = poses.to_rotation_vector(poses.from_matrix(last[:3, :3] @ first[:3, :3].T))
    assert np.rad2deg(turn[2]) == pytest.approx(40)
    made, _, _ = ends(Move(kind="zoom", direction="in", speed=5))
    assert made.fov_y_deg[0] - made.fov_y_deg[-1] == pytest.approx(10)


def test_slow_is_slower_than_usual_and_fast_faster():
    def far(word):
        _, first, last = ends(Move(kind="dolly", direction="left", word=word))
        return np.linalg.norm(last[:3, 3] - first[:3, 3])

    assert far("slow") < far(None) < far("fast")


def test_moves_combine():
    made, _, last = ends(Move(kind="orbit", direction="right"), Move(kind="dolly", direction="in"))
    distance = np.linalg.norm(made.camera_to_world[:, :3, 3] - VIEW.target_m, axis=1)
    assert distance[-1] < 0.8 * distance[0] and last[0, 3] > 0.5


def test_a_long_dolly_stops_short_and_no_move_goes_through_the_floor():
    made, _, last = ends(Move(kind="dolly", direction="in", speed=100), duration_s=10)
    assert np.linalg.norm(last[:3, 3] - VIEW.target_m) > 0.5
    made, _, last = ends(Move(kind="crane", direction="down", speed=100))
    assert made.camera_to_world[:, 2, 3].min() > 0


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "teleport"}, {"kind": "pan"}, {"kind": "pan", "direction": "in"},
        {"kind": "static", "direction": "up"}, {"kind": "pan", "direction": "left", "speed": -1.0},
        {"kind": "pan", "direction": "left", "speed": float("nan")},
        {"kind": "pan", "direction": "left", "word": "soon"}, {"kind": "zoom", "direction": "in", "strength": -1.0},
    ],
)  # fmt: skip
def test_impossible_moves_are_refused(bad):
    with pytest.raises(ConfigError):
        Move(**bad)


def scene(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start = rng.uniform([-1.2, -0.8, 0.2], [1.2, 1.2, 0.8], (count, 3))
    travel = rng.uniform(-0.6, 0.6, (count, 3)) * [1, 1, 0.2]
    return start + np.linspace(0, 1, 17)[:, None, None] * travel, rng.uniform(0.12, 0.3, count)


@pytest.mark.parametrize(
    "move", [Move(kind=k, direction=d) for k, ds in moves.SIGNS.items() for d in ds], ids=lambda m: m.name
)
def test_what_must_stay_in_frame_stays_in_frame(move):
    shares = []
    for seed in range(4):
        position, radius = scene(seed, 1 + seed % 3)
        framing = choose.frame_scene(position, radius, (move,), duration_s=2.0, aspect=1.0)
        made = path.evaluate(framing.keys, np.linspace(0, 2, 17))
        inside = choose.inside_frame(position, radius, made, 1.0)
        assert framing.in_frame == pytest.approx(inside.mean())
        shares.append(framing.in_frame)
    assert np.mean(shares) >= 0.97, shares


def test_inside_frame_sees_what_leaves():
    position = np.array([[[0.0, 0, 0.5]], [[5.0, 0, 0.5]]])
    made = path.evaluate(moves.move_keys((), VIEW, 1.0), np.array([0.0, 1.0]))
    assert choose.inside_frame(position, np.array([0.2]), made, 1.0).tolist() == [[True], [False]]
    behind = np.array([[[0.0, -9, 0.5]], [[0.0, -9, 0.5]]])
    assert not choose.inside_frame(behind, np.array([0.2]), made, 1.0).any()


def test_only_what_must_stay_counts():
    position, radius = np.array([[[0.0, 0, 0.3], [40.0, 0, 0.3]]]), np.array([0.3, 0.3])
    near = choose.frame_scene(position, radius, (), duration_s=1.0, aspect=1.0, must_stay=np.array([True, False]))
    both = choose.frame_scene(position, radius, (), duration_s=1.0, aspect=1.0)
    assert near.in_frame == 1.0 and both.in_frame < 1.0  # never so far that nothing is to be seen
    assert np.linalg.norm(near.keys[0].position_m) < 3


def test_the_camera_chosen_fits_what_happens():
    still, radius = np.full((17, 1, 3), 0.3), np.array([0.3])
    assert choose.choose_camera(still, radius, duration_s=2, aspect=1).moves[0].kind == "orbit"
    across = still + np.linspace(-1, 1, 17)[:, None, None] * [1, 0, 0]
    assert choose.choose_camera(across, radius, duration_s=2, aspect=1).moves[0].name == "dolly right"
    falling = still + np.linspace(1, 0, 17)[:, None, None] * [0, 0, 1]
    assert choose.choose_camera(falling, radius, duration_s=2, aspect=1).moves == ()
    assert choose.choose_camera(np.zeros((1, 0, 3)), np.zeros(0), duration_s=2, aspect=1).keys


def test_positions_that_are_not_finite_are_refused():
    with pytest.raises(ConfigError, match="not finite"):
        choose.frame_scene(np.full((2, 1, 3), np.nan), np.ones(1), (), duration_s=1, aspect=1)
    with pytest.raises(ConfigError, match="one radius an object"):
        choose.frame_scene(np.zeros((2, 1, 3)), np.ones(2), (), duration_s=1, aspect=1)


def test_rays_of_a_still_camera_have_no_moment_and_point_where_pixels_are():
    made = path.evaluate(moves.move_keys((), VIEW, 1.0), np.linspace(0, 1, 5))
    lines = rays.plucker(made.camera_to_world, made.fov_y_deg, height=4, width=6, aspect=1.5)
    np.testing.assert_allclose(lines[:, 3:], 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(lines[:, :3], axis=1), 1)
    assert lines[0, 0, 0, 0] < 0 < lines[0, 0, 0, -1] and lines[0, 1, 0, 0] < 0 < lines[0, 1, -1, 0]


@given(vectors, vectors)
@settings(deadline=None)
def test_rays_do_not_depend_on_where_the_world_is(shift, v):
    made = path.evaluate(moves.move_keys((Move(kind="orbit", direction="left"),), VIEW, 1.0), np.linspace(0, 1, 3))
    moved = poses.pose_matrix(shift, turned(v)) @ made.camera_to_world
    a = rays.plucker(made.camera_to_world, made.fov_y_deg, height=2, width=2, aspect=1)
    b = rays.plucker(moved, made.fov_y_deg, height=2, width=2, aspect=1)
    np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize(
    "move", [Move(kind=k, direction=d) for k, ds in moves.SIGNS.items() for d in ds], ids=lambda m: m.name
)
def test_camera_flow_is_what_projecting_floor_points_gives(move):
    """Points of the floor, projected by two cameras, move by the flow at the cells they arrive in."""
    made = path.evaluate(moves.move_keys((move,), VIEW, 2.0), np.array([0.6, 0.7]))
    pose, fov = made.camera_to_world, made.fov_y_deg
    flow = rays.camera_flow((pose[:1], fov[:1]), (pose[1:], fov[1:]), height=90, width=120, aspect=4 / 3)[0]
    rng = np.random.default_rng(0)
    floor = np.concatenate([rng.uniform(-1, 1, (40, 2)), np.zeros((40, 1))], axis=1)
    xy, _ = poses.project(np.stack([floor, floor]), pose, fov, 4 / 3)
    before, after = xy * [120, 90]
    kept = ((after > 0) & (after < [120, 90])).all(axis=1)
    column, row = after[kept].astype(int).T
    assert kept.sum() > 10
    np.testing.assert_allclose(flow[:, row, column].T, (after - before)[kept], atol=0.05 + 0.04 * np.abs(flow).max())
    if move.kind == "static":
        np.testing.assert_allclose(flow, 0, atol=1e-9)


def test_turning_moves_the_horizon_and_travel_does_not():
    def sky(move):
        view = View(position_m=(0, 0, 1.5), target_m=(0, 10, 1.5))
        made = path.evaluate(moves.move_keys((move,), view, 1.0), np.array([0.0, 1.0]))
        p, f = made.camera_to_world, made.fov_y_deg
        return rays.camera_flow((p[:1], f[:1]), (p[1:], f[1:]), height=8, width=8, aspect=1)[0, 0, 0]

    assert np.abs(sky(Move(kind="pan", direction="left", speed=10))).min() > 1
    assert np.abs(sky(Move(kind="dolly", direction="left", speed=0.5))).max() < 0.2


@pytest.mark.parametrize(
    ("axis", "value", "name"),
    [
        ("horizontal", 3, "dolly right"), ("horizontal", -3, "dolly left"), ("vertical", 10, "crane up"),
        ("pan", 5, "tilt up"), ("pan", -5, "tilt down"), ("tilt", 2, "pan right"), ("tilt", -2, "pan left"),
        ("roll", 1, "roll right"), ("zoom", -4, "zoom in"), ("zoom", 4.5, "zoom out"),
    ],
)  # fmt: skip
def test_the_kling_format_has_its_own_words(axis, value, name):
    control = {"type": "simple", "config": {**dict.fromkeys(kling_format.AXES, 0), axis: value}}
    (move,) = kling_format.from_kling(control)
    assert move.name == name and move.strength == pytest.approx(abs(value) / 5)
    assert kling_format.to_kling(move)["config"][axis] == pytest.approx(value)


def test_kling_types_and_nothing():
    assert kling_format.from_kling(None) is None and kling_format.from_kling({"type": None}) is None
    names = [move.name for move in kling_format.from_kling({"type": "right_turn_forward"})]
    assert names == ["pan right", "dolly in"]
    for kind in kling_format.TYPES:
        assert moves.move_keys(kling_format.from_kling({"type": kind, "config": None}), VIEW, 5.0)


@pytest.mark.parametrize(
    "control",
    [
        {"type": "fly"}, {"type": "simple"}, {"type": "simple", "config": {}}, {"type": "simple", "config": {"pan": 0}},
        {"type": "simple", "config": {"pan": 1, "tilt": 1}}, {"type": "simple", "config": {"pan": 11}},
        {"type": "simple", "config": {"yaw": 1}}, {"type": "simple", "config": {"pan": "1"}}, {"type": 3},
        {"type": "simple", "config": {"pan": True}}, {"type": "simple", "config": {"pan": float("nan")}},
        {"type": "down_back", "config": {"pan": 1}}, {"type": "simple", "config": 3}, {"speed": 1}, {"type": []},
    ],
)  # fmt: skip
def test_bad_kling_controls_are_refused(control):
    with pytest.raises(ConfigError):
        kling_format.from_kling(control)


def test_orbit_has_no_kling_form():
    with pytest.raises(ConfigError, match="no such move"):
        kling_format.to_kling(Move(kind="orbit", direction="left"))
