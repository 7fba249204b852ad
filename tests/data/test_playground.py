"""The playground: same seed same clip, splits apart, captions that say what their graph says, files that survive."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from einops import rearrange

from data.playground import captions_en, captions_ja, splits, stage, words_en, words_ja
from data.playground.captions import captions
from data.playground.clip import Format, make
from data.playground.command import Options, command, render
from data.playground.render import Renderer
from data.playground.sample import DOERS, sample
from data.playground.words import Words
from kling.camera import moves
from kling.camera.rays import floor_points
from kling.errors import ConfigError, InputError
from kling.media.video import read_frames
from kling.model.controls import floor_waves
from kling.prompt.graph import ACTIONS, CAMERA_MOVES, COLORS, LIGHTINGS, MATERIALS, SETTINGS, SHAPES, SceneGraph
from kling.scene.plan import CameraKey, Environment, PlannedCamera, ScenePlan, Sidecar
from kling.scene.simulate import simulate

VAL = splits.SPLITS["val"]
GRAMMARS = {"en": (captions_en, words_en), "ja": (captions_ja, words_ja)}


def tables(words) -> list[Words]:
    found = []
    for value in vars(words).values():
        if isinstance(value, dict):
            found += [entry for entry in value.values() if isinstance(entry, Words)]
    return found


def test_the_whole_domain_is_drawn():
    graphs = [sample(seed) for seed in range(1500)]
    assert {len(graph.objects) for graph in graphs} == set(range(1, 9))
    nodes = [node for graph in graphs for node in graph.objects]
    assert {node.shape for node in nodes} == set(SHAPES) and {node.color for node in nodes} == set(COLORS)
    assert {node.material for node in nodes} == {*MATERIALS, None}
    assert {event.action for graph in graphs for event in graph.events} == set(ACTIONS)
    moves = {(move.kind, move.direction) for graph in graphs for move in graph.camera}
    assert moves == {(kind, way) for kind, ways in CAMERA_MOVES.items() for way in ways}
    assert {graph.setting for graph in graphs} == {*SETTINGS, None}
    assert {graph.lighting for graph in graphs} == {*LIGHTINGS, None}


def test_things_that_are_no_twins_can_be_told_apart_by_words():
    for seed in range(500):
        looks: dict[tuple, set] = {}
        for node in sample(seed).objects:
            looks.setdefault((node.color, node.shape), set()).add(dataclasses.replace(node, id=""))
        assert all(len(same) == 1 for same in looks.values())


def test_splits_share_no_seed_and_training_never_shows_what_is_held_out():
    assert splits.seed_of("train", splits.SPAN - 1) < splits.seed_of("val", 0)
    assert splits.seed_of("val", splits.SPAN - 1) < splits.seed_of("bench", 0)
    for color, shape, action in splits.held_out():
        assert color in COLORS and shape in DOERS[action]
    assert not any(splits.shows_held_out(sample(seed)) for seed in range(1500))
    share = np.mean([splits.shows_held_out(sample(VAL + seed)) for seed in range(300)])
    assert 0.2 < share < 0.6
    with pytest.raises(ConfigError, match="outside the split's range"):
        splits.seed_of("train", splits.SPAN)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_reserved_words_and_families_never_reach_training(language: str):
    grammar, words = GRAMMARS[language]
    assert len(grammar.FAMILIES) >= 12 and len(grammar.RESERVED) >= 2
    usual = {form for entry in tables(words) for word in entry.usual for form in word.replace("~", "/").split("/")}
    reserved = {
        form for entry in tables(words) for word in entry.reserved for form in word.replace("~", "/").split("/")
    }
    telling = {word for word in reserved - usual if not any(word in known for known in usual)}
    assert len(telling) >= 15
    said = [
        c for seed in range(250) for c in captions(sample(seed), seed=seed, split="train") if c.language == language
    ]
    assert {c.family for c in said} == set(grammar.FAMILIES) - set(grammar.RESERVED)
    for caption in said:
        spoken = f" {caption.text.lower()} " if language == "en" else caption.text
        for word in telling:
            assert (f" {word} " if language == "en" else word) not in spoken, (word, caption.text)
    other = [c for seed in range(VAL, VAL + 60) for c in captions(sample(seed), seed=seed, split="val")]
    assert {c.family for c in other if c.language == language} & set(grammar.RESERVED)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_captions_say_everything_their_graph_says(language: str):
    """Each stated thing leaves one of its words in each caption."""
    _, words = GRAMMARS[language]

    def said(text: str, entry: Words) -> bool:
        forms = [form for w in (*entry.usual, *entry.reserved) for form in w.split("~")[0].split("/")]
        stems = [form.split(" ")[0].lower().rstrip("でに") for form in forms]  # スタジオ照明の下(で), 芝生の上で
        return any(stem in text.lower() for stem in stems)

    for seed in (*range(60), *range(VAL, VAL + 40)):
        graph = sample(seed)
        for caption in captions(graph, seed=seed, split=splits.split_of(seed)):
            if caption.language != language:
                continue
            for node in graph.objects:
                assert said(caption.text, words.NOUNS[node.shape]), caption.text
                assert said(caption.text, words.COLORS[node.color or ""]), caption.text
            for event in graph.events:
                assert said(caption.text, words.VERBS[event.action]), (event, caption.text)
            for move in graph.camera:
                assert said(caption.text, words.CAMERA[move.kind, move.direction]), caption.text
            places = ((words.SETTINGS, "setting"), (words.LIGHTINGS, "lighting"), (words.GRAVITIES, "gravity"))
            for table, name in places:
                value = getattr(graph, name)
                assert value is None or said(caption.text, table[value]), caption.text
            assert "  " not in caption.text and ".." not in caption.text and "None" not in caption.text


def test_japanese_is_joined_as_a_person_would():
    said = [c.text for seed in range(250) for c in captions(sample(seed), seed=seed, split="train")
            if c.language == "ja"]  # fmt: skip
    for text in said:
        assert "で、芝生" not in text and "で、砂" not in text and "で、雪" not in text, text  # one place, one で
        assert "それは" not in text or "物体が一つある" in text, text
        assert "動かない前に" not in text and text.count("前に、") < 2 and text.count("後、") < 2, text
    assert any("下、雪" in text for text in said) and any("物体が一つある" in text for text in said)


def test_english_never_slides_left_to_a_stop():
    said = [c.text for seed in range(250) for c in captions(sample(seed), seed=seed, split="train")]
    assert not any(f"{way} to a stop" in text for text in said for way in ("left", "right", "camera", "viewer"))
    assert any("slides to a stop" in text for text in said)


@pytest.mark.parametrize("seed", [0, 3, 8, VAL + 1, splits.SPLITS["bench"] + 2])
def test_the_same_seed_gives_the_same_clip(seed: int):
    form = Format(width_px=64, height_px=48, num_frames=9)
    frames, sidecar = make(seed, form)
    again, other = make(seed, form)
    assert frames.shape == (9, 48, 64, 3) and (frames == again).all() and sidecar == other
    assert sidecar.split == splits.split_of(seed)
    assert {caption.language for caption in sidecar.captions} == {"en", "ja"} and len(sidecar.captions) >= 4
    graph = SceneGraph.from_json(sidecar.graph)
    assert [item.id for item in sidecar.plan.objects] == [node.id for node in graph.objects]
    for track in sidecar.track.objects:
        assert len(track.box) == len(track.visibility) == 9 and max(track.visibility) > 0.3
    assert np.abs(np.diff(frames.astype(int), axis=0)).max() > 0 or graph.camera == ()


def test_colors_look_different():
    names = list(stage.COLORS)
    lab = cv2.cvtColor(np.float32([list(stage.COLORS.values())]), cv2.COLOR_RGB2LAB)[0]
    for i in range(len(names)):
        for j in range(i):
            assert np.linalg.norm(lab[i] - lab[j]) > 30, (names[i], names[j])


def test_files_are_written_once_and_kept(tmp_path, capsys):
    out, sheet = tmp_path / "クリップ 1", tmp_path / "sheet.png"
    arguments = [
        "--num-clips",
        "3",
        "--out",
        str(out),
        "--workers",
        "1",
        "--num-frames",
        "9",
        "--width",
        "32",
        "--height",
        "32",
    ]
    assert command([*arguments, "--sheet", str(sheet)]) == 0
    assert "3 clips rendered, 0 already there" in capsys.readouterr().out
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"train-00000000{i}.{end}" for i in range(3) for end in ("json", "mp4")]
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.shape[1] > 500
    sidecar = Sidecar.model_validate_json((out / "train-000000001.json").read_text())
    frames, fps = read_frames(out / sidecar.clip)
    assert frames.shape == (9, 32, 32, 3) and fps == 8.0
    before = (out / "train-000000001.mp4").read_bytes()
    (out / "train-000000001.mp4").unlink()
    command(arguments)
    assert "1 clips rendered, 2 already there" in capsys.readouterr().out
    assert (out / "train-000000001.mp4").read_bytes() == before


def test_strange_files_are_not_mixed_in(tmp_path):
    options = Options(num_clips=1, out=str(tmp_path), num_frames=9, width=32, height=32, workers=1)
    render(options)
    with pytest.raises(InputError, match="another format"):
        render(dataclasses.replace(options, width=64))
    (tmp_path / "train-000000000.json").write_text("{}")
    with pytest.raises(InputError, match="not a sidecar"):
        render(options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_clips": 0},
        {"width": 31},
        {"height": 8},
        {"num_frames": 1},
        {"fps": 500.0},
        {"seed": -1},
        {"num_frames": 5},
    ],
)
def test_impossible_wishes_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError):
        render(dataclasses.replace(Options(num_clips=1, out=str(tmp_path)), **wrong))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_rendering_spreads_over_ray(tmp_path, ray_cluster):
    options = Options(num_clips=17, out=str(tmp_path / "ray"), num_frames=9, width=32, height=32, workers=2)
    assert render(options) == 17
    alone = dataclasses.replace(options, num_clips=2, out=str(tmp_path / "here"), workers=1)
    render(alone)
    for name in ("train-000000000", "train-000000001"):
        for end in ("mp4", "json"):
            assert (tmp_path / "ray" / f"{name}.{end}").read_bytes() == (
                tmp_path / "here" / f"{name}.{end}"
            ).read_bytes()
    assert all(json.loads(path.read_text())["num_frames"] == 9 for path in (tmp_path / "ray").glob("*.json"))


@pytest.mark.parametrize("setting", ["studio", "grass"])
def test_floors_repeat_as_the_model_is_told(setting: str):
    """Weights of the floor's waves that were fitted on one tile explain the picture of another, 10 m and 7 m away."""

    def seen(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        """The waves and a constant at each pixel (n c), and how light it is (n)."""
        view = moves.View(position_m=(x, y - 2.5, 2.5), target_m=(x, y, 0.0))
        keys = tuple(CameraKey(**dataclasses.asdict(key)) for key in moves.move_keys((), view, 0.125))
        place = Environment(setting=setting, lighting="daylight")
        plan = ScenePlan(camera=PlannedCamera(keys=keys), environment=place, duration_s=0.125, fps=8.0)
        track = simulate(plan)
        light = renderer.draw(plan, track)[:1, 32:].mean(axis=-1)  # the lower half: floor
        camera = np.array(track.camera.camera_to_world)[:1], np.array(track.camera.fov_y_deg)[:1]
        points = floor_points(*camera, height=64, width=64, aspect=1.0)[:, 32:]
        waves = floor_waves(torch.from_numpy(rearrange(points, "f h w n -> 1 n f h w")), 6)[0].flatten(1).T
        return np.c_[waves.double().numpy(), np.ones(len(waves))], light.ravel()

    renderer = Renderer(width_px=64, height_px=64)
    try:
        known = [seen(x, y) for x in range(4) for y in range(4)]
        elsewhere, wanted = seen(10.3, 7.1)
    finally:
        renderer.close()
    waves, light = (np.concatenate(parts) for parts in zip(*known, strict=True))
    weights = np.linalg.solve(waves.T @ waves + np.eye(waves.shape[1]), waves.T @ light)
    left = ((elsewhere @ weights - wanted) ** 2).mean() / wanted.var()
    assert left < 0.4
