"""Level 4, world knowledge: what nobody says because everybody knows it.

Sizes, masses, friction and restitution by material; what rolls and what slides; the gravity of the moon; which camera
suits which action; how long it takes. What a prompt says always wins: only what it leaves open is filled here.
"""

from dataclasses import dataclass

from kling.prompt.graph import SHAPES, CameraMove, ObjectNode, SceneGraph
from kling.prompt.knowledge import FRICTION, GRAVITY_M_S2, RADIUS_M, RESTITUTION, ROLLS, half_size_m, mass_kg
from kling.prompt.lexical import Measure
from kling.prompt.nouns import NOUNS, UNKNOWN_NOUN, Noun

# What an unstated material usually is: restitution and friction of what stands for it.
_MATERIAL_LIKE = {"glass": "metal", "plastic": "rubber", "stone": "metal", "paper": "wood"}


@dataclass(frozen=True, kw_only=True)
class Properties:
    """One object's physics. ``assumed`` names what the prompt did not say."""

    id: str
    proxy: str  # the playground shape that is simulated in its place
    half_size_m: tuple[float, float, float]
    mass_kg: float
    friction: float
    restitution: float
    fixed: bool
    rolls: bool
    assumed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """What level 4 adds to the graph: every field has a value. Speeds only where a number was said."""

    objects: tuple[Properties, ...]
    gravity_m_s2: float
    setting: str
    lighting: str
    camera: tuple[CameraMove, ...]
    duration_s: float
    speed_m_s: float | None = None
    camera_m_s: float | None = None
    camera_deg_s: float | None = None
    assumed: tuple[str, ...] = ()

    def properties(self, name: str) -> Properties:
        return next(item for item in self.objects if item.id == name)


def known_noun(shape: str) -> Noun | None:
    """What is known of a noun outside the playground; a compound falls back on its last word."""
    words = shape.split()
    for start in range(len(words)):
        noun = NOUNS.get(" ".join(words[start:]))
        if noun is not None:
            return noun
    return None


class CommonSense:
    """What the semantic level asks for."""

    def way_of_moving(self, shape: str) -> str | None:
        """How something moves when only "moves" is said: what is round rolls, the rest slides."""
        if shape in SHAPES:
            return "roll" if shape == "ball" or (shape in ROLLS and shape != "capsule") else "slide"
        noun = known_noun(shape) or UNKNOWN_NOUN
        return "roll" if noun.rolls else "slide"

    def bumps(self, shape: str) -> bool:
        """Whether a push of it is a collision: a cart's is, a boy's is his own doing."""
        return shape in SHAPES or not (known_noun(shape) or UNKNOWN_NOUN).alive

    def gravity_of(self, place: str) -> str | None:
        return place if place in GRAVITY_M_S2 else None


def settle(graph: SceneGraph, measures: tuple[Measure, ...] = ()) -> World:
    """Level 4: fill what the graph leaves open. Numbers with units apply to the whole scene."""
    said = {measure.quantity: measure.value for measure in measures if not measure.camera}
    filmed = {measure.quantity: measure.value for measure in measures if measure.camera}
    assumed = [name for name in ("setting", "lighting", "gravity") if getattr(graph, name) is None]
    if not graph.camera:
        assumed.append("camera")
    duration_s = said.get("time_s")
    if duration_s is None:
        assumed.append("duration")
    return World(
        objects=tuple(_properties(node, said) for node in graph.objects),
        gravity_m_s2=GRAVITY_M_S2.get(graph.gravity or "earth", 9.81),
        setting=graph.setting or _usual_setting(graph),
        lighting=graph.lighting or ("studio" if (graph.setting or "studio") in ("studio", "wood") else "daylight"),
        camera=tuple(_directed(move) for move in graph.camera) or (_usual_camera(graph),),
        duration_s=min(max(duration_s or _usual_duration_s(graph), 0.5), 60.0),
        speed_m_s=said.get("speed_m_s"),
        camera_m_s=filmed.get("speed_m_s"),
        camera_deg_s=filmed.get("turn_deg_s"),
        assumed=tuple(assumed),
    )


def _properties(node: ObjectNode, said: dict[str, float]) -> Properties:
    assumed = [name for name in ("size", "material") if getattr(node, name) is None]
    surface = node.material or ""
    surface = _MATERIAL_LIKE.get(surface, surface if surface in FRICTION else "")
    if node.shape in SHAPES:
        half = half_size_m(node.shape, node.size if node.size in RADIUS_M else None)
        mass = mass_kg(node.shape, half, surface or None)
        friction, restitution = FRICTION[surface], RESTITUTION[surface]
        proxy, fixed, rolls = node.shape, False, node.shape in ROLLS
    else:
        noun = known_noun(node.shape)
        if noun is None:
            noun = UNKNOWN_NOUN
            assumed.append("shape")
        scale = {"small": 0.7, "large": 1.4}.get(node.size or "", 1.0)
        a, b, c = noun.half_size_m
        half, mass = (a * scale, b * scale, c * scale), noun.mass_kg * scale**3
        friction = FRICTION[surface] if surface else noun.friction
        restitution = RESTITUTION[surface] if surface else noun.restitution
        proxy, fixed, rolls = noun.proxy, noun.fixed, noun.rolls
    return Properties(
        id=node.id,
        proxy=proxy,
        half_size_m=half,
        mass_kg=said.get("mass_kg") or mass,
        friction=friction,
        restitution=restitution,
        fixed=fixed,
        rolls=rolls,
        assumed=tuple(assumed),
    )


def _usual_setting(graph: SceneGraph) -> str:
    """Dusk and daylight are outdoors; everything else is shown in the studio."""
    return "grass" if graph.lighting in ("daylight", "dusk") else "studio"


def _usual_camera(graph: SceneGraph) -> CameraMove:
    """Which camera suits which action: hold still for what happens fast, travel slowly around what does nothing."""
    actions = {event.action for event in graph.events if event.action != "stay"}
    if not actions and graph.objects:
        return CameraMove(kind="orbit", direction="left", speed="slow")
    if actions and actions <= {"spin", "swing"}:
        return CameraMove(kind="dolly", direction="in", speed="slow")
    return CameraMove(kind="static")


def _directed(move: CameraMove) -> CameraMove:
    """A move whose direction nobody said gets its usual one."""
    usual = {"dolly": "in", "zoom": "in", "pan": "right", "tilt": "up", "orbit": "left", "crane": "up", "roll": "right"}
    return CameraMove(kind=move.kind, direction=move.direction or usual.get(move.kind), speed=move.speed)


def _usual_duration_s(graph: SceneGraph) -> float:
    """Two seconds, and one more for each event that follows another."""
    orders = {event.order for event in graph.events if event.action != "stay"}
    return 2.0 + max(0, len(orders) - 2)
