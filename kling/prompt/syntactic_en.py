"""English chunks into clauses: subjects, objects, attachments, relative clauses, order. The second half of level 2."""

from dataclasses import replace

from kling.prompt.chunks_en import Chunker
from kling.prompt.draft_en import Draft
from kling.prompt.gaps_en import Gaps
from kling.prompt.lexical import Lexical
from kling.prompt.lookahead_en import finite_ahead, list_ahead, verb_ahead
from kling.prompt.syntactic import Clause, Link, Phrase, Syntax
from kling.prompt.verbs_en import Chunk

FRONTED = ("behind", "in_front_of", "above", "below", "near", "left_of", "right_of")


class Assembler(Gaps):
    """Reads chunks left to right, one method a kind of chunk."""

    def read(self) -> Syntax:
        for position, chunk in enumerate(self.chunks):
            getattr(self, f"_{chunk.kind}")(chunk, position)
        self._stop(Chunk(kind="stop"), len(self.chunks))
        return Syntax(
            phrases=tuple(self.phrases[i] for i in sorted(self.phrases)),
            clauses=tuple(self.clauses),
            scene=tuple(self.scene),
            not_understood=tuple(self.lost),
        )

    # --- one method a kind of chunk ----------------------------------------------------------------------------

    def _stop(self, chunk: Chunk, position: int) -> None:
        draft = self.draft
        if draft.empty and not self.drafts and self.loose and self._kind(position + 1) in ("np", "adjective"):
            return
        self._unwind()
        self.details = None
        if chunk.kind == "stop":
            self.draft, self.sentence_start = Draft(), len(self.clauses)
        self.last = None
        if self._kind(position + 1) not in ("np", "adjective"):
            self.loose.clear()

    def _colon(self, chunk: Chunk, position: int) -> None:
        if self.draft.row:
            self._comma(chunk, position)  # "From left to right: a ball, a cube"
            return
        self._stop(chunk, position)

    def _comma(self, chunk: Chunk, position: int) -> None:
        draft = self.draft
        following = self._kind(position + 1)
        if draft.relative and self.drafts and (draft.verb is not None):
            outer = self.drafts[-1]
            if outer.verb is None:
                self._close_relative()
                return
        if draft.subordinate and draft.initial and draft.verb and following not in ("adjective", "direction", "speed"):
            self._close()
            return
        if draft.verb is not None and [self._kind(position + i) for i in (1, 2, 3)] == ["relation", "np", "np"]:
            self._unwind()  # "..., next to it a cube spins"
            return
        if following == "verb":
            verb = self.chunks[position + 1]
            if verb.move and not verb.value and draft.verb is None:
                self._close()
        if draft.verb is None and draft.links and not draft.subjects:
            self.joined = ","  # "On the left of a cube, a ball": the subject follows
            self.preposition, self.slot = None, None
            return
        self.joined = ","

    def _conjunction(self, chunk: Chunk, position: int) -> None:
        self.joined = "and"
        following = self.chunks[position + 1] if position + 1 < len(self.chunks) else None
        if following is not None and following.kind == "verb" and following.move and not following.value:
            self._unwind()
            self.joined = ""
        ahead = [self._kind(position + i) for i in (1, 2, 3)]
        if ahead == ["relation", "np", "verb"] and self.draft.verb is not None:  # "..., and on it there is a ball"
            self._unwind()

    def _scene(self, chunk: Chunk, position: int) -> None:
        self.scene.extend(chunk.attributes)
        following = self.chunks[position + 1].phrase if self._kind(position + 1) == "np" else None
        if following is None or following.determiner or not chunk.text.endswith("y"):  # but "down a snowy hill"
            self.preposition = None

    def _np(self, chunk: Chunk, position: int) -> None:
        phrase = chunk.phrase
        assert phrase is not None
        joined, self.joined = self.joined, ""
        if self.loose:
            phrase = self.phrases[phrase.id] = replace(phrase, attributes=(*self.loose, *phrase.attributes))
            self.loose.clear()
        if phrase.kind == "camera":
            self._camera_phrase(phrase, position)
            return
        if self._inherits_head(phrase, position):
            phrase = self.phrases[phrase.id]
        if self._gapped(phrase, joined, position):
            return
        self.draft.words.append(phrase.text)
        if self.preposition is not None:
            self._attach(phrase.id)
        elif joined:
            self._joined_phrase(phrase, joined, position)
        elif self.draft.relative and self.draft.verb is None and self.draft.antecedent is not None:
            self.draft.objects.append(self.draft.antecedent)  # "the cube that the ball hits"
            self.draft.subjects, self.draft.antecedent = [phrase.id], None
        elif self.draft.verb is None:
            if self.draft.subjects and not self.draft.links:
                self._unwind()
            self.draft.subjects.append(phrase.id)
            self.slot = self.draft.subjects
        else:
            self._after_verb(phrase, position)
        self.last = phrase.id

    def _camera_phrase(self, phrase: Phrase, position: int) -> None:
        films = self.preposition == "with" and verb_ahead(self.chunks, position + 1)  # "with the camera orbiting it"
        if films:
            self._unwind()
        if self.preposition is not None and self.draft.verb is not None:
            self.preposition = None
            return
        verb = self.draft.verb
        done = verb is not None and not self.draft.subjects and (verb.move or verb.value in ("move", "spin"))
        if not self.draft.empty and not done:  # "tilt the camera down" is what the camera does
            self._unwind()
        self.draft.subjects.append(phrase.id)

    def _attach(self, number: int) -> None:
        """The phrase after a preposition."""
        relation, self.preposition = self.preposition or "", None
        draft = self.draft
        asked = relation == "of" and draft.verb is None and draft.subjects  # "can you do a video of a ball"
        if asked and all(self.phrases[i].kind == "somebody" for i in draft.subjects):
            draft.subjects.clear()
        if draft.empty and relation in ("of", "with", "for", "at"):  # "footage of a ball rolling"
            draft.subjects.append(number)
            self.slot = draft.subjects
            return
        waits = draft.verb is None and self.last is not None and draft.subjects and not self.joined
        filmed = self.last is not None and draft.verb is not None and draft.verb.move and not draft.verb.value
        shown = self.last in draft.objects and any(self.phrases[i].kind == "camera" for i in draft.subjects)
        filmed = (filmed or shown) and not self.joined and relation in (*FRONTED, "on")  # "zoom in on a ball on a cube"
        pronoun = self.phrases[number].kind == "pronoun" and len(draft.subjects) > 1  # "a ball, a cube behind it"
        if filmed or (waits and pronoun) or (waits and (self.last != draft.subjects[-1] or draft.links)):
            # "a cone next to a ball on a cube ...": says where the phrase before is
            link = Link(relation=relation, phrases=(number,))
            self.clauses.append(Clause(kind="be", subjects=(self.last or 0,), links=(link,), relative=True))
            self.slot = None
            return
        draft.links.append((relation, [number]))
        self.slot = draft.links[-1][1]

    def _joined_phrase(self, phrase: Phrase, joined: str, position: int) -> None:
        """After "and" or a comma: one more of a list, parts of the phrase before, or the next clause's subject."""
        draft = self.draft
        whole = self.phrases[self.last] if self.last is not None else None
        group = next((p for p in self.phrases.values() if self.last in p.parts), None)
        whole = group or whole  # "two cubes, one on the left and one on the right"
        own_verb = verb_ahead(self.chunks, position + 1)
        acts = own_verb and phrase.among is not None and draft.verb is None  # "two cones, one of them topples"
        if phrase.kind == "elliptic" and whole is not None and not acts and self._divides(phrase, whole):
            self._part_of(phrase, whole)
            return
        if draft.verb is None:
            if joined == "," and not draft.subjects and (draft.links or draft.direction):
                self._fronted(phrase.id)
                draft.subjects.append(phrase.id)
                self.slot = draft.subjects
                return
            again = phrase.determiner == "the" and joined == "," and own_verb
            if acts or (again and any(self.phrases[i].head == phrase.head for i in draft.subjects)):
                pass  # "a cube and a ball side by side, the ball rolls"
            elif self.slot is not None and (self.slot is draft.subjects or not own_verb or self._between(draft)):
                self.slot.append(phrase.id)
                return
        elif self.slot is not None and not own_verb and (joined == "and" or list_ahead(self.chunks, position)):
            if draft.verb.value not in ("be",) or joined == "and":
                self.slot.append(phrase.id)
                return
        elif self.slot is None and not own_verb and joined == "and" and draft.verb.value == "make":
            draft.objects.append(phrase.id)
            return
        order = self.next_order
        self._unwind()
        self.draft.order, self.next_order = order or self.draft.order, ""
        self.draft.subjects.append(phrase.id)
        self.slot = self.draft.subjects

    def _fronted(self, subject: int) -> None:
        """ "behind the cone, a cube slides": says where its subject starts, whatever it does then."""
        draft = self.draft
        for relation, phrases in draft.links:
            if relation in (*FRONTED, "between"):
                link = Link(relation=relation, phrases=tuple(phrases))
                self.clauses.append(Clause(kind="be", subjects=(subject,), links=(link,), relative=True))
        draft.links = [link for link in draft.links if link[0] not in (*FRONTED, "between")]

    def _between(self, draft: Draft) -> bool:
        return bool(draft.links) and draft.links[-1][0] == "between" and len(draft.links[-1][1]) < 2

    def _divides(self, phrase: Phrase, whole: Phrase) -> bool:
        if phrase.determiner == "the" or "one" in phrase.text.split()[1:]:
            return False
        total = whole.count or 0
        return bool(phrase.count) and whole.kind == "object" and (total >= 2 or whole.plural)

    def _part_of(self, phrase: Phrase, whole: Phrase) -> None:
        self.phrases[whole.id] = replace(whole, parts=(*whole.parts, phrase.id))

    def _after_verb(self, phrase: Phrase, position: int) -> None:
        draft = self.draft
        verb = draft.verb
        assert verb is not None
        if verb.value == "posture" and not draft.subjects:  # "on the left stands a cone"
            draft.subjects.append(phrase.id)
            self.slot = draft.subjects
        elif draft.objects or (verb.move and not verb.value):
            if draft.objects and verb_ahead(self.chunks, position + 1):
                self._unwind()
                self.draft.subjects.append(phrase.id)
                self.slot = self.draft.subjects
                return
            draft.objects.append(phrase.id)
            self.slot = draft.objects
        else:
            draft.objects.append(phrase.id)
            self.slot = draft.objects

    def _verb(self, chunk: Chunk, position: int) -> None:
        draft = self.draft
        joined, self.joined = self.joined, ""
        if draft.relative and draft.verb is not None and not joined and self.drafts and self.drafts[-1].verb is None:
            self._close_relative()  # "the cube that the ball hits is green"
            draft = self.draft
        if draft.verb is None:
            self._first_verb(chunk, position)
            return
        previous = self.chunks[position - 1].kind if position else "stop"
        if draft.verb.value == "send" and draft.objects and not joined and chunk.form == "ing":
            draft.verb.value = chunk.value  # "sending it sliding": it slides
            return
        wanted = draft.verb.value == "make" and chunk.text.startswith("to ")  # "I want the ball to roll"
        if previous == "np" and not joined and self.last is not None and (wanted or self._reducible(chunk)):
            self._reduced(chunk, self.last, keep=False)
            return
        subjects = list(draft.subjects)
        order = self.next_order
        subordinate, initial = (draft.subordinate, draft.initial) if draft.initial and not self.clauses else ("", False)
        self._close()
        self.draft.order, self.next_order = order, ""
        self.draft.subordinate, self.draft.initial = subordinate, initial
        self.draft.subjects = subjects
        self._take_verb(chunk)

    def _reducible(self, chunk: Chunk) -> bool:
        return chunk.form in ("ing", "en", "ed", "base") and not chunk.auxiliary and chunk.value != "be"

    def _first_verb(self, chunk: Chunk, position: int) -> None:
        draft = self.draft
        if chunk.text.startswith("having ") and draft.empty:  # "having hit the cube, the ball stops"
            draft.subordinate, draft.initial, chunk.form = "after", True, "ing"
        by = any(c.kind == "relation" and c.text == "by" for c in self.chunks[position + 1 : position + 4])
        reduced = (
            draft.subjects and not draft.relative and not chunk.auxiliary and chunk.form in ("ing", "en", "ed", "base")
        )
        if reduced and chunk.value and finite_ahead(self.chunks, position + 1) and (chunk.form == "ing" or by):
            self._reduced(chunk, draft.subjects[-1] if len(draft.subjects) == 1 else None, keep=True)
            return
        if draft.relative and draft.antecedent is not None:
            draft.subjects, draft.antecedent = [draft.antecedent], None
        told = chunk.form == "ing" and bool(chunk.value) and self.clauses and self.clauses[-1].kind in ("none", "event")
        if not draft.subjects and self.clauses and (told or not chunk.move) and chunk.value not in ("make", "be"):
            previous = self.clauses[-1]
            if draft.order or self.next_order or draft.subordinate or chunk.form in ("s", "ing"):
                draft.subjects = list(previous.subjects)
        draft.order = draft.order or self.next_order
        self.next_order = ""
        if len(draft.subjects) == 1 and not draft.relative:
            self._fronted(draft.subjects[0])  # "the ball in front of it rolls away": where it is, not where it goes
        self._take_verb(chunk)
        if by and chunk.form in ("ed", "en", "base"):
            chunk.passive = True

    def _reduced(self, chunk: Chunk, subject: int | None, *, keep: bool) -> None:
        """ "a cone standing on sand", "a cylinder hit by a ball spins": a relative clause without its pronoun."""
        outer = self.draft
        if subject is None:
            subject = outer.subjects[0]
        self.drafts.append(outer)
        self.draft = Draft(relative=True, subjects=[subject] if not keep else list(outer.subjects))
        made = chunk.form == "base" and outer.verb is not None and outer.verb.value == "make"  # "make it roll"
        if chunk.form in ("en", "ed", "base") and not chunk.passive and not made:
            chunk.passive = True
        self._take_verb(chunk)

    def _relative(self, chunk: Chunk, position: int) -> None:
        if self.last is None or self.draft.empty or chunk.value == "how":
            self._unwind()  # "a video where a ball falls"
            return
        if self._kind(position - 1) == "speed" and chunk.text == "that":  # "so hard that it flies away"
            self._unwind()
            self.draft.order = "then"
            return
        antecedent = self.last
        outer = self.draft
        tells_on = (
            self._kind(position - 1) == "comma" and outer.verb is not None and outer.verb.value not in ("make", "be")
        )
        if (
            tells_on and not outer.relative and not (outer.subordinate and outer.initial)
        ):  # "hits a cube, which topples": happens after it
            subjects = list(outer.subjects)
            self._unwind()
            outer = Draft(subjects=subjects, resumed=True)
        self.drafts.append(outer)
        member = [] if chunk.phrase is None else [chunk.phrase.id]  # "one of which"
        self.draft = Draft(relative=True, antecedent=None if member else antecedent, subjects=member)
        self.slot, self.preposition, self.joined = None, None, ""

    def _subordinator(self, chunk: Chunk, position: int) -> None:
        initial = (
            self.draft.empty and not self.drafts and (position == 0 or self._kind(position - 1) in ("stop", "colon"))
        )
        speed, verb = self.loose_speed, self.draft.verb
        underway = chunk.text == "when" and verb is not None and verb.form == "ing" and verb.auxiliary
        self._unwind()
        self.draft = Draft(subordinate="before" if underway else chunk.value, initial=initial)
        self.loose_speed = speed if initial else None

    def _order(self, chunk: Chunk, position: int) -> None:
        following = self._kind(position + 1)
        if chunk.value == "same":
            self.draft.order = self.draft.order or "same"
        elif (self.draft.verb is None and not self.clauses) or self.draft.empty:
            self.draft.order = chunk.value
        elif following in ("np", "verb", "speed", "adjective", "path") or chunk.text == "followed by":
            self.next_order = chunk.value
            self.joined = self.joined or ","
        else:
            self.draft.order = self.draft.order or chunk.value

    def _direction(self, chunk: Chunk, position: int) -> None:
        draft = self.draft
        if chunk.value in ("over", "back", "down") and draft.verb is not None:
            thrown = chunk.value == "over" or (chunk.value == "down" and draft.verb.value == "knock")
            if draft.verb.value in ("collide", "knock", "push") and thrown and draft.objects:
                draft.verb.value = "knock over"
                return
            if chunk.value == "over" and draft.verb.value == "fall":
                draft.verb.value = "topple"
                return
        if self._beside_too(chunk, position):
            return
        if draft.empty and chunk.text == "from left to right" and self._kind(position + 1) in ("np", "comma", "colon"):
            draft.links.append(("left_of each other", [-1]))
            return
        if draft.verb is None and draft.subjects and chunk.value in ("left", "right"):
            if self._kind(position + 1) != "verb":
                self._place(chunk, position)
            return
        sloping = any(relation in ("up", "down") for relation, _ in draft.links)  # "up a ramp and then back down"
        turns = self._kind(position - 1) == "order" and (draft.direction not in (None, chunk.value) or sloping)
        if turns and draft.verb is not None and draft.verb.value not in ("be", "make") and draft.subjects:
            verb, subjects = draft.verb, list(draft.subjects)  # "rolls left then right"
            self._unwind()
            self.draft = draft = Draft(subjects=subjects, order="then")
            self._take_verb(replace(verb, speed=None))
        weak = ("away", "back", "over", "up", "down", "out", None)
        if draft.direction in weak:
            draft.direction = (
                chunk.value if chunk.value not in ("back", "over") or draft.direction is None else draft.direction
            )

    def _beside_too(self, chunk: Chunk, position: int) -> bool:
        """ "To the left of the cube is a ball, and to the right is a cone": right of the cube."""
        following = self.chunks[position + 1] if position + 1 < len(self.chunks) else chunk
        side = {"to the left": "left_of", "to the right": "right_of"}.get(chunk.text)
        marks = [phrases for relation, phrases in self.draft.links if relation in ("left_of", "right_of")]
        stands = self.draft.verb is not None and self.draft.verb.value in ("be", "posture") and following.kind == "verb"
        if not (side and marks and stands and following.value in ("be", "posture")):
            return False
        self._unwind()
        self.draft.links.append((side, list(marks[0])))
        return True

    def _place(self, chunk: Chunk, position: int) -> None:
        target = self.last
        after = self._kind(position + 1)
        inverted = after == "verb" and self._kind(position + 2) == "np" and self._kind(position - 1) != "np"
        leads = inverted or (after == "np" and (position == 0 or self._kind(position - 1) != "np"))
        if target is not None and not leads:
            self.phrases[target] = replace(self.phrases[target], place=chunk.value)
        elif self._kind(position + 1) in ("np", "comma", "verb"):
            for later in self.chunks[position:]:
                if later.kind == "np" and later.phrase is not None:
                    self.phrases[later.phrase.id] = replace(self.phrases[later.phrase.id], place=chunk.value)
                    break

    def _relation(self, chunk: Chunk, position: int) -> None:
        if chunk.value.endswith("each other"):
            self.draft.links.append((chunk.value, [-1]))
            return
        if chunk.text == "by" and self.draft.verb is not None and self.draft.verb.passive:
            self.preposition = "agent"
            return
        self.preposition = chunk.value

    def _path(self, chunk: Chunk, position: int) -> None:
        self.preposition = f"path {chunk.value}" if chunk.value == "past" else chunk.value
        if chunk.text in ("with", "of", "for", "like", "at") and self.preposition and chunk.value != "like":
            self.preposition = chunk.text

    def _negation(self, chunk: Chunk, position: int) -> None:
        if chunk.value == "neither":
            self.draft.negated = True
            return
        if chunk.value == "except":
            self.preposition = "except"
            return
        following = self.chunks[position + 1] if position + 1 < len(self.chunks) else None
        if following is not None and following.kind == "np" and chunk.value in ("not", "no", "without"):
            self.preposition = "not"
        else:
            self.draft.negated = True

    def _speed(self, chunk: Chunk, position: int) -> None:
        following = self.chunks[position + 1] if position + 1 < len(self.chunks) else chunk
        said = self._kind(position - 1) in ("verb", "direction") and following.form == "ing"  # "tilt up fast following"
        if self.draft.verb is not None and (following.kind != "verb" or said):
            self.draft.speed = self.draft.speed or chunk.value
        else:
            self.loose_speed = chunk.value

    def _adjective(self, chunk: Chunk, position: int) -> None:
        draft = self.draft
        if draft.verb is not None and draft.verb.value == "be" and not draft.objects:
            draft.attributes.extend(chunk.attributes)
        elif self.last is not None:
            phrase = self.phrases[self.last]
            self.phrases[self.last] = replace(phrase, attributes=(*phrase.attributes, *chunk.attributes))
        else:
            self.loose.extend(chunk.attributes)
        self.joined = ""

    def _still(self, chunk: Chunk, position: int) -> None:
        draft = self.draft
        if draft.verb is None or draft.verb.value in ("be", "begin", "stop", "posture"):
            draft.verb = Chunk(kind="verb", value="stay", form="s", text=chunk.text)


def read_syntax(lexical: Lexical, *, unknown_nouns: bool = True) -> Syntax:
    """Level 2 for English."""
    chunker = Chunker(lexical.tokens, unknown_nouns=unknown_nouns)
    syntax = Assembler(chunker.read()).read()
    return replace(syntax, not_understood=(*chunker.lost, *syntax.not_understood))
