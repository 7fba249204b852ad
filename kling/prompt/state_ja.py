"""What reading Japanese keeps track of: the open clause, the modifiers before a noun, the endings after a verb."""

from dataclasses import dataclass, field

from kling.prompt.lexical import Sense, Token
from kling.prompt.places import SUPPORTS
from kling.prompt.syntactic import Attribute, Clause, Link, Phrase

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
PARTICLES = {"から": "off", "と": "with", "で": "at", "まで": "to"}
# 坂を転がる, 草を滑る: where a motion goes along.
SLOPES = ("slope", "ramp", "stairs", "ledge", "hill")
# Dictionary forms of what may follow a verb stem.
_COMES = ("てくる", "てき", "て来る", "て来", "でくる", "でき")
MEETS = ("向かう", "向く", "向ける", "向かい合う", "向き合う")  # に向かって: toward what
# What is said of a thing with に where it then is.
PUTS = (
    "置く",
    "おく",
    "乗せる",
    "載せる",
    "のせる",
    "乗る",
    "載る",
    "のる",
    "乗っかる",
    "乗っける",
    "ある",
    "いる",
    "並ぶ",
    "並べる",
    "設置",
)
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
        "終わる",
        "終える",
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
    deep: bool = False  # 奥へ, 手前へ: of the picture; a camera that goes there goes in
    row: bool = False  # 左から: where a list begins, or something comes from
    strange: bool = False  # holds a word of no lexicon
    themes: int = 0  # how many subjects は marked, before one with が
    placed: bool = False  # where it is, is told already: only the verb is still to come

    def frozen(self, kind: str, verb: str, subjects: tuple[int, ...], group: "VerbGroup") -> Clause:
        """The clause as it stands. に is what is hit, whom it is done by, what is fallen on, or a goal."""
        links = list(self.links)
        if self.goals:
            met = verb in ("collide", "knock over", "throw") or group.enters
            bare = kind == "none" and not self.strange  # テーブルにカップ
            rests = verb in ("fall", "posture") or group.puts or bare  # 机に置く
            relation = "into" if met else "on" if rests else "to"
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
    joined: bool = False  # 赤と青の: one of each
    every: bool = False  # すべての箱
    other: bool = False  # 他のボール
    determiner: str = ""
    speed: str | None = None
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class VerbGroup:
    """A verb's endings: 転がって ``te``, 転がらない ``negated``, 投げられる ``passive``, ながら ``subordinate``."""

    negated: bool = False
    passive: bool = False
    te: bool = False
    causes: bool = False  # 転がらせる
    comes: bool = False  # 転がってくる
    holds: bool = False  # 停まっている
    enters: bool = False  # 転がり込む
    puts: bool = False  # 机に置く
    until: bool = False  # 止まってからでないと (転がらない)
    subordinate: str = ""
    end: int = 0  # position after the endings
    after: int = 0  # position after ながら, 前に and the like


def as_verb(token: Token) -> list[Sense]:
    """ごっつんこ, with no verb after it: what it sounds like is what happens."""
    return [Sense(kind="verb", value=token.value("sound") or "")]


def as_relation(token: Token | None) -> str | None:
    """箱の左に, 箱の上に: where something is, seen from the phrase before."""
    if token is None:
        return None
    side = token.value("place") or token.value("direction")
    if token.text.endswith("から") and side in ("left", "right"):  # 箱の左側から: comes from there, so goes right
        return "right_of" if side == "left" else "left_of"
    if token.has("around") or (token.value("move") == "orbit" and token.text[0] in "周回ま"):
        return "path past"
    return token.value("relation") or _SIDE.get(side or "")


def verb_group(tokens: tuple[Token, ...], position: int) -> VerbGroup:
    """The endings of the verb at ``position``."""
    negated = passive = te = causes = holds = False
    enters = tokens[position].lemma.endswith("込む")
    puts = tokens[position].lemma in PUTS
    comes = tokens[position].text.endswith(_COMES)
    end = position + 1
    if (
        end < len(tokens) and tokens[end].text == "そう" and "助動詞語幹" in tokens[end].form
    ):  # 倒れそうになる: does not
        negated, end = True, end + 1
        while end < len(tokens) and (tokens[end].text in ("に", "で", "な", "だ") or tokens[end].lemma == "なる"):
            end += 1
    while end < len(tokens) and _helps(tokens, end):
        negated |= tokens[end].lemma in ("ない", "ぬ", "ず", "ん", "無い")
        passive |= tokens[end].lemma in ("れる", "られる")
        causes |= tokens[end].lemma in ("せる", "させる")
        holds |= (te and tokens[end].lemma in ("いる", "おる")) or tokens[end].lemma in ("てる", "でる")
        comes |= te and tokens[end].lemma in ("くる", "来る")
        enters |= tokens[end].lemma in ("込む", "こむ")
        te = tokens[end].text in ("て", "で")
        end += 1
    subordinate, after = _subordinator(tokens, end, te=te)
    unless = _unless(tokens, after) if subordinate == "after" else after
    until, after = unless > after, unless
    return VerbGroup(
        negated=negated,
        passive=passive,
        te=te,
        causes=causes,
        comes=comes,
        holds=holds,
        enters=enters,
        puts=puts,
        until=until,
        subordinate=subordinate,
        end=end,
        after=after,
    )


def _helps(tokens: tuple[Token, ...], position: int) -> bool:
    token = tokens[position]
    if token.form == "punct" or token.has("subordinator", "order", "speed"):
        return False
    if token.lemma == "する" and token.has("verb", "move"):
        return False  # 近づいて衝突する: a verb of its own
    if token.lemma in HELPERS and not token.has("noun", "thing", "setting", "color"):
        return token.text != "で" or follows_verb(tokens, position)
    return token.form.startswith("助動詞")


def along(phrases: list[Phrase], verb: str, direction: str | None) -> Link:
    """を with a verb that takes no object: the slope it happens on, or the way it takes."""
    slope = any(phrase.head in (*SLOPES, *SUPPORTS) for phrase in phrases)
    relation = ("down" if direction == "down" else "on") if slope else "path past"
    return Link(relation=relation, phrases=tuple(phrase.id for phrase in phrases))


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


def _unless(tokens: tuple[Token, ...], position: int) -> int:
    """The position after じゃないと, でなければ; the same when there is none."""
    words = [token.lemma for token in tokens[position : position + 4]]
    for i in (1, 2):
        if words[:1] in (["だ"], ["で"], ["では"], ["じゃ"]) and words[i : i + 1] in (["ない"], ["無い"]):
            return position + i + (2 if len(words) > i + 1 and words[i + 1] in ("と", "ば", "限り") else 1)
    return position


def denies(token: Token | None) -> bool:
    """ボールではなく: no ball, but what follows."""
    return token is not None and token.lemma in ("ない", "無い") and "連用" in token.form


def holds(token: Token | None) -> bool:
    """並んでいる, 積み重なってある: the state itself, no manner of what follows."""
    return token is not None and token.lemma in ("いる", "おる", "ある", "居る") and not token.text.startswith("置")
