"""Turns of phrase that people use and a grammar does not: groups, left-out verbs, afterthoughts, compounds."""

import pytest

from kling.prompt import understand
from kling.prompt.graph import SceneGraph


def phrases(graph: SceneGraph) -> list[str]:
    return [node.phrase for node in graph.objects]


@pytest.mark.parametrize(
    ("prompt", "objects", "happenings"),
    [
        # members and parts of a group
        ("Two of four cones topple.", ["cone"] * 4, ["topple cone", "topple cone"]),
        ("The yellow one of two capsules falls.", ["yellow capsule", "capsule"], ["fall yellow capsule"]),
        ("Three cones: a pink one and two blue ones.", ["pink cone", "blue cone", "blue cone"], []),
        ("Four balls: one is red and three are blue.", ["red ball", "blue ball", "blue ball", "blue ball"], []),
        ("Two cubes: the first falls, the second slides left.", ["cube", "cube"], ["fall cube", "slide cube left"]),
        ("A pile of three cubes falls over.", ["cube"] * 3, ["topple cube"] * 3),
        # what follows, what is left out, what comes first
        ("A cube slides into a cone, which falls over.", ["cube", "cone"],
         ["slide cube", "collide cube", "topple cone"]),
        ("A cone topples, followed by a cube.", ["cone", "cube"], ["topple cone", "topple cube"]),
        ("The cube slides left and the cone right.", ["cube", "cone"], ["slide cube left", "slide cone right"]),
        ("Having fallen, the cube slides left.", ["cube"], ["fall cube", "slide cube left"]),
        ("While rolling, a ball hits a cone.", ["ball", "cone"], ["roll ball", "collide ball"]),
        ("A ball rolls left and then right.", ["ball"], ["roll ball left", "roll ball right"]),
        ("Roll a ball to the right.", ["ball"], ["roll ball right"]),
        ("Make a cube hit a cone, sending it sliding.", ["cube", "cone"], ["collide cube", "slide cone"]),
        ("A ball is batted to the left by a cube.", ["ball", "cube"], ["collide cube", "roll ball left"]),
        ("A cube hits a cone and knocks it over.", ["cube", "cone"], ["collide cube", "topple cone"]),
        ("A cube was sliding left when a ball hit it.", ["cube", "ball"], ["slide cube left", "collide ball"]),
        ("Neither cube moves.", ["cube", "cube"], ["stay cube", "stay cube"]),
        ("赤い球は左へ、青い箱は右へ滑る。", ["red ball", "blue cube"],
         ["slide red ball left", "slide blue cube right"]),
        ("円錐が三つあり、そのうち二つが倒れる。", ["cone"] * 3, ["topple cone"] * 2),
        ("A cone falls and lands on a cube.", ["cone", "cube"], ["fall cone", "collide cone"]),
        ("鉄球が木箱に当たる", ["metal ball", "wood cube"], ["collide metal ball"]),
        ("赤と緑の円錐が倒れる", ["red cone", "green cone"], ["topple red cone", "topple green cone"]),
        ("円柱が坂を滑り落ちる", ["cylinder", "slope"], ["slide cylinder down"]),
        ("立方体がこちらへ滑ってきて、右に倒れる", ["cube"], ["slide cube toward", "topple cube right"]),
        ("大きいほうの球が小さいほうの球に当たる", ["large ball", "small ball"], ["collide large ball"]),
        ("球が押されて、左へ転がる", ["ball"], ["roll ball left"]),
        # the rest of a group, what each of them does, what nobody does
        ("Two cubes and a cone. The cone falls, the others spin.", ["cube", "cube", "cone"],
         ["fall cone", "spin cube", "spin cube"]),
        ("Two red cones and a blue cone. The blue cone falls; the other cones spin.", ["red cone"] * 2 + ["blue cone"],
         ["fall blue cone", "spin red cone", "spin red cone"]),
        ("Two cubes slide apart, one to the left and the other to the right.", ["cube", "cube"],
         ["slide cube left", "slide cube right"]),
        ("Of the three cubes, only the red one slides.", ["red cube", "cube", "cube"], ["slide red cube"]),
        ("A cone spins. Nothing else moves. Beside it is a cube.", ["cone", "cube"], ["spin cone", "stay cube"]),
        ("None of the two cubes moves.", ["cube", "cube"], ["stay cube", "stay cube"]),
        ("Cube A hits cube B, and cube B topples.", ["cube", "cube"], ["collide cube", "topple cube"]),
        # things that do what a camera can do, too
        ("A red ball circles a cone.", ["red ball", "cone"], ["roll red ball"]),
        ("A cube falls down the stairs.", ["cube", "stairs"], ["fall cube"]),
        ("A ball falls off the edge of a table.", ["ball", "table"], ["fall ball"]),
        ("Can you show a cone toppling?", ["cone"], ["topple cone"]),
        ("A cube slows down and stops.", ["cube"], ["stay cube"]),
        ("The ball almost hits the cone.", ["ball", "cone"], []),
        ("三つの円錐のうち、青い円錐だけが倒れる", ["blue cone", "cone", "cone"], ["topple blue cone"]),
        ("球と箱が落ちるが、弾むのは球だけ", ["ball", "cube"], ["fall ball", "fall cube", "bounce ball"]),
        ("誰かが箱を投げ、壁に当たる", ["cube", "wall"], ["throw cube", "collide cube"]),
        ("箱ではなく、円錐が倒れる", ["cone"], ["topple cone"]),
        ("箱がない。円錐が倒れる。", ["cone"], ["topple cone"]),
        ("円柱に当たった後、箱は止まる", ["cylinder", "cube"], ["collide cube", "stay cube"]),
        ("Red cone. Spinning.", ["red cone"], ["spin red cone"]),
        ("Two cones. One red. One blue.", ["red cone", "blue cone"], []),
        ("Three cones: pink, red and blue.", ["pink cone", "red cone", "blue cone"], []),
        ("A cube bounces once and then slides to the left.", ["cube"], ["bounce cube", "slide cube left"]),
        ("A cube slides but stops before hitting a cone.", ["cube", "cone"], ["slide cube", "stay cube"]),
        ("A cone spins like a top.", ["cone"], ["spin cone"]),
        ("A surreal scene: a cone spins.", ["cone"], ["spin cone"]),
        ("A barrel rolls down a snowy hill.", ["barrel", "hill"], ["roll barrel down"]),
        ("箱が円柱に当たる直前で止まる", ["cube", "cylinder"], ["stay cube"]),
        ("円錐が倒れるとこ見たい。色は緑で、木製。", ["green wood cone"], ["topple green wood cone"]),
        ("円錐が二つと箱が一つ。円錐は赤くて、箱は青い。", ["red cone", "red cone", "blue cube"], []),
        ("箱がピンの周りを回る", ["cube", "pin"], ["slide cube"]),
        ("木箱と鉄球を落としたら鉄球だけ弾む", ["wood cube", "metal ball"],
         ["fall wood cube", "fall metal ball", "bounce metal ball"]),
        ("赤い箱が近づいて衝突し、青い箱が動き出す", ["red cube", "blue cube"],
         ["slide red cube", "collide red cube", "slide blue cube"]),
    ],
)  # fmt: skip
def test_turns_of_phrase(prompt, objects, happenings):
    graph = understand(prompt).graph
    names = {node.id: node.phrase for node in graph.objects}
    said = [" ".join(filter(None, (e.action, names[e.agent], e.direction))) for e in sorted(graph.events, key=by_order)]
    assert sorted(phrases(graph)) == sorted(objects) and said == happenings


def by_order(event):
    return event.order


def test_relations_from_turns_of_phrase():
    def relations(prompt):
        graph = understand(prompt).graph
        names = {node.id: node.phrase for node in graph.objects}
        return {(r.kind, names[r.subject], names[r.object]) for r in graph.relations}

    assert relations("Behind a cone, a ball rolls left.") == {("behind", "ball", "cone")}
    assert relations("A cone stands on grass, and on it there is a ball.") == {("on", "ball", "cone")}
    assert relations("A cone with a ball to its right.") == {("right_of", "ball", "cone")}
    assert relations("左の球は赤、右の球は青です。") == {("left_of", "red ball", "blue ball")}
    both = {("left_of", "ball", "cone"), ("right_of", "cube", "cone")}
    assert relations("円錐の左に球があり、右に立方体がある。") == both


@pytest.mark.parametrize(
    ("prompt", "relations"),
    [
        ("A stack of three cubes.", {("on", "o1", "o2"), ("on", "o2", "o3")}),
        ("箱が三つ積まれている。", {("on", "o1", "o2"), ("on", "o2", "o3")}),
        ("Two cones, one behind the other.", {("behind", "o1", "o2")}),
        ("赤い球、その左に青い箱。", {("left_of", "o2", "o1")}),
        ("On the left a ball, on the right a cube, in the middle a cone.",
         {("left_of", "o1", "o3"), ("left_of", "o3", "o2")}),
        ("On the left there is a cube, on the right there is a cone.", {("left_of", "o1", "o2")}),
        ("球と箱が並んで滑る。", {("near", "o1", "o2")}),
        ("A ball rolls out from behind a cube.", {("behind", "o1", "o2")}),
        ("箱の後ろから球が出てくる。", {("behind", "o2", "o1")}),
        ("An egg rolls across a table.", {("on", "o1", "o2")}),
        ("Zoom in on a ball next to a cube.", {("near", "o1", "o2")}),
    ],
)  # fmt: skip
def test_lists_and_places(prompt, relations):
    assert {(r.kind, r.subject, r.object) for r in understand(prompt).graph.relations} == relations


def test_towards_each_other_knows_who_stands_where():
    graph = understand("A cube is left of a cone. They slide towards each other.").graph
    assert [(e.agent, e.direction) for e in graph.events] == [("o1", "right"), ("o2", "left")]


def test_the_smaller_of_a_comparison_is_small():
    graph = understand("The red ball is bigger than the blue ball.").graph
    assert phrases(graph) == ["large red ball", "small blue ball"]
