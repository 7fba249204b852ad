"""The stages before the transformer: VAE and text runs stop, go on, start from weights, and are packed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.playground.command import Options, render
from kling.errors import ConfigError, InputError
from kling.media.video import write_mp4
from kling.model.checkpoint import load_part, read_card
from kling.model.text import TextEncoder
from kling.model.vae import VideoVAE
from kling.presets import ClipSpec, Preset, get_preset
from train.config import TextRun, VAERun
from train.pack import Pack, pack
from train.text import TextState, train_text
from train.vae import batch_of, gradient_distance, pixel_weight, train_vae

TINY = get_preset("tiny")
SMALL = replace(
    TINY,
    vae=replace(TINY.vae, base_dim=8, decoder_base_dim=8, z_dim=8),
    text=replace(TINY.text, width=32, mlp_dim=48, num_layers=1, num_heads=2, head_dim=16),
    clip=ClipSpec(width_px=16, height_px=16, num_frames=5, fps=8),
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six clips of a bright square that moves over a dark ground."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(6):
        frames = np.full((5, 16, 16, 3), 20 * i, np.uint8)
        for f in range(5):
            frames[f, 2 + i : 7 + i, f : f + 5] = (250, 120, 10 * i)
        write_mp4(folder / f"clip-{i}.mp4", frames, fps=8)
    return str(folder)


def vae_run(videos: str, out: Path, **changes) -> VAERun:
    return VAERun(preset="tiny", data=videos, out=str(out), image_steps=2, num_eval=2, threads=1, **changes)


def loaded(weights: Path, preset: Preset) -> VideoVAE:
    vae = VideoVAE(preset.vae).eval()
    load_part(str(weights), "vae", vae)
    return vae


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_vae_run_goes_on_where_it_stopped(videos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train_vae(vae_run(videos, tmp_path / "straight", steps=6), SMALL)
    # Stopped after three steps of the same schedule, as by a kill just after a checkpoint.
    import train.vae as stage

    whole = stage.VAEState.update

    def stops(self, video):
        if self.step == 3:
            self.save(tmp_path / "stopped" / "checkpoints" / "vae.pt")
            raise KeyboardInterrupt
        return whole(self, video)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage.VAEState, "update", stops)
        train_vae(vae_run(videos, tmp_path / "stopped", steps=6), SMALL)
    train_vae(vae_run(videos, tmp_path / "stopped", steps=6), SMALL)
    assert losses(tmp_path / "stopped") == pytest.approx(losses(tmp_path / "straight"), rel=1e-5)


def test_the_decoder_goes_on_learning_while_latents_stay(videos: str, tmp_path: Path):
    first = train_vae(vae_run(videos, tmp_path / "first", steps=3), SMALL)
    frozen = {"start_from": str(first), "freeze_encoder": True}
    second = train_vae(vae_run(videos, tmp_path / "second", steps=3, **frozen), SMALL)
    before, after = loaded(first, SMALL), loaded(second, SMALL)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = before.encode(video)
        assert torch.equal(latents, after.encode(video))
        assert not torch.equal(before.decode(latents), after.decode(latents))


def test_a_frozen_encoder_has_to_come_from_somewhere(videos: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="start-from"):
        vae_run(videos, tmp_path, freeze_encoder=True)


def test_single_frames_come_first_and_every_step_has_as_many_frames(videos: str, tmp_path: Path):
    run = VAERun(preset="tiny", data=videos, out=str(tmp_path), image_steps=3, batch_size=2)
    clips = np.random.default_rng(0).integers(0, 255, (4, 17, 8, 8, 3), np.uint8)
    shapes = [batch_of(run, step, clips, TINY.vae).shape for step in range(60)]
    assert all(shape[2] == 1 for shape in shapes[:3])
    assert {shape[2] for shape in shapes[3:]} == {1, 5, 17}
    assert all(30 <= shape[0] * shape[2] <= 34 for shape in shapes)
    assert torch.equal(batch_of(run, 7, clips, TINY.vae), batch_of(run, 7, clips, TINY.vae))


def test_text_stage_and_packing(videos: str, tmp_path: Path):
    clips = tmp_path / "clips"
    render(Options(num_clips=8, out=str(clips), width=16, height=16, num_frames=5, fps=4.0, workers=1))
    run = TextRun(preset="tiny", data=str(clips), out=str(tmp_path / "text"), steps=2, batch_size=4, threads=1)
    text = train_text(run, SMALL)
    assert len(losses(tmp_path / "text")) == 2
    assert read_card(str(text)).parts["text"].config["width"] == 32
    again = TextState(replace(run, start_from=str(text), out=str(tmp_path / "again")), SMALL, {"red": 0})
    trained = TextEncoder(SMALL.text)
    load_part(str(text), "text", trained)
    for ours, theirs in zip(again.encoder.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    with pytest.raises(InputError, match="weights folders"):
        pack(Pack(preset="tiny", sources=(), out=str(tmp_path / "packed")))


def test_packed_parts_load_from_one_folder(tmp_path: Path, encoders: str):
    written = pack(Pack(preset="tiny", sources=(encoders,), out=str(tmp_path / "packed")))
    assert sorted(line.split(":")[0] for line in written) == ["text", "vae"]
    packed, original = loaded(tmp_path / "packed", TINY), loaded(Path(encoders), TINY)
    for a, b in zip(packed.parameters(), original.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_what_stands_out_counts_more_and_the_mean_stays_one():
    video = torch.full((2, 3, 5, 32, 32), -0.5)
    video[0, 0, :, 12:18, 12:18] = 0.9  # a small red square; the second clip is one flat colour
    weight = pixel_weight(video, contrast=6.0)
    assert weight.shape == (2, 1, 5, 32, 32)
    torch.testing.assert_close(weight.mean(dim=(2, 3, 4)), torch.ones(2, 1))
    torch.testing.assert_close(weight[1], torch.ones_like(weight[1]))
    assert weight[0, 0, :, 12:18, 12:18].min() > 1.5 * weight[0, 0, :, :4, :4].max()
    torch.testing.assert_close(
        gradient_distance(video * 0.9, video, torch.ones_like(weight)), gradient_distance(video * 0.9, video)
    )
    blurred = video.clone()
    blurred[0, 0, :, 11, 12:18] = 0.2  # a soft upper edge of the square
    assert gradient_distance(blurred, video, weight) > 1.5 * gradient_distance(blurred, video)
