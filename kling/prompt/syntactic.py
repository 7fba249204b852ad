"""Level 2, sentences: phrases, what attaches to what, clauses and their order. The same form for every language.

    "A red ball rolls left and hits a cone, which topples"  ->
    phrases  1 (a red ball)  2 (a cone)
    clauses  roll(1) left · hit(1, 2), after the one before · topple(2), relative

Reading a language into this form is kling.prompt.syntactic_en and syntactic_ja. Nothing is resolved here: "it" is
still "it", and "three balls" one phrase.
"""

from dataclasses import dataclass

Attribute = tuple[str, str]  # ("color", "red")


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A noun phrase as it stands in the text."""

    id: int
    kind: str  # object, pronoun, camera, somebody, elliptic ("the red one")
    head: str = ""  # shape or noun; the kind of pronoun
    attributes: tuple[Attribute, ...] = ()
    alternatives: tuple[Attribute, ...] = ()  # further colours of "red and blue balls"
    count: int | None = None  # None: not said
    vague: bool = False
    plural: bool = False
    determiner: str = ""  # a, the, all, "" (none), maybe (a language without articles: new or known)
    ordinal: int | None = None  # "the second ball": counted among those that fit, -1 is the last
    beside: tuple[int, ...] = ()  # the phrases before it in one list: none of them is the same thing
    speed: str | None = None  # "a fast ball": said of what it does
    actions: tuple[str, ...] = ()  # "a spinning ball"
    place: str | None = None  # left, right, front, back of the picture
    among: int | None = None  # "one of them": the phrase it is chosen from
    parts: tuple[int, ...] = ()  # "two balls, one red and one blue": ids of the phrases that divide it
    known: bool = True  # False: the noun is in no lexicon
    other: bool = False  # "the other cubes": those not spoken of last
    label: str = ""  # "ball A"
    chain: str = ""  # "a stack of cubes": how each stands to the next
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A preposition and its phrases: near (4), between (2, 3), into (5)."""

    relation: str
    phrases: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One predicate and what belongs to it."""

    kind: str  # event, camera, be, make, none
    verb: str = ""
    subjects: tuple[int, ...] = ()
    objects: tuple[int, ...] = ()
    links: tuple[Link, ...] = ()
    direction: str | None = None
    source: str | None = None
    speed: str | None = None
    attributes: tuple[Attribute, ...] = ()  # "is red", "is small"
    negated: bool = False
    passive: bool = False
    order: str = ""  # then, first, same: said by a word
    subordinate: str = ""  # while, after, before
    main: int | None = None  # the clause it is subordinate to
    relative: bool = False
    opens: bool = False  # begins a sentence
    details: bool = False  # "..., one to the left": says more of the event before
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """What level 2 found. ``scene``: facts about the whole picture, ("setting", "grass"), in order of mention."""

    phrases: tuple[Phrase, ...] = ()
    clauses: tuple[Clause, ...] = ()
    scene: tuple[Attribute, ...] = ()
    not_understood: tuple[str, ...] = ()
