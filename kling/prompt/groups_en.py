"""Phrases that say which of several: "the smaller of two cubes", "three balls: a red one and two blue ones".

A pass over the chunks before they become clauses. Part of level 2.
"""

from dataclasses import replace

from kling.prompt.syntactic import Phrase
from kling.prompt.verbs_en import Chunk


def grouped(chunks: list[Chunk]) -> tuple[list[Chunk], list[Phrase]]:
    """The chunks with members and parts tied to their group, and the phrases that are no chunk of their own now."""
    hidden: list[Phrase] = []
    chunks = _members(_adjectives(_appositions(chunks)), hidden)
    return _parts(chunks, hidden), hidden


def _appositions(chunks: list[Chunk]) -> list[Chunk]:
    """ "The projectile, a small ball, flies": one thing, and the name that is known says what it is."""
    for i in range(len(chunks) - 4):
        name, what = chunks[i].phrase, chunks[i + 2].phrase
        kinds = [chunk.kind for chunk in chunks[i : i + 5]]
        if kinds != ["np", "comma", "np", "comma", "verb"] or name is None or what is None:
            continue
        if not name.known and not name.plural and what.kind == "object" and what.determiner == "a":
            return [*chunks[:i], chunks[i + 2], *chunks[i + 4 :]]
    return chunks


def _members(chunks: list[Chunk], hidden: list[Phrase]) -> list[Chunk]:
    """ "the red one of two balls", "one of them", "one of which": a phrase with ``among``."""
    found: list[Chunk] = []
    chunks = [moved for i in range(len(chunks)) for moved in _after_its_group(chunks, i)]
    position = 0
    while position < len(chunks):
        chunk, of, whole = (chunks[i] if i < len(chunks) else None for i in range(position, position + 3))
        member = chunk.phrase if chunk and chunk.kind == "np" else None
        if member is None or member.kind != "elliptic" or of is None or of.text != "of" or whole is None:
            found.append(chunks[position])
            position += 1
            continue
        before = next((c.phrase for c in reversed(found) if c.phrase and c.phrase.kind == "object"), None)
        pronoun = whole.kind == "relative" or (whole.phrase is not None and whole.phrase.head == "they")
        group = before if pronoun else whole.phrase
        if group is None or not (group.plural or (group.count or 0) > 1):
            found.append(chunks[position])
            position += 1
            continue
        if not pronoun:
            hidden.append(group)
        member = replace(
            member, among=group.id, count=member.count or 1, head="", text=f"{member.text} of {group.text}"
        )
        kind = "relative" if whole.kind == "relative" else "np"
        found.append(Chunk(kind=kind, value="which", phrase=member, text=member.text))
        position += 3
    return found


def _after_its_group(chunks: list[Chunk], position: int) -> list[Chunk]:
    """ "of the three cones, only the red one falls": as if it were "the red one of the three cones falls"."""

    def starts(i: int) -> bool:
        kinds = [chunk.kind for chunk in chunks[i : i + 4]]
        if i < 0 or kinds != ["path", "np", "comma", "np"] or (i and chunks[i - 1].kind != "stop"):
            return False
        group, member = chunks[i + 1].phrase, chunks[i + 3].phrase
        return chunks[i].text == "of" and bool(group and group.plural and member and member.kind == "elliptic")

    if starts(position):
        return [chunks[position + 3], chunks[position], chunks[position + 1]]
    return [] if any(starts(position - back) for back in (1, 2, 3)) else [chunks[position]]


def _parts(chunks: list[Chunk], hidden: list[Phrase]) -> list[Chunk]:
    """ "both balls, a red and a green one, bounce": a list that adds up to the group before it divides it."""
    found = list(chunks)
    for chunk in chunks:
        whole = chunk.phrase
        if (
            chunk not in found
            or chunk.kind != "np"
            or whole is None
            or whole.parts
            or not whole.plural
            or (whole.count or 0) < 2
        ):
            continue
        start = _list_start(found, found.index(chunk))
        run = _run(found, start, whole) if start is not None else []
        if not run or sum(p.count or 1 for p in run) != whole.count:
            continue
        last = max(i for i, c in enumerate(found) if c.phrase in run)
        place = found.index(chunk)
        found[place] = replace(chunk, phrase=replace(whole, parts=tuple(p.id for p in run)))
        hidden.extend(run)
        closes = found[last + 1].kind if last + 1 < len(found) else "stop"
        skip = last + 2 if closes == "comma" and found[start or 0].kind == "comma" else last + 1
        del found[start:skip]
    return found


def _adjectives(chunks: list[Chunk]) -> list[Chunk]:
    """ "three balls: purple, pink and yellow", "one cube: shiny, red": adjectives after the colon belong before it."""
    found: list[Chunk] = []
    for chunk in chunks:
        whole = found[-2].phrase if len(found) > 1 and found[-1].kind == "colon" else None
        if chunk.kind != "adjective" or whole is None or whole.kind != "object" or whole.attributes:
            found.append(chunk)
            continue
        kinds = [kind for kind, _ in chunk.attributes]
        first = tuple(a for i, a in enumerate(chunk.attributes) if a[0] not in kinds[:i])
        more = tuple(a for i, a in enumerate(chunk.attributes) if a[0] in kinds[:i])
        if more and not whole.plural:
            found.append(chunk)
            continue
        found[-2:] = [replace(found[-2], phrase=replace(whole, attributes=first, alternatives=more))]
    return found


def _list_start(chunks: list[Chunk], position: int) -> int | None:
    """Where the comma or colon stands that opens the list: right after the group, or the sentence's only colon."""
    following = [chunk.kind for chunk in chunks[position + 1 : position + 3]]
    if following[:1] in (["comma"], ["colon"]) or following == ["stop", "np"]:  # also "Two cubes. One red. One blue."
        return position + 1
    for i in range(position + 1, len(chunks)):
        if chunks[i].kind in ("stop", "colon"):
            return i if chunks[i].kind == "colon" else None
    return None


def _run(chunks: list[Chunk], start: int, whole: Phrase) -> list[Phrase]:
    """The phrases of the list: indefinite, of the group's kind or of none."""
    run: list[Phrase] = []
    for chunk in chunks[start + 1 :]:
        phrase = chunk.phrase
        if chunk.kind in ("comma", "conjunction") or (chunk.kind == "stop" and chunks[start].kind == "stop"):
            continue
        if chunk.kind != "np" or phrase is None or phrase.among is not None:
            break
        named = phrase.kind == "object" and phrase.head == whole.head and chunks[start].kind == "colon"
        kin = phrase.kind == "elliptic" or named  # "three balls, a red ball and two cubes" is a longer list
        if not kin or phrase.determiner in ("the", "all") or not (phrase.attributes or phrase.place):
            break
        if sum(p.count or 1 for p in run) == whole.count:
            break
        run.append(phrase)
    return run
