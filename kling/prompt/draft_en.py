"""An English clause while it is being read, and what it becomes."""

from dataclasses import dataclass, field

from kling.prompt.syntactic import Attribute, Clause, Link, Phrase
from kling.prompt.verbs_en import Chunk


@dataclass
class Draft:
    """A clause being read."""

    subjects: list[int] = field(default_factory=list)
    verb: Chunk | None = None
    objects: list[int] = field(default_factory=list)
    links: list[tuple[str, list[int]]] = field(default_factory=list)
    direction: str | None = None
    speed: str | None = None
    attributes: list[Attribute] = field(default_factory=list)
    negated: bool = False
    order: str = ""
    subordinate: str = ""
    initial: bool = False  # the subordinate clause stands before its main clause
    relative: bool = False
    antecedent: int | None = None  # of a relative clause whose subject or object is missing
    words: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.subjects or self.verb or self.links or self.attributes)


def frozen(draft: Draft, phrases: dict[int, Phrase]) -> Clause:
    """The clause as it stands."""
    verb = draft.verb
    camera = any(phrases[i].kind == "camera" for i in draft.subjects)
    kind, name = "none", ""
    if verb is not None:
        kind, name = "event", verb.value
        if verb.move and (camera or not verb.value or not draft.subjects):
            kind, name = "camera", verb.move
        elif verb.value in ("be", "make"):
            kind = verb.value
    if camera and kind != "camera":
        kind, name = "camera", name
    return Clause(
        kind=kind,
        verb=name,
        subjects=tuple(i for i in draft.subjects if phrases[i].kind != "camera"),
        objects=tuple(draft.objects),
        links=tuple(Link(relation=r, phrases=tuple(p)) for r, p in draft.links if p),
        direction=draft.direction,
        speed=draft.speed or (verb.speed if verb else None),
        attributes=tuple(draft.attributes),
        negated=draft.negated or bool(verb and verb.negated),
        passive=bool(verb and verb.passive),
        order=draft.order,
        subordinate=draft.subordinate,
        relative=draft.relative,
        text=" ".join(draft.words),
    )
