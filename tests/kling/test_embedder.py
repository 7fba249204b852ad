"""The video-text embedder: what it tells apart, what it notices, and how it is taught."""

import os
from pathlib import Path

import numpy as np
import pytest

from data import retrieval, train_embedder
from data.playground import captions, mistakes, splits
from data.playground.clip import Format, make, write
from kling.errors import CheckpointError, InputError
from kling.prompt.graph import SceneGraph
from kling.quality import semantic
from kling.sight import embedder
from tests.kling.degradations import LEVELS, identity_swap


@pytest.fixture(scope="module")
def rendered():
    """Clips of the validation split."""
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    return [make(splits.seed_of("val", number), Format()) for number in range(920, 928)]


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory) -> Path:
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    folder = tmp_path_factory.mktemp("clips")
    for number in range(8):
        write(str(folder), splits.seed_of("train", number), Format())
    return folder


def test_clips_and_captions_meet(rendered):
    """Eight clips among their own captions, and each against captions that are wrong in one thing."""
    chosen = embedder.packaged()
    clips = np.stack([chosen.embed_clip(frames) for frames, _ in rendered])
    assert np.allclose(np.linalg.norm(clips, axis=1), 1, atol=1e-5)
    sidecars = [sidecar for _, sidecar in rendered]
    found = retrieval.retrieved(chosen, clips, sidecars, among=8)
    assert np.mean([np.mean(hits) for hits in found.values()]) >= 0.6, found
    told = retrieval.mistakes(chosen, clips, sidecars)
    for name in ("color", "setting"):  # what it tells apart so far; docs/benchmarks/curation.md has all
        assert np.mean(told[f"right caption, not one wrong in: {name}"]) >= 0.6, (name, told)
    backwards = retrieval.retrieved(chosen, -clips, sidecars, among=8)
    assert np.mean([np.mean(hits) for hits in backwards.values()]) < 0.3, "what is measured can fail"


def test_another_thing_in_its_place_is_noticed(rendered):
    """The learned part alone, on the world that it knows: the score falls when much is exchanged. Not by how much."""
    for frames, _ in rendered[:4]:
        spoiled = [identity_swap(frames, level, np.random.default_rng(0)) for level in LEVELS]
        scores = [semantic.measure(clip, embedder.packaged()).score for clip in spoiled]
        assert scores[0] > max(scores[2:]), scores


def test_every_size_and_length_is_taken(rendered):
    frames, _ = rendered[0]
    chosen = embedder.packaged()
    large = np.repeat(np.repeat(frames, 3, axis=1), 3, axis=2)
    assert chosen.embed_clip(frames) @ chosen.embed_clip(large) > 0.9
    assert chosen.embed_clip(frames[:1]).shape == (embedder.WIDTH,)
    assert chosen.embed_frames(frames[:, :40]).shape == (len(frames), embedder.WIDTH)
    assert np.isfinite(chosen.embed_text(["", "!?", "a" * 5000, "赤いボール" * 500])).all()
    with pytest.raises(InputError):
        chosen.embed_frames(frames[:0])
    assert semantic.measure(frames[:1], embedder.packaged()).score == 1.0


def test_weights_of_something_else_are_told(tmp_path):
    with pytest.raises(CheckpointError, match="embedder's weights"):
        embedder.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="embedder's weights"):
        embedder.load(embedder.WEIGHTS.with_name("scene.safetensors"))


def test_mistakes_are_mistakes():
    """Each says something that the graph does not say, in both languages; what cannot be got wrong gives None."""
    made = 0
    for seed in range(12):
        sidecar_graph = _graph(seed)
        for name, mistake in mistakes.MISTAKES.items():
            rng = np.random.default_rng(seed)
            wrong = mistake(sidecar_graph, rng)
            if wrong is None:
                continue
            made += 1
            assert not wrong.matches(sidecar_graph), name
            languages: tuple[captions.Language, ...] = ("en", "ja")
            for language in languages:
                texts = [
                    captions.say(g, language, "direct", np.random.default_rng(1), "val") for g in (sidecar_graph, wrong)
                ]
                assert texts[0] != texts[1], (name, texts)
    assert made > 40
    assert mistakes.wrong_action(SceneGraph(), np.random.default_rng(0)) is None


def _graph(seed: int) -> SceneGraph:
    from data.playground.sample import sample

    return sample(splits.seed_of("val", seed))


def test_teaching_that_was_interrupted_ends_as_if_it_was_not(trained_on, tmp_path, monkeypatch):
    def run(name: str) -> bytes:
        out = tmp_path / f"{name}.safetensors"
        code = train_embedder.command(
            ["--clips", str(trained_on), "--work", str(tmp_path / name), "--out", str(out), "--steps", "4",
             "--batch", "8", "--save-every", "1"]
        )  # fmt: skip
        assert code == 0
        return out.read_bytes()

    straight = run("straight")
    losses, calls = train_embedder.Teacher.losses, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return losses(self, *arguments)

    monkeypatch.setattr(train_embedder.Teacher, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("halting")
    assert run("halting") == straight
    assert len(calls) == 5, "two steps before, the one that was cut off, two after"
    taught = embedder.load(tmp_path / "straight.safetensors")
    assert np.isfinite(taught.embed_text(["a red ball"])).all()
    with pytest.raises(InputError, match="no playground clips"):
        train_embedder.command(["--clips", str(tmp_path / "straight"), "--work", str(tmp_path / "w")])
