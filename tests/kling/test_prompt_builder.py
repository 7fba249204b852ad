"""The prompt builder: every field arrives, missing ones leave no hole, and a graph survives being said."""

import re
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.prompt import understand
from kling.prompt.builder import PromptFields, build, from_graph, plural
from kling.prompt.builder_ja import build_ja, from_graph_ja
from kling.prompt.graph import (
    ACTIONS,
    CAMERA_MOVES,
    COLORS,
    FINISHES,
    GRAVITIES,
    LIGHTINGS,
    MATERIALS,
    RELATIONS,
    SETTINGS,
    SHAPES,
    SIZES,
    SPEEDS,
    CameraMove,
    Event,
    ObjectNode,
    Relation,
    SceneGraph,
)

FULL = PromptFields(
    environment="a snowy field",
    atmosphere="calm and dreamy",
    time="dusk",
    weather="light rain",
    subject="a red ball",
    position="next to a blue cube",
    scale="life-size",
    action="rolls to the left",
    timing="in the first second",
    angle="low",
    movement="zooms in slowly",
    focus="on the ball",
    depth_of_field="shallow",
    style="watercolor",
    lighting="soft",
    grade="teal and orange",
)
FULL_JA = PromptFields(
    environment="雪原で",
    atmosphere="静かで夢のよう",
    time="夕暮れに",
    weather="小雨の中",
    subject="赤いボール",
    position="青い立方体の隣",
    scale="実物大",
    action="左へ転がる",
    timing="最初の一秒に",
    angle="ローアングル",
    movement="ゆっくりズームインする",
    focus="その表面",
    depth_of_field="浅い",
    style="水彩画風",
    lighting="柔らかい光",
    grade="青緑とオレンジ",
)
NAMES = [f.name for f in fields(PromptFields) if f.name != "negative"]
_HOLES = re.compile(
    r"(,\s*[,.])|(\.\s*\.)|(\s[,.])|(\s\s)|(^\W)|(\b(in|on|at|with|of|the|a|an|and|camera|focus)\s*[.,])|([^.]$)", re.I
)


def test_the_fields_of_the_specification():
    assert len(NAMES) == 16


def test_all_fields():
    prompt = build(FULL).prompt
    assert prompt.startswith("A red ball, life-size, rolls to the left next to a blue cube in the first second")
    for name in NAMES:
        assert getattr(FULL, name) in prompt.replace("Calm", "calm") or getattr(FULL, name).capitalize() in prompt, name


@settings(max_examples=200, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_every_subset_is_whole(kept):
    parts = PromptFields(**{name: getattr(FULL, name) for name in kept})
    prompt = build(parts).prompt
    assert not _HOLES.search(prompt), prompt
    for name in kept:
        assert getattr(FULL, name).lower() in prompt.lower(), (name, prompt)
    for name in set(NAMES) - kept:
        missing = getattr(FULL, name).lower()
        assert missing not in prompt.lower() or any(missing in getattr(FULL, k).lower() for k in kept), (name, prompt)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=40), min_size=1))
def test_any_words_in_any_field(values):
    """Free text reaches the prompt, whatever it is; blank fields leave nothing."""
    prompt = build(PromptFields(**values)).prompt
    for value in values.values():
        words = " ".join(value.split()).strip(" ,.;:!?-")
        assert words.lower() in prompt.lower() or words.upper() in prompt.upper()
    if not any(value.strip(" ,.;:!?-\n\t") for value in values.values()):
        assert prompt == "" or not re.search(r"[A-Za-z]", prompt)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_every_japanese_subset_is_whole(kept):
    prompt = build_ja(PromptFields(**{name: getattr(FULL_JA, name) for name in kept})).prompt
    assert prompt.endswith("。") and not re.search(r"^[、。]|[、。（][、。）]|は。|の。|、[がでに]", prompt), prompt
    for name in NAMES:
        assert (getattr(FULL_JA, name) in prompt) == (name in kept), (name, prompt)


def test_a_japanese_prompt():
    built = build_ja(replace(FULL_JA, negative=("ぼけ", " 文字。", "ぼけ", "", "水彩画風")))
    assert built.prompt.startswith(
        "夕暮れに、小雨の中、雪原で、青い立方体の隣で赤いボール（実物大）が最初の一秒に左へ転がる。"
    )
    assert built.negative_prompt == "ぼけ、文字"
    graph = understand(built.prompt).graph
    assert {node.phrase for node in graph.objects} == {"red ball", "blue cube"}
    assert graph.setting == "snow" and graph.lighting == "dusk" and graph.style == "watercolor"
    assert [(e.action, e.direction) for e in graph.events] == [("roll", "left")]
    assert [(m.kind, m.direction, m.speed) for m in graph.camera] == [("zoom", "in", "slow")]
    assert build_ja(PromptFields()).prompt == ""


@pytest.mark.parametrize("text", ["二番目の赤いボールが落ちる", "2つ目の赤いボールが落ちる"])
def test_japanese_ordinals_tell_twins_apart(text):
    graph = understand(f"三つの赤いボールがある。一番目の赤いボールは転がる。{text}。").graph
    assert len(graph.objects) == 3
    assert [(e.agent, e.action) for e in graph.events] == [("o1", "roll"), ("o2", "fall")]


def test_things_of_one_japanese_list_are_different_things():
    graph = understand("大きな赤いボールと赤いボールがある。").graph
    assert [node.phrase for node in graph.objects] == ["large red ball", "red ball"]


def test_no_field_no_prompt():
    assert build(PromptFields()).prompt == "" and build(PromptFields()).negative_prompt == ""


def test_negative_prompt():
    built = build(replace(FULL, negative=("blur", " text. ", "blur", "", "Watercolor")))
    assert built.negative_prompt == "blur, text"  # once each, and never what the prompt itself asks for
    assert "blur" not in built.prompt


def test_what_is_built_is_understood():
    graph = understand(build(FULL).prompt).graph
    assert [node.phrase for node in graph.objects] == ["red ball", "blue cube"]
    assert graph.setting == "snow" and graph.lighting == "dusk" and graph.style == "watercolor"
    assert [(e.action, e.direction) for e in graph.events] == [("roll", "left")]
    assert [(m.kind, m.direction, m.speed) for m in graph.camera] == [("zoom", "in", "slow")]


@pytest.mark.parametrize(
    ("word", "expected"), [("red ball", "red balls"), ("box", "boxes"), ("baby", "babies"), ("toy", "toys")]
)
def test_plural(word, expected):
    assert plural(word) == expected


# --- graphs that survive being said ------------------------------------------------------------------------------

_DIRECTIONS = {
    "roll": ("left", "right", "toward", "away", "down"),
    "slide": ("left", "right", "toward", "away", "down"),
    "throw": ("left", "right", "toward", "away", "up"),
    "bounce": ("left", "right", "toward"),
    "topple": ("left", "right"),
}
_NOUNS = ("dog", "car", "apple", "tennis ball", "elephant", "box")


def _maybe(values):
    return st.none() | st.sampled_from(values)


@st.composite
def graphs(draw) -> SceneGraph:
    """Any scene the vocabulary can say: twins, chains of events, relations, several camera moves at once."""
    looks = draw(
        st.lists(
            st.builds(
                ObjectNode,
                id=st.just(""),
                shape=st.sampled_from((*SHAPES, *_NOUNS[:-1])),
                color=_maybe(COLORS),
                size=_maybe(SIZES),
                material=_maybe(MATERIALS),
                finish=_maybe(FINISHES),
            ),
            min_size=1,
            max_size=5,
        )
    )
    chosen = draw(st.lists(st.sampled_from(looks), min_size=1, max_size=8))
    objects = tuple(replace(look, id=f"o{i + 1}") for i, look in enumerate(chosen))
    ids = [node.id for node in objects]
    relations, events, order, busy = [], [], 0, set()
    if len(ids) > 1:
        for _ in range(draw(st.integers(0, 3))):
            one, other = draw(st.permutations(ids))[:2]
            relations.append(Relation(kind=draw(st.sampled_from(RELATIONS)), subject=one, object=other))
    for _ in range(draw(st.integers(0, 5))):
        action = draw(st.sampled_from(ACTIONS if len(ids) > 1 else [a for a in ACTIONS if a != "collide"]))
        agent = draw(st.sampled_from(ids))
        if draw(st.booleans()) or agent in busy:
            order, busy = order + 1, set()
        busy.add(agent)
        others = [name for name in ids if name != agent]
        events.append(
            Event(
                action=action,
                agent=agent,
                patient=draw(st.sampled_from(others)) if action == "collide" else None,
                direction=draw(_maybe(_DIRECTIONS[action])) if action in _DIRECTIONS else None,
                speed=draw(_maybe(SPEEDS)) if action != "stay" else None,
                order=order,
            )
        )
    kinds = draw(st.lists(st.sampled_from([k for k in CAMERA_MOVES if k != "static"]), unique=True, max_size=3))
    moves = [
        CameraMove(kind=kind, direction=draw(st.sampled_from(CAMERA_MOVES[kind])), speed=draw(_maybe(SPEEDS)))
        for kind in kinds
    ]
    return SceneGraph(
        objects=objects,
        relations=tuple(dict.fromkeys(relations)),
        events=tuple(events),
        camera=tuple(moves) or draw(st.sampled_from([(), (CameraMove(kind="static"),)])),
        setting=draw(_maybe(SETTINGS)),
        lighting=draw(_maybe(LIGHTINGS)),
        gravity=draw(_maybe(GRAVITIES)),
        style=draw(_maybe(("watercolor", "film noir", "cinematic", "black and white", "low poly", "anime"))),
    )


@pytest.mark.parametrize(("build", "from_graph"), [(build, from_graph), (build_ja, from_graph_ja)], ids=["en", "ja"])
@settings(max_examples=100, deadline=None)
@given(graph=graphs())
def test_a_graph_survives_being_said(build, from_graph, graph):
    prompt = build(from_graph(graph)).prompt
    understood = understand(prompt)
    assert understood.graph.matches(graph), f"{prompt}\n{understood.graph}"
    assert not understood.not_understood, (prompt, understood.not_understood)
