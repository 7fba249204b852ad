"""Ground, light, gravity and style of the whole picture. Part of level 3."""

from typing import Protocol

from kling.prompt.syntactic import Syntax


class Places(Protocol):
    """What world knowledge says of places."""

    def gravity_of(self, place: str) -> str | None: ...


def surroundings(syntax: Syntax, knowledge: Places | None, doubts: list[str]) -> dict[str, str]:
    """One value a field: the ground wins over "night", the first over the second (a doubt)."""
    found: dict[str, str] = {}
    for kind, value in syntax.scene:
        if kind == "world":
            place = knowledge.gravity_of(value) if knowledge is not None else None
            kind, value = "gravity", place or ""
        if not value:
            continue
        if kind == "style" and kind in found and value not in found[kind]:
            found[kind] += f", {value}"
        elif kind == "setting" and found.get(kind) == "night":
            found[kind] = value
        elif found.get(kind, value) != value and value != "night":
            doubts.append(f"the {kind} is both {found[kind]} and {value}: took {found[kind]}")
        found.setdefault(kind, value)
    return found
