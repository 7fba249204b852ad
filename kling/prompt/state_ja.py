"""What reading Japanese keeps track of: the open clause, the modifiers before a noun, the endings after a verb."""

from dataclasses import dataclass, field

from kling.prompt.lexical import Token
from kling.prompt.syntactic import Attribute, Clause, Link

ATTRIBUTES = ("color", "size", "material", "finish")
SCENE = ("setting", "lighting", "gravity", "style", "world")
# 箱の左に, 箱の奥に: directions that are places of something.
_SIDE = {
    "left": "left_of",
    "right": "right_of",
    "toward": "in_front_of",
    "front": "in_front_of",
    "away": "behind",
    "back": "behind",
    "up": "on",
    "down": "below",
}
PARTICLES = {"から": "off", "と": "with", "で": "at"}
# Dictionary forms of what may follow a verb stem.
HELPERS = frozenset(
    [
        "する",
        "いる",
        "いく",
        "くる",
        "しまう",
        "おる",
        "行く",
        "来る",
        "始める",
        "続ける",
        "出す",
        "みる",
        "ます",
        "た",
        "です",
        "だ",
        "れる",
        "られる",
        "ない",
        "ぬ",
        "ず",
        "ん",
        "て",
        "で",
        "ちゃう",
        "てる",
        "とく",
        "下さる",
        "くださる",
        "ください",
        "せる",
        "させる",
        "たい",
        "う",
        "よう",
        "まま",
        "こむ",
        "込む",
        "回る",
        "合う",
    ]
)


@dataclass
class OpenClause:
    """The clause being read."""

    subjects: list[int] = field(default_factory=list)
    topic: bool = False  # marked by は, or set off by a comma: not the subject of a relative clause
    objects: list[int] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    goals: list[int] = field(default_factory=list)  # に: what is hit, or by whom
    direction: str | None = None
    speed: str | None = None
    order: str = ""
    words: list[str] = field(default_factory=list)

    def frozen(self, kind: str, verb: str, subjects: tuple[int, ...], group: "VerbGroup") -> Clause:
        """The clause as it stands. に is what is hit, whom it is done by, what is fallen on, or a goal."""
        links = list(self.links)
        if self.goals:
            relation = "into" if verb in ("collide", "knock over") else "on" if verb == "fall" else "to"
            links.append(Link(relation="agent" if group.passive else relation, phrases=tuple(self.goals)))
        return Clause(
            kind=kind,
            verb=verb,
            subjects=subjects,
            objects=tuple(self.objects),
            links=tuple(links),
            direction=self.direction,
            speed=self.speed,
            negated=group.negated,
            passive=group.passive and verb != "posture",
            order=self.order,
            subordinate=group.subordinate,
            text=" ".join(self.words),
        )


@dataclass
class Modifiers:
    """What is read before a noun."""

    attributes: list[Attribute] = field(default_factory=list)
    alternatives: list[Attribute] = field(default_factory=list)
    count: int | None = None
    ordinal: int | None = None
    vague: bool = False
    determiner: str = ""
    speed: str | None = None
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class VerbGroup:
    """A verb's endings: 転がって ``te``, 転がらない ``negated``, 投げられる ``passive``, ながら ``subordinate``."""

    negated: bool = False
    passive: bool = False
    te: bool = False
    subordinate: str = ""
    end: int = 0  # position after the endings
    after: int = 0  # position after ながら, 前に and the like


def as_relation(token: Token | None) -> str | None:
    """箱の左に, 箱の上に: where something is, seen from the phrase before."""
    if token is None:
        return None
    side = token.value("place") or token.value("direction")
    return token.value("relation") or _SIDE.get(side or "")


def verb_group(tokens: tuple[Token, ...], position: int) -> VerbGroup:
    """The endings of the verb at ``position``."""
    negated = passive = te = False
    end = position + 1
    while end < len(tokens) and _helps(tokens, end):
        negated |= tokens[end].lemma in ("ない", "ぬ", "ず", "ん", "無い")
        passive |= tokens[end].lemma in ("れる", "られる")
        te = tokens[end].text in ("て", "で")
        end += 1
    subordinate, after = _subordinator(tokens, end, te=te)
    return VerbGroup(negated=negated, passive=passive, te=te, subordinate=subordinate, end=end, after=after)


def _helps(tokens: tuple[Token, ...], position: int) -> bool:
    token = tokens[position]
    if token.form == "punct" or token.has("subordinator", "order", "speed"):
        return False
    if token.lemma in HELPERS and not token.has("noun", "thing", "setting", "color"):
        return token.text != "で" or follows_verb(tokens, position)
    return token.form.startswith("助動詞")


def follows_verb(tokens: tuple[Token, ...], position: int) -> bool:
    return position > 0 and tokens[position - 1].form.startswith(("動詞", "助動詞"))


def _subordinator(tokens: tuple[Token, ...], position: int, *, te: bool) -> tuple[str, int]:
    """ながら, 前に, 後に, とき, と after a verb."""
    token = tokens[position] if position < len(tokens) else None
    if token is None or token.form == "punct":
        return "", position
    if te and token.text == "から":
        return "", position + 1
    value = token.value("subordinator")
    if value is None or te:
        return "", position
    position += 1
    while position < len(tokens) and tokens[position].text in ("に", "で", "は", "から"):
        position += 1
    return value, position
