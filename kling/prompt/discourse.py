"""Who is meant: noun phrases, pronouns and "the other one" resolved to objects. The first half of level 3."""

from dataclasses import dataclass, field, replace

from kling.prompt.graph import SHAPES, ObjectNode, Relation
from kling.prompt.places import standing
from kling.prompt.syntactic import Attribute, Clause, Phrase, Syntax

MAX_OBJECTS = 8
PEOPLE = ("boy", "girl", "child", "kid", "man", "woman", "adult", "dancer", "athlete", "astronaut", "worker", "chef",
          "teacher", "student")  # fmt: skip


@dataclass
class Thing:
    """An object while the text is being read; later words may still add to it."""

    id: str
    shape: str
    attributes: dict[str, str] = field(default_factory=dict)
    group: int | None = None  # the plural phrase that introduced it: "the red one" may be one of these
    place: str | None = None
    speed: str | None = None
    known: bool = True
    label: str = ""  # "ball A"
    guessed: bool = False  # "the large one": its shape is that of the thing spoken of before

    def node(self) -> ObjectNode:
        return ObjectNode(id=self.id, shape=self.shape, **self.attributes)

    def fits(self, shape: str, attributes: dict[str, str]) -> bool:
        """Nothing said of it speaks against this description."""
        if shape and self.shape and shape != self.shape and not self.guessed:
            return False
        return all(self.attributes.get(name, value) == value for name, value in attributes.items())

    def shows(self, attributes: dict[str, str]) -> bool:
        return all(self.attributes.get(name) == value for name, value in attributes.items())


class Discourse:
    """Objects in order of mention. ``resolve`` turns a phrase into ids; ``doubts`` collects guesses."""

    def __init__(self, syntax: Syntax, *, anaphora: bool = True, free_nouns: bool = True):
        self.phrases = {phrase.id: phrase for phrase in syntax.phrases}
        self.divisions = {part for phrase in syntax.phrases for part in phrase.parts}
        self.anaphora, self.free_nouns = anaphora, free_nouns
        self.things: dict[str, Thing] = {}
        self.seen: dict[int, list[str]] = {}
        self.doubts: list[str] = []
        self.lost: list[str] = []
        self.recent: list[str] = []  # most recently mentioned last
        self.last_group: list[str] = []
        self.relations: list[Relation] = []  # what the text said so far of where things stand

    def resolve(self, number: int, *, avoid: tuple[str, ...] = (), prefer: tuple[str, ...] = ()) -> list[str]:
        """Ids of what the phrase means. ``avoid``: "it" is not the subject itself; ``prefer``: it is rather this."""
        if number in self.seen:
            return self.seen[number]
        phrase = self.phrases[number]
        avoid = (*avoid, *(name for other in phrase.beside for name in self.seen.get(other, ())))
        if phrase.kind in ("camera", "somebody"):
            found: list[str] = []
        elif phrase.among is not None:
            found = self._chosen(phrase)
        elif phrase.kind == "pronoun":
            found = self._pronoun(phrase, avoid, prefer)
        else:
            found = self._described(phrase, avoid)
        self.seen[number] = found
        for name in found:
            if name in self.recent:
                self.recent.remove(name)
            self.recent.append(name)
        if len(found) > 1 and not set(found) < set(self.last_group):
            self.last_group = found
        return found

    def forget(self, name: str, other: str) -> None:
        """``name`` turned out to be ``other``."""
        self.seen = {k: [other if n == name else n for n in v] for k, v in self.seen.items()}
        self.recent = [n for n in self.recent if n != name]

    def _pronoun(self, phrase: Phrase, avoid: tuple[str, ...], prefer: tuple[str, ...]) -> list[str]:
        if not self.anaphora:
            return []
        if phrase.head == "it":
            options = [name for name in (*prefer, *reversed(self.recent)) if name not in avoid]
            things = [name for name in options if self.things[name].shape not in PEOPLE]
            return self._whole((things or options)[:1], avoid)
        if phrase.head in ("both", "they"):
            group = self.last_group if len(self.last_group) > 1 else list(self.things)
            return list(group[-2:] if phrase.head == "both" and len(group) > 2 else group)
        if phrase.head == "everything":
            return [name for name in self.things if name not in avoid]
        if phrase.head == "other":
            return self._other(phrase, {})
        if phrase.head == "others":
            return self._rest(phrase, {}, avoid)
        return []

    def _whole(self, names: list[str], avoid: tuple[str, ...]) -> list[str]:
        """ "a stack of cubes ... knocks it over": "it" is the stack, unless one of it was spoken of by itself."""
        if names in self.seen.values():
            return names
        stacks = (self.seen.get(phrase.id, []) for phrase in self.phrases.values() if phrase.chain)
        whole = next((stack for stack in stacks if set(names) & set(stack)), names)
        return names if set(whole) & set(avoid) else whole

    def _rest(self, phrase: Phrase, attributes: dict[str, str], avoid: tuple[str, ...]) -> list[str]:
        """ "the others", "the other two cubes": what fits but was not spoken of by itself."""
        group = self.last_group if phrase.kind == "pronoun" and len(self.last_group) > 1 else list(self.things)
        alone = {names[0] for names in self.seen.values() if len(names) == 1 and names[0] in group}
        shape = "" if phrase.kind == "pronoun" else phrase.head
        group = [n for n in group if n not in avoid and self.things[n].fits(shape, attributes)]
        rest = [n for n in group if n not in alone] or [n for n in group if n not in self.recent[-1:]]
        return rest[: phrase.count] if phrase.count else rest if phrase.plural or phrase.kind == "pronoun" else rest[:1]

    def _other(self, phrase: Phrase, attributes: dict[str, str]) -> list[str]:
        """The one not spoken of last, among the last group; a new one when there is none ("one ..., the other ...")."""
        last = self.recent[-1] if self.recent else None
        group = [n for n in self.things if last and self.things[n].group == self.things[last].group and n != last]
        if last and self.things[last].group is not None and group:
            return group[:1]
        alike = [n for n in self.things if last and n != last and self.things[n].shape == self.things[last].shape]
        if len(alike) == 1:  # "a red ball and a blue ball. The red one falls, the other one stays."
            return alike
        if last:
            return [self._new(replace(phrase, kind="object", head=self.things[last].shape), attributes).id]
        return []

    def _described(self, phrase: Phrase, avoid: tuple[str, ...]) -> list[str]:
        attributes = self._attributes(phrase)
        shape = phrase.head
        if not self.free_nouns and shape and shape not in SHAPES:
            self.lost.append(phrase.text)
            return []
        if phrase.count == 0:
            return []
        if phrase.ordinal and self.anaphora:
            among = self.last_group if not shape and len(self.last_group) > 1 else list(self.things)
            fitting = [n for n in among if self.things[n].fits(shape, {}) and self.things[n].shows(attributes)]
            index = phrase.ordinal - 1 if phrase.ordinal > 0 else -1
            if fitting and index < len(fitting):
                return [fitting[index]]
        if phrase.other and self.anaphora and self.things:
            found = self._rest(phrase, attributes, avoid)
            return found or self._introduce(
                replace(phrase, plural=phrase.plural or not phrase.count), shape, attributes
            )
        if phrase.label:  # "ball A"
            found = [n for n, thing in self.things.items() if thing.label == phrase.label and thing.fits(shape, {})]
            return found or self._introduce(phrase, shape, attributes)
        if phrase.determiner != "a" and self.anaphora:
            found = self._mentioned(phrase, shape, attributes, avoid)
            if found:
                return self._completed(phrase, shape, attributes, found)
        if not shape and phrase.kind == "elliptic" and phrase.place and not phrase.plural and self.recent:
            return self._introduce(phrase, shape, attributes)  # "a cube on the left, the one on the right"
        if (
            not shape and phrase.kind == "elliptic" and not attributes
        ):  # "seven objects": the list that follows says which
            fewer = phrase.count and phrase.count < len(self.last_group) and self.anaphora
            return self._members(self.last_group, phrase.count or 0, {}) if fewer else []
        return self._introduce(phrase, shape, attributes)

    def _completed(self, phrase: Phrase, shape: str, attributes: dict[str, str], found: list[str]) -> list[str]:
        """ "hits the first domino, all five dominoes topple": those not named yet belong to it, too."""
        missing = (phrase.count or 0) - len(found)
        if phrase.determiner != "all" or missing <= 0:
            return found
        more = self._introduce(replace(phrase, count=missing), shape, attributes)
        for name in found:
            self.things[name].group = phrase.id
        return [*found, *more]

    def _chosen(self, phrase: Phrase) -> list[str]:
        """ "one of them", "the small one of two balls": members of the group, those not spoken of yet first."""
        attributes = self._attributes(phrase)
        group = self.resolve(phrase.among if phrase.among is not None else -1)
        chosen = self._members(group, len(group) if phrase.determiner == "all" else phrase.count or 1, attributes)
        for name in chosen:
            self.things[name].attributes.update(attributes)
        return chosen

    def _members(self, group: list[str], count: int, attributes: dict[str, str]) -> list[str]:
        """So many of a group that fit: what shows the attributes first, then what nobody spoke of by itself."""
        apart = [names for names in self.seen.values() if set(names) < set(group)]
        spoken = {name for names in apart for name in names}
        fitting = [name for name in group if self.things[name].fits("", attributes)]
        fitting.sort(key=lambda name: (not self.things[name].shows(attributes), name in spoken))
        return fitting[:count]

    def _attributes(self, phrase: Phrase) -> dict[str, str]:
        attributes: dict[str, str] = {}
        for name, value in phrase.attributes:
            if attributes.get(name, value) != value and not (phrase.plural and name == "color"):
                self.doubts.append(f'"{phrase.text}" is both {attributes[name]} and {value}: took {attributes[name]}')
            attributes.setdefault(name, value)
        return attributes

    def _mentioned(self, phrase: Phrase, shape: str, attributes: dict[str, str], avoid: tuple[str, ...]) -> list[str]:
        """Objects already spoken of that this phrase can mean."""
        if phrase.count and phrase.count > 1 and phrase.determiner != "the":
            known = [n for n, thing in self.things.items() if thing.fits(shape, {}) and thing.shows(attributes)]
            known = [n for n in known if n not in avoid]
            if phrase.determiner == "all" and len(known) <= phrase.count:
                return known
            return known if phrase.determiner == "maybe" and len(known) == phrase.count else []
        if phrase.count == 1 and phrase.determiner != "the" and not (phrase.kind == "elliptic" and attributes):
            return []
        options = [n for n in reversed(self.recent) if n not in avoid and self.things[n].fits(shape, attributes)]
        if phrase.place:  # "the right ball" is not the one on the left
            options = [n for n in options if self.things[n].place in (None, phrase.place)]
            options = standing(options, phrase.place, self.relations) or self._in_row(options, phrase) or options
        exact = [n for n in options if self.things[n].shows(attributes)]
        if phrase.plural and phrase.determiner:
            chosen = exact if exact else options
            return list(reversed(chosen))
        if exact and phrase.determiner == "maybe" and not (phrase.count or phrase.place):  # 球が二つ。球は青い。
            group = self.things[exact[0]].group
            return [
                n for n in self.things if n in exact and group is not None and self.things[n].group == group
            ] or exact[:1]
        if exact and (phrase.determiner or attributes or shape):
            return exact[:1]
        # "the red one" of "two cones": the description adds to what was said
        for name in options:
            thing = self.things[name]
            if phrase.determiner and (thing.group is not None or not phrase.head or not thing.shape):
                thing.attributes.update(attributes)
                thing.shape = thing.shape or shape
                if thing.group is not None:
                    self.recent = [n for n in self.recent if n != name] + [name]
                return [name]
        return []

    def _in_row(self, options: list[str], phrase: Phrase) -> list[str]:
        """ "three pins stand in a row, the middle one falls": a group stands as it is counted, from the left."""
        row = [name for name in self.things if name in options]
        groups = {self.things[name].group for name in row}
        if len(row) < 2 or None in groups or len(groups) > 1 or phrase.plural:
            return []
        at = {"left": 0, "middle": len(row) // 2, "right": -1}.get(phrase.place or "")
        return [] if at is None or (phrase.place == "middle" and len(row) % 2 == 0) else [row[at]]

    def _introduce(self, phrase: Phrase, shape: str, attributes: dict[str, str]) -> list[str]:
        if phrase.parts:
            return self._introduce_parts(phrase, shape, attributes)
        nameless = not shape and phrase.kind == "elliptic" and not phrase.label
        guessed = nameless and bool(self.recent) and self.anaphora
        if guessed:
            shape = self.things[self.recent[-1]].shape
        kind = phrase.alternatives[0][0] if phrase.alternatives else "color"  # what tells them apart
        options = [value for name, value in (*phrase.attributes, *phrase.alternatives) if name == kind]
        count = phrase.count or (len(options) if phrase.plural and len(options) > 1 else 2 if phrase.plural else 1)
        if phrase.vague or (phrase.plural and not phrase.count and len(options) < 2):
            self.doubts.append(f'"{phrase.text}" does not say how many: took {count}')
        if phrase.alternatives and not phrase.plural:
            others = ", ".join(value for _, value in phrase.alternatives)
            self.doubts.append(f'"{phrase.text}" contradicts itself ({others}): took the first')
        group = phrase.id if count > 1 else None
        found = []
        for i in range(self._room(count, phrase.text)):
            own = dict(attributes)
            if phrase.plural and len(options) > 1:
                own[kind] = options[i * len(options) // count]
            thing = self._new(phrase, own, shape=shape, group=group)
            thing.guessed = guessed
            found.append(thing.id)
        return found

    def _introduce_parts(self, phrase: Phrase, shape: str, attributes: dict[str, str]) -> list[str]:
        """ "six small cubes, three red and three blue"."""
        found: list[str] = []
        for number in phrase.parts:
            part = self.phrases[number]
            own = {**attributes, **self._attributes(part)}
            ids = [
                self._new(replace(phrase, place=part.place), own, shape=shape, group=phrase.id).id
                for _ in range(self._room(part.count or 1, phrase.text))
            ]
            self.seen[number] = ids
            found.extend(ids)
        missing = (phrase.count or 0) - len(found)
        if missing > 0:
            found.extend(
                self._new(phrase, dict(attributes), shape=shape, group=phrase.id).id
                for _ in range(self._room(missing, phrase.text))
            )
        return found

    def _room(self, count: int, text: str) -> int:
        room = MAX_OBJECTS - len(self.things)
        if count > room:
            self.doubts.append(f'"{text}" is more than the {MAX_OBJECTS} objects a scene can hold: took {room}')
        return max(0, min(count, room))

    def _new(
        self, phrase: Phrase, attributes: dict[str, str], *, shape: str | None = None, group: int | None = None
    ) -> Thing:
        name = f"o{len(self.things) + 1}"
        thing = Thing(
            id=name,
            shape=phrase.head if shape is None else shape,
            attributes=attributes,
            group=group,
            place=phrase.place,
            speed=phrase.speed,
            known=phrase.known,
            label=phrase.label,
        )
        self.things[name] = thing
        if not phrase.known:
            self.doubts.append(f'nothing is known of "{phrase.head}": taken as a thing of everyday size')
        return thing

    def describe(self, names: list[str], attributes: tuple[Attribute, ...], clause: Clause) -> None:
        """ "is red": adds to what the subject is; a contradiction is a doubt."""
        colors = [value for kind, value in attributes if kind == "color"]
        if len(colors) == len(names) > 1:  # "the balls are red and blue"
            for name, color in zip(names, colors, strict=True):
                self.things[name].attributes.setdefault("color", color)
            attributes = tuple((kind, value) for kind, value in attributes if kind != "color")
        for name in names:
            thing = self.things[name]
            for kind, value in attributes:
                if thing.attributes.get(kind, value) != value:
                    self.doubts.append(
                        f'"{clause.text}": {thing.node().phrase} is not {value}; kept what was said first'
                    )
                thing.attributes.setdefault(kind, value)
