"""Seed -> SceneGraph: what a clip of the playground is about."""

from dataclasses import replace

import numpy as np

from data.playground import splits
from kling.prompt import knowledge
from kling.prompt.graph import (
    ACTIONS,
    CAMERA_MOVES,
    COLORS,
    FINISHES,
    LIGHTINGS,
    MATERIALS,
    SETTINGS,
    SHAPES,
    SIZES,
    CameraMove,
    Event,
    ObjectNode,
    Relation,
    SceneGraph,
)

_COUNTS = {1: 0.30, 2: 0.25, 3: 0.18, 4: 0.10, 5: 0.06, 6: 0.05, 7: 0.03, 8: 0.03}
# What each action needs of its agent.
DOERS: dict[str, tuple[str, ...]] = {
    "fall": SHAPES,
    "bounce": ("ball", "cube", "capsule"),
    "roll": tuple(shape for shape in SHAPES if shape in knowledge.ROLLS),
    "slide": ("cube", "cylinder", "cone", "capsule"),
    "throw": SHAPES,
    "spin": SHAPES,
    "swing": SHAPES,
    "topple": ("cylinder", "capsule", "cone", "cube"),
    "collide": ("ball", "cube", "cylinder", "capsule"),
    "stay": SHAPES,
}
_DIRECTIONS = {
    "roll": ("left", "right", "toward", "away"),
    "slide": ("left", "right", "toward", "away"),
    "throw": ("left", "right", "up", "away"),
    "topple": ("left", "right"),
    "bounce": ("left", "right"),
    "collide": (),
}
_SPEEDY = frozenset({"roll", "slide", "spin", "throw", "swing", "collide"})
# What the same object may do next.
_THEN = {
    "fall": ("roll", "spin", "throw"),
    "bounce": ("roll",),
    "stay": ("roll", "slide", "topple", "throw"),
    "slide": ("topple", "throw"),
}
_ZERO_G = ("throw", "spin", "stay", "collide")


def sample(seed: int, *, attempt: int = 0) -> SceneGraph:
    """The graph of one clip. ``attempt`` gives another one where the first could not be staged.

    The training split never shows a held-out combination; a third of the other splits' clips show one.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, attempt, 0xC11B]))
    split = splits.split_of(seed)
    wants = split != "train" and rng.random() < 1 / 3
    for _ in range(1000):
        graph = _draw(rng)
        shows = splits.shows_held_out(graph)
        if wants and not shows and graph.events:
            graph = _plant(graph, rng)
            shows = splits.shows_held_out(graph)
        if shows == wants or (split != "train" and not wants):
            return graph
    raise AssertionError("held_out.json leaves nothing to draw")


def _plant(graph: SceneGraph, rng) -> SceneGraph:
    """Give one agent the color and shape of a held-out combination of its action."""
    event = graph.events[int(rng.integers(len(graph.events)))]
    fitting = sorted(c for c in splits.held_out() if c[2] == event.action)
    if not fitting:
        return graph
    color, shape, _ = fitting[int(rng.integers(len(fitting)))]
    if any(node.color == color and node.shape == shape for node in graph.objects):
        return graph
    others = [e for e in graph.events if e.agent == event.agent]
    if any(shape not in DOERS[e.action] for e in others) or any(event.agent == r.object for r in graph.relations):
        return graph
    if sum(_look(n) == _look(next(m for m in graph.objects if m.id == event.agent)) for n in graph.objects) > 1:
        return graph
    objects = tuple(replace(n, color=color, shape=shape) if n.id == event.agent else n for n in graph.objects)
    return replace(graph, objects=objects)


def _draw(rng: np.random.Generator) -> SceneGraph:
    count = int(rng.choice(list(_COUNTS), p=list(_COUNTS.values())))
    gravity = str(rng.choice(["", "moon", "mars", "zero"], p=[0.88, 0.06, 0.04, 0.02])) or None
    events, objects = _actors(rng, count, gravity)
    relations = _relations(rng, objects, events) if count > 1 else ()
    setting = _maybe(rng, 0.7, SETTINGS)
    return SceneGraph(
        objects=tuple(objects),
        relations=relations,
        events=tuple(events),
        camera=_camera(rng),
        setting=setting,
        lighting=_maybe(rng, 0.35, LIGHTINGS if setting != "night" else ("studio",)),
        gravity=gravity,
    )


def _maybe(rng, share: float, values) -> str | None:
    return str(rng.choice(values)) if rng.random() < share else None


def _actors(rng, count: int, gravity: str | None) -> tuple[list[Event], list[ObjectNode]]:
    """Objects and what they do."""
    usual = [action for action in ACTIONS if (gravity != "zero" or action in _ZERO_G)]
    acting = 1 if count == 1 else int(rng.integers(1, min(count, 3) + 1))
    ordered = acting > 1 and rng.random() < 0.5 and gravity is None  # on the moon there is no time for more
    objects: list[ObjectNode] = []
    events: list[Event] = []
    for i in range(count):
        name = f"o{i + 1}"
        action = None
        if i < acting:
            fitting = [a for a in usual if a != "collide" or (count > acting or count == 1)]
            if count == 1:
                fitting = [a for a in fitting if a != "collide"]
            action = str(rng.choice(fitting))
        shape = str(rng.choice(DOERS[action] if action else SHAPES))
        material = _maybe(rng, 0.3, MATERIALS)
        if action == "bounce" and material:
            material = "rubber"
        elif action == "fall" and material == "rubber":
            material = "wood"
        finish = _maybe(rng, 0.22 if material is None else 0.06, FINISHES)
        color, size = _new_color(rng, shape, objects), _maybe(rng, 0.55, SIZES)
        objects.append(ObjectNode(id=name, shape=shape, color=color, size=size, material=material, finish=finish))
        if action:
            patient = f"o{count}" if action == "collide" else None
            events.append(_event(rng, action, name, patient, len(events) if ordered else 0))
    if count <= 3 and gravity is None and len(events) == 1 and events[0].action in _THEN and rng.random() < 0.3:
        then = str(rng.choice(_THEN[events[0].action]))
        if objects[0].shape in DOERS[then]:
            events.append(_event(rng, then, "o1", None, 1))
    if len([e for e in events if e.action == "collide"]) > 1:  # one collision a clip keeps the picture readable
        first = next(e for e in events if e.action == "collide")
        events = [e for e in events if e.action != "collide" or e is first]
    if count > 1 and not any(e.action == "collide" for e in events) and rng.random() < 0.2:
        objects, events = _twins(rng, objects, events)
    orders = {order: i for i, order in enumerate(sorted({e.order for e in events}))}
    return [replace(e, order=orders[e.order]) for e in events], objects


def _event(rng, action: str, agent: str, patient: str | None, order: int) -> Event:
    directions = _DIRECTIONS.get(action, ())
    direction = str(rng.choice(directions)) if directions and rng.random() < 0.65 else None
    speed = _maybe(rng, 0.35, ("slow", "fast")) if action in _SPEEDY else None
    return Event(action=action, agent=agent, patient=patient, direction=direction, speed=speed, order=order)


def _twins(rng, objects: list[ObjectNode], events: list[Event]) -> tuple[list[ObjectNode], list[Event]]:
    """Make two or three objects alike: those that do nothing, or one that acts and another that does the same."""
    idle = [n for n, node in enumerate(objects) if all(e.agent != node.id for e in events)]
    objects = list(objects)
    if len(idle) >= 2:
        group = idle[: int(rng.integers(2, min(len(idle), 4) + 1))]
        for n in group[1:]:
            objects[n] = replace(objects[group[0]], id=objects[n].id)
        return objects, events
    acting = [node for node in objects if sum(e.agent == node.id for e in events) == 1]
    if idle and acting:
        model = acting[0]
        event = next(e for e in events if e.agent == model.id)
        objects[idle[0]] = replace(model, id=objects[idle[0]].id)
        events = [*events, replace(event, agent=objects[idle[0]].id)]
    return objects, events


def _look(node: ObjectNode) -> ObjectNode:
    return replace(node, id="")


def _new_color(rng, shape: str, objects: list[ObjectNode]) -> str:
    """A color that no other object of this shape has: words must tell things apart."""
    taken = {node.color for node in objects if node.shape == shape}
    return str(rng.choice([color for color in COLORS if color not in taken]))


def _relations(rng, objects: list[ObjectNode], events: list[Event]) -> tuple[Relation, ...]:
    looks = [_look(node) for node in objects]
    single = [node for node in objects if looks.count(_look(node)) == 1]
    does = {node.id: [e.action for e in events if node.id in (e.agent, e.patient)] for node in objects}
    if len(single) < 2 or rng.random() > 0.55:
        return ()
    order = rng.permutation(len(single))
    a, b = single[order[0]], single[order[1]]
    if any({e.agent, e.patient} == {a.id, b.id} for e in events):
        return ()
    kinds = ["left_of", "right_of", "in_front_of", "behind", "near"]
    upright = ("cube", "cylinder", "cone")
    if (
        b.shape in knowledge.FLAT_TOP
        and not does[b.id]
        and b.size != "small"
        and a.shape in upright
        and set(does[a.id]) <= {"stay"}
    ):
        kinds += ["on", "on", "on"]
    if "fall" in does[a.id][:1] and not does[b.id]:
        kinds += ["above", "above"]
    relations = [Relation(kind=str(rng.choice(kinds)), subject=a.id, object=b.id)]
    if len(single) > 2 and rng.random() < 0.25:
        c = single[order[2]]
        relations.append(Relation(kind=str(rng.choice(["left_of", "right_of"])), subject=c.id, object=b.id))
        if relations[0].kind in ("left_of", "right_of") and relations[1].kind == relations[0].kind:
            relations.pop()
    return tuple(relations)


def _camera(rng) -> tuple[CameraMove, ...]:
    draw = rng.random()
    if draw < 0.25:
        return ()
    if draw < 0.33:
        return (CameraMove(kind="static"),)
    kinds = [kind for kind in CAMERA_MOVES if kind != "static"]
    first = _move(rng, str(rng.choice(kinds)))
    if draw > 0.93:
        second = _move(rng, str(rng.choice([k for k in ("zoom", "tilt", "pan", "crane") if k != first.kind])))
        return (first, second)
    return (first,)


def _move(rng, kind: str) -> CameraMove:
    return CameraMove(
        kind=kind, direction=str(rng.choice(CAMERA_MOVES[kind])), speed=_maybe(rng, 0.35, ("slow", "fast"))
    )
