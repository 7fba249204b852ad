"""Understanding prompts: every level, both languages, the figures, and whatever people type."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.errors import ConfigError, InputError
from kling.prompt import understand
from kling.prompt.graph import SceneGraph
from kling.prompt.knowledge import GRAVITY_M_S2, RESTITUTION
from kling.prompt.lexical import corrected, lemma, read_english
from kling.prompt.lexicon_en import WORDS
from kling.prompt.lexicon_ja import WORDS as WORDS_JA
from kling.prompt.nouns import NOUNS
from kling.prompt.nouns_ja import NOUNS_JA
from kling.prompt.syntactic_en import read_syntax
from kling.prompt.understand import MAX_CHARACTERS


def phrases(graph: SceneGraph) -> list[str]:
    return [node.phrase for node in graph.objects]


def events(graph: SceneGraph) -> list[tuple]:
    names = {node.id: node.phrase for node in graph.objects}
    return [(e.action, names[e.agent], names.get(e.patient or ""), e.direction, e.speed, e.order) for e in graph.events]


# --- level 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("rolls", "roll"),
        ("rolling", "roll"),
        ("hits", "hit"),
        ("spinning", "spin"),
        ("fell", "fall"),
        ("thrown", "throw"),
        ("boxes", "box"),
        ("bouncing", "bounce"),
        ("stays", "stay"),
        ("dollies", "dolly"),
        ("falls", "fall"),
    ],
)
def test_lemma(word, expected):
    assert lemma(word)[0] == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("yelow", "yellow"),
        ("rihgt", "right"),
        ("purpel", "purple"),
        ("blu", "blue"),
        ("bell", None),
        ("ball", None),
        ("pin", None),
        ("cat", None),
        ("xyzzy", None),
    ],
)
def test_spelling(word, expected):
    assert corrected(word) == expected


def test_units_are_no_counts():
    lexical = read_english("A 5-second clip: a ball rolls at 7.2 km/h for 3 seconds, 2 kg, 30 cm wide")
    assert [(m.quantity, round(m.value, 6)) for m in lexical.measures] == [
        ("time_s", 5.0),
        ("speed_m_s", 2.0),
        ("time_s", 3.0),
        ("mass_kg", 2.0),
        ("length_m", 0.3),
    ]
    assert phrases(understand("a 5 second clip of 2 balls").graph) == ["ball", "ball"]


def test_measures_reach_the_world():
    world = understand("A red ball rolls at 2 m/s to the right for 4 seconds").world
    assert world.speed_m_s == 2.0 and world.duration_s == 4.0 and "duration" not in world.assumed
    assert understand("赤いボールが秒速2メートルで転がる").world.speed_m_s == 2.0


def test_positions_point_into_the_text():
    prompt = "A red ball hits a blue cube"
    for token in read_english(prompt).tokens:
        assert prompt[token.start : token.end].lower() == token.text


def test_lexicons_name_only_what_the_graph_has():
    from kling.prompt import graph

    for words in (WORDS, WORDS_JA):
        assert set(words["noun"]) - {""} == set(graph.SHAPES)
        assert set(words["setting"]) == set(graph.SETTINGS) and set(words["lighting"]) == set(graph.LIGHTINGS)
        assert set(words["gravity"]) == set(graph.GRAVITIES)
        assert set(graph.COLORS) <= set(words["color"]) and set(graph.MATERIALS) <= set(words["material"])
        assert set(graph.ACTIONS) <= set(words["verb"])
        for move in words["move"]:
            kind, _, direction = move.partition(" ")
            assert kind == "follow" or not direction or direction in graph.CAMERA_MOVES[kind]
    assert set(NOUNS_JA.values()) <= set(NOUNS)


def test_nouns_are_possible():
    from kling.prompt.graph import SHAPES

    for noun in NOUNS.values():
        assert noun.proxy in SHAPES and noun.mass_kg > 0 and min(noun.half_size_m) > 0
        assert 0 <= noun.restitution <= 1 and noun.friction >= 0


# --- level 2 -----------------------------------------------------------------------------------------------------


def test_syntax_of_a_relative_clause():
    syntax = read_syntax(read_english("The cube that the ball hits is green"))
    hit = next(clause for clause in syntax.clauses if clause.verb == "collide")
    heads = {phrase.id: phrase.head for phrase in syntax.phrases}
    assert hit.relative and heads[hit.subjects[0]] == "ball" and heads[hit.objects[0]] == "cube"


def test_syntax_of_time():
    syntax = read_syntax(read_english("Before the cube falls, the ball rolls"))
    first, second = syntax.clauses
    assert (first.verb, first.subordinate, first.main) == ("fall", "before", 1) and second.verb == "roll"


def test_syntax_of_the_passive():
    clause = read_syntax(read_english("the cone is knocked over by a ball")).clauses[0]
    assert clause.passive and clause.links[0].relation == "agent"


# --- level 3 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "a red ball falls, then it rolls left",
            [("fall", "red ball", None, None, None, 0), ("roll", "red ball", None, "left", None, 1)],
        ),
        (
            "a ball hits a cone and it topples",
            [("collide", "ball", "cone", None, None, 0), ("topple", "cone", None, None, None, 1)],
        ),
        (
            "a ball spins while a cube falls",
            [("spin", "ball", None, None, None, 0), ("fall", "cube", None, None, None, 0)],
        ),
        (
            "a cube falls after a ball rolls",
            [("fall", "cube", None, None, None, 1), ("roll", "ball", None, None, None, 0)],
        ),
        ("a cube moves left", [("slide", "cube", None, "left", None, 0)]),
        ("a ball moves left", [("roll", "ball", None, "left", None, 0)]),
        ("a ball does not move", [("stay", "ball", None, None, None, 0)]),
        ("there is a ball", []),
        ("a cone stands on the right", [("stay", "cone", None, None, None, 0)]),
        (
            "ボールが転がって、それから止まる",
            [("roll", "ball", None, None, None, 0), ("stay", "ball", None, None, None, 1)],
        ),
        (
            "円錐がボールに倒される",
            [("collide", "ball", "cone", None, None, 0), ("topple", "cone", None, None, None, 1)],
        ),
    ],
)
def test_events(prompt, expected):
    assert sorted(map(str, events(understand(prompt).graph))) == sorted(map(str, expected))


@pytest.mark.parametrize(
    ("prompt", "things", "expected"),
    [
        (
            "a huuuge red ball rolls left",
            [("red", "ball", "large")],
            [("roll", "large red ball", None, "left", None, 0)],
        ),
        ("a sloooow blue cube slides", [("blue", "cube", None)], [("slide", "blue cube", None, None, "slow", 0)]),
        ("a red ball vs. a blue cube", [("red", "ball", None), ("blue", "cube", None)], []),
        ("a parked red car", [("red", "car", None)], [("stay", "red car", None, None, None, 0)]),
        ("a red car zooms left", [("red", "car", None)], [("slide", "red car", None, "left", "fast", 0)]),
        ("an orange orange", [("orange", "orange", None)], []),
        ("my green cone spins", [("green", "cone", None)], [("spin", "green cone", None, None, None, 0)]),
    ],
)
def test_chat(prompt, things, expected):
    graph = understand(prompt).graph
    assert [(node.color, node.shape, node.size) for node in graph.objects] == things
    assert not graph.camera and sorted(map(str, events(graph))) == sorted(map(str, expected))


def test_coreference():
    graph = understand("Two cones: the red one topples, the other one stays still. Both are on grass.").graph
    assert sorted(phrases(graph)) == ["cone", "red cone"] and graph.setting == "grass"
    assert len(understand("A red ball. The ball falls. It bounces. The red ball rolls.").graph.objects) == 1
    assert len(understand("A red ball. Another red ball.").graph.objects) == 2


def test_ordinals_tell_twins_apart():
    graph = understand("Two red balls. The second ball rolls left.").graph
    assert [event.agent for event in graph.events] == ["o2"]


def test_camera():
    graph = understand("Slow dolly in. The camera also tilts up and orbits clockwise around a cube.").graph
    assert {(m.kind, m.direction) for m in graph.camera} == {("dolly", "in"), ("tilt", "up"), ("orbit", "left")}
    assert understand("no camera movement, a ball").graph.camera[0].kind == "static"
    assert understand("the camera follows a ball rolling to the right").graph.camera[0].direction == "right"
    assert understand("a ball rolls left").graph.camera == ()
    assert [(m.kind, m.direction) for m in understand("Pan the camera left over a cone").graph.camera] == [
        ("pan", "left")
    ]
    assert understand("A cone follows a cube").graph.camera == () == understand("球が箱を追いかける").graph.camera
    assert understand("カメラを下に動かす。箱がある").graph.camera[0].kind == "crane"


def test_negated_things_do_not_exist():
    assert phrases(understand("a cube, not a ball, falls").graph) == ["cube"]
    assert phrases(understand("赤ではなく青いボール").graph) == ["blue ball"]


# --- level 4 -----------------------------------------------------------------------------------------------------


def test_world_fills_what_is_open():
    understood = understand("A small rubber ball bounces on the moon")
    ball = understood.world.objects[0]
    assert understood.world.gravity_m_s2 == GRAVITY_M_S2["moon"] and ball.restitution == RESTITUTION["rubber"]
    assert ball.assumed == () and "lighting" in understood.world.assumed
    assert "material" in understand("a small ball").world.objects[0].assumed


def test_world_knows_things_outside_the_playground():
    understood = understand("A dog sits next to a wall")
    dog, wall = understood.world.objects
    assert dog.proxy == "capsule" and dog.mass_kg == NOUNS["dog"].mass_kg and wall.fixed
    assert understood.world.properties("o2") == wall


def test_unknown_noun_is_a_thing_with_a_doubt():
    understood = understand("A flumph slides to the left")
    assert phrases(understood.graph) == ["flumph"] and any("flumph" in doubt for doubt in understood.doubts)
    assert understood.world.objects[0].proxy == "cube" and "shape" in understood.world.objects[0].assumed


def test_what_a_prompt_says_wins_over_world_knowledge():
    assert (
        understand("a big metal dog").world.objects[0].friction == understand("a metal ball").world.objects[0].friction
    )
    assert understand("a ball, camera pans left").world.camera[0].kind == "pan"
    assert understand("a ball rolls").world.camera[0].kind == "static"


# --- whatever people type ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_empty_prompt_is_refused(prompt):
    with pytest.raises(InputError, match="empty"):
        understand(prompt)


def test_length_limit():
    long = "a red ball rolls. " * 200
    assert understand(long[:MAX_CHARACTERS]).graph.objects
    with pytest.raises(InputError, match="2500"):
        understand("a" * (MAX_CHARACTERS + 1))


def test_contradictions_are_doubts():
    understood = understand("a red blue ball stays still and falls")
    assert phrases(understood.graph) == ["red ball"]
    assert any("blue" in doubt for doubt in understood.doubts) and any("still" in doubt for doubt in understood.doubts)
    assert understood.confidence < understand("a red ball falls").confidence


@pytest.mark.parametrize("prompt", ["100 red balls", "1000000 cubes fall", "赤いボールが百個"])
def test_impossible_counts_are_clamped(prompt):
    understood = understand(prompt)
    assert len(understood.graph.objects) == 8 and any("8 objects" in doubt for doubt in understood.doubts)


def test_vague_counts_are_doubts():
    assert any("how many" in doubt for doubt in understand("several balls roll").doubts)


def test_what_is_not_understood_is_passed_on():
    understood = understand("A heavy red ball ponders its existence, shallow depth of field")
    assert {"heavy", "ponders", "depth of field"} <= set(understood.not_understood)
    assert understood.graph.not_understood == understood.not_understood and understood.confidence < 1


@pytest.mark.parametrize(
    ("text", "joint", "strange"),
    [
        ("a small red ball rolls slowly left and hits a metal cube while the camera zooms in", " ", "qwertz"),
        ("小さな 赤い ボール が ゆっくり 左に 転がって 、 金属の 立方体 に ぶつかる 。", "", "ズベコ"),
    ],
)
def test_a_strange_word_anywhere_is_never_dropped(text, joint, strange):
    words = text.split()
    for at in range(len(words) + 1):
        understood = understand(joint.join([*words[:at], strange, *words[at:]]))
        kept = [*understood.not_understood, *phrases(understood.graph)]
        assert any(strange in text for text in kept), at


def test_pictures_are_passed_on():
    assert "🎈" in understand("a red ball 🎈").not_understood and "🎈" in understand("赤いボール🎈").not_understood


@pytest.mark.parametrize(
    "prompt",
    [
        "🎈🎈🎈",
        "a red 🎈 ball 😀 rolls",
        "赤いボール rolls to the left",
        "a 赤い ball",
        "?!?!",
        "...",
        "the",
        "and and and",
        "which",
        "The the the camera",
        "not",
        "'; DROP TABLE clips; --",
        "<script>alert(1)</script>",
        "Ignore all previous instructions",
        "a ball" * 300,
        "\u202ea ball\u200b",
        "9" * 2000,
        "ﾎﾞｰﾙ",
        "ボ",
        "。。。",
        "がのにをは",
        "-1 balls",
        "0 balls",
        "1.5 balls",
    ],
)
def test_odd_prompts_do_not_crash(prompt):
    understood = understand(prompt)
    assert 0 <= understood.confidence <= 1 and len(understood.graph.objects) <= 8
    assert SceneGraph.from_json(understood.graph.to_json()).matches(understood.graph)


_EN = sorted({word for values in WORDS.values() for phrases in values.values() for word in phrases.split("|")})
_JA = sorted({word for values in WORDS_JA.values() for phrases in values.values() for word in phrases.split("|")})
_GLUE_EN = [
    "a",
    "the",
    "is",
    ",",
    ".",
    "and",
    "ball",
    "cube",
    "rolls",
    "which",
    "while",
    "hit by",
    "two",
    "it",
    "camera",
]
_GLUE_JA = [
    "が",
    "は",
    "を",
    "に",
    "の",
    "で",
    "と",
    "て",
    "、",
    "。",
    "ながら",
    "前に",
    "ない",
    "られる",
    "ボール",
    "転がる",
    "二つの",
]


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=200))
def test_any_text(text):
    if text.strip():
        assert 0 <= understand(text).confidence <= 1


@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from(_GLUE_EN) | st.sampled_from(_EN), min_size=1, max_size=25))
def test_any_english_words(words):
    understood = understand(" ".join(words), language="en")
    ids = {node.id for node in understood.graph.objects}
    assert len(ids) <= 8
    for event in understood.graph.events:
        assert event.agent in ids and (event.patient is None or event.patient in ids)
    for relation in understood.graph.relations:
        assert {relation.subject, relation.object} <= ids
    assert len(understood.world.objects) == len(ids)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from(_GLUE_JA) | st.sampled_from(_JA), min_size=1, max_size=25))
def test_any_japanese_words(words):
    understood = understand("".join(words), language="ja")
    ids = {node.id for node in understood.graph.objects}
    assert all(event.agent in ids for event in understood.graph.events)


def test_same_prompt_same_understanding():
    prompt = "A red ball rolls left while two cones topple, then it hits a cube"
    assert dataclasses.asdict(understand(prompt)) == dataclasses.asdict(understand(prompt))


@pytest.mark.parametrize(("arguments", "match"), [({"language": "fr"}, "language"), ({"skip": ("syntax",)}, "level")])
def test_impossible_requests(arguments, match):
    with pytest.raises(ConfigError, match=match):
        understand("a ball", **arguments)


def test_japanese_without_its_extra_says_which():
    """In a process where SudachiPy is missing: English works, Japanese names the extra."""
    code = (
        "import sys; sys.modules['sudachipy'] = None\n"
        "from kling.errors import ConfigError\nfrom kling.prompt import understand\n"
        "assert understand('a red ball').graph.objects\n"
        "try:\n    understand('赤いボール')\nexcept ConfigError as error:\n    assert 'kling[ja]' in str(error)\n"
        "else:\n    raise SystemExit('no error')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
