"""Who does what a Japanese verb says, and to whom, when the clause itself leaves it out. Part of level 2."""

from dataclasses import replace

from kling.prompt.lexical import Token
from kling.prompt.places import SUPPORTS
from kling.prompt.places_ja import ENDS, PlaceReader
from kling.prompt.state_ja import SLOPES, OpenClause, VerbGroup, along, verb_group
from kling.prompt.syntactic import Link

_WITHIN = ("入る", "はいる", "隠れる", "出る")


class DoerReader(PlaceReader):
    """Finds subjects and objects across clauses; the rest is kling.prompt.syntactic_ja.Reader's."""

    def _carried(self, verb: str, state: OpenClause) -> list[int]:
        """Who goes on when nobody is named: 誰かが球を投げ、壁に当たる is about the ball."""
        both = [n for c in self.clauses[self.sentence_start :] for n in c.subjects]
        if len(self.last_subjects) == 1 and any(self.phrases[i].head == "each other" for i in state.goals):
            return list(dict.fromkeys(both))  # 箱は左、球は右にあり、互いに近づく
        if verb == "topple" and len(self.last_subjects) == 1 and self.clauses[-1].verb == "collide":
            fallen = self._falls(self.last_subjects[0])
            if fallen:
                return fallen
        told = [c for c in self.clauses[self.sentence_start :] if not c.relative]
        nobody = bool(told) and all(self.phrases[i].kind == "somebody" for i in self.last_subjects)
        struck = bool(told) and told[-1].verb == "collide" and verb != "collide"  # バットで球を打つと、飛んでいく
        thrown = told[-1].objects if nobody or struck else ()
        return list(thrown) if thrown and not state.objects and verb != "be" else self.last_subjects

    def _hit_before(self) -> list[int]:
        """What the clause before says is hit."""
        before = self.clauses[-1] if len(self.clauses) > self.sentence_start else None
        links = before.links if before is not None and before.verb == "collide" else ()
        return [number for link in links if link.relation == "into" for number in link.phrases]

    def _with_tool(self, verb: str) -> None:
        """ハンマーで箱を叩く: the hammer hits it."""
        if verb == "collide" and self.open.objects and self.open.goals:  # 球を箱にぶつける: the ball hits it
            self.open.subjects, self.open.objects = self.open.objects, []
        if verb not in ("collide", "knock over"):
            return
        for link in self.open.links:
            tools = [i for i in link.phrases if i >= 0 and self.phrases[i].kind == "object"]
            if link.relation == "at" and tools and self.phrases[tools[0]].head not in SUPPORTS:
                self.open.subjects = tools
                self.open.links = [other for other in self.open.links if other is not link]

    def _same_object(self, token: Token, group: VerbGroup) -> None:
        """箱を押して右に動かす, 球が円錐に当たり、倒す: what it is done to was named in the clause before."""
        verb, told = token.value("verb") or "", [c for c in self.clauses[self.sentence_start :] if not c.relative]
        if self.open.objects or self.open.goals or group.passive or not told:
            return
        if verb == "knock over":
            gone_on = told[-1].objects or (told[-1].subjects if self.open.subjects else ())
            self.open.objects = self._hit_before() or list(gone_on)
        elif token.lemma.endswith("す") and verb in ("move", "roll", "slide", "fall", "throw", "spin", "push"):
            self.open.objects = list(told[-1].objects)

    def _met_at_last(self) -> None:
        """円柱が立っていて、球が転がってきて当たる: what stood there is hit, when nothing else is named."""
        if self.unmet is None:
            return
        hitting = self.clauses[self.unmet]
        before = self.clauses[self.sentence_start : self.unmet]
        other = next((c.subjects for c in before if c.subjects and c.subjects != hitting.subjects), ())
        if other:
            link = Link(relation="into", phrases=other)
            self.clauses[self.unmet] = replace(hitting, links=(*hitting.links, link))

    def _falls(self, hitter: int) -> list[int]:
        """Who topples when nobody is named: 円錐に球が当たって倒れる is about the cone, what was hit."""
        if self.unmet is not None and self.unmet > self.sentence_start:
            at, self.unmet = self.unmet, None
            before = self.clauses[at - 1].subjects
            link = Link(relation="into", phrases=before)
            self.clauses[at] = replace(self.clauses[at], links=(*self.clauses[at].links, link))
            return list(before)
        hit = self._hit_before()
        round_one = self.phrases[hitter].head == "ball"  # what is round does not topple
        return hit if hit and (round_one or max(hit) < hitter) else []

    def _cameras_first(self) -> None:
        """カメラを動かす, カメラが動く: either way it is the camera that moves."""
        cameras = [i for i in self.open.objects if self.phrases[i].kind == "camera"]
        if cameras and not self.open.subjects:
            self.open.subjects = cameras
            self.open.objects = [i for i in self.open.objects if i not in cameras]

    def _goes_along(self, verb: str, token: Token, group: VerbGroup) -> None:
        state = self.open
        travels = verb in ("roll", "slide", "move", "dash")
        if travels and group.comes and state.direction is None and not token.text.startswith("出"):
            state.direction = "toward"
        intransitive = token.lemma.endswith("越す") or not (token.lemma.endswith("す") or group.causes or group.passive)
        if intransitive and state.objects and (travels or verb in ("fall", "bounce", "spin")):
            state.links.append(along([self.phrases[i] for i in state.objects], verb, state.direction))
            state.objects = []

    def _whereabouts(self, token: Token, group: VerbGroup) -> None:
        """箱は右にある: in the picture; 互いに近づく: each toward the other; 柱の周りを回る: travels."""
        state = self.open
        heads = {self.phrases[i].head for i in (*state.subjects, *state.goals)}
        if "each other" in heads and token.lemma in ("近づく", "近寄る", "接近", "寄る", "迫る"):
            state.direction = "together"
        if "each other" in heads and token.lemma in ("離れる", "遠ざかる"):
            state.direction = "apart"
        placed = group.puts and not state.links and token.lemma not in ("並ぶ", "並べる")
        if placed and (ENDS.get(state.direction or "")):
            self._placed(state.objects or state.subjects, ENDS[state.direction or ""])

    def _flanked(self, position: int) -> bool:
        """箱を挟んで: left and right of it; 箱と円錐に挟まれた球: between them."""
        group = verb_group(self.tokens, position)
        if group.passive and len(self.open.goals) > 1:
            self.open.links.append(Link(relation="between", phrases=tuple(self.open.goals)))
            self.open.goals = []
            self._close("make", "make", group=group, relative=self._phrase_follows_verb(group.end))
        elif group.te and self.open.objects:
            self.around, self.open.objects = tuple(self.open.objects), []
        else:
            return False
        return True

    def _done_by(self, kind: str, subjects: list[int]) -> None:
        """球に押されて、箱が滑る: it is the box that was pushed."""
        if self.nobody is None or not subjects:
            return
        at, self.nobody = self.nobody, None
        if kind == "event" and all(self.phrases[i].kind != "camera" for i in subjects):
            self.clauses[at] = replace(self.clauses[at], subjects=tuple(subjects))

    def _meets_next(self, kind: str, subjects: list[int]) -> None:
        """球が当たって、箱が倒れる: it has hit the box."""
        if self.unmet is None or kind != "event":
            return
        hitting, self.unmet = self.clauses[self.unmet], None
        if len(subjects) == 1 and tuple(subjects) != hitting.subjects:
            at = self.clauses.index(hitting)
            self.clauses[at] = replace(hitting, links=(*hitting.links, Link(relation="into", phrases=tuple(subjects))))

    def _sentence_films(self) -> bool:
        return len(self.clauses) > self.sentence_start and self.clauses[-1].kind == "camera"

    def _happens(self, token: Token, group: VerbGroup, *, relative: bool) -> tuple[str, str]:
        """The clause's kind and verb: what a thing does, what the camera does, or that something is there."""
        verb, move = token.value("verb"), token.value("move")
        verb = "posture" if verb == "stop" and group.holds else verb  # 停まっている
        if token.lemma in _WITHIN and group.holds:
            return "make", "make"  # 箱の中に入っている
        thing = relative and self._describes(verb or "", token, group)
        travels = bool(move) or (verb == "move" and not (self.open.objects or relative))
        goes_on = travels and not self.open.subjects and self._sentence_films()  # カメラは傾いて、降下する
        if thing and verb is None:
            return "event", ""
        camera = not thing and (goes_on or self._filmed(self.open.subjects))
        self.open.direction = self.open.direction or (token.value("direction") if verb else None)
        if camera:
            return "camera", self._camera_does(verb or "", move, token)
        chased = move in ("follow", "orbit") and bool(self.open.subjects)
        around = verb == "spin" and any(link.relation == "path past" for link in self.open.links)
        if (chased and verb is None) or around:  # a ball that follows or circles a ball is no camera
            verb = "move"
        rises = bool(self.open.subjects) and (move or "").startswith("crane")  # 風船が上がる: no camera does
        if move and verb is None and not rises:
            return "camera", move
        if verb == "make":
            return "make", "make"
        self._goes_along(verb or "", token, group)
        return "event", verb or ""

    def _camera_does(self, verb: str, move: str | None, token: Token) -> str:
        if self.open.deep and verb == "move":
            self.open.direction = {"away": "toward", "toward": "away"}.get(self.open.direction or "")
        sides = {"left_of": "left", "right_of": "right"}
        if move == "orbit" and not self.open.direction:  # 球の右側へ回り込む
            self.open.direction = next((sides[x.relation] for x in self.open.links if x.relation in sides), None)
        return "orbit" if token.lemma in ("回る", "まわる") else move or verb

    def _filmed(self, numbers: list[int]) -> bool:
        return any(self.phrases[number].kind == "camera" for number in numbers)

    def _describes(self, verb: str, token: Token, group: VerbGroup) -> bool:
        """Before a noun, of that noun and not of the subject so far: カメラが転がる球を追う, 球が静止した箱に当たる."""
        if not verb:  # 傾いた板: no camera does
            self.open.topic = True
            return True
        filmed = not token.has("move") and self._filmed(self.open.subjects)
        if filmed or self._does_itself(verb, token, group):
            self.open.topic = True
        return self.open.topic and verb != "make"

    def _does_itself(self, verb: str, token: Token, group: VerbGroup) -> bool:
        """An intransitive verb before a noun that can do it: no place that it happens on."""
        itself = verb in ("stay", "stop", "roll", "slide", "fall", "bounce", "spin", "topple", "posture")
        if not itself or not self.open.subjects or token.lemma.endswith("す") or group.causes or group.passive:
            return False
        heads = (t.value("noun") or t.value("thing") for t in self.tokens[group.end :] if t.has("noun", "thing"))
        head = next(heads, "")
        return bool(head) and head not in SUPPORTS and head not in SLOPES
