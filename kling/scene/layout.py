"""SceneGraph -> ScenePlan: where things stand, how they start, when, and from where they are seen.

What is said is honoured; what is not said is drawn from a generator seeded by the caller, so the same graph and seed
give the same plan everywhere. What cannot be honoured becomes a doubt in the plan, never an exception: any graph gets
a plan. `kling.scene.fulfil.decide` simulates plans and asks for another until what was said happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kling.physics.simulate import Motion
from kling.prompt import knowledge
from kling.prompt.graph import LIGHTINGS, SETTINGS, SHAPES, Event, ObjectNode, SceneGraph
from kling.prompt.world import World, known_noun, settle
from kling.scene import framing
from kling.scene.motions import Start, at_rest, at_speed, start_of
from kling.scene.plan import Environment, PlannedEvent, PlannedObject, ScenePlan
from kling.scene.simulate import move

_TRIES = 6  # each a wider floor than the one before
_CANDIDATES = 192
_SAMPLES = 12  # moments at which paths are compared
_GAP_M = 0.07
_USUAL_HALF_M = 0.22  # of what the motions and the stage were made for
_SCALES = (0.2, 30.0)  # of a free noun against it
# Bounding sphere over the diagonal of the half sizes.
_ROUND = {"ball": 0.578, "cube": 1.0, "cylinder": 0.86, "capsule": 0.84, "cone": 0.84}


@dataclass
class _Item:
    """An object on its way into the plan."""

    node: ObjectNode
    proxy: str
    half: tuple[float, float, float]
    mass_kg: float
    friction: float
    restitution: float
    fixed: bool = False  # by nature, as a tree is
    scale: float = 1.0  # motions and room are this much larger than the playground's
    events: list[Event] = field(default_factory=list)
    start: Start = field(default_factory=Start)
    base: int | None = None  # index of the object it stands on
    target: int | None = None  # index of the object it runs into

    @property
    def reach_m(self) -> float:
        """Radius of the circle on the floor that it needs."""
        return float(np.hypot(self.half[0], self.half[1])) if self.proxy == "cube" else max(self.half)


def lay_out(
    graph: SceneGraph, *, seed: int, duration_s: float, fps: float, aspect: float = 1.0, auto_camera: bool = False,
    world: World | None = None,
) -> ScenePlan:  # fmt: skip
    """Decide everything that the graph leaves open.

    Args:
        graph: any graph, also an empty one or one with names this world does not know.
        seed: what is unsaid is drawn from it.
        aspect: width over height of the picture.
        auto_camera: choose a camera move where the graph says none; otherwise the camera stands still.
        world: what level 4 knows of the objects (`Understanding.world`); None: what it knows of the graph alone.
    """
    plan, _ = compose(
        graph, seed=seed, duration_s=duration_s, fps=fps, aspect=aspect, auto_camera=auto_camera, world=world
    )
    return plan


def compose(
    graph: SceneGraph, *, seed: int, duration_s: float, fps: float, aspect: float = 1.0, auto_camera: bool = False,
    world: World | None = None,
) -> tuple[ScenePlan, Motion]:  # fmt: skip
    """Like `lay_out`, with the motion that was simulated to place the camera."""
    rng = np.random.default_rng(np.random.SeedSequence([seed % 2**63, 0x51A9]))
    doubts: list[str] = []
    gravity = knowledge.GRAVITY_M_S2.get(graph.gravity or "earth", 9.81)
    world = world or settle(graph)
    items = _items(graph, world, doubts)
    begins = _begins(graph, duration_s)
    index = {item.node.id: i for i, item in enumerate(items)}
    _attach(graph, items, index, doubts)
    planned = []
    for item in items:
        if not item.events:
            item.start = replace(at_rest(item.proxy, rng), fixed=item.fixed)
        planned += _animate(item, items, index, begins, gravity, duration_s, rng, doubts, world.speed_m_s)
    places = _place(graph, items, index, rng, doubts)
    setting = _known(graph.setting, SETTINGS, doubts) or str(rng.choice(SETTINGS))
    light = str(rng.choice(LIGHTINGS, p=[0.4, 0.45, 0.15])) if setting != "night" else "studio"  # no sun at night
    environment = Environment(
        setting=setting,
        lighting=_known(graph.lighting, LIGHTINGS, doubts) or light,
        gravity_m_s2=gravity,
    )
    plan = ScenePlan(
        objects=tuple(_finish(item, items, places, i) for i, item in enumerate(items)),
        events=tuple(sorted(planned, key=lambda event: event.start_s)),
        camera=framing.UNPLACED,
        environment=environment,
        style=graph.style,
        duration_s=duration_s,
        fps=fps,
        doubts=tuple(doubts),
        not_understood=graph.not_understood,
    )
    motion = move(plan)
    camera = framing.frame(
        graph.camera,
        motion.position_m,
        np.array([_radius(item) for item in items]),
        duration_s=duration_s,
        aspect=aspect,
        elevation_deg=float(rng.uniform(12, 20)),
        auto=auto_camera,
        scale=_scale(items),
        speed_m_s=world.camera_m_s,
        turn_deg_s=world.camera_deg_s,
    )
    return plan.model_copy(update={"camera": camera}), motion


def _radius(item: _Item) -> float:
    """Of a ball around it."""
    share = _ROUND[item.proxy] if item.node.shape in SHAPES else 1.0  # the shares hold for the playground's proportions
    return float(np.linalg.norm(item.half)) * share


def _known(name: str | None, names: tuple[str, ...], doubts: list[str]) -> str | None:
    if name is not None and name not in names:
        doubts.append(f"{name}: a place or light that this world does not have")
        return None
    return name


def _items(graph: SceneGraph, world: World, doubts: list[str]) -> list[_Item]:
    items = []
    for node in graph.objects:
        known = world.properties(node.id)
        if node.shape not in SHAPES:
            box = " x ".join(f"{2 * half:.2g}" for half in known.half_size_m)
            unknown = "" if known_noun(node.shape) else "an unknown thing, "
            doubts.append(f"{node.shape}: {unknown}simulated as a {known.proxy} of {box} m")
        if node.size is not None and node.size not in knowledge.RADIUS_M:
            doubts.append(f"{node.size}: a size that this world does not have")
        items.append(
            _Item(
                node=node,
                proxy=known.proxy,
                half=known.half_size_m,
                mass_kg=known.mass_kg,
                friction=known.friction,
                restitution=known.restitution,
                fixed=known.fixed,
                scale=scale_of(node.shape, known.half_size_m),
            )
        )
    return items


def scale_of(shape: str, half_size_m: Sequence[float]) -> float:
    """How much larger than the playground's the motions of a thing are; its own shapes keep theirs."""
    return 1.0 if shape in SHAPES else float(np.clip(max(half_size_m) / _USUAL_HALF_M, *_SCALES))


def _scale(items: list[_Item]) -> float:
    """How much larger than the playground's this scene is."""
    return max((item.scale for item in items), default=1.0)


def _begins(graph: SceneGraph, duration_s: float) -> dict[int, float]:
    """When the events of each order begin: the clip is shared out evenly, with room to see the last one."""
    orders = sorted({event.order for event in graph.events})
    span = 0.9 * duration_s / max(len(orders), 1)
    return {order: i * span for i, order in enumerate(orders)}


def _attach(graph: SceneGraph, items: list[_Item], index: dict[str, int], doubts: list[str]) -> None:
    """Who stands on whom, who runs into whom, what happens to whom."""
    for relation in graph.relations:
        i, j = index.get(relation.subject), index.get(relation.object)
        if relation.kind == "on" and i is not None and j is not None and i != j:
            if _stands_on(items, j, i):
                doubts.append(f"{relation.subject} and {relation.object} cannot stand on each other")
            else:
                items[i].base = j
    for event in sorted(graph.events, key=lambda event: event.order):
        i = index.get(event.agent)
        if i is None:
            doubts.append(f"{event.action}: nobody called {event.agent}")
            continue
        items[i].events.append(event)


def _stands_on(items: list[_Item], upper: int, lower: int) -> bool:
    at: int | None = upper
    for _ in items:
        if at == lower:
            return True
        at = items[at].base if at is not None else None
    return False


def _animate(item, items, index, begins, gravity, duration_s, rng, doubts, speed_m_s) -> list[PlannedEvent]:
    """Choose the item's start so that its events happen; returns them with their times."""
    planned = []
    for n, event in enumerate(item.events):
        begin = begins[event.order]
        patient = index.get(event.patient or "")
        if event.action == "collide":
            if patient is not None and items[patient] is item:
                doubts.append(f"{item.node.id} cannot collide with itself")
                patient = None
            others = [j for j, other in enumerate(items) if other is not item]
            if patient is None and others:
                patient = others[int(rng.integers(len(others)))]
                doubts.append(f"{item.node.id} collides with something unsaid: {items[patient].node.id}")
            item.target = patient
        start = start_of(
            event, item.proxy, item.half, item.friction, item.restitution, gravity, duration_s - begin, rng, doubts,
            scale=item.scale,
        )  # fmt: skip
        if speed_m_s is not None and event.action in ("roll", "slide", "throw"):
            start = at_speed(start, speed_m_s)
        push = None
        if n == 0:
            item.start = replace(start, release_s=begin)
        elif event.action in ("collide", "stay"):  # what came before leads to it
            item.start = replace(
                item.start, travel_m=start.travel_m if event.action == "collide" else item.start.travel_m
            )
            if event.action == "collide" and item.events[0].action in ("roll", "slide"):
                item.start = replace(start, release_s=item.start.release_s)
            elif event.action == "collide":
                push = start
        else:
            push = start
            item.start = replace(item.start, travel_m=start.travel_m, moves_s=begin)
        item.friction = min(item.friction, start.friction if start.friction is not None else item.friction)
        item.restitution = start.restitution if start.restitution is not None else item.restitution
        planned.append(
            PlannedEvent(
                action=event.action,
                agent=event.agent,
                patient=event.patient,
                direction=event.direction,
                speed=event.speed,
                start_s=round(begin, 4),
                push_m_s=_vec(push.velocity_m_s) if push else None,
                push_rad_s=_vec(push.spin_rad_s) if push else None,
            )
        )
    return planned


def _place(graph, items: list[_Item], index: dict[str, int], rng, doubts: list[str]) -> np.ndarray:
    """Positions on the floor (k 2): the least bad of many drawn ones, on a floor that grows until nothing is wrong."""
    count = len(items)
    if not count:
        return np.zeros((0, 2))
    free = sum(item.base is None for item in items)
    scale = _scale(items)
    room = np.array([0.45 + 0.22 * free, 0.10 + 0.13 * free]) * scale
    best, best_cost = np.zeros((count, 2)), np.inf
    for _ in range(_TRIES):
        middle = rng.uniform(-room, room, (_CANDIDATES, count, 2))
        places = middle - np.array([item.start.travel_m for item in items]) / 2
        for i, item in enumerate(items):
            if item.target is not None:
                jitter = rng.uniform(-0.03, 0.03, (_CANDIDATES, 2))
                places[:, i] = places[:, item.target] - np.array(item.start.travel_m) + jitter
        for i in _bottom_up(items):
            base = items[i].base
            if base is not None:
                places[:, i] = places[:, base] + rng.uniform(-0.02, 0.02, (_CANDIDATES, 2))
        for relation in graph.relations:
            if relation.kind == "above" and relation.subject in index and relation.object in index:
                over, under = index[relation.subject], index[relation.object]
                if over != under and items[over].base is None:
                    places[:, over] = places[:, under] + rng.uniform(-0.05, 0.05, (_CANDIDATES, 2))
        hard, soft = _cost(graph, items, index, places)
        cost = hard * 100 + soft
        n = int(np.argmin(cost))
        if cost[n] < best_cost:
            best, best_cost = places[n], float(cost[n])
        if hard[n] < 1e-6:
            break
        room = room * 1.15
    else:
        doubts.append("the objects cannot be placed as said without touching each other")
    return best - (best.min(axis=0) + best.max(axis=0)) / 2 * [1.0, 1.0] * 0.5


def _bottom_up(items: list[_Item]) -> list[int]:
    def depth(i: int) -> int:
        base, n = items[i].base, 0
        while base is not None and n <= len(items):
            base, n = items[base].base, n + 1
        return n

    return sorted(range(len(items)), key=depth)


def _cost(graph, items: list[_Item], index: dict[str, int], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hard, soft) of each candidate: what must not be, and what would look bad. places: n k 2."""
    hard, soft = np.zeros(len(places)), np.zeros(len(places))
    radius = np.array([item.reach_m for item in items])
    shares = np.stack([item.start.shares(_SAMPLES) for item in items])  # k s: how far along its travel
    travel = np.array([item.start.travel_m for item in items])
    paths = places[:, :, None] + (shares[..., None] * travel[:, None])[None]  # n k s 2
    for i, a in enumerate(items):
        for j in range(i):
            b = items[j]
            if a.base == j or b.base == i or a.target == j or b.target == i or _over(graph, index, i, j):
                continue
            together = _SAMPLES
            distance = np.linalg.norm(paths[:, i, :together] - paths[:, j, :together], axis=-1).min(axis=1)
            hard += np.maximum(radius[i] + radius[j] + _GAP_M - distance, 0)
            delta = np.abs(places[:, i] - places[:, j])
            hides = np.maximum((radius[i] + radius[j]) * 0.8 - delta[:, 0], 0)
            soft += hides
    for relation in graph.relations:
        if relation.subject not in index or relation.object not in index or relation.subject == relation.object:
            continue
        i, j = index[relation.subject], index[relation.object]
        delta = places[:, j] - places[:, i]
        apart = 0.6 * (radius[i] + radius[j])
        if relation.kind == "left_of":
            hard += np.maximum(apart - delta[:, 0], 0) + np.maximum(np.abs(delta[:, 1]) - delta[:, 0], 0) * 0.5
        elif relation.kind == "right_of":
            hard += np.maximum(apart + delta[:, 0], 0) + np.maximum(np.abs(delta[:, 1]) + delta[:, 0], 0) * 0.5
        elif relation.kind == "in_front_of":
            hard += np.maximum(apart - delta[:, 1], 0) + np.maximum(np.abs(delta[:, 0]) - delta[:, 1], 0) * 0.5
        elif relation.kind == "behind":
            hard += np.maximum(apart + delta[:, 1], 0) + np.maximum(np.abs(delta[:, 0]) + delta[:, 1], 0) * 0.5
        elif relation.kind == "near":
            hard += np.maximum(np.linalg.norm(delta, axis=1) - 2.2 * (radius[i] + radius[j]), 0)
    spread = paths.reshape(len(paths), -1, 2)
    soft += 0.15 * np.ptp(spread[..., 0], axis=1) + 0.1 * np.ptp(spread[..., 1], axis=1)
    return hard, soft


def _over(graph, index: dict[str, int], i: int, j: int) -> bool:
    return any(
        relation.kind in ("above", "on") and {index.get(relation.subject), index.get(relation.object)} == {i, j}
        for relation in graph.relations
    )


def _finish(item: _Item, items: list[_Item], places: np.ndarray, i: int) -> PlannedObject:
    """The planned object at its place."""
    start = item.start
    ground = 0.0
    base = item.base
    while base is not None:
        ground += 2 * items[base].start.rest_m(items[base].half, items[base].proxy)
        base = items[base].base
    rest = start.rest_m(item.half, item.proxy)
    x, y = places[i]
    offset = np.array(start.offset_m)
    position = np.array([x, y, ground + rest + start.lift_m]) + offset
    pivot = None
    if start.rope_m:
        pivot = _vec((x, y, ground + rest + start.lift_m + start.rope_m))
    return PlannedObject(
        id=item.node.id,
        phrase=item.node.phrase,
        shape=item.node.shape,
        proxy=item.proxy,
        color=item.node.color,
        size=item.node.size,
        material=item.node.material,
        finish=item.node.finish,
        half_size_m=_vec(item.half),
        mass_kg=round(item.mass_kg, 4),
        friction=item.friction,
        restitution=item.restitution,
        position_m=_vec(position),
        quaternion=_vec(start.quaternion, 6),
        velocity_m_s=_vec(start.velocity_m_s),
        angular_velocity_rad_s=_vec(start.spin_rad_s),
        fixed=start.fixed,
        pivot_m=pivot,
        release_s=round(start.release_s, 4),
    )


def _vec(values, digits: int = 5) -> tuple:
    return tuple(round(float(value), digits) + 0.0 for value in values)
