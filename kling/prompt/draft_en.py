"""An English clause while it is being read, and what it becomes."""

from dataclasses import dataclass, field, replace

from kling.prompt.groups_en import grouped
from kling.prompt.syntactic import Attribute, Clause, Link, Phrase
from kling.prompt.verbs_en import Chunk

# What a thing does, when it is no camera that does it.
_OWN = {"follow": "move", "orbit": "move", "pan": "spin", "dolly in": "move", "dolly out": "move",
        "crane up": "change", "crane down": "change", "zoom": "dash"}  # fmt: skip


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
    resumed: bool = False  # only carries the subject on after ", which topples": says nothing by itself
    details: bool = False  # says more of the event before
    words: list[str] = field(default_factory=list)

    @property
    def row(self) -> bool:
        """How the things of a list that follows stand to each other, and nothing else yet."""
        return not (self.subjects or self.verb) and any(link[0].endswith("each other") for link in self.links)

    @property
    def empty(self) -> bool:
        return (self.resumed and not self.verb) or not (self.subjects or self.verb or self.links or self.attributes)


def frozen(draft: Draft, phrases: dict[int, Phrase]) -> Clause:
    """The clause as it stands."""
    verb = draft.verb
    camera = any(phrases[i].kind == "camera" for i in draft.subjects)
    kind, name = "none", ""
    if verb is not None:
        kind, name = "event", verb.value
        participle = draft.subordinate and verb.form == "ing" and verb.value  # "while spinning, the cone ..."
        done = draft.subjects or participle or draft.objects  # "roll a ball to the left"
        by_itself = bool(draft.subjects) and not camera and verb.form in ("s", "ing", "ed") and not verb.passive
        if by_itself and verb.text.split()[-1] == "down" and name == "fall" and draft.objects:
            draft.links.append(("down", draft.objects))  # "falls down the stairs"
            draft.objects = []
        own = _OWN.get(verb.move or "") if by_itself and (not name or verb.move == "follow") else None
        if own or name == "pass":  # "a ball follows a cube", "circles it": moves, no camera does
            draft.links.append(("path past", draft.objects))
            draft.objects, name = [], own or "move"
        elif verb.move and (camera or not verb.value or not done):
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
        details=draft.details,
        text=" ".join(draft.words),
    )


class Drafts:
    """Clauses open and closed: ``clauses`` holds what is closed, ``draft`` what is open."""

    def __init__(self, chunks: list[Chunk]):
        self.chunks, hidden = grouped(chunks)
        phrases = (*hidden, *(c.phrase for c in self.chunks if c.phrase is not None))
        self.phrases: dict[int, Phrase] = {phrase.id: phrase for phrase in phrases}
        self.clauses: list[Clause] = []
        self.drafts: list[Draft] = []  # outer clauses that a relative clause interrupts
        self.draft = Draft()
        self.scene: list[Attribute] = []
        self.preposition: str | None = None
        self.last: int | None = None  # the phrase that something may attach to
        self.slot: list[int] | None = None  # where "and a cone" would go
        self.joined = ""  # "and" or "," since the last phrase
        self.loose: list[Attribute] = []  # "Big. Red. Ball."
        self.loose_speed: str | None = None
        self.sentence_start = 0
        self.next_order = ""
        self.waiting: list[int] = []  # subordinate clauses that wait for their main clause
        self.details: Phrase | None = None  # the group whose members are told one by one
        self.lost: list[str] = []

    def _kind(self, position: int) -> str:
        return self.chunks[position].kind if 0 <= position < len(self.chunks) else "stop"

    # --- closing -----------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Freeze the open clause."""
        draft, self.preposition, self.slot, self.joined = self.draft, None, None, ""
        self.draft = Draft()
        if draft.empty:
            if draft.order or draft.subordinate:
                self.draft.order, self.draft.subordinate, self.draft.initial = (
                    draft.order,
                    draft.subordinate,
                    draft.initial,
                )
            return
        index = len(self.clauses)
        clause = replace(frozen(draft, self.phrases), opens=index == self.sentence_start)
        if draft.subordinate and not draft.relative:
            if draft.initial or not self.clauses:
                self.waiting.append(index)
            else:
                clause = replace(clause, main=self._main_before(index))
        elif self.waiting and not draft.relative and clause.kind not in ("none",):
            for waiting in self.waiting:  # "after bouncing, the ball rolls": whoever rolls has bounced
                subjects = self.clauses[waiting].subjects
                before = [p for p in self.phrases.values() if p.kind == "object" and p.id < min(subjects, default=0)]
                pronoun = all(self.phrases[n].kind == "pronoun" for n in subjects)
                if pronoun and not before:  # also "before it stops, the ball ..."
                    subjects = clause.subjects
                self.clauses[waiting] = replace(self.clauses[waiting], main=index, subjects=subjects)
            self.waiting.clear()
        self.clauses.append(clause)
        self.loose_speed = None

    def _main_before(self, index: int) -> int | None:
        for i in range(index - 1, -1, -1):
            before = self.clauses[i - 1] if i else None
            wanted = (
                self.clauses[i].kind == "make" and before is not None and before.relative and before.kind == "event"
            )
            if not self.clauses[i].relative and self.clauses[i].kind != "none":
                return i - 1 if wanted else i  # "I want the ball to roll after ..."
        return index - 1 if index else None

    def _close_relative(self) -> None:
        """End a relative clause and go back to the clause it interrupted."""
        if not self._describes():
            self._close()
        else:
            self.preposition, self.slot, self.joined = None, None, ""
        if self.drafts:
            self.draft = self.drafts.pop()

    def _describes(self) -> bool:
        """ "the ball that is red" is a red ball: the clause only adds to its phrase."""
        draft = self.draft
        phrase = self.phrases.get(draft.subjects[0]) if len(draft.subjects) == 1 else None
        if phrase is None or phrase.among is not None or not draft.attributes or draft.objects or draft.links:
            return False
        if (
            draft.verb is None
            or draft.verb.value != "be"
            or draft.verb.negated
            or draft.negated
            or phrase.kind == "pronoun"
        ):
            return False
        self.phrases[phrase.id] = replace(phrase, attributes=(*phrase.attributes, *draft.attributes))
        return True

    def _unwind(self) -> None:
        while self.drafts:
            self._close_relative()
        self._close()
