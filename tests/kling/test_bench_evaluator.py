"""The evaluator on planted pictures and on rendered clips it has never seen."""

import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from kling.bench import background
from kling.bench.evaluate import evaluate
from kling.bench.reader import load
from kling.errors import CheckpointError, InputError
from kling.prompt.graph import CameraMove, Event, ObjectNode, SceneGraph

RGB = {"red": (220, 25, 30), "blue": (35, 60, 235), "green": (30, 165, 45)}


def floor(num_frames: int = 17, pan_px: float = 0.0) -> np.ndarray:
    """A textured grey floor under a light sky, seen by a camera that turns right by so many pixels a frame."""
    rng = np.random.default_rng(1)
    wide = cv2.GaussianBlur(rng.uniform(120, 220, (64, 160)).astype(np.float32), (0, 0), 2.0)
    wide = (wide - wide.mean()) * 3 + 190
    wide[:22] = 238
    rows = []
    for n in range(num_frames):
        shift = np.float32([[1, 0, -20 - pan_px * n], [0, 1, 0]])
        rows.append(cv2.warpAffine(wide, shift, (64, 64), flags=cv2.INTER_LINEAR))
    return np.repeat(np.clip(np.stack(rows), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def put(frames: np.ndarray, color: str, places: list[tuple[float, float]], radius: int = 7) -> np.ndarray:
    """A shaded ball at a place a frame."""
    y, x = np.mgrid[:64, :64]
    for frame, (cx, cy) in zip(frames, places, strict=True):
        r = np.hypot(x - cx, y - cy)
        shade = 1.0 - 0.45 * np.hypot(x - cx + 2, y - cy + 3) / radius
        inside = r < radius
        frame[inside] = np.clip(np.array(RGB[color]) * (shade[..., None] + 0.15), 0, 255)[inside]
    return frames


def graph(*nodes: tuple[str, str], **more) -> SceneGraph:
    return SceneGraph(
        objects=tuple(ObjectNode(id=f"o{i + 1}", color=c, shape=s) for i, (c, s) in enumerate(nodes)), **more
    )


def test_planted_colours_and_count():
    frames = put(floor(), "red", [(18, 40)] * 17)
    frames = put(frames, "blue", [(44, 42)] * 17)
    said = graph(("red", "ball"), ("blue", "ball"))
    seen = evaluate(frames, said, fps=8.0)
    assert seen.num_seen == 2
    assert seen.verdicts["color"] == (True, True)
    wrong = evaluate(frames, graph(("red", "ball"), ("green", "ball")), fps=8.0)
    assert sorted(wrong.verdicts["color"]) == [False, True]
    assert evaluate(frames, graph(("red", "ball")), fps=8.0).verdicts["count"] == (False,)


@pytest.mark.parametrize(("way", "other"), [("left", "right"), ("right", "left")])
def test_planted_direction_with_a_camera_that_pans(way: str, other: str):
    sign = 1 if way == "right" else -1
    frames = floor(pan_px=1.2)  # the picture moves left by 1.2 a frame: the ball's own motion is on top of that
    frames = put(frames, "red", [(32 + (sign * 2.0 - 1.2) * (n - 8), 42) for n in range(17)])
    for said in (way, other):
        event = Event(action="roll", agent="o1", direction=said)
        seen = evaluate(frames, graph(("red", "ball"), events=(event,)), fps=8.0)
        assert seen.verdicts["direction"] == (said == way,)
        assert seen.verdicts["action"] == (True,)


def test_planted_relation():
    frames = put(put(floor(), "red", [(16, 40)] * 17), "green", [(46, 40)] * 17)
    from kling.prompt.graph import Relation

    for kind in ("left_of", "right_of"):
        said = graph(("red", "ball"), ("green", "ball"), relations=(Relation(kind=kind, subject="o1", object="o2"),))
        assert evaluate(frames, said, fps=8.0).verdicts["relation"] == (kind == "left_of",)


def test_what_stays_stays_and_what_moves_does_not():
    stay = Event(action="stay", agent="o1")
    still = put(floor(), "red", [(30, 40)] * 17)
    moving = put(floor(), "red", [(10 + 2.5 * n, 40) for n in range(17)])
    assert evaluate(still, graph(("red", "ball"), events=(stay,)), fps=8.0).verdicts["action"] == (True,)
    assert evaluate(moving, graph(("red", "ball"), events=(stay,)), fps=8.0).verdicts["action"] == (False,)


def test_an_empty_scene_has_nothing_in_it_and_a_still_camera():
    said = replace(graph(("red", "ball")), camera=(CameraMove(kind="static"),))
    seen = evaluate(floor(), said, fps=8.0)
    assert seen.num_seen == 0
    assert seen.verdicts["color"] == seen.verdicts["count"] == (False,)
    assert seen.verdicts["camera"] == (True,)
    assert not seen.adheres


def test_background_motion_is_found_to_a_tenth_of_a_pixel():
    frames = floor(pan_px=1.3)
    found = background.measure(frames, np.zeros(frames.shape[:3], bool))
    assert abs(found.whole[0] * 64 + 1.3) < 0.1
    assert np.abs(found.whole[[1, 3, 4, 5]]).max() * 64 < 0.15


def test_bad_input_is_one_line():
    with pytest.raises(InputError, match="two frames"):
        evaluate(np.zeros((0, 64, 64, 3), np.uint8), graph(), fps=8.0)
    with pytest.raises(InputError, match="no pictures"):
        evaluate(np.zeros((3, 4, 4, 3), np.uint8), graph(), fps=8.0)


def test_missing_weights_name_the_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors"):
        load(tmp_path / "nothing.safetensors")


def test_rendered_clips_are_read():
    """Six clips of the validation split: most colours and shapes right, and wrong ones found wrong."""
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from data.playground import splits
    from data.playground.clip import Format, make
    from kling.prompt.graph import COLORS

    right = changed = total = 0
    for number in range(5, 11):
        frames, sidecar = make(splits.seed_of("val", number), Format())
        said = SceneGraph.from_json(sidecar.graph)
        right += sum(evaluate(frames, said, fps=sidecar.fps).verdicts["color"])
        total += len(said.objects)
        swapped = [replace(o, color=COLORS[(COLORS.index(o.color) + 4) % 8]) for o in said.objects]
        changed += sum(evaluate(frames, replace(said, objects=tuple(swapped)), fps=sidecar.fps).verdicts["color"])
    assert right >= 0.85 * total
    assert changed <= 0.35 * total


def test_what_is_in_the_picture():
    from types import SimpleNamespace
    from typing import Any

    from kling.bench.framing import in_picture

    inside, edge, out, behind = (0.1, 0.1, 0.5, 0.5), (0.4, 0.8, 0.6, 1.1), (1.2, 0.1, 1.4, 0.3), None
    track: Any = SimpleNamespace(objects=[SimpleNamespace(box=(inside, edge)), SimpleNamespace(box=(out, behind))])
    assert in_picture(track).tolist() == [[True] * 3, [False, True, True], [False] * 3, [False] * 3]
