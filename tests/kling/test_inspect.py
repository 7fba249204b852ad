"""`kling inspect` for every preset, any size, and the sizes nobody can have."""

import dataclasses
import json
from math import prod

import pytest

from kling.client.command_line import dispatch
from kling.errors import ConfigError
from kling.model.inspect import Inspect, inspect, text_parameters
from kling.model.text import TextEncoder
from kling.presets import PRESETS, get_preset


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_described(preset, capsys):
    assert dispatch(["inspect", preset, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["preset"] == preset
    assert report["tokens"] * prod(get_preset(preset).dit.patch) == prod(report["latents"][1:])
    assert all(report[name] > 0 for name in report if name.endswith(("flops", "parameters", "sampling_bytes")))


def test_the_table_is_for_people(capsys):
    assert dispatch(["inspect", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "tiny: 64x64, 17 frames" in shown
    assert "320" in shown and "parameters" in shown and "GiB" in shown


def test_the_production_model_at_full_length_over_a_node():
    whole = inspect(Inspect(preset="12b", width=1920, height=1088, duration=10.0, fps=30))
    node = inspect(Inspect(preset="12b", width=1920, height=1088, duration=10.0, fps=30, frame_ranks=2, head_ranks=4))
    assert 11.8e9 < whole.dit_parameters < 12.2e9
    assert whole.num_frames == 301 and whole.latents == (48, 76, 68, 120)
    assert whole.tokens == 76 * 34 * 60
    assert node.tokens_a_rank == 38 * 9 * 60  # 34 rows over 4 ranks: 9 each, two of them copies
    assert whole.layer_bytes_sent == 0 < node.layer_bytes_sent
    assert node.sampling_bytes < whole.sampling_bytes
    assert whole.step_flops < whole.full_attention_step_flops


def test_more_zero_ranks_need_less_memory_each():
    assert (
        inspect(Inspect(preset="12b", training_ranks=64)).training_bytes
        < inspect(Inspect(preset="12b", training_ranks=8)).training_bytes
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "13b"}, "unknown preset.*12b"),
        ({"preset": "tiny", "width": 70}, "nearest are 64 and 72"),
        ({"preset": "tiny", "frames": 16}, "nearest are 13 and 17"),
        ({"preset": "tiny", "head_ranks": 0}, "positive"),
        ({"preset": "tiny", "zero_stage": 5}, "0 to 3"),
    ],
)
def test_impossible_requests_name_the_nearest_possible(given, message):
    with pytest.raises(ConfigError, match=message):
        inspect(Inspect(**given))


def test_text_parameters_equal_the_built_encoder():
    config = dataclasses.replace(get_preset("tiny").text, num_layers=2)
    encoder = TextEncoder(config)
    assert text_parameters(config) == sum(p.numel() for p in encoder.parameters())
