"""Level 3, meaning: phrases and clauses become objects, relations, events in their order, and the camera.

    roll(1) left · hit(it, 2) · topple(which=2)  ->  o1 rolls left @0, o1 collides with o2 @1, o2 topples @2

What world knowledge has to say here comes in as a ``Knowledge`` (kling.prompt.world): "moves" is rolling for what
rolls, sliding for the rest; "on the moon" is a gravity.
"""

import itertools
from dataclasses import replace
from typing import Protocol

from kling.prompt.discourse import Discourse
from kling.prompt.graph import CAMERA_MOVES, CameraMove, Event, SceneGraph
from kling.prompt.places import DENIED, SUPPORTS, chained, facing, placed, related
from kling.prompt.setting import Places, surroundings
from kling.prompt.shots import directed, followed, settled
from kling.prompt.syntactic import Clause, Syntax
from kling.prompt.timing import Happening, Timeline, contradictions, moves_first, paced


class Knowledge(Places, Protocol):
    """What this level asks of the next one."""

    def way_of_moving(self, shape: str) -> str | None: ...
    def bumps(self, shape: str) -> bool: ...


MOTIONS = ("fall", "bounce", "roll", "slide", "throw", "spin", "swing", "topple", "stay")
_MEETS = ("collide", "knock", "knock over")
_TRAVELS = ("roll", "slide", "throw", "move", "dash", "send", "push")
_FALLS = ("fall", "topple")
_GOALS = ("behind", "below", "above", "in_front_of", "between")  # of what travels: where to, not where it is
_SIDEWAYS = {"left": "left", "right": "right", "toward": "toward", "away": "away", "up": "up", "down": "down"}


class Composer:
    """Reads clauses in text order, then puts the events in time."""

    def __init__(self, syntax: Syntax, knowledge: Knowledge | None, *, compose: bool = True):
        self.syntax, self.knowledge, self.compose = syntax, knowledge, compose
        self.people = Discourse(syntax, anaphora=compose, free_nouns=knowledge is not None)
        self.happenings: list[Happening] = []
        self.relations = self.people.relations
        self.camera: list[CameraMove] = []
        self.follows: list[tuple[list[str], str | None]] = []
        self.affected: list[str] = []  # what the last collision hit
        self.subject: list[str] = []  # of the last clause
        self.all_still = False  # "nothing moves"
        self.lost: list[str] = []
        self.index = 0

    def read(self) -> tuple[SceneGraph, tuple[str, ...]]:
        """The graph and its doubts."""
        for index, clause in enumerate(self.syntax.clauses):
            self.index = index
            self._mention_before(clause)
            self._clause(clause)
        self._unmentioned()
        self.relations += placed(self.syntax, self.people.seen)
        for phrase in self.syntax.phrases:
            self.relations += chained(phrase.chain, self.people.seen.get(phrase.id, [])) if phrase.chain else []
        self.happenings = facing(self.syntax, self.happenings, self.relations)
        if self.all_still:
            self._rest_still()
        nameless = {name for name, thing in self.people.things.items() if not thing.shape}  # "a big rolls"
        self.lost += [self.people.things[name].node().phrase for name in sorted(nameless)]
        events = [
            e
            for e in Timeline(self.syntax, self.happenings, compose=self.compose).events()
            if not nameless & {e.agent, e.patient}
        ]
        moves, doubts = settled([*self.camera, *followed(self.follows, events, self.camera)])
        self.people.doubts += doubts
        scene = surroundings(self.syntax, self.knowledge, self.people.doubts)
        things = self.people.things
        graph = SceneGraph(
            objects=tuple(thing.node() for thing in things.values() if thing.shape),
            relations=tuple(
                dict.fromkeys(
                    r for r in self.relations if r.subject != r.object and not nameless & {r.subject, r.object}
                )
            ),
            events=tuple(events),
            camera=moves,
            not_understood=(*self.people.lost, *self.lost),
            **scene,
        )
        return graph, (
            *self.people.doubts,
            *contradictions(events, {name: thing.node().phrase for name, thing in things.items()}),
        )

    def _mention_before(self, clause: Clause) -> None:
        """Objects are numbered in order of mention, though a relative clause may be closed before its main clause."""
        links = (link for c in self.syntax.clauses for link in c.links if link.relation in DENIED)
        denied = {number for link in links for number in link.phrases}
        linked = (number for link in clause.links for number in link.phrases)
        last = max((*clause.subjects, *clause.objects, *linked), default=-1)
        for phrase in self.syntax.phrases[: last + 1]:
            if phrase.kind == "object" and phrase.id not in denied:
                self.people.resolve(phrase.id)

    # --- clauses -----------------------------------------------------------------------------------------------

    def _all(self, numbers: tuple[int, ...], **hints) -> list[str]:
        found: list[str] = []
        for number in numbers:
            if number >= 0:
                found.extend(name for name in self.people.resolve(number, **hints) if name not in found)
        return found

    def _clause(self, clause: Clause) -> None:
        if clause.kind == "camera":
            self._camera_clause(clause)
            return
        before = self.syntax.clauses[self.index - 1].kind if self.index else ""
        if clause.verb in ("stay", "stop") and before == "camera" and not (clause.subjects or clause.objects):
            return  # "pan right, then hold still": the camera does
        subjects = self._all(clause.subjects, prefer=self._likely_subject(clause))
        if (
            not subjects
            and clause.kind == "event"
            and not clause.subjects
            and clause.verb != "make"
            and not clause.objects
        ):
            subjects = list(self.subject)
        self._premodified(clause.subjects)
        if len(subjects) > 1 and not set(subjects) < set(self.people.last_group):
            self.people.last_group = subjects
        avoid = tuple(subjects)
        objects = self._all(clause.objects, avoid=avoid if clause.kind == "event" else ())
        hints = {"avoid": avoid} if avoid else {"avoid": tuple(objects), "prefer": tuple(self.subject)}
        links = [
            (link.relation, self._all(link.phrases, **hints)) for link in clause.links if link.relation not in DENIED
        ]
        if any(number >= 0 and self.people.phrases[number].head == "everything" for number in clause.subjects):
            named = {name for _, names in links for name in names} | set(objects)  # "all of them roll down a hill"
            subjects = [name for name in subjects if name not in named]
        self._premodified(clause.objects + tuple(n for link in clause.links for n in link.phrases))
        excepted = {name for relation, names in links if relation == "except" for name in names}
        subjects = [name for name in subjects if name not in excepted]
        if clause.kind == "event" and not self._prevented(clause):
            self._event(clause, subjects, objects, links)
            self._exceptions(clause, links)
            moves_first([h for h in self.happenings if h.clause == self.index])
        elif clause.kind == "event":
            self.lost.append(clause.text)
        else:
            self._state(clause, subjects, objects, links)
        if not self._interrupts(clause):
            self.subject = subjects or objects or self.subject

    def _interrupts(self, clause: Clause) -> bool:
        """A relative clause that was read before the clause it stands in: its subject is not who goes on."""
        if not clause.relative or self.index + 1 >= len(self.syntax.clauses):
            return False
        outer = self.syntax.clauses[self.index + 1].subjects
        return bool(outer and clause.subjects) and min(outer) < min(clause.subjects)

    def _rest_still(self) -> None:
        """ "nothing else moves": whatever nobody said anything of stays where it is."""
        moved = {name for h in self.happenings for name in (h.event.agent, h.event.patient)}
        for name in self.people.things:
            if name not in moved:
                self._happen("stay", name, posture=True)

    def _prevented(self, clause: Clause) -> bool:
        """ "stops before touching the cube": what comes after the stop does not come."""
        main = self.syntax.clauses[clause.main] if clause.main is not None else None
        return (
            clause.subordinate == "before"
            and main is not None
            and main.verb == "stop"
            and not main.negated  # "does not stop until it hits the cube"
            and main.subjects == clause.subjects
        )

    def _exceptions(self, clause: Clause, links: list[tuple[str, list[str]]]) -> None:
        for relation, names in links:
            if relation == "except":
                self.subject = names

    def _likely_subject(self, clause: Clause) -> tuple[str, ...]:
        """ "it topples" is what was hit; any other "it" is the subject of the clause before."""
        if clause.verb in ("topple", "stay") and self.affected:
            return tuple(self.affected)
        return tuple(self.subject)

    def _premodified(self, numbers: tuple[int, ...]) -> None:
        """ "a spinning ball": the participle is an event of its own."""
        for number in numbers:
            phrase = self.people.phrases.get(number)
            if phrase is None or not phrase.actions:
                continue
            for name in self.people.seen.get(number, ()):
                for action in phrase.actions:
                    known = any(h.event.agent == name and h.event.action == action for h in self.happenings)
                    if action in MOTIONS and not known:
                        self._happen(action, name)
                        self.happenings[-1].premodified = action in _TRAVELS or action in _FALLS

    def _state(
        self, clause: Clause, subjects: list[str], objects: list[str], links: list[tuple[str, list[str]]]
    ) -> None:
        """ "is red", "is a ball", "is behind the cube", "there is a ball"."""
        if clause.kind == "be" and subjects and objects and not clause.negated:
            self._identify(subjects, objects)
            objects = []
        if clause.attributes and not clause.negated:
            self.people.describe(subjects or self.subject, clause.attributes, clause)
        for name in subjects if clause.kind == "be" and clause.speed and not clause.negated else ():
            self.people.things[name].speed = self.people.things[name].speed or clause.speed
            paced(self.happenings, name, clause.speed or "")
        where = objects if objects and (clause.kind == "make" or not subjects) else subjects
        for relation, targets in links:
            if not clause.negated:
                self._relate(relation, where, targets)

    def _identify(self, subjects: list[str], objects: list[str]) -> None:
        """ "the red one is a ball": subject and object are one."""
        things = self.people.things
        for name, other in zip(subjects, objects, strict=False):
            if name == other or not things[name].fits(things[other].shape, things[other].attributes):
                continue
            if not things[name].shape and name == list(things)[-1]:  # "object A is a red ball"
                things[other].label = things[other].label or things[name].label
                del things[name]
                self.people.forget(name, other)
                continue
            things[name].shape, things[name].guessed = things[other].shape, False
            for kind, value in things[other].attributes.items():
                things[name].attributes.setdefault(kind, value)
            if other == list(things)[-1]:
                del things[other]
            self.people.forget(other, name)

    def _relate(self, relation: str, subjects: list[str], targets: list[str]) -> None:
        self.relations += related(relation, subjects, targets)
        for name, target in itertools.product(subjects, targets) if relation == "than" else ():
            self._compare(name, target)

    def _compare(self, name: str, target: str) -> None:
        """ "is bigger than the cube": then the cube is the small one, if nothing was said of it."""
        opposite = {"large": "small", "small": "large"}.get(self.people.things[name].attributes.get("size", ""))
        if opposite:
            self.people.things[target].attributes.setdefault("size", opposite)

    # --- events ------------------------------------------------------------------------------------------------

    def _happen(self, action: str, agent: str, *, patient: str | None = None, step: int = 0, posture: bool = False,
                clause: Clause | None = None) -> None:  # fmt: skip
        direction = self._direction(action, clause) if clause and step == self._main_step(clause) else None
        speed = clause.speed if clause and step == self._main_step(clause) else None
        if clause and clause.verb == "dash" and action != "collide":
            speed = speed or "fast"
        if action not in ("stay",):
            speed = speed or (self.people.things[agent].speed if step == 0 else None)
        event = Event(action=action, agent=agent, patient=patient, direction=direction, speed=speed)
        pushed = clause is not None and (
            clause.verb in ("push", "send", "knock") or (clause.verb == "move" and clause.relative)
        )
        vague = pushed and direction is None
        caused = clause is not None and bool(clause.objects) and clause.subordinate == "after"
        vague = vague and action != "collide"
        self.happenings.append(Happening(event, self.index, step, posture, vague=vague, caused=caused))

    def _main_step(self, clause: Clause) -> int:
        """Direction and speed belong to the motion the verb names, not to what follows from it."""
        return 1 if clause.verb == "bounce" and any(link.relation == "off" for link in clause.links) else 0

    def _direction(self, action: str, clause: Clause) -> str | None:
        direction = _SIDEWAYS.get(clause.direction or "")
        relations = {link.relation for link in clause.links}
        if "down" in relations and direction is None:
            direction = "down"
        if "up" in relations and direction is None:
            direction = "up"
        if action in ("fall", "topple") and direction in ("down", "up"):
            return None
        if action in ("stay", "collide") or (action in ("spin", "swing", "bounce") and direction == "up"):
            return None
        if action in ("spin", "swing") and direction == "away":
            return None
        return direction

    def _event(
        self, clause: Clause, subjects: list[str], objects: list[str], links: list[tuple[str, list[str]]]
    ) -> None:
        verb = clause.verb
        heads = {self.people.phrases[n].head for n in clause.subjects if n >= 0}
        if "nothing" in heads and verb in ("move", *MOTIONS):
            self.all_still = True
            return
        if clause.negated:
            if verb in ("move", "push", "dash"):
                for name in subjects:
                    self._happen("stay", name)
            return
        agents = [name for relation, names in links if relation == "agent" for name in names]
        tools = [name for relation, names in links if relation == "with" for name in names]
        if objects and tools and verb in ("push", *_MEETS):  # "hits the ball with a bat"
            subjects, links = tools, [link for link in links if link[0] != "with"]
        theme = subjects
        if objects and not clause.passive and verb not in (*_MEETS, "land", "posture", "stay", "stop"):
            agents, theme = subjects, objects
        if verb in _MEETS:
            self._meet(clause, subjects, objects, links, agents)
            theme = subjects
        elif verb == "stack":
            where = [r for r, names in links if r == "on" and names]
            self.relations += [] if where else chained("on", theme)
        elif verb == "land":
            self._land(clause, subjects, objects, links)
        elif verb == "posture" or verb in ("stay", "stop"):
            for name in theme:
                moving = verb == "stop" and any(
                    h.clause == self.index and h.event.agent == name for h in self.happenings
                )
                self._happen("stay", name, posture=verb == "posture", step=int(moving), clause=clause)
        else:
            self._motion(clause, theme, links, [a for a in agents if a not in theme])
        self._locate(clause, theme, links)

    def _meet(self, clause: Clause, subjects, objects, links, agents) -> None:
        """Collisions, and what is knocked over by them."""
        if clause.passive:
            hitting, hit = agents, subjects
        else:
            targets = [
                n for relation, names in links if relation in ("into", "with", "at", "onto", "on") for n in names
            ]
            hitting, hit = subjects, [*objects, *targets]
        if not hit and len(hitting) > 1:  # "two balls collide"
            hitting, hit = hitting[:1], hitting[1:]
        if hitting and not set(hit) - set(hitting):
            self.lost.append(clause.text or clause.verb)
            self.people.doubts.append(f'"{clause.text or clause.verb}": nothing is named that could be met')
        told = {(h.event.agent, h.event.patient) for h in self.happenings if h.clause == self.index - 1}
        known = clause.verb == "knock over" and hit and all((one, other) in told for one in hitting for other in hit)
        hitting = [] if known else hitting  # "hits a cone and knocks it over": they meet once
        for one in hitting:
            for other in hit:
                if one != other:
                    self._happen("collide", one, patient=other, clause=clause)
        for other in hit:
            way = self._action("move", other) if clause.verb == "knock" and clause.direction in _SIDEWAYS else None
            if way:  # "is knocked to the right"
                self._happen_at(way, other, clause, 1 if hitting else 0)
            elif clause.verb == "knock" and any(relation == "off" for relation, _ in links):
                self._happen("fall", other, step=1 if hitting else 0)  # "knocked off the table"
                self._locate(replace(clause, verb="fall"), [other], [link for link in links if link[0] == "off"])
            elif clause.verb == "knock over":
                self._happen_at("topple", other, replace(clause, speed=None), 1 if hitting else 0)
        self.affected = [h for h in hit if h not in hitting]

    def _land(self, clause: Clause, subjects: list[str], objects: list[str], links) -> None:
        """The end of a fall already told ("falls and lands on a cube"), else a fall of its own."""
        targets = [n for relation, names in links if relation in ("into", "on", "at") for n in names]
        for name in subjects:
            told = any(h.event.agent == name and h.event.action in _FALLS for h in self.happenings)
            if not told:
                self._happen("fall", name, clause=clause)
            for target in (*objects, *targets):
                if target != name:
                    self._happen("collide", name, patient=target, step=0 if told else 1)

    def _motion(self, clause: Clause, theme: list[str], links: list[tuple[str, list[str]]], agents: list[str]) -> None:
        step = 0
        if clause.details:
            self._replace_told(theme)
        targets = [n for relation, names in links if relation in ("into", "against") for n in names]
        if clause.verb == "fall":
            targets += [n for relation, names in links if relation == "on" for n in names]
        walls = [n for relation, names in links if relation == "off" for n in names] if clause.verb == "bounce" else []
        struck = agents if clause.verb in ("topple", "push", "send") else []
        for agent in struck:
            if self._playful(agent):
                for name in theme:
                    self._happen("collide", agent, patient=name)
                step = 1
        for name in theme:
            for wall in walls:
                self._happen("collide", name, patient=wall)
            action = self._action(clause.verb, name)
            if action is None:
                self.lost.append(clause.text or clause.verb)
                continue
            at = step + (1 if walls else 0)
            if at and step:
                self._happen_at(action, name, clause, at)
            else:
                self._happen(action, name, step=at, clause=clause)
            for target in targets:
                if target != name:
                    self._happen("collide", name, patient=target, step=at + 1)
        if targets:
            self.affected = [t for t in targets if t not in theme]

    def _replace_told(self, names: list[str]) -> None:
        """ "two cones slide, one to the left ...": the group's event gives way to each member's own."""
        told = [h.clause for h in self.happenings if h.event.agent in names and h.event.action in MOTIONS]
        last = max(told, default=-1)
        self.happenings = [h for h in self.happenings if h.clause != last or h.event.agent not in names]

    def _happen_at(self, action: str, name: str, clause: Clause, step: int) -> None:
        event = Event(action=action, agent=name, direction=self._direction(action, clause), speed=clause.speed)
        vague = clause.verb in ("push", "send", "knock") and event.direction is None
        self.happenings.append(Happening(event, self.index, step, vague=vague))

    def _playful(self, name: str) -> bool:
        """It can bump into things by itself: a ball or a cart can, a boy's push is no collision of the scene."""
        return self.knowledge is not None and self.knowledge.bumps(self.people.things[name].shape)

    def _action(self, verb: str, name: str) -> str | None:
        if verb in MOTIONS:
            return verb
        if verb in ("move", "dash", "push", "send") and self.knowledge is not None:
            return self.knowledge.way_of_moving(self.people.things[name].shape)
        return None

    def _locate(self, clause: Clause, theme: list[str], links: list[tuple[str, list[str]]]) -> None:
        """Where it happens: relations of the first frame; goals and paths of a motion are none."""
        for relation, targets in links:
            if clause.verb in ("stop", *_MEETS) and not relation.endswith("each other"):
                continue
            if relation == "across" and any(self.people.things[name].shape in SUPPORTS for name in targets):
                relation = "on"
            if relation in ("toward", "path past", "across") or (clause.verb in _TRAVELS and relation in _GOALS):
                way = relation.removeprefix("path ").replace("_", " ")
                self.lost += [f"{way} {self.people.things[name].node().phrase}" for name in targets]
                continue
            if (relation == "off" and clause.verb == "bounce") or (
                relation == "on" and clause.verb in ("fall", "land")
            ):
                continue
            self._relate(relation, theme, targets)

    # --- the rest ----------------------------------------------------------------------------------------------

    def _unmentioned(self) -> None:
        """Objects of phrases that no clause uses still exist."""
        used = {n for c in self.syntax.clauses for link in c.links if link.relation in DENIED for n in link.phrases}
        for phrase in self.syntax.phrases:
            said = phrase.kind == "object" or phrase.among is not None
            if said and phrase.id not in used and phrase.id not in self.people.seen:
                self.people.resolve(phrase.id)
                self._premodified((phrase.id,))

    # --- camera ------------------------------------------------------------------------------------------------

    def _camera_clause(self, clause: Clause) -> None:
        objects = self._all((*clause.objects, *(n for link in clause.links for n in link.phrases)))
        for link in clause.links:
            for number in link.phrases:
                self._premodified((number,))
        kind, _, direction = clause.verb.partition(" ")
        said = clause.direction or ""
        if kind in ("", "stay", "be", "posture", "stop", "make"):
            if kind in ("stay", "stop") or (kind == "be" and not objects and not clause.links and clause.negated):
                self.camera.append(CameraMove(kind="static"))
            return
        if kind == "follow":
            self.follows.append((objects, clause.speed))
            return
        if kind == "spin":
            turns = said in ("clockwise", "counterclockwise")
            kind = "orbit" if clause.links or objects else "roll" if turns else "pan"
        if kind in ("move", "slide", "dash", "throw"):
            kind = {"up": "crane", "down": "crane"}.get(said, "dolly")
        if clause.negated:
            if clause.verb in ("move", "static"):
                self.camera.append(CameraMove(kind="static"))
            return
        if kind == "dolly" and not said and any(link.relation == "toward" for link in clause.links):
            said = "toward"
        if kind not in CAMERA_MOVES:
            self.lost.append(clause.text or clause.verb)
            return
        self.camera.append(directed(kind, direction, said, clause.speed))


def compose(
    syntax: Syntax, knowledge: Knowledge | None, *, compose_events: bool = True
) -> tuple[SceneGraph, tuple[str, ...]]:
    """Level 3: the scene graph and the doubts. ``knowledge`` None: level 4 is switched off."""
    return Composer(syntax, knowledge, compose=compose_events).read()
