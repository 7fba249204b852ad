"""The race against diffusers' pipeline is between two that draw the same clip."""

import numpy as np
import pytest

from kling.bench import wan_pipeline
from kling.errors import InternalError
from kling.pipeline import build


@pytest.fixture(scope="module")
def tiny():
    return build("tiny")


def test_both_draw_the_same_clip_and_padding_would_not(tiny):
    clips = {name: run() for name, run in wan_pipeline.make_runners(tiny, 2).items()}
    assert all(clip.shape == (17, 64, 64, 3) for clip in clips.values())
    assert clips["kling"].std() > 5
    assert np.abs(clips["kling"].astype(int) - clips["diffusers"]).max() <= 2
    assert np.abs(clips["kling"].astype(int) - clips["diffusers, padded"]).max() > 10


def test_pipelines_that_differ_are_not_timed(tiny, monkeypatch):
    dark, light = (np.full((1, 2, 2, 3), level, np.uint8) for level in (10, 20))
    runners = {"kling": lambda: dark, "diffusers": lambda: light, "diffusers, padded": lambda: light}
    monkeypatch.setattr(wan_pipeline, "make_runners", lambda *_: runners)
    monkeypatch.setattr(wan_pipeline, "build", lambda *_, **__: tiny)
    with pytest.raises(InternalError, match="differ by 10"):
        wan_pipeline.tables(wan_pipeline.PipelineRace(steps=(2,)))
