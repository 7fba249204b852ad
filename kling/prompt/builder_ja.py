"""The prompt builder in Japanese: the same sixteen fields, Japanese words in them.

    build_ja(PromptFields(subject="赤いボール", action="左へ転がる", time="夕暮れ")).prompt
    -> "夕暮れ、赤いボールが左へ転がる。"

``from_graph_ja`` fills the fields from a scene graph, so that reading the built prompt gives that graph again.
"""

import re
from dataclasses import fields

from kling.prompt.builder import BuiltPrompt, PromptFields, groups, ordinals
from kling.prompt.graph import CameraMove, Event, ObjectNode, Relation, SceneGraph
from kling.prompt.lexicon_ja import WORDS
from kling.prompt.nouns_ja import NOUNS_JA

_ENDS = " 　、,。.：:；;！!？?・-\n\t"


def build_ja(parts: PromptFields) -> BuiltPrompt:
    """One prompt from whatever fields are there: scene, camera, look."""
    clean = {f.name: _clean(getattr(parts, f.name)) for f in fields(parts) if f.name != "negative"}
    titled = (
        ("focus", "焦点は"),
        ("depth_of_field", "被写界深度は"),
        ("atmosphere", "雰囲気は"),
        ("lighting", "照明は"),
        ("style", "スタイルは"),
        ("grade", "色調は"),
    )
    sentences = [*_scene(clean), clean["angle"], _camera(clean["movement"])]
    sentences += [f"{title}{clean[name]}" for name, title in titled if clean[name]]
    negative = dict.fromkeys(_clean(term) for term in parts.negative)
    wanted = set(clean.values())
    return BuiltPrompt(
        prompt="".join(f"{sentence}。" for sentence in sentences if sentence),
        negative_prompt="、".join(term for term in negative if term and term not in wanted),
    )


def _clean(value: str) -> str:
    return " ".join(value.split()).strip(_ENDS)


def _is_sentence(value: str) -> bool:
    """Whether it says itself what it is about: ボールが転がる. Not every が is the particle: 転がる."""
    return re.search("が(?![るりっれろら])|.は(?![ねずじし])", value) is not None


def _scene(clean: dict[str, str]) -> list[str]:
    """When, where, who does what: one sentence, or several when fields are sentences themselves."""
    subject, position, action = clean["subject"], clean["position"], clean["action"]
    told = [position] if _is_sentence(position) else []
    told += [clean["timing"] + action] if _is_sentence(action) else []
    scale = f"（{clean['scale']}）" if subject and clean["scale"] else clean["scale"]
    does = "" if _is_sentence(action) else action
    stands = "" if _is_sentence(position) else position
    when = "" if _is_sentence(action) else clean["timing"]
    who = subject + scale
    if who:
        who = f"{who}が" if does else f"{who}がある"
    if stands:
        who = f"{stands}で{who}" if does else f"{stands}に{who}"
    where = "、".join(part for part in (clean["time"], clean["weather"], clean["environment"]) if part)
    first = "、".join(part for part in (where, f"{who}{when}{does}") if part)
    return [first, *told]


def _camera(movement: str) -> str:
    return f"カメラは{movement}" if movement and "カメラ" not in movement else movement


# --- from a graph ----------------------------------------------------------------------------------------------

_COUNTED = ("", "", "二つの", "三つの", "四つの", "五つの", "六つの", "七つの", "八つの")
_ORDINALS = ("一番目の", "二番目の", "三番目の", "四番目の", "五番目の", "六番目の", "七番目の", "八番目の")
_LOOKS = {
    "small": "小さな", "large": "大きな", "matte": "つや消しの", "shiny": "光沢のある",
    "red": "赤い", "orange": "オレンジ色の", "yellow": "黄色い", "green": "緑色の", "cyan": "水色の", "blue": "青い",
    "purple": "紫色の", "pink": "ピンク色の", "white": "白い", "black": "黒い", "brown": "茶色の", "gray": "灰色の",
    "gold": "金色の", "silver": "銀色の",
    "rubber": "ゴムの", "wood": "木製の", "metal": "金属の", "glass": "ガラスの", "plastic": "プラスチックの",
    "stone": "石の", "paper": "紙の",
}  # fmt: skip
_NOUNS = {shape: words.split("|")[0] for shape, words in WORDS["noun"].items() if shape}
_DOES = {
    "fall": "落ちる", "bounce": "弾む", "roll": "転がる", "slide": "滑る", "throw": "投げられる", "spin": "回転する",
    "swing": "揺れる", "topple": "倒れる", "collide": "衝突する", "stay": "動かない",
}  # fmt: skip
_WHERE_TO = {"left": "左へ", "right": "右へ", "toward": "手前へ", "away": "奥へ", "up": "上へ", "down": "下へ"}
_SPEED = {"slow": "ゆっくり", "fast": "速く"}
_STANDS = {
    "left_of": "左にある", "right_of": "右にある", "in_front_of": "手前にある", "behind": "後ろにある",
    "on": "上にある", "above": "上方にある", "near": "近くにある",
}  # fmt: skip
_SETTING = {
    "grass": "芝生の上で", "sand": "砂の上で", "snow": "雪の上で", "wood": "木の床の上で", "night": "夜に",
    "studio": "スタジオで",
}  # fmt: skip
_LIGHT = {"studio": "スタジオ照明", "daylight": "日光", "dusk": "夕暮れの光"}
_GRAVITY = {"earth": "地球の重力で", "moon": "月の重力で", "mars": "火星の重力で", "zero": "無重力で"}
_CAMERA = {
    ("static", None): "動かない",
    ("dolly", None): "ドリーする", ("dolly", "in"): "前進する", ("dolly", "out"): "後退する",
    ("dolly", "left"): "左へ平行移動する", ("dolly", "right"): "右へ平行移動する",
    ("pan", "left"): "左へパンする", ("pan", "right"): "右へパンする",
    ("tilt", "up"): "上へティルトする", ("tilt", "down"): "下へティルトする",
    ("zoom", "in"): "ズームインする", ("zoom", "out"): "ズームアウトする",
    ("orbit", "left"): "左へ回り込む", ("orbit", "right"): "右へ回り込む",
    ("crane", "up"): "クレーンアップする", ("crane", "down"): "クレーンダウンする",
    ("roll", "left"): "左へロールする", ("roll", "right"): "右へロールする",
}  # fmt: skip


def from_graph_ja(graph: SceneGraph) -> PromptFields:
    """The fields that say what the graph says; ``understand(build_ja(from_graph_ja(graph)).prompt)`` finds it again.

    Twins are told apart by ordinals (二番目の赤いボール). A noun without a Japanese word stays as it is.
    """
    looks = [node.phrase for node in graph.objects]
    objects = tuple(
        sorted(graph.objects, key=lambda node: looks.index(node.phrase))
    )  # said twice, it would be the same
    names = {
        node.id: (_ORDINALS[number] if number is not None else "") + _phrase(node)
        for node, number in zip(objects, ordinals(objects), strict=True)
    }
    return PromptFields(
        subject="と".join(_COUNTED[len(group)] + _phrase(group[0]) for group in groups(objects)),
        position="。".join(_relation(relation, names) for relation in graph.relations),
        action=_story(graph.events, names),
        environment="、".join(
            part for part in (_SETTING.get(graph.setting or "", ""), _GRAVITY.get(graph.gravity or "", "")) if part
        ),
        movement=_moves(graph.camera),
        lighting=_LIGHT.get(graph.lighting or "", ""),
        style=_style(graph.style),
    )


def _phrase(node: ObjectNode) -> str:
    """小さな光沢のある赤いゴムのボール."""
    looks = (_LOOKS.get(word, word) for word in (node.size, node.finish, node.color, node.material) if word)
    other = next((word for word, noun in NOUNS_JA.items() if noun == node.shape), node.shape)
    return "".join(looks) + _NOUNS.get(node.shape, other)


def _relation(relation: Relation, names: dict[str, str]) -> str:
    return f"{names[relation.subject]}は{names[relation.object]}の{_STANDS[relation.kind]}"


def _story(events: tuple[Event, ...], names: dict[str, str]) -> str:
    """One sentence an event, in order."""
    sentences: list[str] = []
    order: int | None = None
    for event in sorted(events, key=lambda e: e.order):
        opener = "" if order is None else "同時に" if event.order == order else "次に"
        patient = f"{names[event.patient]}に" if event.patient else ""
        way = _WHERE_TO.get(event.direction or "", "")
        speed = _SPEED.get(event.speed or "", "")
        sentences.append(f"{opener}{names[event.agent]}が{speed}{way}{patient}{_DOES[event.action]}")
        order = event.order
    return "。".join(sentences)


def _moves(moves: tuple[CameraMove, ...]) -> str:
    return "。".join(
        f"カメラは{_SPEED.get(move.speed or '', '')}{_CAMERA.get((move.kind, move.direction), move.kind)}"
        for move in moves
    )


def _style(style: str | None) -> str:
    return WORDS["style"][style].split("|")[0] if style in WORDS["style"] else style or ""
