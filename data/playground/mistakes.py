"""Graphs that are wrong in one thing: what a caption of them says is not in the clip. One function for each mistake.

`MISTAKES[name](graph, rng)` gives the wrong graph, or None where this mistake cannot be made in it.
"""

from dataclasses import replace

import numpy as np

from kling.prompt.graph import CAMERA_MOVES, COLORS, SETTINGS, SHAPES, CameraMove, Event, SceneGraph

_ALONE = ("fall", "bounce", "roll", "slide", "throw", "spin", "swing", "topple", "stay")  # need nobody else
_OPPOSITE = {"in": "out", "left": "right", "up": "down"} | {"out": "in", "right": "left", "down": "up"}


def wrong_color(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """One thing, with all its twins, in a colour that nothing in the clip has."""
    free = [color for color in COLORS if color not in {node.color for node in graph.objects}]
    return _repainted(graph, rng, "color", free)


def wrong_shape(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """One thing of a shape that nothing in the clip has."""
    free = [shape for shape in SHAPES if shape not in {node.shape for node in graph.objects}]
    return _repainted(graph, rng, "shape", free)


def swapped_colors(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """Two things of different shapes change colours: every word is right, and the sentence is wrong."""
    looks = {(node.color, node.shape) for node in graph.objects}
    pairs = [
        (a, b) for a in graph.objects for b in graph.objects
        if a.color != b.color and a.shape < b.shape and not {(b.color, a.shape), (a.color, b.shape)} & looks
    ]  # fmt: skip
    if not pairs:
        return None
    a, b = pairs[int(rng.integers(len(pairs)))]
    changed = {(a.color, a.shape): b.color, (b.color, b.shape): a.color}
    nodes = [replace(node, color=changed.get((node.color, node.shape), node.color)) for node in graph.objects]
    return replace(graph, objects=tuple(nodes))


def wrong_action(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """Something else happens than what happens."""
    if not graph.events:
        return None
    index = int(rng.integers(len(graph.events)))
    event = graph.events[index]
    done = {other.action for other in graph.events}
    action = _one(rng, [name for name in _ALONE if name not in done])
    if action is None:
        return None
    other = Event(action=action, agent=event.agent, order=event.order)
    return replace(graph, events=(*graph.events[:index], other, *graph.events[index + 1 :]))


def wrong_number(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """One thing more of a kind that is there, or one thing less of those that nothing is said about."""
    named = {x for e in graph.events for x in (e.agent, e.patient)}
    named |= {x for r in graph.relations for x in (r.subject, r.object)}
    idle = [node for node in graph.objects if node.id not in named]
    if idle and len(graph.objects) > 1 and (rng.random() < 0.5 or len(graph.objects) > 7):
        gone = idle[int(rng.integers(len(idle)))]
        return replace(graph, objects=tuple(node for node in graph.objects if node.id != gone.id))
    if len(graph.objects) > 7 or graph.relations:
        return None
    model = (idle or list(graph.objects))[int(rng.integers(len(idle or graph.objects)))]
    if any(event.patient and model.id in (event.agent, event.patient) for event in graph.events):
        return None
    twin = replace(model, id=f"o{len(graph.objects) + 1}")
    does = [replace(event, agent=twin.id) for event in graph.events if event.agent == model.id]
    return replace(graph, objects=(*graph.objects, twin), events=(*graph.events, *does))


def wrong_camera(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """The opposite move, another move, or one where the camera stands still."""
    moves = [move for move in graph.camera if move.kind != "static"]
    if moves and rng.random() < 0.5:
        turned = [replace(m, direction=_OPPOSITE[m.direction]) if m.direction else m for m in graph.camera]
        return replace(graph, camera=tuple(turned))
    kind = _one(rng, [name for name in CAMERA_MOVES if name != "static" and name not in {m.kind for m in moves}])
    direction = _one(rng, list(CAMERA_MOVES[kind or "pan"]))
    return replace(graph, camera=(CameraMove(kind=kind or "pan", direction=direction),))


def wrong_setting(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """Another place, where a place is said."""
    if graph.setting is None:
        return None
    return replace(graph, setting=_one(rng, [name for name in SETTINGS if name != graph.setting]))


MISTAKES = {
    "color": wrong_color,
    "shape": wrong_shape,
    "colors swapped": swapped_colors,
    "action": wrong_action,
    "number": wrong_number,
    "camera": wrong_camera,
    "setting": wrong_setting,
}


def _repainted(graph: SceneGraph, rng: np.random.Generator, field: str, values: list[str]) -> SceneGraph | None:
    value = _one(rng, values)
    if value is None or not graph.objects:
        return None
    model = graph.objects[int(rng.integers(len(graph.objects)))]
    look = (model.color, model.shape)
    nodes = [replace(n, **{field: value}) if (n.color, n.shape) == look else n for n in graph.objects]
    return replace(graph, objects=tuple(nodes))


def _one(rng: np.random.Generator, values: list) -> str | None:
    return values[int(rng.integers(len(values)))] if values else None
