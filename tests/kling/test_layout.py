"""Any graph gets a plan; what is said happens; what is unsaid is decided by the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.physics.laws import EVERY_LAW, Laws
from kling.prompt.graph import (
    ACTIONS,
    CAMERA_MOVES,
    COLORS,
    DIRECTIONS,
    GRAVITIES,
    RELATIONS,
    SETTINGS,
    SHAPES,
    SIZES,
    CameraMove,
    Event,
    ObjectNode,
    Relation,
    SceneGraph,
)
from kling.scene.direct import direct
from kling.scene.fulfil import decide, unfulfilled
from kling.scene.layout import lay_out
from kling.scene.plan import ScenePlan
from kling.scene.simulate import simulate


def node(name: str, shape: str = "ball", color: str = "red", **fields) -> ObjectNode:
    return ObjectNode(id=name, shape=shape, color=color, **fields)


DOERS = [
    ("fall", "cone"),
    ("fall", "ball"),
    ("bounce", "ball"),
    ("bounce", "cube"),
    ("roll", "ball"),
    ("roll", "cylinder"),
    ("roll", "capsule"),
    ("slide", "cube"),
    ("slide", "cone"),
    ("throw", "ball"),
    ("throw", "cube"),
    ("spin", "ball"),
    ("spin", "cube"),
    ("swing", "cylinder"),
    ("topple", "cylinder"),
    ("topple", "cone"),
    ("topple", "cube"),
    ("topple", "capsule"),
    ("stay", "cube"),
]


@pytest.mark.parametrize(("action", "shape"), DOERS)
def test_what_is_said_happens(action: str, shape: str):
    graph = SceneGraph(objects=(node("o1", shape),), events=(Event(action=action, agent="o1"),))
    for seed in range(3):
        _, _, missing = decide(graph, seed=seed, duration_s=2.0, fps=8)
        assert missing == ()


@pytest.mark.parametrize("action", ["roll", "slide"])
@pytest.mark.parametrize(
    ("direction", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("toward", 1, -1), ("away", 1, 1)]
)
def test_directions_are_the_viewers(action: str, direction: str, axis: int, sign: int):
    shape = "ball" if action == "roll" else "cube"
    graph = SceneGraph(objects=(node("o1", shape),), events=(Event(action=action, agent="o1", direction=direction),))
    _, track, missing = decide(graph, seed=4, duration_s=2.0, fps=8)
    moved = np.subtract(track.objects[0].position_m[-1], track.objects[0].position_m[0])
    assert missing == () and moved[axis] * sign > 0.2
    boxes = [track.objects[0].box[i] for i in (0, -1)]
    if axis == 0 and boxes[0] and boxes[1]:
        assert (boxes[1][0] - boxes[0][0]) * sign > 0


def test_fast_is_faster_than_slow():
    speeds = {}
    for word in ("slow", None, "fast"):
        graph = SceneGraph(objects=(node("o1"),), events=(Event(action="roll", agent="o1", speed=word),))
        plan = lay_out(graph, seed=1, duration_s=2.0, fps=8)
        speeds[word] = np.linalg.norm(plan.objects[0].velocity_m_s)
    assert speeds["slow"] * 1.3 < speeds[None] < speeds["fast"] / 1.3


def test_collisions_hit_what_is_named_and_nothing_else():
    graph = SceneGraph(
        objects=(node("o1"), node("o2", "cube", "blue"), node("o3", "cone", "green")),
        events=(Event(action="collide", agent="o1", patient="o2"),),
    )
    _, track, missing = decide(graph, seed=0, duration_s=2.0, fps=8)
    assert missing == ()
    pairs = {frozenset((c.a, c.b)) for c in track.contacts}
    assert frozenset(("o1", "o2")) in pairs and frozenset(("o1", "o3")) not in pairs


def test_order_of_events():
    graph = SceneGraph(
        objects=(node("o1"), node("o2", "cube", "blue")),
        events=(Event(action="slide", agent="o2", order=1), Event(action="fall", agent="o1", order=0)),
    )
    plan, track, missing = decide(graph, seed=0, duration_s=2.0, fps=8)
    assert missing == ()
    starts = {event.action: event.start_s for event in plan.events}
    assert starts["fall"] == 0.0 and starts["slide"] > 0.5
    cube = np.array(track.objects[1].position_m)
    before = int(starts["slide"] * 8)
    assert np.linalg.norm(cube[before] - cube[0]) < 0.02 < np.linalg.norm(cube[-1] - cube[0])


@pytest.mark.parametrize("kind", RELATIONS)
def test_relations_hold_in_the_first_frame(kind: str):
    above = (Event(action="fall", agent="o1"),) if kind == "above" else ()
    graph = SceneGraph(
        objects=(
            node("o1", "cube", size="small"),
            node("o2", "cube", "blue", size="large"),
            node("o3", "cone", "green"),
        ),
        relations=(Relation(kind=kind, subject="o1", object="o2"),),
        events=above,
    )
    plan, track, missing = decide(graph, seed=2, duration_s=2.0, fps=8)
    assert missing == ()
    a, b = (np.array(track.objects[i].position_m[0]) for i in (0, 1))
    checks = {
        "left_of": a[0] < b[0],
        "right_of": a[0] > b[0],
        "in_front_of": a[1] < b[1],
        "behind": a[1] > b[1],
        "on": a[2] == pytest.approx(plan.objects[0].half_size_m[2] + 2 * plan.objects[1].half_size_m[2], abs=0.01),
        "above": a[2] > b[2] + 0.3,
        "near": np.linalg.norm(a - b) < 1.3,
    }
    assert checks[kind]


@pytest.mark.parametrize("count", [1, 4, 8])
def test_nobody_stands_in_another(count: int):
    graph = SceneGraph(objects=tuple(node(f"o{i}", SHAPES[i % 5], COLORS[i]) for i in range(count)))
    plan, track, missing = decide(graph, seed=3, duration_s=2.0, fps=8)
    assert missing == ()
    for i, a in enumerate(plan.objects):
        assert max(track.objects[i].visibility) > 0.4
        for b in plan.objects[:i]:
            gap = np.linalg.norm(np.subtract(a.position_m, b.position_m)[:2])
            assert gap > 0.8 * (a.half_size_m[0] + b.half_size_m[0])


@pytest.mark.parametrize("gravity", GRAVITIES)
def test_gravity_of_the_place(gravity: str):
    graph = SceneGraph(objects=(node("o1"),), events=(Event(action="throw", agent="o1"),), gravity=gravity)
    plan, track, missing = decide(graph, seed=0, duration_s=2.0, fps=8)
    wanted = {"earth": 9.81, "moon": 1.62, "mars": 3.71, "zero": 0.0}[gravity]
    assert missing == () and plan.environment.gravity_m_s2 == wanted
    velocity = np.array(track.objects[0].velocity_m_s)[:, 2]
    assert (velocity[0] - velocity[1]) * 8 == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "direction"), [(kind, direction) for kind, ways in CAMERA_MOVES.items() for direction in ways]
)
def test_the_camera_moves_as_said(kind: str, direction: str | None):
    graph = SceneGraph(objects=(node("o1", "cube"),), camera=(CameraMove(kind=kind, direction=direction),))
    plan, track, missing = decide(graph, seed=0, duration_s=2.0, fps=8)
    assert missing == ()
    assert plan.camera.moves == (f"{kind} {direction}" if direction else kind,)
    first, last = (np.array(track.camera.camera_to_world[i]) for i in (0, -1))
    changed = abs(first - last).max() > 0.05 or abs(track.camera.fov_y_deg[0] - track.camera.fov_y_deg[-1]) > 4
    assert changed == (kind != "static")


def test_a_still_camera_unless_asked_to_choose():
    graph = SceneGraph(objects=(node("o1", "cube"),))
    still = lay_out(graph, seed=0, duration_s=2.0, fps=8)
    chosen = lay_out(graph, seed=0, duration_s=2.0, fps=8, auto_camera=True)
    assert still.camera.moves == ("static",) and chosen.camera.moves != ("static",)


def test_the_seed_decides_what_is_unsaid():
    graph = SceneGraph(objects=(node("o1"), node("o2", "cube")), events=(Event(action="roll", agent="o1"),))
    plans = [lay_out(graph, seed=seed, duration_s=2.0, fps=8) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_what_cannot_be_becomes_a_doubt():
    graph = SceneGraph(
        objects=(node("o1", "zebra"), node("o2", "cube")),
        relations=(Relation(kind="on", subject="o1", object="o2"), Relation(kind="on", subject="o2", object="o1")),
        events=(
            Event(action="roll", agent="o2"),
            Event(action="sing", agent="o1"),
            Event(action="fall", agent="ghost"),
            Event(action="stay", agent="o2"),
        ),
        setting="the inside of a whale",
    )
    plan = lay_out(graph, seed=0, duration_s=2.0, fps=8)
    text = " ".join(plan.doubts)
    for word in ("zebra", "sing", "ghost", "whale", "cube does not roll", "cannot stand on each other"):
        assert word in text


def test_an_empty_graph_gets_a_plan():
    plan, track, missing = decide(SceneGraph(), seed=0, duration_s=2.0, fps=8)
    assert plan.objects == () and len(track.camera.fov_y_deg) == 17 and missing == ()


def test_a_lie_is_found_out():
    """The check reads the track: a plan that does nothing does not fulfil a graph that says something."""
    still = SceneGraph(objects=(node("o1"),))
    plan = lay_out(still, seed=0, duration_s=2.0, fps=8)
    track = simulate(plan)
    for action in ACTIONS:
        if action in ("stay", "collide"):
            continue
        said = SceneGraph(objects=still.objects, events=(Event(action=action, agent="o1"),))
        assert unfulfilled(said, plan, track) != (), action


names = st.sampled_from(["o1", "o2", "o3", "o4", "nobody"])
objects = st.lists(
    st.tuples(
        st.sampled_from((*SHAPES, "teapot")), st.sampled_from((*COLORS, None)), st.sampled_from((*SIZES, None, "odd"))
    ),
    max_size=4,
)
events = st.lists(
    st.builds(
        Event,
        action=st.sampled_from((*ACTIONS, "dance")),
        agent=names,
        patient=st.one_of(st.none(), names),
        direction=st.sampled_from((*DIRECTIONS, None)),
        speed=st.sampled_from(("slow", "fast", None)),
        order=st.integers(0, 3),
    ),
    max_size=4,
)
relations = st.lists(st.builds(Relation, kind=st.sampled_from(RELATIONS), subject=names, object=names), max_size=3)


@settings(max_examples=25, deadline=None)
@given(
    objects,
    events,
    relations,
    st.sampled_from((*GRAVITIES, None)),
    st.sampled_from((*SETTINGS, None)),
    st.integers(0, 99),
)
def test_any_graph_gets_a_plan_that_can_be_simulated(looks, happenings, places, gravity, setting, seed):
    graph = SceneGraph(
        objects=tuple(ObjectNode(id=f"o{i + 1}", shape=s, color=c, size=z) for i, (s, c, z) in enumerate(looks)),
        events=tuple(happenings),
        relations=tuple(places),
        gravity=gravity,
        setting=setting,
    )
    plan = lay_out(graph, seed=seed, duration_s=1.0, fps=8)
    assert ScenePlan.model_validate_json(plan.model_dump_json()) == plan
    track = simulate(plan)
    assert [item.id for item in track.objects] == [node.id for node in graph.objects]
    assert all(len(item.box) == plan.num_frames for item in track.objects)


# --- things that the playground does not have --------------------------------------------------------------------


def test_known_nouns_have_their_sizes_and_masses():
    plan = direct("a dog slides to the left, past a tree and a truck", fps=8).plan
    dog, truck = (next(o for o in plan.objects if o.shape == name) for name in ("dog", "truck"))
    tree = next(o for o in plan.objects if o.shape == "tree")
    assert dog.proxy == "capsule" and dog.mass_kg == pytest.approx(20) and max(dog.half_size_m) < 0.6
    assert truck.proxy == "cube" and truck.mass_kg > 100 * dog.mass_kg and truck.half_size_m[0] > 2
    assert tree.fixed and tree.half_size_m[2] > 2
    assert any("dog" in doubt for doubt in plan.doubts)


def test_an_unknown_noun_is_a_named_doubt():
    plan = direct("a zorple next to a red ball", fps=8).plan
    assert any("zorple" in doubt and "unknown" in doubt for doubt in plan.doubts)


@pytest.mark.parametrize(("noun", "least_m", "most_m"), [("marble", 0.03, 0.5), ("boulder", 1.0, 6.0)])
def test_motions_have_the_size_of_what_moves(noun: str, least_m: float, most_m: float):
    made = direct(f"a {noun} rolls to the left", fps=8, duration_s=2.0)
    way = made.track.objects[0].position_m[0][0] - made.track.objects[0].position_m[-1][0]
    assert least_m < way < most_m
    assert not any("does not roll" in doubt or "never in" in doubt for doubt in made.plan.doubts)


def test_a_collision_with_itself_is_a_doubt():
    assert any("met" in doubt for doubt in direct("a ball collides with itself", fps=8).plan.doubts)
    graph = SceneGraph(objects=(node("o1"),), events=(Event(action="collide", agent="o1", patient="o1"),))
    assert any("itself" in doubt for doubt in lay_out(graph, seed=0, duration_s=1.0, fps=8).doubts)


@pytest.mark.parametrize("law", ["gravity", "inertia", "friction", "restitution"])
def test_each_law_is_a_switch_of_the_simulation(law: str):
    action, shape = {"gravity": ("fall", "ball"), "restitution": ("bounce", "ball")}.get(law, ("slide", "cube"))
    graph = SceneGraph(objects=(node("o1", shape),), events=(Event(action=action, agent="o1"),))
    plan = lay_out(graph, seed=0, duration_s=2.0, fps=8)
    with_it, without = (
        np.array(simulate(plan, laws=laws).objects[0].position_m) for laws in (EVERY_LAW, Laws.without([law]))
    )
    assert np.abs(with_it - without).max() > 0.1


_WORDS = "red blue ball cube dog million two hits falls itself above while not then camera orbits on behind 🎈 ignore"
_WORDS_JA = "赤い 青い ボール 立方体 犬 百万個の が に を は ぶつかる 落ちる ながら の上 カメラ 😀 ball and"


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from((*_WORDS.split(), *_WORDS_JA.split())), min_size=1, max_size=14), st.booleans())
def test_any_words_get_a_plan(words: list[str], joined: bool):
    plan = direct(("" if joined else " ").join(words), fps=4, duration_s=1.0).plan
    assert ScenePlan.model_validate_json(plan.model_dump_json()) == plan
    assert plan.objects or plan.doubts
