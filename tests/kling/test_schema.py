"""The wire contract: what passes, what does not, and that nothing is lost on the way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kling.schema import MAX_SEED, CameraControl, GenerateRequest, Granted, VideoConfig

configs = st.builds(
    VideoConfig,
    resolution=st.none() | st.builds("{}x{}".format, st.integers(16, 4096), st.integers(16, 4096)),
    duration=st.none() | st.floats(0.01, 60),
    fps=st.none() | st.integers(1, 60),
    seed=st.none() | st.integers(0, MAX_SEED),
    guidance=st.none() | st.floats(0, 20),
    steps=st.none() | st.integers(1, 200),
    camera_control=st.none()
    | st.builds(CameraControl, type=st.sampled_from(["orbit", "pan"]), direction=st.sampled_from(["left", "right"]))
    | st.builds(CameraControl, type=st.just("static")),
)
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200).filter(str.strip)


@given(texts, configs)
def test_a_request_survives_the_wire(prompt: str, config: VideoConfig):
    request = GenerateRequest(prompt=prompt, config=config)
    assert GenerateRequest.model_validate_json(request.model_dump_json()) == request


@given(st.text())
def test_any_prompt_is_taken_or_refused_but_never_breaks(text: str):
    try:
        request = GenerateRequest(prompt=text)
    except ValidationError:
        return
    assert request.prompt == text.strip() and request.prompt.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["duration", "guidance", "deadline_s"])
def test_numbers_are_finite(field: str, value: float):
    with pytest.raises(ValidationError):
        VideoConfig.model_validate({field: value})


def test_unknown_fields_are_refused_by_requests_and_ignored_in_answers():
    with pytest.raises(ValidationError):
        GenerateRequest.model_validate({"prompt": "x", "promt": "y"})
    values = {"width_px": 64, "height_px": 64, "num_frames": 17, "fps": 8, "num_steps": 1, "guidance": 1.0, "seed": 0}
    assert Granted.model_validate({**values, "from_the_future": 1}).duration_s == 2.0
