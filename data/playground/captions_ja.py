"""Japanese captions: a grammar of paraphrase families over the words of words_ja.py.

Written as Japanese, not translated word by word: the topic with は once a thing is known, the newcomer with が,
counters before or after the noun, events joined by the te-form, order by まず, 次に, ～た後 and ～前に.
"""

from collections.abc import Callable

from data.playground import words_ja as ja
from data.playground.captions_en import stages, twins
from data.playground.words import Chooser
from kling.prompt.graph import CameraMove, Event, ObjectNode, Relation, SceneGraph

_FORMS = {"plain": 0, "te": 1, "past": 2}


class Speaker:
    """Says one graph: remembers what was mentioned and which words a thing got."""

    def __init__(self, graph: SceneGraph, choose: Chooser):
        self.graph, self.choose = graph, choose
        self.groups = twins(graph)
        self._group = {node.id: group for group in self.groups for node in group}
        self._phrases = {group[0].id: self._phrase(group[0]) for group in self.groups}
        self._said: set[str] = set()

    def _phrase(self, node: ObjectNode) -> tuple[str, str]:
        """(full, short): 小さな光沢のある赤いゴムのボール, 赤いボール."""
        tables = (
            (ja.SIZES, node.size),
            (ja.FINISHES, node.finish),
            (ja.COLORS, node.color),
            (ja.MATERIALS, node.material),
        )
        words = {id(table): self.choose.word(table[value]) for table, value in tables if value}
        noun = self.choose.word(ja.NOUNS[node.shape])
        return "".join([*words.values(), noun]), words.get(id(ja.COLORS), "") + noun

    def name(self, node: str, particle: str = "", known: str | None = None) -> str:
        """A noun phrase with its particle; ``known`` is the particle of a thing that was mentioned before."""
        group = self._group[node]
        full, short = self._phrases[group[0].id]
        again = group[0].id in self._said
        self._said.add(group[0].id)
        if again:
            both = f"{ja.NUMBERS[len(group)].usual[0]}の" if len(group) > 1 else ""
            return f"{both}{short if self.choose.chance(0.7) else full}{known if known is not None else particle}"
        if len(group) == 1:
            return full + particle
        number = self.choose.word(ja.NUMBERS[len(group)])
        if particle == "が" and self.choose.chance(0.5):
            return f"{full}が{number}"
        return f"{number}の{full}{particle}"

    def clause(self, event: Event, form: str = "plain") -> str:
        """赤いボールがゆっくり左へ転がる."""
        subject = self.name(event.agent, "が")
        patient = self.name(event.patient, "に") if event.patient else ""
        direction = self.choose.word(ja.DIRECTIONS[event.direction]) if event.direction else ""
        speed = self.choose.word(ja.SPEEDS[event.speed]) if event.speed else ""
        verb = self.choose.word(ja.VERBS[event.action]).split("/")[_FORMS[form]]
        middle = [speed, direction] if self.choose.chance(0.6) else [direction, speed]
        return "".join([subject, patient, *middle, verb])  # "箱に速く衝突する": 速く must not seem to describe the box

    def together(self, events: list[Event], form: str = "plain") -> str:
        """Simultaneous events: ～て、同時に～."""
        clauses = [self.clause(event, "te") for event in events[:-1]]
        joint = self.choose.one("、同時に", "、それと同時に")
        return joint.join([*clauses, self.clause(events[-1], form)])

    def relation(self, relation: Relation, form: str = "plain") -> str:
        """赤い球は青い立方体の左にある."""
        subject = self.name(relation.subject, "が", "は")
        where = self.choose.word(ja.RELATIONS[relation.kind])
        end = {"plain": "いる", "te": "いて"} if relation.kind == "on" else {"plain": "ある", "te": "あり"}
        return f"{subject}{self.name(relation.object, 'の')}{where}{end[form]}"

    def unsaid(self) -> list[str]:
        return [group[0].id for group in self.groups if group[0].id not in self._said]

    def exist(self, nodes: list[str], also: str = "") -> str:
        """赤い球と青い立方体がある."""
        names = [self.name(node) for node in nodes]
        return f"{'と'.join(names)}{also or 'が'}ある" if names else ""

    def place(self, parts: tuple[str, ...] = ("gravity", "lighting", "setting")) -> str:
        """スタジオ照明の下、芝生の上で."""
        tables = {"setting": ja.SETTINGS, "lighting": ja.LIGHTINGS, "gravity": ja.GRAVITIES}
        said = [(part, getattr(self.graph, part)) for part in parts]
        words = [self.choose.word(tables[part][value]) for part, value in said if value]
        return "".join([*map(_leading, words[:-1]), *words[-1:]])

    def camera(self, form: str = "plain", particle: str = "は") -> str:
        """カメラはゆっくり左へパンする."""
        moves = self.graph.camera
        if not moves:
            return ""
        said = [self._move(move, "te") for move in moves[:-1]] + [self._move(moves[-1], form)]
        return f"カメラ{particle}{'、'.join(said)}"

    def _move(self, move: CameraMove, form: str) -> str:
        speed = self.choose.word(ja.SPEEDS[move.speed]) if move.speed else ""
        return speed + self.choose.word(ja.CAMERA[move.kind, move.direction]).split("/")[_FORMS[form]]


def _leading(place: str) -> str:
    """A place or light with another behind it: 月面の(砂浜で), 夕日の中、(砂浜で), 夕暮れに、(砂浜で)."""
    if place.endswith(("下で", "中で")):
        return place.removesuffix("で") + "、"
    return place.removesuffix("で") + "の" if place.endswith("で") else place + "、"


def _text(*sentences: str) -> str:
    return "".join(f"{sentence}。" for sentence in sentences if sentence)


def _ordered(s: Speaker, style: str) -> str:
    """All events in one sentence; consecutive ones in this style: first, after, before."""
    groups = stages(s.graph)
    if len(groups) < 2:
        return s.together(groups[0]) if groups else ""
    awkward = groups[0] if style == "after" else groups[1]
    if style == "first" or any(event.action == "stay" for event in awkward):  # nothing is before or after stillness
        return _chain(s, groups, ["まず"])
    rest = ["最後に"] if len(groups) == 3 else ["次に"]
    if style == "after":  # Aした後、Bして、最後にC
        lead = s.together(groups[0], "past") + s.choose.one("後、", "あとで、")
        return lead + _chain(s, groups[1:], ["", *rest])
    lead = s.together(groups[1]) + "前に、"  # Bする前に、Aして、最後にC
    return lead + _chain(s, [groups[0], *groups[2:]], ["", *rest])


def _chain(s: Speaker, groups: list[list[Event]], words: list[str]) -> str:
    """まずAして、次にBして、最後にC; ``words`` are the first of those of order."""
    words = [*words, *["次に"] * (len(groups) - len(words))][: len(groups)]
    if len(groups) > 2:
        words[-1] = "最後に"
    elif words[-1] == "次に" and s.choose.chance(0.4):
        words[-1] = "それから"
    clauses = [s.together(group, "te") for group in groups[:-1]] + [s.together(groups[-1])]
    return "、".join(word + clause for word, clause in zip(words, clauses, strict=True))


def _relations(s: Speaker) -> list[str]:
    return [s.relation(relation) for relation in s.graph.relations]


def _all(s: Speaker) -> list[str]:
    return [group[0].id for group in s.groups]


def _happens(s: Speaker, style: str = "first") -> str:
    return _ordered(s, style) or s.exist(_all(s))


def _rest(s: Speaker) -> str:
    return s.exist(s.unsaid(), "も")


def _direct(s: Speaker) -> str:
    happens, place = _happens(s), s.place()
    return _text(f"{place}、{happens}" if place else happens, *_relations(s), _rest(s), s.camera())


def _exists(s: Speaker) -> str:
    """First who is there."""
    who, place = s.exist(_all(s)), s.place()
    return _text(who, *_relations(s), _ordered(s, "first"), s.camera(), _stage(s, place))


def _stage(s: Speaker, place: str) -> str:
    several = len(s.graph.events) + len(s.graph.camera) > 1
    return f"{'これらはすべて' if several else 'これは'}{place}起こる" if place else ""


def _camera_first(s: Speaker) -> str:
    camera, place = s.camera(), s.place()
    happens = _happens(s)
    return _text(camera, f"{place}、{happens}" if place else happens, *_relations(s), _rest(s))


def _as_camera(s: Speaker) -> str:
    """カメラが左へパンする中、～."""
    camera, place = s.camera(particle="が"), s.place()
    happens = _happens(s)
    lead = f"{camera}中、{happens}" if camera else happens
    return _text(lead, *_relations(s), _rest(s), _stage(s, place))


def _relations_first(s: Speaker) -> str:
    relations, place = _relations(s), s.place()
    happens = _happens(s)
    return _text(*relations, f"{place}、{happens}" if place else happens, _rest(s), s.camera())


def _after(s: Speaker) -> str:
    place, happens = s.place(), _happens(s, "after")
    return _text(f"{place}、{happens}" if place else happens, *_relations(s), s.camera(), _rest(s))


def _before(s: Speaker) -> str:
    happens, place = _happens(s, "before"), s.place()
    return _text(happens, *_relations(s), _rest(s), s.camera(), _stage(s, place))


def _video_of(s: Speaker) -> str:
    """～映像."""
    happens, place = _happens(s), s.place()
    return _text(f"{place}、{happens}映像" if place else f"{happens}映像", *_relations(s), _rest(s), s.camera())


def _counted(s: Speaker) -> str:
    total = len(s.graph.objects)
    number = ja.NUMBERS[total].usual[0] if total > 1 else "一つ"
    place = s.place()
    names = "、".join(s.name(node) for node in _all(s))
    these = "それら" if total > 1 else "それ"
    return _text(f"物体が{number}ある", f"{these}は{names}だ", *_relations(s), _ordered(s, "first"), s.camera(),
                 _stage(s, place))  # fmt: skip


def _tags(s: Speaker) -> str:
    parts = [_ordered(s, "first"), *_relations(s), *[s.name(node) for node in s.unsaid()], s.place(), s.camera()]
    return "、".join(part for part in parts if part)


def _polite(s: Speaker) -> str:
    """～様子を見せてください."""
    happens, place = _happens(s), s.place()
    lead = f"{happens}様子を見せてください"
    return _text(f"{place}、{lead}" if place else lead, *_relations(s), _rest(s), s.camera())


def _scene(s: Speaker) -> str:
    """ "登場するもの：～。動き：～。カメラ：～。"."""
    names = "、".join(s.name(node) for node in _all(s))
    lines = [("登場するもの", names), ("配置", "、".join(_relations(s))), ("動き", _ordered(s, "first")),
             ("場所", s.place().removesuffix("で").removesuffix("に")),
             ("カメラ", s.camera().removeprefix("カメラは"))]  # fmt: skip
    return "".join(f"{title}：{text}。" for title, text in lines if text)


def _wish(s: Speaker) -> str:
    happens, place = _happens(s), s.place()
    lead = f"{happens}動画を作ってほしい"
    return _text(f"{place}、{lead}" if place else lead, *_relations(s), _rest(s), s.camera())


FAMILIES: dict[str, Callable[[Speaker], str]] = {
    "direct": _direct,
    "exists": _exists,
    "camera_first": _camera_first,
    "as_camera": _as_camera,
    "relations_first": _relations_first,
    "after": _after,
    "before": _before,
    "video_of": _video_of,
    "counted": _counted,
    "tags": _tags,
    "polite": _polite,
    "scene": _scene,
    "wish": _wish,
}
RESERVED = ("scene", "wish")  # families that the training split never uses
