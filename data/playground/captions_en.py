"""English captions: a grammar of paraphrase families over the words of words_en.py.

Every caption says all that its graph says and nothing else. Simultaneous events are joined by "while" or "and",
consecutive ones by words of order, so that order is never left to guesswork.
"""

from collections.abc import Callable, Iterable

from data.playground import words_en as en
from data.playground.words import Chooser
from kling.prompt.graph import CameraMove, Event, ObjectNode, SceneGraph


class Speaker:
    """Says one graph: remembers what was mentioned and which noun a shape got."""

    def __init__(self, graph: SceneGraph, choose: Chooser):
        self.graph, self.choose = graph, choose
        self.groups = twins(graph)
        self._group = {node.id: group for group in self.groups for node in group}
        self._phrases = {group[0].id: self._phrase(group[0]) for group in self.groups}
        self._said: set[str] = set()
        self._latest = ""  # the subject of the clause before: "it"

    def _phrase(self, node: ObjectNode) -> tuple[str, str]:
        """(full, short): "small red rubber ball/balls" and "red ball/balls" as words before a noun and the noun."""
        tables = (
            (en.SIZES, node.size),
            (en.FINISHES, node.finish),
            (en.COLORS, node.color),
            (en.MATERIALS, node.material),
        )
        adjectives = {id(table): self.choose.word(table[value]) for table, value in tables if value}
        noun = self.choose.word(en.NOUNS[node.shape])
        full = " ".join([*adjectives.values(), noun])
        short = " ".join([*([adjectives[id(en.COLORS)]] if node.color else []), noun])
        return full, short

    def count(self, node: str) -> int:
        return len(self._group[node])

    def name(self, node: str) -> str:
        """ "a small red ball" at first, "the red ball" afterwards."""
        group = self._group[node]
        full, short = self._phrases[group[0].id]
        plural = len(group) > 1
        form = 1 if plural else 0
        again = group[0].id in self._said
        self._said.add(group[0].id)
        adjectives, noun = _split_noun(short if again and self.choose.chance(0.7) else full)
        words = f"{adjectives} {noun.split('/')[form]}".strip()
        if again:
            return f"the {words}"
        return f"{self.choose.word(en.NUMBERS[len(group)])} {words}" if plural else f"{_article(words)} {words}"

    def clause(self, event: Event, form: str = "finite", subject: str | None = None) -> str:
        """ "a red ball quickly rolls to the left"; form "gerund": "a red ball quickly rolling ..."."""
        repeated = self._latest == self._group[event.agent][0].id and form == "finite" and self.choose.chance(0.5)
        plural = self.count(event.agent) > 1
        if subject is None:
            subject = ("they" if plural else "it") if repeated else self.name(event.agent)
        verb, _, tail = self.choose.word(en.VERBS[event.action]).partition("~")
        verb = _conjugate(verb, "gerund" if form == "gerund" else "plural" if plural else "singular")
        speed = self.choose.word(en.SPEEDS[event.speed]) if event.speed else ""
        before = (
            bool(speed.endswith("ly")) and not verb.startswith(("is ", "are ", "being ")) and self.choose.chance(0.5)
        )
        self._latest = self._group[event.agent][0].id
        direction = self.choose.word(en.DIRECTIONS[event.direction]) if event.direction else ""
        patient = self.name(event.patient) if event.patient else ""
        if tail == "over":  # "topples over to the left"
            verb, tail = f"{verb} over", ""
        elif direction or (speed and tail == "to a stop"):  # "bounces to the left up and down" is no English
            tail = ""
        parts = [subject, speed if before else "", verb, patient, direction, tail, "" if before else speed]
        return " ".join(part for part in parts if part)

    def together(self, events: list[Event], form: str = "finite") -> str:
        """Simultaneous events in one clause."""
        clauses = [self.clause(event, form) for event in events]
        if len(clauses) == 1:
            return clauses[0]
        if form == "gerund":
            return _listed(clauses)
        word = self.choose.one("while", "as") if len(clauses) == 2 else "while"
        return f" {word} ".join([clauses[0], _listed(clauses[1:])])

    def relation(self, relation) -> str:
        # "is", never "stands": stated standing is the action "stay".
        self._latest = self._group[relation.subject][0].id
        where = self.choose.word(en.RELATIONS[relation.kind])
        return f"{self.name(relation.subject)} is {where} {self.name(relation.object)}"

    def unsaid(self) -> list[str]:
        """Objects that no event or relation has mentioned yet."""
        return [group[0].id for group in self.groups if group[0].id not in self._said]

    def place(self, parts: Iterable[str] = ("setting", "lighting", "gravity")) -> str:
        """ "on a lawn at dusk"; empty when nothing is said."""
        tables = {"setting": en.SETTINGS, "lighting": en.LIGHTINGS, "gravity": en.GRAVITIES}
        said = [(part, getattr(self.graph, part)) for part in parts]
        return " ".join(self.choose.word(tables[part][value]) for part, value in said if value)

    def camera(self, form: str = "singular") -> str:
        """ "the camera slowly pans left and tilts up"; empty when nothing is said."""
        moves = [self._move(move, form) for move in self.graph.camera]
        return f"the camera {' and '.join(moves)}" if moves else ""

    def _move(self, move: CameraMove, form: str) -> str:
        verb = _conjugate(self.choose.word(en.CAMERA[move.kind, move.direction]), form)
        speed = self.choose.word(en.SPEEDS[move.speed]) if move.speed else ""
        return " ".join(p for p in ((speed, verb) if speed.endswith("ly") else (verb, speed)) if p)


def twins(graph: SceneGraph) -> list[list[ObjectNode]]:
    """Objects in groups of the same look, in order of mention."""
    groups: dict[tuple, list[ObjectNode]] = {}
    for node in graph.objects:
        groups.setdefault((node.shape, node.color, node.size, node.material, node.finish), []).append(node)
    return list(groups.values())


def stages(graph: SceneGraph) -> list[list[Event]]:
    """Events by order; one for a group of twins that do the same."""
    leaders = {node.id: group[0].id for group in twins(graph) for node in group}
    found: dict[int, dict[tuple, Event]] = {}
    for event in sorted(graph.events, key=lambda event: event.order):
        key = (event.action, leaders.get(event.agent), event.patient, event.direction, event.speed)
        found.setdefault(event.order, {}).setdefault(key, event)
    return [list(events.values()) for events in found.values()]


def _conjugate(verb: str, form: str) -> str:
    """ "collide/collides/colliding with" -> one form with what follows it."""
    plural, singular, rest = verb.split("/", 2)
    gerund, _, particle = rest.partition(" ") if not rest.startswith("being ") else (rest, "", "")
    chosen = {"plural": plural, "singular": singular, "gerund": gerund}[form]
    return f"{chosen} {particle}".strip()


def _split_noun(phrase: str) -> tuple[str, str]:
    adjectives, _, noun = phrase.rpartition(" ")
    return adjectives, noun


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sentence(text: str) -> str:
    text = " ".join(text.split()).strip(" ,.")  # a part that was not said leaves no hole
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _text(*sentences: str) -> str:
    return " ".join(made for sentence in sentences if (made := _sentence(sentence)))


def _ordered(speaker: Speaker, style: str) -> str:
    """All events; consecutive ones joined in this style: then, first, after, before."""
    groups = stages(speaker.graph)
    if not groups:
        return ""
    if len(groups) == 1:
        return speaker.together(groups[0])
    if style == "before":
        last = speaker.together(groups[0])
        for group in groups[1:]:
            last = f"{last} before {speaker.together(group)}"
        return last
    if style == "after":
        text = f"after {speaker.together(groups[0])}, {speaker.together(groups[1])}"
        rest = [f"then {speaker.together(group)}" for group in groups[2:]]
        return "; ".join([text, *rest])
    words = ["first", *["then"] * (len(groups) - 1)] if style == "first" else ["", *["then"] * (len(groups) - 1)]
    if style == "first" and len(groups) > 2:
        words[-1] = "finally"
    return ", ".join(f"{word} {speaker.together(group)}".strip() for word, group in zip(words, groups, strict=True))


def _relations(speaker: Speaker) -> list[str]:
    return [speaker.relation(relation) for relation in speaker.graph.relations]


def _rest(speaker: Speaker) -> str:
    """Who else is there."""
    nodes = speaker.unsaid()
    if not nodes:
        return ""
    verb = "are" if speaker.count(nodes[0]) > 1 else "is"
    return f"there {verb} also {_listed([speaker.name(node) for node in nodes])}"


def _there_are(speaker: Speaker) -> str:
    nodes = [group[0].id for group in speaker.groups]
    verb = "are" if speaker.count(nodes[0]) > 1 else "is"
    return f"there {verb} {_listed([speaker.name(node) for node in nodes])}"


def _direct(s: Speaker) -> str:
    """Events, relations, place, camera, one after the other."""
    happens, place = _ordered(s, "then") or _there_are(s), s.place()
    one = len(stages(s.graph)) < 2
    later = f"the scene is {place}" if place and not one else ""
    return _text(f"{happens} {place}" if one else happens, *_relations(s), _rest(s), later, s.camera())


def _there_is(s: Speaker) -> str:
    """First who is there, then what happens."""
    return _text(f"{_there_are(s)} {s.place()}", *_relations(s), _ordered(s, "first"), s.camera())


def _setting_first(s: Speaker) -> str:
    """ "On the grass at dusk, a red ball rolls"."""
    place = s.place()
    happens = _ordered(s, "then") or _there_are(s)
    return _text(f"{place}, {happens}" if place else happens, *_relations(s), _rest(s), s.camera())


def _camera_first(s: Speaker) -> str:
    """ "The camera pans left. A red ball ..."."""
    camera = s.camera()
    happens = _ordered(s, "first") or _there_are(s)
    return _text(camera, happens, *_relations(s), _rest(s), f"it all happens {s.place()}" if s.place() else "")


def _as_camera(s: Speaker) -> str:
    """ "As the camera pans left, a red ball ..."."""
    camera, place = s.camera(), s.place()
    happens = _ordered(s, "then") or _there_are(s)
    lead = f"as {camera}, {happens}" if camera else happens
    return _text(lead, *_relations(s), _rest(s), f"the scene takes place {place}" if place else "")


def _camera_last(s: Speaker) -> str:
    """Everything, "while the camera pans left"."""
    place = s.place(("lighting", "setting", "gravity"))
    who = f"{_there_are(s)} {place}"
    camera = s.camera()
    relations = _relations(s)
    happens = _ordered(s, "first")
    if happens and camera:
        return _text(who, *relations, f"{happens}, all while {camera}")
    return _text(who, *relations, happens, camera)


def _after(s: Speaker) -> str:
    """Subordinate clauses of time: "After the ball falls, ..."."""
    relations = _relations(s)
    happens = _ordered(s, "after") or _there_are(s)
    place = s.place()
    return _text(*relations, happens, _rest(s), s.camera(), f"the scene is {place}" if place else "")


def _before(s: Speaker) -> str:
    """ "A ball falls before a cube slides"."""
    happens = _ordered(s, "before") or _there_are(s)
    place = s.place()
    return _text(f"{place}, {happens}" if place else happens, *_relations(s), _rest(s), s.camera())


def _video_of(s: Speaker) -> str:
    """ "A video of a red ball rolling to the left on grass"."""
    groups = stages(s.graph)
    if len(groups) == 1:
        shown = s.together(groups[0], "gerund")
        return _text(f"a video of {shown}", *_relations(s), _rest(s),
                     f"it was filmed {s.place()}" if s.place() else "", s.camera())  # fmt: skip
    nodes = [group[0].id for group in s.groups]
    shown = _listed([s.name(node) for node in nodes])
    return _text(f"a video of {shown} {s.place()}", *_relations(s), _ordered(s, "then"), s.camera())


def _show(s: Speaker) -> str:
    """ "Show a red ball rolling left ..."."""
    groups = stages(s.graph)
    lead = s.choose.one("show", "show me", "animate")
    if len(groups) == 1:
        shown = f"{lead} {s.together(groups[0], 'gerund')} {s.place()}"
    else:
        shown = f"{lead} {_listed([s.name(group[0].id) for group in s.groups])} {s.place()}"
    events = _ordered(s, "first") if len(groups) > 1 else ""
    return _text(shown, *_relations(s), events, _rest(s), s.camera())


def _relative(s: Speaker) -> str:
    """Relations as relative clauses: "A red ball, which is left of a blue cube, rolls"."""
    groups = stages(s.graph)
    relation = next(iter(s.graph.relations), None)
    if relation is None or len(groups) != 1 or len(groups[0]) != 1 or groups[0][0].agent != relation.subject:
        return _setting_first(s)
    event = groups[0][0]
    which = s.choose.one("which", "that")
    head = s.name(relation.subject)
    where = f"{which} is {s.choose.word(en.RELATIONS[relation.kind])} {s.name(relation.object)}"
    head = f"{head}, {where}," if which == "which" else f"{head} {where}"
    body = s.clause(event, subject="")
    others = [s.relation(r) for r in s.graph.relations[1:]]
    return _text(f"{head} {body}", *others, _rest(s), f"all of this is {s.place()}" if s.place() else "", s.camera())


def _tags(s: Speaker) -> str:
    """Keywords with commas."""
    groups = stages(s.graph)
    if len(groups) > 1:
        happens = [_ordered(s, "then")]
    else:
        happens = [s.clause(event) for event in groups[0]] if groups else []
        happens = [" while ".join(happens)] if happens else []
    parts = [*happens, *_relations(s), *[s.name(node) for node in s.unsaid()], s.place(), s.camera()]
    return ", ".join(part for part in parts if part)


def _script(s: Speaker) -> str:
    """ "Objects: ... Action: ... Camera: ..."."""
    objects = _listed([s.name(group[0].id) for group in s.groups])
    lines = [("Objects", objects), ("Layout", "; ".join(_relations(s))), ("Action", _ordered(s, "then")),
             ("Setting", s.place()), ("Camera", s.camera())]  # fmt: skip
    return " ".join(f"{name}: {text}." for name, text in lines if text)


def _wish(s: Speaker) -> str:
    """ "I want to see how a red ball rolls"."""
    happens = _ordered(s, "then")
    lead = s.choose.one("I want to see how", "I would like a clip in which", "make a clip where")
    place = s.place()
    who = f"{lead} {happens}" if happens else f"make a clip with {_listed([s.name(g[0].id) for g in s.groups])}"
    return _text(who, *_relations(s), _rest(s), f"the scene is {place}" if place else "", s.camera())


def _counted(s: Speaker) -> str:
    """ "The scene has three objects: ..."."""
    total = len(s.graph.objects)
    number = en.NUMBERS[total].usual[0] if total > 1 else "one"
    noun = "objects" if total > 1 else "object"
    who = f"the scene {s.place()} has {number} {noun}: {_listed([s.name(g[0].id) for g in s.groups])}"
    return _text(who, *_relations(s), _ordered(s, "then"), s.camera())


FAMILIES: dict[str, Callable[[Speaker], str]] = {
    "direct": _direct,
    "there_is": _there_is,
    "setting_first": _setting_first,
    "camera_first": _camera_first,
    "as_camera": _as_camera,
    "camera_last": _camera_last,
    "after": _after,
    "before": _before,
    "video_of": _video_of,
    "show": _show,
    "relative": _relative,
    "tags": _tags,
    "counted": _counted,
    "script": _script,
    "wish": _wish,
}
RESERVED = ("script", "wish")  # families that the training split never uses
