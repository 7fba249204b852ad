"""Japanese morphemes into phrases and clauses: particles say who does what, verbs end their clause.

    赤い ボール が 左 に 転がっ て 、 円錐 に ぶつかる  ->  roll(赤いボール) left · collide(same, 円錐)

A verb directly before a noun is a relative clause of that noun (立っている円錐).
"""

from dataclasses import replace

from kling.prompt.lexical import Lexical, Token, as_count, says_something
from kling.prompt.state_ja import (
    ATTRIBUTES,
    HELPERS,
    PARTICLES,
    SCENE,
    Modifiers,
    OpenClause,
    VerbGroup,
    as_relation,
    follows_verb,
    verb_group,
)
from kling.prompt.syntactic import Attribute, Clause, Link, Phrase, Syntax


class Reader:
    """Reads tokens left to right; ``clauses`` holds what is closed."""

    def __init__(self, tokens: tuple[Token, ...], *, unknown_nouns: bool = True):
        self.tokens, self.unknown_nouns = tokens, unknown_nouns
        self.phrases: list[Phrase] = []
        self.clauses: list[Clause] = []
        self.scene: list[Attribute] = []
        self.lost: list[str] = []
        self.open = OpenClause()
        self.list: list[int] = []  # phrases joined so far, waiting for their particle
        self.modifiers = Modifiers()
        self.parts: list[int] = []  # ひとつは赤、もうひとつは青
        self.relatives: list[int] = []  # clauses waiting for the noun they modify
        self.places: list[Link] = []  # 机の上の: modifies the next noun
        self.place: str | None = None
        self.waiting: list[int] = []  # subordinate clauses waiting for their main clause
        self.last_subjects: list[int] = []
        self.sentence_start = 0

    def read(self) -> Syntax:
        position = 0
        while position < len(self.tokens):
            position = self._step(position)
        self._end_sentence()
        return Syntax(
            phrases=tuple(self.phrases),
            clauses=tuple(self.clauses),
            scene=tuple(self.scene),
            not_understood=tuple(self.lost),
        )

    def _at(self, position: int) -> Token | None:
        return self.tokens[position] if 0 <= position < len(self.tokens) else None

    def _text(self, position: int) -> str:
        token = self._at(position)
        return token.text if token else "."

    def _step(self, position: int) -> int:
        readers = (self._punctuation, self._scene, self._part, self._modifier, self._noun, self._adverb, self._verb)
        for reader in readers:
            after = reader(position, self.tokens[position])
            if after is not None:
                return after
        token = self.tokens[position]
        part = token.form.split()[0]
        known = token.has("filler", "counter", "conjunction", "relation", "subordinator") or token.lemma in HELPERS
        if not known and part not in ("助詞", "助動詞", "接頭辞", "接尾辞") and says_something(token.text):
            self.lost.append(token.text)
        return position + 1

    # --- ends --------------------------------------------------------------------------------------------------

    def _punctuation(self, position: int, token: Token) -> int | None:
        if token.form != "punct":
            return None
        if token.text == ".":
            self._end_sentence()
        elif self.open.subjects and not self.list:
            self.open.topic = True
        return position + 1

    def _end_sentence(self) -> None:
        self._predicate()
        if self.list:
            self.open.subjects.extend(self.list)
            self.list = []
        if self.open.subjects or self.open.objects or self.open.links or self.open.goals:
            self._close("none", "")
        for waiting in self.waiting:
            self.clauses[waiting] = replace(self.clauses[waiting], subordinate="")
        self.waiting.clear()
        self.open, self.relatives, self.places, self.place = OpenClause(), [], [], None
        self.sentence_start = len(self.clauses)

    def _predicate(self) -> None:
        """Adjectives without a noun at the end: "ボールは赤い"."""
        modifiers, self.modifiers = self.modifiers, Modifiers()
        if modifiers.count and not modifiers.attributes and self.open.subjects:  # ボールが二つ
            self._count(self.open.subjects[-1], modifiers.count)
        elif modifiers.attributes and self.open.subjects:
            self._close("be", "be", attributes=tuple(modifiers.attributes))
        elif modifiers.attributes or modifiers.count:
            self.lost.extend(modifiers.words)

    def _count(self, number: int, count: int) -> None:
        self.phrases[number] = replace(self.phrases[number], count=count, plural=count != 1, determiner="a")

    # --- scene -------------------------------------------------------------------------------------------------

    def _scene(self, position: int, token: Token) -> int | None:
        if not token.has(*SCENE):
            return None
        if token.has("material", "color", "finish") and self._text(position + 1) not in (".", ","):
            return None
        for sense in token.senses:
            if sense.kind in SCENE:
                self.scene.append((sense.kind, sense.value))
                break
        position += 1
        while self._text(position) in ("の", "を", "に", "で", "は", "が", "へ", "な", "から", "と", "も", "だ") or (
            (following := self._at(position)) is not None and following.has("filler") and following.form != "punct"
        ):
            position += 1
        if (
            self._text(position - 1) == "が"
            and (verb := self._at(position)) is not None
            and verb.lemma in ("降る", "積もる")
        ):
            position += 1
        return position

    # --- before the noun ---------------------------------------------------------------------------------------

    def _part(self, position: int, token: Token) -> int | None:
        """ひとつは赤、もうひとつは青: parts of a plural phrase before or after."""
        number = token.value("number")
        other = token.value("pronoun") == "other"
        if not (number or other) or self._text(position + 1) not in ("は", "が"):
            return None
        after = self._at(position + 2)
        if after is None or not after.has(*ATTRIBUTES):
            return None
        attributes: list[Attribute] = []
        position += 2
        while (after := self._at(position)) is not None and (
            after.has(*ATTRIBUTES) or after.text in ("の", "で", "くて")
        ):
            found = next((s for s in after.senses if s.kind in ATTRIBUTES), None)
            if found:
                attributes.append((found.kind, found.value))
            position += 1
        count = int(number) if number and number.isdecimal() else 1
        phrase = self._phrase(kind="elliptic", attributes=tuple(attributes), count=count, text=token.text)
        whole = next((p for p in reversed(self.phrases[:-1]) if len(p.parts) < (p.count or 0) and p.plural), None)
        if whole is not None and not self.parts:
            self.phrases[whole.id] = replace(whole, parts=(*whole.parts, phrase))
        else:
            self.parts.append(phrase)
        return position

    def _modifier(self, position: int, token: Token) -> int | None:
        modifiers = self.modifiers
        following = self._text(position + 1)
        found = next((sense for sense in token.senses if sense.kind in ATTRIBUTES), None)
        if found is not None and not self._is_head(position, token):
            return self._attribute(position, token, found.kind, found.value)
        number = token.value("number")
        if number is not None and number.replace(".", "").isdecimal():
            return self._number(position, number)
        if (ordinal := token.value("ordinal")) is not None:  # 二番目の赤いボール
            modifiers.ordinal = int(ordinal)
            return position + (2 if following == "の" else 1)
        if token.has("vague"):
            modifiers.count, modifiers.vague = int(token.value("vague") or 2), True
            return position + (2 if following == "の" else 1)
        if token.text in ("その", "この", "あの"):
            modifiers.determiner = "the"
            return position + 1
        if token.has("speed") and token.form.startswith("形容詞") and "連体" in token.form:
            modifiers.speed = token.value("speed")
            return position + 1
        return None

    def _is_head(self, position: int, token: Token) -> bool:
        """A word that is both, such as 桃, is a noun when a particle follows."""
        return token.has("thing", "noun") and self._text(position + 1) in ("が", "は", "を", "に", "と", "へ")

    def _attribute(self, position: int, token: Token, kind: str, value: str) -> int:
        after = position + 1
        if self._text(after) == "で" and self._text(after + 1) == "は":  # 赤ではなく青い
            negation = self._at(after + 2)
            if negation is not None and negation.lemma in ("ない", "無い"):
                return after + 3 + (1 if self._text(after + 3) == "て" else 0)
        modifiers = self.modifiers
        taken = [name for name, _ in modifiers.attributes]
        (modifiers.alternatives if kind in taken else modifiers.attributes).append((kind, value))
        modifiers.words.append(token.text)
        while self._text(after) in ("の", "な", "で", "く", "くて", "て", "と", "ある", "した", "だ", "です") and not (
            self._text(after) == "で" and self._text(after + 1) == "は"
        ):
            after += 1
        return after

    def _number(self, position: int, number: str) -> int:
        after = position + 1
        following = self._at(after)
        if following is not None and following.text in ("回", "度", "回転", "秒", "番", "回目"):
            self.lost.append(f"{self.tokens[position].text}{following.text}")  # how often: no place in the graph
            return after + 1
        if following is not None and following.has("counter"):
            after += 1
        self.modifiers.count = as_count(number)
        self.modifiers.words.append(number)
        if self._text(after) == "の":
            return after + 1
        # ボール3個: counts the noun before, when nothing can follow it as a noun
        if self.list and not self._noun_follows(after):
            self._count(self.list[-1], self.modifiers.count)
            self.modifiers = Modifiers()
            return self._particle(after)
        if self.open.subjects and not self.list and not self._noun_follows(after):
            self._count(self.open.subjects[-1], self.modifiers.count)
            self.modifiers = Modifiers()
        return after

    def _noun_follows(self, position: int) -> bool:
        token = self._at(position)
        return token is not None and token.form != "punct" and token.has("noun", "thing", *ATTRIBUTES, "number")

    # --- nouns -------------------------------------------------------------------------------------------------

    def _phrase(self, **fields) -> int:
        self.phrases.append(Phrase(id=len(self.phrases), **fields))
        return len(self.phrases) - 1

    def _noun(self, position: int, token: Token) -> int | None:
        if token.has("camera"):
            self.list.append(self._phrase(kind="camera", text=token.text))
            return self._particle(position + 1)
        pronoun = token.value("pronoun")
        if pronoun is not None:
            self._pronoun(pronoun, token)
            return self._particle(position + 1)
        head = token.value("noun") if token.has("noun") else token.value("thing")
        if head is None and not self._unknown_noun(position, token):
            return None
        if head is None and not self.unknown_nouns:
            return None
        modifiers, self.modifiers = self.modifiers, Modifiers()
        before = next((p for p in self.phrases if head is None and p.head == token.text), None)
        number = self._phrase(
            kind="elliptic" if head == "" else "object",
            head=token.text if head is None else head,
            attributes=tuple(modifiers.attributes),
            alternatives=tuple(modifiers.alternatives),
            count=modifiers.count,
            ordinal=modifiers.ordinal,
            beside=tuple(self.list),
            vague=modifiers.vague,
            plural=(modifiers.count or 1) > 1,
            determiner="the" if head == "" and not modifiers.count else modifiers.determiner or "maybe",
            speed=modifiers.speed,
            place=self.place,
            parts=tuple(self.parts),
            known=head is not None or before is not None,
            text="".join((*modifiers.words, token.text)),
        )
        self.parts, self.place = [], None
        self._resolve_relatives(number)
        self.list.append(number)
        return self._particle(position + 1)

    def _unknown_noun(self, position: int, token: Token) -> bool:
        """A common noun of no lexicon, marked as subject or object, with no verb made of it."""
        return (
            not token.senses
            and token.form.startswith("名詞 普通名詞")
            and self._text(position + 1) in ("が", "を", "は")
            and len(token.text) > 1
        )

    def _pronoun(self, kind: str, token: Token) -> None:
        if kind == "somebody":
            number = self._phrase(kind="somebody", text=token.text)
        else:
            number = self._phrase(kind="pronoun", head=kind, text=token.text)
        self.list.append(number)

    def _resolve_relatives(self, number: int) -> None:
        for index in self.relatives:
            clause = self.clauses[index]
            if clause.subjects:
                self.clauses[index] = replace(clause, objects=(*clause.objects, number))
            else:
                self.clauses[index] = replace(clause, subjects=(number,))
        self.relatives = []
        for link in self.places:
            self.clauses.append(Clause(kind="be", verb="be", subjects=(number,), links=(link,), relative=True))
        self.places = []

    def _particle(self, position: int) -> int:
        """What the phrase just read is to the verb. Returns the position after the particle."""
        text, after = self._text(position), position + 1
        if text == "の":
            return self._genitive(after)
        if text in ("と", "や", "および", "及び", "とともに") and (self._phrase_follows(after) or text != "と"):
            return after  # one more follows
        if text in (",", "・") and self._phrase_follows(after) and (self.open.topic or not self.open.subjects):
            return after
        phrases, self.list = self.list, []
        self.open.words.extend(self.phrases[i].text for i in phrases)
        if text in ("は", "が", "も"):
            self._subject(phrases, topic=text != "が" or self._text(after) == ",")
        elif text == "を":
            self.open.objects.extend(phrases)
        elif text in ("に", "へ"):
            return self._goal(phrases, after)
        elif text in PARTICLES:
            self.open.links.append(Link(relation=PARTICLES[text], phrases=tuple(phrases)))
        elif text in ("だ", "です", "である"):
            self.open.objects.extend(phrases)
            self._close("be", "be")
        else:
            self._bare(phrases, text)
            return position
        return after

    def _bare(self, phrases: list[int], text: str) -> None:
        """No particle: a tag, or the subject of a verb that follows."""
        if self.open.subjects and any(self.phrases[i].kind == "camera" for i in self.open.subjects):
            self._close("none", "")
        if text in (".", ",") and self.open.subjects and self.open.topic is False:
            self.open.subjects.extend(phrases)
        else:
            self._subject(phrases, topic=False)

    def _subject(self, phrases: list[int], *, topic: bool) -> None:
        if self.open.subjects and not any(self.phrases[i].kind == "camera" for i in (*self.open.subjects, *phrases)):
            self.open.subjects.extend(phrases)
        elif self.open.subjects:
            self._close("none", "")
            self.open.subjects = list(phrases)
        else:
            self.open.subjects = list(phrases)
        self.open.topic = topic

    def _goal(self, phrases: list[int], position: int) -> int:
        token = self._at(position)
        lemma = token.lemma if token else ""
        if lemma in ("よる", "因る"):  # によって
            self.open.links.append(Link(relation="agent", phrases=tuple(phrases)))
            return position + (2 if self._text(position + 1) == "て" else 1)
        if lemma in ("向かう", "向く", "向ける"):  # に向かって
            self.open.links.append(Link(relation="toward", phrases=tuple(phrases)))
            return position + (2 if self._text(position + 1) in ("て", "た") else 1)
        self.open.goals.extend(phrases)
        return position

    def _phrase_follows(self, position: int) -> bool:
        """A noun phrase begins here."""
        token = self._at(position)
        if token is None or token.form == "punct" or token.has("camera"):
            return False
        if token.has("noun", "thing", "number", "vague"):
            return not token.has("verb", "move") or token.has("noun")
        if token.has(*ATTRIBUTES):
            return True
        return token.text in ("その", "この", "もう")

    def _genitive(self, position: int) -> int:
        """の: a place of this phrase (箱の左に), or its owner (子供のボール)."""
        token = self._at(position)
        relation = as_relation(token)
        if token is None or relation is None:
            if self.list:
                self.lost.extend(self.phrases[i].text for i in self.list if self.phrases[i].kind == "somebody")
                owner = self.list.pop()
                if self.phrases[owner].kind == "object" and not self._phrase_follows(position):
                    self.list.append(owner)
            return position
        link = Link(relation=relation, phrases=tuple(self.list))
        self.list = []
        following = self._text(position + 1)
        if following == "の":
            self.places.append(link)
            return position + 2
        self.open.links.append(link)
        return position + (2 if following in ("に", "で", "を", "は", "が", "へ", "には", "から") else 1)

    # --- adverbs and verbs -------------------------------------------------------------------------------------

    def _adverb(self, position: int, token: Token) -> int | None:
        order, speed, direction = token.value("order"), token.value("speed"), token.value("direction")
        if order is not None:
            self.open.order = order
            return position + 1
        if speed is not None:
            self.open.speed = speed
            return position + 1
        if direction is None and not token.has("place"):
            return None
        if (
            token.has("subordinator")
            and self._text(position - 1) not in ("の", ",", ".")
            and follows_verb(self.tokens, position)
        ):
            return None
        position += 1
        while self._text(position) in ("に", "へ", "の", "で") and not token.text.endswith(("に", "へ")):
            position += 1
        if (token.has("place", "relation") and self._phrase_follows(position)) or (
            token.has("place") and self._text(position) == "," and self._phrase_follows(position + 1)
        ):
            self.place = token.value("place") or {"left": "left", "right": "right"}.get(direction or "")
            return position
        if direction is not None and (self.open.direction is None or direction in ("left", "right")):
            self.open.direction = direction
        return position

    def _verb(self, position: int, token: Token) -> int | None:
        verb, move = token.value("verb"), token.value("move")
        if verb is None and move is None:
            return self._copula(position, token)
        if self.list:
            phrases, self.list = self.list, []
            self._subject(phrases, topic=False)
        group = verb_group(self.tokens, position)
        relative = not group.te and self._phrase_follows_verb(group.end)
        self._predicate_before()
        camera = any(self.phrases[i].kind == "camera" for i in self.open.subjects)
        kind = "camera" if move and (camera or verb is None) else "make" if verb == "make" else "event"
        if camera:
            kind = "camera"
        name = (move if kind == "camera" and move else verb) or ""
        self.open.words.append(token.text)
        self._close(kind, name, group=group, relative=relative)
        return group.after

    def _predicate_before(self) -> None:
        modifiers, self.modifiers = self.modifiers, Modifiers()
        if modifiers.count and not modifiers.attributes and self.open.subjects:
            self._count(self.open.subjects[-1], modifiers.count)

    def _phrase_follows_verb(self, position: int) -> bool:
        token = self._at(position)
        return self._phrase_follows(position) or (
            token is not None and token.has("speed") and "連体" in token.form and self._phrase_follows(position + 1)
        )

    def _copula(self, position: int, token: Token) -> int | None:
        """だ, です after an adjective: 赤いです."""
        if token.lemma in ("だ", "です") and self.modifiers.attributes and self.open.subjects:
            self._predicate()
            return position + 1
        return None

    def _close(
        self,
        kind: str,
        verb: str,
        *,
        attributes: tuple[Attribute, ...] = (),
        group: VerbGroup | None = None,
        relative: bool = False,
    ) -> None:
        """Freeze the open clause; ``relative`` waits for the noun that follows."""
        group = group or VerbGroup()
        state, self.open = self.open, OpenClause()
        subjects = state.subjects
        if relative and state.topic:
            self.open.subjects, self.open.topic, subjects = subjects, True, []
            self.open.order, state.order = state.order, ""
        if not subjects and not relative and kind in ("event", "be") and len(self.clauses) > self.sentence_start:
            subjects = self.last_subjects
        camera = [i for i in subjects if self.phrases[i].kind == "camera"]
        index = len(self.clauses)
        clause = state.frozen(kind, verb, tuple(i for i in subjects if i not in camera), group)
        self.clauses.append(replace(clause, attributes=attributes, relative=relative))
        if relative:
            self.relatives.append(index)
            return
        if not camera:
            self.last_subjects = subjects
        if kind == "none" and not group.subordinate:
            return
        for waiting in self.waiting:  # Aした後、Bした後、C: each belongs to the next
            self.clauses[waiting] = replace(self.clauses[waiting], main=index)
        self.waiting = [index] if group.subordinate else []


def read_syntax(lexical: Lexical, *, unknown_nouns: bool = True) -> Syntax:
    """Level 2 for Japanese."""
    return Reader(lexical.tokens, unknown_nouns=unknown_nouns).read()
