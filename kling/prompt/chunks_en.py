"""English words into chunks: noun phrases, verb groups, prepositions, scene words. The first half of level 2."""

from dataclasses import replace

from kling.prompt.graph import LIGHTINGS
from kling.prompt.lexical import Token, says_something
from kling.prompt.noun_en import NounReader
from kling.prompt.verbs_en import ATTRIBUTES, Chunk

_SIDES = {"to its left": "left_of", "on its left": "left_of", "to its right": "right_of", "on its right": "right_of"}
_HEAPS = ("stack", "pile", "row", "tower", "heap", "column")
SCENE = ("setting", "lighting", "gravity", "style", "world")


class Chunker(NounReader):
    """Reads tokens left to right into chunks; ``lost`` collects words no chunk could use."""

    def read(self) -> list[Chunk]:
        position = 0
        while position < len(self.tokens):
            for reader in (self._punctuation, self._scene, self._pronoun, self._noun, self._verb, self._function):
                after = reader(position)
                if after is not None:
                    position = after
                    break
            else:
                self._lose(self.tokens[position])
                position += 1
        return self.chunks

    def _lose(self, token: Token) -> None:
        if not token.has("filler", "determiner") and says_something(token.text):
            self.lost.append(token.text)

    def _punctuation(self, position: int) -> int | None:
        token = self.tokens[position]
        if token.form != "punct":
            return None
        if token.text == ":" and self._title(position):
            self.lost.append(" ".join(token.text for token in self.tokens[:position]))
            self.chunks.clear()
        self._add({".": "stop", ":": "colon"}.get(token.text, "comma"))
        return position + 1

    def _title(self, position: int) -> bool:
        """ "Domino rally: five red dominoes fall": bare nouns before the colon, said again or no thing."""
        before = self.tokens[:position]
        things = [chunk.phrase.head for chunk in self.chunks if chunk.phrase is not None]
        plain = all(t.form != "punct" and not t.has("determiner", "number", "vague", *ATTRIBUTES) for t in before)
        if not (plain and len(things) == 1 and [chunk.kind for chunk in self.chunks] == ["np"]):
            return False
        again = any(things[0] in (t.value("noun"), t.value("thing")) for t in self.tokens[position:])
        return bool(things[0]) and (again or not before[-1].has("noun", "thing"))

    # --- scene -------------------------------------------------------------------------------------------------

    def _scene(self, position: int) -> int | None:
        """Setting, lighting, gravity, style; with determiner and adjectives before it ("the soft evening light")."""
        start = position
        while (
            (token := self._at(position)) and not token.has(*SCENE) and token.has("determiner", "adjective", "filler")
        ):
            position += 1
        token = self._at(position)
        if token is None or not token.has(*SCENE) or (token.has("verb") and token.form in ("ed", "en", "ing")):
            return None  # "parked" is no park
        if token.has("material", "thing") and self._continues_noun(position + 1):
            return None  # "a wood ball"
        if token.has("material") and not (self._last() in ("path", "relation") or position > start):
            return None  # "made of wood", "wood cube"; but "on wood" is a floor
        if token.has("material") and any(t.lemma.startswith("made") for t in self.tokens[start:position]):
            return None
        if token.has("material") and self.chunks and self.chunks[-1].text in ("of", "from", "out of", "made of"):
            return None
        following = self._at(position + 1)
        if (
            token.value("setting")
            and following
            and following.has("noun", "thing")
            and token.lemma in ("snow", "studio")
        ) and following.has("thing"):
            return None
        for skipped in self.tokens[start:position]:
            if skipped.has("adjective"):
                self._lose(skipped)
        label = self._at(start - 2)
        for sense in token.senses:
            if label is not None and label.lemma == "lighting" and sense.value in LIGHTINGS:
                sense = replace(sense, kind="lighting")  # "Lighting: studio"
            if sense.kind in SCENE:
                self._add("scene", sense.kind, attributes=((sense.kind, sense.value),), text=token.text)
                break
        return position + 1

    # --- pronouns -----------------------------------------------------------------------------------------------

    def _pronoun(self, position: int) -> int | None:
        token = self.tokens[position]
        kind = token.value("pronoun")
        following = self._at(position + 1)
        heaps = following is not None and following.text in _HEAPS and token.text == "the"
        heaps = heaps and not any(c.phrase and c.phrase.head == self._text_at(position + 1) for c in self.chunks)
        if heaps and self._text_at(position + 2) != "of" and any(c.phrase and c.phrase.plural for c in self.chunks):
            self._phrase(kind="pronoun", head="they", text=f"the {self._text_at(position + 1)}")
            return position + 2
        if kind is None:
            return None
        if kind == "neither" and following and following.has(*ATTRIBUTES):
            return self._neither(position + 1)
        if kind == "it" and token.lemma in _SIDES and self._last() != "verb":  # "to its left"
            self._add("relation", _SIDES[token.lemma], text=token.text)
        if kind == "neither" and following and following.has("determiner"):
            self._add("negation", "neither", text=token.text)  # "neither the cube nor the ball moves"
            return position + 1
        if kind == "one" or (kind in ("both", "other", "neither") and following and self._continues_noun(position + 1)):
            return None
        if kind == "somebody":
            if token.lemma in ("who", "viewer") or token.text == "us":
                return None
            self._phrase(kind="somebody", text=token.text)
        else:
            self._phrase(kind="pronoun", head=kind, text=token.text)
        return position + 1

    def _neither(self, position: int) -> int:
        """ "neither red nor blue": says nothing that a graph can hold; passed on as text."""
        words = ["neither"]
        while (token := self._at(position)) is not None and (
            token.has(*ATTRIBUTES) or token.lemma in ("nor", "or", "and")
        ):
            words.append(token.text)
            position += 1
        self.lost.append(" ".join(words))
        return position

    # --- function words ----------------------------------------------------------------------------------------

    _KINDS = (
        "order",
        "subordinator",
        "relative",
        "place",
        "direction",
        "relation",
        "path",
        "conjunction",
        "negation",
        "speed",
        "still",
    )

    def _function(self, position: int) -> int | None:
        token = self.tokens[position]
        for kind in self._KINDS:
            value = token.value(kind)
            if value is None or not self._fits(kind, token, position):
                continue
            self._add(kind, value, text=token.text)
            return position + 1
        if token.has("abstract", "adjective"):
            self._lose(token)
            return position + 1
        return position + 1 if token.has("filler", "determiner") else None

    def _fits(self, kind: str, token: Token, position: int) -> bool:
        """Choose between the kinds of a function word by what follows it."""
        following = self._at(position + 1)
        opens = following is not None and (
            self._continues_noun(position + 1) or following.has("determiner", "pronoun", "number", "vague", *SCENE)
        )
        if kind == "direction":
            return not (opens and token.has("path") and not token.has("relation"))
        if kind == "subordinator" and token.text == "with":
            return False
        if kind == "subordinator" and token.text == "once":
            return opens or self._last() != "verb"  # "bounces once and ..."
        if kind == "relation":
            return opens or not token.has("direction", "path", "filler") or token.lemma == "on"
        return True
