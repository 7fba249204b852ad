"""English verb groups: auxiliaries, negation, adverbs and the verb itself. Part of the first half of level 2."""

from dataclasses import dataclass, replace

from kling.prompt.lexical import Token
from kling.prompt.syntactic import Attribute, Phrase

ATTRIBUTES = ("color", "size", "material", "finish")


@dataclass
class Chunk:
    """A piece of the sentence. ``value`` depends on the kind; ``phrase`` for nouns; verbs also carry their form."""

    kind: str
    value: str = ""
    phrase: Phrase | None = None
    attributes: tuple[Attribute, ...] = ()
    form: str = ""
    passive: bool = False
    negated: bool = False
    auxiliary: bool = False
    begins: bool = False
    move: str | None = None
    speed: str | None = None
    text: str = ""


class VerbReader:
    """Reads verb groups; the rest of the words is kling.prompt.chunks_en.Chunker's."""

    def __init__(self, tokens: tuple[Token, ...], *, unknown_nouns: bool = True):
        self.tokens = tokens
        self.unknown_nouns = unknown_nouns
        self.chunks: list[Chunk] = []
        self.lost: list[str] = []
        self.num_phrases = 0

    def _at(self, position: int) -> Token | None:
        return self.tokens[position] if 0 <= position < len(self.tokens) else None

    def _text_at(self, position: int) -> str:
        token = self._at(position)
        return token.text if token else ""

    def _verb(self, position: int) -> int | None:
        """Auxiliaries, negation, adverbs and the verb itself: "does not slowly begin to roll"."""
        group, start = Chunk(kind="verb"), position
        first, before = self.tokens[position], self._at(position - 1)
        if first.has("filler") and before is not None and (before.lemma in ("the", "a") or before.has("path")):
            return None  # "into the frame", "into frame"
        if first.text == "to" and not self._verb_follows(position + 1):
            return None  # "to the cube", not "to roll"
        be = get = False
        while (token := self._at(position)) is not None:
            verb, move = token.value("verb"), token.value("move")
            if verb == "be":
                be, group.auxiliary = True, True
            elif token.has("auxiliary"):
                get, group.auxiliary = get or token.lemma == "get", True
            elif verb == "begin" and self._verb_follows(position + 1):
                group.begins = True
            elif token.value("negation") in ("not", "without") and self._verb_follows(position + 1):
                group.negated = True
            elif token.has("speed") and self._verb_follows(position + 1) and (be or get or not token.has("adjective")):
                group.speed = token.value("speed")
            elif token.has("still") and not token.has("verb") and be:
                group.value, position = "stay", position + 1
                break
            elif verb or move:
                self._main_verb(group, token, be=be, get=get)
                position += 1
                break
            elif not (token.has("filler") and (be or get or group.negated) and self._verb_follows(position + 1)):
                break
            position += 1
        if not group.value and group.move is None:
            return self._bare(group, start, position, be=be)
        group.text = " ".join(token.text for token in self.tokens[start:position])
        self.chunks.append(group)
        return position

    def _bare(self, group: Chunk, start: int, position: int, *, be: bool) -> int | None:
        """Auxiliaries without a verb: a copula, or words like "let" that carry nothing."""
        if not be and not group.auxiliary:
            return None
        done = next((c for c in reversed(self.chunks) if c.kind == "verb" and c.value not in ("", "be", "make")), None)
        if not be and self._does_so(start, position) and done is not None:  # "before the small one does"
            self.chunks.append(replace(done, negated=group.negated, passive=False, form="s", speed=None))
            return position
        if be:
            negation = self._at(position)
            if negation is not None and negation.value("negation") == "not":
                following = self._at(position + 1)
                if following is None or not following.has(*ATTRIBUTES):
                    group.negated, position = True, position + 1
            group.value = "be"
            group.text = " ".join(token.text for token in self.tokens[start:position])
            self.chunks.append(group)
        return max(position, start + 1)

    def _does_so(self, start: int, position: int) -> bool:
        """ "does" after its subject, with nothing after it: what was said before."""
        after = self._at(position)
        alone = after is None or after.form == "punct" or after.has("conjunction", "subordinator")
        subject = bool(self.chunks) and self.chunks[-1].kind == "np"
        return alone and subject and self.tokens[start].lemma == "do"

    def _main_verb(self, group: Chunk, token: Token, *, be: bool, get: bool) -> None:
        group.value = token.value("verb") or ""
        group.move = token.value("move")
        group.form = token.form
        participle = token.form in ("ed", "en") or token.lemma.split()[0] in ("hit", "shot", "set", "put")
        group.passive = (be or get) and participle
        group.speed = group.speed or (token.value("speed") if group.move else None)  # "whips to the right"

    def _verb_follows(self, position: int) -> bool:
        token = self._at(position)
        if token is None or token.form == "punct":
            return False
        if token.has("verb", "move", "auxiliary"):
            return True
        return token.has("speed", "filler", "negation", "path", "order") and self._verb_follows(position + 1)
