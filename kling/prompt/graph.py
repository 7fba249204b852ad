"""The scene graph: what a prompt says, as data. The playground pairs each prompt with its graph; the parser finds it.

The graph holds what was *said* (None where nothing was); defaults come later, from world knowledge.
Viewer's words: "left" is the viewer's left in the first frame.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

SHAPES = ("ball", "cube", "cylinder", "capsule", "cone")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
MATERIALS = ("rubber", "wood", "metal")
FINISHES = ("matte", "shiny")
SETTINGS = ("grass", "sand", "snow", "wood", "night", "studio")
LIGHTINGS = ("studio", "daylight", "dusk")
ACTIONS = ("fall", "bounce", "roll", "slide", "throw", "spin", "swing", "topple", "collide", "stay")
RELATIONS = ("left_of", "right_of", "in_front_of", "behind", "on", "above", "near")
DIRECTIONS = ("left", "right", "toward", "away", "up", "down")  # toward and away: of the camera
SPEEDS = ("slow", "fast")
GRAVITIES = ("earth", "moon", "mars", "zero")
CAMERA_MOVES: dict[str, tuple[str | None, ...]] = {
    "static": (None,),
    "dolly": ("in", "out", "left", "right"),  # sideways dolly is also called truck
    "pan": ("left", "right"),
    "tilt": ("up", "down"),
    "zoom": ("in", "out"),
    "orbit": ("left", "right"),  # the camera travels to its left or right around what it looks at
    "crane": ("up", "down"),
    "roll": ("left", "right"),
}


@dataclass(frozen=True, kw_only=True)
class ObjectNode:
    """One object. ``shape`` is one of SHAPES, or the noun itself for things the playground does not have."""

    id: str  # "o1", "o2", ... in order of mention
    shape: str
    color: str | None = None
    size: str | None = None
    material: str | None = None
    finish: str | None = None

    @property
    def phrase(self) -> str:
        """ "small shiny red rubber ball": the object's own noun phrase, in one fixed order."""
        words = (self.size, self.finish, self.color, self.material, self.shape)
        return " ".join(word for word in words if word)


@dataclass(frozen=True, kw_only=True)
class Relation:
    """``subject`` stands in this relation to ``object`` in the first frame."""

    kind: str
    subject: str
    object: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens. Events of equal ``order`` are simultaneous; lower ones come first."""

    action: str
    agent: str
    patient: str | None = None  # what the agent collides with
    direction: str | None = None
    speed: str | None = None
    order: int = 0


@dataclass(frozen=True, kw_only=True)
class CameraMove:
    """One move of the camera; ``direction`` is one of CAMERA_MOVES[kind]."""

    kind: str
    direction: str | None = None
    speed: str | None = None


@dataclass(frozen=True, kw_only=True)
class SceneGraph:
    """What one prompt says. Compare two with `matches`."""

    objects: tuple[ObjectNode, ...] = ()
    relations: tuple[Relation, ...] = ()
    events: tuple[Event, ...] = ()
    camera: tuple[CameraMove, ...] = ()  # simultaneous moves
    setting: str | None = None
    lighting: str | None = None
    gravity: str | None = None
    style: str | None = None
    not_understood: tuple[str, ...] = field(default=(), compare=False)  # passed on as text, never dropped

    def canonical(self) -> "SceneGraph":
        """The same graph in normal form, so that equal meanings compare equal.

        Objects are sorted by their attributes and what they take part in and renumbered; "right_of(a, b)" becomes
        "left_of(b, a)" and "behind(a, b)" "in_front_of(b, a)"; event orders become dense; sets are sorted.
        """
        flip = {"right_of": "left_of", "behind": "in_front_of"}
        relations = [
            Relation(kind=flip[r.kind], subject=r.object, object=r.subject) if r.kind in flip else r
            for r in self.relations
        ]

        # Twins ("two red balls") differ only by what they take part in: refine their keys by their neighbours' keys.
        keys = {o.id: repr(replace(o, id="")) for o in self.objects}
        for _ in self.objects:
            keys = {node: self._refined(node, key, keys, relations) for node, key in keys.items()}
            ranks = {key: f"{i:04d}" for i, key in enumerate(sorted(set(keys.values())))}
            keys = {o.id: repr((replace(o, id=""), ranks[keys[o.id]])) for o in self.objects}
        order = sorted(self.objects, key=lambda o: keys[o.id])
        names = {o.id: f"o{i + 1}" for i, o in enumerate(order)}
        dense = {n: i for i, n in enumerate(sorted({e.order for e in self.events}))}

        def name(node: str | None) -> str | None:
            return names.get(node or "", node)

        events = [replace(e, agent=name(e.agent), patient=name(e.patient), order=dense[e.order]) for e in self.events]
        relations = [replace(r, subject=name(r.subject), object=name(r.object)) for r in relations]
        return replace(
            self,
            objects=tuple(replace(o, id=names[o.id]) for o in order),
            relations=tuple(sorted(set(relations), key=_key)),
            events=tuple(sorted(set(events), key=lambda e: (e.order, _key(e)))),
            camera=tuple(sorted(set(self.camera), key=_key)),
        )

    def _refined(self, node: str, key: str, keys: dict[str, str], relations: list[Relation]) -> str:
        """The node's key with the keys of what it is related to and what happens to it."""
        near = [
            (r.kind, node == r.subject, keys.get(r.object if node == r.subject else r.subject, ""))
            for r in relations
            if node in (r.subject, r.object)
        ]
        happens = [
            _key(replace(e, agent=keys.get(e.agent, "") if e.agent != node else "self",
                         patient=keys.get(e.patient or "", "") if e.patient != node else "self"))
            for e in self.events if node in (e.agent, e.patient)
        ]  # fmt: skip
        return repr((key, sorted(near), sorted(happens)))

    def matches(self, other: "SceneGraph") -> bool:
        """Exact match up to naming and order (the figure of S7)."""
        return self.canonical() == other.canonical()

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | dict[str, Any]) -> "SceneGraph":
        raw = json.loads(text) if isinstance(text, str) else dict(text)
        kinds = {"objects": ObjectNode, "relations": Relation, "events": Event, "camera": CameraMove}
        for name, kind in kinds.items():
            raw[name] = tuple(kind(**item) for item in raw.get(name, ()))
        raw["not_understood"] = tuple(raw.get("not_understood", ()))
        return cls(**raw)


def _key(item: Any) -> str:
    return repr(item)
