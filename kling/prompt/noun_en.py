"""English noun phrases: articles, numbers, adjectives and the noun itself. Part of the first half of level 2."""

from dataclasses import dataclass, field

from kling.prompt.lexical import Token, as_count
from kling.prompt.syntactic import Attribute, Phrase
from kling.prompt.verbs_en import ATTRIBUTES, Chunk, VerbReader

_SIDEMOST = ("left", "right", "leftmost", "rightmost")
_PICTURES = ("scene", "shot", "video", "clip", "footage", "view", "image", "picture", "animation", "movie", "film")


@dataclass
class _Noun:
    """A noun phrase being read."""

    determiner: str = ""
    count: int | None = None
    ordinal: int | None = None
    vague: bool = False
    attributes: list[Attribute] = field(default_factory=list)
    alternatives: list[Attribute] = field(default_factory=list)
    speed: str | None = None
    actions: list[str] = field(default_factory=list)
    head: str | None = None
    plural: bool = False
    known: bool = True
    place: str | None = None
    chain: str = ""
    other: bool = False
    label: str = ""
    skipped: list[str] = field(default_factory=list)


class NounReader(VerbReader):
    """Reads noun phrases; the rest of the words is kling.prompt.chunks_en.Chunker's."""

    def _last(self) -> str:
        return self.chunks[-1].kind if self.chunks else "stop"

    def _add(self, kind: str, value: str = "", **more) -> None:
        self.chunks.append(Chunk(kind=kind, value=value, **more))

    def _phrase(self, **fields) -> None:
        self._add("np", phrase=Phrase(id=self.num_phrases, **fields))
        self.num_phrases += 1

    def _continues_noun(self, position: int, *, one: bool = False) -> bool:
        """A noun, or words that can only stand before one; ``one``: "one" counts as a noun."""
        token = self._at(position)
        if token is None or token.form == "punct" or token.text == "of":
            return False
        if one and token.lemma == "one":
            return True
        if token.has("noun", "thing", *ATTRIBUTES):
            return True
        return token.has("adjective", "filler", "number") and self._continues_noun(position + 1)

    def _noun(self, position: int) -> int | None:
        """[determiner] [number] [adjectives] noun. Adjectives alone become a chunk of their own."""
        noun, start = _Noun(), position
        while (token := self._at(position)) is not None and noun.head is None:
            after = self._noun_word(noun, token, position)
            if after is None:
                break
            position = after
        if noun.head is None:
            return self._headless(noun, start, position)
        words = " ".join(token.text for token in self.tokens[start:position])
        self.lost.extend(noun.skipped)
        self._phrase(
            kind="camera" if noun.head == "camera" else "elliptic" if noun.head in ("", "one") else "object",
            head="" if noun.head == "one" else noun.head,
            attributes=tuple(noun.attributes),
            alternatives=tuple(noun.alternatives),
            count=noun.count,
            ordinal=noun.ordinal,
            vague=noun.vague,
            plural=noun.plural,
            determiner=noun.determiner,
            speed=noun.speed,
            actions=tuple(noun.actions),
            place=noun.place,
            chain=noun.chain,
            other=noun.other,
            label=noun.label,
            known=noun.known,
            text=words,
        )
        return position

    def _headless(self, noun: _Noun, start: int, position: int) -> int | None:
        words = " ".join(token.text for token in self.tokens[start:position])
        following = self._at(position)
        if noun.attributes and following is not None and following.lemma in ("floor", "ground", "surface"):
            self.lost.append(f"{words} {following.text}")  # "a rubber floor"
            return position + 1
        both = self.tokens[start].lemma == "both"
        if noun.attributes and (both or (noun.determiner == "all" and not noun.count)):  # "all made of wood"
            self._phrase(kind="pronoun", head="both" if both else "everything", text=words)
            self._add("verb", "be", form="s", text=words)
            self._add("adjective", attributes=tuple(noun.attributes), text=words)
            return position
        if (noun.attributes and (noun.determiner or noun.count)) or (noun.skipped and self._text_at(position) == "of"):
            self._phrase(
                kind="elliptic",
                attributes=tuple(noun.attributes),
                alternatives=tuple(noun.alternatives),
                count=noun.count,
                determiner=noun.determiner,
                place=noun.place,
                text=words,
            )
            return position
        if noun.attributes:
            self.lost.extend(noun.skipped)
            self._add("adjective", attributes=(*noun.attributes, *noun.alternatives), text=words)
            return position
        if noun.count and position > start and not noun.determiner:
            following = self._at(position)
            if following is None or not following.has("filler") or following.text == "of":
                self._phrase(kind="elliptic", count=noun.count, text=words)
                return position
        return None

    def _noun_word(self, noun: _Noun, token: Token, position: int) -> int | None:
        """Take one more word into the phrase; None when it cannot belong to it."""
        for reader in (
            self._article,
            self._negated_adjective,
            self._head,
            self._attribute,
            self._premodifier,
            self._joint,
        ):
            after = reader(noun, token, position)
            if after is not None:
                return after
        return self._unknown(noun, token, position)

    def _article(self, noun: _Noun, token: Token, position: int) -> int | None:
        opens = not (noun.attributes or noun.count)
        determiner, number, vague = token.value("determiner"), token.value("number"), token.value("vague")
        if token.lemma == "neither" and opens and self._continues_noun(position + 1):
            self._add("negation", "neither", text=token.text)
            noun.determiner, noun.count, noun.plural = "the", 2, True
            return position + 1
        if token.lemma in ("both", "the two") and opens and self._continues_noun(position + 1):
            noun.determiner, noun.count, noun.plural = "the", 2, True
            return position + 1
        if token.lemma == "the other" and opens and self._continues_noun(position + 1):
            noun.determiner, noun.other = "the", True
            return position + 1
        if determiner and opens and not (token.text == "that" and self._relative_that(position)):
            if token.lemma == "the" and self._text_at(position + 1) == "next" and self._continues_noun(position + 2):
                noun.determiner = "a"
                return position + 2
            noun.determiner = determiner if noun.determiner != "all" else "all"
            return position + 1
        ordinal = token.value("ordinal")
        if ordinal and noun.determiner == "the" and opens and self._continues_noun(position + 1, one=True):
            noun.ordinal = int(ordinal)
            return position + 1
        if token.has("arrangement") and self._continues_noun(position + 1):
            noun.chain, noun.plural = (token.value("arrangement") or "").removeprefix("no"), True
            return position + 1
        following = self._at(position + 1)
        if ordinal and noun.determiner == "the" and not (following and following.has("abstract", "filler")):
            noun.ordinal, noun.head = int(ordinal), "one"  # "the first is thrown, the second falls"
            return position + 1
        if (
            token.lemma == "one"
            and not self._continues_noun(position + 1)
            and (noun.determiner or noun.attributes or noun.ordinal)
        ):
            noun.head, noun.plural = "one", token.form == "s"
            return position + 1
        if number and noun.count is None:
            noun.count = as_count(number)
            noun.plural = noun.count != 1
            return position + 1
        if vague and opens:
            noun.count, noun.vague, noun.plural = int(vague), True, True
            return position + 1
        return None

    def _relative_that(self, position: int) -> bool:
        following = self._at(position + 1)
        return self._last() == "np" and following is not None and not following.has("noun", "thing", *ATTRIBUTES)

    def _negated_adjective(self, noun: _Noun, token: Token, position: int) -> int | None:
        """ "not red but blue": the first is dropped."""
        following = self._at(position + 1)
        if not (token.value("negation") == "not" and following and following.has(*ATTRIBUTES)):
            return None
        if following.has("thing") and not following.has("color"):
            return None
        position += 2
        after = self._at(position)
        while after is not None and (after.text == "," or after.value("conjunction") == "but" or after.text == "and"):
            position += 1
            after = self._at(position)
        return position

    def _head(self, noun: _Noun, token: Token, position: int) -> int | None:
        if token.has("camera") and not noun.attributes:
            following = self._at(position + 1)
            noun.head = "camera"
            return position + 2 if following and following.text in ("shot", "footage", "view") else position + 1
        word = token.value("noun") if token.has("noun") else token.value("thing")
        if word is None or (token.has("color", "material") and not self._fruit(noun, token, position)):
            return None
        if token.form == "poss":  # "a child's ball"
            return position + 1
        following = self._at(position + 1)
        level = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}.get(token.lemma)
        if level and noun.determiner == "the" and following is not None and following.has("noun", "thing"):
            noun.place = level  # "the top cube"
            return position + 1
        if following is not None and (
            following.has("noun") or (following.has("thing") and not following.has("verb", "color", "relation"))
        ):
            noun.skipped.append(token.text)  # a compound no lexicon knows: "garden gnome"
            return position + 1
        if token.has("verb", "move", "auxiliary") and not (noun.determiner or noun.attributes or noun.count):
            return None
        noun.head = word
        noun.plural = noun.plural or token.form == "s"
        if following is not None and len(following.text) == 1 and following.capital and following.text != "i":
            noun.label = following.text  # "ball A"
            return position + 2
        return position + 1

    def _fruit(self, noun: _Noun, token: Token, position: int) -> bool:
        """ "an orange rolls" is a fruit, "an orange cube", "is orange" a colour; "a glass" is one, too."""
        return (
            bool(noun.determiner or noun.count)
            and (not noun.attributes or (token.has("color") and any(kind == "color" for kind, _ in noun.attributes)))
            and not self._continues_noun(position + 1)
            and not self._joint_follows(position + 1)
        )

    def _joint_follows(self, position: int) -> bool:
        token = self._at(position)
        return token is not None and token.lemma in ("and", ",", "or", "one") and self._colour_word(position + 1)

    def _colour_word(self, position: int) -> bool:
        token = self._at(position)
        if token is not None and token.has("determiner"):
            token = self._at(position + 1)
        return token is not None and token.has(*ATTRIBUTES)

    def _attribute(self, noun: _Noun, token: Token, position: int) -> int | None:
        for kind in ATTRIBUTES:
            value = token.value(kind)
            if value is None:
                continue
            taken = [name for name, _ in noun.attributes]
            (noun.alternatives if kind in taken else noun.attributes).append((kind, value))
            return position + 1
        return None

    def _premodifier(self, noun: _Noun, token: Token, position: int) -> int | None:
        """Adverbs, other adjectives and participles before the noun: "a slowly spinning ball"."""
        chosen = token.has("adjective") and noun.determiner == "the" and self._text_at(position + 1) == "of"
        if not (self._continues_noun(position + 1) or self._elliptic_one(position + 1) or chosen):
            return None
        opened = bool(noun.determiner or noun.count or noun.attributes)
        if token.text == "of":  # "the small one of two balls"; but "a stack of two balls"
            before = self.chunks[-1].phrase if self.chunks and not opened else None
            adjective = noun.skipped and noun.determiner == "the"  # "the taller of the two"
            if noun.attributes or noun.count or adjective or (before is not None and before.kind == "elliptic"):
                return None
        if token.text in ("other", "remaining") and noun.determiner in ("the", "all"):
            noun.other = True
        elif token.has("speed") and (opened or token.lemma in ("fast", "slow", "quick")):
            noun.speed = token.value("speed")
        elif token.has("verb") and token.form == "ing" and opened:
            noun.actions.append(token.value("verb") or "")
        elif token.has("still") and opened:
            noun.actions.append("stay")
        elif (token.value("relation") or "").endswith("each other"):  # "two stacked cubes"
            noun.chain = (token.value("relation") or "").split()[0]
        elif noun.determiner == "the" and (token.text in _SIDEMOST or token.lemma in ("middle", "center")):
            noun.place = "middle" if token.lemma in ("middle", "center") else token.text.removesuffix("most")
        elif noun.determiner == "the" and token.lemma in ("upper", "lower", "bottom"):
            noun.place = "top" if token.lemma == "upper" else "bottom"
        elif token.has("adjective"):
            noun.skipped.append(token.text)
        elif not token.has("filler"):
            return None
        return position + 1

    def _very(self, position: int) -> bool:
        token, following = self._at(position), self._at(position + 1)
        return bool(token and following and token.has("filler") and following.has(*ATTRIBUTES))

    def _elliptic_one(self, position: int) -> bool:
        token = self._at(position)
        return token is not None and token.lemma == "one"

    def _joint(self, noun: _Noun, token: Token, position: int) -> int | None:
        """ "small, red ball", "red and blue balls": a comma or "and" between adjectives."""
        if not noun.attributes or noun.head is not None:
            return None
        following = self._at(position + 1)
        if (
            following is None
            or following.has("determiner", "number")
            or (following.has("noun", "thing") and not (following.has(*ATTRIBUTES)))
        ):
            return None
        if token.text in (",", "and", "but") and (following.has(*ATTRIBUTES) or self._very(position + 1)):
            before = self._at(position - 1)
            if before is not None and before.has("noun"):
                return None
            return position + 1
        return None

    def _unknown(self, noun: _Noun, token: Token, position: int) -> int | None:
        """A word of no lexicon is a noun where only a noun can stand, an adjective before one."""
        if token.senses or not token.text.isalpha():
            return None
        following = self._at(position + 1)
        if following is not None and following.text == "of" and self._continues_noun(position + 2):
            noun.skipped.append(token.text)  # "a stack of two cubes"
            return position + 2
        if self._continues_noun(position + 1) or (following is not None and following.lemma in _PICTURES):
            noun.skipped.append(token.text)  # "a surreal scene"
            return position + 1
        if not (noun.determiner or noun.count) or token.text.endswith("ly") or not self.unknown_nouns:
            return None
        noun.head, noun.known = token.lemma, False
        noun.plural = noun.plural or token.form == "s"
        return position + 1
