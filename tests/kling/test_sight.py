"""Labels and annotation: on rendered clips that no network was taught on, and on real footage."""

import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from kling.bench import camera_reader
from kling.bench.objects import lasting
from kling.bench.reader import read
from kling.bench.tracks import find
from kling.errors import CheckpointError, InputError
from kling.media.video import read_frames
from kling.quality import motion
from kling.scene.plan import Sidecar
from kling.sight import annotation, crops, labels, moving, scene, things
from kling.sight.examples import counts, pair, soften, truths
from tests.data.raw_files import footage


@pytest.fixture(scope="module")
def rendered() -> list[tuple[np.ndarray, Sidecar]]:
    """Eight clips of the validation split."""
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from data.playground import splits
    from data.playground.clip import Format, make

    return [make(splits.seed_of("val", number), Format()) for number in range(900, 908)]


@pytest.fixture(scope="module")
def looked(rendered) -> list[labels.Sight]:
    return [labels.see(frames, fps=sidecar.fps) for frames, sidecar in rendered]


def ride(num_frames: int = 17) -> np.ndarray:
    """Real footage without a cut, 160 px wide."""
    frames = read_frames(footage() / "bikes.mp4", max_frames=140 + num_frames)[0][140:]
    return np.stack([cv2.resize(frame, (160, 68), interpolation=cv2.INTER_AREA) for frame in frames])


def test_rendered_clips_are_labelled(rendered, looked):
    """Places, lights and colours nearly always right; a wrong label would be found wrong."""
    right = said = seen = there = 0
    for sight, (_, sidecar) in zip(looked, rendered, strict=True):
        environment = sidecar.plan.environment
        assert sight.known and sight.setting == environment.setting
        true = truths(sidecar)
        found = pair([thing.track for thing in sight.things], true)
        seen, there = seen + len(found), there + sum(counts(one) for one in true)
        for i, j in found.items():
            said += sight.things[j].color is not None
            right += sight.things[j].color == sidecar.plan.objects[i].color
    assert seen >= 0.85 * there
    assert said >= 0.8 * seen and right >= 0.9 * said


def test_the_number_of_things_is_told_where_it_is_sure(rendered, looked, monkeypatch):
    said = [
        (sight.number, sum(map(counts, truths(sidecar)))) for sight, (_, sidecar) in zip(looked, rendered, strict=True)
    ]
    told = [number == true for number, true in said if number is not None]
    assert len(told) >= len(said) / 2 and sum(told) >= 0.9 * len(told)
    frames, sidecar = rendered[0]
    monkeypatch.setitem(labels.SURE, "number", 1.1)
    unsure = labels.see(frames, fps=sidecar.fps)
    assert unsure.number is None and unsure.things


def test_what_is_seen_does_not_depend_on_the_frame_rate(rendered):
    """At 24 frames a second every third is looked at: the same labels, and tracks for all frames."""
    frames, _ = rendered[0]
    slow = labels.see(frames, fps=8.0)
    fast = labels.see(np.repeat(frames, 3, axis=0), fps=24.0)
    assert [(t.color, t.shape) for t in slow.things] == [(t.color, t.shape) for t in fast.things]
    told = annotation.from_sight(fast, fps=24.0, num_frames=51)
    slowly = annotation.from_sight(slow, fps=8.0, num_frames=17)
    for a, b in zip(told.things, slowly.things, strict=True):
        assert a.place[24] == b.place[8] and a.slide[24] == b.slide[8]


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_other_worlds_are_not_named(name):
    frames, fps = read_frames(footage() / name, max_frames=60)
    sight = labels.see(frames[30:], fps=fps)
    assert not sight.known and sight.things == () and sight.setting is None


def test_nothing_and_noise_are_not_the_playground():
    rng = np.random.default_rng(0)
    for frames in (np.full((9, 64, 64, 3), 128, np.uint8), rng.integers(0, 255, (9, 64, 64, 3), dtype=np.uint8)):
        assert not labels.see(frames, fps=8.0).known


def test_soft_pictures_are_still_the_playground(rendered):
    frames, sidecar = rendered[1]
    sight = labels.see(soften(frames, np.random.default_rng(3)), fps=8.0)
    assert sight.known and sight.setting == sidecar.plan.environment.setting


def test_annotation_of_truth_is_the_simulation(rendered):
    """Velocities agree with the places' own change, contacts and order with the track."""
    for _, sidecar in rendered:
        told = annotation.from_truth(sidecar.track)
        assert told.origin == "simulation" and told.num_frames == sidecar.num_frames
        for thing, moving_ in zip(told.things, sidecar.track.objects, strict=True):
            assert thing.velocity_m_s == moving_.velocity_m_s and thing.position_m == moving_.position_m
            box = moving_.box[0]
            if box is not None and moving_.visibility[0] > 0.9:
                middle = (box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5
                assert np.allclose(thing.place[0], middle, atol=0.04), "the centre is near the box's middle"
        depth = {o.id: o.depth_m for o in sidecar.track.objects}
        for f in (0, sidecar.num_frames - 1):
            assert list(told.order[f]) == sorted(depth, key=lambda name: depth[name][f])
        assert {(c.frame, c.a, c.b) for c in told.contacts} == {(c.frame, c.a, c.b) for c in sidecar.track.contacts}
        assert annotation.Annotation.model_validate_json(told.model_dump_json()) == told


@pytest.mark.parametrize("one", range(8))
def test_mirroring_a_motion_is_what_mirroring_the_picture_does(one: int):
    motion = np.zeros(8)
    motion[one] = 0.3
    for x, y in ((0.2, 0.1), (-0.4, 0.3), (0.05, -0.5)):
        across, along = moving.background_at(motion, -x, y)
        assert moving.background_at(camera_reader.MIRROR * motion, x, y) == pytest.approx((-across, along))


def test_numbers_of_a_thing_mirror_as_its_picture_does(rendered):
    """Twice mirrored is as before; and a mirrored clip gives the mirrored numbers, but for what flow cannot tell."""
    order, signs = crops.mirror()
    assert (order[order] == np.arange(crops.NUMBERS)).all() and (signs == signs[order]).all()

    def numbers(frames: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        reading = read(frames)
        under = crops.ground(reading)
        tracks = lasting(find(reading), len(frames))
        of_color = [int(track.color_shares.argmax()) for track in tracks]
        once = [track for track in tracks if of_color.count(int(track.color_shares.argmax())) == 1]
        seen = {int(track.color_shares.argmax()): crops.views(track, reading, under) for track in once}
        return {(color, f): v.numbers[f] for color, v in seen.items() for f in np.flatnonzero(v.seen)}

    right, wrong = [], []
    for frames, _ in rendered[:4]:
        before, after = numbers(frames), numbers(np.ascontiguousarray(frames[:, :, ::-1]))
        for key in before.keys() & after.keys():
            right.append(np.abs(after[key] - before[key][order] * signs))
            wrong.append(np.abs(after[key] - before[key]))
    assert len(right) > 50
    assert np.median(right, axis=0).max() < 0.3, "each of them"
    assert np.median(wrong, axis=0).max() > 0.4, "as they are they differ"


@pytest.mark.parametrize("speed", [(3.0, 0.0), (-2.0, 1.5)])
def test_a_thing_that_moves_over_real_footage_is_found_with_its_velocity(speed):
    """A patch of other footage moves over a ride: found, and its velocity right to a tenth."""
    frames, fps = ride(), 8.0
    patch = cv2.resize(read_frames(footage() / "carphone_pristine.mp4", max_frames=1)[0][0][40:120, 60:140], (26, 26))
    for n, frame in enumerate(frames):
        shift = np.array([[1, 0, 66 + speed[0] * (n - 8)], [0, 1, 22 + speed[1] * (n - 8)]])
        moved = cv2.warpAffine(patch, shift, (160, 68), flags=cv2.INTER_LINEAR)
        inside = cv2.warpAffine(np.ones((26, 26), np.uint8), shift, (160, 68), flags=cv2.INTER_NEAREST) > 0
        frame[inside] = moved[inside]
    grey = motion.shrink(frames)
    told = annotation.from_regions(moving.regions(motion.flows(grey), grey), size_px=(160, 68), fps=fps, num_frames=17)
    assert told.origin == "regions" and told.order == () and told.things
    slides = np.array([slide for slide in told.things[0].slide if slide is not None])
    true = np.array(speed) / 68 * fps
    assert len(slides) >= 3
    assert np.linalg.norm(np.median(slides, axis=0) - true) <= 0.1 * np.linalg.norm(true)


def test_a_camera_alone_moves_nothing():
    """What goes along with the background is not a thing that moves."""
    wide = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (90, 200, 3)).astype(np.uint8), (0, 0), 2.0)
    frames = np.stack([wide[10:74, 20 + 2 * n : 84 + 2 * n] for n in range(12)])
    grey = motion.shrink(frames)
    assert moving.regions(motion.flows(grey), grey) == []


def test_bad_input_is_one_line(tmp_path):
    with pytest.raises(InputError, match="two frames"):
        labels.see(np.zeros((1, 64, 64, 3), np.uint8), fps=8.0)
    (tmp_path / "x.safetensors").write_bytes(b"not weights")
    for name in ("x", "nothing"):
        with pytest.raises(CheckpointError, match=rf"{name}\.safetensors"):
            things.load(tmp_path / f"{name}.safetensors")


def test_clouds_tell_places_apart_and_what_is_far_from_all():
    rng = np.random.default_rng(0)
    names = [scene.NAMES[i % 18] for i in range(1800)]
    rows = np.stack([scene.NAMES.index(name) * np.ones(5) + 0.1 * rng.normal(size=5) for name in names])
    clouds = scene.fit(rows, names)
    assert scene.NAMES[int(clouds.away(rows[7]).argmin())] == names[7]
    assert clouds.away(rows[7]).min() < 1.5 * clouds.usual < clouds.away(rows[7] + 40).min()
    assert replace(clouds, usual=1.0).usual == 1.0
