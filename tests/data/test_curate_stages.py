"""The stages one by one, without Ray: truth, labels, duplicates, shards, report."""

import json
import random

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates import CERTAIN_BITS, MAX_BITS, Looks
from data.report import page
from data.stages.s1_list import list_sources
from data.stages.s2_read import Reader
from data.stages.s3_truth import take_truth
from data.stages.s4_score import score_clip
from data.stages.s5_caption import caption_clip, graph_of
from data.stages.s5_label import label_clip
from data.stages.s7_commit import commit_unit, note_run
from data.stages.s8_shard import write_shards
from data.stages.sandbox import Limits
from data.work import Clip, Recipe
from kling import shards
from kling.presets import ClipSpec, get_preset
from kling.quality import camera
from kling.scene.plan import Sidecar
from tests.data.raw_files import footage, moving, write

SPEC = get_preset("tiny").clip
RECIPE = Recipe(preset="tiny", spec=SPEC, encoder="")


def curate_here(inputs, dataset) -> shards.Manifest:
    """The recipe in this process."""
    sources, reader = list_sources((str(inputs),)), Reader(SPEC, Limits())
    for source in sources:
        for unit in reader(source):
            take_truth(unit, SPEC)
            for clip in unit.clips:
                score_clip(clip)
                label_clip(clip, SPEC)
                caption_clip(clip)
            commit_unit(unit, str(dataset), RECIPE)
    return write_shards(str(dataset), sources, RECIPE)


def sidecar(num_frames: int, fps: float, width: int, height: int) -> dict:
    """A ball that goes right, seen by a still camera."""
    n = range(num_frames)
    pose = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
    track = {
        "id": "o1",
        "position_m": [[i / fps, 0, 0.1] for i in n],
        "quaternion": [[1, 0, 0, 0]] * num_frames,
        "velocity_m_s": [[1, 0, 0]] * num_frames,
        "angular_velocity_rad_s": [[0, 0, 0]] * num_frames,
        "box": [[0.25 + i / 100, 0.4, 0.35 + i / 100, 0.6] for i in n],
        "depth_m": [2.0] * num_frames,
        "visibility": [1.0] * num_frames,
    }
    ball = {
        "id": "o1", "phrase": "red ball", "shape": "ball", "proxy": "ball", "half_size_m": [0.1, 0.1, 0.1],
        "mass_kg": 1, "friction": 0.5, "restitution": 0.5, "position_m": [0, 0, 0.1], "velocity_m_s": [1, 0, 0],
    }  # fmt: skip
    key = {"time_s": 0, "position_m": [0, -2, 1], "quaternion": [1, 0, 0, 0], "fov_y_deg": 40}
    return {
        "clip": "a.mp4", "seed": 1, "split": "bench", "held_out": True, "width_px": width, "height_px": height,
        "num_frames": num_frames, "fps": fps, "graph": {}, "renderer": "none",
        "captions": [{"text": "赤いボールが転がる", "language": "ja", "family": "f1"}],
        "plan": {"objects": [ball], "camera": {"keys": [key]}, "duration_s": (num_frames - 1) / fps, "fps": fps},
        "track": {
            "fps": fps, "objects": [track], "camera": {"camera_to_world": [pose] * num_frames,
            "fov_y_deg": [40] * num_frames}, "contacts": [{"frame": 16, "a": "o1", "b": "floor", "impulse_n_s": 1,
            "point_m": [0, 0, 0]}],
        },
    }  # fmt: skip


def test_ground_truth_follows_the_frames_that_were_kept(tmp_path):
    """A 16 fps clip of 2:1 pictures becomes 8 fps squares: every second pose, boxes relative to the middle square."""
    write(tmp_path / "a.mp4", moving(40, 128, 64), fps=16)
    (tmp_path / "a.json").write_text(json.dumps(sidecar(40, 16, 128, 64)))
    (source,) = list_sources((str(tmp_path),))
    (unit,) = Reader(SPEC, Limits())(source)
    take_truth(unit, SPEC)
    (clip,) = unit.clips
    assert clip.split == "bench" and clip.captions[0]["language"] == "ja"
    truth = Sidecar.model_validate(sidecar(40, 16, 128, 64))
    track = json.loads(clip.track or "")
    assert [p[0] for p in track["objects"][0]["position_m"]] == [2 * i / 16 for i in range(17)]
    x0, _, x1, _ = truth.track.objects[0].box[2] or (0, 0, 0, 0)
    assert track["objects"][0]["box"][1] == pytest.approx([(x0 - 0.25) * 2, 0.4, (x1 - 0.25) * 2, 0.6])
    assert track["contacts"][0]["frame"] == 8 and track["fps"] == 8
    assert json.loads(clip.plan or "")["fps"] == 8 and json.loads(clip.plan or "")["duration_s"] == 2
    label_clip(clip, SPEC)
    labels, told = json.loads(clip.labels or ""), json.loads(clip.annotation or "")
    assert labels["origin"] == "playground" and labels["objects"][0]["shape"] == "ball"
    assert told["origin"] == "simulation" and told["things"][0]["velocity_m_s"] == [[1, 0, 0]] * 17
    assert told["contacts"] == [{"frame": 8, "a": "o1", "b": "floor"}] and told["order"] == [["o1"]] * 17


def test_captions_say_what_labels_are_sure_of_and_no_more():
    scene = {"setting": "grass", "lighting": None, "camera": ["pan left"], "light": "medium", "motion": "some"}
    things = [
        {"id": "o1", "shape": "ball", "color": "red", "size": "large"},
        {"id": "o2", "shape": None, "color": "blue", "size": None},
    ]
    actions = [{"object": "o1", "action": "roll"}, {"object": "o2", "action": "spin"}]
    clip = Clip(clip_id="a", index=0, start_s=0, end_s=2, split="train", pixels=moving(17))
    clip.labels = json.dumps({"origin": "seen", "scene": scene, "objects": things, "actions": actions})
    caption_clip(clip)
    english, japanese = (caption["text"] for caption in clip.captions)
    assert "red" in english and "pan" in english and "blue" not in english and "spin" not in english, english
    assert "赤" in japanese and "青" not in japanese, japanese
    assert graph_of({"objects": things[1:], "actions": [], "scene": scene}) is None


@given(st.integers(0, 2**192 - 1), st.integers(0, 40), st.integers(0, 1000))
def test_looks_find_all_near_ones_and_no_far_ones(bits, flips, seed):
    changed = bits
    for place in random.Random(seed).sample(range(192), flips):
        changed ^= 1 << place
    looks = Looks()
    assert looks.add("a", f"{bits:048x}") is None
    found = looks.add("b", f"{changed:048x}")
    assert found == "a" if flips <= CERTAIN_BITS else found is None or flips <= MAX_BITS


def test_a_re_encoded_copy_is_a_duplicate_and_other_footage_is_not(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("bikes.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4"):
        (raw / name).write_bytes((footage() / name).read_bytes())
    manifest = curate_here(raw, tmp_path / "set")
    rows = [row for shard in manifest.shards for row in shards.read_rows(str(tmp_path / "set"), shard)]
    by_id = {row["clip_id"]: row["source"] for row in rows}
    pairs = {(row["source"], by_id[row["duplicate_of"]]) for row in rows if row["duplicate_of"]}
    assert pairs == {("raw/carphone_pristine.mp4", "raw/carphone_distorted.mp4")}
    scores = {row["source"]: dict(row["scores"]) for row in rows}
    pristine, distorted = scores["raw/carphone_pristine.mp4"], scores["raw/carphone_distorted.mp4"]
    assert pristine["total"] > distorted["total"], "the distorted copy must not win"
    note_run(str(tmp_path / "set"), num_files=3, seconds=6.0)
    text = page(str(tmp_path / "set"), 0.1)
    assert "0.50 files a second" in text
    assert "Best clips" in text and text.count("<video") == 2 * len(rows) and "core seconds" in text


@pytest.mark.parametrize(
    ("name", "shift", "zoom"),
    [("pan right", (-2, 0), 1), ("pan left", (2, 0), 1), ("tilt up", (0, 2), 1), ("tilt down", (0, -2), 1),
     ("zoom in", (0, 0), 1.02), ("zoom out", (0, 0), 0.98), ("static", (0, 0), 1)],
)  # fmt: skip
def test_camera_moves_are_named(name, shift, zoom):
    rng = np.random.default_rng(0)
    world = cv2.GaussianBlur(rng.integers(0, 255, (300, 300, 3), np.uint8), (0, 0), 2.5)
    world = cv2.normalize(world, None, 0, 255, cv2.NORM_MINMAX)
    frames = []
    for i in range(17):
        scale = zoom**i
        x, y = (64 - 150 * scale + move * i for move in shift)
        matrix = np.array([[scale, 0, x], [0, scale, y]], float)
        frames.append(cv2.warpAffine(world, matrix, (128, 128)))
    found = camera.measure(np.stack(frames))
    assert found.name == name and found.fit > 0.8


def test_a_larger_preset_gives_larger_clips(tmp_path):
    write(tmp_path / "v.mp4", moving(60, 320, 240), fps=16)
    (source,) = list_sources((str(tmp_path / "v.mp4"),))
    (unit,) = Reader(ClipSpec(width_px=208, height_px=112, num_frames=49, fps=16), Limits())(source)
    assert unit.clips[0].pixels.shape == (49, 112, 208, 3)


def test_things_that_move_by_themselves_are_not_camera_motion():
    """A pan to the right over a world in which a quarter of the picture goes the other way."""
    rng = np.random.default_rng(0)
    world = cv2.GaussianBlur(rng.integers(0, 255, (160, 400, 3), np.uint8), (0, 0), 2.5)
    world = cv2.normalize(world, None, 0, 255, cv2.NORM_MINMAX)
    other = world[::-1, ::-1].copy()
    frames = []
    for i in range(17):
        frame = world[16:144, 100 + 2 * i : 228 + 2 * i].copy()
        frame[40:104, 30:94] = other[40:104, 200 - 3 * i : 264 - 3 * i]
        frames.append(frame)
    found = camera.measure(np.stack(frames))
    assert found.name == "pan right" and found.pan == pytest.approx(2 / 128, rel=0.1)
    assert 0.5 < found.fit < 0.9, "the share of the background"
