"""Does what was said happen? Read from the simulated track alone, so a plan cannot praise itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kling.prompt.graph import Event, Relation, SceneGraph
from kling.prompt.world import World
from kling.scene.layout import compose, scale_of
from kling.scene.plan import ObjectTrack, ScenePlan, SceneTrack
from kling.scene.simulate import camera_track, see

_HEADING = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "toward": (0.0, -1.0), "away": (0.0, 1.0)}
_ATTEMPTS = 8


def decide(
    graph: SceneGraph,
    *,
    seed: int,
    duration_s: float,
    fps: float,
    aspect: float = 1.0,
    attempts: int = _ATTEMPTS,
    auto_camera: bool = False,
    world: World | None = None,
) -> tuple[ScenePlan, SceneTrack, tuple[str, ...]]:
    """Lay out and simulate until what the graph says happens; the best of ``attempts`` plans.

    Returns:
        The plan, its track, and what still does not happen (empty when all does), which are also doubts of the plan.
    """
    best: tuple[ScenePlan, SceneTrack, tuple[str, ...]] | None = None
    for attempt in range(attempts):
        plan, motion = compose(
            graph, seed=seed * 1009 + attempt, duration_s=duration_s, fps=fps, aspect=aspect, auto_camera=auto_camera,
            world=world,
        )  # fmt: skip
        camera = camera_track(plan.camera, num_frames=plan.num_frames, fps=fps)
        track = see(plan, motion, camera, aspect=aspect)
        missing = unfulfilled(graph, plan, track)
        if best is None or len(missing) < len(best[2]):
            best = plan, track, missing
        if not missing:
            break
    assert best is not None, "attempts is at least 1"
    plan, track, missing = best
    return plan.model_copy(update={"doubts": (*plan.doubts, *missing)}), track, missing


def unfulfilled(graph: SceneGraph, plan: ScenePlan, track: SceneTrack) -> tuple[str, ...]:
    """What the graph says and the track does not show; one sentence each."""
    scene = _Scene(plan, track)
    missing = []
    for event in graph.events:
        if event.agent in scene.moving and not _happens(event, scene):
            missing.append(f"{event.agent} does not {event.action}")
    for relation in graph.relations:
        if not _holds(relation, scene):
            missing.append(f"{relation.subject} is not {relation.kind} {relation.object}")
    busy = {event.agent for event in graph.events} | {event.patient for event in graph.events}
    for item in plan.objects:
        moving = scene.moving[item.id]
        if item.id not in busy and not moving.still(0, len(moving.position)):
            missing.append(f"{item.id} moves though nothing was said of it")
        if not moving.seen(0, len(moving.position)):
            missing.append(f"{item.id} is never in the picture")
    return tuple(missing)


class _Moving:
    """One object's track as arrays (f rows)."""

    def __init__(self, track: ObjectTrack):
        self.position = np.array(track.position_m)
        self.velocity = np.array(track.velocity_m_s)
        self.spin = np.array(track.angular_velocity_rad_s)
        self.quaternion = np.array(track.quaternion)
        self.visibility = np.array(track.visibility)
        self.box = track.box

    def shift(self, start: int, end: int) -> np.ndarray:
        return self.position[end - 1] - self.position[start]

    def turned_deg(self, start: int, end: int) -> float:
        """Largest angle between its attitude then and later."""
        cosine = np.abs(self.quaternion[start:end] @ self.quaternion[start])
        return float(np.degrees(2 * np.arccos(np.clip(cosine, -1, 1))).max())

    def leaned_deg(self, start: int, end: int) -> float:
        """Largest angle between its own axis then and later."""
        w, x, y, z = self.quaternion[start:end].T
        axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
        return float(np.degrees(np.arccos(np.clip(axis @ axis[0], -1, 1))).max())

    def still(self, start: int, end: int) -> bool:
        away = np.linalg.norm(self.position[start:end] - self.position[start], axis=1).max()
        return bool(away < 0.06 and self.leaned_deg(start, end) < 12)

    def seen(self, start: int, end: int) -> bool:
        """A good part of it is in the picture for at least a third of the time."""
        return bool((self.visibility[start:end] > 0.4).mean() >= 0.34)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """An event's agent, and the frames in which it should happen."""

    event: Event
    agent: _Moving
    start: int
    end: int
    touches: list[tuple[int, str, str]]  # frame, a, b; of the agent
    scale: float = 1.0  # small things move by less

    @property
    def shift(self) -> np.ndarray:
        return self.agent.shift(self.start, self.end)

    def towards(self, least_m: float) -> bool:
        """Moved over the floor by at least so much, in the said direction if one was said."""
        moved = self.shift[:2]
        distance = float(np.linalg.norm(moved))
        if distance < least_m * self.scale:
            return False
        heading = _HEADING.get(self.event.direction or "")
        return heading is None or float(moved @ np.array(heading)) > 0.8 * distance


class _Scene:
    def __init__(self, plan: ScenePlan, track: SceneTrack):
        self.plan, self.track = plan, track
        self.moving = {item.id: _Moving(item) for item in track.objects}
        self.items = {item.id: item for item in plan.objects}

    def window(self, event: Event) -> _Window:
        starts = {
            (planned.agent, planned.action): planned.start_s for planned in self.plan.events
        }  # the same action twice by one agent: the later one
        begin = starts.get((event.agent, event.action), 0.0)
        later = [e.start_s for e in self.plan.events if e.agent == event.agent and e.start_s > begin + 1e-6]
        frames = self.plan.num_frames
        start = min(math.floor(begin * self.plan.fps + 1e-6), frames - 2)
        end = min(
            [math.floor(s * self.plan.fps + 1e-6) + 1 for s in later]
            + [frames, start + math.ceil(3 * self.plan.fps) + 1]
        )
        item = self.items[event.agent]
        touches = [
            (c.frame, c.a, c.b) for c in self.track.contacts if event.agent in (c.a, c.b) and start < c.frame < end
        ]
        return _Window(
            event=event, agent=self.moving[event.agent], start=start, end=max(end, start + 2), touches=touches,
            scale=min(1.0, scale_of(item.shape, item.half_size_m)),
        )  # fmt: skip


def _happens(event: Event, scene: _Scene) -> bool:
    window = scene.window(event)
    check = _CHECKS.get(event.action)
    if check is None or not check(window):
        return False
    # What begins later does not begin before: the agent is still until then.
    alone = sum(e.agent == event.agent for e in scene.plan.events) == 1
    if window.start > 1 and alone and not window.agent.still(0, window.start + 1):
        return False
    return window.agent.seen(window.start, min(window.end, window.start + max(4, (window.end - window.start) // 2)))


def _falls(w: _Window) -> bool:
    z = w.agent.position[w.start : w.end, 2]
    return bool(z[0] - z.min() > 0.3 * w.scale and w.touches)


def _bounces(w: _Window) -> bool:
    z = w.agent.position[w.start : w.end, 2]
    touched = [frame for frame, *_ in w.touches]
    if not touched:
        return False
    after = z[min(touched) - w.start :]
    return bool(len(after) > 1 and after.max() - z.min() > 0.1 * w.scale and z[0] - z.min() > 0.15 * w.scale)


def _rolls(w: _Window) -> bool:
    turning = np.linalg.norm(w.agent.spin[w.start + 1 : w.end], axis=1)
    flat = np.ptp(w.agent.position[w.start : w.end, 2]) < 0.15 or w.start > 0
    return w.towards(0.25) and bool(np.median(turning) > 0.5) and bool(flat)


def _slides(w: _Window) -> bool:
    return w.towards(0.2) and w.agent.leaned_deg(w.start, w.end) < 20


def _thrown(w: _Window) -> bool:
    z = w.agent.position[w.start : w.end, 2]
    rises = bool(z.max() - z[0] > 0.15 * w.scale)
    return rises and (w.event.direction == "up" or w.towards(0.3))


def _spins(w: _Window) -> bool:
    rate = w.agent.spin[w.start + 1 : w.end, 2]
    sign = {"left": 1.0, "right": -1.0}.get(w.event.direction or "", float(np.sign(rate.mean())) or 1.0)
    return bool(np.median(rate * sign) > 1.2) and float(np.linalg.norm(w.shift)) < 0.2


def _swings(w: _Window) -> bool:
    way = np.ptp(w.agent.position[w.start : w.end], axis=0)
    return bool(np.linalg.norm(way[:2]) > 0.25)


def _topples(w: _Window) -> bool:
    if w.agent.leaned_deg(w.start, w.end) < 60:
        return False
    heading = _HEADING.get(w.event.direction or "")
    return heading is None or float(w.shift[:2] @ np.array(heading)) > 0.03


def _collides(w: _Window) -> bool:
    if w.event.patient is None:
        return any("floor" not in (a, b) for _, a, b in w.touches)
    return any({a, b} == {w.event.agent, w.event.patient} for _, a, b in w.touches)


def _stays(w: _Window) -> bool:
    return w.agent.still(w.start, w.end)


_CHECKS: dict[str, Callable[[_Window], bool]] = {
    "fall": _falls,
    "bounce": _bounces,
    "roll": _rolls,
    "slide": _slides,
    "throw": _thrown,
    "spin": _spins,
    "swing": _swings,
    "topple": _topples,
    "collide": _collides,
    "stay": _stays,
}


def _holds(relation: Relation, scene: _Scene) -> bool:
    """The relation in the first frame."""
    if relation.subject not in scene.moving or relation.object not in scene.moving:
        return False
    a, b = scene.moving[relation.subject].position[0], scene.moving[relation.object].position[0]
    x, y, z = b - a
    match relation.kind:
        case "left_of":
            return bool(x > 0.1)
        case "right_of":
            return bool(x < -0.1)
        case "in_front_of":
            return bool(y > 0.1)
        case "behind":
            return bool(y < -0.1)
        case "on" | "above":
            return bool(z < -0.1 and math.hypot(x, y) < 0.25)
        case "near":
            return bool(math.hypot(x, y) < 1.3)
    return False
