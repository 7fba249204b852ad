"""What stands before a Japanese noun: attributes, numbers, ordinals, parts of a group. Part of level 2."""

from abc import ABC, abstractmethod
from dataclasses import replace

from kling.prompt.lexical import Token, as_count
from kling.prompt.state_ja import ATTRIBUTES, Modifiers, OpenClause, VerbGroup, as_relation
from kling.prompt.syntactic import Attribute, Clause, Link, Phrase

_MATERIAL_THINGS = {"木": "tree", "石": "stone"}


class ModifierReader(ABC):
    """Gathers ``modifiers`` until their noun comes; the rest is kling.prompt.syntactic_ja.Reader's."""

    def __init__(self, tokens: tuple[Token, ...], *, unknown_nouns: bool = True):
        self.tokens, self.unknown_nouns = tokens, unknown_nouns
        self.phrases: list[Phrase] = []
        self.clauses: list[Clause] = []
        self.scene: list[Attribute] = []
        self.lost: list[str] = []
        self.open = OpenClause()
        self.list: list[int] = []  # phrases joined so far, waiting for their particle
        self.modifiers = Modifiers()
        self.among: int | None = None  # 三つの球のうち: the group that the next phrase is chosen from
        self.parts: list[int] = []  # ひとつは赤、もうひとつは青
        self.relatives: list[int] = []  # clauses waiting for the noun they modify
        self.places: list[Link] = []  # 机の上の: modifies the next noun
        self.place: str | None = None
        self.waiting: list[int] = []  # subordinate clauses waiting for their main clause
        self.last_subjects: list[int] = []
        self.cleft = False  # 弾むのは: the noun that follows is who does it
        self.parted = False  # a group was divided in this sentence
        self.around: tuple[int, ...] = ()  # 箱を挟んで: 左に and 右に are said of this
        self.nobody: int | None = None  # 押されて、箱が滑る: who does it is named in the next clause
        self.unmet: int | None = None  # 球が当たって、箱が倒れる: the collision whose other side comes next
        self.needs = False  # 止まってからでないと: what does not happen before it, happens after it
        self.gaps: list[OpenClause] = []  # 赤い球は左へ、青い球は右へ転がる: topics that wait for the verb
        self.sentence_start = 0

    @abstractmethod
    def _particle(self, position: int) -> int:
        """What the phrase just read is to the verb."""

    @abstractmethod
    def _phrase_follows_verb(self, position: int) -> bool:
        """A noun phrase begins here, which the verb before it describes."""

    @abstractmethod
    def _resolve_relatives(self, number: int) -> None:
        """The noun that clauses before it were waiting for."""

    @abstractmethod
    def _verb(self, position: int, token: Token) -> int | None:
        """Close the clause whose verb stands here."""

    @abstractmethod
    def _close(
        self,
        kind: str,
        verb: str,
        *,
        attributes: tuple[Attribute, ...] = (),
        group: VerbGroup | None = None,
        relative: bool = False,
    ) -> None:
        """Freeze the open clause."""

    def _at(self, position: int) -> Token | None:
        return self.tokens[position] if 0 <= position < len(self.tokens) else None

    def _text(self, position: int) -> str:
        token = self._at(position)
        return token.text if token else "."

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

    def _placed(self, numbers: list[int], place: str | None) -> None:
        """Where in the picture these phrases are said to be."""
        for number in numbers if place else ():
            if not self.phrases[number].place and self.phrases[number].kind in ("object", "elliptic"):
                self.phrases[number] = replace(self.phrases[number], place=place)

    def _count(self, number: int, count: int) -> None:
        self.phrases[number] = replace(self.phrases[number], count=count, plural=count != 1, determiner="a")

    def _phrase(self, **fields) -> int:
        self.phrases.append(Phrase(id=len(self.phrases), **fields))
        return len(self.phrases) - 1

    def _pronoun(self, kind: str, token: Token) -> None:
        group = next((p for p in reversed(self.phrases) if p.plural and p.kind == "object"), None)
        if kind == "either":  # 片方だけ転がる
            among = group.id if group else None
            kind = "pronoun" if group is None else "elliptic"
            number = self._phrase(kind=kind, head="" if group else "other", count=1, among=among, text=token.text)
        elif kind in ("former", "latter"):
            ordinal = 1 if kind == "former" else -1
            number = self._phrase(kind="elliptic", ordinal=ordinal, determiner="the", text=token.text)
        elif kind == "somebody":
            number = self._phrase(kind="somebody", text=token.text)
        else:
            number = self._phrase(kind="pronoun", head=kind, text=token.text)
        self.list.append(number)

    def _member(self, position: int, token: Token) -> int | None:
        """そのうち一つ, 箱のうち二つ: members of the plural phrase before."""
        after = self._at(position + 1)
        number = after.value("number") if after is not None and token.text in ("うち", "中") else None
        group = next((p for p in reversed(self.phrases) if p.plural), None)
        if number is None or group is None:
            if group is None or token.text != "うち":
                return None
            self.modifiers, self.list, self.among = Modifiers(), [], group.id  # 三つの球のうち、赤い球が
            return position + (2 if self._text(position + 1) in (",", "の", "で") else 1)
        self.modifiers, self.list = Modifiers(), []
        counted = position + 2 + self._counts(position + 2)
        told = self._at(counted + 1)
        says = self._text(counted) in ("は", "が") and told is not None and told.has(*ATTRIBUTES)
        if (
            says and after is not None and not self._noun_follows(counted + 2) and self._text(counted + 2) != "の"
        ):  # うち三つは青
            return self._part(position + 1, after)
        count = as_count(number)
        member = self._phrase(kind="elliptic", count=count, plural=count > 1, among=group.id, text=f"うち{number}")
        self.list.append(member)
        counter = self._at(position + 2)
        return self._particle(position + (3 if counter is not None and counter.has("counter") else 2))

    def _counts(self, position: int) -> int:
        """1 where a counter stands (三個), else 0."""
        token = self._at(position)
        return int(token is not None and token.has("counter"))

    def _part(self, position: int, token: Token) -> int | None:
        """ひとつは赤、もうひとつは青: parts of a plural phrase before or after."""
        number = token.value("number")
        other = token.value("pronoun") in ("other", "others")
        start = position + 1 + self._counts(position + 1)
        if not (number or other) or self._text(start) not in ("は", "が"):
            return None
        position = start - 1
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
        whole = next((p for p in reversed(self.phrases) if len(p.parts) < (p.count or 0) and p.plural), None)
        count = int(number) if number and number.isdecimal() else 1
        if token.value("pronoun") == "others" and whole is not None:  # 残りは青
            count = (whole.count or 0) - sum(self.phrases[part].count or 1 for part in whole.parts)
        phrase = self._phrase(kind="elliptic", attributes=tuple(attributes), count=count, text=token.text)
        if whole is not None and not self.parts:
            self.phrases[whole.id] = replace(whole, parts=(*whole.parts, phrase))
            if not self.open.subjects:
                self.last_subjects, self.parted = [whole.id], True  # 三つは青、残りは赤で、落ちる: all of them
        else:
            self.parts.append(phrase)
        return position

    def _modifier(self, position: int, token: Token) -> int | None:
        modifiers = self.modifiers
        following = self._text(position + 1)
        found = next((sense for sense in token.senses if sense.kind in ATTRIBUTES), None)
        if found is not None and not self._is_head(position, token) and not self._as_thing(position, token):
            return self._attribute(position, token, found.kind, found.value)
        if token.text == "大小":  # one of each
            modifiers.attributes.append(("size", "large"))
            modifiers.alternatives.append(("size", "small"))
            modifiers.joined = True
            return position + (2 if following == "の" else 1)
        number = token.value("number")
        if number is not None and number.replace(".", "").isdecimal():
            return self._number(position, number)
        if (ordinal := token.value("ordinal")) is not None:  # 二番目の赤いボール
            after = position + 1 + (following in ("だけ", "のみ"))
            if self._text(after) in ("は", "が", "も", "を") and not modifiers.attributes:  # 二つ目だけが
                self.list.append(self._phrase(kind="elliptic", ordinal=int(ordinal), determiner="the", text=token.text))
                return self._particle(after)
            modifiers.ordinal = int(ordinal)
            return position + (2 if following == "の" else 1)
        if token.has("vague"):
            modifiers.count, modifiers.vague = int(token.value("vague") or 2), True
            return position + (2 if following == "の" else 1)
        if token.text in ("他", "ほか", "残り") and following == "の":
            modifiers.other, modifiers.determiner = True, "the"
            return position + 2
        chosen = token.value("pronoun") if following == "の" and as_relation(self._at(position + 2)) is None else None
        if chosen == "both" and self._phrase_follows(position + 2):  # どちらの球も
            modifiers.count, modifiers.determiner = 2, "the"
            return position + 2
        if chosen == "everything" and self._phrase_follows(position + 2):  # すべての箱が
            modifiers.every, modifiers.determiner = True, "all"
            return position + 2
        if chosen == "other" and self._phrase_follows(position + 2):  # もうひとつの球
            modifiers.count, modifiers.other, modifiers.determiner = 1, True, "the"
            return position + 2
        if token.text in ("その", "この", "あの"):
            modifiers.determiner = "the"
            return position + 1
        if token.has("speed") and token.form.startswith("形容詞") and "連体" in token.form:
            modifiers.speed = token.value("speed")
            return position + 1
        return None

    def _as_thing(self, position: int, token: Token) -> str | None:
        """木の前に, 石が: a tree, a stone, where no noun follows that would be made of it."""
        thing, after = _MATERIAL_THINGS.get(token.text), self._at(position + 1)
        if thing is None or after is None or self._text(position - 1) in ("、", "と"):
            return None
        if after.text == "の":
            return thing if as_relation(self._at(position + 2)) else None
        rests = after.text == "に" or (after.text in ("が", "を", "へ", "から") and after.form.startswith("助詞"))
        return thing if rests else None

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
        does = self._at(position + 1)
        becomes = token.form.startswith("形容詞") and token.text.endswith("く") and self.open.objects
        if becomes and does is not None and (does.text == "," or does.lemma == "する"):  # 箱を青くする
            self.open.subjects, self.open.objects = self.open.objects, []
            self._close("be", "be", attributes=((kind, value),))
            return position + 1
        taken = [name for name, _ in modifiers.attributes]
        (modifiers.alternatives if kind in taken else modifiers.attributes).append((kind, value))
        modifiers.words.append(token.text)
        listed = self._text(after) == "," and (more := self._at(after + 1)) is not None and more.has(kind)
        modifiers.joined |= self._text(after) in ("と", "や") or listed  # 赤、青、緑の球
        while self._text(after) in ("の", "な", "で", "く", "くて", "て", "と", "ある", "した", "だ", "です") and not (
            self._text(after) == "で" and self._text(after + 1) == "は"
        ):
            after += 1
        if self._text(after) in ("ほう", "方") and self._text(after + 1) == "の":  # 大きいほうのボール
            after += 2
        one = (
            token.form.startswith("形容詞")
            and self._text(after - 1) == "の"
            and self._text(after) in ("が", "を", "に")
        )
        if one and modifiers.attributes:  # 大きいのが小さいのに当たる
            self.modifiers = Modifiers()
            self.list.append(self._phrase(kind="elliptic", attributes=tuple(modifiers.attributes), determiner="the"))
            return self._particle(after)
        only = self._text(after) in ("だけ", "のみ")
        meant = kind == "color" and self._text(after) in ("は", "が", "も", "を") and any(p.head for p in self.phrases)
        alone = token.form.startswith("名詞") and (only or (meant and after == position + 1)) and not self.list
        if alone and not modifiers.count:  # ゴムだけ跳ねる, 赤は右へ転がる
            self.modifiers = Modifiers()
            self.list = [self._phrase(kind="elliptic", attributes=tuple(modifiers.attributes), determiner="the")]
            return self._particle(after + only)
        noun = token.form.startswith("名詞") and self._text(after - 1) in (token.text, "で")
        noun |= token.form.startswith("形容詞") and self._text(after - 1) in ("て", "くて")  # 円錐は青くて、箱は赤い
        if noun and self._text(after) == "," and self.open.topic and self.open.subjects and not self.list:
            self._close("be", "be", attributes=tuple(modifiers.attributes))  # 左の球は赤、右の球は青
            self.modifiers = Modifiers()
        return after

    def _number(self, position: int, number: str) -> int:
        after = position + 1
        following = self._at(after)
        if following is not None and following.text in ("回", "度", "回転", "秒", "番", "回目"):
            self.lost.append(f"{self.tokens[position].text}{following.text}")  # how often: no place in the graph
            return after + 1
        before = self._at(position - 1)
        unused = before is not None and (not before.senses or before.has("filler"))
        label = unused and before is not None and before.form.startswith("名詞")
        if label and not self.list and (following is None or following.form == "punct"):  # レベル2: 黄色い球が
            self.lost.append(number)
            return after
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
        counted = self.open.objects if self._text(position - 1) == "を" else self.open.subjects
        more = self._text(after) in ("と", ",") and self._text(position - 1) in ("が", "を")  # 円錐が二つと箱が一つ
        if counted and not self.list and (more or not self._noun_follows(after)):
            self._count(counted[-1], self.modifiers.count)
            self.modifiers = Modifiers()
            after += self._text(after) == "と"
            bare = counted is self.open.subjects and self.tokens[position - 1].form.startswith("名詞")
            if bare and self._text(after) in ("を", "に", "へ"):  # 箱2つを倒す
                self.list = [counted.pop()]
                return self._particle(after)
        return after

    def _noun_follows(self, position: int) -> bool:
        token = self._at(position)
        return token is not None and token.form != "punct" and token.has("noun", "thing", *ATTRIBUTES, "number")
