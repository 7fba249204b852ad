"""A preset's name is its size."""

import pytest
import torch

from kling.errors import ConfigError
from kling.model.dit import DiT
from kling.presets import PRESETS, get_preset

# Wan 2.1 calls 1.42 billion "1.3B"; the published name is kept, since people look for it.
BILLIONS = {"300m": 0.3, "1.3b": 1.42, "5b": 5.0, "12b": 12.0, "14b": 14.3}


def count(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in DiT(get_preset(name).dit).parameters())


@pytest.mark.parametrize("name", BILLIONS)
def test_a_name_equals_its_parameter_count(name: str):
    assert count(name) / 1e9 == pytest.approx(BILLIONS[name], rel=0.05)


def test_12b_has_between_11_8_and_12_2_billion_with_its_controls():
    assert 11.8e9 <= count("12b") <= 12.2e9


def test_tiny_fits_a_laptop():
    assert count("tiny") < 5e6


def test_eight_ranks_divide_the_heads_of_12b():
    assert get_preset("12b").dit.num_heads % 8 == 0


@pytest.mark.parametrize("name", PRESETS)
def test_parts_of_a_preset_fit_each_other(name: str):
    preset = get_preset(name)
    assert preset.dit.in_channels == preset.dit.out_channels == preset.vae.z_dim
    assert preset.dit.text_dim == preset.text.width
    frames = preset.vae.latent_frames(preset.clip.num_frames)
    assert frames % preset.dit.patch[0] == 0
    for size, patch in ((preset.clip.height_px, preset.dit.patch[1]), (preset.clip.width_px, preset.dit.patch[2])):
        assert size % (preset.vae.stride_px * patch) == 0


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'13b'.*12b, 14b"):
        get_preset("13b")
