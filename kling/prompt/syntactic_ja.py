"""Japanese morphemes into phrases and clauses: particles say who does what, verbs end their clause.

    赤い ボール が 左 に 転がっ て 、 円錐 に ぶつかる  ->  roll(赤いボール) left · collide(same, 円錐)

A verb directly before a noun is a relative clause of that noun (立っている円錐).
"""

from dataclasses import replace

from kling.prompt.doers_ja import DoerReader
from kling.prompt.lexical import Lexical, Token, says_something
from kling.prompt.state_ja import (
    ATTRIBUTES,
    HELPERS,
    MEETS,
    PARTICLES,
    SCENE,
    Modifiers,
    OpenClause,
    VerbGroup,
    denies,
    verb_group,
)
from kling.prompt.syntactic import Attribute, Clause, Link, Syntax

_BACKDROPS = ("背景", "背景に", "背景には", "床", "地面", "画面", "空", "照明", "光", "空間", "明かり", "天井")
_LABELS = tuple("ABCDEFGHXYZ")


class Reader(DoerReader):
    """Reads tokens left to right; ``clauses`` holds what is closed."""

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

    def _step(self, position: int) -> int:
        token = self.tokens[position]
        if token.text in _BACKDROPS and self.modifiers.attributes:  # 黒い背景に: no thing is black
            self.lost.extend(self.modifiers.words)
            self.modifiers = Modifiers()
        readers = (
            self._punctuation,
            self._scene,
            self._member,
            self._part,
            self._its_place,
            self._next_to_it,
            self._modifier,
            self._noun,
            self._sound,
            self._adverb,
            self._verb,
        )
        for reader in readers:
            after = reader(position, self.tokens[position])
            if after is not None:
                return after
        part = token.form.split()[0]
        known = token.has("filler", "counter", "conjunction", "relation", "subordinator") or token.lemma in HELPERS
        if not known and part not in ("助詞", "助動詞", "接頭辞", "接尾辞") and says_something(token.text):
            self.lost.append(token.text)
            self.open.strange = True
            if part == "動詞" and (self.open.subjects or self.list):
                return self._unknown_verb(position)
        return position + 1

    def _unknown_verb(self, position: int) -> int:
        """扉が開いて球が出てくる: what no lexicon knows still ends its clause."""
        group = verb_group(self.tokens, position)
        if not group.te or self._phrase_follows_verb(group.end):
            ends = group.subordinate or self._text(group.end) in (",", ".")
            if not (group.te or ends):
                return position + 1
        if self.list:
            phrases, self.list = self.list, []
            self._subject(phrases, topic=False)
        if self._filmed(self.open.subjects):
            return position + 1
        direction, speed = self.open.direction, self.open.speed
        self._close("none", "", group=VerbGroup(te=group.te))
        self.open.direction, self.open.speed = direction, speed  # 左に曲がりながら転がる
        return group.after

    # --- ends --------------------------------------------------------------------------------------------------

    def _punctuation(self, position: int, token: Token) -> int | None:
        if token.form != "punct":
            return None
        if token.text == ".":
            self._end_sentence()
        elif (self.open.subjects or self.list) and self.open.links and self._next_opens(position + 1):
            waits = OpenClause(subjects=[*self.open.subjects, *self.list], placed=True)
            self.open.subjects, self.list = list(waits.subjects), []
            self._close("none", "")  # 箱の左に球、右に円錐(が落ちる)
            self.gaps.append(waits)
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
        self._met_at_last()
        self.open, self.relatives, self.places, self.place = OpenClause(), [], [], None
        self.gaps = [gap for gap in self.gaps if not gap.placed]
        self.sentence_start, self.around, self.unmet, self.needs = len(self.clauses), (), None, False
        self.nobody, self.parted = None, False

    def _predicate(self) -> None:
        """Adjectives without a noun at the end: "ボールは赤い"."""
        modifiers, self.modifiers = self.modifiers, Modifiers()
        if modifiers.count and not modifiers.attributes and self.open.subjects:  # ボールが二つ
            self._count(self.open.subjects[-1], modifiers.count)
        elif modifiers.attributes and (self.open.subjects or self.last_subjects):  # also 色は緑で、木製。
            more = modifiers.alternatives if modifiers.joined else []
            self._close("be", "be", attributes=(*modifiers.attributes, *more))
        elif modifiers.attributes or modifiers.count:
            self.lost.extend(modifiers.words)

    # --- scene -------------------------------------------------------------------------------------------------

    def _scene(self, position: int, token: Token) -> int | None:
        if not token.has(*SCENE):
            return None
        if token.has("material", "color", "finish") and self._text(position + 1) not in (".", ","):
            return None
        if self.modifiers.attributes and not self.modifiers.count:  # 白い雪の上を: nothing else is white
            self.lost.extend(self.modifiers.words)
            self.modifiers = Modifiers()
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

    # --- nouns -------------------------------------------------------------------------------------------------

    def _noun(self, position: int, token: Token) -> int | None:
        if token.has("camera"):
            self.list.append(self._phrase(kind="camera", text=token.text))
            return self._particle(position + 1)
        pronoun = token.value("pronoun")
        if token.text in ("他", "ほか", "あと") and self._text(position + 1) in ("は", "が", "も"):
            pronoun = "others"
        if pronoun is not None:
            self._pronoun(pronoun, token)
            after = self._at(position + 1)
            if token.text.endswith("に") and after is not None and after.lemma in MEETS:  # 互いに向かって
                return self._goal([self.list.pop()], position + 1)
            if pronoun == "each other" and self._text(position + 1) not in ("の", "を", "に", "と"):
                self.open.goals.append(self.list.pop())
                return position + 1
            return self._particle(position + 1)
        if token.text in _LABELS and self._named(token.text):  # 物体Aは…。Aが
            self.list.append(self._phrase(kind="elliptic", determiner="the", label=token.text, text=token.text))
            return self._particle(position + 1)
        head = token.value("noun") if token.has("noun") else token.value("thing")
        head = self._as_thing(position, token) or head
        if head is None and not self._unknown_noun(position, token):
            return None
        if head is None and not self.unknown_nouns:
            return None
        position = self._in_brackets(position)
        modifiers, self.modifiers = self.modifiers, Modifiers()
        label = self._text(position + 1) if self._text(position + 1) in _LABELS else ""  # ボールA
        before = next((p for p in self.phrases if head is None and p.head == token.text), None)
        number = self._phrase(
            kind="elliptic" if head == "" or self.among is not None else "object",
            head=token.text if head is None else head,
            among=self.among,
            other=modifiers.other,
            label=label,
            attributes=tuple(modifiers.attributes),
            alternatives=tuple(modifiers.alternatives),
            count=modifiers.count,
            ordinal=modifiers.ordinal,
            beside=tuple(self.list),
            vague=modifiers.vague,
            plural=modifiers.every or (modifiers.count or 1) > 1 or (modifiers.joined and bool(modifiers.alternatives)),
            determiner="the" if head == "" and not modifiers.count else modifiers.determiner or "maybe",
            speed=modifiers.speed,
            place=self.place,
            parts=tuple(self.parts),
            known=head is not None or before is not None,
            text="".join((*modifiers.words, token.text)),
        )
        self.parts, self.place, self.among = [], None, None
        self._resolve_relatives(number)
        self.list.append(number)
        return self._particle(position + (2 if label else 1))

    def _named(self, label: str) -> bool:
        return any(phrase.label == label for phrase in self.phrases)

    def _in_brackets(self, position: int) -> int:
        """球（赤・大）: looks that stand after their noun. Returns the position before the particle."""
        at, found = position + 1, list[Attribute]()
        token = self._at(at)
        if token is None or token.lemma != "(":
            return position
        while (token := self._at(at := at + 1)) is not None and token.lemma != ")":
            said = next(((s.kind, s.value) for s in token.senses if s.kind in ATTRIBUTES), None)
            if said is None and token.form != "punct":
                return position
            found.extend([said] if said else [])
        self.modifiers.attributes.extend(found)
        return at if token is not None and found else position

    def _unknown_noun(self, position: int, token: Token) -> bool:
        """A common noun of no lexicon, marked as subject or object, with no verb made of it."""
        return (
            not token.senses
            and token.form.startswith(("名詞 普通名詞", "名詞 固有名詞"))
            and self._text(position + 1) in ("が", "を", "は")
            and len(token.text) > 1
        )

    def _resolve_relatives(self, number: int) -> None:
        for index in self.relatives:
            clause = self.clauses[index]
            if clause.subjects:
                self.clauses[index] = replace(clause, objects=(*clause.objects, number))
            else:
                self.clauses[index] = replace(clause, subjects=(number,))
        if self.cleft:
            self.last_subjects, self.cleft = [number], False
        self.relatives = []
        for link in self.places:
            self.clauses.append(Clause(kind="be", verb="be", subjects=(number,), links=(link,), relative=True))
        self.places = []

    def _particle(self, position: int) -> int:
        """What the phrase just read is to the verb. Returns the position after the particle."""
        text, after = self._text(position), position + 1
        if (likened := self._likened(position)) > position:
            return likened
        if text == "の":
            return self._genitive(after)
        if text in ("と", "や", "および", "及び", "とともに") and (self._phrase_follows(after) or text != "と"):
            return after  # one more follows
        listed = text in (",", "・") and self._phrase_follows(after) and not self._defines()
        listed = listed and not (self.open.links and self._landmark_opens(after))
        if listed and (self.open.topic or not self.open.subjects):
            return after
        phrases, self.list = self.list, []
        self.open.words.extend(self.phrases[i].text for i in phrases)
        if text in ("は", "が", "も"):
            self._subject(phrases, topic=text != "が" or self._text(after) == ",")
        elif text == "を":
            self.open.objects.extend(phrases)
        elif text in ("に", "へ"):
            return self._goal(phrases, after)
        elif text == "で" and self._text(after) == "は" and denies(self._at(after + 1)):  # ボールではなく、箱が
            self.open.links.append(Link(relation="not", phrases=tuple(phrases)))
            return after + 2
        elif text in ("より", "よりも", "以外"):  # 赤い箱より大きい, 円柱以外は
            self.open.links.append(Link(relation="except" if text == "以外" else "than", phrases=tuple(phrases)))
            return after + (1 if text == "以外" and self._text(after) in ("は", "の", "が") else 0)
        elif text in PARTICLES:
            self.open.links.append(Link(relation=PARTICLES[text], phrases=tuple(phrases)))
        elif text in ("だ", "です", "である") or (text in (",", ".") and self._defines()):
            self.open.objects.extend(phrases)
            self._close("be", "be")
        else:
            self._bare(phrases, text)
            return position
        return after

    def _defines(self) -> bool:
        """物体Aは赤い球、: says what a label stands for."""
        subjects = self.open.subjects
        return self.open.topic and len(subjects) == 1 and bool(self.phrases[subjects[0]].label)

    def _bare(self, phrases: list[int], text: str) -> None:
        """No particle: a tag, or the subject of a verb that follows."""
        if self.open.subjects and any(self.phrases[i].kind == "camera" for i in self.open.subjects):
            self._close("none", "")
        if text in (".", ",") and self.open.subjects and self.open.topic is False:
            self.open.subjects.extend(phrases)
        elif not self._floats(phrases):
            self._subject(phrases, topic=False)

    def _floats(self, phrases: list[int]) -> bool:
        """球はすべて落ちる, 球は両方赤: all that the subject names."""
        subjects = self.open.subjects
        if len(subjects) != 1 or self.phrases[phrases[0]].head not in ("both", "everything"):
            return False
        phrase = self.phrases[subjects[0]]
        if phrase.kind == "object" and not phrase.count and not phrase.label:
            self.phrases[phrase.id] = replace(phrase, plural=True, determiner="all")
        return True

    def _subject(self, phrases: list[int], *, topic: bool) -> None:
        if any(self.phrases[i].among in self.open.subjects for i in phrases):
            self._close("none", "")  # 球が二つ、片方は右へ
        said = self.open
        if said.subjects and said.topic and (said.direction or said.speed) and not (said.objects or said.goals):
            self.gaps.append(said)
            self.open = OpenClause(order=said.order)
        if self.open.subjects and not any(self.phrases[i].kind == "camera" for i in (*self.open.subjects, *phrases)):
            if said.topic and not topic:
                said.themes = len(said.subjects)
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
        if lemma in MEETS:  # に向かって
            self.open.links.append(Link(relation="toward", phrases=tuple(phrases)))
            return position + (2 if self._text(position + 1) in ("て", "た") else 1)
        self.open.goals.extend(phrases)
        return position

    # --- adverbs and verbs -------------------------------------------------------------------------------------

    def _verb(self, position: int, token: Token) -> int | None:
        if not token.has("verb", "move"):
            return self._copula(position, token)
        if token.lemma in ("いく", "行く", "くる", "来る", "ゆく") and self._text(position - 1) in ("て", "で"):
            return position + 1  # 小さくなっていく
        group = verb_group(self.tokens, position)
        if token.lemma in ("挟む", "はさむ") and self._flanked(position):
            return group.after
        if self.list:
            phrases, self.list = self.list, []
            self._subject(phrases, topic=False)
        cleft = self._text(group.end) == "の" and self._text(group.end + 1) == "は"  # 弾むのは赤いほうだけ
        self.cleft |= cleft
        relative = not group.te and (cleft or self._phrase_follows_verb(group.end))
        self._predicate_before()
        self._cameras_first()
        kind, name = self._happens(token, group, relative=relative)
        self._whereabouts(token, group)
        if kind == "event":
            self._with_tool(name)
            if not relative:
                self._same_object(token, group)
        self.open.words.append(token.text)
        if group.negated and token.lemma in ("ある", "いる", "存在") and not relative:  # 箱はありません
            self._absent()
            return group.after
        self._close(kind, name, group=group, relative=relative)
        return group.after

    def _predicate_before(self) -> None:
        modifiers, self.modifiers = self.modifiers, Modifiers()
        if modifiers.count and not modifiers.attributes and self.open.subjects:
            self._count(self.open.subjects[-1], modifiers.count)

    def _phrase_follows_verb(self, position: int) -> bool:
        token = self._at(position)
        shown = token is not None and token.text in ("やつ", "もの") and self.open.subjects and not self.open.topic
        if shown and self._text(position + 1) not in ("が", "は", "に", "の"):
            return False  # 球が転がるやつ作って: what is to be seen
        return self._phrase_follows(position) or (
            token is not None and token.has("speed") and "連体" in token.form and self._phrase_follows(position + 1)
        )

    def _copula(self, position: int, token: Token) -> int | None:
        """だ, です after an adjective: 赤いです. ない after a noun: ボールがない."""
        if token.lemma in ("ない", "無い") and token.form.startswith("形容詞") and self.open.subjects:
            self._absent()
            return position + 1
        several = self.modifiers.joined and self.last_subjects  # ボールが三つあり、赤と青と緑です
        if token.lemma in ("だ", "です") and self.modifiers.attributes and (self.open.subjects or several):
            self._predicate()
            return position + 1
        return None

    def _absent(self) -> None:
        """What there is not: its phrases mean nothing."""
        link = Link(relation="not", phrases=tuple(self.open.subjects))
        self.open.subjects, self.open.links = [], [link]
        self._close("none", "")

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
        if state.row and kind in ("make", "none") and state.direction:  # 左から赤、青、緑の箱が並ぶ
            side = {"right": "left_of", "left": "right_of"}[state.direction]
            state.links.append(Link(relation=f"{side} each other", phrases=(-1,)))
        if group.subordinate and state.themes:  # 箱は、球が当たるまで動かない: only the ball hits
            self.open.subjects, self.open.topic, subjects = subjects[: state.themes], True, subjects[state.themes :]
        placed = kind == "make" and state.links and not state.objects  # 箱の左にあり、円錐の手前にある
        carried = kind in ("event", "be") or placed
        begun = self.parted or len(self.clauses) > self.sentence_start
        if not subjects and not relative and carried and begun:
            subjects = self._carried(verb, state)
        camera = [i for i in subjects if self.phrases[i].kind == "camera"]
        if kind == "make":
            self.gaps = [gap for gap in self.gaps if not gap.placed]
        if not relative:
            self._meets_next(kind, state.subjects)
            self._done_by(kind, state.subjects)
        index = len(self.clauses)
        clause = state.frozen(kind, verb, tuple(i for i in subjects if i not in camera), group)
        clause = replace(clause, opens=index == self.sentence_start)
        if self.needs and clause.negated:
            clause, self.needs = replace(clause, negated=False), False
        self.needs |= group.until
        if kind == "event" and not relative:
            subjects, index = self._shared(clause, subjects), len(self.clauses)
        self.clauses.append(replace(clause, attributes=attributes, relative=relative))
        if not relative:
            self._leaves_open(index, group)
        if relative:
            self.relatives.append(index)
            return
        if not camera and subjects:
            self.last_subjects = subjects
        if kind != "none" or group.subordinate:
            self._main_clause(index, kind, tuple(subjects), group)

    def _shared(self, clause: Clause, subjects: list[int]) -> list[int]:
        """赤い球は左へ、青い球は右へ転がる: the verb for each of those that waited for it. Returns all who do it."""
        for gap in self.gaps:
            way, speed = gap.direction or clause.direction, gap.speed or clause.speed
            links = () if gap.placed else clause.links
            same = replace(clause, subjects=tuple(gap.subjects), links=links)
            self.clauses.append(replace(same, direction=way, speed=speed))
        told = [number for gap in self.gaps for number in gap.subjects]
        self.gaps = []
        return [*told, *(number for number in subjects if number not in told)]

    def _leaves_open(self, index: int, group: VerbGroup) -> None:
        """What the clause does not name may come in the next one: who is pushed, what is hit."""
        clause = self.clauses[index]
        first = all(c.relative for c in self.clauses[self.sentence_start : index])
        if first and clause.kind == "event" and (group.te or group.passive) and not group.subordinate:
            self.nobody = None if clause.subjects or clause.objects else index
        met = clause.objects or clause.passive or any(link.relation != "at" for link in clause.links)
        alone = len(clause.subjects) == 1 and not self.phrases[clause.subjects[0]].plural
        if clause.verb == "collide" and alone and not met and not group.negated:
            self.unmet = index

    def _main_clause(self, index: int, kind: str, subjects: tuple[int, ...], group: VerbGroup) -> None:
        for waiting in self.waiting:  # Aした後、Bした後、C: each belongs to the next
            before = self.clauses[waiting]  # 箱にぶつかった後、ボールは止まる: who stops has hit the box
            who = before.subjects or (subjects if kind == "event" and not before.passive else ())
            self.clauses[waiting] = replace(before, main=index, subjects=who)
        self.waiting = [index] if group.subordinate else []


def read_syntax(lexical: Lexical, *, unknown_nouns: bool = True) -> Syntax:
    """Level 2 for Japanese."""
    return Reader(lexical.tokens, unknown_nouns=unknown_nouns).read()
