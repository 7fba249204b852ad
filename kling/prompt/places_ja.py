"""Where a Japanese sentence says something is, which way and how fast it goes. Part of level 2."""

from dataclasses import replace

from kling.prompt.graph import SHAPES
from kling.prompt.lexical import Token
from kling.prompt.modifiers_ja import ModifierReader
from kling.prompt.places import SUPPORTS
from kling.prompt.state_ja import ATTRIBUTES, as_relation, as_verb, follows_verb, holds
from kling.prompt.syntactic import Link

SIDES = ("left_of", "right_of", "in_front_of", "behind", "on", "above", "below")
_INNER = ("middle", "top", "bottom")  # 一番上が: one of a group, not where it goes
_BARE = ("左", "右", "手前", "奥", "左側", "右側", "前", "後ろ", "左端", "右端")
ENDS = {"left": "left", "right": "right", "up": "top", "down": "bottom", "toward": "front", "away": "back"}


class PlaceReader(ModifierReader):
    """Places and adverbs; the rest is kling.prompt.syntactic_ja.Reader's."""

    def _its_place(self, position: int, token: Token) -> int | None:
        """その左に, その上に: a place of what was spoken of last."""
        if token.text != "その" or as_relation(self._at(position + 1)) is None:
            return None
        circles = as_relation(self._at(position + 1)) == "path past"  # カメラがその周りを回る
        if self.list or (self.open.subjects and not circles):  # 箱の上に球、その左に円錐
            self.open.subjects += [number for number in self.list if number not in self.open.subjects]
            self._close("none", "")
        self.list = [self._phrase(kind="pronoun", head="it", text=token.text)]
        return self._genitive(position + 1)

    def _sound(self, position: int, token: Token) -> int | None:
        """ころころ, どーん: a manner of the verb that follows, else the verb itself."""
        if not token.has("sound"):
            return None
        if not self._verb_ahead(position + 1):
            return self._verb(position, replace(token, senses=tuple(as_verb(token))))
        if token.value("sound") == "dash":
            self.open.speed = "fast"
        return position + 1

    def _verb_ahead(self, position: int) -> bool:
        while (token := self._at(position)) is not None and token.form != "punct":
            if token.has("verb", "move"):
                return True
            position += 1
        return False

    def _likened(self, position: int) -> int:
        """猫のように, 振り子みたいに: named, but not there. The position after it, or the same."""
        words = self._text(position) + self._text(position + 1) + self._text(position + 2)
        told = next((word for word in ("のように", "みたいに") if words.startswith(word)), "")
        if not told:
            return position
        self.open.links.append(Link(relation="like", phrases=tuple(self.list)))
        self.list = []
        return position + (2 if self._text(position) + self._text(position + 1) == told else 3)

    def _next_to_it(self, position: int, token: Token) -> int | None:
        """隣の円錐: next to what was spoken of before, unless the cone was, too."""
        things = [phrase.head for phrase in self.phrases if phrase.kind == "object"]
        near = token.value("relation") == "near" and self._text(position + 1) == "の" and not self.list
        if not (near and things and self._phrase_follows(position + 2)):
            return None
        heads = (t.value("noun") or t.value("thing") for t in self.tokens[position + 2 :] if t.has("noun", "thing"))
        if next(heads, "") not in things:
            it = self._phrase(kind="pronoun", head="it", text=token.text)
            self.places.append(Link(relation="near", phrases=(it,)))
        return position + 2

    def _genitive(self, position: int) -> int:
        """の: a place of this phrase (箱の左に), or its owner (子供のボール)."""
        near = position + (self._text(position) in ("すぐ", "ちょうど", "少し", "ちょっと", "やや"))
        position = near if as_relation(self._at(near)) else position  # 箱のすぐ右に
        token = self._at(position)
        relation = as_relation(token)
        if (
            token is not None
            and token.value("place") in _INNER
            and self._text(position + 1) in ("が", "は", "を", "の")
        ):
            self.list = []  # 重なった箱の一番上が
            return position
        if token is None or relation is None:
            if self.list:
                self.lost.extend(self.phrases[i].text for i in self.list if self.phrases[i].kind == "somebody")
                owner = self.list.pop()
                if self.phrases[owner].kind == "object" and self._phrase_follows(position):
                    return self._owned(owner, position)
                if self.phrases[owner].kind == "object" and not self._phrase_follows(position):
                    self.list.append(owner)
                    if token is not None and self._part_of_it(position, token):  # トラックの荷台から
                        self.lost.extend([] if token.has("filler") else [token.text])
                        return self._particle(position + 1)
            return position
        link = Link(relation=relation, phrases=tuple(self.list))
        self.list = []
        if token.has("move"):  # 球の周りを回る: the place and the verb are one word
            self.open.links.append(link)
            return position
        following = self._text(position + 1)
        if following == "から" and relation in ("behind", "below"):  # 箱の後ろから出てくる
            link = replace(link, relation=f"from {relation}")
        if following == "の":
            self.places.append(link)
            return position + 2
        self.open.links.append(link)
        return position + (2 if following in ("に", "で", "を", "は", "が", "へ", "には", "から") else 1)

    def _part_of_it(self, position: int, token: Token) -> bool:
        """A noun of no lexicon, and something goes from there or to there."""
        unknown = not token.senses and token.form.startswith("名詞")
        if token.text in ("色", "大きさ", "素材", "材質"):  # 球の色は赤
            return self._text(position + 1) in ("は", "が", "も")
        inside = token.text in ("中", "なか", "内側", "外", "片側")  # バケツの中に
        return (unknown or inside) and self._text(position + 1) in ("から", "に", "へ", "で", "まで")

    def _adverb(self, position: int, token: Token) -> int | None:
        order, speed, direction = token.value("order"), token.value("speed"), token.value("direction")
        chain = token.value("relation") or ""
        stands = not chain.startswith("near") or not holds(self._at(position + 1))  # 並んでいる says no more than ある
        if chain.endswith("each other") and stands:
            self.open.links.append(Link(relation=chain, phrases=(-1,)))
            return position + 1
        if order is not None:
            both = order == "same" and self.open.order == "then"  # それから…同時に: at once, and only then
            self.open.order = "then" if both else order
            return position + 1
        if speed is not None:
            self.open.speed = speed
            return position + 1
        if (after := self._place_of_before(position, token)) is not None:
            return after
        if (direction is None and not token.has("place")) or token.has("verb"):
            return None
        if (
            token.has("subordinator")
            and self._text(position - 1) not in ("の", ",", ".")
            and follows_verb(self.tokens, position)
        ):
            return None
        if self._text(position - 1) == "の" and direction in ("up", "down", "away", "toward"):
            return position + 1  # 氷の上: a place of something that is no object
        if (after := self._stands(position, token)) is not None:
            return after
        position += 1
        start = position
        while self._text(position) in ("に", "へ", "の", "で") and not token.text.endswith(("に", "へ")):
            position += 1
        if (token.has("place", "relation") and self._phrase_follows(position)) or (
            token.has("place") and self._text(position) == "," and self._phrase_follows(position + 1)
        ):
            self.place = token.value("place") or {"left": "left", "right": "right"}.get(direction or "")
            if self._text(start) == "の":  # 上の箱
                self.place = self.place or {"up": "top", "down": "bottom"}.get(direction or "")
                return position
            return position
        only = self._text(position) in ("だけ", "のみ")
        alone = token.value("place") in _INNER and self._text(position) in ("が", "は", "を", "も")
        if only or alone:
            place = token.value("place") or ENDS.get(direction or "")
            number = self._phrase(kind="elliptic", determiner="the", place=place, text=token.text)
            self._resolve_relatives(number)  # 動くのは左だけ
            self.list.append(number)
            return self._particle(position + only)
        if direction is not None and (self.open.direction is None or direction in ("left", "right")):
            self.open.direction = direction
            self.open.deep = direction in ("toward", "away") and token.text[0] in "奥手向"
            self.open.row = direction in ("left", "right") and token.text.endswith("から")
        return position

    def _owned(self, owner: int, position: int) -> int:
        """テーブルの瓶 stands on it; レンガの壁, 車のタイヤ: says of what kind, and is no thing of its own."""
        phrase = self.phrases[owner]
        if phrase.head in SUPPORTS:
            self.places.append(Link(relation="on", phrases=(owner,)))
        elif phrase.head not in SHAPES and owner == len(self.phrases) - 1:
            self.lost.append(phrase.text)
            self.phrases[owner] = replace(phrase, kind="somebody")
        return position

    def _place_of_before(self, position: int, token: Token) -> int | None:
        """円錐の左に球があり、後ろに箱がある: behind the cone too. The landmark is that of the place before."""
        relation = as_relation(token)
        marks = self.around
        for link in self.clauses[-1].links if len(self.clauses) > self.sentence_start else ():
            marks = marks or (link.phrases if link.relation in SIDES else ())
        after = position + 1
        while self._text(after) in ("に", "には"):
            after += 1
        told = after > position + 1 or token.text.endswith(("に", "には"))
        if relation not in SIDES or not (marks and told and self._phrase_follows(after)):
            return None
        self.open.links.append(Link(relation=relation or "", phrases=marks))
        return after

    def _stands(self, position: int, token: Token) -> int | None:
        """箱は左、球は右です: where the topic is in the picture."""
        place = ENDS.get(token.value("place") or token.value("direction") or "")
        after = position + 1
        if token.text in _BARE and self.open.topic and self.open.subjects and not self.list:
            if self._text(after) in (",", "."):
                self._placed(self.open.subjects, place)
                self._close("none", "")
                return after
            following = self._at(after)
            if following is not None and following.lemma in ("だ", "です"):
                self._placed(self.open.subjects, place)
                self._close("none", "")
                return after + 1
        return None

    def _next_opens(self, position: int) -> bool:
        return self._place_opens(position) or self._landmark_opens(position)

    def _place_opens(self, position: int) -> bool:
        """左に and a noun: the next thing of a list, with its own place."""
        token = self._at(position)
        if token is None or as_relation(token) not in SIDES:
            return False
        after = position + 1 if token.text.endswith(("に", "には")) else position + 2
        return (after == position + 1 or self._text(position + 1) in ("に", "には")) and self._phrase_follows(after)

    def _landmark_opens(self, position: int) -> bool:
        """青い球の右に and a noun: the next thing of a list, with a landmark of its own."""
        for i in range(position, position + 5):
            if self._text(i) == "の" and self._place_opens(i + 1):
                return True
            token = self._at(i)
            if token is None or not (token.has("noun", "thing", *ATTRIBUTES) or token.text in ("の", "な")):
                return False
        return False
