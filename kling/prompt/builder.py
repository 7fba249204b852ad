"""From fields to a prompt: sixteen fields, each optional, each reaching the prompt; what is missing leaves no hole.

    build(PromptFields(subject="a red ball", action="rolls to the left", time="dusk"))
    -> "A red ball rolls to the left at dusk."

``from_graph`` fills the fields from a scene graph, so that reading the built prompt gives that graph again.
"""

from dataclasses import dataclass, fields

from kling.prompt.graph import CameraMove, Event, ObjectNode, Relation, SceneGraph


@dataclass(frozen=True, kw_only=True)
class PromptFields:
    """What a prompt can be made of. Every field is plain words; "" leaves it out."""

    environment: str = ""  # "a snowy field", "on grass"
    atmosphere: str = ""  # "calm and dreamy"
    time: str = ""  # "dusk", "at night"
    weather: str = ""  # "light rain"
    subject: str = ""  # "a red ball and a blue cube"
    position: str = ""  # "to the left of a cone"; or whole sentences
    scale: str = ""  # "life-size", "filling half of the frame"
    action: str = ""  # "rolls to the left"; or whole sentences
    timing: str = ""  # "in the first second", "slowly at first"
    angle: str = ""  # "low angle", "bird's eye view"
    movement: str = ""  # of the camera: "zooms in slowly"
    focus: str = ""  # "on the ball"
    depth_of_field: str = ""  # "shallow"
    style: str = ""  # "watercolor"
    lighting: str = ""  # "studio lighting"
    grade: str = ""  # "teal and orange"
    negative: tuple[str, ...] = ()  # what must not be seen: the negative prompt


@dataclass(frozen=True, kw_only=True)
class BuiltPrompt:
    """The prompt and the negative prompt ("" when nothing is excluded)."""

    prompt: str
    negative_prompt: str


_PREPOSITIONS = tuple(
    [
        "in",
        "on",
        "at",
        "by",
        "under",
        "during",
        "before",
        "after",
        "inside",
        "near",
        "beside",
        "above",
        "below",
        "behind",
        "to",
        "next",
        "between",
        "with",
        "across",
        "over",
        "along",
        "from",
        "through",
        "against",
        "around",
        "within",
    ]
)
_SENTENCE_OPENERS = tuple(
    ["the", "a", "an", "then", "first", "both", "it", "they", "there", "finally", "two", "three", "four"]
)


def build(parts: PromptFields) -> BuiltPrompt:
    """One fluent prompt from whatever fields are there, whole before parts: picture, scene, camera, look."""
    clean = {f.name: _clean(getattr(parts, f.name)) for f in fields(parts) if f.name != "negative"}
    sentences = [
        *_scene(clean),
        _camera(clean),
        _sentence(_joined(_labelled(clean["focus"], "focus", before=True), _depth(clean["depth_of_field"]))),
        _sentence(_labelled(clean["atmosphere"], "atmosphere", article=True)),
        _sentence(
            _labelled(clean["lighting"], "light", known=("light", "lit", "sun", "lamp", "dusk", "glow", "shadow"))
        ),
        _sentence(_labelled(clean["style"], "style")),
        _sentence(_labelled(clean["grade"], "color grade", known=("grade", "grading", "tone", "tint", "palette"))),
    ]
    wanted = {value.lower() for value in clean.values()}
    negative = dict.fromkeys(_clean(term) for term in parts.negative)
    return BuiltPrompt(
        prompt=" ".join(sentence for sentence in sentences if sentence),
        negative_prompt=", ".join(term for term in negative if term and term.lower() not in wanted),
    )


def _clean(value: str) -> str:
    """One line, single spaces, no punctuation at the ends."""
    return " ".join(value.split()).strip(" ,.;:!?-")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _joined(*parts: str, by: str = ", ") -> str:
    return by.join(part for part in parts if part)


def _labelled(
    value: str, noun: str, *, before: bool = False, article: bool = False, known: tuple[str, ...] = ()
) -> str:
    """ "watercolor" -> "watercolor style"; left alone when it says the word itself."""
    if not value or any(word in value.lower() for word in (known or (noun,))):
        return value
    labelled = f"{noun} {value}" if before and value.split()[0] in _PREPOSITIONS else f"{value} {noun}"
    if not article:
        return labelled
    return f"{'an' if labelled[0].lower() in 'aeiou' else 'a'} {labelled}"


def _depth(value: str) -> str:
    return _labelled(value, "depth of field", known=("depth", "field", "bokeh", "blur"))


def _with_preposition(value: str, preposition: str) -> str:
    if not value or value.split()[0].lower() in _PREPOSITIONS:
        return value
    return f"{preposition} {value}"


def _is_sentence(value: str) -> bool:
    return value.lower().startswith(tuple(f"{word} " for word in _SENTENCE_OPENERS))


def _scene(clean: dict[str, str]) -> list[str]:
    """Subject, what it does, where, when: one sentence of phrases, or several when fields are sentences themselves."""
    subject, position, action = clean["subject"], clean["position"], clean["action"]
    where = _joined(
        _with_preposition(clean["environment"], "in"), _with_preposition(clean["time"], "at"),
        _with_preposition(clean["weather"], "in"), by=" ",
    )  # fmt: skip
    scale = clean["scale"] if not subject or not clean["scale"] else f"{clean['scale']},"
    told = [_sentence(position)] if _is_sentence(position) else []
    told += [_sentence(_joined(action, clean["timing"], by=" "))] if _is_sentence(action) else []
    parts = [_joined(subject, scale, by=", ")]
    parts += [action] if not _is_sentence(action) else []
    parts += [position] if not _is_sentence(position) else []
    parts += [clean["timing"]] if not _is_sentence(action) else []
    first = _joined(*parts, where, by=" ").rstrip(",")
    return [_sentence(first), *told]


def _camera(clean: dict[str, str]) -> str:
    movement, angle = clean["movement"], clean["angle"]
    if movement and not any(word in movement.lower() for word in ("camera", "shot")):
        verb = movement.split()[0].lower()
        movement = (
            f"the camera {movement}" if verb.endswith("s") or verb in ("slowly", "quickly") else f"camera {movement}"
        )
    if angle and not any(word in angle.lower() for word in ("angle", "view", "shot", "level", "close")):
        angle = f"{angle} angle"
    return " ".join(_sentence(part) for part in (angle, movement) if part)


# --- from a graph ----------------------------------------------------------------------------------------------

_NUMBERS = ("", "a", "two", "three", "four", "five", "six", "seven", "eight")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_DOES = {
    "fall": "falls",
    "bounce": "bounces",
    "roll": "rolls",
    "slide": "slides",
    "throw": "is thrown",
    "spin": "spins",
    "swing": "swings",
    "topple": "topples over",
    "collide": "hits",
    "stay": "stays still",
}
_WHERE_TO = {
    "left": "to the left",
    "right": "to the right",
    "toward": "toward the camera",
    "away": "away from the camera",
    "up": "upward",
    "down": "downward",
}
_SPEED = {"slow": "slowly", "fast": "quickly"}
_STANDS = {
    "left_of": "to the left of",
    "right_of": "to the right of",
    "in_front_of": "in front of",
    "behind": "behind",
    "on": "on top of",
    "above": "above",
    "near": "next to",
}
_SETTING = {
    "grass": "on grass",
    "sand": "on sand",
    "snow": "in the snow",
    "wood": "on a wooden floor",
    "night": "at night",
    "studio": "in a studio",
}
_LIGHT = {"studio": "studio lighting", "daylight": "bright daylight", "dusk": "dusk light"}
_GRAVITY = {
    "earth": "under normal gravity",
    "moon": "under lunar gravity",
    "mars": "under martian gravity",
    "zero": "in zero gravity",
}
_CAMERA = {
    "static": "stays still",
    "dolly": "dollies",
    "pan": "pans",
    "tilt": "tilts",
    "zoom": "zooms",
    "orbit": "orbits",
    "crane": "cranes",
    "roll": "rolls",
}


def from_graph(graph: SceneGraph) -> PromptFields:
    """The fields that say what the graph says; ``understand(build(from_graph(graph)).prompt)`` finds it again.

    Twins are told apart by ordinals ("the second red ball"). What was not understood is not repeated.
    """
    names = _names(graph.objects)
    return PromptFields(
        subject=_enumerated([_counted(group) for group in groups(graph.objects)]),
        position=_sentences([_relation(relation, names) for relation in graph.relations]),
        action=_story(graph.events, names),
        environment=_joined(_SETTING.get(graph.setting or "", ""), _GRAVITY.get(graph.gravity or "", ""), by=" "),
        movement=_sentences([_camera_move(move) for move in graph.camera]),
        lighting=_LIGHT.get(graph.lighting or "", ""),
        style=graph.style or "",
    )


def groups(objects: tuple[ObjectNode, ...]) -> list[list[ObjectNode]]:
    """Neighbours that look alike belong together: they are counted ("two red balls")."""
    found: list[list[ObjectNode]] = []
    for node in objects:
        if found and found[-1][0].phrase == node.phrase:
            found[-1].append(node)
        else:
            found.append([node])
    return found


def _counted(group: list[ObjectNode]) -> str:
    phrase = group[0].phrase
    return _indefinite(phrase) if len(group) == 1 else f"{_NUMBERS[len(group)]} {plural(phrase)}"


def _indefinite(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(phrase: str) -> str:
    """Of a regular English noun phrase."""
    if phrase.endswith(("s", "x", "ch", "sh")):
        return f"{phrase}es"
    if phrase.endswith("y") and phrase[-2:-1] not in "aeiou":
        return f"{phrase[:-1]}ies"
    return f"{phrase}s"


def _enumerated(parts: list[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)


def _names(objects: tuple[ObjectNode, ...]) -> dict[str, str]:
    """How to speak of each object again: "the red ball", or "the second red ball" when others fit that too."""
    names: dict[str, str] = {}
    for node, number in zip(objects, ordinals(objects), strict=True):
        ordinal = "" if number is None else f"{_ORDINALS[number]} "
        names[node.id] = f"the {ordinal}{node.phrase}"
    return names


def ordinals(objects: tuple[ObjectNode, ...]) -> list[int | None]:
    """Which one each object is among those that its phrase fits, from 0; None: it is the only one."""
    numbers: list[int | None] = []
    for node in objects:
        like = [other.id for other in objects if _covers(node, other)]
        numbers.append(like.index(node.id) if len(like) > 1 else None)
    return numbers


def _covers(node: ObjectNode, other: ObjectNode) -> bool:
    """Everything said of ``node`` is true of ``other``."""
    said = ("color", "size", "material", "finish")
    return node.shape == other.shape and all(getattr(node, f) in (None, getattr(other, f)) for f in said)


def _relation(relation: Relation, names: dict[str, str]) -> str:
    return f"{names[relation.subject]} is {_STANDS[relation.kind]} {names[relation.object]}"


def _story(events: tuple[Event, ...], names: dict[str, str]) -> str:
    """One sentence an event, in order: "the ball falls. Then the ball rolls. At the same time the cube spins"."""
    sentences: list[str] = []
    order: int | None = None
    for event in sorted(events, key=lambda e: e.order):
        verb = _joined(
            names[event.agent], _SPEED.get(event.speed or "", ""), _DOES[event.action],
            names.get(event.patient or "", ""), _WHERE_TO.get(event.direction or "", ""), by=" ",
        )  # fmt: skip
        if event.speed and event.action == "throw":
            verb = verb.replace(f"{_SPEED[event.speed]} is thrown", f"is thrown {_SPEED[event.speed]}")
        opener = "" if order is None else "at the same time " if event.order == order else "then "
        sentences.append(f"{opener}{verb}")
        order = event.order
    return _sentences(sentences)


def _sentences(parts: list[str]) -> str:
    """Several sentences in one field; the full stop at the end is the builder's."""
    return ". ".join(part if i == 0 else f"{part[0].upper()}{part[1:]}" for i, part in enumerate(parts))


def _camera_move(move: CameraMove) -> str:
    return _joined("the camera", _SPEED.get(move.speed or "", ""), _CAMERA[move.kind], _camera_way(move), by=" ")


def _camera_way(move: CameraMove) -> str:
    if move.direction in ("left", "right") and move.kind != "roll":
        return f"to the {move.direction}"
    return move.direction or ""
