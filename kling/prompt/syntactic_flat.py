"""The ablation's level 2: no sentences. Adjectives go to the next noun, a verb to the noun before it."""

from dataclasses import replace

from kling.prompt.lexical import Lexical, Token
from kling.prompt.syntactic import Attribute, Clause, Link, Phrase, Syntax

_SCENE = ("setting", "lighting", "gravity", "style", "world")
_ATTRIBUTES = ("color", "size", "material", "finish")


def read_flat(lexical: Lexical) -> Syntax:
    """A bag of words in order: what keywords alone can tell, in either language."""
    phrases: list[Phrase] = []
    clauses: list[Clause] = []
    scene: list[Attribute] = []
    pending: list[Attribute] = []
    count: int | None = None
    for token in lexical.tokens:
        attribute = _first(token, _ATTRIBUTES)
        noun = token.value("noun") or token.value("thing")
        facts = _first(token, _SCENE)
        number = token.value("number")
        if noun and not attribute:
            phrases.append(Phrase(id=len(phrases), kind="object", head=noun, attributes=_unique(pending), count=count))
            pending, count = [], None
        elif attribute:
            pending.append(attribute)
        elif facts:
            scene.append(facts)
        elif number and number.isdecimal():
            count = int(number)
        elif token.has("verb", "move", "direction", "speed", "relation"):
            _extend(clauses, token, phrases)
    complete = tuple(c for c in clauses if all(n < len(phrases) for link in c.links for n in link.phrases))
    return Syntax(phrases=tuple(phrases), clauses=complete, scene=tuple(scene))


def _first(token: Token, kinds: tuple[str, ...]) -> Attribute | None:
    for kind in kinds:
        value = token.value(kind)
        if value is not None:
            return kind, value
    return None


def _unique(pending: list[Attribute]) -> tuple[Attribute, ...]:
    return tuple(dict(pending).items())


def _extend(clauses: list[Clause], token: Token, phrases: list[Phrase]) -> None:
    """A verb opens a clause about the noun before it; directions and speeds go to the clause before."""
    verb, move, last = token.value("verb"), token.value("move"), len(phrases) - 1
    if verb in ("be", "make", "begin"):
        return
    if verb and last >= 0:
        clauses.append(Clause(kind="event", verb=verb, subjects=(last,), text=token.text))
    elif move:
        clauses.append(Clause(kind="camera", verb=move, text=token.text))
    elif token.has("relation") and last >= 0:
        link = Link(relation=token.value("relation") or "", phrases=(last + 1,))
        clauses.append(Clause(kind="be", subjects=(last,), links=(link,), text=token.text))
    elif clauses and token.has("direction") and clauses[-1].direction is None:
        clauses[-1] = replace(clauses[-1], direction=token.value("direction"))
    elif clauses and token.has("speed") and clauses[-1].speed is None:
        clauses[-1] = replace(clauses[-1], speed=token.value("speed"))
