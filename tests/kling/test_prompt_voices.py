"""Prompts as many people write them: children in kana, chat, sounds for verbs, casual endings, rows and places."""

import pytest

from kling.prompt import understand
from kling.prompt.graph import SceneGraph
from kling.prompt.kana import from_kana
from kling.prompt.nouns import NOUNS
from kling.prompt.nouns_ja import NOUNS_JA
from kling.prompt.world import CommonSense


def phrases(graph: SceneGraph) -> list[str]:
    return [node.phrase for node in graph.objects]


def told(graph: SceneGraph) -> list[str]:
    """ "1 hits 2" as "collide 1 2", in order; the order itself only where two happen at once ("=")."""
    events = sorted(graph.events, key=lambda e: e.order)
    said = [
        " ".join(filter(None, (e.action, e.agent[1:], (e.patient or "")[1:], e.direction, e.speed))) for e in events
    ]
    together = [i > 0 and events[i].order == events[i - 1].order for i in range(len(events))]
    return [f"= {text}" if same else text for text, same in zip(said, together, strict=True)]


def standing(graph: SceneGraph) -> set[str]:
    return {f"{r.subject[1:]} {r.kind} {r.object[1:]}" for r in graph.relations}


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("おっきいボール", ["large ball"]),
        ("ちっちゃい箱", ["small cube"]),
        ("まっかなたま", ["red ball"]),
        ("みずいろのはこ", ["cyan cube"]),
        ("あおいボールと、みどりのはこ", ["blue ball", "green cube"]),
        ("ぴんくのボールがむらさきのはこのうえにある", ["pink ball", "purple cube"]),
        ("3このボール", ["ball"] * 3),
        ("red ballが転がって、blue cubeにぶつかる", ["red ball", "blue cube"]),
        ("球Aと球B", ["ball", "ball"]),
        ("三つの円錘", ["cone"] * 3),
        ("カメラはパン、五本の円柱が並ぶ", ["cylinder"] * 5),
        ("火星の地表を球が転がる", ["ball"]),
        ("台車とスプーンとハンマーと羽根", ["cart", "spoon", "hammer", "feather"]),
        ("大きな木の前に車がある", ["large tree", "car"]),
        ("木の箱", ["wood cube"]),
        ("石が転がる", ["stone"]),
        ("レンガの壁", ["wall"]),
        ("大小2つの球が坂を転がる", ["large ball", "small ball", "slope"]),
        ("赤、青、緑の箱が並んでいる", ["red cube", "blue cube", "green cube"]),
        ("黒い背景に赤い球", ["red ball"]),
        ("しろいゆきのうえのくろいボール", ["black ball"]),
        ("赤い球（小）と青い球（大）", ["small red ball", "large blue ball"]),
        ("大球と小球", ["large ball", "small ball"]),
        ("球（赤色・大）", ["large red ball"]),
        ("ちいさいくまさん", ["small bear"]),
        ("レベル2: 黄色い球が落ちる", ["yellow ball"]),
        ("Domino rally: two red dominoes fall over.", ["red domino", "red domino"]),
        ("Bowling scene: a pin topples.", ["pin"]),
        ("A cone and a ball, all made of wood", ["wood cone", "wood ball"]),
        ("A small cube and a large cube, both made of metal", ["small metal cube", "large metal cube"]),
    ],
)  # fmt: skip
def test_things(prompt, things):
    assert phrases(understand(prompt).graph) == things


def test_kana_is_only_read_where_one_reading_is_left():
    assert from_kana("そこにはこの球がある") == "そこにはこの球がある"
    assert from_kana("赤いはこ。") == "赤い箱。" and from_kana("3このボール") == "3個のボール"


@pytest.mark.parametrize("word", ["台車", "羽根", "スプーン", "トランポリン", "どんぐり", "信号機", "おにぎり", "歯車"])
def test_everyday_nouns_have_a_body(word):
    noun = NOUNS[NOUNS_JA[word]]
    assert (
        noun.mass_kg > 0 and max(noun.half_size_m) < 10 and phrases(understand(f"{word}が落ちる").graph) == [noun.name]
    )


def test_what_lives_pushes_without_bumping():
    assert CommonSense().bumps("cart") and CommonSense().bumps("ball") and not CommonSense().bumps("boy")
    assert told(understand("A cart pushes a cube to the left.").graph) == ["collide 1 2", "slide 2 left"]
    assert told(understand("A dog pushes a cube to the left.").graph) == ["slide 2 left"]


@pytest.mark.parametrize(
    ("field", "prompt", "value"),
    [
        ("setting", "しばふでボールがはねる", "grass"),
        ("setting", "暗闇で光る球", "night"),
        ("lighting", "夕日をバックに立つ円錐", "dusk"),
    ],
)
def test_scene_words(field, prompt, value):
    assert getattr(understand(prompt).graph, field) == value


# --- verbs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "happenings"),
    [
        # sounds are verbs, unless a verb follows
        ("ボールがはこにごっつんこ！", ["collide 1 2"]),
        ("車がひだりにびゅーん", ["slide 1 left fast"]),
        ("たまがぽよんぽよんしてる", ["bounce 1"]),
        ("ボールがころころ転がってく", ["roll 1"]),
        ("箱がどーんって壁にぶつかった", ["collide 1 2"]),
        # casual endings
        ("箱が倒れちゃった", ["topple 1"]),
        ("ぬいぐるみが箱にすわってる。箱は動かないよ", ["stay 1", "= stay 2"]),
        ("球が右に転がってって、止まんの", ["roll 1 right", "stay 1"]),
        ("球が箱に当たって、箱が右にずれる、みたいな", ["collide 1 2", "slide 2 right"]),
        # who does it, to whom
        ("ボールが当たって、ビンが落ちる", ["collide 1 2", "fall 2"]),
        ("円錐に球が当たって倒れる", ["collide 2 1", "topple 1"]),
        ("箱が壁に当たって倒れる", ["collide 1 2", "topple 1"]),
        ("円柱が立っていて、そこへ球が転がってきて当たる", ["stay 1", "= roll 2 toward", "collide 2 1"]),
        ("赤い球に押されて、青い箱が右にずれる", ["collide 1 2", "slide 2 right"]),
        ("球が箱を押して、箱が左へ滑る", ["collide 1 2", "slide 2 left"]),
        ("ハンマーで箱を叩く", ["collide 1 2"]),
        ("バットでボールを打つと、右へ飛んでいく", ["collide 1 2", "throw 2 right"]),
        ("球が円錐にぶつかり、倒す", ["collide 1 2", "topple 2"]),
        ("ロボットが箱を押して右に動かす", ["slide 2 right"]),
        ("ボールを壁に投げて、跳ね返ってくる", ["throw 1", "collide 1 2", "bounce 1"]),
        ("赤い箱と青い球があり、前者が後者にぶつかる", ["collide 1 2"]),
        ("円柱を右に倒す", ["topple 1 right"]),
        ("質量1kgの球Aが静止した球Bに衝突する", ["stay 2", "collide 1 2"]),
        ("押された箱は止まらずに滑り続ける", ["slide 1"]),
        ("静かに球を落とす", ["fall 1 slow"]),
        ("球を静かに落とす", ["fall 1"]),
        # several who share a verb
        ("赤い球が右へ、青い球が左へ転がる", ["roll 1 right", "= roll 2 left"]),
        ("赤い球が左から、青い球が右から転がってくる", ["roll 1 right", "= roll 2 left"]),
        ("二つの球が互いに向かって転がる", ["roll 1", "= roll 2"]),
        ("赤い箱は左、青い箱は右にあり、互いに近づく", ["slide 1 right", "= slide 2 left"]),
        ("どちらの球も転がる", ["roll 1", "= roll 2"]),
        ("球が二つと箱が一つ。球はすべて転がる", ["roll 1", "= roll 2"]),
        ("箱の右に赤い球、左に青い球があり、両方とも転がる", ["roll 2", "= roll 3"]),
        ("球がひとつ転がり、もうひとつの球にぶつかる", ["roll 1", "collide 1 2"]),
        # orders
        ("青い球が止まってからじゃないと赤い球は転がらない", ["stay 1", "roll 2"]),
        ("箱は、球がぶつかるまで動かない", ["stay 1", "collide 2 1"]),
        ("球が箱に当たると、箱が滑り、円錐が倒れる", ["collide 1 2", "slide 2", "= topple 3"]),
        ("赤い球が転がり終わってから青い球が転がる", ["roll 1", "roll 2"]),
        ("火星の重力で球を落とすと、ゆっくり落ちる", ["fall 1 slow"]),
        # causatives, and a verb before what is to be seen
        ("ゴムボールを2個落下させる", ["fall 1", "= fall 2"]),
        ("鉄球を木箱に衝突させる", ["collide 1 2"]),
        ("円柱を回転させながら右へ移動させる", ["spin 1", "= roll 1 right"]),
        ("ボールがバーンってぶつかって箱が飛んでくやつ作って", ["collide 1 2", "throw 2"]),
        ("ボールどーん、箱ばたーん", ["collide 1 2", "topple 2"]),
        ("物体Aは赤い球、物体Bは青い箱。AがBに衝突する。", ["collide 1 2"]),
        ("箱が滑り、止まり、そして倒れる", ["slide 1", "stay 1", "topple 1"]),
        ("球が奥に転がって小さくなっていく", ["roll 1 away"]),
        # one of several, and several by their colors
        ("箱が二つある。片方だけ倒れる。", ["topple 1"]),
        ("ボールが二つ、片方は右へ、もう片方は左へ転がる", ["roll 1 right", "= roll 2 left"]),
        ("球は二つで、色は赤と緑。赤は右へ、緑は左へ転がる", ["roll 1 right", "= roll 2 left"]),
        ("赤い箱と青い箱。赤は倒れ、青は滑る", ["topple 1", "= slide 2"]),
        ("二つの球が転がる。最後の1つが止まる", ["roll 1", "= roll 2", "stay 2"]),
        # then, and both at once
        ("円錐が倒れ、それから2つの球が同時に転がる", ["topple 1", "roll 2", "= roll 3"]),
        ("球が高速回転する", ["spin 1 fast"]),
        ("球が揺れて、積んである箱2つを倒す",
         ["swing 1", "collide 1 2", "= collide 1 3", "topple 2", "= topple 3"]),
        # what it is like is not there, and what nearly happens does not
        ("球が振り子みたいに揺れる", ["swing 1"]),
        ("猫のように箱が跳ねる", ["bounce 1"]),
        ("球が箱に当たり、箱は倒れそうになって止まる", ["collide 1 2", "stay 2"]),
        ("箱が倒れそうで倒れない", []),
        # no event of a thing
        ("箱の中に球が入っている", []),
        ("風船が上がる", []),
    ],
)  # fmt: skip
def test_japanese_verbs(prompt, happenings):
    assert told(understand(prompt).graph) == happenings


@pytest.mark.parametrize(
    ("prompt", "happenings"),
    [
        ("I want the red ball to roll left after the blue ball has stopped.", ["stay 2", "roll 1 left"]),
        ("Can you do a video of a cone falling over?", ["topple 1"]),
        ("A bottle is knocked off a table by a ball.", ["collide 3 1", "fall 1"]),
        ("First the red cube falls, then the blue one.", ["fall 1", "fall 2"]),
        ("The large cone falls before the small one does.", ["fall 1", "fall 2"]),
        ("A rubber ball and a metal ball fall; the rubber one bounces, the metal one doesn't.",
         ["fall 1", "= fall 2", "bounce 1"]),
        ("Push the big box to the left with the small one.", ["collide 2 1", "slide 1 left"]),
        ("When a ball hits a cube, the cube slides left and a cone topples.",
         ["collide 1 2", "slide 2 left", "= topple 3"]),
        ("A ball hits the first domino, then all three dominoes topple.",
         ["collide 1 2", "topple 2", "= topple 3", "= topple 4"]),
        ("A boy throws a ball up and it comes back down.", ["throw 2 up", "fall 2"]),
        ("The cylinder on the left falls over; the one on the right spins.", ["topple 1", "= spin 2"]),
        ("A ball that hits a cone that stands behind a cube.", ["collide 1 2", "= stay 2"]),
        ("A ball rolls right, pauses, then rolls left.", ["roll 1 right", "stay 1", "roll 1 left"]),
        ("A red ball next to a blue ball. The red one falls; the other one stays.", ["fall 1", "= stay 2"]),
        ("Stack two boxes and knock them down with a ball.",
         ["collide 3 1", "= collide 3 2", "topple 1", "= topple 2"]),
        ("A ball rolls up a ramp and then back down.", ["roll 1 up", "roll 1 down"]),
        ("The projectile, a small ball, is thrown.", ["throw 1"]),
        ("Two boxes are stacked on top of each other. A ball hits them and the stack falls over.",
         ["collide 3 1", "= collide 3 2", "topple 1", "= topple 2"]),
        ("A ball rolls. The ball stops rolling.", ["roll 1", "stay 1"]),
        # a stack is one thing that is knocked over
        ("A stack of two cubes. A ball rolls into the tower and knocks it over.",
         ["roll 3", "collide 3 1", "= collide 3 2", "topple 1", "= topple 2"]),
        ("A castle with a red tower and two balls. The tower topples.", ["topple 2"]),
        # one of those just named, and how fast each of them was
        ("Two cones on grass, one of them topples.", ["topple 1"]),
        ("Three boxes, two of them slide to the left.", ["slide 1 left", "= slide 2 left"]),
        ("Two cubes slide. The red one is fast, the blue one is slow.", ["slide 1 slow", "= slide 2 fast"]),
        ("A ball rolls a short distance to the left and stops.", ["roll 1 left", "stay 1"]),
    ],
)  # fmt: skip
def test_english_verbs(prompt, happenings):
    said = told(understand(prompt).graph)
    assert sorted(text.removeprefix("= ") for text in said) == sorted(text.removeprefix("= ") for text in happenings)
    assert [text.startswith("= ") for text in said] == [text.startswith("= ") for text in happenings]


# --- places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "relations"),
    [
        ("テーブルにカップ、その左にスプーン。", {"2 on 1", "3 left_of 2"}),
        ("テーブルの瓶が倒れる", {"2 on 1"}),
        ("箱をスロープに置くと、滑り下りる", {"1 on 2"}),
        ("赤い箱の左に青い箱、右に緑の箱", {"2 left_of 1", "3 right_of 1"}),
        ("箱の左隣に球、右隣に円錐が置かれている", {"2 left_of 1", "3 right_of 1"}),
        ("箱を挟んで、左に球、右に円錐が静止している", {"2 left_of 1", "3 right_of 1"}),
        ("箱のすぐ右に球がある", {"2 right_of 1"}),
        ("球が二つと箱が一つ。箱は球の後ろにある", {"3 behind 1", "3 behind 2"}),
        ("左から赤、青、緑の箱が並んでいる", {"1 left_of 2", "2 left_of 3"}),
        ("緑の箱が二つ重なっている", {"1 on 2"}),
        ("箱は右、球は左です。", {"2 left_of 1"}),
        ("前列に球、後列に箱", {"1 in_front_of 2"}),
        ("赤い球の右に青い球、青い球の右に緑の球がある", {"2 right_of 1", "3 right_of 2"}),
        ("立方体の左上に球がある", {"2 above 1"}),
        ("球が傾いた板の上を転がる", {"1 on 2"}),
        ("球が箱の左側から転がってくる", {"1 left_of 2"}),
        ("トラックの荷台から箱が落ちる", {"2 on 1"}),
        ("鉛筆が机を転がる", {"1 on 2"}),
        ("赤い箱が倒れ、隣の円錐に当たる", {"2 near 1"}),
        ("箱の右に円錐がある。箱が倒れ、隣の円錐に当たる", {"2 right_of 1"}),
        ("箱が3段に積まれている", {"1 on 2", "2 on 3"}),
        ("球の両側に二つの箱がある", {"2 left_of 1", "3 right_of 1"}),
        ("Two cubes on either side of a ball.", {"1 left_of 3", "2 right_of 3"}),
        ("A red cube, a green cube and a blue cube in a line from left to right", {"1 left_of 2", "2 left_of 3"}),
        ("To the left of a cube is a ball, and to the right is a cone.", {"2 left_of 1", "3 right_of 1"}),
        ("A red ball, a blue ball behind it.", {"2 behind 1"}),
        ("There are two cubes, one on the left and one on the right.", {"1 left_of 2"}),
        ("From left to right: a ball, a cube, a cone.", {"1 left_of 2", "2 left_of 3"}),
        ("The camera tilts up to reveal a cat on a table.", {"1 on 2"}),
        ("A cone topples. The two balls behind it roll away.", {"2 behind 1", "3 behind 1"}),
        ("The ball between a cone and a cube rolls away.", {"2 left_of 1", "1 left_of 3"}),
        ("two red balls and a blue ball, the blue ball is behind the red balls", {"3 behind 1", "3 behind 2"}),
    ],
)  # fmt: skip
def test_places(prompt, relations):
    assert standing(understand(prompt).graph) == relations


@pytest.mark.parametrize(
    ("prompt", "happenings"),
    [
        ("二つの箱が重なっている。上の箱が落ちる。", ["fall 1"]),
        ("重なった3つの箱の一番上が落ちる", ["fall 1"]),
        ("赤い箱の左に青い箱、右に緑の箱。動くのは真ん中だけで、右に滑る。", ["slide 1 right"]),
        ("三つの円錐が左から右に並んでいて、真ん中の円錐が倒れる", ["topple 2"]),
        ("Three cubes are stacked on top of each other; the top cube falls off.", ["fall 1"]),
        ("A row of four cones. The leftmost one topples.", ["topple 1"]),
        ("Three pins. A ball knocks over the middle one.", ["collide 4 2", "topple 2"]),
    ],
)  # fmt: skip
def test_one_of_a_row(prompt, happenings):
    assert told(understand(prompt).graph) == happenings


def test_the_rest_of_a_group_has_its_own_color():
    graph = understand("五つの球のうち三つは青、残りは赤で、同時に落ちる").graph
    assert sorted(phrases(graph)) == ["blue ball"] * 3 + ["red ball"] * 2 and len(graph.events) == 5


# --- camera ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "moves"),
    [
        ("カメラは転がる球を追いかける", [("dolly", None)]),
        ("カメラがそのまわりをまわる。円錐がある", [("orbit", None)]),
        ("左から右へトラックしながら箱を写す", [("dolly", "right")]),
        ("カメラが手前から奥に進む", [("dolly", "in")]),
        ("カメラが球の右側へ回り込む", [("orbit", "right")]),
        ("Tracking shot following a ball rolling left", [("dolly", "left")]),
        ("A cube slides, with the camera slowly orbiting it.", [("orbit", None)]),
    ],
)  # fmt: skip
def test_camera_moves(prompt, moves):
    assert [(m.kind, m.direction) for m in understand(prompt).graph.camera] == moves
