"""When things happen: what words of order say, else after what the same thing did before. Part of level 3."""

from dataclasses import dataclass, replace

from kling.prompt.graph import Event
from kling.prompt.syntactic import Syntax

_MOTIONS = ("fall", "roll", "slide", "throw", "topple", "spin", "swing")


@dataclass
class Happening:
    """An event while its time is open. ``step``: position within its own clause (0 roll, 1 hit)."""

    event: Event
    clause: int
    step: int = 0
    posture: bool = False  # "stands": stays only if nothing else happens to it
    premodified: bool = False  # "a rolling ball"
    caused: bool = False  # "drop it: it falls slowly": the same happening, told twice
    vague: bool = False  # "is pushed": says that it moves; how may come in the next clause


class Timeline:
    """Puts the events of all clauses in time."""

    def __init__(self, syntax: Syntax, happenings: list[Happening], *, compose: bool = True):
        self.syntax, self.happenings, self.compose = syntax, happenings, compose

    def events(self) -> list[Event]:
        """Give each event its order: said by words, else after what its own agent did before."""
        self._drop_postures()
        orders: dict[int, int] = {}
        base: dict[int, int] = {}
        for clause in self._sequence():
            mine = [i for i, h in enumerate(self.happenings) if h.clause == clause]
            if not mine:
                continue
            start = self._start(clause, mine, orders, base)
            base[clause] = start
            turn = self.syntax.clauses[clause].order == "turn"  # "three balls fall one after another"
            for number, i in enumerate(mine):
                orders[i] = start + (number if turn else self.happenings[i].step)
        return [replace(h.event, order=orders[i]) for i, h in enumerate(self.happenings) if i in orders]

    def _drop_postures(self) -> None:
        """ "A cone stands on the right ... and topples": standing only said where it was."""
        moving = {h.event.agent for h in self.happenings if not h.posture}
        told = {(h.event.agent, h.clause) for h in self.happenings if h.event.action in _MOTIONS}
        again = {(h.event.agent, h.clause, h.event.action) for h in self.happenings if not h.caused}
        self.happenings = [
            h
            for h in self.happenings
            if not (h.posture and h.event.agent in moving)
            and not (h.caused and (h.event.agent, h.clause + 1, h.event.action) in again and not h.event.direction)
            and not (h.vague and (h.event.agent, self._next_told(h.clause)) in told)  # "is pushed and slides left"
        ]

    def _next_told(self, clause: int) -> int:
        """The next clause in which something happens."""
        return min((h.clause for h in self.happenings if h.clause > clause), default=-1)

    def _ends(self, number: int) -> bool:
        """A rest with a time of its own: "stops", or what is told of before it ends."""
        return self.syntax.clauses[self.happenings[number].clause].verb == "stop" or self._at_first(number)

    def _at_first(self, number: int) -> bool:
        """ "a ball that has been lying still starts to roll": rest that ends, told before what ends it."""
        return self.syntax.clauses[self.happenings[number].clause].relative and not self.happenings[number].posture

    def _sequence(self) -> list[int]:
        """Clause numbers with every "after ..." clause before its main clause and every "before ..." after it."""
        sequence = list(range(len(self.syntax.clauses)))
        for number, clause in reversed(list(enumerate(self.syntax.clauses))):
            if clause.main is None or clause.subordinate not in ("after", "before"):
                continue
            sequence.remove(number)
            at = sequence.index(clause.main)
            sequence.insert(at if clause.subordinate == "after" else at + 1, number)
        return sequence

    def _start(self, number: int, mine: list[int], orders: dict[int, int], base: dict[int, int]) -> int:
        clause = self.syntax.clauses[number]
        if not self.compose:
            return 0
        for other, sub in enumerate(self.syntax.clauses):
            if sub.main == number and other in base:
                if sub.subordinate == "after":
                    return 1 + max(orders[i] for i in orders if self.happenings[i].clause == other)
                if sub.subordinate == "while":
                    return base[other]
        if clause.main is not None and clause.main in base:
            if clause.subordinate == "while":
                return base[clause.main]
            if clause.subordinate == "before":
                return 1 + max(orders[i] for i in orders if self.happenings[i].clause == clause.main)
        if clause.order == "then" and orders:
            return 1 + max(orders.values())
        agents = {self.happenings[i].event.agent for i in mine}
        if clause.order == "same" and base:
            last = max(base)
            if not agents & {h.event.agent for h in self.happenings if h.clause == last}:  # "..., then both at once"
                return base[last]
        if any(self.happenings[i].event.action == "collide" for i in mine if self.happenings[i].step == 0):
            agents |= {self.happenings[i].event.patient or "" for i in mine}
        if all(self.happenings[i].event.action == "stay" for i in mine) and clause.verb != "stop":
            return 0
        before = [
            orders[i]
            for i in orders
            if (self.happenings[i].event.action != "stay" or self._ends(i))
            and ({self.happenings[i].event.agent, self.happenings[i].event.patient} & agents)
        ]
        return max(1 + max(before, default=-1), self._beside(number, base))

    def _beside(self, number: int, base: dict[int, int]) -> int:
        """ "when the ball lands, the cube slides and the cone topples": the second is no earlier than the first."""
        clause, before = self.syntax.clauses[number], self.syntax.clauses[number - 1] if number else None
        if before is None or clause.relative or clause.subordinate or clause.opens or number - 1 not in base:
            return 0
        follows = any(sub.main == number - 1 and sub.subordinate == "after" for sub in self.syntax.clauses)
        return base[number - 1] if follows else 0


def moves_first(happenings: list[Happening]) -> None:
    """ "a rolling ball hits a cube": of what one clause tells, the rolling comes first."""
    before = {h.event.agent for h in happenings if h.premodified}
    if any(h.event.action == "collide" and h.event.agent in before and not h.step for h in happenings):
        for happening in happenings:
            happening.step += not happening.premodified


def paced(happenings: list[Happening], name: str, speed: str) -> None:
    """ "the red one is fast": said of how it moved last."""
    moved = [h for h in happenings if h.event.agent == name and h.event.action in (*_MOTIONS, "bounce")]
    for happening in moved[-1:]:
        happening.event = replace(happening.event, speed=happening.event.speed or speed)


def contradictions(events: list[Event], names: dict[str, str]) -> tuple[str, ...]:
    """Doubts: what stays still and moves at the same time."""
    moving = {(e.agent, e.order): e.action for e in events if e.action not in ("stay", "collide")}
    return tuple(
        f"{names[e.agent]} stays still and {moving[e.agent, e.order]}s at the same time"
        for e in events
        if e.action == "stay" and (e.agent, e.order) in moving
    )
