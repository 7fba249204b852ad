"""Where things are to each other: relations from prepositions, lists and places of the picture. Part of level 3."""

import itertools
from dataclasses import replace

from kling.prompt.graph import Relation
from kling.prompt.syntactic import Clause, Syntax
from kling.prompt.timing import Happening

_PLAIN = ("left_of", "right_of", "in_front_of", "behind", "on", "above", "near")
# Things have room on them: what goes across one is on it.
SUPPORTS = ("table", "desk", "bench", "bed", "shelf", "platform", "stage", "counter", "workbench", "sofa", "book")
# "no ball", "spins like a top", "the size of a car": named, but not there.
DENIED = ("not", "like")
_OPPOSITE = {"left": "right", "right": "left"}


def related(relation: str, subjects: list[str], targets: list[str]) -> list[Relation]:
    """What "subjects relation targets" says of the first frame; nothing for relations that are no places."""
    relation = relation.removeprefix("from ")  # "rolls out from behind the cube": where it starts
    if relation == "between" and len(targets) >= 2:
        return [
            Relation(kind="left_of", subject=one, object=other)
            for name in subjects
            for one, other in ((targets[0], name), (name, targets[1]))
        ]
    if relation == "either side" and len(subjects) == 2:
        sides = list(zip(("left_of", "right_of"), subjects, strict=True))
        return [Relation(kind=kind, subject=name, object=target) for kind, name in sides for target in targets]
    if relation.endswith(" each other"):
        return chained(relation.split()[0], subjects)
    pairs = [(name, target) for name in subjects for target in targets if name != target]
    if relation == "below":
        return [Relation(kind="above", subject=target, object=name) for name, target in pairs]
    if relation in _PLAIN:
        return [Relation(kind=relation, subject=name, object=target) for name, target in pairs]
    if relation in ("off", "down", "up"):
        return [Relation(kind="on", subject=name, object=target) for name, target in pairs]
    return []


_ENDS = {"left": ("left_of", 1), "right": ("left_of", -1), "front": ("in_front_of", 1), "back": ("in_front_of", -1),
         "top": ("on", 1), "bottom": ("on", -1), "middle": ("left_of", 0)}  # fmt: skip
_SAME = {"right_of": ("left_of", -1), "behind": ("in_front_of", -1), "above": ("on", 1)}


def standing(names: list[str], place: str, relations: list[Relation]) -> list[str]:
    """Those that stand at this end of a row (or in its middle), as far as relations say so: "the upper cube"."""
    kind, end = _ENDS.get(place, ("", 0))
    before, after = set[str](), set[str]()
    for relation in relations:
        same, way = _SAME.get(relation.kind, (relation.kind, 1))
        if same == kind:
            pair = (relation.subject, relation.object)[::way]
            before.add(pair[0])
            after.add(pair[1])
    if end == 0:
        return [name for name in names if name in before & after]
    first, second = (before, after) if end == 1 else (after, before)
    return [name for name in names if name in first - second]


def chained(kind: str, names: list[str]) -> list[Relation]:
    """ "a stack of cubes", "one behind the other": each to the next."""
    return [Relation(kind=kind, subject=name, object=other) for name, other in itertools.pairwise(names)]


def placed(syntax: Syntax, seen: dict[int, list[str]]) -> list[Relation]:
    """ "a ball on the left, a cube on the right" puts one left of the other."""
    at: dict[str, list[str]] = {}
    for phrase in syntax.phrases:
        for name in seen.get(phrase.id, ()):
            if phrase.place and name not in at.setdefault(phrase.place, []):
                at[phrase.place].append(name)
    rows = (("left_of", "left", "right"), ("in_front_of", "front", "back"))
    if "middle" in at:
        rows = (("left_of", "left", "middle"), ("left_of", "middle", "right"), rows[1])
    return [
        Relation(kind=kind, subject=name, object=target)
        for kind, one, other in rows
        for name in at.get(one, ())
        for target in at.get(other, ())
        if name != target
    ]


def facing(syntax: Syntax, happenings: list[Happening], relations: list[Relation]) -> list[Happening]:
    """ "they roll towards each other", "slide apart": directions, where it is known who stands left of whom."""
    left = {(r.subject, r.object) for r in relations if r.kind == "left_of"}
    left |= {(r.object, r.subject) for r in relations if r.kind == "right_of"}

    def turned(happening: Happening) -> Happening:
        event, clause = happening.event, syntax.clauses[happening.clause]
        way = _apart(clause, syntax)
        if way is None or event.direction or event.action in ("collide", "stay"):
            return happening
        others = {h.event.agent for h in happenings if h.clause == happening.clause} - {event.agent}
        sides = {"left" for other in others if (event.agent, other) in left}
        sides |= {"right" for other in others if (other, event.agent) in left}
        if len(sides) != 1:
            return happening
        side = sides.pop()
        return replace(happening, event=replace(event, direction=side if way else _OPPOSITE[side]))

    return [turned(happening) for happening in happenings]


def _apart(clause: Clause, syntax: Syntax) -> bool | None:
    """True: away from each other; False: toward each other; None: neither."""
    if clause.direction == "apart":
        return True
    phrases = {phrase.id: phrase for phrase in syntax.phrases}
    meets = any(
        link.relation == "toward" and phrases[number].head == "each other"
        for link in clause.links
        for number in link.phrases
        if number in phrases
    )
    return False if meets or clause.direction == "together" else None
