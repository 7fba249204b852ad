"""Prompt to frames in one process: determinism, resuming, what cannot be made."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kling.diffusion.guidance import Guidance
from kling.errors import CheckpointError, ConfigError
from kling.model.checkpoint import save_part
from kling.model.controls import Controls
from kling.model.dit import DiT
from kling.model.text import TextStates
from kling.pipeline import Generation, Pipeline, build
from kling.presets import get_preset
from kling.scene.plan import ScenePlan

SMALL = {"num_steps": 3, "width_px": 32, "height_px": 32, "num_frames": 9}


@pytest.fixture(scope="module")
def pipeline(tiny_weights: str) -> Pipeline:
    return build("tiny", weights=tiny_weights)


def test_same_request_same_frames_whatever_ran_before(pipeline: Pipeline):
    asked = Generation(prompt="a red ball falls", seed=5, use_plan=False, **SMALL)
    first = pipeline.generate(asked)
    pipeline.generate(Generation(prompt="something else entirely, and longer", seed=6, use_plan=False, **SMALL))
    again = pipeline.generate(asked)
    assert first.shape == (9, 32, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)


@pytest.mark.parametrize("other", [{"seed": 6}, {"prompt": "a blue cube"}, {"negative_prompt": "blur"}])
def test_what_is_asked_changes_what_is_made(pipeline: Pipeline, other: dict):
    base = {"prompt": "a red ball falls", "seed": 5, "use_plan": False, **SMALL}
    first = pipeline.generate(Generation(**base))
    assert not np.array_equal(first, pipeline.generate(Generation(**{**base, **other})))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_a_saved_state_goes_on_to_the_same_latents(pipeline: Pipeline, sampler: str):
    job = pipeline.prepare(Generation(prompt="a cone spins", use_plan=False, sampler=sampler, **SMALL))
    states = list(pipeline.denoise(job))
    assert [s.step for s in states] == [1, 2, 3]
    *_, resumed = pipeline.denoise(job, states[0])
    assert torch.equal(resumed.x, states[-1].x)


def test_decode_yields_frames_early(pipeline: Pipeline):
    job = pipeline.prepare(Generation(prompt="x", use_plan=False, **SMALL))
    assert [len(frames) for frames in pipeline.decode(job.noise)] == [1, 4, 4]


def test_the_plan_reaches_the_model(pipeline: Pipeline):
    job = pipeline.prepare(Generation(prompt="a large red ball falls on the grass", **SMALL))
    assert job.plan is not None and [o.color for o in job.plan.objects] == ["red"]
    assert job.controls is not None and job.controls.objects is not None
    assert job.controls.objects.abs().sum() > 0
    *_, last = pipeline.denoise(job)
    assert torch.isfinite(last.x).all()


def test_guidance_pushes_away_from_what_comes_without_prompt_and_plan(pipeline: Pipeline):
    job = pipeline.prepare(Generation(prompt="a red ball falls", negative_prompt="blur", guidance=3.0, **SMALL))
    assert job.controls is not None
    given = replace(job.controls, first_frame=torch.randn(1, 32, 1, 4, 4))
    job, x, t = replace(job, controls=given), job.noise, torch.full((1,), 0.7)

    def said(text: TextStates, controls: Controls) -> torch.Tensor:
        with torch.no_grad():
            return pipeline.dit(x, t, pipeline.dit.prepare(text.states, text_mask=text.mask, controls=controls))

    bare = Controls(first_frame=given.first_frame, fps=given.fps)
    with_plan, without = said(job.text, given), said(job.negative, bare)
    with torch.no_grad():
        assert torch.allclose(pipeline.velocity(job)(x, t), without + 3.0 * (with_plan - without), atol=1e-5)
        alone = replace(job, guidance=Guidance(scale=1.0))
        assert len(alone.branches) == 1 and torch.allclose(pipeline.velocity(alone)(x, t), with_plan, atol=1e-6)
    assert not torch.allclose(said(job.negative, given), without, atol=1e-3), "the plan counts"


def test_a_clip_is_rolled_out_chunk_by_chunk(pipeline: Pipeline):
    job = pipeline.prepare(Generation(prompt="a red ball falls", **{**SMALL, "num_frames": 25}))
    whole = list(pipeline.roll(job, chunk=7))
    *_, at_once = pipeline.denoise(job)
    assert len(whole) == 1 and torch.allclose(whole[0], at_once.x, atol=1e-4), "one chunk is the clip at once"
    chunks = list(pipeline.roll(job, chunk=2))
    assert [part.shape[2] for part in chunks] == [1, 2, 2, 2]
    again = next(pipeline.roll(job, chunk=2))
    assert torch.equal(again, chunks[0]), "the first chunk waits for no other"
    other = replace(job, noise=torch.cat((job.noise[:, :, :-2], torch.randn(1, 32, 2, 4, 4)), dim=2))
    later = list(pipeline.roll(other, chunk=2))
    assert torch.equal(later[2], chunks[2]) and not torch.allclose(later[3], chunks[3], atol=1e-2)
    begun = replace(job, noise=torch.cat((torch.randn(1, 32, 1, 4, 4), job.noise[:, :, 1:]), dim=2))
    assert not torch.allclose(list(pipeline.roll(begun, chunk=2))[1], chunks[1], atol=1e-2), "it sees what was before"


def test_each_control_can_be_switched_off(pipeline: Pipeline):
    def controls(**switches: bool):
        asked = Generation(prompt="a red ball falls while the camera pans left", **switches, **SMALL)
        return pipeline.prepare(asked).controls

    both, no_physics, no_camera = controls(), controls(physics=False), controls(camera_control=False)
    assert both is not None and no_physics is not None and no_camera is not None
    assert no_physics.objects is None and no_physics.phrases is None and no_camera.camera is None is no_camera.flow
    assert both.floor is not None and no_physics.floor is None is no_camera.floor  # it needs the place, and the camera
    assert torch.equal(no_physics.camera, both.camera) and torch.equal(no_camera.objects, both.objects)
    assert controls(physics=False, camera_control=False) is None is controls(use_plan=False)


def test_a_directors_plan_is_carried_out(pipeline: Pipeline):
    made = pipeline.prepare(Generation(prompt="a red ball rolls to the left", **SMALL))
    text = made.plan.model_dump_json().replace('"color":"red"', '"color":"blue"')
    edited = ScenePlan.model_validate_json(text)
    assert edited.objects[0].phrase == "blue ball"  # what the model is told follows
    again = pipeline.prepare(Generation(prompt="a red ball rolls to the left", plan=edited, **SMALL))
    assert torch.equal(again.controls.camera, made.controls.camera)
    assert not torch.equal(again.controls.phrases, made.controls.phrases)


@pytest.mark.parametrize(
    ("field", "value", "near"),
    [
        ("width_px", 33, "32 and 40"),
        ("height_px", 3, "8 and 16"),
        ("num_frames", 8, "5 and 9"),
        ("num_frames", 0, "1"),
    ],
)
def test_impossible_sizes_name_the_nearest(pipeline: Pipeline, field: str, value: int, near: str):
    with pytest.raises(ConfigError, match=near):
        pipeline.prepare(Generation(prompt="x", **{**SMALL, field: value}))


def test_imported_image_to_video_weights_are_loaded_with_their_own_inputs(tiny_weights: str, tmp_path: Path):
    """Wan's image-to-video layout: more input channels and CLIP states than the preset has."""
    folder = str(tmp_path / "weights")
    shutil.copytree(tiny_weights, folder)
    preset = get_preset("tiny")
    config = replace(preset.dit, in_channels=2 * preset.dit.out_channels + 4, image_dim=20)
    made = DiT(config)
    save_part(folder, "dit", made, preset="tiny")
    pipeline = build("tiny", weights=folder)
    assert pipeline.dit.config == pipeline.preset.dit == config
    assert torch.equal(pipeline.dit.patch_in.weight, made.patch_in.weight)
    with pytest.raises(ConfigError, match="image-to-video"):
        pipeline.prepare(Generation(prompt="x", use_plan=False, **SMALL))


def test_weights_of_other_sizes_than_the_presets_are_refused(tiny_weights: str, tmp_path: Path):
    folder = str(tmp_path / "weights")
    shutil.copytree(tiny_weights, folder)
    save_part(folder, "dit", DiT(replace(get_preset("tiny").dit, num_layers=2)), preset="tiny")
    with pytest.raises(CheckpointError, match="num_layers"):
        build("tiny", weights=folder)


def test_unknown_names(pipeline: Pipeline, tmp_path: Path):
    with pytest.raises(ConfigError, match="dpmpp_2m"):
        pipeline.prepare(Generation(prompt="x", sampler="magic"))
    with pytest.raises(ConfigError, match="tiny"):
        build("huge")
    with pytest.raises(CheckpointError):
        build("tiny", weights=str(tmp_path))
