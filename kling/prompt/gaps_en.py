"""What English leaves out: the verb of "and the cone left", the noun of "a red and a blue ball". Part of level 2."""

from dataclasses import replace

from kling.prompt.draft_en import Draft, Drafts
from kling.prompt.lookahead_en import verb_ahead
from kling.prompt.syntactic import Phrase
from kling.prompt.verbs_en import Chunk


class Gaps(Drafts):
    """Fills in what was said before; the rest is kling.prompt.syntactic_en.Assembler's."""

    def _gapped(self, phrase: Phrase, joined: str, position: int) -> bool:
        """ "the red ball rolls fast and the blue one slowly", "a cube falls, followed by a ball": without its verb."""
        verb, draft = self.draft.verb, self.draft
        if verb is None or not verb.value or verb.value in ("be", "make") or not draft.subjects:
            return False
        if joined and self._detailed(phrase, position):
            return True
        next_kind = self._kind(position + 1)
        placed = self._kind(position - 2) == "place"
        contrast = {"speed": draft.speed or verb.speed, "direction": draft.direction, "place": placed}.get(next_kind)
        contrast = contrast and joined and not draft.objects and not verb_ahead(self.chunks, position + 1)
        follows = self._kind(position - 1) == "order" and self.chunks[position - 1].text == "followed by"
        if self._kind(position - 1) == "order" and not (draft.objects or draft.links):  # "..., then the blue one"
            follows |= not verb_ahead(self.chunks, position + 1)
        if not (contrast or follows):
            return False
        direction, order = draft.direction, "then" if follows else ""
        self._unwind()
        self.next_order = ""
        self.draft = Draft(subjects=[phrase.id], order=order)
        self._take_verb(replace(verb, speed=None))
        self.draft.direction = direction if next_kind == "speed" else None
        self.last = phrase.id
        return True

    def _detailed(self, phrase: Phrase, position: int) -> bool:
        """ "two cones slide apart, one to the left and the other to the right": what each of them does."""
        draft, following = self.draft, self._kind(position + 1)
        member = phrase.kind == "elliptic" or phrase.head == "other"
        group = self.details or (self.phrases[draft.subjects[0]] if len(draft.subjects) == 1 else None)
        if not member or group is None or not group.plural or following not in ("direction", "speed"):
            return False
        verb = draft.verb
        if verb is None or verb_ahead(self.chunks, position + 1):
            return False
        if phrase.kind == "elliptic":
            phrase = self.phrases[phrase.id] = replace(phrase, among=group.id, count=phrase.count or 1, head="")
        self._unwind()
        self.draft, self.details = Draft(subjects=[phrase.id], details=True), group
        self._take_verb(replace(verb, speed=None))
        self.last = phrase.id
        return True

    def _inherits_head(self, phrase: Phrase, position: int) -> bool:
        """ "a red and a blue ball": the noun comes later. "two balls, one red": it came before (parts)."""
        if phrase.kind != "elliptic" or phrase.head:
            return False
        index = position + 1
        while self._kind(index) in ("conjunction", "comma"):
            index += 1
        following = self.chunks[index].phrase if self._kind(index) == "np" else None
        if following is None or following.kind != "object" or index == position + 1:
            return False
        if not phrase.attributes or "one" in phrase.text.split():
            return False
        self.phrases[phrase.id] = replace(phrase, head=following.head, kind="object")
        return True

    def _take_verb(self, chunk: Chunk) -> None:
        draft = self.draft
        draft.verb = chunk
        draft.words.append(chunk.text)
        self.slot = None
        self.preposition = None
        if self.loose_speed:
            draft.speed, self.loose_speed = self.loose_speed, None
